package rooms

import (
	"encoding/base64"
	"slices"

	"github.com/hubbub-chat/hubbub/internal/api"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/merr"
)

// mutualPage is how many rooms one answer lists: more than nearly any two people
// share.
const mutualPage = 200

// mutualRooms: spec client-server §GET /mutual_rooms. The token is the last room
// of the page before.
func (m *Module) mutualRooms(r *api.Request) (any, error) {
	if !r.Query.Has("user_id") {
		return nil, api.Missing("user_id")
	}
	user, err := ids.ParseUserID(r.Query.Get("user_id"))
	if err != nil {
		return nil, merr.InvalidParamErr("user_id is not a user ID").Because(err)
	}
	if user == r.Caller.User {
		return nil, merr.InvalidParamErr("user_id is your own")
	}
	last, err := base64.RawURLEncoding.DecodeString(r.Query.Get("from"))
	if err != nil {
		return nil, merr.InvalidParamErr("Unknown token in from").Because(err)
	}
	if len(last) > 0 {
		if _, err := ids.ParseRoomID(string(last)); err != nil {
			return nil, merr.InvalidParamErr("Unknown token in from").Because(err)
		}
	}
	mine, err := m.Accounts.Joined(r.Context, r.Caller.User)
	if err != nil {
		return nil, err
	}
	theirs, err := m.Accounts.Joined(r.Context, user)
	if err != nil {
		return nil, err
	}
	inIt := make(map[ids.RoomID]bool, len(theirs))
	for _, id := range theirs {
		inIt[id] = true
	}
	shared := slices.DeleteFunc(mine, func(id ids.RoomID) bool { return !inIt[id] })
	slices.Sort(shared)
	from, found := slices.BinarySearch(shared, ids.RoomID(last))
	if found {
		from++
	}
	to := min(from+mutualPage, len(shared))
	answer := map[string]any{"joined": shared[from:to], "count": len(shared)}
	if to < len(shared) {
		answer["next_batch"] = base64.RawURLEncoding.EncodeToString([]byte(shared[to-1]))
	}
	return answer, nil
}
