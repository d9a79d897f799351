package e2ee_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/hubbub-chat/hubbub/internal/app/apptest"
)

func TestUploadAndQuery(t *testing.T) {
	s := apptest.Start(t)
	alice, bob := newPerson(t, s, "alice"), newPerson(t, s, "bob")

	out := alice.query(t, bob.UserID, "@nobody:"+apptest.Name)
	if got := asJSON(t, out); got != `{"device_keys":{"@bob:test.localhost":{},"@nobody:test.localhost":{}},"failures":{},"master_keys":{},"self_signing_keys":{},"user_signing_keys":{}}` {
		t.Errorf("query before any upload: %s", got)
	}

	keys := bob.deviceKeys(t)
	spoofed := bob.deviceKeys(t)
	spoofed["unsigned"] = object{"device_display_name": "Alice's phone"}
	counts := bob.upload(t, object{"device_keys": spoofed})
	if got := asJSON(t, counts); got != `{"one_time_key_counts":{"signed_curve25519":0}}` {
		t.Errorf("counts: %s", got)
	}
	stored := apptest.At(alice.query(t, bob.UserID), "device_keys", bob.UserID, bob.Device)
	if asJSON(t, stored) != asJSON(t, keys) {
		t.Errorf("query: %s, want %s", asJSON(t, stored), asJSON(t, keys))
	}
	bob.Must(t, "PUT", v3+"/devices/"+bob.Device, object{"display_name": "laptop"})
	stored = apptest.At(alice.query(t, bob.UserID), "device_keys", bob.UserID, bob.Device)
	if apptest.At(stored, "unsigned", "device_display_name") != "laptop" {
		t.Errorf("display name: %v", stored)
	}

	second := bob.again(t)
	if n := len(apptest.At(alice.query(t, bob.UserID), "device_keys", bob.UserID).(object)); n != 1 {
		t.Errorf("%d devices shown, one has uploaded keys", n)
	}
	second.publish(t)
	only := alice.Must(t, "POST", v3+"/keys/query", object{"device_keys": object{bob.UserID: []string{second.Device, "NONE"}}})
	devices := apptest.At(only, "device_keys", bob.UserID).(object)
	if len(devices) != 1 || devices[second.Device] == nil {
		t.Errorf("query of one device: %v", devices)
	}
}

