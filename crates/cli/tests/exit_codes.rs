//! Every exit code, with a real process and a real store.

mod lab;

use lab::Lab;

#[test]
fn the_commands_code_is_passed_through() {
    let lab = Lab::new();
    for code in [0, 1, 3, 75, 124, 255] {
        let done = lab.run(&["run", "k", "--", "sh", "-c", &format!("exit {code}")]);
        assert_eq!(done.code, Some(code), "{done:?}");
        assert_eq!(done.stderr, "");
    }
}

#[test]
fn a_command_that_a_signal_ended_gives_128_and_its_number() {
    let lab = Lab::new();
    for (name, code) in [("TERM", 143), ("KILL", 137), ("INT", 130), ("USR1", 138)] {
        let done = lab.run(&["run", "k", "--", "sh", "-c", &format!("kill -s {name} $$")]);
        assert_eq!(done.code, Some(code), "{name}: {done:?}");
    }
}

#[test]
fn what_cannot_be_run_is_126_and_what_is_not_found_127() {
    let lab = Lab::new();
    std::fs::write(lab.path("plain"), "").unwrap();
    let done = lab.run(&["run", "k", "--", "./plain"]);
    assert_eq!(done.code, Some(126), "{done:?}");
    assert!(done.stderr.contains("./plain"), "{done:?}");
    let done = lab.run(&["run", "k", "--", "./missing"]);
    assert_eq!(done.code, Some(127), "{done:?}");
    // The lock was given back.
    assert_eq!(lab.run(&["run", "k", "--try", "--", "true"]).code, Some(0));
}

#[test]
fn bad_usage_is_64_wherever_it_is() {
    let lab = Lab::new();
    let long = "k".repeat(513);
    let note = "n".repeat(1025);
    let bad: &[&[&str]] = &[
        &[],
        &["frobnicate"],
        &["run"],
        &["run", "k"],
        &["run", "k", "--"],
        &["run", "k", "true"],
        &["run", "", "--", "true"],
        &["run", &long, "--", "true"],
        &["run", "k", "--ttl", "30", "--", "true"],
        &["run", "k", "--ttl", "0", "--", "true"],
        &["run", "k", "--ttl", "1s", "--grace", "2s", "--", "true"],
        &["run", "k", "--ttl", "1ns", "--", "true"],
        &["run", "k", "--ttl", "1000000h", "--", "true"],
        &["run", "k", "--max-hold", "1ms", "--", "true"],
        &["run", "k", "--wait", "-1s", "--", "true"],
        &["run", "k", "--wait", "1s", "--try", "--", "true"],
        &["run", "k", "--exit-code-lost", "256", "--", "true"],
        &["run", "k", "--store", "nosuch://x", "--", "true"],
        &["run", "k", "--store", "no scheme", "--", "true"],
        &["run", "k", "--note", &note, "--", "true"],
        &["run", "k", "--demand", "speed", "--", "true"],
        &["run", "k", "--demand", "line,machines", "--", "true"],
        &["acquire", "k", "--demand", "machines"],
        &["doctor", "--demand", "machines"],
        &["check", "k"],
        &["check", "k", "--token", "nonsense"],
        &["break"],
        &["man", "nosuch"],
    ];
    for arguments in bad {
        let done = lab.run(arguments);
        assert_eq!(done.code, Some(64), "{arguments:?}: {done:?}");
        assert!(!done.stderr.is_empty() && done.stdout.is_empty(), "{arguments:?}: {done:?}");
        assert!(!done.stderr.contains("panicked"), "{arguments:?}: {done:?}");
    }
}

#[test]
fn help_and_version_are_no_errors() {
    let lab = Lab::new();
    for arguments in [&["--help"][..], &["--version"], &["run", "-h"], &["help", "run"]] {
        let done = lab.run(arguments);
        assert_eq!(done.code, Some(0), "{done:?}");
        assert!(done.stderr.is_empty() && !done.stdout.is_empty(), "{done:?}");
    }
}

