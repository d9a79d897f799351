package room

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"github.com/hubbub-chat/hubbub/internal/event"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/merr"
	"github.com/hubbub-chat/hubbub/internal/partition"
	"github.com/hubbub-chat/hubbub/internal/storage"
	"github.com/hubbub-chat/hubbub/internal/tables"
)

// leaks returns where a text still stands in the rows of a room.
func (w *world) leaks(room ids.RoomID, text string) (where []string) {
	for _, t := range []storage.Table{tables.Timeline, tables.State} {
		for _, row := range w.rows(room, t) {
			if bytes.Contains(row.Value, []byte(text)) {
				where = append(where, fmt.Sprintf("table %d at %q", t, row.Sort))
			}
		}
	}
	return where
}

func (w *world) checkGone(room ids.RoomID, text string) {
	w.t.Helper()
	if where := w.leaks(room, text); where != nil {
		w.t.Fatalf("%q still stands in %v", text, where)
	}
}

func TestRedactionTakesContentAway(t *testing.T) {
	for _, version := range event.Supported() {
		t.Run(version, func(t *testing.T) {
			w, room := clean(t, version)
			m := w.mustSend(room, w.message(alice, "secret message"))
			old := w.state(room, alice, event.TypeTopic, "", `{"topic":"secret old"}`)
			now := w.state(room, alice, event.TypeTopic, "", `{"topic":"secret new"}`)
			w.state(room, alice, event.TypeName, "", `{"name":"secret name"}`)
			name := w.state(room, alice, event.TypeName, "", `{"name":"secret last"}`)
			w.state(room, alice, event.TypeName, "", `{"name":"public"}`)
			member := w.state(room, bob, event.TypeMember, string(bob), `{"displayname":"secret bob","membership":"join"}`)
			for text, target := range map[string]*Stored{
				"secret message": m, "secret old": old, "secret new": now, "secret last": name, "secret bob": member,
			} {
				if w.leaks(room, text) == nil {
					t.Errorf("%q is not there", text)
				}
				id, err := w.redact(room, alice, target.ID)
				if err != nil {
					t.Fatalf("redact %s: %v", text, err)
				}
				w.checkGone(room, text)
				s := w.event(room, target.ID)
				client := string(s.AppendClient(nil, Viewer{}))
				if !strings.Contains(client, `"redacted_because":{`) || !strings.Contains(client, string(id)) {
					t.Errorf("redacted event: %s", client)
				}
				by := w.event(room, id)
				if by.Redacts != target.ID || !strings.Contains(string(by.AppendClient(nil, Viewer{})), `"redacts":"`+string(target.ID)) {
					t.Errorf("redaction: %+v", by)
				}
				if _, err := w.redact(room, alice, target.ID); err != nil {
					t.Fatalf("redact %s again: %v", text, err)
				}
				if again := w.event(room, target.ID); !strings.Contains(string(again.RedactedBy), string(id)) {
					t.Errorf("the second redaction took the place of the first: %s", again.RedactedBy)
				}
				w.checkRoom(room)
			}
			if m := w.event(room, member.ID).Member(); m.Membership != event.Join {
				t.Errorf("the membership went with the name: %+v", m)
			}
			if w.leaks(room, "secret name") == nil {
				t.Error("more was taken away than was asked for")
			}
		})
	}
}

func TestWhoMayRedact(t *testing.T) {
	w, room := clean(t, "12")
	w.member(room, bob, bob, event.Join)
	own := w.mustSend(room, w.message(bob, "own"))
	others := w.mustSend(room, w.message(alice, "others"))
	elsewhere := w.mustSend(w.create("12"), w.message(alice, "elsewhere"))
	first := w.timeline(room)[0]
	for _, c := range []struct {
		who    ids.UserID
		target ids.EventID
		want   merr.Code
	}{
		{bob, own.ID, ""},
		{bob, others.ID, merr.Forbidden},
		{alice, own.ID, ""},
		{carol, others.ID, merr.Forbidden},
		{alice, first.ID, merr.Forbidden},
		{alice, elsewhere.ID, merr.NotFound},
		{alice, "$nonsense", merr.NotFound},
	} {
		_, err := w.redact(room, c.who, c.target)
		if c.want == "" && err != nil || c.want != "" && !merr.Is(err, c.want) {
			t.Errorf("%s redacts %s: %v, want %q", c.who, c.target, err, c.want)
		}
	}
	w.checkRoom(room)
	if s := w.event(room, others.ID); s.RedactedBy != nil {
		t.Error("a refused redaction took effect")
	}
}

// racing is a redaction between whose Prepare and Apply something happens.
type racing struct {
	*Redact
	between  func()
	prepared int
}