func TestUploadRefusals(t *testing.T) {
	s := apptest.Start(t)
	alice := newPerson(t, s, "alice")
	with := func(name string, value any) object {
		k := alice.deviceKeys(t)
		k[name] = value
		return object{"device_keys": k}
	}
	without := func(name string) object {
		k := alice.deviceKeys(t)
		delete(k, name)
		return object{"device_keys": k}
	}
	oneTime := func(id string, key any) object { return object{"one_time_keys": object{id: key}} }
	for _, c := range []struct {
		what string
		body any
		code int
		err  string
	}{
		{"another user", with("user_id", "@bob:"+apptest.Name), 400, "M_INVALID_PARAM"},
		{"another device", with("device_id", "OTHER"), 400, "M_INVALID_PARAM"},
		{"a key of another device", with("keys", object{"ed25519:OTHER": "x"}), 400, "M_INVALID_PARAM"},
		{"keys that are a list", with("keys", []string{}), 400, "M_BAD_JSON"},
		{"no signatures", without("signatures"), 400, "M_BAD_JSON"},
		{"no user", without("user_id"), 400, "M_BAD_JSON"},
		{"a float", with("n", 1.5), 400, "M_BAD_JSON"},
		{"a string", object{"device_keys": "x"}, 400, "M_BAD_JSON"},
		{"too large", with("padding", strings.Repeat("x", 20<<10)), 413, "M_TOO_LARGE"},
		{"a key without algorithm", oneTime("AAAA", object{"key": "x"}), 400, "M_INVALID_PARAM"},
		{"a key without name", oneTime("signed_curve25519:", object{"key": "x"}), 400, "M_INVALID_PARAM"},
		{"a key ID with NUL", oneTime("a:b\x00c", object{"key": "x"}), 400, "M_INVALID_PARAM"},
		{"a key that is a number", oneTime("a:b", 1), 400, "M_BAD_JSON"},
		{"a key object without key", oneTime("a:b", object{}), 400, "M_BAD_JSON"},
		{"a long key ID", oneTime("a:"+strings.Repeat("b", 255), "x"), 400, "M_INVALID_PARAM"},
		{"a large key", oneTime("a:b", object{"key": strings.Repeat("x", 20<<10)}), 413, "M_TOO_LARGE"},
		{"keys in a list", object{"one_time_keys": []string{}}, 400, "M_BAD_JSON"},
		{"two fallback keys", object{"fallback_keys": object{"a:1": "x", "a:2": "y"}}, 400, "M_INVALID_PARAM"},
		{"no JSON", "{", 400, "M_NOT_JSON"},
	} {
		t.Run(c.what, func(t *testing.T) {
			alice.Fails(t, "POST", v3+"/keys/upload", c.body, c.code, c.err)
		})
	}
	alice.Fails(t, "POST", v3+"/keys/upload/OTHER", object{}, 400, "M_INVALID_PARAM")
	alice.Must(t, "POST", v3+"/keys/upload/"+alice.Device, object{})
	many := object{}
	for i := range 20 {
		many[fmt.Sprintf("algorithm%d:k", i)] = "x"
	}
	alice.Fails(t, "POST", v3+"/keys/upload", object{"one_time_keys": many}, 400, "M_INVALID_PARAM")
	if out := alice.query(t, alice.UserID); len(apptest.At(out, "device_keys", alice.UserID).(object)) != 0 {
		t.Errorf("something refused was stored: %v", out)
	}
	anyone := s.Anonymous()
	for _, path := range []string{"/keys/upload", "/keys/query", "/keys/claim", "/keys/device_signing/upload", "/keys/signatures/upload"} {
		anyone.Fails(t, "POST", v3+path, object{}, 401, "M_MISSING_TOKEN")
	}
}

func TestQueryAndClaimRefusals(t *testing.T) {
	s := apptest.Start(t)
	alice := newPerson(t, s, "alice")
	for _, c := range []struct {
		path string
		body any
		code string
	}{
		{"query", object{}, "M_MISSING_PARAM"},
		{"query", object{"device_keys": object{"alice": []string{}}}, "M_INVALID_PARAM"},
		{"query", object{"device_keys": object{alice.UserID: object{"DEVICE": []string{}}}}, "M_BAD_JSON"},
		{"query", object{"device_keys": []string{alice.UserID}}, "M_BAD_JSON"},
		{"claim", object{}, "M_MISSING_PARAM"},
		{"claim", object{"one_time_keys": object{"alice": object{}}}, "M_INVALID_PARAM"},
		{"claim", object{"one_time_keys": object{alice.UserID: object{alice.Device: 1}}}, "M_BAD_JSON"},
		{"claim", object{"one_time_keys": object{alice.UserID: object{strings.Repeat("D", 2000): "a"}}}, "M_INVALID_PARAM"},
	} {
		alice.Fails(t, "POST", v3+"/keys/"+c.path, c.body, 400, c.code)
	}
	out := alice.Must(t, "POST", v3+"/keys/claim", object{"one_time_keys": object{
		alice.UserID: object{"NONE": "signed_curve25519"}, "@nobody:elsewhere": object{"X": "signed_curve25519"},
	}})
	if got := asJSON(t, out); got != `{"failures":{},"one_time_keys":{}}` {
		t.Errorf("claim of nothing: %s", got)
	}
}

func count(sync object) any {
	return apptest.At(sync, "device_one_time_keys_count", "signed_curve25519")
}

