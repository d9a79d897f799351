// Package wire gives plain data of Go programs, commands and what they return, a
// form in bytes in which it travels between the nodes of a deployment.
//
// A struct is the list of its fields that are not zero, each with its name and
// length: nodes of neighbouring versions understand each other, as long as the zero
// value of a new field says what its absence said before. Tags of other encodings
// mean nothing here. A nil slice, map or pointer is not an empty one, and strings
// may hold any bytes, since keys of rows do.
//
// What has no such form is an error that names the type: functions, channels,
// interfaces without a list of what may stand in them, and structs with fields that
// are not exported, unless they are derived (see Codec). A type with a
// MarshalBinary of its own is what that says.
//
// Rejected: JSON (a name may hold bytes that are no UTF-8, and the JSON tags of the
// types, which are also rows and answers, leave out fields that a command needs);
// gob (no difference between nil and empty, and it sends its types along each time).
package wire

import (
	"encoding"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"sync"
)

// Errors that callers distinguish with errors.Is.
var (
	// ErrType: values of the type cannot travel.
	ErrType = errors.New("wire: type cannot travel")
	// ErrMalformed: the bytes are not an encoding of the type.
	ErrMalformed = errors.New("wire: malformed")
)

// maxDepth bounds how deep values are nested, so that bytes cannot make the decoder
// use up the stack.
const maxDepth = 64

// usualSize is what most values take as bytes, so that they are not moved while they
// grow.
const usualSize = 384

// Codec encodes and decodes. The zero Codec knows no interfaces. A Codec is not
// changed once it is used, and then safe for concurrent use.
type Codec struct {
	// Derived, if not nil, is an interface: fields that are not exported are left
	// out in types that implement it, by pointer or not, and found anew on arrival.
	Derived reflect.Type
	unions  map[reflect.Type]map[string]reflect.Type
	// structs has the *structType of each reflect.Type that was met: what reflection
	// says of a type takes it longer than to read a value.
	structs sync.Map
}

// structType is what there is to know of a struct.
type structType struct {
	// own: it has an encoding of its own.
	own    bool
	fields []field
	byName map[string]*field
}

type field struct {
	name  string
	index int
	// left: it does not travel. err, if not nil, says that it cannot.
	left bool
	err  error
}

func (c *Codec) structType(t reflect.Type) *structType {
	if s, ok := c.structs.Load(t); ok {
		return s.(*structType)
	}
	s := &structType{own: binaryType(t), fields: make([]field, t.NumField()), byName: make(map[string]*field, t.NumField())}
	for i := range s.fields {
		f := t.Field(i)
		left, err := c.leftOut(t, f)
		s.fields[i] = field{f.Name, i, left, err}
		s.byName[f.Name] = &s.fields[i]
	}
	c.structs.Store(t, s)
	return s
}

// Union lists what may stand in fields of an interface type, as zero values.
func (c *Codec) Union(iface reflect.Type, values ...any) {
	if c.unions == nil {
		c.unions = make(map[reflect.Type]map[string]reflect.Type)
	}
	byName := make(map[string]reflect.Type, len(values))
	for _, v := range values {
		t := reflect.TypeOf(v)
		byName[t.String()] = t
	}
	c.unions[iface] = byName
}

// Append appends the encoding of a value, which may be nil only in the value of a
// pointer, a slice or a map.
func (c *Codec) Append(b []byte, v any) ([]byte, error) {
	rv := reflect.ValueOf(v)
	if !rv.IsValid() {
		return nil, fmt.Errorf("%w: nil", ErrType)
	}
	return c.append(slices.Grow(b, usualSize), rv, 0)
}

// Decode reads an encoding into what v points to, which is zero. Bytes in it are
// copies.
func (c *Codec) Decode(b []byte, v any) error {
	d := decoder{codec: c, b: b}
	if err := d.value(reflect.ValueOf(v).Elem(), 0); err != nil {
		return err
	}
	if len(d.b) > 0 {
		return fmt.Errorf("%w: %d bytes too many", ErrMalformed, len(d.b))
	}
	return nil
}

// Check reports whether values of a type can travel.
func (c *Codec) Check(t reflect.Type) error { return c.check(t, make(map[reflect.Type]bool)) }

func (c *Codec) check(t reflect.Type, seen map[reflect.Type]bool) error {
	if seen[t] || binaryType(t) {
		return nil
	}
	seen[t] = true
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Array:
		return c.check(t.Elem(), seen)
	case reflect.Map:
		return errors.Join(c.check(t.Key(), seen), c.check(t.Elem(), seen))
	case reflect.Struct:
		for i := range t.NumField() {
			f := t.Field(i)
			if left, err := c.leftOut(t, f); err != nil {
				return err
			} else if left {
				continue
			}
			if err := c.check(f.Type, seen); err != nil {
				return fmt.Errorf("%s.%s: %w", t, f.Name, err)
			}
		}
		return nil
	case reflect.Interface:
		for _, u := range c.unions[t] {
			if err := c.check(u, seen); err != nil {
				return err
			}
		}
		if c.unions[t] == nil {
			return fmt.Errorf("%w: interface %s", ErrType, t)
		}
		return nil
	case reflect.Func, reflect.Chan, reflect.UnsafePointer, reflect.Uintptr, reflect.Complex64, reflect.Complex128:
		return fmt.Errorf("%w: %s", ErrType, t)
	default:
		return nil
	}
}

