// Package userdata serves what belongs to a user and is no event of a room:
// profiles, account data, tags, filters, push rules, and the search for users.
// spec: client-server §User Data, §Filtering, §Push Rules.
//
// Everything but profiles is the caller's own: a path with another user's ID is
// 403 M_FORBIDDEN. Handlers keep no state; they run on the goroutine of their
// request.
package userdata

import (
	"context"
	"net/http"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/hubbub-chat/hubbub/internal/account"
	"github.com/hubbub-chat/hubbub/internal/api"
	"github.com/hubbub-chat/hubbub/internal/appservice"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/merr"
	"github.com/hubbub-chat/hubbub/internal/partition"
	"github.com/hubbub-chat/hubbub/internal/pushrules"
	"github.com/hubbub-chat/hubbub/internal/room"
)

const (
	// maxTypeBytes bounds a type of account data, as the specification bounds
	// that of events.
	maxTypeBytes = 255
	// maxTagBytes is from spec: client-server §Room Tagging.
	maxTagBytes = 255
)

// Rooms carries a user's new names into the rooms.
type Rooms interface {
	// UpdateProfile makes the member events of the user in all rooms they are
	// joined to say what the profile says; "" stands for no such field. It
	// changes nothing where that is so already.
	UpdateProfile(ctx context.Context, user ids.UserID, displayName, avatarURL string) error
}

// RoomState reads the state of rooms. *room.Reader is one.
type RoomState interface {
	StateEvents(ctx context.Context, r ids.RoomID, keys ...room.StateKey) ([]*room.Stored, error)
	MembersNamed(ctx context.Context, r ids.RoomID, prefix string, limit int) (users []ids.UserID, more bool, err error)
}

var _ RoomState = (*room.Reader)(nil)

// Deps are what the module stands on.
type Deps struct {
	// Server is the server name.
	Server   string
	Router   partition.Router
	Accounts *account.Reader
	// Asker asks application services for users that are not there.
	Asker *appservice.Client
	State RoomState
	Rooms Rooms
	// SearchAll: a search for users shows everyone to everyone.
	SearchAll bool
	// Rules are the predefined push rules that RuleOptions choose.
	Rules       *pushrules.Defaults
	RuleOptions pushrules.Options
}

// Module holds the handlers.
type Module struct {
	Deps
	searches chan struct{} // a place for each search under way
}

// New returns the module.
func New(d Deps) *Module {
	return &Module{Deps: d, searches: make(chan struct{}, maxSearches)}
}

// Routes are the routes of the module.
func (m *Module) Routes() []api.Route {
	const v3 = "/_matrix/client/v3"
	const get, post = http.MethodGet, http.MethodPost
	const user, rules = v3 + "/user/{userId}", v3 + "/pushrules/global/{kind}/{ruleId}"
	const msc3391 = "/_matrix/client/unstable/org.matrix.msc3391/user/{userId}"
	own := []api.Route{
		{Method: get, Path: user + "/account_data/{type}", Op: "getAccountData", Rate: api.RateNone, Handle: m.data},
		{Method: http.MethodPut, Path: user + "/account_data/{type}", Op: "setAccountData", Rate: api.RateWrite, Handle: m.setData},
		{Method: get, Path: user + "/rooms/{roomId}/account_data/{type}", Op: "getAccountDataPerRoom", Rate: api.RateNone, Handle: m.data},
		{Method: http.MethodPut, Path: user + "/rooms/{roomId}/account_data/{type}", Op: "setAccountDataPerRoom", Rate: api.RateWrite, Handle: m.setData},
		{Method: http.MethodDelete, Path: msc3391 + "/account_data/{type}", Rate: api.RateWrite, Handle: m.deleteData},
		{Method: http.MethodDelete, Path: msc3391 + "/rooms/{roomId}/account_data/{type}", Rate: api.RateWrite, Handle: m.deleteData},
		{Method: get, Path: user + "/rooms/{roomId}/tags", Op: "getRoomTags", Rate: api.RateNone, Handle: m.tags},
		{Method: http.MethodPut, Path: user + "/rooms/{roomId}/tags/{tag}", Op: "setRoomTag", Rate: api.RateWrite, Handle: m.setTag},
		{Method: http.MethodDelete, Path: user + "/rooms/{roomId}/tags/{tag}", Op: "deleteRoomTag", Rate: api.RateWrite, Handle: m.deleteTag},
		{Method: post, Path: user + "/filter", Op: "defineFilter", Rate: api.RateWrite, Handle: m.putFilter},
		{Method: get, Path: user + "/filter/{filterId}", Op: "getFilter", Rate: api.RateNone, Handle: m.filter},
		{Method: get, Path: v3 + "/pushrules/", Op: "getPushRules", Rate: api.RateNone, Handle: m.pushRules},
		{Method: get, Path: v3 + "/pushrules/global/", Op: "getPushRulesGlobal", Rate: api.RateNone, Handle: m.globalRules},
		{Method: get, Path: rules, Op: "getPushRule", Rate: api.RateNone, Handle: m.rule},
		{Method: http.MethodPut, Path: rules, Op: "setPushRule", Rate: api.RateWrite, Handle: m.putRule},
		{Method: http.MethodDelete, Path: rules, Op: "deletePushRule", Rate: api.RateWrite, Handle: m.deleteRule},
		{Method: get, Path: rules + "/enabled", Op: "isPushRuleEnabled", Rate: api.RateNone, Handle: m.ruleEnabled},
		{Method: http.MethodPut, Path: rules + "/enabled", Op: "setPushRuleEnabled", Rate: api.RateWrite, Handle: m.setRuleEnabled},
		{Method: get, Path: rules + "/actions", Op: "getPushRuleActions", Rate: api.RateNone, Handle: m.ruleActions},
		{Method: http.MethodPut, Path: rules + "/actions", Op: "setPushRuleActions", Rate: api.RateWrite, Handle: m.setRuleActions},
		{Method: post, Path: v3 + "/user_directory/search", Op: "searchUserDirectory", Rate: api.RateRead, Handle: m.search},
	}
	for i := range own {
		own[i].Auth = api.AuthUser
	}
	return append(own, m.profileRoutes()...)
}

// owner returns the user of the path, who must be the caller, and the room of the
// path, "" if it has none.
func owner(r *api.Request) (ids.UserID, ids.RoomID, error) {
	user, err := r.Self("userId")
	if err != nil || r.Param("roomId") == "" {
		return user, "", err
	}
	in, err := r.RoomID("roomId")
	return user, in, err
}

// object returns the body without white space. M_NOT_JSON if there is none.
func object(r *api.Request) (jsontext.Value, error) {
	if len(r.Body) == 0 {
		return nil, merr.New(http.StatusBadRequest, merr.NotJSON, "The body is not a JSON object")
	}
	return compact(jsontext.Value(r.Body))
}

// compact returns a copy without white space.
func compact(v jsontext.Value) (jsontext.Value, error) {
	v = v.Clone()
	if err := v.Compact(); err != nil {
		return nil, merr.New(http.StatusBadRequest, merr.NotJSON, "Not valid JSON").Because(err)
	}
	return v, nil
}
