package account

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/hubbub-chat/hubbub/internal/event"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/merr"
	"github.com/hubbub-chat/hubbub/internal/partition"
	"github.com/hubbub-chat/hubbub/internal/storage"
	"github.com/hubbub-chat/hubbub/internal/tables"
)

// The usages of cross-signing keys. spec: client-server §Cross-signing.
const (
	UsageMaster      = "master"
	UsageSelfSigning = "self_signing"
	UsageUserSigning = "user_signing"
)

const ed25519Prefix = "ed25519:"

// CrossSigning are a user's cross-signing keys as they were uploaded, nil where
// there is none.
type CrossSigning struct {
	Master      jsontext.Value `json:"master,omitempty"`
	SelfSigning jsontext.Value `json:"self_signing,omitempty"`
	UserSigning jsontext.Value `json:"user_signing,omitempty"`
}

func (p Place) crossSigning() storage.Key { return p.key(tables.CrossSigning, "") }

// signatures are what the user's keys signed of one key: signature by key ID.
type signatures struct {
	Sigs map[string]string `json:"sigs"`
	// Seq is the Stream row of the last signature of another user's key.
	Seq ids.Seq `json:"seq,omitempty"`
}

// signature is the row of the signatures that the user made of a key: a device
// by its ID, a master key by its public key.
func (p Place) signature(owner ids.UserID, key string) storage.Key {
	return p.key(tables.KeySignature, partition.JoinSort(string(owner), key))
}

// crossSigningKey is the form of a cross-signing key.
type crossSigningKey struct {
	UserID     ids.UserID                   `json:"user_id"`
	Usage      []string                     `json:"usage"`
	Keys       map[string]string            `json:"keys"`
	Signatures map[string]map[string]string `json:"signatures"`
}

// CheckCrossSigningKey checks the form of a user's cross-signing key. The error is
// M_BAD_JSON or M_INVALID_PARAM. spec: client-server §POST
// /keys/device_signing/upload, CrossSigningKey.
func CheckCrossSigningKey(user ids.UserID, usage string, raw jsontext.Value) error {
	if len(raw) > MaxKeyBytes {
		return merr.TooLargeErr("A cross-signing key is larger than %d bytes", MaxKeyBytes)
	}
	var k crossSigningKey
	if err := json.Unmarshal(raw, &k); err != nil {
		return merr.BadJSONErr("The %s key has a wrong form", usage).Because(err)
	}
	switch {
	case k.UserID != user:
		return merr.InvalidParamErr("The %s key has the user_id of another user", usage)
	case !slices.Contains(k.Usage, usage):
		return merr.InvalidParamErr("The %s key has another usage", usage)
	case publicKey(raw) == nil:
		return merr.InvalidParamErr("The %s key needs exactly one ed25519 key, named by itself", usage)
	}
	return nil
}

// publicKey returns the one public key of a cross-signing key, nil if there is
// none.
func publicKey(raw jsontext.Value) ed25519.PublicKey {
	var k crossSigningKey
	if raw == nil || json.Unmarshal(raw, &k) != nil || len(k.Keys) != 1 {
		return nil
	}
	for id, key := range k.Keys {
		if id == ed25519Prefix+key {
			return decodeKey(key)
		}
	}
	return nil
}

func decodeKey(text string) ed25519.PublicKey {
	b, err := base64.RawStdEncoding.DecodeString(text)
	if err != nil || len(b) != ed25519.PublicKeySize {
		return nil
	}
	return b
}

func encodeKey(k ed25519.PublicKey) string { return base64.RawStdEncoding.EncodeToString(k) }

// signedBytes returns what the signatures of an object are over. spec: appendices
// §Signing JSON.
func signedBytes(raw jsontext.Value) ([]byte, error) {
	var members map[string]jsontext.Value
	if err := json.Unmarshal(raw, &members); err != nil {
		return nil, fmt.Errorf("decode signed object: %w", err)
	}
	delete(members, "signatures")
	delete(members, "unsigned")
	b, err := json.Marshal(members)
	if err != nil {
		return nil, fmt.Errorf("encode signed object: %w", err)
	}
	return event.Canonical(nil, b)
}

// verify reports whether a signature of an object is good.
func verify(raw jsontext.Value, key ed25519.PublicKey, signature string) bool {
	sig, err := base64.RawStdEncoding.DecodeString(signature)
	if err != nil || key == nil || len(sig) != ed25519.SignatureSize {
		return false
	}
	message, err := signedBytes(raw)
	return err == nil && ed25519.Verify(key, message, sig)
}

// ErrProof: cross-signing keys are about to be replaced, which needs a proof of
// who the caller is.
var ErrProof = errors.New("account: replacing cross-signing keys needs authentication")

