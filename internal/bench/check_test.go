package bench

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"github.com/hubbub-chat/hubbub/internal/ids"
)

// story is a run that went well, for tests to doctor: two rooms, with one sender
// each that sent four messages, and two members each.
type story struct {
	sent   [2][]received
	frames [4][]string // of each member
	past   map[ids.RoomID]history
	// acks replace the event IDs of acknowledgements, refused are not sent.
	acks    map[ids.EventID]ids.EventID
	refused map[ids.EventID]bool
	unknown map[ids.EventID]bool
}

const (
	storyMessages = 4
	initialFrame  = `{"op":"sync","next_batch":"s0","rooms":{"join":{"!0":{"timeline":{"limited":true,"events":[]}}}}}`
)

func storyRoom(i int) ids.RoomID { return ids.RoomID(fmt.Sprintf("!%d", i)) }

func eventJSON(e received) string {
	return fmt.Sprintf(`{"content":%s,"event_id":"%s","sender":"@a:x","type":"m.room.message"}`, e.appendContent(nil, 0), e.id)
}

// frameOf is a frame of the second kind.
func frameOf(room ids.RoomID, events ...received) string {
	return frameWith(room, "", events...)
}

func frameWith(room ids.RoomID, timeline string, events ...received) string {
	var list []string
	for _, e := range events {
		list = append(list, eventJSON(e))
	}
	return fmt.Sprintf(`{"op":"sync","mark":["1","2"],"rooms":{"join":{"%s":{"timeline":{%s"events":[%s]}}}}}`, room, timeline, strings.Join(list, ","))
}

func newStory() *story {
	s := &story{past: map[ids.RoomID]history{}, acks: map[ids.EventID]ids.EventID{}, refused: map[ids.EventID]bool{}, unknown: map[ids.EventID]bool{}}
	for r := range s.sent {
		for n := range storyMessages {
			s.sent[r] = append(s.sent[r], received{ids.EventID(fmt.Sprintf("$%d-%d", r, n)), marker{sender: r, number: n}})
		}
		s.past[storyRoom(r)] = slices.Clone(s.sent[r])
		for m := range 2 {
			f := []string{initialFrame}
			for _, e := range s.sent[r] {
				f = append(f, frameOf(storyRoom(r), e))
			}
			s.frames[2*r+m] = f
		}
	}
	return s
}

// check runs the checker over the story and returns the kinds of faults.
func (s *story) check(interleave *rand.Rand) (*checker, []string) {
	c := newChecker()
	var members []*member
	for r := range s.sent {
		log, led := c.room(storyRoom(r)), c.ledger()
		for _, e := range s.sent[r] {
			n := led.begin(log)
			id := e.id
			if other, ok := s.acks[id]; ok {
				id = other
			}
			switch {
			case s.refused[e.id]:
				led.end(n, outcomeRefused, "")
			case !s.unknown[e.id]:
				led.end(n, outcomeAcked, id)
			}
		}
		for m := range 2 {
			members = append(members, c.member(ids.UserID(fmt.Sprintf("@%d-%d:x", r, m)), log))
		}
	}
	next := [4]int{}
	for left := 4; left > 0; {
		i := interleave.IntN(4)
		if next[i] > len(s.frames[i]) {
			continue
		}
		if next[i] == len(s.frames[i]) {
			left--
		} else {
			members[i].take([]byte(s.frames[i][next[i]]), 1)
		}
		next[i]++
	}
	c.finish(s.past)
	kinds, _ := c.faults()
	return c, slices.Sorted(maps.Keys(kinds))
}

func seeded() *rand.Rand { return rand.New(rand.NewPCG(1, 2)) }

