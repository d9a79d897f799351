// Package admin serves what administrators and their tools do with users, rooms,
// registration tokens and reports: the paths and answers that tools for Matrix
// servers agree on, /_synapse/admin. Every route needs an administrator.
//
// What a user could do for themselves is done by calling the user's own endpoint
// in process, in their name (Caller): it is checked and told to others as if they
// had done it.
//
// Lists are read by page: a list names where it goes on (next_token, next_batch),
// which costs the same wherever that is. A number instead, as some tools count it
// themselves, costs a step for each name before it. A total is what is known after
// the page: what came before, what is in it, and one more if there is more.
package admin

import (
	"context"
	"net/http"
	"net/url"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/hubbub-chat/hubbub/internal/account"
	"github.com/hubbub-chat/hubbub/internal/api"
	"github.com/hubbub-chat/hubbub/internal/clock"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/merr"
	"github.com/hubbub-chat/hubbub/internal/partition"
	"github.com/hubbub-chat/hubbub/internal/purge"
	"github.com/hubbub-chat/hubbub/internal/report"
	"github.com/hubbub-chat/hubbub/internal/room"
	"github.com/hubbub-chat/hubbub/internal/storage"
)

// Caller calls endpoints in process. *api.Dispatcher is one.
type Caller interface {
	Call(ctx context.Context, c api.Call) api.CallResult
}

// Sessions is what the module asks of the sessions of others.
type Sessions interface {
	HashPassword(ctx context.Context, user ids.UserID, password string) (string, error)
	SetPassword(ctx context.Context, user ids.UserID, password string, logout bool) error
	Deactivate(r *api.Request, user ids.UserID, erase bool) error
	EndDevices(ctx context.Context, user ids.UserID, devices ...ids.DeviceID) error
	LoginAs(r *api.Request, user ids.UserID, until int64) (string, error)
	NewUser(ctx context.Context, name string) (ids.UserID, error)
}

// Deps are what the module stands on.
type Deps struct {
	Server   string // the server name
	Version  string
	Count    int
	Store    storage.Store
	Router   partition.Router
	Accounts *account.Reader
	Rooms    *room.Reader
	Reports  *report.Reader
	Sessions Sessions
	Purges   *purge.Service
	Media    Media
	// Retention is how long events are kept.
	Retention room.Retention
	API       Caller
	Clock     clock.Clock
	// Changed is told of users whose rights changed.
	Changed func(ids.UserID)
}

// Module holds the handlers.
type Module struct{ Deps }

// New returns the module.
func New(d Deps) *Module { return &Module{d} }

const (
	base = "/_synapse/admin"
	v1   = base + "/v1"
	v2   = base + "/v2"
	v3   = base + "/v3"

	get, post, put, del = http.MethodGet, http.MethodPost, http.MethodPut, http.MethodDelete
)

// Routes are the routes of the module.
func (m *Module) Routes() []api.Route {
	all := []api.Route{
		{Method: get, Path: v1 + "/server_version", Rate: api.RateNone, Handle: m.serverVersion},
		{Method: get, Path: v1 + "/event_reports", Rate: api.RateRead, Handle: m.reports},
		{Method: get, Path: v1 + "/event_reports/{reportId}", Rate: api.RateRead, Handle: m.report},
		{Method: del, Path: v1 + "/event_reports/{reportId}", Rate: api.RateWrite, Handle: m.resolveReport},
		{Method: post, Path: v1 + "/send_server_notice", Rate: api.RateWrite, Handle: m.notice},
		{Method: put, Path: v1 + "/send_server_notice/{txnId}", Rate: api.RateWrite, Handle: m.notice},
		{Method: get, Path: "/_hubbub/v1/admin/retention", Rate: api.RateRead, Handle: m.retention},
	}
	all = append(all, m.userRoutes()...)
	all = append(all, m.roomRoutes()...)
	all = append(all, m.tokenRoutes()...)
	all = append(all, m.purgeRoutes()...)
	all = append(all, m.mediaRoutes()...)
	for i := range all {
		all[i].Auth = api.AuthAdmin
	}
	return all
}

func (m *Module) serverVersion(*api.Request) (any, error) {
	return map[string]string{"server_version": m.Version}, nil
}

// as calls an endpoint in the name of a user. The error is the endpoint's.
func (m *Module) as(r *api.Request, user ids.UserID, method, target string, body any) (jsontext.Value, error) {
	c := api.Call{
		Method: method, Target: target, Caller: api.Caller{User: user, Unlimited: true}, Addr: r.Addr, UserAgent: r.UserAgent,
	}
	if body != nil {
		var err error
		if c.Body, err = json.Marshal(body); err != nil {
			return nil, err
		}
	}
	res := m.API.Call(r.Context, c)
	if res.Status == http.StatusOK {
		return res.Body, nil
	}
	var e struct {
		Code merr.Code `json:"errcode"`
		Text string    `json:"error"`
	}
	if err := json.Unmarshal(res.Body, &e); err != nil {
		return nil, err
	}
	return nil, merr.New(res.Status, e.Code, "%s", e.Text)
}

