package account

import (
	"slices"
	"testing"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/hubbub-chat/hubbub/internal/ids"
)

// TestNames: the index of users follows names and accounts; filling it once more
// changes nothing.
func TestNames(t *testing.T) {
	w := newWorld(t)
	find := func(prefix string, want ...ids.UserID) {
		t.Helper()
		got, more, err := w.r.UsersNamed(w.ctx, prefix, 10)
		if err != nil || more || !slices.Equal(got, want) {
			t.Errorf("%q finds %v (more: %t), %v; want %v", prefix, got, more, err, want)
		}
	}
	w.must(NewRegister(alice, Account{}, "Zoë Müller", nil))
	w.must(NewRegister(bob, Account{}, "", nil))
	find("mull", alice)
	find("bob", bob)
	w.must(NewSetProfile(bob, FieldDisplayName, jsontext.Value(`"Müller 山田"`)))
	find("mull", alice, bob)
	find("田", bob)
	if got, more, err := w.r.UsersNamed(w.ctx, "mull", 1); err != nil || !more || len(got) != 1 {
		t.Errorf("one of two: %v, %t, %v", got, more, err)
	}
	w.must(NewSetProfile(bob, FieldDisplayName, nil))
	find("mull", alice)
	find("none")
	end := NewEndAll(alice, "")
	end.Deactivate = true
	w.must(end)
	find("mull")
	back := NewModify(alice)
	back.Reactivate = "hash"
	w.must(back)
	find("mull", alice)
	w.must(end)
	find("mull")
	names, err := w.r.NamesOf(w.ctx, []ids.UserID{alice, bob, "@none:h"})
	if err != nil || len(names) != 1 || names[0].User != bob {
		t.Errorf("names %v, %v", names, err)
	}
}
