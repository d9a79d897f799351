package syncing_test

import (
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hubbub-chat/hubbub/internal/app/apptest"
)

type object = map[string]any

const (
	v3       = "/_matrix/client/v3"
	unstable = "/_matrix/client/unstable/org.matrix.simplified_msc3575/sync"
	stable   = "/_matrix/client/v4/sync"
)

// answer is a response of sliding sync, in the unstable form.
type answer struct {
	Pos   string `json:"pos"`
	Lists map[string]struct {
		Count int `json:"count"`
	} `json:"lists"`
	Rooms      map[string]*told `json:"rooms"`
	Extensions struct {
		ToDevice *struct {
			Next   string           `json:"next_batch"`
			Events []map[string]any `json:"events"`
		} `json:"to_device"`
		E2EE *struct {
			Lists struct {
				Changed []string `json:"changed"`
				Left    []string `json:"left"`
			} `json:"device_lists"`
			Counts    map[string]int `json:"device_one_time_keys_count"`
			Fallbacks []string       `json:"device_unused_fallback_key_types"`
		} `json:"e2ee"`
		AccountData struct {
			Global []map[string]any            `json:"global"`
			Rooms  map[string][]map[string]any `json:"rooms"`
		} `json:"account_data"`
		Receipts struct {
			Rooms map[string]object `json:"rooms"`
		} `json:"receipts"`
		Typing struct {
			Rooms map[string]object `json:"rooms"`
		} `json:"typing"`
		Threads struct {
			Subscribed   map[string]map[string]object `json:"subscribed"`
			Unsubscribed map[string]map[string]object `json:"unsubscribed"`
			PrevBatch    string                       `json:"prev_batch"`
		} `json:"io.element.msc4308.thread_subscriptions"`
	} `json:"extensions"`
}

type told struct {
	Membership string           `json:"membership"`
	Initial    bool             `json:"initial"`
	Name       *string          `json:"name"`
	Heroes     []object         `json:"heroes"`
	DM         *bool            `json:"is_dm"`
	State      []map[string]any `json:"required_state"`
	Timeline   []map[string]any `json:"timeline"`
	Live       int              `json:"num_live"`
	Limited    bool             `json:"limited"`
	PrevBatch  string           `json:"prev_batch"`
	Expanded   bool             `json:"unstable_expanded_timeline"`
	Invite     []map[string]any `json:"invite_state"`
	Joined     *int             `json:"joined_count"`
	Notify     *int             `json:"notification_count"`
	Highlight  *int             `json:"highlight_count"`
	Bump       int64            `json:"bump_stamp"`
	Lists      []string         `json:"lists"`
}

func (r *told) bodies() string {
	if r == nil {
		return ""
	}
	var out []string
	for _, e := range r.Timeline {
		if b, ok := e["content"].(object)["body"].(string); ok {
			out = append(out, b)
		}
	}
	return strings.Join(out, " ")
}

