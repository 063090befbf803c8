//! Tables of an earlier version are brought up to date by whoever comes, if it may.

use leasehold::ErrorKind;
use leasehold::core::{Provided, Record};
use leasehold::stores::postgres::SCHEMA_SQL;

use super::*;

/// As the first version had it, word for word.
const VERSION_1: &str = include_str!("version_1.sql");

const VERSION: &str = "SELECT version FROM leasehold.state";

async fn keeps_records(store: &Postgres) {
    let key = Key::new("record").unwrap();
    let last = store.read(&key).await.unwrap().written.map(|written| written.version);
    let record = Record::new(b"x", Duration::from_mins(1)).unwrap();
    assert!(store.write(&key, Provided::Unchanged(last), &record).await.unwrap());
}

/// A server with tables of version 1, made and used as the role `app`.
async fn with_version_1() -> (Server, tokio_postgres::Client) {
    let server = Server::start();
    let old = raw(&server).await;
    old.batch_execute(VERSION_1).await.unwrap();
    old.batch_execute("SELECT leasehold.raise_fences()").await.unwrap();
    (server, old)
}

const OLD_SESSION: &str = "0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a";

async fn asked(old: &tokio_postgres::Client, sql: &str) -> String {
    old.query_one(sql, &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn tables_of_version_1_are_brought_up_to_date_under_those_who_use_them() {
    let (server, old) = with_version_1().await;
    let open = format!("SELECT leasehold.open('{OLD_SESSION}', 600000000, 'old', '')");
    old.batch_execute(&open).await.unwrap();
    let (held, session) = (claim("k"), SessionId::new(OLD_SESSION));
    assert_eq!(asked(&old, &enter_sql(&session, &held)).await, "held");
    let url = server.url();
    let nodes = futures::future::join_all((0..8).map(|_| Node::new(&url))).await;
    assert_eq!(server.psql(VERSION), "3");
    // What was held is held, and fences go on.
    let before = nodes[0].store.inspect(&held.key).await.unwrap();
    assert_eq!(before.holders[0].claim, Some(held.id));
    let waiting = claim("k");
    assert!(matches!(nodes[1].enter(&waiting).await, Place::Waiting(_)));
    // A process of version 1 goes on with the connection that it has.
    let renew = format!("SELECT alive::text FROM leasehold.renew('{OLD_SESSION}', '{{}}')");
    assert_eq!(asked(&old, &renew).await, "true");
    assert_eq!(asked(&old, &enter_sql(&session, &claim("other"))).await, "held");
    let leave = format!("SELECT leasehold.leave('{OLD_SESSION}', '{}', 'k')", held.id.to_hex());
    assert_eq!(asked(&old, &leave).await, "released");
    let told = nodes[1].store.changed(&nodes[1].session, &waiting).await.unwrap();
    assert!(fence(&told.unwrap()) > before.holders[0].fence.unwrap());
    keeps_records(&nodes[2].store).await;
    let read = format!("SELECT leasehold.close('{OLD_SESSION}')::text");
    assert_eq!(asked(&old, &read).await, "true", "claims are left");
}

#[tokio::test]
async fn a_role_that_may_not_is_told_who_and_needs_no_grant_after() {
    let (server, old) = with_version_1().await;
    server.psql("CREATE ROLE guest LOGIN PASSWORD 'hush-4712'");
    old.batch_execute(
        "GRANT USAGE ON SCHEMA leasehold TO guest;
         GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA leasehold TO guest;
         GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA leasehold TO guest",
    )
    .await
    .unwrap();
    let url = server.url_as("guest", "hush-4712", &format!("127.0.0.1:{}", server.port()), "locks");
    let store = Postgres::new(&url).unwrap();
    let error = store.open(&terms(TTL)).await.expect_err("not the owner");
    assert_eq!(error.kind(), ErrorKind::Denied, "{error:?}");
    let text = error.to_string();
    assert!(text.contains("of version 1") && text.contains("SCHEMA_SQL"), "{text}");
    assert_eq!(server.psql(VERSION), "1", "nothing was done");
    // As the message says.
    old.batch_execute(SCHEMA_SQL).await.unwrap();
    assert_eq!(server.psql(VERSION), "3");
    store.open(&terms(TTL)).await.unwrap();
    keeps_records(&store).await;
    // A second time: what somebody decided since stays.
    server.psql("REVOKE ALL ON leasehold.records FROM guest");
    old.batch_execute(SCHEMA_SQL).await.unwrap();
    let denied = store.read(&Key::new("k").unwrap()).await.expect_err("revoked");
    assert_eq!(denied.kind(), ErrorKind::Denied, "{denied:?}");
}

/// Version 2 had the same tables, and no step for several keys.
#[tokio::test]
async fn tables_of_version_2_learn_to_lock_many_keys_in_one_step() {
    let server = Server::start();
    let before = Node::new(&server.url()).await;
    let held = claim("k");
    let fence = before.acquire(&held).await;
    server.psql("DROP FUNCTION leasehold.enter_all; DROP FUNCTION leasehold.lock_keys");
    server.psql("UPDATE leasehold.state SET version = 2");
    let client = leasehold::Client::open(&server.url()).unwrap();
    let locks = ["a", "b"].map(|key| client.mutex(key).unwrap());
    assert_eq!(client.lock_all(locks).await.unwrap().len(), 2);
    assert_eq!(server.psql(VERSION), "3");
    let tried = ["c", "k"].map(|key| client.mutex(key).unwrap());
    assert!(client.try_lock_all(tried).await.unwrap().is_none(), "what was held is held");
    assert_eq!(before.acquire(&held).await, fence);
}

#[tokio::test]
async fn the_sql_of_this_version_leaves_a_later_one_alone() {
    let server = Server::start();
    Node::new(&server.url()).await;
    server.psql("UPDATE leasehold.state SET version = 4");
    let refused = raw(&server).await.batch_execute(SCHEMA_SQL).await.expect_err("newer");
    assert!(refused.as_db_error().unwrap().message().contains("newer version"), "{refused:?}");
    assert_eq!(server.psql(VERSION), "4");
}
