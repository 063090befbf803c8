//! `leasehold limit`: permits out of a rate, with real processes over the embedded store.

mod lab;

use std::fs;
use std::time::Duration;

use lab::Lab;
use leasehold::{Quota, clock};
use serde_json::Value;

#[test]
fn a_permit_runs_the_command_and_none_is_75() {
    let lab = Lab::new();
    let limit = ["limit", "k", "--rate", "2/h"];
    let command = ["--", "sh", "-c", "echo $LEASEHOLD_KEY $LEASEHOLD_STORE; exit 7"];
    for _ in 0..2 {
        let done = lab.run(&[&limit[..], &command].concat());
        assert_eq!(done.code, Some(7), "the command's own code: {done:?}");
        assert_eq!(done.stdout.trim(), format!("k {}", lab.store()), "{done:?}");
        assert_eq!(done.stderr, "");
    }
    let done = lab.run(&[&limit[..], &["--", "touch", "ran"]].concat());
    assert_eq!(done.code, Some(75), "{done:?}");
    assert!(done.stderr.contains("\"k\" is limited: try again in "), "{done:?}");
    assert!(!lab.path("ran").exists() && done.stdout.is_empty(), "{done:?}");
    let done = lab.run(&[&limit[..], &["--wait=50ms", "--", "touch", "ran"]].concat());
    assert_eq!(done.code, Some(124), "{done:?}");
    assert!(!lab.path("ran").exists());
    // A greater burst on the same count.
    let done = lab.run(&[&limit[..], &["--burst", "3", "--wait", "--", "touch", "ran"]].concat());
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(lab.path("ran").exists());
}

#[test]
fn without_a_command_it_tells_what_was_decided() {
    let lab = Lab::new();
    let tell = |options: &[&str]| {
        lab.run(&[&["limit", "k", "--rate", "1/h", "--burst", "4"][..], options].concat())
    };
    let done = tell(&["--peek"]);
    assert_eq!(done.code, Some(0), "{done:?}");
    let untouched =
        "limited      no\nlimit        4\nremaining    4\nretry-after  0ms\nreset        0ms\n";
    assert_eq!(done.stdout, untouched, "and takes nothing");
    assert_eq!(tell(&["--peek"]).stdout, untouched);
    let done = tell(&["--units", "3"]);
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(done.stdout.contains("remaining    1\n"), "{done:?}");
    let done = tell(&["--units", "2", "--json"]);
    assert_eq!(done.code, Some(75), "{done:?}");
    let told: Value = serde_json::from_str(&done.stdout).unwrap();
    assert_eq!(told["key"], "k");
    assert_eq!((&told["limited"], &told["alone"]), (&true.into(), &false.into()));
    assert_eq!((&told["limit"], &told["remaining"]), (&4.into(), &1.into()));
    let hour = 3_600_000;
    let within = |name: &str, low: u64, high: u64| {
        let millis = told[name].as_u64().unwrap();
        assert!((low..=high).contains(&millis), "{name}: {millis}");
    };
    within("retry_after_ms", hour / 2, hour);
    within("reset_ms", 2 * hour, 3 * hour);
    assert_eq!(tell(&["--peek"]).code, Some(0), "one is left");
    assert_eq!(tell(&[]).code, Some(0));
    assert_eq!(tell(&["--peek"]).code, Some(75));
}

#[test]
fn bad_usage_is_64_and_a_command_that_is_not_there_127() {
    let lab = Lab::new();
    let bad: &[&[&str]] = &[
        &["limit"],
        &["limit", "k"],
        &["limit", "k", "--rate", "10"],
        &["limit", "k", "--rate", "0/s"],
        &["limit", "k", "--rate", "1/s", "--burst", "0"],
        &["limit", "k", "--rate", "1/s", "--units", "0"],
        &["limit", "k", "--rate", "1/s", "--units", "2"],
        &["limit", "k", "--rate", "1/s", "--wait", "5s"],
        &["limit", "k", "--rate", "1/s", "--wait=5"],
        &["limit", "k", "--rate", "1/s", "--when-unavailable", "ajar"],
        &["limit", "k", "--rate", "1/s", "--peek", "--", "true"],
        &["limit", "k", "--rate", "1/s", "true"],
        &["limit", "", "--rate", "1/s"],
    ];
    for arguments in bad {
        let done = lab.run(arguments);
        assert_eq!(done.code, Some(64), "{arguments:?}: {done:?}");
        assert!(!done.stderr.is_empty() && done.stdout.is_empty(), "{arguments:?}: {done:?}");
    }
    fs::write(lab.path("plain"), "").unwrap();
    for (program, code) in [("./plain", 126), ("./missing", 127)] {
        let done = lab.run(&["limit", "k", "--rate", "100/s", "--", program]);
        assert_eq!(done.code, Some(code), "{done:?}");
        assert!(done.stderr.contains(program), "{done:?}");
    }
}

#[test]
fn a_store_that_is_away_is_a_choice() {
    let lab = Lab::new();
    // Nobody listens on port 1.
    let run = |options: &[&str]| {
        let limit = ["limit", "k", "--rate", "1/s", "--store", "redis://127.0.0.1:1?timeout=200ms"];
        lab.run(&[&limit[..], options, &["--", "touch", "ran"]].concat())
    };
    let done = run(&[]);
    assert_eq!(done.code, Some(69), "{done:?}");
    assert!(done.stderr.contains("127.0.0.1:1") && !lab.path("ran").exists(), "{done:?}");
    assert_eq!(run(&["--when-unavailable", "closed", "--wait=2s"]).code, Some(69));
    assert!(!lab.path("ran").exists());
    let done = run(&["--when-unavailable", "open"]);
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(done.stderr.contains("the store is away") && lab.path("ran").exists(), "{done:?}");
}

#[test]
fn eight_processes_together_stay_within_the_limit() {
    const PROCESSES: usize = 8;
    const CALLS: usize = 12;
    let lab = Lab::new();
    let script = format!(
        "for n in $(seq {CALLS}); do \"$0\" limit k --rate 1/s --burst 5 -q -- echo run; done"
    );
    let begun = clock::now();
    let processes: Vec<_> = (0..PROCESSES)
        .map(|_| {
            let mut command = std::process::Command::new("sh");
            command.args(["-c", &script, lab::LEASEHOLD]);
            lab.prepare(&mut command);
            lab::Process::of(&mut command)
        })
        .collect();
    let ran: usize =
        processes.into_iter().map(|process| process.finish().stdout.lines().count()).sum();
    let took = clock::now().since(begun);
    let quota = Quota::new("1/s".parse().unwrap(), 5).unwrap();
    // What the rate gives in all that time, and the burst: each process takes exactly one.
    let most = u64::from(quota.burst()) + quota.overshoot(took, Duration::ZERO);
    assert!(ran as u64 <= most, "{ran} in {took:?}, not {most}");
    assert!(ran >= 5, "the burst at least: {ran}");
}