func TestCheckerAcceptsWhatIsRight(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := newStory()
		// Frames with several events, and other events among them.
		for m := range s.frames {
			r := m / 2
			f := []string{initialFrame, `{"op":"sync","ephemeral":{}}`}
			for rest := s.sent[r]; len(rest) > 0; {
				n := rapid.IntRange(1, len(rest)).Draw(t, "events")
				f = append(f, frameOf(storyRoom(r), rest[:n]...))
				if rapid.Bool().Draw(t, "other") {
					f = append(f, fmt.Sprintf(`{"op":"sync","next_batch":"s1","rooms":{"join":{"%s":{"state":{"events":[{"event_id":"$m","type":"m.room.member","content":{}}]},"timeline":{"events":[]}}}}}`, storyRoom(r)))
				}
				rest = rest[n:]
			}
			s.frames[m] = f
		}
		c, kinds := s.check(rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0)))
		if len(kinds) > 0 || c.delivered() != 4*storyMessages || c.skipped() != 0 {
			_, texts := c.faults()
			t.Fatalf("%v, %d delivered, %d skipped", texts, c.delivered(), c.skipped())
		}
	})
}

// TestCheckerFindsFaults doctors the story in every way that breaks a promise.
func TestCheckerFindsFaults(t *testing.T) {
	drop := func(f []string, i int) []string { return slices.Delete(slices.Clone(f), i, i+1) }
	tests := []struct {
		name   string
		doctor func(*story)
		want   string
	}{
		{"a delivery dropped", func(s *story) { s.frames[1] = drop(s.frames[1], 2) }, "missed"},
		{"the last delivery dropped", func(s *story) { s.frames[1] = drop(s.frames[1], 4) }, "missed"},
		{"a member gets nothing", func(s *story) { s.frames[1] = s.frames[1][:1] }, "missed"},
		{"a delivery dropped for all, not in the history", func(s *story) {
			s.frames[0], s.frames[1] = drop(s.frames[0], 2), drop(s.frames[1], 2)
			s.past["!0"] = slices.Delete(s.past["!0"], 1, 2)
		}, "lost"},
		{"a delivery dropped for all", func(s *story) {
			s.frames[0], s.frames[1] = drop(s.frames[0], 2), drop(s.frames[1], 2)
		}, "history"},
		{"the last one for all", func(s *story) {
			s.frames[0], s.frames[1] = drop(s.frames[0], 4), drop(s.frames[1], 4)
		}, "missed"},
		{"a delivery doubled", func(s *story) { s.frames[1] = slices.Insert(s.frames[1], 3, s.frames[1][2]) }, "repeated"},
		{"doubled in one frame", func(s *story) { s.frames[1][2] = frameOf("!0", s.sent[0][1], s.sent[0][1]) }, "repeated"},
		{"doubled for all", func(s *story) {
			for m := range 2 {
				s.frames[m] = slices.Insert(s.frames[m], 3, s.frames[m][2])
			}
		}, "repeated"},
		{"two swapped", func(s *story) { s.frames[1][2], s.frames[1][3] = s.frames[1][3], s.frames[1][2] }, "repeated"},
		{"two swapped in one frame", func(s *story) {
			s.frames[1] = []string{initialFrame, s.frames[1][1], frameOf("!0", s.sent[0][2], s.sent[0][1]), s.frames[1][4]}
		}, "repeated"},
		{"swapped for all but the history", func(s *story) {
			for m := range 2 {
				s.frames[m][2], s.frames[m][3] = s.frames[m][3], s.frames[m][2]
			}
		}, "history"},
		{"an event of nobody", func(s *story) {
			s.frames[1][2] = frameOf("!0", received{"$forged", marker{sender: 0, number: 99}})
		}, "missed"},
		{"an event of nobody, for all", func(s *story) {
			forged := received{"$forged", marker{sender: 0, number: 99}}
			s.frames[0], s.frames[1] = append(s.frames[0], frameOf("!0", forged)), append(s.frames[1], frameOf("!0", forged))
			s.past["!0"] = append(s.past["!0"], forged)
		}, "not sent"},
		{"another sender's number", func(s *story) {
			forged := received{"$forged", marker{sender: 7, number: 0}}
			s.past["!0"] = append(s.past["!0"], forged)
			s.frames[0], s.frames[1] = append(s.frames[0], frameOf("!0", forged)), append(s.frames[1], frameOf("!0", forged))
		}, "not sent"},
		{"sent twice under two IDs", func(s *story) {
			again := received{"$again", s.sent[0][1].marker}
			s.past["!0"] = append(s.past["!0"], again)
			s.frames[0], s.frames[1] = append(s.frames[0], frameOf("!0", again)), append(s.frames[1], frameOf("!0", again))
		}, "doubled"},
		{"another ID than was acknowledged", func(s *story) { s.acks["$0-1"] = "$other" }, "renamed"},
		{"refused and delivered", func(s *story) { s.refused["$0-1"] = true }, "refused"},
		{"a frame with a room that is not the member's", func(s *story) {
			s.frames[1] = append(s.frames[1], frameOf("!1", s.sent[1][0]))
		}, "wrong room"},
		{"the right event under another room", func(s *story) { s.frames[1][2] = frameOf("!1", s.sent[0][1]) }, "wrong room"},
		{"a message in a room it was not sent to", func(s *story) {
			s.past["!1"] = append(s.past["!1"], received{"$0-9", s.sent[0][3].marker})
			s.frames[2] = append(s.frames[2], frameOf("!1", received{"$0-9", s.sent[0][3].marker}))
			s.frames[3] = append(s.frames[3], frameOf("!1", received{"$0-9", s.sent[0][3].marker}))
		}, "wrong room"},
		{"a history that ends early", func(s *story) { s.past["!0"] = s.past["!0"][:3] }, "history"},
		{"a history that repeats", func(s *story) { s.past["!0"] = append(s.past["!0"], s.sent[0][0]) }, "history"},
		{"no JSON", func(s *story) {
			s.frames[1] = append(s.frames[1], `{"op":"sync","rooms":{"join":{"!0":{"timeline":{"events":[{"event_id":"$x"`)
		}, "malformed"},
		{"a gap that repeats", func(s *story) {
			s.frames[1] = append(s.frames[1], frameWith("!0", `"limited":true,`, s.sent[0][1:]...))
		}, "repeated"},
		{"a gap, then an unknown event", func(s *story) {
			s.frames[1] = append(s.frames[1], frameWith("!0", `"limited":true,`, received{"$forged", marker{sender: 0, number: 99}}))
		}, "order"},
		{"a gap, then one missing", func(s *story) {
			s.frames[1] = []string{initialFrame, s.frames[1][1], frameWith("!0", `"limited":true,`, s.sent[0][1]), s.frames[1][4]}
		}, "missed"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newStory()
			tt.doctor(s)
			c, kinds := s.check(seeded())
			_, texts := c.faults()
			if !slices.Contains(kinds, tt.want) {
				t.Errorf("faults %v, want %s\n%s", kinds, tt.want, strings.Join(texts, "\n"))
			}
		})
	}
}

