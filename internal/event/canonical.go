package event

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/bits"
	"slices"
	"unicode/utf8"
)

// MaxDepth bounds how deep arrays and objects nest in one value. Content in
// use nests below 20; the bound keeps recursion, here and in every client, small.
const MaxDepth = 100

// maxInput bounds the JSON text in bytes, so that an offset fits in an int32.
const maxInput = 1 << 30

// Room for this much is on the stack, which suffices for nearly every event.
const (
	stackMembers = 16  // of one object
	stackSort    = 512 // bytes of an object to sort
)

// Canonical appends the canonical form of the one JSON value in src to dst.
// spec: appendices §Canonical JSON, as room versions from 6 on enforce it.
//
// The error wraps ErrNotJSON, ErrBadJSON or, for input no caller should let in,
// ErrTooLarge; dst then is as it was. If src has both kinds of fault it is
// ErrNotJSON, except that nothing is read past the nesting limit. The result is
// never longer than src.
//
// How: one pass writes each member as it is read and remembers where it lies.
// Only an object whose keys did not arrive in order is sorted, by moving its
// finished members. A tree of values, the obvious design, costs an allocation
// per value.
func Canonical(dst, src []byte) ([]byte, error) {
	if !utf8.Valid(src) {
		return dst, fmt.Errorf("%w: invalid UTF-8", ErrNotJSON)
	}
	if len(src) > maxInput {
		return dst, fmt.Errorf("%w: %d bytes of JSON", ErrTooLarge, len(src))
	}
	c := canonicalizer{src: src, dst: slices.Grow(dst, len(src))}
	c.base = len(c.dst)
	err := c.value(0)
	if err == nil {
		if c.space(); c.pos != len(src) {
			err = c.malformed("text after the value")
		}
	}
	if err == nil {
		err = c.forbidden
	}
	if err != nil {
		return dst, err
	}
	return c.dst, nil
}

// CanonicalObject is Canonical for a value that has to be an object, as the
// content of events has. Another value is ErrBadJSON.
func CanonicalObject(dst, src []byte) ([]byte, error) {
	out, err := Canonical(dst, src)
	if err == nil && out[len(dst)] != '{' {
		return dst, fmt.Errorf("%w: not an object", ErrBadJSON)
	}
	return out, err
}

// canonicalizer is the state of one call of Canonical.
type canonicalizer struct {
	src, dst  []byte
	pos, base int // base is where the value begins in dst
	// forbidden is the first fault of the ErrBadJSON kind. Reading goes on to
	// learn whether the text is JSON at all.
	forbidden error
}

// member is where dst holds a member of an object, key and value without a
// comma, counted from base.
type member struct {
	start, keyEnd, end int32
	escaped            bool // the key holds a backslash
}

// offset is where the next byte will be written, counted from base.
func (c *canonicalizer) offset() int32 { return int32(len(c.dst) - c.base) }

func (c *canonicalizer) malformed(what string) error {
	return fmt.Errorf("%w: %s at byte %d", ErrNotJSON, what, c.pos)
}

func (c *canonicalizer) forbid(what string) {
	if c.forbidden == nil {
		c.forbidden = fmt.Errorf("%w: %s at byte %d", ErrBadJSON, what, c.pos)
	}
}

// space skips white space.
func (c *canonicalizer) space() {
	for c.pos < len(c.src) {
		switch c.src[c.pos] {
		case ' ', '\t', '\n', '\r':
			c.pos++
		default:
			return
		}
	}
}

// next skips white space and returns the byte behind it, 0 at the end. A NUL in
// the text is legal nowhere outside strings, so 0 is not ambiguous.
func (c *canonicalizer) next() byte {
	c.space()
	if c.pos == len(c.src) {
		return 0
	}
	return c.src[c.pos]
}

func (c *canonicalizer) value(depth int) error {
	switch b := c.next(); b {
	case '{', '[':
		if depth == MaxDepth {
			c.forbid("nested too deep")
			return c.forbidden
		}
		if b == '{' {
			return c.object(depth)
		}
		return c.array(depth)
	case '"':
		_, err := c.str()
		return err
	case 't':
		return c.literal("true")
	case 'f':
		return c.literal("false")
	case 'n':
		return c.literal("null")
	case '-', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9':
		return c.number()
	}
	return c.malformed("no value")
}

func (c *canonicalizer) literal(word string) error {
	rest := c.src[c.pos:]
	if len(rest) < len(word) || string(rest[:len(word)]) != word {
		return c.malformed("no value")
	}
	c.pos += len(word)
	c.dst = append(c.dst, word...)
	return nil
}

func (c *canonicalizer) array(depth int) error {
	c.pos++
	c.dst = append(c.dst, '[')
	if c.next() == ']' {
		c.pos++
		c.dst = append(c.dst, ']')
		return nil
	}
	for {
		if err := c.value(depth + 1); err != nil {
			return err
		}
		switch c.next() {
		case ',':
			c.pos++
			c.dst = append(c.dst, ',')
		case ']':
			c.pos++
			c.dst = append(c.dst, ']')
			return nil
		default:
			return c.malformed("array not continued")
		}
	}
}

