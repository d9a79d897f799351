package rooms_test

import (
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/hubbub-chat/hubbub/internal/app/apptest"
)

// scene is a room with two who are in it.
type scene struct {
	*testing.T
	alice, bob *apptest.Client
	room       string
	sent       int
}

func newScene(t *testing.T, options object) *scene {
	s := apptest.Start(t)
	sc := &scene{T: t, alice: s.User(t, "alice"), bob: s.User(t, "bob")}
	if options == nil {
		options = object{"preset": "public_chat"}
	}
	sc.room = sc.alice.CreateRoom(t, options)
	sc.bob.Join(t, sc.room)
	return sc
}

func relates(relType, parent string) object { return object{"rel_type": relType, "event_id": parent} }

// path is where an event of a type can be sent.
func (s *scene) path(typ string) string {
	s.sent++
	return at(s.room, "send", typ, fmt.Sprintf("rel%d", s.sent))
}

// say sends a text message that relates to something, if relation is not nil.
func (s *scene) say(by *apptest.Client, text string, relation object) string {
	s.Helper()
	content := object{"msgtype": "m.text", "body": text}
	if relation != nil {
		content["m.relates_to"] = relation
	}
	return by.Must(s.T, "PUT", s.path("m.room.message"), content)["event_id"].(string)
}

func (s *scene) reply(by *apptest.Client, root, text string) string {
	s.Helper()
	return s.say(by, text, relates("m.thread", root))
}

func (s *scene) edit(by *apptest.Client, of, text string) string {
	s.Helper()
	return by.Must(s.T, "PUT", s.path("m.room.message"), object{
		"msgtype": "m.text", "body": "* " + text, "m.relates_to": relates("m.replace", of),
		"m.new_content": object{"msgtype": "m.text", "body": text},
	})["event_id"].(string)
}

func (s *scene) react(by *apptest.Client, to, key string) string {
	s.Helper()
	relation := relates("m.annotation", to)
	relation["key"] = key
	return by.Must(s.T, "PUT", s.path("m.reaction"), object{"m.relates_to": relation})["event_id"].(string)
}

func (s *scene) redact(by *apptest.Client, id string) {
	s.Helper()
	s.sent++
	by.Must(s.T, "PUT", at(s.room, "redact", id, fmt.Sprintf("red%d", s.sent)), object{})
}

// relations is an answer of /relations; more are its further path and query.
func (s *scene) relations(by *apptest.Client, of, more string) object {
	s.Helper()
	return by.Must(s.T, "GET", s.v1("relations", of)+more, nil)
}

func (s *scene) v1(segments ...string) string {
	return strings.Replace(at(s.room, segments...), "/v3/", "/v1/", 1)
}

// bundled is m.relations of an event as GET /event has it.
func (s *scene) bundled(by *apptest.Client, id string) object {
	s.Helper()
	b, _ := apptest.At(by.Must(s.T, "GET", at(s.room, "event", id), nil), "unsigned", "m.relations").(object)
	return b
}

func eventIDs(events []object) []string {
	out := []string{}
	for _, e := range events {
		out = append(out, fmt.Sprint(e["event_id"]))
	}
	return out
}

func (s *scene) chunk(o object) []string {
	s.Helper()
	return eventIDs(list(s.T, o, "chunk"))
}

