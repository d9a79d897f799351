package feed

import (
	"cmp"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"slices"
	"strconv"
	"strings"

	"github.com/hubbub-chat/hubbub/internal/ids"
)

// Position is a place in the logs of all partitions: what a client has seen. It
// also says which node's typing notices it has seen, since these live on one node
// only and are not in any log.
type Position struct {
	// At has an entry for each partition; 0 where nothing was seen.
	At []ids.Seq
	// Node and Typing: the notices of that node up to that number.
	Node   uint32
	Typing uint64
	// Inbox is the position in the user's home partition up to which the device
	// has had its to-device messages; 0 stands for what At says. It is a
	// number of its own because messages can be held back while all else goes on.
	Inbox ids.Seq
	// Generation is that of the store, 0 for one that was never restored from a backup.
	// The same numbers mean other events in another one.
	Generation uint32
}

// inbox returns the position up to which a device of a user whose home partition
// is home has had its messages: Inbox, which in a token of another user can lie
// beyond all that this user has seen.
func (p *Position) inbox(home ids.Partition) ids.Seq {
	if p.Inbox != 0 {
		return min(p.Inbox, p.At[home])
	}
	return p.At[home]
}

const (
	// positionFormat is what is written, formatGeneration where the store was restored;
	// formatNoInbox, without Inbox, is read too.
	positionFormat   = 2
	formatNoInbox    = 1
	formatGeneration = 3
	tokenPrefix      = "s"
	// slidingPrefix begins a position of sliding sync, which names a response and
	// then, behind slidingSeparator, the Position that it came up to.
	slidingPrefix    = "c"
	slidingSeparator = "_"
	markSeparator    = "~"
	// markBase writes the positions of marks.
	markBase = 36
	// maxToken bounds a token in characters: all partitions with large
	// positions, and marks for each of them.
	maxToken = 32 << 10
)

// NewPosition returns the position before everything.
func NewPosition(count int) Position { return Position{At: make([]ids.Seq, count)} }

// Clone returns a copy that shares nothing.
func (p Position) Clone() Position {
	p.At = append([]ids.Seq(nil), p.At...)
	return p
}

// sparse is a Position without the entries that are 0: the partitions that none of
// the user's rooms is in, most of them on a large node. An idle session keeps it.
type sparse struct {
	at               []place // by partition
	node, generation uint32
	typing           uint64
	inbox            ids.Seq
}

// place is one entry of a Position.
type place struct {
	p   ids.Partition
	seq ids.Seq
}

func newSparse(p *Position) *sparse {
	n := 0
	for _, s := range p.At {
		if s != 0 {
			n++
		}
	}
	c := &sparse{at: make([]place, 0, n), node: p.Node, generation: p.Generation, typing: p.Typing, inbox: p.Inbox}
	for i, s := range p.At {
		if s != 0 {
			c.at = append(c.at, place{ids.Partition(i), s})
		}
	}
	return c
}

// set moves one entry.
func (c *sparse) set(p ids.Partition, s ids.Seq) {
	i, ok := slices.BinarySearchFunc(c.at, p, func(e place, p ids.Partition) int { return cmp.Compare(e.p, p) })
	if !ok {
		c.at = slices.Insert(c.at, i, place{p: p})
	}
	c.at[i].seq = s
}

// position is the Position again, of a deployment of count partitions.
func (c *sparse) position(count int) *Position {
	p := &Position{At: make([]ids.Seq, count), Node: c.node, Typing: c.typing, Inbox: c.inbox, Generation: c.generation}
	for _, e := range c.at {
		p.At[e.p] = e.seq
	}
	return p
}

// Token writes the position as an opaque token. spec: client-server §Syncing,
// next_batch.
func (p Position) Token() string {
	b := make([]byte, 0, 16+6*len(p.At))
	if p.Generation == 0 {
		b = append(b, positionFormat)
	} else {
		b = binary.LittleEndian.AppendUint32(append(b, formatGeneration), p.Generation)
	}
	b = binary.LittleEndian.AppendUint32(b, p.Node)
	b = binary.AppendUvarint(b, p.Typing)
	b = binary.AppendUvarint(b, uint64(p.Inbox))
	prev := -1
	for i, s := range p.At {
		if s == 0 {
			continue
		}
		b = binary.AppendUvarint(b, uint64(i-prev))
		b = binary.AppendUvarint(b, uint64(s))
		prev = i
	}
	// So that a cut or mistyped token is refused instead of meaning something.
	b = binary.LittleEndian.AppendUint16(b, uint16(crc32.ChecksumIEEE(b)))
	return tokenPrefix + base64.RawURLEncoding.EncodeToString(b)
}

