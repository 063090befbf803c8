//! A cluster of three primaries and their replicas.

mod access;
mod examine;
mod failover;
mod moves;
mod nodes;
mod slots;

use leasehold::core::{Claim, Enter, Place};
use leasehold::{Fence, Store};
use leasehold_testbed::{Redis, RedisCluster};

use crate::{Node, soon};

fn cluster() -> RedisCluster {
    RedisCluster::start(&Redis::options())
}

/// Keys that the nodes 0, 1 and 2 serve at first.
fn one_key_each() -> [String; 3] {
    [0, 1, 2].map(|node| key_of(node, 0))
}

/// A key that a node serves; another one for each number.
fn key_of(node: usize, number: usize) -> String {
    let served = [0..5461, 5461..10922, 10922..16384];
    let keys = (0..).map(|name| format!("job/{name}"));
    keys.filter(|key| served[node].contains(&slot(key))).nth(number).unwrap()
}

/// The slot of a key without braces.
fn slot(key: &str) -> u16 {
    let crc = key.bytes().fold(0, |crc: u16, byte| {
        (0..8).fold(crc ^ (u16::from(byte) << 8), |crc, _| {
            (crc << 1) ^ if crc & 0x8000 == 0 { 0 } else { 0x1021 }
        })
    });
    crc % 16384
}

/// Asks until the store answers, as the session does.
async fn held_in_the_end(node: &Node, claim: &Claim) -> Fence {
    soon(async {
        loop {
            match node.store.enter(&node.session, claim, Enter::Wait).await {
                Ok(Place::Held(fence)) => return fence,
                Ok(_) => {}
                Err(error) => assert!(error.is_transient(), "{error}"),
            }
            // sleep: the failover takes its time; asked again.
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    })
    .await
}
