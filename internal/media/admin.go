package media

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"

	"github.com/go-json-experiment/json"

	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/merr"
	"github.com/hubbub-chat/hubbub/internal/partition"
	"github.com/hubbub-chat/hubbub/internal/storage"
	"github.com/hubbub-chat/hubbub/internal/tables"
)

// maxList bounds a page of ListByUser.
const maxList = 1000

// Info returns media, quarantined or awaited too. M_NOT_FOUND if there is none.
func (s *Service) Info(ctx context.Context, id ID) (*Media, error) {
	list, err := s.infos(ctx, []ID{id})
	if err != nil {
		return nil, err
	}
	if len(list) == 0 {
		return nil, errNotFound()
	}
	return list[0], nil
}

// infos returns the media that there is of a list of IDs, in order.
func (s *Service) infos(ctx context.Context, list []ID) ([]*Media, error) {
	k := keys(s.o.Partitions)
	var wanted []storage.Key
	for _, id := range list {
		wanted = append(wanted, k.media(id))
	}
	rows, err := s.read(ctx, wanted)
	if err != nil {
		return nil, err
	}
	var found []*Media
	var contents []storage.Key
	for i, row := range rows {
		if row == nil {
			continue
		}
		m := &Media{}
		if err := json.Unmarshal(row, m); err != nil {
			return nil, fmt.Errorf("media %s: %w", list[i], err)
		}
		m.ID = list[i]
		found = append(found, m)
		contents = append(contents, k.content(m.Hash))
	}
	if rows, err = s.read(ctx, contents); err != nil {
		return nil, err
	}
	for i, row := range rows {
		c := Content{}
		if row != nil {
			if err := json.Unmarshal(row, &c); err != nil {
				return nil, fmt.Errorf("content of media %s: %w", found[i].ID, err)
			}
		}
		found[i].Quarantined = c.Quarantined
	}
	return found, nil
}

func (s *Service) read(ctx context.Context, wanted []storage.Key) ([][]byte, error) {
	if len(wanted) == 0 {
		return nil, nil
	}
	rows, err := s.o.Store.Get(ctx, wanted...)
	if err != nil {
		return nil, fmt.Errorf("read media: %w", err)
	}
	return rows, nil
}

// ListByUser lists what a user uploaded, the newest first, up to limit (1 to 1000)
// at a time. from is "" to begin, then the next that was returned, which is "" at
// the end.
func (s *Service) ListByUser(ctx context.Context, user ids.UserID, from string, limit int) (list []*Media, next string, err error) {
	to, err := base64.RawURLEncoding.DecodeString(from)
	if err != nil {
		return nil, "", merr.InvalidParamErr("The token to go on from is not valid")
	}
	limit = min(max(limit, 1), maxList)
	rows, err := s.o.Store.Scan(ctx, storage.Range{
		Partition: s.partition(string(user)), Table: tables.UserMedia, Entity: string(user), To: string(to), Limit: limit, Reverse: true,
	})
	if err != nil {
		return nil, "", fmt.Errorf("list media: %w", err)
	}
	var wanted []ID
	for _, row := range rows {
		wanted = append(wanted, ID(row.Sort[timeSize:]))
	}
	if len(rows) == limit {
		next = base64.RawURLEncoding.EncodeToString([]byte(rows[len(rows)-1].Sort))
	}
	list, err = s.infos(ctx, wanted)
	return list, next, err
}

// Delete removes media, and its bytes if nothing else shows them. M_NOT_FOUND if
// there is none.
func (s *Service) Delete(ctx context.Context, id ID) error {
	_, err := s.remove(ctx, id)
	return err
}

func (s *Service) remove(ctx context.Context, id ID) (Removed, error) {
	r, err := partition.Do[Removed](ctx, s.o.Router, &Remove{ID: id})
	if err != nil {
		return r, fmt.Errorf("delete media: %w", err)
	}
	if r.Hash != "" {
		err = s.sweep(ctx, s.partition(r.Hash))
	}
	return r, err
}

// DeleteOlderThan removes all media created before a time in ms since 1970, of
// which keep (nil for none) does not want to keep it. It says what was removed,
// also if it ends in an error. It takes as long as there is media to remove.
func (s *Service) DeleteOlderThan(ctx context.Context, before int64, keep func(*Media) bool) (Use, error) {
	var total Use
	var errs []error
	for p := range s.o.Partitions {
		if err := s.deleteOlder(ctx, ids.Partition(p), before, keep, &total); err != nil {
			errs = append(errs, err)
		}
		if ctx.Err() != nil {
			break
		}
	}
	return total, errors.Join(errs...)
}

func (s *Service) deleteOlder(ctx context.Context, p ids.Partition, before int64, keep func(*Media) bool, total *Use) error {
	due := storage.Range{Partition: p, Table: tables.MediaTime, To: timeSort(before), Limit: sweepPage}
	err := storage.Each(ctx, s.o.Store, due, func(row storage.Entry) (more bool, err error) {
		m, err := s.Info(ctx, ID(row.Sort[timeSize:]))
		if merr.Is(err, merr.NotFound) || err == nil && keep != nil && keep(m) {
			return true, nil
		}
		if err != nil {
			return false, err
		}
		switch r, err := s.remove(ctx, m.ID); {
		case merr.Is(err, merr.NotFound): // somebody else did
		case err != nil:
			return false, err
		default:
			total.Media++
			total.Bytes += r.Size
		}
		return true, nil
	})
	if err != nil {
		return fmt.Errorf("delete old media: %w", err)
	}
	return nil
}

// Quarantine hides the content of media, wherever else it is shown, and keeps it
// from being uploaded again; it answers M_NOT_FOUND from then on.
func (s *Service) Quarantine(ctx context.Context, id ID, by ids.UserID) error {
	return s.setQuarantine(ctx, id, by)
}

// Unquarantine shows the content of media again.
func (s *Service) Unquarantine(ctx context.Context, id ID) error {
	return s.setQuarantine(ctx, id, "")
}

func (s *Service) setQuarantine(ctx context.Context, id ID, by ids.UserID) error {
	m, err := one[Media](ctx, s.o.Store, keys(s.o.Partitions).media(id))
	if err != nil {
		return err
	}
	if m == nil || m.Hash == "" {
		return errNotFound()
	}
	if _, err := s.o.Router.Do(ctx, &SetQuarantine{Hash: m.Hash, By: by}); err != nil {
		return fmt.Errorf("quarantine media: %w", err)
	}
	return nil
}

// UserUse returns the totals of a user.
func (s *Service) UserUse(ctx context.Context, user ids.UserID) (Use, error) {
	u, err := one[Use](ctx, s.o.Store, keys(s.o.Partitions).use(user))
	if err != nil || u == nil {
		return Use{}, err
	}
	return *u, nil
}

// Stats returns the totals of the deployment.
func (s *Service) Stats(ctx context.Context) (Use, error) {
	var total Use
	for p := range s.o.Partitions {
		u, err := one[Use](ctx, s.o.Store, wide(ids.Partition(p), tables.MediaUse, ""))
		if err != nil {
			return Use{}, err
		}
		if u != nil {
			total.Media += u.Media
			total.Bytes += u.Bytes
			total.Contents += u.Contents
			total.Stored += u.Stored
		}
	}
	return total, nil
}
