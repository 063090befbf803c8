//! Fences grow through whatever happens to the data.

use super::*;

#[tokio::test]
async fn fences_grow_through_a_reset_of_everything_that_counts_them() {
    let server = Server::start();
    let mut last = 0;
    for damage in [
        "TRUNCATE leasehold.sessions",
        "ALTER SEQUENCE leasehold.fences RESTART WITH 1",
        "UPDATE leasehold.state SET fence_base = 0; SELECT setval('leasehold.fences', 1)",
        "DROP SCHEMA leasehold CASCADE",
    ] {
        let node = Node::new(&server.url()).await;
        let held = claim("k");
        let fence = node.acquire(&held).await.get();
        assert!(fence > last, "{fence} after {last}, before {damage}");
        assert!(node.acquire(&held).await.get() == fence, "the same for the same claim");
        assert_eq!(node.leave(&held).await, Left::Released);
        let fence = node.acquire(&claim("k")).await.get();
        server.psql(&format!("DELETE FROM leasehold.claims; {damage}"));
        last = fence;
    }
    assert!(Node::new(&server.url()).await.acquire(&claim("k")).await.get() > last);
}

/// A grant that a crash forgets would be granted again, with the same fence.
#[tokio::test]
async fn a_grant_is_on_disk_whatever_the_role_prefers() {
    let server = Server::start();
    for (preferred, used) in [("off", "on"), ("local", "on"), ("remote_apply", "remote_apply")] {
        server.psql(&format!("ALTER ROLE app SET synchronous_commit = {preferred}"));
        let node = Node::new(&server.url()).await;
        let raw = raw(&server).await;
        raw.batch_execute("BEGIN").await.unwrap();
        let setting = async || {
            let row = raw.query_one("SHOW synchronous_commit", &[]).await.unwrap();
            row.get::<_, String>(0)
        };
        assert_eq!(setting().await, preferred);
        let held = claim(preferred);
        raw.query_one(&enter_sql(&node.session, &held), &[]).await.unwrap();
        assert_eq!(setting().await, used, "until the commit");
        raw.batch_execute("COMMIT").await.unwrap();
    }
}

/// At REPEATABLE READ the snapshot would be older than the wait for the key's lock.
#[tokio::test]
async fn the_isolation_level_is_forced_or_refused() {
    let server = Server::start();
    server.psql("ALTER ROLE app SET default_transaction_isolation = 'serializable'");
    let node = Node::new(&server.url()).await;
    node.acquire(&claim("k")).await;
    let error = raw(&server)
        .await
        .query_one(&enter_sql(&node.session, &claim("k")), &[])
        .await
        .expect_err("a snapshot that is too old");
    assert!(error.as_db_error().unwrap().message().contains("READ COMMITTED"), "{error:?}");
}
