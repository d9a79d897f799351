package roomstate

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/hubbub-chat/hubbub/internal/event"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/merr"
)

// Rejection is the answer of an authorization rule that said no. merr.From
// makes an error for the client of it, with the reason: see Client.
type Rejection struct {
	// Version and Rule name the rule in the specification: "12", "5.3.7".
	// Versions before 10 are numbered as 10 is.
	Version string
	Rule    string
	// Reason is for the user.
	Reason string
}

// ErrRejected is each Rejection to errors.Is, also behind a command that ran on
// another node.
var ErrRejected = errors.New("rejected by the rules of the room")

// Is implements what errors.Is asks for.
func (r *Rejection) Is(target error) bool { return target == ErrRejected }

// Error names the rule and the reason, for logs.
func (r *Rejection) Error() string {
	return fmt.Sprintf("rejected by rule %s of room version %s: %s", r.Rule, r.Version, r.Reason)
}

// Client returns the answer to the client: 403 M_FORBIDDEN, or 400 M_INVALID_PARAM
// where no power in the room would suffice, so that the content is at fault.
// spec: client-server §PUT …/state, 400 and 403.
func (r *Rejection) Client() *merr.Error {
	if r.Rule == ruleCreatorPower {
		return merr.InvalidParamErr("%s", r.Reason).Because(r)
	}
	return merr.ForbiddenErr("%s", r.Reason).Because(r)
}

// ruleCreatorPower, of version 12: levels do not name creators.
const ruleCreatorPower = "10.4"

// As lets errors.As, and so merr.From, find the answer to the client.
func (r *Rejection) As(target any) bool {
	if t, ok := target.(**merr.Error); ok {
		*t = r.Client()
		return true
	}
	return false
}

// Authorize decides whether an event may follow the state. It applies all
// authorization rules of the event's room version that can fail where one
// server holds the whole room. The error is a *Rejection.
//
// Comments cite the rules as "10: 4.3.1, 12: 5.3.1": the number in the lists of
// versions 10 and 11, and where it differs, in that of 12.
// spec: rooms/v10, rooms/v11, rooms/v12 §Authorisation rules.
func Authorize(v event.Version, ev *event.Event, st View) error {
	f := gather(v, ev, st)
	return f.authorize(ev)
}

// facts is the state that one event is judged by.
type facts struct {
	version    event.Version
	create     *event.Event
	levels     *event.Event
	joinRules  *event.Event
	sender     *event.Event // the sender's m.room.member
	target     *event.Event // of m.room.member: the target's
	token      *event.Event // the m.room.third_party_invite that an invite names
	authoriser *event.Event // the m.room.member of who vouches for a restricted join
	member     *event.Member
	powers     Powers
}

// gather reads from the view what AuthKeys names.
func gather(v event.Version, ev *event.Event, st View) facts {
	f := facts{version: v}
	if ev.Type == event.TypeCreate {
		return f
	}
	f.create = st.State(event.TypeCreate, "")
	f.levels = st.State(event.TypePowerLevels, "")
	f.sender = st.State(event.TypeMember, string(ev.Sender))
	f.powers = NewPowers(v, f.create, f.levels)
	if ev.Type != event.TypeMember || ev.StateKey == nil {
		return f
	}
	f.member = ev.Member()
	f.target = f.sender
	if *ev.StateKey != string(ev.Sender) {
		f.target = st.State(event.TypeMember, *ev.StateKey)
	}
	var keys [maxAuthKeys]StateKey
	for _, k := range appendMemberKeys(keys[:0], f.member) {
		switch found := st.State(k.Type, k.Key); k.Type {
		case event.TypeJoinRules:
			f.joinRules = found
		case event.TypeThirdPartyInvite:
			f.token = found
		case event.TypeMember:
			f.authoriser = found
		}
	}
	return f
}

// appendAuthEvents selects the auth events. spec: server-server §Auth events
// selection; rooms/v12: not the create event.
func (f *facts) appendAuthEvents(dst []ids.EventID) []ids.EventID {
	start := len(dst)
	if !f.version.RoomIDFromCreate {
		dst = appendEvent(dst, start, f.create)
	}
	for _, ev := range [...]*event.Event{f.levels, f.sender, f.target, f.joinRules, f.token, f.authoriser} {
		dst = appendEvent(dst, start, ev)
	}
	return dst
}

func appendEvent(dst []ids.EventID, start int, ev *event.Event) []ids.EventID {
	if ev == nil || slices.Contains(dst[start:], ev.ID) {
		return dst
	}
	return append(dst, ev.ID)
}

