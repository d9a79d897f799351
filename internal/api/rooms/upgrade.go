package rooms

import (
	"context"
	"crypto/rand"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"sync"

	"github.com/hubbub-chat/hubbub/internal/account"
	"github.com/hubbub-chat/hubbub/internal/api"
	"github.com/hubbub-chat/hubbub/internal/event"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/merr"
	"github.com/hubbub-chat/hubbub/internal/room"
	"github.com/hubbub-chat/hubbub/internal/roomstate"
)

const (
	// typeSpaceChild is the type of the events that make the tree of spaces.
	typeSpaceChild = "m.space.child"
	// mutedPower is the least power to send to a room that was replaced. spec:
	// client-server §Room Upgrades, step 6.
	mutedPower = 50
	// upgradeFanOut is how many events or aliases of an upgrade are on their way
	// at once.
	upgradeFanOut = 16
)

// upgrading is a room on its way to another version.
//
// The new room is complete before the old one points to it, so that a failure at
// any time leaves either a room that nobody knows of or one that is in use. Its
// power levels come last: until then its creator may set all other state, however
// little power the copied levels leave them.
type upgrading struct {
	user    ids.UserID
	head    *room.Head
	version event.Version
	old     []*room.Stored // the state to copy
	first   roomstate.Initial
	join    []byte
	levels  []byte // of the old room, nil if it has none
}

// upgrade: spec client-server §POST /rooms/{roomId}/upgrade, §Room Upgrades.
func (m *Module) upgrade(r *api.Request) (any, error) {
	id, err := r.RoomID("roomId")
	if err != nil {
		return nil, err
	}
	var req struct {
		Version  *string  `json:"new_version"`
		Creators []string `json:"additional_creators"`
	}
	if err := api.DecodeBody(r, &req); err != nil {
		return nil, err
	}
	if req.Version == nil {
		return nil, api.Missing("new_version")
	}
	version, ok := event.Lookup(*req.Version)
	if !ok {
		return nil, merr.New(http.StatusBadRequest, merr.UnsupportedRoomVersion, "The room version is not supported")
	}
	var creators []ids.UserID
	if version.CreatorPower {
		if creators, err = parseCreators(req.Creators); err != nil {
			return nil, err
		}
	}
	u, err := m.planUpgrade(r.Context, id, r.Caller.User, version, creators)
	if err != nil {
		return nil, err
	}
	to, err := m.replace(r.Context, u)
	if err != nil {
		return nil, err
	}
	return map[string]ids.RoomID{"replacement_room": to}, nil
}

func parseCreators(list []string) ([]ids.UserID, error) {
	out := make([]ids.UserID, 0, len(list))
	for _, s := range list {
		user, err := ids.ParseUserID(s)
		if err != nil {
			return nil, merr.InvalidParamErr("additional_creators has an entry that is no user ID").Because(err)
		}
		out = append(out, user)
	}
	return out, nil
}

// copiedTypes is the state that a new room takes over, without the power levels.
// The aliases follow. spec: client-server §Room Upgrades, step 3.
func copiedTypes() []string {
	return []string{
		event.TypeJoinRules, event.TypeHistoryVisibility, event.TypeGuestAccess, event.TypeEncryption,
		event.TypeServerACL, event.TypeName, event.TypeAvatar, event.TypeTopic, event.TypeCanonicalAlias,
	}
}

