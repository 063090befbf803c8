//! The guardian: a tiny process that sees to it that the command does not outlive its lock.
//!
//! It is this program, run again under another name, in a process group that it leads; the command
//! joins that group. It holds one end of a socket whose other end only `leasehold` has, so:
//!
//! - when `leasehold` dies, however it dies, the socket ends, and the guardian kills the group; if
//!   the store can see that death, it does not before the group is gone;
//! - when `leasehold` is stopped, or does not get to run, the guardian knows the last deadline it
//!   was told, and ends the group before it.
//!
//! Being the leader of the group makes that free of races: the command is a member from its first
//! instruction on, and the group's number cannot be used again while the guardian exists.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream as StdStream;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use leasehold::core::Moment;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use rustix::process::Pid;
use tokio::io::AsyncReadExt as _;
use tokio::net::UnixStream;

mod process;

pub(crate) use process::main;

/// What the guardian is called; `argv[0]` tells it that it is one.
const NAME: &str = "leasehold-guardian";

/// How long an answer of the guardian may take. It answers in microseconds; this is for a machine
/// under such a load that nothing answers.
const PATIENCE: Duration = Duration::from_secs(5);

/// What `leasehold` tells the guardian, in messages of a fixed length: a tag and two numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    /// Send TERM at the first moment, if there is one, and KILL at the second.
    EndBy { term: Option<Moment>, kill: Moment },
    /// The command runs, as this process.
    Command { pid: i32 },
    /// With a descriptor that keeps the store from seeing `leasehold` dead while it is open.
    Lifeline,
    /// The command ended. Leave the group, so that it is empty when nobody else is left in it.
    StepAside,
}

impl Order {
    const LEN: usize = 17;

    fn encode(self) -> [u8; Self::LEN] {
        let (tag, first, second) = match self {
            Self::EndBy { term, kill } => {
                (b'D', term.map_or(u64::MAX, Moment::as_nanos), kill.as_nanos())
            }
            Self::Command { pid } => (b'C', u64::from(pid.unsigned_abs()), 0),
            Self::Lifeline => (b'L', 0, 0),
            Self::StepAside => (b'A', 0, 0),
        };
        let mut message = [0; Self::LEN];
        message[0] = tag;
        message[1..9].copy_from_slice(&first.to_le_bytes());
        message[9..].copy_from_slice(&second.to_le_bytes());
        message
    }

    fn decode(message: &[u8; Self::LEN]) -> Option<Self> {
        let number = |from: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&message[from..from + 8]);
            u64::from_le_bytes(bytes)
        };
        match message[0] {
            b'D' => Some(Self::EndBy {
                term: Some(number(1)).filter(|&at| at != u64::MAX).map(Moment::from_nanos),
                kill: Moment::from_nanos(number(9)),
            }),
            b'C' => Some(Self::Command { pid: i32::try_from(number(1)).ok()? }),
            b'L' => Some(Self::Lifeline),
            b'A' => Some(Self::StepAside),
            _ => None,
        }
    }
}

/// Whether this process was started to be a guardian.
pub(crate) fn is_wanted() -> bool {
    std::env::args_os().next().is_some_and(|name| name == NAME)
}

/// The guardian as `leasehold` sees it. Dropping it ends the guardian, and with it whatever is
/// still in its group.
#[derive(Debug)]
pub(crate) struct Guardian {
    process: Child,
    /// `None` once it was closed.
    socket: Option<UnixStream>,
    group: Pid,
}

impl Guardian {
    /// Starts one. It gets ready while the lock is being acquired.
    pub(crate) fn start() -> io::Result<Self> {
        let (ours, theirs) = StdStream::pair()?;
        let process = Command::new(this_program()?)
            .arg0(NAME)
            .stdin(OwnedFd::from(theirs))
            // It must not keep a reader of our output waiting.
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()?;
        ours.set_nonblocking(true)?;
        let group = Pid::from_child(&process);
        Ok(Self { process, socket: Some(UnixStream::from_std(ours)?), group })
    }

    /// The group that it leads, and guards.
    pub(crate) fn group(&self) -> Pid {
        self.group
    }

    /// Waits until it ignores signals: those sent to its group before that would end it.
    pub(crate) async fn ready(&mut self) -> io::Result<()> {
        self.expect(process::READY).await
    }

    /// Tells it which process the command is, in case that one leaves the group (as an interactive
    /// shell does).
    pub(crate) fn watch(&self, command: Pid) {
        self.tell(Order::Command { pid: command.as_raw_pid() });
    }

    /// Tells it to send TERM and KILL at these moments, unless it is told others before.
    pub(crate) fn end_by(&self, term: Option<Moment>, kill: Moment) {
        self.tell(Order::EndBy { term, kill });
    }

    /// Hands it what keeps the store from seeing this process dead, so that the lock is not free
    /// before the group is gone.
    pub(crate) fn keep(&self, lifeline: &OwnedFd) -> io::Result<()> {
        let Some(socket) = &self.socket else { return Err(io::ErrorKind::NotConnected.into()) };
        let (order, descriptors) = (Order::Lifeline.encode(), [lifeline.as_fd()]);
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !control.push(SendAncillaryMessage::ScmRights(&descriptors)) {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        let flags = SendFlags::NOSIGNAL;
        let sent = rustix::net::sendmsg(socket, &[IoSlice::new(&order)], &mut control, flags)?;
        if sent == order.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
    }

    /// Makes it leave its group. It still kills the group when this process dies.
    pub(crate) async fn step_aside(&mut self) -> io::Result<()> {
        self.tell(Order::StepAside);
        self.expect(process::ASIDE).await
    }

    /// Whether it has died, which nothing but a KILL from outside brings about.
    pub(crate) fn has_died(&mut self) -> bool {
        !matches!(self.process.try_wait(), Ok(None))
    }

    /// A message that cannot be sent is one to a guardian that is dead, or stopped so long that
    /// its socket is full. It then acts on what it knows, which is earlier, so nothing is unsafe.
    fn tell(&self, order: Order) {
        if let Some(socket) = &self.socket
            && let Err(error) = socket.try_write(&order.encode())
        {
            tracing::warn!(%error, ?order, "the guardian cannot be told");
        }
    }

    async fn expect(&mut self, answer: u8) -> io::Result<()> {
        let Some(socket) = &mut self.socket else { return Err(io::ErrorKind::NotConnected.into()) };
        match tokio::time::timeout(PATIENCE, socket.read_u8()).await {
            Ok(Ok(byte)) if byte == answer => Ok(()),
            Ok(Ok(byte)) => Err(io::Error::other(format!("the guardian answered {byte:#x}"))),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }
}

impl Drop for Guardian {
    fn drop(&mut self) {
        self.socket = None;
        // Reaped here, because in a container nobody may do it later.
        let _ = self.process.wait();
    }
}

/// This program's file. On Linux by a path that still works when the file was replaced or removed
/// since (an upgrade while a long command waits for its lock).
fn this_program() -> io::Result<PathBuf> {
    if cfg!(target_os = "linux") {
        Ok(PathBuf::from("/proc/self/exe"))
    } else {
        std::env::current_exe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_round_trip() {
        let at = Moment::from_nanos;
        for order in [
            Order::EndBy { term: None, kill: at(7) },
            Order::EndBy { term: Some(at(0)), kill: at(u64::MAX) },
            Order::Command { pid: i32::MAX },
            Order::Lifeline,
            Order::StepAside,
        ] {
            assert_eq!(Order::decode(&order.encode()), Some(order));
        }
        assert_eq!(Order::decode(&[0; Order::LEN]), None);
    }
}
