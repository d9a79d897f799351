package account

import (
	"net/http"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/hubbub-chat/hubbub/internal/damage"
	"github.com/hubbub-chat/hubbub/internal/merr"
	"github.com/hubbub-chat/hubbub/internal/storage"
)

// Tolerant returns a Reader whose lists, and account data, leave out the rows that
// cannot be read, and tells d of them. The others say who may do what (accounts,
// tokens, keys): what needs one of these that is damaged is refused.
func (r *Reader) Tolerant(d *damage.Log) *Reader {
	n := *r
	n.damaged = d.Row
	return &n
}

// errDamaged is what a row gives that is needed and cannot be read. It is no 5xx, which
// clients would repeat for ever.
func errDamaged(cause error) error {
	return merr.New(http.StatusConflict, merr.Unknown, "A part of this account cannot be read, so that this cannot be done. The server's log says which").
		Because(cause)
}

// unreadable deals with a damaged row: the error is nil if it is left out.
func (r *Reader) unreadable(k storage.Key, cause error) error {
	if r.damaged == nil {
		return errDamaged(cause)
	}
	r.damaged(k, cause)
	return nil
}

// listed decodes a row of a list; ok is false for one that is left out.
func listed(r *Reader, p Place, t storage.Table, e storage.Entry, v any) (ok bool, err error) {
	if err := decode(e.Value, v); err != nil {
		return false, r.unreadable(p.key(t, e.Sort), err)
	}
	return true, nil
}

// optional decodes a row that is absent as well as one that cannot be read: nothing is
// decided by it, or what is decided holds without.
func optional[T any](r *Reader, k storage.Key, row []byte) (*T, error) {
	v, err := decoded[T](k, row)
	if err != nil {
		return nil, r.unreadable(k, err)
	}
	return v, nil
}

// mendable is decoder for rows that the next command writes anew whatever they held. One
// that cannot be read counts as absent, or nothing would ever mend it, and what
// other partitions tell the user's would wait behind it for ever.
func mendable[T any](k storage.Key, row []byte) (any, error) {
	v, err := decoder[T](k, row)
	if err != nil {
		return (*T)(nil), nil
	}
	return v, nil
}

// isJSON reports whether what stands in a row, and is sent as it stands, is JSON.
func isJSON(row []byte) bool { return jsontext.Value(row).IsValid(jsontext.AllowInvalidUTF8(true)) }
