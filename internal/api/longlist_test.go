package api

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// numbers is a list of n numbers as a LongList, and as it is to look.
func numbers(n int) (list Pieces, want string) {
	l := NewLongList(`{"list":[`)
	all := make([]string, n)
	for i := range n {
		all[i] = fmt.Sprintf(`{"number":%d}`, i)
		l.Add(func(b []byte) []byte { return append(b, all[i]...) })
	}
	return l.End("]}"), `{"list":[` + strings.Join(all, ",") + "]}"
}

// A list is the same over HTTP and in a call, of whatever length.
func TestLongLists(t *testing.T) {
	for n, pieces := range map[int]int{0: 1, 1: 1, 3_000: 1, 50_000: 13} {
		list, want := numbers(n)
		if !json.Valid([]byte(want)) || len(list) != pieces {
			t.Fatalf("%d elements are %d pieces, want %d", n, len(list), pieces)
		}
		g := newRig(t, []Route{
			route("GET", "/_matrix/client/v3/list", func(*Request) (any, error) { return list, nil }),
			route("GET", "/_matrix/client/v3/made", func(*Request) (any, error) {
				return Response{Status: http.StatusCreated, Body: list}, nil
			}),
		}, rigOptions{})
		for path, status := range map[string]int{"list": 200, "made": 201} {
			got := g.raw("GET", v3+path, "")
			if got.Status != status || got.Body != want || got.Header.Get("Content-Length") != fmt.Sprint(len(want)) {
				t.Errorf("%d elements: %d, %d bytes, announced %s, want %d, %d", n, got.Status, len(got.Body), got.Header.Get("Content-Length"), status, len(want))
			}
			called := g.Call(t.Context(), Call{Method: "GET", Target: v3 + path})
			if called.Status != status || string(called.Body) != want {
				t.Errorf("%d elements, called: %d, %d bytes", n, called.Status, len(called.Body))
			}
		}
		if got := g.raw("HEAD", v3+"list", ""); got.Body != "" || got.Header.Get("Content-Length") != fmt.Sprint(len(want)) {
			t.Errorf("HEAD of %d elements: %q, announced %s", n, got.Body, got.Header.Get("Content-Length"))
		}
	}
}
