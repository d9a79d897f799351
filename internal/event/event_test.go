package event

import (
	"bytes"
	"errors"
	"strings"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"github.com/hubbub-chat/hubbub/internal/ids"
)

// golden are PDUs and IDs computed by another program (Python's json and
// hashlib, after the text of the specification). They are what is on disk: if
// this test fails, rooms break.
func golden() []struct{ version, pdu, id string } {
	return []struct{ version, pdu, id string }{
		{"10", `{"auth_events":["$a","$b"],"content":{"body":"héllo \"you\"\n","msgtype":"m.text"},"depth":7,"hashes":{"sha256":"3RvACvwLtF6ivtCFjikfVGfP1Y2xW9Px+FW/aedn0VI"},"origin_server_ts":1700000000000,"prev_events":["$prev"],"room_id":"!room:example.org","sender":"@alice:example.org","type":"m.room.message"}`, "$caz9O0r6BBizdiS-JrZ5YkbYMFYhZ7fU8eeQL2yY6XE"},
		{"10", `{"auth_events":["$a","$b"],"content":{"displayname":"B","membership":"invite","third_party_invite":{"display_name":"b","signed":{"mxid":"@bob:example.org","token":"t"}}},"depth":7,"hashes":{"sha256":"8GIcI1TeDW7kchxHKZ9X6e6K3UeP6r5YeXILgFrdX5w"},"origin_server_ts":1700000000000,"prev_events":["$prev"],"room_id":"!room:example.org","sender":"@alice:example.org","state_key":"@bob:example.org","type":"m.room.member"}`, "$epkroz4XRGKcKg020ogAfYRqBFbUx7vbiZf0CIDZdtA"},
		{"10", `{"auth_events":["$a","$b"],"content":{"reason":"r"},"depth":7,"hashes":{"sha256":"N7GmBhXQ3EJRv7paIoR1sKV+AhfL9tQfa6G+4vTz8PI"},"origin_server_ts":1700000000000,"prev_events":["$prev"],"redacts":"$x","room_id":"!room:example.org","sender":"@alice:example.org","type":"m.room.redaction"}`, "$Z-DqjwCYaxG1Oxy4xVDUazYqo3A-ykLiBDIw1Ns84PQ"},
		{"10", `{"auth_events":[],"content":{"creator":"@alice:example.org","room_version":"10","type":"m.space"},"depth":1,"hashes":{"sha256":"KxAEBCuxIaQ9BWNRKAk7r3JarlpkXGkPWQ2LL5lCu+Y"},"origin_server_ts":1700000000000,"prev_events":[],"room_id":"!room:example.org","sender":"@alice:example.org","state_key":"","type":"m.room.create"}`, "$LogECCqEDRmUwOMpudblpXXxXOACLqRYHJVpCWHXNO0"},
		{"11", `{"auth_events":["$a","$b"],"content":{"body":"héllo \"you\"\n","msgtype":"m.text"},"depth":7,"hashes":{"sha256":"3RvACvwLtF6ivtCFjikfVGfP1Y2xW9Px+FW/aedn0VI"},"origin_server_ts":1700000000000,"prev_events":["$prev"],"room_id":"!room:example.org","sender":"@alice:example.org","type":"m.room.message"}`, "$caz9O0r6BBizdiS-JrZ5YkbYMFYhZ7fU8eeQL2yY6XE"},
		{"11", `{"auth_events":["$a","$b"],"content":{"displayname":"B","membership":"invite","third_party_invite":{"display_name":"b","signed":{"mxid":"@bob:example.org","token":"t"}}},"depth":7,"hashes":{"sha256":"8GIcI1TeDW7kchxHKZ9X6e6K3UeP6r5YeXILgFrdX5w"},"origin_server_ts":1700000000000,"prev_events":["$prev"],"room_id":"!room:example.org","sender":"@alice:example.org","state_key":"@bob:example.org","type":"m.room.member"}`, "$Avnq9ZMCyfkavlRBar5g6QLV0G9KfS_JBMk_A_kiUMA"},
		{"11", `{"auth_events":["$a","$b"],"content":{"reason":"r","redacts":"$x"},"depth":7,"hashes":{"sha256":"gu7mS2aZMoOnbl8CZn4a6+VyjP18JQtZa81ChugxzlE"},"origin_server_ts":1700000000000,"prev_events":["$prev"],"room_id":"!room:example.org","sender":"@alice:example.org","type":"m.room.redaction"}`, "$v570c76_MmRcrgHlKU4tawDIm6zzfzuTawE4hLXV5LM"},
		{"11", `{"auth_events":[],"content":{"creator":"@alice:example.org","room_version":"11","type":"m.space"},"depth":1,"hashes":{"sha256":"9spMuV34KSntD4gEAEYqyqi9UwKChO92Wgst1eo44eY"},"origin_server_ts":1700000000000,"prev_events":[],"room_id":"!room:example.org","sender":"@alice:example.org","state_key":"","type":"m.room.create"}`, "$jNa-_XE3NOnF21Us0uQCpxr-BT8-6D4HXzQttftIEaE"},
		{"12", `{"auth_events":["$a","$b"],"content":{"body":"héllo \"you\"\n","msgtype":"m.text"},"depth":7,"hashes":{"sha256":"VMLndsiXVdwaXktGu6ZNTSsjkxeCcBE0Pk5UqbsOoGU"},"origin_server_ts":1700000000000,"prev_events":["$prev"],"room_id":"!room","sender":"@alice:example.org","type":"m.room.message"}`, "$vPT04RRXPRB0-B__hWkfoqGNx_trAYYgYK3Pq_f8FXM"},
		{"12", `{"auth_events":["$a","$b"],"content":{"displayname":"B","membership":"invite","third_party_invite":{"display_name":"b","signed":{"mxid":"@bob:example.org","token":"t"}}},"depth":7,"hashes":{"sha256":"BkAk593d86fMypR+NC78vMW8OBWs6lRMwDXxlwD14Ag"},"origin_server_ts":1700000000000,"prev_events":["$prev"],"room_id":"!room","sender":"@alice:example.org","state_key":"@bob:example.org","type":"m.room.member"}`, "$-er54ZMtKoZS0cT5Mbh86XNVJbsth_t5ubxGoWdkbGY"},
		{"12", `{"auth_events":["$a","$b"],"content":{"reason":"r","redacts":"$x"},"depth":7,"hashes":{"sha256":"KIAu47Mor4jXMdv8i2luhfSXhBBRSWITnbNLz1jVskU"},"origin_server_ts":1700000000000,"prev_events":["$prev"],"room_id":"!room","sender":"@alice:example.org","type":"m.room.redaction"}`, "$gYGUgTxIPa4J31sYUUVxc-3ss6Isn1ixqqgZ8M2Dmc4"},
		{"12", `{"auth_events":[],"content":{"creator":"@alice:example.org","room_version":"12","type":"m.space"},"depth":1,"hashes":{"sha256":"UKqzbyy3KXXEH71ABz9NW3Du+3PdshSLCtqCEiX9s5U"},"origin_server_ts":1700000000000,"prev_events":[],"sender":"@alice:example.org","state_key":"","type":"m.room.create"}`, "$3V3GrgQEY7uf_vINCkPFTWUs0v4D8AtdAVCjocS1dF0"},
	}
}

