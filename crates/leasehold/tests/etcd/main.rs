//! The etcd store against a real `etcd`: what is particular to it. The contract's suite runs on
//! it as well, in the crate of that name.
#![cfg(feature = "etcd")]

mod access;
mod amend;
mod cluster;
mod cost;
mod elections;
mod examine;
mod interoperation;
mod line;
mod outage;
mod records;

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use leasehold::core::{
    Ahead, Claim, ClaimId, Enter, Fence, Key, Left, Note, Place, Renewed, SessionId, Terms,
};
use leasehold::{Result, Store};

/// No test lasts so long.
const TTL: Duration = Duration::from_mins(10);

/// A store handle with a session.
struct Node {
    store: Arc<dyn Store>,
    session: SessionId,
}

impl Node {
    async fn new(url: &str) -> Self {
        Self::with_ttl(url, TTL).await
    }

    async fn with_ttl(url: &str, ttl: Duration) -> Self {
        let store = store(url);
        let session = soon(store.open(&terms(ttl))).await.unwrap();
        Self { store, session }
    }

    async fn try_enter(&self, claim: &Claim, enter: Enter) -> Result<Place> {
        soon(self.store.enter(&self.session, claim, enter)).await
    }

    async fn enter(&self, claim: &Claim) -> Place {
        self.try_enter(claim, Enter::Wait).await.unwrap()
    }

    async fn attempt(&self, claim: &Claim) -> Place {
        self.try_enter(claim, Enter::Try).await.unwrap()
    }

    async fn acquire(&self, claim: &Claim) -> Fence {
        fence(&self.enter(claim).await)
    }

    async fn leave(&self, claim: &Claim) -> Left {
        soon(self.store.leave(&self.session, claim)).await.unwrap()
    }

    async fn renew(&self, claim: &Claim) -> Renewed {
        soon(self.store.renew(&self.session, std::slice::from_ref(claim))).await.unwrap()
    }

    /// What the waiting claim is told.
    async fn told(&self, claim: &Claim) -> Option<Place> {
        soon(self.store.changed(&self.session, claim)).await.unwrap()
    }

    /// Waits as a session does: asks, sleeps until something may have changed, asks again.
    async fn wait(&self, claim: &Claim) -> Fence {
        soon(async {
            loop {
                if let Ok(Place::Held(fence)) = self.try_enter(claim, Enter::Wait).await {
                    return fence;
                }
                let changed = self.store.changed(&self.session, claim);
                let recheck = self.store.guarantees().recheck;
                if let Ok(Ok(Some(Place::Held(fence)))) =
                    tokio::time::timeout(recheck, changed).await
                {
                    return fence;
                }
            }
        })
        .await
    }
}

fn store(url: &str) -> Arc<dyn Store> {
    leasehold::stores::connect(url).unwrap()
}

fn terms(ttl: Duration) -> Terms {
    Terms { ttl, owner: Note::new("node:1").unwrap(), detached: false }
}

fn key(text: &str) -> Key {
    Key::new(text).unwrap()
}

fn claim_id() -> ClaimId {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let mut id = [0; 16];
    id[..8].copy_from_slice(&NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes());
    ClaimId::from_random(id)
}

fn claim(text: &str) -> Claim {
    Claim::exclusive(claim_id(), key(text), Note::new("a note").unwrap())
}

fn share(text: &str, units: u32, limit: u32) -> Claim {
    let [units, limit] = [units, limit].map(|n| NonZeroU32::new(n).unwrap());
    Claim::counting(claim_id(), key(text), Note::default(), units, limit).unwrap()
}

#[track_caller]
fn fence(place: &Place) -> Fence {
    match place {
        Place::Held(fence) => *fence,
        other => panic!("not granted: {other:?}"),
    }
}

#[track_caller]
fn ahead(place: Place) -> Ahead {
    match place {
        Place::Waiting(ahead) | Place::Refused(ahead) => ahead,
        Place::Held(_) => panic!("granted"),
    }
}

/// A step that takes longer than this hangs.
async fn soon<F: IntoFuture>(step: F) -> F::Output {
    tokio::time::timeout(Duration::from_mins(1), step).await.expect("it hangs")
}
