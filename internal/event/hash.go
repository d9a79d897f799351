package event

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"strconv"
	"unicode/utf8"

	"github.com/hubbub-chat/hubbub/internal/ids"
)

// hashesSize is the length of the "hashes" member of a PDU with its comma.
const hashesSize = len(`"hashes":{"sha256":"47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU"},`)

// scratchSize is the stack buffer in which events are hashed: a usual message
// is below 1 KiB. Larger events are hashed on the heap.
const scratchSize = 2048

// form says which members of an event to write.
type form struct {
	hashes   bool // the content hash
	redacted bool // only what redaction leaves
}

// AppendPDU appends the event's PDU: canonical JSON in the federation format
// of the room version. It has no event_id, which follows from the rest.
// spec: rooms/v12 §Event format.
func (e *Event) AppendPDU(dst []byte, v Version) []byte {
	return e.append(dst, v, form{hashes: true})
}

// append writes the members by hand in the order of their names: no map, no
// reflection, as each event passes here two or three times.
func (e *Event) append(dst []byte, v Version, f form) []byte {
	dst = append(dst, `{"auth_events":`...)
	dst = appendIDs(dst, e.AuthEvents)
	dst = append(dst, `,"content":`...)
	if f.redacted {
		dst = appendRedacted(dst, v, e.Type, e.Content)
	} else {
		dst = append(dst, e.Content...)
	}
	dst = append(dst, `,"depth":`...)
	dst = strconv.AppendInt(dst, e.Depth, 10)
	if f.hashes {
		dst = append(dst, `,"hashes":{"sha256":"`...)
		dst = base64.RawStdEncoding.AppendEncode(dst, e.ContentHash[:])
		dst = append(dst, `"}`...)
	}
	dst = append(dst, `,"origin_server_ts":`...)
	dst = strconv.AppendInt(dst, e.OriginServerTS, 10)
	dst = append(dst, `,"prev_events":`...)
	dst = appendIDs(dst, e.PrevEvents)
	if e.Redacts != "" && !v.RedactsInContent && !f.redacted {
		dst = append(dst, `,"redacts":`...)
		dst = AppendString(dst, e.Redacts)
	}
	if !e.namesRoom(v) {
		dst = append(dst, `,"room_id":`...)
		dst = AppendString(dst, e.RoomID)
	}
	dst = append(dst, `,"sender":`...)
	dst = AppendString(dst, e.Sender)
	if e.StateKey != nil {
		dst = append(dst, `,"state_key":`...)
		dst = AppendString(dst, *e.StateKey)
	}
	dst = append(dst, `,"type":`...)
	dst = AppendString(dst, e.Type)
	return append(dst, '}')
}

// namesRoom reports whether the room ID is made from this event's ID.
func (e *Event) namesRoom(v Version) bool { return v.RoomIDFromCreate && e.Type == TypeCreate }

func appendIDs(dst []byte, list []ids.EventID) []byte {
	dst = append(dst, '[')
	for i, id := range list {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = AppendString(dst, id)
	}
	return append(dst, ']')
}

// ComputeContentHash returns the hash of the whole event as it is now. In a
// redacted event it differs from ContentHash.
// spec: server-server §Calculating the content hash for an event.
func (e *Event) ComputeContentHash(v Version) [32]byte {
	var scratch [scratchSize]byte
	return sha256.Sum256(e.append(scratch[:0], v, form{}))
}

// ReferenceHash returns the hash of what redaction leaves of the event, its
// content hash included. It is the same before and after redaction.
// spec: server-server §Calculating the reference hash for an event.
func (e *Event) ReferenceHash(v Version) [32]byte {
	var scratch [scratchSize]byte
	return sha256.Sum256(e.append(scratch[:0], v, form{hashes: true, redacted: true}))
}

// positionSize is how many bytes of an event ID hold the event's position, in those that
// have one. The other 24 are of the hash: as hard to forge as one of 192 bits.
const positionSize = 8

// cover covers or uncovers the position in the bytes of an ID with those behind it. IDs
// that began with the same letters would be hard to tell apart for people, and for maps.
func cover(b *[2 * positionSize]byte) {
	for i := range positionSize {
		b[i] ^= b[positionSize+i]
	}
}

