// Package pushrules decides who is notified of an event, and how: it holds the
// predefined push rules, a user's changes to them, and the engine that evaluates
// them.
//
// The steps, from the outside in:
//
//   - Defaults is the table of predefined rules, compiled once per process.
//   - Set is one user's rules: the defaults and what the user changed. Only the
//     changes are stored, so that a default rule added by a later version reaches
//     old accounts too. A Set serves the API: reading, adding, ordering, deleting.
//   - Program is a Set made ready for evaluation. It holds no copy of the defaults,
//     so a Program of a user who changed nothing is small.
//   - Event is the view of one event, shared by the evaluations for all members of
//     its room: what one looks up or lower-cases, the next one reuses.
//
// The package is pure: no clock, no I/O, no goroutine. Defaults and Program are
// immutable and safe for concurrent use. Set and Event belong to one goroutine at
// a time.
//
// Invariants: a pattern costs time linear in the text (see glob); the work of one
// evaluation is bounded by maxWork, whatever the rules and the event are; what
// the engine returns is shared and must not be written to.
//
// spec: client-server §Push Rules.
package pushrules

import (
	"errors"
	"fmt"
	"net/http"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/hubbub-chat/hubbub/internal/merr"
)

// Limits on what a user may store. They are far above what clients produce; they
// bound the size of the account data event that carries the rules to every device,
// and the work per event.
const (
	// MaxRules is the most rules of a user's own, of all kinds together. A client
	// makes one rule for each muted room.
	MaxRules = 2000
	// MaxRuleBytes is the most bytes of one rule's JSON, without its ID.
	MaxRuleBytes = 4096
	// MaxStoredBytes is the most bytes of all changes of one user.
	MaxStoredBytes = 256 << 10
	// MaxRuleIDBytes is the most bytes of a rule ID: a room ID or user ID fits.
	MaxRuleIDBytes = 255
	// MaxConditions is the most conditions of one rule.
	MaxConditions = 16
	// MaxActions is the most actions of one rule.
	MaxActions = 16
	// MaxPatternBytes is the most bytes of a glob pattern: an identifier fits twice.
	MaxPatternBytes = 512
)

// Kind is the kind of a rule; kinds are checked in the order of Kinds.
type Kind string

// The kinds of rules. spec: client-server §Push Rules.
const (
	Override Kind = "override"
	Content  Kind = "content"
	// PostContent has predefined rules only. spec: MSC4306.
	PostContent Kind = "postcontent"
	Room        Kind = "room"
	Sender      Kind = "sender"
	Underride   Kind = "underride"
)

// Kinds returns all kinds, the one that is checked first in front.
func Kinds() []Kind { return []Kind{Override, Content, PostContent, Room, Sender, Underride} }

// ScopeGlobal is the only scope of rules.
const ScopeGlobal = "global"

// ParseScope checks the scope of a path. Its error is a 404 M_UNRECOGNIZED.
func ParseScope(s string) error {
	if s != ScopeGlobal {
		return merr.New(http.StatusNotFound, merr.Unrecognized, "Unknown scope of push rules: %.64q", s)
	}
	return nil
}

// ParseKind reads the kind in a path. Its error is a 404 M_UNRECOGNIZED.
func (d *Defaults) ParseKind(s string) (Kind, error) {
	switch k := Kind(s); k {
	case Override, Content, Room, Sender, Underride:
		return k, nil
	case PostContent:
		if d.threads {
			return k, nil
		}
	}
	return "", merr.New(http.StatusNotFound, merr.Unrecognized, "Unknown kind of push rule: %.64q", s)
}

// Action is one action of a rule: "notify" if SetTweak is "", else the tweak of
// that name. Value is the tweak's value as JSON, nil if there is none.
// spec: client-server §Push Rules, Actions.
type Action struct {
	SetTweak string
	Value    jsontext.Value
	// Historical is the name of an action that older versions of the specification
	// had. It does nothing, and stays as the client wrote it.
	Historical string
}

