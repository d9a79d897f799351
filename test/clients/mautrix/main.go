// Three users and a bridge chat through a Matrix server, by mautrix-go: what most
// bridges and some clients are made of. The program ends with an error if anything
// is not as they expect it. It is a module of its own, so that the server does not
// depend on a client.
//
//	go run -tags goolm . URL REGISTRATION NAME
//
// The server of this name knows the registration and lets anyone register.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/crypto"
	"maunium.net/go/mautrix/crypto/cryptohelper"
	"maunium.net/go/mautrix/crypto/verificationhelper"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"
)

const (
	password = "correct horse battery staple"
	patience = 15 * time.Second
)

var pickle = []byte("pickle")

func main() {
	if len(os.Args) != 4 {
		fail("usage: mautrix URL REGISTRATION NAME")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	alice, bob, carol := register(ctx, "alice"), register(ctx, "bob"), register(ctx, "carol")
	plain(ctx, alice, bob)
	recovery := alice.crossSign(ctx)
	bob.crossSign(ctx)
	room, first := encrypted(ctx, alice, bob, carol)
	trust(ctx, alice, bob)
	second := restore(ctx, alice, room, first, recovery)
	second.say(ctx, room, "from another device")
	bob.hears("from another device", true)
	eventually("bob does not trust the new device of alice", func() bool {
		return bob.mach.IsDeviceTrusted(ctx, get(bob.mach.GetOrFetchDevice(ctx, alice.UserID, second.DeviceID))("device"))
	})
	bridge(ctx, alice)
	fmt.Fprintln(os.Stderr, "all is well")
}

// fail ends the program.
func fail(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "FAIL: "+format+"\n", args...)
	os.Exit(1)
}

// must ends the program if something went wrong.
func must(what string, err error) {
	if err != nil {
		fail("%s: %v", what, err)
	}
}

// get is the result of a call, which must not fail.
func get[T any](v T, err error) func(what string) T {
	return func(what string) T {
		must(what, err)
		return v
	}
}

func want(what string, ok bool) {
	if !ok {
		fail("%s", what)
	}
}

// eventually waits until something is so.
func eventually(what string, ok func() bool) {
	for end := time.Now().Add(patience); !ok(); time.Sleep(20 * time.Millisecond) {
		want(what, time.Now().Before(end))
	}
}

// take waits for what comes out of a channel.
func take[T any](what string, c chan T) T {
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		fail("no %s", what)
		panic("not reached")
	}
}

// mailbox keeps what someone heard.
type mailbox struct {
	mu     sync.Mutex
	events []*event.Event
}

func (m *mailbox) put(_ context.Context, e *event.Event) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.events = append(m.events, e)
}

// find waits for the first event that fits.
func (m *mailbox) find(what string, fits func(*event.Event) bool) (found *event.Event) {
	eventually(what, func() bool {
		m.mu.Lock()
		defer m.mu.Unlock()
		if i := slices.IndexFunc(m.events, fits); i >= 0 {
			found = m.events[i]
		}
		return found != nil
	})
	return found
}

func (m *mailbox) hears(body string, encrypted bool) *event.Event {
	return m.find("no message "+body, func(e *event.Event) bool {
		return e.Type == event.EventMessage && e.Content.AsMessage().Body == body && e.Mautrix.WasEncrypted == encrypted
	})
}

// device is one device of a user; it syncs.
type device struct {
	*mautrix.Client
	mailbox
	mach         *crypto.OlmMachine
	crypto       *cryptohelper.CryptoHelper
	verification *verificationhelper.VerificationHelper
	// What verification tells.
	asked, ready chan id.VerificationTransactionID
	shown        chan string
	done         chan struct{}
}

func register(ctx context.Context, name string) *device {
	c := get(mautrix.NewClient(os.Args[1], "", ""))("client")
	free := get(c.RegisterAvailable(ctx, name))("ask for a name")
	want(name+" is free", free.Available)
	r := get(c.RegisterDummy(ctx, &mautrix.ReqRegister[any]{Username: name, Password: password}))("register")
	c.SetCredentials(r.UserID, r.AccessToken)
	c.DeviceID = r.DeviceID
	return start(ctx, c)
}

// start makes the device's keys and begins to sync.
func start(ctx context.Context, c *mautrix.Client) *device {
	d := &device{
		Client: c, asked: make(chan id.VerificationTransactionID, 1), ready: make(chan id.VerificationTransactionID, 1),
		shown: make(chan string, 1), done: make(chan struct{}, 1),
	}
	get(c.Versions(ctx))("versions")
	me := get(c.Whoami(ctx))("who am I")
	want("whoami knows the device", me.UserID == c.UserID && me.DeviceID == c.DeviceID)
	c.StateStore = mautrix.NewMemoryStateStore()
	syncer := c.Syncer.(*mautrix.DefaultSyncer)
	syncer.OnEvent(c.StateStoreSyncHandler)
	d.crypto = get(cryptohelper.NewCryptoHelper(c, pickle, crypto.NewMemoryStore(nil)))("crypto helper")
	// What was said before the device was there it cannot read, nor is it given the keys.
	d.crypto.DecryptErrorCallback = func(e *event.Event, err error) {
		fmt.Fprintf(os.Stderr, "%s does not decrypt %s of %s: %v\n", c.DeviceID, e.ID, e.Sender, err)
	}
	must("keys", d.crypto.Init(ctx))
	c.Crypto, d.mach = d.crypto, d.crypto.Machine()
	d.verification = verificationhelper.NewVerificationHelper(c, d.mach, nil, callbacks{d}, false, false, true)
	must("verification", d.verification.Init(ctx))
	syncer.OnEvent(d.put)
	go func() {
		if err := c.SyncWithContext(ctx); err != nil && ctx.Err() == nil {
			fail("sync of %s: %v", c.UserID, err)
		}
	}()
	return d
}

