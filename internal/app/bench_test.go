package app

import (
	"testing"

	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/room"
)

// BenchmarkWire gives a message and its answer as bytes and reads them: what it costs
// the two nodes that it is sent by one and its room run by another.
func BenchmarkWire(b *testing.B) {
	w, err := newWire()
	if err != nil {
		b.Fatal(err)
	}
	c := &room.Send{Room: "!room:example.org", Txn: room.Txn{Device: "DEVICE", Path: "send/m.room.message", ID: "m1"}}
	c.Draft.Type, c.Draft.Sender = "m.room.message", "@user:example.org"
	c.Draft.Content, c.Draft.OriginServerTS = make([]byte, 100), 1_700_000_000_000
	b.ReportAllocs()
	for b.Loop() {
		data, err := w.Encode(c)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := w.Decode(data); err != nil {
			b.Fatal(err)
		}
		if _, err := w.DecodeAnswer(w.EncodeAnswer(ids.EventID("$event"), nil)); err != nil {
			b.Fatal(err)
		}
	}
}
