package pushrules

import "github.com/hubbub-chat/hubbub/internal/ids"

// The IDs of the predefined rules. spec: client-server §Push Rules, Predefined Rules.
const (
	RuleMaster            = ".m.rule.master"
	RuleSuppressNotices   = ".m.rule.suppress_notices"
	RuleInviteForMe       = ".m.rule.invite_for_me"
	RuleMemberEvent       = ".m.rule.member_event"
	RuleIsUserMention     = ".m.rule.is_user_mention"
	RuleIsRoomMention     = ".m.rule.is_room_mention"
	RuleTombstone         = ".m.rule.tombstone"
	RuleReaction          = ".m.rule.reaction"
	RuleServerACL         = ".m.rule.room.server_acl"
	RuleSuppressEdits     = ".m.rule.suppress_edits"
	RuleCall              = ".m.rule.call"
	RuleEncryptedOneToOne = ".m.rule.encrypted_room_one_to_one"
	RuleOneToOne          = ".m.rule.room_one_to_one"
	RuleMessage           = ".m.rule.message"
	RuleEncrypted         = ".m.rule.encrypted"

	// The rules of polls, MSC3930, in its unstable form: that is what clients send.
	RulePollResponse      = ".org.matrix.msc3930.rule.poll_response"
	RulePollStartOneToOne = ".org.matrix.msc3930.rule.poll_start_one_to_one"
	RulePollEndOneToOne   = ".org.matrix.msc3930.rule.poll_end_one_to_one"
	RulePollStart         = ".org.matrix.msc3930.rule.poll_start"
	RulePollEnd           = ".org.matrix.msc3930.rule.poll_end"

	// The rules of subscriptions to threads, MSC4306.
	RuleUnsubscribedThread = ".io.element.msc4306.rule.unsubscribed_thread"
	RuleSubscribedThread   = ".io.element.msc4306.rule.subscribed_thread"

	// The rules of the versions before 1.17 that look for mentions in the text.
	RuleContainsDisplayName = ".m.rule.contains_display_name"
	RuleRoomNotif           = ".m.rule.roomnotif"
	RuleContainsUserName    = ".m.rule.contains_user_name"
)

// Options choose the predefined rules of a deployment.
type Options struct {
	// LegacyMentions adds the predefined rules that version 1.17 of the
	// specification removed, in the form of version 1.7: they look for the user's
	// name and for @room in the text of events that have no m.mentions. Without
	// them, what bridges, bots and old clients write notifies nobody in particular.
	LegacyMentions bool
	// ThreadSubscriptions adds the predefined rules of MSC4306: in a thread that a
	// user is not subscribed to, only mentions notify. A client that does not know of
	// subscriptions would make none, so its user would miss what is said in threads.
	ThreadSubscriptions bool
}

// Defaults is the table of predefined rules, compiled. It is immutable.
type Defaults struct {
	rules []defaultRule
	index map[string]int
	// overrideEnd, contentEnd and postEnd cut rules by kind; the rest is underride.
	overrideEnd, contentEnd, postEnd int
	// threads: rules may ask whether the user is subscribed to a thread.
	threads bool
}

// personal says which part of a predefined rule is the user's own; 0 is none.
type personal uint8

const (
	// personalStateKey: the pattern for the state key is the user's ID.
	personalStateKey personal = iota + 1
	// personalMention: the value to look for is the user's ID.
	personalMention
	// personalLocalpart: the pattern is the localpart of the user's ID.
	personalLocalpart
)

type defaultRule struct {
	id       string
	kind     Kind
	disabled bool // unless the user enables it
	personal personal
	// legacy rules do not apply to an event with m.mentions.
	legacy     bool
	conditions []Condition
	actions    []Action

	compiled []condition
	outcome  *Outcome
}

// maxDefaults bounds the table, whose rows are bits in a word.
const maxDefaults = 64

