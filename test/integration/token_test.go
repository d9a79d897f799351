package integration

import (
	"fmt"
	"testing"

	"github.com/hubbub-chat/hubbub/internal/app/apptest"
)

// TestTokenOfAnotherUser: tokens are opaque to clients, and one of another user is
// a point in time like any other. Whose it is makes no request fail.
func TestTokenOfAnotherUser(t *testing.T) {
	t.Parallel()
	s := apptest.Start(t)
	bob := user(t, s, "bob")
	room := bob.room(object{"preset": "public_chat"})
	for i := range 10 { // in more than one partition
		busy := user(t, s, fmt.Sprint("busy", i))
		for j := range 30 {
			busy.setData("", "test.data", object{"v": j})
		}
		busy.sync()
		bob.send(room, "before")
		bob.since = busy.since
		bob.sync()
		next := bob.send(room, "next")
		equal(t, "from there on", ids(timeline(bob.sync(), room)), []string{next})
	}
}

// TestTokenOfTheFuture: the data of a server can be older than its clients' tokens,
// when it was restored from a backup. Then a client is told everything anew.
func TestTokenOfTheFuture(t *testing.T) {
	t.Parallel()
	before, after := user(t, apptest.Start(t), "bob"), user(t, apptest.Start(t), "bob")
	for i := range 30 {
		after.setData("", "test.data", object{"v": i})
	}
	after.sync()
	room := before.room(nil)
	out := before.Sync(t, after.since)
	equal(t, "the whole state", len(apptest.At(out, "rooms", "join", room, "state", "events").([]any)) > 0 ||
		len(apptest.At(out, "rooms", "join", room, "timeline", "events").([]any)) > 0, true)
	before.since = out["next_batch"].(string)
	equal(t, "from there on", ids(timeline(before.sync(), room)), []string{})
}
