//! Wake-ups for the claims and sessions of one store handle: where a store puts what its server
//! tells it, until the waiter looks.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use leasehold_core::{ClaimId, Place, SessionId};
use tokio::sync::Notify;

/// What was told to the waiting claims and the sessions of a store handle.
#[derive(Debug, Default)]
pub(crate) struct Mailbox {
    claims: Mutex<HashMap<ClaimId, Arc<Slot>>>,
    sessions: Mutex<HashMap<SessionId, Arc<Notify>>>,
}

/// A told place stays until the waiter takes it, so nothing is lost between the answer of `enter`
/// and the call of `changed`.
#[derive(Debug, Default)]
struct Slot {
    told: Notify,
    place: Mutex<Option<Place>>,
}

impl Mailbox {
    /// Begins to keep what is told to a claim. To be called before its `enter` is sent.
    pub(crate) fn expect(&self, claim: ClaimId) {
        lock(&self.claims).entry(claim).or_default();
    }

    /// Keeps nothing more for a claim: it holds, was refused, or left.
    pub(crate) fn forget(&self, claim: ClaimId) {
        if let Some(slot) = lock(&self.claims).remove(&claim) {
            slot.told.notify_waiters();
        }
    }

    /// Tells a claim that its place may have changed, and to what if that is known.
    pub(crate) fn tell(&self, claim: ClaimId, place: Option<Place>) {
        if let Some(slot) = lock(&self.claims).get(&claim) {
            if place.is_some() {
                *lock(&slot.place) = place;
            }
            slot.told.notify_one();
        }
    }

    /// Tells everyone to look again: the connection was interrupted, messages may be lost.
    #[allow(dead_code, reason = "a build without a store that needs it")]
    pub(crate) fn tell_all(&self) {
        for slot in lock(&self.claims).values() {
            slot.told.notify_one();
        }
        self.disturb_all();
    }

    /// Resolves when the claim is told something. At once for a claim that is not expected.
    pub(crate) async fn told(&self, claim: ClaimId) -> Option<Place> {
        let slot = lock(&self.claims).get(&claim).cloned()?;
        slot.told.notified().await;
        lock(&slot.place).take()
    }

    /// Begins to keep what is told to a session.
    pub(crate) fn expect_session(&self, session: &SessionId) {
        lock(&self.sessions).entry(session.clone()).or_default();
    }

    /// Keeps nothing more for a session.
    pub(crate) fn forget_session(&self, session: &SessionId) {
        lock(&self.sessions).remove(session);
    }

    /// Tells a session that it should be renewed ahead of time.
    pub(crate) fn disturb(&self, session: &SessionId) {
        if let Some(notify) = lock(&self.sessions).get(session) {
            notify.notify_one();
        }
    }

    /// Tells every session to renew ahead of time: what was told before may not have been heard.
    #[allow(dead_code, reason = "a build without a store that needs it")]
    pub(crate) fn disturb_all(&self) {
        for session in lock(&self.sessions).values() {
            session.notify_one();
        }
    }

    /// Resolves when the session is told to renew ahead of time; never for an unknown one.
    pub(crate) async fn disturbed(&self, session: &SessionId) {
        let notify = lock(&self.sessions).get(session).cloned();
        match notify {
            Some(notify) => notify.notified().await,
            None => std::future::pending().await,
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while these locks are held, and every state in between is a valid one.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
