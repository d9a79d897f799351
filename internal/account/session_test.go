package account

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/merr"
	"github.com/hubbub-chat/hubbub/internal/partition"
	"github.com/hubbub-chat/hubbub/internal/storage"
	"github.com/hubbub-chat/hubbub/internal/tables"
)

func TestRegisterOnce(t *testing.T) {
	w := newWorld(t)
	var made atomic.Int32
	inParallel(50, func(i int) {
		s := session(ids.DeviceID(fmt.Sprint("D", i)), fmt.Sprint(i))
		_, err := w.do(NewRegister(alice, Account{PasswordHash: fmt.Sprint(i)}, fmt.Sprint("Alice ", i), &s))
		switch {
		case err == nil:
			made.Add(1)
		case !merr.Is(err, merr.UserInUse) || merr.From(err).Status != http.StatusBadRequest:
			t.Errorf("register: %v", err)
		}
	})
	a, err := w.r.Account(w.ctx, alice)
	if err != nil || made.Load() != 1 || a == nil || a.CreatedTS != w.clock.Now().UnixMilli() {
		t.Fatalf("registered %d times: %+v, %v", made.Load(), a, err)
	}
	devices, err := w.r.Devices(w.ctx, alice)
	if err != nil || len(devices) != 1 || devices[0].ID != ids.DeviceID("D"+a.PasswordHash) {
		t.Errorf("devices %+v, %v", devices, err)
	}
	if got := w.tokens(alice); got != "A"+a.PasswordHash+" R"+a.PasswordHash+" " {
		t.Errorf("tokens %s", got)
	}
	profile, err := w.r.Profile(w.ctx, alice)
	if err != nil || string(profile["displayname"]) != `"Alice `+a.PasswordHash+`"` {
		t.Errorf("profile %s, %v", profile, err)
	}
	users, err := w.store.Scan(w.ctx, storage.Range{Partition: PlaceOf(alice, partitions).Partition, Table: tables.Users, Limit: 10})
	if err != nil || len(users) != 1 || users[0].Sort != string(alice) {
		t.Errorf("list of users %v, %v", users, err)
	}
}

func TestRegistrationTokens(t *testing.T) {
	w := newWorld(t)
	use := func(u RegTokenUse) (any, error) {
		return w.do(&UseRegToken{Token: "T", Use: u, New: RegToken{UsesAllowed: 3}})
	}
	valid := func() bool {
		ok, err := w.r.RegTokenValid(w.ctx, "T", w.clock.Now().UnixMilli())
		if err != nil {
			t.Fatal(err)
		}
		return ok
	}
	if _, err := use(ConsumeRegToken); !merr.Is(err, merr.Forbidden) || valid() {
		t.Errorf("a token that is not there: %v", err)
	}
	var made, used atomic.Int32
	inParallel(20, func(int) {
		if _, err := use(CreateRegToken); err == nil {
			made.Add(1)
		}
	})
	inParallel(50, func(int) {
		_, err := use(ConsumeRegToken)
		switch {
		case err == nil:
			used.Add(1)
		case !merr.Is(err, merr.Forbidden):
			t.Errorf("consume: %v", err)
		}
	})
	if made.Load() != 1 || used.Load() != 3 || valid() {
		t.Errorf("made %d times, used %d times, valid %v", made.Load(), used.Load(), valid())
	}
	if _, err := use(ReturnRegToken); err != nil || !valid() {
		t.Errorf("return: %v", err)
	}
	if v, err := use(ConsumeRegToken); err != nil || v.(*RegToken).Completed != 2 {
		t.Errorf("consume what was returned: %+v, %v", v, err)
	}
	for range 5 {
		if _, err := use(ReturnRegToken); err != nil {
			t.Error(err)
		}
	}
	if v, err := use(ConsumeRegToken); err != nil || v.(*RegToken).Completed != 0 {
		t.Errorf("more returned than used: %+v, %v", v, err)
	}
	if _, err := use(DeleteRegToken); err != nil || valid() {
		t.Errorf("delete: %v", err)
	}
	if _, err := use(DeleteRegToken); !merr.Is(err, merr.NotFound) {
		t.Errorf("delete again: %v", err)
	}
	expires := w.clock.Now().Add(time.Minute).UnixMilli()
	w.must(&UseRegToken{Token: "E", Use: CreateRegToken, New: RegToken{ExpiresTS: expires, Admin: true}})
	if v := w.must(&UseRegToken{Token: "E", Use: ConsumeRegToken}); !v.(*RegToken).Admin {
		t.Error("not an administrator's")
	}
	w.clock.Advance(time.Minute)
	if _, err := w.do(&UseRegToken{Token: "E", Use: ConsumeRegToken}); !merr.Is(err, merr.Forbidden) {
		t.Errorf("expired: %v", err)
	}
	if _, err := w.do(&UseRegToken{Token: "E", Use: 99}); err == nil {
		t.Error("an unknown use")
	}
}

