package app_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hubbub-chat/hubbub/internal/account"
	"github.com/hubbub-chat/hubbub/internal/app"
	"github.com/hubbub-chat/hubbub/internal/app/apptest"
	"github.com/hubbub-chat/hubbub/internal/config"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/room"
	"github.com/hubbub-chat/hubbub/internal/storage"
	"github.com/hubbub-chat/hubbub/internal/storage/pebblestore"
	"github.com/hubbub-chat/hubbub/internal/tables"
)

// lines are JSON lines.
func lines(list ...any) string {
	var b strings.Builder
	for _, v := range list {
		line, err := json.Marshal(v)
		if err != nil {
			panic(err) // it is the test's own
		}
		b.Write(append(line, '\n'))
	}
	return b.String()
}

func importLines(t *testing.T, cfg config.Config, text string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	err := app.Import(t.Context(), cfg, app.ImportOptions{File: "-", In: strings.NewReader(text)}, &out)
	return out.String(), err
}

// stopped is a server of no data that does not run.
func stopped(t *testing.T, changes ...func(*config.Config)) *apptest.Server {
	t.Helper()
	s := apptest.Start(t, changes...)
	s.Stop()
	return s
}

// An imported room has the rows of one that was made by requests of clients, and its
// members have theirs: all rows, and no other.
func TestImportWritesTheSameRows(t *testing.T) {
	made := apptest.Start(t)
	alice, bob := made.User(t, "alice"), made.User(t, "bob")
	id := alice.CreateRoom(t, apptest.Object{
		"preset": "public_chat", "visibility": "public", "name": "Lobby", "topic": "Come in", "room_alias_name": "lobby",
		"initial_state": []apptest.Object{{"type": "m.room.history_visibility", "content": apptest.Object{"history_visibility": "world_readable"}}},
	})
	bob.Join(t, id)
	bob.Send(t, id, "hello")
	alice.Must(t, "PUT", "/_matrix/client/v3/rooms/"+id+"/state/m.room.topic", apptest.Object{"topic": "Stay"})
	secret := alice.CreateRoom(t, apptest.Object{"preset": "private_chat", "invite": []string{bob.UserID}})
	bob.Join(t, secret)
	made.Stop()
	want := dump(t, made)

	copied := stopped(t)
	text := lines(apptest.Object{"user": "alice"}, apptest.Object{"user": bob.UserID})
	for _, r := range []struct {
		id   string
		line apptest.Object
	}{
		{id, apptest.Object{
			"preset": "public_chat", "public": true, "name": "Lobby", "topic": "Come in", "alias": "lobby",
			"state": []apptest.Object{{"type": "m.room.history_visibility", "content": apptest.Object{"history_visibility": "world_readable"}}},
		}},
		{secret, apptest.Object{"preset": "private_chat"}},
	} {
		events := want.events[ids.RoomID(r.id)]
		r.line["room"], r.line["creator"], r.line["ts"] = r.id[1:], "alice", events[0].OriginServerTS
		text += lines(r.line)
		for _, s := range events {
			if s.Depth > want.first[r.id] {
				text += lines(eventLine(r.id[1:], s))
			}
		}
	}
	if out, err := importLines(t, copied.Config, text); err != nil {
		t.Fatalf("%v\n%s\n%s", err, out, text)
	}
	have := dump(t, copied)
	for _, table := range slices.Sorted(maps.Keys(want.rows)) {
		if a, b := want.rows[table], have.rows[table]; !slices.Equal(a, b) {
			t.Errorf("table %d: imported\n%s\nmade by clients\n%s", table, strings.Join(b, "\n"), strings.Join(a, "\n"))
		}
	}
	for table := range have.rows {
		if want.rows[table] == nil {
			t.Errorf("table %d: %q", table, have.rows[table])
		}
	}
	if a, b := fsck(t, made.Config), fsck(t, copied.Config); a != b {
		t.Errorf("fsck: %s, want %s", b, a)
	}
}

