package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strings"
	"testing"

	"github.com/gobwas/ws"
	"pgregory.net/rapid"
)

// record keeps what a decoder hands over.
type record struct {
	ops      []Op
	payloads [][]byte
}

func (r *record) HandleMessage(op Op, payload []byte) error {
	r.ops = append(r.ops, op)
	r.payloads = append(r.payloads, bytes.Clone(payload))
	return nil
}

// raw builds a frame, right or wrong.
func raw(first byte, length uint64, form int, mask *[4]byte, payload []byte) []byte {
	var m byte
	if mask != nil {
		m = 0x80
	}
	b := []byte{first}
	switch form {
	case 7:
		b = append(b, m|byte(length))
	case 16:
		b = binary.BigEndian.AppendUint16(append(b, m|126), uint16(length))
	default:
		b = binary.BigEndian.AppendUint64(append(b, m|127), length)
	}
	if mask == nil {
		return append(b, payload...)
	}
	b = append(b, mask[:]...)
	masked := bytes.Clone(payload)
	ws.Cipher(masked, *mask, 0)
	return append(b, masked...)
}

func TestDecoderRefuses(t *testing.T) {
	mask := &[4]byte{1, 2, 3, 4}
	text := func(first byte, s string) []byte { return raw(first, uint64(len(s)), 7, mask, []byte(s)) }
	for name, c := range map[string]struct {
		in   []byte
		code int
	}{
		"unmasked":                   {raw(0x81, 2, 7, nil, []byte("{}")), CloseProtocol},
		"rsv1":                       {text(0x81|0x40, "{}"), CloseProtocol},
		"rsv3":                       {text(0x81|0x10, "{}"), CloseProtocol},
		"opcode 3":                   {text(0x83, ""), CloseProtocol},
		"opcode 11":                  {text(0x8b, ""), CloseProtocol},
		"length over 2^63":           {raw(0x81, 1<<63, 64, mask, nil), CloseProtocol},
		"length 2^63-1":              {raw(0x81, 1<<63-1, 64, mask, nil), CloseTooLarge},
		"length over the limit":      {raw(0x81, 101, 7, mask, nil), CloseTooLarge},
		"fragments over the limit":   {append(text(0x01, strings.Repeat("a", 60)), text(0x80, strings.Repeat("a", 41))...), CloseTooLarge},
		"fragmented ping":            {text(0x09, ""), CloseProtocol},
		"long ping":                  {raw(0x89, 126, 16, mask, nil), CloseProtocol},
		"continuation of nothing":    {text(0x80, ""), CloseProtocol},
		"text within a message":      {append(text(0x01, "a"), text(0x81, "b")...), CloseProtocol},
		"bad UTF-8":                  {text(0x81, "\xff"), CloseBadUTF8},
		"bad UTF-8 across fragments": {append(text(0x01, "\xc3"), text(0x80, "a")...), CloseBadUTF8},
	} {
		t.Run(name, func(t *testing.T) {
			d := Decoder{Masked: true, Max: 100}
			var r record
			var v *Violation
			if err := d.Feed(c.in, &r); !errors.As(err, &v) || v.Code != c.code {
				t.Fatalf("got %v, want code %d", err, c.code)
			}
			if len(r.ops) != 0 {
				t.Fatalf("handed over %v", r.ops)
			}
		})
	}
}

func TestDecoderClientSide(t *testing.T) {
	d := Decoder{Max: 100}
	var r record
	if err := d.Feed(raw(0x81, 2, 7, nil, []byte("{}")), &r); err != nil || len(r.ops) != 1 {
		t.Fatalf("unmasked frame from a server: %v", err)
	}
	if err := d.Feed(raw(0x81, 2, 7, &[4]byte{}, []byte("{}")), &r); err == nil {
		t.Fatal("a masked frame from a server was taken")
	}
}

