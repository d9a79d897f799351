package pushrules

import (
	"strconv"
	"strings"

	"github.com/hubbub-chat/hubbub/internal/ids"
)

// Outcome is what the rule that matched an event asks for. It is shared by all
// evaluations and must not be written to.
type Outcome struct {
	Kind   Kind
	RuleID string
	// Notify says whether the event counts as unread and goes to the pushers.
	Notify bool
	// Highlight says whether it counts as a highlight too. It is false without Notify.
	Highlight bool
	// Sound is the value of the sound tweak, "" for none.
	Sound string
	// Actions are all actions of the rule.
	Actions []Action
}

func newOutcome(kind Kind, id string, actions []Action) *Outcome {
	o := &Outcome{Kind: kind, RuleID: id, Actions: actions}
	for _, a := range actions {
		switch a.SetTweak {
		case "":
			o.Notify = o.Notify || a.Historical == ""
		case "highlight":
			o.Highlight = a.Value == nil || a.Value.Kind() == 't'
		case "sound":
			if v, err := scalar(a.Value); err == nil {
				o.Sound, _ = v.(string)
			}
		}
	}
	o.Highlight = o.Highlight && o.Notify
	return o
}

// RoomInfo is what conditions ask about the room and the sender. One serves the
// evaluations for all members.
type RoomInfo struct {
	// Members is the number of joined members.
	Members int
	// SenderPower is the power level of the event's sender; math.MaxInt64 for a
	// creator of a room of version 12.
	SenderPower int64
	// NotificationPower is the object "notifications" of the room's
	// m.room.power_levels, nil if there is none.
	NotificationPower map[string]int64
}

// defaultNotificationPower is the level that a notification needs which the room
// does not mention. spec: client-server m.room.power_levels, notifications.
const defaultNotificationPower = 50

// maxWork bounds the steps of pattern matching in one evaluation (a step takes about
// a nanosecond). A thousand ordinary keywords on a message of the greatest size stay
// below it; past it, patterns match nothing.
const maxWork = 4 << 20

// Program is one user's rules, ready to be evaluated. It is immutable and safe for
// concurrent use.
type Program struct {
	defaults  *Defaults
	user      ids.UserID
	localpart string
	// enabled has a bit for each predefined rule.
	enabled uint64
	// changed holds the outcomes of predefined rules whose actions the user changed.
	changed map[int]*Outcome

	override, content, underride []compiledRule
	room                         map[ids.RoomID]*Outcome
	sender                       map[ids.UserID]*Outcome
}

type compiledRule struct {
	conditions []condition
	outcome    *Outcome
}

// op is the operation of a compiled condition.
type op uint8

const (
	// opNever: a condition of an unknown kind.
	opNever op = iota
	opGlob
	opIs
	opContains
	opDisplayName
	opMembers
	opPermission
	// opIsUser: the property is the user's ID.
	opIsUser
	// opContainsUser: the property is an array with the user's ID.
	opContainsUser
	// opLocalpart: the body contains the localpart of the user's ID.
	opLocalpart
	// opNoMentions: the event has no m.mentions.
	opNoMentions
	// opThread: the event is in a thread, and the user is subscribed to it or not.
	opThread
)

// condition is a compiled Condition.
type condition struct {
	op    op
	path  path
	glob  glob
	value any
	count count
	key   string
}

func compileCondition(c Condition) condition {
	switch c.Kind {
	case condEventMatch:
		return condition{op: opGlob, path: compilePath(c.Key), glob: compileGlob(c.Pattern, c.Key == pathBody)}
	case condPropertyIs:
		return condition{op: opIs, path: compilePath(c.Key), value: c.Value}
	case condPropertyContains:
		return condition{op: opContains, path: compilePath(c.Key), value: c.Value}
	case condDisplayName:
		return condition{op: opDisplayName}
	case condMemberCount:
		if n, err := parseCount(c.Is); err == nil {
			return condition{op: opMembers, count: n}
		}
	case condSenderPermission:
		return condition{op: opPermission, key: c.Key}
	case condThread:
		return condition{op: opThread, value: c.Value}
	}
	return condition{op: opNever}
}

// count is the parameter of a room_member_count condition: members match if they
// are within both bounds.
type count struct{ min, max int }

// parseCount reads a decimal number with an optional comparison before it.
// spec: client-server §Push Rules, room_member_count.
func parseCount(is string) (count, error) {
	const most = 1<<31 - 1
	digits := strings.TrimLeft(is, "=<>")
	n, err := strconv.ParseUint(digits, 10, 31)
	if err != nil {
		return count{}, errCount
	}
	v := int(n)
	switch is[:len(is)-len(digits)] {
	case "", "==":
		return count{v, v}, nil
	case "<":
		return count{0, v - 1}, nil
	case "<=":
		return count{0, v}, nil
	case ">":
		return count{v + 1, most}, nil
	case ">=":
		return count{v, most}, nil
	}
	return count{}, errCount
}

// compile makes the program of a set.
func compile(s *Set) *Program {
	p := &Program{defaults: s.defaults, user: s.user, localpart: strings.ToLower(s.user.Localpart())}
	for i := range s.defaults.rules {
		r := &s.defaults.rules[i]
		enabled := !r.disabled
		change := s.changes.Defaults[r.id]
		if change != nil && change.Enabled != nil {
			enabled = *change.Enabled
		}
		if enabled {
			p.enabled |= 1 << i
		}
		if change != nil && change.Actions != nil {
			if p.changed == nil {
				p.changed = make(map[int]*Outcome)
			}
			p.changed[i] = newOutcome(r.kind, r.id, change.Actions)
		}
	}
	p.override = compileRules(Override, s.changes.Rules[Override])
	p.content = compileRules(Content, s.changes.Rules[Content])
	p.underride = compileRules(Underride, s.changes.Rules[Underride])
	for _, r := range s.changes.Rules[Room] {
		if !r.Disabled {
			if p.room == nil {
				p.room = make(map[ids.RoomID]*Outcome)
			}
			p.room[ids.RoomID(r.ID)] = newOutcome(Room, r.ID, r.Actions)
		}
	}
	for _, r := range s.changes.Rules[Sender] {
		if !r.Disabled {
			if p.sender == nil {
				p.sender = make(map[ids.UserID]*Outcome)
			}
			p.sender[ids.UserID(r.ID)] = newOutcome(Sender, r.ID, r.Actions)
		}
	}
	return p
}

