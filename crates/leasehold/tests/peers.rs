//! Locks of leasehold and of other libraries on the same key of the same Redis exclude each other,
//! both ways, so that a fleet can move over one node at a time.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use leasehold::{Attempt, Client, ErrorKind, Released};
use leasehold_testbed::peer::Library;
use leasehold_testbed::{Peer, Redis, RedisCluster, Worker, test_name, worker};
use tokio::task::JoinSet;

const KEY: &str = "jobs/nightly report";
/// Longer than any test: such a hold ends by release only.
const LONG: &str = "120000";
const SHORT: Duration = Duration::from_millis(1500);
/// Nobody waits it out but a test that fails.
const PATIENCE: Duration = Duration::from_mins(1);

fn client(redis: &Redis) -> Client {
    Client::open(&redis.url()).unwrap()
}

fn milliseconds(ttl: Duration) -> String {
    ttl.as_millis().to_string()
}

/// A peer that holds the key by now.
fn holder(library: Library, redis: &Redis, ttl: &str) -> Peer {
    holder_at(library, &redis.url(), ttl)
}

fn holder_at(library: Library, url: &str, ttl: &str) -> Peer {
    let mut peer = Peer::start(library, &["hold", url, KEY, ttl]);
    peer.expect("waiting");
    peer.expect("held");
    peer
}

