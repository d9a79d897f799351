package wire

import (
	"encoding"
	"encoding/binary"
	"fmt"
	"math"
	"reflect"
)

type decoder struct {
	codec *Codec
	b     []byte
}

func (d *decoder) uvarint() (uint64, error) {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		return 0, fmt.Errorf("%w: truncated", ErrMalformed)
	}
	d.b = d.b[n:]
	return v, nil
}

// length reads a count of things of which each takes at least a byte, so that
// nothing is allocated for more than what can follow.
func (d *decoder) length() (int, error) {
	n, err := d.uvarint()
	if err == nil && n > uint64(len(d.b)) {
		err = fmt.Errorf("%w: truncated", ErrMalformed)
	}
	return int(n), err
}

func (d *decoder) take(n int) []byte {
	s := d.b[:n]
	d.b = d.b[n:]
	return s
}

func (d *decoder) bytes() ([]byte, error) {
	n, err := d.length()
	if err != nil {
		return nil, err
	}
	return d.take(n), nil
}

func (d *decoder) value(v reflect.Value, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("%w: nested too deep", ErrMalformed)
	}
	switch v.Kind() {
	case reflect.Pointer:
		n, err := d.uvarint()
		if err != nil || n == 0 {
			return err
		}
		v.Set(reflect.New(v.Type().Elem()))
		return d.value(v.Elem(), depth+1)
	case reflect.Slice:
		return d.slice(v, depth)
	case reflect.Array:
		for i := range v.Len() {
			if err := d.value(v.Index(i), depth+1); err != nil {
				return err
			}
		}
		return nil
	case reflect.Map:
		return d.mapping(v, depth)
	case reflect.Struct:
		return d.structure(v, depth)
	case reflect.Interface:
		return d.union(v, depth)
	default:
		return d.scalar(v)
	}
}

func (d *decoder) scalar(v reflect.Value) error {
	switch v.Kind() {
	case reflect.Bool:
		n, err := d.uvarint()
		v.SetBool(n != 0)
		return err
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		i, n := binary.Varint(d.b)
		if n <= 0 || v.OverflowInt(i) {
			return fmt.Errorf("%w: number", ErrMalformed)
		}
		d.b = d.b[n:]
		v.SetInt(i)
		return nil
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		n, err := d.uvarint()
		if err == nil && v.OverflowUint(n) {
			err = fmt.Errorf("%w: number", ErrMalformed)
		}
		v.SetUint(n)
		return err
	case reflect.Float32, reflect.Float64:
		if len(d.b) < 8 {
			return fmt.Errorf("%w: truncated", ErrMalformed)
		}
		v.SetFloat(math.Float64frombits(binary.BigEndian.Uint64(d.take(8))))
		return nil
	case reflect.String:
		s, err := d.bytes()
		v.SetString(string(s))
		return err
	default:
		return fmt.Errorf("%w: %s", ErrType, v.Type())
	}
}

// count reads the length of a slice or map, -1 for nil.
func (d *decoder) count() (int, error) {
	n, err := d.uvarint()
	if err == nil && n > uint64(len(d.b))+1 {
		err = fmt.Errorf("%w: truncated", ErrMalformed)
	}
	return int(n) - 1, err
}

func (d *decoder) slice(v reflect.Value, depth int) error {
	n, err := d.count()
	if err != nil || n < 0 {
		return err
	}
	if v.Type().Elem().Kind() == reflect.Uint8 {
		s := make([]byte, n)
		copy(s, d.take(n))
		v.SetBytes(s)
		return nil
	}
	v.Set(reflect.MakeSlice(v.Type(), n, n))
	for i := range n {
		if err := d.value(v.Index(i), depth+1); err != nil {
			return err
		}
	}
	return nil
}

func (d *decoder) mapping(v reflect.Value, depth int) error {
	n, err := d.count()
	if err != nil || n < 0 {
		return err
	}
	t := v.Type()
	v.Set(reflect.MakeMapWithSize(t, n))
	for range n {
		key, value := reflect.New(t.Key()).Elem(), reflect.New(t.Elem()).Elem()
		if err := d.value(key, depth+1); err != nil {
			return err
		}
		if err := d.value(value, depth+1); err != nil {
			return err
		}
		v.SetMapIndex(key, value)
	}
	return nil
}

func (d *decoder) structure(v reflect.Value, depth int) error {
	t := v.Type()
	s := d.codec.structType(t)
	if s.own {
		own, err := d.bytes()
		if err != nil {
			return err
		}
		if err := v.Addr().Interface().(encoding.BinaryUnmarshaler).UnmarshalBinary(own); err != nil {
			return fmt.Errorf("%w: %s: %w", ErrMalformed, t, err)
		}
		return nil
	}
	for {
		name, err := d.bytes()
		if err != nil || len(name) == 0 {
			return err
		}
		value, err := d.bytes()
		if err != nil {
			return err
		}
		f := s.byName[string(name)]
		if f == nil {
			continue // of a newer version, and zero before
		}
		if f.left || f.err != nil {
			return fmt.Errorf("%w: %s.%s", ErrMalformed, t, name)
		}
		rest := d.b
		d.b = value // a decoder of its own for it would be an allocation
		if err := d.value(v.Field(f.index), depth+1); err != nil {
			return fmt.Errorf("%s.%s: %w", t, name, err)
		}
		if len(d.b) > 0 {
			return fmt.Errorf("%w: %s.%s: %d bytes too many", ErrMalformed, t, name, len(d.b))
		}
		d.b = rest
	}
}

func (d *decoder) union(v reflect.Value, depth int) error {
	name, err := d.bytes()
	if err != nil || len(name) == 0 {
		return err
	}
	t := d.codec.unions[v.Type()][string(name)]
	if t == nil {
		return fmt.Errorf("%w: %q in %s", ErrMalformed, name, v.Type())
	}
	value := reflect.New(t).Elem()
	if err := d.value(value, depth+1); err != nil {
		return err
	}
	v.Set(value)
	return nil
}
