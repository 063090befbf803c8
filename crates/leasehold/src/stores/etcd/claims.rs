//! What this process remembers of claims that are not plainly held: they wait, were granted while
//! they waited, or a request of theirs may still be on its way.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use leasehold_core::{ClaimId, Fence};

use super::judge::Watch;
use super::layout::LeaseId;

#[derive(Debug)]
struct Memory {
    lease: LeaseId,
    /// An `enter` was sent, and not every copy of it is known to have arrived.
    doubtful: bool,
    waiting: Option<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    /// When the claim's key was created.
    created: i64,
    /// Set at the grant, and never changed after: asking again gives the same.
    fence: Option<Fence>,
    watch: Option<(Watch, Vec<i64>)>,
}

/// The claims of one store handle.
#[derive(Debug, Default)]
pub(super) struct Claims(Mutex<HashMap<ClaimId, Memory>>);

/// What a claim's end needs to know.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ending {
    /// See [`Claims::sending`].
    pub(super) doubtful: bool,
    /// When the key of a claim that waits, or did, was created.
    pub(super) created: Option<i64>,
    pub(super) fence: Option<Fence>,
}

impl Claims {
    /// An `enter` is about to be sent: until [`Claims::answered`] the claim is doubtful. Returns
    /// whether it was before.
    pub(super) fn sending(&self, claim: ClaimId, lease: LeaseId) -> bool {
        let mut claims = self.lock();
        let fresh = Memory { lease, doubtful: false, waiting: None };
        let memory = claims.entry(claim).or_insert(fresh);
        std::mem::replace(&mut memory.doubtful, true)
    }

    /// The `enter` was answered, and no copy of it is on its way.
    pub(super) fn answered(&self, claim: ClaimId) {
        let mut claims = self.lock();
        if let Some(memory) = claims.get_mut(&claim) {
            memory.doubtful = false;
            if memory.waiting.is_none() {
                claims.remove(&claim);
            }
        }
    }

    /// When the claim's key was created, if it waits or did.
    pub(super) fn created(&self, claim: ClaimId) -> Option<i64> {
        self.lock().get(&claim)?.waiting.as_ref().map(|waiting| waiting.created)
    }

    /// Takes note that a claim waits, or waited until now.
    pub(super) fn waits(&self, claim: ClaimId, lease: LeaseId, created: i64) {
        let mut claims = self.lock();
        let memory =
            claims.entry(claim).or_insert(Memory { lease, doubtful: false, waiting: None });
        // A key that was created anew begins anew.
        if memory.waiting.as_ref().is_none_or(|waiting| waiting.created != created) {
            memory.waiting = Some(Waiting { created, ..Waiting::default() });
        }
    }

    /// Grants a claim that waits, unless it was before: the fence that counts, and whether it is
    /// this one. `None` for a claim that does not wait any more, or whose key is another.
    pub(super) fn grant(
        &self,
        claim: ClaimId,
        created: i64,
        fence: Fence,
    ) -> Option<(Fence, bool)> {
        let mut claims = self.lock();
        let waiting = claims.get_mut(&claim)?.waiting.as_mut()?;
        if waiting.created != created {
            return None;
        }
        let first = waiting.fence.is_none();
        Some((*waiting.fence.get_or_insert(fence), first))
    }

    /// The fence of a claim that was granted while it waited.
    pub(super) fn fence(&self, claim: ClaimId, created: i64) -> Option<Fence> {
        let claims = self.lock();
        let waiting = claims.get(&claim)?.waiting.as_ref()?;
        waiting.fence.filter(|_| waiting.created == created)
    }

    /// Whether the claim already watches this.
    pub(super) fn is_watching(&self, claim: ClaimId, watch: &Watch) -> bool {
        let claims = self.lock();
        let waiting = claims.get(&claim).and_then(|memory| memory.waiting.as_ref());
        waiting.and_then(|waiting| waiting.watch.as_ref()).is_some_and(|(now, _)| now == watch)
    }

    /// Takes note of what a waiting claim watches now; returns the watches that are to be ended.
    #[must_use]
    pub(super) fn watch(&self, claim: ClaimId, watch: Watch, ids: Vec<i64>) -> Vec<i64> {
        let mut claims = self.lock();
        let waiting = claims.get_mut(&claim).and_then(|memory| memory.waiting.as_mut());
        let Some(waiting) = waiting else { return ids };
        waiting.watch.replace((watch, ids)).map(|(_, ids)| ids).unwrap_or_default()
    }

    /// The watches of a claim, which watches nothing any more.
    #[must_use]
    pub(super) fn unwatch(&self, claim: ClaimId) -> Vec<i64> {
        let mut claims = self.lock();
        let waiting = claims.get_mut(&claim).and_then(|memory| memory.waiting.as_mut());
        waiting.and_then(|waiting| waiting.watch.take()).map(|(_, ids)| ids).unwrap_or_default()
    }

    pub(super) fn ending(&self, claim: ClaimId) -> Ending {
        let claims = self.lock();
        let Some(memory) = claims.get(&claim) else { return Ending::default() };
        Ending {
            doubtful: memory.doubtful,
            created: memory.waiting.as_ref().map(|waiting| waiting.created),
            fence: memory.waiting.as_ref().and_then(|waiting| waiting.fence),
        }
    }

    /// Forgets a claim that ended; returns the watches that are to be ended.
    #[must_use]
    pub(super) fn forget(&self, claim: ClaimId) -> Vec<i64> {
        let memory = self.lock().remove(&claim);
        let watch = memory.and_then(|memory| memory.waiting).and_then(|waiting| waiting.watch);
        watch.map(|(_, ids)| ids).unwrap_or_default()
    }

    /// Forgets all claims of a session that ended, and names them.
    #[must_use]
    pub(super) fn forget_all(&self, lease: LeaseId) -> (Vec<ClaimId>, Vec<i64>) {
        let mut claims = self.lock();
        let gone = claims.extract_if(|_, memory| memory.lease == lease);
        let (mut named, mut watches) = (Vec::new(), Vec::new());
        for (claim, memory) in gone {
            named.push(claim);
            let watch = memory.waiting.and_then(|waiting| waiting.watch);
            watches.extend(watch.into_iter().flat_map(|(_, ids)| ids));
        }
        (named, watches)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ClaimId, Memory>> {
        // No code that can panic runs while it is held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
