// Package discovery serves what a client asks to learn about the server: which
// versions and features it has, where it is, what the caller may do. spec:
// client-server §API Versions, §Well-known URIs, §Capabilities negotiation.
//
// Answers depend on the configuration alone, never on what the request says
// about the host.
package discovery

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/hubbub-chat/hubbub/internal/api"
	"github.com/hubbub-chat/hubbub/internal/config"
	"github.com/hubbub-chat/hubbub/internal/event"
	"github.com/hubbub-chat/hubbub/internal/merr"
)

// Deps are what the module tells.
type Deps struct {
	// Server is the server name, Version the program's version.
	Server, Version string
	// BaseURL is where clients reach the server, "" if that is not known.
	BaseURL      string
	Registration config.RegistrationMode
	TestMode     bool
	// DefaultRoomVersion is the version of rooms whose creator names none.
	DefaultRoomVersion string
	// Email: accounts can have e-mail addresses.
	Email bool
	// MaxEventDelay is the longest delay of an event, 0 if there are none, and
	// MaxDelayed how many of a user may wait.
	MaxEventDelay time.Duration
	MaxDelayed    int
	// Retention says how long events are kept, nil for ever.
	Retention map[string]any
	// ThreadRules: push rules ask whether a user is subscribed to a thread.
	ThreadRules bool
	// WebPush is the public key with which browsers subscribe to notifications.
	WebPush string
	// Livekit are the addresses of services for calls of many people.
	Livekit []string
	// Support says whom users can turn to, nil if nobody was named.
	Support *Support
}

// Support is who answers questions about the server. It has at least one contact
// or a page. spec: client-server §GET /.well-known/matrix/support.
type Support struct {
	Contacts []Contact `json:"contacts,omitempty"`
	Page     string    `json:"support_page,omitempty"`
}

// Contact is one who can be asked; MatrixID or Email is set.
type Contact struct {
	MatrixID string `json:"matrix_id,omitempty"`
	Email    string `json:"email_address,omitempty"`
	// Role is m.role.admin or m.role.security.
	Role string `json:"role"`
}

// versions are the versions of the specification that the server has.
//
// A version is named when what clients switch on by it works; that a server lacks
// an endpoint they learn from 404 M_UNRECOGNIZED. Clients take a version for a
// promise of all before it, so the list has no gaps:
//
//   - r0.5.0 to r0.6.1: paths of r0 are answered; lazy loading of members;
//   - v1.1: the paths of v3;
//   - v1.2: registration tokens, restricted rooms, is_guest;
//   - v1.3: refresh tokens, knock_restricted, /messages without from;
//   - v1.4: threads, with lists, receipts and unread counts of their own; edits;
//     private receipts;
//   - v1.5 to v1.10: timestamp_to_event, login/get_token, media made before it is
//     uploaded, m.mentions, relations with recurse;
//   - v1.11: media is downloaded with an access token. Many clients ask the old
//     paths unless they find it here, where there is nothing unless
//     media.legacy_download is set;
//   - v1.12 to v1.14: locked and suspended accounts, reports of rooms and users.
//
// v1.15 is not named: clients take it for OAuth. What later versions brought and this
// server has is in features.
func versions() []string {
	return []string{
		"r0.5.0", "r0.6.0", "r0.6.1",
		"v1.1", "v1.2", "v1.3", "v1.4", "v1.5", "v1.6", "v1.7", "v1.8", "v1.9", "v1.10", "v1.11", "v1.12", "v1.13", "v1.14",
	}
}

