package session_test

import (
	"context"
	"net/http"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/hubbub-chat/hubbub/internal/account"
	"github.com/hubbub-chat/hubbub/internal/api/session"
	"github.com/hubbub-chat/hubbub/internal/app/apptest"
	"github.com/hubbub-chat/hubbub/internal/auth"
	"github.com/hubbub-chat/hubbub/internal/partition"
)

func TestLoginIdentifiers(t *testing.T) {
	w := newWorld(t)
	alice := w.User(t, "alice")
	c := w.anonymous()
	for name, body := range map[string]object{
		"full ID":            loginBody("@alice:h", apptest.Password),
		"localpart":          loginBody("alice", apptest.Password),
		"capitals":           loginBody("Alice", apptest.Password),
		"user, without type": {"type": "m.login.password", "user": "alice", "password": apptest.Password},
		"user, full ID":      {"type": "m.login.password", "user": "@alice:h", "password": apptest.Password},
	} {
		t.Run(name, func(t *testing.T) {
			out := c.Must(t, "POST", v3+"/login", body)
			if out["user_id"] != alice.UserID || out["device_id"] == "" || out["home_server"] != "h" {
				t.Errorf("answer %v", out)
			}
			n := with(c, out["access_token"])
			n.UserID = alice.UserID
			works(t, n)
		})
	}
	// A client takes expires_in_ms for the truth, also if it is 0.
	for _, name := range []string{"expires_in_ms", "refresh_token"} {
		if v, ok := c.Must(t, "POST", v3+"/login", loginBody("alice", apptest.Password))[name]; ok {
			t.Errorf("a login without refresh token has %s: %v", name, v)
		}
	}
	if flows := c.Must(t, "GET", v3+"/login", nil)["flows"].([]any); len(flows) != 2 || apptest.At(flows[0], "type") != "m.login.password" || apptest.At(flows[1], "get_login_token") != true {
		t.Errorf("flows %v", flows)
	}
}

// Who guesses must not learn which accounts exist.
func TestLoginRefused(t *testing.T) {
	w := newWorld(t)
	w.User(t, "alice")
	c := w.anonymous()
	status, wrong := c.Do(t, "POST", v3+"/login", loginBody("alice", "wrong"))
	status2, unknown := c.Do(t, "POST", v3+"/login", loginBody("nobody", "wrong"))
	if status != 403 || status2 != 403 || wrong["errcode"] != "M_FORBIDDEN" || wrong["error"] != unknown["error"] || unknown["errcode"] != "M_FORBIDDEN" {
		t.Errorf("wrong password: %d %v; unknown user: %d %v", status, wrong, status2, unknown)
	}
	mail := object{"type": "m.login.password", "password": "x", "identifier": object{"type": "m.id.thirdparty", "medium": "email", "address": "a@b.example"}}
	c.Fails(t, "POST", v3+"/login", mail, 403, "M_FORBIDDEN")
	c.Fails(t, "POST", v3+"/login", loginBody("@alice:elsewhere", apptest.Password), 403, "M_FORBIDDEN")
	c.Fails(t, "POST", v3+"/login", object{"type": "m.login.sso"}, 400, "M_UNKNOWN")
}

func TestLoginOnKnownDeviceEndsItsOldTokens(t *testing.T) {
	w := newWorld(t)
	alice := w.User(t, "alice")
	works(t, alice)
	body := loginBody("alice", apptest.Password)
	body["device_id"] = alice.Device
	out := w.anonymous().Must(t, "POST", v3+"/login", body)
	if out["device_id"] != alice.Device {
		t.Errorf("device %v, want %s", out["device_id"], alice.Device)
	}
	fails401(t, alice)
	works(t, with(alice, out["access_token"]))
	if !w.wasRevoked(alice.Device) {
		t.Error("sockets of the old token were not told")
	}
	if list := with(alice, out["access_token"]).Must(t, "GET", v3+"/devices", nil)["devices"].([]any); len(list) != 1 {
		t.Errorf("devices %v", list)
	}
}

// A hash with old costs is replaced by the next login.
func TestLoginRehashes(t *testing.T) {
	w := newWorld(t, func(d *session.Deps) {
		p := auth.CheapParams()
		p.Iterations++
		d.Hasher = auth.NewHasher(p)
	})
	old, err := auth.NewHasher(auth.CheapParams()).Hash(t.Context(), "tally ho")
	if err != nil {
		t.Fatal(err)
	}
	w.do(account.NewRegister("@old:h", account.Account{PasswordHash: old}, "", nil))
	c := w.anonymous()
	for range 2 {
		c.Must(t, "POST", v3+"/login", loginBody("old", "tally ho"))
	}
	acc, err := account.NewReader(w.store, partitions).Account(t.Context(), "@old:h")
	if err != nil || acc.PasswordHash == old {
		t.Errorf("the hash is still the old one (%v)", err)
	}
}

// meanwhile is a router that does something just before the first login.
type meanwhile struct {
	partition.Router
	once sync.Once
	do   func()
}

