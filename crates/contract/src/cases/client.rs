//! The client on the store: mutexes and guards as a program uses them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use leasehold::{Attempt, Client, ErrorKind, Released, Store, clock};
use leasehold_core::line::Share;

use crate::Bench;
use crate::actor::{Actor, PATIENT, SOON, brief, claim, client, key, sleep_until, soon};
use crate::chaos::{Call, Chaos};
use crate::history::{self, Held};

pub(crate) async fn a_hundred_tasks_lock_one_at_a_time(bench: &dyn Bench) {
    const TASKS: u64 = 100;
    const TURNS: u64 = 3;
    let clients: Vec<Client> = (0..5).map(|_| client(bench.handle(), PATIENT)).collect();
    let counter = Arc::new(AtomicU64::new(0));
    let tasks: Vec<_> = (0..TASKS)
        .map(|n| {
            let at = usize::try_from(n).expect("small") % clients.len();
            let mutex = clients[at].mutex("counter").expect("a mutex");
            let counter = Arc::clone(&counter);
            tokio::spawn(async move {
                let mut holds = Vec::new();
                for _ in 0..TURNS {
                    let guard = mutex.lock().await.expect("locks");
                    let from = clock::now();
                    let seen = counter.load(Ordering::Relaxed);
                    tokio::task::yield_now().await;
                    counter.store(seen + 1, Ordering::Relaxed);
                    guard.check().expect("still ours");
                    let to = clock::now();
                    holds.push(Held {
                        share: Share::MUTEX,
                        key: key("counter"),
                        fence: guard.fence(),
                        from,
                        to,
                    });
                    assert_eq!(guard.release().await.expect("releases"), Released::Held);
                }
                holds
            })
        })
        .collect();
    let mut holds = Vec::new();
    for task in tasks {
        holds.extend(task.await.expect("a task ends well"));
    }
    assert_eq!(counter.load(Ordering::Relaxed), TASKS * TURNS, "an increment was lost");
    history::check(holds).unwrap_or_else(|violation| panic!("{violation}"));
}

pub(crate) async fn a_refused_attempt_says_who_holds(bench: &dyn Bench) {
    let alice = Client::builder()
        .shared_store(bench.handle())
        .ttl(PATIENT)
        .owner("alice")
        .build()
        .expect("a client");
    let mutex = alice.mutex("k").expect("a mutex").note("busy").expect("a note");
    let guard = mutex.lock().await.expect("free");
    let bob = client(bench.handle(), PATIENT).mutex("k").expect("a mutex");
    let ahead = match bob.attempt().await.expect("answers") {
        Attempt::Refused(ahead) => ahead,
        Attempt::Held(guard) => panic!("two holders: {guard:?}"),
    };
    let holder = ahead.holder.expect("somebody holds");
    assert_eq!((holder.owner.as_str(), holder.note.as_str()), ("alice", "busy"));
    assert_eq!(holder.fence, Some(guard.fence()));
    assert!(bob.try_lock().await.expect("answers").is_none());
    assert_eq!(guard.release().await.expect("releases"), Released::Held);
    assert!(bob.try_lock().await.expect("answers").is_some());
}

pub(crate) async fn a_client_that_locks_twice_waits_for_itself(bench: &dyn Bench) {
    let alice = client(bench.handle(), PATIENT);
    let mutex = alice.mutex("k").expect("a mutex");
    let first = mutex.lock().await.expect("free");
    assert!(mutex.try_lock().await.expect("answers").is_none(), "no re-entry");
    let waiting = tokio::spawn({
        let mutex = mutex.clone();
        async move { mutex.lock().await }
    });
    let fence = first.fence();
    drop(first);
    let second = soon("the second", waiting).await.expect("ends").expect("locks");
    assert!(second.fence() > fence);
}

pub(crate) async fn dropping_a_guard_releases_it(bench: &dyn Bench) {
    let [alice, bob] = [client(bench.handle(), PATIENT), client(bench.handle(), PATIENT)];
    for _ in 0..5 {
        let guard = alice.mutex("k").expect("a mutex").lock().await.expect("locks");
        let waiting = bob.mutex("k").expect("a mutex");
        let waiting = tokio::spawn(async move { waiting.lock().await });
        drop(guard);
        drop(soon("the waiter", waiting).await.expect("ends").expect("locks"));
    }
}

pub(crate) async fn closing_a_client_frees_everything_and_loses_its_guards(bench: &dyn Bench) {
    let (alice, bob) = (client(bench.handle(), PATIENT), Actor::patient(bench).await);
    let mut guards = Vec::new();
    for n in 0..10 {
        guards.push(alice.mutex(&*format!("k{n}")).expect("a mutex").lock().await.expect("free"));
    }
    soon("closed", alice.close()).await.expect("closes");
    for (n, guard) in guards.iter().enumerate() {
        soon("told", guard.lost()).await;
        assert_eq!(guard.check().expect_err("lost").kind(), ErrorKind::Lost);
        bob.holds(&claim(&format!("k{n}"))).await;
    }
    drop(guards);
}

