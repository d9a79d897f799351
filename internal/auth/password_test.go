package auth

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"golang.org/x/crypto/argon2"

	"github.com/hubbub-chat/hubbub/internal/merr"
)

func TestHashAndVerify(t *testing.T) {
	ctx := context.Background()
	h := NewHasher(CheapParams())
	hash, err := h.Hash(ctx, "correct horse")
	if err != nil {
		t.Fatal(err)
	}
	again, err := h.Hash(ctx, "correct horse")
	if err != nil || hash == again {
		t.Errorf("two hashes of one password are equal (%v)", err)
	}
	if !strings.HasPrefix(hash, "$argon2id$v=19$m=64,t=1,p=1$") {
		t.Errorf("got %s", hash)
	}
	for password, want := range map[string]bool{
		"correct horse": true, "correct horse ": false, "": false, "Correct horse": false,
	} {
		if got, err := h.Verify(ctx, password, hash); err != nil || got != want {
			t.Errorf("%q: got %v %v", password, got, err)
		}
	}
}

// TestKnownHash verifies a hash that was made outside of the encoder.
func TestKnownHash(t *testing.T) {
	salt := []byte("somesaltsomesalt")
	key := argon2.IDKey([]byte("password"), salt, 3, 128, 2, 24)
	hash := fmt.Sprintf("$argon2id$v=19$m=128,t=3,p=2$%s$%s", phcBase64.EncodeToString(salt), phcBase64.EncodeToString(key))
	h := NewHasher(CheapParams())
	if ok, err := h.Verify(context.Background(), "password", hash); err != nil || !ok {
		t.Errorf("got %v %v", ok, err)
	}
	if !h.NeedsRehash(hash) {
		t.Error("other costs need no new hash")
	}
}

func TestNeedsRehash(t *testing.T) {
	ctx := context.Background()
	cheap, other := NewHasher(CheapParams()), NewHasher(Params{MemoryKiB: 64, Iterations: 2, Parallelism: 1})
	hash, err := cheap.Hash(ctx, "x")
	if err != nil {
		t.Fatal(err)
	}
	if cheap.NeedsRehash(hash) || !other.NeedsRehash(hash) || !cheap.NeedsRehash("garbage") {
		t.Error("wrong answer")
	}
	if ok, err := other.Verify(ctx, "x", hash); err != nil || !ok {
		t.Errorf("an old hash does not verify: %v", err)
	}
}

func TestDefaultParams(t *testing.T) {
	if got := DefaultParams(); got != (Params{MemoryKiB: 19456, Iterations: 2, Parallelism: 1}) {
		t.Errorf("got %+v", got)
	}
}

func TestMalformedHash(t *testing.T) {
	const salt, key = "c29tZXNhbHRzb21lc2FsdA", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
	h := NewHasher(CheapParams())
	if _, _, _, err := decodeHash("$argon2id$v=19$m=64,t=1,p=1$" + salt + "$" + key); err != nil {
		t.Fatal("the good one:", err)
	}
	for _, hash := range []string{
		"",
		"$2b$12$abcdefghijklmnopqrstuv",
		"$argon2i$v=19$m=64,t=1,p=1$" + salt + "$" + key,
		"$argon2id$v=16$m=64,t=1,p=1$" + salt + "$" + key,
		"$argon2id$v=19$m=64,t=1$" + salt + "$" + key,
		"$argon2id$v=19$m=0,t=1,p=1$" + salt + "$" + key,
		"$argon2id$v=19$m=64,t=0,p=1$" + salt + "$" + key,
		"$argon2id$v=19$m=64,t=1,p=0$" + salt + "$" + key,
		"$argon2id$v=19$m=64,t=1,p=256$" + salt + "$" + key,
		"$argon2id$v=19$m=4194304,t=1,p=1$" + salt + "$" + key, // 4 GiB
		"$argon2id$v=19$m=64,t=1000000,p=1$" + salt + "$" + key,
		"$argon2id$v=19$m=-1,t=1,p=1$" + salt + "$" + key,
		"$argon2id$v=19$t=1,m=64,p=1$" + salt + "$" + key,
		"$argon2id$v=19$m=64,t=1,p=1$" + salt + "$" + key + "=",
		"$argon2id$v=19$m=64,t=1,p=1$" + salt + "$AAAA",
		"$argon2id$v=19$m=64,t=1,p=1$$" + key,
		"$argon2id$v=19$m=64,t=1,p=1$" + salt + "$" + key + "$",
	} {
		if _, err := h.Verify(context.Background(), "x", hash); !errors.Is(err, ErrMalformedHash) {
			t.Errorf("%s: got %v", hash, err)
		}
	}
}

func FuzzDecodeHash(f *testing.F) {
	f.Add("$argon2id$v=19$m=64,t=1,p=1$c29tZXNhbHRzb21lc2FsdA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")
	f.Fuzz(func(t *testing.T, hash string) {
		p, salt, key, err := decodeHash(hash)
		if err != nil {
			return
		}
		if p.MemoryKiB > maxMemoryKiB || p.Iterations > maxIterations || p.Parallelism == 0 {
			t.Fatalf("accepted %+v", p)
		}
		p2, salt2, key2, err := decodeHash(encodeHash(p, salt, key))
		if err != nil || p2 != p || string(salt2) != string(salt) || string(key2) != string(key) {
			t.Fatalf("%s does not survive: %v", hash, err)
		}
	})
}

