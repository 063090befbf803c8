//! The one connection that a store handle shares: made when first needed, replaced when it ends.

use std::collections::HashSet;
use std::fmt;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use leasehold_core::backoff::Backoff;
use tokio_util::task::AbortOnDropHandle;

use super::config::{Address, Config, Place};
use super::failure::Failure;
use super::sentinel;
use super::wire::{Heard, Partner, Wire};
use crate::error::ErrorKind;
use crate::random;

/// The waits between attempts to reconnect in the background.
const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// Who hears what the server publishes.
pub(in crate::stores) trait Listener: fmt::Debug + Send + Sync + 'static {
    /// The names of all channels to subscribe to.
    fn channels(&self) -> HashSet<String>;

    /// Takes in a message of the server.
    fn message(&self, channel: &[u8], text: &[u8]);

    /// The server will say nothing more on a channel, although the connection goes on.
    fn unsubscribed(&self, channel: &[u8]);

    /// The connection ended. Nothing is heard until there is another.
    fn ended(&self);

    /// Another connection was made: whatever was published in between is lost.
    fn reconnected(&self);
}

/// The connection of a store handle. A request waits for it no longer than the time-out; in the
/// background it is sought without end, as long as there is a session that messages may come for.
#[derive(Debug)]
pub(in crate::stores) struct Connection {
    config: Config,
    inbox: Arc<dyn Listener>,
    current: Mutex<Current>,
    /// Held while connecting, so that many requests make one connection.
    connecting: tokio::sync::Mutex<()>,
    made: AtomicU64,
}

#[derive(Debug, Default)]
struct Current {
    live: Option<Arc<Live>>,
    /// The last one that ended: it may do so before it is put into `live`.
    ended: Option<u64>,
}

/// A connection that works, as far as anybody knows.
#[derive(Debug)]
pub(in crate::stores) struct Live {
    pub(in crate::stores) wire: Wire,
    number: u64,
    /// As the server confirmed them, in the order in which it did.
    subscribed: Arc<Mutex<HashSet<Vec<u8>>>>,
    /// Ends with the connection.
    _watch: Option<AbortOnDropHandle<()>>,
}

impl Live {
    /// Subscribes to a channel, once. Whether it was not subscribed to before.
    pub(in crate::stores) async fn subscribe(&self, channel: &str) -> Result<bool, Failure> {
        let known = lock(&self.subscribed).contains(channel.as_bytes());
        if !known {
            self.wire.subscribe(channel).await?;
        }
        Ok(!known)
    }

    pub(in crate::stores) async fn unsubscribe(&self, channel: &str) -> Result<(), Failure> {
        self.wire.unsubscribe(channel).await
    }
}

impl Connection {
    pub(in crate::stores) fn new(config: Config, inbox: Arc<dyn Listener>) -> Arc<Self> {
        Arc::new(Self {
            config,
            inbox,
            current: Mutex::default(),
            connecting: tokio::sync::Mutex::default(),
            made: AtomicU64::new(0),
        })
    }

    pub(in crate::stores) fn config(&self) -> &Config {
        &self.config
    }

