// Package blobtest is the conformance suite of blob stores.
package blobtest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"github.com/hubbub-chat/hubbub/internal/blob"
)

// large is more than a store would send or keep in one piece.
const large = 40 << 20

// Run checks the store that open returns, which is empty, against the contract of
// package blob.
func Run(t *testing.T, open func(t *testing.T) blob.Store) {
	s := open(t)
	t.Run("what was put is read", func(t *testing.T) { roundTrip(t, s) })
	t.Run("read from anywhere", func(t *testing.T) { seeks(t, s) })
	t.Run("absent", func(t *testing.T) { absent(t, s) })
	t.Run("delete", func(t *testing.T) { deletes(t, s) })
	t.Run("keys that name no place", func(t *testing.T) { badKeys(t, s) })
	t.Run("a failed put leaves nothing", func(t *testing.T) { failedPuts(t, s) })
	t.Run("large value", func(t *testing.T) { largeValue(t, s) })
	t.Run("many at once", func(t *testing.T) { parallel(t, s) })
}

func put(t *testing.T, s blob.Store, key string, value []byte) {
	t.Helper()
	if err := s.Put(t.Context(), key, bytes.NewReader(value), int64(len(value))); err != nil {
		t.Fatalf("put %s: %v", key, err)
	}
}

func get(t *testing.T, s blob.Store, key string) []byte {
	t.Helper()
	o, err := s.Open(t.Context(), key)
	if err != nil {
		t.Fatalf("open %s: %v", key, err)
	}
	defer o.Close()
	b, err := io.ReadAll(o)
	if err != nil {
		t.Fatalf("read %s: %v", key, err)
	}
	if int64(len(b)) != o.Size() {
		t.Errorf("%s: read %d bytes of %d", key, len(b), o.Size())
	}
	return b
}

func wantAbsent(t *testing.T, s blob.Store, key string) {
	t.Helper()
	if o, err := s.Open(t.Context(), key); !errors.Is(err, blob.ErrNotFound) {
		t.Errorf("open %s: got %v and %v, want ErrNotFound", key, o, err)
		if err == nil {
			o.Close()
		}
	}
}

func roundTrip(t *testing.T, s blob.Store) {
	for key, value := range map[string]string{
		"one": "1", "empty": "", "a/b/c-d_e.f": "deep", "a/b/other": "beside", strings.Repeat("k", blob.MaxKey): "long",
	} {
		put(t, s, key, []byte(value))
		if got := get(t, s, key); string(got) != value {
			t.Errorf("%s: got %q, want %q", key, got, value)
		}
	}
}

func seeks(t *testing.T, s blob.Store) {
	value := make([]byte, 100_000)
	for i := range value {
		value[i] = byte(i * 7)
	}
	put(t, s, "seek", value)
	o, err := s.Open(t.Context(), "seek")
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	if end, err := o.Seek(0, io.SeekEnd); err != nil || end != int64(len(value)) {
		t.Fatalf("seek to the end: %d %v", end, err)
	}
	if n, err := o.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Errorf("read at the end: %d %v", n, err)
	}
	for _, at := range []int{0, 1, 99_999, 50_000, 0, 50_000} {
		if _, err := o.Seek(int64(at), io.SeekStart); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, min(1000, len(value)-at))
		if _, err := io.ReadFull(o, got); err != nil || !bytes.Equal(got, value[at:at+len(got)]) {
			t.Errorf("read at %d: %v, or other bytes", at, err)
		}
	}
	if at, err := o.Seek(-1000, io.SeekCurrent); err != nil || at != 50_000 {
		t.Errorf("seek back: %d %v", at, err)
	}
	if _, err := o.Seek(-1, io.SeekStart); err == nil {
		t.Error("sought before the beginning")
	}
}

func absent(t *testing.T, s blob.Store) {
	wantAbsent(t, s, "never")
	put(t, s, "file", []byte("x"))
	wantAbsent(t, s, "file/below")
	wantAbsent(t, s, "fil")
}

