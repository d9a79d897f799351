// Package judge decides whether a simulated deployment kept its promises. It is
// given what clients saw and what the store noted, as plain data, and knows nothing
// of how the server works: of the module it imports package history alone, which
// judges what is in rooms.
//
// Beside the checks C1 to C7 of package history it has:
//
//	C8   to-device messages: none that was acknowledged is missing, none comes
//	     again after the device's next token, none is there twice, one sender's
//	     come in order
//	C9   one-time keys: none is handed out twice, each was uploaded, the oldest
//	     first, and the count is what is left
//	C10  read your writes: what was answered is in the user's next sync
//	C11  one writer: each commit is by the node that was given the partition last
//	C12  consumers: each record of each log is handed out, in order and as it is in the
//	     log, and a cursor never passes what was not handled, nor goes back
//	C13  device lists: whose keys changed is in a later sync of all who share a room with
//	     them at the end, and nobody of these is the last time told of as gone
package judge

import (
	"fmt"
	"slices"

	"github.com/hubbub-chat/hubbub/test/history"
)

// Write is a lease that was given, or a commit, in the order in which the store
// took them.
type Write struct {
	Partition int
	Node      string
	Epoch     uint64
	Grant     bool
}

// Response is a sync response. Its rooms are in the history's streams.
type Response struct {
	User, Device string
	// Invoke is when it was asked for, Return when it came.
	Invoke, Return int64
	// Lost: the client never had it, and asked again from where it was.
	Lost bool
	// Messages are the marks of the to-device messages in it.
	Messages []string
	// Stream and Parts say which stream it is of, and up to which part of it the
	// client knows after it.
	Stream, Parts int
	// Keys is the count of one-time keys in it, -1 if it says nothing.
	Keys int
	// Initial: it was asked for without a position.
	Initial bool
	// Changed and Left are its device lists.
	Changed, Left []string
}

// Message is a to-device message that was sent.
type Message struct {
	Mark           string
	Sender         string // user and device
	To             [2]string
	Outcome        history.Outcome
	Invoke, Return int64
}

// Key is a one-time key that was uploaded.
type Key struct {
	ID           string
	User, Device string
	Outcome      history.Outcome
	// N counts the keys of a device in the order in which they are to be used.
	N int
}

// Claim is a claim of one key.
type Claim struct {
	User, Device   string // whose key
	Outcome        history.Outcome
	Invoke, Return int64
	// Key is what was handed out, "" if there was none.
	Key string
}

// Case is all that is judged.
type Case struct {
	History   *history.History
	Ledger    []Write
	Responses []Response
	Messages  []Message
	Keys      []Key
	Claims    []Claim
	Rekeys    []Rekey
	Leaps     []Leap
	Steps     []Step
	// Logs are the logs at the end, by partition.
	Logs map[int][]Record
}

// Check returns what broke the promises, each with the letter of its check.
func Check(c *Case) []string {
	j := &judge{Case: c}
	j.breaches = history.Check(c.History)
	j.messages()
	j.keys()
	j.readYourWrites()
	j.writers()
	j.consumers()
	j.deviceLists()
	slices.Sort(j.breaches)
	return j.breaches
}

type judge struct {
	*Case
	breaches []string
}

func (j *judge) breach(format string, args ...any) {
	j.breaches = append(j.breaches, fmt.Sprintf(format, args...))
}

// messages is C8.
func (j *judge) messages() {
	sent := map[string]*Message{}
	for i := range j.Messages {
		sent[j.Messages[i].Mark] = &j.Messages[i]
	}
	had := map[string]bool{}
	order := map[[3]string]*Message{} // the last of a sender that a device had
	for _, r := range j.Responses {
		device := [2]string{r.User, r.Device}
		for _, mark := range r.Messages {
			m := sent[mark]
			switch {
			case m == nil || m.To != device:
				j.breach("C8 %v was given %s, which was not sent to it", device, mark)
				continue
			case m.Outcome == history.Fail:
				j.breach("C8 %v was given %s, which was refused", device, mark)
			case had[mark]:
				j.breach("C8 %v was given %s again, at %d", device, mark, r.Return)
			}
			if r.Lost {
				continue
			}
			had[mark] = true
			by := [3]string{device[0], device[1], m.Sender}
			if last := order[by]; last != nil && m.Outcome == history.OK && m.Return < last.Invoke {
				j.breach("C8 %v was given %s after %s, which was sent later", device, mark, last.Mark)
			}
			order[by] = m
		}
	}
	for _, m := range j.Messages {
		if m.Outcome == history.OK && !had[m.Mark] {
			j.breach("C8 %s from %s to %v was acknowledged at %d and never came", m.Mark, m.Sender, m.To, m.Return)
		}
	}
}

