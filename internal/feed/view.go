package feed

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/hubbub-chat/hubbub/internal/account"
	"github.com/hubbub-chat/hubbub/internal/event"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/merr"
	"github.com/hubbub-chat/hubbub/internal/partition"
	"github.com/hubbub-chat/hubbub/internal/pushrules"
	"github.com/hubbub-chat/hubbub/internal/room"
)

// view is what this node knows of one connected user: their rooms and when each
// last changed. It is shared by all their sessions and requests.
//
// Lock order: Hub.mu, shard.mu, view.mu.
type view struct {
	hub  *Hub
	user ids.UserID
	home ids.Partition

	// refs and used are guarded by Hub.mu.
	refs int32
	used moment

	// settling is held while changes are applied, one after another.
	settling sync.Mutex

	// loading is nil when the view was loaded, guarded by Hub.mu.
	loading *loading

	mu struct {
		sync.Mutex
		stale bool
		// homeSeq is the last change of the user that rooms reflect.
		homeSeq ids.Seq
		// list are the user's rooms, none of which ever goes; many is nil where there are
		// few.
		list []*userRoom
		many *roomIndex
		// since is what homeSeq was when the view was loaded: what the user changed
		// up to there, it does not know by room.
		since ids.Seq
		// pending are changes that have come and are not yet applied.
		pending []*account.Change
		// version moves with each change.
		version uint64
		// changed is closed and replaced when version moves; nil while nobody
		// waits for it.
		changed  chan struct{}
		sessions []*session
		ignored  map[ids.UserID]struct{}
		// blocks: the user wants no invites.
		blocks  bool
		program *pushrules.Program
		// inbox is the last message to any of the devices. Of those before the view was
		// loaded it does not know, so it is that place at least.
		inbox ids.Seq
		// polled is nil until a device polls.
		polled *polled
		// present are the users whose presence changed, each once. Few views have many:
		// a list takes a third of what a map does.
		present []presentChange
	}
}

// loading is the loading of a view.
type loading struct {
	done chan struct{}
	err  error // set before done is closed
}

// polled is what a view remembers for the user's devices that poll.
type polled struct {
	// lazy are the member events that each has.
	lazy map[ids.DeviceID]*polledLazy
	// emptied are the devices that were found to have no message up to a position.
	emptied []emptied
	keys    keyStates
}

func (v *view) polledLocked() *polled {
	if v.mu.polled == nil {
		v.mu.polled = &polled{}
	}
	return v.mu.polled
}

// maxPolled bounds the devices of a user of which a view remembers something. Few people
// poll with more; those that are forgotten are looked up.
const maxPolled = 8

// ofDevices appends what is known of a device, and forgets the oldest if that is too much.
func ofDevices[T any](list []T, of T) []T {
	if len(list) == maxPolled {
		list = append(list[:0], list[1:]...)
	}
	return append(list, of)
}

// presentChange says that a user's presence changed, and at which number.
type presentChange struct {
	user ids.UserID
	at   uint64
}

// userRoom is one room of a view.
type userRoom struct {
	id         ids.RoomID
	membership event.Membership
	// roomSeq is the position of the user's member event, joined that of the
	// one that began their stay.
	roomSeq, joined ids.Seq
	// left is where the room says that the user left it. It is above roomSeq
	// while the user's list of rooms, an effect later, does not say so yet.
	left ids.Seq
	p    ids.Partition
	// touched: the room is in the view's list of those, and its mark, which is at the
	// place at, may be old.
	touched bool
	at      int32
	seat    *seat
	// since is where the partition stood when the seat was taken: later changes
	// are all known. last is the last of them, 0 if there was none.
	since, last ids.Seq
	// shared is the last change of who shares the room, and of their devices.
	shared ids.Seq
	// recount is the last change of the user's that made what is unread in the room
	// another number, where nothing happened in the room: a position in their home.
	recount ids.Seq
	// told is the last change of the user's that was about the room, since the view
	// was loaded.
	told   ids.Seq
	counts counts
}

// errClosed: the hub has been closed.
var errClosed = merr.UnavailableErr(time.Second, "This node is going away, try again")

