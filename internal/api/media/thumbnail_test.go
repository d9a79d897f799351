package media_test

import (
	"bytes"
	"image"
	"net/http"
	"strings"
	"testing"

	"github.com/hubbub-chat/hubbub/internal/app/apptest"
	"github.com/hubbub-chat/hubbub/internal/config"
)

func TestThumbnail(t *testing.T) {
	s := apptest.Start(t)
	alice, nobody := s.User(t, "alice"), s.Anonymous()
	defer nobody.HTTP.CloseIdleConnections()
	at := put(t, alice, asJPEG(t, picture(1000, 500)), "image/jpeg", "photo.jpg")
	tags := map[string]bool{}
	for _, tt := range []struct {
		query string
		w, h  int
	}{
		{"?width=30&height=30&method=crop", 32, 32},
		{"?width=300&height=200", 320, 160},
		{"?width=300&height=200&method=scale&animated=true", 320, 160},
		{"?width=2000&height=2000&method=scale", 1000, 500},
	} {
		for _, c := range []*apptest.Client{alice, nobody} {
			base := v1
			if c == nobody {
				base = old
			}
			resp, b := get(t, c, base+"/thumbnail"+at+tt.query)
			config, _, err := image.DecodeConfig(bytes.NewReader(b))
			if resp.StatusCode != http.StatusOK || err != nil || config.Width != tt.w || config.Height != tt.h {
				t.Errorf("%s: %d %v %dx%d", tt.query, resp.StatusCode, err, config.Width, config.Height)
			}
			h := resp.Header
			if h.Get("Content-Type") != "image/jpeg" || !strings.HasPrefix(h.Get("Content-Disposition"), "inline; filename=") ||
				!strings.HasPrefix(h.Get("Content-Security-Policy"), "sandbox;") || h.Get("Cross-Origin-Resource-Policy") != "cross-origin" {
				t.Errorf("%s: headers %v", tt.query, h)
			}
			tags[h.Get("ETag")] = true
		}
	}
	if len(tags) != 4 {
		t.Errorf("%d tags of four pictures", len(tags))
	}
}

func TestThumbnailErrors(t *testing.T) {
	s := apptest.Start(t)
	alice := s.User(t, "alice")
	at := put(t, alice, asPNG(t, picture(100, 100)), "image/png", "")
	text := put(t, alice, []byte("no picture"), "image/png", "")
	for _, tt := range []struct {
		target string
		status int
		code   string
	}{
		{at, 400, "M_MISSING_PARAM"},
		{at + "?width=1", 400, "M_MISSING_PARAM"},
		{at + "?width=x&height=1", 400, "M_INVALID_PARAM"},
		{at + "?width=-1&height=1", 400, "M_INVALID_PARAM"},
		{at + "?width=0&height=0", 400, "M_INVALID_PARAM"},
		{at + "?width=1&height=1&method=stretch", 400, "M_INVALID_PARAM"},
		{at + "?width=1&height=1&animated=maybe", 400, "M_INVALID_PARAM"},
		{text + "?width=1&height=1", 400, "M_UNKNOWN"},
		{"/" + apptest.Name + "/NEVERSEEN?width=1&height=1", 404, "M_NOT_FOUND"},
		{strings.Replace(at, apptest.Name, "other.example", 1) + "?width=1&height=1", 404, "M_NOT_FOUND"},
	} {
		resp, b := get(t, alice, v1+"/thumbnail"+tt.target)
		fails(t, tt.target, resp, b, tt.status, tt.code)
	}
	if resp, _ := get(t, alice, v1+"/thumbnail"+at+"?width=99999999999&height=99999999999"); resp.StatusCode != 400 && resp.StatusCode != 200 {
		t.Errorf("far too large: %d", resp.StatusCode)
	}
}

// TestFilesOnly: what is kept is in the data directory, below media.
func TestFilesOnly(t *testing.T) {
	s := apptest.Start(t, func(c *config.Config) { c.Media.Store = config.MediaFiles })
	alice := s.User(t, "alice")
	put(t, alice, []byte("x"), "text/plain", "")
	if list := files(t, s.Config.Server.DataDir); !strings.Contains(list, "/media/blobs/") {
		t.Errorf("files: %s", list)
	}
}
