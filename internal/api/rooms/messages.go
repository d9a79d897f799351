package rooms

import (
	"context"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/hubbub-chat/hubbub/internal/api"
	"github.com/hubbub-chat/hubbub/internal/event"
	"github.com/hubbub-chat/hubbub/internal/feed"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/merr"
	"github.com/hubbub-chat/hubbub/internal/room"
)

const (
	// defaultMessages and maxMessages are the events of one answer.
	defaultMessages = 10
	maxMessages     = 1000
	// maxChunkBytes is about how large an answer grows; then it ends early.
	maxChunkBytes = 4 << 20
	// scanPage is how many events are read at a time, scanPages how many such
	// reads a request spends on looking for events that pass its filter.
	scanPage  = 100
	scanPages = 20
)

// walk is a search through the timeline of a room.
type walk struct {
	*reading
	back    bool
	filter  *feed.EventFilter
	ignored map[ids.UserID]struct{}
	limit   int
	// pos is where the walk stands: between the event at pos and the next.
	pos ids.Seq
	// stop is the position not to walk beyond.
	stop ids.Seq

	chunk []*room.Stored
	bytes int
}

// full reports whether the walk has found enough.
func (w *walk) full() bool {
	return len(w.chunk) >= w.limit || w.bytes >= maxChunkBytes
}

// take looks at one event.
func (w *walk) take(s *room.Stored) {
	if _, ignored := w.ignored[s.Sender]; ignored && s.StateKey == nil {
		return
	}
	if w.access.MaySee(s) && w.filter.Event(s) {
		w.chunk = append(w.chunk, s)
		w.bytes += len(s.Content)
	}
}

// next reads the next stretch of events, beginning with one that may be seen;
// none if there are none up to stop.
func (m *Module) next(ctx context.Context, w *walk, stop ids.Seq, limit int) ([]*room.Stored, error) {
	pg := room.Page{Limit: limit, Newest: w.back}
	if w.back {
		pg.After, pg.UpTo = stop, w.access.LastVisible(w.pos)
	} else {
		pg.After, pg.UpTo = w.access.NextVisible(w.pos+1)-1, stop
	}
	return m.Rooms.Timeline(ctx, w.id, pg)
}

// pass moves the walk to behind an event.
func (w *walk) pass(s *room.Stored) {
	if w.pos = s.Seq; w.back {
		w.pos--
	}
}

// ask is how many events to read next: no more than are wanted, if nothing
// leaves some of them out.
func (w *walk) ask() int {
	if w.filter.All() && len(w.ignored) == 0 {
		return min(scanPage, w.limit-len(w.chunk))
	}
	return scanPage
}

// collect walks until enough is found, nothing is left, or the effort is spent.
func (m *Module) collect(ctx context.Context, w *walk) error {
	for pages := 0; pages < scanPages && !w.full(); pages++ {
		ask := w.ask()
		page, err := m.next(ctx, w, w.stop, ask)
		if err != nil {
			return err
		}
		passes, err := m.related(ctx, w, page)
		if err != nil {
			return err
		}
		for i, s := range page {
			if w.full() {
				return nil
			}
			if passes == nil || passes[i] {
				w.take(s)
			}
			w.pass(s)
		}
		if len(page) < ask {
			w.pos = w.stop
			return nil
		}
	}
	return nil
}

// more reports whether there is anything to see behind the walk. It may say so
// wrongly where a long stretch may not be seen.
func (m *Module) more(ctx context.Context, w *walk) (bool, error) {
	probe, end := *w, feed.PageStart
	if !w.back {
		end = w.until
	}
	for range scanPages {
		page, err := m.next(ctx, &probe, end, 1)
		if err != nil || len(page) == 0 {
			return false, err
		}
		if w.access.MaySee(page[0]) {
			return true, nil
		}
		probe.pass(page[0])
	}
	return true, nil
}

// messages: spec client-server §GET /rooms/{roomId}/messages.
func (m *Module) messages(r *api.Request) (any, error) {
	v, err := m.read(r)
	if err != nil {
		return nil, err
	}
	dir, err := direction(r)
	if err != nil {
		return nil, err
	}
	limit, err := r.QueryInt("limit", defaultMessages, 1, maxMessages)
	if err != nil {
		return nil, err
	}
	filter, err := filterParam(r)
	if err != nil {
		return nil, err
	}
	w := &walk{reading: v, back: dir == "b", filter: filter, limit: int(limit)}
	if err := m.place(r, w); err != nil {
		return nil, err
	}
	start := feed.PageToken(w.pos)
	if from := r.Query.Get("from"); from != "" {
		start = from
	}
	more, err := m.page(r.Context, w)
	if err != nil {
		return nil, err
	}
	b := v.appendEvents([]byte(`{"chunk":`), w.chunk)
	if filter.LazyLoad {
		senders, err := m.senders(r.Context, v, w.chunk)
		if err != nil {
			return nil, err
		}
		b = v.appendEvents(append(b, `,"state":`...), senders)
	}
	b = event.AppendString(append(b, `,"start":`...), start)
	// Who selects is told only by an empty page that there is no more: lists of
	// files page until then, and look for an end before.
	if more || filter.Selects() && len(w.chunk) > 0 {
		b = append(append(append(b, `,"end":"`...), feed.PageToken(w.pos)...), '"')
	}
	return jsontext.Value(append(b, '}')), nil
}

