package appservice

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hubbub-chat/hubbub/internal/consumer"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/partition"
	"github.com/hubbub-chat/hubbub/internal/storage"
	"github.com/hubbub-chat/hubbub/internal/tables"
)

// rosterPartition is where it is written down which services follow the log.
const rosterPartition ids.Partition = 0

// beginTimeout bounds how long the start of the server waits for a new service to
// find the end of the log.
const beginTimeout = 10 * time.Second

// Enroll writes down that a service follows the log, or that it no longer does: the
// log waits for a service until that is said.
type Enroll struct {
	Service string
	Gone    bool
}

var _ partition.Command = (*Enroll)(nil)

// Name implements partition.Command.
func (c *Enroll) Name() string { return "enroll_service" }

// Partition implements partition.Command.
func (c *Enroll) Partition(int) ids.Partition { return rosterPartition }

// Prepare implements partition.Command.
func (c *Enroll) Prepare(context.Context, *partition.Prep) error { return nil }

// Apply implements partition.Command.
func (c *Enroll) Apply(tx *partition.Tx) (any, error) {
	k := storage.Key{Partition: rosterPartition, Table: tables.ServiceRoster, Sort: c.Service}
	if c.Gone {
		tx.Delete(k)
	} else {
		tx.Put(k, []byte{}, nil)
	}
	return nil, nil
}

// Follow makes the services consumers of a set, and ends those whose registration
// is gone: otherwise the log would wait for them.
func (s *Sender) Follow(ctx context.Context, set *consumer.Set) error {
	rows, err := s.opts.Store.Scan(ctx, storage.Range{
		Partition: rosterPartition, Table: tables.ServiceRoster, Limit: storage.MaxScan,
	})
	if err != nil {
		return fmt.Errorf("read which application services there were: %w", err)
	}
	wanted, before := make(map[string]bool), make(map[string]bool)
	for _, l := range s.lines {
		wanted[l.svc.ID] = true
	}
	for _, row := range rows {
		if wanted[row.Sort] {
			before[row.Sort] = true
			continue
		}
		if err := set.Remove(ctx, consumerName(row.Sort)); err != nil {
			return fmt.Errorf("end application service %q: %w", row.Sort, err)
		}
		if _, err := s.opts.Router.Do(ctx, &Enroll{Service: row.Sort, Gone: true}); err != nil {
			return fmt.Errorf("end application service %q: %w", row.Sort, err)
		}
	}
	for _, l := range s.lines {
		if err := s.begin(ctx, set, l, !before[l.svc.ID]); err != nil {
			return fmt.Errorf("begin application service %q: %w", l.svc.ID, err)
		}
	}
	return nil
}

// begin makes a service a consumer. One that is new begins at the end of the log,
// and has found it when begin returns: what happens then, it is sent.
func (s *Sender) begin(ctx context.Context, set *consumer.Set, l *line, fresh bool) error {
	if _, err := s.opts.Router.Do(ctx, &Enroll{Service: l.svc.ID}); err != nil {
		return err
	}
	name := consumerName(l.svc.ID)
	if err := set.Add(consumer.Consumer{Name: name, Start: consumer.AtHead, Handler: l}); err != nil || !fresh {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, beginTimeout)
	defer cancel()
	err := set.Await(ctx, name)
	if errors.Is(err, context.DeadlineExceeded) {
		l.log.Warn("the application service may miss what happens now: it has not found the end of the log yet")
		return nil
	}
	return err
}
