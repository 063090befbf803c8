//! A test in more than one process: it runs itself again, and can kill what it ran.
//!
//! A test that wants workers is both sides in one function:
//!
//! ```no_run
//! use leasehold_testbed::{Worker, test_name, worker};
//!
//! // #[test]
//! fn a_killed_worker_is_noticed() {
//!     if let Some(task) = worker::task() {
//!         worker::say(&format!("ready with {task}"));
//!         assert_eq!(worker::hear().as_deref(), Some("go on"));
//!         return;
//!     }
//!     let mut worker = Worker::start(&test_name!(), "whatever it needs to know");
//!     assert_eq!(worker.line(), "ready with whatever it needs to know");
//!     worker.kill();
//! }
//! ```

use std::env;
use std::ffi::OsString;
use std::io::{self, Write};

use tempfile::TempDir;

use crate::process::{Output, Process};

/// Set for a worker, to its task.
const TASK: &str = "LEASEHOLD_WORKER_TASK";

/// Begins the lines of a worker that are meant for the one who started it. What the test harness
/// prints in between has no such beginning.
const MARK: &str = "worker> ";

/// The path of the test function that this is written in, as the test harness calls it.
#[macro_export]
macro_rules! test_name {
    () => {{
        fn here() {}
        $crate::worker::name_of(&here)
    }};
}

/// What this process was started for; `None` if it is no worker.
#[must_use]
pub fn task() -> Option<String> {
    env::var(TASK).ok()
}

/// Prints a line that [`Worker::line`] returns.
pub fn say(line: &str) {
    let mut stdout = io::stdout().lock();
    let said = writeln!(stdout, "\n{MARK}{line}").and_then(|()| stdout.flush());
    said.expect("nobody listens to this worker");
}

/// The next line that [`Worker::send`] sent. Blocks until there is one; `None` when there will be
/// none.
#[must_use]
pub fn hear() -> Option<String> {
    let line = io::stdin().lines().next()?;
    Some(line.expect("standard input can be read"))
}

/// For [`test_name!`]: the name of the function that `inner` is declared in, without its crate.
#[must_use]
pub fn name_of<T>(_inner: &T) -> String {
    let path = std::any::type_name::<T>().trim_end_matches("::here");
    let path = path.replace("::{{closure}}", "");
    path.split_once("::").map_or(path.clone(), |(_crate, name)| name.to_owned())
}

/// Another process that runs the same test, with a [`task`]. Dropping it kills it; so does the end
/// of this process, however it comes.
#[derive(Debug)]
pub struct Worker {
    process: Process,
    _home: TempDir,
}

impl Worker {
    /// Runs the test called `name` (use [`test_name!`]) in another process.
    #[must_use]
    pub fn start(name: &str, task: &str) -> Self {
        Self::start_with(name, task, &[])
    }

    /// The same with environment variables.
    #[must_use]
    pub fn start_with(name: &str, task: &str, env: &[(&str, &str)]) -> Self {
        let program = env::current_exe().expect("a process knows its own program");
        // Ignored tests included: whoever starts a test by name means it.
        let args = [name, "--exact", "--nocapture", "--include-ignored"].map(OsString::from);
        let pair = |(name, value): &(&str, &str)| (OsString::from(name), OsString::from(value));
        let mut env: Vec<_> = env.iter().map(pair).collect();
        env.push((TASK.into(), task.into()));
        let home = TempDir::with_prefix("leasehold-worker-").expect("cannot make a directory");
        let log = home.path().join("log");
        Self { process: Process::start(&program, &args, &env, &log, Output::Lines), _home: home }
    }

    /// The next line that the worker [said](say). Blocks until there is one.
    #[must_use]
    pub fn line(&mut self) -> String {
        self.next_line().unwrap_or_else(|| {
            panic!("the worker ended without the line that was due: {}", self.process.log())
        })
    }

    /// The next line that the worker [said](say); `None` when it has ended.
    #[must_use]
    pub fn next_line(&mut self) -> Option<String> {
        loop {
            let line = self.process.line()?;
            match line.strip_prefix(MARK) {
                Some(line) => return Some(line.to_owned()),
                None if line.starts_with("running 0 tests") => {
                    panic!("there is no test of that name: take it from test_name!()")
                }
                None => {}
            }
        }
    }

    /// Sends a line that the worker [hears](hear).
    pub fn send(&mut self, line: &str) {
        self.process.send(line);
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Kills it (`SIGKILL`), with all processes that it started in its group, and waits for that.
    pub fn kill(&self) {
        self.process.kill();
    }

    /// Stops it in its tracks (`SIGSTOP`), and waits until it stands still.
    pub fn pause(&self) {
        self.process.pause();
    }

    /// Lets it go on after [`Worker::pause`].
    pub fn resume(&self) {
        self.process.resume();
    }

    /// Waits until it has ended by itself, and makes sure that it was content.
    pub fn finish(mut self) {
        while self.next_line().is_some() {}
        let code = self.process.wait();
        assert_eq!(code, 0, "the worker failed: {}", self.process.log());
    }
}
