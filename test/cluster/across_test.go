package cluster_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hubbub-chat/hubbub/internal/app/apptest"
	"github.com/hubbub-chat/hubbub/internal/bus/faultnet"
	"github.com/hubbub-chat/hubbub/internal/config"
	"github.com/hubbub-chat/hubbub/internal/storage/pgstore/pgtest"
	"github.com/hubbub-chat/hubbub/internal/wsclient"
)

// nodes are three nodes of this process, whose ways to each other can be cut all at
// once.
type nodes struct {
	all   []*apptest.Server
	links []*faultnet.Proxy
}

func startNodes(t *testing.T, changes ...func(int, *config.Config)) *nodes {
	t.Helper()
	store := pgtest.Start(t).Database(t)
	n := &nodes{}
	var join []string
	for i := range 3 {
		listen := faultnet.Address(t)
		n.links = append(n.links, faultnet.New(t, listen, nil))
		join = append(join, n.links[i].Addr())
		n.all = append(n.all, apptest.Start(t, func(c *config.Config) {
			c.Server.Store, c.Server.MetricsListen = store, "127.0.0.1:0"
			c.Cluster.Listen, c.Cluster.Advertise, c.Server.Join = listen, join[i], slices.Clone(join)
			for _, change := range changes {
				change(i, c)
			}
		}))
	}
	n.ready(t)
	return n
}

// ready waits until all nodes say that they are.
func (n *nodes) ready(t *testing.T) {
	t.Helper()
	for _, s := range n.all {
		eventually(t, "every node is ready", func() bool {
			res, err := http.Get(s.MetricsURL() + "/readyz")
			if err != nil {
				return false
			}
			defer func() { _ = res.Body.Close() }()
			return res.StatusCode == http.StatusOK
		})
	}
}

func (n *nodes) cut(f faultnet.Fault) {
	for _, l := range n.links {
		l.Set("", f)
	}
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("still not: %s", what)
		}
	}
}

// listener is a socket that keeps the frames that came.
type listener struct {
	*wsclient.Client
	ended  chan error
	mu     sync.Mutex
	frames []apptest.Object
}

