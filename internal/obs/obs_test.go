package obs

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime/debug"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func get(t *testing.T, h http.Handler, path string) (int, string) {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
	return w.Code, w.Body.String()
}

func TestMetrics(t *testing.T) {
	reg := NewRegistry()
	mine := prometheus.NewCounter(prometheus.CounterOpts{Namespace: Namespace, Name: "mine_total", Help: "x"})
	reg.MustRegister(mine)
	mine.Add(3)
	h := Handler(ServerOptions{Registry: reg, Log: Discard()})
	code, body := get(t, h, "/metrics")
	if code != http.StatusOK {
		t.Fatalf("status %d", code)
	}
	for _, want := range []string{"hubbub_mine_total 3", "go_goroutines ", "process_resident_memory_bytes ", `hubbub_build_info{commit="`} {
		if !strings.Contains(body, want) {
			t.Errorf("no %q in /metrics", want)
		}
	}
}

// TestRegistriesAreSeparate: two servers in one process do not meet.
func TestRegistriesAreSeparate(t *testing.T) {
	for range 2 {
		NewRegistry().MustRegister(prometheus.NewCounter(prometheus.CounterOpts{Name: "x_total", Help: "x"}))
	}
	if got, err := prometheus.DefaultGatherer.Gather(); err != nil || strings.Contains(metricNames(got), "hubbub_") {
		t.Errorf("the global registry has metrics of the server (%v)", err)
	}
}

func metricNames[T interface{ GetName() string }](families []T) string {
	var b strings.Builder
	for _, f := range families {
		b.WriteString(f.GetName() + " ")
	}
	return b.String()
}

func TestReadiness(t *testing.T) {
	ok := Check{"store", func(context.Context) error { return nil }}
	bad := Check{"leases", func(context.Context) error { return errors.New("3 of 64 partitions have no owner") }}
	tests := []struct {
		name   string
		checks []Check
		status int
		body   string
	}{
		{"no checks", nil, http.StatusOK, "ok\n"},
		{"all hold", []Check{ok}, http.StatusOK, "store: ok\n"},
		{"one fails", []Check{ok, bad}, http.StatusServiceUnavailable, "store: ok\nleases: 3 of 64 partitions have no owner\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := Handler(ServerOptions{Registry: NewRegistry(), Checks: tt.checks, Log: Discard()})
			if code, body := get(t, h, "/readyz"); code != tt.status || body != tt.body {
				t.Errorf("/readyz: %d %q, want %d %q", code, body, tt.status, tt.body)
			}
			if code, _ := get(t, h, "/healthz"); code != http.StatusOK {
				t.Errorf("/healthz: %d: a process that is not ready is still alive", code)
			}
		})
	}
}

// TestReadinessTimesOut: a check that hangs is a failed one.
func TestReadinessTimesOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		text, ready := readiness(t.Context(), []Check{{"slow", func(ctx context.Context) error {
			<-ctx.Done()
			return ctx.Err()
		}}})
		if ready || text != "slow: context deadline exceeded\n" {
			t.Errorf("got %v, %q", ready, text)
		}
	})
}

func TestPprofOnlyWhenAsked(t *testing.T) {
	for on, want := range map[bool]int{true: http.StatusOK, false: http.StatusNotFound} {
		h := Handler(ServerOptions{Registry: NewRegistry(), Pprof: on, Log: Discard()})
		for _, path := range []string{"/debug/pprof/", "/debug/pprof/cmdline", "/debug/pprof/goroutine?debug=1"} {
			if code, _ := get(t, h, path); code != want {
				t.Errorf("pprof %v: %s answers %d, want %d", on, path, code, want)
			}
		}
	}
}

