//! Asking for a lock: how long, what a person sees meanwhile, and how the wait is given up.

use std::fmt::Write as _;
use std::io;
use std::sync::{Arc, Mutex as StdMutex, PoisonError};
use std::time::Duration;

use leasehold::{Ahead, Attempt, Client, Error, Guard, Key, Lock, Moment, Party, Wait, clock};
use rustix::process::Signal;
use tokio::sync::Notify;

use crate::args::{Sharing, SlotCount};
use crate::duration::{Patience, show};
use crate::exit::{self, Failure};
use crate::output::{Output, printable};
use crate::signals::Signals;

/// How often the waiting line counts on.
const REDRAW: Duration = Duration::from_secs(1);

/// How asking ended, if not in a failure.
#[derive(Debug)]
pub(crate) enum Asked {
    /// What was asked for is ours, in that order.
    Held(Vec<Guard>),
    /// A signal ended the wait; the place in line was given up.
    GaveUp(Signal),
}

/// What the codes for its outcomes are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Codes {
    pub(crate) busy: u8,
    pub(crate) timeout: u8,
    pub(crate) unavailable: u8,
}

impl Codes {
    /// The failure with the codes that the user wanted.
    pub(crate) fn apply(self, mut failure: Failure) -> Failure {
        failure.code = match failure.code {
            exit::TIMEOUT => self.timeout,
            exit::UNAVAILABLE => self.unavailable,
            other => other,
        };
        failure
    }
}

/// The lock that the flags ask for.
pub(crate) async fn lock_of(
    client: &Client,
    key: &Key,
    sharing: &Sharing,
) -> leasehold::Result<Lock> {
    match sharing.slots {
        Some(SlotCount::Of(limit)) => client.semaphore(key.clone(), limit)?.units(sharing.units),
        Some(SlotCount::Stored) => client.slots(key.clone())?.units(sharing.units).await,
        None if sharing.shared => Ok(client.rwlock(key.clone())?.reader().clone()),
        None => client.mutex(key.clone()),
    }
}

/// Waits for all that is asked for, for as long as `patience` lasts.
pub(crate) async fn ask(
    client: &Client,
    asked: Vec<Lock>,
    patience: Patience,
    codes: Codes,
    signals: &mut Signals,
    output: Output,
) -> Result<Asked, Failure> {
    let line = Arc::new(WaitingLine::new(output));
    let observed = asked.into_iter().map(|asked| {
        let (line, key) = (Arc::clone(&line), asked.key().clone());
        asked.on_wait(move |wait| line.observe(&key, &wait))
    });
    let outcome = tokio::select! {
        guards = lock(client, observed.collect(), patience, codes) => guards.map(Asked::Held),
        signal = signals.end() => Ok(Asked::GaveUp(signal)),
        () = line.keep_drawn() => Err(Failure::new(exit::INTERNAL, "the waiting line ended")),
    };
    line.erase();
    outcome.map_err(|failure| codes.apply(failure))
}

async fn lock(
    client: &Client,
    asked: Vec<Lock>,
    patience: Patience,
    codes: Codes,
) -> Result<Vec<Guard>, Failure> {
    if let [alone] = asked.as_slice() {
        return lock_one(alone, patience, codes).await.map(|guard| vec![guard]);
    }
    let keys = || {
        let keys: Vec<_> = asked.iter().map(|lock| printable(lock.key().as_str())).collect();
        keys.join(", ")
    };
    match patience {
        Patience::Forever => Ok(client.lock_all(asked).await?),
        Patience::For(wait) => {
            let locking = client.lock_all(asked.clone());
            let Ok(guards) = tokio::time::timeout(wait, locking).await else {
                let message = format!("{} were not all granted within {}", keys(), show(wait));
                return Err(Failure::new(exit::TIMEOUT, message));
            };
            Ok(guards?)
        }
        Patience::None => client
            .try_lock_all(asked.clone())
            .await?
            .ok_or_else(|| Failure::new(codes.busy, format!("{} are not all free", keys()))),
    }
}

async fn lock_one(asked: &Lock, patience: Patience, codes: Codes) -> Result<Guard, Failure> {
    match patience {
        Patience::Forever => Ok(asked.lock().await?),
        Patience::For(wait) => Ok(asked.lock_within(wait).await?),
        Patience::None => match asked.attempt().await? {
            Attempt::Held(guard) => Ok(guard),
            Attempt::Refused(ahead) => {
                let who = ahead
                    .holder
                    .as_ref()
                    .map_or_else(String::new, |holder| format!(": held by {}", describe(holder)));
                Err(Failure::new(
                    codes.busy,
                    format!("{:?} is not free{who}", asked.key().as_str()),
                ))
            }
        },
    }
}