func TestLoginRefused(t *testing.T) {
	w := newWorld(t)
	for _, c := range []struct {
		account *Account
		want    merr.Code
	}{
		{nil, merr.Forbidden},
		{&Account{Deactivated: true}, merr.UserDeactivated},
		{&Account{Locked: true}, merr.UserLocked},
	} {
		u := ids.UserID(fmt.Sprintf("@%s:h", c.want))
		if c.account != nil {
			w.must(NewRegister(u, *c.account, "", nil))
		}
		if _, err := w.do(NewLogin(u, session("D", "1"), "")); !merr.Is(err, c.want) {
			t.Errorf("login: %v, want %s", err, c.want)
		}
		if w.tokens(u) != "" {
			t.Errorf("%s has tokens", u)
		}
	}
}

// A login to a device that is there ends its tokens, used ones too, and keeps its
// name.
func TestLoginAgain(t *testing.T) {
	w := newWorld(t)
	w.register(alice)
	s := session("D", "1")
	s.DisplayName = "phone"
	w.must(NewLogin(alice, s, ""))
	w.refresh("R1", "2")
	w.use("A2") // R1 is spent
	_, at := w.changes(alice, 0)
	w.login(alice, "D", "3")
	if got := w.tokens(alice); got != "A3 R3 " {
		t.Errorf("tokens %s", got)
	}
	if got := w.ended(alice, at); !slices.Equal(got, []ids.DeviceID{"D"}) {
		t.Errorf("ended %v", got)
	}
	for _, old := range []string{"R1", "R2"} {
		if _, err := w.do(NewRefresh(alice, old, session("", "4"))); !merr.Is(err, merr.UnknownToken) {
			t.Errorf("%s is good again: %v", old, err)
		}
	}
	d, err := w.r.Device(w.ctx, alice, "D")
	if err != nil || d.DisplayName != "phone" {
		t.Errorf("device %+v, %v", d, err)
	}
}

// The password may be changed between its check and the login.
func TestLoginWithOldPassword(t *testing.T) {
	w := newWorld(t)
	w.register(alice)
	login := NewLogin(alice, session("D", "1"), "rehashed")
	login.Proof = "hash"
	w.must(login)
	late := NewLogin(alice, session("E", "2"), "")
	late.Proof = "hash"
	if _, err := w.do(late); !merr.Is(err, merr.Forbidden) || !errors.Is(err, ErrPasswordChanged) {
		t.Errorf("logged in: %v", err)
	}
	late.Proof = "rehashed"
	w.must(late)
	if got := w.tokens(alice); got != "A1 A2 R1 R2 " {
		t.Errorf("tokens %s", got)
	}
}

func TestDeviceCap(t *testing.T) {
	w := newWorld(t)
	w.register(alice)
	device := func(i int) ids.DeviceID { return ids.DeviceID(fmt.Sprintf("D%04d", i)) }
	for i := range MaxDevices {
		w.clock.Advance(time.Second)
		w.login(alice, device(i), fmt.Sprintf("%04d", i))
	}
	w.clock.Advance(time.Second)
	seen := &Seen{TS: w.clock.Now().UnixMilli()}
	w.must(NewUpdateDevice(alice, device(0), nil, seen))
	ended := func(d ids.DeviceID) []ids.DeviceID {
		_, at := w.changes(alice, 0)
		w.clock.Advance(time.Second)
		w.login(alice, d, "x"+string(d))
		devices, err := w.r.Devices(w.ctx, alice)
		if err != nil || len(devices) > MaxDevices {
			t.Fatalf("%d devices, %v", len(devices), err)
		}
		return w.ended(alice, at)
	}
	if got := ended("new"); !slices.Equal(got, []ids.DeviceID{device(1)}) {
		t.Errorf("a new device ended %v, want the one seen least recently", got)
	}
	if got := ended(device(7)); !slices.Equal(got, []ids.DeviceID{device(7)}) {
		t.Errorf("a login to a device that is there ended %v", got)
	}
	// Logins at once may go over the cap for a moment; the next one makes up.
	inParallel(20, func(i int) {
		if _, err := w.do(NewLogin(alice, session(ids.DeviceID(fmt.Sprint("p", i)), fmt.Sprint("p", i)), "")); err != nil {
			t.Errorf("login: %v", err)
		}
	})
	ended("last")
	if tok, err := w.r.Token(w.ctx, alice, "A0001"); tok != nil || err != nil {
		t.Errorf("token of a device that was ended: %+v, %v", tok, err)
	}
}

