package e2ee_test

import (
	"fmt"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/hubbub-chat/hubbub/internal/app/apptest"
)

const backupPath, backedUp = v3 + "/room_keys/version", v3 + "/room_keys/keys"

func newBackup(t *testing.T, p *person) string {
	t.Helper()
	out := p.Must(t, "POST", backupPath, object{"algorithm": "m.megolm_backup.v1.curve25519-aes-sha2", "auth_data": object{"public_key": "abc"}})
	return out["version"].(string)
}

func backupKey(first, forwarded int, verified bool, data string) object {
	return object{"first_message_index": first, "forwarded_count": forwarded, "is_verified": verified, "session_data": object{"ephemeral": data}}
}

func at(path, version string) string { return path + "?version=" + version }

func keyPath(room, session string) string {
	return backedUp + "/" + url.PathEscape(room) + "/" + url.PathEscape(session)
}

func TestBackupVersions(t *testing.T) {
	s := apptest.Start(t)
	alice, bob := newPerson(t, s, "alice"), newPerson(t, s, "bob")
	alice.Fails(t, "GET", backupPath, nil, 404, "M_NOT_FOUND")
	alice.Fails(t, "PUT", at(keyPath("!r:x", "s"), "1"), backupKey(0, 0, true, "x"), 404, "M_NOT_FOUND")
	first := newBackup(t, alice)
	if out := alice.Must(t, "GET", backupPath, nil); asJSON(t, out) != `{"algorithm":"m.megolm_backup.v1.curve25519-aes-sha2","auth_data":{"public_key":"abc"},"count":0,"etag":"0","version":"1"}` {
		t.Errorf("current: %s", asJSON(t, out))
	}
	bob.Fails(t, "GET", backupPath+"/"+first, nil, 404, "M_NOT_FOUND")
	bob.Fails(t, "GET", at(backedUp, first), nil, 404, "M_NOT_FOUND")
	bob.Fails(t, "DELETE", backupPath+"/"+first, nil, 404, "M_NOT_FOUND")
	bob.Fails(t, "PUT", at(keyPath("!r:x", "s"), first), backupKey(0, 0, true, "x"), 404, "M_NOT_FOUND")

	second := newBackup(t, alice)
	if got := alice.Must(t, "GET", backupPath, nil)["version"]; got != second || second == first {
		t.Errorf("current is %v, made were %s and %s", got, first, second)
	}
	algorithm := "m.megolm_backup.v1.curve25519-aes-sha2"
	alice.Must(t, "PUT", backupPath+"/"+first, object{"algorithm": algorithm, "auth_data": object{"new": 1}, "version": first})
	if got := alice.Must(t, "GET", backupPath+"/"+first, nil); apptest.At(got, "auth_data", "new") != 1.0 {
		t.Errorf("after an update: %v", got)
	}
	for _, c := range []struct {
		method, path string
		body         any
		status       int
		code         string
	}{
		{"PUT", backupPath + "/" + first, object{"algorithm": "other", "auth_data": object{}}, 400, "M_INVALID_PARAM"},
		{"PUT", backupPath + "/" + first, object{"algorithm": algorithm, "auth_data": object{}, "version": second}, 400, "M_INVALID_PARAM"},
		{"PUT", backupPath + "/" + first, object{"auth_data": object{}}, 400, "M_MISSING_PARAM"},
		{"PUT", backupPath + "/77", object{"algorithm": algorithm, "auth_data": object{}}, 404, "M_NOT_FOUND"},
		{"PUT", backupPath + "/x", object{"algorithm": algorithm, "auth_data": object{}}, 404, "M_NOT_FOUND"},
		{"POST", backupPath, object{"algorithm": algorithm}, 400, "M_MISSING_PARAM"},
		{"POST", backupPath, object{"algorithm": algorithm, "auth_data": "x"}, 400, "M_BAD_JSON"},
		{"POST", backupPath, object{"algorithm": 1, "auth_data": object{}}, 400, "M_BAD_JSON"},
		{"POST", backupPath, object{"algorithm": algorithm, "auth_data": object{"x": strings.Repeat("x", 40<<10)}}, 413, "M_TOO_LARGE"},
		{"GET", backupPath + "/0", nil, 404, "M_NOT_FOUND"},
		{"GET", backupPath + "/01", nil, 404, "M_NOT_FOUND"},
		{"GET", backupPath + "/-1", nil, 404, "M_NOT_FOUND"},
		{"DELETE", backupPath + "/77", nil, 404, "M_NOT_FOUND"},
		{"DELETE", backupPath + "/x", nil, 404, "M_NOT_FOUND"},
	} {
		alice.Fails(t, c.method, c.path, c.body, c.status, c.code)
	}
	alice.Must(t, "DELETE", backupPath+"/"+second, nil)
	alice.Must(t, "DELETE", backupPath+"/"+second, nil) // deleted before
	alice.Fails(t, "GET", backupPath+"/"+second, nil, 404, "M_NOT_FOUND")
	if got := alice.Must(t, "GET", backupPath, nil)["version"]; got != first {
		t.Errorf("current after a deletion: %v", got)
	}
	if third := newBackup(t, alice); third == second || third == first {
		t.Errorf("version %s was given out again", third)
	}
	s.Anonymous().Fails(t, "GET", backupPath, nil, 401, "M_MISSING_TOKEN")
	for range 18 {
		newBackup(t, alice)
	}
	alice.Fails(t, "POST", backupPath, object{"algorithm": algorithm, "auth_data": object{}}, 400, "M_INVALID_PARAM")
}

