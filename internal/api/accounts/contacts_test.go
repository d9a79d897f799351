package accounts_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/hubbub-chat/hubbub/internal/app/apptest"
	"github.com/hubbub-chat/hubbub/internal/config"
)

const (
	forRegister = "/register"
	forPassword = "/account/password"
	forAdd      = "/account/3pid"
	validate    = "/_hubbub/v1/email/validate"
)

func mailLogin(email, password string) object {
	return object{"type": "m.login.password", "password": password, "identifier": object{"type": "m.id.thirdparty", "medium": "email", "address": email}}
}

func registerBody(name string, auth object) object {
	return object{"username": name, "password": apptest.Password, "auth": auth}
}

// addresses returns what GET /account/3pid lists.
func addresses(t *testing.T, c *apptest.Client) (out []string) {
	t.Helper()
	for _, e := range c.Must(t, "GET", v3+"/account/3pid", nil)["threepids"].([]any) {
		if apptest.At(e, "medium") != "email" || apptest.At(e, "added_at") == 0.0 || apptest.At(e, "validated_at") == 0.0 {
			t.Errorf("entry %v", e)
		}
		out = append(out, apptest.At(e, "address").(string))
	}
	return out
}

func TestRegisterWithEmail(t *testing.T) {
	s, box := withMail(t)
	c := anonymous(t, s)
	if status, out := c.Do(t, "POST", v3+"/register", object{}); status != 401 || !strings.Contains(fmt.Sprint(out["flows"]), "m.login.email.identity") {
		t.Fatalf("flows %d %v", status, out)
	}
	sid := ask(t, c, forRegister, "s3cret", "Alice@Example.org", 1)
	mail := box.next(t)
	if mail.to != "alice@example.org" || !strings.Contains(mail.subject, apptest.Name) || !strings.Contains(mail.html, "href=") {
		t.Errorf("mail %+v", mail)
	}
	early := registerBody("alice", emailAuth(sid, "s3cret"))
	c.Fails(t, "POST", v3+"/register", early, 401, "M_FORBIDDEN")

	target, q := mail.link(t, s)
	if status, body, h := c.Raw(t, "GET", target, nil); status != 200 || !strings.Contains(string(body), "alice@example.org") || !strings.HasPrefix(h.Get("Content-Type"), "text/html") {
		t.Errorf("page %d %s %v", status, body, h)
	}
	c.Fails(t, "POST", v3+"/register", early, 401, "M_FORBIDDEN") // opening the page proves nothing
	if status, _ := press(t, c, q); status != 200 {
		t.Fatalf("confirm: %d", status)
	}
	if status, _ := press(t, c, q); status != 403 {
		t.Errorf("the link works a second time: %d", status)
	}
	c.Fails(t, "POST", v3+"/register", registerBody("alice", emailAuth(sid, "wrong")), 401, "M_FORBIDDEN")
	out := c.Must(t, "POST", v3+"/register", early)
	c.Fails(t, "POST", v3+"/register", registerBody("alice2", emailAuth(sid, "s3cret")), 401, "M_FORBIDDEN") // used up
	alice := *c
	alice.Token = out["access_token"].(string)
	if got := addresses(t, &alice); len(got) != 1 || got[0] != "alice@example.org" {
		t.Errorf("addresses %v", got)
	}
	if out := anonymous(t, s).Must(t, "POST", v3+"/login", mailLogin("ALICE@example.org", apptest.Password)); out["user_id"] != "@alice:"+apptest.Name {
		t.Errorf("login by address: %v", out)
	}
}

func TestEmailIsDemanded(t *testing.T) {
	s, box := withMail(t, func(c *config.Config) { c.Registration.RequireEmail = true })
	c := anonymous(t, s)
	c.Fails(t, "POST", v3+"/register", registerBody("alice", object{"type": "m.login.dummy"}), 401, "M_FORBIDDEN")
	sid := prove(t, c, box, forRegister, "s", "alice@example.org")
	c.Must(t, "POST", v3+"/register", registerBody("alice", emailAuth(sid, "s")))
}

