package wire_test

import (
	"errors"
	"reflect"
	"testing"
	"time"

	"github.com/hubbub-chat/hubbub/internal/wire"
)

type shape interface{ Area() int }

type square struct{ Side int }

func (s square) Area() int { return s.Side * s.Side }

type circle struct{ Radius int }

func (c *circle) Area() int { return 3 * c.Radius * c.Radius }

type inner struct{ User string }

type older struct {
	inner
	Name  string `json:"-"`
	Bytes []byte `json:"b,omitempty"`
	List  []string
	Map   map[string]*int
	When  time.Time
	Shape shape
	Hash  [2]byte
	F     float64
}

type newer struct {
	older
	Added map[string][]inner
	Name  string
}

func codec() *wire.Codec {
	var c wire.Codec
	c.Union(reflect.TypeFor[shape](), square{}, &circle{})
	return &c
}

func TestRoundTrip(t *testing.T) {
	one := 1
	for _, v := range []older{
		{},
		{inner: inner{"u"}, Name: "n\xff\x00", Bytes: []byte{}, List: []string{}, Map: map[string]*int{}, F: -0.5},
		{Bytes: []byte("x"), List: []string{"", "a"}, Map: map[string]*int{"a": nil, "b": &one}, Shape: square{2}, Hash: [2]byte{0, 255}},
		{When: time.Unix(1_700_000_000, 5).UTC(), Shape: &circle{3}},
	} {
		b, err := codec().Append([]byte("x"), v)
		if err != nil {
			t.Fatal(err)
		}
		var got older
		if err := codec().Decode(b[1:], &got); err != nil || !reflect.DeepEqual(got, v) {
			t.Errorf("got %#v, %v; want %#v", got, err, v)
		}
	}
}

// A version that does not know a field passes it over.
func TestUnknownFields(t *testing.T) {
	type before struct{ A, C string }
	type after struct {
		A string
		B []inner
		C string
	}
	b, err := codec().Append(nil, after{"a", []inner{{"x"}}, "c"})
	if err != nil {
		t.Fatal(err)
	}
	var got before
	if err := codec().Decode(b, &got); err != nil || got != (before{"a", "c"}) {
		t.Errorf("got %v, %v", got, err)
	}
}

func TestWhatCannotTravel(t *testing.T) {
	type hidden struct{ a int }
	type derived struct {
		a int `wire:"-"`
		B int
	}
	for _, v := range []any{
		func() {},
		struct{ F chan int }{make(chan int)},
		hidden{1},
		&hidden{},
		struct{ E error }{errors.New("x")},
		struct{ S shape }{other{}},
	} {
		if b, err := codec().Append(nil, v); !errors.Is(err, wire.ErrType) {
			t.Errorf("%T: got %x, %v", v, b, err)
		}
		if _, union := v.(struct{ S shape }); union {
			continue // found when it is there
		}
		if err := codec().Check(reflect.TypeOf(v)); !errors.Is(err, wire.ErrType) {
			t.Errorf("check %T: %v", v, err)
		}
	}
	b, err := codec().Append(nil, derived{1, 2})
	var got derived
	if err = errors.Join(err, codec().Decode(b, &got)); err != nil || got != (derived{B: 2}) {
		t.Errorf("derived: %v, %v", got, err)
	}
	if _, err := codec().Append(nil, nil); !errors.Is(err, wire.ErrType) {
		t.Errorf("nil: %v", err)
	}
}

type other struct{}

func (other) Area() int { return 0 }

// Whatever the bytes, the decoder returns, and what it takes for a value is one.
func FuzzDecode(f *testing.F) {
	one := 1
	for _, v := range []any{
		newer{Added: map[string][]inner{"a": {{"b"}}}, Name: "x"},
		newer{older: older{Shape: &circle{1}, Map: map[string]*int{"a": &one}, List: []string{"x"}, When: time.Unix(1, 1)}},
	} {
		b, err := codec().Append(nil, v)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
		f.Add(b[:len(b)/2])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var v newer
		if err := codec().Decode(b, &v); err != nil {
			return
		}
		if _, err := codec().Append(nil, v); err != nil {
			t.Errorf("decoded %#v and cannot encode it: %v", v, err)
		}
	})
}
