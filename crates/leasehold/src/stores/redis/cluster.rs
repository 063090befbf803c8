//! The nodes of a cluster: which of them serves a slot, and how it is followed when that changes.
//!
//! Each node has two connections, made when first needed: one for requests, and one to listen. They
//! are apart because a node ends subscriptions by itself when it gives their slot away, and the driver
//! would take that message for the answer to a request.

use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt};
use leasehold_core::Moment;
use leasehold_core::backoff::Backoff;
use leasehold_core::quorum::majority;

use super::config::{Address, Config};
use super::connection::{Connection, Listener, Live};
use super::failure::{Destination, Failure, Redirect};
use super::inbox::Inbox;
use super::servers::Visit;
use super::topology::Topology;
use crate::clock;
use crate::error::ErrorKind;
use crate::random;

/// The waits between two attempts while a slot is moved, or nodes disagree.
const AGAIN: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(100));

/// The waits between attempts to listen again, and the shortest time between two looks at who
/// serves what.
const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// A cluster, as one store handle knows it.
#[derive(Debug)]
pub(super) struct Cluster {
    config: Config,
    /// Those that the URL names.
    seeds: Vec<Destination>,
    inbox: Arc<Inbox>,
    state: Mutex<State>,
    /// Held while asking who serves what.
    asking: tokio::sync::Mutex<()>,
    /// Somebody will ask.
    refreshing: AtomicBool,
    /// Somebody sees to it that the sessions are listened for.
    listening: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    topology: Option<Topology>,
    /// Grows with each look at who serves what.
    looks: u64,
    nodes: HashMap<(String, u16), Node>,
}

#[derive(Debug, Clone)]
struct Node {
    /// For requests.
    requests: Arc<Connection>,
    /// For subscriptions only.
    messages: Arc<Connection>,
}

/// What a node is wanted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    Requests,
    Messages,
}

impl Cluster {
    pub(super) fn new(config: Config, seeds: &[Address], inbox: Arc<Inbox>) -> Arc<Self> {
        let seed = |address: &Address| match address {
            Address::Tcp { host, port, .. } => {
                Some(Destination { host: host.clone(), port: *port })
            }
            Address::Unix(_) => None,
        };
        let seeds = seeds.iter().filter_map(seed).collect();
        Arc::new(Self {
            config,
            seeds,
            inbox,
            state: Mutex::default(),
            asking: tokio::sync::Mutex::default(),
            refreshing: AtomicBool::new(false),
            listening: AtomicBool::new(false),
        })
    }

    pub(super) fn config(&self) -> &Config {
        &self.config
    }

    /// Does `request` at the node that serves a slot, within the time-out. It is done again elsewhere,
    /// or there again, only when the node said that it did not do it.
    pub(super) async fn request<T, F>(
        self: &Arc<Self>,
        purpose: Purpose,
        slot: u16,
        request: impl Fn(Visit) -> F,
    ) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let timeout = self.config.timeout;
        let until = clock::now() + timeout;
        let mut backoff = Backoff::new(AGAIN.0, AGAIN.1, random::seed().unwrap_or_default());
        let (mut there, mut turns) = (None, 0);
        loop {
            let asking = there.is_some();
            let at = match there.take() {
                Some(there) => there,
                None => self.serving(slot, until).await?,
            };
            let left = until.since(clock::now());
            let node = self.node(&at).for_purpose(purpose);
            let outcome =
                node.request_within(left, |live: Arc<Live>| request(Visit { live, asking })).await;
            let failure = match outcome {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            match failure.redirect() {
                Some(Redirect::Moved(to)) => self.moved(slot, to, &at),
                Some(Redirect::Ask(to)) if !asking => there = Some(beside(to, &at)),
                Some(_) => {}
                None if failure.is_unavailable() => {
                    if turns > 0
                        || !failure.had_no_effect()
                        || !self.replaced(&at, slot, until).await
                    {
                        self.refresh_soon();
                        return Err(failure);
                    }
                }
                None => return Err(failure),
            }
            turns += 1;
            // To follow is quick; to be sent around means that something goes on which takes time.
            if turns > 1 && there.is_none() {
                let pause = backoff.next_wait();
                // With too little left a node that is well would seem not to answer.
                if clock::now() + pause + timeout / 4 > until {
                    return Err(failure);
                }
                tokio::time::sleep(pause).await;
            }
        }
    }

    /// Whether a node that is of no use has been replaced, by what the others say now.
    async fn replaced(self: &Arc<Self>, node: &Destination, slot: u16, until: Moment) -> bool {
        let left = until.since(clock::now());
        let refreshed = tokio::time::timeout(left, self.refresh()).await;
        let serving =
            |state: &State| state.topology.as_ref()?.serving(slot).map(|serving| serving != node);
        matches!(refreshed, Ok(Ok(()))) && serving(&lock(&self.state)).unwrap_or(false)
    }