/// Closes the client, so that nothing is left behind: a place in line, a hold that was granted at
/// the last moment. The TTL ends what a store in trouble did not confirm.
pub(crate) async fn close(client: Client) {
    if let Err(error) = client.close().await {
        tracing::debug!(%error, "the session was not closed; its TTL ends it");
    }
}

/// A holder in a few words.
pub(crate) fn describe(party: &Party) -> String {
    let owner = party.owner.as_str();
    let mut text = match (owner.is_empty(), party.claim) {
        (true, None) => "somebody who is not of leasehold".to_owned(),
        (true, Some(_)) => "somebody without a name".to_owned(),
        (false, _) => printable(owner),
    };
    if !party.note.as_str().is_empty() {
        // Writing to a `String` cannot fail.
        let _ = write!(text, " ({})", printable(party.note.as_str()));
    }
    text
}

/// The line on the terminal while the lock is not granted; elsewhere only trouble is told, once.
#[derive(Debug)]
struct WaitingLine {
    output: Output,
    live: bool,
    since: Moment,
    changed: Notify,
    state: StdMutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// What is waited for, and behind whom.
    waits: Option<(Key, Ahead)>,
    /// The store is in trouble; told once until it recovers.
    trouble: bool,
    drawn: bool,
}

impl WaitingLine {
    fn new(output: Output) -> Self {
        let live = output.is_live();
        let (changed, state) = (Notify::new(), StdMutex::default());
        Self { output, live, since: clock::now(), changed, state }
    }

    fn observe(&self, key: &Key, wait: &Wait<'_>) {
        match wait {
            Wait::Behind(ahead) => {
                let mut state = self.state();
                state.trouble = false;
                state.waits = Some((key.clone(), (*ahead).clone()));
            }
            Wait::Trouble(error) => self.tell(error),
            // News to come.
            _ => {}
        }
        self.changed.notify_one();
    }

    fn tell(&self, error: &Error) {
        if !std::mem::replace(&mut self.state().trouble, true) {
            self.erase();
            self.output.warn(format_args!("{}; trying again", Failure::message_of(error)));
        }
    }

    /// Draws it at every change, and every second. Never ends.
    async fn keep_drawn(&self) {
        if !self.live {
            return std::future::pending().await;
        }
        // Not before there is something to wait for: a lock that is free is not waited for.
        self.changed.notified().await;
        loop {
            self.draw();
            let _ = tokio::time::timeout(REDRAW, self.changed.notified()).await;
        }
    }

    fn draw(&self) {
        let mut state = self.state();
        let text = describe_wait(&state, clock::now().since(self.since));
        let width = rustix::termios::tcgetwinsize(io::stderr())
            .map_or(80, |size| usize::from(size.ws_col).max(20));
        // One that wraps could not be drawn over.
        let text: String = text.chars().take(width - 1).collect();
        Output::redraw(&text);
        state.drawn = true;
    }

    fn erase(&self) {
        if std::mem::take(&mut self.state().drawn) {
            Output::redraw("");
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn describe_wait(state: &State, waited: Duration) -> String {
    let mut text = "leasehold: waiting".to_owned();
    // Writing to a `String` cannot fail.
    if let Some((key, ahead)) = &state.waits {
        let _ = write!(text, " for {}", printable(key.as_str()));
        if let Some(holder) = &ahead.holder {
            let _ = write!(text, ", held by {}", describe(holder));
        }
        match ahead.rank {
            Some(0) => text.push_str(", next in line"),
            Some(rank) => {
                let _ = write!(text, ", {rank} ahead in line");
            }
            None => {}
        }
    }
    if state.trouble {
        text.push_str(", the store is in trouble");
    }
    let _ = write!(text, ", {}", show(Duration::from_secs(waited.as_secs())));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use leasehold::Note;

    #[test]
    fn the_line_tells_the_holder_the_place_and_the_time() {
        let key = Key::new("jobs/\x1b[2J").unwrap();
        let owner = Note::new("web-1:42").unwrap();
        let holder = Party { owner, note: Note::new("nightly").unwrap(), ..Party::default() };
        let ahead = |rank| Ahead { rank, holder: Some(holder.clone()), foreign: false };
        let waits = |rank| Some((key.clone(), ahead(rank)));
        let state = |rank| State { waits: waits(rank), ..State::default() };
        assert_eq!(
            describe_wait(&state(Some(2)), Duration::from_millis(12_345)),
            "leasehold: waiting for jobs/\\u{1b}[2J, held by web-1:42 (nightly), \
             2 ahead in line, 12s"
        );
        assert!(describe_wait(&state(Some(0)), Duration::ZERO).contains("next in line"));
        assert!(!describe_wait(&state(None), Duration::ZERO).contains("in line"));
        let trouble = State { trouble: true, ..State::default() };
        assert!(describe_wait(&trouble, Duration::ZERO).contains("trouble"));
    }
}
