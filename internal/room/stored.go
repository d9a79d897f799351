package room

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"strconv"

	"github.com/hubbub-chat/hubbub/internal/event"
	"github.com/hubbub-chat/hubbub/internal/ids"
)

// Stored is an event as it stands in the timeline: the event, its position, and
// its JSON for clients, made once when it was committed.
//
// The row is a short binary head and the JSON `{"content":…,"event_id":…,…`
// without its closing brace, so that readers append what depends on them
// (room_id, unsigned) and close it. The fields of Event are parts of the row:
// reading parses no JSON. A Stored does not change after it was decoded.
type Stored struct {
	event.Event
	Seq ids.Seq
	// Replaces is the position of the state event that this one replaced, 0 if
	// none.
	Replaces ids.Seq
	// TxnDevice and TxnID are what the sender sent it with, "" if nothing.
	TxnDevice ids.DeviceID
	TxnID     string
	// PrevContent is the content of the replaced state event, nil if none.
	PrevContent []byte
	// RedactedBy is the client JSON of the redaction that took effect, complete
	// with its room_id; nil if there is none.
	RedactedBy []byte
	// Thread is the root of the thread that the event is in, by a relation of its
	// own or of its parents; "" for the main timeline. spec: client-server
	// §Threaded read receipts.
	Thread ids.EventID

	// json is the client JSON without its end; links the hashes of prev_events
	// (first) and auth_events.
	json  string
	links string
}

const storedFormat = 1

const (
	flagState = 1 << iota
	flagPrevContent
	flagRedacted
	flagTxn
	flagRedacts
	flagPrev
	flagThread
)

const (
	hashSize    = 32
	scratchSize = 1024
)

// newStored makes the row's content for an event that was just built.
func newStored(ev *event.Event, seq ids.Seq) (*Stored, error) {
	s := &Stored{Seq: seq}
	copyEvent(&s.Event, ev)
	var scratch [scratchSize]byte // most events fit, and become one string each
	b := scratch[:0]
	for _, list := range [][]ids.EventID{ev.PrevEvents, ev.AuthEvents} {
		for _, id := range list {
			var ok bool
			if b, ok = appendHash(b, id); !ok {
				return nil, fmt.Errorf("link to %q: %w", id, errRow)
			}
		}
	}
	s.links = string(b)
	s.json = string(s.appendJSON(scratch[:0]))
	return s, nil
}

func copyEvent(dst, src *event.Event) {
	dst.ID, dst.RoomID, dst.Type, dst.StateKey, dst.Sender = src.ID, src.RoomID, src.Type, src.StateKey, src.Sender
	dst.OriginServerTS, dst.Content, dst.Depth = src.OriginServerTS, src.Content, src.Depth
	dst.PrevEvents, dst.AuthEvents = src.PrevEvents, src.AuthEvents
	dst.ContentHash, dst.Redacts = src.ContentHash, src.Redacts
}

const (
	jsonContent = `{"content":`
	jsonEventID = `,"event_id":"`
)

// appendJSON writes the client JSON without its end. spec: client-server
// §Room event format. A redaction has redacts at the top level for clients that
// look there, whatever the room version. spec: rooms/v11 §Moving the redacts
// property.
func (s *Stored) appendJSON(b []byte) []byte {
	b = append(b, jsonContent...)
	b = append(b, s.Content...)
	b = append(b, jsonEventID...)
	b = append(b, s.ID...)
	b = append(b, `","origin_server_ts":`...)
	b = strconv.AppendInt(b, s.OriginServerTS, 10)
	if s.Redacts != "" {
		b = append(b, `,"redacts":`...)
		b = event.AppendString(b, s.Redacts)
	}
	b = append(b, `,"sender":`...)
	b = event.AppendString(b, s.Sender)
	if s.StateKey != nil {
		b = append(b, `,"state_key":`...)
		b = event.AppendString(b, *s.StateKey)
	}
	b = append(b, `,"type":`...)
	return event.AppendString(b, s.Type)
}

