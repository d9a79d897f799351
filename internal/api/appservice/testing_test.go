package appservice_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/hubbub-chat/hubbub/internal/app/apptest"
	"github.com/hubbub-chat/hubbub/internal/config"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type object = apptest.Object

const v3 = "/_matrix/client/v3"

// patience bounds the wait for what must come.
const patience = 20 * time.Second

// request is what a bridge was asked.
type request struct {
	method, path string
	query        url.Values
	body         object
	raw          string
	status       int // of the answer to a transaction
}

// bridge is an application service: a server that notes what it is asked, and
// what it does about it.
type bridge struct {
	t      *testing.T
	url    string
	id     string
	server *apptest.Server
	// requests are all but the transactions, which are apart: they come when they
	// like.
	requests, transactions chan request
	// taken are the transactions that the test has looked at and that were answered
	// with 200.
	taken map[string]bool

	mu struct {
		sync.Mutex
		answer func(request) (int, any)
		// take says what a transaction is answered with.
		take func(request) int
	}
}

const hsToken = "hs-token-of-the-bridge"

// newBridge starts a bridge, for id irc of users @_irc_.* and aliases #_irc_.*.
func newBridge(t *testing.T, id string) *bridge {
	t.Helper()
	b := &bridge{t: t, id: id, requests: make(chan request, 10_000), transactions: make(chan request, 10_000), taken: make(map[string]bool)}
	b.mu.take = func(request) int { return 200 }
	b.mu.answer = func(request) (int, any) { return 404, object{"errcode": "M_NOT_FOUND"} }
	srv := httptest.NewServer(http.HandlerFunc(b.serve))
	t.Cleanup(srv.Close)
	b.url = srv.URL
	return b
}

func (b *bridge) serve(w http.ResponseWriter, r *http.Request) {
	raw, err := io.ReadAll(r.Body)
	if err != nil {
		b.t.Errorf("%s %s: %v", r.Method, r.URL, err)
	}
	if r.Header.Get("Authorization") != "Bearer "+hsToken || r.URL.Query().Has("access_token") {
		b.t.Errorf("%s %s: authorized by %q", r.Method, r.URL, r.Header.Get("Authorization"))
	}
	req := request{method: r.Method, path: r.URL.Path, query: r.URL.Query(), raw: string(raw)}
	if len(raw) > 0 && json.Unmarshal(raw, &req.body) != nil {
		b.t.Errorf("%s %s: body %s", r.Method, r.URL, raw)
	}
	status, body := b.decide(req)
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	if text, ok := body.(string); ok {
		_, err = io.WriteString(w, text)
	} else {
		err = json.NewEncoder(w).Encode(body)
	}
	if err != nil {
		b.t.Logf("answer %s %s: %v", r.Method, r.URL, err)
	}
}

// transactionPath is the path of transactions before their ID.
const transactionPath = "/_matrix/app/v1/transactions/"

func (b *bridge) decide(req request) (int, any) {
	b.mu.Lock()
	answer, take := b.mu.answer, b.mu.take
	b.mu.Unlock()
	if req.method == "PUT" && strings.HasPrefix(req.path, transactionPath) {
		req.status = take(req)
		b.transactions <- req
		return req.status, object{}
	}
	status, body := answer(req)
	b.requests <- req
	return status, body
}

// takes says what transactions are answered with from now on.
func (b *bridge) takes(fn func(request) int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.mu.take = fn
}

// transaction returns the next transaction.
func (b *bridge) transaction() request {
	b.t.Helper()
	select {
	case r := <-b.transactions:
		if r.status == 200 && b.taken[r.path] {
			// The server ended before it had the answer. A service knows it by its ID.
			return b.transaction()
		}
		b.taken[r.path] = r.status == 200
		return r
	case <-time.After(patience):
		b.t.Fatal("no transaction came")
	}
	return request{}
}

// until collects the events of transactions until one of them is last.
func (b *bridge) until(last string) []object {
	b.t.Helper()
	var out []object
	for {
		for _, e := range list(b.transaction().body, "events") {
			out = append(out, e)
			if e["event_id"] == last {
				return out
			}
		}
	}
}