func version(t testing.TB, id string) Version {
	v, ok := Lookup(id)
	if !ok {
		t.Fatalf("no version %s", id)
	}
	return v
}

func TestGoldenEvents(t *testing.T) {
	for _, g := range golden() {
		t.Run(g.version+g.id, func(t *testing.T) {
			v := version(t, g.version)
			e, err := ParsePDU(v, ids.EventID(g.id), []byte(g.pdu))
			if err != nil {
				t.Fatal(err)
			}
			if err := e.Verify(v, 0); err != nil {
				t.Error(err)
			}
			if got := string(e.AppendPDU(nil, v)); got != g.pdu {
				t.Errorf("PDU\n got %s\nwant %s", got, g.pdu)
			}
			again := &Event{
				RoomID: e.RoomID, Type: e.Type, StateKey: e.StateKey, Sender: e.Sender, Content: e.Content,
				OriginServerTS: e.OriginServerTS, PrevEvents: e.PrevEvents, AuthEvents: e.AuthEvents,
				Depth: e.Depth, Redacts: e.Redacts,
			}
			if err := again.Seal(v, 0); err != nil {
				t.Fatal(err)
			}
			if string(again.ID) != g.id || again.ContentHash != e.ContentHash {
				t.Errorf("sealed as %s, want %s", again.ID, g.id)
			}
			if v.RoomIDFromCreate && e.Type == TypeCreate && again.RoomID != ids.RoomID("!"+g.id[1:]) {
				t.Errorf("room ID %s of event %s", again.RoomID, g.id)
			}
			if e.Type == TypeRedaction && e.Redacts != "$x" {
				t.Errorf("redacts %q", e.Redacts)
			}
		})
	}
}

