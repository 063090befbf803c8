//! Many keys at once.

use std::collections::BTreeSet;
use std::sync::Arc;

use leasehold::{Client, ErrorKind, Lock, Released};
use leasehold_core::line::Share;

use crate::Bench;
use crate::actor::{PATIENT, client, key, soon};
use crate::chaos::{Call, Chaos, Fault};
use crate::history::{self, Held};

fn mutexes(client: &Client, keys: &[&str]) -> Vec<Lock> {
    keys.iter().map(|key| client.mutex(*key).expect("a mutex")).collect()
}

pub(crate) async fn many_keys_are_locked_all_or_nothing(bench: &dyn Bench) {
    let chaos = Chaos::new(bench.handle());
    let [alice, bob] = [client(Arc::new(chaos.clone()), PATIENT), client(bench.handle(), PATIENT)];
    let keys = ["c", "a", "b"];
    let guards = soon("all", alice.lock_all(mutexes(&alice, &keys))).await.expect("all are free");
    let held: Vec<_> = guards.iter().map(|guard| guard.key().as_str()).collect();
    assert_eq!(held, keys, "in the order in which they were named");
    let refused = bob.try_lock_all(mutexes(&bob, &["x", "b", "y"])).await.expect("answers");
    assert!(refused.is_none());
    for free in ["x", "y"] {
        let line = bob.store().inspect(&key(free)).await.expect("answers");
        assert!(line.holders.is_empty() && line.waiters.is_empty(), "{free} was given back");
    }
    for guard in guards {
        assert_eq!(guard.release().await.expect("releases"), Released::Held);
    }
    let twice = alice.lock_all(mutexes(&alice, &["a", "b", "a"])).await.expect_err("named twice");
    assert_eq!((twice.kind(), twice.key()), (ErrorKind::Invalid, Some(&key("a"))), "{twice}");
    assert!(alice.lock_all([]).await.expect("nothing to lock").is_empty());

    // One fails: the others are given back.
    chaos.once(Call::Enter, Fault::Fail);
    alice.try_lock_all(mutexes(&alice, &keys)).await.expect_err("the store refused one");
    let all = soon("after it", bob.lock_all(mutexes(&bob, &keys))).await.expect("locks");
    for guard in all {
        guard.release().await.expect("releases");
    }
}

pub(crate) async fn many_keys_in_any_order_do_not_deadlock(bench: &dyn Bench) {
    const TURNS: usize = 5;
    let orders = [["a", "b", "c"], ["c", "b", "a"], ["b", "c", "a"], ["c", "a", "b"]];
    let tasks: Vec<_> = orders
        .into_iter()
        .map(|order| {
            let client = client(bench.handle(), PATIENT);
            tokio::spawn(async move {
                let mut holds = Vec::new();
                for turn in 0..TURNS {
                    // Sometimes two of them.
                    let keys = &order[turn % 2..];
                    let from = leasehold::clock::now();
                    let guards = client.lock_all(mutexes(&client, keys)).await.expect("locks");
                    let locked = leasehold::clock::now().max(from);
                    tokio::task::yield_now().await;
                    for guard in &guards {
                        guard.check().expect("still ours");
                    }
                    for guard in guards {
                        let (key, fence) = (guard.key().clone(), guard.fence());
                        let to = leasehold::clock::now();
                        holds.push(Held { share: Share::MUTEX, key, fence, from: locked, to });
                        assert_eq!(guard.release().await.expect("releases"), Released::Held);
                    }
                }
                holds
            })
        })
        .collect();
    let mut holds = Vec::new();
    for task in tasks {
        holds.extend(soon("all turns", task).await.expect("a task ends well"));
    }
    let keys: BTreeSet<_> = holds.iter().map(|hold| hold.key.clone()).collect();
    assert_eq!(keys.len(), 3);
    history::check(holds).unwrap_or_else(|violation| panic!("{violation}"));
}
