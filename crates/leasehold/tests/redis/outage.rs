//! Servers that are gone, frozen, restarted or forgetful.

use std::time::Duration;

use leasehold::core::{Enter, Left, Place, Renewed};
use leasehold::stores::Redis;
use leasehold::{Effect, ErrorKind, Store};

use crate::server::Server;
use crate::{Node, TTL, claim, soon, terms};

#[tokio::test]
async fn a_server_that_is_not_there_is_a_clear_error_without_an_effect() {
    let mut server = Server::start();
    let url = server.url();
    server.stop();
    let store = Redis::new(&url).unwrap();
    let error = store.open(&terms(TTL)).await.unwrap_err();
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Unavailable, Effect::None));
    assert!(error.is_transient() && error.to_string().contains(&url), "{error}");

    server.start_again();
    let node = Node { session: store.open(&terms(TTL)).await.unwrap(), store };
    node.acquire(&claim("job")).await;
}

#[tokio::test]
async fn scripts_that_the_server_forgot_are_sent_again_unseen() {
    let server = Server::start();
    let (node, mut raw) = (Node::new(&server.url()).await, server.raw());
    let (held, waiting) = (claim("job"), claim("job"));
    let mut flush = || raw.run::<String>(&["SCRIPT", "FLUSH"]);
    flush();
    node.acquire(&held).await;
    node.enter(&waiting).await;
    flush();
    assert!(node.extends(&held).await);
    flush();
    assert_eq!(node.store.inspect(&held.key).await.unwrap().waiters.len(), 1);
    flush();
    assert_eq!(node.leave(&held).await, Left::Released);
    flush();
    assert!(node.store.revoke(&waiting.key, &waiting.id).await.unwrap());
}

#[tokio::test]
async fn a_wait_goes_on_when_its_connection_is_killed() {
    let server = Server::start();
    let (holder, waiter) = (Node::new(&server.url()).await, Node::new(&server.url()).await);
    let mut raw = server.raw();
    for kind in ["normal", "pubsub"] {
        let (held, waiting) = (claim("job"), claim("job"));
        holder.acquire(&held).await;
        waiter.enter(&waiting).await;
        // Ours are of the one kind or the other: they subscribe, so both must go.
        let killed: i64 = raw.run(&["CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes"]);
        let _: i64 = raw.run(&["CLIENT", "KILL", "TYPE", "pubsub"]);
        assert!(killed >= 2 || kind == "normal", "{killed}");
        let session = &waiter.session;
        soon(waiter.store.disturbed(session)).await;
        assert_eq!(soon(waiter.changed(&waiting)).await, None, "messages may be lost: look again");
        assert!(crate::rank(&waiter.enter(&waiting).await) == 0);
        let release = async {
            loop {
                match holder.store.leave(&holder.session, &held).await {
                    Ok(Left::Released) => return,
                    Ok(other) => panic!("{other:?}"),
                    Err(error) => assert_eq!(error.kind(), ErrorKind::Unavailable),
                }
            }
        };
        soon(release).await;
        assert!(soon(waiter.changed(&waiting)).await.is_some(), "subscribed again");
        waiter.leave(&waiting).await;
    }
}

#[tokio::test]
async fn a_grant_whose_message_was_lost_is_found_by_asking_again() {
    let server = Server::start();
    let (holder, waiter) = (Node::new(&server.url()).await, Node::new(&server.url()).await);
    let mut raw = server.raw();
    let (held, waiting) = (claim("job"), claim("job"));
    holder.acquire(&held).await;
    waiter.enter(&waiting).await;
    let name = format!("leasehold:wake:{}", waiter.session.as_str().split('.').next().unwrap());
    let line: String = raw.run(&["CLIENT", "LIST", "TYPE", "pubsub"]);
    assert_eq!(line.lines().count(), 2);
    // The waiter's connection is gone at the moment of the hand-over.
    let _: i64 = raw.run(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    let token = held.id.to_hex();
    assert_eq!(raw.run::<i64>(&["PUBLISH", &name, "held x y"]), 0, "nobody hears");
    assert_eq!(raw.run::<String>(&["GET", "job"]), token);
    let release = async {
        loop {
            if let Ok(left) = holder.store.leave(&holder.session, &held).await {
                return left;
            }
        }
    };
    assert_eq!(soon(release).await, Left::Released);
    soon(waiter.wait(&waiting)).await;
}

#[tokio::test]
async fn a_frozen_server_does_not_hang_a_request_and_is_used_again_when_it_thaws() {
    let server = Server::start();
    let node = Node::new(&format!("{}?timeout=200ms", server.url())).await;
    let (held, other) = (claim("job"), claim("other"));
    node.acquire(&held).await;
    server.freeze();
    let error = soon(node.store.enter(&node.session, &other, Enter::Wait)).await.unwrap_err();
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Unavailable, Effect::Unknown));
    // The next one cannot even say hello.
    let error =
        soon(node.store.renew(&node.session, std::slice::from_ref(&held))).await.unwrap_err();
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Unavailable, Effect::None));
    server.thaw();
    soon(node.store.disturbed(&node.session)).await;
    assert!(node.extends(&held).await);
    // What the first request did is found by its claim id, or done now.
    node.acquire(&other).await;
    assert_eq!(node.leave(&other).await, Left::Released);
}