func TestListenAndClose(t *testing.T) {
	s, err := Listen(t.Context(), ServerOptions{Addr: "127.0.0.1:0", Registry: NewRegistry(), Log: Discard()})
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Get("http://" + s.Addr().String() + "/healthz")
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(res.Body)
	res.Body.Close()
	if err != nil || string(body) != "ok\n" {
		t.Errorf("got %q, %v", body, err)
	}

	_, err = Listen(t.Context(), ServerOptions{Addr: s.Addr().String(), Registry: NewRegistry(), Log: Discard()})
	if err == nil || !strings.Contains(err.Error(), "listen for metrics") {
		t.Errorf("an address in use: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if c, err := net.Dial("tcp", s.Addr().String()); err == nil {
		c.Close()
		t.Error("it still accepts after Close")
	}
}

// lockedBuffer shows whether a logger writes whole lines.
type lockedBuffer struct {
	mu struct {
		sync.Mutex
		lines []string
	}
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.mu.lines = append(b.mu.lines, string(p))
	return len(p), nil
}

func TestLoggerKeys(t *testing.T) {
	var b lockedBuffer
	log := NewLogger(&b, LogOptions{Level: slog.LevelInfo, JSON: true})
	ctx := WithRequestID(t.Context(), "r1")
	if RequestID(ctx) != "r1" || RequestID(t.Context()) != "" {
		t.Error("RequestID does not return what was put in")
	}
	log.With(Room("!r:x")).InfoContext(ctx, "sent", User("@u:x"), Partition(7), Seq(1<<63), Err(errors.New("e")))
	log.DebugContext(ctx, "below the level")
	if len(b.mu.lines) != 1 {
		t.Fatalf("%d lines, want 1", len(b.mu.lines))
	}
	var got map[string]any
	dec := json.NewDecoder(strings.NewReader(b.mu.lines[0]))
	dec.UseNumber()
	if err := dec.Decode(&got); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"level": "INFO", "msg": "sent", KeyRoom: "!r:x", KeyUser: "@u:x", KeyPartition: json.Number("7"),
		KeySeq: json.Number("9223372036854775808"), KeyError: "e", KeyRequestID: "r1",
	}
	delete(got, "time")
	if len(got) != len(want) {
		t.Errorf("got %v", got)
	}
	for k, v := range want {
		if got[k] != v {
			t.Errorf("%s = %v, want %v", k, got[k], v)
		}
	}
}

func TestLoggerRedacts(t *testing.T) {
	const canary = "canary-51c"
	for _, asJSON := range []bool{false, true} {
		var b bytes.Buffer
		log := NewLogger(&b, LogOptions{JSON: asJSON})
		log.Info("x", "password", canary, "Access_Token", canary, "body", canary,
			slog.Group("req", "authorization", canary, "content", map[string]string{"body": canary}))
		log.With("token", canary).WithGroup("g").Info("y", "secret", canary)
		if strings.Contains(b.String(), canary) {
			t.Errorf("json %v: a secret in %s", asJSON, b.String())
		}
		b.Reset()
		log.Info("x", "content_type", canary, "token_hash", canary)
		if strings.Count(b.String(), canary) != 2 {
			t.Errorf("json %v: an innocent value was removed: %s", asJSON, b.String())
		}
	}
}

func TestBuildOf(t *testing.T) {
	set := func(kv ...string) []debug.BuildSetting {
		var s []debug.BuildSetting
		for i := 0; i < len(kv); i += 2 {
			s = append(s, debug.BuildSetting{Key: kv[i], Value: kv[i+1]})
		}
		return s
	}
	for _, tt := range []struct {
		info            debug.BuildInfo
		version, commit string
	}{
		{debug.BuildInfo{}, "(devel)", "unknown"},
		{debug.BuildInfo{Main: debug.Module{Version: "v1.2.3"}, Settings: set("vcs.revision", "abc", "vcs.modified", "false")}, "v1.2.3", "abc"},
		{debug.BuildInfo{Settings: set("vcs.modified", "true", "vcs.revision", "abc")}, "(devel)", "abc+dirty"},
		{debug.BuildInfo{Settings: set("vcs.modified", "true")}, "(devel)", "unknown"},
	} {
		if b := buildOf(&tt.info); b.Version != tt.version || b.Commit != tt.commit || b.Go == "" {
			t.Errorf("got %+v, want %s %s", b, tt.version, tt.commit)
		}
	}
}

func TestBucketsRise(t *testing.T) {
	for name, b := range map[string][]float64{"latency": LatencyBuckets(), "size": SizeBuckets(), "count": CountBuckets()} {
		for i := 1; i < len(b); i++ {
			if b[i] <= b[i-1] {
				t.Errorf("%s: %v is not above %v", name, b[i], b[i-1])
			}
		}
	}
	if last := LatencyBuckets()[len(LatencyBuckets())-1]; last < 20 || last > 30 {
		t.Errorf("the last latency bucket is %v s", last)
	}
	if last := SizeBuckets()[len(SizeBuckets())-1]; last != 64<<20 {
		t.Errorf("the last size bucket is %v", last)
	}
}