func TestRelationsLists(t *testing.T) {
	s := newScene(t, nil)
	root := s.say(s.alice, "root", nil)
	other := s.say(s.alice, "other", nil)
	reply := s.reply(s.bob, root, "reply")
	s.reply(s.bob, other, "elsewhere")
	edit := s.edit(s.alice, root, "root!")
	smile := s.react(s.bob, root, "🙂")
	odd := s.say(s.alice, "odd", relates("org.example.odd", root))
	even := s.say(s.alice, "even", relates("org.example.even", root))
	s.say(s.alice, "a rich reply", object{"m.in_reply_to": object{"event_id": root}})
	s.say(s.alice, "to nothing", relates("m.reference", "$"+strings.Repeat("x", 43)))

	for more, want := range map[string][]string{
		"":                              {even, odd, smile, edit, reply},
		"?dir=f":                        {reply, edit, smile, odd, even},
		"/m.thread":                     {reply},
		"/m.thread/m.room.message":      {reply},
		"/m.thread/m.sticker":           {},
		"/m.annotation":                 {smile},
		"/m.annotation/m.reaction":      {smile},
		"/org.example.odd":              {odd},
		"/m.reference":                  {},
		"/m.replace?recurse=false":      {edit},
		"/org.example.even?dir=f":       {even},
		"?limit=2":                      {even, odd},
		"?limit=2&dir=f":                {reply, edit},
		"/org.example.odd?recurse=true": {odd},
	} {
		same(t, "relations"+more, s.chunk(s.relations(s.bob, root, more)), want)
	}
	first := s.relations(s.alice, root, "")
	for _, name := range []string{"next_batch", "prev_batch", "recursion_depth"} {
		if _, ok := first[name]; ok {
			t.Errorf("an answer with all has %s", name)
		}
	}
	same(t, "recursion_depth", s.relations(s.alice, root, "?recurse=true")["recursion_depth"], 3)
	same(t, "room", list(t, first, "chunk")[0]["room_id"], s.room)
	same(t, "the old path", s.chunk(s.alice.Must(t, "GET", strings.Replace(s.v1("relations", root, "m.thread"), "/v1/", "/unstable/", 1), nil)), []string{reply})

	for query, code := range map[string]string{
		"?dir=x": "M_INVALID_PARAM", "?limit=x": "M_INVALID_PARAM", "?from=x": "M_INVALID_PARAM", "?to=x": "M_INVALID_PARAM",
		"?recurse=maybe": "M_INVALID_PARAM",
	} {
		s.alice.Fails(t, "GET", s.v1("relations", root)+query, nil, 400, code)
	}
	s.alice.Fails(t, "GET", s.v1("relations", "$"+strings.Repeat("x", 43)), nil, 404, "M_NOT_FOUND")
	stranger := s.alice.Server.User(t, "stranger")
	stranger.Fails(t, "GET", s.v1("relations", root), nil, 404, "M_NOT_FOUND")
	s.alice.Server.Anonymous().Fails(t, "GET", s.v1("relations", root), nil, 401, "M_MISSING_TOKEN")
}

func TestRelationsPages(t *testing.T) {
	s := newScene(t, nil)
	root := s.say(s.alice, "root", nil)
	var all []string
	middle := ""
	for i := range 9 {
		switch i % 3 {
		case 0:
			all = append(all, s.reply(s.bob, root, fmt.Sprint(i)))
		case 1:
			all = append(all, s.react(s.bob, root, fmt.Sprint(i)))
		default:
			all = append(all, s.say(s.bob, fmt.Sprint(i), relates("x.y", root)))
		}
		if i == 4 {
			middle = url.QueryEscape(s.alice.Sync(t, "")["next_batch"].(string))
		}
	}
	walk := func(query string, limit int) (out []string) {
		from := ""
		for range 20 {
			page := s.relations(s.alice, root, fmt.Sprintf("?limit=%d%s%s", limit, query, from))
			out = append(out, s.chunk(page)...)
			if from != "" {
				same(t, "prev_batch", page["prev_batch"], strings.TrimPrefix(from, "&from="))
			}
			next, more := page["next_batch"].(string)
			if !more {
				return out
			}
			same(t, "a full page", len(s.chunk(page)), limit)
			from = "&from=" + next
		}
		t.Fatal("the pages do not end")
		return nil
	}
	backward := func(of []string) (out []string) {
		for i := len(of) - 1; i >= 0; i-- {
			out = append(out, of[i])
		}
		return out
	}
	for _, limit := range []int{1, 2, 3, 4, 9, 10} {
		same(t, fmt.Sprintf("forward by %d", limit), walk("&dir=f", limit), all)
		same(t, fmt.Sprintf("backward by %d", limit), walk("", limit), backward(all))
	}
	same(t, "on from a sync", s.chunk(s.relations(s.alice, root, "?dir=f&from="+middle)), all[5:])
	same(t, "back from a sync", s.chunk(s.relations(s.alice, root, "?from="+middle)), backward(all[:5]))
	same(t, "up to a sync", s.chunk(s.relations(s.alice, root, "?dir=f&to="+middle)), all[:5])
	same(t, "down to a sync", s.chunk(s.relations(s.alice, root, "?to="+middle)), backward(all[5:]))
	same(t, "to before from", s.chunk(s.relations(s.alice, root, "?dir=f&to=t1&from="+middle)), []string{})
}

