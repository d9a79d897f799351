package e2ee

import (
	"errors"
	"sync"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/hubbub-chat/hubbub/internal/account"
	"github.com/hubbub-chat/hubbub/internal/api"
	"github.com/hubbub-chat/hubbub/internal/feed"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/merr"
	"github.com/hubbub-chat/hubbub/internal/partition"
)

// claimsAtOnce is how many users' keys one request claims side by side: each waits
// for a commit.
const claimsAtOnce = 16

// upload: spec client-server §POST /keys/upload.
func (m *Module) upload(r *api.Request) (any, error) {
	var req struct {
		DeviceKeys jsontext.Value `json:"device_keys"`
		OneTime    jsontext.Value `json:"one_time_keys"`
		Fallback   jsontext.Value `json:"fallback_keys"`
	}
	if err := api.DecodeBody(r, &req); err != nil {
		return nil, err
	}
	if r.Caller.Device == "" {
		// spec: application-service §Identity assertion, without a device_id.
		return nil, merr.InvalidParamErr("Keys are those of a device; act as one with device_id")
	}
	if d := r.Param("deviceId"); d != "" && d != string(r.Caller.Device) {
		return nil, merr.InvalidParamErr("Keys are uploaded for the device of the access token")
	}
	var deviceKeys jsontext.Value
	if !absent(req.DeviceKeys) {
		var err error
		if deviceKeys, err = account.CheckDeviceKeys(r.Caller.User, r.Caller.Device, req.DeviceKeys); err != nil {
			return nil, err
		}
	}
	oneTime, fallback, err := forClaims(req.OneTime, req.Fallback)
	if err != nil {
		return nil, err
	}
	cmd := account.NewUploadKeys(r.Caller.User, r.Caller.Device, deviceKeys, oneTime, fallback)
	counts, err := partition.Do[map[string]int](r.Context, m.Router, cmd)
	if err != nil {
		return nil, err
	}
	return map[string]any{"one_time_key_counts": counts}, nil
}

// forClaims reads the keys that others may claim.
func forClaims(oneTimeKeys, fallbackKeys jsontext.Value) (oneTime, fallback []account.OneTimeKey, err error) {
	if oneTime, err = keyList("one_time_keys", oneTimeKeys); err != nil {
		return nil, nil, err
	}
	if fallback, err = keyList("fallback_keys", fallbackKeys); err != nil {
		return nil, nil, err
	}
	seen := make(map[string]bool)
	for _, k := range fallback {
		if seen[k.Algorithm] {
			return nil, nil, merr.InvalidParamErr("There is more than one fallback key of the algorithm %s", k.Algorithm)
		}
		seen[k.Algorithm] = true
	}
	return oneTime, fallback, nil
}