// With a token for registration, an address is proved before it; the token alone
// is enough if no address is demanded.
func TestRegisterWithEmailAndToken(t *testing.T) {
	s, box := withMail(t, func(c *config.Config) {
		c.Registration.Mode, c.Registration.RequireEmail = config.RegistrationToken, true
	})
	c := anonymous(t, s)
	sid := prove(t, c, box, forRegister, "s", "alice@example.org")
	status, out := c.Do(t, "POST", v3+"/register", registerBody("alice", emailAuth(sid, "s")))
	if status != 401 || fmt.Sprint(out["completed"]) != "[m.login.email.identity]" {
		t.Errorf("after the address: %d %v", status, out)
	}
	c.Fails(t, "POST", v3+"/register", registerBody("alice", object{"type": "m.login.registration_token", "token": "x", "session": out["session"]}), 401, "M_FORBIDDEN")
}

// Whoever asks learns nothing about whether an address belongs to somebody.
func TestNoEnumeration(t *testing.T) {
	s, box := withMail(t)
	alice := s.User(t, "alice")
	add(t, alice, box, "alice@example.org")
	c := anonymous(t, s)
	ask(t, c, forPassword, "x", "nobody@example.org", 1)
	ask(t, c, forRegister, "x", "alice@example.org", 1)
	bob := s.User(t, "bob")
	ask(t, bob, forAdd, "x", "alice@example.org", 1)
	for range 2 { // only their owner hears of it, and has nothing to press
		if m := box.next(t); m.to != "alice@example.org" || strings.Contains(m.text, "http") || !strings.Contains(m.text, alice.UserID) {
			t.Errorf("mail %+v", m)
		}
	}
	// Mails leave in the order of the requests by two senders: one for a known address
	// comes after what nobody was to get.
	sid := ask(t, c, forPassword, "y", "alice@example.org", 1)
	if m := box.next(t); m.to != "alice@example.org" || !strings.Contains(m.text, "new password") {
		t.Errorf("mail %+v", m)
	}
	status, wrong := c.Do(t, "POST", v3+"/login", mailLogin("alice@example.org", "wrong"))
	status2, unknown := c.Do(t, "POST", v3+"/login", mailLogin("nobody@example.org", "wrong"))
	if status != 403 || status2 != 403 || wrong["error"] != unknown["error"] {
		t.Errorf("login: %d %v and %d %v", status, wrong, status2, unknown)
	}
	c.Fails(t, "POST", v3+"/account/password", object{"new_password": "another one, longer", "auth": emailAuth(sid, "y")}, 401, "M_FORBIDDEN")
	alice.Fails(t, "POST", v3+"/account/3pid/email/requestToken", object{"client_secret": "z", "email": "alice@example.org", "send_attempt": 1}, 400, "M_THREEPID_IN_USE")
}

func add(t *testing.T, c *apptest.Client, box *mailbox, email string) {
	t.Helper()
	sid := prove(t, c, box, forAdd, "add", email)
	c.Must(t, "POST", v3+"/account/3pid/add", object{"sid": sid, "client_secret": "add", "auth": passwordAuth(c)})
}

