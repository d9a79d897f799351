package importer

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"

	"github.com/hubbub-chat/hubbub/internal/event"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/merr"
	"github.com/hubbub-chat/hubbub/internal/room"
	"github.com/hubbub-chat/hubbub/internal/roomstate"
)

// presetNone makes a room of a create event and its creator alone; all the rest is
// as a room without such state is.
const presetNone = "none"

// createAttempts bounds how often a room is made unlike another that the same creator
// made in the same millisecond. The second attempt has a random word.
const createAttempts = 2

// room makes the room of a line and brings its members in.
func (l *lane) room(ctx context.Context, n *line) error {
	if _, ok := l.rooms[n.Room]; ok || n.Room[0] == '!' {
		return fmt.Errorf("the room %q is there already", n.Room)
	}
	v, first, err := l.first(ctx, n)
	if err != nil {
		return err
	}
	id, err := l.create(ctx, n, v, first)
	if err != nil {
		return err
	}
	l.rooms[n.Room] = id
	return l.members(ctx, n, id, first)
}

// create makes the room, and before it its alias, as a client's request does it.
func (l *lane) create(ctx context.Context, n *line, v event.Version, first *room.First) (ids.RoomID, error) {
	for attempt := 1; ; attempt++ {
		cmd := &room.Create{Version: v.ID, Drafts: first.Drafts(l.time(n)), Public: n.Public}
		if err := cmd.Seal(ids.RoomID("!" + rand.Text() + ":" + l.Server)); err != nil {
			return "", err
		}
		if first.Alias != "" {
			target := room.AliasTarget{Room: cmd.Room, Creator: first.Creator}
			if _, err := l.Router.Do(ctx, &room.SetAlias{Alias: first.Alias, Target: target}); err != nil {
				return "", err
			}
		}
		_, err := l.Router.Do(ctx, cmd)
		if !merr.Is(err, merr.RoomInUse) || attempt == createAttempts {
			return cmd.Room, err
		}
		if first.Alias != "" {
			if _, err := l.Router.Do(ctx, &room.DeleteAlias{Alias: first.Alias, Room: cmd.Room}); err != nil {
				return "", err
			}
		}
		first.Initial.Create = room.Unlike(first.Initial.Create)
	}
}

// first is what the room begins with.
func (l *lane) first(ctx context.Context, n *line) (v event.Version, first *room.First, err error) {
	version := n.Version
	if version == "" {
		version = l.DefaultVersion
	}
	v, ok := event.Lookup(version)
	if !ok {
		return v, nil, fmt.Errorf("room version %q is not supported", version)
	}
	first = &room.First{Name: n.Name, Topic: n.Topic}
	if first.Creator, err = l.userID(n.Creator); err != nil {
		return v, nil, err
	}
	if first.Initial, err = initial(n, v, first.Creator); err != nil {
		return v, nil, err
	}
	if n.Alias != "" {
		if first.Alias, err = ids.ParseRoomAlias("#" + n.Alias + ":" + l.Server); err != nil {
			return v, nil, err
		}
	}
	for _, s := range n.State {
		content, err := event.CanonicalObject(nil, s.Content)
		if err != nil {
			return v, nil, err
		}
		d := roomstate.Draft{Type: s.Type, StateKey: &s.StateKey, Sender: first.Creator, Content: content}
		if err := importable(&d); err != nil {
			return v, nil, err
		}
		first.Initial.Omit(&d)
		first.Given = append(first.Given, d)
	}
	joins, err := l.contents(ctx, event.Join, []ids.UserID{first.Creator})
	if err == nil {
		first.Join = joins[0]
	}
	return v, first, err
}