func (m *meanwhile) Do(ctx context.Context, cmd partition.Command) (any, error) {
	if _, ok := cmd.(*account.Login); ok {
		m.once.Do(m.do)
	}
	return m.Router.Do(ctx, cmd)
}

// The password was right when it was checked. It must still be when the session
// begins; a new hash of the same password is no obstacle.
func TestPasswordChangedDuringLogin(t *testing.T) {
	for name, tt := range map[string]struct {
		password string
		status   int
	}{"same password": {"tally ho", 200}, "another": {"tally heigh-ho", 403}} {
		t.Run(name, func(t *testing.T) {
			m := &meanwhile{}
			w := newWorld(t, func(d *session.Deps) { m.Router, d.Router = d.Router, m })
			w.do(account.NewRegister("@alice:h", account.Account{PasswordHash: mustHash(t, "tally ho")}, "", nil))
			m.do = func() {
				cmd := account.NewEndDevices("@alice:h")
				cmd.PasswordHash = mustHash(t, tt.password)
				w.do(cmd)
			}
			if status, out := w.anonymous().Do(t, "POST", v3+"/login", loginBody("alice", "tally ho")); status != tt.status {
				t.Errorf("got %d %v, want %d", status, out, tt.status)
			}
		})
	}
}

func refreshable(t *testing.T, w *world) (*apptest.Client, object) {
	t.Helper()
	alice := w.User(t, "alice")
	body := loginBody("alice", apptest.Password)
	body["refresh_token"], body["device_id"] = true, "PHONE"
	out := w.anonymous().Must(t, "POST", v3+"/login", body)
	if out["expires_in_ms"] != float64(time.Hour.Milliseconds()) || out["refresh_token"] == nil {
		t.Fatalf("answer %v", out)
	}
	return with(alice, out["access_token"]), out
}

func refresh(t *testing.T, c *apptest.Client, token any) object {
	t.Helper()
	return with(c, "").Must(t, "POST", v3+"/refresh", object{"refresh_token": token})
}

func TestRefresh(t *testing.T) {
	w := newWorld(t)
	alice, first := refreshable(t, w)
	works(t, alice)
	lost := refresh(t, alice, first["refresh_token"])
	works(t, alice) // until a new token is used
	second := refresh(t, alice, first["refresh_token"])
	fails401(t, with(alice, lost["access_token"])) // void: its answer did not arrive
	works(t, with(alice, second["access_token"]))
	fails401(t, alice)
	w.forgetRevoked()
	// The old token comes back after its successor was used: somebody stole it.
	status, out := with(alice, "").Do(t, "POST", v3+"/refresh", object{"refresh_token": first["refresh_token"]})
	if status != 401 || out["errcode"] != "M_UNKNOWN_TOKEN" || out["soft_logout"] != true {
		t.Errorf("a spent refresh token: %d %v", status, out)
	}
	fails401(t, with(alice, second["access_token"]))
	if !w.wasRevoked("PHONE") {
		t.Error("sockets of the ended session were not told")
	}
	other := w.anonymous()
	other.Must(t, "POST", v3+"/login", loginBody("alice", apptest.Password))
}

func TestRefreshRefused(t *testing.T) {
	w := newWorld(t)
	alice, first := refreshable(t, w)
	c := w.anonymous()
	for name, token := range map[string]any{
		"access token":  first["access_token"],
		"nonsense":      "hbr_nonsense",
		"empty but one": "x",
		"never issued":  auth.NewToken(auth.Refresh, "alice"),
		"nobody's":      auth.NewToken(auth.Refresh, "nobody"),
	} {
		status, out := c.Do(t, "POST", v3+"/refresh", object{"refresh_token": token})
		if status != 401 || out["errcode"] != "M_UNKNOWN_TOKEN" {
			t.Errorf("%s: %d %v", name, status, out)
		}
	}
	fails401(t, with(alice, first["refresh_token"])) // a refresh token authorizes nothing else
	alice.Must(t, "POST", v3+"/logout", nil)
	c.Fails(t, "POST", v3+"/refresh", object{"refresh_token": first["refresh_token"]}, 401, "M_UNKNOWN_TOKEN")
}

func TestExpiredTokenIsSoftLogout(t *testing.T) {
	w := newWorld(t)
	alice, first := refreshable(t, w)
	works(t, alice)
	w.clock.Advance(time.Hour - time.Second)
	works(t, alice)
	w.clock.Advance(2 * time.Second) // also while the token is remembered
	status, out := alice.Do(t, "GET", v3+"/account/whoami", nil)
	if status != 401 || out["errcode"] != "M_UNKNOWN_TOKEN" || out["soft_logout"] != true {
		t.Errorf("expired: %d %v", status, out)
	}
	works(t, with(alice, refresh(t, alice, first["refresh_token"])["access_token"]))
}

func TestTokensWithoutRefreshDoNotExpire(t *testing.T) {
	w := newWorld(t)
	alice := w.User(t, "alice")
	w.clock.Advance(10_000 * time.Hour)
	works(t, alice)
}

