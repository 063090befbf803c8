//! PostgreSQL: the printed SQL.

use leasehold::Guard;
use leasehold::fence::sql;
use leasehold_testbed::{Postgres, test_name};
use tokio_postgres::{Client as Connection, Error, NoTls};

use crate::{Resource, a_paused_holder_is_refused, assert_never_decreases, numbers};

async fn connect(url: &str) -> Connection {
    let (connection, driver) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(driver);
    connection
}

/// With the function and a table to write to.
async fn prepared(url: &str) -> Connection {
    let db = connect(url).await;
    let setup = sql::postgres("public").unwrap();
    // Processes that set up at once meet in the catalogue: one at a time.
    db.batch_execute(&format!(
        "BEGIN; SELECT pg_advisory_xact_lock(1); {setup}
        CREATE TABLE IF NOT EXISTS jobs (id bigint PRIMARY KEY, state text, fence bigint);
        CREATE TABLE IF NOT EXISTS log (at bigserial, token bigint); COMMIT"
    ))
    .await
    .unwrap();
    db
}

async fn with_trigger(url: &str, key: Option<&str>, column: Option<&str>) -> Connection {
    let db = prepared(url).await;
    let table = sql::Table { name: "public.jobs", key, column };
    let trigger = sql::postgres_table("public", &table).unwrap();
    for _ in 0..2 {
        // Twice does no harm.
        db.batch_execute(&sql::postgres("public").unwrap()).await.unwrap();
        db.batch_execute(&trigger).await.unwrap();
    }
    db
}

#[track_caller]
fn state_of(done: Result<(), Error>) -> String {
    done.err().and_then(|error| error.code().map(|code| code.code().to_owned())).unwrap_or_default()
}

/// The SQLSTATE that a statement fails with, empty if it does not.
async fn state(db: &Connection, statement: &str) -> String {
    let done = db.batch_execute(statement).await;
    if done.is_err() {
        db.batch_execute("ROLLBACK").await.unwrap();
    }
    state_of(done)
}

struct Job(Connection);

impl Resource for Job {
    type Hold = u64;

    async fn open(_lock: &str, address: &str) -> Self {
        Self(prepared(address).await)
    }

    fn hold(&self, guard: &Guard) -> u64 {
        guard.fence().get()
    }

    async fn write(&self, hold: &u64, value: &str) -> Result<(), String> {
        let done = self
            .0
            .batch_execute(&format!(
                "BEGIN; SELECT public.leasehold_fence('jobs/42', {hold});
                INSERT INTO jobs (id, state) VALUES (42, '{value}')
                    ON CONFLICT (id) DO UPDATE SET state = excluded.state; COMMIT"
            ))
            .await;
        done.map_err(|error| {
            let error = error.as_db_error().expect("the server's own");
            let (code, detail) = (error.code().code(), error.detail().unwrap_or_default());
            sql::refusal("jobs/42", code, detail).expect("nothing else goes wrong").to_string()
        })
    }

    async fn read(&self) -> String {
        self.0.query_one("SELECT state FROM jobs WHERE id = 42", &[]).await.unwrap().get(0)
    }
}

#[test]
fn a_holder_that_was_paused_past_its_lease_is_refused() {
    let start = || {
        let server = Postgres::start();
        let url = server.url();
        (server, url.clone(), url)
    };
    a_paused_holder_is_refused::<Job, _>(&test_name!(), start, "it has seen");
}

#[tokio::test]
async fn a_trigger_refuses_whoever_writes() {
    let server = Postgres::start();
    let db = with_trigger(&server.url(), Some("id"), Some("fence")).await;
    for accepted in [
        "INSERT INTO jobs VALUES (42, 'new', 5)",
        "UPDATE jobs SET state = 'again', fence = 5 WHERE id = 42",
        "BEGIN; SET LOCAL leasehold.fence = '6'; UPDATE jobs SET state = 'six'; COMMIT",
        // Each row is a resource.
        "INSERT INTO jobs VALUES (7, 'other', 1)",
    ] {
        assert_eq!(state(&db, accepted).await, "", "{accepted}");
    }
    for stale in [
        "UPDATE jobs SET state = 'stale', fence = 5 WHERE id = 42",
        // Its own column still says 5: the row was written under a greater one since.
        "UPDATE jobs SET state = 'stale' WHERE id = 42",
        "INSERT INTO jobs VALUES (42, 'stale', 4) ON CONFLICT (id) DO UPDATE SET state = 'stale'",
        "BEGIN; SET LOCAL leasehold.fence = '5'; DELETE FROM jobs WHERE id = 42; COMMIT",
        "BEGIN; SET LOCAL leasehold.fence = '5'; UPDATE jobs SET fence = 9 WHERE id = 42; COMMIT",
        // Into another's place.
        "UPDATE jobs SET id = 43, fence = 5 WHERE id = 42",
        // An empty search_path, or another one, changes nothing.
        "SET LOCAL search_path = pg_temp; UPDATE public.jobs SET fence = 5 WHERE id = 42",
    ] {
        assert_eq!(state(&db, stale).await, sql::STALE, "{stale}");
    }
    for missing in [
        "DELETE FROM jobs WHERE id = 42",
        "INSERT INTO jobs VALUES (1, 'x', NULL)",
        "INSERT INTO jobs VALUES (1, 'x', -1)",
    ] {
        assert_eq!(state(&db, missing).await, sql::MISSING, "{missing}");
    }
    let deleted = "BEGIN; SET LOCAL leasehold.fence = '6'; DELETE FROM jobs WHERE id = 42; COMMIT";
    assert_eq!(state(&db, deleted).await, "");
    // One that is gone is not forgotten.
    assert_eq!(state(&db, "INSERT INTO jobs VALUES (42, 'stale', 5)").await, sql::STALE);
}

