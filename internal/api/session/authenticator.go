package session

import (
	"context"
	"log/slog"
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
	start    time.Time
	wg       sync.WaitGroup

	mu struct {
		sync.Mutex
		closed bool
		// proven are the tokens by their hash. None of them changes.
		proven map[string]*proven
		// forgets counts the calls of Forget. What was read of a token before
		// one may be what the call was about, and is not remembered.
		forgets uint64
	}
}

// proven is a token that is believed for a while. There is one for each socket.
type proven struct {
	caller  api.Caller
	until   time.Duration // since Authenticator.start
	expires int64         // of the token, ms since 1970, 0 for never
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
	a := &Authenticator{accounts: accounts, router: router, server: server, clock: c, log: log, ttl: tokenTTL, start: c.Now()}
	a.mu.proven = make(map[string]*proven)
	return a
}

// Believe sets how long a proven token is believed without looking at the store: the
// bound of a revocation on another node whose notice got lost. It is called before the
// first Authenticate.
func (a *Authenticator) Believe(d time.Duration) { a.ttl = d }

// Authenticate implements api.Authenticator.
func (a *Authenticator) Authenticate(ctx context.Context, c api.Credentials) (api.Caller, error) {
	hash, now := tokenHash(c), a.clock.Now()
	if hash == "" {
		return api.Caller{}, account.ErrUnknownToken(false)
	}
	a.mu.Lock()
	p := a.mu.proven[hash]
	forgets := a.mu.forgets
	a.mu.Unlock()
	if a.believed(p, now) {
		return p.admit(c, now)
	}
	name := a.tokenName(c, hash)
	found, err := a.accounts.TokensAndAccounts(ctx, name)
	if err != nil {
		return api.Caller{}, err
	}
	p, err = a.prove(ctx, name, found[0], c, now, p)
	if err != nil {
		return api.Caller{}, err
	}
	a.remember(hash, p, forgets)
	return p.admit(c, now)
}

// believed reports whether a token, nil for one that is not known, need not be looked at.
func (a *Authenticator) believed(p *proven, now time.Time) bool {
	return p != nil && now.Sub(a.start) < p.until
}

// Look looks up, in one read, the tokens of a list that are not believed any more, so that
// Authenticate need not read each by itself. What is wrong with one, Authenticate tells.
func (a *Authenticator) Look(ctx context.Context, list []api.Credentials) {
	now := a.clock.Now()
	type question struct {
		account.TokenName
		by     api.Credentials
		before *proven
	}
	var ask []question // nearly always of none: all are believed
	a.mu.Lock()
	forgets := a.mu.forgets
	for _, c := range list {
		hash := tokenHash(c)
		if p := a.mu.proven[hash]; hash != "" && !a.believed(p, now) {
			ask = append(ask, question{a.tokenName(c, hash), c, p})
		}
	}
	a.mu.Unlock()
	if len(ask) == 0 {
		return
	}
	names := make([]account.TokenName, len(ask))
	for i := range ask {
		names[i] = ask[i].TokenName
	}
	found, err := a.accounts.TokensAndAccounts(ctx, names...)
	if err != nil {
		return // Authenticate tries again
	}
	for i, q := range ask {
		if p, err := a.prove(ctx, q.TokenName, found[i], q.by, now, q.before); err == nil {
			a.remember(q.Hash, p, forgets)
		}
	}
}

// tokenHash is the hash of an access token, "" for what cannot be one.
func tokenHash(c api.Credentials) string {
	if c.Token == "" {
		return c.TokenHash
	}
	if _, ok := ofAccess(c.Token); !ok {
		return ""
	}
	return auth.Hash(c.Token)
}

// tokenName is by what an access token is found.
func (a *Authenticator) tokenName(c api.Credentials, hash string) account.TokenName {
	if c.Token == "" {
		return account.TokenName{User: c.User, Hash: hash}
	}
	local, _ := ofAccess(c.Token)
	return account.TokenName{User: ids.NewUserID(local, a.server), Hash: hash}
}

// ofAccess returns the local part of the user whom an access token would be of.
func ofAccess(token string) (local string, ok bool) {
	kind, local, err := auth.Parse(token)
	return local, err == nil && kind == auth.Access
}

// remember keeps a proven token, unless Forget was called since it was read.
func (a *Authenticator) remember(hash string, p *proven, forgets uint64) {
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

// prove makes of what was found of a token what is to be believed of it. before is what
// was believed before, nil for nothing.
func (a *Authenticator) prove(ctx context.Context, name account.TokenName, found account.TokenAndAccount, c api.Credentials, now time.Time, before *proven) (*proven, error) {
	user, hash, t, acc := name.User, name.Hash, found.Token, found.Account
	if found.Err != nil {
		return nil, found.Err
	}
	if t == nil || t.Refresh {
		return nil, account.ErrUnknownToken(false)
	}
	if err := expired(t.ExpiresTS, now); err != nil {
		return nil, err
	}
	if acc == nil || acc.Deactivated {
		return nil, account.ErrUnknownToken(false)
	}
	if len(t.Replaces) > 0 {
		// The client has its new tokens: the old ones end.
		if _, err := a.router.Do(ctx, account.NewConfirmToken(user, hash, t)); err != nil {
			return nil, err
		}
		a.Forget(user)
	}
	device, seen := t.Device, int64(0)
	if before != nil {
		seen = before.seen
		if b := before.caller; b.User == user && b.Device == device {
			// Sockets keep these names for long. New ones each time would lie among what
			// is garbage soon, whose memory could not be given back then.
			user, device, hash = b.User, b.Device, b.TokenHash
		}
	}
	if now.UnixMilli()-seen >= seenEvery.Milliseconds() {
		seen = a.noteSeen(ctx, user, device, c, now)
	}
	return &proven{
		caller: api.Caller{
			User: user, Device: device, TokenHash: hash, Admin: acc.Admin, Guest: acc.Guest,
			Suspended: acc.Suspended, Unlimited: acc.Unlimited,
		},
		until: now.Sub(a.start) + a.ttl, expires: t.ExpiresTS, locked: acc.Locked, seen: seen,
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
