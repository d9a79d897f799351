package auth

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"hash/crc32"
)

// Kind says what a token is good for. A token of one kind is never accepted as
// another.
type Kind uint8

// The kinds of tokens.
const (
	// Access tokens authorize requests.
	Access Kind = iota + 1
	// Refresh tokens give a new access token. spec: client-server §Refreshing access tokens.
	Refresh
	// Login tokens log in once. spec: client-server POST /login, m.login.token.
	Login
	// Registration tokens allow to register; their localpart is empty.
	Registration
	// OpenID tokens prove to a third party who a user is.
	OpenID
)

// A token is
//
//	prefix base64url(localpart) "_" 24 random characters "_" 6 characters of check
//
// The prefix tells people and scanners for leaked secrets what they see. The
// localpart leads any node to the user's partition, so that no global index of
// tokens exists. The check is a CRC-32 over what stands before it: typing errors
// and made-up tokens are refused before anything is looked up. It is no protection;
// the random part is, and only a hash of the whole is stored.
//
// The parts have fixed lengths from the end, and each token has one spelling only:
// base64 is decoded strictly and the random part fills its last character.
const (
	prefixLen   = 4
	randomLen   = 18 // bytes: 144 bits, a multiple of 3
	randomChars = 24
	checkChars  = 6
	tailChars   = 1 + randomChars + 1 + checkChars
	// maxLocalpart is the longest localpart in bytes, as user IDs have at most 255.
	maxLocalpart = 255
)

// MaxTokenBytes is the longest token.
const MaxTokenBytes = prefixLen + (maxLocalpart*4+2)/3 + tailChars

// ErrMalformedToken says that a token was not made by this server or was damaged on
// the way. It is not wrapped around anything, so that logs never hold the token.
var ErrMalformedToken = errors.New("malformed token")

// tokenBase64 is base64url without padding, with one spelling for each value.
var tokenBase64 = base64.RawURLEncoding.Strict()

func (k Kind) prefix() string {
	switch k {
	case Access:
		return "hba_"
	case Refresh:
		return "hbr_"
	case Login:
		return "hbl_"
	case Registration:
		return "hbi_"
	case OpenID:
		return "hbo_"
	}
	return ""
}

// String names the kind.
func (k Kind) String() string {
	switch k {
	case Access:
		return "access"
	case Refresh:
		return "refresh"
	case Login:
		return "login"
	case Registration:
		return "registration"
	case OpenID:
		return "openid"
	}
	return "unknown"
}

// NewToken makes a token of a kind for a user's localpart, which is "" for
// registration tokens and at most 255 bytes. A registration token without localpart
// has 36 characters of the opaque identifier grammar, whose limit is 64.
func NewToken(kind Kind, localpart string) string {
	if kind.prefix() == "" || len(localpart) > maxLocalpart {
		panic("auth: token of an unknown kind or for an impossible user")
	}
	body := kind.prefix() + tokenBase64.EncodeToString([]byte(localpart)) + "_" +
		tokenBase64.EncodeToString(randomBytes(randomLen)) + "_"
	return body + check(body)
}

// check returns the check characters for what stands before them.
func check(body string) string {
	var sum [4]byte
	binary.BigEndian.PutUint32(sum[:], crc32.ChecksumIEEE([]byte(body)))
	return tokenBase64.EncodeToString(sum[:])
}

// Parse reads a token's kind and localpart. It says nothing about whether the token
// is valid: look up its Hash in the user's partition. Its error is
// ErrMalformedToken.
func Parse(token string) (Kind, string, error) {
	if len(token) < prefixLen+tailChars || len(token) > MaxTokenBytes {
		return 0, "", ErrMalformedToken
	}
	body, sum := token[:len(token)-checkChars], token[len(token)-checkChars:]
	if body[len(body)-1] != '_' || check(body) != sum {
		return 0, "", ErrMalformedToken
	}
	kind := kindOf(token[:prefixLen])
	rest := body[prefixLen : len(body)-1]
	name, random := rest[:len(rest)-randomChars-1], rest[len(rest)-randomChars:]
	if kind == 0 || rest[len(name)] != '_' {
		return 0, "", ErrMalformedToken
	}
	localpart, err := tokenBase64.DecodeString(name)
	if err != nil {
		return 0, "", ErrMalformedToken
	}
	if _, err := tokenBase64.DecodeString(random); err != nil {
		return 0, "", ErrMalformedToken
	}
	return kind, string(localpart), nil
}

func kindOf(prefix string) Kind {
	for k := Access; k <= OpenID; k++ {
		if k.prefix() == prefix {
			return k
		}
	}
	return 0
}

// Hash returns what is stored of a token: SHA-256 in base64url. No salt and no
// stretching are needed, because tokens are random.
func Hash(token string) string {
	sum := sha256.Sum256([]byte(token))
	return tokenBase64.EncodeToString(sum[:])
}
