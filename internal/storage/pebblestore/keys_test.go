package pebblestore

import (
	"bytes"
	"cmp"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/storage"
)

func genKey() *rapid.Generator[storage.Key] {
	text := rapid.Map(rapid.SliceOfN(rapid.SampledFrom([]byte{0, 1, 2, 'a', 'b', 0xfe, 0xff}), 0, 5),
		func(b []byte) string { return string(b) })
	return rapid.Custom(func(t *rapid.T) storage.Key {
		return storage.Key{
			Partition: rapid.SampledFrom([]ids.Partition{0, 1, 255, 256, ids.MaxPartitions - 1}).Draw(t, "partition"),
			Table:     rapid.SampledFrom([]storage.Table{1, 2, 255}).Draw(t, "table"),
			Entity:    text.Draw(t, "entity"),
			Sort:      text.Draw(t, "sort"),
		}
	})
}

func compare(a, b storage.Key) int {
	return cmp.Or(cmp.Compare(a.Partition, b.Partition), cmp.Compare(a.Table, b.Table),
		strings.Compare(a.Entity, b.Entity), strings.Compare(a.Sort, b.Sort))
}

func TestKeysKeepOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := genKey().Draw(t, "a"), genKey().Draw(t, "b")
		ea, eb := appendKey(nil, &a), appendKey(nil, &b)
		if bytes.Compare(ea, eb) != compare(a, b) {
			t.Fatalf("%+v and %+v compare otherwise as %x and %x", a, b, ea, eb)
		}
		if len(ea) != keyLen(&a) {
			t.Fatalf("length of %x is %d, predicted %d", ea, len(ea), keyLen(&a))
		}
		if back, err := parseKey(ea); err != nil || back != a {
			t.Fatalf("%+v came back as %+v: %v", a, back, err)
		}
		inEntity := a.Partition == b.Partition && a.Table == b.Table && a.Entity == b.Entity && b.Sort >= a.Sort
		end := appendEnd(nil, &a, "")
		if (bytes.Compare(eb, ea) >= 0 && bytes.Compare(eb, end) < 0) != inEntity {
			t.Fatalf("%+v among the rest of the rows of %+v: want %v", b, a, inEntity)
		}
		if string(eb) >= systemPrefix {
			t.Fatalf("%x is among the store's own rows", eb)
		}
	})
}

func FuzzParseKey(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{0, 1, 2, 'a', 0, 0xff, 0, 1, 's'})
	f.Add([]byte{0, 1, 2, 'a', 0, 3})
	f.Add([]byte{0, 1, 2, 'a', 'b', 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		k, err := parseKey(b)
		if err != nil {
			return
		}
		if back := appendKey(nil, &k); !bytes.Equal(back, b) {
			t.Fatalf("%x parsed as %+v, which is %x", b, k, back)
		}
	})
}
