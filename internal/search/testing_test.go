package search

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/hubbub-chat/hubbub/internal/account"
	"github.com/hubbub-chat/hubbub/internal/clock"
	"github.com/hubbub-chat/hubbub/internal/cluster/clustertest"
	"github.com/hubbub-chat/hubbub/internal/consumer"
	"github.com/hubbub-chat/hubbub/internal/event"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/partition"
	"github.com/hubbub-chat/hubbub/internal/room"
	"github.com/hubbub-chat/hubbub/internal/roomstate"
	"github.com/hubbub-chat/hubbub/internal/storage"
	"github.com/hubbub-chat/hubbub/internal/textindex"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const alice ids.UserID = "@alice:h"

const partitions = 4

// world is a node with rooms of alice's and an index that follows them.
type world struct {
	t     testing.TB
	ctx   context.Context
	store storage.Store
	node  *clustertest.Node
	rooms *room.Reader
	index *Index
	set   *consumer.Set
	made  int
	once  bool    // find looks once
	until ids.Seq // find looks up to there, 0 for all
}

func newWorld(t testing.TB, st storage.Store) *world {
	t.Helper()
	w := newStill(t, st)
	w.follow()
	return w
}

// follow lets the index follow the log.
func (w *world) follow() {
	w.t.Helper()
	if err := w.set.Add(consumer.Consumer{Name: Name, Start: consumer.AtBeginning, Handler: w.index, Gather: Gather}); err != nil {
		w.t.Fatal(err)
	}
}

// newStill is a world whose index is given nothing yet.
func newStill(t testing.TB, st storage.Store) *world {
	t.Helper()
	w := &world{t: t, ctx: context.Background(), store: st, rooms: room.NewReader(st, partitions)}
	w.node = clustertest.Start(t, clustertest.Options{
		Count: partitions, Store: st, Clock: clock.Real{}, CacheBytes: 64 << 20,
		Tables:  []map[storage.Table]partition.TableSpec{room.Tables(), account.Tables(), Tables()},
		Effects: []map[string]partition.EffectHandler{room.Effects(), account.Effects()},
	})
	set := consumer.NewSet(consumer.Options{Store: st, Router: w.node, Clock: clock.Real{}, Log: slog.New(slog.DiscardHandler)})
	w.node.Watch(set)
	w.index = New(st, w.node, w.rooms, set)
	w.set = set
	t.Cleanup(set.Close)
	return w
}

func (w *world) do(cmd partition.Command) any {
	w.t.Helper()
	v, err := w.node.Do(w.ctx, cmd)
	if err != nil {
		w.t.Fatalf("%s: %v", cmd.Name(), err)
	}
	return v
}

func (w *world) create() ids.RoomID {
	w.t.Helper()
	w.made++
	v, _ := event.Lookup("11")
	preset, err := roomstate.Preset(roomstate.PresetPublic, roomstate.PresetOptions{Version: v, Creator: alice})
	if err != nil {
		w.t.Fatal(err)
	}
	draft := func(typ, key string, content []byte) roomstate.Draft {
		return roomstate.Draft{Type: typ, StateKey: &key, Sender: alice, Content: content, OriginServerTS: time.Now().UnixMilli()}
	}
	c := &room.Create{Version: "11", Drafts: []roomstate.Draft{
		draft(event.TypeCreate, "", preset.Create),
		draft(event.TypeMember, string(alice), []byte(`{"membership":"join"}`)),
		draft(event.TypePowerLevels, "", preset.PowerLevels),
	}}
	if err := c.Seal(ids.RoomID(fmt.Sprintf("!room%d:h", w.made))); err != nil {
		w.t.Fatal(err)
	}
	return w.do(c).(ids.RoomID)
}

func (w *world) send(id ids.RoomID, content []byte) ids.EventID {
	w.t.Helper()
	return w.do(&room.Send{Room: id, Draft: roomstate.Draft{Type: event.TypeMessage, Sender: alice, Content: content}}).(ids.EventID)
}

func (w *world) say(id ids.RoomID, body string) ids.EventID {
	w.t.Helper()
	return w.send(id, append(event.AppendString([]byte(`{"body":`), body), '}'))
}

func (w *world) edit(id ids.RoomID, of ids.EventID, body string) ids.EventID {
	w.t.Helper()
	content := event.AppendString([]byte(`{"body":"*","m.new_content":{"body":`), body)
	content = append(content, `},"m.relates_to":{"event_id":"`+string(of)+`","rel_type":"m.replace"}}`...)
	return w.send(id, content)
}

func (w *world) redact(id ids.RoomID, target ids.EventID) ids.EventID {
	w.t.Helper()
	return w.do(&room.Redact{Room: id, Target: target, Draft: roomstate.Draft{
		Type: event.TypeRedaction, Sender: alice, Content: []byte("{}"), Redacts: target,
	}}).(ids.EventID)
}

func (w *world) await() {
	w.t.Helper()
	if err := w.index.Await(w.ctx); err != nil {
		w.t.Fatal(err)
	}
}

// find returns what alice finds, looking back as far as there is something.
func (w *world) find(term string, rooms ...ids.RoomID) []Hit {
	w.t.Helper()
	q := &Query{
		Words: textindex.Words(term), Keys: AllKeys, Rooms: rooms, Pass: func(*room.Stored) bool { return true },
		Open: func(ctx context.Context, id ids.RoomID) (*room.Access, ids.Seq, error) {
			a, err := w.rooms.Access(ctx, id, alice)
			if err != nil {
				return nil, 0, err
			}
			if w.until != 0 {
				return a, w.until, nil
			}
			return a, a.Head.Last, nil
		},
	}
	var out []Hit
	for {
		hits, end, err := w.index.Find(w.ctx, q)
		if err != nil {
			w.t.Fatal(err)
		}
		if out = append(out, hits...); end == nil || w.once {
			return out
		}
		q.After = end
	}
}
