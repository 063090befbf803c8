//! `leasehold run`: a command under a lock.

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::future::join_all;
#[cfg(feature = "sqlite")]
use leasehold::stores::Sqlite;
use leasehold::{
    Begin, Client, Election, ErrorKind, Guard, Job, Key, Leader, Lock, Moment, Released, Store,
    Turn, clock, stores,
};

use super::{Outcome, once};
use crate::args::{Asking, Commanded, Common, Once, Run, Sharing};
use crate::child::{Ended, Running};
use crate::duration::Patience;
use crate::exit::{self, Failure};
use crate::grip::Grip;
use crate::guardian::Guardian;
use crate::output::{Output, printable};
use crate::settings::{Flags, Settings, process_environment};
use crate::signals::Signals;
use crate::store_url;
use crate::supervise::{Supervisor, Verdict};
use crate::terminal::Terminal;
use crate::waiting::{self, Asked, Codes};

/// How long a release may take once the command has ended: the TTL does it otherwise.
const RELEASE: Duration = Duration::from_secs(5);

/// The settings that flags for asking make.
pub(crate) fn settings(
    asking: &Asking,
    common: &Common,
    grace: Option<Duration>,
    max_hold: Option<Duration>,
) -> Result<Settings, Failure> {
    let wait = if asking.once { Some(Patience::None) } else { asking.wait };
    let flags = Flags {
        ttl: asking.ttl,
        wait,
        note: asking.note.clone(),
        grace,
        max_hold,
        demand: asking.demand,
    };
    Settings::load(common, flags, &process_environment)
}

/// The codes that flags for asking choose.
pub(crate) const fn codes(asking: &Asking) -> Codes {
    Codes {
        busy: asking.exit_code_busy,
        timeout: asking.exit_code_timeout,
        unavailable: asking.exit_code_unavailable,
    }
}

/// Runs the verb.
pub(crate) async fn run(args: Run, common: &Common, output: Output) -> Result<Outcome, Failure> {
    let Run { key, and, sharing, asking, commanded } = args;
    let keys: Vec<Key> = std::iter::once(key).chain(and).collect();
    let claimed = Claimed::Locks(&keys, &sharing);
    under(claimed, &asking, &commanded, common, output).await
}

/// What a command is run under.
pub(crate) enum Claimed<'a> {
    Locks(&'a [Key], &'a Sharing),
    Office(&'a Key),
    Job(&'a Once),
}

impl Claimed<'_> {
    /// The locks to wait for, and what their holds then are.
    async fn of(&self, client: &Client) -> leasehold::Result<(Vec<Lock>, Then)> {
        Ok(match self {
            Self::Locks(keys, sharing) => {
                let mut locks = Vec::with_capacity(keys.len());
                for key in *keys {
                    locks.push(waiting::lock_of(client, key, sharing).await?);
                }
                (locks, Then::Hold)
            }
            Self::Office(name) => {
                let office = client.election((*name).clone())?;
                (vec![office.lock().clone()], Then::TakeOffice(office))
            }
            Self::Job(once) => {
                let job = once::job(client, once)?;
                (vec![job.lock().clone()], Then::TakeTurn(job))
            }
        })
    }
}

/// Runs a command under what is claimed for it.
pub(crate) async fn under(
    claimed: Claimed<'_>,
    asking: &Asking,
    commanded: &Commanded,
    common: &Common,
    output: Output,
) -> Result<Outcome, Failure> {
    let settings = settings(asking, common, commanded.grace, commanded.max_hold)?;
    let store = Opened::new(&settings.store.value).map_err(|error| settings.blame(error))?;
    let mut builder = Client::builder()
        .shared_store(Arc::clone(&store.shared))
        .ttl(settings.ttl.value)
        .grace(settings.grace.value)
        .demand(settings.demanded());
    if let Some(max_hold) = &settings.max_hold {
        builder = builder.max_hold(max_hold.value);
    }
    let client = builder.build().map_err(|error| settings.blame(error))?;
    let (locks, then) = claimed.of(&client).await?;
    let noted = locks.into_iter().map(|lock| lock.note(&settings.note));
    let locks = noted.collect::<leasehold::Result<_>>()?;

    let mut signals = Signals::listen()?;
    // Before the lock, so that it gets ready while the store answers.
    let guardian = Guardian::start().map_err(|error| {
        Failure::new(exit::INTERNAL, format!("cannot start the guardian: {error}"))
    })?;
    if let Some(outcome) = then.settled(output).await? {
        waiting::close(client).await;
        return Ok(outcome);
    }
    let asked =
        waiting::ask(&client, locks, settings.wait, codes(asking), &mut signals, output).await;
    let outcome = match asked {
        Ok(Asked::Held(guards)) => match then.take(guards, output).await {
            Ok(Taken::Hold(hold)) => {
                let hold = *hold;
                let under =
                    Held { hold, guardian, signals, settings: &settings, store: &store, output };
                under.run(&commanded.command, commanded.exit_code_lost).await
            }
            Ok(Taken::Nothing(outcome)) => Ok(outcome),
            Err(error) => Err(codes(asking).apply(error.into())),
        },
        Ok(Asked::GaveUp(signal)) => Ok(Outcome::Code(exit::of_signal(signal.as_raw()))),
        Err(failure) => Err(failure),
    };
    waiting::close(client).await;
    outcome
}