func TestBackupReplaceRules(t *testing.T) {
	s := apptest.Start(t)
	alice := newPerson(t, s, "alice")
	for i, c := range []struct {
		what     string
		old, new object
		replaces bool
	}{
		{"verified beats not verified", backupKey(1, 1, false, "old"), backupKey(9, 9, true, "new"), true},
		{"not verified does not beat verified", backupKey(9, 9, true, "old"), backupKey(1, 1, false, "new"), false},
		{"a lower index", backupKey(5, 1, true, "old"), backupKey(4, 9, true, "new"), true},
		{"a higher index", backupKey(5, 1, true, "old"), backupKey(6, 0, true, "new"), false},
		{"fewer forwards", backupKey(5, 2, false, "old"), backupKey(5, 1, false, "new"), true},
		{"more forwards", backupKey(5, 2, false, "old"), backupKey(5, 3, false, "new"), false},
		{"the same", backupKey(5, 2, false, "old"), backupKey(5, 2, false, "new"), false},
	} {
		t.Run(c.what, func(t *testing.T) {
			if i > 0 && i%5 == 0 {
				alice.Must(t, "DELETE", backupPath+"/"+fmt.Sprint(i), nil)
			}
			v := newBackup(t, alice)
			path := at(keyPath("!r:x", "s"), v)
			before := alice.Must(t, "PUT", path, c.old)
			after := alice.Must(t, "PUT", path, c.new)
			want := c.old
			if c.replaces {
				want = c.new
			}
			if got := alice.Must(t, "GET", path, nil); asJSON(t, got) != asJSON(t, want) {
				t.Errorf("kept %v", got)
			}
			if after["count"] != 1.0 || (before["etag"] != after["etag"]) != c.replaces {
				t.Errorf("count and etag: %v, then %v", before, after)
			}
		})
	}
}

func TestBackupKeys(t *testing.T) {
	s := apptest.Start(t)
	alice := newPerson(t, s, "alice")
	old := newBackup(t, alice)
	alice.Must(t, "PUT", at(keyPath("!a:x", "s1"), old), backupKey(0, 0, true, "old"))
	v := newBackup(t, alice)
	status, out := alice.Do(t, "PUT", at(keyPath("!a:x", "s1"), old), backupKey(0, 0, true, "x"))
	if status != 403 || out["errcode"] != "M_WRONG_ROOM_KEYS_VERSION" || out["current_version"] != v {
		t.Errorf("keys for an old version: %d %v", status, out)
	}
	if out := alice.Must(t, "GET", at(backedUp, old), nil); apptest.At(out, "rooms", "!a:x", "sessions", "s1") == nil {
		t.Errorf("keys of an old version: %v", out)
	}
	if out := alice.Must(t, "GET", at(backedUp, v), nil); asJSON(t, out) != `{"rooms":{}}` {
		t.Errorf("no keys: %v", out)
	}
	k := func(n int) object { return backupKey(n, 0, false, "x") }
	all := object{"rooms": object{
		"!a:x": object{"sessions": object{"s1": k(1), "s/2": k(2)}},
		"!b:x": object{"sessions": object{"s1": k(3)}},
	}}
	first := alice.Must(t, "PUT", at(backedUp, v), all)
	if first["count"] != 3.0 {
		t.Errorf("count: %v", first)
	}
	if out := alice.Must(t, "PUT", at(backedUp, v), all); out["etag"] != first["etag"] || out["count"] != 3.0 {
		t.Errorf("the same keys again: %v, before %v", out, first)
	}
	if out := alice.Must(t, "GET", at(backedUp, v), nil); asJSON(t, out) != asJSON(t, all) {
		t.Errorf("all: %s", asJSON(t, out))
	}
	second := alice.Must(t, "PUT", at(backedUp+"/%21b:x", v), object{"sessions": object{"s2": k(4)}})
	if second["count"] != 4.0 || second["etag"] == first["etag"] {
		t.Errorf("after one more: %v", second)
	}
	if out := alice.Must(t, "GET", at(backedUp+"/%21b:x", v), nil); asJSON(t, out) != asJSON(t, object{"sessions": object{"s1": k(3), "s2": k(4)}}) {
		t.Errorf("of a room: %v", out)
	}
	if out := alice.Must(t, "GET", at(backedUp+"/%21none:x", v), nil); asJSON(t, out) != `{"sessions":{}}` {
		t.Errorf("of an unknown room: %v", out)
	}
	alice.Fails(t, "GET", at(keyPath("!a:x", "none"), v), nil, 404, "M_NOT_FOUND")
	alice.Fails(t, "GET", at(keyPath("!a:x", "s1"), "99"), nil, 404, "M_NOT_FOUND")
	if out := alice.Must(t, "GET", "/_matrix/client/unstable/room_keys/keys/%21a:x/s%2F2?version="+v, nil); out["first_message_index"] != 2.0 {
		t.Errorf("by the unstable path: %v", out)
	}
	for _, step := range []struct {
		path  string
		count float64
	}{
		{keyPath("!a:x", "s1"), 3},
		{keyPath("!a:x", "s1"), 3},
		{backedUp + "/%21b:x", 1},
		{backedUp + "/%21none:x", 1},
		{backedUp, 0},
	} {
		if out := alice.Must(t, "DELETE", at(step.path, v), nil); out["count"] != step.count {
			t.Errorf("delete %s: %v, want %v", step.path, out, step.count)
		}
	}
	if out := alice.Must(t, "GET", at(backedUp, v), nil); asJSON(t, out) != `{"rooms":{}}` {
		t.Errorf("after the deletion: %v", out)
	}
	alice.Must(t, "DELETE", backupPath+"/"+old, nil)
	alice.Fails(t, "GET", at(backedUp, old), nil, 404, "M_NOT_FOUND")
	alice.Fails(t, "PUT", at(keyPath("!a:x", "s1"), old), k(1), 404, "M_NOT_FOUND")
}

