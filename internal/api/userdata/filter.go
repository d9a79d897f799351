package userdata

import (
	"crypto/sha256"
	"encoding/base64"
	"net/http"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/hubbub-chat/hubbub/internal/account"
	"github.com/hubbub-chat/hubbub/internal/api"
	"github.com/hubbub-chat/hubbub/internal/feed"
	"github.com/hubbub-chat/hubbub/internal/merr"
)

// filterHashBytes is how much of a filter's hash its ID holds: enough that two
// filters of one user never share it, also if somebody tries.
const filterHashBytes = 18

// putFilter: spec client-server §POST /user/{userId}/filter. A filter's ID is its
// hash, so that clients which upload theirs at every start keep one row.
func (m *Module) putFilter(r *api.Request) (any, error) {
	user, _, err := owner(r)
	if err != nil {
		return nil, err
	}
	raw := jsontext.Value(r.Body).Clone()
	if len(raw) == 0 {
		raw = jsontext.Value("{}")
	}
	if _, err := feed.ParseFilter(raw); err != nil {
		return nil, err
	}
	if err := raw.Canonicalize(); err != nil {
		return nil, merr.New(http.StatusBadRequest, merr.NotJSON, "Not valid JSON").Because(err)
	}
	id := filterID(raw)
	if _, err := m.Router.Do(r.Context, account.NewPutFilter(user, id, raw)); err != nil {
		return nil, err
	}
	return map[string]string{"filter_id": id}, nil
}

// filterID is base64url, which has no brace that would make it look like JSON.
func filterID(canonical []byte) string {
	sum := sha256.Sum256(canonical)
	return base64.RawURLEncoding.EncodeToString(sum[:filterHashBytes])
}

// filter: spec client-server §GET /user/{userId}/filter/{filterId}.
func (m *Module) filter(r *api.Request) (any, error) {
	user, _, err := owner(r)
	if err != nil {
		return nil, err
	}
	raw, err := m.Accounts.Filter(r.Context, user, r.Param("filterId"))
	if err != nil {
		return nil, err
	}
	if raw == nil {
		return nil, merr.NotFoundErr("No such filter")
	}
	return raw, nil
}
