package admin

import (
	"context"
	"net/http"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/hubbub-chat/hubbub/internal/account"
	"github.com/hubbub-chat/hubbub/internal/api"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/merr"
	"github.com/hubbub-chat/hubbub/internal/storage"
	"github.com/hubbub-chat/hubbub/internal/tables"
)

func (m *Module) userRoutes() []api.Route {
	const user, user2 = v1 + "/users/{userId}", v2 + "/users/{userId}"
	return []api.Route{
		{Method: get, Path: v2 + "/users", Also: []string{v3 + "/users"}, Rate: api.RateRead, Handle: m.users},
		{Method: get, Path: user2, Rate: api.RateRead, Handle: m.user},
		{Method: put, Path: user2, Rate: api.RateWrite, Handle: m.putUser},
		{Method: get, Path: user2 + "/devices", Rate: api.RateRead, Handle: m.devices},
		{Method: post, Path: user2 + "/delete_devices", Rate: api.RateWrite, Handle: m.deleteDevices},
		{Method: get, Path: user2 + "/devices/{deviceId}", Rate: api.RateRead, Handle: m.device},
		{Method: put, Path: user2 + "/devices/{deviceId}", Rate: api.RateWrite, Handle: m.renameDevice},
		{Method: del, Path: user2 + "/devices/{deviceId}", Rate: api.RateWrite, Handle: m.deleteDevice},
		{Method: get, Path: user + "/admin", Rate: api.RateRead, Handle: m.isAdmin},
		{Method: put, Path: user + "/admin", Rate: api.RateWrite, Handle: m.setAdmin},
		{Method: get, Path: user + "/joined_rooms", Rate: api.RateRead, Handle: m.joinedRooms},
		{Method: get, Path: user + "/pushers", Rate: api.RateRead, Handle: m.pushers},
		{Method: post, Path: user + "/login", Rate: api.RateWrite, Handle: m.loginAs},
		{Method: get, Path: user + "/override_ratelimit", Rate: api.RateRead, Handle: m.rateLimit},
		{Method: post, Path: user + "/override_ratelimit", Rate: api.RateWrite, Handle: m.setRateLimit},
		{Method: del, Path: user + "/override_ratelimit", Rate: api.RateWrite, Handle: m.deleteRateLimit},
		{Method: post, Path: v1 + "/reset_password/{userId}", Rate: api.RateWrite, Handle: m.resetPassword},
		{Method: post, Path: v1 + "/deactivate/{userId}", Rate: api.RateWrite, Handle: m.deactivate},
		{Method: get, Path: v1 + "/whois/{userId}", Rate: api.RateRead, Handle: m.whois},
		{Method: get, Path: v1 + "/username_available", Rate: api.RateRead, Handle: m.available},
	}
}

func parseUint(s string) (uint64, error) { return strconv.ParseUint(s, 10, 62) }

// local reads the user of the path, who belongs to this server.
func (m *Module) local(r *api.Request) (ids.UserID, error) { return r.LocalUser("userId", m.Server) }

// existing is local with the account: 404 M_NOT_FOUND if there is none.
func (m *Module) existing(r *api.Request) (ids.UserID, *account.Account, error) {
	user, err := m.local(r)
	if err != nil {
		return "", nil, err
	}
	a, err := m.Accounts.Account(r.Context, user)
	if err == nil && a == nil {
		err = merr.NotFoundErr("No such user")
	}
	return user, a, err
}

type userAnswer struct {
	Name        ids.UserID `json:"name"`
	UserType    any        `json:"user_type"`
	Guest       bool       `json:"is_guest"`
	Admin       bool       `json:"admin"`
	Deactivated bool       `json:"deactivated"`
	Locked      bool       `json:"locked"`
	Suspended   bool       `json:"suspended"`
	Shadow      bool       `json:"shadow_banned"`
	Erased      bool       `json:"erased"`
	Approved    bool       `json:"approved"`
	DisplayName string     `json:"displayname,omitempty"`
	AvatarURL   string     `json:"avatar_url,omitempty"`
	CreatedTS   int64      `json:"creation_ts"`
}

func answerUser(n *account.Names, a *account.Account) userAnswer {
	return userAnswer{
		Name: n.User, Guest: a.Guest, Admin: a.Admin, Deactivated: a.Deactivated, Locked: a.Locked, Suspended: a.Suspended,
		Approved: true, DisplayName: n.DisplayName, AvatarURL: n.AvatarURL, CreatedTS: a.CreatedTS,
	}
}