// encode returns the row.
func (s *Stored) encode() []byte {
	var flags byte
	set := func(f byte, on bool) {
		if on {
			flags |= f
		}
	}
	set(flagState, s.StateKey != nil)
	set(flagPrevContent, s.PrevContent != nil)
	set(flagRedacted, s.RedactedBy != nil)
	set(flagTxn, s.TxnID != "")
	set(flagRedacts, s.Redacts != "")
	set(flagPrev, len(s.PrevEvents) > 0)
	set(flagThread, s.Thread != "")

	b := make([]byte, 0, len(s.json)+len(s.links)+len(s.PrevContent)+len(s.RedactedBy)+256)
	b = append(b, storedFormat, flags)
	b = binary.AppendUvarint(b, uint64(s.Seq))
	b = binary.AppendUvarint(b, uint64(s.Depth))
	b = binary.AppendUvarint(b, uint64(s.OriginServerTS))
	b = append(b, s.ContentHash[:]...)
	b = appendString(b, s.links)
	b = appendString(b, s.Type)
	b = appendString(b, s.Sender)
	if flags&flagState != 0 {
		b = appendString(b, *s.StateKey)
		b = binary.AppendUvarint(b, uint64(s.Replaces))
	}
	if flags&flagPrevContent != 0 {
		b = appendString(b, s.PrevContent)
	}
	if flags&flagRedacted != 0 {
		b = appendString(b, s.RedactedBy)
	}
	if flags&flagTxn != 0 {
		b = appendString(b, s.TxnDevice)
		b = appendString(b, s.TxnID)
	}
	if flags&flagRedacts != 0 {
		b = appendString(b, s.Redacts)
	}
	if flags&flagThread != 0 {
		b, _ = appendHash(b, s.Thread)
	}
	b = binary.AppendUvarint(b, uint64(len(s.Content)))
	return append(b, s.json...)
}

// DecodeStored reads a row of Timeline or State. The row's bytes are copied.
func DecodeStored(room ids.RoomID, row []byte) (*Stored, error) {
	r := rowReader{s: string(row)}
	if f := r.byte(); f != storedFormat {
		return nil, fmt.Errorf("event row: format %d: %w", f, errRow)
	}
	flags := r.byte()
	s := &Stored{Seq: ids.Seq(r.uvarint())}
	s.RoomID = room
	s.Depth = int64(r.uvarint())
	s.OriginServerTS = int64(r.uvarint())
	copy(s.ContentHash[:], r.take(hashSize))
	s.links = r.str()
	s.Type = r.str()
	s.Sender = ids.UserID(r.str())
	if flags&flagState != 0 {
		key := r.str()
		s.StateKey = &key
		s.Replaces = ids.Seq(r.uvarint())
	}
	if flags&flagPrevContent != 0 {
		s.PrevContent = []byte(r.str())
	}
	if flags&flagRedacted != 0 {
		s.RedactedBy = []byte(r.str())
	}
	if flags&flagTxn != 0 {
		s.TxnDevice, s.TxnID = ids.DeviceID(r.str()), r.str()
	}
	if flags&flagRedacts != 0 {
		s.Redacts = ids.EventID(r.str())
	}
	if flags&flagThread != 0 {
		s.Thread = linkID(r.take(hashSize))
	}
	size := r.uvarint()
	s.json = r.s
	content := int(min(size, uint64(len(s.json))))
	idAt := len(jsonContent) + content + len(jsonEventID)
	if r.err != nil || content < 2 || len(s.json) < idAt+44 || len(s.links)%hashSize != 0 {
		return nil, fmt.Errorf("event row: %w", errRow)
	}
	s.Content = []byte(s.json[len(jsonContent) : len(jsonContent)+content])
	s.ID = ids.EventID(s.json[idAt : idAt+44])
	s.setLinks(flags&flagPrev != 0)
	return s, nil
}

// setLinks names prev_events and auth_events when they are few; the full list is
// made by Links.
func (s *Stored) setLinks(hasPrev bool) {
	if hasPrev && len(s.links) >= hashSize {
		s.PrevEvents = []ids.EventID{linkID(s.links[:hashSize])}
	}
}

func linkID(hash string) ids.EventID {
	return ids.EventID("$" + base64.RawURLEncoding.EncodeToString([]byte(hash)))
}

// Bare is the event without what is stored beside it, nil for nil.
func (s *Stored) Bare() *event.Event {
	if s == nil {
		return nil
	}
	return &s.Event
}

