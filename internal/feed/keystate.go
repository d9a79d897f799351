package feed

import (
	"context"

	"github.com/hubbub-chat/hubbub/internal/account"
	"github.com/hubbub-chat/hubbub/internal/ids"
)

// keyStates is what a view knows of the keys of its user's devices. Each response to a
// client that polls says how many there are, and they change seldom.
type keyStates struct {
	list []deviceKeys
	// changes counts what may have made the list old: what was read before one of them
	// is not kept after it.
	changes uint64
}

type deviceKeys struct {
	device ids.DeviceID
	state  *account.KeyState
}

// noteKeysLocked takes note of a change of the user's: the keys of devices, or the end
// of some.
func (v *view) noteKeysLocked(c *account.Change) {
	if p := v.mu.polled; p != nil && (c.Kind == account.ChangeKeyCounts || c.Kind == account.ChangeSessions) {
		p.keys.changes++
		p.keys.list = nil
	}
}

// keyState returns the state of a device's keys, of all changes at least that the view
// has heard of. It does not change.
func (v *view) keyState(ctx context.Context, d ids.DeviceID) (*account.KeyState, error) {
	v.mu.Lock()
	keys := &v.polledLocked().keys
	changes := keys.changes
	for _, k := range keys.list {
		if k.device == d {
			v.mu.Unlock()
			return k.state, nil
		}
	}
	v.mu.Unlock()
	st, err := v.hub.accounts.KeyState(ctx, v.user, d)
	if err != nil {
		return nil, err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if keys.changes != changes {
		return st, nil
	}
	keys.list = ofDevices(keys.list, deviceKeys{d, st})
	return st, nil
}
