package deploy

import (
	"bytes"
	"encoding/json"
	"image"
	"image/png"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/hubbub-chat/hubbub/internal/app/apptest"
	"github.com/hubbub-chat/hubbub/internal/config"
	"github.com/hubbub-chat/hubbub/internal/storage/pgstore/pgtest"
	"github.com/hubbub-chat/hubbub/internal/wsclient"
)

const monitoring = "../../deploy/monitoring/"

// metricName finds the metrics in an expression.
var metricName = regexp.MustCompile(`\b(?:hubbub|process|go)_[a-z0-9_]+`)

// named returns the metrics that the files in deploy/monitoring name, with the
// places.
func named(t *testing.T) map[string]string {
	t.Helper()
	out := map[string]string{}
	add := func(place, expr string) {
		for _, m := range metricName.FindAllString(expr, -1) {
			out[m] = place
		}
	}
	var dashboard struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
		Templating struct {
			List []struct{ Definition string }
		}
		Annotations struct {
			List []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(read(t, monitoring+"grafana-dashboard.json"), &dashboard); err != nil {
		t.Fatal(err)
	}
	for _, p := range dashboard.Panels {
		for _, target := range p.Targets {
			add("panel "+p.Title, target.Expr)
		}
	}
	for _, v := range dashboard.Templating.List {
		add("variable", v.Definition)
	}
	for _, a := range dashboard.Annotations.List {
		add("annotation", a.Expr)
	}
	for _, r := range alerts(t) {
		add("alert "+r.Alert, r.Expr)
	}
	return out
}

type alert struct{ Alert, Expr string }

func alerts(t *testing.T) []alert {
	t.Helper()
	var rules struct {
		Groups []struct{ Rules []alert }
	}
	if err := yaml.Unmarshal(read(t, monitoring+"alerts.yml"), &rules); err != nil {
		t.Fatal(err)
	}
	var out []alert
	for _, g := range rules.Groups {
		out = append(out, g.Rules...)
	}
	return out
}

func read(t *testing.T, name string) []byte {
	t.Helper()
	raw, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// TestMetricsExist: what is watched is what servers, one with each store, say of
// themselves after some traffic.
func TestMetricsExist(t *testing.T) {
	seen := map[string]bool{}
	for _, store := range []string{config.StoreEmbedded, pgtest.Start(t, "fsync=off").Database(t)} {
		metrics := "127.0.0.1:" + freePort(t)
		s := apptest.Start(t, func(c *config.Config) {
			c.Server.MetricsListen, c.Server.Store = metrics, store
			c.Server.AppserviceFiles = []string{serviceFile(t)}
		})
		traffic(t, s)
		awaitClose(t, metrics, seen)
	}
	names := named(t)
	if len(names) < 30 {
		t.Errorf("only %d metrics are named", len(names))
	}
	for name, place := range names {
		if !seen[name] {
			t.Errorf("%s: no server has a metric %s", place, name)
		}
	}
}

// serviceFile registers an application service that takes what it is sent.
func serviceFile(t *testing.T) string {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("{}")) }))
	t.Cleanup(srv.Close)
	file := filepath.Join(t.TempDir(), "service.yaml")
	text := "id: bridge\nurl: " + srv.URL + "\nas_token: astoken0123456789\nhs_token: hstoken0123456789\nsender_localpart: bridge\nrate_limited: false\nnamespaces: {users: [{regex: '@bridge.*', exclusive: true}]}\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// traffic is a little of everything.
