-- +goose Up

-- hubbub_commit with rows of which it is known that they are not there: they are
-- written without being looked for, and one that is there makes the whole commit fail.
-- hubbub_commit stays for nodes of the version before.
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

-- +goose Down
DROP FUNCTION hubbub_write;
