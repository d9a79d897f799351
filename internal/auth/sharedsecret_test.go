package auth

import (
	"crypto/hmac"
	"crypto/sha1"
	"encoding/hex"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hubbub-chat/hubbub/internal/clock"
	"github.com/hubbub-chat/hubbub/internal/merr"
)

// mac signs as the existing tools do.
func mac(secret string, parts ...string) string {
	h := hmac.New(sha1.New, []byte(secret))
	for i, p := range parts {
		if i > 0 {
			h.Write([]byte{0})
		}
		h.Write([]byte(p))
	}
	return hex.EncodeToString(h.Sum(nil))
}

func newSharedSecret(t testing.TB) (*SharedSecret, *clock.Manual) {
	c := clock.NewManual(time.UnixMilli(1e12))
	return NewSharedSecret("s3cret", testSecrets(t, 1), c), c
}

func TestSharedSecret(t *testing.T) {
	r, _ := newSharedSecret(t)
	for _, tt := range []struct {
		name   string
		change func(*SharedSecretRequest)
		code   merr.Code
		status int
	}{
		{"plain", func(*SharedSecretRequest) {}, "", 0},
		{"capitals", func(q *SharedSecretRequest) { q.MAC = strings.ToUpper(q.MAC) }, "", 0},
		{"admin", func(q *SharedSecretRequest) {
			q.Admin = true
			q.MAC = mac("s3cret", q.Nonce, "root", "pass", "admin")
		}, "", 0},
		{"user type", func(q *SharedSecretRequest) {
			q.UserType = "bot"
			q.MAC = mac("s3cret", q.Nonce, "root", "pass", "notadmin", "bot")
		}, "", 0},
		{"admin not signed", func(q *SharedSecretRequest) { q.Admin = true }, merr.Forbidden, 403},
		{"user type not signed", func(q *SharedSecretRequest) { q.UserType = "bot" }, merr.Forbidden, 403},
		{"other name", func(q *SharedSecretRequest) { q.Username = "toor" }, merr.Forbidden, 403},
		{"other password", func(q *SharedSecretRequest) { q.Password = "x" }, merr.Forbidden, 403},
		{"other secret", func(q *SharedSecretRequest) {
			q.MAC = mac("x", q.Nonce, "root", "pass", "notadmin")
		}, merr.Forbidden, 403},
		{"no MAC", func(q *SharedSecretRequest) { q.MAC = "" }, merr.Forbidden, 403},
		{"not hexadecimal", func(q *SharedSecretRequest) { q.MAC = "xyz" }, merr.Forbidden, 403},
		{"moved NUL", func(q *SharedSecretRequest) { q.Username, q.Password = "root\x00pass", "" }, merr.InvalidParam, 400},
		{"no nonce", func(q *SharedSecretRequest) { q.Nonce = "" }, merr.Unknown, 400},
		{"made-up nonce", func(q *SharedSecretRequest) { q.Nonce = "thisisanonce" }, merr.Unknown, 400},
		{"a session as nonce", func(q *SharedSecretRequest) {
			q.Nonce = NewSealer(testSecrets(t, 1), purposeUIA).Seal(make([]byte, 8+nonceBytes))
		}, merr.Unknown, 400},
	} {
		nonce := r.Nonce()
		q := SharedSecretRequest{Nonce: nonce, Username: "root", Password: "pass", MAC: mac("s3cret", nonce, "root", "pass", "notadmin")}
		tt.change(&q)
		err := r.Verify(q)
		if tt.code == "" {
			if err != nil {
				t.Errorf("%s: %v", tt.name, err)
			}
			if err := r.Verify(q); !merr.Is(err, merr.Unknown) {
				t.Errorf("%s: a second time: %v", tt.name, err)
			}
			continue
		}
		if e := merr.From(err); err == nil || e.Code != tt.code || e.Status != tt.status {
			t.Errorf("%s: got %v", tt.name, err)
		}
	}
}

func TestNonceExpiry(t *testing.T) {
	for _, tt := range []struct {
		after time.Duration
		ok    bool
	}{{0, true}, {nonceLife, true}, {nonceLife + 1e6, false}, {-maxSkew, true}, {-maxSkew - 1e6, false}} {
		r, c := newSharedSecret(t)
		nonce := r.Nonce()
		c.Advance(tt.after)
		err := r.Verify(SharedSecretRequest{Nonce: nonce, MAC: mac("s3cret", nonce, "", "", "notadmin")})
		if (err == nil) != tt.ok {
			t.Errorf("after %v: %v", tt.after, err)
		}
	}
}

// TestWrongMACKeepsNonce: only who knows the secret can use up a nonce or memory.
func TestWrongMACKeepsNonce(t *testing.T) {
	r, _ := newSharedSecret(t)
	nonce := r.Nonce()
	if r.Verify(SharedSecretRequest{Nonce: nonce, MAC: "00"}) == nil || len(r.mu.used) != 0 {
		t.Error("a wrong MAC left a trace")
	}
	if err := r.Verify(SharedSecretRequest{Nonce: nonce, MAC: mac("s3cret", nonce, "", "", "notadmin")}); err != nil {
		t.Error(err)
	}
}

// TestNonceOnce: of many at the same time one succeeds.
func TestNonceOnce(t *testing.T) {
	r, _ := newSharedSecret(t)
	nonce := r.Nonce()
	q := SharedSecretRequest{Nonce: nonce, MAC: mac("s3cret", nonce, "", "", "notadmin")}
	var wins atomic.Int32
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			if r.Verify(q) == nil {
				wins.Add(1)
			}
		})
	}
	wg.Wait()
	if wins.Load() != 1 {
		t.Errorf("%d succeeded", wins.Load())
	}
}

func TestUsedNoncesAreBounded(t *testing.T) {
	r, c := newSharedSecret(t)
	try := func() error {
		nonce := r.Nonce()
		return r.Verify(SharedSecretRequest{Nonce: nonce, MAC: mac("s3cret", nonce, "", "", "notadmin")})
	}
	for range maxUsedNonces {
		if err := try(); err != nil {
			t.Fatal(err)
		}
	}
	if err := try(); merr.From(err).Status != 429 {
		t.Errorf("got %v", err)
	}
	c.Advance(nonceLife + time.Millisecond)
	if err := try(); err != nil || len(r.mu.used) != 1 {
		t.Errorf("%d remembered, %v", len(r.mu.used), err)
	}
}
