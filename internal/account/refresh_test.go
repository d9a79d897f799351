package account

import (
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/merr"
)

// refresh exchanges a refresh token of alice's for the tokens "A<n>" and "R<n>".
func (w *world) refresh(token, n string) Refreshed {
	w.t.Helper()
	return w.must(NewRefresh(alice, token, session("", n))).(Refreshed)
}

// use is what the first request with a token does.
func (w *world) use(hash string) {
	w.t.Helper()
	tok, err := w.r.Token(w.ctx, alice, hash)
	if err != nil || tok == nil {
		w.t.Fatalf("token %s: %v, %v", hash, tok, err)
	}
	w.must(NewConfirmToken(alice, hash, tok))
}

func refreshing(t *testing.T) *world {
	w := newWorld(t)
	w.register(alice)
	w.login(alice, "D", "1")
	return w
}

func (w *world) wantTokens(want string) {
	w.t.Helper()
	if got := w.tokens(alice); got != want {
		w.t.Errorf("tokens %s, want %s", got, want)
	}
	d, err := w.r.Device(w.ctx, alice, "D")
	if err != nil {
		w.t.Fatal(err)
	}
	named := slices.Clone(d.Tokens)
	if d.Spent != "" && !slices.Contains(named, d.Spent) {
		named = append(named, d.Spent)
	}
	slices.Sort(named)
	got := ""
	for _, h := range named {
		got += h + " "
	}
	if got != w.tokens(alice) {
		w.t.Errorf("the device names %s, stored are %s", got, w.tokens(alice))
	}
}

// The old tokens last until a new one is used.
func TestRefresh(t *testing.T) {
	w := refreshing(t)
	if r := w.refresh("R1", "2"); r.Device != "D" || r.Replayed {
		t.Errorf("%+v", r)
	}
	w.wantTokens("A1 A2 R1 R2 ")
	_, at := w.changes(alice, 0)
	w.use("A2")
	w.wantTokens("A2 R1 R2 ") // R1 is kept to notice its use
	if got := w.ended(alice, at); !slices.Equal(got, []ids.DeviceID{"D"}) {
		t.Errorf("caches are told of %v", got)
	}
	_, at = w.changes(alice, 0)
	w.use("A2") // again: nothing changes
	if list, _ := w.changes(alice, at); len(list) != 0 {
		t.Errorf("the second use changed %+v", list)
	}
	w.refresh("R2", "3")
	w.use("A3")
	w.wantTokens("A3 R2 R3 ")
	if _, err := w.do(NewRefresh(alice, "R1", session("", "4"))); !merr.Is(err, merr.UnknownToken) {
		t.Errorf("the one before the last: %v", err)
	}
	w.wantTokens("A3 R2 R3 ")
}

// Using the new refresh token ends the old tokens just as well.
func TestRefreshWithUnusedPair(t *testing.T) {
	w := refreshing(t)
	w.refresh("R1", "2")
	w.refresh("R2", "3")
	w.wantTokens("A2 A3 R1 R2 R3 ")
	if r := w.refresh("R1", "4"); !r.Replayed {
		t.Errorf("the spent token was taken: %+v", r)
	}
	w.wantTokens("")
}

// The exchange can be repeated when its answer got lost; the tokens of the lost
// answer are void.
func TestLostAnswer(t *testing.T) {
	w := refreshing(t)
	w.refresh("R1", "2")
	_, at := w.changes(alice, 0)
	lost, err := w.r.Token(w.ctx, alice, "A2")
	if err != nil {
		t.Fatal(err)
	}
	w.refresh("R1", "3")
	w.wantTokens("A1 A3 R1 R3 ")
	if got := w.ended(alice, at); !slices.Equal(got, []ids.DeviceID{"D"}) {
		t.Errorf("caches that hold the lost token are told of %v", got)
	}
	if _, err := w.do(NewConfirmToken(alice, "A2", lost)); !merr.Is(err, merr.UnknownToken) {
		t.Errorf("the lost token is used: %v", err)
	}
	if _, err := w.do(NewRefresh(alice, "R2", session("", "9"))); !merr.Is(err, merr.UnknownToken) {
		t.Errorf("the lost refresh token is used: %v", err)
	}
	w.wantTokens("A1 A3 R1 R3 ")
	w.use("A3")
	w.wantTokens("A3 R1 R3 ")
}

