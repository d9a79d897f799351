package feed

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/hubbub-chat/hubbub/internal/account"
	"github.com/hubbub-chat/hubbub/internal/event"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/merr"
	"github.com/hubbub-chat/hubbub/internal/partition"
)

// errStale: the view was discarded while it was used; a new one serves.
var errStale = errors.New("feed: view is stale")

// maxStale bounds how often one request starts again with a new view.
const maxStale = 5

// Request is a sync request. spec: client-server §GET /sync.
type Request struct {
	User   ids.UserID
	Device ids.DeviceID
	// Since is nil for an initial sync.
	Since     *Position
	Filter    *Filter
	FullState bool
	// Pushed: the response goes out by itself. Its timelines after the first are
	// as long as they can be: the client does not ask for more, events come.
	Pushed bool
	// Unacked is how many to-device messages the client was pushed and has not
	// acknowledged.
	Unacked int32
	// StateAfter is the member in which the client wants the state as it is after
	// the timeline, "" for that before it, in the member "state".
	// spec: client-server §GET /sync, use_state_after (MSC4222).
	StateAfter string
	// SetPresence is how present the user is by this request; "" is online.
	SetPresence Presence
	// Timeout is how long to wait for something to happen.
	Timeout time.Duration

	// bound is what the response has to cover, nil until the first is built.
	bound *bound
}

// Sync answers a sync request with the JSON of the response. It waits until
// there is something to tell or the time is over; an initial sync and one with
// FullState do not wait.
func (h *Hub) Sync(ctx context.Context, req *Request) (jsontext.Value, error) {
	w := h.Begin(ctx, req)
	defer w.Close()
	return w.Answer(ctx, 0)
}

// Begin begins with a sync request, which counts as its user's presence until Close.
func (h *Hub) Begin(ctx context.Context, req *Request) *Waiting {
	if req.Filter == nil {
		req.Filter = &Filter{}
	}
	w := &Waiting{hub: h, req: req, poll: &poll{ready: make(chan struct{}, 1)}}
	w.present = h.presence.begin(req.User, req.Device, req.SetPresence)
	if req.Since != nil {
		h.acknowledged(ctx, req.User, req.Device, req.Since)
	}
	w.timer = time.AfterFunc(req.Timeout, w.poll.timeUp)
	return w
}

// Close ends the request, whether it was answered or not. It may be called more than
// once.
func (w *Waiting) Close() {
	w.timer.Stop()
	w.leave()
	w.hub.presence.end(&w.present)
}

// leave gives up the view.
func (w *Waiting) leave() {
	if w.session != nil {
		w.view.leave(w.session)
	}
	if w.view != nil {
		w.hub.release(w.view)
	}
	w.view, w.session, w.settled = nil, nil, false
}

// Answer is the JSON of the response. With a patience that is not 0 it waits no longer
// than that for something to tell, and returns nil then: it is to be called again when
// the function given to Wake was called.
func (w *Waiting) Answer(ctx context.Context, patience time.Duration) (jsontext.Value, error) {
	for {
		body, err := w.turns(ctx, patience)
		if !errors.Is(err, errStale) || w.stale == maxStale {
			return body, err
		}
		w.stale++
		w.leave()
	}
}

// turns is Answer on one view.
func (w *Waiting) turns(ctx context.Context, patience time.Duration) (jsontext.Value, error) {
	if w.view == nil {
		v, err := w.hub.acquire(ctx, w.req.User)
		if err != nil {
			return nil, err
		}
		w.view = v
	}
	lazy := poller{w.view, w.req.Device}
	end := func([]lazyMember, Position) {}
	if w.req.Filter.Room.State.LazyLoad {
		end = lazy.end
		if !w.settled {
			lazy.begin(w.req.Since)
		}
	}
	if w.session == nil && w.waits() {
		w.session = w.view.join(w.req, w.poll)
	}
	for {
		if !w.settled {
			body, err := w.build(ctx, lazy, end)
			if body != nil || err != nil {
				return body, err
			}
		}
		if ready, err := w.await(ctx, patience); !ready || err != nil {
			return nil, err
		}
		// Nothing that this client wants, or what it wants: go on from here, so that
		// what was looked at is not looked at again.
		body, at := w.news()
		w.req.Since = at
		if body != nil {
			end(nil, *at)
			return body, nil
		}
	}
}

// waits reports whether the request is one that may wait.
func (w *Waiting) waits() bool {
	return w.req.Timeout > 0 && w.req.Since != nil && !w.req.FullState
}

