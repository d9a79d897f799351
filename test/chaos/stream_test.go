package chaos

import (
	"context"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/hubbub-chat/hubbub/internal/wsclient"
	"github.com/hubbub-chat/hubbub/test/caller"
	"github.com/hubbub-chat/hubbub/test/history"
)

// streamer follows sync with one device, and takes the messages to it.
type streamer struct {
	*client
	s     *history.Stream
	last  map[string]string // event by room
	since string

	mu struct {
		sync.Mutex
		// marks are those of the last messages, see load.fence.
		marks map[string]bool
		inbox []string
	}
}

func (l *load) streamer(c *client, transport string) *streamer {
	st := &streamer{client: c, s: &history.Stream{User: c.User, Device: c.Name, Transport: transport}, last: map[string]string{}}
	st.mu.marks = map[string]bool{}
	l.rec.Stream(st.s)
	return st
}

// saw reports whether the mark came, by a room or to the device.
func (st *streamer) saw(mark string) bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.mu.marks[mark] || slices.Contains(st.mu.inbox, mark)
}

// longPoll follows /sync until the context ends, at another node each time.
func (st *streamer) longPoll(ctx context.Context) {
	for ctx.Err() == nil {
		q := url.Values{"timeout": {"1000"}}
		if st.since != "" {
			q.Set("since", st.since)
		}
		a := st.call(ctx, "GET", caller.API+"/sync?"+q.Encode(), nil)
		switch {
		case a.OK():
			st.take(ctx, a.Body)
		case a.Unknown():
			pause(ctx)
		default:
			return // noted already
		}
	}
}

// socket follows sync frames, with a new connection to another node after each that
// broke, or that it drops itself.
func (st *streamer) socket(ctx context.Context) {
	var since string
	var marks map[string]string
	for ctx.Err() == nil {
		n := st.load.fleet.pick(st.rng)
		broken := make(chan error, 1)
		dialing, cancel := context.WithTimeout(ctx, st.load.callLimit)
		c, err := wsclient.Dial(dialing, n.url(), wsclient.Options{
			Token: st.Token, Sync: true, Since: since, Marks: marks,
			OnFrame:      func(f []byte) { st.take(ctx, f) },
			OnReset:      func() { st.load.rec.Note("C5 %s: %s does not know the position", st.id(), n.name) },
			OnDisconnect: func(err error) { broken <- err },
		})
		cancel()
		if err != nil {
			st.judge(n, err)
			pause(ctx)
			continue
		}
		drop := time.After(rand.N(6 * time.Second))
		select {
		case err := <-broken:
			st.judge(n, err)
		case <-drop:
			c.Abort()
		case <-ctx.Done():
		}
		_ = c.Close()
		since, marks = c.Position()
	}
}

// judge notes ends of connections that no fault explains.
func (st *streamer) judge(n *node, err error) {
	const goingAway = 4503
	if ce := new(wsclient.CloseError); errors.As(err, &ce) && ce.Code != goingAway {
		st.load.rec.Note("C5 %s: the socket at %s was closed: %v", st.id(), n.name, ce)
	}
}

// take applies a response or a frame. What the end of the run cuts off is not applied.
func (st *streamer) take(ctx context.Context, raw []byte) {
	var b caller.Sync
	if err := json.Unmarshal(raw, &b); err != nil {
		st.load.rec.Note("C5 %s: malformed sync: %v: %s", st.id(), err, raw)
		return
	}
	var parts []history.Part
	for id, r := range b.Rooms.Join {
		p := history.Part{
			Room: id, Section: "join", Limited: r.Timeline.Limited,
			Events: history.ParseEvents(r.Timeline.Events), State: history.ParseEvents(r.State.Events),
		}
		if p.Limited && st.last[id] != "" {
			fill, ok := st.fill(ctx, id, r.Timeline.PrevBatch)
			if !ok {
				return // the run is over
			}
			p.Fill = fill
		}
		parts = append(parts, p)
	}
	now := st.load.rec.Now()
	st.mu.Lock()
	defer st.mu.Unlock()
	for i := range parts {
		p := &parts[i]
		p.At = now
		if n := len(p.Events); n > 0 {
			st.last[p.Room] = p.Events[n-1].ID
		}
		for _, e := range p.Events {
			if isFence(e.Mark) {
				st.mu.marks[e.Mark] = true
			}
		}
	}
	for _, raw := range b.ToDevice.Events {
		var m struct {
			Content struct {
				Name string `json:"name"`
			} `json:"content"`
		}
		if err := json.Unmarshal(raw, &m); err != nil {
			st.load.rec.Note("C5 %s: malformed message: %s", st.id(), raw)
		}
		st.mu.inbox = append(st.mu.inbox, m.Content.Name)
	}
	st.s.Parts = append(st.s.Parts, parts...)
	if b.NextBatch != "" {
		st.since = b.NextBatch
	}
}

// fill reads what a limited timeline left out, back to the last event that is known,
// oldest first.
func (st *streamer) fill(ctx context.Context, room, from string) ([]history.Event, bool) {
	reader := st.load.client(st.User, st.Name, st.Token)
	defer reader.Close()
	return caller.Fill(ctx, st.load.rec, st.id(), room, from, st.last[room],
		func(target string) caller.Answer { return reader.call(ctx, "GET", target, nil) },
		func() { pause(ctx) })
}