// ParsePosition reads a token, with marks appended if there are any.
// ErrUnknownPosition if it is none, or of a deployment with another number of
// partitions.
func ParsePosition(token string, count int) (Position, error) {
	p := NewPosition(count)
	if strings.HasPrefix(token, slidingPrefix) {
		_, token, _ = strings.Cut(token, slidingSeparator)
	}
	if len(token) > maxToken || !strings.HasPrefix(token, tokenPrefix) {
		return p, fmt.Errorf("no token: %w", ErrUnknownPosition)
	}
	token, marks, _ := strings.Cut(token[len(tokenPrefix):], markSeparator)
	b, err := base64.RawURLEncoding.Strict().DecodeString(token)
	if err != nil || len(b) < 8 {
		return p, fmt.Errorf("malformed token: %w", ErrUnknownPosition)
	}
	sum := len(b) - 2
	if binary.LittleEndian.Uint16(b[sum:]) != uint16(crc32.ChecksumIEEE(b[:sum])) {
		return p, fmt.Errorf("token checksum: %w", ErrUnknownPosition)
	}
	format, b := b[0], b[1:sum]
	switch format {
	case positionFormat, formatNoInbox:
	case formatGeneration:
		p.Generation = binary.LittleEndian.Uint32(b)
		b = b[4:]
		if p.Generation != 0 && len(b) > 4 {
			break
		}
		fallthrough
	default:
		return p, fmt.Errorf("malformed token: %w", ErrUnknownPosition)
	}
	p.Node = binary.LittleEndian.Uint32(b)
	r := reader{b: b[4:]}
	p.Typing = r.uvarint()
	if format != formatNoInbox {
		p.Inbox = ids.Seq(r.uvarint())
	}
	at := uint64(0)
	for first := true; len(r.b) > 0; first = false {
		step := r.uvarint()
		if first {
			step--
		}
		at += step
		if r.bad || step > uint64(count) || at >= uint64(count) || (!first && step == 0) {
			return p, fmt.Errorf("token names partition %d of %d: %w", at, count, ErrUnknownPosition)
		}
		p.At[at] = ids.Seq(r.uvarint())
	}
	if r.bad {
		return p, fmt.Errorf("truncated token: %w", ErrUnknownPosition)
	}
	for marks != "" {
		var mark string
		mark, marks, _ = strings.Cut(marks, markSeparator)
		part, pos, _ := strings.Cut(mark, ".")
		if err := p.AddMark(part, pos); err != nil {
			return p, err
		}
	}
	return p, nil
}

// position is the position before everything, as this store counts.
func (h *Hub) position() Position {
	p := NewPosition(h.opts.Count)
	p.Generation = h.opts.Generation
	return p
}

// parse is ParsePosition for a token of this store: ErrRestored for one from before it
// was restored.
func (h *Hub) parse(token string) (Position, error) {
	p, err := ParsePosition(token, h.opts.Count)
	if err == nil && p.Generation != h.opts.Generation {
		err = fmt.Errorf("token of another generation: %w", ErrRestored)
	}
	return p, err
}

// AddMark moves the position to a mark that came after it. docs/websocket.md.
func (p Position) AddMark(part, pos string) error {
	i, err := strconv.ParseUint(part, 10, 16)
	s, err2 := strconv.ParseUint(pos, markBase, 64)
	if err != nil || err2 != nil || i >= uint64(len(p.At)) {
		return fmt.Errorf("malformed mark: %w", ErrUnknownPosition)
	}
	p.At[i] = max(p.At[i], ids.Seq(s))
	return nil
}

// appendMark appends the JSON of a mark: ["12","90b"].
func appendMark(b []byte, p ids.Partition, s ids.Seq) []byte {
	b = strconv.AppendUint(append(b, `["`...), uint64(p), 10)
	b = strconv.AppendUint(append(b, `","`...), uint64(s), markBase)
	return append(b, `"]`...)
}

type reader struct {
	b   []byte
	bad bool
}

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.b, r.bad = nil, true
		return 0
	}
	r.b = r.b[n:]
	return v
}

// The tokens of /messages and its kin: a position in one room.
const (
	pagePrefix = "t"
	// PageStart is the beginning of a room.
	PageStart ids.Seq = 0
)

// PageToken writes a position in a room, between the event at s and the next.
func PageToken(s ids.Seq) string { return pagePrefix + strconv.FormatUint(uint64(s), 10) }

// ParsePage reads a position in a room whose partition is p: a page token, or a
// token of a sync. spec: client-server §GET /rooms/{roomId}/messages, from.
func ParsePage(token string, p ids.Partition, count int) (ids.Seq, error) {
	if strings.HasPrefix(token, pagePrefix) {
		n, err := strconv.ParseUint(token[len(pagePrefix):], 10, 63)
		if err != nil {
			return 0, fmt.Errorf("malformed token: %w", ErrUnknownPosition)
		}
		return ids.Seq(n), nil
	}
	pos, err := ParsePosition(token, count)
	if err != nil {
		return 0, err
	}
	return pos.At[p], nil
}