// actionNotify is the one action without parameters.
const actionNotify = "notify"

// Notify returns the action that makes a notification.
func Notify() Action { return Action{} }

// Tweak returns the action that sets a tweak; value is JSON, or "" for none.
func Tweak(name, value string) Action {
	a := Action{SetTweak: name}
	if value != "" {
		a.Value = jsontext.Value(value)
	}
	return a
}

// MarshalJSON gives "notify" or an object with set_tweak.
func (a Action) MarshalJSON() ([]byte, error) {
	if a.Historical != "" {
		return json.Marshal(a.Historical)
	}
	if a.SetTweak == "" {
		return []byte(`"` + actionNotify + `"`), nil
	}
	return json.Marshal(tweakJSON{SetTweak: &a.SetTweak, Value: a.Value})
}

type tweakJSON struct {
	SetTweak *string        `json:"set_tweak"`
	Value    jsontext.Value `json:"value,omitzero"`
}

// UnmarshalJSON reads one action. Unknown actions are errors.
func (a *Action) UnmarshalJSON(data []byte) error {
	v := jsontext.Value(data)
	switch v.Kind() {
	case '"':
		var name string
		if err := json.Unmarshal(v, &name); err != nil {
			return err
		}
		switch name {
		case actionNotify:
			*a = Action{}
			return nil
		case "dont_notify", "coalesce":
			*a = Action{Historical: name}
			return nil
		}
		return fmt.Errorf("unknown action %.64q", name)
	case '{':
		var t tweakJSON
		if err := json.Unmarshal(v, &t); err != nil {
			return err
		}
		if t.SetTweak == nil || *t.SetTweak == "" {
			return errors.New("an action must be a string or have set_tweak")
		}
		*a = Action{SetTweak: *t.SetTweak, Value: t.Value.Clone()}
		return nil
	}
	return errors.New("an action must be a string or an object")
}

// Condition is one condition of a rule. One of an unknown kind is kept as it came
// and matches nothing. spec: client-server §Push Rules, Conditions.
type Condition struct {
	Kind    string
	Key     string
	Pattern string
	Is      string
	// Value is a string, float64, bool or nil.
	Value any

	// raw is the condition as the client wrote it, "" for the predefined ones.
	raw string
}

// The kinds of conditions.
const (
	condEventMatch       = "event_match"
	condPropertyIs       = "event_property_is"
	condPropertyContains = "event_property_contains"
	condDisplayName      = "contains_display_name"
	condMemberCount      = "room_member_count"
	condSenderPermission = "sender_notification_permission"
	condThread           = "io.element.msc4306.thread_subscription"
)

// MarshalJSON gives the condition as the client wrote it.
func (c Condition) MarshalJSON() ([]byte, error) {
	if c.raw != "" {
		return []byte(c.raw), nil
	}
	m := map[string]any{"kind": c.Kind}
	switch c.Kind {
	case condEventMatch:
		m["key"], m["pattern"] = c.Key, c.Pattern
	case condPropertyIs, condPropertyContains:
		m["key"], m["value"] = c.Key, c.Value
	case condMemberCount:
		m["is"] = c.Is
	case condSenderPermission:
		m["key"] = c.Key
	case condThread:
		m["subscribed"] = c.Value
	}
	return json.Marshal(m, json.Deterministic(true))
}

// MarshalBinary is MarshalJSON: the condition as it travels between nodes.
func (c *Condition) MarshalBinary() ([]byte, error) { return c.MarshalJSON() }

// UnmarshalBinary is UnmarshalJSON.
func (c *Condition) UnmarshalBinary(data []byte) error { return c.UnmarshalJSON(data) }

