//! The same for code without async: every method waits on the calling thread.
//!
//! A [`Client`] here brings a runtime of its own with one thread, on which holds are renewed
//! while the caller computes.
//!
//! ```
//! # fn main() -> leasehold::Result<()> {
//! let client = leasehold::blocking::Client::open("memory:")?;
//! let guard = client.mutex("reports/daily")?.lock()?;
//! guard.check()?;
//! guard.release()?;
//! # Ok(())
//! # }
//! ```

mod election;
mod job;
mod limiter;
mod shares;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use leasehold_core::{Ahead, Fence, Key, Moment};
use tokio_util::sync::CancellationToken;

use crate::client::{ClientBuilder, IntoKeyError};
use crate::error::{Error, ErrorKind, Result};
use crate::examination::Examination;
use crate::forget::Forgotten;
use crate::guard::Released;
use crate::job::{Run, Schedule};
use crate::limiter::{Away, Rate};
use crate::lock::within;
use crate::session::Wait;
use crate::store::Store;

pub use election::{Election, Leader};
pub use job::{Begin, Job, Turn};
pub use limiter::Limiter;
pub use shares::{RwLock, Semaphore, Slots};

/// The blocking twin of [`crate::Client`].
#[derive(Debug, Clone)]
pub struct Client {
    // Before the runtime: fields are dropped in order, and the last handle tells its task.
    client: crate::Client,
    runtime: Arc<Runtime>,
}

/// The blocking twin of [`crate::Lock`].
#[derive(Debug, Clone)]
pub struct Lock {
    lock: crate::Lock,
    runtime: Arc<Runtime>,
}

/// The blocking twin of [`crate::Guard`].
#[derive(Debug)]
#[must_use = "dropping a guard releases its hold"]
pub struct Guard {
    guard: crate::Guard,
    runtime: Arc<Runtime>,
}

/// For what looks at a hold without waiting, as [`crate::fence`] does.
impl AsRef<crate::Guard> for Guard {
    fn as_ref(&self) -> &crate::Guard {
        &self.guard
    }
}

/// How an attempt ended: the blocking twin of [`crate::Attempt`].
#[derive(Debug)]
pub enum Attempt {
    /// The lock was free, and is ours.
    Held(Guard),
    /// Others are ahead.
    Refused(Ahead),
}

impl Client {
    /// As [`crate::Client::open`].
    ///
    /// # Errors
    ///
    /// As there, and when no thread can be started.
    pub fn open(url: &str) -> Result<Self> {
        Self::build(crate::Client::builder().url(url))
    }

    /// A blocking client with the settings of `builder`.
    ///
    /// # Errors
    ///
    /// As [`ClientBuilder::build`], and when no thread can be started.
    pub fn build(builder: ClientBuilder) -> Result<Self> {
        let client = builder.build()?;
        let runtime = Arc::new(Runtime::new(client.ended())?);
        Ok(Self { client, runtime })
    }

    /// As [`crate::Client::mutex`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn mutex<K>(&self, key: K) -> Result<Lock>
    where
        K: TryInto<Key>,
        K::Error: IntoKeyError,
    {
        Ok(Lock::new(self.client.mutex(key)?, &self.runtime))
    }

    /// As [`crate::Client::rwlock`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn rwlock<K>(&self, key: K) -> Result<RwLock>
    where
        K: TryInto<Key>,
        K::Error: IntoKeyError,
    {
        Ok(RwLock::new(&self.client.rwlock(key)?, &self.runtime))
    }

    /// As [`crate::Client::semaphore`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn semaphore<K>(&self, key: K, limit: u32) -> Result<Semaphore>
    where
        K: TryInto<Key>,
        K::Error: IntoKeyError,
    {
        Ok(Semaphore::new(self.client.semaphore(key, limit)?, &self.runtime))
    }

    /// As [`crate::Client::slots`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn slots<K>(&self, key: K) -> Result<Slots>
    where
        K: TryInto<Key>,
        K::Error: IntoKeyError,
    {
        Ok(Slots::new(self.client.slots(key)?, &self.runtime))
    }

    /// As [`crate::Client::election`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn election<K>(&self, name: K) -> Result<Election>
    where
        K: TryInto<Key>,
        K::Error: IntoKeyError,
    {
        let election = self.client.election(name)?;
        Ok(Election::new(election, &self.runtime))
    }

