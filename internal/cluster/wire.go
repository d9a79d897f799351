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

// serve is the handler of the commands to an owner.
func (n *Node) serve(owner *partition.Owner) func(context.Context, bus.Payload) (bus.Payload, error) {
	return func(ctx context.Context, in bus.Payload) (bus.Payload, error) {
		switch in := in.(type) {
		case envelope:
			v, err := owner.Do(ctx, in.Command)
			return result{v}, err
		case bus.Raw:
			if n.opts.Wire == nil {
				return nil, errLocalOnly
			}
			cmd, err := n.opts.Wire.Decode(in)
			if err != nil {
				return bus.Raw(n.opts.Wire.EncodeAnswer(nil, err)), nil
			}
			return bus.Raw(n.opts.Wire.EncodeAnswer(owner.Do(ctx, cmd))), nil
		default:
			return nil, fmt.Errorf("payload %T is no command", in)
		}
	}
}

// Do implements partition.Router. A command whose partition changes hands is sent
// again until it has an owner, for as long as Options.Search says; one of which it
// is not known whether it was applied is never sent again.
func (n *Node) Do(ctx context.Context, cmd partition.Command) (any, error) {
	p := cmd.Partition(n.opts.Count)
	v, err := n.attempt(ctx, p, cmd)
	if err == nil || n.opts.Search == 0 || !unserved(err) {
		return v, err
	}
	end := time.Now().Add(n.opts.Search)
	for pause := searchMin; unserved(err) && time.Now().Before(end); pause = min(2*pause, searchMax) {
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
	v, err := n.opts.Bus.Request(ctx, commandSubject(p), payload)
	if errors.Is(err, bus.ErrNoResponder) {
		return nil, merr.UnavailableErr(moved, "This part of the server is moving, try again").Because(err)
	}
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
