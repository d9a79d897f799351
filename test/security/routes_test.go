package security

import (
	"encoding/json"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/hubbub-chat/hubbub/internal/app/apptest"
)

// foreign says, for each route that names somebody or something, what becomes of a
// call with what is another's: it is refused; or it is about what the caller has of
// that name (own); or it is for everyone to do (shared): media can be fetched by
// every user who knows its address, and anyone may report.
const foreign = `
own GET /_matrix/client/v3/devices/{deviceId}
own PUT /_matrix/client/v3/devices/{deviceId}
own DELETE /_matrix/client/v3/devices/{deviceId}
refused GET /_matrix/client/v3/admin/whois/{userId}
refused POST /_matrix/client/v3/user/{userId}/openid/request_token
refused GET /_matrix/client/v3/presence/{userId}/status
refused PUT /_matrix/client/v3/presence/{userId}/status
refused POST /_matrix/client/v3/join/{roomIdOrAlias}
refused POST /_matrix/client/v3/rooms/{roomId}/join
refused POST /_matrix/client/v3/knock/{roomIdOrAlias}
refused POST /_matrix/client/v3/rooms/{roomId}/invite
refused POST /_matrix/client/v3/rooms/{roomId}/leave
refused POST /_matrix/client/v3/rooms/{roomId}/kick
refused POST /_matrix/client/v3/rooms/{roomId}/ban
refused POST /_matrix/client/v3/rooms/{roomId}/unban
own POST /_matrix/client/v3/rooms/{roomId}/forget
refused POST /_matrix/client/v3/rooms/{roomId}/upgrade
refused GET /_matrix/client/v3/rooms/{roomId}/members
refused GET /_matrix/client/v3/rooms/{roomId}/joined_members
refused GET /_matrix/client/v3/rooms/{roomId}/state
refused GET /_matrix/client/v3/rooms/{roomId}/state/{eventType}/{stateKey}
refused PUT /_matrix/client/v3/rooms/{roomId}/state/{eventType}/{stateKey}
refused PUT /_matrix/client/v3/rooms/{roomId}/send/{eventType}/{txnId}
refused PUT /_matrix/client/v3/rooms/{roomId}/redact/{eventId}/{txnId}
refused GET /_matrix/client/v3/rooms/{roomId}/event/{eventId}
refused GET /_matrix/client/v3/rooms/{roomId}/context/{eventId}
refused GET /_matrix/client/v3/rooms/{roomId}/messages
refused GET /_matrix/client/v3/rooms/{roomId}/initialSync
refused GET /_matrix/client/v1/rooms/{roomId}/timestamp_to_event
refused POST /_matrix/client/v3/rooms/{roomId}/receipt/{receiptType}/{eventId}
refused POST /_matrix/client/v3/rooms/{roomId}/read_markers
refused PUT /_matrix/client/v3/rooms/{roomId}/typing/{userId}
refused PUT /_matrix/client/v3/rooms/{roomId}/delayed_event/{eventType}/{txnId}
refused GET /_matrix/client/v1/delayed_events/{delayId}
refused GET /_matrix/client/v1/rooms/{roomId}/hierarchy
shared POST /_matrix/client/v3/rooms/{roomId}/report
refused POST /_matrix/client/v3/rooms/{roomId}/report/{eventId}
shared POST /_matrix/client/v3/users/{userId}/report
refused GET /_matrix/client/v1/rooms/{roomId}/relations/{eventId}
refused GET /_matrix/client/v1/rooms/{roomId}/relations/{eventId}/{relType}
refused GET /_matrix/client/v1/rooms/{roomId}/relations/{eventId}/{relType}/{eventType}
refused GET /_matrix/client/v1/rooms/{roomId}/threads
refused GET /_matrix/client/unstable/io.element.msc4306/rooms/{roomId}/thread/{threadRoot}/subscription
refused PUT /_matrix/client/unstable/io.element.msc4306/rooms/{roomId}/thread/{threadRoot}/subscription
refused DELETE /_matrix/client/unstable/io.element.msc4306/rooms/{roomId}/thread/{threadRoot}/subscription
refused GET /_matrix/client/v3/rooms/{roomId}/aliases
refused PUT /_matrix/client/v3/directory/room/{roomAlias}
refused DELETE /_matrix/client/v3/directory/room/{roomAlias}
refused PUT /_matrix/client/v3/directory/list/room/{roomId}
refused GET /_matrix/client/v3/user/{userId}/account_data/{type}
refused PUT /_matrix/client/v3/user/{userId}/account_data/{type}
refused GET /_matrix/client/v3/user/{userId}/rooms/{roomId}/account_data/{type}
refused PUT /_matrix/client/v3/user/{userId}/rooms/{roomId}/account_data/{type}
refused DELETE /_matrix/client/unstable/org.matrix.msc3391/user/{userId}/account_data/{type}
refused DELETE /_matrix/client/unstable/org.matrix.msc3391/user/{userId}/rooms/{roomId}/account_data/{type}
refused GET /_matrix/client/v3/user/{userId}/rooms/{roomId}/tags
refused PUT /_matrix/client/v3/user/{userId}/rooms/{roomId}/tags/{tag}
refused DELETE /_matrix/client/v3/user/{userId}/rooms/{roomId}/tags/{tag}
refused POST /_matrix/client/v3/user/{userId}/filter
refused GET /_matrix/client/v3/user/{userId}/filter/{filterId}
own GET /_matrix/client/v3/pushrules/global/{kind}/{ruleId}
own PUT /_matrix/client/v3/pushrules/global/{kind}/{ruleId}
own DELETE /_matrix/client/v3/pushrules/global/{kind}/{ruleId}
own GET /_matrix/client/v3/pushrules/global/{kind}/{ruleId}/enabled
own PUT /_matrix/client/v3/pushrules/global/{kind}/{ruleId}/enabled
own GET /_matrix/client/v3/pushrules/global/{kind}/{ruleId}/actions
own PUT /_matrix/client/v3/pushrules/global/{kind}/{ruleId}/actions
refused PUT /_matrix/client/v3/profile/{userId}/{keyName}
refused DELETE /_matrix/client/v3/profile/{userId}/{keyName}
own GET /_matrix/client/v3/room_keys/version/{version}
own PUT /_matrix/client/v3/room_keys/version/{version}
own DELETE /_matrix/client/v3/room_keys/version/{version}
own PUT /_matrix/client/v3/room_keys/keys/{roomId}/{sessionId}
own GET /_matrix/client/v3/room_keys/keys/{roomId}/{sessionId}
own DELETE /_matrix/client/v3/room_keys/keys/{roomId}/{sessionId}
own PUT /_matrix/client/v3/room_keys/keys/{roomId}
own GET /_matrix/client/v3/room_keys/keys/{roomId}
own DELETE /_matrix/client/v3/room_keys/keys/{roomId}
refused POST /_matrix/client/unstable/org.matrix.msc3814.v1/dehydrated_device/{deviceId}/events
refused GET /_matrix/client/unstable/org.matrix.msc3814.v1/dehydrated_device/{deviceId}/events
refused POST /_matrix/client/v1/appservice/{appserviceId}/ping
refused PUT /_matrix/client/v3/directory/list/appservice/{networkId}/{roomId}
refused PUT /_matrix/media/v3/upload/{serverName}/{mediaId}
shared GET /_matrix/client/v1/media/download/{serverName}/{mediaId}
shared GET /_matrix/client/v1/media/thumbnail/{serverName}/{mediaId}
`