func (d *device) say(ctx context.Context, room id.RoomID, body string) id.EventID {
	return get(d.SendText(ctx, room, body))("say " + body).EventID
}

// join waits for the invitation.
func (d *device) join(ctx context.Context, room id.RoomID) {
	d.find("no invitation", func(e *event.Event) bool {
		return e.RoomID == room && e.Type == event.StateMember && e.GetStateKey() == d.UserID.String() &&
			e.Content.AsMember().Membership == event.MembershipInvite
	})
	get(d.JoinRoomByID(ctx, room))("join")
}

// plain is what needs no encryption.
func plain(ctx context.Context, alice, bob *device) {
	must("display name", alice.SetDisplayName(ctx, "Alice"))
	must("profile field", alice.SetProfileField(ctx, "m.tz", "Europe/Berlin"))
	var profile map[string]string
	must("read a profile field", bob.GetProfileField(ctx, alice.UserID, "m.tz", &profile))
	want("the time zone is kept", profile["m.tz"] == "Europe/Berlin")
	room := get(alice.CreateRoom(ctx, &mautrix.ReqCreateRoom{
		Preset: "private_chat", Name: "Plain", Invite: []id.UserID{bob.UserID},
	}))("create a room").RoomID
	bob.join(ctx, room)

	text := alice.say(ctx, room, "hello")
	bob.hears("hello", false)
	edit := &event.MessageEventContent{MsgType: event.MsgText, Body: "hello again"}
	edit.SetEdit(text)
	get(alice.SendMessageEvent(ctx, room, event.EventMessage, edit))("edit")
	reaction := get(bob.SendReaction(ctx, room, text, "👍"))("react").EventID
	_, err := bob.SendReaction(ctx, room, text, "👍")
	want("a reaction is taken once", errors.Is(err, mautrix.RespError{ErrCode: "M_DUPLICATE_ANNOTATION"}))
	list := get(bob.GetRelations(ctx, room, text, &mautrix.ReqGetRelations{RelationType: event.RelAnnotation}))("relations")
	want("the reaction is listed", len(list.Chunk) == 1 && list.Chunk[0].ID == reaction)
	get(bob.RedactEvent(ctx, room, reaction))("redact")
	must("receipt", bob.SendReceipt(ctx, room, text, event.ReceiptTypeRead, nil))
	alice.find("no receipt", func(e *event.Event) bool {
		return e.Type == event.EphemeralEventReceipt && e.RoomID == room
	})
	page := get(bob.Messages(ctx, room, "", "", mautrix.DirectionBackward, nil, 50))("messages")
	want("the room has a beginning", page.End == "" && page.Chunk[len(page.Chunk)-1].Type == event.StateCreate)

	data := []byte("some file")
	file := get(alice.UploadBytes(ctx, data, "text/plain"))("upload").ContentURI
	want("a file comes back", bytes.Equal(data, get(bob.DownloadBytes(ctx, file))("download")))
	later := get(alice.UploadAsync(ctx, mautrix.ReqUploadMedia{ContentBytes: data, ContentType: "text/plain"}))("upload later")
	want("a file that comes later", bytes.Equal(data, get(bob.DownloadBytes(ctx, later.ContentURI))("wait for a file")))
}

// crossSign makes the keys of the user, and gives the key that recovers them.
func (d *device) crossSign(ctx context.Context) (recovery string) {
	recovery, _, err := d.mach.GenerateAndUploadCrossSigningKeysWithPassword(ctx, password, "")
	must("cross-signing keys", err)
	must("sign the device", d.mach.SignOwnDevice(ctx, d.mach.OwnIdentity()))
	must("sign the master key", d.mach.SignOwnMasterKey(ctx))
	has, verified, err := d.mach.GetOwnVerificationStatus(ctx)
	must("own status", err)
	want("the device is signed", has && verified)
	return recovery
}

// encrypted is a room whose third member comes later; first is what was said before.
func encrypted(ctx context.Context, alice, bob, carol *device) (room id.RoomID, first id.EventID) {
	room = get(alice.CreateRoom(ctx, &mautrix.ReqCreateRoom{
		Preset: "private_chat", Invite: []id.UserID{bob.UserID}, InitialState: []*event.Event{encryption()},
	}))("create an encrypted room").RoomID
	bob.join(ctx, room)
	first = alice.say(ctx, room, "for bob alone")
	bob.hears("for bob alone", true)
	bob.say(ctx, room, "for alice")
	alice.hears("for alice", true)

	get(alice.InviteUser(ctx, room, &mautrix.ReqInviteUser{UserID: carol.UserID}))("invite")
	carol.join(ctx, room)
	for _, d := range []*device{alice, bob} {
		d.find("carol did not come", func(e *event.Event) bool {
			return e.RoomID == room && e.GetStateKey() == carol.UserID.String() && e.Content.AsMember().Membership == event.MembershipJoin
		})
	}
	for _, from := range []*device{alice, bob, carol} {
		body := "from " + string(from.UserID)
		from.say(ctx, room, body)
		for _, to := range []*device{alice, bob, carol} {
			to.hears(body, true)
		}
	}
	return room, first
}

func encryption() *event.Event {
	return &event.Event{Type: event.StateEncryption, Content: event.Content{
		Parsed: &event.EncryptionEventContent{Algorithm: id.AlgorithmMegolmV1},
	}}
}
