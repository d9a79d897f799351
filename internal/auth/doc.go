// Package auth proves identities: it hashes and checks passwords, makes and reads
// tokens, runs user-interactive authentication, and seals what a server hands to a
// client to get back later.
//
// It has no storage. The account store keeps the hashes, answers the questions in
// the small interfaces here (PasswordVerifier, RegistrationTokenVerifier), and
// consumes what may be used once.
//
// What is handed out is stateless, so that any node serves anyone: a token names
// the user, whose partition holds the rest; a session of user-interactive
// authentication and a registration nonce are sealed boxes (see Sealer) that every
// node of the deployment can open.
//
// Invariants: secrets come from crypto/rand and are compared in constant time; no
// error text or error value contains a password, a token or a key; the memory and
// time that passwords cost are bounded, whatever arrives (see Hasher).
//
// Every type is safe for concurrent use, and none has goroutines.
package auth
