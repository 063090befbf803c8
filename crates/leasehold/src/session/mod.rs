//! A process's liveness with a store: opens the session, registers claims with it, and keeps one
//! background task ([`task`]) that renews everything.
//!
//! Handles (a client, its mutexes, its guards) share one [`Handle`]; when the last one is dropped,
//! the channel to the task closes, and the task gives back what is left and ends.

mod acquire;
mod entries;
mod entry;
mod task;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use leasehold_core::{Ahead, Claim, Left, Moment, SessionId, Terms, Timing};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

pub use acquire::Wait;
pub(crate) use acquire::{Acquired, Observer, Request, Wanted};
use entries::Entries;
pub(crate) use entry::Entry;

use crate::clock;
use crate::error::{Error, ErrorKind, Result};
use crate::property::Properties;
use crate::store::{LeaseScope, Store};

/// What a session is made with.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) timing: Timing,
    pub(crate) terms: Terms,
    pub(crate) max_hold: Option<Duration>,
    /// What the store has to have.
    pub(crate) demand: Properties,
}

/// What the handles share: dropping the last one ends the task.
#[derive(Debug)]
pub(crate) struct Handle {
    shared: Arc<Shared>,
    orders: UnboundedSender<Order>,
    /// The task's end of the channel, until the first use inside a runtime spawns the task.
    unspawned: Mutex<Option<UnboundedReceiver<Order>>>,
    /// Whose turn it is to open a session; with the end of the last attempt that failed.
    opening: tokio::sync::Mutex<Option<(Moment, Error)>>,
}

/// What the handles share with the task.
#[derive(Debug)]
struct Shared {
    store: Arc<dyn Store>,
    settings: Settings,
    state: Mutex<State>,
    /// Cancelled when the task has ended, or never will begin.
    ended: CancellationToken,
}

#[derive(Debug, Default)]
struct State {
    open: Option<Open>,
    entries: Entries,
    closed: bool,
    /// A grant was detached, so the session must outlive the task.
    detached: bool,
}

#[derive(Debug, Clone)]
struct Open {
    id: SessionId,
    /// When the latest acknowledged opening or renewal was sent.
    sent: Moment,
}

/// What the handles ask of the task.
#[derive(Debug)]
enum Order {
    /// A session was opened: plan again.
    Look,
    /// A hold may be lost at this moment, sooner than the next look.
    Expect(Moment),
    /// Leave the store's line for this claim, and go on trying until it is certain.
    Leave(Arc<Entry>),
    /// Renew now, and say when it is done.
    Renew(oneshot::Sender<()>),
    /// Give everything back, end, and say how it went.
    Close(oneshot::Sender<Result<()>>),
}

impl Handle {
    pub(crate) fn new(store: Arc<dyn Store>, settings: Settings) -> Arc<Self> {
        let (orders, receiver) = unbounded_channel();
        Arc::new(Self {
            shared: Arc::new(Shared {
                store,
                settings,
                state: Mutex::default(),
                ended: CancellationToken::new(),
            }),
            orders,
            unspawned: Mutex::new(Some(receiver)),
            opening: tokio::sync::Mutex::default(),
        })
    }

    pub(crate) fn store(&self) -> &Arc<dyn Store> {
        &self.shared.store
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.shared.settings
    }

    /// Gives everything back and ends the task. Every guard that is left is lost.
    pub(crate) async fn close(&self) -> Result<()> {
        if lock(&self.unspawned).take().is_some() {
            self.shared.lock().closed = true;
            self.shared.ended.cancel();
            return Ok(());
        }
        let (done, closed) = oneshot::channel();
        self.order(Order::Close(done));
        // A task that is gone has nothing left to give back.
        closed.await.unwrap_or(Ok(()))
    }

    /// Cancelled when everything was given back, after the last handle is gone.
    pub(crate) fn ended(&self) -> CancellationToken {
        self.shared.ended.clone()
    }

    fn order(&self, order: Order) {
        // Without a task (its runtime was shut down) nothing can be done; the TTL remains.
        let _ = self.orders.send(order);
    }

    /// Spawns the task on first use.
    fn ensure_task(&self) -> Result<()> {
        if self.is_closed(&self.shared.lock()) {
            return Err(self.closed());
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            let detail = "there is no tokio runtime; use leasehold::blocking outside of one";
            return Err(self.error(ErrorKind::Invalid, "use the client", detail));
        };
        if let Some(orders) = lock(&self.unspawned).take() {
            runtime.spawn(task::run(Arc::clone(&self.shared), orders));
        }
        Ok(())
    }

    fn is_closed(&self, state: &State) -> bool {
        state.closed || self.orders.is_closed()
    }

    fn closed(&self) -> Error {
        let detail = "it was closed, or the runtime that it was first used on was shut down; make \
                      a new client";
        self.error(ErrorKind::Invalid, "use the client", detail)
    }

    /// The open session; opens one if there is none.
    async fn open(&self) -> Result<Open> {
        self.ensure_task()?;
        if let Some(open) = self.shared.lock().open.clone() {
            return Ok(open);
        }
        let asked = clock::now();
        let mut failed = self.opening.lock().await;
        if let Some(open) = self.shared.lock().open.clone() {
            return Ok(open);
        }
        // Who waited for an attempt shares its error: each in turn would wait as long again.
        if let Some((_, error)) = failed.as_ref().filter(|(ended, _)| *ended >= asked) {
            return Err(error.clone());
        }
        let sent = clock::now();
        let opening = self.store().open(&self.settings().terms);
        let id = match self.shared.answered("open a session", opening).await {
            Ok(id) => id,
            Err(error) => {
                *failed = Some((clock::now(), error.clone()));
                return Err(error);
            }
        };
        let missing = self.settings().demand - self.store().guarantees().properties;
        if !missing.is_empty() {
            let _ = task::close(&self.shared, &id).await;
            let detail =
                format!("connected, the store turned out to lack what is demanded: {missing}");
            return Err(self.error(ErrorKind::Unsupported, "open a session", detail));
        }
        let open = Open { id, sent };
        if !self.adopt(&open) {
            // At worst it stays for its TTL, with nothing in it.
            let _ = task::close(&self.shared, &open.id).await;
            return Err(self.closed());
        }
        self.order(Order::Look);
        Ok(open)
    }