// TestCheckerAllows: what may happen is no fault.
func TestCheckerAllows(t *testing.T) {
	const limited = `"limited":true,"prev_batch":"x",`
	tests := []struct {
		name    string
		doctor  func(*story)
		skipped int64
	}{
		{"a limited timeline", func(s *story) {
			s.frames[1] = []string{initialFrame, s.frames[1][1], frameWith("!0", limited, s.sent[0][3])}
		}, 2},
		{"two in a row", func(s *story) {
			s.frames[1] = []string{initialFrame, frameWith("!0", limited, s.sent[0][1]), frameWith("!0", limited, s.sent[0][3])}
		}, 2},
		{"one without events", func(s *story) {
			s.frames[1] = []string{initialFrame, frameWith("!0", limited), frameOf("!0", s.sent[0][2:]...)}
		}, 2},
		{"nothing behind it", func(s *story) {
			s.frames[1] = []string{initialFrame, s.frames[1][1], frameWith("!0", limited)}
		}, 3},
		{"all members have gaps", func(s *story) {
			s.frames[0] = []string{initialFrame, frameWith("!0", limited, s.sent[0][2:]...)}
			s.frames[1] = []string{initialFrame, frameWith("!0", limited, s.sent[0][1:]...)}
		}, 3},
		{"no answer, and delivered", func(s *story) { s.unknown["$0-1"] = true }, 0},
		{"no answer, and not delivered", func(s *story) {
			s.unknown["$0-3"] = true
			s.frames[0], s.frames[1] = s.frames[0][:4], s.frames[1][:4]
			s.past["!0"] = s.past["!0"][:3]
		}, 0},
		{"refused, and not delivered", func(s *story) {
			s.refused["$0-3"] = true
			s.frames[0], s.frames[1] = s.frames[0][:4], s.frames[1][:4]
			s.past["!0"] = s.past["!0"][:3]
		}, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for seed := range uint64(50) {
				s := newStory()
				tt.doctor(s)
				c, kinds := s.check(rand.New(rand.NewPCG(seed, 0)))
				_, texts := c.faults()
				if len(kinds) > 0 {
					t.Fatalf("%s", strings.Join(texts, "\n"))
				}
				if c.skipped() != tt.skipped {
					t.Fatalf("%d skipped, want %d", c.skipped(), tt.skipped)
				}
			}
		})
	}
}

