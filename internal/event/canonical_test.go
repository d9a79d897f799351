package event

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
	"pgregory.net/rapid"
)

func TestCanonicalForm(t *testing.T) {
	for _, tc := range []struct{ name, in, want string }{
		// The examples of the specification, appendices §Canonical JSON.
		{"spec empty", `{}`, `{}`},
		{"spec spaces", "{\n    \"one\": 1,\n    \"two\": \"Two\"\n}", `{"one":1,"two":"Two"}`},
		{"spec order", `{"b":"2","a":"1"}`, `{"a":"1","b":"2"}`},
		{
			"spec nested", `{"auth": {"success": true, "mxid": "@john.doe:example.com", "profile": {
				"display_name": "John Doe", "three_pids": [
				{"medium": "email", "address": "john.doe@example.org"},
				{"medium": "msisdn", "address": "123456789"}]}}}`,
			`{"auth":{"mxid":"@john.doe:example.com","profile":{"display_name":"John Doe","three_pids":` +
				`[{"address":"john.doe@example.org","medium":"email"},{"address":"123456789","medium":"msisdn"}]},"success":true}}`,
		},
		{"spec text", `{"a": "日本語"}`, `{"a":"日本語"}`},
		{"spec order of text", `{"本": 2, "日": 1}`, `{"日":1,"本":2}`},
		{"spec escape", `{"a": "\u65E5"}`, `{"a":"日"}`},
		{"spec null", `{"a": null}`, `{"a":null}`},

		{"scalar", ` "x" `, `"x"`},
		{"numbers", `[0,-1,9007199254740991,-9007199254740991]`, `[0,-1,9007199254740991,-9007199254740991]`},
		{"short escapes", `"\u0008\u0009\u000a\u000c\u000d\u0022\u005c\u002f\/"`, `"\b\t\n\f\r\"\\//"`},
		{"control characters", `"\u0000\u0001\u000B\u000e\u001F"`, `"\u0000\u0001\u000b\u000e\u001f"`},
		{"needless escapes", `"\u0020\u0021\u0041\u007A"`, `" !Az"`},
		{"DEL and line separators stay", "\"\\u007f\\u2028\u2029\"", "\"\x7f\u2028\u2029\""},
		{"surrogate pair", `"\ud83d\ude00"`, `"😀"`},
		{"astral after private use", `{"😀":1,"\ue000":2}`, "{\"\ue000\":2,\"😀\":1}"}, // UTF-16 order differs
		{"prefix first", `{"ab":1,"a":2}`, `{"a":2,"ab":1}`},
		{"escaped keys sort by meaning", `{"a\\":1,"a!":2,"a\n":3,"a\"":4}`, `{"a\n":3,"a!":2,"a\"":4,"a\\":1}`},
		{"NUL key", `{"a":1,"\u0000":2}`, `{"\u0000":2,"a":1}`},
		{"unsorted inside unsorted", `{"b":{"d":1,"c":[{"f":1,"e":2}]},"a":0}`, `{"a":0,"b":{"c":[{"e":2,"f":1}],"d":1}}`},
		{"empties", `{"b":[],"a":{}}`, `{"a":{},"b":[]}`},
		{"depth at the limit", strings.Repeat("[", MaxDepth) + strings.Repeat("]", MaxDepth), strings.Repeat("[", MaxDepth) + strings.Repeat("]", MaxDepth)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := Canonical([]byte("before"), []byte(tc.in))
			if err != nil || string(got) != "before"+tc.want {
				t.Errorf("got %s, %v; want before%s", got, err, tc.want)
			}
		})
	}
}

