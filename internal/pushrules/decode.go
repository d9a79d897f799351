package pushrules

import (
	"errors"
	"net/http"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/hubbub-chat/hubbub/internal/merr"
)

// NewRule is the part of a rule that a client decides.
type NewRule struct {
	Actions    []Action
	Conditions []Condition
	Pattern    *string
}

// DecodeRule reads and checks the body of a PUT of a rule. Errors are 400
// M_NOT_JSON, M_BAD_JSON, M_MISSING_PARAM or M_INVALID_PARAM, or 413 M_TOO_LARGE.
func DecodeRule(kind Kind, body []byte) (NewRule, error) {
	var in struct {
		Actions    jsontext.Value `json:"actions"`
		Conditions jsontext.Value `json:"conditions"`
		Pattern    jsontext.Value `json:"pattern"`
	}
	if err := decode(body, &in); err != nil {
		return NewRule{}, err
	}
	var r NewRule
	var err error
	if r.Actions, err = decodeActions(in.Actions); err != nil {
		return NewRule{}, err
	}
	switch kind {
	case Override, Underride:
		if r.Conditions, err = decodeConditions(in.Conditions); err != nil {
			return NewRule{}, err
		}
	case PostContent:
		return NewRule{}, errServerKind()
	case Content:
		if r.Pattern, err = decodePattern(in.Pattern); err != nil {
			return NewRule{}, err
		}
	}
	return r, nil
}

// errServerKind: only predefined rules are of the kind. spec: MSC4306.
func errServerKind() error { return merr.InvalidParamErr("Rules of this kind are the server's") }

// DecodeActions reads and checks the body of a PUT of a rule's actions, with the
// errors of DecodeRule.
func DecodeActions(body []byte) ([]Action, error) {
	var in struct {
		Actions jsontext.Value `json:"actions"`
	}
	if err := decode(body, &in); err != nil {
		return nil, err
	}
	return decodeActions(in.Actions)
}

// DecodeEnabled reads and checks the body of a PUT that switches a rule on or off,
// with the errors of DecodeRule.
func DecodeEnabled(body []byte) (bool, error) {
	var in struct {
		Enabled jsontext.Value `json:"enabled"`
	}
	if err := decode(body, &in); err != nil {
		return false, err
	}
	switch in.Enabled.Kind() {
	case 't':
		return true, nil
	case 'f':
		return false, nil
	case 0:
		return false, merr.MissingParamErr("enabled is missing")
	}
	return false, merr.BadJSONErr("enabled must be a boolean")
}

func decode(body []byte, v any) error {
	if len(body) > MaxRuleBytes {
		return merr.TooLargeErr("A push rule may have %d bytes", MaxRuleBytes)
	}
	err := json.Unmarshal(body, v)
	var syntax *jsontext.SyntacticError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &syntax):
		return merr.New(http.StatusBadRequest, merr.NotJSON, "The body is not JSON").Because(err)
	}
	return merr.BadJSONErr("The body must be an object").Because(err)
}

func decodeActions(v jsontext.Value) ([]Action, error) {
	switch v.Kind() {
	case 0:
		return nil, merr.MissingParamErr("actions is missing")
	case '[':
	default:
		return nil, merr.BadJSONErr("actions must be an array")
	}
	var raw []jsontext.Value
	if err := json.Unmarshal(v, &raw); err != nil {
		return nil, merr.BadJSONErr("actions must be an array").Because(err)
	}
	if len(raw) > MaxActions {
		return nil, merr.TooLargeErr("A push rule may have %d actions", MaxActions)
	}
	actions := make([]Action, 0, len(raw))
	for _, r := range raw {
		var a Action
		if err := a.UnmarshalJSON(r); err != nil {
			return nil, merr.InvalidParamErr("actions: %v", err)
		}
		actions = append(actions, a)
	}
	return actions, nil
}

// decodeConditions reads the conditions; none at all stands for an empty list.
func decodeConditions(v jsontext.Value) ([]Condition, error) {
	switch v.Kind() {
	case 0:
		return []Condition{}, nil
	case '[':
	default:
		return nil, merr.BadJSONErr("conditions must be an array")
	}
	var raw []jsontext.Value
	if err := json.Unmarshal(v, &raw); err != nil {
		return nil, merr.BadJSONErr("conditions must be an array").Because(err)
	}
	if len(raw) > MaxConditions {
		return nil, merr.TooLargeErr("A push rule may have %d conditions", MaxConditions)
	}
	conditions := make([]Condition, len(raw))
	for i, r := range raw {
		if err := conditions[i].UnmarshalJSON(r); err != nil {
			return nil, merr.InvalidParamErr("conditions: %v", err)
		}
	}
	return conditions, nil
}

func decodePattern(v jsontext.Value) (*string, error) {
	var pattern string
	switch v.Kind() {
	case 0:
		return nil, merr.MissingParamErr("pattern is missing")
	case '"':
		if err := json.Unmarshal(v, &pattern); err != nil {
			return nil, merr.BadJSONErr("pattern must be a string").Because(err)
		}
	default:
		return nil, merr.BadJSONErr("pattern must be a string")
	}
	if len(pattern) > MaxPatternBytes {
		return nil, merr.TooLargeErr("A pattern may have %d bytes", MaxPatternBytes)
	}
	return &pattern, nil
}

// checkRuleID checks the ID of a rule that a user wants to write.
// spec: client-server PUT /pushrules/global/{kind}/{ruleId}.
func checkRuleID(id string) error {
	switch {
	case id == "":
		return merr.InvalidParamErr("The rule ID is empty")
	case len(id) > MaxRuleIDBytes:
		return merr.InvalidParamErr("A rule ID may have %d bytes", MaxRuleIDBytes)
	case id[0] == '.':
		return merr.InvalidParamErr("Rule IDs that start with a dot are reserved for the server")
	case strings.ContainsAny(id, `/\`):
		return merr.InvalidParamErr("A rule ID may not contain slashes")
	case !utf8.ValidString(id) || strings.IndexByte(id, 0) >= 0:
		return merr.InvalidParamErr("The rule ID is not clean UTF-8")
	}
	return nil
}
