// Package purge removes rooms, and the history of rooms, in the background.
//
// A job is a row in the partition of its room. The node that owns the partition
// runs it, as a row of small commands, so that neither the partition nor the room
// stands still for longer than one of them. What a step removed is not there when
// it is looked for again: a job that was interrupted begins anew and soon is where
// it was.
//
// # Steps of deleting a room
//
//  1. Its members leave; its aliases go, or lead to the room that takes its place.
//  2. Every user who has a member event forgets it: their list of rooms, their
//     account data, their stream.
//  3. Its own rows go, the head first: from then on no command finds the room. Should
//     somebody have come in since its members were looked at, all begins again.
//
// The log of the partition still names the room until it is trimmed, as a position
// at which something happened; it holds nothing that was said.
package purge

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/hubbub-chat/hubbub/internal/account"
	"github.com/hubbub-chat/hubbub/internal/clock"
	"github.com/hubbub-chat/hubbub/internal/event"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/merr"
	"github.com/hubbub-chat/hubbub/internal/partition"
	"github.com/hubbub-chat/hubbub/internal/room"
	"github.com/hubbub-chat/hubbub/internal/roomstate"
	"github.com/hubbub-chat/hubbub/internal/storage"
	"github.com/hubbub-chat/hubbub/internal/tables"
)

const (
	// pollEvery is how often jobs of partitions that came from another node are
	// looked for.
	pollEvery = 10 * time.Second
	// maxRunning is how many jobs run at a time on a node: they are work for the
	// disk that nobody waits for.
	maxRunning = 2
	// maxPasses is how often a room is looked at anew because people came in while it
	// was deleted, before other jobs have their turn.
	maxPasses = 20
	// keepFor is how long it is told what became of a job.
	keepFor = 24 * time.Hour
	// maxListed bounds the jobs of a partition that are read at once.
	maxListed = 1000
	// maxKicked bounds the members that a finished job names.
	maxKicked = 1000
	// idLength is the length of a job's ID.
	idLength = 16
	// retryMin and retryMax are the pauses after a failure that is the server's own:
	// each is twice the one before. maxTries of them, about a day, and the job fails.
	retryMin = 10 * time.Second
	retryMax = 10 * time.Minute
	maxTries = 150
	// maxReason is how much is told of why a job does not get on, in bytes.
	maxReason = 300
)

// Kind is what a job does. The kinds are part of the on-disk format.
type Kind string

// The kinds of jobs.
const (
	DeleteRoom   Kind = "delete"
	PurgeHistory Kind = "history"
)

// Status is how far a job is. The states are part of the on-disk format.
type Status string

// The states of a job.
const (
	Active   Status = "active"
	Complete Status = "complete"
	Failed   Status = "failed"
)

// Job is something to remove.
type Job struct {
	ID   string     `json:"id"`
	Kind Kind       `json:"kind"`
	Room ids.RoomID `json:"room"`
	By   ids.UserID `json:"by"`
	// UpTo is the last position that PurgeHistory removes; Before as in room.Trim.
	UpTo   ids.Seq `json:"up_to,omitzero"`
	Before int64   `json:"before,omitzero"`
	// Purge: the rows of the room go, not its members alone.
	Purge bool `json:"purge,omitzero"`
	// Force goes on although members could not be taken out.
	Force bool `json:"force,omitzero"`
	// NewRoom takes the place of a deleted room, "" if none.
	NewRoom ids.RoomID `json:"new_room,omitempty"`

	Status Status `json:"status"`
	// Error says why it failed; of an active job, why it does not get on.
	Error string `json:"error,omitempty"`
	// Tries counts the failures behind it; it is tried again at Retry, in ms since 1970.
	Tries int   `json:"tries,omitzero"`
	Retry int64 `json:"retry,omitzero"`
	// Began and Ended are in ms since 1970.
	Began int64 `json:"began"`
	Ended int64 `json:"ended,omitzero"`
	// Kicked are the members who are taken out, as they were when the job began;
	// Stuck are those of them who could not be.
	Kicked  []ids.UserID    `json:"kicked,omitzero"`
	Stuck   []ids.UserID    `json:"stuck,omitempty"`
	Aliases []ids.RoomAlias `json:"aliases,omitempty"`
	Removed int             `json:"removed,omitzero"`
}