/// What is done with the lock once it is held.
enum Then {
    Hold,
    TakeOffice(Election),
    TakeTurn(Job),
}

/// What came of it.
enum Taken {
    Hold(Box<Hold>),
    /// There is nothing to do.
    Nothing(Outcome),
}

impl Then {
    /// How it ends without a lock, if that is certain.
    async fn settled(&self, output: Output) -> leasehold::Result<Option<Outcome>> {
        let Self::TakeTurn(job) = self else { return Ok(None) };
        match job.look().await {
            // The wait for the lock outlasts that, or tells of it.
            Err(error) if error.is_transient() => Ok(None),
            looked => Ok(looked?.map(|settled| once::skipped(job, &settled, output))),
        }
    }

    async fn take(self, mut guards: Vec<Guard>, output: Output) -> leasehold::Result<Taken> {
        let guard = guards.remove(0);
        Ok(Taken::Hold(Box::new(match self {
            Self::Hold => Hold::Locks(guard, guards),
            Self::TakeOffice(office) => Hold::Office(office.take_office(guard).await?),
            Self::TakeTurn(job) => match job.take_turn(guard).await? {
                Begin::Turn(turn) => Hold::Turn(turn),
                settled => return Ok(Taken::Nothing(once::skipped(&job, &settled, output))),
            },
        })))
    }
}

/// What became of the work that a hold was for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Work {
    Ended(Ended),
    /// It did not come to its own end, or never began: the next one tries.
    Unfinished,
}

impl From<&Verdict> for Work {
    fn from(verdict: &Verdict) -> Self {
        let done = verdict.ended == Ended::Exited(0);
        if verdict.lost || (verdict.interrupted && !done) {
            return Self::Unfinished;
        }
        Self::Ended(verdict.ended)
    }
}

/// What was granted.
enum Hold {
    Locks(Guard, Vec<Guard>),
    Office(Leader),
    Turn(Turn),
}

impl Hold {
    fn grip(&self) -> Grip<'_> {
        match self {
            Self::Locks(guard, others) => Grip::new(guard, others),
            Self::Office(leader) => Grip::new(leader.guard(), &[]),
            Self::Turn(turn) => Grip::new(turn.guard(), &[]),
        }
    }

    async fn end(self, work: Work) -> leasehold::Result<Released> {
        match self {
            Self::Locks(guard, others) => {
                let all = std::iter::once(guard).chain(others).map(Guard::release);
                let mut ended = Released::Held;
                for released in join_all(all).await {
                    if released? == Released::Lost {
                        ended = Released::Lost;
                    }
                }
                Ok(ended)
            }
            Self::Office(leader) => leader.resign().await,
            Self::Turn(turn) => {
                let code = match work {
                    Work::Ended(Ended::Exited(code)) => Some(code),
                    Work::Ended(Ended::Killed(_)) => None,
                    Work::Unfinished => return turn.give_up().await,
                };
                match turn.end(code == Some(0), code).await {
                    Ok(()) => Ok(Released::Held),
                    Err(error) if error.kind() == ErrorKind::Lost => Ok(Released::Lost),
                    Err(error) => Err(error),
                }
            }
        }
    }
}

/// A hold, and all that is needed to run a command under it.
struct Held<'a> {
    hold: Hold,
    guardian: Guardian,
    signals: Signals,
    settings: &'a Settings,
    store: &'a Opened,
    output: Output,
}

/// A store, as what it is where that matters.
struct Opened {
    shared: Arc<dyn Store>,
    #[cfg(feature = "sqlite")]
    embedded: Option<Sqlite>,
}

impl Opened {
    fn new(url: &str) -> leasehold::Result<Self> {
        #[cfg(feature = "sqlite")]
        if url.starts_with("sqlite:") {
            let embedded = Sqlite::new(url)?;
            return Ok(Self { shared: Arc::new(embedded.clone()), embedded: Some(embedded) });
        }
        Ok(Self {
            shared: stores::connect(url)?,
            #[cfg(feature = "sqlite")]
            embedded: None,
        })
    }

    /// What the store sees this process's life by, if it does.
    #[cfg_attr(
        not(feature = "sqlite"),
        expect(clippy::unused_async, reason = "only the embedded store has one")
    )]
    async fn lifeline(&self) -> leasehold::Result<Option<OwnedFd>> {
        #[cfg(feature = "sqlite")]
        if let Some(embedded) = &self.embedded {
            return embedded.lifeline().await;
        }
        Ok(None)
    }
}

