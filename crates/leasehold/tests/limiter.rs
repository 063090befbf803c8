//! Limiters over the store in memory: what has to do with the process that they are in.

use std::time::Duration;

use futures::FutureExt as _;
use leasehold::stores::Memory;
use leasehold::{Away, Client, ErrorKind, blocking};
use tokio::runtime::{Builder, Runtime};

/// Long enough for anything that is going to happen at all.
const PATIENCE: Duration = Duration::from_secs(20);

fn client() -> Client {
    Client::builder().store(Memory::new()).build().expect("a client")
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().expect("a runtime")
}

#[tokio::test]
async fn limiters_of_one_client_share_what_was_taken() {
    let client = client();
    let [one, other] = [client.clone(), client.clone()]
        .map(|client| client.limiter("k", "1000/s", Away::Closed).expect("a limiter"));
    // Many calls, so that permits are taken ahead: more than a hundred are not left in the store.
    for _ in 0..100 {
        assert!(one.try_acquire(1).await.expect("answers").allowed);
    }
    let elsewhere = client.limiter("k", "1000/s", Away::Closed).expect("a limiter");
    let elsewhere = elsewhere.burst(999).expect("a burst");
    let seen = [one.peek().await, other.peek().await, elsewhere.peek().await];
    let [one, other, elsewhere] = seen.map(|seen| seen.expect("answers").remaining);
    assert!(one <= other && other >= 1_000 - 100, "they have the same in stock: {one} {other}");
    assert!(elsewhere < other, "and others do not have it: {elsewhere} {other}");
}

#[test]
fn a_limiter_outlives_the_runtime_that_served_it() {
    let limiter = client().limiter("k", "1/h", Away::Closed).expect("a limiter");
    let limiter = limiter.burst(2).expect("a burst");
    let first = runtime();
    let (waiter, entered) = (limiter.clone(), std::sync::mpsc::channel());
    first.block_on(async {
        assert!(limiter.try_acquire(1).await.expect("answers").allowed);
        // In the queue, and served by a task of this runtime.
        let mut waiting = Box::pin(async move { waiter.acquire(2).await });
        assert!((&mut waiting).now_or_never().is_none());
        tokio::spawn(async move {
            let outcome = waiting.await;
            let _ = entered.0.send(outcome);
        });
    });
    drop(first);
    let second = runtime();
    second.block_on(async {
        let tried = tokio::time::timeout(PATIENCE, limiter.try_acquire(1)).await;
        assert!(tried.expect("nobody waits for a task that is gone").expect("answers").allowed);
    });
    let error = limiter.acquire(1).now_or_never().expect("at once").expect_err("no runtime");
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
}

#[test]
fn the_blocking_twin_takes_waits_and_tells() {
    let client = blocking::Client::build(Client::builder().store(Memory::new())).expect("a client");
    let limiter = client.limiter("k", "50/s", Away::Open).expect("a limiter");
    let limiter = limiter.burst(3).expect("a burst");
    assert_eq!((limiter.key().as_str(), limiter.quota().burst()), ("k", 3));
    assert_eq!(limiter.away(), Away::Open);
    assert!(limiter.try_acquire(3).expect("answers").allowed);
    assert!(limiter.acquire(2).expect("answers").allowed);
    assert!(limiter.peek().expect("answers").remaining < 3);
    let slow = client.limiter("slow", "1/h", Away::Closed).expect("a limiter");
    assert!(slow.try_acquire(1).expect("answers").allowed);
    let error = slow.acquire_within(1, Duration::from_millis(20)).expect_err("an hour away");
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    client.close().expect("closes");
}
