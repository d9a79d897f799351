package rooms

import (
	"github.com/hubbub-chat/hubbub/internal/event"
	"github.com/hubbub-chat/hubbub/internal/room"
)

// isChild reports whether an m.space.child names a room: without via it does not.
// spec: client-server §m.space.child relationship.
func isChild(s *room.Stored) bool {
	via, ok := event.Field(s.Content, "via")
	return ok && via[0] == '['
}
