//! A ZooKeeper server, or three, of a test's own.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::certificates::Certificates;
use crate::missing::require;
use crate::port::free_port;
use crate::server::{Server, Spec};

/// How often a port may turn out to be taken before that is no coincidence.
const PORT_TRIES: usize = 5;
/// How long an ensemble may take to elect a leader: long, because the machine may be busy.
const PATIENCE: Duration = Duration::from_mins(1);
const JARS: &str = "/usr/share/java";

/// What kind of ensemble to start: `ZooKeeper::options().members(3).start()`.
#[derive(Debug, Clone)]
pub struct ZooKeeperOptions {
    members: usize,
    tick: Duration,
    tls: bool,
    client_certificates: bool,
    config: Vec<(String, String)>,
    properties: Vec<(String, String)>,
    /// The four-letter words that the members answer to.
    words: String,
}

impl ZooKeeperOptions {
    /// How many servers: 1 or 3.
    #[must_use]
    pub fn members(mut self, members: usize) -> Self {
        self.members = members;
        self
    }

    /// The `tickTime`: 200 ms if nothing else is said, which makes short sessions possible.
    #[must_use]
    pub fn tick(mut self, tick: Duration) -> Self {
        self.tick = tick;
        self
    }

    /// Listens with TLS as well, on a port of its own. See [`ZooKeeper::tls_url`].
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

