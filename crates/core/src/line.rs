//! The one rule: *you hold when the units ahead of you in line plus your own fit within the limit.*
//!
//! A line is the claims on one key in order of arrival. A claim that disagrees with those ahead of
//! it on the limit is refused ([`disagreement`]). Where one slipped in all the same, because a store
//! cannot look and enter in one step, the smallest limit from the head of the line up to and
//! including a claim judges it, so one that sees a mutex is not joined by others that see a semaphore.
//!
//! Because sums only grow and minima only shrink along the line, whoever holds stands ahead of
//! whoever waits: the holders are always a prefix of the line. That is what makes the line fair,
//! a large claim is never overtaken for ever by small ones.

/// What one claim asks for: `units` out of `limit`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// Units asked for.
    pub units: u32,
    /// Limit of the key, as this claim sees it.
    pub limit: u32,
}

impl Share {
    /// What a mutex wants: all of one.
    pub const MUTEX: Self = Self { units: 1, limit: 1 };
    /// What a reader wants: one of as many as there can be.
    pub const READER: Self = Self { units: 1, limit: u32::MAX };
    /// What a writer wants: all there is.
    pub const WRITER: Self = Self { units: u32::MAX, limit: u32::MAX };
}

impl From<&crate::Claim> for Share {
    fn from(claim: &crate::Claim) -> Self {
        Self { units: claim.units(), limit: claim.limit() }
    }
}

/// How many claims at the head of `line` hold.
///
/// ```
/// use leasehold_core::line::{holders, Share};
/// let reader = Share { units: 1, limit: u32::MAX };
/// let writer = Share { units: u32::MAX, limit: u32::MAX };
/// assert_eq!(holders([reader, reader, writer, reader]), 2);
/// ```
#[must_use]
pub fn holders(line: impl IntoIterator<Item = Share>) -> usize {
    let mut taken = 0_u64;
    let mut limit = u32::MAX;
    line.into_iter()
        .take_while(|share| {
            taken = taken.saturating_add(u64::from(share.units));
            limit = limit.min(share.limit);
            taken <= u64::from(limit)
        })
        .count()
}

/// The limit that a claim of `limit` disagrees with: the first such one in `line`.
///
/// Limits agree when they are the same, and a mutex (1 of 1) agrees with readers and writers (of
/// [`u32::MAX`]): it is a writer by another name, and the rule keeps it alone.
///
/// ```
/// use leasehold_core::line::{disagreement, Share};
/// let of_three = Share { units: 1, limit: 3 };
/// assert_eq!(disagreement([of_three], 3), None);
/// assert_eq!(disagreement([of_three], 5), Some(3));
/// assert_eq!(disagreement([of_three], 1), Some(3));
/// let reader = Share { units: 1, limit: u32::MAX };
/// assert_eq!(disagreement([reader], 1), None);
/// ```
#[must_use]
pub fn disagreement(line: impl IntoIterator<Item = Share>, limit: u32) -> Option<u32> {
    let agree =
        |other: u32| other == limit || [other.min(limit), other.max(limit)] == [1, u32::MAX];
    line.into_iter().map(|share| share.limit).find(|other| !agree(*other))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_mutex_is_one_of_one() {
        assert_eq!(holders([]), 0);
        assert_eq!(holders([Share::MUTEX]), 1);
        assert_eq!(holders([Share::MUTEX; 3]), 1);
    }

    #[test]
    fn a_semaphore_counts_and_does_not_overtake() {
        let of_three = |units| Share { units, limit: 3 };
        assert_eq!(holders([of_three(1), of_three(1), of_three(1), of_three(1)]), 3);
        assert_eq!(holders([of_three(2), of_three(2), of_three(1)]), 1);
    }

    #[test]
    fn claims_that_disagree_are_judged_by_the_smallest_limit() {
        let of = |limit| Share { units: 1, limit };
        assert_eq!(holders([of(5), of(2), of(5)]), 2);
        assert_eq!(holders([of(1), of(100)]), 1);
        assert_eq!(holders([of(100), of(1)]), 1);
    }

    #[test]
    fn sums_do_not_wrap() {
        let writer = Share { units: u32::MAX, limit: u32::MAX };
        assert_eq!(holders([writer, writer, writer]), 1);
    }

    proptest! {
        #[test]
        fn the_units_held_never_exceed_any_holders_limit(
            line in proptest::collection::vec((1_u32..6, 1_u32..8), 0..20),
        ) {
            let line: Vec<Share> = line
                .into_iter()
                .map(|(units, limit)| Share { units: units.min(limit), limit })
                .collect();
            let held = &line[..holders(line.iter().copied())];
            let units: u32 = held.iter().map(|share| share.units).sum();
            for share in held {
                prop_assert!(units <= share.limit);
            }
            // Nobody idles: the head always holds.
            prop_assert_eq!(held.is_empty(), line.is_empty());
        }

        #[test]
        fn a_longer_tail_changes_nobodys_hold(
            line in proptest::collection::vec((1_u32..6, 6_u32..8), 0..20),
            more in proptest::collection::vec((1_u32..6, 6_u32..8), 0..20),
        ) {
            let share = |&(units, limit): &(u32, u32)| Share { units, limit };
            let short = holders(line.iter().map(share));
            let long = holders(line.iter().chain(&more).map(share));
            prop_assert!(long >= short);
            if short < line.len() {
                prop_assert_eq!(long, short);
            }
        }
    }
}
