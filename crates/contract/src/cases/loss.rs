//! A guard knows by itself that it is lost, and says so in time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt};
use leasehold::{Client, ErrorKind, Guard, Released, Store, clock};
use leasehold_core::Key;

use crate::Bench;
use crate::actor::{Actor, PATIENT, brief, careful_client, client, key, soon};
use crate::chaos::{Call, Chaos, Fault};

/// The TTL of a holder that is to be lost: long enough that half of it outlasts a stall.
fn ttl(store: &dyn Store) -> Duration {
    brief(store) * 2
}

/// A guard whose store is then put in trouble: it must be told of the loss before its deadline,
/// and nobody else is granted before that.
async fn lost_in_time(bench: &dyn Bench, trouble: impl FnOnce(Chaos) -> BoxFuture<'static, ()>) {
    let chaos = Chaos::new(bench.handle());
    let alice = careful_client(Arc::new(chaos.clone()), ttl(&chaos));
    let guard = soon("a lock", alice.mutex("k").expect("a mutex").lock()).await.expect("locks");
    guard.check().expect("held");
    trouble(chaos.clone()).await;
    told_in_time(&guard).await;
}

async fn told_in_time(guard: &Guard) {
    soon("the loss", guard.lost()).await;
    let (told, deadline) = (clock::now(), guard.deadline());
    assert!(told < deadline, "told {:?} after the deadline", told.since(deadline));
    assert_eq!(guard.check().expect_err("lost").kind(), ErrorKind::Lost);
    assert_eq!(guard.remaining(), Duration::ZERO);
}

pub(crate) async fn rule_3_loss_comes_before_the_deadline_whatever_the_store_does(
    bench: &dyn Bench,
) {
    let frozen_renewal =
        |chaos: Chaos| async move { chaos.always(Call::Renew, Fault::Freeze) }.boxed();
    lost_in_time(bench, frozen_renewal).await;
    lost_in_time(bench, |chaos| async move { chaos.all(Fault::Freeze) }.boxed()).await;
    lost_in_time(bench, |chaos| async move { chaos.all(Fault::Fail) }.boxed()).await;
    // Carried out, but nobody hears of it: an extension that is not acknowledged does not count.
    lost_in_time(bench, |chaos| async move { chaos.all(Fault::DropReply) }.boxed()).await;
    lost_in_time(bench, |chaos| async move { chaos.all(Fault::HoldReply) }.boxed()).await;
}

pub(crate) async fn rule_3_loss_comes_before_the_deadline_with_the_server_stopped_or_gone(
    bench: &dyn Bench,
) {
    for stop in [true, false] {
        let store = bench.handle();
        let alice = careful_client(Arc::clone(&store), ttl(&*store));
        let mutex = alice.mutex(if stop { "stopped" } else { "gone" }).expect("a mutex");
        let guard = soon("a lock", mutex.lock()).await.expect("locks");
        let Some(server) = bench.server() else {
            // Without a server the store cannot go away while the process lives: what is left to
            // show is that the hold goes on.
            // sleep: longer than the TTL, which the hold outlives.
            tokio::time::sleep(ttl(&*store)).await;
            assert!(guard.check().is_ok(), "lost although nothing happened");
            continue;
        };
        if stop {
            server.freeze().await;
        } else {
            server.kill().await;
        }
        told_in_time(&guard).await;
        if stop {
            server.thaw().await;
        } else {
            server.start().await;
        }
        let next = client(bench.handle(), PATIENT).mutex(guard.key().clone()).expect("a mutex");
        let next = soon("the next", next.lock()).await.expect("locks");
        assert!(next.fence() > guard.fence(), "{:?} after {:?}", next.fence(), guard.fence());
    }
}

