package app

import (
	"context"
	"fmt"
	"time"

	"github.com/hubbub-chat/hubbub/internal/account"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/partition"
	"github.com/hubbub-chat/hubbub/internal/room"
	"github.com/hubbub-chat/hubbub/internal/storage"
	"github.com/hubbub-chat/hubbub/internal/tables"
)

// reindexPage is how many users or rooms are listed at a time.
const reindexPage = 500

// Empty partitions are looked at again after reindexAgain, then after twice as long
// each time, but for reindexAtMost: what a new server gets into them is to be marked
// while it is little, not read through at its second start.
const (
	reindexAgain  = 5 * time.Second
	reindexAtMost = time.Hour
)

// keepDirectories calls indexDirectories until no partition is empty.
func (s *Server) keepDirectories(ctx context.Context) {
	for wait := reindexAgain; s.indexDirectories(ctx); wait = min(2*wait, reindexAtMost) {
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

// indexDirectories fills the directories from what a version without them has
// stored, in the background, partition by partition. One that was interrupted
// begins anew at the next start. It reports whether some partitions were empty.
func (s *Server) indexDirectories(ctx context.Context) (empty bool) {
	for p := range s.store.partitions {
		none, err := s.indexPartition(ctx, ids.Partition(p))
		if err != nil {
			if ctx.Err() == nil {
				s.log.Warn("fill directories", "partition", p, "error", err)
			}
			return false
		}
		empty = empty || none
	}
	return empty
}

func (s *Server) indexPartition(ctx context.Context, p ids.Partition) (empty bool, err error) {
	rows, err := s.store.Get(ctx, room.IndexedKey(p))
	if err != nil || rows[0] != nil || !s.node.Owns(p) {
		return false, wrapReindex("read mark", err)
	}
	users, err := s.eachOf(ctx, p, tables.Users, func(name string) error {
		_, err := s.node.Do(ctx, account.NewIndexNames(ids.UserID(name)))
		return wrapReindex("index user", err)
	})
	if err != nil {
		return false, err
	}
	rooms, err := s.eachOf(ctx, p, tables.Rooms, func(name string) error {
		for after := ""; ; {
			next, err := partition.Do[string](ctx, s.node, &room.Reindex{Room: ids.RoomID(name), After: after})
			if err != nil || next == "" {
				return wrapReindex("index room", err)
			}
			after = next
		}
	})
	if err != nil || users+rooms == 0 {
		return err == nil, err // an empty partition is not marked: a new server begins without writing
	}
	_, err = s.node.Do(ctx, &room.MarkIndexed{P: p})
	return false, wrapReindex("mark partition", err)
}

// eachOf calls fn with the names in a list of a partition, and counts them.
func (s *Server) eachOf(ctx context.Context, p ids.Partition, t storage.Table, fn func(name string) error) (n int, err error) {
	for from := ""; ; {
		rows, err := s.store.Scan(ctx, storage.Range{Partition: p, Table: t, From: from, Limit: reindexPage})
		if err != nil {
			return n, wrapReindex("list", err)
		}
		for i := range rows {
			if err := fn(rows[i].Sort); err != nil {
				return n, err
			}
			n++
		}
		if len(rows) < reindexPage {
			return n, nil
		}
		from = rows[len(rows)-1].Sort + "\x00"
	}
}

func wrapReindex(what string, err error) error {
	if err != nil {
		err = fmt.Errorf("%s: %w", what, err)
	}
	return err
}
