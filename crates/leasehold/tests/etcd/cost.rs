//! What an operation costs, counted by the server.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::num::NonZeroU32;

use leasehold::core::{Note, Place, Provided, Record, Renewed};
use leasehold_testbed::Etcd;

use super::{Node, claim, key, share, soon};

/// What the server counts.
fn metrics(etcd: &Etcd) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", etcd.ports()[0])).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

/// How often each procedure that touches keys was called since the server started.
fn calls(etcd: &Etcd) -> Vec<(String, u64)> {
    let text = metrics(etcd);
    let label = |line: &str, name: &str| {
        let value = line.split(&format!("{name}=\"")).nth(1)?;
        value.split('"').next().map(ToOwned::to_owned)
    };
    let counted = text.lines().filter(|line| line.starts_with("grpc_server_started_total"));
    let calls = counted.filter_map(|line| {
        let count: f64 = line.rsplit_once(' ')?.1.parse().ok()?;
        let service = label(line, "grpc_service")?;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a counter")]
        let count = count as u64;
        let keys = service == "etcdserverpb.KV" || service == "etcdserverpb.Lease";
        (keys && count > 0).then_some((label(line, "grpc_method")?, count))
    });
    calls.collect()
}

/// How often each was called during `work`.
async fn cost(etcd: &Etcd, work: impl Future<Output = ()>) -> Vec<(String, u64)> {
    let before = calls(etcd);
    work.await;
    let count = |name: &str| before.iter().find(|(n, _)| n == name).map_or(0, |(_, count)| *count);
    let mut cost: Vec<_> = calls(etcd)
        .into_iter()
        .map(|(name, after)| (name.clone(), after - count(&name)))
        .filter(|(_, calls)| *calls > 0)
        .collect();
    cost.sort();
    cost
}

fn calls_of(expected: &[(&str, u64)]) -> Vec<(String, u64)> {
    expected.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
}

#[tokio::test]
async fn an_uncontended_pair_is_two_requests_and_two_commits() {
    let etcd = Etcd::start();
    let node = Node::new(&etcd.url()).await;
    let before = etcd.revision();
    let spent = cost(&etcd, async {
        for _ in 0..10 {
            let hold = claim("k");
            node.acquire(&hold).await;
            node.leave(&hold).await;
        }
    })
    .await;
    assert_eq!(spent, calls_of(&[("DeleteRange", 10), ("Txn", 10)]));
    assert_eq!(etcd.revision() - before, 20);
}

/// A grant outlives a loss of power, because the server's log is on the disk before the answer.
#[tokio::test]
async fn a_grant_is_synced_before_it_is_answered() {
    const GRANTS: u64 = 10;
    let etcd = Etcd::options().arg("--unsafe-no-fsync=false").start();
    let node = Node::new(&etcd.url()).await;
    let synced = || -> u64 {
        let text = metrics(&etcd);
        let name = "etcd_disk_wal_fsync_duration_seconds_count ";
        let line = text.lines().find_map(|line| line.strip_prefix(name)).expect("it is counted");
        line.trim().parse().expect("a number")
    };
    for number in 0..GRANTS {
        let before = synced();
        node.acquire(&claim(&format!("k/{number}"))).await;
        assert!(synced() > before, "the log was synced");
    }
}

#[tokio::test]
async fn a_refused_try_writes_nothing() {
    let etcd = Etcd::start();
    let node = Node::new(&etcd.url()).await;
    node.acquire(&claim("k")).await;
    node.acquire(&share("s", 1, 2)).await;
    node.acquire(&share("s", 1, 2)).await;
    // The second one's grant is written down a moment later.
    soon(async {
        let unmarked = |party: &leasehold::Party| party.fence.is_none();
        while node.store.inspect(&key("s")).await.unwrap().holders.iter().any(unmarked) {}
    })
    .await;
    let before = etcd.revision();
    for _ in 0..5 {
        assert!(matches!(node.attempt(&claim("k")).await, Place::Refused(_)));
        assert!(matches!(node.attempt(&share("s", 1, 2)).await, Place::Refused(_)));
    }
    assert_eq!(etcd.revision(), before);
}

/// Between the release and the grant of the next in line there is no request: the message is the
/// grant. What comes after it is the mark, one write.
#[tokio::test]
async fn a_hand_over_asks_for_nothing() {
    let etcd = Etcd::start();
    let [alice, bob] = [Node::new(&etcd.url()).await, Node::new(&etcd.url()).await];
    let [hold, waiter] = [claim("k"), claim("k")];
    alice.acquire(&hold).await;
    assert!(matches!(bob.enter(&waiter).await, Place::Waiting(_)));
    let spent = cost(&etcd, async {
        alice.leave(&hold).await;
        assert!(matches!(bob.told(&waiter).await, Some(Place::Held(_))));
    })
    .await;
    let mark = spent.iter().filter(|(name, _)| name == "Txn").map(|(_, count)| *count).sum::<u64>();
    assert!(mark <= 1, "{spent:?}");
    let others: Vec<_> = spent.into_iter().filter(|(name, _)| name != "Txn").collect();
    assert_eq!(others, calls_of(&[("DeleteRange", 1)]));
}

