// Package rooms serves rooms: creating and finding them, who is in them, what is
// said in them, and what of it a user may read. spec: client-server §Rooms,
// §Room membership, §Room aliases, §Published room directory, §Receipts,
// §Fully read markers, §Typing notifications.
//
// What may be done is decided by the room's commands (internal/room), what may be
// read by room.Access. The handlers here read the request, complete event
// contents with what clients may not say themselves, and write the answers.
//
// A Module keeps nothing between requests and may be used from any goroutine.
package rooms

import (
	"log/slog"
	"net/http"

	"github.com/hubbub-chat/hubbub/internal/account"
	"github.com/hubbub-chat/hubbub/internal/api"
	"github.com/hubbub-chat/hubbub/internal/appservice"
	"github.com/hubbub-chat/hubbub/internal/clock"
	"github.com/hubbub-chat/hubbub/internal/delayed"
	"github.com/hubbub-chat/hubbub/internal/feed"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/partition"
	"github.com/hubbub-chat/hubbub/internal/pushrules"
	"github.com/hubbub-chat/hubbub/internal/room"
)

// Typer takes notices of who is typing.
type Typer interface {
	Type(n feed.TypingNotice) error
	// Active notes that a user did something.
	Active(u ids.UserID)
}

var _ Typer = (*feed.Hub)(nil)

// Deps are what the module stands on.
type Deps struct {
	Server   string // the server name
	Router   partition.Router
	Rooms    *room.Reader
	Accounts *account.Reader
	Services *appservice.Registry
	// Asker asks application services for users and aliases that are not there.
	Asker *appservice.Client
	// Networks are the directories of application services.
	Networks *appservice.Directory
	Typer    Typer
	Delayed  *delayed.Service
	// DefaultVersion is the version of rooms whose creator names none.
	DefaultVersion string
	Search         Searcher
	// RuleOptions choose the predefined push rules.
	RuleOptions pushrules.Options
	Clock       clock.Clock
	Log         *slog.Logger
}

// Module holds the handlers.
type Module struct {
	Deps
}

// New returns the module.
func New(d Deps) *Module { return &Module{d} }

const (
	v1     = "/_matrix/client/v1"
	v3     = "/_matrix/client/v3"
	inRoom = v3 + "/rooms/{roomId}"
)

// Routes are the routes of the module. Which of them guests may call:
// spec: client-server §Guest Access.
func (m *Module) Routes() []api.Route {
	routes := m.memberRoutes()
	routes = append(routes, m.eventRoutes()...)
	routes = append(routes, m.delayedRoutes()...)
	routes = append(routes, m.discoveryRoutes()...)
	routes = append(routes, m.relationRoutes()...)
	routes = append(routes, m.threadSubscriptionRoutes()...)
	return append(routes, m.directoryRoutes()...)
}

const get, post, put, del = http.MethodGet, http.MethodPost, http.MethodPut, http.MethodDelete

