//! The Redlock store against real `redis-server`s.
#![cfg(feature = "redlock")]

mod access;
mod attempts;
mod cost;
mod examine;
mod interoperation;
mod late;
mod outage;
mod renewals;
mod wakes;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use leasehold::core::{
    Ahead, Claim, ClaimId, Enter, Fence, Key, Left, Note, Place, Renewed, SessionId, Terms,
};
use leasehold::stores::Redlock;
use leasehold::stores::redlock::{Vote, Votes};
use leasehold::{Error, Result, Store};
use leasehold_testbed::{Redis, RedisQuorum};

/// No test lasts as long: what is free was given back.
const TTL: Duration = Duration::from_mins(15);

/// Servers that forget nothing.
fn quorum(servers: usize) -> RedisQuorum {
    Redis::options().append_only().start_quorum(servers)
}

/// A store handle with a session.
struct Node {
    store: Redlock,
    session: SessionId,
}

impl Node {
    async fn new(url: &str) -> Self {
        Self::with_ttl(url, TTL).await
    }

    async fn with_ttl(url: &str, ttl: Duration) -> Self {
        let store = Redlock::new(url).unwrap();
        let session = store.open(&terms(ttl)).await.unwrap();
        Self { store, session }
    }

    async fn enter(&self, claim: &Claim, enter: Enter) -> Result<Place> {
        soon(self.store.enter(&self.session, claim, enter)).await
    }

    async fn holds(&self, claim: &Claim) -> Fence {
        match self.enter(claim, Enter::Try).await.unwrap() {
            Place::Held(fence) => fence,
            other => panic!("not granted: {other:?}"),
        }
    }

    async fn refused(&self, claim: &Claim) -> Ahead {
        match self.enter(claim, Enter::Try).await.unwrap() {
            Place::Refused(ahead) => ahead,
            other => panic!("not refused: {other:?}"),
        }
    }

    async fn waits(&self, claim: &Claim) -> Ahead {
        match self.enter(claim, Enter::Wait).await.unwrap() {
            Place::Waiting(ahead) => ahead,
            other => panic!("does not wait: {other:?}"),
        }
    }

    async fn leave(&self, claim: &Claim) -> Left {
        soon(self.store.leave(&self.session, claim)).await.unwrap()
    }

    async fn renew(&self, roll: &[&Claim]) -> Result<Renewed> {
        let roll: Vec<Claim> = roll.iter().copied().cloned().collect();
        soon(self.store.renew(&self.session, &roll)).await
    }

    async fn extends(&self, claim: &Claim) -> bool {
        self.renew(&[claim]).await.unwrap() == Renewed::Extended { lost: vec![] }
    }

    async fn holder(&self, key: &str) -> Option<ClaimId> {
        let line = soon(self.store.inspect(&Key::new(key).unwrap())).await.unwrap();
        line.holders.first().and_then(|holder| holder.claim)
    }
}

fn terms(ttl: Duration) -> Terms {
    Terms { ttl, owner: Note::new("node:1").unwrap(), detached: false }
}

fn claim(key: &str) -> Claim {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let mut id = [0; 16];
    id[..8].copy_from_slice(&NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes());
    let note = Note::new("a note\nof two lines").unwrap();
    Claim::exclusive(ClaimId::from_random(id), Key::new(key).unwrap(), note)
}

/// The value of a key at each server; empty where there is none.
fn values(servers: &[Redis], key: &str) -> Vec<String> {
    servers.iter().map(|redis| redis.cli(&["GET", key])).collect()
}

/// At how many servers the claim is.
fn places(servers: &[Redis], claim: &Claim) -> usize {
    let token = claim.id.to_hex();
    values(servers, claim.key.as_str()).iter().filter(|value| **value == token).count()
}

/// Waits until something is so that nobody tells of.
async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let waiting = async {
        while !is_so() {
            // sleep: nobody tells; looked at again.
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), waiting)
        .await
        .unwrap_or_else(|_| panic!("{what}"));
}

/// The votes that an error tells, in the order of the servers.
fn votes(error: &Error) -> Vec<(String, Vote)> {
    let source = std::error::Error::source(error).expect("an error of the quorum has a source");
    let votes = source.downcast_ref::<Votes>().expect("the votes");
    votes.each().map(|(server, vote)| (server.to_owned(), vote.clone())).collect()
}

/// A step that takes longer than this hangs.
async fn soon<T>(step: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), step).await.expect("it hangs")
}
