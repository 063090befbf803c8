//! The blocking twins of an election and its leader.

use std::sync::Arc;

use futures::StreamExt as _;
use leasehold_core::Fence;
use tokio_util::sync::CancellationToken;

use super::Runtime;
use crate::election::{Leadership, Observed};
use crate::error::Result;
use crate::guard::Released;

/// The blocking twin of [`crate::Election`].
#[derive(Debug, Clone)]
pub struct Election {
    election: crate::Election,
    runtime: Arc<Runtime>,
}

/// The blocking twin of [`crate::Leader`].
#[derive(Debug)]
#[must_use = "dropping a leader resigns"]
pub struct Leader {
    leader: crate::Leader,
    runtime: Arc<Runtime>,
}

impl Election {
    pub(super) fn new(election: crate::Election, runtime: &Arc<Runtime>) -> Self {
        Self { election, runtime: Arc::clone(runtime) }
    }

    /// As [`crate::Election::campaign`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn campaign(&self, note: &str) -> Result<Leader> {
        let leader = self.runtime.wait(self.election.campaign(note))?;
        Ok(Leader { leader, runtime: Arc::clone(&self.runtime) })
    }

    /// As [`crate::Election::try_campaign`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn try_campaign(&self, note: &str) -> Result<Option<Leader>> {
        let leader = self.runtime.wait(self.election.try_campaign(note))?;
        Ok(leader.map(|leader| Leader { leader, runtime: Arc::clone(&self.runtime) }))
    }

    /// As [`crate::Election::leader`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn leader(&self) -> Result<Option<Leadership>> {
        self.runtime.wait(self.election.leader())
    }

    /// As [`crate::Election::observe`]: each step of the iterator waits for the next change.
    pub fn observe(&self) -> impl Iterator<Item = Result<Observed>> + use<> {
        let (mut changes, runtime) = (Box::pin(self.election.observe()), Arc::clone(&self.runtime));
        std::iter::from_fn(move || runtime.wait(async { Ok(changes.next().await) }).transpose())
            .map(Result::flatten)
    }
}

impl Leader {
    /// As [`crate::Leader::term`].
    #[must_use]
    pub const fn term(&self) -> Fence {
        self.leader.term()
    }

    /// As [`crate::Leader::check`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn check(&self) -> Result<()> {
        self.leader.check()
    }

    /// As [`crate::Leader::cancellation`]: ask it with `is_cancelled`.
    #[must_use]
    pub fn cancellation(&self) -> CancellationToken {
        self.leader.cancellation()
    }

    /// As [`crate::Leader::proclaim`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn proclaim(&self, note: &str) -> Result<()> {
        self.runtime.wait(self.leader.proclaim(note))
    }

    /// As [`crate::Leader::resign`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn resign(self) -> Result<Released> {
        self.runtime.wait(self.leader.resign())
    }
}
