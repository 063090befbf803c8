//! A process that cannot outlive the one that started it.

use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{
    Pid, PidfdFlags, Signal, kill_process, kill_process_group, pidfd_open, test_kill_process,
};

use crate::missing::require;

/// The guardian stands between the test and the process, and reads from a pipe whose other end
/// only the test has. When that end is closed, by the kernel if need be, the guardian kills the
/// process and all of its group. `PR_SET_PDEATHSIG` straight from the test would not do: it fires
/// when the *thread* that started the process ends, and tests are threads. From the guardian,
/// which has one thread, it does: it covers the death of the guardian itself.
///
/// The pipe is its file 2, because a `Command` can hand over no other than 0, 1 and 2. The first
/// line of output is the process's id, printed by the process itself before it becomes `$@`.
const GUARDIAN: &str = r#"
exec 3<&2 4<&0 2>>"$1"
setsid setpriv --pdeathsig KILL sh -c '
    echo "$$"
    log=$1 output=$2
    shift 2
    if [ "$output" = log ]; then exec "$@" >>"$log" 2>&1; else exec "$@"; fi
' sh "$@" <&4 3<&- 4<&- &
process=$!
exec 4<&- </dev/null >/dev/null
read -r _ <&3
kill -s KILL -- "-$process"
wait "$process"
"#;

/// Where a process's standard output goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// Into the log file, as its standard error does.
    Log,
    /// To the test, which reads it by [`Process::line`].
    Lines,
}

/// A running process, in a process group of its own. Dropping it kills the group; so does the
/// end of the test process, however it comes.
#[derive(Debug)]
pub struct Process {
    pid: Pid,
    pidfd: OwnedFd,
    guardian: Child,
    /// Held, never written to. Its end is what the guardian waits for.
    lifeline: Option<OwnedFd>,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    log: PathBuf,
}

impl Process {
    /// Starts `program`, with what it writes appended to `log`.
    #[must_use]
    pub fn start(
        program: &Path,
        args: &[OsString],
        env: &[(OsString, OsString)],
        log: &Path,
        output: Output,
    ) -> Self {
        for program in ["setsid", "setpriv"] {
            let _ = require(program, "util-linux");
        }
        let (lifeline_end, lifeline) = pipe_with(PipeFlags::CLOEXEC).expect("cannot make a pipe");
        let mut guardian = Command::new("/bin/sh")
            .args(["-c", GUARDIAN, "guardian"])
            .arg(log)
            .arg(if output == Output::Log { "log" } else { "lines" })
            .arg(program)
            .args(args)
            .envs(env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(lifeline_end)
            // Out of reach of a Ctrl-C, and of a test runner that kills the test's group.
            .process_group(0)
            .spawn()
            .expect("cannot start /bin/sh");
        let stdin = guardian.stdin.take();
        let mut stdout = BufReader::new(guardian.stdout.take().expect("stdout is a pipe"));
        let pid = read_pid(&mut stdout).unwrap_or_else(|| {
            panic!("cannot start {}: {}", program.display(), tail(log));
        });
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).unwrap_or_else(|error| {
            panic!("{} ended at once ({error}): {}", program.display(), tail(log));
        });
        let (lifeline, log) = (Some(lifeline), log.to_owned());
        Self { pid, pidfd, guardian, lifeline, stdin, stdout, log }
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// The end of what it logged.
    #[must_use]
    pub fn log(&self) -> String {
        tail(&self.log)
    }

    /// Whether it has not ended yet; a stopped process has not.
    #[must_use]
    pub fn is_running(&self) -> bool {
        !self.ended_within(Duration::ZERO)
    }

    /// Waits for its end, at most for `patience`; `false` if it still runs.
    #[must_use]
    pub fn ended_within(&self, patience: Duration) -> bool {
        let until = Instant::now() + patience;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let timeout = Timespec::try_from(left).expect("patience is a sensible time");
            let mut fds = [PollFd::new(&self.pidfd, PollFlags::IN)];
            match poll(&mut fds, Some(&timeout)) {
                Ok(ready) => return ready > 0,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => panic!("cannot wait for process {}: {error}", self.pid()),
            }
        }
    }

