//! The verbs for scripts and for people: what they print, and what they exit with.

mod lab;

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::Stdio;

use lab::{Lab, Process};
use serde_json::{Value, json};

fn acquire(lab: &Lab, options: &[&str]) -> Value {
    let mut arguments = vec!["acquire", "k"];
    arguments.extend(options);
    let done = lab.run(&arguments);
    assert_eq!(done.code, Some(0), "{done:?}");
    assert_eq!(done.stdout.lines().count(), 1);
    serde_json::from_str(&done.stdout).unwrap()
}

fn names(of: &Value) -> Vec<&str> {
    of.as_object().unwrap().keys().map(String::as_str).collect()
}

#[test]
fn a_grant_outlives_the_process_and_is_renewed_checked_and_released() {
    let lab = Lab::new();
    let grant = acquire(&lab, &["--ttl", "1h", "--note", "nightly"]);
    assert_eq!(names(&grant), ["deadline_unix_ms", "fence", "key", "store", "token", "ttl_ms"]);
    assert_eq!((&grant["key"], &grant["ttl_ms"]), (&json!("k"), &json!(3_600_000)));
    assert_eq!(grant["store"], json!(lab.store()));
    let token = grant["token"].as_str().unwrap();
    let seen = lab.inspect("k");
    assert_eq!(seen["holders"][0]["note"], json!("nightly"));
    assert_eq!(seen["holders"][0]["fence"], grant["fence"]);

    assert_eq!(lab.run(&["run", "k", "--try", "--", "true"]).code, Some(75));
    for verb in ["check", "renew"] {
        let done = lab.run(&[verb, "k", "--token", token, "--json"]);
        assert_eq!(done.code, Some(0), "{done:?}");
        let told: Value = serde_json::from_str(&done.stdout).unwrap();
        assert_eq!(names(&told), ["fence", "held", "key", "left_ms"]);
        assert_eq!((&told["held"], &told["fence"]), (&json!(true), &grant["fence"]));
        let left = told["left_ms"].as_u64().unwrap();
        assert!((3_000_000..3_600_000).contains(&left), "{left}");
    }
    // Somebody else's token does nothing.
    let other = format!("{}{}", &token[..token.len() - 32], "0".repeat(32));
    for verb in ["check", "renew", "release"] {
        assert_eq!(lab.run(&[verb, "k", "--token", &other]).code, Some(97), "{verb}");
    }
    let done = lab.run(&["release", "k", "--token", token, "--json"]);
    assert_eq!(done.code, Some(0), "{done:?}");
    assert_eq!(done.stdout, "{\"key\":\"k\",\"held\":true}\n");
    for verb in ["check", "renew", "release"] {
        let done = lab.run(&[verb, "k", "--token", token]);
        assert_eq!(done.code, Some(97), "{verb}: {done:?}");
        assert!(!done.stderr.contains(token), "{done:?}");
    }
}