func TestCanonicalRefusesWhatIsNotJSON(t *testing.T) {
	wantRefused(t, ErrNotJSON, ErrBadJSON, [][2]string{
		{"nothing", ``},
		{"only space", " \n"},
		{"word", `yes`},
		{"cut word", `tru`},
		{"long word", `nullx`},
		{"open object", `{"a":1`},
		{"open array", `[1`},
		{"open string", `"a`},
		{"open escape", `"\`},
		{"comma at the end", `{"a":1,}`},
		{"comma at the end of an array", `[1,]`},
		{"no comma", `[1 2]`},
		{"no colon", `{"a" 1}`},
		{"key no string", `{a:1}`},
		{"wrong bracket", `{"a":1]`},
		{"two values", `{} {}`},
		{"NUL after the value", "{}\x00"},
		{"byte order mark", "\ufeff{}"},
		{"leading zero", `01`},
		{"plus", `+1`},
		{"minus alone", `-`},
		{"no digits after the point", `1.`},
		{"no digits in the exponent", `1e+`},
		{"NaN", `NaN`},
		{"raw control character", "\"\x1f\""},
		{"raw line feed far into a string", "\"0123456789abc\n\""},
		{"unknown escape", `"\x"`},
		{"bad hex", `"\u00g0"`},
		{"short hex", `"\u00`},
		{"cut in a surrogate pair", `"\ud800`},
		{"cut before the low half", `"\ud800\`},
		{"cut in the low half", `"\ud800\udc0`},
		{"bad hex in the low half", `"\ud800\uxxxx"`},
		{"invalid UTF-8", "\"\xff\""},
		{"UTF-8 of a surrogate", "\"\xed\xa0\x80\""},
		{"overlong UTF-8", "\"\xc0\x80\""},
		{"forbidden, then malformed", `[1.5,`},
		{"forbidden, then more text", `1.5 x`},
	})
}

func TestCanonicalRefusesWhatEventsMayNotHold(t *testing.T) {
	deep := strings.Repeat("[", MaxDepth+1)
	wantRefused(t, ErrBadJSON, ErrNotJSON, [][2]string{
		{"float", `1.5`},
		{"float that is whole", `1.0`},
		{"exponent", `1e10`},
		{"huge exponent", `1E400`},
		{"minus zero", `-0`},
		{"2^53", `9007199254740992`},
		{"-2^53", `-9007199254740992`},
		{"2^64 and one", `18446744073709551617`},
		{"17 digits", `10000000000000000`},
		{"duplicate key", `{"a":1,"a":1}`},
		{"duplicate key, not neighbours", `{"a":1,"b":1,"a":1}`},
		{"duplicate key by escape", `{"a":1,"\u0061":1}`},
		{"duplicate escaped key", `{"\n":1,"b":2,"\u000a":1}`},
		{"nested duplicate", `[{"x":{"a":1,"a":2}}]`},
		{"lone high surrogate", `"\ud800"`},
		{"lone low surrogate", `"\udc00x"`},
		{"two high surrogates", `"\ud800\ud800"`},
		{"too deep", deep + strings.Repeat("]", MaxDepth+1)},
		{"too deep to read on", strings.Repeat(`{"a":`, 100_000)},
	})
}

// wantRefused runs cases of a name and a text.
func wantRefused(t *testing.T, want, other error, cases [][2]string) {
	t.Helper()
	for _, tc := range cases {
		t.Run(tc[0], func(t *testing.T) {
			got, err := Canonical([]byte("kept"), []byte(tc[1]))
			if !errors.Is(err, want) || errors.Is(err, other) || string(got) != "kept" {
				t.Errorf("got %q, %v; want %v", got, err, want)
			}
		})
	}
}

func TestCanonicalObjectWantsAnObject(t *testing.T) {
	if got, err := CanonicalObject([]byte("{"), []byte(` {"a":1}`)); err != nil || string(got) != `{{"a":1}` {
		t.Errorf("got %s, %v", got, err)
	}
	for _, in := range []string{`[]`, `"{}"`, `null`, `1`} {
		if _, err := CanonicalObject([]byte("{"), []byte(in)); !errors.Is(err, ErrBadJSON) {
			t.Errorf("%s: got %v", in, err)
		}
	}
}

// jsonValue draws a value that canonical JSON can hold.
func jsonValue(depth int) *rapid.Generator[any] {
	text := rapid.Custom(func(t *rapid.T) any { return rapid.String().Draw(t, "text") })
	integer := rapid.Custom(func(t *rapid.T) any { return rapid.Int64Range(-MaxInt, MaxInt).Draw(t, "integer") })
	leaf := rapid.OneOf(text, integer, rapid.SampledFrom([]any{true, false, nil, "\x00", "\"", "\\", "\x7f", "😀", "\u2028<>&"}))
	if depth == 0 {
		return leaf
	}
	return rapid.OneOf(
		leaf,
		rapid.Custom(func(t *rapid.T) any { return rapid.SliceOfN(jsonValue(depth-1), 0, 4).Draw(t, "array") }),
		rapid.Custom(func(t *rapid.T) any {
			return rapid.MapOfN(rapid.String(), jsonValue(depth-1), 0, 50).Draw(t, "object")
		}),
	)
}

// TestCanonicalIsSortedMarshal compares with the standard library, which sorts
// keys by bytes too and escapes more than canonical JSON does.
func TestCanonicalIsSortedMarshal(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		value := jsonValue(3).Draw(t, "value")
		var want bytes.Buffer
		enc := json.NewEncoder(&want)
		enc.SetEscapeHTML(false)
		if err := enc.Encode(value); err != nil {
			t.Fatal(err)
		}
		expect := strings.TrimSuffix(want.String(), "\n")
		// The encoder escapes these two, which only JavaScript minds.
		expect = strings.NewReplacer(`\\`, `\\`, `\u2028`, "\u2028", `\u2029`, "\u2029").Replace(expect)
		indented, err := json.MarshalIndent(value, " ", "\t")
		if err != nil {
			t.Fatal(err)
		}
		got, err := Canonical(nil, indented)
		if err != nil || string(got) != expect {
			t.Fatalf("got  %s, %v\nwant %s", got, err, expect)
		}
	})
}

func TestAppendStringIsCanonical(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := rapid.StringOf(rapid.OneOf(rapid.Rune(), rapid.RuneFrom([]rune("\x00\x01\x1f\b\t\n\f\r\"\\/")))).Draw(t, "s")
		text := AppendString(nil, s)
		again, err := Canonical(nil, text)
		if err != nil || !bytes.Equal(again, text) {
			t.Fatalf("%q became %s, %v", text, again, err)
		}
		if back, ok := String(text); !ok || back != s {
			t.Fatalf("%q read back as %q", s, back)
		}
	})
}

