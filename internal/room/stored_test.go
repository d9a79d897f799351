package room

import (
	"bytes"
	"encoding/json"
	"errors"
	"reflect"
	"testing"

	"pgregory.net/rapid"

	"github.com/hubbub-chat/hubbub/internal/event"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/roomstate"
)

// drawStored makes any event as it may be stored.
func drawStored(rt *rapid.T) (*Stored, event.Version) {
	version, _ := event.Lookup(rapid.SampledFrom([]string{"10", "11", "12"}).Draw(rt, "version"))
	ev := &event.Event{
		RoomID: "!room:h", Type: rapid.SampledFrom([]string{event.TypeMessage, event.TypeMember, event.TypeRedaction, "ö\"\\"}).Draw(rt, "type"),
		Sender: alice, OriginServerTS: rapid.Int64Range(0, event.MaxInt).Draw(rt, "ts"),
		Depth: rapid.Int64Range(1, event.MaxInt).Draw(rt, "depth"),
	}
	if rapid.Bool().Draw(rt, "state") {
		key := rapid.StringN(0, 40, 200).Draw(rt, "key")
		ev.StateKey = &key
	}
	if ev.Type == event.TypeRedaction {
		ev.Redacts = "$target"
	}
	body, err := json.Marshal(map[string]string{"body": rapid.String().Draw(rt, "body"), "membership": "join"})
	if err != nil {
		rt.Fatal(err)
	}
	ev.Content = canonical(rt, string(body))
	id := func() ids.EventID { return linkID(string(rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(rt, "hash"))) }
	if rapid.Bool().Draw(rt, "previous") {
		ev.PrevEvents = []ids.EventID{id()}
	}
	for range rapid.IntRange(0, 6).Draw(rt, "auth") {
		ev.AuthEvents = append(ev.AuthEvents, id())
	}
	seq := ids.Seq(rapid.Uint64().Draw(rt, "seq"))
	at := seq
	if rapid.Bool().Draw(rt, "position unknown") {
		at = 0
	}
	if err := ev.Seal(version, at); err != nil {
		rt.Fatalf("seal: %v", err)
	}
	s, err := newStored(ev, seq)
	if err != nil {
		rt.Fatal(err)
	}
	if ev.StateKey != nil && rapid.Bool().Draw(rt, "replaces") {
		s.Replaces, s.PrevContent = 7, []byte(`{"old":1}`)
	}
	if rapid.Bool().Draw(rt, "txn") {
		s.TxnDevice, s.TxnID = "D", rapid.StringN(1, 20, 80).Draw(rt, "txnID")
	}
	if rapid.Bool().Draw(rt, "thread") {
		s.Thread = id()
	}
	return s, version
}

func TestStoredRoundTrip(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s, version := drawStored(rt)
		checkRoundTrip(rt, s, version, nil)
		by, err := newStored(&event.Event{
			ID: linkID("0123456789abcdef0123456789abcdef"), RoomID: s.RoomID, Type: event.TypeRedaction,
			Sender: bob, Content: []byte(`{}`), Redacts: s.ID,
		}, s.Seq+1)
		if err != nil {
			rt.Fatal(err)
		}
		left, err := s.redacted(version, by)
		if err != nil {
			rt.Fatal(err)
		}
		checkRoundTrip(rt, left, version, event.ErrContentHash)
		checkRoundTrip(rt, s.withPrevContent([]byte(`{"other":true}`)), version, nil)
	})
}

func checkRoundTrip(rt *rapid.T, s *Stored, version event.Version, redacted error) {
	got, err := DecodeStored(s.RoomID, s.encode())
	if err != nil {
		rt.Fatalf("decode: %v", err)
	}
	if !bytes.Equal(got.encode(), s.encode()) {
		rt.Fatalf("%+v is encoded another way than %+v", got, s)
	}
	if !reflect.DeepEqual(got.Full(), s.Full()) {
		rt.Fatalf("%+v came back as %+v", s.Full(), got.Full())
	}
	if err := got.Full().Verify(version, got.Seq); err != nil && !errors.Is(err, redacted) {
		rt.Fatalf("verify: %v", err)
	}
	for _, pair := range [][2]any{
		{got.Seq, s.Seq},
		{got.Replaces, s.Replaces},
		{got.TxnID, s.TxnID},
		{got.TxnDevice, s.TxnDevice},
		{got.Thread, s.Thread},
		{string(got.PrevContent), string(s.PrevContent)},
		{string(got.RedactedBy), string(s.RedactedBy)},
	} {
		if pair[0] != pair[1] {
			rt.Fatalf("%v came back as %v", pair[1], pair[0])
		}
	}
	checkClient(rt, got)
}

