package room

import (
	"context"
	"fmt"
	"net/http"

	"github.com/go-json-experiment/json"

	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/merr"
	"github.com/hubbub-chat/hubbub/internal/partition"
	"github.com/hubbub-chat/hubbub/internal/storage"
	"github.com/hubbub-chat/hubbub/internal/tables"
)

// EffectAlias tells a room's partition that an alias was added or removed. The
// payload is an aliasChange in JSON.
const EffectAlias = "room_alias"

type aliasChange struct {
	Room    ids.RoomID    `json:"room"`
	Alias   ids.RoomAlias `json:"alias"`
	Removed bool          `json:"removed,omitempty"`
}

// AliasTarget is what an alias leads to.
type AliasTarget struct {
	Room    ids.RoomID `json:"room"`
	Creator ids.UserID `json:"creator"`
}

func aliasKey(a ids.RoomAlias, count int) storage.Key {
	return storage.Key{Partition: ids.PartitionOf(string(a), count), Table: tables.Alias, Entity: string(a)}
}

// SetAlias points an alias that is free to a room. M_ROOM_IN_USE or, as the
// directory endpoint has it, 409 if it is taken.
type SetAlias struct {
	Alias  ids.RoomAlias
	Target AliasTarget
}

var _ partition.Command = (*SetAlias)(nil)

// Name implements partition.Command.
func (c *SetAlias) Name() string { return "set_alias" }

// Partition implements partition.Command.
func (c *SetAlias) Partition(count int) ids.Partition {
	return ids.PartitionOf(string(c.Alias), count)
}

// Prepare implements partition.Command.
func (c *SetAlias) Prepare(ctx context.Context, p *partition.Prep) error {
	return p.Pin(ctx, aliasKey(c.Alias, p.Count()))
}

// Apply implements partition.Command.
func (c *SetAlias) Apply(tx *partition.Tx) (any, error) {
	k := aliasKey(c.Alias, tx.Count())
	if tx.Get(k).Value != nil {
		return nil, merr.New(http.StatusConflict, merr.RoomInUse, "The alias %s is taken", c.Alias)
	}
	row, err := json.Marshal(&c.Target)
	if err != nil {
		return nil, fmt.Errorf("encode alias: %w", err)
	}
	tx.Put(k, row, nil)
	return nil, aliasEffect(tx, aliasChange{Room: c.Target.Room, Alias: c.Alias})
}

// DeleteAlias removes an alias that leads to Room. M_NOT_FOUND if it does not.
type DeleteAlias struct {
	Alias ids.RoomAlias
	Room  ids.RoomID
}

var _ partition.Command = (*DeleteAlias)(nil)

// Name implements partition.Command.
func (c *DeleteAlias) Name() string { return "delete_alias" }

// Partition implements partition.Command.
func (c *DeleteAlias) Partition(count int) ids.Partition {
	return ids.PartitionOf(string(c.Alias), count)
}

// Prepare implements partition.Command.
func (c *DeleteAlias) Prepare(ctx context.Context, p *partition.Prep) error {
	return p.Pin(ctx, aliasKey(c.Alias, p.Count()))
}

// Apply implements partition.Command.
func (c *DeleteAlias) Apply(tx *partition.Tx) (any, error) {
	k := aliasKey(c.Alias, tx.Count())
	t, err := decodeAlias(tx.Get(k).Value)
	if err != nil {
		return nil, err
	}
	if t == nil || t.Room != c.Room {
		return nil, merr.NotFoundErr("The alias %s does not exist", c.Alias)
	}
	tx.Delete(k)
	return nil, aliasEffect(tx, aliasChange{Room: c.Room, Alias: c.Alias, Removed: true})
}

// MoveAlias points an alias that leads to From to another room. M_NOT_FOUND if it
// does not lead to From.
type MoveAlias struct {
	Alias    ids.RoomAlias
	From, To ids.RoomID
}

var _ partition.Command = (*MoveAlias)(nil)

// Name implements partition.Command.
func (c *MoveAlias) Name() string { return "move_alias" }

