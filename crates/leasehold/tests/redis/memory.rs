//! Fences grow whatever happens to the server's data, and no hold outlasts its TTL.

use std::time::Duration;

use leasehold::core::{Left, Provided, Record, Version};
use leasehold::{ErrorKind, Store};

use crate::server::Server;
use crate::{Node, TTL, claim, share, soon};

const SHORT: Duration = Duration::from_millis(200);

#[tokio::test]
async fn fences_grow_through_release_expiry_deletion_and_a_flush() {
    let server = Server::start();
    let (node, short) =
        (Node::new(&server.url()).await, Node::with_ttl(&server.url(), SHORT).await);
    let mut raw = server.raw();
    let (released, lapsed, deleted, flushed, last) =
        (claim("job"), claim("job"), claim("job"), claim("job"), claim("job"));

    let mut fences = vec![node.acquire(&released).await];
    assert_eq!(node.leave(&released).await, Left::Released);
    fences.push(short.acquire(&lapsed).await);
    fences.push(soon(node.wait(&deleted)).await);
    let _: i64 = raw.run(&["DEL", "job"]);
    fences.push(node.acquire(&flushed).await);
    let _: String = raw.run(&["FLUSHALL"]);
    fences.push(node.acquire(&last).await);
    assert!(fences.is_sorted_by(|a, b| a < b), "{fences:?}");
}

#[tokio::test]
async fn fences_grow_through_a_restart_that_forgets_everything() {
    let mut server = Server::start();
    let node = Node::new(&server.url()).await;
    let before = node.acquire(&claim("job")).await;
    server.stop();
    server.start_again();
    let after = claim("job");
    let granted = soon(async {
        loop {
            let entered =
                node.store.enter(&node.session, &after, leasehold::core::Enter::Wait).await;
            match entered {
                Ok(place) => return crate::fence(&place),
                Err(error) => assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}"),
            }
        }
    });
    assert!(granted.await > before);
}

#[tokio::test]
async fn fences_grow_when_the_clock_was_set_back() {
    let server = Server::start();
    let node = Node::new(&server.url()).await;
    let mut raw = server.raw();
    let held = claim("job");
    node.acquire(&held).await;
    node.leave(&held).await;
    // As if the last grant had been made when the clock was three hours ahead.
    let meta_key = raw.only_key("leasehold:{*}:meta:job");
    let meta: String = raw.run(&["GET", &meta_key]);
    let mut fields: Vec<String> = meta.splitn(3, ' ').map(ToOwned::to_owned).collect();
    let ahead = fields[1].parse::<u64>().unwrap() + 3 * 3_600_000_000;
    fields[1] = ahead.to_string();
    let _: String = raw.run(&["SET", &meta_key, &fields.join(" ")]);

    let (first, second) = (claim("job"), claim("job"));
    assert_eq!(node.acquire(&first).await.get(), ahead + 1);
    assert!(node.extends(&first).await);
    let kept: i64 = raw.run(&["PTTL", &meta_key]);
    assert!(kept > 3 * 3_600_000, "the memory lasts until the clock has caught up: {kept}");
    node.leave(&first).await;
    assert_eq!(node.acquire(&second).await.get(), ahead + 2);
}

#[tokio::test]
async fn the_memory_of_a_fence_outlives_the_hold_by_an_hour_and_then_goes() {
    let server = Server::start();
    let day = Node::with_ttl(&server.url(), Duration::from_hours(24)).await;
    let mut raw = server.raw();
    let held = claim("job");
    day.acquire(&held).await;
    let meta_key = raw.only_key("leasehold:{*}:meta:job");
    for _ in 0..2 {
        let (lease, memory): (i64, i64) =
            (raw.run(&["PTTL", "job"]), raw.run(&["PTTL", &meta_key]));
        assert!((3_590_000..=3_610_000).contains(&(memory - lease)), "{memory} - {lease}");
        // Each renewal makes the memory last again.
        let _: i64 = raw.run(&["PEXPIRE", &meta_key, "500000"]);
        assert!(day.extends(&held).await);
    }
    let waiting = claim("job");
    day.enter(&waiting).await;
    for kind in ["line", "wait"] {
        let name = raw.only_key(&format!("leasehold:{{*}}:{kind}:job"));
        assert!(raw.run::<i64>(&["PTTL", &name]) > 0, "{kind} is immortal");
    }
}

#[tokio::test]
async fn a_line_lasts_as_long_as_its_most_patient_waiter() {
    let server = Server::start();
    let (patient, hasty) = (
        Node::with_ttl(&server.url(), Duration::from_hours(1)).await,
        Node::with_ttl(&server.url(), SHORT).await,
    );
    let mut raw = server.raw();
    patient.acquire(&claim("job")).await;
    patient.enter(&claim("job")).await;
    hasty.enter(&claim("job")).await;
    for kind in ["line", "wait"] {
        let name = raw.only_key(&format!("leasehold:{{*}}:{kind}:job"));
        assert!(raw.run::<i64>(&["PTTL", &name]) > 3_600_000, "{kind}");
    }
}

