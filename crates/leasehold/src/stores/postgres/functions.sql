-- The functions of the lock service, for the tables of tables.sql. Safe to run again.

-- What must hold for a transaction that grants or ends something. This and what else only the others
-- call runs under their search_path: to set it anew costs more than the work.
CREATE OR REPLACE FUNCTION leasehold.ready() RETURNS void
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    -- A snapshot of the whole transaction would be older than the wait for the key's lock.
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION USING ERRCODE = '25001', MESSAGE =
            'the isolation level must be READ COMMITTED: reset default_transaction_isolation';
    END IF;
    -- A grant that a crash of the server may forget is none. Lasts to the end of the transaction.
    IF current_setting('synchronous_commit') NOT IN ('on', 'remote_apply') THEN
        PERFORM set_config('synchronous_commit', 'on', true);
    END IF;
END $$;

-- Whether a session that looked lapsed is: judged by writing, because a renewal may be committing
-- at this moment. One judge at a time, so that two that judge many sessions cannot cross.
CREATE OR REPLACE FUNCTION leasehold.condemn(the_session uuid) RETURNS boolean
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(7811887145421309283);
    UPDATE leasehold.sessions SET dead = true
        WHERE id = the_session AND NOT dead AND expires <= clock_timestamp();
    IF FOUND THEN
        RETURN true;
    END IF;
    RETURN NOT EXISTS (SELECT FROM leasehold.sessions WHERE id = the_session AND NOT dead);
END $$;

-- The one rule: drops the dead from the head of the line, grants what now fits, and tells whom it
-- granted. The key's lock must be held. `full`: somebody alive is left who does not fit.
CREATE OR REPLACE FUNCTION leasehold.settle(
    the_key text, me uuid,
    OUT taken bigint, OUT lowest bigint, OUT lapse timestamptz, OUT full_up boolean
) LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    c record;
    drawn bigint;
BEGIN
    taken := 0;
    lowest := 4294967295;
    full_up := false;
    FOR c IN
        SELECT l.session, l.id, l.units, l.key_limit, l.fence, s.dead, s.expires, s.channel
        FROM leasehold.claims l LEFT JOIN leasehold.sessions s ON s.id = l.session
        WHERE l.key = the_key COLLATE "C" ORDER BY l.ticket
    LOOP
        -- No row of a session: it was closed.
        IF c.dead IS DISTINCT FROM false
            OR (c.expires <= clock_timestamp() AND leasehold.condemn(c.session))
        THEN
            DELETE FROM leasehold.claims WHERE session = c.session AND id = c.id;
            CONTINUE;
        END IF;
        IF taken + c.units > least(lowest, c.key_limit) THEN
            full_up := true;
            EXIT;
        END IF;
        taken := taken + c.units;
        lowest := least(lowest, c.key_limit);
        lapse := least(lapse, c.expires);
        IF c.fence IS NULL THEN
            UPDATE leasehold.claims SET granted = clock_timestamp(), fence =
                (SELECT fence_base + nextval('leasehold.fences') FROM leasehold.state)
                WHERE session = c.session AND id = c.id RETURNING fence INTO drawn;
            IF c.id IS DISTINCT FROM me AND c.channel <> '' THEN
                PERFORM pg_notify(c.channel, 'granted ' || c.id || ' ' || drawn);
            END IF;
        END IF;
    END LOOP;
END $$;

-- Raises the fences to the clock, in case that they fell back: a restore, a failover that lost the
-- last commits, a hand that reset the sequence. Not for less than 100 ms, or every new session
-- would wait for the one before.
CREATE OR REPLACE FUNCTION leasehold.raise_fences() RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    micros bigint := extract(epoch FROM clock_timestamp()) * 1000000;
    counted bigint := (SELECT last_value FROM leasehold.fences);
BEGIN
    PERFORM leasehold.ready();
    UPDATE leasehold.state SET fence_base = greatest(fence_base, micros - counted)
        WHERE fence_base + counted < micros - 100000;
END $$;

-- Deletes a few sessions that lapsed a while ago and what they left on keys that nobody wants.
-- Never waits: what is locked is somebody else's to delete.
CREATE OR REPLACE FUNCTION leasehold.reap() RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    lapsed uuid;
BEGIN
    FOR lapsed IN
        SELECT id FROM leasehold.sessions WHERE expires < clock_timestamp() - interval '1 minute'
        LIMIT 16 FOR UPDATE SKIP LOCKED
    LOOP
        UPDATE leasehold.sessions SET dead = true WHERE id = lapsed AND NOT dead;
        DELETE FROM leasehold.claims WHERE session = lapsed AND id IN
            (SELECT id FROM leasehold.claims WHERE session = lapsed LIMIT 4096
                FOR UPDATE SKIP LOCKED);
        DELETE FROM leasehold.sessions WHERE id = lapsed
            AND NOT EXISTS (SELECT FROM leasehold.claims WHERE session = lapsed);
    END LOOP;
