package account

import (
	"context"
	"maps"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/partition"
	"github.com/hubbub-chat/hubbub/internal/storage"
	"github.com/hubbub-chat/hubbub/internal/tables"
)

// PublicKeys are the keys of a user as another user is shown them, complete with
// signatures.
type PublicKeys struct {
	Devices map[ids.DeviceID]jsontext.Value
	CrossSigning
}

// Keys returns the keys of a user as viewer may see them: all devices, or those
// listed if there are any. Signatures are those that the user made, and those
// that viewer did; the user-signing key is for the user alone. spec: client-server §POST
// /keys/query.
func (r *Reader) Keys(ctx context.Context, viewer, user ids.UserID, devices []ids.DeviceID) (*PublicKeys, error) {
	p := r.Place(user)
	out := &PublicKeys{Devices: make(map[ids.DeviceID]jsontext.Value)}
	cross, err := one[CrossSigning](ctx, r, p.crossSigning())
	if err != nil {
		return nil, err
	}
	if cross != nil {
		out.CrossSigning = *cross
	}
	if err := r.deviceKeys(ctx, p, devices, out.Devices); err != nil {
		return nil, err
	}
	if len(out.Devices) == 0 && out.Master == nil {
		return out, nil
	}
	sigs, err := r.signatures(ctx, user, user)
	if err != nil {
		return nil, err
	}
	for d, raw := range out.Devices {
		device, err := r.Device(ctx, user, d)
		if err != nil {
			return nil, err
		}
		if device == nil { // ended just now
			delete(out.Devices, d)
			continue
		}
		if out.Devices[d], err = complete(raw, user, sigs[string(d)], device.DisplayName); err != nil {
			return nil, err
		}
	}
	if viewer != user {
		out.UserSigning = nil
	}
	return out, r.signMaster(ctx, viewer, user, sigs, out)
}

// signMaster adds the signatures of the master key.
func (r *Reader) signMaster(ctx context.Context, viewer, user ids.UserID, sigs map[string]map[string]string, out *PublicKeys) (err error) {
	pub := publicKey(out.Master)
	if pub == nil {
		return nil
	}
	if out.Master, err = complete(out.Master, user, sigs[encodeKey(pub)], ""); err != nil || viewer == user {
		return err
	}
	theirs, err := r.signatures(ctx, viewer, user)
	if err != nil {
		return err
	}
	out.Master, err = complete(out.Master, viewer, theirs[encodeKey(pub)], "")
	return err
}

func (r *Reader) deviceKeys(ctx context.Context, p Place, devices []ids.DeviceID, out map[ids.DeviceID]jsontext.Value) error {
	if len(devices) == 0 {
		return r.scan(ctx, p, tables.DeviceKeys, "", "", func(e storage.Entry) error {
			if !isJSON(e.Value) {
				return r.unreadable(p.key(tables.DeviceKeys, e.Sort), errRow)
			}
			out[ids.DeviceID(e.Sort)] = e.Value
			return nil
		})
	}
	for _, d := range devices {
		row, err := r.row(ctx, p.deviceKeys(d))
		if err != nil {
			return err
		}
		switch {
		case row == nil:
		case isJSON(row):
			out[d] = row
		default:
			if err := r.unreadable(p.deviceKeys(d), errRow); err != nil {
				return err
			}
		}
	}
	return nil
}

// signatures returns what one user signed of the keys of another, by key.
func (r *Reader) signatures(ctx context.Context, by, owner ids.UserID) (map[string]map[string]string, error) {
	out := make(map[string]map[string]string)
	prefix := partition.JoinSort(string(owner), "")
	err := r.scan(ctx, r.Place(by), tables.KeySignature, prefix, partition.PrefixEnd(prefix), func(e storage.Entry) error {
		var s signatures
		if ok, err := listed(r, r.Place(by), tables.KeySignature, e, &s); !ok {
			return err
		}
		out[strings.TrimPrefix(e.Sort, prefix)] = s.Sigs
		return nil
	})
	return out, err
}

// complete adds signatures, and the display name of a device, to a key.
func complete(raw jsontext.Value, by ids.UserID, sigs map[string]string, name string) (jsontext.Value, error) {
	if len(sigs) == 0 && name == "" {
		return raw, nil
	}
	var members map[string]jsontext.Value
	if err := json.Unmarshal(raw, &members); err != nil {
		return nil, wrap("decode stored key", err)
	}
	all := make(map[string]map[string]string)
	if members["signatures"] != nil {
		if err := json.Unmarshal(members["signatures"], &all); err != nil {
			return nil, wrap("decode signatures of stored key", err)
		}
	}
	if all[string(by)] == nil {
		all[string(by)] = make(map[string]string, len(sigs))
	}
	maps.Copy(all[string(by)], sigs)
	members["signatures"] = encode(all)
	if name != "" {
		members["unsigned"] = encode(map[string]string{"device_display_name": name})
	}
	return encode(members), nil
}
