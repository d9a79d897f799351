package account

import (
	"context"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/merr"
	"github.com/hubbub-chat/hubbub/internal/partition"
	"github.com/hubbub-chat/hubbub/internal/storage"
	"github.com/hubbub-chat/hubbub/internal/tables"
)

// MaxDehydratedBytes bounds the data of a dehydrated device: a pickled account
// with a hundred one-time keys takes about 10 KiB.
const MaxDehydratedBytes = 256 << 10

// Dehydrated is a user's device that nobody is logged in on: it has keys, and is
// sent messages, which whoever can decrypt Data reads later. A user has one at
// most. spec: MSC3814.
type Dehydrated struct {
	Device ids.DeviceID   `json:"device"`
	Data   jsontext.Value `json:"data"`
}

func (p Place) dehydrated() storage.Key { return p.key(tables.Dehydrated, "") }

// SetDehydrated replaces the dehydrated device of a user; without Keys it only
// removes it. The result is the ID of the device that ended, "" if none.
type SetDehydrated struct {
	command
	Data        jsontext.Value
	DisplayName string
	// Keys are those of the new device, nil for none.
	Keys *UploadKeys

	old  []ids.DeviceID // as Prepare saw it: none or one
	tell announcement   // of its end
}

// NewSetDehydrated returns the command; keys are as for NewUploadKeys.
func NewSetDehydrated(data jsontext.Value, name string, keys *UploadKeys) *SetDehydrated {
	return &SetDehydrated{command: keys.command, Data: data, DisplayName: name, Keys: keys}
}

// NewEndDehydrated returns the command that removes the device.
func NewEndDehydrated(user ids.UserID) *SetDehydrated {
	return &SetDehydrated{command: command{user}}
}

var _ partition.Command = (*SetDehydrated)(nil)

// Name implements partition.Command.
func (c *SetDehydrated) Name() string { return "set_dehydrated_device" }

// Prepare implements partition.Command.
func (c *SetDehydrated) Prepare(ctx context.Context, p *partition.Prep) error {
	pl := c.at(p)
	d, err := one[Dehydrated](ctx, NewReader(p.Store(), p.Count()), pl.dehydrated())
	if err != nil {
		return err
	}
	c.old = nil
	if d != nil {
		c.old = []ids.DeviceID{d.Device}
		if err := c.tell.prepare(ctx, p, pl); err != nil {
			return err
		}
	}
	if err := p.Pin(ctx, append(pl.ending(c.old), pl.dehydrated())...); err != nil || c.Keys == nil {
		return err
	}
	return c.Keys.Prepare(ctx, p)
}

// Apply implements partition.Command.
func (c *SetDehydrated) Apply(tx *partition.Tx) (any, error) {
	p := c.in(tx)
	d := get[Dehydrated](tx, p.dehydrated())
	if (d == nil) != (c.old == nil) || d != nil && d.Device != c.old[0] {
		return nil, partition.ErrRetry
	}
	ended := ids.DeviceID("")
	if d != nil {
		// A login may have taken the device over; then it is one like any other.
		if dev := get[Device](tx, p.device(d.Device)); dev != nil && dev.Dehydrated {
			if _, err := endDevices(tx, p, c.old, &c.tell); err != nil {
				return nil, err
			}
			ended = d.Device
		}
		tx.Delete(p.dehydrated())
	}
	if c.Keys == nil {
		return ended, nil
	}
	k := p.device(c.Keys.Device)
	if get[Device](tx, k) != nil {
		return nil, merr.InvalidParamErr("There is a device of that ID, which is not dehydrated")
	}
	put(tx, k, &Device{DisplayName: c.DisplayName, LastSeenTS: tx.Now, Dehydrated: true})
	put(tx, p.dehydrated(), &Dehydrated{Device: c.Keys.Device, Data: c.Data})
	_, err := c.Keys.Apply(tx)
	return ended, err
}

// Dehydrated returns a user's dehydrated device, nil if there is none.
func (r *Reader) Dehydrated(ctx context.Context, user ids.UserID) (*Dehydrated, error) {
	d, err := one[Dehydrated](ctx, r, r.Place(user).dehydrated())
	if err != nil || d == nil {
		return nil, err
	}
	dev, err := r.Device(ctx, user, d.Device)
	if err != nil || dev == nil || !dev.Dehydrated {
		return nil, err
	}
	return d, nil
}
