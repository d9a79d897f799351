package rooms_test

import (
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/hubbub-chat/hubbub/internal/app/apptest"
)

// TestRights asks every endpoint of a room on behalf of users in every relation
// to it, in a room of members and in one that anyone may read.
func TestRights(t *testing.T) {
	const header = "never invited knocking joined left kicked banned declined forgotten"
	// One status for each of them, in that order.
	const private = `
		GET messages?dir=b               403 403 403 200 200 200 200 403 403
		GET initialSync                  403 403 403 200 200 200 200 403 403
		GET context/before               403 403 403 200 200 200 200 403 403
		GET context/after                403 403 403 200 404 404 404 403 403
		GET event/before                 404 404 404 200 200 200 200 404 404
		GET event/after                  404 404 404 200 404 404 404 404 404
		GET state                        403 403 403 200 200 200 200 403 403
		GET state/m.room.name            403 403 403 200 200 200 200 403 403
		GET state/com.example/none       403 403 403 404 404 404 404 403 403
		GET members                      403 403 403 200 200 200 200 403 403
		GET joined_members               403 403 403 200 403 403 403 403 403
		GET aliases                      403 403 403 200 403 403 403 403 403
		GET v1:timestamp_to_event?dir=f&ts=0  403 403 403 200 200 200 200 403 403
		PUT send/m.room.message/TXN {}   403 403 403 200 403 403 403 403 403
		PUT state/com.example {}         403 403 403 403 403 403 403 403 403
		PUT redact/after/TXN {}          403 403 403 403 403 403 403 403 403
		POST receipt/m.read/before {}    403 403 403 200 403 403 403 403 403
		POST receipt/m.fully_read/before {}  403 403 403 200 403 403 403 403 403
		POST read_markers {}             403 403 403 200 403 403 403 403 403
		PUT typing/SELF {"typing":true}  403 403 403 200 403 403 403 403 403
		POST invite {"user_id":"EVE"}    403 403 403 403 403 403 403 403 403
		POST kick {"user_id":"ADMIN"}    403 403 403 403 403 403 403 403 403
		POST ban {"user_id":"EVE"}       403 403 403 403 403 403 403 403 403
		POST unban {"user_id":"EVE"}     403 403 403 400 403 403 403 403 403`
	const public = `
		GET messages?dir=b               200 200 200 200 200 200 200 200 200
		GET initialSync                  200 200 200 200 200 200 200 200 200
		GET context/before               200 200 200 200 200 200 200 200 200
		GET context/after                200 200 200 200 200 200 200 200 200
		GET event/after                  200 200 200 200 200 200 200 200 200
		GET state                        200 200 200 200 200 200 200 200 200
		GET state/m.room.name            200 200 200 200 200 200 200 200 200
		GET members                      200 200 200 200 200 200 200 200 200
		GET joined_members               403 403 403 200 403 403 403 403 403
		GET aliases                      200 200 200 200 200 200 200 200 200
		PUT send/m.room.message/TXN {}   403 403 403 200 403 403 403 403 403
		PUT state/com.example {}         403 403 403 403 403 403 403 403 403
		POST receipt/m.read/before {}    403 403 403 200 403 403 403 403 403
		PUT typing/SELF {"typing":true}  403 403 403 200 403 403 403 403 403`
	s := apptest.Start(t)
	admin, eve := s.User(t, "admin"), s.User(t, "eve")
	relations := strings.Fields(header)
	clients := make(map[string]*apptest.Client)
	for _, relation := range relations {
		clients[relation] = s.User(t, relation)
	}
	for visibility, table := range map[string]string{"shared": private, "world_readable": public} {
		t.Run(visibility, func(t *testing.T) {
			r := newMatrixRoom(t, admin, eve, clients, visibility)
			txn := 0
			for line := range strings.SplitSeq(strings.TrimSpace(table), "\n") {
				line = strings.TrimSpace(line)
				fields := strings.Fields(line)
				want := fields[len(fields)-len(relations):]
				request := fields[:len(fields)-len(relations)]
				for i, relation := range relations {
					txn++
					c := clients[relation]
					target, body := r.fill(request[1], c, txn), any(nil)
					if len(request) > 2 {
						body = r.fill(request[2], c, txn)
					}
					if strings.HasPrefix(request[1], "v1:") {
						target = "/_matrix/client/v1/rooms/" + url.PathEscape(r.id) + "/" + target[3:]
					} else {
						target = at(r.id) + "/" + target
					}
					status, raw, _ := c.Raw(t, request[0], target, body)
					if fmt.Sprint(status) != want[i] {
						t.Errorf("%s, %s: got %d, want %s: %s", strings.Join(request, " "), relation, status, want[i], raw)
					}
				}
			}
		})
	}
}