// features are the names by which clients find single features, of versions which
// are not named yet, or which they do not look for by the version.
func features(d *Deps) map[string]bool {
	return map[string]bool{
		// Delayed events.
		"org.matrix.msc4140": d.MaxEventDelay > 0,
		// Dehydrated devices.
		"org.matrix.msc3814": true,
		// How long events are kept.
		"org.matrix.msc1763": d.Retention != nil,
		// Subscriptions to threads, which push rules ask about.
		"org.matrix.msc4306": d.ThreadRules,
		// Notifications by the push services of browsers.
		"org.matrix.msc4174": true,
		// Account data that is deleted.
		"org.matrix.msc3391": true,
		// Where calls of many people find their media server.
		"org.matrix.msc4143": true,
		// Application services are pinged (v1.7), and act as devices.
		"fi.mau.msc2659.stable": true,
		"org.matrix.msc3202":    true,
		// Media are uploaded to an ID that was made before (v1.7).
		"fi.mau.msc2246.stable": true,
		// Media are downloaded with a token (v1.11), for clients that look here only.
		"org.matrix.msc3916.stable": true,
		// Read receipts that only their sender sees (v1.4).
		"org.matrix.msc2285.stable": true,
		// Threads, with a list of those in a room (v1.4), which old clients look for here.
		"org.matrix.msc3440.stable": true,
		// Filters for types of relations.
		"org.matrix.msc3874": true,
		// /relations with recurse (v1.10).
		"org.matrix.msc3981": true,
		// /sync with the state after the timeline (v1.16).
		"org.matrix.msc4222": true,
		// Users who block invites (v1.18).
		"org.matrix.msc4380.stable": true,
		// Simplified sliding sync.
		"org.matrix.simplified_msc3575": true,
		// Push rules that look at m.mentions (v1.7).
		"org.matrix.msc3952_intentional_mentions": true,
		// Profile fields of any name (v1.16), under the stable and the old path.
		"uk.tcpip.msc4133":        true,
		"uk.tcpip.msc4133.stable": true,
		// Rooms shared with another user (v1.19), by the names that clients look for.
		"uk.half-shot.msc2666.query_mutual_rooms":        true,
		"uk.half-shot.msc2666.query_mutual_rooms.stable": true,
	}
}

// Module holds the answers, which are made once.
type Module struct {
	versions, client, server, support, capabilities, transports, retention, info jsontext.Value
}

// New returns the module. It fails if d.Support is no answer.
func New(d Deps) (*Module, error) {
	if d.Support != nil && len(d.Support.Contacts) == 0 && d.Support.Page == "" {
		return nil, errors.New("discovery: support names nobody")
	}
	m := &Module{}
	var support, client, server, retention any
	if d.Retention != nil {
		retention = d.Retention
	}
	if d.Support != nil {
		support = d.Support
	}
	if d.BaseURL != "" {
		about := map[string]any{"m.homeserver": map[string]string{"base_url": strings.TrimSuffix(d.BaseURL, "/")}}
		if len(d.Livekit) > 0 {
			about["org.matrix.msc4143.rtc_foci"] = transports(d.Livekit)
		}
		client = about
		if host := hostPort(d.BaseURL); host != "" {
			server = map[string]string{"m.server": host}
		}
	}
	for _, a := range []struct {
		to *jsontext.Value
		v  any
	}{
		{&m.versions, map[string]any{"versions": versions(), "unstable_features": features(&d)}},
		{&m.client, client},
		{&m.server, server},
		{&m.support, support},
		{&m.capabilities, map[string]any{"capabilities": capabilities(&d)}},
		{&m.retention, retention},
		{&m.transports, map[string]any{"rtc_transports": transports(d.Livekit)}},
		{&m.info, map[string]any{
			"server_name": d.Server, "version": d.Version, "registration": d.Registration, "test_mode": d.TestMode,
		}},
	} {
		if a.v == nil {
			continue
		}
		var err error
		if *a.to, err = json.Marshal(a.v, json.Deterministic(true)); err != nil {
			return nil, fmt.Errorf("discovery: %w", err)
		}
	}
	return m, nil
}

