//! Records, where the contract does not reach: restarts, sessions that ended, and what they cost.

use std::time::Duration;

use leasehold::core::{Provided, Reading, Record};
use leasehold_testbed::proxy::{Direction, Mode};
use leasehold_testbed::{Proxy, ZooKeeper};

use crate::server::requests;
use crate::{Actor, LONG, claim, soon};

fn record(value: &str) -> Record {
    Record::new(value.as_bytes(), Duration::from_hours(24)).unwrap()
}

impl Actor {
    async fn read(&self, key: &str) -> Reading {
        soon("read", self.store.read(&key.parse().unwrap())).await.unwrap()
    }

    async fn write(&self, key: &str, provided: Provided<'_>, value: &str) -> bool {
        let key = key.parse().unwrap();
        soon("write", self.store.write(&key, provided, &record(value))).await.unwrap()
    }
}

#[tokio::test]
async fn a_record_outlives_a_restart_and_its_writers_session() {
    let server = ZooKeeper::start();
    let url = format!("{}/apps/locks", server.url());
    let alice = Actor::open(&url, LONG).await;
    assert!(alice.write("a/b", Provided::Unchanged(None), "kept").await);
    let written = alice.read("a/b").await.written.expect("written");
    alice.store.close(&alice.session).await.unwrap();
    server.kill(0);
    server.start_again(0);
    let bob = Actor::open(&url, LONG).await;
    assert_eq!(bob.read("a/b").await.written, Some(written.clone()));
    assert!(bob.write("a/b", Provided::Unchanged(Some(written.version)), "next").await);
    let next = bob.read("a/b").await.written.expect("written");
    assert!(next.version > written.version);
    let shown = server.cli(&["ls -R /apps/locks/%leasehold"]);
    assert!(shown.contains("/a%2Fb") && shown.contains("/clock"), "{shown}");
}

#[tokio::test]
async fn the_time_is_the_leaders() {
    let server = ZooKeeper::start();
    let alice = Actor::open(&server.url(), LONG).await;
    let before = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
    let at = alice.read("k").await.at.expect("a time");
    let after = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
    // In whole milliseconds, by the clock of this machine, where the server runs too.
    let slack = Duration::from_millis(1);
    assert!(at + slack >= before && at <= after, "{before:?} {at:?} {after:?}");
}

/// Its session was ended while it could not be told, and what it writes then is refused.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_written_under_a_session_that_ended() {
    let server = ZooKeeper::start();
    let proxy = Proxy::before(server.port(0));
    let url = format!("zookeeper://127.0.0.1:{}", proxy.port());
    let [alice, bob] = [Actor::open(&url, LONG).await, Actor::open(&server.url(), LONG).await];
    let hold = claim("k");
    alice.holds(&hold).await;
    let under = Provided::Held(&alice.session, &hold);
    assert!(alice.write("k", under, "held").await);
    proxy.set(Mode::Refuse);
    proxy.cut();
    // As the servers end it: its lease runs out.
    let store = leasehold::stores::connect(&server.url()).unwrap();
    soon("closed", store.close(&alice.session)).await.unwrap();
    proxy.set(Mode::Forward);
    let refused = soon("refused", async {
        loop {
            // The link comes back in its own time.
            let write = alice.store.write(&hold.key, under, &record("late")).await;
            if let Ok(written) = write {
                return !written;
            }
        }
    });
    assert!(refused.await);
    let kept = bob.read("k").await.written.expect("kept");
    assert_eq!(kept.value.as_ref(), b"held");
}

/// What it is told of its own hold comes late, so it believes that it holds: the servers know.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_written_under_a_hold_that_is_believed_to_be_there() {
    let server = ZooKeeper::start();
    let proxy = Proxy::before(server.port(0));
    let url = format!("zookeeper://127.0.0.1:{}", proxy.port());
    let [alice, bob] = [Actor::open(&url, LONG).await, Actor::open(&server.url(), LONG).await];
    let hold = claim("k");
    alice.holds(&hold).await;
    let under = Provided::Held(&alice.session, &hold);
    assert!(alice.write("k", under, "held").await);
    proxy.delay(Direction::Replies, Duration::from_secs(1));
    assert!(bob.store.revoke(&hold.key, &hold.id).await.unwrap());
    assert!(!alice.write("k", under, "revoked").await);
    let kept = bob.read("k").await.written.expect("kept");
    assert_eq!(kept.value.as_ref(), b"held");
}

#[tokio::test]
async fn what_records_cost() {
    let server = ZooKeeper::start();
    let alice = Actor::open(&server.url(), LONG).await;
    let hold = claim("k");
    alice.holds(&hold).await;
    // The first ones make the parents.
    assert!(alice.write("k", Provided::Held(&alice.session, &hold), "0").await);
    let version = alice.read("k").await.written.expect("written").version;
    let counts = || (requests(&server, &alice), server.last_transaction(0));
    let since = |before: (u64, u64)| {
        let now = counts();
        (now.0 - before.0, now.1 - before.1)
    };
    let before = counts();
    assert!(alice.write("k", Provided::Held(&alice.session, &hold), "1").await);
    assert_eq!(since(before), (1, 1), "under a hold: requests and commits");
    let before = counts();
    let now = alice.read("k").await.written.expect("written").version;
    assert_eq!(since(before), (2, 1), "a reading: it asks for the time");
    assert!(now > version);
    let before = counts();
    assert!(alice.write("k", Provided::Unchanged(Some(now)), "2").await);
    assert_eq!(since(before), (3, 2), "a writing of what was read");
}
