//! Work that is done once: in each period, or for each version, across a fleet.

mod index;
mod schedule;
mod state;

use std::sync::Arc;
use std::time::Duration;

use leasehold_core::schedule::{self as rule, Due, Period, Policy};
use leasehold_core::{Ahead, Fence, Key, Moment, Provided, Reading};

use self::state::State;
use crate::clock;
use crate::error::{Error, ErrorKind, Result};
use crate::guard::{Certainty, Guard, Released};
use crate::kept;
use crate::lock::{Attempt, Lock};
use crate::property::Property;
use crate::session::Handle;

pub(crate) use self::index::{all, unlist};
pub use self::schedule::Schedule;
pub use self::state::Run;

/// Work that is done at most once in each period, or for each version, by whoever of the fleet comes
/// first.
///
/// What ran is written into the record of the job's key, under the hold of its lock: a runner that
/// was paused past its lease and another took over from writes nothing. A runner that dies before it
/// has written down how it ended lets the next one try. The time that counts is the store's, where it
/// has one: the clocks of the nodes need not agree.
///
/// *At most once* counts successes: a job that failed or died may have done part of its work. Give
/// what it writes the [`Turn::fence`].
///
/// ```
/// # leasehold::doc_test(async {
/// # let client = leasehold::Client::open("memory:")?;
/// use leasehold::{Begin, Schedule};
/// use std::time::Duration;
///
/// let job = client.job("report", Schedule::every(Duration::from_hours(1))?)?;
/// match job.begin().await? {
///     Begin::Turn(turn) => {
///         // … the work, under turn.fence() …
///         turn.succeed().await?;
///     }
///     Begin::Ran(run) => println!("{} did it", run.owner),
///     other => println!("not now: {other:?}"),
/// }
/// assert!(matches!(job.begin().await?, Begin::Ran(_)), "once an hour");
/// # Ok(()) });
/// ```
#[derive(Debug, Clone)]
pub struct Job {
    lock: Lock,
    schedule: Schedule,
    policy: Policy,
}

/// How beginning a job went.
#[derive(Debug)]
#[non_exhaustive]
pub enum Begin {
    /// It is ours to do.
    Turn(Turn),
    /// It has been done.
    Ran(Run),
    /// It failed, and is not tried again in this period.
    Failed(Run),
    /// The last run began a moment ago ([`Job::at_least`]).
    TooSoon(Run),
    /// Its time was too long ago, and it may not catch up ([`Job::no_later_than`]).
    Missed,
    /// Somebody does it at this moment.
    Running(Ahead),
}

/// The job in the hands of the one who does it. Dropping it without saying how it ended lets the next
/// one try, as if this process had died.
#[derive(Debug)]
#[must_use = "dropping a turn lets the next one try"]
pub struct Turn {
    guard: Guard,
    state: State,
    /// When it began: by the store's clock, and by ours.
    began: (Duration, Moment),
    /// Of the writing of `state`.
    certainty: Certainty,
}

impl Job {
    pub(crate) fn new(lock: Lock, schedule: Schedule) -> Result<Self> {
        let handle = lock.handle();
        if !handle.store().guarantees().has(Property::Records) {
            let detail =
                "this store keeps no records, in which a job is remembered; use another one";
            let error = handle.error(ErrorKind::Unsupported, "make a job of", detail);
            return Err(error.about(lock.key()));
        }
        Ok(Self { lock, schedule, policy: Policy::default() })
    }

    /// The lock under which it is done.
    #[must_use]
    pub const fn lock(&self) -> &Lock {
        &self.lock
    }

    /// The same job, of which two runs do not begin within `at_least` of each other: for work that
    /// takes less time than the clocks of those who ask for it differ by. Default: none.
    #[must_use]
    pub const fn at_least(mut self, at_least: Duration) -> Self {
        self.policy.at_least = at_least;
        self
    }

    /// The same job, which is tried again so often in its period after a failure. Default: not again.
    #[must_use]
    pub const fn retry_failed(mut self, times: u32) -> Self {
        self.policy.retries = times;
        self
    }

