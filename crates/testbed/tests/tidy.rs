//! The repository looks after itself: what DESIGN.md says about its layers and STYLE about its
//! files is checked here. Each rule says what to do about a breach.

use std::fs;
use std::path::{Path, PathBuf};

/// The modules of the library, from the bottom up, each with those that it may use.
/// A new one belongs here, below everything that uses it.
const LAYERS: &[(&str, &[&str])] = &[
    ("error", &[]),
    ("clock", &[]),
    ("random", &["error"]),
    ("examination", &["clock"]),
    ("property", &["error"]),
    ("store", &["error", "examination", "property"]),
    ("stores", &["error", "clock", "random", "examination", "property", "store"]),
    ("checkup", &["error", "clock", "random", "examination", "property", "store"]),
    ("session", &["error", "clock", "random", "property", "store"]),
    // A guard can become a grant, which is what `detached` adds to a client.
    ("guard", &["error", "clock", "random", "session", "detached"]),
    ("kept", &["error", "session"]),
    ("lock", &["error", "session", "guard"]),
    ("many", &["error", "guard", "lock"]),
    ("rwlock", &["error", "guard", "lock"]),
    ("semaphore", &["error", "guard", "lock"]),
    ("election", &["error", "property", "random", "guard", "kept", "lock"]),
    ("job", &["error", "property", "clock", "session", "guard", "kept", "lock"]),
    ("forget", &["error", "property", "job", "kept", "lock"]),
    ("slots", &["error", "property", "guard", "kept", "lock"]),
    ("limiter", &["error", "property", "clock", "random", "store", "kept"]),
    (
        "client",
        &[
            "error",
            "examination",
            "property",
            "store",
            "stores",
            "checkup",
            "session",
            "guard",
            "lock",
            "many",
            "rwlock",
            "semaphore",
            "election",
            "job",
            "forget",
            "slots",
            "limiter",
        ],
    ),
    ("detached", &["error", "clock", "session", "guard", "client"]),
    ("fence", &["error", "guard", "stores"]),
    // Pages only.
    ("guide", &[]),
    (
        "blocking",
        &[
            "error",
            "examination",
            "store",
            "session",
            "guard",
            "lock",
            "election",
            "job",
            "forget",
            "limiter",
            "client",
        ],
    ),
];

/// The crates of the workspace, each with those that it may be built on.
const CRATES: &[(&str, &[&str])] = &[
    ("core", &[]),
    ("leasehold", &["leasehold-core"]),
    ("contract", &["leasehold", "leasehold-core"]),
    ("testbed", &[]),
    ("cli", &["leasehold", "leasehold-core"]),
];

/// The store folders, each with the crate of its driver.
const DRIVERS: &[(&str, &str)] = &[
    ("redis", "redis"),
    ("sqlite", "rusqlite"),
    ("postgres", "tokio_postgres"),
    ("etcd", "tonic"),
];

/// What is no store and keeps something by a driver all the same.
const OTHER_DRIVERS: &[(&str, &str)] = &[("fence/sqlite.rs", "rusqlite")];

/// The stores that are made of another one.
const MADE_OF: &[(&str, &str)] = &[("redlock", "redis")];

/// What all stores share, besides the contract.
const SHARED_BY_STORES: &[&str] = &["dial", "mailbox", "tls"];

const LONGEST_FILE: usize = 600;

/// A file of the repository.
struct Source {
    path: String,
    text: String,
}

impl Source {
    /// Its lines with their numbers, without comments; a `//` inside a string counts as one, which
    /// can hide a breach but never invent one.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self.text.lines().enumerate();
        lines.map(|(number, line)| (number + 1, line.split("//").next().unwrap_or_default()))
    }

    fn is_rust(&self) -> bool {
        self.has_extension(&["rs"])
    }

    fn has_extension(&self, extensions: &[&str]) -> bool {
        let extension = Path::new(&self.path).extension().and_then(|name| name.to_str());
        extension.is_some_and(|extension| extensions.contains(&extension))
    }

    /// The name in the library's module tree: `stores/redis/wire.rs` for the like.
    fn in_library(&self) -> Option<&str> {
        self.path.strip_prefix("crates/leasehold/src/").filter(|_| self.is_rust())
    }

    /// This file names what it forbids.
    fn is_this(&self) -> bool {
        self.path.ends_with("tests/tidy.rs")
    }
}

fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).expect("the crate is two below the root").to_owned()
}

fn sources() -> Vec<Source> {
    let root = root();
    let (mut found, mut directories) = (Vec::new(), vec![root.clone()]);
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).expect("the repository can be read") {
            let entry = entry.expect("the repository can be read");
            let name = entry.file_name();
            // `.git` is a file in a worktree.
            if ["target", ".git", "node_modules"].iter().any(|skipped| name == *skipped) {
                continue;
            }
            if entry.file_type().expect("it has a type").is_dir() {
                directories.push(entry.path());
            } else if let Ok(text) = fs::read_to_string(entry.path()) {
                let path = entry.path();
                let path = path.strip_prefix(&root).expect("it is below the root");
                found.push(Source { path: path.display().to_string(), text });
            }
        }
    }
    assert!(found.len() > 20, "the repository was not found");
    found
}

/// Fails with all breaches at once.
fn assert_none(breaches: &[String], what_to_do: &str) {
    assert!(breaches.is_empty(), "\n{}\n\n{what_to_do}\n", breaches.join("\n"));
}

/// Where any of the words stands in code.
fn uses_of<'a>(source: &'a Source, words: &'a [&str]) -> impl Iterator<Item = String> + 'a {
    source.code().flat_map(move |(number, line)| {
        let hits = words.iter().filter(move |word| has_word(line, word));
        hits.map(move |word| format!("{}:{number}: {word}", source.path))
    })
}

/// Whether `word` stands in `line` and is not the end of a longer name; if it is the beginning of
/// a path, also not the middle of a longer one.
fn has_word(line: &str, word: &str) -> bool {
    let path = word.contains("::");
    let joins = |c: char| c.is_alphanumeric() || "_.".contains(c) || (path && c == ':');
    line.match_indices(word).any(|(at, _)| !line[..at].ends_with(joins))
}

/// The names after `crate::` in a line of code, of one path or of a braced list.
fn crate_paths(line: &str) -> Vec<String> {
    let after = line.split("crate::").skip(1);
    let name = |text: &str| -> String {
        text.trim().chars().take_while(|c| c.is_alphanumeric() || *c == '_' || *c == ':').collect()
    };
    after
        .flat_map(|rest| match rest.strip_prefix('{') {
            Some(list) => list.split(',').map(name).collect::<Vec<_>>(),
            None => vec![name(rest)],
        })
        .filter(|path| !path.is_empty())
        .collect()
}

#[test]
fn the_layers_of_the_library_are_one_way() {
    let mut breaches = Vec::new();
    for source in sources() {
        // What tests a module may use what lies above it.
        let code = source.in_library().filter(|path| !path.ends_with("_tests.rs"));
        let Some(path) = code else { continue };
        let module = path.split(['/', '.']).next().unwrap_or_default();
        // Tests stand above all layers.
        if module == "lib" || path.ends_with("_tests.rs") {
            continue;
        }
        let Some((_, allowed)) = LAYERS.iter().find(|(name, _)| *name == module) else {
            breaches.push(format!("{}: no layer is known for this module", source.path));
            continue;
        };
        for (number, line) in source.code() {
            for used in crate_paths(line) {
                let first = used.split("::").next().unwrap_or_default();
                // A name that is re-exported at the root does not say where it comes from. The
                // blocking twins have no other name for what they are twins of.
                let twin = module == "blocking" && first.starts_with(char::is_uppercase);
                if first != module && !allowed.contains(&first) && !twin {
                    breaches.push(format!("{}:{number}: {module} uses crate::{used}", source.path));
                }
            }
        }
    }
    assert_none(
        &breaches,
        "Imports run one way, downwards (DESIGN.md section 4): move what is needed to a lower \
         layer, name the module that it is in, or give a new module its place in LAYERS.",
    );
}