// build builds a response, and returns nil if it says nothing and can be waited for.
func (w *Waiting) build(ctx context.Context, lazy poller, end func([]lazyMember, Position)) (jsontext.Value, error) {
	over := w.poll.over.Load()
	var version uint64
	if w.session != nil {
		version = w.session.again()
	}
	r, err := w.hub.build(ctx, w.view, w.req, lazy)
	if err != nil {
		return nil, err
	}
	if w.session == nil || !r.empty || over {
		end(r.lazy, r.next)
		return r.json(), nil
	}
	w.settle(version, r)
	return nil, nil
}

// result is a response under construction. The lists of rooms are members of
// JSON objects, `"!room":{…}` joined by commas.
type result struct {
	next                       Position
	join, invite, knock, leave []byte
	accountData, presence      []byte
	e2ee                       e2ee
	// lazy are the member events in it that were sent because of their senders.
	lazy  []lazyMember
	empty bool
}

// json writes the response.
func (r *result) json() []byte {
	b := make([]byte, 0, len(r.join)+len(r.invite)+len(r.leave)+len(r.accountData)+len(r.e2ee.toDevice)+1024)
	b = append(b, `{"next_batch":"`...)
	b = append(b, r.next.Token()...)
	b = append(b, '"')
	return append(r.appendBody(b), '}')
}

// appendBody writes what stands in a response beside next_batch, with a comma in
// front of each member.
func (r *result) appendBody(b []byte) []byte {
	b = r.e2ee.append(b)
	if len(r.accountData) > 0 {
		b = append(append(append(b, `,"account_data":{"events":[`...), r.accountData...), `]}`...)
	}
	if len(r.presence) > 0 {
		b = append(append(append(b, `,"presence":{"events":[`...), r.presence...), `]}`...)
	}
	if len(r.join)+len(r.invite)+len(r.knock)+len(r.leave) == 0 {
		return b
	}
	b = append(b, `,"rooms":{`...)
	first := true
	for _, s := range []struct {
		name  string
		rooms []byte
	}{{"join", r.join}, {"invite", r.invite}, {"knock", r.knock}, {"leave", r.leave}} {
		if len(s.rooms) == 0 {
			continue
		}
		if !first {
			b = append(b, ',')
		}
		first = false
		b = append(append(append(b, '"'), s.name...), `":{`...)
		b = append(append(b, s.rooms...), '}')
	}
	return append(b, '}')
}

// addRoom appends a member to a list of rooms.
func addRoom(list *[]byte, id ids.RoomID, body []byte) {
	if len(*list) > 0 {
		*list = append(*list, ',')
	}
	*list = append(append(event.AppendString(*list, id), ':'), body...)
}

// appendList appends an element to a JSON list without its brackets.
func appendList(list, element []byte) []byte {
	if len(list) > 0 {
		list = append(list, ',')
	}
	return append(list, element...)
}

// syncer builds one response.
type syncer struct {
	h     *Hub
	v     *view
	req   *Request
	lazy  lazyMemory
	since Position
	full  bool // initial or full_state
	next  Position
	// rooms are the user's, or, if partial, those of which there may be something to
	// tell. typing are those of them where others began or ceased to type.
	rooms   []roomState
	partial bool
	typing  map[ids.RoomID]bool
	out     result
	// data is the account data that changed, by room; of a full response all.
	data map[ids.RoomID][]*account.Data
	// known: since names this node's typing notices.
	known bool
}

// build makes the response from req.Since to now.
func (h *Hub) build(ctx context.Context, v *view, req *Request, lazy lazyMemory) (*result, error) {
	s := &syncer{h: h, v: v, req: req, lazy: lazy, full: req.Since == nil || req.FullState}
	if req.Since != nil {
		s.since = *req.Since
		s.known = s.since.Node == h.node
		// Of a client of another node it is not known what it was told of who is there.
		s.partial = s.known && !s.full
	} else {
		s.since = h.position()
	}
	if err := s.cut(ctx); err != nil {
		return nil, err
	}
	changes, err := s.changes(ctx)
	if err != nil {
		return nil, err
	}
	moved := s.fold(changes)
	if err := s.readData(ctx, changes); err != nil {
		return nil, err
	}
	if err := s.addRooms(ctx, moved); err != nil {
		return nil, err
	}
	if err := s.addAccountData(req.Since == nil); err != nil {
		return nil, err
	}
	if err := s.addE2EE(ctx, changes, moved); err != nil {
		return nil, err
	}
	if err := s.addPresence(ctx, moved); err != nil {
		return nil, err
	}
	s.out.next = s.next
	s.out.empty = s.out.e2ee.empty() && len(s.out.join)+len(s.out.invite)+len(s.out.knock)+len(s.out.leave)+len(s.out.accountData)+len(s.out.presence) == 0
	return &s.out, nil
}

// changes are the user's since the client looked, none for one that knows nothing yet.
func (s *syncer) changes(ctx context.Context) ([]*account.Change, error) {
	at := s.since.At[s.v.home]
	if s.req.Since == nil || !s.v.changedSince(at) {
		return nil, nil
	}
	return s.h.accounts.Changes(ctx, s.v.user, at, s.next.At[s.v.home])
}

