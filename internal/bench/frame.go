package bench

import (
	"bytes"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"

	"github.com/hubbub-chat/hubbub/internal/ids"
)

// Every message of the load generator has a marker beside its body: who sent it, its
// number among that sender's, when it was due (nanoseconds from the start of the
// run) and the phase it belongs to. So a message is known for what it is even if its
// answer never came. The body is words, as people write them: a few are in every other
// message and most in hardly any, which is what an index of words has to live with.
const (
	markerTag = "hb1"
	markerKey = "hubbub.bench"
)

// marker is what a message says of itself.
type marker struct {
	sender, number int
	due            int64
	phase          phase
}

// appendContent writes the JSON content of a message, at least size bytes long.
func (m marker) appendContent(b []byte, size int) []byte {
	var buf [96]byte
	end := append(buf[:0], `","`+markerKey+`":"`+markerTag...)
	for _, v := range []int64{int64(m.sender), int64(m.number), m.due, int64(m.phase)} {
		end = strconv.AppendInt(append(end, '.'), v, 10)
	}
	end = append(end, `.","msgtype":"m.text"}`...)
	start := len(b)
	b = append(b, `{"body":"`...)
	words := wordSource(uint64(m.sender)<<32 | uint64(m.number))
	b = words.append(b)
	for len(b)-start+len(end) < size {
		b = words.append(append(b, ' '))
	}
	return append(b, end...)
}

// wordSource makes the words of one message; its value is the state of SplitMix64.
type wordSource uint64

const (
	// vocabulary is how many words there are, about as many as a person knows.
	vocabulary = 20000
	consonants = "bdfgklmnprstvz"
	vowels     = "aeiou"
)

// append writes a word. The n-th of all is chosen with a probability of about 1/n.
func (w *wordSource) append(b []byte) []byte {
	*w += 0x9e3779b97f4a7c15
	z := uint64(*w)
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	z ^= z >> 31
	n := int(math.Pow(vocabulary, float64(z>>11)/(1<<53)))
	for ; n > 0; n /= len(consonants) * len(vowels) {
		b = append(b, consonants[n%len(consonants)], vowels[n/len(consonants)%len(vowels)])
	}
	return b
}

// parseMarker reads a marker; false if it is none.
func parseMarker(text string) (m marker, ok bool) {
	rest, ok := strings.CutPrefix(text, markerTag+".")
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
		Marker string `json:"hubbub.bench"` // markerKey
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
		if m, ok := parseMarker(e.Content.Marker); ok {
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
