//! Elections by `etcdctl elect`, which is `concurrency.Election` of etcd's Go client and the
//! server's `v3election` service: a leader of ours and one of theirs exclude each other.

use std::process::Command;

use leasehold::core::{Left, Place};
use leasehold_testbed::{Etcd, Process};

use super::interoperation::{blocking, until_in_line};
use super::{Node, ahead, claim, key};

/// `etcdctl elect NAME PROPOSAL`.
fn candidate(etcd: &Etcd, name: &str, proposal: &str) -> Process {
    etcd.ctl_runs(&["elect", name, proposal])
}

/// Blocks until it leads: it prints its key and its proposal then.
fn elected(candidate: &mut Process, name: &str, proposal: &str) {
    let line = candidate.line().expect("its key");
    assert!(line.trim().starts_with(&format!("{name}/")), "{line}");
    assert_eq!(candidate.line().expect("its proposal").trim(), proposal);
}

/// As Ctrl-C does.
fn resign(mut candidate: Process) {
    let pid = candidate.pid().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    assert_eq!(candidate.wait(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn ours_leads_and_etcdctl_elect_waits() {
    let etcd = Etcd::start();
    let node = Node::new(&etcd.url()).await;
    let ours = claim("election/7");
    node.acquire(&ours).await;
    let mut theirs = candidate(&etcd, "election/7", "10.0.0.7:8080");
    until_in_line(&node, "election/7", 2).await;
    let line = node.store.inspect(&key("election/7")).await.unwrap();
    assert_eq!((line.holders.len(), line.waiters.len()), (1, 1));
    assert_eq!(line.holders[0].claim, Some(ours.id));
    assert_eq!(line.waiters[0].note.as_str(), "10.0.0.7:8080");

    // Who asks etcdctl who leads, reads it in what we write.
    let mut asked = etcd.ctl_runs(&["elect", "-l", "election/7"]);
    let said = blocking(move || {
        let said = [asked.line(), asked.line()];
        asked.kill();
        said
    })
    .await;
    let value = said[1].as_deref().expect("the leader's value");
    assert!(value.contains(r#""note":"a note""#) && value.contains("node:1"), "{said:?}");

    assert_eq!(node.leave(&ours).await, Left::Released);
    blocking(move || {
        elected(&mut theirs, "election/7", "10.0.0.7:8080");
        resign(theirs);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn etcdctl_elect_leads_and_ours_waits() {
    let etcd = Etcd::start();
    let node = Node::new(&etcd.url()).await;
    let mut theirs = candidate(&etcd, "k", "tcp://theirs");
    let theirs = blocking(move || {
        elected(&mut theirs, "k", "tcp://theirs");
        theirs
    })
    .await;
    let refused = ahead(node.attempt(&claim("k")).await);
    assert!(refused.foreign);
    let holder = refused.holder.expect("there is one");
    assert_eq!((holder.claim, holder.note.as_str()), (None, "tcp://theirs"));
    let ours = claim("k");
    assert!(matches!(node.enter(&ours).await, Place::Waiting(_)));
    blocking(move || resign(theirs)).await;
    node.wait(&ours).await;
    assert_eq!(node.leave(&ours).await, Left::Released);
}
