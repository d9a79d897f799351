package rooms_test

import (
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/hubbub-chat/hubbub/internal/app/apptest"
)

// searchIn makes a search and returns its answer. criteria are added to the term.
func searchIn(t testing.TB, by *apptest.Client, term string, criteria object, query string) object {
	t.Helper()
	room := object{"search_term": term}
	for k, v := range criteria {
		room[k] = v
	}
	out := by.Must(t, "POST", v3+"/search"+query, object{"search_categories": object{"room_events": room}})
	return apptest.At(out, "search_categories", "room_events").(object)
}

// found are the texts that a search finds, in order.
func found(t testing.TB, by *apptest.Client, term string, criteria object) []string {
	t.Helper()
	return textsOf(t, searchIn(t, by, term, criteria, ""))
}

func textsOf(t testing.TB, answer object) []string {
	t.Helper()
	out := []string{}
	for _, r := range list(t, answer, "results") {
		content := apptest.At(r, "result", "content").(object)
		for _, name := range []string{"body", "name", "topic"} {
			if text, ok := content[name].(string); ok {
				out = append(out, text)
			}
		}
	}
	return out
}

var recent = object{"order_by": "recent"}

func TestSearchText(t *testing.T) {
	s := apptest.Start(t)
	alice := s.User(t, "alice")
	room := alice.CreateRoom(t, nil)
	texts := []string{
		"Das Café in der Straße", "東京タワーに行きました", "مرحبا بالعالم", "Привет, Ёлка!", "Deploy 🚀 done", "version v1.24.3 is out",
		"สวัสดีครับ", "नमस्ते दुनिया", "שָׁלוֹם עולם", "an extraordinary thing", "x", "안녕하세요 여러분",
	}
	for _, text := range texts {
		alice.Send(t, room, text)
	}
	for term, want := range map[string][]string{
		"cafe": {texts[0]}, "CAFÉ": {texts[0]}, "strasse": {texts[0]}, "straße café": {texts[0]}, "straße missing": {},
		"東京": {texts[1]}, "京タ": {texts[1]}, "行": {texts[1]}, "東タ": {}, "た": {texts[1]}, "東京タワーに": {texts[1]},
		"مَرْحَبًا": {texts[2]}, "عالم": {texts[2]}, "привет": {texts[3]}, "ЕЛК": {texts[3]}, "🚀": {texts[4]}, "🚗": {},
		"24": {texts[5]}, "v1.24.3": {texts[5]}, "สวัส": {texts[6]}, "नमस्ते": {texts[7]}, "שלום": {texts[8]},
		"extraord": {texts[9]}, "ordinary": {texts[9]}, "aordi": {texts[9]}, "ordinarx": {}, "x": {texts[10]}, "안녕": {texts[11]}, "여러": {texts[11]},
		"": {}, "...": {}, "\x00": {}, strings.Repeat("y", 500): {},
	} {
		same(t, term, found(t, alice, term, recent), want)
	}
	same(t, "highlights", searchIn(t, alice, "CAFE ordinary", object{}, "")["highlights"], []any{})
	same(t, "highlights", searchIn(t, alice, "CAFE", object{}, "")["highlights"], []any{"café"})
	same(t, "highlights", searchIn(t, alice, "京タ", object{}, "")["highlights"], []any{"京タ"})
}

