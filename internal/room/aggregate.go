package room

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"

	"github.com/hubbub-chat/hubbub/internal/event"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/storage"
)

const (
	// maxEdits is among how many of the last replacements of an event the most
	// recent one is looked for: by their times, which may not rise with their
	// positions, but nearly do.
	maxEdits = 100
	// maxReferences bounds the references that an aggregation lists: the newest. A
	// poll may have as many as the room has members; /relations has all.
	maxReferences = 100
	// maxLatest is among how many of a thread's last replies one is looked for that
	// the user may see.
	maxLatest = 100
	// maxIgnored is for how many ignored users their replies are taken from the
	// number of all in a thread.
	maxIgnored = 50
	// maxCounted bounds the replies that are counted one by one, where not all
	// count.
	maxCounted = 1000
)

// Onlooker is who is shown events together with what relates to them.
type Onlooker struct {
	User   ids.UserID
	Device ids.DeviceID
	// RoomID: events are written with their room_id.
	RoomID bool
	// Access says what may be seen; nil for a member who may see all up to UpTo.
	Access *Access
	// UpTo is the position behind which nothing is shown.
	UpTo ids.Seq
	// Ignored are the users whose events do not count.
	Ignored map[ids.UserID]struct{}
}

func (o *Onlooker) sees(s ids.Seq) bool {
	return s <= o.UpTo && (o.Access == nil || o.Access.visibleAt(s))
}

func (o *Onlooker) ignores(u ids.UserID) bool {
	_, yes := o.Ignored[u]
	return yes
}

// Viewer returns the onlooker as the reader of an event that is no state.
func (o *Onlooker) Viewer(s *Stored) Viewer {
	v := Viewer{User: o.User, Device: o.Device, RoomID: o.RoomID, Membership: event.Join}
	if o.Access != nil {
		v.Erasures = o.Access.Erasures
		if v.Membership = o.Access.MembershipAt(s.Seq); v.Membership == event.NoMembership {
			v.Membership = event.Leave
		}
	}
	return v
}

// Aggregations are the bundled aggregations of events, by position: the JSON of
// unsigned.m.relations. spec: client-server §Aggregations of child events.
type Aggregations map[ids.Seq][]byte

// bundle is what one event's aggregation is made of.
type bundle struct {
	of    *Stored
	count *relCount
	edit  ids.Seq // 0 for none
	refs  []ids.EventID
	// thread: latest is 0 if there is none to show.
	latest       ids.Seq
	replies      int
	participated bool
}

// Aggregate returns the aggregations of some events. State has none, though
// events may relate to it. The cost is bounded for each event, however many
// relate to it.
func (r *Reader) Aggregate(ctx context.Context, room ids.RoomID, o *Onlooker, events []*Stored) (Aggregations, error) {
	if o.Access != nil { // what came after a stay is not counted either
		own := *o
		own.UpTo = o.Access.LastVisible(min(o.UpTo, o.Access.Head.Last))
		o = &own
	}
	return r.aggregate(ctx, room, o, events, true)
}

// aggregate does the work of Aggregate. What is shown inside of an aggregation has
// no thread of its own, which the specification rules out anyway.
func (r *Reader) aggregate(ctx context.Context, room ids.RoomID, o *Onlooker, events []*Stored, threads bool) (Aggregations, error) {
	bundles, err := r.bundles(ctx, room, events)
	if err != nil || len(bundles) == 0 {
		return nil, err
	}
	for _, b := range bundles {
		if err := r.gather(ctx, room, o, b, threads); err != nil {
			return nil, err
		}
	}
	if err := r.threadMembers(ctx, room, o, bundles); err != nil {
		return nil, err
	}
	return r.encodeBundles(ctx, room, o, bundles)
}

// bundles finds the events to which something relates that is aggregated.
func (r *Reader) bundles(ctx context.Context, room ids.RoomID, events []*Stored) ([]*bundle, error) {
	var of []*Stored
	var at []ids.Seq
	for _, s := range events {
		if s.StateKey == nil {
			of, at = append(of, s), append(at, s.Seq)
		}
	}
	if len(of) == 0 {
		return nil, nil
	}
	counts, err := r.relCounts(ctx, room, at...)
	if err != nil {
		return nil, err
	}
	var out []*bundle
	for i, c := range counts {
		if c != nil && c.n[relReplace]+c.n[relReference]+c.n[relThread] > 0 {
			out = append(out, &bundle{of: of[i], count: c})
		}
	}
	return out, nil
}

