package s3blob_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/hubbub-chat/hubbub/internal/blob"
	"github.com/hubbub-chat/hubbub/internal/blob/blobtest"
	"github.com/hubbub-chat/hubbub/internal/blob/s3blob"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func options(t *testing.T, url string) s3blob.Options {
	t.Helper()
	o, err := s3blob.Parse(url)
	if err != nil {
		t.Fatal(err)
	}
	o.AccessKey, o.SecretKey = blobtest.AccessKey, blobtest.SecretKey
	return o
}

func TestConformance(t *testing.T) {
	addr := blobtest.Gateway(t)
	for name, path := range map[string]string{"whole bucket": "", "prefix": "/some/where"} {
		t.Run(name, func(t *testing.T) {
			blobtest.Run(t, func(t *testing.T) blob.Store {
				s, err := s3blob.Open(t.Context(), options(t, "s3://"+blobtest.Bucket+path+"?endpoint=http://"+addr))
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
		o := options(t, "s3://"+blobtest.Bucket+"?endpoint=http://"+addr)
		o.SecretKey = "wrong"
		if s, err := s3blob.Open(t.Context(), o); err == nil {
			t.Error("opened with wrong keys")
			_ = s.Close()
		}
	})
}

// TestAway: a server that went away is told from one that refuses, and from a caller who
// went.
func TestAway(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	status := make(chan int, 1)
	srv := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodHead && strings.Trim(r.URL.Path, "/") == "media" {
			return // the bucket is there
		}
		s := <-status
		status <- s
		w.WriteHeader(s)
	})}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	s, err := s3blob.Open(t.Context(), options(t, "s3://media?region=x&endpoint=http://"+l.Addr().String()))
	if err != nil {
		t.Fatal(err)
	}
	check := func(ctx context.Context, what string, want bool) {
		_, open := s.Open(ctx, "k")
		for name, err := range map[string]error{
			"put": s.Put(ctx, "k", strings.NewReader("x"), 1), "open": open, "delete": s.Delete(ctx, "k"),
		} {
			if err == nil || errors.Is(err, blob.ErrAway) != want {
				t.Errorf("%s, %s: %v", what, name, err)
			}
		}
	}
	status <- http.StatusForbidden
	check(t.Context(), "refused", false)
	<-status
	status <- http.StatusServiceUnavailable
	check(t.Context(), "cannot now", true)
	if err := s.Put(t.Context(), "k", strings.NewReader("x"), 2); !errors.Is(err, blob.ErrShort) || errors.Is(err, blob.ErrAway) {
		t.Errorf("a body that is too short: %v", err)
	}
	if err := srv.Close(); err != nil {
		t.Fatal(err)
	}
	<-served
	check(t.Context(), "gone", true)
	over, cancel := context.WithCancel(t.Context())
	cancel()
	check(over, "caller gone", false)
	if err := s.Close(); err != nil {
		t.Error(err)
	}
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
