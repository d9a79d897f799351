package media

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/hubbub-chat/hubbub/internal/merr"
	"github.com/hubbub-chat/hubbub/internal/tables"
)

// allowed is where the sites of the tests are; canaries listen elsewhere.
const allowed = "127.0.0.1/32"

func previewWorld(t *testing.T, changes ...func(*Options)) *world {
	t.Helper()
	return newWorld(t, append([]func(*Options){func(o *Options) {
		o.PreviewAllow = []netip.Prefix{netip.MustParsePrefix(allowed)}
	}}, changes...)...)
}

// site serves pages by path. "/hops/N" redirects N times and then to "/".
func site(t *testing.T, pages map[string]string) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		page, ok := pages[r.URL.Path]
		if !ok {
			http.NotFound(w, r)
			return
		}
		if to, ok := strings.CutPrefix(page, "-> "); ok {
			http.Redirect(w, r, to, http.StatusFound)
			return
		}
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		if strings.HasPrefix(page, pngMagic) {
			w.Header().Set("Content-Type", "image/png")
		}
		_, _ = w.Write([]byte(page))
	}))
	t.Cleanup(s.Close)
	return s
}

// canary counts the connections to an address that must get none.
type canary struct {
	addr string
	port string
	n    atomic.Int64
}

func newCanary(t *testing.T, host string) *canary {
	t.Helper()
	l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		t.Fatal(err)
	}
	c := &canary{addr: l.Addr().String()}
	_, c.port, _ = net.SplitHostPort(c.addr)
	var done sync.WaitGroup
	done.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			c.n.Add(1)
			_ = conn.Close()
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		done.Wait()
	})
	return c
}

func (c *canary) check(t *testing.T) {
	t.Helper()
	// What was made before this one is counted when this one is.
	before := c.n.Load()
	conn, err := net.Dial("tcp", c.addr)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = conn.Read(make([]byte, 1)) // until it is closed
	_ = conn.Close()
	if n := c.n.Load() - 1; n != 0 || before != 0 {
		t.Errorf("the canary at %s got %d connections", c.addr, n)
	}
}

// names is a DNS server for a test: each name has addresses, one after another.
func names(t *testing.T, table map[string][]string) *net.Resolver {
	t.Helper()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	asked := map[string]int{}
	answer := func(q []byte) []byte {
		name, at := "", 12
		for at < len(q) && q[at] != 0 {
			name += string(q[at+1:at+1+int(q[at])]) + "."
			at += 1 + int(q[at])
		}
		kind := binary.BigEndian.Uint16(q[at+1:])
		out := append([]byte{q[0], q[1], 0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0}, q[12:at+5]...)
		mu.Lock()
		defer mu.Unlock()
		list := table[strings.TrimSuffix(name, ".")]
		if len(list) == 0 {
			out[3] |= 3 // no such name
			return out
		}
		if kind != 1 {
			return out
		}
		ip := netip.MustParseAddr(list[min(asked[name], len(list)-1)]).As4()
		asked[name]++
		out[7] = 1
		return append(append(out, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4), ip[:]...)
	}
	var done sync.WaitGroup
	done.Go(func() {
		b := make([]byte, 1500)
		for {
			n, from, err := pc.ReadFrom(b)
			if err != nil {
				return
			}
			_, _ = pc.WriteTo(answer(b[:n]), from)
		}
	})
	t.Cleanup(func() {
		_ = pc.Close()
		done.Wait()
	})
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "udp", pc.LocalAddr().String())
	}}
}

func (w *world) preview(u string) map[string]any {
	w.t.Helper()
	raw, err := w.Preview(w.ctx, u)
	if err != nil {
		w.t.Errorf("preview of %s: %v", u, err)
		return nil
	}
	out := map[string]any{}
	if err := json.Unmarshal(raw, &out); err != nil {
		w.t.Fatalf("preview %s: %v", raw, err)
	}
	return out
}

