//! The line: names with slashes in them, and hand-overs.

use leasehold::core::{Claim, Left, Place, Renewed};
use leasehold_testbed::Etcd;

use super::{Node, ahead, claim, fence, key, share, soon};

/// `a/b/…` lies below `a/`: in etcd's own recipes the lock `a` waits for the lock `a/b`.
#[tokio::test]
async fn names_with_slashes_are_names_of_their_own() {
    let etcd = Etcd::start();
    let node = Node::new(&etcd.url()).await;
    // The outer name last, so that everything below it is there already.
    let names = ["a/b/c", "a/b/", "a/b", "a//", "a/", "/", "//", "a"];
    let held: Vec<Claim> = names.map(claim).into();
    let mut fences = Vec::new();
    for hold in &held {
        fences.push(node.acquire(hold).await);
    }
    for (hold, fence) in held.iter().zip(&fences) {
        assert_eq!(node.enter(hold).await, Place::Held(*fence), "asking again gives the same");
        let refused = ahead(node.attempt(&claim(hold.key.as_str())).await);
        assert_eq!(refused.holder.unwrap().claim, Some(hold.id));
        assert_eq!(refused.rank, Some(0));
    }
    let mut keys: Vec<&str> = names.to_vec();
    keys.sort_unstable();
    let listed = node.store.keys("").await.unwrap();
    assert_eq!(listed.iter().map(leasehold::Key::as_str).collect::<Vec<_>>(), keys);
    for hold in &held {
        assert_eq!(node.leave(hold).await, Left::Released);
    }
}

#[tokio::test]
async fn a_try_below_whose_name_others_lock_is_granted_without_residue() {
    let etcd = Etcd::start();
    let node = Node::new(&etcd.url()).await;
    node.acquire(&claim("jobs/1")).await;
    let hold = claim("jobs");
    let granted = node.attempt(&hold).await;
    assert!(matches!(granted, Place::Held(_)), "{granted:?}");
    assert_eq!(node.attempt(&hold).await, granted, "asking again gives the same");
    assert!(matches!(node.attempt(&claim("jobs")).await, Place::Refused(_)));
    let below = etcd.ctl_says(&["get", "--prefix", "jobs/", "--keys-only"]);
    assert_eq!(below.lines().filter(|line| !line.is_empty()).count(), 2, "{below}");
}

#[tokio::test]
async fn application_data_is_not_listed_and_not_deleted() {
    let etcd = Etcd::start();
    let node = Node::new(&etcd.url()).await;
    for data in ["app/config", "app/1/2", "app/694d77aa-not-a-claim"] {
        etcd.ctl(&["put", data, "x"]);
    }
    assert_eq!(node.store.keys("").await.unwrap(), vec![]);
    assert!(!node.store.revoke(&key("app"), &claim("app").id).await.unwrap());
    let hold = claim("app/lock");
    node.acquire(&hold).await;
    assert_eq!(node.store.keys("app/").await.unwrap(), vec![key("app/lock")]);
    assert_eq!(node.store.keys("app/lo").await.unwrap(), vec![key("app/lock")]);
    assert_eq!(node.store.keys("app/lock/").await.unwrap(), vec![]);
}

/// A hand-over is told with its fence: nobody has to ask.
#[tokio::test]
async fn the_end_of_the_one_ahead_is_the_grant() {
    let etcd = Etcd::start();
    let [alice, bob] = [Node::new(&etcd.url()).await, Node::new(&etcd.url()).await];
    let [hold, waiter] = [claim("k"), claim("k")];
    let first = alice.acquire(&hold).await;
    assert!(matches!(bob.enter(&waiter).await, Place::Waiting(_)));
    alice.leave(&hold).await;
    let deleted = etcd.revision();
    let told = bob.told(&waiter).await.expect("the grant itself");
    assert!(fence(&told) > first);
    assert!(fence(&told).get() <= deleted, "the fence is the revision of the release");
    assert_eq!(bob.enter(&waiter).await, told, "asking again gives the same");
    // Also in another process, once it is written down.
    let other = Node { store: super::store(&etcd.url()), session: bob.session.clone() };
    soon(async { while written_fence(&other, "k").await.is_none() {} }).await;
    assert_eq!(other.enter(&waiter).await, told);
    assert_eq!(bob.leave(&waiter).await, Left::Released);
}

