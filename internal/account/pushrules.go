package account

import (
	"errors"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/pushrules"
)

// EditPushRules makes one change to a user's push rules. Since it is made where
// the rules are, of two devices that change rules at once none undoes what the
// other did. Exactly one of Put, Enabled, Actions and Delete is set. Errors are
// those of the methods of pushrules.Set.
type EditPushRules struct {
	User ids.UserID
	Kind pushrules.Kind
	Rule string

	// Put adds or replaces the rule, next to Before or After where not "".
	Put           *pushrules.NewRule
	Before, After string
	// Enabled switches the rule on or off.
	Enabled *bool
	// Actions replaces the actions of the rule.
	Actions *[]pushrules.Action
	// Delete removes the rule.
	Delete bool

	// Options name the deployment's predefined rules, and defaults are these
	// rules if they were at hand.
	Options  pushrules.Options
	defaults *pushrules.Defaults `wire:"-"`
}

// NewEditPushRules returns a command that makes the change e; defaults belong to
// e.Options, or are nil.
func NewEditPushRules(e EditPushRules, defaults *pushrules.Defaults) *SetData {
	e.defaults = defaults
	return NewEditData(e.User, "", TypePushRules, &e)
}

var _ Edit = (*EditPushRules)(nil)

var errNoPushRuleChange = errors.New("account: an edit of push rules that changes nothing")

// Edited implements Edit.
func (e *EditPushRules) Edited(present jsontext.Value) (jsontext.Value, error) {
	d := e.defaults
	if d == nil {
		d = pushrules.NewDefaults(e.Options)
	}
	set, err := d.Open(e.User, present)
	if err != nil {
		// Damaged: the defaults serve, as they do when events are counted.
		if set, err = d.Open(e.User, nil); err != nil {
			return nil, err
		}
	}
	switch {
	case e.Put != nil:
		err = set.Put(e.Kind, e.Rule, *e.Put, e.Before, e.After)
	case e.Enabled != nil:
		err = set.SetEnabled(e.Kind, e.Rule, *e.Enabled)
	case e.Actions != nil:
		err = set.SetActions(e.Kind, e.Rule, *e.Actions)
	case e.Delete:
		err = set.Delete(e.Kind, e.Rule)
	default:
		err = errNoPushRuleChange
	}
	if err != nil {
		return nil, err
	}
	stored, err := set.Stored()
	if err == nil && len(stored) == 0 {
		stored = []byte("{}")
	}
	return stored, err
}