func traffic(t *testing.T, s *apptest.Server) {
	t.Helper()
	alice, bob := s.User(t, "alice"), s.User(t, "bob")
	room := alice.CreateRoom(t, apptest.Object{"preset": "public_chat"})
	bob.Join(t, room)
	frames := make(chan struct{}, 1)
	ws, err := wsclient.Dial(t.Context(), s.URL, wsclient.Options{Token: bob.Token, Sync: true, OnFrame: func(f []byte) {
		if bytes.Contains(f, []byte("hello")) {
			select {
			case frames <- struct{}{}:
			default:
			}
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	alice.Send(t, room, "hello")
	<-frames
	if _, err := ws.Call(t.Context(), "GET", "/_matrix/client/v3/account/whoami", nil); err != nil {
		t.Error(err)
	}
	if err := ws.Close(); err != nil {
		t.Error(err)
	}
	var picture bytes.Buffer
	if err := png.Encode(&picture, image.NewGray(image.Rect(0, 0, 64, 64))); err != nil {
		t.Fatal(err)
	}
	alice.Must(t, "POST", "/_matrix/media/v3/upload", picture.Bytes())
	alice.Fails(t, "GET", "/_matrix/client/v3/rooms/"+url.PathEscape("!none:"+apptest.Name)+"/state", nil, http.StatusForbidden, "M_FORBIDDEN")
}

// awaitClose reads until the end of the socket is counted, which is later than its
// client sees it.
func awaitClose(t *testing.T, addr string, seen map[string]bool) {
	t.Helper()
	const closes = "hubbub_gateway_closes_total"
	delete(seen, closes)
	for end := time.Now().Add(startTimeout); !seen[closes] && time.Now().Before(end); {
		scrape(t, addr, seen)
	}
}

// scrape adds the names of the samples that a metrics address tells.
func scrape(t *testing.T, addr string, seen map[string]bool) {
	t.Helper()
	req, _ := http.NewRequestWithContext(t.Context(), "GET", "http://"+addr+"/metrics", nil)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := io.ReadAll(res.Body)
	_ = res.Body.Close()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(raw)) {
		if name := metricName.FindString(line); name != "" && strings.HasPrefix(line, name) {
			seen[name] = true
		}
	}
}

// TestAlertsExplained: docs/operations.md has a paragraph for each alert, and for no
// other.
func TestAlertsExplained(t *testing.T) {
	text := string(read(t, "../../docs/operations.md"))
	var names []string
	for _, a := range alerts(t) {
		names = append(names, a.Alert)
		if !strings.Contains(text, "**"+a.Alert+"**") {
			t.Errorf("docs/operations.md does not explain %s", a.Alert)
		}
	}
	for _, m := range regexp.MustCompile(`\*\*(Hubbub\w+)\*\*`).FindAllStringSubmatch(text, -1) {
		if !slices.Contains(names, m[1]) {
			t.Errorf("docs/operations.md explains %s, which is no alert", m[1])
		}
	}
}

// TestAlerts has Prometheus check the rules, and try them on made up series.
func TestAlerts(t *testing.T) {
	promtool := find(t, "promtool")
	for _, args := range [][]string{{"check", "rules", "alerts.yml"}, {"check", "config", "prometheus.yml"}, {"test", "rules", "alerts_test.yml"}} {
		cmd := exec.Command(promtool, args...)
		cmd.Dir = monitoring
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	// Grafana's expressions, as rules of their own, with its variables filled in.
	var rules strings.Builder
	rules.WriteString("groups:\n  - name: dashboard\n    rules:\n")
	n := 0
	for _, expr := range regexp.MustCompile(`"expr": ("(?:[^"\\]|\\.)*")`).FindAllSubmatch(read(t, monitoring+"grafana-dashboard.json"), -1) {
		var text string
		if err := json.Unmarshal(expr[1], &text); err != nil {
			t.Fatal(err)
		}
		text = strings.NewReplacer("$__rate_interval", "1m", "$instance", ".*").Replace(text)
		quoted, _ := json.Marshal(text)
		rules.WriteString("      - {record: a, labels: {n: \"" + string(rune('a'+n%26)) + string(rune('a'+n/26)) + "\"}, expr: " + string(quoted) + "}\n")
		n++
	}
	file := filepath.Join(t.TempDir(), "dashboard.yml")
	if err := os.WriteFile(file, []byte(rules.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(promtool, "check", "rules", file).CombinedOutput(); err != nil || n < 40 {
		t.Errorf("%d expressions of the dashboard: %v\n%s", n, err, out)
	}
}
