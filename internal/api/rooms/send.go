package rooms

import (
	"context"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/hubbub-chat/hubbub/internal/api"
	"github.com/hubbub-chat/hubbub/internal/delayed"
	"github.com/hubbub-chat/hubbub/internal/event"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/merr"
	"github.com/hubbub-chat/hubbub/internal/partition"
	"github.com/hubbub-chat/hubbub/internal/room"
	"github.com/hubbub-chat/hubbub/internal/roomstate"
)

// submit runs a command that makes an event.
func (m *Module) submit(ctx context.Context, cmd partition.Command) (any, error) {
	id, err := partition.Do[ids.EventID](ctx, m.Router, cmd)
	if err != nil {
		return nil, err
	}
	// Written out: it is the answer to every message.
	return jsontext.Value(append(event.AppendString([]byte(`{"event_id":`), id), '}')), nil
}

// txnOf returns the transaction of a request. path is what of the endpoint's
// path distinguishes it within the room.
func txnOf(r *api.Request, path string) (room.Txn, error) {
	t := room.Txn{Device: r.Caller.Device, Path: path, ID: r.Param("txnId")}
	return t, t.Check()
}

// timestamp returns the time that an application service gives an event; ok is
// false for all others, whose ts is ignored. spec: application-service
// §Timestamp massaging.
func timestamp(r *api.Request) (ts int64, ok bool, err error) {
	if r.Caller.AppService == "" || !r.Query.Has("ts") {
		return 0, false, nil
	}
	ts, err = r.QueryInt("ts", 0, 0, event.MaxInt)
	return ts, err == nil, err
}

// send: spec client-server §PUT /rooms/{roomId}/send/{eventType}/{txnId}.
func (m *Module) send(r *api.Request) (any, error) {
	id, err := r.RoomID("roomId")
	if err != nil {
		return nil, err
	}
	eventType := r.Param("eventType")
	if err := checkType(eventType); err != nil {
		return nil, err
	}
	txn, err := txnOf(r, "send/"+eventType)
	if err != nil {
		return nil, err
	}
	if r.Query.Has(delayParam) {
		return m.delay(r, &delayed.Event{Room: id, Type: eventType}, "send/", nil)
	}
	content, err := body(r)
	if err != nil {
		return nil, err
	}
	ts, given, err := timestamp(r)
	if err != nil {
		return nil, err
	}
	draft := roomstate.Draft{Type: eventType, Sender: r.Caller.User, Content: content, OriginServerTS: ts}
	if eventType == event.TypeRedaction {
		target, _ := event.StringField(content, "redacts")
		return m.redactTarget(r, target, &room.Redact{Room: id, Draft: draft, Txn: txn, Timestamped: given})
	}
	draft.OriginServerTS = ts
	m.Typer.Active(r.Caller.User)
	return m.submit(r.Context, &room.Send{Room: id, Draft: draft, Txn: txn, Timestamped: given})
}

// redact: spec client-server §PUT /rooms/{roomId}/redact/{eventId}/{txnId}.
func (m *Module) redact(r *api.Request) (any, error) {
	id, err := r.RoomID("roomId")
	if err != nil {
		return nil, err
	}
	target, err := r.EventID("eventId")
	if err != nil {
		return nil, err
	}
	txn, err := txnOf(r, "redact/"+string(target))
	if err != nil {
		return nil, err
	}
	var req struct {
		Reason *string `json:"reason"`
	}
	if err := api.DecodeBody(r, &req); err != nil {
		return nil, err
	}
	content := []byte("{}")
	if req.Reason != nil {
		content = event.SetString(content, "reason", *req.Reason)
	}
	ts, given, err := timestamp(r)
	if err != nil {
		return nil, err
	}
	draft := roomstate.Draft{Type: event.TypeRedaction, Sender: r.Caller.User, Content: content, OriginServerTS: ts}
	return m.redactTarget(r, string(target), &room.Redact{Room: id, Draft: draft, Txn: txn, Timestamped: given})
}

func (m *Module) redactTarget(r *api.Request, target string, cmd *room.Redact) (any, error) {
	id, err := ids.ParseEventID(target)
	if err != nil {
		return nil, merr.BadJSONErr("redacts is not an event ID").Because(err)
	}
	cmd.Target, cmd.Draft.Redacts = id, id
	if r.Caller.Suspended {
		if err := m.mustBeOwn(r, cmd.Room, id); err != nil {
			return nil, err
		}
	}
	return m.submit(r.Context, cmd)
}

// mustBeOwn refuses what suspended users may do with their own events only.
func (m *Module) mustBeOwn(r *api.Request, in ids.RoomID, id ids.EventID) error {
	s, err := m.Rooms.Event(r.Context, in, id)
	if err != nil || s != nil && s.Sender == r.Caller.User {
		return err
	}
	return api.ErrSuspended()
}
