package caller

import (
	"encoding/json"

	"github.com/hubbub-chat/hubbub/test/history"
)

// Sync is the part of a sync response that tests look at.
type Sync struct {
	NextBatch   string    `json:"next_batch"`
	AccountData EventList `json:"account_data"`
	ToDevice    EventList `json:"to_device"`
	Rooms       struct {
		Join  map[string]SyncRoom `json:"join"`
		Leave map[string]SyncRoom `json:"leave"`
	} `json:"rooms"`
}

// EventList is a list of them.
type EventList struct {
	Events []json.RawMessage `json:"events"`
}

// SyncRoom is one room of it.
type SyncRoom struct {
	Timeline struct {
		EventList
		Limited   bool   `json:"limited"`
		PrevBatch string `json:"prev_batch"`
	} `json:"timeline"`
	State       EventList       `json:"state"`
	AccountData EventList       `json:"account_data"`
	Ephemeral   EventList       `json:"ephemeral"`
	Unread      *history.Unread `json:"unread_notifications"`
}