func TestRelationsRecursion(t *testing.T) {
	s := newScene(t, nil)
	root := s.say(s.alice, "root", nil)
	reply := s.reply(s.alice, root, "reply")
	edit := s.edit(s.alice, reply, "reply!")
	smile := s.react(s.bob, reply, "🙂")
	onSmile := s.say(s.bob, "on a smile", relates("m.reference", smile))
	tooDeep := s.say(s.bob, "too deep", relates("m.reference", onSmile))
	reference := s.say(s.bob, "reference", relates("m.reference", root))
	further := s.say(s.bob, "further", relates("m.reference", reference))

	for more, want := range map[string][]string{
		"?recurse=true":               {further, reference, onSmile, smile, edit, reply},
		"?recurse=true&limit=2":       {further, reference},
		"?recurse=true&limit=2&dir=f": {reply, edit},
		"":                            {reference, reply},
		"/m.reference?recurse=true":   {further, reference},
		"/m.reference/m.room.message?recurse=true": {further, reference},
		"/m.thread?recurse=true":                   {reply},
		"/m.annotation?recurse=true":               {},
	} {
		same(t, "relations"+more, s.chunk(s.relations(s.bob, root, more)), want)
	}
	same(t, "from below", s.chunk(s.relations(s.bob, smile, "?recurse=true")), []string{tooDeep, onSmile})

	// What relates to something that was redacted is no longer related through it.
	s.redact(s.bob, smile)
	same(t, "through a redacted event", s.chunk(s.relations(s.bob, root, "?recurse=true")), []string{further, reference, edit, reply})
	after := s.say(s.bob, "afterwards", relates("m.reference", smile))
	same(t, "through one redacted before", s.chunk(s.relations(s.bob, root, "?recurse=true")), []string{further, reference, edit, reply})
	same(t, "of the redacted event", s.chunk(s.relations(s.bob, smile, "")), []string{after, onSmile})
}

func TestRelationsVisibility(t *testing.T) {
	s := newScene(t, object{"preset": "public_chat", "initial_state": []object{
		{"type": "m.room.history_visibility", "content": object{"history_visibility": "joined"}},
	}})
	root := s.say(s.alice, "root", nil)
	shown := s.reply(s.alice, root, "shown")
	leave(t, s.bob, s.room)
	s.reply(s.alice, root, "hidden")
	hiddenEdit := s.edit(s.alice, root, "hidden")
	same(t, "after leaving", s.chunk(s.relations(s.bob, root, "")), []string{shown})
	thread := s.bundled(s.bob, root)["m.thread"].(object)
	same(t, "latest after leaving", apptest.At(thread, "latest_event", "event_id"), shown)
	same(t, "replies before leaving", thread["count"], 1)
	same(t, "thread after leaving", s.chunk(s.bob.Must(t, "GET", s.v1("threads"), nil)), []string{root})
	s.bob.Join(t, s.room)
	last := s.reply(s.alice, root, "shown again")
	same(t, "after coming back", s.chunk(s.relations(s.bob, root, "?limit=1")), []string{last})
	same(t, "after coming back", s.chunk(s.relations(s.bob, root, "")), []string{last, shown})
	if e := s.bundled(s.bob, root)["m.replace"]; e != nil {
		t.Errorf("an edit that bob may not see is bundled: %v", e)
	}
	same(t, "alice sees the edit", apptest.At(s.bundled(s.alice, root), "m.replace", "event_id"), hiddenEdit)
	late := s.alice.Server.User(t, "late")
	late.Join(t, s.room)
	late.Fails(t, "GET", s.v1("relations", root), nil, 404, "M_NOT_FOUND")
}