func fallbacks(t *testing.T, sync object) string {
	t.Helper()
	return asJSON(t, sync["device_unused_fallback_key_types"])
}

func TestOneTimeKeysAreUsedInOrderAndOnce(t *testing.T) {
	s := apptest.Start(t)
	alice, bob := newPerson(t, s, "alice"), newPerson(t, s, "bob")
	bob.publish(t)
	f := bob.follow(t)
	if count(f.last) != 0.0 || fallbacks(t, f.last) != "[]" {
		t.Errorf("before: %v", f.last)
	}
	// The names are not in the order of the upload.
	one, two := bob.oneTime(t, "one"), bob.oneTime(t, "two")
	first := fmt.Sprintf(`{"one_time_keys":{"signed_curve25519:Z":%s,"signed_curve25519:A":%s}}`, asJSON(t, one), asJSON(t, two))
	bob.Must(t, "POST", v3+"/keys/upload", first)
	bob.upload(t, object{"one_time_keys": object{"signed_curve25519:M": bob.oneTime(t, "three")}})
	fallback := object{"signed_curve25519:F": bob.oneTime(t, "fallback")}
	if out := bob.upload(t, object{"fallback_keys": fallback}); apptest.At(out, "one_time_key_counts", "signed_curve25519") != 3.0 {
		t.Errorf("counts: %v", out)
	}
	if out := f.sync(t); count(out) != 3.0 || fallbacks(t, out) != `["signed_curve25519"]` {
		t.Errorf("after upload: %v", out)
	}
	for i, want := range []string{"Z", "A", "M", "F", "F"} {
		id, key := alice.claim(t, bob.UserID, bob.Device)
		if id != "signed_curve25519:"+want {
			t.Fatalf("claim %d: %s, want %s", i, id, want)
		}
		if want == "Z" && asJSON(t, key) != asJSON(t, one) {
			t.Errorf("the key is %v", key)
		}
		out := f.sync(t)
		if left := float64(max(0, 2-i)); count(out) != left {
			t.Errorf("after claim %d: %v left, want %v", i, count(out), left)
		}
		if unused := i < 3; (fallbacks(t, out) != "[]") != unused {
			t.Errorf("after claim %d: fallback %s", i, fallbacks(t, out))
		}
	}
	// What was claimed does not come back, whoever repeats the upload; another key under its
	// name is refused.
	bob.Must(t, "POST", v3+"/keys/upload", first)
	if id, _ := alice.claim(t, bob.UserID, bob.Device); id != "signed_curve25519:F" {
		t.Errorf("a claimed key came back: %s", id)
	}
	bob.Fails(t, "POST", v3+"/keys/upload", object{"one_time_keys": object{"signed_curve25519:A": one}}, 400, "M_INVALID_PARAM")
	// The same fallback key again stays a used one, a new one is unused.
	bob.upload(t, object{"fallback_keys": fallback})
	if out := f.sync(t); fallbacks(t, out) != "[]" {
		t.Errorf("the used fallback key again: %v", out)
	}
	bob.upload(t, object{"fallback_keys": object{"signed_curve25519:G": bob.oneTime(t, "G")}})
	if out := f.sync(t); fallbacks(t, out) != `["signed_curve25519"]` {
		t.Errorf("a new fallback key: %v", out)
	}
}

