package rooms_test

import (
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/hubbub-chat/hubbub/internal/app/apptest"
)

func (s *scene) subscription(root string) string {
	return strings.Replace(at(s.room, "thread", root, "subscription"), "/v3/", "/unstable/io.element.msc4306/", 1)
}

// A user subscribes to a thread, or a client does for them, unless they have
// unsubscribed since. spec: MSC4306.
func TestThreadSubscription(t *testing.T) {
	const notInThread, conflict = "IO.ELEMENT.MSC4306.M_NOT_IN_THREAD", "IO.ELEMENT.MSC4306.M_CONFLICTING_UNSUBSCRIPTION"
	s := newScene(t, nil)
	root, other := s.say(s.alice, "root", nil), s.say(s.alice, "other", nil)
	path := s.subscription(root)
	automatic := func() any { return s.bob.Must(t, "GET", path, nil)["automatic"] }
	s.bob.Fails(t, "GET", path, nil, 404, "M_NOT_FOUND")
	s.bob.Must(t, "DELETE", path, nil)
	first, elsewhere := s.reply(s.alice, root, "first"), s.reply(s.alice, other, "elsewhere")
	for what, cause := range map[string]string{"root": root, "elsewhere": elsewhere, "unknown": "$" + strings.Repeat("x", 43)} {
		status, out := s.bob.Do(t, "PUT", path, object{"automatic": cause})
		if status != 400 || out["errcode"] != notInThread {
			t.Errorf("cause %s: %d %v", what, status, out)
		}
	}
	s.bob.Fails(t, "PUT", path, object{"automatic": true}, 400, "M_INVALID_PARAM")
	s.bob.Must(t, "PUT", path, object{"automatic": first})
	same(t, "by the client", automatic(), true)
	s.bob.Must(t, "PUT", path, object{})
	same(t, "by the user", automatic(), false)
	s.bob.Must(t, "PUT", path, object{"automatic": s.react(s.alice, first, "x")})
	same(t, "the user's stays", automatic(), false)
	s.alice.Fails(t, "GET", path, nil, 404, "M_NOT_FOUND")

	second := s.reply(s.alice, root, "second")
	s.bob.Must(t, "DELETE", path, nil)
	s.bob.Fails(t, "GET", path, nil, 404, "M_NOT_FOUND")
	s.bob.Fails(t, "PUT", path, object{"automatic": first}, 409, conflict)
	s.bob.Fails(t, "PUT", path, object{"automatic": second}, 409, conflict)
	s.bob.Must(t, "PUT", path, object{"automatic": s.reply(s.alice, root, "third")})
	same(t, "for something new", automatic(), true)
	s.bob.Must(t, "DELETE", path, nil)
	s.bob.Must(t, "PUT", path, object{"automatic": nil})
	same(t, "by the user again", automatic(), false)

	stranger := s.alice.Server.User(t, "stranger")
	for _, method := range []string{"GET", "PUT", "DELETE"} {
		body := object{}
		stranger.Fails(t, method, path, body, 404, "M_NOT_FOUND")
		s.bob.Fails(t, method, s.subscription("$"+strings.Repeat("x", 43)), body, 404, "M_NOT_FOUND")
		s.bob.Fails(t, method, s.subscription(first), body, 404, "M_NOT_FOUND") // no thread can begin there
		s.alice.Server.Anonymous().Fails(t, method, path, body, 401, "M_MISSING_TOKEN")
	}
	s.bob.Fails(t, "PUT", path, "{", 400, "M_NOT_JSON")
}

// The subscriptions of all rooms are listed, the last change first. spec: MSC4308.
func TestThreadSubscriptionList(t *testing.T) {
	const path = "/_matrix/client/unstable/io.element.msc4308/thread_subscriptions"
	s := newScene(t, nil)
	var roots []string
	for i := range 5 {
		roots = append(roots, s.say(s.alice, fmt.Sprint(i), nil))
		s.bob.Must(t, "PUT", s.subscription(roots[i]), object{})
	}
	s.bob.Must(t, "DELETE", s.subscription(roots[1]), nil)
	s.bob.Must(t, "PUT", s.subscription(roots[0]), object{})                                                 // which it is already
	s.bob.Must(t, "PUT", s.subscription(roots[2]), object{"automatic": s.reply(s.alice, roots[2], "reply")}) // likewise
	middle := url.QueryEscape(s.bob.Sync(t, "")["next_batch"].(string))
	s.bob.Must(t, "DELETE", s.subscription(roots[4]), nil)

	list := func(by *apptest.Client, query string) (out []string, end string) {
		page := by.Must(t, "GET", path+"?dir=b"+query, nil)
		for i, root := range roots {
			if sub := apptest.At(page, "subscribed", s.room, root); sub != nil {
				out = append(out, fmt.Sprint(i, apptest.At(sub, "automatic")))
			}
			if sub := apptest.At(page, "unsubscribed", s.room, root); sub != nil {
				out = append(out, fmt.Sprint(i, " gone"))
				same(t, "automatic of one that ended", apptest.At(sub, "automatic"), nil)
				if apptest.At(sub, "bump_stamp") == nil {
					t.Error("no bump_stamp")
				}
			}
		}
		end, _ = page["end"].(string)
		return out, end
	}
	all, end := list(s.bob, "")
	same(t, "all", all, "[0 false 1 gone 2 false 3 false 4 gone]")
	same(t, "end", end, "")
	newest, end := list(s.bob, "&limit=2")
	same(t, "newest", newest, "[1 gone 4 gone]")
	older, end := list(s.bob, "&limit=2&from="+end)
	same(t, "older", older, "[2 false 3 false]")
	oldest, end := list(s.bob, "&limit=2&from="+end)
	same(t, "oldest", oldest, "[0 false]")
	same(t, "end", end, "")
	since, _ := list(s.bob, "&to="+middle)
	same(t, "since a sync", since, "[4 gone]")
	none, _ := list(s.alice, "")
	same(t, "of alice", none, "[]")
	s.bob.Fails(t, "GET", path, nil, 400, "M_MISSING_PARAM")
	for _, query := range []string{"?dir=f", "?dir=x", "?dir=b&from=x", "?dir=b&to=x", "?dir=b&limit=x"} {
		s.bob.Fails(t, "GET", path+query, nil, 400, "M_INVALID_PARAM")
	}
}