// userFilter is which users a list shows.
type userFilter struct {
	deactivated, locked, noGuests bool
	admins                        string
	id, name                      string
}

func userFilterOf(r *api.Request) (f userFilter, err error) {
	flag := func(to *bool, name string) {
		if err == nil {
			*to, err = r.QueryBool(name)
		}
	}
	flag(&f.deactivated, "deactivated")
	flag(&f.locked, "locked")
	f.noGuests = r.Query.Get("guests") == "false"
	if err == nil {
		f.admins, err = r.QueryEnum("admins", "", "true", "false")
	}
	f.id, f.name = strings.ToLower(r.Query.Get("user_id")), strings.ToLower(r.Query.Get("name"))
	return f, err
}

func (f *userFilter) match(n *account.Names, a *account.Account) bool {
	contains := func(in, part string) bool { return strings.Contains(strings.ToLower(in), part) }
	switch {
	case a.Deactivated && !f.deactivated, a.Locked && !f.locked, a.Guest && f.noGuests:
		return false
	case f.admins != "" && (f.admins == "true") != a.Admin:
		return false
	case f.id != "":
		return contains(string(n.User), f.id)
	}
	return f.name == "" || contains(n.User.Localpart(), f.name) || contains(n.DisplayName, f.name)
}

// users lists accounts by name.
func (m *Module) users(r *api.Request) (any, error) {
	f, err := userFilterOf(r)
	if err != nil {
		return nil, err
	}
	p, err := page(r)
	if err != nil {
		return nil, err
	}
	out := []userAnswer{}
	next, more, err := m.list(r.Context, tables.Users, &p, func(name string) (bool, error) {
		u, err := m.describe(r.Context, ids.UserID(name), &f)
		if u == nil || err != nil {
			return false, err
		}
		if p.skip > 0 {
			p.skip--
			return true, nil
		}
		out = append(out, *u)
		return true, nil
	}, func() int { return len(out) })
	if err != nil {
		return nil, err
	}
	answer := map[string]any{"users": out, "total": p.prefix + int64(len(out)) + more}
	if next != "" {
		answer["next_token"] = next
	}
	return answer, nil
}

// list walks the names of a table until a page is full or too many were looked at.
// take reports whether a name belongs to the list; more is 1 if there is more, and
// next where.
func (m *Module) list(ctx context.Context, t storage.Table, p *pageOf, take func(name string) (bool, error), have func() int) (next string, more int64, err error) {
	looked, last := 0, p.after
	err = tables.Merge(ctx, m.Store, m.Count, t, p.after, func(name string) (bool, error) {
		if have() >= p.limit || looked == maxLooked+maxSkip {
			next, more = afterMark+last, 1
			return false, nil
		}
		looked++
		last = name
		if _, err := take(name); err != nil {
			return false, err
		}
		return true, nil
	})
	return next, more, err
}

// describe returns a user for a list, nil if it is not in it.
func (m *Module) describe(ctx context.Context, user ids.UserID, f *userFilter) (*userAnswer, error) {
	n, err := m.Accounts.Names(ctx, user)
	if err != nil || n == nil {
		return nil, err
	}
	a, err := m.Accounts.Account(ctx, user)
	if err != nil || a == nil || !f.match(n, a) {
		return nil, err
	}
	u := answerUser(n, a)
	return &u, nil
}

func (m *Module) user(r *api.Request) (any, error) {
	user, _, err := m.existing(r)
	if err != nil {
		return nil, err
	}
	return m.userDetail(r.Context, user)
}

func (m *Module) userDetail(ctx context.Context, user ids.UserID) (any, error) {
	all := userFilter{deactivated: true, locked: true}
	u, err := m.describe(ctx, user, &all)
	if err != nil || u == nil {
		return nil, err
	}
	list, err := m.Accounts.Contacts(ctx, user)
	if err != nil {
		return nil, err
	}
	detail := userDetail{userAnswer: *u, ThreePIDs: []account.Contact{}, External: []external{}}
	for _, c := range list {
		if provider, ok := strings.CutPrefix(c.Medium, account.MediumSignOn); ok {
			detail.External = append(detail.External, external{provider, c.Address})
		} else {
			detail.ThreePIDs = append(detail.ThreePIDs, c)
		}
	}
	return detail, nil
}

