// Package bus defines how the nodes of a deployment talk: publish, subscribe,
// request.
//
// The bus is a hint. It may lose a message, repeat it, or drop what a slow
// subscriber cannot take; nobody is told. Whoever needs every message numbers
// them and reads what is missing from the log of the partition. Correctness
// never rests on this package.
//
// A payload stays a Go value while it does not leave the process; an
// implementation that crosses processes encodes it with MarshalBinary and
// delivers it as Raw.
package bus

import (
	"context"
	"encoding"
	"errors"
)

// Errors that callers distinguish with errors.Is.
var (
	// ErrNoResponder: nobody handles the subject of a request.
	ErrNoResponder = errors.New("bus: no responder")
	// ErrClosed: the bus has been closed.
	ErrClosed = errors.New("bus: closed")
)

// QueueLength is how many messages wait for one subscriber before further ones
// are dropped: enough for a second of a busy partition.
const QueueLength = 1024

// Payload is a message: a value of the process, or Raw.
type Payload = encoding.BinaryMarshaler

// Raw is a payload that came from another process.
type Raw []byte

var _ Payload = Raw(nil)

// MarshalBinary returns the bytes themselves.
func (r Raw) MarshalBinary() ([]byte, error) { return r, nil }

// Subscription is one subscriber's place. Close waits for a running call of its
// function and lets no other begin; it must not be called from that function.
type Subscription interface {
	Close()
	// Dropped is how many messages were dropped because the subscriber was slow.
	Dropped() uint64
}

// Bus is safe for concurrent use.
type Bus interface {
	// Publish offers a message to the present subscribers of a subject. It does
	// not wait for them.
	Publish(subject string, p Payload) error
	// Subscribe calls fn for the messages of a subject, one at a time, in the
	// order in which one publisher sent them, until the subscription is closed.
	Subscribe(subject string, fn func(Payload)) (Subscription, error)
	// Request asks the handler of a subject and returns its answer or its error.
	Request(ctx context.Context, subject string, p Payload) (Payload, error)
	// Handle answers the requests of a subject, concurrently, until the
	// subscription is closed. A subject has one handler.
	Handle(subject string, fn func(context.Context, Payload) (Payload, error)) (Subscription, error)
	// Close ends every subscription.
	Close() error
}