func (m *Module) memberRoutes() []api.Route {
	return []api.Route{
		{Method: post, Path: v3 + "/createRoom", Op: "createRoom", Auth: api.AuthUser, Rate: api.RateJoin, Handle: m.createRoom},
		{Method: post, Path: v3 + "/join/{roomIdOrAlias}", Op: "joinRoom", Auth: api.AuthUser, Rate: api.RateJoin, Guest: true, Handle: m.joinAny},
		{Method: post, Path: inRoom + "/join", Op: "joinRoomById", Auth: api.AuthUser, Rate: api.RateJoin, Guest: true, Handle: m.joinByID},
		{Method: post, Path: v3 + "/knock/{roomIdOrAlias}", Op: "knockRoom", Auth: api.AuthUser, Rate: api.RateJoin, Handle: m.knock},
		{Method: post, Path: inRoom + "/invite", Op: "inviteUser", Auth: api.AuthUser, Rate: api.RateJoin, Handle: m.invite},
		{Method: post, Path: inRoom + "/leave", Op: "leaveRoom", Auth: api.AuthUser, Rate: api.RateWrite, Guest: true, Handle: m.leave},
		{Method: post, Path: inRoom + "/kick", Op: "kick", Auth: api.AuthUser, Rate: api.RateSend, Handle: m.kick},
		{Method: post, Path: inRoom + "/ban", Op: "ban", Auth: api.AuthUser, Rate: api.RateSend, Handle: m.ban},
		{Method: post, Path: inRoom + "/unban", Op: "unban", Auth: api.AuthUser, Rate: api.RateSend, Handle: m.unban},
		{Method: post, Path: inRoom + "/forget", Op: "forgetRoom", Auth: api.AuthUser, Rate: api.RateWrite, Guest: true, Handle: m.forget},
		{Method: post, Path: inRoom + "/upgrade", Op: "upgradeRoom", Auth: api.AuthUser, Rate: api.RateJoin, Handle: m.upgrade},
		{Method: get, Path: v3 + "/joined_rooms", Op: "getJoinedRooms", Auth: api.AuthUser, Rate: api.RateRead, Guest: true, Handle: m.joinedRooms},
		{Method: get, Path: inRoom + "/members", Op: "getMembersByRoom", Auth: api.AuthUser, Rate: api.RateRead, Guest: true, Handle: m.members},
		{Method: get, Path: inRoom + "/joined_members", Op: "getJoinedMembersByRoom", Auth: api.AuthUser, Rate: api.RateRead, Guest: true, Handle: m.joinedMembers},
	}
}

func (m *Module) eventRoutes() []api.Route {
	const state = inRoom + "/state"
	const keyed, keyless = state + "/{eventType}/{stateKey}", state + "/{eventType}/"
	return []api.Route{
		{Method: get, Path: state, Op: "getRoomState", Auth: api.AuthUser, Rate: api.RateRead, Guest: true, Handle: m.state},
		{Method: get, Path: keyed, Also: []string{keyless}, Op: "getRoomStateWithKey", Auth: api.AuthUser, Rate: api.RateRead, Guest: true, Handle: m.stateEvent},
		{Method: put, Path: keyed, Also: []string{keyless}, Op: "setRoomStateWithKey", Auth: api.AuthUser, Rate: api.RateSend, Guest: true, Handle: m.putState},
		{Method: put, Path: inRoom + "/send/{eventType}/{txnId}", Op: "sendMessage", Auth: api.AuthUser, Rate: api.RateSend, Guest: true, Handle: m.send},
		{Method: put, Path: inRoom + "/redact/{eventId}/{txnId}", Op: "redactEvent", Auth: api.AuthUser, Rate: api.RateSend, Handle: m.redact},
		{Method: get, Path: inRoom + "/event/{eventId}", Op: "getOneRoomEvent", Auth: api.AuthUser, Rate: api.RateRead, Guest: true, Handle: m.event},
		{Method: get, Path: inRoom + "/context/{eventId}", Op: "getEventContext", Auth: api.AuthUser, Rate: api.RateRead, Guest: true, Handle: m.context},
		{Method: get, Path: inRoom + "/messages", Op: "getRoomEvents", Auth: api.AuthUser, Rate: api.RateRead, Guest: true, Handle: m.messages},
		{
			Method: get, Path: "/_matrix/client/v1/rooms/{roomId}/timestamp_to_event", Op: "getEventByTimestamp",
			Also: []string{"/_matrix/client/unstable/org.matrix.msc3030/rooms/{roomId}/timestamp_to_event"},
			Auth: api.AuthUser, Rate: api.RateRead, Handle: m.timestampToEvent,
		},
		{Method: post, Path: inRoom + "/receipt/{receiptType}/{eventId}", Op: "postReceipt", Auth: api.AuthUser, Rate: api.RateWrite, Guest: true, Handle: m.receipt},
		{Method: post, Path: inRoom + "/read_markers", Op: "setReadMarker", Auth: api.AuthUser, Rate: api.RateWrite, Guest: true, Handle: m.readMarkers},
		{Method: put, Path: inRoom + "/typing/{userId}", Op: "setTyping", Auth: api.AuthUser, Rate: api.RateWrite, Guest: true, Handle: m.typing},
	}
}

