//! The tables make themselves: once, or not at all.

use leasehold::ErrorKind;
use leasehold::core::{Provided, Record};
use leasehold::stores::postgres::{SCHEMA_SQL, schema_sql};

use super::*;

#[tokio::test]
async fn many_that_come_at_once_make_the_tables_once() {
    let server = Server::start();
    let url = server.url();
    let nodes = futures::future::join_all((0..8).map(|_| Node::new(&url))).await;
    let fences = futures::future::join_all(nodes.iter().map(async |node| {
        let claim = claim("k");
        (node.enter(&claim).await, claim)
    }));
    let held = fences.await.iter().filter(|(place, _)| matches!(place, Place::Held(_))).count();
    assert_eq!(held, 1);
    // And not again: the functions are the rows that they were.
    let functions = "SELECT string_agg(xmin::text, ' ' ORDER BY oid) FROM pg_proc \
                     WHERE pronamespace = 'leasehold'::regnamespace";
    let before = server.psql(functions);
    Node::new(&url).await;
    assert_eq!(server.psql(functions), before);
}

#[tokio::test]
async fn a_role_that_may_not_is_told_what_to_run_and_then_may() {
    let server = Server::start();
    server.psql("CREATE ROLE guest LOGIN PASSWORD 'hush-4712'");
    let url = server.url_as("guest", "hush-4712", &format!("127.0.0.1:{}", server.port()), "locks");
    let store = Postgres::new(&url).unwrap();
    let refused = async || {
        let error = store.open(&terms(TTL)).await.expect_err("no rights");
        assert_eq!(error.kind(), ErrorKind::Denied, "{error:?}");
        let text = error.to_string();
        assert!(text.contains("SCHEMA_SQL") && text.contains("GRANT USAGE ON SCHEMA"), "{text}");
        text
    };
    refused().await;
    server.psql(SCHEMA_SQL);
    let text = refused().await;
    // As the message says, word for word.
    for grant in text.split("GRANT ").skip(1) {
        let grant = grant.split(['\n', ';']).next().unwrap().replace("the_role", "guest");
        server.psql(&format!("GRANT {grant}"));
    }
    let session = store.open(&terms(TTL)).await.unwrap();
    let (held, queued) = (claim("k"), claim("k"));
    fence(&store.enter(&session, &held, Enter::Wait).await.unwrap());
    store.enter(&session, &queued, Enter::Wait).await.unwrap();
    assert_eq!(store.inspect(&held.key).await.unwrap().waiters.len(), 1);
    assert!(store.amend(&session, &held).await.unwrap());
    let record = Record::new(b"x", TTL).unwrap();
    assert!(store.write(&held.key, Provided::Held(&session, &held), &record).await.unwrap());
    assert!(store.read(&held.key).await.unwrap().written.is_some());
    assert!(store.revoke(&held.key, &held.id).await.unwrap());
    assert_eq!(store.keys("").await.unwrap().len(), 1);
    assert_eq!(
        store.renew(&session, &[held.clone(), queued]).await.unwrap(),
        Renewed::Extended { lost: vec![held.id] }
    );
    store.close(&session).await.unwrap();
}

#[tokio::test]
async fn tables_of_a_newer_version_are_left_alone() {
    let server = Server::start();
    Node::new(&server.url()).await;
    server.psql("UPDATE leasehold.state SET version = 4");
    let error = Postgres::new(&server.url()).unwrap().open(&terms(TTL)).await.expect_err("newer");
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("newer schema"), "{error}");
    assert_eq!(server.psql("SELECT version FROM leasehold.state"), "4");
}

#[tokio::test]
async fn schemas_of_other_names_are_other_services() {
    let server = Server::start();
    let one = Node::new(&server.url()).await;
    let two = Node::new(&format!("{}?schema=other", server.url())).await;
    one.acquire(&claim("k")).await;
    two.acquire(&claim("k")).await;
    assert!(!schema_sql("other").contains("leasehold"));
}

#[tokio::test]
async fn a_database_that_cannot_hold_every_key_is_refused() {
    let server = Server::start();
    server.psql("CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0");
    let url = server.url().replace("/locks", "/latin");
    let error = Postgres::new(&url).unwrap().open(&terms(TTL)).await.expect_err("LATIN1");
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("UTF8"), "{error}");
}

/// What died and is wanted by nobody does not stay for ever.
#[tokio::test]
async fn what_lapsed_long_ago_is_deleted_by_whoever_comes() {
    let server = Server::start();
    let alice = Node::new(&server.url()).await;
    alice.acquire(&claim("forgotten")).await;
    server.psql("UPDATE leasehold.sessions SET expires = now() - interval '2 minutes'");
    let bob = Node::new(&server.url()).await;
    let left = "SELECT (SELECT count(*) FROM leasehold.sessions), count(*) FROM leasehold.claims";
    assert_eq!(server.psql(left), "1|0");
    bob.store.close(&bob.session).await.unwrap();
    assert_eq!(server.psql(left), "0|0");
}
