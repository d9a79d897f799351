package roomstate

import (
	"crypto/ed25519"
	"encoding/base64"
	"slices"
	"strings"

	"github.com/hubbub-chat/hubbub/internal/event"
	"github.com/hubbub-chat/hubbub/internal/ids"
)

// memberRule is rule 4, in version 12 rule 5.
//
// 4.2, the signature of the server of join_authorised_via_users_server, has
// nothing to check without federation. So that key is worth what the caller
// makes of it: whoever takes a join from a client removes the key and sets it
// only after seeing that the user fulfils the conditions of the join rules.
func (f *facts) memberRule(ev *event.Event) error {
	// 4.1. That the key is a user ID is a matter of form.
	if ev.StateKey == nil || f.member.Membership == event.NoMembership {
		return f.reject("4.1", "A membership needs a user and a membership")
	}
	if _, err := ids.ParseUserID(*ev.StateKey); err != nil {
		return f.reject("4.1", "The state key of a membership is a user ID")
	}
	switch f.member.Membership {
	case event.Join:
		return f.joinRule(ev)
	case event.Invite:
		return f.inviteRule(ev)
	case event.Leave:
		return f.leaveRule(ev)
	case event.Ban:
		return f.banRule(ev)
	case event.Knock:
		if f.version.Knocking {
			return f.knockRule(ev)
		}
	}
	return f.reject("4.8", "Unknown membership") // 4.8
}

// joinRule is 4.3, 12: 5.3.
func (f *facts) joinRule(ev *event.Event) error {
	self := *ev.StateKey == string(ev.Sender)
	// 4.3.1. The rule says only that the key is the creator; that the creator
	// sends it is asked too, or another user could join them to the room.
	if self && len(ev.PrevEvents) == 1 && ev.PrevEvents[0] == f.create.ID && f.isMaker(ev.Sender) {
		return nil
	}
	if !self { // 4.3.2
		return f.reject("4.3.2", "Nobody can join another user")
	}
	current := membershipOf(f.sender)
	if current == event.Ban { // 4.3.3
		return f.reject("4.3.3", "You are banned from this room")
	}
	known := current == event.Invite || current == event.Join
	switch f.rule() {
	case event.JoinRuleInvite, event.JoinRuleKnock: // 4.3.4
		if known {
			return nil
		}
		return f.reject("4.3.7", "You are not invited to this room")
	case event.JoinRuleRestricted, event.JoinRuleKnockRestricted: // 4.3.5
		if known || f.vouched() { // 4.3.5.1, 4.3.5.3
			return nil
		}
		return f.reject("4.3.5.2", "You do not fulfil the conditions to join this room")
	case event.JoinRulePublic: // 4.3.6
		return nil
	}
	return f.reject("4.3.7", "Nobody can join this room") // 4.3.7
}

// isMaker reports whether the user made the room. spec: 10: 4.3.1 "the
// creator", from 11 on "the sender of the m.room.create".
func (f *facts) isMaker(user ids.UserID) bool {
	if f.version.CreatorInContent {
		return user == f.create.Create().Creator
	}
	return user == f.create.Sender
}

// rule is the join rule in force: one that the version does not have is not
// known and lets nobody in.
func (f *facts) rule() event.JoinRule {
	if f.joinRules == nil {
		return event.JoinRuleInvite
	}
	return knownRule(f.version, f.joinRules.JoinRules().Rule)
}

// knownRule is a join rule, or "" if the version does not have it.
func knownRule(v event.Version, rule event.JoinRule) event.JoinRule {
	known := true
	switch rule {
	case event.JoinRuleKnock:
		known = v.Knocking
	case event.JoinRuleRestricted:
		known = v.Restricted
	case event.JoinRuleKnockRestricted:
		known = v.KnockRestricted
	}
	if !known {
		return ""
	}
	return rule
}

// vouched is 4.3.5.2: whether a member who may invite stands for the join.
func (f *facts) vouched() bool {
	who := f.member.Authoriser
	return who != "" && membershipOf(f.authoriser) == event.Join &&
		f.powers.Of(who) >= f.powers.Level(event.LevelInvite)
}

// inviteRule is 4.4, 12: 5.4.
func (f *facts) inviteRule(ev *event.Event) error {
	if f.member.ThirdPartyInvite != nil {
		return f.thirdPartyRule(ev)
	}
	if membershipOf(f.sender) != event.Join { // 4.4.2
		return f.reject("4.4.2", "You are not in this room")
	}
	switch membershipOf(f.target) { // 4.4.3
	case event.Join:
		return f.reject("4.4.3", "The user is already in the room")
	case event.Ban:
		return f.reject("4.4.3", "The user is banned from the room")
	}
	if f.powers.Of(ev.Sender) < f.powers.Level(event.LevelInvite) { // 4.4.5
		return f.reject("4.4.5", "You do not have the power to invite")
	}
	return nil // 4.4.4
}

