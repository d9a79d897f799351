package search

import (
	"cmp"
	"context"
	"math"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/hubbub-chat/hubbub/internal/ids"
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
	// headsPage is of how many rooms the heads are read at once.
	headsPage = 256
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
	if len(q.Words) == 0 {
		return nil, nil, nil
	}
	m := &merge{x: x, q: q}
	for rooms := range slices.Chunk(q.Rooms, headsPage) {
		if err := m.open(ctx, rooms); err != nil {
			return nil, nil, err
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

// open adds the candidates of rooms.
func (m *merge) open(ctx context.Context, rooms []ids.RoomID) error {
	heads, err := m.x.heads(ctx, rooms)
	if err != nil {
		return err
	}
	needles := newNeedles(m.q.Words)
	for i, id := range rooms {
		s, err := m.x.open(ctx, m.q, id, &heads[i], needles)
		if err != nil {
			return err
		}
		if s != nil {
			m.sources = append(m.sources, s)
		}
	}
	return nil
}

// source is the candidates of one room: what was said lately and has all words, and what
// the longest word finds in the rest.
type source struct {
	room   ids.RoomID
	p      ids.Partition
	access *room.Access
	until  ids.Seq
	// terms are looked for in old rows, words in segments.
	terms, words []string

	buffer []posting // the newest first
	// rest are candidates that were read, but there may be others above them.
	rest []posting
	// below: the old rows that are left stand under positions below it; under: the
	// segments that are left have names below it, "" before any was read.
	below                 ids.Seq
	under                 string
	oldDone, segmentsDone bool
	done                  bool
}

// open returns the candidates of a room, nil if it does not have the words or is
// none of the searcher's. What was said lately is read before the segments: what becomes
// one meanwhile is found there.
func (x *Index) open(ctx context.Context, q *Query, id ids.RoomID, h *head, needles []needle) (*source, error) {
	s := &source{room: id, p: x.rooms.Place(id).Partition}
	folded, err := x.recent(ctx, s, h, needles)
	if err != nil {
		return nil, err
	}
	if h.segments > 0 || folded {
		if s.words, err = x.standFor(ctx, s, needles, x.segmentTerms); err != nil {
			return nil, err
		}
	}
	if h.old {
		if s.terms, err = x.standFor(ctx, s, needles, x.oldTerms); err != nil {
			return nil, err
		}
	}
	if len(s.rest)+len(s.words)+len(s.terms) == 0 {
		return nil, nil
	}
	if s.access, s.until, err = q.Open(ctx, id); err != nil || s.access == nil {
		return nil, err
	}
	s.below = s.until + maxSpan
	s.oldDone, s.segmentsDone = len(s.terms) == 0, len(s.words) == 0
	return s, nil
}

// recent finds what a room said lately that has all words. folded tells that some of what
// was in blocks when the head was read may be in a segment now.
func (x *Index) recent(ctx context.Context, s *source, h *head, needles []needle) (folded bool, err error) {
	s.rest = appendMatches(nil, h.entries, needles)
	if h.blocks == 0 {
		return false, nil
	}
	rows, err := x.store.Scan(ctx, storage.Range{
		Partition: s.p, Table: tables.SearchRecent, Entity: string(s.room), From: firstBlock, Limit: storage.MaxScan,
	})
	if err != nil {
		return false, wrap("search blocks", err)
	}
	there := 0
	for i := range rows {
		s.rest = appendMatches(s.rest, rows[i].Value, needles)
		if rows[i].Sort <= blockSort(h.version) {
			there += len(rows[i].Value)
		}
	}
	return there != h.blocks, nil
}

// standFor returns the terms that the longest of some words stands for, none if one of
// the words stands for none.
func (x *Index) standFor(
	ctx context.Context, s *source, needles []needle, terms func(context.Context, *source, *needle) ([]string, error),
) (longest []string, err error) {
	most := 0
	for i := range needles {
		list, err := terms(ctx, s, &needles[i])
		if err != nil || len(list) == 0 {
			return nil, err
		}
		if needles[i].letters > most {
			longest, most = list, needles[i].letters
		}
	}
	return longest, nil
}

// heads returns the heads of rooms.
func (x *Index) heads(ctx context.Context, rooms []ids.RoomID) ([]head, error) {
	keys := make([]storage.Key, len(rooms))
	for i, id := range rooms {
		keys[i] = key(tables.SearchRecent, x.rooms.Place(id).Partition, id, "")
	}
	rows, err := x.store.Get(ctx, keys...)
	if err != nil {
		return nil, wrap("read index", err)
	}
	out := make([]head, len(rows))
	for i := range rows {
		out[i] = decodeHead(rows[i])
	}
	return out, nil
}

// fill reads the next candidates of a room. Of terms that have more, the last row
// read says how far down the picture is complete.
func (x *Index) fill(ctx context.Context, s *source) error {
	s.buffer, s.rest = s.rest, nil
	complete := ids.Seq(0)
	if !s.oldDone {
		c, err := x.fillOld(ctx, s)
		if err != nil {
			return err
		}
		complete = max(complete, c)
	}
	if !s.segmentsDone {
		c, err := x.fillSegments(ctx, s)
		if err != nil {
			return err
		}
		complete = max(complete, c)
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
	s.done = s.oldDone && s.segmentsDone
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
