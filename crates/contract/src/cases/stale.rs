//! Nobody ends or extends another's claim; an operator ends any.

use leasehold::Property;
use leasehold_core::{Left, Place};

use crate::Bench;
use crate::actor::{Actor, claim, is_lost, key, soon};

pub(crate) async fn rule_1_nobody_leaves_for_another(bench: &dyn Bench) {
    let [alice, bob] = [Actor::patient(bench).await, Actor::patient(bench).await];
    let hold = claim("k");
    let fence = alice.holds(&hold).await;
    let stranger = claim("k");
    assert_eq!(bob.leave(&stranger).await, Left::Gone, "a claim that never entered");
    assert_eq!(alice.leave(&stranger).await, Left::Gone, "nor in the holder's own session");
    let mut elsewhere = hold.clone();
    elsewhere.key = key("another key");
    assert_eq!(bob.leave(&elsewhere).await, Left::Gone);
    assert_eq!(alice.tries(&hold).await, Place::Held(fence), "the hold stands");
    bob.refused(&claim("k")).await;
}

pub(crate) async fn rule_1_a_second_leave_does_not_free_the_next_holder(bench: &dyn Bench) {
    let [alice, bob] = [Actor::patient(bench).await, Actor::patient(bench).await];
    let [first, second] = [claim("k"), claim("k")];
    alice.holds(&first).await;
    bob.waits(&second).await;
    assert_eq!(alice.leave(&first).await, Left::Released);
    let fence = bob.until_held(&second).await;
    for _ in 0..3 {
        assert_eq!(alice.leave(&first).await, Left::Gone);
    }
    assert_eq!(bob.tries(&second).await, Place::Held(fence));
    alice.refused(&claim("k")).await;
}

pub(crate) async fn a_renewal_of_what_was_left_says_lost(bench: &dyn Bench) {
    let [alice, bob] = [Actor::patient(bench).await, Actor::patient(bench).await];
    let [kept, left, never] = [claim("kept"), claim("left"), claim("never")];
    alice.holds(&kept).await;
    alice.holds(&left).await;
    alice.leave(&left).await;
    let renewed = alice.renew(&[kept.clone(), left.clone(), never.clone()]).await;
    assert!(!is_lost(&renewed, &kept), "{renewed:?}");
    assert!(is_lost(&renewed, &left), "a renewal that crossed the release revives nothing");
    assert!(is_lost(&renewed, &never), "a claim that never was");
    for freed in ["left", "never"] {
        bob.holds(&claim(freed)).await;
    }
    bob.refused(&claim("kept")).await;
}

pub(crate) async fn a_revoked_hold_is_free_and_its_owner_learns_it(bench: &dyn Bench) {
    let [alice, bob, operator] =
        [Actor::patient(bench).await, Actor::patient(bench).await, Actor::patient(bench).await];
    let [hold, waiter] = [claim("k"), claim("k")];
    let fence = alice.holds(&hold).await;
    bob.waits(&waiter).await;
    assert!(operator.store.revoke(&hold.key, &hold.id).await.expect("revokes"), "it was there");
    soon("the owner is disturbed", alice.store.disturbed(&alice.session)).await;
    let renewed = alice.renew(std::slice::from_ref(&hold)).await;
    assert!(is_lost(&renewed, &hold), "{renewed:?}");
    assert!(bob.until_held(&waiter).await > fence);
    assert_eq!(alice.leave(&hold).await, Left::Gone);
    assert!(!operator.store.revoke(&hold.key, &hold.id).await.expect("answers"), "gone already");
    assert!(!is_lost(&bob.renew(std::slice::from_ref(&waiter)).await, &waiter));
}

pub(crate) async fn a_revoked_waiter_is_out_of_the_line(bench: &dyn Bench) {
    let [alice, bob] = [Actor::patient(bench).await, Actor::patient(bench).await];
    let [hold, waiter] = [claim("k"), claim("k")];
    alice.holds(&hold).await;
    bob.waits(&waiter).await;
    let was_there = alice.store.revoke(&waiter.key, &waiter.id).await.expect("revokes");
    assert_eq!(
        was_there,
        alice.store.guarantees().has(Property::Line),
        "where a line is kept, it was in it"
    );
    assert_eq!(alice.line("k").await, (vec![hold.id], vec![]));
    assert_eq!(alice.leave(&hold).await, Left::Released);
    assert_eq!(alice.line("k").await, (vec![], vec![]), "and it is not granted");
}

pub(crate) async fn revoking_takes_the_right_claim_on_the_right_key(bench: &dyn Bench) {
    let alice = Actor::patient(bench).await;
    let [hold, other] = [claim("k"), claim("other")];
    let fence = alice.holds(&hold).await;
    alice.holds(&other).await;
    let revoke = |on: &'static str, which: leasehold_core::ClaimId| {
        let store = alice.store.clone();
        async move { store.revoke(&key(on), &which).await.expect("answers") }
    };
    assert!(!revoke("k", other.id).await, "a claim on another key");
    assert!(!revoke("nobody's", hold.id).await, "a key that nobody holds");
    assert!(!revoke("k", claim("k").id).await, "a claim that never was");
    assert_eq!(alice.tries(&hold).await, Place::Held(fence));
    assert!(!is_lost(&alice.renew(&[hold.clone(), other.clone()]).await, &other));
    assert!(revoke("k", hold.id).await);
}

pub(crate) async fn a_hold_ended_behind_our_back_is_lost(bench: &dyn Bench) {
    let [alice, bob] = [Actor::patient(bench).await, Actor::patient(bench).await];
    let hold = claim("k");
    let fence = alice.holds(&hold).await;
    bench.sever(&hold.key).await;
    let renewed = alice.renew(std::slice::from_ref(&hold)).await;
    assert!(is_lost(&renewed, &hold), "{renewed:?}");
    let (next, next_fence) = bob.until_free("k").await;
    assert!(next_fence > fence, "{next_fence:?} after {fence:?}");
    assert_eq!(alice.leave(&hold).await, Left::Gone);
    assert_eq!(bob.tries(&next).await, Place::Held(next_fence));
}

pub(crate) async fn a_waiter_gets_what_was_ended_behind_our_back(bench: &dyn Bench) {
    let [alice, bob] = [Actor::patient(bench).await, Actor::patient(bench).await];
    let [hold, waiter] = [claim("k"), claim("k")];
    let fence = alice.holds(&hold).await;
    bob.waits(&waiter).await;
    bench.sever(&hold.key).await;
    assert!(bob.until_held(&waiter).await > fence);
    let renewed = alice.renew(std::slice::from_ref(&hold)).await;
    assert!(is_lost(&renewed, &hold), "{renewed:?}");
}
