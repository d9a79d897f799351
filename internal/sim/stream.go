package sim

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/hubbub-chat/hubbub/internal/account"
	"github.com/hubbub-chat/hubbub/internal/feed"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/room"
	"github.com/hubbub-chat/hubbub/internal/sim/judge"
	"github.com/hubbub-chat/hubbub/test/history"
)

// stream follows sync with one device, on any node each time.
type stream struct {
	w      *world
	user   ids.UserID
	device ids.DeviceID
	number int
	dice   *dice
	s      *history.Stream
	since  string
	// last is the last event of each room, by its ID.
	last map[string]string

	stopping chan struct{}

	mu struct {
		sync.Mutex
		marks  map[string]bool // of fences
		synced int
	}
}

func (w *world) newStream(user ids.UserID, device ids.DeviceID) {
	s := &stream{
		w: w, user: user, device: device, number: len(w.streams), dice: newDice(w.seed, fmt.Sprint("stream ", user, device)),
		s:    &history.Stream{User: string(user), Device: string(device), Transport: "sync"},
		last: map[string]string{}, stopping: make(chan struct{}),
	}
	s.mu.marks = map[string]bool{}
	w.rec.Stream(s.s)
	w.streams = append(w.streams, s)
}

func (s *stream) stop() { close(s.stopping) }

// lostResponse is how many responses never reach the client.
const lostResponse = 0.1

func (s *stream) follow() {
	time.Sleep(s.dice.between(0, thinkTime))
	for {
		select {
		case <-s.stopping:
			return
		default:
		}
		if !s.ask() {
			time.Sleep(s.dice.between(0, retryTime))
		}
		if s.dice.chance(0.1) { // it does something else
			time.Sleep(s.dice.between(0, 3*time.Second))
		}
	}
}

// ask makes one request.
func (s *stream) ask() bool {
	n := s.w.pick(s.dice)
	limit := []int{2, 5, 50}[s.dice.upTo(3)]
	timeout := []time.Duration{0, 500 * time.Millisecond, 2 * time.Second}[s.dice.upTo(3)]
	lost := s.dice.chance(lostResponse)
	at := s.w.rec.Now()
	since := s.since // a request that was given up may be served when the next has its answer
	body, err := serve(s.w.ctx, n, func(ctx context.Context) ([]byte, error) { return s.sync(ctx, n, since, limit, timeout) })
	if err != nil {
		if definite(err) {
			s.w.rec.Note("C5 sync of %s %s with %q was answered %v", s.user, s.device, s.since, err)
		}
		return false
	}
	s.take(body, at, lost)
	return true
}

func (s *stream) sync(ctx context.Context, n *node, token string, limit int, timeout time.Duration) ([]byte, error) {
	since, err := n.hub.ParseSince(token)
	if err != nil {
		return nil, err
	}
	filter, err := n.hub.LoadFilter(ctx, s.user, fmt.Sprintf(`{"room":{"timeline":{"limit":%d}}}`, limit))
	if err != nil {
		return nil, err
	}
	body, err := n.hub.Sync(ctx, &feed.Request{User: s.user, Device: s.device, Since: since, Filter: filter, Timeout: timeout})
	if s.w.opts.Mutant == AckOnSend && err == nil {
		_, err = n.cluster.Do(ctx, account.NewAckInbox(s.user, s.device, 1<<40))
	}
	return body, err
}

// body is what a client reads of a response.
type body struct {
	NextBatch string `json:"next_batch"`
	ToDevice  struct {
		Events []struct {
			Content struct {
				Mark string `json:"mark"`
			} `json:"content"`
		} `json:"events"`
	} `json:"to_device"`
	Keys  map[string]int `json:"device_one_time_keys_count"`
	Lists struct {
		Changed []string `json:"changed"`
		Left    []string `json:"left"`
	} `json:"device_lists"`
	Rooms struct {
		Join, Leave map[string]section
	} `json:"rooms"`
}