// userDetail is what is told of one user: also by which addresses, and from where,
// they sign in.
type userDetail struct {
	userAnswer
	ThreePIDs []account.Contact `json:"threepids"`
	External  []external        `json:"external_ids"`
}

// external is an account elsewhere with which a user signs in.
type external struct {
	Provider string `json:"auth_provider"`
	ID       string `json:"external_id"`
}

// userChange is the body that makes or changes a user; what is absent stays.
type userChange struct {
	Password    *string        `json:"password"`
	Logout      *bool          `json:"logout_devices"`
	DisplayName *string        `json:"displayname"`
	AvatarURL   *string        `json:"avatar_url"`
	Admin       *bool          `json:"admin"`
	Deactivated *bool          `json:"deactivated"`
	Locked      *bool          `json:"locked"`
	UserType    jsontext.Value `json:"user_type"`
	ThreePIDs   jsontext.Value `json:"threepids"`
	External    jsontext.Value `json:"external_ids"`
}

// putUser makes a user or changes one.
func (m *Module) putUser(r *api.Request) (any, error) {
	user, err := m.local(r)
	if err != nil {
		return nil, err
	}
	var c userChange
	if err := api.DecodeBody(r, &c); err != nil {
		return nil, err
	}
	a, err := m.Accounts.Account(r.Context, user)
	if err != nil {
		return nil, err
	}
	status := http.StatusOK
	if a == nil {
		status = http.StatusCreated
		err = m.makeUser(r, user, &c)
	} else {
		err = m.changeUser(r, user, a, &c)
	}
	if err == nil {
		err = m.changeProfile(r, user, &c)
	}
	if err != nil {
		return nil, err
	}
	if status == http.StatusOK {
		m.Changed(user)
	}
	detail, err := m.userDetail(r.Context, user)
	return api.Response{Status: status, Body: detail}, err
}

func (m *Module) makeUser(r *api.Request, user ids.UserID, c *userChange) error {
	if _, err := m.Sessions.NewUser(r.Context, user.Localpart()); err != nil {
		return err
	}
	a := account.Account{Admin: c.Admin != nil && *c.Admin}
	if c.Password != nil {
		var err error
		if a.PasswordHash, err = m.Sessions.HashPassword(r.Context, user, *c.Password); err != nil {
			return err
		}
	}
	_, err := m.Router.Do(r.Context, account.NewRegister(user, a, user.Localpart(), nil))
	return err
}

func (m *Module) changeUser(r *api.Request, user ids.UserID, a *account.Account, c *userChange) error {
	switch {
	case c.Deactivated != nil && *c.Deactivated && !a.Deactivated:
		return m.Sessions.Deactivate(r, user, false)
	case c.Deactivated != nil && !*c.Deactivated && a.Deactivated:
		if c.Password == nil {
			return merr.InvalidParamErr("Who is to be active again needs a password")
		}
		hash, err := m.Sessions.HashPassword(r.Context, user, *c.Password)
		if err != nil {
			return err
		}
		cmd := account.NewModify(user)
		cmd.Reactivate = hash
		if _, err := m.Router.Do(r.Context, cmd); err != nil {
			return err
		}
	case c.Password != nil:
		if err := m.Sessions.SetPassword(r.Context, user, *c.Password, c.Logout == nil || *c.Logout); err != nil {
			return err
		}
	}
	if c.Locked != nil && *c.Locked != a.Locked { // before the rights: administrators are not locked
		if _, err := m.Router.Do(r.Context, account.NewSetStatus(user, c.Locked, nil)); err != nil {
			return err
		}
	}
	if c.Admin != nil && *c.Admin != a.Admin {
		return m.makeAdmin(r, user, *c.Admin)
	}
	return nil
}

// makeAdmin gives or takes the rights of an administrator. Nobody takes their own:
// the last one could not give them back.
func (m *Module) makeAdmin(r *api.Request, user ids.UserID, admin bool) error {
	if user == r.Caller.User && !admin {
		return merr.InvalidParamErr("You may not take your own rights away")
	}
	cmd := account.NewModify(user)
	cmd.Admin = &admin
	_, err := m.Router.Do(r.Context, cmd)
	return err
}

