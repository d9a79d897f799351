package room

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"net/http"

	"github.com/hubbub-chat/hubbub/internal/event"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/merr"
	"github.com/hubbub-chat/hubbub/internal/partition"
	"github.com/hubbub-chat/hubbub/internal/roomstate"
	"github.com/hubbub-chat/hubbub/internal/storage"
	"github.com/hubbub-chat/hubbub/internal/tables"
)

// An event that relates to another one leaves more rows than its own, in the same
// batch; one that relates to nothing leaves none.
//
//   - Relation, under its parent: what lists of children and aggregations show of
//     it without reading the event. Also under the parents of its parent, up to
//     RelationDepth, as indirect, so that a list with all descendants is one
//     stretch of the index and not a search through a tree.
//   - RelationCount of the parent: what says that there is anything to aggregate.
//   - an annotation: Annotation, which tells an equal one.
//   - a reply in a thread: ThreadMember of its sender, and the thread's place in
//     ThreadLog.
//   - in a thread, be it by a relation of its own or through its parents:
//     ThreadEvent, and the root in the event's row.
//
// Redacting a child takes these rows away; redacting a parent leaves them.
// spec: client-server §Aggregations of child events.
//
// Rejected: to find the children by reading the timeline (a reaction would have to
// be searched for in all that came after); to keep aggregations ready (they differ
// by who may see what, and by whom one ignores).

// RelationDepth is how many steps lead from an event to what counts as related to
// it, at most. spec: client-server §GET /relations, recurse.
const RelationDepth = 3

// relKind is a relation in the keys of Relation rows. The numbers are part of the
// on-disk format.
type relKind byte

const (
	relAnnotation relKind = iota + 1
	relReference
	relReplace
	relThread
	relOther // of a type that servers do not know
	// relIndirect: not to the event itself but to one that relates to it.
	relIndirect
)

func kindOf(relType string) relKind {
	switch relType {
	case event.RelAnnotation:
		return relAnnotation
	case event.RelReference:
		return relReference
	case event.RelReplace:
		return relReplace
	case event.RelThread:
		return relThread
	}
	return relOther
}

func (p Place) relations(parent ids.Seq, k relKind) storage.Key {
	return p.key(tables.Relation, tables.SeqSort(parent)+string([]byte{byte(k)}))
}

func (p Place) relation(parent ids.Seq, k relKind, child ids.Seq) storage.Key {
	key := p.relations(parent, k)
	key.Sort += tables.SeqSort(child)
	return key
}

func (p Place) relationCount(parent ids.Seq) storage.Key {
	return p.key(tables.RelationCount, tables.SeqSort(parent))
}

func (p Place) threadMember(root ids.Seq, user ids.UserID) storage.Key {
	return p.key(tables.ThreadMember, tables.SeqSort(root)+string(user))
}

// annotation names equal annotations: of one sender, with one type and key.
func (p Place) annotation(parent ids.Seq, sender ids.UserID, eventType, key string) storage.Key {
	sum := sha256.Sum256([]byte(partition.JoinSort(string(sender), eventType, key)))
	return p.key(tables.Annotation, tables.SeqSort(parent)+string(sum[:16]))
}

// Related is an event that relates to another, as the index has it.
type Related struct {
	Seq    ids.Seq
	ID     ids.EventID
	Sender ids.UserID
	// Type is the event's type, RelType that of its relation.
	Type, RelType string
	// TS is the event's time in ms since 1970.
	TS int64
	// Valid: a replacement that may take its parent's place. spec: client-server
	// §Validity of replacement events.
	Valid bool

	// via are the events in between, of an indirect relation; sameRel and sameType
	// say whether these have its type of relation and its type.
	via               []ids.Seq
	sameRel, sameType bool
}

const relatedFormat = 1

const (
	flagValid = 1 << iota
	flagSameRel
	flagSameType
)

func (x *Related) encode() []byte {
	var flags byte
	for i, on := range [...]bool{x.Valid, x.sameRel, x.sameType} {
		if on {
			flags |= 1 << i
		}
	}
	b := append(make([]byte, 0, 128), relatedFormat, flags)
	b, _ = appendHash(b, x.ID)
	b = binary.AppendUvarint(b, uint64(x.TS))
	b = appendString(b, x.Sender)
	b = appendString(b, x.Type)
	b = appendString(b, x.RelType)
	for _, s := range x.via {
		b = binary.AppendUvarint(b, uint64(s))
	}
	return b
}

