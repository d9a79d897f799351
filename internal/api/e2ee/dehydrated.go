package e2ee

import (
	"strconv"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/hubbub-chat/hubbub/internal/account"
	"github.com/hubbub-chat/hubbub/internal/api"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/merr"
	"github.com/hubbub-chat/hubbub/internal/partition"
)

const (
	// dehydratedPage is how many messages one answer holds, at 64 KiB each at most.
	dehydratedPage = 100
	// maxDehydratedID bounds the ID of a dehydrated device: it is a public key, of
	// 43 characters.
	maxDehydratedID = 255
	// allPositions is beyond every position of an inbox.
	allPositions ids.Seq = 1 << 62
)

func (m *Module) dehydratedRoutes() []api.Route {
	const path = unstable + "/org.matrix.msc3814.v1/dehydrated_device"
	return []api.Route{
		{Method: put, Path: path, Rate: api.RateWrite, MaxBody: maxKeysBody, Handle: m.putDehydrated},
		{Method: get, Path: path, Rate: api.RateRead, Handle: m.getDehydrated},
		{Method: del, Path: path, Rate: api.RateWrite, Handle: m.deleteDehydrated},
		{Method: post, Path: path + "/{deviceId}/events", Rate: api.RateRead, Handle: m.dehydratedEvents},
		{Method: get, Path: path + "/{deviceId}/events", Rate: api.RateRead, Handle: m.dehydratedEvents},
	}
}

// putDehydrated: spec MSC3814 §Dehydrating a device. The device comes with its
// keys, so that there is none that cannot decrypt.
func (m *Module) putDehydrated(r *api.Request) (any, error) {
	var req struct {
		Device      *ids.DeviceID  `json:"device_id"`
		Data        jsontext.Value `json:"device_data"`
		DisplayName string         `json:"initial_device_display_name"`
		DeviceKeys  jsontext.Value `json:"device_keys"`
		OneTime     jsontext.Value `json:"one_time_keys"`
		Fallback    jsontext.Value `json:"fallback_keys"`
	}
	if err := api.DecodeBody(r, &req); err != nil {
		return nil, err
	}
	switch {
	case req.Device == nil:
		return nil, api.Missing("device_id")
	case absent(req.Data):
		return nil, api.Missing("device_data")
	case absent(req.DeviceKeys):
		return nil, api.Missing("device_keys")
	}
	if err := checkDehydrated(*req.Device, req.DisplayName, req.Data); err != nil {
		return nil, err
	}
	keys, err := account.CheckDeviceKeys(r.Caller.User, *req.Device, req.DeviceKeys)
	if err != nil {
		return nil, err
	}
	oneTime, fallback, err := forClaims(req.OneTime, req.Fallback)
	if err != nil {
		return nil, err
	}
	upload := account.NewUploadKeys(r.Caller.User, *req.Device, keys, oneTime, fallback)
	if _, err := m.Router.Do(r.Context, account.NewSetDehydrated(req.Data, req.DisplayName, upload)); err != nil {
		return nil, err
	}
	return map[string]any{"device_id": *req.Device}, nil
}

func checkDehydrated(d ids.DeviceID, name string, data jsontext.Value) error {
	for _, c := range []byte(d) {
		if c < 0x20 {
			return merr.InvalidParamErr("The device ID has control characters")
		}
	}
	var about struct {
		Algorithm *string `json:"algorithm"`
	}
	switch {
	case d == "" || len(d) > maxDehydratedID:
		return merr.InvalidParamErr("The device ID is empty or longer than %d bytes", maxDehydratedID)
	case len(name) > maxDehydratedID:
		return merr.InvalidParamErr("The display name is longer than %d bytes", maxDehydratedID)
	case len(data) > account.MaxDehydratedBytes:
		return merr.TooLargeErr("device_data is larger than %d bytes", account.MaxDehydratedBytes)
	case data.Kind() != '{':
		return merr.BadJSONErr("device_data is not an object")
	}
	if err := api.DecodeJSON(data, &about); err != nil {
		return err
	}
	if about.Algorithm == nil {
		return api.Missing("device_data.algorithm")
	}
	return nil
}

func errNoDehydrated() error { return merr.NotFoundErr("There is no dehydrated device") }

// getDehydrated: spec MSC3814 §Rehydrating a device.
func (m *Module) getDehydrated(r *api.Request) (any, error) {
	d, err := m.Accounts.Dehydrated(r.Context, r.Caller.User)
	if err != nil {
		return nil, err
	}
	if d == nil {
		return nil, errNoDehydrated()
	}
	return map[string]any{"device_id": d.Device, "device_data": d.Data}, nil
}

// deleteDehydrated: spec MSC3814 §Deleting a dehydrated device.
func (m *Module) deleteDehydrated(r *api.Request) (any, error) {
	ended, err := partition.Do[ids.DeviceID](r.Context, m.Router, account.NewEndDehydrated(r.Caller.User))
	if err != nil {
		return nil, err
	}
	if ended == "" {
		return nil, errNoDehydrated()
	}
	return map[string]any{"device_id": ended}, nil
}

// dehydratedEvents: spec MSC3814 §Rehydrating a device. Nothing is removed: who
// gives up half way must be able to begin anew. The token is a position in the
// inbox.
func (m *Module) dehydratedEvents(r *api.Request) (any, error) {
	next := r.Query.Get("next_batch")
	if r.Method == post {
		var req struct {
			Next string `json:"next_batch"`
		}
		if err := api.DecodeBody(r, &req); err != nil {
			return nil, err
		}
		next = req.Next
	}
	after := uint64(0)
	if next != "" {
		var err error
		if after, err = strconv.ParseUint(next, 10, 62); err != nil {
			return nil, merr.InvalidParamErr("next_batch is not valid").Because(err)
		}
	}
	limit, err := r.QueryInt("limit", dehydratedPage, 1, dehydratedPage)
	if err != nil {
		return nil, err
	}
	d, err := m.Accounts.Dehydrated(r.Context, r.Caller.User)
	if err != nil {
		return nil, err
	}
	if d == nil || string(d.Device) != r.Param("deviceId") {
		return nil, merr.ForbiddenErr("This is not your dehydrated device")
	}
	list, err := m.Accounts.Inbox(r.Context, r.Caller.User, d.Device, ids.Seq(after), allPositions, int(limit))
	if err != nil {
		return nil, err
	}
	events := make([]jsontext.Value, 0, len(list))
	for _, e := range list {
		if after = uint64(e.Seq); e.Event != nil {
			events = append(events, e.Event)
		}
	}
	return map[string]any{"events": events, "next_batch": strconv.FormatUint(after, 10)}, nil
}
