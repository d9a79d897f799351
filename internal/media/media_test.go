package media

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hubbub-chat/hubbub/internal/blob"
	"github.com/hubbub-chat/hubbub/internal/merr"
	"github.com/hubbub-chat/hubbub/internal/partition"
	"github.com/hubbub-chat/hubbub/internal/tables"
)

func wantErr(t *testing.T, what string, err error, code merr.Code) {
	t.Helper()
	if !merr.Is(err, code) {
		t.Errorf("%s: got %v, want %s", what, err, code)
	}
}

// TestReferences: content is stored once, and goes with the last media that shows
// it, to the last row.
func TestReferences(t *testing.T) {
	w := newWorld(t)
	one, two, other := w.upload(alice, "same"), w.upload(bob, "same"), w.upload(alice, "other")
	if all, err := w.Stats(w.ctx); err != nil || all.Media != 3 || all.Bytes != 13 || all.Contents != 2 || all.Stored != 9 {
		t.Errorf("totals: %+v %v", all, err)
	}
	if n := w.stored(); n != 2 {
		t.Errorf("%d blobs", n)
	}
	if err := w.Delete(w.ctx, one); err != nil {
		t.Fatal(err)
	}
	_, err := w.read(one)
	wantErr(t, "deleted", err, merr.NotFound)
	wantErr(t, "deleted again", w.Delete(w.ctx, one), merr.NotFound)
	w.wantContent(two, "same")
	if err := w.Delete(w.ctx, two); err != nil {
		t.Fatal(err)
	}
	if n := w.stored(); n != 1 {
		t.Errorf("%d blobs after the last reference went", n)
	}
	w.wantContent(other, "other")
	again := w.upload(bob, "same")
	w.wantContent(again, "same")
	for _, id := range []ID{again, other} {
		if err := w.Delete(w.ctx, id); err != nil {
			t.Fatal(err)
		}
	}
	w.wantNothing()
}

// TestFailedStore: whatever fails on the way, no row shows what is not there, and
// the bytes go in the end.
func TestFailedStore(t *testing.T) {
	w := newWorld(t)
	w.blobs.put = errors.New("fault")
	up := func() error {
		_, err := w.Upload(w.ctx, Upload{User: alice, Body: strings.NewReader("x")})
		return err
	}
	if err := up(); !errors.Is(err, w.blobs.put) {
		t.Errorf("upload: %v", err)
	}
	w.blobs.put = fmt.Errorf("disk: %w", blob.ErrFull)
	var e *merr.Error
	if err := up(); !errors.As(err, &e) || e.Status != 507 {
		t.Errorf("full: %v", err)
	}
	w.blobs.put = fmt.Errorf("network: %w", blob.ErrAway)
	if err := up(); !errors.As(err, &e) || e.Status != 503 || e.RetryAfter == 0 {
		t.Errorf("away: %v", err)
	}
	w.blobs.put = nil
	if n := w.rows(tables.Media) + w.rows(tables.Content); n != 0 {
		t.Errorf("%d rows of what was not stored", n)
	}

	// Bytes that were stored by an upload that then failed.
	key := blobKey(strings.Repeat("ab", 32))
	if _, err := w.o.Router.Do(w.ctx, &Plan{Hash: strings.Repeat("ab", 32), Key: key, DueTS: w.now() + uploadTTL.Milliseconds()}); err != nil {
		t.Fatal(err)
	}
	if err := w.blobs.Put(w.ctx, key, strings.NewReader("x"), 1); err != nil {
		t.Fatal(err)
	}
	w.sweepAll()
	if w.stored() != 1 {
		t.Error("removed too early")
	}
	w.clock.Advance(uploadTTL)
	w.sweepAll()
	w.wantNothing()
}

// TestFailedRemoval: bytes that could not be removed are removed later.
func TestFailedRemoval(t *testing.T) {
	w := newWorld(t)
	id := w.upload(alice, "x")
	w.blobs.delete = errors.New("fault")
	if err := w.Delete(w.ctx, id); !errors.Is(err, w.blobs.delete) {
		t.Errorf("delete: %v", err)
	}
	_, err := w.read(id)
	wantErr(t, "after the failed removal", err, merr.NotFound)
	w.blobs.delete = nil
	w.sweepAll()
	w.wantNothing()
}