// matrixRoom is a room with a user in each relation to it.
type matrixRoom struct {
	id, before, after string
	admin, eve        *apptest.Client
}

func newMatrixRoom(t *testing.T, admin, eve *apptest.Client, c map[string]*apptest.Client, visibility string) *matrixRoom {
	t.Helper()
	r := &matrixRoom{admin: admin, eve: eve}
	r.id = admin.CreateRoom(t, object{
		"name": "room", "power_level_content_override": object{"invite": 50}, "initial_state": []object{
			{"type": "m.room.history_visibility", "content": object{"history_visibility": visibility}},
			{"type": "m.room.join_rules", "content": object{"join_rule": "knock"}},
		},
	})
	for _, relation := range []string{"invited", "joined", "left", "kicked", "banned", "declined", "forgotten"} {
		invite(t, admin, r.id, c[relation])
	}
	for _, relation := range []string{"joined", "left", "kicked", "banned", "forgotten"} {
		c[relation].Join(t, r.id)
	}
	r.before = admin.Send(t, r.id, "before")
	c["knocking"].Must(t, "POST", v3+"/knock/"+url.PathEscape(r.id), nil)
	leave(t, c["left"], r.id)
	leave(t, c["declined"], r.id)
	leave(t, c["forgotten"], r.id)
	c["forgotten"].Must(t, "POST", at(r.id, "forget"), nil)
	admin.Must(t, "POST", at(r.id, "kick"), object{"user_id": c["kicked"].UserID})
	admin.Must(t, "POST", at(r.id, "ban"), object{"user_id": c["banned"].UserID})
	r.after = admin.Send(t, r.id, "after")
	return r
}

func (r *matrixRoom) fill(s string, c *apptest.Client, txn int) string {
	return strings.NewReplacer(
		"/before", "/"+r.before, "/after", "/"+r.after, "TXN", fmt.Sprint(txn), "SELF", url.PathEscape(c.UserID),
		"EVE", r.eve.UserID, "ADMIN", r.admin.UserID,
	).Replace(s)
}

