//! Lost, late and crossing messages between a client and its store.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use leasehold::{Client, ErrorKind, LeaseScope, Moment, Property, Released, Store, Wait, clock};

use crate::Bench;
use crate::actor::{Actor, PATIENT, brief, careful_client, claim, client, key, sleep_until, soon};
use crate::chaos::{Call, Chaos, Fault};

fn troubled(bench: &dyn Bench, ttl: Duration) -> (Chaos, Client) {
    let chaos = Chaos::new(bench.handle());
    let client = client(Arc::new(chaos.clone()), ttl);
    (chaos, client)
}

pub(crate) async fn rule_2_a_late_grant_is_no_grant_and_is_given_back(bench: &dyn Bench) {
    let chaos = Chaos::new(bench.handle());
    let ttl = brief(&chaos) * 4;
    let alice = careful_client(Arc::new(chaos.clone()), ttl);
    let bob = Actor::patient(bench).await;
    chaos.once(Call::Enter, Fault::HoldReply);
    let mutex = alice.mutex("k").expect("a mutex");
    let attempt = tokio::spawn(async move { mutex.try_lock().await });
    soon("the enter", chaos.arrived(Call::Enter, 1)).await;
    let sent = chaos.log().iter().find(|sent| sent.call == Call::Enter).expect("arrived").at;
    soon("the grant", async {
        while bob.inspect("k").await.holders.is_empty() {
            // sleep: the line is looked at until it is as expected.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    // The time of its loss has passed when the answer comes, but not the patience of the client.
    sleep_until(sent + ttl / 2).await;
    chaos.let_go();
    let answer = soon("the attempt ends", attempt).await.expect("no panic");
    assert_eq!(answer.expect_err("too late").kind(), ErrorKind::Unavailable);
    soon("the claim is left", chaos.arrived(Call::Leave, 1)).await;
    bob.until_free("k").await;
}

pub(crate) async fn rule_2_a_slow_answer_moves_no_deadline(bench: &dyn Bench) {
    for slow in [Call::Open, Call::Enter, Call::Renew] {
        let chaos = Chaos::new(bench.handle());
        let alice = client(Arc::new(chaos.clone()), brief(&chaos) * 8);
        let mutex = alice.mutex("k").expect("a mutex");
        chaos.once(slow, Fault::HoldReply);
        let locking = tokio::spawn(async move { mutex.lock().await });
        soon("the slow call", chaos.arrived(slow, 1)).await;
        // sleep: the answer is to be slow.
        tokio::time::sleep(alice.timing().renew_every() / 4).await;
        // A renewal is slow beside a guard, whose deadline its answer moves.
        let early = (slow == Call::Renew).then(|| latest_deadline_before(&chaos, &alice));
        chaos.let_go();
        let guard = soon("a lock", locking).await.expect("no panic").expect("locks");
        soon("the answer counts", async {
            while early.is_some_and(|early| guard.deadline() <= early) {
                // sleep: the deadline is looked at until a renewal moved it.
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
        .await;
        let deadline = guard.deadline();
        let latest = latest_deadline(&chaos, &alice);
        assert!(deadline <= latest, "{slow:?}: {:?} too late", deadline.since(latest));
        drop(guard);
        let bob = Actor::patient(bench).await;
        bob.leave(&bob.until_free("k").await.0).await;
    }
}

/// The latest deadline that what was answered by now can give: without what is held back.
fn latest_deadline_before(chaos: &Chaos, client: &Client) -> Moment {
    deadline_by(chaos, client, |fault| fault.is_none())
}

/// The latest deadline that what was sent by now can give, once all of it is answered.
pub(super) fn latest_deadline(chaos: &Chaos, client: &Client) -> Moment {
    deadline_by(chaos, client, |fault| matches!(fault, None | Some(Fault::HoldReply)))
}

/// Whatever extends a lease was sent before it was logged, so this is never too early.
fn deadline_by(chaos: &Chaos, client: &Client, answered: fn(Option<Fault>) -> bool) -> Moment {
    let by_claim = chaos.guarantees().lease == LeaseScope::Claim;
    let extends = |call| match call {
        Call::Open | Call::Renew => true,
        Call::Enter | Call::EnterAll => by_claim,
        _ => false,
    };
    let log = chaos.log();
    let sent = log.iter().filter(|sent| extends(sent.call) && answered(sent.fault));
    let last = sent.map(|sent| sent.at).max().expect("a session was opened");
    last + client.timing().ttl() - client.timing().drift()
}

pub(crate) async fn rule_2_a_hand_over_counts_from_the_last_acknowledged_renewal(
    bench: &dyn Bench,
) {
    let bob = Actor::patient(bench).await;
    let ttl = brief(&*bob.store) * 6;
    // The time that passes between the last renewal and the hand-over must show.
    for passed in [Duration::ZERO, ttl / 4, ttl * 2 / 5] {
        // A session of its own: frozen renewals must not make the next one older.
        let chaos = Chaos::new(bench.handle());
        let alice = client(Arc::new(chaos.clone()), ttl);
        let hold = claim("k");
        bob.until_held(&hold).await;
        let mutex = alice.mutex("k").expect("a mutex");
        let waiting = tokio::spawn(async move { mutex.lock().await });
        soon("in line", async {
            while chaos.guarantees().has(Property::Line) && bob.line("k").await.1.is_empty() {
                // sleep: the line is looked at until it is as expected.
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
        chaos.always(Call::Renew, Fault::Freeze);
        // sleep: the waiter is to be this old when it is granted.
        tokio::time::sleep(passed).await;
        bob.leave(&hold).await;
        let guard = match soon("handed over", waiting).await.expect("no panic") {
            Ok(guard) => guard,
            Err(error) => panic!("not granted: {error}"),
        };
        let deadline = guard.deadline();
        let latest = latest_deadline(&chaos, &alice);
        assert!(deadline <= latest, "{:?} past what was acknowledged", deadline.since(latest));
        drop(guard);
    }
}

pub(crate) async fn a_short_lease_is_renewed_before_the_guard_is_given_out(bench: &dyn Bench) {
    let bob = Actor::patient(bench).await;
    let (chaos, alice) = troubled(bench, brief(&*bob.store) * 4);
    let every = alice.timing().renew_every();
    for _ in 0..3 {
        let hold = claim("k");
        bob.until_held(&hold).await;
        let mutex = alice.mutex("k").expect("a mutex");
        let waiting = tokio::spawn(async move { mutex.lock().await });
        // sleep: the waiter is to be this old when it is granted.
        tokio::time::sleep(every / 2).await;
        bob.leave(&hold).await;
        let guard = soon("granted", waiting).await.expect("no panic").expect("locks");
        // What is given out lasts at least until the next renewal; a stall of this test eats
        // from it too, so only what is plainly too short counts.
        assert!(guard.deadline() > clock::now(), "given out past its deadline");
        guard.check().expect("held");
        drop(guard);
    }
    drop(chaos);
}

pub(crate) async fn an_unknown_enter_is_resolved_by_its_claim(bench: &dyn Bench) {
    let bob = Actor::patient(bench).await;
    for wait in [false, true] {
        let (chaos, alice) = troubled(bench, PATIENT);
        chaos.once(Call::Enter, Fault::DropReply);
        let mutex = alice.mutex("k").expect("a mutex");
        let guard = if wait {
            soon("a lock", mutex.lock()).await.expect("locks")
        } else {
            soon("a try", mutex.try_lock()).await.expect("answers").expect("it was free")
        };
        // Giving the first claim up and making another would be safe, too, but lose the place.
        assert_eq!(chaos.count(Call::Leave), 0, "the same claim, asked again");
        let line = bob.inspect("k").await;
        assert_eq!((line.holders.len(), line.waiters.len()), (1, 0), "one claim, not two");
        assert_eq!(line.holders[0].fence, Some(guard.fence()), "the fence of the first grant");
        assert_eq!(guard.release().await.expect("releases"), Released::Held);
    }
}

pub(crate) async fn an_unknown_enter_does_not_stand_in_line_twice(bench: &dyn Bench) {
    let (chaos, alice) = troubled(bench, PATIENT);
    let bob = Actor::patient(bench).await;
    let hold = claim("k");
    bob.holds(&hold).await;
    chaos.once(Call::Enter, Fault::DropReply);
    let mutex = alice.mutex("k").expect("a mutex");
    let waiting = tokio::spawn(async move { mutex.lock().await });
    soon("asked again", chaos.arrived(Call::Enter, 2)).await;
    soon("waiting", chaos.arrived(Call::Changed, 1)).await;
    let waiters = bob.line("k").await.1.len();
    assert_eq!(waiters, usize::from(chaos.guarantees().has(Property::Line)), "one place in line");
    assert_eq!(chaos.count(Call::Leave), 0, "the place was kept, not taken anew");
    bob.leave(&hold).await;
    let guard = soon("granted", waiting).await.expect("no panic").expect("locks");
    // A store may write the fence of a hand-over for others to see after the grant itself.
    let shown = soon("the fence is shown", async {
        loop {
            if let Some(fence) = bob.inspect("k").await.holders[0].fence {
                return fence;
            }
        }
    });
    assert_eq!(shown.await, guard.fence());
    drop(guard);
    bob.until_free("k").await;
}

pub(crate) async fn a_refusal_that_got_lost_leaves_nothing(bench: &dyn Bench) {
    let (chaos, alice) = troubled(bench, PATIENT);
    let bob = Actor::patient(bench).await;
    let hold = claim("k");
    bob.holds(&hold).await;
    chaos.once(Call::Enter, Fault::DropReply);
    let attempt = alice.mutex("k").expect("a mutex").try_lock().await.expect("asked again");
    assert!(attempt.is_none());
    bob.leave(&hold).await;
    assert_eq!(bob.line("k").await, (vec![], vec![]));
}

pub(crate) async fn a_release_whose_reply_got_lost_is_a_release(bench: &dyn Bench) {
    let (chaos, alice) = troubled(bench, PATIENT);
    let bob = Actor::patient(bench).await;
    let guard = alice.mutex("k").expect("a mutex").lock().await.expect("free");
    chaos.once(Call::Leave, Fault::DropReply);
    assert_eq!(soon("release", guard.release()).await.expect("resolved"), Released::Held);
    bob.holds(&claim("k")).await;
}

pub(crate) async fn a_release_whose_reply_got_lost_is_one_until_the_deadline(bench: &dyn Bench) {
    let chaos = Chaos::new(bench.handle());
    // The loss would be signalled half a TTL before the deadline: a release is after neither.
    let alice = careful_client(Arc::new(chaos.clone()), brief(&chaos) * 4);
    let mutex = alice.mutex("k").expect("a mutex");
    loop {
        let guard = mutex.lock().await.expect("free");
        let (deadline, loss) = (guard.deadline(), clock::now() + guard.remaining());
        let releases = chaos.count(Call::Leave);
        chaos.always(Call::Leave, Fault::DropReply);
        let release = tokio::spawn(guard.release());
        soon("a release", chaos.arrived(Call::Leave, releases + 1)).await;
        sleep_until(loss).await;
        chaos.heal();
        let outcome = soon("release", release).await.expect("runs");
        // On a machine that stalled it is begun again: nothing can be concluded after the deadline.
        if clock::now() < deadline {
            assert_eq!(outcome.expect("resolved"), Released::Held);
            return;
        }
    }
}

pub(crate) async fn a_dropped_guard_is_released_through_trouble(bench: &dyn Bench) {
    let (chaos, alice) = troubled(bench, PATIENT / 15);
    let bob = Actor::patient(bench).await;
    let guard = alice.mutex("k").expect("a mutex").lock().await.expect("free");
    chaos.always(Call::Leave, Fault::Fail);
    drop(guard);
    soon("one release failed", chaos.arrived(Call::Leave, 1)).await;
    chaos.heal();
    // Tried again until it is certain; the TTL alone would take a minute.
    bob.until_free("k").await;
}

pub(crate) async fn a_renewal_that_crosses_the_release_revives_nothing(bench: &dyn Bench) {
    for crossing in [Fault::HoldRequest, Fault::HoldReply] {
        let chaos = Chaos::new(bench.handle());
        let alice = client(Arc::new(chaos.clone()), brief(&chaos) * 8);
        let bob = Actor::patient(bench).await;
        // Another hold keeps the renewals going.
        let other = alice.mutex("other").expect("a mutex").lock().await.expect("free");
        let guard = alice.mutex("k").expect("a mutex").lock().await.expect("free");
        let lost = guard.cancellation();
        chaos.once(Call::Renew, crossing);
        let renewals = chaos.count(Call::Renew);
        soon("a renewal under way", chaos.arrived(Call::Renew, renewals + 1)).await;
        let released = soon("release", guard.release()).await.expect("releases");
        assert_eq!(released, Released::Held);
        chaos.let_go();
        soon("the next renewal", chaos.arrived(Call::Renew, renewals + 2)).await;
        let next = claim("k");
        bob.holds(&next).await;
        assert!(!lost.is_cancelled(), "a release is not a loss");
        other.check().expect("the other hold goes on");
        bob.leave(&next).await;
        drop(other);
        bob.leave(&bob.until_free("other").await.0).await;
    }
}

pub(crate) async fn a_waiter_outlasts_trouble_and_says_so(bench: &dyn Bench) {
    let (chaos, alice) = troubled(bench, PATIENT);
    let troubled = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&troubled);
    chaos.all(Fault::Fail);
    let mutex = alice.mutex("k").expect("a mutex").on_wait(move |wait| {
        if let Wait::Trouble(error) = wait {
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
            seen.store(true, Ordering::SeqCst);
        }
    });
    let error = mutex.lock_within(Duration::from_millis(300)).await.expect_err("in trouble");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "the trouble, not the time-out: {error}");
    assert_eq!(error.key(), Some(&key("k")), "{error}");
    let error = mutex.try_lock().await.expect_err("a try does not wait for a dead server");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert_eq!(error.store(), Some(chaos.to_string().as_str()), "{error}");

    let opens = chaos.count(Call::Open);
    let waiting = tokio::spawn(async move { mutex.lock().await });
    soon("asked again", chaos.arrived(Call::Open, opens + 2)).await;
    assert!(troubled.load(Ordering::SeqCst), "the waiter is told");
    chaos.heal();
    let guard = soon("granted", waiting).await.expect("no panic").expect("locks");
    guard.check().expect("held");
}

pub(crate) async fn a_waiter_outlasts_the_server(bench: &dyn Bench) {
    let store = bench.handle();
    let alice = client(Arc::clone(&store), brief(&*store) * 2);
    let mutex = alice.mutex("k").expect("a mutex");
    let first = mutex.lock().await.expect("free");
    let Some(server) = bench.server() else {
        // Nothing can go away; what a waiter outlasts is the holder.
        let waiting = tokio::spawn(async move { mutex.lock().await });
        drop(first);
        drop(soon("granted", waiting).await.expect("no panic").expect("locks"));
        return;
    };
    drop(first);
    server.kill().await;
    let error = mutex.try_lock().await.expect_err("nobody listens");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert_eq!(error.store(), Some(store.to_string().as_str()), "{error}");
    let waiting = tokio::spawn(async move { mutex.lock().await });
    server.start().await;
    let guard = soon("granted", waiting).await.expect("no panic").expect("locks");
    guard.check().expect("held");
}

pub(crate) async fn a_client_whose_session_lapsed_opens_another(bench: &dyn Bench) {
    let chaos = Chaos::new(bench.handle());
    let ttl = brief(&chaos);
    let alice = client(Arc::new(chaos.clone()), ttl);
    let guard = alice.mutex("k").expect("a mutex").lock().await.expect("free");
    chaos.always(Call::Renew, Fault::Freeze);
    soon("the loss", guard.lost()).await;
    let bob = Actor::patient(bench).await;
    let (hold, _) = bob.until_free("k").await;
    chaos.heal();
    assert_eq!(guard.release().await.expect("answers"), Released::Lost);
    bob.leave(&hold).await;
    let again = soon("another", alice.mutex("k").expect("a mutex").lock()).await.expect("locks");
    again.check().expect("held");
}
