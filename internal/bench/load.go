package bench

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/wsclient"
)

const (
	// socketsPerSender spreads the calls of a sender: the server allows 200 frames
	// a second on a socket.
	socketsPerSender = 4
	// errorPause keeps a sender whose requests fail from failing all the time.
	errorPause = 10 * time.Millisecond
	// dialWorkers open sockets at the same time.
	dialWorkers = 64
	// historyWorkers read histories at the same time.
	historyWorkers = 8
	// drainQuiet is how long nothing must have come before what is missing counts
	// as lost.
	drainQuiet = 5 * time.Second
)

// shape is what a load looks like.
type shape struct {
	rooms, members int // members of each room
	receivers      int // how many of them receive over a socket
	senders        int
	overWS         bool // send over WebSocket calls, not HTTP
	lazy           bool // those who receive are not told of all members first
	size           int  // of a message's content, in bytes
}

// load is one server with users, rooms, senders and receivers.
type load struct {
	shape
	env *env
	// srv is the server, or the first of several nodes.
	srv    *server
	nodes  []*server
	caller *caller
	check  *checker
	now    since
	run    string // distinguishes users and transactions of this run

	rooms   []room
	logs    []*roomLog
	senders []*sender
	sockets []*wsclient.Client
	dialer  wsclient.Dialer
	closing atomic.Bool
	// older: the rooms have messages of a time before the run.
	older bool
	// filter is that of those who receive, nil for none.
	filter jsontext.Value
	// reach is how many of their rooms senders use, 0 for all.
	reach atomic.Int32

	phase   atomic.Int32
	acked   atomic.Int64
	waiting [phases]Histogram // for acknowledgements
	errs    errorCount
}

// newLoad makes users and rooms on a server, connects the receivers and prepares
// the senders. close ends it.
func newLoad(ctx context.Context, e *env, srv *server, s shape) (*load, error) {
	return newClusterLoad(ctx, e, []*server{srv}, s)
}

// newClusterLoad is newLoad for several nodes: the members of each room, and the
// senders, are spread over them.
func newClusterLoad(ctx context.Context, e *env, nodes []*server, s shape) (*load, error) {
	srv := nodes[0]
	l := &load{shape: s, env: e, srv: srv, nodes: nodes, caller: newCaller(srv.url), check: newChecker(), now: sinceStart(), run: e.runName()}
	e.progress("%d users, %d rooms", s.rooms*s.members, s.rooms)
	users, err := l.caller.register(ctx, l.run, s.rooms*s.members)
	if err != nil {
		return l, err
	}
	if l.rooms, err = l.caller.createRooms(ctx, users, s.members); err != nil {
		return l, err
	}
	for _, r := range l.rooms {
		l.logs = append(l.logs, l.check.room(r.id))
	}
	if s.lazy {
		l.filter = jsontext.Value(lazyFilter)
	}
	if err := l.connectReceivers(ctx); err != nil {
		return l, err
	}
	for i := range s.senders {
		if err := l.addSender(ctx, i); err != nil {
			return l, err
		}
	}
	return l, nil
}

func (l *load) connectReceivers(ctx context.Context) error {
	n := l.shape.rooms * l.receivers
	if n == 0 {
		return nil
	}
	l.env.progress("%d receivers", n)
	l.sockets = make([]*wsclient.Client, n)
	err := parallel(ctx, n, dialWorkers, func(ctx context.Context, i int) error {
		at := i % len(l.rooms)
		c, err := l.connect(ctx, l.node(i/len(l.rooms)), l.rooms[at].users[i/len(l.rooms)], l.logs[at])
		l.sockets[i] = c
		return err
	})
	if err != nil {
		return fmt.Errorf("connect receivers: %w", err)
	}
	return nil
}

// node is the address of the node that a member of a room, by its number there, uses.
func (l *load) node(member int) string { return l.nodes[member%len(l.nodes)].url }

