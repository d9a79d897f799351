package rooms

import (
	"github.com/hubbub-chat/hubbub/internal/api"
	"github.com/hubbub-chat/hubbub/internal/event"
	"github.com/hubbub-chat/hubbub/internal/merr"
	"github.com/hubbub-chat/hubbub/internal/report"
)

const (
	// maxReason is the longest reason of a report in bytes: a page of text.
	maxReason = 4000
	// worstScore is the most offensive. spec: client-server v1.17
	// §POST /rooms/{roomId}/report/{eventId}.
	worstScore = -100
)

// reportRequest is the body of all reports.
type reportRequest struct {
	Reason *string `json:"reason"`
	Score  *int    `json:"score"`
}

// readReport reads the body of a report. A reason has to be there if needed,
// though it may be blank.
func readReport(r *api.Request, needed bool) (out report.Report, err error) {
	var req reportRequest
	if err := api.DecodeBody(r, &req); err != nil {
		return out, err
	}
	out.Reporter = r.Caller.User
	switch {
	case req.Reason == nil && needed:
		return out, api.Missing("reason")
	case req.Reason == nil:
	case len(*req.Reason) > maxReason:
		return out, merr.TooLargeErr("The reason is longer than %d bytes", maxReason)
	default:
		out.Reason = *req.Reason
	}
	if req.Score != nil && (*req.Score < worstScore || *req.Score > 0) {
		return out, merr.InvalidParamErr("score is not between %d and 0", worstScore)
	}
	out.Score = req.Score
	return out, nil
}

func (m *Module) addReport(r *api.Request, rep report.Report) (any, error) {
	_, err := m.Router.Do(r.Context, &report.Add{Report: rep})
	return api.Empty, err
}

// reportRoom: spec client-server §POST /rooms/{roomId}/report. Everyone may
// report a room: also who was only invited or saw it in the directory.
func (m *Module) reportRoom(r *api.Request) (any, error) {
	id, err := r.RoomID("roomId")
	if err != nil {
		return nil, err
	}
	rep, err := readReport(r, true)
	if err != nil {
		return nil, err
	}
	head, err := m.Rooms.Head(r.Context, id)
	if err != nil {
		return nil, err
	}
	if head == nil {
		return nil, merr.NotFoundErr("There is no such room")
	}
	rep.Room, rep.Score = id, nil
	return m.addReport(r, rep)
}

// reportEvent: spec client-server §POST /rooms/{roomId}/report/{eventId}. It is
// for those who are in the room, about what they may see there.
func (m *Module) reportEvent(r *api.Request) (any, error) {
	rep, err := readReport(r, false)
	if err != nil {
		return nil, err
	}
	v, err := m.read(r)
	if merr.Is(err, merr.Forbidden) || err == nil && v.access.Membership != event.Join {
		return nil, merr.NotFoundErr("There is no such event, or you are not in the room")
	}
	if err != nil {
		return nil, err
	}
	s, err := m.find(r, v)
	if err != nil {
		return nil, err
	}
	rep.Room, rep.Event, rep.User = v.id, s.ID, s.Sender
	return m.addReport(r, rep)
}

// reportUser: spec client-server §POST /users/{userId}/report.
func (m *Module) reportUser(r *api.Request) (any, error) {
	user, err := r.UserID("userId")
	if err != nil {
		return nil, err
	}
	rep, err := readReport(r, true)
	if err != nil {
		return nil, err
	}
	acc, err := m.Accounts.Account(r.Context, user)
	if err != nil {
		return nil, err
	}
	if acc == nil {
		return nil, merr.NotFoundErr("There is no such user")
	}
	rep.User, rep.Score = user, nil
	return m.addReport(r, rep)
}
