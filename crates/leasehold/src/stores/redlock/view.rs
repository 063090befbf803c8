//! What a majority of the servers sees.

use std::time::Duration;

use leasehold_core::quorum::majority;
use leasehold_core::{Ahead, ClaimId, Fence, Party};

/// What one server sees at a key.
#[derive(Debug, Clone)]
pub(super) enum Sighting {
    Free,
    Held(Box<Party>),
}

/// What the servers see at a key, as far as they have answered.
#[derive(Debug, Clone)]
pub(super) struct View {
    servers: usize,
    seen: Vec<Sighting>,
}

impl View {
    pub(super) fn new(servers: usize) -> Self {
        Self { servers, seen: Vec::with_capacity(servers) }
    }

    pub(super) fn add(&mut self, sighting: Sighting) {
        self.seen.push(sighting);
    }

    fn parties(&self) -> impl Iterator<Item = &Party> {
        self.seen.iter().filter_map(|sighting| match sighting {
            Sighting::Held(party) => Some(&**party),
            Sighting::Free => None,
        })
    }

    /// Whether what is still to be answered cannot change what is seen.
    pub(super) fn is_certain(&self) -> bool {
        let free = self.seen.iter().filter(|sighting| matches!(sighting, Sighting::Free)).count();
        self.seen.len() == self.servers
            || free >= majority(self.servers)
            || self.holder().is_some_and(|holder| holder.claim.is_none() || holder.fence.is_some())
    }

    /// Who holds at a majority. Strangers are not told apart.
    pub(super) fn holder(&self) -> Option<Party> {
        let majority = majority(self.servers);
        let holder = self.parties().find(|party| self.of(party.claim).count() >= majority)?.clone();
        let ages = self.of(holder.claim).filter_map(|party| party.age);
        // A majority has it until the first of the longest-lived majority lapses.
        let mut lapses: Vec<Option<Duration>> =
            self.of(holder.claim).map(|party| party.left).collect();
        lapses.sort_unstable_by_key(|left| std::cmp::Reverse(left.unwrap_or(Duration::MAX)));
        Some(Party {
            fence: self.fence(holder.claim),
            age: ages.max(),
            left: lapses[majority - 1],
            ..holder
        })
    }

    fn of(&self, claim: Option<ClaimId>) -> impl Iterator<Item = &Party> {
        self.parties().filter(move |party| party.claim == claim)
    }

    /// The fence: where a majority stands exactly. Other counters say nothing.
    fn fence(&self, claim: Option<ClaimId>) -> Option<Fence> {
        let at = |fence: Fence| self.of(claim).filter(|party| party.fence == Some(fence)).count();
        let mut fences = self.of(claim).filter_map(|party| party.fence);
        fences.find(|fence| at(*fence) >= majority(self.servers))
    }

    /// Whether the claim holds at a majority: `None` if too few have answered to tell.
    pub(super) fn has(&self, claim: ClaimId) -> Option<bool> {
        let here = self.of(Some(claim)).count();
        let without = self.seen.len() - here;
        if here >= majority(self.servers) {
            Some(true)
        } else if self.servers - without < majority(self.servers) {
            Some(false)
        } else {
            None
        }
    }

    /// What stands between a claim and its grant.
    pub(super) fn ahead(&self) -> Ahead {
        let holder = self.holder();
        let foreign = holder.as_ref().is_some_and(|holder| holder.claim.is_none());
        Ahead { rank: None, holder, foreign }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(claim: u8, fence: u64, left: u64) -> Sighting {
        Sighting::Held(Box::new(Party {
            claim: Some(ClaimId::from_random([claim; 16])),
            fence: Some(Fence::new(fence)),
            left: Some(Duration::from_secs(left)),
            age: Some(Duration::from_secs(60 - left)),
            ..Party::default()
        }))
    }

    fn view(seen: &[Sighting]) -> View {
        View { servers: 5, seen: seen.to_vec() }
    }

    #[test]
    fn a_majority_holds_for_as_long_as_a_majority_has_it() {
        let all =
            view(&[held(1, 7, 9), held(1, 7, 3), held(1, 8, 5), held(1, 7, 8), Sighting::Free]);
        let holder = all.holder().unwrap();
        assert_eq!(holder.left, Some(Duration::from_secs(5)), "then two have it");
        assert_eq!(holder.age, Some(Duration::from_secs(57)));
        assert_eq!(holder.fence, Some(Fence::new(7)), "where a majority stands");
        let split = view(&[held(1, 7, 9), held(1, 8, 9), held(1, 9, 9)]);
        assert_eq!(split.holder().unwrap().fence, None, "nobody stands where a majority stands");
        assert!(!split.is_certain() && all.is_certain());
    }

    #[test]
    fn two_of_five_hold_nothing_and_strangers_hold_for_ever() {
        let split = view(&[held(1, 7, 9), held(1, 7, 9), held(2, 7, 9), held(2, 7, 9)]);
        assert_eq!((split.holder(), split.is_certain()), (None, false));
        let stranger = || Sighting::Held(Box::default());
        let ahead = view(&[stranger(), held(1, 7, 9), stranger(), stranger()]).ahead();
        assert!(ahead.foreign && ahead.holder.unwrap().left.is_none());
    }

    #[test]
    fn a_claim_is_gone_only_when_no_majority_can_have_it() {
        let claim = ClaimId::from_random([1; 16]);
        let free = || Sighting::Free;
        assert_eq!(view(&[held(1, 7, 9), held(1, 7, 9), held(1, 7, 9)]).has(claim), Some(true));
        assert_eq!(view(&[held(1, 7, 9), free(), held(2, 7, 9)]).has(claim), None);
        assert_eq!(view(&[free(), held(2, 7, 9), free()]).has(claim), Some(false));
        assert_eq!(view(&[]).has(claim), None);
    }
}
