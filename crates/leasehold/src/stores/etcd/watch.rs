//! All watches of one store handle, on one stream that resumes where it broke off.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use futures::channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded};
use futures::stream::StreamExt;
use leasehold_core::backoff::Backoff;
use leasehold_core::{Claim, SessionId};

use super::layout::LeaseId;
use super::proto::{
    Event, EventKind, Filter, KeyValue, WatchCancel, WatchCreate, WatchOrder, WatchRequest,
    WatchResponse,
};
use super::wire::{Failure, Wire, next};
use crate::random;

/// The waits between two attempts to open the stream again.
const BACKOFF: Duration = Duration::from_millis(20);
const BACKOFF_CAP: Duration = Duration::from_secs(2);

/// Who is to be told of what.
#[derive(Debug, Clone)]
pub(super) enum Purpose {
    /// The end of a contender ahead of this claim, whose key was created at `created`. `first`
    /// as in [`super::judge::Watch::Next`]; `None` where an end is but a hint, and fewer units are
    /// one, too.
    Turn { session: SessionId, claim: Arc<Claim>, created: i64, first: Option<bool> },
    /// Any change of a session's key.
    Session(LeaseId),
}

/// One watch.
#[derive(Debug, Clone)]
pub(super) struct Registration {
    pub(super) key: Vec<u8>,
    /// Empty: only `key`.
    pub(super) end: Vec<u8>,
    /// The first revision that was not seen yet.
    pub(super) from: i64,
    pub(super) purpose: Purpose,
}

/// What a watch saw.
#[derive(Debug)]
pub(super) enum Seen {
    Put {
        now: KeyValue,
        before: Option<KeyValue>,
    },
    Deleted {
        revision: i64,
        before: Option<KeyValue>,
    },
    /// Something, which the server no longer remembers.
    Gap,
}

/// Who is told what watches see.
pub(super) trait Listener: Send + Sync + 'static {
    fn seen(self: Arc<Self>, purpose: &Purpose, seen: Seen);
}

#[derive(Debug, Default)]
pub(super) struct Watches {
    table: Mutex<HashMap<i64, Registration>>,
    last: AtomicI64,
    /// Whether the stream is open, so that messages come as soon as there are any.
    live: AtomicBool,
    orders: Mutex<Option<UnboundedSender<Order>>>,
}

#[derive(Debug, Clone, Copy)]
enum Order {
    Create(i64),
    Cancel(i64),
}

impl Watches {
    /// Begins to watch. The stream's task starts with the first watch, and anew if the runtime
    /// that it ran on is gone.
    pub(super) fn watch<L: Listener>(
        self: &Arc<Self>,
        registration: Registration,
        wire: &Arc<Wire>,
        listener: &Arc<L>,
    ) -> i64 {
        let id = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        lock(&self.table).insert(id, registration);
        let mut orders = lock(&self.orders);
        let sender = orders.take().filter(|orders| !orders.is_closed()).unwrap_or_else(|| {
            let (sender, receiver) = unbounded();
            let task = Task {
                watches: Arc::clone(self),
                wire: Arc::clone(wire),
                listener: Arc::downgrade(listener),
                orders: receiver,
            };
            tokio::spawn(task.run());
            sender
        });
        // A task that ended in between left the registration to the next one.
        let _ = sender.unbounded_send(Order::Create(id));
        *orders = Some(sender);
        id
    }

    pub(super) fn cancel(&self, ids: Vec<i64>) {
        for id in ids {
            if lock(&self.table).remove(&id).is_some()
                && let Some(orders) = &*lock(&self.orders)
            {
                let _ = orders.unbounded_send(Order::Cancel(id));
            }
        }
    }

    /// Whether messages come as soon as there are any.
    pub(super) fn is_live(&self) -> bool {
        self.live.load(Ordering::Acquire)
    }

    /// Ends the task.
    pub(super) fn close(&self) {
        *lock(&self.orders) = None;
    }
}

/// Why a stream ended.
enum End {
    /// The handle is gone.
    Closed,
    /// The stream broke, after it had worked.
    Broken,
    /// It never worked.
    Failed,
}

struct Task<L> {
    watches: Arc<Watches>,
    wire: Arc<Wire>,
    listener: Weak<L>,
    orders: UnboundedReceiver<Order>,
}

impl<L: Listener> Task<L> {
    async fn run(mut self) {
        let mut backoff = Backoff::new(BACKOFF, BACKOFF_CAP, random::seed().unwrap_or_default());
        loop {
            while lock(&self.watches.table).is_empty() {
                if self.orders.next().await.is_none() {
                    return;
                }
            }
            let end = self.stream().await;
            self.watches.live.store(false, Ordering::Release);
            match end {
                End::Closed => return,
                End::Broken => backoff.reset(),
                End::Failed => {}
            }
            let pause = tokio::time::sleep(backoff.next_wait());
            tokio::pin!(pause);
            loop {
                tokio::select! {
                    () = &mut pause => break,
                    // What was ordered is in the table.
                    order = self.orders.next() => if order.is_none() { return },
                }
            }
        }
    }

