//! One claim of this process, as the session, its waiter and its guard share it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use leasehold_core::{Claim, Lease, Moment, SessionId, Timing};
use tokio_util::sync::CancellationToken;

/// A claim and what is known of its lease.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) claim: Claim,
    pub(crate) session: SessionId,
    /// The task that asked for it, where there is one.
    pub(super) task: Option<tokio::task::Id>,
    timing: Timing,
    /// Nanoseconds: when the latest acknowledged request that extends the lease was sent.
    sent: AtomicU64,
    /// Nanoseconds: the end of `max_hold`, whatever is renewed.
    cap: AtomicU64,
    /// Whether the store has acknowledged the claim, so that a roll call may ask for it.
    entered: AtomicBool,
    /// Whether a request for the claim was cut off, so that it may still arrive after the claim
    /// was left.
    suspect: AtomicBool,
    lost: CancellationToken,
}

impl Entry {
    pub(super) fn new(claim: Claim, session: SessionId, sent: Moment, timing: Timing) -> Self {
        Self {
            claim,
            session,
            task: tokio::task::try_id(),
            timing,
            sent: AtomicU64::new(sent.as_nanos()),
            cap: AtomicU64::new(u64::MAX),
            entered: AtomicBool::new(false),
            suspect: AtomicBool::new(false),
            lost: CancellationToken::new(),
        }
    }

    /// Takes note of an acknowledged request, sent at `sent`, that extends the lease.
    pub(super) fn extend(&self, sent: Moment) {
        self.sent.fetch_max(sent.as_nanos(), Ordering::AcqRel);
    }

    /// Ends the hold at `cap`, whatever is renewed.
    pub(super) fn cap(&self, cap: Moment) {
        self.cap.store(cap.as_nanos(), Ordering::Release);
    }

    pub(super) fn set_entered(&self) {
        self.entered.store(true, Ordering::Release);
    }

    pub(super) fn is_entered(&self) -> bool {
        self.entered.load(Ordering::Acquire)
    }

    pub(super) fn set_suspect(&self, suspect: bool) {
        self.suspect.store(suspect, Ordering::Release);
    }

    pub(crate) fn is_suspect(&self) -> bool {
        self.suspect.load(Ordering::Acquire)
    }

    fn lease(&self) -> Lease {
        Lease::new(Moment::from_nanos(self.sent.load(Ordering::Acquire)), self.timing)
    }

    fn cap_moment(&self) -> Moment {
        Moment::from_nanos(self.cap.load(Ordering::Acquire))
    }

    /// Until when the holder may act.
    pub(crate) fn deadline(&self) -> Moment {
        self.lease().deadline().min(self.cap_moment())
    }

    /// When the loss is signalled unless the lease is extended.
    pub(crate) fn lost_at(&self) -> Moment {
        self.lapses_at().min(self.capped_at())
    }

    /// The same, if there was no cap.
    pub(super) fn lapses_at(&self) -> Moment {
        self.lease().lost_at()
    }

    /// The same, if it was renewed for ever.
    pub(super) fn capped_at(&self) -> Moment {
        self.cap_moment() - self.timing.grace()
    }

    /// When the store has certainly forgotten the claim, if nothing extends it.
    pub(super) fn lapsed_at(&self) -> Moment {
        self.lease().sent() + self.timing.ttl() + self.timing.drift()
    }

    /// Whether the holder may still act at `now`.
    pub(crate) fn is_good(&self, now: Moment) -> bool {
        !self.lost.is_cancelled() && now < self.lost_at()
    }

    /// Signals the loss: to a guard, that its hold is gone; to a waiter, that its place is.
    pub(super) fn lose(&self) {
        self.lost.cancel();
    }

    /// Cancelled once the claim is lost.
    pub(crate) const fn lost(&self) -> &CancellationToken {
        &self.lost
    }
}
