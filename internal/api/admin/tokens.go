package admin

import (
	"crypto/rand"
	"regexp"
	"slices"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/hubbub-chat/hubbub/internal/account"
	"github.com/hubbub-chat/hubbub/internal/api"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/merr"
)

const (
	// tokenLength is the length of a token that the server makes, maxToken that of
	// one that is chosen.
	tokenLength, maxToken = 16, 64
	// maxTokens bounds the list of all tokens, which comes in one answer.
	maxTokens = 10_000
)

// tokenName is what tokens are made of.
var tokenName = regexp.MustCompile(`^[A-Za-z0-9._~-]+$`)

func (m *Module) tokenRoutes() []api.Route {
	const tokens = v1 + "/registration_tokens"
	return []api.Route{
		{Method: get, Path: tokens, Rate: api.RateRead, Handle: m.tokens},
		{Method: post, Path: tokens + "/new", Rate: api.RateWrite, Handle: m.newToken},
		{Method: get, Path: tokens + "/{token}", Rate: api.RateRead, Handle: m.token},
		{Method: put, Path: tokens + "/{token}", Rate: api.RateWrite, Handle: m.changeToken},
		{Method: del, Path: tokens + "/{token}", Rate: api.RateWrite, Handle: m.deleteToken},
	}
}

type tokenAnswer struct {
	Token     string `json:"token"`
	Allowed   *int   `json:"uses_allowed"`
	Pending   int    `json:"pending"`
	Completed int    `json:"completed"`
	Expires   *int64 `json:"expiry_time"`
}

func answerToken(name string, t *account.RegToken) tokenAnswer {
	a := tokenAnswer{Token: name, Completed: t.Completed}
	if t.UsesAllowed != 0 {
		a.Allowed = &t.UsesAllowed
	}
	if t.ExpiresTS != 0 {
		a.Expires = &t.ExpiresTS
	}
	return a
}

func (m *Module) tokens(r *api.Request) (any, error) {
	valid, err := r.QueryEnum("valid", "", "true", "false")
	if err != nil {
		return nil, err
	}
	now := m.Clock.Now().UnixMilli()
	out := []tokenAnswer{}
	for p := range m.Count {
		for after := ""; len(out) < maxTokens; {
			list, next, err := m.Accounts.RegTokens(r.Context, ids.Partition(p), after)
			if err != nil {
				return nil, err
			}
			for i := range list {
				if t := &list[i]; valid == "" || (valid == "true") == t.Valid(now) {
					out = append(out, answerToken(t.Token, &t.RegToken))
				}
			}
			if after = next; next == "" {
				break
			}
		}
	}
	slices.SortFunc(out, func(a, b tokenAnswer) int { return strings.Compare(a.Token, b.Token) })
	return map[string]any{"registration_tokens": out}, nil
}

// tokenChange is the body that makes or changes a token. null stands for no limit.
type tokenChange struct {
	Token   *string        `json:"token"`
	Length  *int           `json:"length"`
	Allowed jsontext.Value `json:"uses_allowed"`
	Expires jsontext.Value `json:"expiry_time"`
}

// apply changes what the body names.
func (c *tokenChange) apply(t *account.RegToken, now int64) error {
	if c.Allowed != nil {
		t.UsesAllowed = 0
		if c.Allowed.Kind() != 'n' {
			if err := api.DecodeJSON(c.Allowed, &t.UsesAllowed); err != nil || t.UsesAllowed < 1 {
				return merr.InvalidParamErr("uses_allowed is neither null nor an integer above 0")
			}
		}
	}
	if c.Expires != nil {
		t.ExpiresTS = 0
		if c.Expires.Kind() != 'n' {
			if err := api.DecodeJSON(c.Expires, &t.ExpiresTS); err != nil || t.ExpiresTS <= now {
				return merr.InvalidParamErr("expiry_time is neither null nor a time to come")
			}
		}
	}
	return nil
}

func (m *Module) newToken(r *api.Request) (any, error) {
	var c tokenChange
	if err := api.DecodeBody(r, &c); err != nil {
		return nil, err
	}
	length := tokenLength
	if c.Length != nil {
		length = *c.Length
	}
	if length < 1 || length > maxToken {
		return nil, merr.InvalidParamErr("length is not from 1 to %d", maxToken)
	}
	name := ""
	if c.Token != nil {
		if name = *c.Token; !tokenName.MatchString(name) || len(name) > maxToken {
			return nil, merr.InvalidParamErr("A token has up to %d letters, digits and ._~-", maxToken)
		}
	}
	for name == "" || len(name) < length && c.Token == nil {
		name += rand.Text()
	}
	if c.Token == nil {
		name = name[:length]
	}
	t := account.RegToken{}
	if err := c.apply(&t, m.Clock.Now().UnixMilli()); err != nil {
		return nil, err
	}
	if _, err := m.Router.Do(r.Context, &account.UseRegToken{Token: name, Use: account.CreateRegToken, New: t}); err != nil {
		return nil, err
	}
	return answerToken(name, &t), nil
}

func (m *Module) existingToken(r *api.Request) (string, *account.RegToken, error) {
	name := r.Param("token")
	if len(name) > ids.MaxLength {
		return "", nil, merr.NotFoundErr("No such registration token")
	}
	t, err := m.Accounts.RegToken(r.Context, name)
	if err == nil && t == nil {
		err = merr.NotFoundErr("No such registration token")
	}
	return name, t, err
}

func (m *Module) token(r *api.Request) (any, error) {
	name, t, err := m.existingToken(r)
	if err != nil {
		return nil, err
	}
	return answerToken(name, t), nil
}

func (m *Module) changeToken(r *api.Request) (any, error) {
	name, t, err := m.existingToken(r)
	if err != nil {
		return nil, err
	}
	var c tokenChange
	if err := api.DecodeBody(r, &c); err != nil {
		return nil, err
	}
	n := *t
	if err := c.apply(&n, m.Clock.Now().UnixMilli()); err != nil {
		return nil, err
	}
	if _, err := m.Router.Do(r.Context, &account.UseRegToken{Token: name, Use: account.UpdateRegToken, New: n}); err != nil {
		return nil, err
	}
	return answerToken(name, &n), nil
}

func (m *Module) deleteToken(r *api.Request) (any, error) {
	name, _, err := m.existingToken(r)
	if err != nil {
		return nil, err
	}
	_, err = m.Router.Do(r.Context, &account.UseRegToken{Token: name, Use: account.DeleteRegToken})
	return api.Empty, err
}
