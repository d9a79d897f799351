package media_test

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/hubbub-chat/hubbub/internal/app/apptest"
	"github.com/hubbub-chat/hubbub/internal/config"
)

// local lets previews be fetched from this machine.
func local(c *config.Config) {
	c.Limits.PreviewAllow = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
}

// page is a site with one page, and how often it was asked for.
func page(t *testing.T) (*httptest.Server, *atomic.Int64) {
	t.Helper()
	n := &atomic.Int64{}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n.Add(1)
		if r.URL.Path == "/p.png" {
			_, _ = w.Write(asPNG(t, picture(30, 20)))
			return
		}
		_, _ = w.Write([]byte("<title>A page</title><meta property='og:image' content='/p.png'>"))
	}))
	t.Cleanup(s.Close)
	return s, n
}

func TestPreview(t *testing.T) {
	s := apptest.Start(t, local)
	alice := s.User(t, "alice")
	site, _ := page(t)
	for _, base := range []string{v1, old, "/_matrix/media/r0"} {
		got := alice.Must(t, "GET", base+"/preview_url?ts=1&url="+url.QueryEscape(site.URL), nil)
		uri, _ := got["og:image"].(string)
		if got["og:title"] != "A page" || got["og:image:width"] != 30.0 || got["og:image:height"] != 20.0 || !strings.HasPrefix(uri, "mxc://"+apptest.Name+"/") {
			t.Errorf("%s: %v", base, got)
		}
		if resp, b := get(t, alice, v1+"/download"+strings.TrimPrefix(uri, "mxc:/")); resp.StatusCode != http.StatusOK || len(b) == 0 {
			t.Errorf("the picture: %d", resp.StatusCode)
		}
	}
	const at = v1 + "/preview_url"
	alice.Fails(t, "GET", at, nil, 400, "M_MISSING_PARAM")
	alice.Fails(t, "GET", at+"?url=file:///etc/passwd", nil, 400, "M_INVALID_PARAM")
	alice.Fails(t, "GET", at+"?ts=x&url=http://x.example", nil, 400, "M_INVALID_PARAM")
	alice.Fails(t, "GET", at+"?url=http://10.0.0.1/", nil, 404, "M_NOT_FOUND")
}

// TestPreviewForbidden: by default nothing on this machine is asked.
func TestPreviewForbidden(t *testing.T) {
	s := apptest.Start(t)
	site, n := page(t)
	s.User(t, "alice").Fails(t, "GET", v1+"/preview_url?url="+url.QueryEscape(site.URL), nil, 404, "M_NOT_FOUND")
	if n.Load() != 0 {
		t.Error("the site was asked")
	}
}

func TestPreviewsOff(t *testing.T) {
	s := apptest.Start(t, local, func(c *config.Config) { c.Media.NoPreviews = true })
	site, n := page(t)
	s.User(t, "alice").Fails(t, "GET", v1+"/preview_url?url="+url.QueryEscape(site.URL), nil, 404, "M_UNRECOGNIZED")
	if n.Load() != 0 {
		t.Error("the site was asked")
	}
}

// TestRates: previews and downloads have limits of their own, per user.
func TestRates(t *testing.T) {
	s := apptest.Start(t, local, func(c *config.Config) {
		c.Limits.NoRateLimits = false
		c.Limits.Preview = config.Rate{PerSecond: 0.001, Burst: 2}
		c.Limits.Media = config.Rate{PerSecond: 0.001, Burst: 3}
	})
	alice, bob := s.User(t, "alice"), s.User(t, "bob")
	site, _ := page(t)
	preview := v1 + "/preview_url?url=" + url.QueryEscape(site.URL)
	for range 2 {
		alice.Must(t, "GET", preview, nil)
	}
	alice.Fails(t, "GET", preview, nil, 429, "M_LIMIT_EXCEEDED")
	bob.Must(t, "GET", preview, nil)
	at := put(t, alice, []byte("x"), "text/plain", "")
	for range 3 {
		if resp, b := get(t, alice, v1+"/download"+at); resp.StatusCode != http.StatusOK {
			t.Fatalf("download: %d %s", resp.StatusCode, b)
		}
	}
	resp, b := get(t, alice, v1+"/download"+at)
	fails(t, "one too many", resp, b, 429, "M_LIMIT_EXCEEDED")
	if resp, _ = get(t, bob, v1+"/download"+at); resp.StatusCode != http.StatusOK {
		t.Errorf("another user: %d", resp.StatusCode)
	}
}
