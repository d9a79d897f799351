package room

import (
	"crypto/rand"

	"github.com/hubbub-chat/hubbub/internal/event"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/roomstate"
)

// First is what a new room begins with, whoever makes it.
type First struct {
	Creator ids.UserID
	Initial roomstate.Initial
	// Join is the content of the creator's member event.
	Join []byte
	// Alias is the canonical one, "" for none.
	Alias ids.RoomAlias
	// Given is further state of the creator's.
	Given []roomstate.Draft
	// Name and Topic are nil if there is none.
	Name, Topic *string
	Invites     []Invitation
}

// Invitation is the member event of a user who is invited.
type Invitation struct {
	User    ids.UserID
	Content []byte
}

// fieldNonce is a word that makes a create event unlike others. Most rooms have none.
const fieldNonce = "chat.hubbub.nonce"

// Unlike makes the content of a create event one that no other has: in version 12
// the room's ID follows from it.
func Unlike(create []byte) []byte {
	return event.SetString(create, fieldNonce, rand.Text())
}

// Drafts are the first events of the room, in the order of the specification. spec:
// client-server §POST /createRoom.
func (f *First) Drafts(ts int64) []roomstate.Draft {
	var out []roomstate.Draft
	add := func(eventType, key string, content []byte) {
		if content != nil {
			out = append(out, roomstate.Draft{
				Type: eventType, StateKey: &key, Sender: f.Creator, Content: content, OriginServerTS: ts,
			})
		}
	}
	add(event.TypeCreate, "", f.Initial.Create)
	add(event.TypeMember, string(f.Creator), f.Join)
	add(event.TypePowerLevels, "", f.Initial.PowerLevels)
	if f.Alias != "" {
		add(event.TypeCanonicalAlias, "", stringContent("alias", string(f.Alias)))
	}
	add(event.TypeJoinRules, "", f.Initial.JoinRules)
	add(event.TypeHistoryVisibility, "", f.Initial.HistoryVisibility)
	add(event.TypeGuestAccess, "", f.Initial.GuestAccess)
	for _, d := range f.Given {
		add(d.Type, *d.StateKey, d.Content)
	}
	if f.Name != nil {
		add(event.TypeName, "", stringContent("name", *f.Name))
	}
	if f.Topic != nil {
		add(event.TypeTopic, "", topicContent(*f.Topic))
	}
	for _, i := range f.Invites {
		add(event.TypeMember, string(i.User), i.Content)
	}
	return out
}

// stringContent is a content with one member.
func stringContent(name, value string) []byte {
	return event.SetString([]byte("{}"), name, value)
}

// topicContent has the topic in both forms. spec: client-server §m.room.topic.
func topicContent(topic string) []byte {
	block := append(event.AppendString([]byte(`{"m.text":[{"body":`), topic), `}]}`...)
	content := event.SetField(nil, []byte("{}"), "m.topic", block)
	return event.SetString(content, "topic", topic)
}
