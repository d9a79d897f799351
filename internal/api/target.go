package api

import (
	"net/url"
	"strings"
	"unicode/utf8"

	"github.com/hubbub-chat/hubbub/internal/merr"
)

// maxQueryParams is the most query parameters of a request. "via" and
// "server_name" repeat a few times; no endpoint has a hundred.
const maxQueryParams = 100

// unescape decodes percent-escapes once, and "+" as a space where the form
// encoding applies. ok is false for an escape that is cut off or not hexadecimal.
// It allocates only if there is something to decode.
func unescape(s string, plus bool) (decoded string, ok bool) {
	if strings.IndexByte(s, '%') < 0 && (!plus || strings.IndexByte(s, '+') < 0) {
		return s, true
	}
	var b strings.Builder
	b.Grow(len(s))
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '%':
			if i+2 >= len(s) {
				return "", false
			}
			high, low := unhex(s[i+1]), unhex(s[i+2])
			if high > 15 || low > 15 {
				return "", false
			}
			b.WriteByte(high<<4 | low)
			i += 2
		case c == '+' && plus:
			b.WriteByte(' ')
		default:
			b.WriteByte(c)
		}
	}
	return b.String(), true
}

// unhex returns the value of a hexadecimal digit, more than 15 for any other byte.
func unhex(c byte) byte {
	switch {
	case c >= '0' && c <= '9':
		return c - '0'
	case c >= 'a' && c <= 'f':
		return c - 'a' + 10
	case c >= 'A' && c <= 'F':
		return c - 'A' + 10
	}
	return 0xff
}

// clean reports whether a decoded value is text that may be stored and compared:
// valid UTF-8 without NUL.
func clean(s string) bool {
	return utf8.ValidString(s) && strings.IndexByte(s, 0) < 0
}

// parseQuery decodes a query string. Unlike net/url it takes ";" as data, which is
// what browsers send it as, and refuses what it cannot decode.
func parseQuery(raw string) (url.Values, error) {
	if raw == "" {
		return nil, nil
	}
	values := make(url.Values)
	for n := 0; raw != ""; n++ {
		if n == maxQueryParams {
			return nil, merr.InvalidParamErr("More than %d query parameters", maxQueryParams)
		}
		var pair string
		pair, raw, _ = strings.Cut(raw, "&")
		if pair == "" {
			continue
		}
		key, value, _ := strings.Cut(pair, "=")
		key, ok := unescape(key, true)
		value, ok2 := unescape(value, true)
		if !ok || !ok2 || !clean(key) || !clean(value) {
			return nil, merr.InvalidParamErr("The query string is not valid percent-encoded UTF-8")
		}
		values[key] = append(values[key], value)
	}
	return values, nil
}

// bind decodes the parameters that the search collected into r.
func (s *search) bind(r *Request) error {
	r.params = r.paramsBuf[:0]
	for i, name := range s.found.names {
		value, ok := unescape(s.raw[i], false)
		if !ok || !clean(value) {
			return merr.InvalidParamErr("The path parameter %s is not valid percent-encoded UTF-8", name)
		}
		r.params = append(r.params, param{name, value})
	}
	return nil
}