// TestSearchFollows: what is found is what is there now.
func TestSearchFollows(t *testing.T) {
	sc := newScene(t, nil)
	alice := sc.alice
	first := sc.say(alice, "the secret word", nil)
	same(t, "sent", found(t, alice, "secret", nil), []string{"the secret word"})
	edit := sc.edit(alice, first, "the public word")
	same(t, "edited", found(t, alice, "secret", nil), []string{})
	answer := searchIn(t, alice, "public", nil, "")
	same(t, "edited", apptest.At(list(t, answer, "results")[0], "result", "event_id"), first)
	same(t, "once", answer["count"], 1)
	second := sc.edit(alice, first, "the third word")
	same(t, "edited again", found(t, alice, "public", nil), []string{})
	sc.redact(alice, second)
	same(t, "edit redacted", len(found(t, alice, "public", nil)), 1)
	same(t, "edit redacted", found(t, alice, "third", nil), []string{})
	sc.redact(alice, edit)
	same(t, "no edit left", found(t, alice, "secret", nil), []string{"the secret word"})
	sc.redact(alice, first)
	same(t, "redacted", found(t, alice, "secret", nil), []string{})
	same(t, "redacted", found(t, alice, "word", nil), []string{})

	alice.Must(t, "PUT", at(sc.room, "state", "m.room.name"), object{"name": "Salon"})
	alice.Must(t, "PUT", at(sc.room, "state", "m.room.topic"), object{
		"topic": "Weather", "m.topic": object{"m.text": []object{{"body": "<b>x</b>", "mimetype": "text/html"}, {"body": "Sunshine"}}},
	})
	sc.say(alice, "salon weather", nil)
	for keys, want := range map[string][]string{
		"content.name": {"Salon"}, "content.body": {"salon weather"}, "content.topic": {},
	} {
		same(t, keys, found(t, alice, "salon", object{"keys": []string{keys}}), want)
	}
	same(t, "topic", found(t, alice, "weather", object{"keys": []string{"content.topic", "content.name"}}), []string{"Weather"})
	same(t, "plain topic", found(t, alice, "sunshine", nil), []string{"Weather"})
	same(t, "all keys", len(found(t, alice, "salon", nil)), 2)
	same(t, "no keys", found(t, alice, "salon", object{"keys": []string{}}), []string{})

	alice.Must(t, "PUT", at(sc.room, "state", "m.room.encryption"), object{"algorithm": "m.megolm.v1.aes-sha2"})
	same(t, "encrypted", found(t, alice, "salon", nil), []string{})
}

// TestSearchRights compares what users in every relation to a room find in it.
func TestSearchRights(t *testing.T) {
	s := apptest.Start(t)
	admin, eve := s.User(t, "admin"), s.User(t, "eve")
	clients := make(map[string]*apptest.Client)
	for _, relation := range strings.Fields("never invited knocking joined left kicked banned declined forgotten") {
		clients[relation] = s.User(t, relation)
	}
	for _, visibility := range []string{"shared", "world_readable", "joined", "invited"} {
		r := newMatrixRoom(t, admin, eve, clients, visibility)
		for relation, c := range clients {
			want := []string{}
			switch relation {
			case "joined":
				want = []string{"after", "before"}
			case "left", "kicked", "banned":
				want = []string{"before"}
			}
			filter := object{"order_by": "recent", "filter": object{"rooms": []string{r.id}}}
			got := append(found(t, c, "before", filter), found(t, c, "after", filter)...)
			slices.Sort(got)
			same(t, visibility+" "+relation, got, want)
		}
	}
	s.Anonymous().Fails(t, "POST", v3+"/search", object{}, 401, "M_MISSING_TOKEN")
}

// TestSearchEditUnseen: who left before an edit finds what they saw, and nothing of
// what they did not.
func TestSearchEditUnseen(t *testing.T) {
	sc := newScene(t, nil)
	ev := sc.say(sc.alice, "first words", nil)
	leave(t, sc.bob, sc.room)
	sc.edit(sc.alice, ev, "second words")
	same(t, "new text", found(t, sc.bob, "second", nil), []string{})
	for _, r := range list(t, searchIn(t, sc.bob, "words", nil, ""), "results") {
		if strings.Contains(fmt.Sprint(r), "second") {
			t.Errorf("the edit is shown: %v", r)
		}
	}
	same(t, "for a member", len(found(t, sc.alice, "second", nil)), 1)
}