// TestOneThatStays: bytes that cannot be removed keep no others from being removed.
func TestOneThatStays(t *testing.T) {
	w := newWorld(t)
	w.blobs.delete = errors.New("fault")
	hash := strings.Repeat("ab", 32) // so that all are due in one partition, in this order
	for i := range 3 {
		key := fmt.Sprint("key", i)
		if _, err := w.node.Do(w.ctx, &Plan{Hash: hash, Key: key, DueTS: w.now() + int64(i)}); err != nil {
			t.Fatal(err)
		}
		if err := w.blobs.Put(w.ctx, key, strings.NewReader("x"), 1); err != nil {
			t.Fatal(err)
		}
	}
	w.blobs.only = "key0"
	w.clock.Advance(time.Second)
	if err := w.Sweep(w.ctx); !errors.Is(err, w.blobs.delete) {
		t.Errorf("sweep: %v", err)
	}
	if blobs, due := w.stored(), w.rows(tables.MediaDue); blobs != 1 || due != 1 {
		t.Errorf("%d blobs and %d rows are left", blobs, due)
	}
	w.blobs.delete = nil
	w.sweepAll()
	w.wantNothing()
}

// TestUploadWhileRemoved: content that is removed while somebody uploads the same
// is there afterwards.
func TestUploadWhileRemoved(t *testing.T) {
	w := newWorld(t)
	for i := range 20 {
		content := fmt.Sprint("content ", i)
		first := w.upload(alice, content)
		var second ID
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := w.Delete(w.ctx, first); err != nil {
				t.Errorf("delete: %v", err)
			}
		})
		wg.Go(func() { second = w.upload(bob, content) })
		wg.Wait()
		w.wantContent(second, content)
		if err := w.Delete(w.ctx, second); err != nil {
			t.Fatal(err)
		}
	}
	w.sweepAll()
	w.wantNothing()
}

// TestRemovedBeforeAttach: content that an upload wants to share goes at the last
// moment.
func TestRemovedBeforeAttach(t *testing.T) {
	w := newWorld(t)
	first := w.upload(alice, "same")
	w.before = func(cmd partition.Command) {
		if a, ok := cmd.(*Attach); ok && a.Key == "" {
			w.before = nil
			if err := w.Delete(w.ctx, first); err != nil {
				t.Errorf("delete: %v", err)
			}
		}
	}
	second := w.upload(bob, "same")
	if w.before != nil {
		t.Fatal("the content was not shared")
	}
	w.wantContent(second, "same")
	if err := w.Delete(w.ctx, second); err != nil {
		t.Fatal(err)
	}
	w.wantNothing()
}

// TestSameContentAtOnce: two uploads of new content at the same time leave one
// blob.
func TestSameContentAtOnce(t *testing.T) {
	w := newWorld(t)
	var both sync.WaitGroup
	both.Add(2)
	w.blobs.putting = func() { both.Done(); both.Wait() } // neither is done before both have begun
	list := make([]ID, 2)
	var wg sync.WaitGroup
	for i := range list {
		wg.Go(func() { list[i] = w.upload(alice, "same") })
	}
	wg.Wait()
	w.blobs.putting = nil
	for _, id := range list {
		w.wantContent(id, "same")
	}
	if n := w.stored(); n != 1 {
		t.Errorf("%d blobs", n)
	}
	for _, id := range list {
		if err := w.Delete(w.ctx, id); err != nil {
			t.Fatal(err)
		}
	}
	w.wantNothing()
}

// TestReserved: a reserved ID that nobody fills is given up.
func TestReserved(t *testing.T) {
	w := newWorld(t)
	id, due, err := w.Create(w.ctx, alice)
	if err != nil || due != w.now()+PendingTTL.Milliseconds() {
		t.Fatalf("create: %d %v", due, err)
	}
	w.clock.Advance(PendingTTL)
	_, err = w.Upload(w.ctx, Upload{User: alice, ID: id, Body: strings.NewReader("late")})
	wantErr(t, "too late", err, merr.NotFound)
	_, err = w.read(id)
	wantErr(t, "given up", err, merr.NotFound)
	w.sweepAll()
	w.wantNothing()
	if u, err := w.UserUse(w.ctx, alice); err != nil || len(u.Pending) != 0 {
		t.Errorf("still pending: %+v %v", u, err)
	}
}

// slow calls fn at its first Read.
type slow struct {
	io.Reader
	fn func()
}

func (r *slow) Read(b []byte) (int, error) {
	if r.fn != nil {
		r.fn()
		r.fn = nil
	}
	return r.Reader.Read(b)
}

