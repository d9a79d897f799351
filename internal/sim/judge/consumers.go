package judge

import "slices"

// Record is one of a log: what it is about.
type Record struct {
	Seq    uint64
	Kind   int
	Entity string
}

// Step is what a consumer did in a partition: it was handed records, or its cursor was
// written.
type Step struct {
	Partition int
	// Node is whose consumer it is.
	Node string
	// Records were handed to it, and Done: it has done what was to be done about them.
	Records []Record
	Done    bool
	// Cursor is what was written, if there are no records.
	Cursor uint64
}

// consumers is C12.
func (j *judge) consumers() {
	done, saved := map[int]uint64{}, map[int]uint64{}
	for i := range j.Steps {
		s := &j.Steps[i]
		if len(s.Records) > 0 {
			j.handed(s, done)
			continue
		}
		switch {
		case s.Cursor > done[s.Partition]:
			j.breach("C12 the cursor of partition %d moved to %d, and only %d is handled", s.Partition, s.Cursor, done[s.Partition])
		case s.Cursor < saved[s.Partition]:
			j.breach("C12 the cursor of partition %d went back from %d to %d", s.Partition, saved[s.Partition], s.Cursor)
		}
		saved[s.Partition] = max(saved[s.Partition], s.Cursor)
	}
	for p, log := range j.Logs {
		if n := len(log); n > 0 && done[p] < log[n-1].Seq {
			j.breach("C12 partition %d is handled up to %d, and goes up to %d", p, done[p], log[n-1].Seq)
		}
	}
}

// handed takes records that were handed out.
func (j *judge) handed(s *Step, done map[int]uint64) {
	first, last := s.Records[0].Seq, s.Records[len(s.Records)-1].Seq
	if first > done[s.Partition]+1 {
		j.breach("C12 %s was handed %d of partition %d, and %d is the last that was handled", s.Node, first, s.Partition, done[s.Partition])
	}
	for i, r := range s.Records {
		log := j.Logs[s.Partition]
		if i > 0 && r.Seq != s.Records[i-1].Seq+1 {
			j.breach("C12 %s was handed %d of partition %d after %d", s.Node, r.Seq, s.Partition, s.Records[i-1].Seq)
		}
		if at := int(r.Seq) - 1; at < 0 || at >= len(log) || log[at] != r {
			j.breach("C12 %s was handed %v of partition %d, which is not in the log", s.Node, r, s.Partition)
		}
	}
	if s.Done {
		done[s.Partition] = max(done[s.Partition], last)
	}
}

// Rekey is a change of a user's identity keys that was acknowledged.
type Rekey struct {
	User           string
	Invoke, Return int64
}

// deviceLists is C13. At the end all users are in all rooms.
func (j *judge) deviceLists() {
	for n, s := range j.History.Streams {
		told, gone := map[string]int64{}, map[string]bool{}
		var whole int64 // when a client last learned all by asking for everything
		for _, r := range j.Responses {
			if r.Stream != n || r.Lost {
				continue
			}
			if r.Initial {
				whole = r.Return
			}
			for _, u := range r.Changed {
				told[u], gone[u] = r.Return, false
			}
			for _, u := range r.Left {
				gone[u] = true
			}
		}
		for _, k := range j.Rekeys {
			if k.User != s.User && max(told[k.User], whole) < k.Invoke {
				j.breach("C13 %s %s was not told of the keys of %s that changed at %d", s.User, s.Device, k.User, k.Return)
			}
		}
		for u, is := range gone {
			if is {
				j.breach("C13 %s %s was told that it shares no room with %s, and does", s.User, s.Device, u)
			}
		}
	}
}

// Leap is a time in which the clock of the store had gone ahead by more than the part of a
// lease that nodes do not rely on.
type Leap struct{ At, Until int64 }

// leapt reports whether a sync was answered in such a time: a node may not know yet that
// others have its partitions, and where their logs end.
func (j *judge) leapt(r Response) bool {
	return slices.ContainsFunc(j.Leaps, func(l Leap) bool { return r.Invoke < l.Until && r.Return > l.At })
}