// UnmarshalJSON reads a condition. It is an error if a parameter of a known kind
// is missing or has the wrong type.
func (c *Condition) UnmarshalJSON(data []byte) error {
	raw := jsontext.Value(data).Clone()
	if raw.Kind() != '{' {
		return errors.New("a condition must be an object")
	}
	if err := raw.Compact(); err != nil {
		return err
	}
	var in struct {
		Kind    *string        `json:"kind"`
		Key     jsontext.Value `json:"key"`
		Pattern jsontext.Value `json:"pattern"`
		Is      jsontext.Value `json:"is"`
		Value   jsontext.Value `json:"value"`
		Thread  jsontext.Value `json:"subscribed"`
	}
	if err := json.Unmarshal(raw, &in); err != nil {
		return err
	}
	if in.Kind == nil {
		return errors.New("a condition must have a kind")
	}
	out := Condition{Kind: *in.Kind, raw: string(raw)}
	var err error
	want := func(name string, v jsontext.Value, dst *string) {
		if err == nil && v.Kind() != '"' {
			err = fmt.Errorf("a condition of kind %s needs a string %s", out.Kind, name)
		}
		if err == nil {
			err = json.Unmarshal(v, dst)
		}
	}
	switch out.Kind {
	case condEventMatch:
		want("key", in.Key, &out.Key)
		want("pattern", in.Pattern, &out.Pattern)
		if err == nil && len(out.Pattern) > MaxPatternBytes {
			err = fmt.Errorf("a pattern may have %d bytes", MaxPatternBytes)
		}
	case condPropertyIs, condPropertyContains:
		want("key", in.Key, &out.Key)
		if err == nil {
			out.Value, err = scalar(in.Value)
		}
	case condMemberCount:
		want("is", in.Is, &out.Is)
		if err == nil {
			_, err = parseCount(out.Is)
		}
	case condSenderPermission:
		want("key", in.Key, &out.Key)
	case condThread:
		if k := in.Thread.Kind(); k == 't' || k == 'f' { // without, it matches nothing
			out.Value = k == 't'
		}
	}
	if err != nil {
		return err
	}
	*c = out
	return nil
}

// maxInteger is the largest integer of canonical JSON; float64 holds every
// integer up to it. spec: appendices §Canonical JSON.
const maxInteger = 1<<53 - 1

// scalar reads the value of a condition: a string, integer, boolean or null.
func scalar(v jsontext.Value) (any, error) {
	switch v.Kind() {
	case '"', 't', 'f', 'n', '0':
		var out any
		if err := json.Unmarshal(v, &out); err != nil {
			return nil, err
		}
		if f, ok := out.(float64); ok && (f != float64(int64(f)) || f > maxInteger || f < -maxInteger) {
			return nil, errors.New("a value must be an integer within ±(2^53-1)")
		}
		return out, nil
	}
	return nil, errors.New("a value must be a string, integer, boolean or null")
}

// Rule is a push rule as clients see it. Conditions is nil for kinds other than
// override, postcontent and underride, Pattern nil for kinds other than content.
type Rule struct {
	RuleID     string      `json:"rule_id"`
	Default    bool        `json:"default"`
	Enabled    bool        `json:"enabled"`
	Actions    []Action    `json:"actions"`
	Conditions []Condition `json:"conditions,omitzero"`
	Pattern    *string     `json:"pattern,omitzero"`
}

// Ruleset is all rules of a user, the most important of a kind first. No list is
// nil. It is the answer to GET /pushrules/global/.
type Ruleset struct {
	Override []Rule `json:"override"`
	Content  []Rule `json:"content"`
	// PostContent is nil where there are no such rules.
	PostContent []Rule `json:"postcontent,omitzero"`
	Room        []Rule `json:"room"`
	Sender      []Rule `json:"sender"`
	Underride   []Rule `json:"underride"`
}

// Rulesets is the answer to GET /pushrules/ and the content of the m.push_rules
// account data event.
type Rulesets struct {
	Global Ruleset `json:"global"`
}