func TestRedactionKeepsTheID(t *testing.T) {
	for _, g := range golden() {
		v := version(t, g.version)
		e, err := ParsePDU(v, ids.EventID(g.id), []byte(g.pdu))
		if err != nil {
			t.Fatal(err)
		}
		r := Redact(v, e)
		if err = r.Verify(v, 0); errors.Is(err, ErrHash) {
			t.Errorf("%s %s: redacted: %v", g.version, e.Type, err)
		}
		if changed := !bytes.Equal(r.Content, e.Content) || r.Redacts != e.Redacts; changed != errors.Is(err, ErrContentHash) {
			t.Errorf("%s %s: changed %v, verify says %v", g.version, e.Type, changed, err)
		}
		if twice := Redact(v, r); !bytes.Equal(twice.AppendPDU(nil, v), r.AppendPDU(nil, v)) {
			t.Errorf("%s %s: redacting twice is not redacting once", g.version, e.Type)
		}
	}
}

// What redaction keeps where versions differ. spec: rooms/v1, v6, v8, v9, v11.
func TestRedactionByVersion(t *testing.T) {
	const all = `{"aliases":["#a:b"],"allow":[],"ban":50,"invite":50,"join_authorised_via_users_server":"@a:b","join_rule":"x","membership":"join","third_party_invite":{"signed":{},"x":1}}`
	for _, tc := range []struct{ versions, eventType, want string }{
		{"1 2 3 4 5", "m.room.aliases", `{"aliases":["#a:b"]}`},
		{"6 7 8 9 10 11 12", "m.room.aliases", `{}`},
		{"1 2 3 4 5 6 7", TypeJoinRules, `{"join_rule":"x"}`},
		{"8 9 10 11 12", TypeJoinRules, `{"allow":[],"join_rule":"x"}`},
		{"1 2 3 4 5 6 7 8", TypeMember, `{"membership":"join"}`},
		{"9 10", TypeMember, `{"join_authorised_via_users_server":"@a:b","membership":"join"}`},
		{"11 12", TypeMember, `{"join_authorised_via_users_server":"@a:b","membership":"join","third_party_invite":{"signed":{}}}`},
		{"1 2 3 4 5 6 7 8 9 10", TypePowerLevels, `{"ban":50}`},
		{"11 12", TypePowerLevels, `{"ban":50,"invite":50}`},
	} {
		for _, id := range strings.Fields(tc.versions) {
			r := Redact(version(t, id), &Event{Type: tc.eventType, Content: []byte(all)})
			if string(r.Content) != tc.want {
				t.Errorf("version %s: %s keeps %s, want %s", id, tc.eventType, r.Content, tc.want)
			}
		}
	}
}

// An ID that holds a position says it, and is true there alone.
func TestPosition(t *testing.T) {
	v := Default()
	for _, at := range []ids.Seq{1, 255, 1 << 40, 1<<64 - 1} {
		e := &Event{RoomID: "!r", Type: TypeMessage, Sender: "@a:b", Content: []byte(`{}`)}
		if err := e.Seal(v, at); err != nil {
			t.Fatal(err)
		}
		if got := Position(e.ID); got != at || len(e.ID) != 44 {
			t.Errorf("%s holds position %d, not %d", e.ID, got, at)
		}
		if err := e.Verify(v, at); err != nil {
			t.Error(err)
		}
		if err := e.Verify(v, at-1); !errors.Is(err, ErrHash) {
			t.Errorf("%s at %d: %v", e.ID, at-1, err)
		}
		e.Sender = "@eve:b"
		if err := e.Verify(v, at); !errors.Is(err, ErrHash) {
			t.Errorf("of another sender: %v", err)
		}
	}
	for _, id := range []ids.EventID{"", "$x", ids.EventID("$" + strings.Repeat("*", 43))} {
		if got := Position(id); got != 0 {
			t.Errorf("%q holds position %d", id, got)
		}
	}
}

