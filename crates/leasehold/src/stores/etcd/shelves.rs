//! The leases under which records are kept.
//!
//! A lease for each writing would double the commits of whoever writes often, so one serves all
//! that is written with about the same time to keep, for as long as it lasts long enough. It is
//! never extended: a record is kept for its time at least, and five times as long at most.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use leasehold_core::Moment;

use super::layout::LeaseId;
use crate::clock;

/// The leases of one store handle, by the time to keep that they are for.
#[derive(Debug, Default)]
pub(super) struct Shelves(Mutex<HashMap<u64, Shelf>>);

/// A lease that is known to last for `span` from `from` on, by the server's clock.
#[derive(Debug, Clone, Copy)]
struct Shelf {
    lease: LeaseId,
    from: Moment,
    span: Duration,
}

/// What is asked of a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wanted {
    /// The times to keep that share a lease: up to this many seconds, and more than half of it.
    class: u64,
    /// How long it has to last at the least.
    pub(super) least: Duration,
    /// How long a new one is granted for, in whole seconds.
    pub(super) span: Duration,
}

impl Wanted {
    /// For a record that is kept for `keep`, by a request that takes no longer than `slack`.
    pub(super) fn new(keep: Duration, slack: Duration) -> Self {
        let seconds = keep.as_secs() + u64::from(keep.subsec_nanos() > 0);
        let class = seconds.max(1).next_power_of_two();
        let span = Duration::from_secs(class * 5 / 2 + slack.as_secs() + 1);
        Self { class, least: keep + slack, span }
    }

    /// Whether a lease with so much left will do, and not keep the record for much too long.
    pub(super) fn is_met_by(self, left: Duration) -> bool {
        (self.least..=self.span).contains(&left)
    }
}

impl Shelves {
    /// A lease that lasts long enough.
    pub(super) fn find(&self, wanted: Wanted) -> Option<LeaseId> {
        self.find_at(clock::now(), wanted)
    }

    fn find_at(&self, now: Moment, wanted: Wanted) -> Option<LeaseId> {
        let kept = *self.lock().get(&wanted.class)?;
        // The server's clock may run faster than ours by as much as one in ten.
        let elapsed = now.since(kept.from) * 11 / 10;
        (elapsed + wanted.least <= kept.span).then_some(kept.lease)
    }

    /// Takes note of a lease that lasts for `span` from `from` on.
    pub(super) fn put(&self, wanted: Wanted, lease: LeaseId, from: Moment, span: Duration) {
        self.lock().insert(wanted.class, Shelf { lease, from, span });
    }

    /// Forgets a lease that is gone.
    pub(super) fn forget(&self, gone: LeaseId) {
        self.lock().retain(|_, shelf| shelf.lease != gone);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Shelf>> {
        // No code that can panic runs while it is held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whenever a lease is used again, by a clock that is slow by a tenth at most, and however
        /// late the request is carried out, the record is kept for its time.
        #[test]
        fn a_record_is_kept_for_its_time(
            keep in 100_u64..1_000_000,
            other in 100_u64..1_000_000,
            after in 0_u64..3_000_000,
            slack in 10_u64..20_000,
        ) {
            let [keep, other, after, slack] = [keep, other, after, slack].map(Duration::from_millis);
            let (from, shelves) = (Moment::from_nanos(1), Shelves::default());
            let (first, second) = (Wanted::new(other, slack), Wanted::new(keep, slack));
            shelves.put(first, LeaseId(7), from, first.span);
            if shelves.find_at(from + after, second).is_some() {
                prop_assert!(after * 11 / 10 + slack + keep <= first.span);
            }
            prop_assert!(second.span <= keep * 5 + slack + Duration::from_secs(7));
            prop_assert!(shelves.find_at(from, first).is_some(), "a new one lasts long enough");
        }
    }

    #[test]
    fn a_lease_serves_many_writings() {
        let (from, shelves) = (Moment::from_nanos(1), Shelves::default());
        let wanted = Wanted::new(Duration::from_secs(64), Duration::from_secs(6));
        shelves.put(wanted, LeaseId(7), from, wanted.span);
        assert_eq!(shelves.find_at(from + Duration::from_secs(64), wanted), Some(LeaseId(7)));
        assert_eq!(shelves.find_at(from + Duration::from_secs(128), wanted), None);
        assert!(wanted.is_met_by(Duration::from_secs(70)));
        assert!(!wanted.is_met_by(Duration::from_secs(69)), "it would be forgotten too early");
        assert!(!wanted.is_met_by(Duration::from_secs(1000)), "and here too late");
        shelves.forget(LeaseId(7));
        assert_eq!(shelves.find_at(from, wanted), None);
    }
}
