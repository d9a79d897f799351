package search

import (
	"cmp"
	"context"
	"math"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/partition"
	"github.com/hubbub-chat/hubbub/internal/room"
	"github.com/hubbub-chat/hubbub/internal/storage"
	"github.com/hubbub-chat/hubbub/internal/tables"
	"github.com/hubbub-chat/hubbub/internal/textindex"
)

const (
	// MaxWords bounds the words of a search: each is looked up in each room.
	MaxWords = 16
	// MaxLooked is how many events one Find reads: the newest that its longest word
	// finds.
	MaxLooked = 1000
	// maxWords is how many words of a room one part of a word may stand for, the
	// word itself first.
	maxWords = 32
	// postingsPage is how many postings of a term are read at once.
	postingsPage = 64
	// groupPage is how many lists of words are read at once, maxGroupPages how often:
	// what so busy a room has more of is not found by a part that is not its
	// beginning.
	groupPage     = 256
	maxGroupPages = 16
)

// Query says what to find.
type Query struct {
	// Words are folded; all have to be in a text, in any order. A word of one letter
	// has to be a whole word, a longer one can be a part of a word.
	Words []string
	Keys  Keys
	Rooms []ids.RoomID
	// Open is called for a room that has the words, once. It returns what the
	// searcher may see and up to where, or a nil Access to leave the room out.
	Open func(ctx context.Context, id ids.RoomID) (*room.Access, ids.Seq, error)
	// Pass reports whether an event is wanted.
	Pass func(*room.Stored) bool
	// After is the place of the last hit of a page before, nil to begin.
	After *Place
}

// Place is where an event stands among all: by its time, then by room and position.
type Place struct {
	TS   int64
	Room ids.RoomID
	Seq  ids.Seq
}

// Compare orders places, the newest first.
func (p Place) Compare(o Place) int {
	return cmp.Or(cmp.Compare(o.TS, p.TS), cmp.Compare(p.Room, o.Room), cmp.Compare(o.Seq, p.Seq))
}

// Hit is an event that was found.
type Hit struct {
	Place
	Event *room.Stored
	// Access is what Open gave for its room, Until up to where.
	Access *room.Access
	Until  ids.Seq
	// Rank is higher for a better match.
	Rank float64

	text string
}

// Marks returns the parts of the text that words stand for, in lower case and else
// as they stand there, for clients to mark.
func (h *Hit) Marks(words []string) []string {
	var out []string
	textindex.Runs(strings.ToLower(h.text), func(kind textindex.Kind, run string) {
		folded := textindex.Fold(run)
		for _, w := range words {
			if matchRun(kind, folded, w) == 0 {
				continue
			}
			mark := run
			if strings.Contains(run, w) {
				mark = w
			}
			if !slices.Contains(out, mark) {
				out = append(out, mark)
			}
		}
	})
	return out
}

// Find returns the events that match, the newest first. end is where it stopped
// looking though there may be older ones, nil if there are none.
func (x *Index) Find(ctx context.Context, q *Query) (hits []Hit, end *Place, err error) {
	m := &merge{x: x, q: q}
	for _, id := range q.Rooms {
		s, err := x.open(ctx, q, id)
		if err != nil {
			return nil, nil, err
		}
		if s != nil {
			m.sources = append(m.sources, s)
		}
	}
	byRoom := make(map[*source][]posting)
	for looked := 0; looked < MaxLooked; looked++ {
		s, p, err := m.next(ctx)
		if err != nil {
			return nil, nil, err
		}
		if s == nil {
			end = nil
			break
		}
		byRoom[s] = append(byRoom[s], p)
		end = &Place{p.ts, s.room, p.seq}
	}
	for _, s := range m.sources {
		if hits, err = x.verify(ctx, q, s, byRoom[s], hits); err != nil {
			return nil, nil, err
		}
	}
	slices.SortFunc(hits, func(a, b Hit) int { return a.Compare(b.Place) })
	return hits, end, nil
}

// source is the candidates of one room: what its rarest-looking word finds.
type source struct {
	room   ids.RoomID
	p      ids.Partition
	access *room.Access
	until  ids.Seq
	terms  []string

	buffer []posting // the newest first
	// rest are candidates that were read, but there may be others above them.
	rest []posting
	// below: the rows that are left stand under positions below it.
	below ids.Seq
	done  bool
}