// keys is C9.
func (j *judge) keys() {
	type device struct{ user, name string }
	known := map[string]*Key{}
	least, most := map[device]int{}, map[device]int{} // how many are left
	for i := range j.Keys {
		k := &j.Keys[i]
		known[k.ID] = k
		d := device{k.User, k.Device}
		switch k.Outcome {
		case history.OK:
			least[d]++
			most[d]++
		case history.Unknown:
			most[d]++
		}
	}
	taken := map[string]bool{}
	for i, c := range j.Claims {
		d := device{c.User, c.Device}
		if c.Outcome == history.Unknown {
			least[d]-- // lost, maybe
		}
		if c.Outcome != history.OK || c.Key == "" {
			continue
		}
		least[d]--
		most[d]--
		k := known[c.Key]
		switch {
		case k == nil || k.User != c.User || k.Device != c.Device:
			j.breach("C9 a claim was given %s, which is no key of %v", c.Key, d)
			continue
		case taken[c.Key]:
			j.breach("C9 %s was handed out twice", c.Key)
		}
		taken[c.Key] = true
		for _, later := range j.Claims[i+1:] {
			o := known[later.Key]
			if o != nil && o.User == k.User && o.Device == k.Device && later.Outcome == history.OK && later.Invoke > c.Return && o.N < k.N {
				j.breach("C9 %s was handed out before %s, which is older", k.ID, o.ID)
			}
		}
	}
	last := map[device]Response{}
	for _, r := range j.Responses {
		if !r.Lost && r.Keys >= 0 {
			last[device{r.User, r.Device}] = r
		}
	}
	for d, r := range last {
		if most[d] > 0 && (r.Keys < least[d] || r.Keys > most[d]) {
			j.breach("C9 %v was told that it has %d keys, and has %d to %d", d, r.Keys, least[d], most[d])
		}
	}
}

// readYourWrites is C10.
func (j *judge) readYourWrites() {
	pos := map[string]map[string]int{} // by room and event
	for id, room := range j.History.Final.Rooms {
		if len(room.Walks) == 0 {
			continue
		}
		pos[id] = map[string]int{}
		for i, e := range room.Walks[0].Events {
			pos[id][e.ID] = i
		}
	}
	for n, s := range j.History.Streams {
		var of []Response
		for _, r := range j.Responses {
			if r.Stream == n && !r.Lost {
				of = append(of, r)
			}
		}
		for _, op := range j.History.Ops {
			at, ok := pos[op.Room][op.EventID]
			if !ok || op.User != s.User || op.Outcome != history.OK || op.Kind == history.Leave {
				continue
			}
			i := slices.IndexFunc(of, func(r Response) bool { return r.Invoke > op.Return })
			if i < 0 || j.leapt(of[i]) || j.mayHaveLeft(op, of[i].Return) || !j.knownIn(op, at, of[i].Invoke) {
				continue
			}
			if seen := standing(s, pos[op.Room], op.Room, of[i].Parts); seen < at {
				j.breach("C10 %v was answered at %d and stands at %d; %s %s asked at %d and had up to %d of %s",
					op, op.Return, at, s.User, s.Device, of[i].Invoke, seen, op.Room)
			}
		}
	}
}

// standing is the last event that a stream had of a room within its first parts.
func standing(s *history.Stream, pos map[string]int, room string, parts int) int {
	at := -1
	for i := range s.Parts[:parts] {
		if p := &s.Parts[i]; p.Room == room && len(p.Events) > 0 {
			at = max(at, pos[p.Events[len(p.Events)-1].ID])
		}
	}
	return at
}

// mayHaveLeft: a user who has left the room is not told of all that was there.
func (j *judge) mayHaveLeft(op *history.Op, by int64) bool {
	return slices.ContainsFunc(j.History.Ops, func(o *history.Op) bool {
		return o.Kind == history.Leave && o.User == op.User && o.Room == op.Room && o.Outcome != history.Fail &&
			o.Invoke < by && (o.Outcome == history.Unknown || o.Return > op.Invoke)
	})
}

// knownIn reports whether the join that lets a user write at a position was answered
// before a time, to them or to who made the room. One without an answer may stand in
// the room already, and not yet in the list of the user's rooms.
func (j *judge) knownIn(op *history.Op, at int, by int64) bool {
	events := j.History.Final.Rooms[op.Room].Walks[0].Events
	for i := at; i >= 0; i-- {
		e := &events[i]
		if e.Type != "m.room.member" || e.StateKey == nil || *e.StateKey != op.User {
			continue
		}
		return slices.ContainsFunc(j.History.Ops, func(o *history.Op) bool {
			made := o.Kind == history.Create && o.Room == op.Room && e.Mark == ""
			return (made || o.Mark == e.Mark) && o.Outcome == history.OK && o.Return < by
		})
	}
	return false
}

// writers is C11.
func (j *judge) writers() {
	given := map[int]Write{}
	for i, w := range j.Ledger {
		last := given[w.Partition]
		switch {
		case w.Grant && w.Epoch < last.Epoch, w.Grant && w.Epoch == last.Epoch && w.Node != last.Node:
			j.breach("C11 partition %d was given to %s with epoch %d, and before to %s with %d (%d)", w.Partition, w.Node, w.Epoch, last.Node, last.Epoch, i)
		case w.Grant:
			given[w.Partition] = w
		case w.Epoch != last.Epoch || w.Node != last.Node:
			j.breach("C11 %s wrote to partition %d with epoch %d, which is %s's with epoch %d (%d)", w.Node, w.Partition, w.Epoch, last.Node, last.Epoch, i)
		}
	}
}
