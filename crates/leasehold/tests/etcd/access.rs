//! Users, passwords, tokens, certificates.

use std::time::Duration;

use leasehold::core::{Enter, Place};
use leasehold::{Effect, Error, ErrorKind};
use leasehold_testbed::Etcd;

use super::{Node, claim, soon, store, terms};

const PASSWORD: &str = "open-sesame-4711";

async fn refusal(url: &str) -> Error {
    let error = soon(store(url).open(&terms(Duration::from_mins(1)))).await.unwrap_err();
    let mut shown = format!("{error} {error:?}");
    let mut source = std::error::Error::source(&error);
    while let Some(inner) = source {
        shown += &inner.to_string();
        source = inner.source();
    }
    assert!(!shown.contains(PASSWORD) && !shown.contains("hunter2"), "{shown}");
    assert_eq!(error.effect(), Effect::None, "{error}");
    error
}

#[tokio::test]
async fn a_wrong_password_is_denied_and_not_shown() {
    let etcd = Etcd::options().password(PASSWORD).start();
    for credentials in ["root:hunter2@", "nobody:hunter2@", ""] {
        let error = refusal(&etcd.url_as(credentials, etcd.ports())).await;
        assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
        assert!(!error.is_transient());
    }
}

#[tokio::test]
async fn a_password_for_a_cluster_without_users_is_not_needed() {
    let etcd = Etcd::start();
    let node = Node::new(&etcd.url_as("root:whatever@", etcd.ports())).await;
    node.acquire(&claim("k")).await;
}

/// A user whose role covers the locks' keys and the sessions' needs no more.
#[tokio::test]
async fn a_role_for_the_locks_and_the_sessions_is_enough() {
    let etcd = Etcd::options().password(PASSWORD).start();
    etcd.ctl(&["role", "add", "locks"]);
    for prefix in ["locks/", "leasehold:session:"] {
        etcd.ctl(&["role", "grant-permission", "--prefix", "locks", "readwrite", prefix]);
    }
    etcd.ctl(&["user", "add", "app:pass"]);
    etcd.ctl(&["user", "grant-role", "app", "locks"]);
    let url = etcd.url_as("app:pass@", etcd.ports());
    let [alice, bob] = [Node::new(&url).await, Node::new(&url).await];
    let [hold, waiter] = [claim("locks/a"), claim("locks/a")];
    alice.acquire(&hold).await;
    assert!(matches!(bob.enter(&waiter).await, Place::Waiting(_)));
    alice.leave(&hold).await;
    assert!(matches!(bob.told(&waiter).await, Some(Place::Held(_))));

    let other = claim("others/a");
    let error = alice.try_enter(&other, Enter::Wait).await.unwrap_err();
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Denied, Effect::None), "{error}");
}

/// Whatever becomes of a token: it expires after 300 s, the server that gave it restarts, or the
/// roles change. The user is authenticated again.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_no_longer_valid_is_renewed() {
    let etcd = Etcd::options().password(PASSWORD).arg("--auth-token-ttl=1").start();
    let [alice, bob] = [Node::new(&etcd.url()).await, Node::new(&etcd.url()).await];
    let [hold, waiter] = [claim("k"), claim("k")];
    let first = alice.acquire(&hold).await;
    assert!(matches!(bob.enter(&waiter).await, Place::Waiting(_)));

    // A change of roles makes every token old.
    etcd.ctl(&["role", "add", "new"]);
    assert_eq!(alice.enter(&hold).await, Place::Held(first));
    // A restarted server has forgotten its tokens.
    etcd.members()[0].kill();
    etcd.members()[0].start_again();
    assert_eq!(alice.enter(&hold).await, Place::Held(first));
    // And one expires after a second without use.
    // sleep: until the token has expired.
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_eq!(alice.enter(&hold).await, Place::Held(first));

    alice.leave(&hold).await;
    assert!(bob.wait(&waiter).await > first);
}

#[tokio::test]
async fn tls_with_an_authority_of_ones_own() {
    let etcd = Etcd::options().tls().start();
    let node = Node::new(&etcd.url()).await;
    node.acquire(&claim("k")).await;

    let hosts = etcd.ports()[0];
    let wrong = etcd.certificates().wrong_ca();
    for url in [
        format!("etcds://127.0.0.1:{hosts}"),
        format!("etcds://127.0.0.1:{hosts}?ca={}", wrong.display()),
        format!("etcd://127.0.0.1:{hosts}"),
    ] {
        let error = refusal(&url).await;
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    }
    let error = refusal(&format!("etcds://127.0.0.1:{hosts}?ca=/nowhere/ca.pem")).await;
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
}

#[tokio::test]
async fn tls_with_a_certificate_of_the_client() {
    let etcd = Etcd::options().client_certificates().start();
    let node = Node::new(&etcd.url()).await;
    node.acquire(&claim("k")).await;

    let port = etcd.ports()[0];
    let ca = etcd.certificates().ca();
    let without = store(&format!("etcds://127.0.0.1:{port}?ca={}", ca.display()));
    let error = soon(without.open(&terms(Duration::from_mins(1)))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
}
