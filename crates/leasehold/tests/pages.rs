//! The commands on the stores' pages do what the pages say: each `console` block is run against
//! a real server. Those under "Permissions" come first; then a client works with what they allow,
//! and those under "Looking at the locks" find what it did.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use leasehold::Client;
use leasehold_testbed::{Etcd, Postgres, Redis, ZooKeeper};
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_mins(1);

/// A directory to run commands in, with the store's tool as it is called where there is one server
/// at the usual address.
struct Shell(TempDir);

impl Shell {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Makes `name` a command for `command`, with what the tests have to add to it.
    fn tool(&self, name: &str, command: &[String]) {
        let file = self.path().join(name);
        let quoted = command.iter().fold(String::new(), |mut text, word| {
            write!(text, "'{}' ", word.replace('\'', r"'\''")).unwrap();
            text
        });
        fs::write(&file, format!("#!/bin/sh\nexec {quoted}\"$@\"\n")).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// What a command prints.
    fn run(&self, line: &str) -> String {
        let path = std::env::var("PATH").unwrap();
        let output = Command::new("sh")
            .args(["-c", line])
            .env("PATH", format!("{}:{path}", self.path().display()))
            .current_dir(self.path())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let trouble = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "$ {line}\n{said}{trouble}");
        said
    }

    /// Runs the commands of a page's section, of which there is at least one.
    fn follow(&self, page: &str, section: &str) {
        let mut ran = 0;
        for (command, expected) in commands(page, section) {
            let said = self.run(&command);
            assert!(is_like(&said, &expected), "$ {command}\n{said}\nexpected:\n{expected}");
            ran += 1;
        }
        assert!(ran > 0, "no command under {section:?}");
    }
}

fn page(store: &str) -> String {
    let file = format!("{}/src/stores/{store}.md", env!("CARGO_MANIFEST_DIR"));
    fs::read_to_string(file).unwrap()
}

/// The commands of a section's `console` blocks, each with what it is to print.
fn commands(page: &str, section: &str) -> Vec<(String, String)> {
    let rest = page.split(&format!("\n# {section}\n")).nth(1).expect("the section");
    let section = rest.split("\n# ").next().unwrap();
    let blocks = section.split("```console\n").skip(1);
    blocks
        .flat_map(|block| {
            let block = format!("\n{}", block.split("```").next().unwrap());
            let each = block.split("\n$ ").skip(1).map(|each| {
                let (command, expected) = each.split_once('\n').unwrap_or((each, ""));
                (command.to_owned(), expected.to_owned())
            });
            each.collect::<Vec<_>>()
        })
        .collect()
}

/// Whether a text is as expected, where `…` stands for anything.
fn is_like(text: &str, expected: &str) -> bool {
    let (mut rest, expected) = (text.trim(), expected.trim());
    let parts: Vec<&str> = expected.split('…').map(str::trim).collect();
    let [first, between @ .., last] = parts.as_slice() else { return rest == expected };
    let Some(after) = rest.strip_prefix(first) else { return false };
    rest = after;
    for part in between {
        let Some((_, after)) = rest.split_once(part) else { return false };
        rest = after;
    }
    rest.ends_with(last)
}

#[test]
fn expectations_are_compared() {
    assert!(is_like("a\nb\n", "a\nb") && !is_like("a\nb", "a"));
    assert!(is_like("key|1|x", "key|…|x") && !is_like("key|1|y", "key|…|x"));
    assert!(is_like("log\n[1-lock, 2-lock]", "…\n[…-lock, …-lock]"));
    assert!(!is_like("log\n[1-lock]", "…\n[…-lock, …-lock]"));
}

/// Looks at what the page says to look at, while alice holds `jobs/42` and bob waits for it.
async fn look(shell: &Shell, store: &str, url: &str) {
    let client = |owner: &str| Client::builder().url(url).owner(owner).build().unwrap();
    let (alice, bob) = (client("alice"), client("bob"));
    let mutex = alice.mutex("jobs/42").unwrap().note("nightly").unwrap();
    let guard = tokio::time::timeout(PATIENCE, mutex.lock()).await.unwrap().unwrap();
    let waits = bob.mutex("jobs/42").unwrap();
    let waiting = tokio::spawn(async move { waits.lock().await });
    let waited = async {
        while alice.store().inspect(guard.key()).await.unwrap().waiters.is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, waited).await.expect("bob waits");
    let page = page(store);
    tokio::task::block_in_place(|| shell.follow(&page, "Looking at the locks"));
    guard.release().await.unwrap();
    tokio::time::timeout(PATIENCE, waiting)
        .await
        .unwrap()
        .unwrap()
        .unwrap()
        .release()
        .await
        .unwrap();
}