#[test]
fn a_store_that_cannot_be_used_is_69() {
    let lab = Lab::new();
    std::fs::write(lab.path("other.db"), "no database at all").unwrap();
    let store = format!("--store=sqlite:{}", lab.path("other.db").display());
    for verb in [&["run", "k", "--try", &store, "--", "true"][..], &["ls", &store]] {
        let done = lab.run(verb);
        assert_eq!(done.code, Some(69), "{done:?}");
        assert!(done.stderr.contains("other.db"), "{done:?}");
    }
    let done =
        lab.run(&["run", "k", "--try", "--exit-code-unavailable", "7", &store, "--", "true"]);
    assert_eq!(done.code, Some(7), "{done:?}");
}

#[test]
fn busy_is_75_and_waited_too_long_is_124_or_as_wanted() {
    let lab = Lab::new();
    let holder = lab.start_holding(&[], "sleep 1000");
    let run = |options: &[&str]| {
        let mut arguments = vec!["run", "k"];
        arguments.extend(options);
        arguments.extend(["--", "touch", "ran"]);
        lab.run(&arguments)
    };
    let done = run(&["--try"]);
    assert_eq!(done.code, Some(75), "{done:?}");
    assert!(done.stderr.contains("held by"), "{done:?}");
    assert_eq!(run(&["--wait", "50ms"]).code, Some(124));
    assert_eq!(run(&["--try", "--exit-code-busy", "3"]).code, Some(3));
    assert_eq!(run(&["--wait", "50ms", "--exit-code-timeout", "4"]).code, Some(4));
    assert_eq!(lab.run(&["acquire", "k", "--try"]).code, Some(75));
    assert!(!lab.path("ran").exists());
    drop(holder);
}

#[test]
fn a_bad_setting_is_78_and_named() {
    let lab = Lab::new();
    let mut command = lab.leasehold(&["run", "k", "--", "true"]);
    let done = lab::Process::of(command.env("LEASEHOLD_TTL", "soon")).finish();
    assert_eq!(done.code, Some(78), "{done:?}");
    assert!(done.stderr.contains("LEASEHOLD_TTL: bad value \"soon\""), "{done:?}");
    let mut command = lab.leasehold(&["run", "k", "--", "true"]);
    let done = lab::Process::of(command.env("LEASEHOLD_TTL", "1ns")).finish();
    assert_eq!(done.code, Some(78), "{done:?}");
    assert!(done.stderr.contains("TTL from LEASEHOLD_TTL"), "{done:?}");
}

#[test]
fn a_wait_that_is_interrupted_gives_up_its_place() {
    let lab = Lab::new();
    let holder = lab.start_holding(&[], "sleep 1000");
    for (name, code) in [("INT", 130), ("TERM", 143), ("HUP", 129), ("QUIT", 131)] {
        let waiter = lab.start(&["run", "k", "--", "touch", "ran"]);
        lab.wait_for_line("k", 1, 1);
        waiter.signal(name);
        let done = waiter.finish();
        assert_eq!(done.code, Some(code), "{name}: {done:?}");
        // At once, not with the TTL.
        assert_eq!(lab.inspect("k")["waiters"].as_array().unwrap().len(), 0);
    }
    assert!(!lab.path("ran").exists());
    drop(holder);
}

#[test]
fn what_is_demanded_and_not_there_is_all_named_with_who_has_it() {
    let lab = Lab::new();
    let run = |demand| lab.run(&["run", "k", "--demand", demand, "--", "true"]);
    assert_eq!(run("line, frees-at-once").code, Some(0));
    let done = run("line,machines,survives-failover");
    assert_eq!(done.code, Some(64), "{done:?}");
    for part in ["machines (Redis, ", "survives-failover (ZooKeeper)", "demand from --demand"] {
        assert!(done.stderr.contains(part), "{part}: {done:?}");
    }
    assert!(!done.stderr.contains("line ("), "that it has: {done:?}");
}