// open are the routes that need no access token. Whoever adds one says so here.
const open = `
GET /_matrix/client/v3/login
POST /_matrix/client/v3/login
POST /_matrix/client/v3/refresh
POST /_matrix/client/v3/register
GET /_matrix/client/v3/register/available
GET /_matrix/client/v1/register/m.login.registration_token/validity
POST /_matrix/client/v3/account/password
POST /_matrix/client/v3/account/3pid/msisdn/requestToken
POST /_matrix/client/v3/register/email/requestToken
POST /_matrix/client/v3/register/msisdn/requestToken
POST /_matrix/client/v3/account/password/email/requestToken
POST /_matrix/client/v3/account/password/msisdn/requestToken
GET /_synapse/admin/v1/register
POST /_synapse/admin/v1/register
GET /_hubbub/v1/email/validate
POST /_hubbub/v1/email/validate
GET /_matrix/federation/v1/openid/userinfo
GET /_matrix/client/v3/login/sso/redirect
GET /_matrix/client/v3/login/sso/redirect/{idpId}
GET /_hubbub/v1/sso/callback/{idpId}
GET /_matrix/client/v3/auth/{authType}/fallback/web
POST /_matrix/client/v1/delayed_events/{delayId}/{action}
POST /_matrix/client/v1/delayed_events/{delayId}
GET /_matrix/client/v1/room_summary/{roomIdOrAlias}
GET /_matrix/client/v3/directory/room/{roomAlias}
GET /_matrix/client/v3/directory/list/room/{roomId}
GET /_matrix/client/v3/publicRooms
GET /_matrix/client/v3/profile/{userId}
GET /_matrix/client/v3/profile/{userId}/{keyName}
GET /_matrix/client/versions
GET /.well-known/matrix/client
GET /.well-known/matrix/server
GET /.well-known/matrix/support
GET /_hubbub/v1/info
GET /_matrix/media/v3/download/{serverName}/{mediaId}
GET /_matrix/media/v3/thumbnail/{serverName}/{mediaId}
GET /_hubbub/v1/ws
`

