package push

import (
	"context"
	"encoding/base64"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/hubbub-chat/hubbub/internal/account"
	"github.com/hubbub-chat/hubbub/internal/api"
	"github.com/hubbub-chat/hubbub/internal/feed"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/merr"
	"github.com/hubbub-chat/hubbub/internal/room"
)

const (
	// defaultNotifications and maxNotifications are how many one answer has.
	defaultNotifications = 20
	maxNotifications     = 100
	// notificationsPage is how many are read at once.
	notificationsPage = 100
	onlyHighlight     = "highlight"
)

// notificationJSON is one notification. spec: client-server §GET /notifications.
type notificationJSON struct {
	Actions jsontext.Value `json:"actions"`
	Event   jsontext.Value `json:"event"`
	Read    bool           `json:"read"`
	RoomID  ids.RoomID     `json:"room_id"`
	TS      int64          `json:"ts"`
}

// notificationsJSON is the answer. NextToken is "" at the end.
type notificationsJSON struct {
	NextToken     string             `json:"next_token,omitzero"`
	Notifications []notificationJSON `json:"notifications"`
}

// notifications: spec client-server §GET /notifications.
func (m *Module) notifications(r *api.Request) (any, error) {
	limit, err := r.QueryInt("limit", defaultNotifications, 1, maxNotifications)
	if err != nil {
		return nil, err
	}
	only, err := r.QueryEnum("only", "", onlyHighlight)
	if err != nil {
		return nil, err
	}
	from, err := base64.RawURLEncoding.DecodeString(r.Query.Get("from"))
	if err != nil {
		return nil, merr.InvalidParamErr("The parameter from is not a token of this server").Because(err)
	}
	if err := m.Lister.List(r.Context, r.Caller.User); err != nil {
		return nil, err
	}
	ignored, err := m.Accounts.Data(r.Context, r.Caller.User, "", feed.TypeIgnored)
	if err != nil {
		return nil, err
	}
	l := &lister{m: m, r: r, rooms: make(map[ids.RoomID]*room.Access), ignored: feed.Ignored(ignored)}
	out := notificationsJSON{Notifications: []notificationJSON{}}
	for before := string(from); ; {
		page, err := m.Accounts.Notifications(r.Context, r.Caller.User, before, notificationsPage)
		if err != nil {
			return nil, err
		}
		for _, n := range page {
			if only == onlyHighlight && !n.Highlight {
				continue
			}
			if len(out.Notifications) == int(limit) {
				// The last that was shown: what follows is older.
				out.NextToken = base64.RawURLEncoding.EncodeToString([]byte(l.last))
				return out, nil
			}
			if out.Notifications, err = l.add(r.Context, out.Notifications, n); err != nil {
				return nil, err
			}
		}
		if len(page) < notificationsPage {
			return out, nil
		}
		before = page[len(page)-1].Sort
	}
}

// lister makes one answer.
type lister struct {
	m     *Module
	r     *api.Request
	rooms map[ids.RoomID]*room.Access
	// ignored are those whom the user ignores now: what they said before is not shown
	// either. spec: client-server §Ignoring Users.
	ignored map[ids.UserID]struct{}
	// last is the place of the last notification in the answer.
	last string
}

func (l *lister) access(ctx context.Context, id ids.RoomID) (*room.Access, error) {
	if a, ok := l.rooms[id]; ok {
		return a, nil
	}
	a, err := l.m.Rooms.Access(ctx, id, l.r.Caller.User)
	if err == nil {
		l.rooms[id] = a
	}
	return a, err
}

// add appends a notification, unless its event is gone, may not be seen, or is of
// somebody who is ignored.
func (l *lister) add(ctx context.Context, list []notificationJSON, n account.ListedNotification) ([]notificationJSON, error) {
	access, err := l.access(ctx, n.Room)
	if err != nil {
		return nil, err
	}
	e, err := l.m.Rooms.At(ctx, n.Room, n.Seq)
	if err != nil || e == nil || access == nil || !access.MaySee(e) {
		return list, err
	}
	if _, ok := l.ignored[e.Sender]; ok {
		return list, nil
	}
	read, err := l.m.Rooms.HasRead(ctx, l.r.Caller.User, e)
	if err != nil {
		return list, err
	}
	l.last = n.Sort
	return append(list, notificationJSON{
		Actions: n.Actions,
		Event:   e.AppendClient(nil, room.Viewer{User: l.r.Caller.User, Device: l.r.Caller.Device, RoomID: true}),
		Read:    read, RoomID: n.Room, TS: n.TS,
	}), nil
}