func TestEndDevices(t *testing.T) {
	w := newWorld(t)
	w.register(alice)
	w.register(bob)
	for i, d := range []ids.DeviceID{"D1", "D2", "D3", "D4"} {
		w.login(alice, d, fmt.Sprint(i+1))
	}
	w.login(bob, "D1", "b")
	w.refresh("R1", "5")
	p := PlaceOf(alice, partitions)
	w.must(raw{p.Partition, func(tx *partition.Tx) {
		for _, d := range []string{"D1", "D12", "D2"} {
			tx.Put(p.key(tables.Inbox, partition.JoinSort(d, "message")), nil, nil)
		}
	}})
	_, at := w.changes(alice, 0)
	if v := w.must(NewEndDevices(alice, "D1", "D9")); !slices.Equal(v.([]ids.DeviceID), []ids.DeviceID{"D1"}) {
		t.Errorf("ended %v", v)
	}
	if got := w.tokens(alice); got != "A2 A3 A4 R2 R3 R4 " {
		t.Errorf("tokens %s", got)
	}
	inbox, err := w.store.Scan(w.ctx, storage.Range{Partition: p.Partition, Table: tables.Inbox, Entity: string(alice), Limit: 9})
	if err != nil || len(inbox) != 2 {
		t.Errorf("inbox %v, %v", inbox, err)
	}
	all := NewEndAll(alice, "D3")
	all.PasswordHash = "new"
	if v := w.must(all); !slices.Equal(v.([]ids.DeviceID), []ids.DeviceID{"D2", "D4"}) {
		t.Errorf("ended %v", v)
	}
	if got := w.ended(alice, at); !slices.Equal(got, []ids.DeviceID{"D1", "D2", "D4"}) {
		t.Errorf("the stream says %v", got)
	}
	end := NewEndAll(alice, "")
	end.Deactivate = true
	w.must(end)
	a, err := w.r.Account(w.ctx, alice)
	if err != nil || !a.Deactivated || a.PasswordHash != "" || w.tokens(alice) != "" {
		t.Errorf("account %+v, %v, tokens %s", a, err, w.tokens(alice))
	}
	if w.tokens(bob) != "Ab Rb " {
		t.Error("another user was logged out")
	}
	nobody := NewEndAll("@nobody:h", "")
	nobody.Deactivate = true
	if _, err := w.do(nobody); !merr.Is(err, merr.NotFound) {
		t.Errorf("nobody's account: %v", err)
	}
}

// raw is a command that only writes.
type raw struct {
	p     ids.Partition
	write func(tx *partition.Tx)
}

func (raw) Name() string                                   { return "raw" }
func (c raw) Partition(int) ids.Partition                  { return c.p }
func (raw) Prepare(context.Context, *partition.Prep) error { return nil }
func (c raw) Apply(tx *partition.Tx) (any, error)          { c.write(tx); return nil, nil }

// racing is a command between whose Prepare and Apply something happens.
type racing struct {
	partition.Command
	between  func()
	prepared int
}

func (r *racing) Prepare(ctx context.Context, p *partition.Prep) error {
	err := r.Command.Prepare(ctx, p)
	if r.prepared++; r.prepared == 1 {
		r.between()
	}
	return err
}

// Logging out everywhere ends the session that begins at the same time.
func TestEndAllMissesNobody(t *testing.T) {
	w := newWorld(t)
	w.register(alice)
	w.login(alice, "D1", "1")
	end := &racing{Command: NewEndAll(alice, "D1"), between: func() { w.login(alice, "thief", "2") }}
	if v := w.must(end); !slices.Equal(v.([]ids.DeviceID), []ids.DeviceID{"thief"}) {
		t.Errorf("ended %v", v)
	}
	if got := w.tokens(alice); got != "A1 R1 " {
		t.Errorf("tokens %s", got)
	}
}

