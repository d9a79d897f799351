package api

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

// specRoutes are the methods and templates of the specification and of the
// unstable endpoints that clients call.
func specRoutes(t testing.TB, handle Handler) []Route {
	t.Helper()
	text, err := os.ReadFile("testdata/templates.txt")
	if err != nil {
		t.Fatal(err)
	}
	var routes []Route
	for line := range strings.Lines(string(text)) {
		method, path, _ := strings.Cut(strings.TrimSpace(line), " ")
		routes = append(routes, route(method, path, handle))
	}
	return routes
}

func newRouter(t testing.TB, routes []Route) *router {
	t.Helper()
	rt := &router{}
	for _, old := range []bool{false, true} {
		for _, r := range routes {
			ep := &endpoint{Route: r}
			for _, template := range r.templates(old) {
				if err := rt.add(r.Method, template, ep, old); err != nil {
					t.Fatalf("%s %s: %v", r.Method, template, err)
				}
			}
		}
	}
	return rt
}

// lookup gives the template that matched and its parameters, or the methods that
// would have matched.
func lookup(rt *router, method, path string) string {
	s := search{method: method}
	if !rt.find(&s, path) {
		allowed := slices.Clone(s.allowed[:s.nAllowed])
		slices.Sort(allowed)
		return "no " + strings.Join(allowed, ",")
	}
	r := &Request{}
	if err := s.bind(r); err != nil {
		return "400"
	}
	out := s.found.endpoint.Path
	for _, p := range r.params {
		out += fmt.Sprintf(" %s=%q", p.name, p.value)
	}
	return out
}

func TestRouter(t *testing.T) {
	const c = "/_matrix/client/v3/"
	rt := newRouter(t, []Route{
		route("GET", c+"rooms/{roomId}/state", nil),
		route("GET", c+"rooms/{roomId}/state/{eventType}/{stateKey}", nil, func(r *Route) {
			r.Also = []string{c + "rooms/{roomId}/state/{eventType}/"}
		}),
		route("PUT", c+"rooms/{roomId}/send/{eventType}/{txnId}", nil),
		route("GET", c+"profile/{userId}/{keyName}", nil),
		route("PUT", c+"profile/{userId}/{keyName}", nil),
		route("GET", c+"profile/{userId}/displayname", nil),
		route("GET", c+"pushrules/", nil),
		route("GET", c+"directory/room/{roomAlias}", nil),
		route("GET", c+"directory/{list}/public", nil),
		route("GET", "/_matrix/client/v1/media/{rest...}", nil),
		route("GET", "/_matrix/media/v3/config", nil),
		route("POST", "/_matrix/media/v1/create", nil),
		route("GET", "/_matrix/media/v3/special", nil),
		route("GET", "/_matrix/media/v1/special", nil),
	})
	cases := []struct{ method, path, want string }{
		{"GET", c + "rooms/!r/state", c + `rooms/{roomId}/state roomId="!r"`},
		{"GET", c + "rooms/!r/state/", "no "},
		{"GET", c + "rooms/!r/state/m.x/", c + `rooms/{roomId}/state/{eventType}/{stateKey} roomId="!r" eventType="m.x"`},
		{"GET", c + "rooms/!r/state/m.x", c + `rooms/{roomId}/state/{eventType}/{stateKey} roomId="!r" eventType="m.x"`},
		{"GET", c + "rooms/!r/state/m.x/k", c + `rooms/{roomId}/state/{eventType}/{stateKey} roomId="!r" eventType="m.x" stateKey="k"`},
		{"GET", c + "rooms/!r/state/m.x/k/", "no "},
		{"GET", c + "rooms//state", "no "},
		{"GET", c + "/rooms/!r/state", "no "},
		{"GET", "/" + c + "rooms/!r/state", "no "},

		// Each segment is decoded once, and a decoded slash is data.
		{"GET", c + "directory/room/%23a%2Fb%3Ax", c + `directory/room/{roomAlias} roomAlias="#a/b:x"`},
		{"GET", c + "directory/room/%252F", c + `directory/room/{roomAlias} roomAlias="%2F"`},
		{"GET", c + "directory/room/a+b", c + `directory/room/{roomAlias} roomAlias="a+b"`},
		{"GET", c + "directory%2Froom/x", "no "},
		{"GET", c + "d%69rectory/room/x", c + `directory/room/{roomAlias} roomAlias="x"`},
		{"GET", c + "directory/room/é", c + `directory/room/{roomAlias} roomAlias="é"`},
		{"GET", c + "directory/room/..", c + `directory/room/{roomAlias} roomAlias=".."`},
		{"GET", c + "directory/room/%2e%2E", c + `directory/room/{roomAlias} roomAlias=".."`},
		{"GET", c + "directory/room/x/../y", "no "},
		{"GET", c + "directory/room/%ff", "400"},
		{"GET", c + "directory/room/\xff", "400"},
		{"GET", c + "directory/room/a%00", "400"},
		{"GET", c + "directory/room/%", "400"},
		{"GET", c + "directory/room/%2", "400"},
		{"GET", c + "directory/room/%zz", "400"},
		{"GET", c + "direct%zzory/room/x", "no "},

		// A literal wins, but hides no method and no longer path.
		{"GET", c + "profile/@a/displayname", c + `profile/{userId}/displayname userId="@a"`},
		{"PUT", c + "profile/@a/displayname", c + `profile/{userId}/{keyName} userId="@a" keyName="displayname"`},
		{"DELETE", c + "profile/@a/displayname", "no GET,PUT"},
		{"GET", c + "directory/room/public", c + `directory/room/{roomAlias} roomAlias="public"`},
		{"GET", c + "directory/list/public", c + `directory/{list}/public list="list"`},

		{"GET", c + "pushrules/", c + "pushrules/"},
		{"GET", c + "pushrules", c + "pushrules/"},
		{"GET", c + "pushrules//", "no "},
		{"POST", c + "rooms/!r/send/a/b", "no PUT"},
		{"get", c + "pushrules", "no GET"},
		{"", c + "pushrules", "no GET"},

		{"GET", "/_matrix/client/v1/media/a/b%2Fc", `/_matrix/client/v1/media/{rest...} rest="a/b/c"`},
		{"GET", "/_matrix/client/v1/media/", "no "},
		{"GET", "/_matrix/client/v1/media", "no "},
		{"GET", "/_matrix/client/v1/media/a//b", "no "},

		// Older prefixes.
		{"PUT", "/_matrix/client/r0/rooms/!r/send/a/b", c + `rooms/{roomId}/send/{eventType}/{txnId} roomId="!r" eventType="a" txnId="b"`},
		{"GET", "/_matrix/client/api/v1/pushrules/", "no "},
		{"GET", "/_matrix/client/v1/pushrules/", "no "},
		{"GET", "/_matrix/media/r0/config", "/_matrix/media/v3/config"},
		{"GET", "/_matrix/media/v1/config", "/_matrix/media/v3/config"},
		{"POST", "/_matrix/media/v1/create", "/_matrix/media/v1/create"},
		{"POST", "/_matrix/media/r0/create", "no "},
		{"GET", "/_matrix/media/v1/special", "/_matrix/media/v1/special"},
		{"GET", "/_matrix/media/r0/special", "/_matrix/media/v3/special"},
		{"GET", "", "no "},
		{"GET", "/", "no "},
		{"GET", "*", "no "},
	}
	for _, tc := range cases {
		if got := lookup(rt, tc.method, tc.path); got != tc.want {
			t.Errorf("%s %s:\n got %s\nwant %s", tc.method, tc.path, got, tc.want)
		}
	}
}

