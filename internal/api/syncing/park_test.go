package syncing_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/hubbub-chat/hubbub/internal/app/apptest"
	"github.com/hubbub-chat/hubbub/internal/config"
	"github.com/hubbub-chat/hubbub/internal/lint/skip"
)

// polled is the answer to a long poll.
type polled struct {
	status int
	body   object
	// reused: it came by a connection that had been used before.
	reused bool
	took   time.Duration
}

func (p polled) bodies(room string) string {
	events, _ := apptest.At(p.body, "rooms", "join", room, "timeline", "events").([]any)
	var out []string
	for _, e := range events {
		b, _ := apptest.At(e, "content", "body").(string)
		out = append(out, b)
	}
	return strings.Join(out, " ")
}

// poll waits for news on the connection of a client.
func poll(t *testing.T, c *apptest.Client, since, timeout string) <-chan polled {
	answer := make(chan polled, 1)
	go func() {
		var p polled
		defer func() { answer <- p }()
		trace := &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) { p.reused = i.Reused }}
		q := url.Values{"since": {since}, "timeout": {timeout}}
		req, err := http.NewRequestWithContext(httptrace.WithClientTrace(t.Context(), trace), "GET", c.Server.URL+v3+"/sync?"+q.Encode(), nil)
		if err != nil {
			t.Error(err)
			return
		}
		req.Header.Set("Authorization", "Bearer "+c.Token)
		begin := time.Now()
		res, err := c.HTTP.Do(req)
		if err != nil {
			t.Error(err)
			return
		}
		defer res.Body.Close()
		p.took, p.status = time.Since(begin), res.StatusCode
		b, err := io.ReadAll(res.Body)
		if err != nil || json.Unmarshal(b, &p.body) != nil {
			t.Errorf("answer %q: %v", b, err)
		}
	}()
	return answer
}

// awaitParked waits until so many polls of a server are parked.
func awaitParked(t *testing.T, s *apptest.Server, n string) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		res, err := http.Get(s.MetricsURL() + "/metrics")
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(b), "\nhubbub_api_parked "+n+"\n") {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("there are not %s parked", n)
		}
	}
}

// Polls of a whole server that wait for longer than a moment: each is told what it would
// have been told, on a connection that goes on; who is logged out is told so; and a
// server that stops answers the others.
func TestPollsAreParked(t *testing.T) {
	if runtime.GOOS != "linux" {
		skip.Test(t, "nothing is parked on this system")
	}
	s := apptest.Start(t, func(c *config.Config) {
		c.Server.MetricsListen, c.Presence.Enabled = "127.0.0.1:0", false
	})
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	alice, bob := s.User(t, "alice"), s.User(t, "bob").Apart(t)
	room := alice.CreateRoom(t, object{"preset": "public_chat"})
	bob.Join(t, room)
	phone := bob.Login(t).Apart(t)
	since := bob.Sync(t, "")["next_batch"].(string)
	phone.Sync(t, since)

	first, second := poll(t, bob, since, "30000"), poll(t, phone, since, "1500")
	awaitParked(t, s, "2")
	end := <-second
	if end.status != 200 || end.body["rooms"] != nil || end.body["next_batch"] == nil || end.took < 1500*time.Millisecond || !end.reused {
		t.Errorf("at the end of its time: %+v", end)
	}
	awaitParked(t, s, "1")
	alice.Send(t, room, "hello")
	got := <-first
	if got.status != 200 || got.bodies(room) != "hello" || !got.reused {
		t.Errorf("told %+v", got)
	}
	since = got.body["next_batch"].(string)
	alice.Send(t, room, "at once")
	if got = <-poll(t, bob, since, "30000"); got.bodies(room) != "at once" || !got.reused || got.took > time.Second {
		t.Errorf("then %+v", got)
	}
	since = got.body["next_batch"].(string)

	first, second = poll(t, bob, since, "30000"), poll(t, phone, since, "30000")
	awaitParked(t, s, "2")
	(&apptest.Client{Server: s, Token: phone.Token, HTTP: alice.HTTP}).Must(t, "POST", v3+"/logout", nil)
	if out := <-second; out.status != 401 || out.body["errcode"] != "M_UNKNOWN_TOKEN" {
		t.Errorf("logged out: %+v", out)
	}
	awaitParked(t, s, "1")
	begin := time.Now()
	s.Stop()
	if out := <-first; out.status != 503 || time.Since(begin) > 4*time.Second {
		t.Errorf("stopped: %+v after %v", out, time.Since(begin))
	}
}