func decodeRelated(sort string, row []byte) (*Related, error) {
	r := rowReader{s: string(row)}
	if f := r.byte(); f != relatedFormat {
		return nil, fmt.Errorf("relation: format %d: %w", f, errRow)
	}
	flags := r.byte()
	x := &Related{
		Seq: tables.SortSeq(sort), Valid: flags&flagValid != 0,
		sameRel: flags&flagSameRel != 0, sameType: flags&flagSameType != 0,
	}
	hash := r.take(hashSize)
	x.TS = int64(r.uvarint())
	x.Sender, x.Type, x.RelType = ids.UserID(r.str()), r.str(), r.str()
	for r.s != "" {
		x.via = append(x.via, ids.Seq(r.uvarint()))
	}
	if r.err != nil {
		return nil, fmt.Errorf("relation: %w", errRow)
	}
	x.ID = linkID(hash)
	return x, nil
}

// relCount is what a RelationCount row holds.
type relCount struct {
	// n counts the children by kind.
	n [relIndirect]int
	// latest is the position of the latest reply in the thread, 0 if there is none.
	latest ids.Seq
}

const relCountFormat = 1

func (c *relCount) encode() []byte {
	b := append(make([]byte, 0, 24), relCountFormat)
	for _, n := range c.n[relAnnotation:] {
		b = binary.AppendUvarint(b, uint64(n))
	}
	return binary.AppendUvarint(b, uint64(c.latest))
}

func decodeRelCount(_ storage.Key, row []byte) (any, error) {
	r := rowReader{s: string(row)}
	if f := r.byte(); f != relCountFormat {
		return nil, fmt.Errorf("relation count: format %d: %w", f, errRow)
	}
	c := &relCount{}
	for k := relAnnotation; k < relIndirect; k++ {
		c.n[k] = int(r.uvarint())
	}
	c.latest = ids.Seq(r.uvarint())
	if r.err != nil {
		return nil, fmt.Errorf("relation count: %w", errRow)
	}
	return c, nil
}

// relating is a relation that a command makes or ends: what Prepare found of it,
// which does not change. A nil relating is none.
type relating struct {
	rel    event.Relation
	kind   relKind
	sender ids.UserID
	typ    string
	parent ids.Seq
	// above are the events that the parent relates to, nearest first.
	above []aboveParent
}

type aboveParent struct {
	seq               ids.Seq
	via               []ids.Seq
	sameRel, sameType bool
}

// relating finds what an event relates to, from its content. It is nil for an
// event that relates to nothing in the room, which is then no relation.
func (r *Reader) relating(ctx context.Context, room ids.RoomID, sender ids.UserID, eventType string, content []byte) (*relating, error) {
	rel, ok := event.RelationOf(content)
	if !ok {
		return nil, nil
	}
	e, err := r.Event(ctx, room, rel.Parent)
	if err != nil || e == nil {
		return nil, err
	}
	x := &relating{rel: rel, kind: kindOf(rel.Type), sender: sender, typ: eventType, parent: e.Seq}
	via, sameRel, sameType := []ids.Seq{e.Seq}, true, true
	for len(x.above) < RelationDepth-1 {
		up, ok := event.RelationOf(e.Content)
		if !ok {
			break
		}
		sameRel, sameType = sameRel && up.Type == rel.Type, sameType && e.Type == eventType
		if e, err = r.Event(ctx, room, up.Parent); err != nil {
			return nil, err
		}
		if e == nil {
			break
		}
		x.above = append(x.above, aboveParent{e.Seq, via, sameRel, sameType})
		via = append(via[:len(via):len(via)], e.Seq)
	}
	return x, nil
}

// pin pins what making or ending the relation looks at.
func (x *relating) pin(ctx context.Context, p *partition.Prep, pl Place) error {
	if x == nil {
		return nil
	}
	keys := []storage.Key{pl.timeline(x.parent), pl.relationCount(x.parent)}
	switch x.kind {
	case relAnnotation:
		keys = append(keys, x.annotation(pl))
	case relThread:
		keys = append(keys, pl.threadMember(x.parent, x.sender))
	}
	return p.Pin(ctx, keys...)
}

func (x *relating) annotation(p Place) storage.Key {
	return p.annotation(x.parent, x.sender, x.typ, x.rel.Key)
}

// admit says whether the event may be sent, and which thread it will be in: the
// root, "" for the main timeline.
func (x *relating) admit(v view) (thread ids.EventID, err error) {
	if x == nil || roomstate.Membership(v, x.sender) != event.Join {
		return "", nil // who is not in the room is refused for that
	}
	parent, err := v.event(x.parent)
	if err != nil {
		return "", err
	}
	switch x.kind {
	case relAnnotation:
		// spec: client-server §Avoiding duplicate annotations.
		if v.tx.Get(x.annotation(v.p)).Value != nil {
			return "", merr.New(http.StatusBadRequest, merr.DuplicateAnnotation, "You have sent this annotation already")
		}
	case relThread:
		// spec: client-server §Validation of m.thread relationships. The code is the
		// one that it wants.
		if _, child := event.RelationOf(parent.Content); child {
			return "", merr.New(http.StatusBadRequest, merr.Unknown, "A thread cannot begin at an event that relates to another")
		}
		return parent.ID, nil
	}
	return parent.Thread, nil
}

