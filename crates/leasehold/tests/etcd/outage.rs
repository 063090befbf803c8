//! One server that stops, forgets old revisions, or lets a lease expire.

use std::time::Duration;

use leasehold::core::{Enter, Left, Place, Renewed};
use leasehold::{Effect, ErrorKind};
use leasehold_testbed::proxy::Mode;
use leasehold_testbed::{Etcd, Proxy};

use super::{Node, claim, share, soon, store, terms};

#[tokio::test]
async fn a_lease_that_expired_ends_its_session() {
    let etcd = Etcd::start();
    let node = Node::with_ttl(&etcd.url(), Duration::from_secs(2)).await;
    let hold = claim("k");
    let first = node.acquire(&hold).await;
    // Without a renewal: the server's message that the session's key is gone is what to wait for.
    soon(node.store.disturbed(&node.session)).await;
    assert_eq!(node.renew(&hold).await, Renewed::Ended);
    for enter in [Enter::Try, Enter::Wait] {
        let error = node.try_enter(&hold, enter).await.unwrap_err();
        assert_eq!((error.kind(), error.effect()), (ErrorKind::SessionEnded, Effect::None));
    }
    assert_eq!(node.leave(&hold).await, Left::Gone);
    soon(node.store.close(&node.session)).await.expect("ending what has ended is no error");
    let next = Node::new(&etcd.url()).await;
    assert!(next.acquire(&claim("k")).await > first);
}

#[tokio::test]
async fn a_ttl_is_rounded_up_to_what_the_server_keeps() {
    let etcd = Etcd::start();
    let node = Node::with_ttl(&etcd.url(), Duration::from_millis(2500)).await;
    let left = etcd.ctl_says(&["lease", "timetolive", node.session.as_str()]);
    assert!(left.contains("granted with TTL(3s)"), "{left}");
    let error = soon(store(&etcd.url()).open(&terms(Duration::from_secs(1)))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
}

/// The revision from which a watch resumes is gone: the waiter looks for itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_compacted_revision_wakes_the_waiter() {
    let etcd = Etcd::start();
    let proxy = Proxy::before(etcd.ports()[0]);
    let [alice, bob] =
        [Node::new(&etcd.url()).await, Node::new(&etcd.url_on(&[proxy.port()])).await];
    let [hold, waiter] = [claim("k"), claim("k")];
    let [wide, counting] = [share("s", 2, 2), share("s", 1, 2)];
    let first = alice.acquire(&hold).await;
    alice.acquire(&wide).await;
    assert!(matches!(bob.enter(&waiter).await, Place::Waiting(_)));
    assert!(matches!(bob.enter(&counting).await, Place::Waiting(_)));

    // While bob's connection is down, the holds end and what was before is forgotten.
    proxy.set(Mode::Refuse);
    proxy.cut();
    alice.leave(&hold).await;
    alice.leave(&wide).await;
    etcd.ctl(&["put", "elsewhere", "1"]);
    etcd.ctl(&["compact", &etcd.revision().to_string()]);
    proxy.set(Mode::Forward);

    assert_eq!(bob.told(&waiter).await, None, "told to look: the message itself is gone");
    assert!(bob.acquire(&waiter).await > first);
    assert_eq!(bob.told(&counting).await, None);
    bob.acquire(&counting).await;
    // And the watch of the session goes on from there.
    assert!(alice.store.revoke(&counting.key, &counting.id).await.unwrap());
    soon(async {
        let lost = Renewed::Extended { lost: vec![counting.id] };
        while bob.renew(&counting).await != lost {}
        bob.store.disturbed(&bob.session).await;
    })
    .await;
}

/// A server that does not answer: an error in time, then all goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stands_still_is_an_unknown_outcome() {
    let etcd = Etcd::start();
    let node = Node::new(&format!("{}?timeout=300ms", etcd.url())).await;
    let hold = claim("k");
    let first = node.acquire(&hold).await;
    etcd.members()[0].pause();
    let error = node.try_enter(&claim("other"), Enter::Wait).await.unwrap_err();
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Unavailable, Effect::Unknown));
    assert!(error.is_transient(), "{error}");
    etcd.members()[0].resume();
    assert_eq!(node.enter(&hold).await, Place::Held(first));
    etcd.members()[0].kill();
    // What was under way may have been carried out; what finds nobody was not.
    let error = loop {
        let error = node.try_enter(&claim("other"), Enter::Wait).await.unwrap_err();
        if error.effect() == Effect::None {
            break error;
        }
    };
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    etcd.members()[0].start_again();
    assert_eq!(node.enter(&hold).await, Place::Held(first), "the lease outlived the restart");
}

/// The quota is used up: told as such, and not tried again for ever. What holds can be released.
#[tokio::test]
async fn a_full_database_is_told() {
    let etcd = Etcd::options().arg("--quota-backend-bytes=65536").start();
    let node = Node::new(&etcd.url()).await;
    let hold = claim("k");
    node.acquire(&hold).await;
    let error = soon(async {
        loop {
            if let Err(error) = node.store.open(&terms(super::TTL)).await {
                return error;
            }
        }
    })
    .await;
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Full, Effect::None), "{error}");
    assert_eq!(node.leave(&hold).await, Left::Released);
}
