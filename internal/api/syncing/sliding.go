package syncing

import (
	"errors"
	"maps"
	"net/http"
	"slices"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/hubbub-chat/hubbub/internal/api"
	"github.com/hubbub-chat/hubbub/internal/feed"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/merr"
)

// Sliding sync has two forms of one thing: that which clients use under an unstable
// name, with positions in the query, and that which the proposal has come to since. A
// body in either is read on both paths, what differs is in the answer. spec: MSC4186.

// lazyKey and ownKey stand for members in a required_state of the first form: those
// that the timeline is about, and the user.
const (
	wildcard = "*"
	lazyKey  = "$LAZY"
	ownKey   = "$ME"

	typeMember = "m.room.member"
)

// maxListName bounds the names of lists. spec: §Opaque Identifiers.
const maxListName = 255

var presences = []string{"online", "offline", "unavailable"}

func slidingRoutes(h handler) []api.Route {
	unstable, stable := h.slide(false), h.slide(true)
	return []api.Route{
		{
			Method: http.MethodPost, Path: "/_matrix/client/unstable/org.matrix.simplified_msc3575/sync", Op: "simplifiedSlidingSyncUnstable",
			Auth: api.AuthUser, Rate: api.RateSync, Hold: api.HoldLong, Guest: true, Handle: unstable,
		},
		{
			Method: http.MethodPost, Path: "/_matrix/client/v4/sync", Op: "simplifiedSlidingSync",
			Auth: api.AuthUser, Rate: api.RateSync, Hold: api.HoldLong, Guest: true, Handle: stable,
		},
	}
}

type slidingBody struct {
	ConnID        string                   `json:"conn_id"`
	Pos           string                   `json:"pos"`
	Timeout       int64                    `json:"timeout"`
	SetPresence   string                   `json:"set_presence"`
	Lists         map[string]listBody      `json:"lists"`
	Subscriptions map[ids.RoomID]*roomBody `json:"room_subscriptions"`
	Extensions    extensionsBody           `json:"extensions"`
}

type roomBody struct {
	TimelineLimit int            `json:"timeline_limit"`
	RequiredState jsontext.Value `json:"required_state"`
}

type listBody struct {
	roomBody
	Ranges  *[][2]int    `json:"ranges"`
	Range   *[2]int      `json:"range"`
	AllSlow bool         `json:"slow_get_all_rooms"`
	Filters *filtersBody `json:"filters"`
}

type filtersBody struct {
	Direct    *bool        `json:"is_dm"`
	Encrypted *bool        `json:"is_encrypted"`
	Invite    *bool        `json:"is_invite"`
	Invited   *bool        `json:"is_invited"`
	Spaces    []ids.RoomID `json:"spaces"`
	// null decodes as "", and so do rooms without a type.
	Types    []string `json:"room_types"`
	NotTypes []string `json:"not_room_types"`
	Tags     []string `json:"tags"`
	NotTags  []string `json:"not_tags"`
}

type scopeBody struct {
	Enabled bool         `json:"enabled"`
	Lists   []string     `json:"lists"`
	Rooms   []ids.RoomID `json:"rooms"`
}

type extensionsBody struct {
	ToDevice struct {
		Enabled bool   `json:"enabled"`
		Since   string `json:"since"`
		Limit   int    `json:"limit"`
	} `json:"to_device"`
	E2EE struct {
		Enabled bool `json:"enabled"`
	} `json:"e2ee"`
	AccountData scopeBody    `json:"account_data"`
	Receipts    scopeBody    `json:"receipts"`
	Typing      scopeBody    `json:"typing"`
	Threads     *threadsBody `json:"thread_subscriptions"`
	Threads4308 *threadsBody `json:"io.element.msc4308.thread_subscriptions"`
}

type threadsBody struct {
	Enabled *bool `json:"enabled"`
	Limit   int   `json:"limit"`
}

