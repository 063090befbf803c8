//! `leasehold run --shared` and `--slots`: more than one at a time.

mod lab;

use lab::Lab;

/// Holds until the file `go` is there.
const HOLD: &str = "while ! test -e go; do sleep 0.02; done; echo $LEASEHOLD_FENCE >> fences";

fn let_go(lab: &Lab) {
    std::fs::write(lab.path("go"), "").unwrap();
}

#[test]
fn readers_run_beside_each_other_and_a_writer_alone() {
    let lab = Lab::new();
    let readers: Vec<_> =
        (0..2).map(|_| lab.start(&["run", "k", "--shared", "--", "sh", "-c", HOLD])).collect();
    lab.wait_for_line("k", 2, 0);
    let busy = lab.run(&["run", "k", "--try", "--", "true"]);
    assert_eq!(busy.code, Some(75), "{busy:?}");
    let writer = lab.start(&["run", "k", "--", "sh", "-c", HOLD]);
    lab.wait_for_line("k", 2, 1);
    let late = lab.run(&["run", "k", "--shared", "--try", "--", "true"]);
    assert_eq!(late.code, Some(75), "a reader does not overtake the writer: {late:?}");
    let_go(&lab);
    for process in readers.into_iter().chain([writer]) {
        let done = process.finish();
        assert_eq!(done.code, Some(0), "{done:?}");
    }
    let fences: Vec<u64> =
        lab.wait_for("fences").lines().map(|line| line.parse().unwrap()).collect();
    assert!(fences.len() == 3 && fences[2] > fences[0].max(fences[1]), "{fences:?}");
}

#[test]
fn so_many_slots_run_at_a_time() {
    let lab = Lab::new();
    let slots = ["run", "k", "--slots", "3"];
    let start = |units: &str| {
        lab.start(&[&slots[..], &["--units", units, "--", "sh", "-c", HOLD]].concat())
    };
    let one = start("1");
    let two = start("2");
    lab.wait_for_line("k", 2, 0);
    let full = lab.run(&[&slots[..], &["--try", "--", "true"]].concat());
    assert_eq!(full.code, Some(75), "{full:?}");
    let other = lab.run(&["run", "k", "--slots", "5", "--", "true"]);
    assert_eq!(other.code, Some(64), "{other:?}");
    assert!(other.stderr.contains("limit of 3") && other.stderr.contains("one of 5"), "{other:?}");
    let_go(&lab);
    for process in [one, two] {
        let done = process.finish();
        assert_eq!(done.code, Some(0), "{done:?}");
    }
    let free = lab.run(&["run", "k", "--slots", "5", "--", "true"]);
    assert_eq!(free.code, Some(0), "{free:?}");
}

#[test]
fn a_share_that_cannot_be_is_bad_usage() {
    let lab = Lab::new();
    for flags in [
        &["--slots", "0"][..],
        &["--slots", "3", "--units", "0"],
        &["--slots", "3", "--units", "4"],
        &["--slots", "4294967295"],
        &["--units", "2"],
        &["--shared", "--slots", "3"],
    ] {
        let done = lab.run(&[&["run", "k"], flags, &["--", "touch", "ran"]].concat());
        assert_eq!(done.code, Some(64), "{flags:?}: {done:?}");
        assert!(!done.stderr.is_empty() && !lab.path("ran").exists(), "{flags:?}");
    }
}

#[test]
fn a_script_holds_a_share() {
    let lab = Lab::new();
    let acquire = |flags: &[&str]| {
        let done = lab.run(&[&["acquire", "k", "--try"], flags].concat());
        assert_eq!(done.code, Some(0), "{done:?}");
        let grant: serde_json::Value = serde_json::from_str(&done.stdout).unwrap();
        grant["token"].as_str().unwrap().to_owned()
    };
    let tokens = [acquire(&["--slots", "3"]), acquire(&["--slots", "3", "--units", "2"])];
    assert_eq!(lab.run(&["acquire", "k", "--try", "--slots", "3"]).code, Some(75));
    for token in &tokens {
        for verb in ["check", "renew", "release"] {
            let done = lab.run(&[verb, "k", "--token", token]);
            assert_eq!(done.code, Some(0), "{verb}: {done:?}");
        }
        let gone = lab.run(&["check", "k", "--token", token]);
        assert_eq!(gone.code, Some(97), "{gone:?}");
    }
}

