-- +goose Up

-- Renews leases that a node holds, and gives the partitions of those it renewed. It
-- changes no epoch, so it neither waits for commits nor makes them wait, as
-- hubbub_acquire does, however many there are.
-- +goose StatementBegin
CREATE FUNCTION hubbub_renew(by_node bytea, ps integer[], es bigint[], ttl interval, at timestamptz)
RETURNS SETOF integer LANGUAGE sql VOLATILE AS $$
    UPDATE hubbub_lease l SET expires = coalesce(at, clock_timestamp()) + ttl
    FROM unnest(ps, es) AS h(p, e)
    WHERE l.partition = h.p AND l.epoch = h.e AND l.node = by_node AND coalesce(at, clock_timestamp()) < l.expires
    RETURNING l.partition
$$;
-- +goose StatementEnd

-- hubbub_acquire as before, but for the lock on the row: who takes a lease that seems to have
-- run out waits for one who is renewing it, and sees that it has not.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION hubbub_acquire(
    p integer, by_node bytea, ttl interval, at timestamptz,
    OUT ok boolean, OUT node bytea, OUT epoch bigint, OUT expires timestamptz
) LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    have hubbub_lease%ROWTYPE;
    present timestamptz;
BEGIN
    PERFORM pg_advisory_xact_lock(1752523362, p);
    SELECT * INTO have FROM hubbub_lease l WHERE l.partition = p FOR UPDATE;
    present := coalesce(at, clock_timestamp());
    ok := true;
    node := by_node;
    expires := present + ttl;
    IF NOT FOUND THEN
        epoch := 1;
        INSERT INTO hubbub_lease VALUES (p, node, epoch, expires);
        RETURN;
    END IF;
    epoch := have.epoch;
    IF have.node <> ''::bytea AND present < have.expires THEN
        IF have.node <> by_node THEN
            ok := false;
            node := have.node;
            expires := have.expires;
            RETURN;
        END IF;
    ELSE
        epoch := have.epoch + 1;
    END IF;
    UPDATE hubbub_lease l SET node = by_node, epoch = hubbub_acquire.epoch, expires = hubbub_acquire.expires
    WHERE l.partition = p;
END
$$;
-- +goose StatementEnd

-- Where partitions are that were moved: a row in each database that has, had or is to
-- have the partition. One without a row is where the first spread put it.
CREATE TABLE hubbub_place (
    partition  integer  PRIMARY KEY,
    generation bigint   NOT NULL, -- of the move
    state      smallint NOT NULL, -- 0 here, 1 leaving, 2 coming, 3 gone; from 2 on nobody reads it here
    other      integer  NOT NULL, -- the index of the other database of the move
    node       bytea,             -- who held the lease here when it went, and until when
    expires    timestamptz
);

-- What was written to partitions that are leaving, since they began to: a row, or the
-- rows from low to before high.
CREATE TABLE hubbub_change (
    partition integer   NOT NULL,
    id        bigserial NOT NULL,
    tbl       smallint  NOT NULL,
    entity    bytea     NOT NULL,
    low       bytea     NOT NULL,
    high      bytea,
    PRIMARY KEY (partition, id)
);

