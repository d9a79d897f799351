package admin

import (
	"context"
	"net/http"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/hubbub-chat/hubbub/internal/api"
	"github.com/hubbub-chat/hubbub/internal/event"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/merr"
	"github.com/hubbub-chat/hubbub/internal/purge"
	"github.com/hubbub-chat/hubbub/internal/room"
)

func (m *Module) purgeRoutes() []api.Route {
	return []api.Route{
		{Method: get, Path: v1 + "/rooms/{roomId}/block", Rate: api.RateRead, Handle: m.blocked},
		{Method: put, Path: v1 + "/rooms/{roomId}/block", Rate: api.RateWrite, Handle: m.block},
		{Method: del, Path: v1 + "/rooms/{roomId}", Rate: api.RateWrite, Hold: api.HoldLong, Handle: m.deleteRoomNow},
		{Method: post, Path: v1 + "/rooms/{roomId}/delete", Rate: api.RateWrite, Hold: api.HoldLong, Handle: m.deleteRoomNow},
		{Method: del, Path: v2 + "/rooms/{roomId}", Rate: api.RateWrite, Handle: m.deleteRoom},
		{Method: get, Path: v2 + "/rooms/{roomId}/delete_status", Rate: api.RateRead, Handle: m.deletionsOf},
		{Method: get, Path: v2 + "/rooms/delete_status/{deleteId}", Rate: api.RateRead, Handle: m.deletion},
		{Method: post, Path: v1 + "/purge_history/{roomId}/{eventId}", Also: []string{v1 + "/purge_history/{roomId}"}, Rate: api.RateWrite, Handle: m.purgeHistory},
		{Method: get, Path: v1 + "/purge_history_status/{purgeId}", Rate: api.RateRead, Handle: m.purgeStatus},
	}
}

func (m *Module) blocked(r *api.Request) (any, error) {
	id, err := r.RoomID("roomId")
	if err != nil {
		return nil, err
	}
	by, err := m.Rooms.Blocked(r.Context, id)
	if err != nil || by == "" {
		return map[string]bool{"block": false}, err
	}
	return map[string]any{"block": true, "user_id": by}, nil
}

func (m *Module) block(r *api.Request) (any, error) {
	id, err := r.RoomID("roomId")
	if err != nil {
		return nil, err
	}
	var req struct {
		Block *bool `json:"block"`
	}
	if err := api.DecodeBody(r, &req); err != nil {
		return nil, err
	}
	if req.Block == nil {
		return nil, api.Missing("block")
	}
	cmd := &room.Block{Room: id}
	if *req.Block {
		cmd.By = r.Caller.User
	}
	_, err = m.Router.Do(r.Context, cmd)
	return map[string]bool{"block": *req.Block}, err
}

// deletionRequest is the body that deletes a room.
type deletionRequest struct {
	NewOwner ids.UserID `json:"new_room_user_id"`
	Name     string     `json:"room_name"`
	Message  string     `json:"message"`
	Block    bool       `json:"block"`
	Purge    *bool      `json:"purge"`
	Force    bool       `json:"force_purge"`
}

const (
	defaultName    = "Content Violation Notification"
	defaultMessage = "Sharing illegal content on this server is not permitted and rooms in violation will be blocked."
	// maxMoved bounds the members that are taken along to the new room.
	maxMoved = 1000
)

// deleteRoom begins to delete a room and answers at once.
func (m *Module) deleteRoom(r *api.Request) (any, error) {
	id, err := m.beginDeletion(r)
	if err != nil {
		return nil, err
	}
	return map[string]string{"delete_id": id}, nil
}

// deleteRoomNow deletes a room and answers when that is done.
func (m *Module) deleteRoomNow(r *api.Request) (any, error) {
	id, err := m.beginDeletion(r)
	if err != nil {
		return nil, err
	}
	j, err := m.Purges.Wait(r.Context, id)
	if err != nil {
		return nil, err
	}
	switch j.Status {
	case purge.Failed:
		return nil, merr.New(http.StatusBadRequest, merr.Unknown, "%s", j.Error)
	case purge.Active:
		wait := time.Duration(j.Retry-m.Clock.Now().UnixMilli()) * time.Millisecond
		return nil, merr.UnavailableErr(max(wait, time.Second), "It goes on later: %s", j.Error)
	}
	return shutdownOf(j), nil
}

func (m *Module) beginDeletion(r *api.Request) (string, error) {
	id, err := r.RoomID("roomId")
	if err != nil {
		return "", err
	}
	var req deletionRequest
	if err := api.DecodeBody(r, &req); err != nil {
		return "", err
	}
	h, err := m.Rooms.Head(r.Context, id)
	if err != nil {
		return "", err
	}
	if h == nil && !req.Block {
		return "", merr.NotFoundErr("No such room")
	}
	if req.Block {
		if _, err := m.Router.Do(r.Context, &room.Block{Room: id, By: r.Caller.User}); err != nil {
			return "", err
		}
	}
	j := purge.Job{Kind: purge.DeleteRoom, Room: id, By: r.Caller.User, Purge: req.Purge == nil || *req.Purge, Force: req.Force}
	if req.NewOwner != "" && h != nil {
		if j.NewRoom, err = m.replaceRoom(r, h, &req); err != nil {
			return "", err
		}
	}
	return m.Purges.Begin(r.Context, j)
}

