package feed

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"reflect"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
	"pgregory.net/rapid"

	"github.com/hubbub-chat/hubbub/internal/event"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/merr"
	"github.com/hubbub-chat/hubbub/internal/room"
)

const fuzzPartitions = 64

// Clients bring tokens back, and others make them up: every position that a
// token is read as can be written again, and means the same.
func FuzzParsePosition(f *testing.F) {
	p := NewPosition(fuzzPartitions)
	f.Add(p.Token())
	p.At[0], p.At[5], p.At[63], p.Node, p.Typing = 1, 1<<40, 1<<63, 7, 9
	token := p.Token()
	f.Add(token)
	f.Add(token + "~5.zz~63.1")
	p.Generation = 7
	f.Add(p.Token())
	f.Add(token + "~")
	f.Add(token + "~64.1")
	f.Add(token[:len(token)-2])
	f.Add("s")
	f.Add("t5")
	f.Fuzz(func(t *testing.T, token string) {
		p, err := ParsePosition(token, fuzzPartitions)
		if err != nil {
			if !errors.Is(err, ErrUnknownPosition) {
				t.Fatalf("%q: %v", token, err)
			}
			return
		}
		again, err := ParsePosition(p.Token(), fuzzPartitions)
		if err != nil || !reflect.DeepEqual(p, again) {
			t.Fatalf("%q is %+v, whose token is %+v %v", token, p, again, err)
		}
		if _, err := ParsePage(token, 3, fuzzPartitions); err != nil {
			t.Fatalf("%q is no page: %v", token, err)
		}
	})
}

// The checksum hides the decoder from a fuzzer that knows nothing of it: here
// every position is made valid first, then damaged.
func TestPositionRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		count := 1 << rapid.IntRange(0, 10).Draw(t, "bits")
		p := NewPosition(count)
		for i := range p.At {
			if rapid.Bool().Draw(t, "seen") {
				p.At[i] = ids.Seq(rapid.Uint64().Draw(t, "seq"))
			}
		}
		p.Node, p.Typing = rapid.Uint32().Draw(t, "node"), rapid.Uint64().Draw(t, "typing")
		p.Generation = rapid.Uint32().Draw(t, "generation")
		token := p.Token()
		got, err := ParsePosition(token, count)
		if err != nil || !reflect.DeepEqual(got, p) {
			t.Fatalf("%+v came back as %+v %v", p, got, err)
		}
		if len(token) > maxToken {
			t.Fatalf("a token of %d characters is longer than what is read", len(token))
		}
		cut := rapid.IntRange(0, len(token)-1).Draw(t, "cut")
		if _, err := ParsePosition(token[:cut], count); !errors.Is(err, ErrUnknownPosition) {
			t.Fatalf("the first %d of %d characters are a token: %v", cut, len(token), err)
		}
		part, mark := rapid.IntRange(0, count-1).Draw(t, "part"), ids.Seq(rapid.Uint64().Draw(t, "mark"))
		withMark := strings.Split(strings.Trim(string(appendMark(nil, ids.Partition(part), mark)), `[]`), ",")
		got, err = ParsePosition(token+"~"+strings.Trim(withMark[0], `"`)+"."+strings.Trim(withMark[1], `"`), count)
		if err != nil || got.At[part] != max(mark, p.At[part]) {
			t.Fatalf("mark %d.%d on %+v: %+v %v", part, mark, p, got, err)
		}
	})
}

// A body behind the checksum may be anything if somebody computes it.
func FuzzPositionBody(f *testing.F) {
	f.Add([]byte{0, 1, 1})
	f.Add([]byte{0, 0, 1})
	f.Add([]byte{0, 1, 1, 0, 1})
	f.Add([]byte{0, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1, 1})
	f.Add([]byte{0, 64, 1, 1, 1})
	f.Fuzz(func(t *testing.T, body []byte) {
		p, err := ParsePosition(seal(body), fuzzPartitions)
		if err != nil {
			if !errors.Is(err, ErrUnknownPosition) {
				t.Fatal(err)
			}
			return
		}
		again, err := ParsePosition(p.Token(), fuzzPartitions)
		if err != nil || !reflect.DeepEqual(p, again) {
			t.Fatalf("%x is %+v, whose token is %+v %v", body, p, again, err)
		}
	})
}

// seal makes a token of what follows the node's number in it.
func seal(body []byte) string {
	b := append([]byte{positionFormat, 1, 2, 3, 4}, body...)
	b = binary.LittleEndian.AppendUint16(b, uint16(crc32.ChecksumIEEE(b)))
	return tokenPrefix + base64.RawURLEncoding.EncodeToString(b)
}

