// Package media serves what users upload: uploads, downloads, thumbnails, and
// previews of links. spec: client-server §Content Repository.
//
// Whatever a file contains, a browser that opens it must not run it in the name of
// this server: it is sent with a policy that forbids everything, never sniffed, and
// shown inline only if its type is one of a short list. Handlers keep no state.
package media

import (
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/hubbub-chat/hubbub/internal/api"
	core "github.com/hubbub-chat/hubbub/internal/media"
	"github.com/hubbub-chat/hubbub/internal/merr"
)

const (
	// defaultWait is how long a download waits for content that is not uploaded yet,
	// unless the client says otherwise. spec: client-server §GET /media/download.
	defaultWait = 20 * time.Second
	// policy forbids a browser to do anything with what it shows.
	// spec: client-server §Serving inline content, §GET /media/download.
	policy = "sandbox; default-src 'none'; script-src 'none'; plugin-types application/pdf; style-src 'unsafe-inline'; object-src 'self'; frame-ancestors 'none'"
	// What a media ID names never changes. Caches that are shared must not keep what
	// only users with an account may see; and what is removed must be gone from
	// public ones after a day.
	cachePrivate = "private, max-age=31536000, immutable"
	cachePublic  = "public, max-age=86400, immutable"
	// exposed are the headers of an answer that web clients of other origins may read.
	exposed = "Retry-After, X-Request-Id, Content-Disposition, Content-Range, ETag"
)

// Deps are what the module stands on.
type Deps struct {
	// Server is the server name.
	Server string
	Media  *core.Service
	// Legacy answers downloads without an access token.
	Legacy bool
	// Previews fetches pages that users link to.
	Previews bool
}

// Module holds the handlers.
type Module struct{ Deps }

// New returns the module.
func New(d Deps) *Module { return &Module{d} }

// Routes are the routes of the module.
func (m *Module) Routes() []api.Route {
	const v1, old = "/_matrix/client/v1/media", "/_matrix/media/v3"
	const file = "/{serverName}/{mediaId}"
	const get, put, post = http.MethodGet, http.MethodPut, http.MethodPost
	named := func(path string) []string { return []string{path + file + "/{fileName}"} }
	most := m.Media.MaxUpload()
	return []api.Route{
		{Method: post, Path: old + "/upload", Op: "uploadContent", Auth: api.AuthUser, Rate: api.RateWrite, MaxBody: most, Stream: m.upload},
		{Method: put, Path: old + "/upload" + file, Op: "uploadContentToMXC", Auth: api.AuthUser, Rate: api.RateWrite, MaxBody: most, Stream: m.uploadTo},
		{Method: post, Path: "/_matrix/media/v1/create", Op: "createContent", Auth: api.AuthUser, Rate: api.RateWrite, Handle: m.create},

		{Method: get, Path: v1 + "/download" + file, Also: named(v1 + "/download"), Op: "getContentAuthed", Auth: api.AuthUser, Rate: api.RateMedia, Guest: true, HeaderTokenOnly: true, Stream: m.download},
		{Method: get, Path: v1 + "/thumbnail" + file, Op: "getContentThumbnailAuthed", Auth: api.AuthUser, Rate: api.RateMedia, Guest: true, HeaderTokenOnly: true, Stream: m.thumbnail},
		{Method: get, Path: v1 + "/preview_url", Op: "getUrlPreviewAuthed", Auth: api.AuthUser, Rate: api.RatePreview, HeaderTokenOnly: true, Handle: m.preview},
		{Method: get, Path: v1 + "/config", Op: "getConfigAuthed", Auth: api.AuthUser, Rate: api.RateNone, Guest: true, HeaderTokenOnly: true, Handle: m.config},

		{Method: get, Path: old + "/download" + file, Also: named(old + "/download"), Op: "getContent", Auth: api.AuthNone, Rate: api.RateMedia, Stream: m.legacy(m.download)},
		{Method: get, Path: old + "/thumbnail" + file, Op: "getContentThumbnail", Auth: api.AuthNone, Rate: api.RateMedia, Stream: m.legacy(m.thumbnail)},
		{Method: get, Path: old + "/preview_url", Op: "getUrlPreview", Auth: api.AuthUser, Rate: api.RatePreview, Handle: m.preview},
		{Method: get, Path: old + "/config", Op: "getConfig", Auth: api.AuthUser, Rate: api.RateNone, Handle: m.config},
	}
}

