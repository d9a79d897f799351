package pebblestore

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/storage"
)

// A row's key in Pebble is
//
//	partition, 2 bytes big endian | table, 1 byte | entity, escaped | sort
//
// In the entity 0x00 becomes 0x00 0xff, and 0x00 0x01 ends it. So keys compare
// as their parts do, and no entity's rows lie among those of another whose name
// begins the same. The store's own rows stand behind every partition.
const (
	escape     = 0x00
	escapedNul = 0xff
	terminator = 0x01
	// behind is a terminator that sorts after all rows of an entity.
	behind = 0x02

	systemPrefix = "\xff\xff"
	formatKey    = systemPrefix + "f"
	epochPrefix  = systemPrefix + "e"
	metaPrefix   = systemPrefix + "m"
)

// keyLen is the length of appendKey's result.
func keyLen(k *storage.Key) int {
	return 5 + len(k.Entity) + strings.Count(k.Entity, "\x00") + len(k.Sort)
}

func appendKey(dst []byte, k *storage.Key) []byte {
	return append(appendEntity(dst, k, terminator), k.Sort...)
}

// appendEnd appends the first key behind the sort keys below end, "" for all.
func appendEnd(dst []byte, k *storage.Key, end string) []byte {
	if end == "" {
		return appendEntity(dst, k, behind)
	}
	return append(appendEntity(dst, k, terminator), end...)
}

func appendEntity(dst []byte, k *storage.Key, end byte) []byte {
	dst = binary.BigEndian.AppendUint16(dst, uint16(k.Partition))
	dst = append(dst, byte(k.Table))
	rest := k.Entity
	for {
		i := strings.IndexByte(rest, 0)
		if i < 0 {
			break
		}
		dst = append(dst, rest[:i]...)
		dst = append(dst, escape, escapedNul)
		rest = rest[i+1:]
	}
	dst = append(dst, rest...)
	return append(dst, escape, end)
}

// parseKey is the inverse of appendKey.
func parseKey(b []byte) (storage.Key, error) {
	if len(b) < 5 {
		return storage.Key{}, fmt.Errorf("key %x is too short", b)
	}
	k := storage.Key{Partition: ids.Partition(binary.BigEndian.Uint16(b)), Table: storage.Table(b[2])}
	entity, rest := []byte(nil), b[3:]
	for {
		i := bytes.IndexByte(rest, escape)
		if i < 0 || i+1 == len(rest) {
			return storage.Key{}, fmt.Errorf("key %x: entity has no end", b)
		}
		entity = append(entity, rest[:i]...)
		mark := rest[i+1]
		rest = rest[i+2:]
		if mark == terminator {
			break
		}
		if mark != escapedNul {
			return storage.Key{}, fmt.Errorf("key %x: bad escape %#x", b, mark)
		}
		entity = append(entity, 0)
	}
	k.Entity, k.Sort = string(entity), string(rest)
	return k, nil
}

func epochKey(p ids.Partition) []byte {
	return binary.BigEndian.AppendUint16([]byte(epochPrefix), uint16(p))
}

func metaKey(name string) []byte { return append([]byte(metaPrefix), name...) }
