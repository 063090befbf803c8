//! Records: what the layout does to them, and interleavings that would break simpler ones.

use std::sync::Arc;

use leasehold::core::{Provided, Reading, Record, Version};

use super::*;

const DAY: Duration = Duration::from_hours(24);

fn key(name: &str) -> Key {
    Key::new(name).unwrap()
}

impl Node {
    async fn read(&self, on: &str) -> Reading {
        self.store.read(&key(on)).await.unwrap()
    }

    async fn version(&self, on: &str) -> Option<Version> {
        self.read(on).await.written.map(|written| written.version)
    }

    async fn put(&self, on: &str, last: Option<Version>, value: &[u8]) -> bool {
        let record = Record::new(value, DAY).unwrap();
        self.store.write(&key(on), Provided::Unchanged(last), &record).await.unwrap()
    }

    async fn put_under(&self, hold: &Claim, value: &[u8]) -> bool {
        let record = Record::new(value, DAY).unwrap();
        let provided = Provided::Held(&self.session, hold);
        self.store.write(&hold.key, provided, &record).await.unwrap()
    }
}

/// At READ COMMITTED two that both see no row would both insert one, and the second would replace
/// what the first was told is written.
#[tokio::test]
async fn of_two_first_writers_the_second_finds_the_first() {
    let server = Server::start();
    let node = Arc::new(Node::new(&server.url()).await);
    let slow = raw(&server).await;
    slow.batch_execute("BEGIN").await.unwrap();
    let first = "SELECT leasehold.write('k', 'first', 86400000000, NULL, NULL, NULL)";
    assert!(slow.query_one(first, &[]).await.unwrap().get::<_, bool>(0));
    let second = tokio::spawn({
        let node = Arc::clone(&node);
        async move { node.put("k", None, b"second").await }
    });
    until(&server, races::BLOCKED).await;
    slow.batch_execute("COMMIT").await.unwrap();
    assert!(!second.await.unwrap(), "there is one already");
    let written = node.read("k").await.written.unwrap();
    assert_eq!(&written.value[..], b"first");
}

/// The same of a row that is there: the version is compared after the wait, not before it.
#[tokio::test]
async fn of_two_writers_from_one_version_the_second_is_too_late() {
    let server = Server::start();
    let node = Arc::new(Node::new(&server.url()).await);
    assert!(node.put("k", None, b"before").await);
    let last = node.version("k").await;
    let slow = raw(&server).await;
    slow.batch_execute("BEGIN").await.unwrap();
    let first = format!(
        "SELECT leasehold.write('k', 'first', 86400000000, {}, NULL, NULL)",
        last.unwrap().get()
    );
    assert!(slow.query_one(&first, &[]).await.unwrap().get::<_, bool>(0));
    let second = tokio::spawn({
        let node = Arc::clone(&node);
        async move { node.put("k", last, b"second").await }
    });
    until(&server, races::BLOCKED).await;
    slow.batch_execute("COMMIT").await.unwrap();
    assert!(!second.await.unwrap(), "that was replaced");
    assert_eq!(&node.read("k").await.written.unwrap().value[..], b"first");
}

/// Whoever deletes expired rows may be at work on the very one that is written anew.
#[tokio::test]
async fn a_row_that_is_being_deleted_is_written_anew() {
    let server = Server::start();
    let node = Arc::new(Node::new(&server.url()).await);
    assert!(node.put("k", None, b"old").await);
    let last = node.version("k").await;
    server.psql(EXPIRE);
    let slow = raw(&server).await;
    slow.batch_execute("BEGIN; SELECT leasehold.sweep(9)").await.unwrap();
    let writing = tokio::spawn({
        let node = Arc::clone(&node);
        async move { node.put("k", None, b"new").await }
    });
    until(&server, races::BLOCKED).await;
    // It does not wait for the writer, who has a lock and waits for its row.
    slow.batch_execute("SELECT leasehold.sweep(9); COMMIT").await.unwrap();
    assert!(writing.await.unwrap());
    assert_eq!(&node.read("k").await.written.unwrap().value[..], b"new");
    assert!(node.version("k").await > last);
}

const EXPIRE: &str = "UPDATE leasehold.records \
     SET kept_until = now() - interval '1 s', sweep_at = now() - interval '1 s'";

#[tokio::test]
async fn what_is_over_reads_as_none_and_is_deleted_by_whoever_comes() {
    let server = Server::start();
    let node = Node::new(&server.url()).await;
    for n in 0..100 {
        assert!(node.put(&format!("k{n}"), None, b"x").await);
    }
    let last = node.version("k0").await;
    server.psql(EXPIRE);
    assert_eq!(node.read("k0").await.written, None, "though its row is there");
    let rows = || server.psql("SELECT count(*) FROM leasehold.records");
    assert_eq!(rows(), "100");
    assert!(!node.put("k0", last, b"late").await, "a version does not outlive its record");
    assert!(node.put("k0", None, b"new").await);
    assert!(node.version("k0").await > last);
    assert_eq!(rows(), "100", "whoever writes over one adds none");
    for (n, left) in [(0, "97"), (1, "94")] {
        assert!(node.put(&format!("new{n}"), None, b"x").await);
        assert_eq!(rows(), left);
    }
    for _ in 0..2 {
        node.store.open(&terms(TTL)).await.unwrap();
    }
    assert_eq!(rows(), "3");
    // Before its time nothing is deleted, whatever the other column says.
    server.psql("UPDATE leasehold.records SET sweep_at = now() - interval '1 s'");
    node.store.open(&terms(TTL)).await.unwrap();
    assert_eq!(rows(), "3");
    let early = "SELECT count(*) FROM leasehold.records WHERE sweep_at < kept_until";
    assert!(node.put("new2", None, b"x").await);
    assert_eq!(server.psql(early), "3", "the three that were set back");
}

