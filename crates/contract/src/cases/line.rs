//! First come, first served, and woken.

use std::sync::Arc;
use std::time::Duration;

use leasehold::{LeaseScope, Property, Store};
use leasehold_core::{Enter, Left, Place};

use crate::Bench;
use crate::actor::{Actor, brief, claim, client, key, soon};
use crate::chaos::{Call, Chaos};

pub(crate) async fn twenty_waiters_are_served_in_order(bench: &dyn Bench) {
    let actors = [Actor::patient(bench).await, Actor::patient(bench).await];
    let hold = claim("k");
    let mut fence = actors[0].holds(&hold).await;
    let waiters: Vec<_> = (0..20).map(|_| claim("k")).collect();
    let keeps_line = actors[0].store.guarantees().has(Property::Line);
    for (n, waiter) in waiters.iter().enumerate() {
        let ahead = actors[n % 2].waits(waiter).await;
        let rank = keeps_line.then(|| u32::try_from(n).expect("small"));
        assert_eq!(ahead.rank, rank, "the place of number {n}");
    }
    if !keeps_line {
        // Who comes first is chance then, and no place was claimed above.
        return;
    }
    let ids: Vec<_> = waiters.iter().map(|waiter| waiter.id).collect();
    assert_eq!(actors[1].line("k").await, (vec![hold.id], ids.clone()));

    assert_eq!(actors[0].leave(&hold).await, Left::Released);
    for (n, waiter) in waiters.iter().enumerate() {
        let actor = &actors[n % 2];
        assert_eq!(actors[1].line("k").await, (vec![waiter.id], ids[n + 1..].to_vec()));
        let granted = actor.until_held(waiter).await;
        assert!(granted > fence, "{granted:?} after {fence:?}");
        fence = granted;
        assert_eq!(actor.leave(waiter).await, Left::Released);
    }
}

pub(crate) async fn asking_again_keeps_the_place_and_the_fence(bench: &dyn Bench) {
    let [alice, bob, carol] =
        [Actor::patient(bench).await, Actor::patient(bench).await, Actor::patient(bench).await];
    let [hold, second, third] = [claim("k"), claim("k"), claim("k")];
    let fence = alice.holds(&hold).await;
    for enter in [Enter::Try, Enter::Wait, Enter::Try] {
        let again = alice.enter(&hold, enter).await.expect("answers");
        assert_eq!(again, Place::Held(fence), "the same grant, not another");
    }
    let places = [bob.waits(&second).await.rank, carol.waits(&third).await.rank];
    for _ in 0..3 {
        assert_eq!(bob.waits(&second).await.rank, places[0]);
        assert_eq!(carol.waits(&third).await.rank, places[1]);
    }
    assert_eq!(alice.leave(&hold).await, Left::Released, "one leave ends it, however often asked");
    assert_eq!(alice.leave(&hold).await, Left::Gone);
    bob.until_held(&second).await;
    carol.waits(&third).await;
}

pub(crate) async fn leaving_the_line_keeps_the_order_of_the_others(bench: &dyn Bench) {
    let alice = Actor::patient(bench).await;
    let bob = Actor::patient(bench).await;
    let [hold, first, second, third] = [claim("k"), claim("k"), claim("k"), claim("k")];
    alice.holds(&hold).await;
    for waiter in [&first, &second, &third] {
        bob.waits(waiter).await;
    }
    if !bob.store.guarantees().has(Property::Line) {
        assert_eq!(bob.line("k").await.1, vec![], "no line is kept, and none is shown");
        return;
    }
    assert_eq!(bob.leave(&second).await, Left::Withdrawn);
    assert_eq!(bob.line("k").await, (vec![hold.id], vec![first.id, third.id]));
    assert_eq!(bob.waits(&third).await.rank, Some(1));
    assert_eq!(bob.leave(&first).await, Left::Withdrawn);
    assert_eq!(alice.leave(&hold).await, Left::Released);
    assert_eq!(bob.line("k").await, (vec![third.id], vec![]));
}

