//! A primary, its replica, and three sentinels that watch over them.

use std::fmt;
use std::process::Command;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::missing::require;
use crate::port::free_port;
use crate::redis::{Redis, RedisOptions};
use crate::server::{Server, Spec};

/// What the sentinels call the servers.
const GROUP: &str = "locks";

/// How many of them.
const SENTINELS: usize = 3;

/// How long servers may take to agree.
const PATIENCE: Duration = Duration::from_mins(1);

/// Two Redis servers, one of which replicates the other, and the sentinels that swap their roles
/// when the primary is gone. They end with this value, and with the test process.
#[derive(Debug)]
pub struct RedisSentinel {
    // Dropped first, so that they do not fail anything over while the servers go.
    sentinels: Vec<Sentinel>,
    servers: [Redis; 2],
    options: RedisOptions,
}

#[derive(Debug)]
struct Sentinel {
    server: Server,
    port: u16,
    _home: TempDir,
}

impl RedisSentinel {
    /// Starts them, and waits until every sentinel knows the replica and the other sentinels.
    #[must_use]
    pub fn start(options: &RedisOptions) -> Self {
        let replicating = replicating(options.clone());
        let (primary, replica) = (replicating.clone().start(), replicating.start());
        let port = primary.port().to_string();
        replica.cli(&["REPLICAOF", "127.0.0.1", &port]);
        let sentinels = (0..SENTINELS).map(|_| Sentinel::start(primary.port(), options)).collect();
        let all = Self { sentinels, servers: [primary, replica], options: options.clone() };
        all.until("the sentinels know each other and the replica", || {
            let info = all.servers[0].cli(&["INFO", "replication"]);
            info.contains("state=online")
                && all.sentinels.iter().all(|sentinel| {
                    let known = sentinel.cli(&["SENTINEL", "MASTER", GROUP]);
                    has(&known, "num-slaves", "1")
                        && has(&known, "num-other-sentinels", "2")
                        && has(&known, "flags", "master")
                        && sentinel.cli(&["SENTINEL", "CKQUORUM", GROUP]).starts_with("OK")
                })
        });
        all
    }

    /// `redis+sentinel://[:PASSWORD@]127.0.0.1:PORT,127.0.0.1:PORT,127.0.0.1:PORT/locks[/DATABASE]`
    #[must_use]
    pub fn url(&self) -> String {
        let hosts: Vec<String> =
            self.sentinels.iter().map(|sentinel| format!("127.0.0.1:{}", sentinel.port)).collect();
        let (credentials, path) = (self.options.credentials(), self.options.path());
        format!("redis+sentinel://{credentials}{}/{GROUP}{path}", hosts.join(","))
    }

    /// Both servers. Which of them is the primary changes.
    #[must_use]
    pub fn servers(&self) -> &[Redis; 2] {
        &self.servers
    }

    /// The index of the server that the sentinels call the primary.
    #[must_use]
    pub fn primary(&self) -> usize {
        let sentinel = self.sentinels.iter().find(|sentinel| sentinel.server.is_running());
        let sentinel = sentinel.expect("a sentinel runs");
        let named = sentinel.cli(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", GROUP]);
        let port = named.lines().nth(1).expect("an address and a port");
        let index = self.servers.iter().position(|server| server.port().to_string() == port);
        index.expect("one of ours")
    }

    /// Waits until the server of that index is the primary and says so itself.
    pub fn until_primary(&self, index: usize) {
        self.until("the failover", || {
            self.primary() == index && self.servers[index].cli(&["ROLE"]).starts_with("master")
        });
    }

    /// Kills a sentinel.
    pub fn kill_sentinel(&self, index: usize) {
        self.sentinels[index].server.kill();
    }

    /// Stops a sentinel in its tracks: its connections stay open, it does not answer.
    pub fn pause_sentinel(&self, index: usize) {
        self.sentinels[index].server.pause();
    }

    /// Lets it go on.
    pub fn resume_sentinel(&self, index: usize) {
        self.sentinels[index].server.resume();
    }

    fn until(&self, what: &str, done: impl Fn() -> bool) {
        until(self, what, done);
    }
}

/// Waits until servers have agreed on something.
pub(crate) fn until(servers: &impl fmt::Debug, what: &str, done: impl Fn() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < until, "{what} takes longer than {PATIENCE:?}: {servers:?}");
        // sleep: nobody tells; asked again.
        std::thread::sleep(Duration::from_millis(20));
    }
}

impl Sentinel {
    fn start(primary: u16, options: &RedisOptions) -> Self {
        let program = require("redis-server", "redis-server");
        let home = TempDir::with_prefix("leasehold-sentinel-").expect("cannot make a directory");
        let port = free_port();
        let (config, log) = (home.path().join("sentinel.conf"), home.path().join("log"));
        let mut lines = vec![
            format!("port {port}"),
            "bind 127.0.0.1".to_owned(),
            format!("dir {}", home.path().display()),
            "daemonize no".to_owned(),
            format!("sentinel monitor {GROUP} 127.0.0.1 {primary} 2"),
            format!("sentinel down-after-milliseconds {GROUP} 1000"),
            format!("sentinel failover-timeout {GROUP} 3000"),
        ];
        if let Some(password) = options.admin_password() {
            lines.push(format!("sentinel auth-user {GROUP} {}", password.0));
            lines.push(format!("sentinel auth-pass {GROUP} {}", password.1));
        }
        std::fs::write(&config, lines.join("\n") + "\n").expect("cannot write sentinel.conf");
        let spec = Spec {
            name: "redis-sentinel",
            program,
            args: vec![config.into_os_string(), "--sentinel".into()],
            env: Vec::new(),
            log,
            ready: Box::new(move |pid| {
                let info = ask(port, &["INFO", "server"]);
                let ours = info.lines().any(|line| line == format!("process_id:{pid}"));
                ours.then_some(()).ok_or_else(|| "not yet".to_owned())
            }),
        };
        let server = Server::start(spec).unwrap_or_else(|why| panic!("{why}"));
        Self { server, port, _home: home }
    }

    fn cli(&self, args: &[&str]) -> String {
        ask(self.port, args)
    }
}

/// So that each server can be the other's replica at once.
pub(crate) fn replicating(options: RedisOptions) -> RedisOptions {
    let admin = options.admin_password();
    let options = options.config("repl-diskless-sync-delay", "0").config("repl-timeout", "5");
    match admin {
        Some((user, password)) => options.config("masteruser", user).config("masterauth", password),
        None => options,
    }
}

/// What `redis-cli` prints; nothing while the server is not there.
fn ask(port: u16, args: &[&str]) -> String {
    let cli = require("redis-cli", "redis-tools");
    let output = Command::new(cli).args(["-p", &port.to_string(), "--raw"]).args(args).output();
    let output = output.expect("redis-cli runs");
    String::from_utf8_lossy(&output.stdout).replace('\r', "")
}

/// Whether an answer that is a list of names and values has this pair.
fn has(answer: &str, name: &str, value: &str) -> bool {
    let mut lines = answer.lines();
    lines.any(|line| line == name) && lines.next() == Some(value)
}
