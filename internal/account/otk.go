package account

import (
	"context"
	"encoding/binary"
	"fmt"

	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/partition"
	"github.com/hubbub-chat/hubbub/internal/storage"
	"github.com/hubbub-chat/hubbub/internal/tables"
)

func numberSort(n uint64) string { return string(binary.BigEndian.AppendUint64(nil, n)) }

func (p Place) oneTimeKey(d ids.DeviceID, algorithm string, n uint64) storage.Key {
	return p.key(tables.OneTimeKey, partition.JoinSort(string(d), algorithm, numberSort(n)))
}

func (p Place) claimedKey(d ids.DeviceID, n uint64) storage.Key {
	return p.key(tables.ClaimedKey, partition.JoinSort(string(d), numberSort(n)))
}

const (
	// firstCandidates is how many keys a claim looks at; with each attempt that
	// finds them all taken by others it looks at candidatesGrowth times as many.
	firstCandidates  = 4
	candidatesGrowth = 4
	maxCandidates    = 1024
	// trimStep is how many claimed keys one claim forgets at most. It is more
	// than one, so that what is remembered shrinks to its bound.
	trimStep = 4
)

// Want names a key to claim.
type Want struct {
	Device    ids.DeviceID
	Algorithm string
}

// ClaimKeys hands out one-time keys of a user, each at most once, those uploaded
// first before others. Where there is none left, the fallback key is handed out,
// again and again. The result is a map[ids.DeviceID]OneTimeKey, without the
// devices that have no key. spec: client-server §POST /keys/claim.
//
// Prepare looks for the keys and pins them; Apply takes the first that is still
// there. Since keys are handed out in order, whoever comes first takes it, and
// the others take the next or, having seen too few, look again.
type ClaimKeys struct {
	command
	Wants []Want

	attempts   int
	candidates [][]storage.Key   // for each of Wants
	forget     [][]storage.Entry // of each of Wants, the claimed keys remembered for longest
}

// NewClaimKeys returns the command; user owns the keys.
func NewClaimKeys(user ids.UserID, wants []Want) *ClaimKeys {
	return &ClaimKeys{command: command{user}, Wants: wants}
}

var _ partition.Command = (*ClaimKeys)(nil)

// Name implements partition.Command.
func (c *ClaimKeys) Name() string { return "claim_keys" }

// Prepare implements partition.Command.
func (c *ClaimKeys) Prepare(ctx context.Context, p *partition.Prep) error {
	pl := c.at(p)
	limit := firstCandidates
	for range c.attempts {
		limit = min(limit*candidatesGrowth, maxCandidates)
	}
	c.attempts++
	c.candidates, c.forget = make([][]storage.Key, len(c.Wants)), make([][]storage.Entry, len(c.Wants))
	for i, w := range c.Wants {
		if err := p.Pin(ctx, pl.keyState(w.Device)); err != nil {
			return err
		}
		rows, err := c.scan(ctx, p, tables.OneTimeKey, partition.JoinSort(string(w.Device), w.Algorithm, ""), limit)
		if err != nil {
			return err
		}
		for _, row := range rows {
			c.candidates[i] = append(c.candidates[i], pl.key(tables.OneTimeKey, row.Sort))
		}
		if err := p.Pin(ctx, c.candidates[i]...); err != nil {
			return err
		}
		if c.forget[i], err = c.scan(ctx, p, tables.ClaimedKey, ofDevice(w.Device), trimStep); err != nil {
			return err
		}
	}
	return nil
}

func (c *ClaimKeys) scan(ctx context.Context, p *partition.Prep, t storage.Table, prefix string, limit int) ([]storage.Entry, error) {
	if (storage.Key{Partition: p.Partition(), Table: t, Entity: string(c.User), Sort: prefix}).Check() != nil {
		return nil, nil // no key has such a name
	}
	rows, err := p.Store().Scan(ctx, storage.Range{
		Partition: p.Partition(), Table: t, Entity: string(c.User), From: prefix, To: partition.PrefixEnd(prefix), Limit: limit,
	})
	if err != nil {
		return nil, fmt.Errorf("scan keys to claim: %w", err)
	}
	return rows, nil
}

// Apply implements partition.Command.
func (c *ClaimKeys) Apply(tx *partition.Tx) (any, error) {
	p := c.in(tx)
	out := make(map[ids.DeviceID]OneTimeKey)
	for i, w := range c.Wants {
		st := get[KeyState](tx, p.keyState(w.Device))
		if st == nil {
			continue
		}
		if st.Counts[w.Algorithm] > 0 {
			key, err := c.take(tx, p, i, st.clone())
			if err != nil {
				return nil, err
			}
			out[w.Device] = *key
			continue
		}
		fallback, ok := st.Fallback[w.Algorithm]
		if !ok {
			continue
		}
		out[w.Device] = fallback.OneTimeKey
		if !fallback.Used {
			next := st.clone()
			fallback.Used = true
			next.Fallback[w.Algorithm] = fallback
			next.save(tx, p, w.Device)
		}
	}
	return out, nil
}

// take hands out the first candidate that is still there.
func (c *ClaimKeys) take(tx *partition.Tx, p Place, i int, st *KeyState) (*OneTimeKey, error) {
	w := c.Wants[i]
	for _, k := range c.candidates[i] {
		key := get[OneTimeKey](tx, k)
		if key == nil {
			continue
		}
		tx.Delete(k)
		if st.Counts[w.Algorithm]--; st.Counts[w.Algorithm] == 0 {
			delete(st.Counts, w.Algorithm)
		}
		tx.PutNew(p.claimedKey(w.Device, st.Claimed), []byte(key.ID))
		st.Claimed++
		c.trim(tx, p, i, st)
		st.save(tx, p, w.Device)
		return key, nil
	}
	return nil, partition.ErrRetry
}

// trim forgets the claimed keys that are beyond tombstones. Their numbers tell
// whether another command has forgotten them already.
func (c *ClaimKeys) trim(tx *partition.Tx, p Place, i int, st *KeyState) {
	d := c.Wants[i].Device
	for _, row := range c.forget[i] {
		if st.Claimed-st.Trimmed <= tombstones || row.Sort != p.claimedKey(d, st.Trimmed).Sort {
			continue
		}
		tx.Delete(p.oneTimeKeyID(d, string(row.Value)))
		tx.Delete(p.claimedKey(d, st.Trimmed))
		st.Trimmed++
	}
}
