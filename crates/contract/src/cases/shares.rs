//! Readers and writers, and semaphores, as a program uses them. A store that does not count is
//! refused when they are made.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use leasehold::{Client, ErrorKind, Guard, Property, Released, Wait};
use leasehold_core::Enter;

use crate::Bench;
use crate::actor::{Actor, PATIENT, client, key, share, soon};
use crate::chaos::{Call, Chaos, Fault};

const MAX: u32 = u32::MAX;

/// Whether the store counts: who asks for a share where it does not is told by
/// [`a_client_of_a_store_that_does_not_count_is_told_at_once`].
fn counts(bench: &dyn Bench) -> bool {
    let store = bench.handle();
    let counting = store.guarantees().has(Property::Counting);
    let client = client(store, PATIENT);
    for outcome in [client.rwlock("k").map(drop), client.semaphore("k", 2).map(drop)] {
        match outcome {
            Ok(()) => assert!(counting, "a store that cannot count says so at once"),
            Err(error) => {
                assert!(!counting, "{error}");
                assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
                assert_eq!(error.store(), Some(client.store().to_string().as_str()), "{error}");
                assert_eq!(error.key(), Some(&key("k")), "{error}");
            }
        }
    }
    counting
}

async fn held(what: &str, guard: impl Future<Output = leasehold::Result<Guard>>) -> Guard {
    soon(what, guard).await.unwrap_or_else(|error| panic!("{what}: {error}"))
}

