//! Records over what happens to the file: time, boots, an earlier layout.

use std::path::Path;
use std::time::Duration;

use leasehold_core::{Enter, Key, Place as Stand, Provided, Record, Version};
use rusqlite::Connection;

use super::super::Wire;
use super::{TTL, exclusive, open, open_session, step, take};

const SECOND: i64 = 1_000_000_000;

fn key(name: &str) -> Key {
    Key::new(name).unwrap()
}

fn put(wire: &mut Wire, now: i64, wall: u64, on: &str, last: Option<Version>, keep: u64) -> bool {
    let record = Record::new(on.as_bytes(), Duration::from_secs(keep)).unwrap();
    let (on, wall) = (key(on), Duration::from_secs(wall));
    step(wire, |wire| wire.write(now, wall, &on, Provided::Unchanged(last), &record))
}

fn version(wire: &mut Wire, now: i64, on: &str) -> Option<Version> {
    step(wire, |wire| wire.read(now, &key(on))).map(|written| written.version)
}

fn count(wire: &Wire, table: &str) -> i64 {
    wire.conn.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap()
}

#[test]
fn versions_are_not_used_again_after_expiry_and_the_deletion_of_rows_and_of_the_file() {
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("l.db");
    let mut last = None;
    for floor in [1_000_000, 2_000_000] {
        let mut wire = open(&file, "boot", floor);
        for round in 0..3 {
            let now = 100 * SECOND * (round + 1);
            assert!(put(&mut wire, now, 0, "k", None, 10), "none (any more)");
            let new = version(&mut wire, now, "k");
            assert!(new > last, "{new:?} after {last:?}");
            assert!(!put(&mut wire, now + 10 * SECOND, 0, "k", new, 10), "its time is over");
            last = new;
        }
        step(&mut wire, |wire| wire.batch("DELETE FROM records"));
        assert!(put(&mut wire, SECOND, 0, "k", None, 10));
        let new = version(&mut wire, SECOND, "k");
        assert!(new > last, "{new:?} after {last:?}");
        last = new;
        drop(wire);
        for suffix in ["", "-wal", "-shm"] {
            std::fs::remove_file(super::with_suffix(&file, suffix)).unwrap();
        }
    }
}

#[test]
fn records_whose_time_is_over_are_deleted_by_those_who_come() {
    let root = tempfile::tempdir().unwrap();
    let mut wire = open(&root.path().join("l.db"), "boot", 0);
    for number in 0..100 {
        assert!(put(&mut wire, 1, 0, &format!("k{number}"), None, 10));
    }
    assert!(put(&mut wire, 1, 0, "long", None, 1000));
    let later = 20 * SECOND;
    // Two that are added, and an opener.
    for (number, left) in [(0, 98), (1, 95)] {
        assert!(put(&mut wire, later, 0, &format!("new{number}"), None, 1000));
        assert_eq!(count(&wire, "records"), left);
    }
    let long = version(&mut wire, later, "long");
    assert!(put(&mut wire, later, 0, "long", long, 1000));
    assert_eq!(count(&wire, "records"), 95, "whoever changes one adds none");
    for number in 0..6 {
        open_session(&mut wire, later, &format!("s{number}"), TTL);
    }
    assert_eq!(count(&wire, "records"), 3);
    assert!(version(&mut wire, later, "long").is_some());
}

#[test]
fn a_record_outlives_a_boot_for_as_long_as_the_wall_clock_says() {
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("l.db");
    let mut wire = open(&file, "first", 0);
    let uptime = wire.now();
    // Long after the boot, at 1000 s by the wall clock.
    let late = uptime + 1_000_000 * SECOND;
    for (on, keep) in [("short", 50), ("long", 200)] {
        assert!(put(&mut wire, late, 1000, on, None, keep));
    }
    let before = version(&mut wire, late, "long");
    drop(wire);

    // Down for 90 s.
    let mut wire = open(&file, "second", 1_090_000_000);
    step(&mut wire, |_| Ok(()));
    let now = wire.now();
    assert_eq!(version(&mut wire, now, "short"), None);
    assert_eq!(version(&mut wire, now, "long"), before);
    let (almost, over) = (uptime + 109 * SECOND, wire.now() + 110 * SECOND);
    assert_eq!(version(&mut wire, almost, "long"), before, "109 of the 110 s that are left");
    assert_eq!(version(&mut wire, over, "long"), None);
    assert!(put(&mut wire, now, 1090, "short", None, 50));
    assert!(version(&mut wire, now, "short") > before, "after the reserved ones");
    drop(wire);

    // A clock that starts at 1970 keeps it for longer.
    let mut wire = open(&file, "third", 0);
    step(&mut wire, |_| Ok(()));
    let later = wire.now() + 1100 * SECOND;
    assert_eq!(version(&mut wire, later, "long"), before);
}

