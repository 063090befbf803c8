//! What happens to the command when the lock is lost.

mod lab;

use lab::{Lab, eventually, is_running, signal, wait_for_end};

/// Runs until it is told to end, tells that it was, and ends well.
const GENTLE: &str = "trap 'echo told > told; exit 0' TERM; while :; do sleep 0.01; done";
/// Cannot be told.
const STUBBORN: &str =
    "trap '' TERM; sleep 1000 & echo $! > grandchild; while :; do sleep 0.01; done";

#[test]
fn a_broken_lock_ends_the_command_and_exits_97() {
    let lab = Lab::new();
    let holder = lab.start_holding(&[], GENTLE);
    let broken = lab.run(&["break", "k", "--yes"]);
    assert_eq!(broken.code, Some(0), "{broken:?}");
    let done = holder.finish();
    // Although the command itself ended with 0.
    assert_eq!(done.code, Some(97), "{done:?}");
    assert!(done.stderr.contains("lost the lock on \"k\""), "{done:?}");
    assert_eq!(lab.wait_for("told"), "told");
}

#[test]
fn a_command_that_does_not_heed_is_killed_with_all_its_group() {
    let lab = Lab::new();
    let options = ["--grace", "200ms", "--exit-code-lost", "42"];
    let holder = lab.start_holding(&options, STUBBORN);
    let (command, grandchild) = (lab.wait_for("started"), lab.wait_for("grandchild"));
    lab.run(&["break", "k", "--yes"]);
    let done = holder.finish();
    assert_eq!(done.code, Some(42), "{done:?}");
    assert!(!is_running(&command) && !is_running(&grandchild));
}

#[test]
fn while_the_program_is_stopped_the_guardian_keeps_the_deadline() {
    let lab = Lab::new();
    let holder = lab.start_holding(&["--ttl", "1s"], STUBBORN);
    let (command, grandchild) = (lab.wait_for("started"), lab.wait_for("grandchild"));
    // It looks when it is granted, which is as soon as the hold lapses.
    let gone = |process: &str| format!("(! grep '^State:.[^ZX]' /proc/{process}/status)");
    let check = format!("{} && {}", gone(&command), gone(&grandchild));
    let next = lab.start(&["run", "k", "--", "sh", "-c", &check]);
    lab.wait_for_line("k", 1, 1);
    holder.signal("STOP");
    let seen = next.finish();
    assert_eq!(seen.code, Some(0), "{seen:?}");
    holder.signal("CONT");
    let done = holder.finish();
    assert_eq!(done.code, Some(97), "{done:?}");
}

#[test]
fn the_guardian_asks_before_it_kills() {
    let lab = Lab::new();
    let holder = lab.start_holding(&["--ttl", "1s"], GENTLE);
    let command = lab.wait_for("started");
    holder.signal("STOP");
    assert_eq!(lab.wait_for("told"), "told");
    wait_for_end(&command);
    holder.signal("CONT");
    assert_eq!(holder.finish().code, Some(97));
}

#[test]
fn a_stopped_command_is_ended_too() {
    let lab = Lab::new();
    let holder = lab.start_holding(&[], STUBBORN);
    let command = lab.wait_for("started");
    signal(command.parse().unwrap(), "STOP");
    eventually("the stop", || (lab::state_of(&command) == Some('T')).then_some(()));
    // Without a terminal it is nobody's job: it stays stopped and holds on.
    assert_eq!(lab.inspect("k")["holders"].as_array().unwrap().len(), 1);
    lab.run(&["break", "k", "--yes"]);
    assert_eq!(holder.finish().code, Some(97));
    assert!(!is_running(&command));
}

#[test]
fn a_lock_is_kept_no_longer_than_was_allowed() {
    let lab = Lab::new();
    let options = ["--ttl", "600ms", "--grace", "100ms", "--max-hold", "1500ms"];
    let done = lab.start_holding(&options, STUBBORN).finish();
    assert_eq!(done.code, Some(97), "{done:?}");
    assert!(!is_running(&lab.wait_for("grandchild")));
}

#[test]
fn the_next_in_line_gets_a_broken_lock_and_a_greater_fence() {
    let lab = Lab::new();
    let holder = lab.start_holding(&[], "echo $LEASEHOLD_FENCE > first; sleep 1000");
    let next = lab.start(&["run", "k", "--", "sh", "-c", "echo $LEASEHOLD_FENCE"]);
    lab.wait_for_line("k", 1, 1);
    let first: u64 = lab.wait_for("first").parse().unwrap();
    lab.run(&["break", "k", "--yes"]);
    let done = next.finish();
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(done.stdout.trim().parse::<u64>().unwrap() > first);
    assert_eq!(holder.finish().code, Some(97));
}

#[test]
fn when_the_program_is_killed_the_next_one_starts_after_the_command_is_gone() {
    let lab = Lab::new();
    let holder = lab.start_holding(&[], "while :; do echo $$ > last; done");
    let command = lab.wait_for("started");
    let check =
        format!("grep -q '^State:.[ZX]' /proc/{command}/status || test ! -e /proc/{command}");
    let next = lab.start(&["run", "k", "--", "sh", "-c", &check]);
    lab.wait_for_line("k", 1, 1);
    holder.signal("KILL");
    let done = next.finish();
    assert_eq!(done.code, Some(0), "{done:?}");
}
