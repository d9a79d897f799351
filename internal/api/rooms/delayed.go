package rooms

import (
	"cmp"
	"context"
	"net/http"
	"slices"
	"strconv"

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

const (
	// delayParam makes a send a delayed one, in the form that clients have used
	// since before MSC4140 had endpoints of its own for it.
	delayParam = "org.matrix.msc4140.delay"
	// delayedPage is how many delayed events one answer holds: each may be as large
	// as an event.
	delayedPage = 100

	delayedV1       = "/_matrix/client/v1/delayed_events"
	delayedUnstable = "/_matrix/client/unstable/org.matrix.msc4140/delayed_events"
)

func (m *Module) delayedRoutes() []api.Route {
	const schedule = "/rooms/{roomId}/delayed_event/{eventType}/{txnId}"
	return []api.Route{
		{
			Method: put, Path: v3 + schedule, Also: []string{"/_matrix/client/unstable/org.matrix.msc4140" + schedule},
			Auth: api.AuthUser, Rate: api.RateSend, Guest: true, Handle: m.scheduleEvent,
		},
		{Method: get, Path: delayedV1, Auth: api.AuthUser, Rate: api.RateRead, Guest: true, Handle: m.listDelayed},
		// The older form lists what is scheduled.
		{Method: get, Path: delayedUnstable, Auth: api.AuthUser, Rate: api.RateRead, Guest: true, Handle: m.listDelayed},
		{
			Method: get, Path: delayedV1 + "/{delayId}", Also: []string{delayedUnstable + "/{delayId}"},
			Auth: api.AuthUser, Rate: api.RateRead, Guest: true, Handle: m.getDelayed,
		},
		// Who has the ID needs no token: a media server may hold an event alive.
		{
			Method: post, Path: delayedV1 + "/{delayId}/{action}", Also: []string{delayedUnstable + "/{delayId}/{action}"},
			Auth: api.AuthNone, Rate: api.RateWrite, Handle: m.actOnDelayed,
		},
		{
			Method: post, Path: delayedV1 + "/{delayId}", Also: []string{delayedUnstable + "/{delayId}"},
			Auth: api.AuthNone, Rate: api.RateWrite, Handle: m.actOnDelayed,
		},
	}
}

// delay takes an event that is to be sent later. content is nil if it is the body
// of the request. spec: MSC4140 §Scheduling a delayed event.
func (m *Module) delay(r *api.Request, e *delayed.Event, path string, content jsontext.Value) (any, error) {
	e.User, e.Device, e.Guest, e.Content = r.Caller.User, r.Caller.Device, r.Caller.Guest, content
	txn := ""
	if id := r.Param("txnId"); id != "" {
		if _, err := txnOf(r, path); err != nil {
			return nil, err
		}
		txn = partition.JoinSort(string(e.Device), "delayed/"+path+string(e.Room)+"/"+e.Type, id)
		if before, err := m.Delayed.Scheduled(r.Context, e.User, txn); before != "" || err != nil {
			return delayAnswer{before}, err
		}
	}
	if content == nil {
		var err error
		if e.Delay, err = strconv.ParseInt(r.Query.Get(delayParam), 10, 64); err != nil {
			return nil, merr.InvalidParamErr("The delay is not an integer").Because(err)
		}
		if e.Content, err = body(r); err != nil {
			return nil, err
		}
	}
	if err := m.checkDelay(e.Delay); err != nil {
		return nil, err
	}
	if err := checkDelayed(e); err != nil {
		return nil, err
	}
	ts, given, err := timestamp(r)
	if err != nil {
		return nil, err
	}
	if given {
		e.Timestamp = &ts
	}
	id, err := m.Delayed.Schedule(r.Context, e, txn)
	if err != nil {
		return nil, err
	}
	return delayAnswer{id}, nil
}

type delayAnswer struct {
	DelayID string `json:"delay_id"`
}

// checkDelay refuses delays that are none, or too long. Clients know the errors by
// their unstable names, under M_UNKNOWN.
func (m *Module) checkDelay(ms int64) error {
	longest := m.Delayed.MaxDelay()
	switch {
	case ms <= 0:
		return merr.InvalidParamErr("The delay is not above 0")
	case longest == 0:
		return merr.New(http.StatusBadRequest, merr.Unknown, "Events cannot be delayed here").
			With("org.matrix.msc4140.errcode", "M_MAX_DELAY_UNSUPPORTED")
	case ms > longest.Milliseconds():
		return merr.New(http.StatusBadRequest, merr.Unknown, "The delay is longer than %s", longest).
			With("org.matrix.msc4140.errcode", "M_MAX_DELAY_EXCEEDED").
			With("org.matrix.msc4140.max_delay", longest.Milliseconds()).With("max_delay", longest.Milliseconds())
	}
	return nil
}

func checkDelayed(e *delayed.Event) error {
	if e.StateKey != nil {
		return checkState(e.Type, *e.StateKey, e.Content)
	}
	if err := checkType(e.Type); err != nil {
		return err
	}
	if e.Type == event.TypeRedaction {
		_, err := redactTarget(e.Content)
		return err
	}
	return nil
}

func redactTarget(content []byte) (ids.EventID, error) {
	target, _ := event.StringField(content, "redacts")
	id, err := ids.ParseEventID(target)
	if err != nil {
		return "", merr.BadJSONErr("redacts is not an event ID").Because(err)
	}
	return id, nil
}

// scheduleEvent: spec MSC4140 §Scheduling a delayed event.
func (m *Module) scheduleEvent(r *api.Request) (any, error) {
	id, err := r.RoomID("roomId")
	if err != nil {
		return nil, err
	}
	var req struct {
		Delay    *int64         `json:"delay"`
		StateKey *string        `json:"state_key"`
		Content  jsontext.Value `json:"content"`
	}
	if err := api.DecodeBody(r, &req); err != nil {
		return nil, err
	}
	switch {
	case req.Delay == nil:
		return nil, api.Missing("delay")
	case req.Content == nil:
		return nil, api.Missing("content")
	}
	content, err := canonical(req.Content)
	if err != nil {
		return nil, err
	}
	e := &delayed.Event{Room: id, Type: r.Param("eventType"), StateKey: req.StateKey, Delay: *req.Delay}
	return m.delay(r, e, "delayed_event/", content)
}

// SendDelayed implements delayed.Sender: it does what the request would have done
// at this moment.
func (m *Module) SendDelayed(ctx context.Context, e *delayed.Event) (ids.EventID, error) {
	txn := room.DelayedTxn(e.ID)
	draft := roomstate.Draft{Type: e.Type, StateKey: e.StateKey, Sender: e.User, Content: e.Content}
	if e.Timestamp != nil {
		draft.OriginServerTS = *e.Timestamp
	}
	if e.StateKey == nil && e.Type == event.TypeRedaction {
		target, err := redactTarget(e.Content)
		if err != nil {
			return "", err
		}
		draft.Redacts = target
		return partition.Do[ids.EventID](ctx, m.Router, &room.Redact{Room: e.Room, Target: target, Draft: draft, Txn: txn})
	}
	cmd := &room.SendDelayed{Scheduled: e.After, Send: room.Send{
		Room: e.Room, Draft: draft, Timestamped: e.Timestamp != nil, Txn: txn, Unchanged: e.StateKey != nil,
	}}
	if e.StateKey != nil {
		caller := api.Caller{User: e.User, Device: e.Device, Guest: e.Guest}
		if err := m.completeState(ctx, &cmd.Send, caller); err != nil {
			return "", err
		}
	}
	return partition.Do[ids.EventID](ctx, m.Router, cmd)
}

// actOnDelayed: spec MSC4140 §Managing scheduled delayed events. The action stands
// in the path, or in the body as clients send it that know an earlier version.
func (m *Module) actOnDelayed(r *api.Request) (any, error) {
	action := r.Param("action")
	inBody := action == ""
	if inBody {
		var req struct {
			Action string `json:"action"`
		}
		if err := api.DecodeBody(r, &req); err != nil {
			return nil, err
		}
		if action = req.Action; action == "" {
			return nil, api.Missing("action")
		}
	}
	if !slices.Contains([]string{"restart", "cancel", "send"}, action) {
		if inBody {
			return nil, merr.InvalidParamErr("Unknown action")
		}
		return nil, merr.New(http.StatusNotFound, merr.Unrecognized, "Unknown action")
	}
	return nil, m.Delayed.Do(r.Context, m, r.Param("delayId"), action)
}

type delayedView struct {
	DelayID      string         `json:"delay_id"`
	RoomID       ids.RoomID     `json:"room_id"`
	Type         string         `json:"type"`
	StateKey     *string        `json:"state_key,omitzero"`
	Delay        int64          `json:"delay"`
	RunningSince int64          `json:"running_since"`
	Content      jsontext.Value `json:"content"`
	Error        jsontext.Value `json:"error,omitempty"`
	EventID      ids.EventID    `json:"event_id,omitempty"`
	Finalised    int64          `json:"origin_server_ts,omitzero"`
}

func viewDelayed(e *delayed.Event) delayedView {
	return delayedView{e.ID, e.Room, e.Type, e.StateKey, e.Delay, e.Since, e.Content, e.Error, e.EventID, e.Finalised}
}

// getDelayed: spec MSC4140 §Getting a single delayed event.
func (m *Module) getDelayed(r *api.Request) (any, error) {
	e, err := m.Delayed.Get(r.Context, r.Caller.User, r.Param("delayId"))
	if err != nil {
		return nil, err
	}
	return viewDelayed(e), nil
}

// delayedFilter is what of the list a request asks for.
type delayedFilter struct {
	status, outcome, reason, room, eventType string
	order                                    string
	backward                                 bool
	from                                     int64
}

func delayedFilterOf(r *api.Request) (f delayedFilter, err error) {
	enum := func(to *string, name string, allowed ...string) {
		if err == nil {
			*to, err = r.QueryEnum(name, allowed...)
		}
	}
	enum(&f.status, "status", "", "scheduled", "finalised")
	enum(&f.outcome, "outcome", "", "send", "cancel", "error")
	enum(&f.reason, "reason", "", "action", "delay")
	enum(&f.order, "order_by", "send_ts", "origin_server_ts", "running_since")
	var dir string
	enum(&dir, "dir", "f", "b")
	if err == nil {
		f.from, err = r.QueryInt("from", 0, 0, 1<<31)
	}
	f.backward = dir == "b"
	f.room, f.eventType = r.Query.Get("room_id"), r.Query.Get("type")
	if f.status == "" && r.Path == delayedUnstable {
		f.status = "scheduled"
	}
	return f, err
}

func (f *delayedFilter) match(e *delayed.Event) bool {
	outcome := map[delayed.Status]string{delayed.Sent: "send", delayed.Cancelled: "cancel", delayed.Failed: "error"}[e.Status]
	status := "scheduled"
	if e.Status.Finalised() {
		status = "finalised"
	}
	is := func(want, have string) bool { return want == "" || want == have }
	return is(f.status, status) && is(f.outcome, outcome) && is(f.reason, string(e.Reason)) &&
		is(f.room, string(e.Room)) && is(f.eventType, e.Type)
}

// key is what the list is ordered by.
func (f *delayedFilter) key(e *delayed.Event) int64 {
	switch {
	case f.order == "running_since":
		return e.Since
	case f.order == "origin_server_ts" && e.Finalised != 0:
		return e.Finalised
	}
	return e.Since + e.Delay
}

// listDelayed: spec MSC4140 §Getting a list of delayed events.
func (m *Module) listDelayed(r *api.Request) (any, error) {
	f, err := delayedFilterOf(r)
	if err != nil {
		return nil, err
	}
	list, err := m.Delayed.List(r.Context, r.Caller.User)
	if err != nil {
		return nil, err
	}
	list = slices.DeleteFunc(list, func(e *delayed.Event) bool { return !f.match(e) })
	slices.SortFunc(list, func(a, b *delayed.Event) int {
		return cmp.Or(cmp.Compare(f.key(a), f.key(b)), cmp.Compare(a.ID, b.ID))
	})
	if f.backward {
		slices.Reverse(list)
	}
	from := min(int(f.from), len(list))
	to := min(from+delayedPage, len(list))
	answer := struct {
		Events []delayedView `json:"delayed_events"`
		Next   string        `json:"next_batch,omitempty"`
		Prev   string        `json:"prev_batch,omitempty"`
	}{Events: make([]delayedView, 0, to-from)}
	for _, e := range list[from:to] {
		answer.Events = append(answer.Events, viewDelayed(e))
	}
	if to < len(list) {
		if f.backward {
			answer.Prev = strconv.Itoa(to)
		} else {
			answer.Next = strconv.Itoa(to)
		}
	}
	return answer, nil
}

var _ delayed.Sender = (*Module)(nil)
