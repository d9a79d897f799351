package rooms_test

import (
	"net/url"
	"strings"
	"testing"

	"github.com/hubbub-chat/hubbub/internal/app/apptest"
)

func TestState(t *testing.T) {
	s := apptest.Start(t)
	alice, bob := s.User(t, "alice"), s.User(t, "bob")
	room := alice.CreateRoom(t, object{"preset": "public_chat", "name": "one"})
	bob.Join(t, room)
	put := func(name string, content any) string {
		return alice.Must(t, "PUT", at(room, "state")+"/"+name, content)["event_id"].(string)
	}
	first := put("com.example", object{"n": 1})
	same(t, "the same again", put("com.example/", object{"n": 1}), first)
	put("com.example/a%2Fb", object{"n": 2})
	same(t, "no key", state(t, bob, room, "com.example")["n"], 1)
	same(t, "empty key", bob.Must(t, "GET", at(room, "state", "com.example")+"/", nil)["n"], 1)
	same(t, "key with a slash", state(t, bob, room, "com.example/a/b")["n"], 2)
	whole := bob.Must(t, "GET", at(room, "state", "com.example", "a/b")+"?format=event", nil)
	same(t, "event", []any{whole["state_key"], whole["room_id"], whole["sender"], whole["content"]},
		[]any{"a/b", room, alice.UserID, object{"n": 2}})
	bob.Fails(t, "GET", at(room, "state", "com.example", "none"), nil, 404, "M_NOT_FOUND")
	bob.Fails(t, "GET", at(room, "state", strings.Repeat("x", 5000), strings.Repeat("y", 5000)), nil, 404, "M_NOT_FOUND")
	bob.Fails(t, "GET", at(room, "state", "com.example")+"?format=x", nil, 400, "M_INVALID_PARAM")

	status, raw, _ := bob.Raw(t, "GET", at(room, "state"), nil)
	if status != 200 || raw[0] != '[' || strings.Count(string(raw), `"event_id"`) != 10 {
		t.Errorf("the whole state: %d %s", status, raw)
	}
	leave(t, bob, room)
	put("m.room.name", object{"name": "two"})
	put("com.example/later", object{})
	same(t, "name as of leaving", state(t, bob, room, "m.room.name")["name"], "one")
	bob.Fails(t, "GET", at(room, "state", "com.example", "later"), nil, 404, "M_NOT_FOUND")
	_, raw, _ = bob.Raw(t, "GET", at(room, "state"), nil)
	if text := string(raw); strings.Contains(text, "two") || !strings.Contains(text, `"membership":"leave"`) {
		t.Errorf("the state as of leaving: %s", raw)
	}
}

