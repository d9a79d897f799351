package session

import (
	"github.com/go-json-experiment/json/jsontext"

	"github.com/hubbub-chat/hubbub/internal/account"
	"github.com/hubbub-chat/hubbub/internal/api"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/merr"
)

// maxDeleteDevices bounds one POST /delete_devices.
const maxDeleteDevices = account.MaxDevices

type deviceAnswer struct {
	DeviceID    ids.DeviceID `json:"device_id"`
	DisplayName string       `json:"display_name,omitempty"`
	LastSeenIP  string       `json:"last_seen_ip,omitempty"`
	LastSeenTS  int64        `json:"last_seen_ts,omitzero"`
}

func answerDevice(id ids.DeviceID, d *account.Device) deviceAnswer {
	return deviceAnswer{id, d.DisplayName, d.LastSeenIP, d.LastSeenTS}
}

// devices: spec client-server §GET /devices.
func (m *Module) devices(r *api.Request) (any, error) {
	list, err := m.Accounts.Devices(r.Context, r.Caller.User)
	out := make([]deviceAnswer, len(list))
	for i := range list {
		out[i] = answerDevice(list[i].ID, &list[i].Device)
	}
	return map[string]any{"devices": out}, err
}

// device: spec client-server §GET /devices/{deviceId}.
func (m *Module) device(r *api.Request) (any, error) {
	id := ids.DeviceID(r.Param("deviceId"))
	d, err := m.Accounts.Device(r.Context, r.Caller.User, id)
	if err != nil {
		return nil, err
	}
	if d == nil {
		return nil, merr.NotFoundErr("No such device")
	}
	return answerDevice(id, d), nil
}

// updateDevice: spec client-server §PUT /devices/{deviceId}.
func (m *Module) updateDevice(r *api.Request) (any, error) {
	var req struct {
		DisplayName *string `json:"display_name"`
	}
	if err := api.DecodeBody(r, &req); err != nil {
		return nil, err
	}
	id := ids.DeviceID(r.Param("deviceId"))
	name := ""
	if req.DisplayName != nil {
		name = *req.DisplayName
	}
	if err := checkDevice(id, name); err != nil {
		return nil, err
	}
	_, err := m.Router.Do(r.Context, account.NewUpdateDevice(r.Caller.User, id, req.DisplayName, nil))
	if merr.Is(err, merr.NotFound) && r.Caller.AppService != "" {
		return m.makeDevice(r, id, name)
	}
	return api.Empty, err
}

type authOnly struct {
	Auth jsontext.Value `json:"auth"`
}

// deleteDevice: spec client-server §DELETE /devices/{deviceId}.
func (m *Module) deleteDevice(r *api.Request) (any, error) {
	var req authOnly
	if err := api.DecodeBody(r, &req); err != nil {
		return nil, err
	}
	id := ids.DeviceID(r.Param("deviceId"))
	if err := m.Prove(r, "DELETE /devices/"+string(id), req.Auth); err != nil {
		return nil, err
	}
	return api.Empty, m.end(r.Context, account.NewEndDevices(r.Caller.User, id))
}

// deleteDevices: spec client-server §POST /delete_devices.
func (m *Module) deleteDevices(r *api.Request) (any, error) {
	var req struct {
		authOnly
		Devices []ids.DeviceID `json:"devices"`
	}
	if err := api.DecodeBody(r, &req); err != nil {
		return nil, err
	}
	if req.Devices == nil {
		return nil, api.Missing("devices")
	}
	if len(req.Devices) > maxDeleteDevices {
		return nil, merr.InvalidParamErr("More than %d devices", maxDeleteDevices)
	}
	if err := m.Prove(r, "POST /delete_devices", req.Auth); err != nil {
		return nil, err
	}
	return api.Empty, m.end(r.Context, account.NewEndDevices(r.Caller.User, req.Devices...))
}

// deactivate: spec client-server §POST /account/deactivate. The account ends at
// once; the user is taken out of the rooms by package farewell.
func (m *Module) deactivate(r *api.Request) (any, error) {
	var req struct {
		authOnly
		Erase bool `json:"erase"`
	}
	if err := api.DecodeBody(r, &req); err != nil {
		return nil, err
	}
	if err := m.Prove(r, "POST /account/deactivate", req.Auth); err != nil {
		return nil, err
	}
	if err := m.Deactivate(r, r.Caller.User, req.Erase); err != nil {
		return nil, err
	}
	return jsontext.Value(`{"id_server_unbind_result":"no-support"}`), nil
}
