//! Limits above 1: semaphores, and readers beside readers. A store that does not count refuses,
//! and each case here asserts that refusal instead.

use leasehold::{Effect, ErrorKind, Property};
use leasehold_core::{Claim, Enter, Left};

use crate::Bench;
use crate::actor::{Actor, brief, claim, share};

/// Whether the store counts. If not, asserts that it refuses `wanted` by name, without an effect.
async fn counts(actor: &Actor, wanted: &Claim) -> bool {
    if actor.store.guarantees().has(Property::Counting) {
        return true;
    }
    for enter in [Enter::Try, Enter::Wait] {
        let error =
            actor.enter(wanted, enter).await.expect_err("a store that cannot count says so");
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        assert_eq!(error.effect(), Effect::None, "{error}");
        assert_eq!(error.store(), Some(actor.store.to_string().as_str()), "{error}");
        assert!(!error.is_transient(), "asking again does not help");
    }
    let k = wanted.key.as_str();
    assert_eq!(actor.line(k).await, (vec![], vec![]), "the refusal left nothing");
    actor.holds(&claim(k)).await;
    false
}

pub(crate) async fn a_semaphore_admits_its_limit_and_does_not_overtake(bench: &dyn Bench) {
    let [alice, bob] = [Actor::patient(bench).await, Actor::patient(bench).await];
    let [one, two] = [share("k", 1, 3), share("k", 2, 3)];
    if !counts(&alice, &one).await {
        return;
    }
    alice.holds(&one).await;
    bob.holds(&two).await;
    bob.refused(&share("k", 1, 3)).await;
    let [large, small] = [share("k", 2, 3), share("k", 1, 3)];
    alice.waits(&large).await;
    bob.waits(&small).await;
    // One unit is free now, and the small claim would fit; the large one came first.
    assert_eq!(alice.leave(&one).await, Left::Released);
    assert_eq!(bob.line("k").await, (vec![two.id], vec![large.id, small.id]));
    bob.refused(&share("k", 1, 3)).await;
    assert_eq!(bob.leave(&two).await, Left::Released);
    assert_eq!(bob.line("k").await, (vec![large.id, small.id], vec![]));
    alice.until_held(&large).await;
    bob.until_held(&small).await;
}

pub(crate) async fn readers_share_and_a_writer_is_alone(bench: &dyn Bench) {
    let [alice, bob] = [Actor::patient(bench).await, Actor::patient(bench).await];
    let reader = || share("k", 1, u32::MAX);
    let [first, second, writer, late] =
        [reader(), reader(), share("k", u32::MAX, u32::MAX), reader()];
    if !counts(&alice, &first).await {
        return;
    }
    let read = alice.holds(&first).await.max(bob.holds(&second).await);
    bob.waits(&writer).await;
    alice.waits(&late).await;
    alice.leave(&first).await;
    assert_eq!(bob.line("k").await, (vec![second.id], vec![writer.id, late.id]));
    bob.leave(&second).await;
    let written = bob.until_held(&writer).await;
    assert!(written > read, "a writer's fence exceeds those of all earlier readers");
    assert_eq!(bob.line("k").await, (vec![writer.id], vec![late.id]));
    bob.leave(&writer).await;
    assert!(alice.until_held(&late).await > written);
}

pub(crate) async fn a_lapsed_reader_frees_the_writer(bench: &dyn Bench) {
    let [alice, bob] = [Actor::brief(bench).await, Actor::patient(bench).await];
    let [lapsing, living] = [share("k", 1, u32::MAX), share("k", 1, u32::MAX)];
    if !counts(&bob, &living).await {
        return;
    }
    alice.holds(&lapsing).await;
    bob.holds(&living).await;
    let writer = share("k", u32::MAX, u32::MAX);
    bob.waits(&writer).await;
    // sleep: longer than the TTL, so that the reader lapses.
    tokio::time::sleep(brief(&*bob.store) * 6 / 5).await;
    bob.waits(&writer).await;
    assert_eq!(bob.line("k").await, (vec![living.id], vec![writer.id]), "one reader lives");
    bob.leave(&living).await;
    bob.until_held(&writer).await;
}