#[test]
fn a_store_knows_no_other_store() {
    let mut breaches = Vec::new();
    for source in sources() {
        let Some(path) = source.in_library().and_then(|path| path.strip_prefix("stores/")) else {
            continue;
        };
        let own = path.split(['/', '.']).next().unwrap_or_default();
        if own == "mod" {
            continue;
        }
        for (number, line) in source.code() {
            for used in crate_paths(line) {
                let Some(rest) = used.strip_prefix("stores::") else { continue };
                let other = rest.split("::").next().unwrap_or_default();
                let made_of_it = MADE_OF.contains(&(own, other));
                if other != own && !made_of_it && !SHARED_BY_STORES.contains(&other) {
                    breaches.push(format!("{}:{number}: {own} uses {used}", source.path));
                }
            }
        }
    }
    assert_none(&breaches, "Move what two stores share to a file of its own in stores/.");
}

#[test]
fn only_the_wire_of_a_store_knows_its_driver() {
    let mut breaches = Vec::new();
    for source in sources() {
        let Some(path) = source.in_library() else { continue };
        // There the names are those of the folders.
        if path == "stores/mod.rs" {
            continue;
        }
        for (folder, driver) in DRIVERS {
            let wire = format!("stores/{folder}/wire");
            if path.strip_prefix(&wire).is_some_and(|rest| rest.starts_with(['.', '/']))
                || OTHER_DRIVERS.contains(&(path, *driver))
            {
                continue;
            }
            breaches.extend(uses_of(&source, &[&format!("{driver}::")]));
        }
    }
    assert_none(&breaches, "Put it behind a function or a type in the wire of the store.");
}

#[test]
fn the_crates_build_on_each_other_one_way() {
    let mut breaches = Vec::new();
    for (name, allowed) in CRATES {
        let manifest = fs::read_to_string(root().join("crates").join(name).join("Cargo.toml"));
        let manifest = manifest.unwrap_or_else(|error| panic!("no crate {name}: {error}"));
        let mut section = "";
        for line in manifest.lines() {
            if line.starts_with('[') {
                section = line;
            }
            let dependency = line.split(['.', ' ', '=']).next().unwrap_or_default();
            let ours = dependency.starts_with("leasehold") && section == "[dependencies]";
            if ours && !allowed.contains(&dependency) {
                breaches.push(format!("crates/{name}/Cargo.toml: {dependency}"));
            }
        }
    }
    assert_none(&breaches, "Crates build on each other one way: see CRATES.");
}

#[test]
fn the_core_does_no_io_and_reads_no_clock() {
    const FORBIDDEN: &[&str] = &[
        "std::env",
        "std::fs",
        "std::io",
        "std::net",
        "std::os",
        "std::process",
        "std::thread",
        "std::time::{",
        "Instant",
        "SystemTime",
        "clock_gettime",
        "async fn",
        "tokio",
        "futures",
        "rand::",
        "getrandom",
        "rustix",
    ];
    let core = |source: &Source| source.path.starts_with("crates/core/src/") && source.is_rust();
    let sources: Vec<Source> = sources().into_iter().filter(core).collect();
    assert!(!sources.is_empty(), "the core was not found");
    let breaches: Vec<_> = sources.iter().flat_map(|source| uses_of(source, FORBIDDEN)).collect();
    assert_none(&breaches, "The core is told the time and its randomness: take it as an argument.");
}

#[test]
fn one_file_reads_a_clock_and_one_draws_randomness() {
    const CLOCKS: &[&str] = &["Instant", "SystemTime", "UNIX_EPOCH", "clock_gettime"];
    const RANDOMNESS: &[&str] = &["getrandom", "rand::", "fastrand", "RandomState"];
    let mut breaches = Vec::new();
    for source in sources() {
        match source.in_library() {
            None => {}
            Some("clock.rs") => breaches.extend(uses_of(&source, RANDOMNESS)),
            Some("random.rs") => breaches.extend(uses_of(&source, CLOCKS)),
            Some(_) => breaches.extend(uses_of(&source, &[CLOCKS, RANDOMNESS].concat())),
        }
    }
    assert_none(
        &breaches,
        "Only clock.rs reads a clock (one that counts time asleep), and only random.rs draws \
         randomness: ask those.",
    );
}

#[test]
fn files_fit_a_sitting() {
    let mut breaches = Vec::new();
    for source in sources() {
        let lines = source.text.lines().count();
        let code = source.has_extension(&["rs", "lua", "sql", "py", "js", "sh"]);
        if code && lines > LONGEST_FILE {
            breaches.push(format!("{}: {lines} lines", source.path));
        }
    }
    assert_none(&breaches, "Split it by subject; about 400 lines are a good length.");
}