pub(crate) async fn a_hand_over_wakes_the_waiter(bench: &dyn Bench) {
    let [alice, bob] = [Actor::patient(bench).await, Actor::patient(bench).await];
    for _ in 0..10 {
        let [hold, waiter] = [claim("k"), claim("k")];
        alice.holds(&hold).await;
        bob.waits(&waiter).await;
        let changed = bob.store.changed(&bob.session, &waiter);
        tokio::pin!(changed);
        // The waiter may hear of a change that is none: only once the hold ended must it be woken.
        let early = tokio::time::timeout(Duration::from_millis(20), &mut changed).await;
        assert_eq!(alice.leave(&hold).await, Left::Released);
        let told = match early {
            Ok(hint) => {
                hint.expect("a hint");
                soon("woken", bob.store.changed(&bob.session, &waiter)).await
            }
            Err(_) => soon("woken", changed).await,
        };
        let fence = bob.until_held(&waiter).await;
        if let Some(Place::Held(said)) = told.expect("a hint") {
            assert_eq!(said, fence, "what was told is what is");
        }
        assert_eq!(bob.leave(&waiter).await, Left::Released);
    }
}

pub(crate) async fn a_change_before_the_wait_began_is_not_slept_through(bench: &dyn Bench) {
    let [alice, bob] = [Actor::patient(bench).await, Actor::patient(bench).await];
    let [hold, waiter] = [claim("k"), claim("k")];
    alice.holds(&hold).await;
    bob.waits(&waiter).await;
    assert_eq!(alice.leave(&hold).await, Left::Released);
    // The message must not be lost because nobody listened when it came.
    soon("told at once", bob.store.changed(&bob.session, &waiter)).await.expect("a hint");
    bob.until_held(&waiter).await;
}

pub(crate) async fn an_impatient_waiter_can_be_woken_again_and_again(bench: &dyn Bench) {
    let [alice, bob] = [Actor::patient(bench).await, Actor::patient(bench).await];
    let [hold, waiter] = [claim("k"), claim("k")];
    alice.holds(&hold).await;
    bob.waits(&waiter).await;
    for _ in 0..20 {
        let changed = bob.store.changed(&bob.session, &waiter);
        let _gave_up = tokio::time::timeout(Duration::from_millis(2), changed).await;
    }
    assert_eq!(alice.leave(&hold).await, Left::Released);
    soon("woken", bob.store.changed(&bob.session, &waiter)).await.expect("a hint");
    bob.until_held(&waiter).await;
}

pub(crate) async fn the_line_is_seen_as_it_is(bench: &dyn Bench) {
    let [alice, bob] = [Actor::patient(bench).await, Actor::patient(bench).await];
    assert_eq!(alice.inspect("k").await, leasehold_core::Line::default(), "nobody yet");
    let [hold, waiter] = [claim("k"), claim("k")];
    let fence = alice.holds(&hold).await;
    bob.waits(&waiter).await;

    let line = bob.inspect("k").await;
    assert_eq!(line.holders.len(), 1);
    let holder = &line.holders[0];
    assert_eq!((holder.claim, holder.fence), (Some(hold.id), Some(fence)));
    assert_eq!((holder.owner.as_str(), holder.note.as_str()), ("an actor", "from the suite"));
    assert!(holder.age.is_none_or(|age| age < Duration::from_mins(4)), "{holder:?}");
    if bob.store.guarantees().has(Property::Line) {
        assert_eq!(line.waiters.len(), 1);
        let waiting = &line.waiters[0];
        assert_eq!((waiting.claim, waiting.fence), (Some(waiter.id), None));
        assert_eq!((waiting.owner.as_str(), waiting.note.as_str()), ("an actor", "from the suite"));
    } else {
        assert_eq!(line.waiters, vec![], "no line is kept, and none is shown");
    }
    let keys = alice.store.keys("").await.expect("lists");
    assert_eq!(keys, vec![key("k")]);
}

pub(crate) async fn a_waiter_is_renewed_only_where_it_stands_in_line(bench: &dyn Bench) {
    let bob = Actor::patient(bench).await;
    let hold = claim("k");
    bob.holds(&hold).await;
    let chaos = Chaos::new(bench.handle());
    let ttl = brief(&chaos);
    let mutex = client(Arc::new(chaos.clone()), ttl).mutex("k").expect("a mutex");
    let waiting = tokio::spawn(async move { mutex.lock().await });
    if chaos.guarantees().has(Property::Line) || chaos.guarantees().lease == LeaseScope::Session {
        soon("a renewal", chaos.arrived(Call::Renew, 1)).await;
    } else {
        // Nothing of it is in the store: a renewal would be told that it is lost.
        // sleep: longer than the TTL, in which renewals would show.
        tokio::time::sleep(ttl * 6 / 5).await;
        assert!(chaos.count(Call::Enter) > 1, "it asks again instead");
        assert_eq!(chaos.count(Call::Renew), 0, "nothing is there to be renewed");
    }
    bob.leave(&hold).await;
    drop(soon("a lock", waiting).await.expect("no panic").expect("locks"));
}
