package session

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/hubbub-chat/hubbub/internal/account"
	"github.com/hubbub-chat/hubbub/internal/api"
	"github.com/hubbub-chat/hubbub/internal/auth"
	"github.com/hubbub-chat/hubbub/internal/clock"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/partition"
)

const (
	// tokenTTL is how long a proven token is believed without looking at the
	// store, if nobody else says: see Believe.
	tokenTTL = 5 * time.Second
	// maxProven bounds the tokens that are remembered; beyond it all are
	// forgotten, which costs a look-up each.
	maxProven = 100_000
	// seenEvery is how often it is written down when a device was last seen.
	seenEvery = 10 * time.Minute
)

// Authenticator proves access tokens. It remembers them for a few seconds.
type Authenticator struct {
	accounts *account.Reader
	router   partition.Router
	server   string
	clock    clock.Clock
	log      *slog.Logger
	ttl      time.Duration
	wg       sync.WaitGroup

	mu struct {
		sync.Mutex
		closed bool
		proven map[string]proven // by token hash
		// forgets counts the calls of Forget. What was read of a token before
		// one may be what the call was about, and is not remembered.
		forgets uint64
	}
}

type proven struct {
	caller  api.Caller
	until   time.Time
	expires int64 // of the token, ms since 1970, 0 for never
	locked  bool
	// seen is when the device was last noted as seen, ms since 1970, as far as that is
	// known here.
	seen int64
}

// admit says what a proven token is good for.
func (p *proven) admit(c api.Credentials, now time.Time) (api.Caller, error) {
	if p.locked && !c.Locked {
		return api.Caller{}, api.ErrLocked()
	}
	return p.caller, expired(p.expires, now)
}

var _ api.Authenticator = (*Authenticator)(nil)

// NewAuthenticator returns an authenticator for the users of a server.
func NewAuthenticator(accounts *account.Reader, router partition.Router, server string, c clock.Clock, log *slog.Logger) *Authenticator {
	a := &Authenticator{accounts: accounts, router: router, server: server, clock: c, log: log, ttl: tokenTTL}
	a.mu.proven = make(map[string]proven)
	return a
}

// Believe sets how long a proven token is believed without looking at the store: the
// bound of a revocation on another node whose notice got lost. It is called before the
// first Authenticate.
func (a *Authenticator) Believe(d time.Duration) { a.ttl = d }

// Authenticate implements api.Authenticator.
func (a *Authenticator) Authenticate(ctx context.Context, c api.Credentials) (api.Caller, error) {
	local, ok := ofAccess(c.Token)
	if !ok {
		return api.Caller{}, account.ErrUnknownToken(false)
	}
	hash, now := auth.Hash(c.Token), a.clock.Now()
	a.mu.Lock()
	p, ok := a.mu.proven[hash]
	forgets := a.mu.forgets
	a.mu.Unlock()
	if ok && now.Before(p.until) {
		return p.admit(c, now)
	}
	name := account.TokenName{User: ids.NewUserID(local, a.server), Hash: hash}
	found, err := a.accounts.TokensAndAccounts(ctx, name)
	if err != nil {
		return api.Caller{}, err
	}
	p, err = a.prove(ctx, name, found[0], c, now, p.seen)
	if err != nil {
		return api.Caller{}, err
	}
	a.remember(hash, p, forgets)
	return p.admit(c, now)
}

// Look looks up, in one read, the tokens of a list that are not believed any more, so that
// Authenticate need not read each by itself. What is wrong with one, Authenticate tells.
func (a *Authenticator) Look(ctx context.Context, list []api.Credentials) {
	now := a.clock.Now()
	type question struct {
		account.TokenName
		by   api.Credentials
		seen int64
	}
	ask := make([]question, 0, len(list))
	for _, c := range list {
		if local, ok := ofAccess(c.Token); ok {
			name := account.TokenName{User: ids.NewUserID(local, a.server), Hash: auth.Hash(c.Token)}
			ask = append(ask, question{TokenName: name, by: c})
		}
	}
	a.mu.Lock()
	forgets := a.mu.forgets
	ask = slices.DeleteFunc(ask, func(q question) bool { return now.Before(a.mu.proven[q.Hash].until) })
	names := make([]account.TokenName, len(ask))
	for i := range ask {
		names[i], ask[i].seen = ask[i].TokenName, a.mu.proven[ask[i].Hash].seen
	}
	a.mu.Unlock()
	if len(ask) == 0 {
		return
	}
	found, err := a.accounts.TokensAndAccounts(ctx, names...)
	if err != nil {
		return // Authenticate tries again
	}
	for i, q := range ask {
		if p, err := a.prove(ctx, q.TokenName, found[i], q.by, now, q.seen); err == nil {
			a.remember(q.Hash, p, forgets)
		}
	}
}

