package web

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/fstest"
)

func testFiles() fstest.MapFS {
	return fstest.MapFS{
		".gitkeep":              {Data: []byte("")},
		"index.html":            {Data: []byte("<!doctype html>index")},
		"index.html.gz":         {Data: []byte("gzip of index")},
		"favicon.svg":           {Data: []byte("<svg/>")},
		"assets/app-1a2b.js":    {Data: []byte("plain script")},
		"assets/app-1a2b.js.gz": {Data: []byte("gzip of script")},
		"assets/app-1a2b.js.br": {Data: []byte("brotli of script")},
	}
}

func newTestHandler(t *testing.T, files fstest.MapFS) http.Handler {
	t.Helper()
	h, err := newHandler(files)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func do(h http.Handler, method, target string, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, target, nil)
	for i := 0; i < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func TestWhatIsServed(t *testing.T) {
	h := newTestHandler(t, testFiles())
	tests := []struct {
		name, target string
		status       int
		contentType  string
		cache        string
		body         string
	}{
		{"the root", "/", 200, "text/html; charset=utf-8", cacheCheckback, "<!doctype html>index"},
		{"a path of the app", "/some/where", 200, "text/html; charset=utf-8", cacheCheckback, "<!doctype html>index"},
		{"index.html by name", "/index.html", 200, "text/html; charset=utf-8", cacheCheckback, "<!doctype html>index"},
		{"a hashed file", "/assets/app-1a2b.js", 200, "text/javascript; charset=utf-8", cacheForever, "plain script"},
		{"a file without a hash", "/favicon.svg", 200, "image/svg+xml", cacheCheckback, "<svg/>"},
		{"a hashed file of another version", "/assets/app-9999.js", 404, "text/plain; charset=utf-8", "no-store", "not found\n"},
		{"a packed file by its own name", "/assets/app-1a2b.js.br", 404, "text/plain; charset=utf-8", "no-store", "not found\n"},
		{"a hidden file", "/.gitkeep", 200, "text/html; charset=utf-8", cacheCheckback, "<!doctype html>index"},
		{"a path that climbs", "/assets/../../etc/passwd", 404, "text/plain; charset=utf-8", "no-store", "not found\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := do(h, http.MethodGet, tt.target)
			if w.Code != tt.status || w.Body.String() != tt.body {
				t.Errorf("got %d %q, want %d %q", w.Code, w.Body, tt.status, tt.body)
			}
			if got := w.Header().Get("Content-Type"); got != tt.contentType {
				t.Errorf("Content-Type %q, want %q", got, tt.contentType)
			}
			if got := w.Header().Get("Cache-Control"); got != tt.cache {
				t.Errorf("Cache-Control %q, want %q", got, tt.cache)
			}
		})
	}
}

func TestEncodings(t *testing.T) {
	h := newTestHandler(t, testFiles())
	tests := []struct{ target, accept, encoding, body string }{
		{"/assets/app-1a2b.js", "", "", "plain script"},
		{"/assets/app-1a2b.js", "gzip, deflate, br", "br", "brotli of script"},
		{"/assets/app-1a2b.js", "gzip", "gzip", "gzip of script"},
		{"/assets/app-1a2b.js", "GZIP;q=0.5", "gzip", "gzip of script"},
		{"/assets/app-1a2b.js", "br;q=0, gzip", "gzip", "gzip of script"},
		{"/assets/app-1a2b.js", "br;q=0.0, gzip;q=0", "", "plain script"},
		{"/assets/app-1a2b.js", "*", "br", "brotli of script"},
		{"/assets/app-1a2b.js", "*;q=0", "", "plain script"},
		{"/assets/app-1a2b.js", "br;q=x", "", "plain script"},
		{"/assets/app-1a2b.js", "brotli", "", "plain script"},
		{"/", "gzip, br", "gzip", "gzip of index"},
		{"/favicon.svg", "gzip, br", "", "<svg/>"},
	}
	for _, tt := range tests {
		w := do(h, http.MethodGet, tt.target, "Accept-Encoding", tt.accept)
		if got := w.Header().Get("Content-Encoding"); got != tt.encoding || w.Body.String() != tt.body {
			t.Errorf("%s with %q: got %q %q, want %q %q", tt.target, tt.accept, got, w.Body, tt.encoding, tt.body)
		}
		if got := w.Header().Get("Vary"); got != "Accept-Encoding" {
			t.Errorf("%s: Vary %q", tt.target, got)
		}
	}
}