func (r *racing) Prepare(ctx context.Context, p *partition.Prep) error {
	err := r.Redact.Prepare(ctx, p)
	if r.prepared++; r.prepared == 1 {
		r.between()
	}
	return err
}

// What another command does between Prepare and Apply is not undone, and what is
// to go goes.
func TestRedactionRaces(t *testing.T) {
	type room struct {
		*world
		id                  ids.RoomID
		before, target, now *Stored
	}
	mustRedact := func(r *room, s *Stored) {
		if _, err := r.redact(r.id, alice, s.ID); err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		current  bool // the target is the current state
		between  func(r *room)
		prepares int
		gone     []string
	}{
		"target replaced": {current: true, prepares: 2, gone: []string{"secret target"}, between: func(r *room) {
			r.state(r.id, alice, event.TypeTopic, "", `{"topic":"secret now"}`)
		}},
		"target redacted":         {prepares: 1, gone: []string{"secret target"}, between: func(r *room) { mustRedact(r, r.target) }},
		"current target redacted": {current: true, prepares: 1, gone: []string{"secret target"}, between: func(r *room) { mustRedact(r, r.target) }},
		"one before redacted": {prepares: 1, gone: []string{"secret target", "secret before"}, between: func(r *room) {
			mustRedact(r, r.before)
		}},
		"one after redacted": {prepares: 1, gone: []string{"secret target", "secret now"}, between: func(r *room) {
			mustRedact(r, r.now)
		}},
		"one after replaced": {prepares: 1, gone: []string{"secret target"}, between: func(r *room) {
			r.state(r.id, alice, event.TypeTopic, "", `{"topic":"later"}`)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			w, id := clean(t, "12")
			r := &room{world: w, id: id}
			r.before = w.state(id, alice, event.TypeTopic, "", `{"topic":"secret before"}`)
			r.target = w.state(id, alice, event.TypeTopic, "", `{"topic":"secret target"}`)
			if !c.current {
				r.now = w.state(id, alice, event.TypeTopic, "", `{"topic":"secret now"}`)
			}
			cmd := &racing{Redact: w.redaction(id, alice, r.target.ID), between: func() { c.between(r) }}
			if _, err := w.node.Do(ctx, cmd); err != nil {
				t.Fatal(err)
			}
			if cmd.prepared != c.prepares {
				t.Errorf("prepared %d times, want %d", cmd.prepared, c.prepares)
			}
			for _, text := range c.gone {
				w.checkGone(id, text)
			}
			w.checkRoom(id)
		})
	}
}

// However redactions and changes of state mix, the room stays whole and what was
// redacted is gone.
func TestRedactionProperty(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w := newWorld(rt, nil)
		defer w.close()
		room := w.create(rapid.SampledFrom([]string{"10", "11", "12"}).Draw(rt, "version"))
		var secrets []*Stored
		text := map[ids.EventID]string{}
		var mu sync.Mutex
		n := 0
		act := func(rt *rapid.T) func() {
			n++
			secret := fmt.Sprintf("secret-%d-", n)
			if len(secrets) > 0 && rapid.Bool().Draw(rt, "redact") {
				target := rapid.SampledFrom(secrets).Draw(rt, "target")
				return func() {
					if _, err := w.redact(room, alice, target.ID); err != nil {
						rt.Errorf("redact: %v", err)
					}
					mu.Lock()
					defer mu.Unlock()
					text[target.ID] = secretOf(target)
				}
			}
			s := w.message(alice, secret)
			switch rapid.IntRange(0, 2).Draw(rt, "kind") {
			case 0:
				s = &Send{Draft: w.draft(alice, event.TypeTopic, "", fmt.Sprintf(`{"topic":%q}`, secret))}
			case 1:
				s = &Send{Draft: w.draft(bob, event.TypeMember, string(bob), fmt.Sprintf(`{"displayname":%q,"membership":"join"}`, secret))}
			}
			return func() {
				stored := w.mustSend(room, s)
				mu.Lock()
				defer mu.Unlock()
				secrets = append(secrets, stored)
			}
		}
		for range rapid.IntRange(1, 8).Draw(rt, "rounds") {
			acts := make([]func(), rapid.IntRange(1, 6).Draw(rt, "parallel"))
			for i := range acts {
				acts[i] = act(rt)
			}
			inParallel(len(acts), func(i int) { acts[i]() })
		}
		w.checkRoom(room)
		for _, secret := range text {
			w.checkGone(room, secret)
		}
	})
}

func secretOf(s *Stored) string {
	_, rest, _ := strings.Cut(string(s.Content), "secret-")
	n, _, _ := strings.Cut(rest, "-")
	return "secret-" + n + "-"
}
