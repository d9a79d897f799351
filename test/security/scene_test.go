package security

import (
	"net/url"
	"strconv"
	"strings"
	"testing"

	"github.com/hubbub-chat/hubbub/internal/app/apptest"
)

const v3, v1 = "/_matrix/client/v3", "/_matrix/client/v1"

type object = apptest.Object

// secretType is a type of state that no summary and no invitation may hold.
const secretType = "test.secret"

func at(room string, segments ...string) string {
	out := v3 + "/rooms/" + url.PathEscape(room)
	for _, s := range segments {
		out += "/" + url.PathEscape(s)
	}
	return out
}

// cast are those who fill the rooms: bob is there from the beginning, carol comes in
// the last period.
type cast struct {
	server            *apptest.Server
	owner, bob, carol *apptest.Client
}

func newCast(t *testing.T, s *apptest.Server) cast {
	t.Helper()
	return cast{s, s.User(t, "owner"), s.User(t, "bob"), s.User(t, "carol")}
}

// scene is a room after its four periods, and the user whose rights are judged.
type scene struct {
	cast
	cell
	user *apptest.Client
	room string
	// since is the user's position before all periods.
	since string
	// said and states are the IDs of the events of each period.
	said, states [periods]string
	// period says in which period an event was sent; those about the user are left
	// out, for they are no secret.
	period map[string]int
	// canaries: true if the user may know.
	canaries map[string]bool
	txn      int
}

func newScene(t *testing.T, c cast, ce cell) *scene {
	t.Helper()
	sc := &scene{cast: c, cell: ce, period: map[string]int{}, canaries: map[string]bool{}}
	sc.user = c.server.User(t, strings.ReplaceAll(ce.visibility, "_", "")+"-"+ce.name)
	rule := "invite"
	if ce.knockable() {
		rule = "knock"
	}
	sc.room = c.owner.CreateRoom(t, object{
		"name": "a room",
		"initial_state": []object{
			{"type": "m.room.history_visibility", "content": object{"history_visibility": ce.visibility}},
			{"type": "m.room.join_rules", "content": object{"join_rule": rule}},
		},
		"invite": []string{c.bob.UserID},
	})
	sc.since = sc.user.Sync(t, "")["next_batch"].(string)
	c.bob.Join(t, sc.room)
	sc.callThem(t, c.bob, before)
	for p := range periods {
		if p > before {
			sc.act(t, ce.does[p-1])
		}
		sc.fill(t, p)
	}
	sc.member(t, c.owner, invite, c.carol)
	c.carol.Join(t, sc.room)
	sc.callThem(t, c.carol, after)
	c.owner.Must(t, "POST", at(sc.room, "receipt", "m.read", sc.said[after]), object{})
	c.owner.Must(t, "PUT", at(sc.room, "typing", c.owner.UserID), object{"typing": true, "timeout": 60000})
	sc.canaries[sc.canary("delayed", after)] = false
	c.owner.Must(t, "PUT", at(sc.room, "send", "m.room.message", sc.nextTxn())+"?org.matrix.msc4140.delay=600000",
		object{"msgtype": "m.text", "body": sc.canary("delayed", after)})
	sc.canaries[sc.said[after]] = ce.sees(after)
	sc.datePeriods(t)
	return sc
}

func (sc *scene) nextTxn() string {
	sc.txn++
	return strconv.Itoa(sc.txn)
}

// callThem gives a member a name that is theirs in this room only.
func (sc *scene) callThem(t *testing.T, who *apptest.Client, period int) {
	t.Helper()
	who.Must(t, "PUT", at(sc.room, "state", "m.room.member", who.UserID), object{
		"membership": "join", "displayname": sc.canary("nick", period),
	})
	sc.canaries[sc.canary("nick", period)] = sc.knowsSince(period)
}

func (sc *scene) member(t *testing.T, by *apptest.Client, action string, who *apptest.Client) {
	t.Helper()
	by.Must(t, "POST", at(sc.room, action), object{"user_id": who.UserID})
}

// act lets the user do something, or have it done to them.
func (sc *scene) act(t *testing.T, does string) {
	t.Helper()
	for _, d := range strings.Split(does, "+") {
		switch d {
		case "":
		case invite, kick, ban:
			sc.member(t, sc.owner, d, sc.user)
		case knock:
			sc.user.Must(t, "POST", v3+"/knock/"+url.PathEscape(sc.room), object{})
		default:
			sc.user.Must(t, "POST", at(sc.room, d), object{})
		}
	}
}

// fill is what happens in a period.
func (sc *scene) fill(t *testing.T, p int) {
	t.Helper()
	say := func(relates object) string {
		body := object{"msgtype": "m.text", "body": "findme " + sc.canary("said", p)}
		if relates != nil {
			body["m.relates_to"] = relates
		}
		return sc.owner.Must(t, "PUT", at(sc.room, "send", "m.room.message", sc.nextTxn()), body)["event_id"].(string)
	}
	sc.said[p] = say(nil)
	for _, root := range []int{before, third} {
		if p >= root {
			say(object{"rel_type": "m.thread", "event_id": sc.said[root]})
		}
	}
	sc.states[p] = sc.owner.Must(t, "PUT", at(sc.room, "state", secretType, ""), object{"v": sc.canary("state", p)})["event_id"].(string)
	sc.canaries[sc.canary("said", p)] = sc.sees(p)
	sc.canaries[sc.canary("state", p)] = sc.knowsState(p)
}

// datePeriods learns from the owner when each event was sent.
func (sc *scene) datePeriods(t *testing.T) {
	t.Helper()
	p := before
	chunk := sc.owner.Must(t, "GET", at(sc.room, "messages")+"?dir=f&limit=200", nil)["chunk"].([]any)
	dated := false
	for _, raw := range chunk {
		e := raw.(object)
		id := e["event_id"].(string)
		if dated && e["state_key"] != sc.user.UserID {
			sc.period[id] = p
		}
		// Until it is set, the visibility is "shared", and that event is seen by the
		// more permissive of the two.
		dated = dated || e["type"] == "m.room.history_visibility"
		if p < after && id == sc.states[p] {
			p++
		}
	}
	if len(chunk) == 0 || p != after {
		t.Fatalf("the owner does not see the whole room: period %d", p)
	}
}

// visible are the canaries of what was said in the periods that the user sees.
func (sc *scene) visible(among ...int) []string {
	var out []string
	for _, p := range among {
		if sc.sees(p) {
			out = append(out, sc.canary("said", p))
		}
	}
	return out
}