// TestClaims: one upload at a time fills a reserved ID; one that lost its claim
// leaves nothing.
func TestClaims(t *testing.T) {
	w := newWorld(t)
	id, _, err := w.Create(w.ctx, alice)
	if err != nil {
		t.Fatal(err)
	}
	up := func(content string, fn func()) error {
		_, err := w.Upload(w.ctx, Upload{User: alice, ID: id, Body: &slow{strings.NewReader(content), fn}})
		return err
	}
	if err := up("first", func() { wantErr(t, "beside another", up("second", nil), merr.CannotOverwriteMedia) }); err != nil {
		t.Fatal(err)
	}
	w.wantContent(id, "first")
	if err := w.Delete(w.ctx, id); err != nil {
		t.Fatal(err)
	}

	if id, _, err = w.Create(w.ctx, alice); err != nil {
		t.Fatal(err)
	}
	err = up("slow", func() {
		w.clock.Advance(claimTTL + time.Second)
		if err := up("quick", nil); err != nil {
			t.Errorf("after the claim: %v", err)
		}
	})
	wantErr(t, "without its claim", err, merr.CannotOverwriteMedia)
	w.wantContent(id, "quick")
	if err := w.Delete(w.ctx, id); err != nil {
		t.Fatal(err)
	}
	w.refs(0)
	w.sweepAll()
	if n := w.stored() + w.rows(tables.Content) + w.rows(tables.Media); n != 0 {
		t.Errorf("%d traces are left", n)
	}
}

// TestClaimOfAnother: an upload that lost its claim to one that is not done yet
// does not fill the ID.
func TestClaimOfAnother(t *testing.T) {
	w := newWorld(t)
	id, _, err := w.Create(w.ctx, alice)
	if err != nil {
		t.Fatal(err)
	}
	w.before = func(cmd partition.Command) {
		if _, ok := cmd.(*Attach); ok {
			w.before = nil
			w.clock.Advance(claimTTL + time.Second)
			if _, err := w.node.Do(w.ctx, &Claim{ID: id, User: alice, Claim: "other"}); err != nil {
				t.Errorf("claim: %v", err)
			}
		}
	}
	_, err = w.Upload(w.ctx, Upload{User: alice, ID: id, Body: strings.NewReader("late")})
	wantErr(t, "without its claim", err, merr.CannotOverwriteMedia)
	_, err = w.read(id)
	wantErr(t, "the other is not done", err, merr.NotYetUploaded)
}

// TestSameContentUnderTwoClaims: two uploads of the same content to one reserved ID,
// the first of which lost its claim, leave one reference, and nothing when it goes.
func TestSameContentUnderTwoClaims(t *testing.T) {
	w := newWorld(t)
	id, _, err := w.Create(w.ctx, alice)
	if err != nil {
		t.Fatal(err)
	}
	up := func(fn func()) error {
		_, err := w.Upload(w.ctx, Upload{User: alice, ID: id, Body: &slow{strings.NewReader("same"), fn}})
		return err
	}
	err = up(func() {
		w.clock.Advance(claimTTL + time.Second)
		if err := up(nil); err != nil {
			t.Errorf("after the claim: %v", err)
		}
	})
	if err != nil {
		t.Errorf("what was uploaded is there: %v", err)
	}
	w.wantContent(id, "same")
	w.refs(1)
	for range 10_000 { // the list of the user follows by an effect of an effect too
		if w.rows(tables.UserMedia) == 1 {
			break
		}
		time.Sleep(time.Millisecond)
	}
	if u, err := w.UserUse(w.ctx, alice); err != nil || u.Media != 1 || u.Bytes != 4 || len(u.Pending) != 0 || w.rows(tables.UserMedia) != 1 {
		t.Errorf("use: %+v %v", u, err)
	}
	if err := w.Delete(w.ctx, id); err != nil {
		t.Fatal(err)
	}
	w.refs(0)
	w.sweepAll()
	w.wantNothing()
}

// TestClaimOutlivesReservation: who began in time may end after it.
func TestClaimOutlivesReservation(t *testing.T) {
	w := newWorld(t)
	id, _, err := w.Create(w.ctx, alice)
	if err != nil {
		t.Fatal(err)
	}
	w.clock.Advance(PendingTTL - time.Second)
	_, err = w.Upload(w.ctx, Upload{User: alice, ID: id, Body: &slow{strings.NewReader("x"), func() {
		w.clock.Advance(time.Minute)
		w.sweepAll()
	}}})
	if err != nil {
		t.Fatal(err)
	}
	w.sweepAll()
	w.wantContent(id, "x")
}

