package account

import (
	"fmt"
	"testing"
	"time"

	"github.com/hubbub-chat/hubbub/internal/merr"
	"github.com/hubbub-chat/hubbub/internal/storage"
	"github.com/hubbub-chat/hubbub/internal/tables"
)

func (w *world) issue(hash string, use ShortTokenUse) {
	w.t.Helper()
	w.must(NewIssueShortToken(alice, hash, ShortToken{Use: use, ExpiresTS: w.clock.Now().Add(time.Minute).UnixMilli()}))
}

func (w *world) tokenLogin(hash string, d string) error {
	cmd := NewLogin(alice, Session{Device: "D", Access: "A" + d}, "")
	cmd.Token = hash
	_, err := w.do(cmd)
	return err
}

// One login wins, however many show the token at once.
func TestLoginTokenIsUsedOnce(t *testing.T) {
	w := newWorld(t)
	w.register(alice)
	w.issue("h", UseLogin)
	var errs [20]error
	inParallel(len(errs), func(i int) { errs[i] = w.tokenLogin("h", fmt.Sprint(i)) })
	won := 0
	for _, err := range errs {
		switch {
		case err == nil:
			won++
		case !merr.Is(err, merr.Forbidden):
			t.Errorf("got %v", err)
		}
	}
	if won != 1 {
		t.Errorf("%d logins with one token", won)
	}
}

func TestShortTokensEnd(t *testing.T) {
	w := newWorld(t)
	w.register(alice)
	w.issue("expired", UseLogin)
	w.issue("o", UseOpenID)
	if ok, err := w.r.OpenID(w.ctx, alice, "o", w.clock.Now().UnixMilli()); !ok || err != nil {
		t.Errorf("OpenID token: %v %v", ok, err)
	}
	w.clock.Advance(time.Minute)
	if ok, err := w.r.OpenID(w.ctx, alice, "o", w.clock.Now().UnixMilli()); ok || err != nil {
		t.Errorf("OpenID token after its time: %v %v", ok, err)
	}
	w.issue("openid", UseOpenID)
	w.issue("ended", UseLogin)
	w.must(NewEndAll(alice, ""))
	for _, hash := range []string{"expired", "openid", "ended", "unknown"} {
		if err := w.tokenLogin(hash, hash); !merr.Is(err, merr.Forbidden) {
			t.Errorf("login with token %q: %v", hash, err)
		}
	}
}

// A user who asks for one after another does not fill the store.
func TestShortTokensAreBounded(t *testing.T) {
	w := newWorld(t)
	w.register(alice)
	for i := range maxShortTokens + 5 {
		w.issue(fmt.Sprintf("h%02d", i), UseLogin)
		w.clock.Advance(time.Second)
	}
	if err := w.tokenLogin("h04", "a"); !merr.Is(err, merr.Forbidden) {
		t.Errorf("the oldest are still there: %v", err)
	}
	if err := w.tokenLogin(fmt.Sprintf("h%02d", maxShortTokens+4), "b"); err != nil {
		t.Errorf("the newest: %v", err)
	}
}

// TestProofIsSpentOnce: a proof that somebody else issued is good once until it ends,
// whatever other short-lived tokens come and go, and leaves nothing behind then.
func TestProofIsSpentOnce(t *testing.T) {
	w := newWorld(t)
	w.register(alice)
	ends := w.clock.Now().Add(time.Minute).UnixMilli()
	spend := func(hash string, ends int64) bool {
		t.Helper()
		return w.must(NewSpendProof(alice, hash, ends)).(bool)
	}
	if !spend("a", ends) || spend("a", ends) || !spend("b", ends) {
		t.Error("a proof is not good once")
	}
	for i := range 2 * maxShortTokens {
		w.must(NewIssueShortToken(alice, fmt.Sprint("t", i), ShortToken{Use: UseOpenID, ExpiresTS: ends + 1000}))
	}
	if spend("a", ends) || spend("b", ends) {
		t.Error("a proof is good again when others made room")
	}
	w.clock.Advance(2 * time.Minute)
	if !spend("c", ends+time.Hour.Milliseconds()) {
		t.Error("a new proof is not good")
	}
	left := 0
	err := w.r.scan(w.ctx, w.r.Place(alice), tables.ShortToken, "", "", func(e storage.Entry) error {
		st := ShortToken{}
		if err := decode(e.Value, &st); err != nil {
			return err
		}
		if st.Use == UseSpent {
			left++
		}
		return nil
	})
	if err != nil || left != 1 {
		t.Errorf("%d proofs are kept, %v", left, err)
	}
}

// TestProofRace: of those who show one proof at once, one has shown it.
func TestProofRace(t *testing.T) {
	w := newWorld(t)
	w.register(alice)
	var good [20]bool
	inParallel(len(good), func(i int) {
		ok, err := w.do(NewSpendProof(alice, "a", w.clock.Now().Add(time.Minute).UnixMilli()))
		good[i] = err == nil && ok.(bool)
	})
	n := 0
	for _, ok := range good {
		if ok {
			n++
		}
	}
	if n != 1 {
		t.Errorf("it was good %d times", n)
	}
}
