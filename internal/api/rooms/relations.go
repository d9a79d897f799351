package rooms

import (
	"context"
	"math"
	"slices"
	"strconv"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/hubbub-chat/hubbub/internal/api"
	"github.com/hubbub-chat/hubbub/internal/event"
	"github.com/hubbub-chat/hubbub/internal/feed"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/merr"
	"github.com/hubbub-chat/hubbub/internal/room"
)

const (
	// defaultRelations and maxRelations are the events of one answer of /relations,
	// which carry their own aggregations.
	defaultRelations = 20
	maxRelations     = 100
	// defaultThreads and maxThreads are the threads of one answer of /threads; each
	// shows the latest event too.
	defaultThreads = 20
	maxThreads     = 50
)

func (m *Module) relationRoutes() []api.Route {
	// Clients of before v1.3 know the unstable path.
	const inV1, old = v1 + "/rooms/{roomId}", "/_matrix/client/unstable/rooms/{roomId}"
	const of, byType, byBoth = "/relations/{eventId}", "/relations/{eventId}/{relType}", "/relations/{eventId}/{relType}/{eventType}"
	route := func(path, op string, h api.Handler, also ...string) api.Route {
		return api.Route{Method: get, Path: inV1 + path, Op: op, Also: also, Auth: api.AuthUser, Rate: api.RateRead, Guest: true, Handle: h}
	}
	return []api.Route{
		route(of, "getRelatingEvents", m.relations, old+of),
		route(byType, "getRelatingEventsWithRelType", m.relations, old+byType),
		route(byBoth, "getRelatingEventsWithRelTypeAndEventType", m.relations, old+byBoth),
		route("/threads", "getThreadRoots", m.threads),
	}
}

// onlooker is the caller as the one who is shown aggregations.
func (v *reading) onlooker(ignored map[ids.UserID]struct{}) *room.Onlooker {
	return &room.Onlooker{
		User: v.caller.User, Device: v.caller.Device, RoomID: true, Access: v.access, UpTo: v.until, Ignored: ignored,
	}
}

// bundle reads the aggregations of the events that an answer will show.
func (m *Module) bundle(ctx context.Context, v *reading, ignored map[ids.UserID]struct{}, lists ...[]*room.Stored) (err error) {
	v.bundled, err = m.Rooms.Aggregate(ctx, v.id, v.onlooker(ignored), slices.Concat(lists...))
	return err
}

// related reports which events of a page pass the part of a filter that asks what
// relates to them; nil if all do.
func (m *Module) related(ctx context.Context, w *walk, page []*room.Stored) ([]bool, error) {
	if !w.filter.Related() {
		return nil, nil
	}
	return m.Rooms.RelatedBy(ctx, w.id, w.onlooker(w.ignored), page, w.filter.RelatedBySenders, w.filter.RelatedByRelTypes)
}

// relations: spec client-server §GET /rooms/{roomId}/relations/{eventId} and the
// two with a type of relation and of event.
func (m *Module) relations(r *api.Request) (any, error) {
	v, err := m.look(r)
	if err != nil {
		return nil, err
	}
	parent, err := m.find(r, v)
	if err != nil {
		return nil, err
	}
	q, err := m.relatedQuery(r, v, parent)
	if err != nil {
		return nil, err
	}
	ignored, err := m.ignored(r.Context, r.Caller.User)
	if err != nil {
		return nil, err
	}
	chunk, next, err := m.collectRelated(r.Context, v, q, ignored)
	if err != nil {
		return nil, err
	}
	if err := m.bundle(r.Context, v, ignored, chunk); err != nil {
		return nil, err
	}
	b := v.appendEvents([]byte(`{"chunk":`), chunk)
	if next != "" {
		b = event.AppendString(append(b, `,"next_batch":`...), next)
	}
	if from := r.Query.Get("from"); from != "" {
		b = event.AppendString(append(b, `,"prev_batch":`...), from)
	}
	if r.Query.Has("recurse") {
		b = strconv.AppendInt(append(b, `,"recursion_depth":`...), room.RelationDepth, 10)
	}
	return jsontext.Value(append(b, '}')), nil
}

// relatedQuery reads the parameters of a request for relations.
func (m *Module) relatedQuery(r *api.Request, v *reading, parent *room.Stored) (q room.RelatedQuery, err error) {
	// What relates to an event comes after it.
	q = room.RelatedQuery{
		Parent: parent.Seq, RelType: r.Param("relType"), EventType: r.Param("eventType"),
		After: parent.Seq, UpTo: v.access.Head.Last, Newest: true,
	}
	if r.Query.Has("dir") {
		dir, err := direction(r)
		if err != nil {
			return q, err
		}
		q.Newest = dir == "b"
	}
	switch r.Query.Get("recurse") {
	case "", "false":
	case "true":
		q.Indirect = true
	default:
		return q, merr.InvalidParamErr("recurse is neither true nor false")
	}
	limit, err := r.QueryInt("limit", defaultRelations, 1, maxRelations)
	if err != nil {
		return q, err
	}
	q.Limit = int(limit)
	for _, name := range [...]string{"from", "to"} {
		token := r.Query.Get(name)
		if token == "" {
			continue
		}
		s, err := m.position(v, token, name)
		if err != nil {
			return q, err
		}
		if (name == "from") == q.Newest {
			q.UpTo = min(s, q.UpTo)
		} else {
			q.After = max(s, q.After)
		}
	}
	return q, nil
}