func TestListByUser(t *testing.T) {
	w := newWorld(t)
	var want []ID
	for i := range 7 {
		want = append([]ID{w.upload(alice, fmt.Sprint(i))}, want...)
		w.clock.Advance(time.Second)
	}
	w.upload(bob, "of bob")
	var got []ID
	for from, pages := "", 0; ; pages++ {
		list, next, err := w.ListByUser(w.ctx, alice, from, 3)
		if err != nil || pages > 3 {
			t.Fatalf("page %d: %v", pages, err)
		}
		for _, m := range list {
			if m.User != alice || m.Size != 1 || m.Name != "n" || m.CreatedTS == 0 {
				t.Errorf("%+v", m)
			}
			got = append(got, m.ID)
		}
		if from = next; next == "" {
			break
		}
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if err := w.Delete(w.ctx, want[0]); err != nil {
		t.Fatal(err)
	}
	if list, _, err := w.ListByUser(w.ctx, alice, "", 100); err != nil || len(list) != 6 {
		t.Errorf("after a removal: %d %v", len(list), err)
	}
	if u, err := w.UserUse(w.ctx, alice); err != nil || u.Media != 6 || u.Bytes != 6 {
		t.Errorf("use: %+v %v", u, err)
	}
	_, _, err := w.ListByUser(w.ctx, alice, "!", 1)
	wantErr(t, "bad token", err, merr.InvalidParam)
}

func TestDeleteOlderThan(t *testing.T) {
	w := newWorld(t)
	old, kept := w.upload(alice, "old"), w.upload(alice, "kept")
	w.clock.Advance(time.Hour)
	between := w.now()
	young := w.upload(bob, "young")
	gone, err := w.DeleteOlderThan(w.ctx, between, func(m *Media) bool { return m.ID == kept })
	if err != nil || gone.Media != 1 || gone.Bytes != 3 {
		t.Errorf("removed %+v %v", gone, err)
	}
	_, err = w.read(old)
	wantErr(t, "old", err, merr.NotFound)
	w.wantContent(kept, "kept")
	w.wantContent(young, "young")
}

func TestQuarantine(t *testing.T) {
	w := newWorld(t)
	one, two := w.upload(alice, "bad"), w.upload(bob, "bad")
	if err := w.Quarantine(w.ctx, one, admin); err != nil {
		t.Fatal(err)
	}
	for _, id := range []ID{one, two} {
		_, err := w.read(id)
		wantErr(t, "read", err, merr.NotFound)
		_, err = w.Thumbnail(w.ctx, id, Thumbnail{Width: 1, Height: 1}, 0)
		wantErr(t, "thumbnail", err, merr.NotFound)
		if m, err := w.Info(w.ctx, id); err != nil || m.Quarantined == nil || m.Quarantined.By != admin {
			t.Errorf("info: %+v %v", m, err)
		}
	}
	_, err := w.Upload(w.ctx, Upload{User: alice, Body: strings.NewReader("bad")})
	wantErr(t, "upload", err, merr.Forbidden)
	if err := w.Unquarantine(w.ctx, two); err != nil {
		t.Fatal(err)
	}
	w.wantContent(one, "bad")
	if err := w.Quarantine(w.ctx, one, admin); err != nil {
		t.Fatal(err)
	}
	for _, id := range []ID{one, two} {
		if err := w.Delete(w.ctx, id); err != nil {
			t.Fatal(err)
		}
	}
	if n := w.stored(); n != 0 {
		t.Errorf("%d blobs", n)
	}
	_, err = w.Upload(w.ctx, Upload{User: alice, Body: strings.NewReader("bad")})
	wantErr(t, "upload after the last went", err, merr.Forbidden)
	wantErr(t, "quarantine of nothing", w.Quarantine(w.ctx, one, admin), merr.NotFound)
}

func TestParseID(t *testing.T) {
	for s, want := range map[string]bool{
		"a": true, "AZaz09-_": true, string(NewID()): true, strings.Repeat("a", 255): true,
		"": false, strings.Repeat("a", 256): false, ".": false, "a.b": false, "a/b": false, "a\\b": false, "a%2f": false,
		"a b": false, "a\x00": false, "ä": false, "@": false, "[": false, "`": false, "{": false,
	} {
		if _, ok := ParseID(s); ok != want {
			t.Errorf("%q: %v", s, ok)
		}
	}
}

func TestWaitEnds(t *testing.T) {
	w := newWorld(t)
	id, _, err := w.Create(w.ctx, alice)
	if err != nil {
		t.Fatal(err)
	}
	_, err = w.Open(w.ctx, id, time.Millisecond)
	wantErr(t, "nobody uploads", err, merr.NotYetUploaded)
}