func TestPutStateErrors(t *testing.T) {
	s := apptest.Start(t)
	alice, bob := s.User(t, "alice"), s.User(t, "bob")
	room := alice.CreateRoom(t, object{"preset": "public_chat", "room_alias_name": "mine"})
	bob.Join(t, room)
	alice.CreateRoom(t, object{"room_alias_name": "other"})
	mine, other := "#mine:"+apptest.Name, "#other:"+apptest.Name
	for name, test := range map[string]struct {
		by     *apptest.Client
		path   string
		body   any
		status int
		code   string
	}{
		"create":                {alice, "m.room.create", object{}, 400, "M_BAD_STATE"},
		"redaction":             {alice, "m.room.redaction", object{"redacts": "$x"}, 403, "M_FORBIDDEN"},
		"too weak":              {bob, "m.room.name", object{"name": "x"}, 403, "M_FORBIDDEN"},
		"state of another":      {alice, "com.example/" + bob.UserID, object{}, 403, "M_FORBIDDEN"},
		"levels":                {alice, "m.room.power_levels", object{"ban": 1.5}, 400, "M_BAD_JSON"},
		"levels of text":        {alice, "m.room.power_levels", object{"users": object{"@a:b": "100"}}, 400, "M_BAD_JSON"},
		"level of the creator":  {alice, "m.room.power_levels", object{"users": object{alice.UserID: 100}}, 400, "M_INVALID_PARAM"},
		"member of no ID":       {alice, "m.room.member/bob", object{"membership": "invite"}, 400, "M_INVALID_PARAM"},
		"no membership":         {alice, "m.room.member/" + alice.UserID, object{"displayname": "x"}, 400, "M_BAD_JSON"},
		"unknown membership":    {alice, "m.room.member/" + alice.UserID, object{"membership": "x"}, 400, "M_BAD_JSON"},
		"joining another":       {alice, "m.room.member/@eve:x", object{"membership": "join"}, 403, "M_FORBIDDEN"},
		"inviting nobody":       {alice, "m.room.member/@eve:x", object{"membership": "invite"}, 404, "M_NOT_FOUND"},
		"malformed alias":       {alice, "m.room.canonical_alias", object{"alias": "mine"}, 400, "M_INVALID_PARAM"},
		"alias a number":        {alice, "m.room.canonical_alias", object{"alias": 1}, 400, "M_INVALID_PARAM"},
		"malformed alt alias":   {alice, "m.room.canonical_alias", object{"alt_aliases": []any{mine, "x"}}, 400, "M_INVALID_PARAM"},
		"alt aliases no list":   {alice, "m.room.canonical_alias", object{"alt_aliases": "x"}, 400, "M_INVALID_PARAM"},
		"alias of another room": {alice, "m.room.canonical_alias", object{"alias": other}, 400, "M_BAD_ALIAS"},
		"alt of another room":   {alice, "m.room.canonical_alias", object{"alias": mine, "alt_aliases": []any{other}}, 400, "M_BAD_ALIAS"},
		"alias of nothing":      {alice, "m.room.canonical_alias", object{"alias": "#none:" + apptest.Name}, 400, "M_BAD_ALIAS"},
		"no body":               {alice, "com.example", nil, 400, "M_NOT_JSON"},
		"no JSON":               {alice, "com.example", "{", 400, "M_NOT_JSON"},
		"list":                  {alice, "com.example", "[]", 400, "M_BAD_JSON"},
		"member twice":          {alice, "com.example", `{"a":1,"a":2}`, 400, "M_BAD_JSON"},
		"float":                 {alice, "com.example", `{"a":1.5}`, 400, "M_BAD_JSON"},
		"large integer":         {alice, "com.example", `{"a":9007199254740992}`, 400, "M_BAD_JSON"},
		"huge number":           {alice, "com.example", `{"a":1e400}`, 400, "M_BAD_JSON"},
		"whole with exponent":   {alice, "com.example", `{"a":1e3}`, 400, "M_BAD_JSON"},
		"lone surrogate":        {alice, "com.example", `{"a":"\ud800"}`, 400, "M_NOT_JSON"},
		"too deep":              {alice, "com.example", `{"a":` + strings.Repeat("[", 1000) + strings.Repeat("]", 1000) + "}", 400, "M_BAD_JSON"},
		"too large":             {alice, "com.example", object{"a": strings.Repeat("x", 65536)}, 413, "M_TOO_LARGE"},
		"far too large":         {alice, "com.example", object{"a": strings.Repeat("x", 1<<20)}, 413, "M_TOO_LARGE"},
		"long type":             {alice, strings.Repeat("x", 256), object{}, 413, "M_TOO_LARGE"},
		"very long key":         {alice, "x/" + strings.Repeat("x", 5000), object{}, 413, "M_TOO_LARGE"},
		"NUL":                   {alice, "a%00b/c", object{}, 400, "M_INVALID_PARAM"},
	} {
		t.Run(name, func(t *testing.T) {
			test.by.Fails(t, "PUT", at(room, "state")+"/"+test.path, test.body, test.status, test.code)
		})
	}
	canonical := at(room, "state", "m.room.canonical_alias")
	alice.Must(t, "PUT", canonical, object{"alias": mine, "alt_aliases": []any{mine}})
	alice.Must(t, "PUT", canonical, object{"alias": "", "alt_aliases": []any{mine}})
	alice.Must(t, "PUT", canonical, object{"alias": nil})
	alice.Must(t, "PUT", canonical, object{})
}

