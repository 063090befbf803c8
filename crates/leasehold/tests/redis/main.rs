//! The Redis store against a real `redis-server`.
#![cfg(feature = "redis")]

mod access;
mod cluster;
mod cost;
mod counting;
mod examine;
mod interoperation;
mod line;
mod memory;
mod outage;
mod random;
mod refusals;
mod sentinel;
mod server;
mod tls;
mod urls;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use leasehold::Store;
use leasehold::core::{
    Claim, ClaimId, Enter, Fence, Key, Left, Note, Place, Renewed, SessionId, Terms,
};
use leasehold::stores::Redis;

const TTL: Duration = Duration::from_secs(30);

/// A store handle with a session.
struct Node {
    store: Redis,
    session: SessionId,
}

impl Node {
    async fn new(url: &str) -> Self {
        Self::with_ttl(url, TTL).await
    }

    async fn with_ttl(url: &str, ttl: Duration) -> Self {
        let store = Redis::new(url).unwrap();
        let session = store.open(&terms(ttl)).await.unwrap();
        Self { store, session }
    }

    async fn enter(&self, claim: &Claim) -> Place {
        self.store.enter(&self.session, claim, Enter::Wait).await.unwrap()
    }

    async fn attempt(&self, claim: &Claim) -> Place {
        self.store.enter(&self.session, claim, Enter::Try).await.unwrap()
    }

    async fn acquire(&self, claim: &Claim) -> Fence {
        fence(&self.enter(claim).await)
    }

    async fn leave(&self, claim: &Claim) -> Left {
        self.store.leave(&self.session, claim).await.unwrap()
    }

    async fn renew(&self, claim: &Claim) -> Renewed {
        self.store.renew(&self.session, std::slice::from_ref(claim)).await.unwrap()
    }

    async fn extends(&self, claim: &Claim) -> bool {
        self.renew(claim).await == Renewed::Extended { lost: vec![] }
    }

    /// Waits as a session does: asks, sleeps until something may have changed, asks again.
    async fn wait(&self, claim: &Claim) -> Fence {
        loop {
            if let Place::Held(fence) = self.enter(claim).await {
                return fence;
            }
            if let Some(Place::Held(fence)) = self.changed(claim).await {
                return fence;
            }
        }
    }

    async fn changed(&self, claim: &Claim) -> Option<Place> {
        self.store.changed(&self.session, claim).await.unwrap()
    }
}

fn terms(ttl: Duration) -> Terms {
    Terms { ttl, owner: Note::new("node:1").unwrap(), detached: false }
}

fn claim(key: &str) -> Claim {
    share(key, 1, 1)
}

/// A claim of `units` of `limit`.
fn share(key: &str, units: u32, limit: u32) -> Claim {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let mut id = [0; 16];
    id[..8].copy_from_slice(&NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes());
    let note = Note::new("a note\nof two lines").unwrap();
    let (units, limit) = (units.try_into().unwrap(), limit.try_into().unwrap());
    Claim::counting(ClaimId::from_random(id), Key::new(key).unwrap(), note, units, limit).unwrap()
}

fn fence(place: &Place) -> Fence {
    match place {
        Place::Held(fence) => *fence,
        other => panic!("not granted: {other:?}"),
    }
}

#[track_caller]
fn rank(place: &Place) -> u32 {
    match place {
        Place::Waiting(ahead) | Place::Refused(ahead) => ahead.rank.unwrap(),
        Place::Held(_) => panic!("granted"),
    }
}

#[track_caller]
fn foreign(place: &Place) -> bool {
    match place {
        Place::Waiting(ahead) | Place::Refused(ahead) => ahead.foreign,
        Place::Held(_) => panic!("granted"),
    }
}

/// A step that takes longer than this hangs.
async fn soon<T>(step: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), step).await.expect("it hangs")
}