func initial(n *line, v event.Version, creator ids.UserID) (in roomstate.Initial, err error) {
	o := roomstate.PresetOptions{Version: v, Creator: creator}
	if len(n.CreationContent) > 0 {
		if o.CreationContent, err = event.CanonicalObject(nil, n.CreationContent); err != nil {
			return in, err
		}
	}
	if len(n.PowerLevels) > 0 {
		if o.PowerLevels, err = event.CanonicalObject(nil, n.PowerLevels); err != nil {
			return in, err
		}
	}
	preset := n.Preset
	if preset == "" {
		preset = roomstate.DefaultPreset(n.Public)
	}
	if preset != presetNone {
		return roomstate.Preset(preset, o)
	}
	in, err = roomstate.Preset(roomstate.PresetPrivate, o)
	bare := roomstate.Initial{Create: in.Create}
	if o.PowerLevels != nil {
		bare.PowerLevels = in.PowerLevels
	}
	return bare, err
}

// contents makes the member events' contents of users, with what they are called.
func (l *lane) contents(ctx context.Context, to event.Membership, users []ids.UserID) ([][]byte, error) {
	names, err := l.Accounts.NamesOf(ctx, users)
	if err != nil {
		return nil, err
	}
	if len(names) != len(users) {
		return nil, missing(users, len(names), func(i int) ids.UserID { return names[i].User })
	}
	out := make([][]byte, len(users))
	for i := range names {
		content := event.SetString([]byte("{}"), "membership", string(to))
		if names[i].DisplayName != "" {
			content = event.SetString(content, "displayname", names[i].DisplayName)
		}
		if names[i].AvatarURL != "" {
			content = event.SetString(content, "avatar_url", names[i].AvatarURL)
		}
		out[i] = content
	}
	return out, nil
}

// missing names the first user who is not among the found ones.
func missing(users []ids.UserID, found int, at func(int) ids.UserID) error {
	for i, u := range users {
		if i >= found || at(i) != u {
			return fmt.Errorf("there is no user %s", u)
		}
	}
	return nil
}

// members brings the members of a line in: they join, and where not everyone may, the
// creator invites them before.
func (l *lane) members(ctx context.Context, n *line, id ids.RoomID, first *room.First) error {
	perMember := 2
	if isOpen(first) {
		perMember = 1
	}
	for rest := n.Members; len(rest) > 0; {
		some := rest[:min(len(rest), room.MaxImport/perMember)]
		rest = rest[len(some):]
		users := make([]ids.UserID, len(some))
		for i, name := range some {
			var err error
			if users[i], err = l.userID(name); err != nil {
				return err
			}
		}
		drafts, err := l.joins(ctx, users, first.Creator, perMember > 1)
		if err != nil {
			return err
		}
		ts := l.time(n)
		for i := range drafts {
			drafts[i].OriginServerTS = ts
		}
		err = l.append(ctx, id, drafts)
		if at := (*room.ImportError)(nil); errors.As(err, &at) {
			return fmt.Errorf("member %s: %w", users[at.At/perMember], at.Cause)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (l *lane) joins(ctx context.Context, users []ids.UserID, creator ids.UserID, invite bool) ([]roomstate.Draft, error) {
	joins, err := l.contents(ctx, event.Join, users)
	if err != nil {
		return nil, err
	}
	var invites [][]byte
	if invite {
		if invites, err = l.contents(ctx, event.Invite, users); err != nil {
			return nil, err
		}
	}
	var out []roomstate.Draft
	for i, u := range users {
		key := string(u)
		if invite {
			out = append(out, roomstate.Draft{Type: event.TypeMember, StateKey: &key, Sender: creator, Content: invites[i]})
		}
		out = append(out, roomstate.Draft{Type: event.TypeMember, StateKey: &key, Sender: u, Content: joins[i]})
	}
	return out, nil
}

// isOpen reports whether anyone may join.
func isOpen(first *room.First) bool {
	rules := first.Initial.JoinRules
	for _, d := range first.Given {
		if d.Type == event.TypeJoinRules && *d.StateKey == "" {
			rules = d.Content
		}
	}
	rule, _ := event.StringField(rules, "join_rule")
	return event.JoinRule(rule) == event.JoinRulePublic
}