    /// The same job, which is skipped when its period began longer ago than `late`. Default: it is
    /// done at any time of its period, which catches up on what was missed.
    #[must_use]
    pub const fn no_later_than(mut self, late: Duration) -> Self {
        self.policy.late = Some(late);
        self
    }

    /// Begins it if it is due and nobody does it.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives the turn back in the background.
    ///
    /// # Errors
    ///
    /// When the store cannot be reached or refuses, and [`ErrorKind::Corrupt`] when the key's record is
    /// of something else.
    pub async fn begin(&self) -> Result<Begin> {
        // What is not due needs no lock.
        if let Some(settled) = self.look().await? {
            return Ok(settled);
        }
        match self.lock.attempt().await? {
            Attempt::Held(guard) => self.take_turn(guard).await,
            Attempt::Refused(ahead) => Ok(Begin::Running(ahead)),
        }
    }

    /// Begins it if it is due, after whoever does it at this moment has ended: right for migrations,
    /// where every instance goes on once one has migrated. Never [`Begin::Running`].
    ///
    /// # Cancel safety
    ///
    /// As for [`Job::begin`].
    ///
    /// # Errors
    ///
    /// As for [`Job::begin`].
    pub async fn begin_or_wait(&self) -> Result<Begin> {
        if let Some(settled) = self.look().await? {
            return Ok(settled);
        }
        self.take_turn(self.lock.lock().await?).await
    }

    /// What is certain without the lock: that there is nothing to do. `None` if there may be.
    ///
    /// Cancel safe: it only reads.
    ///
    /// # Errors
    ///
    /// As for [`Job::begin`].
    pub async fn look(&self) -> Result<Option<Begin>> {
        let (state, now) = self.read().await?;
        let period = self.schedule.period(now)?;
        Ok(self.settled(now, &period, state.as_ref()))
    }

    /// Begins it with a hold of [`Job::lock`], if it is due. For callers who wait for the lock in their
    /// own way; [`Job::begin`] and [`Job::begin_or_wait`] do both.
    ///
    /// # Cancel safety
    ///
    /// As for [`Job::begin`].
    ///
    /// # Errors
    ///
    /// As for [`Job::begin`], [`ErrorKind::Lost`] when the hold was lost meanwhile, and
    /// [`ErrorKind::Invalid`] when the guard is of another key.
    pub async fn take_turn(&self, guard: Guard) -> Result<Begin> {
        if guard.key() != self.lock.key() {
            let detail = format!("the guard is of {:?}", guard.key());
            let error = self.lock.handle().error(ErrorKind::Invalid, "begin the job", detail);
            return Err(error.about(self.lock.key()));
        }
        let (state, now) = self.read().await?;
        let began = (now, clock::now());
        let period = self.schedule.period(now)?;
        if let Some(settled) = self.settled(now, &period, state.as_ref()) {
            // At worst its TTL ends it: there was nothing to do.
            guard.release().await.ok();
            return Ok(settled);
        }
        let owner = self.lock.handle().settings().terms.owner.as_str();
        let state = state.unwrap_or_default().begun(&period, now, owner, guard.fence());
        let certainty = guard.write(&state.record()).await?;
        index::enter(self.lock.handle(), self.lock.key()).await;
        Ok(Begin::Turn(Turn { guard, state, began, certainty }))
    }

    /// The last run, if there was one.
    ///
    /// Cancel safe: it only reads.
    ///
    /// # Errors
    ///
    /// As for [`Job::begin`].
    pub async fn last(&self) -> Result<Option<Run>> {
        Ok(self.read().await?.0.map(|state| state.run()))
    }

    async fn read(&self) -> Result<(Option<State>, Duration)> {
        let (handle, key) = (self.lock.handle(), self.lock.key());
        let (state, Reading { at, .. }) = kept::read::<State>(handle, key, state::KIND).await?;
        Ok((state, at.unwrap_or_else(clock::wall)))
    }

