package account

import "github.com/hubbub-chat/hubbub/internal/ids"

// noticesName is a localpart that nobody may register.
const noticesName = "_server"

// NoticesUser is the user in whose name the server speaks to its users. Nobody can
// log in as it. spec: client-server §Server Notices.
func NoticesUser(server string) ids.UserID { return ids.NewUserID(noticesName, server) }
