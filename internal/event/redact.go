package event

// Redact returns what is left of an event when it is redacted: another event
// with the same ID and hashes. spec: rooms/v1 to
// rooms/v11 §Redactions.
func Redact(v Version, e *Event) *Event {
	r := &Event{
		ID: e.ID, RoomID: e.RoomID, Type: e.Type, StateKey: e.StateKey, Sender: e.Sender,
		OriginServerTS: e.OriginServerTS, PrevEvents: e.PrevEvents, AuthEvents: e.AuthEvents,
		Depth: e.Depth, ContentHash: e.ContentHash,
		Content: appendRedacted(nil, v, e.Type, e.Content),
	}
	if v.RedactsInContent {
		r.Redacts = e.Redacts // content.redacts stays, the top-level redacts does not
	}
	return r
}

// typeAliases is a type that only the redaction algorithm of old versions knows.
const typeAliases = "m.room.aliases"

// keep says what redaction does with a member of an event's content.
type keep uint8

const (
	keepNone keep = iota
	keepAll
	// keepSigned keeps of an object its member "signed" alone.
	keepSigned
)

// kept is the table of the redaction algorithm.
func kept(v Version, eventType, name string) keep {
	yes := false
	switch eventType {
	case TypeMember:
		if name == "third_party_invite" && v.UpdatedRedaction {
			return keepSigned
		}
		yes = name == "membership" || name == "join_authorised_via_users_server" && v.KeepsAuthoriser
	case TypeCreate:
		yes = v.UpdatedRedaction || name == "creator"
	case TypeJoinRules:
		yes = name == "join_rule" || name == "allow" && v.Restricted
	case TypePowerLevels:
		switch name {
		case "ban", "events", "events_default", "kick", "redact", "state_default", "users", "users_default":
			yes = true
		case "invite":
			yes = v.UpdatedRedaction
		}
	case TypeHistoryVisibility:
		yes = name == "history_visibility"
	case TypeRedaction:
		yes = v.UpdatedRedaction && name == "redacts"
	case typeAliases:
		yes = v.KeepsAliases && name == "aliases"
	}
	if yes {
		return keepAll
	}
	return keepNone
}

// appendRedacted appends the redacted form of a content object.
func appendRedacted(dst []byte, v Version, eventType string, content []byte) []byte {
	dst = append(dst, '{')
	switch eventType {
	case TypeMember, TypeCreate, TypeJoinRules, TypePowerLevels, TypeHistoryVisibility, TypeRedaction, typeAliases:
	default: // nothing is kept: do not even read it
		return append(dst, '}')
	}
	start := len(dst)
	for w := walk(content); w.next(); {
		how := kept(v, eventType, string(w.key))
		if how == keepSigned && !isObject(w.value) {
			how = keepNone
		}
		if how == keepNone {
			continue
		}
		if len(dst) > start {
			dst = append(dst, ',')
		}
		if how == keepAll {
			dst = append(dst, w.text...)
			continue
		}
		dst = append(AppendString(dst, w.key), ':', '{')
		if signed, ok := Field(w.value, "signed"); ok {
			dst = append(dst, `"signed":`...)
			dst = append(dst, signed...)
		}
		dst = append(dst, '}')
	}
	return append(dst, '}')
}