// find returns the first entry of a list of transactions that match accepts.
func (b *bridge) find(name string, match func(object) bool) object {
	b.t.Helper()
	for {
		for _, e := range list(b.transaction().body, name) {
			if match(e) {
				return e
			}
		}
	}
}

// list is a member that is a list of objects.
func list(o object, name string) []object {
	var out []object
	entries, _ := o[name].([]any)
	for _, e := range entries {
		out = append(out, e.(object))
	}
	return out
}

// answers says what the bridge answers from now on.
func (b *bridge) answers(fn func(request) (int, any)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.mu.answer = fn
}

// always answers everything alike.
func always(status int, body any) func(request) (int, any) {
	return func(request) (int, any) { return status, body }
}

// next returns the next request.
func (b *bridge) next() request {
	b.t.Helper()
	select {
	case r := <-b.requests:
		return r
	case <-time.After(patience):
		b.t.Fatal("the bridge was not asked")
	}
	return request{}
}

// unasked reports a request that was not to come.
func (b *bridge) unasked() {
	b.t.Helper()
	select {
	case r := <-b.requests:
		b.t.Errorf("the bridge was asked: %+v", r)
	default:
	}
}

func (b *bridge) token() string { return "as-token-of-" + b.id }

// file writes the registration, with lines added or, where the key is there,
// replaced.
func (b *bridge) file(lines ...string) string {
	b.t.Helper()
	text := map[string]string{
		"id": b.id, "url": b.url, "as_token": b.token(), "hs_token": hsToken, "sender_localpart": b.id + "bot",
		"namespaces": `{users: [{exclusive: true, regex: "@_` + b.id + `_.*"}], aliases: [{exclusive: true, regex: "#_` + b.id + `_.*"}], rooms: []}`,
		"protocols":  "[" + b.id + "]",
	}
	for _, line := range lines {
		key, value, _ := strings.Cut(line, ": ")
		text[key] = value
	}
	var out strings.Builder
	for key, value := range text {
		out.WriteString(key + ": " + value + "\n")
	}
	file := filepath.Join(b.t.TempDir(), b.id+".yaml")
	if err := os.WriteFile(file, []byte(out.String()), 0o600); err != nil {
		b.t.Fatal(err)
	}
	return file
}

// with registers files.
func with(files ...string) func(*config.Config) {
	return func(c *config.Config) { c.Server.AppserviceFiles = append(c.Server.AppserviceFiles, files...) }
}

// start runs a server with one bridge.
func start(t *testing.T, lines ...string) (*apptest.Server, *bridge) {
	t.Helper()
	b := newBridge(t, "irc")
	b.server = apptest.Start(t, with(b.file(lines...)))
	return b.server, b
}

// bot is a client with the bridge's own token, for its sender.
func (b *bridge) bot() *apptest.Client {
	c := b.server.Anonymous()
	c.Token, c.UserID = b.token(), "@"+b.id+"bot:"+apptest.Name
	b.t.Cleanup(c.HTTP.CloseIdleConnections)
	return c
}

// as adds who is acted as to a target.
func as(target, local string) string {
	sep := "?"
	if strings.Contains(target, "?") {
		sep = "&"
	}
	return target + sep + "user_id=" + url.QueryEscape("@"+local+":"+apptest.Name)
}

// register makes a user of the bridge.
func (b *bridge) register(local string) string {
	b.t.Helper()
	out := b.bot().Must(b.t, "POST", v3+"/register", object{
		"type": "m.login.application_service", "username": local, "inhibit_login": true,
	})
	return out["user_id"].(string)
}

// fails is Client.Fails for any status: the specification has 5xx for what a
// bridge does.
func fails(t *testing.T, c *apptest.Client, method, target string, body any, status int, code string) object {
	t.Helper()
	got, raw, _ := c.Raw(t, method, target, body)
	out := object{}
	if err := json.Unmarshal(raw, &out); err != nil || got != status || out["errcode"] != code {
		t.Errorf("%s %s: got %d %s, want %d %s", method, target, got, raw, status, code)
	}
	return out
}
