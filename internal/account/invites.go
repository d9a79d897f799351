package account

import (
	"github.com/go-json-experiment/json"

	"github.com/hubbub-chat/hubbub/internal/ids"
)

// TypeInvitePermission is the account data that says whether the user wants invites.
const TypeInvitePermission = "m.invite_permission_config"

// BlocksInvites reports whether an m.invite_permission_config, nil for none, says that
// its user wants no invites. A client may have written anything there; then they come as
// usual. spec: client-server §Invite permission.
func BlocksInvites(d *Data) bool {
	if d == nil {
		return false
	}
	var config struct {
		Action string `json:"default_action"`
	}
	return json.Unmarshal(d.Content, &config) == nil && config.Action == "block"
}

// Unblockable reports whether invites by a user come to those too who block invites: the
// server has to be able to speak to its users, who cannot reject these either.
func Unblockable(by ids.UserID) bool { return by == NoticesUser(by.Server()) }
