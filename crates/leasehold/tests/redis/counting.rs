//! Limits above 1: several hold at once, each with a lease of its own, and the key is held for all
//! who do not know of it.

use std::time::Duration;

use leasehold::core::{ClaimId, Enter, Left, Note, Place, Provided, Record, Renewed};
use leasehold::{ErrorKind, Store};

use crate::server::{Raw, Server};
use crate::{Node, TTL, claim, fence, foreign, rank, share, soon};

const SHORT: Duration = Duration::from_millis(400);
const ALL: u32 = u32::MAX;

fn reader() -> leasehold::core::Claim {
    share("job", 1, ALL)
}

fn writer() -> leasehold::core::Claim {
    share("job", ALL, ALL)
}

fn left(raw: &mut Raw, key: &str) -> i64 {
    raw.run(&["PTTL", key])
}

/// Waits until the server's clock has passed what `claim` has left.
async fn lapsed(node: &Node, claim: &leasehold::core::Claim) {
    soon(async {
        loop {
            let line = node.store.inspect(&claim.key).await.unwrap();
            let mut parties = line.holders.iter().chain(&line.waiters);
            if parties.all(|party| party.claim != Some(claim.id)) {
                return;
            }
            // sleep: the line is looked at until it is as expected.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn the_key_is_nobodys_token_and_lasts_as_long_as_the_longest_lease() {
    let server = Server::start();
    let day = Node::with_ttl(&server.url(), Duration::from_hours(24)).await;
    let node = Node::new(&server.url()).await;
    let mut raw = server.raw();
    let (long, brief) = (reader(), reader());
    day.acquire(&long).await;
    node.acquire(&brief).await;
    let value: String = raw.run(&["GET", "job"]);
    assert_eq!(ClaimId::from_hex(&value), None, "{value}");
    assert!(left(&mut raw, "job") > 86_300_000, "as long as the longest");
    assert!(node.extends(&brief).await);
    assert!(left(&mut raw, "job") > 86_300_000, "another's renewal does not shorten it");
    assert_eq!(day.leave(&long).await, Left::Released);
    assert!((29_000..=30_000).contains(&left(&mut raw, "job")), "not longer than who is left");
    assert_eq!(node.leave(&brief).await, Left::Released);
    assert_eq!(raw.run::<i64>(&["EXISTS", "job"]), 0);
}

#[tokio::test]
async fn a_renewal_keeps_a_share_and_the_key_alive() {
    let server = Server::start();
    let node = Node::with_ttl(&server.url(), SHORT).await;
    let (first, second, waiting) = (reader(), reader(), writer());
    let mut raw = server.raw();
    node.acquire(&first).await;
    node.acquire(&second).await;
    node.enter(&waiting).await;
    for _ in 0..6 {
        // sleep: renews at a fraction of the TTL.
        tokio::time::sleep(SHORT / 4).await;
        let roll = [first.clone(), waiting.clone()];
        let renewed = node.store.renew(&node.session, &roll).await.unwrap();
        assert_eq!(renewed, Renewed::Extended { lost: vec![] });
        assert!(left(&mut raw, "job") > 0);
    }
    assert_eq!(node.renew(&second).await, Renewed::Extended { lost: vec![second.id] });
    assert_eq!(node.leave(&second).await, Left::Gone);
    assert_eq!(node.leave(&first).await, Left::Released);
    assert!(soon(node.changed(&waiting)).await.is_some());
}

#[tokio::test]
async fn asking_again_extends_a_share_and_a_place_in_line() {
    let server = Server::start();
    let (node, mut raw) = (Node::new(&server.url()).await, server.raw());
    let (held, waiting) = (reader(), writer());
    let granted = node.acquire(&held).await;
    node.enter(&waiting).await;
    // As if 20 of the 30 seconds had passed.
    let before = Duration::from_secs(20);
    for claim in [&held, &waiting] {
        age(&mut raw, claim, before);
    }
    for (claim, enter) in [(&held, Enter::Try), (&waiting, Enter::Wait)] {
        node.store.enter(&node.session, claim, enter).await.unwrap();
    }
    assert_eq!(node.acquire(&held).await, granted);
    assert!((29_000..=30_000).contains(&left(&mut raw, "job")));
    let line = node.store.inspect(&held.key).await.unwrap();
    for party in line.holders.iter().chain(&line.waiters) {
        assert!(party.left.unwrap() > Duration::from_secs(29), "{party:?}");
    }
}

/// As if `time` had passed since the claim was renewed.
fn age(raw: &mut Raw, claim: &leasehold::core::Claim, time: Duration) {
    let [wait_key, hold_key] =
        ["wait", "hold"].map(|kind| raw.only_key(&format!("leasehold:{{*}}:{kind}:job")));
    let id = claim.id.to_hex();
    let entry: String = raw.run(&["HGET", &wait_key, &id]);
    let (expiry, rest) = entry.split_once(' ').unwrap();
    let earlier = expiry.parse::<u64>().unwrap() - u64::try_from(time.as_millis()).unwrap();
    let _: i64 = raw.run(&["HSET", &wait_key, &id, &format!("{earlier} {rest}")]);
    let _: i64 = raw.run(&["ZADD", &hold_key, "XX", &earlier.to_string(), &id]);
}

#[tokio::test]
async fn a_renewal_of_several_keys_counts_the_fences_of_each_by_its_own_memory() {
    let server = Server::start();
    let (node, mut raw) = (Node::new(&server.url()).await, server.raw());
    let (other, held, waiting) = (share("other", 1, 3), share("job", 3, 3), share("job", 1, 3));
    node.acquire(&other).await;
    node.acquire(&held).await;
    node.enter(&waiting).await;
    // As if the last grant had been made when the clock was three hours ahead.
    let meta_key = raw.only_key("leasehold:{*}:meta:job");
    let meta: String = raw.run(&["GET", &meta_key]);
    let mut fields: Vec<String> = meta.splitn(3, ' ').map(ToOwned::to_owned).collect();
    let ahead = fields[1].parse::<u64>().unwrap() + 3 * 3_600_000_000;
    fields[1] = ahead.to_string();
    let _: String = raw.run(&["SET", &meta_key, &fields.join(" ")]);
    let _: i64 = raw.run(&["DEL", "job"]);
    let roll = [other, waiting.clone()];
    let renewed = node.store.renew(&node.session, &roll).await.unwrap();
    assert_eq!(renewed, Renewed::Extended { lost: vec![] });
    assert_eq!(node.acquire(&waiting).await.get(), ahead + 1);
}

#[tokio::test]
async fn an_amended_hold_has_no_more_units_no_other_lease_and_no_immortal_memory() {
    let server = Server::start();
    let (node, mut raw) = (Node::new(&server.url()).await, server.raw());
    for (held, all) in [(share("job", 2, 5), share("job", 5, 5)), (claim("job"), claim("job"))] {
        let fence = node.acquire(&held).await;
        let meta_key = raw.only_key("leasehold:{*}:meta:job");
        let _: i64 = raw.run(&["PEXPIRE", "job", "9000"]);
        // Somebody who knows the claim's id only.
        let mut greedy =
            all.amended(Note::new("amended").unwrap(), all.units().try_into().unwrap());
        greedy.id = held.id;
        assert!(node.store.amend(&node.session, &greedy).await.unwrap());
        let line = node.store.inspect(&held.key).await.unwrap();
        let [holder] = &line.holders[..] else { panic!("{line:?}") };
        assert_eq!((holder.units, holder.note.as_str()), (held.units(), "amended"));
        assert_eq!((holder.claim, holder.fence), (Some(held.id), Some(fence)));
        assert!(holder.left.unwrap() <= TTL, "{holder:?}");
        assert!((1..=3_640_000).contains(&left(&mut raw, &meta_key)));
        let waiting = all.clone();
        let record = Record::new(b"waits", TTL).unwrap();
        node.enter(&waiting).await;
        let under = Provided::Held(&node.session, &waiting);
        assert!(!node.store.write(&held.key, under, &record).await.unwrap(), "it waits");
        assert_eq!(node.leave(&waiting).await, Left::Withdrawn);
        assert_eq!(node.leave(&held).await, Left::Released);
    }
}

#[tokio::test]
async fn the_first_in_line_finds_out_that_any_of_the_holders_lapsed() {
    let server = Server::start();
    let node = Node::new(&server.url()).await;
    let dead = Node::with_ttl(&server.url(), SHORT).await;
    let (living, lapsing, waiting) = (share("job", 1, 2), share("job", 1, 2), share("job", 1, 2));
    let before = node.acquire(&living).await.max(dead.acquire(&lapsing).await);
    assert_eq!(rank(&node.enter(&waiting).await), 0);
    assert!(soon(node.wait(&waiting)).await > before);
    assert_eq!(dead.renew(&lapsing).await, Renewed::Extended { lost: vec![lapsing.id] });
    assert!(node.extends(&living).await);
}

#[tokio::test]
async fn who_wants_it_all_sleeps_until_the_last_of_them_lapses() {
    let server = Server::start();
    let node = Node::new(&server.url()).await;
    let hasty = Node::with_ttl(&server.url(), SHORT).await;
    let patient = Node::with_ttl(&server.url(), SHORT * 3).await;
    let (first, last, waiting) = (reader(), reader(), writer());
    hasty.acquire(&first).await;
    patient.acquire(&last).await;
    node.enter(&waiting).await;
    assert_eq!(soon(node.changed(&waiting)).await, None);
    fence(&node.enter(&waiting).await);
}

#[tokio::test]
async fn a_writer_that_died_in_line_lets_the_readers_behind_it_in() {
    let server = Server::start();
    let node = Node::new(&server.url()).await;
    let dead = Node::with_ttl(&server.url(), SHORT).await;
    let (reading, between, late) = (reader(), writer(), reader());
    node.acquire(&reading).await;
    dead.enter(&between).await;
    assert_eq!(rank(&node.enter(&late).await), 1);
    soon(node.wait(&late)).await;
    assert_eq!(node.store.inspect(&late.key).await.unwrap().waiters, []);
}

#[tokio::test]
async fn a_try_that_gives_up_its_place_lets_in_who_stood_behind_it() {
    let server = Server::start();
    let node = Node::new(&server.url()).await;
    let [held, large, small] = [2, 2, 1].map(|units| share("job", units, 3));
    node.acquire(&held).await;
    node.enter(&large).await;
    node.enter(&small).await;
    assert_eq!(rank(&node.attempt(&large).await), 0);
    fence(&soon(node.changed(&small)).await.expect("told"));
    assert_eq!(node.leave(&small).await, Left::Released);
}

#[tokio::test]
async fn a_crowd_is_granted_and_told_however_the_hold_before_it_ends() {
    let server = Server::start();
    let (node, other) = (Node::new(&server.url()).await, Node::new(&server.url()).await);
    for end in ["leave", "revoke", "amend"] {
        let held = writer();
        let before = node.acquire(&held).await;
        // More than two steps of 64.
        let crowd: Vec<_> = (0..150).map(|_| reader()).collect();
        for waiting in &crowd {
            other.enter(waiting).await;
        }
        match end {
            "leave" => assert_eq!(node.leave(&held).await, Left::Released),
            "revoke" => assert!(node.store.revoke(&held.key, &held.id).await.unwrap()),
            _ => {
                let reads = held.amended(Note::default(), 1.try_into().unwrap());
                assert!(node.store.amend(&node.session, &reads).await.unwrap());
            }
        }
        let mut fences = Vec::new();
        for waiting in &crowd {
            fences.push(fence(&soon(other.changed(waiting)).await.expect("told with its fence")));
        }
        assert!(fences.is_sorted_by(|a, b| a < b) && fences[0] > before, "{end}");
        let line = node.store.inspect(&held.key).await.unwrap();
        assert_eq!(line.holders.len(), 150 + usize::from(end == "amend"), "{end}");
        for waiting in &crowd {
            assert_eq!(other.leave(waiting).await, Left::Released, "{end}");
        }
        node.leave(&held).await;
        assert_eq!(server.raw().run::<i64>(&["EXISTS", "job"]), 0, "{end}");
    }
}

#[tokio::test]
async fn any_number_of_dead_holders_is_passed_over() {
    let server = Server::start();
    let node = Node::new(&server.url()).await;
    let dead = Node::with_ttl(&server.url(), SHORT * 5).await;
    let living = reader();
    node.acquire(&living).await;
    let crowd: Vec<_> = (0..150).map(|_| reader()).collect();
    for held in &crowd {
        dead.acquire(held).await;
    }
    lapsed(&node, crowd.last().unwrap()).await;
    let waiting = writer();
    assert_eq!(rank(&node.enter(&waiting).await), 0);
    assert_eq!(node.leave(&living).await, Left::Released);
    assert!(soon(node.changed(&waiting)).await.is_some(), "granted by the release itself");
}

#[tokio::test]
async fn whoever_deletes_the_key_ends_all_who_hold_it() {
    let server = Server::start();
    let node = Node::new(&server.url()).await;
    let mut raw = server.raw();
    for next in [claim("job"), reader(), writer()] {
        let crowd: Vec<_> = (0..150).map(|_| reader()).collect();
        let mut last = None;
        for held in &crowd {
            last = last.max(Some(node.acquire(held).await));
        }
        assert_eq!(raw.run::<i64>(&["DEL", "job"]), 1);
        let record = Record::new(b"late", TTL).unwrap();
        let under = Provided::Held(&node.session, &crowd[0]);
        assert!(!node.store.write(&next.key, under, &record).await.unwrap());
        assert!(!node.store.amend(&node.session, &crowd[0]).await.unwrap());
        assert!(!node.store.revoke(&next.key, &crowd[0].id).await.unwrap());
        assert_eq!(node.renew(&crowd[1]).await, Renewed::Extended { lost: vec![crowd[1].id] });
        assert_eq!(node.leave(&crowd[2]).await, Left::Gone);
        assert_eq!(node.store.inspect(&next.key).await.unwrap().holders, []);
        assert!(Some(node.acquire(&next).await) > last);
        assert_eq!(node.renew(&crowd[3]).await, Renewed::Extended { lost: vec![crowd[3].id] });
        let line = node.store.inspect(&next.key).await.unwrap();
        let holders: Vec<_> = line.holders.iter().map(|holder| holder.claim).collect();
        assert_eq!(holders, [Some(next.id)]);
        assert_eq!(node.leave(&next).await, Left::Released);
        let names: Vec<String> = raw.run(&["KEYS", "*"]);
        assert_eq!(names.len(), 1, "only the memory of the fence: {names:?}");
    }
}

#[tokio::test]
async fn a_stranger_that_took_the_key_is_waited_for_from_the_head_of_the_line() {
    let server = Server::start();
    let node = Node::new(&server.url()).await;
    let mut raw = server.raw();
    let (first, second, waiting) = (reader(), reader(), writer());
    node.acquire(&first).await;
    node.acquire(&second).await;
    node.enter(&waiting).await;
    let _: String = raw.run(&["SET", "job", "their-token"]);
    let place = node.enter(&waiting).await;
    assert!(foreign(&place));
    assert_eq!(rank(&place), 0, "those who held are in nobody's way");
    assert_eq!(node.renew(&first).await, Renewed::Extended { lost: vec![first.id] });
    assert_eq!(raw.run::<String>(&["GET", "job"]), "their-token");
    let _: i64 = raw.run(&["DEL", "job"]);
    soon(node.wait(&waiting)).await;
    assert_eq!(node.leave(&second).await, Left::Gone);
}

#[tokio::test]
async fn a_share_that_a_step_of_the_clock_prolonged_is_clamped_by_whoever_looks() {
    let server = Server::start();
    let (node, dead) = (Node::new(&server.url()).await, Node::with_ttl(&server.url(), SHORT).await);
    let mut raw = server.raw();
    let (living, lapsing, waiting) = (share("job", 1, 2), share("job", 1, 2), share("job", 1, 2));
    node.acquire(&living).await;
    dead.acquire(&lapsing).await;
    set_back(&mut raw, &[&living, &lapsing], Duration::from_hours(1));
    assert!(left(&mut raw, "job") > 3_600_000);
    node.enter(&waiting).await;
    assert!(left(&mut raw, "job") <= 30_000, "no longer than the longest ttl");
    soon(node.wait(&waiting)).await;
    assert!(node.extends(&living).await);
}

/// As if the server's clock had been set back by `step` since all this was written.
fn set_back(raw: &mut Raw, holders: &[&leasehold::core::Claim], step: Duration) {
    let step = u64::try_from(step.as_millis()).unwrap();
    let [wait_key, hold_key] =
        ["wait", "hold"].map(|kind| raw.only_key(&format!("leasehold:{{*}}:{kind}:job")));
    let mut last = 0;
    for holder in holders {
        let id = holder.id.to_hex();
        let entry: String = raw.run(&["HGET", &wait_key, &id]);
        let (expiry, rest) = entry.split_once(' ').unwrap();
        let later = expiry.parse::<u64>().unwrap() + step;
        let _: i64 = raw.run(&["HSET", &wait_key, &id, &format!("{later} {rest}")]);
        let _: i64 = raw.run(&["ZADD", &hold_key, &later.to_string(), &id]);
        last = last.max(later);
    }
    let value: String = raw.run(&["GET", "job"]);
    let (before, seen) = value.rsplit_once(':').unwrap();
    let seen = seen.parse::<u64>().unwrap() + step * 1000;
    let _: String =
        raw.run(&["SET", "job", &format!("{before}:{seen}"), "PXAT", &last.to_string()]);
    let _: i64 = raw.run(&["PEXPIREAT", &hold_key, &last.to_string()]);
}

#[tokio::test]
async fn a_share_that_a_failover_rewound_into_the_line_is_lost() {
    let server = Server::start();
    let node = Node::new(&server.url()).await;
    let mut raw = server.raw();
    let (held, rewound) = (writer(), reader());
    node.acquire(&held).await;
    node.enter(&rewound).await;
    let names: Vec<String> = raw.run(&["KEYS", "*job"]);
    let backup: Vec<Vec<u8>> = names.iter().map(|name| raw.run(&["DUMP", name])).collect();
    node.leave(&held).await;
    assert!(soon(node.changed(&rewound)).await.is_some());
    // The replica that took over never heard of the release.
    for (name, backup) in names.iter().zip(backup) {
        raw.restore(name, &backup);
    }
    assert_eq!(node.renew(&rewound).await, Renewed::Extended { lost: vec![rewound.id] });
    assert_eq!(node.store.inspect(&held.key).await.unwrap().waiters, []);
    assert!(node.extends(&held).await);
}

#[tokio::test]
async fn a_waiter_whose_line_was_deleted_is_lost_and_may_enter_again() {
    let server = Server::start();
    let (node, mut raw) = (Node::new(&server.url()).await, server.raw());
    for held in [claim("job"), writer()] {
        let (waiting, other) = (reader(), reader());
        node.acquire(&held).await;
        node.enter(&waiting).await;
        node.enter(&other).await;
        let line_key = raw.only_key("leasehold:{*}:line:job");
        let _: i64 = raw.run(&["ZREM", &line_key, &waiting.id.to_hex()]);
        assert_eq!(node.renew(&waiting).await, Renewed::Extended { lost: vec![waiting.id] });
        assert_eq!(node.leave(&waiting).await, Left::Gone);
        assert_eq!(rank(&node.enter(&waiting).await), 1);
        for claim in [&waiting, &other, &held] {
            node.leave(claim).await;
        }
    }
}

#[tokio::test]
async fn only_who_lives_is_asked_for_the_limit() {
    let server = Server::start();
    let (node, dead) = (Node::new(&server.url()).await, Node::with_ttl(&server.url(), SHORT).await);
    let mut raw = server.raw();
    let _: String = raw.run(&["SET", "job", "their-token"]);
    let crowd: Vec<_> = (0..150).map(|_| share("job", 1, 5)).collect();
    for waiting in &crowd {
        dead.enter(waiting).await;
    }
    let of_five = share("job", 1, 5);
    node.enter(&of_five).await;
    let refused = node.store.enter(&node.session, &claim("job"), Enter::Wait).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Disagrees, "{refused}");
    assert_eq!(node.leave(&of_five).await, Left::Withdrawn);
    lapsed(&node, crowd.last().unwrap()).await;
    let place = node.enter(&claim("job")).await;
    assert_eq!(rank(&place), 0, "the dead are in nobody's way");
    let refused = node.store.enter(&node.session, &of_five, Enter::Try).await.unwrap_err();
    assert!(refused.to_string().contains("limit of 1"), "{refused}");
    let line = node.store.inspect(&of_five.key).await.unwrap();
    assert_eq!(line.waiters.len(), 1, "{line:?}");
}

#[tokio::test]
async fn a_mutex_and_a_semaphore_refuse_each_other_whoever_holds() {
    let server = Server::start();
    let node = Node::new(&server.url()).await;
    let of_five = || share("job", 1, 5);
    for (held, other) in
        [(claim("job"), of_five()), (of_five(), claim("job")), (reader(), of_five())]
    {
        node.acquire(&held).await;
        for enter in [Enter::Try, Enter::Wait] {
            let refused = node.store.enter(&node.session, &other, enter).await.unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::Disagrees, "{refused}");
        }
        assert!(node.extends(&held).await);
        assert_eq!(node.leave(&held).await, Left::Released);
    }
}

#[tokio::test]
async fn a_mutex_waits_for_the_last_of_the_readers_and_keeps_the_verbatim_layout() {
    let server = Server::start();
    let node = Node::new(&server.url()).await;
    let hasty = Node::with_ttl(&server.url(), SHORT).await;
    let patient = Node::with_ttl(&server.url(), SHORT * 3).await;
    let (first, last, mutex, behind) = (reader(), reader(), claim("job"), reader());
    hasty.acquire(&first).await;
    patient.acquire(&last).await;
    node.enter(&mutex).await;
    node.enter(&behind).await;
    assert_eq!(soon(node.changed(&mutex)).await, None);
    fence(&node.enter(&mutex).await);
    let mut raw = server.raw();
    assert_eq!(raw.run::<String>(&["GET", "job"]), mutex.id.to_hex());
    assert_eq!(rank(&node.enter(&behind).await), 0);
    assert_eq!(node.leave(&mutex).await, Left::Released);
    assert!(soon(node.changed(&behind)).await.is_some());
}

#[tokio::test]
async fn a_refused_share_leaves_nothing_behind_and_tells_of_the_first_holder() {
    let server = Server::start();
    let node = Node::new(&server.url()).await;
    let (first, second) = (reader(), reader());
    let granted = node.acquire(&first).await;
    node.acquire(&second).await;
    let before: Vec<String> = server.raw().run(&["KEYS", "*"]);
    let tried = writer();
    let Place::Refused(ahead) = node.attempt(&tried).await else { panic!("not refused") };
    let holder = ahead.holder.unwrap();
    assert_eq!((holder.claim, holder.fence), (Some(first.id), Some(granted)));
    assert_eq!((holder.owner.as_str(), &holder.note), ("node:1", &first.note));
    assert!(holder.left.unwrap() <= TTL && holder.age.unwrap() < TTL);
    assert!(!ahead.foreign);
    assert_eq!(server.raw().run::<Vec<String>>(&["KEYS", "*"]).len(), before.len());
    assert_eq!(node.renew(&tried).await, Renewed::Extended { lost: vec![tried.id] });
}
