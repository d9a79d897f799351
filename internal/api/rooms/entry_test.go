package rooms_test

import (
	"net/url"
	"testing"

	"github.com/hubbub-chat/hubbub/internal/app/apptest"
)

// TestJoinContent: what a client adds to the body of a join stands in the event,
// but for what only the server may say.
func TestJoinContent(t *testing.T) {
	s := apptest.Start(t)
	alice := s.User(t, "alice")
	room := alice.CreateRoom(t, object{"preset": "public_chat", "room_alias_name": "join"})
	for name, target := range map[string]string{
		"bob":   at(room, "join"),
		"carol": v3 + "/join/" + url.PathEscape("#join:"+apptest.Name),
	} {
		who := s.User(t, name)
		who.Must(t, "POST", target, object{
			"com.example": object{"a": 1}, "reason": "why", "membership": "leave", "third_party_signed": object{},
			"join_authorised_via_users_server": alice.UserID,
		})
		same(t, name, state(t, alice, room, "m.room.member/"+who.UserID), object{
			"com.example": object{"a": 1}, "displayname": name, "membership": "join", "reason": "why",
		})
	}
	dave := s.User(t, "dave")
	dave.Fails(t, "POST", at(room, "join"), object{"com.example": 1.5}, 400, "M_BAD_JSON")
	dave.Must(t, "POST", at(room, "join"), nil)
	same(t, "dave", state(t, alice, room, "m.room.member/"+dave.UserID), object{"displayname": "dave", "membership": "join"})
}

// TestMessagesAskForTheRightFirst: whoever may read nothing of a room learns that,
// whatever else is wrong with the request.
func TestMessagesAskForTheRightFirst(t *testing.T) {
	s := apptest.Start(t)
	alice, bob := s.User(t, "alice"), s.User(t, "bob")
	room := alice.CreateRoom(t, object{"preset": "public_chat"})
	bob.Fails(t, "GET", at(room, "messages"), nil, 403, "M_FORBIDDEN")
	bob.Join(t, room)
	bob.Fails(t, "GET", at(room, "messages"), nil, 400, "M_MISSING_PARAM")
	bob.Must(t, "POST", at(room, "leave"), nil)
	bob.Must(t, "GET", at(room, "messages")+"?dir=b", nil)
	bob.Must(t, "POST", at(room, "forget"), nil)
	bob.Fails(t, "GET", at(room, "messages"), nil, 403, "M_FORBIDDEN")
	bob.Fails(t, "GET", at(room, "messages")+"?dir=b", nil, 403, "M_FORBIDDEN")
}
