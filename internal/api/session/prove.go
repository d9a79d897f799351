package session

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/hubbub-chat/hubbub/internal/account"
	"github.com/hubbub-chat/hubbub/internal/api"
	"github.com/hubbub-chat/hubbub/internal/auth"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/partition"
	"github.com/hubbub-chat/hubbub/internal/sso"
)

// Prove asks for proof that the caller is the owner of the account: the password,
// or signing in again where the account is from. operation is what it is good for.
// The users of an application service have neither, and are its own to look after.
func (m *Module) Prove(r *api.Request, operation string, a jsontext.Value) error {
	if r.Caller.AppService != "" {
		return nil
	}
	_, err := m.prove(r, operation, a)
	return err
}

func (m *Module) prove(r *api.Request, operation string, a jsontext.Value) (auth.UIAResult, error) {
	flows, err := m.proofs(r.Context, r.Caller.User)
	if err != nil {
		return auth.UIAResult{}, err
	}
	return m.uia.Check(r.Context, auth.UIARequest{Operation: operation, Caller: r.Caller.User, Auth: a, Flows: flows})
}

// proofs are the ways in which a user can prove who they are: those that the account
// has. For one that has none it is the password, which it cannot give.
func (m *Module) proofs(ctx context.Context, user ids.UserID) ([]auth.Flow, error) {
	password := []auth.Flow{{auth.StagePassword}}
	if len(m.Providers) == 0 && m.JWT == nil {
		return password, nil
	}
	acc, err := m.Accounts.Account(ctx, user)
	if err != nil {
		return nil, err
	}
	var flows []auth.Flow
	if acc != nil && acc.PasswordHash != "" {
		flows = password
	}
	if len(m.Providers) > 0 {
		contacts, err := m.Accounts.Contacts(ctx, user)
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(contacts, m.signsOn) {
			flows = append(flows, auth.Flow{auth.StageSSO})
		}
	}
	switch {
	case len(flows) > 0:
		return flows, nil
	case m.JWT != nil: // whoever can log in by such a token can bring another one
		return []auth.Flow{{auth.StageJWT}}, nil
	}
	return password, nil
}

// signsOn reports whether a contact is who somebody is at a provider that the server
// still knows.
func (m *Module) signsOn(c account.Contact) bool {
	id, ok := strings.CutPrefix(c.Medium, account.MediumSignOn)
	return ok && slices.ContainsFunc(m.Providers, func(p sso.Shown) bool { return p.ID == id })
}

var _ auth.SSOVerifier = (*Module)(nil)

// ConfirmedAway implements auth.SSOVerifier.
func (m *Module) ConfirmedAway(ctx context.Context, user ids.UserID, session string) (bool, error) {
	return partition.Do[bool](ctx, m.Router, account.NewConfirm(user, auth.ConfirmHash(session)))
}

// Pending returns a session of user-interactive authentication that is under way;
// ok is false if it is none.
func (m *Module) Pending(sealed string) (p auth.Pending, ok bool) { return m.uia.Pending(sealed) }

var _ auth.JWTVerifier = (*Module)(nil)

// ProvedByJWT implements auth.JWTVerifier.
func (m *Module) ProvedByJWT(ctx context.Context, user ids.UserID, token string, begun time.Time) (ok, other bool, err error) {
	p, err := m.JWT.Prove(token, begun, m.Clock.Now())
	if err != nil {
		return false, false, nil // it proves nothing, whatever is wrong with it
	}
	if named, err := ids.ParseLocalpart(strings.ToLower(p.Subject), m.Server); err != nil || named != user {
		return false, true, nil
	}
	ok, err = partition.Do[bool](ctx, m.Router, account.NewSpendProof(user, auth.Hash("jwt:"+token), p.Until.UnixMilli()))
	return ok, false, err
}
