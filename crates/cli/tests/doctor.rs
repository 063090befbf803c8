//! `leasehold doctor` over real servers: what it says, as people and as programs read it.

mod lab;

use std::os::unix::process::ExitStatusExt as _;

use lab::{Finished, Lab, Process, eventually};
use leasehold_testbed::Redis;
use serde_json::Value;

fn start(lab: &Lab, url: &str, arguments: &[&str]) -> Process {
    let all: Vec<&str> = [&["doctor"], arguments].concat();
    Process::of(lab.leasehold(&all).env("LEASEHOLD_STORE", url))
}

fn doctor(lab: &Lab, url: &str, arguments: &[&str]) -> Finished {
    start(lab, url, arguments).finish()
}

fn json(done: &Finished) -> Value {
    assert_eq!(done.stdout.lines().count(), 1, "one document: {done:?}");
    serde_json::from_str(&done.stdout).unwrap_or_else(|error| panic!("{error}: {done:?}"))
}

fn keys(object: &Value) -> Vec<&str> {
    object.as_object().expect("an object").keys().map(String::as_str).collect()
}

#[test]
fn the_exit_code_is_that_of_the_worst_finding() {
    let lab = Lab::new();
    let safe = Redis::options().append_only().start();
    let done = doctor(&lab, &safe.url(), &[]);
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(done.stdout.starts_with("Nothing was found that puts locks at risk here.\n"));
    safe.cli(&["CONFIG", "SET", "appendfsync", "everysec"]);
    let done = doctor(&lab, &safe.url(), &[]);
    assert_eq!(done.code, Some(1), "{done:?}");
    assert!(done.stdout.contains("1 warning.") && done.stderr.is_empty(), "{done:?}");
    safe.cli(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]);
    safe.cli(&["CONFIG", "SET", "maxmemory", "100mb"]);
    let done = doctor(&lab, &safe.url(), &[]);
    assert_eq!(done.code, Some(2), "{done:?}");
    let change = "\n               CONFIG SET maxmemory-policy noeviction\n";
    assert!(done.stdout.contains("1 danger, 1 warning.") && done.stdout.contains(change));
    assert!(!done.stdout.contains('\x1b'), "no colours in a pipe");
    // What cannot be read is no reason to be content.
    let blind = Redis::options().append_only().config("rename-command", "CONFIG \"\"").start();
    let done = doctor(&lab, &blind.url(), &[]);
    assert_eq!(done.code, Some(1), "{done:?}");
    assert!(done.stdout.starts_with("Locks work here; whether they are safe is not known"));
    // The embedded store, where nothing is set up.
    let done = lab.run(&["doctor"]);
    assert_eq!(done.code, Some(0), "{done:?}");
}

#[test]
fn what_keeps_it_from_looking_is_an_error_as_elsewhere() {
    let lab = Lab::new();
    let redis = Redis::options().password("right").start();
    let done = doctor(&lab, &redis.url().replace("right", "wr0ng"), &["-vv"]);
    assert_eq!(done.code, Some(77), "{done:?}");
    assert!(!done.stderr.contains("wr0ng") && done.stdout.is_empty(), "{done:?}");
    let prefix = "k".repeat(500);
    for bad in [&[prefix.as_str()][..], &["--ttl", "1ms"], &["--ttl", "30"], &["a", "b"]] {
        let done = doctor(&lab, &redis.url(), bad);
        assert_eq!(done.code, Some(64), "{bad:?}: {done:?}");
    }
    let url = redis.url();
    redis.stop();
    let done = doctor(&lab, &url, &["--json"]);
    assert_eq!(done.code, Some(69), "{done:?}");
    assert!(done.stdout.is_empty() && done.stderr.contains("could not examine"), "{done:?}");
}

#[test]
fn json_has_the_documented_fields_and_no_password() {
    let lab = Lab::new();
    let redis = Redis::options().password("s3cret").append_only().start();
    let done = doctor(&lab, &redis.url(), &["--json", "-vv"]);
    assert!(!format!("{done:?}").contains("s3cret"), "{done:?}");
    let found = json(&done);
    let fields = ["findings", "guarantees", "probe", "servers", "store", "ttl_ms", "worst"];
    assert_eq!(keys(&found), fields);
    assert_eq!(keys(&found["guarantees"]), ["lapse_delay_ms", "min_ttl_ms", "properties"]);
    assert!(found["guarantees"]["properties"].as_array().unwrap().contains(&"line".into()));
    assert_eq!(found["store"], format!("redis://127.0.0.1:{}/0", redis.port()));
    assert_eq!((&found["ttl_ms"], &found["worst"]), (&30_000.into(), &"note".into()));
    let server = &found["servers"][0];
    assert_eq!(keys(server), ["clock", "name", "role", "round_trip", "version"]);
    assert_eq!(keys(&server["round_trip"]), ["exchanges", "max_us", "median_us", "min_us"]);
    assert_eq!(keys(&server["clock"]), ["ahead_us", "uncertainty_us"]);
    assert_eq!(keys(&found["probe"]), ["enter_us", "leave_us", "open_us", "renew_us"]);
    let findings = found["findings"].as_array().unwrap();
    for finding in findings {
        assert_eq!(keys(finding), ["change", "says", "server", "severity", "topic"]);
    }
    assert!(findings.iter().any(|finding| finding["topic"] == "durability"));

    let found = json(&doctor(&lab, "memory:", &["--json"]));
    assert_eq!((&found["servers"], &found["worst"]), (&Value::Array(vec![]), &"warning".into()));
}

#[test]
fn the_ttl_comes_from_the_settings_like_any_other() {
    let lab = Lab::new();
    let config = lab.path("config/leasehold/config.toml");
    std::fs::create_dir_all(config.parent().unwrap()).unwrap();
    std::fs::write(&config, "ttl = \"7s\"\n").unwrap();
    let found = json(&doctor(&lab, "memory:", &["--json"]));
    assert_eq!(found["ttl_ms"], 7_000);
    let found = json(&doctor(&lab, "memory:", &["--json", "--ttl", "8s"]));
    assert_eq!(found["ttl_ms"], 8_000);
    assert!(found["findings"].to_string().contains("With a TTL of 8s"));
}

#[test]
fn a_key_ends_it_while_the_server_hangs() {
    let (lab, redis) = (Lab::new(), Redis::start());
    redis.pause();
    let url = format!("{}?timeout=1m", redis.url());
    let mut process = start(&lab, &url, &[]);
    let sockets = || {
        let descriptors = std::fs::read_dir(format!("/proc/{}/fd", process.id())).ok()?;
        let targets = descriptors.filter_map(|file| std::fs::read_link(file.ok()?.path()).ok());
        let mut sockets = targets.filter(|target| target.to_string_lossy().starts_with("socket:"));
        sockets.next().map(drop)
    };
    eventually("a connection", sockets);
    assert!(!process.has_ended());
    process.signal("INT");
    let done = process.finish();
    assert_eq!(done.status.signal(), Some(2), "{done:?}");
    assert!(done.stdout.is_empty(), "{done:?}");
}