func TestSend(t *testing.T) {
	s := apptest.Start(t)
	alice, bob := s.User(t, "alice"), s.User(t, "bob")
	room, other := alice.CreateRoom(t, nil), alice.CreateRoom(t, nil)
	text := object{"msgtype": "m.text", "body": "hi"}
	send := func(c *apptest.Client, room, eventType, txn string) any {
		return c.Must(t, "PUT", at(room, "send", eventType, txn), text)["event_id"]
	}
	since := alice.Sync(t, "")["next_batch"].(string)
	first := send(alice, room, "m.room.message", "1")
	same(t, "sent twice", send(alice, room, "m.room.message", "1"), first)
	different := []any{
		first, send(alice, room, "m.room.message", "2"), send(alice, room, "com.example", "1"),
		send(alice, other, "m.room.message", "1"), send(alice.Login(t), room, "m.room.message", "1"),
	}
	for i, a := range different {
		for _, b := range different[:i] {
			if a == b {
				t.Errorf("requests that are not the same have one event: %v", different)
			}
		}
	}
	events := apptest.At(alice.Sync(t, since), "rooms", "join", room, "timeline", "events").([]any)
	same(t, "events in the sync", len(events), 4)
	same(t, "transaction of the first", apptest.At(events[0], "unsigned", "transaction_id"), "1")
	same(t, "of another device", apptest.At(events[3], "unsigned", "transaction_id"), nil)
	s.Restart(t)
	same(t, "sent again after a restart", send(alice, room, "m.room.message", "1"), first)

	ts := alice.Must(t, "PUT", at(room, "send", "m.room.message", "3")+"?ts=1", text)["event_id"].(string)
	if when := alice.Must(t, "GET", at(room, "event", ts), nil)["origin_server_ts"].(float64); when < 1e12 {
		t.Errorf("a client chose the time %v", when)
	}
	path := at(room, "send", "m.room.message", "4")
	bob.Fails(t, "PUT", path, text, 403, "M_FORBIDDEN")
	bob.Fails(t, "PUT", at("!unknown", "send", "x", "1"), text, 403, "M_FORBIDDEN")
	alice.Fails(t, "PUT", at("unknown", "send", "x", "1"), text, 400, "M_INVALID_PARAM")
	alice.Fails(t, "PUT", path, nil, 400, "M_NOT_JSON")
	alice.Fails(t, "PUT", path, "{", 400, "M_NOT_JSON")
	alice.Fails(t, "PUT", path, "1", 400, "M_BAD_JSON")
	alice.Fails(t, "PUT", path, object{"a": 0.5}, 400, "M_BAD_JSON")
	alice.Fails(t, "PUT", path, object{"a": strings.Repeat("x", 65536)}, 413, "M_TOO_LARGE")
	alice.Fails(t, "PUT", at(room, "send", strings.Repeat("x", 256), "1"), text, 413, "M_TOO_LARGE")
	alice.Fails(t, "PUT", at(room, "send", "x", strings.Repeat("x", 256)), text, 400, "M_INVALID_PARAM")
	alice.Fails(t, "PUT", at(room, "send", "a\x00b", "1"), text, 400, "M_INVALID_PARAM")
	alice.Fails(t, "PUT", at(room, "send", "m.room.member", "1"), object{"membership": "leave"}, 403, "M_FORBIDDEN")
	alice.Fails(t, "PUT", at(room, "send", "m.room.create", "1"), object{}, 403, "M_FORBIDDEN")
	s.Anonymous().Fails(t, "PUT", path, text, 401, "M_MISSING_TOKEN")
}

