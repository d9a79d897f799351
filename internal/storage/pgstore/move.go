package pgstore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/storage"
)

const (
	// movePage rows, or changes, are copied at a time.
	movePage = 500
	// moveFew changes are left when the partition is stopped for them.
	moveFew = 200
	// moveRounds bounds how often changes are carried over before that: a partition
	// that changes quicker than it is copied would never be stopped.
	moveRounds = 50
	// moveLock and leaseLock are the first numbers of advisory locks: of who moves a
	// partition, held in the first database, and of who changes its epoch.
	moveLock  = 1752523363
	leaseLock = 1752523362
	// unlockTimeout is how long a database that may hang is waited for at the end.
	unlockTimeout = 5 * time.Second
)

// MoveOptions say how a partition is moved.
type MoveOptions struct {
	// To is the number of the database, from 1.
	To int
	// Keep leaves the old copy where it was. Nobody reads it.
	Keep bool
	// Step is told what comes next, nil if nobody is. An error ends the move there.
	Step func(what string) error
}

// move takes a partition to another database while it is in use.
//
//  1. The target is marked as coming, the source as leaving: from then on each commit
//     notes which rows it wrote.
//  2. All rows are copied, then those that were written meanwhile.
//  3. In a snapshot of the source, what it noted up to then is carried over, and both
//     sides are counted and hashed. What is written from then on is remembered.
//  4. The source is marked as gone, in one transaction with an epoch that no owner
//     has. Nobody commits to it or reads it from now on.
//  5. The last changes are carried over, and the rows that changed since the snapshot
//     are compared one by one.
//  6. The target gets a lease with a higher epoch, and is marked as here.
//
// Everything that decides stands in the databases, and each step can be done again: who
// finds a move that was interrupted goes on where it was. One that was interrupted
// between 4 and 6 leaves the partition unserved until then. A move to where the
// partition came from takes back one that is not finished.
//
// Rejected: a trigger on the table (each commit to each partition would pay for it);
// logical replication (it needs rights and settings that a deployment may not have, and
// knows tables, not partitions); copying under the lease (the partition would stand
// still for as long as that takes).
type move struct {
	s        *Store
	p        ids.Partition
	opts     MoveOptions
	from, to int
	gen      int64
	// conns are by database; lock holds the lock of who moves.
	conns []*pgx.Conn
	lock  *pgx.Conn
	// since are the rows and stretches that changed since both sides were compared.
	since map[change]struct{}
}

// change is a row, or the rows of an entity from low to before high.
type change struct {
	table             storage.Table
	entity, low, high string
	ranged            bool
}

// Move is how a move ended.
type Move struct {
	// Rows were counted and hashed on both sides; Changes were compared after that,
	// while the partition stood still.
	Rows, Changes int64
	// Already: there was nothing to do.
	Already bool
}

// Databases is how many databases the store has.
func (s *Store) Databases() int { return len(s.shards) }

// Place is the number, from 1, of the database that a partition is in.
func (s *Store) Place(p ids.Partition) int { return s.shard(p) + 1 }

// MovePartition takes a partition to another database. See the type move.
func (s *Store) MovePartition(ctx context.Context, p ids.Partition, opts MoveOptions) (res Move, err error) {
	if opts.Step == nil {
		opts.Step = func(string) error { return nil }
	}
	if opts.To < 1 || opts.To > len(s.shards) {
		return res, fmt.Errorf("pgstore: there is no database %d: the configuration names %d", opts.To, len(s.shards))
	}
	if p >= ids.MaxPartitions {
		return res, fmt.Errorf("pgstore: there is no partition %d", p)
	}
	m := &move{s: s, p: p, opts: opts, to: opts.To - 1, since: make(map[change]struct{})}
	defer func() { err = errors.Join(err, m.close()) }()
	if err := m.open(ctx); err != nil {
		return res, op("move partition", err)
	}
	res, err = m.run(ctx)
	return res, op("move partition", err)
}

