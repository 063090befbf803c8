//! Where a claim stands in a line, and whose end it has to watch for: pure.

use leasehold_core::line::{self, Share, holders};
use leasehold_core::{Ahead, Place};

use super::layout::Contender;
use super::proto::KeyValue;
use super::{layout, proto};

/// Watching more contenders than this one by one costs more than hearing of every end.
const WATCHED: usize = 16;

/// Where a claim stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Standing {
    /// Its units fit: it holds, or may.
    Fits,
    /// It has to wait.
    Behind(Ahead, Watch),
}

/// Whose end, or whose fewer units, may let the claim in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Watch {
    /// The contender right ahead of an exclusive claim.
    Next {
        key: Vec<u8>,
        /// Nobody stands ahead of it: its end is the grant.
        first: bool,
    },
    /// Any of these.
    Any(Vec<Vec<u8>>),
    /// Any contender at all.
    Whole,
}

/// Judges a claim of `own` behind those `ahead`, the oldest first.
pub(super) fn judge(ahead: &[Contender], own: Share) -> Standing {
    let shares = || ahead.iter().map(Contender::share);
    let holding = holders(shares().chain([own]));
    if holding > ahead.len() {
        return Standing::Fits;
    }
    let place = Ahead {
        rank: Some(u32::try_from(ahead.len() - holding).unwrap_or(u32::MAX)),
        holder: ahead.first().map(Contender::party),
        foreign: ahead.iter().take(holding.max(1)).any(|contender| contender.label.is_none()),
    };
    Standing::Behind(place, watch(ahead, own))
}

/// The limit of the line, where a claim of `limit` that is new in it does not share it: that of the
/// first claim of leasehold. Whoever disagrees with that one is on its way out again itself, and a
/// foreign contender has no limit to disagree with.
pub(super) fn disagreement(ahead: &[Contender], limit: u32) -> Option<u32> {
    let first = ahead.iter().find(|contender| contender.label.is_some());
    line::disagreement(first.map(Contender::share), limit)
}

/// Whether a contender that was written again claims something else than before, not just with
/// another note.
pub(super) fn amended(key: &leasehold_core::Key, before: Option<KeyValue>, now: KeyValue) -> bool {
    let share = |kv| Contender::read(key, kv).map(|contender| contender.share());
    let new = now.create_revision == now.mod_revision;
    !new && before.and_then(share) != share(now)
}

fn watch(ahead: &[Contender], own: Share) -> Watch {
    if let (true, Some(next)) = (own.units == own.limit, ahead.last()) {
        return Watch::Next { key: next.key.clone(), first: ahead.len() == 1 };
    }
    // As long as the nearest ones, whose units and ours exceed our limit, are all there with all
    // their units, we cannot fit: so one of them has to go, or take less, first. Watching the next one only would sleep through
    // the end of another (28,511 of 60,000 random lines).
    let mut units = u64::from(own.units);
    let mut nearest = Vec::new();
    for contender in ahead.iter().rev() {
        units += u64::from(contender.share().units);
        nearest.push(contender.key.clone());
        if units > u64::from(own.limit) {
            break;
        }
    }
    if nearest.len() > WATCHED { Watch::Whole } else { Watch::Any(nearest) }
}

/// What the end of a watched contender, at `revision`, means for an exclusive claim: its grant,
/// where the contender was certainly the last one ahead; else the claim has to look.
pub(super) fn ended(
    key: &leasehold_core::Key,
    first: bool,
    revision: i64,
    before: Option<KeyValue>,
) -> Option<Place> {
    // Whoever held alone had nobody ahead, and nobody enters the line but at its end.
    let alone = || {
        before
            .and_then(|kv| Contender::read(key, kv))
            .is_some_and(|contender| contender.held_alone())
    };
    (first || alone()).then(|| Place::Held(layout::fence_at(revision)))
}

/// Splits what was read below `K/` into the contenders ahead of the claim at `own` and the claim.
pub(super) fn place(
    key: &leasehold_core::Key,
    kvs: Vec<proto::KeyValue>,
    own: &[u8],
) -> (Vec<Contender>, Option<Contender>) {
    let mut line: Vec<Contender> =
        kvs.into_iter().filter_map(|kv| Contender::read(key, kv)).collect();
    line.sort_by_key(|contender| contender.created);
    let Some(at) = line.iter().position(|contender| contender.key == own) else {
        return (line, None);
    };
    let own = line.drain(at..).next();
    (line, own)
}

#[cfg(test)]
mod tests {
    use leasehold_core::{Claim, ClaimId, Fence, Key, Note};
    use proptest::prelude::*;
    use std::num::NonZeroU32;

    use super::super::layout::{Granted, Label, LeaseId};
    use super::*;

    const MUTEX: Share = Share { units: 1, limit: 1 };

    fn key() -> Key {
        Key::new("k").unwrap()
    }

    fn kv(n: u8, share: Share, granted: Option<Granted>) -> KeyValue {
        let id = ClaimId::from_random([n; 16]);
        let [units, limit] = [share.units, share.limit].map(|n| NonZeroU32::new(n).unwrap());
        let claim = Claim::counting(id, key(), Note::default(), units, limit).unwrap();
        KeyValue {
            key: LeaseId(1).claim_key(&key(), &id),
            create_revision: i64::from(n),
            mod_revision: i64::from(n),
            value: Label::new("", &claim, granted).to_bytes(),
            lease: 1,
        }
    }

