//! The embedded store: a `SQLite` file that the processes of one machine share.
//!
//! Nothing has to be set up: without a path the file lies in the user's state directory
//! (`$XDG_STATE_HOME/leasehold/leasehold.db`, or `~/.local/state/leasehold/leasehold.db`), and is
//! made with its directory, for this user alone, when it is first used.
//!
//! # What it promises
//!
//! - **Exclusion** between all processes of one machine that use the same file, in the order of
//!   arrival, with any limit.
//! - **A dead process** is known at once: the kernel drops the lock that it had on a file beside
//!   the database (in `PATH-peers`), so its holds are free, and who waits is woken, within
//!   milliseconds. The TTL covers a process that hangs. A detached session has its TTL only. So
//!   has a process whose forked child lives on without `exec`, for it shares the lock.
//! - **Fences** grow over crashes, over the loss of power (numbers are reserved by a synced commit
//!   before they are used), and over the deletion or the restoration of the file, as long as the
//!   wall clock was not set back together with one of these.
//! - **Time** is `CLOCK_BOOTTIME`, which all processes share, which counts sleep, and which no
//!   clock setting moves. A boot ends all leases: no process survives it.
//! - **Records** outlive processes and boots. Within a boot no clock setting moves the end of their
//!   time; over a boot the wall clock measures it. What is written under a hold is on the disk when
//!   it is answered. Versions are drawn from the counter of the fences, and grow over the same.
//!
//! A file of an earlier layout is brought up to date by whoever opens it. Processes with an earlier
//! leasehold that have it open go on; they are told to update when they open it again.
//!
//! # What it does not promise
//!
//! - **Other machines.** On a network filesystem it refuses to work where it can tell (NFS, SMB,
//!   9P and their like), and warns on FUSE. Two machines that use one file all the same are told
//!   so by an error, which may come too late.
//! - **A process stopped in the middle of a transaction** (some microseconds long) keeps the file
//!   locked: the others fail with [`Unavailable`](crate::ErrorKind::Unavailable) after 5 s.
//! - **A loss of power may take back** the last record writes that were not made under a hold: they
//!   reach the disk some time after they are answered. The end of a process takes nothing back.
//! - **Removing the file while it is in use** starts another one. Who holds in the removed one
//!   learns it at the next request, so at the next renewal.
//! - **Protection from other users** is that of the file's mode. Whoever may write to the file may
//!   end every lock in it.

mod boot;
mod config;
mod examine;
mod peers;
mod place;
mod store;
mod trouble;
mod wake;
mod watch;
mod wire;
mod writer;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use leasehold_core::Timing;

use self::store::Shared;
use crate::error::Result;
use crate::store::{Guarantees, LeaseScope};

const GUARANTEES: Guarantees = Guarantees {
    min_ttl: Timing::MIN_TTL,
    line: true,
    counting: true,
    records: true,
    lease: LeaseScope::Session,
    renew_batch: usize::MAX,
    recheck: Duration::from_secs(1),
};

/// How often a waiter asks where it has no socket to be told by.
const POLL: Duration = Duration::from_millis(50);

/// A `SQLite` file, shared by the processes of this machine. Clones are the same handle.
///
/// The file is opened by the first request. A thread of its own does the work, and ends with the
/// last clone; sessions that are still open (and not detached) end with it.
///
/// ```
/// use leasehold::Store;
/// use leasehold::stores::Sqlite;
/// # let directory = std::env::temp_dir();
/// let store = Sqlite::at(directory.join("locks.db"))?;
/// assert!(store.to_string().ends_with("locks.db"));
/// assert!(store.guarantees().line);
/// # Ok::<(), leasehold::Error>(())
/// ```
#[derive(Clone)]
pub struct Sqlite {
    shared: Arc<Shared>,
}

impl Sqlite {
    /// The store that a URL names: `sqlite:PATH`, `sqlite:` for the file in the user's state
    /// directory, or a bare path. No IO.
    ///
    /// Fails with [`Invalid`](crate::ErrorKind::Invalid) when the URL names no file, or there is no
    /// state directory because neither `XDG_STATE_HOME` nor `HOME` is set.
    pub fn new(url: &str) -> Result<Self> {
        config::path_of(url).map(|path| Self { shared: Arc::new(Shared::new(path)) })
    }

    /// The store in the file at `path`, which may contain any character but NUL. No IO.
    ///
    /// Fails with [`Invalid`](crate::ErrorKind::Invalid) when the path is empty.
    pub fn at(path: impl AsRef<Path>) -> Result<Self> {
        let path = config::absolute(path.as_ref())?;
        Ok(Self { shared: Arc::new(Shared::new(path)) })
    }

    /// Where the file is, or will be.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.shared.path
    }
}
