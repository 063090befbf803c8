//! An etcd cluster of a test's own, of one member or of more.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::certificates::Certificates;
use crate::missing::require;
use crate::port::free_port;
use crate::process::{Output, Process};
use crate::server::{Server, Spec};

/// How often a port may turn out to be taken before that is no coincidence.
const PORT_TRIES: usize = 5;

/// What kind of cluster to start: `Etcd::options().members(3).password("s3cret").start()`.
#[derive(Debug, Clone)]
pub struct EtcdOptions {
    members: usize,
    password: Option<String>,
    tls: bool,
    client_certificates: bool,
    args: Vec<String>,
}

impl EtcdOptions {
    /// How many members it has: 1 unless this says otherwise.
    #[must_use]
    pub fn members(mut self, members: usize) -> Self {
        self.members = members;
        self
    }

    /// Turns authentication on; the user `root` has this password. It is part of [`Etcd::url`].
    #[must_use]
    pub fn password(mut self, password: &str) -> Self {
        self.password = Some(password.to_owned());
        self
    }

    /// Talks to clients by TLS.
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

    /// Any other argument of `etcd`.
    #[must_use]
    pub fn arg(mut self, arg: &str) -> Self {
        self.args.push(arg.to_owned());
        self
    }

    /// Starts it and waits until every member answers.
    #[must_use]
    pub fn start(self) -> Etcd {
        let mut failure = String::new();
        for _ in 0..PORT_TRIES {
            match self.try_start() {
                Ok(etcd) => {
                    etcd.set_up();
                    return etcd;
                }
                Err(why) if why.contains("address already in use") => failure = why,
                Err(why) => panic!("{why}"),
            }
        }
        panic!("each of {PORT_TRIES} free ports was taken by somebody else: {failure}");
    }

    fn try_start(&self) -> Result<Etcd, String> {
        let home = TempDir::with_prefix("leasehold-etcd-").expect("cannot make a directory");
        let certificates = self.tls.then(|| Certificates::make(&home.path().join("certificates")));
        let ports: Vec<(u16, u16)> =
            (0..self.members).map(|_| (free_port(), free_port())).collect();
        let cluster: Vec<String> =
            (0..).zip(&ports).map(|(n, (_, peer))| peer_name(n, *peer)).collect();
        let ctl = Ctl {
            program: require("etcdctl", "etcd-client"),
            password: None,
            certificates: certificates.clone(),
        };
        // At once: no member answers before most of them are there.
        let members = std::thread::scope(|scope| {
            let started: Vec<_> = (0..)
                .zip(&ports)
                .map(|(n, (port, peer))| {
                    let spec = self.spec(home.path(), n, *port, *peer, &cluster.join(","), &ctl);
                    scope.spawn(move || Server::start(spec))
                })
                .collect();
            let ended = started.into_iter().map(|thread| thread.join().expect("does not panic"));
            ended.collect::<Result<Vec<_>, String>>()
        })?;
        let ports = ports.into_iter().map(|(port, _)| port).collect();
        Ok(Etcd { members, options: self.clone(), ports, ctl, home })
    }

    fn spec(
        &self,
        home: &Path,
        n: usize,
        port: u16,
        peer_port: u16,
        cluster: &str,
        ctl: &Ctl,
    ) -> Spec {
        let scheme = if self.tls { "https" } else { "http" };
        let client_url = format!("{scheme}://127.0.0.1:{port}");
        let peer_url = format!("http://127.0.0.1:{peer_port}");
        let mut args = vec![
            format!("--name=m{n}"),
            format!("--data-dir={}", home.join(format!("data{n}")).display()),
            format!("--listen-client-urls={client_url}"),
            format!("--advertise-client-urls={client_url}"),
            format!("--listen-peer-urls={peer_url}"),
            format!("--initial-advertise-peer-urls={peer_url}"),
            format!("--initial-cluster={cluster}"),
            // A test may kill it, but not the machine: what was written is there.
            "--unsafe-no-fsync".to_owned(),
        ];
        if let Some(certificates) = &ctl.certificates {
            args.push(format!("--cert-file={}", certificates.server().display()));
            args.push(format!("--key-file={}", certificates.server_key().display()));
            if self.client_certificates {
                args.push("--client-cert-auth".to_owned());
                args.push(format!("--trusted-ca-file={}", certificates.ca().display()));
            }
        }
        args.extend(self.args.iter().cloned());
        let (ctl, ports) = (ctl.clone(), [port]);
        Spec {
            name: "etcd",
            program: require("etcd", "etcd-server"),
            args: args.into_iter().map(OsString::from).collect(),
            env: Vec::new(),
            log: home.join(format!("log{n}")),
            // A port that somebody else has makes the process end at once, before it is asked.
            ready: Box::new(move |_| {
                match ctl.ask(&ports, &["endpoint", "health", "--command-timeout=1s"]) {
                    // It asks this after it found a leader: with authentication on, that is all
                    // that this probe can learn.
                    Err(why) if !why.contains("user name is empty") => Err(why),
                    _ => Ok(()),
                }
            }),
        }
    }
}

fn peer_name(n: usize, peer_port: u16) -> String {
    format!("m{n}=http://127.0.0.1:{peer_port}")
}

/// A running cluster. It ends with this value, and with the test process.
#[derive(Debug)]
pub struct Etcd {
    // Dropped first: the servers must be dead before their directory goes.
    members: Vec<Server>,
    options: EtcdOptions,
    ports: Vec<u16>,
    ctl: Ctl,
    home: TempDir,
}