    fn contender(n: u8, share: Share) -> Contender {
        Contender::read(&key(), kv(n, share, None)).unwrap()
    }

    fn foreign(n: u8) -> Contender {
        let kv = KeyValue {
            key: format!("k/{n}").into(),
            create_revision: n.into(),
            ..Default::default()
        };
        Contender::read(&key(), kv).unwrap()
    }

    #[test]
    fn a_mutex_watches_the_one_right_ahead() {
        let line = [contender(1, MUTEX), contender(2, MUTEX)];
        let Standing::Behind(ahead, watch) = judge(&line, MUTEX) else { panic!("it waits") };
        assert_eq!((ahead.rank, ahead.foreign), (Some(1), false));
        assert_eq!(ahead.holder, Some(line[0].party()));
        assert_eq!(watch, Watch::Next { key: line[1].key.clone(), first: false });
        let Standing::Behind(_, watch) = judge(&line[..1], MUTEX) else { panic!("it waits") };
        assert_eq!(watch, Watch::Next { key: line[0].key.clone(), first: true });
        assert_eq!(judge(&[], MUTEX), Standing::Fits);
    }

    #[test]
    fn a_foreign_contender_counts_as_the_whole_limit() {
        let of_nine = Share { units: 1, limit: 9 };
        let line = [foreign(1)];
        let Standing::Behind(ahead, _) = judge(&line, of_nine) else { panic!("it waits") };
        assert!(ahead.foreign);
        assert_eq!(ahead.rank, Some(0));
        let line = [contender(1, of_nine), foreign(2)];
        assert!(matches!(judge(&line, of_nine), Standing::Behind(..)));
    }

    #[test]
    fn the_first_claim_of_leasehold_says_what_the_limit_is() {
        let of = |limit| Share { units: 1, limit };
        assert_eq!(disagreement(&[], 5), None);
        assert_eq!(disagreement(&[foreign(1)], 5), None, "it has no limit to disagree with");
        assert_eq!(disagreement(&[contender(1, of(5))], 5), None);
        assert_eq!(disagreement(&[contender(1, of(5))], 1), Some(5));
        assert_eq!(disagreement(&[foreign(1), contender(2, of(5))], 7), Some(5));
        // One that disagreed, and has not withdrawn yet, refuses nobody.
        assert_eq!(disagreement(&[contender(1, of(5)), contender(2, of(7))], 5), None);
    }

    #[test]
    fn fewer_units_are_news_and_a_note_is_none() {
        let of_nine = |units| Share { units, limit: 9 };
        let at = |revision, kv: KeyValue| KeyValue { mod_revision: revision, ..kv };
        let before = kv(2, of_nine(5), None);
        let marked = at(7, kv(2, of_nine(5), Some(Granted::Here)));
        assert!(!amended(&key(), Some(before.clone()), marked.clone()));
        assert!(amended(&key(), Some(before), at(7, kv(2, of_nine(1), Some(Granted::Here)))));
        assert!(amended(&key(), None, marked), "what it was before is not known any more");
        assert!(!amended(&key(), None, kv(3, of_nine(1), None)), "it only came");
    }

    #[test]
    fn the_end_of_a_waiter_is_no_grant_while_others_are_ahead() {
        let waiting = kv(2, MUTEX, None);
        assert_eq!(ended(&key(), false, 9, Some(waiting.clone())), None);
        assert_eq!(ended(&key(), false, 9, None), None, "what it was is not known");
        let granted = Some(Place::Held(Fence::new(9)));
        assert_eq!(ended(&key(), true, 9, Some(waiting)), granted);
        assert_eq!(ended(&key(), false, 9, Some(kv(2, MUTEX, Some(Granted::At(7))))), granted);
        assert_eq!(ended(&key(), false, 9, Some(kv(2, MUTEX, Some(Granted::Here)))), granted);
        // A reader that held says nothing about the readers beside it.
        let reader = Share { units: 1, limit: 9 };
        assert_eq!(ended(&key(), false, 9, Some(kv(2, reader, Some(Granted::Here)))), None);
    }

    proptest! {
        /// PROTOCOLS.md section 4: watching the immediate predecessor only loses wake-ups.
        #[test]
        fn no_wake_up_is_lost_when_the_limit_is_above_one(
            line in proptest::collection::vec((1_u32..4, 1_u32..6), 1..12),
            ends in proptest::collection::vec((any::<prop::sample::Index>(), any::<bool>()), 24),
        ) {
            let line: Vec<Contender> = (1..).zip(line)
                .map(|(n, (units, limit))| contender(n, Share { units: units.min(limit), limit }))
                .collect();
            let own = line.last().unwrap().share();
            let mut ahead = line[..line.len() - 1].to_vec();
            let mut standing = judge(&ahead, own);
            for (end, amends) in ends {
                let Standing::Behind(_, watch) = &standing else { break };
                let at = end.index(ahead.len());
                let ended = if amends {
                    let share = Share { units: 1, ..ahead[at].share() };
                    let n = u8::try_from(ahead[at].created).unwrap();
                    std::mem::replace(&mut ahead[at], contender(n, share))
                } else {
                    ahead.remove(at)
                };
                let told = match watch {
                    Watch::Next { key, .. } => *key == ended.key,
                    Watch::Any(keys) => keys.contains(&ended.key),
                    Watch::Whole => true,
                };
                let now = judge(&ahead, own);
                if told {
                    standing = now;
                } else {
                    prop_assert!(now != Standing::Fits, "slept through the end of {:?}", ended);
                }
            }
        }
    }
}