#[tokio::test]
async fn a_hold_that_a_step_of_the_clock_prolonged_is_clamped_by_whoever_looks() {
    let server = Server::start();
    let short = Node::with_ttl(&server.url(), SHORT).await;
    let node = Node::new(&server.url()).await;
    let mut raw = server.raw();
    for stretch in [&["PEXPIRE", "job", "86400000"][..], &["PERSIST", "job"]] {
        let (held, waiting) = (claim("job"), claim("job"));
        short.acquire(&held).await;
        let _: i64 = raw.run(stretch);
        assert!(short.extends(&held).await);
        assert!(raw.run::<i64>(&["PTTL", "job"]) <= 200, "its own renewal clamps");
        // The holder is dead: it does not renew any more.
        let _: i64 = raw.run(stretch);
        soon(node.wait(&waiting)).await;
        node.leave(&waiting).await;
    }
}

#[tokio::test]
async fn a_waiter_from_before_a_step_back_of_the_clock_counts_as_dead_until_it_beats() {
    let server = Server::start();
    let node = Node::new(&server.url()).await;
    let mut raw = server.raw();
    let (held, ahead, behind) = (claim("job"), claim("job"), claim("job"));
    node.acquire(&held).await;
    node.enter(&ahead).await;
    node.enter(&behind).await;
    let wait_key = raw.only_key("leasehold:{*}:wait:job");
    let entry: String = raw.run(&["HGET", &wait_key, &ahead.id.to_hex()]);
    let (expiry, rest) = entry.split_once(' ').unwrap();
    let later = format!("{} {rest}", expiry.parse::<u64>().unwrap() + 3_600_000);
    let _: i64 = raw.run(&["HSET", &wait_key, &ahead.id.to_hex(), &later]);
    node.leave(&held).await;
    assert!(soon(node.changed(&behind)).await.is_some());
    assert!(raw.run::<i64>(&["PTTL", "job"]) <= 30_000);
}

#[tokio::test]
async fn data_that_are_not_ours_are_reported_and_nothing_is_granted_over_them() {
    let server = Server::start();
    let node = Node::new(&server.url()).await;
    let mut raw = server.raw();
    let held = claim("job");
    node.acquire(&held).await;
    node.leave(&held).await;
    let meta_key = raw.only_key("leasehold:{*}:meta:job");
    let spoils: [&[&str]; 4] = [
        &["SET", &meta_key, "nonsense"],
        &["SET", &meta_key, "2 17 the layout of a later version"],
        &["SET", &meta_key, "1 99999999999999999999 1 1 ab ab 0 "],
        &["HSET", &meta_key, "a", "b"],
    ];
    for spoil in spoils {
        let _: i64 = raw.run(&["DEL", &meta_key]);
        let _: redis::Value = raw.run(spoil);
        let entered =
            node.store.enter(&node.session, &claim("job"), leasehold::core::Enter::Try).await;
        assert_eq!(entered.unwrap_err().kind(), ErrorKind::Corrupt, "{spoil:?}");
        assert_eq!(raw.run::<i64>(&["EXISTS", "job"]), 0, "{spoil:?}");
    }
}

#[tokio::test]
async fn nothing_that_is_kept_of_shares_and_records_is_immortal() {
    let server = Server::start();
    let day = Node::with_ttl(&server.url(), Duration::from_hours(24)).await;
    let node = Node::new(&server.url()).await;
    let mut raw = server.raw();
    let (long, brief, waiting) = (share("job", 1, 3), share("job", 1, 3), share("job", 3, 3));
    day.acquire(&long).await;
    node.acquire(&brief).await;
    node.enter(&waiting).await;
    assert!(node.extends(&brief).await && node.extends(&waiting).await);
    let record = Record::new(b"kept", TTL).unwrap();
    assert!(node.store.write(&long.key, Provided::Unchanged(None), &record).await.unwrap());
    let names: Vec<String> = raw.run(&["KEYS", "*"]);
    assert_eq!(names.len(), 7, "{names:?}");
    for name in &names {
        assert!(raw.run::<i64>(&["PTTL", name]) > 0, "{name} is immortal");
    }
    let [lease, memory, line, hold] =
        ["job", "*:meta:job", "*:line:job", "*:hold:job"].map(|name| {
            let name = raw.only_key(name);
            raw.run::<i64>(&["PTTL", &name])
        });
    // Also after a shorter hold was granted and renewed.
    assert!((3_590_000..=3_610_000).contains(&(memory - lease)), "{memory} - {lease}");
    assert!(line > lease && hold >= lease - 10, "{line}, {hold}, {lease}");
    let [record, version] = ["*:record:job", "*:version:job"].map(|name| {
        let name = raw.only_key(name);
        raw.run::<i64>(&["PTTL", &name])
    });
    assert!((3_590_000..=3_610_000).contains(&(version - record)), "{version} - {record}");
    // And of what was left only the memories stay.
    for (of, claim) in [(&day, &long), (&node, &brief), (&node, &waiting)] {
        of.leave(claim).await;
    }
    let names: Vec<String> = raw.run(&["KEYS", "*"]);
    assert_eq!(names.len(), 3, "{names:?}");
}

