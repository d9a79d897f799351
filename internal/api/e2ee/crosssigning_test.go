package e2ee_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/hubbub-chat/hubbub/internal/app/apptest"
)

// identity are the cross-signing keys of a user.
type identity struct {
	user                string
	master, self, other signer
}

func newIdentity(user, seed string) identity {
	return identity{user, newSigner(seed + "master"), newSigner(seed + "self"), newSigner(seed + "user")}
}

func (i identity) key(t *testing.T, usage string, k signer) object {
	t.Helper()
	o := object{"user_id": i.user, "usage": []string{usage}, "keys": object{"ed25519:" + k.public: k.public}}
	if usage == "master" {
		return o
	}
	return i.master.sign(t, i.user, i.master.public, o)
}

func (i identity) body(t *testing.T) object {
	t.Helper()
	return object{
		"master_key": i.key(t, "master", i.master), "self_signing_key": i.key(t, "self_signing", i.self),
		"user_signing_key": i.key(t, "user_signing", i.other),
	}
}

const signingPath, signaturesPath = v3 + "/keys/device_signing/upload", v3 + "/keys/signatures/upload"

// withPassword adds what the challenge of a 401 asks for.
func (p *person) withPassword(challenge object, body object, password string) object {
	body["auth"] = object{
		"type": "m.login.password", "session": challenge["session"], "password": password,
		"identifier": object{"type": "m.id.user", "user": p.UserID},
	}
	return body
}

func TestCrossSigningUpload(t *testing.T) {
	s := apptest.Start(t)
	alice, bob := newPerson(t, s, "alice"), newPerson(t, s, "bob")
	room := bob.CreateRoom(t, encrypted())
	alice.Join(t, room)
	own, watcher := alice.follow(t), bob.follow(t)
	first := newIdentity(alice.UserID, "first")
	alice.Must(t, "POST", signingPath, first.body(t)) // no password
	own.expect(t, "first keys", "alice", "")
	watcher.expect(t, "first keys", "alice", "")
	alice.Must(t, "POST", signingPath, first.body(t)) // again
	own.expect(t, "the same keys", "", "")

	out := bob.query(t, alice.UserID)
	for _, k := range []string{"master_keys", "self_signing_keys"} {
		if apptest.At(out, k, alice.UserID) == nil {
			t.Errorf("%s is missing: %v", k, out)
		}
	}
	if apptest.At(out, "user_signing_keys", alice.UserID) != nil {
		t.Error("the user-signing key is shown to another user")
	}
	if out := alice.query(t, alice.UserID); apptest.At(out, "user_signing_keys", alice.UserID) == nil {
		t.Error("the user-signing key is not shown to its owner")
	}

	second := newIdentity(alice.UserID, "second")
	status, challenge := alice.Do(t, "POST", signingPath, second.body(t))
	if status != http.StatusUnauthorized || challenge["errcode"] != nil || asJSON(t, challenge["flows"]) != `[{"stages":["m.login.password"]}]` {
		t.Fatalf("other keys without a password: %d %v", status, challenge)
	}
	status, wrong := alice.Do(t, "POST", signingPath, alice.withPassword(challenge, second.body(t), "wrong"))
	if status != http.StatusUnauthorized || wrong["errcode"] != "M_FORBIDDEN" {
		t.Errorf("other keys with a wrong password: %d %v", status, wrong)
	}
	// Another's session is no good.
	bob.Must(t, "POST", signingPath, newIdentity(bob.UserID, "b").body(t))
	bob.Fails(t, "POST", signingPath, bob.withPassword(challenge, newIdentity(bob.UserID, "c").body(t), apptest.Password), 403, "M_FORBIDDEN")
	watcher.lists(t)
	own.lists(t)
	alice.Must(t, "POST", signingPath, alice.withPassword(challenge, second.body(t), apptest.Password))
	watcher.expect(t, "other keys", "alice", "")
	if got := apptest.At(bob.query(t, alice.UserID), "master_keys", alice.UserID, "keys", "ed25519:"+second.master.public); got != second.master.public {
		t.Errorf("master key after the change: %v", got)
	}
}