// makeID returns an event ID: the reference hash in URL-safe base64, as the form is for
// versions since 4, with the position in place of its first bytes unless that is 0.
// spec: rooms/v12 §Event IDs.
func makeID(hash [sha256.Size]byte, at ids.Seq) ids.EventID {
	if at != 0 {
		binary.BigEndian.PutUint64(hash[:positionSize], uint64(at))
		cover((*[2 * positionSize]byte)(hash[:]))
	}
	var id [1 + 43]byte
	id[0] = '$'
	base64.RawURLEncoding.Encode(id[1:], hash[:])
	return ids.EventID(id[:])
}

// Position returns the position that an event ID holds, if it was made with one. Of
// an ID that was not, or is none, it is some number: only the event there tells.
func Position(id ids.EventID) ids.Seq {
	var hash [sha256.Size]byte
	if len(id) != 1+43 {
		return 0
	}
	if _, err := base64.RawURLEncoding.Decode(hash[:], []byte(id[1:])); err != nil {
		return 0
	}
	cover((*[2 * positionSize]byte)(hash[:]))
	b := hash[:positionSize]
	return ids.Seq(binary.BigEndian.Uint64(b))
}

// Seal completes a new event: it checks the sizes and sets ContentHash, ID and,
// for the create event of a version that names rooms so, RoomID. at is where the event
// is to stand in the log of its partition, which its ID then says; 0 if that is not known.
// The error wraps ErrTooLarge, or ErrBadJSON for text that JSON cannot hold.
func (e *Event) Seal(v Version, at ids.Seq) error {
	if err := e.checkFields(); err != nil {
		return err
	}
	var scratch [scratchSize]byte
	pdu := e.append(scratch[:0], v, form{})
	if size := len(pdu) + hashesSize; size > MaxEventSize {
		return fmt.Errorf("%w: %d bytes, at most %d", ErrTooLarge, size, MaxEventSize)
	}
	e.ContentHash = sha256.Sum256(pdu)
	e.ID = makeID(e.ReferenceHash(v), at)
	if e.namesRoom(v) {
		e.RoomID = roomOf(e.ID)
	}
	return nil
}

// roomOf returns the ID of the room that a create event makes.
// spec: rooms/v12 §Authorisation rules, note to rule 1.2.
func roomOf(create ids.EventID) ids.RoomID { return ids.RoomID("!" + create[1:]) }

// checkFields checks the limits on single fields. spec: client-server §Size limits.
func (e *Event) checkFields() error {
	for _, f := range [...]struct{ name, value string }{
		{"type", e.Type},
		{"state_key", e.stateKey()},
		{"sender", string(e.Sender)},
		{"room_id", string(e.RoomID)},
		{"redacts", string(e.Redacts)},
	} {
		if len(f.value) > MaxFieldSize {
			return fmt.Errorf("%w: %s has %d bytes, at most %d", ErrTooLarge, f.name, len(f.value), MaxFieldSize)
		}
		if !utf8.ValidString(f.value) {
			return fmt.Errorf("%w: %s is not UTF-8", ErrBadJSON, f.name)
		}
	}
	if e.OriginServerTS < 0 || e.OriginServerTS > MaxInt || e.Depth < 0 || e.Depth > MaxInt {
		return fmt.Errorf("%w: origin_server_ts or depth out of range", ErrBadJSON)
	}
	if !isObject(e.Content) {
		return fmt.Errorf("%w: content is not an object", ErrBadJSON)
	}
	return nil
}

func (e *Event) stateKey() string {
	if e.StateKey == nil {
		return ""
	}
	return *e.StateKey
}

// Verify recomputes the hashes of the event that stands at a position. ErrHash: the event
// was altered. ErrContentHash: only its content was, which a redaction explains.
func (e *Event) Verify(v Version, at ids.Seq) error {
	hash := e.ReferenceHash(v)
	if id := makeID(hash, 0); id != e.ID && makeID(hash, at) != e.ID {
		return fmt.Errorf("event %s: %w: %s", e.ID, ErrHash, id)
	}
	if e.ComputeContentHash(v) != e.ContentHash {
		return fmt.Errorf("event %s: %w", e.ID, ErrContentHash)
	}
	return nil
}
