package cluster_test

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/hubbub-chat/hubbub/internal/app/apptest"
	"github.com/hubbub-chat/hubbub/internal/config"
	"github.com/hubbub-chat/hubbub/internal/storage/pgstore/pgtest"
)

// Somebody who guesses gets no more guesses by going from node to node.
func TestNodesCountGuessesTogether(t *testing.T) {
	store, join := pgtest.Start(t).Database(t), ""
	node := func(c *config.Config) {
		c.Server.Store, c.Cluster.Listen = store, "127.0.0.1:0"
		c.Limits.NoRateLimits = false
		// The slowest there is, so that no time that passes gives one more.
		c.Limits.Login = config.Rate{PerSecond: 1.0 / 86400, Burst: 5}
		if join != "" {
			c.Server.Join = []string{join}
		}
	}
	a := apptest.Start(t, node)
	join = a.ClusterAddr
	b := apptest.Start(t, node)
	nodes := []*apptest.Server{a, b}

	guess := func(s *apptest.Server, user string) int {
		status, _ := s.Anonymous().Do(t, "POST", "/_matrix/client/v3/login", apptest.Object{
			"type": "m.login.password", "identifier": apptest.Object{"type": "m.id.user", "user": user}, "password": "a guess",
		})
		return status
	}
	// The address may try five times, whoever it asks, and whoever it asks about.
	var got []int
	for i := range 8 {
		got = append(got, guess(nodes[i%len(nodes)], fmt.Sprintf("nobody%d", i)))
	}
	for i, status := range got {
		want := http.StatusForbidden
		if i >= 5 {
			want = http.StatusTooManyRequests
		}
		if status != want {
			t.Errorf("guess %d of one address: %d, want %d", i, status, want)
		}
	}
}
