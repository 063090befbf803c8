//! Mutexes of leasehold and of Curator or kazoo on the same path exclude each other, both ways.

use leasehold::{Attempt, Key, Released, Store};
use leasehold_testbed::peer::Library;
use leasehold_testbed::{Peer, ZooKeeper};

use crate::{Actor, LONG, client, share, soon};

pub(crate) const KEY: &str = "jobs/nightly report";
pub(crate) const PATH: &str = "/jobs/nightly report";
pub(crate) const PEERS: [(Library, &str); 2] =
    [(Library::Curator, "curator"), (Library::Kazoo, "kazoo")];

pub(crate) fn url(server: &ZooKeeper, dialect: &str) -> String {
    format!("{}?dialect={dialect}", server.url())
}

/// One that holds by this recipe.
pub(crate) fn holding(library: Library, server: &ZooKeeper, recipe: &str) -> Peer {
    let mut peer = Peer::start(library, &["hold", &server.hosts(), PATH, recipe]);
    peer.expect("waiting");
    peer.expect("held");
    peer
}

/// One that waits by this recipe, in line behind `ahead` others.
pub(crate) async fn waiting(
    library: Library,
    server: &ZooKeeper,
    recipe: &str,
    store: &dyn Store,
    ahead: usize,
) -> Peer {
    let mut peer = Peer::start(library, &["hold", &server.hosts(), PATH, recipe]);
    peer.expect("waiting");
    let key = Key::new(KEY).unwrap();
    soon("in line", async {
        loop {
            let line = store.inspect(&key).await.unwrap();
            if line.holders.len() + line.waiters.len() > ahead {
                return;
            }
        }
    })
    .await;
    peer
}

/// What one that tries by this recipe says: it may be refused because it is slow. Nothing of it is left then.
pub(crate) fn tries(library: Library, server: &ZooKeeper, recipe: &str) -> Option<String> {
    let mut peer = Peer::start(library, &["try", &server.hosts(), PATH, recipe]);
    let word = peer.word();
    assert_eq!(peer.word(), None, "it ends");
    word
}

/// The peer releases.
pub(crate) fn ends(mut peer: Peer) {
    peer.tell();
    peer.expect("released");
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
        // A unit of ours is the whole to it.
        let mutex = if library == Library::Curator { "mutex" } else { "lock" };
        assert_eq!(tries(library, &server, mutex).as_deref(), Some("refused"), "{library:?}");
    }
}
