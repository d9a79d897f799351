package e2ee_test

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/hubbub-chat/hubbub/internal/app/apptest"
	"github.com/hubbub-chat/hubbub/internal/event"
)

type object = apptest.Object

const v3 = "/_matrix/client/v3"

// signer is a signing key made from a seed.
type signer struct {
	private ed25519.PrivateKey
	public  string
}

func newSigner(seed string) signer {
	sum := sha256.Sum256([]byte(seed))
	k := ed25519.NewKeyFromSeed(sum[:])
	return signer{k, base64.RawStdEncoding.EncodeToString(k.Public().(ed25519.PublicKey))}
}

// sign adds a signature to a copy of o.
func (s signer) sign(t *testing.T, user, keyID string, o object) object {
	t.Helper()
	bare := maps.Clone(o)
	delete(bare, "signatures")
	delete(bare, "unsigned")
	b, err := json.Marshal(bare)
	if err != nil {
		t.Fatalf("marshal: %v", err)
	}
	canonical, err := event.Canonical(nil, b)
	if err != nil {
		t.Fatalf("canonical: %v", err)
	}
	out := maps.Clone(o)
	sigs := object{}
	if old, ok := o["signatures"].(object); ok {
		sigs = maps.Clone(old)
	}
	mine := object{}
	if old, ok := sigs[user].(object); ok {
		mine = maps.Clone(old)
	}
	mine["ed25519:"+keyID] = base64.RawStdEncoding.EncodeToString(ed25519.Sign(s.private, canonical))
	sigs[user] = mine
	out["signatures"] = sigs
	return out
}

// person is a user on one device.
type person struct {
	*apptest.Client
	signer signer
}

func newPerson(t *testing.T, s *apptest.Server, name string) *person {
	t.Helper()
	c := s.User(t, name)
	return &person{c, newSigner(name + c.Device)}
}

// again is the same user on a further device.
func (p *person) again(t *testing.T) *person {
	t.Helper()
	c := p.Login(t)
	return &person{c, newSigner(p.UserID + c.Device)}
}

// deviceKeys are the signed identity keys of the device.
func (p *person) deviceKeys(t *testing.T) object {
	t.Helper()
	return p.signer.sign(t, p.UserID, p.Device, object{
		"user_id": p.UserID, "device_id": p.Device, "algorithms": []string{"m.olm.v1.curve25519-aes-sha2"},
		"keys": object{"ed25519:" + p.Device: p.signer.public, "curve25519:" + p.Device: "curve"},
	})
}

// publish uploads the identity keys.
func (p *person) publish(t *testing.T) object {
	t.Helper()
	return p.upload(t, object{"device_keys": p.deviceKeys(t)})
}

func (p *person) upload(t *testing.T, body object) object {
	t.Helper()
	return p.Must(t, "POST", v3+"/keys/upload", body)
}

func (p *person) oneTime(t *testing.T, name string) object {
	t.Helper()
	return p.signer.sign(t, p.UserID, p.Device, object{"key": "public part of " + name})
}

// oneTimeKeys is the body of an upload of the keys from..to-1.
func (p *person) oneTimeKeys(t *testing.T, from, to int) object {
	t.Helper()
	keys := object{}
	for i := from; i < to; i++ {
		id := fmt.Sprintf("signed_curve25519:K%05d", i)
		keys[id] = p.oneTime(t, id)
	}
	return object{"one_time_keys": keys}
}

func (p *person) query(t *testing.T, users ...string) object {
	t.Helper()
	keys := object{}
	for _, u := range users {
		keys[u] = []string{}
	}
	return p.Must(t, "POST", v3+"/keys/query", object{"device_keys": keys})
}

// claim claims a key of one device and returns its ID, "" for none.
func (p *person) claim(t *testing.T, user, device string) (string, any) {
	t.Helper()
	out := p.Must(t, "POST", v3+"/keys/claim", object{"one_time_keys": object{user: object{device: "signed_curve25519"}}})
	keys, _ := apptest.At(out, "one_time_keys", user, device).(object)
	for id, key := range keys {
		return id, key
	}
	return "", nil
}

func (p *person) send(t *testing.T, txn, user, device string, content object) {
	t.Helper()
	p.Must(t, "PUT", v3+"/sendToDevice/m.test/"+txn, object{"messages": object{user: object{device: content}}})
}

// follower is a client that syncs.
type follower struct {
	*person
	since string
	last  object
	// renames makes display names that differ.
	renames int
}

func (p *person) follow(t *testing.T) *follower {
	t.Helper()
	f := &follower{person: p}
	f.sync(t)
	return f
}

func (f *follower) sync(t *testing.T) object {
	t.Helper()
	f.last = f.Sync(t, f.since)
	f.since = f.last["next_batch"].(string)
	return f.last
}

// lists returns the device lists of the next sync.
func (f *follower) lists(t *testing.T) (changed, left string) {
	t.Helper()
	before := f.since
	out := f.sync(t)
	changed, left = users(apptest.At(out, "device_lists", "changed")), users(apptest.At(out, "device_lists", "left"))
	q := url.Values{"from": {before}, "to": {f.since}}
	asked := f.Must(t, "GET", v3+"/keys/changes?"+q.Encode(), nil)
	if c, l := users(asked["changed"]), users(asked["left"]); c != changed || l != left {
		t.Errorf("/keys/changes says %q and %q, the sync said %q and %q", c, l, changed, left)
	}
	return changed, left
}

func (f *follower) expect(t *testing.T, what, changed, left string) {
	t.Helper()
	if c, l := f.lists(t); c != changed || l != left {
		t.Errorf("%s: changed %q and left %q, want %q and %q", what, c, l, changed, left)
	}
}

// users writes the localparts of a list of users, in order.
func users(list any) string {
	var out []string
	all, _ := list.([]any)
	for _, u := range all {
		out = append(out, strings.TrimSuffix(strings.TrimPrefix(u.(string), "@"), ":"+apptest.Name))
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

// messages returns the to-device contents' n of a sync.
func messages(sync object) []int {
	var out []int
	events, _ := apptest.At(sync, "to_device", "events").([]any)
	for _, e := range events {
		n, _ := apptest.At(e, "content", "n").(float64)
		out = append(out, int(n))
	}
	return out
}

func asJSON(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatalf("marshal: %v", err)
	}
	return string(b)
}
