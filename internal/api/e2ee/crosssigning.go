package e2ee

import (
	"errors"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/hubbub-chat/hubbub/internal/account"
	"github.com/hubbub-chat/hubbub/internal/api"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/merr"
	"github.com/hubbub-chat/hubbub/internal/partition"
)

// uploadCrossSigning: spec client-server §POST /keys/device_signing/upload. The first
// keys, and the same keys again, need no proof; to replace keys does, or whoever
// finds an unlocked device could pass for its owner for ever.
func (m *Module) uploadCrossSigning(r *api.Request) (any, error) {
	var req struct {
		Auth        jsontext.Value `json:"auth"`
		Master      jsontext.Value `json:"master_key"`
		SelfSigning jsontext.Value `json:"self_signing_key"`
		UserSigning jsontext.Value `json:"user_signing_key"`
	}
	if err := api.DecodeBody(r, &req); err != nil {
		return nil, err
	}
	var keys account.CrossSigning
	for _, k := range []struct {
		usage string
		raw   jsontext.Value
		to    *jsontext.Value
	}{
		{account.UsageMaster, req.Master, &keys.Master},
		{account.UsageSelfSigning, req.SelfSigning, &keys.SelfSigning},
		{account.UsageUserSigning, req.UserSigning, &keys.UserSigning},
	} {
		if absent(k.raw) {
			continue
		}
		if err := account.CheckCrossSigningKey(r.Caller.User, k.usage, k.raw); err != nil {
			return nil, err
		}
		*k.to = k.raw
	}
	_, err := m.Router.Do(r.Context, account.NewSetCrossSigning(r.Caller.User, keys, false))
	if !errors.Is(err, account.ErrProof) {
		return api.Empty, err
	}
	if err := m.Prover.Prove(r, "POST /keys/device_signing/upload", req.Auth); err != nil {
		return nil, err
	}
	_, err = m.Router.Do(r.Context, account.NewSetCrossSigning(r.Caller.User, keys, true))
	return api.Empty, err
}

// uploadSignatures: spec client-server §POST /keys/signatures/upload.
func (m *Module) uploadSignatures(r *api.Request) (any, error) {
	var req map[string]map[string]jsontext.Value
	if err := api.DecodeBody(r, &req); err != nil {
		return nil, err
	}
	var items []account.Signed
	for name, keys := range req {
		owner, err := userOf(name)
		if err != nil {
			return nil, err
		}
		for key, object := range keys {
			switch {
			case object.Kind() != '{':
				return nil, merr.BadJSONErr("The key %s is not an object", key)
			case len(object) > account.MaxKeyBytes:
				return nil, merr.TooLargeErr("A key is larger than %d bytes", account.MaxKeyBytes)
			}
			items = append(items, account.Signed{Owner: owner, Key: key, Object: object})
		}
	}
	if len(items) > account.MaxSigned {
		return nil, merr.InvalidParamErr("There are more than %d keys", account.MaxSigned)
	}
	refused, err := partition.Do[map[int]*merr.Error](r.Context, m.Router, account.NewSignKeys(r.Caller.User, items))
	if err != nil {
		return nil, err
	}
	failures := make(map[ids.UserID]map[string]*failure)
	for i, e := range refused {
		it := items[i]
		if failures[it.Owner] == nil {
			failures[it.Owner] = make(map[string]*failure)
		}
		failures[it.Owner][it.Key] = &failure{e.Code, e.Msg}
	}
	return map[string]any{"failures": failures}, nil
}

type failure struct {
	Code  merr.Code `json:"errcode"`
	Error string    `json:"error"`
}
