//! The guardian as a process: a loop over one socket and one timer, without a runtime.

use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;

use leasehold::clock;
use leasehold::core::Moment;
use nix::sys::signal::SigSet;
use rustix::event::{PollFd, PollFlags};
use rustix::process::{Pid, Signal};

use super::Order;

/// It ignores signals now.
pub(super) const READY: u8 = b'R';
/// It has left its group.
pub(super) const ASIDE: u8 = b'A';

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
    let mut guarded = Guarded { group, command: None, term: None, kill: None };
    // Whatever fails in here, the group must not outlive the watch over it.
    let _ = guarded.watch(socket);
    guarded.send(Signal::KILL);
    ExitCode::SUCCESS
}

/// The group, and when it has to end.
struct Guarded {
    group: Pid,
    /// The command, should it have left the group.
    command: Option<Process>,
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
            while let Some(order) = read_order(&mut socket)? {
                self.obey(order, &mut socket)?;
            }
            self.act();
            timer.wait(&socket, self.next())?;
        }
    }

    fn obey(&mut self, order: Order, socket: &mut UnixStream) -> io::Result<()> {
        match order {
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

/// Reads one order, `None` when there is none yet; the end of the socket is an error.
fn read_order(socket: &mut UnixStream) -> io::Result<Option<Order>> {
    let mut message = [0; Order::LEN];
    match socket.read(&mut message) {
        Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
        // Messages this short are written and read whole on a local socket; should that not be so,
        // the guardian no longer understands what it is told, and ends its watch.
        Ok(len) if len == Order::LEN => {
            Order::decode(&message).map(Some).ok_or_else(|| io::ErrorKind::InvalidData.into())
        }
        Ok(_) => Err(io::ErrorKind::InvalidData.into()),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(None),
        Err(error) => Err(error),
    }
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
