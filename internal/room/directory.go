package room

import (
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/hubbub-chat/hubbub/internal/event"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/partition"
	"github.com/hubbub-chat/hubbub/internal/storage"
	"github.com/hubbub-chat/hubbub/internal/tables"
	"github.com/hubbub-chat/hubbub/internal/textindex"
)

// The directory of a partition is written with the events that change it: an order
// of its public rooms by size, and the words that describe them. So is, for each
// room, the index of its members by name. A reader merges the partitions, which
// costs the same however many rooms there are.
//
// Rejected: one order for all partitions, since every join to a public room would
// wait for another partition; sorting at each request, which looks at all rooms.

// describing is the state whose words find a public room, with the letter that
// tells in the index which it is.
var describing = [...]struct{ eventType, field, letter string }{
	{event.TypeName, "name", "n"},
	{event.TypeTopic, "topic", "t"},
	{event.TypeCanonicalAlias, "alias", "a"},
}

// describes returns the terms that a piece of state adds to the directory.
func describes(s *Stored, field string) []string {
	if s == nil {
		return nil
	}
	text, _ := event.StringField(s.Content, field)
	return textindex.Prefixes(text, textindex.DescriptionTerms)
}

// index writes what a new piece of state changes in the indexes. before and after
// are the head without and with it.
func (v view) index(before, after *Head, replaced, s *Stored) {
	if s.Type == event.TypeMember {
		v.indexMember(replaced, s)
		if after.Public && before.Joined != after.Joined {
			v.reorder(before, after)
		}
		return
	}
	if !after.Public || *s.StateKey != "" {
		return
	}
	for _, d := range &describing {
		if d.eventType == s.Type {
			v.replaceTerms(describes(replaced, d.field), describes(s, d.field), func(term string) storage.Key {
				return v.p.directoryTerm(term, d.letter)
			})
		}
	}
}

// replaceTerms removes the rows of the terms that are no more and adds those of
// new ones.
func (v view) replaceTerms(before, after []string, key func(term string) storage.Key) {
	for _, term := range before {
		if !slices.Contains(after, term) {
			v.tx.Delete(key(term))
		}
	}
	for _, term := range after {
		if !slices.Contains(before, term) {
			v.tx.Put(key(term), []byte{}, nil)
		}
	}
}

func (p Place) directoryTerm(term, letter string) storage.Key {
	return storage.Key{
		Partition: p.Partition, Table: tables.DirectoryTerm, Sort: partition.JoinSort(term, string(p.Room), letter),
	}
}

// list writes all rows of a room that became public, or removes them.
func (v view) list(h *Head) {
	empty := *h
	empty.Joined = 0
	if h.Public {
		v.reorder(&empty, h)
	} else {
		v.reorder(h, &empty)
	}
	for _, d := range &describing {
		terms := describes(v.stored(d.eventType, ""), d.field)
		key := func(term string) storage.Key { return v.p.directoryTerm(term, d.letter) }
		if h.Public {
			v.replaceTerms(nil, terms, key)
		} else {
			v.replaceTerms(terms, nil, key)
		}
	}
}

// reorder moves a public room to its new place. Rooms without members have none.
func (v view) reorder(before, after *Head) {
	roomType := ""
	if create := v.stored(event.TypeCreate, ""); create != nil {
		roomType = create.Create().RoomType
	}
	for _, list := range [...]string{listAll, listOf(roomType)} {
		key := func(joined int) storage.Key {
			return storage.Key{
				Partition: v.p.Partition, Table: tables.DirectoryOrder, Entity: list, Sort: Listing{joined, v.p.Room}.sort(),
			}
		}
		if before.Joined > 0 {
			v.tx.Delete(key(before.Joined))
		}
		if after.Joined > 0 {
			v.tx.Put(key(after.Joined), []byte{}, nil)
		}
	}
}

// The lists of a partition's public rooms.
const listAll = "*"

func listOf(roomType string) string {
	return "t" + roomType[:min(len(roomType), event.MaxFieldSize)] // a longer one is cut: a reader looks at the rooms
}

// memberTerms are the terms that find a member, none for those who are not in.
func memberTerms(s *Stored) []string {
	if s == nil {
		return nil
	}
	m := s.Member()
	if m.Membership != event.Join {
		return nil
	}
	return NameTerms(ids.UserID(*s.StateKey), m.DisplayName)
}

// NameTerms are the terms of a user's names.
func NameTerms(user ids.UserID, displayName string) []string {
	return textindex.Prefixes(displayName+" "+user.Localpart(), textindex.NameTerms)
}

func (v view) indexMember(replaced, s *Stored) {
	v.replaceTerms(memberTerms(replaced), memberTerms(s), func(term string) storage.Key {
		return v.p.key(tables.MemberTerm, partition.JoinSort(term, *s.StateKey))
	})
}

// MembersNamed lists up to limit users in a room of whose names one begins with a
// folded text; more reports that there are others.
func (r *Reader) MembersNamed(ctx context.Context, room ids.RoomID, prefix string, limit int) (users []ids.UserID, more bool, err error) {
	p := r.Place(room)
	rows, err := r.st.Scan(ctx, storage.Range{
		Partition: p.Partition, Table: tables.MemberTerm, Entity: string(room), From: prefix, To: partition.PrefixEnd(prefix), Limit: limit + 1,
	})
	if err != nil {
		return nil, false, fmt.Errorf("find members: %w", err)
	}
	for _, row := range rows[:min(limit, len(rows))] {
		if _, user, ok := strings.Cut(row.Sort, "\x00"); ok {
			users = append(users, ids.UserID(user))
		}
	}
	return users, len(rows) > limit, nil
}