    /// Any other line of `zoo.cfg`.
    #[must_use]
    pub fn config(mut self, name: &str, value: &str) -> Self {
        self.config.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The four-letter words that the members answer to, as in `srvr, conf`: all, if nothing else is
    /// said. The testbed needs `ruok`; `srvr` is always answered to.
    #[must_use]
    pub fn words(mut self, words: &str) -> Self {
        words.clone_into(&mut self.words);
        self
    }

    /// A Java system property.
    #[must_use]
    pub fn property(mut self, name: &str, value: &str) -> Self {
        self.properties.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Starts it and waits until every server serves.
    #[must_use]
    pub fn start(self) -> ZooKeeper {
        let mut failure = String::new();
        for _ in 0..PORT_TRIES {
            match self.try_start() {
                Ok(started) => return started,
                Err(why) if why.contains("Address already in use") => failure = why,
                Err(why) => panic!("{why}"),
            }
        }
        panic!("each of {PORT_TRIES} tries met ports taken by somebody else: {failure}");
    }

    fn try_start(&self) -> Result<ZooKeeper, String> {
        let home = TempDir::with_prefix("leasehold-zookeeper-").expect("cannot make a directory");
        let certificates = self.tls.then(|| certificates(&home.path().join("certificates")));
        let ports: Vec<Ports> = (0..self.members).map(|_| Ports::free()).collect();
        let mut members = Vec::new();
        for (index, own) in ports.iter().enumerate() {
            let directory = home.path().join((index + 1).to_string());
            self.configure(&directory, index, &ports, home.path());
            let spec = self.spec(&directory, own.client);
            members.push(Member { server: Server::start(spec)?, ports: *own, directory });
        }
        let started = ZooKeeper { members, certificates, home };
        for index in 0..self.members {
            started.wait_until_serving(index);
        }
        Ok(started)
    }

    fn configure(&self, directory: &Path, index: usize, ports: &[Ports], home: &Path) {
        std::fs::create_dir_all(directory.join("data")).expect("cannot make a directory");
        std::fs::write(directory.join("data/myid"), (index + 1).to_string())
            .expect("cannot write myid");
        let mut lines = vec![
            format!("tickTime={}", self.tick.as_millis()),
            "initLimit=50".to_owned(),
            "syncLimit=10".to_owned(),
            format!("dataDir={}", directory.join("data").display()),
            format!("clientPort={}", ports[index].client),
            "clientPortAddress=127.0.0.1".to_owned(),
            "admin.enableServer=false".to_owned(),
            format!("4lw.commands.whitelist={}", self.words),
            "maxClientCnxns=0".to_owned(),
            "maxSessionTimeout=7200000".to_owned(),
            "preAllocSize=256".to_owned(),
        ];
        if ports.len() > 1 {
            lines.extend(ports.iter().enumerate().map(|(index, ports)| {
                format!("server.{}=127.0.0.1:{}:{}", index + 1, ports.peer, ports.election)
            }));
        }
        if self.tls {
            let clients = if self.client_certificates { "need" } else { "none" };
            let file = |name: &str| home.join("certificates").join(name).display().to_string();
            lines.extend([
                format!("secureClientPort={}", ports[index].tls),
                "secureClientPortAddress=127.0.0.1".to_owned(),
                "serverCnxnFactory=org.apache.zookeeper.server.NettyServerCnxnFactory".to_owned(),
                format!("ssl.keyStore.location={}", file("keystore.pem")),
                format!("ssl.trustStore.location={}", file("ca.pem")),
                format!("ssl.clientAuth={clients}"),
            ]);
        }
        lines.extend(self.config.iter().map(|(name, value)| format!("{name}={value}")));
        std::fs::write(directory.join("zoo.cfg"), lines.join("\n") + "\n")
            .expect("cannot write zoo.cfg");
    }

    fn spec(&self, directory: &Path, port: u16) -> Spec {
        let mut args: Vec<OsString> = java_args();
        // What is written survives the death of the process, if not that of the machine.
        args.push("-Dzookeeper.forceSync=no".into());
        for (name, value) in &self.properties {
            args.push(format!("-D{name}={value}").into());
        }
        args.push("org.apache.zookeeper.server.quorum.QuorumPeerMain".into());
        args.push(directory.join("zoo.cfg").into_os_string());
        Spec {
            name: "zookeeper",
            program: require("java", "default-jre-headless"),
            args,
            env: Vec::new(),
            log: directory.join("log"),
            // Whether it serves is seen once all members run: see `wait_until_serving`.
            ready: Box::new(move |_| match four_letters(port, "ruok").as_str() {
                "imok" => Ok(()),
                other => Err(format!("to `ruok` it says {other:?}")),
            }),
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Ports {
    client: u16,
    tls: u16,
    peer: u16,
    election: u16,
}

impl Ports {
    fn free() -> Self {
        let [client, tls, peer, election] = [free_port(), free_port(), free_port(), free_port()];
        Self { client, tls, peer, election }
    }
}

#[derive(Debug)]
struct Member {
    server: Server,
    ports: Ports,
    directory: std::path::PathBuf,
}

/// A running ensemble. It ends with this value, and with the test process.
#[derive(Debug)]
pub struct ZooKeeper {
    // Dropped first: the servers must be dead before their directory goes.
    members: Vec<Member>,
    certificates: Option<Certificates>,
    home: TempDir,
}

impl ZooKeeper {
    /// Starts one plain server.
    #[must_use]
    pub fn start() -> Self {
        Self::options().start()
    }

    /// Begins to describe one with more to it.
    #[must_use]
    pub fn options() -> ZooKeeperOptions {
        ZooKeeperOptions {
            members: 1,
            tick: Duration::from_millis(200),
            tls: false,
            client_certificates: false,
            config: Vec::new(),
            properties: Vec::new(),
            words: "*".to_owned(),
        }
    }

    /// The port of a member without TLS, on 127.0.0.1.
    #[must_use]
    pub fn port(&self, member: usize) -> u16 {
        self.members[member].ports.client
    }

    /// `127.0.0.1:PORT,…` with every member.
    #[must_use]
    pub fn hosts(&self) -> String {
        let hosts: Vec<String> = (0..self.members.len())
            .map(|index| format!("127.0.0.1:{}", self.port(index)))
            .collect();
        hosts.join(",")
    }

    /// `zookeeper://127.0.0.1:PORT,…` with every member.
    #[must_use]
    pub fn url(&self) -> String {
        format!("zookeeper://{}", self.hosts())
    }

    /// The URL of one member alone.
    #[must_use]
    pub fn url_of(&self, member: usize) -> String {
        format!("zookeeper://127.0.0.1:{}", self.port(member))
    }

    /// `zookeepers://localhost:PORT`, the first member's.
    #[must_use]
    pub fn tls_url(&self) -> String {
        format!("zookeepers://localhost:{}", self.members[0].ports.tls)
    }

    /// The certificates that it was started with.
    #[must_use]
    pub fn certificates(&self) -> &Certificates {
        self.certificates.as_ref().expect("start it with ZooKeeper::options().tls()")
    }

    /// What a member answers to a four-letter word; empty if it does not answer.
    #[must_use]
    pub fn ask(&self, member: usize, word: &str) -> String {
        four_letters(self.port(member), word)
    }

    /// The number of the last transaction that a member knows of.
    #[must_use]
    pub fn last_transaction(&self, member: usize) -> u64 {
        let text = self.ask(member, "srvr");
        let hex = text.lines().find_map(|line| line.strip_prefix("Zxid: 0x"));
        u64::from_str_radix(hex.expect("a member that serves"), 16).expect("a number")
    }

    /// The member that leads. Waits until there is one.
    #[must_use]
    pub fn leader(&self) -> usize {
        let until = Instant::now() + PATIENCE;
        loop {
            let leads = |index: &usize| self.ask(*index, "srvr").contains("Mode: leader");
            if let Some(leader) = (0..self.members.len()).find(leads) {
                return leader;
            }
            assert!(Instant::now() < until, "no leader after {PATIENCE:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The member to which the client with this session is connected.
    #[must_use]
    pub fn member_of(&self, session: &str) -> Option<usize> {
        let word = format!("sid=0x{}", session.trim_start_matches('0'));
        (0..self.members.len()).find(|index| self.ask(*index, "cons").contains(&word))
    }

    /// The command that `zkCli.sh` is for these servers; a command of its own may follow.
    #[must_use]
    pub fn cli_command(&self) -> Command {
        let mut client = Command::new(require("java", "default-jre-headless"));
        client.args(java_args()).args(["-Dorg.slf4j.simpleLogger.defaultLogLevel=off"]).args([
            "org.apache.zookeeper.ZooKeeperMain",
            "-server",
            &self.hosts(),
        ]);
        client
    }

    /// Runs commands of `zkCli.sh` and returns what they print. Takes the second or so that Java
    /// needs to start.
    #[must_use]
    pub fn cli(&self, commands: &[&str]) -> String {
        let mut client = self
            .cli_command()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("cannot start java");
        let mut stdin = client.stdin.take().expect("stdin is a pipe");
        for command in commands.iter().chain(&["quit"]) {
            writeln!(stdin, "{command}").expect("cannot write to zkCli");
        }
        drop(stdin);
        let output = client.wait_with_output().expect("cannot read from zkCli");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// The directory in which it keeps everything.
    #[must_use]
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// Kills a member (`SIGKILL`).
    pub fn kill(&self, member: usize) {
        self.members[member].server.kill();
    }

    /// Starts a member again with the data that it left, and waits until it serves.
    pub fn start_again(&self, member: usize) {
        self.members[member].server.start_again();
        self.wait_until_serving(member);
    }

    /// Stops a member in its tracks (`SIGSTOP`): connections stay open, nothing answers.
    pub fn pause(&self, member: usize) {
        self.members[member].server.pause();
    }

    /// Lets a member go on after [`ZooKeeper::pause`].
    pub fn resume(&self, member: usize) {
        self.members[member].server.resume();
    }

    /// Waits until a member serves requests: it leads, follows a leader, or is alone.
    pub fn wait_until_serving(&self, member: usize) {
        let until = Instant::now() + PATIENCE;
        let Member { server, directory, .. } = &self.members[member];
        let own = format!("dataDir={}", directory.join("data").display());
        loop {
            // Two questions, between which it may lose its leader again.
            let configured = || {
                let conf = self.ask(member, "conf");
                conf.contains(&own) || conf.contains("is not in the whitelist")
            };
            if self.ask(member, "srvr").contains("Mode: ") && configured() {
                return;
            }
            assert!(Instant::now() < until, "not serving after {PATIENCE:?}: {}", server.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// What a server says to one of its four-letter words; empty if nothing within a second.
fn four_letters(port: u16, word: &str) -> String {
    let limit = Duration::from_secs(1);
    let mut said = Vec::new();
    let asking = TcpStream::connect_timeout(&SocketAddr::from(([127, 0, 0, 1], port)), limit)
        .and_then(|mut stream| {
            stream.set_read_timeout(Some(limit))?;
            stream.write_all(word.as_bytes())?;
            stream.read_to_end(&mut said)
        });
    // What it said before it hung up is what it said.
    let _ = asking;
    String::from_utf8_lossy(&said).into_owned()
}

/// What Java needs to run a peer of tests/peers from its source.
pub(crate) fn peer_args() -> Vec<OsString> {
    java_args_with(&["curator-recipes", "curator-framework", "curator-client", "guava"])
}

/// A small and quickly started Java, with everything that ZooKeeper's jars ask for.
fn java_args() -> Vec<OsString> {
    java_args_with(&[])
}

fn java_args_with(more: &[&str]) -> Vec<OsString> {
    let jar = Path::new(JARS).join("zookeeper.jar");
    assert!(
        jar.is_file(),
        "{} is not there, and this test is nothing without it: `apt-get install zookeeper`, or \
         run ./test, which installs what is missing",
        jar.display()
    );
    let jars = ["zookeeper", "slf4j-simple"].map(|name| format!("{JARS}/{name}.jar"));
    let netty = ["codec", "resolver", "transport-native-unix-common"]
        .map(|name| format!("{JARS}/netty-{name}.jar"));
    let more = more.iter().map(|name| format!("{JARS}/{name}.jar"));
    let class_path = jars.into_iter().chain(netty).chain(more).collect::<Vec<_>>().join(":");
    ["-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto", "-cp"]
        .into_iter()
        .map(OsString::from)
        .chain([
            class_path.into(),
            "-Dzookeeper.jmx.log4j.disable=true".into(),
            "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn".into(),
        ])
        .collect()
}

/// ZooKeeper wants the server's key and certificate in one file.
fn certificates(directory: &Path) -> Certificates {
    let made = Certificates::make(directory);
    let read = |path: &Path| std::fs::read_to_string(path).expect("just written");
    let both = read(&made.server_key()) + &read(&made.server()) + &read(&made.ca());
    std::fs::write(directory.join("keystore.pem"), both).expect("cannot write the key store");
    made
}
