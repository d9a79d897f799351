package history

import "encoding/json"

// ParseEvent reads an event as a client does.
func ParseEvent(raw json.RawMessage) Event {
	var e struct {
		EventID  string  `json:"event_id"`
		Type     string  `json:"type"`
		Sender   string  `json:"sender"`
		StateKey *string `json:"state_key"`
		Redacts  string  `json:"redacts"`
		Content  struct {
			Mark        string `json:"mark"`
			Reason      string `json:"reason"`
			DisplayName string `json:"displayname"`
			Membership  string `json:"membership"`
		} `json:"content"`
		Unsigned struct {
			RedactedBecause json.RawMessage `json:"redacted_because"`
		} `json:"unsigned"`
	}
	if json.Unmarshal(raw, &e) != nil {
		return Event{Body: string(raw)}
	}
	var all map[string]json.RawMessage
	_ = json.Unmarshal(raw, &all)
	delete(all, "unsigned")
	delete(all, "room_id") // which /sync leaves out
	body, _ := json.Marshal(all)
	mark := e.Content.Mark
	if mark == "" {
		mark = e.Content.Reason
	}
	return Event{
		ID: e.EventID, Type: e.Type, Sender: e.Sender, StateKey: e.StateKey, Mark: mark, Name: e.Content.DisplayName,
		Membership: e.Content.Membership, Redacts: e.Redacts, Redacted: len(e.Unsigned.RedactedBecause) > 0, Body: string(body),
	}
}

// ParseEvents reads a list of events.
func ParseEvents(raw []json.RawMessage) []Event {
	out := make([]Event, 0, len(raw))
	for _, r := range raw {
		out = append(out, ParseEvent(r))
	}
	return out
}
