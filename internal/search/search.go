// Package search finds events by their text.
//
// The index is an inverted one and lives in the store, in the partition of each
// room, in two stages. What a room said lately stands as it comes, the terms of each event,
// in blocks (SearchRecent, entry.go): a row or two for all that is said within some
// seconds, and a search looks through them. When that are some hundred messages they
// become a segment (SearchSegment, segment.go): rows that lead from terms, and from parts
// of them, to the events. So the index is spread with the rooms, moves with them, and needs
// no disk of its own.
//
// An Index is a consumer of the log: it writes after the send, and costs it
// nothing. What it writes for an event depends on what is stored of the event and
// its edits at that time and on nothing else; whatever comes twice, or out of
// order after a partition moved, does no harm. Who changes the index of a room names the
// head that was read first, and is refused if somebody else changed it meanwhile. A reader
// believes the index in nothing: each event found is read, and has to hold the words and
// to be the user's to see.
//
// The text of an event that was edited is that of its latest edit. Rooms that are
// encrypted are not indexed.
//
// Rejected: an index on the disk of a node (it would have to be built anew
// wherever a partition goes, and be asked over the network); one index for each
// user (every message of a large room would be written thousands of times); rows for the
// words of each message at once (8 a message in a busy room, 15 to 29 in a quiet one).
package search

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/hubbub-chat/hubbub/internal/consumer"
	"github.com/hubbub-chat/hubbub/internal/event"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/partition"
	"github.com/hubbub-chat/hubbub/internal/room"
	"github.com/hubbub-chat/hubbub/internal/storage"
	"github.com/hubbub-chat/hubbub/internal/tables"
)

// Name is the consumer's.
const Name = "search"

// Gather is how long the consumer gathers records, unless somebody searches: no longer
// than a cursor waits to be saved, so that no more is indexed again after a crash. What is
// said in a room within that time shares rows and commits.
const Gather = consumer.SaveEvery

// Follower says how far a consumer has come. *consumer.Set is one.
type Follower interface {
	Await(ctx context.Context, name string) error
}

const (
	// maxTerms bounds the terms of one event: what stands behind that many different
	// ones in a message is not found.
	maxTerms = 1000
	// maxWriteBytes is about how much one command writes, besides a segment.
	maxWriteBytes = 1 << 20
	// timelinePage is how many events are read at a time when a part of the index is
	// built anew.
	timelinePage = 200
)

// bounds are the sizes of entries, in bytes, from which on a head becomes a block, and all
// of a room a segment.
type bounds struct{ block, recent int }

// Index is the search index. Its methods are safe for concurrent use.
type Index struct {
	store  storage.Store
	router partition.Router
	rooms  *room.Reader
	logs   Follower
	bounds bounds

	mu struct {
		sync.Mutex
		// begun is up to where records of a partition were given to Handle.
		begun map[ids.Partition]ids.Seq
	}
}

// New returns the index of a store, which is given the logs by logs under Name.
func New(st storage.Store, router partition.Router, rooms *room.Reader, logs Follower) *Index {
	x := &Index{store: st, router: router, rooms: rooms, logs: logs, bounds: bounds{fullBlock, maxRecent}}
	x.mu.begun = make(map[ids.Partition]ids.Seq)
	return x
}

// Await waits until all that was committed before the call is in the index, as far
// as this node writes it.
func (x *Index) Await(ctx context.Context) error { return x.logs.Await(ctx, Name) }

var _ consumer.Handler = (*Index)(nil)

// The keys of an event that a search can be limited to.
type Keys uint8

// The keys. spec: client-server §Search, room_events.
const (
	Body Keys = 1 << iota
	RoomName
	Topic

	AllKeys = Body | RoomName | Topic
)

// textOf returns the text of an event, or of the edit of one, and the key it
// stands under; "" and 0 if it has none that is searched.
func textOf(s, edit *room.Stored) (string, Keys) {
	content := s.Content
	if edit != nil {
		content, _ = event.Field(edit.Content, "m.new_content")
	}
	str := func(name string) string { v, _ := event.StringField(content, name); return v }
	switch {
	case s.StateKey == nil && s.Type == event.TypeMessage:
		return str("body"), Body
	case s.Is(event.TypeName, ""):
		return str("name"), RoomName
	case s.Is(event.TypeTopic, ""):
		return strings.TrimSpace(str("topic") + " " + plainTopic(content)), Topic
	}
	return "", 0
}

// plainTopic is the text/plain representation of a topic, if it says something
// else than topic does. spec: client-server §m.room.topic, m.topic.
func plainTopic(content []byte) string {
	block, _ := event.Field(content, "m.topic")
	list, _ := event.Field(block, "m.text")
	plain, _ := event.StringField(content, "topic")
	for e := range event.Elements(list) {
		kind, given := event.StringField(e, "mimetype")
		if body, ok := event.StringField(e, "body"); ok && body != plain && (!given || kind == "text/plain") {
			return body
		}
	}
	return ""
}

