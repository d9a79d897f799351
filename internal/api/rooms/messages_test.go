package rooms_test

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/hubbub-chat/hubbub/internal/app/apptest"
)

func TestMessagesPages(t *testing.T) {
	s := apptest.Start(t)
	alice := s.User(t, "alice")
	room := alice.CreateRoom(t, nil)
	other := alice.CreateRoom(t, nil)
	var want []string
	middle := ""
	for i := range 9 {
		alice.Send(t, other, "elsewhere")
		want = append(want, fmt.Sprint(i))
		alice.Send(t, room, want[i])
		if i == 4 {
			middle = alice.Sync(t, "")["next_batch"].(string)
		}
	}
	page := func(query string) object { return alice.Must(t, "GET", at(room, "messages")+"?"+query, nil) }

	same(t, "forward", history(t, alice, room), want)
	first := page("dir=b&limit=4")
	same(t, "newest", bodies(list(t, first, "chunk")), "[8 7 6 5]")
	end := url.QueryEscape(first["end"].(string))
	second := page("dir=b&limit=5&from=" + end)
	same(t, "before", bodies(list(t, second, "chunk")), "[4 3 2 1 0]")
	same(t, "start is from", second["start"], first["end"])
	same(t, "back again", bodies(list(t, page("dir=f&from="+url.QueryEscape(second["end"].(string))), "chunk")), want)
	third := page("dir=b&limit=100&from=" + url.QueryEscape(second["end"].(string)))
	same(t, "create event comes last", list(t, third, "chunk")[5]["type"], "m.room.create")
	if _, more := third["end"]; more {
		t.Error("there is an end at the beginning of the room")
	}
	exact := page("dir=b&limit=15")
	if _, more := exact["end"]; more || len(list(t, exact, "chunk")) != 15 {
		t.Errorf("a page that ends with the room: end %v after %d", exact["end"], len(list(t, exact, "chunk")))
	}
	if _, more := page("dir=f&limit=100")["end"]; more {
		t.Error("there is an end at the end of the room")
	}
	token := url.QueryEscape(middle)
	same(t, "back from a sync", bodies(list(t, page("dir=b&limit=2&from="+token), "chunk")), "[4 3]")
	same(t, "on from a sync", bodies(list(t, page("dir=f&limit=2&from="+token), "chunk")), "[5 6]")
	upTo := page("dir=b&limit=50&to=" + token)
	same(t, "down to a sync", bodies(list(t, upTo, "chunk")), "[8 7 6 5]")
	same(t, "on from there", bodies(list(t, page("dir=b&limit=2&from="+url.QueryEscape(upTo["end"].(string))), "chunk")), "[4 3]")
	same(t, "up to a sync", bodies(list(t, page("dir=f&limit=50&to="+token), "chunk")), "[0 1 2 3 4]")
	same(t, "end before the beginning", len(list(t, page("dir=f&from="+token+"&to="+end), "chunk")), 0)
	away := page("dir=b&from=" + token + "&to=t999999")
	same(t, "end behind the beginning", len(list(t, away, "chunk")), 0)
	same(t, "on from there", bodies(list(t, page("dir=b&limit=2&from="+url.QueryEscape(away["end"].(string))), "chunk")), "[4 3]")
	same(t, "default", len(list(t, page("dir=b"), "chunk")), 10)
	same(t, "at least one", len(list(t, page("dir=b&limit=0"), "chunk")), 1)

	prev := apptest.At(alice.Sync(t, ""), "rooms", "join", room, "timeline", "prev_batch").(string)
	same(t, "from prev_batch", list(t, page("dir=b&limit=1&from="+url.QueryEscape(prev)), "chunk")[0]["type"], "m.room.history_visibility")

	for query, code := range map[string]string{
		"": "M_MISSING_PARAM", "dir=x": "M_INVALID_PARAM", "dir=b&limit=x": "M_INVALID_PARAM", "dir=b&from=x": "M_INVALID_PARAM",
		"dir=b&to=t-1": "M_INVALID_PARAM", "dir=b&filter=x": "M_BAD_JSON", "dir=b&filter=[]": "M_BAD_JSON",
		"dir=b&from=t99999999999999999999": "M_INVALID_PARAM",
	} {
		alice.Fails(t, "GET", at(room, "messages")+"?"+query, nil, 400, code)
	}
	page("dir=b&from=t9223372036854775807")
	page("dir=f&from=t9223372036854775807")
}