// bound is what a request has to see: the positions that were committed when it came,
// of the partitions that it was found to depend on so far. They are asked for once,
// however often the response is built: what came later is told when it comes.
type bound struct {
	// at are the positions of those partitions, in order: a request that waits keeps it.
	at []boundAt
	// ended: nothing has to be seen but what the node knows. A socket's frames, after
	// the first, come by themselves.
	ended bool
}

type boundAt struct {
	p  ids.Partition
	at ids.Seq
}

// unbound is the bound of those who were told all that they had to be told.
var unbound = &bound{ended: true}

// raise adds the partitions that are not in the bound yet.
func (b *bound) raise(ctx context.Context, h *Hub, ps []bool) error {
	if b.ended {
		return nil
	}
	var unknown []ids.Partition
	for p, asked := range ps {
		if _, known := b.find(p); asked && !known {
			unknown = append(unknown, ids.Partition(p))
		}
	}
	if len(unknown) == 0 {
		return nil
	}
	heads, err := h.opts.Heads.Heads(ctx, unknown...)
	if err != nil {
		return err
	}
	b.at = slices.Grow(b.at, len(unknown))
	for i, p := range unknown {
		b.at = append(b.at, boundAt{p, heads[i]})
	}
	slices.SortFunc(b.at, func(x, y boundAt) int { return cmp.Compare(x.p, y.p) })
	return nil
}

func (b *bound) find(p int) (int, bool) {
	return slices.BinarySearchFunc(b.at, ids.Partition(p), func(x boundAt, p ids.Partition) int { return cmp.Compare(x.p, p) })
}

// of is the position that has to be seen of a partition.
func (b *bound) of(p int) ids.Seq {
	if i, known := b.find(p); known {
		return b.at[i].at
	}
	return 0
}

// cut decides the position the response ends at, and which rooms the user has
// there.
//
// Positions are read before the rooms of the view, so that what the view says of
// a room covers them: those of the partitions that the view was found to be in. A
// room in another one (it came while we looked), or a membership that lies behind the
// position of its room's partition (its effect did), means looking again.
func (s *syncer) cut(ctx context.Context) error {
	if s.req.bound == nil {
		s.req.bound = new(bound)
	}
	used := s.v.partitions()
	for {
		if err := s.req.bound.raise(ctx, s.h, used); err != nil {
			return err
		}
		next := s.h.position()
		for p, sh := range s.h.shards {
			if !used[p] {
				continue
			}
			var err error
			if next.At[p], err = sh.await(ctx, s.req.bound.of(p)); err != nil {
				return err
			}
		}
		serial := s.h.typing.serial()
		c := s.look()
		if c.stale {
			return errStale
		}
		next.At[s.v.home] = max(next.At[s.v.home], c.homeSeq)
		again, err := s.behind(ctx, &next, used, &c)
		if err != nil {
			return err
		}
		if again {
			continue
		}
		next.Node, next.Typing = s.h.node, serial
		s.next, s.rooms = next, c.rooms
		return nil
	}
}

// look takes the rooms from the view: all, or those that a client who goes on from
// since may have to be told of.
func (s *syncer) look() cutRooms {
	if s.partial {
		if typing, ok := s.h.typing.changedAnywhere(s.since.Typing, s.v.size()); ok {
			if c := s.v.snapshot(&s.since, typing); !c.all {
				s.typing = typing
				return c
			}
		}
	}
	c := s.v.snapshot(nil, nil)
	s.typing = s.h.typing.changedRooms(c.rooms, s.since.Typing, s.known)
	return c
}

// behind compares a cut of the partitions in used with the rooms in it and with what
// the client has seen. It reports true if it has to be made again: with another
// partition, which it adds, or because one is ahead, since the log was not known to go
// so far, which it waits for. Partitions that none of the user's rooms is in leave the
// cut.
func (s *syncer) behind(ctx context.Context, next *Position, used []bool, c *cutRooms) (bool, error) {
	grown, needed := false, c.parts
	for p := range needed {
		grown = grown || needed[p] && !used[p]
		used[p] = used[p] || needed[p]
	}
	if grown {
		return true, nil
	}
	for i := range c.rooms {
		r := &c.rooms[i]
		// What came before the seat was taken, the view was not told of: it is for the
		// response, which is to go on from behind it.
		if from := max(r.roomSeq, r.since); from > next.At[r.p] {
			_, err := s.h.shards[r.p].await(ctx, from)
			return true, err
		}
	}
	for p := range next.At {
		if !needed[p] {
			next.At[p] = 0
			continue
		}
		if s.req.Since == nil || s.since.At[p] <= next.At[p] {
			continue
		}
		// Another node may have written it, while this one believed that it owns
		// the partition. Or the store was restored from a backup: then the client
		// must not go back without noticing.
		head, err := partition.Head(ctx, s.h.opts.Store, ids.Partition(p))
		if err != nil {
			return false, err
		}
		if s.since.At[p] > head {
			return false, errFuture
		}
		_, err = s.h.shards[p].await(ctx, s.since.At[p])
		return true, err
	}
	return false, nil
}

