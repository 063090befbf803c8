//! Records: what jobs and limiters remember. A store that keeps none refuses, and each case here
//! asserts that refusal instead.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use leasehold::{Effect, ErrorKind, Property, clock};
use leasehold_core::{Claim, Left, Provided, Reading, Record, SessionId, Version};

use crate::Bench;
use crate::actor::{Actor, brief, claim, key, soon};

const DAY: Duration = Duration::from_hours(24);

fn record(value: &[u8]) -> Record {
    Record::new(value, DAY).expect("a record")
}

impl Actor {
    async fn read(&self, on: &str) -> Reading {
        soon("read", self.store.read(&key(on))).await.expect("the store answers")
    }

    async fn value(&self, on: &str) -> Option<Vec<u8>> {
        self.read(on).await.written.map(|written| written.value.to_vec())
    }

    async fn version(&self, on: &str) -> Option<Version> {
        self.read(on).await.written.map(|written| written.version)
    }

    async fn put(&self, on: &str, provided: Provided<'_>, record: &Record) -> bool {
        soon("write", self.store.write(&key(on), provided, record))
            .await
            .expect("the store answers")
    }

    async fn put_from(&self, on: &str, version: Option<Version>, value: &[u8]) -> bool {
        self.put(on, Provided::Unchanged(version), &record(value)).await
    }

    async fn put_under(&self, session: &SessionId, hold: &Claim, value: &[u8]) -> bool {
        self.put(hold.key.as_str(), Provided::Held(session, hold), &record(value)).await
    }
}

/// Whether the store keeps records. If not, asserts that it refuses by name, without an effect.
async fn keeps(actor: &Actor) -> bool {
    if actor.store.guarantees().has(Property::Records) {
        return true;
    }
    let (on, refused) = (key("k"), "a store that keeps no records says so");
    let read = actor.store.read(&on).await.expect_err(refused);
    let new = record(b"x");
    let written = actor.store.write(&on, Provided::Unchanged(None), &new).await.expect_err(refused);
    for error in [read, written] {
        assert_eq!((error.kind(), error.effect()), (ErrorKind::Unsupported, Effect::None));
        assert_eq!(error.store(), Some(actor.store.to_string().as_str()), "{error}");
    }
    false
}

pub(crate) async fn a_record_is_read_as_it_was_written(bench: &dyn Bench) {
    let [alice, bob] = [Actor::patient(bench).await, Actor::patient(bench).await];
    if !keeps(&alice).await {
        return;
    }
    assert_eq!(alice.read("k").await.written, None);
    let every_byte: Vec<u8> = (0..=255).cycle().take(Record::MAX_BYTES).collect();
    let values = [&b""[..], b"\0", b"1 2 3", "\u{1F512}".as_bytes(), &every_byte];
    for (n, value) in values.into_iter().enumerate() {
        // Keys that a careless layout would take for one, or for its own.
        for on in ["k", "k/", "K", "{k}", "record", "k:record", "\u{e9}"] {
            let before = alice.version(on).await;
            assert_eq!(before.is_none(), n == 0, "{on:?} is written once a round");
            assert!(alice.put_from(on, before, value).await, "{on:?}");
            assert_eq!(bob.value(on).await.as_deref(), Some(value), "{on:?}");
            assert!(bob.version(on).await > before, "{on:?}: versions grow");
        }
    }
    // Where the store has a clock it does not go backwards, whoever asks.
    let times = [alice.read("k").await.at, bob.read("k").await.at, alice.read("none").await.at];
    assert!(times.is_sorted(), "{times:?}");
    assert!(times.iter().all(|at| at.is_none_or(|at| at > DAY * 365 * 50)), "{times:?}");
}

pub(crate) async fn a_record_changes_only_from_the_version_that_was_read(bench: &dyn Bench) {
    let [alice, bob] = [Actor::patient(bench).await, Actor::patient(bench).await];
    if !keeps(&alice).await {
        return;
    }
    assert!(alice.put_from("k", None, b"one").await);
    assert!(!bob.put_from("k", None, b"two").await, "there is one already");
    let first = bob.version("k").await;
    assert!(bob.put_from("k", first, b"two").await);
    assert!(!alice.put_from("k", first, b"three").await, "that was replaced");
    // The same bytes again are another writing.
    let second = alice.version("k").await;
    assert!(second > first);
    assert!(alice.put_from("k", second, b"one").await);
    assert!(!bob.put_from("k", first, b"three").await, "the same bytes, and not the same version");
    let never = Version::new(alice.version("k").await.expect("written").get() + 1);
    assert!(!bob.put_from("k", Some(never), b"three").await);
    assert!(!bob.put_from("other", second, b"three").await, "that is another key's");
    assert_eq!(bob.value("k").await.as_deref(), Some(&b"one"[..]));
    assert_eq!(bob.value("other").await, None);
}

pub(crate) async fn increments_of_a_record_are_not_lost(bench: &dyn Bench) {
    const EACH: u64 = 20;
    let probe = Actor::patient(bench).await;
    if !keeps(&probe).await {
        return;
    }
    let mut tasks = Vec::new();
    for _ in 0..5 {
        let actor = Actor::patient(bench).await;
        tasks.push(tokio::spawn(async move {
            for _ in 0..EACH {
                soon("an increment", increment(&actor)).await;
            }
        }));
    }
    for task in tasks {
        task.await.expect("an incrementing task ends well");
    }
    assert_eq!(probe.value("k").await.as_deref(), Some((5 * EACH).to_string().as_bytes()));
}