// discoveryRoutes lead to rooms that the caller may not be in yet, or to those who
// see to it that nobody needs to be.
func (m *Module) discoveryRoutes() []api.Route {
	const v1, unstable = "/_matrix/client/v1", "/_matrix/client/unstable"
	return []api.Route{
		{
			Method: get, Path: v1 + "/room_summary/{roomIdOrAlias}", Op: "getRoomSummary", Also: []string{
				unstable + "/im.nheko.summary/summary/{roomIdOrAlias}", unstable + "/im.nheko.summary/rooms/{roomIdOrAlias}/summary",
			},
			Auth: api.AuthOptional, Rate: api.RateRead, Guest: true, Handle: m.summary,
		},
		{Method: get, Path: inRoom + "/initialSync", Op: "roomInitialSync", Auth: api.AuthUser, Rate: api.RateRead, Guest: true, Handle: m.initialSync},
		{
			Method: get, Path: v1 + "/rooms/{roomId}/hierarchy", Op: "getSpaceHierarchy",
			Also: []string{unstable + "/org.matrix.msc2946/rooms/{roomId}/hierarchy"},
			Auth: api.AuthUser, Rate: api.RateRead, Handle: m.hierarchy,
		},
		{
			Method: get, Path: v1 + "/mutual_rooms", Op: "getMutualRooms",
			Also: []string{unstable + "/uk.half-shot.msc2666/user/mutual_rooms"},
			Auth: api.AuthUser, Rate: api.RateRead, Handle: m.mutualRooms,
		},
		{Method: post, Path: v3 + "/search", Op: "search", Auth: api.AuthUser, Rate: api.RateRead, Handle: m.search},
		{Method: post, Path: inRoom + "/report", Op: "reportRoom", Auth: api.AuthUser, Rate: api.RateSend, Handle: m.reportRoom},
		{Method: post, Path: inRoom + "/report/{eventId}", Op: "reportEvent", Auth: api.AuthUser, Rate: api.RateSend, Handle: m.reportEvent},
		{Method: post, Path: v3 + "/users/{userId}/report", Op: "reportUser", Auth: api.AuthUser, Rate: api.RateSend, Handle: m.reportUser},
	}
}

func (m *Module) directoryRoutes() []api.Route {
	const alias, listing = v3 + "/directory/room/{roomAlias}", v3 + "/directory/list/room/{roomId}"
	return []api.Route{
		{Method: get, Path: inRoom + "/aliases", Op: "getLocalAliases", Auth: api.AuthUser, Rate: api.RateRead, Handle: m.aliases},
		{Method: get, Path: alias, Op: "getRoomIdByAlias", Auth: api.AuthNone, Rate: api.RateRead, Handle: m.getAlias},
		{Method: put, Path: alias, Op: "setRoomAlias", Auth: api.AuthUser, Rate: api.RateSend, Handle: m.setAlias},
		{Method: del, Path: alias, Op: "deleteRoomAlias", Auth: api.AuthUser, Rate: api.RateSend, Handle: m.deleteAlias},
		{Method: get, Path: listing, Op: "getRoomVisibilityOnDirectory", Auth: api.AuthNone, Rate: api.RateRead, Handle: m.getListing},
		{Method: put, Path: listing, Op: "setRoomVisibilityOnDirectory", Auth: api.AuthUser, Rate: api.RateSend, Handle: m.setListing},
		{Method: get, Path: v3 + "/publicRooms", Op: "getPublicRooms", Auth: api.AuthNone, Rate: api.RateRead, Handle: m.getPublicRooms},
		{Method: post, Path: v3 + "/publicRooms", Op: "queryPublicRooms", Auth: api.AuthUser, Rate: api.RateRead, Guest: true, Handle: m.queryPublicRooms},
	}
}