// Partition implements partition.Command.
func (c *MoveAlias) Partition(count int) ids.Partition {
	return ids.PartitionOf(string(c.Alias), count)
}

// Prepare implements partition.Command.
func (c *MoveAlias) Prepare(ctx context.Context, p *partition.Prep) error {
	return p.Pin(ctx, aliasKey(c.Alias, p.Count()))
}

// Apply implements partition.Command.
func (c *MoveAlias) Apply(tx *partition.Tx) (any, error) {
	k := aliasKey(c.Alias, tx.Count())
	t, err := decodeAlias(tx.Get(k).Value)
	if err != nil {
		return nil, err
	}
	if t == nil || t.Room != c.From {
		return nil, merr.NotFoundErr("The alias %s does not lead to the room", c.Alias)
	}
	row, err := json.Marshal(&AliasTarget{Room: c.To, Creator: t.Creator})
	if err != nil {
		return nil, fmt.Errorf("encode alias: %w", err)
	}
	tx.Put(k, row, nil)
	if err := aliasEffect(tx, aliasChange{Room: c.From, Alias: c.Alias, Removed: true}); err != nil {
		return nil, err
	}
	return nil, aliasEffect(tx, aliasChange{Room: c.To, Alias: c.Alias})
}

func aliasEffect(tx *partition.Tx, c aliasChange) error {
	payload, err := json.Marshal(&c)
	if err != nil {
		return fmt.Errorf("encode alias change: %w", err)
	}
	tx.Effect(string(c.Room), EffectAlias, payload)
	return nil
}

func decodeAlias(row []byte) (*AliasTarget, error) {
	if row == nil {
		return nil, nil
	}
	t := &AliasTarget{}
	if json.Unmarshal(row, t) != nil {
		return nil, errDamaged(fmt.Errorf("alias row: %w", errRow))
	}
	return t, nil
}

// Alias returns what an alias leads to, nil if there is no such alias.
func (r *Reader) Alias(ctx context.Context, a ids.RoomAlias) (*AliasTarget, error) {
	rows, err := r.st.Get(ctx, aliasKey(a, r.count))
	if err != nil {
		return nil, fmt.Errorf("read alias: %w", err)
	}
	t, err := decodeAlias(rows[0])
	if err != nil {
		return nil, r.unreadable(aliasKey(a, r.count), err)
	}
	return t, nil
}

// maxAliases bounds the aliases of one room that are listed.
const maxAliases = 1000

// Aliases lists the aliases of a room.
func (r *Reader) Aliases(ctx context.Context, room ids.RoomID) ([]ids.RoomAlias, error) {
	p := r.Place(room)
	rows, err := r.st.Scan(ctx, storage.Range{
		Partition: p.Partition, Table: tables.RoomAlias, Entity: string(room), Limit: maxAliases,
	})
	if err != nil {
		return nil, fmt.Errorf("read aliases: %w", err)
	}
	out := make([]ids.RoomAlias, len(rows))
	for i, row := range rows {
		out[i] = ids.RoomAlias(row.Sort)
	}
	return out, nil
}

// Effects are the effects that rooms receive.
func Effects() map[string]partition.EffectHandler {
	return map[string]partition.EffectHandler{EffectAlias: aliasEffects{}, EffectDevices: devicesEffects{}, EffectWatch: watchEffects{}}
}

type aliasEffects struct{}

// Prepare implements partition.EffectHandler.
func (aliasEffects) Prepare(context.Context, *partition.Prep, partition.Effect) error { return nil }

// Apply implements partition.EffectHandler.
func (aliasEffects) Apply(tx *partition.Tx, e partition.Effect) error {
	var c aliasChange
	if err := json.Unmarshal(e.Payload, &c); err != nil {
		return fmt.Errorf("decode alias change: %w", err)
	}
	k := Place{tx.Partition(), c.Room}.key(tables.RoomAlias, string(c.Alias))
	if c.Removed {
		tx.Delete(k)
	} else {
		tx.Put(k, []byte{}, nil)
	}
	tx.Emit(partition.Record{Kind: partition.RecordAlias, Entity: string(c.Room), Data: []byte(c.Alias)})
	return nil
}