func TestDuplicateAnnotation(t *testing.T) {
	s := newScene(t, nil)
	root := s.say(s.alice, "root", nil)
	first := s.react(s.bob, root, "👍")
	s.react(s.alice, root, "👍")
	s.react(s.bob, root, "👎")
	again := func() (string, object) {
		relation := relates("m.annotation", root)
		relation["key"] = "👍"
		return s.path("m.reaction"), object{"m.relates_to": relation}
	}
	path, body := again()
	s.bob.Fails(t, "PUT", path, body, 400, "M_DUPLICATE_ANNOTATION")
	s.bob.Must(t, "PUT", s.path("org.example.reaction"), body)
	s.redact(s.bob, first)
	second := s.react(s.bob, root, "👍")
	s.redact(s.bob, first) // again, which must not take the second for the first
	path, body = again()
	s.bob.Fails(t, "PUT", path, body, 400, "M_DUPLICATE_ANNOTATION")
	same(t, "annotations", s.chunk(s.relations(s.bob, root, "/m.annotation?limit=1&dir=b"))[0], second)
	same(t, "annotations", len(s.chunk(s.relations(s.bob, root, "/m.annotation/m.reaction"))), 3)
	if b := s.bundled(s.bob, root); b != nil {
		t.Errorf("annotations are aggregated: %v", b)
	}
	stranger := s.alice.Server.User(t, "stranger")
	stranger.Fails(t, "PUT", path, body, 403, "M_FORBIDDEN")
	// The same request again is no second annotation.
	path, body = s.path("m.reaction"), object{"m.relates_to": object{"rel_type": "m.annotation", "event_id": root, "key": "x"}}
	once := s.bob.Must(t, "PUT", path, body)
	same(t, "repeated request", s.bob.Must(t, "PUT", path, body)["event_id"], once["event_id"])
}