// A refresh token that comes back after its successor was used ends the session,
// not the device.
func TestReplayEndsSession(t *testing.T) {
	w := refreshing(t)
	w.login(alice, "E", "e")
	w.refresh("R1", "2")
	w.use("A2")
	_, at := w.changes(alice, 0)
	if r := w.refresh("R1", "3"); !r.Replayed || r.Device != "D" {
		t.Errorf("%+v", r)
	}
	if got := w.tokens(alice); got != "Ae Re " {
		t.Errorf("tokens %s", got)
	}
	if got := w.ended(alice, at); !slices.Equal(got, []ids.DeviceID{"D"}) {
		t.Errorf("ended %v", got)
	}
	if d, err := w.r.Device(w.ctx, alice, "D"); d == nil || err != nil || d.Spent != "" || len(d.Tokens) != 0 {
		t.Errorf("device %+v, %v", d, err)
	}
	for _, token := range []string{"R1", "R2", "R3", "A2"} {
		if _, err := w.do(NewRefresh(alice, token, session("", "4"))); !merr.Is(err, merr.UnknownToken) {
			t.Errorf("%s: %v", token, err)
		}
	}
}

func TestParallelRefreshes(t *testing.T) {
	w := refreshing(t)
	var ok atomic.Int32
	inParallel(20, func(i int) {
		v, err := w.do(NewRefresh(alice, "R1", session("", fmt.Sprintf("p%02d", i))))
		if err != nil || v.(Refreshed).Replayed {
			t.Errorf("refresh: %v, %v", v, err)
			return
		}
		ok.Add(1)
	})
	d, err := w.r.Device(w.ctx, alice, "D")
	if err != nil || ok.Load() != 20 || len(d.Tokens) != 4 {
		t.Fatalf("device %+v, %v", d, err)
	}
	last := d.Tokens[2]
	inParallel(10, func(int) { w.use(last) })
	d, err = w.r.Device(w.ctx, alice, "D")
	if err != nil || len(d.Tokens) != 2 || d.Tokens[0] != last || d.Spent != "R1" {
		t.Errorf("device %+v, %v", d, err)
	}
}

func TestRefreshRefused(t *testing.T) {
	w := refreshing(t)
	refused := func(token string, soft bool) {
		t.Helper()
		_, err := w.do(NewRefresh(alice, token, session("", "9")))
		if !merr.Is(err, merr.UnknownToken) || merr.From(err).Extra["soft_logout"] != any(soft) && soft {
			t.Errorf("%s: %v, %v", token, err, merr.From(err).Extra)
		}
	}
	refused("A1", false)
	refused("nonsense", false)
	w.wantTokens("A1 R1 ")
	expires := w.clock.Now().Add(time.Minute).UnixMilli()
	s := session("D", "2")
	s.RefreshExpiresTS = expires
	w.must(NewLogin(alice, s, ""))
	w.clock.Advance(time.Minute)
	refused("R2", true)
	w.must(NewEndDevices(alice, "D"))
	refused("R2", false)
	w.login(alice, "D", "3")
	end := NewEndAll(alice, "D")
	end.Deactivate = true
	w.must(end)
	if _, err := w.do(NewRefresh(alice, "R3", session("", "9"))); !merr.Is(err, merr.UserDeactivated) {
		t.Errorf("of a deactivated account: %v", err)
	}
}

// Whatever a client does with its tokens, the stored ones are those its device
// names; the last answer works; and there are never more than two generations.
func TestRefreshProperty(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w := refreshing(t)
		defer w.node.Close()
		n, last := 1, "1"
		for range rapid.IntRange(1, 15).Draw(rt, "steps") {
			switch rapid.IntRange(0, 3).Draw(rt, "step") {
			case 0, 1:
				n++
				next := fmt.Sprint(n)
				if r := w.refresh("R"+last, next); r.Replayed {
					rt.Fatalf("R%s counts as spent", last)
				}
				if rapid.Bool().Draw(rt, "answer arrives") {
					last = next
				}
			case 2:
				w.use("A" + last)
			case 3:
				n++
				w.login(alice, "D", fmt.Sprint(n))
				last = fmt.Sprint(n)
			}
			w.wantTokens(w.tokens(alice))
			d, err := w.r.Device(w.ctx, alice, "D")
			if err != nil || len(d.Tokens) > 4 {
				rt.Fatalf("device %+v, %v", d, err)
			}
			if !slices.Contains(d.Tokens, "A"+last) || !slices.Contains(d.Tokens, "R"+last) {
				rt.Fatalf("the last answer was %s, the device has %v", last, d.Tokens)
			}
		}
	})
}
