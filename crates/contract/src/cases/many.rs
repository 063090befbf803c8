//! Many keys at once. Where they are entered in one step they are in one slot of a cluster.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use leasehold::{Client, ErrorKind, Guard, Lock, Property, Released, clock};
use leasehold_core::line::Share;
use leasehold_core::{Fence, Moment, Together};

use super::trouble::latest_deadline;
use crate::Bench;
use crate::actor::{
    Actor, PATIENT, brief, careful_client, claim, client, enters_in_one_step, key, share,
    sleep_until, soon,
};
use crate::chaos::{Call, Chaos, Fault};
use crate::history::{self, Held};

const THREE: [&str; 3] = ["{k}/c", "{k}/a", "{k}/b"];

/// Locks on a store that misbehaves: the calls that lock several keys.
fn troubled(bench: &dyn Bench, ttl: Duration) -> (Chaos, Client, Call) {
    let chaos = Chaos::new(bench.handle());
    let client = client(Arc::new(chaos.clone()), ttl);
    let call = if enters_in_one_step(&chaos) { Call::EnterAll } else { Call::Enter };
    (chaos, client, call)
}

async fn release(guards: Vec<Guard>) {
    for guard in guards {
        assert_eq!(guard.release().await.expect("releases"), Released::Held);
    }
}

/// Nobody holds any of the three keys, nor waits.
async fn assert_nothing_is_left(actor: &Actor) {
    for key in THREE {
        assert_eq!(actor.line(key).await, (vec![], vec![]), "{key}");
    }
}

/// Waits until nobody does.
async fn until_nothing_is_left(actor: &Actor) {
    for key in THREE {
        actor.leave(&actor.until_free(key).await.0).await;
    }
}

pub(crate) async fn claims_entered_in_one_step_all_hold_or_none_is_left(bench: &dyn Bench) {
    let actors = [(); 3].map(|()| Actor::patient(bench));
    let [alice, bob, carol] = futures::future::join_all(actors).await.try_into().expect("three");
    let mut last = vec![Fence::new(0); 3];
    for _ in 0..2 {
        let claims = THREE.map(claim);
        let Some(held) = alice.enters_all(&claims).await.expect("answers") else {
            return assert_nothing_is_left(&alice).await;
        };
        let Together::Held(fences) = &held else { panic!("all are free, and yet: {held:?}") };
        assert_eq!(fences.len(), 3);
        for ((claim, fence), last) in claims.iter().zip(fences).zip(&last) {
            let line = bob.inspect(claim.key.as_str()).await;
            let holders: Vec<_> = line.holders.iter().map(|it| (it.claim, it.fence)).collect();
            assert_eq!(holders, [(Some(claim.id), Some(*fence))]);
            assert!(fence > last, "{fence:?} after {last:?}");
        }
        last.clone_from(fences);
        assert_eq!(alice.enters_all(&claims).await.expect("answers"), Some(held), "asked again");
        // Another's claims on the same keys are refused, and do not disturb the first.
        let refused = bob.enters_all(&THREE.map(claim)).await.expect("answers");
        assert!(matches!(refused, Some(Together::Refused { at: 0, .. })), "{refused:?}");
        for claim in &claims {
            assert_eq!(alice.leave(claim).await, leasehold::Left::Released);
        }
        assert_nothing_is_left(&bob).await;
    }

    // The last of them is held, and somebody waits for it.
    let (hold, waiting) = (claim(THREE[2]), claim(THREE[2]));
    bob.holds(&hold).await;
    carol.waits(&waiting).await;
    let claims = THREE.map(claim);
    for _ in 0..2 {
        match alice.enters_all(&claims).await.expect("answers") {
            Some(Together::Refused { at: 2, ahead }) => {
                assert_eq!(ahead.holder.expect("somebody holds").claim, Some(hold.id));
                assert_eq!((ahead.rank, ahead.foreign), (Some(1), false));
            }
            other => panic!("one is not free, and yet: {other:?}"),
        }
        for free in &THREE[..2] {
            assert_eq!(bob.line(free).await, (vec![], vec![]), "{free}");
        }
        assert_eq!(bob.line(THREE[2]).await, (vec![hold.id], vec![waiting.id]));
    }
    for claim in &claims {
        assert_eq!(alice.leave(claim).await, leasehold::Left::Gone, "there is nothing to leave");
    }
    bob.leave(&hold).await;
    carol.until_held(&waiting).await;
}

