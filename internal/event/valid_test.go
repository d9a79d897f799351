package event

import (
	"encoding/json"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestIsJSON(t *testing.T) {
	for _, text := range []string{
		`{}`, `[]`, `""`, `0`, `-17`, `1.5e-3`, `true`, `false`, `null`, `{"a":{"b":[1,"x",{}]},"a":null}`, `"\u00e9\n\"\\\/"`, "\"\xff\"",
		strings.Repeat("[", MaxDepth) + strings.Repeat("]", MaxDepth),
	} {
		if !IsJSON([]byte(text)) {
			t.Errorf("refused: %s", text)
		}
	}
	for _, text := range []string{
		``, `{`, `}`, `{"a"}`, `{"a":}`, `{"a":1,}`, `{a:1}`, `{"a":1}}`, `[1,]`, `[1`, `[1 2]`, `"`, `"a`, `"\"`, `"\x"`, `"\u12g4"`, `"\u12"`, "\"\x01\"",
		`-`, `1.`, `1e`, `.5`, `tru`, `nul`, `1x`, `"a""b"`, ` 1`, strings.Repeat("[", 10*MaxDepth),
	} {
		if IsJSON([]byte(text)) {
			t.Errorf("passed: %s", text)
		}
	}
	for text, want := range map[string]bool{
		`{"a":1`: true, `{"a":1,"b":{}`: true, `{`: false, ``: false, `{"a":1}`: false, `{"a":1,`: false, `{"a":`: false, `"a":1`: false,
	} {
		if IsOpenObject([]byte(text)) != want {
			t.Errorf("open object %s: %v, want %v", text, !want, want)
		}
	}
}

// TestIsJSONOfDamage: canonical JSON passes; one byte of it changed passes only if it is
// JSON still.
func TestIsJSONOfDamage(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		text, err := json.Marshal(jsonValue(3).Draw(rt, "value"))
		if err != nil {
			rt.Fatal(err)
		}
		if text, err = Canonical(nil, text); err != nil {
			rt.Skip("not canonical")
		}
		if !IsJSON(text) {
			rt.Fatalf("refused: %s", text)
		}
		at := rapid.IntRange(0, len(text)-1).Draw(rt, "at")
		text[at] = rapid.Byte().Draw(rt, "byte")
		if IsJSON(text) && !json.Valid(text) {
			rt.Fatalf("passed: %s", text)
		}
	})
}

func BenchmarkIsJSON(b *testing.B) {
	text := []byte(`{"body":"` + strings.Repeat("some words of a usual length ", 4) + `","m.mentions":{},"msgtype":"m.text"}`)
	b.ReportAllocs()
	for b.Loop() {
		if !IsJSON(text) {
			b.Fatal("refused")
		}
	}
}
