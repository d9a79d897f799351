package auth

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/argon2"

	"github.com/hubbub-chat/hubbub/internal/merr"
)

// MaxPasswordBytes is the longest password. The hash costs time for each byte of
// it, and what people and password managers make is far shorter.
const MaxPasswordBytes = 512

// Params are the costs of argon2id. They are written into each hash, so that they
// can change while old hashes still verify.
type Params struct {
	MemoryKiB   uint32
	Iterations  uint32
	Parallelism uint8
}

// DefaultParams returns the costs for production: 19 MiB, two passes, one lane, one
// of the settings that OWASP calls equal in strength and the one whose memory allows
// many at once. That is about 16 ms of one core: slow for a guesser, bearable in a
// burst of logins.
func DefaultParams() Params { return Params{MemoryKiB: 19 << 10, Iterations: 2, Parallelism: 1} }

// CheapParams returns costs for tests, where accounts are made by the thousand. They
// protect nothing.
func CheapParams() Params { return Params{MemoryKiB: 64, Iterations: 1, Parallelism: 1} }

const (
	saltBytes = 16 // RFC 9106 §3.1
	keyBytes  = 32
	// maxMemoryKiB and maxIterations bound what a damaged hash can make the server do.
	maxMemoryKiB  = 256 << 10
	maxIterations = 16
	// waitingPerHash is how many callers may wait for each one that hashes: about a
	// second at the default costs. A client that waits longer has given up.
	waitingPerHash = 64
	// busyRetry is what callers are told who find the queue full.
	busyRetry = 2 * time.Second
)

// ErrMalformedHash says that a stored password hash cannot be read.
var ErrMalformedHash = errors.New("malformed password hash")

// Hasher hashes and checks passwords. At most as many hashes as there are processors
// run at once, because each holds Params.MemoryKiB; some callers wait for their
// turn until their context ends, and any beyond are refused at once with 429
// M_LIMIT_EXCEEDED. A flood of logins therefore costs a known amount of memory.
type Hasher struct {
	params     Params
	slots      chan struct{}
	waiting    atomic.Int64
	maxWaiting int64
	hashes     atomic.Int64
	dummy      string
}

// NewHasher returns a hasher that makes new hashes with the given costs.
func NewHasher(p Params) *Hasher { return newHasher(p, runtime.GOMAXPROCS(0)) }

func newHasher(p Params, concurrency int) *Hasher {
	h := &Hasher{
		params:     p,
		slots:      make(chan struct{}, concurrency),
		maxWaiting: int64(concurrency) * waitingPerHash,
	}
	// Random bytes in place of a key: no password has this hash.
	h.dummy = encodeHash(p, randomBytes(saltBytes), randomBytes(keyBytes))
	return h
}

// Hash returns the hash of a password in PHC string format, to be stored. Its errors
// are 400 for a password that is too long, 429, and the context's.
func (h *Hasher) Hash(ctx context.Context, password string) (string, error) {
	salt := randomBytes(saltBytes)
	key, err := h.derive(ctx, h.params, password, salt, keyBytes)
	if err != nil {
		return "", err
	}
	return encodeHash(h.params, salt, key), nil
}

// Verify reports whether hash is of password. Its errors are those of Hash, and
// ErrMalformedHash.
func (h *Hasher) Verify(ctx context.Context, password, hash string) (bool, error) {
	params, salt, want, err := decodeHash(hash)
	if err != nil {
		return false, err
	}
	have, err := h.derive(ctx, params, password, salt, len(want))
	if err != nil {
		return false, err
	}
	return subtle.ConstantTimeCompare(have, want) == 1, nil
}

// VerifyMissing does the work of Verify for an account that does not exist or has
// no password, so that the time of the answer tells nobody which accounts exist.
// Its errors are those of Hash.
func (h *Hasher) VerifyMissing(ctx context.Context, password string) error {
	_, err := h.Verify(ctx, password, h.dummy)
	return err
}

