package judge

import (
	"strings"
	"testing"

	"github.com/hubbub-chat/hubbub/test/history"
)

const room = "!r"

func ptr(s string) *string { return &s }

// sample is a small case in which every promise was kept.
func sample() *Case {
	h := &history.History{Final: history.Final{Rooms: map[string]*history.Room{}, Data: map[string]int{}}}
	create := &history.Op{ID: 0, Kind: history.Create, User: "@a:h", Room: room, Mark: "m0", Invoke: 1, Return: 2, Outcome: history.OK}
	send := &history.Op{ID: 1, Kind: history.Send, User: "@a:h", Room: room, Type: "m.room.message", Mark: "m1", Invoke: 3, Return: 4, Outcome: history.OK, EventID: "$send"}
	h.Ops = []*history.Op{create, send}
	var events []history.Event
	for _, typ := range []string{
		"m.room.create", "m.room.member", "m.room.power_levels", "m.room.join_rules", "m.room.history_visibility",
		"m.room.guest_access", "m.room.name", "m.room.topic",
	} {
		e := history.Event{ID: "$" + typ, Type: typ, Sender: "@a:h", StateKey: ptr(""), Body: typ}
		switch typ {
		case "m.room.create":
			e.Mark = "m0"
		case "m.room.member":
			e.StateKey, e.Membership = ptr("@a:h"), "join"
		}
		events = append(events, e)
	}
	state := append([]history.Event(nil), events...)
	events = append(events, history.Event{ID: "$send", Type: "m.room.message", Sender: "@a:h", Mark: "m1", Body: "m1"})
	h.Final.Rooms[room] = &history.Room{
		Walks:  []history.Walk{{Reader: "store", Dir: "f", Events: events}},
		States: map[string][]history.Event{"store": state},
	}
	h.Streams = []*history.Stream{{User: "@a:h", Device: "D", Transport: "sync", Parts: []history.Part{
		{At: 3, Room: room, Section: "join", Events: events[:8]},
		{At: 6, Room: room, Section: "join", Events: events[8:]},
	}}}
	return &Case{
		History: h,
		Ledger: []Write{
			{Partition: 1, Node: "n1", Epoch: 1, Grant: true},
			{Partition: 1, Node: "n1", Epoch: 1},
			{Partition: 1, Node: "n2", Epoch: 2, Grant: true},
			{Partition: 1, Node: "n2", Epoch: 2},
		},
		Responses: []Response{
			{User: "@a:h", Device: "D", Invoke: 1, Return: 3, Parts: 1, Messages: []string{"d1"}, Lost: true, Keys: 3},
			{User: "@a:h", Device: "D", Invoke: 2, Return: 3, Parts: 1, Messages: []string{"d1", "d2"}, Keys: 3},
			{User: "@a:h", Device: "D", Invoke: 5, Return: 6, Parts: 2, Messages: []string{"d3"}, Keys: 1, Changed: []string{"@c:h"}},
		},
		Messages: []Message{
			{Mark: "d1", Sender: "@b:h", To: [2]string{"@a:h", "D"}, Outcome: history.OK, Invoke: 1, Return: 2},
			{Mark: "d2", Sender: "@b:h", To: [2]string{"@a:h", "D"}, Outcome: history.OK, Invoke: 3, Return: 4},
			{Mark: "d3", Sender: "@b:h", To: [2]string{"@a:h", "D"}, Outcome: history.Unknown, Invoke: 5, Return: 6},
			{Mark: "d4", Sender: "@b:h", To: [2]string{"@a:h", "D"}, Outcome: history.Unknown, Invoke: 5, Return: 6},
		},
		Keys: []Key{
			{ID: "k1", User: "@a:h", Device: "D", Outcome: history.OK, N: 1},
			{ID: "k2", User: "@a:h", Device: "D", Outcome: history.OK, N: 2},
			{ID: "k3", User: "@a:h", Device: "D", Outcome: history.OK, N: 3},
		},
		Claims: []Claim{
			{User: "@a:h", Device: "D", Outcome: history.OK, Invoke: 1, Return: 2, Key: "k1"},
			{User: "@a:h", Device: "D", Outcome: history.OK, Invoke: 3, Return: 4, Key: "k2"},
			{User: "@a:h", Device: "D", Outcome: history.Unknown, Invoke: 5, Return: 6},
		},
		Rekeys: []Rekey{{User: "@c:h", Invoke: 3, Return: 4}},
		Logs:   map[int][]Record{1: {{1, 1, room}, {2, 1, room}, {3, 4, ""}}},
		Steps: []Step{
			{Partition: 1, Node: "n1", Records: []Record{{1, 1, room}, {2, 1, room}}, Done: true},
			{Partition: 1, Node: "n1", Records: []Record{{3, 4, ""}}},
			{Partition: 1, Cursor: 2},
			{Partition: 1, Node: "n2", Records: []Record{{2, 1, room}, {3, 4, ""}}, Done: true},
			{Partition: 1, Cursor: 3},
		},
	}
}