// eventLine is the line of an event as a server has it.
func eventLine(room string, s *room.Stored) apptest.Object {
	line := apptest.Object{
		"event": s.Type, "room": room, "sender": s.Sender, "ts": s.OriginServerTS, "content": json.RawMessage(s.Content),
	}
	if s.StateKey != nil {
		line["state_key"] = *s.StateKey
	}
	return line
}

// dumped is what a store has, with nothing in it of when and in which order it was
// written by different rooms.
type dumped struct {
	rows   map[storage.Table][]string
	events map[ids.RoomID][]*room.Stored
	// first is the depth of the last event that a room was created with.
	first map[string]int64
}

// apart are tables that differ since a client has a device, numbers its requests and
// starts a server, whose followers go through the log.
var apart = []storage.Table{
	tables.Log, tables.Outbox, tables.Cursor, tables.ConsumerCursor, tables.Txn, tables.Device, tables.Token,
	tables.SearchRecent, tables.SearchSegment,
}

func dump(t *testing.T, s *apptest.Server) dumped {
	t.Helper()
	store, err := pebblestore.Open(filepath.Join(s.Config.Server.DataDir, "store"), pebblestore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	d := dumped{map[storage.Table][]string{}, map[ids.RoomID][]*room.Stored{}, map[string]int64{}}
	var all []storage.Row
	for p := range s.Config.Server.Partitions {
		rows, err := store.ScanPartition(t.Context(), storage.Key{Partition: ids.Partition(p)}, storage.MaxScan)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, rows...)
	}
	for _, r := range all { // the events come first: others name their positions
		if r.Key.Table == tables.Timeline {
			e, err := room.DecodeStored(ids.RoomID(r.Key.Entity), r.Value)
			if err != nil {
				t.Fatal(err)
			}
			d.events[e.RoomID] = append(d.events[e.RoomID], e)
			if e.OriginServerTS == d.events[e.RoomID][0].OriginServerTS && e.StateKey != nil && *e.StateKey != "@bob:"+apptest.Name {
				d.first[r.Key.Entity] = e.Depth
			}
		}
	}
	reader := room.NewReader(store, s.Config.Server.Partitions)
	for _, r := range all {
		if slices.Contains(apart, r.Key.Table) {
			continue
		}
		line := fmt.Sprintf("%q %q %s", r.Key.Entity, r.Key.Sort, r.Value)
		switch r.Key.Table {
		case tables.Timeline, tables.State:
			e, err := room.DecodeStored(ids.RoomID(r.Key.Entity), r.Value)
			if err != nil {
				t.Fatal(err)
			}
			full := e.Full()
			full.ContentHash = [32]byte{} // it depends on the IDs before, and fsck checks it
			line = d.place(r.Key.Entity, e.Seq) + d.place(r.Key.Entity, e.Replaces) + string(e.PrevContent) + fmt.Sprintf("%+v", full)
			if r.Key.Table == tables.State {
				line = r.Key.Sort + line
			}
			line = strings.ReplaceAll(line, fmt.Sprint(e.StateKey), e.Type) // an address
		case tables.EventIndex:
			line = fmt.Sprintf("%q", r.Key.Sort) + d.place(r.Key.Entity, tables.SortSeq(string(r.Value)))
		case tables.StateLog:
			line = d.place(r.Key.Entity, tables.SortSeq(r.Key.Sort)) + string(r.Value)
		case tables.RoomHead:
			h, err := reader.Head(t.Context(), ids.RoomID(r.Key.Entity))
			if err != nil {
				t.Fatal(err)
			}
			line = d.place(r.Key.Entity, h.Last)
			h.Last = 0
			line += fmt.Sprintf("%+v", h)
		case tables.Membership, tables.Account:
			line = r.Key.Entity + r.Key.Sort + without(t, r.Value, "seq", "room_seq", "joined", "created_ts", "password_hash", "logins")
		case tables.Stream:
			if c, err := account.DecodeChange(0, r.Value); err != nil || c.Kind != account.ChangeMembership {
				continue
			}
			line = r.Key.Entity + without(t, r.Value, "q", "j")
		}
		d.rows[r.Key.Table] = append(d.rows[r.Key.Table], line)
	}
	byPlace := d.byPlace()
	for _, list := range d.rows {
		for i, line := range list {
			list[i] = byPlace.Replace(line)
		}
		slices.Sort(list)
	}
	return d
}

