//! `leasehold once` and `leasehold jobs`.

mod lab;

use lab::{Lab, eventually};
use serde_json::Value;

fn once<'a>(flags: &[&'a str], script: &'a str) -> Vec<&'a str> {
    [&["once", "job"], flags, &["--", "sh", "-c", script]].concat()
}

fn lines(lab: &Lab, file: &str) -> usize {
    std::fs::read_to_string(lab.path(file)).map_or(0, |text| text.lines().count())
}

#[test]
fn of_many_hosts_one_runs_it_and_the_others_say_who_did() {
    let lab = Lab::new();
    let arguments = once(&["--version", "v1", "--wait"], "echo ran >> log; sleep 0.2");
    let hosts: Vec<_> = (0..10).map(|_| lab.start(&arguments)).collect();
    for host in hosts {
        let done = host.finish();
        assert_eq!(done.code, Some(0), "{done:?}");
    }
    assert_eq!(lines(&lab, "log"), 1);
    let late = lab.run(&arguments);
    assert!(late.code == Some(0) && late.stderr.contains("has been done"), "{late:?}");
    // Another version is another run, and the first is not run again after it.
    assert_eq!(lab.run(&once(&["--version", "v2"], "echo ran >> log")).code, Some(0));
    assert_eq!(lab.run(&arguments).code, Some(0));
    assert_eq!(lines(&lab, "log"), 2);
}

#[test]
fn while_it_is_run_others_are_told_so() {
    let lab = Lab::new();
    let script = "touch began; while ! test -e go; do sleep 0.02; done";
    assert_eq!(lab.run(&once(&["--version", "v1"], "true")).code, Some(0));
    let first = lab.start(&once(&["--every", "1h"], script));
    lab.wait_for("began");
    let done = lab.run(&once(&["--version", "v1"], "echo ran >> log"));
    assert_eq!(done.code, Some(0), "that it was done needs no lock: {done:?}");
    let busy = lab.run(&once(&["--every", "1h"], "echo ran >> log"));
    assert_eq!(busy.code, Some(75), "{busy:?}");
    let late = lab.run(&once(&["--every", "1h", "--wait=50ms"], "echo ran >> log"));
    assert_eq!(late.code, Some(124), "{late:?}");
    let listed: Value = serde_json::from_str(&lab.run(&["jobs", "--json"]).stdout).unwrap();
    assert_eq!((&listed["key"], &listed["ok"]), (&"job".into(), &Value::Null), "{listed}");
    std::fs::write(lab.path("go"), "").unwrap();
    assert_eq!(first.finish().code, Some(0));
    assert_eq!(lines(&lab, "log"), 0);
}

#[test]
fn who_dies_lets_the_next_one_try() {
    let lab = Lab::new();
    let first = lab.start(&once(&["--version", "v1"], "echo a >> log; touch began; sleep 60"));
    lab.wait_for("began");
    first.signal("KILL");
    let next = lab.run(&once(&["--version", "v1", "--wait"], "echo b >> log"));
    assert_eq!(next.code, Some(0), "{next:?}");
    assert_eq!(std::fs::read_to_string(lab.path("log")).unwrap(), "a\nb\n");
}

#[test]
fn a_failure_is_told_and_tried_again_as_often_as_wanted() {
    let lab = Lab::new();
    let failing = "echo ran >> log; exit 3";
    assert_eq!(lab.run(&once(&["--version", "v1"], failing)).code, Some(3), "its own code");
    let told = lab.run(&once(&["--version", "v1"], failing));
    assert!(told.code == Some(99) && told.stderr.contains("exit code 3"), "{told:?}");
    assert_eq!(lines(&lab, "log"), 1);
    let again = once(&["--version", "v1", "--retry-failed", "1"], failing);
    assert_eq!(lab.run(&again).code, Some(3));
    assert_eq!(lab.run(&again).code, Some(99));
    assert_eq!(lines(&lab, "log"), 2);
    let listed: Value = serde_json::from_str(&lab.run(&["jobs", "--json"]).stdout).unwrap();
    assert!(listed["ok"] == false && listed["code"] == 3 && listed["failures"] == 2, "{listed}");
    let shown = lab.run(&["jobs"]).stdout;
    assert!(shown.contains("job  failed with exit code 3"), "{shown}");
    assert_eq!(lab.run(&["jobs", "other"]).stdout, "");
}

