//! The verbatim layout: who uses the ecosystem's recipes on the same name is excluded, and excludes.

use leasehold::Store;
use leasehold::core::{Key, Left, Provided, Record, Renewed};

use crate::server::Server;
use crate::{Node, TTL, claim, foreign, share, soon};

const THEIR_RELEASE: &str = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) else return 0 end";

#[tokio::test]
async fn a_hold_of_ours_refuses_theirs_and_is_not_ended_by_their_release() {
    let server = Server::start();
    let (node, mut raw) = (Node::new(&server.url()).await, server.raw());
    let held = claim("job");
    node.acquire(&held).await;

    let theirs: Option<String> = raw.run(&["SET", "job", "their-token", "NX", "PX", "1000"]);
    assert_eq!(theirs, None);
    assert_eq!(raw.script(THEIR_RELEASE, "job", "their-token"), 0);
    assert_eq!(raw.run::<String>(&["GET", "job"]), held.id.to_hex());
    let left: i64 = raw.run(&["PTTL", "job"]);
    assert!((29_000..=30_000).contains(&left), "{left}");
    assert!(node.extends(&held).await);

    assert_eq!(node.leave(&held).await, Left::Released);
    let theirs: Option<String> = raw.run(&["SET", "job", "their-token", "NX", "PX", "1000"]);
    assert_eq!(theirs.as_deref(), Some("OK"));
}

#[tokio::test]
async fn shares_of_ours_refuse_theirs_until_the_last_of_them_ends() {
    let server = Server::start();
    let (node, mut raw) = (Node::new(&server.url()).await, server.raw());
    let [first, second] = [share("job", 1, 3), share("job", 1, 3)];
    let mut theirs = |expected: Option<&str>| {
        let set: Option<String> = raw.run(&["SET", "job", "their-token", "NX", "PX", "60000"]);
        assert_eq!(set.as_deref(), expected);
        let ended = raw.script(THEIR_RELEASE, "job", "their-token");
        assert_eq!(ended, i64::from(expected.is_some()));
    };
    node.acquire(&first).await;
    theirs(None);
    node.acquire(&second).await;
    assert_eq!(node.leave(&first).await, Left::Released);
    theirs(None);
    assert!(node.extends(&second).await);
    assert_eq!(node.leave(&second).await, Left::Released);
    theirs(Some("OK"));
}

#[tokio::test]
async fn a_hold_of_theirs_counts_as_all_of_the_limit() {
    let server = Server::start();
    let (node, mut raw) = (Node::new(&server.url()).await, server.raw());
    let _: String = raw.run(&["SET", "job", "their-token"]);
    let [first, second] = [share("job", 1, 3), share("job", 1, 3)];
    assert!(foreign(&node.attempt(&share("job", 1, 3)).await));
    assert!(foreign(&node.enter(&first).await));
    assert!(foreign(&node.enter(&second).await));
    assert!(node.extends(&first).await, "waiting");
    let line = node.store.inspect(&first.key).await.unwrap();
    assert_eq!((line.holders[0].claim, line.waiters.len()), (None, 2));
    assert_eq!(raw.script(THEIR_RELEASE, "job", "their-token"), 1);
    soon(node.wait(&first)).await;
    assert!(soon(node.changed(&second)).await.is_some(), "both were granted by one look");
}

#[tokio::test]
async fn a_hold_of_theirs_refuses_ours_whatever_its_type_and_without_a_ttl() {
    let server = Server::start();
    let (node, mut raw) = (Node::new(&server.url()).await, server.raw());
    let made: [&[&str]; 6] = [
        &["SET", "job", "their-token", "PX", "60000"],
        &["SET", "job", "their-token"],
        &["HSET", "job", "uuid:1", "1"],
        &["RPUSH", "job", "x"],
        &["SADD", "job", "x"],
        &["SET", "job", "\u{1}\u{2}binary"],
    ];
    for make in made {
        let _: redis::Value = raw.run(make);
        let before: Vec<u8> = raw.run(&["DUMP", "job"]);
        let (tried, waiting) = (claim("job"), claim("job"));
        let refused = node.attempt(&tried).await;
        assert!(foreign(&refused), "{make:?}");
        assert!(foreign(&node.enter(&waiting).await), "{make:?}");
        assert!(node.extends(&waiting).await, "{make:?}");
        let line = node.store.inspect(&waiting.key).await.unwrap();
        assert_eq!((line.holders[0].claim, line.waiters.len()), (None, 1), "{make:?}");
        assert_eq!(line.holders[0].left.is_some(), make.contains(&"PX"), "{make:?}");
        assert_eq!(node.leave(&tried).await, Left::Gone, "{make:?}");
        assert_eq!(node.leave(&waiting).await, Left::Withdrawn, "{make:?}");
        assert_eq!(raw.run::<Vec<u8>>(&["DUMP", "job"]), before, "{make:?}: it was touched");
        let _: i64 = raw.run(&["DEL", "job"]);
    }
}

#[tokio::test]
async fn a_waiter_notices_that_a_stranger_released_or_lapsed() {
    let server = Server::start();
    let (node, mut raw) = (Node::new(&server.url()).await, server.raw());
    for ttl in [&[][..], &["PX", "60000"], &["PX", "300"]] {
        let _: String = raw.run(&[&["SET", "job", "their-token"], ttl].concat());
        let waiting = claim("job");
        assert!(foreign(&node.enter(&waiting).await));
        if !ttl.contains(&"300") {
            assert_eq!(raw.script(THEIR_RELEASE, "job", "their-token"), 1);
        }
        // As a session does: it sleeps first, and asks when it may have changed.
        soon(node.changed(&waiting)).await;
        soon(node.wait(&waiting)).await;
        node.leave(&waiting).await;
    }
}

