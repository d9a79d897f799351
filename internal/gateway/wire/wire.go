// Package wire is the lowest layer of the WebSocket transport, shared by the
// gateway and by the Go client: frame headers, a push decoder that turns bytes
// into messages, an encoder that gathers many frames in one buffer, and the
// constants of docs/websocket.md.
//
// It does no I/O, starts no goroutine and keeps no global state. A Decoder and a
// Cursor belong to one goroutine at a time.
package wire

import (
	"encoding/binary"
	"fmt"
	"unicode/utf8"
)

// Path is where the upgrade is served.
const Path = "/_hubbub/v1/ws"

// Subprotocol is what the client offers and the server selects.
const Subprotocol = "hubbub.v1"

// MaxMessage is the largest message from a client in bytes: twice the largest
// event, so that an event with its envelope and escapes fits.
const MaxMessage = 128 << 10

// MaxID is the highest ID of a call: what a JSON number holds exactly.
const MaxID = 1<<53 - 1

// The close codes of docs/websocket.md.
const (
	CloseNormal       = 1000
	CloseGoingAway    = 1001
	CloseProtocol     = 1002
	CloseAbnormal     = 1006 // never sent: the connection ended without a close frame
	CloseBadUTF8      = 1007
	CloseTooLarge     = 1009
	CloseMalformed    = 4400
	CloseUnauthorized = 4401
	CloseForbidden    = 4403
	CloseTimeout      = 4408
	CloseUnknownPos   = 4409
	CloseTooMany      = 4429
	CloseInternal     = 4500
	CloseUnavailable  = 4503
)

// Op is the opcode of a frame. spec: RFC 6455 §5.2.
type Op uint8

// The opcodes in use.
const (
	OpContinuation Op = 0x0
	OpText         Op = 0x1
	OpBinary       Op = 0x2
	OpClose        Op = 0x8
	OpPing         Op = 0x9
	OpPong         Op = 0xa
)

func (o Op) control() bool { return o&0x8 != 0 }

// maxControl is the largest payload of a control frame. spec: RFC 6455 §5.5.
const maxControl = 125

// maxHeader is the largest frame header: 2 bytes, 8 of length, 4 of mask.
const maxHeader = 14

// Violation is a breach of the protocol by the peer. Code is the close code that
// answers it.
type Violation struct {
	Code   int
	Reason string
}

func (v *Violation) Error() string {
	return fmt.Sprintf("websocket: %s (close code %d)", v.Reason, v.Code)
}

func violation(code int, reason string) error { return &Violation{Code: code, Reason: reason} }

// header is a parsed frame header.
type header struct {
	op     Op
	fin    bool
	rsv    bool
	masked bool
	length uint64
	mask   [4]byte
}

// parseHeader reads a header from the start of b. n is its length, or 0 if b
// holds only a part of it.
func parseHeader(b []byte) (h header, n int) {
	if len(b) < 2 {
		return h, 0
	}
	h.fin, h.rsv = b[0]&0x80 != 0, b[0]&0x70 != 0
	h.op = Op(b[0] & 0x0f)
	h.masked = b[1]&0x80 != 0
	n = 2
	switch l := b[1] & 0x7f; l {
	case 126:
		if len(b) < n+2 {
			return h, 0
		}
		h.length = uint64(binary.BigEndian.Uint16(b[n:]))
		n += 2
	case 127:
		if len(b) < n+8 {
			return h, 0
		}
		h.length = binary.BigEndian.Uint64(b[n:])
		n += 8
	default:
		h.length = uint64(l)
	}
	if h.masked {
		if len(b) < n+4 {
			return h, 0
		}
		copy(h.mask[:], b[n:])
		n += 4
	}
	return h, n
}

// AppendHeader appends the header of an unfragmented frame. mask is nil for
// frames of a server.
func AppendHeader(b []byte, op Op, length int, mask *[4]byte) []byte {
	var m byte
	if mask != nil {
		m = 0x80
	}
	b = append(b, 0x80|byte(op))
	switch {
	case length < 126:
		b = append(b, m|byte(length))
	case length < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, m|126), uint16(length))
	default:
		b = binary.BigEndian.AppendUint64(append(b, m|127), uint64(length))
	}
	if mask != nil {
		b = append(b, mask[:]...)
	}
	return b
}

// ClosePayload is the payload of a close frame. The reason is cut to what a
// control frame holds, at a rune's edge.
func ClosePayload(code int, reason string) []byte {
	if len(reason) > maxControl-2 {
		reason = reason[:maxControl-2]
		for !utf8.ValidString(reason) {
			reason = reason[:len(reason)-1]
		}
	}
	return append(binary.BigEndian.AppendUint16(make([]byte, 0, 2+len(reason)), uint16(code)), reason...)
}

// ParseClose reads the payload of a close frame; an empty one counts as
// CloseNormal. It fails with a Violation. spec: RFC 6455 §5.5.1, §7.4.
func ParseClose(payload []byte) (code int, reason string, err error) {
	switch {
	case len(payload) == 0:
		return CloseNormal, "", nil
	case len(payload) == 1:
		return 0, "", violation(CloseProtocol, "close frame of one byte")
	}
	code = int(binary.BigEndian.Uint16(payload))
	switch {
	case code >= 3000 && code < 5000:
	case code >= 1000 && code <= 1014 && code != 1004 && code != 1005 && code != 1006:
	default:
		return 0, "", violation(CloseProtocol, "invalid close code")
	}
	if !utf8.Valid(payload[2:]) {
		return 0, "", violation(CloseBadUTF8, "reason is not UTF-8")
	}
	return code, string(payload[2:]), nil
}
