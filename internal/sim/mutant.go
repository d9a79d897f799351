package sim

import (
	"github.com/hubbub-chat/hubbub/internal/storage"
	"github.com/hubbub-chat/hubbub/internal/tables"
)

// Mutant is a deployment with one guard off. Each stands for the server without
// one line of it; the switch is in what the simulation puts around the server, so
// that none is in the server.
type Mutant string

// The mutants, and who has to notice.
const (
	// NoMutant is the server as it is.
	NoMutant Mutant = ""
	// NoFence: a commit does not check its epoch.
	NoFence Mutant = "no-fence"
	// EarlyAnswer: a commit is answered before it is durable.
	EarlyAnswer Mutant = "early-answer"
	// NoDedup: the transaction IDs of messages are not looked at.
	NoDedup Mutant = "no-dedup"
	// NoHeads: a sync does not ask where the logs end.
	NoHeads Mutant = "no-heads"
	// NoOutbox: effects are not stored with their cause, so that the relay cannot
	// send them again.
	NoOutbox Mutant = "no-outbox"
	// NoCursor: who applied an effect does not remember it.
	NoCursor Mutant = "no-cursor"
	// KeysKept: a one-time key that was handed out is there still.
	KeysKept Mutant = "keys-kept"
	// AckOnSend: to-device messages are removed when they are sent to the device,
	// not when it has them.
	AckOnSend Mutant = "ack-on-send"
	// NoGaps: what the bus lost is passed over, and the log not read for it.
	NoGaps Mutant = "no-gaps"
	// CursorAhead: the cursor of a consumer is saved ahead of what was handled.
	CursorAhead Mutant = "cursor-ahead"
	// ListsUntold: that the keys of devices changed is not written to rooms.
	ListsUntold Mutant = "lists-untold"
)

// change is what the mutants of commits do to a batch.
func (m Mutant) change(b *storage.Batch) *storage.Batch {
	var drop func(*storage.Op) bool
	switch m {
	case NoOutbox:
		drop = func(op *storage.Op) bool { return op.Key.Table == tables.Outbox }
	case NoCursor:
		drop = func(op *storage.Op) bool { return op.Key.Table == tables.Cursor }
	case KeysKept:
		drop = func(op *storage.Op) bool {
			return op.Key.Table == tables.OneTimeKey && op.Kind == storage.OpDelete
		}
	case ListsUntold:
		drop = func(op *storage.Op) bool {
			return op.Key.Table == tables.DeviceListLog
		}
	default:
		return b
	}
	out := &storage.Batch{}
	for i := range b.Ops {
		if !drop(&b.Ops[i]) {
			out.Ops = append(out.Ops, b.Ops[i])
		}
	}
	return out
}