func (m *Module) changeProfile(r *api.Request, user ids.UserID, c *userChange) error {
	for field, value := range map[string]*string{account.FieldDisplayName: c.DisplayName, account.FieldAvatarURL: c.AvatarURL} {
		if value == nil {
			continue
		}
		if _, err := m.as(r, user, put, clientV3("profile", string(user), field), map[string]string{field: *value}); err != nil {
			return err
		}
	}
	return nil
}

type deviceAnswer struct {
	ID          ids.DeviceID `json:"device_id"`
	DisplayName string       `json:"display_name"`
	IP          string       `json:"last_seen_ip"`
	UserAgent   string       `json:"last_seen_user_agent"`
	TS          int64        `json:"last_seen_ts"`
	User        ids.UserID   `json:"user_id"`
	Dehydrated  bool         `json:"dehydrated"`
}

func answerDevice(u ids.UserID, id ids.DeviceID, d *account.Device) deviceAnswer {
	return deviceAnswer{id, d.DisplayName, d.LastSeenIP, d.UserAgent, d.LastSeenTS, u, d.Dehydrated}
}

func (m *Module) devices(r *api.Request) (any, error) {
	user, _, err := m.existing(r)
	if err != nil {
		return nil, err
	}
	list, err := m.Accounts.Devices(r.Context, user)
	out := make([]deviceAnswer, len(list))
	for i := range list {
		out[i] = answerDevice(user, list[i].ID, &list[i].Device)
	}
	return map[string]any{"devices": out, "total": len(out)}, err
}

func (m *Module) device(r *api.Request) (any, error) {
	user, _, err := m.existing(r)
	if err != nil {
		return nil, err
	}
	id := ids.DeviceID(r.Param("deviceId"))
	d, err := m.Accounts.Device(r.Context, user, id)
	if err != nil {
		return nil, err
	}
	if d == nil {
		return nil, merr.NotFoundErr("No such device")
	}
	return answerDevice(user, id, d), nil
}

func (m *Module) renameDevice(r *api.Request) (any, error) {
	user, _, err := m.existing(r)
	if err != nil {
		return nil, err
	}
	var body map[string]any
	if err := api.DecodeBody(r, &body); err != nil {
		return nil, err
	}
	return m.as(r, user, put, clientV3("devices", r.Param("deviceId")), body)
}

func (m *Module) deleteDevice(r *api.Request) (any, error) {
	user, _, err := m.existing(r)
	if err != nil {
		return nil, err
	}
	return api.Empty, m.Sessions.EndDevices(r.Context, user, ids.DeviceID(r.Param("deviceId")))
}

func (m *Module) deleteDevices(r *api.Request) (any, error) {
	user, _, err := m.existing(r)
	if err != nil {
		return nil, err
	}
	var req struct {
		Devices []ids.DeviceID `json:"devices"`
	}
	if err := api.DecodeBody(r, &req); err != nil {
		return nil, err
	}
	switch {
	case req.Devices == nil:
		return nil, api.Missing("devices")
	case len(req.Devices) > account.MaxDevices:
		return nil, merr.InvalidParamErr("More than %d devices", account.MaxDevices)
	}
	return api.Empty, m.Sessions.EndDevices(r.Context, user, req.Devices...)
}

func (m *Module) isAdmin(r *api.Request) (any, error) {
	_, a, err := m.existing(r)
	if err != nil {
		return nil, err
	}
	return map[string]bool{"admin": a.Admin}, nil
}

func (m *Module) setAdmin(r *api.Request) (any, error) {
	user, _, err := m.existing(r)
	if err != nil {
		return nil, err
	}
	var req struct {
		Admin *bool `json:"admin"`
	}
	if err := api.DecodeBody(r, &req); err != nil {
		return nil, err
	}
	if req.Admin == nil {
		return nil, api.Missing("admin")
	}
	if err := m.makeAdmin(r, user, *req.Admin); err != nil {
		return nil, err
	}
	m.Changed(user)
	return api.Empty, nil
}

func (m *Module) joinedRooms(r *api.Request) (any, error) {
	user, _, err := m.existing(r)
	if err != nil {
		return nil, err
	}
	list, err := m.Accounts.Joined(r.Context, user)
	return map[string]any{"joined_rooms": list, "total": len(list)}, err
}

