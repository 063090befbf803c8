//! Interleavings that break simpler protocols, forced.

use std::sync::Arc;

use super::*;

pub(crate) const BLOCKED: &str = "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)";

/// In SQL a ticket is taken before its row is visible: were the line not locked first, the second
/// would see nobody ahead.
#[tokio::test]
async fn the_second_ticket_waits_for_the_first_to_commit() {
    let server = Server::start();
    let (alice, bob) = (Node::new(&server.url()).await, Arc::new(Node::new(&server.url()).await));
    let (first, second) = (claim("k"), claim("k"));
    let slow = raw(&server).await;
    slow.batch_execute("BEGIN").await.unwrap();
    let row = slow.query_one(&enter_sql(&alice.session, &first), &[]).await.unwrap();
    assert_eq!(row.get::<_, &str>(0), "held");
    let entering = tokio::spawn({
        let (bob, second) = (Arc::clone(&bob), second.clone());
        async move { bob.enter(&second).await }
    });
    until(&server, BLOCKED).await;
    assert!(!entering.is_finished());
    slow.batch_execute("COMMIT").await.unwrap();
    let place = entering.await.unwrap();
    assert!(matches!(&place, Place::Waiting(ahead) if ahead.rank == Some(0)), "{place:?}");
    alice.leave(&first).await;
    let told = bob.store.changed(&bob.session, &second).await.unwrap();
    assert!(matches!(told, Some(Place::Held(_))), "told with its fence: {told:?}");
}

/// `now()` is the start of the transaction, before the wait for the key's lock.
#[tokio::test]
async fn the_clock_is_read_after_the_wait_for_the_lock() {
    let server = Server::start();
    let bob = Node::new(&server.url()).await;
    let alice = Node::with_ttl(&server.url(), BRIEF).await;
    alice.acquire(&claim("k")).await;
    let slow = raw(&server).await;
    slow.batch_execute(
        "BEGIN; SELECT pg_advisory_xact_lock(hashtextextended('k', 5641968264518839049))",
    )
    .await
    .unwrap();
    let entering = tokio::spawn(async move { bob.enter(&claim("k")).await });
    until(&server, BLOCKED).await;
    until(&server, &lapsed(&alice)).await;
    slow.batch_execute("COMMIT").await.unwrap();
    fence(&entering.await.unwrap());
}

/// The judge reads "lapsed" while a renewal that was acknowledged in time is committing.
#[tokio::test]
async fn a_session_is_not_condemned_while_its_renewal_commits() {
    let server = Server::start();
    let bob = Arc::new(Node::new(&server.url()).await);
    let slow = raw(&server).await;
    let alice = Node::with_ttl(&server.url(), BRIEF).await;
    let held = claim("k");
    alice.acquire(&held).await;
    let renew = format!("SELECT alive FROM leasehold.renew('{}', '{{}}')", alice.session.as_str());
    slow.batch_execute("BEGIN").await.unwrap();
    assert!(slow.query_one(&renew, &[]).await.unwrap().get::<_, bool>(0));
    until(&server, &lapsed(&alice)).await;
    let entering = tokio::spawn({
        let bob = Arc::clone(&bob);
        async move { bob.enter(&claim("k")).await }
    });
    until(&server, BLOCKED).await;
    // Again, or the second that passed would let it lapse after all.
    slow.batch_execute(&format!(
        "UPDATE leasehold.sessions SET expires = clock_timestamp() + interval '1 hour' \
         WHERE id = '{}'; COMMIT",
        alice.session.as_str()
    ))
    .await
    .unwrap();
    let place = entering.await.unwrap();
    assert!(matches!(place, Place::Waiting(_)), "{place:?}");
    assert_eq!(alice.renew(&[held]).await, Renewed::Extended { lost: vec![] });
}

/// The other way round: the renewal comes while the judge is committing.
#[tokio::test]
async fn a_renewal_waits_for_the_judge_and_finds_itself_dead() {
    let server = Server::start();
    let bob = Node::new(&server.url()).await;
    let alice = Arc::new(Node::with_ttl(&server.url(), BRIEF).await);
    alice.acquire(&claim("k")).await;
    until(&server, &lapsed(&alice)).await;
    let judge = raw(&server).await;
    judge.batch_execute("BEGIN").await.unwrap();
    let row = judge.query_one(&enter_sql(&bob.session, &claim("k")), &[]).await.unwrap();
    assert_eq!(row.get::<_, &str>(0), "held");
    // A clock that was set back must not let it live again.
    judge
        .batch_execute(
            "UPDATE leasehold.sessions SET expires = clock_timestamp() + interval '1 hour'",
        )
        .await
        .unwrap();
    let renewing = tokio::spawn({
        let alice = Arc::clone(&alice);
        async move { alice.renew(&[]).await }
    });
    judge.batch_execute("COMMIT").await.unwrap();
    assert_eq!(renewing.await.unwrap(), Renewed::Ended);
}

