package e2ee

import (
	"strconv"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/hubbub-chat/hubbub/internal/account"
	"github.com/hubbub-chat/hubbub/internal/api"
	"github.com/hubbub-chat/hubbub/internal/event"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/merr"
	"github.com/hubbub-chat/hubbub/internal/partition"
)

// maxAlgorithm bounds the name of a backup's algorithm in bytes.
const maxAlgorithm = 255

func (m *Module) backupRoutes() []api.Route {
	const versions, version = "/room_keys/version", "/room_keys/version/{version}"
	const all, inRoom, one = "/room_keys/keys", "/room_keys/keys/{roomId}", "/room_keys/keys/{roomId}/{sessionId}"
	routes := []api.Route{
		{Method: post, Path: versions, Op: "postRoomKeysVersion", Rate: api.RateWrite, Handle: m.createBackup},
		{Method: get, Path: versions, Op: "getRoomKeysVersionCurrent", Rate: api.RateRead, Handle: m.backup},
		{Method: get, Path: version, Op: "getRoomKeysVersion", Rate: api.RateRead, Handle: m.backup},
		{Method: put, Path: version, Op: "putRoomKeysVersion", Rate: api.RateWrite, Handle: m.updateBackup},
		{Method: del, Path: version, Op: "deleteRoomKeysVersion", Rate: api.RateWrite, Handle: m.deleteBackup},
		{Method: put, Path: one, Op: "putRoomKeyBySessionId", Rate: api.RateWrite, Handle: m.putKey},
		{Method: get, Path: one, Op: "getRoomKeyBySessionId", Rate: api.RateRead, Handle: m.key},
		{Method: del, Path: one, Op: "deleteRoomKeyBySessionId", Rate: api.RateWrite, Handle: m.deleteKeys},
		{Method: put, Path: inRoom, Op: "putRoomKeysByRoomId", Rate: api.RateWrite, Handle: m.putRoom},
		{Method: get, Path: inRoom, Op: "getRoomKeysByRoomId", Rate: api.RateRead, Handle: m.room},
		{Method: del, Path: inRoom, Op: "deleteRoomKeysByRoomId", Rate: api.RateWrite, Handle: m.deleteKeys},
		{Method: put, Path: all, Op: "putRoomKeys", Rate: api.RateWrite, Handle: m.putAll},
		{Method: get, Path: all, Op: "getRoomKeys", Rate: api.RateRead, Handle: m.all},
		{Method: del, Path: all, Op: "deleteRoomKeys", Rate: api.RateWrite, Handle: m.deleteKeys},
	}
	for i := range routes {
		r := &routes[i]
		// Older clients know these under their unstable names.
		r.Path, r.Also = v3+r.Path, []string{unstable + r.Path}
		if r.Method == put {
			r.MaxBody = maxBackupBody
		}
	}
	return routes
}

type backupBody struct {
	Algorithm *string        `json:"algorithm"`
	AuthData  jsontext.Value `json:"auth_data"`
	Version   *string        `json:"version"`
}

func readBackup(r *api.Request) (*backupBody, error) {
	b := &backupBody{}
	if err := api.DecodeBody(r, b); err != nil {
		return nil, err
	}
	switch {
	case b.Algorithm == nil:
		return nil, api.Missing("algorithm")
	case absent(b.AuthData):
		return nil, api.Missing("auth_data")
	case b.AuthData.Kind() != '{':
		return nil, merr.BadJSONErr("auth_data is not an object")
	case len(*b.Algorithm) > maxAlgorithm:
		return nil, merr.InvalidParamErr("The name of the algorithm is longer than %d bytes", maxAlgorithm)
	case len(b.AuthData) > account.MaxAuthData:
		return nil, merr.TooLargeErr("auth_data is larger than %d bytes", account.MaxAuthData)
	}
	return b, nil
}

// createBackup: spec client-server §POST /room_keys/version.
func (m *Module) createBackup(r *api.Request) (any, error) {
	b, err := readBackup(r)
	if err != nil {
		return nil, err
	}
	v, err := partition.Do[uint64](r.Context, m.Router, account.NewCreateBackup(r.Caller.User, *b.Algorithm, b.AuthData))
	if err != nil {
		return nil, err
	}
	return map[string]string{"version": versionText(v)}, nil
}

func versionText(v uint64) string { return strconv.FormatUint(v, 10) }

func errNoBackup() error { return merr.NotFoundErr("There is no such backup") }

