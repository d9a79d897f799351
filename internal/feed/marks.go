package feed

import "github.com/hubbub-chat/hubbub/internal/ids"

// manyRooms is from how many rooms on a view keeps marks of them. Those of a user who is
// in two thousand lie in a few pages of memory, and are looked through in less time than
// it takes to read one message; the rooms themselves lie anywhere.
const manyRooms = 64

// roomMark says when a room moved: seq in its partition, told in the user's.
type roomMark struct {
	seq, told ids.Seq
	p         ids.Partition
}

func (r *userRoom) mark() roomMark {
	return roomMark{max(r.last, r.roomSeq, r.since, r.shared), r.told, r.p}
}

// after reports whether there may be something to tell a client that stands at since.
func (m roomMark) after(since *Position, home ids.Partition) bool {
	return m.seq > since.At[m.p] || m.told > since.At[home]
}

// roomMarks are the marks of rooms, each part of them by itself: nearly always the first
// and the partitions are all that has to be looked at.
type roomMarks struct {
	seqs, told []ids.Seq
	ps         []ids.Partition
	// lastTold is the highest of told.
	lastTold ids.Seq
	// touched are the rooms that moved since their marks were set.
	touched []*userRoom
}

func (m *roomMarks) add(k roomMark) {
	m.seqs, m.told, m.ps = append(m.seqs, k.seq), append(m.told, k.told), append(m.ps, k.p)
	m.lastTold = max(m.lastTold, k.told)
}

func (m *roomMarks) set(i int32, k roomMark) {
	m.seqs[i], m.told[i], m.ps[i] = k.seq, k.told, k.p
	m.lastTold = max(m.lastTold, k.told)
}

// each calls fn with the indexes of the marks that are after since.
func (m *roomMarks) each(since *Position, home ids.Partition, fn func(i int)) {
	at := since.At
	told := m.lastTold > at[home]
	for i, p := range m.ps {
		if m.seqs[i] > at[p] || told && m.told[i] > at[home] {
			fn(i)
		}
	}
}

// touchLocked notes that a room moves. It costs next to nothing: this is on the way of
// each message to each member.
func (v *view) touchLocked(r *userRoom) {
	if m := v.mu.many; m != nil && m.marks != nil && !r.touched {
		r.touched = true
		m.marks.touched = append(m.marks.touched, r)
	}
}

// eachMovedLocked calls fn with the rooms of which there may be something to tell.
func (v *view) eachMovedLocked(since *Position, fn func(*userRoom)) {
	if len(v.mu.list) < v.hub.pace.many {
		for _, r := range v.mu.list {
			if r.mark().after(since, v.home) {
				fn(r)
			}
		}
		return
	}
	many := v.manyLocked()
	if many.marks == nil {
		many.marks = &roomMarks{}
	}
	m := many.marks
	for _, r := range m.touched {
		if r.touched = false; int(r.at) < len(m.ps) {
			m.set(r.at, r.mark())
		}
	}
	clear(m.touched)
	m.touched = m.touched[:0]
	for _, r := range v.mu.list[len(m.ps):] {
		m.add(r.mark())
	}
	m.each(since, v.home, func(i int) { fn(v.mu.list[i]) })
}