#[tokio::test]
async fn a_server_restarted_on_its_port_during_a_wait_wakes_the_waiter() {
    let mut server = Server::start();
    let (holder, waiter) = (Node::new(&server.url()).await, Node::new(&server.url()).await);
    let (held, waiting) = (claim("job"), claim("job"));
    holder.acquire(&held).await;
    waiter.enter(&waiting).await;
    server.stop();
    server.start_again();
    soon(waiter.store.disturbed(&waiter.session)).await;
    assert_eq!(soon(waiter.changed(&waiting)).await, None);
    assert_eq!(waiter.renew(&waiting).await, Renewed::Extended { lost: vec![waiting.id] });
    soon(waiter.wait(&claim("job"))).await;
    assert_eq!(
        soon(renew_until_answered(&holder, &held)).await,
        Renewed::Extended { lost: vec![held.id] }
    );
}

async fn renew_until_answered(node: &Node, held: &leasehold::core::Claim) -> Renewed {
    loop {
        if let Ok(renewed) = node.store.renew(&node.session, std::slice::from_ref(held)).await {
            return renewed;
        }
    }
}

#[tokio::test]
async fn a_request_dropped_midway_leaves_the_connection_usable() {
    let server = Server::start();
    let node = Node::new(&server.url()).await;
    for round in 0..200 {
        let dropped = claim("job");
        let request = node.store.enter(&node.session, &dropped, Enter::Wait);
        let polls = Duration::from_micros(round * 3);
        let _ = tokio::time::timeout(polls, request).await;
        node.leave(&dropped).await;
    }
    let held = claim("job");
    assert!(matches!(node.enter(&held).await, Place::Held(_)));
    assert_eq!(node.leave(&held).await, Left::Released);
}

#[tokio::test]
async fn a_handle_survives_the_runtime_that_it_connected_in() {
    let server = Server::start();
    let url = server.url();
    let node = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(Node::new(&url))
    });
    let node = node.join().unwrap();
    let held = claim("job");
    let first = node.store.enter(&node.session, &held, Enter::Wait).await;
    assert_eq!(first.unwrap_err().kind(), ErrorKind::Unavailable);
    node.acquire(&held).await;
}

#[tokio::test]
async fn a_full_server_says_so_and_grants_nothing() {
    let server = Server::with(&["--maxmemory", "1", "--maxmemory-policy", "noeviction"]);
    let node = Node::new(&server.url()).await;
    let error = node.store.enter(&node.session, &claim("job"), Enter::Wait).await.unwrap_err();
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Full, Effect::None));
    assert_eq!(server.raw().run::<i64>(&["DBSIZE"]), 0);
}

#[tokio::test]
async fn a_read_only_replica_is_not_a_store() {
    let server = Server::start();
    let mut raw = server.raw();
    let _: String = raw.run(&["REPLICAOF", "127.0.0.1", "1"]);
    let node = Node::new(&server.url()).await;
    let error = node.store.enter(&node.session, &claim("job"), Enter::Wait).await.unwrap_err();
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Unavailable, Effect::None));
    assert!(error.to_string().contains("replica"), "{error}");
}

#[tokio::test]
async fn a_node_of_a_cluster_is_refused() {
    let server = Server::with(&["--cluster-enabled", "yes"]);
    let store = Redis::new(&server.url()).unwrap();
    let error = store.open(&terms(TTL)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("redis+cluster://"), "{error}");
}
