package account

import (
	"context"
	"slices"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/partition"
	"github.com/hubbub-chat/hubbub/internal/pushrules"
	"github.com/hubbub-chat/hubbub/internal/storage"
)

// TypeDirect is the account data that lists the rooms that are direct chats.
const TypeDirect = "m.direct"

// maxCarried bounds the types of account data that go from one room to another:
// clients keep a handful.
const maxCarried = 100

// CarryOver gives a room the settings that the user has for the one it replaces:
// tags and other account data, push rules, and whether it is a direct chat. What
// is set for the new room already stays. spec: client-server §Room Upgrades,
// server behaviour.
type CarryOver struct {
	command
	From, To ids.RoomID
	// Options name the deployment's predefined push rules.
	Options pushrules.Options

	types []string // what Prepare found
}

// NewCarryOver returns the command.
func NewCarryOver(user ids.UserID, from, to ids.RoomID, o pushrules.Options) *CarryOver {
	return &CarryOver{command: command{user}, From: from, To: to, Options: o}
}

var _ partition.Command = (*CarryOver)(nil)

// Name implements partition.Command.
func (c *CarryOver) Name() string { return "carry_over" }

// carried reports whether account data says something of a room that is true of
// its successor too: what names events of the room is not.
func carried(typ string) bool { return typ != "m.fully_read" && typ != "m.marked_unread" }

// Prepare implements partition.Command.
func (c *CarryOver) Prepare(ctx context.Context, p *partition.Prep) error {
	all, err := NewReader(p.Store(), p.Count()).AllData(ctx, c.User, c.From)
	if err != nil {
		return err
	}
	pl := c.at(p)
	keys := []storage.Key{pl.data("", TypeDirect), pl.data("", TypePushRules)}
	c.types = c.types[:0]
	for _, d := range all {
		if carried(d.Type) && len(c.types) < maxCarried {
			c.types = append(c.types, d.Type)
			keys = append(keys, pl.data(c.From, d.Type), pl.data(c.To, d.Type))
		}
	}
	return p.Pin(ctx, keys...)
}

// Apply implements partition.Command.
func (c *CarryOver) Apply(tx *partition.Tx) (any, error) {
	p := c.in(tx)
	for _, t := range c.types {
		old := get[Data](tx, p.data(c.From, t))
		if old == nil || get[Data](tx, p.data(c.To, t)) != nil {
			continue
		}
		if err := setData(tx, p, Data{Room: c.To, Type: t, Content: old.Content, Deleted: old.Deleted}); err != nil {
			return nil, err
		}
	}
	if d := get[Data](tx, p.data("", TypeDirect)); d != nil {
		if content := replacedDirect(d.Content, c.From, c.To); content != nil {
			if err := setData(tx, p, Data{Type: TypeDirect, Content: content}); err != nil {
				return nil, err
			}
		}
	}
	return nil, c.rules(tx, p)
}

// rules copies the push rules.
func (c *CarryOver) rules(tx *partition.Tx, p Place) error {
	d := get[Data](tx, p.data("", TypePushRules))
	if d == nil {
		return nil
	}
	set, err := pushrules.NewDefaults(c.Options).Open(c.User, d.Content)
	if err != nil || !set.CopyRoom(c.From, c.To) {
		return nil // of damaged rules there is nothing to copy
	}
	stored, err := set.Stored()
	if err != nil {
		return err
	}
	return setData(tx, p, Data{Type: TypePushRules, Content: stored})
}

// replacedDirect adds a room to the lists of m.direct that have the one it
// replaces; nil if there are none, or if the content is none of m.direct.
func replacedDirect(content jsontext.Value, from, to ids.RoomID) jsontext.Value {
	var lists map[string][]ids.RoomID
	if json.Unmarshal(content, &lists) != nil {
		return nil
	}
	changed := false
	for user, rooms := range lists {
		if slices.Contains(rooms, from) && !slices.Contains(rooms, to) {
			lists[user], changed = append(rooms, to), true
		}
	}
	if !changed {
		return nil
	}
	return encode(lists)
}
