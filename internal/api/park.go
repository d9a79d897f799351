package api

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/hubbub-chat/hubbub/internal/api/parking"
	"github.com/hubbub-chat/hubbub/internal/merr"
)

const (
	// parkAfter is how long a long poll waits on a goroutine before it is parked. Where
	// something happens all the time polls are answered before, and none of them costs
	// more than it did. Who was quiet for long the last time will be again: for those
	// it is divided by quietShare.
	parkAfter  = time.Second
	quietShare = 20
	// maxParkedHead is the most text of a request that is kept while it is parked, in
	// bytes: that of a browser is below 1 KB. With more, a goroutine is no great part.
	maxParkedHead = 8 << 10
)

// Waiting is what a handler of a HoldLong route returns instead of an answer when it had
// nothing to say for as long as the request's Patience. Its connection is parked then, and
// the handler called again, with what it had returned as Left, when there is something,
// on another goroutine: nothing but the Waiting may be kept of the request.
type Waiting interface {
	// Wake has f called once, when the handler has something to go on for: at once, if
	// that came already. f does not block.
	Wake(f func())
	// Close gives the request up. It may be called more than once, also after the
	// handler did.
	Close()
}

// Patience is for how long the handler is to wait for something to say before it returns
// a Waiting, 0 if it is to wait without end.
func (r *Request) Patience() time.Duration { return r.patience }

// Left is what the handler returned when it was called for the request before, nil the
// first time.
func (r *Request) Left() Waiting { return r.stay.waiting }

// stay is what a request keeps from its beginning to its answer, also while it is parked.
type stay struct {
	// onNode, ofHolder: it has a place among those in flight, of its holder's too.
	onNode, ofHolder bool
	hold             Hold
	holder           holder
	// poll is its place among the long polls of the caller, nil without one.
	poll *poll
	// waiting is what the handler left, nil if it was not parked.
	waiting Waiting
	until   time.Time
}

// begin returns when the request has to be over, by a limit from its beginning on.
func (s *stay) begin(limit time.Duration) time.Time {
	if s.until.IsZero() {
		s.until = time.Now().Add(limit)
	}
	return s.until
}

// endStay gives everything back.
func (d *Dispatcher) endStay(s *stay) {
	if s.waiting != nil {
		s.waiting.Close()
	}
	if s.poll != nil {
		d.polls.leave(s.holder.user, s.poll)
	}
	if s.ofHolder {
		d.inFlight.leaveHolder(s.hold, s.holder)
	}
	if s.onNode {
		d.inFlight.leave(s.hold)
	}
}

// handle runs the handler. A long poll whose caller may have lost the right to it
// meanwhile gives nothing away. It returns a *parking.Place for one that is to be parked.
func (d *Dispatcher) handle(r *Request, t transport) (any, error) {
	if r.endpoint.Hold != HoldLong || r.Caller.User == "" {
		return r.endpoint.Handle(r)
	}
	whole := r.Context
	first := r.stay.poll == nil
	if first {
		r.stay.poll = d.polls.enter(r)
	}
	one := r.stay.poll
	end := d.polls.serve(r, one)
	defer end()
	if first {
		// Again, in case the token ended before enter: no one ends this poll then.
		if err := d.authorize(r, t); err != nil {
			return nil, err
		}
	}
	if !one.ended.Load() {
		value, err := d.wait(r, t)
		if _, parked := value.(*parking.Place); parked || !one.ended.Load() {
			return value, err
		}
	}
	r.Context = whole
	if err := d.authorize(r, t); err != nil {
		return nil, err
	}
	return nil, merr.UnavailableErr(pollRetry, "The session changed, try again")
}

// wait runs the handler of a long poll until there is an answer, or a place in which it
// goes on waiting.
func (d *Dispatcher) wait(r *Request, t transport) (any, error) {
	r.patience = 0
	if t.parks() {
		if r.patience = d.parkAfter; parking.Quiet(r.Context) {
			r.patience = max(r.patience/quietShare, 1)
		}
	}
	for {
		value, err := r.endpoint.Handle(r)
		waiting, waits := value.(Waiting)
		if !waits || err != nil {
			return value, err
		}
		r.stay.waiting = waiting
		if place := t.reserve(); place != nil {
			return place, nil
		}
		r.patience = 0
	}
}

// parked is a request without an answer whose connection is parked.
type parked struct {
	stay
	d     *Dispatcher
	id    string
	start time.Time
}

var _ parking.Guest = (*parked)(nil)

// Abandon implements parking.Guest.
func (p *parked) Abandon() { p.d.endStay(&p.stay) }

// park takes the connection of a request from the server until there is an answer. Then
// the request comes to ServeHTTP again.
func (d *Dispatcher) park(r *Request, t *overHTTP, place *parking.Place, start time.Time) error {
	conn, rw, err := http.NewResponseController(t.w.ResponseWriter).Hijack()
	if err != nil {
		place.Cancel()
		d.endStay(&r.stay)
		return fmt.Errorf("park the connection: %w", err)
	}
	ahead, _ := rw.Reader.Peek(rw.Reader.Buffered()) // so much is there
	p := &parked{stay: r.stay, d: d, id: r.ID, start: start}
	unread := append(appendHead(make([]byte, 0, headSize(t.r)+len(ahead)), t.r), ahead...)
	d.polls.endBy(p.poll, place.Wake)
	p.waiting.Wake(place.Wake)
	place.Park(conn, unread, p)
	return nil
}

// returned makes r go on from where it was parked, if it was. It returns when the request
// came first.
func (d *Dispatcher) returned(r *Request, now time.Time) (start time.Time) {
	guest, gone := parking.Returning(r.Context)
	p, ok := guest.(*parked)
	if !ok {
		return now
	}
	r.ID, r.stay = p.id, p.stay
	if gone {
		ctx, cancel := context.WithCancel(r.Context)
		cancel()
		r.Context = ctx
	}
	return p.start
}

// parks implements transport. A request with a body, which is nothing that waits for
// news has, is not looked at closely.
func (t *overHTTP) parks() bool {
	return t.r.ProtoMajor == 1 && t.r.Method == http.MethodGet && t.r.ContentLength == 0 && len(t.r.TransferEncoding) == 0 &&
		t.d.lot.Parks(t.r.Context())
}

// reserve implements transport.
func (t *overHTTP) reserve() *parking.Place {
	if headSize(t.r) > maxParkedHead {
		return nil
	}
	return t.d.lot.Reserve(t.r.Context())
}

// headSize is about the length of what appendHead appends, and no less.
func headSize(r *http.Request) int {
	n := len(r.Method) + len(r.RequestURI) + len(r.Proto) + len(r.Host) + len("  \r\nHost: \r\n\r\n")
	for name, values := range r.Header {
		for _, v := range values {
			n += len(name) + len(v) + len(": \r\n")
		}
	}
	return n
}

// appendHead writes a request without a body as it came. What net/http has read holds no
// line ends.
func appendHead(b []byte, r *http.Request) []byte {
	b = append(append(append(append(b, r.Method...), ' '), r.RequestURI...), ' ')
	b = append(append(b, r.Proto...), "\r\nHost: "...)
	b = append(append(b, r.Host...), "\r\n"...)
	for name, values := range r.Header {
		for _, v := range values {
			b = append(append(append(append(b, name...), ": "...), v...), "\r\n"...)
		}
	}
	return append(b, "\r\n"...)
}