// SetCrossSigning stores cross-signing keys, which have been checked; nil leaves a
// key as it is, but with a new master key those it has not signed end. ErrProof
// if there are other keys already and Proven is not set: the first keys, and the same
// keys again, need no proof. spec: client-server §POST
// /keys/device_signing/upload.
type SetCrossSigning struct {
	command
	Keys   CrossSigning
	Proven bool

	tell announcement
}

// NewSetCrossSigning returns the command.
func NewSetCrossSigning(user ids.UserID, keys CrossSigning, proven bool) *SetCrossSigning {
	return &SetCrossSigning{command: command{user}, Keys: keys, Proven: proven}
}

var _ partition.Command = (*SetCrossSigning)(nil)

// Name implements partition.Command.
func (c *SetCrossSigning) Name() string { return "set_cross_signing" }

// Prepare implements partition.Command.
func (c *SetCrossSigning) Prepare(ctx context.Context, p *partition.Prep) error {
	if err := p.Pin(ctx, c.at(p).crossSigning()); err != nil {
		return err
	}
	return c.tell.prepare(ctx, p, c.at(p))
}

// Apply implements partition.Command.
func (c *SetCrossSigning) Apply(tx *partition.Tx) (any, error) {
	p := c.in(tx)
	var old CrossSigning
	if row := get[CrossSigning](tx, p.crossSigning()); row != nil {
		old = *row
	}
	next := old
	newMaster := !same(old.Master, c.Keys.Master)
	if newMaster {
		next = CrossSigning{Master: c.Keys.Master}
	}
	if !same(next.SelfSigning, c.Keys.SelfSigning) {
		next.SelfSigning = c.Keys.SelfSigning
	}
	if !same(next.UserSigning, c.Keys.UserSigning) {
		next.UserSigning = c.Keys.UserSigning
	}
	seen := newMaster || string(next.SelfSigning) != string(old.SelfSigning)
	if !seen && string(next.UserSigning) == string(old.UserSigning) {
		return nil, nil
	}
	if old.Master != nil && !c.Proven {
		return nil, ErrProof
	}
	for _, k := range []jsontext.Value{c.Keys.SelfSigning, c.Keys.UserSigning} {
		if err := signedByMaster(p.User, next.Master, k); err != nil {
			return nil, err
		}
	}
	if newMaster {
		// What the keys before signed, or had signed, says nothing any more.
		tx.DeletePrefix(p.key(tables.KeySignature, ""))
	}
	put(tx, p.crossSigning(), &next)
	if !seen { // the user-signing key is nobody else's business
		changedOwn(tx, p)
		return nil, nil
	}
	return nil, c.tell.apply(tx, p)
}

// same reports whether an uploaded key is the one there is, or none: signatures
// aside.
func same(old, uploaded jsontext.Value) bool {
	if uploaded == nil {
		return true
	}
	if old == nil {
		return false
	}
	a, err := signedBytes(old)
	b, err2 := signedBytes(uploaded)
	return err == nil && err2 == nil && string(a) == string(b)
}

func signedByMaster(user ids.UserID, master, key jsontext.Value) error {
	if key == nil {
		return nil
	}
	if master == nil {
		return merr.MissingParamErr("There is no master key")
	}
	var k crossSigningKey
	if err := json.Unmarshal(key, &k); err != nil {
		return merr.BadJSONErr("A cross-signing key has a wrong form").Because(err)
	}
	pub := publicKey(master)
	if !verify(key, pub, k.Signatures[string(user)][ed25519Prefix+encodeKey(pub)]) {
		return errSignature("A cross-signing key is not signed by the master key")
	}
	return nil
}

func errSignature(text string) *merr.Error {
	return merr.New(http.StatusBadRequest, merr.InvalidSignature, "%s", text)
}

// Signed is a key with signatures that the uploader made: the ID of one of their
// devices, or the public key of a master key.
type Signed struct {
	Owner ids.UserID
	Key   string
	// Object is the key with the signatures.
	Object jsontext.Value
}

// MaxSigned bounds the keys of one upload of signatures.
const MaxSigned = 1000

// SignKeys stores signatures. The result is a map[int]*merr.Error, why some of
// Items were refused, by their index. spec: client-server §POST
// /keys/signatures/upload.
type SignKeys struct {
	command
	Items []Signed

	masters map[ids.UserID]jsontext.Value // of other users
	tell    announcement
}

// NewSignKeys returns the command.
func NewSignKeys(user ids.UserID, items []Signed) *SignKeys {
	return &SignKeys{command: command{user}, Items: items}
}

var _ partition.Command = (*SignKeys)(nil)

// Name implements partition.Command.
func (c *SignKeys) Name() string { return "sign_keys" }

