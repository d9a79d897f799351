package media_test

import (
	"bytes"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/hubbub-chat/hubbub/internal/app/apptest"
	"github.com/hubbub-chat/hubbub/internal/config"
)

func TestUploadAndDownload(t *testing.T) {
	s := apptest.Start(t)
	alice, bob := s.User(t, "alice"), s.User(t, "bob")
	content := noise(300_000)
	at := put(t, alice, content, "application/octet-stream", "a%20file.bin")
	s.Restart(t)
	for _, c := range []*apptest.Client{alice, bob} {
		resp, b := get(t, c, v1+"/download"+at)
		if resp.StatusCode != http.StatusOK || !bytes.Equal(b, content) {
			t.Fatalf("download: %d, %d bytes", resp.StatusCode, len(b))
		}
		for name, want := range map[string]string{
			"Content-Type":                 "application/octet-stream",
			"Content-Length":               "300000",
			"Content-Disposition":          `attachment; filename="a file.bin"`,
			"Cache-Control":                "private, max-age=31536000, immutable",
			"X-Content-Type-Options":       "nosniff",
			"Cross-Origin-Resource-Policy": "cross-origin",
			"Accept-Ranges":                "bytes",
			"Access-Control-Allow-Origin":  "*",
		} {
			if got := resp.Header.Get(name); got != want {
				t.Errorf("%s is %q, want %q", name, got, want)
			}
		}
		if csp := resp.Header.Get("Content-Security-Policy"); !strings.HasPrefix(csp, "sandbox; default-src 'none';") {
			t.Errorf("Content-Security-Policy is %q", csp)
		}
	}
}

// TestEmptyUpload: nothing is content too.
func TestEmptyUpload(t *testing.T) {
	s := apptest.Start(t)
	alice := s.User(t, "alice")
	at := put(t, alice, nil, "", "")
	if resp, b := get(t, alice, v1+"/download"+at); resp.StatusCode != http.StatusOK || len(b) != 0 {
		t.Errorf("got %d and %d bytes", resp.StatusCode, len(b))
	}
}

// TestAccess is SECURITY S2: only with a token in the header, but for old clients
// where that is switched on; and never without an account for uploads.
func TestAccess(t *testing.T) {
	s := apptest.Start(t, func(c *config.Config) { c.Media.LegacyDownload = false })
	alice, nobody := s.User(t, "alice"), s.Anonymous()
	at := put(t, alice, asPNG(t, picture(100, 100)), "image/png", "")
	thumb := "?width=32&height=32"
	for _, target := range []string{v1 + "/download" + at, v1 + "/download" + at + "/name", v1 + "/thumbnail" + at + thumb, v1 + "/config", v1 + "/preview_url?url=http://x.example"} {
		resp, b := get(t, nobody, target)
		fails(t, "without a token "+target, resp, b, 401, "M_MISSING_TOKEN")
		sep := "?"
		if strings.Contains(target, "?") {
			sep = "&"
		}
		resp, b = get(t, nobody, target+sep+"access_token="+url.QueryEscape(alice.Token))
		fails(t, "token in the address of "+target, resp, b, 401, "M_MISSING_TOKEN")
	}
	for _, q := range []request{
		{method: "POST", target: upload, body: strings.NewReader("x")},
		{method: "PUT", target: upload + at, body: strings.NewReader("x")},
		{method: "POST", target: create},
		{method: "GET", target: old + "/config"},
		{method: "GET", target: old + "/preview_url?url=http://x.example"},
	} {
		resp, b := do(t, nobody, q)
		fails(t, q.method+" "+q.target, resp, b, 401, "M_MISSING_TOKEN")
	}
	for _, target := range []string{old + "/download" + at, "/_matrix/media/r0/download" + at, old + "/download" + at + "/n", old + "/thumbnail" + at + thumb} {
		for _, c := range []*apptest.Client{nobody, alice} {
			resp, b := get(t, c, target)
			fails(t, "legacy "+target, resp, b, 404, "M_NOT_FOUND")
		}
	}
}

