package app

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/hubbub-chat/hubbub/internal/config"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/obs"
	"github.com/hubbub-chat/hubbub/internal/storage"
)

// The settings of a store that was filled by MigrateStore: of what it is a copy,
// and, once everything was compared, that it is whole. Nobody serves the one
// without the other.
const (
	metaCopyOf = "copy_of"
	metaCopied = "copied"
)

const (
	// migrator is who holds the leases of both stores meanwhile.
	migrator = "migrate-store"
	// migrateLease is how long they last, renewed when half of it is over. After
	// a copying that was killed, a server of the source waits this long at most.
	migrateLease = time.Minute
	// migrateScan rows are read at a time, and migrateBatch bytes written: far below
	// the limits of a batch, and enough that round trips do not count.
	migrateScan  = 500
	migrateBatch = 4 << 20
)

// whole refuses a store that is a copy which was not finished.
func (s *openedStore) whole(ctx context.Context) error {
	of, err := s.meta(ctx, metaCopyOf)
	if err != nil || of == nil {
		return err
	}
	copied, err := s.meta(ctx, metaCopied)
	if err != nil {
		return err
	}
	if copied == nil {
		return errors.New("this store is an unfinished copy: run hubbub migrate-store again until it succeeds, or empty it")
	}
	return nil
}

// migration copies one store to another.
//
//  1. It takes the leases of all partitions of both, so that no server writes to
//     either; a server that runs makes it fail.
//  2. Each partition is compared row by row, in order, and what differs in the
//     target is put right. So a copying that was interrupted goes on when it is run
//     again, also if the source changed in between.
//  3. Each partition of both is read anew, counted and hashed.
//  4. The settings are copied; the last one says that the copy is whole.
type migration struct {
	from, to   *openedStore
	partitions int
	out        io.Writer
	leases     map[*openedStore]map[ids.Partition]storage.Lease
	renewed    time.Time
}

// MigrateStore copies the store of a stopped deployment to another place: to, as
// server.store would name it, or the data directory of an embedded store. Media
// are not part of it.
func MigrateStore(ctx context.Context, cfg config.Config, to string, out io.Writer) (err error) {
	target, err := targetOf(cfg, to)
	if err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	if cfg.Server.Store == config.StoreEmbedded { // opening would create one
		if _, err := os.Stat(filepath.Join(cfg.Server.DataDir, storeDir)); err != nil {
			return fmt.Errorf("migrate: %w", err)
		}
	}
	m := &migration{out: out, leases: map[*openedStore]map[ids.Partition]storage.Lease{}}
	defer func() {
		if err = errors.Join(err, m.close()); err != nil {
			err = fmt.Errorf("migrate: %w", err)
		}
	}()
	if m.from, err = openBackend(ctx, cfg, prometheus.NewRegistry(), obs.Discard()); err != nil {
		return err
	}
	if m.to, err = openBackend(ctx, target, prometheus.NewRegistry(), obs.Discard()); err != nil {
		return err
	}
	return m.run(ctx)
}

func targetOf(cfg config.Config, to string) (config.Config, error) {
	target := cfg
	if strings.Contains(to, "://") {
		target.Server.Store = to
		if target.Server.PostgresURLs() == nil {
			return cfg, errors.New("the target is neither postgres:// nor a directory")
		}
	} else {
		dir, err := filepath.Abs(to)
		if err != nil {
			return cfg, err
		}
		target.Server.Store, target.Server.DataDir = config.StoreEmbedded, dir
	}
	if target.Server.Store == cfg.Server.Store && target.Server.DataDir == cfg.Server.DataDir {
		return cfg, errors.New("source and target are the same")
	}
	return target, nil
}

func (m *migration) close() error {
	var errs []error
	for _, s := range []*openedStore{m.to, m.from} {
		if s == nil {
			continue
		}
		for _, l := range m.leases[s] {
			errs = append(errs, s.Release(context.Background(), l))
		}
		errs = append(errs, s.Close())
	}
	return errors.Join(errs...)
}

func (m *migration) run(ctx context.Context) error {
	if err := m.begin(ctx); err != nil {
		return err
	}
	total := 0
	for p := range m.partitions {
		changed, err := m.copy(ctx, ids.Partition(p))
		if err != nil {
			return fmt.Errorf("partition %d: %w", p, err)
		}
		total += changed
		if _, err := fmt.Fprintf(m.out, "partition %d: %d rows written\n", p, changed); err != nil {
			return err
		}
	}
	rows := 0
	for p := range m.partitions {
		n, err := m.verify(ctx, ids.Partition(p))
		if err != nil {
			return fmt.Errorf("partition %d: %w", p, err)
		}
		rows += n
	}
	if err := m.settings(ctx); err != nil {
		return err
	}
	_, err := fmt.Fprintf(m.out, "copied: %d partitions, %d rows, all compared (%d written now)\n", m.partitions, rows, total)
	return err
}

