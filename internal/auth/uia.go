package auth

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/hubbub-chat/hubbub/internal/clock"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/merr"
)

// StageType names a stage of user-interactive authentication.
type StageType string

// The stages that exist here.
const (
	StageDummy             StageType = "m.login.dummy"
	StagePassword          StageType = "m.login.password"
	StageRegistrationToken StageType = "m.login.registration_token"
	StageEmail             StageType = "m.login.email.identity"
	StageSSO               StageType = "m.login.sso"
	// StageJWT has the name that the login of the same kind has; no specification knows
	// it as a stage.
	StageJWT StageType = "org.matrix.login.jwt"
)

// Flow is a sequence of stages, which are completed in its order.
type Flow []StageType

// Stage checks one kind of proof. Verify returns what is worth keeping of it, which
// the operation gets by UIAResult.Proof and which travels in the session until
// then (keep it below 256 bytes), or an error: one with status 401 means that the
// client may try again, any other ends the request as it is.
type Stage interface {
	Verify(ctx context.Context, r StageRequest) (proof string, err error)
}

// AwayStage is a stage that is completed elsewhere than in a request to the
// operation: one that brings the session alone asks whether it is. spec:
// client-server §User-Interactive Authentication API, fallback.
type AwayStage interface {
	Stage
	Away()
}

// StageRequest is what a stage sees of a request.
type StageRequest struct {
	// Operation is that of the UIARequest.
	Operation string
	// Caller is the user whose access token was sent, "" without one.
	Caller ids.UserID
	// Session is the random ID of the session, the same for all of its requests:
	// the place for what a later stage completes by other ways (a link in a mail).
	Session string
	// Begun is when the session was.
	Begun time.Time
	// Auth is the auth object as the client sent it.
	Auth jsontext.Value
}

// UIARequest is one request to an operation that needs authentication.
type UIARequest struct {
	// Operation names what the request would do, with the parameters of its path:
	// "DELETE /devices/ABC". A session is good for one operation of one caller.
	Operation string
	// Caller is the user whose access token was sent, "" without one.
	Caller ids.UserID
	// Auth is the member "auth" of the body, nil if there is none.
	Auth jsontext.Value
	// Flows are the ways to complete; at least one, each at least one stage.
	Flows []Flow
	// Params are the parameters that stages give to clients.
	Params map[StageType]any
}

// UIAResult says how a request was authenticated.
type UIAResult struct {
	// Session is the random ID of the session.
	Session string
	proofs  []stageProof
}

// Proof returns what a completed stage kept: the user ID for m.login.password, the
// token for m.login.registration_token. ok is false if the stage was not part of
// the flow.
func (r UIAResult) Proof(stage StageType) (proof string, ok bool) {
	for _, p := range r.proofs {
		if p.Stage == stage {
			return p.Proof, true
		}
	}
	return "", false
}

// UIA runs user-interactive authentication without keeping anything: the session
// that clients carry is a sealed box with the stages completed so far. So any node
// can answer any request of it, and abandoned sessions cost nothing.
//
// Because it changes with each stage, a client has to send the session of the last
// answer, as the specification has it. A server that keeps sessions in a store
// would serve a client that keeps the first one, for a write per request that
// anybody can cause.
//
// What is completed elsewhere (an AwayStage) is kept there, under the random ID of
// the session, and used up by the request that asks for it.
//
// What a box cannot do is be used up: until it expires, a session may be presented
// to more than one request of its operation and caller. For what needs a password
// that is harmless, since it is the caller's own and the same operation. For
// registration the user name can be taken only once; and a registration token that
// is good for one account must be consumed by the account store in the same commit
// that makes the account. ValidRegistrationToken is only a look.
//
// spec: client-server §User-Interactive Authentication API.
type UIA struct {
	sealer *Sealer
	clock  clock.Clock
	stages map[StageType]Stage
}

const (
	// sessionLife is how long a session may take: time to find a password or a mail.
	sessionLife = 10 * time.Minute
	// maxSkew is how far the clocks of two nodes may differ.
	maxSkew = time.Minute
	// sessionIDBytes makes session IDs unguessable.
	sessionIDBytes = 16
)

