package app_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hubbub-chat/hubbub/internal/app"
	"github.com/hubbub-chat/hubbub/internal/app/apptest"
	"github.com/hubbub-chat/hubbub/internal/event"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/room"
	"github.com/hubbub-chat/hubbub/internal/storage"
	"github.com/hubbub-chat/hubbub/internal/storage/pebblestore"
	"github.com/hubbub-chat/hubbub/internal/tables"
	"github.com/hubbub-chat/hubbub/internal/wsclient"
)

// surgery writes into the store of a stopped server.
type surgery struct {
	t     *testing.T
	st    storage.Store
	count int
}

// operate opens the store of a server that it stops, and starts it again.
func operate(t *testing.T, s *apptest.Server, fn func(*surgery)) {
	t.Helper()
	s.Stop()
	st, err := pebblestore.Open(filepath.Join(s.Config.Server.DataDir, "store"), pebblestore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	fn(&surgery{t, st, s.Config.Server.Partitions})
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
	s.Restart(t)
}

// rows returns the rows of an entity.
func (x *surgery) rows(t storage.Table, entity string) []storage.Entry {
	x.t.Helper()
	rows, err := x.st.Scan(x.t.Context(), storage.Range{
		Partition: ids.PartitionOf(entity, x.count), Table: t, Entity: entity, Limit: storage.MaxScan,
	})
	if err != nil {
		x.t.Fatal(err)
	}
	return rows
}

// damage changes the rows of an entity that are meant: at least one.
func (x *surgery) damage(t storage.Table, entity string, meant func(storage.Entry) bool, how func([]byte) []byte) {
	x.t.Helper()
	p := ids.PartitionOf(entity, x.count)
	l, err := x.st.Acquire(x.t.Context(), p, "surgeon", time.Minute)
	if err != nil {
		x.t.Fatal(err)
	}
	b := &storage.Batch{}
	for _, row := range x.rows(t, entity) {
		if meant(row) {
			b.Put(storage.Key{Partition: p, Table: t, Entity: entity, Sort: row.Sort}, how(slices.Clone(row.Value)))
		}
	}
	if len(b.Ops) == 0 {
		x.t.Fatalf("no row of table %d of %s is meant", t, entity)
	}
	if err := x.st.Commit(x.t.Context(), p, l.Epoch, b); err != nil {
		x.t.Fatal(err)
	}
	if err := x.st.Release(x.t.Context(), l); err != nil {
		x.t.Fatal(err)
	}
}

// isEvent means the row of an event in the timeline.
func isEvent(in, id string) func(storage.Entry) bool {
	return func(row storage.Entry) bool {
		s, err := room.DecodeStored(ids.RoomID(in), row.Value)
		return err == nil && string(s.ID) == id
	}
}

// isState means a piece of state, in the state and where it stands in the timeline.
func isState(in, typ, key string) func(storage.Entry) bool {
	return func(row storage.Entry) bool {
		s, err := room.DecodeStored(ids.RoomID(in), row.Value)
		return err == nil && s.Is(typ, key)
	}
}

func sortHas(part string) func(storage.Entry) bool {
	return func(row storage.Entry) bool { return strings.Contains(row.Sort, part) }
}

// The ways in which a row is damaged.
var (
	cut      = func(b []byte) []byte { return b[:len(b)/2] }
	noise    = func(b []byte) []byte { return bytes.Repeat([]byte{0xa7}, len(b)) }
	emptied  = func([]byte) []byte { return []byte{} }
	brokenIn = func(b []byte) []byte { return bytes.Replace(b, []byte(`"body":"`), []byte(`"body":x`), 1) }
)

// errorLines keeps what a server logs as errors.
type errorLines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *errorLines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

func (l *errorLines) all() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// damaged is a server with two rooms, in one of which rows are damaged.
type damaged struct {
	t                 *testing.T
	s                 *apptest.Server
	log               *errorLines
	alice, bob, carol *apptest.Client
	sick, well        string
	texts             map[string]string // event IDs in the sick room by text
	since             string            // of alice, before the damage
}

// newDamaged makes the rooms, with ten messages each.
func newDamaged(t *testing.T) *damaged {
	t.Helper()
	d := &damaged{t: t, log: &errorLines{}, texts: make(map[string]string)}
	d.s = apptest.StartLogging(t, slog.New(slog.NewTextHandler(d.log, &slog.HandlerOptions{Level: slog.LevelError})))
	d.alice, d.bob, d.carol = d.s.User(t, "alice"), d.s.User(t, "bob"), d.s.User(t, "carol")
	d.well = d.alice.CreateRoom(t, apptest.Object{"name": "well", "preset": "public_chat"})
	d.sick = d.alice.CreateRoom(t, apptest.Object{"name": "sick", "topic": "canary-topic", "preset": "public_chat"})
	for _, c := range []*apptest.Client{d.bob, d.carol} {
		c.Join(t, d.well)
		c.Join(t, d.sick)
	}
	d.since = d.alice.Sync(t, "")["next_batch"].(string)
	for i := range 10 {
		d.alice.Send(t, d.well, fmt.Sprintf("well %d", i))
		text := fmt.Sprintf("canary-%d word", i)
		d.texts[text] = d.alice.Send(t, d.sick, text)
	}
	d.bob.Must(t, "POST", d.path("receipt/m.read/"+d.text(9)), apptest.Object{})
	d.alice.Must(t, "POST", d.path("receipt/m.read/"+d.text(8)), apptest.Object{})
	d.putData("org.test.sick", "canary-data")
	d.putData("org.test.well", "data")
	return d
}

func (d *damaged) text(i int) string { return d.texts[fmt.Sprintf("canary-%d word", i)] }

func (d *damaged) path(rest string) string {
	return "/_matrix/client/v3/rooms/" + url.PathEscape(d.sick) + "/" + rest
}

func (d *damaged) dataPath(typ string) string {
	return "/_matrix/client/v3/user/" + url.PathEscape(d.alice.UserID) + "/account_data/" + typ
}

func (d *damaged) putData(typ, value string) {
	d.t.Helper()
	d.alice.Must(d.t, "PUT", d.dataPath(typ), apptest.Object{"value": value})
}

// bodies are the texts of a list of events.
func bodies(list any) (out []string) {
	events, _ := list.([]any)
	for _, e := range events {
		if text, ok := apptest.At(e, "content", "body").(string); ok {
			out = append(out, text)
		}
	}
	return out
}

// but are the texts of the ten messages without some.
func but(prefix, suffix string, missing ...int) (out []string) {
	for i := range 10 {
		if !slices.Contains(missing, i) {
			out = append(out, fmt.Sprintf("%s%d%s", prefix, i, suffix))
		}
	}
	return out
}

func (d *damaged) same(what string, got, want []string) {
	d.t.Helper()
	if !slices.Equal(got, want) {
		d.t.Errorf("%s: got %q, want %q", what, got, want)
	}
}

const big = `{"room":{"timeline":{"limit":50}}}`

// syncs checks all kinds of syncs of alice; missing are the messages left out.
func (d *damaged) syncs(missing ...int) (since string) {
	t := d.t
	t.Helper()
	for name, q := range map[string]string{
		"initial": "", "full state": "&full_state=true", "incremental": "&since=" + d.since, "lazy": "",
	} {
		f := big
		if name == "lazy" {
			f = `{"room":{"state":{"lazy_load_members":true},"timeline":{"limit":50}}}`
		}
		out := d.alice.Must(t, "GET", "/_matrix/client/v3/sync?filter="+url.QueryEscape(f)+q, nil)
		d.same(name+" sync of the damaged room", bodies(apptest.At(out, "rooms", "join", d.sick, "timeline", "events")), but("canary-", " word", missing...))
		d.same(name+" sync of the other room", bodies(apptest.At(out, "rooms", "join", d.well, "timeline", "events")), but("well ", ""))
		since = out["next_batch"].(string)
	}
	out := d.alice.Must(t, "POST", "/_matrix/client/unstable/org.matrix.simplified_msc3575/sync", apptest.Object{
		"lists": apptest.Object{"all": apptest.Object{"ranges": []any{[]any{0, 9}}, "timeline_limit": 50, "required_state": []any{[]any{"*", "*"}}}},
	})
	d.same("sliding sync of the damaged room", bodies(apptest.At(out, "rooms", d.sick, "timeline")), but("canary-", " word", missing...))
	d.same("sliding sync of the other room", bodies(apptest.At(out, "rooms", d.well, "timeline")), but("well ", ""))
	return since
}

// page goes through the messages of the sick room, a few at a time.
func (d *damaged) page(dir string) (out []string) {
	d.t.Helper()
	for from, n := "", 0; ; n++ {
		if n > 100 {
			d.t.Fatalf("paging %s does not end", dir)
		}
		got := d.alice.Must(d.t, "GET", d.path("messages?limit=2&dir="+dir+from), nil)
		out = append(out, bodies(got["chunk"])...)
		end, more := got["end"].(string)
		if !more {
			break
		}
		from = "&from=" + url.QueryEscape(end)
	}
	if dir == "b" {
		slices.Reverse(out)
	}
	return out
}

// follow makes a live socket and a waiting sync, has alice say something, and checks
// that both tell of it.
func (d *damaged) follow(since string) {
	t := d.t
	t.Helper()
	frames := make(chan string, 100)
	ws, err := wsclient.Dial(t.Context(), d.s.URL, wsclient.Options{
		Token: d.alice.Token, Sync: true, Filter: []byte(big), OnFrame: func(b []byte) { frames <- string(b) },
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ws.Close() }()
	told := func(what, text string) {
		t.Helper()
		for {
			select {
			case f := <-frames:
				if !json.Valid([]byte(f)) {
					t.Errorf("%s: a frame that is no JSON", what)
				}
				if strings.Contains(f, text) {
					return
				}
			case <-ws.Done():
				t.Fatalf("%s: the socket ended", what)
			}
		}
	}
	told("socket", "canary-9 word")
	polled := make(chan []string, 1)
	waiting := *d.alice
	go func() {
		var got []string
		for len(got) == 0 { // it may be woken by who comes and goes
			_, out := waiting.Do(t, "GET", "/_matrix/client/v3/sync?timeout=60000&since="+since, nil)
			got, since = bodies(apptest.At(out, "rooms", "join", d.sick, "timeline", "events")), out["next_batch"].(string)
		}
		polled <- got
	}()
	d.alice.Send(t, d.sick, "after the damage")
	told("live socket", "after the damage")
	d.same("long poll", <-polled, []string{"after the damage"})
}

// TestDamagedRows: rows that are damaged on the disk cost themselves and nothing else.
func TestDamagedRows(t *testing.T) {
	t.Parallel()
	d := newDamaged(t)
	operate(t, d.s, func(x *surgery) {
		x.damage(tables.Timeline, d.sick, isEvent(d.sick, d.text(3)), cut)
		x.damage(tables.Timeline, d.sick, isEvent(d.sick, d.text(4)), brokenIn)
		x.damage(tables.Timeline, d.sick, isEvent(d.sick, d.text(5)), noise)
		x.damage(tables.State, d.sick, isState(d.sick, event.TypeTopic, ""), noise)
		x.damage(tables.State, d.sick, isState(d.sick, event.TypeMember, d.carol.UserID), cut)
		x.damage(tables.Receipt, d.sick, sortHas(d.bob.UserID), emptied)
		x.damage(tables.AccountData, d.alice.UserID, sortHas("org.test.sick"), cut)
	})
	since := d.syncs(3, 4, 5)
	d.same("messages forwards", d.page("f"), but("canary-", " word", 3, 4, 5))
	d.same("messages backwards", d.page("b"), but("canary-", " word", 3, 4, 5))
	for _, i := range []int{3, 4, 5} {
		d.alice.Fails(t, "GET", d.path("event/"+d.text(i)), nil, http.StatusNotFound, "M_NOT_FOUND")
		d.alice.Fails(t, "GET", d.path("context/"+d.text(i)), nil, http.StatusNotFound, "M_NOT_FOUND")
	}
	around := d.alice.Must(t, "GET", d.path("context/"+d.text(6)+"?limit=4"), nil)
	d.same("context before", bodies(around["events_before"]), []string{"canary-2 word", "canary-1 word"})
	d.same("context after", bodies(around["events_after"]), []string{"canary-7 word", "canary-8 word"})
	found := d.alice.Must(t, "POST", "/_matrix/client/v3/search", apptest.Object{"search_categories": apptest.Object{
		"room_events": apptest.Object{"search_term": "word", "order_by": "recent"},
	}})
	if n := apptest.At(found, "search_categories", "room_events", "count"); n != 7.0 {
		t.Errorf("%v messages were found, want 7", n)
	}
	// State stands twice: what is damaged in one place is shown from the other.
	if got := d.alice.Must(t, "GET", d.path("state/m.room.topic"), nil); got["topic"] != "canary-topic" {
		t.Errorf("topic: %v", got)
	}
	for _, q := range []string{"members", "joined_members", "state"} {
		_, raw, _ := d.alice.Raw(t, "GET", d.path(q), nil)
		if !strings.Contains(string(raw), d.carol.UserID) {
			t.Errorf("%s is without carol: %s", q, raw)
		}
	}
	d.alice.Fails(t, "GET", d.dataPath("org.test.sick"), nil, http.StatusNotFound, "M_NOT_FOUND")
	if got := d.alice.Must(t, "GET", d.dataPath("org.test.well"), nil); got["value"] != "data" {
		t.Errorf("account data: %v", got)
	}
	d.follow(since)
	d.refuses()
	d.mends()
	d.logged()
}

// refuses: what would have to be decided by a damaged row is refused, and says so.
func (d *damaged) refuses() {
	t := d.t
	t.Helper()
	d.alice.Fails(t, "PUT", d.path("state/m.room.topic"), apptest.Object{"topic": "new"}, http.StatusConflict, "M_UNKNOWN")
	d.alice.Fails(t, "POST", d.path("ban"), apptest.Object{"user_id": d.carol.UserID}, http.StatusConflict, "M_UNKNOWN")
	d.carol.Fails(t, "PUT", d.path("send/m.room.message/1"), apptest.Object{"msgtype": "m.text", "body": "hi"}, http.StatusConflict, "M_UNKNOWN")
	d.alice.Fails(t, "PUT", d.path("redact/"+d.text(3)+"/1"), apptest.Object{}, http.StatusConflict, "M_UNKNOWN")
	d.bob.Send(t, d.sick, "bob is whole")
	d.carol.Send(t, d.well, "carol is whole there")
}

// mends: what nobody's rights rest on is written anew over the damage.
func (d *damaged) mends() {
	t := d.t
	t.Helper()
	d.bob.Must(t, "POST", d.path("receipt/m.read/"+d.text(9)), apptest.Object{})
	d.putData("org.test.sick", "mended")
	out := d.alice.Sync(t, "")
	_, raw, _ := d.alice.Raw(t, "GET", "/_matrix/client/v3/sync", nil)
	if !strings.Contains(string(raw), "mended") {
		t.Error("account data that was written anew is not synced")
	}
	receipts, _ := json.Marshal(apptest.At(out, "rooms", "join", d.sick, "ephemeral"))
	if strings.Count(string(receipts), d.bob.UserID) != 1 || !strings.Contains(string(receipts), d.text(9)) {
		t.Errorf("the receipt that was written anew: %s", receipts)
	}
}

// logged: each damaged row is told of once, by its place, and nothing of its content;
// fsck finds those of rooms.
func (d *damaged) logged() {
	t := d.t
	t.Helper()
	log := d.log.all()
	for kind, n := range map[string]int{"event": 3, "state": 2, "receipt": 1, "account_data": 1} {
		if got := strings.Count(log, "kind="+kind+" "); got != n {
			t.Errorf("%d lines about damaged rows of kind %s, want %d:\n%s", got, kind, n, log)
		}
	}
	if strings.Contains(log, "canary") || strings.Contains(log, "panic") || !strings.Contains(log, d.sick) {
		t.Errorf("the log: %s", log)
	}
	d.s.Stop()
	var out bytes.Buffer
	if err := app.Fsck(t.Context(), d.s.Config, &out); err == nil || strings.Count(out.String(), "malformed row") != 5 {
		t.Errorf("fsck: %v\n%s", err, out.String())
	}
}

// both damages a piece of state in the state and in the timeline.
func (x *surgery) both(in, typ, key string) {
	x.t.Helper()
	for _, table := range []storage.Table{tables.State, tables.Timeline} {
		x.damage(table, in, isState(in, typ, key), noise)
	}
}

// TestDamagedStateOpensNothing: state of which no copy is left is not taken for absent
// by those who decide. Reads of the rest go on.
func TestDamagedStateOpensNothing(t *testing.T) {
	t.Parallel()
	d := newDamaged(t)
	dave, erin := d.s.User(t, "dave"), d.s.User(t, "erin")
	d.alice.Must(t, "POST", d.path("ban"), apptest.Object{"user_id": dave.UserID})
	d.alice.Must(t, "PUT", d.path("state/m.room.history_visibility"), apptest.Object{"history_visibility": "joined"})
	d.alice.Send(t, d.sick, "secret")
	erin.Join(t, d.sick)
	operate(t, d.s, func(x *surgery) {
		x.both(d.sick, event.TypeHistoryVisibility, "")
		x.both(d.sick, event.TypePowerLevels, "")
		x.both(d.sick, event.TypeMember, dave.UserID)
		x.both(d.sick, event.TypeMember, d.bob.UserID)
	})
	// Who came later sees nothing of before, who was there sees all, who is banned or
	// whose membership is not known nothing.
	if got := erin.Must(t, "GET", d.path("messages?dir=b&limit=100"), nil); len(bodies(got["chunk"])) != 0 {
		t.Errorf("erin reads %q", bodies(got["chunk"]))
	}
	d.same("alice reads", d.page("b"), append(but("canary-", " word"), "secret"))
	for _, c := range []*apptest.Client{dave, d.bob} {
		c.Fails(t, "GET", d.path("messages?dir=b"), nil, http.StatusForbidden, "M_FORBIDDEN")
		c.Fails(t, "POST", d.path("join"), apptest.Object{}, http.StatusConflict, "M_UNKNOWN")
		c.Sync(t, "")
	}
	out := d.bob.Sync(t, "")
	d.same("bob's other room", bodies(apptest.At(out, "rooms", "join", d.well, "timeline", "events")), but("well ", ""))
	// Nobody gets power from levels that cannot be read.
	for _, c := range []*apptest.Client{d.alice, d.carol} {
		c.Fails(t, "PUT", d.path("send/m.room.message/9"), apptest.Object{"msgtype": "m.text", "body": "x"}, http.StatusConflict, "M_UNKNOWN")
		c.Fails(t, "PUT", d.path("state/m.room.name"), apptest.Object{"name": "x"}, http.StatusConflict, "M_UNKNOWN")
		c.Fails(t, "PUT", d.path("state/m.room.power_levels"), apptest.Object{}, http.StatusConflict, "M_UNKNOWN")
		c.Fails(t, "PUT", d.path("state/m.room.history_visibility"), apptest.Object{"history_visibility": "world_readable"}, http.StatusConflict, "M_UNKNOWN")
		c.Fails(t, "POST", d.path("upgrade"), apptest.Object{"new_version": "12"}, http.StatusConflict, "M_UNKNOWN")
		c.Fails(t, "PUT", "/_matrix/client/v3/directory/list/room/"+url.PathEscape(d.sick), apptest.Object{"visibility": "public"}, http.StatusConflict, "M_UNKNOWN")
		c.Sync(t, d.since)
	}
}

// TestDamagedElsewhere: other rows that syncs and consumers read.
func TestDamagedElsewhere(t *testing.T) {
	t.Parallel()
	d := newDamaged(t)
	third := d.alice.CreateRoom(t, apptest.Object{"name": "headless"})
	fourth := d.alice.CreateRoom(t, apptest.Object{"name": "forgotten by the list"})
	secret := d.alice.CreateRoom(t, apptest.Object{"initial_state": []any{apptest.Object{
		"type": event.TypeEncryption, "state_key": "", "content": apptest.Object{"algorithm": "m.megolm.v1.aes-sha2"},
	}}})
	relate := func(rel, text string) {
		d.alice.Must(t, "PUT", d.path("send/m.room.message/"+url.PathEscape(text)), apptest.Object{"msgtype": "m.text", "body": text, "m.relates_to": apptest.Object{
			"rel_type": rel, "event_id": d.text(9),
		}})
	}
	relate("m.thread", "in the thread")
	relate("m.reference", "a reference")
	relate("m.reference", "another")
	d.putData("m.push_rules.not", "x")
	d.alice.Must(t, "PUT", d.dataPath("m.ignored_user_list"), apptest.Object{"ignored_users": apptest.Object{}})
	for _, n := range []string{"1", "2"} {
		d.bob.Must(t, "PUT", "/_matrix/client/v3/sendToDevice/org.test/"+n, apptest.Object{"messages": apptest.Object{
			d.alice.UserID: apptest.Object{d.alice.Device: apptest.Object{"n": n}},
		}})
	}
	first := true
	operate(t, d.s, func(x *surgery) {
		all := func(storage.Entry) bool { return true }
		x.damage(tables.RoomHead, third, all, noise)
		x.both(secret, event.TypeEncryption, "")
		x.damage(tables.Membership, d.alice.UserID, sortHas(fourth), cut)
		x.damage(tables.AccountData, d.alice.UserID, sortHas("m.ignored_user_list"), noise)
		x.damage(tables.Relation, d.sick, func(storage.Entry) bool { was := first; first = false; return was }, noise)
		x.damage(tables.EventIndex, d.sick, all, emptied)
		x.damage(tables.Stream, d.alice.UserID, func(row storage.Entry) bool { return strings.Contains(string(row.Value), "org.test") }, cut)
		one := true
		x.damage(tables.Inbox, d.alice.UserID, func(storage.Entry) bool { was := one; one = false; return was }, cut)
	})
	out := d.alice.Must(t, "GET", "/_matrix/client/v3/sync?filter="+url.QueryEscape(big), nil)
	d.same("other room", bodies(apptest.At(out, "rooms", "join", d.well, "timeline", "events")), but("well ", ""))
	if got, _ := apptest.At(out, "to_device", "events").([]any); len(got) != 1 {
		t.Errorf("to-device messages: %v", got)
	}
	d.alice.Sync(t, d.since)
	d.alice.Do(t, "GET", "/_matrix/client/v3/rooms/"+url.PathEscape(third)+"/messages?dir=b", nil)
	d.alice.Do(t, "GET", "/_matrix/client/v3/joined_rooms", nil)
	d.alice.Fails(t, "PUT", "/_matrix/client/v3/rooms/"+url.PathEscape(third)+"/send/m.room.message/1", apptest.Object{"msgtype": "m.text", "body": "x"},
		http.StatusConflict, "M_UNKNOWN")
	d.alice.Fails(t, "GET", "/_matrix/client/v1/rooms/"+url.PathEscape(d.sick)+"/relations/$"+d.sick[1:], nil, http.StatusNotFound, "M_NOT_FOUND")
	// The room that would follow would not be encrypted.
	d.alice.Fails(t, "POST", "/_matrix/client/v3/rooms/"+url.PathEscape(secret)+"/upgrade", apptest.Object{"new_version": "12"}, http.StatusConflict, "M_UNKNOWN")
	// The list of rooms that lost one learns of it with the next change.
	d.alice.Must(t, "POST", "/_matrix/client/v3/rooms/"+url.PathEscape(fourth)+"/leave", apptest.Object{})
	d.alice.Sync(t, out["next_batch"].(string))
	if strings.Contains(d.log.all(), "panic") {
		t.Error(d.log.all())
	}
}
