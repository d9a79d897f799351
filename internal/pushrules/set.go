package pushrules

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"slices"

	"github.com/go-json-experiment/json"

	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/merr"
)

// errCount is the error of a malformed member count.
var errCount = errors.New("a member count must be a number after ==, <, >, <= or >=")

// Set is the rules of one user. Every writing method either changes the set
// completely or returns an error and leaves it as it was.
type Set struct {
	defaults *Defaults
	user     ids.UserID
	changes  changes
}

// changes is what a user changed, and the only thing that is stored.
type changes struct {
	// Rules are the user's own, the most important first.
	Rules map[Kind][]storedRule `json:"rules,omitzero"`
	// Defaults are changes to predefined rules, by ID. One that this version does not
	// know is kept.
	Defaults map[string]*defaultChange `json:"defaults,omitzero"`
}

type storedRule struct {
	ID         string      `json:"id"`
	Disabled   bool        `json:"disabled,omitzero"`
	Actions    []Action    `json:"actions"`
	Conditions []Condition `json:"conditions,omitzero"`
	Pattern    *string     `json:"pattern,omitzero"`
}

// defaultChange is nil where the user left the predefined rule as it is.
type defaultChange struct {
	Enabled *bool    `json:"enabled,omitzero"`
	Actions []Action `json:"actions,omitzero"`
}

// Open returns the rules of a user from what Stored gave; nothing stands for a user
// who changed nothing. An error means that the stored value is damaged; opening
// the user with nothing gives the defaults.
func (d *Defaults) Open(user ids.UserID, stored []byte) (*Set, error) {
	s := &Set{defaults: d, user: user}
	if len(stored) > 0 {
		if err := json.Unmarshal(stored, &s.changes); err != nil {
			return nil, fmt.Errorf("open push rules: %w", err)
		}
	}
	for id, c := range s.changes.Defaults {
		if c == nil {
			delete(s.changes.Defaults, id)
		}
	}
	if s.changes.Rules == nil {
		s.changes.Rules = make(map[Kind][]storedRule)
	}
	if s.changes.Defaults == nil {
		s.changes.Defaults = make(map[string]*defaultChange)
	}
	return s, nil
}

// Stored returns what the user changed, to be given to Open. It is empty if that
// is nothing.
func (s *Set) Stored() ([]byte, error) {
	out := changes{}
	for kind, rules := range s.changes.Rules {
		if len(rules) > 0 {
			if out.Rules == nil {
				out.Rules = make(map[Kind][]storedRule)
			}
			out.Rules[kind] = rules
		}
	}
	if len(s.changes.Defaults) > 0 {
		out.Defaults = s.changes.Defaults
	}
	if out.Rules == nil && out.Defaults == nil {
		return nil, nil
	}
	data, err := json.Marshal(out, json.Deterministic(true))
	if err != nil {
		return nil, fmt.Errorf("encode push rules: %w", err)
	}
	return data, nil
}

// Compile makes the set ready for evaluation. The program does not follow later
// changes of the set.
func (s *Set) Compile() *Program { return compile(s) }

// Ruleset returns all rules. It shares memory with the set and must not be changed.
func (s *Set) Ruleset() Ruleset {
	r := Ruleset{
		Override:  s.Rules(Override),
		Content:   s.Rules(Content),
		Room:      s.Rules(Room),
		Sender:    s.Rules(Sender),
		Underride: s.Rules(Underride),
	}
	if s.defaults.threads {
		r.PostContent = s.Rules(PostContent)
	}
	return r
}

// Rules returns the rules of one kind, the most important first, never nil.
func (s *Set) Rules(kind Kind) []Rule {
	out := []Rule{}
	add := func(master bool) {
		for i := range s.defaults.rules {
			r := &s.defaults.rules[i]
			if r.kind == kind && (r.id == RuleMaster) == master {
				out = append(out, r.rule(s.user, s.changes.Defaults[r.id]))
			}
		}
	}
	add(true)
	for i := range s.changes.Rules[kind] {
		out = append(out, s.changes.Rules[kind][i].rule())
	}
	add(false)
	return out
}

// Rule returns one rule. Its error is a 404 M_NOT_FOUND.
func (s *Set) Rule(kind Kind, id string) (Rule, error) {
	if r := s.defaults.find(kind, id); r != nil {
		return r.rule(s.user, s.changes.Defaults[id]), nil
	}
	if i := s.position(kind, id); i >= 0 {
		return s.changes.Rules[kind][i].rule(), nil
	}
	return Rule{}, errNoRule()
}

