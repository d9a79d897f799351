// Package appservice knows the application services of a deployment: bridges and
// bots that an administrator has registered by files. It says whose token is
// whose and which users, aliases and rooms are a service's (Registry), asks
// services about what they may know (Client), keeps their room directories, and
// brings them the events of interest (Sender).
// spec: application-service §Application Services.
//
// Invariants: a Registry does not change after Load. A service is asked with a
// time limit; one that is slow or dead delays nobody but who asked for it. What a
// service is sent is sent in order, at least once, and a transaction that is sent
// again is the same to the byte.
//
// A nil *Registry has no services. All methods are safe for concurrent use.
package appservice

import (
	"crypto/sha256"
	"regexp"

	"github.com/hubbub-chat/hubbub/internal/ids"
)

// Service is a registered application service.
type Service struct {
	ID string
	// URL is where it is reached, without a slash at the end; "" if it wants
	// nothing sent.
	URL string
	// Sender is the user that it is when it does not say who.
	Sender ids.UserID
	// RateLimited: its users are under the limits of everyone; Sender never is.
	RateLimited bool
	// Ephemeral: it wants typing notices, receipts and to-device messages.
	Ephemeral bool
	// StableEphemeral: it asked for them by the name that the specification has.
	StableEphemeral bool
	// Encryption: it wants to know of changed devices and of its one-time keys.
	Encryption bool
	// Devices: it makes devices by itself and never logs in; LoginCode is what it
	// is told if it does.
	Devices   bool
	LoginCode string
	// Protocols are the third-party networks it knows.
	Protocols []string

	asToken [sha256.Size]byte // its hash
	hsToken string
	server  string

	users, aliases, rooms namespaces
}

// namespace is a set of names. spec: application-service §Registration.
type namespace struct {
	exclusive bool
	text      string
	re        *regexp.Regexp
}

type namespaces []namespace

func (n namespaces) has(name string) bool {
	for i := range n {
		if n[i].re.MatchString(name) {
			return true
		}
	}
	return false
}

func (n namespaces) exclusive(name string) bool {
	for i := range n {
		if n[i].exclusive && n[i].re.MatchString(name) {
			return true
		}
	}
	return false
}

// HasUser reports whether a user is the service's: its sender, or one of this
// server in its namespaces.
func (s *Service) HasUser(u ids.UserID) bool {
	return u == s.Sender || u.Server() == s.server && s.users.has(string(u))
}

// HasAlias reports whether an alias is in the service's namespaces.
func (s *Service) HasAlias(a ids.RoomAlias) bool { return s.aliases.has(string(a)) }

// HasRoom reports whether a room is in the service's namespaces.
func (s *Service) HasRoom(r ids.RoomID) bool { return s.rooms.has(string(r)) }

// Registry are the services of a deployment.
type Registry struct {
	list    []*Service
	byToken map[[sha256.Size]byte]*Service
	byID    map[string]*Service
}

// All lists the services in the order of their files.
func (r *Registry) All() []*Service {
	if r == nil {
		return nil
	}
	return r.list
}

// ByID returns a service, nil if there is none of that ID.
func (r *Registry) ByID(id string) *Service {
	if r == nil {
		return nil
	}
	return r.byID[id]
}

// ByToken returns the service whose as_token it is, nil if it is nobody's. What is
// compared are hashes: the time that takes tells nothing of a token.
func (r *Registry) ByToken(token string) *Service {
	if r == nil || len(r.list) == 0 || token == "" {
		return nil
	}
	return r.byToken[sha256.Sum256([]byte(token))]
}

// Owns reports whether a user is made by a service and nobody else.
func (r *Registry) Owns(u ids.UserID) bool { return r.ReservedUser(u, nil) }

// ReservedUser reports whether a user ID is kept for another service than by, which
// may be nil: in an exclusive namespace, or a service's sender.
func (r *Registry) ReservedUser(u ids.UserID, by *Service) bool {
	for _, s := range r.All() {
		if s != by && (u == s.Sender || u.Server() == s.server && s.users.exclusive(string(u))) {
			return true
		}
	}
	return false
}

// ReservedAlias reports whether an alias is in an exclusive namespace of another
// service than by, which may be nil.
func (r *Registry) ReservedAlias(a ids.RoomAlias, by *Service) bool {
	for _, s := range r.All() {
		if s != by && s.aliases.exclusive(string(a)) {
			return true
		}
	}
	return false
}
