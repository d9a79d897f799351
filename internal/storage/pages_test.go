package storage_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/hubbub-chat/hubbub/internal/clock"
	"github.com/hubbub-chat/hubbub/internal/storage"
	"github.com/hubbub-chat/hubbub/internal/storage/memstore"
)

// TestEach reads a range whose rows fill no, some and exactly two pages.
func TestEach(t *testing.T) {
	ctx := context.Background()
	errEnough := errors.New("enough")
	for _, n := range []int{0, 1, 3, 6, 7} {
		st := memstore.New(clock.Real{})
		lease, err := st.Acquire(ctx, 1, "a", time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		var b storage.Batch
		var want []string
		for i := range n {
			want = append(want, fmt.Sprint(i))
			b.Put(storage.Key{Partition: 1, Table: 1, Entity: "e", Sort: want[i]}, []byte(want[i]))
		}
		if err := st.Commit(ctx, 1, lease.Epoch, &b); err != nil {
			t.Fatal(err)
		}
		// read returns the rows up to the one after which fn has enough, and the error.
		read := func(upTo int, enough error) (got []string, err error) {
			err = storage.Each(ctx, st, storage.Range{Partition: 1, Table: 1, Entity: "e", Limit: 3}, func(row storage.Entry) (bool, error) {
				got = append(got, row.Sort)
				if len(got) == upTo {
					return false, enough
				}
				return true, nil
			})
			return got, err
		}
		for upTo := range n + 2 {
			end := n
			if upTo > 0 {
				end = min(upTo, n)
			}
			if got, err := read(upTo, nil); err != nil || !slices.Equal(got, want[:end]) {
				t.Errorf("%d rows, enough with %d: %v, %v", n, upTo, got, err)
			}
			got, err := read(upTo, errEnough)
			if wantErr := upTo > 0 && upTo <= n; errors.Is(err, errEnough) != wantErr || !slices.Equal(got, want[:end]) {
				t.Errorf("%d rows, an error at %d: %v, %v", n, upTo, got, err)
			}
		}
	}
}
