// Package blob defines where the bytes of media are kept: large values under
// keys that are written once and never changed.
//
// A key is given out once and not used again after its removal. That is what
// makes everything above simple: a value can be cached for ever, a removal can be
// repeated, and no reader can see bytes that were not meant. The suite in
// blobtest is the definition of correct; every backend passes it.
//
// All methods are safe for concurrent use.
package blob

import (
	"context"
	"errors"
	"io"
	"strings"
)

// Errors that callers distinguish with errors.Is.
var (
	// ErrNotFound: there is nothing under the key.
	ErrNotFound = errors.New("blob: not found")
	// ErrKey: the key has a form that no backend takes.
	ErrKey = errors.New("blob: invalid key")
	// ErrFull: there is no room for the value.
	ErrFull = errors.New("blob: no space left")
	// ErrAway: what keeps the values does not answer, or says that it cannot now.
	ErrAway = errors.New("blob: the store is away")
	// ErrShort: the reader ended before, or went on after, the size that was given.
	ErrShort = errors.New("blob: not as long as announced")
)

// MaxKey bounds a key in bytes: what file systems take as one path, and S3 as one key.
const MaxKey = 200

// Store keeps values.
type Store interface {
	// Put stores the size bytes of r under key. The value is durable when it
	// returns, and appears whole or not at all. After an error the outcome may be
	// either; the caller removes the key.
	Put(ctx context.Context, key string, r io.Reader, size int64) error
	// Open returns a value, or ErrNotFound. ctx is that of the reads too. A value
	// that is deleted while it is read may end in an error, never in other bytes.
	Open(ctx context.Context, key string) (Object, error)
	// Delete removes values, durably; those that are not there are passed over.
	Delete(ctx context.Context, keys ...string) error
	// Close releases what the store holds. Nothing may run any more.
	Close() error
}

// Object is an open value. It stands at its beginning. It is for one goroutine.
type Object interface {
	io.ReadSeekCloser
	// Size is the length of the value in bytes.
	Size() int64
}

// CheckKey reports whether a key has the form that every backend takes: parts of
// letters, digits, '.', '-' and '_', joined by slashes, none beginning with a dot.
func CheckKey(key string) error {
	if key == "" || len(key) > MaxKey {
		return ErrKey
	}
	for part := range strings.SplitSeq(key, "/") {
		if part == "" || part[0] == '.' {
			return ErrKey
		}
		for _, c := range []byte(part) {
			switch {
			case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '.', c == '-', c == '_':
			default:
				return ErrKey
			}
		}
	}
	return nil
}