// NewDefaults compiles the predefined rules.
func NewDefaults(o Options) *Defaults {
	d := &Defaults{index: make(map[string]int), threads: o.ThreadSubscriptions}
	for _, r := range predefined() {
		if r.legacy && !o.LegacyMentions || r.kind == PostContent && !o.ThreadSubscriptions {
			continue
		}
		r.compile()
		d.index[r.id] = len(d.rules)
		d.rules = append(d.rules, r)
		if r.kind == Override {
			d.overrideEnd = len(d.rules)
		}
		if r.kind == Override || r.kind == Content {
			d.contentEnd = len(d.rules)
		}
		if r.kind != Underride {
			d.postEnd = len(d.rules)
		}
	}
	if len(d.rules) > maxDefaults {
		panic("pushrules: more predefined rules than bits for them")
	}
	return d
}

// compile prepares the rule for evaluation. What is personal becomes a condition
// that looks at the program's user, so that all users share the rest.
func (r *defaultRule) compile() {
	if r.legacy {
		r.compiled = append(r.compiled, condition{op: opNoMentions})
	}
	for _, c := range r.conditions {
		compiled := compileCondition(c)
		switch {
		case r.personal == personalStateKey && c.Key == pathStateKey:
			compiled.op = opIsUser
		case r.personal == personalMention:
			compiled.op = opContainsUser
		}
		r.compiled = append(r.compiled, compiled)
	}
	if r.personal == personalLocalpart {
		r.compiled = append(r.compiled, condition{op: opLocalpart})
	}
	r.outcome = newOutcome(r.kind, r.id, r.actions)
}

// Threads reports whether rules may ask whether a user is subscribed to a thread: then
// Member.Threads has to be told for events in threads.
func (d *Defaults) Threads() bool { return d.threads }

// find returns the predefined rule of a kind and an ID, or nil.
func (d *Defaults) find(kind Kind, id string) *defaultRule {
	i, ok := d.index[id]
	if !ok || d.rules[i].kind != kind {
		return nil
	}
	return &d.rules[i]
}

// rule returns the rule as the user sees it, with the changes the user made.
func (r *defaultRule) rule(user ids.UserID, change *defaultChange) Rule {
	out := Rule{RuleID: r.id, Default: true, Enabled: !r.disabled, Actions: r.actions}
	switch r.kind {
	case Content:
		pattern := user.Localpart()
		out.Pattern = &pattern
	default:
		out.Conditions = make([]Condition, len(r.conditions))
		copy(out.Conditions, r.conditions)
		for i := range out.Conditions {
			c := &out.Conditions[i]
			switch {
			case r.personal == personalStateKey && c.Key == pathStateKey:
				c.Pattern = string(user)
			case r.personal == personalMention && c.Kind == condPropertyContains:
				c.Value = string(user)
			}
		}
	}
	if change != nil && change.Enabled != nil {
		out.Enabled = *change.Enabled
	}
	if change != nil && change.Actions != nil {
		out.Actions = change.Actions
	}
	return out
}

func eventMatch(key, pattern string) Condition {
	return Condition{Kind: condEventMatch, Key: key, Pattern: pattern}
}

// predefined is the table of the specification, in its order.
func predefined() []defaultRule {
	return append(predefinedOverrides(), predefinedOthers()...)
}

func highlight() Action     { return Tweak("highlight", "") }
func soundDefault() Action  { return Tweak("sound", `"default"`) }
func twoMembers() Condition { return Condition{Kind: condMemberCount, Is: "2"} }