func TestPreviews(t *testing.T) {
	w := previewWorld(t)
	picture := string(pngOf(t, halves(40, 20)))
	s := site(t, map[string]string{
		"/picture.png": picture,
		"/og": `<html><head><meta property="og:title" content=" The  &quot;Rock&quot;
			"><meta property=og:description content="About"><meta property="og:type" content="video.movie">
			<meta property="og:image" content="picture.png"><meta property="og:url" content="http://x.example/"></head></html>`,
		"/plain": `<title>A title</title><script>var title = "<title>no</title>"</script><p>Short.</p>
			<p>This paragraph is long enough to say what the page is about.</p><img src="/none.png"><img src=/picture.png>`,
		"/heading":  `<h1>Only <b>a</b> heading</h1>`,
		"/twitter":  `<meta name="twitter:title" content="Bird"><meta name="description" content="It sings"><link rel="image_src" href="/picture.png">`,
		"/empty":    `<html></html>`,
		"/hop":      "-> /hop2",
		"/hop2":     "-> /og",
		"/loop":     "-> /loop",
		"/markup":   `<title>&lt;script&gt;alert(1)&lt;/script&gt;</title>`,
		"/tricks":   "<title>a\u202eb\x01c\ufffd</title>",
		"/long":     "<title>" + strings.Repeat("x", 5000) + "</title>",
		"/badimage": `<title>T</title><meta property="og:image" content="javascript:alert(1)"><meta property="twitter:image" content="file:///etc/passwd">`,
	})
	image := map[string]any{"og:image:width": 40.0, "og:image:height": 20.0, "og:image:type": "image/png", "matrix:image:size": float64(len(picture))}
	for _, tt := range []struct {
		path  string
		want  map[string]any
		image bool
	}{
		{"/og", map[string]any{"og:title": `The "Rock"`, "og:description": "About", "og:type": "video.movie", "og:url": "http://x.example/"}, true},
		{"/plain", map[string]any{"og:title": "A title", "og:description": "This paragraph is long enough to say what the page is about."}, false},
		{"/heading", map[string]any{"og:title": "Only a heading"}, false},
		{"/twitter", map[string]any{"og:title": "Bird", "og:description": "It sings"}, true},
		{"/hop", map[string]any{"og:title": `The "Rock"`, "og:description": "About", "og:type": "video.movie", "og:url": "http://x.example/"}, true},
		{"/picture.png", map[string]any{"og:title": "picture.png"}, true},
		{"/markup", map[string]any{"og:title": "<script>alert(1)</script>"}, false},
		{"/tricks", map[string]any{"og:title": "abc"}, false},
		{"/long", map[string]any{"og:title": strings.Repeat("x", maxTitle) + "…"}, false},
		{"/badimage", map[string]any{"og:title": "T"}, false},
	} {
		got := w.preview(s.URL + tt.path + "#fragment")
		uri, _ := got["og:image"].(string)
		delete(got, "og:image")
		want := tt.want
		if tt.image {
			for k, v := range image {
				want[k] = v
			}
			id, _ := ParseID(strings.TrimPrefix(uri, "mxc://h/"))
			w.wantContent(id, picture)
		} else if uri != "" {
			t.Errorf("%s: image %s", tt.path, uri)
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s: got %v, want %v", tt.path, got, want)
		}
	}
	for _, path := range []string{"/empty", "/loop", "/nowhere"} {
		_, err := w.Preview(w.ctx, s.URL+path)
		wantErr(t, path, err, merr.NotFound)
	}
}

func TestCharset(t *testing.T) {
	for _, tt := range []struct{ page, declared string }{
		{"<title>caf\xe9</title>", "text/html; charset=iso-8859-1"},
		{"<meta charset=windows-1252><title>caf\xe9</title>", "text/html"},
		{"<title>café</title>", "text/html; charset=utf-8"},
		{"\xff\xfe<\x00t\x00i\x00t\x00l\x00e\x00>\x00c\x00a\x00f\x00\xe9\x00", "text/html"},
	} {
		p, err := readPage(strings.NewReader(tt.page), tt.declared)
		if err != nil || p.title != "café" {
			t.Errorf("%q as %q: %q %v", tt.page, tt.declared, p.title, err)
		}
	}
}

// TestPreviewIsKept: one fetch for all who ask, until it is out of date; then its
// picture goes too.
func TestPreviewIsKept(t *testing.T) {
	w := previewWorld(t)
	var pages, failures atomic.Int64
	s := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/":
			pages.Add(1)
			_, _ = rw.Write([]byte("<title>T</title><meta property='og:image' content='/p'>"))
		case "/p":
			_, _ = rw.Write(pngOf(t, halves(8, 8)))
		default:
			failures.Add(1)
			http.NotFound(rw, r)
		}
	}))
	defer s.Close()
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() { w.preview(s.URL) })
	}
	wg.Wait()
	w.preview(s.URL)
	if n := pages.Load(); n != 1 {
		t.Errorf("fetched %d times", n)
	}
	for range 3 {
		_, err := w.Preview(w.ctx, s.URL+"/none")
		wantErr(t, "a page that is not there", err, merr.NotFound)
	}
	if n := failures.Load(); n != 1 {
		t.Errorf("a failure was asked for %d times", n)
	}
	w.clock.Advance(failureTTL)
	if _, err := w.Preview(w.ctx, s.URL+"/none"); err == nil || failures.Load() != 2 {
		t.Errorf("a failure that is old: %v, %d", err, failures.Load())
	}
	w.clock.Advance(previewTTL)
	w.preview(s.URL)
	if n := pages.Load(); n != 2 {
		t.Errorf("fetched %d times after its time", n)
	}
	if list, _, err := w.ListByUser(w.ctx, "", "", 10); err != nil || len(list) != 0 {
		t.Errorf("pictures of previews belong to somebody: %v %v", list, err)
	}
	w.clock.Advance(previewTTL + imageTTL)
	w.sweepAll()
	w.wantNothing()
	if n := w.rows(tables.Preview); n != 0 {
		t.Errorf("%d previews are left", n)
	}
}

