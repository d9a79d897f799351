// Package history keeps what clients of a server saw while it was harmed again
// and again, and decides afterwards whether its promises held.
//
// A History is only what went over the wire: each operation with the time
// before it was asked and after it was answered, each sync stream, and, at the
// end, everything every reader can read. Check knows nothing of the server's
// code. It judges:
//
//	C1  what was acknowledged is there
//	C2  what is there was asked for
//	C3  nothing is there twice, and a repeated request got the same answer
//	C4  all readers see one order, and the same bytes
//	C5  each sync stream is a stretch of that order: no gap, no repetition
//	C6  what was answered before another was asked stands before it
//	C7  the state is the fold of the events; account data, receipts, profiles,
//	    rooms and tokens are those that were acknowledged
//
// Histories are plain data and may be used by one goroutine at a time; a
// Recorder gathers one from many.
package history

import (
	"fmt"
	"sync"
	"time"
)

// Kind is the kind of an operation.
type Kind string

// The operations.
const (
	Send     Kind = "send"
	State    Kind = "state"
	Redact   Kind = "redact"
	Join     Kind = "join"
	Leave    Kind = "leave"
	Kick     Kind = "kick"
	Invite   Kind = "invite"
	Create   Kind = "create"
	Data     Kind = "data" // account data, tags, profile: a value that one client writes
	Receipt  Kind = "receipt"
	Register Kind = "register"
	Login    Kind = "login"
	Logout   Kind = "logout"
)

// Outcome is what a client knows of an operation.
type Outcome string

// The outcomes.
const (
	OK      Outcome = "ok"
	Fail    Outcome = "fail"    // refused: it must have had no effect
	Unknown Outcome = "unknown" // no answer: it may have happened, once
)

// Op is one operation, with all its attempts.
type Op struct {
	ID     int
	Kind   Kind
	User   string
	Device string
	Room   string
	// Type and Key are those of the event, or of the data.
	Type, Key string
	// Target is the event to redact or to have read up to, the user to kick.
	Target string
	Txn    string
	// Mark stands in what the operation writes and nowhere else.
	Mark string
	// N counts the values of one piece of data.
	N int
	// Invoke and Return are in ns since the run began: the first attempt and the
	// first definite answer, 0 if there was none.
	Invoke, Return int64
	Outcome        Outcome
	Status         int
	// EventID is what was answered, Answers all answers to all attempts.
	EventID string
	Answers []string
	Token   string
}

// Event is an event as a reader was given it.
type Event struct {
	ID, Type, Sender string
	StateKey         *string
	// Mark is the mark in its content, Name the display name there.
	Mark, Name string
	Membership string
	Redacts    string
	// Redacted: the content was taken away.
	Redacted bool
	// Body is the JSON without unsigned.
	Body string
}

// Part is what one sync response or frame says of one room.
type Part struct {
	At   int64 // ns since the run began
	Room string
	// Section is join, leave or invite.
	Section string
	Limited bool
	// Fill is what /messages gave for the gap before Events, oldest first.
	Fill, Events, State []Event
	// Data are the counted values of account data, by type.
	Data map[string]int
	// Unread are the unread counts, nil if they were not told.
	Unread *Unread
}

// Unread are a user's unread counts in a room.
type Unread struct {
	Notifications int `json:"notification_count"`
	Highlights    int `json:"highlight_count"`
}

// Stream is what one device was told by sync, across reconnects.
type Stream struct {
	User, Device, Transport string
	Parts                   []Part
	// Ended: it was given the time to catch up with the end.
	Ended bool
}

// Walk is a room's timeline as one reader pages through it, oldest first.
type Walk struct {
	Reader, Dir string
	Events      []Event
}

// Room is what can be read of a room at the end.
type Room struct {
	Walks []Walk
	// States are /state by reader.
	States map[string][]Event
	// Receipts are the events that users have read up to.
	Receipts map[string]string
	// Unread is what a first sync of each user says.
	Unread map[string]Unread
}

// Token is an access token and whether it works at the end.
type Token struct {
	Op    int
	Works bool
}

// Final is what can be read at the end.
type Final struct {
	Rooms map[string]*Room
	// Data are the counted values, by Op.Key.
	Data   map[string]int
	Tokens []Token
}

// History is everything that was seen.
type History struct {
	Seed    uint64
	Kills   int
	Ops     []*Op
	Streams []*Stream
	Final   Final
	// Noted are breaches that were plain when they were met.
	Noted []string
}

// Recorder gathers a History. Its methods are safe for concurrent use.
type Recorder struct {
	begin time.Time

	mu struct {
		sync.Mutex
		h History
	}
}

// NewRecorder begins a history.
func NewRecorder(seed uint64) *Recorder {
	r := &Recorder{begin: time.Now()}
	r.mu.h.Seed = seed
	return r
}

// Now is the time of the history in ns.
func (r *Recorder) Now() int64 { return int64(time.Since(r.begin)) }

// Begin notes that an operation is about to be asked for. The caller alone
// changes it until End.
func (r *Recorder) Begin(op Op) *Op {
	o := &op
	o.Outcome = Unknown
	r.mu.Lock()
	defer r.mu.Unlock()
	o.ID = len(r.mu.h.Ops)
	if o.Mark == "" {
		o.Mark = fmt.Sprintf("m%d", o.ID)
	}
	r.mu.h.Ops = append(r.mu.h.Ops, o)
	o.Invoke = r.Now()
	return o
}

// Stream adds a stream; the caller alone fills it.
func (r *Recorder) Stream(s *Stream) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mu.h.Streams = append(r.mu.h.Streams, s)
}

// Note adds a breach that is plain.
func (r *Recorder) Note(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mu.h.Noted = append(r.mu.h.Noted, fmt.Sprintf(format, args...))
}

// Killed counts a kill.
func (r *Recorder) Killed() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mu.h.Kills++
}

// History ends the recording. Nothing records any more when it is called.
func (r *Recorder) History() *History {
	r.mu.Lock()
	defer r.mu.Unlock()
	return &r.mu.h
}
