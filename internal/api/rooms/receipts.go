package rooms

import (
	"context"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/hubbub-chat/hubbub/internal/account"
	"github.com/hubbub-chat/hubbub/internal/api"
	"github.com/hubbub-chat/hubbub/internal/event"
	"github.com/hubbub-chat/hubbub/internal/feed"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/merr"
	"github.com/hubbub-chat/hubbub/internal/room"
)

// typeFullyRead is the marker of what a user has read, kept as account data of
// the room. spec: client-server §Fully read markers.
const typeFullyRead = "m.fully_read"

// defaultTyping is how long a typing notice lasts whose client does not say.
const defaultTyping = 30 * time.Second

// receipt: spec client-server §POST /rooms/{roomId}/receipt/{receiptType}/{eventId}.
func (m *Module) receipt(r *api.Request) (any, error) {
	id, err := r.RoomID("roomId")
	if err != nil {
		return nil, err
	}
	target, err := r.EventID("eventId")
	if err != nil {
		return nil, err
	}
	var req struct {
		Thread jsontext.Value `json:"thread_id"`
	}
	if err := api.DecodeBody(r, &req); err != nil {
		return nil, err
	}
	thread, receiptType := "", r.Param("receiptType")
	if req.Thread != nil {
		if json.Unmarshal(req.Thread, &thread) != nil {
			return nil, merr.InvalidParamErr("thread_id is no string")
		}
		if err := checkThread(receiptType, thread); err != nil {
			return nil, err
		}
	}
	return api.Empty, m.mark(r, id, receiptType, thread, target)
}

// checkThread checks the thread of a receipt. spec: client-server §Threaded read
// receipts.
func checkThread(receiptType, thread string) error {
	if receiptType == typeFullyRead {
		return merr.InvalidParamErr("A fully read marker has no thread")
	}
	if thread == "main" {
		return nil
	}
	if _, err := ids.ParseEventID(thread); err != nil {
		return merr.InvalidParamErr("thread_id is neither main nor an event ID").Because(err)
	}
	return nil
}

// mark moves one of the markers of how far a user has read.
func (m *Module) mark(r *api.Request, id ids.RoomID, receiptType, thread string, target ids.EventID) error {
	switch receiptType {
	case room.ReceiptRead, room.ReceiptReadPrivate:
		_, err := m.Router.Do(r.Context, &room.SetReceipt{
			Room: id, User: r.Caller.User, Type: receiptType, Thread: thread, Event: target,
		})
		return err
	case typeFullyRead:
		return m.fullyRead(r.Context, id, r.Caller.User, target)
	}
	return merr.InvalidParamErr("Unknown type of receipt")
}

// readMarkers: spec client-server §POST /rooms/{roomId}/read_markers.
func (m *Module) readMarkers(r *api.Request) (any, error) {
	id, err := r.RoomID("roomId")
	if err != nil {
		return nil, err
	}
	var req struct {
		FullyRead *string `json:"m.fully_read"`
		Read      *string `json:"m.read"`
		Private   *string `json:"m.read.private"`
	}
	if err := api.DecodeBody(r, &req); err != nil {
		return nil, err
	}
	if err := m.mustBeIn(r.Context, id, r.Caller.User); err != nil {
		return nil, err
	}
	for _, mark := range [...]struct {
		receiptType string
		event       *string
	}{{room.ReceiptRead, req.Read}, {room.ReceiptReadPrivate, req.Private}, {typeFullyRead, req.FullyRead}} {
		if mark.event == nil {
			continue
		}
		target, err := ids.ParseEventID(*mark.event)
		if err != nil {
			return nil, merr.InvalidParamErr("%s is not an event ID", mark.receiptType).Because(err)
		}
		if err := m.mark(r, id, mark.receiptType, "", target); err != nil {
			return nil, err
		}
	}
	return api.Empty, nil
}

// fullyRead moves the marker, forward only. Two requests at once may end with
// the earlier of their events, which the client's next one mends.
func (m *Module) fullyRead(ctx context.Context, id ids.RoomID, user ids.UserID, target ids.EventID) error {
	if err := m.mustBeIn(ctx, id, user); err != nil {
		return err
	}
	s, err := m.Rooms.Event(ctx, id, target)
	if err != nil {
		return err
	}
	if s == nil {
		return merr.NotFoundErr("The event is not in this room")
	}
	present, err := m.Accounts.Data(ctx, user, id, typeFullyRead)
	if err != nil {
		return err
	}
	if present != nil {
		was, _ := event.StringField(present.Content, "event_id")
		old, err := m.Rooms.Event(ctx, id, ids.EventID(was))
		if err != nil {
			return err
		}
		if old != nil && old.Seq >= s.Seq {
			return nil
		}
	}
	content := jsontext.Value(event.SetString([]byte("{}"), "event_id", string(target)))
	_, err = m.Router.Do(ctx, account.NewSetData(user, id, typeFullyRead, content))
	return err
}

// typing: spec client-server §PUT /rooms/{roomId}/typing/{userId}.
func (m *Module) typing(r *api.Request) (any, error) {
	id, err := r.RoomID("roomId")
	if err != nil {
		return nil, err
	}
	user, err := r.Self("userId")
	if err != nil {
		return nil, err
	}
	var req struct {
		Typing    *bool  `json:"typing"`
		TimeoutMS *int64 `json:"timeout"`
	}
	if err := api.DecodeBody(r, &req); err != nil {
		return nil, err
	}
	if req.Typing == nil {
		return nil, api.Missing("typing")
	}
	if err := m.mustBeIn(r.Context, id, user); err != nil {
		return nil, err
	}
	n := feed.TypingNotice{Room: id, User: user}
	if *req.Typing {
		d := defaultTyping
		if req.TimeoutMS != nil {
			d = time.Duration(min(max(*req.TimeoutMS, 0), feed.MaxTyping.Milliseconds())) * time.Millisecond
		}
		n.Until = m.Clock.Now().Add(d)
	}
	return api.Empty, m.Typer.Type(n)
}
