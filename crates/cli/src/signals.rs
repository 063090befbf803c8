//! The signals that `leasehold` passes on, or gives up on.

use std::future::poll_fn;
use std::io;
use std::task::Poll;

use rustix::process::Signal;
use tokio::signal::unix::{Signal as Stream, SignalKind, signal};

/// Passed on to the command's group. ALRM, PIPE and the like are a process's own affair.
const FORWARDED: [Signal; 9] = [
    Signal::TERM,
    Signal::INT,
    Signal::HUP,
    Signal::QUIT,
    Signal::USR1,
    Signal::USR2,
    Signal::WINCH,
    Signal::CONT,
    Signal::TSTP,
];

/// Signals as they arrive, from [`Signals::listen`] on.
#[derive(Debug)]
pub(crate) struct Signals {
    streams: Vec<(Signal, Stream)>,
    children: Stream,
}

impl Signals {
    /// Handles them from now on, but for those that whoever started this process wanted ignored
    /// (`nohup`, a shell's background job): they stay so, for the command as well.
    pub(crate) fn listen() -> io::Result<Self> {
        let ignored = ignored();
        let streams = FORWARDED
            .into_iter()
            .filter(|signal| ignored & (1 << (signal.as_raw() - 1)) == 0)
            .map(|of| Ok((of, signal(SignalKind::from_raw(of.as_raw()))?)))
            .collect::<io::Result<_>>()?;
        Ok(Self { streams, children: signal(SignalKind::child())? })
    }

    /// Whether a signal arrives here, or is ignored.
    pub(crate) fn handle(&self, signal: Signal) -> bool {
        self.streams.iter().any(|(of, _)| *of == signal)
    }

    /// The next one that arrives. Cancel safe: none is lost.
    pub(crate) async fn next(&mut self) -> Event {
        poll_fn(|context| {
            if self.children.poll_recv(context).is_ready() {
                return Poll::Ready(Event::Child);
            }
            for (of, stream) in &mut self.streams {
                if stream.poll_recv(context).is_ready() {
                    return Poll::Ready(Event::Signal(*of));
                }
            }
            Poll::Pending
        })
        .await
    }

    /// The next one that asks this process to end: INT, TERM, HUP or QUIT. Cancel safe.
    pub(crate) async fn end(&mut self) -> Signal {
        loop {
            match self.next().await {
                Event::Signal(
                    signal @ (Signal::INT | Signal::TERM | Signal::HUP | Signal::QUIT),
                ) => {
                    return signal;
                }
                // Before there is a command, a stop is for this process.
                Event::Signal(Signal::TSTP) => stop(),
                Event::Signal(_) | Event::Child => {}
            }
        }
    }
}

/// Stops this process, as the terminal's stop key does by default.
fn stop() {
    if crate::terminal::can_be_resumed() {
        let _ = rustix::process::kill_process(rustix::process::getpid(), Signal::STOP);
    }
}

/// What arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    /// A child ended or stopped: ask.
    Child,
    /// One of the signals that are passed on.
    Signal(Signal),
}

/// The signals that are ignored, as a mask whose lowest bit is signal 1.
fn ignored() -> u64 {
    std::fs::read_to_string("/proc/self/status").map_or(0, |status| parse_ignored(&status))
}

fn parse_ignored(status: &str) -> u64 {
    status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mask_is_read() {
        let status = "Name:\tx\nSigBlk:\tffff\nSigIgn:\t0000000000001001\nSigCgt:\t0\n";
        assert_eq!(parse_ignored(status), 0x1001);
        assert_eq!(parse_ignored("nothing"), 0);
    }
}
