//! Whether a record of holds, taken by the holders themselves, obeys the rule.

use std::collections::HashMap;
use std::fmt;

use leasehold_core::line::Share;
use leasehold_core::{Fence, Key, Moment};

/// One hold as its holder saw it, on a clock that all holders share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// What was held.
    pub key: Key,
    /// How much of it: [`Share::MUTEX`] for all.
    pub share: Share,
    /// Its fence.
    pub fence: Fence,
    /// A moment at which it certainly held already: read *after* the grant was learned.
    pub from: Moment,
    /// A moment at which it certainly still held: read *before* the release was sent, and not
    /// past the deadline.
    pub to: Moment,
}

/// Two holds that cannot both be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Violation {
    /// Both held at one moment, and those that held then are too many.
    Overlap(Held, Held),
    /// They exclude each other, and the later one's fence is not greater.
    Fence(Held, Held),
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Overlap(a, b) => write!(f, "too many holders at once: {a:?} and {b:?}"),
            Self::Fence(a, b) => write!(f, "a fence that does not grow: {a:?}, then {b:?}"),
        }
    }
}

impl std::error::Error for Violation {}

/// Checks a history in O(n log n), however many keys and holders there are, unless many of them
/// hold beside each other.
///
/// # Errors
///
/// With the first two holds of one key that cannot be beside each other or with all others of that
/// moment, or that exclude each other and have fences that do not grow with their order in time.
pub fn check(mut history: Vec<Held>) -> Result<(), Violation> {
    history.sort_by_key(|held| held.from);
    let mut keys: HashMap<&Key, Past<'_>> = HashMap::new();
    for held in &history {
        keys.entry(&held.key).or_default().admit(held)?;
    }
    Ok(())
}

/// What came before on a key.
#[derive(Default)]
struct Past<'a> {
    /// Those that still hold.
    holders: Vec<&'a Held>,
    /// Of each shape of a claim the one with the greatest fence.
    greatest: Vec<&'a Held>,
}

impl<'a> Past<'a> {
    fn admit(&mut self, held: &'a Held) -> Result<(), Violation> {
        self.holders.retain(|before| before.to > held.from);
        let together = || self.holders.iter().copied().chain([held]);
        let units: u64 = together().map(|each| u64::from(each.share.units)).sum();
        let limit = together().map(|each| each.share.limit).min().unwrap_or(u32::MAX);
        if let Some(beside) = self.holders.last()
            && units > u64::from(limit)
        {
            return Err(Violation::Overlap((*beside).clone(), held.clone()));
        }
        for before in &self.greatest {
            if held.excludes(before) && held.fence <= before.fence {
                return Err(Violation::Fence((*before).clone(), held.clone()));
            }
        }
        self.holders.push(held);
        match self.greatest.iter_mut().find(|before| before.share == held.share) {
            Some(before) if before.fence < held.fence => *before = held,
            Some(_) => {}
            None => self.greatest.push(held),
        }
        Ok(())
    }
}

impl Held {
    /// Whether the two alone are too many.
    fn excludes(&self, other: &Self) -> bool {
        let units = u64::from(self.share.units) + u64::from(other.share.units);
        units > u64::from(self.share.limit.min(other.share.limit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(key: &str, fence: u64, from: u64, to: u64) -> Held {
        shared(key, Share::MUTEX, fence, from, to)
    }

    fn shared(key: &str, share: Share, fence: u64, from: u64, to: u64) -> Held {
        Held {
            key: Key::new(key).unwrap(),
            share,
            fence: Fence::new(fence),
            from: Moment::from_nanos(from),
            to: Moment::from_nanos(to),
        }
    }

    #[test]
    fn one_after_the_other_is_fine_and_keys_are_apart() {
        check(vec![held("k", 2, 20, 30), held("k", 1, 10, 20), held("other", 1, 15, 25)]).unwrap();
    }

    #[test]
    fn an_overlap_is_found_also_inside_a_longer_hold() {
        let history = vec![held("k", 1, 10, 100), held("k", 2, 20, 30), held("k", 3, 40, 50)];
        assert!(matches!(check(history), Err(Violation::Overlap(..))));
    }

    #[test]
    fn a_fence_that_falls_or_repeats_is_found() {
        for second in [1, 2] {
            let history = vec![held("k", 2, 10, 20), held("k", second, 20, 30)];
            assert!(matches!(check(history), Err(Violation::Fence(..))));
        }
    }

    #[test]
    fn shares_are_beside_each_other_up_to_their_limit() {
        let share =
            |units, fence, from, to| shared("k", Share { units, limit: 3 }, fence, from, to);
        check(vec![share(1, 2, 10, 20), share(2, 1, 11, 30), share(1, 3, 20, 40)]).unwrap();
        let three_and_one = vec![share(1, 1, 10, 20), share(2, 2, 11, 30), share(1, 3, 19, 40)];
        assert!(matches!(check(three_and_one), Err(Violation::Overlap(..))));
    }

    #[test]
    fn readers_are_beside_each_other_and_a_writer_is_alone() {
        let reader = |fence, from, to| shared("k", Share::READER, fence, from, to);
        let writer = |fence, from, to| shared("k", Share::WRITER, fence, from, to);
        check(vec![reader(2, 10, 20), reader(1, 11, 30), writer(3, 30, 40)]).unwrap();
        let beside = vec![reader(1, 10, 20), reader(2, 11, 30), writer(3, 29, 40)];
        assert!(matches!(check(beside), Err(Violation::Overlap(..))));
        let mutex_beside = vec![reader(1, 10, 20), held("k", 2, 19, 40)];
        assert!(matches!(check(mutex_beside), Err(Violation::Overlap(..))));
    }

    #[test]
    fn a_writer_needs_a_greater_fence_than_every_reader_before() {
        let reader = |fence, from, to| shared("k", Share::READER, fence, from, to);
        let history =
            vec![reader(5, 10, 20), reader(3, 11, 20), shared("k", Share::WRITER, 4, 20, 30)];
        assert!(matches!(check(history), Err(Violation::Fence(..))));
    }
}
