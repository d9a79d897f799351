// Package textindex says what of a text an index remembers, so that people find it
// again however they write it: without regard to case, accents and width, in every
// script.
//
// A text is folded, then cut into runs. In most scripts a run is a word. Scripts
// that put no spaces between words (Chinese, Japanese, Thai, …; Korean too, whose
// words grow endings) give runs of which any part may be looked for. A symbol, as
// an emoji, is a run by itself.
//
// Prefixes is for names, Terms for longer texts. It is pure and keeps nothing.
package textindex

import (
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/cases"
	"golang.org/x/text/unicode/norm"
)

// Limits.
const (
	// MaxTermBytes is the most of a word that counts: what is longer is no word of
	// a language, and its beginning identifies it.
	MaxTermBytes = 64
	// NameTerms bounds the terms of a name, DescriptionTerms those of a longer text
	// that is no message.
	NameTerms        = 32
	DescriptionTerms = 200
)

// fewTerms are looked through faster than found in a map.
const fewTerms = 32

// Kind says what a run is.
type Kind uint8

// The kinds of runs.
const (
	// Word: letters, digits and their marks.
	Word Kind = iota + 1
	// Unspaced: of a script without spaces between words.
	Unspaced
	// Symbol: one symbol.
	Symbol
)

// Fold brings a text into the form in which texts are compared.
func Fold(s string) string {
	if isASCII(s) {
		return strings.ToLower(s)
	}
	s = norm.NFKD.String(s)
	s = strings.Map(func(r rune) rune {
		if isAccent(r) {
			return -1
		}
		return plain(r)
	}, s)
	return norm.NFC.String(cases.Fold().String(s))
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// isAccent reports marks that people leave out when they look for something. The
// vowel signs of Indic scripts and the voicing of kana are none of them.
func isAccent(r rune) bool {
	switch {
	case r < 0x300:
		return false
	case r <= 0x36f, // Latin, Greek, Cyrillic
		r >= 0x591 && r <= 0x5c7 && unicode.Is(unicode.Mn, r),                                                                 // Hebrew points
		r >= 0x610 && r <= 0x61a, r >= 0x64b && r <= 0x65f, r == 0x670, r >= 0x6d6 && r <= 0x6ed && unicode.Is(unicode.Mn, r), // Arabic
		r == 0x640, // the Arabic tatweel, which only makes a word wider
		r >= 0x1ab0 && r <= 0x1aff, r >= 0x1dc0 && r <= 0x1dff, r >= 0x20d0 && r <= 0x20ff, r >= 0xfe00 && r <= 0xfe0f, r >= 0xfe20 && r <= 0xfe2f:
		return true
	}
	return false
}

// plain maps letters with strokes, which no normalization takes apart.
func plain(r rune) rune {
	switch r {
	case 'ø', 'Ø':
		return 'o'
	case 'ł', 'Ł':
		return 'l'
	case 'đ', 'Đ':
		return 'd'
	case 'ħ', 'Ħ':
		return 'h'
	case 'ı':
		return 'i'
	}
	return r
}

// Runs calls fn with the runs of a folded text, in order.
func Runs(folded string, fn func(Kind, string)) {
	start, kind := 0, Kind(0)
	flush := func(end int) {
		if kind != 0 {
			fn(kind, folded[start:end])
		}
	}
	for i, r := range folded {
		k := kindOf(r)
		if kind != 0 && k == Word && unicode.Is(unicode.M, r) && kind != Symbol {
			continue // a mark belongs to what it is on
		}
		if k == kind && k != Symbol {
			continue
		}
		flush(i)
		start, kind = i, k
	}
	flush(len(folded))
}

func kindOf(r rune) Kind {
	switch {
	case r < utf8.RuneSelf:
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r >= 'A' && r <= 'Z' {
			return Word
		}
		return 0
	case unicode.In(r, unicode.Han, unicode.Hiragana, unicode.Katakana, unicode.Hangul, unicode.Thai, unicode.Lao, unicode.Khmer,
		unicode.Myanmar, unicode.Tibetan, unicode.Yi, unicode.Bopomofo), r == 'ー':
		return Unspaced
	case unicode.In(r, unicode.L, unicode.N, unicode.M):
		return Word
	case unicode.In(r, unicode.So, unicode.Sc):
		return Symbol
	}
	return 0
}

func cut(s string) string {
	if len(s) <= MaxTermBytes {
		return s
	}
	s = s[:MaxTermBytes]
	for !utf8.ValidString(s) {
		s = s[:len(s)-1]
	}
	return s
}

// Words returns the runs of a text, cut to their longest size, each once.
func Words(s string) []string {
	var out []string
	Runs(Fold(s), func(_ Kind, run string) {
		if run = cut(run); !slices.Contains(out, run) {
			out = append(out, run)
		}
	})
	return out
}

// Prefixes returns up to most terms of a name: whoever types the beginning of one
// means the name. They are words, and each end of a run without spaces, so that any
// part of it is the beginning of one.
func Prefixes(s string, most int) []string {
	var out []string
	add := func(t string) {
		if t = cut(t); len(out) < most && !slices.Contains(out, t) {
			out = append(out, t)
		}
	}
	Runs(Fold(s), func(kind Kind, run string) {
		add(run)
		if kind == Unspaced {
			for i := range run {
				add(run[i:])
			}
		}
	})
	return out
}

// Terms returns up to most terms of a longer text, each once: words, symbols, and of
// runs without spaces each pair of neighbours and the last letter.
func Terms(s string, most int) []string {
	var out []string
	var seen map[string]struct{} // of many
	add := func(t string) {
		switch {
		case len(out) >= most:
			return
		case len(out) < fewTerms:
			if slices.Contains(out, t) {
				return
			}
		default:
			if seen == nil {
				seen = make(map[string]struct{}, 2*len(out))
				for _, have := range out {
					seen[have] = struct{}{}
				}
			}
			if _, has := seen[t]; has {
				return
			}
			seen[t] = struct{}{}
		}
		out = append(out, t)
	}
	Runs(Fold(s), func(kind Kind, run string) {
		if kind != Unspaced {
			add(cut(run))
			return
		}
		Pairs(run, add)
		_, last := utf8.DecodeLastRuneInString(run)
		add(run[len(run)-last:])
	})
	return out
}

// Pairs calls fn with each pair of neighbours in a run; none of a single letter.
func Pairs(run string, fn func(string)) {
	a, b := -1, -1 // where the two letters before begin
	for i := range run {
		if a >= 0 {
			fn(run[a:i])
		}
		a, b = b, i
	}
	if a >= 0 {
		fn(run[a:])
	}
}

// Endings calls fn with each ending of at least two letters of a word, but not with
// the word itself: whoever looks for a part of a word means the beginning of one of
// them. Other terms have none.
func Endings(term string, fn func(string)) {
	if KindOf(term) != Word {
		return
	}
	_, last := utf8.DecodeLastRuneInString(term)
	for i := range term {
		if i > 0 && i < len(term)-last {
			fn(term[i:])
		}
	}
}

// KindOf returns what the first letter of a folded text is, 0 of none that counts.
func KindOf(folded string) Kind {
	r, _ := utf8.DecodeRuneInString(folded)
	return kindOf(r)
}

// HavePrefixes reports whether each word is the beginning of one of the terms.
func HavePrefixes(terms, words []string) bool {
	for _, w := range words {
		if !slices.ContainsFunc(terms, func(t string) bool { return strings.HasPrefix(t, w) }) {
			return false
		}
	}
	return true
}

// Longest returns the longest of words, the one that the fewest names have; "" of
// none.
func Longest(words []string) string {
	longest := ""
	for _, w := range words {
		if utf8.RuneCountInString(w) > utf8.RuneCountInString(longest) {
			longest = w
		}
	}
	return longest
}
