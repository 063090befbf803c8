//! Bad histories, one for each rule: the judge has to refuse them.

use super::*;

const RULES: Rules = Rules {
    patience: Duration::from_nanos(100),
    grace: Duration::from_nanos(5),
    frees_at_once: false,
};

/// A record in which `process turn at what…` happened, line by line.
fn record(lines: &[&str]) -> Record {
    let parse = |line: &&str| {
        let (process, step) = line.split_once(' ').unwrap();
        (process.parse().unwrap(), step.parse().unwrap())
    };
    Record { steps: lines.iter().map(parse).collect(), ..Record::default() }
}

fn at(nanos: u64) -> Moment {
    Moment::from_nanos(nanos)
}

fn span(from: u64, to: u64) -> Span {
    Span { from: at(from), to: at(to) }
}

#[track_caller]
fn refused(record: &Record, why: &str) {
    let said = judge(record, RULES).unwrap_err();
    assert!(said.contains(why), "{said}");
}

/// Process 1 holds from 10 to 20, with a deadline of 50; process 2 from 30 to 40.
const GOOD: [&str; 10] = [
    "1 0 5 want 1 1 k",
    "2 0 6 want 1 1 k",
    "1 0 10 held 1 50",
    "1 0 20 good 50",
    "1 0 21 leaving",
    "1 0 22 left held",
    "2 0 30 held 2 70",
    "2 0 40 good 80",
    "2 0 41 leaving",
    "2 0 42 left held",
];

fn but(index: usize, line: &'static str) -> Vec<&'static str> {
    let mut lines = GOOD.to_vec();
    lines[index] = line;
    lines
}

#[test]
fn a_good_history_is_accepted_and_counted() {
    let verdict = judge(&record(&GOOD), RULES).unwrap();
    assert_eq!(verdict, Verdict { holds: 2, lost: 0, idle: Duration::ZERO });
}

#[test]
fn two_that_hold_at_once_are_refused() {
    refused(&record(&but(6, "2 0 19 held 2 70")), "too many holders");
}

#[test]
fn a_semaphore_that_lets_in_too_many_is_refused() {
    let lines = [
        "1 0 1 want 2 3 k",
        "2 0 1 want 1 3 k",
        "3 0 1 want 1 3 k",
        "1 0 10 held 1 50",
        "2 0 11 held 2 50",
        "3 0 12 held 3 50",
        "1 0 20 good 50",
        "2 0 20 good 50",
    ];
    refused(&record(&lines), "too many holders");
}

#[test]
fn a_fence_that_falls_or_repeats_is_refused() {
    refused(&record(&but(6, "2 0 30 held 1 70")), "given twice");
    let falls = but(2, "1 0 10 held 3 50");
    refused(&record(&falls), "does not grow");
    // Also where the grant came too late to be used.
    let late = but(6, "2 0 30 late 1");
    refused(&record(&late[..7]), "given twice");
}

#[test]
fn a_good_check_at_or_after_the_deadline_is_refused() {
    refused(&record(&but(3, "1 0 50 good 50")), "after the deadline");
    refused(&record(&but(6, "2 0 70 held 2 70")), "after the deadline");
}

#[test]
fn a_hold_that_comes_back_after_its_loss_is_refused() {
    let lines = ["1 0 5 want 1 1 k", "1 0 10 held 1 50", "1 0 20 lost", "1 0 21 good 50"];
    refused(&record(&lines), "after the loss");
}

#[test]
fn a_deadline_that_moves_back_is_refused() {
    refused(&record(&but(3, "1 0 20 good 49")), "moved back");
}

#[test]
fn a_grant_before_the_deadline_of_a_killed_holder_is_refused_unless_death_frees() {
    let lines: Vec<&str> = GOOD.into_iter().filter(|line| !line.starts_with("1 0 2")).collect();
    let mut killed = record(&lines);
    killed.killed.insert(1, at(25));
    refused(&killed, "too many holders");
    judge(&killed, Rules { frees_at_once: true, ..RULES }).unwrap();
    let mut after_the_release = record(&GOOD[..]);
    after_the_release.killed.insert(1, at(25));
    judge(&after_the_release, RULES).unwrap();
}

#[test]
fn a_grant_before_the_deadline_of_a_holder_that_lost_is_refused() {
    let lost = |when: &'static str| {
        let mut lines: Vec<&str> = GOOD.into_iter().collect();
        lines[3] = when;
        lines.drain(4..6);
        record(&lines)
    };
    judge(&lost("1 0 25 lost"), RULES).unwrap();
    refused(&lost("1 0 60 lost"), "too many holders");
}

#[test]
fn a_release_that_finds_nothing_before_the_deadline_is_refused() {
    refused(&record(&but(5, "1 0 22 left lost")), "before its deadline");
    refused(&record(&but(5, "1 0 44 left lost")), "before its deadline");
    judge(&record(&but(5, "1 0 45 left lost")), RULES).unwrap();
    judge(&record(&but(5, "1 0 22 left unknown")), RULES).unwrap();
}

#[test]
fn a_live_waiter_that_was_never_granted_is_refused() {
    let mut waits = record(&GOOD[..6]);
    refused(&waits, "never granted");
    waits.killed.insert(2, at(60));
    judge(&waits, RULES).unwrap();
    judge(&record(&[&GOOD[..6], &["2 0 50 gave-up"]].concat()), RULES).unwrap();
}

#[test]
fn an_error_where_the_library_should_go_on_is_refused() {
    refused(&record(&["1 0 5 want 1 1 k", "1 0 6 failed no idea"]), "no idea");
    refused(&record(&["1 0 5 lost"]), "without a want");
}

#[test]
fn a_key_that_stands_idle_in_a_calm_is_refused() {
    // Process 1 died at 25, and the next one got the key after more than 100.
    let mut lines = GOOD.to_vec();
    lines.truncate(4);
    lines.extend(["2 0 140 held 2 170", "2 0 141 leaving", "3 0 120 want 1 1 other"]);
    lines.extend(["3 0 121 held 1 190", "3 0 150 good 200", "3 0 151 leaving"]);
    let mut idle = record(&lines);
    idle.killed.insert(1, at(25));
    judge(&idle, RULES).unwrap();
    idle.calms = vec![span(26, 300)];
    refused(&idle, "idle for 114ns");
    // Who was in trouble cannot complain.
    idle.troubled = vec![(2, span(100, 130))];
    judge(&idle, RULES).unwrap();
    idle.troubled = vec![(3, span(100, 130)), (2, span(1, 25))];
    refused(&idle, "idle for 114ns");
    // Nor who wants something else; and a hold that goes on is not idle.
    idle.steps.push((4, "0 30 want 1 1 k".parse().unwrap()));
    idle.steps.push((4, "0 51 held 9 120".parse().unwrap()));
    idle.steps.push((4, "0 115 good 120".parse().unwrap()));
    idle.steps.push((4, "0 116 leaving".parse().unwrap()));
    let said = judge(&idle, RULES).unwrap_err();
    assert!(said.contains("does not grow"), "busy, and then wrong for another reason: {said}");
}

#[test]
fn a_key_that_is_never_granted_again_in_a_calm_is_refused() {
    let mut stuck = record(&["1 0 5 want 1 1 k"]);
    stuck.killed.insert(1, at(500));
    stuck.calms = vec![span(10, 100)];
    assert_eq!(judge(&stuck, RULES).unwrap().idle, Duration::from_nanos(90));
    stuck.calms = vec![span(10, 111)];
    refused(&stuck, "idle for 101ns");
}