fn words<const N: usize>(words: [&str; N]) -> Vec<String> {
    words.map(ToOwned::to_owned).to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite() {
    let _ = leasehold_testbed::require("sqlite3", "sqlite3");
    let shell = Shell::new();
    let file = shell.path().join("locks.db");
    look(&shell, "sqlite", &format!("sqlite:{}", file.display())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redis() {
    let server = Redis::start();
    let shell = Shell::new();
    let cli = leasehold_testbed::require("redis-cli", "redis-tools");
    // As on a terminal.
    let port = server.port().to_string();
    shell.tool("redis-cli", &words([cli.to_str().unwrap(), "-p", &port, "--no-raw"]));
    shell.follow(&page("redis"), "Permissions");
    look(&shell, "redis", &server.url_as("app", "secret")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redlock() {
    let servers = Redis::options().start_quorum(3);
    let cli = leasehold_testbed::require("redis-cli", "redis-tools");
    let shells: Vec<_> = servers
        .iter()
        .map(|server| {
            let (shell, port) = (Shell::new(), server.port().to_string());
            shell.tool("redis-cli", &words([cli.to_str().unwrap(), "-p", &port, "--no-raw"]));
            shell.follow(&page("redlock"), "Permissions");
            shell
        })
        .collect();
    let url = servers.url().replace("://", "://app:secret@");
    let client = Client::builder().url(&url).owner("alice").build().unwrap();
    let mutex = client.mutex("jobs/42").unwrap();
    let guard = tokio::time::timeout(PATIENCE, mutex.lock()).await.unwrap().unwrap();
    // A majority is enough for the hold; the slowest server may have it later.
    let everywhere = async {
        while servers.iter().any(|server| server.cli(&["EXISTS", "jobs/42"]).trim() != "1") {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, everywhere).await.expect("all have it");
    let page = page("redlock");
    let look = || shells.iter().for_each(|shell| shell.follow(&page, "Looking at the locks"));
    tokio::task::block_in_place(look);
    guard.release().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres() {
    let server = Postgres::start();
    let shell = Shell::new();
    let psql = leasehold_testbed::require("psql", "postgresql-client");
    let (host, port) = (server.socket().display().to_string(), server.port().to_string());
    let database = leasehold_testbed::postgres::DATABASE;
    let command =
        [psql.to_str().unwrap(), "-h", &host, "-p", &port, "-U", "postgres", "-d", database];
    shell.tool("psql", &words(command));
    for part in ["tables.sql", "functions.sql"] {
        let beside = concat!(env!("CARGO_MANIFEST_DIR"), "/src/stores/postgres");
        fs::copy(Path::new(beside).join(part), shell.path().join(part)).unwrap();
    }
    shell.follow(&page("postgres"), "Permissions");
    look(&shell, "postgres", &server.url()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn etcd() {
    let server = Etcd::start();
    let shell = Shell::new();
    let ctl = leasehold_testbed::require("etcdctl", "etcd-client");
    let at = format!("--endpoints=127.0.0.1:{}", server.ports()[0]);
    let command = words(["env", "ETCDCTL_API=3", ctl.to_str().unwrap(), &at]);
    shell.tool("etcdctl", &command);
    shell.follow(&page("etcd"), "Permissions");
    for line in ["user add root:all", "user grant-role root root", "auth enable"] {
        shell.run(&format!("etcdctl {line}"));
    }
    shell.tool("etcdctl", &[command, words(["--user=root:all"])].concat());
    look(&shell, "etcd", &server.url_as("app:secret@", server.ports())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn zookeeper() {
    let server = ZooKeeper::start();
    let shell = Shell::new();
    let cli = server.cli_command();
    let words = std::iter::once(cli.get_program()).chain(cli.get_args());
    let words: Vec<_> = words.map(|word| word.to_str().unwrap().to_owned()).collect();
    shell.tool("zkCli.sh", &words);
    look(&shell, "zookeeper", &server.url()).await;
}