// TestMembersAtOnce: members race for being the first to see an event.
func TestMembersAtOnce(t *testing.T) {
	const members, messages = 8, 500
	c := newChecker()
	log, led := c.room("!r"), c.ledger()
	var frames []string
	for n := range messages {
		e := received{ids.EventID(fmt.Sprintf("$%d", n)), marker{number: led.begin(log), phase: phaseFirst, due: 5}}
		led.end(n, outcomeAcked, e.id)
		frames = append(frames, frameOf("!r", e))
	}
	var wg sync.WaitGroup
	for i := range members {
		m := c.member(ids.UserID(fmt.Sprintf("@%d:x", i)), log)
		wg.Go(func() {
			m.take([]byte(initialFrame), 0)
			for _, f := range frames {
				m.take([]byte(f), 1005)
			}
		})
	}
	wg.Wait()
	c.finish(nil)
	if kinds, texts := c.faults(); len(kinds) > 0 {
		t.Fatal(texts)
	}
	if h := c.latency(phaseFirst); h.Count() != members*messages || h.Max() != 1000 {
		t.Errorf("%d latencies, at most %v", h.Count(), h.Max())
	}
}

func TestMarkers(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := marker{
			sender: rapid.IntRange(0, 1<<20).Draw(t, "sender"), number: rapid.IntRange(0, 1<<40).Draw(t, "number"),
			due: rapid.Int64Range(0, 1<<60).Draw(t, "due"), phase: phase(rapid.IntRange(0, int(phases)-1).Draw(t, "phase")),
		}
		size := rapid.IntRange(0, 2000).Draw(t, "size")
		b := m.appendContent(nil, size)
		if len(b) < size {
			t.Fatalf("%d bytes, want %d", len(b), size)
		}
		u, err := parseUpdate([]byte(frameOf("!r", received{"$a", m})))
		if err != nil {
			t.Fatal(err)
		}
		got := ours(u.Rooms.Join["!r"].Timeline.Events)
		if len(got) != 1 || got[0].marker != m || got[0].id != "$a" {
			t.Fatalf("%+v came back as %+v", m, got)
		}
	})
	for _, body := range []string{"", "hello", "hb1", "hb1.1.2.3", "hb1.1.2.3.0", "hb1.1.2.x.0.", "hb1.-1.2.3.0.", "hb1.1.2.3.9."} {
		if m, ok := parseMarker(body); ok {
			t.Errorf("%q is %+v", body, m)
		}
	}
}

// FuzzTake: whatever a server sends, the member's place stays inside the order.
func FuzzTake(f *testing.F) {
	s := newStory()
	for _, frame := range s.frames[0] {
		f.Add([]byte(frame))
	}
	f.Add([]byte(frameWith("!0", `"limited":true,`, s.sent[0][2:]...)))
	f.Fuzz(func(t *testing.T, b []byte) {
		c := newChecker()
		m, other := c.member("@a:x", c.room("!0")), (*member)(nil)
		other = c.member("@b:x", m.log)
		m.take([]byte(initialFrame), 0)
		other.take([]byte(initialFrame), 0)
		other.take([]byte(frameOf("!0", s.sent[0]...)), 0)
		for range 2 {
			m.take(b, 0)
			other.take(b, 0)
		}
		if n := len(m.log.snapshot()); m.at > n || other.at > n || m.at < 0 || other.at < 0 {
			t.Fatalf("places %d and %d of %d", m.at, other.at, n)
		}
		c.finish(nil)
	})
}
