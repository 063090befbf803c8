//! URLs, passwords, certificates, and what the store refuses.

use std::num::NonZeroU32;

use leasehold::core::{Claim, Enter, Note};
use leasehold::stores::Redlock;
use leasehold::{Effect, ErrorKind, Property, Store};
use leasehold_testbed::Redis;

use crate::{Node, TTL, claim, places, quorum, soon, terms, until, votes};

#[tokio::test]
async fn user_password_and_database_are_those_of_all_servers() {
    let options = Redis::options().password("right").database(3);
    let servers = options.start_quorum(3);
    let node = Node::new(&servers.url()).await;
    let held = claim("job");
    node.holds(&held).await;
    until("all have it", || places(&servers, &held) == 3).await;
    let shown = format!("{} {:?}", node.store, node.store);
    assert!(shown.ends_with("/3)") && !shown.contains("right"), "{shown}");

    let store = Redlock::new(&servers.url().replace("right", "wr0ng")).unwrap();
    let error = soon(store.open(&terms(TTL))).await.unwrap_err();
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Denied, Effect::None), "{error}");
    assert!(!format!("{error} {error:?} {:?}", votes(&error)).contains("wr0ng"), "{error:?}");
}

#[tokio::test]
async fn only_servers_of_the_named_authorities_are_trusted() {
    let servers = Redis::options().tls().start_quorum(3);
    let home = tempfile::tempdir().unwrap();
    let (right, wrong) = (home.path().join("right.pem"), home.path().join("wrong.pem"));
    let all = |of: fn(&leasehold_testbed::Certificates) -> std::path::PathBuf| -> String {
        let read = |redis: &Redis| std::fs::read_to_string(of(redis.certificates())).unwrap();
        servers.iter().map(read).collect()
    };
    std::fs::write(&right, all(leasehold_testbed::Certificates::ca)).unwrap();
    std::fs::write(&wrong, all(leasehold_testbed::Certificates::wrong_ca)).unwrap();
    let hosts: Vec<_> =
        servers.iter().map(|redis| format!("localhost:{}", redis.tls_port())).collect();
    let url = |ca: &std::path::Path| format!("redlocks://{}?ca={}", hosts.join(","), ca.display());
    let node = Node::new(&url(&right)).await;
    node.holds(&claim("job")).await;
    let error = soon(Redlock::new(&url(&wrong)).unwrap().open(&terms(TTL))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
}

#[tokio::test]
async fn the_documented_access_list_is_enough() {
    let rules = "~* &leasehold:wake:* -@all +evalsha +eval +scan +subscribe +unsubscribe +publish +get \
                 +set +del +pexpire +pttl +time";
    let servers = Redis::options().user("locks", "pass", rules).start_quorum(3);
    let url = servers.url().replace("://", "://locks:pass@");
    let (alice, bob) = (Node::new(&url).await, Node::new(&url).await);
    let (held, waits) = (claim("job"), claim("job"));
    alice.holds(&held).await;
    bob.waits(&waits).await;
    assert!(alice.extends(&held).await);
    assert_eq!(alice.store.keys("").await.unwrap(), std::slice::from_ref(&held.key));
    assert_eq!(alice.holder("job").await, Some(held.id));
    assert!(bob.store.revoke(&held.key, &held.id).await.unwrap());
    soon(bob.store.changed(&bob.session, &waits)).await.unwrap();
    soon(bob.store.close(&bob.session)).await.unwrap();
}

#[tokio::test]
async fn what_a_quorum_cannot_count_is_refused_with_the_reason() {
    let servers = quorum(3);
    let node = Node::new(&servers.url()).await;
    let two = NonZeroU32::new(2).unwrap();
    let held = claim("job");
    let semaphore =
        Claim::counting(held.id, held.key.clone(), Note::default(), NonZeroU32::MIN, two).unwrap();
    let error = node.enter(&semaphore, Enter::Wait).await.unwrap_err();
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Unsupported, Effect::None));
    assert!(error.to_string().contains("need not agree on whom"), "{error}");
    for error in [
        node.store.amend(&node.session, &held).await.unwrap_err(),
        node.store.read(&held.key).await.unwrap_err(),
    ] {
        assert_eq!((error.kind(), error.effect()), (ErrorKind::Unsupported, Effect::None));
        assert!(error.to_string().contains("use another store"), "{error}");
    }
    let meant = node.store.guarantees();
    for property in [Property::Line, Property::Counting, Property::Records] {
        assert!(!meant.has(property), "{property}");
    }
}
