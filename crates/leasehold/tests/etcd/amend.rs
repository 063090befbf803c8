//! Holds that change in place: who hears of it, and who does not.

use std::num::NonZeroU32;

use leasehold::core::{Claim, Left, Note, Place};
use leasehold_testbed::proxy::Mode;
use leasehold_testbed::{Etcd, Proxy};

use super::{Node, claim, fence, share, soon};

fn one_unit(claim: &Claim) -> Claim {
    claim.amended(Note::default(), NonZeroU32::MIN)
}

impl Node {
    async fn amend(&self, claim: &Claim) -> bool {
        soon(self.store.amend(&self.session, claim)).await.unwrap()
    }
}

/// Nobody asks again before it is told to.
#[tokio::test]
async fn fewer_units_wake_who_waits_for_them() {
    let etcd = Etcd::start();
    let [alice, bob] = [Node::new(&etcd.url()).await, Node::new(&etcd.url()).await];
    // Beside one holder, and beside more than are watched one by one.
    for others in [0, 40] {
        let limit = 10 + others;
        let held: Vec<Claim> = (0..others).map(|_| share("k", 1, limit)).collect();
        for hold in &held {
            alice.acquire(hold).await;
        }
        let [large, waiter] = [share("k", 10, limit), share("k", 5, limit)];
        let first = alice.acquire(&large).await;
        assert!(matches!(bob.enter(&waiter).await, Place::Waiting(_)));
        assert!(alice.amend(&one_unit(&large)).await);
        assert_eq!(bob.told(&waiter).await, None, "told to look");
        let second = bob.acquire(&waiter).await;
        assert!(second > first);
        assert_eq!(alice.enter(&large).await, Place::Held(first), "the fence stays");
        assert_eq!(bob.leave(&waiter).await, Left::Released);
        assert_eq!(alice.leave(&large).await, Left::Released);
        for hold in &held {
            assert_eq!(alice.leave(hold).await, Left::Released);
        }
    }
}

/// What was amended while the waiter was cut off is told when it is back.
#[tokio::test(flavor = "multi_thread")]
async fn fewer_units_are_told_after_an_interruption() {
    let etcd = Etcd::start();
    let proxy = Proxy::before(etcd.ports()[0]);
    let [alice, bob] =
        [Node::new(&etcd.url()).await, Node::new(&etcd.url_on(&[proxy.port()])).await];
    for compact in [false, true] {
        let [large, waiter] = [share("k", 3, 3), share("k", 1, 3)];
        alice.acquire(&large).await;
        assert!(matches!(bob.enter(&waiter).await, Place::Waiting(_)));
        proxy.set(Mode::Refuse);
        proxy.cut();
        assert!(alice.amend(&one_unit(&large)).await);
        if compact {
            etcd.ctl(&["put", "elsewhere", "1"]);
            etcd.ctl(&["compact", &etcd.revision().to_string()]);
        }
        proxy.set(Mode::Forward);
        assert_eq!(bob.told(&waiter).await, None);
        bob.acquire(&waiter).await;
        bob.leave(&waiter).await;
        alice.leave(&large).await;
    }
}

/// Each member of three dies once between the wait and the amendment.
#[tokio::test(flavor = "multi_thread")]
async fn fewer_units_are_told_although_a_member_died() {
    let etcd = Etcd::options().members(3).start();
    let [alice, bob] = [Node::new(&etcd.url()).await, Node::new(&etcd.url()).await];
    for member in etcd.members() {
        let [large, waiter] = [share("k", 3, 3), share("k", 1, 3)];
        alice.acquire(&large).await;
        assert!(matches!(bob.enter(&waiter).await, Place::Waiting(_)));
        member.kill();
        soon(async {
            while !alice
                .store
                .amend(&alice.session, &one_unit(&large))
                .await
                .is_ok_and(|amended| amended)
            {}
        })
        .await;
        bob.told(&waiter).await;
        bob.wait(&waiter).await;
        member.start_again();
        soon(async { while bob.store.leave(&bob.session, &waiter).await.is_err() {} }).await;
        soon(async { while alice.store.leave(&alice.session, &large).await.is_err() {} }).await;
    }
}

/// The end of a writer that became a reader is no grant: others may read beside it.
#[tokio::test]
async fn a_writer_that_reads_does_not_hand_over_alone() {
    let etcd = Etcd::start();
    let [alice, bob] = [Node::new(&etcd.url()).await, Node::new(&etcd.url()).await];
    let [writer, reader, next] =
        [share("k", u32::MAX, u32::MAX), share("k", 1, u32::MAX), share("k", u32::MAX, u32::MAX)];
    alice.acquire(&writer).await;
    assert!(alice.amend(&one_unit(&writer)).await);
    let read = bob.acquire(&reader).await;
    assert!(matches!(bob.enter(&next).await, Place::Waiting(_)));
    // The writer that reads leaves, and the reader is still there.
    assert_eq!(alice.leave(&writer).await, Left::Released);
    assert!(matches!(bob.enter(&next).await, Place::Waiting(_)));
    assert_eq!(bob.leave(&reader).await, Left::Released);
    assert!(fence(&bob.told(&next).await.expect("the grant itself")) > read);
}

/// Somebody who waits learned of its turn from nobody yet: it holds all the same.
#[tokio::test]
async fn a_hold_that_nobody_was_told_of_is_amended() {
    let etcd = Etcd::start();
    let node = Node::new(&etcd.url()).await;
    let [hold, waiter] = [claim("k"), share("s", 2, 2)];
    node.acquire(&hold).await;
    let large = share("s", 2, 2);
    node.acquire(&large).await;
    assert!(matches!(node.enter(&waiter).await, Place::Waiting(_)));
    assert!(!node.amend(&one_unit(&waiter)).await, "it waits");
    node.leave(&large).await;
    // As another process with the session would.
    let other = Node { store: super::store(&etcd.url()), session: node.session.clone() };
    assert!(other.amend(&one_unit(&waiter)).await);
    assert!(other.amend(&hold.amended(Note::new("new").unwrap(), NonZeroU32::MIN)).await);
    let line = node.store.inspect(&waiter.key).await.unwrap();
    assert_eq!((line.holders.len(), line.holders[0].units), (1, 1));
    let told = line.holders[0].fence.expect("written down");
    assert_eq!(node.enter(&waiter).await, Place::Held(told));
}
