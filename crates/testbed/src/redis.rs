//! A Redis server of a test's own.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use tempfile::TempDir;

use crate::certificates::Certificates;
use crate::missing::require;
use crate::port::free_port;
use crate::server::{self, Memory, Server, Spec};

/// How often a port may turn out to be taken before that is no coincidence.
const PORT_TRIES: usize = 5;

/// The user that the testbed itself logs in as, when the default user may not be able to.
const ADMIN: &str = "testbed";
const ADMIN_PASSWORD: &str = "only-on-loopback";

/// What kind of Redis to start: `Redis::options().password("s3cret").tls().start()`.
#[derive(Debug, Clone, Default)]
pub struct RedisOptions {
    password: Option<String>,
    users: Vec<(String, String, String)>,
    tls: bool,
    client_certificates: bool,
    append_only: bool,
    database: Option<u16>,
    cluster: Option<Fellows>,
    config: Vec<(String, String)>,
}

/// What the nodes of a cluster have in common.
#[derive(Debug, Clone)]
struct Fellows {
    certificates: Option<Certificates>,
}

impl RedisOptions {
    /// The default user needs this password. It is part of [`Redis::url`].
    #[must_use]
    pub fn password(mut self, password: &str) -> Self {
        self.password = Some(password.to_owned());
        self
    }

    /// Adds an ACL user with the given rules, such as `~jobs:* &* +@all`. See [`Redis::url_as`].
    #[must_use]
    pub fn user(mut self, name: &str, password: &str, rules: &str) -> Self {
        self.users.push((name.to_owned(), password.to_owned(), rules.to_owned()));
        self
    }

    /// Listens with TLS as well, on a port of its own. See [`Redis::tls_url`].
    #[must_use]
    pub fn tls(mut self) -> Self {
        self.tls = true;
        self
    }

    /// TLS, and it demands a certificate from the client too.
    #[must_use]
    pub fn client_certificates(mut self) -> Self {
        self.client_certificates = true;
        self.tls()
    }

    /// Writes each command to a file before it answers (`appendfsync always`), so that even
    /// [`Redis::kill`] makes it forget nothing.
    #[must_use]
    pub fn append_only(mut self) -> Self {
        self.append_only = true;
        self
    }

    /// The database number in the URLs.
    #[must_use]
    pub fn database(mut self, number: u16) -> Self {
        self.database = Some(number);
        self
    }

    /// It can be a node of a cluster, whose nodes share certificates in a directory if they have any.
    pub(crate) fn cluster(mut self, certificates: &Path) -> Self {
        let certificates = self.tls.then(|| Certificates::make(certificates));
        self.cluster = Some(Fellows { certificates });
        self
    }

