//! The program over a quorum of Redis servers.

mod lab;

use lab::{Lab, Process};
use leasehold_testbed::{Redis, RedisQuorum};

/// Starts `leasehold` in the lab with the quorum as its store.
fn start(lab: &Lab, servers: &RedisQuorum, arguments: &[&str]) -> Process {
    Process::of(lab.leasehold(arguments).env("LEASEHOLD_STORE", servers.url()))
}

#[test]
fn a_command_runs_under_a_majority_and_not_without_one() {
    let (lab, servers) = (Lab::new(), Redis::options().append_only().start_quorum(3));
    let run = ["run", "k", "--try", "--", "sh", "-c", "echo fence $LEASEHOLD_FENCE"];
    servers[1].kill();
    let done = start(&lab, &servers, &run).finish();
    assert_eq!(done.code, Some(0), "{done:?}");
    let fence = |done: &lab::Finished| -> u64 {
        done.stdout.trim().strip_prefix("fence ").expect("a fence").parse().expect("a number")
    };
    let first = fence(&done);
    servers[1].start_again();
    servers[0].cli(&["SET", "k", "theirs"]);
    let done = start(&lab, &servers, &run).finish();
    assert_eq!(done.code, Some(0), "one of three is a minority: {done:?}");
    assert!(fence(&done) > first, "{done:?}");
    servers[2].cli(&["SET", "k", "theirs"]);
    let done = start(&lab, &servers, &run).finish();
    assert_eq!(done.code, Some(75), "busy: {done:?}");
    servers[1].kill();
    servers[2].kill();
    let done = start(&lab, &servers, &run).finish();
    assert_eq!(done.code, Some(69), "no majority: {done:?}");
    for redis in &*servers {
        let name = format!("127.0.0.1:{}", redis.port());
        assert!(done.stderr.contains(&name), "every vote is told: {done:?}");
    }
}
