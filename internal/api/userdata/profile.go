package userdata

import (
	"context"
	"net/http"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/hubbub-chat/hubbub/internal/account"
	"github.com/hubbub-chat/hubbub/internal/api"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/merr"
)

const (
	// maxKeyBytes is the longest name of a profile field. spec: client-server
	// §PUT /profile/{userId}/{keyName}.
	maxKeyBytes = 255
	// maxDisplayName is the longest display name in characters: it stands beside
	// every message.
	maxDisplayName = 256
	// maxAvatarURL is the longest avatar URL in bytes: it is repeated in every
	// member event.
	maxAvatarURL = 1000
	// maxTimeZone is the longest name of a time zone in bytes.
	maxTimeZone = 255

	fieldTimeZone = "m.tz"
)

func (m *Module) profileRoutes() []api.Route {
	const all, one = "/_matrix/client/v3/profile/{userId}", "/_matrix/client/v3/profile/{userId}/{keyName}"
	// The unstable name of the same, from before version 1.16.
	also := []string{"/_matrix/client/unstable/uk.tcpip.msc4133/profile/{userId}/{keyName}"}
	return []api.Route{
		{Method: http.MethodGet, Path: all, Op: "getUserProfile", Auth: api.AuthOptional, Rate: api.RateRead, Handle: m.profile},
		{Method: http.MethodGet, Path: one, Also: also, Op: "getProfileField", Auth: api.AuthOptional, Rate: api.RateRead, Handle: m.profileField},
		{Method: http.MethodPut, Path: one, Also: also, Op: "setProfileField", Auth: api.AuthUser, Rate: api.RateSend, Guest: true, Handle: m.setProfileField},
		{Method: http.MethodDelete, Path: one, Also: also, Op: "deleteProfileField", Auth: api.AuthUser, Rate: api.RateSend, Guest: true, Handle: m.deleteProfileField},
	}
}

// profile: spec client-server §GET /profile/{userId}.
func (m *Module) profile(r *api.Request) (any, error) {
	user, err := r.UserID("userId")
	if err != nil {
		return nil, err
	}
	fields, err := m.Accounts.Profile(r.Context, user)
	if err != nil {
		return nil, err
	}
	if fields == nil {
		// An application service may make a user of its own just now.
		made, err := m.Asker.QueryUser(r.Context, user)
		if err != nil {
			return nil, err
		}
		if made {
			if fields, err = m.Accounts.Profile(r.Context, user); err != nil {
				return nil, err
			}
		}
	}
	if fields == nil {
		return nil, merr.NotFoundErr("No such user")
	}
	return fields, nil
}

// profileField: spec client-server §GET /profile/{userId}/{keyName}.
func (m *Module) profileField(r *api.Request) (any, error) {
	user, err := r.UserID("userId")
	if err != nil {
		return nil, err
	}
	key := r.Param("keyName")
	value, err := m.Accounts.ProfileField(r.Context, user, key)
	if err != nil {
		return nil, err
	}
	if value == nil {
		return nil, merr.NotFoundErr("No such user, or no such field in their profile")
	}
	return map[string]jsontext.Value{key: value}, nil
}

// setProfileField: spec client-server §PUT /profile/{userId}/{keyName}.
func (m *Module) setProfileField(r *api.Request) (any, error) {
	key := r.Param("keyName")
	if err := checkKey(key); err != nil {
		return nil, err
	}
	var body map[string]jsontext.Value
	if err := api.DecodeBody(r, &body); err != nil {
		return nil, err
	}
	value, ok := body[key]
	if !ok {
		return nil, api.Missing(key)
	}
	value, err := checkField(key, value)
	if err != nil {
		return nil, err
	}
	return m.changeProfile(r, key, value)
}

// deleteProfileField: spec client-server §DELETE /profile/{userId}/{keyName}.
func (m *Module) deleteProfileField(r *api.Request) (any, error) {
	key := r.Param("keyName")
	if err := checkKey(key); err != nil {
		return nil, err
	}
	return m.changeProfile(r, key, nil)
}

