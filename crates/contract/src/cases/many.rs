//! Many keys at once.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use leasehold::{Client, ErrorKind, Lock, Property, Released};

use crate::Bench;
use crate::actor::{PATIENT, client, key, sleep_until, soon};
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

pub(crate) async fn when_one_of_many_keys_fails_the_others_are_given_back(bench: &dyn Bench) {
    let chaos = Chaos::new(bench.handle());
    let [alice, bob] = [client(Arc::new(chaos.clone()), PATIENT), client(bench.handle(), PATIENT)];
    if !alice.store().guarantees().has(Property::Counting) {
        return;
    }
    let first = bob.mutex("a").expect("a mutex").lock().await.expect("is free");
    let locking = tokio::spawn({
        let five = alice.semaphore("b", 5).expect("a semaphore").units(1).expect("units");
        let locks = [alice.mutex("a").expect("a mutex"), five];
        async move { alice.lock_all(locks).await }
    });
    // The second was free when both were tried, and was given back.
    soon("the wait for the first", chaos.arrived(Call::Enter, 3)).await;
    let three = bob.semaphore("b", 3).expect("a semaphore").acquire().await.expect("is free");
    first.release().await.expect("releases");
    let error = soon("the end", locking).await.expect("no panic").expect_err("they disagree");
    assert_eq!((error.kind(), error.key()), (ErrorKind::Disagrees, Some(&key("b"))), "{error}");
    let again = soon("given back", bob.mutex("a").expect("a mutex").lock()).await.expect("locks");
    again.release().await.expect("releases");
    three.release().await.expect("releases");
}

pub(crate) async fn a_key_that_was_lost_before_the_last_was_granted_is_told(bench: &dyn Bench) {
    let chaos = Chaos::new(bench.handle());
    let max_hold = Duration::from_millis(300);
    let builder = Client::builder().shared_store(Arc::new(chaos.clone())).ttl(PATIENT);
    let alice = builder.max_hold(max_hold).grace(max_hold / 3).build().expect("a client");
    let bob = client(bench.handle(), PATIENT);
    let keys = ["a", "b", "c"];
    // Whether all are free, or one is waited for: the answer about one comes late.
    for busy in [false, true] {
        let other = bob.mutex("c").expect("a mutex");
        let other = if busy { Some(other.lock().await.expect("is free")) } else { None };
        let (enters, leaves) = (chaos.count(Call::Enter), chaos.count(Call::Leave));
        if !busy {
            chaos.once(Call::Enter, Fault::HoldReply);
        }
        let mut locking = tokio::spawn({
            let (alice, locks) = (alice.clone(), mutexes(&alice, &keys));
            async move { alice.lock_all(locks).await }
        });
        if busy {
            // Two given back, and then those ahead of the one that is not free.
            soon("all but one", chaos.arrived(Call::Leave, leaves + 2)).await;
            soon("the wait", chaos.arrived(Call::Enter, enters + 6)).await;
        } else {
            soon("all asked for", chaos.arrived(Call::Enter, enters + 3)).await;
        }
        let soonest = leasehold::clock::now() + max_hold * 2;
        sleep_until(soonest).await;
        assert!((&mut locking).now_or_never().is_none(), "one is not granted yet");
        match other {
            None => chaos.let_go(),
            Some(other) => drop(other.release().await.expect("releases")),
        }
        let error = soon("the end", locking).await.expect("no panic").expect_err("one was lost");
        assert_eq!(error.kind(), ErrorKind::Lost, "{error}");
        let all = soon("given back", bob.lock_all(mutexes(&bob, &keys))).await.expect("locks");
        for guard in all {
            guard.release().await.expect("releases");
        }
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
                        holds.push(Held { key, fence, from: locked, to });
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