    /// Any other directive of `redis.conf`.
    #[must_use]
    pub fn config(mut self, name: &str, value: &str) -> Self {
        self.config.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Starts it and waits until it answers.
    #[must_use]
    pub fn start(self) -> Redis {
        let program = require("redis-server", "redis-server");
        let cli = require("redis-cli", "redis-tools");
        let home = TempDir::with_prefix("leasehold-redis-").expect("cannot make a directory");
        let directory = home.path().to_owned();
        std::fs::create_dir(directory.join("data")).expect("cannot make a directory");
        let certificates = self.tls.then(|| match &self.cluster {
            Some(Fellows { certificates: Some(shared) }) => shared.clone(),
            _ => Certificates::make(&directory.join("certificates")),
        });
        let mut failure = String::new();
        for _ in 0..PORT_TRIES {
            let (port, tls_port) = (free_port(), self.tls.then(free_port));
            let tls = certificates.as_ref().zip(tls_port);
            let config = self.config_file(&directory, port, tls);
            let spec = self.spec(&program, &cli, &directory, &config);
            match Server::start(spec) {
                Ok(server) => {
                    let (options, paused) = (self, AtomicBool::new(false));
                    return Redis {
                        server,
                        options,
                        cli,
                        port,
                        tls_port,
                        certificates,
                        home,
                        paused,
                    };
                }
                Err(why) if why.contains("Address already in use") => failure = why,
                Err(why) => panic!("{why}"),
            }
        }
        panic!("each of {PORT_TRIES} free ports was taken by somebody else: {failure}");
    }

    fn spec(&self, program: &Path, cli: &Path, directory: &Path, directives: &str) -> Spec {
        let (log, config) = (directory.join("log"), directory.join("redis.conf"));
        std::fs::write(&config, directives).expect("cannot write redis.conf");
        // The log of a try that lost its port would hide what the next one says.
        let _ = std::fs::remove_file(&log);
        let (options, cli, socket) = (self.clone(), cli.to_owned(), directory.join("socket"));
        Spec {
            name: "redis-server",
            program: program.to_owned(),
            args: vec![config.into_os_string()],
            env: Vec::new(),
            log,
            ready: Box::new(move |pid| {
                let info = ask(&cli, &socket, &options, &[OsString::from("INFO")])?;
                let ours = info.lines().any(|line| line == format!("process_id:{pid}"));
                let loaded = info.lines().any(|line| line == "loading:0");
                (ours && loaded).then_some(()).ok_or_else(|| "still loading its data".to_owned())
            }),
        }
    }

    fn config_file(
        &self,
        directory: &Path,
        port: u16,
        tls: Option<(&Certificates, u16)>,
    ) -> String {
        let in_home = |name: &str| directory.join(name).display().to_string();
        let mut lines = vec![
            format!("port {port}"),
            "bind 127.0.0.1".to_owned(),
            format!("unixsocket {}", in_home("socket")),
            format!("dir {}", in_home("data")),
            "daemonize no".to_owned(),
            // Saves at an orderly stop, and practically never in between.
            "save 3600 100000000".to_owned(),
        ];
        if self.cluster.is_some() {
            // Without the last one it takes the port plus 10000, which may not exist.
            lines.extend([
                "cluster-enabled yes".to_owned(),
                format!("cluster-port {}", free_port()),
            ]);
            lines.push("cluster-node-timeout 2000".to_owned());
        }
        if self.append_only {
            lines.extend(["appendonly yes".to_owned(), "appendfsync always".to_owned()]);
        }
        if let Some(password) = &self.password {
            lines.push(format!("requirepass {password}"));
        }
        if self.needs_admin() {
            lines.push(format!("user {ADMIN} on >{ADMIN_PASSWORD} ~* &* +@all"));
        }
        for (name, password, rules) in &self.users {
            lines.push(format!("user {name} on >{password} {rules}"));
        }
        if let Some((certificates, tls_port)) = tls {
            let clients = if self.client_certificates { "yes" } else { "no" };
            lines.extend([
                format!("tls-port {tls_port}"),
                format!("tls-cert-file {}", certificates.server().display()),
                format!("tls-key-file {}", certificates.server_key().display()),
                format!("tls-ca-cert-file {}", certificates.ca().display()),
                format!("tls-auth-clients {clients}"),
            ]);
            if self.cluster.is_some() {
                lines.extend(["tls-cluster yes", "tls-replication yes"].map(str::to_owned));
                // Nodes always show each other who they are.
                lines.extend([
                    format!("tls-client-cert-file {}", certificates.client().display()),
                    format!("tls-client-key-file {}", certificates.client_key().display()),
                ]);
            }
        }
        lines.extend(self.config.iter().map(|(name, value)| format!("{name} {value}")));
        lines.join("\n") + "\n"
    }

    /// Who may do everything, with the password, if not everybody may.
    pub(crate) fn admin_password(&self) -> Option<(&'static str, &'static str)> {
        self.needs_admin().then_some((ADMIN, ADMIN_PASSWORD))
    }

    pub(crate) fn credentials(&self) -> String {
        self.password.as_ref().map_or(String::new(), |password| format!(":{password}@"))
    }

    pub(crate) fn path(&self) -> String {
        self.database.map_or(String::new(), |number| format!("/{number}"))
    }

    /// Starts as many independent ones as `redlock://` names: with a vote each.
    #[must_use]
    pub fn start_quorum(self, servers: usize) -> RedisQuorum {
        let each = (0..servers).map(|_| self.clone().start()).collect();
        RedisQuorum { each, options: self }
    }

    fn needs_admin(&self) -> bool {
        self.password.is_some() || !self.users.is_empty()
    }
}

/// A running Redis server. It ends with this value, and with the test process.
#[derive(Debug)]
pub struct Redis {
    // Dropped first: the server must be dead before its directory goes.
    server: Server,
    options: RedisOptions,
    cli: PathBuf,
    port: u16,
    tls_port: Option<u16>,
    certificates: Option<Certificates>,
    home: TempDir,
    paused: AtomicBool,
}

impl Redis {
    /// Starts a plain one.
    #[must_use]
    pub fn start() -> Self {
        Self::options().start()
    }

