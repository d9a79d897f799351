package event

import (
	"bytes"
	"iter"
)

// This file reads canonical JSON in place. Text that is not canonical makes the
// functions find nothing or too little; they never panic.

// Members yields the members of a canonical object in order, values as raw
// JSON. It stops at the first fault.
func Members(object []byte) iter.Seq2[string, []byte] {
	return func(yield func(string, []byte) bool) {
		w := walk(object)
		for w.next() {
			if !yield(string(w.key), w.value) {
				return
			}
		}
	}
}

// Elements yields the elements of a canonical array in order as raw JSON. It
// stops at the first fault.
func Elements(array []byte) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		w := walk(array)
		for w.nextElement() {
			if !yield(w.value) {
				return
			}
		}
	}
}

// Field returns the raw value of an object's member, and whether it is there.
// The result is part of object.
func Field(object []byte, name string) (value []byte, ok bool) {
	w := walk(object)
	for w.next() {
		if string(w.key) == name {
			return w.value, true
		}
		if string(w.key) > name {
			break
		}
	}
	return nil, false
}

// StringField returns an object's member if it is there and is a string.
func StringField(object []byte, name string) (value string, ok bool) {
	raw, ok := Field(object, name)
	if !ok {
		return "", false
	}
	return String(raw)
}

// SetString returns object with a member that is a string, added or replaced.
func SetString(object []byte, name, value string) []byte {
	return SetField(nil, object, name, AppendString(nil, value))
}

// SetField appends object to dst with one member added or replaced; value is
// canonical JSON.
func SetField(dst, object []byte, name string, value []byte) []byte {
	dst = append(dst, '{')
	start, done := len(dst), false
	member := func(key, value []byte) {
		if len(dst) > start {
			dst = append(dst, ',')
		}
		dst = AppendString(dst, key)
		dst = append(dst, ':')
		dst = append(dst, value...)
	}
	for w := walk(object); w.next(); {
		if !done && string(w.key) >= name {
			member([]byte(name), value)
			done = true
		}
		if string(w.key) != name {
			member(w.key, w.value)
		}
	}
	if !done {
		member([]byte(name), value)
	}
	return append(dst, '}')
}

// DropField appends object to dst without one member.
func DropField(dst, object []byte, name string) []byte {
	dst = append(dst, '{')
	start := len(dst)
	for w := walk(object); w.next(); {
		if string(w.key) == name {
			continue
		}
		if len(dst) > start {
			dst = append(dst, ',')
		}
		dst = append(dst, w.text...)
	}
	return append(dst, '}')
}

// String returns what a raw canonical string stands for.
func String(raw []byte) (s string, ok bool) {
	if len(raw) < 2 || raw[0] != '"' || raw[len(raw)-1] != '"' {
		return "", false
	}
	body := raw[1 : len(raw)-1]
	if bytes.IndexByte(body, '\\') < 0 {
		return string(body), true
	}
	return string(unescapeAll(body)), true
}

// Int returns the value of a raw canonical number: an integer within ±MaxInt,
// not -0, no leading zeros.
func Int(raw []byte) (n int64, ok bool) {
	digits := raw
	negative := len(raw) > 0 && raw[0] == '-'
	if negative {
		digits = raw[1:]
	}
	// MaxInt has 16 digits, so that n cannot overflow.
	if len(digits) == 0 || len(digits) > 16 || digits[0] == '0' && (negative || len(digits) > 1) {
		return 0, false
	}
	for _, d := range digits {
		if d < '0' || d > '9' {
			return 0, false
		}
		n = n*10 + int64(d-'0')
	}
	if n > MaxInt {
		return 0, false
	}
	if negative {
		n = -n
	}
	return n, true
}

// isObject reports whether the raw value begins as an object.
func isObject(raw []byte) bool { return len(raw) > 1 && raw[0] == '{' }

func unescapeAll(body []byte) []byte {
	out := make([]byte, 0, len(body))
	for len(body) > 0 {
		c, n := unescape(body)
		out = append(out, c)
		body = body[n:]
	}
	return out
}

// walker reads the members of an object, or the elements of an array, one after
// the other.
type walker struct {
	rest []byte // from the opening bracket or the comma on
	open byte
	// key is unescaped; value is raw; text is the whole member as it stands.
	key, value, text []byte
	// closed is true if the end was reached and nothing follows it.
	closed bool
}

func walk(value []byte) walker { return walker{rest: value} }

// begin steps over the bracket or comma before the next item.
func (w *walker) begin(open byte) bool {
	if len(w.rest) < 2 {
		return false
	}
	first := w.open == 0
	w.open = open
	switch {
	case first && w.rest[0] == open:
		if w.rest[1] == open+2 { // '{' and '[' are each two before their closing bracket
			w.closed = len(w.rest) == 2
			return false
		}
	case !first && w.rest[0] == ',':
	default:
		return false
	}
	w.rest = w.rest[1:]
	return true
}

// end steps to the comma after an item of n bytes, or past the closing bracket.
func (w *walker) end(n int) bool {
	if n >= len(w.rest) {
		return false
	}
	w.text, w.rest = w.rest[:n], w.rest[n:]
	switch w.rest[0] {
	case ',':
		return true
	case w.open + 2:
		w.closed = len(w.rest) == 1
		return true
	}
	return false
}

// next reads a member of an object.
func (w *walker) next() bool {
	if !w.begin('{') {
		return false
	}
	k := skipString(w.rest)
	if k < 0 || k+1 >= len(w.rest) || w.rest[k] != ':' {
		return false
	}
	w.key = w.rest[1 : k-1]
	if bytes.IndexByte(w.key, '\\') >= 0 {
		w.key = unescapeAll(w.key)
	}
	n := skip(w.rest[k+1:])
	if n < 0 {
		return false
	}
	w.value = w.rest[k+1 : k+1+n]
	return w.end(k + 1 + n)
}

// nextElement reads an element of an array.
func (w *walker) nextElement() bool {
	if !w.begin('[') {
		return false
	}
	n := skip(w.rest)
	if n < 0 {
		return false
	}
	w.value = w.rest[:n]
	return w.end(n)
}

// skip returns the length of the value b begins with, -1 if there is none.
func skip(b []byte) int {
	depth := 0
	for i := 0; i < len(b); {
		switch b[i] {
		case '"':
			n := skipString(b[i:])
			if n < 0 {
				return -1
			}
			i += n
		case '{', '[':
			depth++
			i++
		case '}', ']':
			depth--
			i++
		case ',', ':':
			i++
			if depth == 0 {
				return -1
			}
		default:
			for i < len(b) && b[i] != ',' && b[i] != '}' && b[i] != ']' {
				i++
			}
		}
		if depth == 0 {
			return i
		}
		if depth < 0 {
			return -1
		}
	}
	return -1
}

// skipString returns the length of the string b begins with, quotation marks
// included, -1 if there is none.
func skipString(b []byte) int {
	if len(b) == 0 || b[0] != '"' {
		return -1
	}
	for i := 1; ; {
		i += plain(b[i:])
		switch {
		case i >= len(b):
			return -1
		case b[i] == '"':
			return i + 1
		case b[i] == '\\' && i+1 < len(b):
			i += 2
		default:
			return -1
		}
	}
}
