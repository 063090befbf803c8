//! The blocking twins of a job and its turn.

use std::sync::Arc;

use leasehold_core::{Ahead, Fence};

use super::Runtime;
use crate::error::Result;
use crate::guard::Released;
use crate::job::Run;

/// The blocking twin of [`crate::Job`].
#[derive(Debug, Clone)]
pub struct Job {
    job: crate::Job,
    runtime: Arc<Runtime>,
}

/// How beginning a job went: the blocking twin of [`crate::Begin`].
#[derive(Debug)]
#[non_exhaustive]
pub enum Begin {
    /// It is ours to do.
    Turn(Turn),
    /// It has been done.
    Ran(Run),
    /// It failed, and is not tried again in this period.
    Failed(Run),
    /// The last run began a moment ago.
    TooSoon(Run),
    /// Its time was too long ago, and it may not catch up.
    Missed,
    /// Somebody does it at this moment.
    Running(Ahead),
}

/// The blocking twin of [`crate::Turn`].
#[derive(Debug)]
#[must_use = "dropping a turn lets the next one try"]
pub struct Turn {
    turn: crate::Turn,
    runtime: Arc<Runtime>,
}

impl Job {
    pub(super) fn new(job: crate::Job, runtime: &Arc<Runtime>) -> Self {
        Self { job, runtime: Arc::clone(runtime) }
    }

    /// The same job with what `set` changes, as in `job.with(|job| job.retry_failed(2))`.
    #[must_use]
    pub fn with(self, set: impl FnOnce(crate::Job) -> crate::Job) -> Self {
        Self { job: set(self.job), runtime: self.runtime }
    }

    /// As [`crate::Job::begin`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn begin(&self) -> Result<Begin> {
        self.runtime.wait(self.job.begin()).map(|begin| self.begun(begin))
    }

    /// As [`crate::Job::begin_or_wait`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn begin_or_wait(&self) -> Result<Begin> {
        self.runtime.wait(self.job.begin_or_wait()).map(|begin| self.begun(begin))
    }

    /// As [`crate::Job::last`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn last(&self) -> Result<Option<Run>> {
        self.runtime.wait(self.job.last())
    }

    fn begun(&self, begin: crate::Begin) -> Begin {
        match begin {
            crate::Begin::Turn(turn) => {
                Begin::Turn(Turn { turn, runtime: Arc::clone(&self.runtime) })
            }
            crate::Begin::Ran(run) => Begin::Ran(run),
            crate::Begin::Failed(run) => Begin::Failed(run),
            crate::Begin::TooSoon(run) => Begin::TooSoon(run),
            crate::Begin::Missed => Begin::Missed,
            crate::Begin::Running(ahead) => Begin::Running(ahead),
        }
    }
}

impl Turn {
    /// As [`crate::Turn::fence`].
    #[must_use]
    pub const fn fence(&self) -> Fence {
        self.turn.fence()
    }

    /// As [`crate::Turn::failures`].
    #[must_use]
    pub const fn failures(&self) -> u32 {
        self.turn.failures()
    }

    /// As [`Guard::check`](crate::Guard::check) of its hold.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn check(&self) -> Result<()> {
        self.turn.guard().check()
    }

    /// As [`crate::Turn::succeed`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn succeed(self) -> Result<()> {
        self.runtime.wait(self.turn.succeed())
    }

    /// As [`crate::Turn::fail`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn fail(self) -> Result<()> {
        self.runtime.wait(self.turn.fail())
    }

    /// As [`crate::Turn::give_up`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn give_up(self) -> Result<Released> {
        self.runtime.wait(self.turn.give_up())
    }
}
