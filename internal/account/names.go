package account

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json"

	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/partition"
	"github.com/hubbub-chat/hubbub/internal/room"
	"github.com/hubbub-chat/hubbub/internal/storage"
	"github.com/hubbub-chat/hubbub/internal/tables"
)

// EffectNames tells the index of users that the terms of a user's names which begin
// with one letter changed. The payload is a namesChange in JSON.
//
// The index is spread over the partitions by that letter, so that a search looks
// at one row after the other in one place, however many users there are.
const EffectNames = "user_names"

type namesChange struct {
	User   ids.UserID `json:"user"`
	Add    []string   `json:"add,omitempty"`
	Remove []string   `json:"remove,omitempty"`
}

// letterOf returns the entity of a term in the index of users.
func letterOf(term string) string {
	_, size := utf8.DecodeRuneInString(term)
	return term[:size]
}

func userTermKey(term string, user ids.UserID, count int) storage.Key {
	letter := letterOf(term)
	return storage.Key{
		Partition: ids.PartitionOf(letter, count), Table: tables.UserTerm, Entity: letter, Sort: partition.JoinSort(term, string(user)),
	}
}

// tellNames tells the index that a user is now found by the terms after and no
// longer by those before.
func tellNames(tx *partition.Tx, user ids.UserID, before, after []string) error {
	byLetter := make(map[string]*namesChange)
	var order []string // as the terms come: a command does the same each time
	change := func(term string) *namesChange {
		letter := letterOf(term)
		if byLetter[letter] == nil {
			byLetter[letter] = &namesChange{User: user}
			order = append(order, letter)
		}
		return byLetter[letter]
	}
	for _, term := range before {
		if !slices.Contains(after, term) {
			c := change(term)
			c.Remove = append(c.Remove, term)
		}
	}
	for _, term := range after {
		if !slices.Contains(before, term) {
			c := change(term)
			c.Add = append(c.Add, term)
		}
	}
	for _, letter := range order {
		payload, err := json.Marshal(byLetter[letter])
		if err != nil {
			return fmt.Errorf("encode change of names: %w", err)
		}
		tx.Effect(letter, EffectNames, payload)
	}
	return nil
}

type namesEffects struct{}

var _ partition.EffectHandler = namesEffects{}

// Prepare implements partition.EffectHandler.
func (namesEffects) Prepare(context.Context, *partition.Prep, partition.Effect) error { return nil }

// Apply implements partition.EffectHandler.
func (namesEffects) Apply(tx *partition.Tx, e partition.Effect) error {
	var c namesChange
	if err := json.Unmarshal(e.Payload, &c); err != nil {
		return fmt.Errorf("decode change of names: %w", err)
	}
	for _, term := range c.Remove {
		tx.Delete(userTermKey(term, c.User, tx.Count()))
	}
	for _, term := range c.Add {
		tx.Put(userTermKey(term, c.User, tx.Count()), []byte{}, nil)
	}
	return nil
}

// UsersNamed lists up to limit users of whose names one begins with a folded text
// that is not empty; more reports that there are others.
func (r *Reader) UsersNamed(ctx context.Context, prefix string, limit int) (users []ids.UserID, more bool, err error) {
	letter := letterOf(prefix)
	rows, err := r.st.Scan(ctx, storage.Range{
		Partition: ids.PartitionOf(letter, r.count), Table: tables.UserTerm, Entity: letter,
		From: prefix, To: partition.PrefixEnd(prefix), Limit: limit + 1,
	})
	if err != nil {
		return nil, false, wrap("find users", err)
	}
	for _, row := range rows[:min(limit, len(rows))] {
		if _, user, ok := strings.Cut(row.Sort, "\x00"); ok {
			users = append(users, ids.UserID(user))
		}
	}
	return users, len(rows) > limit, nil
}

// NamesOf returns what users are called, in one read; those who do not exist or
// were deactivated are left out.
func (r *Reader) NamesOf(ctx context.Context, users []ids.UserID) ([]Names, error) {
	keys := make([]storage.Key, 0, 3*len(users))
	for _, u := range users {
		p := r.Place(u)
		keys = append(keys, p.account(), p.profile(FieldDisplayName), p.profile(FieldAvatarURL))
	}
	rows, err := r.st.Get(ctx, keys...)
	if err != nil {
		return nil, wrap("read names", err)
	}
	out := make([]Names, 0, len(users))
	for i, u := range users {
		row := rows[3*i : 3*i+3]
		a := &Account{}
		if row[0] == nil || decode(row[0], a) != nil || a.Deactivated {
			continue
		}
		out = append(out, Names{User: u, DisplayName: text(row[1]), AvatarURL: text(row[2])})
	}
	return out, nil
}

// terms are the terms of a user's names; name is the display name as JSON, nil
// for none.
func terms(user ids.UserID, name []byte) []string { return room.NameTerms(user, text(name)) }