// checkClient checks the JSON for clients against the event.
func checkClient(rt *rapid.T, s *Stored) {
	viewer := Viewer{User: s.Sender, Device: s.TxnDevice, RoomID: true, Membership: event.Join, Relations: []byte(`{"r":1}`)}
	var got struct {
		ID       ids.EventID     `json:"event_id"`
		Room     ids.RoomID      `json:"room_id"`
		Type     string          `json:"type"`
		Sender   ids.UserID      `json:"sender"`
		Key      *string         `json:"state_key"`
		TS       int64           `json:"origin_server_ts"`
		Content  json.RawMessage `json:"content"`
		Redacts  ids.EventID     `json:"redacts"`
		Unsigned struct {
			Prev       json.RawMessage  `json:"prev_content"`
			Txn        string           `json:"transaction_id"`
			Membership event.Membership `json:"membership"`
			Because    json.RawMessage  `json:"redacted_because"`
			Relations  json.RawMessage  `json:"m.relations"`
		} `json:"unsigned"`
	}
	text := s.AppendClient(nil, viewer)
	if err := json.Unmarshal(text, &got); err != nil {
		rt.Fatalf("%s: %v", text, err)
	}
	u := got.Unsigned
	if got.ID != s.ID || got.Room != s.RoomID || got.Type != s.Type || got.Sender != s.Sender || got.TS != s.OriginServerTS ||
		string(got.Content) != string(s.Content) || got.Redacts != s.Redacts || !reflect.DeepEqual(got.Key, s.StateKey) ||
		string(u.Prev) != string(s.PrevContent) || u.Txn != s.TxnID || u.Membership != event.Join ||
		string(u.Because) != string(s.RedactedBy) || string(u.Relations) != `{"r":1}` {
		rt.Fatalf("%+v became %s", s, text)
	}
	if plain := s.AppendClient([]byte("before"), Viewer{}); !json.Valid(plain[len("before"):]) ||
		s.RedactedBy == nil && bytes.Contains(plain, []byte(`"room_id":"!room:h"`)) {
		rt.Fatalf("without anything: %s", plain)
	}
	if stripped := s.AppendStripped(nil); !json.Valid(stripped) {
		rt.Fatalf("stripped: %s", stripped)
	}
}

func FuzzDecodeStored(f *testing.F) {
	key := "k"
	ev := &event.Event{
		RoomID: "!r:h", Type: "t", Sender: alice, StateKey: &key, Content: []byte(`{"a":1}`),
		PrevEvents: []ids.EventID{linkID("0123456789abcdef0123456789abcdef")}, Redacts: "$x",
	}
	v, _ := event.Lookup("12")
	if err := ev.Seal(v, 5); err != nil {
		f.Fatal(err)
	}
	s, err := newStored(ev, 5)
	if err != nil {
		f.Fatal(err)
	}
	s.PrevContent, s.RedactedBy, s.TxnID, s.TxnDevice = []byte(`{}`), []byte(`{}`), "1", "D"
	f.Add(s.encode())
	// A content whose length wraps round when it is added to.
	wrap := bytes.Replace(s.encode(), append([]byte{7}, jsonContent...),
		append([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f}, jsonContent...), 1)
	f.Add(wrap)
	f.Fuzz(func(t *testing.T, row []byte) {
		s, err := DecodeStored("!r:h", row)
		if err != nil {
			return
		}
		again, err := DecodeStored("!r:h", s.encode())
		if err != nil {
			t.Fatalf("encoded and not decoded: %v", err)
		}
		if !bytes.Equal(again.encode(), s.encode()) {
			t.Fatalf("%q and %q", again.encode(), s.encode())
		}
		s.AppendClient(nil, Viewer{RoomID: true})
		s.AppendStripped(nil)
		s.Full()
	})
}

func FuzzDecodeHead(f *testing.F) {
	v, _ := event.Lookup("11")
	h := &Head{Head: roomstate.Head{Version: v, RoomID: "!r:h", LastEvent: "$e", Depth: 3}, Creator: alice, Last: 9, Joined: 2, Public: true}
	f.Add(h.encode())
	f.Fuzz(func(t *testing.T, row []byte) {
		h, err := decodeHead("!r:h", row)
		if err != nil {
			return
		}
		again, err := decodeHead("!r:h", h.encode())
		if err != nil || !reflect.DeepEqual(again, h) {
			t.Fatalf("%+v came back as %+v, %v", h, again, err)
		}
	})
}
