package admin

import (
	"context"

	"github.com/hubbub-chat/hubbub/internal/api"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/media"
	"github.com/hubbub-chat/hubbub/internal/merr"
	"github.com/hubbub-chat/hubbub/internal/tables"
)

// Media is what the module asks of media.
type Media interface {
	Info(ctx context.Context, id media.ID) (*media.Media, error)
	ListByUser(ctx context.Context, user ids.UserID, from string, limit int) ([]*media.Media, string, error)
	Delete(ctx context.Context, id media.ID) error
	DeleteOlderThan(ctx context.Context, before int64, keep func(*media.Media) bool) (media.Use, error)
	Quarantine(ctx context.Context, id media.ID, by ids.UserID) error
	Unquarantine(ctx context.Context, id media.ID) error
	UserUse(ctx context.Context, user ids.UserID) (media.Use, error)
}

var _ Media = (*media.Service)(nil)

func (m *Module) mediaRoutes() []api.Route {
	const ofUser = v1 + "/users/{userId}/media"
	return []api.Route{
		{Method: get, Path: ofUser, Rate: api.RateRead, Handle: m.userMedia},
		{Method: del, Path: ofUser, Rate: api.RateWrite, Handle: m.deleteUserMedia},
		{Method: get, Path: v1 + "/statistics/users/media", Rate: api.RateRead, Handle: m.mediaUse},
		{Method: del, Path: v1 + "/media/{serverName}/{mediaId}", Rate: api.RateWrite, Handle: m.deleteMedia},
		{Method: post, Path: v1 + "/media/delete", Also: []string{v1 + "/media/{serverName}/delete"}, Rate: api.RateWrite, Hold: api.HoldLong, Handle: m.deleteOldMedia},
		{Method: post, Path: v1 + "/media/quarantine/{serverName}/{mediaId}", Rate: api.RateWrite, Handle: m.quarantine},
		{Method: post, Path: v1 + "/media/unquarantine/{serverName}/{mediaId}", Rate: api.RateWrite, Handle: m.unquarantine},
		{Method: post, Path: v1 + "/user/{userId}/media/quarantine", Rate: api.RateWrite, Hold: api.HoldLong, Handle: m.quarantineUser},
	}
}

func answerMedia(f *media.Media) mediaAnswer {
	a := mediaAnswer{ID: f.ID, Type: f.Type, Length: f.Size, CreatedTS: f.CreatedTS}
	if f.Name != "" {
		a.Name = &f.Name
	}
	if f.Quarantined != nil {
		a.Quarantined = f.Quarantined.By
	}
	return a
}

type mediaAnswer struct {
	ID          media.ID `json:"media_id"`
	Type        string   `json:"media_type"`
	Length      int64    `json:"media_length"`
	Name        *string  `json:"upload_name"`
	CreatedTS   int64    `json:"created_ts"`
	Quarantined any      `json:"quarantined_by"`
	Safe        bool     `json:"safe_from_quarantine"`
	LastAccess  *int64   `json:"last_access_ts"`
}

// mediaPage reads a page of what the user of the path uploaded, the newest first.
func (m *Module) mediaPage(r *api.Request) (user ids.UserID, list []*media.Media, next string, err error) {
	if user, _, err = m.existing(r); err != nil {
		return "", nil, "", err
	}
	limit, err := r.QueryInt("limit", defaultPage, 1, maxPage)
	if err != nil {
		return "", nil, "", err
	}
	list, next, err = m.Media.ListByUser(r.Context, user, r.Query.Get("from"), int(limit))
	return user, list, next, err
}

func (m *Module) userMedia(r *api.Request) (any, error) {
	user, list, next, err := m.mediaPage(r)
	if err != nil {
		return nil, err
	}
	use, err := m.Media.UserUse(r.Context, user)
	if err != nil {
		return nil, err
	}
	out := make([]mediaAnswer, len(list))
	for i, f := range list {
		out[i] = answerMedia(f)
	}
	answer := map[string]any{"media": out, "total": use.Media}
	if next != "" {
		answer["next_token"] = next
	}
	return answer, nil
}

