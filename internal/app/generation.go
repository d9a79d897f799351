package app

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/hubbub-chat/hubbub/internal/config"
	"github.com/hubbub-chat/hubbub/internal/obs"
)

// A store that was restored from a backup counts on from where it was, so that the
// same positions come to mean other events. It is another generation of the store,
// and a token says of which generation it is. A new one begins when a server runs on
// a backup for the first time, which a file in it tells, or when Restored says so.
//
// The settings of a store are never changed: the generations are settings with a
// number, of which the last counts. Generation 0 is that of a store which has none.

// metaGeneration begins the names of the generations.
const metaGeneration = "generation."

func generationName(n int) string { return metaGeneration + strconv.Itoa(n) }

// restoredFile is the file that makes a data directory one that was restored.
const restoredFile = "RESTORED"

// restoredText tells people what the file is.
const restoredText = "This is a backup of hubbub. The first server that runs on it tells clients to begin anew, and removes this file.\n"

// markRestored writes the file, durably but for its name.
func markRestored(dir string) error {
	f, err := os.OpenFile(filepath.Join(dir, restoredFile), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("mark backup: %w", err)
	}
	_, err = f.WriteString(restoredText)
	return errors.Join(err, f.Sync(), f.Close())
}

// openServed opens a store to be served.
func openServed(ctx context.Context, cfg config.Config, reg prometheus.Registerer, log *slog.Logger) (*openedStore, error) {
	s, err := openStore(ctx, cfg, reg, log)
	if err != nil {
		return nil, err
	}
	if err := s.generate(ctx, cfg.Server.DataDir, log); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// generate reads the generation, and begins a new one in a data directory that was
// restored. Who dies before the file is gone begins another: that does no harm.
func (s *openedStore) generate(ctx context.Context, dataDir string, log *slog.Logger) (err error) {
	file := filepath.Join(dataDir, restoredFile)
	if _, err := os.Stat(file); err == nil {
		if err := s.newGeneration(ctx); err != nil {
			return err
		}
		if err := errors.Join(os.Remove(file), syncDir(dataDir)); err != nil {
			return fmt.Errorf("begin a generation: %w", err)
		}
		log.Warn("this data was restored from a backup: clients begin anew")
	} else if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("look for a restored backup: %w", err)
	}
	_, s.generation, err = s.generations(ctx)
	return err
}

// generations says how many there were, and which it is now.
func (s *openedStore) generations(ctx context.Context) (n int, now uint32, err error) {
	for {
		v, err := s.meta(ctx, generationName(n+1))
		if err != nil {
			return 0, 0, fmt.Errorf("read generation: %w", err)
		}
		if v == nil {
			return n, now, nil
		}
		if len(v) != 4 {
			return 0, 0, fmt.Errorf("generation %d has %d bytes", n+1, len(v))
		}
		n, now = n+1, binary.BigEndian.Uint32(v)
	}
}

// newGeneration begins a generation. Its number is random: two servers that were
// restored from one backup are of two generations.
func (s *openedStore) newGeneration(ctx context.Context) error {
	n, _, err := s.generations(ctx)
	if err != nil {
		return err
	}
	var b [4]byte
	for binary.BigEndian.Uint32(b[:]) == 0 {
		_, _ = rand.Read(b[:]) // never fails
	}
	if _, err := s.InitMeta(ctx, generationName(n+1), b[:]); err != nil {
		return fmt.Errorf("begin a generation: %w", err)
	}
	return nil
}

// Restored says that a store was restored by other means than from a backup of ours:
// by PostgreSQL's tools, or from a snapshot of the disk.
func Restored(ctx context.Context, cfg config.Config, out io.Writer) error {
	if cfg.Server.Store == config.StoreEmbedded { // opening would create one
		if _, err := os.Stat(filepath.Join(cfg.Server.DataDir, storeDir)); err != nil {
			return fmt.Errorf("restored: %w", err)
		}
	}
	s, err := openStore(ctx, cfg, prometheus.NewRegistry(), obs.Discard())
	if err != nil {
		return fmt.Errorf("restored: %w", err)
	}
	if err := errors.Join(s.newGeneration(ctx), s.Close()); err != nil {
		return fmt.Errorf("restored: %w", err)
	}
	_, err = fmt.Fprintln(out, "Clients will begin anew.")
	return err
}