// byPlace replaces event IDs, which hold positions, by the events' places in their rooms.
func (d dumped) byPlace() *strings.Replacer {
	var pairs []string
	for id, events := range d.events {
		for _, e := range events {
			pairs = append(pairs, string(e.ID), d.place(string(id), e.Seq))
		}
	}
	return strings.NewReplacer(pairs...)
}

// place is a position as a place among the events of its room.
func (d dumped) place(id string, s ids.Seq) string {
	return fmt.Sprint(" #", slices.IndexFunc(d.events[ids.RoomID(id)], func(e *room.Stored) bool { return e.Seq == s }), " ")
}

// without is a JSON object without some of its members.
func without(t *testing.T, row []byte, names ...string) string {
	t.Helper()
	var o map[string]any
	if err := json.Unmarshal(row, &o); err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		delete(o, name)
	}
	b, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// What was imported is used by clients as anything else: by password, in the room
// list, in history and in a search.
func TestImportIsUsed(t *testing.T) {
	members := []string{"bob"}
	text := lines(
		apptest.Object{"user": "alice", "display_name": "Alice A.", "password": apptest.Password, "admin": true},
		apptest.Object{"user": "bob"},
	)
	for i := range 2*room.MaxImport + 7 {
		name := fmt.Sprint("m", i)
		members = append(members, name)
		text += lines(apptest.Object{"user": name})
	}
	text += lines(
		apptest.Object{"room": "open", "creator": "bob", "preset": "public_chat", "members": append(members[1:], "alice")},
		apptest.Object{"room": "closed", "creator": "bob", "preset": "none", "version": "10", "members": []string{"alice"}},
		apptest.Object{"user": "late"}, // behind rooms
		apptest.Object{"event": "m.room.member", "room": "open", "sender": "late", "state_key": "@late:" + apptest.Name, "content": apptest.Object{"membership": "join"}},
	)
	const said = 300
	for i := range said {
		for _, name := range []string{"open", "closed"} {
			text += lines(apptest.Object{
				"event": "m.room.message", "room": name, "sender": "bob", "ts": 1_700_000_000_000 + i,
				"content": apptest.Object{"msgtype": "m.text", "body": fmt.Sprintf("word%d in %s", i, name)},
			})
		}
	}
	s := stopped(t)
	out, err := importLines(t, s.Config, text)
	if want := fmt.Sprintf("%d users, 2 rooms, %d events", len(members)+2, 2*said+1); err != nil || !strings.Contains(out, want) {
		t.Fatalf("%v, %s, want %s", err, out, want)
	}
	fsck(t, s.Config)
	s.Restart(t)
	alice := (&apptest.Client{Server: s, HTTP: s.Anonymous().HTTP, UserID: "@alice:" + apptest.Name}).Login(t)
	alice.Must(t, "GET", "/_synapse/admin/v2/users/@late:"+apptest.Name, nil)
	rooms := alice.Must(t, "GET", "/_matrix/client/v3/joined_rooms", nil)["joined_rooms"].([]any)
	if len(rooms) != 2 {
		t.Fatalf("alice is in %v", rooms)
	}
	joined := map[int]bool{}
	for _, id := range rooms {
		in := alice.Must(t, "GET", "/_matrix/client/v3/rooms/"+id.(string)+"/joined_members", nil)["joined"].(map[string]any)
		joined[len(in)] = true
		if name := in["@alice:"+apptest.Name].(map[string]any)["display_name"]; name != "Alice A." {
			t.Errorf("alice is called %v", name)
		}
		page := alice.Must(t, "GET", "/_matrix/client/v3/rooms/"+id.(string)+"/messages?dir=b&limit=2", nil)["chunk"].([]any)
		for i, e := range page {
			got := e.(map[string]any)
			body := got["content"].(map[string]any)["body"].(string)
			if !strings.HasPrefix(body, fmt.Sprintf("word%d ", said-1-i)) || got["origin_server_ts"] != float64(1_700_000_000_000+said-1-i) {
				t.Errorf("%d from the end: %v", i, got)
			}
		}
		alice.Send(t, id.(string), "here")
	}
	if !maps.Equal(joined, map[int]bool{2: true, len(members) + 2: true}) {
		t.Errorf("rooms of %v members", joined)
	}
	found := alice.Must(t, "POST", "/_matrix/client/v3/search", apptest.Object{
		"search_categories": apptest.Object{"room_events": apptest.Object{"search_term": "word299"}},
	})["search_categories"].(map[string]any)["room_events"].(map[string]any)["count"]
	if found != 2.0 {
		t.Errorf("%v events found", found)
	}
}