// due reports whether a job is to be run now, in ms since 1970.
func (j *Job) due(now int64) bool { return j.Status == Active && j.Retry <= now }

// Tables are the rows that commands pin.
func Tables() map[storage.Table]partition.TableSpec {
	return map[storage.Table]partition.TableSpec{tables.PurgeJob: {Decode: func(_ storage.Key, row []byte) (any, error) {
		j := &Job{}
		return j, json.Unmarshal(row, j)
	}}}
}

func key(p ids.Partition, id string) storage.Key {
	return storage.Key{Partition: p, Table: tables.PurgeJob, Sort: id}
}

// Put writes a job, or with Remove takes one away. A job that begins fails with
// 400 if another of its kind is under way for the room.
type Put struct {
	Job    Job
	Begins bool
	Remove bool

	others []string // jobs of the partition
}

var _ partition.Command = (*Put)(nil)

// Name implements partition.Command.
func (c *Put) Name() string { return "put_purge_job" }

// Partition implements partition.Command.
func (c *Put) Partition(count int) ids.Partition { return ids.PartitionOf(string(c.Job.Room), count) }

// Prepare implements partition.Command.
func (c *Put) Prepare(ctx context.Context, p *partition.Prep) error {
	keys := []storage.Key{key(p.Partition(), c.Job.ID)}
	c.others = nil
	if c.Begins {
		list, err := jobs(ctx, p.Store(), p.Partition())
		if err != nil {
			return err
		}
		for _, j := range list {
			c.others = append(c.others, j.ID)
			keys = append(keys, key(p.Partition(), j.ID))
		}
	}
	return p.Pin(ctx, keys...)
}

// Apply implements partition.Command.
func (c *Put) Apply(tx *partition.Tx) (any, error) {
	for _, id := range c.others {
		if j, _ := tx.Get(key(tx.Partition(), id)).Obj.(*Job); j != nil && j.Room == c.Job.Room && j.Status == Active {
			return nil, merr.New(http.StatusBadRequest, merr.Unknown, "The room is being purged already")
		}
	}
	k := key(tx.Partition(), c.Job.ID)
	if c.Remove {
		tx.Delete(k)
		return nil, nil
	}
	row, err := json.Marshal(&c.Job, json.Deterministic(true))
	if err != nil {
		return nil, fmt.Errorf("encode job: %w", err)
	}
	j := c.Job
	tx.Put(k, row, &j)
	return nil, nil
}

func jobs(ctx context.Context, st storage.Store, p ids.Partition) ([]*Job, error) {
	rows, err := st.Scan(ctx, storage.Range{Partition: p, Table: tables.PurgeJob, Limit: maxListed})
	if err != nil {
		return nil, fmt.Errorf("list purge jobs: %w", err)
	}
	out := make([]*Job, len(rows))
	for i, row := range rows {
		out[i] = &Job{}
		if err := json.Unmarshal(row.Value, out[i]); err != nil {
			return nil, fmt.Errorf("decode purge job: %w", err)
		}
	}
	return out, nil
}

// Owner says which partitions this node runs.
type Owner interface {
	Owns(p ids.Partition) bool
}

// Index is a search index.
type Index interface {
	// Await waits until all that was committed before is in the index.
	Await(ctx context.Context) error
	// Forget takes out what is no longer in a room up to a position.
	Forget(ctx context.Context, r ids.RoomID, upTo ids.Seq) error
}

// Options configure a Service.
type Options struct {
	Count    int
	Store    storage.Store
	Router   partition.Router
	Owner    Owner
	Accounts *account.Reader
	// Rooms shows what has expired too.
	Rooms *room.Reader
	Clock clock.Clock
	Log   *slog.Logger
	// Index is told of what is gone, so that it forgets it too.
	Index Index
	// Retention is what is removed without a job.
	Retention Retention
}

// Service runs jobs. Its methods are safe for concurrent use.
type Service struct {
	opts   Options
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
	slots  chan struct{}

	mu struct {
		sync.Mutex
		running map[string]chan struct{} // closed when the job is done here
	}
}