// connect opens the socket of a member and waits for its initial response.
func (l *load) connect(ctx context.Context, at string, u user, log *roomLog) (*wsclient.Client, error) {
	m := l.check.member(u.id, log)
	ready := make(chan struct{})
	first := sync.OnceFunc(func() { close(ready) })
	c, err := l.dialer.Dial(ctx, at, wsclient.Options{
		Token: u.token, Sync: true, NoPosition: true, Filter: l.filter,
		OnFrame: func(b []byte) {
			m.take(b, l.now())
			first()
		},
		OnDisconnect: func(err error) {
			if !l.closing.Load() {
				m.gone.Store(true)
				l.errs.add(fmt.Sprintf("receiver disconnected: %v", err))
			}
			first()
		},
	})
	if err != nil {
		return nil, err
	}
	select {
	case <-ready:
		return c, nil
	case <-ctx.Done():
		return c, ctx.Err()
	}
}

// place is where messages go.
type place struct {
	log    *roomLog
	target string // up to the transaction ID
}

// sender sends as one user to one room, or to several in turn.
type sender struct {
	l      *load
	ledger *ledger
	places []place
	next   atomic.Uint32

	http    *httpConn
	sockets []*wsclient.Client
	turn    atomic.Uint32
	// httpTurn is held while http, and what it answered, is used.
	httpTurn sync.Mutex
}

// addSender prepares the sender with a number: senders are spread over rooms
// first, then over the members of each.
func (l *load) addSender(ctx context.Context, n int) error {
	at := n % len(l.rooms)
	r := l.rooms[at]
	member := n / len(l.rooms) % len(r.users)
	u, node := r.users[member], l.node(member)
	s := &sender{l: l, ledger: l.check.ledger()}
	s.add(l.logs[at], l.run+strconv.Itoa(n)+"-")
	l.senders = append(l.senders, s)
	if !l.overWS {
		var err error
		s.http, err = newHTTPConn(node, u.token)
		return err
	}
	for range socketsPerSender {
		c, err := l.dialer.Dial(ctx, node, wsclient.Options{Token: u.token, Reconnect: true, OnDisconnect: func(err error) {
			if !l.closing.Load() {
				l.errs.add(fmt.Sprintf("sender disconnected: %v", err))
			}
		}})
		if err != nil {
			return fmt.Errorf("connect sender: %w", err)
		}
		s.sockets = append(s.sockets, c)
	}
	return nil
}

// add adds a room to those that a sender sends to; txn begins its transaction IDs.
func (s *sender) add(log *roomLog, txn string) {
	s.places = append(s.places, place{log, "/_matrix/client/v3/rooms/" + url.PathEscape(string(log.id)) + "/send/m.room.message/" + txn})
}

// nextPlace returns where the next message goes.
func (s *sender) nextPlace() *place {
	n := len(s.places)
	if reach := int(s.l.reach.Load()); reach > 0 {
		n = min(n, reach)
	}
	return &s.places[int(s.next.Add(1)-1)%n]
}

// send sends one message that was due at a time of the run's clock and reports
// whether it was acknowledged. It may be called from any number of goroutines; over HTTP
// one message is under way at a time.
func (s *sender) send(ctx context.Context, due int64, p phase) bool {
	if s.http != nil {
		s.httpTurn.Lock() // the wait counts as latency
		defer s.httpTurn.Unlock()
	}
	ctx, cancel := context.WithTimeout(ctx, answerPatience)
	defer cancel()
	to := s.nextPlace()
	n := s.ledger.begin(to.log)
	content := marker{sender: s.ledger.sender, number: n, due: due, phase: p}.appendContent(make([]byte, 0, s.l.size+128), s.l.size)
	status, answer, err := s.put(ctx, to.target+strconv.Itoa(n), content)
	switch {
	case err != nil:
		s.l.errs.add("send: " + errorKind(err))
	case status == 200:
		id, _ := nextEventID(answer)
		s.ledger.end(n, outcomeAcked, ids.EventID(id))
		s.l.acked.Add(1)
		if p != phaseWarm {
			s.l.waiting[p].Record(time.Duration(s.l.now() - due))
		}
		return true
	default:
		if status < 500 {
			s.ledger.end(n, outcomeRefused, "")
		}
		s.l.errs.add("send: " + statusText(status, answer))
	}
	return false
}

func (s *sender) put(ctx context.Context, target string, content []byte) (status int, answer []byte, err error) {
	if s.http != nil {
		return s.http.do(ctx, "PUT", target, content)
	}
	r, err := s.sockets[int(s.turn.Add(1))%len(s.sockets)].Call(ctx, "PUT", target, content)
	return r.Status, r.Body, err
}