    /// Begins to describe one with more to it.
    #[must_use]
    pub fn options() -> RedisOptions {
        RedisOptions::default()
    }

    /// The port without TLS, on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The port with TLS, on 127.0.0.1.
    #[must_use]
    pub fn tls_port(&self) -> u16 {
        self.tls_port.expect("start it with Redis::options().tls()")
    }

    /// The certificates that it was started with.
    #[must_use]
    pub fn certificates(&self) -> &Certificates {
        self.certificates.as_ref().expect("start it with Redis::options().tls()")
    }

    /// `redis://[:PASSWORD@]127.0.0.1:PORT[/DATABASE]`
    #[must_use]
    pub fn url(&self) -> String {
        self.url_on(self.port)
    }

    /// [`Redis::url`] by way of a [`Proxy`](crate::Proxy), or of whatever listens on that port.
    #[must_use]
    pub fn url_on(&self, port: u16) -> String {
        format!("redis://{}127.0.0.1:{port}{}", self.options.credentials(), self.options.path())
    }

    /// [`Redis::url`] as an ACL user.
    #[must_use]
    pub fn url_as(&self, user: &str, password: &str) -> String {
        format!("redis://{user}:{password}@127.0.0.1:{}{}", self.port, self.options.path())
    }

    /// `rediss://[:PASSWORD@]localhost:PORT[/DATABASE]`, for [`Certificates::ca`].
    #[must_use]
    pub fn tls_url(&self) -> String {
        format!(
            "rediss://{}localhost:{}{}",
            self.options.credentials(),
            self.tls_port(),
            self.options.path()
        )
    }

    /// The path of its Unix socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.home.path().join("socket")
    }

    /// `redis+unix://PATH[?db=DATABASE&password=PASSWORD]`
    #[must_use]
    pub fn unix_url(&self) -> String {
        let RedisOptions { database, password, .. } = &self.options;
        let database = database.map(|number| format!("db={number}"));
        let password = password.as_ref().map(|password| format!("password={password}"));
        let query: Vec<String> = [database, password].into_iter().flatten().collect();
        let mark = if query.is_empty() { "" } else { "?" };
        format!("redis+unix://{}{mark}{}", self.socket().display(), query.join("&"))
    }

    /// What `redis-cli --raw ARGS…` prints, without the last newline: with all rights, in the
    /// database of the URLs. For breaking holds, and for counting commands (`INFO commandstats`,
    /// in which each call of this adds its own command).
    pub fn cli(&self, args: &[&str]) -> String {
        let args: Vec<OsString> = args.iter().map(OsString::from).collect();
        ask(&self.cli, &self.socket(), &self.options, &args)
            .unwrap_or_else(|why| panic!("redis-cli {args:?}: {why}"))
    }

    /// The port by which a node of a cluster is known to others.
    pub(crate) fn node_port(&self) -> u16 {
        self.tls_port.unwrap_or(self.port)
    }

