//! The line as a list of names tells it: who holds, and whom to wait for.

use std::ops::Range;

use leasehold_core::ClaimId;
use leasehold_core::line::{Share, holders};

use super::names::{Contender, Recipe};

/// How many obstacles are looked at one by one.
const FEW: usize = 32;

/// The contenders for a key, first come first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Standing {
    pub(super) contenders: Vec<Contender>,
    /// How many of them, from the first, hold.
    pub(super) holders: usize,
}

impl Standing {
    /// What the children of a key's node say.
    pub(super) fn of(children: &[String]) -> Self {
        let mut contenders: Vec<Contender> =
            children.iter().filter_map(|name| Contender::parse(name)).collect();
        // The counter wraps, so it is read as a distance. All who stand in one line came within
        // half of its range, and then any of them will do as the point to measure from.
        if let Some(origin) = contenders.first().map(|first| first.sequence) {
            // A writer of Curator's that begins to read has two nodes of one number.
            contenders.sort_by_key(|contender| {
                (contender.sequence.wrapping_sub(origin), is_foreign_reader(contender))
            });
        }
        let mut standing = Self { contenders, holders: 0 };
        standing.count();
        standing
    }

    /// Where the node of this name stands.
    pub(super) fn position(&self, name: &str) -> Option<usize> {
        self.contenders.iter().position(|contender| contender.name == name)
    }

    /// Where the first node of this claim stands.
    pub(super) fn find(&self, claim: ClaimId) -> Option<usize> {
        self.contenders.iter().position(|contender| contender.claim == Some(claim))
    }

    /// The line with one more at its end.
    pub(super) fn with(mut self, share: Share) -> Self {
        let sequence = self.contenders.last().map_or(0, |last| last.sequence.wrapping_add(1));
        let name = String::new();
        self.contenders.push(Contender { name, sequence, claim: None, share, recipe: None });
        self.count();
        self
    }

    /// Takes note of units that are fewer than a name says, by their position.
    pub(super) fn amend(&mut self, units: impl IntoIterator<Item = (usize, u32)>) {
        for (position, units) in units {
            let share = &mut self.contenders[position].share;
            share.units = share.units.min(units);
        }
        self.count();
    }

    fn count(&mut self) {
        self.holders = holders(shares(&self.contenders));
    }

    /// Whether the one at `position` holds.
    pub(super) const fn holds(&self, position: usize) -> bool {
        position < self.holders
    }

    /// Those ahead of `position` who keep it from holding as long as all of them stay: whom to
    /// watch. For a mutex and a writer that is the predecessor, for a reader the nearest writer;
    /// else the nearest ones whose units, with its own, exceed their smallest limit.
    ///
    /// Watching the predecessor alone loses wake-ups where the limit is above 1: of two holders
    /// it may be the other one that leaves.
    ///
    /// As long as all of them stay, and with all their units.
    pub(super) fn obstacles(&self, position: usize) -> &[Contender] {
        &self.contenders[self.obstacles_at(position)]
    }

    /// Where the obstacles stand.
    pub(super) fn obstacles_at(&self, position: usize) -> Range<usize> {
        let ahead = &self.contenders[..position];
        let waiter = &self.contenders[position];
        let own = waiter.share;
        if let Some(at) = ahead.iter().rposition(|one| blocks(one, waiter)) {
            return at..at + 1;
        }
        // The limit is that of those who are watched: were it that of another, who may leave, the
        // claim could be granted with all of these in place.
        let (mut taken, mut limit) = (u64::from(own.units), own.limit);
        let near = ahead.iter().rev().take_while(|one| {
            let blocked = taken > u64::from(limit);
            taken += u64::from(one.share.units);
            limit = limit.min(one.share.limit);
            !blocked
        });
        position - near.count()..position
    }

    /// The [obstacles](Self::obstacles) whose end alone makes `position` hold: nobody can come
    /// ahead of it, and who else leaves from there only makes more room. Curator's writers are the
    /// exception: what follows one may stand in its place.
    pub(super) fn deciding(&self, position: usize) -> impl Iterator<Item = &Contender> {
        // Past a few, asking the server again is cheaper than finding out.
        let few = Some(self.obstacles(position)).filter(|some| some.len() <= FEW);
        few.unwrap_or_default().iter().filter(move |one| {
            let line = self.contenders[..=position].iter().filter(|other| other != one);
            one.recipe != Some(Recipe::Writer) && holders(shares(line)) == position
        })
    }
}

