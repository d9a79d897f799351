package rooms

import (
	"context"
	"crypto/rand"
	"errors"
	"net/http"
	"slices"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/hubbub-chat/hubbub/internal/api"
	"github.com/hubbub-chat/hubbub/internal/event"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/merr"
	"github.com/hubbub-chat/hubbub/internal/room"
	"github.com/hubbub-chat/hubbub/internal/roomstate"
)

const (
	// maxInvites bounds the invites of a new room: each is an effect on another
	// user that the creator waits for.
	maxInvites = 500
	// createAttempts bounds how often a room is made unlike another that the same
	// creator made in the same millisecond. The second attempt has a random word
	// in its create event, so that a third would be a wonder.
	createAttempts = 3
	// undoTimeout bounds giving an alias back after the room was not made.
	undoTimeout = 10 * time.Second
)

// createRequest is the body of POST /createRoom.
type createRequest struct {
	Visibility      string           `json:"visibility"`
	AliasName       *string          `json:"room_alias_name"`
	Name            *string          `json:"name"`
	Topic           *string          `json:"topic"`
	Invite          []string         `json:"invite"`
	Invite3PID      []jsontext.Value `json:"invite_3pid"`
	RoomVersion     *string          `json:"room_version"`
	CreationContent jsontext.Value   `json:"creation_content"`
	InitialState    []initialState   `json:"initial_state"`
	Preset          string           `json:"preset"`
	IsDirect        bool             `json:"is_direct"`
	PowerLevels     jsontext.Value   `json:"power_level_content_override"`
}

type initialState struct {
	Type     string         `json:"type"`
	StateKey string         `json:"state_key"`
	Content  jsontext.Value `json:"content"`
}

// plan is a room to be made. Of its first state, Given is initial_state without the
// power levels, which stand in Initial.
type plan struct {
	room.First
	version event.Version
	public  bool
}

// createRoom: spec client-server §POST /createRoom.
func (m *Module) createRoom(r *api.Request) (any, error) {
	var req createRequest
	if err := api.DecodeBody(r, &req); err != nil {
		return nil, err
	}
	p, err := m.plan(r, &req)
	if err != nil {
		return nil, err
	}
	ts := m.Clock.Now().UnixMilli()
	for range createAttempts {
		var id ids.RoomID
		if id, err = m.create(r.Context, p, ts); err == nil {
			m.carryOver(r.Context, id, p.Creator) // if it is said to replace another
			return roomAnswer{id}, nil
		}
		if !errors.Is(err, errSameRoom) {
			return nil, err
		}
		p.Initial.Create = room.Unlike(p.Initial.Create)
	}
	return nil, err
}

// plan checks a request and completes what it leaves to the server.
func (m *Module) plan(r *api.Request, req *createRequest) (*plan, error) {
	p := &plan{First: room.First{Creator: r.Caller.User, Name: req.Name, Topic: req.Topic}}
	switch req.Visibility {
	case "public":
		p.public = true
	case "", "private":
	default:
		return nil, merr.InvalidParamErr("Unknown visibility")
	}
	version := m.DefaultVersion
	if req.RoomVersion != nil {
		version = *req.RoomVersion
	}
	var ok bool
	if p.version, ok = event.Lookup(version); !ok {
		return nil, merr.New(http.StatusBadRequest, merr.UnsupportedRoomVersion, "The room version is not supported")
	}
	if len(req.Invite3PID) > 0 {
		return nil, errThirdParty()
	}
	var err error
	if req.AliasName != nil {
		if p.Alias, err = m.newAlias(*req.AliasName); err != nil {
			return nil, err
		}
		if err := m.mayName(r.Caller, p.Alias); err != nil {
			return nil, err
		}
	}
	if p.Given, err = givenState(req.InitialState, p.Creator, p.Alias); err != nil {
		return nil, err
	}
	invited, err := invitees(req.Invite)
	if err != nil {
		return nil, err
	}
	if err := p.preset(req, invited); err != nil {
		return nil, err
	}
	return p, m.memberContents(r.Context, p, invited, req.IsDirect)
}

// memberContents makes the contents of the member events of a new room.
func (m *Module) memberContents(ctx context.Context, p *plan, invited []ids.UserID, direct bool) (err error) {
	if p.Join, err = m.withProfile(ctx, memberContent(event.Join, ""), p.Creator, true); err != nil {
		return err
	}
	for _, user := range invited {
		content := memberContent(event.Invite, "")
		if direct {
			content = event.SetField(nil, content, "is_direct", []byte("true"))
		}
		if content, err = m.invitation(ctx, content, p.Creator, user); err != nil {
			return err
		}
		p.Invites = append(p.Invites, room.Invitation{User: user, Content: content})
	}
	return nil
}

func invitees(list []string) ([]ids.UserID, error) {
	if len(list) > maxInvites {
		return nil, merr.InvalidParamErr("More than %d users to invite", maxInvites)
	}
	var out []ids.UserID
	for _, s := range list {
		user, err := ids.ParseUserID(s)
		if err != nil {
			return nil, merr.InvalidParamErr("invite has an entry that is no user ID").Because(err)
		}
		if !slices.Contains(out, user) {
			out = append(out, user)
		}
	}
	return out, nil
}

