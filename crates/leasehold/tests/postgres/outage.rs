//! Connections that end, hang or lose an answer, and servers that do.

use leasehold::{Effect, ErrorKind};
use leasehold_testbed::Proxy;
use leasehold_testbed::proxy::Mode;

use super::*;

const TERMINATE: &str = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
      WHERE application_name = 'leasehold'";

/// A holder and a waiter, each with a client of its own; then `trouble`; then the hand-over.
async fn survives(server: &Server, trouble: impl AsyncFnOnce()) {
    let (alice, bob) = (client(&server.url()), client(&server.url()));
    let held = alice.mutex("k").unwrap().lock().await.unwrap();
    let waiting = tokio::spawn({
        let mutex = bob.mutex("k").unwrap();
        async move { mutex.lock().await.unwrap() }
    });
    until(server, "SELECT count(*) = 2 FROM leasehold.claims").await;
    trouble().await;
    held.check().unwrap();
    // Outcome and connection may be unknown at first; a release may be asked again by the drop.
    let before = held.fence();
    drop(held);
    let guard =
        tokio::time::timeout(Duration::from_mins(1), waiting).await.expect("in time").unwrap();
    assert!(guard.fence() > before);
    guard.check().unwrap();
    guard.release().await.unwrap();
}

#[tokio::test]
async fn a_restart_of_the_server_during_a_wait_is_survived() {
    let server = Server::start();
    survives(&server, async || {
        server.stop();
        server.start_again();
    })
    .await;
}

#[tokio::test]
async fn a_crash_of_the_server_during_a_wait_is_survived() {
    let server = Server::options().durable().start();
    survives(&server, async || {
        server.kill();
        server.start_again();
    })
    .await;
}

#[tokio::test]
async fn both_connections_terminated_during_wait_and_hold_are_made_anew() {
    let server = Server::start();
    survives(&server, async || assert_eq!(server.psql(TERMINATE), "4")).await;
}

/// The listener is back before the message that it must not miss.
#[tokio::test]
async fn a_waiter_listens_again_on_the_new_connection() {
    let server = Server::start();
    let (alice, bob) = (Node::new(&server.url()).await, Node::new(&server.url()).await);
    let (held, waiting) = (claim("k"), claim("k"));
    alice.acquire(&held).await;
    bob.enter(&waiting).await;
    server.psql(TERMINATE);
    let woken = bob.store.changed(&bob.session, &waiting);
    let woken = tokio::time::timeout(Duration::from_mins(1), woken).await.expect("in time");
    assert_eq!(woken.unwrap(), None, "look again");
    let asked = async || bob.store.enter(&bob.session, &waiting, Enter::Wait).await;
    while asked().await.is_err() {}
    while alice.store.leave(&alice.session, &held).await.is_err() {}
    // The end of the other old connection may wake it once more. But only a message says this, and
    // the next look by itself is a quarter of an hour away.
    let told = async {
        loop {
            if let Some(place) = bob.store.changed(&bob.session, &waiting).await.unwrap() {
                break place;
            }
        }
    };
    let told = tokio::time::timeout(Duration::from_mins(1), told).await.expect("in time");
    assert!(matches!(told, Place::Held(_)), "{told:?}");
}

#[tokio::test]
async fn a_stopped_server_costs_a_time_out_and_no_more() {
    let server = Server::start();
    let url = format!("{}?timeout=0.6&connect_timeout=0.4", server.url());
    let node = Node::new(&url).await;
    let held = claim("k");
    node.acquire(&held).await;
    server.pause();
    let waiting = claim("k");
    let error = node.store.enter(&node.session, &waiting, Enter::Wait).await.expect_err("stopped");
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Unavailable, Effect::Unknown));
    assert!(error.is_transient() && error.to_string().contains("600ms"), "{error}");
    let error = node.store.leave(&node.session, &waiting).await.expect_err("stopped");
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Unavailable, Effect::None), "not sent");
    server.resume();
    // What was sent to the old backend may still land; leaving again is what the caller owes.
    while node.store.leave(&node.session, &waiting).await.is_err() {}
    assert_eq!(node.leave(&held).await, Left::Released);
}