func TestRevalidation(t *testing.T) {
	h := newTestHandler(t, testFiles())
	plain := do(h, http.MethodGet, "/").Header().Get("ETag")
	packed := do(h, http.MethodGet, "/", "Accept-Encoding", "gzip").Header().Get("ETag")
	if plain == "" || plain == packed {
		t.Fatalf("ETags %q and %q must exist and differ", plain, packed)
	}
	for _, match := range []string{plain, `"other", ` + plain, "W/" + plain, "*"} {
		w := do(h, http.MethodGet, "/some/where", "If-None-Match", match)
		if w.Code != http.StatusNotModified || w.Body.Len() != 0 || w.Header().Get("ETag") != plain {
			t.Errorf("If-None-Match %s: got %d with %d bytes", match, w.Code, w.Body.Len())
		}
	}
	if w := do(h, http.MethodGet, "/", "If-None-Match", packed); w.Code != http.StatusOK {
		t.Errorf("the tag of another encoding: got %d", w.Code)
	}
	files := testFiles()
	files["index.html"] = &fstest.MapFile{Data: []byte("a new version")}
	if got := do(newTestHandler(t, files), http.MethodGet, "/").Header().Get("ETag"); got == plain {
		t.Error("a new version has the ETag of the old one")
	}
}

func TestMethods(t *testing.T) {
	h := newTestHandler(t, testFiles())
	w := do(h, http.MethodHead, "/assets/app-1a2b.js")
	if w.Code != http.StatusOK || w.Body.Len() != 0 || w.Header().Get("Content-Length") != "12" {
		t.Errorf("HEAD: got %d, %d bytes, Content-Length %s", w.Code, w.Body.Len(), w.Header().Get("Content-Length"))
	}
	w = do(h, http.MethodPost, "/")
	if w.Code != http.StatusMethodNotAllowed || w.Header().Get("Allow") != "GET, HEAD" {
		t.Errorf("POST: got %d, Allow %q", w.Code, w.Header().Get("Allow"))
	}
}

func TestSecurityHeadersOnEveryAnswer(t *testing.T) {
	h := newTestHandler(t, testFiles())
	for _, target := range []string{"/", "/assets/app-1a2b.js", "/assets/none.js"} {
		header := do(h, http.MethodGet, target).Header()
		csp := header.Get("Content-Security-Policy")
		for _, directive := range []string{"default-src 'none'", "script-src 'self' 'wasm-unsafe-eval';", "style-src 'self';", "frame-ancestors 'none'", "base-uri 'none'"} {
			if !strings.Contains(csp, directive) {
				t.Errorf("%s: the policy lacks %q: %s", target, directive, csp)
			}
		}
		if strings.Contains(strings.ReplaceAll(csp, "'wasm-unsafe-eval'", ""), "unsafe") {
			t.Errorf("%s: the policy allows something unsafe: %s", target, csp)
		}
		for key, want := range map[string]string{"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "X-Frame-Options": "DENY"} {
			if got := header.Get(key); got != want {
				t.Errorf("%s: %s is %q, want %q", target, key, got, want)
			}
		}
	}
}

func TestUnbuiltAppSaysSo(t *testing.T) {
	h := newTestHandler(t, fstest.MapFS{".gitkeep": {}})
	w := do(h, http.MethodGet, "/")
	if w.Code != http.StatusOK || !strings.Contains(w.Body.String(), "make build") {
		t.Errorf("got %d %s", w.Code, w.Body)
	}
	if got := w.Header().Get("Cache-Control"); got != cacheCheckback {
		t.Errorf("Cache-Control %q", got)
	}
}

// What is embedded now, built or not, must load, and a built index.html must keep to the policy.
func TestEmbedded(t *testing.T) {
	w := do(Handler(), http.MethodGet, "/")
	if w.Code != http.StatusOK {
		t.Fatalf("got %d", w.Code)
	}
	body := strings.ToLower(w.Body.String())
	for _, inline := range []string{"<style", " style=", "<script>", "onload=", "http://", "https://"} {
		if strings.Contains(body, inline) {
			t.Errorf("index.html holds %q, which the policy forbids", inline)
		}
	}
}
