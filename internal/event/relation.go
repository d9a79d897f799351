package event

import (
	"bytes"

	"github.com/hubbub-chat/hubbub/internal/ids"
)

// The relationship types that servers know. spec: client-server §Relationship
// types.
const (
	RelAnnotation = "m.annotation"
	RelReference  = "m.reference"
	RelReplace    = "m.replace"
	RelThread     = "m.thread"
)

// Relation is what an event says of itself in m.relates_to: the relation of a
// child to its parent. spec: client-server §Forming relationships between events.
type Relation struct {
	Type   string
	Parent ids.EventID
	// Key is that of an annotation, "" if there is none.
	Key string
}

const fieldRelatesTo = "m.relates_to"

// RelationOf reads the relation of an event from its content. ok is false if it
// has none, or one that does not match the schema, which is ignored. A rich reply
// is no relation: it has no rel_type.
func RelationOf(content []byte) (rel Relation, ok bool) {
	// Nearly all messages relate to nothing, and this is quicker than walking.
	if !bytes.Contains(content, []byte(`"`+fieldRelatesTo+`":{`)) {
		return Relation{}, false
	}
	raw, _ := Field(content, fieldRelatesTo)
	for w := walk(raw); w.next(); {
		switch string(w.key) {
		case "rel_type":
			rel.Type, _ = String(w.value)
		case "event_id":
			s, _ := String(w.value)
			rel.Parent, _ = ids.ParseEventID(s)
		case "key":
			rel.Key, _ = String(w.value)
		}
	}
	if rel.Type == "" || len(rel.Type) > MaxFieldSize || rel.Parent == "" {
		return Relation{}, false
	}
	return rel, true
}
