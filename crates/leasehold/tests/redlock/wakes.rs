//! Who waits is told of the release.

use leasehold::Store;
use leasehold::core::{Enter, Left, Place};
use leasehold_testbed::Redis;

use crate::{Node, claim, quorum, soon, until};

/// How many connections hear of the release of `job` at a server.
fn listeners(redis: &Redis) -> String {
    let said = redis.cli(&["PUBSUB", "NUMSUB", "leasehold:wake:free:job"]);
    said.lines().last().unwrap_or_default().to_owned()
}

/// The TTL is a quarter of an hour, and nothing else would wake the waiter before.
#[tokio::test]
async fn a_release_wakes_the_waiter_of_another_process() {
    let servers = quorum(5);
    let (alice, bob) = (Node::new(&servers.url()).await, Node::new(&servers.url()).await);
    for dead in [false, true] {
        if dead {
            servers[0].kill();
            servers[4].kill();
        }
        for _ in 0..10 {
            let (held, waits) = (claim("job"), claim("job"));
            alice.holds(&held).await;
            bob.waits(&waits).await;
            assert_eq!(alice.leave(&held).await, Left::Released);
            soon(bob.store.changed(&bob.session, &waits)).await.unwrap();
            // The slowest servers may have told it before they were free: then it is told again.
            let granted = async {
                while !matches!(bob.enter(&waits, Enter::Wait).await, Ok(Place::Held(_))) {
                    bob.store.changed(&bob.session, &waits).await.unwrap();
                }
            };
            soon(granted).await;
            assert_eq!(bob.leave(&waits).await, Left::Released);
        }
    }
}

#[tokio::test]
async fn a_revocation_wakes_waiters_and_disturbs_the_holder() {
    let servers = quorum(5);
    let (alice, bob) = (Node::new(&servers.url()).await, Node::new(&servers.url()).await);
    let (held, waits) = (claim("job"), claim("job"));
    alice.holds(&held).await;
    bob.waits(&waits).await;
    let operator = Node::new(&servers.url()).await;
    assert!(operator.store.revoke(&held.key, &held.id).await.unwrap());
    soon(alice.store.disturbed(&alice.session)).await;
    soon(bob.store.changed(&bob.session, &waits)).await.unwrap();
}

#[tokio::test]
async fn nobody_listens_who_does_not_wait() {
    let servers = quorum(3);
    let (alice, bob) = (Node::new(&servers.url()).await, Node::new(&servers.url()).await);
    let (held, waits, more) = (claim("job"), claim("job"), claim("job"));
    alice.holds(&held).await;
    bob.refused(&claim("job")).await;
    assert!(servers.iter().all(|redis| listeners(redis) == "0"));
    bob.waits(&waits).await;
    bob.waits(&more).await;
    assert!(servers.iter().all(|redis| listeners(redis) == "1"), "one for all of a process");
    bob.leave(&waits).await;
    assert!(servers.iter().all(|redis| listeners(redis) == "1"));
    bob.leave(&more).await;
    until("the last one listens no more", || servers.iter().all(|redis| listeners(redis) == "0"))
        .await;
}

/// What somebody publishes is a hint at most.
#[tokio::test]
async fn whatever_is_published_grants_nothing() {
    let servers = quorum(3);
    let (alice, bob) = (Node::new(&servers.url()).await, Node::new(&servers.url()).await);
    let (held, waits) = (claim("job"), claim("job"));
    alice.holds(&held).await;
    bob.waits(&waits).await;
    let held_by_bob = format!("held {} 7", waits.id.to_hex());
    for text in ["free 1", "free ", "free", "", "lost x", &held_by_bob] {
        for redis in &*servers {
            redis.cli(&["PUBLISH", "leasehold:wake:free:job", text]);
        }
    }
    soon(bob.store.changed(&bob.session, &waits)).await.unwrap();
    bob.waits(&waits).await;
    assert!(alice.extends(&held).await);
}
