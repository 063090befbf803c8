//! The counter of fences, and what makes it survive a power loss.
//!
//! Commits are not synced one by one (`synchronous=NORMAL`), so a power loss can take the last
//! ones back. Therefore numbers are *reserved* by a synced commit before the first of them is
//! given out, and after a boot the count goes on from the end of the reservation.
//!
//! The numbers follow the wall clock in microseconds where that is ahead, so that they also grow
//! over the deletion of the file or its return from a backup. A wall clock that was set back
//! together with either is the case that nothing on this machine can notice.

use crate::error::ErrorKind;
use crate::stores::sqlite::trouble::Trouble;

/// How far a reservation reaches: an hour of microseconds, so that an opener has to sync at most
/// twice an hour however often the file is opened.
const BLOCK: i64 = 3_600_000_000;

/// The row of the file's counter.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Counter {
    /// The last fence that was given out.
    pub(super) last: i64,
    /// The greatest number that may be given out without another synced commit.
    pub(super) reserved: i64,
    /// The boot in which this was written.
    pub(super) boot: String,
}

impl Counter {
    /// Whether at least half a block can be given out, none of it below `floor`.
    pub(super) fn has_room(&self, floor: i64) -> bool {
        self.reserved.saturating_sub(self.last.max(floor)) >= BLOCK / 2
    }

    /// Reserves a block. To be committed with a sync before [`Counter::next`] is used.
    pub(super) fn reserve(&mut self, floor: i64, boot: &str) -> Result<(), Trouble> {
        if self.boot != boot {
            // What was given out after the last sync may be forgotten, but lies within this.
            self.last = self.last.max(self.reserved);
            boot.clone_into(&mut self.boot);
        }
        self.reserved = self.last.max(floor).checked_add(BLOCK).ok_or_else(|| {
            Trouble::new(
                ErrorKind::Corrupt,
                "the counter of fences is at its end, which no honest use brings it to; stop all \
                 users of the file and move it away",
            )
        })?;
        Ok(())
    }

    /// The next fence: greater than all before it, and than `floor`.
    pub(super) fn next(&mut self, floor: i64) -> Result<i64, Trouble> {
        let next = self.last.max(floor).saturating_add(1);
        if next > self.reserved {
            return Err(Trouble::new(
                ErrorKind::Unavailable,
                "one transaction granted more than a whole reservation of fences; ask again",
            ));
        }
        self.last = next;
        Ok(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_tail_is_jumped_over_after_a_boot_and_only_then() {
        let mut counter = Counter::default();
        counter.reserve(1000, "a").unwrap();
        let synced = counter.clone();
        let given: Vec<i64> = (0..100).map(|_| counter.next(1000).unwrap()).collect();
        assert_eq!(given[0], 1001);
        assert!(given.is_sorted_by(|a, b| a < b));

        // The power fails: what was not synced is gone, and so is the wall clock.
        let mut restored = synced;
        restored.reserve(0, "b").unwrap();
        assert!(restored.next(0).unwrap() > given[99]);
        // The same boot again: nothing is jumped over.
        let last = restored.last;
        restored.reserve(0, "b").unwrap();
        assert_eq!(restored.next(0).unwrap(), last + 1);
    }

    #[test]
    fn nothing_is_given_out_that_is_not_reserved() {
        let mut counter = Counter { last: 5, reserved: 7, boot: String::new() };
        assert_eq!((counter.next(0).unwrap(), counter.next(0).unwrap()), (6, 7));
        assert!(counter.next(0).is_err());
        assert!(counter.next(100).is_err());
        assert_eq!(counter.last, 7);
        assert!(Counter { last: i64::MAX - 3, ..counter }.reserve(0, "a").is_err());
    }
}