// thirdPartyRule is 4.4.1, 12: 5.4.1: an invite of whoever owns an address.
func (f *facts) thirdPartyRule(ev *event.Event) error {
	if membershipOf(f.target) == event.Ban { // 4.4.1.1
		return f.reject("4.4.1.1", "The user is banned from the room")
	}
	signed, ok := event.Field(f.member.ThirdPartyInvite, "signed")
	if !ok { // 4.4.1.2
		return f.reject("4.4.1.2", "The third-party invite is not signed")
	}
	user, hasUser := event.StringField(signed, "mxid")
	_, hasToken := event.StringField(signed, "token")
	switch {
	case !hasUser || !hasToken: // 4.4.1.3
		return f.reject("4.4.1.3", "The third-party invite names no user or no token")
	case user != *ev.StateKey: // 4.4.1.4
		return f.reject("4.4.1.4", "The third-party invite is for another user")
	case f.token == nil: // 4.4.1.5
		return f.reject("4.4.1.5", "There is no such third-party invite in the room")
	case f.token.Sender != ev.Sender: // 4.4.1.6
		return f.reject("4.4.1.6", "The third-party invite is of another user")
	case !signedByAny(signed, publicKeys(f.token.Content)): // 4.4.1.8
		return f.reject("4.4.1.8", "The signature of the third-party invite is not valid")
	}
	return nil // 4.4.1.7
}

// leaveRule is 4.5, 12: 5.5: leaving, rejecting, kicking, unbanning.
func (f *facts) leaveRule(ev *event.Event) error {
	if *ev.StateKey == string(ev.Sender) { // 4.5.1
		switch membershipOf(f.sender) {
		case event.Invite, event.Join, event.Knock:
			return nil
		}
		return f.reject("4.5.1", "You are not in this room")
	}
	if membershipOf(f.sender) != event.Join { // 4.5.2
		return f.reject("4.5.2", "You are not in this room")
	}
	power := f.powers.Of(ev.Sender)
	if membershipOf(f.target) == event.Ban && power < f.powers.Level(event.LevelBan) { // 4.5.3
		return f.reject("4.5.3", "You do not have the power to unban")
	}
	if power < f.powers.Level(event.LevelKick) || f.powers.Of(ids.UserID(*ev.StateKey)) >= power { // 4.5.5
		return f.reject("4.5.5", "You do not have the power to remove this user")
	}
	return nil // 4.5.4
}

// banRule is 4.6, 12: 5.6.
func (f *facts) banRule(ev *event.Event) error {
	if membershipOf(f.sender) != event.Join { // 4.6.1
		return f.reject("4.6.1", "You are not in this room")
	}
	power := f.powers.Of(ev.Sender)
	if power < f.powers.Level(event.LevelBan) || f.powers.Of(ids.UserID(*ev.StateKey)) >= power { // 4.6.3
		return f.reject("4.6.3", "You do not have the power to ban this user")
	}
	return nil // 4.6.2
}

// knockRule is 4.7, 12: 5.7.
func (f *facts) knockRule(ev *event.Event) error {
	switch f.rule() { // 4.7.1
	case event.JoinRuleKnock, event.JoinRuleKnockRestricted:
	default:
		return f.reject("4.7.1", "This room does not take knocks")
	}
	if *ev.StateKey != string(ev.Sender) { // 4.7.2
		return f.reject("4.7.2", "Nobody can knock for another user")
	}
	switch membershipOf(f.sender) { // 4.7.4
	case event.Ban:
		return f.reject("4.7.4", "You are banned from this room")
	case event.Invite, event.Join:
		return f.reject("4.7.4", "You may enter this room without knocking")
	}
	return nil // 4.7.3
}

// publicKeys returns the keys of an m.room.third_party_invite.
// spec: 4.4.1.7.1 and 4.4.1.7.2; client-server §m.room.third_party_invite.
func publicKeys(content []byte) (keys []ed25519.PublicKey) {
	add := func(object []byte) {
		text, _ := event.StringField(object, "public_key")
		if key := decodeBase64(text); len(key) == ed25519.PublicKeySize {
			keys = append(keys, key)
		}
	}
	add(content)
	list, _ := event.Field(content, "public_keys")
	for entry := range event.Elements(list) {
		add(entry)
	}
	return keys
}

// maxSignatureChecks bounds the pairs of a signature and a key that one invite
// can make the server try: each costs some 50 µs, and the sender chooses both.
// An identity server gives one signature, and two keys at most.
const maxSignatureChecks = 16

// signedByAny reports whether one signature of a signed object was made with
// one of the keys. spec: appendices §Checking for a Signature.
func signedByAny(signed []byte, keys []ed25519.PublicKey) bool {
	message := event.DropField(nil, event.DropField(nil, signed, "signatures"), "unsigned")
	signatures, _ := event.Field(signed, "signatures")
	checks := 0
	for _, entity := range event.Members(signatures) {
		for name, raw := range event.Members(entity) {
			text, _ := event.String(raw)
			signature := decodeBase64(text)
			if !strings.HasPrefix(name, "ed25519:") || len(signature) != ed25519.SignatureSize {
				continue
			}
			if checks += len(keys); checks > maxSignatureChecks {
				return false
			}
			if slices.ContainsFunc(keys, func(key ed25519.PublicKey) bool {
				return ed25519.Verify(key, message, signature)
			}) {
				return true
			}
		}
	}
	return false
}

// decodeBase64 reads either alphabet, padded or not; nil if it is neither.
// spec: appendices §Unpadded Base64.
func decodeBase64(text string) []byte {
	text = strings.TrimRight(text, "=")
	encoding := base64.RawStdEncoding
	if strings.ContainsAny(text, "-_") {
		encoding = base64.RawURLEncoding
	}
	b, err := encoding.DecodeString(text)
	if err != nil {
		return nil
	}
	return b
}
