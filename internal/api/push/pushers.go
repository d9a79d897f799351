package push

import (
	"crypto/rand"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/hubbub-chat/hubbub/internal/account"
	"github.com/hubbub-chat/hubbub/internal/api"
	"github.com/hubbub-chat/hubbub/internal/merr"
	"github.com/hubbub-chat/hubbub/internal/partition"
	"github.com/hubbub-chat/hubbub/internal/push"
	"github.com/hubbub-chat/hubbub/internal/push/webpush"
)

// Limits on what a pusher says.
const (
	// maxAppID and maxPushKey are from spec: client-server §POST /pushers/set.
	maxAppID   = 64
	maxPushKey = 512
	// maxName bounds each text that is for people, and the language; the sums stay
	// far below what one row of a user can hold.
	maxName = 255
	// maxData bounds data, which goes with each notification.
	maxData = 4096
	// gatewayPath is the path of every gateway. spec: POST /pushers/set, data.url.
	gatewayPath = "/_matrix/push/v1/notify"
)

// pusherJSON is a pusher as clients see it.
type pusherJSON struct {
	AppDisplayName    string         `json:"app_display_name"`
	AppID             string         `json:"app_id"`
	Data              jsontext.Value `json:"data"`
	DeviceDisplayName string         `json:"device_display_name"`
	Kind              string         `json:"kind"`
	Lang              string         `json:"lang"`
	ProfileTag        string         `json:"profile_tag,omitzero"`
	PushKey           string         `json:"pushkey"`
}

// pushers: spec client-server §GET /pushers.
func (m *Module) pushers(r *api.Request) (any, error) {
	st, err := m.Accounts.PushState(r.Context, r.Caller.User)
	if err != nil {
		return nil, err
	}
	list := []pusherJSON{}
	if st != nil {
		for _, p := range st.Pushers {
			list = append(list, pusherJSON{
				AppDisplayName: p.AppDisplayName, AppID: p.AppID, Data: shownData(&p), DeviceDisplayName: p.DeviceDisplayName,
				Kind: p.Kind, Lang: p.Lang, ProfileTag: p.ProfileTag, PushKey: p.PushKey,
			})
		}
	}
	return map[string][]pusherJSON{"pushers": list}, nil
}

// shownData is the data of a pusher without the secret of a browser, and with whether it
// was activated. spec: MSC4174.
func shownData(p *account.Pusher) jsontext.Value {
	if p.Kind != push.KindWebPush {
		return p.Data
	}
	var data map[string]jsontext.Value
	if json.Unmarshal(p.Data, &data) != nil {
		return jsontext.Value("{}") // it was checked when it was set
	}
	delete(data, "auth")
	data["activated"] = jsontext.Value(strconv.FormatBool(!p.Inactive))
	out, err := json.Marshal(data, json.Deterministic(true))
	if err != nil {
		return jsontext.Value("{}")
	}
	return out
}

// setBody is the body of POST /pushers/set.
type setBody struct {
	AppID             *string        `json:"app_id"`
	PushKey           *string        `json:"pushkey"`
	Kind              jsontext.Value `json:"kind"`
	AppDisplayName    *string        `json:"app_display_name"`
	DeviceDisplayName *string        `json:"device_display_name"`
	Lang              *string        `json:"lang"`
	ProfileTag        *string        `json:"profile_tag"`
	Data              jsontext.Value `json:"data"`
	Append            bool           `json:"append"`
}

// setPusher: spec client-server §POST /pushers/set.
func (m *Module) setPusher(r *api.Request) (any, error) {
	var b setBody
	if err := api.DecodeBody(r, &b); err != nil {
		return nil, err
	}
	app, err := textOf("app_id", b.AppID, maxAppID)
	if err != nil {
		return nil, err
	}
	key, err := textOf("pushkey", b.PushKey, maxPushKey)
	if err != nil {
		return nil, err
	}
	switch b.Kind.Kind() {
	case 0:
		return nil, merr.MissingParamErr("kind is missing")
	case 'n':
		_, err := m.Router.Do(r.Context, account.NewEndPusher(r.Caller.User, app, key))
		return api.Empty, err
	}
	p, err := m.pusher(&b)
	if err != nil {
		return nil, err
	}
	p.AppID, p.PushKey, p.Device = app, key, r.Caller.Device
	if p.Kind == push.KindWebPush {
		if err := m.checkWeb(&p); err != nil {
			return nil, err
		}
		p.Inactive, p.Ack = true, rand.Text()
	}
	set, err := partition.Do[account.PusherSet](r.Context, m.Router, account.NewSetPusher(r.Caller.User, p, b.Append))
	if err != nil || !set.Inactive {
		return api.Empty, err
	}
	return &api.Response{Status: http.StatusCreated, Body: api.Empty}, nil
}