// deleteUserMedia removes a page of what a user uploaded, the newest first.
func (m *Module) deleteUserMedia(r *api.Request) (any, error) {
	_, list, _, err := m.mediaPage(r)
	if err != nil {
		return nil, err
	}
	gone := []media.ID{}
	for _, f := range list {
		if err := m.Media.Delete(r.Context, f.ID); err != nil && !merr.Is(err, merr.NotFound) {
			return nil, err
		}
		gone = append(gone, f.ID)
	}
	return map[string]any{"deleted_media": gone, "total": len(gone)}, nil
}

// ofServer reads the media of the path, which is this server's.
func (m *Module) ofServer(r *api.Request) (media.ID, error) {
	if r.Param("serverName") != m.Server {
		return "", merr.InvalidParamErr("The media does not belong to this server")
	}
	id := media.ID(r.Param("mediaId"))
	if len(id) > ids.MaxLength {
		return "", merr.NotFoundErr("No such media")
	}
	_, err := m.Media.Info(r.Context, id)
	return id, err
}

func (m *Module) deleteMedia(r *api.Request) (any, error) {
	id, err := m.ofServer(r)
	if err != nil {
		return nil, err
	}
	if err := m.Media.Delete(r.Context, id); err != nil {
		return nil, err
	}
	return map[string]any{"deleted_media": []media.ID{id}, "total": 1}, nil
}

// deleteOldMedia removes what was uploaded before a time, and is as large.
func (m *Module) deleteOldMedia(r *api.Request) (any, error) {
	if !r.Query.Has("before_ts") {
		return nil, api.Missing("before_ts")
	}
	before, err := r.QueryInt("before_ts", 0, 0, m.Clock.Now().UnixMilli())
	if err != nil {
		return nil, err
	}
	larger, err := r.QueryInt("size_gt", 0, 0, 1<<62)
	if err != nil {
		return nil, err
	}
	gone := []media.ID{}
	_, err = m.Media.DeleteOlderThan(r.Context, before, func(f *media.Media) bool {
		if f.Size <= larger && larger > 0 {
			return true
		}
		gone = append(gone, f.ID)
		return false
	})
	return map[string]any{"deleted_media": gone, "total": len(gone)}, err
}

func (m *Module) quarantine(r *api.Request) (any, error) {
	id, err := m.ofServer(r)
	if err != nil {
		return nil, err
	}
	return api.Empty, m.Media.Quarantine(r.Context, id, r.Caller.User)
}

func (m *Module) unquarantine(r *api.Request) (any, error) {
	id, err := m.ofServer(r)
	if err != nil {
		return nil, err
	}
	return api.Empty, m.Media.Unquarantine(r.Context, id)
}

// quarantineUser hides all that a user uploaded.
func (m *Module) quarantineUser(r *api.Request) (any, error) {
	user, _, err := m.existing(r)
	if err != nil {
		return nil, err
	}
	n := 0
	for from := ""; ; {
		list, next, err := m.Media.ListByUser(r.Context, user, from, maxPage)
		if err != nil {
			return nil, err
		}
		for _, f := range list {
			if err := m.Media.Quarantine(r.Context, f.ID, r.Caller.User); err != nil && !merr.Is(err, merr.NotFound) {
				return nil, err
			}
			n++
		}
		if from = next; next == "" {
			return map[string]int{"num_quarantined": n}, nil
		}
	}
}

type useAnswer struct {
	User  ids.UserID `json:"user_id"`
	Name  string     `json:"displayname"`
	Count int        `json:"media_count"`
	Bytes int64      `json:"media_length"`
}

// mediaUse lists users by name with what they uploaded.
func (m *Module) mediaUse(r *api.Request) (any, error) {
	p, err := page(r)
	if err != nil {
		return nil, err
	}
	out := []useAnswer{}
	next, more, err := m.list(r.Context, tables.Users, &p, func(name string) (bool, error) {
		use, err := m.Media.UserUse(r.Context, ids.UserID(name))
		if err != nil || use.Media == 0 {
			return false, err
		}
		if p.skip > 0 {
			p.skip--
			return true, nil
		}
		n, err := m.Accounts.Names(r.Context, ids.UserID(name))
		if err != nil || n == nil {
			return false, err
		}
		out = append(out, useAnswer{n.User, n.DisplayName, use.Media, use.Bytes})
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
