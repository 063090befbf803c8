//! Refusing stale writers from scripts.

mod lab;

use std::io::Write as _;
use std::process::{Command, Stdio};

use lab::{Lab, Process};
use serde_json::{Value, json};

/// `leasehold fence write …` with these contents.
fn write(lab: &Lab, arguments: &[&str], contents: &str) -> lab::Finished {
    let mut command = lab.leasehold(&[&["fence", "write"], arguments].concat());
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(contents.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    lab::Finished {
        code: output.status.code(),
        status: output.status,
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

#[test]
fn check_accepts_and_refuses_across_processes() {
    let lab = Lab::new();
    let check = |arguments: &[&str]| lab.run(&[&["fence", "check"], arguments].concat());
    for accepted in ["33", "33", "34"] {
        let done = check(&["jobs/42", "--token", accepted]);
        assert_eq!((done.code, done.stdout.as_str()), (Some(0), ""), "{done:?}");
    }
    let done = check(&["jobs/42", "--token", "33"]);
    assert_eq!(done.code, Some(98), "{done:?}");
    assert!(done.stderr.contains("\"jobs/42\" refuses fence 33: it has seen 34"), "{done:?}");
    assert!(lab.path("state/leasehold/fences.db").exists());
    // Another resource, and another file, know nothing of it.
    assert_eq!(check(&["jobs/43", "--token", "1"]).code, Some(0));
    assert_eq!(check(&["jobs/42", "--token", "1", "--fences", "other.db"]).code, Some(0));

    for (token, accepted, code) in [(35, true, 0), (34, false, 98)] {
        let done = check(&["jobs/42", "--json", "--token", &token.to_string()]);
        assert_eq!((done.code, done.stderr.as_str()), (Some(code), ""), "{done:?}");
        let told: Value = serde_json::from_str(&done.stdout).unwrap();
        let expected =
            json!({"resource": "jobs/42", "accepted": accepted, "token": token, "greatest": 35});
        assert_eq!(told, expected);
    }
}

#[test]
fn the_fence_comes_from_run() {
    let lab = Lab::new();
    let script = format!("{0} fence check r && echo mine | {0} fence write f", lab::LEASEHOLD);
    let done = lab.run(&["run", "k", "--", "sh", "-c", &script]);
    assert_eq!(done.code, Some(0), "{done:?}");
    assert_eq!(std::fs::read_to_string(lab.path("f")).unwrap(), "mine\n");
    let check = |fence: &str| {
        let mut command = lab.leasehold(&["fence", "check", "r"]);
        Process::of(command.env("LEASEHOLD_FENCE", fence)).finish()
    };
    assert_eq!(check("1").code, Some(98));
    assert_eq!(check("soon").code, Some(78));
    assert_eq!(check("9223372036854775808").code, Some(64), "above 2^63 - 1");
    // What is said here goes over what was said around it.
    let mut said = lab.leasehold(&["fence", "check", "r", "--token", "1"]);
    let said = Process::of(said.env("LEASEHOLD_FENCE", "9223372036854775807")).finish();
    assert_eq!(said.code, Some(98));
    assert_eq!(lab.run(&["fence", "check", "r"]).code, Some(64));
    assert_eq!(lab.run(&["fence", "check", "r", "--token", "-1"]).code, Some(64));
    assert_eq!(lab.run(&["fence", "check", "", "--token", "1"]).code, Some(64));
    assert_eq!(lab.run(&["fence"]).code, Some(64));
}

#[test]
fn what_cannot_be_kept_is_no_permission() {
    let lab = Lab::new();
    std::fs::write(lab.path("other.db"), "no database at all".repeat(99)).unwrap();
    let done = lab.run(&["fence", "check", "r", "--token", "1", "--fences", "other.db"]);
    assert_eq!(done.code, Some(69), "{done:?}");
    assert!(done.stderr.contains("other.db"), "{done:?}");
    std::fs::write(lab.path("f.fence"), "garbled").unwrap();
    let done = write(&lab, &["f", "--token", "1", "--json"], "x");
    assert_eq!((done.code, done.stdout.as_str()), (Some(69), ""), "{done:?}");
    assert!(done.stderr.contains("f.fence") && !lab.path("f").exists(), "{done:?}");
    assert_eq!(write(&lab, &["no/such/directory", "--token", "1"], "x").code, Some(64));
}

/// A command that is out of `run`'s reach (it left the process group) is paused past the lease.
#[test]
fn a_command_that_was_paused_past_its_lease_is_refused() {
    let lab = Lab::new();
    let script = format!(
        "echo first | {0} fence write report; echo $$ > pid.new; mv pid.new pid
        while [ -e pid ] && [ ! -e go ]; do sleep 0.01; done
        {0} fence check jobs/42; echo $? > checked
        echo stale | {0} fence write report; echo $? > code.new; mv code.new code",
        lab::LEASEHOLD
    );
    let out_of_reach =
        ["run", "k", "--ttl", "1s", "--", "setsid", "--fork", "--wait", "sh", "-c", &script];
    let holder = lab.start(&out_of_reach);
    let pid: u32 = lab.wait_for("pid").parse().unwrap();
    lab::signal(pid, "STOP");
    // With `run` stopped the guardian ends the group at the deadline: only the command is left.
    holder.signal("STOP");
    let second = format!(
        "{0} fence check jobs/42 && echo second | {0} fence write report && touch done",
        lab::LEASEHOLD
    );
    let done = lab.run(&["run", "k", "--", "sh", "-c", &second]);
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(lab.path("done").exists());

    lab::signal(pid, "CONT");
    std::fs::write(lab.path("go"), "").unwrap();
    assert_eq!(lab.wait_for("code"), "98");
    assert_eq!(lab.wait_for("checked"), "98");
    assert_eq!(std::fs::read_to_string(lab.path("report")).unwrap(), "second\n");
    holder.signal("CONT");
    assert_eq!(holder.finish().code, Some(97));
}

#[test]
fn the_printed_texts_are_those_of_the_library() {
    let lab = Lab::new();
    let print = |arguments: &[&str]| {
        let done = lab.run(&[&["fence"], arguments].concat());
        assert_eq!((done.code, done.stderr.as_str()), (Some(0), ""), "{done:?}");
        done.stdout
    };
    let sql = print(&["sql"]);
    assert!(sql.contains("FUNCTION \"public\".leasehold_fence(resource text, token bigint)"));
    assert!(!sql.contains("CREATE OR REPLACE TRIGGER"));
    let sql =
        print(&["sql", "--schema", "app", "--table", "jobs", "--key", "id", "--column", "fence"]);
    assert!(
        sql.contains("EXECUTE FUNCTION \"app\".leasehold_fence_write('jobs', 'id', 'fence')"),
        "{sql}"
    );
    let table = ["--table", "jobs", "--key", "id", "--column", "fence"];
    let sql = print(&[&["sql", "--dialect", "sqlite"], &table[..]].concat());
    assert!(sql.contains("'jobs/' || NEW.\"id\", NEW.\"fence\""), "{sql}");
    assert!(print(&["redis"]).ends_with("return write(KEYS, ARGV)\n"));
    assert!(print(&["redis", "--function"]).starts_with("#!lua name=leasehold_fence\n"));
    for bad in [
        &["sql", "--dialect", "sqlite", "--table", "jobs"][..],
        &["sql", "--dialect", "oracle"],
        &["sql", "--key", "id"],
        &["sql", "--table", "a\nb"],
    ] {
        assert_eq!(lab.run(&[&["fence"], bad].concat()).code, Some(64), "{bad:?}");
    }
}

#[test]
fn many_writers_at_once_leave_the_greatest() {
    let lab = Lab::new();
    let script = format!(
        "for n in $(seq 40 -1 1); do
            echo $n | {0} fence write report --token $n 2>/dev/null & {0} fence check r --token $n 2>>checks &
        done; wait",
        lab::LEASEHOLD
    );
    let mut command = Command::new("sh");
    lab.prepare(command.args(["-c", &script]));
    assert_eq!(Process::of(&mut command).finish().code, Some(0));
    assert_eq!(std::fs::read_to_string(lab.path("report")).unwrap(), "40\n");
    let refused = std::fs::read_to_string(lab.path("checks")).unwrap();
    assert!(refused.lines().all(|line| line.contains("it has seen")), "{refused}");
    assert_eq!(lab.run(&["fence", "check", "r", "--token", "39"]).code, Some(98));
    assert_eq!(lab.run(&["fence", "check", "r", "--token", "40"]).code, Some(0));
}
