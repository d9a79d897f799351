package pgstore

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/hubbub-chat/hubbub/internal/storage"
)

// errDiffers: a copy is not like its original. The move is not made.
var errDiffers = errors.New("the copy differs from the original: nothing was switched; run it again, and report this if it stays so")

// digest is a count of rows and the sum of their hashes, which does not depend on their
// order.
type digest struct{ rows, high, low int64 }

// digestStatement is computed where the rows are: what travels is the result.
const digestStatement = `SELECT count(*), coalesce(bit_xor(('x' || substr(h, 1, 16))::bit(64)::bigint), 0), coalesce(bit_xor(('x' || substr(h, 17, 16))::bit(64)::bigint), 0)
FROM (SELECT md5(int2send(tbl) || int4send(length(entity)) || entity || int4send(length(sort)) || sort || value) AS h FROM hubbub_row WHERE partition = $1) AS r`

// compareAt compares both sides as they are at one moment of the source: it carries
// over what was noted up to then, as it was then.
func (m *move) compareAt(ctx context.Context) (n int64, err error) {
	cfg := m.s.shards[m.from].cfg.ConnConfig.Copy()
	cfg.RuntimeParams["statement_timeout"] = "0"
	snap, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, snap.Close(context.WithoutCancel(ctx))) }()
	if _, err := snap.Exec(ctx, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"); err != nil {
		return 0, err
	}
	if err := m.drain(ctx, snap, 0); err != nil { // its first statement takes the snapshot
		return 0, err
	}
	clear(m.since)
	return m.compare(ctx, snap)
}

// compare counts and hashes both sides at the same time.
func (m *move) compare(ctx context.Context, from *pgx.Conn) (int64, error) {
	var have, want digest
	failed := make(chan error, 1)
	go func() {
		failed <- m.dst().QueryRow(ctx, digestStatement, int32(m.p)).Scan(&have.rows, &have.high, &have.low)
	}()
	err := from.QueryRow(ctx, digestStatement, int32(m.p)).Scan(&want.rows, &want.high, &want.low)
	if err = errors.Join(err, <-failed); err != nil {
		return 0, err
	}
	if have != want {
		return 0, fmt.Errorf("%w: %d rows, of %d", errDiffers, have.rows, want.rows)
	}
	return want.rows, nil
}

// compareSince compares what changed since both sides were compared.
func (m *move) compareSince(ctx context.Context) (int64, error) {
	keys := singles(m.since)
	for len(keys) > 0 {
		page := keys[:min(len(keys), movePage)]
		keys = keys[len(page):]
		want, err := m.get(ctx, m.src(), page)
		if err != nil {
			return 0, err
		}
		have, err := m.get(ctx, m.dst(), page)
		if err != nil {
			return 0, err
		}
		for i := range page {
			if (want[i] == nil) != (have[i] == nil) || !bytes.Equal(want[i], have[i]) {
				return 0, fmt.Errorf("%w: a row of table %d", errDiffers, page[i].Table)
			}
		}
	}
	for c := range m.since {
		if !c.ranged {
			continue
		}
		want, err := m.hashStretch(ctx, m.src(), c)
		if err != nil {
			return 0, err
		}
		have, err := m.hashStretch(ctx, m.dst(), c)
		if err != nil {
			return 0, err
		}
		if have != want {
			return 0, fmt.Errorf("%w: a stretch of table %d", errDiffers, c.table)
		}
	}
	return int64(len(m.since)), nil
}

func (m *move) hashStretch(ctx context.Context, from *pgx.Conn, c change) (sum [sha256.Size]byte, err error) {
	h := sha256.New()
	err = m.stretch(ctx, from, c, func(rows []storage.Row) error {
		for i := range rows {
			_, _ = fmt.Fprintf(h, "%d %d %s%s", len(rows[i].Key.Sort), len(rows[i].Value), rows[i].Key.Sort, rows[i].Value) // a hash does not fail
		}
		return nil
	})
	return [sha256.Size]byte(h.Sum(nil)), err
}