    /// The node that serves a slot, as far as it is known; asks if it is not.
    async fn serving(self: &Arc<Self>, slot: u16, until: Moment) -> Result<Destination, Failure> {
        let known = || lock(&self.state).topology.as_ref()?.serving(slot).cloned();
        if let Some(node) = known() {
            return Ok(node);
        }
        let left = until.since(clock::now());
        tokio::time::timeout(left, self.refresh()).await.unwrap_or_else(|_| {
            let detail = format!("no node of the cluster answered within {left:?}");
            Err(Failure::new(ErrorKind::Unavailable, detail))
        })?;
        known().ok_or_else(|| {
            let detail = format!(
                "no node of the cluster serves slot {slot}; see `redis-cli --cluster check`"
            );
            Failure::new(ErrorKind::Unavailable, detail)
        })
    }

    /// The connections for requests to all who serve slots.
    pub(super) async fn primaries(self: &Arc<Self>) -> Result<Vec<Arc<Connection>>, Failure> {
        self.refresh().await?;
        let primaries = lock(&self.state).topology.as_ref().map(Topology::primaries);
        let primaries = primaries.unwrap_or_default();
        Ok(primaries.iter().map(|node| self.node(node).requests).collect())
    }

    fn moved(self: &Arc<Self>, slot: u16, to: &Destination, from: &Destination) {
        if let Some(topology) = &mut lock(&self.state).topology {
            topology.moved(slot, beside(to, from));
        }
        // Where one slot went, others did too.
        self.refresh_soon();
    }

    /// Asks who serves what, unless somebody else has since this was called.
    ///
    /// All known nodes are asked at once. The newest answer counts as soon as a majority has answered;
    /// without one, whatever came within half of the time-out.
    pub(super) async fn refresh(self: &Arc<Self>) -> Result<(), Failure> {
        let looks = lock(&self.state).looks;
        let _turn = self.asking.lock().await;
        if lock(&self.state).looks != looks {
            return Ok(());
        }
        let patience = self.config.timeout / 2;
        let known = self.known_nodes();
        let asked = known.iter().map(async |at| {
            let node = self.node(at).requests;
            let topology = node.request_within(patience, async |live| live.wire.topology().await);
            topology.await.map(|topology| topology.asked_at(&at.host))
        });
        let mut asked: FuturesUnordered<_> = asked.collect();
        let (mut newest, mut answers, mut failure) = (None::<Topology>, 0, None);
        while answers < majority(known.len())
            && let Some(answer) = asked.next().await
        {
            match answer {
                Ok(topology) => {
                    answers += 1;
                    if newest.as_ref().is_none_or(|newest| topology.is_newer_than(newest)) {
                        newest = Some(topology);
                    }
                }
                Err(why) => failure = Some(why),
            }
        }
        match (newest, failure) {
            (Some(newest), _) => self.adopt(newest),
            (None, Some(failure)) => {
                return Err(failure.of("no node of the cluster could tell who serves what"));
            }
            (None, None) => {}
        }
        Ok(())
    }

    /// Those that the URL names and those that serve slots.
    fn known_nodes(&self) -> Vec<Destination> {
        let mut known = self.seeds.clone();
        let primaries = lock(&self.state).topology.as_ref().map(Topology::primaries);
        for node in primaries.unwrap_or_default() {
            if !known.contains(&node) {
                known.push(node);
            }
        }
        known
    }

    /// Believes an answer, and leaves the nodes that serve nothing (any more).
    fn adopt(&self, topology: Topology) {
        let primaries = topology.primaries();
        let mut state = lock(&self.state);
        state.looks += 1;
        state.topology = Some(topology);
        let left: Vec<Node> = state
            .nodes
            .extract_if(|(host, port), _| {
                let is = |node: &Destination| node.host == *host && node.port == *port;
                !primaries.iter().any(is) && !self.seeds.iter().any(is)
            })
            .map(|(_, node)| node)
            .collect();
        drop(state);
        if !left.is_empty() {
            // What they would have said is not heard any more.
            self.inbox.reconnected();
        }
    }

    /// Asks who serves what in the background: a node failed, or sent somebody elsewhere.
    fn refresh_soon(self: &Arc<Self>) {
        if self.refreshing.swap(true, Ordering::AcqRel) {
            return;
        }
        let cluster = Arc::clone(self);
        tokio::spawn(async move {
            if let Err(failure) = cluster.refresh().await {
                tracing::debug!(?failure, store = %cluster.config, "who serves what is not known");
            }
            // Many may fail at once, and while a node is away all that are for it do.
            tokio::time::sleep(RETRY.0).await;
            cluster.refreshing.store(false, Ordering::Release);
        });
    }

