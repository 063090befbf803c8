//! The one background task of a session: renews everything at a fraction of the TTL, signals loss
//! by its own timer whether or not the store answers, and gives back what handles dropped.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt, OptionFuture, join_all};
use futures::stream::{FuturesUnordered, StreamExt};
use leasehold_core::backoff::{Backoff, Random};
use leasehold_core::{Claim, ClaimId, Lease, Moment, Renewed, SessionId};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::oneshot;

use super::{Entry, Open, Order, Shared};
use crate::clock;
use crate::error::Result;
use crate::random;
use crate::store::LeaseScope;

/// How long the end waits for the store.
const FINISH: Duration = Duration::from_secs(2);

/// Runs until the last handle is dropped or asks to close.
pub(super) fn run(
    shared: Arc<Shared>,
    orders: UnboundedReceiver<Order>,
) -> impl Future<Output = ()> + Send {
    // Made outside of the future: a runtime may drop the task without having polled it once.
    let lose_all = LoseAll(Arc::clone(&shared));
    async move {
        let _lose_all = lose_all;
        work(shared, orders).await;
    }
}

async fn work(shared: Arc<Shared>, mut orders: UnboundedReceiver<Order>) {
    let mut work = Work::new(shared);
    let closing = loop {
        let wake = work.next_wake();
        tokio::select! {
            order = orders.recv() => match order {
                Some(Order::Close(done)) => break Some(done),
                Some(order) => work.take(order),
                None => break None,
            },
            Some(renewal) = OptionFuture::from(work.renewal.as_mut()) => work.renewed(renewal),
            Some(()) = work.leaving.next() => {}
            Some(()) = OptionFuture::from(work.disturbed.as_mut().map(|(_, wait)| wait)) => {
                work.disturbed = None;
                work.due = Some(clock::now());
            }
            Some(()) = OptionFuture::from(wake.map(clock::sleep_until)) => work.tick(clock::now()),
        }
    };
    let outcome = work.finish(orders).await;
    if let Some(done) = closing {
        let _ = done.send(outcome);
    }
}

/// However the task ends, also with its runtime: nobody renews any more, so everything is lost.
struct LoseAll(Arc<Shared>);

impl Drop for LoseAll {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.closed = true;
        state.open = None;
        state.entries.extract(|_| true).iter().for_each(|entry| entry.lose());
        drop(state);
        self.0.ended.cancel();
    }
}

/// What became of a renewal.
struct Renewal {
    session: SessionId,
    /// Before the first batch was sent.
    sent: Moment,
    outcomes: Vec<Outcome>,
}

/// What became of one batch of it.
struct Outcome {
    sent: Moment,
    batch: Vec<Arc<Entry>>,
    renewed: Result<Renewed>,
}

struct Work {
    shared: Arc<Shared>,
    random: Random,
    backoff: Backoff,
    /// When to renew next; none while nothing is to be renewed.
    due: Option<Moment>,
    /// When the next hold is lost unless it is renewed, as of the last look.
    next_loss: Option<Moment>,
    renewal: Option<BoxFuture<'static, Renewal>>,
    /// Who waits for the renewal under way, and for the one after it.
    waiting: Vec<oneshot::Sender<()>>,
    waiting_next: Vec<oneshot::Sender<()>>,
    disturbed: Option<(SessionId, BoxFuture<'static, ()>)>,
    leaving: FuturesUnordered<BoxFuture<'static, ()>>,
}

impl Work {
    fn new(shared: Arc<Shared>) -> Self {
        // The jitter only has to differ between processes; without it renewals still work.
        let seed = random::seed().unwrap_or_default();
        let every = shared.settings.timing.renew_every();
        let backoff = Backoff::new(every / 32, every / 4, seed);
        Self {
            shared,
            random: Random::new(seed),
            backoff,
            due: None,
            next_loss: None,
            renewal: None,
            waiting: Vec::new(),
            waiting_next: Vec::new(),
            disturbed: None,
            leaving: FuturesUnordered::new(),
        }
    }

    fn next_wake(&self) -> Option<Moment> {
        let due = self.due.filter(|_| self.renewal.is_none());
        let next_cap = self.shared.lock().entries.next_cap();
        due.into_iter().chain(self.next_loss).chain(next_cap).min()
    }

    fn take(&mut self, order: Order) {
        match order {
            Order::Look => self.look(),
            Order::Expect(loss) => {
                self.next_loss = Some(self.next_loss.map_or(loss, |next| next.min(loss)));
            }
            Order::Leave(entry) => {
                self.leaving.push(leave(Arc::clone(&self.shared), entry).boxed());
            }
            Order::Renew(done) => {
                // One under way was sent before the caller asked.
                self.waiting_next.push(done);
                self.due = Some(clock::now());
            }
            Order::Close(done) => drop(done),
        }
    }