pub(crate) async fn a_timed_out_lock_leaves_nothing(bench: &dyn Bench) {
    let (alice, bob) = (Actor::patient(bench).await, client(bench.handle(), PATIENT));
    let hold = claim("k");
    alice.holds(&hold).await;
    let mutex = bob.mutex("k").expect("a mutex");
    for wait in [0, 1, 10, 100, 500].map(Duration::from_millis) {
        let begun = clock::now();
        let error = mutex.lock_within(wait).await.expect_err("held by another");
        let waited = clock::now().since(begun);
        assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
        assert_eq!(error.key(), Some(&key("k")), "{error}");
        assert!(waited >= wait, "gave up after {waited:?} of {wait:?}");
        assert!(waited < wait + SOON, "gave up only after {waited:?} of {wait:?}");
    }
    soon("nobody waits", async {
        while alice.line("k").await != (vec![hold.id], vec![]) {
            // sleep: the line is looked at until it is as expected.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    alice.leave(&hold).await;
    let late = soon("a lock in time", mutex.lock_within(SOON)).await.expect("free now");
    assert_eq!(late.release().await.expect("releases"), Released::Held);
}

pub(crate) async fn a_release_says_whether_the_hold_was_still_ours(bench: &dyn Bench) {
    let (alice, bob) = (client(bench.handle(), PATIENT), Actor::patient(bench).await);
    let mutex = alice.mutex("k").expect("a mutex");
    let guard = mutex.lock().await.expect("free");
    assert_eq!(guard.release().await.expect("releases"), Released::Held);

    let guard = mutex.lock().await.expect("free");
    bench.sever(&key("k")).await;
    let (next, fence) = bob.until_free("k").await;
    assert!(fence > guard.fence());
    assert_eq!(guard.release().await.expect("answers"), Released::Lost);
    assert_eq!(bob.line("k").await, (vec![next.id], vec![]), "the next hold stands");
}

pub(crate) async fn a_revoked_holder_learns_it_at_once(bench: &dyn Bench) {
    let (alice, operator) = (client(bench.handle(), PATIENT), bench.handle());
    let guard = alice.mutex("k").expect("a mutex").lock().await.expect("free");
    let line = operator.inspect(&key("k")).await.expect("answers");
    let held = line.holders[0].claim.expect("a claim of ours");
    assert!(operator.revoke(&key("k"), &held).await.expect("revokes"));
    // The next renewal by plan is minutes away.
    soon("the loss", guard.lost()).await;
    assert_eq!(guard.check().expect_err("lost").kind(), ErrorKind::Lost);
    assert_eq!(guard.release().await.expect("answers"), Released::Lost);
}

pub(crate) async fn a_guard_outlives_many_ttls_and_renewals_are_shared(bench: &dyn Bench) {
    const GUARDS: usize = 300;
    let chaos = Chaos::new(bench.handle());
    let ttl = brief(&chaos) * 4;
    let alice = client(Arc::new(chaos.clone()), ttl);
    let every = alice.timing().renew_every();
    let begun = clock::now();
    let mut guards = Vec::new();
    for n in 0..GUARDS {
        guards.push(alice.mutex(&*format!("k{n}")).expect("a mutex").lock().await.expect("free"));
    }
    // Two TTLs after the last grant, every one of them is still held.
    let until = clock::now() + ttl * 2;
    sleep_until(until).await;
    let stalled = guards.iter().filter(|guard| guard.check().is_err()).count();
    assert_eq!(stalled, 0, "of {GUARDS} guards were lost while the store was well");
    let elapsed = clock::now().since(begun);
    let batch = chaos.guarantees().renew_batch.min(GUARDS);
    // A round at the earliest each four fifths of the interval; early ones for the hand-over of
    // a short lease, at most one for each.
    let rounds = elapsed.as_millis() / (every.as_millis() * 4 / 5) + 2;
    let calls = u128::try_from(GUARDS.div_ceil(batch)).expect("small") * rounds;
    let made = chaos.count(Call::Renew);
    assert!(u128::try_from(made).expect("small") <= calls, "{made} renewals, {calls} at most");
}

pub(crate) async fn a_detached_hold_is_in_the_hands_of_who_has_its_token(bench: &dyn Bench) {
    let detached = || {
        let builder = Client::builder().shared_store(bench.handle()).ttl(PATIENT).detached(true);
        builder.build().expect("a client")
    };
    let alice = detached();
    let guard = soon("free", alice.mutex("k").expect("a mutex").lock()).await.expect("locks");
    let (fence, token) = (guard.fence(), guard.detach().token());
    alice.close().await.expect("closes");

    let bob = detached();
    let grant = leasehold::Grant::from_token(key("k"), &token).expect("a token");
    assert!(bob.mutex("k").expect("a mutex").try_lock().await.expect("answers").is_none());
    let standing = bob.check(&grant).await.expect("answers").expect("it outlives its client");
    assert!(standing.fence.is_none_or(|seen| seen == fence), "{standing:?}");
    assert!(standing.left > Duration::ZERO, "{standing:?}");
    let most = PATIENT.saturating_sub(bob.timing().drift());
    assert!(standing.left <= most, "the clocks' margin is taken off: {standing:?}");
    assert!(bob.renew(&grant).await.expect("answers"));
    assert_eq!(bob.release(&grant).await.expect("answers"), Released::Held);
    assert_eq!(bob.release(&grant).await.expect("answers"), Released::Lost);

    let guard = soon("free", bob.mutex("k").expect("a mutex").lock()).await.expect("locks");
    let grant = guard.detach();
    let line = bob.store().inspect(&key("k")).await.expect("answers");
    let claim = line.holders[0].claim.expect("one of ours");
    assert!(bob.store().revoke(&key("k"), &claim).await.expect("answers"));
    assert!(!bob.renew(&grant).await.expect("answers"), "what was broken is not renewed");
    assert_eq!(bob.check(&grant).await.expect("answers"), None);
    assert_eq!(bob.release(&grant).await.expect("answers"), Released::Lost);
}