// Full returns the event with its auth_events, which reading leaves out, as
// hashing it needs them.
func (s *Stored) Full() *event.Event {
	ev := &event.Event{}
	copyEvent(ev, &s.Event)
	links := s.links
	if len(s.PrevEvents) > 0 {
		links = links[hashSize:]
	}
	ev.AuthEvents = nil
	for ; len(links) >= hashSize; links = links[hashSize:] {
		ev.AuthEvents = append(ev.AuthEvents, linkID(links[:hashSize]))
	}
	return ev
}

// Viewer says for whom an event is written.
type Viewer struct {
	User   ids.UserID
	Device ids.DeviceID
	// RoomID adds the room_id member, which /sync leaves out.
	RoomID bool
	// Membership, if any, is what the viewer was when the event was sent.
	// spec: client-server §Event format, unsigned.membership.
	Membership event.Membership
	// Relations, if any, is the JSON of m.relations. spec: §Aggregations.
	Relations []byte
	// Erasures, if any, say which events the viewer gets redacted.
	Erasures *Erasures
}

// AppendClient appends the event's client JSON for a viewer.
func (s *Stored) AppendClient(b []byte, v Viewer) []byte {
	s = v.Erasures.shown(s)
	b = append(b, s.json...)
	if v.RoomID {
		b = append(b, `,"room_id":`...)
		b = event.AppendString(b, s.RoomID)
	}
	start := len(b)
	b = append(b, `,"unsigned":{`...)
	open := len(b)
	if v.Relations != nil {
		b = append(append(b, `"m.relations":`...), v.Relations...)
	}
	if v.Membership != "" {
		b = event.AppendString(append(comma(b, open), `"membership":`...), v.Membership)
	}
	if s.PrevContent != nil {
		b = append(append(comma(b, open), `"prev_content":`...), s.PrevContent...)
	}
	if s.RedactedBy != nil {
		b = append(append(comma(b, open), `"redacted_because":`...), s.RedactedBy...)
	}
	// spec: client-server §Transaction identifiers: only to the session it came from.
	if s.TxnID != "" && s.Sender == v.User && s.TxnDevice == v.Device {
		b = event.AppendString(append(comma(b, open), `"transaction_id":`...), s.TxnID)
	}
	if s.TxnDevice == delayedDevice && s.Sender == v.User {
		b = event.AppendString(append(comma(b, open), `"org.matrix.msc4140.delay_id":`...), s.TxnID)
	}
	if len(b) == open {
		return append(b[:start], '}')
	}
	return append(b, '}', '}')
}

func comma(b []byte, open int) []byte {
	if len(b) > open {
		return append(b, ',')
	}
	return b
}

// AppendStripped appends the event as stripped state. spec: client-server
// §Stripped state.
func (s *Stored) AppendStripped(b []byte) []byte {
	b = append(append(b, jsonContent...), s.Content...)
	b = event.AppendString(append(b, `,"sender":`...), s.Sender)
	key := ""
	if s.StateKey != nil {
		key = *s.StateKey
	}
	b = event.AppendString(append(b, `,"state_key":`...), key)
	b = event.AppendString(append(b, `,"type":`...), s.Type)
	return append(b, '}')
}

// redacted returns what is left of the event when it is redacted by a redaction.
func (s *Stored) redacted(v event.Version, by *Stored) (*Stored, error) {
	ev := event.Redact(v, s.Full())
	r, err := newStored(ev, s.Seq)
	if err != nil {
		return nil, err
	}
	r.Replaces, r.TxnDevice, r.TxnID = s.Replaces, s.TxnDevice, s.TxnID
	r.PrevContent = s.PrevContent
	r.RedactedBy = by.AppendClient(nil, Viewer{RoomID: true})
	return r, nil
}

// Emptied returns the event as it would be if it were redacted, though it is not:
// for one whose content a reader does not want to see.
func (s *Stored) Emptied(v event.Version) (*Stored, error) {
	return newStored(event.Redact(v, s.Full()), s.Seq)
}

// withPrevContent returns a copy with another prev_content.
func (s *Stored) withPrevContent(content []byte) *Stored {
	c := &Stored{
		Seq: s.Seq, Replaces: s.Replaces, TxnDevice: s.TxnDevice, TxnID: s.TxnID,
		PrevContent: content, RedactedBy: s.RedactedBy, Thread: s.Thread, json: s.json, links: s.links,
	}
	copyEvent(&c.Event, &s.Event)
	return c
}
