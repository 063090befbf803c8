//! ZooKeeper: transactions that check the hold's node, by kazoo.

use leasehold::fence::zookeeper::hold_node;
use leasehold::stores::ZooKeeper as Store;
use leasehold::{Client, ClientBuilder, ErrorKind, Guard};
use leasehold_testbed::peer::Library;
use leasehold_testbed::{Peer, ZooKeeper, test_name};

use crate::{Resource, TTL, a_paused_holder_is_refused};

struct Outcome {
    store: Store,
    hosts: String,
}

impl Resource for Outcome {
    type Hold = String;

    async fn open(lock: &str, address: &str) -> Self {
        Self { store: Store::new(lock).unwrap(), hosts: address.to_owned() }
    }

    fn client(&self, _lock: &str) -> ClientBuilder {
        Client::builder().store(self.store.clone())
    }

    fn hold(&self, guard: &Guard) -> String {
        hold_node(&self.store, guard).unwrap()
    }

    async fn write(&self, hold: &String, value: &str) -> Result<(), String> {
        let args = ["write", &self.hosts, "/result", hold, value];
        match Peer::start(Library::Kazoo, &args).word().as_deref() {
            Some("written") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    }

    async fn read(&self) -> String {
        Peer::start(Library::Kazoo, &["read", &self.hosts, "/result"]).word().unwrap()
    }
}

#[test]
fn a_holder_that_was_paused_past_its_lease_is_refused() {
    let start = || {
        let server = ZooKeeper::start();
        let (url, hosts) = (server.url(), server.hosts());
        (server, url, hosts)
    };
    a_paused_holder_is_refused::<Outcome, _>(&test_name!(), start, "NoNodeError");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hold_ends_with_its_release_also_one_that_was_waited_for() {
    let server = ZooKeeper::start();
    let url = format!("{}/chroot", server.url().trim_end_matches('/'));
    let resource = Outcome::open(&url, &server.hosts()).await;
    let client = resource.client("").ttl(TTL * 2).build().unwrap();
    let mutex = client.mutex("jobs/42").unwrap();
    let first = mutex.lock().await.unwrap();
    let waiting = tokio::spawn(async move { mutex.lock().await });
    let old = resource.hold(&first);
    assert!(old.starts_with("/chroot/jobs/42/"), "{old}");
    resource.write(&old, "first").await.unwrap();
    first.release().await.unwrap();
    let second = waiting.await.unwrap().unwrap();
    let new = resource.hold(&second);
    resource.write(&old, "stale").await.unwrap_err();
    resource.write(&new, "second").await.unwrap();
    assert_eq!(resource.read().await, "second");

    let other = Store::new(&url).unwrap();
    assert_eq!(hold_node(&other, &second).unwrap_err().kind(), ErrorKind::Invalid);
    second.release().await.unwrap();
}