async fn written_fence(node: &Node, name: &str) -> Option<leasehold::Fence> {
    node.store.inspect(&key(name)).await.unwrap().holders[0].fence
}

/// With more than one ahead, the end of the one right ahead is a grant only if it had held.
#[tokio::test]
async fn a_waiter_that_gives_up_does_not_grant_the_next_one() {
    let etcd = Etcd::start();
    let nodes = [Node::new(&etcd.url()).await, Node::new(&etcd.url()).await];
    let [hold, gives_up, waiter] = [claim("k"), claim("k"), claim("k")];
    nodes[0].acquire(&hold).await;
    assert!(matches!(nodes[0].enter(&gives_up).await, Place::Waiting(_)));
    assert_eq!(ahead(nodes[1].enter(&waiter).await).rank, Some(1));
    assert_eq!(nodes[0].leave(&gives_up).await, Left::Withdrawn);
    assert_eq!(nodes[1].told(&waiter).await, None, "only that something changed");
    assert_eq!(ahead(nodes[1].enter(&waiter).await).rank, Some(0));
    nodes[0].leave(&hold).await;
    assert!(matches!(nodes[1].told(&waiter).await, Some(Place::Held(_))));
}

/// In a longer line the one ahead writes down that it holds, so its end is the grant of the next.
#[tokio::test]
async fn a_deep_line_is_handed_on_without_asking() {
    let etcd = Etcd::start();
    let node = Node::new(&etcd.url()).await;
    let line = [claim("k"), claim("k"), claim("k"), claim("k")];
    let mut last = node.acquire(&line[0]).await;
    for waiter in &line[1..] {
        assert!(matches!(node.enter(waiter).await, Place::Waiting(_)));
    }
    for pair in line.windows(2) {
        soon(async { while written_fence(&node, "k").await.is_none() {} }).await;
        assert_eq!(node.leave(&pair[0]).await, Left::Released);
        let told = node.told(&pair[1]).await.expect("the grant itself");
        assert!(fence(&told) > last);
        last = fence(&told);
    }
}

/// Limit 2, holders a and b, c waits: a's end lets c in, though b is right ahead of it.
#[tokio::test]
async fn a_semaphores_waiter_hears_of_every_end_that_lets_it_in() {
    let etcd = Etcd::start();
    let node = Node::new(&etcd.url()).await;
    let [a, b, c] = [share("k", 1, 2), share("k", 1, 2), share("k", 1, 2)];
    let fences = [node.acquire(&a).await, node.acquire(&b).await];
    assert!(matches!(node.enter(&c).await, Place::Waiting(_)));
    node.leave(&a).await;
    node.told(&c).await;
    let third = node.acquire(&c).await;
    assert!(fences[0] < fences[1] && fences[1] < third, "{fences:?} {third}");
    assert_eq!(node.enter(&c).await, Place::Held(third), "asking again gives the same");
}

/// One end, even one revocation of a whole session, can let in several: one revision for all.
#[tokio::test]
async fn fences_of_claims_that_are_let_in_together_are_unique() {
    let etcd = Etcd::start();
    let [alice, bob] = [Node::new(&etcd.url()).await, Node::new(&etcd.url()).await];
    let writer = share("k", 5, 5);
    let mut fences = vec![alice.acquire(&writer).await];
    let readers: Vec<Claim> = (0..4).map(|_| share("k", 1, 5)).collect();
    for reader in &readers {
        assert!(matches!(bob.enter(reader).await, Place::Waiting(_)));
    }
    soon(alice.store.close(&alice.session)).await.unwrap();
    for reader in &readers {
        fences.push(bob.wait(reader).await);
    }
    assert!(fences.is_sorted_by(|a, b| a < b), "{fences:?}");
}

