//! A replica that takes over from its primary.

use std::time::Duration;

use leasehold::core::{Left, Place, Renewed};
use leasehold::{Client, Store};
use leasehold_testbed::{Redis, RedisCluster};

use super::{cluster, held_in_the_end, key_of};
use crate::{Node, claim, soon};

#[tokio::test]
async fn what_the_replica_has_goes_on_after_the_primary_was_killed() {
    let cluster = cluster();
    let url = format!("{}?replicas=1", cluster.url());
    let (node, other) = (Node::new(&url).await, Node::new(&url).await);
    let key = key_of(0, 0);
    let (held, waiting) = (claim(&key), claim(&key));
    let elsewhere = claim(&key_of(1, 0));
    let first = node.acquire(&held).await;
    node.acquire(&elsewhere).await;
    other.enter(&waiting).await;
    assert!(other.extends(&waiting).await, "and the replica has the line");
    cluster.nodes()[0].kill();
    soon(node.store.disturbed(&node.session)).await;
    assert!(node.extends(&elsewhere).await, "the other nodes go on meanwhile");
    cluster.until_served_by(&key, 3);
    // Without a second replica nobody can confirm any more.
    let url = cluster.url();
    let (node, other) = (Node { store: store(&url), ..node }, Node { store: store(&url), ..other });
    assert_eq!(held_in_the_end(&node, &held).await, first, "the same hold");
    assert!(node.extends(&held).await);
    assert_eq!(node.leave(&held).await, Left::Released);
    assert!(held_in_the_end(&other, &waiting).await > first);
}

fn store(url: &str) -> leasehold::stores::Redis {
    leasehold::stores::Redis::new(url).unwrap()
}

