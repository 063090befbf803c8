//! Holds that change in place: who hears of it, and who does not.

use std::num::NonZeroU32;
use std::time::Duration;

use leasehold::{Claim, Enter, Left, Note, Place};
use leasehold_testbed::{Proxy, ZooKeeper};

use crate::server::requests;
use crate::{Actor, LONG, claim, share, soon};

fn one_unit(claim: &Claim) -> Claim {
    claim.amended(Note::default(), NonZeroU32::MIN)
}

fn noted(claim: &Claim, note: &str) -> Claim {
    claim.amended(Note::new(note).unwrap(), NonZeroU32::MAX)
}

impl Actor {
    async fn amend(&self, claim: &Claim) -> bool {
        soon("amend", self.store.amend(&self.session, claim)).await.unwrap()
    }

    async fn told(&self, claim: &Claim) -> Option<Place> {
        soon("told", self.store.changed(&self.session, claim)).await.unwrap()
    }
}

/// Nobody asks again before it is told to.
#[tokio::test]
async fn fewer_units_wake_who_waits_for_them() {
    let server = ZooKeeper::start();
    let [alice, bob] =
        [Actor::open(&server.url(), LONG).await, Actor::open(&server.url(), LONG).await];
    let [large, waiter, exclusive] = [share("k", 3, 3), share("k", 2, 3), share("k", 3, 3)];
    let first = alice.holds(&large).await;
    bob.waits(&waiter).await;
    bob.waits(&exclusive).await;
    assert!(alice.amend(&large.amended(Note::default(), 2.try_into().unwrap())).await);
    assert_eq!(bob.told(&waiter).await, None, "told to look");
    bob.waits(&waiter).await;
    assert!(alice.amend(&one_unit(&large)).await);
    assert_eq!(bob.told(&waiter).await, None, "told to look");
    let second = bob.holds(&waiter).await;
    assert!(second > first);
    assert_eq!(alice.enter(&large).await, Place::Held(first), "the fence stays");
    assert_eq!(bob.leave(&waiter).await, Left::Released);
    bob.waits(&exclusive).await;
    assert_eq!(alice.leave(&large).await, Left::Released);
    bob.holds(&exclusive).await;
}

/// The names of twenty say that they take it all.
#[tokio::test]
async fn a_claim_fits_beside_many_that_were_amended() {
    let server = ZooKeeper::start();
    let [alice, bob] =
        [Actor::open(&server.url(), LONG).await, Actor::open(&server.url(), LONG).await];
    for _ in 0..20 {
        let hold = share("k", 5, 100);
        alice.holds(&hold).await;
        assert!(alice.amend(&one_unit(&hold)).await);
    }
    let [trying, waiting, too_much] =
        [share("k", 40, 100), share("k", 40, 100), share("k", 1, 100)];
    let tried = soon("try", bob.store.enter(&bob.session, &trying, Enter::Try)).await.unwrap();
    assert!(matches!(tried, Place::Held(_)), "{tried:?}");
    bob.holds(&waiting).await;
    let tried = soon("try", bob.store.enter(&bob.session, &too_much, Enter::Try)).await.unwrap();
    assert!(matches!(tried, Place::Refused(_)), "20 + 40 + 40 + 1 are too many: {tried:?}");
    let line = bob.store.inspect(&waiting.key).await.unwrap();
    assert_eq!((line.holders.len(), line.waiters.len()), (22, 0));
    assert_eq!(bob.leave(&waiting).await, Left::Released, "as it found itself");
}

/// What was amended while the waiter was cut off is told when it is back.
#[tokio::test(flavor = "multi_thread")]
async fn fewer_units_are_told_after_an_interruption() {
    let server = ZooKeeper::start();
    let proxy = Proxy::before(server.port(0));
    let url = format!("zookeeper://127.0.0.1:{}", proxy.port());
    let [alice, bob] = [Actor::open(&server.url(), LONG).await, Actor::open(&url, LONG).await];
    for _ in 0..5 {
        let [large, waiter] = [share("k", 3, 3), share("k", 1, 3)];
        alice.holds(&large).await;
        bob.waits(&waiter).await;
        proxy.cut();
        assert!(alice.amend(&one_unit(&large)).await);
        bob.told(&waiter).await;
        soon("granted", async {
            // The connection may break once more under a request.
            loop {
                let place = bob.store.enter(&bob.session, &waiter, Enter::Wait).await;
                if let Ok(Place::Held(_)) = place {
                    break;
                }
            }
        })
        .await;
        assert_eq!(bob.leave(&waiter).await, Left::Released);
        assert_eq!(alice.leave(&large).await, Left::Released);
    }
}

#[tokio::test]
async fn another_note_wakes_nobody_and_costs_little() {
    let server = ZooKeeper::start();
    let [alice, bob] =
        [Actor::open(&server.url(), LONG).await, Actor::open(&server.url(), LONG).await];
    let [large, waiter] = [share("k", 3, 3), share("k", 1, 3)];
    alice.holds(&large).await;
    bob.waits(&waiter).await;
    let before = [requests(&server, &alice), requests(&server, &bob)];
    let commits = server.last_transaction(0);
    assert!(alice.amend(&noted(&large, "busy")).await);
    let woken = bob.store.changed(&bob.session, &waiter);
    assert!(tokio::time::timeout(Duration::from_secs(2), woken).await.is_err(), "nothing changed");
    assert_eq!(server.last_transaction(0) - commits, 1);
    let after = [requests(&server, &alice), requests(&server, &bob)];
    // Sync and read, write; and to watch again what they watched.
    assert_eq!([after[0] - before[0], after[1] - before[1]], [4, 1]);
    // Who watched goes on watching.
    assert!(alice.amend(&one_unit(&large)).await);
    assert_eq!(bob.told(&waiter).await, None);
    bob.holds(&waiter).await;
    assert!(bob.store.revoke(&large.key, &large.id).await.unwrap());
    soon("disturbed", alice.store.disturbed(&alice.session)).await;
}

/// The message that the one ahead left is the grant, unless its node was written meanwhile.
#[tokio::test]
async fn a_mutex_is_handed_over_after_its_note_changed() {
    let server = ZooKeeper::start();
    let [alice, bob] =
        [Actor::open(&server.url(), LONG).await, Actor::open(&server.url(), LONG).await];
    for round in 0..5 {
        let [hold, waiter] = [claim("k"), claim("k")];
        let first = alice.holds(&hold).await;
        bob.waits(&waiter).await;
        assert!(alice.amend(&noted(&hold, &round.to_string())).await);
        assert_eq!(alice.leave(&hold).await, Left::Released);
        bob.told(&waiter).await;
        assert!(bob.holds(&waiter).await > first);
        assert_eq!(bob.leave(&waiter).await, Left::Released);
    }
}
