package room

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/hubbub-chat/hubbub/internal/event"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/lint/ondemand"
	"github.com/hubbub-chat/hubbub/internal/partition"
	"github.com/hubbub-chat/hubbub/internal/roomstate"
	"github.com/hubbub-chat/hubbub/internal/storage"
	"github.com/hubbub-chat/hubbub/internal/tables"
)

// related sends an event that relates to another.
func (w *world) related(room ids.RoomID, sender ids.UserID, typ, relType string, parent ids.EventID, more string) ids.EventID {
	w.t.Helper()
	content := fmt.Sprintf(`{"m.relates_to":{"event_id":%q,"rel_type":%q%s}}`, parent, relType, more)
	d := roomstate.Draft{Type: typ, Sender: sender, Content: canonical(w.t, content)}
	id, err := partition.Do[ids.EventID](ctx, w.node, &Send{Room: room, Draft: d})
	if err != nil {
		w.t.Fatalf("send %s: %v", content, err)
	}
	return id
}

func (w *world) say(room ids.RoomID, sender ids.UserID, body string) ids.EventID {
	w.t.Helper()
	return w.mustSend(room, w.message(sender, body)).ID
}

func (w *world) redactEvent(room ids.RoomID, id ids.EventID) {
	w.t.Helper()
	if _, err := w.redact(room, alice, id); err != nil {
		w.t.Fatalf("redact: %v", err)
	}
}

// relationRows counts a room's rows about relations, by table.
func (w *world) relationRows(room ids.RoomID) string {
	w.t.Helper()
	var out []string
	for _, t := range []storage.Table{
		tables.Relation, tables.RelationCount, tables.Annotation, tables.ThreadLog, tables.ThreadMember, tables.ThreadEvent,
	} {
		out = append(out, fmt.Sprint(len(w.rows(room, t))))
	}
	return strings.Join(out, " ")
}

// A message that relates to nothing writes nothing about relations; redacted, an
// event leaves nothing of its own.
func TestRelationRows(t *testing.T) {
	w := newWorld(t, nil)
	defer w.close()
	room := w.create("12")
	root := w.say(room, alice, "root")
	step := func(what, want string) {
		t.Helper()
		if got := w.relationRows(room); got != want {
			t.Errorf("%s: rows %s, want %s", what, got, want)
		}
	}
	step("message", "0 0 0 0 0 0")
	nowhere := w.related(room, alice, "m.reaction", event.RelAnnotation, "$"+ids.EventID(strings.Repeat("x", 43)), "")
	step("to no event", "0 0 0 0 0 0")
	smile := w.related(room, alice, "m.reaction", event.RelAnnotation, root, `,"key":"x"`)
	step("annotation", "1 1 1 0 0 0")
	reply := w.related(room, alice, event.TypeMessage, event.RelThread, root, "")
	step("reply", "2 1 1 1 1 1")
	second := w.related(room, alice, event.TypeMessage, event.RelThread, root, "")
	step("second reply", "3 1 1 1 1 2")
	edit := w.related(room, alice, event.TypeMessage, event.RelReplace, reply, "")
	step("edit of a reply", "5 2 1 1 1 3") // of the reply, and indirectly of the root
	for _, id := range []ids.EventID{nowhere, edit, second} {
		w.redactEvent(room, id)
	}
	step("redacted the edit and the second", "2 2 1 1 1 1")
	w.redactEvent(room, reply)
	step("redacted the first", "1 2 1 0 0 0")
	w.redactEvent(room, smile)
	w.redactEvent(room, smile)
	step("redacted the annotation", "0 2 0 0 0 0")
}

// In which thread an event is follows from its parents, and survives the store.
func TestThreadOfEvent(t *testing.T) {
	w := newWorld(t, nil)
	defer w.close()
	room := w.create("12")
	root := w.say(room, alice, "root")
	reply := w.related(room, alice, event.TypeMessage, event.RelThread, root, "")
	smile := w.related(room, alice, "m.reaction", event.RelAnnotation, reply, "")
	onSmile := w.related(room, alice, "x", "y", smile, "")
	onRoot := w.related(room, alice, "m.reaction", event.RelAnnotation, root, "")
	thread := func(id ids.EventID) ids.EventID {
		s, err := w.r.Event(ctx, room, id)
		if err != nil || s == nil {
			t.Fatalf("read %s: %v", id, err)
		}
		return s.Thread
	}
	for id, want := range map[ids.EventID]ids.EventID{root: "", reply: root, smile: root, onSmile: root, onRoot: ""} {
		if got := thread(id); got != want {
			t.Errorf("thread of %s is %q, want %q", id, got, want)
		}
	}
	list, err := w.r.ThreadEvents(ctx, room, 0, maxSeq-1, 10)
	if err != nil || len(list) != 3 || list[0].Root != root || list[0].Seq < list[1].Seq {
		t.Errorf("events in threads: %v %v", list, err)
	}
	w.redactEvent(room, reply)
	if got := thread(reply); got != "" {
		t.Errorf("a redacted reply is in thread %q", got)
	}
	checked, err := Check(ctx, w.store, partitions, func(s string) { t.Error(s) })
	if err != nil || checked.Problems > 0 {
		t.Errorf("check: %+v %v", checked, err)
	}
}