// open connects, not by the pools, whose statements have to be quick, and makes sure
// that nobody else moves the partition.
func (m *move) open(ctx context.Context) (err error) {
	connect := func(shard int) (*pgx.Conn, error) {
		cfg := m.s.shards[shard].cfg.ConnConfig.Copy()
		cfg.RuntimeParams["statement_timeout"] = "0"
		return pgx.ConnectConfig(ctx, cfg)
	}
	for i := range m.s.shards {
		c, err := connect(i)
		if err != nil {
			return fmt.Errorf("database %d: %w", i+1, err)
		}
		m.conns = append(m.conns, c)
	}
	if m.lock, err = connect(0); err != nil {
		return err
	}
	var got bool
	if err := m.lock.QueryRow(ctx, "SELECT pg_try_advisory_lock($1, $2)", moveLock, int32(m.p)).Scan(&got); err != nil {
		return err
	}
	if !got {
		return errors.New("somebody else is moving this partition")
	}
	return nil
}

func (m *move) close() error {
	if m.lock != nil {
		// Or whoever moves the partition next may find it held: the server ends a
		// connection, and what it holds, some time after it was closed.
		ctx, cancel := context.WithTimeout(context.Background(), unlockTimeout)
		defer cancel()
		_, _ = m.lock.Exec(ctx, "SELECT pg_advisory_unlock_all()")
	}
	var errs []error
	for _, c := range append(m.conns, m.lock) {
		if c != nil {
			errs = append(errs, c.Close(context.Background()))
		}
	}
	return errors.Join(errs...)
}

func (m *move) src() *pgx.Conn { return m.conns[m.from] }
func (m *move) dst() *pgx.Conn { return m.conns[m.to] }

// rows reads what the databases say of the partition.
func (m *move) rows(ctx context.Context) ([]placeRow, error) {
	var rows []placeRow
	for i, c := range m.conns {
		r := placeRow{shard: i}
		err := c.QueryRow(ctx, "SELECT generation, state, other FROM hubbub_place WHERE partition = $1", int32(m.p)).Scan(&r.generation, &r.state, &r.other)
		if err != nil && !errors.Is(err, pgx.ErrNoRows) {
			return nil, err
		}
		if err == nil {
			rows = append(rows, r)
		}
	}
	return rows, nil
}

// run finds out how far the move is, and does the rest.
func (m *move) run(ctx context.Context) (res Move, err error) {
	rows, err := m.rows(ctx)
	if err != nil {
		return res, err
	}
	spread := m.s.places.Load().spread
	if m.from, err = resolve(rows, int(m.p)%spread, len(m.conns)); err != nil {
		return res, err
	}
	var coming *placeRow
	for i := range rows {
		m.gen = max(m.gen, rows[i].generation)
		if rows[i].state == placeComing {
			coming = &rows[i]
		}
	}
	begun, stopped := false, false
	if coming != nil {
		// Of a move that was interrupted; if its source says nothing of it, it had
		// hardly begun, or was taken back.
		m.from = coming.other
		if r := rowOf(rows, m.from); r != nil && r.generation == coming.generation {
			begun, stopped = r.state == placeLeaving || r.state == placeGone, r.state == placeGone
		}
	}
	if r := rowOf(rows, m.from); !stopped && r != nil && r.state >= placeComing {
		return res, fmt.Errorf("database %d should have the partition and says that it has not", m.from+1)
	}
	switch {
	case coming != nil && m.to == m.from:
		return res, m.takeBack(ctx, coming.shard, stopped)
	case begun && m.to != coming.shard:
		return res, fmt.Errorf("a move from database %d to %d was interrupted: finish that one first, or move the partition to database %d to take it back",
			m.from+1, coming.shard+1, m.from+1)
	case begun:
		m.gen = coming.generation
	case m.from == m.to:
		return Move{Already: true}, m.clean(ctx, rows)
	default:
		m.gen++
	}
	return m.carry(ctx, stopped, begun)
}

