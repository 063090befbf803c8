//! The claims of this process, and which capped hold ends next.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use leasehold_core::{ClaimId, Moment};

use super::Entry;

/// Every claim, waiting or held, that the store may know and that nobody gave up.
///
/// Leases move with each renewal, which goes through all claims anyhow. Caps do not, so they are
/// kept in order: a hold more costs no walk through a hundred thousand others.
#[derive(Debug, Default)]
pub(super) struct Entries {
    by_id: HashMap<ClaimId, Arc<Entry>>,
    /// When the holds with a cap are lost by it.
    caps: BTreeSet<(Moment, ClaimId)>,
    /// How often somebody went through all of them.
    #[cfg(test)]
    pub(super) walks: std::sync::atomic::AtomicUsize,
}

impl Entries {
    pub(super) fn insert(&mut self, entry: Arc<Entry>) {
        self.by_id.insert(entry.claim.id, entry);
    }

    pub(super) fn get(&self, id: &ClaimId) -> Option<&Arc<Entry>> {
        self.by_id.get(id)
    }

    pub(super) fn remove(&mut self, id: &ClaimId) -> Option<Arc<Entry>> {
        let entry = self.by_id.remove(id)?;
        self.caps.remove(&(entry.capped_at(), *id));
        Some(entry)
    }

    /// Ends a hold at `cap`, whatever is renewed.
    pub(super) fn cap(&mut self, entry: &Entry, cap: Moment) {
        entry.cap(cap);
        if self.by_id.contains_key(&entry.claim.id) {
            self.caps.insert((entry.capped_at(), entry.claim.id));
        }
    }

    /// When the next capped hold is lost by its cap.
    pub(super) fn next_cap(&self) -> Option<Moment> {
        self.caps.first().map(|(at, _)| *at)
    }

    /// Takes out the holds whose cap was reached by `now`.
    pub(super) fn extract_capped(&mut self, now: Moment) -> Vec<Arc<Entry>> {
        std::iter::from_fn(|| {
            let (_, id) = *self.caps.first().filter(|(at, _)| *at <= now)?;
            self.remove(&id)
        })
        .collect()
    }

    /// All of them, in no order.
    pub(super) fn walk(&self) -> impl Iterator<Item = &Arc<Entry>> {
        #[cfg(test)]
        self.walks.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        self.by_id.values()
    }

    /// Takes out those that `which` picks.
    pub(super) fn extract(&mut self, which: impl Fn(&Entry) -> bool) -> Vec<Arc<Entry>> {
        let picked: Vec<_> =
            self.walk().filter(|entry| which(entry)).map(|entry| entry.claim.id).collect();
        picked.iter().filter_map(|id| self.remove(id)).collect()
    }
}