// open returns the candidates of a room, nil if it does not have the words or is
// none of the searcher's.
func (x *Index) open(ctx context.Context, q *Query, id ids.RoomID) (*source, error) {
	s := &source{room: id, p: x.rooms.Place(id).Partition}
	longest := textindex.Longest(q.Words)
	for _, w := range q.Words {
		terms, err := x.terms(ctx, s, w)
		if err != nil || len(terms) == 0 {
			return nil, err
		}
		if w == longest {
			s.terms = terms
		}
	}
	var err error
	if s.access, s.until, err = q.Open(ctx, id); err != nil || s.access == nil {
		return nil, err
	}
	s.below = s.until + maxSpan
	return s, nil
}

// terms returns the terms of a room that a word can stand for.
func (x *Index) terms(ctx context.Context, s *source, w string) ([]string, error) {
	from, to, limit := partition.JoinSort(w, ""), "", maxWords
	switch letters := utf8.RuneCountInString(w); {
	case textindex.KindOf(w) == textindex.Unspaced && letters > 1:
		// Each pair of letters is a term; the first has to lead to the event.
		pair := ""
		textindex.Pairs(w, func(p string) { pair = cmp.Or(pair, p) })
		from, limit = partition.JoinSort(pair, ""), 1
		to = partition.PrefixEnd(from)
	case letters > 1, textindex.KindOf(w) == textindex.Unspaced:
		from, to = w, partition.PrefixEnd(w)
	default:
		limit = 1
		to = partition.PrefixEnd(from)
	}
	rows, err := x.store.Scan(ctx, storage.Range{
		Partition: s.p, Table: tables.SearchWord, Entity: string(s.room), From: from, To: to, Limit: limit,
	})
	if err != nil {
		return nil, wrap("search words", err)
	}
	var out []string
	for i := range rows {
		if _, term, ok := strings.Cut(rows[i].Sort, "\x00"); ok && !slices.Contains(out, term) {
			out = append(out, term)
		}
	}
	if limit == maxWords && len(rows) < limit && textindex.KindOf(w) == textindex.Word {
		return x.grouped(ctx, s, w, out)
	}
	return out, nil
}

// grouped appends the terms that have a word behind their beginning and are listed
// together with others.
func (x *Index) grouped(ctx context.Context, s *source, w string, out []string) ([]string, error) {
	from := groupPrefix(pairOf(w))
	to := partition.PrefixEnd(from)
	for range maxGroupPages {
		rows, err := x.store.Scan(ctx, storage.Range{
			Partition: s.p, Table: tables.SearchWord, Entity: string(s.room), From: from, To: to, Limit: groupPage,
		})
		if err != nil {
			return nil, wrap("search words", err)
		}
		for i := range rows {
			for term := range strings.SplitSeq(string(rows[i].Value), "\x00") {
				if strings.LastIndex(term, w) > 0 && !slices.Contains(out, term) {
					if out = append(out, term); len(out) == maxWords {
						return out, nil
					}
				}
			}
		}
		if len(rows) < groupPage {
			break
		}
		from = rows[len(rows)-1].Sort + "\x00"
	}
	return out, nil
}

// fill reads the next candidates of a room. Of terms that have more, the last row
// read says how far down the picture is complete.
func (x *Index) fill(ctx context.Context, s *source) error {
	complete := ids.Seq(0)
	s.buffer, s.rest = s.rest, nil
	for _, term := range s.terms {
		rows, err := x.store.Scan(ctx, storage.Range{
			Partition: s.p, Table: tables.SearchTerm, Entity: string(s.room),
			From: partition.JoinSort(term, ""), To: postingSort(term, s.below), Limit: postingsPage, Reverse: true,
		})
		if err != nil {
			return wrap("search", err)
		}
		for i := range rows {
			s.buffer = appendPostings(s.buffer, &rows[i])
		}
		if len(rows) == postingsPage {
			complete = max(complete, tables.SortSeq(rows[len(rows)-1].Sort))
		}
	}
	s.buffer = slices.DeleteFunc(s.buffer, func(p posting) bool { return p.seq > s.until })
	slices.SortFunc(s.buffer, func(a, b posting) int { return cmp.Compare(b.seq, a.seq) })
	s.buffer = slices.CompactFunc(s.buffer, func(a, b posting) bool { return a.seq == b.seq })
	n, _ := slices.BinarySearchFunc(s.buffer, complete, func(p posting, c ids.Seq) int {
		if p.seq >= c {
			return -1
		}
		return 1
	})
	s.rest = slices.Clone(s.buffer[n:])
	s.buffer = s.buffer[:n]
	s.below, s.done = complete, complete == 0
	return nil
}

