package roomstate

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/hubbub-chat/hubbub/internal/event"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/merr"
)

// world is the state of a room under test.
type world struct {
	version event.Version
	room    ids.RoomID
	state   map[StateKey]*event.Event
}

var _ View = (*world)(nil)

func (w *world) State(eventType, stateKey string) *event.Event {
	return w.state[StateKey{eventType, stateKey}]
}

// fatal is what *testing.T, *testing.B and *rapid.T share.
type fatal interface {
	Helper()
	Fatalf(format string, args ...any)
}

// newWorld makes the room that testdata/rules.txt describes.
func newWorld(t fatal, version string) *world {
	t.Helper()
	v, ok := event.Lookup(version)
	if !ok {
		t.Fatalf("no version %s", version)
	}
	w := &world{version: v, state: make(map[StateKey]*event.Event)}
	if !v.RoomIDFromCreate {
		w.room = "!room:h"
	}
	w.setCreate(t, `{}`)
	levels := `{"events":{"org.high":100,"org.special":25},"users":{"@admin:h":100,"@alice:h":100,"@mod:h":50}}`
	if v.CreatorPower {
		levels = strings.Replace(levels, `"@alice:h":100,`, "", 1)
	}
	w.set(t, "@alice:h", event.TypePowerLevels, "", levels)
	w.set(t, "@alice:h", event.TypeJoinRules, "", `{"join_rule":"invite"}`)
	for user, membership := range map[string]string{
		"alice": "join", "admin": "join", "mod": "join", "user": "join",
		"inv": "invite", "knock": "knock", "left": "leave", "ban": "ban",
	} {
		w.set(t, "@admin:h", event.TypeMember, "@"+user+":h", `{"membership":"`+membership+`"}`)
	}
	return w
}

// setCreate replaces the create event, and with it, in version 12, the room.
func (w *world) setCreate(t fatal, content string) {
	t.Helper()
	in, err := Preset(PresetPrivate, PresetOptions{
		Version: w.version, Creator: "@alice:h", CreationContent: canonical(t, content),
	})
	if err != nil {
		t.Fatalf("create: %v", err)
	}
	ev := w.set(t, "@alice:h", event.TypeCreate, "", string(in.Create))
	w.room = ev.RoomID
	for key, old := range w.state { // they belong to the new room
		if key.Type != event.TypeCreate {
			w.set(t, old.Sender, key.Type, key.Key, string(old.Content))
		}
	}
}

// set puts an event into the state, whether or not the rules allow it.
func (w *world) set(t fatal, sender ids.UserID, eventType, key, content string) *event.Event {
	t.Helper()
	ev := &event.Event{
		RoomID: w.room, Type: eventType, StateKey: &key, Sender: sender, Content: canonical(t, content), Depth: 1,
	}
	if err := ev.Seal(w.version, 0); err != nil {
		t.Fatalf("%v", err)
	}
	w.state[StateKey{eventType, key}] = ev
	return ev
}

func (w *world) head() *Head {
	return &Head{RoomID: w.room, Version: w.version, LastEvent: "$last", Depth: 20}
}

func canonical(t fatal, content string) []byte {
	t.Helper()
	out, err := event.CanonicalObject(nil, []byte(content))
	if err != nil {
		t.Fatalf("%s: %v", content, err)
	}
	return out
}

func TestRules(t *testing.T) {
	for _, version := range event.Supported() {
		t.Run("version "+version, func(t *testing.T) { runRules(t, version) })
	}
}

// runRules runs testdata/rules.txt in one version.
func runRules(t *testing.T, version string) {
	file, err := os.Open("testdata/rules.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	var w *world
	var title string
	var from ids.UserID
	applies, ran := false, 0
	lines := bufio.NewScanner(file)
	for n := 1; lines.Scan(); n++ {
		line := fullNames(lines.Text())
		verb, rest, _ := strings.Cut(line, " ")
		switch {
		case line == "" || strings.HasPrefix(line, "# ") || line == "#":
			continue
		case verb == "==":
			title, w, from, applies = rest, newWorld(t, version), "@alice:h", true
		case verb == "versions":
			applies = slices.Contains(strings.Fields(rest), version)
		case verb == "from":
			from = ids.UserID(rest)
		case verb == "drop":
			eventType, key, _ := strings.Cut(rest, " ")
			delete(w.state, StateKey{eventType, unquote(key)})
		case verb == "state":
			part := strings.SplitN(rest, " ", 3)
			if part[0] == event.TypeCreate {
				w.setCreate(t, part[2])
			} else {
				w.set(t, from, part[0], unquote(part[1]), part[2])
			}
		case !applies:
		default:
			ran++
			t.Run(fmt.Sprintf("rule %s, line %d", strings.ReplaceAll(title, "/", " "), n), func(t *testing.T) {
				runRule(t, w, verb, rest)
			})
		}
	}
	if ran < 130 {
		t.Errorf("only %d cases ran", ran)
	}
}

func runRule(t *testing.T, w *world, verb, rest string) {
	wantRule := ""
	if verb == "reject" {
		var rules string
		rules, rest, _ = strings.Cut(rest, " ")
		old, v12, _ := strings.Cut(rules, "|")
		wantRule = old
		if w.version.RoomIDFromCreate {
			wantRule = v12
		}
	} else if verb != "allow" {
		t.Fatalf("unknown verb %s", verb)
	}
	part := strings.SplitN(rest, " ", 4)
	d := Draft{Sender: ids.UserID(part[0]), Type: part[1], Content: canonical(t, part[3])}
	if part[2] != "-" {
		key := unquote(part[2])
		d.StateKey = &key
	}
	// Build has to get by with what AuthKeys promised.
	loaded := &world{state: make(map[StateKey]*event.Event)}
	for _, k := range AuthKeys(d) {
		if ev := w.state[k]; ev != nil {
			loaded.state[k] = ev
		}
	}
	ev, err := Build(w.head(), d, 0, loaded)
	if wantRule == "" {
		if err != nil {
			t.Fatal(err)
		}
		if err := Authorize(w.version, ev, w); err != nil {
			t.Errorf("built, but %v", err)
		}
		return
	}
	var rejection *Rejection
	if !errors.As(err, &rejection) || rejection.Rule != wantRule || rejection.Version != w.version.ID {
		t.Fatalf("want rule %s, got %v", wantRule, err)
	}
	status, code := 403, merr.Forbidden
	if wantRule == "10.4" { // whoever asked
		status, code = 400, merr.InvalidParam
	}
	if client := merr.From(err); client.Status != status || client.Code != code || client.Msg != rejection.Reason {
		t.Errorf("the client gets %v", client)
	}
}

func unquote(key string) string {
	if key == `""` {
		return ""
	}
	return key
}

// fullNames writes the short user IDs of testdata/rules.txt in full.
func fullNames(line string) string {
	return regexp.MustCompile(`@[a-z]+([:/][a-z]+)?`).ReplaceAllStringFunc(line, func(user string) string {
		if strings.Contains(user, ":") {
			return user
		}
		return user + ":h"
	})
}
