//! Holds that go on while servers forget, and what is said of those that do not.

use std::time::Duration;

use leasehold::core::{Claim, Enter, Left, Renewed};
use leasehold::{Effect, ErrorKind, Store};
use leasehold_testbed::Memory;

use crate::{Node, claim, places, quorum, soon, until};

/// Renews as a session does until what is lost at some servers was put right: a server that restarted
/// is first found to have ended its connection, and who answers last is given the token last.
async fn renews_until(node: &Node, held: &Claim, is_so: impl Fn() -> bool) {
    let renewing = async {
        while !is_so() {
            assert!(node.extends(held).await);
            // sleep: as a session does between two renewals.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    soon(renewing).await;
}

#[tokio::test]
async fn a_server_that_forgot_is_given_the_token_anew_and_counts_later() {
    let servers = quorum(5);
    let node = Node::new(&servers.url()).await;
    let (held, anew) = (claim("job"), claim("anew"));
    for claim in [&held, &anew] {
        node.holds(claim).await;
        until("all have it", || places(&servers, claim) == 5).await;
    }
    for server in [3, 4] {
        servers[server].restart(Memory::Lost);
    }
    assert_eq!(places(&servers, &held), 3);
    renews_until(&node, &held, || places(&servers[3..], &held) == 2).await;
    // Known there now, and proven by a renewal that came after: which of them hears of it first is
    // chance.
    for _ in 0..5 {
        assert!(node.extends(&held).await);
    }
    servers[0].kill();
    servers[1].kill();
    assert!(node.extends(&held).await, "the majority needs both that were given it anew");
    // The other was not renewed since they forgot it: too few are left that it was granted by.
    let error = node.renew(&[&anew]).await.unwrap_err();
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Unavailable, Effect::Unknown));
}

/// Of a roll of many claims one cannot be decided by the servers that answer: that is no loss.
#[tokio::test]
async fn what_a_renewal_cannot_decide_is_unknown_and_never_called_lost() {
    let servers = quorum(5);
    let node = Node::new(&servers.url()).await;
    let old: Vec<_> = (0..20).map(|n| claim(&format!("old/{n}"))).collect();
    for claim in &old {
        node.holds(claim).await;
        until("all have it", || places(&servers, claim) == 5).await;
    }
    servers[4].kill();
    servers[3].kill();
    servers[2].restart(Memory::Lost);
    let roll: Vec<_> = old.iter().collect();
    let error = node.renew(&roll).await.unwrap_err();
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Unavailable, Effect::Unknown));
    // They come back with what they had: nothing was lost.
    servers[3].start_again();
    let renewed = loop {
        if let Ok(renewed) = node.renew(&roll).await {
            break renewed;
        }
    };
    assert_eq!(renewed, Renewed::Extended { lost: vec![] });
}

/// Enough servers answer, but not enough of those that granted it: it cannot be proven any more, and
/// must not cost others of the same roll their holds. It is ended, and then it is lost for certain.
#[tokio::test]
async fn what_cannot_be_proven_any_more_does_not_cost_the_others_their_holds() {
    let servers = quorum(5);
    let (node, other) = (Node::new(&servers.url()).await, Node::new(&servers.url()).await);
    let old = claim("old");
    node.holds(&old).await;
    until("all have it", || places(&servers, &old) == 5).await;
    servers[4].kill();
    servers[3].kill();
    servers[2].restart(Memory::Lost);
    let new = claim("new");
    // The connection to the one that was restarted may only now be found to have ended.
    while node.enter(&new, Enter::Try).await.is_err() {}
    let renewed = node.renew(&[&old, &new]).await.unwrap();
    assert_eq!(renewed, Renewed::Extended { lost: vec![old.id] });
    assert_eq!(places(&servers[..3], &old), 0, "ended where it was");
    other.holds(&claim("old")).await;
    assert!(node.extends(&new).await);
}

#[tokio::test]
async fn a_minority_that_lost_the_key_costs_nothing_and_a_majority_everything() {
    let servers = quorum(5);
    let node = Node::new(&servers.url()).await;
    let held = claim("job");
    node.holds(&held).await;
    until("all have it", || places(&servers, &held) == 5).await;
    servers[..2].iter().for_each(|redis| drop(redis.cli(&["DEL", "job"])));
    renews_until(&node, &held, || places(&servers, &held) == 5).await;
    servers[..3].iter().for_each(|redis| drop(redis.cli(&["SET", "job", "theirs"])));
    assert_eq!(node.renew(&[&held]).await.unwrap(), Renewed::Extended { lost: vec![held.id] });
    until("the rest is given back", || places(&servers, &held) == 0).await;
    assert_eq!(servers[0].cli(&["GET", "job"]), "theirs", "and theirs is left alone");
    assert_eq!(node.leave(&held).await, Left::Gone);
}

#[tokio::test]
async fn another_process_goes_on_with_a_hold_and_ends_it() {
    let servers = quorum(5);
    let (node, other) = (Node::new(&servers.url()).await, Node::new(&servers.url()).await);
    let held = claim("job");
    let fence = node.holds(&held).await;
    until("all have it", || places(&servers, &held) == 5).await;
    servers[0].kill();
    let going_on = Node { store: other.store.clone(), session: node.session.clone() };
    assert!(going_on.extends(&held).await);
    assert!(going_on.extends(&held).await);
    let line = soon(other.store.inspect(&held.key)).await.unwrap();
    assert_eq!(line.holders[0].fence, Some(fence));
    assert_eq!(going_on.leave(&held).await, Left::Released);
    assert_eq!(node.renew(&[&held]).await.unwrap(), Renewed::Extended { lost: vec![held.id] });
}

#[tokio::test]
async fn a_majority_that_forgot_is_a_loss() {
    let servers = quorum(5);
    let node = Node::new(&servers.url()).await;
    let held = claim("job");
    node.holds(&held).await;
    servers[1..4].iter().for_each(|redis| redis.restart(Memory::Lost));
    let renewed = node.renew(&[&held]).await.unwrap();
    assert_eq!(renewed, Renewed::Extended { lost: vec![held.id] });
    until("nothing is left", || places(&servers, &held) == 0).await;
}