    /// Makes a session the open one, unless the client was closed while the store opened it:
    /// without the task nobody would renew it, nor signal a loss.
    fn adopt(&self, open: &Open) -> bool {
        let mut state = self.shared.lock();
        let adopted = !self.is_closed(&state);
        if adopted {
            state.open = Some(open.clone());
        }
        adopted
    }

    /// Registers a claim, so that it is renewed from the moment the store acknowledges it.
    fn register(&self, claim: Claim, open: &Open) -> Arc<Entry> {
        // Under a session's lease a claim lasts as long as the session does; under one of its own
        // it has nothing until its `enter` is acknowledged.
        let sent = match self.store().guarantees().lease {
            LeaseScope::Session => open.sent,
            LeaseScope::Claim => Moment::ORIGIN,
        };
        let entry = Arc::new(Entry::new(claim, open.id.clone(), sent, self.settings().timing));
        let mut state = self.shared.lock();
        if let Some(current) = state.open.as_ref().filter(|current| current.id == open.id) {
            if self.store().guarantees().lease == LeaseScope::Session {
                // A renewal may have been acknowledged since the caller looked.
                entry.extend(current.sent);
            }
        } else {
            entry.lose();
        }
        state.entries.insert(Arc::clone(&entry));
        drop(state);
        entry
    }

    /// Gives up a claim in the background.
    pub(crate) fn leave_later(&self, entry: &Arc<Entry>) {
        self.shared.lock().entries.remove(&entry.claim.id);
        self.order(Order::Leave(Arc::clone(entry)));
    }

    /// Takes a claim out of the renewals without leaving it: it lives to its TTL.
    pub(crate) fn detach(&self, entry: &Entry) {
        let mut state = self.shared.lock();
        state.entries.remove(&entry.claim.id);
        state.detached = true;
    }

    /// Takes a claim out of the renewals and asks the store once to end it.
    pub(crate) async fn leave(&self, entry: &Entry) -> Result<Left> {
        // Out of the roll first: a renewal in flight may then report it lost, and nobody listens.
        self.shared.lock().entries.remove(&entry.claim.id);
        let leaving = self.store().leave(&entry.session, &entry.claim);
        self.shared
            .answered_soon("release", leaving)
            .await
            .map_err(|error| error.about(&entry.claim.key))
    }

    /// Waits for an answer that is asked for again when it does not come.
    pub(crate) async fn answered_soon<T>(
        &self,
        attempt: &'static str,
        request: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        self.shared.answered_soon(attempt, request).await
    }

    /// Waits for an answer of the store no longer than it could be of use.
    pub(crate) async fn answered<T>(
        &self,
        attempt: &'static str,
        request: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        self.shared.answered(attempt, request).await
    }

    /// The store said that it does not know a hold any more.
    pub(crate) fn lost(&self, entry: &Entry) {
        self.shared.lock().entries.remove(&entry.claim.id);
        entry.lose();
    }

    /// Asks the task for a renewal and waits until it was tried.
    async fn renew_now(&self) {
        let (done, renewed) = oneshot::channel();
        self.order(Order::Renew(done));
        let _ = renewed.await;
    }

    pub(crate) fn error(
        &self,
        kind: ErrorKind,
        attempt: &'static str,
        detail: impl Into<String>,
    ) -> Error {
        Error::new(kind, attempt, detail).at(self.store())
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if lock(&self.unspawned).is_some() {
            self.shared.ended.cancel();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Waits for an answer of the store no longer than it could be of use.
    async fn answered<T>(
        &self,
        attempt: &'static str,
        request: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        self.answered_within(self.settings.timing.ttl(), attempt, request).await
    }

    /// The same for a request that has to be repeated in time when it hangs: given up after half
    /// a renewal interval.
    async fn answered_soon<T>(
        &self,
        attempt: &'static str,
        request: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        self.answered_within(self.settings.timing.renew_every() / 2, attempt, request).await
    }

    async fn answered_within<T>(
        &self,
        limit: Duration,
        attempt: &'static str,
        request: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        tokio::time::timeout(limit, request).await.unwrap_or_else(|_| {
            let detail = format!("no answer within {limit:?}");
            let error = Error::new(ErrorKind::Unavailable, attempt, detail);
            Err(error.at(&self.store).outcome_unknown())
        })
    }

    /// Whether the holder is a claim of the very task that asks.
    fn is_of_this_task(&self, ahead: &Ahead) -> bool {
        let holder = ahead.holder.as_ref().and_then(|holder| holder.claim);
        let task = holder.and_then(|claim| self.lock().entries.get(&claim)?.task);
        task.is_some() && task == tokio::task::try_id()
    }

    /// Whether `session` is the open one, so that it is being renewed.
    fn goes_on(&self, session: &SessionId) -> bool {
        self.lock().open.as_ref().is_some_and(|open| open.id == *session)
    }

    /// Forgets a session that the store no longer knows, and loses its claims.
    fn end(&self, session: &SessionId) {
        let mut state = self.lock();
        if state.open.as_ref().is_some_and(|open| open.id == *session) {
            state.open = None;
        }
        let ended = state.entries.extract(|entry| entry.session == *session);
        for entry in &ended {
            entry.lose();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No code that can panic runs while one of these is held.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
