package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/hubbub-chat/hubbub/internal/account"
	"github.com/hubbub-chat/hubbub/internal/auth"
	"github.com/hubbub-chat/hubbub/internal/config"
	"github.com/hubbub-chat/hubbub/internal/damage"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/merr"
	"github.com/hubbub-chat/hubbub/internal/obs"
	"github.com/hubbub-chat/hubbub/internal/room"
	"github.com/hubbub-chat/hubbub/internal/storage"
)

// The settings of a deployment that are kept in its store.
const (
	metaPartitions = "partitions"
	metaServerName = "server_name"
	metaMaster     = "master_secret"
	metaFirstAdmin = "first_admin_token"
	metaWebPushKey = "web_push_key"
)

// storeDir is the place of the embedded store in the data directory.
const storeDir = "store"

// openedStore is the store of the process with what the deployment fixed when it
// was created.
type openedStore struct {
	storage.Store
	// ready reports whether the store answers; failed is closed when it never
	// will again, and err says why.
	ready func(context.Context) error
	// fit says, without asking the store, that it was found not to answer; nil for a
	// store inside the process.
	fit        func() error
	failed     <-chan struct{}
	err        func() error
	partitions int
	generation uint32
	secrets    *auth.Secrets
	// meta returns a setting, nil if there is none. checkpoint copies the embedded
	// store; nil for others.
	meta       func(ctx context.Context, name string) ([]byte, error)
	checkpoint func(ctx context.Context, dir string) error
	backups    *backups
	// damage is told of rows that cannot be read.
	damage *damage.Log
}

var (
	_ storage.LastReader = (*openedStore)(nil)
	_ storage.Renewer    = (*openedStore)(nil)
)

// Last implements storage.LastReader, as the store itself does.
func (s *openedStore) Last(ctx context.Context, t storage.Table, entity string, ps ...ids.Partition) ([]string, error) {
	return storage.Last(ctx, s.Store, t, entity, ps...)
}

// Renew implements storage.Renewer, as the store itself does.
func (s *openedStore) Renew(ctx context.Context, leases []storage.Lease, ttl time.Duration) []error {
	return storage.Renew(ctx, s.Store, leases, ttl)
}

func openStore(ctx context.Context, cfg config.Config, reg prometheus.Registerer, log *slog.Logger) (*openedStore, error) {
	s, err := openBackend(ctx, cfg, reg, log)
	if err != nil {
		return nil, err
	}
	if err := s.settle(ctx, cfg); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// openBackend opens a store, whatever deployment it is of.
func openBackend(ctx context.Context, cfg config.Config, reg prometheus.Registerer, log *slog.Logger) (*openedStore, error) {
	if err := os.MkdirAll(cfg.Server.DataDir, 0o700); err != nil {
		return nil, fmt.Errorf("create data directory: %w", err)
	}
	if urls := cfg.Server.PostgresURLs(); urls != nil {
		return openPostgres(ctx, urls, reg, log)
	}
	return openPebble(filepath.Join(cfg.Server.DataDir, storeDir), reg, log)
}

// settle reads what was fixed when the deployment was created, or fixes it.
func (s *openedStore) settle(ctx context.Context, cfg config.Config) error {
	if err := s.whole(ctx); err != nil {
		return err
	}
	fixed, err := s.InitMeta(ctx, metaPartitions, []byte(strconv.Itoa(cfg.Server.Partitions)))
	if err != nil {
		return fmt.Errorf("read settings: %w", err)
	}
	if s.partitions, err = strconv.Atoi(string(fixed)); err != nil {
		return fmt.Errorf("read number of partitions: %w", err)
	}
	if s.partitions != cfg.Server.Partitions {
		return fmt.Errorf("this data has %d partitions, which was fixed when it was created, and the configuration says %d: set server.partitions = %d",
			s.partitions, cfg.Server.Partitions, s.partitions)
	}
	name, err := s.InitMeta(ctx, metaServerName, []byte(cfg.Server.Name))
	if err != nil {
		return fmt.Errorf("read settings: %w", err)
	}
	if string(name) != cfg.Server.Name {
		return fmt.Errorf("this data belongs to the server %q, and the configuration says %q: set server.name = %q, or use another data directory",
			name, cfg.Server.Name, name)
	}
	master, err := s.InitMeta(ctx, metaMaster, auth.NewMaster())
	if err != nil {
		return fmt.Errorf("read settings: %w", err)
	}
	s.secrets, err = auth.NewSecrets(master)
	return err
}

// firstAdminToken returns the registration token of the first administrator, ""
// once there is an account, or where no token is needed.
func (s *Server) firstAdminToken(ctx context.Context) (string, error) {
	if s.cfg.Registration.Mode != config.RegistrationToken {
		return "", nil
	}
	for p := range s.store.partitions {
		if found, err := s.hasPeople(ctx, ids.Partition(p)); found || err != nil {
			return "", err
		}
	}
	token, err := s.store.InitMeta(ctx, metaFirstAdmin, []byte(auth.NewToken(auth.Registration, "")))
	if err != nil {
		return "", fmt.Errorf("first administrator: %w", err)
	}
	_, err = s.node.Do(ctx, &account.UseRegToken{
		Token: string(token), Use: account.CreateRegToken, New: account.RegToken{UsesAllowed: 1, Admin: true},
	})
	if err != nil && !merr.Is(err, merr.InvalidParam) { // it is there already
		return "", fmt.Errorf("first administrator: %w", err)
	}
	return string(token), nil
}

// Fsck checks a store offline and writes what it finds to out. The error counts
// what is wrong.
func Fsck(ctx context.Context, cfg config.Config, out io.Writer) error {
	if cfg.Server.Store == config.StoreEmbedded { // opening would create one
		if _, err := os.Stat(filepath.Join(cfg.Server.DataDir, storeDir)); err != nil {
			return fmt.Errorf("check: %w", err)
		}
	}
	s, err := openStore(ctx, cfg, prometheus.NewRegistry(), obs.Discard())
	if err != nil {
		return fmt.Errorf("check: %w", err)
	}
	r, err := room.Check(ctx, s, s.partitions, func(problem string) { _, _ = fmt.Fprintln(out, problem) })
	if err := errors.Join(err, s.Close()); err != nil {
		return fmt.Errorf("check: %w", err)
	}
	if _, err := fmt.Fprintf(out, "%d rooms, %d events\n", r.Rooms, r.Events); err != nil {
		return fmt.Errorf("check: %w", err)
	}
	if r.Problems > 0 {
		return fmt.Errorf("check: %d problems", r.Problems)
	}
	return nil
}
