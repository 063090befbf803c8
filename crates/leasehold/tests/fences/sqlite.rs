//! `SQLite`: the printed SQL, and the ledger that uses it.

use std::path::{Path, PathBuf};

use leasehold::fence::{SqliteLedger, sql};
use leasehold::{ErrorKind, Fence, Guard};
use leasehold_testbed::{Worker, test_name, worker};
use rusqlite::{Connection, TransactionBehavior};

use crate::{Resource, a_paused_holder_is_refused, assert_never_decreases, numbers};

const TABLE: sql::Table<'_> = sql::Table { name: "jobs", key: Some("id"), column: Some("fence") };

fn connect(path: &Path) -> Connection {
    let connection = Connection::open(path).unwrap();
    connection.busy_timeout(std::time::Duration::from_mins(1)).unwrap();
    connection
        .execute_batch(
            "CREATE TABLE IF NOT EXISTS jobs (id INTEGER PRIMARY KEY, state TEXT, fence INTEGER)",
        )
        .unwrap();
    connection.execute_batch(sql::SQLITE).unwrap();
    connection
}

fn with_trigger() -> Connection {
    let connection = connect(Path::new(":memory:"));
    connection.execute_batch(&sql::sqlite_table(&TABLE).unwrap()).unwrap();
    // Twice does no harm.
    connection.execute_batch(sql::SQLITE).unwrap();
    connection.execute_batch(&sql::sqlite_table(&TABLE).unwrap()).unwrap();
    connection
}

#[track_caller]
fn refused(connection: &Connection, statement: &str) {
    let error = connection.execute_batch(statement).unwrap_err();
    assert!(error.to_string().contains("leasehold: stale fence"), "{statement}: {error}");
}

struct Job {
    path: PathBuf,
}

impl Resource for Job {
    type Hold = u64;

    async fn open(_lock: &str, address: &str) -> Self {
        let path = PathBuf::from(address);
        drop(connect(&path));
        Self { path }
    }

    fn hold(&self, guard: &Guard) -> u64 {
        guard.fence().get()
    }

    async fn write(&self, hold: &u64, value: &str) -> Result<(), String> {
        let mut connection = connect(&self.path);
        let transaction =
            connection.transaction_with_behavior(TransactionBehavior::Immediate).unwrap();
        let fence = "INSERT INTO leasehold_fence (resource, token) VALUES ('jobs/42', ?1)";
        transaction.execute(fence, [i64::try_from(*hold).unwrap()]).map_err(|e| e.to_string())?;
        let write = "INSERT INTO jobs (id, state) VALUES (42, ?1)
            ON CONFLICT (id) DO UPDATE SET state = excluded.state";
        transaction.execute(write, [value]).unwrap();
        transaction.commit().map_err(|error| error.to_string())
    }

    async fn read(&self) -> String {
        let read = "SELECT state FROM jobs WHERE id = 42";
        connect(&self.path).query_row(read, [], |row| row.get(0)).unwrap()
    }
}

#[test]
fn a_holder_that_was_paused_past_its_lease_is_refused() {
    let start = || {
        let home = tempfile::tempdir().unwrap();
        let [lock, file] = ["locks.db", "jobs.db"].map(|name| home.path().join(name));
        (home, format!("sqlite:{}", lock.display()), file.display().to_string())
    };
    a_paused_holder_is_refused::<Job, _>(&test_name!(), start, "leasehold: stale fence");
}

#[test]
fn a_trigger_refuses_however_it_is_written() {
    let db = with_trigger();
    db.execute_batch("INSERT INTO jobs VALUES (42, 'new', 5)").unwrap();
    db.execute_batch("UPDATE jobs SET state = 'again', fence = 5 WHERE id = 42").unwrap();
    for stale in [
        "UPDATE jobs SET state = 'stale', fence = 4 WHERE id = 42",
        "UPDATE OR IGNORE jobs SET state = 'stale', fence = 4 WHERE id = 42",
        "UPDATE OR REPLACE jobs SET state = 'stale', fence = 4 WHERE id = 42",
        "INSERT OR REPLACE INTO jobs VALUES (42, 'stale', 4)",
        "INSERT INTO jobs VALUES (42, 'stale', 4) ON CONFLICT DO UPDATE SET fence = 4",
        // Into another's place, and out of it.
        "INSERT INTO jobs VALUES (7, 'x', 4); UPDATE OR REPLACE jobs SET id = 42 WHERE id = 7",
    ] {
        refused(&db, stale);
    }
    let state: String =
        db.query_row("SELECT state FROM jobs WHERE id = 42", [], |row| row.get(0)).unwrap();
    assert_eq!(state, "again");
    // One that is gone is not forgotten.
    db.execute_batch("DELETE FROM jobs WHERE id = 42").unwrap();
    for verb in ["INSERT", "INSERT OR IGNORE", "INSERT OR REPLACE"] {
        refused(&db, &format!("{verb} INTO jobs VALUES (42, 'stale', 4)"));
    }
    db.execute_batch("INSERT OR IGNORE INTO jobs VALUES (42, 'newer', 6)").unwrap();
    refused(&db, "UPDATE jobs SET fence = 5 WHERE id = 42");
    // A name that changes is a write of both.
    db.execute_batch("INSERT INTO jobs VALUES (8, 'x', 9)").unwrap();
    refused(&db, "UPDATE jobs SET id = 9, fence = 8 WHERE id = 8");
}