func TestSameKeyUploadedAgain(t *testing.T) {
	s := apptest.Start(t)
	bob := newPerson(t, s, "bob")
	body := bob.oneTimeKeys(t, 0, 3)
	bob.upload(t, body)
	if out := bob.upload(t, body); apptest.At(out, "one_time_key_counts", "signed_curve25519") != 3.0 {
		t.Errorf("the same keys again: %v", out)
	}
	more := bob.oneTimeKeys(t, 1, 5)
	if out := bob.upload(t, more); apptest.At(out, "one_time_key_counts", "signed_curve25519") != 5.0 {
		t.Errorf("overlapping upload: %v", out)
	}
	// The members of an object have no order: the same key, written differently.
	bob.Must(t, "POST", v3+"/keys/upload", fmt.Sprintf(`{"one_time_keys":{"signed_curve25519:K00000":{ "signatures":%s, "key":%q}}}`,
		asJSON(t, bob.oneTime(t, "signed_curve25519:K00000")["signatures"]), "public part of signed_curve25519:K00000"))
	bad := bob.oneTimeKeys(t, 5, 7)
	bad["one_time_keys"].(object)["signed_curve25519:K00001"] = bob.oneTime(t, "other")
	bob.Fails(t, "POST", v3+"/keys/upload", bad, 400, "M_INVALID_PARAM")
	if out := bob.upload(t, object{}); apptest.At(out, "one_time_key_counts", "signed_curve25519") != 5.0 {
		t.Errorf("a refused upload left keys: %v", out)
	}
}

// TestManyClaimAtOnce: 50 claimers over HTTP, some of which give up and repeat.
func TestManyClaimAtOnce(t *testing.T) {
	s := apptest.Start(t)
	bob := newPerson(t, s, "bob")
	const keys, claimers, each = 120, 50, 3
	bob.upload(t, bob.oneTimeKeys(t, 0, keys))
	bob.upload(t, object{"fallback_keys": object{"signed_curve25519:F": bob.oneTime(t, "F")}})
	alice := newPerson(t, s, "alice")
	var mu sync.Mutex
	got := map[string]int{}
	var wg sync.WaitGroup
	for range claimers {
		wg.Go(func() {
			for range each {
				id, _ := alice.claim(t, bob.UserID, bob.Device)
				mu.Lock()
				got[id]++
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	for id, n := range got {
		if n > 1 && id != "signed_curve25519:F" {
			t.Errorf("%s was handed out %d times", id, n)
		}
	}
	if len(got) != keys+1 || got["signed_curve25519:F"] != claimers*each-keys || got[""] != 0 {
		t.Errorf("%d different keys, the fallback key %d times, none %d times", len(got), got["signed_curve25519:F"], got[""])
	}
}

func TestLogoutRemovesKeys(t *testing.T) {
	s := apptest.Start(t)
	alice, bob := newPerson(t, s, "alice"), newPerson(t, s, "bob")
	phone := bob.again(t)
	phone.publish(t)
	phone.upload(t, phone.oneTimeKeys(t, 0, 3))
	phone.upload(t, object{"fallback_keys": object{"signed_curve25519:F": phone.oneTime(t, "F")}})
	phone.Must(t, "POST", v3+"/logout", object{})
	if out := alice.query(t, bob.UserID); len(apptest.At(out, "device_keys", bob.UserID).(object)) != 0 {
		t.Errorf("keys of a device that logged out: %v", out)
	}
	if id, _ := alice.claim(t, bob.UserID, phone.Device); id != "" {
		t.Errorf("claimed %s of a device that logged out", id)
	}
	// The same device ID, logged in anew, begins with nothing.
	out := s.Anonymous().Must(t, "POST", v3+"/login", object{
		"type": "m.login.password", "password": apptest.Password, "device_id": phone.Device,
		"identifier": object{"type": "m.id.user", "user": bob.UserID},
	})
	phone.Token = out["access_token"].(string)
	if got := phone.upload(t, object{}); apptest.At(got, "one_time_key_counts", "signed_curve25519") != 0.0 {
		t.Errorf("keys of the device before: %v", got)
	}
	if out := alice.query(t, bob.UserID); len(apptest.At(out, "device_keys", bob.UserID).(object)) != 0 {
		t.Errorf("identity keys of the device before: %v", out)
	}
	phone.upload(t, phone.oneTimeKeys(t, 0, 1))
	if id, _ := alice.claim(t, bob.UserID, phone.Device); id != "signed_curve25519:K00000" {
		t.Errorf("claimed %q of the new device", id)
	}
}
