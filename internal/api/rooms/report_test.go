package rooms_test

import (
	"net/url"
	"strings"
	"testing"

	"github.com/hubbub-chat/hubbub/internal/app/apptest"
)

// TestReportRights: rooms and users are reported by anyone, events by those who
// are in the room and may see them.
func TestReportRights(t *testing.T) {
	s := apptest.Start(t)
	admin, eve := s.User(t, "admin"), s.User(t, "eve")
	relations := strings.Fields("never invited knocking joined left kicked banned declined forgotten")
	clients := make(map[string]*apptest.Client)
	for _, relation := range relations {
		clients[relation] = s.User(t, relation)
	}
	for _, visibility := range []string{"joined", "shared", "world_readable"} {
		r := newMatrixRoom(t, admin, eve, clients, visibility)
		hidden := admin.CreateRoom(t, nil)
		other := admin.Send(t, hidden, "elsewhere")
		why := object{"reason": "spam", "score": -100}
		for _, relation := range relations {
			c := clients[relation]
			c.Must(t, "POST", at(r.id, "report"), object{"reason": ""})
			c.Must(t, "POST", v3+"/users/"+url.PathEscape(eve.UserID)+"/report", object{"reason": "spam"})
			if relation == "joined" {
				c.Must(t, "POST", at(r.id, "report", r.after), why)
				c.Must(t, "POST", at(r.id, "report", r.after), nil)
			} else {
				c.Fails(t, "POST", at(r.id, "report", r.after), why, 404, "M_NOT_FOUND")
			}
			c.Fails(t, "POST", at(r.id, "report", other), why, 404, "M_NOT_FOUND")
			c.Fails(t, "POST", at(hidden, "report", other), why, 404, "M_NOT_FOUND")
		}
		if visibility == "joined" {
			eve.Fails(t, "POST", at(r.id, "report", r.after), why, 404, "M_NOT_FOUND")
			invite(t, admin, r.id, eve)
			eve.Join(t, r.id)
			eve.Fails(t, "POST", at(r.id, "report", r.after), why, 404, "M_NOT_FOUND") // before eve was there
		}
	}
}

func TestReportInput(t *testing.T) {
	s := apptest.Start(t)
	alice := s.User(t, "alice")
	room := alice.CreateRoom(t, nil)
	ev := at(room, "report", alice.Send(t, room, "x"))
	user := v3 + "/users/" + url.PathEscape(alice.UserID) + "/report"
	for _, path := range []string{at(room, "report"), user} {
		alice.Fails(t, "POST", path, object{}, 400, "M_MISSING_PARAM")
	}
	for _, path := range []string{at(room, "report"), ev, user} {
		alice.Must(t, "POST", path, object{"reason": strings.Repeat("x", 4000)})
		alice.Fails(t, "POST", path, object{"reason": strings.Repeat("x", 4001)}, 413, "M_TOO_LARGE")
		alice.Fails(t, "POST", path, object{"reason": 1}, 400, "M_BAD_JSON")
		s.Anonymous().Fails(t, "POST", path, object{"reason": ""}, 401, "M_MISSING_TOKEN")
	}
	for _, score := range []any{1, -101, 1e9} {
		alice.Fails(t, "POST", ev, object{"reason": "x", "score": score}, 400, "M_INVALID_PARAM")
	}
	alice.Fails(t, "POST", ev, object{"score": 0.5}, 400, "M_BAD_JSON")
	alice.Must(t, "POST", ev, object{"score": 0})
	alice.Fails(t, "POST", at("!none", "report"), object{"reason": ""}, 404, "M_NOT_FOUND")
	alice.Fails(t, "POST", at("!none", "report", "$none"), object{"reason": ""}, 404, "M_NOT_FOUND")
	alice.Fails(t, "POST", at(room, "report", "$none"), object{"reason": ""}, 404, "M_NOT_FOUND")
	alice.Fails(t, "POST", v3+"/users/@none:x/report", object{"reason": ""}, 404, "M_NOT_FOUND")
	alice.Fails(t, "POST", v3+"/users/none/report", object{"reason": ""}, 400, "M_INVALID_PARAM")
}