// Unsearched leaves out of the index what is imported, and nothing that comes later.
func TestImportUnsearched(t *testing.T) {
	s := stopped(t)
	text := lines(
		apptest.Object{"user": "alice", "password": apptest.Password},
		apptest.Object{"room": "r", "creator": "alice"},
		apptest.Object{"event": "m.room.message", "room": "r", "sender": "alice", "content": apptest.Object{"msgtype": "m.text", "body": "needle"}},
	)
	o := app.ImportOptions{File: "-", In: strings.NewReader(text), Unsearched: true}
	if err := app.Import(t.Context(), s.Config, o, &bytes.Buffer{}); err != nil {
		t.Fatal(err)
	}
	s.Restart(t)
	alice := (&apptest.Client{Server: s, HTTP: s.Anonymous().HTTP, UserID: "@alice:" + apptest.Name}).Login(t)
	id := alice.Must(t, "GET", "/_matrix/client/v3/joined_rooms", nil)["joined_rooms"].([]any)[0].(string)
	want := alice.Send(t, id, "a needle again")
	results := alice.Must(t, "POST", "/_matrix/client/v3/search", apptest.Object{
		"search_categories": apptest.Object{"room_events": apptest.Object{"search_term": "needle"}},
	})["search_categories"].(map[string]any)["room_events"].(map[string]any)["results"].([]any)
	if len(results) != 1 || results[0].(map[string]any)["result"].(map[string]any)["event_id"] != want {
		t.Errorf("found %v, want %s", results, want)
	}
}

