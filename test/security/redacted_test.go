package security

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/hubbub-chat/hubbub/internal/app/apptest"
)

// TestRedactedIsNowhere: what was redacted is found by no way to read the room, also
// not in what was made of it: its edits, the thread it begins, the index of words.
func TestRedactedIsNowhere(t *testing.T) {
	t.Parallel()
	s := apptest.Start(t)
	alice, bob := s.User(t, "alice"), s.User(t, "bob")
	room := alice.CreateRoom(t, object{"preset": "public_chat"})
	bob.Join(t, room)
	since := bob.Sync(t, "")["next_batch"].(string)
	const canary = "canaryword"
	said := alice.Send(t, room, canary+" bob")
	send := func(txn string, content object) string {
		t.Helper()
		return alice.Must(t, "PUT", at(room, "send", "m.room.message", txn), content)["event_id"].(string)
	}
	text := func(rel object) object {
		return object{
			"msgtype": "m.text", "body": canary + " again", "m.new_content": object{"msgtype": "m.text", "body": canary + " new"}, "m.relates_to": rel,
			"m.mentions": object{"user_ids": []string{bob.UserID}},
		}
	}
	edit := send("edit", text(object{"rel_type": "m.replace", "event_id": said}))
	root := alice.Send(t, room, "the root")
	reply := send("reply", text(object{"rel_type": "m.thread", "event_id": root}))
	topic := alice.Must(t, "PUT", at(room, "state", "m.room.topic", ""), object{"topic": canary})["event_id"].(string)
	alice.Must(t, "PUT", at(room, "state", "m.room.topic", ""), object{"topic": "another"})

	all := func() map[string]string {
		found := map[string]string{}
		ask := func(name, method, target string, body any) {
			t.Helper()
			status, raw, _ := bob.Raw(t, method, target, body)
			if status >= 500 {
				t.Errorf("%s: %d %s", name, status, raw)
			}
			found[name] = string(raw)
		}
		filter := "filter=" + url.QueryEscape(`{"room":{"timeline":{"limit":100}}}`)
		ask("first sync", "GET", v3+"/sync?"+filter, nil)
		ask("next sync", "GET", v3+"/sync?"+filter+"&since="+since, nil)
		ask("messages", "GET", at(room, "messages")+"?dir=b&limit=100", nil)
		ask("state", "GET", at(room, "state"), nil)
		ask("threads", "GET", strings.Replace(at(room, "threads"), v3, v1, 1), nil)
		for _, id := range []string{said, edit, reply, root, topic} {
			ask("event "+id, "GET", at(room, "event", id), nil)
			ask("context of "+id, "GET", at(room, "context", id), nil)
			ask("relations of "+id, "GET", strings.Replace(at(room, "relations", id), v3, v1, 1)+"?recurse=true", nil)
		}
		ask("search", "POST", v3+"/search", object{"search_categories": object{"room_events": object{"search_term": "canaryword"}}})
		ask("notifications", "GET", v3+"/notifications", nil)
		return found
	}
	seen := 0
	for name, answer := range all() {
		// A search says what it looked for.
		if name != "search" && strings.Contains(answer, canary) {
			seen++
		}
	}
	if seen < 10 {
		t.Errorf("before, only %d answers hold the text", seen)
	}
	var redactions []string
	for i, id := range []string{said, edit, reply, topic} {
		out := alice.Must(t, "PUT", at(room, "redact", id, "r"+string(rune('0'+i))), object{})
		redactions = append(redactions, out["event_id"].(string))
	}
	for name, answer := range all() {
		if name == "search" && strings.Contains(answer, "event_id") || name != "search" && strings.Contains(answer, canary) {
			t.Errorf("%s: %s", name, answer)
		}
	}

	// Redactions can be redacted, in a circle too, and end.
	first := alice.Must(t, "PUT", at(room, "redact", redactions[0], "again"), object{})["event_id"].(string)
	alice.Must(t, "PUT", at(room, "redact", first, "and again"), object{})
	all()
	// What the room stands on stays: it goes on after whoever may redact its levels.
	state := alice.Must(t, "GET", at(room, "state", "m.room.power_levels", "")+"?format=event", nil)
	create := alice.Must(t, "GET", at(room, "state", "m.room.create", "")+"?format=event", nil)
	bob.Fails(t, "PUT", at(room, "redact", state["event_id"].(string), "1"), object{}, http.StatusForbidden, "M_FORBIDDEN")
	alice.Fails(t, "PUT", at(room, "redact", create["event_id"].(string), "2"), object{}, http.StatusForbidden, "M_FORBIDDEN")
	alice.Must(t, "PUT", at(room, "redact", state["event_id"].(string), "3"), object{})
	alice.Must(t, "PUT", at(room, "state", "m.room.name", ""), object{"name": "still there"})
	bob.Fails(t, "PUT", at(room, "state", "m.room.name", ""), object{"name": "x"}, http.StatusForbidden, "M_FORBIDDEN")
	// An event of another room is not redacted from this one.
	elsewhere := alice.CreateRoom(t, nil)
	other := alice.Send(t, elsewhere, "elsewhere")
	alice.Fails(t, "PUT", at(room, "redact", other, "4"), object{}, http.StatusNotFound, "M_NOT_FOUND")
	if got := alice.Must(t, "GET", at(elsewhere, "event", other), nil); apptest.At(got, "content", "body") != "elsewhere" {
		t.Errorf("%v", got)
	}
}