END $$;

-- Deletes a few records whose time is over. Never waits, and nothing may be waited for after it:
-- a writer waits for the rows that it deletes.
CREATE OR REPLACE FUNCTION leasehold.sweep(few integer) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    at timestamptz := clock_timestamp();
BEGIN
    DELETE FROM leasehold.records WHERE key = ANY (ARRAY(
        SELECT key FROM leasehold.records WHERE sweep_at <= at AND kept_until <= at
        ORDER BY sweep_at LIMIT few FOR UPDATE SKIP LOCKED));
END $$;

CREATE OR REPLACE FUNCTION leasehold.open(
    the_session uuid, the_ttl bigint, the_owner text, the_channel text
) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    span interval := the_ttl * interval '1 microsecond';
BEGIN
    PERFORM leasehold.raise_fences();
    PERFORM leasehold.reap();
    INSERT INTO leasehold.sessions (id, owner, channel, ttl, expires)
        VALUES (the_session, the_owner, the_channel, span, clock_timestamp() + span);
    PERFORM leasehold.sweep(64);
END $$;

-- One UPDATE for the whole session. It waits for a judge that is condemning it, and then finds
-- itself dead.
CREATE OR REPLACE FUNCTION leasehold.renew(
    the_session uuid, roll uuid[], OUT alive boolean, OUT lost uuid[]
) LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM leasehold.ready();
    UPDATE leasehold.sessions SET expires = clock_timestamp() + ttl
        WHERE id = the_session AND NOT dead AND expires > clock_timestamp();
    alive := FOUND;
    lost := ARRAY(SELECT r.id FROM unnest(roll) AS r(id) WHERE NOT EXISTS
        (SELECT FROM leasehold.claims c WHERE c.session = the_session AND c.id = r.id));
END $$;

-- The first limit in line that a new claim disagrees with; NULL if all who live agree. The same limit
-- agrees, and a mutex (1) with readers and writers (2^32 - 1). The key's lock must be held.
CREATE OR REPLACE FUNCTION leasehold.other_limit(the_key text, the_limit bigint) RETURNS bigint
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    c record;
BEGIN
    FOR c IN
        SELECT l.session, l.key_limit, s.expires
        FROM leasehold.claims l JOIN leasehold.sessions s ON s.id = l.session
        WHERE l.key = the_key COLLATE "C" AND l.key_limit <> the_limit
            AND (least(l.key_limit, the_limit) <> 1 OR greatest(l.key_limit, the_limit) <> 4294967295)
            AND NOT s.dead
        ORDER BY l.ticket
    LOOP
        IF c.expires > clock_timestamp() OR NOT leasehold.condemn(c.session) THEN
            RETURN c.key_limit;
        END IF;
    END LOOP;
    RETURN NULL;
END $$;

-- Joins the line, or finds the place in it.
CREATE OR REPLACE FUNCTION leasehold.enter(
    the_session uuid, the_claim uuid, the_key text, the_units bigint, the_limit bigint,
    the_note text, stay boolean,
    OUT outcome text, OUT held bigint, OUT rank bigint, OUT lapses bigint,
    OUT holder uuid, OUT owner text, OUT note text, OUT fence bigint, OUT age bigint,
    OUT remaining bigint, OUT units bigint, OUT key_limit bigint
) LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    line record;
    mine record;
    place bigint := 1;
    fits boolean := true;
    at timestamptz;