// planUpgrade reads the old room and asks whether the user may replace it.
func (m *Module) planUpgrade(ctx context.Context, id ids.RoomID, user ids.UserID, v event.Version, creators []ids.UserID) (*upgrading, error) {
	head, err := m.Rooms.Head(ctx, id)
	if err != nil {
		return nil, err
	}
	if head == nil {
		return nil, errNotIn()
	}
	may := false
	var makers []ids.UserID
	err = m.Rooms.Ask(ctx, id, func(st roomstate.View) {
		may = roomstate.CanSend(head.Version, user, event.TypeTombstone, true, st)
		makers = roomstate.PowersOf(head.Version, st).Creators()
	})
	if err != nil {
		return nil, err
	}
	if !may {
		return nil, merr.ForbiddenErr("You may not replace this room")
	}
	u := &upgrading{user: user, head: head, version: v}
	types := append(copiedTypes(), event.TypeCreate, event.TypePowerLevels)
	keys := make([]room.StateKey, len(types))
	for i, t := range types {
		keys[i].Type = t
	}
	list, err := m.Rooms.Strict().StateEvents(ctx, id, keys...)
	if err != nil {
		return nil, err
	}
	n := len(copiedTypes())
	create, levels := list[n], list[n+1]
	for _, s := range list[:n] {
		if s != nil {
			u.old = append(u.old, s)
		}
	}
	if levels != nil {
		u.levels = levels.Content
	}
	next := u.levels
	switch {
	case v.CreatorPower:
		next = withoutLevels(next, append(creators, user))
	case head.Version.CreatorPower:
		next = withLevels(next, makers)
	}
	if u.join, err = m.withProfile(ctx, memberContent(event.Join, ""), user, true); err != nil {
		return nil, err
	}
	u.first, err = roomstate.Preset(roomstate.PresetPrivate, roomstate.PresetOptions{
		Version: v, Creator: user, CreationContent: u.creation(create, creators), PowerLevels: next,
	})
	return u, err
}

// creation is the content of the new room's create event, as far as it comes from
// the old room. The event that a predecessor names is the last one known; version
// 12 has it no more.
func (u *upgrading) creation(create *room.Stored, creators []ids.UserID) []byte {
	predecessor := event.SetString([]byte("{}"), "room_id", string(u.head.RoomID))
	if !u.version.CreatorPower {
		predecessor = event.SetString(predecessor, "event_id", string(u.head.LastEvent))
	}
	content := event.SetField(nil, []byte("{}"), "predecessor", predecessor)
	for _, name := range [...]string{"type", "m.federate"} {
		if value, ok := event.Field(create.Content, name); ok {
			content = event.SetField(nil, content, name, value)
		}
	}
	if len(creators) == 0 {
		return content
	}
	list := []byte{'['}
	for i, user := range creators {
		if i > 0 {
			list = append(list, ',')
		}
		list = event.AppendString(list, user)
	}
	return event.SetField(nil, content, "additional_creators", append(list, ']'))
}

// withoutLevels takes out those whose power in the new room comes from creating it.
func withoutLevels(levels []byte, creators []ids.UserID) []byte {
	users, ok := event.Field(levels, "users")
	if !ok {
		return levels
	}
	for _, user := range creators {
		users = event.DropField(nil, users, string(user))
	}
	return event.SetField(nil, levels, "users", users)
}

// withLevels gives those whose power came from creating the old room, which the
// version of the new one does not know, as much as anything takes.
func withLevels(levels []byte, creators []ids.UserID) []byte {
	if levels == nil {
		levels = []byte("{}")
	}
	highest := int64(100)
	if parsed, err := event.ParsePowerLevels(levels); err == nil {
		for _, level := range parsed.Events {
			highest = max(highest, level)
		}
		for l := range event.Level(event.NumLevels) {
			highest = max(highest, parsed.Level(l))
		}
	}
	users, ok := event.Field(levels, "users")
	if !ok {
		users = []byte("{}")
	}
	for _, user := range creators {
		users = event.SetField(nil, users, string(user), strconv.AppendInt(nil, highest, 10))
	}
	return event.SetField(nil, levels, "users", users)
}