// collectRelated returns related events that the caller may see, and the token to
// go on with, "" if there are no more.
func (m *Module) collectRelated(ctx context.Context, v *reading, q room.RelatedQuery, ignored map[ids.UserID]struct{}) (chunk []*room.Stored, next string, err error) {
	end, limit := q.UpTo, q.Limit
	if q.Newest {
		end = q.After
	}
	for pages := 0; ; pages++ {
		q.Limit = limit - len(chunk)
		list, pos, err := m.Rooms.Related(ctx, v.id, q)
		if err != nil {
			return nil, "", err
		}
		events, err := m.Rooms.RelatedEvents(ctx, v.id, list)
		if err != nil {
			return nil, "", err
		}
		for _, s := range events {
			_, ignores := ignored[s.Sender]
			if v.access.MaySee(s) && (!ignores || s.StateKey != nil) {
				chunk = append(chunk, s)
			}
		}
		switch {
		case pos == end || q.UpTo <= q.After:
			return chunk, "", nil
		case len(chunk) == limit || pages == scanPages:
			return chunk, feed.PageToken(pos), nil
		case q.Newest:
			q.UpTo = pos
		default:
			q.After = pos
		}
	}
}

// threads: spec client-server §GET /rooms/{roomId}/threads.
func (m *Module) threads(r *api.Request) (any, error) {
	v, err := m.read(r)
	if err != nil {
		return nil, err
	}
	include := r.Query.Get("include")
	if include != "" && include != "all" && include != "participated" {
		return nil, merr.InvalidParamErr("include is neither all nor participated")
	}
	limit, err := r.QueryInt("limit", defaultThreads, 1, maxThreads)
	if err != nil {
		return nil, err
	}
	from := ids.Seq(math.MaxInt64)
	if token := r.Query.Get("from"); token != "" {
		if from, err = m.position(v, token, "from"); err != nil {
			return nil, err
		}
	}
	chunk, next, err := m.collectThreads(r.Context, v, from, int(limit), include == "participated")
	if err != nil {
		return nil, err
	}
	ignored, err := m.ignored(r.Context, r.Caller.User)
	if err != nil {
		return nil, err
	}
	if err := m.bundle(r.Context, v, ignored, chunk); err != nil {
		return nil, err
	}
	for i, s := range chunk {
		// What an ignored user said is not shown, though others answer it.
		if _, ignores := ignored[s.Sender]; ignores {
			if chunk[i], err = s.Emptied(v.access.Head.Version); err != nil {
				return nil, err
			}
		}
	}
	b := v.appendEvents([]byte(`{"chunk":`), chunk)
	if next != "" {
		b = event.AppendString(append(b, `,"next_batch":`...), next)
	}
	return jsontext.Value(append(b, '}')), nil
}

// collectThreads returns the roots of the threads whose latest reply is at or
// before from, and the token to go on with, "" if there are no more.
func (m *Module) collectThreads(ctx context.Context, v *reading, from ids.Seq, limit int, mine bool) (chunk []*room.Stored, next string, err error) {
	for range scanPages {
		page, err := m.Rooms.Threads(ctx, v.id, from, scanPage)
		if err != nil {
			return nil, "", err
		}
		roots, err := m.threadRoots(ctx, v, page, mine)
		if err != nil {
			return nil, "", err
		}
		for i, s := range roots {
			if s == nil {
				continue
			}
			if len(chunk) == limit {
				return chunk, feed.PageToken(page[i].Latest), nil
			}
			chunk = append(chunk, s)
		}
		if len(page) < scanPage {
			return chunk, "", nil
		}
		from = page[len(page)-1].Latest - 1
	}
	return chunk, feed.PageToken(from), nil
}

// threadRoots returns the roots of threads; nil for those which the caller may not
// see, or, if only theirs are wanted, did not take part in.
func (m *Module) threadRoots(ctx context.Context, v *reading, page []room.ThreadPlace, mine bool) ([]*room.Stored, error) {
	at := make([]ids.Seq, len(page))
	for i, t := range page {
		at[i] = t.Root
	}
	roots, err := m.Rooms.AtAll(ctx, v.id, at...)
	if err != nil {
		return nil, err
	}
	for i, s := range roots {
		if s == nil || s.Seq > v.until || !v.access.MaySee(s) {
			roots[i] = nil
			continue
		}
		if page[i].Latest > v.until { // it may have begun after the caller left
			q := room.RelatedQuery{Parent: s.Seq, RelType: event.RelThread, After: s.Seq, UpTo: v.until, Limit: 1, Newest: true}
			list, _, err := m.Rooms.Related(ctx, v.id, q)
			if err != nil {
				return nil, err
			}
			if len(list) == 0 {
				roots[i] = nil
			}
		}
	}
	if !mine {
		return roots, nil
	}
	took, err := m.Rooms.Participated(ctx, v.id, v.caller.User, roots)
	if err != nil {
		return nil, err
	}
	for i := range roots {
		if !took[i] {
			roots[i] = nil
		}
	}
	return roots, nil
}
