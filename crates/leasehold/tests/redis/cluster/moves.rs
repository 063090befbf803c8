//! A slot that is moved to another node, with holds and a line in it.

use leasehold::core::{Left, Place, Renewed};
use leasehold::{Effect, ErrorKind, Store};

use super::{cluster, key_of};
use crate::{Node, claim, soon};

#[tokio::test]
async fn a_hold_and_its_line_go_with_their_slot() {
    let cluster = cluster();
    let (node, other) = (Node::new(&cluster.url()).await, Node::new(&cluster.url()).await);
    let key = key_of(0, 0);
    let (held, waiting) = (claim(&key), claim(&key));
    let first = node.acquire(&held).await;
    other.enter(&waiting).await;
    cluster.begin_move(&key, 0, 1);
    cluster.move_keys(&key, 0, 1);
    cluster.end_move(&key, 0, 1);
    // The old node gave the channel away: the waiter asks, and listens at the new one.
    let told = soon(other.changed(&waiting)).await;
    assert_eq!(told, None, "look again");
    assert!(matches!(other.enter(&waiting).await, Place::Waiting(_)), "it has its place");
    assert_eq!(node.enter(&held).await, Place::Held(first), "the same hold");
    assert!(node.extends(&held).await);
    assert_eq!(node.leave(&held).await, Left::Released);
    let told = soon(other.changed(&waiting)).await;
    assert!(matches!(told, Some(Place::Held(fence)) if fence > first), "{told:?}");
    assert_eq!(other.leave(&waiting).await, Left::Released);
    assert_eq!(cluster.nodes()[0].cli(&["DBSIZE"]), "0");
}

#[tokio::test]
async fn keys_on_both_nodes_wait_until_the_move_is_done() {
    let cluster = cluster();
    let url = format!("{}?timeout=500ms", cluster.url());
    let node = Node::new(&url).await;
    let key = key_of(0, 0);
    let held = claim(&key);
    let first = node.acquire(&held).await;
    cluster.begin_move(&key, 0, 1);
    cluster.nodes()[0].cli(&[
        "MIGRATE",
        "127.0.0.1",
        &cluster.nodes()[1].port().to_string(),
        &key,
        "0",
        "10000",
    ]);
    let renewed = node.store.renew(&node.session, std::slice::from_ref(&held)).await;
    let error = renewed.unwrap_err();
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Unavailable, Effect::None), "{error}");
    assert!(error.to_string().contains("being moved to another node"), "{error}");
    // Some names never exist (nobody waits, nobody shares), so the new node has too little to go by also
    // when all is there.
    cluster.move_keys(&key, 0, 1);
    assert!(node.store.leave(&node.session, &held).await.is_err());
    // Done while it is asked for.
    let patient = Node::new(&format!("{}?timeout=15s", cluster.url())).await;
    cluster.nodes()[1].cli(&["CONFIG", "RESETSTAT"]);
    let ends = std::thread::spawn(move || {
        while !cluster.nodes()[1].cli(&["INFO", "errorstats"]).contains("TRYAGAIN") {
            std::thread::yield_now();
        }
        cluster.end_move(&key, 0, 1);
        cluster
    });
    let roll = std::slice::from_ref(&held);
    let renewed = patient.store.renew(&patient.session, roll).await.unwrap();
    assert_eq!(renewed, Renewed::Extended { lost: vec![] });
    let _cluster = ends.join().unwrap();
    assert_eq!(node.acquire(&held).await, first);
}

/// A node that gives a slot away says so, unasked, to those who listen in it. Taken for the answer to
/// a request it would shift all that follow, and a claim would hold by another's grant.
#[tokio::test]
async fn no_answer_is_taken_for_anothers_while_slots_move() {
    let cluster = cluster();
    let (node, other) = (Node::new(&cluster.url()).await, Node::new(&cluster.url()).await);
    let moving: Vec<_> = (0..20).map(|number| key_of(0, number)).collect();
    for key in &moving {
        other.acquire(&claim(key)).await;
        assert!(matches!(node.enter(&claim(key)).await, Place::Waiting(_)), "it listens");
    }
    let (taken, free) = (key_of(0, 20), key_of(0, 21));
    other.acquire(&claim(&taken)).await;
    let moves = std::thread::spawn(move || {
        for key in &moving {
            cluster.begin_move(key, 0, 1);
            cluster.move_keys(key, 0, 1);
            cluster.end_move(key, 0, 1);
        }
        cluster
    });
    let mut rounds = 0;
    while rounds < 10 || !moves.is_finished() {
        rounds += 1;
        let each = (0..50).map(async |number| {
            let refused = node.attempt(&claim(&taken)).await;
            assert!(matches!(refused, Place::Refused(_)), "{refused:?}");
            let own = claim(&format!("{{{free}}}/{rounds}/{number}"));
            assert!(matches!(node.attempt(&own).await, Place::Held(_)));
            assert_eq!(node.leave(&own).await, Left::Released);
        });
        futures::future::join_all(each).await;
    }
    moves.join().unwrap();
}
