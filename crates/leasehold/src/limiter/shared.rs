//! What the callers of one process share: the permits in stock, and the queue for more.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use leasehold_core::backoff::Backoff;
use leasehold_core::rate::{Batch, Meter};
use leasehold_core::{Decision, Key, Moment, Quota};
use tokio::sync::{Notify, oneshot};

use super::{Away, exchange};
use crate::clock;
use crate::error::{Error, ErrorKind, Result};
use crate::store::Store;

/// The share of one client in a key's rate.
pub(super) struct Shared {
    pub(super) store: Arc<dyn Store>,
    pub(super) key: Key,
    pub(super) quota: Quota,
    state: Mutex<State>,
    /// Told when a waiting caller gives up: the next one may need less.
    pub(super) gave_up: Notify,
}

/// Changed under the lock, in steps without an await.
pub(super) struct State {
    pub(super) batch: Batch,
    /// Who needs the store, first come first.
    pub(super) queue: VecDeque<Caller>,
    /// A task has the queue: the one that talks to the store.
    served: bool,
    /// Why the last exchange failed, if it did.
    pub(super) failed: Option<Error>,
    /// The store is away: why, and when it is asked again.
    away: Option<(Error, Moment)>,
    /// How long it is left alone.
    backoff: Backoff,
    /// What this process allows itself while the store is away.
    alone: Meter,
    /// The other quota in the record that was told of.
    pub(super) told: Option<Quota>,
}

/// A call that needs the store.
pub(super) struct Caller {
    pub(super) permits: u32,
    pub(super) waits: bool,
    away: Away,
    /// An exchange was planned with it, so that its outcome is the caller's.
    pub(super) planned: bool,
    answer: oneshot::Sender<Result<Decision>>,
}

/// What an exchange with the store brought.
pub(super) struct Brought {
    pub(super) began: Moment,
    pub(super) meter: Meter,
    pub(super) taken: u32,
}

/// What the task does next.
pub(super) enum Next {
    /// Ask the store.
    Ask,
    /// Not before this.
    WaitUntil(Moment),
    /// Nobody needs it; it no longer has the queue.
    End,
}

