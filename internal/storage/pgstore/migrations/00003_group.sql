-- +goose Up

-- Commits to some partitions, in the order of their numbers and each partition once: a
-- call, a snapshot, and a statement for each kind of row cost more than the rows of a
-- message do. Either all are written or, if an epoch is not its partition's, none, and it
-- gives false. wait, if not '', is how long a lock may take.
--
-- The locks order it against hubbub_acquire: whoever has them shared knows that the
-- epochs it reads stay the current ones until its transaction has ended, and the
-- next statement of a volatile function sees what was committed before it. Row locks
-- would do the same and write to the disk for it.
--
-- Rows that go are found key by key through the index: a join leaves it to the planner
-- whether to go through all of the partition instead, which it does as long as it
-- believes that the table is small. Ranges all have an end: with a condition on each row,
-- a range was read to the end of its entity. Rows of which it is known that they are not
-- there are written without being looked for, and one that is there makes the call fail.
-- What is written to a partition that is leaving is noted.
-- +goose StatementBegin
CREATE FUNCTION hubbub_write_group(
    wait text, ps integer[], es bigint[],
    range_p integer[], range_tbl smallint[], range_entity bytea[], range_from bytea[], range_to bytea[],
    gone_p integer[], gone_tbl smallint[], gone_entity bytea[], gone_sort bytea[],
    put_p integer[], put_tbl smallint[], put_entity bytea[], put_sort bytea[], put_value bytea[],
    new_p integer[], new_tbl smallint[], new_entity bytea[], new_sort bytea[], new_value bytea[]
) RETURNS boolean LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    held bigint;
    leaving integer[];
BEGIN
    IF wait <> '' THEN
        PERFORM set_config('lock_timeout', wait, true);
    END IF;
    PERFORM pg_advisory_xact_lock_shared(1752523362, c.p) FROM unnest(ps) AS c(p);
    SELECT count(*), array_agg(c.p) FILTER (WHERE c.state = 1) INTO held, leaving
    FROM (
        SELECT h.p, coalesce((SELECT w.state FROM hubbub_place w WHERE w.partition = h.p), 0) AS state
        FROM unnest(ps, es) AS h(p, e)
        WHERE h.e = (SELECT l.epoch FROM hubbub_lease l WHERE l.partition = h.p)
    ) c WHERE c.state < 2;
    IF held <> cardinality(ps) THEN
        RETURN false;
    END IF;
    IF cardinality(range_p) > 0 THEN
        DELETE FROM hubbub_row WHERE ctid = ANY (ARRAY(
            SELECT found.ctid FROM unnest(range_p, range_tbl, range_entity, range_from, range_to) AS d(p, tbl, entity, low, high),
            LATERAL (
                SELECT r.ctid FROM hubbub_row r
                WHERE r.partition = d.p AND r.tbl = d.tbl AND r.entity = d.entity AND r.sort >= d.low AND r.sort < d.high
                OFFSET 0
            ) found));
    END IF;
    IF cardinality(gone_p) > 0 THEN
        DELETE FROM hubbub_row WHERE ctid = ANY (ARRAY(
            SELECT (
                SELECT r.ctid FROM hubbub_row r
                WHERE r.partition = d.p AND r.tbl = d.tbl AND r.entity = d.entity AND r.sort = d.sort
            ) FROM unnest(gone_p, gone_tbl, gone_entity, gone_sort) AS d(p, tbl, entity, sort)));
    END IF;
    IF cardinality(put_p) > 0 THEN
        INSERT INTO hubbub_row AS r (partition, tbl, entity, sort, value)
        SELECT u.p, u.tbl, u.entity, u.sort, u.value
        FROM unnest(put_p, put_tbl, put_entity, put_sort, put_value) AS u(p, tbl, entity, sort, value)
        ON CONFLICT (partition, tbl, entity, sort) DO UPDATE SET value = EXCLUDED.value;
    END IF;
    IF cardinality(new_p) > 0 THEN
        INSERT INTO hubbub_row (partition, tbl, entity, sort, value)
        SELECT u.p, u.tbl, u.entity, u.sort, u.value
        FROM unnest(new_p, new_tbl, new_entity, new_sort, new_value) AS u(p, tbl, entity, sort, value);
    END IF;
    IF leaving IS NOT NULL THEN
        INSERT INTO hubbub_change (partition, tbl, entity, low, high)
        SELECT c.p, c.tbl, c.entity, c.low, c.high FROM (
            SELECT * FROM unnest(range_p, range_tbl, range_entity, range_from, range_to)
            UNION ALL SELECT *, NULL FROM unnest(gone_p, gone_tbl, gone_entity, gone_sort)
            UNION ALL SELECT *, NULL FROM unnest(put_p, put_tbl, put_entity, put_sort)
            UNION ALL SELECT *, NULL FROM unnest(new_p, new_tbl, new_entity, new_sort)
        ) AS c(p, tbl, entity, low, high) WHERE c.p = ANY (leaving);
    END IF;
    RETURN true;
END
$$;
-- +goose StatementEnd

-- For nodes of the version before, which give NULL for what they have none of.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION hubbub_write(
    p integer, e bigint,
    range_tbl smallint[], range_entity bytea[], range_from bytea[], range_to bytea[],
    gone_tbl smallint[], gone_entity bytea[], gone_sort bytea[],
    put_tbl smallint[], put_entity bytea[], put_sort bytea[], put_value bytea[],
    new_tbl smallint[], new_entity bytea[], new_sort bytea[], new_value bytea[]
) RETURNS boolean LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    RETURN hubbub_write_group(
        '', ARRAY[p], ARRAY[e],
        array_fill(p, ARRAY[coalesce(cardinality(range_tbl), 0)]), range_tbl, range_entity, range_from, range_to,
        array_fill(p, ARRAY[coalesce(cardinality(gone_tbl), 0)]), gone_tbl, gone_entity, gone_sort,
        array_fill(p, ARRAY[coalesce(cardinality(put_tbl), 0)]), put_tbl, put_entity, put_sort, put_value,
        array_fill(p, ARRAY[coalesce(cardinality(new_tbl), 0)]), new_tbl, new_entity, new_sort, new_value);
END
$$;
-- +goose StatementEnd

-- +goose Down
DROP FUNCTION hubbub_write, hubbub_write_group;
