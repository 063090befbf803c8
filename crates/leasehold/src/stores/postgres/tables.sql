-- The tables and functions of the lock service, version 3. Safe to run again, also on the tables of
-- an earlier version: what they hold stays, and so does who may use them.
--
-- Run it as the role that shall own them, in the database of the URL. Then let the others in:
--
--   GRANT USAGE ON SCHEMA leasehold TO app;
--   GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA leasehold TO app;
--   GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA leasehold TO app;
--
-- The order of locks is: keys (ascending by hash), then the judge's lock, then a session's row, then
-- a record's row. Every function keeps to it, so none of them can wait in a circle.

CREATE SCHEMA IF NOT EXISTS leasehold;

-- The functions of an earlier version would take no notice of what a later one keeps. Locks the row
-- first, as open() does: what follows locks tables that open() comes to afterwards.
DO $$
DECLARE
    its integer;
BEGIN
    IF to_regclass('leasehold.state') IS NOT NULL THEN
        SELECT version INTO its FROM leasehold.state FOR UPDATE;
        IF its > 3 THEN
            RAISE EXCEPTION 'the tables in the schema leasehold are of a newer version';
        END IF;
    END IF;
END $$;

-- One row. A fence is fence_base + nextval(fences): both only grow, so the sum does without a lock
-- between those who draw fences and those who raise them.
CREATE TABLE IF NOT EXISTS leasehold.state (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    version integer NOT NULL,
    fence_base bigint NOT NULL
) WITH (fillfactor = 10);

-- CACHE 1: a backend that kept numbers back would grant them out of order.
CREATE SEQUENCE IF NOT EXISTS leasehold.fences AS bigint CACHE 1 NO CYCLE;

-- Renewed in place. No index on expires, so that a renewal is a heap-only update: it needs no
-- vacuum, the next visit of the page cleans up.
CREATE TABLE IF NOT EXISTS leasehold.sessions (
    id uuid PRIMARY KEY,
    owner text NOT NULL,
    channel text NOT NULL,
    ttl interval NOT NULL,
    expires timestamptz NOT NULL,
    dead boolean NOT NULL DEFAULT false
) WITH (
    fillfactor = 50,
    autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 500,
    autovacuum_vacuum_cost_delay = 0
);

-- A line is the claims of one key by ticket. Those with a fence hold: a prefix of the line.
CREATE TABLE IF NOT EXISTS leasehold.claims (
    session uuid NOT NULL,
    id uuid NOT NULL,
    key text COLLATE "C" NOT NULL,
    ticket bigint NOT NULL,
    units bigint NOT NULL,
    key_limit bigint NOT NULL,
    note text NOT NULL,
    entered timestamptz NOT NULL,
    fence bigint,
    granted timestamptz,
    PRIMARY KEY (session, id)
) WITH (
    fillfactor = 70,
    autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 1000,
    autovacuum_vacuum_insert_scale_factor = 0.0, autovacuum_vacuum_insert_threshold = 10000,
    autovacuum_analyze_scale_factor = 0.0, autovacuum_analyze_threshold = 5000,
    autovacuum_vacuum_cost_delay = 0
);
CREATE UNIQUE INDEX IF NOT EXISTS claims_line ON leasehold.claims (key, ticket);

-- A few bytes for a key, read as none from kept_until on. Some are written many times a second, so
-- that has no index; sweep_at, not before it, has one, and seldom changes: the other updates are
-- heap-only, as those of the sessions are. Versions are drawn from the fences, which never fall back.
CREATE TABLE IF NOT EXISTS leasehold.records (
    key text COLLATE "C" PRIMARY KEY,
    value bytea NOT NULL,
    version bigint NOT NULL,
    kept_until timestamptz NOT NULL,
    sweep_at timestamptz NOT NULL
) WITH (
    fillfactor = 50,
    autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 1000,
    autovacuum_vacuum_cost_delay = 0,
    toast.autovacuum_vacuum_scale_factor = 0.0, toast.autovacuum_vacuum_threshold = 5000,
    toast.autovacuum_vacuum_cost_delay = 0
);
CREATE INDEX IF NOT EXISTS records_sweep ON leasehold.records (sweep_at);

-- Who was let in before there were records may keep them: an upgrade asks nobody for a GRANT.
DO $$
DECLARE
    role text;
BEGIN
    IF (SELECT relacl FROM pg_class WHERE oid = 'leasehold.records'::regclass) IS NULL THEN
        FOR role IN
            SELECT CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END
            FROM pg_class c, aclexplode(c.relacl) a
            WHERE c.oid = 'leasehold.claims'::regclass AND a.privilege_type = 'INSERT'
                AND a.grantee <> c.relowner
        LOOP
            EXECUTE 'GRANT SELECT, INSERT, UPDATE, DELETE ON leasehold.records TO ' || role;
        END LOOP;
    END IF;
END $$;