func TestEdits(t *testing.T) {
	s := newScene(t, nil)
	root := s.say(s.alice, "root", nil)
	first := s.edit(s.alice, root, "one")
	replacement := func() any { return apptest.At(s.bundled(s.bob, root), "m.replace", "event_id") }
	same(t, "first edit", replacement(), first)
	second := s.edit(s.alice, root, "two")
	// The server's clock may give both the same time; then the greater ID counts.
	time := func(id string) float64 {
		return s.alice.Must(t, "GET", at(s.room, "event", id), nil)["origin_server_ts"].(float64)
	}
	if time(first) == time(second) && first > second {
		first, second = second, first
	}
	same(t, "latest edit", replacement(), second)

	// What is not valid: by another, of another type, of an edit, without new content, of state.
	s.edit(s.bob, root, "not mine")
	s.alice.Must(t, "PUT", s.path("m.sticker"), object{"m.new_content": object{}, "m.relates_to": relates("m.replace", root)})
	s.say(s.alice, "nothing new", relates("m.replace", root))
	s.edit(s.alice, second, "an edit of an edit")
	same(t, "still the same", replacement(), second)
	if b := s.bundled(s.alice, second); b != nil {
		t.Errorf("an edit of an edit is bundled: %v", b)
	}
	same(t, "all are relations", len(s.chunk(s.relations(s.alice, root, "/m.replace"))), 5)

	// The content is as it was sent; the replacement is a whole event.
	got := s.bob.Must(t, "GET", at(s.room, "event", root), nil)
	same(t, "content", apptest.At(got, "content", "body"), "root")
	edit := apptest.At(got, "unsigned", "m.relations", "m.replace")
	for _, field := range []string{"content", "sender", "origin_server_ts", "type", "room_id", "event_id"} {
		if apptest.At(edit, field) == nil {
			t.Errorf("the replacement has no %s: %v", field, edit)
		}
	}
	if body := apptest.At(edit, "content", "m.new_content", "body"); body != "one" && body != "two" {
		t.Errorf("new content %v", body)
	}

	s.redact(s.alice, second)
	same(t, "back to the other", replacement(), first)
	s.redact(s.alice, first)
	same(t, "none", replacement(), nil)
	third := s.edit(s.alice, root, "three")
	same(t, "third", replacement(), third)
	s.redact(s.alice, root)
	same(t, "of a redacted event", replacement(), nil)
	same(t, "it is still related", s.chunk(s.relations(s.alice, root, "/m.replace"))[0], third)

	// The server cannot look into what is encrypted.
	secret := s.alice.Must(t, "PUT", s.path("m.room.encrypted"), object{"algorithm": "x", "ciphertext": "y"})["event_id"].(string)
	hidden := s.alice.Must(t, "PUT", s.path("m.room.encrypted"), object{"ciphertext": "z", "m.relates_to": relates("m.replace", secret)})["event_id"]
	same(t, "encrypted", apptest.At(s.bundled(s.bob, secret), "m.replace", "event_id"), hidden)

	topic := s.alice.Must(t, "PUT", at(s.room, "state", "m.room.topic", ""), object{"topic": "x"})["event_id"].(string)
	s.alice.Must(t, "PUT", s.path("m.room.topic"), object{"topic": "y", "m.new_content": object{}, "m.relates_to": relates("m.replace", topic)})
	if b := s.bundled(s.alice, topic); b != nil {
		t.Errorf("state is edited: %v", b)
	}
}

func TestThreadSummary(t *testing.T) {
	s := newScene(t, nil)
	carol := s.alice.Server.User(t, "carol")
	carol.Join(t, s.room)
	root := s.say(s.alice, "root", nil)
	one := s.reply(s.alice, root, "one")
	two := s.reply(s.bob, root, "two")
	edit := s.edit(s.bob, two, "two!")
	s.react(carol, two, "🙂")
	thread := func(by *apptest.Client) string {
		o := s.bundled(by, root)["m.thread"]
		return fmt.Sprint(apptest.At(o, "count"), apptest.At(o, "latest_event", "event_id"), apptest.At(o, "current_user_participated"))
	}
	same(t, "by who began it", thread(s.alice), fmt.Sprint(2, two, true))
	same(t, "by who replied", thread(s.bob), fmt.Sprint(2, two, true))
	same(t, "by who reacted only", thread(carol), fmt.Sprint(2, two, false))
	inner := apptest.At(s.bundled(carol, root), "m.thread", "latest_event", "unsigned", "m.relations", "m.replace", "event_id")
	same(t, "edit of the latest", inner, edit)

	// Who ignores bob has not heard of his reply.
	carol.Must(t, "PUT", v3+"/user/"+carol.UserID+"/account_data/m.ignored_user_list", object{"ignored_users": object{s.bob.UserID: object{}}})
	same(t, "without the ignored", thread(carol), fmt.Sprint(1, one, false))
	same(t, "relations without the ignored", s.chunk(s.relations(carol, root, "")), []string{one})

	s.redact(s.bob, two)
	same(t, "after a redaction", thread(s.alice), fmt.Sprint(1, one, true))
	same(t, "bob takes no part now", thread(s.bob), fmt.Sprint(1, one, false))
	s.redact(s.alice, root)
	same(t, "of a redacted root", thread(s.bob), fmt.Sprint(1, one, false))
	s.redact(s.alice, one)
	if b := s.bundled(s.alice, root); b != nil {
		t.Errorf("a thread without replies is bundled: %v", b)
	}
	same(t, "no threads", s.chunk(s.alice.Must(t, "GET", s.v1("threads"), nil)), []string{})

	// A thread begins at an event that relates to nothing; a rich reply is that.
	rich := s.say(s.alice, "rich", object{"m.in_reply_to": object{"event_id": root}})
	begun := s.reply(s.bob, rich, "thread of a rich reply")
	for _, child := range []string{begun, s.say(s.alice, "reference", relates("m.reference", rich))} {
		s.alice.Fails(t, "PUT", s.path("m.room.message"), object{"body": "x", "m.relates_to": relates("m.thread", child)}, 400, "M_UNKNOWN")
	}
}

