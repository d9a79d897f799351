package web

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"mime"
	"net/http"
	"path"
	"strconv"
	"strings"
)

// contentSecurityPolicy lets the page load its own files and talk to its own server, and nothing else. 'self' covers
// the WebSocket to the same host (CSP 3, scheme-part match). No script or style stands in the HTML.
// 'wasm-unsafe-eval' lets the module for encryption be compiled, and no text become a script. The one policy of Trusted
// Types is platform/worker.ts's, which gives one constant address; no library can make another.
const contentSecurityPolicy = "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; img-src 'self' data: blob:; " +
	"media-src 'self' blob:; font-src 'self'; connect-src 'self'; manifest-src 'self'; worker-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types hubbub-worker"

const permissionsPolicy = "geolocation=(), payment=(), usb=(), serial=(), bluetooth=(), midi=()"

// Vite names files under assets by their content, so a name never changes its meaning.
const (
	assetsPrefix   = "/assets/"
	cacheForever   = "public, max-age=31536000, immutable"
	cacheCheckback = "no-cache"
)

const notBuilt = `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>hubbub</title></head><body>
<h1>hubbub is running</h1>
<p>The web app was not built into this binary. Build it with <code>make build</code>, which needs Node.js and npm,
and start the server again.</p>
<p>Any Matrix client can use this server meanwhile: give it the address of this page as the homeserver.</p>
</body></html>
`

// file is one file of the app in its three forms. None is held in memory: the binary has them, and reading an embedded
// file whole would copy it, 16 MB in all. gzip and brotli are nil where they gain nothing.
type file struct {
	contentType string
	cache       string
	plain       encoded
	gzip        *encoded
	brotli      *encoded
}

type encoded struct {
	open func() (io.ReadCloser, error)
	size int64
	etag string
}

type handler struct {
	files map[string]*file // by URL path
	index *file
}

var _ http.Handler = (*handler)(nil)

// Handler serves the app: its files, and index.html for every other path that is not a file's, so that the app's own
// paths can be opened and reloaded. It answers GET and HEAD, to anyone.
func Handler() http.Handler {
	h, err := newHandler(Dist())
	if err != nil {
		panic("web: " + err.Error()) // embedded files can be read
	}
	return h
}

func newHandler(files fs.FS) (*handler, error) {
	h := &handler{files: make(map[string]*file)}
	err := fs.WalkDir(files, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || isHidden(name) || isPacked(name) {
			return err
		}
		f, err := readFile(files, name)
		if err != nil {
			return err
		}
		h.files["/"+name] = f
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the web app: %w", err)
	}
	h.index = h.files["/index.html"]
	if h.index == nil {
		h.index = &file{contentType: "text/html; charset=utf-8", cache: cacheCheckback, plain: notBuiltPage()}
	}
	delete(h.files, "/index.html") // it has one address, which is every other
	return h, nil
}

func readFile(files fs.FS, name string) (*file, error) {
	plain, err := encode(files, name)
	if err != nil {
		return nil, err
	}
	f := &file{contentType: contentType(name), cache: cacheCheckback, plain: plain}
	if strings.HasPrefix("/"+name, assetsPrefix) {
		f.cache = cacheForever
	}
	for suffix, form := range map[string]**encoded{".gz": &f.gzip, ".br": &f.brotli} {
		packed, err := encode(files, name+suffix)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		*form = &packed
	}
	return f, nil
}

// encode describes one form of a file. What Vite named by its content needs no hash of it, for which all would be read at
// the start, and stay in memory.
func encode(files fs.FS, name string) (encoded, error) {
	e := encoded{open: func() (io.ReadCloser, error) { return files.Open(name) }, etag: `"` + path.Base(name) + `"`}
	info, err := fs.Stat(files, name)
	if err != nil {
		return e, err
	}
	e.size = info.Size()
	if strings.HasPrefix("/"+name, assetsPrefix) {
		return e, nil
	}
	r, err := e.open()
	if err != nil {
		return e, err
	}
	defer r.Close()
	e.etag, err = hashTag(r)
	return e, err
}

func notBuiltPage() encoded {
	tag, _ := hashTag(strings.NewReader(notBuilt)) // a string can be read
	return encoded{
		open: func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(notBuilt)), nil },
		size: int64(len(notBuilt)), etag: tag,
	}
}

