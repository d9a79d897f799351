package rooms

import (
	"context"
	"net/http"

	"github.com/hubbub-chat/hubbub/internal/event"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/merr"
	"github.com/hubbub-chat/hubbub/internal/room"
	"github.com/hubbub-chat/hubbub/internal/roomstate"
)

// profileFanOut is how many rooms learn of a new profile at the same time: enough
// to fill the commits of several partitions, too few to crowd out others.
const profileFanOut = 16

// UpdateProfile tells all rooms a user is in what they are now called; "" stands
// for none. It returns when all know. Rooms that refuse, because the user has
// just left, are passed over; the error joins what else went wrong, and calling
// again does the rest. spec: client-server §Events on Change of Profile Information.
func (m *Module) UpdateProfile(ctx context.Context, user ids.UserID, displayname, avatar string) error {
	rooms, err := m.Accounts.Joined(ctx, user)
	if err != nil {
		return err
	}
	content := memberContent(event.Join, "")
	if displayname != "" {
		content = event.SetString(content, "displayname", displayname)
	}
	if avatar != "" {
		content = event.SetString(content, "avatar_url", avatar)
	}
	return inParallel(profileFanOut, rooms, func(id ids.RoomID) error { return m.rename(ctx, id, user, content) })
}

// rename replaces a member event. Whoever is not in the room must not come in by
// it.
func (m *Module) rename(ctx context.Context, id ids.RoomID, user ids.UserID, content []byte) error {
	key := string(user)
	_, err := m.Router.Do(ctx, &room.Send{
		Room: id, Unchanged: true,
		Draft:  roomstate.Draft{Type: event.TypeMember, StateKey: &key, Sender: user, Content: content},
		Expect: &room.Expect{OneOf: []event.Membership{event.Join}, Code: merr.Forbidden, Msg: "You are not in this room"},
	})
	if err != nil && merr.From(err).Status < http.StatusInternalServerError {
		return nil
	}
	return err
}
