package bench

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"

	"github.com/hubbub-chat/hubbub/internal/ids"
)

// Every message of the load generator has a body that begins with its marker:
// who sent it, its number among that sender's, when it was due (nanoseconds from
// the start of the run) and the phase it belongs to. So a message is known for
// what it is even if its answer never came.
const markerTag = "hb1"

// marker is what the body of a message says of it.
type marker struct {
	sender, number int
	due            int64
	phase          phase
}

// appendBody writes the JSON content of a message, at least size bytes long.
func (m marker) appendBody(b []byte, size int) []byte {
	start := len(b)
	b = append(b, `{"body":"`+markerTag...)
	for _, v := range []int64{int64(m.sender), int64(m.number), m.due, int64(m.phase)} {
		b = strconv.AppendInt(append(b, '.'), v, 10)
	}
	const end = `","msgtype":"m.text"}`
	b = append(b, '.')
	for len(b)-start+len(end) < size {
		b = append(b, 'x')
	}
	return append(b, end...)
}

// parseMarker reads the marker of a message's body; false if it has none.
func parseMarker(body string) (m marker, ok bool) {
	rest, ok := strings.CutPrefix(body, markerTag+".")
	if !ok {
		return m, false
	}
	var v [4]int64
	for i := range v {
		j := 0
		for j < len(rest) && rest[j] != '.' {
			j++
		}
		n, err := strconv.ParseInt(rest[:j], 10, 64)
		if err != nil || n < 0 || j == len(rest) {
			return m, false
		}
		v[i], rest = n, rest[j+1:]
	}
	if v[3] >= int64(phases) {
		return m, false
	}
	return marker{sender: int(v[0]), number: int(v[1]), due: v[2], phase: phase(v[3])}, true
}

// update is what a sync frame or a /sync response says of rooms that were
// joined.
type update struct {
	NextBatch string `json:"next_batch"`
	Rooms     struct {
		Join map[ids.RoomID]struct {
			Timeline struct {
				Limited bool           `json:"limited"`
				Events  []receivedJSON `json:"events"`
			} `json:"timeline"`
		} `json:"join"`
	} `json:"rooms"`
}

type receivedJSON struct {
	EventID ids.EventID `json:"event_id"`
	Type    string      `json:"type"`
	Content struct {
		Body string `json:"body"`
	} `json:"content"`
}

// received is a message of ours as a member got it.
type received struct {
	id ids.EventID
	marker
}

// ours picks the messages of the load generator from events.
func ours(events []receivedJSON) []received {
	var out []received
	for i := range events {
		e := &events[i]
		if e.Type != "m.room.message" {
			continue
		}
		if m, ok := parseMarker(e.Content.Body); ok {
			out = append(out, received{e.EventID, m})
		}
	}
	return out
}

func parseUpdate(b []byte) (*update, error) {
	u := new(update)
	if err := json.Unmarshal(b, u); err != nil {
		return nil, fmt.Errorf("sync: %w", err)
	}
	return u, nil
}

const (
	eventIDKey   = `"event_id":"`
	nextBatchKey = `"next_batch":"`
	limitedTrue  = `"limited":true`
)

// nextEventID returns the first event ID in b and what stands behind it; nil if
// there is none. It looks for the bytes of the member: inside a string its
// quotes would be escaped.
func nextEventID(b []byte) (id, rest []byte) { return valueOf(b, eventIDKey) }

// nextBatch returns the position that a /sync response ends at.
func nextBatch(b []byte) string {
	v, _ := valueOf(b, nextBatchKey)
	return string(v)
}

// valueOf returns the text after key up to the next quote: for values that need
// no escapes.
func valueOf(b []byte, key string) (value, rest []byte) {
	i := bytes.Index(b, []byte(key))
	if i < 0 {
		return nil, nil
	}
	b = b[i+len(key):]
	n := bytes.IndexByte(b, '"')
	if n < 0 {
		return nil, nil
	}
	return b[:n], b[n+1:]
}
