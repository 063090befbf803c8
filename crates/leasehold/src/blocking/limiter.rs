//! The blocking twin of a limiter.

use std::sync::Arc;
use std::time::Duration;

use leasehold_core::Key;

use super::Runtime;
use crate::error::Result;
use crate::limiter::{Away, Decision, Quota};

/// The blocking twin of [`crate::Limiter`].
///
/// ```
/// use leasehold::{Away, blocking::Client};
/// # fn main() -> leasehold::Result<()> {
/// let client = Client::open("memory:")?;
/// let limiter = client.limiter("mails", "5/min", Away::Closed)?.burst(2)?;
/// assert!(limiter.try_acquire(2)?.allowed);
/// assert!(!limiter.try_acquire(1)?.allowed && limiter.peek()?.remaining == 0);
/// # client.close()
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Limiter {
    limiter: crate::Limiter,
    runtime: Arc<Runtime>,
}

impl Limiter {
    pub(super) fn new(limiter: crate::Limiter, runtime: &Arc<Runtime>) -> Self {
        Self { limiter, runtime: Arc::clone(runtime) }
    }

    /// As [`crate::Limiter::burst`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn burst(self, burst: u32) -> Result<Self> {
        Ok(Self { limiter: self.limiter.burst(burst)?, runtime: self.runtime })
    }

    /// As [`crate::Limiter::key`].
    #[must_use]
    pub fn key(&self) -> &Key {
        self.limiter.key()
    }

    /// As [`crate::Limiter::quota`].
    #[must_use]
    pub fn quota(&self) -> Quota {
        self.limiter.quota()
    }

    /// As [`crate::Limiter::away`].
    #[must_use]
    pub const fn away(&self) -> Away {
        self.limiter.away()
    }

    /// As [`crate::Limiter::try_acquire`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn try_acquire(&self, permits: u32) -> Result<Decision> {
        self.runtime.wait(self.limiter.try_acquire(permits))
    }

    /// As [`crate::Limiter::acquire`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn acquire(&self, permits: u32) -> Result<Decision> {
        self.runtime.wait(self.limiter.acquire(permits))
    }

    /// As [`crate::Limiter::acquire_within`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn acquire_within(&self, permits: u32, wait: Duration) -> Result<Decision> {
        self.runtime.wait(self.limiter.acquire_within(permits, wait))
    }

    /// As [`crate::Limiter::peek`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn peek(&self) -> Result<Decision> {
        self.runtime.wait(self.limiter.peek())
    }
}