// Put adds a rule or replaces the one with the same kind and ID. before and after,
// where not "", name the rule of the user's that it is to stand next to: before is
// the less important neighbour, after the more important; before wins. A new rule
// without either becomes the most important of its kind and is enabled; an old one
// keeps its place, and whether it is enabled.
//
// Errors are 400 M_INVALID_PARAM for an ID or a kind that is not allowed, 400 M_UNKNOWN if
// before or after is not there, 413 M_TOO_LARGE beyond the limits.
// spec: client-server PUT /pushrules/global/{kind}/{ruleId}.
func (s *Set) Put(kind Kind, id string, rule NewRule, before, after string) error {
	if err := checkRuleID(id); err != nil {
		return err
	}
	if kind == PostContent {
		return errServerKind()
	}
	r := storedRule{ID: id, Actions: rule.Actions, Conditions: rule.Conditions, Pattern: rule.Pattern}
	old := s.changes.Rules[kind]
	list := slices.Clone(old)
	place := 0
	if i := s.position(kind, id); i >= 0 {
		r.Disabled = old[i].Disabled
		list = slices.Delete(list, i, i+1)
		place = i
	} else if s.count() >= MaxRules {
		return merr.TooLargeErr("A user may have %d push rules", MaxRules)
	}
	neighbour := before
	if neighbour == "" {
		neighbour = after
	}
	if neighbour != "" {
		place = slices.IndexFunc(list, func(r storedRule) bool { return r.ID == neighbour })
		if place < 0 {
			return merr.New(http.StatusBadRequest, merr.Unknown, "before/after rule not found: %.255s", neighbour)
		}
		if before == "" {
			place++
		}
	}
	s.changes.Rules[kind] = slices.Insert(list, place, r)
	return s.checkSize(func() { s.changes.Rules[kind] = old })
}

// Delete removes a rule of the user's. Its error is a 404 M_NOT_FOUND, also for a
// predefined rule: the specification has no other.
func (s *Set) Delete(kind Kind, id string) error {
	if s.defaults.find(kind, id) != nil {
		return merr.NotFoundErr("A predefined rule cannot be deleted")
	}
	i := s.position(kind, id)
	if i < 0 {
		return errNoRule()
	}
	s.changes.Rules[kind] = slices.Delete(slices.Clone(s.changes.Rules[kind]), i, i+1)
	return nil
}

// SetEnabled switches a rule on or off, a predefined one too. Its error is a 404
// M_NOT_FOUND.
func (s *Set) SetEnabled(kind Kind, id string, enabled bool) error {
	if r := s.defaults.find(kind, id); r != nil {
		c := s.change(id)
		c.Enabled = nil
		if enabled == r.disabled {
			c.Enabled = &enabled
		}
		return s.setChange(id, c)
	}
	i := s.position(kind, id)
	if i < 0 {
		return errNoRule()
	}
	old := s.changes.Rules[kind]
	s.changes.Rules[kind] = slices.Clone(old)
	s.changes.Rules[kind][i].Disabled = !enabled
	return s.checkSize(func() { s.changes.Rules[kind] = old })
}

// SetActions replaces the actions of a rule, of a predefined one too. Its errors are
// 404 M_NOT_FOUND and 413 M_TOO_LARGE.
func (s *Set) SetActions(kind Kind, id string, actions []Action) error {
	if actions == nil {
		actions = []Action{}
	}
	if r := s.defaults.find(kind, id); r != nil {
		c := s.change(id)
		c.Actions = actions
		if slices.EqualFunc(actions, r.actions, equalActions) {
			c.Actions = nil
		}
		return s.setChange(id, c)
	}
	i := s.position(kind, id)
	if i < 0 {
		return errNoRule()
	}
	old := s.changes.Rules[kind]
	s.changes.Rules[kind] = slices.Clone(old)
	s.changes.Rules[kind][i].Actions = actions
	return s.checkSize(func() { s.changes.Rules[kind] = old })
}

func equalActions(a, b Action) bool {
	return a.SetTweak == b.SetTweak && a.Historical == b.Historical && bytes.Equal(a.Value, b.Value)
}

func errNoRule() error { return merr.NotFoundErr("The push rule was not found") }

func (r *storedRule) rule() Rule {
	return Rule{
		RuleID: r.ID, Enabled: !r.Disabled, Actions: r.Actions, Conditions: r.Conditions, Pattern: r.Pattern,
	}
}

func (s *Set) position(kind Kind, id string) int {
	return slices.IndexFunc(s.changes.Rules[kind], func(r storedRule) bool { return r.ID == id })
}

func (s *Set) count() int {
	n := 0
	for _, rules := range s.changes.Rules {
		n += len(rules)
	}
	return n
}

// change returns a copy of the user's change to a predefined rule.
func (s *Set) change(id string) defaultChange {
	if c := s.changes.Defaults[id]; c != nil {
		return *c
	}
	return defaultChange{}
}

// setChange stores a change to a predefined rule, or forgets it if it says nothing.
func (s *Set) setChange(id string, c defaultChange) error {
	old := s.changes.Defaults[id]
	if c.Enabled == nil && c.Actions == nil {
		delete(s.changes.Defaults, id)
		return nil
	}
	s.changes.Defaults[id] = &c
	return s.checkSize(func() {
		if delete(s.changes.Defaults, id); old != nil {
			s.changes.Defaults[id] = old
		}
	})
}

// checkSize takes a change back if it makes the stored form too large.
func (s *Set) checkSize(undo func()) error {
	data, err := s.Stored()
	if err == nil && len(data) > MaxStoredBytes {
		err = merr.TooLargeErr("The push rules of a user may have %d bytes", MaxStoredBytes)
	}
	if err != nil {
		undo()
	}
	return err
}
