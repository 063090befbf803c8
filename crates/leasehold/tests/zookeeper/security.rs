//! TLS, users, and what they may do.

use std::time::Duration;

use leasehold::{Client, ErrorKind};
use leasehold_testbed::ZooKeeper;

use crate::{LONG, client};

async fn kind_of_failure(url: &str) -> ErrorKind {
    let client = Client::builder().url(url).ttl(Duration::from_secs(10)).build().unwrap();
    let error = client.mutex("k").unwrap().try_lock().await.expect_err("refused");
    let shown = format!("{error} {error:?}");
    assert!(!shown.contains("hunter2"), "{shown}");
    error.kind()
}

#[tokio::test]
async fn tls_trusts_whom_it_is_told_to() {
    let server = ZooKeeper::options().client_certificates().start();
    let made = server.certificates();
    let url = |ca: &std::path::Path| {
        let (cert, key) = (made.client(), made.client_key());
        format!(
            "{}?ca={}&cert={}&key={}",
            server.tls_url(),
            ca.display(),
            cert.display(),
            key.display()
        )
    };
    let guard = client(&url(&made.ca()), LONG).mutex("k").unwrap().lock().await.unwrap();
    guard.check().unwrap();
    assert_eq!(kind_of_failure(&url(&made.wrong_ca())).await, ErrorKind::Denied);
    let anonymous = format!("{}?ca={}", server.tls_url(), made.ca().display());
    assert_eq!(kind_of_failure(&anonymous).await, ErrorKind::Unavailable);
    let plain = server.tls_url().replace("zookeepers", "zookeeper");
    assert_eq!(kind_of_failure(&plain).await, ErrorKind::Unavailable);
}

#[tokio::test]
async fn the_nodes_of_a_user_are_closed_to_others() {
    let server = ZooKeeper::start();
    let url = |user: &str| format!("zookeeper://{user}:hunter2@{}/apps", server.hosts());
    let alice = client(&url("alice"), LONG);
    let guard = alice.mutex("k").unwrap().lock().await.unwrap();
    assert_eq!(kind_of_failure(&url("mallory")).await, ErrorKind::Denied);
    let anonymous = format!("{}/apps", server.url());
    assert_eq!(kind_of_failure(&anonymous).await, ErrorKind::Denied);
    guard.check().unwrap();
    assert!(client(&url("alice"), LONG).mutex("k").unwrap().try_lock().await.unwrap().is_none());
    let shown = format!("{alice:?} {}", alice.store());
    assert!(!shown.contains("hunter2"), "{shown}");
}