#[tokio::test]
async fn a_write_under_a_hold_is_judged_by_the_session_that_holds() {
    let server = Server::start();
    let alice = Node::new(&server.url()).await;
    let held = claim("k");
    alice.acquire(&held).await;
    assert!(alice.put_under(&held, b"held").await);
    // Condemned, though nobody has taken the claim out of its line yet.
    server.psql("UPDATE leasehold.sessions SET dead = true");
    assert!(!alice.put_under(&held, b"condemned").await);
    let amended = held.amended(Note::new("n").unwrap(), std::num::NonZeroU32::MIN);
    assert!(!alice.store.amend(&alice.session, &amended).await.unwrap());

    // Lapsed, and nobody noticed: the writer is the judge, and what it judged stays.
    let alice = Node::new(&server.url()).await;
    let held = claim("k");
    alice.acquire(&held).await;
    server.psql("UPDATE leasehold.sessions SET expires = now() - interval '1 s'");
    assert!(!alice.put_under(&held, b"lapsed").await);
    server.psql("UPDATE leasehold.sessions SET expires = now() + interval '1 hour'");
    assert!(!alice.put_under(&held, b"revived").await);
    assert_eq!(alice.renew(&[held]).await, Renewed::Ended);
    assert_eq!(&alice.read("k").await.written.unwrap().value[..], b"held");
}

/// The old holder's last write is on its way while the next one is granted.
#[tokio::test]
async fn a_write_under_a_hold_waits_for_who_ends_the_hold() {
    let server = Server::start();
    let (alice, bob) = (Arc::new(Node::new(&server.url()).await), Node::new(&server.url()).await);
    let (held, next) = (claim("k"), claim("k"));
    alice.acquire(&held).await;
    bob.enter(&next).await;
    let slow = raw(&server).await;
    slow.batch_execute("BEGIN").await.unwrap();
    let revoke = format!("SELECT leasehold.revoke('k', '{}')", held.id.to_hex());
    slow.batch_execute(&revoke).await.unwrap();
    let writing = tokio::spawn({
        let (alice, held) = (Arc::clone(&alice), held.clone());
        async move { alice.put_under(&held, b"late").await }
    });
    until(&server, races::BLOCKED).await;
    slow.batch_execute("COMMIT").await.unwrap();
    assert!(!writing.await.unwrap());
    assert_eq!(alice.read("k").await.written, None);
    assert!(bob.put_under(&next, b"next").await);
}

#[tokio::test]
async fn a_record_survives_a_crash_and_versions_survive_the_loss_of_all_rows() {
    let server = Server::start();
    let node = Node::new(&server.url()).await;
    assert!(node.put("k", None, b"kept").await);
    let mut last = node.version("k").await;
    server.kill();
    server.start_again();
    let node = Node::new(&server.url()).await;
    let written = node.read("k").await.written.unwrap();
    assert_eq!((&written.value[..], Some(written.version)), (&b"kept"[..], last));
    for damage in [
        "SELECT 1",
        "ALTER SEQUENCE leasehold.fences RESTART WITH 1",
        "DROP SCHEMA leasehold CASCADE",
    ] {
        server.psql(&format!("DELETE FROM leasehold.records; {damage}"));
        let node = Node::new(&server.url()).await;
        assert!(node.put("k", None, b"new").await);
        let new = node.version("k").await;
        assert!(new > last, "{new:?} after {last:?}, after {damage}");
        last = new;
    }
}

/// Without a vacuum in between, as a limiter writes.
#[tokio::test]
async fn five_thousand_writes_of_one_record_leave_no_mountain() {
    let server = Server::options().config("autovacuum", "off").start();
    let node = Node::new(&server.url()).await;
    let mut last = None;
    for n in 0..5_000_u32 {
        assert!(node.put("hot", last, &n.to_be_bytes()).await);
        last = node.version("hot").await;
    }
    let size = server.psql("SELECT pg_total_relation_size('leasehold.records')");
    println!("records {size}");
    // A page, its visibility map, and both indexes.
    assert!(size.parse::<u64>().unwrap() <= 96 << 10, "{size}");
    let updates = "SELECT n_tup_upd - n_tup_hot_upd < 100 FROM pg_stat_user_tables \
                   WHERE relname = 'records' AND n_tup_upd >= 4900";
    until(&server, &format!("SELECT coalesce(({updates}), false)")).await;
}
