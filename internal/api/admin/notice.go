package admin

import (
	"crypto/rand"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/hubbub-chat/hubbub/internal/account"
	"github.com/hubbub-chat/hubbub/internal/api"
	"github.com/hubbub-chat/hubbub/internal/event"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/merr"
)

const (
	// noticesData is the account data of that user which leads from a user to the
	// room of their notices.
	noticesData = "io.hubbub.notices."
	// noticeTag marks the room for its reader. spec: client-server §Server Notices.
	noticeTag = "m.server_notice"
)

// notice sends a message in the name of the server to one user, in a room made for
// it.
func (m *Module) notice(r *api.Request) (any, error) {
	var req struct {
		User    ids.UserID     `json:"user_id"`
		Type    string         `json:"type"`
		Key     *string        `json:"state_key"`
		Content jsontext.Value `json:"content"`
	}
	if err := api.DecodeBody(r, &req); err != nil {
		return nil, err
	}
	switch {
	case req.User == "":
		return nil, api.Missing("user_id")
	case req.Content.Kind() != '{':
		return nil, api.Missing("content")
	}
	if req.Type == "" {
		req.Type = event.TypeMessage
	}
	a, err := m.Accounts.Account(r.Context, req.User)
	if err != nil {
		return nil, err
	}
	if a == nil || a.Deactivated {
		return nil, merr.NotFoundErr("No such user")
	}
	sender := account.NoticesUser(m.Server)
	room, err := m.noticeRoom(r, sender, req.User)
	if err != nil {
		return nil, err
	}
	if req.Key != nil {
		target := clientV3("rooms", string(room), "state", req.Type) + "/"
		if *req.Key != "" {
			target = clientV3("rooms", string(room), "state", req.Type, *req.Key)
		}
		return m.as(r, sender, put, target, req.Content)
	}
	txn := r.Param("txnId")
	if txn == "" {
		txn = rand.Text()
	}
	return m.as(r, sender, put, clientV3("rooms", string(room), "send", req.Type, txn), req.Content)
}

// noticeRoom returns the room of a user's notices, with the user in it or invited.
func (m *Module) noticeRoom(r *api.Request, sender, user ids.UserID) (ids.RoomID, error) {
	var room struct {
		Room ids.RoomID `json:"room_id"`
	}
	data := clientV3("user", string(sender), "account_data", noticesData+string(user))
	raw, err := m.as(r, sender, get, data, nil)
	switch {
	case err == nil:
		if err := json.Unmarshal(raw, &room); err != nil {
			return "", err
		}
		h, err := m.Rooms.Head(r.Context, room.Room)
		if err != nil {
			return "", err
		}
		if h != nil {
			return room.Room, m.bringIn(r, room.Room, sender, user)
		}
	case !merr.Is(err, merr.NotFound):
		return "", err
	}
	_, err = m.Router.Do(r.Context, account.NewRegister(sender, account.Account{}, "Server Notices", nil))
	if err != nil && !merr.Is(err, merr.UserInUse) {
		return "", err
	}
	raw, err = m.as(r, sender, post, clientV3("createRoom"), map[string]any{
		"preset": "private_chat", "name": "Server Notices", "invite": []ids.UserID{user},
		"power_level_content_override": map[string]any{"users_default": -10},
	})
	if err != nil {
		return "", err
	}
	if err := json.Unmarshal(raw, &room); err != nil {
		return "", err
	}
	if _, err := m.as(r, user, put, clientV3("user", string(user), "rooms", string(room.Room), "tags", noticeTag), struct{}{}); err != nil {
		return "", err
	}
	_, err = m.as(r, sender, put, data, &room)
	return room.Room, err
}
