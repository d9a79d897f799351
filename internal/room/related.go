package room

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/hubbub-chat/hubbub/internal/event"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/partition"
	"github.com/hubbub-chat/hubbub/internal/storage"
	"github.com/hubbub-chat/hubbub/internal/tables"
)

const (
	// relatedPage is how many rows of the index are read at a time where some of
	// them may not be wanted; relatedPages bounds such reads for one call and kind.
	relatedPage  = 200
	relatedPages = 10
)

// RelatedQuery selects events that relate to an event: at positions above After
// and up to, and including, UpTo.
type RelatedQuery struct {
	Parent ids.Seq
	// RelType and EventType select, "" for all.
	RelType, EventType string
	// Indirect also yields what relates to those that relate, to RelationDepth.
	Indirect    bool
	After, UpTo ids.Seq
	Limit       int
	// Newest yields the last of them, newest first.
	Newest bool
}

func (q *RelatedQuery) wants(x *Related) bool {
	return (q.RelType == "" || x.RelType == q.RelType && (len(x.via) == 0 || x.sameRel)) &&
		(q.EventType == "" || x.Type == q.EventType && (len(x.via) == 0 || x.sameType))
}

// page is how many rows to read while have are found. One more than are wanted tells
// that there is more.
func (q *RelatedQuery) page(k relKind, have int) int {
	if q.EventType != "" || q.RelType != "" && k >= relOther {
		return relatedPage
	}
	return min(relatedPage, q.Limit+1-have)
}

// end is the position at which nothing is left.
func (q *RelatedQuery) end() ids.Seq {
	if q.Newest {
		return q.After
	}
	return q.UpTo
}

// behind is the position to go on from after one at s.
func (q *RelatedQuery) behind(s ids.Seq) ids.Seq {
	if q.Newest {
		return s - 1
	}
	return s
}

// Related returns what relates to an event, and the position up to which it
// looked: q.After or q.UpTo if nothing is left. It may yield less than there is,
// and even nothing, where the effort would be too great.
func (r *Reader) Related(ctx context.Context, room ids.RoomID, q RelatedQuery) (list []*Related, pos ids.Seq, err error) {
	kinds, err := r.kindsOf(ctx, room, &q)
	if err != nil || q.UpTo <= q.After {
		return nil, q.end(), err
	}
	// Each kind is a stretch of its own: what is behind the place where one of them
	// stopped is not known to be complete.
	pos = q.end()
	for _, k := range kinds {
		part, reached, err := r.relatedOf(ctx, room, &q, k)
		if err != nil {
			return nil, 0, err
		}
		list = append(list, part...)
		if q.Newest {
			pos = max(pos, reached)
		} else {
			pos = min(pos, reached)
		}
	}
	list = slices.DeleteFunc(list, func(x *Related) bool {
		return q.Newest && x.Seq <= pos || !q.Newest && x.Seq > pos
	})
	slices.SortFunc(list, func(a, b *Related) int {
		if q.Newest {
			return cmp.Compare(b.Seq, a.Seq)
		}
		return cmp.Compare(a.Seq, b.Seq)
	})
	if len(list) > q.Limit {
		list = list[:q.Limit]
		pos = q.behind(list[q.Limit-1].Seq)
	}
	return list, pos, nil
}

// kindsOf returns which kinds of relations to look at.
func (r *Reader) kindsOf(ctx context.Context, room ids.RoomID, q *RelatedQuery) ([]relKind, error) {
	counts, err := r.relCounts(ctx, room, q.Parent)
	if err != nil {
		return nil, err
	}
	var kinds []relKind
	if c := counts[0]; c != nil {
		for k := relAnnotation; k < relIndirect; k++ {
			if c.n[k] > 0 && (q.RelType == "" || k == kindOf(q.RelType)) {
				kinds = append(kinds, k)
			}
		}
	}
	if q.Indirect {
		kinds = append(kinds, relIndirect)
	}
	return kinds, nil
}

func (r *Reader) relatedOf(ctx context.Context, room ids.RoomID, q *RelatedQuery, k relKind) (list []*Related, pos ids.Seq, err error) {
	p := r.Place(room)
	prefix := p.relations(q.Parent, k)
	after, upTo := q.After, q.UpTo
	for range relatedPages {
		page := q.page(k, len(list))
		rows, err := r.st.Scan(ctx, storage.Range{
			Partition: p.Partition, Table: tables.Relation, Entity: string(room),
			From: prefix.Sort + tables.SeqSort(after+1), To: seqEnd(prefix.Sort, upTo),
			Limit: page, Reverse: q.Newest,
		})
		if err != nil {
			return nil, 0, fmt.Errorf("read relations: %w", err)
		}
		for _, row := range rows {
			x, err := decodeRelated(row.Sort, row.Value)
			if err != nil {
				if err = r.unreadable(p.key(tables.Relation, row.Sort), err); err != nil {
					return nil, 0, err
				}
			}
			if pos = q.behind(tables.SortSeq(row.Sort)); x == nil || !q.wants(x) {
				continue
			}
			if list = append(list, x); len(list) > q.Limit {
				return list, pos, nil
			}
		}
		if len(rows) < page {
			return list, q.end(), nil
		}
		if q.Newest {
			upTo = pos
		} else {
			after = pos
		}
	}
	return list, pos, nil
}

// seqEnd is the first sort key behind prefix and a position.
func seqEnd(prefix string, s ids.Seq) string {
	if s+1 == 0 {
		return partition.PrefixEnd(prefix)
	}
	return prefix + tables.SeqSort(s+1)
}

