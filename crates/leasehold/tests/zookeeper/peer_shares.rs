//! Readers, writers and semaphores of leasehold and of Curator or kazoo on the same path: which
//! respect each other, and which do not.

use leasehold::{Enter, Left, Place, Released};
use leasehold_testbed::peer::Library::{self, Curator, Kazoo};
use leasehold_testbed::{Peer, ZooKeeper};

use crate::peers::{KEY, PATH, PEERS, ends, holding, tries, url, waiting};
use crate::{Actor, LONG, claim, client, share, soon};

const MAX: u32 = u32::MAX;

#[track_caller]
fn is_refused(library: Library, server: &ZooKeeper, recipe: &str) {
    let said = tries(library, server, recipe);
    assert_eq!(said.as_deref(), Some("refused"), "{recipe} of {library:?}");
}

fn holds_beside(library: Library, server: &ZooKeeper, recipe: &str) {
    ends(holding(library, server, recipe));
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_of_ours_and_of_a_peer_stand_beside_each_other() {
    for (library, dialect) in PEERS {
        let server = ZooKeeper::start();
        let client = client(&url(&server, dialect), LONG);
        let lock = client.rwlock(KEY).unwrap();
        let peer = holding(library, &server, "reader");
        let beside = lock.try_read().await.unwrap().expect("a reader beside a reader");
        assert!(lock.try_write().await.unwrap().is_none(), "{library:?} reads");
        assert!(client.mutex(KEY).unwrap().try_lock().await.unwrap().is_none(), "{library:?}");
        ends(peer);
        holds_beside(library, &server, "reader");
        is_refused(library, &server, "writer");
        beside.check().unwrap();
        // Neither overtakes the other's writer.
        let mut writer = waiting(library, &server, "writer", &**client.store(), 1).await;
        assert!(lock.try_read().await.unwrap().is_none(), "it waits to write: {library:?}");
        assert_eq!(beside.release().await.unwrap(), Released::Held);
        writer.expect("held");
        ends(writer);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_of_ours_and_those_of_a_peer_exclude_each_other() {
    for (library, dialect) in PEERS {
        let server = ZooKeeper::start();
        let client = client(&url(&server, dialect), LONG);
        let lock = client.rwlock(KEY).unwrap();
        let guard = lock.write().await.unwrap();
        for recipe in ["reader", "writer"] {
            is_refused(library, &server, recipe);
        }
        let mut reader = waiting(library, &server, "reader", &**client.store(), 1).await;
        let writing = tokio::spawn({
            let lock = lock.clone();
            async move { lock.write().await }
        });
        assert_eq!(guard.release().await.unwrap(), Released::Held, "{library:?} broke our hold");
        reader.expect("held");
        assert!(!writing.is_finished(), "{library:?} reads");
        ends(reader);
        let guard = soon("granted", writing).await.unwrap().unwrap();
        is_refused(library, &server, "reader");
        // What is in the name stays, so they wait for one that only reads by now.
        guard.downgrade().await.unwrap();
        is_refused(library, &server, "reader");
        assert_eq!(guard.release().await.unwrap(), Released::Held);

        let writer = holding(library, &server, "writer");
        assert!(lock.try_read().await.unwrap().is_none(), "{library:?} writes");
        assert!(lock.try_write().await.unwrap().is_none(), "{library:?} writes");
        let reading = tokio::spawn(async move { lock.read().await });
        ends(writer);
        soon("granted", reading).await.unwrap().unwrap().check().unwrap();
    }
}

/// Its end as a writer is not the end of it: the waiter is told to look, and finds the reader.
#[tokio::test(flavor = "multi_thread")]
async fn a_writer_waits_for_one_of_curators_that_reads_on() {
    let server = ZooKeeper::start();
    let alice = Actor::open(&url(&server, "curator"), LONG).await;
    let mut peer = Peer::start(Curator, &["downgrade", &server.hosts(), PATH]);
    peer.expect("waiting");
    peer.expect("held");
    let ours = share(KEY, MAX, MAX);
    alice.waits(&ours).await;
    peer.tell();
    peer.expect("reads");
    let told = soon("told", alice.store.changed(&alice.session, &ours)).await.unwrap();
    assert_eq!(told, None, "told to look, and not that it holds");
    alice.waits(&ours).await;
    let mut beside = waiting(Curator, &server, "reader", &*alice.store, 2).await;
    ends(peer);
    soon("told", alice.store.changed(&alice.session, &ours)).await.unwrap();
    alice.holds(&ours).await;
    assert_eq!(alice.leave(&ours).await, Left::Released);
    beside.expect("held");
    ends(beside);
}

/// They have no limit to disagree with, and nothing to share with either.
#[tokio::test(flavor = "multi_thread")]
async fn a_mutex_and_a_semaphore_wait_for_readers_and_writers_of_a_peer() {
    for (library, dialect) in PEERS {
        let server = ZooKeeper::start();
        let alice = Actor::open(&url(&server, dialect), LONG).await;
        for recipe in ["reader", "writer"] {
            let peer = holding(library, &server, recipe);
            for trying in [claim(KEY), share(KEY, 1, 3)] {
                let tried = soon("try", alice.store.enter(&alice.session, &trying, Enter::Try));
                let tried = tried.await.unwrap();
                assert!(matches!(tried, Place::Refused(_)), "{library:?}: {tried:?}");
            }
            let ours = share(KEY, 1, 3);
            alice.waits(&ours).await;
            ends(peer);
            soon("told", alice.store.changed(&alice.session, &ours)).await.unwrap();
            alice.holds(&ours).await;
            assert_eq!(alice.leave(&ours).await, Left::Released);
        }
    }
}

/// kazoo's recipe looks at the mark alone, and so takes a unit for the whole.
#[tokio::test(flavor = "multi_thread")]
async fn kazoos_readers_and_writers_wait_for_our_mutex_and_semaphore() {
    let server = ZooKeeper::start();
    let alice = Actor::open(&url(&server, "kazoo"), LONG).await;
    for ours in [claim(KEY), share(KEY, 1, 3)] {
        alice.holds(&ours).await;
        for recipe in ["lock", "reader", "writer"] {
            is_refused(Kazoo, &server, recipe);
        }
        if ours.limit() == 1 {
            assert_eq!(alice.leave(&ours).await, Left::Released);
            continue;
        }
        let mut reader = waiting(Kazoo, &server, "reader", &*alice.store, 1).await;
        let behind = share(KEY, 1, 3);
        alice.waits(&behind).await;
        assert_eq!(alice.leave(&ours).await, Left::Released);
        reader.expect("held");
        alice.waits(&behind).await;
        ends(reader);
        soon("told", alice.store.changed(&alice.session, &behind)).await.unwrap();
        alice.holds(&behind).await;
    }
}

/// As among its own: its mutex knows no readers and writers, and they know no mutex. Ours waits.
#[tokio::test(flavor = "multi_thread")]
async fn curators_mutex_overlooks_our_readers_and_writers_and_its_own_overlook_our_mutex() {
    let server = ZooKeeper::start();
    let alice = Actor::open(&url(&server, "curator"), LONG).await;
    for ours in [share(KEY, 1, MAX), share(KEY, MAX, MAX)] {
        alice.holds(&ours).await;
        holds_beside(Curator, &server, "mutex");
        assert_eq!(alice.leave(&ours).await, Left::Released);
    }
    for ours in [claim(KEY), share(KEY, 1, 3)] {
        alice.holds(&ours).await;
        for recipe in ["reader", "writer"] {
            holds_beside(Curator, &server, recipe);
        }
        assert_eq!(alice.leave(&ours).await, Left::Released);
    }
    let peer = holding(Curator, &server, "mutex");
    for ours in [share(KEY, 1, MAX), share(KEY, MAX, MAX)] {
        alice.waits(&ours).await;
        assert_eq!(alice.leave(&ours).await, Left::Withdrawn);
    }
    ends(peer);
}

/// As it does its own readers.
#[tokio::test(flavor = "multi_thread")]
async fn kazoos_lock_overlooks_our_readers_and_waits_for_our_writer() {
    let server = ZooKeeper::start();
    let alice = Actor::open(&url(&server, "kazoo"), LONG).await;
    let [reader, writer] = [share(KEY, 1, MAX), share(KEY, MAX, MAX)];
    alice.holds(&reader).await;
    holds_beside(Kazoo, &server, "lock");
    assert_eq!(alice.leave(&reader).await, Left::Released);
    alice.holds(&writer).await;
    is_refused(Kazoo, &server, "lock");
    assert_eq!(alice.leave(&writer).await, Left::Released);
    let peer = holding(Kazoo, &server, "lock");
    for ours in [share(KEY, 1, MAX), share(KEY, MAX, MAX)] {
        alice.waits(&ours).await;
        assert_eq!(alice.leave(&ours).await, Left::Withdrawn);
    }
    ends(peer);
}

/// Its leases are below `/leases` of the path, where nobody of ours looks, and its own recipe looks
/// nowhere else.
#[tokio::test(flavor = "multi_thread")]
async fn curators_semaphores_and_ours_overlook_each_other() {
    let server = ZooKeeper::start();
    let alice = Actor::open(&url(&server, "curator"), LONG).await;
    for recipe in ["semaphore", "semaphore-mutex"] {
        for ours in [claim(KEY), share(KEY, 3, 3)] {
            alice.holds(&ours).await;
            holds_beside(Curator, &server, recipe);
            assert_eq!(alice.leave(&ours).await, Left::Released);
        }
        let peer = holding(Curator, &server, recipe);
        for ours in [claim(KEY), share(KEY, 3, 3)] {
            alice.holds(&ours).await;
            assert_eq!(alice.leave(&ours).await, Left::Released);
        }
        ends(peer);
    }
}

/// Its leases have no number, and so no place in line.
#[tokio::test(flavor = "multi_thread")]
async fn kazoos_semaphore_counts_our_claims_as_leases_and_ours_overlooks_it() {
    let server = ZooKeeper::start();
    let alice = Actor::open(&url(&server, "kazoo"), LONG).await;
    let ours = share(KEY, 3, 3);
    alice.holds(&ours).await;
    is_refused(Kazoo, &server, "semaphore-1");
    holds_beside(Kazoo, &server, "semaphore-2");
    let waits = share(KEY, 1, 3);
    alice.waits(&waits).await;
    is_refused(Kazoo, &server, "semaphore-2");
    for (ours, left) in [(waits, Left::Withdrawn), (ours, Left::Released)] {
        assert_eq!(alice.leave(&ours).await, left);
    }
    let peer = holding(Kazoo, &server, "semaphore-1");
    for ours in [claim(KEY), share(KEY, 3, 3)] {
        alice.holds(&ours).await;
        assert_eq!(alice.leave(&ours).await, Left::Released);
    }
    ends(peer);
}