#[test]
fn what_is_no_fence_is_refused() {
    let db = with_trigger();
    for bad in ["NULL", "-1", "'x'", "1.5", "9223372036854775808"] {
        let error = db.execute_batch(&format!(
            "INSERT INTO leasehold_fence (resource, token) VALUES ('r', {bad})"
        ));
        assert!(error.unwrap_err().to_string().contains("leasehold: no fence"), "{bad}");
    }
    let error = db.execute_batch("INSERT OR IGNORE INTO jobs (id) VALUES (1)").unwrap_err();
    assert!(error.to_string().contains("leasehold: no fence"), "{error}");
    db.execute_batch(
        "INSERT INTO leasehold_fence (resource, token) VALUES ('r', 9223372036854775807)",
    )
    .unwrap();
    refused(&db, "INSERT INTO leasehold_fence (resource, token) VALUES ('r', 1)");
}

#[test]
fn a_write_that_is_rolled_back_was_not_seen() {
    let db = with_trigger();
    db.execute_batch("BEGIN; INSERT INTO jobs VALUES (42, 'new', 9); ROLLBACK").unwrap();
    db.execute_batch("INSERT INTO jobs VALUES (42, 'old', 3)").unwrap();
    refused(&db, "UPDATE jobs SET fence = 2 WHERE id = 42");
}

#[test]
fn what_many_write_at_once_never_decreases() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("log.db");
    connect(&path).execute_batch("CREATE TABLE log (at INTEGER PRIMARY KEY, token)").unwrap();
    std::thread::scope(|scope| {
        for seed in 1..=4 {
            let path = &path;
            scope.spawn(move || {
                let db = connect(path);
                for token in numbers(seed, 100).take(50) {
                    let done = db.execute_batch(&format!(
                        "BEGIN IMMEDIATE;
                        INSERT INTO leasehold_fence (resource, token) VALUES ('log', {token});
                        INSERT INTO log (token) VALUES ({token})"
                    ));
                    let end = match &done {
                        Err(error) => {
                            assert!(error.to_string().contains("stale fence"), "{error}");
                            "ROLLBACK"
                        }
                        // An aborted write must not advance, and one in three is.
                        Ok(()) if token % 3 == 0 => "ROLLBACK",
                        Ok(()) => "COMMIT",
                    };
                    db.execute_batch(end).unwrap();
                }
            });
        }
    });
    let db = connect(&path);
    let mut read = db.prepare("SELECT token FROM log ORDER BY at").unwrap();
    let rows = read.query_map([], |row| row.get::<_, i64>(0)).unwrap();
    let accepted: Vec<u64> = rows.map(|token| token.unwrap().cast_unsigned()).collect();
    assert_never_decreases(&accepted);
    let kept = "SELECT fence FROM leasehold_fences WHERE resource = 'log'";
    let greatest: i64 = db.query_row(kept, [], |row| row.get(0)).unwrap();
    assert_eq!(Some(greatest.cast_unsigned()), accepted.last().copied());
}

#[test]
fn a_ledger_survives_a_kill() {
    if let Some(path) = worker::task() {
        let ledger = SqliteLedger::open(Path::new(&path)).unwrap();
        // From the same number on each time: those that were seen are refused.
        for token in 1.. {
            if ledger.advance_blocking("r", Fence::new(token)).is_ok() {
                worker::say(&token.to_string());
            }
        }
    }
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("fences.db");
    let mut acknowledged: u64 = 0;
    for round in 0..12 {
        let mut writer = Worker::start(&test_name!(), path.to_str().unwrap());
        for _ in 0..=round {
            let next: u64 = writer.line().parse().unwrap();
            assert!(next >= acknowledged, "{next} after {acknowledged}");
            acknowledged = next;
        }
        writer.kill();
        let ledger = SqliteLedger::open(&path).unwrap();
        let error = ledger.advance_blocking("r", Fence::new(acknowledged - 1)).unwrap_err();
        assert!(error.stale_fence().unwrap().greatest.get() >= acknowledged);
    }
}

#[test]
fn several_handles_of_a_ledger_wait_for_each_other() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("fences.db");
    let _made = SqliteLedger::open(&path).unwrap();
    std::thread::scope(|scope| {
        for seed in 1..=4 {
            let path = &path;
            scope.spawn(move || {
                let ledger = SqliteLedger::open(path).unwrap();
                for token in numbers(seed, 1000).take(50) {
                    if let Err(error) = ledger.advance_blocking("r", Fence::new(token)) {
                        assert!(error.stale_fence().is_some(), "{error}");
                    }
                }
            });
        }
    });
}

#[test]
fn a_ledger_says_what_is_wrong() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("made/fences.db");
    let ledger = SqliteLedger::open(&path).unwrap();
    let error = ledger.advance_blocking("r", Fence::new(1 << 63)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    std::fs::write(home.path().join("other"), "no database, but long enough to be one".repeat(9))
        .unwrap();
    let error = SqliteLedger::open(&home.path().join("other")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("other"), "{error}");
}