func TestLegacyDownload(t *testing.T) {
	s := apptest.Start(t)
	alice, nobody := s.User(t, "alice"), s.Anonymous()
	defer nobody.HTTP.CloseIdleConnections()
	at := put(t, alice, []byte("text"), "text/plain", "")
	for _, base := range []string{old, "/_matrix/media/r0", "/_matrix/media/v1"} {
		resp, b := get(t, nobody, base+"/download"+at)
		if resp.StatusCode != http.StatusOK || string(b) != "text" || resp.Header.Get("Cache-Control") != "public, max-age=86400, immutable" {
			t.Errorf("%s: %d %q %q", base, resp.StatusCode, b, resp.Header.Get("Cache-Control"))
		}
	}
}

// TestRanges: parts, conditions and HEAD.
func TestRanges(t *testing.T) {
	s := apptest.Start(t)
	alice := s.User(t, "alice")
	content := noise(10_000)
	target := v1 + "/download" + put(t, alice, content, "video/mp4", "")
	resp, _ := get(t, alice, target)
	tag := resp.Header.Get("ETag")
	if len(tag) < 20 {
		t.Fatalf("ETag is %q", tag)
	}
	for _, tt := range []struct {
		name   string
		method string
		header map[string]string
		status int
		want   []byte
		length string
	}{
		{"first part", "GET", map[string]string{"Range": "bytes=0-99"}, 206, content[:100], "100"},
		{"middle", "GET", map[string]string{"Range": "bytes=5000-5099"}, 206, content[5000:5100], "100"},
		{"end", "GET", map[string]string{"Range": "bytes=-5"}, 206, content[9995:], "5"},
		{"open end", "GET", map[string]string{"Range": "bytes=9000-"}, 206, content[9000:], "1000"},
		{"several are all", "GET", map[string]string{"Range": "bytes=0-1,5-6"}, 200, content, "10000"},
		{"same version", "GET", map[string]string{"Range": "bytes=0-1", "If-Range": tag}, 206, content[:2], "2"},
		{"other version", "GET", map[string]string{"Range": "bytes=0-1", "If-Range": `"x"`}, 200, content, "10000"},
		{"known", "GET", map[string]string{"If-None-Match": tag}, 304, nil, ""},
		{"head", "HEAD", nil, 200, nil, "10000"},
		{"behind the end", "GET", map[string]string{"Range": "bytes=10000-"}, 416, nil, ""},
	} {
		resp, b := do(t, alice, request{method: tt.method, target: target, header: tt.header})
		if resp.StatusCode != tt.status || tt.length != "" && resp.Header.Get("Content-Length") != tt.length {
			t.Errorf("%s: %d, length %s", tt.name, resp.StatusCode, resp.Header.Get("Content-Length"))
		}
		if tt.status < 400 && !bytes.Equal(b, tt.want) {
			t.Errorf("%s: %d bytes, not those wanted", tt.name, len(b))
		}
		if resp.Header.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: without nosniff", tt.name)
		}
	}
}

