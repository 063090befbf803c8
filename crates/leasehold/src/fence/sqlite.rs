//! The ledger in a `SQLite` file: survives its process, shared by those of one machine.

use std::fmt;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt as _};
use leasehold_core::Fence;
use rusqlite::{Connection, ErrorCode, OptionalExtension as _, TransactionBehavior};

use super::ledger::Ledger;
use super::sql;
use crate::error::{Error, ErrorKind, Result};

const ATTEMPT: &str = "take note of a fence";

/// How long others may have the file: each of them has it for one write to the disk.
const PATIENCE: Duration = Duration::from_secs(10);

/// Between two looks at a file that is being made.
const PAUSE: Duration = Duration::from_millis(10);

/// A ledger in a file, with the tables of [`sql::SQLITE`]: a fence that was accepted is on disk
/// before anybody learns of it, also after a power loss.
///
/// Programs in other languages can use the same file by that SQL. It grows by one row for each
/// resource; to forget one, delete its row when no old holder can be left.
#[derive(Clone)]
pub struct SqliteLedger {
    path: Arc<Path>,
    connection: Arc<Mutex<Connection>>,
}

impl SqliteLedger {
    /// The ledger in the file at `path`, which is made if it is not there, as is its directory.
    ///
    /// # Errors
    ///
    /// When it cannot be opened, or is no database.
    pub fn open(path: &Path) -> Result<Self> {
        let path = std::path::absolute(path).map_err(|error| {
            Error::new(ErrorKind::Invalid, ATTEMPT, "the path is empty").because(error)
        })?;
        if let Some(directory) = path.parent() {
            // Others may not read what is written where and when.
            let made = DirBuilder::new().recursive(true).mode(0o700).create(directory);
            made.map_err(|error| {
                let detail = format!("cannot make the directory {}", directory.display());
                Error::new(ErrorKind::Denied, ATTEMPT, detail).because(error)
            })?;
        }
        let connection = connect_patiently(&path).map_err(|error| failed(&path, error))?;
        Ok(Self { path: path.into(), connection: Arc::new(Mutex::new(connection)) })
    }

    /// Where the ledger of this machine's user is: `fences.db` in leasehold's state directory.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`] when there is no such directory.
    pub fn default_path() -> Result<PathBuf> {
        let store = crate::stores::Sqlite::new("sqlite:")?;
        Ok(store.path().with_file_name("fences.db"))
    }

    /// [`Ledger::advance`] for code without async.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Stale`] for a smaller fence, [`ErrorKind::Invalid`] for one above 2^63 − 1. Any
    /// other error is no permission either.
    pub fn advance_blocking(&self, resource: &str, token: Fence) -> Result<()> {
        // Whatever panicked rolled its transaction back.
        let mut connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        let number = i64::try_from(token.get()).map_err(|_| {
            let detail = format!("{token} is above 2^63 - 1, which no store's fences reach");
            Error::new(ErrorKind::Invalid, ATTEMPT, detail)
        })?;
        let greatest = advance(&mut connection, resource, number);
        let greatest = greatest.map_err(|error| failed(&self.path, error))?;
        token
            .check(resource, greatest.and_then(|seen| seen.try_into().ok()).map(Fence::new))
            .map_err(Error::from)
    }
}

impl Ledger for SqliteLedger {
    fn advance<'a>(&'a self, resource: &'a str, token: Fence) -> BoxFuture<'a, Result<()>> {
        let (ledger, resource) = (self.clone(), resource.to_owned());
        async move {
            let runtime = tokio::runtime::Handle::try_current().map_err(|error| {
                let detail = "there is no tokio runtime; use `advance_blocking` outside of one";
                Error::new(ErrorKind::Invalid, ATTEMPT, detail).because(error)
            })?;
            // It waits for the disk.
            let advanced =
                runtime.spawn_blocking(move || ledger.advance_blocking(&resource, token));
            advanced.await.unwrap_or_else(|error| {
                let detail = "the thread that was to do it ended";
                Err(Error::new(ErrorKind::Unavailable, ATTEMPT, detail).because(error))
            })
        }
        .boxed()
    }
}

impl fmt::Debug for SqliteLedger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SqliteLedger").field(&self.path).finish()
    }
}

/// Connects, also to a file that others are making at this moment: `SQLite` does not wait for those
/// who turn its journal into the other kind.
fn connect_patiently(path: &Path) -> rusqlite::Result<Connection> {
    for _ in 0..PATIENCE.as_millis() / PAUSE.as_millis() {
        match connect(path) {
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => {
                std::thread::sleep(PAUSE);
            }
            connected => return connected,
        }
    }
    connect(path)
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(PATIENCE)?;
    connection.pragma_update_and_check(None, "journal_mode", "wal", |_| Ok(()))?;
    connection.pragma_update(None, "synchronous", "full")?;
    connection.execute_batch(sql::SQLITE)?;
    Ok(connection)
}

/// Advances, unless a greater one was seen: returns that then.
fn advance(
    connection: &mut Connection,
    resource: &str,
    token: i64,
) -> rusqlite::Result<Option<i64>> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let greatest: Option<i64> = transaction
        .prepare_cached("SELECT fence FROM leasehold_fences WHERE resource = ?1")?
        .query_row([resource], |row| row.get(0))
        .optional()?;
    if greatest.is_some_and(|greatest| greatest > token) {
        return Ok(greatest);
    }
    // The view refuses as well; asking first is for the number.
    transaction
        .prepare_cached("INSERT INTO leasehold_fence (resource, token) VALUES (?1, ?2)")?
        .execute((resource, token))?;
    transaction.commit()?;
    Ok(None)
}

fn failed(path: &Path, error: rusqlite::Error) -> Error {
    let kind = match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => ErrorKind::Corrupt,
        Some(ErrorCode::DiskFull) => ErrorKind::Full,
        Some(ErrorCode::PermissionDenied | ErrorCode::ReadOnly | ErrorCode::CannotOpen) => {
            ErrorKind::Denied
        }
        _ => ErrorKind::Unavailable,
    };
    let detail = format!("the ledger {} cannot be used", path.display());
    Error::new(kind, ATTEMPT, detail).because(error)
}