impl Shared {
    pub(super) fn new(store: Arc<dyn Store>, key: Key, quota: Quota) -> Self {
        let state = State {
            batch: Batch::new(quota),
            queue: VecDeque::new(),
            served: false,
            failed: None,
            away: None,
            backoff: exchange::away_backoff(),
            alone: Meter::new(quota, 0),
            told: None,
        };
        Self { store, key, quota, state: Mutex::new(state), gave_up: Notify::new() }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // No code that can panic runs while it is held.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The trouble that the store was in when last asked.
    pub(super) fn trouble(&self) -> Option<Error> {
        self.lock().failed.clone()
    }

    /// Takes `permits`: from the stock, or from the store in turn.
    pub(super) async fn ask(
        self: &Arc<Self>,
        permits: u32,
        waits: bool,
        away: Away,
    ) -> Result<Decision> {
        let (answer, outcome) = oneshot::channel();
        let caller = Caller { permits, waits, away, planned: false, answer };
        if let Some(outcome) = self.enqueue(caller)? {
            return outcome;
        }
        let mut waiting = Waiting { shared: self, outcome };
        (&mut waiting.outcome).await.unwrap_or_else(|_| {
            let detail =
                "the runtime that asked the store for this process was shut down; try again";
            let error = Error::new(ErrorKind::Unavailable, "pass the limit of", detail);
            Err(error.at(&self.store).about(&self.key).outcome_unknown())
        })
    }

    /// Answers at once if the store is not needed; else queues the call, and has it served.
    fn enqueue(self: &Arc<Self>, caller: Caller) -> Result<Option<Result<Decision>>> {
        let now = clock::now();
        let mut state = self.lock();
        state.batch.hear(now, caller.permits);
        if state.queue.is_empty()
            && let Some(decision) = state.batch.spend(now, caller.permits)
        {
            return Ok(Some(Ok(decision)));
        }
        if let Some((error, _)) = state.away.clone().filter(|(_, until)| now < *until) {
            if let Some(outcome) = state.decide_alone(now, &caller, &error) {
                return Ok(Some(outcome));
            }
        } else if !caller.waits {
            let queued = state.queued();
            if let Some(decision) = state.batch.refuse(now, caller.permits, queued) {
                return Ok(Some(Ok(decision)));
            }
        }
        let runtime = if state.served { None } else { Some(self.runtime()?) };
        state.queue.push_back(caller);
        if let Some(runtime) = runtime {
            state.served = true;
            drop(state);
            runtime.spawn(exchange::serve(exchange::Turn::new(self)));
        }
        Ok(None)
    }

    fn runtime(&self) -> Result<tokio::runtime::Handle> {
        tokio::runtime::Handle::try_current().map_err(|error| {
            let detail = "there is no tokio runtime; use leasehold::blocking outside of one";
            let error = Error::new(ErrorKind::Invalid, "use the client", detail).because(error);
            error.at(&self.store).about(&self.key)
        })
    }

    /// Tells what the store has; what this process has, if it is away.
    pub(super) async fn peek(&self, away: Away) -> Result<Decision> {
        let seen = exchange::look(self).await;
        let now = clock::now();
        let mut state = self.lock();
        let (meter, stock, alone) = match seen {
            Ok(meter) => (meter, state.batch.stock(now), false),
            Err(error) if is_away(&error) && away == Away::Open => {
                state.alone = state.alone.drained_to(now.as_nanos());
                (state.alone, 0, true)
            }
            Err(error) => return Err(error),
        };
        let remaining = meter.available().saturating_add(stock).min(self.quota.burst());
        let retry_after = meter.wait_for(1_u32.saturating_sub(stock));
        Ok(Decision {
            allowed: remaining > 0,
            limit: self.quota.burst(),
            remaining,
            retry_after,
            reset_after: meter.reset_after(),
            alone,
        })
    }

    /// What the task that has the queue does next.
    pub(super) fn next(&self) -> Next {
        let now = clock::now();
        let mut state = self.lock();
        state.queue.retain(|caller| !caller.answer.is_closed());
        let Some(first) = state.queue.front() else {
            state.served = false;
            return Next::End;
        };
        if let Some((_, until)) = state.away.as_ref().filter(|(_, until)| now < *until) {
            return Next::WaitUntil(*until);
        }
        if !first.waits {
            return Next::Ask;
        }
        let (permits, queued) = (first.permits, state.queued());
        match state.batch.wait_for(now, permits, queued) {
            Some(wait) if !wait.is_zero() => {
                Next::WaitUntil(now + wait.min(leasehold_core::rate::RECHECK))
            }
            _ => Next::Ask,
        }
    }

    /// The task ends before its time: its runtime is shut down. Who waits is told.
    pub(super) fn abandon(&self) {
        let mut state = self.lock();
        state.served = false;
        state.queue.clear();
    }

    /// Gives out what an exchange brought.
    pub(super) fn settle(&self, brought: &Brought) {
        let now = clock::now();
        let mut state = self.lock();
        let state = &mut *state;
        (state.failed, state.away) = (None, None);
        state.backoff.reset();
        let Brought { began, meter, taken } = *brought;
        let mut left = state.batch.arrive(now, began, meter, taken);
        let (mut stays, mut blocked, mut queued) = (VecDeque::new(), false, 0_u32);
        for caller in state.queue.drain(..) {
            let spare = left.checked_sub(caller.permits).filter(|_| !blocked);
            let decision = match spare {
                Some(spare) => Some(state.batch.granted(now, spare)),
                None if caller.waits => None,
                // The store was asked for it, and did not have it.
                None if caller.planned => Some(state.batch.refused(now, left, caller.permits)),
                None => state.batch.refuse(now, caller.permits, queued),
            };
            match (decision, spare) {
                (Some(decision), Some(spare)) => {
                    // One whose caller gave up stays here for the others.
                    if caller.answer.send(Ok(decision)).is_ok() {
                        left = spare;
                    }
                }
                (Some(decision), None) => {
                    let _ = caller.answer.send(Ok(decision));
                }
                (None, _) => {
                    blocked |= caller.waits;
                    queued = queued.saturating_add(caller.permits);
                    stays.push_back(caller);
                }
            }
        }
        state.queue = stays;
        state.batch.keep(began, left, taken);
    }

    /// Tells those who cannot wait for it that the store could not be used.
    pub(super) fn fail(&self, error: &Error) {
        let now = clock::now();
        let mut state = self.lock();
        let state = &mut *state;
        if is_away(error) {
            if state.away.is_none() {
                tracing::warn!(%error, key = ?self.key, "the limiter's store is away");
            }
            state.away = Some((error.clone(), now + state.backoff.next_wait()));
        }
        let mut stays = VecDeque::new();
        while let Some(caller) = state.queue.pop_front() {
            match state.decide_alone(now, &caller, error) {
                Some(outcome) => {
                    let _ = caller.answer.send(outcome);
                }
                None => stays.push_back(caller),
            }
        }
        state.queue = stays;
    }
}

impl State {
    /// How many permits the queue is for.
    fn queued(&self) -> u32 {
        self.queue.iter().fold(0, |sum, caller| sum.saturating_add(caller.permits))
    }

    /// What is answered without the store; `None` if the caller waits on.
    fn decide_alone(
        &mut self,
        now: Moment,
        caller: &Caller,
        error: &Error,
    ) -> Option<Result<Decision>> {
        if !is_away(error) {
            return Some(Err(error.clone()));
        }
        match caller.away {
            Away::Closed => (!caller.waits).then(|| Err(error.clone())),
            Away::Open => {
                self.alone = self.alone.drained_to(now.as_nanos());
                let decision = Decision { alone: true, ..self.alone.take(caller.permits) };
                (decision.allowed || !caller.waits).then_some(Ok(decision))
            }
        }
    }
}

/// Whether a failure means that the store is away: see [`Away`].
pub(super) fn is_away(error: &Error) -> bool {
    error.is_transient() || error.kind() == ErrorKind::Full
}

/// A call in the queue. Dropping it gives the place up.
struct Waiting<'a> {
    shared: &'a Shared,
    outcome: oneshot::Receiver<Result<Decision>>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.outcome.close();
        self.shared.gave_up.notify_one();
    }
}

#[cfg(test)]
#[path = "shared_tests.rs"]
mod tests;