// NewUIA returns user-interactive authentication with the given stages.
func NewUIA(s *Secrets, c clock.Clock, stages map[StageType]Stage) *UIA {
	return &UIA{sealer: NewSealer(s, purposeUIA), clock: c, stages: stages}
}

// session is the content of the box.
type session struct {
	ID        string       `json:"i"`
	Operation string       `json:"o"`
	Caller    ids.UserID   `json:"u,omitempty"`
	Created   int64        `json:"t"` // milliseconds since 1970
	Proofs    []stageProof `json:"p,omitempty"`
}

type stageProof struct {
	Stage StageType `json:"s"`
	Proof string    `json:"p,omitempty"`
}

// Check returns the result if a flow is complete, else an error to answer with:
//
//   - 401 with flows, params, session and completed, without errcode if there was no
//     attempt, and with one if a stage failed and may be tried again, or if the
//     session is unknown or expired (the new one in the answer begins afresh);
//   - 403 M_FORBIDDEN if the session belongs to another operation or caller;
//   - 400 for a malformed auth object, and whatever else a stage returns.
func (u *UIA) Check(ctx context.Context, r UIARequest) (UIAResult, error) {
	stage, sealed, err := decodeAuth(r.Auth)
	if err != nil {
		return UIAResult{}, err
	}
	s, err := u.open(r, sealed)
	if err != nil {
		return UIAResult{}, err
	}
	if s == nil {
		failure := merr.New(http.StatusUnauthorized, merr.Unknown, "The session is unknown or has expired; start again")
		return UIAResult{}, u.challenge(r, u.begin(r), failure)
	}
	quiet := stage == "" // without an attempt there is no failure to tell of
	if quiet && sealed != "" {
		stage = u.away(r.Flows, s)
	}
	if stage != "" && !s.has(stage) {
		if !s.allows(r.Flows, stage) {
			failure := merr.New(http.StatusUnauthorized, merr.Forbidden, "This is not the next stage of any flow")
			return UIAResult{}, u.challenge(r, s, failure)
		}
		proof, err := u.verify(ctx, r, s, stage)
		e := merr.From(err)
		switch {
		case err == nil:
			s.Proofs = append(s.Proofs, stageProof{Stage: stage, Proof: proof})
		case e.Status != http.StatusUnauthorized:
			return UIAResult{}, err
		case !quiet:
			return UIAResult{}, u.challenge(r, s, e)
		}
	}
	if s.completes(r.Flows) {
		return UIAResult{Session: s.ID, proofs: s.Proofs}, nil
	}
	return UIAResult{}, u.challenge(r, s, merr.New(http.StatusUnauthorized, "", ""))
}

// decodeAuth reads what all auth objects have in common. Both are "" without one.
func decodeAuth(auth jsontext.Value) (stage StageType, sealed string, err error) {
	switch auth.Kind() {
	case 0, 'n':
		return "", "", nil
	case '{':
	default:
		return "", "", merr.BadJSONErr("auth must be an object")
	}
	var in struct {
		Type    StageType `json:"type"`
		Session string    `json:"session"`
	}
	if err := json.Unmarshal(auth, &in); err != nil {
		return "", "", merr.BadJSONErr("auth has a wrong form").Because(err)
	}
	return in.Type, in.Session, nil
}

// open returns the session of a request, a new one if it brings none, and nil if
// what it brings is not or no longer a session.
func (u *UIA) open(r UIARequest, sealed string) (*session, error) {
	if sealed == "" {
		return u.begin(r), nil
	}
	s, err := u.unseal(sealed)
	if err != nil || s == nil {
		return nil, err // nil is not an error: the client gets a new session
	}
	if s.Operation != r.Operation || s.Caller != r.Caller {
		return nil, merr.ForbiddenErr("The session was begun for another operation")
	}
	return s, nil
}