// TestForbiddenTargets is SECURITY S5: no way of writing an address, and no detour,
// leads to this machine or its networks.
func TestForbiddenTargets(t *testing.T) {
	inside := newCanary(t, "127.0.0.1")
	all := map[string][]string{}
	for _, name := range []string{"inside.test", "localhost.test", "127.1", "0", "0x7f000001", "2130706433", "0177.0.0.1"} {
		all[name] = []string{"127.0.0.1"}
	}
	all["metadata.google.internal"] = []string{"169.254.169.254"}
	w := newWorld(t, func(o *Options) { o.Resolver = names(t, all) })
	for _, host := range []string{
		"127.0.0.1", "127.1", "0", "0x7f000001", "2130706433", "0177.0.0.1", "localhost", "inside.test", "0.0.0.0",
		"[::1]", "[::]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::127.0.0.1]", "[64:ff9b::7f00:1]",
		"[64:ff9b::a9fe:a9fe]", "[::ffff:169.254.169.254]", "[fe80::1%25lo]", "[fe80::1%25eth0]", "[fc00::1]", "[2002:7f00:1::]", "[2001:db8::1]",
		"169.254.169.254", "metadata.google.internal", "10.0.0.1", "172.16.0.1", "192.168.0.1", "100.64.0.1", "192.0.2.1", "198.18.0.1",
		"224.0.0.1", "255.255.255.255", "240.0.0.1",
	} {
		_, err := w.Preview(w.ctx, "http://"+host+":"+inside.port+"/")
		wantErr(t, host, err, merr.NotFound)
	}
	// A public address, at a port that is not of the web.
	_, err := w.Preview(w.ctx, "http://93.184.215.14:22/")
	wantErr(t, "port 22", err, merr.NotFound)
	for _, u := range []string{
		"file:///etc/passwd", "gopher://127.0.0.1:70/", "ftp://x.example/", "data:text/html,x", "javascript:alert(1)", "//x.example",
		"http://", "http:///path", "http:opaque", "x", "", "http://user:pw@x.example/", "http://x.example:99999/\x00", "http://" + strings.Repeat("x", maxURL),
	} {
		_, err := w.Preview(w.ctx, u)
		wantErr(t, u, err, merr.InvalidParam)
	}
	inside.check(t)
}

// TestDetours is SECURITY S5: every hop is looked at, and the picture too.
func TestDetours(t *testing.T) {
	outside := newCanary(t, "127.0.0.2") // where the pages may not lead
	table := map[string][]string{"outside.test": {"127.0.0.2"}}
	pages := map[string]string{}
	s := site(t, pages)
	_, port, _ := net.SplitHostPort(strings.TrimPrefix(s.URL, "http://"))
	table["good.test"] = []string{"127.0.0.1"}
	// First where previews may go, then where they may not.
	table["rebind.test"] = []string{"127.0.0.1", "127.0.0.2"}
	for path, to := range map[string]string{
		"/a": "http://" + outside.addr, "/b": "http://outside.test:" + outside.port, "/c": "file:///etc/passwd", "/d": "gopher://" + outside.addr,
		"/e": "//" + outside.addr, "/g": "http://user:pw@" + strings.TrimPrefix(s.URL, "http://") + "/p", "/f": "http://user:pw@" + outside.addr,
	} {
		pages[path] = "-> " + to
		pages["/image"+path] = `<title>T</title><meta property="og:image" content="` + path + `"><img src="` + to + `">`
	}
	pages["/deep"] = "-> /a"
	pages["/rebind"] = `<title>T</title><meta property="og:image" content="http://rebind.test:` + port + `/p">`
	pages["/p"] = string(pngOf(t, halves(4, 4)))
	w := previewWorld(t, func(o *Options) { o.Resolver = names(t, table) })
	for _, path := range []string{"/a", "/b", "/c", "/d", "/e", "/f", "/g", "/deep"} {
		_, err := w.Preview(w.ctx, s.URL+path)
		wantErr(t, path, err, merr.NotFound)
		if path == "/deep" {
			continue
		}
		if got := w.preview(s.URL + "/image" + path); got["og:title"] != "T" || got["og:image"] != nil {
			t.Errorf("/image%s: %v", path, got)
		}
	}
	if got := w.preview("http://good.test:" + port + "/rebind"); got["og:image"] == nil {
		t.Errorf("the name leads to an allowed address yet: %v", got)
	}
	if got := w.preview("http://good.test:" + port + "/rebind?2"); got["og:image"] != nil {
		t.Errorf("the name led elsewhere: %v", got)
	}
	outside.check(t)
}