#[tokio::test]
async fn fences_of_shares_grow_when_the_clock_was_set_back_and_through_a_flush() {
    let server = Server::start();
    let node = Node::new(&server.url()).await;
    let mut raw = server.raw();
    let crowd: Vec<_> = (0..4).map(|_| share("job", 1, 9)).collect();
    node.acquire(&crowd[0]).await;
    let meta_key = raw.only_key("leasehold:{*}:meta:job");
    let meta: String = raw.run(&["GET", &meta_key]);
    let mut fields: Vec<String> = meta.splitn(3, ' ').map(ToOwned::to_owned).collect();
    let ahead = fields[1].parse::<u64>().unwrap() + 3 * 3_600_000_000;
    fields[1] = ahead.to_string();
    let _: String = raw.run(&["SET", &meta_key, &fields.join(" ")]);
    assert_eq!(node.acquire(&crowd[1]).await.get(), ahead + 1);
    let last = node.acquire(&crowd[2]).await;
    assert_eq!(last.get(), ahead + 2);
    assert!(node.extends(&crowd[2]).await);
    let kept: i64 = raw.run(&["PTTL", &meta_key]);
    assert!(kept > 3 * 3_600_000, "the memory lasts until the clock has caught up: {kept}");
    assert_eq!(node.acquire(&crowd[2]).await, last, "asking again gives the same fence");
    let _: String = raw.run(&["FLUSHALL"]);
    assert!(node.acquire(&crowd[3]).await.get() > ahead - 3 * 3_600_000_000);
}

#[tokio::test]
async fn versions_grow_when_the_clock_was_set_back_and_the_record_is_gone() {
    let server = Server::start();
    let node = Node::new(&server.url()).await;
    let mut raw = server.raw();
    let (key, record) = (claim("job").key, Record::new(b"\0 1 2", TTL).unwrap());
    let write = async |version: Option<u64>| {
        let version = Provided::Unchanged(version.map(Version::new));
        assert!(node.store.write(&key, version, &record).await.unwrap());
        node.store.read(&key).await.unwrap().written.unwrap().version.get()
    };
    let first = write(None).await;
    // As if it had been written when the clock was three hours ahead.
    let ahead = first + 3 * 3_600_000_000;
    let (record_key, version_key) =
        (raw.only_key("leasehold:{*}:record:job"), raw.only_key("leasehold:{*}:version:job"));
    let _: String = raw.run(&["SET", &version_key, &ahead.to_string()]);
    let _: i64 = raw.run(&["DEL", &record_key]);
    assert_eq!(write(None).await, ahead + 1);
    let kept: i64 = raw.run(&["PTTL", &version_key]);
    assert!(kept > 3 * 3_600_000, "the memory lasts until the clock has caught up: {kept}");
    assert_eq!(write(Some(ahead + 1)).await, ahead + 2);
    let huge = Provided::Unchanged(Some(Version::new(u64::MAX)));
    assert!(!node.store.write(&key, huge, &record).await.unwrap());
}

#[tokio::test]
async fn records_that_are_not_ours_are_reported_and_not_overwritten() {
    let server = Server::start();
    let node = Node::new(&server.url()).await;
    let mut raw = server.raw();
    let (key, record) = (claim("job").key, Record::new(b"x", TTL).unwrap());
    assert!(node.store.write(&key, Provided::Unchanged(None), &record).await.unwrap());
    let version = node.store.read(&key).await.unwrap().written.map(|written| written.version);
    let (record_key, version_key) =
        (raw.only_key("leasehold:{*}:record:job"), raw.only_key("leasehold:{*}:version:job"));
    for spoil in ["nonsense", "12345678901234567", "99999999999999999999"] {
        let _: String = raw.run(&["SET", &version_key, spoil]);
        let error = node.store.write(&key, Provided::Unchanged(version), &record).await;
        assert_eq!(error.unwrap_err().kind(), ErrorKind::Corrupt, "{spoil}");
    }
    for spoil in [
        &["SET", &record_key, "short"][..],
        &["SET", &record_key, "sixteen of no use"],
        &["HSET", &record_key, "a", "b"],
    ] {
        let _: i64 = raw.run(&["DEL", &record_key]);
        let _: redis::Value = raw.run(spoil);
        assert_eq!(
            node.store.read(&key).await.unwrap_err().kind(),
            ErrorKind::Corrupt,
            "{spoil:?}"
        );
        let written = node.store.write(&key, Provided::Unchanged(None), &record).await;
        assert!(!matches!(written, Ok(true)), "{spoil:?}");
    }
}
