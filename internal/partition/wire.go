package partition

import (
	"errors"
	"fmt"
	"reflect"

	"github.com/hubbub-chat/hubbub/internal/merr"
	"github.com/hubbub-chat/hubbub/internal/wire"
)

// Wire is what a node has to know of commands so that they travel: their types by
// name, and the errors that callers tell apart.
type Wire struct {
	codec    wire.Codec
	types    map[string]reflect.Type
	failures []error
}

// WireOptions say what travels.
type WireOptions struct {
	// Commands are values of all types of commands, pointers where the pointer is
	// the command.
	Commands []Command
	// Failures are errors that callers look for with errors.Is. They are known by
	// their text.
	Failures []error
	// Unions are the types that may stand in fields of an interface type.
	Unions map[reflect.Type][]any
}

// Encoded is the result of a command that ran elsewhere; Do decodes it.
type Encoded []byte

// NewWire checks that all that is named can travel.
func NewWire(opts WireOptions) (*Wire, error) {
	w := &Wire{types: make(map[string]reflect.Type, len(opts.Commands))}
	w.codec.Derived = reflect.TypeFor[Command]()
	for iface, values := range opts.Unions {
		w.codec.Union(iface, values...)
	}
	for _, c := range append(Commands(), opts.Commands...) {
		t := reflect.TypeOf(c)
		if have := w.types[c.Name()]; have != nil {
			return nil, fmt.Errorf("partition: %s and %s are both called %q", have, t, c.Name())
		}
		if err := w.codec.Check(t); err != nil {
			return nil, fmt.Errorf("partition: command %q: %w", c.Name(), err)
		}
		w.types[c.Name()] = t
	}
	w.failures = append([]error{ErrLost, ErrClosing, ErrOtherEpoch}, opts.Failures...)
	return w, nil
}

// Commands are the commands of the engine itself.
func Commands() []Command {
	return []Command{OpenCursor{}, SaveCursor{}, DropCursor{}, &ApplyEffects{}}
}

// Encode gives a command as bytes.
func (w *Wire) Encode(c Command) ([]byte, error) {
	if w.types[c.Name()] != reflect.TypeOf(c) {
		return nil, fmt.Errorf("partition: command %q of type %T cannot leave the node: it is not in the list of its package", c.Name(), c)
	}
	return w.codec.Append(appendString(nil, c.Name()), c)
}

// Decode reads what Encode gave.
func (w *Wire) Decode(b []byte) (Command, error) {
	d := decoder{b: b}
	name := string(d.bytes())
	t := w.types[name]
	if d.err != nil || t == nil {
		return nil, fmt.Errorf("partition: command %q is not known to this version", name)
	}
	v := reflect.New(t)
	if err := w.codec.Decode(d.b, v.Interface()); err != nil {
		return nil, fmt.Errorf("partition: decode command %q: %w", name, err)
	}
	c, ok := v.Elem().Interface().(Command)
	if !ok || t.Kind() == reflect.Pointer && v.Elem().IsNil() {
		return nil, fmt.Errorf("partition: decode command %q: %w", name, wire.ErrMalformed)
	}
	return c, nil
}

// answers gives what commands return as bytes: plain data, without interfaces.
var answers wire.Codec

// wireAnswer is what becomes of a command, as it travels.
type wireAnswer struct {
	None    bool
	Result  []byte
	Failed  bool
	Refused *merr.Error
	Text    string
	// Failures are the texts of the known errors in the chain.
	Failures []string
}

// EncodeAnswer gives what Do returned as bytes. It does not fail: a result that
// cannot travel becomes an error.
func (w *Wire) EncodeAnswer(result any, err error) []byte {
	var a wireAnswer
	switch {
	case err != nil:
	case result == nil:
		a.None = true
	default:
		a.Result, err = answers.Append(nil, result)
	}
	if err != nil {
		a = wireAnswer{Failed: true, Text: err.Error()}
		_ = errors.As(err, &a.Refused)
		for _, f := range w.failures {
			if errors.Is(err, f) {
				a.Failures = append(a.Failures, f.Error())
			}
		}
	}
	b, err := answers.Append(nil, a)
	if err != nil { // of the members of an error's JSON
		a.Refused = nil
		b, _ = answers.Append(nil, a)
	}
	return b
}

// DecodeAnswer reads what EncodeAnswer gave.
func (w *Wire) DecodeAnswer(b []byte) (any, error) {
	var a wireAnswer
	if err := answers.Decode(b, &a); err != nil {
		return nil, lost(fmt.Errorf("decode answer: %w", err))
	}
	if !a.Failed {
		if a.None {
			return nil, nil
		}
		return Encoded(a.Result), nil
	}
	cause := &remoteError{text: a.Text}
	for _, f := range w.failures {
		for _, text := range a.Failures {
			if f.Error() == text {
				cause.known = append(cause.known, f)
			}
		}
	}
	if a.Refused != nil {
		return nil, a.Refused.Because(cause)
	}
	return nil, cause
}

// remoteError is an error of another node.
type remoteError struct {
	text  string
	known []error
}

func (e *remoteError) Error() string   { return e.text }
func (e *remoteError) Unwrap() []error { return e.known }

// decodeResult reads a result that came from another node.
func decodeResult[R any](b Encoded) (R, error) {
	var r R
	if err := answers.Decode(b, &r); err != nil {
		return r, lost(fmt.Errorf("decode result: %w", err))
	}
	return r, nil
}
