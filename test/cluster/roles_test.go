package cluster_test

import (
	"net/http"
	"slices"
	"testing"

	"github.com/hubbub-chat/hubbub/internal/app/apptest"
	"github.com/hubbub-chat/hubbub/internal/bus/faultnet"
	"github.com/hubbub-chat/hubbub/internal/config"
	"github.com/hubbub-chat/hubbub/internal/storage/pgstore/pgtest"
)

// Nodes that each play one part serve clients together: one answers them, one runs the
// partitions, and one does what follows, from where the one before it stopped.
func TestFleets(t *testing.T) {
	store := pgtest.Start(t).Database(t)
	join := []string{faultnet.Address(t), faultnet.Address(t), faultnet.Address(t), faultnet.Address(t)}
	node := func(i int, roles ...config.Role) *apptest.Server {
		return apptest.Start(t, func(c *config.Config) {
			c.Server.Store, c.Server.Roles, c.Server.MetricsListen = store, roles, "127.0.0.1:0"
			c.Cluster.Listen, c.Server.Join = join[i], slices.Clone(join)
		})
	}
	core := node(0, config.RoleCore)
	edge := node(1, config.RoleEdge)
	if core.URL != "" {
		t.Errorf("a node that is no edge answers clients at %s", core.URL)
	}
	alice, bob := edge.User(t, "alice"), edge.User(t, "bob")
	room := alice.CreateRoom(t, apptest.Object{"preset": "public_chat"})
	bob.Join(t, room)
	since := bob.Sync(t, "")["next_batch"].(string)
	found := func(term string) bool {
		out := bob.Must(t, "POST", "/_matrix/client/v3/search", apptest.Object{
			"search_categories": apptest.Object{"room_events": apptest.Object{"search_term": term}},
		})
		results, _ := apptest.At(out, "search_categories", "room_events", "results").([]any)
		return len(results) > 0
	}
	first := alice.Send(t, room, "marmalade")
	events, _ := apptest.At(bob.Sync(t, since), "rooms", "join", room, "timeline", "events").([]any)
	if len(events) != 1 || apptest.At(events[0], "event_id") != first {
		t.Errorf("what was said comes as %v", events)
	}
	if found("marmalade") {
		t.Error("somebody indexed it, and no worker runs")
	}
	worker := node(2, config.RoleWorker)
	eventually(t, "the worker indexes what was said before", func() bool { return found("marmalade") })
	alice.Send(t, room, "lemon curd")
	eventually(t, "and what is said now", func() bool { return found("curd") })

	second := node(3, config.RoleWorker)
	worker.Stop()
	alice.Send(t, room, "honey")
	eventually(t, "another worker goes on", func() bool { return found("honey") })
	for name, s := range map[string]*apptest.Server{"core": core, "edge": edge, "worker": second} {
		res, err := http.Get(s.MetricsURL() + "/readyz")
		if err != nil {
			t.Fatal(err)
		}
		if res.StatusCode != http.StatusOK {
			t.Errorf("%s is not ready: %d", name, res.StatusCode)
		}
		_ = res.Body.Close()
	}
}
