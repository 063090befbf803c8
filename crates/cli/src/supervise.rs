//! The time between the grant and the end of the command: signals go to the command, stops go to
//! the shell, and a lost lock ends the command before its deadline.

use std::io;
use std::time::Duration;

use leasehold::clock;
use leasehold::core::Moment;
use rustix::process::Signal;

use crate::child::{Change, Ended, Running, kill_at, margin};
use crate::grip::Grip;
use crate::guardian::Guardian;
use crate::output::Output;
use crate::signals::{Event, Signals};
use crate::terminal::{Terminal, can_be_resumed};

/// How often to look whether a group is empty: there is no event for that.
const POLL: Duration = Duration::from_millis(5);

/// How long a killed process is waited for. One that is left after that hangs in the kernel, or is
/// a zombie that nobody reaps.
const UNKILLABLE: Duration = Duration::from_secs(2);

/// What the supervision works with.
#[derive(Debug)]
pub(crate) struct Supervisor<'a> {
    pub(crate) grip: Grip<'a>,
    pub(crate) guardian: &'a mut Guardian,
    pub(crate) signals: &'a mut Signals,
    pub(crate) terminal: Option<&'a Terminal>,
    pub(crate) grace: Duration,
    pub(crate) ttl: Duration,
    pub(crate) output: Output,
}

/// How it went.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Verdict {
    /// How the command ended.
    pub(crate) ended: Ended,
    /// The lock was lost while the command, or what it left behind, was running.
    pub(crate) lost: bool,
    /// Somebody wanted it to end before its time.
    pub(crate) interrupted: bool,
    /// The signal of a key that ended the command: whoever started `leasehold` would have got it
    /// too, had the command not had the terminal to itself.
    pub(crate) typed: Option<Signal>,
}

/// Where the supervision stands.
#[derive(Debug)]
struct State {
    command: Running,
    /// The loss was noticed, and the command told.
    losing: bool,
    /// A signal that ends was passed on.
    interrupted: bool,
    kill: Option<Moment>,
    /// The deadline that the guardian knows.
    told: Moment,
    /// When to look for a later one.
    look: Moment,
    /// The guardian's death was noticed.
    alone: bool,
}