// rowOf is what a database says, nil if that is nothing.
func rowOf(rows []placeRow, shard int) *placeRow {
	for i := range rows {
		if rows[i].shard == shard {
			return &rows[i]
		}
	}
	return nil
}

// carry is the move itself. resumed: its begin was made before.
func (m *move) carry(ctx context.Context, stopped, resumed bool) (res Move, err error) {
	type step struct {
		name string
		run  func(context.Context) error
	}
	steps := []step{{"begin", func(ctx context.Context) error { return m.begin(ctx, resumed) }}, {"copy", m.copy}}
	if !stopped {
		steps = append(
			steps,
			step{"catch up", m.catchUp},
			step{"compare", func(ctx context.Context) (err error) { res.Rows, err = m.compareAt(ctx); return err }},
			step{"catch up again", m.catchUp},
			step{"stop", m.stop},
			step{"carry the last changes over", func(ctx context.Context) error { return m.drain(ctx, m.src(), 0) }},
			step{"compare the last changes", func(ctx context.Context) (err error) { res.Changes, err = m.compareSince(ctx); return err }},
		)
	} else {
		// Nothing writes any more, and which rows were compared is forgotten.
		steps = append(
			steps,
			step{"carry the last changes over", func(ctx context.Context) error { return m.drain(ctx, m.src(), 0) }},
			step{"compare", func(ctx context.Context) (err error) { res.Rows, err = m.compare(ctx, m.src()); return err }},
		)
	}
	steps = append(steps, step{"switch", m.switchOver}, step{"clean up", func(ctx context.Context) error {
		rows, err := m.rows(ctx)
		if err != nil {
			return err
		}
		return m.clean(ctx, rows)
	}})
	for _, s := range steps {
		if err := m.opts.Step(s.name); err != nil {
			return res, err
		}
		if err := s.run(ctx); err != nil {
			return res, fmt.Errorf("%s: %w", s.name, err)
		}
	}
	return res, nil
}

const setPlace = `INSERT INTO hubbub_place (partition, generation, state, other) VALUES ($1, $2, $3, $4)
ON CONFLICT (partition) DO UPDATE SET generation = EXCLUDED.generation, state = EXCLUDED.state, other = EXCLUDED.other`

// begin marks both sides. The target is first: one that is marked without the other is
// found.
func (m *move) begin(ctx context.Context, resumed bool) error {
	if !resumed {
		// What an earlier stay left there.
		if err := m.empty(ctx, m.dst()); err != nil {
			return err
		}
		if _, err := m.dst().Exec(ctx, setPlace, int32(m.p), m.gen, placeComing, m.from); err != nil {
			return err
		}
	}
	return pgx.BeginFunc(ctx, m.src(), func(tx pgx.Tx) error {
		// Commits that run have ended, and those that come see it.
		if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock($1, $2)", leaseLock, int32(m.p)); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, setPlace+" WHERE hubbub_place.state <> 3 OR hubbub_place.generation < EXCLUDED.generation", int32(m.p), m.gen, placeLeaving, m.to)
		return err
	})
}

// empty removes the rows of the partition from a database where it is not.
func (m *move) empty(ctx context.Context, c *pgx.Conn) error {
	for {
		tag, err := c.Exec(ctx, "DELETE FROM hubbub_row WHERE ctid = ANY (ARRAY(SELECT ctid FROM hubbub_row WHERE partition = $1 LIMIT $2))", int32(m.p), 10*movePage)
		if err != nil || tag.RowsAffected() == 0 {
			return err
		}
	}
}

