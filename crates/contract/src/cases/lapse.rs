//! Leases end by themselves, and only then.

use leasehold::{ErrorKind, LeaseScope, Property, clock};
use leasehold_core::{Enter, Left, Place};

use crate::Bench;
use crate::actor::{Actor, brief, claim, is_lost, keep_renewed, soon};

pub(crate) async fn an_unrenewed_hold_lapses_but_not_before_its_ttl(bench: &dyn Bench) {
    let bob = Actor::patient(bench).await;
    let ttl = brief(&*bob.store);
    let sent = clock::now();
    let alice = Actor::brief(bench).await;
    let hold = claim("k");
    let fence = alice.holds(&hold).await;
    let waiter = claim("k");
    bob.waits(&waiter).await;

    let next = bob.until_held(&waiter).await;
    let lasted = clock::now().since(sent);
    // A store's clock may run a little faster than ours: the drift margin is for that.
    assert!(lasted >= ttl * 9 / 10, "lapsed after {lasted:?} of {ttl:?}");
    assert!(next > fence, "{next:?} after {fence:?}");
}

pub(crate) async fn a_renewed_hold_goes_on(bench: &dyn Bench) {
    for attempt in 0..10 {
        if goes_on_while_renewed(bench, &format!("k{attempt}")).await {
            return;
        }
    }
    panic!("this machine stalls too much to renew in time");
}

/// Holds a key over three TTLs while another tries to get it. `false` when a renewal was late.
async fn goes_on_while_renewed(bench: &dyn Bench, k: &str) -> bool {
    let [alice, bob] = [Actor::brief(bench).await, Actor::patient(bench).await];
    let ttl = brief(&*alice.store);
    let (hold, begun) = (claim(k), clock::now());
    alice.holds(&hold).await;
    let watching = async {
        while clock::now().since(begun) < ttl * 3 {
            if matches!(bob.tries(&claim(k)).await, Place::Held(_)) {
                return false;
            }
            // sleep: the lapse is looked for.
            tokio::time::sleep(ttl / 10).await;
        }
        true
    };
    tokio::select! {
        // The renewals first: a hold that lapsed because one was late proves nothing.
        biased;
        () = keep_renewed(&alice, std::slice::from_ref(&hold), ttl) => false,
        refused = watching => {
            let renewed = alice.renew(std::slice::from_ref(&hold)).await;
            assert!(refused || is_lost(&renewed, &hold), "two hold at once");
            refused && alice.leave(&hold).await == Left::Released
        }
    }
}

pub(crate) async fn rule_1_nothing_revives_a_lapsed_hold(bench: &dyn Bench) {
    let [alice, bob] = [Actor::brief(bench).await, Actor::patient(bench).await];
    let stale = claim("k");
    let old = alice.holds(&stale).await;
    let (hold, fence) = bob.until_free("k").await;

    let renewed = alice.renew(std::slice::from_ref(&stale)).await;
    assert!(is_lost(&renewed, &stale), "a stale renewal: {renewed:?}");
    assert_eq!(alice.leave(&stale).await, Left::Gone, "a stale release");
    assert!(is_lost(&alice.renew(std::slice::from_ref(&stale)).await, &stale));
    assert_eq!(bob.line("k").await, (vec![hold.id], vec![]), "the new hold stands");
    assert_eq!(bob.tries(&hold).await, Place::Held(fence));
    assert!(!is_lost(&bob.renew(std::slice::from_ref(&hold)).await, &hold));
    assert!(fence > old);
}

pub(crate) async fn a_lapsed_hold_is_lost_even_if_nobody_came(bench: &dyn Bench) {
    let [alice, bob] = [Actor::brief(bench).await, Actor::patient(bench).await];
    let stale = claim("k");
    alice.holds(&stale).await;
    // Waits out the lease by looking only, so that nobody else is ever granted.
    soon("the hold lapses", async {
        while bob.line("k").await != (vec![], vec![]) {
            // sleep: the lapse is looked for.
            tokio::time::sleep(brief(&*bob.store) / 10).await;
        }
    })
    .await;
    let renewed = alice.renew(std::slice::from_ref(&stale)).await;
    assert!(is_lost(&renewed, &stale), "revived: {renewed:?}");
    assert_eq!(bob.line("k").await, (vec![], vec![]));
    bob.holds(&claim("k")).await;
}