/// What an earlier request of the same claims was granted stays, also if one of them is gone since and
/// is refused: only what is new is given back.
pub(crate) async fn a_refusal_of_claims_that_were_granted_before_ends_none_of_them(
    bench: &dyn Bench,
) {
    let [alice, bob] = [Actor::patient(bench).await, Actor::patient(bench).await];
    let claims = THREE.map(claim);
    let Some(held) = alice.enters_all(&claims).await.expect("answers") else { return };
    assert!(matches!(held, Together::Held(_)), "{held:?}");
    let taken = claim(THREE[1]);
    assert!(bob.store.revoke(&claims[1].key, &claims[1].id).await.expect("answers"));
    let new = bob.holds(&taken).await;
    let refused = alice.enters_all(&claims).await.expect("answers");
    assert!(matches!(refused, Some(Together::Refused { at: 1, .. })), "{refused:?}");
    for (claim, holder) in claims.iter().zip([claims[0].id, taken.id, claims[2].id]) {
        assert_eq!(bob.line(claim.key.as_str()).await, (vec![holder], vec![]));
    }
    // Of those that are there and those that are not, all hold again once there is room.
    bob.leave(&taken).await;
    let Together::Held(before) = held else { return };
    match alice.enters_all(&claims).await.expect("answers") {
        Some(Together::Held(fences)) => {
            assert_eq!([fences[0], fences[2]], [before[0], before[2]]);
            assert!(fences[1] > new, "{fences:?} after {new:?}");
        }
        other => panic!("all are free or held, and yet: {other:?}"),
    }
}

pub(crate) async fn a_session_that_ended_enters_no_lines_in_one_step(bench: &dyn Bench) {
    let [alice, bob] = [Actor::patient(bench).await, Actor::patient(bench).await];
    alice.close().await;
    match alice.enters_all(&THREE.map(claim)).await {
        Ok(entered) => assert_eq!(entered, None, "where it is not one step"),
        Err(error) => assert_eq!(error.kind(), ErrorKind::SessionEnded, "{error}"),
    }
    assert_nothing_is_left(&bob).await;
}

pub(crate) async fn shares_are_entered_in_one_step_beside_others(bench: &dyn Bench) {
    const MAX: u32 = u32::MAX;
    let [alice, bob] = [Actor::patient(bench).await, Actor::patient(bench).await];
    if !alice.store.guarantees().has(Property::Counting) {
        return;
    }
    let reader = || share(THREE[0], 1, MAX);
    let (reads, waits) = (reader(), share(THREE[1], 2, 3));
    bob.holds(&reads).await;
    bob.holds(&share(THREE[1], 2, 3)).await;
    // A reader beside another, a unit beside two, and a key of its own.
    let fits = [reader(), share(THREE[1], 1, 3), claim(THREE[2])];
    match alice.enters_all(&fits).await.expect("answers") {
        None => return,
        Some(Together::Held(fences)) => assert_eq!(fences.len(), 3),
        Some(other) => panic!("all fit, and yet: {other:?}"),
    }
    assert_eq!(bob.line(THREE[0]).await.0, [reads.id, fits[0].id]);
    let again = alice.enters_all(&fits).await.expect("answers");
    assert!(matches!(again, Some(Together::Held(_))), "{again:?}");
    for claim in &fits {
        assert_eq!(alice.leave(claim).await, leasehold::Left::Released);
    }

    // It would fit beside those who hold, but somebody waits for more.
    bob.waits(&waits).await;
    let refused = alice.enters_all(&[reader(), share(THREE[1], 1, 3)]).await.expect("answers");
    assert!(matches!(refused, Some(Together::Refused { at: 1, .. })), "{refused:?}");
    assert_eq!(bob.line(THREE[0]).await.0, [reads.id]);
    // Another limit is an error about its key, whatever comes before or after it.
    for claims in [
        [reader(), share(THREE[1], 1, 5), claim(THREE[2])],
        [claim(THREE[2]), reader(), share(THREE[1], 1, 5)],
    ] {
        let error = alice.enters_all(&claims).await.expect_err("another limit");
        assert_eq!(
            (error.kind(), error.key()),
            (ErrorKind::Disagrees, Some(&key(THREE[1]))),
            "{error}"
        );
        assert_eq!(bob.line(THREE[0]).await.0, [reads.id]);
        assert_eq!(bob.line(THREE[1]).await.1, [waits.id]);
        assert_eq!(bob.line(THREE[2]).await, (vec![], vec![]));
    }
}

