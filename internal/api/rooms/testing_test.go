package rooms_test

import (
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/hubbub-chat/hubbub/internal/app/apptest"
)

type object = apptest.Object

const v3 = "/_matrix/client/v3"

// at joins escaped path segments below the rooms.
func at(room string, segments ...string) string {
	p := v3 + "/rooms/" + url.PathEscape(room)
	for _, s := range segments {
		p += "/" + url.PathEscape(s)
	}
	return p
}

// list returns a member that is a list of objects.
func list(t testing.TB, o object, name string) []object {
	t.Helper()
	raw, ok := o[name].([]any)
	if !ok {
		t.Fatalf("%s is no list in %v", name, o)
	}
	out := make([]object, len(raw))
	for i, e := range raw {
		if out[i], ok = e.(object); !ok {
			t.Fatalf("%s[%d] is no object", name, i)
		}
	}
	return out
}

// bodies are the texts of the messages among events, in order.
func bodies(events []object) []string {
	out := []string{}
	for _, e := range events {
		if e["type"] == "m.room.message" {
			out = append(out, fmt.Sprint(apptest.At(e, "content", "body")))
		}
	}
	return out
}

func same(t testing.TB, what string, got, want any) {
	t.Helper()
	if g, w := fmt.Sprint(got), fmt.Sprint(want); g != w {
		t.Errorf("%s: got %s, want %s", what, g, w)
	}
}

// invite invites a user to a room.
func invite(t testing.TB, by *apptest.Client, room string, user *apptest.Client) {
	t.Helper()
	by.Must(t, "POST", at(room, "invite"), object{"user_id": user.UserID})
}

// leave leaves a room.
func leave(t testing.TB, user *apptest.Client, room string) {
	t.Helper()
	user.Must(t, "POST", at(room, "leave"), nil)
}

// membership is a user's membership as another sees it.
func membership(t testing.TB, by *apptest.Client, room, user string) string {
	t.Helper()
	status, out := by.Do(t, "GET", at(room, "state", "m.room.member", user), nil)
	if status != 200 {
		return fmt.Sprint(status)
	}
	return fmt.Sprint(out["membership"])
}

// state is the content of a piece of state: of a type, or type and key joined by
// a slash.
func state(t testing.TB, by *apptest.Client, room, name string) object {
	t.Helper()
	return by.Must(t, "GET", at(room, append([]string{"state"}, strings.SplitN(name, "/", 2)...)...), nil)
}

// history are the texts that a user finds in a room, oldest first, walking all of
// it with small pages.
func history(t testing.TB, by *apptest.Client, room string) []string {
	t.Helper()
	var out []string
	from := ""
	for range 100 {
		page := by.Must(t, "GET", at(room, "messages")+"?dir=f&limit=2"+from, nil)
		out = append(out, bodies(list(t, page, "chunk"))...)
		end, more := page["end"].(string)
		if !more {
			return out
		}
		from = "&from=" + url.QueryEscape(end)
	}
	t.Fatal("the pages of /messages do not end")
	return nil
}
