//! What a server says when it will not do what it is asked, and what that means for a lock.

use leasehold::core::{Enter, Left, Renewed};
use leasehold::{Effect, Error, ErrorKind, Store};

use crate::server::{Raw, Server};
use crate::{Node, claim, soon};

async fn refused(node: &Node, key: &str) -> Error {
    node.store.enter(&node.session, &claim(key), Enter::Wait).await.unwrap_err()
}

/// Refused before anything was done, so that asking again is always right.
#[track_caller]
fn had_no_effect(error: &Error, kind: ErrorKind, says: &str) {
    assert_eq!((error.kind(), error.effect()), (kind, Effect::None), "{error}");
    assert!(error.to_string().contains(says), "{error}");
    assert_eq!(error.is_transient(), kind == ErrorKind::Unavailable);
}

fn set(raw: &mut Raw, directive: &str, value: &str) {
    let _: String = raw.run(&["CONFIG", "SET", directive, value]);
}

#[tokio::test]
async fn a_full_memory_stops_grants_and_neither_renewals_nor_releases() {
    let server = Server::start();
    let (node, mut raw) = (Node::new(&server.url()).await, server.raw());
    let (held, waiting, other) = (claim("job"), claim("job"), claim("other"));
    let first = node.acquire(&held).await;
    node.enter(&waiting).await;
    node.acquire(&other).await;
    let _: String = raw.run(&["SET", "big", &"x".repeat(1 << 20)]);
    set(&mut raw, "maxmemory", "1mb");
    had_no_effect(&refused(&node, "new").await, ErrorKind::Full, "maxmemory");
    had_no_effect(&refused(&node, "job").await, ErrorKind::Full, "maxmemory");
    assert_eq!(raw.run::<i64>(&["EXISTS", "new"]), 0);
    assert!(node.extends(&held).await, "the hold goes on");
    assert_eq!(node.leave(&held).await, Left::Released);
    let next = soon(node.changed(&waiting)).await;
    let next = crate::fence(&next.expect("the next in line is granted in the same step"));
    assert!(next > first);
    assert!(node.store.revoke(&other.key, &other.id).await.unwrap());
    assert_eq!(node.leave(&waiting).await, Left::Released);
    let _: i64 = raw.run(&["DEL", "big"]);
    set(&mut raw, "maxmemory", "0");
    assert!(node.acquire(&claim("job")).await > next);
}

#[tokio::test]
async fn an_evicted_lock_is_a_loss_that_its_holder_learns_of_and_the_fence_grows() {
    let server = Server::start();
    let (node, mut raw) = (Node::new(&server.url()).await, server.raw());
    let held = claim("job");
    let first = node.acquire(&held).await;
    set(&mut raw, "maxmemory-policy", "allkeys-lru");
    set(&mut raw, "maxmemory", "1");
    // Any write makes room; there is never enough.
    for _ in 0..100 {
        let _: Result<String, _> = raw.attempt(&["SET", "filler", "x"]);
    }
    assert_eq!(raw.run::<i64>(&["DBSIZE"]), 0, "the key and its memory");
    assert_eq!(node.renew(&held).await, Renewed::Extended { lost: vec![held.id] });
    assert_eq!(node.leave(&held).await, Left::Gone);
    set(&mut raw, "maxmemory", "0");
    assert!(node.acquire(&claim("job")).await > first);
}

#[tokio::test]
async fn too_few_replicas_stop_every_write() {
    let server = Server::start();
    let (node, mut raw) = (Node::new(&server.url()).await, server.raw());
    let held = claim("job");
    let first = node.acquire(&held).await;
    set(&mut raw, "min-replicas-to-write", "1");
    had_no_effect(&refused(&node, "new").await, ErrorKind::Unavailable, "min-replicas-to-write");
    let renewed = node.store.renew(&node.session, std::slice::from_ref(&held)).await;
    had_no_effect(&renewed.unwrap_err(), ErrorKind::Unavailable, "min-replicas-to-write");
    let left = node.store.leave(&node.session, &held).await;
    had_no_effect(&left.unwrap_err(), ErrorKind::Unavailable, "min-replicas-to-write");
    assert_eq!(raw.run::<String>(&["GET", "job"]), held.id.to_hex());
    set(&mut raw, "min-replicas-to-write", "0");
    assert_eq!(node.acquire(&held).await, first, "asked again");
    assert_eq!(node.leave(&held).await, Left::Released);
}

