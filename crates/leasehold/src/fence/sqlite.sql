-- leasehold: a resource refuses a writer whose fence is smaller than the greatest it has seen.
-- Safe to run again. For SQLite 3.9 and later.
--
-- In the transaction of the write, first:
--   BEGIN IMMEDIATE;
--   INSERT INTO leasehold_fence (resource, token) VALUES ('jobs/42', 34);
--   … the write …
--   COMMIT;
-- A stale fence fails with "leasehold: stale fence" (SQLITE_CONSTRAINT_TRIGGER). SQLite keeps the
-- transaction open then: roll it back. One that rolls back has not been seen.

CREATE TABLE IF NOT EXISTS leasehold_fences (
    resource TEXT NOT NULL PRIMARY KEY,
    -- A fence is a u64; those of every store stay far below 2^63, and greater ones are refused.
    fence INTEGER NOT NULL
) WITHOUT ROWID;

-- What a function is elsewhere. Nothing can be read from it.
CREATE VIEW IF NOT EXISTS leasehold_fence (resource, token) AS SELECT '', 0 WHERE 0;

-- Not an upsert: the conflict clause of an outer statement goes over those of a trigger
-- (sqlite.org/lang_createtrigger.html).
CREATE TRIGGER IF NOT EXISTS leasehold_fence_check INSTEAD OF INSERT ON leasehold_fence BEGIN
    SELECT raise(ABORT, 'leasehold: no fence')
        WHERE NEW.resource IS NULL OR typeof(NEW.token) <> 'integer' OR NEW.token < 0;
    SELECT raise(ABORT, 'leasehold: stale fence')
        FROM leasehold_fences WHERE resource = NEW.resource AND fence > NEW.token;
    UPDATE leasehold_fences SET fence = NEW.token WHERE resource = NEW.resource;
    INSERT INTO leasehold_fences SELECT NEW.resource, NEW.token
        WHERE NOT EXISTS (SELECT 1 FROM leasehold_fences WHERE resource = NEW.resource);
END;