func TestVerifyFindsAlteration(t *testing.T) {
	v := Default()
	key := "@bob:example.org"
	fresh := func() *Event {
		e := &Event{
			RoomID: "!r", Type: TypeMember, StateKey: &key, Sender: "@a:b", OriginServerTS: 5, Depth: 3,
			Content:    []byte(`{"displayname":"B","membership":"join"}`),
			PrevEvents: []ids.EventID{"$p"}, AuthEvents: []ids.EventID{"$x", "$y"},
		}
		if err := e.Seal(v, 0); err != nil {
			t.Fatal(err)
		}
		return e
	}
	if err := fresh().Verify(v, 0); err != nil {
		t.Fatal(err)
	}
	other := "@eve:example.org"
	for name, alter := range map[string]func(*Event){
		"room":         func(e *Event) { e.RoomID = "!s" },
		"type":         func(e *Event) { e.Type = "m.room.members" },
		"state key":    func(e *Event) { e.StateKey = &other },
		"no state key": func(e *Event) { e.StateKey = nil },
		"sender":       func(e *Event) { e.Sender = "@a:c" },
		"time":         func(e *Event) { e.OriginServerTS++ },
		"depth":        func(e *Event) { e.Depth++ },
		"previous":     func(e *Event) { e.PrevEvents = []ids.EventID{"$q"} },
		"auth order":   func(e *Event) { e.AuthEvents = []ids.EventID{"$y", "$x"} },
		"kept content": func(e *Event) { e.Content = []byte(`{"displayname":"B","membership":"ban"}`) },
		"content hash": func(e *Event) { e.ContentHash[31] ^= 1 },
		"ID":           func(e *Event) { e.ID = "$other" },
	} {
		e := fresh()
		alter(e)
		if err := e.Verify(v, 0); !errors.Is(err, ErrHash) {
			t.Errorf("%s altered: %v", name, err)
		}
	}
	e := fresh()
	e.Content = []byte(`{"displayname":"C","membership":"join"}`)
	if err := e.Verify(v, 0); !errors.Is(err, ErrContentHash) {
		t.Errorf("display name altered: %v", err)
	}
}

func TestSizeLimits(t *testing.T) {
	v := Default()
	long := func(n int) string { return strings.Repeat("x", n) }
	seal := func(edit func(*Event)) error {
		e := &Event{RoomID: "!r", Type: TypeMessage, Sender: "@a:b", Content: []byte(`{}`)}
		edit(e)
		return e.Seal(v, 0)
	}
	at, over := long(MaxFieldSize), long(MaxFieldSize+1)
	for name, tc := range map[string]struct {
		edit func(*Event)
		want error
	}{
		"type at the limit":     {func(e *Event) { e.Type = at }, nil},
		"type over it":          {func(e *Event) { e.Type = over }, ErrTooLarge},
		"state key at it":       {func(e *Event) { e.StateKey = &at }, nil},
		"state key over it":     {func(e *Event) { e.StateKey = &over }, ErrTooLarge},
		"sender over it":        {func(e *Event) { e.Sender = ids.UserID(over) }, ErrTooLarge},
		"room over it":          {func(e *Event) { e.RoomID = ids.RoomID(over) }, ErrTooLarge},
		"redacts over it":       {func(e *Event) { e.Redacts = ids.EventID(over) }, ErrTooLarge},
		"type in broken UTF-8":  {func(e *Event) { e.Type = "a\xff" }, ErrBadJSON},
		"content no object":     {func(e *Event) { e.Content = []byte(`[]`) }, ErrBadJSON},
		"content nil":           {func(e *Event) { e.Content = nil }, ErrBadJSON},
		"time before 1970":      {func(e *Event) { e.OriginServerTS = -1 }, ErrBadJSON},
		"time past the integer": {func(e *Event) { e.OriginServerTS = MaxInt + 1 }, ErrBadJSON},
		"depth past the limit":  {func(e *Event) { e.Depth = MaxInt + 1 }, ErrBadJSON},
	} {
		if err := seal(tc.edit); !errors.Is(err, tc.want) {
			t.Errorf("%s: %v", name, err)
		}
	}

	// The limit is on the PDU with its hash, to the byte.
	e := &Event{RoomID: "!r", Type: TypeMessage, Sender: "@a:b", Content: []byte(`{"body":""}`)}
	if err := e.Seal(v, 0); err != nil {
		t.Fatal(err)
	}
	spare := MaxEventSize - len(e.AppendPDU(nil, v))
	fits := []byte(`{"body":"` + long(spare) + `"}`)
	if err := seal(func(e *Event) { e.Content = fits }); err != nil {
		t.Errorf("%d bytes: %v", MaxEventSize, err)
	}
	if err := seal(func(e *Event) { e.Content = append(fits[:len(fits)-2], `x"}`...) }); !errors.Is(err, ErrTooLarge) {
		t.Errorf("%d bytes: %v", MaxEventSize+1, err)
	}
}

