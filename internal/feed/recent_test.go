package feed

import (
	"fmt"
	"testing"

	"github.com/go-json-experiment/json"

	"github.com/hubbub-chat/hubbub/internal/event"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/room"
)

func seqsOf(list []*room.Stored) (out []ids.Seq) {
	for _, e := range list {
		out = append(out, e.Seq)
	}
	return out
}

// What has just happened in a room is told without a read, as the store would tell it.
func TestRecentIsWhatTheStoreSays(t *testing.T) {
	p := openWaiter(t, "")
	w, h, r := p.w, p.w.hub, p.rooms[0]
	from := h.shardOf(string(r)).at()
	var said []ids.EventID
	for i := range 3 {
		said = append(said, w.say(r, alice, fmt.Sprint(i)), w.event(r, state(alice, event.TypeTopic, "", fmt.Sprintf(`{"topic":"%d"}`, i))))
		w.read(r, alice, said[len(said)-1])
		w.read(r, bob, said[len(said)-1])
	}
	w.event(r, state(alice, event.TypeName, "", `{"name":"N"}`))
	w.followed(r)
	to := h.shardOf(string(r)).at()
	for after := from; after <= to; after++ {
		for upTo := after; upTo <= to; upTo++ {
			before := p.st.Reads.Load()
			events, err := h.newest(ctx, r, after, upTo, 4)
			states, _, err2 := h.stateChanges(ctx, r, after, upTo, 10)
			receipts, err3 := h.receipts(ctx, r, after, to, 10)
			if err != nil || err2 != nil || err3 != nil || p.st.Reads.Load() != before {
				t.Fatalf("%d to %d: %v %v %v, %d reads", after, upTo, err, err2, err3, p.st.Reads.Load()-before)
			}
			wantEvents, _ := h.rooms.Timeline(ctx, r, room.Page{After: after, UpTo: upTo, Limit: 4, Newest: true})
			wantStates, _, _ := h.rooms.StateChanges(ctx, r, after, upTo, 10)
			wantReceipts, _ := h.rooms.Receipts(ctx, r, after, to, 10)
			got := fmt.Sprint(seqsOf(events), seqsOf(states), len(receipts))
			if want := fmt.Sprint(seqsOf(wantEvents), seqsOf(wantStates), len(wantReceipts)); got != want {
				t.Fatalf("%d to %d: %s, want %s", after, upTo, got, want)
			}
			for i := range receipts {
				if *receipts[i] != *wantReceipts[i] {
					t.Fatalf("%d to %d: receipt %+v, want %+v", after, upTo, receipts[i], wantReceipts[i])
				}
			}
		}
	}
	if _, more, err := h.stateChanges(ctx, r, from, to, 1); err != nil || !more {
		t.Errorf("more changes than the limit: %v %v", more, err)
	}

	// What was taken back is read, since it is another now; and what lies too far back.
	if _, err := w.do(redaction(r, alice, said[0])); err != nil {
		t.Fatal(err)
	}
	w.followed(r)
	if _, known := h.eventsOf(r, from, to); known {
		t.Error("an event that was taken back is told as it was")
	}
	for i := range recentRecords {
		w.say(r, alice, fmt.Sprint("more ", i))
	}
	w.followed(r)
	end := h.shardOf(string(r)).at()
	if list, known := h.eventsOf(r, end-recentRecords, end); !known || len(list) != recentRecords {
		t.Errorf("of the last records %d are known, %v", len(list), known)
	}
	if _, known := h.eventsOf(r, end-recentRecords-1, end); known {
		t.Error("more is known than is kept")
	}
	if _, known := h.eventsOf(r, end-1, end+1); known {
		t.Error("the future is known")
	}
}

// Of a room that nobody here was in nothing is known.
func TestRecentOfOthers(t *testing.T) {
	w := open(t)
	r := w.create(alice, "shared")
	w.say(r, alice, "alone")
	w.followed(r)
	s := w.hub.shardOf(string(r))
	if _, known := w.hub.eventsOf(r, s.at()-1, s.at()); known {
		t.Error("what nobody here heard is known")
	}
	w.forget(r)
	if _, known := w.hub.eventsOf(r, s.at()-1, s.at()); known {
		t.Error("what was passed over is known")
	}
}

// Who gives up on records that come after all does not take them for known: another
// had them meanwhile.
func TestRecentIsNotSkippedBack(t *testing.T) {
	p := openWaiter(t, "")
	r := p.rooms[0]
	s := p.w.hub.shardOf(string(r))
	before := s.at()
	p.w.say(r, alice, "came after all")
	p.w.followed(r)
	s.mu.Lock()
	s.skipLocked(before)
	s.mu.Unlock()
	list, known := p.w.hub.eventsOf(r, before, s.at())
	if known || s.at() <= before {
		t.Errorf("known %v: %d events up to %d", known, len(list), s.at())
	}
}

// So does sliding sync read nothing to tell of a message, in whatever it is asked for.
func TestSlideReadsNothing(t *testing.T) {
	p := openWaiter(t, "")
	w, r := p.w, p.rooms[1]
	pos, inbox := "", ""
	for i := range 6 {
		req := &SlidingRequest{User: bob, Device: "D", Conn: "c", Pos: pos, Lists: []SlidingList{{Name: "l", RoomConfig: RoomConfig{Limit: 10}}}}
		x := &req.Extensions
		x.ToDevice.Enabled, x.ToDevice.Since, x.E2EE = true, inbox, true
		x.AccountData.Enabled, x.Receipts.Enabled, x.Typing.Enabled = true, true, true
		before := p.st.Reads.Load()
		b, err := w.hub.Slide(ctx, req)
		if err != nil {
			t.Fatal(err)
		}
		reads := p.st.Reads.Load() - before
		var a struct {
			slidingAnswer
			Extensions struct {
				ToDevice struct {
					Next string `json:"next_batch"`
				} `json:"to_device"`
			} `json:"extensions"`
		}
		if err := json.Unmarshal(b, &a, json.RejectUnknownMembers(false)); err != nil {
			t.Fatal(err)
		}
		if pos, inbox = a.Pos, a.Extensions.ToDevice.Next; i > 1 {
			told := a.Rooms[r]
			if told == nil || len(told.Timeline) != 1 || told.Timeline[0].Content["body"] != fmt.Sprint(i-1) {
				t.Fatalf("step %d: told %s", i, b)
			}
			if i > 3 && reads != 0 {
				t.Errorf("step %d: %d reads", i, reads)
			}
		}
		if i > 0 {
			w.say(r, alice, fmt.Sprint(i))
			w.followed(r)
		}
	}
}
