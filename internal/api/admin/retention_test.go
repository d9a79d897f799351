package admin_test

import (
	"fmt"
	"testing"

	"github.com/hubbub-chat/hubbub/internal/app/apptest"
	"github.com/hubbub-chat/hubbub/internal/config"
	"github.com/hubbub-chat/hubbub/internal/tables"
)

func TestRetention(t *testing.T) {
	s := apptest.Start(t, func(c *config.Config) {
		c.Retention.Enabled = true
		c.Retention.MaxLifetimeMS = 5_000_000
	})
	root, bob, carol := s.Admin(t, "root"), s.User(t, "bob").Apart(t), s.User(t, "carol").Apart(t)
	keeps := bob.CreateRoom(t, object{"preset": "public_chat"})
	bob.Send(t, keeps, "kept")
	room := busy(t, bob, carol)
	said := bob.Send(t, room, "soon gone")
	before := carol.Sync(t, "")["next_batch"].(string)
	at := client + "/rooms/" + esc(room)
	if n := len(texts(t, bob, room)); n < 6 {
		t.Fatalf("%d texts before", n)
	}
	bob.Must(t, "PUT", at+"/state/m.room.retention/", object{"max_lifetime": 1})
	// The lifetime passes: a sync in which nothing happens lasts longer.
	root.Must(t, "GET", client+"/sync?timeout=20&since="+root.Sync(t, "")["next_batch"].(string), nil)

	// Not shown at once, whoever asks, whichever way.
	same(t, "messages", texts(t, bob, room), []string{})
	page := bob.Must(t, "GET", at+"/messages?dir=f&limit=100", nil)
	for _, e := range page["chunk"].([]any) {
		if e.(object)["state_key"] == nil {
			t.Errorf("shown: %v", e)
		}
	}
	bob.Fails(t, "GET", at+"/event/"+esc(said), nil, 404, "M_NOT_FOUND")
	for _, since := range []string{"", before} {
		joined := apptest.At(carol.Sync(t, since), "rooms", "join", room, "timeline")
		if o, ok := joined.(object); ok {
			for _, e := range o["events"].([]any) {
				if e.(object)["type"] == "m.room.message" {
					t.Errorf("sync since %q shows %v", since, e)
				}
			}
		}
	}
	same(t, "the other room", texts(t, bob, keeps), []string{"kept"})

	// What would go, and that nothing went.
	rooms := root.Must(t, "GET", "/_hubbub/v1/admin/retention", nil)
	same(t, "dry run", column(rooms, "rooms", "room_id"), []string{room})
	n := apptest.At(rooms["rooms"].([]any)[0], "expired").(float64)
	if n < 7 {
		t.Errorf("dry run: %v expired", n)
	}
	same(t, "dry run again", apptest.At(root.Must(t, "GET", "/_hubbub/v1/admin/retention", nil)["rooms"].([]any)[0], "expired"), n)
	limits := bob.Must(t, "GET", "/_matrix/client/unstable/org.matrix.msc1763/retention/configuration", nil)
	same(t, "limits", apptest.At(limits, "limits", "max_lifetime", "max"), 5e6)

	// And gone.
	s.Stop()
	s.Config.Retention.SweepIntervalMS = 50
	s.Restart(t)
	for tries := 0; n > 0; tries++ {
		if tries > 500 {
			t.Fatalf("%v events are still there", n)
		}
		// A sync in which nothing happens is a bounded pause.
		root.Must(t, "GET", client+"/sync?timeout=20&since="+root.Sync(t, "")["next_batch"].(string), nil)
		n = apptest.At(root.Must(t, "GET", "/_hubbub/v1/admin/retention", nil)["rooms"].([]any)[0], "expired").(float64)
	}
	same(t, "state", bob.Must(t, "GET", at+"/state/m.room.retention/", nil)["max_lifetime"], 1)
	bob.Send(t, room, "goes on")
	carol.Sync(t, before)
	same(t, "the other room", texts(t, bob, keeps), []string{"kept"})
	left := traces(t, s, "the root")
	delete(left, tables.Log)
	if len(left) > 0 {
		t.Errorf("rows that hold what has expired, by table: %v", left)
	}
	fsck(t, s)
}

// TestRetentionBounds: a room is held to the bounds, and one that says nothing to
// the default.
func TestRetentionBounds(t *testing.T) {
	s := apptest.Start(t, func(c *config.Config) {
		c.Retention.Enabled = true
		c.Retention.DefaultMaxLifetimeMS = 8_000_000
		c.Retention.MinLifetimeMS, c.Retention.MaxLifetimeMS = 1_000_000, 5_000_000
	})
	root := s.Admin(t, "root")
	want := map[string]float64{}
	for policy, life := range map[string]float64{
		"": 8e6, `{"max_lifetime":1}`: 1e6, `{"max_lifetime":2000000}`: 2e6, `{"max_lifetime":9000000}`: 5e6,
		`{"max_lifetime":"x"}`: 8e6, `{"min_lifetime":3000000,"max_lifetime":2000000}`: 3e6,
	} {
		room := root.CreateRoom(t, nil)
		if policy != "" {
			root.Must(t, "PUT", client+"/rooms/"+esc(room)+"/state/m.room.retention/", policy)
		}
		root.Send(t, room, "kept")
		want[room] = life
		same(t, "texts", texts(t, root, room), []string{"kept"})
	}
	list := root.Must(t, "GET", "/_hubbub/v1/admin/retention", nil)["rooms"].([]any)
	same(t, "rooms", len(list), len(want))
	for _, r := range list {
		same(t, "lifetime", apptest.At(r, "lifetime_ms"), want[fmt.Sprint(apptest.At(r, "room_id"))])
		same(t, "expired", apptest.At(r, "expired"), 0)
	}
}
