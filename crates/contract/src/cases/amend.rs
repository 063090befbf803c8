//! Holds that change in place: another note, fewer units. A store that does not count refuses,
//! and each case here asserts that refusal instead.

use std::num::NonZeroU32;

use leasehold::{Effect, ErrorKind, Property};
use leasehold_core::{Claim, Left};

use crate::Bench;
use crate::actor::{Actor, claim, note, share};

/// Whether the store amends. If not, asserts that it refuses by name, without an effect.
async fn amends(actor: &Actor) -> bool {
    if actor.store.guarantees().has(Property::Counting) {
        return true;
    }
    let hold = claim("refused");
    actor.holds(&hold).await;
    let amended = hold.amended(note("another"), NonZeroU32::MIN);
    let refused = actor.store.amend(&actor.session, &amended).await;
    let error = refused.expect_err("a store that cannot amend says so");
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Unsupported, Effect::None), "{error}");
    assert_eq!(error.store(), Some(actor.store.to_string().as_str()), "{error}");
    assert_eq!(actor.leave(&hold).await, Left::Released, "the hold is as it was");
    false
}

pub(crate) async fn a_hold_takes_another_note_and_keeps_its_fence(bench: &dyn Bench) {
    let [alice, bob] = [Actor::patient(bench).await, Actor::patient(bench).await];
    if !amends(&alice).await {
        return;
    }
    let hold = claim("k");
    let fence = alice.holds(&hold).await;
    let waiting = claim("k");
    bob.waits(&waiting).await;
    for text in ["10.0.0.7:8080", "", "a\nb \"c\" \u{1F512}=&%"] {
        let amended = hold.amended(note(text), NonZeroU32::MIN);
        // Twice: as after an answer that got lost.
        assert!(alice.amend(&amended).await);
        assert!(alice.amend(&amended).await);
        let line = bob.inspect("k").await;
        let [holder] = &line.holders[..] else { panic!("one holder: {line:?}") };
        assert_eq!((holder.claim, holder.fence), (Some(hold.id), Some(fence)));
        assert_eq!(holder.note.as_str(), text);
        assert_eq!(line.waiters.len(), 1, "{line:?}");
    }
    assert_eq!(alice.holds(&hold).await, fence, "asking again gives the same fence");
    assert_eq!(alice.leave(&hold).await, Left::Released);
    assert!(bob.until_held(&waiting).await > fence);
}

pub(crate) async fn a_writer_that_reads_on_lets_readers_in_without_a_gap(bench: &dyn Bench) {
    let [alice, bob] = [Actor::patient(bench).await, Actor::patient(bench).await];
    if !amends(&alice).await {
        return;
    }
    let [reader, late] = [share("k", 1, u32::MAX), share("k", 1, u32::MAX)];
    let [writer, next] = [share("k", u32::MAX, u32::MAX), share("k", u32::MAX, u32::MAX)];
    let written = alice.holds(&writer).await;
    bob.waits(&reader).await;
    bob.waits(&next).await;
    bob.waits(&late).await;
    let reads = writer.amended(note("reads"), NonZeroU32::MIN);
    assert!(alice.amend(&reads).await);
    assert!(bob.until_held(&reader).await > written);
    let line = (vec![writer.id, reader.id], vec![next.id, late.id]);
    assert_eq!(bob.line("k").await, line, "a reader beside readers, and nobody overtakes");
    assert_eq!(alice.inspect("k").await.holders[0].units, 1);
    // More units are not had this way.
    assert!(alice.amend(&writer).await);
    assert_eq!(bob.line("k").await, line);
    assert_eq!(alice.inspect("k").await.holders[0].units, 1);
    assert_eq!(alice.leave(&reads).await, Left::Released);
    bob.waits(&next).await;
    assert_eq!(bob.leave(&reader).await, Left::Released);
    bob.until_held(&next).await;
    bob.leave(&next).await;
    bob.until_held(&late).await;
}

pub(crate) async fn nobody_amends_what_they_do_not_hold(bench: &dyn Bench) {
    let [alice, bob] = [Actor::patient(bench).await, Actor::patient(bench).await];
    if !amends(&alice).await {
        return;
    }
    let [hold, waiting, unknown] = [claim("k"), claim("k"), claim("k")];
    alice.holds(&hold).await;
    bob.waits(&waiting).await;
    let changed = |claim: &Claim| claim.amended(note("changed"), NonZeroU32::MIN);
    assert!(!bob.amend(&changed(&waiting)).await, "it waits");
    assert!(!bob.amend(&changed(&unknown)).await, "it never entered");
    let mut elsewhere = changed(&hold);
    elsewhere.key = crate::actor::key("other");
    assert!(!alice.amend(&elsewhere).await, "it holds another key");
    let line = alice.inspect("k").await;
    let notes = line.holders.iter().chain(&line.waiters).map(|party| party.note.as_str());
    assert!(notes.into_iter().all(|text| text == "from the suite"), "{line:?}");
    assert_eq!(alice.leave(&hold).await, Left::Released);
    assert!(!alice.amend(&changed(&hold)).await, "it was left");
    assert_eq!(bob.line("k").await, (vec![waiting.id], vec![]), "and nothing came back");
    assert_eq!(alice.line("other").await, (vec![], vec![]));
}
