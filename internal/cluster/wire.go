package cluster

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hubbub-chat/hubbub/internal/bus"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/merr"
	"github.com/hubbub-chat/hubbub/internal/partition"
)

// Pauses between two attempts to find a partition's owner: a move is over within
// milliseconds, a take-over within a lease.
const (
	searchMin = 2 * time.Millisecond
	searchMax = 100 * time.Millisecond
)

// errLocalOnly: a node without Options.Wire reaches the nodes of its process only.
var errLocalOnly = errors.New("cluster: command cannot leave the process")

// envelope is a command on the bus. Its bytes are made only if it leaves the
// process.
type envelope struct {
	partition.Command
	wire *partition.Wire
}

// result is what a command returned.
type result struct{ value any }

var (
	_ bus.Payload = envelope{}
	_ bus.Payload = result{}
)

// MarshalBinary implements bus.Payload.
func (e envelope) MarshalBinary() ([]byte, error) {
	if e.wire == nil {
		return nil, errLocalOnly
	}
	return e.wire.Encode(e.Command)
}

// MarshalBinary implements bus.Payload. It is never called: what came as a value is
// answered within the process.
func (result) MarshalBinary() ([]byte, error) { return nil, errLocalOnly }

// serve answers the commands of other nodes. Which owner runs them is decided when
// they come: bus.ErrNoResponder says that none here does, so that the command was not
// applied.
func (n *Node) serve(ctx context.Context, in bus.Payload) (bus.Payload, error) {
	switch in := in.(type) {
	case envelope:
		o := n.local(in.Partition(n.opts.Count))
		if o == nil {
			return nil, bus.ErrNoResponder
		}
		v, err := o.Do(ctx, in.Command)
		return result{v}, err
	case bus.Raw:
		if n.opts.Wire == nil {
			return nil, errLocalOnly
		}
		cmd, err := n.opts.Wire.Decode(in)
		if err != nil {
			return bus.Raw(n.opts.Wire.EncodeAnswer(nil, err)), nil
		}
		p := cmd.Partition(n.opts.Count)
		if int(p) >= n.opts.Count {
			return nil, errLocalOnly
		}
		o := n.local(p)
		if o == nil {
			return nil, bus.ErrNoResponder
		}
		return bus.Raw(n.opts.Wire.EncodeAnswer(o.Do(ctx, cmd))), nil
	default:
		return nil, fmt.Errorf("payload %T is no command", in)
	}
}

// Do implements partition.Router. A command whose partition changes hands is sent
// again until it has an owner, for as long as Options.Search says; one of which it
// is not known whether it was applied is never sent again.
func (n *Node) Do(ctx context.Context, cmd partition.Command) (any, error) {
	p := cmd.Partition(n.opts.Count)
	v, err := n.attempt(ctx, p, cmd)
	if !unserved(err) {
		return v, err
	}
	end := time.Now().Add(n.opts.Search)
	// Who is cut off looks in vain, also if it finds out only now: another node would
	// have answered.
	for pause := searchMin; unserved(err) && time.Now().Before(end) && !errors.Is(n.Withdrawn(), ErrParted); pause = min(2*pause, searchMax) {
		t := time.NewTimer(pause)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return nil, err
		case <-n.ctx.Done():
			t.Stop()
			return nil, err
		}
		v, err = n.attempt(ctx, p, cmd)
	}
	return v, err
}

// unserved reports whether an attempt found nobody who would run the command.
func unserved(err error) bool {
	return errors.Is(err, partition.ErrClosing) || errors.Is(err, bus.ErrNoResponder)
}

func (n *Node) attempt(ctx context.Context, p ids.Partition, cmd partition.Command) (any, error) {
	encode := n.opts.Encode || encodeAll && n.opts.Wire != nil
	if !encode {
		if o := n.local(p); o != nil {
			return o.Do(ctx, cmd)
		}
	}
	var payload bus.Payload = envelope{cmd, n.opts.Wire}
	if encode {
		b, err := n.opts.Wire.Encode(cmd)
		if err != nil {
			return nil, err
		}
		payload = bus.Raw(b)
	}
	to, there := n.way(p)
	if encode && n.Owns(p) {
		to, there = n.opts.Node, nil
	}
	if to == "" {
		return nil, nobody(bus.ErrNoResponder)
	}
	v, err := n.request(ctx, to, there, payload)
	if err != nil {
		return nil, err
	}
	switch v := v.(type) {
	case result:
		return v.value, nil
	case bus.Raw:
		if n.opts.Wire != nil {
			return n.opts.Wire.DecodeAnswer(v)
		}
	}
	return nil, errLocalOnly
}

// request sends a command to a node. An answer takes as long as the store, not as
// long as a lease: who does not answer by then is dead or cut off, and so is who is
// silent for long meanwhile, when there ends.
func (n *Node) request(ctx context.Context, to ids.NodeID, there context.Context, payload bus.Payload) (bus.Payload, error) {
	if n.opts.Balance {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, n.opts.LeaseTTL)
		defer cancel()
		if there != nil {
			defer context.AfterFunc(there, cancel)()
		}
	}
	v, err := n.opts.Bus.Request(ctx, commandSubject(to), payload)
	var own *merr.Error
	switch {
	case errors.Is(err, bus.ErrNoResponder):
		return nil, nobody(err)
	case err == nil || errors.As(err, &own):
		return v, err
	default:
		if _, local := payload.(envelope); local && !n.opts.Balance {
			return nil, err // of the command itself
		}
		return nil, unknown(err)
	}
}

func nobody(err error) error {
	return merr.UnavailableErr(moved, "This part of the server is moving, try again").Because(err)
}

func commandSubject(id ids.NodeID) string { return "cmd." + string(id) }