func TestSearchFilters(t *testing.T) {
	s := apptest.Start(t)
	alice, bob := s.User(t, "alice"), s.User(t, "bob")
	var rooms []string
	for i := range 2 {
		room := alice.CreateRoom(t, object{"preset": "public_chat", "name": "needle room"})
		bob.Join(t, room)
		alice.Send(t, room, fmt.Sprint("needle alice ", i))
		bob.Send(t, room, fmt.Sprint("needle bob ", i))
		rooms = append(rooms, room)
	}
	bob.Must(t, "PUT", at(rooms[1], "send", "m.room.message", "url"), object{"msgtype": "m.image", "body": "needle image", "url": "mxc://a/b"})
	all := []string{"needle image", "needle bob 1", "needle alice 1", "needle room", "needle bob 0", "needle alice 0", "needle room"}
	for name, tt := range map[string]struct {
		filter object
		want   []string
	}{
		"none":         {object{}, slices.Clone(all)},
		"room":         {object{"rooms": []string{rooms[0]}}, all[4:]},
		"other room":   {object{"rooms": []string{"!other"}}, []string{}},
		"no room":      {object{"rooms": []string{}}, []string{}},
		"not room":     {object{"not_rooms": []string{rooms[1]}}, all[4:]},
		"sender":       {object{"senders": []string{bob.UserID}}, []string{all[0], all[1], all[4]}},
		"not sender":   {object{"not_senders": []string{alice.UserID}}, []string{all[0], all[1], all[4]}},
		"type":         {object{"types": []string{"m.room.name"}}, []string{all[3], all[6]}},
		"not type":     {object{"not_types": []string{"m.room.n*"}, "rooms": []string{rooms[0]}}, all[4:6]},
		"contains url": {object{"contains_url": true}, all[:1]},
		"limit":        {object{"limit": 2}, all[:2]},
		"limit 0":      {object{"limit": 0}, all[:1]},
	} {
		got := found(t, alice, "needle", object{"order_by": "recent", "filter": tt.filter})
		if name == "none" { // two of them may be of the same millisecond
			slices.Sort(got)
			slices.Sort(tt.want)
		}
		same(t, name, got, tt.want)
	}
	alice.Must(t, "PUT", v3+"/user/"+url.PathEscape(alice.UserID)+"/account_data/m.ignored_user_list", object{"ignored_users": object{bob.UserID: object{}}})
	same(t, "ignored", found(t, alice, "needle bob", nil), []string{})

	bad := func(code string, room object) {
		t.Helper()
		alice.Fails(t, "POST", v3+"/search", object{"search_categories": object{"room_events": room}}, 400, code)
	}
	bad("M_MISSING_PARAM", object{})
	bad("M_BAD_JSON", object{"search_term": 1})
	bad("M_INVALID_PARAM", object{"search_term": strings.Repeat("x ", 300)})
	bad("M_INVALID_PARAM", object{"search_term": "a b c d e f g h i j k l m n o p q"})
	bad("M_INVALID_PARAM", object{"search_term": "x", "keys": []string{"content.x"}})
	bad("M_INVALID_PARAM", object{"search_term": "x", "order_by": "x"})
	bad("M_INVALID_PARAM", object{"search_term": "x", "groupings": object{"group_by": []object{{"key": "x"}}}})
	bad("M_BAD_JSON", object{"search_term": "x", "filter": object{"limit": -1}})
	alice.Fails(t, "POST", v3+"/search", object{}, 400, "M_MISSING_PARAM")
	alice.Fails(t, "POST", v3+"/search?next_batch=x", object{"search_categories": object{"room_events": object{"search_term": "x"}}}, 400, "M_INVALID_PARAM")
	same(t, "nothing asked", alice.Must(t, "POST", v3+"/search", object{"search_categories": object{}}), object{"search_categories": object{}})
}

func TestSearchPages(t *testing.T) {
	s := apptest.Start(t)
	alice, bob := s.User(t, "alice"), s.User(t, "bob")
	var rooms []string
	want := make([][]string, 2) // of each room; the order of two rooms in the same millisecond is open
	for range 2 {
		room := alice.CreateRoom(t, object{"preset": "public_chat"})
		bob.Join(t, room)
		rooms = append(rooms, room)
	}
	for i := range 90 {
		by := alice
		if i%3 == 0 {
			by = bob
		}
		text := fmt.Sprint("page ", i, strings.Repeat(" pages", i%4))
		by.Send(t, rooms[i%2], text)
		want[i%2] = append([]string{text}, want[i%2]...)
	}
	walk := func(criteria object, from string) (out []string, first object) {
		for range 50 {
			query := ""
			if from != "" {
				query = "?next_batch=" + url.QueryEscape(from)
			}
			page := searchIn(t, alice, "page", criteria, query)
			if first == nil {
				first = page
			}
			out = append(out, textsOf(t, page)...)
			next, more := page["next_batch"].(string)
			if !more {
				same(t, "count on the last page", page["count"].(float64) >= float64(len(out)), true)
				return out, first
			}
			from = next
		}
		t.Fatal("the pages do not end")
		return nil, nil
	}
	groupings := object{"group_by": []object{{"key": "room_id"}, {"key": "sender"}}}
	got, first := walk(object{"order_by": "recent", "filter": object{"limit": 7}, "groupings": groupings}, "")
	for i := range 2 {
		of := func(text string) bool {
			n, err := strconv.Atoi(strings.Fields(text)[1])
			return err != nil || n%2 != i
		}
		same(t, "recent", slices.DeleteFunc(slices.Clone(got), of), want[i])
	}
	same(t, "all", len(got), 90)
	same(t, "count", first["count"], 90)
	ranked, _ := walk(object{"filter": object{"limit": 7}}, "")
	same(t, "best first", strings.Count(ranked[0], "page"), 4)
	sorted := slices.Clone(ranked)
	slices.Sort(sorted)
	slices.Sort(got)
	same(t, "ranked are the same", sorted, got)

	bobs := apptest.At(first, "groups", "sender", bob.UserID).(object)
	same(t, "results of bob", len(bobs["results"].([]any)), 2)
	same(t, "order", bobs["order"], 2)
	rest, _ := walk(object{"order_by": "recent", "filter": object{"limit": 7}}, bobs["next_batch"].(string))
	same(t, "rest of bob", len(rest), 28)
	inRoom := apptest.At(first, "groups", "room_id", rooms[1]).(object)
	rest, _ = walk(object{"order_by": "recent", "filter": object{"limit": 7}}, inRoom["next_batch"].(string))
	same(t, "rest of the room", len(rest), 45-len(inRoom["results"].([]any)))
	alice.Fails(t, "POST", v3+"/search?next_batch="+first["next_batch"].(string), object{
		"search_categories": object{"room_events": object{"search_term": "page"}},
	}, 400, "M_INVALID_PARAM")
}

