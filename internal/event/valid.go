package event

import "bytes"

// This file checks text that was canonical JSON when it was stored, before it becomes
// a part of a response as it stands. It is asked of every row that is read: it
// allocates nothing and looks at strings eight bytes at a time.

// IsJSON reports whether text is one JSON value without white space around its parts.
// Names may be repeated, and UTF-8 is not looked at: these do a reader no harm.
func IsJSON(text []byte) bool {
	v := validator{b: text}
	return v.value(0) && len(v.b) == 0
}

// IsOpenObject reports whether text is an object, as IsJSON has it, without its closing
// brace, and with a member at least.
func IsOpenObject(text []byte) bool {
	v := validator{b: text}
	return v.take('{') && v.members(0) && len(v.b) == 0
}

// validator is what is left of a text.
type validator struct{ b []byte }

func (v *validator) take(c byte) bool {
	if len(v.b) == 0 || v.b[0] != c {
		return false
	}
	v.b = v.b[1:]
	return true
}

func (v *validator) value(depth int) bool {
	if len(v.b) == 0 || depth > MaxDepth {
		return false
	}
	switch v.b[0] {
	case '"':
		return v.str()
	case '{':
		v.b = v.b[1:]
		return v.take('}') || v.members(depth+1) && v.take('}')
	case '[':
		v.b = v.b[1:]
		return v.take(']') || v.elements(depth+1) && v.take(']')
	case 't':
		return v.word("true")
	case 'f':
		return v.word("false")
	case 'n':
		return v.word("null")
	}
	return v.number()
}

func (v *validator) members(depth int) bool {
	for {
		if !v.str() || !v.take(':') || !v.value(depth) {
			return false
		}
		if !v.take(',') {
			return true
		}
	}
}

func (v *validator) elements(depth int) bool {
	for {
		if !v.value(depth) {
			return false
		}
		if !v.take(',') {
			return true
		}
	}
}

func (v *validator) word(w string) bool {
	if !bytes.HasPrefix(v.b, []byte(w)) {
		return false
	}
	v.b = v.b[len(w):]
	return true
}

func (v *validator) str() bool {
	if !v.take('"') {
		return false
	}
	for {
		v.b = v.b[plain(v.b):]
		switch {
		case len(v.b) == 0 || v.b[0] < 0x20:
			return false
		case v.b[0] == '"':
			v.b = v.b[1:]
			return true
		case !v.escape():
			return false
		}
	}
}

func (v *validator) escape() bool {
	if len(v.b) < 2 {
		return false
	}
	n := 2
	switch v.b[1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
	case 'u':
		if n = 6; len(v.b) < n {
			return false
		}
		if _, ok := hex4(v.b[2:n]); !ok {
			return false
		}
	default:
		return false
	}
	v.b = v.b[n:]
	return true
}

// number takes fractions and exponents too, which events of the first room versions
// could hold.
func (v *validator) number() bool {
	v.take('-')
	if v.take('0') { // no digit follows
		if len(v.b) > 0 && v.b[0] >= '0' && v.b[0] <= '9' {
			return false
		}
	} else if !v.digits() {
		return false
	}
	if v.take('.') && !v.digits() {
		return false
	}
	if v.take('e') || v.take('E') {
		_ = v.take('+') || v.take('-')
		return v.digits()
	}
	return true
}

func (v *validator) digits() bool {
	n := 0
	for n < len(v.b) && v.b[n] >= '0' && v.b[n] <= '9' {
		n++
	}
	v.b = v.b[n:]
	return n > 0
}
