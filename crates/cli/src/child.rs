//! The command: how it is started, what became of it, and how its group is ended.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::time::Duration;

use leasehold::core::Moment;
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus};

use crate::terminal::is_empty;

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// By itself, with this code.
    Exited(i32),
    /// By a signal of this number.
    Killed(i32),
}

/// What a look at the command showed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// It ended, and was reaped.
    Ended(Ended),
    /// It was stopped by this signal.
    Stopped(i32),
}

/// The running command.
#[derive(Debug)]
pub(crate) struct Running {
    /// Never waited for through the standard library: `waitpid` here tells stops as well.
    pid: Pid,
    group: Pid,
    reaped: bool,
}

impl Running {
    /// Starts it as a member of `group`, with the standard streams of this process.
    pub(crate) fn start(
        command: &[OsString],
        environment: &[(&str, String)],
        group: Pid,
    ) -> io::Result<Self> {
        let (program, arguments) =
            command.split_first().ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        let child = Command::new(program)
            .args(arguments)
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .process_group(group.as_raw_pid())
            .spawn()?;
        Ok(Self { pid: Pid::from_child(&child), group, reaped: false })
    }

    /// Its process.
    pub(crate) fn pid(&self) -> Pid {
        self.pid
    }

    /// What happened to it since the last look, if anything.
    pub(crate) fn look(&mut self) -> io::Result<Option<Change>> {
        let options = WaitOptions::NOHANG | WaitOptions::UNTRACED;
        let Some((_, status)) = rustix::process::waitpid(Some(self.pid), options)? else {
            return Ok(None);
        };
        let change = change(status);
        self.reaped = matches!(change, Some(Change::Ended(_)));
        Ok(change)
    }

    /// Signals everybody in the group, and the command itself should it have left the group (an
    /// interactive shell does).
    pub(crate) fn send(&self, signal: Signal) {
        let _ = rustix::process::kill_process_group(self.group, signal);
        let left = || rustix::process::getpgid(Some(self.pid)).is_ok_and(|now| now != self.group);
        if !self.reaped && left() {
            let _ = rustix::process::kill_process(self.pid, signal);
        }
    }

    /// Whether anybody is left in the group, once the guardian has stepped aside. Reaps those that
    /// became this process's children (when it is the first of a container).
    pub(crate) fn leaves_nobody(&self) -> bool {
        while matches!(rustix::process::waitpgid(self.group, WaitOptions::NOHANG), Ok(Some(_))) {}
        is_empty(self.group)
    }
}

fn change(status: WaitStatus) -> Option<Change> {
    if let Some(code) = status.exit_status() {
        Some(Change::Ended(Ended::Exited(code)))
    } else if let Some(signal) = status.terminating_signal() {
        Some(Change::Ended(Ended::Killed(signal)))
    } else {
        status.stopping_signal().map(Change::Stopped)
    }
}

/// How long before the deadline the command is killed: what the kernel needs to end a process, and
/// a busy machine to run this one.
pub(crate) fn margin(grace: Duration) -> Duration {
    (grace / 5).min(Duration::from_millis(500))
}

/// When a command that was asked to end is killed: at the end of its grace, but in time to be gone
/// before the deadline.
pub(crate) fn kill_at(asked: Moment, deadline: Moment, grace: Duration) -> Moment {
    (asked + grace).min(deadline - margin(grace))
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(millis: u64) -> Moment {
        Moment::from_nanos(millis * 1_000_000)
    }

    #[test]
    fn the_command_is_gone_before_the_deadline() {
        let second = Duration::from_secs(1);
        // Lost one grace before the deadline: killed a fifth of it before the deadline.
        assert_eq!(kill_at(at(9_000), at(10_000), second), at(9_800));
        assert_eq!(kill_at(at(5_000), at(10_000), 5 * second), at(9_500));
        // Broken long before the deadline: the grace, no more, for somebody else may hold already.
        assert_eq!(kill_at(at(1_000), at(30_000), second), at(2_000));
        // Noticed too late: at once.
        assert!(kill_at(at(50_000), at(30_000), second) < at(50_000));
        assert_eq!(kill_at(at(5), at(5), Duration::ZERO), at(5));
    }
}