func TestSearchContext(t *testing.T) {
	s := apptest.Start(t)
	alice, bob := s.User(t, "alice"), s.User(t, "bob")
	room := alice.CreateRoom(t, object{"preset": "public_chat", "name": "here"})
	bob.Join(t, room)
	for i := range 7 {
		alice.Send(t, room, fmt.Sprint("message ", i))
	}
	bob.Send(t, room, "message 7")
	criteria := object{"event_context": object{"before_limit": 2, "after_limit": 3, "include_profile": true}, "include_state": true}
	answer := searchIn(t, alice, "message 5", criteria, "")
	result := list(t, answer, "results")[0]
	around := result["context"].(object)
	same(t, "before", bodies(list(t, around, "events_before")), []string{"message 4", "message 3"})
	same(t, "after", bodies(list(t, around, "events_after")), []string{"message 6", "message 7"})
	same(t, "profiles", around["profile_info"], object{alice.UserID: object{"displayname": "alice"}, bob.UserID: object{"displayname": "bob"}})
	older := alice.Must(t, "GET", at(room, "messages")+"?dir=b&limit=2&from="+around["start"].(string), nil)
	same(t, "tokens", bodies(list(t, older, "chunk")), []string{"message 2", "message 1"})
	types := make(map[string]int)
	for _, e := range list(t, answer["state"].(object), room) {
		types[e["type"].(string)]++
	}
	same(t, "state", []int{types["m.room.create"], types["m.room.member"], types["m.room.name"]}, []int{1, 2, 1})
	plain := list(t, searchIn(t, alice, "message 5", object{"event_context": object{"before_limit": 0, "after_limit": -1}}, ""), "results")[0]
	same(t, "no context", len(list(t, plain["context"].(object), "events_before"))+len(list(t, plain["context"].(object), "events_after")), 0)
	if list(t, searchIn(t, alice, "message 5", nil, ""), "results")[0]["context"] != nil {
		t.Error("context that was not asked for")
	}
	// Who left is not told what came after.
	leave(t, bob, room)
	alice.Send(t, room, "message 8")
	gone := list(t, searchIn(t, bob, "message 7", criteria, ""), "results")[0]["context"].(object)
	same(t, "after the leave", bodies(list(t, gone, "events_after")), []string{})
}

// TestSearchUpgraded: a filter for a room means those that it replaced too.
func TestSearchUpgraded(t *testing.T) {
	s := apptest.Start(t)
	alice, bob := s.User(t, "alice"), s.User(t, "bob")
	room := alice.CreateRoom(t, object{"preset": "public_chat"})
	alice.Send(t, room, "word before")
	next := upgrade(t, alice, room, object{"new_version": "11"})
	bob.Join(t, next)
	alice.Send(t, next, "word after")
	criteria := object{"order_by": "recent", "filter": object{"rooms": []string{next}}}
	same(t, "alice", found(t, alice, "word", criteria), []string{"word after", "word before"})
	same(t, "bob was not in the old room", found(t, bob, "word", criteria), []string{"word after"})
}

// TestSearchSurvivesRestart: the index is in the store.
func TestSearchSurvivesRestart(t *testing.T) {
	s := apptest.Start(t)
	alice := s.User(t, "alice")
	room := alice.CreateRoom(t, nil)
	alice.Send(t, room, "before the restart")
	s.Restart(t)
	same(t, "old", found(t, alice, "restart", nil), []string{"before the restart"})
	alice.Send(t, room, "behind the restart")
	same(t, "new", len(found(t, alice, "restart", nil)), 2)
}
