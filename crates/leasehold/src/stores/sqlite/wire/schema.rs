//! The file's layout, and opening one: as few statements as can be, because a program that locks
//! for one short command pays them each time.

use std::path::Path;
use std::thread;
use std::time::Duration;

use leasehold_core::Moment;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::trouble_of;
use crate::clock;
use crate::error::ErrorKind;
use crate::stores::sqlite::place::{Place, is_mounted_read_only};
use crate::stores::sqlite::trouble::Trouble;

/// Says that a database is of leasehold: "lhld" as a number.
const APPLICATION: i32 = 0x6c68_6c64;

/// The layout that this version writes.
#[expect(clippy::cast_possible_truncation, clippy::cast_possible_wrap, reason = "a few")]
const VERSION: i32 = LAYOUTS.len() as i32;

/// What each version of the layout added to the one before it: a file goes through those that it
/// has not seen. Times are nanoseconds on the machine's clock since its boot.
const LAYOUTS: [&str; 2] = [LINES, RECORDS];

/// Claims are kept in the order of their keys and tickets, which is the order of the lines.
const LINES: &str = "
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
INSERT INTO counter VALUES (1, 0, 0, '');
";

/// Versions are drawn from the counter. `until` is a time of this boot; `lasts`, in microseconds
/// since 1970, says the same for the next one.
const RECORDS: &str = "
CREATE TABLE records (
    key TEXT PRIMARY KEY,
    value BLOB NOT NULL,
    version INTEGER NOT NULL,
    until INTEGER NOT NULL,
    lasts INTEGER NOT NULL
);
CREATE INDEX records_until ON records (until);
";

/// Commits go to the WAL without a sync; a checkpoint syncs. The WAL stays small because the first
/// opener after the last one left reads all of it.
const SETTINGS: &str = "
PRAGMA synchronous = NORMAL;
PRAGMA wal_autocheckpoint = 256;
PRAGMA journal_size_limit = 1048576;
";

/// How long a writer waits for others before it gives up.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// Opens the database, lays it out if it is empty, and brings an earlier layout up to date.
pub(super) fn open(place: &Place) -> Result<Connection, Trouble> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut conn = Connection::open_with_flags(&place.path, flags).map_err(trouble_of)?;
    let mut since = clock::now();
    conn.busy_handler(Some(move |calls| wait_for_others(calls, &mut since))).map_err(trouble_of)?;
    conn.set_prepared_statement_cache_capacity(64);
    // Or the last one to leave would sync, and the next one start a new WAL.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).map_err(trouble_of)?;
    refuse_read_only(&conn, &place.path)?;
    if version(&conn, &place.path)? < VERSION {
        lay_out(&mut conn, &place.path)?;
    }
    conn.execute_batch(SETTINGS).map_err(trouble_of)?;
    Ok(conn)
}

/// `SQLite`'s own handler sleeps for up to 100 ms, where a transaction here takes microseconds.
fn wait_for_others(calls: i32, since: &mut Moment) -> bool {
    if calls == 0 {
        *since = clock::now();
    }
    if clock::now().since(*since) > PATIENCE {
        return false;
    }
    let micros = 50_u64 << calls.clamp(0, 6);
    thread::sleep(Duration::from_micros(micros));
    true
}

fn refuse_read_only(conn: &Connection, path: &Path) -> Result<(), Trouble> {
    if !conn.is_readonly("main").map_err(trouble_of)? {
        return Ok(());
    }
    let shown = path.display();
    Err(if is_mounted_read_only(path) {
        Trouble::new(
            ErrorKind::Full,
            format!("{shown} is on a filesystem that is mounted read-only; use another path"),
        )
    } else {
        Trouble::new(
            ErrorKind::Denied,
            format!("this user may not write to {shown}; correct its owner or mode"),
        )
    })
}

/// The version of the layout; 0 for an empty file. Refuses files that are not ours.
fn version(conn: &Connection, path: &Path) -> Result<i32, Trouble> {
    let (application, version, tables): (i32, i32, i64) = conn
        .query_row(
            "SELECT application_id, user_version, (SELECT count(*) FROM sqlite_schema)
             FROM pragma_application_id, pragma_user_version",
            [],
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
        )
        .map_err(trouble_of)?;
    let shown = path.display();
    match (application, version) {
        (APPLICATION, 1..=VERSION) => Ok(version),
        (APPLICATION, _) => Err(Trouble::new(
            ErrorKind::Corrupt,
            format!(
                "{shown} has layout {version}, and this version of leasehold knows layouts up to \
                 {VERSION}; update leasehold"
            ),
        )),
        (0, 0) if tables == 0 => Ok(0),
        _ => Err(Trouble::new(
            ErrorKind::Invalid,
            format!(
                "{shown} is a database of another application, and is left alone; name another file"
            ),
        )),
    }
}

/// Several processes may do this at once: the first one does it, the others find it done.
fn lay_out(conn: &mut Connection, path: &Path) -> Result<(), Trouble> {
    // SQLite does not always ask the busy handler when the journal mode changes.
    let since = clock::now();
    loop {
        match try_lay_out(conn, path) {
            Err(Failed::Sqlite(error))
                if is_busy(&error) && clock::now().since(since) < PATIENCE =>
            {
                thread::sleep(Duration::from_millis(1));
            }
            Err(Failed::Sqlite(error)) => return Err(trouble_of(error)),
            Err(Failed::Refused(trouble)) => return Err(trouble),
            Ok(()) => return Ok(()),
        }
    }
}

enum Failed {
    Sqlite(rusqlite::Error),
    Refused(Trouble),
}

impl From<rusqlite::Error> for Failed {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

fn try_lay_out(conn: &mut Connection, path: &Path) -> Result<(), Failed> {
    // Rows are small, and a commit writes whole pages.
    conn.execute_batch("PRAGMA page_size = 1024")?;
    let mode: String = conn.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
    if mode != "wal" {
        return Err(Failed::Refused(Trouble::new(
            ErrorKind::Unsupported,
            format!(
                "the filesystem of {} cannot share memory between processes, which SQLite's WAL \
                 needs; use a local directory",
                path.display()
            ),
        )));
    }
    conn.execute_batch("PRAGMA synchronous = FULL")?;
    let transaction = conn.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    let found = version(&transaction, path).map_err(Failed::Refused)?;
    for addition in LAYOUTS.iter().skip(usize::try_from(found).unwrap_or_default()) {
        transaction.execute_batch(addition)?;
    }
    transaction.execute_batch(&format!(
        "PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {VERSION};"
    ))?;
    transaction.commit()?;
    Ok(())
}

fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}