// keyList reads one-time or fallback keys, in the order in which they were sent.
func keyList(name string, v jsontext.Value) ([]account.OneTimeKey, error) {
	list, err := members(name, v)
	if err != nil {
		return nil, err
	}
	out := make([]account.OneTimeKey, len(list))
	for i, k := range list {
		out[i] = account.OneTimeKey{ID: k.name, Key: k.value}
		if err := out[i].Check(); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// query: spec client-server §POST /keys/query.
func (m *Module) query(r *api.Request) (any, error) {
	var req struct {
		DeviceKeys map[string][]ids.DeviceID `json:"device_keys"`
		Timeout    *int64                    `json:"timeout"`
	}
	if err := api.DecodeBody(r, &req); err != nil {
		return nil, err
	}
	if req.DeviceKeys == nil {
		return nil, api.Missing("device_keys")
	}
	out := struct {
		DeviceKeys  map[ids.UserID]map[ids.DeviceID]jsontext.Value `json:"device_keys"`
		Master      map[ids.UserID]jsontext.Value                  `json:"master_keys"`
		SelfSigning map[ids.UserID]jsontext.Value                  `json:"self_signing_keys"`
		UserSigning map[ids.UserID]jsontext.Value                  `json:"user_signing_keys"`
		Failures    struct{}                                       `json:"failures"`
	}{
		DeviceKeys: make(map[ids.UserID]map[ids.DeviceID]jsontext.Value, len(req.DeviceKeys)),
		Master:     map[ids.UserID]jsontext.Value{}, SelfSigning: map[ids.UserID]jsontext.Value{},
		UserSigning: map[ids.UserID]jsontext.Value{},
	}
	for name, devices := range req.DeviceKeys {
		user, err := userOf(name)
		if err != nil {
			return nil, err
		}
		k, err := m.Accounts.Keys(r.Context, r.Caller.User, user, devices)
		if err != nil {
			return nil, err
		}
		out.DeviceKeys[user] = k.Devices
		set(out.Master, user, k.Master)
		set(out.SelfSigning, user, k.SelfSigning)
		set(out.UserSigning, user, k.UserSigning)
	}
	return out, nil
}

func set(to map[ids.UserID]jsontext.Value, user ids.UserID, key jsontext.Value) {
	if key != nil {
		to[user] = key
	}
}

// claim: spec client-server §POST /keys/claim.
func (m *Module) claim(r *api.Request) (any, error) {
	var req struct {
		OneTime map[string]map[ids.DeviceID]string `json:"one_time_keys"`
		Timeout *int64                             `json:"timeout"`
	}
	if err := api.DecodeBody(r, &req); err != nil {
		return nil, err
	}
	if req.OneTime == nil {
		return nil, api.Missing("one_time_keys")
	}
	wants := make(map[ids.UserID][]account.Want, len(req.OneTime))
	for name, devices := range req.OneTime {
		user, err := userOf(name)
		if err != nil {
			return nil, err
		}
		for d, algorithm := range devices {
			wants[user] = append(wants[user], account.Want{Device: d, Algorithm: algorithm})
		}
	}
	claimed, err := m.claimAll(r, wants)
	if err != nil {
		return nil, err
	}
	return map[string]any{"one_time_keys": claimed, "failures": struct{}{}}, nil
}

type claimed map[ids.UserID]map[ids.DeviceID]map[string]jsontext.Value

// claimAll claims the keys of several users. If one fails all does: what was
// claimed is lost then, which the specification allows, and nothing is claimed twice.
func (m *Module) claimAll(r *api.Request, wants map[ids.UserID][]account.Want) (claimed, error) {
	var (
		wg    sync.WaitGroup
		mu    sync.Mutex
		out   = make(claimed, len(wants))
		fails []error
		place = make(chan struct{}, claimsAtOnce)
	)
	for user, list := range wants {
		place <- struct{}{}
		wg.Go(func() {
			defer func() { <-place }()
			keys, err := partition.Do[map[ids.DeviceID]account.OneTimeKey](r.Context, m.Router, account.NewClaimKeys(user, list))
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				fails = append(fails, err)
				return
			}
			for d, k := range keys {
				if out[user] == nil {
					out[user] = make(map[ids.DeviceID]map[string]jsontext.Value)
				}
				out[user][d] = map[string]jsontext.Value{k.ID: k.Key}
			}
		})
	}
	wg.Wait()
	return out, errors.Join(fails...)
}

// changes: spec client-server §GET /keys/changes. The answer reaches up to now,
// whatever to says: a client that goes on from there only hears of a change twice.
func (m *Module) changes(r *api.Request) (any, error) {
	for _, name := range []string{"from", "to"} {
		if r.Query.Get(name) == "" {
			return nil, api.Missing(name)
		}
	}
	if _, err := m.Feed.ParseSince(r.Query.Get("to")); err != nil {
		return nil, err
	}
	from, err := m.Feed.ParseSince(r.Query.Get("from"))
	if err != nil {
		return nil, err
	}
	changed, left, err := m.Feed.DeviceLists(r.Context, r.Caller.User, from)
	switch {
	case errors.Is(err, feed.ErrUnknownPosition):
		return nil, merr.InvalidParamErr("Unknown token").Because(err)
	case err != nil:
		return nil, err
	}
	return map[string][]ids.UserID{"changed": list(changed), "left": list(left)}, nil
}

// list is never null in JSON.
func list(users []ids.UserID) []ids.UserID {
	if users == nil {
		return []ids.UserID{}
	}
	return users
}
