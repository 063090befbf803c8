//! The number that tells a later grant from an earlier one.

use std::fmt;

/// A fencing token: for one key, strictly greater for each later grant.
///
/// Hand it to whatever the lock protects, and let that refuse any number smaller than the greatest
/// it has seen: a holder that was paused past its lease and did not notice then does no harm.
///
/// Fences of different keys, and of different stores, are not comparable.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fence(u64);

impl Fence {
    /// Wraps a number that a store counted.
    #[must_use]
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl From<Fence> for u64 {
    fn from(fence: Fence) -> Self {
        fence.0
    }
}

impl fmt::Display for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fence({})", self.0)
    }
}
