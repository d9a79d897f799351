package security

import (
	"bytes"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/hubbub-chat/hubbub/internal/app/apptest"
	"github.com/hubbub-chat/hubbub/internal/config"
)

// bare sends a request that no client of ours would make.
func bare(t *testing.T, s *apptest.Server, target string, change func(*http.Request)) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL+target, nil)
	if err != nil {
		t.Fatal(err)
	}
	change(req)
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	defer client.CloseIdleConnections()
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	var head bytes.Buffer
	if err := resp.Header.Write(&head); err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, head.String() + string(raw)
}

// TestCookiesProveNothing: a token in a cookie is none, so that a page elsewhere cannot
// act for whom it shows itself to.
func TestCookiesProveNothing(t *testing.T) {
	t.Parallel()
	s := apptest.Start(t)
	alice := s.User(t, "alice")
	for _, name := range []string{"access_token", "Authorization", "token", "session"} {
		status, text := bare(t, s, v3+"/account/whoami", func(r *http.Request) { r.AddCookie(&http.Cookie{Name: name, Value: alice.Token}) })
		if status != http.StatusUnauthorized {
			t.Errorf("the cookie %s: %d %s", name, status, text)
		}
	}
}

// TestHostIsNotBelieved: what a client calls the server stands in no link.
func TestHostIsNotBelieved(t *testing.T) {
	t.Parallel()
	s := apptest.Start(t)
	for _, target := range []string{
		"/.well-known/matrix/client", "/.well-known/matrix/server", "/.well-known/matrix/support", "/_hubbub/v1/info", "/",
		v3 + "/login", v3 + "/login/sso/redirect?redirectUrl=" + url.QueryEscape("http://localhost/"), "/_hubbub/v1/email/validate",
	} {
		status, text := bare(t, s, target, func(r *http.Request) {
			r.Host = "evil.example"
			r.Header.Set("X-Forwarded-Host", "evil.example")
			r.Header.Set("Forwarded", "host=evil.example")
		})
		if status >= 500 || strings.Contains(text, "evil.example") {
			t.Errorf("%s: %d %.500s", target, status, text)
		}
	}
}

// TestFieldsOfTheServer: what the server says of an event, and who did something, is
// nothing a client can say.
func TestFieldsOfTheServer(t *testing.T) {
	t.Parallel()
	s := apptest.Start(t)
	alice, bob := s.User(t, "alice"), s.User(t, "bob")
	room := alice.CreateRoom(t, object{"preset": "public_chat"})
	forged := object{
		"msgtype": "m.text", "body": "x", "sender": bob.UserID, "event_id": "$forged", "origin_server_ts": 1, "room_id": "!elsewhere",
		"unsigned": object{"age": 1, "transaction_id": "forged"}, "state_key": bob.UserID, "user_id": bob.UserID,
	}
	id := alice.Must(t, "PUT", at(room, "send", "m.room.message", "t"), forged)["event_id"].(string)
	e := alice.Must(t, "GET", at(room, "event", id), nil)
	if e["sender"] != alice.UserID || e["event_id"] != id || e["origin_server_ts"] == 1.0 || e["room_id"] != room || e["state_key"] != nil ||
		apptest.At(e, "unsigned", "transaction_id") != "t" {
		t.Errorf("event %v", e)
	}
	// Nobody joins or leaves for another, who are free to, and whom the caller could kick.
	carol := s.User(t, "carol")
	bob.Join(t, room)
	of := func(u *apptest.Client) object {
		return object{"user_id": u.UserID, "sender": u.UserID, "state_key": u.UserID}
	}
	in := func(want ...*apptest.Client) {
		t.Helper()
		joined := bob.Must(t, "GET", at(room, "joined_members"), nil)["joined"].(object)
		for _, u := range want {
			if joined[u.UserID] == nil {
				t.Errorf("%s is not in the room", u.UserID)
			}
		}
		if len(joined) != len(want) {
			t.Errorf("in the room are %v", joined)
		}
	}
	alice.Must(t, "POST", at(room, "join"), of(carol))
	in(alice, bob)
	forgedKick := of(bob)
	forgedKick["user_id"] = alice.UserID // bob, who may not, in the name of alice, who may
	forgedKick["sender"] = alice.UserID
	bob.Fails(t, "POST", at(room, "kick"), forgedKick, http.StatusForbidden, "M_FORBIDDEN")
	in(alice, bob)
	alice.Must(t, "POST", at(room, "leave"), of(bob))
	in(bob)
	if rooms := carol.Must(t, "GET", v3+"/joined_rooms", nil)["joined_rooms"].([]any); len(rooms) != 0 {
		t.Errorf("carol was made to join: %v", rooms)
	}
}

// TestOneIdentifier: a login that names two users is none of the one whose password was
// not given.
func TestOneIdentifier(t *testing.T) {
	t.Parallel()
	s := apptest.Start(t)
	alice, bob := s.User(t, "alice"), s.User(t, "bob")
	const theirs = "another password of bob's"
	_, challenge := bob.Do(t, "POST", v3+"/account/password", object{"new_password": theirs})
	proof := password(bob, apptest.Password)
	proof["session"] = challenge["session"]
	bob.Must(t, "POST", v3+"/account/password", object{"new_password": theirs, "auth": proof})
	for name, identifier := range map[string]object{
		"both forms":  {"type": "m.id.user", "user": "alice"},
		"a full name": {"type": "m.id.user", "user": alice.UserID},
	} {
		both := object{"type": "m.login.password", "password": theirs, "identifier": identifier, "user": "bob", "user_id": bob.UserID, "username": "bob"}
		if status, out := s.Anonymous().Do(t, "POST", v3+"/login", both); status == http.StatusOK && out["user_id"] != bob.UserID {
			t.Errorf("%s: %v", name, out)
		}
	}
}

// floodOfLogins is as many as come in one packet over HTTP/2.
const floodOfLogins = 500

// TestFloodOfLogins: many logins at once are answered, each by a refusal of the
// password or of the flood, and afterwards the server is as before.
func TestFloodOfLogins(t *testing.T) {
	t.Parallel()
	s := apptest.Start(t, func(c *config.Config) { c.Limits.NoRateLimits = false })
	alice := s.User(t, "alice")
	count := flood(t, alice)
	if count[http.StatusForbidden]+count[http.StatusTooManyRequests] != floodOfLogins || count[http.StatusTooManyRequests] < floodOfLogins/2 {
		t.Errorf("answers %v", count)
	}
	alice.Must(t, "GET", v3+"/account/whoami", nil)
}

// TestLongPassword: a password of a megabyte costs the server nothing.
func TestLongPassword(t *testing.T) {
	t.Parallel()
	s := apptest.Start(t)
	alice := s.User(t, "alice")
	for _, size := range []int{10_000, 1 << 20} {
		status, out := alice.Do(t, "POST", v3+"/login", password(alice, strings.Repeat("x", size)))
		if status != http.StatusForbidden && status != http.StatusBadRequest && status != http.StatusRequestEntityTooLarge {
			t.Errorf("%d bytes: %d %v", size, status, out)
		}
	}
}
