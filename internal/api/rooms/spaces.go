package rooms

import (
	"cmp"
	"context"
	"encoding/base64"
	"slices"
	"strconv"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/hubbub-chat/hubbub/internal/api"
	"github.com/hubbub-chat/hubbub/internal/event"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/merr"
	"github.com/hubbub-chat/hubbub/internal/room"
)

const (
	// typeSpace is the type of rooms that hold others.
	typeSpace = "m.space"
	// hierarchyPage is how many rooms one answer has, also if the client asks for
	// more: each comes with the list of what is in it.
	hierarchyPage = 50
	// hierarchyDepth is how deep a tree is followed, also if the client asks for
	// more: nobody builds one by hand that is deeper.
	hierarchyDepth = 50
	// hierarchyRooms is how many rooms of a tree are looked at. A page is found by
	// walking the tree from its root, so that a token needs no memory on any node;
	// this bounds what that costs.
	hierarchyRooms = 5000
	// maxOrder is the longest order of a child that counts.
	maxOrder = 50
)

// isChild reports whether an m.space.child names a room: without via it does not.
// spec: client-server §m.space.child relationship.
func isChild(s *room.Stored) bool {
	via, ok := event.Field(s.Content, "via")
	return ok && via[0] == '['
}

// child is an entry of a space.
type child struct {
	*room.Stored
	order string // "" if it has none that counts
}

func newChild(s *room.Stored) child {
	order, _ := event.StringField(s.Content, "order")
	if len(order) > maxOrder || slices.ContainsFunc([]byte(order), func(c byte) bool { return c < 0x20 || c > 0x7e }) {
		order = ""
	}
	return child{s, order}
}

func (c child) suggested() bool {
	v, _ := event.Field(c.Content, "suggested")
	return string(v) == "true"
}

// compareChildren is the order of a space's rooms: those with an order by it, the
// others behind them by age. spec: client-server §Ordering of children within a space.
func compareChildren(a, b child) int {
	if (a.order == "") != (b.order == "") {
		return cmp.Compare(len(b.order), len(a.order)) // the empty one last
	}
	return cmp.Or(
		cmp.Compare(a.order, b.order),
		cmp.Compare(a.OriginServerTS, b.OriginServerTS),
		cmp.Compare(*a.StateKey, *b.StateKey),
	)
}

// children lists the rooms of a space in order.
func (m *Module) children(ctx context.Context, id ids.RoomID, suggestedOnly bool) ([]child, error) {
	var out []child
	err := m.Rooms.WalkState(ctx, id, typeSpaceChild, func(s *room.Stored) bool {
		if c := newChild(s); isChild(s) && (!suggestedOnly || c.suggested()) {
			out = append(out, c)
		}
		return len(out) < hierarchyRooms
	})
	slices.SortFunc(out, compareChildren)
	return out, err
}

// hierarchyQuery is what a request asks for. It is the token of the next page, too.
type hierarchyQuery struct {
	Room      ids.RoomID `json:"r"`
	Suggested bool       `json:"s,omitzero"`
	Depth     int        `json:"d"`
	// Skip is how many rooms the pages before had.
	Skip int `json:"n"`

	limit int
}

// String writes the token.
func (q hierarchyQuery) String() string {
	raw, err := json.Marshal(&q, json.Deterministic(true))
	if err != nil {
		return "" // a room ID is valid UTF-8
	}
	return base64.RawURLEncoding.EncodeToString(raw)
}

// hierarchyParams reads the parameters of a request.
func hierarchyParams(r *api.Request) (q hierarchyQuery, err error) {
	if q.Room, err = r.RoomID("roomId"); err != nil {
		return q, err
	}
	if q.Suggested, err = r.QueryBool("suggested_only"); err != nil {
		return q, err
	}
	depth, err := positive(r, "max_depth", hierarchyDepth, 0)
	if err != nil {
		return q, err
	}
	limit, err := positive(r, "limit", hierarchyPage, 1)
	if err != nil {
		return q, err
	}
	q.Depth, q.limit = depth, limit
	from := r.Query.Get("from")
	if from == "" {
		return q, nil
	}
	raw, err := base64.RawURLEncoding.DecodeString(from)
	var t hierarchyQuery
	if err != nil || json.Unmarshal(raw, &t) != nil || t.Skip < 1 || t.Room != q.Room {
		return q, merr.InvalidParamErr("Unknown token in from")
	}
	if t.Depth != q.Depth || t.Suggested != q.Suggested {
		return q, merr.InvalidParamErr("suggested_only and max_depth cannot change from one page to the next")
	}
	q.Skip = t.Skip
	return q, nil
}

