//! What all servers have in common: start, wait until ready, stop, kill, pause, start again.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::process::{Output, Process};

/// How long a server may take to start or to stop: long, because the machine may be busy. Nobody
/// waits it out but a test that fails.
const PATIENCE: Duration = Duration::from_mins(1);

/// A kind of server: how to start it, and how to tell that it is ready.
pub struct Spec {
    /// What messages call it.
    pub name: &'static str,
    /// The program, as [`crate::require`] found it.
    pub program: PathBuf,
    /// Its arguments. It must stay in the foreground.
    pub args: Vec<OsString>,
    /// Environment variables to add.
    pub env: Vec<(OsString, OsString)>,
    /// Where it writes what it has to say.
    pub log: PathBuf,
    /// Whether the process with this id takes requests now. Asked again and again until it says
    /// `Ok`; make sure that it is *this* process that answers, not another on the same port.
    pub ready: ReadyProbe,
}

/// See [`Spec::ready`].
pub type ReadyProbe = Box<dyn Fn(u32) -> Result<(), String> + Send + Sync>;

impl fmt::Debug for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, program, args, log, .. } = self;
        write!(f, "{name}: {} {args:?}, log {}", program.display(), log.display())
    }
}

/// Whether a server that is started again remembers what it knew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Memory {
    /// Stopped in an orderly way, with its data written.
    Kept,
    /// Killed, and its data deleted.
    Lost,
}

/// A server process that can be stopped and started again under the same [`Spec`].
#[derive(Debug)]
pub struct Server {
    spec: Spec,
    process: Mutex<Option<Process>>,
}

impl Server {
    /// Starts it and waits until it is ready. `Err` is what happened, with the end of the log.
    pub fn start(spec: Spec) -> Result<Self, String> {
        let process = Mutex::new(Some(run(&spec)?));
        Ok(Self { spec, process })
    }

    /// Starts it again after it was stopped or killed.
    pub fn start_again(&self) {
        let mut process = self.process();
        assert!(process.is_none(), "{} runs already", self.spec.name);
        *process = Some(run(&self.spec).unwrap_or_else(|why| panic!("{why}")));
    }

    /// Asks it to end (`SIGTERM`) and waits for that.
    pub fn stop(&self) {
        let process = self.take();
        process.terminate();
        let name = self.spec.name;
        assert!(process.ended_within(PATIENCE), "{name} ignores SIGTERM: {}", process.log());
    }

    /// Kills it (`SIGKILL`) and waits until it is dead.
    pub fn kill(&self) {
        self.take().kill();
    }

    /// Stops it in its tracks (`SIGSTOP`): connections stay open, nothing answers.
    pub fn pause(&self) {
        self.with(Process::pause);
    }

    /// Lets it go on after [`Server::pause`].
    pub fn resume(&self) {
        self.with(Process::resume);
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.with(Process::pid)
    }

    /// The end of its log.
    pub fn log(&self) -> String {
        self.with(Process::log)
    }

    fn with<T>(&self, act: impl FnOnce(&Process) -> T) -> T {
        let process = self.process();
        act(process.as_ref().unwrap_or_else(|| panic!("{} does not run", self.spec.name)))
    }

    fn take(&self) -> Process {
        self.process().take().unwrap_or_else(|| panic!("{} does not run", self.spec.name))
    }

    fn process(&self) -> MutexGuard<'_, Option<Process>> {
        // A test that failed while it held the lock still wants its servers to stop.
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn run(spec: &Spec) -> Result<Process, String> {
    let process = Process::start(&spec.program, &spec.args, &spec.env, &spec.log, Output::Log);
    let until = Instant::now() + PATIENCE;
    loop {
        let Err(why) = (spec.ready)(process.pid()) else { return Ok(process) };
        // The wait between two probes, and at once the watch for an early end.
        if process.ended_within(Duration::from_millis(5)) {
            return Err(format!("{} ended while it started: {}", spec.name, process.log()));
        }
        if Instant::now() > until {
            let log = process.log();
            return Err(format!("{} is not ready after {PATIENCE:?} ({why}): {log}", spec.name));
        }
    }
}

/// Deletes what a server keeps, but not its log.
pub(crate) fn forget(data: &Path) {
    std::fs::remove_dir_all(data).expect("cannot delete the data of a server");
    std::fs::create_dir(data).expect("cannot make the data directory of a server");
}
