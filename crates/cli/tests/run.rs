//! `leasehold run`: the command, its surroundings and its end.

mod lab;

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::process::Stdio;

use lab::{Lab, Process, eventually, is_running, signal, wait_for_end};

#[test]
fn the_command_is_told_what_it_holds() {
    let lab = Lab::new();
    let done = lab.run(&["run", "jobs/42", "--", "env"]);
    assert_eq!(done.code, Some(0), "{done:?}");
    let told: HashMap<_, _> = done.stdout.lines().filter_map(|line| line.split_once('=')).collect();
    assert_eq!(told["LEASEHOLD_KEY"], "jobs/42");
    assert_eq!(told["LEASEHOLD_STORE"], lab.store());
    let fence: u64 = told["LEASEHOLD_FENCE"].parse().unwrap();
    let deadline: u128 = told["LEASEHOLD_DEADLINE"].parse().unwrap();
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_millis();
    assert!((now..now + 30_000).contains(&deadline), "{deadline} at {now}");
    // Greater for the next one.
    let next = lab.run(&["run", "jobs/42", "--", "sh", "-c", "echo $LEASEHOLD_FENCE"]);
    assert!(next.stdout.trim().parse::<u64>().unwrap() > fence);
}

#[test]
fn the_command_has_the_standard_streams() {
    let lab = Lab::new();
    let mut command = lab.leasehold(&["run", "k", "--", "sh", "-c", "cat; echo oops >&2"]);
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"hello").unwrap();
    let done = child.wait_with_output().unwrap();
    assert_eq!((&done.stdout[..], &done.stderr[..]), (&b"hello"[..], &b"oops\n"[..]));
}

#[test]
fn the_command_inherits_no_other_descriptor() {
    let lab = Lab::new();
    let count = |done: lab::Finished| {
        assert_eq!(done.code, Some(0), "{done:?}");
        done.stdout.lines().filter(|line| line.contains("->")).count()
    };
    // What this test itself was started with, it hands on.
    let mut plain = std::process::Command::new("ls");
    lab.prepare(plain.args(["-l", "/proc/self/fd"]));
    let before = count(Process::of(&mut plain).finish());
    assert_eq!(count(lab.run(&["run", "k", "--", "ls", "-l", "/proc/self/fd"])), before);
}

#[test]
fn contenders_hold_one_at_a_time_with_growing_fences() {
    let lab = Lab::new();
    let script = "test ! -e busy || echo overlap >> log; touch busy; echo $LEASEHOLD_FENCE >> log; \
                  rm busy";
    let contenders: Vec<_> =
        (0..12).map(|_| lab.start(&["run", "k", "--", "sh", "-c", script])).collect();
    for contender in contenders {
        let done = contender.finish();
        assert_eq!(done.code, Some(0), "{done:?}");
    }
    let log = std::fs::read_to_string(lab.path("log")).unwrap();
    let fences: Vec<u64> = log.lines().map(|line| line.parse().expect(&log)).collect();
    assert_eq!(fences.len(), 12);
    assert!(fences.is_sorted_by(|earlier, later| earlier < later), "{fences:?}");
}

#[test]
fn the_lock_is_free_when_the_program_has_ended() {
    let lab = Lab::new();
    for _ in 0..5 {
        assert_eq!(lab.run(&["run", "k", "--try", "--", "true"]).code, Some(0));
    }
    assert_eq!(lab.run(&["ls"]).stdout, "");
}

#[test]
fn the_lock_is_kept_for_longer_than_its_ttl() {
    let lab = Lab::new();
    let holder = lab.start_holding(&["--ttl", "300ms"], "sleep 1000");
    let fence = lab.inspect("k")["holders"][0]["fence"].clone();
    // Seen renewed: with more left than it had been granted with, less what has passed.
    let mut renewals = 0;
    let mut left = u64::MAX;
    eventually("five renewals", || {
        let seen = &lab.inspect("k")["holders"][0];
        assert_eq!(seen["fence"], fence);
        let now = seen["left_ms"].as_u64().unwrap();
        renewals += u32::from(now > left);
        left = now;
        (renewals >= 5).then_some(())
    });
    drop(holder);
}

#[test]
fn signals_reach_the_command() {
    let lab = Lab::new();
    let mut script = String::new();
    let names = ["TERM", "INT", "HUP", "QUIT", "USR1", "USR2", "WINCH"];
    for name in names {
        writeln!(script, "trap 'echo {name} >> got' {name}").unwrap();
    }
    script.push_str("touch ready; until test -e stop; do sleep 0.01; done");
    let holder = lab.start_holding(&[], &script);
    lab.wait_for("ready");
    for (count, name) in names.iter().enumerate() {
        holder.signal(name);
        let got = eventually("the signal", || {
            let got = std::fs::read_to_string(lab.path("got")).ok()?;
            (got.lines().count() > count).then_some(got)
        });
        assert_eq!(got.lines().last(), Some(*name));
    }
    std::fs::write(lab.path("stop"), "").unwrap();
    let done = holder.finish();
    assert_eq!(done.code, Some(0), "{done:?}");
    // Each once.
    let got = std::fs::read_to_string(lab.path("got")).unwrap();
    assert_eq!(got.lines().collect::<Vec<_>>(), names);
}