func (c *canonicalizer) object(depth int) error {
	c.pos++
	c.dst = append(c.dst, '{')
	body, sorted := c.offset(), true
	if c.next() == '}' {
		c.pos++
		c.dst = append(c.dst, '}')
		return nil
	}
	// Not in c: what a pointer leads to would be on the heap.
	var room [stackMembers]member
	members := room[:0]
	for {
		m, err := c.member(depth)
		if err != nil {
			return err
		}
		if n := len(members); sorted && n > 0 {
			sorted = c.compare(members[n-1], m) < 0
		}
		members = append(members, m)
		switch c.next() {
		case ',':
			c.pos++
			c.dst = append(c.dst, ',')
			continue
		case '}':
			c.pos++
		default:
			return c.malformed("object not continued")
		}
		break
	}
	if !sorted {
		c.sort(body, members)
	}
	c.dst = append(c.dst, '}')
	return nil
}

func (c *canonicalizer) member(depth int) (m member, err error) {
	if c.next() != '"' {
		return m, c.malformed("no key")
	}
	m.start = c.offset()
	if m.escaped, err = c.str(); err != nil {
		return m, err
	}
	m.keyEnd = c.offset()
	if c.next() != ':' {
		return m, c.malformed("no colon")
	}
	c.pos++
	c.dst = append(c.dst, ':')
	if err := c.value(depth + 1); err != nil {
		return m, err
	}
	m.end = c.offset()
	return m, nil
}

// sort brings the members of the object whose text begins at body into order.
func (c *canonicalizer) sort(body int32, members []member) {
	slices.SortFunc(members, c.compare)
	for i := 1; i < len(members); i++ {
		if c.compare(members[i-1], members[i]) == 0 {
			c.forbid("duplicate key in the object that ends")
			return
		}
	}
	var room [stackSort]byte
	text := append(room[:0], c.dst[c.base+int(body):]...)
	c.dst = c.dst[:c.base+int(body)]
	for i, m := range members {
		if i > 0 {
			c.dst = append(c.dst, ',')
		}
		c.dst = append(c.dst, text[m.start-body:m.end-body]...)
	}
}

// compare orders two members by the code points of their keys, which is the
// order of their UTF-8 bytes.
func (c *canonicalizer) compare(a, b member) int {
	text := c.dst[c.base:]
	ka, kb := text[a.start+1:a.keyEnd-1], text[b.start+1:b.keyEnd-1]
	if !a.escaped && !b.escaped {
		return bytes.Compare(ka, kb)
	}
	return compareEscaped(ka, kb)
}

// compareEscaped compares what two canonically escaped texts stand for.
func compareEscaped(a, b []byte) int {
	for len(a) > 0 && len(b) > 0 {
		ca, na := unescape(a)
		cb, nb := unescape(b)
		if ca != cb {
			return int(ca) - int(cb)
		}
		a, b = a[na:], b[nb:]
	}
	return len(a) - len(b)
}

// str reads a string. escaped says whether its canonical form has a backslash.
func (c *canonicalizer) str() (escaped bool, err error) {
	c.pos++
	c.dst = append(c.dst, '"')
	for {
		n := plain(c.src[c.pos:])
		c.dst = append(c.dst, c.src[c.pos:c.pos+n]...)
		c.pos += n
		if c.pos == len(c.src) {
			return escaped, c.malformed("string not closed")
		}
		switch c.src[c.pos] {
		case '"':
			c.pos++
			c.dst = append(c.dst, '"')
			return escaped, nil
		case '\\':
			kept, err := c.escape()
			if err != nil {
				return escaped, err
			}
			escaped = escaped || kept
		default:
			return escaped, c.malformed("control character in a string")
		}
	}
}

// escape reads one escape sequence, or the two of a surrogate pair, and writes
// the shortest form of its character. kept says whether that is an escape too.
func (c *canonicalizer) escape() (kept bool, err error) {
	if c.pos+1 == len(c.src) {
		return false, c.malformed("string not closed")
	}
	r := rune(c.src[c.pos+1])
	size := 2
	switch r {
	case '"', '\\', '/':
	case 'b':
		r = '\b'
	case 'f':
		r = '\f'
	case 'n':
		r = '\n'
	case 'r':
		r = '\r'
	case 't':
		r = '\t'
	case 'u':
		if r, size, err = c.codeUnits(); err != nil {
			return false, err
		}
	default:
		return false, c.malformed("unknown escape")
	}
	c.pos += size
	if r < utf8.RuneSelf && escapes(byte(r)) {
		c.dst = appendEscape(c.dst, byte(r))
		return true, nil
	}
	c.dst = utf8.AppendRune(c.dst, r)
	return false, nil
}