#[test]
fn who_waits_for_one_that_fails_is_told_or_tries_again() {
    let lab = Lab::new();
    let script = "echo ran >> log; touch began; while ! test -e go; do sleep 0.02; done; exit 3";
    for (version, retries, codes, runs) in [("v1", "0", [99, 99], 1), ("v2", "1", [3, 99], 2)] {
        let flags = ["--version", version, "--retry-failed", retries, "--wait"];
        for file in ["log", "began", "go"] {
            let _ = std::fs::remove_file(lab.path(file));
        }
        let first = lab.start(&once(&flags, script));
        lab.wait_for("began");
        let waiting = [(); 2].map(|()| lab.start(&once(&flags, script)));
        lab.wait_for_line("job", 1, 2);
        std::fs::write(lab.path("go"), "").unwrap();
        assert_eq!(first.finish().code, Some(3), "its own code");
        let mut ended = waiting.map(|host| host.finish().code.unwrap());
        ended.sort_unstable();
        assert_eq!((ended, lines(&lab, "log")), (codes, runs), "{version}");
    }
}

#[test]
fn a_command_that_was_killed_has_failed_and_one_that_cannot_be_run_has_not() {
    let lab = Lab::new();
    let killed = lab.run(&once(&["--version", "v1"], "kill -KILL $$"));
    assert_eq!(killed.code, Some(137), "{killed:?}");
    let listed: Value = serde_json::from_str(&lab.run(&["jobs", "--json"]).stdout).unwrap();
    assert_eq!((&listed["ok"], &listed["code"]), (&false.into(), &Value::Null), "{listed}");
    assert!(lab.run(&["jobs"]).stdout.contains("job  failed after"));
    let told = lab.run(&once(&["--version", "v1"], "touch ran"));
    assert!(told.code == Some(99) && !told.stderr.contains("exit code"), "{told:?}");
    let missing = lab.run(&["once", "job", "--version", "v2", "--", "./nowhere"]);
    assert_eq!(missing.code, Some(127), "{missing:?}");
    assert!(!lab.path("ran").exists());
    assert_eq!(lab.run(&once(&["--version", "v2"], "touch ran")).code, Some(0));
    assert!(lab.path("ran").exists(), "another host has it");
}

#[test]
fn a_command_that_was_interrupted_is_tried_by_the_next() {
    let lab = Lab::new();
    for (version, script, code) in [
        ("killed", "touch began; sleep 60", 143),
        ("gave up", "trap 'exit 3' TERM; touch began; while :; do sleep 0.02; done", 3),
    ] {
        let first = lab.start(&once(&["--version", version], script));
        lab.wait_for("began");
        first.signal("TERM");
        assert_eq!(first.finish().code, Some(code), "{version}");
        std::fs::remove_file(lab.path("began")).unwrap();
        let next = lab.run(&once(&["--version", version], "echo ran >> log"));
        assert_eq!(next.code, Some(0), "{version}: {next:?}");
    }
    assert_eq!(lines(&lab, "log"), 2);
    // Who finishes all the same has finished.
    let script = "trap 'exit 0' TERM; touch began; while :; do sleep 0.02; done";
    let first = lab.start(&once(&["--version", "done"], script));
    lab.wait_for("began");
    first.signal("TERM");
    assert_eq!(first.finish().code, Some(0));
    assert_eq!(lab.run(&once(&["--version", "done"], "echo ran >> log")).code, Some(0));
    assert_eq!(lines(&lab, "log"), 2);
}

#[test]
fn a_job_whose_lock_is_lost_is_ended_with_97_and_tried_by_the_next() {
    let lab = Lab::new();
    let first = lab.start(&once(&["--version", "v1"], "echo a >> log; touch began; sleep 60"));
    lab.wait_for("began");
    let broken = lab.run(&["break", "job", "--yes"]);
    assert_eq!(broken.code, Some(0), "{broken:?}");
    let done = first.finish();
    assert_eq!(done.code, Some(97), "{done:?}");
    let listed: Value = serde_json::from_str(&lab.run(&["jobs", "--json"]).stdout).unwrap();
    assert_eq!((&listed["ok"], &listed["failures"]), (&Value::Null, &0.into()), "{listed}");
    let next = lab.run(&once(&["--version", "v1"], "echo b >> log"));
    assert_eq!((next.code, lines(&lab, "log")), (Some(0), 2), "{next:?}");
}

#[test]
fn two_runs_do_not_begin_closer_than_they_may() {
    let lab = Lab::new();
    let flags = ["--every", "1s", "--at-least", "1h"];
    assert_eq!(lab.run(&once(&flags, "echo ran >> log")).code, Some(0));
    // In this second or a later one.
    let mut said = String::new();
    eventually("another second", || {
        let again = lab.run(&once(&flags, "echo ran >> log"));
        assert_eq!(again.code, Some(0), "{again:?}");
        said = again.stderr;
        said.contains("a moment ago").then_some(())
    });
    assert_eq!(lines(&lab, "log"), 1, "{said}");
    for huge in ["106751991167300d", "2000000000000h"] {
        let huge = ["--every", "1s", "--at-least", huge];
        let done = lab.run(&once(&huge, "echo ran >> log"));
        assert!(matches!(done.code, Some(0 | 64)) && lines(&lab, "log") == 1, "{done:?}");
    }
}

