package e2ee_test

import (
	"fmt"
	"net/http"
	"net/url"
	"testing"

	"github.com/hubbub-chat/hubbub/internal/app/apptest"
)

func inRoom(room, action string) string { return v3 + "/rooms/" + url.PathEscape(room) + "/" + action }

func encrypted() object {
	return object{"preset": "public_chat", "initial_state": []object{
		{"type": "m.room.encryption", "state_key": "", "content": object{"algorithm": "m.megolm.v1.aes-sha2"}},
	}}
}

// settle waits until all announcements of a user that are under way have arrived: they
// arrive in order, and the answer waits for the last. A client may be told of keys
// twice.
func (f *follower) settle(t *testing.T, p *person) {
	t.Helper()
	f.renames++
	p.Must(t, "PUT", v3+"/devices/"+p.Device, object{"display_name": fmt.Sprint("name ", f.renames)})
	f.lists(t)
}

func TestDeviceListsFollowMembership(t *testing.T) {
	s := apptest.Start(t)
	alice, bob := newPerson(t, s, "alice"), newPerson(t, s, "bob")
	f := alice.follow(t)
	bob.publish(t)
	f.expect(t, "a stranger's new keys", "", "")

	room, second := alice.CreateRoom(t, encrypted()), alice.CreateRoom(t, object{"preset": "public_chat"})
	f.expect(t, "rooms of one's own", "", "")
	alice.Must(t, "POST", inRoom(room, "invite"), object{"user_id": bob.UserID})
	f.expect(t, "an invite", "", "")
	bob.Join(t, room)
	f.expect(t, "invite to join", "bob", "")
	f.settle(t, bob)
	f.expect(t, "nothing", "", "")
	bob.Must(t, "PUT", v3+"/profile/"+url.PathEscape(bob.UserID)+"/displayname", object{"displayname": "Bob"})
	f.expect(t, "a new name", "", "")
	bob.Join(t, second)
	f.settle(t, bob)
	bob.Must(t, "POST", inRoom(room, "leave"), object{})
	f.expect(t, "left one of two rooms", "", "")
	phone := bob.again(t)
	f.expect(t, "a login without keys", "", "")
	phone.publish(t)
	f.expect(t, "new keys in the other room", "bob", "")
	bob.Must(t, "POST", inRoom(second, "leave"), object{})
	f.expect(t, "left the last room", "", "bob")
	bob.publish(t)
	phone.Must(t, "POST", v3+"/logout", object{})
	f.expect(t, "changes of somebody without a common room", "", "")
	bob.Join(t, room)
	f.expect(t, "came back", "bob", "")
	f.settle(t, bob)
	alice.Must(t, "POST", inRoom(room, "ban"), object{"user_id": bob.UserID})
	f.expect(t, "banned", "", "bob")
	alice.Must(t, "POST", inRoom(room, "unban"), object{"user_id": bob.UserID})
	f.expect(t, "unbanned", "", "")
	bob.Join(t, room)
	f.expect(t, "after the ban", "bob", "")
	f.settle(t, bob)
	alice.Must(t, "POST", inRoom(room, "kick"), object{"user_id": bob.UserID})
	f.expect(t, "kicked", "", "bob")
}

func TestDeviceListsOfOwnMoves(t *testing.T) {
	s := apptest.Start(t)
	alice, bob, carol := newPerson(t, s, "alice"), newPerson(t, s, "bob"), newPerson(t, s, "carol")
	room, other := bob.CreateRoom(t, encrypted()), bob.CreateRoom(t, object{"preset": "public_chat"})
	carol.Join(t, room)
	f := alice.follow(t)
	alice.Join(t, room)
	f.expect(t, "joined", "bob carol", "")
	alice.Join(t, other)
	f.lists(t)
	alice.Must(t, "POST", inRoom(room, "leave"), object{})
	f.expect(t, "left a room with one who is elsewhere too", "", "carol")
	alice.Must(t, "POST", inRoom(other, "leave"), object{})
	alice.Must(t, "POST", inRoom(other, "forget"), object{})
	f.expect(t, "left and forgot the last", "", "bob")
	// Away for a while: joined, left and came back; meanwhile carol went.
	alice.Join(t, room)
	f.lists(t)
	alice.Must(t, "POST", inRoom(room, "leave"), object{})
	carol.Must(t, "POST", inRoom(room, "leave"), object{})
	alice.Join(t, room)
	f.expect(t, "back in a room that another left", "bob", "carol")
}