pub(crate) async fn rule_3_and_4_the_first_check_after_a_stop_fails(bench: &dyn Bench) {
    let stopped = |bench: &dyn Bench| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async {
            let store = bench.handle();
            let ttl = ttl(&*store);
            let guard = client(store, ttl).mutex("k").expect("a mutex").lock().await.expect("free");
            let lost = guard.cancellation();
            guard.check().expect("held");
            // sleep: the only thread, as after SIGSTOP, so nothing of the client runs meanwhile.
            std::thread::sleep(ttl);
            let first = guard.check();
            assert!(!lost.is_cancelled(), "nothing ran that could have signalled");
            assert_eq!(first.expect_err("past the deadline").kind(), ErrorKind::Lost);
            assert_eq!(guard.remaining(), Duration::ZERO);
            soon("the loss", guard.lost()).await;
        });
    };
    tokio::task::block_in_place(|| {
        let outcome = std::thread::scope(|scope| scope.spawn(|| stopped(bench)).join());
        outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}

pub(crate) async fn rule_4_check_holds_until_the_loss_and_never_after(bench: &dyn Bench) {
    let chaos = Chaos::new(bench.handle());
    let alice = careful_client(Arc::new(chaos.clone()), ttl(&chaos));
    let bob = Actor::patient(bench).await;
    let guard = alice.mutex("k").expect("a mutex").lock().await.expect("free");
    let before = chaos.log().len();
    chaos.all(Fault::Freeze);
    let deadline = guard.deadline();
    loop {
        let held = guard.check().is_ok();
        if clock::now() >= deadline {
            assert!(guard.check().is_err(), "good after the deadline");
            break;
        }
        if !held {
            assert!(guard.check().is_err(), "lost once is lost for good");
        }
        tokio::task::yield_now().await;
    }
    assert!(guard.deadline() == deadline, "nothing was acknowledged that could move it");
    assert!(chaos.log().len() < before + 100, "a check asks nobody");
    // The hold ends in the store later than here.
    let (_, fence) = bob.until_free("k").await;
    assert!(guard.check().is_err() && fence > guard.fence());
}

pub(crate) async fn rule_4_run_drops_its_future_on_loss(bench: &dyn Bench) {
    struct Dropped(Arc<AtomicBool>);
    impl Drop for Dropped {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }
    let alice = client(bench.handle(), PATIENT);
    let (entered, started) = tokio::sync::oneshot::channel();
    let dropped = Arc::new(AtomicBool::new(false));
    let flag = Dropped(Arc::clone(&dropped));
    let mutex = alice.mutex("k").expect("a mutex");
    let running = tokio::spawn(async move {
        let work = async |guard: &Guard| {
            let _flag = flag;
            let _ = entered.send(guard.fence());
            std::future::pending::<()>().await;
        };
        mutex.run(work).await
    });
    soon("the work begins", started).await.expect("it runs");
    revoke_holder(&*bench.handle(), &key("k")).await;
    let error = soon("run ends", running).await.expect("no panic").expect_err("lost");
    assert_eq!(error.kind(), ErrorKind::Lost, "{error}");
    assert!(dropped.load(Ordering::SeqCst), "the work was dropped");

    let fine = alice.mutex("k").expect("a mutex").run(async |guard| guard.fence()).await;
    assert!(fine.is_ok(), "undisturbed work ends well: {fine:?}");
    assert!(
        client(bench.handle(), PATIENT)
            .mutex("k")
            .expect("a mutex")
            .try_lock()
            .await
            .expect("answers")
            .is_some(),
        "and its lock is released"
    );
}

pub(crate) async fn revoke_holder(store: &dyn Store, key: &Key) {
    let line = store.inspect(key).await.expect("answers");
    let held = line.holders.first().and_then(|holder| holder.claim).expect("somebody holds");
    assert!(store.revoke(key, &held).await.expect("revokes"));
}

pub(crate) async fn rule_7_max_hold_ends_what_renewals_would_keep(bench: &dyn Bench) {
    let store = bench.handle();
    let ttl = ttl(&*store);
    let max_hold = ttl * 3 / 2;
    let alice = Client::builder().shared_store(store).ttl(ttl).grace(ttl / 2).max_hold(max_hold);
    let alice = alice.build().expect("a client");
    let bob = Actor::patient(bench).await;
    let begun = clock::now();
    let guard = alice.mutex("k").expect("a mutex").lock().await.expect("free");
    let granted = clock::now();
    assert!(guard.deadline() <= granted + max_hold, "never promised beyond the longest hold");
    told_in_time(&guard).await;
    assert!(clock::now().since(begun) >= ttl, "lost too early");
    // The client and its guard live on, and nobody releases: the hold ends all the same.
    bob.until_free("k").await;
    assert_eq!(guard.release().await.expect("answers"), Released::Lost);
}

pub(crate) async fn rule_7_renewal_stops_with_the_last_handle(bench: &dyn Bench) {
    let chaos = Chaos::new(bench.handle());
    let ttl = ttl(&chaos);
    let bob = Actor::patient(bench).await;
    let alice = client(Arc::new(chaos.clone()), ttl);
    let mutex = alice.mutex("k").expect("a mutex");
    let guard = mutex.lock().await.expect("free");
    drop((alice, mutex));
    // A guard is a handle: the renewals go on for it alone.
    let renewed = chaos.count(Call::Renew);
    soon("renewals go on", chaos.arrived(Call::Renew, renewed + 3)).await;
    guard.check().expect("held");
    drop(guard);
    soon("the session is closed", chaos.arrived(Call::Close, 1)).await;
    let (hold, _) = bob.until_free("k").await;
    bob.leave(&hold).await;
    let renewed = chaos.count(Call::Renew);
    // sleep: longer than the TTL, in which renewals would show.
    tokio::time::sleep(ttl).await;
    assert_eq!(chaos.count(Call::Renew), renewed, "somebody still renews");
}

pub(crate) async fn the_last_handle_frees_everything_at_once(bench: &dyn Bench) {
    let bob = Actor::patient(bench).await;
    let alice = client(bench.handle(), PATIENT);
    let mut guards = Vec::new();
    for n in 0..10 {
        guards.push(alice.mutex(&*format!("k{n}")).expect("a mutex").lock().await.expect("free"));
    }
    drop((alice, guards));
    for n in 0..10 {
        // The TTL is a quarter of an hour: what is free was given back.
        bob.until_free(&format!("k{n}")).await;
    }
}
