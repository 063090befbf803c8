//! First come, first served; handed over by the step that ends a hold.

use std::time::Duration;

use leasehold::Store;
use leasehold::core::{Left, Place, Renewed};

use crate::server::Server;
use crate::{Node, TTL, claim, fence, rank, soon};

const SHORT: Duration = Duration::from_millis(400);

/// What is left of a key's TTL, in milliseconds.
fn left(raw: &mut crate::server::Raw, key: &str) -> i64 {
    raw.run(&["PTTL", key])
}

#[tokio::test]
async fn holds_are_handed_over_in_the_order_of_arrival_with_growing_fences() {
    let server = Server::start();
    let nodes = [Node::new(&server.url()).await, Node::new(&server.url()).await];
    let claims: Vec<_> = (0..9).map(|_| claim("job")).collect();
    let mut last = nodes[0].acquire(&claims[0]).await;
    for (place, waiting) in claims.iter().enumerate().skip(1) {
        assert_eq!(rank(&nodes[place % 2].enter(waiting).await) as usize, place - 1);
    }
    for (before, after) in claims
        .iter()
        .zip(&claims[1..])
        .enumerate()
        .map(|(place, pair)| ((&nodes[place % 2], pair.0), (&nodes[(place + 1) % 2], pair.1)))
    {
        assert_eq!(before.0.leave(before.1).await, Left::Released);
        let told = fence(&soon(after.0.changed(after.1)).await.expect("told with its fence"));
        assert!(told > last, "{told:?} after {last:?}");
        assert_eq!(after.0.acquire(after.1).await, told, "asking again gives the same fence");
        last = told;
    }
}

#[tokio::test]
async fn a_hand_over_grants_what_is_left_of_the_heartbeat_and_the_waiters_own_ttl() {
    let server = Server::start();
    let releaser = Node::with_ttl(&server.url(), Duration::from_hours(1)).await;
    let heir = Node::with_ttl(&server.url(), Duration::from_mins(1)).await;
    let mut raw = server.raw();
    let (held, waiting) = (claim("job"), claim("job"));
    releaser.acquire(&held).await;
    heir.enter(&waiting).await;
    // As if 40 of its 60 seconds had passed since its last heartbeat.
    let wait_key = raw.only_key("leasehold:{*}:wait:job");
    let entry: String = raw.run(&["HGET", &wait_key, &waiting.id.to_hex()]);
    let (expiry, rest) = entry.split_once(' ').unwrap();
    let earlier = format!("{} {rest}", expiry.parse::<u64>().unwrap() - 40_000);
    let _: i64 = raw.run(&["HSET", &wait_key, &waiting.id.to_hex(), &earlier]);

    releaser.leave(&held).await;
    let granted = left(&mut raw, "job");
    assert!(
        (10_000..=20_000).contains(&granted),
        "{granted} ms: not what is left of the heartbeat"
    );
    assert!(soon(heir.changed(&waiting)).await.is_some());
    // Neither the releaser's ttl nor the remainder is what counts from now on.
    let _: i64 = raw.run(&["PEXPIRE", "job", "3000000"]);
    releaser.enter(&claim("job")).await;
    let clamped = left(&mut raw, "job");
    assert!((50_000..=60_000).contains(&clamped), "{clamped} ms");
}

#[tokio::test]
async fn any_number_of_dead_waiters_is_passed_over_in_the_step_that_frees_the_key() {
    let server = Server::start();
    let (node, dead) = (Node::new(&server.url()).await, Node::with_ttl(&server.url(), SHORT).await);
    let mut raw = server.raw();
    let (held, alive) = (claim("job"), claim("job"));
    node.acquire(&held).await;
    // More than two steps of 64.
    let mut last = None;
    for _ in 0..150 {
        let waiting = claim("job");
        dead.enter(&waiting).await;
        last = Some(waiting);
    }
    assert_eq!(rank(&node.enter(&alive).await), 150);
    let wait_key = raw.only_key("leasehold:{*}:wait:job");
    lapse(&mut raw, &wait_key, &last.unwrap().id.to_hex()).await;

    assert_eq!(node.leave(&held).await, Left::Released);
    assert!(soon(node.changed(&alive)).await.is_some(), "granted by the release itself");
}