func TestDeviceListsOverGaps(t *testing.T) {
	s := apptest.Start(t)
	alice, bob, carol := newPerson(t, s, "alice"), newPerson(t, s, "bob"), newPerson(t, s, "carol")
	room := alice.CreateRoom(t, encrypted())
	for _, p := range []*person{bob, carol} {
		p.publish(t)
		p.Join(t, room)
	}
	f := alice.follow(t)
	f.settle(t, bob)
	f.settle(t, carol)
	phone := bob.again(t)
	phone.publish(t)
	carol.Must(t, "POST", inRoom(room, "leave"), object{})
	for range 30 { // more than a timeline holds
		bob.Send(t, room, "hello")
	}
	s.Restart(t) // nobody was there to see the changes
	alice.Server, bob.Server = s, s
	f.expect(t, "a gap and a restart", "bob", "carol")
	if out := alice.query(t, bob.UserID); len(apptest.At(out, "device_keys", bob.UserID).(object)) != 2 {
		t.Errorf("keys after the change: %v", out)
	}
	// The same gap again: the token is still good, and says no less.
	again := &follower{person: alice, since: f.since}
	again.expect(t, "afterwards", "", "")
}

func TestDeviceListsOfOwnDevicesAndSenders(t *testing.T) {
	s := apptest.Start(t)
	alice, bob := newPerson(t, s, "alice"), newPerson(t, s, "bob")
	f, watcher := alice.follow(t), bob.follow(t)
	laptop := alice.again(t)
	laptop.publish(t)
	f.expect(t, "a new own device", "alice", "")
	watcher.expect(t, "no common room", "", "")
	room := bob.CreateRoom(t, encrypted())
	alice.Join(t, room)
	watcher.expect(t, "alice came", "alice", "")
	watcher.settle(t, laptop)
	f.lists(t)
	laptop.Must(t, "PUT", v3+"/devices/"+laptop.Device, object{"display_name": "laptop"})
	f.expect(t, "a new device name", "alice", "")
	watcher.expect(t, "a new device name", "alice", "")
	laptop.upload(t, object{"device_keys": laptop.deviceKeys(t)})
	watcher.expect(t, "the same keys again", "", "")
	for range 3 {
		alice.oneTimeUpload(t)
	}
	watcher.expect(t, "one-time keys", "", "")
	laptop.Must(t, "POST", v3+"/logout", object{})
	f.expect(t, "an own device gone", "alice", "")
	watcher.expect(t, "a device gone", "alice", "")
	status, out := alice.Do(t, "POST", v3+"/account/deactivate", object{})
	if status != http.StatusUnauthorized {
		t.Fatalf("deactivate: %d", status)
	}
	alice.publish(t)
	watcher.lists(t)
	alice.Must(t, "POST", v3+"/account/deactivate", object{"auth": object{
		"type": "m.login.password", "session": out["session"], "password": apptest.Password,
		"identifier": object{"type": "m.id.user", "user": alice.UserID},
	}})
	// Her devices end at once, she leaves her rooms in the background.
	for range 10 {
		if users(apptest.At(watcher.sync(t), "device_lists", "left")) == "alice" {
			return
		}
		q := url.Values{"since": {watcher.since}, "timeout": {"5000"}}
		watcher.Must(t, "GET", v3+"/sync?"+q.Encode(), nil) // returns when there is more
	}
	t.Error("deactivated: nobody is told that she left")
}

func (p *person) oneTimeUpload(t *testing.T) {
	t.Helper()
	p.upload(t, p.oneTimeKeys(t, 0, 5))
}

func TestEncryptionSwitchedOnListsAll(t *testing.T) {
	s := apptest.Start(t)
	alice, bob := newPerson(t, s, "alice"), newPerson(t, s, "bob")
	room := alice.CreateRoom(t, object{"preset": "public_chat"})
	bob.Join(t, room)
	f := alice.follow(t)
	alice.Must(t, "PUT", inRoom(room, "state/m.room.encryption"), object{"algorithm": "m.megolm.v1.aes-sha2"})
	f.expect(t, "encryption", "bob", "")
}

func TestKeyChangesRefusals(t *testing.T) {
	s := apptest.Start(t)
	alice := newPerson(t, s, "alice")
	f := alice.follow(t)
	alice.Fails(t, "GET", v3+"/keys/changes", nil, 400, "M_MISSING_PARAM")
	alice.Fails(t, "GET", v3+"/keys/changes?from="+f.since, nil, 400, "M_MISSING_PARAM")
	alice.Fails(t, "GET", v3+"/keys/changes?from=x&to="+f.since, nil, 400, "M_INVALID_PARAM")
	alice.Fails(t, "GET", v3+"/keys/changes?to=x&from="+f.since, nil, 400, "M_INVALID_PARAM")
	s.Anonymous().Fails(t, "GET", v3+"/keys/changes?from=x&to=x", nil, 401, "M_MISSING_TOKEN")
}