// begin makes sure of both stores.
func (m *migration) begin(ctx context.Context) error {
	if err := m.from.whole(ctx); err != nil {
		return err
	}
	count, err := m.from.meta(ctx, metaPartitions)
	if err != nil {
		return err
	}
	if count == nil {
		return errors.New("the source holds no deployment")
	}
	if m.partitions, err = strconv.Atoi(string(count)); err != nil {
		return fmt.Errorf("read number of partitions: %w", err)
	}
	if err := m.claim(ctx); err != nil {
		return err
	}
	return m.lease(ctx)
}

// claim marks an empty target as a copy of the source, or finds that it is one
// already.
func (m *migration) claim(ctx context.Context) error {
	master, err := m.from.meta(ctx, metaMaster)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(append([]byte("copy of "), master...)) // tells nothing of the secret
	mark := hex.EncodeToString(sum[:])
	of, err := m.to.meta(ctx, metaCopyOf)
	if err != nil {
		return err
	}
	if of == nil {
		if err := m.empty(ctx); err != nil {
			return err
		}
		if of, err = m.to.InitMeta(ctx, metaCopyOf, []byte(mark)); err != nil {
			return err
		}
	}
	if string(of) != mark {
		return errors.New("the target is a copy of another deployment: name an empty one")
	}
	copied, err := m.to.meta(ctx, metaCopied)
	if err != nil {
		return err
	}
	if copied != nil {
		return errors.New("the target was copied and found whole before, and may have been used since: start the server on it, or name an empty one")
	}
	return nil
}

func (m *migration) empty(ctx context.Context) error {
	refused := errors.New("the target is not empty: name a new database or directory")
	for _, name := range []string{metaPartitions, metaServerName, metaMaster} {
		if v, err := m.to.meta(ctx, name); err != nil || v != nil {
			return cmp.Or(err, refused)
		}
	}
	for p := range ids.MaxPartitions {
		rows, err := m.to.ScanPartition(ctx, storage.Key{Partition: ids.Partition(p)}, 1)
		if err != nil || len(rows) > 0 {
			return cmp.Or(err, refused)
		}
	}
	return nil
}

// lease takes or renews all leases of both stores. One that comes with another
// epoch was somebody else's meanwhile.
func (m *migration) lease(ctx context.Context) error {
	if time.Since(m.renewed) < migrateLease/2 {
		return nil
	}
	for _, s := range []*openedStore{m.from, m.to} {
		if m.leases[s] == nil {
			m.leases[s] = map[ids.Partition]storage.Lease{}
		}
		for p := range m.partitions {
			l, err := s.Acquire(ctx, ids.Partition(p), migrator, migrateLease)
			if errors.Is(err, storage.ErrHeld) {
				return fmt.Errorf("a server is running (or was killed less than a minute ago): stop all nodes first: %w", err)
			}
			if err != nil {
				return err
			}
			if had, ok := m.leases[s][l.Partition]; ok && had.Epoch != l.Epoch {
				return errors.New("a server was started meanwhile: stop it and run this again")
			}
			m.leases[s][l.Partition] = l
		}
	}
	m.renewed = time.Now()
	return nil
}

// copy makes a partition of the target like the source's, and returns how many
// rows it put or deleted.
func (m *migration) copy(ctx context.Context, p ids.Partition) (changed int, err error) {
	from, to := newRowCursor(m, m.from, p), newRowCursor(m, m.to, p)
	var b storage.Batch
	size := 0
	flush := func() error {
		if len(b.Ops) == 0 {
			return nil
		}
		err := m.to.Commit(ctx, p, m.leases[m.to][p].Epoch, &b)
		b, size = storage.Batch{}, 0
		return err
	}
	want, err := from.next(ctx)
	if err != nil {
		return changed, err
	}
	have, err := to.next(ctx)
	for err == nil && (want != nil || have != nil) {
		order := compareRows(want, have)
		if order > 0 { // only the target has it
			b.Delete(have.Key)
			changed++
		} else if order < 0 || string(want.Value) != string(have.Value) {
			b.Put(want.Key, want.Value)
			size += len(want.Key.Entity) + len(want.Key.Sort) + len(want.Value)
			changed++
		}
		if size >= migrateBatch || len(b.Ops) >= migrateScan {
			if err = flush(); err != nil {
				break
			}
		}
		if order <= 0 {
			if want, err = from.next(ctx); err != nil {
				break
			}
		}
		if order >= 0 {
			have, err = to.next(ctx)
		}
	}
	return changed, cmp.Or(err, flush())
}