// TestTypes is SECURITY S28: what a browser would run comes as a file to save, and
// no content passes for a picture that it is not.
func TestTypes(t *testing.T) {
	s := apptest.Start(t)
	alice := s.User(t, "alice")
	png, jpg := string(asPNG(t, picture(4, 4))), string(asJPEG(t, picture(4, 4)))
	for _, tt := range []struct{ declared, content, want, how string }{
		{"image/png", png, "image/png", "inline"},
		{"image/jpeg", png, "image/png", "inline"},
		{"image/png", jpg, "image/jpeg", "inline"},
		{"", png, "image/png", "inline"},
		{"img/png", png, "img/png", "attachment"},
		{"application/octet-stream", png, "application/octet-stream", "attachment"},
		{"image/png", "<script>alert(1)</script>", "application/octet-stream", "attachment"},
		{"text/html", "<script>alert(1)</script>", "text/html", "attachment"},
		{"text/html;charset=utf-8", "<script>", "text/html; charset=utf-8", "attachment"},
		{"TEXT/HTML", "<script>", "text/html", "attachment"},
		{"image/svg+xml", "<svg onload='x'/>", "image/svg+xml", "attachment"},
		{"text/xml", "<x/>", "text/xml", "attachment"},
		{"application/xhtml+xml", "<x/>", "application/xhtml+xml", "attachment"},
		{"application/pdf", "%PDF-1.4", "application/pdf", "attachment"},
		{"text/javascript", "alert(1)", "text/javascript", "attachment"},
		{"text/plain", "hello", "text/plain", "inline"},
		{"audio/ogg", "OggS", "audio/ogg", "inline"},
		{"nonsense", "x", "application/octet-stream", "attachment"},
		{"text/plain; x=" + strings.Repeat("a", 300), "x", "application/octet-stream", "attachment"},
		{"", "<html>", "application/octet-stream", "attachment"},
	} {
		at := put(t, alice, []byte(tt.content), tt.declared, "")
		for _, header := range []map[string]string{nil, {"Range": "bytes=0-0"}} {
			resp, _ := do(t, alice, request{method: "GET", target: v1 + "/download" + at, header: header})
			how, _, err := mime.ParseMediaType(resp.Header.Get("Content-Disposition"))
			if got := resp.Header.Get("Content-Type"); err != nil || got != tt.want || how != tt.how {
				t.Errorf("%q of %.20q: served as %q %q (%v), want %q %q", tt.declared, tt.content, got, how, err, tt.want, tt.how)
			}
			if !strings.Contains(resp.Header.Get("Content-Security-Policy"), "sandbox") {
				t.Errorf("%q: no sandbox", tt.declared)
			}
		}
	}
}

func TestFileNames(t *testing.T) {
	s := apptest.Start(t)
	alice := s.User(t, "alice")
	name := func(resp *http.Response) string {
		_, params, err := mime.ParseMediaType(resp.Header.Get("Content-Disposition"))
		if err != nil {
			t.Errorf("%q: %v", resp.Header.Get("Content-Disposition"), err)
		}
		return params["filename"]
	}
	for _, tt := range []struct{ given, want string }{
		{"plain.txt", "plain.txt"},
		{"with space;and=\"signs\".txt", "with space;and=\"signs\".txt"},
		{"☕ über.txt", "☕ über.txt"},
		{"../../etc/passwd", "passwd"},
		{`C:\secret\a.txt`, "a.txt"},
		{"a\r\nSet-Cookie: x", "aSet-Cookie: x"},
		{"exe\u202egpj.exe", "exegpj.exe"},
		{"..", ""},
		{strings.Repeat("ü", 300), strings.Repeat("ü", 127)},
	} {
		at := put(t, alice, []byte("x"), "text/plain", url.QueryEscape(tt.given))
		resp, _ := get(t, alice, v1+"/download"+at)
		if got := name(resp); got != tt.want {
			t.Errorf("%q came back as %q, want %q", tt.given, got, tt.want)
		}
	}
	at := put(t, alice, []byte("x"), "text/plain", "first.txt")
	resp, _ := get(t, alice, v1+"/download"+at+"/other%20n%C3%A4me.txt")
	if got := name(resp); got != "other näme.txt" {
		t.Errorf("the name of the address: %q", got)
	}
}

