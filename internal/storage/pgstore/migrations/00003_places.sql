-- +goose Up

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

-- The same as before, but that it notes what it writes to a partition that is leaving.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION hubbub_commit(
    p integer, e bigint,
    range_tbl smallint[], range_entity bytea[], range_from bytea[], range_to bytea[],
    gone_tbl smallint[], gone_entity bytea[], gone_sort bytea[],
    put_tbl smallint[], put_entity bytea[], put_sort bytea[], put_value bytea[]
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
        -- A node of the version before gives '' for the end of the entity.
        range_to := array_replace(range_to, ''::bytea, decode(repeat('ff', 1201), 'hex'));
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
    IF place = 1 THEN
        INSERT INTO hubbub_change (partition, tbl, entity, low, high)
        SELECT p, c.tbl, c.entity, c.low, c.high FROM (
            SELECT * FROM unnest(range_tbl, range_entity, range_from, range_to)
            UNION ALL SELECT tbl, entity, sort, NULL FROM unnest(gone_tbl, gone_entity, gone_sort) AS g(tbl, entity, sort)
            UNION ALL SELECT tbl, entity, sort, NULL FROM unnest(put_tbl, put_entity, put_sort) AS u(tbl, entity, sort)
        ) AS c(tbl, entity, low, high);
    END IF;
    RETURN true;
END
$$;
-- +goose StatementEnd

-- +goose Down
DROP TABLE hubbub_change, hubbub_place;
