//! Every future may be dropped at any await.

use std::task::Poll;
use std::time::Duration;

use leasehold_core::{Claim, Enter, Left, Place};

use crate::Bench;
use crate::actor::{Actor, PATIENT, claim, is_lost, key, terms};

/// More polls than any call here takes.
const POLLS: usize = 12;

/// Polls `future` at most `polls` times, then drops it. A future that is not woken for a while is
/// dropped where it stands.
pub(super) async fn dropped_after<F: Future>(polls: usize, future: F) -> Option<F::Output> {
    let mut left = polls;
    let polled = async {
        tokio::pin!(future);
        std::future::poll_fn(|context| {
            if left == 0 {
                return Poll::Ready(None);
            }
            left -= 1;
            match future.as_mut().poll(context) {
                Poll::Ready(output) => Poll::Ready(Some(output)),
                // Dropping it right at this await is the point.
                Poll::Pending if left == 0 => Poll::Ready(None),
                Poll::Pending => Poll::Pending,
            }
        })
        .await
    };
    tokio::time::timeout(Duration::from_millis(50), polled).await.unwrap_or(None)
}

pub(crate) async fn rule_6_a_dropped_enter_is_undone_by_a_leave(bench: &dyn Bench) {
    let [alice, bob] = [Actor::brief(bench).await, Actor::patient(bench).await];
    for enter in [Enter::Try, Enter::Wait] {
        for polls in 0..POLLS {
            let k = format!("{enter:?} {polls}");
            let attempt = claim(&k);
            dropped_after(polls, alice.store.enter(&alice.session, &attempt, enter)).await;
            alice.leave(&attempt).await;
            // At once; or, should the enter have been overtaken by the leave, within one TTL.
            bob.until_free(&k).await;
        }
    }
}

pub(crate) async fn rule_6_a_dropped_enter_alone_lasts_one_ttl_at_most(bench: &dyn Bench) {
    let bob = Actor::patient(bench).await;
    for polls in 0..4 {
        let alice = Actor::brief(bench).await;
        let k = format!("{polls}");
        let attempt = claim(&k);
        dropped_after(polls, alice.store.enter(&alice.session, &attempt, Enter::Wait)).await;
        // No leave, no renewal: as if the process had died there.
        bob.until_free(&k).await;
    }
}

pub(crate) async fn a_dropped_enter_can_be_asked_again(bench: &dyn Bench) {
    let alice = Actor::patient(bench).await;
    for polls in 0..POLLS {
        let k = format!("{polls}");
        let hold = claim(&k);
        let first = alice.store.enter(&alice.session, &hold, Enter::Wait);
        let first = dropped_after(polls, first).await;
        let fence = alice.until_held(&hold).await;
        if let Some(answer) = first {
            assert_eq!(answer.expect("answers"), Place::Held(fence), "one grant, found again");
        }
        assert_eq!(alice.line(&k).await, (vec![hold.id], vec![]), "one claim, not two");
        assert_eq!(alice.leave(&hold).await, Left::Released);
    }
}

pub(crate) async fn a_dropped_leave_can_be_asked_again(bench: &dyn Bench) {
    let [alice, bob] = [Actor::patient(bench).await, Actor::patient(bench).await];
    for polls in 0..POLLS {
        let k = format!("{polls}");
        let hold = claim(&k);
        alice.holds(&hold).await;
        dropped_after(polls, alice.store.leave(&alice.session, &hold)).await;
        alice.leave(&hold).await;
        assert_eq!(alice.leave(&hold).await, Left::Gone);
        bob.holds(&claim(&k)).await;
    }
}

pub(crate) async fn a_dropped_wait_is_not_deaf_afterwards(bench: &dyn Bench) {
    let [alice, bob] = [Actor::patient(bench).await, Actor::patient(bench).await];
    for polls in 0..POLLS {
        let k = format!("{polls}");
        let [hold, waiter] = [claim(&k), claim(&k)];
        alice.holds(&hold).await;
        bob.waits(&waiter).await;
        dropped_after(polls, bob.store.changed(&bob.session, &waiter)).await;
        assert_eq!(alice.leave(&hold).await, Left::Released);
        let woken = bob.store.changed(&bob.session, &waiter);
        crate::actor::soon("woken", woken).await.expect("a hint");
        bob.until_held(&waiter).await;
    }
}

pub(crate) async fn other_dropped_calls_leave_the_store_usable(bench: &dyn Bench) {
    let [alice, bob] = [Actor::patient(bench).await, Actor::patient(bench).await];
    let hold = claim("k");
    let roll: Vec<Claim> = vec![hold.clone()];
    let fence = alice.holds(&hold).await;
    let never = claim("k").id;
    let terms = terms(PATIENT, "dropped");
    for polls in 0..POLLS {
        dropped_after(polls, alice.store.renew(&alice.session, &roll)).await;
        dropped_after(polls, alice.store.inspect(&hold.key)).await;
        dropped_after(polls, alice.store.keys("")).await;
        dropped_after(polls, alice.store.revoke(&hold.key, &never)).await;
        dropped_after(polls, alice.store.open(&terms)).await;
        dropped_after(polls, alice.store.disturbed(&alice.session)).await;
        assert!(!is_lost(&alice.renew(&roll).await, &hold), "after {polls} polls");
        assert_eq!(alice.tries(&hold).await, Place::Held(fence));
    }
    for polls in 0..POLLS {
        let closing = Actor::patient(bench).await;
        let k = format!("closing {polls}");
        closing.holds(&claim(&k)).await;
        dropped_after(polls, closing.store.close(&closing.session)).await;
        closing.close().await;
        bob.holds(&claim(&k)).await;
    }
    assert_eq!(alice.store.keys("k").await.expect("lists"), vec![key("k")]);
}