func TestThreadsList(t *testing.T) {
	s := newScene(t, nil)
	var roots []string
	for i := range 5 {
		by := s.alice
		if i == 1 {
			by = s.bob
		}
		roots = append(roots, s.say(by, fmt.Sprint(i), nil))
	}
	for _, root := range roots {
		s.reply(s.alice, root, "reply")
	}
	s.reply(s.bob, roots[3], "bob")
	last := s.reply(s.alice, roots[0], "last")
	threads := func(by *apptest.Client, query string) object { return by.Must(t, "GET", s.v1("threads")+query, nil) }
	order := func(of ...int) (out []string) {
		for _, i := range of {
			out = append(out, roots[i])
		}
		return out
	}
	same(t, "by latest reply", s.chunk(threads(s.alice, "")), order(0, 3, 4, 2, 1))
	same(t, "of bob", s.chunk(threads(s.bob, "?include=participated")), order(3, 1))
	same(t, "of alice", s.chunk(threads(s.alice, "?include=participated")), order(0, 3, 4, 2, 1))
	var walked []string
	from := ""
	for range 5 {
		page := threads(s.bob, "?include=all&limit=2"+from)
		walked = append(walked, s.chunk(page)...)
		next, more := page["next_batch"].(string)
		if !more {
			break
		}
		from = "&from=" + next
	}
	same(t, "by pages", walked, order(0, 3, 4, 2, 1))
	same(t, "by pages of bob's", s.chunk(threads(s.bob, "?include=participated&limit=1&from="+threads(s.bob, "?include=participated&limit=1")["next_batch"].(string))), order(1))

	first := list(t, threads(s.alice, ""), "chunk")[0]
	same(t, "bundled", apptest.At(first, "unsigned", "m.relations", "m.thread", "latest_event", "event_id"), last)
	s.redact(s.alice, last)
	same(t, "after its last reply is redacted", s.chunk(threads(s.alice, "")), order(3, 4, 2, 1, 0))

	s.bob.Must(t, "PUT", v3+"/user/"+s.bob.UserID+"/account_data/m.ignored_user_list", object{"ignored_users": object{s.alice.UserID: object{}}})
	ignored := list(t, threads(s.bob, ""), "chunk")[0]
	same(t, "the root of an ignored user is there", ignored["event_id"], roots[3])
	same(t, "and empty", ignored["content"], "map[]")

	s.alice.Fails(t, "GET", s.v1("threads")+"?include=some", nil, 400, "M_INVALID_PARAM")
	s.alice.Fails(t, "GET", s.v1("threads")+"?from=x", nil, 400, "M_INVALID_PARAM")
	s.alice.Fails(t, "GET", s.v1("threads")+"?limit=x", nil, 400, "M_INVALID_PARAM")
	stranger := s.alice.Server.User(t, "stranger")
	stranger.Fails(t, "GET", s.v1("threads"), nil, 403, "M_FORBIDDEN")
}

