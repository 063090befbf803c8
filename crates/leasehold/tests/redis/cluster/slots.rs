//! Which keys are where, and that all of a key is in one place.

use std::collections::BTreeSet;

use leasehold::Store;
use leasehold::core::{Left, Place, Renewed};

use super::{cluster, key_of};
use crate::{Node, claim, soon};

#[tokio::test]
async fn keys_with_all_kinds_of_braces_are_locked_handed_over_and_listed() {
    let cluster = cluster();
    let url = cluster.url();
    let (node, other) = (Node::new(&url).await, Node::new(&url).await);
    let keys =
        ["k", "a}b", "{}x", "{u}:1", "{{a}", "a{", "{", "x{y}z{w}", "ключ", "a b", "*?[x]\\"];
    let mut served_by = BTreeSet::new();
    for key in keys {
        let (held, waiting) = (claim(key), claim(key));
        let first = node.acquire(&held).await;
        other.enter(&waiting).await;
        assert!(node.extends(&held).await && other.extends(&waiting).await, "{key}");
        let primary = cluster.serving(key, 0);
        served_by.insert(primary);
        let names = cluster.nodes()[primary].cli(&["KEYS", "*"]);
        assert_eq!(names.lines().count(), 4, "all four of {key} and nothing else: {names}");
        assert_eq!(node.store.keys("").await.unwrap(), std::slice::from_ref(&held.key));
        assert_eq!(node.store.inspect(&held.key).await.unwrap().waiters.len(), 1);
        assert_eq!(node.leave(&held).await, Left::Released);
        // The script that hands over can speak in the slot of the key alone.
        let told = soon(other.changed(&waiting)).await;
        assert!(matches!(told, Some(Place::Held(fence)) if fence > first), "{key}: {told:?}");
        assert!(other.store.revoke(&waiting.key, &waiting.id).await.unwrap());
        cluster.nodes().iter().take(3).for_each(|node| drop(node.cli(&["FLUSHALL"])));
    }
    assert_eq!(served_by, BTreeSet::from([0, 1, 2]));
}

#[tokio::test]
async fn a_thousand_holds_over_three_nodes_are_renewed_and_listed() {
    let cluster = cluster();
    let node = Node::new(&cluster.url()).await;
    let holds: Vec<_> = (0..1000).map(|number| claim(&format!("many/{number:04}"))).collect();
    futures::future::join_all(holds.iter().map(|hold| node.acquire(hold))).await;
    let (kept, gone) = (Renewed::Extended { lost: vec![] }, &holds[500]);
    assert_eq!(node.store.renew(&node.session, &holds).await.unwrap(), kept);
    let listed = node.store.keys("many/").await.unwrap();
    assert!(listed.iter().eq(holds.iter().map(|hold| &hold.key)), "in order, from all nodes");
    assert!(node.store.revoke(&gone.key, &gone.id).await.unwrap());
    let lost = Renewed::Extended { lost: vec![gone.id] };
    assert_eq!(node.store.renew(&node.session, &holds).await.unwrap(), lost);
    for primary in 0..3 {
        let kept: usize = cluster.nodes()[primary].cli(&["DBSIZE"]).parse().unwrap();
        assert!(kept > 500, "{primary} has {kept} of about 667");
    }
}

#[tokio::test]
async fn a_holder_learns_of_its_revocation_and_subscriptions_do_not_pile_up() {
    let cluster = cluster();
    let (node, other) = (Node::new(&cluster.url()).await, Node::new(&cluster.url()).await);
    let (held, waiting) = (claim("job"), claim("job"));
    node.acquire(&held).await;
    assert!(other.store.revoke(&held.key, &held.id).await.unwrap());
    soon(node.store.disturbed(&node.session)).await;

    node.acquire(&held).await;
    other.enter(&waiting).await;
    let channels = || {
        let served = cluster.nodes()[cluster.serving("job", 0)].cli(&["PUBSUB", "SHARDCHANNELS"]);
        served.lines().filter(|channel| channel.contains(":wake:{")).count()
    };
    assert_eq!(channels(), 1, "the waiter's, in the slot of the key");
    assert_eq!(other.leave(&waiting).await, Left::Withdrawn);
    soon(async {
        while channels() > 0 {
            // sleep: it is given up in the background; asked again.
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    })
    .await;
    // One of two that wait in a slot goes on listening when the other leaves.
    let [a, b] = [claim("job"), claim("job")];
    other.enter(&a).await;
    other.enter(&b).await;
    assert_eq!(other.leave(&a).await, Left::Withdrawn);
    assert_eq!(node.leave(&held).await, Left::Released);
    assert!(matches!(soon(other.changed(&b)).await, Some(Place::Held(_))));
}

#[tokio::test]
async fn without_sharded_messages_the_first_in_line_asks() {
    // As before Redis 7.0.
    let options = leasehold_testbed::Redis::options()
        .config("rename-command", "SPUBLISH \"\"")
        .config("rename-command", "SSUBSCRIBE \"\"");
    let cluster = leasehold_testbed::RedisCluster::start(&options);
    let (node, other) = (Node::new(&cluster.url()).await, Node::new(&cluster.url()).await);
    let key = key_of(1, 0);
    let (held, waiting) = (claim(&key), claim(&key));
    let first = node.acquire(&held).await;
    other.enter(&waiting).await;
    assert_eq!(node.leave(&held).await, Left::Released);
    assert_eq!(soon(other.changed(&waiting)).await, None, "long before the hold would lapse");
    assert!(other.acquire(&waiting).await > first);
    assert!(node.store.revoke(&waiting.key, &waiting.id).await.unwrap());
}

#[tokio::test]
async fn what_is_handed_over_before_anybody_listens_is_found() {
    let cluster = cluster();
    let (node, other) = (Node::new(&cluster.url()).await, Node::new(&cluster.url()).await);
    for number in 0..30 {
        let key = key_of(number % 3, number);
        let (held, waiting) = (claim(&key), claim(&key));
        node.acquire(&held).await;
        // Nobody listens in this slot yet, and the release is right behind.
        let (place, left) = tokio::join!(other.enter(&waiting), node.leave(&held));
        assert_eq!(left, Left::Released);
        let place = match place {
            Place::Waiting(_) => soon(other.changed(&waiting)).await,
            held => Some(held),
        };
        assert!(!matches!(place, Some(Place::Waiting(_) | Place::Refused(_))), "{place:?}");
        other.acquire(&waiting).await;
    }
}