func predefinedOverrides() []defaultRule {
	highlight, sound := highlight(), soundDefault()
	mayNotifyRoom := Condition{Kind: condSenderPermission, Key: "room"}
	silent := []Action{}
	return []defaultRule{
		{id: RuleMaster, kind: Override, disabled: true, conditions: []Condition{}, actions: silent},
		{
			id: RuleSuppressNotices, kind: Override, actions: silent,
			conditions: []Condition{eventMatch(pathMsgtype, "m.notice")},
		},
		{
			id: RuleInviteForMe, kind: Override, personal: personalStateKey, actions: []Action{Notify(), sound},
			conditions: []Condition{
				eventMatch(pathType, "m.room.member"), eventMatch(pathMembership, "invite"), eventMatch(pathStateKey, ""),
			},
		},
		{
			id: RuleMemberEvent, kind: Override, actions: silent,
			conditions: []Condition{eventMatch(pathType, "m.room.member")},
		},
		{
			id: RuleIsUserMention, kind: Override, personal: personalMention, actions: []Action{Notify(), sound, highlight},
			conditions: []Condition{{Kind: condPropertyContains, Key: pathMentionedUsers}},
		},
		{
			id: RuleContainsDisplayName, kind: Override, legacy: true, actions: []Action{Notify(), sound, highlight},
			conditions: []Condition{{Kind: condDisplayName}},
		},
		{
			id: RuleIsRoomMention, kind: Override, actions: []Action{Notify(), highlight},
			conditions: []Condition{{Kind: condPropertyIs, Key: pathMentionsRoom, Value: true}, mayNotifyRoom},
		},
		{
			id: RuleRoomNotif, kind: Override, legacy: true, actions: []Action{Notify(), highlight},
			conditions: []Condition{eventMatch(pathBody, "@room"), mayNotifyRoom},
		},
		{
			id: RuleTombstone, kind: Override, actions: []Action{Notify(), highlight},
			conditions: []Condition{eventMatch(pathType, "m.room.tombstone"), eventMatch(pathStateKey, "")},
		},
		{
			id: RuleReaction, kind: Override, actions: silent,
			conditions: []Condition{eventMatch(pathType, "m.reaction")},
		},
		{
			id: RuleServerACL, kind: Override, actions: silent,
			conditions: []Condition{eventMatch(pathType, "m.room.server_acl"), eventMatch(pathStateKey, "")},
		},
		{
			id: RuleSuppressEdits, kind: Override, actions: silent,
			conditions: []Condition{{Kind: condPropertyIs, Key: pathRelType, Value: "m.replace"}},
		},
		{
			id: RulePollResponse, kind: Override, actions: silent,
			conditions: []Condition{eventMatch(pathType, "org.matrix.msc3381.poll.response")},
		},
	}
}

func predefinedOthers() []defaultRule {
	highlight, sound, ring := highlight(), soundDefault(), Tweak("sound", `"ring"`)
	return []defaultRule{
		{
			id: RuleContainsUserName, kind: Content, legacy: true, personal: personalLocalpart,
			actions: []Action{Notify(), sound, highlight},
		},
		{
			id: RuleUnsubscribedThread, kind: PostContent, actions: []Action{},
			conditions: []Condition{{Kind: condThread, Value: false}},
		},
		{
			id: RuleSubscribedThread, kind: PostContent, actions: []Action{Notify(), sound},
			conditions: []Condition{{Kind: condThread, Value: true}},
		},
		{
			id: RuleCall, kind: Underride, actions: []Action{Notify(), ring},
			conditions: []Condition{eventMatch(pathType, "m.call.invite")},
		},
		{
			id: RuleEncryptedOneToOne, kind: Underride, actions: []Action{Notify(), sound},
			conditions: []Condition{twoMembers(), eventMatch(pathType, "m.room.encrypted")},
		},
		{
			id: RuleOneToOne, kind: Underride, actions: []Action{Notify(), sound},
			conditions: []Condition{twoMembers(), eventMatch(pathType, "m.room.message")},
		},
		{
			id: RuleMessage, kind: Underride, actions: []Action{Notify()},
			conditions: []Condition{eventMatch(pathType, "m.room.message")},
		},
		{
			id: RuleEncrypted, kind: Underride, actions: []Action{Notify()},
			conditions: []Condition{eventMatch(pathType, "m.room.encrypted")},
		},
		{
			id: RulePollStartOneToOne, kind: Underride, actions: []Action{Notify(), sound},
			conditions: []Condition{twoMembers(), eventMatch(pathType, "org.matrix.msc3381.poll.start")},
		},
		{
			id: RulePollStart, kind: Underride, actions: []Action{Notify()},
			conditions: []Condition{eventMatch(pathType, "org.matrix.msc3381.poll.start")},
		},
		{
			id: RulePollEndOneToOne, kind: Underride, actions: []Action{Notify(), sound},
			conditions: []Condition{twoMembers(), eventMatch(pathType, "org.matrix.msc3381.poll.end")},
		},
		{
			id: RulePollEnd, kind: Underride, actions: []Action{Notify()},
			conditions: []Condition{eventMatch(pathType, "org.matrix.msc3381.poll.end")},
		},
	}
}
