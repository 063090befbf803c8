#![doc = include_str!("../sqlite.md")]

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
use crate::property::{Properties, Property};
use crate::store::{Guarantees, LeaseScope};

/// What it promises; the page above says under which conditions, and what not.
pub(super) const PROPERTIES: Properties = Properties::of(&[
    Property::Processes,
    Property::Line,
    Property::Wakes,
    Property::Counting,
    Property::Records,
    Property::FreesAtOnce,
    Property::SurvivesCrash,
    Property::FencesSurviveCrash,
    Property::FencesSurviveDataLoss,
]);

const GUARANTEES: Guarantees = Guarantees {
    properties: PROPERTIES,
    min_ttl: Timing::MIN_TTL,
    lapse_delay: Duration::ZERO,
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
/// use leasehold::{Property, Store};
/// use leasehold::stores::Sqlite;
/// # let directory = std::env::temp_dir();
/// let store = Sqlite::at(directory.join("locks.db"))?;
/// assert!(store.to_string().ends_with("locks.db"));
/// assert!(store.guarantees().has(Property::Line));
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
