//! Behind PgBouncer.

use leasehold_testbed::PgBouncer;

use super::*;

#[tokio::test]
async fn a_transaction_pooler_is_found_and_polled_through() {
    let server = Server::start();
    let pooler = PgBouncer::before(&server, "transaction");
    let url = server.url_on(pooler.port());
    let (alice, bob) = (Node::new(&url).await, Node::new(&url).await);
    assert!(alice.store.guarantees().recheck < Duration::from_secs(1));
    // Nothing of ours stays on connections that others use.
    assert_eq!(server.psql("SELECT DISTINCT channel FROM leasehold.sessions"), "");
    let (held, waiting) = (claim("k"), claim("k"));
    alice.acquire(&held).await;
    assert!(matches!(bob.enter(&waiting).await, Place::Waiting(_)));
    assert_eq!(alice.renew(std::slice::from_ref(&held)).await, Renewed::Extended { lost: vec![] });
    assert_eq!(alice.leave(&held).await, Left::Released);
    assert_eq!(bob.store.changed(&bob.session, &waiting).await.unwrap(), None, "polls");
    bob.acquire(&waiting).await;
    // The whole of it, with many tasks on few backends.
    let (one, two) = (client(&url), client(&url));
    let inside = AtomicU64::new(0);
    let turn = async |client: &Client| {
        for _ in 0..5 {
            let guard = client.mutex("hot").unwrap().lock().await.unwrap();
            assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
            tokio::task::yield_now().await;
            inside.fetch_sub(1, Ordering::SeqCst);
            guard.release().await.unwrap();
        }
    };
    tokio::join!(turn(&one), turn(&two), turn(&one), turn(&two));
}

#[tokio::test]
async fn who_demanded_to_be_woken_is_refused_behind_a_transaction_pooler() {
    let server = Server::start();
    let pooler = PgBouncer::before(&server, "transaction");
    let woken = |port| {
        let builder = Client::builder().url(&server.url_on(port));
        builder.demand(leasehold::Property::Wakes).build().unwrap().mutex("k").unwrap()
    };
    let direct = woken(server.port());
    direct.lock().await.expect("nothing is in the way").release().await.unwrap();
    let error = woken(pooler.port()).lock().await.expect_err("nobody can be woken");
    assert_eq!(error.kind(), leasehold::ErrorKind::Unsupported, "{error}");
    assert!(error.to_string().contains("wakes"), "{error}");
    assert_eq!(server.psql("SELECT count(*) FROM leasehold.sessions"), "1", "of the direct one");
    drop(direct);
}

#[tokio::test]
async fn a_pool_in_session_mode_is_no_trouble() {
    let server = Server::start();
    let pooler = PgBouncer::before(&server, "session");
    let (alice, bob) =
        (Node::new(&server.url_on(pooler.port())).await, Node::new(&server.url()).await);
    assert_eq!(alice.store.guarantees(), bob.store.guarantees());
    let (held, waiting) = (claim("k"), claim("k"));
    bob.acquire(&held).await;
    alice.enter(&waiting).await;
    bob.leave(&held).await;
    let told = alice.store.changed(&alice.session, &waiting).await.unwrap();
    assert!(matches!(told, Some(Place::Held(_))), "woken: {told:?}");
}