/// What each in a line counts as, which depends on nobody behind it.
///
/// A reader of others and a claim of a semaphore have nothing to share, and the reader has no limit
/// that the claim could disagree with: from where both are in line, everybody is exclusive.
fn shares<'a>(line: impl IntoIterator<Item = &'a Contender>) -> impl Iterator<Item = Share> {
    let (mut reader, mut counted) = (false, false);
    line.into_iter().map(move |one| {
        reader |= is_foreign_reader(one);
        counted |= is_counted(one);
        if reader && counted { Share::MUTEX } else { one.share }
    })
}

/// Whether `waiter`, which is ours, cannot hold as long as `one` ahead of it stays.
fn blocks(one: &Contender, waiter: &Contender) -> bool {
    let units = u64::from(one.share.units) + u64::from(waiter.share.units);
    units > u64::from(one.share.limit.min(waiter.share.limit))
        || is_foreign_reader(one) && is_counted(waiter)
}

fn is_foreign_reader(one: &Contender) -> bool {
    one.recipe == Some(Recipe::Reader)
}

/// Whether it claims a part of what is neither exclusive nor readers' and writers'.
const fn is_counted(one: &Contender) -> bool {
    !matches!(one.share.limit, 1 | u32::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(id: usize, units: u32, limit: u32, sequence: i32) -> String {
        format!("{id:032x}-{units}of{limit}__lock__{sequence:010}")
    }

    #[test]
    fn the_counter_wraps_and_the_order_stays() {
        let before = format!("{:032x}__lock__2147483647", 1);
        let after = format!("{:032x}__lock__-2147483648", 2);
        let last = format!("{:032x}__lock__-2147483647", 3);
        for children in
            [[&before, &after, &last], [&last, &after, &before], [&after, &before, &last]]
        {
            let standing = Standing::of(&children.map(Clone::clone));
            let names: Vec<&String> = standing.contenders.iter().map(|one| &one.name).collect();
            assert_eq!(names, [&before, &after, &last]);
            assert_eq!(standing.holders, 1);
        }
    }

    #[test]
    fn a_mutex_waits_for_its_predecessor_only() {
        let children: Vec<String> = (0..5).map(|n| format!("{n:032x}__lock__{n:010}")).collect();
        let standing = Standing::of(&children);
        for position in 1..5 {
            assert_eq!(standing.obstacles(position), &standing.contenders[position - 1..position]);
        }
    }

    #[test]
    fn of_two_holders_either_may_leave_first() {
        let standing = Standing::of(&[name(1, 1, 2, 0), name(2, 1, 2, 1), name(3, 1, 2, 2)]);
        assert_eq!(standing.holders, 2);
        assert_eq!(standing.obstacles(2).len(), 2, "watching b alone sleeps through a's leave");
    }

    #[test]
    fn a_reader_waits_for_the_nearest_writer() {
        let max = u32::MAX;
        let writer = format!("{:032x}__lock__0000000002", 9);
        let children = [
            name(1, 1, max, 0),
            name(2, 1, max, 1),
            writer.clone(),
            name(3, 1, max, 3),
            name(4, 1, max, 4),
        ];
        let standing = Standing::of(&children);
        assert_eq!((standing.holders, &standing.contenders[2].name), (2, &writer));
        for reader in [3, 4] {
            assert_eq!(standing.obstacles(reader), &standing.contenders[2..3]);
        }
    }

    #[test]
    fn the_end_of_a_sole_holder_decides() {
        let children: Vec<String> = (0..3).map(|n| format!("{n:032x}__lock__{n:010}")).collect();
        let standing = Standing::of(&children);
        assert_eq!(standing.deciding(1).collect::<Vec<_>>(), [&standing.contenders[0]]);
        assert_eq!(standing.deciding(2).count(), 0, "the holder is still there");
        let two =
            Standing::of(&[name(1, 1, 2, 0), name(2, 1, 2, 1), name(3, 1, 2, 2), name(4, 1, 2, 3)]);
        assert_eq!(two.deciding(2).count(), 2);
        assert_eq!(two.deciding(3).count(), 0);
    }

    #[test]
    fn a_foreign_holder_takes_everything() {
        let standing = Standing::of(&["x-1-0000000000".into(), name(1, 1, 5, 1)]);
        assert_eq!(standing.holders, 1);
        assert!(!standing.with(Share { units: 1, limit: 5 }).holds(2));
    }

    fn reader(sequence: i32) -> String {
        format!("{:032x}__rlock__{sequence:010}", 77)
    }

    fn curator(mark: &str, sequence: i32) -> String {
        format!("_c_01234567-89ab-cdef-0123-456789abcdef-{mark}{sequence:010}")
    }

    #[test]
    fn readers_of_others_stand_beside_readers_only() {
        let max = u32::MAX;
        for foreign in [reader(0), curator("__READ__", 0)] {
            let beside = Standing::of(&[foreign.clone(), name(1, 1, max, 1), reader(2)]);
            assert_eq!(beside.holders, 3);
            for other in [name(1, max, max, 1), name(1, 1, 1, 1), name(1, 1, 3, 1)] {
                let standing = Standing::of(&[foreign.clone(), other, name(2, 1, max, 2)]);
                assert_eq!(standing.holders, 1);
                assert_eq!(standing.obstacles(1), &standing.contenders[..1]);
            }
        }
    }

    /// Whoever came first: the reader waits by its own recipe, and is not overtaken.
    #[test]
    fn a_semaphore_does_not_overtake_a_reader_of_others() {
        let standing = Standing::of(&[name(1, 1, 3, 0), reader(1), name(2, 1, 3, 2)]);
        assert_eq!(standing.holders, 1);
        assert_eq!(standing.obstacles(2), &standing.contenders[1..2]);
        let trying = standing.with(Share { units: 1, limit: 3 });
        assert!(!trying.holds(3));
    }

    #[test]
    fn the_end_of_curators_writer_decides_nothing() {
        let max = u32::MAX;
        let writes = [curator("__WRIT__", 0), name(1, max, max, 1)];
        assert_eq!(Standing::of(&writes).deciding(1).count(), 0);
        // It reads as well, and one number is two nodes.
        for [first, second] in [["__WRIT__", "__READ__"], ["__READ__", "__WRIT__"]] {
            let both = [curator(first, 0), curator(second, 0), name(1, max, max, 1)];
            let standing = Standing::of(&both);
            assert_eq!((standing.holders, &standing.contenders[0].name), (1, &writes[0]));
            assert_eq!(standing.deciding(2).count(), 0);
        }
        let reads = [curator("__READ__", 0), name(1, max, max, 1)];
        assert_eq!(Standing::of(&reads).deciding(1).count(), 1);
    }

    proptest! {
        /// Whoever leaves, whoever was granted by that was watching someone who left.
        #[test]
        fn no_wake_up_is_lost(
            line in proptest::collection::vec((1_u32..4, 1_u32..9), 2..12),
            leaver in 0_usize..12,
            amends in any::<bool>(),
        ) {
            let children: Vec<String> = line.iter().enumerate().map(|(n, &(units, limit))| {
                let sequence = i32::try_from(n).unwrap();
                match limit {
                    // Readers and writers, and readers of others.
                    6 => name(n, 1, u32::MAX, sequence),
                    7 => name(n, u32::MAX, u32::MAX, sequence),
                    8 => reader(sequence),
                    _ => name(n, units.min(limit), limit, sequence),
                }
            }).collect();
            let before = Standing::of(&children);
            let leaver = leaver % children.len();
            let mut after = children.clone();
            let after = if amends {
                let mut after = before.clone();
                after.amend([(leaver, 1)]);
                after
            } else {
                after.remove(leaver);
                Standing::of(&after)
            };
            // Nobody amends what waits.
            let waiting = before.holders..before.contenders.len();
            for position in waiting.filter(|position| !amends || *position != leaver) {
                let waiter = &before.contenders[position];
                let now = after.position(&waiter.name);
                if now.is_some_and(|now| after.holds(now)) {
                    let gone = &before.contenders[leaver];
                    prop_assert!(before.obstacles(position).contains(gone));
                    prop_assert!(!amends || waiter.share.units < waiter.share.limit, "exclusive");
                }
            }
        }
    }
}
