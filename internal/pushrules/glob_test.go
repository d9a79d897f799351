package pushrules

import (
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// refGlob is the reference: plain recursion over characters, exponential and
// obviously right. s and p are in lower case.
func refGlob(p, s []rune) bool {
	if len(p) == 0 {
		return len(s) == 0
	}
	if p[0] == '*' {
		for i := 0; i <= len(s); i++ {
			if refGlob(p[1:], s[i:]) {
				return true
			}
		}
		return false
	}
	return len(s) > 0 && (p[0] == '?' || p[0] == s[0]) && refGlob(p[1:], s[1:])
}

// refWords tries every part of the text that stands between word boundaries.
func refWords(p, s []rune) bool {
	text := string(s)
	for i := 0; i <= len(s); i++ {
		for j := i; j <= len(s); j++ {
			if isBoundary(text, len(string(s[:i]))) && isBoundary(text, len(string(s[:j]))) && refGlob(p, s[i:j]) {
				return true
			}
		}
	}
	return false
}

func matchGlob(pattern, s string, words bool) bool {
	g := compileGlob(pattern, words)
	work := maxWork
	return g.match(strings.ToLower(s), &work)
}

func TestGlobWhole(t *testing.T) {
	for _, tt := range []struct {
		pattern, text string
		want          bool
	}{
		{"lunc?*", "Lunch plans", true},
		{"lunc?*", "LUNCH", true},
		{"lunc?*", " lunch", false},
		{"lunc?*", "lunc", false},
		{"", "", true},
		{"", "x", false},
		{"*", "", true},
		{"**", "anything", true},
		{"?", "", false},
		{"?", "é", true},
		{"??", "é", false},
		{"a*b*c", "aXXbYYc", true},
		{"a*b*c", "aXXcYYb", false},
		{"a*a", "a", false},
		{"*ab", "aab", true},
		{"ab*ba", "aba", false},
		{"a.c", "abc", false},
		{"[ab]", "a", false},
		{"m.room.*", "m.room.member", true},
		{"*é?", "caféx", true},
		{"*?é", "é", false},
		{"Straße", "STRAßE", true},
		{"a\nb", "a\nb", true},
		{"a*b", "a\n\nb", true},
		{strings.Repeat("?", 70) + "x", strings.Repeat("y", 70) + "X", true},
		{"*" + strings.Repeat("?", 70) + "x*", strings.Repeat("y", 80) + "Xz", true},
		{"*" + strings.Repeat("?", 70) + "x*", strings.Repeat("y", 69) + "Xz", false},
	} {
		if got := matchGlob(tt.pattern, tt.text, false); got != tt.want {
			t.Errorf("glob %q on %q: got %v", tt.pattern, tt.text, got)
		}
	}
}

func TestGlobWords(t *testing.T) {
	for _, tt := range []struct {
		pattern, text string
		want          bool
	}{
		{"ex*ple", "An example event.", true},
		{"ex*ple", "exple", true},
		{"ex*ple", "An exciting triple-whammy", true},
		{"ex*ple", "hexample", false},
		{"ex*ple", "examples", false},
		{"cake", "cake", true},
		{"cake", "Cake!", true},
		{"cake", "pancakes", false},
		{"cake", "pancake cake", true},
		{"cake", "cake_", false},
		{"cake", "cake1", false},
		{"cake", "écakeé", true}, // only ASCII letters make words
		{"@room", "hi @room", true},
		{"@room", "@room: hi", true},
		{"@room", "@rooms", false},
		{"@room", "a@room", true}, // the @ is a boundary itself
		{"c?ke", "a coke.", true},
		{"c?ke", "a cokes c/ke", true},
		{"*cake", "pancake", true},
		{"*cake", "pancakes", false},
		{"cake*", "pancake", false},
		{"cake*", "a cake", true},
		{"", "anything", true},
		{"b", "ab ab ab ab ab ab ab ab b", true},
		{"b", "ab ab ab ab ab ab ab ab", false},
		{"foo bar", "a foo bar", true},
	} {
		if got := matchGlob(tt.pattern, tt.text, true); got != tt.want {
			t.Errorf("words %q on %q: got %v", tt.pattern, tt.text, got)
		}
	}
}

func FuzzGlob(f *testing.F) {
	f.Add("ex*ple", "An exciting triple-whammy", true)
	f.Add("*a*a?b", "aaaaab", false)
	f.Add("é?_", "é é_", true)
	f.Fuzz(func(t *testing.T, pattern, text string, words bool) {
		text = strings.ToLower(strings.ToValidUTF8(text, ""))
		pattern = strings.ToLower(strings.ToValidUTF8(pattern, ""))
		if len(text) > 24 || len(pattern) > 12 {
			return // too much for the reference
		}
		ref := refGlob
		if words {
			ref = refWords
		}
		if got, want := matchGlob(pattern, text, words), ref([]rune(pattern), []rune(text)); got != want {
			t.Fatalf("pattern %q text %q words %v: got %v, reference %v", pattern, text, words, got, want)
		}
	})
}

// TestGlobProperty draws from a small alphabet, where near misses are frequent.
func TestGlobProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		pattern := rapid.StringOfN(rapid.RuneFrom([]rune("ab_ é*?")), 0, 8, -1).Draw(t, "pattern")
		text := rapid.StringOfN(rapid.RuneFrom([]rune("ab_ é")), 0, 16, -1).Draw(t, "text")
		words := rapid.Bool().Draw(t, "words")
		ref := refGlob
		if words {
			ref = refWords
		}
		if got, want := matchGlob(pattern, text, words), ref([]rune(pattern), []rune(text)); got != want {
			t.Fatalf("got %v, reference %v", got, want)
		}
	})
}

// TestGlobWork proves the bound on hostile patterns: the steps of one match are at
// most a small number for each character and 64 characters of the pattern.
func TestGlobWork(t *testing.T) {
	body := strings.Repeat("a", 64<<10)
	for _, pattern := range []string{
		strings.Repeat("*a", 200) + "*b",
		strings.Repeat("*a", 200),
		strings.Repeat("a?", 200) + "b",
		"*" + strings.Repeat("a?", 200) + "*",
		strings.Repeat("a", 500) + "*a",
		strings.Repeat("?", 512),
		"a*" + strings.Repeat("a", 400) + "?*ab",
	} {
		for _, words := range []bool{false, true} {
			g := compileGlob(pattern, words)
			work := 1 << 30
			g.match(body, &work)
			if used, limit := 1<<30-work, 10*len(body); used > limit {
				t.Errorf("%.20s… words %v: %d steps, want at most %d", pattern, words, used, limit)
			}
		}
	}
}

func TestGlobOutOfWork(t *testing.T) {
	g := compileGlob("a?c", true)
	work := 2
	if g.match("x abc", &work) {
		t.Error("matched without work left")
	}
	work = 100
	if !g.match("x abc", &work) {
		t.Error("did not match with work left")
	}
}