// page collects a page of a walk for its caller, with what is bundled, and reports
// whether there is more.
func (m *Module) page(ctx context.Context, w *walk) (more bool, err error) {
	if w.ignored, err = m.ignored(ctx, w.caller.User); err != nil {
		return false, err
	}
	if w.filter.Room(w.id) {
		if err := m.collect(ctx, w); err != nil {
			return false, err
		}
		if more, err = m.more(ctx, w); err != nil {
			return false, err
		}
	}
	return more, m.bundle(ctx, w.reading, w.ignored, w.chunk)
}

func direction(r *api.Request) (string, error) {
	if !r.Query.Has("dir") {
		return "", api.Missing("dir")
	}
	dir := r.Query.Get("dir")
	if dir != "b" && dir != "f" {
		return "", merr.InvalidParamErr("dir is neither b nor f")
	}
	return dir, nil
}

// filterParam returns the RoomEventFilter of a request.
func filterParam(r *api.Request) (*feed.EventFilter, error) {
	raw := r.Query.Get("filter")
	if raw == "" {
		return &feed.EventFilter{}, nil
	}
	return feed.ParseEventFilter([]byte(raw))
}

// position reads a token that a client gave back.
func (m *Module) position(v *reading, token, name string) (ids.Seq, error) {
	s, err := feed.ParsePage(token, m.Rooms.Place(v.id).Partition, m.Rooms.Count())
	if err != nil {
		return 0, merr.InvalidParamErr("Unknown token in %s", name).Because(err)
	}
	return s, nil
}

// place sets where a walk begins and ends.
func (m *Module) place(r *api.Request, w *walk) error {
	w.pos, w.stop = feed.PageStart, w.until
	if w.back {
		w.pos, w.stop = w.until, feed.PageStart
	}
	if token := r.Query.Get("from"); token != "" {
		s, err := m.position(w.reading, token, "from")
		if err != nil {
			return err
		}
		w.pos = min(s, w.until)
	}
	if token := r.Query.Get("to"); token != "" {
		s, err := m.position(w.reading, token, "to")
		if err != nil {
			return err
		}
		// A walk that begins behind its end goes nowhere.
		if w.back {
			w.stop = min(s, w.pos)
		} else {
			w.stop = max(min(s, w.until), w.pos)
		}
	}
	return nil
}

// ignored returns whom a user ignores. spec: client-server §Ignoring Users.
func (m *Module) ignored(ctx context.Context, user ids.UserID) (map[ids.UserID]struct{}, error) {
	d, err := m.Accounts.Data(ctx, user, "", feed.TypeIgnored)
	return feed.Ignored(d), err
}

// senders returns the member events of those who sent the events, each as it was
// at their first event in the list. spec: client-server §Lazy-loading room members.
func (m *Module) senders(ctx context.Context, v *reading, list []*room.Stored) ([]*room.Stored, error) {
	seen := make(map[ids.UserID]bool)
	var at []room.StateAt
	for _, s := range list {
		if !seen[s.Sender] {
			seen[s.Sender] = true
			at = append(at, room.StateAt{StateKey: room.StateKey{Type: event.TypeMember, Key: string(s.Sender)}, UpTo: s.Seq})
		}
	}
	return m.Rooms.StateEventsAt(ctx, v.id, at...)
}

// event: spec client-server §GET /rooms/{roomId}/event/{eventId}.
func (m *Module) event(r *api.Request) (any, error) {
	v, err := m.look(r)
	if err != nil {
		return nil, err
	}
	s, err := m.find(r, v)
	if err != nil {
		return nil, err
	}
	ignored, err := m.ignored(r.Context, r.Caller.User)
	if err != nil {
		return nil, err
	}
	if err := m.bundle(r.Context, v, ignored, []*room.Stored{s}); err != nil {
		return nil, err
	}
	return jsontext.Value(v.appendEvent(nil, s)), nil
}

// find returns the event that a request names: 404 M_NOT_FOUND if there is none
// that the caller may see.
func (m *Module) find(r *api.Request, v *reading) (*room.Stored, error) {
	return m.findParam(r, v, "eventId")
}

// findParam is find for an event that another parameter names.
func (m *Module) findParam(r *api.Request, v *reading, param string) (*room.Stored, error) {
	want, err := r.EventID(param)
	if err != nil {
		return nil, err
	}
	var s *room.Stored
	if v.access != nil {
		if s, err = m.Rooms.Event(r.Context, v.id, want); err != nil {
			return nil, err
		}
	}
	if s == nil || s.Seq > v.until || !v.access.MaySee(s) {
		return nil, merr.NotFoundErr("There is no such event that you may see")
	}
	return s, nil
}

