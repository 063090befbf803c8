//! A PostgreSQL server of a test's own.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::{Pid, Signal, geteuid, kill_process};
use tempfile::TempDir;

use crate::certificates::Certificates;
use crate::missing::require;
use crate::port::free_port;
use crate::server::{Server, Spec};

const PORT_TRIES: usize = 5;
/// The role of the tests. It owns the database and is no superuser.
pub const ROLE: &str = "app";
/// The database of the tests.
pub const DATABASE: &str = "locks";
/// The password of [`ROLE`].
pub const PASSWORD: &str = "open-sesame-4711";

/// What kind of PostgreSQL to start: `Postgres::options().tls().start()`.
#[derive(Debug, Clone, Default)]
pub struct PostgresOptions {
    tls: bool,
    client_certificates: bool,
    durable: bool,
    config: Vec<(String, String)>,
    /// The socket and the port of the primary.
    primary: Option<(PathBuf, u16)>,
}

impl PostgresOptions {
    /// Offers TLS, with [`Postgres::certificates`].
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

    /// Syncs to the disk, as real ones do. Without it a killed *machine* may lose commits; a killed
    /// server does not.
    #[must_use]
    pub fn durable(mut self) -> Self {
        self.durable = true;
        self
    }

    /// A standby of this one, which it calls `name` (its `application_name`).
    #[must_use]
    pub fn standby_of(mut self, primary: &Postgres, name: &str) -> Self {
        let (socket, port) = (primary.socket(), primary.port());
        self.primary = Some((socket.to_owned(), port));
        let conninfo =
            format!("host={} port={port} user=postgres application_name={name}", socket.display());
        self.config("primary_conninfo", &conninfo)
    }

    /// Any other setting of `postgresql.conf`. The value is quoted here.
    #[must_use]
    pub fn config(mut self, name: &str, value: &str) -> Self {
        self.config.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Starts it and waits until it answers.
    #[must_use]
    pub fn start(self) -> Postgres {
        let programs = Programs::find();
        let home = TempDir::with_prefix("leasehold-postgres-").expect("cannot make a directory");
        let directory = home.path().to_owned();
        if let Some((socket, port)) = &self.primary {
            back_up(&programs, socket, *port, &directory);
        } else {
            let mut copy = Command::new("cp");
            run(copy.arg("-a").arg(template(&programs)).arg(directory.join("data")), "cp");
        }
        let certificates = self.tls.then(|| Certificates::make(&directory.join("certificates")));
        let mut failure = String::new();
        for _ in 0..PORT_TRIES {
            let port = free_port();
            match Server::start(self.spec(&programs, &directory, port)) {
                Ok(server) => {
                    let started =
                        Postgres { server, psql: programs.psql, port, certificates, home };
                    if self.primary.is_none() {
                        started.prepare();
                    }
                    return started;
                }
                Err(why) if why.contains("Address already in use") => failure = why,
                Err(why) => panic!("{why}"),
            }
        }
        panic!("each of {PORT_TRIES} free ports was taken by somebody else: {failure}");
    }

    fn spec(&self, programs: &Programs, directory: &Path, port: u16) -> Spec {
        let log = directory.join("log");
        let data = directory.join("data");
        let write = |name: &str, text: String| {
            fs::write(data.join(name), text).expect("cannot write the server's configuration");
        };
        write("postgresql.auto.conf", self.config_file(directory, port));
        let kind = if self.client_certificates { "hostssl" } else { "host" };
        let check = if self.client_certificates { " clientcert=verify-ca" } else { "" };
        write(
            "pg_hba.conf",
            format!(
                "local all all trust\nlocal replication all trust\n\
                 {kind} all all 127.0.0.1/32 scram-sha-256{check}\n"
            ),
        );
        // The log of a try that lost its port would hide what the next one says.
        fs::write(&log, "").expect("cannot write the log");
        own(directory);
        let (psql, socket) = (programs.psql.clone(), directory.to_owned());
        let (program, args) =
            as_server(&programs.bin.join("postgres"), &["-D".into(), data.into_os_string()]);
        Spec {
            name: "postgres",
            program,
            args,
            env: Vec::new(),
            log,
            // By its socket, which is in a directory of its own: nobody else answers there.
            ready: Box::new(move |_| ask(&psql, &socket, port, "postgres", "SELECT 1").map(drop)),
        }
    }

    fn config_file(&self, directory: &Path, port: u16) -> String {
        let in_home = |name: &str| directory.join(name).display().to_string();
        let mut settings: Vec<(&str, String)> = vec![
            ("port", port.to_string()),
            ("listen_addresses", "127.0.0.1".into()),
            ("unix_socket_directories", directory.display().to_string()),
            ("fsync", if self.durable { "on" } else { "off" }.into()),
            ("shared_buffers", "32MB".into()),
            ("max_wal_size", "256MB".into()),
        ];
        if self.tls {
            settings.extend([
                ("ssl", "on".into()),
                ("ssl_cert_file", in_home("certificates/server.pem")),
                ("ssl_key_file", in_home("certificates/server.key")),
                ("ssl_ca_file", in_home("certificates/ca.pem")),
            ]);
        }
        settings.extend(self.config.iter().map(|(name, value)| (name.as_str(), value.clone())));
        let lines: Vec<String> =
            settings.iter().map(|(name, value)| format!("{name} = '{value}'\n")).collect();
        lines.concat()
    }
}

/// A running PostgreSQL server. It ends with this value, and with the test process.
#[derive(Debug)]
pub struct Postgres {
    // Dropped first: the server must be dead before its directory goes.
    server: Server,
    psql: PathBuf,
    port: u16,
    certificates: Option<Certificates>,
    home: TempDir,
}

impl Postgres {
    /// Starts a plain one.
    #[must_use]
    pub fn start() -> Self {
        Self::options().start()
    }

