//! Ours and the ecosystem's own recipes exclude each other on the same key, both ways.
//!
//! `etcdctl lock` is `concurrency.Mutex` of etcd's Go client, word for word; the server itself
//! runs the same recipe behind the `v3lockpb` service.

use std::path::PathBuf;
use std::process::Command;

use leasehold::core::{Fence, Left, Place};
use leasehold_testbed::{Etcd, Process};
use prost::Message;
use tempfile::TempDir;

use super::{Node, ahead, claim, key, share, soon};

/// `etcdctl lock NAME COMMAND`, which holds until it is told to go on.
struct EtcdctlLock {
    process: Process,
    /// The command reads from this: `etcdctl` gives it no standard input.
    pipe: PathBuf,
    _home: TempDir,
}

impl EtcdctlLock {
    /// Begins to wait for the lock.
    fn begin(etcd: &Etcd, name: &str) -> Self {
        let home = TempDir::new().unwrap();
        let pipe = home.path().join("pipe");
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let script = format!(r#"echo "$ETCD_LOCK_REV"; read -r _ <{}"#, pipe.display());
        let process = etcd.ctl_runs(&["lock", name, "--", "sh", "-c", &script]);
        Self { process, pipe, _home: home }
    }

    /// The revision it was granted at. Blocks until then.
    fn granted(&mut self) -> Fence {
        let line = self.process.line().expect("it prints its revision");
        Fence::new(line.trim().parse().expect("a number"))
    }

    fn release(mut self) {
        std::fs::write(&self.pipe, "go on\n").unwrap();
        assert_eq!(self.process.wait(), 0);
    }
}

pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    soon(tokio::task::spawn_blocking(work)).await.unwrap()
}