    fn settled(&self, now: Duration, period: &Period, state: Option<&State>) -> Option<Begin> {
        let last = state.map(State::last);
        let done = |name: &str| state.is_some_and(|state| state.is_done(name));
        let run = || state.map(State::run).unwrap_or_default();
        match rule::due(now, period, last.as_ref(), done, self.policy) {
            Due::Now => None,
            Due::Ran => Some(Begin::Ran(run())),
            Due::Failed => Some(Begin::Failed(run())),
            Due::TooSoon => Some(Begin::TooSoon(run())),
            Due::Missed => Some(Begin::Missed),
        }
    }
}

impl Turn {
    /// The hold under which it is done.
    pub const fn guard(&self) -> &Guard {
        &self.guard
    }

    /// The fencing token of this run: greater than that of every run before it.
    #[must_use]
    pub const fn fence(&self) -> Fence {
        self.guard.fence()
    }

    /// Which failed run of its period this one follows: 0 for the first.
    #[must_use]
    pub const fn failures(&self) -> u32 {
        self.state.failures
    }

    /// Writes down that the work is done, and ends the hold.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves it open whether that was written down; if not, the next one tries.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Lost`] when the hold had been lost: somebody else may have done the work as well,
    /// or will. And when the store cannot be reached: whether it was written down is not known then.
    pub async fn succeed(self) -> Result<()> {
        self.end(true, None).await
    }

    /// Writes down that the work failed, and ends the hold.
    ///
    /// # Cancel safety
    ///
    /// As for [`Turn::succeed`].
    ///
    /// # Errors
    ///
    /// As for [`Turn::succeed`].
    pub async fn fail(self) -> Result<()> {
        self.end(false, None).await
    }

    /// Gives the work back undone, as when this process is to end: the next one tries. Says whether the
    /// hold was still ours.
    ///
    /// # Cancel safety
    ///
    /// As for [`Guard::release`].
    ///
    /// # Errors
    ///
    /// As for [`Guard::release`].
    pub async fn give_up(self) -> Result<Released> {
        self.guard.release().await
    }

    /// Writes down how the work ended, with the exit code of a program, and ends the hold.
    ///
    /// # Cancel safety
    ///
    /// As for [`Turn::succeed`].
    ///
    /// # Errors
    ///
    /// As for [`Turn::succeed`].
    pub async fn end(self, ok: bool, code: Option<i32>) -> Result<()> {
        let (began, here) = self.began;
        // On the store's clock, which this one goes beside for as long as it took.
        let ended = began.saturating_add(clock::now().since(here));
        let state = self.state.ended(ended, ok, code);
        self.guard.write(&state.record()).await?;
        let (handle, key) = (Arc::clone(self.guard.handle()), self.guard.key().clone());
        let released = self.guard.release().await;
        match self.certainty {
            // It is written down, and the hold was ours until then. If need be the TTL ends it.
            Certainty::Done => Ok(()),
            Certainty::MayComeAgain => {
                released?;
                confirm(&handle, &key, &state).await
            }
        }
    }
}

/// Sees to it that the end of a run is written down, where the writing of its beginning was cut off,
/// arrived late and undid that of the end. It cannot arrive any more: the hold has ended.
async fn confirm(handle: &Handle, key: &Key, ended: &State) -> Result<()> {
    loop {
        let (found, reading) = kept::read::<State>(handle, key, state::KIND).await?;
        if found.as_ref().is_some_and(|found| found.remembers(ended)) {
            return Ok(());
        }
        let Some(version) = reading.written.filter(|_| found.is_some_and(|it| it.is_of(ended)))
        else {
            let detail = "somebody began it anew before its end was written down";
            return Err(handle.error(ErrorKind::Lost, "end the job", detail).about(key));
        };
        let (provided, record) = (Provided::Unchanged(Some(version.version)), ended.record());
        let writing = handle.store().write(key, provided, &record);
        handle.answered_soon("write the record of", writing).await?;
    }
}

/// What a job's key says; `None` where it says nothing.
pub(crate) async fn last_of(handle: &Handle, key: &Key) -> Result<Option<Run>> {
    match kept::read::<State>(handle, key, state::KIND).await {
        Ok((state, _)) => Ok(state.map(|state| state.run())),
        // It was a job's, and is something else now.
        Err(error) if error.kind() == ErrorKind::Corrupt => Ok(None),
        Err(error) => Err::<_, Error>(error),
    }
}
