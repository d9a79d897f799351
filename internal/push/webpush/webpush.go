// Package webpush makes what a push service of a browser is sent: the encrypted body
// and the proof of who sends it. It does no I/O.
// spec: RFC 8291 (encryption), RFC 8188 (its form), RFC 8292 (VAPID).
//
// # Invariants
//
//   - A salt and a key pair are used for one message.
//   - Neither the private key nor what a subscription keeps secret is in an error.
package webpush

import (
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/asn1"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"time"
)

const (
	saltBytes  = 16
	keyBytes   = 16 // AES-128
	nonceBytes = 12
	tagBytes   = 16
	scalar     = 32 // of P-256
	// recordSize is the size of the only record. Every push service takes a body of
	// that many bytes. spec: RFC 8030 §7.2.
	recordSize = 4096
	headBytes  = saltBytes + 4 + 1 + 65
	// padTo hides the exact length of what is said: bodies have few different lengths.
	padTo = 128
	// lastRecord is the delimiter behind what is said. spec: RFC 8188 §2.
	lastRecord = 2

	// MaxMessage is the longest message.
	MaxMessage = recordSize - headBytes - tagBytes - 1

	// tokenStep and tokenLife: a proof is the same for an hour, and good for half a day
	// from then on. spec: RFC 8292 §2, which allows a day.
	tokenStep = time.Hour
	tokenLife = 12 * time.Hour
)

// Subscription is where and for whom a browser takes messages.
type Subscription struct {
	key  *ecdh.PublicKey
	auth []byte
}

// ErrSubscription says that there is no such subscription.
var ErrSubscription = errors.New("webpush: not the keys of a subscription")

// NewSubscription reads the keys that a browser gives, in base64url without padding: its
// public key, uncompressed, and its secret of 16 bytes. spec: RFC 8291 §3.1, §3.2.
func NewSubscription(p256dh, auth string) (*Subscription, error) {
	raw, err := base64.RawURLEncoding.DecodeString(p256dh)
	if err != nil {
		return nil, ErrSubscription
	}
	key, err := ecdh.P256().NewPublicKey(raw)
	if err != nil {
		return nil, ErrSubscription
	}
	secret, err := base64.RawURLEncoding.DecodeString(auth)
	if err != nil || len(secret) != saltBytes {
		return nil, ErrSubscription
	}
	return &Subscription{key, secret}, nil
}

// Encrypt returns the body of a push message, of at most 4096 bytes. Its
// Content-Encoding is aes128gcm.
func (s *Subscription) Encrypt(message []byte) ([]byte, error) {
	if len(message) > MaxMessage {
		return nil, fmt.Errorf("webpush: a message of %d bytes, and %d fit", len(message), MaxMessage)
	}
	ours, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("webpush: %w", err)
	}
	salt := make([]byte, saltBytes)
	_, _ = rand.Read(salt) // never fails
	padded := (len(message) + padTo - 1) / padTo * padTo
	return s.seal(message, min(padded, MaxMessage)-len(message), ours, salt)
}

// seal encrypts with a key pair and a salt.
func (s *Subscription) seal(message []byte, padding int, ours *ecdh.PrivateKey, salt []byte) ([]byte, error) {
	key, nonce, err := s.derive(ours, salt)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("webpush: %w", err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, fmt.Errorf("webpush: %w", err)
	}
	public := ours.PublicKey().Bytes()
	out := make([]byte, 0, headBytes+len(message)+1+padding+tagBytes)
	out = append(out, salt...)
	out = binary.BigEndian.AppendUint32(out, recordSize)
	out = append(out, byte(len(public)))
	out = append(out, public...)
	plain := append(append(make([]byte, 0, len(message)+1+padding), message...), lastRecord)
	return aead.Seal(out, nonce, append(plain, make([]byte, padding)...), nil), nil
}

// derive returns the key and the nonce of a message. spec: RFC 8291 §3.4.
func (s *Subscription) derive(ours *ecdh.PrivateKey, salt []byte) (key, nonce []byte, err error) {
	shared, err := ours.ECDH(s.key)
	if err != nil {
		return nil, nil, fmt.Errorf("webpush: %w", err)
	}
	info := "WebPush: info\x00" + string(s.key.Bytes()) + string(ours.PublicKey().Bytes())
	ikm, err := hkdf.Key(sha256.New, shared, s.auth, info, sha256.Size)
	if err != nil {
		return nil, nil, fmt.Errorf("webpush: %w", err)
	}
	if key, err = hkdf.Key(sha256.New, ikm, salt, "Content-Encoding: aes128gcm\x00", keyBytes); err != nil {
		return nil, nil, fmt.Errorf("webpush: %w", err)
	}
	if nonce, err = hkdf.Key(sha256.New, ikm, salt, "Content-Encoding: nonce\x00", nonceBytes); err != nil {
		return nil, nil, fmt.Errorf("webpush: %w", err)
	}
	return key, nonce, nil
}

// Key is the key by which push services know this server. Browsers subscribe with its
// public part, and take messages from nobody else.
type Key struct {
	private *ecdsa.PrivateKey
	public  string
}

// NewKey returns a new private key, as it is kept.
func NewKey() ([]byte, error) {
	k, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("webpush: %w", err)
	}
	return k.Bytes(), nil
}

// ParseKey reads a private key.
func ParseKey(raw []byte) (*Key, error) {
	k, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), raw)
	if err != nil {
		return nil, errors.New("webpush: not a private key") // the cause may quote it
	}
	public, err := k.PublicKey.Bytes()
	if err != nil {
		return nil, fmt.Errorf("webpush: %w", err)
	}
	return &Key{k, base64.RawURLEncoding.EncodeToString(public)}, nil
}

// Public is the public key, uncompressed, in base64url without padding.
func (k *Key) Public() string { return k.public }

// Authorization is the header that proves to the push service of an origin who sends.
// contact, a mailto: or https: URL, is whom the service may turn to. The header is the
// same within an hour, as services would have it. spec: RFC 8292 §2, §3.
func (k *Key) Authorization(origin, contact string, now time.Time) (string, error) {
	claims, err := json.Marshal(struct {
		Audience string `json:"aud"`
		Expires  int64  `json:"exp"`
		Subject  string `json:"sub"`
	}{origin, now.Truncate(tokenStep).Add(tokenLife).Unix(), contact})
	if err != nil {
		return "", fmt.Errorf("webpush: %w", err)
	}
	enc := base64.RawURLEncoding.EncodeToString
	text := enc([]byte(`{"typ":"JWT","alg":"ES256"}`)) + "." + enc(claims)
	signature, err := k.sign(text)
	if err != nil {
		return "", err
	}
	return strings.Join([]string{"vapid t=", text, ".", enc(signature), ", k=", k.public}, ""), nil
}

// sign signs as ES256 wants it: the two numbers one behind the other. spec: RFC 7518 §3.4.
func (k *Key) sign(text string) ([]byte, error) {
	sum := sha256.Sum256([]byte(text))
	der, err := k.private.Sign(nil, sum[:], crypto.SHA256) // without chance, RFC 6979
	if err != nil {
		return nil, fmt.Errorf("webpush: %w", err)
	}
	var n struct{ R, S *big.Int }
	if _, err := asn1.Unmarshal(der, &n); err != nil {
		return nil, fmt.Errorf("webpush: %w", err)
	}
	out := make([]byte, 2*scalar)
	n.R.FillBytes(out[:scalar])
	n.S.FillBytes(out[scalar:])
	return out, nil
}
