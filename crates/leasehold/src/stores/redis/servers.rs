//! The servers behind a store, and which of them a request is for: the one there is, or in a cluster
//! the one that serves the slot of the key.

use std::future::Future;
use std::sync::Arc;

use ::redis::{ToRedisArgs, Value};
use leasehold_core::{Claim, Key};

use super::cluster::{Cluster, Purpose};
use super::config::{Config, Place};
use super::connection::{Connection, Live};
use super::failure::Failure;
use super::inbox::{Inbox, channel_name};
use super::keys;
use super::scripts::Script;
use super::session::Session;

/// About a millisecond of the server's time.
pub(super) const RENEW_BATCH: usize = 256;

#[derive(Debug)]
pub(super) enum Servers {
    One(Arc<Connection>),
    Many(Arc<Cluster>),
}

/// A connection to the right server, for one request.
#[derive(Debug)]
pub(super) struct Visit {
    pub(super) live: Arc<Live>,
    /// The server is only about to be the right one, and has to be told that the sender knows it.
    pub(super) asking: bool,
}

impl Visit {
    pub(super) async fn run(
        &self,
        script: &Script,
        keys: &[String],
        arguments: &[impl ToRedisArgs],
    ) -> Result<Value, Failure> {
        if self.asking {
            self.live.wire.run_there(script, keys, arguments).await
        } else {
            self.live.wire.run(script, keys, arguments).await
        }
    }
}

/// Whether a claim in line will be told when its turn has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ear {
    /// From now on. What was said before is not known.
    New,
    /// It was so before.
    Open,
    /// It will not.
    Deaf,
}

impl Servers {
    pub(super) fn new(config: Config, inbox: &Arc<Inbox>) -> Self {
        match &config.place {
            Place::Cluster(seeds) => {
                let seeds = seeds.clone();
                Self::Many(Cluster::new(config, &seeds, Arc::clone(inbox)))
            }
            _ => Self::One(Connection::new(config, inbox.clone())),
        }
    }

    pub(super) fn config(&self) -> &Config {
        match self {
            Self::One(connection) => connection.config(),
            Self::Many(cluster) => cluster.config(),
        }
    }

    /// Does `request` at the server that has what is called `name`, within the time-out.
    pub(super) async fn request<T, F>(
        &self,
        name: &str,
        request: impl Fn(Visit) -> F,
    ) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        match self {
            Self::One(connection) => {
                connection.request(|live| request(Visit { live, asking: false })).await
            }
            Self::Many(cluster) => {
                cluster.request(Purpose::Requests, keys::slot(name), request).await
            }
        }
    }

    /// All servers that grant locks.
    pub(super) async fn all(&self) -> Result<Vec<Arc<Connection>>, Failure> {
        match self {
            Self::One(connection) => Ok(vec![Arc::clone(connection)]),
            Self::Many(cluster) => cluster.primaries().await,
        }
    }

    /// Connects, and listens to the channel of a session.
    pub(super) async fn begin(&self, session: &Session) -> Result<(), Failure> {
        let channel = channel_name(session.channel());
        match self {
            Self::One(connection) => {
                connection.request(async |live| live.subscribe(&channel).await).await.map(drop)
            }
            Self::Many(cluster) => cluster.begin(&channel).await,
        }
    }

    /// Listens to the channel of a session no more.
    pub(super) async fn end(&self, session: &Session) -> Result<(), Failure> {
        let channel = channel_name(session.channel());
        match self {
            Self::One(connection) => {
                connection.request(async |live| live.unsubscribe(&channel).await).await
            }
            Self::Many(cluster) => cluster.unhear(&channel).await,
        }
    }

    /// What a claim is told by, as it leaves it in the store. In a cluster the script that hands over
    /// can speak in the slot of the key alone.
    pub(super) fn told_by(&self, session: &Session, key: &Key) -> String {
        match self {
            Self::One(_) => session.channel().to_owned(),
            Self::Many(_) => keys::in_slot_of(key, session.channel()),
        }
    }

    /// Tells the owner of a claim something. One server's scripts do so themselves; in a cluster the
    /// channel of a session is in a slot of its own, and a holder listens to no other.
    pub(super) async fn tell(&self, told_by: &str, text: &str) {
        let Self::Many(cluster) = self else { return };
        let channel = channel_name(told_by.rsplit(':').next().unwrap_or(told_by));
        let told =
            cluster.request(Purpose::Requests, keys::slot(&channel), async |visit: Visit| {
                visit.live.wire.publish(&channel, text).await
            });
        if let Err(failure) = told.await {
            tracing::debug!(?failure, "could not tell; its next renewal will");
        }
    }

    /// Whether one script may have to do with all of the keys, which must be served by one node then.
    pub(super) fn are_together(&self, claims: &[Claim]) -> bool {
        let slot = |claim: &Claim| keys::slot(claim.key.as_str());
        match self {
            Self::One(_) => true,
            Self::Many(_) => claims.windows(2).all(|pair| slot(&pair[0]) == slot(&pair[1])),
        }
    }

    /// How many claims one renewal may name. In a cluster one, because nearly each is in another slot,
    /// and so that a node that is away costs its own claims only.
    pub(super) fn renew_batch(&self) -> usize {
        match self {
            Self::One(_) => RENEW_BATCH,
            Self::Many(_) => 1,
        }
    }

    /// Listens to what a claim in line is told by.
    pub(super) async fn hear(&self, session: &Session, key: &Key) -> Result<Ear, Failure> {
        let channel = channel_name(&self.told_by(session, key));
        let heard = match self {
            Self::One(connection) => {
                connection.request(async |live| live.subscribe(&channel).await).await
            }
            Self::Many(cluster) => match cluster.hear(&channel).await {
                Err(failure) if failure.is_unsupported() || failure.is_unavailable() => {
                    tracing::debug!(?failure, "no wake-up: asking instead");
                    return Ok(Ear::Deaf);
                }
                heard => heard,
            },
        };
        Ok(if heard? { Ear::New } else { Ear::Open })
    }

    /// Listens to the channel of a slot no more, in the background: at worst it stays.
    pub(super) fn unhear(&self, channel: String) {
        if let Self::Many(cluster) = self {
            let cluster = Arc::clone(cluster);
            tokio::spawn(async move { cluster.unhear(&channel).await });
        }
    }
}
