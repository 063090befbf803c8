//! Safety rules 6, 8 and 9 on the client: cancellation, bad timing, secrets.

use std::sync::Arc;
use std::time::Duration;

use leasehold::{Client, ClientBuilder, ErrorKind, Guard, Released, Store, Timing};

use super::cancel::dropped_after;
use crate::Bench;
use crate::actor::{Actor, PATIENT, claim, client, key, soon};
use crate::chaos::{Chaos, Fault};

/// More awaits than a lock has.
const POLLS: usize = 16;

/// Waits until nobody but `holder` is in line: what was dropped is left in the background.
async fn only(actor: &Actor, on: &str, holders: usize) {
    soon("only the holder is in line", async {
        loop {
            let (held, waiting) = actor.line(on).await;
            if held.len() == holders && waiting.is_empty() {
                return;
            }
            // sleep: a clock is looked at until it has moved.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

pub(crate) async fn rule_6_dropping_a_lock_at_any_await_leaves_nothing(bench: &dyn Bench) {
    let (alice, bob) = (client(bench.handle(), PATIENT), Actor::patient(bench).await);
    for polls in 0..POLLS {
        // A lock that is free, and one that is not; with a client that has a session or is new.
        for fresh in [false, true] {
            let alice = if fresh { client(bench.handle(), PATIENT) } else { alice.clone() };
            let mutex = alice.mutex("k").expect("a mutex");
            drop(dropped_after(polls, mutex.lock()).await);
            only(&bob, "k", 0).await;
            drop(dropped_after(polls, mutex.try_lock()).await);
            only(&bob, "k", 0).await;
            let hold = claim("k");
            bob.until_held(&hold).await;
            drop(dropped_after(polls, mutex.lock()).await);
            only(&bob, "k", 1).await;
            drop(dropped_after(polls, mutex.lock_within(PATIENT)).await);
            only(&bob, "k", 1).await;
            bob.leave(&hold).await;
            bob.leave(&bob.until_free("k").await.0).await;
        }
    }
}

pub(crate) async fn rule_6_dropping_a_release_at_any_await_releases(bench: &dyn Bench) {
    let (alice, bob) = (client(bench.handle(), PATIENT), Actor::patient(bench).await);
    let mutex = alice.mutex("k").expect("a mutex");
    for polls in 0..POLLS {
        let guard = soon("free", mutex.lock()).await.expect("locks");
        if let Some(released) = dropped_after(polls, guard.release()).await {
            assert_eq!(released.expect("releases"), Released::Held);
        }
        bob.leave(&bob.until_free("k").await.0).await;
    }
}

pub(crate) async fn rule_6_dropping_a_run_at_any_await_releases(bench: &dyn Bench) {
    let (alice, bob) = (client(bench.handle(), PATIENT), Actor::patient(bench).await);
    let mutex = alice.mutex("k").expect("a mutex");
    for polls in 0..POLLS {
        let work = async |_: &Guard| tokio::task::yield_now().await;
        drop(dropped_after(polls, mutex.run(work)).await);
        bob.leave(&bob.until_free("k").await.0).await;
    }
}

pub(crate) async fn rule_6_an_enter_that_lands_after_its_caller_gave_up_is_left(bench: &dyn Bench) {
    use crate::chaos::Call;
    let chaos = Chaos::new(bench.handle());
    let ttl = crate::actor::brief(&chaos) * 4;
    let alice = client(Arc::new(chaos.clone()), ttl);
    let bob = Actor::patient(bench).await;
    // Another hold keeps the session, and whatever haunts it, alive.
    let other = alice.mutex("other").expect("a mutex").lock().await.expect("free");
    let enters = chaos.count(Call::Enter);
    chaos.once(Call::Enter, Fault::HoldRequest);
    let mutex = alice.mutex("k").expect("a mutex");
    let locking = tokio::spawn(async move { mutex.lock().await });
    soon("the enter is on its way", chaos.arrived(Call::Enter, enters + 1)).await;
    locking.abort();
    soon("the caller left", chaos.arrived(Call::Leave, 1)).await;
    chaos.let_go();
    soon("the enter lands", chaos.landed(1)).await;
    // Now it is there. The ghost must not outlast about one TTL, although its session is renewed.
    bob.until_free("k").await;
    other.check().expect("the session lives");
}

pub(crate) async fn rule_8_bad_timing_is_refused_at_construction(bench: &dyn Bench) {
    let store = bench.handle();
    let min = store.guarantees().min_ttl;
    let minute = Duration::from_mins(1);
    let built = |change: &dyn Fn(ClientBuilder) -> ClientBuilder| {
        change(Client::builder().shared_store(Arc::clone(&store)).ttl(minute)).build()
    };
    let bad: [(&str, &dyn Fn(ClientBuilder) -> ClientBuilder); 13] = [
        ("no TTL", &|b| b.ttl(Duration::ZERO)),
        ("a TTL below the store's minimum", &|b| {
            b.ttl(min.saturating_sub(Duration::from_nanos(1)))
        }),
        ("an absurd TTL", &|b| b.ttl(Timing::MAX_TTL + Duration::from_nanos(1))),
        ("no end", &|b| b.ttl(Duration::MAX)),
        ("no renewal interval", &|b| b.renew_every(Duration::ZERO)),
        ("a renewal at half of the TTL", &|b| b.renew_every(minute / 2)),
        ("a renewal after the TTL", &|b| b.renew_every(Duration::MAX)),
        ("no grace, so that a loss is known too late", &|b| b.grace(Duration::ZERO)),
        ("a grace longer than the TTL", &|b| b.grace(minute * 2)),
        ("a grace that leaves nothing", &|b| b.grace(minute * 2 / 3)),
        ("a drift that leaves nothing", &|b| b.drift(minute * 2 / 3)),
        ("a longest hold within the grace", &|b| b.max_hold(minute / 20)),
        ("an owner that is no text", &|b| b.owner("a\0b")),
    ];
    for (what, change) in bad {
        let error = built(change).expect_err(what);
        assert_eq!(error.kind(), ErrorKind::Invalid, "{what}: {error}");
        assert_eq!(error.store(), Some(store.to_string().as_str()), "{what}: {error}");
    }
    assert!(built(&|b| b).is_ok() && built(&|b| b.ttl(min)).is_ok(), "the limits are fine");
    let alice = built(&|b| b).expect("a client");
    for text in [String::new(), "a\0b".to_owned(), "k".repeat(513)] {
        let error = alice.mutex(text.as_str()).expect_err("no key");
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    }
}

pub(crate) async fn rule_9_no_token_and_no_password_is_ever_shown(bench: &dyn Bench) {
    let chaos = Chaos::new(bench.handle());
    let store: Arc<dyn Store> = Arc::new(chaos.clone());
    let alice = client(Arc::clone(&store), PATIENT);
    let mutex = alice.mutex("k").expect("a mutex");
    let guard = mutex.lock().await.expect("free");
    let line = store.inspect(&key("k")).await.expect("answers");
    let token = line.holders[0].claim.expect("a claim of ours").to_hex();
    let mut shown = vec![
        format!("{store} {store:?} {}", store.guarantees().min_ttl.as_millis()),
        format!("{alice:?} {mutex:?} {guard:?} {line:?}"),
        format!("{:?}", mutex.attempt().await.expect("answers")),
    ];
    for fault in [Fault::Fail, Fault::DropReply] {
        chaos.all(fault);
        let error = mutex.try_lock().await.expect_err("in trouble");
        shown.push(format!("{error} {error:?}"));
        chaos.heal();
    }
    let direct = bench.handle();
    if let Some(server) = bench.server() {
        server.kill().await;
        let error = client(direct, PATIENT).mutex("k").expect("a mutex").try_lock().await;
        let error = error.expect_err("nobody listens");
        shown.push(format!("{error} {error:?}"));
        server.start().await;
    }
    for text in shown {
        assert!(!text.contains(&token), "a token is shown: {text}");
        if let Some(secret) = bench.secret() {
            assert!(!text.contains(secret), "the password is shown: {text}");
        }
    }
}
