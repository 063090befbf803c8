//! Locks of leasehold and of other Redlock libraries on the same servers exclude each other, both
//! ways.

use std::fs;
use std::path::Path;
use std::time::Duration;

use leasehold::{Attempt, Client, Released};
use leasehold_testbed::peer::Library;
use leasehold_testbed::{Peer, RedisQuorum};

use crate::{quorum, soon, values};

const KEY: &str = "jobs/nightly report";
/// Longer than any test: such a hold ends by release only.
const LONG: &str = "120000";

fn client(servers: &RedisQuorum) -> Client {
    Client::open(&servers.url()).unwrap()
}

fn peer(verb: &str, servers: &RedisQuorum, more: &[&str]) -> Peer {
    let urls = servers.urls().join(",");
    Peer::start(Library::NodeRedlock, &[&[verb, &urls, KEY, LONG], more].concat())
}

#[tokio::test(flavor = "multi_thread")]
async fn ours_is_refused_and_waits_while_node_redlock_holds() {
    let servers = quorum(5);
    let mut peer = peer("hold", &servers, &[]);
    peer.expect("waiting");
    peer.expect("held");
    let before = values(&servers, KEY);
    let mutex = client(&servers).mutex(KEY).unwrap();
    match mutex.attempt().await.unwrap() {
        Attempt::Refused(ahead) => assert!(ahead.foreign),
        Attempt::Held(guard) => panic!("two hold: {guard:?}"),
    }
    assert_eq!(values(&servers, KEY), before, "their hold is left alone");
    let waiting = tokio::spawn(async move { mutex.lock().await });
    peer.tell();
    peer.expect("released");
    let guard = soon(waiting).await.unwrap().unwrap();
    assert_eq!(guard.release().await.unwrap(), Released::Held);
}

#[tokio::test(flavor = "multi_thread")]
async fn node_redlock_is_refused_and_waits_while_ours_holds() {
    let servers = quorum(5);
    let client = client(&servers);
    let guard = client.mutex(KEY).unwrap().lock().await.unwrap();
    peer("try", &servers, &[]).expect("refused");
    let mut waiting = peer("hold", &servers, &[]);
    waiting.expect("waiting");
    guard.check().unwrap();
    assert_eq!(guard.release().await.unwrap(), Released::Held, "it broke our hold");
    waiting.expect("held");
    assert!(client.mutex(KEY).unwrap().try_lock().await.unwrap().is_none());
    waiting.tell();
    waiting.expect("released");
}

#[tokio::test(flavor = "multi_thread")]
async fn rslock_is_refused_while_ours_holds_and_ours_while_it_does() {
    let servers = quorum(5);
    let client = client(&servers);
    let mut locks = rslock::LockManager::new(servers.urls());
    locks.set_retry(1, Duration::from_millis(1));
    let ttl = Duration::from_mins(2);
    let guard = client.mutex(KEY).unwrap().lock().await.unwrap();
    assert!(locks.lock(KEY, ttl).await.is_err(), "two hold");
    assert_eq!(guard.release().await.unwrap(), Released::Held);
    let theirs = locks.lock(KEY, ttl).await.unwrap();
    assert!(client.mutex(KEY).unwrap().try_lock().await.unwrap().is_none());
    locks.unlock(&theirs).await;
    let guard = soon(client.mutex(KEY).unwrap().lock()).await.unwrap();
    assert_eq!(guard.release().await.unwrap(), Released::Held);
}

/// Everybody at once on one key: each adds to the same number, not atomically.
#[tokio::test(flavor = "multi_thread")]
async fn all_libraries_exclude_each_other() {
    const TIMES: usize = 15;
    let servers = quorum(5);
    let home = tempfile::tempdir().unwrap();
    let number = home.path().join("number");
    fs::write(&number, "0").unwrap();
    let (path, times) = (number.display().to_string(), TIMES.to_string());
    let mut theirs = peer("contend", &servers, &[&times, &path]);
    let ours = async {
        let mutex = client(&servers).mutex(KEY).unwrap();
        for _ in 0..TIMES {
            let guard = mutex.lock().await.unwrap();
            add_one(&number, "ours").await;
            assert_eq!(guard.release().await.unwrap(), Released::Held);
        }
    };
    let rslock = async {
        let mut locks = rslock::LockManager::new(servers.urls());
        locks.set_retry(u32::MAX, Duration::from_millis(20));
        for _ in 0..TIMES {
            let lock = locks.acquire_no_guard(KEY, Duration::from_mins(1)).await.unwrap();
            add_one(&number, "rslock").await;
            locks.unlock(&lock).await;
        }
    };
    futures::future::join(ours, rslock).await;
    theirs.expect("done");
    let log = fs::read_to_string(format!("{path}.log")).unwrap();
    for pair in log.lines().collect::<Vec<_>>().chunks(2) {
        let [begin, end] = pair else { panic!("{pair:?} has no end") };
        assert_eq!(begin.strip_prefix("begin "), end.strip_prefix("end "), "two at once");
    }
    assert_eq!(fs::read_to_string(&number).unwrap(), (3 * TIMES).to_string());
}

/// As the peers do it, in tests/peers.
async fn add_one(number: &Path, who: &str) {
    let mark = |mark: &str| {
        let log = format!("{}.log", number.display());
        let mut log = fs::OpenOptions::new().create(true).append(true).open(log).unwrap();
        std::io::Write::write_all(&mut log, format!("{mark} {who}\n").as_bytes()).unwrap();
    };
    mark("begin");
    let before: usize = fs::read_to_string(number).unwrap().parse().unwrap();
    // sleep: makes room for a second holder between the reading and the writing, if there is one
    tokio::time::sleep(Duration::from_millis(1)).await;
    fs::write(number, (before + 1).to_string()).unwrap();
    mark("end");
}
