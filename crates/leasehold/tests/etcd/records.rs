//! Records, where the contract does not reach: leases, restarts, permissions.

use std::time::Duration;

use leasehold::ErrorKind;
use leasehold::core::{Provided, Record, Version, Written};
use leasehold_testbed::Etcd;

use super::{Node, claim, key, soon, store};

const DAY: Duration = Duration::from_hours(24);

fn record(value: &str) -> Record {
    Record::new(value.as_bytes(), DAY).unwrap()
}

impl Node {
    pub(super) async fn read(&self, name: &str) -> Option<Written> {
        let reading = soon(self.store.read(&key(name))).await.unwrap();
        assert_eq!(reading.at, None, "etcd shows no clock");
        reading.written
    }

    pub(super) async fn write(&self, name: &str, from: Option<Version>, value: &str) -> bool {
        let provided = Provided::Unchanged(from);
        soon(self.store.write(&key(name), provided, &record(value))).await.unwrap()
    }
}

fn leases(etcd: &Etcd) -> usize {
    // The first line says how many there are.
    etcd.ctl_says(&["lease", "list"]).lines().count() - 1
}

#[tokio::test]
async fn a_record_outlives_a_restart_and_its_writers_session() {
    let etcd = Etcd::start();
    let alice = Node::new(&etcd.url()).await;
    assert!(alice.write("a/b", None, "kept").await);
    let written = alice.read("a/b").await.expect("written");
    assert_eq!(etcd.ctl_says(&["get", "leasehold:record:a%2Fb", "--print-value-only"]), "kept");
    soon(alice.store.close(&alice.session)).await.unwrap();
    etcd.members()[0].kill();
    etcd.members()[0].start_again();
    let bob = Node::new(&etcd.url()).await;
    assert_eq!(bob.read("a/b").await, Some(written.clone()));
    assert!(bob.write("a/b", Some(written.version), "next").await);
    assert!(bob.read("a/b").await.expect("written").version > written.version);
}

/// Its lease expires, nobody came, and what it writes then is refused.
#[tokio::test]
async fn nothing_is_written_under_a_lease_that_expired() {
    let etcd = Etcd::start();
    let node = Node::with_ttl(&etcd.url(), Duration::from_secs(2)).await;
    let hold = claim("k");
    node.acquire(&hold).await;
    let under = Provided::Held(&node.session, &hold);
    assert!(soon(node.store.write(&hold.key, under, &record("held"))).await.unwrap());
    // The server's message that the session's key is gone is what to wait for.
    soon(node.store.disturbed(&node.session)).await;
    assert!(!soon(node.store.write(&hold.key, under, &record("late"))).await.unwrap());
    assert_eq!(node.read("k").await.expect("kept").value.as_ref(), b"held");
}

/// A program that starts for each writing does not leave a lease each time.
#[tokio::test]
async fn records_share_leases() {
    let etcd = Etcd::start();
    let first = Node::new(&etcd.url()).await;
    assert!(first.write("k", None, "0").await);
    let before = leases(&etcd);
    for n in 1..5 {
        let handle = store(&etcd.url());
        let now = first.read("k").await.expect("written").version;
        let provided = Provided::Unchanged(Some(now));
        let (on, new) = (key("k"), record(&n.to_string()));
        assert!(soon(handle.write(&on, provided, &new)).await.unwrap());
        let other = format!("other {n}");
        assert!(first.write(&other, None, "another key's").await);
    }
    assert_eq!(leases(&etcd), before);
    // One that is kept for much less gets another lease, or it would stay for too long.
    let brief = Record::new(b"brief", Duration::from_secs(2)).unwrap();
    let provided = Provided::Unchanged(None);
    assert!(soon(first.store.write(&key("brief"), provided, &brief)).await.unwrap());
    assert_eq!(leases(&etcd), before + 1);
}

#[tokio::test]
async fn a_lease_that_somebody_revoked_is_replaced() {
    let etcd = Etcd::start();
    let node = Node::new(&etcd.url()).await;
    let sessions = etcd.ctl_says(&["lease", "list"]);
    assert!(node.write("k", None, "gone").await);
    let all = etcd.ctl_says(&["lease", "list"]);
    let new = |line: &&str| !line.contains(' ') && !sessions.contains(line);
    let lease = all.lines().find(new).expect("the record's lease");
    etcd.ctl(&["lease", "revoke", lease]);
    assert_eq!(node.read("k").await, None);
    assert!(node.write("k", None, "here").await);
    assert_eq!(node.read("k").await.expect("written").value.as_ref(), b"here");
}

#[tokio::test]
async fn a_lock_with_a_records_name_is_a_lock_of_its_own() {
    let etcd = Etcd::start();
    let node = Node::new(&etcd.url()).await;
    for name in ["a", "leasehold:record:a", "leasehold:record:", "a/b", "a%2Fb"] {
        assert!(node.write(name, None, name).await);
        node.acquire(&claim(name)).await;
        node.acquire(&claim(&format!("{name}/"))).await;
        assert_eq!(node.read(name).await.expect("written").value.as_ref(), name.as_bytes());
    }
}

#[tokio::test]
async fn a_user_needs_permission_for_records() {
    const PASSWORD: &str = "open-sesame-4711";
    let etcd = Etcd::options().password(PASSWORD).start();
    etcd.ctl(&["role", "add", "locks"]);
    for prefix in ["k/", "leasehold:session:"] {
        etcd.ctl(&["role", "grant-permission", "--prefix", "locks", "readwrite", prefix]);
    }
    etcd.ctl(&["user", "add", "app:pass"]);
    etcd.ctl(&["user", "grant-role", "app", "locks"]);
    let node = Node::new(&etcd.url_as("app:pass@", etcd.ports())).await;
    let error = soon(node.store.read(&key("k"))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    let provided = Provided::Unchanged(None);
    let error = soon(node.store.write(&key("k"), provided, &record("x"))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    let records = "leasehold:record:";
    etcd.ctl(&["role", "grant-permission", "--prefix", "locks", "readwrite", records]);
    assert!(node.write("k", None, "x").await);
    assert!(node.read("k").await.is_some());
}