// The end of an account ends the address that is added at the same time, for another to
// have; and none is added to what has ended.
func TestDeactivationMissesNoContact(t *testing.T) {
	w := newWorld(t)
	w.register(alice)
	w.register(bob)
	claim := func(u ids.UserID, address string) {
		w.must(&ClaimContact{Medium: MediumEmail, Address: address, User: u})
	}
	add := func(u ids.UserID, address string) error {
		_, err := w.do(NewAddContact(u, Contact{Medium: MediumEmail, Address: address}))
		return err
	}
	claim(alice, "early@h")
	claim(alice, "late@h")
	end := NewEndAll(alice, "")
	end.Deactivate = true
	w.must(&racing{Command: end, between: func() {
		if err := add(alice, "early@h"); err != nil {
			t.Errorf("before the end: %v", err)
		}
	}})
	if err := add(alice, "late@h"); !merr.Is(err, merr.UserDeactivated) {
		t.Errorf("after the end: %v", err)
	}
	if list, err := w.r.Contacts(w.ctx, alice); err != nil || len(list) != 0 {
		t.Errorf("left: %v, %v", list, err)
	}
	claim(bob, "early@h")
}

// Whether a device shows notifications is forgotten with it, and told to the others; of an
// account that ends nothing stays. spec: MSC3890.
func TestSettingsEndWithDevice(t *testing.T) {
	w := newWorld(t)
	w.register(alice)
	for _, d := range []ids.DeviceID{"D1", "D2", "D3"} {
		w.login(alice, d, string(d))
		for _, prefix := range notificationSettings {
			w.must(NewSetData(alice, "", prefix+string(d), []byte(`{"is_silenced":true}`)))
		}
	}
	left := func() (out []string) {
		t.Helper()
		all, err := w.r.EveryData(w.ctx, alice)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range all {
			if !d.Deleted {
				out = append(out, d.Type)
			}
		}
		return out
	}
	_, at := w.changes(alice, 0)
	w.must(NewEndDevices(alice, "D2"))
	want := []string{
		"m.local_notification_settings.D1", "m.local_notification_settings.D3",
		"org.matrix.msc3890.local_notification_settings.D1", "org.matrix.msc3890.local_notification_settings.D3",
	}
	if got := left(); !slices.Equal(got, want) {
		t.Errorf("left: %v", got)
	}
	told := 0
	list, _ := w.changes(alice, at)
	for _, c := range list {
		if c.Kind == ChangeAccountData {
			told++
		}
	}
	if told != 2 {
		t.Errorf("%d changes of account data", told)
	}
	end := NewEndAll(alice, "")
	end.Deactivate = true
	w.must(end)
	if all, err := w.r.EveryData(w.ctx, alice); err != nil || len(all) != 0 {
		t.Errorf("after the end of the account: %v, %v", all, err)
	}
}

// Two addresses that are added at once do not pass the bound.
func TestContactsAreBounded(t *testing.T) {
	w := newWorld(t)
	w.register(alice)
	add := func(i int) *AddContact {
		address := fmt.Sprint(i, "@h")
		w.must(&ClaimContact{Medium: MediumEmail, Address: address, User: alice})
		return NewAddContact(alice, Contact{Medium: MediumEmail, Address: address})
	}
	for i := range maxContacts - 1 {
		w.must(add(i))
	}
	last := &racing{Command: add(maxContacts), between: func() { w.must(add(maxContacts + 1)) }}
	if _, err := w.do(last); !merr.Is(err, merr.InvalidParam) {
		t.Errorf("one too many: %v", err)
	}
}

func TestUpdateDevice(t *testing.T) {
	w := newWorld(t)
	w.register(alice)
	w.login(alice, "D", "1")
	name := "new name"
	w.must(NewUpdateDevice(alice, "D", &name, nil))
	w.must(NewUpdateDevice(alice, "D", nil, &Seen{IP: "::1", UserAgent: "ua", TS: 5}))
	d, err := w.r.Device(w.ctx, alice, "D")
	if err != nil || d.DisplayName != name || d.LastSeenIP != "::1" || d.UserAgent != "ua" || d.LastSeenTS != 5 || len(d.Tokens) != 2 {
		t.Errorf("device %+v, %v", d, err)
	}
	if _, err := w.do(NewUpdateDevice(alice, "E", &name, nil)); !merr.Is(err, merr.NotFound) {
		t.Errorf("no such device: %v", err)
	}
}
