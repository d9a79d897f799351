package userdata

import (
	"github.com/hubbub-chat/hubbub/internal/account"
	"github.com/hubbub-chat/hubbub/internal/api"
	"github.com/hubbub-chat/hubbub/internal/pushrules"
)

// rules returns the caller's push rules.
func (m *Module) rules(r *api.Request) (*pushrules.Set, error) {
	d, err := m.Accounts.Data(r.Context, r.Caller.User, "", account.TypePushRules)
	if err != nil {
		return nil, err
	}
	if d != nil {
		// What is damaged gives way to the defaults, as where events are counted.
		if set, err := m.Rules.Open(r.Caller.User, d.Content); err == nil {
			return set, nil
		}
	}
	return m.Rules.Open(r.Caller.User, nil)
}

// pushRules: spec client-server §GET /pushrules/.
func (m *Module) pushRules(r *api.Request) (any, error) {
	set, err := m.rules(r)
	if err != nil {
		return nil, err
	}
	return pushrules.Rulesets{Global: set.Ruleset()}, nil
}

// globalRules: spec client-server §GET /pushrules/global/.
func (m *Module) globalRules(r *api.Request) (any, error) {
	set, err := m.rules(r)
	if err != nil {
		return nil, err
	}
	return set.Ruleset(), nil
}

// oneRule returns the rule of the path.
func (m *Module) oneRule(r *api.Request) (rule pushrules.Rule, err error) {
	kind, err := m.Rules.ParseKind(r.Param("kind"))
	if err != nil {
		return rule, err
	}
	set, err := m.rules(r)
	if err != nil {
		return rule, err
	}
	return set.Rule(kind, r.Param("ruleId"))
}

// rule: spec client-server §GET /pushrules/global/{kind}/{ruleId}.
func (m *Module) rule(r *api.Request) (any, error) { return m.oneRule(r) }

// ruleEnabled: spec client-server §GET /pushrules/global/{kind}/{ruleId}/enabled.
func (m *Module) ruleEnabled(r *api.Request) (any, error) {
	rule, err := m.oneRule(r)
	return map[string]bool{"enabled": rule.Enabled}, err
}

// ruleActions: spec client-server §GET /pushrules/global/{kind}/{ruleId}/actions.
func (m *Module) ruleActions(r *api.Request) (any, error) {
	rule, err := m.oneRule(r)
	return map[string][]pushrules.Action{"actions": rule.Actions}, err
}

// editRules makes a change to the rule of the path; fill says which.
func (m *Module) editRules(r *api.Request, fill func(*account.EditPushRules) error) (any, error) {
	kind, err := m.Rules.ParseKind(r.Param("kind"))
	if err != nil {
		return nil, err
	}
	e := account.EditPushRules{User: r.Caller.User, Kind: kind, Rule: r.Param("ruleId"), Options: m.RuleOptions}
	if err := fill(&e); err != nil {
		return nil, err
	}
	_, err = m.Router.Do(r.Context, account.NewEditPushRules(e, m.Rules))
	return api.Empty, err
}

// putRule: spec client-server §PUT /pushrules/global/{kind}/{ruleId}.
func (m *Module) putRule(r *api.Request) (any, error) {
	return m.editRules(r, func(e *account.EditPushRules) error {
		rule, err := pushrules.DecodeRule(e.Kind, bodyOf(r))
		e.Put, e.Before, e.After = &rule, r.Query.Get("before"), r.Query.Get("after")
		return err
	})
}

// deleteRule: spec client-server §DELETE /pushrules/global/{kind}/{ruleId}.
func (m *Module) deleteRule(r *api.Request) (any, error) {
	return m.editRules(r, func(e *account.EditPushRules) error {
		e.Delete = true
		return nil
	})
}

// setRuleEnabled: spec client-server §PUT /pushrules/global/{kind}/{ruleId}/enabled.
func (m *Module) setRuleEnabled(r *api.Request) (any, error) {
	return m.editRules(r, func(e *account.EditPushRules) error {
		enabled, err := pushrules.DecodeEnabled(bodyOf(r))
		e.Enabled = &enabled
		return err
	})
}

// setRuleActions: spec client-server §PUT /pushrules/global/{kind}/{ruleId}/actions.
func (m *Module) setRuleActions(r *api.Request) (any, error) {
	return m.editRules(r, func(e *account.EditPushRules) error {
		actions, err := pushrules.DecodeActions(bodyOf(r))
		e.Actions = &actions
		return err
	})
}

func bodyOf(r *api.Request) []byte {
	if len(r.Body) == 0 {
		return api.Empty
	}
	return r.Body
}
