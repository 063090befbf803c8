//! What a lock costs each server, counted by the servers.

use std::collections::BTreeMap;

use leasehold::core::Enter;
use leasehold_testbed::Redis;

use crate::{Node, claim, quorum, until};

/// How often each command ran, those inside of scripts too, since the last reset.
fn counted(redis: &Redis) -> BTreeMap<String, u64> {
    let text = redis.cli(&["INFO", "commandstats"]);
    let calls = |line: &str| {
        let (command, fields) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
        Some((command.to_owned(), fields.split(',').next()?.parse().ok()?))
    };
    let mut counted: BTreeMap<_, _> = text.lines().filter_map(calls).collect();
    // What the test itself asks.
    let own = ["info", "config|resetstat", "select", "client|setinfo", "auth"];
    counted.retain(|command, _| !own.contains(&command.as_str()));
    counted
}

async fn costs(servers: &[Redis], what: &str, calls: &[(&str, u64)]) {
    let expected: BTreeMap<_, _> =
        calls.iter().map(|(command, calls)| ((*command).to_owned(), *calls)).collect();
    for redis in servers {
        let mut last = BTreeMap::new();
        // The slowest server is not waited for: it counts a little later. It must not count more.
        until(&format!("{what} costs {expected:?}"), || {
            last = counted(redis);
            last == expected
        })
        .await;
    }
    for redis in servers {
        redis.cli(&["CONFIG", "RESETSTAT"]);
    }
}

#[tokio::test]
async fn in_the_steady_state_each_step_is_one_round_trip_to_each_server() {
    let servers = quorum(5);
    let node = Node::new(&servers.url()).await;
    // The scripts are sent once in full.
    let warm = claim("warm");
    node.holds(&warm).await;
    assert!(node.extends(&warm).await);
    until("all know the scripts", || crate::places(&servers, &warm) == 5).await;
    node.leave(&warm).await;
    until("all know the scripts", || crate::places(&servers, &warm) == 0).await;
    for enter in [Enter::Try, Enter::Wait] {
        until("all are quiet", || {
            servers.iter().for_each(|redis| drop(redis.cli(&["CONFIG", "RESETSTAT"])));
            servers.iter().all(|redis| counted(redis).is_empty())
        })
        .await;
        let held = claim(&format!("{enter:?}"));
        node.enter(&held, enter).await.unwrap();
        costs(&servers, "a grant", &[("evalsha", 1), ("get", 1), ("set", 2), ("time", 1)]).await;
        assert!(node.extends(&held).await);
        let renewal = [("evalsha", 1), ("get", 2), ("pexpire", 1), ("set", 1), ("time", 1)];
        costs(&servers, "a renewal", &renewal).await;
        node.leave(&held).await;
        let release = [("evalsha", 1), ("get", 2), ("del", 1), ("publish", 1)];
        costs(&servers, "a release", &release).await;
    }
}

#[tokio::test]
async fn a_renewal_of_a_hundred_holds_is_one_request_to_each_server() {
    let servers = quorum(3);
    let node = Node::new(&servers.url()).await;
    let held: Vec<_> = (0..100).map(|n| claim(&format!("job/{n}"))).collect();
    for claim in &held {
        node.holds(claim).await;
    }
    assert!(node.extends(&held[0]).await);
    until("all have the last", || crate::places(&servers, &held[99]) == 3).await;
    servers.iter().for_each(|redis| drop(redis.cli(&["CONFIG", "RESETSTAT"])));
    let roll: Vec<_> = held.iter().collect();
    assert_eq!(node.renew(&roll).await.unwrap(), leasehold::Renewed::Extended { lost: vec![] });
    let renewal = [("evalsha", 1), ("get", 200), ("pexpire", 100), ("set", 100), ("time", 1)];
    costs(&servers, "a renewal of a hundred", &renewal).await;
}