#[tokio::test(flavor = "multi_thread")]
async fn ours_is_refused_and_waits_while_a_peer_holds() {
    for library in Library::ALL {
        let redis = Redis::start();
        let mut peer = holder(library, &redis, LONG);
        let token = redis.cli(&["GET", KEY]);
        let mutex = client(&redis).mutex(KEY).unwrap();
        assert!(matches!(mutex.attempt().await.unwrap(), Attempt::Refused(_)), "{library:?}");
        let wait = Duration::from_millis(300);
        let error = mutex.lock_within(wait).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut, "{library:?}");
        assert_eq!(redis.cli(&["GET", KEY]), token, "their hold is left alone");

        let waiting = tokio::spawn(async move { mutex.lock().await });
        peer.tell();
        peer.expect("released");
        let guard = tokio::time::timeout(PATIENCE, waiting).await.unwrap().unwrap().unwrap();
        guard.check().unwrap();
        assert_eq!(guard.release().await.unwrap(), Released::Held);
        assert_eq!(redis.cli(&["EXISTS", KEY]), "0");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_is_refused_and_waits_while_ours_holds() {
    for library in Library::ALL {
        let redis = Redis::start();
        let client = client(&redis);
        let guard = client.mutex(KEY).unwrap().lock().await.unwrap();
        let url = redis.url();
        Peer::start(library, &["try", &url, KEY, LONG]).expect("refused");
        let mut waiting = Peer::start(library, &["hold", &url, KEY, LONG]);
        waiting.expect("waiting");
        guard.check().unwrap();
        assert_eq!(guard.release().await.unwrap(), Released::Held, "{library:?} broke our hold");
        waiting.expect("held");
        assert!(client.mutex(KEY).unwrap().try_lock().await.unwrap().is_none(), "{library:?}");
        waiting.tell();
        waiting.expect("released");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_cluster_ours_and_a_peers_exclude_each_other_too() {
    let cluster = RedisCluster::start(&Redis::options());
    let url = cluster.url();
    let node = &cluster.nodes()[cluster.serving(KEY, 0)];
    let mut peer = holder_at(Library::RedisPy, &url, LONG);
    let token = node.cli(&["GET", KEY]);
    let mutex = Client::open(&url).unwrap().mutex(KEY).unwrap();
    assert!(matches!(mutex.attempt().await.unwrap(), Attempt::Refused(_)));
    assert_eq!(node.cli(&["GET", KEY]), token, "their hold is left alone");
    let waiting = tokio::spawn({
        let mutex = mutex.clone();
        async move { mutex.lock().await }
    });
    peer.tell();
    peer.expect("released");
    let guard = tokio::time::timeout(PATIENCE, waiting).await.unwrap().unwrap().unwrap();

    Peer::start(Library::RedisPy, &["try", &url, KEY, LONG]).expect("refused");
    let mut waiting = Peer::start(Library::RedisPy, &["hold", &url, KEY, LONG]);
    waiting.expect("waiting");
    assert_eq!(guard.release().await.unwrap(), Released::Held, "they broke our hold");
    waiting.expect("held");
    assert!(mutex.try_lock().await.unwrap().is_none());
    waiting.tell();
    waiting.expect("released");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_without_ttl_is_waited_for_and_left_alone() {
    let redis = Redis::start();
    // redis-py's default.
    let mut peer = holder(Library::RedisPy, &redis, "none");
    assert_eq!(redis.cli(&["PTTL", KEY]), "-1");
    let mutex = client(&redis).mutex(KEY).unwrap();
    assert!(mutex.try_lock().await.unwrap().is_none());
    // Longer than any interval at which the store asks again.
    let error = mutex.lock_within(Duration::from_secs(2)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    assert_eq!(redis.cli(&["PTTL", KEY]), "-1", "nobody gave it a TTL");
    peer.tell();
    peer.expect("released");
    let guard = mutex.lock_within(PATIENCE).await.unwrap();
    assert_eq!(guard.release().await.unwrap(), Released::Held);
}

#[tokio::test(flavor = "multi_thread")]
async fn ours_follows_a_peer_that_crashed_when_its_lease_has_lapsed() {
    for library in Library::ALL {
        let redis = Redis::start();
        let begun = Instant::now();
        let peer = holder(library, &redis, &milliseconds(SHORT));
        peer.kill();
        let mutex = client(&redis).mutex(KEY).unwrap();
        let guard = mutex.lock_within(PATIENCE).await.unwrap();
        assert!(begun.elapsed() >= SHORT, "{library:?} was still in its lease");
        assert_eq!(guard.release().await.unwrap(), Released::Held);
    }
}

#[test]
fn a_peer_follows_ours_that_crashed_when_its_lease_has_lapsed() {
    if let Some(url) = worker::task() {
        let client = Client::builder().url(&url).ttl(SHORT);
        let client = leasehold::blocking::Client::build(client).unwrap();
        let _guard = client.mutex(KEY).unwrap().lock().unwrap();
        worker::say("held");
        let _ = worker::hear();
        unreachable!("the worker is killed while it holds");
    }
    for library in Library::ALL {
        let redis = Redis::start();
        let mut ours = Worker::start(&test_name!(), &redis.url());
        assert_eq!(ours.line(), "held");
        let mut peer = Peer::start(library, &["hold", &redis.url(), KEY, LONG]);
        peer.expect("waiting");
        ours.pause();
        // With its holder stopped, what is left of the lease can only shrink.
        let left: u64 = redis.cli(&["PTTL", KEY]).parse().expect("our hold, with a TTL");
        let asked = Instant::now();
        ours.kill();
        peer.expect("held");
        // PTTL is rounded.
        let earliest = Duration::from_millis(left.saturating_sub(20));
        assert!(asked.elapsed() >= earliest, "{library:?} took a lease that had not lapsed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_overslept_does_not_release_our_hold() {
    for library in Library::ALL {
        let redis = Redis::start();
        let mut peer = holder(library, &redis, &milliseconds(SHORT));
        let mutex = client(&redis).mutex(KEY).unwrap();
        let guard = mutex.lock_within(PATIENCE).await.unwrap();
        peer.tell();
        peer.expect("not ours");
        Peer::start(library, &["try", &redis.url(), KEY, LONG]).expect("refused");
        assert_eq!(guard.release().await.unwrap(), Released::Held, "{library:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fences_grow_through_holds_of_peers() {
    let redis = Redis::start();
    let client = client(&redis);
    let mut last = None;
    for library in Library::ALL {
        let guard = client.mutex(KEY).unwrap().lock().await.unwrap();
        assert!(last < Some(guard.fence()));
        last = Some(guard.fence());
        guard.release().await.unwrap();
        Peer::start(library, &["try", &redis.url(), KEY, LONG]).expect("held");
    }
    let guard = client.mutex(KEY).unwrap().lock().await.unwrap();
    assert!(last < Some(guard.fence()));
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_and_writers_of_ours_refuse_a_peer_until_the_last_of_them_released() {
    for library in Library::ALL {
        let redis = Redis::start();
        let (client, url) = (client(&redis), redis.url());
        let rwlock = client.rwlock(KEY).unwrap();
        let (first, second) = (rwlock.read().await.unwrap(), rwlock.read().await.unwrap());
        Peer::start(library, &["try", &url, KEY, LONG]).expect("refused");
        assert_eq!(first.release().await.unwrap(), Released::Held);
        Peer::start(library, &["try", &url, KEY, LONG]).expect("refused");
        let mut waiting = Peer::start(library, &["hold", &url, KEY, LONG]);
        waiting.expect("waiting");
        second.check().unwrap();
        assert_eq!(second.release().await.unwrap(), Released::Held, "{library:?} broke our hold");
        waiting.expect("held");
        assert!(rwlock.try_read().await.unwrap().is_none(), "{library:?}");
        assert!(rwlock.try_write().await.unwrap().is_none(), "{library:?}");
        waiting.tell();
        waiting.expect("released");
        let writer = rwlock.write().await.unwrap();
        Peer::start(library, &["try", &url, KEY, LONG]).expect("refused");
        assert_eq!(writer.release().await.unwrap(), Released::Held);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_of_ours_wait_while_a_peer_holds_and_all_follow_it() {
    for library in Library::ALL {
        let redis = Redis::start();
        let mut peer = holder(library, &redis, LONG);
        let client = client(&redis);
        let mut waiting = JoinSet::new();
        for _ in 0..3 {
            let rwlock = client.rwlock(KEY).unwrap();
            waiting.spawn(async move { rwlock.read().await.unwrap() });
        }
        peer.tell();
        peer.expect("released");
        let guards = tokio::time::timeout(PATIENCE, waiting.join_all()).await.unwrap();
        for guard in guards {
            guard.check().unwrap();
            assert_eq!(guard.release().await.unwrap(), Released::Held);
        }
        assert_eq!(redis.cli(&["EXISTS", KEY]), "0");
    }
}

/// Everybody at once on one key: each adds to the same number, not atomically.
#[tokio::test(flavor = "multi_thread")]
async fn all_libraries_exclude_each_other() {
    const TIMES: usize = 40;
    let redis = Redis::start();
    let home = tempfile::tempdir().unwrap();
    let number = home.path().join("number");
    fs::write(&number, "0").unwrap();
    let (url, path, times) = (redis.url(), number.display().to_string(), TIMES.to_string());
    let args = ["contend", &url, KEY, LONG, &times, &path];
    // Two of each kind: of its own kind too nobody gets in.
    let kinds = Library::ALL.iter().chain(&Library::ALL);
    let mut peers: Vec<Peer> = kinds.map(|library| Peer::start(*library, &args)).collect();
    let mut tasks = JoinSet::new();
    for who in ["ours 1", "ours 2"] {
        tasks.spawn(contend_by_ours(url.clone(), who, number.clone(), TIMES));
    }
    for who in ["rslock 1", "rslock 2"] {
        tasks.spawn(contend_by_rslock(url.clone(), who, number.clone(), TIMES));
    }
    let participants = peers.len() + tasks.len();
    tasks.join_all().await;
    for peer in &mut peers {
        peer.expect("done");
    }
    assert_one_at_a_time(&path);
    assert_eq!(fs::read_to_string(&number).unwrap(), (participants * TIMES).to_string());
}

async fn contend_by_ours(url: String, who: &'static str, number: PathBuf, times: usize) {
    let client = Client::open(&url).unwrap();
    let mutex = client.mutex(KEY).unwrap();
    for _ in 0..times {
        let guard = mutex.lock().await.unwrap();
        add_one(&number, who).await;
        assert_eq!(guard.release().await.unwrap(), Released::Held);
    }
}

async fn contend_by_rslock(url: String, who: &'static str, number: PathBuf, times: usize) {
    let mut locks = rslock::LockManager::new(vec![url]);
    locks.set_retry(u32::MAX, Duration::from_millis(10));
    for _ in 0..times {
        let lock = locks.acquire_no_guard(KEY, PATIENCE).await.unwrap();
        add_one(&number, who).await;
        locks.unlock(&lock).await;
    }
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

fn assert_one_at_a_time(number: &str) {
    let log = fs::read_to_string(format!("{number}.log")).unwrap();
    let lines: Vec<&str> = log.lines().collect();
    for pair in lines.chunks(2) {
        let [begin, end] = pair else { panic!("{pair:?} has no end") };
        let who = begin.strip_prefix("begin ");
        assert!(who.is_some() && who == end.strip_prefix("end "), "two at once: {pair:?}");
    }
}