#[tokio::test]
async fn a_disk_that_cannot_be_written_stops_every_write() {
    let server = Server::start();
    let (node, mut raw) = (Node::new(&server.url()).await, server.raw());
    let held = claim("job");
    node.acquire(&held).await;
    set(&mut raw, "save", "3600 1");
    // A directory stands where the file would go.
    std::fs::create_dir(server.dir.path().join("dump.rdb")).unwrap();
    let _: Result<String, _> = raw.attempt(&["BGSAVE"]);
    soon(async {
        while raw.info_text("persistence", "rdb_last_bgsave_status") != "err" {
            // sleep: it is written in the background; asked again.
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    })
    .await;
    had_no_effect(&refused(&node, "new").await, ErrorKind::Full, "disk");
    let left = node.store.leave(&node.session, &held).await;
    had_no_effect(&left.unwrap_err(), ErrorKind::Full, "disk");
    set(&mut raw, "stop-writes-on-bgsave-error", "no");
    assert_eq!(node.leave(&held).await, Left::Released);
}

#[tokio::test]
async fn a_replica_that_lost_its_primary_is_left() {
    let server = Server::start();
    let (node, mut raw) = (Node::new(&server.url()).await, server.raw());
    set(&mut raw, "replica-serve-stale-data", "no");
    let _: String = raw.run(&["REPLICAOF", "127.0.0.1", "1"]);
    had_no_effect(&refused(&node, "job").await, ErrorKind::Unavailable, "lost its primary");
    let _: String = raw.run(&["REPLICAOF", "NO", "ONE"]);
    node.acquire(&claim("job")).await;
}

#[tokio::test]
async fn a_server_that_loads_its_data_is_waited_for() {
    let mut server = Server::with(&["--enable-debug-command", "yes"]);
    let mut raw = server.raw();
    let _: String = raw.run(&["DEBUG", "POPULATE", "20000", "k", "100"]);
    let _: String = raw.run(&["SAVE"]);
    // Microseconds for each key.
    set(&mut raw, "key-load-delay", "500");
    set(&mut raw, "loading-process-events-interval-bytes", "1024");
    let node = Node::new(&server.url()).await;
    // Reads what it saved, before the eyes of all who are connected.
    let reload = std::thread::spawn({
        let mut raw = server.raw();
        move || raw.attempt::<String>(&["DEBUG", "RELOAD", "NOSAVE"])
    });
    soon(async {
        while raw.info_text("persistence", "loading") != "1" {
            assert!(!reload.is_finished(), "it loads too fast to be seen");
            // sleep: it begins in time; asked again.
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
    })
    .await;
    had_no_effect(&refused(&node, "job").await, ErrorKind::Unavailable, "loading");
    let fresh = leasehold::stores::Redis::new(&server.url()).unwrap();
    let error = fresh.open(&crate::terms(crate::TTL)).await;
    assert!(error.is_ok() || error.unwrap_err().is_transient());
    set(&mut raw, "key-load-delay", "0");
    let _ = reload.join().unwrap();
    node.acquire(&claim("job")).await;
    server.stop();
}

#[tokio::test]
async fn a_server_that_runs_somebody_elses_script_is_waited_for() {
    let server = Server::start();
    let (node, mut raw) = (Node::new(&server.url()).await, server.raw());
    set(&mut raw, "busy-reply-threshold", "1");
    let script = std::thread::spawn({
        let mut raw = server.raw();
        move || raw.attempt::<i64>(&["EVAL", "while true do end", "0"])
    });
    let busy = soon(async {
        loop {
            match node.store.enter(&node.session, &claim("job"), Enter::Try).await {
                Err(error) if error.to_string().contains("somebody's script") => break error,
                _ => tokio::task::yield_now().await,
            }
        }
    })
    .await;
    had_no_effect(&busy, ErrorKind::Unavailable, "busy");
    let _: String = raw.run(&["SCRIPT", "KILL"]);
    assert!(script.join().unwrap().is_err());
    soon(node.wait(&claim("other"))).await;
}
