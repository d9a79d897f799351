// Package appservice serves what only application services may ask for, and what
// clients ask about third-party networks, which services know.
// spec: application-service §Client-Server API Extensions; client-server
// §Third-party Networks.
//
// A Module keeps nothing between requests and may be used from any goroutine.
package appservice

import (
	"net/http"

	"github.com/hubbub-chat/hubbub/internal/api"
	"github.com/hubbub-chat/hubbub/internal/appservice"
	"github.com/hubbub-chat/hubbub/internal/merr"
	"github.com/hubbub-chat/hubbub/internal/partition"
	"github.com/hubbub-chat/hubbub/internal/room"
)

// Deps are what the module stands on.
type Deps struct {
	Services *appservice.Registry
	Client   *appservice.Client
	// Pinged is told of a service that answered a ping.
	Pinged func(*appservice.Service)
	Router partition.Router
	Rooms  *room.Reader
}

// Module holds the handlers.
type Module struct{ Deps }

// New returns the module.
func New(d Deps) *Module { return &Module{d} }

// Routes are the routes of the module.
func (m *Module) Routes() []api.Route {
	const v3, third = "/_matrix/client/v3", "/_matrix/client/v3/thirdparty"
	const get = http.MethodGet
	return []api.Route{
		{
			Method: http.MethodPost, Path: "/_matrix/client/v1/appservice/{appserviceId}/ping", Op: "pingAppservice",
			Also: []string{"/_matrix/client/unstable/fi.mau.msc2659/appservice/{appserviceId}/ping"},
			Auth: api.AuthUser, Rate: api.RateWrite, Handle: m.ping,
		},
		{Method: http.MethodPut, Path: v3 + "/directory/list/appservice/{networkId}/{roomId}", Op: "updateAppserviceRoomDirectoryVisibility", Auth: api.AuthUser, Rate: api.RateWrite, Handle: m.list},
		{Method: get, Path: third + "/protocols", Op: "getProtocols", Auth: api.AuthUser, Rate: api.RateRead, Guest: true, Handle: m.protocols},
		{Method: get, Path: third + "/protocol/{protocol}", Op: "getProtocolMetadata", Auth: api.AuthUser, Rate: api.RateRead, Handle: m.protocol},
		{Method: get, Path: third + "/location/{protocol}", Op: "queryLocationByProtocol", Auth: api.AuthUser, Rate: api.RateRead, Handle: m.ofProtocol(appservice.KindLocation)},
		{Method: get, Path: third + "/user/{protocol}", Op: "queryUserByProtocol", Auth: api.AuthUser, Rate: api.RateRead, Handle: m.ofProtocol(appservice.KindUser)},
		{Method: get, Path: third + "/location", Op: "queryLocationByAlias", Auth: api.AuthUser, Rate: api.RateRead, Handle: m.byName(appservice.KindLocation, "alias")},
		{Method: get, Path: third + "/user", Op: "queryUserByID", Auth: api.AuthUser, Rate: api.RateRead, Handle: m.byName(appservice.KindUser, "userid")},
	}
}

// caller returns the application service that calls: 403 for everyone else.
func (m *Module) caller(r *api.Request) (*appservice.Service, error) {
	s := m.Services.ByID(r.Caller.AppService)
	if s == nil {
		return nil, merr.ForbiddenErr("Only an application service may do this")
	}
	return s, nil
}

// ping: spec client-server §POST /appservice/{appserviceId}/ping.
func (m *Module) ping(r *api.Request) (any, error) {
	s, err := m.caller(r)
	if err != nil {
		return nil, err
	}
	if s.ID != r.Param("appserviceId") {
		return nil, merr.ForbiddenErr("The token is that of another application service")
	}
	var req struct {
		TransactionID string `json:"transaction_id"`
	}
	if err := api.DecodeBody(r, &req); err != nil {
		return nil, err
	}
	took, err := m.Client.Ping(r.Context, s, req.TransactionID)
	if err != nil {
		return nil, err
	}
	m.Pinged(s)
	return map[string]int64{"duration_ms": took.Milliseconds()}, nil
}

// list: spec client-server §PUT /directory/list/appservice/{networkId}/{roomId}.
func (m *Module) list(r *api.Request) (any, error) {
	s, err := m.caller(r)
	if err != nil {
		return nil, err
	}
	id, err := r.RoomID("roomId")
	if err != nil {
		return nil, err
	}
	var req struct {
		Visibility *string `json:"visibility"`
	}
	if err := api.DecodeBody(r, &req); err != nil {
		return nil, err
	}
	switch {
	case req.Visibility == nil:
		return nil, api.Missing("visibility")
	case *req.Visibility != "public" && *req.Visibility != "private":
		return nil, merr.InvalidParamErr("Unknown visibility")
	}
	head, err := m.Rooms.Head(r.Context, id)
	if err != nil {
		return nil, err
	}
	if head == nil {
		return nil, merr.NotFoundErr("There is no such room")
	}
	_, err = m.Router.Do(r.Context, &appservice.ListRoom{
		Instance: appservice.Instance{Service: s.ID, Network: r.Param("networkId")}, Room: id, Listed: *req.Visibility == "public",
	})
	return api.Empty, err
}

// protocols: spec client-server §GET /thirdparty/protocols.
func (m *Module) protocols(r *api.Request) (any, error) {
	return m.Client.Protocols(r.Context), nil
}

func errProtocol() error { return merr.NotFoundErr("No application service knows this protocol") }

// protocol: spec client-server §GET /thirdparty/protocol/{protocol}.
func (m *Module) protocol(r *api.Request) (any, error) {
	p := m.Client.Protocol(r.Context, r.Param("protocol"))
	if p == nil {
		return nil, errProtocol()
	}
	return p, nil
}

// ofProtocol: spec client-server §GET /thirdparty/location/{protocol},
// §GET /thirdparty/user/{protocol}. The fields are passed on as they are.
func (m *Module) ofProtocol(k appservice.Kind) api.Handler {
	return func(r *api.Request) (any, error) {
		if !m.Client.Knows(r.Param("protocol")) {
			return nil, errProtocol()
		}
		return m.Client.Lookup(r.Context, k, r.Param("protocol"), r.Query), nil
	}
}

// byName: spec client-server §GET /thirdparty/location, §GET /thirdparty/user.
func (m *Module) byName(k appservice.Kind, param string) api.Handler {
	return func(r *api.Request) (any, error) {
		if r.Query.Get(param) == "" {
			return nil, api.Missing(param)
		}
		return m.Client.Lookup(r.Context, k, "", map[string][]string{param: {r.Query.Get(param)}}), nil
	}
}