func deletes(t *testing.T, s blob.Store) {
	put(t, s, "del/1", []byte("1"))
	put(t, s, "del/2", []byte("2"))
	put(t, s, "del/3", []byte("3"))
	if err := s.Delete(t.Context(), "del/1", "del/never", "del/3", "one/below"); err != nil {
		t.Fatal(err)
	}
	wantAbsent(t, s, "del/1")
	wantAbsent(t, s, "del/3")
	if got := get(t, s, "del/2"); string(got) != "2" {
		t.Errorf("what was not deleted is %q", got)
	}
}

func badKeys(t *testing.T, s blob.Store) {
	for _, key := range []string{
		"", "/", "/abs", "..", "../up", "a/../../up", "a//b", "a/", ".hidden", "a/.b", "a\\b", "a\x00b", "a b", "ä", "a%2e",
		strings.Repeat("k", blob.MaxKey+1),
	} {
		if err := s.Put(t.Context(), key, strings.NewReader("x"), 1); !errors.Is(err, blob.ErrKey) {
			t.Errorf("put %q: %v", key, err)
		}
		if _, err := s.Open(t.Context(), key); !errors.Is(err, blob.ErrKey) {
			t.Errorf("open %q: %v", key, err)
		}
		if err := s.Delete(t.Context(), key); !errors.Is(err, blob.ErrKey) {
			t.Errorf("delete %q: %v", key, err)
		}
	}
}

type failing struct{ r io.Reader }

var errFault = errors.New("fault")

func (f failing) Read(b []byte) (int, error) {
	n, err := f.r.Read(b)
	if err == io.EOF {
		err = errFault
	}
	return n, err
}

func failedPuts(t *testing.T, s blob.Store) {
	if err := s.Put(t.Context(), "short", strings.NewReader("123"), 4); !errors.Is(err, blob.ErrShort) {
		t.Errorf("too few bytes: %v", err)
	}
	wantAbsent(t, s, "short")
	if err := s.Put(t.Context(), "long", strings.NewReader("12345"), 4); !errors.Is(err, blob.ErrShort) {
		t.Errorf("too many bytes: %v", err)
	}
	if err := s.Put(t.Context(), "fault", failing{strings.NewReader("123")}, 10); !errors.Is(err, errFault) {
		t.Errorf("failing reader: %v", err)
	}
	wantAbsent(t, s, "fault")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Put(ctx, "late", strings.NewReader("1"), 1); err == nil {
		t.Error("put after the end of its context")
	}
	wantAbsent(t, s, "late")
}

func largeValue(t *testing.T, s blob.Store) {
	source := func() io.Reader {
		return io.LimitReader(rand.NewChaCha8([32]byte{1}), large)
	}
	if err := s.Put(t.Context(), "large", source(), large); err != nil {
		t.Fatal(err)
	}
	o, err := s.Open(t.Context(), "large")
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	got, want := sha256.New(), sha256.New()
	if _, err := io.Copy(got, o); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(want, source()); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Sum(nil), want.Sum(nil)) {
		t.Error("other bytes came back")
	}
	if err := s.Delete(t.Context(), "large"); err != nil {
		t.Fatal(err)
	}
	wantAbsent(t, s, "large")
}

func parallel(t *testing.T, s blob.Store) {
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			key, value := fmt.Sprintf("p/%d/%d", i%3, i), fmt.Sprint("value ", i)
			if err := s.Put(t.Context(), key, strings.NewReader(value), int64(len(value))); err != nil {
				t.Errorf("put: %v", err)
				return
			}
			o, err := s.Open(t.Context(), key)
			if err != nil {
				t.Errorf("open: %v", err)
				return
			}
			defer o.Close()
			if b, err := io.ReadAll(o); err != nil || string(b) != value {
				t.Errorf("read: %q %v", b, err)
			}
		})
	}
	wg.Wait()
}
