//! Three members, of which some die, stand still or lose the leadership.

use std::time::Duration;

use leasehold::core::{Enter, Place, Renewed};
use leasehold::{Client, ErrorKind};
use leasehold_testbed::Etcd;

use super::{Node, claim, soon};

fn three() -> Etcd {
    Etcd::options().members(3).start()
}

/// Quick to turn to another member.
fn url(etcd: &Etcd) -> String {
    format!("{}?timeout=500ms", etcd.url())
}

/// Whichever member serves the waiter, it hears of the release.
#[tokio::test(flavor = "multi_thread")]
async fn a_waiter_is_woken_though_any_member_dies() {
    let etcd = three();
    let [alice, bob] = [Node::new(&url(&etcd)).await, Node::new(&url(&etcd)).await];
    for member in etcd.members() {
        let [hold, waiter] = [claim("k"), claim("k")];
        let first = alice.wait(&hold).await;
        until_waiting(&bob, &waiter).await;
        member.kill();
        until_left(&alice, &hold).await;
        assert!(bob.wait(&waiter).await > first);
        until_left(&bob, &waiter).await;
        member.start_again();
    }
}

/// As above with a member that keeps its connections and answers nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_waiter_is_woken_though_any_member_stands_still() {
    let etcd = three();
    let [alice, bob] = [Node::new(&url(&etcd)).await, Node::new(&url(&etcd)).await];
    for member in etcd.members() {
        let [hold, waiter] = [claim("k"), claim("k")];
        let first = alice.wait(&hold).await;
        until_waiting(&bob, &waiter).await;
        member.pause();
        until_left(&alice, &hold).await;
        assert!(bob.wait(&waiter).await > first);
        until_left(&bob, &waiter).await;
        member.resume();
    }
}

/// Whichever member crashes, the leader too: the hold is there, and renewed.
#[tokio::test(flavor = "multi_thread")]
async fn a_hold_outlives_any_member() {
    let etcd = three();
    let [alice, bob] = [Node::new(&url(&etcd)).await, Node::new(&url(&etcd)).await];
    let hold = claim("k");
    let fence = alice.acquire(&hold).await;
    for member in etcd.members() {
        member.kill();
        let renewed = soon(async {
            loop {
                let roll = std::slice::from_ref(&hold);
                if let Ok(renewed) = alice.store.renew(&alice.session, roll).await {
                    return renewed;
                }
            }
        });
        assert_eq!(renewed.await, Renewed::Extended { lost: vec![] });
        let refused = soon(async {
            loop {
                if let Ok(place) = bob.try_enter(&claim("k"), Enter::Try).await {
                    return place;
                }
            }
        });
        assert!(matches!(refused.await, Place::Refused(_)));
        member.start_again();
    }
    assert_eq!(alice.wait(&hold).await, fence, "asking again gives the same");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hold_outlives_changes_of_the_leader() {
    let etcd = three();
    let [alice, bob] = [Node::new(&url(&etcd)).await, Node::new(&url(&etcd)).await];
    let [hold, waiter] = [claim("k"), claim("k")];
    let first = alice.acquire(&hold).await;
    until_waiting(&bob, &waiter).await;
    for _ in 0..3 {
        let (leader, other) = leader_and_other(&etcd);
        let at = format!("--endpoints={leader}");
        etcd.ctl(&[&at, "move-leader", &other]);
        let renewed = soon(async {
            loop {
                let renewed = alice.store.renew(&alice.session, std::slice::from_ref(&hold)).await;
                if let Ok(renewed) = renewed {
                    return renewed;
                }
            }
        });
        assert_eq!(renewed.await, Renewed::Extended { lost: vec![] });
    }
    assert_eq!(alice.wait(&hold).await, first, "asking again gives the same");
    until_left(&alice, &hold).await;
    assert!(bob.wait(&waiter).await > first);
}

/// Without a quorum nothing is granted, and a guard is lost in time by the holder's own clock.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_quorum_a_guard_is_lost_in_time_and_nothing_is_granted() {
    let etcd = three();
    let client = Client::builder().url(&url(&etcd)).ttl(Duration::from_secs(6)).build().unwrap();
    let guard = soon(client.mutex("k").unwrap().lock()).await.unwrap();
    let node = Node::new(&url(&etcd)).await;
    etcd.members()[0].kill();
    etcd.members()[1].kill();
    let doubtful = [claim("other"), claim("other")];
    for (doubted, enter) in doubtful.iter().zip([Enter::Try, Enter::Wait]) {
        let error = node.try_enter(doubted, enter).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        assert!(error.is_transient());
    }
    soon(guard.lost()).await;
    assert!(guard.check().is_err());
    assert!(leasehold::clock::now() < guard.deadline(), "told before the deadline");
    // The first one back makes a quorum.
    etcd.members()[0].start_again();
    // What was asked without one may be carried out now: as the session would, leave it.
    for doubted in &doubtful {
        until_left(&node, doubted).await;
    }
    node.wait(&claim("other")).await;
}

async fn until_waiting(node: &Node, claim: &leasehold::Claim) {
    soon(async {
        while !matches!(node.try_enter(claim, Enter::Wait).await, Ok(Place::Waiting(_))) {}
    })
    .await;
}

async fn until_left(node: &Node, claim: &leasehold::Claim) {
    soon(async { while node.store.leave(&node.session, claim).await.is_err() {} }).await;
}

/// The leader's address and the id of another member.
fn leader_and_other(etcd: &Etcd) -> (String, String) {
    let status = etcd.ctl_says(&["endpoint", "status"]);
    let members: Vec<Vec<&str>> =
        status.lines().map(|line| line.split(", ").collect::<Vec<_>>()).collect();
    let is_leader = |member: &&Vec<&str>| member[4] == "true";
    let leader = members.iter().find(is_leader).expect("a leader");
    let other = members.iter().find(|member| !is_leader(member)).expect("another");
    (leader[0].to_owned(), other[1].to_owned())
}