// The limit counts before memory is taken.
func TestDecoderAllocatesWhatCame(t *testing.T) {
	d := Decoder{Masked: true, Max: 64 << 20}
	var r record
	if err := d.Feed(raw(0x81, 64<<20, 64, &[4]byte{}, []byte("abc")), &r); err != nil {
		t.Fatal(err)
	}
	if cap(d.msg) > firstAlloc {
		t.Fatalf("%d bytes for 3 that came", cap(d.msg))
	}
}

type message struct {
	op      Op
	payload []byte
}

// Whatever the fragmentation, the interleaved control frames and the sizes of
// reads, the same messages come out, and the decoder ends idle.
func TestDecoderProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var stream []byte
		var want []message
		frame := func(first byte, payload []byte) {
			mask := [4]byte(rapid.SliceOfN(rapid.Byte(), 4, 4).Draw(t, "mask"))
			form := 7
			if len(payload) > 125 || rapid.Bool().Draw(t, "long form") {
				form = rapid.SampledFrom([]int{16, 64}).Draw(t, "form")
			}
			stream = append(stream, raw(first, uint64(len(payload)), form, &mask, payload)...)
		}
		for range rapid.IntRange(0, 5).Draw(t, "messages") {
			payload := []byte(rapid.StringN(0, 300, 400).Draw(t, "text"))
			parts := rapid.IntRange(1, 4).Draw(t, "parts")
			rest, first := payload, byte(OpText)
			for i := range parts {
				n := len(rest)
				if i < parts-1 {
					n = rapid.IntRange(0, len(rest)).Draw(t, "part")
				}
				if i == parts-1 {
					first |= 0x80
				}
				frame(first, rest[:n])
				rest, first = rest[n:], byte(OpContinuation)
				if i < parts-1 && rapid.Bool().Draw(t, "control between") {
					ping := rapid.SliceOfN(rapid.Byte(), 0, 125).Draw(t, "ping")
					frame(0x89, ping)
					want = append(want, message{OpPing, ping})
				}
			}
			want = append(want, message{OpText, payload})
		}
		d := Decoder{Masked: true, Max: 1 << 20}
		var r record
		for len(stream) > 0 {
			n := rapid.IntRange(1, len(stream)).Draw(t, "read")
			if err := d.Feed(bytes.Clone(stream[:n]), &r); err != nil {
				t.Fatal(err)
			}
			stream = stream[n:]
		}
		if !d.Idle() || d.msg != nil || d.ctl != nil {
			t.Fatal("not idle at the end")
		}
		if len(r.ops) != len(want) {
			t.Fatalf("got %d messages, want %d", len(r.ops), len(want))
		}
		for i, w := range want {
			if r.ops[i] != w.op || !bytes.Equal(r.payloads[i], w.payload) {
				t.Fatalf("message %d: got %v %q, want %v %q", i, r.ops[i], r.payloads[i], w.op, w.payload)
			}
		}
	})
}

// A cursor gives out exactly the frames, whatever the sizes of the writes and how
// much of each was taken.
func TestCursorProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var frames []Frame
		var want []byte
		for range rapid.IntRange(0, 5).Draw(t, "frames") {
			size := rapid.SampledFrom([]int{0, 1, 125, 126, 127, 300, 65535, 65536}).Draw(t, "size")
			whole := bytes.Repeat([]byte{byte(size), 1, 2}, size/3+1)[:size]
			cut := rapid.IntRange(0, size).Draw(t, "cut")
			f := Frame{Op: OpText, Payload: whole[:cut], Tail: whole[cut:]}
			frames = append(frames, f)
			want = append(AppendHeader(want, f.Op, size, nil), whole...)
		}
		c := Cursor{Frames: frames}
		var got []byte
		for !c.Done() {
			buf := make([]byte, rapid.SampledFrom([]int{1, 2, 3, 11, 500, 70_000}).Draw(t, "buffer"))
			if len(buf) < 12 && len(want) > 2000 {
				buf = make([]byte, 4096) // byte by byte is for the small ones
			}
			n := c.Fill(buf)
			taken := rapid.IntRange(0, n).Draw(t, "taken")
			got = append(got, buf[:taken]...)
			c.Advance(taken)
		}
		if !bytes.Equal(got, want) {
			t.Fatalf("got %d bytes, want %d", len(got), len(want))
		}
	})
}