// reject makes a Rejection. The rule is given as versions 10 and 11 number it.
func (f *facts) reject(rule, format string, args ...any) error {
	r := &Rejection{Version: f.version.ID, Rule: rule, Reason: fmt.Sprintf(format, args...)}
	if f.version.RoomIDFromCreate {
		r.Rule = renumber(rule)
	}
	return r
}

// renumber turns the number of a rule of version 11 into that of version 12,
// which has a new rule 2, and a new rule 10.4 among those on power levels.
func renumber(rule string) string {
	parts := strings.Split(rule, ".")
	first, _ := strconv.Atoi(parts[0])
	if first < 2 {
		return rule
	}
	parts[0] = strconv.Itoa(first + 1)
	if first == 9 && len(parts) > 1 {
		if second, _ := strconv.Atoi(parts[1]); second >= 4 {
			parts[1] = strconv.Itoa(second + 1)
		}
	}
	return strings.Join(parts, ".")
}

func (f *facts) authorize(ev *event.Event) error {
	// 1: the create event.
	if ev.Type == event.TypeCreate {
		return f.createRule(ev)
	}
	if err := f.roomRules(ev); err != nil {
		return err
	}
	// 4, 12: 5: memberships have rules of their own, which are final.
	if ev.Type == event.TypeMember {
		return f.memberRule(ev)
	}
	// 5, 12: 6.
	if membershipOf(f.sender) != event.Join {
		return f.reject("5", "You are not in this room")
	}
	power := f.powers.Of(ev.Sender)
	// 6, 12: 7: final as well.
	if ev.Type == event.TypeThirdPartyInvite {
		if power < f.powers.Level(event.LevelInvite) {
			return f.reject("6.1", "You do not have the power to invite")
		}
		return nil
	}
	// 7, 12: 8.
	if need := f.powers.RequiredFor(ev.Type, ev.IsState()); power < need {
		return f.reject("7", "You do not have the power to send %s: it takes %d", ev.Type, need)
	}
	// 8, 12: 9.
	if ev.IsState() && strings.HasPrefix(*ev.StateKey, "@") && *ev.StateKey != string(ev.Sender) {
		return f.reject("8", "This state belongs to another user")
	}
	// 9, 12: 10.
	if ev.Type == event.TypePowerLevels {
		return f.powerLevelsRule(ev, power)
	}
	// 10, 12: 11.
	return nil
}

// createRule is rule 1. That the create event is state with an empty key is a
// matter of its form; the rules take it for granted.
func (f *facts) createRule(ev *event.Event) error {
	content := ev.Create()
	switch {
	case !ev.Is(event.TypeCreate, ""):
		return f.reject("1", "The create event is state with an empty key")
	case len(ev.PrevEvents) > 0: // 1.1
		return f.reject("1.1", "The room exists already")
	case len(ev.AuthEvents) > 0:
		return f.reject("2.2", "The create event has no auth events")
	// 1.2: in 12 the room ID follows from the event's, before, the domains match.
	case f.version.RoomIDFromCreate && !namedAfter(ev.RoomID, ev):
		return f.reject("1.2", "The create event names another room")
	case !f.version.RoomIDFromCreate && roomServer(ev.RoomID) != ev.Sender.Server():
		return f.reject("1.2", "The room ID is of another server")
	// 1.3: "a recognised version". One writer knows which: its own.
	case content.HasRoomVersion && content.RoomVersion != f.version.ID:
		return f.reject("1.3", "The room version is not %s", f.version.ID)
	case f.version.CreatorInContent && !content.HasCreator: // 10: 1.4
		return f.reject("1.4", "The create event names no creator")
	case f.version.CreatorPower && content.BadCreators: // 12: 1.4
		return f.reject("1.4", "additional_creators is not a list of user IDs")
	}
	return nil
}

// namedAfter reports whether a room ID is that of the room a create event made.
func namedAfter(room ids.RoomID, create *event.Event) bool {
	return len(room) > 1 && len(create.ID) > 1 && room[0] == '!' && room[1:] == ids.RoomID(create.ID[1:])
}

func roomServer(room ids.RoomID) string {
	_, server, _ := strings.Cut(string(room), ":")
	return server
}

// roomRules are rules 2 and 3, in version 12 rules 2 to 4.
func (f *facts) roomRules(ev *event.Event) error {
	if f.create == nil || ev.RoomID != f.create.RoomID {
		if f.version.RoomIDFromCreate {
			return &Rejection{f.version.ID, "2", "The room does not exist"}
		}
		return f.reject("2.4", "The room does not exist")
	}
	// 12: 2.
	if f.version.RoomIDFromCreate && !namedAfter(ev.RoomID, f.create) {
		return &Rejection{f.version.ID, "2", "The room is not named after its create event"}
	}
	if err := f.authEventsRule(ev); err != nil {
		return err
	}
	// 3, 12: 4.
	if f.create.Create().NoFederation && ev.Sender.Server() != f.create.Sender.Server() {
		return f.reject("3", "This room is closed to other servers")
	}
	return nil
}