// copy copies all rows, behind those that were copied before: rows are not taken over
// out of their order until all are there.
func (m *move) copy(ctx context.Context) error {
	after := storage.Key{Partition: m.p}
	var table int16
	var entity, sort []byte
	err := m.dst().QueryRow(ctx, "SELECT tbl, entity, sort FROM hubbub_row WHERE partition = $1 ORDER BY tbl DESC, entity DESC, sort DESC LIMIT 1", int32(m.p)).Scan(&table, &entity, &sort)
	switch {
	case err == nil:
		after.Table, after.Entity, after.Sort = storage.Table(table), string(entity), string(sort)
	case !errors.Is(err, pgx.ErrNoRows):
		return err
	}
	for {
		rows, err := scanPartition(ctx, m.src(), scanPartitionStatement, after, movePage)
		if err != nil {
			return err
		}
		if err := m.put(ctx, rows); err != nil {
			return err
		}
		if len(rows) < movePage {
			return nil
		}
		after = rows[len(rows)-1].Key
		if err := m.opts.Step("copy on"); err != nil {
			return err
		}
	}
}

// put writes rows to the target.
func (m *move) put(ctx context.Context, rows []storage.Row) error {
	if len(rows) == 0 {
		return nil
	}
	c := newColumns(len(rows))
	for i := range rows {
		c.add(rows[i].Key, rows[i].Value)
	}
	_, err := m.dst().Exec(ctx, `INSERT INTO hubbub_row (partition, tbl, entity, sort, value)
SELECT $1, u.tbl, u.entity, u.sort, u.value FROM unnest($2::smallint[], $3::bytea[], $4::bytea[], $5::bytea[]) AS u(tbl, entity, sort, value)
ON CONFLICT (partition, tbl, entity, sort) DO UPDATE SET value = EXCLUDED.value`, int32(m.p), c.tables, c.entities, c.sorts, c.content)
	return err
}

// catchUp carries changes over until few are left.
func (m *move) catchUp(ctx context.Context) error {
	for range moveRounds {
		var n int
		if err := m.src().QueryRow(ctx, "SELECT count(*) FROM (SELECT FROM hubbub_change WHERE partition = $1 LIMIT $2) AS c", int32(m.p), moveFew+1).Scan(&n); err != nil {
			return err
		}
		if n <= moveFew {
			return nil
		}
		var last int64
		if err := m.src().QueryRow(ctx, "SELECT max(id) FROM hubbub_change WHERE partition = $1", int32(m.p)).Scan(&last); err != nil {
			return err
		}
		if err := m.drain(ctx, m.src(), last); err != nil {
			return err
		}
	}
	return nil
}

// drain carries over the changes that a connection to the source sees, up to a number
// (0: all), and forgets them.
func (m *move) drain(ctx context.Context, from *pgx.Conn, upTo int64) error {
	for after := int64(0); ; {
		rows, err := from.Query(ctx, `SELECT id, tbl, entity, low, high FROM hubbub_change
WHERE partition = $1 AND id > $2 AND ($3::bigint = 0 OR id <= $3::bigint) ORDER BY id LIMIT $4`, int32(m.p), after, upTo, movePage)
		if err != nil {
			return err
		}
		var id int64
		var table int16
		var entity, low, high []byte
		var done []int64
		changes := make(map[change]struct{})
		_, err = pgx.ForEachRow(rows, []any{&id, &table, &entity, &low, &high}, func() error {
			done = append(done, id)
			changes[change{storage.Table(table), string(entity), string(low), string(high), high != nil}] = struct{}{}
			return nil
		})
		if err != nil || len(done) == 0 {
			return err
		}
		for c := range changes {
			m.since[c] = struct{}{}
		}
		if err := m.apply(ctx, from, changes); err != nil {
			return err
		}
		if _, err := m.src().Exec(ctx, "DELETE FROM hubbub_change WHERE partition = $1 AND id = ANY($2)", int32(m.p), done); err != nil {
			return err
		}
		after = done[len(done)-1]
		if err := m.opts.Step("carry on"); err != nil {
			return err
		}
	}
}