// replace makes the new room, points the old one to it, and moves what leads there.
func (m *Module) replace(ctx context.Context, u *upgrading) (ids.RoomID, error) {
	to, err := m.createReplacement(ctx, u)
	if err != nil {
		return "", err
	}
	if err := m.fillReplacement(ctx, u, to); err != nil {
		return "", err
	}
	tombstone := event.SetString(event.SetString([]byte("{}"), "body", "This room has been replaced"), "replacement_room", string(to))
	if err := m.setState(ctx, u.head.RoomID, u.user, event.TypeTombstone, tombstone); err != nil {
		return "", err
	}
	// From here on the room is replaced. What fails now does not change that.
	if err := errors.Join(m.moveNames(ctx, u, to), m.mute(ctx, u)); err != nil {
		m.Log.WarnContext(ctx, "an upgrade left something behind", "room", u.head.RoomID, "replacement", to, "error", err)
	}
	m.carryOver(ctx, to, u.user)
	return to, nil
}

// createReplacement makes the new room with the state that was copied.
func (m *Module) createReplacement(ctx context.Context, u *upgrading) (ids.RoomID, error) {
	ts := m.Clock.Now().UnixMilli()
	opaque := ids.RoomID("!" + rand.Text() + ":" + m.Server)
	for range createAttempts {
		cmd := &room.Create{Version: u.version.ID, Public: u.head.Public, Drafts: u.drafts(ts)}
		if err := cmd.Seal(opaque); err != nil {
			return "", notInitial(err)
		}
		_, err := m.Router.Do(ctx, cmd)
		if err == nil {
			return cmd.Room, nil
		}
		if !merr.Is(err, merr.RoomInUse) {
			return "", notInitial(err)
		}
		u.first.Create = room.Unlike(u.first.Create)
	}
	return "", errSameRoom
}

func (u *upgrading) drafts(ts int64) []roomstate.Draft {
	var out []roomstate.Draft
	add := func(eventType, key string, content []byte) {
		out = append(out, roomstate.Draft{Type: eventType, StateKey: &key, Sender: u.user, Content: content, OriginServerTS: ts})
	}
	add(event.TypeCreate, "", u.first.Create)
	add(event.TypeMember, string(u.user), u.join)
	for _, s := range u.old {
		add(s.Type, "", s.Content)
	}
	return out
}

// fillReplacement sends what there can be many of, the rooms of a space and who is
// banned, and then the power levels.
func (m *Module) fillReplacement(ctx context.Context, u *upgrading, to ids.RoomID) error {
	var drafts []roomstate.Draft
	add := func(s *room.Stored, content []byte) {
		drafts = append(drafts, roomstate.Draft{Type: s.Type, StateKey: s.StateKey, Sender: u.user, Content: content})
	}
	old := m.Rooms.Strict() // a ban that cannot be read is one that would be lifted
	err := old.WalkState(ctx, u.head.RoomID, event.TypeMember, func(s *room.Stored) bool {
		if s.Member().Membership == event.Ban && *s.StateKey != string(u.user) {
			why, _ := event.StringField(s.Content, "reason")
			add(s, memberContent(event.Ban, why))
		}
		return true
	})
	if err != nil {
		return err
	}
	err = old.WalkState(ctx, u.head.RoomID, typeSpaceChild, func(s *room.Stored) bool {
		if isChild(s) {
			add(s, s.Content)
		}
		return true
	})
	if err != nil {
		return err
	}
	err = inParallel(upgradeFanOut, drafts, func(d roomstate.Draft) error {
		_, err := m.Router.Do(ctx, &room.Send{Room: to, Draft: d})
		if merr.Is(err, merr.Forbidden) {
			return nil // a creator of the new room cannot be banned from it
		}
		return err
	})
	if err != nil {
		return err
	}
	return m.setState(ctx, to, u.user, event.TypePowerLevels, u.first.PowerLevels)
}

func (m *Module) setState(ctx context.Context, id ids.RoomID, user ids.UserID, eventType string, content []byte) error {
	key := ""
	_, err := m.Router.Do(ctx, &room.Send{Room: id, Draft: roomstate.Draft{
		Type: eventType, StateKey: &key, Sender: user, Content: content,
	}})
	return err
}