// replaceRoom makes the room that takes the place of a deleted one, in which its
// members are told why.
func (m *Module) replaceRoom(r *api.Request, h *room.Head, req *deletionRequest) (ids.RoomID, error) {
	a, err := m.Accounts.Account(r.Context, req.NewOwner)
	if err != nil {
		return "", err
	}
	if a == nil {
		return "", merr.NotFoundErr("There is no user %s", req.NewOwner)
	}
	name, message := req.Name, req.Message
	if name == "" {
		name = defaultName
	}
	if message == "" {
		message = defaultMessage
	}
	raw, err := m.as(r, req.NewOwner, post, clientV3("createRoom"), map[string]any{
		"preset": "public_chat", "name": name, "power_level_content_override": map[string]any{"users_default": -10},
	})
	if err != nil {
		return "", err
	}
	var made struct {
		Room ids.RoomID `json:"room_id"`
	}
	if err := json.Unmarshal(raw, &made); err != nil {
		return "", err
	}
	say := map[string]string{"msgtype": "m.text", "body": message}
	if _, err := m.as(r, req.NewOwner, put, clientV3("rooms", string(made.Room), "send", event.TypeMessage, string(h.RoomID)), say); err != nil {
		return "", err
	}
	members, err := m.Rooms.Members(r.Context, h.RoomID, h.Last)
	if err != nil {
		return "", err
	}
	for _, u := range members[:min(len(members), maxMoved)] {
		if _, err := m.as(r, u, post, clientV3("join", string(made.Room)), struct{}{}); err != nil && merr.From(err).Status >= 500 {
			return "", err
		}
	}
	return made.Room, nil
}

type shutdown struct {
	Kicked  []ids.UserID    `json:"kicked_users"`
	Stuck   []ids.UserID    `json:"failed_to_kick_users"`
	Aliases []ids.RoomAlias `json:"local_aliases"`
	NewRoom *ids.RoomID     `json:"new_room_id"`
}

func shutdownOf(j *purge.Job) shutdown {
	s := shutdown{Kicked: j.Kicked, Stuck: j.Stuck, Aliases: j.Aliases}
	if j.NewRoom != "" {
		s.NewRoom = &j.NewRoom
	}
	return s
}

type deletionAnswer struct {
	ID     string       `json:"delete_id"`
	Status purge.Status `json:"status"`
	Error  string       `json:"error,omitempty"`
	// Shutdown is what became of members and aliases.
	Shutdown shutdown `json:"shutdown_room"`
}

func answerDeletion(j *purge.Job) deletionAnswer {
	return deletionAnswer{j.ID, j.Status, j.Error, shutdownOf(j)}
}

func (m *Module) deletionsOf(r *api.Request) (any, error) {
	id, err := r.RoomID("roomId")
	if err != nil {
		return nil, err
	}
	list, err := m.Purges.Of(r.Context, id, purge.DeleteRoom)
	if err != nil {
		return nil, err
	}
	if len(list) == 0 {
		return nil, merr.NotFoundErr("The room is not being deleted, and was not lately")
	}
	out := make([]deletionAnswer, len(list))
	for i, j := range list {
		out[i] = answerDeletion(j)
	}
	return map[string]any{"results": out}, nil
}

func (m *Module) job(ctx context.Context, id string, k purge.Kind) (*purge.Job, error) {
	j, err := m.Purges.Get(ctx, id)
	if err == nil && (j == nil || j.Kind != k) {
		err = merr.NotFoundErr("There is nothing of that ID")
	}
	return j, err
}

func (m *Module) deletion(r *api.Request) (any, error) {
	j, err := m.job(r.Context, r.Param("deleteId"), purge.DeleteRoom)
	if err != nil {
		return nil, err
	}
	return answerDeletion(j), nil
}

// purgeHistory removes what was said in a room before an event or a time. As tools
// expect it, what users of this server said is removed only if the body says so;
// here that is all there is.
func (m *Module) purgeHistory(r *api.Request) (any, error) {
	h, err := m.existingRoom(r)
	if err != nil {
		return nil, err
	}
	var req struct {
		Local bool         `json:"delete_local_events"`
		Event *ids.EventID `json:"purge_up_to_event_id"`
		TS    *int64       `json:"purge_up_to_ts"`
	}
	if err := api.DecodeBody(r, &req); err != nil {
		return nil, err
	}
	if id := ids.EventID(r.Param("eventId")); id != "" {
		req.Event = &id
	}
	j := purge.Job{Kind: purge.PurgeHistory, Room: h.RoomID, By: r.Caller.User, UpTo: h.Last}
	switch {
	case req.Event != nil:
		s, err := m.Rooms.Event(r.Context, h.RoomID, *req.Event)
		if err != nil {
			return nil, err
		}
		if s == nil {
			return nil, merr.NotFoundErr("The event is not in this room")
		}
		j.UpTo = s.Seq - 1
	case req.TS != nil:
		j.Before = max(*req.TS, 1)
	default:
		return nil, merr.New(http.StatusBadRequest, merr.BadJSON, "purge_up_to_event_id or purge_up_to_ts is needed")
	}
	if !req.Local {
		j.UpTo = 0
	}
	id, err := m.Purges.Begin(r.Context, j)
	if err != nil {
		return nil, err
	}
	return map[string]string{"purge_id": id}, nil
}

func (m *Module) purgeStatus(r *api.Request) (any, error) {
	j, err := m.job(r.Context, r.Param("purgeId"), purge.PurgeHistory)
	if err != nil {
		return nil, err
	}
	out := map[string]any{"status": j.Status, "removed": j.Removed}
	if j.Error != "" {
		out["error"] = j.Error
	}
	return out, nil
}