func TestCrossSigningRefusals(t *testing.T) {
	s := apptest.Start(t)
	alice := newPerson(t, s, "alice")
	id := newIdentity(alice.UserID, "a")
	self := object{"self_signing_key": id.key(t, "self_signing", id.self)}
	alice.Fails(t, "POST", signingPath, self, 400, "M_MISSING_PARAM")
	with := func(name string, value any) object {
		k := id.key(t, "master", id.master)
		k[name] = value
		return object{"master_key": k}
	}
	for _, c := range []struct {
		what string
		body any
		code string
	}{
		{"another user", with("user_id", "@bob:"+apptest.Name), "M_INVALID_PARAM"},
		{"another usage", with("usage", []string{"self_signing"}), "M_INVALID_PARAM"},
		{"no key", with("keys", object{}), "M_INVALID_PARAM"},
		{"two keys", with("keys", object{"ed25519:" + id.master.public: id.master.public, "ed25519:" + id.self.public: id.self.public}), "M_INVALID_PARAM"},
		{"a key of another name", with("keys", object{"ed25519:name": id.master.public}), "M_INVALID_PARAM"},
		{"a key that is none", with("keys", object{"ed25519:x": "x"}), "M_INVALID_PARAM"},
		{"a wrong form", with("keys", "x"), "M_BAD_JSON"},
		{"not signed", object{
			"master_key":       id.key(t, "master", id.master),
			"self_signing_key": object{"user_id": alice.UserID, "usage": []string{"self_signing"}, "keys": object{"ed25519:" + id.self.public: id.self.public}},
		}, "M_INVALID_SIGNATURE"},
		{"signed by another key", object{
			"master_key":       id.key(t, "master", id.master),
			"user_signing_key": newIdentity(alice.UserID, "b").key(t, "user_signing", id.other),
		}, "M_INVALID_SIGNATURE"},
	} {
		t.Run(c.what, func(t *testing.T) { alice.Fails(t, "POST", signingPath, c.body, 400, c.code) })
	}
	if out := alice.query(t, alice.UserID); len(out["master_keys"].(object)) != 0 {
		t.Errorf("a refused key was stored: %v", out)
	}
	alice.Must(t, "POST", signingPath, object{})
	alice.Must(t, "POST", signingPath, id.body(t))
}

func TestSignatures(t *testing.T) {
	s := apptest.Start(t)
	alice, bob, carol := newPerson(t, s, "alice"), newPerson(t, s, "bob"), newPerson(t, s, "carol")
	a, b := newIdentity(alice.UserID, "a"), newIdentity(bob.UserID, "b")
	alice.publish(t)
	bob.publish(t)
	alice.Must(t, "POST", signingPath, a.body(t))
	bob.Must(t, "POST", signingPath, b.body(t))
	room := bob.CreateRoom(t, encrypted())
	alice.Join(t, room)
	carol.Join(t, room)
	carols, alices := carol.follow(t), alice.follow(t)
	carols.settle(t, alice)
	alices.lists(t)

	signed := a.self.sign(t, alice.UserID, a.self.public, alice.deviceKeys(t))
	alice.Must(t, "POST", signaturesPath, object{alice.UserID: object{alice.Device: signed}})
	carols.expect(t, "a signed device", "alice", "")
	device := apptest.At(carol.query(t, alice.UserID), "device_keys", alice.UserID, alice.Device)
	sigs := apptest.At(device, "signatures", alice.UserID).(object)
	if len(sigs) != 2 || sigs["ed25519:"+a.self.public] == nil {
		t.Errorf("signatures of the device: %v", sigs)
	}
	master := alice.signer.sign(t, alice.UserID, alice.Device, a.key(t, "master", a.master))
	alice.Must(t, "POST", signaturesPath, object{alice.UserID: object{a.master.public: master}})
	carols.expect(t, "a signed master key", "alice", "")
	if got := apptest.At(carol.query(t, alice.UserID), "master_keys", alice.UserID, "signatures", alice.UserID, "ed25519:"+alice.Device); got == nil {
		t.Error("the device's signature of the master key is not shown")
	}

	// Of another user: alone the signer sees it, and learns of it on all devices.
	alices.lists(t)
	theirs := a.other.sign(t, alice.UserID, a.other.public, b.key(t, "master", b.master))
	out := alice.Must(t, "POST", signaturesPath, object{bob.UserID: object{b.master.public: theirs}})
	if asJSON(t, out) != `{"failures":{}}` {
		t.Errorf("failures: %v", out)
	}
	alices.expect(t, "a user verified", "bob", "")
	carols.expect(t, "a user verified by another", "", "")
	seen := func(p *person) any {
		return apptest.At(p.query(t, bob.UserID), "master_keys", bob.UserID, "signatures", alice.UserID, "ed25519:"+a.other.public)
	}
	if seen(alice) == nil || seen(carol) != nil || seen(bob) != nil {
		t.Errorf("who sees the signature: alice %v, carol %v, bob %v", seen(alice), seen(carol), seen(bob))
	}
	alice.Must(t, "POST", signaturesPath, object{bob.UserID: object{b.master.public: theirs}})
	alices.expect(t, "the same again", "", "")

	// New cross-signing keys: what the old ones signed is gone.
	status, challenge := alice.Do(t, "POST", signingPath, newIdentity(alice.UserID, "z").body(t))
	if status != http.StatusUnauthorized {
		t.Fatalf("reset: %d", status)
	}
	alice.Must(t, "POST", signingPath, alice.withPassword(challenge, newIdentity(alice.UserID, "z").body(t), apptest.Password))
	if seen(alice) != nil {
		t.Error("a signature by the old user-signing key is still there")
	}
	device = apptest.At(carol.query(t, alice.UserID), "device_keys", alice.UserID, alice.Device)
	if n := len(apptest.At(device, "signatures", alice.UserID).(object)); n != 1 {
		t.Errorf("%d signatures of the device after the reset", n)
	}
}

