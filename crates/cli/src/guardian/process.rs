//! The guardian as a process: a loop over one socket and one timer, without a runtime.

use std::io::{self, IoSliceMut, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::time::Duration;

use leasehold::clock;
use leasehold::core::Moment;
use nix::sys::signal::SigSet;
use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
use rustix::process::{Pid, Signal};

use super::Order;

/// It ignores signals now.
pub(super) const READY: u8 = b'R';
/// It has left its group.
pub(super) const ASIDE: u8 = b'A';

/// How long a process that was killed is waited for. One that hangs in the kernel for longer does
/// not come back to the command's work.
const LAST_WAIT: Duration = Duration::from_mins(1);

/// Runs the guardian until its socket ends.
pub(crate) fn main() -> ExitCode {
    // Blocked, not handled: nothing that is sent to the group ends or stops the guardian, but for
    // KILL and STOP.
    let blocked = SigSet::all().thread_block();
    let group = rustix::process::getpgrp();
    // Somebody who starts this by hand must not have their own group killed.
    if blocked.is_err() || group != rustix::process::getpid() {
        return ExitCode::from(64);
    }
    let Ok(socket) = io::stdin().as_fd().try_clone_to_owned().map(UnixStream::from) else {
        return ExitCode::from(64);
    };
    let mut guarded = Guarded { group, command: None, lifeline: None, term: None, kill: None };
    // Whatever fails in here, the group must not outlive the watch over it.
    let _ = guarded.watch(socket);
    if guarded.lifeline.is_some() {
        guarded.end_the_others();
    }
    guarded.send(Signal::KILL);
    ExitCode::SUCCESS
}

/// The group, and when it has to end.
struct Guarded {
    group: Pid,
    /// The command, should it have left the group.
    command: Option<Process>,
    /// Only to be open: the store does not see `leasehold` dead meanwhile.
    lifeline: Option<OwnedFd>,
    term: Option<Moment>,
    kill: Option<Moment>,
}

impl Guarded {
    fn watch(&mut self, mut socket: UnixStream) -> io::Result<()> {
        socket.set_nonblocking(true)?;
        socket.write_all(&[READY])?;
        let timer = Timer::new()?;
        loop {
            // Orders first: after a stop, the deadline in them may be later than the known one.
            while let Some((order, attached)) = read_order(&socket)? {
                self.obey(order, attached, &mut socket)?;
            }
            self.act();
            timer.wait(&socket, self.next())?;
        }
    }

    fn obey(
        &mut self,
        order: Order,
        attached: Option<OwnedFd>,
        socket: &mut UnixStream,
    ) -> io::Result<()> {
        match order {
            Order::Lifeline => self.lifeline = attached,
            Order::EndBy { term, kill } => (self.term, self.kill) = (term, Some(kill)),
            Order::Command { pid } => self.command = Process::open(pid),
            Order::StepAside => {
                let parent = rustix::process::getppid();
                let theirs = rustix::process::getpgid(parent)?;
                rustix::process::setpgid(None, Some(theirs))?;
                socket.write_all(&[ASIDE])?;
            }
        }
        Ok(())
    }

    /// What is due now.
    fn act(&mut self) {
        let now = clock::now();
        if self.kill.is_some_and(|at| at <= now) {
            self.kill = None;
            self.term = None;
            self.send(Signal::KILL);
        }
        if self.term.is_some_and(|at| at <= now) {
            self.term = None;
            self.send(Signal::TERM);
            // A stopped process would otherwise not see it.
            self.send(Signal::CONT);
        }
    }

    /// Kills everybody but this process, and sees them gone: a KILL to the group would end this
    /// process first, and with it what keeps the lock from being free. A process can take a while
    /// to die, in the middle of a write to a disk.
    fn end_the_others(&self) {
        if let Some(command) = &self.command {
            command.send(Signal::KILL);
        }
        let until = clock::now() + LAST_WAIT;
        while clock::now() < until {
            let others = others_in(self.group);
            let command_runs = self.command.as_ref().is_some_and(Process::runs);
            if others.is_empty() && !command_runs {
                return;
            }
            for other in others {
                other.send(Signal::KILL);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn next(&self) -> Option<Moment> {
        [self.term, self.kill].into_iter().flatten().min()
    }

    /// To the command first: the signal to the group may end the guardian itself.
    fn send(&self, signal: Signal) {
        if let Some(command) = &self.command {
            command.send(signal);
        }
        let _ = rustix::process::kill_process_group(self.group, signal);
    }
}

/// Reads one order, and what comes with it; `None` when there is none yet. The end of the socket is
/// an error.
fn read_order(socket: &UnixStream) -> io::Result<Option<(Order, Option<OwnedFd>)>> {
    let mut message = [0; Order::LEN];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let into = &mut [IoSliceMut::new(&mut message)];
    let read = match rustix::net::recvmsg(socket, into, &mut control, RecvFlags::CMSG_CLOEXEC) {
        Ok(read) => read.bytes,
        Err(Errno::AGAIN | Errno::INTR) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let attached = control.drain().find_map(|attached| match attached {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    match read {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        // Messages this short are written and read whole on a local socket; should that not be so,
        // the guardian no longer understands what it is told, and ends its watch.
        Order::LEN => match Order::decode(&message) {
            Some(order) => Ok(Some((order, attached))),
            None => Err(io::ErrorKind::InvalidData.into()),
        },
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// The processes of a group that still run, this one not among them. Processes that ended are left
/// out, whether somebody reaped them or not.
#[cfg(target_os = "linux")]
fn others_in(group: Pid) -> Vec<Process> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let own = rustix::process::getpid().as_raw_pid();
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|&pid: &i32| pid != own && runs_in(pid, group))
        .filter_map(Process::open)
        .collect()
}

#[cfg(target_os = "linux")]
fn runs_in(pid: i32, group: Pid) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    // The name before it, in parentheses, may contain anything.
    let Some((_, rest)) = stat.rsplit_once(')') else { return false };
    let mut words = rest.split_ascii_whitespace();
    let state = words.next();
    let of = words.nth(1).and_then(|group| group.parse().ok()).and_then(Pid::from_raw);
    of == Some(group) && !matches!(state, Some("Z" | "X"))
}

#[cfg(not(target_os = "linux"))]
fn others_in(_: Pid) -> Vec<Process> {
    Vec::new()
}

/// A process that is not of the group (any more), by a handle that never means another one.
#[cfg(target_os = "linux")]
struct Process(OwnedFd);

#[cfg(target_os = "linux")]
impl Process {
    /// Called while its parent has not reaped it, so the number still means that process.
    fn open(pid: i32) -> Option<Self> {
        let flags = rustix::process::PidfdFlags::empty();
        rustix::process::pidfd_open(Pid::from_raw(pid)?, flags).ok().map(Self)
    }

    fn send(&self, signal: Signal) {
        let _ = rustix::process::pidfd_send_signal(&self.0, signal);
    }

    /// The descriptor is readable once the process has ended, reaped or not.
    fn runs(&self) -> bool {
        let mut on = [PollFd::new(&self.0, PollFlags::IN)];
        rustix::event::poll(&mut on, Some(&timespec(0))) == Ok(0)
    }
}

#[cfg(not(target_os = "linux"))]
struct Process(Pid);

#[cfg(not(target_os = "linux"))]
impl Process {
    fn open(pid: i32) -> Option<Self> {
        Pid::from_raw(pid).map(Self)
    }

    fn send(&self, signal: Signal) {
        let _ = rustix::process::kill_process(self.0, signal);
    }

    fn runs(&self) -> bool {
        rustix::process::test_kill_process(self.0).is_ok()
    }
}

/// Waits for a moment on the clock that counts time asleep: after a suspend of the machine it is
/// over at once.
#[cfg(target_os = "linux")]
struct Timer(OwnedFd);

#[cfg(target_os = "linux")]
impl Timer {
    fn new() -> io::Result<Self> {
        use rustix::time::{TimerfdClockId, TimerfdFlags, timerfd_create};
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        Ok(Self(timerfd_create(TimerfdClockId::Boottime, flags)?))
    }

    /// Until `socket` has something, or the moment came.
    fn wait(&self, socket: &UnixStream, until: Option<Moment>) -> io::Result<()> {
        use rustix::time::{Itimerspec, TimerfdTimerFlags, timerfd_settime};
        // Zero would disarm the timer instead.
        let nanos = until.map_or(0, |at| at.as_nanos().max(1));
        let spec = Itimerspec { it_interval: timespec(0), it_value: timespec(nanos) };
        timerfd_settime(&self.0, TimerfdTimerFlags::ABSTIME, &spec)?;
        poll(&[socket.as_fd(), self.0.as_fd()], None)
    }
}

#[cfg(not(target_os = "linux"))]
struct Timer;

#[cfg(not(target_os = "linux"))]
impl Timer {
    fn new() -> io::Result<Self> {
        Ok(Self)
    }

    /// The time of a poll may stop while the machine sleeps, so it looks at the clock now and then.
    fn wait(&self, socket: &UnixStream, until: Option<Moment>) -> io::Result<()> {
        let left = until.map(|at| at.since(clock::now()).as_nanos().min(500_000_000) as u64);
        poll(&[socket.as_fd()], left.map(timespec).as_ref())
    }
}

fn timespec(nanos: u64) -> rustix::event::Timespec {
    rustix::event::Timespec {
        tv_sec: i64::try_from(nanos / 1_000_000_000).unwrap_or(i64::MAX),
        // Below a billion, which fits whatever the platform uses here.
        #[allow(clippy::unnecessary_fallible_conversions, clippy::useless_conversion)]
        tv_nsec: (nanos % 1_000_000_000).try_into().unwrap_or(0),
    }
}

fn poll(on: &[BorrowedFd<'_>], timeout: Option<&rustix::event::Timespec>) -> io::Result<()> {
    let mut on: Vec<_> = on.iter().map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN)).collect();
    match rustix::event::poll(&mut on, timeout) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
