package media

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/storage"
	"github.com/hubbub-chat/hubbub/internal/tables"
)

// sweepPage is how many due rows are taken at a time.
const sweepPage = 200

// sweepLoop removes what is due, on every node: removing twice does no harm.
func (s *Service) sweepLoop(ctx context.Context) {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if err := s.Sweep(ctx); err != nil && ctx.Err() == nil {
			s.o.Log.Warn("media that is due was not removed", "error", err)
		}
	}
}

// Sweep removes what is due: reserved IDs that nobody filled, pictures of previews
// that are out of date, bytes that nothing refers to.
func (s *Service) Sweep(ctx context.Context) error {
	var errs []error
	// The second time for bytes that became due as media went, in partitions that were
	// done already.
	for range 2 {
		for p := range s.o.Partitions {
			if err := s.sweep(ctx, ids.Partition(p)); err != nil {
				errs = append(errs, err)
			}
			if ctx.Err() != nil {
				return errors.Join(errs...)
			}
		}
	}
	return errors.Join(errs...)
}

// sweep removes what is due in one partition. What cannot be removed stays due, and
// keeps nothing else from being removed.
func (s *Service) sweep(ctx context.Context, p ids.Partition) error {
	var errs []error
	due := storage.Range{Partition: p, Table: tables.MediaDue, To: timeSort(s.now() + 1), Limit: sweepPage}
	err := storage.Pages(ctx, s.o.Store, due, func(rows []storage.Entry) (more bool, err error) {
		done := &Forget{At: p}
		for _, row := range rows {
			if err := s.removeDue(ctx, row.Sort, done); err != nil {
				errs = append(errs, err)
			}
			if ctx.Err() != nil {
				break
			}
		}
		if len(done.Sorts) > 0 {
			if _, err := s.o.Router.Do(ctx, done); err != nil {
				errs = append(errs, fmt.Errorf("forget what was due: %w", err))
			}
		}
		return ctx.Err() == nil, nil
	})
	if err != nil {
		errs = append(errs, fmt.Errorf("scan due media: %w", err))
	}
	return errors.Join(errs...)
}

// removeDue removes what one row says. What has no command of its own is left to
// done.
func (s *Service) removeDue(ctx context.Context, sort string, done *Forget) error {
	kind, name := sort[timeSize:timeSize+1], sort[timeSize+1:]
	switch kind {
	case dueMedia:
		_, err := s.o.Router.Do(ctx, &Remove{ID: ID(name), DueTS: sortTime(sort)})
		if err != nil {
			return fmt.Errorf("remove due media: %w", err)
		}
		return nil
	case dueBytes:
		if err := s.o.Blobs.Delete(ctx, append(thumbnailKeys(name), name)...); err != nil {
			return fmt.Errorf("remove bytes: %w", err)
		}
		s.metrics.removed.Inc()
	case duePreview:
		done.Previews = append(done.Previews, name)
	}
	done.Sorts = append(done.Sorts, sort)
	return nil
}
