package security

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hubbub-chat/hubbub/internal/app/apptest"
	"github.com/hubbub-chat/hubbub/internal/lint/ondemand"
)

// sharers are the users behind one proxy.
const sharers = 200

var canaryOfUser = regexp.MustCompile(`canary-of-\d+-`)

// TestNobodyIsSentAnothersAnswers: many users come through one proxy that keeps its
// connections and shares them, and go away in the middle of requests. No answer has
// what is another's.
func TestNobodyIsSentAnothersAnswers(t *testing.T) {
	t.Parallel()
	s := apptest.Start(t)
	backend, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	up := &http.Transport{MaxIdleConnsPerHost: 8, MaxConnsPerHost: 64}
	proxy := httptest.NewServer(&httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(backend) }, Transport: up,
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) },
	})
	down := &http.Transport{MaxIdleConnsPerHost: 8}
	t.Cleanup(func() {
		down.CloseIdleConnections()
		proxy.Close()
		up.CloseIdleConnections()
	})
	users := make([]*apptest.Client, sharers)
	for i := range users {
		users[i] = s.User(t, fmt.Sprint("user", i))
	}
	var wg sync.WaitGroup
	for i, c := range users {
		wg.Go(func() {
			sh := sharer{t, c, fmt.Sprintf("canary-of-%d-", i), &http.Client{Transport: down}, proxy.URL}
			for round := range 2 {
				sh.round(round)
			}
		})
	}
	wg.Wait()
}

// sharer is a user who keeps a canary in all places that are theirs.
type sharer struct {
	t      *testing.T
	c      *apptest.Client
	canary string
	http   *http.Client
	url    string
}

func (s sharer) round(n int) {
	mine := v3 + "/user/" + url.PathEscape(s.c.UserID)
	name := url.PathEscape(s.c.UserID)
	value := fmt.Sprintf(`{"v":"%s%d"}`, s.canary, n)
	s.ask("PUT", mine+"/account_data/test.data", value, true, false)
	s.ask("PUT", v3+"/profile/"+name+"/displayname", strings.Replace(value, `"v"`, `"displayname"`, 1), true, false)
	s.ask("GET", v3+"/sync?timeout=30000", "", true, true)
	s.ask("GET", mine+"/account_data/test.data", "", false, true)
	s.ask("GET", v3+"/sync", "", false, true)
	s.ask("GET", v3+"/profile/"+name, "", true, true)
	s.ask("GET", mine+"/account_data/test.data", "", true, true)
	s.ask("GET", v3+"/profile/"+name, "", false, true)
}

// ask sends a request, goes away from it at some moment if it may, and looks whose
// canaries are in the answer.
func (s sharer) ask(method, target, body string, leaves, holds bool) {
	ctx, cancel := context.WithCancel(s.t.Context())
	defer cancel()
	if leaves = leaves && rand.IntN(2) == 0; leaves {
		defer time.AfterFunc(time.Duration(rand.IntN(20_000))*time.Microsecond, cancel).Stop()
	}
	req, err := http.NewRequestWithContext(ctx, method, s.url+target, strings.NewReader(body))
	if err != nil {
		s.t.Error(err)
		return
	}
	req.Header.Set("Authorization", "Bearer "+s.c.Token)
	resp, err := s.http.Do(req)
	if err != nil {
		if !leaves {
			s.t.Errorf("%s %s: %v", method, target, err)
		}
		return
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil && !leaves || resp.StatusCode >= 500 && !leaves {
		s.t.Errorf("%s %s: %d %v", method, target, resp.StatusCode, err)
	}
	if holds && resp.StatusCode == http.StatusOK && !strings.Contains(resp.Header.Get("Cache-Control"), "no-store") && !strings.Contains(target, "/profile/") {
		s.t.Errorf("%s %s may be cached: %q", method, target, resp.Header.Get("Cache-Control"))
	}
	for _, found := range canaryOfUser.FindAllString(string(raw), -1) {
		if found != s.canary {
			s.t.Errorf("%s %s: %s was sent %s", method, target, s.c.UserID, found)
		}
	}
}

// roomsEnv is how many rooms the user has who has many.
const roomsEnv = "HUBBUB_TEST_ROOMS"

// TestManyRooms: who is in many rooms is told of what is new, not of all of them. Try
// it with HUBBUB_TEST_ROOMS=10000, which says what it takes.
func TestManyRooms(t *testing.T) {
	t.Parallel()
	s := apptest.Start(t)
	alice, bob := s.User(t, "alice"), s.User(t, "bob")
	rooms := make([]string, ondemand.Number(t, roomsEnv, 60))
	for i := range rooms {
		rooms[i] = alice.CreateRoom(t, nil)
	}
	begin := time.Now()
	first := alice.Sync(t, "")
	took := time.Since(begin)
	if n := len(apptest.At(first, "rooms", "join").(object)); n != len(rooms) {
		t.Errorf("%d rooms of %d", n, len(rooms))
	}
	alice.Send(t, rooms[0], "new")
	begin = time.Now()
	next := alice.Sync(t, first["next_batch"].(string))
	t.Logf("%d rooms: first sync %v, the next one %v", len(rooms), took, time.Since(begin))
	if n := len(apptest.At(next, "rooms", "join").(object)); n != 1 {
		t.Errorf("after one message %d rooms are sent", n)
	}
	bob.Sync(t, "")
}

// TestOversized: what is larger than any client sends is refused, and not looked at.
func TestOversized(t *testing.T) {
	t.Parallel()
	s := apptest.Start(t)
	alice := s.User(t, "alice")
	entries := `["` + strings.Repeat(`@a:b","`, 100_000) + `"]`
	filter := v3 + "/user/" + url.PathEscape(alice.UserID) + "/filter"
	status, raw, _ := alice.Raw(t, "POST", filter, `{"room":{"timeline":{"senders":`+entries+`}}}`)
	if status != http.StatusBadRequest && status != http.StatusRequestEntityTooLarge {
		t.Errorf("a filter of 100,000 entries: %d %.200s", status, raw)
	}
	alice.Fails(t, "POST", filter, `{"room":{"timeline":{"senders":["@a:b"`+strings.Repeat(`,"@a:b"`, 5000)+`]}}}`, http.StatusBadRequest, "M_INVALID_PARAM")
	long := strings.Repeat("x", 80<<10)
	for what, change := range map[string]func(*http.Request){
		"query":  func(r *http.Request) { r.URL.RawQuery = "filter=" + long },
		"path":   func(r *http.Request) { r.URL.Path += "/" + long },
		"cookie": func(r *http.Request) { r.Header.Set("Cookie", "a="+long) },
		"cookies": func(r *http.Request) {
			r.Header.Set("Cookie", strings.Repeat("a=b; ", 16<<10))
		},
	} {
		if status, text := bare(t, s, v3+"/sync", change); status != http.StatusRequestHeaderFieldsTooLarge && status != http.StatusRequestURITooLong {
			t.Errorf("a %s of 80 KB: %d %.200s", what, status, text)
		}
	}
}
