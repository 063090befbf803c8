-- leasehold: a resource refuses a writer whose fence is smaller than the greatest it has seen.
-- Safe to run again. Every name carries its schema, so no search_path can lead elsewhere. Then let
-- the writers in:
--
--   GRANT SELECT, INSERT, UPDATE ON :schema.leasehold_fences TO app;
--
-- In the transaction of the write, first:
--   SELECT :schema.leasehold_fence('jobs/42', 34);
-- A stale fence fails with SQLSTATE LHF01 and takes the transaction with it. Whoever is accepted
-- keeps the resource's row locked until the end of the transaction, so that the transactions of one
-- resource follow one another; one that rolls back has not been seen. (Under REPEATABLE READ and
-- SERIALIZABLE a transaction that had to wait may fail with 40001: run it again.)

CREATE TABLE IF NOT EXISTS :schema.leasehold_fences (
    resource text PRIMARY KEY,
    -- A fence is a u64; those of every store stay far below 2^63, and greater ones are refused.
    fence bigint NOT NULL CHECK (fence >= 0)
) WITH (fillfactor = 50);

CREATE OR REPLACE FUNCTION :schema.leasehold_fence(resource text, token bigint) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    seen bigint;
BEGIN
    IF resource IS NULL OR token IS NULL OR token < 0 THEN
        RAISE EXCEPTION 'leasehold: no fence for %', coalesce(resource, 'no resource')
            USING ERRCODE = 'LHF02', HINT = 'SET LOCAL leasehold.fence, or write the column';
    END IF;
    -- One statement: it inserts or locks the row, waits for whoever has it, and looks at what they
    -- left, not at the snapshot.
    INSERT INTO :schema.leasehold_fences AS known (resource, fence)
        VALUES (leasehold_fence.resource, token)
        ON CONFLICT ON CONSTRAINT leasehold_fences_pkey
        DO UPDATE SET fence = excluded.fence WHERE known.fence <= excluded.fence;
    IF NOT FOUND THEN
        SELECT fence INTO seen FROM :schema.leasehold_fences AS known
            WHERE known.resource = leasehold_fence.resource;
        RAISE EXCEPTION 'leasehold: stale fence for %', resource USING
            ERRCODE = 'LHF01',
            DETAIL = format('token %s, greatest %s', token, seen),
            HINT = 'The hold was lost and another has written since: do not try again.';
    END IF;
END
$$;

-- For tables whose writers cannot be trusted to call the function. Arguments: the name of the
-- resource; the column that tells its rows apart ('' where the table is one resource); the column
-- that the writer's fence is in ('' where there is none).
-- SET LOCAL leasehold.fence = 34 goes over the column, and a DELETE has nothing else.
CREATE OR REPLACE FUNCTION :schema.leasehold_fence_write() RETURNS trigger
LANGUAGE plpgsql AS $$
DECLARE
    token text := nullif(current_setting('leasehold.fence', true), '');
    resource text := TG_ARGV[0];
    before jsonb;
    after jsonb;
BEGIN
    IF TG_OP <> 'INSERT' THEN before := to_jsonb(OLD); END IF;
    IF TG_OP <> 'DELETE' THEN after := to_jsonb(NEW); END IF;
    token := coalesce(token, after ->> TG_ARGV[2]);
    IF TG_ARGV[1] = '' THEN
        PERFORM :schema.leasehold_fence(resource, token::bigint);
    ELSE
        PERFORM :schema.leasehold_fence(resource || '/' || name, token::bigint) FROM (
            -- A row that changes its name is a write of both.
            SELECT DISTINCT row ->> TG_ARGV[1] AS name
                FROM unnest(array[before, after]) AS row WHERE row IS NOT NULL ORDER BY name
        ) AS named;
    END IF;
    IF TG_OP = 'DELETE' THEN RETURN OLD; END IF;
    RETURN NEW;
END
$$;