#[tokio::test]
async fn without_a_column_every_writer_says_its_fence() {
    let server = Postgres::start();
    let db = with_trigger(&server.url(), None, None).await;
    let write = "INSERT INTO jobs VALUES (1, 'x', 99)";
    assert_eq!(state(&db, write).await, sql::MISSING);
    let with =
        |fence: &str| format!("BEGIN; SET LOCAL leasehold.fence = '{fence}'; {write}; COMMIT");
    assert_eq!(state(&db, &with("8")).await, "");
    // The setting ended with its transaction, and the table is one resource.
    assert_eq!(state(&db, "DELETE FROM jobs").await, sql::MISSING);
    let other = with("7").replace("(1,", "(2,");
    assert_eq!(state(&db, &other).await, sql::STALE);
}

/// Waits until the server has a transaction waiting for another.
async fn until_one_waits(db: &Connection) {
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
    while db.query_one(waits, &[]).await.unwrap().get::<_, i64>(0) == 0 {
        tokio::task::yield_now().await;
    }
}

/// A transaction under 5 is under way; one under `token` waits for it, and then it ends with `end`.
async fn behind(server: &Postgres, begin: &'static str, token: u64, end: &str) -> String {
    let url = server.url();
    let [first, second, watch] = [prepared(&url).await, connect(&url).await, connect(&url).await];
    first.batch_execute("BEGIN; SELECT public.leasehold_fence('r', 5)").await.unwrap();
    let waiting = tokio::spawn(async move {
        state(
            &second,
            &format!("{begin}; SELECT 1; SELECT public.leasehold_fence('r', {token}); COMMIT"),
        )
        .await
    });
    until_one_waits(&watch).await;
    first.batch_execute(end).await.unwrap();
    let state = waiting.await.unwrap();
    first.batch_execute("DELETE FROM leasehold_fences").await.unwrap();
    state
}

#[tokio::test]
async fn transactions_on_one_resource_follow_one_another() {
    let server = Postgres::start();
    let (committed, repeatable) = ("BEGIN", "BEGIN ISOLATION LEVEL REPEATABLE READ");
    // Also the first ever, which finds no row to lock.
    assert_eq!(behind(&server, committed, 4, "COMMIT").await, sql::STALE);
    assert_eq!(behind(&server, committed, 6, "COMMIT").await, "");
    // What was rolled back was not seen.
    assert_eq!(behind(&server, committed, 4, "ROLLBACK").await, "");
    assert_eq!(behind(&server, repeatable, 4, "ROLLBACK").await, "");
    // Never let through on what an old snapshot says.
    for token in [4, 6] {
        assert_eq!(behind(&server, repeatable, token, "COMMIT").await, "40001");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_many_write_at_once_never_decreases() {
    let server = Postgres::start();
    drop(prepared(&server.url()).await);
    let writers = (1..=6).map(|seed| {
        let url = server.url();
        tokio::spawn(async move {
            let db = connect(&url).await;
            for (n, token) in numbers(seed, 200).take(80).enumerate() {
                let level = ["READ COMMITTED", "REPEATABLE READ"][n % 2];
                // An aborted write must not advance, and one in three is.
                let end = if token % 3 == 0 { "ROLLBACK" } else { "COMMIT" };
                let state = state(
                    &db,
                    &format!(
                        "BEGIN ISOLATION LEVEL {level}; SELECT public.leasehold_fence('log', {token});
                        INSERT INTO log (token) VALUES ({token}); {end}"
                    ),
                )
                .await;
                assert!(["", "LHF01", "40001"].contains(&state.as_str()), "{state}");
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    let db = connect(&server.url()).await;
    let rows = db.query("SELECT token FROM log ORDER BY at", &[]).await.unwrap();
    let accepted: Vec<u64> =
        rows.iter().map(|row| row.get::<_, i64>(0).try_into().unwrap()).collect();
    assert_never_decreases(&accepted);
    let kept = "SELECT fence FROM leasehold_fences WHERE resource = 'log'";
    let greatest: i64 = db.query_one(kept, &[]).await.unwrap().get(0);
    assert_eq!(Some(greatest.cast_unsigned()), accepted.last().copied());
}
