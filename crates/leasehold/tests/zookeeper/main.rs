//! The ZooKeeper store on real servers: what the contract's suite does not ask of every store.

mod amend;
mod ensemble;
mod examine;
mod peer_leaders;
mod peer_shares;
mod peers;
mod records;
mod security;
mod server;

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use leasehold::stores::ZooKeeper;
use leasehold::{
    Claim, ClaimId, Client, Enter, Fence, Key, Left, Note, Place, SessionId, Store, Terms,
};

/// Nobody waits it out but a test that fails.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);
/// Outlasts any test, so that no renewal disturbs what is counted.
pub(crate) const LONG: Duration = Duration::from_mins(15);

pub(crate) fn client(url: &str, ttl: Duration) -> Client {
    Client::builder().url(url).ttl(ttl).build().unwrap()
}

pub(crate) async fn soon<F: IntoFuture>(what: &str, future: F) -> F::Output {
    let output = tokio::time::timeout(PATIENCE, future).await;
    output.unwrap_or_else(|late| panic!("{what}: {late}, not within {PATIENCE:?}"))
}

pub(crate) fn claim(key: &str) -> Claim {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).unwrap();
    Claim::exclusive(ClaimId::from_random(bytes), Key::new(key).unwrap(), Note::default())
}

pub(crate) fn share(key: &str, units: u32, limit: u32) -> Claim {
    let Claim { id, key, note, .. } = claim(key);
    let [units, limit] = [units, limit].map(|n| NonZeroU32::new(n).unwrap());
    Claim::counting(id, key, note, units, limit).unwrap()
}

pub(crate) fn terms(ttl: Duration) -> Terms {
    Terms { ttl, owner: Note::new("a test").unwrap(), detached: false }
}

/// A session on a handle of its own.
pub(crate) struct Actor {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) session: SessionId,
}

impl Actor {
    pub(crate) async fn open(url: &str, ttl: Duration) -> Self {
        let store: Arc<dyn Store> = Arc::new(ZooKeeper::new(url).unwrap());
        let session = store.open(&terms(ttl)).await.unwrap();
        Self { store, session }
    }

    pub(crate) async fn enter(&self, claim: &Claim) -> Place {
        soon("enter", self.store.enter(&self.session, claim, Enter::Wait)).await.unwrap()
    }

    pub(crate) async fn holds(&self, claim: &Claim) -> Fence {
        match self.enter(claim).await {
            Place::Held(fence) => fence,
            other => panic!("{:?} is free, and yet: {other:?}", claim.key),
        }
    }

    pub(crate) async fn waits(&self, claim: &Claim) {
        let place = self.enter(claim).await;
        assert!(matches!(place, Place::Waiting(_)), "{place:?}");
    }

    pub(crate) async fn leave(&self, claim: &Claim) -> Left {
        soon("leave", self.store.leave(&self.session, claim)).await.unwrap()
    }

    /// The hexadecimal name by which the servers know the session.
    pub(crate) fn server_side(&self) -> &str {
        &self.session.as_str()[..16]
    }
}