#[tokio::test]
async fn what_the_replica_never_had_is_lost_and_the_fence_grows_all_the_same() {
    let cluster = RedisCluster::start(&Redis::options().password("s3cret"));
    let (node, other) = (Node::new(&cluster.url()).await, Node::new(&cluster.url()).await);
    let key = key_of(0, 0);
    let (held, next) = (claim(&key), claim(&key));
    // The replica loses its primary, and may not come back to it.
    cluster.nodes()[3].cli(&["CONFIG", "SET", "masterauth", "wrong"]);
    cluster.nodes()[0].cli(&["CLIENT", "KILL", "TYPE", "replica"]);
    let lost = node.acquire(&held).await;
    cluster.nodes()[0].kill();
    cluster.until_served_by(&key, 3);
    let after = held_in_the_end(&other, &next).await;
    assert!(after > lost, "{after:?} after {lost:?}");
    let renewed = soon(async {
        loop {
            match node.store.renew(&node.session, std::slice::from_ref(&held)).await {
                Ok(renewed) => return renewed,
                // Its connection to the dead node told it first.
                Err(error) => assert!(error.is_transient(), "{error}"),
            }
            // sleep: it looks for the new primary in the background; asked again.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    assert_eq!(renewed, Renewed::Extended { lost: vec![held.id] }, "the holder learns of it");
}

#[tokio::test]
async fn a_primary_that_was_paused_is_left_and_comes_back_as_a_replica() {
    let cluster = cluster();
    // Patient enough to be there when it comes back.
    let patient = Node::new(&format!("{}?timeout=20s&replicas=1", cluster.url())).await;
    let node = Node::new(&cluster.url()).await;
    let key = key_of(0, 0);
    let held = claim(&key);
    let first = patient.acquire(&held).await;
    cluster.nodes()[0].pause();
    let roll = std::slice::from_ref(&held);
    let hanging = patient.store.renew(&patient.session, roll);
    let after = async {
        cluster.until_served_by(&key, 3);
        let again = Node { store: store(&cluster.url()), session: patient.session.clone() };
        assert_eq!(held_in_the_end(&again, &held).await, first, "the same hold");
        assert_eq!(again.leave(&held).await, Left::Released);
        let next = claim(&key);
        let fence = held_in_the_end(&node, &next).await;
        cluster.nodes()[0].resume();
        cluster.until_served_by(&key, 3);
        (next, fence)
    };
    let (hung, (next, fence)) = tokio::join!(hanging, after);
    assert!(fence > first);
    if let Ok(renewed) = hung {
        // Answered by the new one, or by the old one before it knew: the hold is over either way.
        assert!(matches!(renewed, Renewed::Extended { .. }));
    }
    let renewed = patient.store.renew(&patient.session, roll).await.unwrap();
    assert_eq!(renewed, Renewed::Extended { lost: vec![held.id] });
    assert!(node.extends(&next).await);
    assert_eq!(cluster.nodes()[3].cli(&["GET", &key]), next.id.to_hex());
}

#[tokio::test]
async fn a_client_waits_through_a_failover() {
    let cluster = cluster();
    let client = |owner: &str| {
        let url = cluster.url();
        let builder = Client::builder().url(&url).ttl(Duration::from_secs(20));
        builder.owner(owner).build().unwrap()
    };
    let (holder, waiter) = (client("holder"), client("waiter"));
    let key = key_of(2, 0);
    let guard = holder.mutex(key.as_str()).unwrap().lock().await.unwrap();
    let fence = guard.fence();
    let waiting = tokio::spawn({
        let key = key.clone();
        async move {
            let guard = waiter.mutex(key.as_str()).unwrap().lock().await.unwrap();
            (guard.fence(), waiter)
        }
    });
    soon(async {
        while holder.store().inspect(guard.key()).await.unwrap().waiters.is_empty() {
            // sleep: nobody tells; asked again.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    // An orderly failover: the replica has everything.
    assert_eq!(cluster.nodes()[5].cli(&["CLUSTER", "FAILOVER"]), "OK");
    cluster.until_served_by(&key, 5);
    cluster.nodes()[2].kill();
    assert!(guard.check().is_ok(), "20 s are longer than the failover");
    // Released in the background, as often as it takes.
    drop(guard);
    let (next, _waiter) = soon(waiting).await.unwrap();
    assert!(next > fence);
}

#[tokio::test]
async fn who_was_idle_during_a_failover_notices_nothing() {
    let cluster = cluster();
    let node = Node::new(&cluster.url()).await;
    let key = key_of(0, 0);
    node.leave(&{
        let held = claim(&key);
        node.acquire(&held).await;
        held
    })
    .await;
    assert_eq!(cluster.nodes()[3].cli(&["CLUSTER", "FAILOVER"]), "OK");
    cluster.until_served_by(&key, 3);
    cluster.nodes()[0].kill();
    soon(node.store.disturbed(&node.session)).await;
    // Not even a try, which does not wait for a dead node.
    let held = claim(&key);
    assert!(matches!(node.attempt(&held).await, Place::Held(_)));
    assert_eq!(cluster.nodes()[3].cli(&["GET", &key]), held.id.to_hex());
}

#[tokio::test]
async fn a_grant_counts_only_when_the_replica_has_it() {
    let cluster = cluster();
    let url = format!("{}?replicas=1&timeout=1s", cluster.url());
    let node = Node::new(&url).await;
    let (kept, other) = (claim(&key_of(0, 0)), claim(&key_of(1, 0)));
    node.acquire(&kept).await;
    let keys = cluster.nodes()[3].cli(&["KEYS", kept.key.as_str()]);
    assert_eq!(keys, kept.key.as_str(), "the replica has it");
    cluster.nodes()[4].pause();
    let entered =
        node.store.enter(&node.session, &other, leasehold::core::Enter::Try).await.unwrap_err();
    assert!(entered.to_string().contains("0 of the 1 replicas"), "{entered}");
    assert_eq!(entered.effect(), leasehold::Effect::Unknown, "the session gives it back");
    assert!(node.extends(&kept).await, "each node counts its own replicas");
    cluster.nodes()[4].resume();
}
