package security

import (
	"crypto/hmac"
	"crypto/sha1"
	"encoding/hex"
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/hubbub-chat/hubbub/internal/app/apptest"
	"github.com/hubbub-chat/hubbub/internal/config"
)

func metrics(c *config.Config) { c.Server.MetricsListen = "127.0.0.1:0" }

// administrator makes an administrator with the shared secret.
func administrator(t *testing.T, s *apptest.Server, name string) *apptest.Client {
	t.Helper()
	const path = "/_synapse/admin/v1/register"
	a := s.Anonymous()
	nonce := a.Must(t, "GET", path, nil)["nonce"].(string)
	mac := hmac.New(sha1.New, []byte(s.Config.Registration.SharedSecret.Reveal()))
	fmt.Fprintf(mac, "%s\x00%s\x00%s\x00admin", nonce, name, apptest.Password)
	out := a.Must(t, "POST", path, object{
		"nonce": nonce, "username": name, "password": apptest.Password, "admin": true, "mac": hex.EncodeToString(mac.Sum(nil)),
	})
	a.Token, a.UserID = out["access_token"].(string), out["user_id"].(string)
	t.Cleanup(a.HTTP.CloseIdleConnections)
	return a
}

// members are the names of what requests hold, of all modules.
func members() []string {
	return strings.Fields(`
		address admin algorithm aliases algorithms appservice_id auth auth_data auth_url avatar_url bind body bound by_profile
		canonical_alias client_secret conditions content creation_content country custom data deactivated default delay_id
		device_display_name device_id device_keys device_name device_signing devices dir displayname display_name
		email enabled erase event_id event_ids events exclude_rooms_not_in_space external_ids fallback_keys filter force_purge
		format from full_state generic_search_term guest_access_token id_access_token id_server identifier include_all_networks
		inhibit_login initial_device_display_name initial_state invite invite_3pid is_direct keys kind lang limit limit_per_room lock
		logout_devices m.fully_read m.read m.read.private m.relates_to mac master_key max_depth medium membership messages
		method msgtype name new_password new_room_user_id new_version next_link nonce one_time_keys one_time_key order order_by
		password passwords phone_number power_level_content_override predecessor preset presence profile_tag purge purge_up_to_ts pushkey
		reason refresh_token response room_alias_name room_id room_version rooms rotated_keys score search_categories search_term
		self_signing_key send_attempt sessions session session_data set_presence sid signatures since state_key status_msg
		suspended third_party_instance_id threepids timeout token tokens topic ts txn_id type typing until url user user_id
		user_signing_key username users uses_allowed expiry_time version via visibility`)
}

// hostileBodies are what no client sends. Some are well-formed objects in which
// everything has the wrong type.
func hostileBodies() map[string]string {
	out := map[string]string{
		"empty": "", "array": "[]", "string": `"x"`, "null": "null", "number": "1", "cut off": `{"a":`, "two": `{}{}`,
		"depth":            strings.Repeat(`{"a":`, 100_000) + "1" + strings.Repeat("}", 100_000),
		"deep":             `{"content":` + strings.Repeat(`[`, 1000) + strings.Repeat("]", 1000) + "}",
		"duplicate member": `{"user_id":"@a:b","user_id":"@c:d"}`,
		"not UTF-8":        "{\"body\":\"\xff\xfe\"}", "lone surrogate": `{"body":"\ud800","reason":"\udfff"}`,
		"large": `{"body":"` + strings.Repeat("x", 70_000) + `"}`,
	}
	values := map[string]string{
		"number": "1", "huge": "1e400", "beyond 2^53": "9007199254740993", "minus zero": "-0", "fraction": "1.5", "negative": "-1", "boolean": "true", "null": "null",
		"list": `[[{"$regex":".*"}]]`, "operator": `{"$gt":"","$regex":".*"}`, "NUL": `"a\u0000b"`, "quotes": `"' OR 1=1; --\" \\"`,
		"path": `"../../../etc/passwd%2e%2e%2f"`, "long": `"@` + strings.Repeat("x", 300) + `:test.localhost"`, "markup": `"<svg onload=alert(1)>"`, "nothing": `""`,
	}
	for name, v := range values {
		var b strings.Builder
		b.WriteString(`{"x":1`)
		for _, m := range members() {
			fmt.Fprintf(&b, `,%q:%s`, m, v)
		}
		out["every member is "+name] = b.String() + "}"
	}
	return out
}

// hostileValues are parameters of paths and queries.
func hostileValues() map[string]string {
	return map[string]string{
		"empty": "", "NUL": "a\x00b", "not UTF-8": "\xff", "long": "!" + strings.Repeat("x", 300), "dots": "../..", "quotes": `'";--`,
		"proto": "__proto__", "spaces": " \t\r\n", "bidi": "\u202e\u2066", "huge": "99999999999999999999", "negative": "-9223372036854775808",
	}
}

// queries are the names of what queries hold.
func queries() []string {
	return strings.Fields(`at dir event_fields filter format from full_state from_token limit max_depth membership not_membership order_by
		org.matrix.msc4140.delay recurse room_id search_term server since suggested_only timeout to token ts url user_id version
		width height method deactivated guests name redirectUrl loginToken username from to before_ts size_gt`)
}

// TestHostileRequests: nothing that is sent to any route makes the server fail, or
// keeps it from answering. It is the table of routes that is gone through, by a user
// and by an administrator.
func TestHostileRequests(t *testing.T) {
	t.Parallel()
	s := apptest.Start(t)
	n := 0
	fresh := func() (*apptest.Client, *apptest.Client) {
		n++
		return s.User(t, fmt.Sprint("user", n)), administrator(t, s, fmt.Sprint("admin", n))
	}
	user, admin := fresh()
	prey := s.User(t, "prey") // whom administrators act upon
	for _, r := range s.Routes() {
		if r.Path == "/_hubbub/v1/ws" {
			continue // internal/gateway has tests of its own
		}
		c := user
		if r.Access == apptest.Admins {
			c = admin
		}
		values := map[string]string{"userId": user.UserID, "roomId": user.CreateRoom(t, nil), "txnId": "t", "deviceId": user.Device, "eventType": "m.room.message"}
		values["roomIdOrAlias"] = values["roomId"]
		if r.Access == apptest.Admins {
			values["userId"] = prey.UserID
		}
		target := fillIn(r.Path, values)
		judge := func(what, target string, body any) {
			t.Helper()
			if status, raw, _ := c.Raw(t, r.Method, target, body); status >= 500 && status != 502 || status < 200 {
				t.Errorf("%s %s, %s: %d %.200s", r.Method, r.Path, what, status, raw)
			}
		}
		if r.Method != "GET" && !r.Stream {
			for what, body := range hostileBodies() {
				judge(what, target, body)
			}
		}
		for what, v := range hostileValues() {
			every := map[string]string{}
			for _, p := range parameter.FindAllStringSubmatch(r.Path, -1) {
				every[p[1]] = v
			}
			q := url.Values{}
			for _, name := range queries() {
				q.Set(name, v)
			}
			q.Del("timeout")
			judge("parameters are "+what, fillIn(r.Path, every), object{})
			judge("the query is "+what, target+"?"+q.Encode(), object{})
		}
		judge("a query of 64 KB", target+"?filter="+strings.Repeat("x", 64<<10), object{})
		if status, _, _ := c.Raw(t, "GET", v3+"/account/whoami", nil); status != 200 {
			user, admin = fresh() // the call ended the session, as it may
		}
	}
}