// The aggregations are in every answer that shows the event.
func TestBundledEverywhere(t *testing.T) {
	s := newScene(t, nil)
	before := s.alice.Sync(t, "")["next_batch"].(string)
	root := s.say(s.alice, "root", nil)
	edit := s.edit(s.alice, root, "root!")
	s.reply(s.bob, root, "reply")
	has := func(what string, events []object) {
		t.Helper()
		for _, e := range events {
			if e["event_id"] == root {
				same(t, what, apptest.At(e, "unsigned", "m.relations", "m.replace", "event_id"), edit)
				same(t, what, apptest.At(e, "unsigned", "m.relations", "m.thread", "count"), 1)
				return
			}
		}
		t.Errorf("%s: the event is not there", what)
	}
	has("messages", list(t, s.alice.Must(t, "GET", at(s.room, "messages")+"?dir=b", nil), "chunk"))
	context := s.alice.Must(t, "GET", at(s.room, "context", edit), nil)
	has("events_before", list(t, context, "events_before"))
	context = s.alice.Must(t, "GET", at(s.room, "context", root), nil)
	has("context", []object{context["event"].(object)})
	has("event", []object{s.alice.Must(t, "GET", at(s.room, "event", root), nil)})
	has("threads", list(t, s.alice.Must(t, "GET", s.v1("threads"), nil), "chunk"))
	timeline := func(since string) []object {
		return list(t, apptest.At(s.alice.Sync(t, since), "rooms", "join", s.room, "timeline").(object), "events")
	}
	initial := timeline("")
	has("initial sync", initial)
	for _, e := range initial {
		if e["event_id"] == root {
			same(t, "no room_id inside a sync", apptest.At(e, "unsigned", "m.relations", "m.replace", "room_id"), nil)
		}
	}
	// Without a gap the client has it all anyway.
	for _, e := range timeline(before) {
		same(t, "sync without a gap", apptest.At(e, "unsigned", "m.relations"), nil)
	}
	filter := url.QueryEscape(`{"room":{"timeline":{"limit":3}}}`)
	gap := s.alice.Must(t, "GET", v3+"/sync?timeout=0&since="+before+"&filter="+filter, nil)
	same(t, "with a limit of all there is", apptest.At(gap, "rooms", "join", s.room, "timeline", "limited"), false)
	filter = url.QueryEscape(`{"room":{"timeline":{"limit":2,"not_types":["m.reaction"]}}}`)
	s.react(s.bob, root, "x")
	again := s.say(s.alice, "more", nil)
	s.edit(s.alice, again, "more!")
	gap = s.alice.Must(t, "GET", v3+"/sync?timeout=0&since="+before+"&filter="+filter, nil)
	section := apptest.At(gap, "rooms", "join", s.room, "timeline").(object)
	same(t, "with a gap", section["limited"], true)
	same(t, "bundled in a gap", apptest.At(list(t, section, "events")[0], "unsigned", "m.relations", "m.replace", "content", "m.new_content", "body"), "more!")
}