// An import that cannot be done says in which line, and what is wrong with it.
func TestImportRefuses(t *testing.T) {
	const hash = "$argon2id$v=19$m=64,t=1,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
	begin := lines(
		apptest.Object{"user": "alice", "password_hash": hash}, apptest.Object{"user": "bob"},
		apptest.Object{"room": "r", "creator": "alice", "alias": "taken", "ts": 5},
		apptest.Object{"room": "same", "creator": "alice", "ts": 5, "alias": "other"}, // of one millisecond, so that one gets a word more
		apptest.Object{"user": "dora"}, // rooms wait until she is there, and she until the lines above are done
	)
	say := func(o apptest.Object) apptest.Object {
		all := apptest.Object{"event": "m.room.message", "room": "r", "sender": "alice", "content": apptest.Object{"body": "x"}}
		maps.Copy(all, o)
		return all
	}
	for what, tt := range map[string]struct {
		line any
		want string
	}{
		"no JSON":                {json.RawMessage(`"x"`), "line 6: "},
		"unknown member":         {apptest.Object{"user": "c", "colour": "red"}, "colour"},
		"no kind":                {apptest.Object{"creator": "alice"}, "one of user, room"},
		"two kinds":              {apptest.Object{"user": "c", "room": "r"}, "one of user, room"},
		"user twice":             {apptest.Object{"user": "bob"}, "M_USER_IN_USE"},
		"no name":                {apptest.Object{"user": "Bob"}, "may not be part of a localpart"},
		"elsewhere":              {apptest.Object{"user": "@c:elsewhere"}, "not of " + apptest.Name},
		"bad hash":               {apptest.Object{"user": "c", "password_hash": "$2b$12$x"}, "malformed password hash"},
		"two passwords":          {apptest.Object{"user": "c", "password": "x", "password_hash": hash}, "exclude"},
		"room twice":             {apptest.Object{"room": "r", "creator": "alice"}, "there already"},
		"no creator":             {apptest.Object{"room": "s", "creator": "carol"}, "there is no user @carol"},
		"unknown version":        {apptest.Object{"room": "s", "creator": "alice", "version": "99"}, "not supported"},
		"unknown preset":         {apptest.Object{"room": "s", "creator": "alice", "preset": "x"}, "Unknown preset"},
		"taken alias":            {apptest.Object{"room": "s", "creator": "alice", "alias": "taken"}, "taken"},
		"no alias":               {apptest.Object{"room": "s", "creator": "alice", "alias": strings.Repeat("x", 300)}, "alias"},
		"bad state":              {apptest.Object{"room": "s", "creator": "alice", "state": []apptest.Object{{"type": "m.room.create", "content": apptest.Object{}}}}, "its own line"},
		"missing member":         {apptest.Object{"room": "s", "creator": "alice", "members": []string{"bob", "carol"}}, "there is no user @carol"},
		"member twice":           {apptest.Object{"room": "s", "creator": "alice", "members": []string{"bob", "bob"}}, "member @bob"},
		"unknown room":           {say(apptest.Object{"room": "x"}), `no line before this one makes the room "x"`},
		"room that is not there": {say(apptest.Object{"room": "!x"}), "M_FORBIDDEN"},
		"not in the room":        {say(apptest.Object{"sender": "bob"}), "You are not in this room"},
		"no content":             {apptest.Object{"event": "m.x", "room": "r", "sender": "alice"}, "needs a content"},
		"content is no object":   {say(apptest.Object{"content": 5}), "line 6: "},
		"redaction":              {say(apptest.Object{"event": "m.room.redaction"}), "redaction is not imported"},
		"alias as event":         {say(apptest.Object{"event": "m.room.canonical_alias", "state_key": ""}), "line of its room"},
		"relation":               {say(apptest.Object{"content": apptest.Object{"m.relates_to": apptest.Object{"rel_type": "m.replace", "event_id": "$x"}}}), "relates to another"},
		"bad power levels":       {say(apptest.Object{"event": "m.room.power_levels", "state_key": "", "content": apptest.Object{"users": 1}}), "line 6: "},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			s := stopped(t)
			_, err := importLines(t, s.Config, begin+lines(tt.line)+lines(say(nil)))
			refuses(t, what, err, tt.want)
			refuses(t, what, err, "line 6: ")
			fsck(t, s.Config)
		})
	}
}

func TestImportNeedsAStoppedServer(t *testing.T) {
	s := apptest.Start(t)
	_, err := importLines(t, s.Config, "")
	refuses(t, "a server that runs", err, "in use")
	err = app.Import(t.Context(), s.Config, app.ImportOptions{File: filepath.Join(t.TempDir(), "none")}, &bytes.Buffer{})
	refuses(t, "no file", err, "no such file")
}

// An event in the middle of many that are done together is named by its line.
func TestImportNamesTheLine(t *testing.T) {
	s := stopped(t)
	text := lines(apptest.Object{"user": "alice"}, apptest.Object{"user": "bob"}, apptest.Object{"room": "r", "creator": "alice"})
	for i := range 100 {
		sender := "alice"
		if i == 57 {
			sender = "bob"
		}
		text += lines(apptest.Object{"event": "m.x", "room": "r", "sender": sender, "ts": time.Now().UnixMilli(), "content": apptest.Object{}})
	}
	_, err := importLines(t, s.Config, text)
	refuses(t, "bob", err, "line 61: ")
}
