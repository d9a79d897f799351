package security

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hubbub-chat/hubbub/internal/app/apptest"
	"github.com/hubbub-chat/hubbub/internal/config"
	"github.com/hubbub-chat/hubbub/internal/push/webpush/webpushtest"
)

// The secrets of a run that the test chose itself.
const (
	canaryPassword = "canary-password-Xq7"
	canaryChanged  = "canary-changed-password-Xq7"
	canarySecret   = "canary-shared-secret-Xq7"
	canaryJWT      = "canary-jwt-secret-Xq7-0123456789abcdef"
	canaryMail     = "canary-smtp-password-Xq7"
	canaryAS       = "canary-as-token-Xq7"
	canaryHS       = "canary-hs-token-Xq7"
	canaryRegister = "canary-registration-token-Xq7"
	canaryMessage  = "canary-message-Xq7"
	canaryToDevice = "canary-to-device-Xq7"
	canaryKey      = "canary-one-time-key-Xq7"
	canaryBackup   = "canary-backup-Xq7"
	canaryData     = "canary-account-data-Xq7"
	canaryFile     = "canary-file-Xq7"
	canaryClient   = "canary-client-secret-Xq7"
	canaryPushkey  = "canary-pushkey-Xq7"
	canaryEndpoint = "canary-endpoint-Xq7"
	canaryWebAuth  = "Y2FuYXJ5LWF1dGgtWHE3IQ" // 16 bytes
	canaryGuess    = "canary-wrong-password-Xq7"
	canaryWrong    = "canary-wrong-token-Xq7"
	canaryQuery    = "canary-search-term-Xq7"
)

// logged is what a server wrote to its log. It may be used from any goroutine.
type logged struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logged) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// run is a server with secrets in all places, and what was learned of it.
type run struct {
	t   *testing.T
	s   *apptest.Server
	log *logged
	box *mailbox
	// tokens are what the server gave out: whoever has one is who it was given to.
	tokens map[string]string
}