// TestTraversal is SECURITY S1: no name leads to anything but media.
func TestTraversal(t *testing.T) {
	s := apptest.Start(t)
	alice := s.User(t, "alice")
	at := put(t, alice, []byte("x"), "text/plain", "")
	id := at[strings.LastIndex(at, "/")+1:]
	before := files(t, s.Config.Server.DataDir)
	names := []string{
		"..", "../..", "%2e%2e", "%2e%2e%2f%2e%2e", "..%2f..%2fstore", "%252e%252e%252f", `..\..`, "..%5c..%5cstore",
		"%00", id + "%00", id + "%2f..", "%2fetc%2fpasswd", id + ".96x96c", strings.Repeat("a", 300), "ä", "%c3%a4", ".", "",
	}
	for _, n := range names {
		for _, target := range []string{
			"/" + apptest.Name + "/" + n, "/" + n + "/" + id, "/" + n + "/" + n,
		} {
			for _, path := range []string{v1 + "/download", v1 + "/thumbnail", old + "/download", old + "/thumbnail"} {
				resp, b := get(t, alice, path+target+"?width=32&height=32")
				if resp.StatusCode != 404 && resp.StatusCode != 400 {
					t.Errorf("GET %s%s: %d %s", path, target, resp.StatusCode, b)
				}
			}
			resp, b := do(t, alice, request{method: "PUT", target: upload + target, body: strings.NewReader("x")})
			if resp.StatusCode != 404 && resp.StatusCode != 400 && resp.StatusCode != 405 {
				t.Errorf("PUT %s: %d %s", target, resp.StatusCode, b)
			}
		}
		resp, _ := get(t, alice, v1+"/download"+at+"/"+n)
		if resp.StatusCode == http.StatusOK && strings.ContainsAny(resp.Header.Get("Content-Disposition"), "/\\\x00") {
			t.Errorf("file name %q came back as %q", n, resp.Header.Get("Content-Disposition"))
		}
	}
	if after := files(t, s.Config.Server.DataDir); after != before {
		t.Errorf("the media files were\n%s\nand are\n%s", before, after)
	}
	resp, b := get(t, alice, v1+"/download/other.example/"+id)
	fails(t, "media of another server", resp, b, 404, "M_NOT_FOUND")
}

// files lists what is in the data directory beside the store.
func files(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
		if err == nil && !strings.HasPrefix(path, filepath.Join(dir, "store")) {
			fmt.Fprintln(&b, path, info.Mode().IsRegular())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// endless is a body that does not end.
type endless struct{ sent atomic.Int64 }

func (e *endless) Read(b []byte) (int, error) {
	e.sent.Add(int64(len(b)))
	return len(b), nil
}

// TestTooLarge is SECURITY S4: the limit holds whatever the sender announces, and
// nothing is read far beyond it.
func TestTooLarge(t *testing.T) {
	s := apptest.Start(t, small)
	alice := s.User(t, "alice")
	put(t, alice, noise(100_000), "", "")
	resp, b := do(t, alice, request{method: "POST", target: upload, body: bytes.NewReader(noise(100_001))})
	fails(t, "one byte too many", resp, b, 413, "M_TOO_LARGE")
	resp, b = do(t, alice, request{method: "POST", target: upload, body: io.LimitReader(&endless{}, 100_001)})
	fails(t, "one byte too many, unannounced", resp, b, 413, "M_TOO_LARGE")

	body := &endless{}
	r, err := http.NewRequestWithContext(t.Context(), "POST", s.URL+upload, body)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+alice.Token)
	// The server answers and hangs up while the client still sends; the client may see
	// either first.
	if resp, err := alice.HTTP.Do(r); err == nil {
		if resp.StatusCode != 413 {
			t.Errorf("an endless body: %d", resp.StatusCode)
		}
		resp.Body.Close()
	}
	if body.sent.Load() > 64<<20 {
		t.Errorf("%d bytes were taken", body.sent.Load())
	}
	for _, target := range []string{v1 + "/config", old + "/config"} {
		if got := alice.Must(t, "GET", target, nil)["m.upload.size"]; got != 100_000.0 {
			t.Errorf("%s says %v", target, got)
		}
	}
	if left := files(t, filepath.Join(s.Config.Server.DataDir, "spool")); strings.Count(left, "\n") != 1 {
		t.Errorf("left behind: %s", left)
	}
}

// TestBrokenUpload: a client that goes away leaves nothing.
func TestBrokenUpload(t *testing.T) {
	s := apptest.Start(t)
	alice := s.User(t, "alice")
	before := files(t, s.Config.Server.DataDir)
	r, err := http.NewRequestWithContext(t.Context(), "POST", s.URL+upload, io.MultiReader(strings.NewReader("part"), broken{}))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+alice.Token)
	if resp, err := alice.HTTP.Do(r); err == nil {
		resp.Body.Close()
		t.Errorf("answered with %d", resp.StatusCode)
	}
	s.Restart(t) // the request is over
	if after := files(t, s.Config.Server.DataDir); after != before {
		t.Errorf("before\n%s\nafter\n%s", before, after)
	}
}

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, io.ErrClosedPipe }

