//! Tries: who gets a majority, and what is left of who does not.

use leasehold::core::{Enter, Left, Place};
use leasehold::{Client, Released};
use leasehold_testbed::{Redis, Worker, test_name, worker};

use crate::{Node, claim, places, quorum, until, values};

#[tokio::test]
async fn all_servers_have_the_same_token_and_nothing_after_the_release() {
    let servers = quorum(5);
    let node = Node::new(&servers.url()).await;
    let held = claim("job");
    let fence = node.holds(&held).await;
    until("the slowest have it too", || places(&servers, &held) == 5).await;
    for redis in &*servers {
        let left: i64 = redis.cli(&["PTTL", "job"]).parse().unwrap();
        assert!((800_000..=900_000).contains(&left), "{left}");
    }
    let line = leasehold::Store::inspect(&node.store, &held.key).await.unwrap();
    let [holder] = &line.holders[..] else { panic!("one holder: {line:?}") };
    assert_eq!((holder.claim, holder.fence), (Some(held.id), Some(fence)));
    assert_eq!((holder.owner.as_str(), holder.note.as_str()), ("node:1", "a note\nof two lines"));
    assert_eq!(node.leave(&held).await, Left::Released);
    until("the slowest have it no more", || values(&servers, "job") == [""; 5]).await;
    assert_eq!(node.leave(&held).await, Left::Gone);
}

#[tokio::test]
async fn a_split_vote_releases_its_minority_before_it_is_repeated() {
    let servers = quorum(5);
    let node = Node::new(&servers.url()).await;
    // Three others got one server each.
    for (redis, token) in servers[2..].iter().zip(["a", "b", "c"]) {
        redis.cli(&["SET", "job", token, "PX", "900000"]);
    }
    for enter in [Enter::Try, Enter::Wait] {
        let tries = claim("job");
        let place = node.enter(&tries, enter).await.unwrap();
        assert!(!matches!(place, Place::Held(_)), "{place:?}");
        until("the minority is free", || places(&servers, &tries) == 0).await;
        // Theirs are left alone.
        assert_eq!(values(&servers, "job"), ["", "", "a", "b", "c"]);
    }
}

#[tokio::test]
async fn a_key_of_any_type_or_without_a_ttl_is_held() {
    let servers = quorum(3);
    let node = Node::new(&servers.url()).await;
    for make in [&["SET", "string", "x"][..], &["HSET", "hash", "a", "1"], &["RPUSH", "list", "x"]]
    {
        let key = make[1];
        servers[..2].iter().for_each(|redis| drop(redis.cli(make)));
        let refused = node.refused(&claim(key)).await;
        assert!(refused.foreign && refused.holder.unwrap().claim.is_none(), "{make:?}");
        for redis in &servers[..2] {
            assert_eq!(redis.cli(&["PTTL", key]), "-1", "{make:?}: it was touched");
        }
    }
    node.holds(&claim("nobody's")).await;
}

/// A value that happens to be a claim id, at a key that no claim was ever granted.
#[tokio::test]
async fn break_never_deletes_data_of_an_application() {
    let servers = quorum(3);
    let node = Node::new(&servers.url()).await;
    let other = claim("data");
    servers.iter().for_each(|redis| drop(redis.cli(&["SET", "data", &other.id.to_hex()])));
    assert!(!leasehold::Store::revoke(&node.store, &other.key, &other.id).await.unwrap());
    assert_eq!(places(&servers, &other), 3);
}

#[tokio::test]
async fn fences_grow_although_a_minority_restarts_without_memory_between_holds() {
    use leasehold_testbed::Memory;
    let servers = quorum(5);
    let node = Node::new(&servers.url()).await;
    let mut last = leasehold::Fence::new(0);
    for round in 0..4 {
        let held = claim("job");
        let fence = node.holds(&held).await;
        assert!(fence > last, "round {round}: {fence:?} after {last:?}");
        last = fence;
        assert_eq!(node.leave(&held).await, Left::Released);
        for server in [round % 5, (round + 2) % 5] {
            servers[server].restart(Memory::Lost);
        }
    }
}

/// The counter that a server keeps beside `job`, in its record.
fn counter(redis: &Redis) -> u64 {
    record(redis).1[19..35].parse().unwrap()
}

/// The name and the text of what a server keeps beside `job`.
fn record(redis: &Redis) -> (String, String) {
    let name = redis.cli(&["KEYS", "leasehold:{*}:vote:job"]);
    let text = redis.cli(&["GET", &name]);
    (name, text)
}

/// As if fences had been given out by a clock that was set back since.
fn set_counter(redis: &Redis, counter: u64) {
    let (name, text) = record(redis);
    let ahead = format!("{}{counter:016}{}", &text[..19], &text[35..]);
    redis.cli(&["SET", &name, &ahead]);
}

#[tokio::test]
async fn servers_that_disagree_are_raised_to_one_fence_above_all_before() {
    const HOUR: u64 = 3_600_000_000;
    let servers = quorum(5);
    let node = Node::new(&servers.url()).await;
    let first = claim("job");
    let base = node.holds(&first).await.get() + HOUR;
    until("all have it", || places(&servers, &first) == 5).await;
    node.leave(&first).await;
    until("all are free", || places(&servers, &first) == 0).await;
    // Every server stands elsewhere; then all where others were granted.
    for apart in [100, 0] {
        for (redis, index) in servers.iter().zip(0..) {
            set_counter(redis, base + apart * index);
        }
        let held = claim("job");
        let fence = node.holds(&held).await.get();
        let heard = base + apart * 2;
        assert!(fence > heard, "a majority hears of one that stood at {heard} at least: {fence}");
        let there = servers.iter().filter(|redis| counter(redis) == fence).count();
        assert!(there >= 3, "a majority stands at the fence exactly: {there}");
        until("all have it", || places(&servers, &held) == 5).await;
        assert_eq!(node.leave(&held).await, Left::Released);
        until("all are free", || places(&servers, &held) == 0).await;
    }
}

/// Processes of their own: node-redlock stands still here, because each keeps the minority that it
/// won while it tries again.
#[test]
fn many_processes_contend_and_none_stands_still() {
    const TURNS: usize = 15;
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    if let Some(url) = worker::task() {
        let client = Client::open(&url).unwrap();
        runtime().block_on(async {
            for _ in 0..TURNS {
                let guard = client.mutex("job").unwrap().lock().await.unwrap();
                worker::say(&guard.fence().to_string());
                assert_eq!(guard.release().await.unwrap(), Released::Held);
            }
        });
        return;
    }
    let servers = quorum(5);
    let mut workers: Vec<_> =
        (0..6).map(|_| Worker::start(&test_name!(), &servers.url())).collect();
    let mut fences = Vec::new();
    for worker in &mut workers {
        let own: Vec<u64> = (0..TURNS).map(|_| worker.line().parse().unwrap()).collect();
        assert!(own.is_sorted_by(|a, b| a < b), "{own:?}");
        fences.extend(own);
    }
    fences.sort_unstable();
    fences.dedup();
    assert_eq!(fences.len(), 6 * TURNS, "a fence was given twice");
}