pub(crate) async fn many_locks_through_a_lost_reply_are_the_same_claims(bench: &dyn Bench) {
    let (chaos, alice, call) = troubled(bench, PATIENT);
    let bob = Actor::patient(bench).await;
    chaos.once(call, Fault::DropReply);
    let guards = soon("all", alice.try_lock_all(mutexes(&alice, &THREE))).await;
    let guards = guards.expect("answers").expect("they were free");
    assert_eq!(chaos.count(Call::Leave), 0, "the same claims, asked again");
    for guard in &guards {
        let line = bob.inspect(guard.key().as_str()).await;
        assert_eq!((line.holders.len(), line.waiters.len()), (1, 0), "one claim, not two");
        assert_eq!(line.holders[0].fence, Some(guard.fence()), "the fence of the first grant");
    }
    release(guards).await;

    // A refusal that got lost leaves nothing.
    let hold = claim(THREE[2]);
    bob.holds(&hold).await;
    chaos.once(call, Fault::DropReply);
    assert!(alice.try_lock_all(mutexes(&alice, &THREE)).await.expect("answers").is_none());
    bob.leave(&hold).await;
    assert_nothing_is_left(&bob).await;

    // No answer, however often it is asked: an error, and all is given back.
    chaos.always(call, Fault::DropReply);
    let error = soon("gives up", alice.try_lock_all(mutexes(&alice, &THREE))).await;
    let error = error.expect_err("no answer");
    assert_eq!(
        (error.kind(), error.effect()),
        (ErrorKind::Unavailable, leasehold::Effect::Unknown)
    );
    chaos.heal();
    until_nothing_is_left(&bob).await;
}

pub(crate) async fn many_locks_that_land_after_their_caller_gave_up_are_left(bench: &dyn Bench) {
    let ttl = brief(&*bench.handle()) * 4;
    let (chaos, alice, call) = troubled(bench, ttl);
    let bob = Actor::patient(bench).await;
    // Another hold keeps the session, and whatever haunts it, alive.
    let other = alice.mutex("other").expect("a mutex").lock().await.expect("free");
    let before = chaos.count(call);
    chaos.once(call, Fault::HoldRequest);
    let (locks, client) = (mutexes(&alice, &THREE), alice.clone());
    let locking = tokio::spawn(async move { client.try_lock_all(locks).await });
    soon("it is on its way", chaos.arrived(call, before + 1)).await;
    locking.abort();
    let asked = if call == Call::EnterAll { THREE.len() } else { 1 };
    soon("the caller left all", chaos.arrived(Call::Leave, asked)).await;
    chaos.let_go();
    soon("it lands", chaos.landed(1)).await;
    // Now they are there. The ghosts must not outlast about one TTL, although the session goes on.
    until_nothing_is_left(&bob).await;
    other.check().expect("the session lives");
}

