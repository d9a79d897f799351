package cluster_test

import (
	"context"
	"errors"
	"net/http"
	"testing"

	"github.com/hubbub-chat/hubbub/internal/bus"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/merr"
	"github.com/hubbub-chat/hubbub/internal/partition"
)

var errKnown = errors.New("known")

// query is a command that travels, and answers as it says.
type query struct {
	In     ids.Partition
	Answer *merr.Error
	Known  bool

	prepared bool
}

func (*query) Name() string                  { return "query" }
func (q *query) Partition(int) ids.Partition { return q.In }

func (q *query) Prepare(context.Context, *partition.Prep) error {
	q.prepared = true
	return nil
}

func (q *query) Apply(*partition.Tx) (any, error) {
	switch {
	case !q.prepared:
		return nil, errors.New("not prepared")
	case q.Answer != nil:
		return nil, q.Answer.Because(errDown)
	case q.Known:
		return nil, errKnown
	}
	return map[string][]byte{"nil": nil, "empty": {}, "full": []byte("x")}, nil
}

// stranger is in no list.
type stranger struct{ query }

func (*stranger) Name() string { return "stranger" }

func newWire(t *testing.T) *partition.Wire {
	t.Helper()
	w, err := partition.NewWire(partition.WireOptions{Commands: []partition.Command{&query{}}, Failures: []error{errKnown}})
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// What a command says, and what becomes of it, is the same when it goes as bytes.
func TestEncodedCommands(t *testing.T) {
	w := newWorld(t, 1)
	o := w.options("a", w.store)
	o.Wire, o.Encode = newWire(t), true
	n := w.start(o)
	ctx := context.Background()
	got, err := partition.Do[map[string][]byte](ctx, n, &query{})
	if err != nil || len(got) != 3 || got["nil"] != nil || got["empty"] == nil || string(got["full"]) != "x" {
		t.Errorf("got %v, %v", got, err)
	}
	_, err = n.Do(ctx, &query{Answer: merr.New(http.StatusConflict, "M_X", "text").With("more", true)})
	if e := merr.From(err); e.Status != http.StatusConflict || e.Code != "M_X" || e.Msg != "text" || e.Extra["more"] != true {
		t.Errorf("refusal: %#v", e)
	}
	if _, err = n.Do(ctx, &query{Known: true}); !errors.Is(err, errKnown) || errors.Is(err, partition.ErrLost) {
		t.Errorf("known error: %v", err)
	}
	if _, err = n.Do(ctx, &stranger{}); err == nil {
		t.Error("a command that is in no list travels")
	}
	if _, err := partition.Do[int](ctx, n, &query{}); !errors.Is(err, partition.ErrLost) {
		t.Errorf("a result of another type: %v", err)
	}
	for _, b := range []string{"", "\x05query", "\x05other\x00", "\x05query\x01\x01"} {
		if _, err := w.bus.Request(ctx, "cmd.a", bus.Raw(b)); err != nil {
			t.Errorf("%q: %v; want an answer that says it", b, err)
		}
	}
}