BEGIN
    PERFORM leasehold.ready();
    PERFORM pg_advisory_xact_lock(hashtextextended(the_key COLLATE "C", 5641968264518839049));
    -- The clock is read when the lock is held: the transaction may have waited for it.
    at := clock_timestamp();
    SELECT EXISTS (SELECT FROM leasehold.claims c WHERE c.key = the_key COLLATE "C") AS wanted
        INTO mine FROM leasehold.sessions WHERE id = the_session AND NOT dead AND expires > at;
    IF NOT FOUND THEN
        outcome := 'ended';
        RETURN;
    END IF;
    -- Most keys are nobody's, and that is all there is to see.
    IF mine.wanted THEN
        line := leasehold.settle(the_key, the_claim);
        SELECT c.fence, c.ticket INTO mine FROM leasehold.claims c
            WHERE c.session = the_session AND c.id = the_claim AND c.key = the_key COLLATE "C";
        IF FOUND THEN
            place := mine.ticket;
            held := mine.fence;
            fits := NULL;
            IF held IS NULL AND NOT stay THEN
                DELETE FROM leasehold.claims WHERE session = the_session AND id = the_claim;
            END IF;
        ELSE
            IF line.taken > 0 THEN
                key_limit := leasehold.other_limit(the_key, the_limit);
                IF key_limit IS NOT NULL THEN
                    outcome := 'disagrees';
                    RETURN;
                END IF;
            END IF;
            SELECT coalesce(max(c.ticket), 0) + 1 INTO place FROM leasehold.claims c
                WHERE c.key = the_key COLLATE "C";
            fits := NOT line.full_up AND line.taken + the_units <= least(line.lowest, the_limit);
        END IF;
    END IF;
    -- NULL: it stands in line already.
    IF fits THEN
        INSERT INTO leasehold.claims VALUES (
            the_session, the_claim, the_key, place, the_units, the_limit, the_note, at,
            (SELECT fence_base + nextval('leasehold.fences') FROM leasehold.state), at
        ) RETURNING claims.fence INTO held;
    ELSIF NOT fits AND stay THEN
        INSERT INTO leasehold.claims VALUES (
            the_session, the_claim, the_key, place, the_units, the_limit, the_note, at);
    END IF;
    IF held IS NOT NULL THEN
        outcome := 'held';
        RETURN;
    END IF;
    outcome := CASE WHEN stay THEN 'waiting' ELSE 'refused' END;
    lapses := greatest(0, extract(epoch FROM line.lapse - at) * 1000000);
    SELECT count(*) INTO rank
        FROM leasehold.claims c JOIN leasehold.sessions s ON s.id = c.session
        WHERE c.key = the_key COLLATE "C" AND c.ticket < place AND c.fence IS NULL
            AND NOT s.dead AND s.expires > at;
    -- After settling, the head of the line is alive and holds.
    SELECT v.id, v.owner, v.note, v.fence, v.age, v.remaining, v.units, v.key_limit
        INTO holder, owner, note, fence, age, remaining, units, key_limit
        FROM leasehold.line(the_key, at) v LIMIT 1;
END $$;

-- Takes the locks of keys, in the one order that everybody keeps to.
CREATE OR REPLACE FUNCTION leasehold.lock_keys(keys text[]) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    next_lock bigint;
BEGIN
    FOR next_lock IN
        SELECT hashtextextended(k.key COLLATE "C", 5641968264518839049) AS hash
        FROM unnest(keys) AS k(key) ORDER BY hash
    LOOP
        PERFORM pg_advisory_xact_lock(next_lock);
    END LOOP;
END $$;

-- Enters all of the claims or none of them, each on a key of its own, as enter() does that is not to
-- stay. `held` has the fences; else `which` says whose outcome the rest is, counted from 1.
CREATE OR REPLACE FUNCTION leasehold.enter_all(
    the_session uuid, the_claims uuid[], the_keys text[], the_units bigint[], the_limits bigint[],
    the_notes text[],
    OUT outcome text, OUT held bigint[], OUT rank bigint, OUT which bigint,
    OUT holder uuid, OUT owner text, OUT note text, OUT fence bigint, OUT age bigint,
    OUT remaining bigint, OUT units bigint, OUT key_limit bigint
) LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    known uuid[];
    fresh bigint;
BEGIN
    PERFORM leasehold.ready();
    -- All of them before anything else: each enter() may have to judge a session.
    PERFORM leasehold.lock_keys(the_keys);
    known := ARRAY(SELECT c.id FROM leasehold.claims c
        WHERE c.session = the_session AND c.id = ANY (the_claims));
    FOR n IN 1 .. cardinality(the_claims) LOOP
        SELECT e.outcome, e.held, e.rank, e.holder, e.owner, e.note, e.fence, e.age, e.remaining,
                e.units, e.key_limit
            INTO outcome, fresh, rank, holder, owner, note, fence, age, remaining, units, key_limit
            FROM leasehold.enter(the_session, the_claims[n], the_keys[n], the_units[n],
                the_limits[n], the_notes[n], false) e;
        IF outcome <> 'held' THEN
            -- Under their locks nobody came to stand behind those that were granted until now.
            DELETE FROM leasehold.claims c WHERE c.session = the_session
                AND c.id = ANY (the_claims[1:n]) AND c.id <> ALL (known);
            which := n;
            RETURN;
        END IF;
        held := held || fresh;
    END LOOP;
END $$;

