package account

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"net/http"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/merr"
	"github.com/hubbub-chat/hubbub/internal/partition"
)

// A pusher of kind webpush names an address of which the server knows nothing. Before
// it is sent anything, its app has to say what it was sent there. spec: MSC4174.

// AckLife is how long a pusher can be activated after it was set. spec: MSC4174.
const AckLife = 5 * time.Minute

// ackSortBytes is shorter than the place of a notification in the queue of a pusher.
const ackSortBytes = 8

// ackSort is the place of what the app has to say. Each has its own, so that one that was
// sent takes no other along.
func (pu *Pusher) ackSort() string {
	h := sha256.Sum256([]byte(pu.Ack))
	return string(h[:ackSortBytes])
}

// Asks reports whether a row of the pusher's queue is for what its app has to say now.
func (pu *Pusher) Asks(q *Queued) bool { return q.Ack && pu.Inactive && q.Sort == pu.ackSort() }

// sameResource reports whether two pushers with one key send to one subscription.
func sameResource(a, b *Pusher) bool {
	type resource struct {
		URL  string `json:"url"`
		Auth string `json:"auth"`
	}
	var x, y resource
	return a.Kind == b.Kind && json.Unmarshal(a.Data, &x) == nil && json.Unmarshal(b.Data, &y) == nil && x == y
}

// askAck queues what the app has to say.
func (pu *Pusher) askAck(tx *partition.Tx, p Place) {
	id := pu.ID()
	tx.Put(p.queue(id, pu.ackSort()), []byte{}, nil)
	told := pushRecord{Pushers: [][]byte{[]byte(id)}}
	tx.Emit(partition.Record{Kind: partition.RecordPush, Entity: string(p.User), Data: encode(&told)})
}

// ActivatePusher makes a pusher of an app active whose Ack arrived there. To say it again
// changes nothing. spec: MSC4174 §POST /pushers/ack.
type ActivatePusher struct {
	command
	AppID, Ack string
}

// NewActivatePusher returns the command.
func NewActivatePusher(user ids.UserID, app, ack string) *ActivatePusher {
	return &ActivatePusher{command{user}, app, ack}
}

var _ partition.Command = (*ActivatePusher)(nil)

// Name implements partition.Command.
func (c *ActivatePusher) Name() string { return "activate_pusher" }

// Prepare implements partition.Command.
func (c *ActivatePusher) Prepare(ctx context.Context, p *partition.Prep) error {
	return p.Pin(ctx, c.at(p).push())
}

// Apply implements partition.Command.
func (c *ActivatePusher) Apply(tx *partition.Tx) (any, error) {
	p := c.in(tx)
	s := pushState(tx, p)
	known := false
	for i := range s.Pushers {
		pu := &s.Pushers[i]
		if pu.AppID != c.AppID {
			continue
		}
		known = true
		if pu.Ack == "" || subtle.ConstantTimeCompare([]byte(pu.Ack), []byte(c.Ack)) == 0 {
			continue
		}
		switch {
		case !pu.Inactive:
			return nil, nil
		case tx.Now-pu.SetTS > AckLife.Milliseconds():
			return nil, merr.New(http.StatusGone, merr.ExpiredActivation, "Set the pusher again, it was too long ago")
		}
		pu.Inactive = false
		put(tx, p.push(), &s)
		return nil, nil
	}
	if !known {
		return nil, merr.NotFoundErr("There is no pusher of that app")
	}
	return nil, merr.New(http.StatusBadRequest, merr.UnknownActivation, "No pusher of that app was sent this")
}