async fn increment(actor: &Actor) {
    loop {
        let written = actor.read("k").await.written;
        let before: u64 = written.as_ref().map_or(0, |written| {
            std::str::from_utf8(&written.value).expect("digits").parse().expect("a number")
        });
        let version = written.map(|written| written.version);
        if actor.put_from("k", version, (before + 1).to_string().as_bytes()).await {
            return;
        }
    }
}

pub(crate) async fn a_record_is_written_under_a_hold_only_while_it_is_held(bench: &dyn Bench) {
    let [alice, bob] = [Actor::patient(bench).await, Actor::patient(bench).await];
    if !keeps(&alice).await {
        return;
    }
    let [hold, waiting] = [claim("k"), claim("k")];
    alice.holds(&hold).await;
    bob.waits(&waiting).await;
    assert!(alice.put_under(&alice.session, &hold, b"first").await);
    assert!(alice.put_under(&alice.session, &hold, b"held").await, "whatever the version");
    assert!(!bob.put_under(&bob.session, &waiting, b"waiting").await, "it waits");
    assert!(!bob.put_under(&bob.session, &claim("k"), b"never").await, "it never entered");
    let mut elsewhere = hold.clone();
    elsewhere.key = key("other");
    assert!(!alice.put_under(&alice.session, &elsewhere, b"elsewhere").await);
    assert_eq!(bob.value("k").await.as_deref(), Some(&b"held"[..]));
    assert_eq!(bob.value("other").await, None);

    assert_eq!(alice.leave(&hold).await, Left::Released);
    bob.until_held(&waiting).await;
    assert!(!alice.put_under(&alice.session, &hold, b"late").await, "it was left");
    assert!(bob.put_under(&bob.session, &waiting, b"next").await);
    bob.leave(&waiting).await;
    assert_eq!(alice.value("k").await.as_deref(), Some(&b"next"[..]));

    // And one whose lease ran out: nobody came, and it holds no more all the same.
    let carol = Actor::brief(bench).await;
    let lapsing = claim("lapsing");
    carol.holds(&lapsing).await;
    let ttl = brief(&*carol.store);
    // sleep: longer than the TTL, so that the hold lapses.
    tokio::time::sleep(ttl * 6 / 5).await;
    let (_, _) = alice.until_free("lapsing").await;
    assert!(!carol.put_under(&carol.session, &lapsing, b"lapsed").await);
    assert_eq!(alice.value("lapsing").await, None);
}

pub(crate) async fn a_record_is_kept_for_its_time(bench: &dyn Bench) {
    let alice = Actor::patient(bench).await;
    if !keeps(&alice).await {
        return;
    }
    let keep = Duration::from_secs(2);
    let sent = clock::now();
    let brief = Record::new(b"brief", keep).expect("a record");
    assert!(alice.put("k", Provided::Unchanged(None), &brief).await);
    assert!(alice.put_from("long", None, b"long").await);
    let version = alice.version("k").await;
    let value = alice.value("k").await;
    if clock::now() < sent + keep {
        assert_eq!(value.as_deref(), Some(&b"brief"[..]), "not before its time");
    }
    let forgotten = async {
        while alice.value("k").await.is_some() {
            // sleep: the store is asked again until it has forgotten.
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    soon("the record is forgotten", forgotten).await;
    assert!(clock::now() >= sent + keep, "forgotten before its time");
    assert_eq!(alice.value("long").await.as_deref(), Some(&b"long"[..]));
    assert!(!alice.put_from("k", version, b"late").await, "a version does not outlive its record");
    assert!(alice.put_from("k", None, b"new").await);
    let again = alice.version("k").await;
    assert!(again > version, "a version is not used again: {again:?} after {version:?}");
}

pub(crate) async fn records_and_lines_leave_each_other_alone(bench: &dyn Bench) {
    let [alice, bob] = [Actor::patient(bench).await, Actor::patient(bench).await];
    if !keeps(&alice).await {
        return;
    }
    assert!(alice.put_from("k", None, b"kept").await);
    assert_eq!(alice.store.keys("").await.expect("lists"), vec![], "a record is no claim");
    assert_eq!(alice.line("k").await, (vec![], vec![]));
    let hold = claim("k");
    let fence = bob.holds(&hold).await;
    assert!(alice.put_from("k", alice.version("k").await, b"under a hold").await);
    assert_eq!(alice.line("k").await, (vec![hold.id], vec![]), "the record changed, not the line");
    assert_eq!(bob.holds(&hold).await, fence);
    bob.close().await;
    alice.close().await;
    let carol = Actor::patient(bench).await;
    assert_eq!(carol.value("k").await.as_deref(), Some(&b"under a hold"[..]), "sessions end");
    assert!(carol.holds(&claim("k")).await > fence);
}

pub(crate) async fn dropped_calls_on_a_record_leave_the_store_usable(bench: &dyn Bench) {
    let alice = Actor::patient(bench).await;
    if !keeps(&alice).await {
        return;
    }
    let store = Arc::clone(&alice.store);
    for n in 0..20_u8 {
        let (on, new) = (key("k"), record(&[n]));
        // Polled once and dropped: it may be carried out or not.
        let _ = store.read(&on).now_or_never();
        let _ = store.write(&on, Provided::Unchanged(None), &new).now_or_never();
    }
    let before = alice.version("k").await;
    assert!(alice.put_from("k", before, b"whole").await || alice.version("k").await != before);
    let end = async { while !alice.put_from("k", alice.version("k").await, b"end").await {} };
    soon("a write after those that were dropped", end).await;
    assert_eq!(alice.value("k").await.as_deref(), Some(&b"end"[..]));
}
