//! Leaders of leasehold, of Curator and of kazoo on the same path.

use leasehold::Released;
use leasehold_testbed::peer::Library::{Curator, Kazoo};
use leasehold_testbed::{Peer, ZooKeeper};

use crate::peers::{KEY, PATH, ends, holding, url, waiting};
use crate::{LONG, client, soon};

#[tokio::test(flavor = "multi_thread")]
async fn leaders_of_ours_and_of_a_peer_exclude_each_other_and_are_seen() {
    for (library, dialect, recipe, name) in
        [(Curator, "curator", "selector", "a curator"), (Kazoo, "kazoo", "election", "a kazoo")]
    {
        let server = ZooKeeper::start();
        let client = client(&url(&server, dialect), LONG);
        let election = client.election(KEY).unwrap();
        let peer = holding(library, &server, recipe);
        assert!(election.try_campaign("10.0.0.7:8080").await.unwrap().is_none(), "{library:?}");
        let leads = election.leader().await.unwrap().expect("the peer leads");
        assert_eq!((leads.owner.as_str(), leads.note.as_str()), (name, ""));
        let campaign = tokio::spawn({
            let election = election.clone();
            async move { election.campaign("10.0.0.7:8080").await }
        });
        ends(peer);
        let leader = soon("elected", campaign).await.unwrap().unwrap();

        let seen = Peer::start(library, &["leader", &server.hosts(), PATH]).word();
        let seen = seen.expect("somebody leads");
        assert!(seen.starts_with("leasehold=1&owner="), "{seen}");
        assert!(seen.contains("&note=10.0.0.7%3A8080"), "{seen}");
        let mut next = waiting(library, &server, recipe, &**client.store(), 1).await;
        assert_eq!(election.leader().await.unwrap().unwrap().note.as_str(), "10.0.0.7:8080");
        leader.check().unwrap();
        assert_eq!(leader.resign().await.unwrap(), Released::Held, "{library:?} broke our hold");
        next.expect("held");
        assert_eq!(election.leader().await.unwrap().unwrap().owner.as_str(), name);
        ends(next);
    }
}

/// It looks at nodes with its own mark alone: it leads beside a leader of ours, who waits for it.
#[tokio::test(flavor = "multi_thread")]
async fn curators_leader_latch_overlooks_our_leader_and_ours_waits_for_it() {
    let server = ZooKeeper::start();
    let election = client(&url(&server, "curator"), LONG).election(KEY).unwrap();
    let latch = holding(Curator, &server, "latch");
    assert!(election.try_campaign("ours").await.unwrap().is_none(), "the latch leads");
    assert_eq!(election.leader().await.unwrap().unwrap().owner.as_str(), "a curator");
    let campaign = tokio::spawn({
        let election = election.clone();
        async move { election.campaign("ours").await }
    });
    ends(latch);
    let leader = soon("elected", campaign).await.unwrap().unwrap();
    let both = holding(Curator, &server, "latch");
    leader.check().unwrap();
    ends(both);
    assert_eq!(leader.resign().await.unwrap(), Released::Held);
}