// leftOut reports whether a field does not travel: it is derived on arrival.
func (c *Codec) leftOut(t reflect.Type, f reflect.StructField) (bool, error) {
	if f.IsExported() || f.Anonymous && f.Type.Kind() == reflect.Struct {
		return false, nil
	}
	if f.Tag.Get("wire") == "-" || c.Derived != nil && (t.Implements(c.Derived) || reflect.PointerTo(t).Implements(c.Derived)) {
		return true, nil
	}
	return false, fmt.Errorf("%w: %s.%s is not exported", ErrType, t, f.Name)
}

var (
	marshaler   = reflect.TypeFor[encoding.BinaryMarshaler]()
	unmarshaler = reflect.TypeFor[encoding.BinaryUnmarshaler]()
)

// binaryType reports whether a type has an encoding of its own.
func binaryType(t reflect.Type) bool {
	return t.Kind() == reflect.Struct && reflect.PointerTo(t).Implements(marshaler) && reflect.PointerTo(t).Implements(unmarshaler)
}

func (c *Codec) append(b []byte, v reflect.Value, depth int) ([]byte, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("%w: nested too deep", ErrType)
	}
	t := v.Type()
	switch t.Kind() {
	case reflect.Bool:
		if v.Bool() {
			return append(b, 1), nil
		}
		return append(b, 0), nil
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return binary.AppendVarint(b, v.Int()), nil
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return binary.AppendUvarint(b, v.Uint()), nil
	case reflect.Float32, reflect.Float64:
		return binary.BigEndian.AppendUint64(b, math.Float64bits(v.Float())), nil
	case reflect.String:
		b = binary.AppendUvarint(b, uint64(v.Len()))
		return append(b, v.String()...), nil
	case reflect.Pointer:
		if v.IsNil() {
			return append(b, 0), nil
		}
		return c.append(append(b, 1), v.Elem(), depth+1)
	case reflect.Slice, reflect.Array:
		return c.appendList(b, v, depth)
	case reflect.Map:
		return c.appendMap(b, v, depth)
	case reflect.Struct:
		return c.appendStruct(b, v, depth)
	case reflect.Interface:
		return c.appendUnion(b, v, depth)
	default:
		return nil, fmt.Errorf("%w: %s", ErrType, t)
	}
}

// appendList begins with the length plus one; 0 stands for nil.
func (c *Codec) appendList(b []byte, v reflect.Value, depth int) ([]byte, error) {
	if v.Kind() == reflect.Slice {
		if v.IsNil() {
			return append(b, 0), nil
		}
		b = binary.AppendUvarint(b, uint64(v.Len())+1)
		if v.Type().Elem().Kind() == reflect.Uint8 {
			return append(b, v.Bytes()...), nil
		}
	}
	var err error
	for i := range v.Len() {
		if b, err = c.append(b, v.Index(i), depth+1); err != nil {
			return nil, err
		}
	}
	return b, nil
}

func (c *Codec) appendMap(b []byte, v reflect.Value, depth int) ([]byte, error) {
	if v.IsNil() {
		return append(b, 0), nil
	}
	b = binary.AppendUvarint(b, uint64(v.Len())+1)
	for it := v.MapRange(); it.Next(); {
		var err error
		if b, err = c.append(b, it.Key(), depth+1); err != nil {
			return nil, err
		}
		if b, err = c.append(b, it.Value(), depth+1); err != nil {
			return nil, err
		}
	}
	return b, nil
}

func (c *Codec) appendStruct(b []byte, v reflect.Value, depth int) ([]byte, error) {
	t := v.Type()
	s := c.structType(t)
	if s.own {
		at := reflect.New(t)
		at.Elem().Set(v)
		own, err := at.Interface().(encoding.BinaryMarshaler).MarshalBinary()
		if err != nil {
			return nil, fmt.Errorf("%w: %s: %w", ErrType, t, err)
		}
		return appendBytes(b, own), nil
	}
	for i := range s.fields {
		f := &s.fields[i]
		if f.err != nil {
			return nil, f.err
		}
		value := v.Field(i)
		if f.left || value.IsZero() {
			continue
		}
		b = binary.AppendUvarint(b, uint64(len(f.name)))
		b = append(b, f.name...)
		at := len(b)
		var err error
		if b, err = c.append(b, value, depth+1); err != nil {
			return nil, fmt.Errorf("%s.%s: %w", t, f.name, err)
		}
		b = insertLength(b, at)
	}
	return append(b, 0), nil // no field has an empty name
}

// insertLength puts the length of what stands behind at before it.
func insertLength(b []byte, at int) []byte {
	var buf [binary.MaxVarintLen64]byte
	n := binary.PutUvarint(buf[:], uint64(len(b)-at))
	b = append(b, buf[:n]...)
	copy(b[at+n:], b[at:len(b)-n])
	copy(b[at:], buf[:n])
	return b
}

func (c *Codec) appendUnion(b []byte, v reflect.Value, depth int) ([]byte, error) {
	if v.IsNil() {
		return append(b, 0), nil
	}
	name := v.Elem().Type().String()
	if c.unions[v.Type()][name] == nil {
		return nil, fmt.Errorf("%w: %s in %s", ErrType, name, v.Type())
	}
	return c.append(appendBytes(b, []byte(name)), v.Elem(), depth+1)
}

func appendBytes(b, s []byte) []byte {
	b = binary.AppendUvarint(b, uint64(len(s)))
	return append(b, s...)
}