// Prepare implements partition.Command.
func (c *SignKeys) Prepare(ctx context.Context, p *partition.Prep) error {
	pl, r := c.at(p), NewReader(p.Store(), p.Count())
	keys := []storage.Key{pl.crossSigning()}
	c.masters = make(map[ids.UserID]jsontext.Value)
	for _, it := range c.Items {
		keys = append(keys, pl.signature(it.Owner, it.Key))
		if it.Owner != c.User {
			theirs, err := one[CrossSigning](ctx, r, r.Place(it.Owner).crossSigning())
			if err != nil {
				return err
			}
			if theirs != nil {
				c.masters[it.Owner] = theirs.Master
			}
			continue
		}
		keys = append(keys, pl.deviceKeys(ids.DeviceID(it.Key)))
		for id := range it.signatures(c.User) {
			keys = append(keys, pl.deviceKeys(ids.DeviceID(strings.TrimPrefix(id, ed25519Prefix))))
		}
	}
	if err := p.Pin(ctx, keys...); err != nil {
		return err
	}
	return c.tell.prepare(ctx, p, pl)
}

// signatures returns what a user signed of the item.
func (it *Signed) signatures(by ids.UserID) map[string]string {
	var o struct {
		Signatures map[string]map[string]string `json:"signatures"`
	}
	if json.Unmarshal(it.Object, &o) != nil {
		return nil
	}
	return o.Signatures[string(by)]
}

// Apply implements partition.Command.
func (c *SignKeys) Apply(tx *partition.Tx) (any, error) {
	p := c.in(tx)
	var own CrossSigning
	if row := get[CrossSigning](tx, p.crossSigning()); row != nil {
		own = *row
	}
	failures := make(map[int]*merr.Error)
	ownChanged := false
	for i, it := range c.Items {
		good, err := c.check(tx, p, &own, it)
		if err != nil {
			failures[i] = err
			continue
		}
		ownChanged = addSignatures(tx, p, it, good) || ownChanged
	}
	if ownChanged {
		if err := c.tell.apply(tx, p); err != nil {
			return nil, err
		}
	}
	return failures, nil
}

// check returns the good signatures of an item: those of a device by the
// self-signing key, of the own master key by devices, of another's master key by
// the user-signing key.
func (c *SignKeys) check(tx *partition.Tx, p Place, own *CrossSigning, it Signed) (map[string]string, *merr.Error) {
	var object jsontext.Value
	signers := make(map[string]ed25519.PublicKey)
	sigs := it.signatures(c.User)
	switch ownMaster := publicKey(own.Master); {
	case it.Owner != c.User:
		theirs := c.masters[it.Owner]
		if pub := publicKey(theirs); pub == nil || encodeKey(pub) != it.Key {
			return nil, merr.NotFoundErr("The user has no such master key")
		}
		object = theirs
		if pub := publicKey(own.UserSigning); pub != nil {
			signers[ed25519Prefix+encodeKey(pub)] = pub
		}
	case ownMaster != nil && encodeKey(ownMaster) == it.Key:
		object = own.Master
		for id := range sigs {
			signers[id] = c.deviceKey(tx, p, id)
		}
	default:
		if object = tx.Get(p.deviceKeys(ids.DeviceID(it.Key))).Value; object == nil {
			return nil, merr.NotFoundErr("There is no such device or key")
		}
		if pub := publicKey(own.SelfSigning); pub != nil {
			signers[ed25519Prefix+encodeKey(pub)] = pub
		}
	}
	good := make(map[string]string)
	for id, pub := range signers {
		if sig, ok := sigs[id]; ok {
			if !verify(object, pub, sig) {
				return nil, errSignature("A signature is not valid")
			}
			good[id] = sig
		}
	}
	if len(good) == 0 {
		return nil, errSignature("There is no signature by a key of yours that may sign this")
	}
	return good, nil
}

// deviceKey returns the signing key of a device by its key ID.
func (c *SignKeys) deviceKey(tx *partition.Tx, p Place, id string) ed25519.PublicKey {
	var k DeviceKeys
	row := tx.Get(p.deviceKeys(ids.DeviceID(strings.TrimPrefix(id, ed25519Prefix)))).Value
	if row == nil || json.Unmarshal(row, &k) != nil {
		return nil
	}
	return decodeKey(k.Keys[id])
}

// addSignatures stores signatures. It reports whether those of an own key changed,
// which others can see; those of others' keys are shown to the signer alone.
func addSignatures(tx *partition.Tx, p Place, it Signed, good map[string]string) (own bool) {
	k := p.signature(it.Owner, it.Key)
	next := signatures{Sigs: map[string]string{}}
	if old := get[signatures](tx, k); old != nil {
		next = signatures{maps.Clone(old.Sigs), old.Seq}
	}
	before := len(next.Sigs)
	changed := false
	for id, sig := range good {
		changed = changed || next.Sigs[id] != sig
		next.Sigs[id] = sig
	}
	if !changed && before == len(next.Sigs) {
		return false
	}
	if it.Owner != p.User {
		if next.Seq != 0 {
			tx.Delete(p.stream(next.Seq))
		}
		next.Seq = emit(tx, p, Change{Kind: ChangeDevices, User: it.Owner})
	}
	put(tx, k, &next)
	return it.Owner == p.User
}
