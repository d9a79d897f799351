package search

import (
	"encoding/binary"
	"unicode/utf8"

	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/storage"
)

func key(t storage.Table, p ids.Partition, r ids.RoomID, sort string) storage.Key {
	return storage.Key{Partition: p, Table: t, Entity: string(r), Sort: sort}
}

// posting is what the index says of a term in an event.
type posting struct {
	seq ids.Seq
	ts  int64
	// edit is the position of the edit whose text was indexed, 0 for the event's own.
	edit ids.Seq
}

// appendPosting encodes a posting behind last, which is not below it. On-disk format.
func appendPosting(b []byte, p, last posting) []byte {
	b = binary.AppendUvarint(b, uint64(last.seq-p.seq))
	b = binary.AppendVarint(b, p.ts-last.ts)
	edit := p.edit
	if edit != 0 {
		edit -= p.seq
	}
	return binary.AppendUvarint(b, uint64(edit))
}

// appendPacked decodes postings, the newest first, the first of which was encoded behind
// a position.
func appendPacked(list []posting, top ids.Seq, packed []byte) []posting {
	p := posting{seq: top}
	for len(packed) > 0 {
		down, a := binary.Uvarint(packed)
		if a <= 0 {
			break
		}
		ts, b := binary.Varint(packed[a:])
		if b <= 0 {
			break
		}
		edit, c := binary.Uvarint(packed[a+b:])
		if c <= 0 {
			break
		}
		packed = packed[a+b+c:]
		p.seq -= ids.Seq(down)
		p.ts += ts
		if p.edit = ids.Seq(edit); edit != 0 {
			p.edit += p.seq
		}
		list = append(list, p)
	}
	return list
}

// pairOf returns the first two letters of a text.
func pairOf(text string) string {
	_, a := utf8.DecodeRuneInString(text)
	_, b := utf8.DecodeRuneInString(text[a:])
	return text[:a+b]
}
