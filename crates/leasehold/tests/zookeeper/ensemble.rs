//! Three servers, and what happens when some of them are gone, stopped or cut off.

use std::time::Duration;

use leasehold::{ErrorKind, Guard, Released, Renewed};
use leasehold_testbed::ZooKeeper;

use crate::{Actor, PATIENCE, claim, client, soon};

const TTL: Duration = Duration::from_secs(6);

fn ensemble() -> ZooKeeper {
    ZooKeeper::options().members(3).start()
}

/// Waits until a renewal that was sent from now on is acknowledged.
async fn renewed(guard: &Guard) {
    let before = guard.deadline();
    soon("a renewal", async {
        while guard.deadline() <= before {
            guard.check().expect("still held");
            // sleep: nothing tells of a renewal: it is looked for.
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hold_outlives_the_leader() {
    let servers = ensemble();
    let guard = client(&servers.url(), TTL).mutex("k").unwrap().lock().await.unwrap();
    let leader = servers.leader();
    servers.kill(leader);
    for _ in 0..3 {
        renewed(&guard).await;
    }
    let other = client(&servers.url(), TTL).mutex("k").unwrap();
    assert!(other.try_lock().await.unwrap().is_none());
    let fence = guard.fence();
    assert_eq!(guard.release().await.unwrap(), Released::Held);
    assert!(other.lock_within(PATIENCE).await.unwrap().fence() > fence);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hold_outlives_a_member_that_stops_answering() {
    let servers = ensemble();
    // Whichever member it is connected to, one after the other stops.
    let guard = client(&servers.url(), TTL).mutex("k").unwrap().lock().await.unwrap();
    let leader = servers.leader();
    for member in (0..3).filter(|member| *member != leader) {
        servers.pause(member);
        renewed(&guard).await;
        renewed(&guard).await;
        servers.resume(member);
        servers.wait_until_serving(member);
    }
    assert_eq!(guard.release().await.unwrap(), Released::Held);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiter_outlives_its_member() {
    let servers = ensemble();
    let holder = client(&servers.url(), TTL).mutex("k").unwrap();
    let guard = holder.lock().await.unwrap();
    let bob = Actor::open(&servers.url(), TTL * 10).await;
    let waiter = claim("k");
    bob.waits(&waiter).await;
    let member = servers.member_of(bob.server_side()).expect("connected");
    servers.kill(member);
    // Its watches died with the connection; at another member everybody has to look again.
    let told = soon("told to look again", bob.store.changed(&bob.session, &waiter)).await;
    assert_eq!(told.unwrap(), None);
    bob.waits(&waiter).await;
    renewed(&guard).await;
    assert_eq!(guard.release().await.unwrap(), Released::Held);
    let told = soon("granted", bob.store.changed(&bob.session, &waiter)).await.unwrap();
    assert!(matches!(told, Some(leasehold::Place::Held(_))), "{told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_quorum_nothing_is_granted_and_what_is_held_is_lost_in_time() {
    let servers = ensemble();
    let alice = client(&servers.url(), TTL);
    let guard = alice.mutex("k").unwrap().lock().await.unwrap();
    servers.kill(0);
    servers.kill(1);
    soon("the loss", guard.lost()).await;
    assert!(leasehold::clock::now() < guard.deadline(), "signalled before the deadline");
    let error = client(&servers.url(), TTL).mutex("j").unwrap().try_lock().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    drop(guard);
    let waiting = tokio::spawn(async move { alice.mutex("k").unwrap().lock().await });
    tokio::task::block_in_place(|| servers.start_again(0));
    drop(soon("granted", waiting).await.unwrap().unwrap());
}

/// The member goes on answering for as long as `syncLimit` allows; the leader does not hear of it
/// any more, and will end the session.
#[tokio::test(flavor = "multi_thread")]
async fn a_member_without_its_leader_acknowledges_no_renewal() {
    let servers = ensemble();
    let leader = servers.leader();
    let follower = (leader + 1) % 3;
    let alice = Actor::open(&servers.url_of(follower), TTL).await;
    let hold = claim("k");
    alice.holds(&hold).await;
    let roll = std::slice::from_ref(&hold);
    let extended = Renewed::Extended { lost: vec![] };
    assert_eq!(alice.store.renew(&alice.session, roll).await.unwrap(), extended);

    servers.pause(leader);
    let renewing = alice.store.renew(&alice.session, roll);
    let renewed = tokio::time::timeout(Duration::from_secs(1), renewing).await;
    let still_follows = servers.ask(follower, "srvr").contains("Mode: follower");
    assert!(!matches!(renewed, Ok(Ok(_))), "acknowledged by nobody but the member: {renewed:?}");
    assert!(still_follows, "it did not notice yet, which is the point");
    servers.resume(leader);
}