    /// Listens to the channels of the sessions again, in the background and as long as there are any.
    fn listen_again(self: &Arc<Self>) {
        if self.listening.swap(true, Ordering::AcqRel) {
            return;
        }
        let cluster = Arc::downgrade(self);
        tokio::spawn(async move {
            let mut backoff = Backoff::new(RETRY.0, RETRY.1, random::seed().unwrap_or_default());
            loop {
                tokio::time::sleep(backoff.next_wait()).await;
                let Some(cluster) = cluster.upgrade() else { return };
                // Before the look: an end from now on begins another round.
                cluster.listening.store(false, Ordering::Release);
                let channels = cluster.inbox.channels();
                let listening = channels.iter().map(|channel| cluster.hear(channel));
                let heard = futures::future::join_all(listening).await;
                // One that refuses to be listened to will do so again.
                let done = |heard: &Result<bool, Failure>| {
                    heard.as_ref().err().is_none_or(|failure| !failure.is_unavailable())
                };
                if heard.iter().all(done) || cluster.listening.swap(true, Ordering::AcqRel) {
                    return;
                }
            }
        });
    }

    /// Finds out who serves what, and listens to the channel of a session. That one is in some slot: a
    /// node that is away keeps nobody from the keys of the others.
    pub(super) async fn begin(self: &Arc<Self>, channel: &str) -> Result<(), Failure> {
        let timeout = self.config.timeout;
        self.serving(super::keys::slot(channel), clock::now() + timeout).await?;
        match tokio::time::timeout(timeout / 4, self.hear(channel)).await {
            Ok(Err(failure)) if !failure.is_unavailable() && !failure.is_unsupported() => {
                return Err(failure);
            }
            Ok(Ok(_)) => {}
            heard => {
                tracing::debug!(?heard, store = %self.config, "nobody to listen to yet");
                self.listen_again();
            }
        }
        Ok(())
    }

    /// Listens to a channel where it is published. Whether nobody did before.
    pub(super) async fn hear(self: &Arc<Self>, channel: &str) -> Result<bool, Failure> {
        let slot = super::keys::slot(channel);
        let hear = self.request(Purpose::Messages, slot, async |visit: Visit| {
            visit.live.subscribe(channel).await
        });
        hear.await
    }

    /// Listens no more.
    pub(super) async fn unhear(self: &Arc<Self>, channel: &str) -> Result<(), Failure> {
        let slot = super::keys::slot(channel);
        let unhear = self.request(Purpose::Messages, slot, async |visit: Visit| {
            visit.live.unsubscribe(channel).await
        });
        unhear.await
    }

    fn node(self: &Arc<Self>, at: &Destination) -> Node {
        let mut state = lock(&self.state);
        let node = state.nodes.entry((at.host.clone(), at.port)).or_insert_with(|| {
            let listener =
                Arc::new(AtNode { cluster: Arc::downgrade(self), inbox: Arc::clone(&self.inbox) });
            let config = self.config.at_node(&at.host, at.port);
            Node {
                requests: Connection::new(config.clone(), listener.clone()),
                messages: Connection::new(config, listener),
            }
        });
        node.clone()
    }
}

impl Node {
    fn for_purpose(self, purpose: Purpose) -> Arc<Connection> {
        match purpose {
            Purpose::Requests => self.requests,
            Purpose::Messages => self.messages,
        }
    }
}

/// A node that was named by `from`, which may mean itself.
fn beside(to: &Destination, from: &Destination) -> Destination {
    let mut to = to.clone();
    to.fill_in(&from.host);
    to
}

/// Who hears what a node says.
#[derive(Debug)]
struct AtNode {
    cluster: Weak<Cluster>,
    inbox: Arc<Inbox>,
}

impl Listener for AtNode {
    /// None: who serves them may be another by then.
    fn channels(&self) -> HashSet<String> {
        HashSet::new()
    }

    fn message(&self, channel: &[u8], text: &[u8]) {
        self.inbox.message(channel, text);
    }

    fn unsubscribed(&self, channel: &[u8]) {
        self.inbox.unsubscribed(channel);
        self.listen_again();
    }

    /// The node may be gone for good, so nobody waits until it is back: the holders ask whoever serves
    /// their keys, and so do those who wait.
    fn ended(&self) {
        self.inbox.reconnected();
        self.listen_again();
    }

    fn reconnected(&self) {}
}

impl AtNode {
    fn listen_again(&self) {
        if let Some(cluster) = self.cluster.upgrade() {
            cluster.listen_again();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while the lock is held.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