#[test]
fn a_token_comes_from_the_environment_or_stdin() {
    let lab = Lab::new();
    let grant = acquire(&lab, &[]);
    let token = grant["token"].as_str().unwrap();
    let mut command = lab.leasehold(&["check", "k"]);
    assert_eq!(Process::of(command.env("LEASEHOLD_TOKEN", token)).finish().code, Some(0));
    let mut command = lab.leasehold(&["release", "k", "--token", "-"]);
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(format!("{token}\n").as_bytes()).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_grant_that_nobody_renews_lapses() {
    let lab = Lab::new();
    let grant = acquire(&lab, &["--ttl", "300ms"]);
    // Waits for exactly that.
    let done = lab.run(&["run", "k", "--", "sh", "-c", "echo $LEASEHOLD_FENCE"]);
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(done.stdout.trim().parse::<u64>().unwrap() > grant["fence"].as_u64().unwrap());
    let token = grant["token"].as_str().unwrap();
    assert_eq!(lab.run(&["check", "k", "--token", token]).code, Some(97));
}

#[test]
fn inspect_shows_the_holder_and_who_waits_in_order() {
    let lab = Lab::new();
    let free = lab.run(&["inspect", "k"]);
    assert_eq!((free.code, free.stdout.as_str()), (Some(0), "k  free\n"));
    let holder = lab.start_holding(&["--note", "evil\x1b[2J"], "sleep 1000");
    let first = lab.start(&["run", "k", "--note", "first", "--", "true"]);
    lab.wait_for_line("k", 1, 1);
    let second = lab.start(&["run", "k", "--note", "second", "--", "true"]);
    lab.wait_for_line("k", 1, 2);

    let seen = lab.inspect("k");
    assert_eq!(names(&seen), ["holders", "key", "store", "waiters"]);
    let party = ["age_ms", "fence", "foreign", "left_ms", "limit", "note", "owner", "units"];
    assert_eq!(names(&seen["holders"][0]), party);
    let owner = seen["holders"][0]["owner"].as_str().unwrap();
    assert!(owner.ends_with(&format!(":{}", holder.id())), "{owner}");
    let notes: Vec<_> = seen["waiters"].as_array().unwrap().iter().map(|it| &it["note"]).collect();
    assert_eq!(notes, ["first", "second"]);

    let human = lab.run(&["inspect", "k"]).stdout;
    assert!(human.contains("(evil\\u{1b}[2J)") && !human.contains('\x1b'), "{human:?}");
    assert!(human.find("1. ").unwrap() < human.find("second").unwrap(), "{human}");
    drop((holder, first, second));
}

#[test]
fn ls_lists_the_keys_with_a_prefix() {
    let lab = Lab::new();
    for key in ["jobs/1", "jobs/\n2", "other"] {
        assert_eq!(lab.run(&["acquire", key]).code, Some(0));
    }
    assert_eq!(lab.run(&["ls"]).stdout, "jobs/\\n2\njobs/1\nother\n");
    assert_eq!(lab.run(&["ls", "jobs/1"]).stdout, "jobs/1\n");
    let json = lab.run(&["ls", "jobs/", "--json"]).stdout;
    assert_eq!(json, "{\"key\":\"jobs/\\n2\"}\n{\"key\":\"jobs/1\"}\n");
    let long = lab.run(&["ls", "-l", "--json", "other"]).stdout;
    let long: Value = serde_json::from_str(&long).unwrap();
    assert_eq!(long["holders"].as_array().unwrap().len(), 1);
}

#[test]
fn break_asks_first_and_says_what_it_did() {
    let lab = Lab::new();
    let nobody = lab.run(&["break", "k", "--json", "--yes"]);
    assert_eq!(nobody.stdout, "{\"key\":\"k\",\"broken\":false,\"holders\":[]}\n");
    let grant = acquire(&lab, &[]);
    // There is no terminal to ask on.
    let refused = lab.run(&["break", "k"]);
    assert_eq!(refused.code, Some(64), "{refused:?}");
    assert!(refused.stderr.contains("--yes"), "{refused:?}");
    assert_eq!(lab.inspect("k")["holders"][0]["fence"], grant["fence"]);
    let done = lab.run(&["break", "k", "--yes", "--json"]);
    assert_eq!(done.code, Some(0), "{done:?}");
    let told: Value = serde_json::from_str(&done.stdout).unwrap();
    assert_eq!((&told["broken"], &told["holders"][0]["fence"]), (&json!(true), &grant["fence"]));
    assert_eq!(lab.run(&["ls"]).stdout, "");
}

#[test]
fn watch_tells_what_happens_and_ends_with_a_signal() {
    let lab = Lab::new();
    let mut command = lab.leasehold(&["watch", "k", "--json", "--every", "10ms"]);
    let mut watch = command.spawn().unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    let mut next = || -> Value { serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap() };
    assert_eq!(next()["event"], "free");
    let holder = lab.start_holding(&["--note", "one"], "sleep 1000");
    let held = next();
    assert_eq!(names(&held), ["at", "event", "fence", "key", "note", "owner"]);
    assert_eq!((&held["event"], &held["note"]), (&json!("held"), &json!("one")));
    let waiter = lab.start(&["run", "k", "--note", "two", "--", "sleep", "1000"]);
    let waits = next();
    assert_eq!((&waits["event"], &waits["note"]), (&json!("waiting"), &json!("two")));
    holder.signal("TERM");
    let (ended, held) = (next(), next());
    assert_eq!((&ended["event"], &ended["note"]), (&json!("ended"), &json!("one")));
    assert_eq!((&held["event"], &held["note"]), (&json!("held"), &json!("two")));
    waiter.signal("TERM");
    assert_eq!(next()["event"], "ended");
    assert_eq!(next()["event"], "free");
    lab::signal(watch.id(), "INT");
    assert_eq!(watch.wait().unwrap().code(), Some(130));
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let lab = Lab::new();
    let script = format!("{} man run | head -n 1; echo ${{PIPESTATUS[0]}}", lab::LEASEHOLD);
    let mut command = std::process::Command::new("bash");
    lab.prepare(command.args(["-c", &script]));
    let done = Process::of(&mut command).finish();
    assert!(done.stdout.ends_with("\n0\n") && done.stderr.is_empty(), "{done:?}");

    // One whose grant nobody can read gives it back.
    let mut command = lab.leasehold(&["acquire", "k"]);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let done = Process::of(command.stdout(writer)).finish();
    assert_eq!(done.code, Some(70), "{done:?}");
    assert_eq!(lab.run(&["ls"]).stdout, "");
}

#[test]
fn flags_go_over_the_environment_and_that_over_the_file() {
    let lab = Lab::new();
    let config = lab.path("config/leasehold/config.toml");
    std::fs::create_dir_all(config.parent().unwrap()).unwrap();
    std::fs::write(&config, "# ours\nttl = \"71s\"\n").unwrap();
    let ttl = |variable: Option<&str>, flag: &[&str]| -> u64 {
        let mut arguments = vec!["acquire", "k"];
        arguments.extend(flag);
        let mut command = lab.leasehold(&arguments);
        command.envs(variable.map(|value| ("LEASEHOLD_TTL", value)));
        let done = Process::of(&mut command).finish();
        assert_eq!(done.code, Some(0), "{done:?}");
        let grant: Value = serde_json::from_str(&done.stdout).unwrap();
        let token = grant["token"].as_str().unwrap();
        assert_eq!(lab.run(&["release", "k", "--token", token]).code, Some(0));
        grant["ttl_ms"].as_u64().unwrap()
    };
    assert_eq!(ttl(None, &[]), 71_000);
    assert_eq!(ttl(Some("72s"), &[]), 72_000);
    assert_eq!(ttl(Some("72s"), &["--ttl", "73s"]), 73_000);
    std::fs::write(&config, "# ours\n\ntl = \"71s\"\n").unwrap();
    let done = lab.run(&["ls"]);
    assert_eq!(done.code, Some(78), "{done:?}");
    assert!(done.stderr.contains("config.toml:3: unknown field `tl`"), "{done:?}");
}

#[test]
fn completions_and_man_pages_are_made() {
    let lab = Lab::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let done = lab.run(&["completions", shell]);
        assert_eq!(done.code, Some(0), "{done:?}");
        assert!(done.stdout.contains("inspect"), "{shell}");
    }
    let page = lab.run(&["man"]);
    assert!(page.stdout.contains(".TH leasehold 1") && page.stdout.contains("the lock was lost"));
    let dir = lab.path("man");
    assert_eq!(lab.run(&["man", "--dir", dir.to_str().unwrap()]).code, Some(0));
    let mut pages: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    pages.sort_unstable();
    let verbs = [
        "",
        "-acquire",
        "-break",
        "-check",
        "-completions",
        "-inspect",
        "-ls",
        "-man",
        "-release",
        "-renew",
        "-run",
        "-watch",
    ];
    // A verb more is a page more.
    for verb in verbs {
        assert!(pages.contains(&format!("leasehold{verb}.1")), "{pages:?}");
    }
    assert!(lab.run(&["man", "run"]).stdout.contains("LEASEHOLD_FENCE"));
}