// codeUnits reads \uXXXX, and a second one if the first is a high surrogate.
func (c *canonicalizer) codeUnits() (r rune, size int, err error) {
	r, ok := hex4(c.src[c.pos+2:])
	if !ok {
		return 0, 0, c.malformed("unknown escape")
	}
	if r < 0xd800 || r > 0xdfff {
		return r, 6, nil
	}
	if rest := c.src[c.pos+6:]; r < 0xdc00 && len(rest) > 1 && rest[0] == '\\' && rest[1] == 'u' {
		low, ok := hex4(rest[2:])
		if !ok {
			return 0, 0, c.malformed("unknown escape")
		}
		if low >= 0xdc00 && low <= 0xdfff {
			return 0x10000 + (r-0xd800)<<10 + (low - 0xdc00), 12, nil
		}
	}
	c.forbid("lone surrogate")
	return utf8.RuneError, 6, nil
}

func hex4(b []byte) (r rune, ok bool) {
	if len(b) < 4 {
		return 0, false
	}
	for _, d := range b[:4] {
		switch {
		case d >= '0' && d <= '9':
			d -= '0'
		case d >= 'a' && d <= 'f':
			d -= 'a' - 10
		case d >= 'A' && d <= 'F':
			d -= 'A' - 10
		default:
			return 0, false
		}
		r = r<<4 | rune(d)
	}
	return r, true
}

// number reads a number and writes it, if it is an integer in range.
func (c *canonicalizer) number() error {
	start := c.pos
	if c.src[c.pos] == '-' {
		c.pos++
	}
	first := c.pos
	if !c.digits() || c.src[first] == '0' && c.pos-first > 1 {
		return c.malformed("no number")
	}
	text := c.src[start:c.pos]
	integer := true
	if c.pos < len(c.src) && c.src[c.pos] == '.' {
		c.pos++
		integer = false
		if !c.digits() {
			return c.malformed("no number")
		}
	}
	if c.pos < len(c.src) && c.src[c.pos]|0x20 == 'e' {
		c.pos++
		integer = false
		if c.pos < len(c.src) && (c.src[c.pos] == '+' || c.src[c.pos] == '-') {
			c.pos++
		}
		if !c.digits() {
			return c.malformed("no number")
		}
	}
	if !integer {
		c.forbid("number that is not an integer")
	} else if _, ok := Int(text); !ok {
		c.forbid("number out of range")
	}
	c.dst = append(c.dst, text...)
	return nil
}

// digits skips decimal digits and reports whether there was one.
func (c *canonicalizer) digits() bool {
	start := c.pos
	for c.pos < len(c.src) && c.src[c.pos] >= '0' && c.src[c.pos] <= '9' {
		c.pos++
	}
	return c.pos > start
}

// plain returns the length of the prefix of b that has no quotation mark, no
// backslash and no control character. It looks at eight bytes at a time.
func plain(b []byte) int {
	const (
		ones  = 0x0101010101010101
		highs = 0x8080808080808080
	)
	n := 0
	for ; len(b)-n >= 8; n += 8 {
		x := binary.LittleEndian.Uint64(b[n:])
		quote, slash := x^(ones*'"'), x^(ones*'\\')
		// In each term the lowest high bit set is exact: borrows only go upwards.
		found := ((x-ones*0x20)&^x | (quote-ones)&^quote | (slash-ones)&^slash) & highs
		if found != 0 {
			return n + bits.TrailingZeros64(found)/8
		}
	}
	for n < len(b) && b[n] >= 0x20 && b[n] != '"' && b[n] != '\\' {
		n++
	}
	return n
}

// escapes reports whether canonical JSON escapes the character.
func escapes(b byte) bool { return b < 0x20 || b == '"' || b == '\\' }

// appendEscape writes the canonical escape of a character that escapes.
func appendEscape(dst []byte, b byte) []byte {
	const hex = "0123456789abcdef"
	switch b {
	case '"', '\\':
		return append(dst, '\\', b)
	case '\b':
		return append(dst, '\\', 'b')
	case '\t':
		return append(dst, '\\', 't')
	case '\n':
		return append(dst, '\\', 'n')
	case '\f':
		return append(dst, '\\', 'f')
	case '\r':
		return append(dst, '\\', 'r')
	}
	return append(dst, '\\', 'u', '0', '0', hex[b>>4], hex[b&15])
}

// unescape returns the first byte that canonically escaped text stands for and
// how many bytes of the text it took. Text that is not canonical gives a byte too.
func unescape(b []byte) (c byte, n int) {
	if b[0] != '\\' || len(b) < 2 {
		return b[0], 1
	}
	switch b[1] {
	case 'b':
		return '\b', 2
	case 't':
		return '\t', 2
	case 'n':
		return '\n', 2
	case 'f':
		return '\f', 2
	case 'r':
		return '\r', 2
	case 'u':
		if r, ok := hex4(b[2:]); ok {
			return byte(r), 6
		}
	}
	return b[1], 2
}

// AppendString appends s as a canonical JSON string. s has to be valid UTF-8.
func AppendString[T ~string | ~[]byte](dst []byte, s T) []byte {
	dst = append(dst, '"')
	start := 0
	for i := range len(s) {
		if escapes(s[i]) {
			dst = append(dst, s[start:i]...)
			dst = appendEscape(dst, s[i])
			start = i + 1
		}
	}
	dst = append(dst, s[start:]...)
	return append(dst, '"')
}