#[test]
fn signals_reach_the_whole_group() {
    let lab = Lab::new();
    let holder = lab.start_holding(&[], "sleep 1000 & echo $! > grandchild; sleep 1000");
    let grandchild = lab.wait_for("grandchild");
    holder.signal("TERM");
    assert_eq!(holder.finish().code, Some(143));
    assert!(!is_running(&grandchild));
}

#[test]
fn ignored_signals_stay_ignored() {
    let lab = Lab::new();
    let script = format!(
        "trap '' HUP; exec {} run k -- sh -c 'touch started; until test -e stop; do sleep 0.01; \
         done; exit 5'",
        lab::LEASEHOLD
    );
    let mut command = std::process::Command::new("setsid");
    command.args(["sh", "-c", &script]);
    lab.prepare(&mut command);
    let holder = Process::of(&mut command);
    lab.wait_for("started");
    holder.signal("HUP");
    std::fs::write(lab.path("stop"), "").unwrap();
    assert_eq!(holder.finish().code, Some(5));
}

#[test]
fn what_the_command_leaves_running_ends_before_the_lock_is_free() {
    let lab = Lab::new();
    let script = "(trap 'echo told > told; exit' TERM; echo 1 > ready; while :; do sleep 0.01; done) & \
                  echo $! > left; until test -e ready; do sleep 0.01; done; exit 6";
    let done = lab.start_holding(&[], script).finish();
    assert_eq!(done.code, Some(6), "{done:?}");
    assert!(!is_running(&lab.wait_for("left")));
    assert_eq!(lab.wait_for("told"), "told");
}

#[test]
fn what_does_not_heed_that_is_killed() {
    let lab = Lab::new();
    let script = "(trap '' TERM; echo 1 > ready; while :; do sleep 0.01; done) & \
                  echo $! > left; until test -e ready; do sleep 0.01; done";
    let done = lab.start_holding(&["--grace", "50ms"], script).finish();
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(!is_running(&lab.wait_for("left")));
}

#[test]
fn when_the_program_is_killed_the_command_does_not_go_on() {
    let lab = Lab::new();
    let holder =
        lab.start_holding(&[], "trap '' TERM HUP; sleep 1000 & echo $! > grandchild; sleep 1000");
    let (child, grandchild) = (lab.wait_for("started"), lab.wait_for("grandchild"));
    assert!(is_running(&child) && is_running(&grandchild));
    holder.signal("KILL");
    wait_for_end(&child);
    wait_for_end(&grandchild);
    // And the guardian is gone too: nobody of that group is left.
    assert_eq!(holder.finish().code, None);
}

#[test]
fn a_command_that_left_the_group_is_killed_too() {
    let lab = Lab::new();
    // What an interactive shell does: a group of its own.
    // sleep: of the command, which is to be ended.
    let python = "import os, time; os.setpgid(0, 0); open('moved', 'w').write(str(os.getpid())); \
                  time.sleep(1000)";
    let holder = lab.start(&["run", "k", "--", "python3", "-c", python]);
    let command = eventually("the move", || {
        std::fs::read_to_string(lab.path("moved")).ok().filter(|text| !text.is_empty())
    });
    holder.signal("KILL");
    wait_for_end(&command);
}

fn group_of(process: &str) -> u32 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    stat.rsplit_once(") ").unwrap().1.split(' ').nth(2).unwrap().parse().unwrap()
}

#[test]
fn the_guardian_outlives_every_other_signal() {
    let lab = Lab::new();
    let holder = lab.start_holding(&[], "trap '' TERM INT HUP QUIT USR1 USR2 ALRM; sleep 1000");
    let command = lab.wait_for("started");
    let group = group_of(&command);
    for name in ["TERM", "INT", "HUP", "QUIT", "USR1", "USR2", "ALRM", "TSTP", "TTIN", "34"] {
        signal(group, name);
    }
    assert!(is_running(&group.to_string()));
    holder.signal("KILL");
    wait_for_end(&command);
}

#[test]
fn the_guardian_keeps_the_store_from_seeing_the_program_dead() {
    let lab = Lab::new();
    let holder = lab.start_holding(&[], "sleep 1000");
    let command = lab.wait_for("started");
    let guardian = group_of(&command);
    // Until the guardian takes it from its socket the kernel keeps it open, too.
    eventually("the guardian's lifeline", || {
        let mut open = std::fs::read_dir(format!("/proc/{guardian}/fd")).unwrap();
        open.any(|entry| {
            let target = std::fs::read_link(entry.unwrap().path()).unwrap_or_default();
            target.to_string_lossy().contains("locks.db-peers/")
        })
        .then_some(())
    });
    drop(holder);
}

#[test]
fn a_guardian_that_nobody_started_does_no_harm() {
    let lab = Lab::new();
    // Not the leader of its group: it would kill the shell and this line with it.
    let script =
        format!("(exec -a leasehold-guardian {} < /dev/null); echo alive $?", lab::LEASEHOLD);
    let mut command = std::process::Command::new("setsid");
    command.args(["bash", "-c", &script]);
    lab.prepare(&mut command);
    assert_eq!(Process::of(&mut command).finish().stdout, "alive 64\n");
}