// hostPort is the host and port of a URL, "" if it has none. Without a port other
// servers would look in other places before they ask there.
func hostPort(base string) string {
	u, err := url.Parse(base)
	if err != nil || u.Hostname() == "" {
		return ""
	}
	port := u.Port()
	switch {
	case port != "":
	case u.Scheme == "https":
		port = "443"
	default:
		port = "80"
	}
	return net.JoinHostPort(u.Hostname(), port)
}

// capabilities: spec client-server §Capabilities negotiation.
func capabilities(d *Deps) map[string]any {
	type enabled struct {
		Enabled bool `json:"enabled"`
	}
	available := make(map[string]string)
	for _, v := range event.Supported() {
		available[v] = "stable"
	}
	all := map[string]any{
		"m.room_versions":   map[string]any{"default": d.DefaultRoomVersion, "available": available},
		"m.change_password": enabled{true},
		"m.profile_fields":  enabled{true},
		"m.set_displayname": enabled{true},
		"m.set_avatar_url":  enabled{true},
		"m.3pid_changes":    enabled{d.Email},
		"m.get_login_token": enabled{true},

		"org.matrix.msc4174.webpush": map[string]any{"enabled": true, "vapid": d.WebPush},
	}
	if d.MaxEventDelay > 0 {
		limits := map[string]int64{"max_delay_ms": d.MaxEventDelay.Milliseconds(), "max_scheduled": int64(d.MaxDelayed)}
		all["m.delayed_events"], all["org.matrix.msc4140.delayed_events"] = limits, limits
	}
	return all
}

// transports lists where calls of many people meet. spec: MSC4143, MSC4195.
func transports(urls []string) []map[string]string {
	list := make([]map[string]string, 0, len(urls))
	for _, u := range urls {
		list = append(list, map[string]string{"type": "livekit", "livekit_service_url": u})
	}
	return list
}

// Routes are the routes of the module.
func (m *Module) Routes() []api.Route {
	const v3 = "/_matrix/client/v3"
	return []api.Route{
		open("getVersions", "/_matrix/client/versions", fixed(m.versions)),
		open("getWellknown", "/.well-known/matrix/client", fixed(m.client)),
		// There is no federation. But services beside the server, for calls, ask here
		// where to verify that a user is one of ours. spec: server-server
		// §GET /.well-known/matrix/server.
		open("", "/.well-known/matrix/server", fixed(m.server)),
		open("getWellknownSupport", "/.well-known/matrix/support", fixed(m.support)),
		open("", "/_hubbub/v1/info", fixed(m.info)),
		own("getCapabilities", v3+"/capabilities", fixed(m.capabilities)),
		// Clients that get no TURN server go on without one; an error they repeat.
		{
			Method: http.MethodGet, Path: "/_matrix/client/v1/rtc/transports",
			Also: []string{"/_matrix/client/unstable/org.matrix.msc4143/rtc/transports"},
			Auth: api.AuthUser, Rate: api.RateNone, Guest: true, Handle: fixed(m.transports),
		},
		{
			Method: http.MethodGet, Path: "/_matrix/client/unstable/org.matrix.msc1763/retention/configuration",
			Auth: api.AuthUser, Rate: api.RateNone, Guest: true, Handle: fixed(m.retention),
		},
		own("getTurnServer", v3+"/voip/turnServer", fixed(api.Empty)),
	}
}

func open(op, path string, h api.Handler) api.Route {
	return api.Route{Method: http.MethodGet, Path: path, Op: op, Auth: api.AuthNone, Rate: api.RateNone, Handle: h}
}

func own(op, path string, h api.Handler) api.Route {
	return api.Route{Method: http.MethodGet, Path: path, Op: op, Auth: api.AuthUser, Rate: api.RateNone, Guest: true, Handle: h}
}

// fixed answers always the same, and 404 M_NOT_FOUND if that is nothing.
func fixed(v jsontext.Value) api.Handler {
	if v == nil {
		return func(*api.Request) (any, error) { return nil, merr.NotFoundErr("There is nothing about that") }
	}
	return func(*api.Request) (any, error) { return v, nil }
}