#[test]
fn what_is_written_under_a_hold_is_synced_and_the_rest_is_not() {
    let root = tempfile::tempdir().unwrap();
    let mut wire = open(&root.path().join("l.db"), "boot", 0);
    let level = |wire: &Wire| -> i64 {
        wire.conn.query_row("PRAGMA synchronous", [], |row| row.get(0)).unwrap()
    };
    for lasting in [false, true, true, false] {
        wire.begin(lasting).unwrap();
        // Also when fences have to be reserved first.
        wire.counter.last = wire.counter.reserved;
        assert_eq!(level(&wire), if lasting { 2 } else { 1 });
        wire.commit(&super::Mailbox::default()).unwrap();
    }
}

/// The layout of the first version, word for word.
const VERSION_1: &str = "
PRAGMA page_size = 1024;
PRAGMA journal_mode = WAL;
CREATE TABLE counter (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    last INTEGER NOT NULL,
    reserved INTEGER NOT NULL,
    boot TEXT NOT NULL
);
CREATE TABLE sessions (
    id TEXT PRIMARY KEY,
    expires INTEGER NOT NULL,
    ttl INTEGER NOT NULL,
    owner TEXT NOT NULL,
    peer TEXT NOT NULL,
    detached INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE claims (
    key TEXT NOT NULL,
    ticket INTEGER NOT NULL,
    id BLOB NOT NULL,
    session TEXT NOT NULL,
    units INTEGER NOT NULL,
    \"limit\" INTEGER NOT NULL,
    note TEXT NOT NULL,
    entered INTEGER NOT NULL,
    fence INTEGER,
    granted INTEGER,
    PRIMARY KEY (key, ticket)
) WITHOUT ROWID;
CREATE INDEX claims_of_session ON claims (session, id);
INSERT INTO counter VALUES (1, 7000, 3600007000, 'boot');
PRAGMA application_id = 1818782820;
PRAGMA user_version = 1;
INSERT INTO sessions VALUES ('old', 9000000000, 9000000000, 'o', 'p', 1);
INSERT INTO claims VALUES
    ('k', 1, x'01010101010101010101010101010101', 'old', 1, 1, '', 1, 7000, 1);
";

fn version_1(file: &Path) -> Connection {
    let old = Connection::open(file).unwrap();
    old.execute_batch(VERSION_1).unwrap();
    old
}

#[test]
fn a_file_of_version_1_is_brought_up_to_date_by_many_at_once_and_nothing_is_lost() {
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("l.db");
    let old = version_1(&file);
    let held = exclusive(1, "k");
    std::thread::scope(|scope| {
        for number in 0..8 {
            let (file, held) = (&file, &held);
            scope.spawn(move || {
                let mut wire = open(file, "boot", 0);
                let session = super::SessionId::new("old");
                // The old hold is there, under its fence, and others stay out.
                let entered =
                    step(&mut wire, |wire| wire.enter(2, &session, held, Enter::Wait)).unwrap();
                assert_eq!(entered.place, Stand::Held(super::super::line::fence_of(7000)));
                let own = open_session(&mut wire, 2, &format!("s{number}"), TTL);
                let fence = take(&mut wire, 2, &own, &exclusive(2, &format!("k{number}")));
                assert!(fence > 7000);
                assert!(put(&mut wire, 2, 0, &format!("k{number}"), None, 10));
            });
        }
    });
    let found: i32 = old.query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap();
    assert_eq!(found, 2);
    assert_eq!(count(&open(&file, "boot", 0), "records"), 8);

    // A process of version 1 that has the file open goes on: what it knows is as it was.
    old.execute_batch(
        "BEGIN IMMEDIATE; UPDATE counter SET last = last + 1;
         UPDATE sessions SET expires = 8000000000 WHERE id = 'old';
         DELETE FROM claims WHERE key = 'k'; COMMIT",
    )
    .unwrap();
    let mut wire = open(&file, "boot", 0);
    assert!(step(&mut wire, |wire| wire.keys(3, "")).is_empty());
}
