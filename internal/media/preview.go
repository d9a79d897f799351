package media

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"path"
	"strings"
	"syscall"
	"time"

	"code.dny.dev/ssrf"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"golang.org/x/sync/singleflight"

	"github.com/hubbub-chat/hubbub/internal/merr"
	"github.com/hubbub-chat/hubbub/internal/tables"
)

const (
	// maxURL is the longest URL that is looked at: what browsers and servers agree on.
	maxURL = 2048
	// maxPage is how much of a page is read: what describes it stands at its top.
	maxPage = 1 << 20
	// maxPreviewImage is the largest picture that is kept for a preview.
	maxPreviewImage = 10 << 20
	// maxHeaderBytes bounds the headers of an answer.
	maxHeaderBytes = 64 << 10
	// maxRedirects: address shorteners and moves of sites need two or three.
	maxRedirects = 5
	// previewTimeout bounds a preview as a whole: page, redirects and picture.
	previewTimeout = 10 * time.Second
	// maxFetches bounds the previews fetched at the same time: more than the burst of a
	// few users, and with a page each in memory 128 MB.
	maxFetches = 128
	// previewTTL is how long a preview is kept; failureTTL how long a failure is, so
	// that a room full of clients does not ask a broken site again and again.
	previewTTL = time.Hour
	failureTTL = 5 * time.Minute
	// imageTTL is how long the picture of a preview outlives it: clients show it as
	// long as they keep the preview.
	imageTTL = 24 * time.Hour

	userAgent = "hubbub (link previews; bot)"
)

// previewer fetches pages. Its connections go to public addresses alone:
//
// what counts is the address that a connection is made to, asked by the kernel's
// caller at the last moment, after every redirect and resolution of a name. A check
// of the URL, or of what its name resolves to, would look at something that may be
// another thing a moment later.
type previewer struct {
	s         *Service
	transport *http.Transport
	client    *http.Client
	fetches   chan struct{}
	flights   singleflight.Group
	// patience bounds a preview as a whole.
	patience time.Duration
}

func newPreviewer(s *Service) *previewer {
	p := &previewer{s: s, fetches: make(chan struct{}, maxFetches), patience: previewTimeout}
	dialer := &net.Dialer{Timeout: previewTimeout, Resolver: s.o.Resolver, Control: control(s.o.PreviewAllow)}
	p.transport = &http.Transport{
		// No proxy, whatever the environment says: it would connect in our place.
		Proxy:                  nil,
		DialContext:            dialer.DialContext,
		DisableKeepAlives:      true,
		TLSHandshakeTimeout:    previewTimeout,
		ResponseHeaderTimeout:  previewTimeout,
		MaxResponseHeaderBytes: maxHeaderBytes,
	}
	p.client = &http.Client{Transport: p.transport, CheckRedirect: checkRedirect}
	return p
}

func (p *previewer) close() { p.transport.CloseIdleConnections() }

// control allows connections to public addresses at the ports of the web, and to
// the networks listed.
func control(allow []netip.Prefix) func(network, address string, c syscall.RawConn) error {
	guard := ssrf.New()
	return func(network, address string, c syscall.RawConn) error {
		if at, err := netip.ParseAddrPort(address); err == nil {
			addr := at.Addr().Unmap()
			for _, prefix := range allow {
				if prefix.Contains(addr) {
					return nil
				}
			}
		}
		return guard.Safe(network, address, c)
	}
}

var errRedirect = errors.New("media: a redirect that is not followed")

func checkRedirect(r *http.Request, via []*http.Request) error {
	if len(via) > maxRedirects || !web(r.URL) {
		return errRedirect
	}
	r.Header.Del("Referer") // nobody's business
	return nil
}

// web reports whether a URL is one that previews are made of.
func web(u *url.URL) bool {
	return (u.Scheme == "http" || u.Scheme == "https") && u.Hostname() != "" && u.User == nil && u.Opaque == ""
}

func errNoPreview(cause error) error {
	// One answer for all: whether a private address answers is not to be learnt here.
	e := merr.NotFoundErr("There is no preview of this address")
	if cause != nil {
		return e.Because(cause)
	}
	return e
}

// Preview returns what describes the page at a URL, a JSON object with the members
// of OpenGraph. M_NOT_FOUND if nothing does.
// spec: client-server §GET /_matrix/client/v1/media/preview_url.
func (s *Service) Preview(ctx context.Context, text string) (jsontext.Value, error) {
	u, err := url.Parse(text)
	if err != nil || len(text) > maxURL || !web(u) {
		return nil, merr.InvalidParamErr("The parameter url is not an address of the web")
	}
	u.Fragment, u.RawFragment = "", ""
	sum := sha256.Sum256([]byte(u.String()))
	hash := hashText(sum[:])
	row, err := one[PreviewRow](ctx, s.o.Store, wide(s.partition(hash), tables.Preview, hash))
	if err != nil {
		return nil, err
	}
	if row != nil && row.DueTS > s.now() {
		s.metrics.previews.WithLabelValues("kept").Inc()
		return row.answer()
	}
	// The fetch goes on for whoever else waits for it when the first is gone.
	v, err, _ := s.previewer.flights.Do(hash, func() (any, error) {
		return s.previewer.preview(context.WithoutCancel(ctx), hash, u)
	})
	if err != nil {
		return nil, err
	}
	return v.(*PreviewRow).answer()
}

func (r *PreviewRow) answer() (jsontext.Value, error) {
	if r.Data == nil {
		return nil, errNoPreview(nil)
	}
	return r.Data, nil
}