type stream = func(*api.Request, http.ResponseWriter, *http.Request)

// legacy answers as if there were no media, unless media without a token is wanted.
// spec: client-server §Content Repository, the freeze of unauthenticated endpoints.
func (m *Module) legacy(next stream) stream {
	if m.Legacy {
		return next
	}
	return func(r *api.Request, w http.ResponseWriter, _ *http.Request) { r.WriteError(w, errNotFound()) }
}

func errNotFound() error { return merr.NotFoundErr("There is no such media") }

// config answers GET /media/config.
func (m *Module) config(*api.Request) (any, error) {
	return map[string]any{"m.upload.size": m.Media.MaxUpload()}, nil
}

// create answers POST /media/v1/create.
func (m *Module) create(r *api.Request) (any, error) {
	id, due, err := m.Media.Create(r.Context, r.Caller.User)
	if err != nil {
		return nil, err
	}
	return map[string]any{"content_uri": m.Media.URI(id), "unused_expires_at": due}, nil
}

// preview answers GET /media/preview_url. ts is not looked at: nothing older is kept.
func (m *Module) preview(r *api.Request) (any, error) {
	if !m.Previews {
		return nil, merr.New(http.StatusNotFound, merr.Unrecognized, "This server makes no previews of links")
	}
	url := r.Query.Get("url")
	if url == "" {
		return nil, merr.MissingParamErr("The parameter url is missing")
	}
	if _, err := r.QueryInt("ts", 0, 0, 0); err != nil {
		return nil, err
	}
	about, err := m.Media.Preview(r.Context, url)
	if err != nil {
		return nil, err
	}
	return about, nil
}

// upload answers POST /media/v3/upload.
func (m *Module) upload(r *api.Request, w http.ResponseWriter, hr *http.Request) {
	id, err := m.store(r, hr, "")
	if err != nil {
		r.WriteError(w, err)
		return
	}
	answer(r, w, map[string]string{"content_uri": m.Media.URI(id)})
}

// uploadTo answers PUT /media/v3/upload/{serverName}/{mediaId}.
func (m *Module) uploadTo(r *api.Request, w http.ResponseWriter, hr *http.Request) {
	id, err := m.id(r)
	if err == nil {
		_, err = m.store(r, hr, id)
	}
	if err != nil {
		r.WriteError(w, err)
		return
	}
	answer(r, w, api.Empty)
}

func (m *Module) store(r *api.Request, hr *http.Request, id core.ID) (core.ID, error) {
	if most := m.Media.MaxUpload(); hr.ContentLength > most {
		return "", merr.TooLargeErr("The upload is larger than %d bytes", most)
	}
	return m.Media.Upload(r.Context, core.Upload{
		User: r.Caller.User, ID: id, Type: hr.Header.Get("Content-Type"), Name: r.Query.Get("filename"), Body: hr.Body,
	})
}

// answer writes a JSON value.
func answer(r *api.Request, w http.ResponseWriter, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		r.WriteError(w, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(b)))
	_, _ = w.Write(b) // an error means that the client is gone
}

// id returns the media ID of the path. Media of other servers is not there, and what
// is no ID names nothing.
func (m *Module) id(r *api.Request) (core.ID, error) {
	id, ok := core.ParseID(r.Param("mediaId"))
	if !ok || r.Param("serverName") != m.Server {
		return "", errNotFound()
	}
	return id, nil
}

