package auth

import (
	"net/http"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/merr"
)

// Identifier is whom somebody claims to be: a user ID of this server, or an email
// address. Exactly one of User and Email is set.
type Identifier struct {
	User ids.UserID
	// Email is in lower case.
	Email string
}

// maxEmailBytes is the longest address of RFC 5321: 64, an @, and 255.
const maxEmailBytes = 320

// ParseIdentifier reads who a login request or the auth object of a password stage
// is about: its "identifier", or the older members "user", or "medium" and
// "address". A user is given by full ID or localpart, in any case of letters.
//
// Errors: 400 M_MISSING_PARAM, M_BAD_JSON or M_INVALID_PARAM; 400 M_UNRECOGNIZED
// for phone numbers and unknown types; 403 M_FORBIDDEN for users of another server
// and names that cannot exist here, with the text of a wrong password.
// spec: client-server §Identifier types.
func ParseIdentifier(object jsontext.Value, server string) (Identifier, error) {
	id, found, err := parseIdentifier(object, server)
	if err == nil && !found {
		err = merr.MissingParamErr("identifier is missing")
	}
	return id, err
}

// wrongLogin is the one answer to every wrong pair of name and password.
const wrongLogin = "Invalid username or password"

type identifierJSON struct {
	Type    string  `json:"type"`
	User    *string `json:"user"`
	Medium  *string `json:"medium"`
	Address *string `json:"address"`
}

func parseIdentifier(object jsontext.Value, server string) (id Identifier, found bool, err error) {
	var in struct {
		Identifier *identifierJSON `json:"identifier"`
		User       *string         `json:"user"`
		Medium     *string         `json:"medium"`
		Address    *string         `json:"address"`
	}
	if err := json.Unmarshal(object, &in); err != nil {
		return id, false, merr.BadJSONErr("The identifier has a wrong form").Because(err)
	}
	switch i := in.Identifier; {
	case i != nil:
	case in.User != nil:
		in.Identifier = &identifierJSON{Type: "m.id.user", User: in.User}
	case in.Medium != nil || in.Address != nil:
		in.Identifier = &identifierJSON{Type: "m.id.thirdparty", Medium: in.Medium, Address: in.Address}
	default:
		return id, false, nil
	}
	switch i := in.Identifier; i.Type {
	case "m.id.user":
		if i.User == nil {
			return id, true, merr.MissingParamErr("user is missing in the identifier")
		}
		id.User, err = parseUser(*i.User, server)
	case "m.id.thirdparty":
		if i.Medium == nil || i.Address == nil {
			return id, true, merr.MissingParamErr("medium or address is missing in the identifier")
		}
		id.Email, err = parseEmail(*i.Medium, *i.Address)
	case "m.id.phone":
		err = unsupported("Phone numbers are not supported")
	case "":
		err = merr.MissingParamErr("type is missing in the identifier")
	default:
		err = unsupported("Unknown type of identifier")
	}
	return id, true, err
}

func unsupported(text string) error {
	return merr.New(http.StatusBadRequest, merr.Unrecognized, "%s", text)
}

// parseUser reads a full user ID or a localpart.
func parseUser(s, server string) (ids.UserID, error) {
	local := s
	if strings.HasPrefix(s, "@") {
		full, err := ids.ParseUserID(s)
		if err != nil {
			return "", merr.InvalidParamErr("The user ID is malformed").Because(err)
		}
		if full.Server() != server {
			return "", merr.ForbiddenErr("The user belongs to another server")
		}
		local = full.Localpart()
	}
	user, err := ids.ParseLocalpart(strings.ToLower(local), server)
	if err != nil {
		return "", merr.ForbiddenErr(wrongLogin).Because(err)
	}
	return user, nil
}

func parseEmail(medium, address string) (string, error) {
	if medium != "email" {
		return "", unsupported("Of third-party identifiers only email is supported")
	}
	return CanonicalEmail(address)
}

// maxEmailLocal is the longest part before the @. RFC 5321 §4.5.3.1.1.
const maxEmailLocal = 64

// CanonicalEmail returns the form in which an address is stored, compared and
// written to: small letters, without anything that could end a header or add a
// recipient. Addresses that need quotes, and such outside of ASCII, are refused: 400
// M_INVALID_PARAM.
func CanonicalEmail(address string) (string, error) {
	address = strings.ToLower(address)
	local, domain, ok := strings.Cut(address, "@")
	ok = ok && len(local) <= maxEmailLocal && len(address) <= maxEmailBytes &&
		isDotted(local, "!#$%&'*+/=?^_`{|}~-") && isDotted(domain, "-") && strings.Contains(domain, ".")
	if !ok {
		return "", merr.InvalidParamErr("The email address is malformed")
	}
	return address, nil
}

// isDotted reports whether s is words of small letters, digits and the characters
// in more, with dots between them.
func isDotted(s, more string) bool {
	for word := range strings.SplitSeq(s, ".") {
		if word == "" {
			return false
		}
		for _, c := range []byte(word) {
			if (c < 'a' || c > 'z') && (c < '0' || c > '9') && strings.IndexByte(more, c) < 0 {
				return false
			}
		}
	}
	return true
}