func listen(t *testing.T, s *apptest.Server, c *apptest.Client) *listener {
	t.Helper()
	l := &listener{ended: make(chan error, 1)}
	var err error
	l.Client, err = wsclient.Dial(t.Context(), s.URL, wsclient.Options{
		Token: c.Token, Sync: true, OnDisconnect: func(err error) { l.ended <- err },
		OnFrame: func(raw []byte) {
			var f apptest.Object
			if err := json.Unmarshal(raw, &f); err != nil {
				t.Errorf("frame: %v", err)
			}
			l.mu.Lock()
			defer l.mu.Unlock()
			l.frames = append(l.frames, f)
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// find returns what came at a path in the frames, all lists together.
func (l *listener) find(path ...string) (out []any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, f := range l.frames {
		list, _ := apptest.At(f, path...).([]any)
		out = append(out, list...)
	}
	return out
}

// has reports whether an event of a type came that says something.
func (l *listener) has(typ, says string, path ...string) bool {
	return slices.ContainsFunc(l.find(path...), func(e any) bool {
		text, err := json.Marshal(e)
		return err == nil && apptest.At(e, "type") == typ && strings.Contains(string(text), says)
	})
}

// say sends message i, whose transaction no node gave another message.
func say(t *testing.T, c *apptest.Client, room string, i int) string {
	t.Helper()
	out := c.Must(t, "PUT", fmt.Sprintf("/_matrix/client/v3/rooms/%s/send/m.room.message/m%d", url.PathEscape(room), i), apptest.Object{"msgtype": "m.text", "body": fmt.Sprint(i)})
	return out["event_id"].(string)
}

// Members on three nodes get each message on their sockets, in order; so they are told
// who types, who has read what, and who is there.
func TestSocketsAcrossNodes(t *testing.T) {
	n := startNodes(t)
	names := []string{"alice", "bob", "carol"}
	var people []*apptest.Client
	for i, name := range names {
		people = append(people, n.all[i].User(t, name))
	}
	room := people[0].CreateRoom(t, apptest.Object{"preset": "public_chat"})
	var sockets []*listener
	for i, c := range people {
		if i > 0 {
			c.Join(t, room)
		}
		sockets = append(sockets, listen(t, n.all[i], c))
	}
	in := func(part string) []string { return []string{"rooms", "join", room, part, "events"} }
	const messages = 60
	var want []string
	for i := range messages {
		// Who speaks changes, and so does the node they speak to.
		want = append(want, say(t, on(people[i%3], n.all[(i/3)%3]), room, i))
	}
	for i, l := range sockets {
		var got []string
		eventually(t, "all messages came", func() bool {
			got = nil
			for _, e := range l.find(in("timeline")...) {
				if apptest.At(e, "type") == "m.room.message" {
					got = append(got, apptest.At(e, "event_id").(string))
				}
			}
			return len(got) >= messages
		})
		compare(t, "what the socket of "+names[i]+" says", got, want)
	}
	escaped := url.PathEscape(room)
	for i, c := range people {
		at := on(c, n.all[(i+1)%3])
		at.Must(t, "PUT", "/_matrix/client/v3/rooms/"+escaped+"/typing/"+url.PathEscape(c.UserID), apptest.Object{"typing": true, "timeout": 60000})
		at.Must(t, "POST", "/_matrix/client/v3/rooms/"+escaped+"/receipt/m.read/"+url.PathEscape(want[i]), apptest.Object{})
		at.Must(t, "PUT", "/_matrix/client/v3/presence/"+url.PathEscape(c.UserID)+"/status", apptest.Object{"presence": "online", "status_msg": "I am " + names[i]})
		for j, l := range sockets {
			eventually(t, names[j]+" hears that "+names[i]+" types", func() bool { return l.has("m.typing", c.UserID, in("ephemeral")...) })
			eventually(t, names[j]+" hears what "+names[i]+" has read", func() bool { return l.has("m.receipt", want[i], in("ephemeral")...) })
			eventually(t, names[j]+" hears that "+names[i]+" is there", func() bool { return l.has("m.presence", "I am "+names[i], "presence", "events") })
		}
	}
}

// Whoever writes on one node reads it on any other at once.
func TestReadYourWritesAcrossNodes(t *testing.T) {
	n := startNodes(t)
	alice := n.all[0].User(t, "alice")
	room := alice.CreateRoom(t, apptest.Object{})
	since := alice.Sync(t, "")["next_batch"].(string)
	base := "/_matrix/client/v3/rooms/" + url.PathEscape(room)
	for i := range 60 {
		id := say(t, on(alice, n.all[i%3]), room, i)
		other := on(alice, n.all[(i+1+i/3%2)%3])
		other.Must(t, "GET", base+"/event/"+url.PathEscape(id), nil)
		sync := other.Must(t, "GET", "/_matrix/client/v3/sync?timeout=0&since="+url.QueryEscape(since), nil)
		events, _ := apptest.At(sync, "rooms", "join", room, "timeline", "events").([]any)
		if len(events) != 1 || apptest.At(events[0], "event_id") != id {
			t.Fatalf("message %d: the sync of another node has %v", i, events)
		}
		since = sync["next_batch"].(string)
		key := fmt.Sprintf("k%d", i%7)
		other.Must(t, "PUT", base+"/state/test.state/"+key, apptest.Object{"n": i})
		third := on(alice, n.all[(i+2)%3])
		if got := third.Must(t, "GET", base+"/state/test.state/"+key, nil); got["n"] != float64(i) {
			t.Fatalf("state %d is %v", i, got)
		}
		since = third.Must(t, "GET", "/_matrix/client/v3/sync?timeout=0&since="+url.QueryEscape(since), nil)["next_batch"].(string)
	}
}

// revoked is the close code of a socket whose token was revoked.
const revoked = 4401

// A logout on one node ends the session on the others, also when none hears another.
func TestLogoutAcrossNodes(t *testing.T) {
	n := startNodes(t)
	const people = 12
	var users []*apptest.Client
	for i := range people {
		users = append(users, n.all[0].User(t, fmt.Sprintf("u%d", i)))
	}
	ends := func(c *apptest.Client, l *listener, begin time.Time) {
		t.Helper()
		err := <-l.ended
		if ce := new(wsclient.CloseError); !errors.As(err, &ce) || ce.Code != revoked {
			t.Errorf("%s: the socket ended with %v", c.UserID, err)
		}
		t.Logf("the socket on another node is closed after %v", time.Since(begin).Round(time.Millisecond))
		for _, s := range n.all {
			eventually(t, "the token is refused", func() bool {
				status, body := on(c, s).Do(t, "GET", "/_matrix/client/v3/account/whoami", nil)
				return status == http.StatusUnauthorized && body["errcode"] == "M_UNKNOWN_TOKEN"
			})
		}
		t.Logf("every node refuses the token after %v", time.Since(begin).Round(time.Millisecond))
	}
	first := users[0]
	l := listen(t, n.all[1], first)
	on(first, n.all[2]).Must(t, "GET", "/_matrix/client/v3/account/whoami", nil)
	begin := time.Now()
	on(first, n.all[0]).Must(t, "POST", "/_matrix/client/v3/logout", apptest.Object{})
	ends(first, l, begin)

	// Without links, a node can end the sessions of those whose partition it runs; so
	// each asks all nodes, and at least one is the right one.
	rest := users[1:]
	var sockets []*listener
	for i, c := range rest {
		sockets = append(sockets, listen(t, n.all[i%3], c))
		on(c, n.all[(i+1)%3]).Must(t, "GET", "/_matrix/client/v3/account/whoami", nil)
	}
	n.cut(faultnet.Cut)
	type answer struct {
		user   int
		status int
	}
	answers := make(chan answer, len(rest)*len(n.all))
	begin = time.Now()
	for i, c := range rest {
		for _, s := range n.all {
			go func() {
				status, _, _ := on(c, s).Raw(t, "POST", "/_matrix/client/v3/logout", apptest.Object{})
				answers <- answer{i, status}
			}()
		}
	}
	out := false
	for range cap(answers) {
		if a := <-answers; a.status == http.StatusOK && !out {
			out = true
			ends(rest[a.user], sockets[a.user], begin)
		}
	}
	if !out {
		t.Error("nobody could log out")
	}
	n.cut(faultnet.Pass)
	n.ready(t)
}
