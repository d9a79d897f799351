package e2ee

import (
	"github.com/go-json-experiment/json/jsontext"

	"github.com/hubbub-chat/hubbub/internal/account"
	"github.com/hubbub-chat/hubbub/internal/api"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/merr"
)

// maxMessage bounds the content of one message to a device in bytes, as that of an
// event is bounded.
const maxMessage = 64 << 10

// sendToDevice: spec client-server §PUT /sendToDevice/{eventType}/{txnId}.
func (m *Module) sendToDevice(r *api.Request) (any, error) {
	var req struct {
		Messages map[string]map[ids.DeviceID]jsontext.Value `json:"messages"`
	}
	if err := api.DecodeBody(r, &req); err != nil {
		return nil, err
	}
	if req.Messages == nil {
		return nil, api.Missing("messages")
	}
	messages := make(map[ids.UserID]map[ids.DeviceID]jsontext.Value, len(req.Messages))
	for name, to := range req.Messages {
		user, err := userOf(name)
		if err != nil {
			return nil, err
		}
		for _, content := range to {
			switch {
			case content.Kind() != '{':
				return nil, merr.BadJSONErr("The content of a message is not an object")
			case len(content) > maxMessage:
				return nil, merr.TooLargeErr("A message is larger than %d bytes", maxMessage)
			}
		}
		messages[user] = to
	}
	cmd := account.NewSendToDevice(r.Caller.User, r.Caller.Device, r.Param("eventType"), r.Param("txnId"), messages)
	_, err := m.Router.Do(r.Context, cmd)
	return api.Empty, err
}