    /// Opens a stream at the preferred member with all watches, and listens until it ends.
    async fn stream(&mut self) -> End {
        let at = self.wire.preferred();
        let (up, requests) = unbounded();
        let mut created: HashSet<i64> = HashSet::new();
        for (id, registration) in lock(&self.watches.table).iter() {
            created.insert(*id);
            let _ = up.unbounded_send(create(*id, registration));
        }
        let mut down = match self.wire.watch(at, requests).await {
            Ok(down) => down,
            Err(failure) => return self.failed(at, &failure),
        };
        self.watches.live.store(true, Ordering::Release);
        loop {
            tokio::select! {
                order = self.orders.next() => match order {
                    Some(order) => self.obey(order, &up, &mut created),
                    None => return End::Closed,
                },
                message = next(&mut down) => match message {
                    Ok(message) => if !self.hear(message, &up) { return End::Failed },
                    Err(failure) => { self.failed(at, &failure); return End::Broken; }
                },
                () = self.wire.moved_from(at) => return End::Broken,
            }
        }
    }

    fn failed(&self, at: usize, failure: &Failure) -> End {
        match failure {
            Failure::Token(_) => self.wire.forget_token(),
            Failure::Member { source, .. } => {
                tracing::debug!(error = %source, "the stream of watches broke; resuming");
                self.wire.turn_from(at);
            }
            Failure::Refused { detail, source, .. } => {
                tracing::warn!(error = %source, "no wake-ups from etcd: {detail}");
                self.wire.turn_from(at);
            }
        }
        End::Failed
    }

    fn obey(&self, order: Order, up: &UnboundedSender<WatchRequest>, created: &mut HashSet<i64>) {
        let request = match order {
            Order::Create(id) => {
                let table = lock(&self.watches.table);
                table.get(&id).filter(|_| created.insert(id)).map(|entry| create(id, entry))
            }
            Order::Cancel(id) => created.remove(&id).then(|| {
                let order = WatchOrder::Cancel(WatchCancel { watch_id: id });
                WatchRequest { order: Some(order) }
            }),
        };
        if let Some(request) = request {
            // A stream that is closed meanwhile is opened again with all that is in the table.
            let _ = up.unbounded_send(request);
        }
    }

    /// Passes on what a message says; `false` when the stream is of no use.
    fn hear(&self, message: WatchResponse, up: &UnboundedSender<WatchRequest>) -> bool {
        let id = message.watch_id;
        let revision = message.header.map_or(0, |header| header.revision);
        let mut table = lock(&self.watches.table);
        // It was cancelled, and that has not reached the server yet.
        let Some(registration) = table.get_mut(&id) else { return true };
        if message.canceled {
            if message.compact_revision == 0 {
                // Not permitted: with the token of a stream that is about to be replaced.
                tracing::warn!(reason = message.cancel_reason, "etcd refuses a watch");
                self.wire.forget_token();
                return false;
            }
            registration.from = message.compact_revision;
            let again = create(id, registration);
            let purpose = registration.purpose.clone();
            drop(table);
            let _ = up.unbounded_send(again);
            self.tell(&purpose, Seen::Gap);
            return true;
        }
        let last = message.events.iter().filter_map(|event| event.kv.as_ref());
        let last = last.map(|kv| kv.mod_revision).max();
        if let Some(seen) = last.or_else(|| (!message.created).then_some(revision)) {
            registration.from = registration.from.max(seen + 1);
        }
        let purpose = registration.purpose.clone();
        drop(table);
        for event in message.events {
            self.pass_on(&purpose, event);
        }
        true
    }

    fn pass_on(&self, purpose: &Purpose, event: Event) {
        let Some(kv) = event.kv else { return };
        let seen = if event.kind == i32::from(EventKind::Delete) {
            Seen::Deleted { revision: kv.mod_revision, before: event.prev_kv }
        } else {
            Seen::Put { now: kv, before: event.prev_kv }
        };
        self.tell(purpose, seen);
    }

    fn tell(&self, purpose: &Purpose, seen: Seen) {
        if let Some(listener) = self.listener.upgrade() {
            listener.seen(purpose, seen);
        }
    }
}

fn create(id: i64, registration: &Registration) -> WatchRequest {
    let turn = matches!(registration.purpose, Purpose::Turn { .. });
    // An exclusive claim is let in by nothing but an end.
    let deaf = matches!(registration.purpose, Purpose::Turn { first: Some(_), .. });
    let order = WatchOrder::Create(WatchCreate {
        key: registration.key.clone(),
        range_end: registration.end.clone(),
        start_revision: registration.from,
        // Now and then the server says how far it is, so that an idle watch is not compacted away.
        progress_notify: true,
        filters: if deaf { vec![Filter::NoPut.into()] } else { Vec::new() },
        prev_kv: turn,
        watch_id: id,
    });
    WatchRequest { order: Some(order) }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No code that can panic runs while one of these is held.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