// FuzzParseFilter: what is accepted can be written, read again as the same, and
// asked about everything.
func FuzzParseFilter(f *testing.F) {
	for _, s := range []string{
		`{}`,
		`{"event_fields":["content.body","a\\.b"],"event_format":"client"}`,
		`{"room":{"rooms":[],"not_rooms":["!a:h"],"include_leave":true,"timeline":{"limit":0,"types":["m.*","*.x*y"]}}}`,
		`{"presence":{"senders":["@a:h"],"not_types":["*"]},"account_data":{"limit":-1}}`,
		`{"room":{"state":{"lazy_load_members":true,"contains_url":false,"rooms":["!a"]}}}`,
		`{"room":{"timeline":{"limit":1e99}}}`,
		`{"room":{"timeline":{"types":null}}}`,
		`[]`, `{`, "{\"a\":\"\xff\"}",
	} {
		f.Add([]byte(s), "m.room.message")
	}
	f.Fuzz(func(t *testing.T, raw []byte, typ string) {
		filter, err := ParseFilter(raw)
		if err != nil {
			if e := merr.From(err); e.Status >= 500 {
				t.Fatalf("%q: %v", raw, err)
			}
			return
		}
		written, err := json.Marshal(filter)
		if err != nil {
			t.Fatalf("%q cannot be written: %v", raw, err)
		}
		again, err := ParseFilter(written)
		if err != nil || !reflect.DeepEqual(filter, again) {
			t.Fatalf("%q became %s (%v)", raw, written, err)
		}
		s := &room.Stored{Event: event.Event{Type: typ, Sender: "@a:h", RoomID: "!a", Content: []byte(`{"url":"x"}`)}}
		for _, e := range []*EventFilter{&filter.Presence, &filter.AccountData, &filter.Room.State, &filter.Room.Timeline} {
			passes := e.Event(s)
			if passes && (!e.Type(typ) || !e.Room("!a")) || e.All() && !passes {
				t.Fatalf("%q: an event of type %q passes: %t", raw, typ, passes)
			}
			if n := e.limit(); n < 0 || n > MaxTimeline {
				t.Fatalf("limit %d", n)
			}
		}
		filter.Room.Room("!a")
		selectFields([]byte(`{"content":{"body":"x","a.b":{"c":1}},"type":"t"}`), filter.EventFields)
	})
}

// FuzzMatchType compares the matcher with the definition of the star.
func FuzzMatchType(f *testing.F) {
	for _, s := range [][2]string{{"m.*", "m.room"}, {"*a*a*", "aa"}, {"a*a", "a"}, {"*", ""}, {"**", "x"}, {"a*b*c", "abbc"}} {
		f.Add(s[0], s[1])
	}
	f.Fuzz(func(t *testing.T, pattern, typ string) {
		if len(pattern)*len(typ) > 1<<12 {
			return // the definition takes its time
		}
		if got, want := matchType(pattern, typ), star(pattern, typ); got != want {
			t.Fatalf("%q matches %q: %t, want %t", pattern, typ, got, want)
		}
	})
}

// star matches by trying everything, remembering for each rest of the pattern
// which rests of the text it matches.
func star(pattern, s string) bool {
	matches := make([]bool, len(s)+1) // of the empty pattern: the empty rest
	matches[len(s)] = true
	for i := len(pattern) - 1; i >= 0; i-- {
		next := make([]bool, len(s)+1)
		for j := len(s); j >= 0; j-- {
			if pattern[i] == '*' {
				next[j] = matches[j] || j < len(s) && next[j+1]
			} else {
				next[j] = j < len(s) && s[j] == pattern[i] && matches[j+1]
			}
		}
		matches = next
	}
	return matches[0]
}

// A filter costs something for every event that passes it by: its lists end
// somewhere.
func TestFilterLists(t *testing.T) {
	list := func(n int, entry string) string { return "[" + strings.Repeat(entry+",", n-1) + entry + "]" }
	for field, most := range map[string]int{
		`{"event_fields":%s}`:                        maxEventFields,
		`{"room":{"timeline":{"types":%s}}}`:         maxFilterList,
		`{"room":{"timeline":{"not_types":%s}}}`:     maxFilterList,
		`{"room":{"state":{"senders":%s}}}`:          maxFilterList,
		`{"room":{"ephemeral":{"not_senders":%s}}}`:  maxFilterList,
		`{"room":{"account_data":{"rooms":%s}}}`:     maxFilterList,
		`{"room":{"account_data":{"not_rooms":%s}}}`: maxFilterList,
		`{"room":{"rooms":%s}}`:                      maxFilterList,
		`{"room":{"not_rooms":%s}}`:                  maxFilterList,
		`{"presence":{"types":%s}}`:                  maxFilterList,
		`{"account_data":{"types":%s}}`:              maxFilterList,
	} {
		entry := `"m.type"`
		switch {
		case strings.Contains(field, "rooms"):
			entry = `"!a"`
		case strings.Contains(field, "senders"):
			entry = `"@a:h"`
		}
		if _, err := ParseFilter([]byte(fmt.Sprintf(field, list(most, entry)))); err != nil {
			t.Errorf("%s with %d entries: %v", field, most, err)
		}
		if _, err := ParseFilter([]byte(fmt.Sprintf(field, list(most+1, entry)))); !merr.Is(err, merr.InvalidParam) {
			t.Errorf("%s with %d entries: %v", field, most+1, err)
		}
	}
}

// A sparse position is the position, and moves as it does.
func TestSparsePosition(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := NewPosition(8)
		p.Node, p.Typing, p.Inbox = 1, 2, 3
		for i := range p.At {
			p.At[i] = ids.Seq(rapid.IntRange(0, 2).Draw(t, "seen"))
		}
		c := newSparse(&p)
		for range rapid.IntRange(0, 5).Draw(t, "moves") {
			part, s := rapid.IntRange(0, 7).Draw(t, "partition"), ids.Seq(rapid.IntRange(1, 9).Draw(t, "seq"))
			p.At[part] = s
			c.set(ids.Partition(part), s)
		}
		if got := c.position(8); !reflect.DeepEqual(*got, p) {
			t.Fatalf("%+v, want %+v", *got, p)
		}
	})
}