-- A line as others see it: without what lapsed.
CREATE OR REPLACE FUNCTION leasehold.line(the_key text, at timestamptz) RETURNS TABLE (
    id uuid, owner text, note text, fence bigint, age bigint, remaining bigint, units bigint,
    key_limit bigint
) LANGUAGE sql STABLE AS $$
    SELECT c.id, s.owner, c.note, c.fence,
        greatest(0, extract(epoch FROM at - coalesce(c.granted, c.entered)) * 1000000)::bigint,
        greatest(0, extract(epoch FROM s.expires - at) * 1000000)::bigint,
        c.units, c.key_limit
    FROM leasehold.claims c JOIN leasehold.sessions s ON s.id = c.session
    WHERE c.key = the_key COLLATE "C" AND NOT s.dead AND s.expires > at
    ORDER BY c.ticket
$$;

-- Ends a claim of the session: 'released', 'withdrawn', or 'gone'.
CREATE OR REPLACE FUNCTION leasehold.leave(the_session uuid, the_claim uuid, the_key text)
RETURNS text
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    was record;
BEGIN
    PERFORM leasehold.ready();
    PERFORM pg_advisory_xact_lock(hashtextextended(the_key COLLATE "C", 5641968264518839049));
    DELETE FROM leasehold.claims c
        WHERE c.session = the_session AND c.id = the_claim AND c.key = the_key COLLATE "C"
        RETURNING c.fence IS NOT NULL AS held,
            EXISTS (SELECT FROM leasehold.sessions s WHERE s.id = the_session AND NOT s.dead
                AND s.expires > clock_timestamp()) AS alive,
            EXISTS (SELECT FROM leasehold.claims o WHERE o.key = the_key COLLATE "C"
                AND (o.session, o.id) <> (the_session, the_claim)) AS wanted
        INTO was;
    IF NOT FOUND THEN
        RETURN 'gone';
    END IF;
    IF was.wanted THEN
        PERFORM leasehold.settle(the_key, NULL);
    END IF;
    -- What lapsed was not held any more, though nobody noticed.
    IF NOT was.alive THEN
        RETURN 'gone';
    END IF;
    RETURN CASE WHEN was.held THEN 'released' ELSE 'withdrawn' END;
END $$;

-- Whether a claim holds. The key's lock must be held: until the commit nobody else is granted.
CREATE OR REPLACE FUNCTION leasehold.holds(the_session uuid, the_claim uuid, the_key text)
RETURNS boolean
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    -- Holders are a prefix of the line, so this judges the session of each of them.
    PERFORM leasehold.settle(the_key, NULL);
    RETURN EXISTS (SELECT FROM leasehold.claims WHERE session = the_session AND id = the_claim
        AND key = the_key COLLATE "C" AND fence IS NOT NULL);
END $$;

-- Gives a hold another note and fewer units, and grants what then fits.
CREATE OR REPLACE FUNCTION leasehold.amend(
    the_session uuid, the_claim uuid, the_key text, the_units bigint, the_note text
) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM leasehold.ready();
    PERFORM pg_advisory_xact_lock(hashtextextended(the_key COLLATE "C", 5641968264518839049));
    IF NOT leasehold.holds(the_session, the_claim, the_key) THEN
        RETURN false;
    END IF;
    UPDATE leasehold.claims SET note = the_note, units = least(units, the_units)
        WHERE session = the_session AND id = the_claim;
    PERFORM leasehold.settle(the_key, NULL);
    RETURN true;
END $$;

-- The record of a key, and the clock in microseconds since 1970. Always one row.
CREATE OR REPLACE FUNCTION leasehold.read(
    the_key text, OUT at bigint, OUT value bytea, OUT version bigint
) LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    kept record;
    now timestamptz;
BEGIN
    SELECT r.value, r.version, r.kept_until INTO kept FROM leasehold.records r
        WHERE r.key = the_key COLLATE "C";
    -- After that, so that it is not before the time at which the last writer read.
    now := clock_timestamp();
    at := extract(epoch FROM now) * 1000000;
    IF kept.kept_until > now THEN
        value := kept.value;
        version := kept.version;
    END IF;
END $$;

-- Writes the record of a key if the claim holds it; without a claim, if the version is the expected
-- one, and with NULL for that if there is no record.
CREATE OR REPLACE FUNCTION leasehold.write(
    the_key text, the_value bytea, keep bigint, expected bigint, the_session uuid, the_claim uuid
) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    -- A fourth of the time: a record that is written all the time changes it rarely.
    coarse bigint := greatest(60000000, keep / 4);
    at timestamptz;
    last record;
    is_new boolean;
    until timestamptz;