func TestRedact(t *testing.T) {
	s := apptest.Start(t)
	alice, bob := s.User(t, "alice"), s.User(t, "bob")
	for _, version := range []string{"10", "12"} {
		room := alice.CreateRoom(t, object{"preset": "public_chat", "room_version": version})
		other := alice.CreateRoom(t, nil)
		bob.Join(t, room)
		hers, his := alice.Send(t, room, "secret"), bob.Send(t, room, "secret")
		bob.Fails(t, "PUT", at(room, "redact", hers, "1"), object{}, 403, "M_FORBIDDEN")
		id := bob.Must(t, "PUT", at(room, "redact", his, "1"), object{"reason": "oops"})["event_id"].(string)
		same(t, "again", bob.Must(t, "PUT", at(room, "redact", his, "1"), nil)["event_id"], id)
		left := alice.Must(t, "GET", at(room, "event", his), nil)
		same(t, "content", left["content"], object{})
		because := apptest.At(left, "unsigned", "redacted_because")
		same(t, "because", []any{apptest.At(because, "event_id"), apptest.At(because, "content", "reason")}, []any{id, "oops"})
		redaction := alice.Must(t, "GET", at(room, "event", id), nil)
		same(t, "redacts", redaction["redacts"], his)
		if version == "12" {
			same(t, "redacts in the content", apptest.At(redaction, "content", "redacts"), his)
		}
		sent := object{"redacts": hers}
		bob.Fails(t, "PUT", at(room, "send", "m.room.redaction", "1"), sent, 403, "M_FORBIDDEN")
		alice.Must(t, "PUT", at(room, "send", "m.room.redaction", "1"), sent)
		same(t, "sent as an event", alice.Must(t, "GET", at(room, "event", hers), nil)["content"], object{})
		alice.Fails(t, "PUT", at(room, "send", "m.room.redaction", "2"), object{}, 400, "M_BAD_JSON")
		alice.Fails(t, "PUT", at(other, "redact", hers, "1"), object{}, 404, "M_NOT_FOUND")
		alice.Fails(t, "PUT", at(room, "redact", "x", "1"), object{}, 400, "M_INVALID_PARAM")
		alice.Fails(t, "PUT", at(room, "redact", hers, "2"), object{"reason": 1}, 400, "M_BAD_JSON")
	}
}

func TestReceiptsAndMarkers(t *testing.T) {
	s := apptest.Start(t)
	alice, bob, eve := s.User(t, "alice"), s.User(t, "bob"), s.User(t, "eve")
	room, other := alice.CreateRoom(t, object{"preset": "public_chat"}), alice.CreateRoom(t, nil)
	bob.Join(t, room)
	first, second, third := alice.Send(t, room, "1"), alice.Send(t, room, "2"), alice.Send(t, room, "3")
	sinceA, sinceB := alice.Sync(t, "")["next_batch"].(string), bob.Sync(t, "")["next_batch"].(string)
	bob.Must(t, "POST", at(room, "receipt", "m.read", first), object{})
	bob.Must(t, "POST", at(room, "receipt", "m.read.private", second), nil)
	bob.Must(t, "POST", at(room, "receipt", "m.read", first), object{"thread_id": "main"})
	bob.Must(t, "POST", at(room, "receipt", "m.fully_read", second), object{})

	seen := func(c *apptest.Client, since string) string {
		out := c.Sync(t, since)
		b := apptest.At(out, "rooms", "join", room, "ephemeral", "events")
		events, _ := b.([]any)
		for _, e := range events {
			if apptest.At(e, "type") == "m.receipt" {
				content := apptest.At(e, "content").(object)
				text := ""
				for _, id := range []string{first, second, third} {
					for _, kind := range []string{"m.read", "m.read.private"} {
						if apptest.At(content, id, kind, bob.UserID) != nil {
							text += kind + " " + map[string]string{first: "1", second: "2", third: "3"}[id] + ";"
						}
					}
				}
				return text
			}
		}
		return "none"
	}
	same(t, "alice sees", seen(alice, sinceA), "m.read 1;")
	same(t, "bob sees", seen(bob, sinceB), "m.read 1;m.read.private 2;")

	marker := func() any {
		return bob.Must(t, "GET", v3+"/user/"+bob.UserID+"/rooms/"+url.PathEscape(room)+"/account_data/m.fully_read", nil)["event_id"]
	}
	same(t, "marker", marker(), second)
	bob.Must(t, "POST", at(room, "read_markers"), object{"m.fully_read": first, "m.read": third})
	same(t, "marker goes not back", marker(), second)
	bob.Must(t, "POST", at(room, "read_markers"), object{"m.fully_read": third, "m.read.private": third})
	same(t, "marker goes on", marker(), third)
	same(t, "alice sees", seen(alice, sinceA), "m.read 1;m.read 3;")
	bob.Must(t, "POST", at(room, "read_markers"), nil)

	elsewhere := alice.Send(t, other, "elsewhere")
	for name, test := range map[string]struct {
		path   string
		body   any
		status int
		code   string
	}{
		"unknown type":           {at(room, "receipt", "m.x", first), nil, 400, "M_INVALID_PARAM"},
		"malformed event":        {at(room, "receipt", "m.read", "x"), nil, 400, "M_INVALID_PARAM"},
		"event of another":       {at(room, "receipt", "m.read", "$unknown"), nil, 404, "M_NOT_FOUND"},
		"event of another room":  {at(room, "receipt", "m.read", elsewhere), nil, 404, "M_NOT_FOUND"},
		"marker of another room": {at(room, "receipt", "m.fully_read", elsewhere), nil, 404, "M_NOT_FOUND"},
		"marker at nothing":      {at(room, "receipt", "m.fully_read", "$unknown"), nil, 404, "M_NOT_FOUND"},
		"not in the room":        {at(other, "receipt", "m.read", first), nil, 403, "M_FORBIDDEN"},
		"marker not in the room": {at(other, "receipt", "m.fully_read", first), nil, 403, "M_FORBIDDEN"},
		"markers not in it":      {at(other, "read_markers"), object{}, 403, "M_FORBIDDEN"},
		"thread empty":           {at(room, "receipt", "m.read", first), object{"thread_id": ""}, 400, "M_INVALID_PARAM"},
		"thread no event":        {at(room, "receipt", "m.read", first), object{"thread_id": "x"}, 400, "M_INVALID_PARAM"},
		"thread a number":        {at(room, "receipt", "m.read", first), object{"thread_id": 1}, 400, "M_INVALID_PARAM"},
		"marker of a thread":     {at(room, "receipt", "m.fully_read", first), object{"thread_id": "main"}, 400, "M_INVALID_PARAM"},
		"malformed marker":       {at(room, "read_markers"), object{"m.read": "x"}, 400, "M_INVALID_PARAM"},
		"marker a number":        {at(room, "read_markers"), object{"m.read": 1}, 400, "M_BAD_JSON"},
	} {
		t.Run(name, func(t *testing.T) { bob.Fails(t, "POST", test.path, test.body, test.status, test.code) })
	}
	eve.Fails(t, "POST", at(room, "receipt", "m.read", first), nil, 403, "M_FORBIDDEN")
}