// context: spec client-server §GET /rooms/{roomId}/context/{eventId}.
func (m *Module) context(r *api.Request) (any, error) {
	limit, err := r.QueryInt("limit", defaultMessages, 0, maxMessages)
	if err != nil {
		return nil, err
	}
	filter, err := filterParam(r)
	if err != nil {
		return nil, err
	}
	v, err := m.read(r)
	if err != nil {
		return nil, err
	}
	s, err := m.find(r, v)
	if err != nil {
		return nil, err
	}
	ignored, err := m.ignored(r.Context, r.Caller.User)
	if err != nil {
		return nil, err
	}
	before := &walk{reading: v, back: true, filter: filter, ignored: ignored, limit: int(limit+1) / 2, pos: s.Seq - 1}
	after := &walk{reading: v, filter: filter, ignored: ignored, limit: int(limit) / 2, pos: s.Seq, stop: v.until}
	for _, w := range [...]*walk{before, after} {
		if w.limit == 0 || !filter.Room(v.id) {
			continue
		}
		if err := m.collect(r.Context, w); err != nil {
			return nil, err
		}
	}
	state, err := m.contextState(r.Context, v, filter, s, before.chunk, after.chunk)
	if err != nil {
		return nil, err
	}
	if err := m.bundle(r.Context, v, ignored, []*room.Stored{s}, before.chunk, after.chunk); err != nil {
		return nil, err
	}
	b := v.appendEvent([]byte(`{"event":`), s)
	b = v.appendEvents(append(b, `,"events_before":`...), before.chunk)
	b = v.appendEvents(append(b, `,"events_after":`...), after.chunk)
	b = v.appendEvents(append(b, `,"state":`...), state)
	b = append(append(b, `,"start":"`...), feed.PageToken(before.pos)...)
	b = append(append(b, `","end":"`...), feed.PageToken(after.pos)...)
	return jsontext.Value(append(b, `"}`...)), nil
}

// contextState is the state at the last event of a context: with lazy loading,
// of the members only those who sent one of the events.
func (m *Module) contextState(ctx context.Context, v *reading, f *feed.EventFilter, s *room.Stored, before, after []*room.Stored) ([]*room.Stored, error) {
	at := s.Seq
	if len(after) > 0 {
		at = after[len(after)-1].Seq
	}
	list, err := m.Rooms.StateUpTo(ctx, v.id, at, room.StateOptions{NoMembers: f.LazyLoad})
	if err != nil {
		return nil, err
	}
	if f.LazyLoad {
		all := append(append([]*room.Stored{s}, before...), after...)
		members, err := m.senders(ctx, v, all)
		if err != nil {
			return nil, err
		}
		list = append(list, members...)
	}
	out := list[:0]
	for _, e := range list {
		if f.Event(e) {
			out = append(out, e)
		}
	}
	return out, nil
}

// timestampToEvent: spec client-server §GET /rooms/{roomId}/timestamp_to_event.
// The events of a room follow one clock, so their times rise with their
// positions, but for clocks set back and times that application services give;
// there the answer is near and not exact.
func (m *Module) timestampToEvent(r *api.Request) (any, error) {
	dir, err := direction(r)
	if err != nil {
		return nil, err
	}
	if !r.Query.Has("ts") {
		return nil, api.Missing("ts")
	}
	ts, err := r.QueryInt("ts", 0, 0, event.MaxInt)
	if err != nil {
		return nil, err
	}
	v, err := m.read(r)
	if err != nil {
		return nil, err
	}
	w := &walk{reading: v, back: dir == "b", filter: &feed.EventFilter{}, limit: 1, stop: feed.PageStart}
	if w.back {
		ts++ // the last event before the first that is later
	} else {
		w.stop = v.until
	}
	if w.pos, err = m.before(r.Context, v, ts); err != nil {
		return nil, err
	}
	if err := m.collect(r.Context, w); err != nil {
		return nil, err
	}
	if len(w.chunk) == 0 {
		return nil, merr.NotFoundErr("There is no event on that side of the time")
	}
	return map[string]any{"event_id": w.chunk[0].ID, "origin_server_ts": w.chunk[0].OriginServerTS}, nil
}

// before returns a position with all events of an earlier time before it, and
// all others behind.
func (m *Module) before(ctx context.Context, v *reading, ts int64) (ids.Seq, error) {
	low, high := feed.PageStart, v.until
	for low < high {
		middle := low + (high-low)/2
		list, err := m.Rooms.Timeline(ctx, v.id, room.Page{After: middle, UpTo: v.until, Limit: 1})
		if err != nil {
			return 0, err
		}
		if len(list) == 0 || list[0].OriginServerTS >= ts {
			high = middle
		} else {
			low = list[0].Seq
		}
	}
	return low, nil
}