// clientV3 builds a path of the Client-Server API from its segments.
func clientV3(segments ...string) string {
	p := "/_matrix/client/v3"
	for _, s := range segments {
		p += "/" + url.PathEscape(s)
	}
	return p
}

// pageOf is where a list begins and how long its page is.
type pageOf struct {
	after  string // a name, or ""
	skip   int64  // names to step over
	limit  int
	prefix int64 // what came before, as far as it is known
}

const (
	// defaultPage and maxPage bound the entries of one answer.
	defaultPage, maxPage = 100, 500
	// maxSkip bounds what a list steps over because its place is a number.
	maxSkip = 100_000
	// maxLooked bounds the names one search looks at; it goes on from there.
	maxLooked = 10_000
	// afterMark begins a place that is a name; no number does.
	afterMark = "after:"
)

// page reads from and limit.
func page(r *api.Request) (pageOf, error) {
	p := pageOf{}
	limit, err := r.QueryInt("limit", defaultPage, 0, maxPage)
	if err != nil {
		return p, err
	}
	p.limit = int(limit)
	from := r.Query.Get("from")
	if name, ok := cutPrefix(from, afterMark); ok {
		p.after = name
		return p, nil
	}
	if p.skip, err = r.QueryInt("from", 0, 0, maxSkip); err != nil {
		return p, err
	}
	p.prefix = p.skip
	return p, nil
}

func cutPrefix(s, prefix string) (string, bool) {
	if len(s) >= len(prefix) && s[:len(prefix)] == prefix {
		return s[len(prefix):], true
	}
	return s, false
}

type reportAnswer struct {
	ID        ids.Seq     `json:"id"`
	TS        int64       `json:"received_ts"`
	Room      ids.RoomID  `json:"room_id,omitempty"`
	Event     ids.EventID `json:"event_id,omitempty"`
	Reporter  ids.UserID  `json:"user_id"`
	Sender    ids.UserID  `json:"sender,omitempty"`
	Reason    string      `json:"reason,omitempty"`
	Score     *int        `json:"score,omitempty"`
	EventJSON any         `json:"event_json,omitempty"`
}

func answerReport(p *report.Report) reportAnswer {
	return reportAnswer{ID: p.ID, TS: p.TS, Room: p.Room, Event: p.Event, Reporter: p.Reporter, Sender: p.User, Reason: p.Reason, Score: p.Score}
}

// reports lists what was reported, the newest first; next_token is a report's ID.
func (m *Module) reports(r *api.Request) (any, error) {
	limit, err := r.QueryInt("limit", defaultPage, 1, maxPage)
	if err != nil {
		return nil, err
	}
	before, err := r.QueryInt("from", 0, 0, 1<<62)
	if err != nil {
		return nil, err
	}
	list, err := m.Reports.List(r.Context, ids.Seq(before), int(limit)+1)
	if err != nil {
		return nil, err
	}
	answer := map[string]any{"total": len(list)}
	if len(list) > int(limit) {
		list = list[:limit]
		answer["next_token"] = list[limit-1].ID
	}
	out := make([]reportAnswer, len(list))
	for i, p := range list {
		out[i] = answerReport(p)
	}
	answer["event_reports"] = out
	return answer, nil
}

func (m *Module) reportID(r *api.Request) (ids.Seq, error) {
	n, err := parseUint(r.Param("reportId"))
	if err != nil {
		return 0, merr.InvalidParamErr("The report ID is not a number")
	}
	return ids.Seq(n), nil
}

func (m *Module) report(r *api.Request) (any, error) {
	id, err := m.reportID(r)
	if err != nil {
		return nil, err
	}
	p, err := m.Reports.Get(r.Context, id)
	if err != nil {
		return nil, err
	}
	if p == nil {
		return nil, merr.NotFoundErr("There is no such report")
	}
	a := answerReport(p)
	if p.Event != "" {
		s, err := m.Rooms.Event(r.Context, p.Room, p.Event)
		if err != nil {
			return nil, err
		}
		if s != nil {
			a.EventJSON = jsontext.Value(s.AppendClient(nil, room.Viewer{RoomID: true}))
		}
	}
	return a, nil
}

func (m *Module) resolveReport(r *api.Request) (any, error) {
	id, err := m.reportID(r)
	if err != nil {
		return nil, err
	}
	_, err = m.Router.Do(r.Context, &report.Resolve{ID: id})
	return api.Empty, err
}
