//! One at a time, and nothing left behind.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use leasehold::{Property, Store, clock};
use leasehold_core::line::Share;
use leasehold_core::{Enter, Left, Place};

use crate::Bench;
use crate::actor::{Actor, PATIENT, claim, key, note, terms};
use crate::history::{self, Held};

pub(crate) async fn one_holds_and_the_other_is_told_by_whom(bench: &dyn Bench) {
    let store = bench.handle();
    let session = store.open(&terms(PATIENT, "alice on host 7")).await.expect("opens");
    let alice = Actor { store, session };
    let bob = Actor::patient(bench).await;
    let mut hold = claim("k");
    hold.note = note("rebuilding the index");
    let fence = alice.holds(&hold).await;

    for ahead in [bob.refused(&claim("k")).await, bob.waits(&claim("k")).await] {
        let holder = ahead.holder.expect("somebody holds");
        assert!(!ahead.foreign, "the holder is of leasehold");
        assert_eq!(holder.claim, Some(hold.id));
        assert_eq!(holder.owner.as_str(), "alice on host 7");
        assert_eq!(holder.note.as_str(), "rebuilding the index");
        assert_eq!(holder.fence, Some(fence));
        let left = holder.left.expect("a hold of leasehold lapses");
        assert!(left <= PATIENT && left > PATIENT / 2, "{left:?} of {PATIENT:?} left");
        assert_eq!((holder.units, holder.limit), (1, 1));
    }
}

pub(crate) async fn a_refused_try_leaves_nothing(bench: &dyn Bench) {
    let [alice, bob] = [Actor::patient(bench).await, Actor::patient(bench).await];
    let hold = claim("k");
    alice.holds(&hold).await;
    let attempt = claim("k");
    bob.refused(&attempt).await;

    assert_eq!(alice.line("k").await, (vec![hold.id], vec![]), "the try does not stand in line");
    assert_eq!(bob.leave(&attempt).await, Left::Gone);
    assert_eq!(alice.leave(&hold).await, Left::Released);
    assert_eq!(alice.line("k").await, (vec![], vec![]), "nobody was granted");
    assert!(alice.store.keys("").await.expect("lists").is_empty(), "the key is forgotten");
}

pub(crate) async fn a_hundred_contenders_hold_one_at_a_time(bench: &dyn Bench) {
    const CONTENDERS: u64 = 100;
    const TURNS: u64 = 3;
    let handles = [(); 4].map(|()| bench.handle());
    let counter = Arc::new(AtomicU64::new(0));
    let tasks: Vec<_> = (0..CONTENDERS)
        .map(|n| {
            let store = Arc::clone(&handles[usize::try_from(n % 4).expect("small")]);
            let counter = Arc::clone(&counter);
            tokio::spawn(async move { contend(store, &counter, TURNS).await })
        })
        .collect();
    let mut holds = Vec::new();
    for task in tasks {
        holds.extend(task.await.expect("a contender ends well"));
    }
    assert_eq!(counter.load(Ordering::Relaxed), CONTENDERS * TURNS, "an increment was lost");
    assert_eq!(holds.len(), usize::try_from(CONTENDERS * TURNS).expect("small"));
    history::check(holds).unwrap_or_else(|violation| panic!("{violation}"));
}

/// Increments `counter` under the lock, in two steps that only exclusion makes one.
async fn contend(store: Arc<dyn Store>, counter: &AtomicU64, turns: u64) -> Vec<Held> {
    let actor = Actor::open(store, PATIENT).await;
    let mut holds = Vec::new();
    for _ in 0..turns {
        let hold = claim("counter");
        // A hundred contenders take their time: bounded by the case as a whole.
        let fence = loop {
            let place = actor.enter(&hold, Enter::Wait).await.expect("answers");
            if let Place::Held(fence) = place {
                break fence;
            }
            let changed = actor.store.changed(&actor.session, &hold);
            let recheck = actor.store.guarantees().recheck;
            let _hint = tokio::time::timeout(recheck, changed).await;
        };
        let from = clock::now();
        let seen = counter.load(Ordering::Relaxed);
        tokio::task::yield_now().await;
        counter.store(seen + 1, Ordering::Relaxed);
        holds.push(Held {
            share: Share::MUTEX,
            key: key("counter"),
            fence,
            from,
            to: clock::now(),
        });
        assert_eq!(actor.leave(&hold).await, Left::Released);
    }
    actor.close().await;
    holds
}

pub(crate) async fn two_claims_of_one_session_are_two(bench: &dyn Bench) {
    let alice = Actor::patient(bench).await;
    let [first, second] = [claim("k"), claim("k")];
    let fence = alice.holds(&first).await;
    alice.waits(&second).await;
    alice.refused(&claim("k")).await;

    // Without a line there is nothing of a waiter to withdraw.
    let stood =
        if alice.store.guarantees().has(Property::Line) { Left::Withdrawn } else { Left::Gone };
    assert_eq!(alice.leave(&second).await, stood, "the second never held");
    assert_eq!(alice.tries(&first).await, Place::Held(fence), "the first still does");
    alice.waits(&second).await;
    assert_eq!(alice.leave(&first).await, Left::Released);
    assert!(alice.until_held(&second).await > fence);
}

pub(crate) async fn keys_do_not_exclude_each_other(bench: &dyn Bench) {
    let alice = Actor::patient(bench).await;
    for n in 0..20 {
        alice.holds(&claim(&format!("k{n}"))).await;
    }
}

pub(crate) async fn rule_8_a_ttl_below_the_minimum_is_refused_by_name(bench: &dyn Bench) {
    let store = bench.handle();
    let min = store.guarantees().min_ttl;
    for ttl in [Duration::ZERO, min.saturating_sub(Duration::from_nanos(1))] {
        let error = store.open(&terms(ttl, "hasty")).await.expect_err("too short a TTL");
        assert_eq!(error.kind(), leasehold::ErrorKind::Invalid, "{error}");
        assert_eq!(error.store(), Some(store.to_string().as_str()), "{error}");
        assert!(error.to_string().contains(&format!("{min:?}")), "says the least TTL: {error}");
    }
    store.open(&terms(min, "at the limit")).await.expect("the minimum itself is fine");
}
