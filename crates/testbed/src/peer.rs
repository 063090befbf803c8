//! Clients of others, which lock by their own libraries: the scripts in tests/peers.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::missing::require;
use crate::process::{Output, Process};
use crate::zookeeper;

/// Where `./test` installs the libraries of others.
const DIRECTORY: &str = "LEASEHOLD_PEERS_DIR";

/// A library of others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Library {
    /// Python's `redis.lock.Lock`.
    RedisPy,
    /// Node.js's `redlock` on `ioredis`.
    NodeRedlock,
    /// Python's `kazoo`: its locks, its semaphore and its election.
    Kazoo,
    /// Java's Curator: its locks, its semaphores, its leader selector and its leader latch.
    Curator,
}

impl Library {
    /// All that lock in Redis.
    pub const ALL: [Self; 2] = [Self::RedisPy, Self::NodeRedlock];
}

/// A process that locks by a [`Library`]. It dies with this value and with the test.
#[derive(Debug)]
pub struct Peer {
    library: Library,
    process: Process,
    _home: TempDir,
}

impl Peer {
    /// Starts one with the arguments that its script in `tests/peers` describes.
    #[must_use]
    pub fn start(library: Library, args: &[&str]) -> Self {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let root = here.ancestors().nth(2).expect("the crate is two below the root");
        let installed =
            env::var_os(DIRECTORY).map_or_else(|| root.join("target/peers"), PathBuf::from);
        let (program, needed, script) = match library {
            Library::RedisPy => {
                let python = installed.join("venv/bin/python");
                (python.clone(), python, "redis_py.py")
            }
            Library::NodeRedlock => {
                let modules = installed.join("node/node_modules");
                (require("node", "nodejs"), modules.join("redlock"), "node_redlock.js")
            }
            Library::Kazoo => {
                let python = installed.join("venv/bin/python");
                (python.clone(), python, "kazoo_lock.py")
            }
            Library::Curator => {
                let java = require("java", "default-jdk-headless");
                (java, "/usr/share/java/curator-recipes.jar".into(), "CuratorLock.java")
            }
        };
        assert!(
            needed.exists(),
            "{library:?} is not installed ({} is missing): run `./test --install`",
            needed.display()
        );
        let script = root.join("tests/peers").join(script).into_os_string();
        let before = if library == Library::Curator { zookeeper::peer_args() } else { Vec::new() };
        let args: Vec<_> =
            before.into_iter().chain([script]).chain(args.iter().map(OsString::from)).collect();
        let modules = installed.join("node/node_modules").into_os_string();
        let home = TempDir::with_prefix("leasehold-peer-").expect("cannot make a directory");
        let log = home.path().join("log");
        let env = [("NODE_PATH".into(), modules)];
        let process = Process::start(&program, &args, &env, &log, Output::Lines);
        Self { library, process, _home: home }
    }

    /// Waits for the next word that it says, and makes sure that it is this one.
    pub fn expect(&mut self, word: &str) {
        let said = self.process.line();
        let (library, log) = (self.library, self.process.log());
        assert_eq!(said.as_deref(), Some(word), "{library:?} said something else: {log}");
    }

    /// The next word that it says; `None` when it has ended.
    #[must_use]
    pub fn word(&mut self) -> Option<String> {
        self.process.line()
    }

    /// Sends it a line: a holder releases then.
    pub fn tell(&mut self) {
        self.process.send("");
    }

    /// Kills it (`SIGKILL`).
    pub fn kill(&self) {
        self.process.kill();
    }
}