-- A commit, as hubbub_commit was. Rows that go are found key by key through the index: a
-- join leaves it to the planner whether to go through all of the partition instead,
-- which it does as long as it believes that the table is small. Ranges all have an end:
-- with a condition on each row, a range was read to the end of its entity. Rows of which
-- it is known that they are not there are written without being looked for, and one
-- that is there makes the whole commit fail. What is written to a partition that is
-- leaving is noted.
-- +goose StatementBegin
CREATE FUNCTION hubbub_write(
    p integer, e bigint,
    range_tbl smallint[], range_entity bytea[], range_from bytea[], range_to bytea[],
    gone_tbl smallint[], gone_entity bytea[], gone_sort bytea[],
    put_tbl smallint[], put_entity bytea[], put_sort bytea[], put_value bytea[],
    new_tbl smallint[], new_entity bytea[], new_sort bytea[], new_value bytea[]
) RETURNS boolean LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    place smallint;
BEGIN
    PERFORM pg_advisory_xact_lock_shared(1752523362, p);
    SELECT (SELECT w.state FROM hubbub_place w WHERE w.partition = p) INTO place
    FROM hubbub_lease l WHERE l.partition = p AND l.epoch = e;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    IF place >= 2 THEN
        RETURN false;
    END IF;
    IF cardinality(range_tbl) > 0 THEN
        DELETE FROM hubbub_row WHERE ctid = ANY (ARRAY(
            SELECT found.ctid FROM unnest(range_tbl, range_entity, range_from, range_to) AS d(tbl, entity, low, high),
            LATERAL (
                SELECT r.ctid FROM hubbub_row r
                WHERE r.partition = p AND r.tbl = d.tbl AND r.entity = d.entity AND r.sort >= d.low AND r.sort < d.high
                OFFSET 0
            ) found));
    END IF;
    IF cardinality(gone_tbl) > 0 THEN
        DELETE FROM hubbub_row WHERE ctid = ANY (ARRAY(
            SELECT (
                SELECT r.ctid FROM hubbub_row r
                WHERE r.partition = p AND r.tbl = d.tbl AND r.entity = d.entity AND r.sort = d.sort
            ) FROM unnest(gone_tbl, gone_entity, gone_sort) AS d(tbl, entity, sort)));
    END IF;
    IF cardinality(put_tbl) > 0 THEN
        INSERT INTO hubbub_row AS r (partition, tbl, entity, sort, value)
        SELECT p, u.tbl, u.entity, u.sort, u.value
        FROM unnest(put_tbl, put_entity, put_sort, put_value) AS u(tbl, entity, sort, value)
        ON CONFLICT (partition, tbl, entity, sort) DO UPDATE SET value = EXCLUDED.value;
    END IF;
    IF cardinality(new_tbl) > 0 THEN
        INSERT INTO hubbub_row (partition, tbl, entity, sort, value)
        SELECT p, u.tbl, u.entity, u.sort, u.value
        FROM unnest(new_tbl, new_entity, new_sort, new_value) AS u(tbl, entity, sort, value);
    END IF;
    IF place = 1 THEN
        INSERT INTO hubbub_change (partition, tbl, entity, low, high)
        SELECT p, c.tbl, c.entity, c.low, c.high FROM (
            SELECT * FROM unnest(range_tbl, range_entity, range_from, range_to)
            UNION ALL SELECT tbl, entity, sort, NULL FROM unnest(gone_tbl, gone_entity, gone_sort) AS g(tbl, entity, sort)
            UNION ALL SELECT tbl, entity, sort, NULL FROM unnest(put_tbl, put_entity, put_sort) AS u(tbl, entity, sort)
            UNION ALL SELECT tbl, entity, sort, NULL FROM unnest(new_tbl, new_entity, new_sort) AS n(tbl, entity, sort)
        ) AS c(tbl, entity, low, high);
    END IF;
    RETURN true;
END
$$;
-- +goose StatementEnd

-- For nodes of the version before, which give '' for the end of the entity.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION hubbub_commit(
    p integer, e bigint,
    range_tbl smallint[], range_entity bytea[], range_from bytea[], range_to bytea[],
    gone_tbl smallint[], gone_entity bytea[], gone_sort bytea[],
    put_tbl smallint[], put_entity bytea[], put_sort bytea[], put_value bytea[]
) RETURNS boolean LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    RETURN hubbub_write(
        p, e,
        range_tbl, range_entity, range_from, array_replace(range_to, ''::bytea, decode(repeat('ff', 1201), 'hex')),
        gone_tbl, gone_entity, gone_sort, put_tbl, put_entity, put_sort, put_value, '{}', '{}', '{}', '{}');
END
$$;
-- +goose StatementEnd

-- +goose Down
DROP FUNCTION hubbub_commit, hubbub_write, hubbub_renew;
DROP TABLE hubbub_change, hubbub_place;
