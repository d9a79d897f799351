package auth

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

const (
	// maxJWT is the longest token in bytes; with a chain of certificates in its
	// header, which nobody looks at, one could be longer.
	maxJWT = 16 << 10
	// jwtSkew is how far the clock of the issuer may be off.
	jwtSkew = time.Minute
)

// JWTOptions say whose tokens are taken.
type JWTOptions struct {
	// Algorithms are those that are taken; "none" is not one.
	Algorithms []string
	// Secret is the key of HS256, HS384 and HS512, Keys the JWKS document of all
	// others.
	Secret []byte
	Keys   []byte
	// Issuer and Audiences are what iss and one of aud have to be, "" and nil for
	// anything.
	Issuer    string
	Audiences []string
	// Subject is the claim that holds the localpart of the user.
	Subject string
}

// JWT checks tokens that somebody else issued for logging in. What a token says about
// its own key (jku, jwk, x5u) is ignored: a key is one of ours or the token is
// refused. An algorithm has its own kind of key, so that a public key is never taken
// for a secret.
type JWT struct {
	opts JWTOptions
	algs []jose.SignatureAlgorithm
	keys jose.JSONWebKeySet
}

// ErrJWT says that a token is not valid; why is in what it wraps.
var ErrJWT = errors.New("JSON web token is not valid")

func isHMAC(a jose.SignatureAlgorithm) bool { return strings.HasPrefix(string(a), "HS") }

// NewJWT returns the check.
func NewJWT(o JWTOptions) (*JWT, error) {
	known := []jose.SignatureAlgorithm{
		jose.HS256, jose.HS384, jose.HS512, jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.PS384, jose.PS512,
		jose.ES256, jose.ES384, jose.ES512, jose.EdDSA,
	}
	j := &JWT{opts: o}
	if len(o.Keys) > 0 {
		if err := json.Unmarshal(o.Keys, &j.keys); err != nil {
			return nil, fmt.Errorf("keys for JSON web tokens: %w", err)
		}
	}
	for _, k := range j.keys.Keys {
		if !k.Valid() || !k.IsPublic() {
			return nil, errors.New("keys for JSON web tokens: they have to be public keys")
		}
	}
	for _, name := range o.Algorithms {
		a := jose.SignatureAlgorithm(name)
		switch {
		case !slices.Contains(known, a):
			return nil, fmt.Errorf("JSON web tokens: the algorithm %q is not known", name)
		case isHMAC(a) && len(o.Secret) == 0:
			return nil, fmt.Errorf("JSON web tokens: %s needs a secret", name)
		case !isHMAC(a) && len(j.keys.Keys) == 0:
			return nil, fmt.Errorf("JSON web tokens: %s needs a file of keys", name)
		}
		j.algs = append(j.algs, a)
	}
	if len(j.algs) == 0 {
		return nil, errors.New("JSON web tokens: no algorithm is named")
	}
	return j, nil
}

// Verify returns the subject of a token that is good now. Its error is ErrJWT.
func (j *JWT) Verify(token string, now time.Time) (string, error) {
	subject, _, err := j.read(token, now)
	return subject, err
}

// JWTProof is a token that proves who somebody is.
type JWTProof struct {
	Subject string
	// Until is when the token is good no more.
	Until time.Time
}

// Prove returns what a token proves that is good now. It has to be issued since a
// moment: one with which somebody has logged in before, and that others may have seen
// since, proves nothing. Its error is ErrJWT.
func (j *JWT) Prove(token string, since, now time.Time) (JWTProof, error) {
	subject, std, err := j.read(token, now)
	if err != nil {
		return JWTProof{}, err
	}
	if std.IssuedAt == nil || std.IssuedAt.Time().Before(since.Add(-jwtSkew)) {
		return JWTProof{}, fmt.Errorf("%w: it does not say that it was issued just now", ErrJWT)
	}
	return JWTProof{Subject: subject, Until: std.Expiry.Time().Add(jwtSkew)}, nil
}

func (j *JWT) read(token string, now time.Time) (subject string, std jwt.Claims, err error) {
	if len(token) > maxJWT {
		return "", std, ErrJWT
	}
	parsed, err := jwt.ParseSigned(token, j.algs)
	if err != nil {
		return "", std, fmt.Errorf("%w: %w", ErrJWT, err)
	}
	key, err := j.key(parsed.Headers[0])
	if err != nil {
		return "", std, err
	}
	var all map[string]any
	if err := parsed.Claims(key, &std, &all); err != nil {
		return "", std, fmt.Errorf("%w: %w", ErrJWT, err)
	}
	if std.Expiry == nil {
		return "", std, fmt.Errorf("%w: it never expires", ErrJWT)
	}
	want := jwt.Expected{Issuer: j.opts.Issuer, AnyAudience: j.opts.Audiences, Time: now}
	if err := std.ValidateWithLeeway(want, jwtSkew); err != nil {
		return "", std, fmt.Errorf("%w: %w", ErrJWT, err)
	}
	if subject, _ = all[j.opts.Subject].(string); subject == "" {
		return "", std, fmt.Errorf("%w: the claim %s is missing", ErrJWT, j.opts.Subject)
	}
	return subject, std, nil
}

// key returns what a token has to be signed with.
func (j *JWT) key(h jose.Header) (any, error) {
	if isHMAC(jose.SignatureAlgorithm(h.Algorithm)) {
		return j.opts.Secret, nil
	}
	found := j.keys.Key(h.KeyID)
	if h.KeyID == "" && len(j.keys.Keys) == 1 {
		found = j.keys.Keys
	}
	if len(found) != 1 || found[0].Algorithm != "" && found[0].Algorithm != h.Algorithm {
		return nil, fmt.Errorf("%w: its key is not known", ErrJWT)
	}
	return found[0].Key, nil
}
