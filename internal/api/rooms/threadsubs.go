package rooms

import (
	"math"
	"net/http"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/hubbub-chat/hubbub/internal/account"
	"github.com/hubbub-chat/hubbub/internal/api"
	"github.com/hubbub-chat/hubbub/internal/event"
	"github.com/hubbub-chat/hubbub/internal/feed"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/merr"
	"github.com/hubbub-chat/hubbub/internal/room"
)

// Subscriptions to threads are kept and listed; push rules look at them if
// push.thread_subscriptions is set, and then they are among the features of /versions.
// spec: MSC4306, MSC4308.

const (
	defaultSubscriptions = 100
	maxSubscriptions     = 500
)

// notInThread: the event that an automatic subscription is for is elsewhere. spec:
// MSC4306.
const notInThread merr.Code = "IO.ELEMENT.MSC4306.M_NOT_IN_THREAD"

func (m *Module) threadSubscriptionRoutes() []api.Route {
	const unstable = "/_matrix/client/unstable/io.element.msc430"
	const one, all = unstable + "6/rooms/{roomId}/thread/{threadRoot}/subscription", unstable + "8/thread_subscriptions"
	return []api.Route{
		{Method: get, Path: one, Op: "threadSubscription_get", Auth: api.AuthUser, Rate: api.RateRead, Handle: m.threadSubscription},
		{Method: put, Path: one, Op: "threadSubscription_put", Auth: api.AuthUser, Rate: api.RateWrite, Handle: m.subscribeThread},
		{Method: del, Path: one, Op: "threadSubscription_delete", Auth: api.AuthUser, Rate: api.RateWrite, Handle: m.unsubscribeThread},
		{Method: get, Path: all, Op: "threadSubscriptionChanges", Auth: api.AuthUser, Rate: api.RateRead, Handle: m.threadSubscriptions},
	}
}

// threadRoot returns the event that a request names as the root of a thread: 404
// M_NOT_FOUND if the caller may not see it, or if no thread can begin there.
func (m *Module) threadRoot(r *api.Request) (*reading, *room.Stored, error) {
	v, err := m.look(r)
	if err != nil {
		return nil, nil, err
	}
	s, err := m.findParam(r, v, "threadRoot")
	if err != nil {
		return nil, nil, err
	}
	if _, child := event.RelationOf(s.Content); child {
		return nil, nil, merr.NotFoundErr("No thread begins at this event")
	}
	return v, s, nil
}

func (m *Module) threadSubscription(r *api.Request) (any, error) {
	v, root, err := m.threadRoot(r)
	if err != nil {
		return nil, err
	}
	s, err := m.Accounts.ThreadSubscription(r.Context, r.Caller.User, v.id, root.ID)
	if err != nil {
		return nil, err
	}
	if s == nil || !s.Subscribed {
		return nil, merr.NotFoundErr("You are not subscribed to this thread")
	}
	return map[string]bool{"automatic": s.Automatic}, nil
}

func (m *Module) subscribeThread(r *api.Request) (any, error) {
	var req struct {
		Automatic jsontext.Value `json:"automatic"`
	}
	if err := api.DecodeBody(r, &req); err != nil {
		return nil, err
	}
	v, root, err := m.threadRoot(r)
	if err != nil {
		return nil, err
	}
	var at ids.Seq
	if len(req.Automatic) > 0 && req.Automatic.Kind() != 'n' {
		var id ids.EventID
		if json.Unmarshal(req.Automatic, &id) != nil {
			return nil, merr.InvalidParamErr("automatic is no event ID")
		}
		cause, err := m.Rooms.Event(r.Context, v.id, id)
		if err != nil {
			return nil, err
		}
		if cause == nil || cause.Thread != root.ID || !v.access.MaySee(cause) {
			return nil, merr.New(http.StatusBadRequest, notInThread, "The event is not in the thread")
		}
		at = cause.Seq
	}
	_, err = m.Router.Do(r.Context, account.NewSubscribeThread(r.Caller.User, v.id, root.ID, at))
	return api.Empty, err
}

func (m *Module) unsubscribeThread(r *api.Request) (any, error) {
	v, root, err := m.threadRoot(r)
	if err != nil {
		return nil, err
	}
	_, err = m.Router.Do(r.Context, account.NewUnsubscribeThread(r.Caller.User, v.id, root.ID, v.access.Head.Last))
	return api.Empty, err
}

// threadSubscriptions lists what changed, the last change first.
func (m *Module) threadSubscriptions(r *api.Request) (any, error) {
	dir, err := direction(r)
	if err != nil {
		return nil, err
	}
	if dir != "b" {
		return nil, merr.InvalidParamErr("dir can be b only")
	}
	limit, err := r.QueryInt("limit", defaultSubscriptions, 1, maxSubscriptions)
	if err != nil {
		return nil, err
	}
	user := r.Caller.User
	from, to := ids.Seq(math.MaxInt64), feed.PageStart
	for name, s := range map[string]*ids.Seq{"from": &from, "to": &to} {
		if token := r.Query.Get(name); token != "" {
			if *s, err = feed.ParsePage(token, m.Accounts.Place(user).Partition, m.Rooms.Count()); err != nil {
				return nil, merr.InvalidParamErr("Unknown token in %s", name).Because(err)
			}
		}
	}
	list, next, err := m.Accounts.ThreadSubscriptions(r.Context, user, to, from, int(limit))
	if err != nil {
		return nil, err
	}
	out := account.NewThreadList(list)
	if next != 0 {
		out.End = feed.PageToken(next)
	}
	return out, nil
}