func TestMessagesFilter(t *testing.T) {
	s := apptest.Start(t)
	alice, bob := s.User(t, "alice"), s.User(t, "bob")
	room := alice.CreateRoom(t, object{"preset": "public_chat"})
	bob.Join(t, room)
	for i := range 120 {
		by := alice
		if i%40 == 20 {
			by = bob
		}
		by.Send(t, room, fmt.Sprint(i))
	}
	page := func(query, filter string) object {
		return alice.Must(t, "GET", at(room, "messages")+"?"+query+"&filter="+url.QueryEscape(filter), nil)
	}
	byBob := `{"senders":["` + bob.UserID + `"],"types":["m.room.message"]}`
	same(t, "all of bob", bodies(list(t, page("dir=b&limit=10", byBob), "chunk")), "[100 60 20]")
	two := page("dir=b&limit=2", byBob)
	same(t, "two of bob", bodies(list(t, two, "chunk")), "[100 60]")
	same(t, "the third", bodies(list(t, page("dir=b&limit=2&from="+url.QueryEscape(two["end"].(string)), byBob), "chunk")), "[20]")
	same(t, "none", len(list(t, page("dir=f", `{"types":[]}`), "chunk")), 0)
	all := page("dir=b&limit=10", byBob)
	empty := page("dir=b&limit=10&from="+url.QueryEscape(all["end"].(string)), byBob)
	same(t, "behind the last of bob", empty["chunk"], "[]")
	same(t, "and no end there", empty["end"], nil)
	same(t, "no end for who selects nothing", page("dir=b&limit=1000", `{"lazy_load_members":true}`)["end"], nil)
	same(t, "another room", page("dir=f", `{"rooms":["!x:y"]}`)["chunk"], "[]")

	lazy := page("dir=b&limit=10", `{"lazy_load_members":true}`)
	same(t, "senders of ten", len(list(t, lazy, "state")), 1)
	same(t, "sender", list(t, lazy, "state")[0]["state_key"], alice.UserID)
	lazy = page("dir=b&limit=30", `{"lazy_load_members":true}`)
	same(t, "senders of thirty", len(list(t, lazy, "state")), 2)

	alice.Must(t, "PUT", v3+"/user/"+alice.UserID+"/account_data/m.ignored_user_list", object{"ignored_users": object{bob.UserID: object{}}})
	if got := history(t, alice, room); len(got) != 117 || slices.Contains(got, "20") {
		t.Errorf("who ignores bob sees %d messages", len(got))
	}
}

// What each kind of user sees under each visibility. spec: client-server §Room
// history visibility.
func TestHistoryVisibility(t *testing.T) {
	s := apptest.Start(t)
	alice, never, invited, joined, left := s.User(t, "alice"), s.User(t, "never"), s.User(t, "invited"), s.User(t, "joined"), s.User(t, "left")
	for _, test := range []struct{ visibility, never, invited, joined, left string }{
		{"world_readable", "1 2 3 4", "1 2 3 4", "1 2 3 4", "1 2 3 4"},
		{"shared", "403", "403", "1 2 3 4", "1 2 3"},
		{"invited", "403", "403", "2 3 4", "2 3"},
		{"joined", "403", "403", "3 4", "3"},
	} {
		t.Run(test.visibility, func(t *testing.T) {
			room := alice.CreateRoom(t, object{"initial_state": []object{
				{"type": "m.room.history_visibility", "content": object{"history_visibility": test.visibility}},
			}})
			events := []string{alice.Send(t, room, "1")}
			for _, c := range []*apptest.Client{invited, joined, left} {
				invite(t, alice, room, c)
			}
			events = append(events, alice.Send(t, room, "2"))
			joined.Join(t, room)
			left.Join(t, room)
			events = append(events, alice.Send(t, room, "3"))
			leave(t, left, room)
			events = append(events, alice.Send(t, room, "4"))
			for _, c := range []struct {
				*apptest.Client
				want string
			}{{never, test.never}, {invited, test.invited}, {joined, test.joined}, {left, test.left}} {
				if c.want == "403" {
					c.Fails(t, "GET", at(room, "messages")+"?dir=b", nil, 403, "M_FORBIDDEN")
					c.Fails(t, "GET", at(room, "event", events[0]), nil, 404, "M_NOT_FOUND")
					c.Fails(t, "GET", at(room, "context", events[0]), nil, 403, "M_FORBIDDEN")
					continue
				}
				same(t, c.UserID+" forward", strings.Join(history(t, c.Client, room), " "), c.want)
				back := c.Must(t, "GET", at(room, "messages")+"?dir=b&limit=100", nil)
				got := bodies(list(t, back, "chunk"))
				slices.Reverse(got)
				same(t, c.UserID+" back", strings.Join(got, " "), c.want)
				if _, more := back["end"]; more {
					t.Errorf("%s: there is an end before what may not be seen", c.UserID)
				}
				for i, ev := range events {
					if strings.Contains(c.want, fmt.Sprint(i+1)) {
						c.Must(t, "GET", at(room, "event", ev), nil)
						around := c.Must(t, "GET", at(room, "context", ev)+"?limit=100", nil)
						all := append(list(t, around, "events_before"), list(t, around, "events_after")...)
						same(t, "texts around", len(bodies(all))+1, len(strings.Fields(c.want)))
					} else {
						c.Fails(t, "GET", at(room, "event", ev), nil, 404, "M_NOT_FOUND")
						c.Fails(t, "GET", at(room, "context", ev), nil, 404, "M_NOT_FOUND")
					}
				}
			}
		})
	}
}