func newRun(t *testing.T) *run {
	t.Helper()
	r := &run{t: t, log: &logged{}, box: newMailbox(t), tokens: map[string]string{}}
	bridge := t.TempDir() + "/bridge.json"
	registration, err := json.Marshal(object{
		"id": "bridge", "url": "http://127.0.0.1:1", "as_token": canaryAS, "hs_token": canaryHS, "sender_localpart": "bridge",
		"namespaces": object{"users": []object{{"exclusive": false, "regex": "@.*"}}, "rooms": []object{}, "aliases": []object{}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(bridge, registration, 0o600); err != nil {
		t.Fatal(err)
	}
	// Every line is written, and none by a logger that would hide secrets.
	log := slog.New(slog.NewTextHandler(r.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	r.s = apptest.StartLogging(t, log, metrics, func(c *config.Config) {
		c.Registration.SharedSecret = canarySecret
		c.JWT.Algorithms, c.JWT.Secret, c.JWT.SubjectClaim, c.JWT.CreateUsers = []string{"HS256"}, canaryJWT, "sub", true
		c.Server.AppserviceFiles = []string{bridge}
		c.SMTP = config.SMTP{Addr: r.box.addr, From: "chat@example.org", User: "chat", Password: canaryMail, Security: config.SMTPNone}
	})
	return r
}

// took remembers a token that an answer holds.
func (r *run) took(what string, out object, member string) string {
	r.t.Helper()
	token, _ := out[member].(string)
	if len(token) < 16 {
		r.t.Fatalf("%s: no %s in %v", what, member, out)
	}
	r.tokens[what] = token
	return token
}

// try is a request whose success is not asked for; it must not break the server.
func (r *run) try(c *apptest.Client, method, target string, body any) {
	r.t.Helper()
	if status, _, _ := c.Raw(r.t, method, target, body); status >= 500 && status != http.StatusBadGateway && status != http.StatusServiceUnavailable {
		r.t.Errorf("%s %s: %d", method, target, status)
	}
}

func password(c *apptest.Client, secret string) object {
	return object{"type": "m.login.password", "password": secret, "identifier": object{"type": "m.id.user", "user": c.UserID}}
}

// sessions makes and ends sessions in every way there is.
func (r *run) sessions() *apptest.Client {
	t := r.t
	c := r.s.Anonymous()
	t.Cleanup(c.HTTP.CloseIdleConnections)
	out := c.Must(t, "POST", v3+"/register", object{
		"username": "alice", "password": canaryPassword, "refresh_token": true, "auth": object{"type": "m.login.dummy"},
	})
	c.UserID, c.Device = out["user_id"].(string), out["device_id"].(string)
	r.took("access token", out, "access_token")
	out = c.Must(t, "POST", v3+"/refresh", object{"refresh_token": r.took("refresh token", out, "refresh_token")})
	r.took("second refresh token", out, "refresh_token")
	c.Token = r.took("second access token", out, "access_token")
	r.try(c, "POST", v3+"/refresh", object{"refresh_token": canaryWrong})
	r.took("login", c.Must(t, "POST", v3+"/login", password(c, canaryPassword)), "access_token")
	r.try(c, "POST", v3+"/login", password(c, canaryGuess))
	r.took("login token", c.Must(t, "POST", v1+"/login/get_token", object{"auth": password(c, canaryPassword)}), "login_token")
	r.took("OpenID token", c.Must(t, "POST", v3+"/user/"+url.PathEscape(c.UserID)+"/openid/request_token", object{}), "access_token")
	r.tokens["JWT"] = jwt("jwtuser")
	r.took("login by JWT", r.s.Anonymous().Must(t, "POST", v3+"/login", object{"type": "org.matrix.login.jwt", "token": r.tokens["JWT"]}), "access_token")
	c.Must(t, "POST", v3+"/account/password", object{"new_password": canaryChanged, "logout_devices": false, "auth": password(c, canaryPassword)})
	wrong := r.s.Anonymous()
	wrong.Token = canaryWrong
	r.try(wrong, "GET", v3+"/sync", nil)
	r.try(c, "GET", v3+"/account/whoami?access_token="+url.QueryEscape(c.Token), nil)
	r.try(r.s.Anonymous(), "GET", v3+"/account/whoami?access_token="+url.QueryEscape(c.Token), nil)
	r.try(r.s.Anonymous(), "POST", v3+"/register", `{"username":"bob","password":"`+canaryGuess+`","auth":`) // cut off
	r.try(c, "POST", v3+"/register", object{"username": canaryPassword, "password": []string{canaryGuess}})
	return c
}

// jwt is a token of the provider whose secret the server has.
func jwt(user string) string {
	enc := base64.RawURLEncoding.EncodeToString
	text := enc([]byte(`{"alg":"HS256"}`)) + "." + enc(fmt.Appendf(nil, `{"sub":%q,"exp":%d}`, user, time.Now().Add(time.Hour).Unix()))
	mac := hmac.New(sha256.New, []byte(canaryJWT))
	_, _ = mac.Write([]byte(text)) // never fails
	return text + "." + enc(mac.Sum(nil))
}

// contents uses all that carries what people say and keep.
func (r *run) contents(c *apptest.Client) {
	t := r.t
	room := c.CreateRoom(t, object{"name": canaryMessage, "topic": canaryMessage, "preset": "public_chat"})
	said := c.Send(t, room, canaryMessage)
	c.Must(t, "PUT", at(room, "redact", said, "r"), object{"reason": canaryMessage})
	r.try(c, "PUT", at(room, "send", "m.room.message", "bad"), `{"body":"`+canaryMessage+`","x":1.5}`)
	c.Must(t, "GET", at(room, "messages")+"?dir=b", nil)
	c.Must(t, "POST", v3+"/search", object{"search_categories": object{"room_events": object{"search_term": canaryQuery}}})
	r.try(c, "POST", v3+"/user_directory/search", object{"search_term": canaryQuery})
	mine := v3 + "/user/" + url.PathEscape(c.UserID)
	c.Must(t, "PUT", mine+"/account_data/test.data", object{"v": canaryData})
	c.Must(t, "PUT", v3+"/sendToDevice/m.test/t1", object{"messages": object{c.UserID: object{c.Device: object{"body": canaryToDevice}}}})
	c.Must(t, "POST", v3+"/keys/upload", object{"one_time_keys": object{"signed_curve25519:A": object{"key": canaryKey, "signatures": object{}}}})
	c.Must(t, "POST", v3+"/keys/claim", object{"one_time_keys": object{c.UserID: object{c.Device: "signed_curve25519"}}})
	version := c.Must(t, "POST", v3+"/room_keys/version", object{
		"algorithm": "m.megolm_backup.v1.curve25519-aes-sha2", "auth_data": object{"public_key": canaryBackup},
	})["version"].(string)
	c.Must(t, "PUT", v3+"/room_keys/keys/"+url.PathEscape(room)+"/"+canaryBackup+"?version="+version, object{
		"first_message_index": 0, "forwarded_count": 0, "is_verified": true, "session_data": object{"ciphertext": canaryBackup},
	})
	uri := c.Must(t, "POST", "/_matrix/media/v3/upload?filename="+canaryFile, canaryFile)["content_uri"].(string)
	r.try(c, "GET", "/_matrix/client/v1/media/download/"+strings.TrimPrefix(uri, "mxc://")+"/"+canaryFile, nil)
	r.try(c, "GET", "/_matrix/client/v1/media/preview_url?url="+url.QueryEscape("http://127.0.0.1:1/"+canaryQuery), nil)
	r.try(c, "POST", v3+"/pushers/set", object{
		"kind": "http", "app_id": "app", "pushkey": canaryPushkey, "app_display_name": "a", "device_display_name": "d", "lang": "en",
		"data": object{"url": "https://127.0.0.1:1/_matrix/push/v1/notify"},
	})
	p256dh, _ := webpushtest.NewBrowser(t).Keys()
	r.try(c, "POST", v3+"/pushers/set", object{
		"kind": "org.matrix.msc4174.webpush", "app_id": "web", "pushkey": p256dh, "app_display_name": "a", "device_display_name": "d", "lang": "en",
		"data": object{"url": "https://127.0.0.1:1/" + canaryEndpoint, "auth": canaryWebAuth},
	})
	for _, purpose := range []string{"/account/3pid", "/register", "/account/password"} {
		r.try(c, "POST", v3+purpose+"/email/requestToken", object{"client_secret": canaryClient, "email": "alice@example.org", "send_attempt": 1})
	}
	r.tokens["token of a mail"] = <-r.box.secrets
	c.Sync(t, "")
	other := r.s.User(t, "other")
	other.Join(t, room)
	c.Send(t, room, canaryMessage) // for the pusher and the application service
	other.Sync(t, "")
}

// operators does what administrators and application services do.
func (r *run) operators(c *apptest.Client) {
	t := r.t
	admin := administrator(t, r.s, "admin")
	r.tokens["administrator"] = admin.Token
	admin.Must(t, "POST", "/_synapse/admin/v1/registration_tokens/new", object{"token": canaryRegister})
	r.try(r.s.Anonymous(), "GET", v1+"/register/m.login.registration_token/validity?token="+canaryRegister, nil)
	r.try(r.s.Anonymous(), "POST", v3+"/register", object{
		"username": "invited", "password": canaryPassword, "auth": object{"type": "m.login.registration_token", "token": canaryRegister},
	})
	r.try(admin, "PUT", "/_synapse/admin/v2/users/@made:"+apptest.Name, object{"password": canaryPassword})
	r.took("login by an administrator", admin.Must(t, "POST", "/_synapse/admin/v1/users/"+url.PathEscape(c.UserID)+"/login", object{}), "access_token")
	admin.Must(t, "POST", "/_synapse/admin/v1/send_server_notice", object{"user_id": c.UserID, "content": object{"msgtype": "m.text", "body": canaryMessage}})
	r.try(r.s.Anonymous(), "POST", "/_synapse/admin/v1/register", object{"nonce": "x", "username": "y", "password": canaryPassword, "mac": canarySecret})
	bridge := r.s.Anonymous()
	bridge.Token = canaryAS
	bridge.Must(t, "GET", v3+"/account/whoami", nil)
	r.try(bridge, "POST", v1+"/appservice/bridge/ping", object{})
}

// public are the places where no secret may be found.
func (r *run) public() map[string]string {
	r.t.Helper()
	resp, err := http.Get(r.s.MetricsURL() + "/metrics")
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	if !strings.Contains(string(raw), "hubbub_") {
		r.t.Fatalf("no metrics: %.300s", raw)
	}
	return map[string]string{"metrics": string(raw), "log": r.log.String()}
}

// TestCanaries: after a run over most of the endpoints with known secrets, none is
// in the log at its most talkative or in the metrics, and no password or token is in
// the store or the data directory as it is.
func TestCanaries(t *testing.T) {
	t.Parallel()
	r := newRun(t)
	c := r.sessions()
	r.contents(c)
	r.operators(c)
	c.Must(t, "POST", v3+"/account/deactivate", object{"auth": password(c, canaryChanged)})
	places := r.public()
	if n := strings.Count(places["log"], "\n"); n < 50 {
		t.Errorf("the log has %d lines only: is it looked at?", n)
	}
	r.s.Stop()
	places["log"] = r.log.String()
	secrets := chosen()
	for what, token := range r.tokens {
		secrets[what] = token
	}
	for where, text := range places {
		for what, s := range secrets {
			if i := strings.Index(text, s); i >= 0 {
				t.Errorf("%s is in the %s: %s", what, where, text[max(0, i-200):min(len(text), i+len(s)+50)])
			}
		}
	}
	r.stored()
}

// stored looks for what must not be kept as it is. What people say and the keys that
// devices upload are what the store is for, and registration tokens are shown to
// administrators.
func (r *run) stored() {
	r.t.Helper()
	hidden := hidden(r.tokens)
	rows, message := 0, false
	r.s.Rows(r.t, func(key string, value []byte) {
		rows++
		message = message || bytes.Contains(value, []byte(canaryMessage))
		for what, s := range hidden {
			if strings.Contains(key, s) || bytes.Contains(value, []byte(s)) {
				r.t.Errorf("the %s is in the store: %q %.300q", what, key, value)
			}
		}
	})
	if rows < 100 || !message {
		r.t.Errorf("%d rows, with the message: %v: is this the store?", rows, message)
	}
	searchFiles(r.t, r.s.Config.Server.DataDir, hidden)
}

// chosen are the secrets that the test chose, by themselves.
func chosen() map[string]string {
	out := map[string]string{}
	for _, s := range []string{
		canaryPassword, canaryChanged, canarySecret, canaryJWT, canaryMail, canaryAS, canaryHS, canaryRegister, canaryMessage,
		canaryToDevice, canaryKey, canaryBackup, canaryData, canaryFile, canaryClient, canaryPushkey, canaryEndpoint, canaryWebAuth, canaryGuess, canaryWrong, canaryQuery,
	} {
		out[s] = s
	}
	return out
}

// hidden are the secrets that nobody may keep as they are.
func hidden(tokens map[string]string) map[string]string {
	out := map[string]string{
		"password": canaryPassword, "changed password": canaryChanged, "shared secret": canarySecret, "JWT secret": canaryJWT,
		"mail password": canaryMail, "token of the service": canaryAS, "token of the server": canaryHS, "guess": canaryGuess,
		"client secret": canaryClient,
	}
	maps.Copy(out, tokens)
	return out
}

// searchFiles looks for secrets in all files below a directory and returns how many
// files there are.
func searchFiles(t *testing.T, dir string, secrets map[string]string) (files int) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		files++
		raw, err := os.ReadFile(path)
		for what, s := range secrets {
			if bytes.Contains(raw, []byte(s)) {
				t.Errorf("the %s is in %s", what, path)
			}
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	return files
}