type section struct {
	Timeline struct {
		Events  []json.RawMessage `json:"events"`
		Limited bool              `json:"limited"`
	} `json:"timeline"`
	State struct {
		Events []json.RawMessage `json:"events"`
	} `json:"state"`
	Ephemeral struct {
		Events []json.RawMessage `json:"events"`
	} `json:"ephemeral"`
	Unread *history.Unread `json:"unread_notifications"`
}

// take applies a response, unless it is lost.
func (s *stream) take(raw []byte, asked int64, lost bool) {
	var b body
	if err := json.Unmarshal(raw, &b); err != nil {
		s.w.rec.Note("C5 %s: malformed sync: %v: %s", s.user, err, raw)
		return
	}
	r := judge.Response{
		User: string(s.user), Device: string(s.device), Invoke: asked, Return: s.w.rec.Now(), Lost: lost,
		Stream: s.number, Keys: b.Keys[algorithm], Initial: s.since == "", Changed: b.Lists.Changed, Left: b.Lists.Left,
	}
	for _, e := range b.ToDevice.Events {
		r.Messages = append(r.Messages, e.Content.Mark)
	}
	if !lost {
		s.rooms("join", b.Rooms.Join, r.Return)
		s.rooms("leave", b.Rooms.Leave, r.Return)
		s.since = b.NextBatch
	}
	r.Parts = len(s.s.Parts)
	s.w.trace("sync of %s %s, asked at %v, lost %v: %s", s.user, s.device, time.Duration(asked), lost, raw)
	s.w.mu.Lock()
	s.w.mu.j.Responses = append(s.w.mu.j.Responses, r)
	s.w.mu.Unlock()
	if !lost {
		s.mu.Lock()
		s.mu.synced++
		s.mu.Unlock()
	}
}

func (s *stream) rooms(name string, rooms map[string]section, at int64) {
	for _, id := range sorted(rooms) {
		sec := rooms[id]
		p := history.Part{
			At: at, Room: id, Section: name, Limited: sec.Timeline.Limited,
			Events: history.ParseEvents(sec.Timeline.Events), State: history.ParseEvents(sec.State.Events), Unread: sec.Unread,
		}
		if n := len(p.Events); n > 0 {
			if p.Limited && s.last[id] != "" {
				p.Fill = s.w.between(id, s.last[id], p.Events[0].ID)
			}
			s.last[id] = p.Events[n-1].ID
		}
		s.s.Parts = append(s.s.Parts, p)
		s.mu.Lock()
		for _, e := range p.Events {
			if strings.HasPrefix(e.Mark, fencePrefix) {
				s.mu.marks[e.Mark] = true
			}
		}
		s.mu.Unlock()
	}
}

func (s *stream) saw(mark string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.marks[mark]
}

func (s *stream) responses() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.synced
}

// between are the events of a room between two, which a client asks for when its
// timeline is limited.
func (w *world) between(id, after, before string) []history.Event {
	r := room.NewReader(w.db.inner, w.opts.Partitions)
	from, err := r.Event(w.ctx, ids.RoomID(id), ids.EventID(after))
	if err != nil || from == nil {
		return nil
	}
	to, err := r.Event(w.ctx, ids.RoomID(id), ids.EventID(before))
	if err != nil || to == nil {
		return nil
	}
	return w.timeline(id, from.Seq, to.Seq-1)
}

// maxEvents is more than a room of a run has.
const maxEvents = 10_000

func (w *world) timeline(id string, after, upTo ids.Seq) []history.Event {
	r := room.NewReader(w.db.inner, w.opts.Partitions)
	list, err := r.Timeline(w.ctx, ids.RoomID(id), room.Page{After: after, UpTo: upTo, Limit: maxEvents})
	if err != nil {
		w.rec.Note("C4 %s cannot be read: %v", id, err)
	}
	out := make([]history.Event, 0, len(list))
	for _, e := range list {
		out = append(out, history.ParseEvent(e.AppendClient(nil, room.Viewer{})))
	}
	return out
}