    /// Asks it to end (`SIGTERM`).
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Kills its whole group (`SIGKILL`) and waits until it is dead.
    pub fn kill(&self) {
        let _ = kill_process_group(self.pid, Signal::KILL);
        assert!(self.ended_within(Duration::from_secs(30)), "{} survives SIGKILL", self.pid());
    }

    /// Stops its whole group (`SIGSTOP`), and waits until it stands still.
    pub fn pause(&self) {
        kill_process_group(self.pid, Signal::STOP).expect("cannot stop a process that has ended");
        // The signal takes effect a moment after the call: who pauses a server and then sends it
        // a request counts on no answer.
        while !matches!(state(self.pid()), 'T' | 't') {
            assert!(self.is_running(), "process {} ended while it was stopped", self.pid());
            std::thread::yield_now();
        }
    }

    /// Lets a stopped group go on (`SIGCONT`).
    pub fn resume(&self) {
        kill_process_group(self.pid, Signal::CONT).expect("cannot resume a process that has ended");
    }

    /// Sends a line to its standard input.
    pub fn send(&mut self, line: &str) {
        let stdin = self.stdin.as_mut().expect("stdin is open as long as the process is");
        let sent = writeln!(stdin, "{line}").and_then(|()| stdin.flush());
        sent.unwrap_or_else(|error| panic!("cannot write to {}: {error}", self.pid));
    }

    /// The next line of its standard output; `None` after its end. Blocks until there is one.
    pub fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let read = self.stdout.read_line(&mut line).expect("the output is UTF-8");
        (read > 0).then(|| line.trim_end_matches('\n').to_owned())
    }

    /// Its exit code, or 128 and the number of the signal that killed it, when it has ended by
    /// itself. Blocks until then.
    pub fn wait(&mut self) -> i32 {
        while !self.ended_within(Duration::from_hours(1)) {}
        self.dismiss().expect("the guardian cannot be waited for").expect("the guardian was killed")
    }

    fn signal(&self, signal: Signal) {
        // It may have ended in the meantime, which is what signals are mostly for.
        let _ = kill_process(self.pid, signal);
    }

    /// Cuts the lifeline and waits for the guardian, which passes on the process's exit code.
    fn dismiss(&mut self) -> io::Result<Option<i32>> {
        self.lifeline = None;
        self.guardian.wait().map(|status| status.code())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.dismiss();
    }
}

/// Whether a process exists and is more than a zombie.
#[must_use]
pub fn is_alive(pid: u32) -> bool {
    let Some(id) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return false };
    test_kill_process(id).is_ok() && !matches!(state(pid), 'Z' | 'X' | '?')
}

/// The state letter of proc(5): `T` is stopped, `Z` a zombie, `?` no such process.
fn state(pid: u32) -> char {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name in parentheses may itself contain spaces and parentheses.
    stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next()).unwrap_or('?')
}

fn read_pid(stdout: &mut impl BufRead) -> Option<Pid> {
    let mut line = String::new();
    stdout.read_line(&mut line).ok()?;
    Pid::from_raw(line.trim().parse().ok()?)
}

/// The last lines of a log, for the message of a failure.
fn tail(log: &Path) -> String {
    let mut text = String::new();
    let read = std::fs::File::open(log).and_then(|mut file| file.read_to_string(&mut text));
    if let Err(error) = read {
        return format!("(no log at {}: {error})", log.display());
    }
    let lines: Vec<&str> = text.lines().collect();
    let last = &lines[lines.len().saturating_sub(40)..];
    format!("the last lines of {}:\n{}", log.display(), last.join("\n"))
}
