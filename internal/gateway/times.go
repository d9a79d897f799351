package gateway

import "time"

// times holds every duration of the transport. Only tests use other values than
// defaultTimes.
type times struct {
	// hello is how long a client may take to say hello.
	hello time.Duration
	// signIn is how long a socket may stay without a user: long enough to
	// register with an e-mail confirmation, short enough to reclaim strays.
	signIn time.Duration
	// message is how long a message may take from its first byte to its last: at
	// the size limit this allows 2 KB/s.
	message time.Duration
	// write is how long a socket may accept no byte.
	write time.Duration
	// heartbeat: a ping is sent after so long without a sign of one side.
	heartbeat time.Duration
	// recheck is the wheel's round: each session's token is looked at again, so
	// that a lost revocation hint costs less than the promised 5 s.
	recheck time.Duration
	// park is after how long a silence a session waits in the poller, whose each
	// wait is a system call: longer than the pauses of someone who writes, shorter
	// than those between pings.
	park time.Duration
	// callGrace is how long a close by the server waits for open calls, so that
	// the answer to the call that caused it (a logout) still goes out.
	callGrace time.Duration
	// closing is how long to wait for a close frame to be written, and then for
	// the peer's.
	closing time.Duration
	// flushMin and flushMax bound the flush interval, see shard.
	flushMin, flushMax time.Duration
}

func defaultTimes() times {
	return times{
		hello:     10 * time.Second,
		signIn:    5 * time.Minute,
		message:   time.Minute,
		write:     30 * time.Second,
		heartbeat: 30 * time.Second,
		recheck:   4 * time.Second,
		park:      10 * time.Second,
		callGrace: time.Second,
		closing:   2 * time.Second,
		flushMin:  4 * time.Millisecond,
		flushMax:  20 * time.Millisecond,
	}
}

func (t times) withDefaults() times {
	d := defaultTimes()
	for _, f := range []struct{ v, def *time.Duration }{
		{&t.hello, &d.hello},
		{&t.signIn, &d.signIn},
		{&t.message, &d.message},
		{&t.write, &d.write},
		{&t.heartbeat, &d.heartbeat},
		{&t.recheck, &d.recheck},
		{&t.park, &d.park},
		{&t.callGrace, &d.callGrace},
		{&t.closing, &d.closing},
		{&t.flushMin, &d.flushMin},
		{&t.flushMax, &d.flushMax},
	} {
		if *f.v == 0 {
			*f.v = *f.def
		}
	}
	return t
}