/// Two that judge the same dead sessions in opposite orders.
#[tokio::test]
async fn judges_do_not_deadlock() {
    let server = Server::start();
    let (alice, bob) = (Node::new(&server.url()).await, Node::new(&server.url()).await);
    for round in 0..10 {
        let (one, two) = (format!("one {round}"), format!("two {round}"));
        server.psql(&format!(
            "INSERT INTO leasehold.sessions SELECT gen_random_uuid(), '', '', '1s', \
             clock_timestamp() - interval '1s' FROM generate_series(1, 100); \
             INSERT INTO leasehold.claims SELECT id, id, '{one}', row_number() OVER (ORDER BY id), \
             1, 1, '', now() FROM leasehold.sessions WHERE channel = '' AND NOT dead; \
             INSERT INTO leasehold.claims SELECT id, gen_random_uuid(), '{two}', \
             row_number() OVER (ORDER BY id DESC), 1, 1, '', now() \
             FROM leasehold.sessions WHERE channel = '' AND NOT dead"
        ));
        let (first, second) = (claim(&one), claim(&two));
        let (first, second) = tokio::join!(
            alice.store.enter(&alice.session, &first, Enter::Try),
            bob.store.enter(&bob.session, &second, Enter::Try),
        );
        fence(&first.unwrap());
        fence(&second.unwrap());
    }
    let deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = 'locks'";
    assert_eq!(server.psql(deadlocks), "0");
}

/// Who looks lapsed and sees another limit may be renewing at this moment: then it counts.
#[tokio::test]
async fn a_limit_is_compared_with_those_whose_renewal_commits() {
    let server = Server::start();
    let bob = Arc::new(Node::new(&server.url()).await);
    let counting = |limit: u32| {
        let (one, limit) = (std::num::NonZeroU32::MIN, limit.try_into().unwrap());
        let Claim { id, key, note, .. } = claim("k");
        Claim::counting(id, key, note, one, limit).unwrap()
    };
    let head = counting(1);
    bob.acquire(&head).await;
    let slow = raw(&server).await;
    let alice = Node::with_ttl(&server.url(), BRIEF).await;
    assert!(matches!(alice.enter(&counting(1)).await, Place::Waiting(_)));
    // As where a claim slipped in: the one behind the head sees another limit than the head.
    server.psql("UPDATE leasehold.claims SET key_limit = 7 WHERE fence IS NULL");
    let renew = format!("SELECT alive FROM leasehold.renew('{}', '{{}}')", alice.session.as_str());
    slow.batch_execute("BEGIN").await.unwrap();
    assert!(slow.query_one(&renew, &[]).await.unwrap().get::<_, bool>(0));
    until(&server, &lapsed(&alice)).await;
    let entering = tokio::spawn({
        let bob = Arc::clone(&bob);
        async move { bob.store.enter(&bob.session, &claim("k"), Enter::Wait).await }
    });
    until(&server, BLOCKED).await;
    slow.batch_execute(&format!(
        "UPDATE leasehold.sessions SET expires = clock_timestamp() + interval '1 hour' \
         WHERE id = '{}'; COMMIT",
        alice.session.as_str()
    ))
    .await
    .unwrap();
    let error = entering.await.unwrap().expect_err("a limit of 7 is in line");
    assert_eq!(error.kind(), leasehold::ErrorKind::Disagrees, "{error:?}");
    // And once it has lapsed it does not count.
    server.psql(&format!(
        "UPDATE leasehold.sessions SET expires = clock_timestamp() WHERE id = '{}'",
        alice.session.as_str()
    ));
    assert!(matches!(bob.enter(&claim("k")).await, Place::Waiting(_)));
    assert_eq!(alice.renew(&[]).await, Renewed::Ended, "judged by writing it down");
}

fn lapsed(node: &Node) -> String {
    format!(
        "SELECT expires < clock_timestamp() FROM leasehold.sessions WHERE id = '{}'",
        node.session.as_str()
    )
}

/// Two name the same keys in opposite orders, and both wait for the one in the middle: locked in the
/// order of the call, each would go on to wait for what the other has.
#[tokio::test]
async fn many_keys_named_in_opposite_orders_are_locked_in_one_order() {
    const WAITING: &str = "SELECT count(*) = 2 FROM pg_locks WHERE NOT granted";
    let server = Server::start();
    let nodes = [Node::new(&server.url()).await, Node::new(&server.url()).await];
    let slow = raw(&server).await;
    slow.batch_execute("BEGIN; SELECT leasehold.inspect('m')").await.unwrap();
    let entering = nodes.into_iter().zip([["a", "m", "b"], ["b", "m", "a"]]).map(|(node, keys)| {
        tokio::spawn(async move {
            let claims = keys.map(claim);
            node.store.enter_all(&node.session, &claims).await
        })
    });
    let entering: Vec<_> = entering.collect();
    until(&server, WAITING).await;
    slow.batch_execute("COMMIT").await.unwrap();
    let mut held = 0;
    for together in entering {
        match together.await.unwrap().unwrap() {
            Together::Held(fences) => held += fences.len(),
            Together::Refused { at, .. } => assert_eq!(at, 0),
            Together::Apart => panic!("one statement enters three lines"),
        }
    }
    assert_eq!(held, 3, "one has all of them");
}