pub(crate) async fn claims_that_disagree_on_the_limit_are_refused(bench: &dyn Bench) {
    let [alice, bob] = [Actor::patient(bench).await, Actor::patient(bench).await];
    let [five, waiting] = [share("k", 3, 5), share("k", 4, 5)];
    if !counts(&alice, &five).await {
        return;
    }
    alice.holds(&five).await;
    bob.waits(&waiting).await;
    // Of one that would fit, of one that would not, and of a mutex.
    for other in [share("k", 1, 7), share("k", 3, 3), claim("k")] {
        for enter in [Enter::Try, Enter::Wait] {
            let error = bob.enter(&other, enter).await.expect_err("they have to agree");
            assert_eq!(error.kind(), ErrorKind::Disagrees, "{error}");
            assert_eq!(error.effect(), Effect::None, "{error}");
            assert!(!error.is_transient(), "asking again does not help");
            let said = error.to_string();
            let limit = format!("one of {}", other.limit());
            assert!(said.contains("limit of 5") && said.contains(&limit), "{said}");
        }
    }
    assert_eq!(bob.line("k").await, (vec![five.id], vec![waiting.id]), "nothing is left of them");
    // Who is in line already is not asked again.
    alice.leave(&five).await;
    bob.until_held(&waiting).await;
    bob.leave(&waiting).await;
    alice.holds(&share("k", 3, 3)).await;
}

pub(crate) async fn a_mutex_is_a_writer_by_another_name(bench: &dyn Bench) {
    let [alice, bob] = [Actor::patient(bench).await, Actor::patient(bench).await];
    let [reader, late] = [share("k", 1, u32::MAX), share("k", 1, u32::MAX)];
    if !counts(&alice, &reader).await {
        return;
    }
    let [mutex, writer] = [claim("k"), share("k", u32::MAX, u32::MAX)];
    let read = alice.holds(&reader).await;
    bob.refused(&claim("k")).await;
    bob.waits(&mutex).await;
    alice.waits(&late).await;
    alice.waits(&writer).await;
    assert_eq!(bob.line("k").await, (vec![reader.id], vec![mutex.id, late.id, writer.id]));
    alice.leave(&reader).await;
    let alone = bob.until_held(&mutex).await;
    assert!(alone > read);
    assert_eq!(bob.line("k").await, (vec![mutex.id], vec![late.id, writer.id]));
    alice.refused(&share("k", 1, u32::MAX)).await;
    bob.leave(&mutex).await;
    assert!(alice.until_held(&late).await > alone);
    alice.leave(&late).await;
    alice.until_held(&writer).await;
    bob.refused(&claim("k")).await;
}

pub(crate) async fn a_semaphore_of_a_hundred_never_exceeds_its_limit(bench: &dyn Bench) {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    const LIMIT: u32 = 7;
    let probe = Actor::patient(bench).await;
    if !counts(&probe, &share("k", 1, LIMIT)).await {
        return;
    }
    let inside = Arc::new(AtomicU32::new(0));
    let mut tasks = Vec::new();
    for n in 0..100_u32 {
        let actor = Actor::patient(bench).await;
        let inside = Arc::clone(&inside);
        tasks.push(tokio::spawn(async move {
            let units = 1 + n % 3;
            let hold = share("k", units, LIMIT);
            actor.until_held(&hold).await;
            let now = inside.fetch_add(units, Ordering::SeqCst) + units;
            assert!(now <= LIMIT, "{now} of {LIMIT} units held");
            tokio::task::yield_now().await;
            inside.fetch_sub(units, Ordering::SeqCst);
            assert_eq!(actor.leave(&hold).await, Left::Released);
        }));
    }
    for task in tasks {
        task.await.expect("a contender ends well");
    }
    assert_eq!(probe.line("k").await, (vec![], vec![]));
}