// names are the parameters that name somebody or something of somebody's.
func names() []string {
	return []string{
		"userId", "deviceId", "roomId", "roomIdOrAlias", "roomAlias", "eventId", "filterId", "sessionId", "version",
		"delayId", "mediaId", "threadRoot", "ruleId", "appserviceId", "networkId", "pushkey",
	}
}

func lines(text string) []string { return strings.Split(strings.TrimSpace(text), "\n") }

var parameter = regexp.MustCompile(`\{(\w+)(\.\.\.)?\}`)

// fillIn puts values into the parameters of a path.
func fillIn(path string, values map[string]string) string {
	return parameter.ReplaceAllStringFunc(path, func(p string) string {
		name := strings.TrimSuffix(strings.Trim(p, "{}"), "...")
		if v, ok := values[name]; ok {
			return url.PathEscape(v)
		}
		return "x"
	})
}

// TestRoutesAskForTokens: a route that is not in the list of open ones answers nobody
// without a good token, and each route is in a rate class.
func TestRoutesAskForTokens(t *testing.T) {
	t.Parallel()
	s := apptest.Start(t)
	none, wrong := s.Anonymous(), s.Anonymous()
	wrong.Token = "hbb_wrong"
	listed := lines(open)
	for _, r := range s.Routes() {
		name := r.Method + " " + r.Path
		if r.Rate == "" {
			t.Errorf("%s is in no rate class", name)
		}
		if i := slices.Index(listed, name); (r.Access == apptest.Anyone) != (i >= 0) {
			t.Errorf("%s is for %s, and in the list of open routes: %v", name, r.Access, i >= 0)
		} else if i >= 0 {
			listed = slices.Delete(listed, i, i+1)
			continue
		}
		target := fillIn(r.Path, nil)
		none.Fails(t, r.Method, target, object{}, http.StatusUnauthorized, "M_MISSING_TOKEN")
		wrong.Fails(t, r.Method, target, object{}, http.StatusUnauthorized, "M_UNKNOWN_TOKEN")
	}
	if len(listed) > 0 {
		t.Errorf("no routes any more: %q", listed)
	}
}

