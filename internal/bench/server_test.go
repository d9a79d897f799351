package bench

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
)

func TestParseMetrics(t *testing.T) {
	got := parseMetrics([]byte(`# HELP a text
# TYPE a counter
a 3
b{x="1"} 2
b{x="}",y="2 3"} 0.5 1700000000
c_bucket{le="+Inf"} 1e3
nonsense
`))
	for name, want := range map[string]float64{"a": 3, "b": 2.5, "c_bucket": 1000} {
		if got[name] != want {
			t.Errorf("%s is %v, want %v", name, got[name], want)
		}
	}
	if len(got) != 3 {
		t.Errorf("%v", got)
	}
}

func TestOnlyThisMachine(t *testing.T) {
	for u, want := range map[string]bool{
		"http://127.0.0.1:8008": true, "http://127.9.9.9": true, "https://[::1]:1": true, "http://[::ffff:127.0.0.1]:1": true,
		"http://192.0.2.1": false, "http://[2001:db8::1]:80": false, "http://0.0.0.0:8008": false, "127.0.0.1:8008": false, "ftp://127.0.0.1": false, "http://": false,
	} {
		if err := checkLocal(t.Context(), u); (err == nil) != want {
			t.Errorf("%s: %v", u, err)
		}
	}
	if _, err := attach(t.Context(), &targetArgs{URL: "http://192.0.2.1"}); !errors.Is(err, errRemote) {
		t.Errorf("%v", err)
	}
	if _, err := attach(t.Context(), &targetArgs{URL: "http://127.0.0.1", MetricsURL: "http://192.0.2.1"}); !errors.Is(err, errRemote) {
		t.Errorf("%v", err)
	}
	if _, err := attach(t.Context(), &targetArgs{URL: "http://192.0.2.1", AllowRemote: true}); err != nil {
		t.Errorf("%v", err)
	}
}

func TestHTTPConn(t *testing.T) {
	var hangs chan struct{}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		switch r.URL.Path {
		case "/echo":
			fmt.Fprintf(w, "%s %s %s %s", r.Method, r.Header.Get("Authorization"), r.URL.RawQuery, b)
		case "/chunked":
			for i := range 3 {
				fmt.Fprintf(w, "part %d,", i)
				w.(http.Flusher).Flush()
			}
		case "/close":
			w.Header().Set("Connection", "close")
			fmt.Fprint(w, "last")
		case "/big":
			w.WriteHeader(http.StatusTeapot)
			_, _ = w.Write(bytes.Repeat([]byte("x"), 1<<20))
		case "/hang":
			hangs <- struct{}{}
			<-r.Context().Done()
		default:
			panic(http.ErrAbortHandler)
		}
	}))
	defer srv.Close()
	c, err := newHTTPConn(srv.URL, "secret")
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	for range 2 { // the second time on the same connection, or after an error
		for _, tt := range []struct {
			target, body, want string
			status             int
		}{
			{"/echo?a=b", "hello", "PUT Bearer secret a=b hello", 200},
			{"/chunked", "", "part 0,part 1,part 2,", 200},
			{"/echo?a", "", "PUT Bearer secret a ", 200},
			{"/close", "", "last", 200},
			{"/big", "", strings.Repeat("x", 1<<20), 418},
			{"/abort", "", "", 0},
		} {
			status, b, err := c.do(t.Context(), "PUT", tt.target, []byte(tt.body))
			if status != tt.status || string(b) != tt.want || (err == nil) != (tt.status > 0) {
				t.Errorf("%s: %d %.50q, %v", tt.target, status, b, err)
			}
		}
	}
	hangs = make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-hangs
		cancel()
	}()
	if _, _, err := c.do(ctx, "GET", "/hang", nil); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if status, _, err := c.do(t.Context(), "GET", "/echo", nil); status != 200 || err != nil {
		t.Errorf("after an interrupted request: %d, %v", status, err)
	}
}

// FuzzAnswerHead: no server's answer makes a negative or endless length.
func FuzzAnswerHead(f *testing.F) {
	f.Add([]byte("HTTP/1.1 200 OK\r\nContent-Length: 12\r\nConnection: close\r\n\r\n"))
	f.Add([]byte("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"))
	f.Add([]byte("HTTP/1.1 20\r\n\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		c := &httpConn{in: bufio.NewReader(bytes.NewReader(b))}
		h, err := c.readHead()
		if err == nil && (h.length < -1 || h.length > maxAnswer) {
			t.Fatalf("%+v", h)
		}
	})
}

func TestErrorKinds(t *testing.T) {
	for err, want := range map[error]string{
		fmt.Errorf("a: %w", context.DeadlineExceeded):        "no answer in time",
		fmt.Errorf("a: %w", context.Canceled):                "interrupted",
		fmt.Errorf("a 1: %w", fmt.Errorf("b 2: %w", io.EOF)): "EOF",
	} {
		if got := errorKind(err); got != want {
			t.Errorf("%v is %q, want %q", err, got, want)
		}
	}
	var e errorCount
	for i := range maxErrorKinds + 5 {
		e.add(fmt.Sprint(i))
		e.add("0")
	}
	all := e.all()
	if len(all) != maxErrorKinds+1 || all["other"] != 5 || all["0"] != maxErrorKinds+6 {
		t.Errorf("%v", all)
	}
	if got := statusText(429, []byte(`{"errcode":"M_LIMIT_EXCEEDED"}`)); got != "429 M_LIMIT_EXCEEDED" {
		t.Error(got)
	}
	if got := statusText(502, []byte("<html>")); got != "502 Bad Gateway" {
		t.Error(got)
	}
}

func TestReportPrints(t *testing.T) {
	r := Result{Scenario: "x", Parameters: map[string]any{"rooms": 1}, Faults: map[string]int{"lost": 2}, FaultTexts: []string{"lost: $a"}, Errors: map[string]int64{"EOF": 3}}
	r.add("sends", 12345.6, "/s").atLeast(true, 10000)
	r.add("CPU", 123.4, "µs").atMost(true, 100)
	r.add("plain", 1.234, "").atMost(false, 1)
	var out bytes.Buffer
	if err := r.print(&out); err != nil {
		t.Fatal(err)
	}
	var fields []string
	for _, line := range strings.Split(strings.TrimSpace(out.String()), "\n") {
		fields = append(fields, strings.Join(strings.Fields(line), " "))
	}
	want := []string{
		"x rooms=1", "sends 12346 /s goal ≥ 10000: met", "CPU 123 µs goal ≤ 100: missed", "plain 1.23",
		"errors: 3 × EOF", "FAULT: 2 × lost", "lost: $a",
	}
	if !slices.Equal(fields, want) {
		t.Errorf("%q", fields)
	}
}