    /// The port on which the nodes of a cluster speak to each other.
    pub(crate) fn cluster_port(&self) -> String {
        let answer = self.cli(&["CONFIG", "GET", "cluster-port"]);
        answer.lines().nth(1).expect("a node of a cluster").to_owned()
    }

    /// Whether it runs and was not stopped in its tracks.
    pub(crate) fn is_answering(&self) -> bool {
        self.server.is_running() && !self.paused.load(SeqCst)
    }

    /// The process id of the server.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.server.pid()
    }

    /// Stops it in an orderly way (`SIGTERM`), with its data written. See [`Redis::start_again`].
    pub fn stop(&self) {
        self.server.stop();
    }

    /// Kills it (`SIGKILL`). Without [`RedisOptions::append_only`] it forgets everything since
    /// its last orderly stop.
    pub fn kill(&self) {
        self.server.kill();
    }

    /// Starts it again on the same port with the data that it left.
    pub fn start_again(&self) {
        self.server.start_again();
    }

    /// Ends it and starts it again on the same port.
    pub fn restart(&self, memory: Memory) {
        match memory {
            Memory::Kept => self.stop(),
            Memory::Lost => {
                self.kill();
                server::forget(&self.home.path().join("data"));
            }
        }
        self.start_again();
    }

    /// Stops it in its tracks (`SIGSTOP`): connections stay open, nothing answers.
    pub fn pause(&self) {
        self.paused.store(true, SeqCst);
        self.server.pause();
    }

    /// Lets it go on after [`Redis::pause`].
    pub fn resume(&self) {
        self.server.resume();
        self.paused.store(false, SeqCst);
    }
}

/// Independent Redis servers. They end with this value, and with the test process.
#[derive(Debug)]
pub struct RedisQuorum {
    each: Vec<Redis>,
    options: RedisOptions,
}

impl RedisQuorum {
    /// `redlock://[:PASSWORD@]127.0.0.1:PORT,127.0.0.1:PORT,…[/DATABASE]`
    #[must_use]
    pub fn url(&self) -> String {
        self.url_on(|_, redis| redis.port())
    }

    /// [`RedisQuorum::url`] by way of other ports, such as those of a [`Proxy`](crate::Proxy)
    /// each: given the number of a server and the server.
    #[must_use]
    pub fn url_on(&self, port: impl Fn(usize, &Redis) -> u16) -> String {
        let hosts = self.each.iter().enumerate();
        let hosts = hosts.map(|(index, redis)| format!("127.0.0.1:{}", port(index, redis)));
        let (credentials, path) = (self.options.credentials(), self.options.path());
        format!("redlock://{credentials}{}{path}", hosts.collect::<Vec<_>>().join(","))
    }

    /// The URLs of the servers, each by itself.
    #[must_use]
    pub fn urls(&self) -> Vec<String> {
        self.each.iter().map(Redis::url).collect()
    }
}

impl std::ops::Deref for RedisQuorum {
    type Target = [Redis];

    fn deref(&self) -> &[Redis] {
        &self.each
    }
}

/// Asks by the Unix socket, because the port may be somebody else's.
fn ask(
    cli: &Path,
    socket: &Path,
    options: &RedisOptions,
    args: &[OsString],
) -> Result<String, String> {
    let mut command = Command::new(cli);
    command.arg("-s").arg(socket).args(["--raw", "-e", "-n"]);
    command.arg(options.database.unwrap_or(0).to_string());
    if options.needs_admin() {
        // Not as an argument, which it would warn about in its output.
        command.args(["--user", ADMIN]).env("REDISCLI_AUTH", ADMIN_PASSWORD);
    }
    let output = command.args(args).output().map_err(|error| error.to_string())?;
    // It ends its lines with \r\n where INFO does.
    let text = String::from_utf8_lossy(&output.stdout).replace('\r', "");
    if output.status.success() {
        return Ok(text.strip_suffix('\n').unwrap_or(&text).to_owned());
    }
    Err(format!("{text}{}", String::from_utf8_lossy(&output.stderr)))
}
