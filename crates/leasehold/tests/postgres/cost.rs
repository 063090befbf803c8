//! What it costs: round trips, messages, room.

use std::sync::Arc;

use leasehold::core::{Provided, Record};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_postgres::AsyncMessage;

use super::*;

/// A proxy that counts the requests that the server has to answer: `Sync` and `Query` messages.
async fn counting(server: &Server) -> (u16, Arc<AtomicU64>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (port, to) = (listener.local_addr().unwrap().port(), server.port());
    let requests = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&requests);
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = TcpStream::connect(("127.0.0.1", to)).await.unwrap();
            let (mut from_client, mut to_client) = client.into_split();
            let (mut from_server, mut to_server) = server.into_split();
            tokio::spawn(async move { tokio::io::copy(&mut from_server, &mut to_client).await });
            let counted = Arc::clone(&counted);
            tokio::spawn(async move {
                // The first message has no type.
                let mut typed = 0;
                loop {
                    let mut head = vec![0; typed + 4];
                    from_client.read_exact(&mut head).await?;
                    if typed == 1 && matches!(head[0], b'S' | b'Q') {
                        counted.fetch_add(1, Ordering::SeqCst);
                    }
                    let length = u32::from_be_bytes(head[typed..].try_into().unwrap()) as usize - 4;
                    let mut body = vec![0; length];
                    from_client.read_exact(&mut body).await?;
                    to_server.write_all(&head).await?;
                    to_server.write_all(&body).await?;
                    typed = 1;
                }
                #[expect(unreachable_code, reason = "gives the block its type")]
                Ok::<(), std::io::Error>(())
            });
        }
    });
    (port, requests)
}

#[tokio::test]
async fn every_call_is_one_round_trip() {
    let server = Server::start();
    let (port, requests) = counting(&server).await;
    let node = Node::new(&format!("{}?sslmode=disable", server.url_on(port))).await;
    let (held, waiting) = (claim("k"), claim("k"));
    let mut before = requests.load(Ordering::SeqCst);
    let mut one = |what: &str| {
        let now = requests.load(Ordering::SeqCst);
        assert_eq!(now - before, 1, "{what}");
        before = now;
    };
    node.acquire(&held).await;
    one("an uncontended acquire");
    node.leave(&held).await;
    one("its release");
    node.acquire(&held).await;
    one("another acquire");
    node.enter(&waiting).await;
    one("joining the line");
    node.renew(&[held.clone(), waiting.clone()]).await;
    one("a renewal of everything");
    node.leave(&held).await;
    one("a release that hands over");
    let told = node.store.changed(&node.session, &waiting).await.unwrap();
    assert!(matches!(told, Some(Place::Held(_))), "{told:?}");
    node.leave(&waiting).await;
    one("a hand-over costs the one who gets it nothing, and its release");
    let held = claim("k");
    node.acquire(&held).await;
    one("an acquire again");
    let amended = held.amended(Note::new("n").unwrap(), std::num::NonZeroU32::MIN);
    assert!(node.store.amend(&node.session, &amended).await.unwrap());
    one("an amendment");
    let record = Record::new(b"x", TTL).unwrap();
    for provided in [Provided::Unchanged(None), Provided::Held(&node.session, &held)] {
        assert!(node.store.write(&held.key, provided, &record).await.unwrap());
        one("a write");
    }
    assert!(node.store.read(&held.key).await.unwrap().written.is_some());
    one("a read");
    node.leave(&held).await;
    one("and its release");
    node.store.open(&terms(TTL)).await.unwrap();
    one("another session");
    node.store.close(&node.session).await.unwrap();
    one("the end of a session without claims");
}

#[tokio::test]
async fn many_locks_are_one_round_trip() {
    let server = Server::start();
    let (port, requests) = counting(&server).await;
    let url = format!("{}?sslmode=disable", server.url_on(port));
    let client = leasehold::Client::open(&url).unwrap();
    // Connects, and opens the session.
    client.mutex("first").unwrap().lock().await.unwrap().release().await.unwrap();
    let before = requests.load(Ordering::SeqCst);
    let locks = ["c", "a", "b"].map(|key| client.mutex(key).unwrap());
    let guards = client.lock_all(locks).await.unwrap();
    assert_eq!(requests.load(Ordering::SeqCst) - before, 1);
    let again = ["x", "b"].map(|key| client.mutex(key).unwrap());
    assert!(client.try_lock_all(again).await.unwrap().is_none());
    assert_eq!(requests.load(Ordering::SeqCst) - before, 2, "and a refusal is another");
    // More than one transaction locks: one by one.
    let crowd: Vec<_> = (0..300).map(|n| client.mutex(format!("k{n}")).unwrap()).collect();
    assert_eq!(client.lock_all(crowd).await.unwrap().len(), 300);
    assert_eq!(guards.len(), 3);
}