// merge takes the candidates of all rooms, the newest first.
type merge struct {
	x       *Index
	q       *Query
	sources []*source
}

func (m *merge) next(ctx context.Context) (*source, posting, error) {
	var best *source
	for _, s := range m.sources {
		if err := m.ready(ctx, s); err != nil {
			return nil, posting{}, err
		}
		if len(s.buffer) > 0 && (best == nil || s.first().Compare(best.first()) < 0) {
			best = s
		}
	}
	if best == nil {
		return nil, posting{}, nil
	}
	p := best.buffer[0]
	best.buffer = best.buffer[1:]
	return best, p, nil
}

func (s *source) first() Place { return Place{s.buffer[0].ts, s.room, s.buffer[0].seq} }

// ready makes the buffer of a source begin with what is behind the page before.
func (m *merge) ready(ctx context.Context, s *source) error {
	for {
		for m.q.After != nil && len(s.buffer) > 0 && s.first().Compare(*m.q.After) <= 0 {
			s.buffer = s.buffer[1:]
		}
		if len(s.buffer) > 0 || s.done {
			return nil
		}
		if err := m.x.fill(ctx, s); err != nil {
			return err
		}
	}
}

// verify reads candidates of a room and appends those that match.
func (x *Index) verify(ctx context.Context, q *Query, s *source, list []posting, hits []Hit) ([]Hit, error) {
	if len(list) == 0 {
		return hits, nil
	}
	at := make([]ids.Seq, 0, len(list))
	for _, p := range list {
		at = append(at, p.seq)
	}
	for _, p := range list {
		if p.edit != 0 {
			at = append(at, p.edit)
		}
	}
	events, err := x.rooms.AtAll(ctx, s.room, at...)
	if err != nil {
		return nil, wrap("read events found", err)
	}
	edits := events[len(list):]
	for i, p := range list {
		e := events[i]
		var edit *room.Stored
		if p.edit != 0 {
			edit, edits = edits[0], edits[1:]
		}
		if e == nil || e.RedactedBy != nil || !s.access.MaySee(e) || s.access.Erasures.Hides(e) || !q.Pass(e) {
			continue
		}
		if edit != nil && (edit.RedactedBy != nil || edit.Seq > s.until || !s.access.MaySee(edit)) {
			edit = nil
		}
		text, k := textOf(e, edit)
		if k&q.Keys == 0 {
			continue
		}
		if rank, ok := match(text, q.Words); ok {
			hits = append(hits, Hit{
				Place: Place{e.OriginServerTS, s.room, e.Seq}, Event: e, Access: s.access, Until: s.until, Rank: rank, text: text,
			})
		}
	}
	return hits, nil
}

// How well a word matches a run of the text.
const (
	wholeWord  = 1.0
	wordBegins = 0.7
	insideWord = 0.4
)

// match reports whether a text has all the words, and how well. Whole words count
// more than parts, several more than one, and a short text more than a long one.
func match(text string, words []string) (rank float64, ok bool) {
	best, times := make([]float64, len(words)), make([]int, len(words))
	runs := 0
	textindex.Runs(textindex.Fold(text), func(kind textindex.Kind, run string) {
		runs++
		for i, w := range words {
			if quality := matchRun(kind, run, w); quality > 0 {
				best[i] = max(best[i], quality)
				times[i]++
			}
		}
	})
	for i := range words {
		if times[i] == 0 {
			return 0, false
		}
		rank += best[i] * (1 + math.Log(float64(times[i])))
	}
	const usual = 20 // runs of a message
	return rank / float64(len(words)) / (1 + math.Log1p(float64(runs)/usual)), true
}

func matchRun(kind textindex.Kind, run, w string) float64 {
	switch {
	case run == w:
		return wholeWord
	case kind == textindex.Unspaced && strings.Contains(run, w):
		return wholeWord
	case kind == textindex.Symbol, utf8.RuneCountInString(w) == 1:
		return 0
	case strings.HasPrefix(run, w):
		return wordBegins
	case strings.Contains(run, w):
		return insideWord
	}
	return 0
}