// TestNonsense sends what no client should to every endpoint that takes an ID or
// a body: it is refused and never an error of the server, which Do reports.
func TestNonsense(t *testing.T) {
	s := apptest.Start(t)
	alice := s.User(t, "alice")
	room := alice.CreateRoom(t, object{"preset": "public_chat"})
	ev := alice.Send(t, room, "x")
	paths := []string{
		"POST join/ROOM", "POST rooms/ROOM/join", "POST knock/ROOM", "POST rooms/ROOM/invite", "POST rooms/ROOM/kick",
		"POST rooms/ROOM/ban", "POST rooms/ROOM/unban", "GET rooms/ROOM/members", "GET rooms/ROOM/joined_members",
		"GET rooms/ROOM/state", "GET rooms/ROOM/state/TEXT/TEXT", "PUT rooms/ROOM/state/TEXT/TEXT", "PUT rooms/ROOM/send/TEXT/TEXT",
		"PUT rooms/ROOM/redact/EVENT/TEXT", "GET rooms/ROOM/event/EVENT", "GET rooms/ROOM/context/EVENT", "GET rooms/ROOM/messages", "GET rooms/ROOM/initialSync",
		"POST rooms/ROOM/receipt/TEXT/EVENT", "POST rooms/ROOM/receipt/m.read/EVENT", "POST rooms/ROOM/receipt/m.fully_read/EVENT",
		"POST rooms/ROOM/read_markers", "PUT rooms/ROOM/typing/USER", "GET rooms/ROOM/aliases", "GET directory/room/ALIAS",
		"PUT directory/room/ALIAS", "DELETE directory/room/ALIAS", "GET directory/list/room/ROOM", "PUT directory/list/room/ROOM",
		"GET publicRooms", "POST publicRooms", "POST createRoom", "POST rooms/ROOM/upgrade", "GET v1:rooms/ROOM/hierarchy",
		"GET v1:room_summary/ROOM", "GET v1:room_summary/ALIAS", "GET v1:mutual_rooms", "POST rooms/ROOM/report", "POST rooms/ROOM/report/EVENT",
		"POST users/USER/report",
	}
	long := strings.Repeat("x", 3000)
	texts := []string{"x", "%00", "!%00:x", "%ff", "%2F..%2F", "..", "$", "!", "#", "@", "!" + long, "$" + long, "%23" + long + ":x", long, "%23:x", "%23a:"}
	bodies := []any{
		nil, "", "x", "[]", "null", `"x"`, `{"a"`, `{"user_id":{},"room_id":[],"visibility":1,"typing":{},"m.read":{},"limit":"x","filter":1}`,
		`{"user_id":"\u0000","room_id":"\u0000","visibility":"\u0000","typing":true,"timeout":-9223372036854775808,"m.read":"$\u0000","since":"\u0000"}`,
		`{"limit":9223372036854775807,"filter":{"room_types":[null,"x"]}}`, strings.Repeat(`{"a":`, 200) + "1" + strings.Repeat("}", 200),
		`{"new_version":"12","additional_creators":["` + long + `"]}`, `{"reason":"` + long + `","score":9223372036854775807}`,
		`{"user_id":"@` + long + `:x","room_id":"!` + long + `","filter":{"generic_search_term":"` + long + `"}}`,
	}
	queries := []string{
		"", "?dir=b&limit=-9223372036854775808&from=s&to=t", "?dir=f&limit=9223372036854775807&filter=%7B%7D", "?at=s~&membership=%00",
		"?dir=b&from=" + long, "?dir=b&filter=" + long, "?format=%ff", "?limit=x&since=" + long, "?since=bjF-&server=%00", "?ts=99999999999999999999&dir=f",
		"?user_id=%00&from=%ff", "?max_depth=99999999999999999999&limit=1", "?suggested_only=%00&from=" + long,
	}
	for _, path := range paths {
		method, path, _ := strings.Cut(path, " ")
		fill := func(id, text string) string {
			good := strings.NewReplacer("ROOM", url.PathEscape(room), "EVENT", ev, "USER", alice.UserID, "ALIAS", "%23a:"+apptest.Name, "TEXT", "x")
			bad := strings.NewReplacer("ROOM", id, "EVENT", id, "USER", id, "ALIAS", id, "TEXT", text)
			base := v3 + "/"
			path, newer := strings.CutPrefix(path, "v1:")
			if newer {
				base = v1 + "/"
			}
			if id == "" {
				return base + good.Replace(path)
			}
			return base + bad.Replace(path)
		}
		for _, id := range texts {
			target := strings.ReplaceAll(fill(id, id), "#", "%23")
			if status, raw, _ := alice.Raw(t, method, target, object{}); status >= 500 {
				t.Errorf("%s %s: %d %s", method, target, status, raw)
			}
		}
		for _, b := range bodies {
			if status, raw, _ := alice.Raw(t, method, fill("", ""), b); status >= 500 {
				t.Errorf("%s %s with %v: %d %s", method, path, b, status, raw)
			}
		}
		for _, q := range queries {
			if status, raw, _ := alice.Raw(t, method, fill("", "")+q, nil); status >= 500 {
				t.Errorf("%s %s%s: %d %s", method, path, q, status, raw)
			}
		}
	}
}
