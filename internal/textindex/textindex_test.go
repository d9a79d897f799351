package textindex

import (
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"
)

func TestFold(t *testing.T) {
	for in, want := range map[string]string{
		"Hello": "hello", "Zoë MÜLLER": "zoe muller", "Straße": "strasse", "ＡＢＣ１２": "abc12", "ﬁne": "fine", "Łódź øre": "lodz ore",
		"İstanbul": "istanbul", "ёлка": "елка", "ΆΈ": "αε", "مُحَمَّد": "محمد", "محـــمد": "محمد", "שָׁלוֹם": "שלום",
		"ガギ": "ガギ", "ｶﾞ": "ガ", "한국": "한국", "हिन्दी": "हिन्दी", "👍🏽": "👍🏽",
	} {
		if got := Fold(in); got != want {
			t.Errorf("Fold(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestWords(t *testing.T) {
	for in, want := range map[string]string{
		"": "", " .,-!": "", "Hello, World!": "hello world", "a_b-c.d": "a b c d", "don't": "don t", "x1 2y x1": "x1 2y",
		"東京タワー2号": "東京タワー 2 号", "ราคา100บาท": "ราคา 100 บาท", "👍🏽👎ok": "👍 👎 ok", "5€": "5 €", "हिन्दी भाषा": "हिन्दी भाषा",
		"מה שלומך": "מה שלומך", strings.Repeat("é", 100): strings.Repeat("e", MaxTermBytes),
		strings.Repeat("я", 100): strings.Repeat("я", MaxTermBytes/2),
	} {
		if got := strings.Join(Words(in), " "); got != want {
			t.Errorf("Words(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestPrefixes(t *testing.T) {
	if got := strings.Join(Prefixes("山田太郎 Taro", NameTerms), " "); got != "山田太郎 田太郎 太郎 郎 taro" {
		t.Error(got)
	}
	long := ""
	for r := '一'; r < '一'+100; r++ {
		long += string(r)
	}
	if got := len(Prefixes(long, NameTerms)); got != NameTerms {
		t.Errorf("%d terms of a long name", got)
	}
	terms := Prefixes("Zoë von Müller", NameTerms)
	for words, want := range map[string]bool{"zo": true, "mul zoe": true, "": true, "uller": false, "zoe x": false} {
		if got := HavePrefixes(terms, Words(words)); got != want {
			t.Errorf("%q: %t", words, got)
		}
	}
	if got := Longest([]string{"ab", "東京都", "xyz"}); got != "東京都" {
		t.Error(got)
	}
}

// TestAnyText: whatever the text, terms are clean, short, and fold to themselves.
func TestAnyText(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := rapid.String().Draw(t, "text")
		for _, term := range append(Words(s), Prefixes(s, DescriptionTerms)...) {
			if term == "" || len(term) > MaxTermBytes || !utf8.ValidString(term) || strings.ContainsAny(term, "\x00 ") {
				t.Fatalf("term %q of %q", term, s)
			}
		}
	})
}

func TestTerms(t *testing.T) {
	for in, want := range map[string]string{
		"The cat, the CAT!": "the cat", "東": "東", "東京": "東京 京", "東京都庁": "東京 京都 都庁 庁", "a東b": "a 東 b", "👍👍": "👍",
		"ครับ": "คร รั ับ บ",
	} {
		if got := strings.Join(Terms(in, 100), " "); got != want {
			t.Errorf("Terms(%q) = %q, want %q", in, got, want)
		}
	}
	if got := len(Terms("a b c d", 3)); got != 3 {
		t.Errorf("%d terms", got)
	}
	for term, want := range map[string]string{"a": "", "ab": "", "abcd": "bcd cd", "東京": "", "👍": "", "straße": "traße raße aße ße"} {
		var list []string
		Endings(term, func(s string) { list = append(list, s) })
		if got := strings.Join(list, " "); got != want {
			t.Errorf("Endings(%q) = %q, want %q", term, got, want)
		}
	}
}
