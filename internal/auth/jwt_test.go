package auth

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

type claims = map[string]any

func signed(t *testing.T, alg jose.SignatureAlgorithm, key any, kid string, c claims) string {
	t.Helper()
	o := (&jose.SignerOptions{}).WithType("JWT").WithHeader("jku", "https://evil.example/keys")
	if kid != "" {
		o = o.WithHeader("kid", kid)
	}
	s, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: key}, o)
	if err != nil {
		t.Fatal(err)
	}
	token, err := jwt.Signed(s).Claims(c).Serialize()
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func rsaKey(t *testing.T) *rsa.PrivateKey {
	t.Helper()
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestJWT(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	secret := []byte("a secret of thirty-two bytes or so")
	key, other := rsaKey(t), rsaKey(t)
	set, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: key.Public(), KeyID: "k1", Algorithm: "RS256", Use: "sig"}}})
	if err != nil {
		t.Fatal(err)
	}
	public := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: x509.MarshalPKCS1PublicKey(&key.PublicKey)})
	j, err := NewJWT(JWTOptions{
		Algorithms: []string{"HS256", "RS256"}, Secret: secret, Keys: set, Issuer: "https://idp.example", Audiences: []string{"chat", "x"}, Subject: "sub",
	})
	if err != nil {
		t.Fatal(err)
	}
	good := func(changes claims) claims {
		c := claims{"sub": "alice", "iss": "https://idp.example", "aud": "chat", "exp": now.Unix() + 60}
		for k, v := range changes {
			c[k] = v
			if v == nil {
				delete(c, k)
			}
		}
		return c
	}
	none := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none"}`)) + "." +
		base64.RawURLEncoding.EncodeToString([]byte(`{"sub":"alice","iss":"https://idp.example","aud":"chat","exp":9999999999}`)) + "."
	valid := signed(t, jose.HS256, secret, "", good(nil))
	for name, tt := range map[string]struct {
		token string
		ok    bool
	}{
		"secret":                           {valid, true},
		"key":                              {signed(t, jose.RS256, key, "k1", good(nil)), true},
		"the only key":                     {signed(t, jose.RS256, key, "", good(nil)), true},
		"list of audiences":                {signed(t, jose.HS256, secret, "", good(claims{"aud": []string{"y", "x"}})), true},
		"expired within the skew":          {signed(t, jose.HS256, secret, "", good(claims{"exp": now.Unix() - 30})), true},
		"expired":                          {signed(t, jose.HS256, secret, "", good(claims{"exp": now.Unix() - 90})), false},
		"never expires":                    {signed(t, jose.HS256, secret, "", good(claims{"exp": nil})), false},
		"not yet":                          {signed(t, jose.HS256, secret, "", good(claims{"nbf": now.Unix() + 90})), false},
		"wrong issuer":                     {signed(t, jose.HS256, secret, "", good(claims{"iss": "https://evil.example"})), false},
		"no issuer":                        {signed(t, jose.HS256, secret, "", good(claims{"iss": nil})), false},
		"wrong audience":                   {signed(t, jose.HS256, secret, "", good(claims{"aud": "other"})), false},
		"no audience":                      {signed(t, jose.HS256, secret, "", good(claims{"aud": nil})), false},
		"no subject":                       {signed(t, jose.HS256, secret, "", good(claims{"sub": nil})), false},
		"subject of another type":          {signed(t, jose.HS256, secret, "", good(claims{"sub": 5})), false},
		"wrong secret":                     {signed(t, jose.HS256, []byte("another secret of thirty-two bytes"), "", good(nil)), false},
		"another key":                      {signed(t, jose.RS256, other, "k1", good(nil)), false},
		"unknown key":                      {signed(t, jose.RS256, key, "../k1", good(nil)), false},
		"algorithm that is not allowed":    {signed(t, jose.HS512, append(secret, secret...), "", good(nil)), false},
		"algorithm that the key is not of": {signed(t, jose.PS256, key, "k1", good(nil)), false},
		"public key as a secret":           {signed(t, jose.HS256, public, "k1", good(nil)), false},
		"none":                             {none, false},
		"cut off":                          {valid[:len(valid)-3], false},
		"nothing":                          {"", false},
		"no token":                         {"a.b.c", false},
	} {
		subject, err := j.Verify(tt.token, now)
		if (err == nil) != tt.ok || tt.ok && subject != "alice" || err != nil && !errors.Is(err, ErrJWT) {
			t.Errorf("%s: %q %v", name, subject, err)
		}
	}
}

func TestJWTOptions(t *testing.T) {
	for name, o := range map[string]JWTOptions{
		"no algorithm": {Secret: []byte("x")},
		"none":         {Algorithms: []string{"none"}, Secret: []byte("x")},
		"no secret":    {Algorithms: []string{"HS256"}},
		"no keys":      {Algorithms: []string{"RS256"}, Secret: []byte("x")},
		"no JSON":      {Algorithms: []string{"RS256"}, Keys: []byte("{")},
		"secret key":   {Algorithms: []string{"RS256"}, Keys: []byte(`{"keys":[{"kty":"oct","k":"AAAA"}]}`)},
	} {
		if _, err := NewJWT(o); err == nil {
			t.Errorf("%s is fine", name)
		}
	}
}