/// Waits until the heartbeat of a waiter has lapsed, by the server's clock.
async fn lapse(raw: &mut crate::server::Raw, wait_key: &str, claim: &str) {
    let entry: String = raw.run(&["HGET", wait_key, claim]);
    let expiry: u64 = entry.split(' ').next().unwrap().parse().unwrap();
    loop {
        let time: (u64, u64) = raw.run(&["TIME"]);
        if time.0 * 1000 + time.1 / 1000 > expiry {
            return;
        }
        // sleep: the line is looked at until it is as expected.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_holder_that_died_costs_one_ttl_and_the_first_in_line_finds_out_by_itself() {
    let server = Server::start();
    let dead = Node::with_ttl(&server.url(), SHORT).await;
    let (first, second) = (Node::new(&server.url()).await, Node::new(&server.url()).await);
    let (held, next, after) = (claim("job"), claim("job"), claim("job"));
    let lapsed = dead.acquire(&held).await;
    first.enter(&next).await;
    second.enter(&after).await;
    let granted = soon(first.wait(&next)).await;
    assert!(granted > lapsed);
    assert_eq!(dead.renew(&held).await, Renewed::Extended { lost: vec![held.id] });
    assert_eq!(dead.leave(&held).await, Left::Gone);
    assert_eq!(rank(&second.enter(&after).await), 0);
}

#[tokio::test]
async fn when_the_first_in_line_died_too_the_second_finds_out() {
    let server = Server::start();
    let dead = Node::with_ttl(&server.url(), SHORT).await;
    let alive = Node::new(&server.url()).await;
    let (held, next, after) = (claim("job"), claim("job"), claim("job"));
    dead.acquire(&held).await;
    dead.enter(&next).await;
    alive.enter(&after).await;
    soon(alive.wait(&after)).await;
}

#[tokio::test]
async fn a_lapsed_claim_in_line_is_lost_and_not_revived() {
    let server = Server::start();
    let (node, dead) = (Node::new(&server.url()).await, Node::with_ttl(&server.url(), SHORT).await);
    let mut raw = server.raw();
    let (held, waiting, later, after) = (claim("job"), claim("job"), claim("job"), claim("job"));
    node.acquire(&held).await;
    dead.enter(&waiting).await;
    node.enter(&after).await;
    let wait_key = raw.only_key("leasehold:{*}:wait:job");
    lapse(&mut raw, &wait_key, &waiting.id.to_hex()).await;
    assert!(!node.store.revoke(&waiting.key, &waiting.id).await.unwrap(), "it is gone");
    dead.enter(&later).await;
    lapse(&mut raw, &wait_key, &later.id.to_hex()).await;
    assert_eq!(dead.renew(&later).await, Renewed::Extended { lost: vec![later.id] });
    assert_eq!(node.leave(&held).await, Left::Released);
    assert!(soon(node.changed(&after)).await.is_some());
}

#[tokio::test]
async fn leaving_a_line_after_the_heartbeat_lapsed_finds_nothing() {
    let server = Server::start();
    let (node, dead) = (Node::new(&server.url()).await, Node::with_ttl(&server.url(), SHORT).await);
    let mut raw = server.raw();
    let waiting = claim("job");
    node.acquire(&claim("job")).await;
    dead.enter(&waiting).await;
    node.enter(&claim("job")).await;
    let wait_key = raw.only_key("leasehold:{*}:wait:job");
    lapse(&mut raw, &wait_key, &waiting.id.to_hex()).await;
    assert_eq!(dead.leave(&waiting).await, Left::Gone);
    assert_eq!(raw.run::<i64>(&["HLEN", &wait_key]), 1);
}

#[tokio::test]
async fn heartbeats_keep_a_place_in_line_and_a_hold() {
    let server = Server::start();
    let node = Node::with_ttl(&server.url(), SHORT).await;
    let (held, waiting) = (claim("job"), claim("job"));
    node.acquire(&held).await;
    node.enter(&waiting).await;
    for _ in 0..6 {
        // sleep: renews at a fraction of the TTL.
        tokio::time::sleep(SHORT / 4).await;
        let roll = [held.clone(), waiting.clone()];
        let renewed = node.store.renew(&node.session, &roll).await.unwrap();
        assert_eq!(renewed, Renewed::Extended { lost: vec![] });
    }
    assert_eq!(node.leave(&held).await, Left::Released);
    assert!(soon(node.changed(&waiting)).await.is_some());
}

#[tokio::test]
async fn a_refused_try_leaves_nothing_behind() {
    let server = Server::start();
    let node = Node::new(&server.url()).await;
    let (held, tried) = (claim("job"), claim("job"));
    node.acquire(&held).await;
    let Place::Refused(ahead) = node.attempt(&tried).await else { panic!("not refused") };
    let holder = ahead.holder.unwrap();
    assert_eq!((holder.claim, holder.owner.as_str()), (Some(held.id), "node:1"));
    assert_eq!(holder.note, held.note);
    let names: Vec<String> = server.raw().run(&["KEYS", "*"]);
    assert_eq!(names.len(), 2, "{names:?}");
    assert_eq!(node.renew(&tried).await, Renewed::Extended { lost: vec![tried.id] });
}

#[tokio::test]
async fn two_claims_of_one_session_do_not_enter_through_each_other() {
    let server = Server::start();
    let node = Node::new(&server.url()).await;
    let (held, other) = (claim("job"), claim("job"));
    node.acquire(&held).await;
    assert_eq!(rank(&node.enter(&other).await), 0);
    assert_eq!(node.leave(&other).await, Left::Withdrawn);
    assert!(node.extends(&held).await);
}

#[tokio::test]
async fn a_hold_that_a_failover_rewound_into_the_line_is_lost() {
    let server = Server::start();
    let node = Node::new(&server.url()).await;
    let mut raw = server.raw();
    let (held, rewound) = (claim("job"), claim("job"));
    node.acquire(&held).await;
    node.enter(&rewound).await;
    let [line_key, wait_key] =
        ["line", "wait"].map(|kind| raw.only_key(&format!("leasehold:{{*}}:{kind}:job")));
    let backup = [&line_key, &wait_key].map(|key| raw.run::<Vec<u8>>(&["DUMP", key]));
    let value: String = raw.run(&["GET", "job"]);
    node.leave(&held).await;
    assert!(soon(node.changed(&rewound)).await.is_some());
    // The replica that took over never heard of the release.
    for (key, backup) in [line_key, wait_key].iter().zip(backup) {
        raw.restore(key, &backup);
    }
    let _: String = raw.run(&["SET", "job", &value, "PX", "30000"]);
    assert_eq!(node.renew(&rewound).await, Renewed::Extended { lost: vec![rewound.id] });
    assert_eq!(node.store.inspect(&held.key).await.unwrap().waiters, []);
}

#[tokio::test]
async fn a_late_enter_is_granted_for_one_ttl_at_most() {
    let server = Server::start();
    let node = Node::with_ttl(&server.url(), SHORT).await;
    let (ghost, next) = (claim("job"), claim("job"));
    assert_eq!(node.leave(&ghost).await, Left::Gone);
    node.acquire(&ghost).await;
    soon(node.wait(&next)).await;
}

#[tokio::test]
async fn a_revoked_hold_passes_on_and_its_owner_hears_of_it() {
    let server = Server::start();
    let (node, other) = (Node::new(&server.url()).await, Node::new(&server.url()).await);
    let (held, waiting, last) = (claim("job"), claim("job"), claim("job"));
    node.acquire(&held).await;
    other.enter(&waiting).await;
    node.enter(&last).await;
    assert!(other.store.revoke(&held.key, &held.id).await.unwrap());
    soon(node.store.disturbed(&node.session)).await;
    assert_eq!(node.renew(&held).await, Renewed::Extended { lost: vec![held.id] });
    assert!(soon(other.changed(&waiting)).await.is_some());
    assert!(!other.store.revoke(&held.key, &held.id).await.unwrap(), "it is gone already");

    assert!(other.store.revoke(&last.key, &last.id).await.unwrap());
    soon(node.store.disturbed(&node.session)).await;
    assert_eq!(node.renew(&last).await, Renewed::Extended { lost: vec![last.id] });
}

#[tokio::test]
async fn inspect_tells_who_holds_and_who_waits() {
    let server = Server::start();
    let node = Node::new(&server.url()).await;
    let claims = [claim("job"), claim("job"), claim("job")];
    let granted = node.acquire(&claims[0]).await;
    node.enter(&claims[1]).await;
    node.enter(&claims[2]).await;
    let line = node.store.inspect(&claims[0].key).await.unwrap();
    let holder = &line.holders[0];
    assert_eq!((holder.claim, holder.fence), (Some(claims[0].id), Some(granted)));
    assert!(holder.age.unwrap() < TTL && holder.left.unwrap() <= TTL);
    for (waiter, waiting) in line.waiters.iter().zip(&claims[1..]) {
        assert_eq!((waiter.claim, waiter.fence), (Some(waiting.id), None));
        assert_eq!((waiter.owner.as_str(), &waiter.note), ("node:1", &waiting.note));
        assert!(waiter.age.unwrap() < TTL && waiter.left.unwrap() <= TTL);
    }
    assert_eq!(line.waiters.len(), 2);
}

#[tokio::test]
async fn closing_a_session_ends_all_its_claims_and_nobody_elses() {
    let server = Server::start();
    let (node, other) = (Node::new(&server.url()).await, Node::new(&server.url()).await);
    let (held, waiting, theirs) = (claim("a"), claim("b"), claim("b"));
    node.acquire(&held).await;
    other.acquire(&theirs).await;
    node.enter(&waiting).await;
    node.store.close(&node.session).await.unwrap();
    node.store.close(&node.session).await.unwrap();
    assert_eq!(node.store.keys("").await.unwrap(), std::slice::from_ref(&theirs.key));
    assert_eq!(node.store.inspect(&theirs.key).await.unwrap().waiters, []);
    assert!(other.extends(&theirs).await);
    assert_eq!(node.renew(&held).await, Renewed::Ended);
    let late = node.store.enter(&node.session, &held, leasehold::core::Enter::Wait).await;
    assert_eq!(late.unwrap_err().kind(), leasehold::ErrorKind::SessionEnded);
    let channels: Vec<String> = server.raw().run(&["PUBSUB", "CHANNELS"]);
    assert_eq!(channels.len(), 1, "{channels:?}");
}

#[tokio::test]
async fn another_process_can_go_on_with_a_session_by_its_name() {
    let server = Server::start();
    let node = Node::new(&server.url()).await;
    let (held, waiting) = (claim("job"), claim("job"));
    let granted = node.acquire(&held).await;
    let store = leasehold::stores::Redis::new(&server.url()).unwrap();
    let other = Node { store, session: node.session.clone() };
    assert!(other.extends(&held).await);
    assert_eq!(other.acquire(&held).await, granted);
    other.enter(&waiting).await;
    assert!(other.extends(&waiting).await);
    assert_eq!(other.leave(&held).await, Left::Released);
    assert!(soon(other.changed(&waiting)).await.is_some(), "it hears for the session too");
}