func TestKept(t *testing.T) {
	for _, b := range Check(sample()) {
		t.Error(b)
	}
}

// TestDoctored breaks one promise at a time, which the check of it must notice.
func TestDoctored(t *testing.T) {
	for name, d := range map[string]struct {
		check  string
		doctor func(c *Case)
	}{
		"an acknowledged event is gone": {"C1", func(c *Case) {
			w := &c.History.Final.Rooms[room].Walks[0]
			w.Events = w.Events[:8]
		}},
		"an acknowledged message never came":   {"C8", func(c *Case) { c.Responses[1].Messages = []string{"d1"} }},
		"a message comes after its token":      {"C8", func(c *Case) { c.Responses[2].Messages = []string{"d3", "d1"} }},
		"a message is there twice":             {"C8", func(c *Case) { c.Responses[1].Messages = []string{"d1", "d1", "d2"} }},
		"messages change places":               {"C8", func(c *Case) { c.Responses[1].Messages = []string{"d2", "d1"} }},
		"a refused message comes":              {"C8", func(c *Case) { c.Messages[2].Outcome = history.Fail }},
		"a message of another device comes":    {"C8", func(c *Case) { c.Messages[2].To[1] = "E" }},
		"a message that nobody sent":           {"C8", func(c *Case) { c.Messages = c.Messages[:2] }},
		"a key is handed out twice":            {"C9", func(c *Case) { c.Claims[1].Key = "k1" }},
		"a key of nobody":                      {"C9", func(c *Case) { c.Claims[1].Key = "k9" }},
		"a key before an older one":            {"C9", func(c *Case) { c.Claims[0].Key, c.Claims[1].Key = "k2", "k1" }},
		"more keys are counted than there are": {"C9", func(c *Case) { c.Responses[2].Keys = 2 }},
		"fewer keys are counted than there are": {"C9", func(c *Case) {
			c.Claims = c.Claims[:2]
			c.Responses[2].Keys = 0
		}},
		"a sync without what was written": {"C10", func(c *Case) { c.Responses[2].Parts = 1 }},
		"a commit of an older epoch":      {"C11", func(c *Case) { c.Ledger[3].Epoch = 1 }},
		"a commit of the node before":     {"C11", func(c *Case) { c.Ledger[3].Node = "n1" }},
		"one epoch for two nodes":         {"C11", func(c *Case) { c.Ledger[2].Epoch, c.Ledger[3].Epoch = 1, 1 }},
		"an epoch that goes back":         {"C11", func(c *Case) { c.Ledger[2].Epoch = 0 }},
		"a record is never handed out": {"C12", func(c *Case) {
			c.Steps = c.Steps[:3]
		}},
		"a record is passed over":               {"C12", func(c *Case) { c.Steps[0].Records = c.Steps[0].Records[:1] }},
		"records are left out of what is given": {"C12", func(c *Case) { c.Steps[3].Records[0].Seq = 1 }},
		"a record that is not in the log":       {"C12", func(c *Case) { c.Steps[3].Records[1].Entity = "!other" }},
		"a cursor passes what failed":           {"C12", func(c *Case) { c.Steps[2].Cursor = 3 }},
		"a cursor goes back":                    {"C12", func(c *Case) { c.Steps[4].Cursor = 1 }},
		"nobody is told of other keys":          {"C13", func(c *Case) { c.Responses[2].Changed = nil }},
		"that was told before the keys changed": {"C13", func(c *Case) { c.Rekeys[0].Invoke, c.Rekeys[0].Return = 7, 8 }},
		"who shares a room is told of as gone":  {"C13", func(c *Case) { c.Responses[2].Left = []string{"@c:h"} }},
	} {
		t.Run(name, func(t *testing.T) {
			c := sample()
			d.doctor(c)
			for _, b := range Check(c) {
				if strings.HasPrefix(b, d.check+" ") {
					return
				}
			}
			t.Errorf("%s did not notice; breaches: %q", d.check, Check(c))
		})
	}
}

// TestReadYourWritesKnowsItsBounds: what left no answer, or may be hidden, is no breach.
func TestReadYourWritesKnowsItsBounds(t *testing.T) {
	for name, doctor := range map[string]func(c *Case){
		"the write had no answer":       func(c *Case) { c.History.Ops[1].Outcome = history.Unknown },
		"the sync was asked for before": func(c *Case) { c.Responses[2].Invoke = 3 },
		"the store's clock had leapt":   func(c *Case) { c.Leaps = []Leap{{At: 4, Until: 7}} },
		"the user has left maybe": func(c *Case) {
			c.History.Ops = append(c.History.Ops, &history.Op{
				ID: 2, Kind: history.Leave, User: "@a:h", Room: room, Mark: "m2", Invoke: 5, Outcome: history.Unknown,
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := sample()
			c.Responses[2].Parts = 1
			doctor(c)
			for _, b := range Check(c) {
				if strings.HasPrefix(b, "C10 ") {
					t.Error(b)
				}
			}
		})
	}
}