func TestAddAndDelete(t *testing.T) {
	s, box := withMail(t)
	alice, bob := s.User(t, "alice"), s.User(t, "bob")
	if caps := alice.Must(t, "GET", v3+"/capabilities", nil); apptest.At(caps, "capabilities", "m.3pid_changes", "enabled") != true {
		t.Errorf("capabilities %v", caps)
	}
	const path = v3 + "/account/3pid/add"
	sid := ask(t, alice, forAdd, "a", "a@example.org", 1)
	body := object{"sid": sid, "client_secret": "a"}
	if status, out := alice.Do(t, "POST", path, body); status != 401 || out["flows"] == nil {
		t.Errorf("without proof: %d %v", status, out)
	}
	body["auth"] = passwordAuth(alice)
	alice.Fails(t, "POST", path, body, 403, "M_THREEPID_AUTH_FAILED")
	_, q := box.next(t).link(t, s)
	press(t, alice, q)
	// The session is of who began it.
	bob.Fails(t, "POST", path, object{"sid": sid, "client_secret": "a", "auth": passwordAuth(bob)}, 403, "M_THREEPID_AUTH_FAILED")
	alice.Fails(t, "POST", path, object{"sid": sid, "client_secret": "b", "auth": passwordAuth(alice)}, 403, "M_THREEPID_AUTH_FAILED")
	alice.Must(t, "POST", path, body)
	alice.Fails(t, "POST", path, body, 403, "M_THREEPID_AUTH_FAILED")
	add(t, alice, box, "a2@example.org")
	if got := addresses(t, alice); len(got) != 2 {
		t.Errorf("addresses %v", got)
	}
	const del = v3 + "/account/3pid/delete"
	one := object{"medium": "email", "address": "A@example.org"}
	bob.Must(t, "POST", del, one) // not his: nothing happens
	if got := addresses(t, alice); len(got) != 2 {
		t.Errorf("another user removed an address: %v", got)
	}
	for range 2 {
		if out := alice.Must(t, "POST", del, one); out["id_server_unbind_result"] != "no-support" {
			t.Errorf("answer %v", out)
		}
	}
	if got := addresses(t, alice); len(got) != 1 || got[0] != "a2@example.org" {
		t.Errorf("addresses %v", got)
	}
	detail := s.Admin(t, "root").Must(t, "GET", "/_synapse/admin/v2/users/"+esc(alice.UserID), nil)
	if got := detail["threepids"].([]any); len(got) != 1 || apptest.At(got[0], "address") != "a2@example.org" {
		t.Errorf("an administrator sees the addresses %v", got)
	}
	add(t, bob, box, "a@example.org") // it is free again
	anonymous(t, s).Fails(t, "POST", v3+"/login", mailLogin("a@example.org", "wrong"), 403, "M_FORBIDDEN")
	if out := anonymous(t, s).Must(t, "POST", v3+"/login", mailLogin("a@example.org", apptest.Password)); out["user_id"] != bob.UserID {
		t.Errorf("login %v", out)
	}
}

// One address, many who have proved it: one account gets it.
func TestAddressRace(t *testing.T) {
	s, box := withMail(t)
	const n = 8
	users, sids := make([]*apptest.Client, n), make([]string, n)
	for i := range users {
		users[i] = s.User(t, fmt.Sprint("u", i))
		sids[i] = prove(t, users[i], box, forAdd, "s", "shared@example.org")
	}
	won := make([]bool, n)
	var wg sync.WaitGroup
	for i, c := range users {
		wg.Go(func() {
			status, out := c.Do(t, "POST", v3+"/account/3pid/add", object{"sid": sids[i], "client_secret": "s", "auth": passwordAuth(c)})
			won[i] = status == 200
			if status != 200 && out["errcode"] != "M_THREEPID_IN_USE" {
				t.Errorf("got %d %v", status, out)
			}
		})
	}
	wg.Wait()
	owners := 0
	for i, c := range users {
		if got := addresses(t, c); won[i] != (len(got) == 1) {
			t.Errorf("user %d: won %v, addresses %v", i, won[i], got)
		}
		if won[i] {
			owners++
		}
	}
	if owners != 1 {
		t.Errorf("%d owners", owners)
	}
}

