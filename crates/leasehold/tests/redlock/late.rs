//! Requests that are carried out long after they were given up.

use std::time::Duration;

use leasehold::core::Enter;
use leasehold::{ErrorKind, Store};
use leasehold_testbed::proxy::Mode;
use leasehold_testbed::{Proxy, Redis};

use crate::{Node, claim, places, quorum, terms, until};

/// How often the server ran a script.
fn scripts(redis: &Redis) -> u64 {
    let stats = redis.cli(&["INFO", "commandstats"]);
    let calls = |name: &str| {
        let line = stats.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|line| line.split(',').next()?.parse::<u64>().ok()).unwrap_or(0)
    };
    calls("cmdstat_evalsha:calls=") + calls("cmdstat_eval:calls=")
}

#[tokio::test]
async fn what_a_frozen_majority_grants_late_is_given_back() {
    let servers = quorum(5);
    let node = Node::new(&format!("{}?timeout=500ms", servers.url())).await;
    let warm = claim("warm");
    node.holds(&warm).await;
    servers[..3].iter().for_each(Redis::pause);
    let tries = claim("job");
    let error = node.enter(&tries, Enter::Try).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    servers[..3].iter().for_each(Redis::resume);
    // The TTL is a quarter of an hour: it was given back.
    until("nothing is left", || places(&servers, &tries) == 0).await;
    node.holds(&claim("job")).await;
}

/// The give-back of a failed try hangs on a connection; the same claim is entered again meanwhile, and
/// holds. Were the late release to end its token at that server, another could get a majority while
/// it holds.
#[tokio::test]
async fn a_release_that_arrives_late_does_not_end_a_newer_token_of_the_same_claim() {
    let servers = quorum(5);
    let proxy = Proxy::before(servers[0].port());
    let url = servers.url_on(|index, redis| if index == 0 { proxy.port() } else { redis.port() });
    // A long time-out, so that the connection is not given up, and a TTL that ends the try.
    let slow = Node::with_ttl(&format!("{url}?timeout=10m"), Duration::from_secs(8)).await;
    let direct = Node::new(&servers.url()).await;
    // The servers learn the scripts, so that each request is one call.
    let warm = claim("warm");
    direct.holds(&warm).await;
    until("all have it", || places(&servers, &warm) == 5).await;
    direct.leave(&warm).await;
    until("all are free", || places(&servers, &warm) == 0).await;

    // Two grant, two deny, and the last one decides by its silence.
    servers[2..4].iter().for_each(|redis| drop(redis.cli(&["SET", "job", "x"])));
    servers[4].pause();
    let held = claim("job");
    let again = held.clone();
    let trying = tokio::spawn(async move {
        let place = slow.store.enter(&slow.session, &again, Enter::Try).await;
        (slow, place)
    });
    until("the first one has the token", || places(&servers[..1], &held) == 1).await;
    proxy.set(Mode::Hold);
    let (_slow, place) = trying.await.unwrap();
    assert!(!matches!(place, Ok(leasehold::Place::Held(_))), "{place:?}");
    assert_eq!(places(&servers[..1], &held), 1, "its release hangs");

    servers[2..4].iter().for_each(|redis| drop(redis.cli(&["DEL", "job"])));
    servers[4].resume();
    until("the late grant is given back", || places(&servers[4..], &held) == 0).await;
    direct.holds(&held).await;
    until("all have it", || places(&servers, &held) == 5).await;
    let before = scripts(&servers[0]);
    proxy.set(Mode::Forward);
    until("the late release arrives", || scripts(&servers[0]) > before).await;
    assert_eq!(places(&servers, &held), 5, "it ended a newer token");
    // A majority of which the server is needed.
    servers[1..3].iter().for_each(Redis::kill);
    assert!(direct.extends(&held).await);
}

#[tokio::test]
async fn a_renewal_of_what_was_released_begins_nothing() {
    let servers = quorum(3);
    let node = Node::new(&servers.url()).await;
    let (held, kept) = (claim("job"), claim("other"));
    node.holds(&held).await;
    node.holds(&kept).await;
    // A roll that was made before the release, and is sent after it: by the process itself, and by
    // another one, which does not know of the release.
    node.leave(&held).await;
    let other = Node::new(&servers.url()).await;
    for node in [&node, &other] {
        let renewed = node.renew(&[&held, &kept]).await.unwrap();
        assert_eq!(renewed, leasehold::Renewed::Extended { lost: vec![held.id] });
        assert_eq!(places(&servers, &held), 0);
    }
    assert_eq!(places(&servers, &kept), 3);
}

#[tokio::test]
async fn an_enter_that_nobody_waits_for_is_given_back() {
    let servers = quorum(3);
    let store = leasehold::stores::Redlock::new(&servers.url()).unwrap();
    let session = store.open(&terms(crate::TTL)).await.unwrap();
    servers[1..].iter().for_each(Redis::pause);
    let dropped = claim("job");
    tokio::select! {
        _ = store.enter(&session, &dropped, Enter::Wait) => panic!("two of three are silent"),
        () = until("it is under way", || places(&servers[..1], &dropped) == 1) => {}
    }
    servers[1..].iter().for_each(Redis::resume);
    until("nothing is left", || places(&servers, &dropped) == 0).await;
}