impl Held<'_> {
    async fn run(mut self, command: &[OsString], lost: u8) -> Result<Outcome, Failure> {
        self.guardian.ready().await.map_err(|error| {
            Failure::new(exit::INTERNAL, format!("the guardian did not start: {error}"))
        })?;
        if let Some(lifeline) = self.store.lifeline().await? {
            self.guardian.keep(&lifeline)?;
        }
        let environment = self.environment();
        let group = self.guardian.group();
        let terminal = Terminal::open();
        if let Some(terminal) = terminal.as_ref().filter(|terminal| terminal.is_for_the_command()) {
            // Before it starts: a shell looks first thing whether it has the terminal.
            terminal.give(group);
        }
        let running = match Running::start(command, &environment, group) {
            Ok(running) => running,
            Err(error) => {
                if let Some(terminal) = &terminal {
                    terminal.take_back(group);
                }
                self.release(Work::Unfinished).await?;
                return Err(cannot_start(&command[0], &error));
            }
        };
        let mut supervisor = Supervisor {
            grip: self.hold.grip(),
            guardian: &mut self.guardian,
            signals: &mut self.signals,
            terminal: terminal.as_ref(),
            grace: self.settings.grace.value,
            ttl: self.settings.ttl.value,
            output: self.output,
        };
        let verdict = supervisor.watch(running).await?;
        // It ends while the store answers.
        self.guardian.dismiss();
        let output = self.output;
        let held = self.release(Work::from(&verdict)).await?;
        Ok(judge(verdict, held, lost, output))
    }

    /// What the command is told.
    fn environment(&self) -> Vec<(&'static str, String)> {
        let shown = self.store.shared.to_string();
        let mut environment = store_url::for_the_command(&self.settings.store.value, &shown);
        let grip = self.hold.grip();
        environment.push(("LEASEHOLD_KEY", grip.first().key().as_str().to_owned()));
        environment.push(("LEASEHOLD_FENCE", grip.first().fence().to_string()));
        environment.push(("LEASEHOLD_DEADLINE", unix_millis(grip.deadline()).to_string()));
        if grip.all().count() > 1 {
            let fences = grip.all().map(|guard| (guard.key().as_str(), guard.fence().get().into()));
            let fences: serde_json::Map<String, serde_json::Value> =
                fences.map(|(key, fence)| (key.to_owned(), fence)).collect();
            environment.push(("LEASEHOLD_FENCES", serde_json::Value::from(fences).to_string()));
        }
        environment
    }

    /// Whether the hold was ours to the end, as far as the store could be asked.
    async fn release(mut self, work: Work) -> Result<bool, Failure> {
        let good = self.hold.grip().is_good();
        let done = matches!(self.hold, Hold::Turn(_)) && work == Work::Ended(Ended::Exited(0));
        // What is not written down is run again: that is worth waiting for, as long as it can be
        // written, or until somebody wants this process to end.
        let patience =
            if done { self.hold.grip().first().remaining().max(RELEASE) } else { RELEASE };
        let enough = async {
            if done {
                self.signals.end().await;
            } else {
                std::future::pending::<()>().await;
            }
        };
        let ended = tokio::select! {
            ended = tokio::time::timeout(patience, self.hold.end(work)) => ended.ok(),
            () = enough => None,
        };
        let said = match ended {
            Some(Ok(Released::Held)) => return Ok(true),
            Some(Ok(Released::Lost)) => return Ok(false),
            Some(Err(error)) => Failure::message_of(&error),
            None => "the store did not confirm the release; the lock ends with its lease".into(),
        };
        if done {
            let message = format!(
                "the command succeeded, but whether that was written down is not known, and it may \
                 be run again: {said}"
            );
            return Err(Failure::new(exit::UNAVAILABLE, message));
        }
        self.output.warn(said);
        // It ended within its lease: nobody else was granted before that.
        Ok(good)
    }
}

fn judge(verdict: Verdict, held: bool, lost: u8, output: Output) -> Outcome {
    if verdict.lost {
        return Outcome::Code(lost);
    }
    if !held {
        output.error(
            "the lock had been lost when the command ended: part of its work was done without it",
        );
        return Outcome::Code(lost);
    }
    match (verdict.ended, verdict.typed) {
        (_, Some(signal)) => Outcome::Typed(signal),
        (Ended::Exited(code), _) => Outcome::Code(u8::try_from(code).unwrap_or(u8::MAX)),
        (Ended::Killed(signal), _) => Outcome::Code(exit::of_signal(signal)),
    }
}

pub(crate) fn cannot_start(program: &OsString, error: &io::Error) -> Failure {
    let code = match error.kind() {
        io::ErrorKind::NotFound => exit::NOT_FOUND,
        _ => exit::CANNOT_RUN,
    };
    Failure::new(code, format!("cannot run {}: {error}", printable(&program.to_string_lossy())))
}

/// A moment as Unix time, by the wall clock as it is now.
pub(crate) fn unix_millis(moment: Moment) -> u64 {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let at = wall + moment.since(clock::now());
    u64::try_from(at.as_millis()).unwrap_or(u64::MAX)
}