func TestResetPassword(t *testing.T) {
	s, box := withMail(t)
	alice := s.User(t, "alice")
	add(t, alice, box, "alice@example.org")
	c := anonymous(t, s)
	const path, newer = v3 + "/account/password", "a new and longer one"
	if status, out := c.Do(t, "POST", path, object{"new_password": newer}); status != 401 || !strings.Contains(fmt.Sprint(out["flows"]), "m.login.email.identity") {
		t.Errorf("flows %d %v", status, out)
	}
	// What proves an address for one thing does not for another.
	other := prove(t, c, box, forRegister, "s", "new@example.org")
	c.Fails(t, "POST", path, object{"new_password": newer, "auth": emailAuth(other, "s")}, 401, "M_FORBIDDEN")
	sid := prove(t, c, box, forPassword, "s", "alice@example.org")
	body := object{"new_password": newer, "auth": emailAuth(sid, "s")}
	c.Fails(t, "POST", path, object{"new_password": "", "auth": body["auth"]}, 400, "M_WEAK_PASSWORD")
	waiting := poll(t, alice)
	c.Must(t, "POST", path, body)
	c.Fails(t, "POST", path, body, 401, "M_FORBIDDEN")
	if out := answer(t, waiting); out["errcode"] != "M_UNKNOWN_TOKEN" {
		t.Errorf("the sessions of before: %v", out)
	}
	c.Fails(t, "POST", v3+"/login", mailLogin("alice@example.org", apptest.Password), 403, "M_FORBIDDEN")
	c.Must(t, "POST", v3+"/login", mailLogin("alice@example.org", newer))

	n := *alice
	n.Token = c.Must(t, "POST", v3+"/login", mailLogin("alice@example.org", newer))["access_token"].(string)
	sid = prove(t, c, box, forPassword, "t", "alice@example.org")
	c.Must(t, "POST", path, object{"new_password": newer + "!", "logout_devices": false, "auth": emailAuth(sid, "t")})
	n.Must(t, "GET", whoami, nil)
}

// The one who used the link first wins, however many try.
func TestResetRace(t *testing.T) {
	s, box := withMail(t)
	alice := s.User(t, "alice")
	add(t, alice, box, "alice@example.org")
	sid := prove(t, anonymous(t, s), box, forPassword, "s", "alice@example.org")
	var wg sync.WaitGroup
	won := make([]bool, 8)
	for i := range won {
		c := anonymous(t, s)
		wg.Go(func() {
			status, _ := c.Do(t, "POST", v3+"/account/password", object{"new_password": fmt.Sprint("new password ", i), "auth": emailAuth(sid, "s")})
			won[i] = status == 200
		})
	}
	wg.Wait()
	n := 0
	for _, w := range won {
		if w {
			n++
		}
	}
	if n != 1 {
		t.Errorf("%d of 8 set a password with one link", n)
	}
}

// send_attempt has a mail sent again; the newest link is the one that works.
func TestSendAttempt(t *testing.T) {
	s, box := withMail(t)
	c := anonymous(t, s)
	first := ask(t, c, forRegister, "s", "a@example.org", 1)
	old := box.next(t)
	for _, attempt := range []int{1, 0} {
		if sid := ask(t, c, forRegister, "s", "a@example.org", attempt); sid != first {
			t.Errorf("attempt %d is another session", attempt)
		}
	}
	if sid := ask(t, c, forRegister, "s", "a@example.org", 2); sid != first {
		t.Error("a second attempt is another session")
	}
	newer := box.next(t)
	if sid := ask(t, c, forRegister, "other", "a@example.org", 1); sid == first {
		t.Error("another client has the same session")
	}
	box.next(t)
	if len(box.got) != 0 {
		t.Error("mails were sent for old attempts")
	}
	_, q := old.link(t, s)
	if status, _ := press(t, c, q); status != 403 {
		t.Errorf("the old link: %d", status)
	}
	_, q = newer.link(t, s)
	if status, _ := press(t, c, q); status != 200 {
		t.Errorf("the new link: %d", status)
	}
}

