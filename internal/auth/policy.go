package auth

import (
	_ "embed"
	"net/http"
	"strings"
	"unicode/utf8"

	"github.com/hubbub-chat/hubbub/internal/merr"
)

// MinPasswordLength is the shortest password in characters. NIST SP 800-63B: at
// least 8, and no rules of composition.
const MinPasswordLength = 8

// minLocalpartInPassword is the length from which a password must not contain the
// user's name: a name of one or two letters is in many good passwords.
const minLocalpartInPassword = 3

// maxAppended is how many digits and signs after a common password do not make it
// better. Eight of them could be a date.
const maxAppended = 8

//go:embed weakpasswords.txt
var weakPasswords string

// Policy says which passwords may be chosen. Make one with NewPolicy.
type Policy struct {
	allowWeak bool
	weak      map[string]struct{}
}

// NewPolicy returns the policy; allowWeak lets everything pass that is not empty and
// not too long, which suites of tests need.
func NewPolicy(allowWeak bool) *Policy {
	p := &Policy{allowWeak: allowWeak, weak: make(map[string]struct{})}
	for word := range strings.FieldsSeq(weakPasswords) {
		p.weak[word] = struct{}{}
	}
	return p
}

// Check returns nil if a user with the localpart may choose the password. Its errors
// are 400 M_WEAK_PASSWORD with a text for people, and 400 M_INVALID_PARAM for a
// password that is too long or not UTF-8.
// spec: client-server POST /register, M_WEAK_PASSWORD.
func (p *Policy) Check(password, localpart string) error {
	if err := checkPasswordLength(password); err != nil {
		return err
	}
	if !utf8.ValidString(password) {
		return merr.InvalidParamErr("The password is not UTF-8")
	}
	if password == "" {
		return weak("The password is empty")
	}
	if p.allowWeak {
		return nil
	}
	if utf8.RuneCountInString(password) < MinPasswordLength {
		return weak("The password needs at least %d characters", MinPasswordLength)
	}
	lower := strings.ToLower(password)
	name := strings.ToLower(localpart)
	if len(name) >= minLocalpartInPassword && strings.Contains(lower, name) {
		return weak("The password must not contain the user name")
	}
	if p.isCommon(lower) {
		return weak("This password is one of the first that others would guess. A few unrelated words make a good one")
	}
	return nil
}

// isCommon reports whether a password is on the list, also with digits or
// punctuation added at its end, which is what people do to a refused one.
func (p *Policy) isCommon(lower string) bool {
	if _, ok := p.weak[lower]; ok {
		return true
	}
	base := strings.TrimRight(lower, "0123456789!?.,-_@#$%&*+")
	_, ok := p.weak[base]
	return ok && len(lower)-len(base) <= maxAppended
}

func weak(format string, args ...any) error {
	return merr.New(http.StatusBadRequest, merr.WeakPassword, format, args...)
}