// Polls, locations and pins are events like others; the responses to a poll are
// references to it.
func TestPollsLocationsPins(t *testing.T) {
	s := newScene(t, nil)
	poll := s.alice.Must(t, "PUT", s.path("m.poll.start"), object{"m.poll": object{
		"kind": "m.disclosed", "max_selections": 1, "question": object{"m.text": []object{{"body": "Tea or coffee?"}}},
		"answers": []object{{"m.id": "tea", "m.text": []object{{"body": "Tea"}}}, {"m.id": "coffee", "m.text": []object{{"body": "Coffee"}}}},
	}})["event_id"].(string)
	var want []string
	var chunk []any
	for _, by := range []*apptest.Client{s.alice, s.bob} {
		id := by.Must(t, "PUT", s.path("m.poll.response"), object{
			"m.selections": []string{"tea"}, "m.relates_to": relates("m.reference", poll),
		})["event_id"].(string)
		want, chunk = append(want, id), append(chunk, object{"event_id": id})
	}
	same(t, "responses", s.chunk(s.relations(s.alice, poll, "/m.reference/m.poll.response?dir=f")), want)
	same(t, "bundled responses", apptest.At(s.bundled(s.bob, poll), "m.reference", "chunk"), chunk)
	s.redact(s.alice, want[0])
	same(t, "after a response is redacted", apptest.At(s.bundled(s.bob, poll), "m.reference", "chunk"), chunk[1:])
	end := s.alice.Must(t, "PUT", s.path("m.poll.end"), object{
		"m.text": []object{{"body": "Tea"}}, "m.relates_to": relates("m.reference", poll),
	})["event_id"].(string)
	same(t, "end", s.chunk(s.relations(s.alice, poll, "/m.reference/m.poll.end")), []string{end})

	place := s.bob.Must(t, "PUT", s.path("m.room.message"), object{
		"msgtype": "m.location", "body": "here", "geo_uri": "geo:51.5008,0.1247", "m.location": object{"uri": "geo:51.5008,0.1247"},
	})["event_id"].(string)
	same(t, "place", apptest.At(s.alice.Must(t, "GET", at(s.room, "event", place), nil), "content", "geo_uri"), "geo:51.5008,0.1247")

	s.alice.Must(t, "PUT", at(s.room, "state", "m.room.pinned_events", ""), object{"pinned": []string{place}})
	same(t, "pins", state(t, s.bob, s.room, "m.room.pinned_events")["pinned"], []string{place})
	s.bob.Fails(t, "PUT", at(s.room, "state", "m.room.pinned_events", ""), object{"pinned": []string{}}, 403, "M_FORBIDDEN")
}

// Filters can ask what relates to an event, as clients did before there was /threads.
func TestRelatedByFilter(t *testing.T) {
	s := newScene(t, nil)
	one := s.say(s.alice, "one", nil)
	two := s.say(s.alice, "two", nil)
	s.reply(s.bob, one, "reply")
	s.edit(s.alice, two, "two!")
	messages := func(filter string) []string {
		return s.chunk(s.alice.Must(t, "GET", at(s.room, "messages")+"?dir=f&filter="+url.QueryEscape(filter), nil))
	}
	same(t, "threads", messages(`{"related_by_rel_types":["m.thread"]}`), []string{one})
	same(t, "both", messages(`{"related_by_rel_types":["m.thread","m.replace"]}`), []string{one, two})
	same(t, "neither", messages(`{"related_by_rel_types":[]}`), []string{})
	same(t, "by bob", messages(`{"related_by_senders":["`+s.bob.UserID+`"]}`), []string{one})
	same(t, "edited by bob", messages(`{"related_by_rel_types":["m.replace"],"related_by_senders":["`+s.bob.UserID+`"]}`), []string{})
	same(t, "replies", len(messages(`{"org.matrix.msc3874.rel_types":["m.thread"]}`)), 1)
	same(t, "no replies and no edits", messages(`{"types":["m.room.message"],"org.matrix.msc3874.not_rel_types":["m.thread","m.replace"]}`), []string{one, two})
	same(t, "related to nothing", messages(`{"types":["m.room.message"],"org.matrix.msc3874.rel_types":[""]}`), []string{one, two})
	filter := url.QueryEscape(`{"room":{"timeline":{"related_by_rel_types":["m.replace"]}}}`)
	sync := s.alice.Must(t, "GET", v3+"/sync?timeout=0&filter="+filter, nil)
	same(t, "sync", eventIDs(list(t, apptest.At(sync, "rooms", "join", s.room, "timeline").(object), "events")), []string{two})
	for filter, code := range map[string]string{
		`{"related_by_senders":["x"]}`:                                     "M_BAD_JSON",
		`{"related_by_rel_types":[1]}`:                                     "M_BAD_JSON",
		`{"related_by_rel_types":["` + strings.Repeat(`x","`, 10) + `x"]}`: "M_INVALID_PARAM",
	} {
		s.alice.Fails(t, "GET", at(s.room, "messages")+"?dir=f&filter="+url.QueryEscape(filter), nil, 400, code)
	}
}