// Start runs the jobs of this node's partitions until Close.
func Start(opts Options) *Service {
	s := &Service{opts: opts, slots: make(chan struct{}, maxRunning)}
	s.mu.running = make(map[string]chan struct{})
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.wg.Go(s.loop)
	if opts.Retention.Enabled || opts.Retention.Media > 0 {
		s.wg.Go(func() { s.retain(opts.Retention) })
	}
	return s
}

// Close stops the jobs; they go on at the next start.
func (s *Service) Close() {
	s.cancel()
	s.wg.Wait()
}

func (s *Service) loop() {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		for n := range s.opts.Count {
			if p := ids.Partition(n); s.opts.Owner.Owns(p) {
				s.look(p)
			}
		}
		select {
		case <-s.ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// look begins the jobs of a partition that are not under way, and forgets old ones.
func (s *Service) look(p ids.Partition) {
	list, err := jobs(s.ctx, s.opts.Store, p)
	if err != nil {
		if s.ctx.Err() == nil {
			s.opts.Log.Warn("look for purge jobs", "partition", p, "error", err)
		}
		return
	}
	now := s.opts.Clock.Now().UnixMilli()
	for _, j := range list {
		switch {
		case j.due(now):
			s.begin(*j)
		case j.Status == Active:
		case now-j.Ended > keepFor.Milliseconds():
			if _, err := s.opts.Router.Do(s.ctx, &Put{Job: *j, Remove: true}); err != nil && s.ctx.Err() == nil {
				s.opts.Log.Warn("forget a purge job", "error", err)
			}
		}
	}
}

func (s *Service) begin(j Job) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.running[j.ID] != nil {
		return
	}
	done := make(chan struct{})
	s.mu.running[j.ID] = done
	s.wg.Go(func() {
		defer func() {
			s.mu.Lock()
			delete(s.mu.running, j.ID)
			s.mu.Unlock()
			close(done)
		}()
		select {
		case s.slots <- struct{}{}:
			defer func() { <-s.slots }()
		case <-s.ctx.Done():
			return
		}
		// As it is by now: whoever began it may have read it before a run that has ended.
		now, err := s.Get(s.ctx, j.ID)
		switch {
		case err != nil:
			s.opts.Log.Warn("begin a purge job", "room", j.Room, "error", err)
		case now != nil && now.due(s.opts.Clock.Now().UnixMilli()):
			s.run(now)
		}
	})
}

// run does a job and notes what became of it. An interrupted one stays active, as it
// was.
func (s *Service) run(j *Job) {
	var err error
	if j.Kind == DeleteRoom {
		err = s.deleteRoom(s.ctx, j)
	} else {
		err = s.trim(s.ctx, j)
	}
	if s.ctx.Err() != nil {
		return
	}
	s.note(j, err)
	if _, err := s.opts.Router.Do(s.ctx, &Put{Job: *j}); err != nil && s.ctx.Err() == nil {
		s.opts.Log.Warn("note a purge job", "room", j.Room, "error", err)
	}
}

// note notes in a job how a run of it ended. A refusal is final; what is the server's
// own trouble (a store that does not answer, people who keep coming in, a bug) may be
// over later.
func (s *Service) note(j *Job, err error) {
	now := s.opts.Clock.Now()
	j.Error, j.Retry = "", 0
	if err == nil {
		j.Status, j.Ended = Complete, now.UnixMilli()
		return
	}
	e := merr.From(err)
	s.opts.Log.Error("purge", "room", j.Room, "tries", j.Tries+1, "error", err)
	j.Error = e.Msg
	if e.Status >= http.StatusInternalServerError {
		j.Error = err.Error() // for administrators alone, who have to do something about it
	}
	j.Error = strings.ToValidUTF8(j.Error[:min(len(j.Error), maxReason)], "")
	if e.Status < http.StatusInternalServerError || j.Tries >= maxTries {
		j.Status, j.Ended = Failed, now.UnixMilli()
		return
	}
	j.Retry = now.Add(backoff(j.Tries)).UnixMilli()
	j.Tries++
}

// backoff is the pause after a number of failures.
func backoff(tries int) time.Duration { return min(retryMin<<min(tries, 10), retryMax) }

func (s *Service) trim(ctx context.Context, j *Job) error {
	n, err := s.trimRoom(ctx, room.Trim{Room: j.Room, UpTo: j.UpTo, Before: j.Before})
	j.Removed += n
	return err
}

// trimRoom runs a room.Trim to its end, and counts the events that it removed.
func (s *Service) trimRoom(ctx context.Context, t room.Trim) (n int, err error) {
	for done := false; !done; {
		c := t
		out, err := partition.Do[room.Trimmed](ctx, s.opts.Router, &c)
		if err != nil {
			return n, err
		}
		n += out.Removed
		done = out.Done
	}
	h, err := s.opts.Rooms.Head(ctx, t.Room)
	if err != nil || h == nil {
		return n, err
	}
	return n, s.opts.Index.Forget(ctx, t.Room, h.Purged)
}

// deleteRoom deletes a room, again and again as long as people come in meanwhile.
func (s *Service) deleteRoom(ctx context.Context, j *Job) error {
	for range maxPasses {
		if err := s.tryDelete(ctx, j); !errors.Is(err, room.ErrWentOn) {
			return err
		}
	}
	return merr.UnavailableErr(pollEvery, "People keep coming into the room: block it")
}

func (s *Service) tryDelete(ctx context.Context, j *Job) error {
	users, err := s.users(ctx, j.Room)
	if err != nil {
		return err
	}
	if err := s.empty(ctx, j, users); err != nil {
		return err
	}
	if len(j.Stuck) > 0 && !j.Force {
		return merr.New(http.StatusBadRequest, merr.Unknown, "There are members who could not be taken out")
	}
	if err := s.freeAliases(ctx, j); err != nil {
		return err
	}
	if _, err := s.opts.Router.Do(ctx, &room.SetPublic{Room: j.Room, Admin: true}); err != nil && merr.From(err).Status >= 500 {
		return err
	}
	if !j.Purge {
		return nil
	}
	return s.remove(ctx, j)
}

// remove removes the rows of a room that is empty: room.ErrWentOn if it is not, or
// if it does not stay so until they go.
func (s *Service) remove(ctx context.Context, j *Job) error {
	h, err := s.opts.Rooms.Head(ctx, j.Room)
	if err != nil {
		return err
	}
	last := ids.Seq(0) // of a room that was gone when the process ended
	if h != nil {
		last = h.Last
	}
	users, err := s.users(ctx, j.Room)
	if err != nil {
		return err
	}
	for u, is := range users {
		if present(is) && !slices.Contains(j.Stuck, u) {
			return room.ErrWentOn
		}
	}
	for u := range users {
		if err := s.forget(ctx, u, j.Room); err != nil {
			return err
		}
	}
	if err := s.drop(ctx, j.Room, last); err != nil {
		return err
	}
	// The index may have written what it read before; from now on it finds nothing.
	if err := s.opts.Index.Await(ctx); err != nil {
		return err
	}
	return s.drop(ctx, j.Room, 0)
}

func (s *Service) drop(ctx context.Context, r ids.RoomID, last ids.Seq) error {
	for {
		gone, err := partition.Do[bool](ctx, s.opts.Router, &room.Drop{Room: r, Last: last})
		if err != nil || gone {
			return err
		}
	}
}

// present reports whether a member has to be taken out.
func present(is event.Membership) bool {
	return is == event.Join || is == event.Invite || is == event.Knock
}

// users are all who have a member event.
func (s *Service) users(ctx context.Context, r ids.RoomID) (map[ids.UserID]event.Membership, error) {
	out := make(map[ids.UserID]event.Membership)
	err := s.opts.Rooms.WalkState(ctx, r, event.TypeMember, func(e *room.Stored) bool {
		out[ids.UserID(*e.StateKey)] = e.Member().Membership
		return true
	})
	return out, err
}

// empty takes all members out, as if each had left. Who they are is written down
// before: after an interruption it could no longer be told.
func (s *Service) empty(ctx context.Context, j *Job, users map[ids.UserID]event.Membership) error {
	var members []ids.UserID
	for u, is := range users {
		if present(is) {
			members = append(members, u)
		}
	}
	if j.Kicked == nil {
		j.Kicked = append([]ids.UserID{}, members[:min(len(members), maxKicked)]...)
		if _, err := s.opts.Router.Do(ctx, &Put{Job: *j}); err != nil {
			return err
		}
	}
	j.Stuck = nil
	for _, u := range members {
		k := string(u)
		_, err := s.opts.Router.Do(ctx, &room.Send{Room: j.Room, Draft: roomstate.Draft{
			Type: event.TypeMember, StateKey: &k, Sender: u, Content: []byte(`{"membership":"leave"}`),
		}})
		switch {
		case err == nil:
		case merr.From(err).Status >= http.StatusInternalServerError:
			return err
		default:
			j.Stuck = append(j.Stuck, u)
			j.Kicked = slices.DeleteFunc(j.Kicked, func(k ids.UserID) bool { return k == u })
		}
	}
	return nil
}

func (s *Service) freeAliases(ctx context.Context, j *Job) error {
	list, err := s.opts.Rooms.Aliases(ctx, j.Room)
	if err != nil {
		return err
	}
	for _, a := range list {
		var cmd partition.Command = &room.DeleteAlias{Alias: a, Room: j.Room}
		if j.NewRoom != "" {
			cmd = &room.MoveAlias{Alias: a, From: j.Room, To: j.NewRoom}
		}
		if _, err := s.opts.Router.Do(ctx, cmd); err != nil && !merr.Is(err, merr.NotFound) {
			return err
		}
		j.Aliases = append(j.Aliases, a)
	}
	return nil
}

func (s *Service) forget(ctx context.Context, u ids.UserID, r ids.RoomID) error {
	for after := ids.Seq(0); ; {
		next, err := partition.Do[ids.Seq](ctx, s.opts.Router, account.NewForgetRoom(u, r, after))
		if err != nil || next == 0 {
			return err
		}
		after = next
	}
}

// Begin writes a job down and begins it. It returns the job's ID.
func (s *Service) Begin(ctx context.Context, j Job) (string, error) {
	home := ids.PartitionOf(string(j.Room), s.opts.Count)
	for j.ID == "" || ids.PartitionOf(j.ID, s.opts.Count) != home { // so that the ID leads to the row
		j.ID = rand.Text()[:idLength]
	}
	j.Status, j.Began = Active, s.opts.Clock.Now().UnixMilli()
	if _, err := s.opts.Router.Do(ctx, &Put{Job: j, Begins: true}); err != nil {
		return "", err
	}
	if s.opts.Owner.Owns(home) {
		s.begin(j)
	}
	return j.ID, nil
}

// Get returns a job, nil if there is none of that ID.
func (s *Service) Get(ctx context.Context, id string) (*Job, error) {
	k := key(ids.PartitionOf(id, s.opts.Count), id)
	if k.Check() != nil {
		return nil, nil
	}
	rows, err := s.opts.Store.Get(ctx, k)
	if err != nil {
		return nil, fmt.Errorf("read purge job: %w", err)
	}
	if rows[0] == nil {
		return nil, nil
	}
	j := &Job{}
	if err := json.Unmarshal(rows[0], j); err != nil {
		return nil, fmt.Errorf("decode purge job: %w", err)
	}
	return j, nil
}

// Of returns the jobs of a kind that a room had lately.
func (s *Service) Of(ctx context.Context, r ids.RoomID, k Kind) ([]*Job, error) {
	list, err := jobs(ctx, s.opts.Store, ids.PartitionOf(string(r), s.opts.Count))
	out := list[:0]
	for _, j := range list {
		if j.Room == r && j.Kind == k {
			out = append(out, j)
		}
	}
	return out, err
}

// errGone: a job is not there any more.
var errGone = errors.New("purge: the job is gone")

// Wait waits until a job of this node is done, and returns it.
func (s *Service) Wait(ctx context.Context, id string) (*Job, error) {
	s.mu.Lock()
	done := s.mu.running[id]
	s.mu.Unlock()
	if done != nil {
		select {
		case <-done:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	j, err := s.Get(ctx, id)
	if err == nil && j == nil {
		err = errGone
	}
	return j, err
}
