package wire

// Frame is one message to be sent by a server, unfragmented and unmasked.
type Frame struct {
	Op Op
	// Own marks what was made for this connection alone (answers, control
	// frames), as opposed to frames of the feed. The encoding ignores it.
	Own     bool
	Payload []byte
	// Tail follows Payload in the same frame: what differs of a frame that is
	// else shared.
	Tail []byte
}

// Len is the length of the frame without its header, in bytes.
func (f *Frame) Len() int { return len(f.Payload) + len(f.Tail) }

// Cursor is a place in the encoding of a list of frames, counted in bytes, so
// that a write that took only a part can be gone on with from there.
type Cursor struct {
	Frames []Frame
	i      int // the frame
	off    int // bytes of its header and payload that are done
}

// Done reports whether everything was written.
func (c *Cursor) Done() bool { return c.i == len(c.Frames) }

// Fill writes the encoding from the cursor on into b and returns how many bytes
// there were, at most len(b). It does not move the cursor.
func (c *Cursor) Fill(b []byte) int {
	n, off := 0, c.off
	var buf [maxHeader]byte
	for i := c.i; i < len(c.Frames) && n < len(b); i++ {
		f := &c.Frames[i]
		for _, part := range [...][]byte{AppendHeader(buf[:0], f.Op, f.Len(), nil), f.Payload, f.Tail} {
			if off >= len(part) {
				off -= len(part)
				continue
			}
			n += copy(b[n:], part[off:])
			off = 0
		}
	}
	return n
}

// Advance moves the cursor by n bytes, which Fill gave out.
func (c *Cursor) Advance(n int) {
	c.off += n
	for c.i < len(c.Frames) {
		f := &c.Frames[c.i]
		size := headerSize(f.Len()) + f.Len()
		if c.off < size {
			return
		}
		c.off -= size
		c.i++
	}
}

func headerSize(length int) int {
	switch {
	case length < 126:
		return 2
	case length < 1<<16:
		return 4
	default:
		return 10
	}
}
