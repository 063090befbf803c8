//! Servers that are gone, frozen or cut off.

use leasehold::core::{Enter, Left, Place, Renewed};
use leasehold::stores::Redlock;
use leasehold::stores::redlock::Vote;
use leasehold::{Effect, ErrorKind, Store};
use leasehold_testbed::proxy::Mode;
use leasehold_testbed::{Proxy, Redis};

use crate::{Node, TTL, claim, places, quorum, soon, terms, until, values, votes};

/// Uses a quorum whose minority is in trouble. Whoever waited for it would wait for its time-out,
/// which is longer than `soon` allows.
async fn goes_on(node: &Node, key: &str) {
    let (held, refused) = (claim(key), claim(key));
    node.holds(&held).await;
    assert_eq!(node.refused(&refused).await.holder.unwrap().claim, Some(held.id));
    assert!(node.extends(&held).await);
    assert_eq!(node.holder(key).await, Some(held.id));
    assert_eq!(node.leave(&held).await, Left::Released);
    assert_eq!(node.holder(key).await, None);
}

#[tokio::test]
async fn a_frozen_server_is_not_waited_for_while_the_others_agree() {
    let servers = quorum(5);
    let node = Node::new(&format!("{}?timeout=10m", servers.url())).await;
    goes_on(&node, "before").await;
    servers[1].pause();
    goes_on(&node, "frozen").await;
    servers[1].resume();
    goes_on(&node, "after").await;
}

#[tokio::test]
async fn a_server_behind_a_black_hole_is_not_waited_for_while_the_others_agree() {
    let servers = quorum(5);
    let proxy = Proxy::before(servers[4].port());
    let url = servers.url_on(|index, redis| if index == 4 { proxy.port() } else { redis.port() });
    let node = Node::new(&format!("{url}?timeout=10m")).await;
    goes_on(&node, "before").await;
    proxy.set(Mode::BlackHole);
    goes_on(&node, "swallowed").await;
    // A new handle, which has never reached it.
    goes_on(&Node::new(&format!("{url}?timeout=10m")).await, "new").await;
}

#[tokio::test]
async fn where_its_vote_decides_a_black_hole_costs_its_time_out_and_no_more() {
    let servers = quorum(5);
    let proxy = Proxy::before(servers[4].port());
    let url = servers.url_on(|index, redis| if index == 4 { proxy.port() } else { redis.port() });
    let node = Node::new(&format!("{url}?timeout=300ms")).await;
    servers[2..4].iter().for_each(|redis| drop(redis.cli(&["SET", "job", "x"])));
    proxy.set(Mode::BlackHole);
    let tries = claim("job");
    // Two grant, two deny: contention, no failure.
    node.refused(&tries).await;
    assert_eq!(places(&servers, &tries), 0, "given back before the try ends");
}

#[tokio::test]
async fn two_of_five_may_die_and_come_back() {
    let servers = quorum(5);
    let node = Node::new(&servers.url()).await;
    let held = claim("job");
    let fence = node.holds(&held).await;
    servers[0].kill();
    servers[3].kill();
    assert!(node.extends(&held).await);
    goes_on(&node, "other").await;
    let waits = claim("job");
    assert_eq!(node.waits(&waits).await.holder.unwrap().claim, Some(held.id));
    assert_eq!(node.leave(&held).await, Left::Released);
    let Place::Held(next) = node.enter(&waits, Enter::Wait).await.unwrap() else { panic!("free") };
    assert!(next > fence);
    servers[0].start_again();
    servers[3].start_again();
    assert!(node.extends(&waits).await);
}