// backup: spec client-server §GET /room_keys/version, with and without a version.
func (m *Module) backup(r *api.Request) (any, error) {
	var version uint64
	if text := r.Param("version"); text != "" {
		if version = account.ParseBackupVersion(text); version == 0 {
			return nil, errNoBackup()
		}
	}
	b, err := m.Accounts.Backup(r.Context, r.Caller.User, version)
	if err != nil {
		return nil, err
	}
	if b == nil {
		return nil, errNoBackup()
	}
	return struct {
		Algorithm string         `json:"algorithm"`
		AuthData  jsontext.Value `json:"auth_data"`
		Count     int            `json:"count"`
		ETag      string         `json:"etag"`
		Version   string         `json:"version"`
	}{b.Algorithm, b.AuthData, b.Count, versionText(b.ETag), versionText(b.Version)}, nil
}

// updateBackup: spec client-server §PUT /room_keys/version/{version}.
func (m *Module) updateBackup(r *api.Request) (any, error) {
	b, err := readBackup(r)
	if err != nil {
		return nil, err
	}
	if b.Version != nil && *b.Version != r.Param("version") {
		return nil, merr.InvalidParamErr("The version of the body is not that of the path")
	}
	version := account.ParseBackupVersion(r.Param("version"))
	if version == 0 {
		return nil, errNoBackup()
	}
	_, err = m.Router.Do(r.Context, account.NewUpdateBackup(r.Caller.User, version, *b.Algorithm, b.AuthData))
	return api.Empty, err
}

// deleteBackup: spec client-server §DELETE /room_keys/version/{version}.
func (m *Module) deleteBackup(r *api.Request) (any, error) {
	version := account.ParseBackupVersion(r.Param("version"))
	_, err := m.Router.Do(r.Context, account.NewDeleteBackup(r.Caller.User, version))
	return api.Empty, err
}

// keyBody is a key as clients send it. spec: client-server §KeyBackupData.
type keyBody struct {
	FirstMessageIndex *int64         `json:"first_message_index"`
	ForwardedCount    *int64         `json:"forwarded_count"`
	IsVerified        *bool          `json:"is_verified"`
	SessionData       jsontext.Value `json:"session_data"`
}

func (b *keyBody) key() (*account.BackupKey, error) {
	switch {
	case b.FirstMessageIndex == nil || b.ForwardedCount == nil || b.IsVerified == nil || b.SessionData.Kind() != '{':
		return nil, merr.BadJSONErr("A key needs first_message_index, forwarded_count, is_verified and session_data")
	case *b.FirstMessageIndex < 0 || *b.ForwardedCount < 0:
		return nil, merr.BadJSONErr("A number of a key is negative")
	case len(b.SessionData) > account.MaxBackupKeyBytes:
		return nil, merr.TooLargeErr("session_data is larger than %d bytes", account.MaxBackupKeyBytes)
	}
	return &account.BackupKey{
		FirstMessageIndex: *b.FirstMessageIndex, ForwardedCount: *b.ForwardedCount,
		IsVerified: *b.IsVerified, SessionData: b.SessionData,
	}, nil
}

type roomBody struct {
	Sessions map[string]keyBody `json:"sessions"`
}

// putAll: spec client-server §PUT /room_keys/keys.
func (m *Module) putAll(r *api.Request) (any, error) {
	var req struct {
		Rooms map[string]roomBody `json:"rooms"`
	}
	if err := api.DecodeBody(r, &req); err != nil {
		return nil, err
	}
	if req.Rooms == nil {
		return nil, api.Missing("rooms")
	}
	return m.putKeys(r, req.Rooms)
}

// putRoom: spec client-server §PUT /room_keys/keys/{roomId}.
func (m *Module) putRoom(r *api.Request) (any, error) {
	var req roomBody
	if err := api.DecodeBody(r, &req); err != nil {
		return nil, err
	}
	if req.Sessions == nil {
		return nil, api.Missing("sessions")
	}
	return m.putKeys(r, map[string]roomBody{r.Param("roomId"): req})
}

// putKey: spec client-server §PUT /room_keys/keys/{roomId}/{sessionId}.
func (m *Module) putKey(r *api.Request) (any, error) {
	var req keyBody
	if err := api.DecodeBody(r, &req); err != nil {
		return nil, err
	}
	sessions := map[string]keyBody{r.Param("sessionId"): req}
	return m.putKeys(r, map[string]roomBody{r.Param("roomId"): {sessions}})
}