// TestSameContent: content is stored once, and each has an ID of its own.
func TestSameContent(t *testing.T) {
	s := apptest.Start(t)
	alice, bob := s.User(t, "alice"), s.User(t, "bob")
	content := noise(5000)
	first := put(t, alice, content, "text/plain", "one")
	n := strings.Count(files(t, s.Config.Server.DataDir), "true")
	second := put(t, bob, content, "audio/ogg", "two")
	if first == second {
		t.Fatal("both have one ID")
	}
	if got := strings.Count(files(t, s.Config.Server.DataDir), "true"); got != n || n != 1 {
		t.Errorf("%d files, then %d", n, got)
	}
	resp, b := get(t, alice, v1+"/download"+second)
	if !bytes.Equal(b, content) || resp.Header.Get("Content-Type") != "audio/ogg" {
		t.Errorf("the second: %d bytes of type %s", len(b), resp.Header.Get("Content-Type"))
	}
}

// TestOtherBodies is SECURITY S4: routes that take no media take no other body than
// JSON, and no large one, whatever it claims to be.
func TestOtherBodies(t *testing.T) {
	s := apptest.Start(t)
	alice := s.User(t, "alice")
	send := "/_matrix/client/v3/rooms/" + url.PathEscape(alice.CreateRoom(t, nil)) + "/send/m.room.message/"
	large := bytes.Repeat([]byte("x"), 4<<20)
	for _, tt := range []struct {
		name   string
		header map[string]string
		body   io.Reader
		status int
		code   string
	}{
		{"multipart", map[string]string{"Content-Type": "multipart/form-data; boundary=b"}, bytes.NewReader(large), 413, "M_TOO_LARGE"},
		{"multipart, unannounced", map[string]string{"Content-Type": "multipart/form-data; boundary=b"}, io.LimitReader(&endless{}, 4<<20), 413, "M_TOO_LARGE"},
		{"gzip", map[string]string{"Content-Encoding": "gzip"}, strings.NewReader("\x1f\x8b\x08\x00\x00\x00\x00\x00"), 400, "M_NOT_JSON"},
	} {
		resp, b := do(t, alice, request{method: "PUT", target: send + url.PathEscape(tt.name), header: tt.header, body: tt.body})
		fails(t, tt.name, resp, b, tt.status, tt.code)
	}
	// An upload is what its bytes are: nothing unpacks them.
	packed := []byte("\x1f\x8b\x08\x00\x00\x00\x00\x00")
	resp, b := do(t, alice, request{method: "POST", target: upload, header: map[string]string{"Content-Encoding": "gzip"}, body: bytes.NewReader(packed)})
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("upload: %d %s", resp.StatusCode, b)
	}
	at := strings.TrimSuffix(strings.TrimPrefix(string(b), `{"content_uri":"mxc:/`), `"}`)
	if _, b = get(t, alice, v1+"/download"+at); !bytes.Equal(b, packed) {
		t.Errorf("came back as %x", b)
	}
}