func compileRules(kind Kind, rules []storedRule) []compiledRule {
	var out []compiledRule
	for _, r := range rules {
		if r.Disabled {
			continue
		}
		c := compiledRule{outcome: newOutcome(kind, r.ID, r.Actions)}
		if kind == Content && r.Pattern != nil {
			c.conditions = []condition{compileCondition(eventMatch(pathBody, *r.Pattern))}
		}
		for _, cond := range r.Conditions {
			c.conditions = append(c.conditions, compileCondition(cond))
		}
		out = append(out, c)
	}
	return out
}

// evaluation is the state of one call of Evaluate.
type evaluation struct {
	program *Program
	event   *Event
	room    *RoomInfo
	member  Member
	work    int
}

// Member is what conditions ask about the user in the room.
type Member struct {
	// name is the user's name in the room in lower case, as it is looked for in each
	// message, "" for none.
	name string
	// Threads are the roots of the threads that the user is subscribed to. It is looked
	// at for events in threads only, and only if Defaults.Threads.
	Threads map[ids.EventID]struct{}
}

// NewMember is a member with a display name, "" for none.
func NewMember(displayName string) Member { return Member{name: strings.ToLower(displayName)} }

// Evaluate returns the outcome of the most important rule that matches the event,
// and false if none does or the user sent the event. An outcome without Notify means
// that a rule silences the event. spec: client-server §Push Rules.
func (p *Program) Evaluate(ev *Event, room *RoomInfo, member Member) (*Outcome, bool) {
	if ev.fields.Sender == p.user {
		return nil, false
	}
	e := evaluation{program: p, event: ev, room: room, member: member, work: maxWork}
	o := e.run()
	return o, o != nil
}

// run checks the kinds in their order; within a kind the user's rules come before
// the predefined ones, except for the master rule, which is the first of all.
func (e *evaluation) run() *Outcome {
	p, d := e.program, e.program.defaults
	if o := e.predefined(0, 1); o != nil {
		return o
	}
	if o := e.own(p.override); o != nil {
		return o
	}
	if o := e.predefined(1, d.overrideEnd); o != nil {
		return o
	}
	if o := e.own(p.content); o != nil {
		return o
	}
	if o := e.predefined(d.overrideEnd, d.contentEnd); o != nil {
		return o
	}
	if o := e.predefined(d.contentEnd, d.postEnd); o != nil {
		return o
	}
	if o := p.room[e.event.fields.Room]; o != nil {
		return o
	}
	if o := p.sender[e.event.fields.Sender]; o != nil {
		return o
	}
	if o := e.own(p.underride); o != nil {
		return o
	}
	return e.predefined(d.postEnd, len(d.rules))
}

func (e *evaluation) own(rules []compiledRule) *Outcome {
	for i := range rules {
		if e.all(rules[i].conditions) {
			return rules[i].outcome
		}
	}
	return nil
}

func (e *evaluation) predefined(from, to int) *Outcome {
	p := e.program
	for i := from; i < to; i++ {
		if p.enabled&(1<<i) == 0 || !e.all(p.defaults.rules[i].compiled) {
			continue
		}
		if o := p.changed[i]; o != nil {
			return o
		}
		return p.defaults.rules[i].outcome
	}
	return nil
}

func (e *evaluation) all(conditions []condition) bool {
	for i := range conditions {
		if !e.holds(&conditions[i]) {
			return false
		}
	}
	return true
}

func (e *evaluation) holds(c *condition) bool {
	switch c.op {
	case opGlob:
		s, ok := e.event.get(&c.path).text()
		return ok && c.glob.match(s, &e.work)
	case opIs:
		return e.event.get(&c.path).is(c.value)
	case opContains:
		return e.event.get(&c.path).contains(c.value)
	case opDisplayName:
		return e.member.name != "" && e.bodyHas(e.member.name)
	case opMembers:
		return e.room.Members >= c.count.min && e.room.Members <= c.count.max
	case opPermission:
		need, ok := e.room.NotificationPower[c.key]
		if !ok {
			need = defaultNotificationPower
		}
		return e.room.SenderPower >= need
	case opIsUser:
		return e.event.get(&c.path).is(string(e.program.user))
	case opContainsUser:
		return e.event.get(&c.path).contains(string(e.program.user))
	case opLocalpart:
		return e.program.localpart != "" && e.bodyHas(e.program.localpart)
	case opThread:
		_, subscribed := e.member.Threads[e.event.fields.Thread]
		return e.program.defaults.threads && e.event.fields.Thread != "" && c.value == subscribed
	case opNoMentions:
		return !e.event.get(&mentionsPath).present
	}
	return false
}

// bodyHas reports whether the body contains a text, given in lower case, between
// word boundaries.
func (e *evaluation) bodyHas(text string) bool {
	body, ok := e.event.get(&bodyPath).text()
	if !ok {
		return false
	}
	// Not a glob: a name may contain stars. The retries are bounded by the work.
	end, _ := findPlain(body, text, 0, true, true, len(body)+1, &e.work)
	return end >= 0
}