#[test]
fn nothing_is_left_undone_or_skipped() {
    const FORBIDDEN: &[&str] = &["todo!", "unimplemented!", "dbg!"];
    let mut breaches = Vec::new();
    for source in sources().iter().filter(|source| source.is_rust() && !source.is_this()) {
        breaches.extend(uses_of(source, FORBIDDEN));
        let ignored = source.code().filter(|(_, line)| line.trim().starts_with("#[ignore"));
        breaches.extend(ignored.map(|(number, line)| format!("{}:{number}:{line}", source.path)));
    }
    assert_none(&breaches, "Finish it, or leave it out. A test that cannot run fails.");
}

#[test]
fn every_sleep_in_a_test_says_why() {
    let mut breaches = Vec::new();
    for source in sources().iter().filter(|source| source.is_rust() && !source.is_this()) {
        let test_code =
            source.path.contains("/tests/") || source.path.starts_with("crates/contract/");
        let mut in_tests = test_code;
        let lines: Vec<&str> = source.text.lines().collect();
        for (index, line) in lines.iter().enumerate() {
            in_tests |= line.contains("#[cfg(test)]");
            let code = line.split("//").next().unwrap_or_default();
            let sleeps = has_word(code, "sleep(");
            let near = &lines[index.saturating_sub(3)..=index];
            if in_tests && sleeps && !near.iter().any(|line| line.contains("// sleep: ")) {
                breaches.push(format!("{}:{}: {}", source.path, index + 1, line.trim()));
            }
        }
    }
    assert_none(
        &breaches,
        "Await the event itself. Where time is the subject, say so: `// sleep: why`, on the line \
         or up to three above.",
    );
}

#[test]
fn nothing_depends_on_one_machine() {
    const FORBIDDEN: &[&str] = &[
        "/work/",
        "/root/",
        "artifactory",
        "registry.npmjs",
        "pythonhosted.org",
        "index-url",
        "\"resolved\":",
    ];
    let mut breaches = Vec::new();
    for source in sources().iter().filter(|source| !source.is_this()) {
        for (index, line) in source.text.lines().enumerate() {
            for word in FORBIDDEN.iter().filter(|word| line.contains(**word)) {
                breaches.push(format!("{}:{}: {word}", source.path, index + 1));
            }
        }
    }
    assert_none(&breaches, "Leave out paths and hosts that only some machine has.");
}

#[test]
fn forbidding_unsafe_code_reaches_every_crate() {
    let root_manifest = fs::read_to_string(root().join("Cargo.toml")).expect("it can be read");
    assert!(root_manifest.contains("unsafe_code = \"forbid\""), "unsafe code must stay forbidden");
    let mut breaches = Vec::new();
    for entry in fs::read_dir(root().join("crates")).expect("it can be read") {
        let path = entry.expect("it can be read").path().join("Cargo.toml");
        let manifest = fs::read_to_string(&path).expect("a crate has a manifest");
        if !manifest.contains("[lints]\nworkspace = true") {
            breaches.push(path.display().to_string());
        }
    }
    assert_none(&breaches, "Add `[lints]` with `workspace = true`.");
}

#[test]
fn the_rules_see_what_they_look_for() {
    assert!(has_word("let x = redis::cmd()", "redis::"));
    assert!(!has_word("use crate::stores::redis::wire", "redis::"));
    assert!(!has_word("use leasehold_rand::x", "rand::"));
    assert!(has_word("std::time::SystemTime::now()", "SystemTime"));
    assert!(has_word("    sleep(ttl).await", "sleep("));
    assert!(has_word("    tokio::time::sleep(ttl).await", "sleep("));
    assert!(!has_word("time.sleep(1000)", "sleep("));
    assert_eq!(crate_paths("use crate::{error, stores::redis};"), ["error", "stores::redis"]);
    assert_eq!(
        crate_paths("crate::Client::open(crate::clock::now())"),
        ["Client::open", "clock::now"]
    );
    assert!(crate_paths("use std::fmt;").is_empty());
}