// relCounts reads what is counted of several events, nil where nothing relates.
func (r *Reader) relCounts(ctx context.Context, room ids.RoomID, events ...ids.Seq) ([]*relCount, error) {
	p := r.Place(room)
	keys := make([]storage.Key, len(events))
	for i, s := range events {
		keys[i] = p.relationCount(s)
	}
	rows, err := r.st.Get(ctx, keys...)
	if err != nil {
		return nil, fmt.Errorf("read relation counts: %w", err)
	}
	out := make([]*relCount, len(rows))
	for i, row := range rows {
		if row == nil {
			continue
		}
		c, err := decodeRelCount(keys[i], row)
		if err != nil {
			if err = r.unreadable(keys[i], err); err != nil {
				return nil, err
			}
			continue
		}
		out[i] = c.(*relCount)
	}
	return out, nil
}

// AtAll returns the events at several positions, in one read.
func (r *Reader) AtAll(ctx context.Context, room ids.RoomID, at ...ids.Seq) ([]*Stored, error) {
	p := r.Place(room)
	keys := make([]storage.Key, len(at))
	for i, s := range at {
		keys[i] = p.timeline(s)
	}
	return r.get(ctx, room, keys)
}

// RelatedEvents returns the events of a list of related ones. Those whose relation
// was ended by a redaction, of them or of one in between, are left out.
func (r *Reader) RelatedEvents(ctx context.Context, room ids.RoomID, list []*Related) ([]*Stored, error) {
	at := make([]ids.Seq, 0, len(list))
	for _, x := range list {
		at = append(at, x.Seq)
	}
	for _, x := range list {
		at = append(at, x.via...)
	}
	events, err := r.AtAll(ctx, room, at...)
	if err != nil {
		return nil, err
	}
	between := events[len(list):]
	out := make([]*Stored, 0, len(list))
	for i, x := range list {
		broken := events[i] == nil || events[i].RedactedBy != nil
		for _, v := range between[:len(x.via)] {
			broken = broken || v == nil || v.RedactedBy != nil
		}
		between = between[len(x.via):]
		if !broken {
			out = append(out, events[i])
		}
	}
	return out, nil
}

// latestReply returns the position of the latest reply in a thread but one, 0 if
// there is none.
func (r *Reader) latestReply(ctx context.Context, room ids.RoomID, root, but ids.Seq) (ids.Seq, error) {
	q := RelatedQuery{Parent: root, RelType: event.RelThread, UpTo: maxSeq, Limit: 2, Newest: true}
	list, _, err := r.Related(ctx, room, q)
	if err != nil {
		return 0, err
	}
	for _, x := range list {
		if x.Seq != but {
			return x.Seq, nil
		}
	}
	return 0, nil
}

// maxSeq stands for the end of a room, whatever that is.
const maxSeq = ^ids.Seq(0) - 1

// ThreadPlace is a thread in the list of a room's threads.
type ThreadPlace struct {
	// Root is the position of the thread's root, Latest that of its latest reply.
	Root, Latest ids.Seq
}

// Threads returns the threads whose latest reply is at or before upTo, latest first.
func (r *Reader) Threads(ctx context.Context, room ids.RoomID, upTo ids.Seq, limit int) ([]ThreadPlace, error) {
	p := r.Place(room)
	rows, err := r.st.Scan(ctx, storage.Range{
		Partition: p.Partition, Table: tables.ThreadLog, Entity: string(room),
		To: seqEnd("", upTo), Limit: limit, Reverse: true,
	})
	if err != nil {
		return nil, fmt.Errorf("read threads: %w", err)
	}
	out := make([]ThreadPlace, len(rows))
	for i, row := range rows {
		out[i] = ThreadPlace{Root: tables.SortSeq(string(row.Value)), Latest: tables.SortSeq(row.Sort)}
	}
	return out, nil
}

// Participated reports in which of some threads a user has sent something: the
// root or a reply. Roots may be nil. spec: client-server §Server-side aggregation of m.thread
// relationships, current_user_participated.
func (r *Reader) Participated(ctx context.Context, room ids.RoomID, user ids.UserID, roots []*Stored) ([]bool, error) {
	p := r.Place(room)
	keys := make([]storage.Key, len(roots))
	for i, s := range roots {
		if s != nil {
			keys[i] = p.threadMember(s.Seq, user)
		} else {
			keys[i] = p.threadMember(0, user) // there is none
		}
	}
	rows, err := r.st.Get(ctx, keys...)
	if err != nil {
		return nil, fmt.Errorf("read members of threads: %w", err)
	}
	out := make([]bool, len(roots))
	for i, s := range roots {
		out[i] = s != nil && (s.Sender == user || rows[i] != nil)
	}
	return out, nil
}

// ThreadEvent is an event in a thread.
type ThreadEvent struct {
	Seq  ids.Seq
	Root ids.EventID
}

// ThreadEvents returns the events in threads at positions above after and up to
// upTo, newest first.
func (r *Reader) ThreadEvents(ctx context.Context, room ids.RoomID, after, upTo ids.Seq, limit int) ([]ThreadEvent, error) {
	if upTo <= after {
		return nil, nil
	}
	p := r.Place(room)
	rows, err := r.st.Scan(ctx, storage.Range{
		Partition: p.Partition, Table: tables.ThreadEvent, Entity: string(room),
		From: tables.SeqSort(after + 1), To: tables.SeqSort(upTo + 1), Limit: limit, Reverse: true,
	})
	if err != nil {
		return nil, fmt.Errorf("read events of threads: %w", err)
	}
	out := make([]ThreadEvent, 0, len(rows))
	for _, row := range rows {
		if len(row.Value) == hashSize {
			out = append(out, ThreadEvent{tables.SortSeq(row.Sort), linkID(string(row.Value))})
		}
	}
	return out, nil
}
