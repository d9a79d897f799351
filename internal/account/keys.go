package account

import (
	"context"
	"crypto/sha256"
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

// Limits of keys.
const (
	// MaxKeyBytes bounds one key object as JSON: a key in use, with a few
	// signatures, takes less than one KiB.
	MaxKeyBytes = 16 << 10
	// MaxOneTimeKeys bounds the one-time keys of a device. Clients keep 50 to
	// 100 on the server.
	MaxOneTimeKeys = 5000
	// maxAlgorithms bounds the algorithms of a device; two are in use.
	maxAlgorithms = 16
	// maxKeyID bounds the ID of a key with its algorithm, in bytes.
	maxKeyID = 255
	// tombstones is how many claimed keys of a device are remembered, so that an
	// upload that is repeated late does not bring one back.
	tombstones = 2000
)

// AlgorithmSigned is the algorithm of one-time keys in use. spec: client-server
// §Key algorithms.
const AlgorithmSigned = "signed_curve25519"

// OneTimeKey is a one-time or fallback key.
type OneTimeKey struct {
	Algorithm string `json:"-"`
	// ID is the algorithm, a colon and the key's name.
	ID  string         `json:"id"`
	Key jsontext.Value `json:"key"`
}

// Fallback is a device's fallback key of one algorithm.
type Fallback struct {
	OneTimeKey
	// Used: it was handed out.
	Used bool `json:"used,omitempty"`
}

// KeyState counts the keys of a device.
type KeyState struct {
	// Counts are the one-time keys by algorithm.
	Counts   map[string]int      `json:"counts,omitempty"`
	Fallback map[string]Fallback `json:"fallback,omitempty"`
	// Next numbers the next one-time key.
	Next uint64 `json:"next,omitempty"`
	// Claimed counts the keys handed out, Trimmed those of them that are no
	// longer remembered.
	Claimed uint64 `json:"claimed,omitempty"`
	Trimmed uint64 `json:"trimmed,omitempty"`
	// Seq is the Stream row of the last change.
	Seq ids.Seq `json:"seq,omitempty"`
}

// clone returns a copy to change, of nil an empty one.
func (s *KeyState) clone() *KeyState {
	next := &KeyState{Counts: map[string]int{}, Fallback: map[string]Fallback{}}
	if s != nil {
		*next = *s
		next.Counts, next.Fallback = maps.Clone(s.Counts), maps.Clone(s.Fallback)
		if next.Counts == nil {
			next.Counts = map[string]int{}
		}
		if next.Fallback == nil {
			next.Fallback = map[string]Fallback{}
		}
	}
	return next
}

// KeyCounts returns how many one-time keys there are by algorithm. The
// algorithm in use is always there.
func (s *KeyState) KeyCounts() map[string]int {
	out := map[string]int{AlgorithmSigned: 0}
	if s != nil {
		maps.Copy(out, s.Counts)
	}
	return out
}

// UnusedFallbacks returns the algorithms with a fallback key that was not handed out,
// in order.
func (s *KeyState) UnusedFallbacks() []string {
	if s == nil {
		return nil
	}
	var out []string
	for algorithm, k := range s.Fallback {
		if !k.Used {
			out = append(out, algorithm)
		}
	}
	slices.Sort(out)
	return out
}

// save writes the state and wakes the device, which is shown it.
func (s *KeyState) save(tx *partition.Tx, p Place, d ids.DeviceID) {
	if s.Seq != 0 {
		tx.Delete(p.stream(s.Seq))
	}
	s.Seq = emit(tx, p, Change{Kind: ChangeKeyCounts, Devices: []ids.DeviceID{d}})
	put(tx, p.keyState(d), s)
}

func (p Place) deviceKeys(d ids.DeviceID) storage.Key { return p.key(tables.DeviceKeys, string(d)) }
func (p Place) keyState(d ids.DeviceID) storage.Key   { return p.key(tables.KeyState, string(d)) }

func (p Place) oneTimeKeyID(d ids.DeviceID, id string) storage.Key {
	return p.key(tables.OneTimeKeyID, partition.JoinSort(string(d), id))
}

// ofDevice is the beginning of the sort keys of a device's rows.
func ofDevice(d ids.DeviceID) string { return partition.JoinSort(string(d), "") }

// keyTables are the rows of keys that commands pin.
func keyTables() map[storage.Table]partition.TableSpec {
	return map[storage.Table]partition.TableSpec{
		tables.DeviceKeys:      {},
		tables.OneTimeKey:      {Decode: decoder[OneTimeKey]},
		tables.OneTimeKeyID:    {},
		tables.KeyState:        {Keep: true, Decode: decoder[KeyState]},
		tables.CrossSigning:    {Decode: decoder[CrossSigning]},
		tables.DeviceListState: {Decode: mendable[deviceListState]},
		tables.KeySignature:    {Decode: decoder[signatures]},
		tables.Backup:          {Decode: decoder[backups]},
		tables.BackupKey:       {Decode: decoder[BackupKey]},
	}
}

// DeviceKeys are a device's identity keys as their owner signed them.
type DeviceKeys struct {
	UserID     *ids.UserID                  `json:"user_id"`
	DeviceID   *ids.DeviceID                `json:"device_id"`
	Algorithms []string                     `json:"algorithms"`
	Keys       map[string]string            `json:"keys"`
	Signatures map[string]map[string]string `json:"signatures"`
}

// CheckDeviceKeys checks what a device says of itself, and returns what of it is
// stored: all but unsigned, in which others expect to see what the server says.
// M_BAD_JSON for a wrong form, M_INVALID_PARAM if it speaks of another device.
// spec: client-server §POST /keys/upload, DeviceKeys.
func CheckDeviceKeys(user ids.UserID, d ids.DeviceID, raw jsontext.Value) (jsontext.Value, error) {
	if len(raw) > MaxKeyBytes {
		return nil, merr.TooLargeErr("device_keys is larger than %d bytes", MaxKeyBytes)
	}
	var k DeviceKeys
	if err := json.Unmarshal(raw, &k); err != nil {
		return nil, merr.BadJSONErr("device_keys has a wrong form").Because(err)
	}
	if err := k.check(user, d); err != nil {
		return nil, err
	}
	if _, err := event.Canonical(nil, raw); err != nil {
		return nil, merr.BadJSONErr("device_keys is not canonical JSON").Because(err)
	}
	var members map[string]jsontext.Value
	if err := json.Unmarshal(raw, &members); err != nil {
		return nil, merr.BadJSONErr("device_keys has a wrong form").Because(err)
	}
	delete(members, "unsigned")
	return encode(members), nil
}

func (k *DeviceKeys) check(user ids.UserID, d ids.DeviceID) error {
	switch {
	case k.UserID == nil || k.DeviceID == nil || k.Algorithms == nil || k.Keys == nil || k.Signatures == nil:
		return merr.BadJSONErr("device_keys needs user_id, device_id, algorithms, keys and signatures")
	case *k.UserID != user:
		return merr.InvalidParamErr("device_keys has the user_id of another user")
	case *k.DeviceID != d:
		return merr.InvalidParamErr("device_keys has the device_id of another device")
	case len(k.Algorithms) > maxAlgorithms || len(k.Keys) > maxAlgorithms:
		return merr.InvalidParamErr("device_keys has more than %d algorithms", maxAlgorithms)
	}
	for id := range k.Keys {
		if _, name, ok := strings.Cut(id, ":"); !ok || name != string(d) {
			return merr.InvalidParamErr("%q is not a key of this device", id)
		}
	}
	return nil
}

// Check checks a one-time or fallback key and sets its algorithm. The
// error is M_BAD_JSON or M_INVALID_PARAM. spec: client-server §Key algorithms.
func (k *OneTimeKey) Check() error {
	algorithm, name, ok := strings.Cut(k.ID, ":")
	if !ok || algorithm == "" || name == "" || len(k.ID) > maxKeyID || strings.IndexByte(k.ID, 0) >= 0 {
		return merr.InvalidParamErr("A key has an ID that is not an algorithm, a colon and a name")
	}
	if len(k.Key) > MaxKeyBytes {
		return merr.TooLargeErr("A key is larger than %d bytes", MaxKeyBytes)
	}
	k.Algorithm = algorithm
	switch k.Key.Kind() {
	case '"':
		return nil
	case '{':
		var object struct {
			Key        *string                      `json:"key"`
			Signatures map[string]map[string]string `json:"signatures"`
		}
		if err := json.Unmarshal(k.Key, &object); err != nil || object.Key == nil {
			return merr.BadJSONErr("The key %s has a wrong form", k.ID).Because(err)
		}
		return nil
	}
	return merr.BadJSONErr("The key %s is neither a string nor an object", k.ID)
}

// UploadKeys stores keys of a device. The result is a map[string]int, the number
// of its one-time keys by algorithm. spec: client-server §POST /keys/upload.
type UploadKeys struct {
	command
	Device ids.DeviceID
	// DeviceKeys is nil if they are not uploaded; else checked.
	DeviceKeys jsontext.Value
	// OneTime are one-time keys in the order in which they are to be used.
	OneTime []OneTimeKey
	// Fallback are fallback keys, one for an algorithm at most.
	Fallback []OneTimeKey

	tell announcement
}

// NewUploadKeys returns the command; all keys have been checked.
func NewUploadKeys(user ids.UserID, d ids.DeviceID, deviceKeys jsontext.Value, oneTime, fallback []OneTimeKey) *UploadKeys {
	return &UploadKeys{command: command{user}, Device: d, DeviceKeys: deviceKeys, OneTime: oneTime, Fallback: fallback}
}

var _ partition.Command = (*UploadKeys)(nil)

// Name implements partition.Command.
func (c *UploadKeys) Name() string { return "upload_keys" }

// Prepare implements partition.Command.
func (c *UploadKeys) Prepare(ctx context.Context, p *partition.Prep) error {
	pl := c.at(p)
	keys := make([]storage.Key, 0, 3+len(c.OneTime))
	keys = append(keys, pl.device(c.Device), pl.deviceKeys(c.Device), pl.keyState(c.Device))
	for _, k := range c.OneTime {
		keys = append(keys, pl.oneTimeKeyID(c.Device, k.ID))
	}
	if err := p.Pin(ctx, keys...); err != nil {
		return err
	}
	if c.DeviceKeys == nil {
		return nil
	}
	return c.tell.prepare(ctx, p, pl)
}

// Apply implements partition.Command.
func (c *UploadKeys) Apply(tx *partition.Tx) (any, error) {
	p := c.in(tx)
	if get[Device](tx, p.device(c.Device)) == nil {
		return nil, ErrUnknownToken(false)
	}
	if c.DeviceKeys != nil {
		if old := tx.Get(p.deviceKeys(c.Device)).Value; string(old) != string(c.DeviceKeys) {
			if err := c.tell.apply(tx, p); err != nil {
				return nil, err
			}
			tx.Put(p.deviceKeys(c.Device), c.DeviceKeys, nil)
			// What was signed were the keys before.
			tx.Delete(p.signature(p.User, string(c.Device)))
		}
	}
	st := get[KeyState](tx, p.keyState(c.Device)).clone()
	changed, err := c.addOneTime(tx, p, st)
	if err != nil {
		return nil, err
	}
	for _, k := range c.Fallback {
		old, ok := st.Fallback[k.Algorithm]
		if ok && old.ID == k.ID && string(old.Key) == string(k.Key) {
			continue // a repeated upload does not make it unused again
		}
		st.Fallback[k.Algorithm] = Fallback{OneTimeKey: k}
		changed = true
	}
	if len(st.Fallback) > maxAlgorithms || len(st.Counts) > maxAlgorithms {
		return nil, merr.InvalidParamErr("A device has keys of at most %d algorithms", maxAlgorithms)
	}
	if changed {
		st.save(tx, p, c.Device)
	}
	return st.KeyCounts(), nil
}

// addOneTime adds the one-time keys that are new.
func (c *UploadKeys) addOneTime(tx *partition.Tx, p Place, st *KeyState) (changed bool, err error) {
	total := 0
	for _, n := range st.Counts {
		total += n
	}
	for _, k := range c.OneTime {
		id := p.oneTimeKeyID(c.Device, k.ID)
		hash, err := fingerprint(k.Key)
		if err != nil {
			return false, err
		}
		if old := tx.Get(id).Value; old != nil {
			if string(old) != hash {
				return false, merr.InvalidParamErr("The one-time key %s exists already and is another one", k.ID)
			}
			continue // there, or claimed
		}
		if total++; total > MaxOneTimeKeys {
			return false, merr.New(http.StatusBadRequest, merr.TooLarge, "A device has at most %d one-time keys", MaxOneTimeKeys)
		}
		tx.Put(id, []byte(hash), nil)
		key := k
		put(tx, p.oneTimeKey(c.Device, k.Algorithm, st.Next), &key)
		st.Next++
		st.Counts[k.Algorithm]++
		changed = true
	}
	return changed, nil
}

// fingerprint is the hash of a JSON value, however it is written.
func fingerprint(v jsontext.Value) (string, error) {
	canonical, err := event.Canonical(nil, v)
	if err != nil {
		return "", merr.BadJSONErr("A key is not canonical JSON").Because(err)
	}
	sum := sha256.Sum256(canonical)
	return string(sum[:]), nil
}

// endKeys removes the keys of a device that ends, with what else is kept for it.
// It reports whether others could see any of it.
func endKeys(tx *partition.Tx, p Place, d ids.DeviceID) (seen bool) {
	rest := []storage.Table{tables.Inbox, tables.UserTxn}
	if st := get[KeyState](tx, p.keyState(d)); st != nil {
		rest = append(rest, tables.OneTimeKey, tables.OneTimeKeyID, tables.ClaimedKey)
		tx.Delete(p.keyState(d))
		tx.Delete(p.stream(st.Seq))
	}
	for _, t := range rest {
		tx.DeletePrefix(p.key(t, ofDevice(d)))
	}
	if tx.Get(p.deviceKeys(d)).Value == nil {
		return false
	}
	tx.Delete(p.deviceKeys(d))
	tx.Delete(p.signature(p.User, string(d)))
	return true
}

// KeyState returns the state of a device's keys, nil if it never uploaded any.
func (r *Reader) KeyState(ctx context.Context, user ids.UserID, d ids.DeviceID) (*KeyState, error) {
	return one[KeyState](ctx, r, r.Place(user).keyState(d))
}