// TestProxyIsIgnored: a proxy in the environment would connect in our place.
func TestProxyIsIgnored(t *testing.T) {
	proxy := newCanary(t, "127.0.0.1")
	for _, name := range []string{"HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY"} {
		t.Setenv(name, "http://"+proxy.addr)
	}
	w := newWorld(t, func(o *Options) { o.Resolver = names(t, map[string][]string{"x.test": {"10.0.0.1"}}) })
	for _, u := range []string{"http://x.test/", "http://10.0.0.1/", "https://x.test/"} {
		_, err := w.Preview(w.ctx, u)
		wantErr(t, u, err, merr.NotFound)
	}
	if p := w.previewer.transport.Proxy; p != nil {
		t.Error("the transport has a proxy")
	}
	proxy.check(t)
}

// TestHostilePages is SECURITY S6: depth, length and slowness have bounds.
func TestHostilePages(t *testing.T) {
	w := previewWorld(t)
	var sent atomic.Int64
	stop := make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Content-Type", "text/html")
		head := "<title>T</title>"
		switch r.URL.Path {
		case "/nested":
			_, _ = rw.Write([]byte(head + strings.Repeat("<div>", 100_000)))
		case "/attribute":
			_, _ = rw.Write([]byte(head + `<a x="` + strings.Repeat("x", 1<<20) + `">`))
		case "/tags":
			_, _ = rw.Write([]byte(head + strings.Repeat("<b>", 300_000)))
		case "/metas":
			for i := range 20_000 {
				_, _ = fmt.Fprintf(rw, "<meta property=p%d content=x>", i)
			}
			_, _ = rw.Write([]byte(head))
		case "/endless":
			_, _ = rw.Write([]byte(head))
			for b := make([]byte, 64<<10); ; {
				n, err := rw.Write(b)
				sent.Add(int64(n))
				if err != nil {
					return
				}
			}
		case "/endlessimage":
			_, _ = rw.Write([]byte(head + "<meta property=og:image content=/image>"))
		case "/image":
			_, _ = rw.Write(pngOf(t, halves(4, 4)))
			for b := make([]byte, 64<<10); ; {
				if _, err := rw.Write(b); err != nil {
					return
				}
			}
		case "/bomb":
			_, _ = rw.Write([]byte(head + "<meta property=og:image content=/bombimage>"))
		case "/bombimage":
			_, _ = rw.Write(pngHead(50_000, 50_000, 1))
		case "/slow":
			_, _ = rw.Write([]byte("<"))
			_ = http.NewResponseController(rw).Flush()
			select {
			case <-stop:
			case <-r.Context().Done():
			}
		case "/header":
			rw.Header().Set("X", strings.Repeat("x", 1<<20))
		}
	}))
	defer s.Close()
	defer close(stop)
	for _, path := range []string{"/nested", "/attribute", "/tags", "/metas", "/endless", "/endlessimage", "/bomb"} {
		got := w.preview(s.URL + path)
		if path != "/metas" && got["og:title"] != "T" || got["og:image"] != nil {
			t.Errorf("%s: %v", path, got)
		}
	}
	if n := sent.Load(); n > 16<<20 {
		t.Errorf("%d bytes of an endless page were taken", n)
	}
	_, err := w.Preview(w.ctx, s.URL+"/header")
	wantErr(t, "long headers", err, merr.NotFound)
	w.previewer.patience = 50 * time.Millisecond
	_, err = w.Preview(w.ctx, s.URL+"/slow")
	wantErr(t, "slow", err, merr.NotFound)
}

// FuzzPage: no page makes the reader fail or say more than it may.
func FuzzPage(f *testing.F) {
	f.Add("<title>x</title><p>y", "text/html")
	f.Add("<meta property=og:image content=x><svg><title>", "text/html; charset=utf-16")
	f.Fuzz(func(t *testing.T, page, declared string) {
		p, err := readPage(strings.NewReader(page), declared)
		if err != nil {
			return
		}
		if len([]rune(p.title)) > maxTitle+1 || len([]rune(p.description)) > maxDescription+1 || len(p.images) > maxImages {
			t.Errorf("too much: %+v", p)
		}
		if _, err := p.encode(); err != nil {
			t.Errorf("encode: %v", err)
		}
		for _, name := range p.images {
			_, _ = (&url.URL{Scheme: "http", Host: "h"}).Parse(name)
		}
	})
}