func (h handler) slide(stable bool) func(*api.Request) (any, error) {
	return func(r *api.Request) (any, error) {
		req, err := slidingRequest(r)
		if err != nil {
			return nil, err
		}
		req.Stable = stable
		body, err := h.feed.Slide(r.Context, req)
		if errors.Is(err, feed.ErrUnknownPosition) {
			return nil, merr.New(http.StatusBadRequest, merr.UnknownPos, "Unknown position, begin again without one").Because(err)
		}
		return body, err
	}
}

// slidingRequest reads a request.
func slidingRequest(r *api.Request) (*feed.SlidingRequest, error) {
	var body slidingBody
	if err := api.DecodeBody(r, &body); err != nil {
		return nil, err
	}
	if r.Query.Has("pos") {
		body.Pos = r.Query.Get("pos")
	}
	ms, err := r.QueryInt("timeout", max(0, min(body.Timeout, api.MaxLongPoll.Milliseconds())), 0, api.MaxLongPoll.Milliseconds())
	if err != nil {
		return nil, err
	}
	presence, err := r.QueryEnum("set_presence", presences...)
	switch {
	case err != nil:
		return nil, err
	case body.SetPresence == "":
	case !slices.Contains(presences, body.SetPresence):
		return nil, merr.InvalidParamErr("Unknown set_presence")
	case !r.Query.Has("set_presence"):
		presence = body.SetPresence
	}
	switch {
	case len(body.ConnID) > feed.MaxConnID:
		return nil, merr.InvalidParamErr("conn_id is longer than %d bytes", feed.MaxConnID)
	case len(body.Lists) > feed.MaxSlidingLists:
		return nil, merr.InvalidParamErr("There are more than %d lists", feed.MaxSlidingLists)
	case len(body.Subscriptions) > feed.MaxSubscriptions:
		return nil, merr.InvalidParamErr("There are more than %d room_subscriptions", feed.MaxSubscriptions)
	}
	req := &feed.SlidingRequest{
		User: r.Caller.User, Device: r.Caller.Device, Conn: body.ConnID, Pos: body.Pos,
		Timeout: time.Duration(ms) * time.Millisecond, SetPresence: feed.Presence(presence),
		Subscriptions: make(map[ids.RoomID]*feed.RoomConfig, len(body.Subscriptions)),
	}
	for _, name := range slices.Sorted(maps.Keys(body.Lists)) {
		b := body.Lists[name]
		l, err := b.list(name, r.Caller.User)
		if err != nil {
			return nil, err
		}
		req.Lists = append(req.Lists, *l)
	}
	for id, b := range body.Subscriptions {
		if b == nil {
			continue
		}
		if req.Subscriptions[id], err = b.config(r.Caller.User); err != nil {
			return nil, err
		}
	}
	return req, body.Extensions.read(&req.Extensions)
}

func (b *listBody) list(name string, user ids.UserID) (*feed.SlidingList, error) {
	if len(name) > maxListName {
		return nil, merr.InvalidParamErr("The name of a list is longer than %d bytes", maxListName)
	}
	c, err := b.config(user)
	if err != nil {
		return nil, err
	}
	l := &feed.SlidingList{Name: name, RoomConfig: *c}
	switch {
	case b.AllSlow:
	case b.Range != nil:
		l.Ranges = [][2]int{*b.Range}
	case b.Ranges != nil:
		l.Ranges = append([][2]int{}, *b.Ranges...)
	}
	if len(l.Ranges) > feed.MaxSlidingLists {
		return nil, merr.InvalidParamErr("There are more than %d ranges", feed.MaxSlidingLists)
	}
	for _, r := range l.Ranges {
		if r[0] < 0 || r[1] < r[0] {
			return nil, merr.InvalidParamErr("Malformed range of a list")
		}
	}
	if f := b.Filters; f != nil {
		l.Filters = feed.SlidingFilters{
			Direct: f.Direct, Encrypted: f.Encrypted, Invited: f.Invited,
			Spaces: f.Spaces, Types: f.Types, NotTypes: f.NotTypes, Tags: f.Tags, NotTags: f.NotTags,
		}
		if f.Invited == nil {
			l.Filters.Invited = f.Invite
		}
		for _, n := range []int{len(f.Spaces), len(f.Types), len(f.NotTypes), len(f.Tags), len(f.NotTags)} {
			if n > feed.MaxSlidingLists {
				return nil, merr.InvalidParamErr("A filter has more than %d elements", feed.MaxSlidingLists)
			}
		}
	}
	return l, nil
}