pub(crate) async fn many_locks_hold_from_before_they_were_asked_for(bench: &dyn Bench) {
    let ttl = brief(&*bench.handle()) * 4;
    let (chaos, _, call) = troubled(bench, ttl);
    let alice = careful_client(Arc::new(chaos.clone()), ttl);
    let bob = Actor::patient(bench).await;
    let lock_late = async |pause: Duration| {
        let arrived = chaos.count(call);
        chaos.once(call, Fault::HoldReply);
        let (locks, client) = (mutexes(&alice, &THREE), alice.clone());
        let locking = tokio::spawn(async move { client.try_lock_all(locks).await });
        soon("the slow call", chaos.arrived(call, arrived + 1)).await;
        sleep_until(clock::now() + pause).await;
        chaos.let_go();
        soon("an answer", locking).await.expect("no panic")
    };
    let guards = lock_late(alice.timing().renew_every() / 4).await;
    let guards = guards.expect("answers").expect("all are free");
    for guard in &guards {
        let latest = latest_deadline(&chaos, &alice);
        assert!(guard.deadline() <= latest, "{:?} too late", guard.deadline().since(latest));
    }
    release(guards).await;
    // The time of their loss has passed when the answer comes, but not the patience of the client.
    chaos.always(Call::Renew, Fault::Fail);
    let late = lock_late(ttl / 2).await;
    chaos.heal();
    assert_eq!(late.expect_err("too late").kind(), ErrorKind::Unavailable);
    until_nothing_is_left(&bob).await;
}

/// Overlapping sets, tried again and again: never two holders of one key.
pub(crate) async fn tries_of_many_keys_never_overlap(bench: &dyn Bench) {
    const TURNS: usize = 25;
    let sets = [["{k}/a", "{k}/b"], ["{k}/b", "{k}/c"], ["{k}/c", "{k}/a"], ["{k}/b", "{k}/a"]];
    let clients = [client(bench.handle(), PATIENT), client(bench.handle(), PATIENT)];
    let tasks: Vec<_> = sets
        .into_iter()
        .enumerate()
        .map(|(task, set)| {
            let client = clients[task % 2].clone();
            tokio::spawn(async move {
                let mut holds = Vec::new();
                for _ in 0..TURNS {
                    let tried = client.try_lock_all(mutexes(&client, &set)).await;
                    let Some(guards) = tried.expect("answers") else { continue };
                    let from = clock::now();
                    tokio::task::yield_now().await;
                    write_down(guards, from, &mut holds).await;
                }
                holds
            })
        })
        .collect();
    let mut holds = Vec::new();
    for task in tasks {
        holds.extend(soon("all turns", task).await.expect("a task ends well"));
    }
    assert!(!holds.is_empty(), "somebody got something");
    history::check(holds).unwrap_or_else(|violation| panic!("{violation}"));
}

/// Releases what was held since `from`, and writes down for how long.
async fn write_down(guards: Vec<Guard>, from: Moment, holds: &mut Vec<Held>) {
    for guard in &guards {
        guard.check().expect("still ours");
    }
    for guard in guards {
        let (key, fence, to) = (guard.key().clone(), guard.fence(), clock::now());
        holds.push(Held { share: Share::MUTEX, key, fence, from, to });
        assert_eq!(guard.release().await.expect("releases"), Released::Held);
    }
}