// Guesses end a link; nothing that is sent in a link comes back as HTML.
func TestLinkPage(t *testing.T) {
	s, box := withMail(t)
	c := anonymous(t, s)
	ask(t, c, forRegister, "s", "a@example.org", 1)
	target, q := box.next(t).link(t, s)
	_, body, h := c.Raw(t, "GET", target, nil)
	csp := h.Get("Content-Security-Policy")
	for _, want := range []string{"default-src 'none'", "frame-ancestors 'none'", "form-action 'self'", "base-uri 'none'"} {
		if !strings.Contains(csp, want) {
			t.Errorf("policy %q lacks %s", csp, want)
		}
	}
	if strings.Contains(csp, "unsafe") || h.Get("Referrer-Policy") != "no-referrer" || h.Get("Cache-Control") != "no-store" || h.Get("X-Frame-Options") != "DENY" {
		t.Errorf("headers %v", h)
	}
	if strings.Contains(string(body), "<script") {
		t.Errorf("page %s", body)
	}
	const evil = `"><svg onload=alert(1)>`
	for _, path := range []string{
		validate, validate + "?sid=" + esc(evil) + "&token=" + esc(evil), target + "&x=" + esc(evil), target + esc(evil),
		validate + "?sid=" + esc(strings.Repeat("s", 5000)),
	} {
		status, body, _ := c.Raw(t, "GET", path, nil)
		if status >= 500 || strings.Contains(string(body), "<svg") {
			t.Errorf("%s: %d %s", path, status, body)
		}
	}
	wrong := map[string][]string{"sid": q["sid"], "token": {"x"}}
	for range 5 {
		if status, body := press(t, c, wrong); status != 403 || strings.Contains(body, "example.org") {
			t.Errorf("wrong token: %d %s", status, body)
		}
	}
	if status, _ := press(t, c, q); status != 403 {
		t.Errorf("after five guesses the link still works: %d", status)
	}
	if status, _, _ := c.Raw(t, "POST", validate, strings.Repeat("x", 10_000)); status != 413 {
		t.Errorf("a large body: %d", status)
	}
}

func TestNextLink(t *testing.T) {
	s, box := withMail(t)
	c := anonymous(t, s)
	for i, tt := range []struct {
		link string
		ok   bool
	}{
		{"https://app.example/room/welcome?x=1", true},
		{s.URL + "/#/login", true},
		{"https://app.example/roommate", false},
		{"https://app.example.evil/room", false},
		{"https://app.example/room/../evil", false},
		{"https://app.example@evil.example/room", false},
		{`https://app.example\@evil.example/room`, false},
		{"javascript:alert(1)//https://app.example/room", false},
		{"//app.example/room", false},
		{"http://app.example/room", false},
	} {
		email := fmt.Sprintf("a%d@example.org", i)
		c.Must(t, "POST", v3+"/register/email/requestToken", object{"client_secret": "s", "email": email, "send_attempt": 1, "next_link": tt.link})
		_, q := box.next(t).link(t, s)
		status, body := press(t, c, q)
		if status != 200 || strings.Contains(body, "<a ") != tt.ok {
			t.Errorf("next_link %s: %d %s", tt.link, status, body)
		}
	}
}

// A client that was told the token by its user can hand it in itself.
func TestSubmitToken(t *testing.T) {
	s, box := withMail(t)
	c := anonymous(t, s)
	sid := ask(t, c, forRegister, "s", "a@example.org", 1)
	_, q := box.next(t).link(t, s)
	body := object{"sid": sid, "client_secret": "s", "token": q.Get("token")}
	for _, name := range []string{"sid", "client_secret", "token"} {
		less := object{}
		for k, v := range body {
			if k != name {
				less[k] = v
			}
		}
		c.Fails(t, "POST", validate, less, 400, "M_MISSING_PARAM")
	}
	c.Fails(t, "POST", validate, object{"sid": sid, "client_secret": "x", "token": q.Get("token")}, 403, "M_THREEPID_AUTH_FAILED")
	c.Fails(t, "POST", validate, "[]", 400, "M_BAD_JSON")
	if out := c.Must(t, "POST", validate, body); out["success"] != true {
		t.Errorf("answer %v", out)
	}
	c.Fails(t, "POST", validate, body, 403, "M_THREEPID_AUTH_FAILED")
}

