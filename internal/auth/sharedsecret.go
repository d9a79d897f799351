package auth

import (
	"crypto/hmac"
	"crypto/sha1"
	"encoding/binary"
	"encoding/hex"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/hubbub-chat/hubbub/internal/clock"
	"github.com/hubbub-chat/hubbub/internal/merr"
)

const (
	// nonceLife is how long a registration nonce may be used, as tools expect.
	nonceLife = time.Minute
	// nonceBytes makes nonces unique.
	nonceBytes = 16
	// maxUsedNonces bounds the memory for nonces that were used and could be presented
	// again. Only who knows the shared secret adds to them.
	maxUsedNonces = 10_000
)

// SharedSecret checks registrations that are authorized by a secret that the
// administrator shares with tools: POST /_synapse/admin/v1/register.
//
// The nonce is a sealed box with its time, so that one node can issue it and
// another take it. A used nonce is remembered by the node that took it, until it
// expires. The same request on another node within that minute gets as far as the
// user name, which is taken; so the code does not order nodes for it.
type SharedSecret struct {
	secret []byte
	sealer *Sealer
	clock  clock.Clock

	mu struct {
		sync.Mutex
		used map[[nonceBytes]byte]time.Time // until when it is worth remembering
	}
}

// NewSharedSecret returns the check for a secret, which must not be empty.
func NewSharedSecret(secret string, s *Secrets, c clock.Clock) *SharedSecret {
	if secret == "" {
		panic("auth: empty registration secret")
	}
	r := &SharedSecret{secret: []byte(secret), sealer: NewSealer(s, purposeNonce), clock: c}
	r.mu.used = make(map[[nonceBytes]byte]time.Time)
	return r
}

// SharedSecretRequest is what is signed, and the signature in hexadecimal.
type SharedSecretRequest struct {
	Nonce    string
	Username string
	Password string
	Admin    bool
	UserType string // "" for an ordinary user
	MAC      string
}

// Nonce returns a nonce for one registration within the next minute.
func (r *SharedSecret) Nonce() string {
	plain := binary.BigEndian.AppendUint64(nil, uint64(r.clock.Now().UnixMilli()))
	return r.sealer.Seal(append(plain, randomBytes(nonceBytes)...))
}

// Verify checks a registration and uses up its nonce if it is right. Errors are 400
// M_UNKNOWN for a nonce that is unknown, expired or used, 400 M_INVALID_PARAM for
// NUL in a name or password, 403 M_FORBIDDEN for a wrong MAC, 429 if too many
// registrations come at once.
func (r *SharedSecret) Verify(q SharedSecretRequest) error {
	plain, err := r.sealer.Open(q.Nonce)
	if err != nil || len(plain) != 8+nonceBytes {
		return errNonce()
	}
	now := r.clock.Now()
	created := time.UnixMilli(int64(binary.BigEndian.Uint64(plain)))
	if age := now.Sub(created); age > nonceLife || age < -maxSkew {
		return errNonce()
	}
	if strings.Contains(q.Username+q.Password+q.UserType, "\x00") {
		return merr.InvalidParamErr("The username or password is malformed")
	}
	mac, err := hex.DecodeString(q.MAC)
	if err != nil || !hmac.Equal(mac, r.sign(q)) {
		return merr.ForbiddenErr("HMAC incorrect")
	}
	return r.use([nonceBytes]byte(plain[8:]), created.Add(nonceLife), now)
}

// sign returns HMAC-SHA1 over the fields with NUL between them: the protocol of
// existing tools. The weakness of SHA-1 does not touch HMAC.
func (r *SharedSecret) sign(q SharedSecretRequest) []byte {
	admin := "notadmin"
	if q.Admin {
		admin = "admin"
	}
	fields := []string{q.Nonce, q.Username, q.Password, admin}
	if q.UserType != "" {
		fields = append(fields, q.UserType)
	}
	h := hmac.New(sha1.New, r.secret)
	h.Write([]byte(strings.Join(fields, "\x00")))
	return h.Sum(nil)
}

// use remembers a nonce, or refuses it if it is remembered.
func (r *SharedSecret) use(nonce [nonceBytes]byte, until, now time.Time) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.mu.used[nonce]; ok {
		return errNonce()
	}
	if len(r.mu.used) >= maxUsedNonces {
		for n, t := range r.mu.used {
			if t.Before(now) {
				delete(r.mu.used, n)
			}
		}
	}
	if len(r.mu.used) >= maxUsedNonces {
		return merr.LimitedErr(nonceLife)
	}
	r.mu.used[nonce] = until
	return nil
}

func errNonce() error {
	return merr.New(http.StatusBadRequest, merr.Unknown, "Unrecognised nonce")
}