// Hashes is how many hashes were computed.
func (h *Hasher) Hashes() int64 { return h.hashes.Load() }

// CheckHash says whether a text is a hash that Verify can compare with, or
// ErrMalformedHash.
func CheckHash(hash string) error {
	_, _, _, err := decodeHash(hash)
	return err
}

// NeedsRehash reports whether a hash was made with other costs than new ones are. The
// caller, who has just verified the password, should store a new hash.
func (h *Hasher) NeedsRehash(hash string) bool {
	params, salt, key, err := decodeHash(hash)
	return err != nil || params != h.params || len(salt) != saltBytes || len(key) != keyBytes
}

// derive runs argon2id when it is the caller's turn.
func (h *Hasher) derive(ctx context.Context, p Params, password string, salt []byte, size int) ([]byte, error) {
	if err := checkPasswordLength(password); err != nil {
		return nil, err
	}
	if err := h.acquire(ctx); err != nil {
		return nil, err
	}
	defer func() { <-h.slots }()
	h.hashes.Add(1)
	return argon2.IDKey([]byte(password), salt, p.Iterations, p.MemoryKiB, p.Parallelism, uint32(size)), nil
}

func (h *Hasher) acquire(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("hash password: %w", err)
	}
	select {
	case h.slots <- struct{}{}:
		return nil
	default:
	}
	defer h.waiting.Add(-1)
	if h.waiting.Add(1) > h.maxWaiting {
		return merr.LimitedErr(busyRetry)
	}
	select {
	case h.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait to hash password: %w", ctx.Err())
	}
}

func checkPasswordLength(password string) error {
	if len(password) > MaxPasswordBytes {
		return merr.InvalidParamErr("A password may have %d bytes", MaxPasswordBytes)
	}
	return nil
}

// phcPrefix opens every hash: the algorithm and its version.
const phcPrefix = "$argon2id$v=19$"

// phcBase64 is the alphabet of the PHC string format, without padding.
var phcBase64 = base64.RawStdEncoding.Strict()

func encodeHash(p Params, salt, key []byte) string {
	return fmt.Sprintf("%sm=%d,t=%d,p=%d$%s$%s", phcPrefix, p.MemoryKiB, p.Iterations, p.Parallelism,
		phcBase64.EncodeToString(salt), phcBase64.EncodeToString(key))
}

func decodeHash(hash string) (p Params, salt, key []byte, err error) {
	rest, ok := strings.CutPrefix(hash, phcPrefix)
	parts := strings.Split(rest, "$")
	if !ok || len(parts) != 3 {
		return p, nil, nil, ErrMalformedHash
	}
	costs := strings.Split(parts[0], ",")
	if len(costs) != 3 {
		return p, nil, nil, ErrMalformedHash
	}
	memory, ok1 := cost(costs[0], "m=", maxMemoryKiB)
	iterations, ok2 := cost(costs[1], "t=", maxIterations)
	parallelism, ok3 := cost(costs[2], "p=", 255)
	if !ok1 || !ok2 || !ok3 {
		return p, nil, nil, ErrMalformedHash
	}
	p = Params{MemoryKiB: memory, Iterations: iterations, Parallelism: uint8(parallelism)}
	salt, err1 := phcBase64.DecodeString(parts[1])
	key, err2 := phcBase64.DecodeString(parts[2])
	if err1 != nil || err2 != nil || len(salt) < 8 || len(salt) > 64 || len(key) < 16 || len(key) > 64 {
		return p, nil, nil, ErrMalformedHash
	}
	return p, salt, key, nil
}

func cost(s, name string, most uint64) (uint32, bool) {
	digits, ok := strings.CutPrefix(s, name)
	n, err := strconv.ParseUint(digits, 10, 32)
	return uint32(n), ok && err == nil && n >= 1 && n <= most
}

// randomBytes returns n bytes of crypto/rand, which never fails.
func randomBytes(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}
