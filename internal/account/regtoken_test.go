package account

import (
	"slices"
	"testing"

	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/merr"
)

// listed returns the registration tokens of all partitions.
func (w *world) listed() map[string]RegToken {
	w.t.Helper()
	out := make(map[string]RegToken)
	for p := range partitions {
		after := ""
		for {
			list, next, err := w.r.RegTokens(w.ctx, ids.Partition(p), after)
			if err != nil {
				w.t.Fatal(err)
			}
			if next == "" {
				break
			}
			for _, t := range list {
				out[t.Token] = t.RegToken
			}
			after = next
		}
	}
	return out
}

func TestRegTokensAreManaged(t *testing.T) {
	w := newWorld(t)
	for _, name := range []string{"one", "two", "three"} {
		w.must(&UseRegToken{Token: name, Use: CreateRegToken, New: RegToken{UsesAllowed: 1}})
	}
	if _, err := w.do(&UseRegToken{Token: "one", Use: CreateRegToken}); !merr.Is(err, merr.InvalidParam) {
		t.Errorf("a second token of the same name: %v", err)
	}
	w.must(&UseRegToken{Token: "one", Use: ConsumeRegToken})
	if _, err := w.do(&UseRegToken{Token: "one", Use: ConsumeRegToken}); !merr.Is(err, merr.Forbidden) {
		t.Errorf("a token for one use, used twice: %v", err)
	}
	w.must(&UseRegToken{Token: "one", Use: UpdateRegToken, New: RegToken{UsesAllowed: 2, Completed: 9, Admin: true}})
	w.must(&UseRegToken{Token: "one", Use: ConsumeRegToken})
	w.must(&UseRegToken{Token: "two", Use: DeleteRegToken})
	for _, use := range []RegTokenUse{DeleteRegToken, UpdateRegToken} {
		if _, err := w.do(&UseRegToken{Token: "two", Use: use}); !merr.Is(err, merr.NotFound) {
			t.Errorf("use %d of a token that is gone: %v", use, err)
		}
	}
	got := w.listed()
	if len(got) != 2 || got["one"] != (RegToken{UsesAllowed: 2, Completed: 2}) || got["three"] != (RegToken{UsesAllowed: 1}) {
		t.Errorf("listed %v", got)
	}
}

// However many use it at once, a token is good for so many accounts.
func TestRegTokenRace(t *testing.T) {
	w := newWorld(t)
	w.must(&UseRegToken{Token: "t", Use: CreateRegToken, New: RegToken{UsesAllowed: 3}})
	var won [20]bool
	inParallel(len(won), func(i int) {
		_, err := w.do(&UseRegToken{Token: "t", Use: ConsumeRegToken})
		won[i] = err == nil
	})
	n := 0
	for range slices.DeleteFunc(won[:], func(b bool) bool { return !b }) {
		n++
	}
	if n != 3 {
		t.Errorf("%d uses of a token that allows 3", n)
	}
}
