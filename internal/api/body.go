package api

import (
	"bytes"
	"errors"
	"net/http"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/hubbub-chat/hubbub/internal/merr"
)

const (
	// DefaultMaxBody is the most bytes of a body unless the route says otherwise:
	// twice the largest event, since canonical JSON takes escapes and white space
	// away; and what fits in one message of a WebSocket.
	DefaultMaxBody = 128 << 10
	// maxDepth is how deep a body may nest. Nothing in the specification goes beyond
	// ten; deeper ones are made to exhaust stacks of those who read them later.
	maxDepth = 100
)

// readBody reads and checks the body. GET has none, whatever was sent.
func (d *Dispatcher) readBody(r *Request, t transport) error {
	if r.Method == http.MethodGet {
		return nil
	}
	body, err := t.body(r.Route.MaxBody)
	if err != nil {
		return err
	}
	if len(body) == 0 {
		return nil
	}
	if !r.Route.RawBody {
		if err := checkObject(body); err != nil {
			return err
		}
	}
	r.Body = body
	return nil
}

// checkObject checks that b is one JSON object that is safe to hand on.
func checkObject(b jsontext.Value) error {
	if tooDeep(b) {
		return merr.BadJSONErr("The body nests deeper than %d levels", maxDepth)
	}
	if !b.IsValid() {
		return whyInvalid(b)
	}
	if b.Kind() != '{' {
		return merr.BadJSONErr("The body is not a JSON object")
	}
	return nil
}

// whyInvalid tells a duplicate member, which is JSON but not a value that all
// readers agree on, from what is no JSON at all. It reads b once more: the good
// case is to be fast.
func whyInvalid(b jsontext.Value) error {
	var v jsontext.Value
	err := json.Unmarshal(b, &v)
	if errors.Is(err, jsontext.ErrDuplicateName) {
		return merr.BadJSONErr("The body has a member twice: %s", memberOf(err))
	}
	return merr.New(http.StatusBadRequest, merr.NotJSON, "The body is not valid JSON").Because(err)
}

// tooDeep reports whether b nests deeper than maxDepth, if it is JSON.
func tooDeep(b []byte) bool {
	if bytes.Count(b, []byte{'{'})+bytes.Count(b, []byte{'['}) <= maxDepth {
		return false
	}
	depth, inString := 0, false
	for i := 0; i < len(b); i++ {
		switch c := b[i]; {
		case inString && c == '\\':
			i++
		case c == '"':
			inString = !inString
		case inString:
		case c == '{' || c == '[':
			if depth++; depth > maxDepth {
				return true
			}
		case c == '}' || c == ']':
			depth--
		}
	}
	return false
}

// DecodeBody decodes the body into v, a pointer. An empty body stands for {}.
// Members that v does not have are ignored, as the specification asks; their
// names are case-sensitive; a member twice or of a wrong type is a 400 M_BAD_JSON
// that names it. Use pointers or jsontext.Value to tell absent members, and
// Missing to report them.
func DecodeBody(r *Request, v any) error {
	body := r.Body
	if len(body) == 0 {
		body = Empty
	}
	return DecodeJSON(body, v)
}

// DecodeJSON is DecodeBody for a part of a body that was kept as a
// jsontext.Value, and for JSON in query parameters.
func DecodeJSON(b []byte, v any) error {
	err := json.Unmarshal(b, v)
	if err == nil {
		return nil
	}
	var known *merr.Error
	var syntactic *jsontext.SyntacticError
	switch {
	case errors.As(err, &known):
		// An UnmarshalJSON method knew better.
		return known
	case errors.Is(err, jsontext.ErrDuplicateName):
		return merr.BadJSONErr("A member occurs twice: %s", memberOf(err)).Because(err)
	case errors.As(err, &syntactic):
		return merr.New(http.StatusBadRequest, merr.NotJSON, "Not valid JSON").Because(err)
	}
	if member := memberOf(err); member != "" {
		return merr.BadJSONErr("The member %s has a wrong type or value", member).Because(err)
	}
	return merr.BadJSONErr("The JSON value has a wrong type").Because(err)
}

// memberOf returns where in the JSON err happened, in the form "content.body",
// cut to a length that suits an error message.
func memberOf(err error) string {
	var (
		semantic  *json.SemanticError
		syntactic *jsontext.SyntacticError
		pointer   jsontext.Pointer
	)
	switch {
	case errors.As(err, &semantic):
		pointer = semantic.JSONPointer
	case errors.As(err, &syntactic):
		pointer = syntactic.JSONPointer
	}
	const enough = 100
	var b strings.Builder
	for token := range pointer.Tokens() {
		if b.Len() > 0 {
			b.WriteByte('.')
		}
		b.WriteString(token)
		if b.Len() > enough {
			return strings.ToValidUTF8(b.String()[:enough], "") + "…"
		}
	}
	return b.String()
}

// Missing is the error for a member or parameter that has to be there: 400
// M_MISSING_PARAM.
func Missing(name string) error {
	return merr.MissingParamErr("Missing %s", name)
}