#[tokio::test]
async fn three_of_five_dead_is_a_failure_that_tells_every_vote() {
    const PASSWORD: &str = "open-sesame";
    let servers = Redis::options().append_only().password(PASSWORD).start_quorum(5);
    let node = Node::new(&servers.url()).await;
    let (held, tries) = (claim("held"), claim("job"));
    node.holds(&held).await;
    for dead in [0, 2, 4] {
        servers[dead].kill();
    }
    for enter in [Enter::Try, Enter::Wait] {
        let error = node.enter(&tries, enter).await.unwrap_err();
        assert_eq!((error.kind(), error.effect()), (ErrorKind::Unavailable, Effect::Unknown));
        assert_eq!(error.store(), Some(node.store.to_string().as_str()), "{error}");
        assert!(error.to_string().contains("2 of 5 servers answered, and 3 have to"), "{error}");
        let told = votes(&error);
        for (index, (server, vote)) in told.iter().enumerate() {
            assert_eq!(*server, format!("127.0.0.1:{}", servers[index].port()));
            let dead = index % 2 == 0;
            assert!(
                matches!((vote, dead), (Vote::Failed(_), true) | (Vote::Granted, false)),
                "{told:?}"
            );
        }
        let shown = format!("{error} {error:?} {told:?}");
        assert!(!shown.contains(PASSWORD) && !shown.contains(&tries.id.to_hex()), "{shown}");
        until("what was granted is given back", || {
            places(&servers[1..2], &tries) + places(&servers[3..4], &tries) == 0
        })
        .await;
    }
    // What is not known is not called lost.
    let error = node.renew(&[&held]).await.unwrap_err();
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Unavailable, Effect::Unknown));
    let error = soon(node.store.leave(&node.session, &held)).await.unwrap_err();
    assert_eq!(votes(&error).len(), 5);
    let error = soon(node.store.inspect(&held.key)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    let error = soon(node.store.keys("")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
}

#[tokio::test]
async fn nobody_there_is_a_clear_error_without_an_effect() {
    let servers = quorum(3);
    let url = servers.url();
    servers.iter().for_each(Redis::stop);
    let store = Redlock::new(&url).unwrap();
    let error = soon(store.open(&terms(TTL))).await.unwrap_err();
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Unavailable, Effect::None));
    assert!(votes(&error).iter().all(|(_, vote)| matches!(vote, Vote::Failed(_))), "{error:?}");
    servers.iter().for_each(Redis::start_again);
    let node = Node { session: soon(store.open(&terms(TTL))).await.unwrap(), store };
    node.holds(&claim("job")).await;
}

#[tokio::test]
async fn contention_is_told_from_failure_by_who_is_left() {
    let servers = quorum(5);
    let (alice, bob) = (Node::new(&servers.url()).await, Node::new(&servers.url()).await);
    let held = claim("job");
    alice.holds(&held).await;
    until("all have it", || places(&servers, &held) == 5).await;
    servers[0].kill();
    servers[1].kill();
    assert_eq!(bob.refused(&claim("job")).await.holder.unwrap().claim, Some(held.id));
    servers[2].kill();
    let error = bob.enter(&claim("job"), Enter::Try).await.unwrap_err();
    let told = votes(&error);
    assert_eq!(told.iter().filter(|(_, vote)| *vote == Vote::Denied).count(), 2, "{told:?}");
    assert_eq!(alice.renew(&[&held]).await.unwrap_err().kind(), ErrorKind::Unavailable);
    servers[2].start_again();
    assert_eq!(alice.renew(&[&held]).await.unwrap(), Renewed::Extended { lost: vec![] });
}

#[tokio::test]
async fn a_wait_goes_on_when_its_connections_are_killed() {
    let servers = quorum(3);
    let (alice, bob) = (Node::new(&servers.url()).await, Node::new(&servers.url()).await);
    let (held, waits) = (claim("job"), claim("job"));
    alice.holds(&held).await;
    bob.waits(&waits).await;
    for redis in &*servers {
        redis.cli(&["CLIENT", "KILL", "TYPE", "pubsub"]);
        redis.cli(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
    }
    until("bob listens again", || {
        servers.iter().all(|redis| {
            redis.cli(&["PUBSUB", "NUMSUB", "leasehold:wake:free:job"]).ends_with("\n1")
        })
    })
    .await;
    assert_eq!(alice.leave(&held).await, Left::Released);
    soon(bob.store.changed(&bob.session, &waits)).await.unwrap();
    assert!(matches!(bob.enter(&waits, Enter::Wait).await.unwrap(), Place::Held(_)));
    until("all have bob's", || {
        values(&servers, "job") == [waits.id.to_hex(), waits.id.to_hex(), waits.id.to_hex()]
    })
    .await;
}
