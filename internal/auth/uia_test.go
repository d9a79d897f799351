package auth

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/hubbub-chat/hubbub/internal/clock"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/merr"
)

const (
	server = "example.org"
	alice  = ids.UserID("@alice:example.org")
	bob    = ids.UserID("@bob:example.org")
)

// accounts is an account store of two users and one registration token.
type accounts struct {
	fail  error
	calls int
}

func (a *accounts) VerifyPassword(_ context.Context, id Identifier, password string) (ids.UserID, bool, error) {
	a.calls++
	if id.Email == "bob@mail.example" {
		id.User = bob
	}
	known := id.User == alice || id.User == bob
	return id.User, known && password == "pw of "+id.User.Localpart(), a.fail
}

func (a *accounts) ValidRegistrationToken(_ context.Context, token string) (bool, error) {
	a.calls++
	return token == "tok", a.fail
}

type world struct {
	t        *testing.T
	clock    *clock.Manual
	accounts *accounts
	uia      *UIA
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, clock: clock.NewManual(time.UnixMilli(1e12)), accounts: &accounts{}}
	w.uia = w.node(1)
	return w
}

// node returns another node of the deployment with the secret.
func (w *world) node(secret byte) *UIA {
	return NewUIA(testSecrets(w.t, secret), w.clock, map[StageType]Stage{
		StageDummy:             NewDummyStage(),
		StagePassword:          NewPasswordStage(server, w.accounts),
		StageRegistrationToken: NewRegistrationTokenStage(w.accounts),
	})
}

// body is a 401 as clients see it.
type body struct {
	Flows []struct {
		Stages []string `json:"stages"`
	} `json:"flows"`
	Params    jsontext.Value `json:"params"`
	Session   string         `json:"session"`
	Completed []string       `json:"completed"`
	Errcode   *string        `json:"errcode"`
	Error     *string        `json:"error"`
}

// challenged expects a 401 with an errcode, or "" for none.
func challenged(t *testing.T, err error, errcode merr.Code) body {
	t.Helper()
	if err == nil {
		t.Fatal("not challenged")
	}
	e := merr.From(err)
	if e.Status != 401 {
		t.Fatalf("got %v", err)
	}
	raw, err := e.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	var b body
	if err := json.Unmarshal(raw, &b); err != nil {
		t.Fatal(err)
	}
	switch {
	case errcode == "" && (b.Errcode != nil || b.Error != nil):
		t.Fatalf("an error without an attempt: %s", raw)
	case errcode != "" && (b.Errcode == nil || *b.Errcode != string(errcode) || b.Error == nil || *b.Error == ""):
		t.Fatalf("want errcode %s: %s", errcode, raw)
	}
	if b.Session == "" || len(b.Flows) == 0 || b.Params.Kind() != '{' {
		t.Fatalf("incomplete: %s", raw)
	}
	return b
}

func auth(members ...string) jsontext.Value {
	var b strings.Builder
	b.WriteString("{")
	for i := 0; i < len(members); i += 2 {
		if i > 0 {
			b.WriteString(",")
		}
		value, _ := json.Marshal(members[i+1])
		b.WriteString(`"` + members[i] + `":` + string(value))
	}
	return jsontext.Value(b.String() + "}")
}

func dummy() UIARequest {
	return UIARequest{Operation: "POST /register", Flows: []Flow{{StageDummy}}}
}

func password(auth jsontext.Value) UIARequest {
	return UIARequest{Operation: "DELETE /devices/A", Caller: alice, Flows: []Flow{{StagePassword}}, Auth: auth}
}

func TestUIAWithoutAuth(t *testing.T) {
	w := newWorld(t)
	for _, a := range []string{``, `null`, `{}`, `{"session":null,"type":null}`} {
		r := dummy()
		r.Auth = jsontext.Value(a)
		r.Params = map[StageType]any{StageDummy: map[string]string{"k": "v"}}
		_, err := w.uia.Check(t.Context(), r)
		b := challenged(t, err, "")
		if len(b.Flows) != 1 || len(b.Flows[0].Stages) != 1 || b.Flows[0].Stages[0] != "m.login.dummy" || b.Completed != nil {
			t.Errorf("got %+v", b)
		}
		if string(b.Params) != `{"m.login.dummy":{"k":"v"}}` {
			t.Errorf("params %s", b.Params)
		}
	}
}

