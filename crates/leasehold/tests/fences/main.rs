//! A holder is paused past its lease, another writes, the first wakes and writes: every resource
//! refuses it. And whatever comes at once, what a resource accepts never decreases.

#[cfg(feature = "etcd")]
mod etcd;
mod file;
#[cfg(all(feature = "tower", feature = "sqlite"))]
mod http;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "redis")]
mod redis;
#[cfg(feature = "sqlite")]
mod sqlite;
#[cfg(feature = "zookeeper")]
mod zookeeper;

use std::time::Duration;

use leasehold::{Client, ClientBuilder, Guard};
use leasehold_testbed::{Worker, worker};

/// Every store here keeps it; a pause outlasts it.
const TTL: Duration = Duration::from_secs(2);

/// What a lock protects, as its holders see it: each in a process of its own.
trait Resource: Sized {
    /// What a holder needs to write.
    type Hold;

    /// Opens what is at `address`, locked at `lock`.
    async fn open(lock: &str, address: &str) -> Self;

    /// The client that locks it.
    fn client(&self, lock: &str) -> ClientBuilder {
        Client::builder().url(lock)
    }

    fn hold(&self, guard: &Guard) -> Self::Hold;

    /// Writes, or tells why not.
    async fn write(&self, hold: &Self::Hold, value: &str) -> Result<(), String>;

    async fn read(&self) -> String;
}

/// Both processes: the one that is paused, and the test itself. `start` starts the servers, and says
/// where the locks are and where the resource is.
fn a_paused_holder_is_refused<R: Resource, S>(
    name: &str,
    start: impl FnOnce() -> (S, String, String),
    refusal: &str,
) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    if let Some(task) = worker::task() {
        return runtime.block_on(paused::<R>(&task));
    }
    let (_servers, lock, address) = start();
    let mut paused = Worker::start(name, &format!("{lock}\t{address}"));
    let old: u64 = paused.line().parse().expect("a fence");
    paused.pause();
    runtime.block_on(async {
        let resource = R::open(&lock, &address).await;
        assert_eq!(resource.read().await, "first");
        let client = resource.client(&lock).ttl(TTL).build().unwrap();
        // As soon as the lease has lapsed.
        let guard = client.mutex("jobs/42").unwrap().lock().await.unwrap();
        assert!(guard.fence().get() > old);
        let hold = resource.hold(&guard);
        resource.write(&hold, "second").await.unwrap();

        paused.resume();
        paused.send("write");
        let outcome = paused.line();
        assert!(outcome.starts_with("refused") && outcome.contains(refusal), "{outcome}");
        assert_eq!(resource.read().await, "second");
        // The one who holds writes on.
        resource.write(&hold, "third").await.unwrap();
        assert_eq!(resource.read().await, "third");
        guard.release().await.unwrap();
        client.close().await.unwrap();
    });
    paused.finish();
}

async fn paused<R: Resource>(task: &str) {
    let (lock, address) = task.split_once('\t').expect("a lock and an address");
    let resource = R::open(lock, address).await;
    let client = resource.client(lock).ttl(TTL).build().unwrap();
    let guard = client.mutex("jobs/42").unwrap().lock().await.unwrap();
    let hold = resource.hold(&guard);
    resource.write(&hold, "first").await.unwrap();
    worker::say(&guard.fence().to_string());
    assert_eq!(worker::hear().as_deref(), Some("write"));
    // It knows nothing of its pause, and does not ask its guard.
    let outcome = match resource.write(&hold, "stale").await {
        Ok(()) => "accepted".to_owned(),
        Err(why) => format!("refused: {}", why.replace('\n', " ")),
    };
    worker::say(&outcome);
    drop(guard);
    let _ = client.close().await;
}

/// Numbers that go up and down by as much as `spread`, and up in the long run: so that many are
/// fresh and many are stale. The same in every run.
fn numbers(seed: u64, spread: u64) -> impl Iterator<Item = u64> {
    std::iter::successors(Some(seed), |last| {
        Some(last.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407))
    })
    .skip(1)
    .zip(1..)
    .map(move |(number, n)| (number >> 33) % spread + n * spread / 20)
}

#[track_caller]
fn assert_never_decreases(accepted: &[u64]) {
    let falls: Vec<_> = accepted.windows(2).filter(|pair| pair[1] < pair[0]).collect();
    assert!(falls.is_empty(), "{falls:?} of {accepted:?}");
}