// positive reads a number of at least low that is cut to high, which it also is if
// absent.
func positive(r *api.Request, name string, high, low int64) (int, error) {
	text := r.Query.Get(name)
	if text == "" {
		return int(high), nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < low {
		return 0, merr.InvalidParamErr("The parameter %s has to be an integer of %d or more", name, low).Because(err)
	}
	return int(min(n, high)), nil
}

// hierarchyRoom is a room in the answer.
type hierarchyRoom struct {
	*summary
	Children jsontext.Value `json:"children_state"`
}

// hierarchy: spec client-server §GET /rooms/{roomId}/hierarchy.
func (m *Module) hierarchy(r *api.Request) (any, error) {
	q, err := hierarchyParams(r)
	if err != nil {
		return nil, err
	}
	w := &spaceWalk{m: m, q: q, user: r.Caller.User, seen: make(map[ids.RoomID]bool), rooms: []hierarchyRoom{}}
	if err := w.run(r.Context); err != nil {
		return nil, err
	}
	if w.found == 0 {
		return nil, merr.ForbiddenErr("You may not look at this room")
	}
	answer := map[string]any{"rooms": w.rooms}
	if w.more {
		q.Skip += len(w.rooms)
		answer["next_batch"] = q.String()
	}
	return answer, nil
}

// spaceWalk goes through a tree of spaces, each space before what is in it. A room
// that is in several places is shown where it is met first, which also ends loops.
type spaceWalk struct {
	m    *Module
	q    hierarchyQuery
	user ids.UserID
	seen map[ids.RoomID]bool

	todo  []spaceStep
	found int // rooms that the user may see
	rooms []hierarchyRoom
	more  bool
}

type spaceStep struct {
	room  ids.RoomID
	depth int
}

func (w *spaceWalk) run(ctx context.Context) error {
	w.todo = []spaceStep{{w.q.Room, 0}}
	for len(w.todo) > 0 && len(w.seen) < hierarchyRooms && !w.more {
		next := w.todo[len(w.todo)-1]
		w.todo = w.todo[:len(w.todo)-1]
		if w.seen[next.room] {
			continue
		}
		w.seen[next.room] = true
		if err := w.visit(ctx, next); err != nil {
			return err
		}
	}
	return nil
}

func (w *spaceWalk) visit(ctx context.Context, at spaceStep) error {
	s, err := w.m.summarise(ctx, at.room, w.user)
	if err != nil || s == nil {
		return err
	}
	if shown, err := w.m.shownTo(ctx, s, w.user); err != nil || !shown {
		return err
	}
	w.found++
	if len(w.rooms) == w.q.limit {
		w.more = true
		return nil
	}
	var children []child
	if s.RoomType == typeSpace {
		if children, err = w.m.children(ctx, at.room, w.q.Suggested); err != nil {
			return err
		}
	}
	if w.found > w.q.Skip {
		w.rooms = append(w.rooms, hierarchyRoom{s, childrenState(children)})
	}
	if at.depth >= w.q.Depth {
		return nil
	}
	for _, c := range slices.Backward(children) {
		if id, err := ids.ParseRoomID(*c.StateKey); err == nil {
			w.todo = append(w.todo, spaceStep{id, at.depth + 1})
		}
	}
	return nil
}

// childrenState writes the events of a space's rooms as stripped state with their
// times.
func childrenState(list []child) jsontext.Value {
	b := []byte{'['}
	for i, c := range list {
		if i > 0 {
			b = append(b, ',')
		}
		b = c.AppendStripped(b)
		b = append(b[:len(b)-1], `,"origin_server_ts":`...)
		b = append(strconv.AppendInt(b, c.OriginServerTS, 10), '}')
	}
	return append(b, ']')
}
