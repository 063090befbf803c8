//! etcd: transactions that compare the hold itself, by `etcdctl`.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::Arc;

use leasehold::fence::etcd::{Hold, hold};
use leasehold::stores::Etcd as Store;
use leasehold::{Client, ClientBuilder, ErrorKind, Guard};
use leasehold_testbed::{Etcd, require, test_name};

use crate::{Resource, TTL, a_paused_holder_is_refused};

fn etcdctl(endpoint: &str, args: &[&str], input: &str) -> String {
    let mut child = Command::new(require("etcdctl", "etcd-client"))
        .env("ETCDCTL_API", "3")
        .arg(format!("--endpoints={endpoint}"))
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "etcdctl {args:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Puts `result` under the hold.
fn write(endpoint: &str, hold: &Hold, value: &str) -> Result<(), String> {
    let Hold { key, after, before, .. } = hold;
    let txn = format!(
        "create(\"{key}\") > \"{after}\"\ncreate(\"{key}\") < \"{before}\"\n\nput result {value}\n\n\n"
    );
    let said = etcdctl(endpoint, &["txn"], &txn);
    if said.starts_with("SUCCESS") { Ok(()) } else { Err(said) }
}

struct Outcome {
    store: Arc<Store>,
    endpoint: String,
}

impl Resource for Outcome {
    type Hold = Hold;

    async fn open(lock: &str, address: &str) -> Self {
        Self { store: Arc::new(Store::new(lock).unwrap()), endpoint: address.to_owned() }
    }

    fn client(&self, _lock: &str) -> ClientBuilder {
        Client::builder().shared_store(self.store.clone())
    }

    fn hold(&self, guard: &Guard) -> Hold {
        hold(&self.store, guard).unwrap()
    }

    async fn write(&self, hold: &Hold, value: &str) -> Result<(), String> {
        write(&self.endpoint, hold, value)
    }

    async fn read(&self) -> String {
        let read = etcdctl(&self.endpoint, &["get", "result", "--print-value-only"], "");
        read.trim().to_owned()
    }
}

fn endpoint(server: &Etcd) -> String {
    format!("http://127.0.0.1:{}", server.ports()[0])
}

#[test]
fn a_holder_that_was_paused_past_its_lease_is_refused() {
    let start = || {
        let server = Etcd::start();
        let (url, endpoint) = (server.url(), endpoint(&server));
        (server, url, endpoint)
    };
    a_paused_holder_is_refused::<Outcome, _>(&test_name!(), start, "FAILURE");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hold_ends_with_its_release_also_one_that_was_waited_for() {
    let server = Etcd::start();
    let resource = Outcome::open(&server.url(), &endpoint(&server)).await;
    let client = resource.client("").ttl(TTL * 100).build().unwrap();
    let mutex = client.mutex("a \"quoted\" key").unwrap();
    let first = mutex.lock().await.unwrap();
    let waiting = tokio::spawn(async move { mutex.lock().await });
    let quoted = |hold: Hold| Hold { key: hold.key.replace('"', "\\\""), ..hold };
    let old = quoted(hold(&resource.store, &first).unwrap());
    write(&resource.endpoint, &old, "first").unwrap();
    first.release().await.unwrap();
    let second = waiting.await.unwrap().unwrap();
    let new = quoted(hold(&resource.store, &second).unwrap());
    assert_eq!(new.fence, second.fence());
    write(&resource.endpoint, &old, "stale").unwrap_err();
    write(&resource.endpoint, &new, "second").unwrap();
    assert_eq!(resource.read().await, "second");
    // A key of that name that somebody makes later is not the hold.
    second.release().await.unwrap();
    etcdctl(&resource.endpoint, &["put", &new.key.replace("\\\"", "\""), "forged"], "");
    write(&resource.endpoint, &new, "stale").unwrap_err();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guard_of_another_handle_is_refused() {
    let server = Etcd::start();
    let ours = Store::new(&server.url()).unwrap();
    let client = Client::builder().url(&server.url()).ttl(TTL * 100).build().unwrap();
    let guard = client.mutex("k").unwrap().lock().await.unwrap();
    assert_eq!(hold(&ours, &guard).unwrap_err().kind(), ErrorKind::Invalid);
    guard.release().await.unwrap();
}