// anyEvent draws an event of any shape that Seal accepts.
func anyEvent(t *rapid.T, v Version) *Event {
	text := rapid.StringN(1, 20, 80)
	content, err := CanonicalObject(nil, append(AppendString([]byte(`{"a":`), text.Draw(t, "body")), '}'))
	if err != nil {
		t.Fatal(err)
	}
	e := &Event{
		RoomID: ids.RoomID(text.Draw(t, "room")), Type: text.Draw(t, "type"), Sender: ids.UserID(text.Draw(t, "sender")),
		Content: content, OriginServerTS: rapid.Int64Range(0, MaxInt).Draw(t, "ts"), Depth: rapid.Int64Range(0, MaxInt).Draw(t, "depth"),
	}
	for _, s := range rapid.SliceOfN(text, 0, 3).Draw(t, "links") {
		e.PrevEvents, e.AuthEvents = append(e.PrevEvents, ids.EventID(s)), append(e.AuthEvents, ids.EventID(s+"x"))
	}
	if rapid.Bool().Draw(t, "state") {
		key := rapid.StringN(0, 20, 80).Draw(t, "key")
		e.StateKey = &key
	}
	if rapid.Bool().Draw(t, "redaction") {
		e.Type = TypeRedaction
		if !v.RedactsInContent {
			e.Redacts = "$target\""
		}
	}
	return e
}

func TestPDURoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		id := rapid.SampledFrom(Supported()).Draw(t, "version")
		v, _ := Lookup(id)
		e := anyEvent(t, v)
		if err := e.Seal(v, 0); err != nil {
			t.Fatal(err)
		}
		pdu := e.AppendPDU(nil, v)
		if canonical, err := Canonical(nil, pdu); err != nil || !bytes.Equal(canonical, pdu) {
			t.Fatalf("not canonical: %s, %v", pdu, err)
		}
		back, err := ParsePDU(v, e.ID, pdu)
		if err != nil {
			t.Fatal(err)
		}
		if err := back.Verify(v, 0); err != nil {
			t.Fatal(err)
		}
		if again := back.AppendPDU(nil, v); !bytes.Equal(again, pdu) || back.RoomID != e.RoomID || back.Redacts != e.Redacts {
			t.Fatalf("%s\nbecame %s", pdu, again)
		}
	})
}

func TestParsePDURefuses(t *testing.T) {
	v := Default()
	good := golden()[8].pdu
	if _, err := ParsePDU(v, "$x", []byte(good)); err != nil {
		t.Fatal(err)
	}
	for name, pdu := range map[string]string{
		"nothing":           ``,
		"cut":               good[:len(good)-1],
		"more":              good + ` `,
		"two":               good + good,
		"unknown member":    strings.Replace(good, `"depth"`, `"dept"`, 1),
		"depth no number":   strings.Replace(good, `"depth":7`, `"depth":"7"`, 1),
		"content no object": strings.Replace(good, `"content":{"body":"héllo \"you\"\n","msgtype":"m.text"}`, `"content":[]`, 1),
		"no content":        strings.Replace(good, `"content":{"body":"héllo \"you\"\n","msgtype":"m.text"},`, ``, 1),
		"no type":           strings.Replace(good, `,"type":"m.room.message"`, ``, 1),
		"no room":           strings.Replace(good, `,"room_id":"!room"`, ``, 1),
		"hash too short":    strings.Replace(good, `oGU"`, `oG"`, 1),
		"hash no base64":    strings.Replace(good, `oGU"`, `o*U"`, 1),
		"IDs no strings":    strings.Replace(good, `"$prev"`, `1`, 1),
		"create with room":  strings.Replace(good, `m.room.message`, `m.room.create`, 1),
	} {
		if name != "nothing" && pdu == good {
			t.Fatalf("%s: nothing replaced", name)
		}
		if e, err := ParsePDU(v, "$x", []byte(pdu)); !errors.Is(err, ErrBadJSON) {
			t.Errorf("%s: %v, %v", name, e, err)
		}
	}
}