func TestLogout(t *testing.T) {
	w := newWorld(t)
	alice := w.User(t, "alice")
	second, third := alice.Login(t), alice.Login(t)
	for _, c := range []*apptest.Client{alice, second, third} {
		works(t, c) // remembered from here on
	}
	alice.Must(t, "POST", v3+"/logout", nil)
	fails401(t, alice)
	works(t, second)
	if !w.wasRevoked(alice.Device) {
		t.Error("sockets of the device were not told")
	}
	second.Must(t, "POST", v3+"/logout/all", object{})
	fails401(t, second)
	fails401(t, third)
	out := w.anonymous().Must(t, "POST", v3+"/login", loginBody("alice", apptest.Password))
	if list := with(alice, out["access_token"]).Must(t, "GET", v3+"/devices", nil)["devices"].([]any); len(list) != 1 {
		t.Errorf("devices after logout: %v", list)
	}
}

func TestNoToken(t *testing.T) {
	w := newWorld(t)
	c := w.anonymous()
	c.Fails(t, "GET", v3+"/account/whoami", nil, 401, "M_MISSING_TOKEN")
	for _, token := range []string{"nonsense", "hba_", auth.NewToken(auth.Access, "alice"), auth.NewToken(auth.Login, "alice")} {
		fails401(t, with(c, token))
	}
}

func TestLockedAccount(t *testing.T) {
	w := newWorld(t)
	hash, err := auth.NewHasher(auth.CheapParams()).Hash(t.Context(), "tally ho")
	if err != nil {
		t.Fatal(err)
	}
	token := auth.NewToken(auth.Access, "locked")
	w.do(account.NewRegister("@locked:h", account.Account{PasswordHash: hash, Locked: true}, "",
		&account.Session{Device: "D", Access: auth.Hash(token)}))
	c := with(w.anonymous(), token)
	for _, req := range []struct {
		method, path string
		body         any
	}{{"GET", "/account/whoami", nil}, {"POST", "/login", loginBody("locked", "tally ho")}} {
		status, out := c.Do(t, req.method, v3+req.path, req.body)
		if status != 401 || out["errcode"] != "M_USER_LOCKED" || out["soft_logout"] != true {
			t.Errorf("%s: %d %v", req.path, status, out)
		}
	}
}

func TestWhoami(t *testing.T) {
	w := newWorld(t)
	alice := w.User(t, "alice")
	out := alice.Must(t, "GET", v3+"/account/whoami", nil)
	if out["user_id"] != "@alice:h" || out["device_id"] != alice.Device || out["is_guest"] != false {
		t.Errorf("whoami %v", out)
	}
}

func retryAfter(t *testing.T, c *apptest.Client, path string, body any) (limited bool) {
	t.Helper()
	status, raw, header := c.Raw(t, "POST", v3+path, body)
	if status != http.StatusTooManyRequests {
		return false
	}
	_, out := c.Do(t, "POST", v3+path, body)
	ms, _ := out["retry_after_ms"].(float64)
	seconds, err := strconv.Atoi(header.Get("Retry-After"))
	if err != nil || seconds < 1 || ms <= 0 || out["errcode"] != "M_LIMIT_EXCEEDED" {
		t.Errorf("429 with Retry-After %q and %s", header.Get("Retry-After"), raw)
	}
	return true
}

// Guesses are limited for each account; what was right costs nothing.
func TestLoginLimits(t *testing.T) {
	w := newWorld(t, limited(t))
	c := w.anonymous()
	w.do(account.NewRegister("@bob:h", account.Account{PasswordHash: mustHash(t, apptest.Password)}, "", nil))
	burst := 0
	for ; burst < 20 && !retryAfter(t, c, "/login", loginBody("nobody", "guess")); burst++ {
	}
	if burst != 3 {
		t.Errorf("%d guesses passed, want 3", burst)
	}
	w.clock.Advance(time.Hour)
	for i := range 9 {
		if status, out := c.Do(t, "POST", v3+"/login", loginBody("bob", apptest.Password)); status != 200 {
			t.Fatalf("right login %d: %d %v", i, status, out)
		}
	}
}

func TestAddressLimit(t *testing.T) {
	w := newWorld(t, limited(t))
	c := w.anonymous()
	for path, body := range map[string]any{
		"/login":    object{"type": "m.login.password", "password": "x"},
		"/register": object{"username": "bob"},
	} {
		n := 0
		for ; n < 100 && !retryAfter(t, c, path, body); n++ {
		}
		if n == 0 || n == 100 {
			t.Errorf("%s: %d requests passed", path, n)
		}
	}
}

func mustHash(t *testing.T, password string) string {
	t.Helper()
	h, err := auth.NewHasher(auth.CheapParams()).Hash(t.Context(), password)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// A device is noted as seen without the request waiting for it.
func TestLastSeen(t *testing.T) {
	w := newWorld(t)
	alice := w.User(t, "alice")
	w.clock.Advance(time.Hour)
	now := w.clock.Now().UnixMilli()
	works(t, alice)
	w.tokens.Close() // waits for what runs beside requests
	out := alice.Must(t, "GET", v3+"/devices/"+alice.Device, nil)
	if out["last_seen_ts"] != float64(now) || out["last_seen_ip"] != "127.0.0.1" {
		t.Errorf("device %v", out)
	}
}
