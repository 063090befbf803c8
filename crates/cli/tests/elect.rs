//! `leasehold elect` and `leasehold leader`.

mod lab;

use std::io::{BufRead as _, BufReader};

use lab::{Lab, Process, eventually};
use serde_json::Value;

/// Leads until a file of that name is there.
fn lead(lab: &Lab, address: &str) -> Process {
    let script =
        format!("touch {address}.leads; while ! test -e {address}.go; do sleep 0.02; done");
    lab.start(&["elect", "office", "--as", address, "--ttl", "2s", "--", "sh", "-c", &script])
}

fn let_go(lab: &Lab, address: &str) {
    std::fs::write(lab.path(&format!("{address}.go")), "").unwrap();
}

#[test]
fn one_command_leads_and_everybody_can_ask_who() {
    let lab = Lab::new();
    let vacant = lab.run(&["leader", "office"]);
    assert_eq!((vacant.code, vacant.stdout.as_str()), (Some(1), ""), "{vacant:?}");
    let first = lead(&lab, "a");
    lab.wait_for("a.leads");
    let second = lead(&lab, "b");
    lab.wait_for_line("office", 1, 1);
    assert!(!lab.path("b.leads").exists(), "it runs only while it leads");
    let told = lab.run(&["leader", "office"]);
    assert_eq!((told.code, told.stdout.as_str()), (Some(0), "a\n"), "{told:?}");
    let told: Value =
        serde_json::from_str(&lab.run(&["leader", "office", "--json"]).stdout).unwrap();
    assert_eq!((&told["event"], &told["address"]), (&"leads".into(), &"a".into()), "{told}");
    let term = told["term"].as_u64().unwrap();
    let_go(&lab, "a");
    assert_eq!(first.finish().code, Some(0));
    lab.wait_for("b.leads");
    let told: Value =
        serde_json::from_str(&lab.run(&["leader", "office", "--json"]).stdout).unwrap();
    assert!(told["address"] == "b" && told["term"].as_u64().unwrap() > term, "{told}");
    let_go(&lab, "b");
    assert_eq!(second.finish().code, Some(0));
    let vacant: Value =
        serde_json::from_str(&lab.run(&["leader", "office", "--json"]).stdout).unwrap();
    assert_eq!(vacant["event"], "vacant", "{vacant}");
}

#[test]
fn a_follower_sees_every_leader_in_order() {
    let lab = Lab::new();
    let mut following = lab.leasehold(&["leader", "office", "--follow"]).spawn().unwrap();
    let mut lines = BufReader::new(following.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "", "vacant");
    for address in ["a", "b", "c"] {
        // No longer than it takes: shorter than a look.
        let done = lab.run(&["elect", "office", "--as", address, "--", "true"]);
        assert_eq!(done.code, Some(0), "{done:?}");
    }
    let seen: Vec<String> = lines.by_ref().map(Result::unwrap).take(6).collect();
    assert_eq!(seen, ["a", "", "b", "", "c", ""]);
    lab::signal(following.id(), "INT");
    let ended = eventually("the end", || following.try_wait().unwrap());
    assert_eq!(ended.code(), Some(130));
}

#[test]
fn the_next_leads_when_the_leader_is_killed() {
    let lab = Lab::new();
    let first = lead(&lab, "a");
    lab.wait_for("a.leads");
    let second = lead(&lab, "b");
    lab.wait_for_line("office", 1, 1);
    first.signal("KILL");
    lab.wait_for("b.leads");
    let_go(&lab, "b");
    assert_eq!(second.finish().code, Some(0));
}

#[test]
fn a_leader_without_an_address_is_its_process() {
    let lab = Lab::new();
    let leading = lab.start(&["elect", "office", "--", "sh", "-c", "touch up; sleep 60"]);
    lab.wait_for("up");
    let told = lab.run(&["leader", "office"]);
    assert!(told.stdout.contains(':'), "host and process: {told:?}");
    leading.signal("TERM");
    assert_eq!(leading.finish().code, Some(143));
    let both = lab.run(&["elect", "office", "--as", "a", "--note", "b", "--", "true"]);
    assert_eq!(both.code, Some(64), "{both:?}");
}
