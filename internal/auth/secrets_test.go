package auth

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"testing"
)

func testSecrets(t testing.TB, seed byte) *Secrets {
	t.Helper()
	s, err := NewSecrets(bytes.Repeat([]byte{seed}, MasterBytes))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestKeyIsStable pins a key: data sealed by one version is opened by the next.
func TestKeyIsStable(t *testing.T) {
	key := testSecrets(t, 1).Key("auth/uia")
	const want = "7f322e28e728d1a7e5bc2e593c4ba2b6e6a67640725022ebc669884fdf7f55b8"
	if got := hex.EncodeToString(key[:]); got != want {
		t.Errorf("got %s", got)
	}
	if other := testSecrets(t, 1).Key("auth/uib"); other == key {
		t.Error("two purposes, one key")
	}
	if other := testSecrets(t, 2).Key("auth/uia"); other == key {
		t.Error("two masters, one key")
	}
}

func TestSecretsStayOutOfLogs(t *testing.T) {
	s := testSecrets(t, 'K')
	for _, format := range []string{"%v", "%+v", "%#v", "%s"} {
		if got := fmt.Sprintf(format, s); got != "auth.Secrets" {
			t.Errorf("%s: got %s", format, got)
		}
	}
}

func TestShortMaster(t *testing.T) {
	if _, err := NewSecrets(make([]byte, MasterBytes-1)); err == nil {
		t.Error("accepted")
	}
	if a, b := NewMaster(), NewMaster(); len(a) != MasterBytes || bytes.Equal(a, b) {
		t.Error("not a new secret each time")
	}
}

func TestSealer(t *testing.T) {
	s := NewSealer(testSecrets(t, 1), "a")
	for _, plain := range []string{"", "x", string(make([]byte, 1000))} {
		sealed := s.Seal([]byte(plain))
		if got, err := s.Open(sealed); err != nil || string(got) != plain {
			t.Errorf("got %q %v", got, err)
		}
		if sealed == s.Seal([]byte(plain)) {
			t.Error("one plain text, one box")
		}
		for name, other := range map[string]*Sealer{
			"purpose": NewSealer(testSecrets(t, 1), "b"), "master": NewSealer(testSecrets(t, 2), "a"),
		} {
			if _, err := other.Open(sealed); !errors.Is(err, ErrUnsealed) {
				t.Errorf("opened with another %s: %v", name, err)
			}
		}
	}
	sealed := s.Seal([]byte("hello"))
	for i := range sealed {
		c := byte('A')
		if sealed[i] == c {
			c = 'B'
		}
		if _, err := s.Open(sealed[:i] + string(c) + sealed[i+1:]); !errors.Is(err, ErrUnsealed) {
			t.Errorf("opened with a change at %d", i)
		}
		if _, err := s.Open(sealed[:i]); !errors.Is(err, ErrUnsealed) {
			t.Errorf("opened the first %d bytes", i)
		}
	}
	if _, err := s.Open(s.Seal(make([]byte, maxSealed))); !errors.Is(err, ErrUnsealed) {
		t.Error("opened more than the limit")
	}
}

func FuzzOpen(f *testing.F) {
	s := NewSealer(testSecrets(f, 1), "a")
	f.Add("")
	f.Add("AQ")
	f.Add(NewSealer(testSecrets(f, 2), "a").Seal([]byte("x")))
	f.Fuzz(func(t *testing.T, sealed string) {
		if plain, err := s.Open(sealed); err == nil {
			t.Fatalf("opened %q as %q", sealed, plain)
		}
	})
}