/// A try that is refused was refused by somebody who holds: never do two refuse each other.
pub(crate) async fn of_two_who_try_the_same_keys_one_gets_them(bench: &dyn Bench) {
    let clients = [client(bench.handle(), PATIENT), client(bench.handle(), PATIENT)];
    if !clients[0].store().guarantees().has(Property::Line) {
        // Two who vote for one key may each be given a part of the servers.
        return;
    }
    let tried = async |client: &Client, order: [usize; 3]| {
        let locks = mutexes(client, &order.map(|at| THREE[at]));
        client.try_lock_all(locks).await.expect("answers")
    };
    for round in 0..25 {
        let [one, other] = &clients;
        let (one, other) =
            futures::join!(tried(one, [0, 1, 2]), tried(other, [2, (round + 1) % 2, round % 2]));
        assert_ne!(one.is_some(), other.is_some(), "round {round}");
        for guards in [one, other].into_iter().flatten() {
            release(guards).await;
        }
    }
}

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
    release(guards).await;
    let twice = alice.lock_all(mutexes(&alice, &["a", "b", "a"])).await.expect_err("named twice");
    assert_eq!((twice.kind(), twice.key()), (ErrorKind::Invalid, Some(&key("a"))), "{twice}");
    assert!(alice.lock_all([]).await.expect("nothing to lock").is_empty());

    // One fails: the others are given back.
    for call in [Call::Enter, Call::EnterAll] {
        chaos.always(call, Fault::Fail);
    }
    alice.try_lock_all(mutexes(&alice, &keys)).await.expect_err("the store refused one");
    let all = soon("after it", bob.lock_all(mutexes(&bob, &keys))).await.expect("locks");
    release(all).await;
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
    // The second was free when both were tried, and nothing was kept of it.
    soon("the wait for the first", chaos.arrived(Call::Enter, 1)).await;
    let three = bob.semaphore("b", 3).expect("a semaphore").acquire().await.expect("is free");
    first.release().await.expect("releases");
    let error = soon("the end", locking).await.expect("no panic").expect_err("they disagree");
    assert_eq!((error.kind(), error.key()), (ErrorKind::Disagrees, Some(&key("b"))), "{error}");
    let again = soon("given back", bob.mutex("a").expect("a mutex").lock()).await.expect("locks");
    again.release().await.expect("releases");
    three.release().await.expect("releases");
}

pub(crate) async fn a_wait_for_many_keys_outlasts_trouble(bench: &dyn Bench) {
    let chaos = Chaos::new(bench.handle());
    let alice = client(Arc::new(chaos.clone()), PATIENT);
    let keys = ["a", "b"];
    for call in [Call::EnterAll, Call::Enter] {
        chaos.once(call, Fault::Fail);
    }
    let guards = soon("both", alice.lock_all(mutexes(&alice, &keys))).await.expect("waits on");
    for guard in guards {
        assert_eq!(guard.release().await.expect("releases"), Released::Held);
    }
}

pub(crate) async fn a_key_that_was_lost_before_the_last_was_granted_is_told(bench: &dyn Bench) {
    let chaos = Chaos::new(bench.handle());
    let max_hold = Duration::from_millis(300);
    let builder = Client::builder().shared_store(Arc::new(chaos.clone())).ttl(PATIENT);
    let alice = builder.max_hold(max_hold).grace(max_hold / 3).build().expect("a client");
    let bob = client(bench.handle(), PATIENT);
    let keys = ["a", "b", "c"];
    let last = bob.mutex("c").expect("a mutex").lock().await.expect("is free");
    let locking = tokio::spawn({
        let locks = mutexes(&alice, &keys);
        async move { alice.lock_all(locks).await }
    });
    soon("the wait for the last", chaos.arrived(Call::Enter, keys.len())).await;
    sleep_until(clock::now() + max_hold * 2).await;
    last.release().await.expect("releases");
    let error = soon("the end", locking).await.expect("no panic").expect_err("one was lost");
    assert_eq!(error.kind(), ErrorKind::Lost, "{error}");
    release(soon("given back", bob.lock_all(mutexes(&bob, &keys))).await.expect("locks")).await;
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
                    let guards = client.lock_all(mutexes(&client, keys)).await.expect("locks");
                    let from = clock::now();
                    tokio::task::yield_now().await;
                    write_down(guards, from, &mut holds).await;
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