    /// Plans anew after something was opened, granted or renewed.
    fn look(&mut self) {
        let open = self.shared.lock().open.clone();
        let Some(open) = open else {
            (self.due, self.disturbed) = (None, None);
            // There will be no renewal; who waits for one looks again, and finds the session ended.
            self.waiting_next.clear();
            self.find_next_loss();
            return;
        };
        if self.disturbed.as_ref().is_none_or(|(session, _)| *session != open.id) {
            let (store, id) = (Arc::clone(&self.shared.store), open.id.clone());
            let wait = async move { store.disturbed(&id).await }.boxed();
            self.disturbed = Some((open.id.clone(), wait));
        }
        let lease = Lease::new(open.sent, self.shared.settings.timing);
        let due = lease.renew_at(self.random.fraction());
        self.due = Some(self.due.map_or(due, |planned| planned.min(due)));
        self.find_next_loss();
    }

    fn tick(&mut self, now: Moment) {
        if self.renewal.is_none() && self.due.is_some_and(|due| due <= now) {
            self.due = None;
            // First: what was not renewed in time, because the process stood still, is lost, although
            // the store may still know it. No loss was expected yet if it was granted since the last
            // renewal.
            self.lose_overdue(now);
            self.begin_renewal();
        }
        let capped = self.shared.lock().entries.extract_capped(now);
        self.lose(capped, "held for as long as a hold may last");
        if self.next_loss.is_some_and(|loss| loss <= now) {
            self.lose_overdue(now);
        }
    }

    fn lose_overdue(&mut self, now: Moment) {
        let lapsed = |entry: &Entry| entry.is_entered() && entry.lapses_at() <= now;
        let overdue = self.shared.lock().entries.extract(lapsed);
        self.lose(overdue, "not renewed in time");
        self.find_next_loss();
    }

    /// Every grant leaves a renewal interval until its loss, or has it expected: so looking at each
    /// renewal, whether it succeeds or fails, misses none.
    fn find_next_loss(&mut self) {
        let state = self.shared.lock();
        let entered = state.entries.walk().filter(|entry| entry.is_entered());
        self.next_loss = entered.map(|entry| entry.lapses_at()).min();
    }

    fn lose(&mut self, entries: Vec<Arc<Entry>>, why: &str) {
        for entry in entries {
            entry.lose();
            tracing::warn!(key = ?entry.claim.key, "lost: {why}");
            // The store may still hold the claim, and a session's renewal may go on extending it.
            // The holder has until its deadline to stop.
            let (shared, deadline) = (Arc::clone(&self.shared), entry.deadline());
            let leaving = async move {
                clock::sleep_until(deadline).await;
                leave(shared, entry).await;
            };
            self.leaving.push(leaving.boxed());
        }
    }

    fn begin_renewal(&mut self) {
        let shared = Arc::clone(&self.shared);
        let state = shared.lock();
        let Some(Open { id, .. }) = state.open.clone() else {
            // Whoever waits for a renewal looks again, and finds the session ended.
            self.waiting_next.clear();
            return;
        };
        let roll: Vec<Arc<Entry>> = state
            .entries
            .walk()
            .filter(|entry| entry.is_entered() && entry.session == id)
            .cloned()
            .collect();
        drop(state);
        self.waiting.append(&mut self.waiting_next);
        let guarantees = shared.store.guarantees();
        if roll.is_empty() && guarantees.lease == LeaseScope::Claim {
            // Nothing to extend; the session is but a name.
            self.renewed(Renewal { session: id, sent: clock::now(), outcomes: Vec::new() });
            return;
        }
        let batches: Vec<Vec<Arc<Entry>>> = if roll.is_empty() {
            vec![roll]
        } else {
            roll.chunks(guarantees.renew_batch.max(1)).map(<[_]>::to_vec).collect()
        };
        let renewing = async move {
            let sent = clock::now();
            let batches = batches.into_iter().map(|batch| renew(&shared, &id, batch));
            let outcomes = join_all(batches).await;
            Renewal { session: id, sent, outcomes }
        };
        self.renewal = Some(renewing.boxed());
    }

    fn renewed(&mut self, renewal: Renewal) {
        self.renewal = None;
        let Renewal { session, sent, outcomes } = renewal;
        let mut failed = 0_usize;
        for outcome in outcomes {
            match outcome.renewed {
                Ok(Renewed::Extended { lost }) => {
                    self.extended(&outcome.batch, outcome.sent, &lost);
                }
                Ok(Renewed::Ended) => {
                    tracing::warn!(store = %self.shared.store, "the session lapsed");
                    self.shared.end(&session);
                }
                Err(error) => {
                    failed += 1;
                    // One says what is wrong, also where each claim is a batch of its own.
                    if failed == 1 {
                        tracing::warn!(%error, "could not renew; asking again");
                    } else {
                        tracing::debug!(%error, "could not renew; asking again");
                    }
                }
            }
        }
        // Only now: who waited looks at what the renewal changed.
        for done in self.waiting.drain(..) {
            let _ = done.send(());
        }
        let failed = failed > 0;
        if failed {
            self.due = Some(clock::now() + self.backoff.next_wait());
        } else {
            self.backoff.reset();
            // It says nothing of a session that was opened meanwhile, perhaps before this was sent.
            if let Some(open) = self.shared.lock().open.as_mut().filter(|open| open.id == session) {
                open.sent = open.sent.max(sent);
            }
            // A renewal that was asked for meanwhile goes first.
            self.due = (!self.waiting_next.is_empty()).then(clock::now);
        }
        self.look_unless(failed);
    }

