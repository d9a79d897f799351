package security

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/hubbub-chat/hubbub/internal/wsclient"
)

// answer is what came of asking on a path.
type answer struct {
	status int
	text   string
}

// path is one way to learn something of a room.
type path struct {
	name string
	ask  func(*testing.T, *scene) answer
	// open says who may ask.
	open func(cell) verdict
	// shows are the canaries that a good answer holds.
	shows func(*scene) []string
}

func get(t *testing.T, sc *scene, target string) answer {
	t.Helper()
	status, raw, _ := sc.user.Raw(t, "GET", target, nil)
	return answer{status, plain(raw)}
}

// plain undoes the escapes of JSON that could hide a canary.
func plain(raw []byte) string {
	return strings.ReplaceAll(strings.ReplaceAll(string(raw), `\/`, "/"), `\u002f`, "/")
}

func inRoom(segments ...string) func(*testing.T, *scene) answer {
	return func(t *testing.T, sc *scene) answer {
		t.Helper()
		return get(t, sc, at(sc.room, segments...))
	}
}

func anyone(cell) verdict   { return either }
func everyone(cell) verdict { return yes }

// paths are all ways to read a room.
func paths() []path {
	var all []path
	all = append(all, historyPaths()...)
	for p := range periods {
		all = append(all, eventPaths(p)...)
	}
	all = append(all, relationPaths(before)...)
	all = append(all, relationPaths(third)...)
	all = append(all, statePaths()...)
	all = append(all, syncPaths()...)
	return append(all, otherPaths()...)
}

func historyPaths() []path {
	all := func(sc *scene) []string { return sc.visible(before, second, third, after) }
	return []path{
		{"messages backwards", func(t *testing.T, sc *scene) answer {
			return get(t, sc, at(sc.room, "messages")+"?dir=b&limit=200")
		}, cell.history, all},
		{"messages forwards", func(t *testing.T, sc *scene) answer {
			return get(t, sc, at(sc.room, "messages")+"?dir=f&limit=200")
		}, cell.history, all},
		{"messages forwards from an old token", func(t *testing.T, sc *scene) answer {
			return get(t, sc, at(sc.room, "messages")+"?dir=f&limit=200&from="+url.QueryEscape(sc.since))
		}, cell.history, nil},
		{"threads", func(t *testing.T, sc *scene) answer {
			return get(t, sc, strings.Replace(at(sc.room, "threads"), v3, v1, 1)+"?limit=50")
		}, cell.history, func(sc *scene) []string { return sc.visible(before, third) }},
		{"search", search, anyone, func(sc *scene) []string {
			if !sc.joined() {
				return nil
			}
			return all(sc)
		}},
		{"timestamp_to_event", nearest, anyone, nil},
	}
}

func search(t *testing.T, sc *scene) answer {
	t.Helper()
	status, raw, _ := sc.user.Raw(t, "POST", v3+"/search", object{"search_categories": object{"room_events": object{
		"search_term": "findme", "filter": object{"limit": 50}, "include_state": true,
		"event_context": object{"before_limit": 10, "after_limit": 10, "include_profile": true},
	}}})
	return answer{status, plain(raw)}
}

// nearest asks for the first and the last event, and for the events around them.
func nearest(t *testing.T, sc *scene) answer {
	t.Helper()
	var out answer
	for _, q := range []string{"?dir=f&ts=0", "?dir=b&ts=9999999999999"} {
		status, raw, _ := sc.user.Raw(t, "GET", strings.Replace(at(sc.room, "timestamp_to_event"), v3, v1, 1)+q, nil)
		out.status = max(out.status, status)
		var found struct {
			EventID string `json:"event_id"`
		}
		if err := json.Unmarshal(raw, &found); err != nil {
			t.Fatal(err)
		}
		if p, known := sc.period[found.EventID]; known {
			out.text += sc.canary("said", p)
		}
	}
	return out
}

func eventPaths(p int) []path {
	open := func(c cell) verdict { return c.event(p) }
	shows := func(sc *scene) []string { return sc.visible(p) }
	of := func(what string, id func(*scene) string) path {
		return path{fmt.Sprint(what, " of period ", p), func(t *testing.T, sc *scene) answer {
			return get(t, sc, at(sc.room, what, id(sc))+"?limit=40")
		}, open, shows}
	}
	said := func(sc *scene) string { return sc.said[p] }
	state := func(sc *scene) string { return sc.states[p] }
	stateEvent := of("event", state)
	stateEvent.name, stateEvent.shows = "state "+stateEvent.name, func(sc *scene) []string {
		if !sc.sees(p) {
			return nil
		}
		return []string{sc.canary("state", p)}
	}
	return []path{of("event", said), stateEvent, of("context", said)}
}