func TestRouterRefusesBadTemplates(t *testing.T) {
	for _, template := range []string{
		"", "x", "/a//b", "/a/{}", "/a/{x", "/a/x}", "/a/b{x}", "/a/{x}/{x}", "/a/{x...}/b", "/a/{...}", "/a%20b",
		"/{a}/{b}/{c}/{d}/{e}/{f}/{g}",
	} {
		if err := (&router{}).add("GET", template, &endpoint{}, false); err == nil {
			t.Errorf("%q was accepted", template)
		}
	}
}

// TestEverySpecTemplateFindsItself fills each template with values that are hostile
// to a router and expects the same template and the same values back.
func TestEverySpecTemplateFindsItself(t *testing.T) {
	routes := specRoutes(t, nil)
	rt := newRouter(t, routes)
	for _, r := range routes {
		want, path := r.Path, ""
		for segment := range strings.SplitSeq(r.Path[1:], "/") {
			if name, ok := strings.CutPrefix(segment, "{"); ok {
				segment = "%21a%2Fb%25"
				want += fmt.Sprintf(" %s=%q", strings.TrimSuffix(name, "}"), "!a/b%")
			}
			path += "/" + segment
		}
		if got := lookup(rt, r.Method, path); got != want {
			t.Errorf("%s %s:\n got %s\nwant %s", r.Method, path, got, want)
		}
	}
}

func TestMatchingDoesNotAllocate(t *testing.T) {
	rt := newRouter(t, specRoutes(t, nil))
	for _, path := range []string{
		"/_matrix/client/v3/rooms/%21r%3Ax/send/m.room.message/t1",
		"/_matrix/client/v3/sync", "/_matrix/client/v3/nothing/like/this", "/_matrix/client/v3/login/sso/redirect",
	} {
		allocs := testing.AllocsPerRun(100, func() {
			s := search{method: "PUT"}
			rt.find(&s, path)
		})
		if allocs != 0 {
			t.Errorf("%s: %v allocations", path, allocs)
		}
	}
}

func BenchmarkRouter(b *testing.B) {
	routes := specRoutes(b, nil)
	for i := len(routes); i < 250; i++ {
		routes = append(routes, route("GET", fmt.Sprintf("/_synapse/admin/v1/thing%d/{id}", i), nil))
	}
	rt := newRouter(b, routes)
	for name, path := range map[string]string{
		"send":    "/_matrix/client/v3/rooms/!roomid/send/m.room.message/m1234.5",
		"escaped": "/_matrix/client/v3/rooms/%21room%3Ax/send/m.room.message/m1234.5",
		"missing": "/_matrix/client/v3/rooms/!roomid/send/m.room.message/m1234.5/more",
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			r := &Request{}
			for b.Loop() {
				s := search{method: "PUT"}
				if rt.find(&s, path) {
					if err := s.bind(r); err != nil {
						b.Fatal(err)
					}
				}
			}
		})
	}
}
