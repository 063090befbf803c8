//! Elections by `etcdctl elect`, which is `concurrency.Election` of etcd's Go client and the
//! server's `v3election` service: a leader of ours and one of theirs exclude each other.

use std::pin::pin;
use std::process::Command;

use futures::StreamExt;
use leasehold::core::{Left, Place};
use leasehold::{Client, Election, Leadership, Observed, Released};
use leasehold_testbed::{Etcd, Process};
use prost::Message;

use super::interoperation::{blocking, call, lease, until_in_line};
use super::{Node, TTL, ahead, claim, key, soon};

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

fn election(etcd: &Etcd) -> Election {
    let client = Client::builder().url(&etcd.url()).ttl(TTL).build().unwrap();
    client.election("k").unwrap()
}

/// What `etcdctl elect -l` prints next: the leader's key and value.
async fn printed(mut listener: Process) -> (Process, String, String) {
    blocking(move || {
        let [key, value] = [listener.line().expect("a key"), listener.line().expect("a value")];
        (listener, key, value)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn etcdctl_elect_listens_to_our_leader_and_its_proclamations() {
    let etcd = Etcd::start();
    let node = Node::new(&etcd.url()).await;
    let election = election(&etcd);
    let leader = election.campaign("10.0.0.7:8080").await.unwrap();
    let (listener, first, value) = printed(etcd.ctl_runs(&["elect", "-l", "k"])).await;
    assert!(first.starts_with("k/"), "{first}");
    assert!(value.starts_with('{') && value.contains(r#""note":"10.0.0.7:8080""#), "{value}");

    leader.proclaim("10.0.0.7:9090").await.unwrap();
    let (listener, key, value) = printed(listener).await;
    assert_eq!(key, first, "the same leader");
    assert!(value.contains(r#""note":"10.0.0.7:9090""#), "{value}");

    let mut theirs = candidate(&etcd, "k", "tcp://theirs");
    until_in_line(&node, "k", 2).await;
    assert_eq!(leader.resign().await.unwrap(), Released::Held);
    let (listener, _, value) = printed(listener).await;
    assert_eq!(value, "tcp://theirs");

    // And back.
    let campaign = tokio::spawn(async move { election.campaign("10.0.0.8:8080").await });
    until_in_line(&node, "k", 2).await;
    blocking(move || {
        elected(&mut theirs, "k", "tcp://theirs");
        resign(theirs);
    })
    .await;
    let (listener, _, value) = printed(listener).await;
    assert!(value.contains(r#""note":"10.0.0.8:8080""#), "{value}");
    soon(campaign).await.unwrap().unwrap().check().unwrap();
    listener.kill();
}

/// A leader by another recipe has no term and no name, but what it proposed.
fn theirs(proposal: &str) -> Observed {
    let note = leasehold::Note::new(proposal).unwrap();
    Observed::Leads(Leadership { term: None, owner: leasehold::Note::default(), note })
}

#[tokio::test(flavor = "multi_thread")]
async fn observers_see_a_leader_of_etcdctl_elect() {
    let etcd = Etcd::start();
    let election = election(&etcd);
    let mut observed = pin!(election.observe());
    assert_eq!(soon(observed.next()).await.unwrap().unwrap(), Observed::Vacant);
    let mut leads = candidate(&etcd, "k", "tcp://theirs");
    assert_eq!(soon(observed.next()).await.unwrap().unwrap(), theirs("tcp://theirs"));
    blocking(move || {
        elected(&mut leads, "k", "tcp://theirs");
        resign(leads);
    })
    .await;
    assert_eq!(soon(observed.next()).await.unwrap().unwrap(), Observed::Vacant);
}

#[derive(Clone, PartialEq, Message)]
struct CampaignRequest {
    #[prost(bytes = "vec", tag = "1")]
    name: Vec<u8>,
    #[prost(int64, tag = "2")]
    lease: i64,
    #[prost(bytes = "vec", tag = "3")]
    value: Vec<u8>,
}

/// Where an answer is nothing but a header, this is without a leader.
#[derive(Clone, PartialEq, Message)]
struct CampaignResponse {
    #[prost(message, optional, tag = "2")]
    leader: Option<LeaderKey>,
}

#[derive(Clone, PartialEq, Message)]
struct LeaderKey {
    #[prost(bytes = "vec", tag = "1")]
    name: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    key: Vec<u8>,
    #[prost(int64, tag = "3")]
    rev: i64,
    #[prost(int64, tag = "4")]
    lease: i64,
}

/// A resignation is the same without a value.
#[derive(Clone, PartialEq, Message)]
struct ProclaimRequest {
    #[prost(message, optional, tag = "1")]
    leader: Option<LeaderKey>,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

const CAMPAIGN: &str = "/v3electionpb.Election/Campaign";
const PROCLAIM: &str = "/v3electionpb.Election/Proclaim";
const RESIGN: &str = "/v3electionpb.Election/Resign";

/// `etcdctl elect` proposes once; `concurrency.Election`, which this service is, may proclaim.
#[tokio::test(flavor = "multi_thread")]
async fn the_v3election_service_and_ours_exclude_each_other_and_observers_see_what_it_proclaims() {
    let etcd = Etcd::start();
    let node = Node::new(&etcd.url()).await;
    let (port, election) = (etcd.ports()[0], election(&etcd));
    let ours = election.campaign("ours").await.unwrap();
    let request =
        CampaignRequest { name: b"k".to_vec(), lease: lease(&etcd), value: b"one".to_vec() };
    let campaign = tokio::spawn(call::<_, CampaignResponse>(port, CAMPAIGN, request));
    until_in_line(&node, "k", 2).await;
    assert!(!campaign.is_finished(), "it waits for ours");
    assert_eq!(ours.resign().await.unwrap(), Released::Held);
    let leader = soon(campaign).await.unwrap().leader;

    assert!(election.try_campaign("ours").await.unwrap().is_none(), "theirs leads");
    let mut observed = pin!(election.observe());
    assert_eq!(soon(observed.next()).await.unwrap().unwrap(), theirs("one"));
    let proclaimed = ProclaimRequest { leader: leader.clone(), value: b"two".to_vec() };
    let _: CampaignResponse = call(port, PROCLAIM, proclaimed).await;
    assert_eq!(soon(observed.next()).await.unwrap().unwrap(), theirs("two"));

    let campaign = tokio::spawn({
        let election = election.clone();
        async move { election.campaign("ours").await }
    });
    until_in_line(&node, "k", 2).await;
    let _: CampaignResponse = call(port, RESIGN, ProclaimRequest { leader, value: vec![] }).await;
    let ours = soon(campaign).await.unwrap().unwrap();
    let next = loop {
        match soon(observed.next()).await.unwrap().unwrap() {
            // Between the two it may have looked.
            Observed::Vacant => {}
            next => break next,
        }
    };
    let Observed::Leads(next) = next else { panic!("{next:?}") };
    assert_eq!((next.term, next.note.as_str()), (Some(ours.term()), "ours"));
}
