package media_test

import (
	"bytes"
	"net/http"
	"testing"

	"github.com/hubbub-chat/hubbub/internal/app/apptest"
	"github.com/hubbub-chat/hubbub/internal/blob/blobtest"
	"github.com/hubbub-chat/hubbub/internal/config"
)

// TestBucket: all of it with a real S3 server, and nothing of it in the data
// directory.
func TestBucket(t *testing.T) {
	addr := blobtest.Gateway(t)
	s := apptest.Start(t, func(c *config.Config) {
		c.Media.Store = "s3://" + blobtest.Bucket + "/chat?endpoint=http://" + addr
		c.Media.StoreAccessKey, c.Media.StoreSecretKey = blobtest.AccessKey, blobtest.SecretKey
	})
	alice := s.User(t, "alice")
	content := noise(20 << 20) // more than one part
	at := put(t, alice, content, "video/mp4", "film.mp4")
	photo := put(t, alice, asJPEG(t, picture(1000, 500)), "image/jpeg", "")
	s.Restart(t)
	resp, b := get(t, alice, v1+"/download"+at)
	if resp.StatusCode != http.StatusOK || !bytes.Equal(b, content) {
		t.Errorf("download: %d, %d bytes", resp.StatusCode, len(b))
	}
	for rng, want := range map[string][]byte{"bytes=0-9": content[:10], "bytes=10000000-10000099": content[10_000_000:10_000_100], "bytes=-7": content[len(content)-7:]} {
		resp, b = do(t, alice, request{method: "GET", target: v1 + "/download" + at, header: map[string]string{"Range": rng}})
		if resp.StatusCode != http.StatusPartialContent || !bytes.Equal(b, want) {
			t.Errorf("%s: %d, %d bytes", rng, resp.StatusCode, len(b))
		}
	}
	if resp, _ = do(t, alice, request{method: "HEAD", target: v1 + "/download" + at}); resp.ContentLength != int64(len(content)) {
		t.Errorf("head: %d, length %d", resp.StatusCode, resp.ContentLength)
	}
	for range 2 { // made, then kept
		if resp, b = get(t, alice, v1+"/thumbnail"+photo+"?width=32&height=32&method=crop"); resp.StatusCode != http.StatusOK || len(b) == 0 {
			t.Errorf("thumbnail: %d", resp.StatusCode)
		}
	}
	if list := files(t, s.Config.Server.DataDir); bytes.Contains([]byte(list), []byte("true")) {
		t.Errorf("in the data directory: %s", list)
	}
}
