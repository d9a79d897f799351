package pushrules

import (
	"strings"
	"unicode/utf8"
)

// A glob is a compiled pattern: `*` stands for any number of characters, `?` for
// exactly one, everything else for itself. Text and pattern are compared in lower
// case. spec: appendices §Glob-style matching.
//
// The pattern is cut at its stars into segments. A segment that follows a star may
// be taken at its first possible place: what comes after it can only gain room. So
// one pass from left to right decides, without going back, and the time is linear
// in the text:
//
//   - a plain segment is found by strings.Index;
//   - a segment with `?`, or one that has to start or end at a word boundary, by a
//     bit-parallel automaton (Shift-And), which costs one step for each character
//     and each 64 characters of the segment.
//
// Translating to a regular expression was rejected: even a linear engine walks the
// text with all states of the pattern, and a thousand patterns on a 64 KiB message
// would take seconds. So was backtracking, which is quadratic at best.
type glob struct {
	// text is the whole pattern in lower case if it has no wildcard.
	text string
	// plain says that text is set.
	plain bool
	// words says that any part of the text may match that starts and ends at a word
	// boundary, instead of the whole text.
	words bool
	// need is a part that every match contains, "" if there is none: looking for it
	// first refuses nearly every text at the speed of memory.
	need string
	segs []segment
}

// segment is what stands between two stars.
type segment struct {
	// text is the segment in lower case, with its `?`.
	text string
	// runes is the length of text in characters.
	runes int
	// wild says that text contains `?`.
	wild bool
	auto *automaton
}

const (
	// maxNeedBytes keeps glob.need in the range for which strings.Index has vector
	// code without a bad case.
	maxNeedBytes = 32
	// maxBoundaryRetries is how often an occurrence at the wrong place is skipped
	// before the automaton takes over, whose time does not depend on luck.
	maxBoundaryRetries = 4
	// indexBytesPerStep is how many bytes strings.Index passes in the time of one
	// step of an automaton.
	indexBytesPerStep = 32
)

// compileGlob compiles a pattern.
func compileGlob(pattern string, words bool) glob {
	p := strings.ToLower(pattern)
	g := glob{words: words}
	if !strings.ContainsAny(p, "*?") {
		g.text, g.plain = p, true
		if !words {
			return g
		}
	}
	parts := strings.Split(p, "*")
	for i, part := range parts {
		if part == "" && i > 0 && i < len(parts)-1 {
			continue // the star after a star
		}
		s := segment{text: part, runes: utf8.RuneCountInString(part), wild: strings.Contains(part, "?")}
		atEdge := i == 0 || i == len(parts)-1
		if part != "" && (s.wild || words && atEdge) {
			s.auto = newAutomaton(part)
		}
		g.segs = append(g.segs, s)
		for lit := range strings.SplitSeq(part, "?") {
			if len(lit) > len(g.need) {
				g.need = lit
			}
		}
	}
	switch {
	case g.plain:
		g.need = "" // the one segment is looked for in the same way
	case len(g.need) > maxNeedBytes:
		g.need = g.need[:maxNeedBytes]
	}
	return g
}

// match reports whether s, which is in lower case, matches. It takes the steps it
// costs from work, and reports false once they are used up.
func (g *glob) match(s string, work *int) bool {
	if g.plain && !g.words {
		return s == g.text
	}
	if *work < 0 {
		return false
	}
	*work -= 1 + len(s)/indexBytesPerStep
	if !strings.Contains(s, g.need) {
		return false
	}
	first, last := &g.segs[0], &g.segs[len(g.segs)-1]
	if len(g.segs) == 1 {
		if g.words {
			return first.find(s, 0, true, true, work) >= 0
		}
		end, ok := first.at(s, 0)
		return ok && end == len(s)
	}
	var pos int
	var ok bool
	switch {
	case first.text == "":
	case g.words:
		if pos = first.find(s, 0, true, false, work); pos < 0 {
			return false
		}
	default:
		if pos, ok = first.at(s, 0); !ok {
			return false
		}
	}
	limit := len(s)
	if !g.words {
		if limit = last.suffix(s); limit < pos {
			return false
		}
	}
	for i := 1; i < len(g.segs)-1; i++ {
		if pos = g.segs[i].find(s[:limit], pos, false, false, work); pos < 0 {
			return false
		}
	}
	if g.words && last.text != "" {
		return last.find(s, pos, false, true, work) >= 0
	}
	return true
}

// at reports whether the segment stands at s[pos:], and where it ends.
func (g *segment) at(s string, pos int) (end int, ok bool) {
	if !g.wild {
		return pos + len(g.text), strings.HasPrefix(s[pos:], g.text)
	}
	for _, want := range g.text {
		if pos == len(s) {
			return 0, false
		}
		have, size := utf8.DecodeRuneInString(s[pos:])
		if want != '?' && want != have {
			return 0, false
		}
		pos += size
	}
	return pos, true
}