pub(crate) async fn a_crowd_of_dead_waiters_costs_one_ttl(bench: &dyn Bench) {
    const DEAD: usize = 40;
    let [alice, bob] = [Actor::brief(bench).await, Actor::patient(bench).await];
    // More dead claims than seconds that the wait below may take: were each to cost a TTL, the
    // wait would fail.
    assert!(brief(&*bob.store) * u32::try_from(DEAD).expect("small") > crate::actor::SOON);
    let hold = claim("k");
    alice.holds(&hold).await;
    for _ in 0..DEAD {
        alice.enter(&claim("k"), Enter::Wait).await.expect("in line");
    }
    let waiter = claim("k");
    bob.waits(&waiter).await;
    bob.until_held(&waiter).await;
    assert_eq!(bob.line("k").await, (vec![waiter.id], vec![]));
}

pub(crate) async fn a_release_passes_over_the_dead_in_one_step(bench: &dyn Bench) {
    let [alice, dead, bob] =
        [Actor::patient(bench).await, Actor::brief(bench).await, Actor::patient(bench).await];
    let hold = claim("k");
    alice.holds(&hold).await;
    let crowd: Vec<_> = (0..100).map(|_| claim("k")).collect();
    for waiter in &crowd {
        dead.enter(waiter, Enter::Wait).await.expect("in line");
    }
    let waiter = claim("k");
    bob.waits(&waiter).await;
    // Looking would clear them away; this is about the release doing it.
    // sleep: longer than the TTL, so that they lapse.
    tokio::time::sleep(brief(&*bob.store) * 6 / 5).await;
    assert_eq!(alice.leave(&hold).await, Left::Released);
    if bob.store.guarantees().has(Property::Line) {
        assert_eq!(bob.line("k").await, (vec![waiter.id], vec![]), "granted in the same step");
    }
    bob.until_held(&waiter).await;
}

pub(crate) async fn closing_a_session_ends_all_its_claims_at_once(bench: &dyn Bench) {
    let [alice, bob] = [Actor::patient(bench).await, Actor::patient(bench).await];
    let holds: Vec<_> = (0..5).map(|n| claim(&format!("k{n}"))).collect();
    for hold in &holds {
        alice.holds(hold).await;
    }
    let other = claim("other");
    bob.holds(&other).await;
    let waiting = claim("other");
    alice.waits(&waiting).await;
    alice.close().await;

    for hold in &holds {
        bob.holds(&claim(hold.key.as_str())).await;
        assert!(is_lost(&alice.renew(std::slice::from_ref(hold)).await, hold));
        assert_eq!(alice.leave(hold).await, Left::Gone);
    }
    assert_eq!(bob.line("other").await, (vec![other.id], vec![]), "waiting claims are gone too");
    alice.close().await;
    assert_eq!(bob.line("other").await, (vec![other.id], vec![]), "closing again does nothing");
}

pub(crate) async fn an_ended_session_claims_nothing_more(bench: &dyn Bench) {
    let [alice, bob] = [Actor::patient(bench).await, Actor::patient(bench).await];
    alice.close().await;
    for enter in [Enter::Try, Enter::Wait] {
        let error = alice.enter(&claim("k"), enter).await.expect_err("the session is closed");
        assert_eq!(error.kind(), ErrorKind::SessionEnded, "{error}");
        assert_eq!(error.effect(), leasehold::Effect::None, "{error}");
        assert_eq!(error.key().map(leasehold_core::Key::as_str), Some("k"), "{error}");
        assert_eq!(error.store(), Some(alice.store.to_string().as_str()), "{error}");
        assert!(error.is_transient(), "another session helps");
    }
    assert_eq!(bob.line("k").await, (vec![], vec![]));
    bob.holds(&claim("k")).await;
}

pub(crate) async fn rule_6_a_late_enter_leaves_no_lasting_ghost(bench: &dyn Bench) {
    let [alice, bob] = [Actor::brief(bench).await, Actor::patient(bench).await];
    let ttl = brief(&*bob.store);
    // The caller gave up and left; then its enter arrives, out of order.
    let ghost = claim("k");
    assert_eq!(alice.leave(&ghost).await, Left::Gone);
    let _unheard = alice.enter(&ghost, Enter::Wait).await.expect("carried out");
    match bob.store.guarantees().lease {
        // A claim that no renewal names lapses, although its session is renewed.
        LeaseScope::Claim => {
            tokio::select! {
                _ = bob.until_free("k") => {}
                () = keep_renewed(&alice, &[], ttl) => {
                    bob.until_free("k").await;
                }
            }
        }
        // The session carries it: the caller leaves again when the enter it gave up is answered,
        // and that is enough.
        LeaseScope::Session => {
            assert_eq!(alice.leave(&ghost).await, Left::Released);
            bob.holds(&claim("k")).await;
        }
    }
}
