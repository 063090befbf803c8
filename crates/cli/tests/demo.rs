//! The demo, on real stores: everything in its picture happens.

mod lab;

use lab::{Lab, Process};
use leasehold_testbed::Redis;

/// What the picture shows, in order.
const STORY: [&str; 9] = [
    "granted, fence",
    "denied: held by Node",
    "wait in line behind Node",
    "woken and granted after",
    "killed (SIGKILL)",
    "freed and granted after",
    "paused (SIGSTOP)",
    "lapsed and granted after",
    "refused: stale, has seen fence",
];

fn tells_the_story(lab: &Lab, url: &str) {
    let done = Process::of(lab.leasehold(&["demo"]).env("LEASEHOLD_STORE", url)).finish();
    assert_eq!(done.code, Some(0), "{done:?}");
    let mut rest = done.stdout.as_str();
    for part in STORY {
        let at = rest.find(part).unwrap_or_else(|| panic!("no {part:?} where expected: {done:?}"));
        rest = &rest[at..];
    }
    let drawing = std::fs::read_to_string(lab.path("leasehold-demo.svg")).unwrap();
    assert!(STORY.iter().all(|part| drawing.contains(part)), "{drawing}");
}

#[test]
fn the_demo_tells_its_story_over_the_embedded_store() {
    let lab = Lab::new();
    tells_the_story(&lab, &lab.store());
}

#[test]
fn the_demo_tells_its_story_over_redis() {
    tells_the_story(&Lab::new(), &Redis::start().url());
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