// Handle implements consumer.Handler.
func (x *Index) Handle(ctx context.Context, b consumer.Batch) error {
	fresh := x.begin(b.Partition, b.Last)
	return untilDone(func(again bool) error {
		w := x.newWriter(b.Partition)
		w.epoch, w.fresh = b.Epoch, fresh
		if again {
			w.fresh = b.Last // some of it may have been written
		}
		return w.handle(ctx, b.Records)
	})
}

func (w *writer) handle(ctx context.Context, records []partition.Record) error {
	trimmed := make(map[ids.RoomID]ids.Seq)
	for i := range records {
		r := &records[i]
		switch r.Kind {
		case partition.RecordTrimmed:
			trimmed[ids.RoomID(r.Entity)] = tables.SortSeq(string(r.Data))
		case partition.RecordEvent:
			s, err := w.x.rooms.Record(ctx, r)
			if err != nil {
				return fmt.Errorf("read event: %w", err)
			}
			if s == nil {
				continue // purged
			}
			if err := w.note(ctx, s, r.Obj != nil); err != nil {
				return err
			}
		}
	}
	if err := w.flush(ctx); err != nil {
		return err
	}
	for id, upTo := range trimmed {
		if err := w.trim(ctx, id, upTo); err != nil {
			return err
		}
	}
	return nil
}

// begin notes that a batch up to a position is handled, and returns up to where
// any was before.
func (x *Index) begin(p ids.Partition, last ids.Seq) ids.Seq {
	x.mu.Lock()
	defer x.mu.Unlock()
	before := x.mu.begun[p]
	x.mu.begun[p] = max(before, last)
	return before
}

// Missed implements consumer.Handler: it reads the stretch from the timelines.
func (x *Index) Missed(ctx context.Context, p ids.Partition, first, last ids.Seq) error {
	rooms := storage.Range{Partition: p, Table: tables.Rooms, Limit: timelinePage}
	return wrap("list rooms", storage.Each(ctx, x.store, rooms, func(row storage.Entry) (more bool, err error) {
		return true, x.rebuild(ctx, p, ids.RoomID(row.Sort), first, last)
	}))
}

func (x *Index) rebuild(ctx context.Context, p ids.Partition, id ids.RoomID, first, last ids.Seq) error {
	for after := first - 1; ; {
		page, err := x.rooms.Timeline(ctx, id, room.Page{After: after, UpTo: last, Limit: timelinePage})
		if err != nil {
			return fmt.Errorf("read timeline: %w", err)
		}
		err = untilDone(func(bool) error {
			w := x.newWriter(p)
			for _, s := range page {
				if err := w.note(ctx, s, false); err != nil {
					return err
				}
			}
			return w.flush(ctx)
		})
		if err != nil {
			return err
		}
		if len(page) < timelinePage {
			break
		}
		after = page[len(page)-1].Seq
	}
	// What was purged in that time left no event to tell of it.
	return x.trim(ctx, p, id, last)
}

// trim takes out of the index the events of a room up to a position that are gone.
func (x *Index) trim(ctx context.Context, p ids.Partition, id ids.RoomID, upTo ids.Seq) error {
	return untilDone(func(bool) error { return x.newWriter(p).trim(ctx, id, upTo) })
}

// latestEdit returns the edit that takes the place of an event, nil if there is
// none. spec: client-server §Event replacements.
func (x *Index) latestEdit(ctx context.Context, s *room.Stored) (*room.Stored, error) {
	if s.StateKey != nil {
		return nil, nil
	}
	list, _, err := x.rooms.Related(ctx, s.RoomID, room.RelatedQuery{
		Parent: s.Seq, RelType: event.RelReplace, UpTo: ids.Seq(1<<63 - 1), Limit: maxEdits, Newest: true,
	})
	if err != nil {
		return nil, fmt.Errorf("find edits: %w", err)
	}
	list = slices.DeleteFunc(list, func(r *room.Related) bool { return !r.Valid })
	if len(list) == 0 {
		return nil, nil
	}
	best := slices.MaxFunc(list, room.CompareEdits)
	e, err := x.rooms.At(ctx, s.RoomID, best.Seq)
	if err != nil {
		return nil, fmt.Errorf("read edit: %w", err)
	}
	return e, nil
}

// maxEdits is how many of the last edits of an event are looked at for the latest.
const maxEdits = 50

// Forget takes out of the index what is no longer in a room up to a position. It
// waits until the index has seen all that was committed before: what it learns of
// later is not there any more when it reads it.
func (x *Index) Forget(ctx context.Context, id ids.RoomID, upTo ids.Seq) error {
	if err := x.Await(ctx); err != nil {
		return err
	}
	return x.trim(ctx, x.rooms.Place(id).Partition, id, upTo)
}
