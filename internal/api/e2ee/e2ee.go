// Package e2ee serves what end-to-end encryption needs of a server: keys of
// devices, one-time keys, cross-signing, messages to devices, key backup.
// spec: client-server §End-to-End Encryption, §Send-to-Device messaging,
// §Server-side key backups.
//
// The server never sees a secret: it keeps what clients have signed, hands each one-time key
// out once, and tells whose keys changed. What is written is the caller's own, and what is
// read of others is what they have published. Commands of internal/account
// decide; the handlers here read requests and write answers.
//
// A Module keeps nothing between requests and may be used from any goroutine.
package e2ee

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/hubbub-chat/hubbub/internal/account"
	"github.com/hubbub-chat/hubbub/internal/api"
	"github.com/hubbub-chat/hubbub/internal/feed"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/merr"
	"github.com/hubbub-chat/hubbub/internal/partition"
)

// Bodies: clients upload up to 100 one-time keys, or 200 backed-up ones of about
// one KiB, at a time.
const (
	maxKeysBody   = 1 << 20
	maxBackupBody = 4 << 20
)

// DeviceLists tells whose keys changed. *feed.Hub is one.
type DeviceLists interface {
	ParseSince(token string) (*feed.Position, error)
	DeviceLists(ctx context.Context, user ids.UserID, since *feed.Position) (changed, left []ids.UserID, err error)
}

var _ DeviceLists = (*feed.Hub)(nil)

// Deps are what the module stands on.
type Deps struct {
	Server   string // the server name
	Router   partition.Router
	Accounts *account.Reader
	Feed     DeviceLists
	// Prover asks for proof that the caller is the owner of the account.
	Prover Prover
}

// Prover asks who calls for proof that they are the owner of the account.
type Prover interface {
	// Prove returns nil if the request is authenticated for an operation, else
	// what to answer. a is the member "auth" of the body.
	Prove(r *api.Request, operation string, a jsontext.Value) error
}

// Module holds the handlers.
type Module struct {
	Deps
}

// New returns the module.
func New(d Deps) *Module { return &Module{d} }

const (
	v3       = "/_matrix/client/v3"
	unstable = "/_matrix/client/unstable"
)

const get, post, put, del = http.MethodGet, http.MethodPost, http.MethodPut, http.MethodDelete

// Routes are the routes of the module. Which of them guests may call: spec:
// client-server §Guest Access.
func (m *Module) Routes() []api.Route {
	keys := []api.Route{
		{Method: post, Path: v3 + "/keys/upload", Also: []string{v3 + "/keys/upload/{deviceId}"}, Op: "uploadKeys", Rate: api.RateWrite, MaxBody: maxKeysBody, Guest: true, Handle: m.upload},
		{Method: post, Path: v3 + "/keys/query", Op: "queryKeys", Rate: api.RateRead, MaxBody: maxKeysBody, Guest: true, Handle: m.query},
		{Method: post, Path: v3 + "/keys/claim", Op: "claimKeys", Rate: api.RateWrite, MaxBody: maxKeysBody, Guest: true, Handle: m.claim},
		{Method: get, Path: v3 + "/keys/changes", Op: "getKeysChanges", Rate: api.RateRead, Guest: true, Handle: m.changes},
		{
			Method: post, Path: v3 + "/keys/device_signing/upload", Also: []string{unstable + "/keys/device_signing/upload"},
			Op: "uploadCrossSigningKeys", Rate: api.RateWrite, Handle: m.uploadCrossSigning,
		},
		{
			Method: post, Path: v3 + "/keys/signatures/upload", Also: []string{unstable + "/keys/signatures/upload"},
			Op: "uploadCrossSigningSignatures", Rate: api.RateWrite, MaxBody: maxKeysBody, Handle: m.uploadSignatures,
		},
		{Method: put, Path: v3 + "/sendToDevice/{eventType}/{txnId}", Op: "sendToDevice", Rate: api.RateSend, MaxBody: maxKeysBody, Guest: true, Handle: m.sendToDevice},
	}
	all := append(keys, m.backupRoutes()...)
	all = append(all, m.dehydratedRoutes()...)
	for i := range all {
		all[i].Auth = api.AuthUser
	}
	return all
}

// absent reports whether a member was not sent, or is null.
func absent(v jsontext.Value) bool { return v.Kind() == 0 || v.Kind() == 'n' }

type member struct {
	name  string
	value jsontext.Value
}

// members returns the members of an object in the order in which they were sent,
// without white space; none if it is absent. name is what an error calls it.
func members(name string, v jsontext.Value) ([]member, error) {
	if absent(v) {
		return nil, nil
	}
	if v.Kind() != '{' {
		return nil, merr.BadJSONErr("%s is not an object", name)
	}
	d := jsontext.NewDecoder(bytes.NewReader(v))
	if _, err := d.ReadToken(); err != nil {
		return nil, merr.BadJSONErr("%s is not an object", name).Because(err)
	}
	var out []member
	for d.PeekKind() != '}' {
		key, err := d.ReadToken()
		if err != nil {
			return nil, merr.BadJSONErr("%s is not an object", name).Because(err)
		}
		k := key.String()
		raw, err := d.ReadValue()
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, merr.BadJSONErr("%s is not an object", name).Because(err)
		}
		value := raw.Clone()
		if err := value.Compact(); err != nil {
			return nil, merr.BadJSONErr("%s is not an object", name).Because(err)
		}
		out = append(out, member{k, value})
	}
	return out, nil
}

// userOf checks a user ID that is a member's name.
func userOf(name string) (ids.UserID, error) {
	user, err := ids.ParseUserID(name)
	if err != nil {
		return "", merr.InvalidParamErr("%q is not a user ID", name).Because(err)
	}
	return user, nil
}