impl Etcd {
    /// Starts a plain one of one member.
    #[must_use]
    pub fn start() -> Self {
        Self::options().start()
    }

    /// Begins to describe one with more to it.
    #[must_use]
    pub fn options() -> EtcdOptions {
        EtcdOptions {
            members: 1,
            password: None,
            tls: false,
            client_certificates: false,
            args: Vec::new(),
        }
    }

    fn set_up(&self) {
        if let Some(password) = &self.options.password {
            self.ctl(&["user", "add", &format!("root:{password}")]);
            self.ctl(&["user", "grant-role", "root", "root"]);
            self.ctl(&["auth", "enable"]);
        }
    }

    /// The ports of the members for clients, on 127.0.0.1.
    #[must_use]
    pub fn ports(&self) -> &[u16] {
        &self.ports
    }

    /// The members: to be killed, paused and started again.
    #[must_use]
    pub fn members(&self) -> &[Server] {
        &self.members
    }

    /// The certificates that it was started with.
    #[must_use]
    pub fn certificates(&self) -> &Certificates {
        self.ctl.certificates.as_ref().expect("start it with Etcd::options().tls()")
    }

    /// `etcd://[root:PASSWORD@]127.0.0.1:PORT,…`; with TLS `etcds://…?ca=…` and, where they are
    /// demanded, the client's certificate and key.
    #[must_use]
    pub fn url(&self) -> String {
        self.url_on(&self.ports)
    }

    /// [`Etcd::url`] by way of [`Proxies`](crate::Proxy), or of whatever listens on those ports.
    #[must_use]
    pub fn url_on(&self, ports: &[u16]) -> String {
        let password = self.options.password.as_ref();
        let user = password.map_or(String::new(), |password| format!("root:{password}@"));
        self.url_as(&user, ports)
    }

    /// [`Etcd::url`] with other credentials: `user:password@`, or none.
    #[must_use]
    pub fn url_as(&self, credentials: &str, ports: &[u16]) -> String {
        let hosts: Vec<String> = ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
        let hosts = hosts.join(",");
        let Some(certificates) = &self.ctl.certificates else {
            return format!("etcd://{credentials}{hosts}");
        };
        let mut url = format!("etcds://{credentials}{hosts}?ca={}", certificates.ca().display());
        if self.options.client_certificates {
            let (cert, key) = (certificates.client(), certificates.client_key());
            url = format!("{url}&cert={}&key={}", cert.display(), key.display());
        }
        url
    }

    /// What `etcdctl ARGS…` prints, without the last newline: with all rights.
    #[must_use]
    pub fn ctl_says(&self, args: &[&str]) -> String {
        self.as_root()
            .ask(&self.ports, args)
            .unwrap_or_else(|why| panic!("etcdctl {args:?}: {why}"))
    }

    /// `etcdctl ARGS…`, with all rights.
    pub fn ctl(&self, args: &[&str]) {
        let _ = self.ctl_says(args);
    }

    /// `etcdctl ARGS…` as a process that goes on: `lock NAME` prints its key once it holds, and
    /// unlocks when it is terminated.
    #[must_use]
    pub fn ctl_runs(&self, args: &[&str]) -> Process {
        let ctl = self.as_root();
        let mut all = ctl.flags(&self.ports);
        all.extend(args.iter().map(OsString::from));
        let log = self.home.path().join("ctl-log");
        Process::start(&ctl.program, &all, &Ctl::env(), &log, Output::Lines)
    }

    /// The store's revision.
    #[must_use]
    pub fn revision(&self) -> u64 {
        let status = self.ctl_says(&["get", "no such key", "-w", "json"]);
        let after = status.split("\"revision\":").nth(1).expect("a revision in the header");
        let digits: String = after.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().expect("a number")
    }

    fn as_root(&self) -> Ctl {
        // Until the set-up enables authentication, credentials do no harm but a warning.
        Ctl { password: self.options.password.clone(), ..self.ctl.clone() }
    }
}

/// How to run `etcdctl`.
#[derive(Debug, Clone)]
struct Ctl {
    program: PathBuf,
    password: Option<String>,
    certificates: Option<Certificates>,
}

impl Ctl {
    fn ask(&self, ports: &[u16], args: &[&str]) -> Result<String, String> {
        let mut command = Command::new(&self.program);
        command.args(self.flags(ports)).args(args).envs(Self::env());
        let output = command.output().map_err(|error| error.to_string())?;
        let text = String::from_utf8_lossy(&output.stdout);
        if output.status.success() {
            return Ok(text.trim_end_matches('\n').to_owned());
        }
        let mut why = format!("{text}{}", String::from_utf8_lossy(&output.stderr));
        if let Some(password) = &self.password {
            why = why.replace(password.as_str(), "***");
        }
        Err(why)
    }

    fn flags(&self, ports: &[u16]) -> Vec<OsString> {
        let scheme = if self.certificates.is_some() { "https" } else { "http" };
        let members: Vec<String> =
            ports.iter().map(|port| format!("{scheme}://127.0.0.1:{port}")).collect();
        let mut flags = vec![format!("--endpoints={}", members.join(","))];
        if let Some(password) = &self.password {
            flags.push(format!("--user=root:{password}"));
        }
        if let Some(certificates) = &self.certificates {
            flags.push(format!("--cacert={}", certificates.ca().display()));
            flags.push(format!("--cert={}", certificates.client().display()));
            flags.push(format!("--key={}", certificates.client_key().display()));
        }
        flags.into_iter().map(OsString::from).collect()
    }

    fn env() -> Vec<(OsString, OsString)> {
        vec![("ETCDCTL_API".into(), "3".into())]
    }
}