// apply makes the target like the source where it changed.
func (m *move) apply(ctx context.Context, from *pgx.Conn, changes map[change]struct{}) error {
	for c := range changes {
		if !c.ranged {
			continue
		}
		if _, err := m.dst().Exec(ctx, "DELETE FROM hubbub_row WHERE partition = $1 AND tbl = $2 AND entity = $3 AND sort >= $4 AND sort < $5",
			int32(m.p), int16(c.table), []byte(c.entity), []byte(c.low), []byte(c.high)); err != nil {
			return err
		}
		err := m.stretch(ctx, from, c, func(rows []storage.Row) error { return m.put(ctx, rows) })
		if err != nil {
			return err
		}
	}
	keys := singles(changes)
	found, err := m.get(ctx, from, keys)
	if err != nil {
		return err
	}
	var put []storage.Row
	gone := newColumns(0)
	for i, k := range keys {
		if found[i] == nil {
			gone.add(k, nil)
		} else {
			put = append(put, storage.Row{Key: k, Value: found[i]})
		}
	}
	if err := m.put(ctx, put); err != nil || len(gone.tables) == 0 {
		return err
	}
	_, err = m.dst().Exec(ctx, `DELETE FROM hubbub_row WHERE ctid = ANY (ARRAY(
SELECT (SELECT r.ctid FROM hubbub_row r WHERE r.partition = $1 AND r.tbl = d.tbl AND r.entity = d.entity AND r.sort = d.sort)
FROM unnest($2::smallint[], $3::bytea[], $4::bytea[]) AS d(tbl, entity, sort)))`, int32(m.p), gone.tables, gone.entities, gone.sorts)
	return err
}

// singles are the keys among changes; whoever has them sets their partition.
func singles(changes map[change]struct{}) []storage.Key {
	var keys []storage.Key
	for c := range changes {
		if !c.ranged {
			keys = append(keys, storage.Key{Table: c.table, Entity: c.entity, Sort: c.low})
		}
	}
	return keys
}

// get reads rows of the partition; their keys have no partition.
func (m *move) get(ctx context.Context, from *pgx.Conn, keys []storage.Key) ([][]byte, error) {
	c := newColumns(len(keys))
	for _, k := range keys {
		c.add(k, nil)
	}
	rows, err := from.Query(ctx, `SELECT k.at - 1, (SELECT r.value FROM hubbub_row r WHERE r.partition = $1 AND r.tbl = k.tbl AND r.entity = k.entity AND r.sort = k.sort)
FROM unnest($2::smallint[], $3::bytea[], $4::bytea[]) WITH ORDINALITY AS k(tbl, entity, sort, at)`, int32(m.p), c.tables, c.entities, c.sorts)
	if err != nil {
		return nil, err
	}
	out := make([][]byte, len(keys))
	var at int64
	var value []byte
	_, err = pgx.ForEachRow(rows, []any{&at, &value}, func() error {
		out[at], value = value, nil
		return nil
	})
	return out, err
}

// stretch reads the rows of a range, page by page.
func (m *move) stretch(ctx context.Context, from *pgx.Conn, c change, take func([]storage.Row) error) error {
	for low := []byte(c.low); ; {
		found, err := from.Query(ctx, "SELECT sort, value FROM hubbub_row WHERE partition = $1 AND tbl = $2 AND entity = $3 AND sort >= $4 AND sort < $5 ORDER BY sort LIMIT $6",
			int32(m.p), int16(c.table), []byte(c.entity), low, []byte(c.high), movePage)
		if err != nil {
			return err
		}
		var rows []storage.Row
		var sort, value []byte
		_, err = pgx.ForEachRow(found, []any{&sort, &value}, func() error {
			rows = append(rows, storage.Row{Key: storage.Key{Table: c.table, Entity: c.entity, Sort: string(sort)}, Value: value})
			value = nil
			return nil
		})
		if err == nil {
			err = take(rows)
		}
		if err != nil || len(rows) < movePage {
			return err
		}
		low = append([]byte(rows[len(rows)-1].Key.Sort), 0)
	}
}