#[test]
fn a_job_that_takes_longer_than_its_lease_is_run_once_all_the_same() {
    let lab = Lab::new();
    let slow = once(&["--version", "v1", "--ttl", "1s", "--wait"], "echo ran >> log; sleep 2.5");
    let hosts: Vec<_> = (0..3).map(|_| lab.start(&slow)).collect();
    for host in hosts {
        assert_eq!(host.finish().code, Some(0));
    }
    assert_eq!(lines(&lab, "log"), 1);
}

#[test]
fn a_cron_job_is_run_at_its_time_or_caught_up() {
    let lab = Lab::new();
    // The first of January, a long time ago: but for five minutes a year.
    let yearly = ["--cron", "0 0 1 1 *", "--tz", "Europe/Berlin"];
    let skipped = lab.run(&once(&yearly, "echo ran >> log"));
    assert!(skipped.code == Some(0) && lines(&lab, "log") <= 1, "{skipped:?}");
    // It cannot be now and half a year ago.
    let half = ["--cron", "0 0 1 7 *", "--tz", "Europe/Berlin"];
    let other = lab.run(&[&["once", "other"], &half[..], &["--", "touch", "ran"]].concat());
    assert!(
        other.code == Some(0) && lines(&lab, "log") + usize::from(lab.path("ran").exists()) <= 1
    );
    assert!([&skipped, &other].iter().any(|done| done.stderr.contains("--catch-up")), "{other:?}");
    let caught_up = lab.run(&once(&[&yearly[..], &["--catch-up"]].concat(), "echo ran >> log"));
    assert_eq!((caught_up.code, lines(&lab, "log")), (Some(0), 1), "{caught_up:?}");
    let listed: Value = serde_json::from_str(&lab.run(&["jobs", "--json"]).stdout).unwrap();
    assert!(listed["next"].as_str().unwrap().contains("-12-31T23:00:00Z"), "{listed}");
}

#[test]
fn a_schedule_that_is_none_is_bad_usage() {
    let lab = Lab::new();
    for flags in [
        &[][..],
        &["--every", "1h", "--version", "v1"],
        &["--every", "1ms"],
        &["--version", ""],
        &["--cron", "61 * * * *"],
        &["--cron", "* * * * *", "--tz", "Nowhere/At"],
        &["--every", "1h", "--tz", "UTC"],
    ] {
        let done = lab.run(&once(flags, "touch ran"));
        assert_eq!(done.code, Some(64), "{flags:?}: {done:?}");
        assert!(!done.stderr.is_empty() && !lab.path("ran").exists(), "{flags:?}");
    }
    let memory =
        lab.run(&["once", "k", "--every", "1h", "--store", "redlock://a,b,c", "--", "true"]);
    assert!(memory.code == Some(64) && memory.stderr.contains("no records"), "{memory:?}");
    // Interrupted while it waits.
    let first = lab.start(&once(&["--version", "w"], "touch began; sleep 60"));
    lab.wait_for("began");
    let waiting = lab.start(&once(&["--version", "w", "--wait"], "true"));
    lab.wait_for_line("job", 1, 1);
    waiting.signal("INT");
    assert_eq!(waiting.finish().code, Some(130));
    first.signal("TERM");
    let mut first = first;
    eventually("the end", || first.has_ended().then_some(()));
}

#[test]
fn what_an_operator_forgets_is_run_again() {
    let lab = Lab::new();
    let arguments = once(&["--version", "v1"], "echo ran >> log");
    assert_eq!(lab.run(&arguments).code, Some(0));
    assert_eq!(lab.run(&arguments).code, Some(0));
    assert_eq!(lines(&lab, "log"), 1);
    let forgot = lab.run(&["forget", "job"]);
    assert!(forgot.code == Some(0) && forgot.stderr.contains("forgot"), "{forgot:?}");
    assert_eq!(lab.run(&["jobs"]).stdout, "");
    assert_eq!(lab.run(&arguments).code, Some(0));
    assert_eq!(lines(&lab, "log"), 2);
    let nothing = lab.run(&["forget", "other"]);
    assert!(nothing.code == Some(0) && nothing.stderr.contains("nothing"), "{nothing:?}");
    let redlock =
        lab.run(&["forget", "job", "--store", "redlock://127.0.0.1:1,127.0.0.1:2,127.0.0.1:3"]);
    assert!(redlock.code == Some(64) && redlock.stderr.contains("no records"), "{redlock:?}");
}
