package push_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/hubbub-chat/hubbub/internal/app/apptest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type object = apptest.Object

const v3 = "/_matrix/client/v3"

// patience is how long a test waits for what has to come.
const patience = 30 * time.Second

// gateway is a push gateway that checks what it is sent against the Push Gateway
// API and hands it to the test. spec: push-gateway §POST /_matrix/push/v1/notify.
type gateway struct {
	*httptest.Server
	t   *testing.T
	got chan object

	mu struct {
		sync.Mutex
		// down: it answers 503 to everything.
		down bool
		// answers are given one after another, then always 200 {"rejected":[]}.
		answers []answer
	}
}

type answer struct {
	status   int
	rejected []string
}

func newGateway(t *testing.T) *gateway {
	g := &gateway{t: t, got: make(chan object, 1000)}
	g.Server = httptest.NewServer(http.HandlerFunc(g.serve))
	t.Cleanup(g.Close)
	return g
}

// next makes the gateway answer otherwise for once.
func (g *gateway) next(a answer) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.mu.answers = append(g.mu.answers, a)
}

func (g *gateway) setDown(down bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.mu.down = down
}

func (g *gateway) serve(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost || r.URL.Path != "/_matrix/push/v1/notify" || r.Header.Get("Content-Type") != "application/json" {
		g.t.Errorf("gateway got %s %s with %q", r.Method, r.URL, r.Header.Get("Content-Type"))
	}
	raw, err := io.ReadAll(r.Body)
	if err != nil {
		g.t.Errorf("read push: %v", err)
	}
	var body object
	if err := json.Unmarshal(raw, &body); err != nil {
		g.t.Errorf("push is no JSON: %v: %s", err, raw)
	}
	n, _ := body["notification"].(object)
	g.check(n)
	g.mu.Lock()
	a := answer{status: http.StatusOK}
	if g.mu.down {
		a.status = http.StatusServiceUnavailable
	} else if len(g.mu.answers) > 0 {
		a = g.mu.answers[0]
		g.mu.answers = g.mu.answers[1:]
	}
	g.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(a.status)
	if a.rejected == nil {
		a.rejected = []string{}
	}
	if err := json.NewEncoder(w).Encode(object{"rejected": a.rejected}); err != nil {
		g.t.Errorf("answer push: %v", err)
	}
	n["answered"] = a.status
	g.got <- n
}

// check checks the form of a notification.
func (g *gateway) check(n object) {
	known := []string{
		"content", "counts", "devices", "event_id", "prio", "room_alias", "room_id", "room_name", "sender",
		"sender_display_name", "type", "user_is_target",
	}
	for k := range n {
		if !slices.Contains(known, k) {
			g.t.Errorf("notification has %q", k)
		}
	}
	if p, ok := n["prio"]; ok && p != "high" && p != "low" {
		g.t.Errorf("prio %v", p)
	}
	devices, _ := n["devices"].([]any)
	if len(devices) == 0 {
		g.t.Error("no devices")
	}
	for _, d := range devices {
		for _, k := range []string{"app_id", "pushkey"} {
			if s, _ := apptest.At(d, k).(string); s == "" {
				g.t.Errorf("device without %s: %v", k, d)
			}
		}
		ts, _ := apptest.At(d, "pushkey_ts").(float64)
		if now := float64(time.Now().Unix()); ts < now-3600 || ts > now+3600 {
			g.t.Errorf("pushkey_ts %v is no time in seconds", ts)
		}
		if _, ok := apptest.At(d, "tweaks").(object); !ok {
			g.t.Errorf("tweaks %v", apptest.At(d, "tweaks"))
		}
		if apptest.At(d, "data", "url") != nil {
			g.t.Error("the URL is sent to the gateway")
		}
	}
	if (n["event_id"] == nil) != (n["room_id"] == nil) {
		g.t.Errorf("event %v in room %v", n["event_id"], n["room_id"])
	}
}

// push waits for the next notification.
func (g *gateway) push(t *testing.T) object {
	t.Helper()
	select {
	case n := <-g.got:
		return n
	case <-time.After(patience):
		t.Fatal("nothing was pushed")
		return nil
	}
}

// event waits for the next notification of an event, past those of the badge.
func (g *gateway) event(t *testing.T) object {
	t.Helper()
	for {
		if n := g.push(t); n["event_id"] != nil {
			return n
		}
	}
}

// badge waits until the gateway is told a number.
func (g *gateway) badge(t *testing.T, want int) object {
	t.Helper()
	for {
		n := g.push(t)
		if apptest.At(n, "counts", "unread") == float64(want) {
			return n
		}
	}
}

// none checks that nothing more came than what was taken.
func (g *gateway) none(t *testing.T) {
	t.Helper()
	select {
	case n := <-g.got:
		t.Errorf("pushed %v", n)
	default:
	}
}

// pusher is a request for a pusher at the gateway.
func (g *gateway) pusher(key string, changes object) object {
	body := object{
		"app_id": "org.example.app", "pushkey": key, "kind": "http", "lang": "en",
		"app_display_name": "App", "device_display_name": "Phone",
		"data": object{"url": g.URL + "/_matrix/push/v1/notify", "default_payload": object{"a": 1}},
	}
	for k, v := range changes {
		if v == nil {
			delete(body, k)
		} else {
			body[k] = v
		}
	}
	return body
}

func (g *gateway) eventIDOnly() object {
	return object{"url": g.URL + "/_matrix/push/v1/notify", "format": "event_id_only"}
}

func set(t *testing.T, c *apptest.Client, body object) {
	t.Helper()
	c.Must(t, "POST", v3+"/pushers/set", body)
}

// pushers are the push keys of a user.
func pushers(t *testing.T, c *apptest.Client) []string {
	t.Helper()
	out := []string{}
	list, _ := c.Must(t, "GET", v3+"/pushers", nil)["pushers"].([]any)
	for _, p := range list {
		out = append(out, apptest.At(p, "pushkey").(string))
	}
	return out
}

func wantPushers(t *testing.T, c *apptest.Client, want ...string) {
	t.Helper()
	if got := pushers(t, c); !slices.Equal(got, want) {
		t.Errorf("pushers %v, want %v", got, want)
	}
}

func read(t *testing.T, c *apptest.Client, room, event string) {
	t.Helper()
	c.Must(t, "POST", v3+"/rooms/"+url.PathEscape(room)+"/receipt/m.read/"+url.PathEscape(event), object{})
}

// unread is the sum of the notification counts that a sync says.
func unread(t *testing.T, c *apptest.Client) int {
	t.Helper()
	sum := 0
	rooms, _ := apptest.At(c.Sync(t, ""), "rooms", "join").(object)
	for _, r := range rooms {
		n, _ := apptest.At(r, "unread_notifications", "notification_count").(float64)
		sum += int(n)
	}
	return sum
}

// room makes a room of alice with others.
func room(t *testing.T, alice *apptest.Client, others ...*apptest.Client) string {
	t.Helper()
	id := alice.CreateRoom(t, object{"preset": "public_chat", "name": "Kitchen"})
	for _, o := range others {
		o.Join(t, id)
	}
	return id
}
