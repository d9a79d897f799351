package sso_test

import (
	"fmt"
	"html"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/go-jose/go-jose/v4"
	"go.uber.org/goleak"

	"github.com/hubbub-chat/hubbub/internal/app/apptest"
	"github.com/hubbub-chat/hubbub/internal/config"
)

func TestMain(m *testing.M) {
	// The client that talks to providers keeps connections for the next sign-in.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("net/http.(*persistConn).readLoop"), goleak.IgnoreAnyFunction("net/http.(*persistConn).writeLoop"))
}

type object = map[string]any

const (
	v3  = "/_matrix/client/v3"
	app = "https://app.example/#/welcome"
)

// browser keeps cookies and follows redirects only when told.
type browser struct {
	*http.Client
	t *testing.T
}

func newBrowser(t *testing.T) *browser {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	b := &browser{t: t, Client: &http.Client{
		Jar: jar, Transport: &http.Transport{DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	return b
}

// page is what a browser was answered.
type page struct {
	status   int
	location string
	body     string
	header   http.Header
}

func (b *browser) open(target string) page {
	b.t.Helper()
	resp, err := b.Get(target)
	if err != nil {
		b.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	return page{resp.StatusCode, resp.Header.Get("Location"), string(body), resp.Header}
}

// follow opens a target and goes where it leads, n times.
func (b *browser) follow(target string, n int) page {
	b.t.Helper()
	p := b.open(target)
	for range n {
		if p.status != http.StatusFound {
			b.t.Fatalf("%s leads nowhere: %d %s", target, p.status, p.body)
		}
		target = p.location
		p = b.open(target)
	}
	return p
}

func begin(s *apptest.Server, id, redirect string) string {
	target := s.URL + v3 + "/login/sso/redirect"
	if id != "" {
		target += "/" + id
	}
	return target + "?" + url.Values{"redirectUrl": {redirect}}.Encode()
}

var link = regexp.MustCompile(`href="([^"]*)"`)

// token returns the login token of the link on a page, or of where it leads.
func (p page) token(t *testing.T) string {
	t.Helper()
	target := p.location
	if m := link.FindStringSubmatch(p.body); target == "" && m != nil {
		target = html.UnescapeString(m[1])
	}
	u, err := url.Parse(target)
	if err != nil || u.Query().Get("loginToken") == "" {
		t.Fatalf("no login token: %d %s %s", p.status, p.location, p.body)
	}
	return u.Query().Get("loginToken")
}

func (s *site) signIn(t *testing.T) object {
	t.Helper()
	p := newBrowser(t).follow(begin(s.Server, "work", app), 2)
	return s.client(t).Must(t, "POST", v3+"/login", object{"type": "m.login.token", "token": p.token(t)})
}

type site struct {
	*apptest.Server
	idp *issuer
}

func (s *site) client(t *testing.T) *apptest.Client {
	c := s.Anonymous()
	t.Cleanup(c.HTTP.CloseIdleConnections)
	return c
}

func newSite(t *testing.T, more map[string]any, changes ...func(*config.Config)) *site {
	t.Helper()
	idp := newIssuer(t)
	file := idp.file(t, "work", more)
	changes = append(changes, func(c *config.Config) { c.SSO.ProviderFiles = append(c.SSO.ProviderFiles, file) })
	s := &site{apptest.Start(t, changes...), idp}
	idp.serve(s.Server, "work")
	return s
}

func TestSignIn(t *testing.T) {
	s := newSite(t, nil)
	c := s.client(t)
	if flows := c.Must(t, "GET", v3+"/login", nil)["flows"].([]any); apptest.At(flows[2], "type") != "m.login.sso" ||
		apptest.At(apptest.At(flows[2], "identity_providers").([]any)[0], "id") != "work" || strings.Contains(fmt.Sprint(flows), clientSecret) {
		t.Errorf("flows %v", flows)
	}
	s.idp.person(object{"sub": "1", "preferred_username": "Alice@work.example", "name": "Alice A."})
	b := newBrowser(t)
	p := b.open(begin(s.Server, "", app)) // there is one provider: no choice
	cookie := p.header.Get("Set-Cookie")
	if p.status != 302 || !strings.HasPrefix(p.location, s.idp.URL+"/authorize?") ||
		!strings.Contains(cookie, "HttpOnly") || !strings.Contains(cookie, "SameSite=Lax") || !strings.Contains(cookie, "Path=/_hubbub/v1/sso/callback/") {
		t.Fatalf("begin: %d %s %s", p.status, p.location, cookie)
	}
	p = b.follow(p.location, 1)
	if p.status != 200 || !strings.Contains(p.body, "https://app.example.") || !strings.Contains(p.body, "@alice:"+apptest.Name) {
		t.Fatalf("confirmation: %d %s", p.status, p.body)
	}
	token := p.token(t)
	out := c.Must(t, "POST", v3+"/login", object{"type": "m.login.token", "token": token})
	if out["user_id"] != "@alice:"+apptest.Name {
		t.Errorf("login %v", out)
	}
	c.Fails(t, "POST", v3+"/login", object{"type": "m.login.token", "token": token}, 403, "M_FORBIDDEN")
	alice := *c
	alice.Token = out["access_token"].(string)
	if got := alice.Must(t, "GET", v3+"/profile/@alice:"+apptest.Name+"/displayname", nil); got["displayname"] != "Alice A." {
		t.Errorf("profile %v", got)
	}
	if got := alice.Must(t, "GET", v3+"/account/3pid", nil)["threepids"].([]any); len(got) != 0 {
		t.Errorf("addresses %v", got)
	}
	detail := s.Admin(t, "root").Must(t, "GET", "/_synapse/admin/v2/users/@alice:"+apptest.Name, nil)
	if got := fmt.Sprint(detail["external_ids"], detail["threepids"]); got != "[map[auth_provider:work external_id:1]] []" {
		t.Errorf("an administrator sees %s", got)
	}
	// The same person under another name, and another person under the same name.
	s.idp.person(object{"sub": "1", "preferred_username": "renamed"})
	if out := s.signIn(t); out["user_id"] != "@alice:"+apptest.Name {
		t.Errorf("the same person: %v", out)
	}
	s.idp.person(object{"sub": "2", "preferred_username": "alice"})
	if out := s.signIn(t); out["user_id"] != "@alice2:"+apptest.Name {
		t.Errorf("another person: %v", out)
	}
	for i, name := range []any{"", "../..", "_service", "ünï", 5, nil} {
		s.idp.person(object{"sub": fmt.Sprint("x", i), "preferred_username": name})
		if out := s.signIn(t); !strings.HasPrefix(out["user_id"].(string), "@user-") && out["user_id"] != "@n:"+apptest.Name {
			t.Errorf("wish %v: %v", name, out["user_id"])
		}
	}
}

// An account that was made otherwise is nobody's by name.
func TestNoTakeOver(t *testing.T) {
	s := newSite(t, nil)
	s.User(t, "admin")
	s.idp.person(object{"sub": "evil", "preferred_username": "admin"})
	if out := s.signIn(t); out["user_id"] != "@admin2:"+apptest.Name {
		t.Errorf("signed in as %v", out["user_id"])
	}
}

// Many first sign-ins of one person at once make one account.
func TestFirstSignInRace(t *testing.T) {
	s := newSite(t, nil)
	s.idp.person(object{"sub": "1", "preferred_username": "alice"})
	var wg sync.WaitGroup
	pages := make([]page, 8)
	for i := range pages {
		b := newBrowser(t)
		wg.Go(func() { pages[i] = b.follow(begin(s.Server, "work", app), 2) })
	}
	wg.Wait()
	signed := 0
	for _, p := range pages {
		if p.status == 503 {
			continue // told to try again
		}
		out := s.client(t).Must(t, "POST", v3+"/login", object{"type": "m.login.token", "token": p.token(t)})
		if out["user_id"] != "@alice:"+apptest.Name {
			t.Errorf("signed in as %v", out["user_id"])
		}
		signed++
	}
	if signed == 0 {
		t.Error("nobody is signed in")
	}
	if out := s.signIn(t); out["user_id"] != "@alice:"+apptest.Name {
		t.Errorf("later: %v", out)
	}
}

func TestRedirects(t *testing.T) {
	s := newSite(t, nil, func(c *config.Config) { c.SSO.Redirects = []string{"https://app.example/chat", "io.example.app:/cb"} })
	s.idp.person(object{"sub": "1", "preferred_username": "alice"})
	for target, direct := range map[string]bool{
		"https://app.example/chat/x?y=1":        true,
		"io.example.app:/cb":                    true,
		s.URL + "/#/login":                      true,
		"https://app.example/chatter":           false,
		"https://app.example.evil.example/x":    false,
		"https://app.example/chat/../evil":      false,
		"io.evil.app:/cb":                       false,
		"http://app.example/chat":               false,
		"https://app.example:444/chat":          false,
		"https://xn--pp-eia.example/chat?a=%22": false,
	} {
		p := newBrowser(t).follow(begin(s.Server, "work", target), 2)
		if direct && (p.status != 302 || !strings.Contains(p.location, "loginToken=")) || !direct && (p.status != 200 || p.location != "") {
			t.Errorf("%s: %d %s", target, p.status, p.location)
		}
		p.token(t)
	}
	b := newBrowser(t)
	for _, target := range []string{
		"", "javascript:alert(1)", "JavaScript:alert(1)", "data:text/html,x", "//evil.example", "/path", `https:\\evil.example`,
		`https://app.example\@evil.example/`, "https://app.example@evil.example/", "https:///x", "https:evil.example", "http://a b/", "vbscript:x", "blob:x",
		"https://app.example/\nx", "https://a.example/" + strings.Repeat("x", 3000),
	} {
		if p := b.open(begin(s.Server, "work", target)); p.status != 400 {
			t.Errorf("%q: %d %s", target, p.status, p.location)
		}
	}
	if p := b.open(begin(s.Server, "other", app)); p.status != 404 {
		t.Errorf("an unknown provider: %d", p.status)
	}
}

func TestChoice(t *testing.T) {
	second := newIssuer(t)
	file := second.file(t, "home", map[string]any{"name": `<svg onload=alert(1)>`})
	s := newSite(t, nil, func(c *config.Config) { c.SSO.ProviderFiles = []string{file} })
	second.serve(s.Server, "home")
	second.person(object{"sub": "1", "preferred_username": "alice"})
	b := newBrowser(t)
	p := b.open(begin(s.Server, "", `https://app.example/?"><svg onload=alert(1)>`[:21]))
	links := link.FindAllStringSubmatch(p.body, -1)
	if p.status != 200 || len(links) != 2 || strings.Contains(p.body, "<svg") {
		t.Fatalf("choice: %d %s", p.status, p.body)
	}
	csp := p.header.Get("Content-Security-Policy")
	if !strings.Contains(csp, "default-src 'none'") || !strings.Contains(csp, "frame-ancestors 'none'") || strings.Contains(csp, "unsafe") {
		t.Errorf("policy %q", csp)
	}
	p = b.follow(s.URL+html.UnescapeString(links[0][1]), 2)
	p.token(t)
	// The same subject at another provider is another person.
	s.idp.person(object{"sub": "1", "preferred_username": "alice"})
	if out := s.signIn(t); out["user_id"] != "@alice2:"+apptest.Name {
		t.Errorf("signed in as %v", out["user_id"])
	}
}

func TestExistingOnly(t *testing.T) {
	s := newSite(t, object{"existing_only": true})
	s.idp.person(object{"sub": "1", "preferred_username": "alice"})
	if p := newBrowser(t).follow(begin(s.Server, "work", app), 2); p.status != 403 || strings.Contains(p.body, "loginToken") {
		t.Errorf("a stranger: %d %s", p.status, p.body)
	}
}

// The callback gives nothing to whoever did not begin the flow in this browser.
func TestCallbackIsBound(t *testing.T) {
	s := newSite(t, nil)
	s.idp.person(object{"sub": "1", "preferred_username": "alice"})
	refused := func(name string, p page) {
		t.Helper()
		if p.status < 400 || p.status >= 500 || strings.Contains(p.body+p.location, "loginToken") || strings.Contains(p.body, "<svg") {
			t.Errorf("%s: %d %s %s", name, p.status, p.location, p.body)
		}
	}
	attacker, victim := newBrowser(t), newBrowser(t)
	back := attacker.follow(begin(s.Server, "work", app), 1).location
	refused("the link of somebody else", victim.open(back))
	u, err := url.Parse(back)
	if err != nil {
		t.Fatal(err)
	}
	with := func(change func(url.Values)) string {
		c := *u
		q := c.Query()
		change(q)
		c.RawQuery = q.Encode()
		return c.String()
	}
	// The victim's own flow with the attacker's code: PKCE and the nonce.
	own, err := url.Parse(victim.follow(begin(s.Server, "work", app), 1).location)
	if err != nil {
		t.Fatal(err)
	}
	refused("the code of somebody else", victim.open(with(func(q url.Values) { q.Set("state", own.Query().Get("state")) })))
	for name, target := range map[string]string{
		"no state":       with(func(q url.Values) { q.Del("state") }),
		"made-up state":  with(func(q url.Values) { q.Set("state", `"><svg onload=alert(1)>`) }),
		"changed state":  with(func(q url.Values) { st := []byte(q.Get("state")); st[20] ^= 1; q.Set("state", string(st)) }),
		"no code":        with(func(q url.Values) { q.Del("code") }),
		"made-up code":   with(func(q url.Values) { q.Set("code", "x") }),
		"another issuer": with(func(q url.Values) { q.Set("iss", "https://evil.example") }),
		"error":          with(func(q url.Values) { q.Del("code"); q.Set("error", `"><svg onload=alert(1)>`) }),
	} {
		n := newBrowser(t)
		n.Jar.SetCookies(u, attacker.Jar.Cookies(u))
		refused(name, n.open(target))
	}
	refused("another provider", attacker.open(strings.Replace(back, "/callback/work", "/callback/home", 1)))
	attacker = newBrowser(t)
	back = attacker.follow(begin(s.Server, "work", app), 1).location
	attacker.open(back).token(t)
	refused("the code a second time", attacker.open(back))
}

// A statement that the provider did not make about this flow is worth nothing.
func TestStatements(t *testing.T) {
	s := newSite(t, nil)
	s.idp.person(object{"sub": "1", "preferred_username": "alice"})
	set := func(name string, v any) func(*statement) { return func(st *statement) { st.claims[name] = v } }
	stranger := newIssuer(t)
	for name, spoil := range map[string]func(*statement){
		"nonce of another flow": set("nonce", "x"),
		"no nonce":              func(st *statement) { delete(st.claims, "nonce") },
		"another audience":      set("aud", "other"),
		"another issuer":        set("iss", "https://evil.example"),
		"expired":               set("exp", 1_000_000_000),
		"no subject":            func(st *statement) { delete(st.claims, "sub") },
		"no signature":          func(st *statement) { st.none = true },
		"key as a secret":       func(st *statement) { st.alg, st.key = jose.HS256, s.idp.publicKey() },
		"another key":           func(st *statement) { st.key = stranger.key },
	} {
		s.idp.spoiled(spoil)
		p := newBrowser(t).follow(begin(s.Server, "work", app), 2)
		if p.status != 403 || strings.Contains(p.body, "loginToken") {
			t.Errorf("%s: %d %s", name, p.status, p.body)
		}
	}
	s.idp.spoiled(nil)
	s.signIn(t)
}

func TestProviderAway(t *testing.T) {
	s := newSite(t, nil)
	s.idp.Close()
	if p := newBrowser(t).open(begin(s.Server, "work", app)); p.status != 503 {
		t.Errorf("got %d %s", p.status, p.body)
	}
}

func TestWithoutProviders(t *testing.T) {
	s := &site{Server: apptest.Start(t)}
	c := s.client(t)
	c.Fails(t, "GET", v3+"/login/sso/redirect?redirectUrl=https://app.example", nil, 404, "M_UNRECOGNIZED")
	if p := newBrowser(t).open(s.URL + "/_hubbub/v1/sso/callback/work?state=x&code=y"); p.status != 403 {
		t.Errorf("callback: %d", p.status)
	}
}

// Whoever is called elsewhere as a bridge calls its users here gets another name.
func TestReservedNames(t *testing.T) {
	file := filepath.Join(t.TempDir(), "irc.yaml")
	registration := "id: irc\nurl: null\nas_token: a-long-token\nhs_token: another-token\nsender_localpart: ircbot\nnamespaces: {users: [{exclusive: true, regex: '@irc_.*'}]}\n"
	if err := os.WriteFile(file, []byte(registration), 0o600); err != nil {
		t.Fatal(err)
	}
	s := newSite(t, nil, func(c *config.Config) { c.Server.AppserviceFiles = []string{file} })
	s.idp.person(object{"sub": "1", "preferred_username": "irc_freddy"})
	if out := s.signIn(t); !strings.HasPrefix(out["user_id"].(string), "@user-") {
		t.Errorf("signed in as %v", out["user_id"])
	}
}