func TestBackupKeyRefusals(t *testing.T) {
	s := apptest.Start(t)
	alice := newPerson(t, s, "alice")
	v := newBackup(t, alice)
	with := func(name string, value any) object {
		k := backupKey(0, 0, true, "x")
		if k[name] = value; value == nil {
			delete(k, name)
		}
		return k
	}
	path := at(keyPath("!a:x", "s"), v)
	for _, c := range []struct {
		path   string
		body   any
		status int
		code   string
	}{
		{keyPath("!a:x", "s"), backupKey(0, 0, true, "x"), 400, "M_MISSING_PARAM"},
		{at(keyPath("!a:x", "s"), "99"), backupKey(0, 0, true, "x"), 404, "M_NOT_FOUND"},
		{at(keyPath("room", "s"), v), backupKey(0, 0, true, "x"), 400, "M_INVALID_PARAM"},
		{at(keyPath("!a:x", strings.Repeat("s", 256)), v), backupKey(0, 0, true, "x"), 400, "M_INVALID_PARAM"},
		{at(keyPath("!a:x", "s\x00t"), v), backupKey(0, 0, true, "x"), 400, "M_INVALID_PARAM"},
		{path, with("first_message_index", nil), 400, "M_BAD_JSON"},
		{path, with("forwarded_count", nil), 400, "M_BAD_JSON"},
		{path, with("is_verified", nil), 400, "M_BAD_JSON"},
		{path, with("session_data", nil), 400, "M_BAD_JSON"},
		{path, with("session_data", "text"), 400, "M_BAD_JSON"},
		{path, with("first_message_index", -1), 400, "M_BAD_JSON"},
		{path, with("first_message_index", "1"), 400, "M_BAD_JSON"},
		{path, with("session_data", object{"x": strings.Repeat("x", 20<<10)}), 413, "M_TOO_LARGE"},
		{at(backedUp, v), object{}, 400, "M_MISSING_PARAM"},
		{at(backedUp+"/%21a:x", v), object{}, 400, "M_MISSING_PARAM"},
		{at(backedUp, v), object{"rooms": object{"!a:x": object{"sessions": object{"": backupKey(0, 0, true, "x")}}}}, 400, "M_INVALID_PARAM"},
	} {
		alice.Fails(t, "PUT", c.path, c.body, c.status, c.code)
	}
	alice.Fails(t, "GET", backedUp, nil, 400, "M_MISSING_PARAM")
	alice.Fails(t, "DELETE", backedUp, nil, 400, "M_MISSING_PARAM")
	if out := alice.Must(t, "GET", backupPath, nil); out["count"] != 0.0 || out["etag"] != "0" {
		t.Errorf("after refusals: %v", out)
	}
}

// TestBackupCountsUnderRaces: whoever stores and deletes at once, the count is that
// of the keys.
func TestBackupCountsUnderRaces(t *testing.T) {
	s := apptest.Start(t)
	alice := newPerson(t, s, "alice")
	v := newBackup(t, alice)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 20 {
				room, session := fmt.Sprintf("!r%d:x", j%3), fmt.Sprintf("s%d", (i*j)%7)
				if (i+j)%4 == 0 {
					alice.Do(t, "DELETE", at(backedUp+"/"+url.PathEscape(room), v), nil)
					continue
				}
				alice.Do(t, "PUT", at(keyPath(room, session), v), backupKey(20-j, 0, i%2 == 0, "x"))
			}
		})
	}
	wg.Wait()
	n := 0
	for _, r := range apptest.At(alice.Must(t, "GET", at(backedUp, v), nil), "rooms").(object) {
		n += len(r.(object)["sessions"].(object))
	}
	if out := alice.Must(t, "GET", backupPath, nil); out["count"] != float64(n) {
		t.Errorf("%d keys, count %v", n, out["count"])
	}
}