/// More claims ahead than are watched one by one.
#[tokio::test]
async fn a_wide_semaphore_wakes_its_waiter() {
    let etcd = Etcd::start();
    let [alice, bob] = [Node::new(&etcd.url()).await, Node::new(&etcd.url()).await];
    let held: Vec<Claim> = (0..40).map(|_| share("k", 1, 40)).collect();
    for hold in &held {
        alice.acquire(hold).await;
    }
    let waiter = share("k", 1, 40);
    assert!(matches!(bob.enter(&waiter).await, Place::Waiting(_)));
    alice.leave(&held[20]).await;
    bob.told(&waiter).await;
    bob.acquire(&waiter).await;
}

/// A line that is longer than a page of it.
#[tokio::test]
async fn a_line_longer_than_a_page_is_read_whole() {
    let etcd = Etcd::start();
    let [alice, bob] = [Node::new(&etcd.url()).await, Node::new(&etcd.url()).await];
    let line: Vec<Claim> = (0..140).map(|_| claim("k")).collect();
    alice.acquire(&line[0]).await;
    for waiter in &line[1..] {
        assert!(matches!(alice.enter(waiter).await, Place::Waiting(_)));
    }
    let last = claim("k");
    assert_eq!(ahead(bob.enter(&last).await).rank, Some(139));
    assert_eq!(ahead(bob.enter(&last).await).rank, Some(139), "also when it asks again");
    assert_eq!(ahead(bob.attempt(&claim("k")).await).rank, Some(140));
    let seen = bob.store.inspect(&key("k")).await.unwrap();
    assert_eq!((seen.holders.len(), seen.waiters.len()), (1, 140));
    alice.leave(&line[139]).await;
    bob.told(&last).await;
    assert_eq!(ahead(bob.enter(&last).await).rank, Some(138));
    assert_eq!(bob.renew(&last).await, Renewed::Extended { lost: vec![] });
}

/// Somebody deletes a waiter's key by hand. It must not be granted what it no longer waits for.
#[tokio::test]
async fn a_waiter_that_was_revoked_is_not_granted() {
    let etcd = Etcd::start();
    let [alice, bob] = [Node::new(&etcd.url()).await, Node::new(&etcd.url()).await];
    let [hold, revoked, next] = [claim("k"), claim("k"), claim("k")];
    alice.acquire(&hold).await;
    assert!(matches!(bob.enter(&revoked).await, Place::Waiting(_)));
    assert!(matches!(alice.enter(&next).await, Place::Waiting(_)));
    assert!(alice.store.revoke(&key("k"), &revoked.id).await.unwrap());
    soon(bob.store.disturbed(&bob.session)).await;
    assert_eq!(alice.leave(&hold).await, Left::Released);
    assert_eq!(bob.told(&revoked).await, None, "told to look, not granted");
    assert_eq!(bob.renew(&revoked).await, Renewed::Extended { lost: vec![revoked.id] });
    alice.wait(&next).await;
}

/// As above, by `etcdctl del`: nobody tells the session. The grant is taken back at once.
#[tokio::test]
async fn a_waiter_whose_key_was_deleted_learns_it_with_its_grant() {
    let etcd = Etcd::start();
    let [alice, bob] = [Node::new(&etcd.url()).await, Node::new(&etcd.url()).await];
    let [hold, deleted] = [claim("k"), claim("k")];
    alice.acquire(&hold).await;
    assert!(matches!(bob.enter(&deleted).await, Place::Waiting(_)));
    let own = format!("k/{}-{}", bob.session.as_str(), deleted.id.to_hex());
    assert_eq!(etcd.ctl_says(&["del", &own]), "1");
    alice.leave(&hold).await;
    soon(bob.store.disturbed(&bob.session)).await;
    assert_eq!(bob.renew(&deleted).await, Renewed::Extended { lost: vec![deleted.id] });
}