func (m *Module) putKeys(r *api.Request, rooms map[string]roomBody) (any, error) {
	version, err := versionOf(r)
	if err != nil {
		return nil, err
	}
	keys := make(account.BackupKeys, len(rooms))
	n := 0
	for name, in := range rooms {
		id, err := ids.ParseRoomID(name)
		if err != nil {
			return nil, merr.InvalidParamErr("%q is not a room ID", name).Because(err)
		}
		keys[id] = make(map[string]*account.BackupKey, len(in.Sessions))
		for session, body := range in.Sessions {
			if session == "" {
				return nil, merr.InvalidParamErr("A session has no ID")
			}
			if keys[id][session], err = body.key(); err != nil {
				return nil, err
			}
			n++
		}
	}
	if n > account.MaxBackupKeys {
		return nil, merr.TooLargeErr("There are more than %d keys", account.MaxBackupKeys)
	}
	return m.edited(r, account.NewPutBackupKeys(r.Caller.User, version, keys))
}

// versionOf returns the version that a request is about.
func versionOf(r *api.Request) (uint64, error) {
	text := r.Query.Get("version")
	if text == "" {
		return 0, api.Missing("version")
	}
	v := account.ParseBackupVersion(text)
	if v == 0 {
		return 0, errNoBackup()
	}
	return v, nil
}

func (m *Module) edited(r *api.Request, cmd *account.EditBackupKeys) (any, error) {
	v := account.EditedBackup{More: true}
	for v.More {
		var err error
		if v, err = partition.Do[account.EditedBackup](r.Context, m.Router, cmd); err != nil {
			return nil, err
		}
	}
	return struct {
		Count int    `json:"count"`
		ETag  string `json:"etag"`
	}{v.Count, versionText(v.ETag)}, nil
}

// deleteKeys: spec client-server §DELETE /room_keys/keys, of a room, and of a
// session.
func (m *Module) deleteKeys(r *api.Request) (any, error) {
	version, id, session, err := m.which(r)
	if err != nil {
		return nil, err
	}
	return m.edited(r, account.NewDeleteBackupKeys(r.Caller.User, version, id, session))
}

// which returns the version, and the room and session that the path names.
func (m *Module) which(r *api.Request) (version uint64, id ids.RoomID, session string, err error) {
	if version, err = versionOf(r); err != nil {
		return 0, "", "", err
	}
	if r.Param("roomId") != "" {
		id, err = r.RoomID("roomId")
	}
	return version, id, r.Param("sessionId"), err
}

// keys calls fn with the keys that a request names.
func (m *Module) keys(r *api.Request, fn func(ids.RoomID, string, jsontext.Value)) error {
	version, id, session, err := m.which(r)
	if err != nil {
		return err
	}
	b, err := m.Accounts.Backup(r.Context, r.Caller.User, version)
	if err != nil {
		return err
	}
	if b == nil {
		return errNoBackup()
	}
	return m.Accounts.BackupKeys(r.Context, r.Caller.User, version, id, session, fn)
}

// all: spec client-server §GET /room_keys/keys.
func (m *Module) all(r *api.Request) (any, error) {
	out := []byte(`{"rooms":{`)
	var in ids.RoomID
	err := m.keys(r, func(id ids.RoomID, session string, key jsontext.Value) {
		if id != in {
			if in != "" {
				out = append(out, `}},`...)
			}
			out = append(event.AppendString(out, id), `:{"sessions":{`...)
			in = id
		} else {
			out = append(out, ',')
		}
		out = append(append(event.AppendString(out, session), ':'), key...)
	})
	if in != "" {
		out = append(out, `}}`...)
	}
	return jsontext.Value(append(out, `}}`...)), err
}

// room: spec client-server §GET /room_keys/keys/{roomId}.
func (m *Module) room(r *api.Request) (any, error) {
	out := []byte(`{"sessions":{`)
	first := true
	err := m.keys(r, func(_ ids.RoomID, session string, key jsontext.Value) {
		if !first {
			out = append(out, ',')
		}
		first = false
		out = append(append(event.AppendString(out, session), ':'), key...)
	})
	return jsontext.Value(append(out, `}}`...)), err
}

// key: spec client-server §GET /room_keys/keys/{roomId}/{sessionId}.
func (m *Module) key(r *api.Request) (any, error) {
	var out jsontext.Value
	if err := m.keys(r, func(_ ids.RoomID, _ string, key jsontext.Value) { out = key }); err != nil {
		return nil, err
	}
	if out == nil {
		return nil, merr.NotFoundErr("There is no such key in the backup")
	}
	return out, nil
}