// The most recent replacement is that of the latest time, and of equal ones that of
// the greater ID. spec: client-server §Server-side aggregation of m.replace
// relationships.
func TestLatestEdit(t *testing.T) {
	w := newWorld(t, nil)
	defer w.close()
	room := w.create("12")
	root := w.say(room, alice, "root")
	at := func(ts int64, text string) ids.EventID {
		d := roomstate.Draft{Type: event.TypeMessage, Sender: alice, OriginServerTS: ts}
		d.Content = canonical(t, fmt.Sprintf(`{"m.new_content":{"body":%q},"m.relates_to":{"event_id":%q,"rel_type":"m.replace"}}`, text, root))
		return w.mustSend(room, &Send{Draft: d, Timestamped: true}).ID
	}
	latest := func() string {
		s := w.event(room, root)
		a, err := w.r.Aggregate(ctx, room, &Onlooker{User: bob, UpTo: maxSeq - 1}, []*Stored{s})
		if err != nil {
			t.Fatal(err)
		}
		return string(a[s.Seq])
	}
	best := at(2000, "a")
	at(1000, "b")
	if got := latest(); !strings.Contains(got, string(best)) {
		t.Errorf("the later time does not win: %s", got)
	}
	for i := range 5 {
		best = max(best, at(2000, fmt.Sprint(i)))
		if got := latest(); !strings.Contains(got, string(best)) {
			t.Errorf("the greater ID does not win: %s", got)
		}
	}
}

// counting counts the rows that are read.
type counting struct {
	storage.Store
	rows int
}

func (c *counting) Scan(ctx context.Context, r storage.Range) ([]storage.Entry, error) {
	rows, err := c.Store.Scan(ctx, r)
	c.rows += len(rows)
	return rows, err
}

func (c *counting) Get(ctx context.Context, keys ...storage.Key) ([][]byte, error) {
	c.rows += len(keys)
	return c.Store.Get(ctx, keys...)
}

// reactionsEnv is how many reactions an event has in TestAggregateCost.
const reactionsEnv = "HUBBUB_TEST_REACTIONS"

// What an aggregation costs does not follow from how much relates to the event.
func TestAggregateCost(t *testing.T) {
	w := newWorld(t, nil)
	defer w.close()
	room := w.create("12")
	root := w.say(room, alice, "root")
	cost := func() (rows int, shown string) {
		c := &counting{Store: w.store}
		s, err := w.r.Event(ctx, room, root)
		if err != nil {
			t.Fatal(err)
		}
		o := &Onlooker{User: bob, UpTo: maxSeq - 1}
		a, err := NewReader(c, partitions).Aggregate(ctx, room, o, []*Stored{s})
		if err != nil {
			t.Fatal(err)
		}
		return c.rows, string(a[s.Seq])
	}
	w.related(room, alice, event.TypeMessage, event.RelThread, root, "")
	few, _ := cost()
	reactions := int(ondemand.Number(t, reactionsEnv, 3000))
	for i := range reactions {
		w.related(room, alice, "m.reaction", event.RelAnnotation, root, fmt.Sprintf(`,"key":"%d"`, i))
	}
	for range 300 {
		w.related(room, alice, event.TypeMessage, event.RelThread, root, "")
	}
	many, shown := cost()
	if many > few+2 {
		t.Errorf("one reply costs %d rows, 300 replies and %d reactions %d", few, reactions, many)
	}
	if !strings.Contains(shown, `"count":301`) {
		t.Errorf("301 replies are bundled as %s", shown)
	}
	// What is looked for behind thousands of others is found in steps, once.
	q := RelatedQuery{Parent: w.event(room, root).Seq, EventType: event.TypeMessage, UpTo: maxSeq - 1, Limit: 400, Newest: true}
	var found []*Related
	steps := 0
	for ; q.UpTo > 0; steps++ {
		list, pos, err := w.r.Related(ctx, room, q)
		if err != nil {
			t.Fatal(err)
		}
		found, q.UpTo = append(found, list...), pos
	}
	if !slices.IsSortedFunc(found, func(a, b *Related) int { return cmp.Compare(b.Seq, a.Seq) }) || len(found) != 301 || steps < 2 {
		t.Errorf("%d messages among reactions in %d steps", len(found), steps)
	}
	for range 300 {
		w.related(room, alice, "m.poll.response", event.RelReference, root, "")
	}
	polled, shown := cost()
	references, _, _ := strings.Cut(shown, `"m.thread"`)
	if n := strings.Count(references, `{"event_id":`); polled > many+maxReferences+2 || n != maxReferences {
		t.Errorf("300 references cost %d rows and list %d", polled-many, n)
	}
}