/// Waits until so many hold and wait.
async fn line_is(client: &Client, on: &str, holders: usize, waiters: usize) {
    let settled = async {
        loop {
            let line = client.store().inspect(&key(on)).await.expect("answers");
            if (line.holders.len(), line.waiters.len()) == (holders, waiters) {
                return;
            }
            // sleep: the line is looked at until it is as expected.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    soon(&format!("{holders} holders and {waiters} waiters of {on:?}"), settled).await;
}

pub(crate) async fn a_client_of_a_store_that_does_not_count_is_told_at_once(bench: &dyn Bench) {
    let counting = counts(bench);
    let client = client(bench.handle(), PATIENT);
    // A semaphore of one is a mutex, which every store has.
    let one = client.semaphore("one", 1).expect("a mutex by another name");
    held("the one unit", one.acquire()).await.release().await.expect("releases");
    for limit in [0, MAX] {
        let error = client.semaphore("k", limit).expect_err("no limit of a semaphore");
        let kinds = [ErrorKind::Invalid, ErrorKind::Unsupported];
        assert!(kinds.contains(&error.kind()), "{error}");
    }
    for units in [0, 2, MAX] {
        let error = one.units(units).expect_err("more than there are, or nothing");
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    }
    if counting {
        assert_eq!(client.semaphore("k", MAX - 1).expect("the largest").limit(), MAX - 1);
    }
}

pub(crate) async fn readers_share_and_a_waiting_writer_is_not_overtaken(bench: &dyn Bench) {
    if !counts(bench) {
        return;
    }
    let [alice, bob] = [client(bench.handle(), PATIENT), client(bench.handle(), PATIENT)];
    let [ours, theirs] = [alice.rwlock("k").expect("a lock"), bob.rwlock("k").expect("a lock")];
    let one = held("a reader", ours.read()).await;
    let two = held("another", theirs.read()).await;
    assert!(theirs.try_write().await.expect("answers").is_none(), "readers are there");
    let writing = tokio::spawn({
        let theirs = theirs.clone();
        async move { theirs.write().await }
    });
    line_is(&alice, "k", 2, 1).await;
    assert!(ours.try_read().await.expect("answers").is_none(), "a writer came before");
    let fences = one.fence().max(two.fence());
    assert_eq!(one.release().await.expect("releases"), Released::Held);
    assert_eq!(two.release().await.expect("releases"), Released::Held);
    let writer = held("the writer", async { writing.await.expect("no panic") }).await;
    assert!(writer.fence() > fences, "a writer's fence exceeds its readers'");
    assert!(ours.try_read().await.expect("answers").is_none());
    assert!(ours.try_write().await.expect("answers").is_none());
    let fence = writer.fence();
    assert_eq!(writer.release().await.expect("releases"), Released::Held);
    let next = held("a reader after it", ours.read()).await;
    assert!(next.fence() > fence);
}

pub(crate) async fn a_writer_downgrades_without_a_gap(bench: &dyn Bench) {
    if !counts(bench) {
        return;
    }
    let [alice, bob] = [client(bench.handle(), PATIENT), client(bench.handle(), PATIENT)];
    let [ours, theirs] = [alice.rwlock("k").expect("a lock"), bob.rwlock("k").expect("a lock")];
    let guard = held("the writer", ours.write()).await;
    assert_eq!(guard.units(), MAX);
    let fence = guard.fence();
    let later = |write: bool| {
        let theirs = theirs.clone();
        tokio::spawn(async move { if write { theirs.write().await } else { theirs.read().await } })
    };
    let reading = later(false);
    line_is(&alice, "k", 1, 1).await;
    let writing = later(true);
    line_is(&alice, "k", 1, 2).await;
    soon("the downgrade", guard.downgrade()).await.expect("downgrades");
    soon("the downgrade again", guard.downgrade()).await.expect("is one already");
    assert_eq!((guard.units(), guard.fence()), (1, fence));
    let reader = held("the reader beside it", async { reading.await.expect("no panic") }).await;
    guard.check().expect("holds on");
    line_is(&alice, "k", 2, 1).await;
    assert!(ours.try_read().await.expect("answers").is_none(), "the writer came before");
    assert_eq!(guard.release().await.expect("releases"), Released::Held);
    line_is(&alice, "k", 1, 1).await;
    assert_eq!(reader.release().await.expect("releases"), Released::Held);
    let writer = held("the writer at last", async { writing.await.expect("no panic") }).await;
    assert!(writer.fence() > fence);
    writer.release().await.expect("releases");

    let mutex = held("a mutex", alice.mutex("m").expect("a mutex").lock()).await;
    let error = mutex.downgrade().await.expect_err("there is nothing to share");
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    assert_eq!(mutex.release().await.expect("releases"), Released::Held);
}

pub(crate) async fn a_downgrade_whose_reply_got_lost_is_one(bench: &dyn Bench) {
    if !counts(bench) {
        return;
    }
    let chaos = Chaos::new(bench.handle());
    let alice = client(Arc::new(chaos.clone()), PATIENT);
    let bob = client(bench.handle(), PATIENT);
    let guard = held("the writer", alice.rwlock("k").expect("a lock").write()).await;
    chaos.once(Call::Amend, Fault::DropReply);
    soon("the downgrade", guard.downgrade()).await.expect("asks again");
    assert_eq!(chaos.count(Call::Amend), 2);
    let reader = bob.rwlock("k").expect("a lock").try_read().await.expect("answers");
    assert!(reader.is_some(), "it reads on, and so may others");
    assert_eq!(guard.release().await.expect("releases"), Released::Held);
}

pub(crate) async fn a_downgrade_after_the_loss_says_lost(bench: &dyn Bench) {
    if !counts(bench) {
        return;
    }
    let chaos = Chaos::new(bench.handle());
    // Nobody tells it of the loss, so that the downgrade is the first to learn of it.
    chaos.always(Call::Disturbed, Fault::Freeze);
    let alice = client(Arc::new(chaos.clone()), PATIENT);
    let guard = held("the writer", alice.rwlock("k").expect("a lock").write()).await;
    let operator = Actor::patient(bench).await;
    let (holders, _) = operator.line("k").await;
    assert!(operator.store.revoke(&key("k"), &holders[0]).await.expect("answers"));
    let other = share("k", MAX, MAX);
    operator.holds(&other).await;
    let error = soon("the downgrade", guard.downgrade()).await.expect_err("it is another's");
    assert_eq!(error.kind(), ErrorKind::Lost, "{error}");
    assert_eq!(guard.check().expect_err("and is known to be lost").kind(), ErrorKind::Lost);
    soon("the signal", guard.lost()).await;
    let late = operator.enter(&share("k", 1, MAX), Enter::Try).await.expect("answers");
    assert!(!matches!(late, leasehold_core::Place::Held(_)), "the other writer is alone");
}

pub(crate) async fn a_note_changes_under_a_guard(bench: &dyn Bench) {
    if !counts(bench) {
        return;
    }
    let alice = client(bench.handle(), PATIENT);
    let guard = held("a reader", alice.rwlock("k").expect("a lock").write()).await;
    guard.set_note("10.0.0.1").await.expect("changes");
    guard.downgrade().await.expect("downgrades");
    let line = alice.store().inspect(&key("k")).await.expect("answers");
    assert_eq!(line.holders[0].note.as_str(), "10.0.0.1", "the downgrade keeps the note");
    guard.set_note("10.0.0.2").await.expect("changes");
    let line = alice.store().inspect(&key("k")).await.expect("answers");
    assert_eq!((line.holders[0].note.as_str(), line.holders[0].units), ("10.0.0.2", 1));
    let error = guard.set_note("a\0b").await.expect_err("NUL");
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    assert_eq!(guard.release().await.expect("releases"), Released::Held);
}

pub(crate) async fn a_semaphore_lets_in_its_limit_and_names_another(bench: &dyn Bench) {
    if !counts(bench) {
        return;
    }
    let [alice, bob] = [client(bench.handle(), PATIENT), client(bench.handle(), PATIENT)];
    let three = alice.semaphore("k", 3).expect("a semaphore");
    let [one, two] =
        [three.acquire().await.expect("free"), three.acquire_many(2).await.expect("free")];
    assert!(bob.semaphore("k", 3).expect("made").try_acquire().await.expect("answers").is_none());
    let five = bob.semaphore("k", 5).expect("a semaphore");
    for refused in [five.acquire().await.map(drop), five.try_acquire().await.map(drop)] {
        let error = refused.expect_err("they have to agree");
        assert_eq!(error.kind(), ErrorKind::Disagrees, "{error}");
        let said = error.to_string();
        assert!(said.contains("limit of 3") && said.contains("one of 5"), "{said}");
    }
    let error = bob.mutex("k").expect("a mutex").try_lock().await.expect_err("nor is it a mutex");
    assert_eq!(error.kind(), ErrorKind::Disagrees, "{error}");
    one.release().await.expect("releases");
    two.release().await.expect("releases");
    let all = five.acquire_many(5).await.expect("those with the old limit have finished");
    assert_eq!(all.units(), 5);
    all.release().await.expect("releases");
}

pub(crate) async fn locking_again_inside_a_run_is_an_error_and_not_a_hang(bench: &dyn Bench) {
    let alice = client(bench.handle(), PATIENT);
    let lock = alice.mutex("k").expect("a mutex");
    let inside = lock.run(async |_guard| {
        let error = lock.lock().await.expect_err("it would wait for itself");
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        assert!(error.to_string().contains("re-entrant"), "{error}");
        // A try waits for nobody, and neither does another key, nor another task.
        assert!(lock.try_lock().await.expect("answers").is_none());
        let other = alice.mutex("other").expect("a mutex");
        let free = other.run(async |_| other.key().clone()).await.expect("another key");
        let elsewhere = tokio::spawn({
            let lock = lock.clone();
            async move { lock.lock_within(Duration::from_millis(50)).await.map(drop) }
        });
        let waited = elsewhere.await.expect("no panic").expect_err("it is held");
        assert_eq!(waited.kind(), ErrorKind::TimedOut, "{waited}");
        let theirs = client(bench.handle(), PATIENT).mutex("k").expect("a mutex");
        let waited = theirs.lock_within(Duration::from_millis(50)).await.expect_err("it is held");
        assert_eq!(waited.kind(), ErrorKind::TimedOut, "not the same client: {waited}");
        free
    });
    assert_eq!(soon("the run", inside).await.expect("runs"), key("other"));
    held("after the run", lock.lock()).await.release().await.expect("releases");
    if counts(bench) {
        let shelf = alice.semaphore("shelf", 3).expect("a semaphore");
        let two = shelf.units(2).expect("units");
        let inside = two.run(async |_guard| {
            let third = held("the third unit", shelf.acquire()).await;
            let error = two.lock().await.expect_err("there are never that many");
            assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
            third.release().await.expect("releases")
        });
        assert_eq!(soon("the run", inside).await.expect("runs"), Released::Held);
        // A mutex is a writer by another name, also for those who would read beside it.
        let lock = alice.rwlock("rw").expect("a lock");
        let mutex = alice.mutex("rw").expect("a mutex");
        let inside = mutex.run(async |_guard| lock.read().await.expect_err("behind itself").kind());
        assert_eq!(soon("the run", inside).await.expect("runs"), ErrorKind::Invalid);
        let inside = lock.writer().run(async |guard| {
            lock.read().await.expect_err("behind itself");
            guard.downgrade().await.expect("downgrades");
            held("beside itself", lock.read()).await.release().await.expect("releases");
        });
        soon("the run", inside).await.expect("runs");
    }
}

pub(crate) async fn a_task_that_waits_for_itself_is_warned_and_no_other_is(bench: &dyn Bench) {
    let alice = client(bench.handle(), PATIENT);
    let warned = Arc::new(AtomicU32::new(0));
    let lock = alice.mutex("k").expect("a mutex").on_wait({
        let warned = Arc::clone(&warned);
        move |wait| {
            warned.fetch_add(u32::from(matches!(wait, Wait::BehindItself(_))), Ordering::SeqCst);
        }
    });
    let wait = Duration::from_secs(1);
    let task = tokio::spawn(async move {
        let guard = held("free", lock.lock()).await;
        let other = lock.clone();
        let elsewhere = tokio::spawn(async move { other.lock_within(wait).await.map(drop) });
        let error = elsewhere.await.expect("no panic").expect_err("it is held");
        assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
        assert_eq!(warned.load(Ordering::SeqCst), 0, "another task waits for this one");
        let error = lock.lock_within(wait).await.expect_err("it waits for itself");
        assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
        assert_eq!(warned.load(Ordering::SeqCst), 1);
        guard.release().await.expect("releases")
    });
    assert_eq!(soon("the task", task).await.expect("no panic"), Released::Held);
}

pub(crate) async fn the_number_of_stored_slots_changes_while_they_are_held(bench: &dyn Bench) {
    if !counts(bench) {
        return;
    }
    let [alice, bob] = [client(bench.handle(), PATIENT), client(bench.handle(), PATIENT)];
    let [ours, theirs] = [alice.slots("k").expect("slots"), bob.slots("k").expect("slots")];
    assert_eq!(ours.get().await.expect("answers"), None);
    let error = ours.acquire().await.expect_err("nobody has said how many there are");
    assert_eq!((error.kind(), error.key()), (ErrorKind::Invalid, Some(&key("k"))), "{error}");
    for number in [0, leasehold::Slots::MAX + 1] {
        let error = ours.set(number).await.expect_err("no number of slots");
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    }
    ours.set(2).await.expect("is written down");
    assert_eq!(theirs.get().await.expect("answers"), Some(2));
    let error = theirs.units(3).await.expect_err("more than there are");
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    let [one, two] = [held("one", ours.acquire()).await, held("two", theirs.acquire()).await];
    assert!(theirs.try_acquire().await.expect("answers").is_none(), "two of two are held");

    theirs.set(4).await.expect("is written down");
    assert!(theirs.try_acquire().await.expect("answers").is_none(), "nobody who holds is cut off");
    one.check().expect("held");
    let error = one.downgrade().await.expect_err("a part stays what it is");
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    one.release().await.expect("releases");
    let [three, four] =
        [held("a fourth", ours.acquire()).await, held("one", theirs.acquire()).await];
    assert!(ours.try_acquire().await.expect("answers").is_none(), "a half and two fourths");

    ours.set(1).await.expect("is written down");
    let alone = tokio::spawn(async move { theirs.acquire().await });
    line_is(&alice, "k", 3, 1).await;
    for guard in [two, three] {
        assert_eq!(guard.release().await.expect("releases"), Released::Held);
    }
    line_is(&alice, "k", 1, 1).await;
    assert_eq!(four.release().await.expect("releases"), Released::Held);
    let alone = soon("alone", alone).await.expect("no panic").expect("granted");
    assert!(alice.mutex("k").expect("a mutex").try_lock().await.expect("answers").is_none());
    alone.release().await.expect("releases");
}
