//! One server: what is asked of it, and what it remembers.

use std::time::Duration;

use leasehold::{Client, ErrorKind, Left, Place, Released, Store};
use leasehold_testbed::ZooKeeper;

use crate::{Actor, LONG, claim, client, soon, terms};

/// How many requests a session has sent, as the server counts them.
pub(crate) fn requests(server: &ZooKeeper, actor: &Actor) -> u64 {
    let connections = server.ask(0, "cons");
    let name = format!("sid=0x{}", actor.server_side().trim_start_matches('0'));
    let line = connections.lines().find(|line| line.contains(&name)).expect("connected");
    let count = line.split("recved=").nth(1).and_then(|rest| rest.split(',').next());
    count.expect("a count").parse().expect("a number")
}

#[tokio::test]
async fn an_uncontended_pair_is_two_commits() {
    const PAIRS: u64 = 20;
    let server = ZooKeeper::start();
    let alice = Actor::open(&server.url(), LONG).await;
    let pair = async || {
        let hold = claim("jobs/42");
        alice.holds(&hold).await;
        assert_eq!(alice.leave(&hold).await, Left::Released);
    };
    // The first one makes the parents.
    pair().await;
    let (commits, asked) = (server.last_transaction(0), requests(&server, &alice));
    for _ in 0..PAIRS {
        pair().await;
    }
    assert_eq!(server.last_transaction(0) - commits, 2 * PAIRS, "commits");
    // Create, children and a watch that nobody waits for; delete.
    assert_eq!(requests(&server, &alice) - asked, 4 * PAIRS, "requests");
}

/// A grant outlives a loss of power, because the server's log is on the disk before the answer.
#[tokio::test]
async fn a_grant_is_synced_before_it_is_answered() {
    const GRANTS: u64 = 10;
    let server = ZooKeeper::options().property("zookeeper.forceSync", "yes").start();
    let alice = Actor::open(&server.url(), LONG).await;
    let synced = || -> u64 {
        let text = server.ask(0, "mntr");
        let line = text.lines().find_map(|line| line.strip_prefix("zk_cnt_fsynctime"));
        line.expect("it is counted").trim().parse().expect("a number")
    };
    for number in 0..GRANTS {
        let before = synced();
        alice.holds(&claim(&format!("k{number}"))).await;
        assert!(synced() > before, "the log was synced");
    }
}

#[tokio::test]
async fn a_hand_over_costs_the_waiter_no_request() {
    let server = ZooKeeper::start();
    let [alice, bob] =
        [Actor::open(&server.url(), LONG).await, Actor::open(&server.url(), LONG).await];
    let [hold, waiter] = [claim("k"), claim("k")];
    let fence = alice.holds(&hold).await;
    bob.waits(&waiter).await;
    let before = requests(&server, &bob);
    assert_eq!(alice.leave(&hold).await, Left::Released);
    let told = soon("told", bob.store.changed(&bob.session, &waiter)).await.unwrap();
    let Some(Place::Held(next)) = told else { panic!("only woken: {told:?}") };
    assert!(next > fence);
    assert_eq!(requests(&server, &bob), before);
    assert_eq!(bob.enter(&waiter).await, Place::Held(next), "what was told is what is");
}

#[tokio::test]
async fn a_revoked_waiter_is_not_told_that_it_holds() {
    let server = ZooKeeper::start();
    let [alice, bob] =
        [Actor::open(&server.url(), LONG).await, Actor::open(&server.url(), LONG).await];
    let [hold, waiter] = [claim("k"), claim("k")];
    alice.holds(&hold).await;
    bob.waits(&waiter).await;
    assert!(alice.store.revoke(&waiter.key, &waiter.id).await.unwrap());
    assert_eq!(alice.leave(&hold).await, Left::Released);
    let told = soon("told", bob.store.changed(&bob.session, &waiter)).await.unwrap();
    assert_eq!(told, None);
    assert_eq!(alice.store.inspect(&waiter.key).await.unwrap(), leasehold::Line::default());
}

#[tokio::test]
async fn waiters_watch_their_predecessor_and_are_silent() {
    let server = ZooKeeper::start();
    let mut actors = Vec::new();
    let claims: Vec<_> = (0..6).map(|_| claim("k")).collect();
    for claim in &claims {
        let actor = Actor::open(&server.url(), LONG).await;
        let _place = actor.enter(claim).await;
        actors.push(actor);
    }
    let before: Vec<u64> = actors.iter().map(|actor| requests(&server, actor)).collect();
    let watches = server.ask(0, "wchp");
    let paths: Vec<&str> = watches.lines().filter(|line| line.starts_with('/')).collect();
    assert_eq!(paths.len(), claims.len(), "{watches}");
    // Each node is watched by its own session, and by the next in line.
    let sessions = watches.lines().filter(|line| line.trim_start().starts_with("0x")).count();
    assert_eq!(sessions, 2 * claims.len() - 1, "{watches}");
    // sleep: that nothing is asked can only be waited for.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let after: Vec<u64> = actors.iter().map(|actor| requests(&server, actor)).collect();
    assert_eq!(before, after, "nobody asked anything");
}

