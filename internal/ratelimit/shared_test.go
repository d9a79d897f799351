package ratelimit

import (
	"context"
	"testing"
	"time"

	"github.com/hubbub-chat/hubbub/internal/bus"
	"github.com/hubbub-chat/hubbub/internal/bus/membus"
)

// two are limiters of two nodes, of which the second counts for all keys.
func two(t *testing.T, now time.Time) (a, b *Shared, between *membus.Bus) {
	t.Helper()
	between = membus.New()
	t.Cleanup(func() { _ = between.Close() })
	open := func(name string) *Shared {
		l, err := New(Defaults())
		if err != nil {
			t.Fatal(err)
		}
		s, err := Share(l, SharedOptions{Bus: between, Node: name, Home: func(string) string { return "b" }, Now: func() time.Time { return now }})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	return open("a"), open("b"), between
}

// allowed is how many actions in a row are allowed, to each node in turn.
func allowed(class Class, now time.Time, nodes ...*Shared) (n int) {
	for ; n < 10000; n++ {
		ok, wait := nodes[n%len(nodes)].Allow(class, "@somebody:h", now)
		if !ok && wait <= 0 || ok && wait != 0 {
			return -1
		}
		if !ok {
			return n
		}
	}
	return n
}

// Whoever goes to all nodes in turn may log in, guess, register and have mail sent as
// often as who goes to one; what has to be quick is counted by each node.
func TestShared(t *testing.T) {
	now := time.Unix(1e9, 0)
	for class, limit := range Defaults() {
		a, b, _ := two(t, now)
		want := limit.Burst
		if !shared(class) {
			want *= 2
		}
		if got := allowed(class, now, a, b); got != want {
			t.Errorf("%s: %d at two nodes, %d is the limit", class, got, want)
		}
	}
}

func TestSharedRefund(t *testing.T) {
	now := time.Unix(1e9, 0)
	a, b, _ := two(t, now)
	burst := allowed(LoginAccount, now, a, b)
	a.Refund(LoginAccount, "@somebody:h")
	if got := allowed(LoginAccount, now, b); got != 1 {
		t.Errorf("%d after %d and a refund at another node", got, burst)
	}
}

// A home that is gone is nobody's reason to wait, or to be let in without a limit.
func TestSharedWithoutHome(t *testing.T) {
	now := time.Unix(1e9, 0)
	a, b, _ := two(t, now)
	b.Close()
	if got, want := allowed(Login, now, a), Defaults()[Login].Burst; got != want {
		t.Errorf("%d, want %d", got, want)
	}
}

func TestSharedRefusesNonsense(t *testing.T) {
	_, _, between := two(t, time.Unix(1e9, 0))
	for _, in := range []string{"", "\x01", "\x01login", "\x01send\x00@u:h", "\x07login\x00@u:h", "\x01\x00", "\x01login\x00" + string(make([]byte, maxKey+1))} {
		if got, err := between.Request(context.Background(), limitSubject("b"), bus.Raw(in)); err == nil {
			t.Errorf("%q: %v", in, got)
		}
	}
}
