//! The controlling terminal, and whose it is at the moment.
//!
//! The command runs in a group of its own, and the terminal belongs to one group at a time: its
//! keys signal that group, and only that group may read.

use std::fs::{File, OpenOptions};
use std::os::fd::AsFd as _;

use nix::sys::signal::{SigSet, Signal as NixSignal};
use rustix::io::Errno;
use rustix::process::{Pid, getpgid, getpgrp, getppid, getsid};
use rustix::termios::{
    OptionalActions, Termios, isatty, tcgetattr, tcgetpgrp, tcsetattr, tcsetpgrp,
};

/// The controlling terminal of this process.
#[derive(Debug)]
pub(crate) struct Terminal {
    device: File,
    /// The group of this process, which is the job that the shell knows.
    own: Pid,
    /// How it was set before the command could change it.
    before: Option<Termios>,
}

impl Terminal {
    /// `None` when there is none: under cron, in a pipeline of a service …
    pub(crate) fn open() -> Option<Self> {
        let device = OpenOptions::new().read(true).write(true).open("/dev/tty").ok()?;
        // Handing the terminal on while it is not ours would otherwise stop this process. Blocked,
        // because a mere handler does not help: the kernel then repeats the signal for ever.
        SigSet::from(NixSignal::SIGTTOU).thread_block().ok()?;
        let before = tcgetattr(&device).ok();
        Some(Self { device, own: getpgrp(), before })
    }

    /// Whether the job that this process belongs to has the terminal.
    pub(crate) fn is_ours(&self) -> bool {
        tcgetpgrp(&self.device) == Ok(self.own)
    }

    /// Whether `group` has the terminal.
    pub(crate) fn is_of(&self, group: Pid) -> bool {
        tcgetpgrp(&self.device) == Ok(group)
    }

    /// Whether the terminal should go to the command at once: when it is ours, and the command
    /// reads from it and writes to it. Otherwise this may be a part of a pipeline, another part of
    /// which wants the terminal (`leasehold run … | less`); the command gets it when it asks.
    pub(crate) fn is_for_the_command(&self) -> bool {
        isatty(std::io::stdin().as_fd()) && isatty(std::io::stdout().as_fd()) && self.is_ours()
    }

    /// Makes it the terminal of `group`.
    pub(crate) fn give(&self, group: Pid) {
        if let Err(error) = tcsetpgrp(&self.device, group) {
            tracing::debug!(%error, "the terminal cannot be handed to the command");
        }
    }

    /// Makes it ours again, if it is `group`'s or nobody's. Not when the shell took it: this
    /// process is then in the background.
    pub(crate) fn take_back(&self, group: Pid) {
        let orphaned = match tcgetpgrp(&self.device) {
            Ok(owner) if owner == self.own => return,
            Ok(owner) => owner == group || is_empty(owner),
            // What it says when the group with the terminal is gone.
            Err(_) => true,
        };
        if orphaned {
            self.give(self.own);
        }
    }

    /// Undoes what a command that was killed may have set (no echo, no lines).
    pub(crate) fn restore(&self) {
        if let Some(before) = &self.before
            && self.is_ours()
        {
            let _ = tcsetattr(&self.device, OptionalActions::Drain, before);
        }
    }
}

/// Whether a group has no process in it.
pub(crate) fn is_empty(group: Pid) -> bool {
    rustix::process::test_kill_process_group(group) == Err(Errno::SRCH)
}

/// Whether somebody could continue this process after a stop: a shell with job control, which is
/// in another group of the same session. The kernel's rule for orphaned groups, which does not
/// apply by itself to a stop that a process gives itself.
pub(crate) fn can_be_resumed() -> bool {
    let (Ok(session), own) = (getsid(None), getpgrp()) else { return false };
    let mut ancestor = getppid();
    while let Some(pid) = ancestor {
        if getsid(Some(pid)) != Ok(session) {
            return false;
        }
        match getpgid(Some(pid)) {
            Ok(group) if group == own => ancestor = parent_of(pid),
            Ok(_) => return true,
            Err(_) => return false,
        }
    }
    false
}

fn parent_of(pid: Pid) -> Option<Pid> {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_pid())).ok()?;
    // The name before it, in parentheses, may contain anything.
    let (_, rest) = stat.rsplit_once(')')?;
    Pid::from_raw(rest.split_whitespace().nth(1)?.parse().ok()?)
}