func TestUIADummy(t *testing.T) {
	w := newWorld(t)
	r := dummy()
	_, err := w.uia.Check(t.Context(), r)
	session := challenged(t, err, "").Session
	for _, a := range []jsontext.Value{auth("type", "m.login.dummy"), auth("type", "m.login.dummy", "session", session)} {
		r.Auth = a
		result, err := w.node(1).Check(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := result.Proof(StageDummy); !ok || result.Session == "" {
			t.Errorf("got %+v", result)
		}
	}
}

func TestUIAPassword(t *testing.T) {
	user := func(name string) string { return `{"type":"m.id.user","user":"` + name + `"}` }
	for _, tt := range []struct {
		name   string
		auth   string
		caller ids.UserID
		want   ids.UserID // "" for failure
		code   merr.Code
		status int
	}{
		{"localpart", `"identifier":` + user("alice") + `,"password":"pw of alice"`, alice, alice, "", 0},
		{"full ID", `"identifier":` + user("@alice:example.org") + `,"password":"pw of alice"`, alice, alice, "", 0},
		{"legacy", `"user":"alice","password":"pw of alice"`, alice, alice, "", 0},
		{"no identifier", `"password":"pw of alice"`, alice, alice, "", 0},
		{"no caller", `"user":"bob","password":"pw of bob"`, "", bob, "", 0},
		{"no caller, email", `"medium":"email","address":"Bob@mail.example","password":"pw of bob"`, "", bob, "", 0},
		{"wrong password", `"user":"alice","password":"pw of bob"`, alice, "", merr.Forbidden, 401},
		{"another's password", `"user":"bob","password":"pw of bob"`, alice, "", merr.Forbidden, 403},
		{"another's email", `"medium":"email","address":"bob@mail.example","password":"pw of bob"`, alice, "", merr.Forbidden, 403},
		{"another's email, wrong password", `"medium":"email","address":"bob@mail.example","password":"pw of alice"`, alice, "", merr.Forbidden, 401},
		{"other server", `"user":"@alice:evil.example","password":"pw of alice"`, alice, "", merr.Forbidden, 401},
		{"nobody", `"user":"carol","password":"pw of carol"`, "", "", merr.Forbidden, 401},
		{"no password", `"user":"alice"`, alice, "", merr.MissingParam, 400},
		{"nothing", `"password":"pw of alice"`, "", "", merr.MissingParam, 400},
		{"password a number", `"user":"alice","password":1`, alice, "", merr.BadJSON, 400},
		{"identifier a string", `"identifier":"alice","password":"x"`, alice, "", merr.BadJSON, 400},
		{"phone", `"identifier":{"type":"m.id.phone"},"password":"x"`, alice, "", merr.Unrecognized, 400},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := password(jsontext.Value(`{"type":"m.login.password",` + tt.auth + `}`))
			r.Caller = tt.caller
			w := newWorld(t)
			result, err := w.uia.Check(t.Context(), r)
			if tt.name == "another's password" && w.accounts.calls != 0 {
				t.Error("a password of another account was tried")
			}
			if tt.status == 401 {
				if b := challenged(t, err, tt.code); b.Completed != nil {
					t.Errorf("completed %v", b.Completed)
				}
				return
			}
			if tt.want == "" {
				if e := merr.From(err); err == nil || e.Status != tt.status || e.Code != tt.code {
					t.Errorf("got %v", err)
				}
				return
			}
			if proof, ok := result.Proof(StagePassword); err != nil || !ok || proof != string(tt.want) {
				t.Errorf("got %q %v %v", proof, ok, err)
			}
		})
	}
}

// TestUIARetry: after a wrong password the same session takes the right one.
func TestUIARetry(t *testing.T) {
	w := newWorld(t)
	_, err := w.uia.Check(t.Context(), password(auth("type", "m.login.password", "password", "no")))
	session := challenged(t, err, merr.Forbidden).Session
	_, err = w.uia.Check(t.Context(), password(auth("type", "m.login.password", "password", "pw of alice", "session", session)))
	if err != nil {
		t.Error(err)
	}
}

