package roomstate

import (
	"errors"

	"github.com/hubbub-chat/hubbub/internal/event"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/merr"
)

// Head is the end of a room's chain of events: all that the next event needs
// beside the state. The Head of a room yet to be created has a Version alone,
// and a RoomID if the version does not make it from the create event.
type Head struct {
	RoomID  ids.RoomID
	Version event.Version
	// LastEvent is "" before the create event.
	LastEvent ids.EventID
	// Depth is that of LastEvent, 0 before the create event.
	Depth int64
}

// Advance makes ev, which Build made for this head, the last event.
func (h *Head) Advance(ev *event.Event) {
	h.RoomID, h.LastEvent, h.Depth = ev.RoomID, ev.ID, ev.Depth
}

// Build makes the next event of a room from a draft: places it in the chain,
// selects its auth events, hashes it and authorizes it. at is the position that it is
// to have, 0 if that is not known. Build changes neither the head nor the view; the
// caller calls Advance with what it commits.
//
// Errors are a *Rejection (403), or a *merr.Error that wraps event.ErrTooLarge
// (413) or event.ErrBadJSON (400).
func Build(h *Head, d Draft, at ids.Seq, st View) (*event.Event, error) {
	ev := &event.Event{
		RoomID: h.RoomID, Type: d.Type, StateKey: d.StateKey, Sender: d.Sender,
		OriginServerTS: d.OriginServerTS, Content: d.Content,
		Depth: min(h.Depth+1, event.MaxInt),
	}
	if d.Type == event.TypeRedaction {
		placeRedacts(ev, h.Version, d.Redacts)
	}
	facts := gather(h.Version, ev, st)
	links := make([]ids.EventID, 0, 1+maxAuthKeys)
	if h.LastEvent != "" {
		links = append(links, h.LastEvent)
	}
	previous := len(links)
	links = facts.appendAuthEvents(links)
	ev.PrevEvents = links[:previous:previous]
	ev.AuthEvents = links[previous:]
	if err := ev.Seal(h.Version, at); err != nil {
		if errors.Is(err, event.ErrTooLarge) {
			return nil, merr.TooLargeErr("Event too large").Because(err)
		}
		return nil, merr.BadJSONErr("Not a valid event").Because(err)
	}
	if err := facts.authorize(ev); err != nil {
		return nil, err
	}
	return ev, nil
}

// placeRedacts puts the target of a redaction where the room version keeps it.
// A target given only in the content counts in every version.
// spec: rooms/v11 §Moving the redacts property.
func placeRedacts(ev *event.Event, v event.Version, target ids.EventID) {
	inContent, _ := event.StringField(ev.Content, "redacts")
	if target == "" {
		target = ids.EventID(inContent)
	}
	if v.RedactsInContent && target != "" && string(target) != inContent {
		value := event.AppendString(nil, target)
		ev.Content = event.SetField(nil, ev.Content, "redacts", value)
	}
	ev.Redacts = target
}
