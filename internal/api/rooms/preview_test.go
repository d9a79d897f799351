package rooms_test

import (
	"fmt"
	"net/url"
	"testing"

	"github.com/hubbub-chat/hubbub/internal/app/apptest"
)

// named returns the content of a piece of state among events.
func named(events []object, eventType, key string) any {
	for _, e := range events {
		if e["type"] == eventType && e["state_key"] == key {
			return e["content"]
		}
	}
	return nil
}

func TestInitialSyncLooksIntoARoom(t *testing.T) {
	s := apptest.Start(t)
	alice, bob := s.User(t, "alice"), s.User(t, "bob")
	room := alice.CreateRoom(t, object{"preset": "public_chat", "visibility": "public", "name": "Hall", "initial_state": []object{
		{"type": "m.room.history_visibility", "state_key": "", "content": object{"history_visibility": "world_readable"}},
	}})
	for i := range 5 {
		alice.Send(t, room, fmt.Sprint(i))
	}
	path := at(room, "initialSync")

	got := bob.Must(t, "GET", path+"?limit=3", nil)
	same(t, "room", got["room_id"], room)
	same(t, "of a stranger", got["membership"], nil)
	same(t, "listed", got["visibility"], "public")
	same(t, "nothing kept", got["account_data"], "[]")
	messages := got["messages"].(object)
	same(t, "the newest, oldest first", bodies(list(t, messages, "chunk")), "[2 3 4]")
	same(t, "with its room", list(t, messages, "chunk")[0]["room_id"], room)
	same(t, "name", named(list(t, got, "state"), "m.room.name", ""), object{"name": "Hall"})
	start, end := url.QueryEscape(messages["start"].(string)), url.QueryEscape(messages["end"].(string))
	same(t, "before", bodies(list(t, bob.Must(t, "GET", at(room, "messages")+"?dir=b&limit=2&from="+start, nil), "chunk")), "[1 0]")
	alice.Send(t, room, "5")
	same(t, "after", bodies(list(t, bob.Must(t, "GET", at(room, "messages")+"?dir=f&from="+end, nil), "chunk")), "[5]")
	if _, more := bob.Must(t, "GET", path+"?limit=100", nil)["messages"].(object)["start"]; more {
		t.Error("there is a start at the beginning of the room")
	}

	alice.Must(t, "PUT", v3+"/user/"+url.PathEscape(alice.UserID)+"/rooms/"+url.PathEscape(room)+"/tags/u.work", object{"order": 0.5})
	alice.Must(t, "PUT", v3+"/directory/list/room/"+url.PathEscape(room), object{"visibility": "private"})
	own := alice.Must(t, "GET", path, nil)
	same(t, "of a member", own["membership"], "join")
	same(t, "not listed", own["visibility"], "private")
	same(t, "kept", list(t, own, "account_data")[0], object{"type": "m.tag", "content": object{"tags": object{"u.work": object{"order": 0.5}}}})
	bob.Fails(t, "GET", path+"?limit=x", nil, 400, "M_INVALID_PARAM")
}

func TestInitialSyncEndsWhereTheUserLeft(t *testing.T) {
	s := apptest.Start(t)
	alice, bob := s.User(t, "alice"), s.User(t, "bob")
	room := alice.CreateRoom(t, object{"preset": "public_chat", "name": "Before"})
	bob.Fails(t, "GET", at(room, "initialSync"), nil, 403, "M_FORBIDDEN")
	bob.Must(t, "POST", at(room, "join"), nil)
	alice.Send(t, room, "heard")
	leave(t, bob, room)
	alice.Send(t, room, "missed")
	alice.Must(t, "PUT", at(room, "state", "m.room.name", ""), object{"name": "After"})

	got := bob.Must(t, "GET", at(room, "initialSync"), nil)
	same(t, "membership", got["membership"], "leave")
	same(t, "messages", bodies(list(t, got["messages"].(object), "chunk")), "[heard]")
	same(t, "name", named(list(t, got, "state"), "m.room.name", ""), object{"name": "Before"})
}
