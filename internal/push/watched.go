package push

import (
	"context"
	"time"

	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/room"
)

const (
	// maxWatched bounds what is remembered of a partition: rooms, and whom they list.
	// Beyond it all is forgotten, and rooms are read again.
	maxWatched = 2048
	// watchedFor is for how long it is believed: an owner of an earlier version says
	// nothing when a room begins to list someone (partition.RecordWatch).
	watchedFor = time.Minute
)

// watched remembers whom the rooms of a partition list as watching, so that a room in
// which people talk is not read for every few of their messages. The log says when a
// room begins to list someone. Who is listed no longer may be remembered, and costs a
// look.
//
// It belongs to the follower of the partition, and so to one goroutine at a time.
type watched struct {
	rooms map[ids.RoomID][]room.Watching
	size  int
	since time.Time
}

// expire forgets everything when it is too old.
func (c *watched) expire(now time.Time) {
	if now.Sub(c.since) >= watchedFor {
		*c = watched{since: now}
	}
}

// forget makes a room be read again.
func (c *watched) forget(r ids.RoomID) {
	if list, ok := c.rooms[r]; ok {
		c.size -= 1 + len(list)
		delete(c.rooms, r)
	}
}

// page returns who watches a room behind one of them ("" to begin). Lists of more than
// one page are not remembered.
func (c *watched) page(ctx context.Context, rooms *room.Reader, r ids.RoomID, after ids.UserID) ([]room.Watching, error) {
	if list, ok := c.rooms[r]; ok && after == "" {
		return list, nil
	}
	list, err := rooms.Watchers(ctx, r, after, watcherPage)
	if err == nil && after == "" && len(list) < watcherPage {
		c.remember(r, list)
	}
	return list, err
}

func (c *watched) remember(r ids.RoomID, list []room.Watching) {
	if c.rooms == nil || c.size+1+len(list) > maxWatched {
		c.rooms, c.size = make(map[ids.RoomID][]room.Watching), 0
	}
	c.rooms[r] = list
	c.size += 1 + len(list)
}