// gather reads the index for one event.
func (r *Reader) gather(ctx context.Context, room ids.RoomID, o *Onlooker, b *bundle, threads bool) error {
	// spec: client-server §Server-side aggregation of m.replace relationships: a
	// redacted event has no replacement.
	if b.count.n[relReplace] > 0 && b.of.RedactedBy == nil {
		list, err := r.newest(ctx, room, o, b, event.RelReplace, maxEdits)
		if err != nil {
			return err
		}
		b.edit = latestEdit(o, list)
	}
	if b.count.n[relReference] > 0 {
		list, err := r.newest(ctx, room, o, b, event.RelReference, maxReferences)
		if err != nil {
			return err
		}
		for i := len(list) - 1; i >= 0; i-- {
			if x := list[i]; o.sees(x.Seq) && !o.ignores(x.Sender) {
				b.refs = append(b.refs, x.ID)
			}
		}
	}
	if !threads || b.count.n[relThread] == 0 {
		return nil
	}
	return r.gatherThread(ctx, room, o, b)
}

func (r *Reader) newest(ctx context.Context, room ids.RoomID, o *Onlooker, b *bundle, relType string, limit int) ([]*Related, error) {
	list, _, err := r.Related(ctx, room, RelatedQuery{
		Parent: b.of.Seq, RelType: relType, After: b.of.Seq, UpTo: o.UpTo, Limit: limit, Newest: true,
	})
	return list, err
}

// CompareEdits orders the edits of an event: the last of them is what is shown.
// spec: client-server §Applying m.new_content.
func CompareEdits(a, b *Related) int { return cmp.Or(cmp.Compare(a.TS, b.TS), cmp.Compare(a.ID, b.ID)) }

// latestEdit returns the most recent of the valid replacements, 0 if there is none.
func latestEdit(o *Onlooker, list []*Related) ids.Seq {
	var best *Related
	for _, x := range list {
		if !x.Valid || !o.sees(x.Seq) {
			continue
		}
		if best == nil || CompareEdits(x, best) > 0 {
			best = x
		}
	}
	if best == nil {
		return 0
	}
	return best.Seq
}

func (r *Reader) gatherThread(ctx context.Context, room ids.RoomID, o *Onlooker, b *bundle) error {
	limit := 1
	if o.Access != nil || len(o.Ignored) > 0 {
		limit = maxLatest
	}
	b.replies = b.count.n[relThread]
	if b.count.latest > o.UpTo { // some of them are not for this onlooker
		limit = maxCounted
	}
	list, err := r.newest(ctx, room, o, b, event.RelThread, limit)
	if err != nil {
		return err
	}
	if b.count.latest > o.UpTo {
		b.replies = len(list)
	}
	for _, x := range list {
		if o.sees(x.Seq) && !o.ignores(x.Sender) {
			b.latest = x.Seq
			break
		}
	}
	return nil
}

// threadMembers reads who takes part in the threads.
func (r *Reader) threadMembers(ctx context.Context, room ids.RoomID, o *Onlooker, bundles []*bundle) error {
	users := []ids.UserID{o.User}
	for u := range o.Ignored {
		if len(users) > maxIgnored {
			break
		}
		users = append(users, u)
	}
	p := r.Place(room)
	var keys []storage.Key
	var of []*bundle
	for _, b := range bundles {
		if b.latest == 0 {
			continue
		}
		of = append(of, b)
		for _, u := range users {
			keys = append(keys, p.threadMember(b.of.Seq, u))
		}
	}
	if len(of) == 0 {
		return nil
	}
	rows, err := r.st.Get(ctx, keys...)
	if err != nil {
		return fmt.Errorf("read members of threads: %w", err)
	}
	for i, b := range of {
		mine := rows[i*len(users) : (i+1)*len(users)]
		b.participated = b.of.Sender == o.User || mine[0] != nil
		for _, row := range mine[1:] {
			b.replies -= threadReplies(row)
		}
		b.replies = max(b.replies, 1) // there is one to show
	}
	return nil
}

