// Package partition runs the unit of ownership and order: a partition's owner
// takes commands from any node, runs them one after another, gathers what
// arrived meanwhile into one batch, commits the batch in one atomic write that
// checks the owner's epoch, then answers and publishes.
//
// # Steps of a command
//
//  1. Prepare runs on the caller's goroutine and may read the store. It pins the
//     rows that Apply will look at: a pinned row is in memory and follows every
//     write of the owner, committed or not, until the command is done.
//  2. Apply runs in the owner's loop. It sees pinned rows only, does no I/O, and
//     gives its writes, log records and effects to the Tx. If it fails, nothing
//     of it remains.
//  3. The loop commits the writes of all commands of the batch at once.
//  4. Callers are answered, successes and refusals alike: a refusal too may rest
//     on a write of the same batch. A command with effects that the caller must
//     see is answered when these have been applied.
//
// # Invariants
//
//   - A position (Seq) is given out once and in order; what has a higher Seq was
//     committed later or together. There is no moment in which a reader can see
//     a position and not one below it.
//   - After a commit that failed in any way the owner is finished: what it holds
//     in memory may be ahead of the store. A new owner with a new epoch begins
//     from the store.
//   - Effects leave in order and are applied exactly once: they are stored in
//     the batch of their cause, sent at least once, and the destination keeps a
//     cursor for each origin in the batch that applies them.
//
// Rejected: reading the store inside the loop (one slow read would stop every
// room of the partition); loading whole rooms or users (a room of 100,000
// members would have to be read for one message).
package partition

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/hubbub-chat/hubbub/internal/clock"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/merr"
	"github.com/hubbub-chat/hubbub/internal/storage"
	"github.com/hubbub-chat/hubbub/internal/tables"
)

// Errors that callers distinguish with errors.Is.
var (
	// ErrRetry is returned by Apply when what Prepare saw no longer holds; the
	// command is prepared again.
	ErrRetry = errors.New("partition: prepare again")
	// ErrLost: this node no longer owns the partition, and whether the command
	// was applied is not known.
	ErrLost = errors.New("partition: lost")
	// ErrClosing: this node gives the partition up or has lost it, and the command
	// was not applied, or fenced with all of its batch. It may be sent to the next
	// owner.
	ErrClosing = errors.New("partition: moving")
)

// Limits.
const (
	// QueueLength is how many commands wait for the owner. At 10,000 commands a
	// second it is 0.4 s of work: who would wait longer is told to come back.
	QueueLength = 4096
	// maxBatchCommands and maxBatchBytes bound one commit, so that the first
	// caller of a batch does not wait for an unbounded number of others.
	maxBatchCommands = 512
	maxBatchBytes    = 4 << 20
	// maxCommandBytes bounds what one command writes. With a full batch before it,
	// it still fits the store's limit.
	maxCommandBytes = storage.MaxBatch / 2
	// maxAttempts bounds how often a command is prepared again.
	maxAttempts = 8
	// overloadRetry is what a refused caller is told to wait.
	overloadRetry = time.Second
	// maxEffects is how many effects one command of the relay applies, and
	// maxEffectBytes about how large they are together: an effect may carry the
	// state of a room that is shown to the invited, near a MiB.
	maxEffects     = 256
	maxEffectBytes = 2 << 20
)

// Command is a request to a partition. Its exported fields say all there is to
// say about it, so that it can travel to another node.
type Command interface {
	// Name is a stable name for logs and metrics.
	Name() string
	// Partition is where the command belongs, of count partitions.
	Partition(count int) ids.Partition
	// Prepare pins rows. It runs on the caller's goroutine, maybe several times.
	Prepare(ctx context.Context, p *Prep) error
	// Apply runs in the owner's loop: no I/O, no waiting.
	Apply(tx *Tx) (any, error)
}

// Router brings a command to the owner of its partition, wherever that is.
type Router interface {
	Do(ctx context.Context, cmd Command) (any, error)
}

// Do is Router.Do with a typed result, the zero R for a command that gives none.
func Do[R any](ctx context.Context, r Router, cmd Command) (R, error) {
	v, err := r.Do(ctx, cmd)
	if err != nil || v == nil {
		var zero R
		return zero, err
	}
	if b, ok := v.(Encoded); ok {
		return decodeResult[R](b)
	}
	return v.(R), nil
}

// TableSpec says how the owner treats the rows of a table.
type TableSpec struct {
	// Keep leaves rows in memory after their last use, while there is room.
	Keep bool
	// Decode turns a stored value into what Row.Obj holds. It runs outside the
	// loop.
	Decode func(k storage.Key, value []byte) (any, error)
	// Collect makes a row that is not stored: Row.Obj is what it finds in the
	// store for the key, bytes about what that takes in memory. The commands that
	// write what it is made of keep it right.
	Collect func(ctx context.Context, st storage.Store, k storage.Key) (obj any, bytes int, err error)
}

// EffectHandler applies the effects of one kind at their destination. Effects
// come in order and exactly once. An effect that cannot be applied is a broken
// invariant: it is counted, logged and passed over, so that those behind it go on.
type EffectHandler interface {
	Prepare(ctx context.Context, p *Prep, e Effect) error
	Apply(tx *Tx, e Effect) error
}

// Options configure an Owner.
type Options struct {
	Partition ids.Partition
	// Count is the number of partitions of the deployment.
	Count int
	Store storage.Store
	Epoch ids.Epoch
	Clock clock.Clock
	Log   *slog.Logger
	// Tables names the tables whose rows can be pinned.
	Tables map[storage.Table]TableSpec
	// Effects are the handlers by kind.
	Effects map[string]EffectHandler
	// Router carries effects to other partitions.
	Router Router
	// Publish is called with each committed batch, in order, from the owner's
	// loop; it must not block.
	Publish func(*Published)
	// Lost is called once, from a goroutine of its own, when the owner has
	// stopped by itself.
	Lost func(error)
	// CacheBytes bounds the rows that are kept without being pinned.
	CacheBytes int64
	Metrics    *Metrics
}

func overloaded() error {
	return merr.UnavailableErr(overloadRetry, "The server is busy, try again")
}

func lost(cause error) error {
	return merr.UnavailableErr(overloadRetry, "The outcome is not known, try again").Because(errors.Join(ErrLost, cause))
}

// refused is what the callers of a batch are told whose commit failed. One that was
// fenced left nothing behind: another owner may take its commands.
func refused(cause error) error {
	if errors.Is(cause, storage.ErrFenced) {
		return closing(cause)
	}
	return lost(cause)
}

// closing refuses a command that the loop has not seen.
func closing(cause error) error {
	return merr.UnavailableErr(overloadRetry, "This part of the server is moving, try again").Because(errors.Join(ErrClosing, cause))
}

// Tables are the rows of the partition itself that its commands pin.
func Tables() map[storage.Table]TableSpec {
	return map[storage.Table]TableSpec{tables.Cursor: {Keep: true}, tables.ConsumerCursor: {Keep: true}}
}
