package webpush

import (
	"bytes"
	"crypto/ecdh"
	"encoding/base64"
	"strings"
	"testing"
	"time"

	"github.com/hubbub-chat/hubbub/internal/push/webpush/webpushtest"
)

func unbase64(t *testing.T, s string) []byte {
	t.Helper()
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The example of RFC 8291 §5, with the values of its appendix A.
func TestExampleOfTheSpecification(t *testing.T) {
	const (
		auth   = "BTBZMqHH6r4Tts7J_aSIgg"
		theirs = "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4"
		ours   = "yfWPiYE-n46HLnH0KqZOF1fJJU3MYrct3AELtAQ-oRw"
		salt   = "DGv6ra1nlYgDCS1FRnbzlw"
		want   = "DGv6ra1nlYgDCS1FRnbzlwAAEABBBP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27mlmlMoZIIgDll6e3vCYLocInmYWAmS6TlzAC8wEqKK6PBru3jl7A_" +
			"yl95bQpu6cVPTpK4Mqgkf1CXztLVBSt2Ks3oZwbuwXPXLWyouBWLVWGNWQexSgSxsj_Qulcy4a-fN"
	)
	s, err := NewSubscription(theirs, auth)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ecdh.P256().NewPrivateKey(unbase64(t, ours))
	if err != nil {
		t.Fatal(err)
	}
	got, err := s.seal([]byte("When I grow up, I want to be a watermelon"), 0, key, unbase64(t, salt))
	if err != nil {
		t.Fatal(err)
	}
	if enc := base64.RawURLEncoding.EncodeToString(got); enc != want {
		t.Errorf("got  %s\nwant %s", enc, want)
	}
}

// What is sent can be read, is never the same, and its length tells little.
func TestEncrypt(t *testing.T) {
	browser := webpushtest.NewBrowser(t)
	s, err := NewSubscription(browser.Keys())
	if err != nil {
		t.Fatal(err)
	}
	lengths := map[int]bool{}
	for _, n := range []int{0, 1, 100, 127, 128, 129, 255, 3000, MaxMessage - 1, MaxMessage} {
		message := bytes.Repeat([]byte{'x'}, n)
		one, err := s.Encrypt(message)
		if err != nil {
			t.Fatal(err)
		}
		two, err := s.Encrypt(message)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Equal(one[:saltBytes], two[:saltBytes]) || bytes.Equal(one[saltBytes+5:headBytes], two[saltBytes+5:headBytes]) {
			t.Errorf("%d bytes: a salt or a key is used again", n)
		}
		if got, err := browser.Decrypt(one); err != nil || !bytes.Equal(got, message) {
			t.Errorf("%d bytes: decrypted %q, %v", n, got, err)
		}
		if len(one) > recordSize {
			t.Errorf("%d bytes make a body of %d", n, len(one))
		}
		lengths[len(one)] = true
	}
	if len(lengths) != 5 {
		t.Errorf("bodies have %d lengths", len(lengths))
	}
	if _, err := s.Encrypt(make([]byte, MaxMessage+1)); err == nil {
		t.Error("a message that does not fit is taken")
	}
}

func TestSubscriptionsThatAreNone(t *testing.T) {
	key, auth := webpushtest.NewBrowser(t).Keys()
	flipped := unbase64(t, key)
	flipped[40] ^= 1 // no longer on the curve
	for name, c := range map[string][2]string{
		"no key":          {"", auth},
		"no secret":       {key, ""},
		"padding":         {key + "=", auth},
		"a short key":     {key[:80], auth},
		"off the curve":   {base64.RawURLEncoding.EncodeToString(flipped), auth},
		"a point at zero": {base64.RawURLEncoding.EncodeToString(make([]byte, 65)), auth},
		"a short secret":  {key, auth[:20]},
		"a long secret":   {key, auth + auth},
		"no base64":       {key, "!!!!!!!!!!!!!!!!!!!!!!"},
	} {
		if _, err := NewSubscription(c[0], c[1]); err == nil {
			t.Errorf("%s is taken", name)
		} else if strings.Contains(err.Error(), auth) {
			t.Errorf("%s: the secret is in %q", name, err)
		}
	}
	if _, err := NewSubscription(key, auth); err != nil {
		t.Error(err)
	}
}

func TestAuthorization(t *testing.T) {
	raw, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	k, err := ParseKey(raw)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Date(2026, 5, 6, 7, 59, 59, 0, time.UTC)
	const origin, contact = "https://push.example.org", "mailto:postmaster@chat.example.org"
	head := func(at time.Time, origin string) string {
		h, err := k.Authorization(origin, contact, at)
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	h := head(now, origin)
	if err := webpushtest.CheckAuthorization(h, k.Public(), origin, now); err != nil {
		t.Errorf("%s: %v", h, err)
	}
	if head(now.Add(-30*time.Minute), origin) != h {
		t.Error("a service sees another proof each time")
	}
	later := head(now.Add(time.Second), origin)
	if later == h {
		t.Error("the proof never changes")
	}
	if err := webpushtest.CheckAuthorization(later, k.Public(), origin, now.Add(11*time.Hour)); err != nil {
		t.Error(err)
	}
	if webpushtest.CheckAuthorization(h, k.Public(), origin, now.Add(13*time.Hour)) == nil {
		t.Error("a proof is good for ever")
	}
	if webpushtest.CheckAuthorization(head(now, "https://other.example"), k.Public(), origin, now) == nil {
		t.Error("a proof for another service is taken")
	}
	other, err := ParseKey(bytes.Repeat([]byte{7}, scalar))
	if err != nil {
		t.Fatal(err)
	}
	if webpushtest.CheckAuthorization(h, other.Public(), origin, now) == nil {
		t.Error("a proof by another key is taken")
	}
}

func TestKeysThatAreNone(t *testing.T) {
	for _, raw := range [][]byte{nil, make([]byte, scalar), bytes.Repeat([]byte{0xff}, scalar), {1, 2, 3}} {
		if _, err := ParseKey(raw); err == nil {
			t.Errorf("%x is taken for a key", raw)
		}
	}
	a, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	b, err := NewKey()
	if err != nil || bytes.Equal(a, b) || len(a) != scalar {
		t.Errorf("keys %d and %d bytes, equal: %v, %v", len(a), len(b), bytes.Equal(a, b), err)
	}
}
