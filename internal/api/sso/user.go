package sso

import (
	"context"
	"crypto/rand"
	"strconv"
	"strings"
	"time"

	"github.com/hubbub-chat/hubbub/internal/account"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/merr"
	"github.com/hubbub-chat/hubbub/internal/sso"
)

const (
	// maxNames is how many user names are tried for a new person: the wish, then the
	// wish with a number, then chance.
	maxNames = 12
	// maxWish is the longest wish in bytes; a number has to fit behind it.
	maxWish = 64
	// claimRetry is when a sign-in by the same person at the same time has ended.
	claimRetry = 2 * time.Second
	// maxDisplayName is the longest display name in bytes.
	maxDisplayName = 256
)

// user returns the user that a person is, and makes the account the first time.
func (m *Module) user(ctx context.Context, id *sso.Identity) (ids.UserID, error) {
	kind := account.MediumSignOn + id.Provider.ID
	for n := range maxNames {
		user, err := m.Accounts.ContactOwner(ctx, kind, id.Subject)
		if err != nil || user != "" {
			return user, err
		}
		if id.Provider.ExistingOnly {
			return "", merr.ForbiddenErr("You have no account here")
		}
		wish := ids.NewUserID(localpart(id.UserName, n), m.Server)
		if m.Reserved(wish) {
			continue // or whoever is called so elsewhere would be a bridge's user here
		}
		acc, err := m.Accounts.Account(ctx, wish)
		if err != nil {
			return "", err
		}
		if acc != nil {
			continue // somebody's, whoever it is
		}
		done, err := m.register(ctx, wish, kind, id)
		if err != nil || done {
			return wish, err
		}
	}
	return "", merr.UnavailableErr(claimRetry, "There is no free user name")
}

// register makes the account. done is false if the name was taken meanwhile.
func (m *Module) register(ctx context.Context, user ids.UserID, kind string, id *sso.Identity) (done bool, err error) {
	_, err = m.Router.Do(ctx, &account.ClaimContact{Medium: kind, Address: id.Subject, User: user})
	if merr.Is(err, merr.ThreePIDInUse) {
		return false, merr.UnavailableErr(claimRetry, "You are being signed in by another request").Because(err)
	}
	if err != nil {
		return false, err
	}
	cmd := account.NewRegister(user, account.Account{}, displayName(id.DisplayName, user), nil)
	cmd.Contact = &account.Contact{Medium: kind, Address: id.Subject, ValidatedTS: m.Clock.Now().UnixMilli()}
	_, err = m.Router.Do(ctx, cmd)
	if !merr.Is(err, merr.UserInUse) {
		return err == nil, err
	}
	// By another request of the same person, which the next look at the owner finds, or
	// by somebody else.
	_, err = m.Router.Do(ctx, &account.ReleaseContact{Medium: kind, Address: id.Subject, User: user})
	return false, err
}

// localpart makes a user name of what a provider calls a person: n counts those that
// were taken.
func localpart(wish string, n int) string {
	wish, _, _ = strings.Cut(strings.ToLower(wish), "@")
	var b strings.Builder
	for _, c := range wish {
		if b.Len() == maxWish {
			break
		}
		if c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '.' || c == '_' || c == '-' {
			b.WriteRune(c)
		}
	}
	name := strings.Trim(b.String(), ".-")
	switch {
	case name == "" || strings.HasPrefix(name, "_") || n >= maxNames-2:
		return "user-" + strings.ToLower(rand.Text()[:10])
	case n == 0:
		return name
	}
	return name + strconv.Itoa(n+1)
}

func displayName(name string, user ids.UserID) string {
	if name == "" || len(name) > maxDisplayName {
		return user.Localpart()
	}
	return name
}