func TestParseClose(t *testing.T) {
	for _, c := range []struct {
		in     []byte
		code   int
		reason string
		fails  int
	}{
		{in: nil, code: 1000},
		{in: []byte{3}, fails: CloseProtocol},
		{in: []byte{0x03, 0xe8, 'b', 'y', 'e'}, code: 1000, reason: "bye"},
		{in: []byte{0x03, 0xe7}, fails: CloseProtocol}, // 999
		{in: []byte{0x03, 0xed}, fails: CloseProtocol}, // 1005
		{in: []byte{0x03, 0xee}, fails: CloseProtocol}, // 1006
		{in: []byte{0x0b, 0xb8}, code: 3000},
		{in: []byte{0x13, 0x88}, fails: CloseProtocol}, // 5000
		{in: []byte{0x03, 0xe8, 0xff}, fails: CloseBadUTF8},
	} {
		code, reason, err := ParseClose(c.in)
		var v *Violation
		if errors.As(err, &v) != (c.fails != 0) || v != nil && v.Code != c.fails || code != c.code || reason != c.reason {
			t.Errorf("%x: got %d %q %v", c.in, code, reason, err)
		}
	}
}

func TestClosePayloadIsCutAtARune(t *testing.T) {
	p := ClosePayload(4400, strings.Repeat("é", 100))
	if len(p) > 125 {
		t.Fatalf("%d bytes", len(p))
	}
	if _, reason, err := ParseClose(p); err != nil || reason != strings.Repeat("é", 61) {
		t.Fatalf("%q, %v", reason, err)
	}
}

// FuzzDecoder: no bytes make the decoder panic or hold more than its limit, and
// how they are cut into reads makes no difference.
func FuzzDecoder(f *testing.F) {
	mask := &[4]byte{1, 2, 3, 4}
	f.Add(raw(0x81, 2, 7, mask, []byte("{}")), 1)
	f.Add(append(raw(0x01, 3, 16, mask, []byte("abc")), raw(0x80, 1, 64, mask, []byte("d"))...), 5)
	f.Add(raw(0x89, 4, 7, mask, []byte("ping")), 3)
	f.Add(raw(0x81, 1<<63, 64, mask, nil), 2)
	f.Fuzz(func(t *testing.T, in []byte, step int) {
		const limit = 1000
		step = max(1, step%64)
		var whole, parts record
		d := Decoder{Masked: true, Max: limit}
		errWhole := d.Feed(bytes.Clone(in), &whole)
		d = Decoder{Masked: true, Max: limit}
		var errParts error
		for i := 0; i < len(in) && errParts == nil; i += step {
			errParts = d.Feed(bytes.Clone(in[i:min(i+step, len(in))]), &parts)
			if cap(d.msg) > firstAlloc || cap(d.ctl) > 256 {
				t.Fatalf("holds %d and %d bytes", cap(d.msg), cap(d.ctl))
			}
		}
		if (errWhole == nil) != (errParts == nil) || len(whole.ops) != len(parts.ops) {
			t.Fatalf("whole: %d, %v; in parts: %d, %v", len(whole.ops), errWhole, len(parts.ops), errParts)
		}
		for i := range whole.ops {
			if whole.ops[i] != parts.ops[i] || !bytes.Equal(whole.payloads[i], parts.payloads[i]) {
				t.Fatalf("message %d differs", i)
			}
			if len(whole.payloads[i]) > limit {
				t.Fatal("message over the limit")
			}
		}
	})
}