func TestBadEmailRequests(t *testing.T) {
	s, box := withMail(t)
	c, alice := anonymous(t, s), s.User(t, "alice")
	for _, path := range []string{forRegister, forPassword, forAdd} {
		target := v3 + path + "/email/requestToken"
		good := func(name string, v any) object {
			b := object{"client_secret": "s", "email": "a@example.org", "send_attempt": 1}
			if v == nil {
				delete(b, name)
			} else {
				b[name] = v
			}
			return b
		}
		for _, tt := range []struct {
			body object
			code string
		}{
			{good("email", nil), "M_MISSING_PARAM"},
			{good("client_secret", nil), "M_MISSING_PARAM"},
			{good("send_attempt", nil), "M_MISSING_PARAM"},
			{good("email", 5), "M_BAD_JSON"},
			{good("send_attempt", "one"), "M_BAD_JSON"},
			{good("email", "nobody"), "M_INVALID_PARAM"},
			{good("email", "a@b.example\r\nBcc: c@d.example"), "M_INVALID_PARAM"},
			{good("email", "a@b.example, c@d.example"), "M_INVALID_PARAM"},
			{good("email", "a@"+strings.Repeat("x", 400)+".example"), "M_INVALID_PARAM"},
			{good("client_secret", "no spaces"), "M_INVALID_PARAM"},
			{good("client_secret", strings.Repeat("s", 300)), "M_INVALID_PARAM"},
			{good("next_link", "https://a.example/"+strings.Repeat("s", 3000)), "M_INVALID_PARAM"},
		} {
			alice.Fails(t, "POST", target, tt.body, 400, tt.code)
		}
	}
	for _, path := range []string{forRegister, forPassword, forAdd} {
		alice.Fails(t, "POST", v3+path+"/msisdn/requestToken", object{"client_secret": "s", "country": "DE", "phone_number": "1", "send_attempt": 1}, 400, "M_THREEPID_MEDIUM_NOT_SUPPORTED")
	}
	c.Fails(t, "POST", v3+"/account/3pid/email/requestToken", object{}, 401, "M_MISSING_TOKEN")
	c.Fails(t, "GET", v3+"/account/3pid", nil, 401, "M_MISSING_TOKEN")
	for _, path := range []string{"/add", "/delete"} {
		c.Fails(t, "POST", v3+"/account/3pid"+path, object{}, 401, "M_MISSING_TOKEN")
		alice.Fails(t, "POST", v3+"/account/3pid"+path, object{}, 400, "M_MISSING_PARAM")
	}
	alice.Fails(t, "POST", v3+"/register", registerBody("x", object{"type": "m.login.email.identity"}), 400, "M_MISSING_PARAM")
	alice.Fails(t, "POST", v3+"/register", registerBody("x", object{"type": "m.login.email.identity", "threepid_creds": "x"}), 400, "M_BAD_JSON")
	if len(box.got) != 0 {
		t.Error("mail was sent")
	}
}

func TestMailIsLimited(t *testing.T) {
	s, box := withMail(t, func(c *config.Config) { c.Limits.NoRateLimits = false })
	c := anonymous(t, s)
	for i := range 3 {
		ask(t, c, forRegister, fmt.Sprint("s", i), "a@example.org", 1)
		box.next(t)
	}
	c.Fails(t, "POST", v3+"/register/email/requestToken", object{"client_secret": "s9", "email": "A@example.org", "send_attempt": 1}, http.StatusTooManyRequests, "M_LIMIT_EXCEEDED")
	ask(t, c, forRegister, "s", "b@example.org", 1)
}

func TestWithoutMail(t *testing.T) {
	s := apptest.Start(t)
	alice := s.User(t, "alice")
	for _, path := range []string{forRegister, forPassword, forAdd} {
		alice.Fails(t, "POST", v3+path+"/email/requestToken", object{"client_secret": "s", "email": "a@example.org", "send_attempt": 1}, 400, "M_THREEPID_MEDIUM_NOT_SUPPORTED")
	}
	anonymous(t, s).Fails(t, "POST", v3+"/account/password", object{"new_password": "x"}, 401, "M_MISSING_TOKEN")
	if got := addresses(t, alice); len(got) != 0 {
		t.Errorf("addresses %v", got)
	}
	alice.Fails(t, "POST", v3+"/account/3pid/add", object{"sid": "x", "client_secret": "y", "auth": passwordAuth(alice)}, 400, "M_THREEPID_MEDIUM_NOT_SUPPORTED")
}
