//! What the stores of leasehold claim: each property of each store is shown by a test that is named
//! here, and README and the pages of the stores say the same as the code.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use leasehold::{Property, stores};

/// Every store: its name for people, its module, and a URL, which nobody connects to.
const STORES: &[(&str, &str, &str)] = &[
    ("SQLite", "sqlite", "sqlite:/nowhere/locks.db"),
    ("Redis", "redis", "redis://nowhere"),
    ("Redlock", "redlock", "redlock://a,b,c"),
    ("PostgreSQL", "postgres", "postgres://nowhere"),
    ("etcd", "etcd", "etcd://nowhere"),
    ("ZooKeeper", "zookeeper", "zookeeper://nowhere"),
    ("memory", "memory", "memory:"),
];

/// URLs of the same stores that reach them another way, which changes none of this.
const SAME: &[(&str, &[&str])] = &[
    ("redis", &["rediss://nowhere", "redis+unix:///nowhere", "redis+sentinel://nowhere/group"]),
    ("redis", &["redis+sentinel://a,b,c/group?replicas=2"]),
    ("etcd", &["etcds://nowhere", "etcd://a,b,c"]),
    ("zookeeper", &["zookeepers://nowhere", "zookeeper://a,b,c/x?dialect=kazoo&tick=1s"]),
    ("redlock", &["redlocks://a,b,c,d,e"]),
    ("postgres", &["postgresql://a,b/locks?schema=other"]),
];

/// Cases of the suite, which show the property of every store that has it.
const CASES: &[(Property, &str)] = &[
    (Property::Processes, "processes_hold_one_at_a_time_as_far_as_the_store_reaches"),
    (Property::Line, "twenty_waiters_are_served_in_order"),
    (Property::Wakes, "a_hand_over_wakes_the_waiter"),
    (Property::Counting, "a_semaphore_admits_its_limit_and_does_not_overtake"),
    (Property::Records, "a_record_is_read_as_it_was_written"),
    (Property::SurvivesCrash, "a_hold_outlives_a_crash_of_the_server_where_that_is_promised"),
    (Property::FencesSurviveCrash, "rule_5_fences_grow_through_a_restart_of_the_server"),
];

/// Tests of a store's own: property, store, file below `crates/`, function.
const TESTS: &[(Property, &str, &str, &str)] = &[
    // A machine that reaches the server by TCP is like a process that does.
    (Property::Machines, "redis", "contract/src/cases/process.rs", PROCESSES),
    (Property::Machines, "redlock", "contract/src/cases/process.rs", PROCESSES),
    (Property::Machines, "postgres", "contract/src/cases/process.rs", PROCESSES),
    (Property::Machines, "etcd", "contract/src/cases/process.rs", PROCESSES),
    (Property::Machines, "zookeeper", "contract/src/cases/process.rs", PROCESSES),
    (
        Property::ForeignClients,
        "redis",
        "leasehold/tests/redis/interoperation.rs",
        "a_hold_of_theirs_refuses_ours_whatever_its_type_and_without_a_ttl",
    ),
    (
        Property::ForeignClients,
        "redis",
        "leasehold/tests/redis/interoperation.rs",
        "a_hold_of_ours_refuses_theirs_and_is_not_ended_by_their_release",
    ),
    (
        Property::ForeignClients,
        "redlock",
        "leasehold/tests/redlock/interoperation.rs",
        "ours_is_refused_and_waits_while_node_redlock_holds",
    ),
    (
        Property::ForeignClients,
        "redlock",
        "leasehold/tests/redlock/interoperation.rs",
        "node_redlock_is_refused_and_waits_while_ours_holds",
    ),
    (
        Property::ForeignClients,
        "etcd",
        "leasehold/tests/etcd/interoperation.rs",
        "etcdctl_lock_waits_for_ours_and_ours_for_it",
    ),
    (
        Property::ForeignClients,
        "zookeeper",
        "leasehold/tests/zookeeper/peers.rs",
        "ours_is_refused_and_waits_while_a_peer_holds",
    ),
    (
        Property::ForeignClients,
        "zookeeper",
        "leasehold/tests/zookeeper/peers.rs",
        "a_peer_is_refused_and_waits_while_ours_holds",
    ),
    (
        Property::FreesAtOnce,
        "sqlite",
        "leasehold/tests/sqlite/processes.rs",
        "a_killed_holder_is_succeeded_long_before_its_ttl_ends",
    ),
    (
        Property::SurvivesCrash,
        "sqlite",
        "leasehold/tests/sqlite/processes.rs",
        "a_detached_hold_outlives_its_process_until_its_ttl",
    ),
    (
        Property::SurvivesPowerLoss,
        "postgres",
        "leasehold/tests/postgres/fences.rs",
        "a_grant_is_on_disk_whatever_the_role_prefers",
    ),
    (
        Property::SurvivesPowerLoss,
        "etcd",
        "leasehold/tests/etcd/cost.rs",
        "a_grant_is_synced_before_it_is_answered",
    ),
    (
        Property::SurvivesPowerLoss,
        "zookeeper",
        "leasehold/tests/zookeeper/server.rs",
        "a_grant_is_synced_before_it_is_answered",
    ),
    (
        Property::SurvivesMemberLoss,
        "etcd",
        "leasehold/tests/etcd/cluster.rs",
        "a_hold_outlives_any_member",
    ),
    (
        Property::SurvivesMemberLoss,
        "zookeeper",
        "leasehold/tests/zookeeper/ensemble.rs",
        "a_hold_outlives_the_leader",
    ),
    (
        Property::SurvivesMemberLoss,
        "zookeeper",
        "leasehold/tests/zookeeper/ensemble.rs",
        "a_hold_outlives_a_member_that_stops_answering",
    ),
    (
        Property::SurvivesFailover,
        "zookeeper",
        "leasehold/tests/zookeeper/ensemble.rs",
        "a_member_without_its_leader_acknowledges_no_renewal",
    ),
    (
        Property::FencesSurviveCrash,
        "sqlite",
        "leasehold/src/stores/sqlite/wire/tests.rs",
        "fences_grow_over_a_power_loss_that_took_the_last_commits",
    ),
    (
        Property::FencesSurviveDataLoss,
        "sqlite",
        "leasehold/tests/sqlite/file.rs",
        "a_file_that_is_removed_in_use_ends_its_sessions_and_fences_go_on",
    ),
    (
        Property::FencesSurviveDataLoss,
        "redis",
        "leasehold/tests/redis/memory.rs",
        "fences_grow_through_a_restart_that_forgets_everything",
    ),
    (
        Property::FencesSurviveDataLoss,
        "postgres",
        "leasehold/tests/postgres/fences.rs",
        "fences_grow_through_a_reset_of_everything_that_counts_them",
    ),
    (
        Property::FencesSurviveFailover,
        "redis",
        "leasehold/tests/redis/sentinel.rs",
        "what_the_replica_never_had_is_lost_and_the_fence_grows_all_the_same",
    ),
    (
        Property::FencesSurviveFailover,
        "etcd",
        "leasehold/tests/etcd/cluster.rs",
        "a_hold_outlives_changes_of_the_leader",
    ),
    (
        Property::FencesSurviveFailover,
        "zookeeper",
        "leasehold/tests/zookeeper/ensemble.rs",
        "a_hold_outlives_the_leader",
    ),
];