func TestAppendStringIsShortest(t *testing.T) {
	if got := string(AppendString(nil, " !#[]\x7fé\n\"\\\x01")); got != "\" !#[]\x7fé\\n\\\"\\\\\\u0001\"" {
		t.Error(got)
	}
}

func FuzzCanonical(f *testing.F) {
	for _, seed := range []string{
		`{}`, `{"b":[1,2.5,"\ud83d\ude00"],"a":{"\u0000":null}}`, `{"a":1,"\u0061":2}`, `"\ud800"`, "\"\xff\"",
		`[-0,1e5,9007199254740992]`, `{"z":1,"y":{"x":[],"w":"\\\""}}`, `[[[[]]]]`, "{\"\u2028\":true}",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, src []byte) {
		got, err := Canonical(nil, src)
		// jsontext is strict about duplicates, UTF-8 and surrogates as we are.
		isJSON := jsontext.Value(src).IsValid()
		if err != nil {
			if errors.Is(err, ErrNotJSON) == errors.Is(err, ErrBadJSON) {
				t.Fatalf("neither or both kinds of error: %v", err)
			}
			if isJSON && errors.Is(err, ErrNotJSON) {
				t.Fatalf("%q is JSON: %v", src, err)
			}
			return
		}
		if !isJSON {
			t.Fatalf("accepted %q", src)
		}
		if len(got) > len(src) || !utf8.Valid(got) {
			t.Fatalf("%q became %q", src, got)
		}
		if a, b := decode(t, src), decode(t, got); !reflect.DeepEqual(a, b) {
			t.Fatalf("%q became %q: another meaning", src, got)
		}
		again, err := Canonical(nil, got)
		if err != nil || !bytes.Equal(again, got) {
			t.Fatalf("%q became %q, %v", got, again, err)
		}
		rfc := jsontext.Value(bytes.Clone(src)) // RFC 8785 agrees where keys are in one plane of Unicode
		if err := rfc.Canonicalize(); err == nil && ascii(src) && !bytes.Equal(rfc, got) {
			t.Fatalf("RFC 8785 gives %s, we %s", rfc, got)
		}
	})
}

func decode(t *testing.T, src []byte) (v any) {
	dec := json.NewDecoder(bytes.NewReader(src))
	dec.UseNumber()
	if err := dec.Decode(&v); err != nil {
		t.Fatalf("%q: %v", src, err)
	}
	return v
}

// ascii also refuses escapes, which could stand for anything.
func ascii(src []byte) bool {
	for _, b := range src {
		if b >= 0x80 || b == '\\' {
			return false
		}
	}
	return true
}

func TestIntRange(t *testing.T) {
	for _, tc := range []struct {
		in   string
		want int64
		ok   bool
	}{
		{"0", 0, true},
		{"-1", -1, true},
		{"9007199254740991", MaxInt, true},
		{"-9007199254740991", -MaxInt, true},
		{"9007199254740992", 0, false},
		{"-0", 0, false},
		{"", 0, false},
		{"-", 0, false},
		{"01", 0, false},
		{"1.0", 0, false},
		{`"1"`, 0, false},
		{"null", 0, false},
		{"99999999999999999999999", 0, false},
	} {
		if got, ok := Int([]byte(tc.in)); ok != tc.ok || ok && got != tc.want {
			t.Errorf("Int(%s) = %d, %v", tc.in, got, ok)
		}
	}
	if MaxInt != int64(math.Exp2(53))-1 {
		t.Error("MaxInt is not 2^53-1")
	}
}

func BenchmarkCanonical(b *testing.B) {
	long := strings.Repeat("The quick brown fox jumps over the lazy dog. ", 20)
	for _, bc := range []struct{ name, in string }{
		{"message sorted", `{"body":"Hello, world, how are you today?","msgtype":"m.text"}`},
		{"message unsorted", `{"msgtype":"m.text","body":"Hello, world, how are you today?","m.mentions":{}}`},
		{"reply", `{"msgtype":"m.text","body":"> quoted\n\nanswer","format":"org.matrix.custom.html","formatted_body":"<mx-reply>quoted</mx-reply>answer","m.relates_to":{"rel_type":"m.thread","event_id":"$Rqnc-F-dvnEYJTyHq_iKxU2bZ1CI92-kuZq3a5lr5Zg","is_falling_back":true,"m.in_reply_to":{"event_id":"$Rqnc-F-dvnEYJTyHq_iKxU2bZ1CI92-kuZq3a5lr5Zg"}}}`},
		{"encrypted", `{"algorithm":"m.megolm.v1.aes-sha2","sender_key":"abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG","ciphertext":"` + long + `","session_id":"abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG","device_id":"ABCDEFGHIJ"}`},
		{"japanese", `{"msgtype":"m.text","body":"` + strings.Repeat("日本語", 60) + `"}`},
	} {
		b.Run(bc.name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(bc.in)))
			src, dst := []byte(bc.in), make([]byte, 0, 4096)
			for b.Loop() {
				if _, err := Canonical(dst, src); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
