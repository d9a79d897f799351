package cluster

import (
	"errors"

	"github.com/hubbub-chat/hubbub/internal/bus"
	"github.com/hubbub-chat/hubbub/internal/partition"
)

// errLocalOnly: commands have no encoding yet; they travel between the nodes of
// one process only.
var errLocalOnly = errors.New("cluster: command cannot leave the process")

// envelope is a command on the bus.
type envelope struct{ partition.Command }

// result is what a command returned.
type result struct{ value any }

var (
	_ bus.Payload = envelope{}
	_ bus.Payload = result{}
)

// MarshalBinary implements bus.Payload.
func (envelope) MarshalBinary() ([]byte, error) { return nil, errLocalOnly }

// MarshalBinary implements bus.Payload.
func (result) MarshalBinary() ([]byte, error) { return nil, errLocalOnly }
