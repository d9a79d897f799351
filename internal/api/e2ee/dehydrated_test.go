package e2ee_test

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/hubbub-chat/hubbub/internal/app/apptest"
)

const dehydratedPath = "/_matrix/client/unstable/org.matrix.msc3814.v1/dehydrated_device"

// dried is the body that uploads a dehydrated device.
func dried(user, device string) object {
	return object{
		"device_id": device, "device_data": object{"algorithm": "m.dehydration.v1.olm", "pickle": device},
		"initial_device_display_name": "asleep",
		"device_keys": object{
			"user_id": user, "device_id": device, "algorithms": []string{"a"}, "dehydrated": true,
			"keys": object{"curve25519:" + device: "k", "ed25519:" + device: "e"}, "signatures": object{},
		},
		"one_time_keys": object{"signed_curve25519:1": object{"key": "one", "signatures": object{}}},
		"fallback_keys": object{"signed_curve25519:f": object{"key": "fall", "fallback": true, "signatures": object{}}},
	}
}

func deviceIDs(t *testing.T, c *apptest.Client) []string {
	t.Helper()
	out := []string{}
	for _, d := range c.Must(t, "GET", v3+"/devices", nil)["devices"].([]any) {
		out = append(out, d.(object)["device_id"].(string))
	}
	slices.Sort(out)
	return out
}

func TestDehydratedDevice(t *testing.T) {
	s := apptest.Start(t)
	alice, bob := newPerson(t, s, "alice"), newPerson(t, s, "bob")
	room := alice.CreateRoom(t, object{"preset": "public_chat"})
	bob.Join(t, room)
	alice.Fails(t, "GET", dehydratedPath, nil, 404, "M_NOT_FOUND")
	alice.Fails(t, "DELETE", dehydratedPath, nil, 404, "M_NOT_FOUND")
	since := bob.Sync(t, "")["next_batch"].(string)

	const first, second = "dry/1+", "dry2"
	put := alice.Must(t, "PUT", dehydratedPath, dried(alice.UserID, first))
	if put["device_id"] != first {
		t.Errorf("put: %v", put)
	}
	got := alice.Must(t, "GET", dehydratedPath, nil)
	if got["device_id"] != first || apptest.At(got, "device_data", "pickle") != first {
		t.Errorf("get: %v", got)
	}
	bob.Fails(t, "GET", dehydratedPath, nil, 404, "M_NOT_FOUND")

	// Others learn of it, find its keys and write to it.
	out := bob.Sync(t, since)
	if changed, _ := apptest.At(out, "device_lists", "changed").([]any); !slices.Contains(changed, any(alice.UserID)) {
		t.Errorf("bob was not told: %v", out["device_lists"])
	}
	keys := func() any {
		q := bob.Must(t, "POST", v3+"/keys/query", object{"device_keys": object{alice.UserID: []string{}}})
		return apptest.At(q, "device_keys", alice.UserID)
	}
	if apptest.At(keys(), first, "dehydrated") != true {
		t.Errorf("keys: %v", keys())
	}
	claim := bob.Must(t, "POST", v3+"/keys/claim", object{"one_time_keys": object{alice.UserID: object{first: "signed_curve25519"}}})
	if apptest.At(claim, "one_time_keys", alice.UserID, first, "signed_curve25519:1", "key") != "one" {
		t.Errorf("claim: %v", claim)
	}
	for n := range 3 {
		bob.send(t, fmt.Sprint(n), alice.UserID, first, object{"n": n})
	}

	// All messages, in pages, and again.
	events := dehydratedPath + "/" + url.PathEscape(first) + "/events"
	for range 2 {
		page := alice.Must(t, "GET", events+"?limit=2", nil)
		seen := messages(object{"to_device": page})
		page = alice.Must(t, "POST", events, object{"next_batch": page["next_batch"]})
		seen = append(seen, messages(object{"to_device": page})...)
		if !slices.Equal(seen, []int{0, 1, 2}) {
			t.Errorf("messages: %v", seen)
		}
		page = alice.Must(t, "POST", events, object{"next_batch": page["next_batch"]})
		if n := len(page["events"].([]any)); n != 0 || page["next_batch"] == nil {
			t.Errorf("after the last: %v", page)
		}
	}
	alice.Fails(t, "POST", events, object{"next_batch": "x"}, 400, "M_INVALID_PARAM")
	alice.Fails(t, "POST", dehydratedPath+"/other/events", object{}, 403, "M_FORBIDDEN")
	bob.Fails(t, "GET", events, nil, 403, "M_FORBIDDEN")

	// A second one takes the place of the first, whose messages and keys go.
	alice.Must(t, "PUT", dehydratedPath, dried(alice.UserID, second))
	if list := deviceIDs(t, alice.Client); slices.Contains(list, first) || !slices.Contains(list, second) {
		t.Errorf("devices: %v", list)
	}
	if k, _ := keys().(object); k[first] != nil || k[second] == nil {
		t.Errorf("keys: %v", k)
	}
	// The same ID again is a new device.
	alice.Must(t, "PUT", dehydratedPath, dried(alice.UserID, second))
	bob.send(t, "x", alice.UserID, second, object{"n": 7})
	if del := alice.Must(t, "DELETE", dehydratedPath, nil); del["device_id"] != second {
		t.Errorf("delete: %v", del)
	}
	if list := deviceIDs(t, alice.Client); !slices.Equal(list, []string{alice.Device}) {
		t.Errorf("devices: %v", list)
	}
	alice.Fails(t, "GET", dehydratedPath, nil, 404, "M_NOT_FOUND")
}

