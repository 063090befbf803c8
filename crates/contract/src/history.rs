//! Whether a record of holds, taken by the holders themselves, obeys the rule.

use std::collections::HashMap;
use std::fmt;

use leasehold_core::{Fence, Key, Moment};

/// One hold of a mutex as its holder saw it, on a clock that all holders share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// What was held.
    pub key: Key,
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
    /// Both held at one moment.
    Overlap(Held, Held),
    /// The later one's fence is not greater.
    Fence(Held, Held),
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Overlap(a, b) => write!(f, "two holders at once: {a:?} and {b:?}"),
            Self::Fence(a, b) => write!(f, "a fence that does not grow: {a:?}, then {b:?}"),
        }
    }
}

impl std::error::Error for Violation {}

/// Checks a history in O(n log n), however many keys and holders there are.
///
/// # Errors
///
/// With the first two holds of one key that overlap, or whose fences do not grow with their order
/// in time.
pub fn check(mut history: Vec<Held>) -> Result<(), Violation> {
    history.sort_by_key(|held| held.from);
    let mut last: HashMap<Key, Held> = HashMap::new();
    for held in history {
        if let Some(before) = last.get(&held.key) {
            if held.from < before.to {
                return Err(Violation::Overlap(before.clone(), held));
            }
            if held.fence <= before.fence {
                return Err(Violation::Fence(before.clone(), held));
            }
        }
        last.insert(held.key.clone(), held);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(key: &str, fence: u64, from: u64, to: u64) -> Held {
        Held {
            key: Key::new(key).unwrap(),
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
}