    /// As [`crate::Client::job`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn job<K>(&self, key: K, schedule: Schedule) -> Result<Job>
    where
        K: TryInto<Key>,
        K::Error: IntoKeyError,
    {
        Ok(Job::new(self.client.job(key, schedule)?, &self.runtime))
    }

    /// As [`crate::Client::jobs`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn jobs(&self, prefix: &str) -> Result<Vec<(Key, Run)>> {
        self.runtime.wait(self.client.jobs(prefix))
    }

    /// As [`crate::Client::forget`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn forget<K>(&self, key: K) -> Result<Forgotten>
    where
        K: TryInto<Key>,
        K::Error: IntoKeyError,
    {
        self.runtime.wait(self.client.forget(key))
    }

    /// As [`crate::Client::lock_all`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn lock_all(&self, locks: impl IntoIterator<Item = Lock>) -> Result<Vec<Guard>> {
        let locks = locks.into_iter().map(|lock| lock.lock);
        Ok(self.guards(self.runtime.wait(self.client.lock_all(locks))?))
    }

    /// As [`crate::Client::try_lock_all`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn try_lock_all(
        &self,
        locks: impl IntoIterator<Item = Lock>,
    ) -> Result<Option<Vec<Guard>>> {
        let locks = locks.into_iter().map(|lock| lock.lock);
        let guards = self.runtime.wait(self.client.try_lock_all(locks))?;
        Ok(guards.map(|guards| self.guards(guards)))
    }

    fn guards(&self, guards: Vec<crate::Guard>) -> Vec<Guard> {
        let ours = |guard| Guard { guard, runtime: Arc::clone(&self.runtime) };
        guards.into_iter().map(ours).collect()
    }

    /// As [`crate::Client::limiter`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn limiter<K, R>(&self, key: K, rate: R, away: Away) -> Result<Limiter>
    where
        K: TryInto<Key>,
        K::Error: IntoKeyError,
        R: TryInto<Rate>,
        R::Error: fmt::Display,
    {
        Ok(Limiter::new(self.client.limiter(key, rate, away)?, &self.runtime))
    }

    /// As [`crate::Client::store`].
    #[must_use]
    pub fn store(&self) -> &Arc<dyn Store> {
        self.client.store()
    }

    /// As [`crate::Client::examine`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn examine(&self, prefix: &str) -> Result<Examination> {
        self.runtime.wait(self.client.examine(prefix))
    }

    /// As [`crate::Client::close`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn close(self) -> Result<()> {
        self.runtime.wait(self.client.close())
    }
}

impl Lock {
    fn new(lock: crate::Lock, runtime: &Arc<Runtime>) -> Self {
        Self { lock, runtime: Arc::clone(runtime) }
    }