// drain waits until everything that was acknowledged was delivered, or nothing
// came for a while.
func (l *load) drain(ctx context.Context) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	want := l.acked.Load() * int64(l.receivers)
	last, at := int64(-1), time.Now()
	for {
		got := l.check.delivered() + l.check.skipped()
		if got >= want {
			return nil
		}
		if got != last {
			last, at = got, time.Now()
		}
		if time.Since(at) > drainQuiet {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// finish waits for the last deliveries, reads the rooms' histories, draws the
// balance and puts it into the result.
func (l *load) finish(ctx context.Context, r *Result) error {
	l.env.progress("checking")
	if err := l.drain(ctx); err != nil {
		return err
	}
	l.disconnect()
	var mu sync.Mutex
	histories := make(map[ids.RoomID]history)
	err := parallel(ctx, len(l.rooms), historyWorkers, func(ctx context.Context, i int) error {
		h, err := l.caller.history(ctx, l.rooms[i], l.older)
		mu.Lock()
		defer mu.Unlock()
		histories[l.rooms[i].id] = h
		return err
	})
	if err != nil {
		return err
	}
	l.check.finish(histories)
	r.Errors = l.errs.all()
	r.Faults, r.FaultTexts = l.check.faults()
	r.Checked = Checked{
		Acked: l.check.count(outcomeAcked), Refused: l.check.count(outcomeRefused), Unknown: l.check.count(outcomeUnknown),
		Delivered: l.check.delivered(), Skipped: l.check.skipped(),
	}
	return nil
}

// finishInto is finish for a result of several loads.
func (l *load) finishInto(ctx context.Context, r *Result) error {
	var own Result
	if err := l.finish(ctx, &own); err != nil {
		return err
	}
	c := &r.Checked
	c.Acked, c.Refused, c.Unknown = c.Acked+own.Checked.Acked, c.Refused+own.Checked.Refused, c.Unknown+own.Checked.Unknown
	c.Delivered, c.Skipped = c.Delivered+own.Checked.Delivered, c.Skipped+own.Checked.Skipped
	for kind, n := range own.Errors {
		if r.Errors == nil {
			r.Errors = make(map[string]int64)
		}
		r.Errors[kind] += n
	}
	for kind, n := range own.Faults {
		if r.Faults == nil {
			r.Faults = make(map[string]int)
		}
		r.Faults[kind] += n
	}
	r.FaultTexts = append(r.FaultTexts, own.FaultTexts...)
	return nil
}

// disconnect closes all sockets. Nobody sends any more.
func (l *load) disconnect() {
	l.closing.Store(true)
	all := l.sockets
	for _, s := range l.senders {
		all = append(all, s.sockets...)
		if s.http != nil {
			s.http.close()
		}
	}
	l.sockets, l.senders = nil, nil
	_ = parallel(context.Background(), len(all), dialWorkers, func(_ context.Context, i int) error {
		if all[i] != nil {
			_ = all[i].Close()
		}
		return nil
	})
}

// close lets go of everything but the server.
func (l *load) close() {
	l.disconnect()
	l.caller.http.CloseIdleConnections()
}

// errorCount counts errors by kind.
type errorCount struct {
	mu struct {
		sync.Mutex
		n map[string]int64
	}
}

// maxErrorKinds bounds how many kinds are told apart.
const maxErrorKinds = 50

func (e *errorCount) add(kind string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.mu.n == nil {
		e.mu.n = make(map[string]int64)
	}
	if _, known := e.mu.n[kind]; !known && len(e.mu.n) >= maxErrorKinds {
		kind = "other"
	}
	e.mu.n[kind]++
}

func (e *errorCount) all() map[string]int64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	return maps.Clone(e.mu.n)
}

// errorKind is an error without what differs each time, such as addresses.
func errorKind(err error) string {
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return "no answer in time"
	case errors.Is(err, context.Canceled):
		return "interrupted"
	}
	for {
		inner := errors.Unwrap(err)
		if inner == nil {
			return err.Error()
		}
		err = inner
	}
}