// preview fetches a page and keeps what came of it.
func (p *previewer) preview(ctx context.Context, hash string, u *url.URL) (*PreviewRow, error) {
	select {
	case p.fetches <- struct{}{}:
		defer func() { <-p.fetches }()
	default:
		return nil, merr.UnavailableErr(time.Second, "Too many previews are being fetched")
	}
	row := &PreviewRow{DueTS: p.s.o.Clock.Now().Add(previewTTL).UnixMilli()}
	about, err := p.fetch(ctx, u)
	if err == nil {
		p.s.metrics.previews.WithLabelValues("fetched").Inc()
		row.Data, err = about.encode()
		if err != nil {
			return nil, err
		}
	} else {
		p.s.metrics.previews.WithLabelValues("failed").Inc()
		p.s.o.Log.Debug("no preview", "host", u.Hostname(), "error", withoutURL(err))
		row.DueTS = p.s.o.Clock.Now().Add(failureTTL).UnixMilli()
	}
	if _, err := p.s.o.Router.Do(ctx, &KeepPreview{Hash: hash, Row: *row}); err != nil {
		return nil, fmt.Errorf("keep preview: %w", err)
	}
	return row, nil
}

// withoutURL is what failed without the address, which is a part of a message.
func withoutURL(err error) error {
	var at *url.Error
	if errors.As(err, &at) {
		return at.Err
	}
	return err
}

// fetch fetches a page with its picture.
func (p *previewer) fetch(ctx context.Context, u *url.URL) (*page, error) {
	ctx, cancel := context.WithTimeout(ctx, p.patience)
	defer cancel()
	resp, err := p.get(ctx, u, "text/html,application/xhtml+xml,image/*;q=0.5")
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	declared := resp.Header.Get("Content-Type")
	base, _, _ := mime.ParseMediaType(declared)
	switch {
	case strings.HasPrefix(base, "image/"):
		about := &page{title: path.Base(resp.Request.URL.Path)}
		if about.stored, err = p.image(ctx, resp); err != nil {
			return nil, err
		}
		return about, nil
	case base == "text/html", base == "application/xhtml+xml", base == "":
	default:
		return nil, fmt.Errorf("no preview of type %q", base)
	}
	about, err := readPage(io.LimitReader(resp.Body, maxPage), declared)
	if err != nil {
		return nil, err
	}
	about.stored = p.firstImage(ctx, resp.Request.URL, about.images)
	if about.empty() {
		return nil, errors.New("the page says nothing of itself")
	}
	return about, nil
}

// firstImage keeps the first of the pictures named that can be fetched, nil for none:
// a preview without a picture is one too.
func (p *previewer) firstImage(ctx context.Context, at *url.URL, names []string) *storedImage {
	for _, name := range names {
		u, err := at.Parse(name)
		if err != nil || !web(u) || len(name) > maxURL {
			continue
		}
		resp, err := p.get(ctx, u, "image/*")
		if err != nil {
			continue
		}
		image, err := p.image(ctx, resp)
		_ = resp.Body.Close() // all that is wanted of it was read
		if err == nil {
			return image
		}
	}
	return nil
}

// get makes a request that leads to an answer with status 200.
func (p *previewer) get(ctx context.Context, u *url.URL, accept string) (*http.Response, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, fmt.Errorf("request: %w", err)
	}
	r.Header.Set("User-Agent", userAgent)
	r.Header.Set("Accept", accept)
	resp, err := p.client.Do(r)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		_ = resp.Body.Close() // nothing of it is wanted
		return nil, fmt.Errorf("status %d", resp.StatusCode)
	}
	return resp, nil
}

// storedImage is a picture of a page that is kept as media.
type storedImage struct {
	uri           string
	typ           string
	size          int64
	width, height int
}

// image keeps the body of an answer, if it is a picture that thumbnails can be made
// of. It belongs to nobody and goes some time after the preview.
func (p *previewer) image(ctx context.Context, resp *http.Response) (*storedImage, error) {
	s := p.s
	most := min(maxPreviewImage, s.o.MaxUpload)
	sp, err := s.newSpool(func(w io.Writer) error {
		n, err := io.Copy(w, io.LimitReader(resp.Body, most+1))
		if err == nil && n > most {
			err = errLarge()
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	defer sp.close()
	of, err := probe(sp, sp.size)
	if err != nil {
		return nil, err
	}
	id := NewID()
	m := Media{
		Type: of.typ, Hash: sp.hash, Size: sp.size,
		DueTS: s.o.Clock.Now().Add(previewTTL + imageTTL).UnixMilli(),
	}
	if err := s.attach(ctx, id, m, sp); err != nil {
		return nil, err
	}
	out := &storedImage{s.URI(id), of.typ, sp.size, of.width, of.height}
	if of.exif.orientation >= 5 {
		out.width, out.height = out.height, out.width
	}
	return out, nil
}

// encode returns the answer of the endpoint.
func (about *page) encode() (jsontext.Value, error) {
	out := map[string]any{}
	for name, value := range map[string]string{
		"og:title": about.title, "og:description": about.description, "og:type": about.typ,
		"og:url": about.url, "og:site_name": about.site,
	} {
		if value != "" {
			out[name] = value
		}
	}
	if i := about.stored; i != nil {
		out["og:image"], out["og:image:type"], out["matrix:image:size"] = i.uri, i.typ, i.size
		out["og:image:width"], out["og:image:height"] = i.width, i.height
		if about.alt != "" {
			out["og:image:alt"] = about.alt
		}
	}
	b, err := json.Marshal(out, json.Deterministic(true))
	if err != nil {
		return nil, fmt.Errorf("encode preview: %w", err)
	}
	return b, nil
}