#[tokio::test]
async fn a_new_session_does_not_adopt_its_predecessors_node() {
    let server = ZooKeeper::start();
    let [old, new] =
        [Actor::open(&server.url(), LONG).await, Actor::open(&server.url(), LONG).await];
    let claim = claim("k");
    let fence = old.holds(&claim).await;
    assert_eq!(new.leave(&claim).await, Left::Gone, "it is not the new session's to end");
    new.waits(&claim).await;
    old.store.close(&old.session).await.unwrap();
    let place = loop {
        match soon("a change", new.store.changed(&new.session, &claim)).await.unwrap() {
            Some(place) => break place,
            None => match new.enter(&claim).await {
                Place::Waiting(_) => {}
                place => break place,
            },
        }
    };
    let Place::Held(next) = place else { panic!("{place:?}") };
    assert!(next > fence);
}

#[tokio::test]
async fn a_lost_answer_to_a_create_leaves_one_node() {
    let server = ZooKeeper::start();
    let proxy = leasehold_testbed::Proxy::before(server.port(0));
    let url = format!("zookeeper://127.0.0.1:{}", proxy.port());
    let alice = Actor::open(&url, LONG).await;
    for lost in 1..=5 {
        let hold = claim("k");
        // The parent is there, so the first request creates the node; its answer never comes.
        alice.holds(&claim(&format!("k/{lost}"))).await;
        proxy.drop_reply_to(b"-lock-");
        let entering = alice.store.enter(&alice.session, &hold, leasehold::Enter::Wait);
        let error = soon("cut", entering).await.expect_err("the answer is lost");
        assert_eq!(error.effect(), leasehold::Effect::Unknown, "{error}");
        proxy.dropped(lost).await;
        let line = alice.store.inspect(&hold.key).await.unwrap();
        assert_eq!(line.holders.len(), 1, "it is there");
        let fence = alice.holds(&hold).await;
        assert_eq!(Some(fence), line.holders[0].fence);
        let line = alice.store.inspect(&hold.key).await.unwrap();
        assert_eq!((line.holders.len(), line.waiters.len()), (1, 0), "and only once");
        assert_eq!(alice.leave(&hold).await, Left::Released);
    }
}

#[tokio::test]
async fn a_detached_grant_is_renewed_and_released_by_another_process() {
    let server = ZooKeeper::start();
    let ttl = Duration::from_secs(5);
    let first = Client::builder().url(&server.url()).ttl(ttl).detached(true).build().unwrap();
    let guard = first.mutex("k").unwrap().lock().await.unwrap();
    let token = guard.detach().token();
    drop(first);

    // As another process would: with nothing but the token.
    let second = client(&server.url(), ttl);
    let key = "k".parse().unwrap();
    let grant = leasehold::Grant::from_token(key, &token).unwrap();
    let other = client(&server.url(), ttl).mutex("k").unwrap();
    for _ in 0..3 {
        // sleep: time has to pass for the lease to be in need of it.
        tokio::time::sleep(ttl / 2).await;
        let renewed = second.renew(&grant).await.unwrap();
        assert!(other.try_lock().await.unwrap().is_none(), "{renewed:?}");
    }
    assert_eq!(second.release(&grant).await.unwrap(), Released::Held);
    drop(soon("free", other.lock()).await.unwrap());
    assert_eq!(second.release(&grant).await.unwrap(), Released::Lost);
}

#[tokio::test]
async fn fences_grow_when_the_parent_was_deleted_and_its_counter_began_anew() {
    let server = ZooKeeper::options().property("znode.container.checkIntervalMs", "100").start();
    let alice = Actor::open(&server.url(), LONG).await;
    let nodes =
        || server.ask(0, "srvr").lines().find(|l| l.starts_with("Node count")).map(str::to_owned);
    let empty = nodes();
    let mut last = None;
    for _ in 0..3 {
        let hold = claim("deep/down/k");
        let fence = alice.holds(&hold).await;
        assert!(Some(fence) > last, "{fence:?} after {last:?}");
        last = Some(fence);
        let line = server.cli(&["ls /deep/down/k"]);
        assert!(line.contains("-lock-0000000000]"), "the counter began anew: {line}");
        assert_eq!(alice.leave(&hold).await, Left::Released);
        soon("the parents are deleted", async {
            while nodes() != empty {
                // sleep: the server does it in its own time.
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
    }
}

#[tokio::test]
async fn a_ttl_that_the_server_does_not_keep_is_refused_with_its_bounds() {
    let server = ZooKeeper::options().config("maxSessionTimeout", "10000").start();
    let store = leasehold::stores::ZooKeeper::new(&server.url()).unwrap();
    let error = store.open(&terms(Duration::from_secs(30))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("at most 10s"), "{error}");
    // The tick is 200 ms.
    let error = store.open(&terms(Duration::from_millis(900))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("at least 1s"), "{error}");
    store.open(&terms(Duration::from_secs(1))).await.unwrap();
}

#[tokio::test]
async fn what_could_not_be_left_is_left_at_the_next_renewal() {
    let server = ZooKeeper::start();
    let alice = Actor::open(&server.url(), LONG).await;
    let hold = claim("k");
    alice.holds(&hold).await;
    server.kill(0);
    alice.store.leave(&alice.session, &hold).await.expect_err("nobody listens");
    server.start_again(0);
    soon("renewed", async {
        while alice.store.renew(&alice.session, &[]).await.is_err() {
            // sleep: the link comes back in its own time.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let line = alice.store.inspect(&hold.key).await.unwrap();
    assert_eq!(line, leasehold::Line::default(), "the session lives on, and the claim does not");
}