func relationPaths(root int) []path {
	open := func(c cell) verdict { return c.event(root) }
	shows := func(sc *scene) []string {
		if !sc.sees(root) {
			return nil
		}
		if root == before {
			return sc.visible(before, second, third, after)
		}
		return sc.visible(third, after)
	}
	var out []path
	for _, more := range []string{"", "/m.thread", "/m.thread/m.room.message"} {
		out = append(out, path{fmt.Sprint("relations", more, " of period ", root), func(t *testing.T, sc *scene) answer {
			return get(t, sc, strings.Replace(at(sc.room, "relations", sc.said[root]), v3, v1, 1)+more+"?limit=50&recurse=true")
		}, open, shows})
	}
	return append(out, path{fmt.Sprint("thread subscription of period ", root), func(t *testing.T, sc *scene) answer {
		target := "/_matrix/client/unstable/io.element.msc4306/rooms/" + url.PathEscape(sc.room) + "/thread/" +
			url.PathEscape(sc.said[root]) + "/subscription"
		status, raw, _ := sc.user.Raw(t, "PUT", target, object{})
		list := get(t, sc, "/_matrix/client/unstable/io.element.msc4308/thread_subscriptions?dir=b")
		return answer{status, plain(raw) + list.text}
	}, func(c cell) verdict {
		if c.sees(root) && !c.joined() {
			return either
		}
		return must(c.sees(root))
	}, nil})
}

func statePaths() []path {
	// A member sees the state as it is, one who left as it was then.
	current := func(kind string) func(*scene) []string {
		return func(sc *scene) []string {
			switch {
			case sc.joined():
				return []string{sc.canary(kind, after)}
			case sc.departed() && !sc.world() && kind == "state":
				return []string{sc.canary(kind, third)}
			case sc.departed() && !sc.world():
				return []string{sc.canary(kind, before)}
			}
			return nil
		}
	}
	query := func(what, q string) func(*testing.T, *scene) answer {
		return func(t *testing.T, sc *scene) answer { return get(t, sc, at(sc.room, what)+q) }
	}
	return []path{
		{"state", inRoom("state"), cell.state, current("state")},
		{"state of a type", inRoom("state", secretType), cell.state, current("state")},
		{"state event", query("state", "/"+secretType+"?format=event"), cell.state, current("state")},
		{"members", inRoom("members"), cell.state, current("nick")},
		{"members at an old token", func(t *testing.T, sc *scene) answer {
			return get(t, sc, at(sc.room, "members")+"?at="+url.QueryEscape(sc.since))
		}, anyone, nil},
		{"joined_members", inRoom("joined_members"), cell.members, func(sc *scene) []string {
			return []string{sc.canary("nick", before), sc.canary("nick", after)}
		}},
		{"aliases", inRoom("aliases"), cell.aliases, nil},
		{"hierarchy", func(t *testing.T, sc *scene) answer {
			return get(t, sc, strings.Replace(at(sc.room, "hierarchy"), v3, v1, 1))
		}, cell.summary, nil},
		{"room_summary", func(t *testing.T, sc *scene) answer {
			return get(t, sc, v1+"/room_summary/"+url.PathEscape(sc.room))
		}, cell.summary, nil},
	}
}

// syncFilter asks for all that a sync can tell.
const syncFilter = `{"room":{"include_leave":true,"timeline":{"limit":100}}}`

func syncPaths() []path {
	shows := func(sc *scene) []string {
		switch {
		case sc.joined():
			return []string{sc.canary("said", after), sc.canary("state", after)}
		case sc.departed() && !sc.world():
			return []string{sc.canary("said", third), sc.canary("state", third)}
		}
		return nil
	}
	sync := func(more func(*scene) url.Values) func(*testing.T, *scene) answer {
		return func(t *testing.T, sc *scene) answer {
			q := more(sc)
			q.Set("filter", syncFilter)
			return get(t, sc, v3+"/sync?"+q.Encode())
		}
	}
	return []path{
		{"first sync", sync(func(*scene) url.Values { return url.Values{} }), everyone, shows},
		{"next sync", sync(func(sc *scene) url.Values { return url.Values{"since": {sc.since}} }), everyone, shows},
		{"next sync with all state", sync(func(sc *scene) url.Values {
			return url.Values{"since": {sc.since}, "full_state": {"true"}}
		}), everyone, shows},
		{"sliding sync", slidingSync, everyone, func(sc *scene) []string {
			if !sc.joined() {
				return nil
			}
			return []string{sc.canary("said", after), sc.canary("state", after)}
		}},
		{"first data over the socket", func(t *testing.T, sc *scene) answer { return overSocket(t, sc, "") }, everyone, shows},
		{"next data over the socket", func(t *testing.T, sc *scene) answer { return overSocket(t, sc, sc.since) }, everyone, shows},
	}
}