// encodeBundles reads the events that the aggregations show and writes these.
func (r *Reader) encodeBundles(ctx context.Context, room ids.RoomID, o *Onlooker, bundles []*bundle) (Aggregations, error) {
	var at, latest []ids.Seq
	for _, b := range bundles {
		if b.edit != 0 {
			at = append(at, b.edit)
		}
		if b.latest != 0 {
			latest = append(latest, b.latest)
		}
	}
	list, err := r.AtAll(ctx, room, append(latest, at...)...)
	if err != nil {
		return nil, err
	}
	shown := make(map[ids.Seq]*Stored, len(list))
	var replies []*Stored
	for i, s := range list {
		if s == nil {
			continue
		}
		shown[s.Seq] = s
		if i < len(latest) {
			replies = append(replies, s)
		}
	}
	inner, err := r.aggregate(ctx, room, o, replies, false)
	if err != nil {
		return nil, err
	}
	out := make(Aggregations, len(bundles))
	for _, b := range bundles {
		if j := b.append(nil, o, shown, inner); len(j) > len(`{}`) {
			out[b.of.Seq] = j
		}
	}
	return out, nil
}

// append writes the value of m.relations.
func (b *bundle) append(j []byte, o *Onlooker, shown map[ids.Seq]*Stored, inner Aggregations) []byte {
	j = append(j, '{')
	open := len(j)
	if len(b.refs) > 0 {
		j = append(j, `"m.reference":{"chunk":[`...)
		for i, id := range b.refs {
			if i > 0 {
				j = append(j, ',')
			}
			j = append(event.AppendString(append(j, `{"event_id":`...), id), '}')
		}
		j = append(j, `]}`...)
	}
	if s := shown[b.edit]; s != nil {
		j = append(comma(j, open), `"m.replace":`...)
		j = s.AppendClient(j, o.Viewer(s))
	}
	if s := shown[b.latest]; s != nil {
		j = append(comma(j, open), `"m.thread":{"count":`...)
		j = strconv.AppendInt(j, int64(b.replies), 10)
		j = append(j, `,"current_user_participated":`...)
		j = strconv.AppendBool(j, b.participated)
		v := o.Viewer(s)
		v.Relations = inner[s.Seq]
		j = s.AppendClient(append(j, `,"latest_event":`...), v)
		j = append(j, '}')
	}
	return append(j, '}')
}

// RelatedBy reports which of some events have a child by one of the senders and
// with one of the types of relation; nil stands for any. Of an event with very
// many children, the newest of each kind decide.
func (r *Reader) RelatedBy(ctx context.Context, room ids.RoomID, o *Onlooker, events []*Stored, senders *[]ids.UserID, relTypes *[]string) ([]bool, error) {
	at := make([]ids.Seq, len(events))
	for i, s := range events {
		at[i] = s.Seq
	}
	counts, err := r.relCounts(ctx, room, at...)
	if err != nil {
		return nil, err
	}
	out := make([]bool, len(events))
	for i, c := range counts {
		if c == nil {
			continue
		}
		if out[i], err = r.relatedBy(ctx, room, o, events[i].Seq, senders, relTypes); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (r *Reader) relatedBy(ctx context.Context, room ids.RoomID, o *Onlooker, parent ids.Seq, senders *[]ids.UserID, relTypes *[]string) (bool, error) {
	types := []string{""}
	if relTypes != nil {
		types = *relTypes
	}
	for _, t := range types {
		list, _, err := r.Related(ctx, room, RelatedQuery{
			Parent: parent, RelType: t, After: parent, UpTo: o.UpTo, Limit: maxLatest, Newest: true,
		})
		if err != nil {
			return false, err
		}
		for _, x := range list {
			if o.sees(x.Seq) && !o.ignores(x.Sender) && (senders == nil || slices.Contains(*senders, x.Sender)) {
				return true, nil
			}
		}
	}
	return false, nil
}
