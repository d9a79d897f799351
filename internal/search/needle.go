package search

import (
	"cmp"
	"strings"
	"unicode/utf8"

	"github.com/hubbub-chat/hubbub/internal/textindex"
)

// needle is a word of a search as terms are looked for by it.
type needle struct {
	term string
	raw  []byte // term
	// whole: it is a term, not a part of one.
	whole bool
	// letters is how many the word has.
	letters int
}

func newNeedle(word string) needle {
	n := needle{term: word, letters: utf8.RuneCountInString(word)}
	switch unspaced := textindex.KindOf(word) == textindex.Unspaced; {
	case unspaced && n.letters > 1:
		// Each pair of letters is a term; the first has to lead to the event.
		pair := ""
		textindex.Pairs(word, func(p string) { pair = cmp.Or(pair, p) })
		n.term, n.whole = pair, true
	case n.letters == 1 && !unspaced:
		n.whole = true
	}
	n.raw = []byte(n.term)
	return n
}

func newNeedles(words []string) []needle {
	out := make([]needle, len(words))
	for i, w := range words {
		out[i] = newNeedle(w)
	}
	return out
}

// matches reports whether a term is one that the word can stand for. Of scripts without
// spaces a single letter is looked for by the pairs that it begins.
func (n *needle) matches(term string) bool {
	switch {
	case n.whole:
		return term == n.term
	case textindex.KindOf(term) == textindex.Word:
		return strings.Contains(term, n.term)
	}
	return strings.HasPrefix(term, n.term)
}

// among reports whether one of some terms matches, which NUL separates. Only terms that
// hold the needle are looked at.
func (n *needle) among(terms string) bool {
	for {
		at := strings.Index(terms, n.term)
		if at < 0 {
			return false
		}
		begin := strings.LastIndexByte(terms[:at], 0) + 1
		term, rest, _ := strings.Cut(terms[begin:], "\x00")
		if n.matches(term) {
			return true
		}
		terms = rest
	}
}