// A user who comes and goes sees each of their stays and nothing between.
func TestStaysInJoinedVisibility(t *testing.T) {
	s := apptest.Start(t)
	alice, bob := s.User(t, "alice"), s.User(t, "bob")
	room := alice.CreateRoom(t, object{"preset": "public_chat", "initial_state": []object{
		{"type": "m.room.history_visibility", "content": object{"history_visibility": "joined"}},
	}})
	var want []string
	for stay := range 3 {
		for i := range 30 {
			alice.Send(t, room, fmt.Sprintf("unseen %d.%d", stay, i))
		}
		bob.Join(t, room)
		want = append(want, fmt.Sprintf("seen %d", stay))
		alice.Send(t, room, want[stay])
		leave(t, bob, room)
	}
	alice.Send(t, room, "unseen at the end")
	same(t, "forward", history(t, bob, room), want)
	back := bob.Must(t, "GET", at(room, "messages")+"?dir=b&limit=100", nil)
	got := bodies(list(t, back, "chunk"))
	slices.Reverse(got)
	same(t, "back", got, want)
}

func TestEventAndContext(t *testing.T) {
	s := apptest.Start(t)
	alice, bob := s.User(t, "alice"), s.User(t, "bob")
	room := alice.CreateRoom(t, object{"preset": "public_chat"})
	other := alice.CreateRoom(t, nil)
	bob.Join(t, room)
	var ids []string
	for i := range 9 {
		ids = append(ids, alice.Send(t, room, fmt.Sprint(i)))
	}
	ev := bob.Must(t, "GET", at(room, "event", ids[4]), nil)
	same(t, "room", ev["room_id"], room)
	same(t, "unsigned", ev["unsigned"], object{"membership": "join"})
	mine := alice.Must(t, "GET", at(room, "event", ids[4]), nil)
	if apptest.At(mine, "unsigned", "transaction_id") == nil {
		t.Error("the sender's session does not see its transaction")
	}
	alice.Fails(t, "GET", at(other, "event", ids[4]), nil, 404, "M_NOT_FOUND")
	alice.Fails(t, "GET", at(room, "event", "$"+strings.Repeat("x", 43)), nil, 404, "M_NOT_FOUND")
	alice.Fails(t, "GET", at("!unknown", "event", ids[4]), nil, 404, "M_NOT_FOUND")
	alice.Fails(t, "GET", at(room, "event", "x"), nil, 400, "M_INVALID_PARAM")

	around := func(query string) object { return bob.Must(t, "GET", at(room, "context", ids[4])+"?"+query, nil) }
	c := around("limit=5")
	same(t, "event", c["event"].(object)["event_id"], ids[4])
	same(t, "before", bodies(list(t, c, "events_before")), "[3 2 1]")
	same(t, "after", bodies(list(t, c, "events_after")), "[5 6]")
	same(t, "state", len(list(t, c, "state")), 7)
	page := func(dir string, token any) []string {
		out := bob.Must(t, "GET", at(room, "messages")+"?limit=2&dir="+dir+"&from="+url.QueryEscape(token.(string)), nil)
		return bodies(list(t, out, "chunk"))
	}
	same(t, "on from the end", page("f", c["end"]), "[7 8]")
	same(t, "back from the start", page("b", c["start"])[0], "0")
	c = around("limit=0")
	same(t, "nothing around", len(list(t, c, "events_before"))+len(list(t, c, "events_after")), 0)
	same(t, "on from the event", page("f", c["end"]), "[5 6]")
	same(t, "back from the event", page("b", c["start"]), "[3 2]")
	same(t, "state at the event before any other", len(list(t, around("limit=0"), "state")), 7)
	c = around("limit=0&filter=" + url.QueryEscape(`{"lazy_load_members":true,"types":["m.room.member"]}`))
	same(t, "lazy state", len(list(t, c, "state")), 1)
	c = around("limit=5&filter=" + url.QueryEscape(`{"types":["m.room.member"]}`))
	same(t, "filtered before", len(list(t, c, "events_before")), 2)
	same(t, "filtered after", len(list(t, c, "events_after")), 0)
	bob.Fails(t, "GET", at(other, "context", ids[4]), nil, 403, "M_FORBIDDEN")
	alice.Fails(t, "GET", at(other, "context", ids[4]), nil, 404, "M_NOT_FOUND")
	alice.Fails(t, "GET", at(room, "context", ids[4])+"?limit=x", nil, 400, "M_INVALID_PARAM")
}

