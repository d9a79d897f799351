package auth

import (
	"errors"
	"math"
	"math/bits"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/hubbub-chat/hubbub/internal/lint/ondemand"
)

func kinds() []Kind { return []Kind{Access, Refresh, Login, Registration, OpenID} }

func TestTokenRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		kind := rapid.SampledFrom(kinds()).Draw(t, "kind")
		local := rapid.StringN(0, -1, maxLocalpart).Draw(t, "localpart")
		token := NewToken(kind, local)
		if len(token) > MaxTokenBytes {
			t.Fatalf("%d bytes", len(token))
		}
		gotKind, gotLocal, err := Parse(token)
		if err != nil || gotKind != kind || gotLocal != local {
			t.Fatalf("got %v %q %v", gotKind, gotLocal, err)
		}
	})
}

// TestTokenDamage changes, removes and adds each character in turn.
func TestTokenDamage(t *testing.T) {
	token := NewToken(Access, "alice")
	reject := func(s string) {
		t.Helper()
		if _, _, err := Parse(s); !errors.Is(err, ErrMalformedToken) {
			t.Errorf("%s accepted as %s: %v", s, token, err)
		}
	}
	for i := range token {
		for _, c := range []byte("aZ0_-=\x00") {
			if token[i] != c {
				reject(token[:i] + string(c) + token[i+1:])
			}
		}
		reject(token[:i] + token[i+1:])
		reject(token[:i] + "x" + token[i:])
	}
	reject("")
	reject(strings.Repeat("x", 1<<20))
	reject("syt_YWxpY2U_AAAAAAAAAAAAAAAAAAAA_000000")
	for _, body := range []string{
		"hbx_YWxpY2U_" + strings.Repeat("A", 24) + "_", // unknown kind
		"hba_YWxpY2U_" + strings.Repeat("A", 23) + "_", // short
		"hba_YWxpY2V_" + strings.Repeat("A", 24) + "_", // second spelling of the name
		"hba_YWxpY2U_" + strings.Repeat("!", 24) + "_", // not base64
		"hba_YWxpY2UA" + strings.Repeat("A", 24) + "_", // no separator
		"hba_YWxpY2U_" + strings.Repeat("A", 24) + "A", // no separator
	} {
		reject(body + check(body))
	}
}

func TestTokenKindsDiffer(t *testing.T) {
	seen := map[string]Kind{}
	for _, k := range kinds() {
		if p := k.prefix(); len(p) != prefixLen || seen[p] != 0 {
			t.Errorf("%v has prefix %q like %v", k, p, seen[p])
		}
		seen[k.prefix()] = k
		if k.String() == "unknown" {
			t.Errorf("kind %d has no name", k)
		}
	}
}

// TestTokenEntropy: no repeats, and every bit of the random part is 0 as often as 1.
// A million tokens are tried with HUBBUB_TEST_TOKENS=1000000.
func TestTokenEntropy(t *testing.T) {
	n := int(ondemand.Number(t, "HUBBUB_TEST_TOKENS", 20_000))
	seen := make(map[string]bool, n)
	var ones [randomLen * 8]int
	total := 0
	for range n {
		token := NewToken(Access, "a")
		if seen[token] {
			t.Fatal("a token was made twice")
		}
		seen[token] = true
		random := token[len(token)-tailChars+1 : len(token)-checkChars-1]
		raw, err := tokenBase64.DecodeString(random)
		if err != nil || len(raw) != randomLen {
			t.Fatalf("%q: %v", random, err)
		}
		for i, b := range raw {
			total += bits.OnesCount8(b)
			for j := range 8 {
				ones[i*8+j] += int(b >> j & 1)
			}
		}
	}
	most := int(4 * math.Sqrt(float64(n))) // 8 standard deviations
	for i, c := range ones {
		if d := c - n/2; d < -most || d > most {
			t.Errorf("bit %d is set in %d of %d", i, c, n)
		}
	}
	if randomLen*8 < 128 {
		t.Error("fewer than 128 random bits")
	}
}

func TestRegistrationTokenGrammar(t *testing.T) {
	if token := NewToken(Registration, ""); !isRegistrationToken(token) {
		t.Errorf("%s is not a registration token of the specification", token)
	}
	for token, want := range map[string]bool{
		"abcXYZ019._~-":         true,
		strings.Repeat("a", 64): true,
		strings.Repeat("a", 65): false,
		"":                      false,
		"a b":                   false,
		"a/b":                   false,
		"é":                     false,
	} {
		if isRegistrationToken(token) != want {
			t.Errorf("%q: got %v", token, !want)
		}
	}
}

func TestHashToken(t *testing.T) {
	// echo -n token | sha256sum, in base64url
	if got := Hash("token"); got != "PEaenWxYddN6Q_NT1PiOYfz4EsZu7jRXRlpAsNpBU-A" {
		t.Errorf("got %s", got)
	}
	if Hash("token") == Hash("Token") {
		t.Error("two tokens, one hash")
	}
}

func FuzzParse(f *testing.F) {
	f.Add(NewToken(Access, "alice"))
	f.Add(NewToken(Registration, ""))
	f.Add("hba__" + strings.Repeat("A", 24) + "_AAAAAA")
	f.Fuzz(func(t *testing.T, token string) {
		kind, local, err := Parse(token)
		if err != nil {
			return
		}
		// One spelling: what is accepted is what would have been made.
		body := kind.prefix() + tokenBase64.EncodeToString([]byte(local)) + token[len(token)-tailChars:len(token)-checkChars]
		if body+check(body) != token {
			t.Fatalf("accepted %q as %v of %q", token, kind, local)
		}
	})
}
