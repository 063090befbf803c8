//! What the tests of the program share: a store of their own, the program as a real process, and
//! waiting for what happens instead of sleeping.

// Each test file is a crate of its own and uses a part of it.
#![allow(dead_code, unreachable_pub)]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// How long anything may take on a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_secs(30);

/// The program.
pub const LEASEHOLD: &str = env!("CARGO_BIN_EXE_leasehold");

/// A directory with a store in it. Processes that are started in it are killed with it.
pub struct Lab {
    dir: TempDir,
}

impl Lab {
    pub fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    /// A file of the lab.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The URL of its store.
    pub fn store(&self) -> String {
        format!("sqlite:{}", self.path("locks.db").display())
    }

    /// `leasehold` with these arguments, in a session of its own: without a terminal, so that
    /// a test behaves the same wherever it is run; and it dies with the test, also when that is
    /// killed. Both replace themselves by what they start, so the process is the program.
    pub fn leasehold(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "setsid", LEASEHOLD]).args(arguments);
        self.prepare(&mut command);
        command
    }

    /// Gives a command the lab's environment and none of ours.
    pub fn prepare(&self, command: &mut Command) {
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("LEASEHOLD_") {
                command.env_remove(name);
            }
        }
        command
            .env("LEASEHOLD_STORE", self.store())
            .env("XDG_CONFIG_HOME", self.path("config"))
            .env("XDG_STATE_HOME", self.path("state"))
            .env("NO_COLOR", "1")
            .current_dir(self.dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
    }

    /// Starts it.
    pub fn start(&self, arguments: &[&str]) -> Process {
        Process::of(&mut self.leasehold(arguments))
    }

    /// Runs it to its end.
    pub fn run(&self, arguments: &[&str]) -> Finished {
        self.start(arguments).finish()
    }

    /// `leasehold run k … -- sh -c SCRIPT`, once SCRIPT has made the file `started`.
    pub fn start_holding(&self, options: &[&str], script: &str) -> Process {
        let script = format!("echo $$ > pid.new; mv pid.new started; {script}");
        let mut arguments = vec!["run", "k"];
        arguments.extend(options);
        arguments.extend(["--", "sh", "-c", &script]);
        let process = self.start(&arguments);
        self.wait_for("started");
        process
    }

    /// Waits until a file is there, and returns its contents without white space around them.
    pub fn wait_for(&self, name: &str) -> String {
        let path = self.path(name);
        eventually(&format!("the file {name}"), || std::fs::read_to_string(&path).ok())
            .trim()
            .to_owned()
    }

    /// What `inspect --json` says.
    pub fn inspect(&self, key: &str) -> Value {
        let seen = self.run(&["inspect", key, "--json"]);
        assert_eq!(seen.code, Some(0), "{seen:?}");
        serde_json::from_str(&seen.stdout).unwrap()
    }

    /// Waits until so many hold and wait.
    pub fn wait_for_line(&self, key: &str, holders: usize, waiters: usize) {
        eventually(&format!("{holders} holders and {waiters} waiters"), || {
            let seen = self.inspect(key);
            let len = |of: &str| seen[of].as_array().unwrap().len();
            (len("holders") == holders && len("waiters") == waiters).then_some(())
        });
    }
}

/// A running program. Killed when it is dropped.
pub struct Process {
    child: Child,
}

/// What became of a program.
#[derive(Debug)]
pub struct Finished {
    pub code: Option<i32>,
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Process {
    pub fn of(command: &mut Command) -> Self {
        Self { child: command.spawn().unwrap() }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, name: &str) {
        signal(self.id(), name);
    }

    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Waits for its end.
    pub fn finish(mut self) -> Finished {
        eventually("the end of the program", || self.child.try_wait().unwrap());
        let status = self.child.wait().unwrap();
        let read = |stream: Option<&mut dyn std::io::Read>| {
            let mut text = String::new();
            if let Some(stream) = stream {
                stream.read_to_string(&mut text).unwrap();
            }
            text
        };
        let stdout = read(self.child.stdout.as_mut().map(|stream| stream as _));
        let stderr = read(self.child.stderr.as_mut().map(|stream| stream as _));
        Finished { code: status.code(), status, stdout, stderr }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends a signal by its name.
pub fn signal(process: u32, name: &str) {
    let sent = Command::new("kill").args(["-s", name, &process.to_string()]).status().unwrap();
    assert!(sent.success(), "kill -s {name} {process}");
}

/// Whether a process runs: exists, and is no zombie.
pub fn is_running(process: &str) -> bool {
    state_of(process).is_some_and(|state| state != 'Z' && state != 'X')
}

/// The letter that `ps` shows for a process.
pub fn state_of(process: &str) -> Option<char> {
    let stat = std::fs::read_to_string(Path::new("/proc").join(process).join("stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

/// Waits until a process is gone.
pub fn wait_for_end(process: &str) {
    eventually(&format!("the end of process {process}"), || (!is_running(process)).then_some(()));
}

/// Asks until there is an answer.
pub fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(started.elapsed() < PATIENCE, "{what} did not come about within {PATIENCE:?}");
        // sleep: there is no event for what is awaited here; the file or process is looked at again.
        std::thread::sleep(Duration::from_millis(5));
    }
}