func (b *roomBody) config(user ids.UserID) (*feed.RoomConfig, error) {
	if b.TimelineLimit < 0 {
		return nil, merr.InvalidParamErr("timeline_limit is negative")
	}
	c := &feed.RoomConfig{Limit: min(b.TimelineLimit, feed.MaxTimeline)}
	var err error
	switch b.RequiredState.Kind() {
	case 0, 'n':
	case '[':
		err = readPairs(b.RequiredState, user, &c.State)
	default:
		err = readPatterns(b.RequiredState, &c.State)
	}
	if len(c.State.Include)+len(c.State.Exclude) > feed.MaxStatePatterns {
		return nil, merr.InvalidParamErr("required_state has more than %d elements", feed.MaxStatePatterns)
	}
	return c, err
}

// readPairs reads a required_state of the first form: pairs of a type and a key.
func readPairs(raw jsontext.Value, user ids.UserID, out *feed.RequiredState) error {
	var pairs [][2]string
	if err := api.DecodeJSON(raw, &pairs); err != nil {
		return err
	}
	for _, p := range pairs {
		typ, key := p[0], p[1]
		if key == lazyKey {
			out.Lazy = out.Lazy || typ == typeMember
			continue
		}
		if key == ownKey {
			key = string(user)
		}
		out.Include = append(out.Include, feed.StatePattern{Type: unlessAll(typ), Key: unlessAll(key)})
	}
	return nil
}

func unlessAll(s string) *string {
	if s == wildcard {
		return nil
	}
	return &s
}

// readPatterns reads a required_state of the second form.
func readPatterns(raw jsontext.Value, out *feed.RequiredState) error {
	type pattern struct {
		Type *string `json:"type"`
		Key  *string `json:"state_key"`
	}
	var body struct {
		Include []pattern `json:"include"`
		Exclude []pattern `json:"exclude"`
		Lazy    bool      `json:"lazy_members"`
	}
	if err := api.DecodeJSON(raw, &body); err != nil {
		return err
	}
	out.Lazy = body.Lazy
	for _, p := range body.Include {
		out.Include = append(out.Include, feed.StatePattern(p))
	}
	for _, p := range body.Exclude {
		out.Exclude = append(out.Exclude, feed.StatePattern(p))
	}
	return nil
}

func (b *extensionsBody) read(x *feed.SlidingExtensions) error {
	x.ToDevice.Enabled, x.ToDevice.Since, x.ToDevice.Limit = b.ToDevice.Enabled, b.ToDevice.Since, b.ToDevice.Limit
	x.E2EE = b.E2EE.Enabled
	x.AccountData, x.Receipts, x.Typing = feed.Scope(b.AccountData), feed.Scope(b.Receipts), feed.Scope(b.Typing)
	for _, s := range []*feed.Scope{&x.AccountData, &x.Receipts, &x.Typing} {
		if len(s.Lists) > feed.MaxSlidingLists || len(s.Rooms) > feed.MaxSubscriptions {
			return merr.InvalidParamErr("An extension names too many lists or rooms")
		}
	}
	threads := b.Threads
	if threads == nil {
		threads = b.Threads4308
	}
	if threads != nil {
		x.Threads.Enabled, x.Threads.Limit = threads.Enabled == nil || *threads.Enabled, threads.Limit
	}
	if x.ToDevice.Limit < 0 || x.Threads.Limit < 0 {
		return merr.InvalidParamErr("The limit of an extension is negative")
	}
	return nil
}
