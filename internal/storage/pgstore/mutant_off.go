//go:build !mutant_no_fence

package pgstore

import (
	"context"

	"github.com/hubbub-chat/hubbub/internal/ids"
)

// fence is the epoch that a commit is checked by: its own. In a server that is built
// with the tag mutant_no_fence it is whichever is right, and test/chaos must find out
// what becomes of that.
func (*Store) fence(_ context.Context, _ ids.Partition, epoch ids.Epoch) ids.Epoch { return epoch }