// changeProfile sets a field, or removes it if value is nil.
func (m *Module) changeProfile(r *api.Request, key string, value jsontext.Value) (any, error) {
	user, err := r.Self("userId")
	if err != nil {
		return nil, err
	}
	if r.Caller.Guest && key != account.FieldDisplayName {
		// spec: client-server §Guest Access, account maintenance.
		return nil, merr.New(http.StatusForbidden, merr.GuestAccessForbidden, "Guests may change their display name only")
	}
	if _, err := m.Router.Do(r.Context, account.NewSetProfile(user, key, value)); err != nil {
		return nil, err
	}
	if key != account.FieldDisplayName && key != account.FieldAvatarURL {
		return api.Empty, nil
	}
	// Also if the field did not change: a request may be repeated because it had
	// not reached all rooms.
	return api.Empty, m.updateRooms(r.Context, user)
}

func (m *Module) updateRooms(ctx context.Context, user ids.UserID) error {
	n, err := m.Accounts.Names(ctx, user)
	if err != nil || n == nil {
		return err
	}
	return m.Rooms.UpdateProfile(ctx, user, n.DisplayName, n.AvatarURL)
}

// checkKey checks the name of a profile field: one that the specification knows,
// or a namespaced identifier with a dot. spec: appendices §Common Namespaced
// Identifier Grammar.
func checkKey(key string) error {
	if len(key) > maxKeyBytes {
		return merr.New(http.StatusBadRequest, merr.KeyTooLarge, "The name of a profile field may have %d bytes", maxKeyBytes)
	}
	if key == account.FieldDisplayName || key == account.FieldAvatarURL {
		return nil
	}
	for i, c := range []byte(key) {
		letter := c >= 'a' && c <= 'z'
		if !letter && (i == 0 || (c < '0' || c > '9') && c != '.' && c != '_' && c != '-') {
			return errKey()
		}
	}
	if !strings.Contains(key, ".") {
		return errKey()
	}
	return nil
}

func errKey() error {
	return merr.InvalidParamErr("A profile field is displayname, avatar_url or has a namespaced name such as org.example.field")
}

// checkField returns a field's value as it is stored. It is nil if that is the
// same as none: clients remove a name or an avatar by setting it to "".
func checkField(key string, value jsontext.Value) (jsontext.Value, error) {
	switch key {
	case account.FieldDisplayName, account.FieldAvatarURL, fieldTimeZone:
	default:
		return compact(value)
	}
	var text string
	if value.Kind() != '"' || json.Unmarshal(value, &text) != nil {
		return nil, merr.BadJSONErr("%s is not a string", key)
	}
	switch {
	case text == "" && key != fieldTimeZone:
		return nil, nil
	case key == account.FieldDisplayName && utf8.RuneCountInString(text) > maxDisplayName:
		return nil, merr.InvalidParamErr("A display name may have %d characters", maxDisplayName)
	case strings.ContainsFunc(text, unicode.IsControl):
		return nil, merr.InvalidParamErr("%s has control characters", key)
	case key == account.FieldAvatarURL && !isAvatar(text):
		return nil, merr.InvalidParamErr("avatar_url is not an mxc:// URI of at most %d bytes", maxAvatarURL)
	case key == fieldTimeZone && len(text) > maxTimeZone:
		return nil, merr.InvalidParamErr("m.tz may have %d bytes", maxTimeZone)
	}
	return compact(value)
}

// isAvatar reports whether s may stand as an avatar: media of this server, or a
// word that leads nowhere, as some clients set one. What has another scheme or an
// authority could make all who see it fetch something elsewhere.
func isAvatar(s string) bool {
	return isMXC(s) || len(s) <= maxAvatarURL && !strings.ContainsAny(s, ":/\\")
}

// isMXC reports whether s names media. spec: client-server §Matrix Content
// (mxc://) URIs.
func isMXC(s string) bool {
	rest, ok := strings.CutPrefix(s, "mxc://")
	server, media, ok2 := strings.Cut(rest, "/")
	return ok && ok2 && server != "" && media != "" && !strings.Contains(media, "/") && len(s) <= maxAvatarURL
}