func TestTyping(t *testing.T) {
	s := apptest.Start(t)
	alice, bob, eve := s.User(t, "alice"), s.User(t, "bob"), s.User(t, "eve")
	room := alice.CreateRoom(t, object{"preset": "public_chat"})
	bob.Join(t, room)
	typers := func(c *apptest.Client, since string) (any, string) {
		out := c.Sync(t, since)
		events, _ := apptest.At(out, "rooms", "join", room, "ephemeral", "events").([]any)
		for _, e := range events {
			if apptest.At(e, "type") == "m.typing" {
				return apptest.At(e, "content", "user_ids"), out["next_batch"].(string)
			}
		}
		return nil, out["next_batch"].(string)
	}
	_, since := typers(alice, "")
	bob.Must(t, "PUT", at(room, "typing", bob.UserID), object{"typing": true, "timeout": 30000})
	who, since := typers(alice, since)
	same(t, "typing", who, []string{bob.UserID})
	who, since = typers(alice, since)
	same(t, "said once", who, nil)
	bob.Must(t, "PUT", at(room, "typing", bob.UserID), object{"typing": false})
	who, since = typers(alice, since)
	same(t, "no longer typing", who, []string{})
	bob.Must(t, "PUT", at(room, "typing", bob.UserID), object{"typing": true})
	bob.Must(t, "PUT", at(room, "typing", bob.UserID), object{"typing": true, "timeout": 0})
	who, _ = typers(alice, since)
	same(t, "a notice of no time", who, []string{})

	path := at(room, "typing", bob.UserID)
	alice.Fails(t, "PUT", path, object{"typing": true}, 403, "M_FORBIDDEN")
	eve.Fails(t, "PUT", at(room, "typing", eve.UserID), object{"typing": true}, 403, "M_FORBIDDEN")
	bob.Fails(t, "PUT", path, object{}, 400, "M_MISSING_PARAM")
	bob.Fails(t, "PUT", path, object{"typing": "yes"}, 400, "M_BAD_JSON")
	bob.Fails(t, "PUT", at(room, "typing", "bob"), object{"typing": true}, 400, "M_INVALID_PARAM")
}
