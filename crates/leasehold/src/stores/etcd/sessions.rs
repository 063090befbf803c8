//! What this process remembers of the sessions that it opened.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use leasehold_core::Note;

use super::layout::LeaseId;

/// A session of this handle.
#[derive(Debug)]
struct Known {
    owner: Note,
    /// The revision that changed the session's key last: what an `enter` is only good for.
    epoch: i64,
    watch: Option<i64>,
    /// How often somebody else touched the session, and how many of those a roll call answered.
    suspicions: u64,
    allayed: u64,
    renewals: u32,
}

#[derive(Debug, Default)]
pub(super) struct Sessions(Mutex<HashMap<LeaseId, Known>>);

impl Sessions {
    pub(super) fn add(&self, lease: LeaseId, owner: Note, epoch: i64) {
        let known = Known { owner, epoch, watch: None, suspicions: 0, allayed: 0, renewals: 0 };
        self.lock().insert(lease, known);
    }

    pub(super) fn set_watch(&self, lease: LeaseId, watch: i64) {
        if let Some(known) = self.lock().get_mut(&lease) {
            known.watch = Some(watch);
        }
    }

    /// Forgets a session that ended; returns the watch that is to be ended.
    #[must_use]
    pub(super) fn forget(&self, lease: LeaseId) -> Option<i64> {
        self.lock().remove(&lease)?.watch
    }

    pub(super) fn is_known(&self, lease: LeaseId) -> bool {
        self.lock().contains_key(&lease)
    }

    pub(super) fn owner(&self, lease: LeaseId) -> Note {
        self.lock().get(&lease).map(|known| known.owner.clone()).unwrap_or_default()
    }

    pub(super) fn epoch(&self, lease: LeaseId) -> Option<i64> {
        self.lock().get(&lease).map(|known| known.epoch)
    }

    /// Takes note of a later change of the session's key.
    pub(super) fn advance(&self, lease: LeaseId, epoch: i64) {
        if let Some(known) = self.lock().get_mut(&lease) {
            known.epoch = known.epoch.max(epoch);
        }
    }

    /// Somebody may have ended claims of the session.
    pub(super) fn suspect(&self, lease: LeaseId) {
        if let Some(known) = self.lock().get_mut(&lease) {
            known.suspicions += 1;
        }
    }

    pub(super) fn is_suspect(&self, lease: LeaseId) -> bool {
        self.lock().get(&lease).is_some_and(|known| known.suspicions != known.allayed)
    }

    /// Begins a renewal: how often the session was suspected so far, and the renewal's number.
    pub(super) fn renewal(&self, lease: LeaseId) -> (u64, u32) {
        let mut sessions = self.lock();
        let Some(known) = sessions.get_mut(&lease) else { return (0, 0) };
        known.renewals = known.renewals.wrapping_add(1);
        (known.suspicions, known.renewals)
    }

    /// A roll call that began after `suspicions` was answered.
    pub(super) fn allay(&self, lease: LeaseId, suspicions: u64) {
        if let Some(known) = self.lock().get_mut(&lease) {
            known.allayed = known.allayed.max(suspicions);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<LeaseId, Known>> {
        // No code that can panic runs while it is held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