// slidingSync asks for all rooms, and for the room by its name.
func slidingSync(t *testing.T, sc *scene) answer {
	t.Helper()
	all := object{"timeline_limit": 50, "required_state": [][]string{{"*", "*"}}}
	on := object{"enabled": true}
	status, raw, _ := sc.user.Raw(t, "POST", "/_matrix/client/unstable/org.matrix.simplified_msc3575/sync?timeout=0", object{
		"lists":              object{"all": object{"ranges": [][]int{{0, 99}}, "timeline_limit": 50, "required_state": [][]string{{"*", "*"}}}},
		"room_subscriptions": object{sc.room: all},
		"extensions":         object{"receipts": on, "typing": on, "account_data": on, "e2ee": on, "to_device": on},
	})
	return answer{status, plain(raw)}
}

// overSocket reads frames until they tell of what the user did after it opened.
func overSocket(t *testing.T, sc *scene, since string) answer {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	frames := make(chan string, 100) // more than come before Dial returns, which reads the first of them
	c, err := wsclient.Dial(ctx, sc.server.URL, wsclient.Options{
		Token: sc.user.Token, Sync: true, Since: since, Filter: []byte(syncFilter),
		OnFrame: func(frame []byte) {
			select {
			case frames <- plain(frame):
			case <-ctx.Done():
			}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	mark := "end" + sc.nextTxn()
	sc.user.Must(t, "PUT", v3+"/user/"+url.PathEscape(sc.user.UserID)+"/account_data/test.mark", object{"v": mark})
	var all strings.Builder
	for !strings.Contains(all.String(), mark) {
		select {
		case f := <-frames:
			all.WriteString(f)
		case <-c.Done():
			t.Fatalf("the socket ended after %s", all.String())
		}
	}
	cancel() // OnFrame returns
	_ = c.Close()
	return answer{200, all.String()}
}

func otherPaths() []path {
	return []path{
		{"notifications", func(t *testing.T, sc *scene) answer { return get(t, sc, v3+"/notifications?limit=100") }, anyone, nil},
		{"joined_rooms", func(t *testing.T, sc *scene) answer { return get(t, sc, v3+"/joined_rooms") }, everyone, func(sc *scene) []string {
			if sc.joined() {
				return []string{sc.room}
			}
			return nil
		}},
		{"user directory", func(t *testing.T, sc *scene) answer {
			status, raw, _ := sc.user.Raw(t, "POST", v3+"/user_directory/search", object{"search_term": "carol"})
			return answer{status, plain(raw)}
		}, everyone, func(sc *scene) []string {
			if sc.joined() {
				return []string{sc.carol.UserID}
			}
			return nil
		}},
		{"mutual rooms", mutualRooms, everyone, func(sc *scene) []string {
			if sc.joined() {
				return []string{sc.room}
			}
			return nil
		}},
		{"profile", func(t *testing.T, sc *scene) answer {
			return get(t, sc, v3+"/profile/"+url.PathEscape(sc.carol.UserID))
		}, everyone, nil},
		{"delayed events", func(t *testing.T, sc *scene) answer {
			return get(t, sc, "/_matrix/client/unstable/org.matrix.msc4140/delayed_events")
		}, everyone, nil},
		{"public rooms", func(t *testing.T, sc *scene) answer { return get(t, sc, v3+"/publicRooms?limit=500") }, everyone, nil},
	}
}

func mutualRooms(t *testing.T, sc *scene) answer {
	t.Helper()
	out := get(t, sc, v1+"/mutual_rooms?user_id="+url.QueryEscape(sc.carol.UserID))
	if !sc.joined() && strings.Contains(out.text, sc.room) {
		t.Errorf("%s shares no room with %s, but is told of %s", sc.user.UserID, sc.carol.UserID, sc.room)
	}
	return out
}
