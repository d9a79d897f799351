package event

import (
	"encoding/base64"
	"fmt"

	"github.com/hubbub-chat/hubbub/internal/ids"
)

// ParsePDU returns the event that AppendPDU wrote. id is trusted; Verify tells
// whether it is right. The event keeps parts of pdu, which must not change.
// The error wraps ErrBadJSON.
func ParsePDU(v Version, id ids.EventID, pdu []byte) (*Event, error) {
	e := &Event{ID: id}
	w := walk(pdu)
	for w.next() {
		if !e.set(string(w.key), w.value) {
			return nil, fmt.Errorf("parse event %s: %w: member %q", id, ErrBadJSON, w.key)
		}
	}
	if !w.closed || e.Content == nil || e.Type == "" {
		return nil, fmt.Errorf("parse event %s: %w: not a whole event", id, ErrBadJSON)
	}
	switch {
	case e.namesRoom(v) != (e.RoomID == ""):
		return nil, fmt.Errorf("parse event %s: %w: room_id", id, ErrBadJSON)
	case e.namesRoom(v) && id != "":
		e.RoomID = roomOf(id)
	}
	if v.RedactsInContent {
		e.Redacts = ""
		if e.Type == TypeRedaction {
			target, _ := StringField(e.Content, "redacts")
			e.Redacts = ids.EventID(target)
		}
	}
	return e, nil
}

// set sets the field that a member of a PDU stands for and reports whether there
// is such a field and the value fits.
func (e *Event) set(name string, raw []byte) (ok bool) {
	var s string
	switch name {
	case "auth_events":
		e.AuthEvents, ok = parseIDs(raw)
	case "content":
		e.Content, ok = raw, isObject(raw)
	case "depth":
		e.Depth, ok = Int(raw)
	case "hashes":
		s, ok = StringField(raw, "sha256")
		if ok = ok && len(s) == base64.RawStdEncoding.EncodedLen(len(e.ContentHash)); ok {
			_, err := base64.RawStdEncoding.Strict().Decode(e.ContentHash[:], []byte(s))
			ok = err == nil
		}
	case "origin_server_ts":
		e.OriginServerTS, ok = Int(raw)
	case "prev_events":
		e.PrevEvents, ok = parseIDs(raw)
	case "redacts":
		s, ok = String(raw)
		e.Redacts = ids.EventID(s)
	case "room_id":
		s, ok = String(raw)
		e.RoomID = ids.RoomID(s)
	case "sender":
		s, ok = String(raw)
		e.Sender = ids.UserID(s)
	case "state_key":
		var key string // of its own, as the address is kept
		key, ok = String(raw)
		e.StateKey = &key
	case "type":
		e.Type, ok = String(raw)
	}
	return ok
}

func parseIDs(raw []byte) (list []ids.EventID, ok bool) {
	w := walk(raw)
	for w.nextElement() {
		s, ok := String(w.value)
		if !ok {
			return nil, false
		}
		list = append(list, ids.EventID(s))
	}
	return list, w.closed
}