// count returns the counts of the parent as the batch has left them, to change.
func (x *relating) count(v view) relCount {
	if c, _ := v.tx.Get(v.p.relationCount(x.parent)).Obj.(*relCount); c != nil {
		return *c
	}
	return relCount{}
}

func (x *relating) putCount(v view, c relCount) {
	v.tx.Put(v.p.relationCount(x.parent), c.encode(), &c)
}

// addReplies changes how many replies of the thread are the sender's.
func (x *relating) addReplies(v view, n int) {
	k := v.p.threadMember(x.parent, x.sender)
	n += threadReplies(v.tx.Get(k).Value)
	if n <= 0 {
		v.tx.Delete(k)
		return
	}
	v.tx.Put(k, binary.AppendUvarint(nil, uint64(n)), nil)
}

// threadReplies reads a ThreadMember row.
func threadReplies(row []byte) int {
	n, _ := binary.Uvarint(row)
	return int(n)
}

// write writes the rows of the relation of an event that was appended.
func (x *relating) write(v view, s *Stored) error {
	if x == nil {
		return nil
	}
	parent, err := v.event(x.parent)
	if err != nil {
		return err
	}
	row := Related{ID: s.ID, Sender: s.Sender, Type: s.Type, RelType: x.rel.Type, TS: s.OriginServerTS, Valid: x.replaces(parent, s)}
	v.tx.PutNew(v.p.relation(x.parent, x.kind, s.Seq), row.encode())
	for _, a := range x.above {
		row.via, row.sameRel, row.sameType = a.via, a.sameRel, a.sameType
		v.tx.PutNew(v.p.relation(a.seq, relIndirect, s.Seq), row.encode())
	}
	c := x.count(v)
	c.n[x.kind]++
	switch x.kind {
	case relAnnotation:
		v.tx.Put(x.annotation(v.p), []byte(tables.SeqSort(s.Seq)), nil)
	case relThread:
		x.moveThread(v, &c, s.Seq)
		x.addReplies(v, 1)
	}
	x.putCount(v, c)
	if s.Thread != "" {
		root, _ := appendHash(nil, s.Thread)
		v.tx.PutNew(v.p.key(tables.ThreadEvent, tables.SeqSort(s.Seq)), root)
	}
	return nil
}

// moveThread gives a thread its place by its latest reply, 0 for none.
func (x *relating) moveThread(v view, c *relCount, latest ids.Seq) {
	if c.latest != 0 {
		v.tx.Delete(v.p.key(tables.ThreadLog, tables.SeqSort(c.latest)))
	}
	if c.latest = latest; latest != 0 {
		v.tx.Put(v.p.key(tables.ThreadLog, tables.SeqSort(latest)), []byte(tables.SeqSort(x.parent)), nil)
	}
}

// replaces reports whether an event is a valid replacement of its parent. What is
// encrypted has its m.new_content inside. spec: client-server §Validity of
// replacement events.
func (x *relating) replaces(parent, s *Stored) bool {
	if x.kind != relReplace || parent.StateKey != nil || s.StateKey != nil || parent.Sender != s.Sender || parent.Type != s.Type {
		return false
	}
	if up, ok := event.RelationOf(parent.Content); ok && up.Type == event.RelReplace {
		return false
	}
	_, has := event.Field(s.Content, "m.new_content")
	return has || s.Type == event.TypeEncrypted
}

// end takes away the rows of the relation of an event that is redacted. before is
// the reply that is the thread's latest if the event was that.
func (x *relating) end(v view, s *Stored, before ids.Seq) error {
	if x == nil {
		return nil
	}
	v.tx.Delete(v.p.relation(x.parent, x.kind, s.Seq))
	for _, a := range x.above {
		v.tx.Delete(v.p.relation(a.seq, relIndirect, s.Seq))
	}
	if s.Thread != "" {
		v.tx.Delete(v.p.key(tables.ThreadEvent, tables.SeqSort(s.Seq)))
	}
	c := x.count(v)
	c.n[x.kind] = max(c.n[x.kind]-1, 0)
	switch x.kind {
	case relAnnotation:
		v.tx.Delete(x.annotation(v.p))
	case relThread:
		if c.latest == s.Seq {
			if err := x.mayLead(v, c, before); err != nil {
				return err
			}
			x.moveThread(v, &c, before)
		}
		x.addReplies(v, -1)
	}
	x.putCount(v, c)
	return nil
}

// mayLead is partition.ErrRetry if the thread's latest reply is not the one that
// Prepare took for it.
func (x *relating) mayLead(v view, c relCount, before ids.Seq) error {
	if before == 0 {
		if c.n[relThread] > 0 {
			return partition.ErrRetry
		}
		return nil
	}
	s, err := v.event(before)
	if err == nil && s.RedactedBy != nil {
		err = partition.ErrRetry
	}
	return err
}