// ofAccess returns the local part of the user whom an access token would be of.
func ofAccess(token string) (local string, ok bool) {
	kind, local, err := auth.Parse(token)
	return local, err == nil && kind == auth.Access
}

// remember keeps a proven token, unless Forget was called since it was read.
func (a *Authenticator) remember(hash string, p proven, forgets uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.mu.forgets != forgets {
		return
	}
	if len(a.mu.proven) >= maxProven {
		clear(a.mu.proven)
	}
	a.mu.proven[hash] = p
}

func expired(expires int64, now time.Time) error {
	if expires != 0 && expires <= now.UnixMilli() {
		return account.ErrUnknownToken(true)
	}
	return nil
}

// prove makes of what was found of a token what is to be believed of it.
func (a *Authenticator) prove(ctx context.Context, name account.TokenName, found account.TokenAndAccount, c api.Credentials, now time.Time, seen int64) (proven, error) {
	user, hash, t, acc := name.User, name.Hash, found.Token, found.Account
	if found.Err != nil {
		return proven{}, found.Err
	}
	if t == nil || t.Refresh {
		return proven{}, account.ErrUnknownToken(false)
	}
	if err := expired(t.ExpiresTS, now); err != nil {
		return proven{}, err
	}
	if acc == nil || acc.Deactivated {
		return proven{}, account.ErrUnknownToken(false)
	}
	if len(t.Replaces) > 0 {
		// The client has its new tokens: the old ones end.
		if _, err := a.router.Do(ctx, account.NewConfirmToken(user, hash, t)); err != nil {
			return proven{}, err
		}
		a.Forget(user)
	}
	if now.UnixMilli()-seen >= seenEvery.Milliseconds() {
		seen = a.noteSeen(ctx, user, t.Device, c, now)
	}
	return proven{
		caller: api.Caller{
			User: user, Device: t.Device, TokenHash: hash, Admin: acc.Admin, Guest: acc.Guest,
			Suspended: acc.Suspended, Unlimited: acc.Unlimited,
		},
		until: now.Add(a.ttl), expires: t.ExpiresTS, locked: acc.Locked, seen: seen,
	}, nil
}

// noteSeen writes down that a device was seen, now and then, beside the request. It
// returns when that was noted last, 0 if it is to be looked at again.
func (a *Authenticator) noteSeen(ctx context.Context, user ids.UserID, device ids.DeviceID, c api.Credentials, now time.Time) int64 {
	d, err := a.accounts.Device(ctx, user, device)
	if err != nil || d == nil {
		return 0
	}
	if now.UnixMilli()-d.LastSeenTS < seenEvery.Milliseconds() {
		return d.LastSeenTS
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.mu.closed {
		return 0
	}
	seen := &account.Seen{IP: c.Addr.String(), UserAgent: c.UserAgent, TS: now.UnixMilli()}
	ctx = context.WithoutCancel(ctx)
	a.wg.Go(func() {
		if _, err := a.router.Do(ctx, account.NewUpdateDevice(user, device, nil, seen)); err != nil {
			a.log.Debug("note when a device was seen", "user", user, "error", err)
		}
	})
	return 0
}

// Forget makes the tokens of a user be looked up again.
func (a *Authenticator) Forget(user ids.UserID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.mu.forgets++
	for hash, p := range a.mu.proven {
		if p.caller.User == user {
			delete(a.mu.proven, hash)
		}
	}
}

// Close waits for what runs beside requests.
func (a *Authenticator) Close() {
	a.mu.Lock()
	a.mu.closed = true
	a.mu.Unlock()
	a.wg.Wait()
}
