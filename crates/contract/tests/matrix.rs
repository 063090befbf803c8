//! Every store of the library is put to every case: a store without its suite, a case that is
//! not listed and a test that is skipped all fail here.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Files beside the stores that are none.
const NO_STORES: [&str; 4] = ["mod", "dial", "mailbox", "tls"];

fn here() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The modules of a folder: its files and folders without their extension.
fn modules(folder: &Path) -> BTreeSet<String> {
    fs::read_dir(folder)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").path())
        .map(|path| path.file_stem().expect("a name").to_str().expect("plain").to_owned())
        .collect()
}

fn stores() -> BTreeSet<String> {
    let mut stores = modules(&here().join("../leasehold/src/stores"));
    for other in NO_STORES {
        assert!(stores.remove(other), "{other} is gone: correct the list above");
    }
    assert!(stores.len() >= 3, "memory, sqlite and redis at least: {stores:?}");
    stores
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn every_store_runs_the_suite() {
    for store in stores() {
        let file = here().join(format!("tests/{store}.rs"));
        let code = text(&file);
        let call = format!("leasehold_contract::suite!({store}, ");
        assert!(code.contains(&call), "{} does not call {call}…)", file.display());
        for skip in ["#[ignore", "#[cfg", "#![cfg", "cfg_attr"] {
            assert!(!code.contains(skip), "{} has {skip}: nothing is skipped", file.display());
        }
    }
}

#[test]
fn every_case_that_is_written_is_listed() {
    let folder = here().join("src/cases");
    let listed: BTreeSet<&str> = leasehold_contract::CASES.iter().map(|case| case.name).collect();
    assert_eq!(listed.len(), leasehold_contract::CASES.len(), "a name is listed twice");
    let mut written = BTreeSet::new();
    for module in modules(&folder) {
        let code = text(&folder.join(format!("{module}.rs")));
        // A case is a function that the list can see and that takes nothing but a bench.
        for part in code.split("pub(crate) async fn ").skip(1) {
            let (name, rest) = part.split_once('(').expect("a signature");
            let arguments = rest.split_once(')').expect("a signature").0;
            if arguments.trim().trim_end_matches(',') == "bench: &dyn Bench" {
                written.insert(name.to_owned());
            }
        }
    }
    let written: BTreeSet<&str> = written.iter().map(String::as_str).collect();
    assert_eq!(written, listed);
}

#[test]
fn every_safety_rule_has_a_case_that_names_it() {
    for rule in 1..=9 {
        let named = |name: &str| {
            name.strip_prefix("rule_").is_some_and(|rest| {
                rest.split('_')
                    .map_while(|word| if word == "and" { Some(0) } else { word.parse().ok() })
                    .any(|number: u32| number == rule)
            })
        };
        let cases = leasehold_contract::CASES.iter().filter(|case| named(case.name)).count();
        assert!(cases > 0, "no case for rule {rule}");
    }
}