// TestUIAFlow goes through two stages, on two nodes, with mistakes.
func TestUIAFlow(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	r := UIARequest{Operation: "POST /register", Flows: []Flow{{StageRegistrationToken, StageDummy}}}
	_, err := w.uia.Check(ctx, r)
	s0 := challenged(t, err, "").Session

	r.Auth = auth("type", "m.login.dummy", "session", s0)
	_, err = w.uia.Check(ctx, r)
	if b := challenged(t, err, merr.Forbidden); b.Completed != nil {
		t.Errorf("out of order, completed %v", b.Completed)
	}
	r.Auth = auth("type", "m.login.registration_token", "token", "wrong", "session", s0)
	_, err = w.uia.Check(ctx, r)
	s0 = challenged(t, err, merr.Forbidden).Session

	r.Auth = auth("type", "m.login.registration_token", "token", "tok", "session", s0)
	_, err = w.node(1).Check(ctx, r)
	b := challenged(t, err, "")
	if len(b.Completed) != 1 || b.Completed[0] != "m.login.registration_token" || b.Session == s0 {
		t.Fatalf("got %+v", b)
	}
	s1 := b.Session

	calls := w.accounts.calls
	r.Auth = auth("type", "m.login.registration_token", "token", "wrong", "session", s1)
	_, err = w.uia.Check(ctx, r)
	if b := challenged(t, err, ""); len(b.Completed) != 1 || w.accounts.calls != calls {
		t.Errorf("a completed stage was tried again: %+v", b)
	}
	r.Auth = auth("session", s1)
	_, err = w.uia.Check(ctx, r)
	if b := challenged(t, err, ""); len(b.Completed) != 1 {
		t.Errorf("polling lost the stage: %+v", b)
	}

	r.Auth = auth("type", "m.login.dummy", "session", s1)
	result, err := w.node(1).Check(ctx, r)
	if err != nil {
		t.Fatal(err)
	}
	if token, ok := result.Proof(StageRegistrationToken); !ok || token != "tok" {
		t.Errorf("got %q", token)
	}
	if _, ok := result.Proof(StagePassword); ok {
		t.Error("a proof of a stage that was not there")
	}
}

// TestUIASessionID: the ID inside is the same through all stages, new per session.
func TestUIASessionID(t *testing.T) {
	w := newWorld(t)
	r := UIARequest{Operation: "x", Flows: []Flow{{StageRegistrationToken, StageDummy}}}
	var sessions [2]string
	for i := range sessions {
		r.Auth = auth("type", "m.login.registration_token", "token", "tok")
		_, err := w.uia.Check(t.Context(), r)
		sealed := challenged(t, err, "").Session
		first, err := w.uia.open(r, sealed)
		if err != nil || first == nil {
			t.Fatal(err)
		}
		r.Auth = auth("type", "m.login.dummy", "session", sealed)
		result, err := w.uia.Check(t.Context(), r)
		if err != nil || result.Session != first.ID || len(first.ID) < 22 {
			t.Errorf("got %q, then %q (%v)", first.ID, result.Session, err)
		}
		sessions[i] = result.Session
	}
	if sessions[0] == sessions[1] {
		t.Error("two sessions with one ID")
	}
}