    fn look_unless(&mut self, failed: bool) {
        if failed { self.find_next_loss() } else { self.look() }
    }

    fn extended(&self, batch: &[Arc<Entry>], sent: Moment, lost: &[ClaimId]) {
        let lost: HashSet<&ClaimId> = lost.iter().collect();
        let mut state = self.shared.lock();
        for entry in batch {
            if !lost.contains(&entry.claim.id) {
                entry.extend(sent);
            } else if state.entries.remove(&entry.claim.id).is_some() {
                // Gone from the entries already: it was released while the renewal was under way.
                entry.lose();
                tracing::warn!(key = ?entry.claim.key, "lost: the store no longer knows the claim");
            }
        }
    }

    /// Gives everything back: closing the session ends every claim in it. Only a session with
    /// a detached grant has to live on, so there each claim is left by itself.
    async fn finish(mut self, mut orders: UnboundedReceiver<Order>) -> Result<()> {
        orders.close();
        let mut closing = Vec::new();
        while let Some(order) = orders.recv().await {
            match order {
                Order::Close(done) => closing.push(done),
                order => self.take(order),
            }
        }
        let (open, entries, detached) = {
            let mut state = self.shared.lock();
            state.closed = true;
            let entries = state.entries.extract(|_| true);
            (state.open.take(), entries, state.detached)
        };
        for entry in &entries {
            entry.lose();
        }
        let outcome = match open {
            Some(open) if !detached => close(&self.shared, &open.id).await,
            _ => {
                let shared = &self.shared;
                let leaving = entries.into_iter().map(|entry| leave(Arc::clone(shared), entry));
                self.leaving.extend(leaving.map(FutureExt::boxed));
                let all = async { while self.leaving.next().await.is_some() {} };
                // Whoever waits for the end does not wait for a dead server; the TTL remains.
                let _ = tokio::time::timeout(FINISH, all).await;
                Ok(())
            }
        };
        for done in closing {
            let _ = done.send(Ok(()));
        }
        outcome
    }
}

pub(super) async fn close(shared: &Shared, session: &SessionId) -> Result<()> {
    shared.answered_within(FINISH, "close the session", shared.store.close(session)).await
}

/// Renews one batch. Given up early enough for another attempt.
async fn renew(shared: &Shared, session: &SessionId, batch: Vec<Arc<Entry>>) -> Outcome {
    let roll: Vec<Claim> = batch.iter().map(|entry| entry.claim.clone()).collect();
    let sent = clock::now();
    let renewing = shared.store.renew(session, &roll);
    let renewed = shared.answered_soon("renew the session", renewing).await;
    Outcome { sent, batch, renewed }
}

/// Leaves the line for a claim, again and again until the store has certainly forgotten it.
async fn leave(shared: Arc<Shared>, entry: Arc<Entry>) {
    let ttl = shared.settings.timing.ttl();
    let give_up = entry.lapsed_at().max(clock::now() + ttl);
    let mut backoff = Backoff::new(ttl / 64, ttl / 4, random::seed().unwrap_or_default());
    let shares_lease = shared.store.guarantees().lease == LeaseScope::Session;
    // A request that was cut off may still arrive, and under a session's lease it would live as
    // long as the session: a suspect is left again, for as long as a message may be under way.
    // That counts from when the store began to answer: a server that stood still for longer than
    // the TTL finds the request in its queue, behind the first leave, and may renew its leases
    // when it returns.
    let suspect = shares_lease && entry.is_suspect();
    let mut answers_since = None;
    loop {
        let leaving = shared.store.leave(&entry.session, &entry.claim);
        let left = shared.answered_soon("leave the line of", leaving).await;
        let pause: Duration = backoff.next_wait();
        let next = clock::now() + pause;
        if let Err(error) = &left {
            tracing::debug!(%error, "could not leave; asking again");
            answers_since = None;
            // What was not left lives as long as its lease.
            if next >= give_up && !(shares_lease && shared.goes_on(&entry.session)) {
                return;
            }
        } else if !suspect || next >= *answers_since.get_or_insert_with(clock::now) + ttl {
            return;
        }
        tokio::time::sleep(pause).await;
    }
}

#[cfg(test)]
#[path = "task_tests.rs"]
mod tests;
