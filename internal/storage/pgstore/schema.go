package pgstore

import (
	"context"
	"crypto/rand"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	goosedb "github.com/pressly/goose/v3/database"
	"github.com/pressly/goose/v3/lock"

	"github.com/hubbub-chat/hubbub/internal/storage"
)

//go:embed migrations/*.sql
var migrations embed.FS

// migrationTable is where the version of the schema stands.
const migrationTable = "hubbub_schema"

// A node that waits for another one to migrate looks each lockPeriod seconds whether it
// is done, lockTries times at most.
const (
	lockPeriod = 1
	lockTries  = 300
)

// migrate brings the schema of a database up to date. Of several nodes that start
// together, one does it and the others wait; if there is nothing to do, nobody waits.
func migrate(ctx context.Context, cfg *pgx.ConnConfig) error {
	db := stdlib.OpenDB(*cfg)
	defer func() { _ = db.Close() }()
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return fmt.Errorf("migrations: %w", err)
	}
	table, err := goosedb.NewStore(goose.DialectPostgres, migrationTable)
	if err != nil {
		return fmt.Errorf("migrations: %w", err)
	}
	locker, err := lock.NewPostgresSessionLocker(lock.WithLockTimeout(lockPeriod, lockTries))
	if err != nil {
		return fmt.Errorf("migrations: %w", err)
	}
	p, err := goose.NewProvider("", db, files, goose.WithStore(table), goose.WithSessionLocker(locker))
	if err != nil {
		return fmt.Errorf("migrations: %w", err)
	}
	have, want, err := p.GetVersions(ctx)
	if err != nil {
		return fmt.Errorf("read the version of the schema: %w", err)
	}
	if have > want {
		return fmt.Errorf("its schema has version %d, this program knows %d: start the newer program: %w", have, want, storage.ErrNewerFormat)
	}
	if have == want {
		return nil
	}
	if _, err := p.Up(ctx); err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	return nil
}

// checkPlaces makes sure that the databases are those of this deployment, in
// their order: a partition that was looked for elsewhere would seem empty.
func (s *Store) checkPlaces(ctx context.Context, urls []string) error {
	spread := len(s.shards)
	for i := range s.shards {
		want := fmt.Sprintf("%d of %d", i+1, spread)
		have, err := s.initMeta(ctx, i, metaPlace, []byte(want))
		if err != nil {
			return op("place", err)
		}
		var first, n int
		if i == 0 && string(have) != want {
			// The deployment may have got further databases since.
			if _, err := fmt.Sscanf(string(have), "%d of %d", &first, &n); err == nil && first == 1 && n >= 1 && n < spread {
				spread, want = n, string(have)
			}
		}
		if string(have) != want {
			return fmt.Errorf("pgstore: database %d of the configuration (%s) is number %s of its deployment: name all databases in their order",
				i+1, withoutPassword(urls[i]), have)
		}
	}
	if err := s.checkDeployment(ctx); err != nil {
		return err
	}
	m, err := s.readPlaces(ctx, spread)
	if err != nil {
		return err
	}
	s.places.Store(m)
	return nil
}

// checkDeployment makes sure that all databases are of one deployment, whose name
// the first one drew.
func (s *Store) checkDeployment(ctx context.Context) error {
	name, err := s.initMeta(ctx, 0, metaDeployment, []byte(rand.Text()))
	if err != nil {
		return op("deployment", err)
	}
	for i := 1; i < len(s.shards); i++ {
		have, err := s.initMeta(ctx, i, metaDeployment, name)
		if err != nil {
			return op("deployment", err)
		}
		if string(have) != string(name) {
			return fmt.Errorf("pgstore: database %d belongs to another deployment than the first", i+1)
		}
	}
	return nil
}

// The settings of a database itself; those of the deployment have other names.
const (
	metaPlace      = "pgstore/place"
	metaDeployment = "pgstore/deployment"
)

// withoutPassword is a URL for messages.
func withoutPassword(url string) string {
	cfg, err := pgx.ParseConfig(url)
	if err != nil {
		return "malformed"
	}
	return fmt.Sprintf("%s on %s", cfg.Database, cfg.Host)
}

// InitMeta implements storage.Store.
func (s *Store) InitMeta(ctx context.Context, name string, value []byte) ([]byte, error) {
	if err := s.begin(ctx); err != nil {
		return nil, err
	}
	defer s.mu.RUnlock()
	if err := storage.CheckMeta(name, value); err != nil {
		return nil, op("setting", err)
	}
	if strings.HasPrefix(name, "pgstore/") {
		return nil, op("setting", fmt.Errorf("the name %q is the store's own: %w", name, storage.ErrInvalid))
	}
	v, err := s.initMeta(ctx, 0, name, value)
	return v, op("setting", err)
}

// Meta returns a setting of the deployment, nil if there is none.
func (s *Store) Meta(ctx context.Context, name string) (have []byte, err error) {
	if err := s.begin(ctx); err != nil {
		return nil, err
	}
	defer s.mu.RUnlock()
	if err := storage.CheckMeta(name, nil); err != nil {
		return nil, op("setting", err)
	}
	err = s.again(ctx, 0, func(ctx context.Context, c *pgxpool.Conn) error {
		err := c.QueryRow(ctx, "SELECT value FROM hubbub_meta WHERE name = $1", []byte(name)).Scan(&have)
		if errors.Is(err, pgx.ErrNoRows) {
			return nil
		}
		return err
	})
	return have, op("setting", err)
}

// initMeta is one transaction of two statements: the first waits for others that
// set the same name, the second sees what they set.
func (s *Store) initMeta(ctx context.Context, shard int, name string, value []byte) (have []byte, err error) {
	if value == nil {
		value = []byte{}
	}
	err = s.again(ctx, shard, func(ctx context.Context, c *pgxpool.Conn) error {
		var b pgx.Batch
		b.Queue("INSERT INTO hubbub_meta (name, value) VALUES ($1, $2) ON CONFLICT DO NOTHING", []byte(name), value)
		b.Queue("SELECT value FROM hubbub_meta WHERE name = $1", []byte(name))
		r := c.SendBatch(ctx, &b)
		_, err := r.Exec()
		if err == nil {
			err = r.QueryRow().Scan(&have)
		}
		return errors.Join(err, r.Close())
	})
	if have == nil {
		have = []byte{}
	}
	return have, err
}