// errFuture: the token is ahead of the log, which has been restored from a backup.
var errFuture = fmt.Errorf("token is ahead of the log: %w", ErrRestored)

// fold reduces the changes of membership to one for each room: from what the
// client knew to what is.
func (s *syncer) fold(changes []*account.Change) map[ids.RoomID]*account.Change {
	moved := make(map[ids.RoomID]*account.Change)
	for _, c := range changes {
		if c.Kind != account.ChangeMembership {
			continue
		}
		f := *c
		if earlier := moved[c.Room]; earlier != nil {
			f.Prev = earlier.Prev
			if c.Membership == event.Join && earlier.Membership != event.Join {
				f.Prev = event.Leave // left and came back: as if it were new
			}
		}
		moved[c.Room] = &f
	}
	return moved
}

// readData reads the account data that the response shows.
func (s *syncer) readData(ctx context.Context, changes []*account.Change) error {
	s.data = make(map[ids.RoomID][]*account.Data)
	if s.req.Since == nil {
		all, err := s.h.accounts.EveryData(ctx, s.v.user)
		for _, d := range all {
			if !d.Deleted {
				s.data[d.Room] = append(s.data[d.Room], d)
			}
		}
		return err
	}
	for _, c := range changes {
		if c.Kind != account.ChangeAccountData {
			continue
		}
		d, err := s.h.accounts.Data(ctx, s.v.user, c.Room, c.Type)
		if err != nil {
			return err
		}
		if d != nil {
			s.data[c.Room] = append(s.data[c.Room], d)
		}
	}
	return nil
}

// addAccountData adds the account data of the user. whole: all that there is, and so
// the push rules, which everyone has.
func (s *syncer) addAccountData(whole bool) error {
	hasRules := false
	for _, d := range s.data[""] {
		content := d.Content
		if d.Type == account.TypePushRules {
			hasRules = true
			var err error
			if content, err = s.h.pushRules(s.v.user, d.Content); err != nil {
				return err
			}
		}
		s.addGlobal(d.Type, content)
	}
	if whole && !hasRules {
		content, err := s.h.pushRules(s.v.user, nil)
		if err != nil {
			return err
		}
		s.addGlobal(account.TypePushRules, content)
	}
	return nil
}

func (s *syncer) addGlobal(typ string, content jsontext.Value) {
	if s.req.Filter.AccountData.Type(typ) {
		s.out.accountData = AppendDataEvent(s.out.accountData, typ, content)
	}
}

// pushRules returns the whole rules of a user, from the changes that are stored.
func (h *Hub) pushRules(user ids.UserID, stored []byte) (jsontext.Value, error) {
	set, err := h.opts.Rules.Open(user, stored)
	if err != nil {
		if set, err = h.opts.Rules.Open(user, nil); err != nil {
			return nil, err
		}
	}
	return json.Marshal(map[string]any{"global": set.Ruleset()})
}

// AppendDataEvent appends an event of account data to the elements of a list.
func AppendDataEvent(list []byte, typ string, content jsontext.Value) []byte {
	if len(list) > 0 {
		list = append(list, ',')
	}
	list = append(append(list, `{"content":`...), content...)
	return append(event.AppendString(append(list, `,"type":`...), typ), '}')
}

// ParseSince reads the since parameter of a request. The error is 400
// M_INVALID_PARAM; it is an ErrRestored too if that is why.
func (h *Hub) ParseSince(token string) (*Position, error) {
	if token == "" {
		return nil, nil
	}
	p, err := h.parse(token)
	if err != nil {
		return nil, merr.InvalidParamErr("Unknown since token").Because(err)
	}
	return &p, nil
}

// LoadFilter returns the filter that a filter parameter names: a stored one by
// its ID, or the JSON itself. spec: client-server §GET /sync, filter.
func (h *Hub) LoadFilter(ctx context.Context, user ids.UserID, param string) (*Filter, error) {
	if param == "" {
		return &h.everything, nil
	}
	if param[0] == '{' {
		return ParseFilter([]byte(param))
	}
	raw, err := h.accounts.Filter(ctx, user, param)
	if err != nil {
		return nil, err
	}
	if raw == nil {
		return nil, merr.InvalidParamErr("No such filter")
	}
	return ParseFilter(raw)
}
