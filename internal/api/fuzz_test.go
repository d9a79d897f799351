package api

import (
	"context"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
)

// FuzzCall: no method, target or body makes a panic or a 5xx, and what a handler
// sees is clean.
func FuzzCall(f *testing.F) {
	handle := func(r *Request) (any, error) {
		for _, p := range r.params {
			if !utf8.ValidString(p.value) || strings.ContainsRune(p.value, 0) {
				panic("a parameter is not clean")
			}
		}
		if r.Body != nil && jsontext.Value(r.Body).Kind() != '{' {
			panic("the body is no object")
		}
		var v struct {
			A string           `json:"a"`
			B map[string]int64 `json:"b"`
			C []any            `json:"c"`
		}
		if err := DecodeBody(r, &v); err != nil {
			return nil, err
		}
		return Empty, nil
	}
	routes := specRoutes(f, handle)
	routes = append(routes, route("PUT", "/_hubbub/v1/{rest...}", handle, func(r *Route) { r.RawBody = true; r.Handle = echo }))
	g := newRig(f, routes, rigOptions{})
	f.Add("PUT", "/_matrix/client/v3/rooms/%21r/send/m.x/1?a=b", []byte(`{"a":"x"}`))
	f.Add("GET", "/_matrix/client/r0/sync?filter=%7B%7D&access_token=x", []byte(nil))
	f.Add("POST", "//_matrix/../%2e%2e/%ff%00", []byte(`[`))
	f.Add("PUT", "/_hubbub/v1/a/%2F/b", []byte("\xff"))
	f.Add("POST", "/_matrix/client/v3/createRoom", []byte(strings.Repeat(`{"a":`, 200)))
	f.Fuzz(func(t *testing.T, method, target string, body []byte) {
		res := g.Call(context.Background(), Call{Method: method, Target: target, Body: body})
		if res.Status >= 500 || res.Status < 200 {
			t.Fatalf("%q %q %q: %d %s", method, target, body, res.Status, res.Body)
		}
		if !jsontext.Value(res.Body).IsValid() {
			t.Fatalf("the answer is not JSON: %q", res.Body)
		}
	})
}

// FuzzRouter: a path that matches is found again after each of its parameters was
// escaped anew.
func FuzzRouter(f *testing.F) {
	rt := newRouter(f, specRoutes(f, nil))
	f.Add("PUT", "/_matrix/client/v3/rooms/%21r/send/m.x/1")
	f.Add("GET", "/_matrix/client/v3/profile/@a/%64isplayname")
	f.Fuzz(func(t *testing.T, method, path string) {
		s := search{method: method}
		if !rt.find(&s, path) {
			return
		}
		r := &Request{}
		if s.bind(r) != nil {
			return
		}
		again := s.found.endpoint.Path
		if strings.HasPrefix(path, "/_matrix/client/r0") || strings.HasPrefix(path, "/_matrix/media") {
			return
		}
		for _, p := range r.params {
			var escaped strings.Builder
			for _, c := range []byte(p.value) {
				const hex = "0123456789abcdef"
				escaped.Write([]byte{'%', hex[c>>4], hex[c&15]})
			}
			again = strings.Replace(again, "{"+p.name+"}", escaped.String(), 1)
		}
		s2 := search{method: method}
		if !rt.find(&s2, again) || s2.found.endpoint != s.found.endpoint {
			t.Fatalf("%q matched %s, but %q does not", path, s.found.endpoint.Path, again)
		}
	})
}
