package partition

import (
	"context"
	"fmt"
	"sync"

	"github.com/hubbub-chat/hubbub/internal/storage"
)

// Row is a pinned row. A nil Value means that there is no such row. Obj is what
// the table's Decode made of it; it is shared and must not be changed.
type Row struct {
	Value []byte
	Obj   any
}

// row is an entry of the owner's row cache.
//
// Value and Obj are written under the cache's lock: once by the loader, then by
// the loop only. The loop reads them without the lock: a row reaches it after
// its loader is done, through the queue.
type row struct {
	Row
	key    storage.Key
	loaded bool
	// ready is closed when the loader is done; nil if the loop made the row.
	ready chan struct{}
	err   error
	refs  int
	// extra is what a collected Obj takes in bytes.
	extra int
	// prev and next link the rows nobody refers to, least recently used first.
	prev, next *row
}

// rows holds the rows that commands in flight refer to, and those kept for the
// next command.
//
// Invariant: a key written by a batch that is not committed yet has a row here or
// lies in a removed range, so that nobody can load the older value from the store
// in the meantime.
type rows struct {
	store  storage.Store
	specs  map[storage.Table]TableSpec
	budget int64

	mu struct {
		sync.Mutex
		byKey map[storage.Key]*row
		lru   row // sentinel
		// removed are the ranges that the batch in flight removes.
		removed []write
		bytes   int64
	}
}

// rowOverhead is roughly what a kept row costs besides its bytes.
const rowOverhead = 256

func newRows(store storage.Store, specs map[storage.Table]TableSpec, budget int64) *rows {
	c := &rows{store: store, specs: specs, budget: budget}
	c.mu.byKey = make(map[storage.Key]*row)
	c.mu.lru.prev, c.mu.lru.next = &c.mu.lru, &c.mu.lru
	return c
}

// size counts a value twice: it stands there encoded and decoded.
func (r *row) size() int64 {
	return int64(rowOverhead + len(r.key.Entity) + len(r.key.Sort) + 2*len(r.Value) + r.extra)
}

func (c *rows) unlinkLocked(r *row) {
	if r.next != nil {
		r.prev.next, r.next.prev = r.next, r.prev
		r.prev, r.next = nil, nil
		c.mu.bytes -= r.size()
	}
}

func (c *rows) unrefLocked(r *row) {
	r.refs--
	if r.refs > 0 {
		return
	}
	if !r.loaded || !c.specs[r.key.Table].Keep {
		delete(c.mu.byKey, r.key)
		return
	}
	last := c.mu.lru.prev
	r.prev, r.next = last, &c.mu.lru
	last.next, c.mu.lru.prev = r, r
	c.mu.bytes += r.size()
	for c.mu.bytes > c.budget && c.mu.lru.next != &c.mu.lru {
		oldest := c.mu.lru.next
		c.unlinkLocked(oldest)
		delete(c.mu.byKey, oldest.key)
	}
}

// pin returns the rows of keys, each with a reference for the caller, loading
// those that are not in memory.
func (c *rows) pin(ctx context.Context, keys []storage.Key) ([]*row, error) {
	out := make([]*row, len(keys))
	var load []*row
	loaded := true // all rows, when nobody has to be waited for
	c.mu.Lock()
	for i, k := range keys {
		r := c.mu.byKey[k]
		switch {
		case r != nil:
			c.unlinkLocked(r)
		case c.removedLocked(k):
			r = &row{key: k, loaded: true}
			c.mu.byKey[k] = r
		default:
			r = &row{key: k, ready: make(chan struct{})}
			c.mu.byKey[k] = r
			load = append(load, r)
		}
		r.refs++
		loaded = loaded && r.loaded
		out[i] = r
	}
	c.mu.Unlock()
	if loaded {
		return out, nil
	}
	if len(load) > 0 {
		c.load(ctx, load)
	}
	for _, r := range out {
		if err := c.await(ctx, r); err != nil {
			c.unpin(out)
			return nil, err
		}
	}
	return out, nil
}

