package media_test

import (
	"bytes"
	"crypto/rand"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"io"
	"net/http"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/hubbub-chat/hubbub/internal/app/apptest"
	"github.com/hubbub-chat/hubbub/internal/config"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	v1     = "/_matrix/client/v1/media"
	old    = "/_matrix/media/v3"
	create = "/_matrix/media/v1/create"
	upload = old + "/upload"
)

// request is a request with headers; Body "" is none.
type request struct {
	method, target string
	header         map[string]string
	body           io.Reader
}

// do makes a request as a client, and returns the answer with its body read.
func do(t *testing.T, c *apptest.Client, q request) (*http.Response, []byte) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), q.method, c.Server.URL+q.target, q.body)
	if err != nil {
		t.Fatal(err)
	}
	if c.Token != "" {
		r.Header.Set("Authorization", "Bearer "+c.Token)
	}
	for k, v := range q.header {
		r.Header.Set(k, v)
	}
	resp, err := c.HTTP.Do(r)
	if err != nil {
		t.Fatalf("%s %s: %v", q.method, q.target, err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("%s %s: read answer: %v", q.method, q.target, err)
	}
	if resp.StatusCode >= 500 && resp.StatusCode != http.StatusGatewayTimeout {
		t.Errorf("%s %s: %d %s", q.method, q.target, resp.StatusCode, b)
	}
	return resp, b
}

func get(t *testing.T, c *apptest.Client, target string) (*http.Response, []byte) {
	t.Helper()
	return do(t, c, request{method: "GET", target: target})
}

// put uploads content and returns the path of the media, "/server/id".
func put(t *testing.T, c *apptest.Client, content []byte, typ, name string) string {
	t.Helper()
	target := upload
	if name != "" {
		target += "?filename=" + name
	}
	resp, b := do(t, c, request{method: "POST", target: target, header: map[string]string{"Content-Type": typ}, body: bytes.NewReader(content)})
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("upload: %d %s", resp.StatusCode, b)
	}
	uri := strings.TrimSuffix(strings.TrimPrefix(string(b), `{"content_uri":"mxc:/`), `"}`)
	if !strings.HasPrefix(uri, "/"+apptest.Name+"/") {
		t.Fatalf("upload answered %s", b)
	}
	return uri
}

// fails checks that an answer is an error.
func fails(t *testing.T, what string, resp *http.Response, body []byte, status int, code string) {
	t.Helper()
	if resp.StatusCode != status || !strings.Contains(string(body), `"errcode":"`+code+`"`) {
		t.Errorf("%s: got %d %s, want %d %s", what, resp.StatusCode, body, status, code)
	}
}

func small(c *config.Config) { c.Media.MaxUploadBytes = 100_000 }

func noise(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b) // it never fails
	return b
}

// picture is a picture whose left half is red and whose right half is blue.
func picture(w, h int) *image.RGBA {
	img := image.NewRGBA(image.Rect(0, 0, w, h))
	for y := range h {
		for x := range w {
			c := color.RGBA{R: 255, A: 255}
			if x >= w/2 {
				c = color.RGBA{B: 255, A: 255}
			}
			img.SetRGBA(x, y, c)
		}
	}
	return img
}

func asPNG(t *testing.T, img image.Image) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := png.Encode(&b, img); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func asJPEG(t *testing.T, img image.Image) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := jpeg.Encode(&b, img, nil); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}
