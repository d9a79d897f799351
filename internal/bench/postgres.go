package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	osuser "os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

// postgres is a PostgreSQL server: one of the run's own, or one that runs already, in
// which the run makes databases and removes them.
type postgres struct {
	// url is that of a database that is there already.
	url string
	// pid is the server's first process, 0 if it is not on this machine.
	pid int
	cmd *exec.Cmd // nil if it ran already
	dir string
	log bytes.Buffer
}

// attachPostgres describes a server that runs already.
func attachPostgres(ctx context.Context, at string) (*postgres, error) {
	p := &postgres{url: at}
	c, err := pgx.Connect(ctx, at)
	if err != nil {
		return nil, fmt.Errorf("connect to PostgreSQL: %w", err)
	}
	// The process of a connection ends with it. Of the same name and number on another
	// machine nothing is known.
	backend := int(c.PgConn().PID())
	if name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", backend)); err == nil && strings.HasPrefix(string(name), "postgres") {
		if stat, err := readStat(backend); err == nil {
			p.pid = stat.parent
		}
	}
	if err := c.Close(ctx); err != nil {
		return nil, fmt.Errorf("PostgreSQL: %w", err)
	}
	return p, nil
}

// startPostgres starts a server with its data in a directory, with the settings of a
// small server and all that makes a commit durable.
func startPostgres(ctx context.Context, dir string) (*postgres, error) {
	bin, err := postgresPrograms()
	if err != nil {
		return nil, err
	}
	addr, err := freeAddr(ctx)
	if err != nil {
		return nil, err
	}
	_, port, _ := strings.Cut(addr, ":")
	p := &postgres{url: "postgres://hubbub@" + addr + "/postgres", dir: filepath.Join(dir, "postgres")}
	// It refuses to run as root, and so needs a directory that another user reaches.
	cred, err := p.makeDir()
	if err != nil {
		return nil, errors.Join(err, p.close())
	}
	data := filepath.Join(p.dir, "data")
	command := func(name string, args ...string) *exec.Cmd {
		c := exec.Command(filepath.Join(bin, name), args...)
		c.Dir, c.Env = p.dir, []string{"LC_ALL=C", "PATH=" + os.Getenv("PATH")}
		c.SysProcAttr = childAttributes()
		c.SysProcAttr.Credential = cred
		return c
	}
	if out, err := command("initdb", "-D", data, "-U", "hubbub", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync").CombinedOutput(); err != nil {
		return nil, errors.Join(fmt.Errorf("initdb: %w: %s", err, out), p.close())
	}
	p.cmd = command("postgres", "-D", data, "-p", port, "-k", p.dir, "-c", "listen_addresses=127.0.0.1", "-c", "max_connections=200", "-c", "shared_buffers=256MB", "-c", "max_wal_size=4GB")
	p.cmd.Stdout, p.cmd.Stderr = &p.log, &p.log
	if err := p.cmd.Start(); err != nil {
		p.cmd = nil
		return nil, errors.Join(fmt.Errorf("start PostgreSQL: %w", err), p.close())
	}
	p.pid = p.cmd.Process.Pid
	if err := p.await(ctx); err != nil {
		return nil, errors.Join(err, p.close())
	}
	return p, nil
}

func postgresPrograms() (string, error) {
	dirs, _ := filepath.Glob("/usr/lib/postgresql/*/bin") // the pattern is well formed
	slices.Reverse(dirs)
	if path, err := exec.LookPath("initdb"); err == nil {
		dirs = append([]string{filepath.Dir(path)}, dirs...)
	}
	for _, dir := range dirs {
		if _, err := os.Stat(filepath.Join(dir, "postgres")); err == nil {
			return dir, nil
		}
	}
	return "", errors.New("no PostgreSQL: install it (Debian: postgresql), or name one that runs with --store")
}

// makeDir makes the server's directory and says whom it runs as, nil for who runs this.
func (p *postgres) makeDir() (*syscall.Credential, error) {
	if err := os.MkdirAll(p.dir, 0o700); err != nil || os.Getuid() != 0 {
		return nil, err
	}
	for dir := filepath.Dir(p.dir); dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
		if st, err := os.Stat(dir); err == nil && st.Mode()&0o001 == 0 {
			if err := os.Chmod(dir, st.Mode().Perm()|0o011); err != nil {
				return nil, err
			}
		}
	}
	u, err := osuser.Lookup("postgres")
	if err != nil {
		if u, err = osuser.Lookup("nobody"); err != nil {
			return nil, fmt.Errorf("a user for PostgreSQL: %w", err)
		}
	}
	uid, _ := strconv.Atoi(u.Uid) // numbers on Linux
	gid, _ := strconv.Atoi(u.Gid)
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, os.Chown(p.dir, uid, gid)
}

// await waits until the server answers.
func (p *postgres) await(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startPatience)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		var one int
		err := p.query(ctx, p.url, "SELECT 1", &one)
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("PostgreSQL does not answer: %w", err)
		}
	}
}

// close ends a server of the run's own.
func (p *postgres) close() error {
	if p.cmd != nil {
		_ = p.cmd.Process.Signal(syscall.SIGINT) // if it is gone, so be it
		_ = p.cmd.Wait()
	}
	if p.dir != "" {
		return os.RemoveAll(p.dir)
	}
	return nil
}

// query runs a statement; into, if there is any, takes its row.
func (p *postgres) query(ctx context.Context, at, statement string, into ...any) error {
	c, err := pgx.Connect(ctx, at)
	if err != nil {
		return fmt.Errorf("connect to PostgreSQL: %w", err)
	}
	if len(into) > 0 {
		err = c.QueryRow(ctx, statement).Scan(into...)
	} else {
		_, err = c.Exec(ctx, statement)
	}
	if err = errors.Join(err, c.Close(ctx)); err != nil {
		return fmt.Errorf("PostgreSQL: %w", err)
	}
	return nil
}

// database makes an empty database and returns its URL.
func (p *postgres) database(ctx context.Context, name string) (string, error) {
	u, err := url.Parse(p.url)
	if err != nil {
		return "", errors.New("--store is a URL such as postgres://user@host:5432/postgres")
	}
	u.Path = "/" + name
	return u.String(), p.query(ctx, p.url, "CREATE DATABASE "+pgx.Identifier{name}.Sanitize())
}

func (p *postgres) drop(ctx context.Context, name string) error {
	return p.query(ctx, p.url, "DROP DATABASE IF EXISTS "+pgx.Identifier{name}.Sanitize()+" WITH (FORCE)")
}

// dbSample is what a PostgreSQL counted, for one database or for all it has.
type dbSample struct {
	cpu               time.Duration
	commits, rows     int64
	walBytes, walSync int64
}

// sample reads the counters. The server's processes report to them when a
// transaction ends, but not more than once a second.
func (p *postgres) sample(ctx context.Context, at string) (s dbSample, err error) {
	err = p.query(ctx, at, `SELECT xact_commit, tup_inserted + tup_updated + tup_deleted, w.wal_bytes::bigint, w.wal_sync
FROM pg_stat_database, pg_stat_wal w WHERE datname = current_database()`, &s.commits, &s.rows, &s.walBytes, &s.walSync)
	if err == nil && p.pid != 0 {
		s.cpu, err = familyCPU(p.pid)
	}
	return s, err
}

func (s dbSample) since(a dbSample) dbSample {
	return dbSample{s.cpu - a.cpu, s.commits - a.commits, s.rows - a.rows, s.walBytes - a.walBytes, s.walSync - a.walSync}
}
