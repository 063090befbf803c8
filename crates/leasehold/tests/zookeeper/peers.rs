//! Locks of leasehold and of Curator or kazoo on the same path exclude each other, both ways.

use leasehold::{Attempt, Released};
use leasehold_testbed::peer::Library;
use leasehold_testbed::{Peer, ZooKeeper};

use crate::{LONG, client, soon};

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