// authEventsRule is rule 2, in version 12 rule 3. What was rejected (2.3) is
// never stored, so it cannot be among the entries.
func (f *facts) authEventsRule(ev *event.Event) error {
	var selected [maxAuthKeys]ids.EventID
	want := f.appendAuthEvents(selected[:0])
	for i, id := range ev.AuthEvents {
		switch {
		case slices.Contains(ev.AuthEvents[:i], id): // 2.1
			return f.reject("2.1", "Two auth events are the same state")
		case !slices.Contains(want, id): // 2.2
			return f.reject("2.2", "An auth event has no bearing on this event")
		}
	}
	// 2.4: not in 12, where the room ID implies the create event.
	if !f.version.RoomIDFromCreate && !slices.Contains(ev.AuthEvents, f.create.ID) {
		return f.reject("2.4", "The create event is not among the auth events")
	}
	// 2.5.
	for _, auth := range [...]*event.Event{f.levels, f.sender, f.target, f.joinRules, f.token, f.authoriser} {
		if auth != nil && auth.RoomID != ev.RoomID {
			return f.reject("2.5", "An auth event is of another room")
		}
	}
	return nil
}

// powerLevelsRule is rule 9, in version 12 rule 10.
func (f *facts) powerLevelsRule(ev *event.Event, power Power) error {
	after, err := ev.PowerLevels()
	if err != nil {
		return f.badLevels(err)
	}
	// 12: 10.4.
	if f.version.CreatorPower {
		for user := range after.Users {
			if f.powers.IsCreator(user) {
				return &Rejection{f.version.ID, ruleCreatorPower, "The power of a creator cannot be set"}
			}
		}
	}
	// 9.4, 12: 10.5.
	if f.levels == nil {
		return nil
	}
	before := f.powers.levels
	if err := f.levelsRule(before, after, power); err != nil {
		return err
	}
	// 9.6 and 9.7, 12: 10.7 and 10.8.
	if err := entriesRule(f, before.Events, after.Events, power, "6", "7"); err != nil {
		return err
	}
	if err := entriesRule(f, before.Notifications, after.Notifications, power, "6", "7"); err != nil {
		return err
	}
	// 9.8, 12: 10.9: of a peer only the peer may take power.
	for user, old := range before.Users {
		level, stays := after.Users[user]
		if (!stays || level != old) && user != ev.Sender && Power(old) >= power {
			return f.reject("9.8", "You cannot change the power of a user who has as much as you")
		}
	}
	// 9.9, 12: 10.10.
	return entriesRule(f, before.Users, after.Users, power, "", "9")
}

// badLevels tells which of 9.1 to 9.3, 12: 10.1 to 10.3, a content breaks.
func (f *facts) badLevels(err error) error {
	rule := "9.1"
	var field *event.FieldError
	if errors.As(err, &field) {
		switch field.Field {
		case "events", "notifications":
			rule = "9.2"
		case "users":
			rule = "9.3"
		}
	}
	return f.reject(rule, "Power levels: %v", err)
}

// levelsRule is 9.5, 12: 10.6. "The current value" of a level that is not in
// the content is its default: otherwise a level that was never spelled out
// could be lowered, or raised, past one's own.
func (f *facts) levelsRule(before, after *event.PowerLevels, power Power) error {
	for l := range event.Level(event.NumLevels) {
		if before.Has(l) == after.Has(l) && before.Level(l) == after.Level(l) {
			continue
		}
		if Power(before.Level(l)) > power { // 9.5.1
			return f.reject("9.5.1", "You do not have the power to change %s", l.Name())
		}
		if Power(after.Level(l)) > power { // 9.5.2
			return f.reject("9.5.2", "You cannot set %s above your own power", l.Name())
		}
	}
	return nil
}

// entriesRule compares two maps of levels: an entry that changes or goes may
// not be above power (rule changed, if any), nor one that changes or comes
// (rule added).
func entriesRule[K ~string](f *facts, before, after map[K]int64, power Power, changed, added string) error {
	if changed != "" {
		for key, old := range before {
			level, stays := after[key]
			if (!stays || level != old) && Power(old) > power {
				return f.reject("9."+changed+".1", "You do not have the power to change the level of %s", key)
			}
		}
	}
	for key, level := range after {
		old, was := before[key]
		if (!was || level != old) && Power(level) > power {
			return f.reject("9."+added+".1", "You cannot set the level of %s above your own power", key)
		}
	}
	return nil
}
