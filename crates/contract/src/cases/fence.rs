//! Fences only grow.

use std::collections::BTreeSet;

use leasehold::Property;
use leasehold_core::{Fence, Left};

use crate::Bench;
use crate::actor::{Actor, claim, share, soon};

pub(crate) async fn rule_5_fences_grow_through_every_way_a_hold_ends(bench: &dyn Bench) {
    let alice = Actor::patient(bench).await;
    let mut fences = Vec::new();
    for _ in 0..3 {
        let released = claim("k");
        fences.push(alice.holds(&released).await);
        alice.leave(&released).await;

        let revoked = claim("k");
        fences.push(alice.holds(&revoked).await);
        assert!(alice.store.revoke(&revoked.key, &revoked.id).await.expect("revokes"));

        let (severed, fence) = alice.until_free("k").await;
        fences.push(fence);
        bench.sever(&severed.key).await;

        let closing = Actor::patient(bench).await;
        fences.push(closing.until_free("k").await.1);
        closing.close().await;

        let lapsing = Actor::brief(bench).await;
        fences.push(lapsing.until_free("k").await.1);
        let (after, fence) = alice.until_free("k").await;
        fences.push(fence);
        alice.leave(&after).await;
    }
    assert!(fences.is_sorted_by(|a, b| a < b), "{fences:?}");
}

pub(crate) async fn rule_5_fences_grow_through_hand_overs(bench: &dyn Bench) {
    let actors = [Actor::patient(bench).await, Actor::patient(bench).await];
    let mut hold = claim("k");
    let mut fence = actors[0].holds(&hold).await;
    for n in 0..50_usize {
        let (holder, next) = (&actors[n % 2], &actors[(n + 1) % 2]);
        let waiter = claim("k");
        next.waits(&waiter).await;
        assert_eq!(holder.leave(&hold).await, Left::Released);
        let granted = next.until_held(&waiter).await;
        assert!(granted > fence, "{granted:?} after {fence:?}");
        (hold, fence) = (waiter, granted);
    }
}

pub(crate) async fn rule_5_fences_grow_through_reopening(bench: &dyn Bench) {
    let mut last = Fence::new(0);
    for _ in 0..5 {
        // All handles of the round before are gone: what counts is what the service kept.
        let actor = Actor::patient(bench).await;
        let hold = claim("k");
        let fence = actor.until_held(&hold).await;
        assert!(fence > last, "{fence:?} after {last:?}");
        last = fence;
        actor.leave(&hold).await;
        actor.close().await;
    }
}

pub(crate) async fn rule_5_fences_grow_through_a_restart_of_the_server(bench: &dyn Bench) {
    let Some(server) = bench.server() else {
        // No server: what a restart would leave behind is what reopening leaves behind.
        return rule_5_fences_grow_through_reopening(bench).await;
    };
    let mut last = Fence::new(0);
    for _ in 0..3 {
        // Patient, because a store may begin leases anew when it restarts: then the hold of the
        // round before lasts as long as a brief session that is opened now.
        let patient = Actor::patient(bench).await;
        let (free, fence) = patient.until_free("k").await;
        assert!(fence > last, "{fence:?} after {last:?}");
        last = fence;
        patient.leave(&free).await;
        let fence = Actor::brief(bench).await.holds(&claim("k")).await;
        assert!(fence > last, "{fence:?} after {last:?}");
        last = fence;
        server.kill().await;
        server.start().await;
    }
}

pub(crate) async fn rule_5_fences_of_concurrent_grants_are_unique(bench: &dyn Bench) {
    let alice = Actor::patient(bench).await;
    if !alice.store.guarantees().has(Property::Counting) {
        // Two grants at once exist on different keys only; each key's own order is what counts.
        let [a, b] = [claim("a"), claim("b")];
        alice.holds(&a).await;
        alice.holds(&b).await;
        return;
    }
    let mut tasks = Vec::new();
    for _ in 0..4 {
        let actor = Actor::patient(bench).await;
        tasks.push(tokio::spawn(async move {
            let mut fences = Vec::new();
            for _ in 0..25 {
                fences.push(actor.holds(&share("k", 1, 1000)).await);
            }
            fences
        }));
    }
    let mut seen = BTreeSet::new();
    for task in tasks {
        let fences = soon("grants", task).await.expect("ends well");
        assert!(fences.is_sorted_by(|a, b| a < b), "one after the other: {fences:?}");
        for fence in fences {
            assert!(seen.insert(fence), "{fence:?} was given twice");
        }
    }
    assert_eq!(seen.len(), 100);
}