// TestAdminRoutesRefuseUsers: whoever is no administrator gets nothing from the routes
// of administrators.
func TestAdminRoutesRefuseUsers(t *testing.T) {
	t.Parallel()
	s := apptest.Start(t)
	user, seen := s.User(t, "user"), 0
	for _, r := range s.Routes() {
		admin := strings.Contains(r.Path, "/admin/") && r.Access != apptest.Anyone && !strings.Contains(r.Path, "/v3/admin/whois/")
		if admin != (r.Access == apptest.Admins) {
			t.Errorf("%s %s is for %s", r.Method, r.Path, r.Access)
		}
		if admin {
			seen++
			user.Fails(t, r.Method, fillIn(r.Path, map[string]string{"userId": user.UserID}), object{}, http.StatusForbidden, "M_FORBIDDEN")
		}
	}
	if seen < 40 {
		t.Errorf("only %d routes of administrators were found", seen)
	}
}

// TestNothingOfOperatorsInPublic: what operators look at is on another address.
func TestNothingOfOperatorsInPublic(t *testing.T) {
	t.Parallel()
	s := apptest.Start(t, metrics)
	c := s.Anonymous()
	for _, path := range []string{"/metrics", "/debug/pprof/", "/debug/pprof/heap", "/debug/vars", "/readyz", "/healthz", "/livez"} {
		status, raw, header := c.Raw(t, "GET", path, nil)
		page := strings.HasPrefix(header.Get("Content-Type"), "text/html") // the web app answers all else
		if status == http.StatusOK && (!page || strings.Contains(string(raw), "hubbub_") || strings.Contains(string(raw), "goroutine")) {
			t.Errorf("%s: %d %.100s", path, status, raw)
		}
	}
	for _, path := range []string{"/_matrix/federation/v1/version", "/_matrix/federation/v1/send/1", "/_matrix/key/v2/server", "/_matrix/federation/v2/invite/!r/$e"} {
		c.Fails(t, "GET", path, nil, http.StatusNotFound, "M_UNRECOGNIZED")
	}
}

// victim is a user with one of everything.
type victim struct {
	*apptest.Client
	room   string
	values map[string]string
}

func newVictim(t *testing.T, s *apptest.Server) victim {
	t.Helper()
	v := victim{Client: s.User(t, "victim")}
	v.room = v.CreateRoom(t, object{"room_alias_name": "den", "topic": "secret"})
	said := v.Send(t, v.room, "secret")
	id := func(out object, member string) string { return out[member].(string) }
	mine := v3 + "/user/" + url.PathEscape(v.UserID)
	v.values = map[string]string{
		"userId": v.UserID, "deviceId": v.Device, "roomId": v.room, "roomIdOrAlias": v.room, "roomAlias": "#den:" + apptest.Name,
		"eventId": said, "threadRoot": said, "type": "test.data", "tag": "u.tag", "eventType": "m.room.message", "txnId": "t",
		"stateKey": "", "relType": "m.thread", "keyName": "displayname", "kind": "override", "ruleId": "rule", "receiptType": "m.read",
		"filterId":  id(v.Must(t, "POST", mine+"/filter", object{}), "filter_id"),
		"sessionId": "session", "serverName": apptest.Name, "mediaId": "x", "networkId": "net", "appserviceId": "bridge", "action": "cancel",
		"delayId": id(v.Must(t, "PUT", at(v.room, "send", "m.room.message", "later")+"?org.matrix.msc4140.delay=600000", object{"body": "later"}), "delay_id"),
	}
	v.values["version"] = id(v.Must(t, "POST", v3+"/room_keys/version", object{"algorithm": "m.megolm_backup.v1.curve25519-aes-sha2", "auth_data": object{"public_key": "key"}}), "version")
	v.Must(t, "PUT", mine+"/account_data/test.data", object{"v": 1})
	v.Must(t, "PUT", mine+"/rooms/"+url.PathEscape(v.room)+"/account_data/test.data", object{"v": 2})
	v.Must(t, "PUT", mine+"/rooms/"+url.PathEscape(v.room)+"/tags/u.tag", object{"order": 0.1})
	v.Must(t, "PUT", v3+"/pushrules/global/override/rule", object{"conditions": []object{}, "actions": []string{"notify"}})
	v.Must(t, "PUT", v3+"/room_keys/keys/"+url.PathEscape(v.room)+"/session?version="+v.values["version"], object{
		"first_message_index": 0, "forwarded_count": 0, "is_verified": true, "session_data": object{"ciphertext": "x"},
	})
	return v
}

