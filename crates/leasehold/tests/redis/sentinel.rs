//! Servers that sentinels watch over, and swap.

use std::time::Duration;

use leasehold::core::{Enter, Left, Place, Provided, Record, Renewed};
use leasehold::stores::Redis;
use leasehold::{Client, ErrorKind, Store};
use leasehold_testbed::{Redis as TestRedis, RedisSentinel};

use crate::{Node, TTL, claim, fence, share, soon, terms};

fn servers() -> RedisSentinel {
    RedisSentinel::start(&TestRedis::options())
}

/// Asks until the store answers, as the session does.
async fn held_in_the_end(node: &Node, claim: &leasehold::core::Claim) -> leasehold::Fence {
    soon(async {
        loop {
            match node.store.enter(&node.session, claim, Enter::Wait).await {
                Ok(Place::Held(fence)) => return fence,
                Ok(_) => {}
                Err(error) => assert!(error.is_transient(), "{error}"),
            }
            // sleep: the failover takes its time; asked again.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
}

#[tokio::test]
async fn a_hold_and_the_line_go_on_after_a_failover() {
    let servers = servers();
    let (node, other) = (Node::new(&servers.url()).await, Node::new(&servers.url()).await);
    let (held, waiting) = (claim("job"), claim("job"));
    let first = node.acquire(&held).await;
    other.enter(&waiting).await;
    // Both writes are with the replica.
    assert_eq!(servers.servers()[0].cli(&["WAIT", "1", "10000"]), "1");
    servers.servers()[0].kill();
    servers.until_primary(1);
    assert_eq!(held_in_the_end(&node, &held).await, first, "the same hold");
    assert!(node.extends(&held).await);
    assert_eq!(node.leave(&held).await, Left::Released);
    assert!(held_in_the_end(&other, &waiting).await > first);
}

#[tokio::test]
async fn shares_and_records_go_on_after_a_failover() {
    let servers = servers();
    let (node, other) = (Node::new(&servers.url()).await, Node::new(&servers.url()).await);
    let (first, second, waiting) = (share("job", 1, 2), share("job", 1, 2), share("job", 2, 2));
    let fences = [node.acquire(&first).await, other.acquire(&second).await];
    other.enter(&waiting).await;
    let record = Record::new(b"kept", TTL).unwrap();
    assert!(node.store.write(&first.key, Provided::Unchanged(None), &record).await.unwrap());
    let before = node.store.read(&first.key).await.unwrap();
    assert_eq!(servers.servers()[0].cli(&["WAIT", "1", "10000"]), "1");
    servers.servers()[0].kill();
    servers.until_primary(1);
    assert_eq!(held_in_the_end(&node, &first).await, fences[0], "the same hold");
    assert_eq!(held_in_the_end(&other, &second).await, fences[1], "the same hold");
    assert!(node.extends(&first).await && other.extends(&second).await);
    assert_eq!(node.store.read(&first.key).await.unwrap().written, before.written);
    let under = Provided::Held(&node.session, &first);
    assert!(node.store.write(&first.key, under, &record).await.unwrap());
    assert_eq!(node.leave(&first).await, Left::Released);
    assert_eq!(other.leave(&second).await, Left::Released);
    assert!(held_in_the_end(&other, &waiting).await > fences[1]);
}

#[tokio::test]
async fn what_the_replica_never_had_is_lost_and_the_fence_grows_all_the_same() {
    let servers = servers();
    let (node, other) = (Node::new(&servers.url()).await, Node::new(&servers.url()).await);
    let (held, next) = (claim("job"), claim("job"));
    node.acquire(&claim("before")).await;
    // The replica is cut off before the grant and does not learn of it.
    servers.servers()[1].cli(&["REPLICAOF", "NO", "ONE"]);
    let lost = node.acquire(&held).await;
    servers.servers()[0].kill();
    servers.until_primary(1);
    let after = held_in_the_end(&other, &next).await;
    assert!(after > lost, "{after:?} after {lost:?}");
    let renewed = node.store.renew(&node.session, std::slice::from_ref(&held)).await.unwrap();
    assert_eq!(renewed, Renewed::Extended { lost: vec![held.id] }, "the holder learns of it");
}

#[tokio::test]
async fn a_primary_that_still_runs_is_left_when_the_sentinels_name_another() {
    let servers = servers();
    let node = Node::new(&servers.url()).await;
    let held = claim("job");
    node.acquire(&held).await;
    assert_eq!(servers.servers()[0].cli(&["WAIT", "1", "10000"]), "1");
    servers.servers()[0].pause();
    servers.until_primary(1);
    // Nothing was asked of it meanwhile: only the sentinels can have told.
    soon(node.store.disturbed(&node.session)).await;
    // They cannot have told the old one yet that it is none any more.
    servers.servers()[0].resume();
    let first = held_in_the_end(&node, &held).await;
    let inspected = servers.servers()[1].cli(&["GET", "job"]);
    assert_eq!(inspected, held.id.to_hex(), "asked where the sentinels say");
    assert_eq!(node.leave(&held).await, Left::Released);
    let next = claim("job");
    assert!(node.acquire(&next).await > first);
    assert_eq!(servers.servers()[1].cli(&["GET", "job"]), next.id.to_hex());
}

#[tokio::test]
async fn a_client_waits_through_a_failover() {
    let servers = servers();
    let client = |owner: &str| {
        let builder = Client::builder().url(&servers.url()).ttl(Duration::from_secs(20));
        builder.owner(owner).build().unwrap()
    };
    let (holder, waiter) = (client("holder"), client("waiter"));
    let guard = holder.mutex("job").unwrap().lock().await.unwrap();
    let fence = guard.fence();
    let waiting = tokio::spawn(async move {
        let guard = waiter.mutex("job").unwrap().lock().await.unwrap();
        (guard.fence(), waiter)
    });
    soon(async {
        while holder.store().inspect(guard.key()).await.unwrap().waiters.is_empty() {
            // sleep: nobody tells; asked again.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    assert_eq!(servers.servers()[0].cli(&["WAIT", "1", "10000"]), "1");
    servers.servers()[0].kill();
    servers.until_primary(1);
    assert!(guard.check().is_ok(), "20 s are longer than the failover");
    // Released in the background, as often as it takes.
    drop(guard);
    let (next, _waiter) = soon(waiting).await.unwrap();
    assert!(next > fence);
}

#[tokio::test]
async fn sentinels_that_are_gone_or_deaf_cost_nothing_but_time() {
    let servers = servers();
    servers.kill_sentinel(0);
    servers.pause_sentinel(1);
    let node = Node::new(&servers.url()).await;
    let held = claim("job");
    node.acquire(&held).await;
    // Without any sentinel the primary goes on being asked.
    servers.kill_sentinel(2);
    assert!(node.extends(&held).await);
    let error = Redis::new(&servers.url()).unwrap().open(&terms(TTL)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.to_string().contains("no sentinel could name the primary"), "{error}");
    servers.resume_sentinel(1);
}

#[tokio::test]
async fn a_group_that_the_sentinels_do_not_know_is_named() {
    let servers = servers();
    let url = servers.url().replace("/locks", "/lokcs");
    let error = Redis::new(&url).unwrap().open(&terms(TTL)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("`lokcs`"), "{error}");
}

#[tokio::test]
async fn a_sentinel_is_no_server_and_a_server_no_sentinel() {
    let servers = servers();
    let (_, hosts) = servers.url().split_once("://").map(|(a, b)| (a.len(), b.to_owned())).unwrap();
    let first = hosts.split(',').next().unwrap();
    let error = Redis::new(&format!("redis://{first}")).unwrap().open(&terms(TTL)).await;
    let error = error.unwrap_err();
    assert!(error.to_string().contains("redis+sentinel://"), "{error}");
    let port = servers.servers()[0].port();
    let url = format!("redis+sentinel://127.0.0.1:{port}/locks");
    let error = Redis::new(&url).unwrap().open(&terms(TTL)).await.unwrap_err();
    assert!(error.to_string().contains("not a sentinel"), "{error}");
}

#[tokio::test]
async fn a_grant_counts_only_when_the_replicas_have_it() {
    let servers = servers();
    let url = format!("{}?replicas=1", servers.url());
    let (node, other) = (Node::new(&url).await, Node::new(&url).await);
    let (held, waiting) = (claim("job"), claim("job"));
    let first = node.acquire(&held).await;
    assert_eq!(servers.servers()[1].cli(&["GET", "job"]), held.id.to_hex(), "the replica has it");

    // A hand-over is confirmed by asking: it was another's connection that wrote it.
    other.enter(&waiting).await;
    assert_eq!(node.leave(&held).await, Left::Released);
    let told = soon(other.store.changed(&other.session, &waiting)).await.unwrap();
    assert_eq!(told, None);
    assert!(fence(&other.enter(&waiting).await) > first);

    servers.servers()[1].pause();
    let reader = share("shared", 1, u32::MAX);
    let refused = [
        node.store.enter(&node.session, &reader, Enter::Try).await.map(drop).unwrap_err(),
        node.store.enter(&node.session, &reader, Enter::Wait).await.map(drop).unwrap_err(),
        node.store.renew(&node.session, std::slice::from_ref(&reader)).await.map(drop).unwrap_err(),
        {
            let record = Record::new(b"kept", TTL).unwrap();
            let under = Provided::Held(&node.session, &reader);
            node.store.write(&reader.key, under, &record).await.map(drop).unwrap_err()
        },
    ];
    for error in refused {
        assert!(error.to_string().contains("0 of the 1 replicas"), "{error}");
        assert_eq!(error.effect(), leasehold::Effect::Unknown);
    }
    let error = node.store.enter(&node.session, &claim("other"), Enter::Try).await.unwrap_err();
    assert!(error.to_string().contains("0 of the 1 replicas"), "{error}");
    assert_eq!(error.effect(), leasehold::Effect::Unknown, "the session gives it back");
    let renewed = other.store.renew(&other.session, std::slice::from_ref(&waiting)).await;
    assert!(renewed.unwrap_err().to_string().contains("0 of the 1 replicas"));
    servers.servers()[1].resume();
    assert!(other.extends(&waiting).await);
}