// newAlias returns the alias with a localpart that a client chose.
func (m *Module) newAlias(local string) (ids.RoomAlias, error) {
	a, err := parseAlias("#" + local + ":" + m.Server)
	if err != nil || a.Server() != m.Server || local == "" {
		return "", merr.InvalidParamErr("room_alias_name cannot be part of an alias").Because(err)
	}
	return a, nil
}

// givenState reads initial_state.
func givenState(list []initialState, creator ids.UserID, alias ids.RoomAlias) ([]roomstate.Draft, error) {
	var out []roomstate.Draft
	for i := range list {
		s := &list[i]
		if s.Type == "" || len(s.Content) == 0 {
			return nil, merr.BadJSONErr("An entry of initial_state lacks type or content")
		}
		content, err := canonical(s.Content)
		if err != nil {
			return nil, err
		}
		if err := checkState(s.Type, s.StateKey, content); err != nil {
			if merr.Is(err, merr.Forbidden) || merr.Is(err, merr.BadState) {
				return nil, errInitial(err)
			}
			return nil, err
		}
		switch s.Type {
		case event.TypeMember:
			// Members come by joining and by invites, which have checks of their own.
			return nil, errInitial(merr.InvalidParamErr("initial_state may not have members; use invite"))
		case event.TypeCanonicalAlias:
			named, err := canonicalAliases(content)
			if err != nil {
				return nil, err
			}
			if slices.ContainsFunc(named, func(a ids.RoomAlias) bool { return a != alias }) {
				return nil, merr.New(http.StatusBadRequest, merr.BadAlias, "An alias of initial_state does not lead to this room")
			}
		}
		out = append(out, roomstate.Draft{Type: s.Type, StateKey: &s.StateKey, Sender: creator, Content: content})
	}
	return out, nil
}

// errInitial says that the first state of a room is not possible. spec:
// client-server §POST /createRoom, M_INVALID_ROOM_STATE.
func errInitial(err error) error {
	return merr.New(http.StatusBadRequest, merr.InvalidRoomState, "%s", merr.From(err).Msg).Because(err)
}

// preset fills in the first state. What initial_state has replaces it.
func (p *plan) preset(req *createRequest, invited []ids.UserID) (err error) {
	o := roomstate.PresetOptions{Version: p.version, Creator: p.Creator, Invite: invited}
	if o.CreationContent, err = canonicalOrNil(req.CreationContent); err != nil {
		return err
	}
	if o.PowerLevels, err = canonicalOrNil(req.PowerLevels); err != nil {
		return err
	}
	name := req.Preset
	if name == "" {
		name = roomstate.DefaultPreset(p.public)
	}
	if p.Initial, err = roomstate.Preset(name, o); err != nil {
		return err
	}
	p.Given = slices.DeleteFunc(p.Given, func(d roomstate.Draft) bool {
		if d.Type == event.TypePowerLevels && *d.StateKey == "" {
			// They have to stand before all that they allow.
			p.Initial.PowerLevels = d.Content
			return true
		}
		p.Initial.Omit(&d)
		return false
	})
	return nil
}

// errSameRoom: the same creator made the same room in the same millisecond.
var errSameRoom = errors.New("a room of this ID exists")

// create makes the planned room. Its alias is taken before, so that a taken one
// prevents the room, and given back if the room is not made.
func (m *Module) create(ctx context.Context, p *plan, ts int64) (ids.RoomID, error) {
	cmd := &room.Create{Version: p.version.ID, Drafts: p.Drafts(ts), Public: p.public}
	if err := cmd.Seal(ids.RoomID("!" + rand.Text() + ":" + m.Server)); err != nil {
		return "", notInitial(err)
	}
	if p.Alias != "" {
		target := room.AliasTarget{Room: cmd.Room, Creator: p.Creator}
		if _, err := m.Router.Do(ctx, &room.SetAlias{Alias: p.Alias, Target: target}); err != nil {
			if merr.Is(err, merr.RoomInUse) {
				return "", merr.New(http.StatusBadRequest, merr.RoomInUse, "The alias %s is taken", p.Alias).Because(err)
			}
			return "", err
		}
	}
	_, err := m.Router.Do(ctx, cmd)
	if err == nil {
		return cmd.Room, nil
	}
	if p.Alias != "" {
		m.giveBack(ctx, p.Alias, cmd.Room, merr.Is(err, merr.RoomInUse))
	}
	if merr.Is(err, merr.RoomInUse) {
		return "", errors.Join(errSameRoom, err)
	}
	return "", notInitial(err)
}

// notInitial turns the refusal of a first event, which is no question of rights,
// into what it is to the creator.
func notInitial(err error) error {
	if errors.Is(err, roomstate.ErrRejected) || merr.Is(err, merr.Forbidden) {
		return errInitial(err)
	}
	return err
}

// giveBack frees the alias of a room that was not made. If the outcome was not
// known the room may be there; then the alias stays. other: the room of this ID
// is another's.
func (m *Module) giveBack(ctx context.Context, a ids.RoomAlias, id ids.RoomID, other bool) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
	defer cancel()
	head, err := m.Rooms.Head(ctx, id)
	if err == nil && (head == nil || other) {
		_, err = m.Router.Do(ctx, &room.DeleteAlias{Alias: a, Room: id})
	}
	if err != nil {
		m.Log.WarnContext(ctx, "the alias of a room that was not made stays taken", "alias", a, "room", id, "error", err)
	}
}