/// Waits until `n` contenders stand below `name`, so that the order of arrival is certain.
pub(super) async fn until_in_line(node: &Node, name: &str, n: usize) {
    soon(async {
        loop {
            let line = node.store.inspect(&key(name)).await.unwrap();
            if line.holders.len() + line.waiters.len() >= n {
                return;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn etcdctl_lock_waits_for_ours_and_ours_for_it() {
    let etcd = Etcd::start();
    let node = Node::new(&etcd.url()).await;
    let ours = claim("job/7");
    let first = node.acquire(&ours).await;

    let mut theirs = EtcdctlLock::begin(&etcd, "job/7");
    until_in_line(&node, "job/7", 2).await;
    let line = node.store.inspect(&key("job/7")).await.unwrap();
    assert_eq!((line.holders.len(), line.waiters.len()), (1, 1));
    assert_eq!(line.waiters[0].claim, None, "it is not of leasehold");
    assert!(line.waiters[0].left.is_some(), "and lapses by its own lease");

    assert_eq!(node.leave(&ours).await, Left::Released);
    let (theirs, second) = blocking(move || {
        let revision = theirs.granted();
        (theirs, revision)
    })
    .await;

    let again = claim("job/7");
    let refused = ahead(node.attempt(&again).await);
    assert!(refused.foreign, "{refused:?}");
    assert_eq!(refused.rank, Some(0));
    assert!(matches!(node.enter(&again).await, Place::Waiting(_)));
    blocking(move || theirs.release()).await;
    let third = node.wait(&again).await;

    assert!(first < second && second < third, "{first} {second} {third}");
}

#[tokio::test(flavor = "multi_thread")]
async fn fences_and_etcd_lock_rev_are_in_order_through_a_mixed_line() {
    let etcd = Etcd::start();
    let node = Node::new(&etcd.url()).await;
    let mut fences = Vec::new();
    let mut ours = claim("k");
    fences.push(node.acquire(&ours).await);
    for round in 0..4 {
        let mut theirs = EtcdctlLock::begin(&etcd, "k");
        until_in_line(&node, "k", 2).await;
        let next = claim("k");
        assert!(matches!(node.enter(&next).await, Place::Waiting(_)), "behind the foreign one");
        // Other writes between grant and release: a revision counts for the whole cluster.
        etcd.ctl(&["put", "elsewhere", &round.to_string()]);
        assert_eq!(node.leave(&ours).await, Left::Released);
        let (theirs, revision) = blocking(move || {
            let revision = theirs.granted();
            (theirs, revision)
        })
        .await;
        fences.push(revision);
        blocking(move || theirs.release()).await;
        fences.push(node.wait(&next).await);
        ours = next;
    }
    assert!(fences.is_sorted_by(|a, b| a < b), "{fences:?}");
}

#[derive(Clone, PartialEq, Message)]
struct LockRequest {
    #[prost(bytes = "vec", tag = "1")]
    name: Vec<u8>,
    #[prost(int64, tag = "2")]
    lease: i64,
}

#[derive(Clone, PartialEq, Message)]
struct UnlockRequest {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
}

/// The answer to both: an unlock has no key.
#[derive(Clone, PartialEq, Message)]
struct LockResponse {
    #[prost(bytes = "vec", tag = "2")]
    key: Vec<u8>,
}

/// Calls a service of the server's own.
pub(super) async fn call<Q, R>(port: u16, method: &'static str, request: Q) -> R
where
    Q: Message + 'static,
    R: Message + Default + 'static,
{
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://127.0.0.1:{port}"));
    let mut grpc = tonic::client::Grpc::new(endpoint.unwrap().connect().await.unwrap());
    grpc.ready().await.unwrap();
    let path = http::uri::PathAndQuery::from_static(method);
    let codec = tonic_prost::ProstCodec::default();
    grpc.unary(tonic::Request::new(request), path, codec).await.unwrap().into_inner()
}

/// A lease that outlasts the test.
pub(super) fn lease(etcd: &Etcd) -> i64 {
    let granted = etcd.ctl_says(&["lease", "grant", "600"]);
    let lease = granted.split_whitespace().nth(1).expect("an id");
    i64::from_str_radix(lease, 16).unwrap()
}

const LOCK: &str = "/v3lockpb.Lock/Lock";
const UNLOCK: &str = "/v3lockpb.Lock/Unlock";

#[tokio::test(flavor = "multi_thread")]
async fn the_v3lock_service_and_ours_exclude_each_other() {
    let etcd = Etcd::start();
    let node = Node::new(&etcd.url()).await;
    let port = etcd.ports()[0];
    let lease = lease(&etcd);

    let ours = claim("k");
    let first = node.acquire(&ours).await;
    let request = LockRequest { name: b"k".to_vec(), lease };
    let theirs = tokio::spawn(call::<_, LockResponse>(port, LOCK, request));
    until_in_line(&node, "k", 2).await;
    assert!(!theirs.is_finished(), "it waits for ours");
    assert_eq!(node.leave(&ours).await, Left::Released);
    let theirs = soon(theirs).await.unwrap();
    assert_eq!(theirs.key, format!("k/{lease:x}").into_bytes());

    let next = claim("k");
    assert!(ahead(node.enter(&next).await).foreign);
    let _: LockResponse = call(port, UNLOCK, UnlockRequest { key: theirs.key }).await;
    assert!(node.wait(&next).await > first);
}

/// It knows no units: one is the whole lock to it, and it is all units to ours.
#[tokio::test(flavor = "multi_thread")]
async fn etcdctl_lock_waits_for_a_unit_of_our_semaphore_and_ours_for_it() {
    let etcd = Etcd::start();
    let node = Node::new(&etcd.url()).await;
    let [first, second] = [share("k", 1, 3), share("k", 1, 3)];
    node.acquire(&first).await;
    let mut theirs = EtcdctlLock::begin(&etcd, "k");
    until_in_line(&node, "k", 2).await;
    assert!(matches!(node.enter(&second).await, Place::Waiting(_)), "behind the foreign one");
    assert_eq!(node.leave(&first).await, Left::Released);
    let theirs = blocking(move || {
        theirs.granted();
        theirs
    })
    .await;
    assert!(ahead(node.enter(&second).await).foreign);
    blocking(move || theirs.release()).await;
    node.wait(&second).await;
}

/// Their sessions' keys are `K/<lease>`: two locks of one session on one key are one. Ours are two.
#[tokio::test]
async fn two_claims_of_one_session_do_not_delete_one_another() {
    let etcd = Etcd::start();
    let node = Node::new(&etcd.url()).await;
    let [first, second] = [claim("k"), claim("k")];
    node.acquire(&first).await;
    assert!(matches!(node.enter(&second).await, Place::Waiting(_)));
    assert_eq!(node.leave(&second).await, Left::Withdrawn);
    assert!(matches!(node.attempt(&claim("k")).await, Place::Refused(_)), "the first still holds");
}
