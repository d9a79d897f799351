package session_test

import (
	"log/slog"
	"testing"
	"time"

	"github.com/hubbub-chat/hubbub/internal/account"
	"github.com/hubbub-chat/hubbub/internal/api"
	"github.com/hubbub-chat/hubbub/internal/api/session"
	"github.com/hubbub-chat/hubbub/internal/storage/storagetest"
)

// Looking up many tokens at once is one read, after which each is known; what is no good
// stays so, and what was revoked meanwhile is not believed.
func TestLook(t *testing.T) {
	w := newWorld(t)
	st := &storagetest.Counting{Store: w.store}
	a := session.NewAuthenticator(account.NewReader(st, partitions), w.node, serverName, w.clock, slog.New(slog.DiscardHandler))
	t.Cleanup(a.Close)
	var list []api.Credentials
	for _, name := range []string{"alice", "bob", "carol", "dora"} {
		list = append(list, api.Credentials{Token: w.User(t, name).Token})
	}
	forged := api.Credentials{Token: list[0].Token[:len(list[0].Token)-6] + "AAAAAA"}
	bad := []api.Credentials{forged, {Token: "nonsense"}, {}}
	authenticate := func(c api.Credentials, good bool) {
		t.Helper()
		if _, err := a.Authenticate(t.Context(), c); (err == nil) != good {
			t.Errorf("%s: %v", c.Token, err)
		}
	}
	for i, c := range list { // which also notes that the devices were seen
		caller, err := a.Authenticate(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		if i%2 == 0 { // as sockets do
			list[i] = api.Credentials{User: caller.User, TokenHash: caller.TokenHash}
		}
	}
	for round := range 2 {
		w.clock.Advance(time.Minute)
		st.Reads.Store(0)
		a.Look(t.Context(), append(bad[:len(bad):len(bad)], list...))
		a.Look(t.Context(), list) // all are known
		for _, c := range list {
			authenticate(c, true)
		}
		if n := st.Reads.Load(); n != 1 {
			t.Errorf("round %d: %d reads", round, n)
		}
		for _, c := range bad {
			authenticate(c, false)
		}
	}
	if _, err := w.node.Do(t.Context(), account.NewEndAll("@alice:h", "")); err != nil {
		t.Fatal(err)
	}
	w.clock.Advance(time.Minute)
	a.Look(t.Context(), list)
	authenticate(list[0], false)
	authenticate(list[1], true)
}