func FuzzParsePDU(f *testing.F) {
	for _, g := range golden() {
		f.Add([]byte(g.pdu))
	}
	f.Fuzz(func(t *testing.T, pdu []byte) {
		for _, name := range Supported() {
			v, _ := Lookup(name)
			e, err := ParsePDU(v, "$id", pdu)
			if err != nil {
				continue
			}
			_ = e.Verify(v, 0)
			Redact(v, e).AppendPDU(nil, v)
			ParseMember(e.Content).Token()
			ParseCreate(e.Content)
			ParseJoinRules(e.Content)
			_, _ = ParsePowerLevels(e.Content)
			e.HistoryVisibility()
			SetField(nil, e.Content, "x", []byte("1"))
			DropField(nil, e.Content, "x")
			for range Elements(e.Content) {
				t.Fatal("an object has elements")
			}
		}
	})
}

func TestContentIsParsedOnceByAllReaders(t *testing.T) {
	e := &Event{Type: TypePowerLevels, Content: []byte(`{"ban":7,"users":{"@a:b":3}}`)}
	const readers = 8
	var wg sync.WaitGroup
	seen := make([]*PowerLevels, readers)
	for i := range readers {
		wg.Go(func() {
			p, err := e.PowerLevels()
			if err != nil || p.User("@a:b") != 3 || p.Level(LevelBan) != 7 {
				t.Errorf("%+v, %v", p, err)
			}
			seen[i] = p
		})
	}
	wg.Wait()
	for _, p := range seen {
		if p != seen[0] {
			t.Error("readers got different copies")
		}
	}
	if m := e.Member(); m == nil || m.Membership != NoMembership {
		t.Errorf("read as what it is not: %+v", m)
	}
	if again, _ := e.PowerLevels(); again != seen[0] {
		t.Error("parsed again")
	}
	bad := &Event{Content: []byte(`{"ban":"7"}`)}
	for range 2 {
		if p, err := bad.PowerLevels(); p != nil || !errors.Is(err, ErrBadJSON) {
			t.Errorf("%v, %v", p, err)
		}
	}
}

func BenchmarkSeal(b *testing.B) {
	v := Default()
	hash := ids.EventID("$Rqnc-F-dvnEYJTyHq_iKxU2bZ1CI92-kuZq3a5lr5Zg")
	content := []byte(`{"body":"Hello, world, how are you today?","msgtype":"m.text"}`)
	b.ReportAllocs()
	for b.Loop() {
		e := &Event{
			RoomID: "!Rqnc-F-dvnEYJTyHq_iKxU2bZ1CI92-kuZq3a5lr5Zg", Type: TypeMessage, Sender: "@alice:example.org",
			OriginServerTS: 1700000000000, Content: content, Depth: 1234,
			PrevEvents: []ids.EventID{hash}, AuthEvents: []ids.EventID{hash, hash},
		}
		if err := e.Seal(v, 0); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAppendPDU(b *testing.B) {
	g := golden()[8]
	v := version(b, g.version)
	e, err := ParsePDU(v, ids.EventID(g.id), []byte(g.pdu))
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	var buf []byte
	for b.Loop() {
		buf = e.AppendPDU(buf[:0], v)
	}
}

func BenchmarkParsePDU(b *testing.B) {
	g := golden()[8]
	v, pdu := version(b, g.version), []byte(g.pdu)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ParsePDU(v, ids.EventID(g.id), pdu); err != nil {
			b.Fatal(err)
		}
	}
}