func (r *told) state() string {
	if r == nil {
		return ""
	}
	var out []string
	for _, e := range r.State {
		out = append(out, strings.TrimPrefix(e["type"].(string), "m.room.")+"/"+e["state_key"].(string))
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

// slider is a connection of a client.
type slider struct {
	t    *testing.T
	c    *apptest.Client
	body object
	pos  string
	old  string // the position before
}

func slide(t *testing.T, c *apptest.Client, body object) *slider {
	return &slider{t: t, c: c, body: body}
}

// ask makes a request that does not wait.
func (s *slider) ask() *answer {
	s.t.Helper()
	return s.wait(0)
}

func (s *slider) wait(ms int) *answer {
	s.t.Helper()
	q := url.Values{"timeout": {fmt.Sprint(ms)}}
	if s.pos != "" {
		q.Set("pos", s.pos)
	}
	status, raw, _ := s.c.Raw(s.t, "POST", unstable+"?"+q.Encode(), s.body)
	out := &answer{}
	if err := json.Unmarshal(raw, out); err != nil || status != 200 {
		s.t.Fatalf("sliding sync: %d %v: %s", status, err, raw)
	}
	s.old, s.pos = s.pos, out.Pos
	return out
}

// window is a request for one list.
func window(first, last, limit int, state [][]string, filters object) object {
	return object{"lists": object{"all": object{
		"ranges": [][]int{{first, last}}, "timeline_limit": limit, "required_state": state, "filters": filters,
	}}}
}

func at(room string, more ...string) string {
	return v3 + "/rooms/" + url.PathEscape(room) + "/" + strings.Join(more, "/")
}

func same[T any](t *testing.T, what string, got, want T) {
	t.Helper()
	g, _ := json.Marshal(got)
	w, _ := json.Marshal(want)
	if string(g) != string(w) {
		t.Errorf("%s: got %s, want %s", what, g, w)
	}
}

func rooms(a *answer) []string {
	out := []string{}
	for id := range a.Rooms {
		out = append(out, id)
	}
	slices.Sort(out)
	return out
}

func sorted(list ...string) []string {
	slices.Sort(list)
	return append([]string{}, list...)
}

// sendLater sends a message in a later millisecond than all before: rooms whose
// last activity was in the same one have no order that a test could ask for.
func sendLater(t *testing.T, c *apptest.Client, room, body string) {
	t.Helper()
	for begin := time.Now().UnixMilli(); time.Now().UnixMilli() == begin; {
		time.Sleep(100 * time.Microsecond)
	}
	c.Send(t, room, body)
}

// A window holds the rooms with the last activity; each is told once, and then what
// changes in it.
func TestListIsAWindowOnTheLastActivity(t *testing.T) {
	s := apptest.Start(t)
	alice, bob := s.User(t, "alice"), s.User(t, "bob")
	var made []string
	for i := range 4 {
		r := alice.CreateRoom(t, object{"preset": "public_chat", "name": fmt.Sprint("room", i)})
		bob.Join(t, r)
		sendLater(t, alice, r, fmt.Sprint("first", i))
		made = append(made, r)
	}
	c := slide(t, bob, window(0, 1, 1, [][]string{{"m.room.create", ""}, {"m.room.member", "$ME"}}, nil))
	a := c.ask()
	same(t, "count", a.Lists["all"].Count, 4)
	same(t, "rooms", rooms(a), sorted(made[2], made[3]))
	r := a.Rooms[made[3]]
	same(t, "room", []any{r.Initial, *r.Name, r.Membership, r.bodies(), r.Limited, r.Live, *r.Joined, *r.Notify, r.Lists},
		[]any{true, "room3", "join", "first3", true, 0, 2, 1, []string{"all"}})
	same(t, "state", r.state(), "create/ member/"+bob.UserID)
	if r.Bump == 0 || r.Bump < a.Rooms[made[2]].Bump {
		t.Errorf("bump stamps %d %d", r.Bump, a.Rooms[made[2]].Bump)
	}
	same(t, "nothing new", len(c.ask().Rooms), 0)

	// Activity brings a room into the window.
	sendLater(t, alice, made[0], "again")
	a = c.ask()
	same(t, "came up", rooms(a), []string{made[0]})
	r = a.Rooms[made[0]]
	same(t, "first time", []any{r.Initial, r.bodies(), r.Live}, []any{true, "again", 1})
	alice.Send(t, made[0], "more")
	r = c.ask().Rooms[made[0]]
	same(t, "change", []any{r.Initial, r.bodies(), r.Live, r.Limited, r.state(), r.Name, r.Joined, *r.Notify},
		[]any{false, "more", 1, false, "", nil, nil, 3})

	// A room that is not looked at is told when it is again, and from there on.
	sendLater(t, alice, made[2], "unseen")
	sendLater(t, alice, made[3], "seen")
	sendLater(t, alice, made[0], "seen too")
	a = c.ask()
	same(t, "in the window", rooms(a), sorted(made[0], made[3]))
	c.body = window(0, 3, 1, [][]string{{"m.room.create", ""}, {"m.room.member", "$ME"}}, nil)
	a = c.ask()
	same(t, "a larger window", rooms(a), sorted(made[1], made[2]))
	same(t, "known before", []any{a.Rooms[made[2]].Initial, a.Rooms[made[2]].bodies()}, []any{false, "unseen"})
	same(t, "not known", a.Rooms[made[1]].Initial, true)
}

// A response that was lost is told again; a position that is neither of the last two
// is refused, as is one of another connection.
func TestLostResponsesAreToldAgain(t *testing.T) {
	s := apptest.Start(t)
	alice := s.User(t, "alice")
	room := alice.CreateRoom(t, nil)
	c := slide(t, alice, window(0, 9, 5, nil, nil))
	c.ask()
	first := c.pos
	alice.Send(t, room, "one")
	same(t, "once", c.ask().Rooms[room].bodies(), "one")
	c.pos = first
	alice.Send(t, room, "two")
	same(t, "again, with what is new", c.ask().Rooms[room].bodies(), "one two")
	same(t, "then nothing", len(c.ask().Rooms), 0)
	for name, pos := range map[string]string{
		"older": first, "nonsense": "x", "another's": "c1.AAAAAAAAAA_s", "a token of /sync": alice.Sync(t, "")["next_batch"].(string),
	} {
		t.Run(name, func(t *testing.T) {
			for _, path := range []string{unstable, stable} {
				alice.Fails(t, "POST", path+"?pos="+url.QueryEscape(pos), c.body, 400, "M_UNKNOWN_POS")
			}
		})
	}
	other := slide(t, alice, object{"conn_id": "other"})
	other.pos = c.pos
	alice.Fails(t, "POST", unstable+"?pos="+url.QueryEscape(c.pos), other.body, 400, "M_UNKNOWN_POS")
	same(t, "the connection goes on", len(c.ask().Rooms), 0)
	s.Restart(t)
	alice.Server = s
	alice.Fails(t, "POST", unstable+"?pos="+url.QueryEscape(c.pos), c.body, 400, "M_UNKNOWN_POS")
	c.pos = ""
	same(t, "afresh", c.ask().Rooms[room].Initial, true)
}

// Filters of lists.
func TestFilters(t *testing.T) {
	s := apptest.Start(t)
	alice, bob := s.User(t, "alice"), s.User(t, "bob")
	plain := alice.CreateRoom(t, object{"name": "plain"})
	encrypted := alice.CreateRoom(t, object{"initial_state": []object{{
		"type": "m.room.encryption", "content": object{"algorithm": "m.megolm.v1.aes-sha2"},
	}}})
	space := alice.CreateRoom(t, object{"creation_content": object{"type": "m.space"}})
	alice.Must(t, "PUT", at(space, "state", "m.space.child", url.PathEscape(plain)), object{"via": []string{apptest.Name}})
	invited := bob.CreateRoom(t, object{"invite": []string{alice.UserID}})
	alice.Must(t, "PUT", v3+"/user/"+url.PathEscape(alice.UserID)+"/account_data/m.direct", object{bob.UserID: []string{encrypted}})
	alice.Must(t, "PUT", v3+"/user/"+url.PathEscape(alice.UserID)+"/rooms/"+url.PathEscape(plain)+"/tags/m.favourite", object{"order": 0.5})
	for name, c := range map[string]struct {
		filter object
		want   []string
	}{
		"none":           {nil, sorted(plain, encrypted, space, invited)},
		"is_dm":          {object{"is_dm": true}, sorted(encrypted)},
		"not is_dm":      {object{"is_dm": false}, sorted(plain, space, invited)},
		"is_encrypted":   {object{"is_encrypted": true}, sorted(encrypted)},
		"not encrypted":  {object{"is_encrypted": false}, sorted(plain, space, invited)},
		"is_invite":      {object{"is_invite": true}, sorted(invited)},
		"is_invited":     {object{"is_invited": false}, sorted(plain, encrypted, space)},
		"spaces":         {object{"spaces": []string{space}}, sorted(plain)},
		"unknown space":  {object{"spaces": []string{"!x:" + apptest.Name}}, sorted()},
		"room_types":     {object{"room_types": []any{"m.space"}}, sorted(space)},
		"no type":        {object{"room_types": []any{nil}}, sorted(plain, encrypted, invited)},
		"not_room_types": {object{"not_room_types": []any{"m.space"}}, sorted(plain, encrypted, invited)},
		"tags":           {object{"tags": []string{"m.favourite"}}, sorted(plain)},
		"not_tags":       {object{"not_tags": []string{"m.favourite"}}, sorted(encrypted, space, invited)},
		"both":           {object{"tags": []string{"m.favourite"}, "not_tags": []string{"m.favourite"}}, sorted()},
	} {
		t.Run(name, func(t *testing.T) {
			a := slide(t, alice, window(0, 99, 1, nil, c.filter)).ask()
			same(t, "rooms", rooms(a), c.want)
			same(t, "count", a.Lists["all"].Count, len(c.want))
		})
	}
}

// The state that is required, with its wildcards and names for members.
func TestRequiredState(t *testing.T) {
	s := apptest.Start(t)
	alice, bob, carol := s.User(t, "alice"), s.User(t, "bob"), s.User(t, "carol")
	room := alice.CreateRoom(t, object{"preset": "public_chat", "name": "n"})
	bob.Join(t, room)
	carol.Join(t, room)
	carol.Send(t, room, "hello")
	me, sender, third := "member/"+alice.UserID, "member/"+carol.UserID, "member/"+bob.UserID
	all := "create/ guest_access/ history_visibility/ join_rules/ " + me + " " + third + " " + sender + " name/ power_levels/"
	for name, c := range map[string]struct {
		state any
		want  string
	}{
		"nothing":      {nil, ""},
		"one":          {[][]string{{"m.room.name", ""}}, "name/"},
		"not there":    {[][]string{{"m.room.topic", ""}}, ""},
		"me":           {[][]string{{"m.room.member", "$ME"}}, me},
		"lazy":         {[][]string{{"m.room.member", "$LAZY"}}, me + " " + sender},
		"all members":  {[][]string{{"m.room.member", "*"}}, me + " " + third + " " + sender},
		"all":          {[][]string{{"*", "*"}}, all},
		"all but lazy": {[][]string{{"*", "*"}, {"m.room.member", "$LAZY"}}, strings.Replace(all, third+" ", "", 1)},
		"by key":       {[][]string{{"*", bob.UserID}}, third},
		"stable":       {object{"include": []object{{"type": "m.room.name", "state_key": ""}, {"type": "m.room.create"}}}, "create/ name/"},
		"stable lazy": {
			object{"include": []object{{}}, "exclude": []object{{"type": "m.room.name"}}, "lazy_members": true},
			strings.NewReplacer(third+" ", "", "name/ ", "").Replace(all),
		},
		"stable nothing": {object{}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			body := object{"room_subscriptions": object{room: object{"timeline_limit": 1, "required_state": c.state}}}
			same(t, "state", slide(t, alice, body).ask().Rooms[room].state(), c.want)
		})
	}

	// What is asked for later comes at once; what changed, once; members as they speak.
	body := func(state [][]string) object {
		return object{"room_subscriptions": object{room: object{"timeline_limit": 1, "required_state": state}}}
	}
	c := slide(t, alice, body([][]string{{"m.room.name", ""}, {"m.room.member", "$LAZY"}}))
	c.ask()
	c.body = body([][]string{{"m.room.name", ""}, {"m.room.create", ""}, {"m.room.member", "$LAZY"}})
	same(t, "asked for later", c.ask().Rooms[room].state(), "create/")
	alice.Must(t, "PUT", at(room, "state", "m.room.name"), object{"name": "new"})
	r := c.ask().Rooms[room]
	same(t, "changed", []any{r.state(), *r.Name}, []any{"name/", "new"})
	bob.Send(t, room, "x")
	same(t, "who speaks", c.ask().Rooms[room].state(), third)
	bob.Send(t, room, "y")
	same(t, "and speaks again", c.ask().Rooms[room].state(), "")
}

// A timeline that is to be longer is told as a whole, what has been told too.
func TestTimelineGrows(t *testing.T) {
	s := apptest.Start(t)
	alice := s.User(t, "alice")
	room := alice.CreateRoom(t, nil)
	for i := range 6 {
		alice.Send(t, room, fmt.Sprint(i))
	}
	body := func(limit int) object {
		return object{"room_subscriptions": object{room: object{"timeline_limit": limit}}}
	}
	c := slide(t, alice, body(2))
	same(t, "first", c.ask().Rooms[room].bodies(), "4 5")
	c.body = body(4)
	r := c.ask().Rooms[room]
	same(t, "grown", []any{r.bodies(), r.Expanded, r.Initial, r.Limited, r.Live}, []any{"2 3 4 5", true, false, true, 0})
	c.body = body(3)
	same(t, "known", len(c.ask().Rooms), 0)
	c.body = body(4)
	same(t, "still known", len(c.ask().Rooms), 0)
	messages := alice.Must(t, "GET", at(room, "messages")+"?dir=b&limit=1&from="+r.PrevBatch, nil)["chunk"].([]any)
	same(t, "before it", messages[0].(object)["content"].(object)["body"], any("1"))
	messages = alice.Must(t, "GET", at(room, "messages")+"?dir=b&limit=1&from="+url.QueryEscape(c.pos), nil)["chunk"].([]any)
	same(t, "before the position", messages[0].(object)["content"].(object)["body"], any("5"))
	for i := range 6 {
		alice.Send(t, room, fmt.Sprint("more", i))
	}
	r = c.ask().Rooms[room]
	same(t, "a gap", []any{r.bodies(), r.Limited, r.Live, r.Expanded}, []any{"more2 more3 more4 more5", true, 4, false})
	c.body = body(100)
	r = c.ask().Rooms[room]
	same(t, "everything", []any{r.Limited, r.Expanded, len(r.Timeline) > 12}, []any{false, true, true})
}