// acquire returns the view of a user, loading it if need be. The caller calls
// release.
func (h *Hub) acquire(ctx context.Context, user ids.UserID) (*view, error) {
	h.mu.Lock()
	if h.ctx.Err() != nil { // under the lock: Close takes the views there are
		h.mu.Unlock()
		return nil, errClosed
	}
	v := h.mu.users[user]
	fresh := v == nil
	if fresh {
		v = &view{hub: h, user: user, home: ids.PartitionOf(string(user), h.opts.Count), loading: &loading{done: make(chan struct{})}}
		h.mu.users[user] = v
	}
	v.refs++
	l := v.loading
	h.mu.Unlock()
	if l == nil {
		return v, nil
	}
	if fresh {
		// For all who wait, so not with this caller's context.
		if l.err = v.load(h.ctx); l.err == nil {
			h.mu.Lock()
			v.loading = nil
			h.mu.Unlock()
		}
		close(l.done)
		if l.err != nil {
			h.discard(v)
		}
	}
	select {
	case <-l.done:
	case <-ctx.Done():
		h.release(v)
		return nil, ctx.Err()
	}
	if l.err != nil {
		h.release(v)
		return nil, l.err
	}
	return v, nil
}

func (h *Hub) release(v *view) {
	h.mu.Lock()
	defer h.mu.Unlock()
	v.refs--
	v.used = h.moment(h.opts.Clock.Now())
}

// load reads the user's rooms and takes seats in them.
func (v *view) load(ctx context.Context) error {
	home := v.hub.shards[v.home]
	home.mu.Lock()
	home.mu.users[v.user] = v
	at := home.mu.processed
	home.mu.Unlock()
	list, err := v.hub.accounts.Memberships(ctx, v.user)
	if err != nil {
		return err
	}
	if err := v.loadData(ctx); err != nil {
		return err
	}
	for _, m := range list {
		at = max(at, m.Seq)
		v.setRoom(m.Room, m.Membership, m.RoomSeq, m.Joined)
	}
	v.mu.Lock()
	v.mu.homeSeq, v.mu.since = at, at
	v.mu.inbox = max(v.mu.inbox, at)
	v.mu.Unlock()
	// The list was not read at one moment: changes up to the last that it shows
	// may be missing, and come by the log.
	if _, err := home.await(ctx, at); err != nil {
		return err
	}
	v.settle()
	return nil
}

// viewData are the types of account data that the feed itself looks at, as loadData
// reads them.
var viewData = []string{TypeIgnored, account.TypePushRules, account.TypeInvitePermission}

