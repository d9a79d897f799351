package s3blob_test

import (
	"context"
	"go/build"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/hubbub-chat/hubbub/internal/blob"
	"github.com/hubbub-chat/hubbub/internal/blob/blobtest"
	"github.com/hubbub-chat/hubbub/internal/blob/s3blob"
	"github.com/hubbub-chat/hubbub/internal/lint/skip"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	accessKey, secretKey = "hubbub-test", "hubbub-test-secret"
	bucket               = "media"
	// patience bounds the wait for the server of the test to listen.
	patience = 30 * time.Second
)

// gateway starts a real S3 server on a directory and returns its address.
func gateway(t *testing.T) string {
	t.Helper()
	binary, err := exec.LookPath("versitygw")
	if err != nil {
		// Where go install puts it, which is not always in the path.
		binary = filepath.Join(build.Default.GOPATH, "bin", "versitygw")
		if _, err := os.Stat(binary); err != nil {
			skip.Test(t, "no S3 server; go install github.com/versity/versitygw/cmd/versitygw@v1.8.0 to run it")
		}
	}
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, bucket), 0o700); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, binary, "--port", addr, "--access", accessKey, "--secret", secretKey, "--quiet", "posix", "--sidecar", t.TempDir(), dir)
	cmd.Env = []string{"HOME=" + t.TempDir(), "PATH=" + os.Getenv("PATH")}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		_ = cmd.Wait() // it was killed
	})
	// It tells nobody when it listens, so it has to be asked.
	for until := time.Now().Add(patience); ; {
		c, err := net.DialTimeout("tcp", addr, time.Second)
		if err == nil {
			_ = c.Close()
			return addr
		}
		if time.Now().After(until) {
			t.Fatalf("the S3 server does not listen: %v", err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func options(t *testing.T, url string) s3blob.Options {
	t.Helper()
	o, err := s3blob.Parse(url)
	if err != nil {
		t.Fatal(err)
	}
	o.AccessKey, o.SecretKey = accessKey, secretKey
	return o
}

func TestConformance(t *testing.T) {
	addr := gateway(t)
	for name, path := range map[string]string{"whole bucket": "", "prefix": "/some/where"} {
		t.Run(name, func(t *testing.T) {
			blobtest.Run(t, func(t *testing.T) blob.Store {
				s, err := s3blob.Open(t.Context(), options(t, "s3://"+bucket+path+"?endpoint=http://"+addr))
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() {
					if err := s.Close(); err != nil {
						t.Errorf("close: %v", err)
					}
				})
				return s
			})
		})
	}
	t.Run("no such bucket", func(t *testing.T) {
		if s, err := s3blob.Open(t.Context(), options(t, "s3://other?endpoint=http://"+addr)); err == nil {
			t.Error("opened a bucket that is not there")
			_ = s.Close()
		}
	})
	t.Run("wrong keys", func(t *testing.T) {
		o := options(t, "s3://"+bucket+"?endpoint=http://"+addr)
		o.SecretKey = "wrong"
		if s, err := s3blob.Open(t.Context(), o); err == nil {
			t.Error("opened with wrong keys")
			_ = s.Close()
		}
	})
}

func TestParse(t *testing.T) {
	got, err := s3blob.Parse("s3://b/some/where/?endpoint=http://127.0.0.1:7070&region=eu")
	if want := (s3blob.Options{Endpoint: "127.0.0.1:7070", Region: "eu", Bucket: "b", Prefix: "some/where/"}); err != nil || got != want {
		t.Errorf("got %+v %v, want %+v", got, err, want)
	}
	if got, err = s3blob.Parse("s3://b"); err != nil || !got.Secure || got.Endpoint != "s3.amazonaws.com" || got.Prefix != "" {
		t.Errorf("without an endpoint: %+v %v", got, err)
	}
	for _, bad := range []string{"", "files", "http://b", "s3://", "s3://key:secret@b", "s3://b/../c", "s3://b?endpoint=host:1", "s3://b?endpoint=ftp://h", "s3://b?endpoint=http://h/path"} {
		if o, err := s3blob.Parse(bad); err == nil {
			t.Errorf("%q is taken as %+v", bad, o)
		}
	}
}
