package torture

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/hubbub-chat/hubbub/internal/wsclient"
	"github.com/hubbub-chat/hubbub/test/caller"
	"github.com/hubbub-chat/hubbub/test/history"
)

// streamer follows sync with one device.
type streamer struct {
	d *device
	s *history.Stream
	// last is the last event seen in each room, gone are the rooms that were left.
	last map[string]string
	gone map[string]bool

	mu struct {
		sync.Mutex
		marks map[string]bool // of the fences that were seen, see run.fence
	}
	since string
}

func newStreamer(d *device, transport string) *streamer {
	st := &streamer{d: d, s: &history.Stream{User: d.User, Device: d.Name, Transport: transport}, last: map[string]string{}, gone: map[string]bool{}}
	st.mu.marks = map[string]bool{}
	d.run.rec.Stream(st.s)
	return st
}

func (st *streamer) saw(mark string) bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.mu.marks[mark]
}

// longPoll follows /sync until the context ends.
func (st *streamer) longPoll(ctx context.Context) {
	for ctx.Err() == nil {
		q := url.Values{"timeout": {"2000"}}
		if st.since != "" {
			q.Set("since", st.since)
		}
		a := st.d.call(ctx, "GET", caller.API+"/sync?"+q.Encode(), nil)
		switch {
		case a.OK():
			st.take(ctx, a.Body)
		case a.Unknown():
			st.d.run.srv.awaitUp(ctx)
		default:
			st.d.run.rec.Note("C5 %s: /sync was answered %d %s", st.d.User, a.Status, a.Body)
			return
		}
	}
}

// socket follows sync frames until the context ends, with a new connection,
// resumed by since and marks, after each that broke.
func (st *streamer) socket(ctx context.Context) {
	var since string
	var marks map[string]string
	for ctx.Err() == nil {
		broken := make(chan error, 1)
		c, err := wsclient.Dial(ctx, st.d.run.srv.url(), wsclient.Options{
			Token: st.d.Token, Sync: true, Since: since, Marks: marks,
			OnFrame:      func(f []byte) { st.take(ctx, f) },
			OnDisconnect: func(err error) { broken <- err },
		})
		if err != nil {
			st.judge(err)
			st.d.run.srv.awaitUp(ctx)
			continue
		}
		// Now and then the client itself drops the connection.
		drop := time.After(time.Duration(st.d.rng.IntN(4000)) * time.Millisecond)
		select {
		case err := <-broken:
			st.judge(err)
		case <-drop:
			c.Abort()
		case <-ctx.Done():
		}
		_ = c.Close()
		since, marks = c.Position()
	}
}

// judge notes ends of connections that no crash explains.
func (st *streamer) judge(err error) {
	ce, ok := err.(*wsclient.CloseError)
	if ok && ce.Code != 4503 {
		st.d.run.rec.Note("C5 %s: the socket was closed: %v", st.d.User, ce)
	}
}

// take applies a response or a frame. What the context cuts off is not applied.
func (st *streamer) take(ctx context.Context, raw []byte) {
	var b caller.Sync
	if err := json.Unmarshal(raw, &b); err != nil {
		st.d.run.rec.Note("C5 %s: malformed sync: %v: %s", st.d.User, err, raw)
		return
	}
	parts := []history.Part{}
	if data := counted("", b.AccountData.Events, st.d.User); len(data) > 0 {
		parts = append(parts, history.Part{Data: data})
	}
	for section, rooms := range map[string]map[string]caller.SyncRoom{"join": b.Rooms.Join, "leave": b.Rooms.Leave} {
		for id, r := range rooms {
			p := history.Part{
				Room: id, Section: section, Limited: r.Timeline.Limited,
				Events: history.ParseEvents(r.Timeline.Events), State: history.ParseEvents(r.State.Events),
				Data: counted(id, r.AccountData.Events, st.d.User), Unread: r.Unread,
			}
			declined := section == "leave" && st.gone[id]
			if p.Limited && st.last[id] != "" && !declined {
				fill, ok := st.fill(ctx, id, r.Timeline.PrevBatch)
				if !ok {
					return // the run is over
				}
				p.Fill = fill
			}
			parts = append(parts, p)
		}
	}
	now := st.d.run.rec.Now()
	for i := range parts {
		p := &parts[i]
		p.At = now
		st.gone[p.Room] = p.Section == "leave"
		if n := len(p.Events); n > 0 {
			st.last[p.Room] = p.Events[n-1].ID
		}
		for _, e := range p.Events {
			if strings.HasPrefix(e.Mark, fencePrefix) {
				st.mu.Lock()
				st.mu.marks[e.Mark] = true
				st.mu.Unlock()
			}
		}
	}
	st.s.Parts = append(st.s.Parts, parts...)
	if b.NextBatch != "" {
		st.since = b.NextBatch
	}
}

// fill reads what a limited timeline left out, back to the last event that is
// known, oldest first.
func (st *streamer) fill(ctx context.Context, room, from string) ([]history.Event, bool) {
	return caller.Fill(ctx, st.d.run.rec, st.d.User, room, from, st.last[room],
		func(target string) caller.Answer { return st.d.call(ctx, "GET", target, nil) },
		func() { st.d.run.srv.awaitUp(ctx) })
}

// counted finds the values that are counted in account data.
func counted(room string, events []json.RawMessage, user string) map[string]int {
	out := map[string]int{}
	for _, raw := range events {
		var e struct {
			Type    string `json:"type"`
			Content struct {
				N    *int `json:"n"`
				Tags map[string]struct {
					Order float64 `json:"order"`
				} `json:"tags"`
			} `json:"content"`
		}
		if json.Unmarshal(raw, &e) != nil {
			continue
		}
		if e.Content.N != nil && strings.HasPrefix(e.Type, dataPrefix) {
			out[dataKey(user, room, e.Type)] = *e.Content.N
		}
		for tag, v := range e.Content.Tags {
			out[dataKey(user, room, tag)] = int(math.Round(v.Order * tagScale))
		}
	}
	return out
}

// The names of counted data, and how a tag's order counts.
const (
	dataPrefix  = "test.data."
	tagScale    = 1e6
	fencePrefix = "fence-"
)

func dataKey(user, room, typ string) string { return fmt.Sprintf("%s/%s/%s", user, room, typ) }
