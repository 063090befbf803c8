//! The PostgreSQL store against a real server.
#![cfg(feature = "postgres")]

mod access;
mod cost;
mod examine;
mod fences;
mod outage;
mod pooler;
mod races;
mod records;
mod schema;
mod upgrade;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use leasehold::core::{
    Claim, ClaimId, Enter, Fence, Key, Left, Note, Place, Renewed, SessionId, Terms, Together,
};
use leasehold::stores::Postgres;
use leasehold::{Client, Store};
use leasehold_testbed::Postgres as Server;
use tokio_postgres::NoTls;

const TTL: Duration = Duration::from_mins(15);
/// A TTL that a test waits out.
const BRIEF: Duration = Duration::from_secs(1);

/// A store handle with a session.
struct Node {
    store: Postgres,
    session: SessionId,
}

impl Node {
    async fn new(url: &str) -> Self {
        Self::with_ttl(url, TTL).await
    }

    async fn with_ttl(url: &str, ttl: Duration) -> Self {
        let store = Postgres::new(url).unwrap();
        let session = store.open(&terms(ttl)).await.unwrap();
        Self { store, session }
    }

    async fn enter(&self, claim: &Claim) -> Place {
        self.store.enter(&self.session, claim, Enter::Wait).await.unwrap()
    }

    async fn acquire(&self, claim: &Claim) -> Fence {
        fence(&self.enter(claim).await)
    }

    async fn leave(&self, claim: &Claim) -> Left {
        self.store.leave(&self.session, claim).await.unwrap()
    }

    async fn renew(&self, roll: &[Claim]) -> Renewed {
        self.store.renew(&self.session, roll).await.unwrap()
    }
}

fn terms(ttl: Duration) -> Terms {
    Terms { ttl, owner: Note::new("test").unwrap(), detached: false }
}

fn fence(place: &Place) -> Fence {
    match place {
        Place::Held(fence) => *fence,
        other => panic!("not held: {other:?}"),
    }
}

fn claim(key: &str) -> Claim {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let mut id = [7; 16];
    id[..8].copy_from_slice(&NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes());
    Claim::exclusive(ClaimId::from_random(id), Key::new(key).unwrap(), Note::default())
}

fn client(url: &str) -> Client {
    Client::builder().url(url).ttl(Duration::from_secs(30)).build().unwrap()
}

/// A connection of the test's own, as the role of the tests.
async fn raw(server: &Server) -> tokio_postgres::Client {
    let (client, connection) = tokio_postgres::connect(&server.url(), NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// Waits until `sql`, which asks for a boolean, says yes.
async fn until(server: &Server, sql: &str) {
    let asking = raw(server).await;
    let yes = async {
        while !asking.query_one(sql, &[]).await.unwrap().get::<_, bool>(0) {
            tokio::task::yield_now().await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_mins(1), yes).await;
    waited.unwrap_or_else(|_| panic!("never true: {sql}"));
}

/// A statement that does to a session or a claim in SQL what the store does.
fn enter_sql(session: &SessionId, claim: &Claim) -> String {
    format!(
        "SELECT outcome FROM leasehold.enter('{}', '{}', '{}', 1, 1, '', true)",
        session.as_str(),
        claim.id.to_hex(),
        claim.key
    )
}
