-- +goose Up
CREATE TABLE hubbub_meta (
    name  bytea PRIMARY KEY,
    value bytea NOT NULL
);

CREATE TABLE hubbub_lease (
    partition integer     PRIMARY KEY,
    node      bytea       NOT NULL, -- '' when it was released
    epoch     bigint      NOT NULL,
    expires   timestamptz NOT NULL
);

-- bytea compares as bytes do, which is the order that the interface asks for.
CREATE TABLE hubbub_row (
    partition integer  NOT NULL,
    tbl       smallint NOT NULL,
    entity    bytea    NOT NULL,
    sort      bytea    NOT NULL,
    value     bytea    NOT NULL,
    PRIMARY KEY (partition, tbl, entity, sort)
);

-- A commit is one call of this function, and so one round trip and one
-- transaction. It gives false if the epoch is not the partition's.
--
-- The lock orders it against hubbub_acquire: whoever has it shared knows that the
-- epoch it read stays the current one until its transaction has ended, and the
-- next statement of a volatile function sees what was committed before it. A
-- row lock would do the same and write to the disk for it.
-- +goose StatementBegin
CREATE FUNCTION hubbub_commit(
    p integer, e bigint,
    range_tbl smallint[], range_entity bytea[], range_from bytea[], range_to bytea[],
    gone_tbl smallint[], gone_entity bytea[], gone_sort bytea[],
    put_tbl smallint[], put_entity bytea[], put_sort bytea[], put_value bytea[]
) RETURNS boolean LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM pg_advisory_xact_lock_shared(1752523362, p);
    PERFORM 1 FROM hubbub_lease l WHERE l.partition = p AND l.epoch = e;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    IF cardinality(range_tbl) > 0 THEN
        DELETE FROM hubbub_row r
        USING unnest(range_tbl, range_entity, range_from, range_to) AS d(tbl, entity, low, high)
        WHERE r.partition = p AND r.tbl = d.tbl AND r.entity = d.entity AND r.sort >= d.low
            AND (d.high = ''::bytea OR r.sort < d.high);
    END IF;
    IF cardinality(gone_tbl) > 0 THEN
        DELETE FROM hubbub_row r
        USING unnest(gone_tbl, gone_entity, gone_sort) AS d(tbl, entity, sort)
        WHERE r.partition = p AND r.tbl = d.tbl AND r.entity = d.entity AND r.sort = d.sort;
    END IF;
    IF cardinality(put_tbl) > 0 THEN
        INSERT INTO hubbub_row AS r (partition, tbl, entity, sort, value)
        SELECT p, u.tbl, u.entity, u.sort, u.value
        FROM unnest(put_tbl, put_entity, put_sort, put_value) AS u(tbl, entity, sort, value)
        ON CONFLICT (partition, tbl, entity, sort) DO UPDATE SET value = EXCLUDED.value;
    END IF;
    RETURN true;
END
$$;
-- +goose StatementEnd

-- Takes or renews a lease. at is the time by which leases expire, NULL for the
-- database's own. ok says whether the node has it now; the rest is the lease as
-- it stands.
-- +goose StatementBegin
CREATE FUNCTION hubbub_acquire(
    p integer, by_node bytea, ttl interval, at timestamptz,
    OUT ok boolean, OUT node bytea, OUT epoch bigint, OUT expires timestamptz
) LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    have hubbub_lease%ROWTYPE;
    present timestamptz;
BEGIN
    PERFORM pg_advisory_xact_lock(1752523362, p);
    present := coalesce(at, clock_timestamp());
    SELECT * INTO have FROM hubbub_lease l WHERE l.partition = p;
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

-- Gives a lease up; false if it is not held so.
-- +goose StatementBegin
CREATE FUNCTION hubbub_release(p integer, by_node bytea, e bigint) RETURNS boolean LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(1752523362, p);
    UPDATE hubbub_lease l SET node = ''::bytea WHERE l.partition = p AND l.node = by_node AND l.epoch = e AND l.node <> ''::bytea;
    RETURN FOUND;
END
$$;
-- +goose StatementEnd

-- +goose Down
DROP FUNCTION hubbub_release, hubbub_acquire, hubbub_commit;
DROP TABLE hubbub_row, hubbub_lease, hubbub_meta;