// unseal returns a session of this server that has not ended, or nil.
func (u *UIA) unseal(sealed string) (*session, error) {
	plain, err := u.sealer.Open(sealed)
	if err != nil {
		return nil, nil
	}
	var s session
	if err := json.Unmarshal(plain, &s); err != nil {
		return nil, fmt.Errorf("decode own session: %w", err)
	}
	if age := u.clock.Now().Sub(time.UnixMilli(s.Created)); age > sessionLife || age < -maxSkew || s.Operation == "" {
		return nil, nil
	}
	return &s, nil
}

// Pending is a session under way, as the page sees it on which an AwayStage is
// completed. Nothing in it proves that whoever shows the session is the caller.
type Pending struct {
	Session   string
	Operation string
	Caller    ids.UserID
	// Ends is when the session ends.
	Ends time.Time
}

// ConfirmHash is what is kept under of a stage that was completed elsewhere.
func ConfirmHash(session string) string { return Hash("uia:" + session) }

// Pending returns the session that a client carries; ok is false if it is none, or
// has ended.
func (u *UIA) Pending(sealed string) (p Pending, ok bool) {
	s, err := u.unseal(sealed)
	if err != nil || s == nil {
		return Pending{}, false
	}
	return Pending{s.ID, s.Operation, s.Caller, time.UnixMilli(s.Created).Add(sessionLife)}, true
}

func (u *UIA) begin(r UIARequest) *session {
	return &session{
		ID:        base64.RawURLEncoding.EncodeToString(randomBytes(sessionIDBytes)),
		Operation: r.Operation, Caller: r.Caller,
		Created: u.clock.Now().UnixMilli(),
	}
}

// away returns the stage that comes next in a flow and is completed elsewhere, ""
// if there is none.
func (u *UIA) away(flows []Flow, s *session) StageType {
	for name, stage := range u.stages {
		if _, ok := stage.(AwayStage); ok && s.allows(flows, name) {
			return name
		}
	}
	return ""
}

func (u *UIA) verify(ctx context.Context, r UIARequest, s *session, stage StageType) (string, error) {
	impl, ok := u.stages[stage]
	if !ok {
		return "", fmt.Errorf("stage %s is offered but not there", stage)
	}
	return impl.Verify(ctx, StageRequest{Operation: r.Operation, Caller: r.Caller, Session: s.ID, Begun: time.UnixMilli(s.Created), Auth: r.Auth})
}

// has reports whether a stage is completed. Such a stage is not tried again.
func (s *session) has(stage StageType) bool {
	return slices.ContainsFunc(s.Proofs, func(p stageProof) bool { return p.Stage == stage })
}

// leads reports whether the completed stages are the first ones of a flow.
func (s *session) leads(f Flow) bool {
	if len(s.Proofs) > len(f) {
		return false
	}
	for i, p := range s.Proofs {
		if f[i] != p.Stage {
			return false
		}
	}
	return true
}

// allows reports whether a stage is the next one of a flow.
func (s *session) allows(flows []Flow, stage StageType) bool {
	return slices.ContainsFunc(flows, func(f Flow) bool {
		return s.leads(f) && len(f) > len(s.Proofs) && f[len(s.Proofs)] == stage
	})
}

// completes reports whether the completed stages are a whole flow.
func (s *session) completes(flows []Flow) bool {
	return slices.ContainsFunc(flows, func(f Flow) bool {
		return len(f) > 0 && s.leads(f) && len(f) == len(s.Proofs)
	})
}

// challenge adds to a 401 what a client needs to go on.
func (u *UIA) challenge(r UIARequest, s *session, failure *merr.Error) error {
	type flowJSON struct {
		Stages Flow `json:"stages"`
	}
	flows := make([]flowJSON, len(r.Flows))
	for i, f := range r.Flows {
		flows[i].Stages = f
	}
	params := r.Params
	if params == nil {
		params = map[StageType]any{}
	}
	plain, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("encode session: %w", err)
	}
	e := failure.With("flows", flows).With("params", params).With("session", u.sealer.Seal(plain))
	if len(s.Proofs) == 0 {
		return e
	}
	completed := make([]StageType, len(s.Proofs))
	for i, p := range s.Proofs {
		completed[i] = p.Stage
	}
	return e.With("completed", completed)
}