func hashTag(r io.Reader) (string, error) {
	hash := sha256.New()
	_, err := io.Copy(hash, r)
	return `"` + base64.RawURLEncoding.EncodeToString(hash.Sum(nil)[:12]) + `"`, err
}

func isHidden(name string) bool { return strings.HasPrefix(path.Base(name), ".") }

func isPacked(name string) bool {
	ext := path.Ext(name)
	return ext == ".gz" || ext == ".br"
}

// contentType does not ask the machine's own tables: the answer must be the same everywhere.
func contentType(name string) string {
	switch path.Ext(name) {
	case ".html":
		return "text/html; charset=utf-8"
	case ".js", ".mjs":
		return "text/javascript; charset=utf-8"
	case ".css":
		return "text/css; charset=utf-8"
	case ".svg":
		return "image/svg+xml"
	case ".json":
		return "application/json"
	case ".webmanifest":
		return "application/manifest+json"
	case ".wasm":
		return "application/wasm"
	case ".woff2":
		return "font/woff2"
	}
	if t := mime.TypeByExtension(path.Ext(name)); t != "" {
		return t
	}
	return "application/octet-stream"
}

func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	setSecurityHeaders(w.Header())
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
		return
	}
	f := h.files[r.URL.Path]
	if f == nil {
		// An asset that is not there belongs to another version: the page must not get HTML for a script.
		if strings.HasPrefix(r.URL.Path, assetsPrefix) {
			w.Header().Set("Cache-Control", "no-store")
			http.Error(w, "not found", http.StatusNotFound)
			return
		}
		f = h.index
	}
	f.serve(w, r)
}

func setSecurityHeaders(header http.Header) {
	header.Set("Content-Security-Policy", contentSecurityPolicy)
	header.Set("Permissions-Policy", permissionsPolicy)
	header.Set("Referrer-Policy", "no-referrer")
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("X-Frame-Options", "DENY")
	header.Set("Cross-Origin-Opener-Policy", "same-origin")
	header.Set("Cross-Origin-Resource-Policy", "same-origin")
}

func (f *file) serve(w http.ResponseWriter, r *http.Request) {
	header := w.Header()
	header.Set("Content-Type", f.contentType)
	header.Set("Cache-Control", f.cache)
	header.Add("Vary", "Accept-Encoding")
	form := f.plain
	accepted := r.Header.Values("Accept-Encoding")
	switch {
	case f.brotli != nil && accepts(accepted, "br"):
		form = *f.brotli
		header.Set("Content-Encoding", "br")
	case f.gzip != nil && accepts(accepted, "gzip"):
		form = *f.gzip
		header.Set("Content-Encoding", "gzip")
	}
	header.Set("ETag", form.etag)
	if matches(r.Header.Values("If-None-Match"), form.etag) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	body, err := form.open()
	if err != nil {
		http.Error(w, "the file cannot be read", http.StatusInternalServerError)
		return
	}
	defer body.Close()
	header.Set("Content-Length", strconv.FormatInt(form.size, 10))
	w.WriteHeader(http.StatusOK)
	if r.Method == http.MethodGet {
		_, _ = io.Copy(w, body) // the client went away: nobody is left to tell
	}
}

// accepts reads Accept-Encoding (RFC 9110, 12.5.3): the coding is named, or covered by *, with a weight above zero.
func accepts(values []string, coding string) bool {
	star := false
	for _, part := range strings.Split(strings.Join(values, ","), ",") {
		name, params, _ := strings.Cut(part, ";")
		name = strings.ToLower(strings.TrimSpace(name))
		if name != coding && name != "*" {
			continue
		}
		wanted := weight(params) > 0
		if name == coding {
			return wanted
		}
		star = wanted
	}
	return star
}

func weight(params string) float64 {
	for _, param := range strings.Split(params, ";") {
		key, value, _ := strings.Cut(strings.TrimSpace(param), "=")
		if !strings.EqualFold(strings.TrimSpace(key), "q") {
			continue
		}
		q, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
		if err != nil {
			return 0
		}
		return q
	}
	return 1
}

// matches reads If-None-Match (RFC 9110, 13.1.2), which compares weakly.
func matches(values []string, etag string) bool {
	for _, part := range strings.Split(strings.Join(values, ","), ",") {
		tag := strings.TrimPrefix(strings.TrimSpace(part), "W/")
		if tag == etag || tag == "*" {
			return true
		}
	}
	return false
}