#[tokio::test]
async fn only_the_first_in_line_asks_again_and_again_for_a_key_of_a_stranger() {
    let server = Server::start();
    let (node, mut raw) = (Node::new(&server.url()).await, server.raw());
    let _: String = raw.run(&["SET", "job", "their-token"]);
    let (first, second) = (claim("job"), claim("job"));
    node.enter(&first).await;
    node.enter(&second).await;
    tokio::select! {
        place = node.changed(&first) => assert_eq!(place, None),
        _ = node.changed(&second) => panic!("the second polls too"),
    }
}

#[tokio::test]
async fn when_a_stranger_released_the_line_comes_before_who_comes_by() {
    let server = Server::start();
    let (node, mut raw) = (Node::new(&server.url()).await, server.raw());
    let _: String = raw.run(&["SET", "job", "their-token"]);
    let (first, passing) = (claim("job"), claim("job"));
    node.enter(&first).await;
    let _: i64 = raw.run(&["DEL", "job"]);
    let refused = node.attempt(&passing).await;
    assert!(!foreign(&refused), "the first in line was granted: {refused:?}");
    assert!(soon(node.changed(&first)).await.is_some(), "and told");
    assert_eq!(node.leave(&first).await, Left::Released);
}

#[tokio::test]
async fn a_hold_taken_over_by_a_stranger_is_lost_and_theirs_is_left_alone() {
    let server = Server::start();
    let (node, mut raw) = (Node::new(&server.url()).await, server.raw());
    let held = claim("job");
    node.acquire(&held).await;
    let _: String = raw.run(&["SET", "job", "their-token", "PX", "60000"]);
    assert_eq!(node.renew(&held).await, Renewed::Extended { lost: vec![held.id] });
    assert_eq!(node.leave(&held).await, Left::Gone);
    assert!(!node.store.revoke(&held.key, &held.id).await.unwrap());
    assert_eq!(raw.run::<String>(&["GET", "job"]), "their-token");
}

#[tokio::test]
async fn break_never_deletes_data_of_an_application() {
    let server = Server::start();
    let (node, mut raw) = (Node::new(&server.url()).await, server.raw());
    // A value that happens to be a claim id, at a key that no claim was ever granted.
    let other = claim("data");
    let _: String = raw.run(&["SET", "data", &other.id.to_hex()]);
    let key = Key::new("data").unwrap();
    assert!(!node.store.revoke(&key, &other.id).await.unwrap());
    assert_eq!(raw.run::<String>(&["GET", "data"]), other.id.to_hex());
}

#[tokio::test]
async fn hostile_keys_stay_in_one_slot_and_apart() {
    let server = Server::with(&["--cluster-enabled", "yes"]);
    let plain = Server::start();
    let (node, mut raw, mut slots) = (Node::new(&plain.url()).await, plain.raw(), server.raw());
    let keys = [
        "k",
        "a}b",
        "{}x",
        "{u}:1",
        "{u}:2",
        "a{b}c{d}e",
        "{{a}}",
        "}{",
        "a b",
        "a\nb",
        "*?[x]\\",
        "*",
        "**",
        "}:line:k",
        "k:line:k",
        "ключ",
        "leasehold:",
        "leasehold:wake:x",
        "{",
        "}",
        "{}",
    ];
    let mut held = Vec::new();
    for key in keys {
        let (holder, waiter) = (share(key, 2, 2), share(key, 2, 2));
        node.acquire(&holder).await;
        node.enter(&waiter).await;
        let under = Provided::Held(&node.session, &holder);
        let record = Record::new(key.as_bytes(), TTL).unwrap();
        assert!(node.store.write(&holder.key, under, &record).await.unwrap(), "{key:?}");
        held.push((holder, waiter));
    }
    let beside: Vec<String> = raw.run(&["KEYS", "leasehold:{*"]);
    assert_eq!(beside.len(), keys.len() * 6);
    for key in keys {
        let slot: u16 = slots.run(&["CLUSTER", "KEYSLOT", key]);
        for kind in ["meta", "line", "wait", "hold", "record", "version"] {
            let end = format!("}}:{kind}:{key}");
            let same_slot = beside
                .iter()
                .filter(|name| name.ends_with(&end))
                .filter(|name| slots.run::<u16>(&["CLUSTER", "KEYSLOT", name]) == slot);
            assert!(same_slot.count() >= 1, "{key:?} {kind}");
        }
    }
    let mut listed = keys.map(|key| Key::new(key).unwrap()).to_vec();
    listed.sort();
    assert_eq!(node.store.keys("").await.unwrap(), listed);
    for key in &listed {
        assert!(node.store.keys(key.as_str()).await.unwrap().contains(key), "{key:?}");
    }
    let starred: Vec<_> =
        listed.iter().filter(|key| key.as_str().starts_with('*')).cloned().collect();
    assert_eq!(node.store.keys("*").await.unwrap(), starred);
    for (holder, waiter) in held {
        let written = node.store.read(&holder.key).await.unwrap().written.unwrap();
        assert_eq!(&*written.value, holder.key.as_str().as_bytes());
        assert_eq!(node.leave(&waiter).await, Left::Withdrawn);
        assert_eq!(node.leave(&holder).await, Left::Released);
    }
    assert_eq!(node.store.keys("").await.unwrap(), []);
}