#[tokio::test]
async fn a_connection_that_swallows_everything_is_replaced() {
    let server = Server::start();
    let proxy = Proxy::before(server.port());
    let url = format!("{}?timeout=0.6&connect_timeout=0.4", server.url_on(proxy.port()));
    let node = Node::new(&url).await;
    let held = claim("k");
    node.acquire(&held).await;
    proxy.set(Mode::BlackHole);
    let renewing = node.store.renew(&node.session, &[]);
    let renewed = tokio::time::timeout(Duration::from_mins(1), renewing).await.expect("in time");
    let error = renewed.expect_err("no answer");
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Unavailable, Effect::Unknown));
    proxy.set(Mode::Forward);
    while node.store.renew(&node.session, &[]).await.is_err() {}
    assert_eq!(node.leave(&held).await, Left::Released);
}

/// A renewal is given up long before the request time-out where the TTL is short; the next one
/// must not wait for the same dead connection.
#[tokio::test]
async fn an_impatient_caller_gets_a_new_connection_too() {
    let server = Server::start();
    let proxy = Proxy::before(server.port());
    let node = Node::new(&format!("{}?timeout=3600", server.url_on(proxy.port()))).await;
    let connections = proxy.counts().connections;
    proxy.set(Mode::Hold);
    for _ in 0..8 {
        let impatience = Duration::from_millis(150);
        let renewing = node.store.renew(&node.session, &[]);
        tokio::time::timeout(impatience, renewing).await.expect_err("held back");
    }
    proxy.set(Mode::Forward);
    assert_eq!(node.renew(&[]).await, Renewed::Extended { lost: vec![] });
    assert!(proxy.counts().connections > connections);
}

#[tokio::test]
async fn an_enter_whose_answer_was_lost_is_found_again() {
    let server = Server::start();
    let proxy = Proxy::before(server.port());
    let node = Node::new(&format!("{}?sslmode=disable", server.url_on(proxy.port()))).await;
    let held = claim("the key in question");
    proxy.drop_reply_to(b"the key in question");
    let error = node.store.enter(&node.session, &held, Enter::Wait).await.expect_err("lost");
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Unavailable, Effect::Unknown));
    let at = server.psql("SELECT fence FROM leasehold.claims");
    assert_eq!(node.acquire(&held).await.get().to_string(), at, "granted once");
    proxy.drop_reply_to(b"the key in question");
    node.store.leave(&node.session, &held).await.expect_err("lost");
    assert_eq!(node.leave(&held).await, Left::Gone, "released once");
}

/// A key's lock that somebody holds is an error that is known to have done nothing.
#[tokio::test]
async fn a_lock_held_too_long_fails_without_an_effect() {
    let server = Server::start();
    let node = Node::new(&format!("{}?timeout=1", server.url())).await;
    let slow = raw(&server).await;
    slow.batch_execute(
        "BEGIN; SELECT pg_advisory_xact_lock(hashtextextended('k', 5641968264518839049))",
    )
    .await
    .unwrap();
    let (stuck, other) = (claim("k"), claim("other"));
    let (stuck, other) = tokio::join!(
        node.store.enter(&node.session, &stuck, Enter::Wait),
        node.store.enter(&node.session, &other, Enter::Wait),
    );
    let error = stuck.expect_err("locked");
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Unavailable, Effect::None), "{error:?}");
    fence(&other.unwrap());
    assert_eq!(server.psql("SELECT count(*) FROM leasehold.claims WHERE key = 'k'"), "0");
}

/// Another process may renew and end what this one holds, by the names alone.
#[tokio::test]
async fn a_session_of_another_process_is_renewed_and_left() {
    let server = Server::start();
    let (alice, bob) = (Node::new(&server.url()).await, Node::new(&server.url()).await);
    let held = claim("k");
    alice.acquire(&held).await;
    let roll = std::slice::from_ref(&held);
    let renewed = bob.store.renew(&alice.session, roll).await.unwrap();
    assert_eq!(renewed, Renewed::Extended { lost: vec![] });
    assert_eq!(bob.leave(&held).await, Left::Gone, "not in that session");
    assert_eq!(bob.store.leave(&alice.session, &held).await.unwrap(), Left::Released);
    for odd in ["", "x", "'; DROP SCHEMA leasehold", "\0", &"f".repeat(33)] {
        let odd = SessionId::new(odd);
        assert_eq!(bob.store.renew(&odd, roll).await.unwrap(), Renewed::Ended);
        assert_eq!(bob.store.leave(&odd, &held).await.unwrap(), Left::Gone);
        bob.store.close(&odd).await.unwrap();
        let error = bob.store.enter(&odd, &held, Enter::Try).await.expect_err("unknown");
        assert_eq!(error.kind(), ErrorKind::SessionEnded);
    }
}