    /// As [`crate::Lock::note`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn note(self, text: &str) -> Result<Self> {
        Ok(Self { lock: self.lock.note(text)?, runtime: self.runtime })
    }

    /// As [`crate::Lock::on_wait`].
    #[must_use]
    pub fn on_wait(self, observer: impl Fn(Wait<'_>) + Send + Sync + 'static) -> Self {
        Self { lock: self.lock.on_wait(observer), runtime: self.runtime }
    }

    /// As [`crate::Lock::lock`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn lock(&self) -> Result<Guard> {
        self.runtime.wait(self.lock.lock()).map(|guard| self.guard(guard))
    }

    /// As [`crate::Lock::try_lock`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn try_lock(&self) -> Result<Option<Guard>> {
        let guard = self.runtime.wait(self.lock.try_lock())?;
        Ok(guard.map(|guard| self.guard(guard)))
    }

    /// As [`crate::Lock::attempt`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn attempt(&self) -> Result<Attempt> {
        Ok(match self.runtime.wait(self.lock.attempt())? {
            crate::Attempt::Held(guard) => Attempt::Held(self.guard(guard)),
            crate::Attempt::Refused(ahead) => Attempt::Refused(ahead),
        })
    }

    /// As [`crate::Lock::lock_within`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn lock_within(&self, wait: Duration) -> Result<Guard> {
        self.runtime.wait(self.lock.lock_within(wait)).map(|guard| self.guard(guard))
    }

    /// Waits for the lock, runs `work` under it, and releases it.
    ///
    /// Unlike its async twin it cannot interrupt `work`: let it look at [`Guard::check`].
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Lost`] when the hold was lost while `work` ran, and what [`Lock::lock`] fails
    /// with.
    pub fn run<T>(&self, work: impl FnOnce(&Guard) -> T) -> Result<T> {
        let guard = self.lock()?;
        let held = within::holding(&self.lock, &guard.guard);
        let outcome = within::HELD.sync_scope(held, || work(&guard));
        guard.check()?;
        let key = guard.key().clone();
        match guard.release()? {
            Released::Held => Ok(outcome),
            Released::Lost => {
                let detail = "the hold was lost while the work ran";
                Err(Error::new(ErrorKind::Lost, "run under", detail).about(&key))
            }
        }
    }

    fn guard(&self, guard: crate::Guard) -> Guard {
        Guard { guard, runtime: Arc::clone(&self.runtime) }
    }
}

impl Guard {
    /// As [`crate::Guard::key`].
    #[must_use]
    pub fn key(&self) -> &Key {
        self.guard.key()
    }

    /// As [`crate::Guard::fence`].
    #[must_use]
    pub const fn fence(&self) -> Fence {
        self.guard.fence()
    }

    /// As [`crate::Guard::units`].
    #[must_use]
    pub fn units(&self) -> u32 {
        self.guard.units()
    }

    /// As [`crate::Guard::set_note`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn set_note(&self, text: &str) -> Result<()> {
        self.runtime.wait(self.guard.set_note(text))
    }

    /// As [`crate::Guard::downgrade`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn downgrade(&self) -> Result<()> {
        self.runtime.wait(self.guard.downgrade())
    }

    /// As [`crate::Guard::deadline`].
    #[must_use]
    pub fn deadline(&self) -> Moment {
        self.guard.deadline()
    }

    /// As [`crate::Guard::remaining`].
    #[must_use]
    pub fn remaining(&self) -> Duration {
        self.guard.remaining()
    }

    /// As [`crate::Guard::check`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn check(&self) -> Result<()> {
        self.guard.check()
    }

    /// Waits until the hold is lost.
    pub fn lost(&self) {
        // Inside a runtime the wait is refused; the guard is then not known to be lost.
        let _ = self.runtime.wait(async {
            self.guard.lost().await;
            Ok(())
        });
    }

    /// As [`crate::Guard::cancellation`]: ask it with `is_cancelled`.
    #[must_use]
    pub fn cancellation(&self) -> CancellationToken {
        self.guard.cancellation()
    }

    /// As [`crate::Guard::release`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn release(self) -> Result<Released> {
        self.runtime.wait(self.guard.release())
    }
}

/// The runtime of a blocking client.
#[derive(Debug)]
struct Runtime {
    /// There until it is dropped.
    runtime: Option<tokio::runtime::Runtime>,
    ended: CancellationToken,
}

impl Runtime {
    fn new(ended: CancellationToken) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("leasehold")
            .enable_all()
            .build()
            .map_err(|error| {
                let detail = "the thread that renews holds could not be started";
                Error::new(ErrorKind::Unavailable, "build the client", detail).because(error)
            })?;
        Ok(Self { runtime: Some(runtime), ended })
    }

    fn wait<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        if tokio::runtime::Handle::try_current().is_ok() {
            let detail =
                "this thread runs async tasks, which it would block; use leasehold::Client";
            return Err(Error::new(ErrorKind::Invalid, "wait", detail));
        }
        match &self.runtime {
            Some(runtime) => runtime.block_on(work),
            None => unreachable!("the runtime is only taken when it is dropped"),
        }
    }
}

/// The last handle is gone, so the background task is giving back what was held: lets it finish.
impl Drop for Runtime {
    fn drop(&mut self) {
        let Some(runtime) = self.runtime.take() else { return };
        let ended = self.ended.clone();
        let finish = move || {
            let end = async { tokio::time::timeout(FINISH, ended.cancelled()).await };
            let _ = runtime.block_on(end);
            runtime.shutdown_background();
        };
        // Inside another runtime waiting would panic.
        if tokio::runtime::Handle::try_current().is_ok() {
            std::thread::spawn(finish);
        } else {
            finish();
        }
    }
}

/// How long the end of the last handle waits for the store.
const FINISH: Duration = Duration::from_secs(3);