BEGIN
    PERFORM leasehold.ready();
    PERFORM pg_advisory_xact_lock(hashtextextended(the_key COLLATE "C", 5641968264518839049));
    -- After the wait for the lock, so that this sees what its last owner wrote, and when.
    at := clock_timestamp();
    SELECT r.version, r.kept_until > at AS stands INTO last FROM leasehold.records r
        WHERE r.key = the_key COLLATE "C";
    is_new := NOT FOUND;
    IF the_claim IS NOT NULL THEN
        IF NOT leasehold.holds(the_session, the_claim, the_key) THEN
            RETURN false;
        END IF;
    ELSIF (CASE WHEN last.stands THEN last.version END) IS DISTINCT FROM expected THEN
        RETURN false;
    END IF;
    until := clock_timestamp() + keep * interval '1 microsecond';
    INSERT INTO leasehold.records AS r VALUES (
        the_key, the_value,
        (SELECT fence_base + nextval('leasehold.fences') FROM leasehold.state), until,
        to_timestamp(ceil(extract(epoch FROM until) * 1000000 / coarse) * coarse / 1000000)
    ) ON CONFLICT (key) DO UPDATE SET value = excluded.value, version = excluded.version,
        kept_until = excluded.kept_until, sweep_at = excluded.sweep_at;
    IF is_new THEN
        -- Whoever adds one clears away more than one.
        PERFORM leasehold.sweep(4);
    END IF;
    RETURN true;
END $$;

-- Ends somebody's claim by force, and tells its owner.
CREATE OR REPLACE FUNCTION leasehold.revoke(the_key text, the_claim uuid) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    whose uuid;
    told text;
BEGIN
    PERFORM leasehold.ready();
    PERFORM pg_advisory_xact_lock(hashtextextended(the_key COLLATE "C", 5641968264518839049));
    PERFORM leasehold.settle(the_key, NULL);
    DELETE FROM leasehold.claims WHERE key = the_key COLLATE "C" AND id = the_claim
        RETURNING session INTO whose;
    PERFORM leasehold.settle(the_key, NULL);
    SELECT channel INTO told FROM leasehold.sessions
        WHERE id = whose AND NOT dead AND expires > clock_timestamp();
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    IF told <> '' THEN
        PERFORM pg_notify(told, 'revoked ' || the_claim || ' ' || whose);
    END IF;
    RETURN true;
END $$;

-- The line of a key after settling it.
CREATE OR REPLACE FUNCTION leasehold.inspect(the_key text) RETURNS TABLE (
    id uuid, owner text, note text, fence bigint, age bigint, remaining bigint, units bigint,
    key_limit bigint
) LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM leasehold.ready();
    PERFORM pg_advisory_xact_lock(hashtextextended(the_key COLLATE "C", 5641968264518839049));
    PERFORM leasehold.settle(the_key, NULL);
    RETURN QUERY SELECT * FROM leasehold.line(the_key, clock_timestamp());
END $$;

-- Ends a session. True if claims are left, which are dead from now on: clear them.
CREATE OR REPLACE FUNCTION leasehold.close(the_session uuid) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM leasehold.ready();
    IF EXISTS (SELECT FROM leasehold.claims WHERE session = the_session) THEN
        UPDATE leasehold.sessions SET dead = true WHERE id = the_session;
        RETURN true;
    END IF;
    DELETE FROM leasehold.sessions WHERE id = the_session;
    RETURN false;
END $$;

-- Takes claims of a closed session out of their lines, on a few hundred keys at most: each lock
-- takes room in the server's lock table. True if more are left.
CREATE OR REPLACE FUNCTION leasehold.clear(the_session uuid) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    keys text[];
    the_key text;
BEGIN
    PERFORM leasehold.ready();
    keys := ARRAY(SELECT DISTINCT c.key FROM
        (SELECT key FROM leasehold.claims WHERE session = the_session LIMIT 256) c);
    PERFORM leasehold.lock_keys(keys);
    DELETE FROM leasehold.claims WHERE session = the_session AND key = ANY (keys);
    FOREACH the_key IN ARRAY keys LOOP
        PERFORM leasehold.settle(the_key, NULL);
    END LOOP;
    IF EXISTS (SELECT FROM leasehold.claims WHERE session = the_session) THEN
        RETURN true;
    END IF;
    DELETE FROM leasehold.sessions WHERE id = the_session AND dead;
    RETURN false;
END $$;

INSERT INTO leasehold.state (version, fence_base) VALUES (3, 0)
    ON CONFLICT (one) DO UPDATE SET version = excluded.version WHERE state.version < excluded.version;