/// NOTIFY takes a lock on the whole server's queue at commit: nobody pays it for nothing.
#[tokio::test]
async fn only_the_next_in_line_is_told_and_only_if_there_is_one() {
    let server = Server::start();
    let (alice, bob) = (Node::new(&server.url()).await, Node::new(&server.url()).await);
    let (listening, mut connection) = tokio_postgres::connect(&server.url(), NoTls).await.unwrap();
    let (heard, mut hear) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some(Ok(message)) =
            std::future::poll_fn(|context| connection.poll_message(context)).await
        {
            if let AsyncMessage::Notification(message) = message {
                heard.send(message.payload().to_owned()).unwrap();
            }
        }
    });
    for channel in server.psql("SELECT channel FROM leasehold.sessions").lines() {
        listening.batch_execute(&format!("LISTEN {channel}")).await.unwrap();
    }
    let mut held = claim("k");
    alice.acquire(&held).await;
    for _ in 0..3 {
        alice.leave(&held).await;
        held = claim("k");
        alice.acquire(&held).await;
    }
    let line: Vec<Claim> = (0..5).map(|_| claim("k")).collect();
    for waiting in &line {
        bob.enter(waiting).await;
    }
    alice.renew(&[held.clone()]).await;
    alice.leave(&held).await;
    bob.leave(&line[3]).await;
    bob.leave(&line[0]).await;
    // In the order of the commits: what comes first was sent first.
    for next in [&line[0], &line[1]] {
        let message = hear.recv().await.unwrap();
        let told = message.split(' ').nth(1).unwrap().replace('-', "");
        assert!(message.starts_with("granted ") && told == next.id.to_hex(), "{message}");
    }
    listening.batch_execute("SELECT 1").await.unwrap();
    assert!(hear.try_recv().is_err(), "nobody else was told");
}

#[tokio::test]
async fn a_renewal_of_ten_thousand_names_the_lost() {
    let server = Server::start();
    let node = Node::new(&server.url()).await;
    let roll: Vec<Claim> = (0..10_000).map(|n| claim(&format!("k{n}"))).collect();
    let places = futures::future::join_all(roll.iter().map(|claim| node.enter(claim))).await;
    assert!(places.iter().all(|place| matches!(place, Place::Held(_))));
    assert_eq!(node.renew(&roll).await, Renewed::Extended { lost: vec![] });
    server.psql("DELETE FROM leasehold.claims WHERE key IN ('k77', 'k9999')");
    let began = std::time::Instant::now();
    let Renewed::Extended { mut lost } = node.renew(&roll).await else { panic!("ended") };
    println!("10,000 claims renewed in {:?}", began.elapsed());
    lost.sort();
    let mut expected = [roll[77].id, roll[9999].id];
    expected.sort();
    assert_eq!(lost, expected);
    // More claims than the server's lock table has room for, in steps.
    node.store.close(&node.session).await.unwrap();
    assert_eq!(server.psql("SELECT count(*) FROM leasehold.claims"), "0");
}

/// Without a vacuum in between, so that what is measured is what the layout does.
#[tokio::test]
async fn twenty_thousand_turns_leave_no_mountain() {
    let server = Server::options().config("autovacuum", "off").start();
    let node = Node::new(&server.url()).await;
    for turn in 0..20_000 {
        let held = claim("hot");
        node.acquire(&held).await;
        if turn % 4 == 0 {
            node.renew(std::slice::from_ref(&held)).await;
        }
        node.leave(&held).await;
    }
    let size = |relation: &str| -> u64 {
        server
            .psql(&format!("SELECT pg_total_relation_size('leasehold.{relation}')"))
            .parse()
            .unwrap()
    };
    println!("claims {} sessions {}", size("claims"), size("sessions"));
    // 5,000 renewals in place: a page and its index.
    assert!(size("sessions") <= 64 << 10, "{}", size("sessions"));
    assert!(size("claims") <= 8 << 20, "{}", size("claims"));
    server.psql("VACUUM leasehold.claims");
    let dead = "SELECT n_dead_tup FROM pg_stat_user_tables WHERE relname = 'claims'";
    assert_eq!(server.psql(dead), "0");
}