// TestLongPassword: refused before any hashing, which the full semaphore proves.
func TestLongPassword(t *testing.T) {
	h := newHasher(CheapParams(), 1)
	hash, err := h.Hash(context.Background(), strings.Repeat("x", MaxPasswordBytes))
	if err != nil {
		t.Fatal(err)
	}
	h.slots <- struct{}{}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	long := strings.Repeat("x", 1<<20)
	_, err1 := h.Hash(ctx, long)
	_, err2 := h.Verify(ctx, long, hash)
	for _, err := range []error{err1, err2, h.VerifyMissing(ctx, long)} {
		if e := merr.From(err); e.Status != 400 || e.Code != merr.InvalidParam {
			t.Errorf("got %v", err)
		}
	}
	if n := h.Hashes(); n != 1 {
		t.Errorf("%d hashes were computed, the long ones too?", n)
	}
}

// TestVerifyMissing does the same work as a real check and fails for every password.
func TestVerifyMissing(t *testing.T) {
	h := NewHasher(CheapParams())
	if err := h.VerifyMissing(context.Background(), "x"); err != nil {
		t.Fatal(err)
	}
	p, salt, key, err := decodeHash(h.dummy)
	if err != nil || p != CheapParams() || len(salt) != saltBytes || len(key) != keyBytes {
		t.Errorf("the dummy is not like a hash: %+v %v", p, err)
	}
	if n := h.Hashes(); n != 1 {
		t.Errorf("%d hashes were computed", n)
	}
}

// TestFlood: with every slot taken, as many callers wait as may, the next one is
// refused at once, a cancelled one leaves its place, and all others get their turn.
func TestFlood(t *testing.T) {
	h := newHasher(CheapParams(), 2)
	for range 2 {
		h.slots <- struct{}{}
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var wg sync.WaitGroup
	failed := make(chan error, h.maxWaiting)
	for i := range h.maxWaiting {
		wg.Go(func() {
			c := context.Background()
			if i == 0 {
				c = ctx
			}
			if err := h.VerifyMissing(c, "x"); err != nil {
				failed <- err
			}
		})
	}
	refused := 0
	for refused == 0 { // once all wait, every further one is refused
		if h.waiting.Load() < h.maxWaiting {
			continue
		}
		err := h.VerifyMissing(context.Background(), "x")
		if e := merr.From(err); e.Status != 429 || e.RetryAfter == 0 {
			t.Fatalf("got %v", err)
		}
		refused++
	}
	cancel()
	if err := <-failed; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	<-h.slots
	<-h.slots
	wg.Wait()
	close(failed)
	for err := range failed {
		t.Errorf("one that waited got %v", err)
	}
	if h.waiting.Load() != 0 || len(h.slots) != 0 {
		t.Errorf("%d wait, %d hash", h.waiting.Load(), len(h.slots))
	}
}

func TestCancelledBeforehand(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := NewHasher(CheapParams()).Hash(ctx, "x"); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func BenchmarkVerify(b *testing.B) {
	h := NewHasher(DefaultParams())
	for b.Loop() {
		if err := h.VerifyMissing(context.Background(), "password"); err != nil {
			b.Fatal(err)
		}
	}
}

func TestPolicy(t *testing.T) {
	p := NewPolicy(false)
	for _, tt := range []struct {
		password, localpart string
		want                merr.Code
	}{
		{"tidal anchor poem", "alice", ""},
		{"пароль-длинный", "alice", ""},
		{"jk7#mmx0", "jk", ""},
		{"", "alice", merr.WeakPassword},
		{"short", "alice", merr.WeakPassword},
		{"éééé", "alice", merr.WeakPassword}, // 8 bytes, 4 characters
		{"marmalade", "Marmalade", merr.WeakPassword},
		{"xxALICExx9", "alice", merr.WeakPassword},
		{"password", "alice", merr.WeakPassword},
		{"PassWord", "alice", merr.WeakPassword},
		{"password2024!", "alice", merr.WeakPassword},
		{"sunshine99", "alice", merr.WeakPassword},
		{"12345678", "alice", merr.WeakPassword},
		{"hubbubhubbub", "alice", merr.WeakPassword},
		{"sesame928374651029", "alice", ""},
		{strings.Repeat("x", MaxPasswordBytes+1), "alice", merr.InvalidParam},
		{"valid but\xff not", "alice", merr.InvalidParam},
	} {
		err := p.Check(tt.password, tt.localpart)
		if tt.want == "" && err != nil || tt.want != "" && !merr.Is(err, tt.want) {
			t.Errorf("%.40q for %s: got %v, want %q", tt.password, tt.localpart, err, tt.want)
		}
		if err != nil && len(tt.password) > 3 && tt.password != "password" && strings.Contains(err.Error(), tt.password) {
			t.Errorf("the error contains the password: %v", err)
		}
	}
	for _, w := range []string{"", strings.Repeat("x", MaxPasswordBytes+1)} {
		if NewPolicy(true).Check(w, "alice") == nil {
			t.Errorf("%.10q passes where weak ones are allowed", w)
		}
	}
	if err := NewPolicy(true).Check("password", "password"); err != nil {
		t.Error(err)
	}
	if len(p.weak) < 200 {
		t.Errorf("only %d words", len(p.weak))
	}
	for w := range p.weak {
		if w != strings.ToLower(w) {
			t.Errorf("%s would never match", w)
		}
	}
}
