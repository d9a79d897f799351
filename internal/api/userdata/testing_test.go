package userdata_test

import (
	"net/url"
	"testing"

	"go.uber.org/goleak"

	"github.com/hubbub-chat/hubbub/internal/app/apptest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type object = apptest.Object

const v3 = "/_matrix/client/v3"

// user is the path of what belongs to a user.
func user(c *apptest.Client, rest string) string {
	return v3 + "/user/" + url.PathEscape(c.UserID) + rest
}

// in is the path of what belongs to a user in a room.
func in(c *apptest.Client, room, rest string) string {
	return user(c, "/rooms/"+url.PathEscape(room)+rest)
}

func profile(c *apptest.Client, field string) string {
	return v3 + "/profile/" + url.PathEscape(c.UserID) + field
}

// event returns the content of the event of a type in a list of events.
func event(list any, typ string) any {
	events, _ := list.([]any)
	for _, e := range events {
		if apptest.At(e, "type") == typ {
			return apptest.At(e, "content")
		}
	}
	return nil
}
