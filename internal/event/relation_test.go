package event_test

import (
	"strings"
	"testing"

	"github.com/hubbub-chat/hubbub/internal/event"
)

func TestRelationOf(t *testing.T) {
	long := strings.Repeat("x", event.MaxFieldSize)
	for content, want := range map[string]event.Relation{
		`{}`:                            {},
		`{"body":"\"m.relates_to\":{"}`: {},
		`{"m.relates_to":"x"}`:          {},
		`{"m.relates_to":{}}`:           {},
		`{"m.relates_to":{"m.in_reply_to":{"event_id":"$a"}}}`:                                {},
		`{"m.relates_to":{"event_id":"$a"}}`:                                                  {},
		`{"m.relates_to":{"event_id":"a","rel_type":"m.thread"}}`:                             {},
		`{"m.relates_to":{"event_id":7,"rel_type":"m.thread"}}`:                               {},
		`{"m.relates_to":{"event_id":"$a","rel_type":""}}`:                                    {},
		`{"m.relates_to":{"event_id":"$a","rel_type":["m.thread"]}}`:                          {},
		`{"m.relates_to":{"event_id":"$a","rel_type":"y` + long + `"}}`:                       {},
		`{"m.relates_to":{"event_id":"$a","rel_type":"` + long + `"}}`:                        {Type: long, Parent: "$a"},
		`{"m.relates_to":{"event_id":"$a","rel_type":"m.thread"}}`:                            {Type: "m.thread", Parent: "$a"},
		`{"m.relates_to":{"event_id":"$a","key":"👍","rel_type":"m.annotation"}}`:              {Type: "m.annotation", Parent: "$a", Key: "👍"},
		`{"m.relates_to":{"event_id":"$a","key":{},"rel_type":"m.annotation"}}`:               {Type: "m.annotation", Parent: "$a"},
		`{"body":"x","inner":{"m.relates_to":{"event_id":"$a","rel_type":"m.thread"}}}`:       {},
		`{"m.relates_to":{"event_id":"$a","m.in_reply_to":{"event_id":"$b"},"rel_type":"z"}}`: {Type: "z", Parent: "$a"},
	} {
		got, ok := event.RelationOf([]byte(content))
		if got != want || ok != (want != event.Relation{}) {
			t.Errorf("%s: got %+v %v, want %+v", content, got, ok, want)
		}
	}
}
