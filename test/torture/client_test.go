package torture

import (
	"context"
	"math/rand/v2"
	"net/http"
	"time"

	"github.com/hubbub-chat/hubbub/test/caller"
	"github.com/hubbub-chat/hubbub/test/history"
)

// callLimit bounds one request: longer than any pause of a busy machine.
const callLimit = 30 * time.Second

// device is one client with its access token.
type device struct {
	*caller.Device
	run *run
	rng *rand.Rand
}

func (r *run) newDevice(user, name, token string, seed uint64) *device {
	return &device{caller.New(user, name, token), r, rand.New(rand.NewPCG(r.seed, seed))}
}

// call makes one request.
func (d *device) call(ctx context.Context, method, path string, body any) caller.Answer {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	a := d.Do(ctx, d.run.srv.url(), method, path, body)
	if a.Status >= 500 && a.Status != http.StatusServiceUnavailable {
		d.run.rec.Note("C0 %s %s was answered %d %s", method, path, a.Status, a.Body)
	}
	return a
}

// once runs an operation that is not repeated.
func (d *device) once(op *history.Op, method, path string, body any) caller.Answer {
	a := d.call(d.run.ctx, method, path, body)
	d.finish(op, a)
	if a.Unknown() {
		d.run.srv.awaitUp(d.run.ctx)
	}
	return a
}

// insist runs an operation that has a transaction ID: it is repeated until there
// is a definite answer. Now and then the client hangs up before the answer.
func (d *device) insist(op *history.Op, method, path string, body any) caller.Answer {
	unsure := false
	for {
		ctx, cancel := d.run.ctx, context.CancelFunc(func() {})
		if d.rng.IntN(12) == 0 {
			ctx, cancel = context.WithTimeout(ctx, time.Duration(d.rng.IntN(5000))*time.Microsecond)
		}
		a := d.call(ctx, method, path, body)
		cancel()
		switch {
		case d.run.ctx.Err() != nil:
			return a
		case !a.Unknown():
			if unsure && !a.OK() {
				// Whether the first attempt took place is not known.
				op.Status = a.Status
				return a
			}
			d.finish(op, a)
			return a
		}
		unsure = true
		d.run.srv.awaitUp(d.run.ctx)
	}
}

func (d *device) finish(op *history.Op, a caller.Answer) { a.Finish(d.run.rec, op) }