// ackBody is the body of POST /pushers/ack.
type ackBody struct {
	AppID *string `json:"app_id"`
	Ack   *string `json:"ack_token"`
}

// ackPusher: MSC4174 §POST /pushers/ack.
func (m *Module) ackPusher(r *api.Request) (any, error) {
	var b ackBody
	if err := api.DecodeBody(r, &b); err != nil {
		return nil, err
	}
	app, err := textOf("app_id", b.AppID, maxAppID)
	if err != nil {
		return nil, err
	}
	ack, err := textOf("ack_token", b.Ack, maxName)
	if err != nil {
		return nil, err
	}
	_, err = m.Router.Do(r.Context, account.NewActivatePusher(r.Caller.User, app, ack))
	return api.Empty, err
}

// pusher checks what a pusher that is not removed has beside its name.
func (m *Module) pusher(b *setBody) (account.Pusher, error) {
	var p account.Pusher
	if err := api.DecodeJSON(b.Kind, &p.Kind); err != nil {
		return p, err
	}
	if !push.Served(p.Kind) {
		return p, merr.InvalidParamErr("This server has no pushers of kind %.64q", p.Kind)
	}
	for _, f := range []struct {
		name     string
		in       *string
		out      *string
		optional bool
	}{
		{"app_display_name", b.AppDisplayName, &p.AppDisplayName, false},
		{"device_display_name", b.DeviceDisplayName, &p.DeviceDisplayName, false},
		{"lang", b.Lang, &p.Lang, false},
		{"profile_tag", b.ProfileTag, &p.ProfileTag, true},
	} {
		if f.in == nil && f.optional {
			continue
		}
		if f.in != nil && *f.in == "" { // a device without a name is no mistake
			continue
		}
		var err error
		if *f.out, err = textOf(f.name, f.in, maxName); err != nil {
			return p, err
		}
	}
	data := b.Data.Clone()
	if data == nil {
		return p, merr.MissingParamErr("data is missing")
	}
	if err := data.Compact(); err != nil || data.Kind() != '{' {
		return p, merr.BadJSONErr("data must be an object").Because(err)
	}
	if len(data) > maxData {
		return p, merr.TooLargeErr("data may have %d bytes", maxData)
	}
	p.Data = data
	return p, m.checkData(p.Kind, data)
}

// checkWeb checks what a browser's subscription has beside its address.
func (m *Module) checkWeb(p *account.Pusher) error {
	var in struct {
		Auth       *string        `json:"auth"`
		EventsOnly bool           `json:"events_only"`
		Activated  jsontext.Value `json:"activated"`
	}
	if err := api.DecodeJSON(p.Data, &in); err != nil {
		return err
	}
	switch {
	case in.Auth == nil:
		return merr.MissingParamErr("data.auth is missing")
	case in.Activated != nil:
		return merr.InvalidParamErr("data.activated is the server's to say")
	}
	if _, err := webpush.NewSubscription(p.PushKey, *in.Auth); err != nil {
		return merr.InvalidParamErr("pushkey and data.auth are not the keys of a subscription")
	}
	return nil
}

// checkData checks what all kinds of pushers have in their data.
func (m *Module) checkData(kind string, data jsontext.Value) error {
	var in struct {
		URL    *string `json:"url"`
		Format *string `json:"format"`
	}
	if err := api.DecodeJSON(data, &in); err != nil {
		return err
	}
	if in.URL == nil {
		return merr.MissingParamErr("data.url is missing")
	}
	u, err := url.Parse(*in.URL)
	switch {
	case err != nil || u.Hostname() == "" || u.User != nil || u.Opaque != "" || u.Fragment != "":
		return merr.InvalidParamErr("data.url is not the URL of a push gateway")
	case u.Scheme != "https" && (u.Scheme != "http" || !m.PlainHTTP):
		return merr.InvalidParamErr("data.url must be an HTTPS URL")
	case kind == push.KindHTTP && u.EscapedPath() != gatewayPath:
		return merr.InvalidParamErr("The path of data.url must be %s", gatewayPath)
	}
	return nil
}

// textOf checks a text that has to be there.
func textOf(name string, s *string, limit int) (string, error) {
	switch {
	case s == nil:
		return "", merr.MissingParamErr("%s is missing", name)
	case *s == "":
		return "", merr.InvalidParamErr("%s is empty", name)
	case len(*s) > limit:
		return "", merr.InvalidParamErr("%s may have %d bytes", name, limit)
	case !utf8.ValidString(*s) || strings.IndexByte(*s, 0) >= 0:
		return "", merr.InvalidParamErr("%s is not clean UTF-8", name)
	}
	return *s, nil
}