// Listing is a public room's place in the directory.
type Listing struct {
	Joined int
	Room   ids.RoomID
}

// Compare is the order of the directory: the most members first.
func (l Listing) Compare(other Listing) int {
	return cmp.Or(cmp.Compare(other.Joined, l.Joined), cmp.Compare(l.Room, other.Room))
}

func (l Listing) sort() string {
	b := binary.BigEndian.AppendUint64(make([]byte, 0, 8+len(l.Room)), math.MaxUint64-uint64(l.Joined))
	return string(append(b, l.Room...))
}

func parseListing(sort string) Listing {
	if len(sort) < 8 {
		return Listing{}
	}
	return Listing{int(math.MaxUint64 - binary.BigEndian.Uint64([]byte(sort))), ids.RoomID(sort[8:])}
}

// ListQuery asks for a stretch of the directory.
type ListQuery struct {
	// Types lists the room types wanted, "" among them for rooms without one; nil
	// for all rooms.
	Types []string
	// From is the place behind which, or with Back before which, the stretch
	// begins; nil for the beginning.
	From *Listing
	Back bool
	// Limit is how many rooms at most.
	Limit int
}

// Listed returns a stretch of the directory in its order.
func (r *Reader) Listed(ctx context.Context, q ListQuery) ([]Listing, error) {
	lists := []string{listAll}
	if q.Types != nil {
		lists = nil
		for _, t := range q.Types {
			if l := listOf(t); !slices.Contains(lists, l) {
				lists = append(lists, l)
			}
		}
	}
	m := &listMerge{r: r, q: q}
	for p := range r.count {
		for _, l := range lists {
			m.sources = append(m.sources, &listSource{partition: ids.Partition(p), list: l, from: q.From})
		}
	}
	var out []Listing
	for len(out) < q.Limit {
		next, err := m.next(ctx)
		if err != nil || next == nil {
			return q.inOrder(out), err
		}
		out = append(out, *next)
	}
	return q.inOrder(out), nil
}

func (q *ListQuery) inOrder(list []Listing) []Listing {
	if q.Back {
		slices.Reverse(list)
	}
	return list
}

// listMerge merges the lists of the partitions.
type listMerge struct {
	r       *Reader
	q       ListQuery
	sources []*listSource
}

// listSource is one list of one partition.
type listSource struct {
	partition ids.Partition
	list      string
	from      *Listing
	buffer    []Listing
	done      bool
}

// listChunk is how many rooms of one list are read at once: most pages need few of
// each partition.
const listChunk = 16

func (m *listMerge) next(ctx context.Context) (*Listing, error) {
	var best *listSource
	for _, s := range m.sources {
		if len(s.buffer) == 0 && !s.done {
			if err := m.fill(ctx, s); err != nil {
				return nil, err
			}
		}
		if len(s.buffer) > 0 && (best == nil || m.before(s.buffer[0], best.buffer[0])) {
			best = s
		}
	}
	if best == nil {
		return nil, nil
	}
	l := best.buffer[0]
	best.buffer = best.buffer[1:]
	return &l, nil
}

func (m *listMerge) before(a, b Listing) bool { return a.Compare(b) < 0 != m.q.Back }

func (m *listMerge) fill(ctx context.Context, s *listSource) error {
	rg := storage.Range{Partition: s.partition, Table: tables.DirectoryOrder, Entity: s.list, Limit: listChunk, Reverse: m.q.Back}
	switch {
	case s.from == nil:
	case m.q.Back:
		rg.To = s.from.sort()
	default:
		rg.From = s.from.sort() + "\x00"
	}
	rows, err := m.r.st.Scan(ctx, rg)
	if err != nil {
		return fmt.Errorf("read directory: %w", err)
	}
	s.done = len(rows) < listChunk
	for _, row := range rows {
		s.buffer = append(s.buffer, parseListing(row.Sort))
	}
	if n := len(s.buffer); n > 0 {
		last := s.buffer[n-1]
		s.from = &last
	}
	return nil
}

// ListedLike returns public rooms that are described by a word which begins with a
// folded text: up to limit of each partition, in no order. They may have been
// withdrawn since, or be described by other words now.
func (r *Reader) ListedLike(ctx context.Context, prefix string, limit int) ([]ids.RoomID, error) {
	var out []ids.RoomID
	seen := make(map[ids.RoomID]bool)
	for p := range r.count {
		rows, err := r.st.Scan(ctx, storage.Range{
			Partition: ids.Partition(p), Table: tables.DirectoryTerm, From: prefix, To: partition.PrefixEnd(prefix), Limit: limit,
		})
		if err != nil {
			return nil, fmt.Errorf("search directory: %w", err)
		}
		for _, row := range rows {
			parts := strings.Split(row.Sort, "\x00")
			if id := ids.RoomID(parts[min(1, len(parts)-1)]); len(parts) == 3 && !seen[id] {
				seen[id] = true
				out = append(out, id)
			}
		}
	}
	return out, nil
}