// Who has left sees the room up to there, though a later ban is theirs to know of.
func TestBannedAfterLeaving(t *testing.T) {
	s := apptest.Start(t)
	alice, bob := s.User(t, "alice"), s.User(t, "bob")
	room := alice.CreateRoom(t, object{"preset": "public_chat"})
	bob.Join(t, room)
	leave(t, bob, room)
	alice.Must(t, "PUT", at(room, "state", "m.room.name"), object{"name": "later"})
	alice.Must(t, "POST", at(room, "ban"), object{"user_id": bob.UserID})
	ban := alice.Must(t, "GET", at(room, "state", "m.room.member", bob.UserID)+"?format=event", nil)["event_id"].(string)
	same(t, "ban", apptest.At(bob.Must(t, "GET", at(room, "event", ban), nil), "content", "membership"), "ban")
	bob.Fails(t, "GET", at(room, "context", ban), nil, 404, "M_NOT_FOUND")
	bob.Fails(t, "GET", at(room, "state", "m.room.name"), nil, 404, "M_NOT_FOUND")
	for _, query := range []string{"dir=b", "dir=b&from=t999999", "dir=f&limit=100", "dir=f&limit=100&to=t999999"} {
		for _, e := range list(t, bob.Must(t, "GET", at(room, "messages")+"?"+query, nil), "chunk") {
			if e["event_id"] == ban || e["type"] == "m.room.name" {
				t.Errorf("%s shows what came later: %v", query, e)
			}
		}
	}
}

func TestTimestampToEvent(t *testing.T) {
	s := apptest.Start(t)
	alice, bob := s.User(t, "alice"), s.User(t, "bob")
	room := alice.CreateRoom(t, nil)
	chunk := list(t, alice.Must(t, "GET", at(room, "messages")+"?dir=f&limit=1", nil), "chunk")
	created := int64(chunk[0]["origin_server_ts"].(float64))
	last := alice.Send(t, room, "last")
	sent := int64(alice.Must(t, "GET", at(room, "event", last), nil)["origin_server_ts"].(float64))
	v1 := func(query string) string {
		return strings.Replace(at(room, "timestamp_to_event"), v3, "/_matrix/client/v1", 1) + "?" + query
	}
	same(t, "first", alice.Must(t, "GET", v1("dir=f&ts=0"), nil)["event_id"], chunk[0]["event_id"])
	same(t, "last", alice.Must(t, "GET", v1("dir=b&ts=9007199254740991"), nil)["event_id"], last)
	same(t, "time", alice.Must(t, "GET", v1(fmt.Sprintf("dir=b&ts=%d", sent)), nil)["event_id"], last)
	alice.Fails(t, "GET", v1(fmt.Sprintf("dir=b&ts=%d", created-1)), nil, 404, "M_NOT_FOUND")
	alice.Fails(t, "GET", v1(fmt.Sprintf("dir=f&ts=%d", sent+1)), nil, 404, "M_NOT_FOUND")
	alice.Fails(t, "GET", v1("ts=1"), nil, 400, "M_MISSING_PARAM")
	alice.Fails(t, "GET", v1("dir=f"), nil, 400, "M_MISSING_PARAM")
	alice.Fails(t, "GET", v1("dir=f&ts=x"), nil, 400, "M_INVALID_PARAM")
	bob.Fails(t, "GET", v1("dir=f&ts=0"), nil, 403, "M_FORBIDDEN")
}