impl Supervisor<'_> {
    /// Runs until the command and everything in its group has ended.
    pub(crate) async fn watch(&mut self, command: Running) -> io::Result<Verdict> {
        self.guardian.watch(command.pid());
        let mut state = State {
            command,
            losing: false,
            interrupted: false,
            kill: None,
            told: Moment::ORIGIN,
            look: Moment::ORIGIN,
            alone: false,
        };
        self.tell_deadline(&mut state);
        let ended = self.until_ended(&mut state).await?;
        // While this process was stopped, the guardian may have ended the command by the deadline
        // that it knew, even if a renewal that was under way moved it.
        let by_guardian = clock::now() >= self.guardian_acts(&state).0;
        let typed = self.typed(ended);
        if let Some(terminal) = self.terminal {
            terminal.take_back(self.guardian.group());
            if matches!(ended, Ended::Killed(_)) {
                terminal.restore();
            }
        }
        self.end_the_rest(&mut state).await;
        let lost = state.losing || by_guardian || !self.grip.is_good();
        let interrupted = state.interrupted || typed.is_some();
        Ok(Verdict { ended, lost, interrupted, typed })
    }

    async fn until_ended(&mut self, state: &mut State) -> io::Result<Ended> {
        loop {
            tokio::select! {
                event = self.signals.next() => match event {
                    Event::Child => {
                        if let Some(ended) = self.look(state)? {
                            return Ok(ended);
                        }
                    }
                    Event::Signal(signal) => self.pass_on(state, signal),
                },
                () = self.grip.lost(), if !state.losing => self.lose(state),
                () = until(state.kill), if state.kill.is_some() => {
                    state.kill = None;
                    state.command.send(Signal::KILL);
                }
                () = until(Some(state.look)), if !state.losing => self.tell_deadline(state),
            }
        }
    }

    /// After a SIGCHLD.
    fn look(&mut self, state: &mut State) -> io::Result<Option<Ended>> {
        while let Some(change) = state.command.look()? {
            match change {
                Change::Ended(ended) => return Ok(Some(ended)),
                Change::Stopped(signal) => self.stopped(state, signal),
            }
        }
        if !state.alone && self.guardian.has_died() {
            state.alone = true;
            self.output.warn(
                "the guardian process was killed; should leasehold be killed as well, the command \
                 would go on without the lock",
            );
        }
        Ok(None)
    }

    fn pass_on(&mut self, state: &mut State, signal: Signal) {
        // After a stop the lease comes first: the command must not go on without it.
        if signal == Signal::CONT && !state.losing && !self.grip.is_good() {
            self.lose(state);
        }
        state.interrupted |=
            matches!(signal, Signal::TERM | Signal::INT | Signal::HUP | Signal::QUIT);
        if signal != Signal::CONT || !state.losing {
            state.command.send(signal);
        }
    }

    /// The command was stopped, by a key or because it wants the terminal.
    fn stopped(&mut self, state: &mut State, signal: i32) {
        let Some(terminal) = self.terminal else {
            // Nobody's job. It stays stopped, and keeps the lock.
            return;
        };
        let wants_terminal = signal == Signal::TTIN.as_raw() || signal == Signal::TTOU.as_raw();
        if wants_terminal && terminal.is_ours() {
            terminal.give(self.guardian.group());
            state.command.send(Signal::CONT);
        } else if can_be_resumed() {
            self.suspend(state, terminal);
        } else if signal == Signal::TSTP.as_raw() {
            // No shell to come back from: the key does nothing then, as in any such group.
            state.command.send(Signal::CONT);
        }
    }

    /// Stops this job, so that the shell gets its prompt; returns when the shell continues it.
    fn suspend(&mut self, state: &mut State, terminal: &Terminal) {
        terminal.take_back(self.guardian.group());
        // STOP, because TSTP is handled here. The others of the job, if any, had the key's signal
        // only if the terminal was theirs.
        let _ = rustix::process::kill_current_process_group(Signal::STOP);
        if !self.grip.is_good() {
            self.lose(state);
            return;
        }
        if terminal.is_for_the_command() {
            terminal.give(self.guardian.group());
        }
        // The CONT that ended the stop is passed on when its turn comes. Not here as well: the
        // second of two could undo the next stop.
        if !self.signals.handle(Signal::CONT) {
            state.command.send(Signal::CONT);
        }
    }

    /// The lock was lost: the command has to be gone before the deadline.
    fn lose(&mut self, state: &mut State) {
        if state.losing {
            return;
        }
        state.losing = true;
        let (now, deadline) = (clock::now(), self.grip.deadline());
        let kill = kill_at(now, deadline, self.grace);
        // Should this process not get to run in time.
        self.guardian.end_by(None, kill + margin(self.grace) / 2);
        let key = self.grip.lost_key();
        let reason = if now + self.grace + margin(self.grace) < deadline {
            "it was broken, or lapsed at the store"
        } else {
            "it was not renewed in time, or was kept for as long as was allowed"
        };
        self.output.error(format_args!("lost the lock on {key:?}: {reason}; ending the command"));
        if kill <= now {
            state.command.send(Signal::KILL);
        } else {
            state.command.send(Signal::TERM);
            // A stopped process does not see the TERM before.
            state.command.send(Signal::CONT);
            state.kill = Some(kill);
        }
    }

    /// Tells the guardian the deadline, if it moved, and decides when to look again.
    fn tell_deadline(&mut self, state: &mut State) {
        let deadline = self.grip.deadline();
        let slack = margin(self.grace) / 2;
        if deadline != state.told {
            state.told = deadline;
            let (term, kill) = self.guardian_acts(state);
            self.guardian.end_by(Some(term), kill);
        }
        // Often enough to tell every renewal well before the earlier deadline is due, and once more
        // just before the guardian would act.
        let now = clock::now();
        let due = (deadline - self.grace).max(now + slack / 4);
        state.look = due.min(now + self.ttl / 10);
    }

    /// When the guardian sends TERM and KILL by the deadline it was told: after this process would
    /// have done it, and before the deadline all the same.
    fn guardian_acts(&self, state: &State) -> (Moment, Moment) {
        let slack = margin(self.grace) / 2;
        (state.told - self.grace + slack, state.told - slack)
    }

    /// Whether a key that the terminal turns into a signal ended the command.
    fn typed(&self, ended: Ended) -> Option<Signal> {
        let had_terminal =
            || self.terminal.is_some_and(|terminal| terminal.is_of(self.guardian.group()));
        let Ended::Killed(number) = ended else { return None };
        [Signal::INT, Signal::QUIT]
            .into_iter()
            .find(|signal| signal.as_raw() == number)
            .filter(|_| had_terminal())
    }

    /// Kills everybody in the group, the guardian too, and sees them gone.
    async fn kill_the_rest(&mut self, state: &mut State) {
        let until = clock::now() + UNKILLABLE;
        state.command.send(Signal::KILL);
        while !(self.guardian.has_died() && state.command.leaves_nobody()) && clock::now() < until {
            tokio::time::sleep(POLL).await;
        }
    }

    /// Ends what the command left running in its group: it would go on without the lock.
    async fn end_the_rest(&mut self, state: &mut State) {
        if let Err(error) = self.guardian.step_aside().await {
            // Killed with its group, most likely: by this process, or by itself at a deadline.
            tracing::debug!(%error, "the guardian does not answer; ending its group");
            self.kill_the_rest(state).await;
            return;
        }
        if state.command.leaves_nobody() {
            return;
        }
        self.output.note("ending what the command left running");
        state.command.send(Signal::TERM);
        state.command.send(Signal::CONT);
        let asked = clock::now();
        let mut kill = kill_at(asked, self.grip.deadline(), self.grace);
        let mut killed = None;
        while !state.command.leaves_nobody() {
            let now = clock::now();
            match killed {
                None if now >= kill => {
                    state.command.send(Signal::KILL);
                    killed = Some(now);
                }
                None => kill = kill.max(kill_at(asked, self.grip.deadline(), self.grace)),
                Some(at) if now.since(at) > UNKILLABLE => return,
                Some(_) => {}
            }
            tokio::select! {
                event = self.signals.next() => {
                    if matches!(event, Event::Signal(Signal::INT | Signal::TERM | Signal::QUIT)) {
                        kill = now;
                    }
                }
                () = self.grip.lost(), if !state.losing => {
                    state.losing = true;
                    kill = now;
                }
                () = tokio::time::sleep(POLL) => {}
            }
        }
    }
}

/// Until a moment on the clock that counts time asleep, which the runtime's own does not.
async fn until(moment: Option<Moment>) {
    if let Some(moment) = moment {
        tokio::time::sleep(moment.since(clock::now())).await;
    }
}