// moveNames moves the aliases and the place in the directory.
func (m *Module) moveNames(ctx context.Context, u *upgrading, to ids.RoomID) error {
	from := u.head.RoomID
	var errs []error
	aliases, err := m.Rooms.Aliases(ctx, from)
	errs = append(errs, err, inParallel(upgradeFanOut, aliases, func(a ids.RoomAlias) error {
		_, err := m.Router.Do(ctx, &room.MoveAlias{Alias: a, From: from, To: to})
		if merr.Is(err, merr.NotFound) {
			return nil // deleted meanwhile
		}
		return err
	}))
	if slices.ContainsFunc(u.old, func(s *room.Stored) bool { return s.Type == event.TypeCanonicalAlias }) {
		if err := m.setState(ctx, from, u.user, event.TypeCanonicalAlias, []byte("{}")); !merr.Is(err, merr.Forbidden) {
			errs = append(errs, err)
		}
	}
	if u.head.Public {
		_, err := m.Router.Do(ctx, &room.SetPublic{Room: from, Sender: u.user, Admin: true})
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// mute keeps those without power from sending to the old room and from inviting to
// it, as far as the user may say so. spec: client-server §Room Upgrades, step 6.
func (m *Module) mute(ctx context.Context, u *upgrading) error {
	if u.levels == nil {
		return nil
	}
	levels, err := event.ParsePowerLevels(u.levels)
	if err != nil {
		return nil // then nobody can change them
	}
	content, floor := u.levels, max(mutedPower, min(levels.Level(event.LevelUsersDefault)+1, event.MaxInt))
	for _, l := range [...]event.Level{event.LevelEventsDefault, event.LevelInvite} {
		if levels.Level(l) < floor {
			content = event.SetField(nil, content, l.Name(), strconv.AppendInt(nil, floor, 10))
		}
	}
	err = m.setState(ctx, u.head.RoomID, u.user, event.TypePowerLevels, content)
	if merr.Is(err, merr.Forbidden) {
		return nil
	}
	return err
}

// carryOver gives a room that replaces another the user's settings for that one.
// That it does is believed if the old room says so, or if the maker of the new one
// could make it say so: everyone else could name any room.
func (m *Module) carryOver(ctx context.Context, id ids.RoomID, user ids.UserID) {
	if err := m.tryCarryOver(ctx, id, user); err != nil {
		m.Log.WarnContext(ctx, "settings of a replaced room were not carried over", "room", id, "user", user, "error", err)
	}
}

func (m *Module) tryCarryOver(ctx context.Context, id ids.RoomID, user ids.UserID) error {
	create, err := m.Rooms.StateEvent(ctx, id, event.TypeCreate, "")
	if err != nil || create == nil {
		return err
	}
	from := create.Create().Predecessor
	if _, err := ids.ParseRoomID(string(from)); err != nil {
		return nil // no room was replaced
	}
	head, err := m.Rooms.Head(ctx, from)
	if err != nil || head == nil {
		return err
	}
	list, err := m.Rooms.StateEvents(ctx, from, room.StateKey{Type: event.TypeTombstone}, room.StateKey{Type: event.TypeMember, Key: string(user)})
	if err != nil || list[1] == nil {
		return err
	}
	believed := false
	if list[0] != nil {
		next, _ := event.StringField(list[0].Content, "replacement_room")
		believed = next == string(id)
	}
	if !believed {
		err = m.Rooms.Ask(ctx, from, func(st roomstate.View) {
			believed = roomstate.CanSend(head.Version, create.Sender, event.TypeTombstone, true, st)
		})
	}
	if err != nil || !believed {
		return err
	}
	_, err = m.Router.Do(ctx, account.NewCarryOver(user, from, id, m.RuleOptions))
	return err
}

// inParallel calls fn for each of list, at most width at once, and joins the errors.
func inParallel[T any](width int, list []T, fn func(T) error) error {
	next := make(chan T)
	errs := make([]error, min(width, len(list)))
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() {
			for v := range next {
				errs[i] = errors.Join(errs[i], fn(v))
			}
		})
	}
	for _, v := range list {
		next <- v
	}
	close(next)
	wg.Wait()
	return errors.Join(errs...)
}
