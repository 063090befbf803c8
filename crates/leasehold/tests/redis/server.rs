//! A `redis-server` of a test's own, which ends with the test however that ends.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use redis::{Connection, FromRedisValue};
use rustix::process::{Pid, Signal, kill_process};

/// Starts the server, tells its process id, and kills it when the test closes the pipe: also when
/// the test is killed.
const WRAPPER: &str = r#""$@" </dev/null & echo "pid $!"; read -r _; kill -9 $!; wait"#;

pub(crate) struct Server {
    wrapper: Child,
    pid: Pid,
    pub(crate) port: u16,
    pub(crate) dir: tempfile::TempDir,
    options: Vec<String>,
}

impl Server {
    pub(crate) fn start() -> Self {
        Self::with(&[])
    }

    /// With more options; `{dir}` and `{port}` in them stand for its directory and its port.
    pub(crate) fn with(options: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        // Somebody else may take the port in between: then the server does not come up.
        for _ in 0..10 {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let options: Vec<String> = options
                .iter()
                .map(|option| {
                    option
                        .replace("{dir}", dir.path().to_str().unwrap())
                        .replace("{port}", &port.to_string())
                })
                .collect();
            if let Some((wrapper, pid)) = launch(port, &dir, &options) {
                return Self { wrapper, pid, port, dir, options };
            }
        }
        panic!("redis-server does not start");
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.port)
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("redis.sock")
    }

    pub(crate) fn raw(&self) -> Raw {
        let client = redis::Client::open(self.url()).unwrap();
        Raw(client.get_connection().unwrap())
    }

    pub(crate) fn stop(&mut self) {
        let mut pipe = self.wrapper.stdin.take().unwrap();
        pipe.write_all(b"\n").unwrap();
        self.wrapper.wait().unwrap();
    }

    /// Starts again on the same port, with nothing of what it had.
    pub(crate) fn start_again(&mut self) {
        (self.wrapper, self.pid) = launch(self.port, &self.dir, &self.options).unwrap();
    }

    pub(crate) fn freeze(&self) {
        kill_process(self.pid, Signal::STOP).unwrap();
    }

    pub(crate) fn thaw(&self) {
        kill_process(self.pid, Signal::CONT).unwrap();
    }
}

fn launch(port: u16, dir: &tempfile::TempDir, options: &[String]) -> Option<(Child, Pid)> {
    let mut command = Command::new("sh");
    command.args(["-c", WRAPPER, "sh", "redis-server", "--save", "", "--appendonly", "no"]);
    command.args(["--bind", "127.0.0.1", "--dir"]).arg(dir.path());
    if !options.iter().any(|option| option == "--port") {
        command.args(["--port", &port.to_string()]);
    }
    command.args(options).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut wrapper = command.spawn().unwrap();
    let mut lines = BufReader::new(wrapper.stdout.take().unwrap()).lines();
    let pid = lines.next().unwrap().unwrap();
    let pid = pid.strip_prefix("pid ").unwrap().parse().unwrap();
    if !lines.by_ref().map_while(Result::ok).any(|line| line.contains("Ready to accept")) {
        wrapper.kill().unwrap();
        wrapper.wait().unwrap();
        return None;
    }
    // A full pipe would stop the server.
    std::thread::spawn(move || lines.for_each(drop));
    Some((wrapper, Pid::from_raw(pid).unwrap()))
}

impl Drop for Server {
    fn drop(&mut self) {
        self.thaw_quietly();
        drop(self.wrapper.stdin.take());
        let _ = self.wrapper.wait();
    }
}

impl Server {
    fn thaw_quietly(&self) {
        let _ = kill_process(self.pid, Signal::CONT);
    }
}

/// A client that knows nothing of leasehold.
pub(crate) struct Raw(Connection);

impl Raw {
    #[track_caller]
    pub(crate) fn run<T: FromRedisValue>(&mut self, words: &[&str]) -> T {
        self.attempt(words).unwrap()
    }

    /// What may be refused.
    pub(crate) fn attempt<T: FromRedisValue>(&mut self, words: &[&str]) -> redis::RedisResult<T> {
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]);
        command.query(&mut self.0)
    }

    /// The one key that matches.
    #[track_caller]
    pub(crate) fn only_key(&mut self, pattern: &str) -> String {
        let mut keys: Vec<String> = self.run(&["KEYS", pattern]);
        assert_eq!(keys.len(), 1, "{keys:?}");
        keys.remove(0)
    }

    pub(crate) fn script(&mut self, text: &str, key: &str, argument: &str) -> i64 {
        self.run(&["EVAL", text, "1", key, argument])
    }

    pub(crate) fn info(&mut self, section: &str, field: &str) -> u64 {
        self.info_text(section, field).parse().unwrap()
    }

    pub(crate) fn info_text(&mut self, section: &str, field: &str) -> String {
        let text: String = self.run(&["INFO", section]);
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("{field}:")));
        line.unwrap().trim().to_owned()
    }
}

impl Raw {
    /// Puts a key back as it was dumped.
    pub(crate) fn restore(&mut self, key: &str, dump: &[u8]) {
        let mut command = redis::cmd("RESTORE");
        let _: String =
            command.arg(key).arg(0).arg(dump).arg("REPLACE").query(&mut self.0).unwrap();
    }
}