// pushers lists a user's pushers, none where the server has no push.
func (m *Module) pushers(r *api.Request) (any, error) {
	user, _, err := m.existing(r)
	if err != nil {
		return nil, err
	}
	out := struct {
		Pushers []jsontext.Value `json:"pushers"`
		Total   int              `json:"total"`
	}{Pushers: []jsontext.Value{}}
	raw, err := m.as(r, user, get, clientV3("pushers"), nil)
	if err != nil && !merr.Is(err, merr.Unrecognized) {
		return nil, err
	}
	if err == nil {
		if err := api.DecodeJSON(raw, &out); err != nil {
			return nil, err
		}
	}
	out.Total = len(out.Pushers)
	return out, nil
}

func (m *Module) loginAs(r *api.Request) (any, error) {
	user, _, err := m.existing(r)
	if err != nil {
		return nil, err
	}
	var req struct {
		Until int64 `json:"valid_until_ms"`
	}
	if err := api.DecodeBody(r, &req); err != nil {
		return nil, err
	}
	if user == r.Caller.User {
		return nil, merr.InvalidParamErr("You are yourself already")
	}
	token, err := m.Sessions.LoginAs(r, user, req.Until)
	if err != nil {
		return nil, err
	}
	return map[string]string{"access_token": token}, nil
}

type rateLimit struct {
	PerSecond *int `json:"messages_per_second,omitempty"`
	Burst     *int `json:"burst_count,omitempty"`
}

func noLimit() rateLimit {
	zero := 0
	return rateLimit{&zero, &zero}
}

// rateLimit: {} for a user who is limited as all others are.
func (m *Module) rateLimit(r *api.Request) (any, error) {
	_, a, err := m.existing(r)
	if err != nil {
		return nil, err
	}
	if a.Unlimited {
		return noLimit(), nil
	}
	return api.Empty, nil
}

// setRateLimit exempts a user. Other limits than none are refused: all users have
// those of the configuration.
func (m *Module) setRateLimit(r *api.Request) (any, error) {
	var req rateLimit
	if err := api.DecodeBody(r, &req); err != nil {
		return nil, err
	}
	if req.PerSecond != nil && *req.PerSecond != 0 || req.Burst != nil && *req.Burst != 0 {
		return nil, merr.InvalidParamErr("A user has the limits of the configuration, or with 0 none")
	}
	return noLimit(), m.setUnlimited(r, true)
}

func (m *Module) deleteRateLimit(r *api.Request) (any, error) {
	return api.Empty, m.setUnlimited(r, false)
}

func (m *Module) setUnlimited(r *api.Request, unlimited bool) error {
	user, _, err := m.existing(r)
	if err != nil {
		return err
	}
	cmd := account.NewModify(user)
	cmd.Unlimited = &unlimited
	if _, err := m.Router.Do(r.Context, cmd); err != nil {
		return err
	}
	m.Changed(user)
	return nil
}

func (m *Module) resetPassword(r *api.Request) (any, error) {
	user, _, err := m.existing(r)
	if err != nil {
		return nil, err
	}
	var req struct {
		Password *string `json:"new_password"`
		Logout   *bool   `json:"logout_devices"`
	}
	if err := api.DecodeBody(r, &req); err != nil {
		return nil, err
	}
	if req.Password == nil {
		return nil, api.Missing("new_password")
	}
	return api.Empty, m.Sessions.SetPassword(r.Context, user, *req.Password, req.Logout == nil || *req.Logout)
}

func (m *Module) deactivate(r *api.Request) (any, error) {
	var req struct {
		Erase bool `json:"erase"`
	}
	if err := api.DecodeBody(r, &req); err != nil {
		return nil, err
	}
	user, _, err := m.existing(r)
	if err != nil {
		return nil, err
	}
	if err := m.Sessions.Deactivate(r, user, req.Erase); err != nil {
		return nil, err
	}
	return jsontext.Value(`{"id_server_unbind_result":"no-support"}`), nil
}

func (m *Module) whois(r *api.Request) (any, error) {
	user, err := m.local(r)
	if err != nil {
		return nil, err
	}
	return m.as(r, user, get, clientV3("admin", "whois", string(user)), nil)
}

func (m *Module) available(r *api.Request) (any, error) {
	if _, err := m.Sessions.NewUser(r.Context, r.Query.Get("username")); err != nil {
		return nil, err
	}
	return map[string]bool{"available": true}, nil
}
