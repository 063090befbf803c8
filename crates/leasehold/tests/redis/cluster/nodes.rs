//! Nodes that are away: killed, stopped in their tracks, or cut off.

use std::time::Duration;

use leasehold::core::Enter;
use leasehold::stores::Redis;
use leasehold::{Client, Effect, ErrorKind, Store};
use leasehold_testbed::proxy::Mode;
use leasehold_testbed::{Proxy, Redis as TestRedis, RedisCluster};

use super::{cluster, held_in_the_end, key_of, one_key_each};
use crate::{Node, TTL, claim, soon, terms};

#[tokio::test]
async fn a_node_that_is_away_costs_the_holds_in_its_slots_only() {
    let options = TestRedis::options().config("cluster-require-full-coverage", "no");
    let cluster = RedisCluster::start(&options);
    let client = Client::builder().url(&cluster.url()).ttl(Duration::from_secs(6)).build().unwrap();
    let mut guards = Vec::new();
    for node in 0..3 {
        for number in 0..10 {
            let mutex = client.mutex(key_of(node, number)).unwrap();
            guards.push(mutex.lock().await.unwrap());
        }
    }
    // Nobody takes over.
    cluster.nodes()[3].kill();
    cluster.nodes()[0].pause();
    let (gone, kept) = guards.split_at(10);
    for guard in gone {
        soon(guard.lost()).await;
    }
    // Longer than any of them lasts without a renewal.
    let until = kept[0].deadline() + Duration::from_secs(6);
    soon(async {
        while leasehold::clock::now() < until {
            assert!(kept.iter().all(|guard| guard.check().is_ok()));
            // sleep: the time is to pass.
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    let error = client.mutex(key_of(0, 20)).unwrap().try_lock().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(client.mutex(key_of(1, 20)).unwrap().try_lock().await.unwrap().is_some());
    cluster.nodes()[0].resume();
}

#[tokio::test]
async fn a_node_that_is_cut_off_from_its_clients_is_asked_again_when_it_is_back() {
    let cluster = cluster();
    let proxy = Proxy::before(cluster.nodes()[1].port());
    let announced = proxy.port().to_string();
    cluster.nodes()[1].cli(&["CONFIG", "SET", "cluster-announce-port", &announced]);
    let key = key_of(1, 0);
    let url = format!("redis+cluster://127.0.0.1:{}?timeout=1s", cluster.nodes()[0].port());
    soon(async {
        let told = || cluster.nodes()[0].cli(&["CLUSTER", "SLOTS"]);
        while !told().lines().any(|line| line == announced) {
            // sleep: the nodes tell each other in time; asked again.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let node = Node::new(&url).await;
    let (held, elsewhere) = (claim(&key), claim(&key_of(0, 0)));
    let first = node.acquire(&held).await;
    node.acquire(&elsewhere).await;
    proxy.set(Mode::BlackHole);
    let renewed = node.store.renew(&node.session, std::slice::from_ref(&held)).await;
    let error = renewed.unwrap_err();
    assert_eq!(error.effect(), Effect::Unknown, "{error}");
    assert!(node.extends(&elsewhere).await);
    proxy.set(Mode::Forward);
    assert_eq!(held_in_the_end(&node, &held).await, first);
    assert!(node.extends(&held).await);
    proxy.set(Mode::Refuse);
    proxy.cut();
    let error = node.store.enter(&node.session, &claim(&key), Enter::Try).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    proxy.set(Mode::Forward);
    assert_eq!(held_in_the_end(&node, &held).await, first);
}

#[tokio::test]
async fn a_cluster_that_is_down_says_so_and_had_no_effect() {
    let cluster = cluster();
    let node = Node::new(&cluster.url()).await;
    let [_, key, _] = one_key_each();
    let held = claim(&key);
    let first = node.acquire(&held).await;
    cluster.nodes()[3].kill();
    cluster.nodes()[0].kill();
    let error = soon(async {
        loop {
            let entered = node.store.enter(&node.session, &claim(&key), Enter::Try).await;
            if let Err(error) = entered {
                break error;
            }
            // sleep: the others notice in time; asked again.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Unavailable, Effect::None), "{error}");
    assert!(error.to_string().contains("the cluster is down"), "{error}");
    cluster.nodes()[0].start_again();
    assert_eq!(held_in_the_end(&node, &held).await, first);
}

#[tokio::test]
async fn one_node_of_the_url_suffices_and_without_any_the_error_says_so() {
    let cluster = cluster();
    let port = cluster.nodes()[4].port();
    let url = format!("redis+cluster://127.0.0.1:1,127.0.0.1:2,127.0.0.1:{port}?timeout=2s");
    let node = Node::new(&url).await;
    for key in one_key_each() {
        node.acquire(&claim(&key)).await;
    }
    let nowhere = Redis::new("redis+cluster://127.0.0.1:1,127.0.0.1:2").unwrap();
    let error = nowhere.open(&terms(TTL)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("no node of the cluster could tell"), "{error}");
    let single = TestRedis::start();
    let store = Redis::new(&single.url().replace("redis:", "redis+cluster:")).unwrap();
    let error = store.open(&terms(TTL)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("no node of a cluster"), "{error}");
}
