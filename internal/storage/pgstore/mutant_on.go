//go:build mutant_no_fence

package pgstore

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/hubbub-chat/hubbub/internal/ids"
)

// mutantEnv, if it is set, switches the fence off, and names a file: while it is there each
// commit says in it whose it is, and then stands still, so that a test can stop the process
// right in one.
const mutantEnv = "MUTANT_NO_FENCE"

func (s *Store) fence(ctx context.Context, p ids.Partition, epoch ids.Epoch) ids.Epoch {
	const pause = 2 * time.Second
	name, off := os.LookupEnv(mutantEnv)
	if !off {
		return epoch
	}
	if f, err := os.OpenFile(name, os.O_APPEND|os.O_WRONLY, 0); err == nil {
		fmt.Fprintln(f, os.Getpid())
		f.Close()
		time.Sleep(pause)
	}
	_ = s.with(ctx, s.shard(p), func(ctx context.Context, c *pgxpool.Conn) error {
		return c.QueryRow(ctx, "SELECT epoch FROM hubbub_lease WHERE partition = $1", int32(p)).Scan(&epoch)
	})
	return epoch
}