    /// Begins to describe one with more to it.
    #[must_use]
    pub fn options() -> PostgresOptions {
        PostgresOptions::default()
    }

    fn prepare(&self) {
        self.psql_in("postgres", &format!("CREATE ROLE {ROLE} LOGIN PASSWORD '{PASSWORD}'"));
        self.psql_in("postgres", &format!("CREATE DATABASE {DATABASE} OWNER {ROLE}"));
    }

    /// The port, on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `postgres://app:PASSWORD@127.0.0.1:PORT/locks`
    #[must_use]
    pub fn url(&self) -> String {
        self.url_on(self.port)
    }

    /// [`Postgres::url`] by way of a [`Proxy`](crate::Proxy), or of whatever listens on that port.
    #[must_use]
    pub fn url_on(&self, port: u16) -> String {
        self.url_as(ROLE, PASSWORD, &format!("127.0.0.1:{port}"), DATABASE)
    }

    /// A URL in full.
    #[must_use]
    pub fn url_as(&self, role: &str, password: &str, host: &str, database: &str) -> String {
        format!("postgres://{role}:{password}@{host}/{database}")
    }

    /// The directory of its Unix socket, on which nobody needs a password.
    #[must_use]
    pub fn socket(&self) -> &Path {
        self.home.path()
    }

    /// The certificates that it was started with.
    #[must_use]
    pub fn certificates(&self) -> &Certificates {
        self.certificates.as_ref().expect("start it with Postgres::options().tls()")
    }

    /// What psql prints for `sql` in the database of the tests, run as the superuser: a line for
    /// each row, `|` between the columns.
    pub fn psql(&self, sql: &str) -> String {
        self.psql_in(DATABASE, sql)
    }

    fn psql_in(&self, database: &str, sql: &str) -> String {
        ask(&self.psql, self.socket(), self.port, database, sql)
            .unwrap_or_else(|why| panic!("psql {sql}: {why}"))
    }

    /// Stops it in an orderly way, without waiting for its clients: they are told.
    pub fn stop(&self) {
        if let Some(postmaster) = self.family().into_iter().find(|pid| is_postgres(*pid)) {
            signal(postmaster, Signal::INT);
        }
        self.server.stop();
    }

    /// Kills it and all its backends (`SIGKILL`).
    pub fn kill(&self) {
        let family = self.family();
        self.server.kill();
        for pid in family {
            signal(pid, Signal::KILL);
        }
    }

    /// Starts it again with the data that it left.
    pub fn start_again(&self) {
        self.server.start_again();
    }

    /// Stops it and all its backends in their tracks (`SIGSTOP`).
    pub fn pause(&self) {
        // The backends first: the server starts new ones as long as it runs.
        self.server.pause();
        for pid in self.family() {
            signal(pid, Signal::STOP);
        }
    }

    /// Lets them go on after [`Postgres::pause`].
    pub fn resume(&self) {
        for pid in self.family() {
            signal(pid, Signal::CONT);
        }
        self.server.resume();
    }

    /// The process and all that descend from it. Each backend is a process group of its own.
    fn family(&self) -> Vec<u32> {
        let mut family = vec![self.server.pid()];
        let parents: Vec<(u32, u32)> = fs::read_dir("/proc")
            .expect("there is /proc")
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .filter_map(|pid| Some((pid, parent(pid)?)))
            .collect();
        let mut at = 0;
        while at < family.len() {
            let elder = family[at];
            family
                .extend(parents.iter().filter(|(_, parent)| *parent == elder).map(|(pid, _)| pid));
            at += 1;
        }
        family
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // A stopped backend does not notice that its server has gone.
        if self.server.is_running() {
            self.kill();
        }
    }
}

fn parent(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
}

fn is_postgres(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name == "postgres\n")
}

fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        // It may have ended in the meantime.
        let _ = kill_process(pid, signal);
    }
}

struct Programs {
    bin: PathBuf,
    psql: PathBuf,
}