#[test]
fn an_operator_changes_the_number_of_slots_while_work_goes_on() {
    let lab = Lab::new();
    let start = || lab.start(&["run", "k", "--slots", "stored", "--", "sh", "-c", HOLD]);
    let unset = lab.run(&["run", "k", "--slots", "stored", "--", "true"]);
    assert_eq!(unset.code, Some(64), "{unset:?}");
    assert!(unset.stderr.contains("leasehold slots KEY N"), "{unset:?}");
    let unknown = lab.run(&["slots", "k"]);
    assert_eq!((unknown.code, unknown.stdout.as_str()), (Some(1), ""), "{unknown:?}");
    assert_eq!(lab.run(&["slots", "k", "0"]).code, Some(64));
    assert_eq!(lab.run(&["slots", "k", "1"]).code, Some(0));
    let told = lab.run(&["slots", "k"]);
    assert_eq!((told.code, told.stdout.as_str()), (Some(0), "1\n"), "{told:?}");

    let first = start();
    lab.wait_for_line("k", 1, 0);
    assert_eq!(lab.run(&["slots", "k", "2"]).code, Some(0));
    let busy = lab.run(&["run", "k", "--slots", "stored", "--try", "--", "true"]);
    assert_eq!(busy.code, Some(75), "who has the whole keeps it: {busy:?}");
    let_go(&lab);
    assert_eq!(first.finish().code, Some(0));
    std::fs::remove_file(lab.path("go")).unwrap();
    let both = [start(), start()];
    lab.wait_for_line("k", 2, 0);
    let seen = lab.run(&["inspect", "k"]);
    assert!(seen.stdout.contains("50.0 % of the whole"), "{seen:?}");
    let held = lab.run(&["forget", "k"]);
    assert!(held.code == Some(75) && held.stderr.contains("is held by"), "{held:?}");
    let_go(&lab);
    for process in both {
        assert_eq!(process.finish().code, Some(0));
    }
    assert_eq!(lab.run(&["forget", "k"]).code, Some(0));
    assert_eq!(lab.run(&["slots", "k"]).code, Some(1));
}

#[test]
fn several_keys_are_held_together_or_not_at_all() {
    let lab = Lab::new();
    let hold =
        "while ! test -e go; do sleep 0.02; done; echo \"$LEASEHOLD_KEY $LEASEHOLD_FENCES\" > told";
    let holder = lab.start(&["run", "b", "--and", "a", "--", "sh", "-c", hold]);
    lab.wait_for_line("a", 1, 0);
    lab.wait_for_line("b", 1, 0);
    let busy = lab.run(&["run", "c", "--and", "a", "--try", "--", "true"]);
    assert!(busy.code == Some(75) && busy.stderr.contains("c, a are not all free"), "{busy:?}");
    let late = lab.run(&["run", "c", "--and", "b", "--wait", "50ms", "--", "true"]);
    assert!(late.code == Some(124) && late.stderr.contains("c, b were not all"), "{late:?}");
    let free = lab.run(&["run", "c", "--try", "--", "true"]);
    assert_eq!(free.code, Some(0), "nothing is kept: {free:?}");
    let twice = lab.run(&["run", "c", "--and", "c", "--", "true"]);
    assert!(twice.code == Some(64) && twice.stderr.contains("named twice"), "{twice:?}");
    let waiter = lab.start(&["run", "a", "--and", "b", "--", "true"]);
    lab.wait_for_line("a", 1, 1);
    let_go(&lab);
    for process in [holder, waiter] {
        assert_eq!(process.finish().code, Some(0));
    }
    let told = lab.wait_for("told");
    let (key, fences) = told.trim().split_once(' ').unwrap();
    let fences: serde_json::Value = serde_json::from_str(fences).unwrap();
    assert!(key == "b" && fences["a"].is_u64() && fences["b"].is_u64(), "{told}");
}

#[test]
fn a_command_under_several_keys_ends_when_one_is_lost() {
    let lab = Lab::new();
    let script = "trap 'echo ended > ended; exit' TERM; while :; do sleep 0.02; done";
    let holder = lab.start(&["run", "a", "--and", "b", "--", "sh", "-c", script]);
    lab.wait_for_line("b", 1, 0);
    assert_eq!(lab.run(&["break", "b", "--yes"]).code, Some(0));
    let done = holder.finish();
    assert!(done.code == Some(97) && done.stderr.contains("lost the lock on \"b\""), "{done:?}");
    assert_eq!(lab.wait_for("ended").trim(), "ended");
    let free = lab.run(&["run", "a", "--try", "--", "true"]);
    assert_eq!(free.code, Some(0), "the other one is released: {free:?}");
}