func wait(r *api.Request) (time.Duration, error) {
	ms, err := r.QueryInt("timeout_ms", defaultWait.Milliseconds(), 0, core.MaxWait.Milliseconds())
	return time.Duration(ms) * time.Millisecond, err
}

// download answers GET /media/download.
func (m *Module) download(r *api.Request, w http.ResponseWriter, hr *http.Request) {
	f, err := m.open(r)
	if err != nil {
		r.WriteError(w, err)
		return
	}
	defer f.Close()
	if name := r.Param("fileName"); name != "" {
		f.Name = core.CleanName(name)
	}
	serve(r, w, hr, f)
}

func (m *Module) open(r *api.Request) (*core.File, error) {
	id, err := m.id(r)
	if err != nil {
		return nil, err
	}
	limit, err := wait(r)
	if err != nil {
		return nil, err
	}
	return m.Media.Open(r.Context, id, limit)
}

// thumbnail answers GET /media/thumbnail.
func (m *Module) thumbnail(r *api.Request, w http.ResponseWriter, hr *http.Request) {
	f, err := m.openThumbnail(r)
	if err != nil {
		r.WriteError(w, err)
		return
	}
	defer f.Close()
	serve(r, w, hr, f)
}

func (m *Module) openThumbnail(r *api.Request) (*core.File, error) {
	id, err := m.id(r)
	if err != nil {
		return nil, err
	}
	limit, err := wait(r)
	if err != nil {
		return nil, err
	}
	var want core.Thumbnail
	if want.Width, err = side(r, "width"); err != nil {
		return nil, err
	}
	if want.Height, err = side(r, "height"); err != nil {
		return nil, err
	}
	method, err := r.QueryEnum("method", "scale", "crop")
	if err != nil {
		return nil, err
	}
	want.Crop = method == "crop"
	if want.Animated, err = r.QueryBool("animated"); err != nil {
		return nil, err
	}
	return m.Media.Thumbnail(r.Context, id, want, limit)
}

// side reads a width or height.
func side(r *api.Request, name string) (int, error) {
	const most = 1 << 20 // beyond every picture
	n, err := r.QueryInt(name, -1, -1, most)
	switch {
	case err != nil:
		return 0, err
	case r.Query.Get(name) == "":
		return 0, merr.MissingParamErr("The parameter %s is missing", name)
	case n <= 0:
		return 0, merr.InvalidParamErr("The parameter %s is not above 0", name)
	}
	return int(n), nil
}

// serve sends a file, or the part of it that is asked for.
func serve(r *api.Request, w http.ResponseWriter, hr *http.Request, f *core.File) {
	h := w.Header()
	h.Set("Access-Control-Expose-Headers", exposed)
	h.Set("Cache-Control", cachePrivate)
	if r.Caller.User == "" {
		h.Set("Cache-Control", cachePublic)
	}
	h.Set("Content-Disposition", disposition(f))
	h.Set("Content-Security-Policy", policy)
	h.Set("Content-Type", f.Type)
	// spec: client-server §Content Repository, Cross-Origin-Resource-Policy.
	h.Set("Cross-Origin-Resource-Policy", "cross-origin")
	h.Set("Etag", `"`+f.Tag+`"`)
	if strings.Contains(hr.Header.Get("Range"), ",") {
		// Many small ranges cost the store a request each. To send all is allowed.
		hr.Header.Del("Range")
	}
	http.ServeContent(w, hr, "", time.Time{}, f)
}

// disposition is the Content-Disposition of a file.
// spec: client-server §Serving inline content.
func disposition(f *core.File) string {
	how := "attachment"
	if core.Inline(f.Type) {
		how = "inline"
	}
	if f.Name == "" {
		return how
	}
	if text := mime.FormatMediaType(how, map[string]string{"filename": f.Name}); text != "" {
		return text
	}
	return how
}
