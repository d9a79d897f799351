package auth

import (
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"errors"
	"fmt"

	"golang.org/x/crypto/chacha20poly1305"
)

// MasterBytes is the size of a deployment's master secret, and KeyBytes that of the
// keys derived from it.
const (
	MasterBytes = 32
	KeyBytes    = 32
)

// The purposes of derived keys in this package. Other packages name their own,
// starting with their package's name.
const (
	purposeUIA   = "auth/uia"
	purposeNonce = "auth/registration-nonce"
)

// hkdfLabel separates our keys from those of another system that might be given the
// same secret; the number would change with the derivation.
const hkdfLabel = "hubbub/v1/"

// Secrets derives keys from the one master secret of a deployment, which all its
// nodes share.
type Secrets struct{ master []byte }

// NewMaster returns a new master secret.
func NewMaster() []byte { return randomBytes(MasterBytes) }

// NewSecrets returns the secrets of a master, which has at least MasterBytes random
// bytes.
func NewSecrets(master []byte) (*Secrets, error) {
	if len(master) < MasterBytes {
		return nil, fmt.Errorf("master secret has %d bytes, need %d", len(master), MasterBytes)
	}
	return &Secrets{master: append([]byte(nil), master...)}, nil
}

// Key returns the key for a purpose: always the same for the same purpose, and
// telling nothing about any other.
func (s *Secrets) Key(purpose string) [KeyBytes]byte {
	key, err := hkdf.Key(sha256.New, s.master, nil, hkdfLabel+purpose, KeyBytes)
	if err != nil {
		panic("auth: derive key: " + err.Error()) // only for absurd lengths
	}
	return [KeyBytes]byte(key)
}

// String keeps the master out of logs.
func (s *Secrets) String() string { return "auth.Secrets" }

// GoString keeps the master out of logs.
func (s *Secrets) GoString() string { return "auth.Secrets" }

// ErrUnsealed says that a sealed string was not made with this key and purpose.
var ErrUnsealed = errors.New("not a sealed value")

// Sealer encrypts and authenticates small values that a client carries for the
// server: nobody without the key can read or change one, or take it from one
// purpose to another. It does not stop a client from presenting one twice.
//
// The form is base64url(version, nonce, XChaCha20-Poly1305 ciphertext). Nonces are
// random, and 24 bytes of them never collide.
type Sealer struct {
	aead cipher.AEAD
	aad  []byte
}

const (
	// sealVersion is the first byte of what is sealed, and authenticated.
	sealVersion = 1
	// maxSealed bounds what Open decodes; UIA sessions stay below it.
	maxSealed = 4096
)

// NewSealer returns the sealer for a purpose.
func NewSealer(s *Secrets, purpose string) *Sealer {
	key := s.Key(purpose)
	aead, err := chacha20poly1305.NewX(key[:])
	if err != nil {
		panic("auth: make cipher: " + err.Error()) // only for a wrong key size
	}
	return &Sealer{aead: aead, aad: []byte{sealVersion}}
}

// Seal returns plain as an opaque string of URL-safe characters.
func (s *Sealer) Seal(plain []byte) string {
	nonce := randomBytes(s.aead.NonceSize())
	out := make([]byte, 0, 1+len(nonce)+len(plain)+s.aead.Overhead())
	out = append(append(out, sealVersion), nonce...)
	return tokenBase64.EncodeToString(s.aead.Seal(out, nonce, plain, s.aad))
}

// Open returns what Seal was given. Its error is ErrUnsealed.
func (s *Sealer) Open(sealed string) ([]byte, error) {
	if len(sealed) > maxSealed {
		return nil, ErrUnsealed
	}
	raw, err := tokenBase64.DecodeString(sealed)
	if err != nil || len(raw) < 1+s.aead.NonceSize() || raw[0] != sealVersion {
		return nil, ErrUnsealed
	}
	nonce, box := raw[1:1+s.aead.NonceSize()], raw[1+s.aead.NonceSize():]
	plain, err := s.aead.Open(nil, nonce, box, s.aad)
	if err != nil {
		return nil, ErrUnsealed
	}
	return plain, nil
}
