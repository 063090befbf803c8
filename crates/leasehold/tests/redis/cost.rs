//! What a lock costs the server, counted by the server.

use std::collections::BTreeMap;

use leasehold::Store;

use crate::server::{Raw, Server};
use crate::{Node, claim, share, soon};

/// How often each command ran, those inside of scripts too, since the last reset.
fn counted(raw: &mut Raw) -> BTreeMap<String, u64> {
    let text: String = raw.run(&["INFO", "commandstats"]);
    let calls = |line: &str| {
        let (command, fields) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
        Some((command.to_owned(), fields.split(',').next()?.parse().ok()?))
    };
    let mut counted: BTreeMap<_, _> = text.lines().filter_map(calls).collect();
    counted.retain(|command, _| !["info", "config|resetstat"].contains(&command.as_str()));
    counted
}

fn reset(raw: &mut Raw) {
    let _: String = raw.run(&["CONFIG", "RESETSTAT"]);
}

fn expected(calls: &[(&str, u64)]) -> BTreeMap<String, u64> {
    calls.iter().map(|(command, calls)| ((*command).to_owned(), *calls)).collect()
}

#[tokio::test]
async fn an_uncontended_pair_costs_two_round_trips_and_eight_commands_inside() {
    let server = Server::start();
    let (node, mut raw) = (Node::new(&server.url()).await, server.raw());
    for try_only in [false, true] {
        let held = claim("job");
        reset(&mut raw);
        if try_only {
            node.attempt(&held).await;
        } else {
            node.acquire(&held).await;
        }
        node.leave(&held).await;
        let pair = [("evalsha", 2), ("get", 2), ("exists", 2), ("set", 2), ("time", 1), ("del", 1)];
        assert_eq!(counted(&mut raw), expected(&pair));
    }
}

#[tokio::test]
async fn a_hand_over_costs_the_same_with_one_waiter_and_with_fifty() {
    let server = Server::start();
    let (node, mut raw) = (Node::new(&server.url()).await, server.raw());
    let mut costs = Vec::new();
    for waiters in [1, 50] {
        let key = format!("job/{waiters}");
        let held = claim(&key);
        node.acquire(&held).await;
        let line: Vec<_> = (0..waiters).map(|_| claim(&key)).collect();
        for waiting in &line {
            node.enter(waiting).await;
        }
        reset(&mut raw);
        node.leave(&held).await;
        assert!(soon(node.changed(&line[0])).await.is_some());
        costs.push(counted(&mut raw));
    }
    assert_eq!(costs[0], costs[1]);
    assert_eq!((costs[0]["evalsha"], costs[0]["publish"]), (1, 1));
}

#[tokio::test]
async fn a_renewal_is_one_request_for_256_claims() {
    let server = Server::start();
    let (node, mut raw) = (Node::new(&server.url()).await, server.raw());
    let mut roll = Vec::new();
    for number in 0..300 {
        let held = claim(&format!("job/{number}"));
        node.acquire(&held).await;
        roll.push(held);
    }
    reset(&mut raw);
    let renewed = node.store.renew(&node.session, &roll).await.unwrap();
    assert_eq!(renewed, leasehold::core::Renewed::Extended { lost: vec![] });
    assert_eq!(counted(&mut raw)["evalsha"], 2);
    reset(&mut raw);
    node.store.renew(&node.session, &[]).await.unwrap();
    assert_eq!(counted(&mut raw), expected(&[]));
}