// everything is all that the victim has.
func (v victim) everything(t *testing.T) string {
	t.Helper()
	mine := v3 + "/user/" + url.PathEscape(v.UserID)
	all := object{}
	for _, target := range []string{
		v3 + "/devices/" + v.Device, v3 + "/profile/" + url.PathEscape(v.UserID), v3 + "/pushrules/", v3 + "/pushers", v3 + "/account/3pid",
		v3 + "/joined_rooms", mine + "/account_data/test.data", mine + "/filter/" + v.values["filterId"],
		mine + "/rooms/" + url.PathEscape(v.room) + "/account_data/test.data", mine + "/rooms/" + url.PathEscape(v.room) + "/tags",
		at(v.room, "messages") + "?dir=b&limit=100", at(v.room, "members"), at(v.room, "aliases"), v3 + "/room_keys/version",
		v3 + "/room_keys/keys?version=" + v.values["version"], v1 + "/delayed_events/" + v.values["delayId"],
		v3 + "/directory/list/room/" + url.PathEscape(v.room), "/_matrix/client/unstable/io.element.msc4308/thread_subscriptions?dir=b",
	} {
		out := v.Must(t, "GET", target, nil)
		delete(out, "last_seen_ts") // it is the victim who looks
		all[target] = out
	}
	b, err := json.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestWhatIsAnothersIsRefused: each route is called by a user with all that is
// another's. It is refused, and nothing changes.
func TestWhatIsAnothersIsRefused(t *testing.T) {
	t.Parallel()
	s := apptest.Start(t)
	v, eve := newVictim(t, s), s.User(t, "eve")
	want := v.everything(t)
	listed := lines(foreign)
	for _, r := range s.Routes() {
		if r.Access != apptest.Users || !slices.ContainsFunc(names(), func(n string) bool { return strings.Contains(r.Path, "{"+n+"}") }) {
			continue
		}
		i := slices.IndexFunc(listed, func(l string) bool { return strings.HasSuffix(l, " "+r.Method+" "+r.Path) })
		if i < 0 {
			t.Errorf("%s %s: say in the list what becomes of a call with what is another's", r.Method, r.Path)
			continue
		}
		policy, _, _ := strings.Cut(listed[i], " ")
		listed = slices.Delete(listed, i, i+1)
		status, raw, _ := eve.Raw(t, r.Method, fillIn(r.Path, v.values)+"?dir=b&ts=1&delay=1000&version="+v.values["version"], benign(v))
		if status >= 500 || policy == "refused" && status != http.StatusForbidden && status != http.StatusNotFound && status != http.StatusConflict {
			t.Errorf("%s %s: %d %.300s", r.Method, r.Path, status, raw)
		}
		if got := v.everything(t); got != want {
			t.Fatalf("%s %s: %d, and it changed what is another's:\n%s\n%s", r.Method, r.Path, status, got, want)
		}
	}
	if len(listed) > 0 {
		t.Errorf("no routes any more: %q", listed)
	}
}

// benign is a body that is good for most routes, so that they do not refuse it before
// they look whose things they are about.
func benign(v victim) object {
	return object{
		"user_id": v.UserID, "membership": "join", "reason": "x", "msgtype": "m.text", "body": "x", "typing": true, "timeout": 1000,
		"displayname": "eve", "presence": "online", "visibility": "public", "new_version": "11", "enabled": true, "actions": []string{},
		"order": 1, "room_id": v.room, "conditions": []object{}, "m.fully_read": v.values["eventId"], "v": 3, "action": "cancel", "delay": 1000,
		"content": object{"body": "x"}, "display_name": "eve", "sessions": object{}, "auth_data": object{}, "algorithm": "m.megolm_backup.v1.curve25519-aes-sha2",
		"first_message_index": 0, "forwarded_count": 0, "is_verified": true, "session_data": object{},
	}
}