// suffix returns where the segment starts if s ends with it, else -1.
func (g *segment) suffix(s string) int {
	if !g.wild {
		if strings.HasSuffix(s, g.text) {
			return len(s) - len(g.text)
		}
		return -1
	}
	start := len(s)
	for range g.runes {
		if start == 0 {
			return -1
		}
		_, size := utf8.DecodeLastRuneInString(s[:start])
		start -= size
	}
	if _, ok := g.at(s, start); !ok {
		return -1
	}
	return start
}

// find returns the end of the first occurrence of the segment in s[from:] that
// starts and ends at a word boundary where that is asked for, else -1.
func (g *segment) find(s string, from int, atStart, atEnd bool, work *int) int {
	if g.text == "" {
		return from
	}
	if !g.wild {
		end, sure := findPlain(s, g.text, from, atStart, atEnd, maxBoundaryRetries, work)
		if sure {
			return end
		}
		from = end
	}
	return g.auto.find(s, from, atStart, atEnd, work)
}

// findPlain looks for text as find does. After retries occurrences at the wrong
// place it gives up: sure is false, and end is where to go on.
func findPlain(s, text string, from int, atStart, atEnd bool, retries int, work *int) (end int, sure bool) {
	for range retries {
		if *work -= 1 + len(text)/indexBytesPerStep; *work < 0 {
			return -1, true
		}
		i := strings.Index(s[from:], text)
		if i < 0 {
			*work -= (len(s) - from) / indexBytesPerStep
			return -1, true
		}
		*work -= i / indexBytesPerStep
		start := from + i
		end := start + len(text)
		if (!atStart || isBoundary(s, start)) && (!atEnd || isBoundary(s, end)) {
			return end, true
		}
		_, size := utf8.DecodeRuneInString(s[start:])
		from = start + size
	}
	return from, false
}

// isBoundary reports whether a word may start or end at s[i]: at the ends of the
// text, and beside any character that is not part of a word.
// spec: client-server §Push Rules, event_match.
func isBoundary(s string, i int) bool {
	return i == 0 || i == len(s) || !isWord(s[i-1]) || !isWord(s[i])
}

func isWord(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_'
}

// automaton is a Shift-And matcher: bit i of its state says that the last i+1
// characters match the first i+1 of the pattern. It is immutable.
type automaton struct {
	// ascii and other map a character to its class, a row of masks; class 0 is every
	// character that the pattern does not name.
	ascii [utf8.RuneSelf]uint16
	other map[rune]uint16
	masks []uint64
	words int
	// last is the bit of the state that accepts, in its last word.
	last uint64
}

func newAutomaton(pattern string) *automaton {
	runes := []rune(pattern)
	a := &automaton{words: (len(runes) + 63) / 64}
	a.last = 1 << ((len(runes) - 1) % 64)
	a.masks = make([]uint64, a.words)
	for _, r := range runes {
		if r == '?' || a.class(r) != 0 {
			continue
		}
		class := uint16(len(a.masks) / a.words)
		a.masks = append(a.masks, make([]uint64, a.words)...)
		if r < utf8.RuneSelf {
			a.ascii[r] = class
			continue
		}
		if a.other == nil {
			a.other = make(map[rune]uint16)
		}
		a.other[r] = class
	}
	for i, r := range runes {
		bit := uint64(1) << (i % 64)
		if r != '?' {
			a.masks[int(a.class(r))*a.words+i/64] |= bit
			continue
		}
		for row := 0; row < len(a.masks); row += a.words {
			a.masks[row+i/64] |= bit
		}
	}
	return a
}

func (a *automaton) class(r rune) uint16 {
	if r < utf8.RuneSelf {
		return a.ascii[r]
	}
	return a.other[r]
}

// find returns the end of the first occurrence in s[from:], as segment.find does.
func (a *automaton) find(s string, from int, atStart, atEnd bool, work *int) int {
	const maxWords = (MaxPatternBytes + 63) / 64
	var buf [maxWords]uint64
	state := buf[:]
	if a.words > maxWords { // stored under other limits
		state = make([]uint64, a.words)
	}
	state = state[:a.words]
	for pos := from; pos < len(s); {
		if *work -= a.words; *work < 0 {
			return -1
		}
		r, size := rune(s[pos]), 1
		if r >= utf8.RuneSelf {
			r, size = utf8.DecodeRuneInString(s[pos:])
		}
		var carry uint64
		if !atStart || isBoundary(s, pos) {
			carry = 1
		}
		row := int(a.class(r)) * a.words
		for w := range state {
			next := state[w]<<1 | carry
			carry = state[w] >> 63
			state[w] = next & a.masks[row+w]
		}
		pos += size
		if state[a.words-1]&a.last != 0 && (!atEnd || isBoundary(s, pos)) {
			return pos
		}
	}
	return -1
}