#[tokio::test]
async fn one_handle_has_one_connection() {
    let server = Server::start();
    let mut raw = server.raw();
    let before = raw.info("clients", "connected_clients");
    let node = Node::new(&server.url()).await;
    let requests = (0..200).map(async |number| {
        let held = claim(&format!("job/{number}"));
        node.acquire(&held).await;
        node.leave(&held).await;
    });
    futures::future::join_all(requests).await;
    assert_eq!(raw.info("clients", "connected_clients"), before + 1);
    drop(node);
    soon(async {
        while raw.info("clients", "connected_clients") != before {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_share_costs_two_round_trips_and_the_same_whoever_else_holds() {
    let server = Server::start();
    let (node, mut raw) = (Node::new(&server.url()).await, server.raw());
    let mut costs = Vec::new();
    for others in [1, 50, 100] {
        let key = format!("job/{others}");
        for _ in 0..others {
            node.acquire(&share(&key, 1, 1000)).await;
        }
        let held = share(&key, 1, 1000);
        reset(&mut raw);
        node.acquire(&held).await;
        assert!(node.extends(&held).await);
        node.leave(&held).await;
        costs.push(counted(&mut raw));
    }
    assert_eq!(costs[0], costs[1]);
    assert_eq!(costs[0], costs[2]);
    assert_eq!(costs[0]["evalsha"], 3);
    let inside: u64 = costs[0].values().sum::<u64>() - 3;
    assert!(inside <= 60, "{costs:?}");
}

#[tokio::test]
async fn a_wait_and_a_hand_over_of_shares_cost_the_same_with_one_waiter_and_with_fifty() {
    let server = Server::start();
    let (node, mut raw) = (Node::new(&server.url()).await, server.raw());
    let mut costs = Vec::new();
    for waiters in [2, 50] {
        let key = format!("job/{waiters}");
        let (held, last) = (share(&key, 2, 2), share(&key, 1, 2));
        node.acquire(&held).await;
        let line: Vec<_> = (0..waiters).map(|_| share(&key, 2, 2)).collect();
        for waiting in &line {
            node.enter(waiting).await;
        }
        reset(&mut raw);
        node.enter(&last).await;
        assert!(node.extends(&last).await);
        node.leave(&held).await;
        assert!(soon(node.changed(&line[0])).await.is_some());
        costs.push(counted(&mut raw));
    }
    assert_eq!(costs[0], costs[1]);
    assert_eq!((costs[0]["evalsha"], costs[0]["publish"]), (3, 1));
}

#[tokio::test]
async fn a_refused_try_writes_nothing() {
    let server = Server::start();
    let (node, mut raw) = (Node::new(&server.url()).await, server.raw());
    for limit in [1, 5] {
        let key = format!("job/{limit}");
        node.acquire(&share(&key, limit, limit)).await;
        let before = raw.info("persistence", "rdb_changes_since_last_save");
        node.attempt(&share(&key, 1, limit)).await;
        assert_eq!(raw.info("persistence", "rdb_changes_since_last_save"), before, "{limit}");
    }
}

#[tokio::test]
async fn a_record_is_read_and_written_in_one_round_trip_each() {
    use leasehold::core::{Provided, Record};
    let server = Server::start();
    let (node, mut raw) = (Node::new(&server.url()).await, server.raw());
    let (key, record) = (claim("job").key, Record::new(b"kept", crate::TTL).unwrap());
    reset(&mut raw);
    assert!(node.store.write(&key, Provided::Unchanged(None), &record).await.unwrap());
    node.store.read(&key).await.unwrap();
    assert_eq!(counted(&mut raw), expected(&[("evalsha", 2), ("get", 3), ("set", 2), ("time", 2)]));
}

#[tokio::test]
async fn many_locks_are_one_round_trip_and_twelve_commands_inside_for_each() {
    let server = Server::start();
    let mut raw = server.raw();
    let [client, other] = [(); 2].map(|()| leasehold::Client::open(&server.url()).unwrap());
    for client in [&client, &other] {
        // Opens the session.
        client.mutex("first").unwrap().lock().await.unwrap().release().await.unwrap();
    }
    let locks = ["c", "a", "b"].map(|key| client.mutex(key).unwrap());
    reset(&mut raw);
    let guards = client.lock_all(locks).await.unwrap();
    let spent = counted(&mut raw);
    let inside: u64 = spent.values().sum::<u64>() - 1;
    assert_eq!((spent["evalsha"], inside), (1, 1 + 12 * 3), "{spent:?}");
    // Somebody is in the way: one request finds out, and writes nothing.
    let before = raw.info("persistence", "rdb_changes_since_last_save");
    let tried = ["x", "c"].map(|key| other.mutex(key).unwrap());
    reset(&mut raw);
    assert!(other.try_lock_all(tried).await.unwrap().is_none());
    assert_eq!(counted(&mut raw)["evalsha"], 1);
    assert_eq!(raw.info("persistence", "rdb_changes_since_last_save"), before);
    // More than one script enters: one by one.
    let crowd: Vec<_> = (0..300).map(|n| client.mutex(format!("k{n}")).unwrap()).collect();
    assert_eq!((client.lock_all(crowd).await.unwrap().len(), guards.len()), (300, 3));
}