const PROCESSES: &str = "processes_hold_one_at_a_time_as_far_as_the_store_reaches";

fn crates() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &str) -> String {
    fs::read_to_string(crates().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn has(url: &str, property: Property) -> bool {
    stores::connect(url).expect("a store").guarantees().has(property)
}

#[test]
fn what_a_store_claims_is_shown_by_a_test() {
    for (_, store, url) in STORES {
        for property in Property::ALL.into_iter().filter(|property| has(url, *property)) {
            let by_case = CASES.iter().any(|(shown, _)| *shown == property);
            let by_test = TESTS.iter().any(|(shown, of, ..)| (*shown, of) == (property, store));
            assert!(by_case || by_test, "{store} claims {property}: name the test that shows it");
        }
    }
}

#[test]
fn the_tests_that_are_named_exist_and_are_of_a_store_that_claims_as_much() {
    let cases: BTreeSet<_> = leasehold_contract::CASES.iter().map(|case| case.name).collect();
    for (property, case) in CASES {
        assert!(cases.contains(case), "{property}: there is no case {case}");
    }
    for (property, store, file, function) in TESTS {
        let there = read(file).contains(&format!("fn {function}("));
        assert!(there, "{property} of {store}: there is no {function} in {file}");
        let (.., url) = STORES.iter().find(|(_, module, _)| module == store).expect("a store");
        assert!(has(url, *property), "{store} does not claim {property}: delete the line");
    }
}

#[test]
fn every_store_is_listed() {
    let folder = fs::read_dir(crates().join("leasehold/src/stores")).expect("the stores");
    let pages = folder.filter_map(|entry| {
        let name = entry.expect("an entry").file_name().into_string().expect("plain");
        Some(name.strip_suffix(".md")?.to_owned())
    });
    let pages: BTreeSet<_> = pages.collect();
    let listed: BTreeSet<_> = STORES.iter().map(|(_, module, _)| (*module).to_owned()).collect();
    assert_eq!(pages, listed, "each store has a page, and a line above");
    for (store, urls) in SAME {
        let (.., first) = STORES.iter().find(|(_, module, _)| module == store).expect("a store");
        for url in *urls {
            for property in Property::ALL {
                assert_eq!(has(first, property), has(url, property), "{url}: {property}");
            }
        }
    }
}

/// README's table, as the stores have it.
fn table() -> String {
    let mut table = String::from("| property |");
    for (name, module, _) in STORES {
        write!(table, " [{name}](crates/leasehold/src/stores/{module}.md) |").expect("a text");
    }
    table.push_str("\n|---|");
    table.push_str(&"---|".repeat(STORES.len()));
    for property in Property::ALL {
        write!(table, "\n| `{property}`: {} |", property.meaning()).expect("a text");
        for (.., url) in STORES {
            table.push_str(if has(url, property) { " yes |" } else { " – |" });
        }
    }
    table
}

#[test]
fn readme_says_what_the_stores_say() {
    let (readme, table) = (read("../README.md"), table());
    assert!(readme.contains(&table), "README.md has to contain this table:\n\n{table}\n");
}

#[test]
fn every_page_says_what_its_store_says() {
    for (_, module, url) in STORES {
        let guarantees = stores::connect(url).expect("a store").guarantees();
        let names: Vec<_> = guarantees.properties.iter().map(|name| format!("`{name}`")).collect();
        let min_ttl = guarantees.min_ttl;
        let said = format!(
            "<!-- properties -->\n{}. TTLs from {min_ttl:?}.\n<!-- /properties -->",
            names.join(", ")
        );
        let page = read(&format!("leasehold/src/stores/{module}.md"));
        assert!(page.contains(&said), "{module}.md has to contain:\n\n{said}\n");
        let sections = ["URL", "Layout", "Permissions", "What it promises", "Looking at the locks"];
        // Nobody is asked for permission to use this process's memory, nor can look at it.
        for section in sections.iter().filter(|_| *module != "memory") {
            assert!(page.contains(&format!("\n# {section}\n")), "{module}.md has no {section:?}");
        }
    }
}