// loadData reads what of the account data the feed itself looks at.
func (v *view) loadData(ctx context.Context) error {
	data, err := v.hub.accounts.GlobalData(ctx, v.user, viewData...)
	if err != nil {
		return err
	}
	set, blocks := Ignored(data[0]), account.BlocksInvites(data[2])
	program, err := v.compile(data[1])
	if err != nil {
		return err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.mu.ignored, v.mu.blocks, v.mu.program = set, blocks, program
	for _, r := range v.mu.list {
		r.counts = counts{gen: r.counts.gen + 1}
	}
	return nil
}

func (v *view) compile(rules *account.Data) (*pushrules.Program, error) {
	return compileRules(v.hub.opts.Rules, v.hub.opts.Log, v.user, rules)
}

// TypeIgnored is the account data that lists whom the user ignores.
const TypeIgnored = "m.ignored_user_list"

// Ignored reads an m.ignored_user_list, nil for none. A client may have written
// anything there; then nobody is ignored. spec: client-server §Ignoring Users.
func Ignored(d *account.Data) map[ids.UserID]struct{} {
	if d == nil {
		return nil
	}
	var list struct {
		Users map[ids.UserID]jsontext.Value `json:"ignored_users"`
	}
	if json.Unmarshal(d.Content, &list) != nil {
		return nil
	}
	out := make(map[ids.UserID]struct{}, len(list.Users))
	for user := range list.Users {
		out[user] = struct{}{}
	}
	return out
}

// fewRooms is up to how many rooms are looked through: a map of one takes as much as ten
// of these places.
const fewRooms = 8

// roomIndex finds those of many rooms that are asked for without looking at all.
type roomIndex struct {
	byID map[ids.RoomID]*userRoom
	// parts are the partitions that they and the user are in.
	parts partitionSet
	// marks say of the rooms in the view's list when they moved; nil where nobody asked.
	marks *roomMarks
}

func (m *roomIndex) add(r *userRoom) {
	m.byID[r.id] = r
	m.parts.add(r.p)
}

// manyLocked returns the index of the rooms, which is made if need be.
func (v *view) manyLocked() *roomIndex {
	if v.mu.many == nil {
		v.mu.many = &roomIndex{byID: make(map[ids.RoomID]*userRoom, 2*fewRooms), parts: newPartitionSet(v.hub.opts.Count)}
		v.mu.many.parts.add(v.home)
		for _, r := range v.mu.list {
			v.mu.many.add(r)
		}
	}
	return v.mu.many
}

// partsLocked tells of each partition whether the user or one of the rooms is in it.
func (v *view) partsLocked() []bool {
	if v.mu.many != nil {
		return v.mu.many.parts.list(v.hub.opts.Count)
	}
	in := make([]bool, v.hub.opts.Count)
	in[v.home] = true
	for _, r := range v.mu.list {
		in[r.p] = true
	}
	return in
}

// roomLocked returns one of the user's rooms, nil if there is none.
func (v *view) roomLocked(id ids.RoomID) *userRoom {
	if v.mu.many != nil {
		return v.mu.many.byID[id]
	}
	for _, r := range v.mu.list {
		if r.id == id {
			return r
		}
	}
	return nil
}

func (v *view) addRoomLocked(r *userRoom) {
	v.mu.list = append(v.mu.list, r)
	if v.mu.many != nil || len(v.mu.list) > fewRooms {
		v.manyLocked().add(r)
	}
}

// setRoom notes a membership and takes or gives up the seat that goes with it.
func (v *view) setRoom(r ids.RoomID, m event.Membership, roomSeq, joined ids.Seq) {
	s := v.hub.shardOf(string(r))
	s.mu.Lock()
	defer s.mu.Unlock()
	v.mu.Lock()
	defer v.mu.Unlock()
	ur := v.roomLocked(r)
	if ur == nil {
		ur = &userRoom{id: r, p: s.p, at: int32(len(v.mu.list))}
		v.addRoomLocked(ur)
	}
	if roomSeq < ur.roomSeq {
		return // the list of rooms was read after this change
	}
	v.touchLocked(ur)
	if joined != ur.joined {
		ur.counts = counts{gen: ur.counts.gen + 1}
	}
	ur.membership, ur.roomSeq, ur.joined = m, roomSeq, joined
	switch {
	case v.mu.stale:
	case m == event.Join && ur.seat == nil:
		ur.seat, ur.since, ur.last, ur.shared = s.joinLocked(v, ur), s.mu.processed, 0, 0
	case m != event.Join && ur.seat != nil:
		s.leaveLocked(ur.seat)
		ur.seat = nil
	}
}

// userChanged is called by the home shard, which is locked, for each change of
// the user.
func (v *view) userChanged(r *partition.Record) {
	c, ok := r.Obj.(*account.Change)
	if !ok {
		var err error
		if c, err = account.DecodeChange(r.Seq, r.Data); err != nil {
			v.hub.opts.Log.Error("malformed change", "user", v.user, "seq", r.Seq, "error", err)
			return
		}
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.mu.pending = append(v.mu.pending, c)
	if c.Kind == account.ChangeToDevice {
		v.mu.inbox = c.Seq
	}
	v.noteKeysLocked(c)
	v.bumpLocked()
}

// settle applies the changes that have arrived. It takes locks of other shards,
// which userChanged must not.
func (v *view) settle() {
	v.settling.Lock()
	defer v.settling.Unlock()
	v.settleSettling()
}

// settleSettling is settle for the holder of settling.
func (v *view) settleSettling() {
	for {
		v.mu.Lock()
		pending := v.mu.pending
		v.mu.pending = nil
		v.mu.Unlock()
		if len(pending) == 0 {
			return
		}
		for _, c := range pending {
			v.apply(c)
		}
	}
}

func (v *view) apply(c *account.Change) {
	switch {
	case c.Kind == account.ChangeMembership:
		v.setRoom(c.Room, c.Membership, c.RoomSeq, c.Joined)
	case c.Kind == account.ChangeAccountData && c.Room == "" && slices.Contains(viewData, c.Type):
		if err := v.loadData(v.hub.ctx); err != nil {
			v.hub.opts.Log.Warn("read account data", "user", v.user, "error", err)
			v.hub.discard(v) // it would go by the old data until the next change
		}
	}
	v.mu.Lock()
	if ur := v.roomLocked(c.Room); ur != nil {
		ur.told = max(ur.told, c.Seq)
		v.touchLocked(ur)
		if c.Kind == account.ChangeThread && v.hub.opts.Rules.Threads() {
			ur.counts.forgetRead() // the threads are counted anew, by the new subscriptions
			ur.counts.forgetPush()
			ur.recount = c.Seq
		}
	}
	v.mu.homeSeq = max(v.mu.homeSeq, c.Seq)
	v.mu.Unlock()
}

// roomChanged is called by a shard, which is locked, for each record of a room
// the user has a seat in. l is nil for records that sessions build responses for.
func (v *view) roomChanged(ur *userRoom, rec *partition.Record, l *live) {
	if rc, ok := rec.Obj.(*room.Receipt); ok && rc.Type == room.ReceiptReadPrivate && rc.User != v.user {
		return
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.touchLocked(ur)
	if changesSharing(rec) {
		ur.shared = rec.Seq
	}
	if rec.Kind == partition.RecordDevices {
		v.bumpLocked()
		return
	}
	if e, ok := rec.Obj.(*room.Stored); ok && l == nil && e.Is(event.TypeMember, string(v.user)) && e.Member().Membership != event.Join {
		ur.left = rec.Seq
	}
	if e, ok := rec.Obj.(*room.Stored); ok && l == nil && e.StateKey != nil && e.Type == event.TypeMember && e.Member().Membership == event.Join {
		v.notePresenceLocked(ids.UserID(*e.StateKey)) // who came in
	}
	if ur.left > ur.roomSeq {
		l = nil // of what comes now, responses alone know how much is for the user
	}
	if e, ok := rec.Obj.(*room.Stored); ok && e.Type == event.TypeRedaction {
		if ur.counts.total().notify > 0 {
			ur.counts.forgetAll() // what it takes away may be among what was counted
		} else {
			ur.counts.gen++ // or among what is being counted
		}
	}
	before := max(ur.last, ur.since)
	ur.last = rec.Seq
	switch rc, _ := rec.Obj.(*room.Receipt); {
	case rec.Kind == partition.RecordReceipt && (rc == nil || rc.User == v.user):
		ur.counts.forgetRead()
		l = nil // the counts change: tell them
	case rec.Kind == partition.RecordReceipt:
		if l == nil && ur.counts.cover(before) {
			ur.counts.upTo = rec.Seq
		}
	case changesPush(rec, l):
		ur.counts.forgetPush() // state decides what notifies
	}
	v.wakePollersLocked()
	if l != nil {
		v.offerLocked(l, ur, before)
		return
	}
	for _, s := range v.mu.sessions {
		s.wake()
	}
}

// noteLeft tells a view that took its seat too late to see the user leave.
func (v *view) noteLeft(r ids.RoomID, at ids.Seq) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if ur := v.roomLocked(r); ur != nil {
		ur.left = max(ur.left, at)
	}
}

// wakePollersLocked wakes the requests that wait for something to change.
func (v *view) wakePollersLocked() {
	v.mu.version++
	if v.mu.changed != nil {
		close(v.mu.changed)
		v.mu.changed = nil
	}
}

// bumpLocked wakes all who wait for something to change.
func (v *view) bumpLocked() {
	v.wakePollersLocked()
	for _, s := range v.mu.sessions {
		s.wake()
	}
}

// watch returns a channel that is closed when the version moves.
func (v *view) watch() <-chan struct{} {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.mu.changed == nil {
		v.mu.changed = make(chan struct{})
	}
	return v.mu.changed
}

// leaveAll gives up everything the hub holds of the view.
func (v *view) leaveAll() {
	home := v.hub.shards[v.home]
	home.mu.Lock()
	if home.mu.users[v.user] == v {
		delete(home.mu.users, v.user)
	}
	home.mu.Unlock()
	v.mu.Lock()
	v.mu.stale = true
	seats := make([]*seat, 0, len(v.mu.list))
	for _, r := range v.mu.list {
		if r.seat != nil {
			seats = append(seats, r.seat)
			r.seat = nil
		}
	}
	v.bumpLocked()
	v.mu.Unlock()
	for _, st := range seats {
		v.hub.shardOf(string(st.room.id)).leave(st)
	}
}

// roomState is a copy of what a view knows of one room.
type roomState struct {
	id              ids.RoomID
	membership      event.Membership
	roomSeq, joined ids.Seq
	left            ids.Seq
	// looked: a response has looked since the seat was taken whether the user was still
	// in the room then.
	looked          bool
	p               ids.Partition
	since, last     ids.Seq
	shared, recount ids.Seq
}

// snapshot copies the rooms of a view, and the position of the user's changes
// that they reflect. Another may be about to apply a change, which moves a room and
// then the position: settling is held so that both or neither is seen, or the change
// would be told now, by the room, and again by the list of changes.
//
// If since is not nil, only rooms are copied of which there may be something to tell a
// client that stands there, those in also among them. A user may be in thousands, and
// in nearly all of them nothing happens from one sync to the next. Where the view does
// not know that, since it is younger than the client's position, all are copied.
func (v *view) snapshot(since *Position, also map[ids.RoomID]bool) (c cutRooms) {
	v.settling.Lock()
	defer v.settling.Unlock()
	v.settleSettling()
	v.mu.Lock()
	defer v.mu.Unlock()
	c.homeSeq, c.stale, c.parts = v.mu.homeSeq, v.mu.stale, v.partsLocked()
	if since != nil && since.At[v.home] < v.mu.since {
		since = nil
	}
	add := func(r *userRoom) {
		c.rooms = append(c.rooms, roomState{r.id, r.membership, r.roomSeq, r.joined, r.left, r.counts.fresh, r.p, r.since, r.last, r.shared, r.recount})
	}
	if since == nil {
		c.all, c.rooms = true, make([]roomState, 0, len(v.mu.list))
		for _, r := range v.mu.list {
			add(r)
		}
		return c
	}
	v.eachMovedLocked(since, add)
	for id := range also {
		if r := v.roomLocked(id); r != nil && !r.mark().after(since, v.home) {
			add(r)
		}
	}
	return c
}

// cutRooms is what a view knows at one moment.
type cutRooms struct {
	rooms   []roomState
	homeSeq ids.Seq
	stale   bool
	// all: rooms are all of the user's. parts are the partitions of all.
	all   bool
	parts []bool
}

// partitionSet is a set of partitions, a bit for each.
type partitionSet []uint64

func newPartitionSet(count int) partitionSet { return make(partitionSet, (count+63)/64) }

func (s partitionSet) add(p ids.Partition) { s[p/64] |= 1 << (p % 64) }

// list tells of each of count partitions whether it is in the set.
func (s partitionSet) list(count int) []bool {
	in := make([]bool, count)
	for p := range in {
		in[p] = s[p/64]&(1<<(p%64)) != 0
	}
	return in
}

// changedSince reports whether the user may have changed anything behind a position: the
// view heard of all that they did since it was loaded.
func (v *view) changedSince(at ids.Seq) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return at < v.mu.since || at < v.mu.homeSeq || len(v.mu.pending) > 0
}

// partitions are those that the user's home and rooms are in.
func (v *view) partitions() []bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.partsLocked()
}

// size is how many rooms the view has.
func (v *view) size() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return len(v.mu.list)
}

func (v *view) ignores(u ids.UserID) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.ignoresLocked(u)
}

func (v *view) ignoresLocked(u ids.UserID) bool {
	_, ok := v.mu.ignored[u]
	return ok
}

// hidesInvite reports whether the user is not shown an invite by someone: they ignore
// them, or block all invites. Invites are refused then, so this is about those that came
// before, or at the same time.
//
// An invite that was hidden stays in the user's list of rooms. When they block no more,
// /sync and sockets show it where they begin anew, since later ones tell of rooms where
// something happened; sliding sync shows it at once, since it goes by what the connection
// was not told yet. The other way round, a client that knows an invite keeps it.
func (v *view) hidesInvite(by ids.UserID) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.ignoresLocked(by) || v.mu.blocks && !account.Unblockable(by)
}

// ignoredUsers returns whom the user ignores; the map does not change.
func (v *view) ignoredUsers() map[ids.UserID]struct{} {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.mu.ignored
}