impl Programs {
    fn find() -> Self {
        // Debian keeps each version's programs where no PATH leads.
        let mut versions: Vec<(u32, PathBuf)> = fs::read_dir("/usr/lib/postgresql")
            .into_iter()
            .flatten()
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter_map(|path| Some((path.file_name()?.to_str()?.parse().ok()?, path.join("bin"))))
            .filter(|(_, bin)| bin.join("postgres").is_file())
            .collect();
        versions.sort();
        let bin = versions.pop().map_or_else(
            || {
                let found = require("postgres", "postgresql");
                found.parent().expect("a file is in a directory").to_owned()
            },
            |(_, bin)| bin,
        );
        Self { bin, psql: require("psql", "postgresql-client") }
    }
}

/// An empty cluster to copy, made once for each version and user: a copy takes a tenth of the
/// time that `initdb` does.
fn template(programs: &Programs) -> PathBuf {
    let version = programs.bin.to_string_lossy().replace('/', "-");
    let name = format!("leasehold-postgres-template{version}-{}", geteuid().as_raw());
    let template = std::env::temp_dir().join(name);
    if template.is_dir() {
        return template;
    }
    let made = TempDir::with_prefix("leasehold-initdb-").expect("cannot make a directory");
    own(made.path());
    let data = made.path().join("data");
    let args = ["-D", "", "-U", "postgres", "-E", "UTF8", "--locale=C", "-A", "trust", "--no-sync"];
    let mut args: Vec<OsString> = args.map(OsString::from).into();
    args[1] = data.clone().into_os_string();
    let (program, args) = as_user(&programs.bin.join("initdb"), &args);
    run(Command::new(program).args(args), "initdb");
    // Two that come at the same time make the same, and one of them wins.
    if fs::rename(&data, &template).is_err() {
        assert!(template.is_dir(), "cannot keep the template at {}", template.display());
    }
    template
}

/// Copies a running server's data for a standby.
fn back_up(programs: &Programs, socket: &Path, port: u16, directory: &Path) {
    own(directory);
    let data = directory.join("data");
    let port = port.to_string();
    // With `standby.signal`, and without waiting for the next checkpoint.
    let flags = ["-R", "-c", "fast", "-U", "postgres", "-p", &port, "-h"];
    let mut args: Vec<OsString> = flags.map(OsString::from).into();
    args.extend([socket.into(), "-D".into(), data.into_os_string()]);
    let (program, args) = as_user(&programs.bin.join("pg_basebackup"), &args);
    run(Command::new(program).args(args), "pg_basebackup");
}

/// PostgreSQL refuses to run as root.
pub(crate) fn as_user(program: &Path, args: &[OsString]) -> (PathBuf, Vec<OsString>) {
    if !geteuid().is_root() {
        return (program.to_owned(), args.to_vec());
    }
    let user = ["--reuid=postgres", "--regid=postgres", "--clear-groups"];
    let mut all: Vec<OsString> = user.map(OsString::from).into();
    all.push(program.as_os_str().to_owned());
    all.extend(args.iter().cloned());
    (require("setpriv", "util-linux"), all)
}

/// The same in a process namespace of its own, so that the kernel ends all backends with the
/// server, also those that are stopped. Only root may make one.
fn as_server(program: &Path, args: &[OsString]) -> (PathBuf, Vec<OsString>) {
    let (program, args) = as_user(program, args);
    if !geteuid().is_root() {
        return (program, args);
    }
    let mut all: Vec<OsString> = ["--pid", "--fork", "--kill-child"].map(OsString::from).into();
    all.push(program.into_os_string());
    all.extend(args);
    (require("unshare", "util-linux"), all)
}

/// Gives a directory and what is in it to the user that the server runs as.
pub(crate) fn own(directory: &Path) {
    if geteuid().is_root() {
        let mut command = Command::new("chown");
        run(command.args(["-R", "postgres:postgres"]).arg(directory), "chown");
    }
    let mode = fs::Permissions::from_mode(0o755);
    fs::set_permissions(directory, mode).expect("cannot set permissions");
    for key in ["certificates/server.key", "data"] {
        let path = directory.join(key);
        if path.exists() {
            let mode = if path.is_dir() { 0o700 } else { 0o600 };
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("permissions");
        }
    }
}

fn run(command: &mut Command, name: &str) {
    let output = command.output().unwrap_or_else(|error| panic!("cannot run {name}: {error}"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name} failed: {errors}");
}

fn ask(psql: &Path, socket: &Path, port: u16, database: &str, sql: &str) -> Result<String, String> {
    let output = Command::new(psql)
        .args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-U", "postgres"])
        .args(["-p", &port.to_string(), "-d", database, "-c", sql, "-h"])
        .arg(socket)
        .output()
        .map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim_end_matches('\n').to_owned());
    }
    Err(String::from_utf8_lossy(&output.stderr).into_owned())
}