// stop makes the source refuse its owner and all readers. From here until switchOver
// the partition is nowhere.
func (m *move) stop(ctx context.Context) error {
	return pgx.BeginFunc(ctx, m.src(), func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock($1, $2)", leaseLock, int32(m.p)); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, setPlace, int32(m.p), m.gen, placeGone, m.to); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `UPDATE hubbub_place w SET (node, expires) = (SELECT l.node, l.expires FROM hubbub_lease l WHERE l.partition = w.partition)
WHERE w.partition = $1`, int32(m.p)); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, `INSERT INTO hubbub_lease (partition, node, epoch, expires) VALUES ($1, $2, 1, 'infinity')
ON CONFLICT (partition) DO UPDATE SET node = EXCLUDED.node, epoch = hubbub_lease.epoch + 1, expires = EXCLUDED.expires`, int32(m.p), []byte(movedHolder))
		return err
	})
}

// switchOver lets nodes have the partition in the target.
func (m *move) switchOver(ctx context.Context) error { return m.serve(ctx, m.dst(), m.from) }

// serve lets nodes have the partition in a database, under epochs that no owner had.
// The lease goes to who held it in the source, for as long as it would have lasted: that
// node may believe that it still has it, and what it believes of the end of the log has
// to be true that long.
func (m *move) serve(ctx context.Context, c *pgx.Conn, other int) error {
	var epoch int64
	var node []byte
	var left time.Duration
	err := m.src().QueryRow(ctx, `SELECT l.epoch, coalesce(w.node, ''), greatest(coalesce(w.expires, now()) - clock_timestamp(), interval '0')
FROM hubbub_lease l JOIN hubbub_place w USING (partition) WHERE partition = $1`, int32(m.p)).Scan(&epoch, &node, &left)
	if err != nil {
		return err
	}
	return pgx.BeginFunc(ctx, c, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock($1, $2)", leaseLock, int32(m.p)); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `INSERT INTO hubbub_lease (partition, node, epoch, expires) VALUES ($1, $2, $3, clock_timestamp() + $4::interval)
ON CONFLICT (partition) DO UPDATE SET node = EXCLUDED.node, epoch = greatest(hubbub_lease.epoch, EXCLUDED.epoch) + 1, expires = EXCLUDED.expires`,
			int32(m.p), node, epoch+1, left); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, setPlace, int32(m.p), m.gen, placeHere, other)
		return err
	})
}

// takeBack ends a move that was interrupted: the partition stays where it came from.
// The source is first, so that it is somewhere at each moment.
func (m *move) takeBack(ctx context.Context, target int, stopped bool) error {
	if err := m.opts.Step("take back"); err != nil {
		return err
	}
	m.gen++
	var err error
	if stopped {
		err = m.serve(ctx, m.src(), target)
	} else { // its owner goes on
		_, err = m.src().Exec(ctx, setPlace, int32(m.p), m.gen, placeHere, target)
	}
	if err == nil {
		_, err = m.src().Exec(ctx, "DELETE FROM hubbub_change WHERE partition = $1", int32(m.p))
	}
	if err != nil {
		return err
	}
	if err := m.opts.Step("forget the target"); err != nil {
		return err
	}
	if _, err := m.conns[target].Exec(ctx, setPlace, int32(m.p), m.gen, placeGone, m.from); err != nil {
		return err
	}
	rows, err := m.rows(ctx)
	if err != nil {
		return err
	}
	return m.clean(ctx, rows)
}

// clean removes what a move that is done leaves, in all databases where the partition
// is not.
func (m *move) clean(ctx context.Context, rows []placeRow) error {
	for _, r := range rows {
		if r.state != placeGone {
			continue
		}
		if _, err := m.conns[r.shard].Exec(ctx, "DELETE FROM hubbub_change WHERE partition = $1", int32(m.p)); err != nil {
			return err
		}
		if m.opts.Keep {
			continue
		}
		if err := m.empty(ctx, m.conns[r.shard]); err != nil {
			return err
		}
	}
	return nil
}
