//! The demo, on real stores: everything in its picture happens.

mod lab;

use lab::{Lab, Process};
use leasehold_testbed::Redis;

/// What the picture shows, in order.
const STORY: [&str; 19] = [
    "granted, fence",
    "denied: held by Node",
    "wait in line behind Node",
    "woken and granted after",
    "killed (SIGKILL)",
    "freed and granted after",
    "paused (SIGSTOP)",
    "lapsed and granted after",
    "refused: stale, has seen fence",
    "elected, fence",
    "the leader is at 10.0.0.1:8080",
    "the leader is at 10.0.0.1:9090",
    "killed (SIGKILL) in office",
    "elected after",
    "the leader is at 10.0.0.2:8080",
    "Node A does it",
    "killed (SIGKILL) before it was done",
    "its turn after",
    "Node B did it",
];

/// How much of it is about the lock.
const OF_THE_LOCK: usize = 9;

fn tells_the_story(lab: &Lab, url: &str, story: &[&str]) {
    let done = Process::of(lab.leasehold(&["demo"]).env("LEASEHOLD_STORE", url)).finish();
    assert_eq!(done.code, Some(0), "{done:?}");
    let mut rest = done.stdout.as_str();
    for part in story {
        let at = rest.find(part).unwrap_or_else(|| panic!("no {part:?} where expected: {done:?}"));
        rest = &rest[at..];
    }
    let drawing = std::fs::read_to_string(lab.path("leasehold-demo.svg")).unwrap();
    assert!(story.iter().all(|part| drawing.contains(part)), "{drawing}");
    for part in STORY.iter().filter(|part| !story.contains(part)) {
        assert!(!drawing.contains(part), "{part:?}: {drawing}");
    }
}

#[test]
fn the_demo_tells_its_story_over_the_embedded_store() {
    let lab = Lab::new();
    tells_the_story(&lab, &lab.store(), &STORY);
    let jobs = lab.run(&["jobs"]);
    assert_eq!((jobs.code, jobs.stdout.as_str()), (Some(0), ""), "it cleans up: {jobs:?}");
}

#[test]
fn the_demo_tells_its_story_over_redis() {
    tells_the_story(&Lab::new(), &Redis::start().url(), &STORY);
}

#[test]
fn the_demo_leaves_out_what_a_store_without_records_cannot_play() {
    let servers: Vec<_> = (0..3).map(|_| Redis::start()).collect();
    let hosts: Vec<_> =
        servers.iter().map(|server| format!("127.0.0.1:{}", server.port())).collect();
    let url = format!("redlock://{}", hosts.join(","));
    tells_the_story(&Lab::new(), &url, &STORY[..OF_THE_LOCK]);
}

#[test]
fn the_demo_says_where_it_cannot_be_played_or_drawn() {
    let lab = Lab::new();
    let done = lab.run(&["demo", "--store", "memory:"]);
    assert_eq!(done.code, Some(64), "{done:?}");
    assert!(done.stderr.contains("no further than one process"), "{done:?}");
    let done = lab.run(&["demo", "--svg", "/nowhere/demo.svg"]);
    assert_eq!(done.code, Some(64), "{done:?}");
    assert!(done.stderr.contains("/nowhere/demo.svg"), "{done:?}");
}
