package media_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/hubbub-chat/hubbub/internal/app/apptest"
	"github.com/hubbub-chat/hubbub/internal/media"
)

// reserve makes a media ID whose content comes later, and returns its path.
func reserve(t *testing.T, c *apptest.Client) string {
	t.Helper()
	o := c.Must(t, "POST", create, nil)
	uri, _ := o["content_uri"].(string)
	if due, _ := o["unused_expires_at"].(float64); due == 0 || !strings.HasPrefix(uri, "mxc://") {
		t.Fatalf("create answered %v", o)
	}
	return strings.TrimPrefix(uri, "mxc:/")
}

func fill(t *testing.T, c *apptest.Client, at, content string) (*http.Response, []byte) {
	t.Helper()
	return do(t, c, request{method: "PUT", target: upload + at + "?filename=n.txt", header: map[string]string{"Content-Type": "text/plain"}, body: strings.NewReader(content)})
}

func TestUploadLater(t *testing.T) {
	s := apptest.Start(t)
	alice, bob := s.User(t, "alice"), s.User(t, "bob")
	at := reserve(t, alice)
	resp, b := get(t, bob, v1+"/download"+at+"?timeout_ms=0")
	fails(t, "download too early", resp, b, 504, "M_NOT_YET_UPLOADED")
	resp, b = get(t, bob, v1+"/thumbnail"+at+"?timeout_ms=0&width=1&height=1")
	fails(t, "thumbnail too early", resp, b, 504, "M_NOT_YET_UPLOADED")
	resp, b = fill(t, bob, at, "from bob")
	fails(t, "upload by another", resp, b, 403, "M_FORBIDDEN")

	// One waits for it.
	got := make(chan string)
	go func() {
		_, b := get(t, bob, v1+"/download"+at+"?timeout_ms=60000")
		got <- string(b)
	}()
	if resp, b = fill(t, alice, at, "from alice"); resp.StatusCode != http.StatusOK || string(b) != "{}" {
		t.Fatalf("upload: %d %s", resp.StatusCode, b)
	}
	if b := <-got; b != "from alice" {
		t.Errorf("who waited got %q", b)
	}
	resp, b = get(t, bob, v1+"/download"+at)
	if string(b) != "from alice" || resp.Header.Get("Content-Disposition") != "inline; filename=n.txt" {
		t.Errorf("got %q %q", b, resp.Header.Get("Content-Disposition"))
	}
	for _, c := range []*apptest.Client{alice} {
		resp, b = fill(t, c, at, "again")
		fails(t, "upload again", resp, b, 409, "M_CANNOT_OVERWRITE_MEDIA")
	}
	at = put(t, alice, []byte("x"), "text/plain", "")
	resp, b = fill(t, alice, at, "again")
	fails(t, "upload over another upload", resp, b, 409, "M_CANNOT_OVERWRITE_MEDIA")
	resp, b = fill(t, alice, "/"+apptest.Name+"/NEVERSEEN", "x")
	fails(t, "upload to an unknown ID", resp, b, 404, "M_NOT_FOUND")
	resp, b = get(t, bob, v1+"/download"+reserve(t, alice)+"?timeout_ms=x")
	fails(t, "no number", resp, b, 400, "M_INVALID_PARAM")
}

// TestUploadLaterTooLarge: an upload that failed can be repeated.
func TestUploadLaterTooLarge(t *testing.T) {
	s := apptest.Start(t, small)
	alice := s.User(t, "alice")
	at := reserve(t, alice)
	resp, b := fill(t, alice, at, strings.Repeat("x", 100_001))
	fails(t, "too large", resp, b, 413, "M_TOO_LARGE")
	if resp, b = fill(t, alice, at, "small"); resp.StatusCode != http.StatusOK {
		t.Errorf("repeated: %d %s", resp.StatusCode, b)
	}
}

// TestReservations: a user has only so many, and a filled one makes room.
func TestReservations(t *testing.T) {
	s := apptest.Start(t)
	alice, bob := s.User(t, "alice"), s.User(t, "bob")
	first := reserve(t, alice)
	for range media.MaxPending - 1 {
		reserve(t, alice)
	}
	alice.Fails(t, "POST", create, nil, 429, "M_LIMIT_EXCEEDED")
	reserve(t, bob)
	if resp, b := fill(t, alice, first, "x"); resp.StatusCode != http.StatusOK {
		t.Fatalf("upload: %d %s", resp.StatusCode, b)
	}
	// The place is free when the effect of the upload has reached the user's count.
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		status, b := alice.Do(t, "POST", create, nil)
		if status == http.StatusOK {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("after an upload: %d %v", status, b)
		}
	}
}