    /// Does `request` with the connection, within the time-out.
    pub(in crate::stores) async fn request<T, F>(
        self: &Arc<Self>,
        request: impl FnOnce(Arc<Live>) -> F,
    ) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        self.request_within(self.config.timeout, request).await
    }

    /// Does `request` with the connection, within `limit`.
    pub(super) async fn request_within<T, F>(
        self: &Arc<Self>,
        limit: Duration,
        request: impl FnOnce(Arc<Live>) -> F,
    ) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let mut used = None;
        let whole = async {
            let live = self.live().await?;
            used = Some(live.number);
            request(live).await
        };
        let outcome = tokio::time::timeout(limit, whole).await;
        let outcome = outcome.unwrap_or_else(|_| Err(self.timed_out(limit, used)));
        if let (Some(number), Err(failure)) = (used, &outcome)
            && failure.is_end_of_connection()
        {
            // Its task cannot say so if it went down with its runtime.
            self.ended(number);
        }
        outcome
    }

    /// A server that does not answer on a connection may never again: a firewall that forgot it
    /// says nothing. The next request makes another.
    fn timed_out(self: &Arc<Self>, limit: Duration, used: Option<u64>) -> Failure {
        let detail = format!("no answer within {limit:?}");
        let failure = Failure::new(ErrorKind::Unavailable, detail);
        match used {
            None => failure,
            Some(number) => {
                self.ended(number);
                failure.outcome_unknown()
            }
        }
    }

    /// The live connection; makes one if there is none.
    async fn live(self: &Arc<Self>) -> Result<Arc<Live>, Failure> {
        if let Some(live) = lock(&self.current).live.clone() {
            return Ok(live);
        }
        let _connecting = self.connecting.lock().await;
        if let Some(live) = lock(&self.current).live.clone() {
            return Ok(live);
        }
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        let channels: Vec<String> = self.inbox.channels().into_iter().collect();
        let inbox = Arc::clone(&self.inbox);
        let connection = Arc::downgrade(self);
        let primary = match &self.config.place {
            Place::At(_) | Place::Node(_) | Place::Cluster(_) => None,
            // A sentinel that does not answer leaves time to speak to the server.
            Place::Primary(sentinels) => {
                Some(sentinel::primary(sentinels, self.config.timeout / 2).await?)
            }
        };
        let partner = match (&self.config.place, &primary) {
            (_, Some(primary)) => Partner::Primary(primary),
            (Place::Node(_), None) => Partner::Node,
            (_, None) => Partner::Server,
        };
        let subscribed = Arc::new(Mutex::new(HashSet::new()));
        let confirmed = Arc::clone(&subscribed);
        let wire = Wire::connect(
            &self.config,
            partner,
            &channels,
            move |heard| match heard {
                Heard::Message { channel, text } => inbox.message(channel, text),
                Heard::Subscribed(channel) => {
                    lock(&confirmed).insert(channel.to_owned());
                }
                Heard::Unsubscribed(channel) => {
                    lock(&confirmed).remove(channel);
                    inbox.unsubscribed(channel);
                }
            },
            move || {
                if let Some(connection) = connection.upgrade() {
                    connection.ended(number);
                }
            },
        )
        .await?;
        let watch = primary.map(|primary| self.leave_when_moved(number, primary));
        let live = Arc::new(Live { wire, number, subscribed, _watch: watch });
        let mut current = lock(&self.current);
        if current.ended != Some(number) {
            current.live = Some(Arc::clone(&live));
        }
        drop(current);
        if number > 0 {
            // Whatever was published in between is lost.
            self.inbox.reconnected();
        }
        Ok(live)
    }

    /// Leaves the server when the sentinels name another. It may still run, cut off from them and from
    /// the rest of the world, and grant what the new primary grants too.
    fn leave_when_moved(self: &Arc<Self>, number: u64, primary: Address) -> AbortOnDropHandle<()> {
        let (connection, config) = (Arc::downgrade(self), self.config.clone());
        AbortOnDropHandle::new(tokio::spawn(async move {
            let Place::Primary(sentinels) = &config.place else { return };
            sentinel::moved(sentinels, &primary, config.timeout / 2).await;
            if let Some(connection) = connection.upgrade() {
                connection.ended(number);
            }
        }))
    }

    /// Takes the connection away from the requests to come, and seeks another in the background.
    fn ended(self: &Arc<Self>, number: u64) {
        let mut current = lock(&self.current);
        current.ended = current.ended.max(Some(number));
        let ended = current.live.take_if(|live| live.number == number);
        drop(current);
        if ended.is_none() {
            return;
        }
        self.inbox.ended();
        if self.inbox.channels().is_empty() {
            return;
        }
        tracing::info!(store = %self.config, "the connection ended; connecting again");
        let connection = Arc::downgrade(self);
        tokio::spawn(async move {
            let mut backoff = Backoff::new(RETRY.0, RETRY.1, random::seed().unwrap_or(number));
            loop {
                let Some(connection) = connection.upgrade() else { return };
                if connection.inbox.channels().is_empty()
                    || connection.request(|_| async { Ok(()) }).await.is_ok()
                {
                    return;
                }
                drop(connection);
                tokio::time::sleep(backoff.next_wait()).await;
            }
        });
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while these locks are held.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
