package storagetest

import (
	"context"
	"sync/atomic"

	"github.com/hubbub-chat/hubbub/internal/storage"
)

// Counting counts the reads of a store.
type Counting struct {
	storage.Store
	Reads atomic.Int64
}

// Get implements storage.Store.
func (c *Counting) Get(ctx context.Context, keys ...storage.Key) ([][]byte, error) {
	c.Reads.Add(1)
	return c.Store.Get(ctx, keys...)
}

// Scan implements storage.Store.
func (c *Counting) Scan(ctx context.Context, r storage.Range) ([]storage.Entry, error) {
	c.Reads.Add(1)
	return c.Store.Scan(ctx, r)
}
