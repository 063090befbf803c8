//! Locks of leasehold and of Curator or kazoo on the same path exclude each other, both ways.

use leasehold::{Attempt, Left, Released};
use leasehold_testbed::peer::Library;
use leasehold_testbed::{Peer, ZooKeeper};

use crate::{Actor, LONG, claim, client, share, soon};

const KEY: &str = "jobs/nightly report";
const PATH: &str = "/jobs/nightly report";
const PEERS: [(Library, &str); 2] = [(Library::Curator, "curator"), (Library::Kazoo, "kazoo")];

fn url(server: &ZooKeeper, dialect: &str) -> String {
    format!("{}?dialect={dialect}", server.url())
}

#[tokio::test(flavor = "multi_thread")]
async fn ours_is_refused_and_waits_while_a_peer_holds() {
    for (library, _) in PEERS {
        // Whichever it writes, it respects both.
        for dialect in ["curator", "kazoo"] {
            let server = ZooKeeper::start();
            let mut peer = Peer::start(library, &["hold", &server.hosts(), PATH]);
            peer.expect("waiting");
            peer.expect("held");
            let mutex = client(&url(&server, dialect), LONG).mutex(KEY).unwrap();
            let Attempt::Refused(ahead) = mutex.attempt().await.unwrap() else {
                panic!("held beside {library:?}")
            };
            assert!(ahead.foreign, "{library:?}: {ahead:?}");
            let waiting = tokio::spawn(async move { mutex.lock().await });
            peer.tell();
            peer.expect("released");
            let guard = soon("granted", waiting).await.unwrap().unwrap();
            assert_eq!(guard.release().await.unwrap(), Released::Held);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_is_refused_and_waits_while_ours_holds() {
    for (library, dialect) in PEERS {
        let server = ZooKeeper::start();
        let client = client(&url(&server, dialect), LONG);
        let guard = client.mutex(KEY).unwrap().lock().await.unwrap();
        Peer::start(library, &["try", &server.hosts(), PATH]).expect("refused");
        let mut waiting = Peer::start(library, &["hold", &server.hosts(), PATH]);
        waiting.expect("waiting");
        guard.check().unwrap();
        assert_eq!(guard.release().await.unwrap(), Released::Held, "{library:?} broke our hold");
        waiting.expect("held");
        assert!(client.mutex(KEY).unwrap().try_lock().await.unwrap().is_none(), "{library:?}");
        waiting.tell();
        waiting.expect("released");
        assert!(client.mutex(KEY).unwrap().try_lock().await.unwrap().is_some(), "{library:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_crashed_frees_its_lock() {
    for (library, dialect) in PEERS {
        let server = ZooKeeper::start();
        let mut peer = Peer::start(library, &["hold", &server.hosts(), PATH]);
        peer.expect("waiting");
        peer.expect("held");
        let mutex = client(&url(&server, dialect), LONG).mutex(KEY).unwrap();
        let waiting = tokio::spawn(async move { mutex.lock().await });
        peer.kill();
        soon("granted", waiting).await.unwrap().unwrap().check().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn leaders_of_ours_and_of_kazoo_exclude_each_other() {
    let server = ZooKeeper::start();
    let url = url(&server, "kazoo");
    let alice = Actor::open(&url, LONG).await;
    let mut peer = Peer::start(Library::Kazoo, &["lead", &server.hosts(), PATH]);
    peer.expect("waiting");
    peer.expect("held");
    let ours = claim(KEY);
    alice.waits(&ours).await;
    let line = alice.store.inspect(&ours.key).await.unwrap();
    assert_eq!((line.holders[0].claim, line.holders[0].owner.as_str()), (None, "a kazoo"));
    peer.tell();
    peer.expect("released");
    soon("told", alice.store.changed(&alice.session, &ours)).await.unwrap();
    alice.holds(&ours).await;
    let mut peer = Peer::start(Library::Kazoo, &["lead", &server.hosts(), PATH]);
    peer.expect("waiting");
    soon("in line", async {
        while alice.store.inspect(&ours.key).await.unwrap().waiters.is_empty() {}
    })
    .await;
    assert_eq!(alice.leave(&ours).await, Left::Released);
    peer.expect("held");
    peer.tell();
    peer.expect("released");
}

/// Its node has the name of one of our mutexes. It has no limit to disagree with: it is waited for.
#[tokio::test(flavor = "multi_thread")]
async fn a_semaphore_waits_for_a_peer_and_does_not_disagree_with_it() {
    for (library, dialect) in PEERS {
        let server = ZooKeeper::start();
        let mut peer = Peer::start(library, &["hold", &server.hosts(), PATH]);
        peer.expect("waiting");
        peer.expect("held");
        let alice = Actor::open(&url(&server, dialect), LONG).await;
        let [ours, other] = [share(KEY, 1, 3), share(KEY, 1, 5)];
        alice.waits(&ours).await;
        let enter = alice.store.enter(&alice.session, &other, leasehold::Enter::Wait);
        let error = soon("refused", enter).await.expect_err("ours is in line");
        assert_eq!(error.kind(), leasehold::ErrorKind::Disagrees, "{error}");
        peer.tell();
        peer.expect("released");
        soon("told", alice.store.changed(&alice.session, &ours)).await.unwrap();
        alice.holds(&ours).await;
    }
}