/// Waiting costs a watch and nothing else, and a renewal two requests, for however many claims.
#[tokio::test]
async fn waiting_costs_nothing_and_a_renewal_two_requests() {
    let etcd = Etcd::start();
    let [alice, bob] = [Node::new(&etcd.url()).await, Node::new(&etcd.url()).await];
    let mut claims: Vec<_> = (0..20).map(|n| claim(&format!("k{n}"))).collect();
    for hold in &claims {
        alice.acquire(hold).await;
    }
    let waiter = claim("k0");
    assert!(matches!(bob.enter(&waiter).await, Place::Waiting(_)));
    let waiting = tokio::time::timeout(
        std::time::Duration::from_secs(2),
        bob.store.changed(&bob.session, &waiter),
    );
    let spent = cost(&etcd, async { assert!(waiting.await.is_err(), "nothing changed") }).await;
    assert_eq!(spent, calls_of(&[]));
    claims.truncate(15);
    let spent = cost(&etcd, async {
        alice.store.renew(&alice.session, &claims).await.unwrap();
    })
    .await;
    assert_eq!(spent, calls_of(&[("LeaseKeepAlive", 1), ("Txn", 1)]));
}

/// A long roll is not called at each renewal, but a claim that was revoked is told at the next
/// one, and one that was deleted by hand at the third.
#[tokio::test]
async fn what_is_gone_of_a_long_roll_is_told() {
    let etcd = Etcd::start();
    let node = Node::new(&etcd.url()).await;
    let claims: Vec<_> = (0..1001).map(|n| claim(&format!("k{n}"))).collect();
    for chunk in claims.chunks(50) {
        futures::future::join_all(chunk.iter().map(|hold| node.acquire(hold))).await;
    }
    let renew = async || match node.store.renew(&node.session, &claims).await.unwrap() {
        Renewed::Extended { lost } => lost,
        Renewed::Ended => panic!("the session ended"),
    };
    let [revoked, deleted] = [&claims[7], &claims[8]];
    assert!(node.store.revoke(&revoked.key, &revoked.id).await.unwrap());
    assert_eq!(renew().await, vec![revoked.id]);
    let own = format!("{}/{}-{}", deleted.key, node.session.as_str(), deleted.id.to_hex());
    assert_eq!(etcd.ctl_says(&["del", &own]), "1");
    let told = [renew().await, renew().await, renew().await].concat();
    assert!(told.contains(&deleted.id));
}

/// A record costs one request, once there is a lease for it; under a hold, one round trip more.
#[tokio::test]
async fn records_and_amendments_cost_few_requests() {
    let etcd = Etcd::start();
    let node = Node::new(&etcd.url()).await;
    let spent = cost(&etcd, async { assert!(node.write("r", None, "0").await) }).await;
    assert_eq!(spent, calls_of(&[("LeaseGrant", 1), ("Txn", 1)]));
    let before = etcd.revision();
    let spent = cost(&etcd, async {
        for n in 1..=10 {
            let version = node.read("r").await.expect("written").version;
            assert!(node.write("r", Some(version), &n.to_string()).await);
        }
    })
    .await;
    assert_eq!(spent, calls_of(&[("Range", 10), ("Txn", 10)]));
    assert_eq!(etcd.revision() - before, 10);

    let hold = claim("k");
    node.acquire(&hold).await;
    let day = std::time::Duration::from_hours(24);
    let record = Record::new(b"under a hold", day).unwrap();
    let spent = cost(&etcd, async {
        let under = Provided::Held(&node.session, &hold);
        assert!(node.store.write(&hold.key, under, &record).await.unwrap());
    })
    .await;
    assert_eq!(spent, calls_of(&[("Range", 2), ("Txn", 1)]));

    // Another note wakes nobody, not even one who waits for units.
    let large = share("s", 2, 2);
    node.acquire(&large).await;
    let waiter = share("s", 1, 2);
    assert!(matches!(node.enter(&waiter).await, Place::Waiting(_)));
    let noted = large.amended(Note::new("busy").unwrap(), NonZeroU32::MAX);
    let changed = node.store.changed(&node.session, &waiter);
    let spent = cost(&etcd, async {
        assert!(node.store.amend(&node.session, &noted).await.unwrap());
        let woken = tokio::time::timeout(std::time::Duration::from_secs(2), changed).await;
        assert!(woken.is_err(), "nothing changed for it");
    })
    .await;
    assert_eq!(spent, calls_of(&[("Range", 1), ("Txn", 1)]));
}

/// Free keys are one request, however many; beside others, whose lines have to be looked at, two.
#[tokio::test]
async fn many_locks_are_one_request_and_beside_others_two() {
    let etcd = Etcd::start();
    let [client, other] = [(); 2].map(|()| leasehold::Client::open(&etcd.url()).unwrap());
    for client in [&client, &other] {
        client.mutex("first").unwrap().lock().await.unwrap().release().await.unwrap();
    }
    let before = etcd.revision();
    let locks: Vec<_> = (0..100).map(|n| client.mutex(format!("k{n}")).unwrap()).collect();
    let mut all = Vec::new();
    let spent = cost(&etcd, async { all = client.lock_all(locks).await.unwrap() }).await;
    assert_eq!(spent, calls_of(&[("Txn", 1)]));
    assert_eq!((all.len(), etcd.revision() - before), (100, 1));

    let readers = |client: &leasehold::Client| {
        ["r", "s"].map(|key| client.rwlock(key).unwrap().reader().clone())
    };
    let _read = other.lock_all(readers(&other)).await.unwrap();
    let before = etcd.revision();
    let [read, _] = readers(&client);
    let locks = [read, client.mutex("t").unwrap()];
    let mut both = Vec::new();
    let spent = cost(&etcd, async { both = client.lock_all(locks).await.unwrap() }).await;
    assert_eq!(both.len(), 2);
    assert_eq!(spent, calls_of(&[("Txn", 2)]));
    assert_eq!(etcd.revision() - before, 1);

    let before = etcd.revision();
    let tried = ["free", "k7"].map(|key| other.mutex(key).unwrap());
    assert!(other.try_lock_all(tried).await.unwrap().is_none());
    assert_eq!(etcd.revision(), before, "a refused try writes nothing");
}