// verify counts and hashes a partition of both.
func (m *migration) verify(ctx context.Context, p ids.Partition) (int, error) {
	n, sum, err := digest(ctx, newRowCursor(m, m.from, p))
	if err != nil {
		return 0, fmt.Errorf("source: %w", err)
	}
	copies, copied, err := digest(ctx, newRowCursor(m, m.to, p))
	if err != nil {
		return 0, fmt.Errorf("target: %w", err)
	}
	if n != copies || sum != copied {
		return 0, fmt.Errorf("the copy differs: %d rows with hash %x in the source, %d with %x in the target", n, sum, copies, copied)
	}
	return n, nil
}

// settings copies what the deployment fixed when it was created.
func (m *migration) settings(ctx context.Context) error {
	restored, _, err := m.from.generations(ctx)
	if err != nil {
		return err
	}
	names := []string{metaPartitions, metaServerName, metaMaster, metaFirstAdmin, metaWebPushKey}
	for n := range restored {
		names = append(names, generationName(n+1))
	}
	for _, name := range names {
		v, err := m.from.meta(ctx, name)
		if err != nil {
			return err
		}
		if v == nil {
			continue
		}
		have, err := m.to.InitMeta(ctx, name, v)
		if err != nil {
			return err
		}
		if string(have) != string(v) {
			return fmt.Errorf("the target has another %s already: name an empty one", name)
		}
	}
	_, err = m.to.InitMeta(ctx, metaCopied, []byte("yes"))
	return err
}

// rowCursor reads the rows of a partition one by one. All backends give them by
// table, entity and sort key; that is checked.
type rowCursor struct {
	m     *migration
	store storage.Store
	after storage.Key
	rows  []storage.Row
	ended bool
}

func newRowCursor(m *migration, s *openedStore, p ids.Partition) *rowCursor {
	return &rowCursor{m: m, store: s, after: storage.Key{Partition: p}}
}

// next returns the next row, nil behind the last.
func (c *rowCursor) next(ctx context.Context) (*storage.Row, error) {
	if len(c.rows) == 0 && !c.ended {
		if err := c.m.lease(ctx); err != nil {
			return nil, err
		}
		rows, err := c.store.ScanPartition(ctx, c.after, migrateScan)
		if err != nil {
			return nil, err
		}
		c.rows, c.ended = rows, len(rows) < migrateScan
	}
	if len(c.rows) == 0 {
		return nil, nil
	}
	row := &c.rows[0]
	if compareKeys(c.after, row.Key) >= 0 {
		return nil, fmt.Errorf("row %v comes behind %v", row.Key, c.after)
	}
	c.rows, c.after = c.rows[1:], row.Key
	return row, nil
}

// compareRows orders two rows; nil is behind all.
func compareRows(a, b *storage.Row) int {
	switch {
	case b == nil:
		return -1
	case a == nil:
		return 1
	}
	return compareKeys(a.Key, b.Key)
}

func compareKeys(a, b storage.Key) int {
	return cmp.Or(cmp.Compare(a.Table, b.Table), cmp.Compare(a.Entity, b.Entity), cmp.Compare(a.Sort, b.Sort))
}

func digest(ctx context.Context, c *rowCursor) (n int, sum [sha256.Size]byte, err error) {
	h := sha256.New()
	for {
		row, err := c.next(ctx)
		if err != nil {
			return n, sum, err
		}
		if row == nil {
			return n, [sha256.Size]byte(h.Sum(nil)), nil
		}
		n++
		hashRow(h, row)
	}
}

func hashRow(h hash.Hash, row *storage.Row) {
	head := []byte{byte(row.Key.Table)}
	for _, n := range []int{len(row.Key.Entity), len(row.Key.Sort), len(row.Value)} {
		head = binary.BigEndian.AppendUint32(head, uint32(n))
	}
	for _, part := range [][]byte{head, []byte(row.Key.Entity), []byte(row.Key.Sort), row.Value} {
		_, _ = h.Write(part) // it has no error
	}
}
