//! What a user of the store must be allowed, and URLs.

use leasehold::core::{Enter, Left};
use leasehold::stores::Redis;
use leasehold::{ErrorKind, Store};
use leasehold_testbed::{Redis as TestRedis, RedisCluster};

use super::key_of;
use crate::access::COMMANDS;
use crate::{Node, TTL, claim, soon, terms};

/// As in the documentation of the store, besides what one server takes.
const MORE: &str = "+cluster|slots +cluster|info +ssubscribe +sunsubscribe +spublish +asking";

#[tokio::test]
async fn the_documented_access_list_suffices_and_less_is_told_of() {
    let commands = COMMANDS.replace("+subscribe +unsubscribe +publish +select ", "");
    let patterns = "~job/* ~leasehold:* &leasehold:wake:*";
    let options = TestRedis::options()
        .user("locker", "secret-4711", &format!("{patterns} {commands} {MORE}"))
        .user("stranger", "secret-4711", &format!("{patterns} {commands}"))
        .user("deaf", "secret-4711", &format!("~* resetchannels {commands} {MORE}"));
    let cluster = RedisCluster::start(&options);
    let url = cluster.url_as("locker", "secret-4711");
    let (node, other) = (Node::new(&url).await, Node::new(&url).await);
    let key = key_of(0, 0);
    let (held, waiting) = (claim(&key), claim(&key));
    node.acquire(&held).await;
    other.enter(&waiting).await;
    assert!(node.extends(&held).await && other.extends(&waiting).await);
    assert_eq!(node.store.keys("job/").await.unwrap(), std::slice::from_ref(&held.key));
    cluster.begin_move(&key, 0, 1);
    cluster.move_keys(&key, 0, 1);
    cluster.end_move(&key, 0, 1);
    assert!(node.extends(&held).await, "asked for at the new node");
    assert_eq!(node.leave(&held).await, Left::Released);
    soon(other.wait(&waiting)).await;
    assert!(node.store.revoke(&waiting.key, &waiting.id).await.unwrap());
    soon(other.store.disturbed(&other.session)).await;
    node.store.close(&node.session).await.unwrap();

    for user in ["stranger", "deaf"] {
        let store = Redis::new(&cluster.url_as(user, "secret-4711")).unwrap();
        let error = store.open(&terms(TTL)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
        let said = format!("{error} {error:?} {store:?}");
        assert!(said.contains("+cluster|slots") && !said.contains("4711"), "{said}");
    }
    let wrong = Redis::new(&cluster.url_as("locker", "wrong-4711")).unwrap();
    let error = wrong.open(&terms(TTL)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    // A key that it may not use.
    let error = other.store.enter(&other.session, &claim("x"), Enter::Try).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
}

#[tokio::test]
async fn all_nodes_are_spoken_to_with_tls() {
    let cluster = RedisCluster::start(&TestRedis::options().password("s3cret").tls());
    let certificates = cluster.nodes()[0].certificates();
    let url = format!("{}?ca={}", cluster.tls_url(), certificates.ca().display());
    let (node, other) = (Node::new(&url).await, Node::new(&url).await);
    for key in super::one_key_each() {
        let (held, waiting) = (claim(&key), claim(&key));
        let first = node.acquire(&held).await;
        other.enter(&waiting).await;
        assert!(node.extends(&held).await);
        assert_eq!(node.leave(&held).await, Left::Released);
        assert!(soon(other.wait(&waiting)).await > first);
    }
    let url = format!("{}?ca={}", cluster.tls_url(), certificates.wrong_ca().display());
    let error = Redis::new(&url).unwrap().open(&terms(TTL)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    let plain = Redis::new(&cluster.tls_url().replace("rediss", "redis")).unwrap();
    let error = plain.open(&terms(TTL)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
}