// TestDehydratedTakenOver: a login on the device makes it one like any other.
func TestDehydratedTakenOver(t *testing.T) {
	s := apptest.Start(t)
	alice := newPerson(t, s, "alice")
	alice.Must(t, "PUT", dehydratedPath, dried(alice.UserID, "dry"))
	s.Anonymous().Must(t, "POST", v3+"/login", object{
		"type": "m.login.password", "password": apptest.Password, "device_id": "dry",
		"identifier": object{"type": "m.id.user", "user": "alice"},
	})
	alice.Fails(t, "GET", dehydratedPath, nil, 404, "M_NOT_FOUND")
	alice.Must(t, "PUT", dehydratedPath, dried(alice.UserID, "dry2"))
	if list := deviceIDs(t, alice.Client); !slices.Contains(list, "dry") {
		t.Errorf("the device that was logged in on has ended: %v", list)
	}
	alice.Fails(t, "PUT", dehydratedPath, dried(alice.UserID, "dry"), 400, "M_INVALID_PARAM")
}

func TestDehydratedRefusals(t *testing.T) {
	s := apptest.Start(t)
	alice := newPerson(t, s, "alice")
	with := func(name string, v any) object {
		o := dried(alice.UserID, "D")
		if v == nil {
			delete(o, name)
		} else {
			o[name] = v
		}
		return o
	}
	for _, c := range []struct {
		body object
		code string
	}{
		{with("device_id", nil), "M_MISSING_PARAM"},
		{with("device_data", nil), "M_MISSING_PARAM"},
		{with("device_keys", nil), "M_MISSING_PARAM"},
		{with("device_data", object{}), "M_MISSING_PARAM"},
		{with("device_data", "x"), "M_BAD_JSON"},
		{with("device_id", "other"), "M_INVALID_PARAM"},
		{with("device_id", "a\x01b"), "M_INVALID_PARAM"},
		{with("device_id", alice.Device), "M_INVALID_PARAM"},
		{with("one_time_keys", object{"odd": "x"}), "M_INVALID_PARAM"},
	} {
		alice.Fails(t, "PUT", dehydratedPath, c.body, 400, c.code)
	}
	alice.Fails(t, "PUT", dehydratedPath, with("device_data", object{"algorithm": strings.Repeat("x", 300<<10)}), 413, "M_TOO_LARGE")
	own := dried(alice.UserID, alice.Device)
	alice.Fails(t, "PUT", dehydratedPath, own, 400, "M_INVALID_PARAM")
	s.Anonymous().Fails(t, "GET", dehydratedPath, nil, 401, "M_MISSING_TOKEN")
}