func TestUIABinding(t *testing.T) {
	w := newWorld(t)
	_, err := w.uia.Check(t.Context(), password(nil))
	session := challenged(t, err, "").Session
	good := auth("type", "m.login.password", "password", "pw of alice", "session", session)
	for name, change := range map[string]func(*UIARequest){
		"operation":  func(r *UIARequest) { r.Operation = "DELETE /devices/B" },
		"caller":     func(r *UIARequest) { r.Caller = bob },
		"no caller":  func(r *UIARequest) { r.Caller = "" },
		"boundaries": func(r *UIARequest) { r.Caller, r.Operation = alice+"D", "ELETE /devices/A" },
	} {
		r := password(good)
		change(&r)
		if _, err := w.uia.Check(t.Context(), r); !merr.Is(err, merr.Forbidden) || merr.From(err).Status != 403 {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if _, err := w.uia.Check(t.Context(), password(good)); err != nil {
		t.Error(err)
	}
}

func TestUIAExpiry(t *testing.T) {
	for _, tt := range []struct {
		after time.Duration
		ok    bool
	}{{0, true}, {sessionLife, true}, {sessionLife + 1e6, false}, {-maxSkew, true}, {-maxSkew - 1e6, false}} {
		w := newWorld(t)
		_, err := w.uia.Check(t.Context(), dummy())
		r := dummy()
		r.Auth = auth("type", "m.login.dummy", "session", challenged(t, err, "").Session)
		w.clock.Advance(tt.after)
		_, err = w.uia.Check(t.Context(), r)
		if tt.ok {
			if err != nil {
				t.Errorf("after %v: %v", tt.after, err)
			}
			continue
		}
		r.Auth = auth("type", "m.login.dummy", "session", challenged(t, err, merr.Unknown).Session)
		if _, err := w.uia.Check(t.Context(), r); err != nil {
			t.Errorf("after %v: the new session fails: %v", tt.after, err)
		}
	}
}

// TestUIAExpiryIsOfTheSession: completing a stage does not prolong it.
func TestUIAExpiryIsOfTheSession(t *testing.T) {
	w := newWorld(t)
	r := UIARequest{Operation: "x", Flows: []Flow{{StageRegistrationToken, StageDummy}}}
	_, err := w.uia.Check(t.Context(), r)
	w.clock.Advance(sessionLife)
	r.Auth = auth("type", "m.login.registration_token", "token", "tok", "session", challenged(t, err, "").Session)
	_, err = w.uia.Check(t.Context(), r)
	w.clock.Advance(time.Second)
	r.Auth = auth("type", "m.login.dummy", "session", challenged(t, err, "").Session)
	_, err = w.uia.Check(t.Context(), r)
	if b := challenged(t, err, merr.Unknown); b.Completed != nil {
		t.Errorf("completed %v", b.Completed)
	}
}

func TestUIAForeignSession(t *testing.T) {
	w := newWorld(t)
	_, err := w.node(2).Check(t.Context(), dummy())
	for _, session := range []string{"x", challenged(t, err, "").Session, strings.Repeat("A", 100_000)} {
		r := dummy()
		r.Auth = auth("type", "m.login.dummy", "session", session)
		_, err := w.uia.Check(t.Context(), r)
		challenged(t, err, merr.Unknown)
	}
}

func TestUIAMalformed(t *testing.T) {
	w := newWorld(t)
	for _, a := range []string{`[]`, `"x"`, `1`, `true`, `{"type":1}`, `{"session":{}}`, `{"type":"a","type":"b"}`} {
		r := dummy()
		r.Auth = jsontext.Value(a)
		if _, err := w.uia.Check(t.Context(), r); !merr.Is(err, merr.BadJSON) {
			t.Errorf("%s: got %v", a, err)
		}
	}
	r := dummy()
	r.Auth = auth("type", "m.login.unheard")
	_, err := w.uia.Check(t.Context(), r)
	challenged(t, err, merr.Forbidden)
}

// TestUIAAlternatives: of two flows that share a beginning, either can be finished;
// a stage of no flow, or of the other one, does not help.
func TestUIAAlternatives(t *testing.T) {
	w := newWorld(t)
	flows := []Flow{{StageDummy, StagePassword}, {StageDummy, StageRegistrationToken}}
	first := UIARequest{Operation: "x", Flows: flows, Auth: auth("type", "m.login.dummy")}
	_, err := w.uia.Check(t.Context(), first)
	session := challenged(t, err, "").Session
	for _, a := range []jsontext.Value{
		auth("type", "m.login.registration_token", "token", "tok", "session", session),
		auth("type", "m.login.password", "user", "alice", "password", "pw of alice", "session", session),
	} {
		if _, err := w.uia.Check(t.Context(), UIARequest{Operation: "x", Flows: flows, Auth: a}); err != nil {
			t.Error(err)
		}
	}
	a := auth("type", "m.login.registration_token", "token", "tok", "session", session)
	_, err = w.uia.Check(t.Context(), UIARequest{Operation: "x", Flows: flows[:1], Auth: a})
	challenged(t, err, merr.Forbidden)
}

// TestUIAFlowsDoNotMix: the stages of one flow are worth nothing in another.
func TestUIAFlowsDoNotMix(t *testing.T) {
	w := newWorld(t)
	for _, other := range []Flow{{StageRegistrationToken}, {StagePassword, StageRegistrationToken}} {
		flows := []Flow{{StageDummy, StagePassword}, other}
		r := UIARequest{Operation: "x", Flows: flows, Auth: auth("type", "m.login.dummy")}
		_, err := w.uia.Check(t.Context(), r)
		r.Auth = auth("type", "m.login.registration_token", "token", "tok", "session", challenged(t, err, "").Session)
		_, err = w.uia.Check(t.Context(), r)
		challenged(t, err, merr.Forbidden)
	}
}

func TestUIAStoreFails(t *testing.T) {
	w := newWorld(t)
	w.accounts.fail = merr.LimitedErr(time.Second)
	_, err := w.uia.Check(t.Context(), password(auth("type", "m.login.password", "password", "pw of alice")))
	if merr.From(err).Status != 429 {
		t.Errorf("got %v", err)
	}
	boom := errors.New("boom")
	w.accounts.fail = boom
	r := UIARequest{Operation: "x", Flows: []Flow{{StageRegistrationToken}}, Auth: auth("type", "m.login.registration_token", "token", "tok")}
	if _, err := w.uia.Check(t.Context(), r); !errors.Is(err, boom) {
		t.Errorf("got %v", err)
	}
}

func TestUIARegistrationTokenForm(t *testing.T) {
	w := newWorld(t)
	r := UIARequest{Operation: "x", Flows: []Flow{{StageRegistrationToken}}}
	for _, tt := range []struct {
		auth string
		code merr.Code
	}{
		{`{"type":"m.login.registration_token"}`, merr.MissingParam},
		{`{"type":"m.login.registration_token","token":5}`, merr.BadJSON},
	} {
		r.Auth = jsontext.Value(tt.auth)
		if _, err := w.uia.Check(t.Context(), r); !merr.Is(err, tt.code) {
			t.Errorf("%s: got %v", tt.auth, err)
		}
	}
	for _, token := range []string{"", "a b", strings.Repeat("a", 65)} {
		r.Auth = auth("type", "m.login.registration_token", "token", token)
		_, err := w.uia.Check(t.Context(), r)
		challenged(t, err, merr.Forbidden)
	}
	if w.accounts.calls != 0 {
		t.Error("a malformed token reached the store")
	}
}

// TestUIAUnknownStageImplementation is a mistake of the program, not of the client.
func TestUIAUnknownStageImplementation(t *testing.T) {
	w := newWorld(t)
	r := UIARequest{Operation: "x", Flows: []Flow{{"m.login.terms"}}, Auth: auth("type", "m.login.terms")}
	_, err := w.uia.Check(t.Context(), r)
	if merr.From(err).Status != 500 {
		t.Errorf("got %v", err)
	}
	_, err = w.uia.Check(t.Context(), UIARequest{Operation: "x", Flows: []Flow{{}}})
	challenged(t, err, "")
}

func FuzzUIA(f *testing.F) {
	f.Add(`{"type":"m.login.password","identifier":{"type":"m.id.user","user":"alice"},"password":"pw of bob","session":"x"}`)
	f.Add(`{"type":"m.login.registration_token","token":"x"}`)
	w := &world{t: nil, clock: clock.NewManual(time.UnixMilli(1e12)), accounts: &accounts{}}
	secrets := testSecrets(f, 1)
	uia := NewUIA(secrets, w.clock, map[StageType]Stage{
		StagePassword: NewPasswordStage(server, w.accounts), StageRegistrationToken: NewRegistrationTokenStage(w.accounts),
	})
	flows := []Flow{{StagePassword}, {StageRegistrationToken, StageDummy}}
	f.Fuzz(func(t *testing.T, auth string) {
		_, err := uia.Check(context.Background(), UIARequest{Operation: "x", Caller: alice, Flows: flows, Auth: jsontext.Value(auth)})
		if err == nil {
			if !strings.Contains(auth, "pw of alice") && !strings.Contains(auth, `\u`) {
				t.Fatalf("authenticated by %s", auth)
			}
			return
		}
		if merr.From(err).Status >= 500 {
			t.Fatal(err)
		}
	})
}