func (c *rows) await(ctx context.Context, r *row) error {
	if r.ready == nil {
		return nil
	}
	select {
	case <-r.ready:
		return r.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// load fills rows from the store. It goes on when the caller's context ends,
// since others may wait for the same rows.
func (c *rows) load(ctx context.Context, load []*row) {
	found, err := c.read(context.WithoutCancel(ctx), load)
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, r := range load {
		switch {
		case r.loaded: // the loop wrote it meanwhile, and that is newer
		case err != nil:
			r.err = err
			// A later command tries again; those that wait see the error.
			delete(c.mu.byKey, r.key)
		default:
			r.Row, r.extra, r.loaded = found[i].Row, found[i].extra, true
		}
		close(r.ready)
	}
}

// fetched is a row as the store has it.
type fetched struct {
	Row
	extra int
}

// read gets the stored rows in one call and collects the others.
func (c *rows) read(ctx context.Context, load []*row) ([]fetched, error) {
	found := make([]fetched, len(load))
	keys := make([]storage.Key, 0, len(load))
	at := make([]int, 0, len(load))
	for i, r := range load {
		collect := c.specs[r.key.Table].Collect
		if collect == nil {
			keys, at = append(keys, r.key), append(at, i)
			continue
		}
		var err error
		if found[i].Obj, found[i].extra, err = collect(ctx, c.store, r.key); err != nil {
			return nil, fmt.Errorf("collect row of table %d: %w", r.key.Table, err)
		}
	}
	if len(keys) == 0 {
		return found, nil
	}
	values, err := c.store.Get(ctx, keys...)
	if err != nil {
		return nil, err
	}
	for j, value := range values {
		f, k := &found[at[j]], keys[j]
		f.Value = value
		if decode := c.specs[k.Table].Decode; value != nil && decode != nil {
			if f.Obj, err = decode(k, value); err != nil {
				return nil, fmt.Errorf("decode row of table %d: %w", k.Table, err)
			}
		}
	}
	return found, nil
}

func (c *rows) unpin(list []*row) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, r := range list {
		c.releaseLocked(r)
	}
}

// releaseLocked drops a reference. A row whose load failed is no longer in the
// map, where another may stand in its place.
func (c *rows) releaseLocked(r *row) {
	if r.err != nil {
		r.refs--
		return
	}
	c.unrefLocked(r)
}

// write stores what a command wrote, as seen by the commands after it. The rows
// returned carry a reference until their batch is committed.
func (c *rows) write(writes []write, inFlight []*row) []*row {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range writes {
		w := &writes[i]
		if w.ranged {
			inFlight = c.removeLocked(w, inFlight)
			continue
		}
		r := c.mu.byKey[w.key]
		if r == nil {
			r = &row{key: w.key}
			c.mu.byKey[w.key] = r
		} else {
			c.unlinkLocked(r)
		}
		r.refs++
		r.Row, r.loaded = w.row, true
		inFlight = append(inFlight, r)
	}
	return inFlight
}

// removeLocked takes the rows of a range away, those in memory and those that
// somebody may ask for before the batch is committed.
func (c *rows) removeLocked(w *write, inFlight []*row) []*row {
	c.mu.removed = append(c.mu.removed, *w)
	for k, r := range c.mu.byKey {
		if w.covers(k) {
			c.unlinkLocked(r)
			r.refs++
			r.Row, r.loaded = Row{}, true
			inFlight = append(inFlight, r)
		}
	}
	return inFlight
}

func (c *rows) removedLocked(k storage.Key) bool {
	for i := range c.mu.removed {
		if c.mu.removed[i].covers(k) {
			return true
		}
	}
	return false
}

// release drops the references of the commands of a batch and of its writes.
func (c *rows) release(tasks []*task, inFlight []*row) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, t := range tasks {
		for _, r := range t.pins {
			c.releaseLocked(r)
		}
		t.pins = nil
	}
	for _, r := range inFlight {
		c.releaseLocked(r)
	}
	clear(c.mu.removed)
	c.mu.removed = c.mu.removed[:0]
}