func TestSignatureRefusals(t *testing.T) {
	s := apptest.Start(t)
	alice, bob := newPerson(t, s, "alice"), newPerson(t, s, "bob")
	a, b := newIdentity(alice.UserID, "a"), newIdentity(bob.UserID, "b")
	alice.publish(t)
	bob.publish(t)
	alice.Must(t, "POST", signingPath, a.body(t))
	bob.Must(t, "POST", signingPath, b.body(t))
	device := alice.deviceKeys(t)
	changed := alice.deviceKeys(t)
	changed["algorithms"] = []string{}
	for _, c := range []struct {
		what      string
		user, key string
		object    object
		code      string
	}{
		{"no signature", alice.UserID, alice.Device, device, "M_INVALID_SIGNATURE"},
		{"by another key", alice.UserID, alice.Device, a.other.sign(t, alice.UserID, a.other.public, device), "M_INVALID_SIGNATURE"},
		{"under a wrong name", alice.UserID, alice.Device, a.other.sign(t, alice.UserID, a.self.public, device), "M_INVALID_SIGNATURE"},
		{"of something else", alice.UserID, alice.Device, a.self.sign(t, alice.UserID, a.self.public, changed), "M_INVALID_SIGNATURE"},
		{"of no device", alice.UserID, "NONE", a.self.sign(t, alice.UserID, a.self.public, device), "M_NOT_FOUND"},
		{"of another's device", bob.UserID, bob.Device, a.other.sign(t, alice.UserID, a.other.public, bob.deviceKeys(t)), "M_NOT_FOUND"},
		{"of another's master key, in their name", bob.UserID, b.master.public, b.other.sign(t, bob.UserID, b.other.public, b.key(t, "master", b.master)), "M_INVALID_SIGNATURE"},
		{"of another's master key, by the wrong key", bob.UserID, b.master.public, a.self.sign(t, alice.UserID, a.self.public, b.key(t, "master", b.master)), "M_INVALID_SIGNATURE"},
		{"of an unknown user", "@nobody:" + apptest.Name, "k", object{}, "M_NOT_FOUND"},
	} {
		t.Run(c.what, func(t *testing.T) {
			out := alice.Must(t, "POST", signaturesPath, object{c.user: object{c.key: c.object}})
			if got := apptest.At(out, "failures", c.user, c.key, "errcode"); got != c.code {
				t.Errorf("%v, want %s", out, c.code)
			}
		})
	}
	if n := len(apptest.At(bob.query(t, alice.UserID), "device_keys", alice.UserID, alice.Device, "signatures", alice.UserID).(object)); n != 1 {
		t.Errorf("%d signatures after refusals", n)
	}
	alice.Fails(t, "POST", signaturesPath, object{"alice": object{}}, 400, "M_INVALID_PARAM")
	alice.Fails(t, "POST", signaturesPath, object{alice.UserID: object{"k": 1}}, 400, "M_BAD_JSON")
	alice.Fails(t, "POST", signaturesPath, object{alice.UserID: object{"k": object{"x": strings.Repeat("x", 20<<10)}}}, 413, "M_TOO_LARGE")
}
