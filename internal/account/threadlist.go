package account

import "github.com/hubbub-chat/hubbub/internal/ids"

// ThreadList shows changes of subscriptions to clients. spec: MSC4308.
type ThreadList struct {
	Subscribed   ThreadMap `json:"subscribed,omitempty"`
	Unsubscribed ThreadMap `json:"unsubscribed,omitempty"`
	// End and PrevBatch lead on to older changes: in a list, and in a sync.
	End       string `json:"end,omitempty"`
	PrevBatch string `json:"prev_batch,omitempty"`
}

// ThreadMap has threads by their rooms and roots.
type ThreadMap map[ids.RoomID]map[ids.EventID]ThreadEntry

// ThreadEntry is a thread of a list. A bump_stamp tells a client which of two things it
// heard of a subscription is the later one.
type ThreadEntry struct {
	Automatic *bool   `json:"automatic,omitzero"`
	BumpStamp ids.Seq `json:"bump_stamp"`
}

// NewThreadList returns the list of subscriptions.
func NewThreadList(list []*ThreadSubscription) *ThreadList {
	l := &ThreadList{Subscribed: ThreadMap{}, Unsubscribed: ThreadMap{}}
	for _, s := range list {
		to, entry := l.Unsubscribed, ThreadEntry{BumpStamp: s.Seq}
		if s.Subscribed {
			to, entry.Automatic = l.Subscribed, &s.Automatic
		}
		if to[s.Room] == nil {
			to[s.Room] = make(map[ids.EventID]ThreadEntry)
		}
		to[s.Room][s.Root] = entry
	}
	return l
}
