//! A lock of any shape: how a key is claimed, waited for and held.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use leasehold_core::line::Share;
use leasehold_core::{Ahead, Enter, Key, Note};

use crate::error::{Error, ErrorKind, Result};
use crate::guard::{Guard, Released};
use crate::session::{Acquired, Handle, Observer, Request, Wait, Wanted};

/// A key and how much of it is wanted, across all processes that use the same store: all of it
/// ([`Client::mutex`](crate::Client::mutex), the writer of an [`RwLock`](crate::RwLock)), or some
/// ([`Semaphore`](crate::Semaphore), a reader).
///
/// Making one does nothing yet; cloning is cheap. There is no re-entrance: two claims of one
/// process on one key are two claims, and a task that holds a guard and locks the same key again
/// waits for itself. Inside [`Lock::run`] that is certain, and an error instead; elsewhere the guard
/// may have gone to another task, and [`Wait::BehindItself`] warns.
///
/// ```
/// # leasehold::doc_test(async {
/// # let client = leasehold::Client::open("memory:")?;
/// let lock = client.mutex("reports/daily")?;
/// let guard = lock.lock().await?;
/// println!("fence {}", guard.fence());
/// guard.check()?; // before each step that must not happen twice
/// guard.release().await?;
/// # Ok(()) });
/// ```
#[derive(Clone)]
pub struct Lock {
    handle: Arc<Handle>,
    key: Key,
    share: Share,
    note: Note,
    observer: Option<Observer>,
}

/// How an attempt ended.
#[derive(Debug)]
pub enum Attempt {
    /// The lock was free, and is ours.
    Held(Guard),
    /// Others are ahead.
    Refused(Ahead),
}

/// How an attempt at several locks in one step ended.
pub(crate) enum Together {
    /// All were free, and are ours.
    Held(Vec<Guard>),
    /// One was not, and none is.
    Refused,
    /// They cannot be had in one step.
    Apart,
}

impl Lock {
    /// One that wants `share` of `key`.
    pub(crate) fn new(handle: Arc<Handle>, key: Key, share: Share) -> Self {
        Self { handle, key, share, note: Note::default(), observer: None }
    }

    /// The same key, with another share of it.
    pub(crate) fn sharing(&self, share: Share) -> Self {
        Self { share, ..self.clone() }
    }

    pub(crate) const fn share(&self) -> Share {
        self.share
    }

    pub(crate) const fn handle(&self) -> &Arc<Handle> {
        &self.handle
    }

    /// What it locks.
    #[must_use]
    pub const fn key(&self) -> &Key {
        &self.key
    }

    /// The same lock with a note that others read beside the holder's name: at most 1024 bytes,
    /// not secret.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`] when the text is too long or contains NUL.
    pub fn note(mut self, text: &str) -> Result<Self> {
        self.note = Note::new(text).map_err(|error| {
            self.handle.error(ErrorKind::Invalid, "make a note", error.to_string()).about(&self.key)
        })?;
        Ok(self)
    }

    /// The same lock that tells `observer` how its waits go: the place in line at each look, and
    /// trouble with the store. Called from the waiting task, so it should return soon.
    #[must_use]
    pub fn on_wait(mut self, observer: impl Fn(Wait<'_>) + Send + Sync + 'static) -> Self {
        self.observer = Some(Observer(Arc::new(observer)));
        self
    }

    /// Waits for the lock, however long it takes, also through trouble with the store.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives up the place in line, or a hold that was just granted, in the
    /// background: normally within one round trip, and within one TTL at most.
    ///
    /// # Errors
    ///
    /// What waiting cannot mend: a key or TTL that the store refuses, credentials, corrupt data.
    pub async fn lock(&self) -> Result<Guard> {
        match self.acquire(Enter::Wait).await? {
            Attempt::Held(guard) => Ok(guard),
            Attempt::Refused(_) => Err(self.bug("the store refused a claim that was to wait")),
        }
    }

    /// Takes the lock if it is free. `None` if it is not.
    ///
    /// # Cancel safety
    ///
    /// As for [`Lock::lock`].
    ///
    /// # Errors
    ///
    /// When the store cannot be reached or refuses. A request whose answer was cut off is asked
    /// again by its claim id a few times before that.
    pub async fn try_lock(&self) -> Result<Option<Guard>> {
        Ok(match self.attempt().await? {
            Attempt::Held(guard) => Some(guard),
            Attempt::Refused(_) => None,
        })
    }

    /// Like [`Lock::try_lock`], and tells who holds if it is not free.
    ///
    /// # Cancel safety
    ///
    /// As for [`Lock::lock`].
    ///
    /// # Errors
    ///
    /// As for [`Lock::try_lock`].
    pub async fn attempt(&self) -> Result<Attempt> {
        self.acquire(Enter::Try).await
    }

    /// Waits for the lock for `wait` at most.
    ///
    /// # Cancel safety
    ///
    /// As for [`Lock::lock`].
    ///
    /// # Errors
    ///
    /// [`ErrorKind::TimedOut`] when it was not granted in time, and what [`Lock::lock`] fails
    /// with. If the store was in trouble at the end, the kind is that of the trouble, and its
    /// error is the source.
    pub async fn lock_within(&self, wait: Duration) -> Result<Guard> {
        let trouble = Arc::new(std::sync::Mutex::new(None));
        let watched = {
            let (trouble, observer) = (Arc::clone(&trouble), self.observer.clone());
            self.clone().on_wait(move |wait| {
                *trouble.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = match wait {
                    Wait::Trouble(error) => Some(error.clone()),
                    Wait::Behind(_) | Wait::BehindItself(_) => None,
                };
                if let Some(Observer(observer)) = &observer {
                    observer(wait);
                }
            })
        };
        if let Ok(outcome) = tokio::time::timeout(wait, watched.lock()).await {
            return outcome;
        }
        let trouble = trouble.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        let error = match trouble {
            None => {
                let detail = format!("it was not granted within {wait:?}");
                self.handle.error(ErrorKind::TimedOut, "lock", detail)
            }
            Some(error) => {
                let detail = format!("the store was in trouble when {wait:?} had passed");
                self.handle.error(error.kind(), "lock", detail).because(error)
            }
        };
        Err(error.about(&self.key))
    }

    /// Waits for the lock, runs `work` under it, and releases it.
    ///
    /// The future of `work` is dropped at its current await when the hold is lost: before the
    /// deadline, while the process is scheduled and the future yields.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the one of `work` and releases in the background.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Lost`] when the hold was lost while `work` ran, also if that is only noticed at
    /// the release: its effects may then overlap with another holder's. And what
    /// [`Lock::lock`] fails with.
    pub async fn run<T>(&self, work: impl AsyncFnOnce(&Guard) -> T) -> Result<T> {
        let guard = self.lock().await?;
        let outcome = {
            let lost = guard.cancellation();
            let work = within::HELD.scope(within::holding(self, &guard), work(&guard));
            tokio::select! {
                // The loss first: work that is done too late does not count.
                biased;
                () = lost.cancelled() => None,
                outcome = work => Some(outcome),
            }
        };
        guard.check()?;
        if let (Some(outcome), Released::Held) = (outcome, guard.release().await?) {
            return Ok(outcome);
        }
        let detail = "the hold was lost while the work ran";
        Err(self.handle.error(ErrorKind::Lost, "run under", detail).about(&self.key))
    }

    async fn acquire(&self, enter: Enter) -> Result<Attempt> {
        if enter == Enter::Wait && within::would_wait_for_itself(self) {
            let detail = "the task that asks for it holds it, further out, by `Lock::run`, and \
                          would wait for itself: locks are not re-entrant; hand the guard down";
            return Err(self.handle.error(ErrorKind::Invalid, "lock", detail).about(&self.key));
        }
        let observer = self.observer.as_ref();
        let request = Request { wanted: &[self.wanted()], enter, observer };
        let hold = match self.handle.acquire(&request).await? {
            Acquired::Held(holds) => holds.into_iter().next(),
            Acquired::Refused(ahead) => return Ok(Attempt::Refused(ahead)),
            Acquired::Apart => None,
        };
        let Some((entry, fence)) = hold else {
            return Err(self.bug("the store answered one claim as several"));
        };
        Ok(Attempt::Held(Guard::new(Arc::clone(&self.handle), entry, fence)))
    }

    /// Takes all of `locks` in one step if they are free, and else none.
    pub(crate) async fn attempt_together(locks: &[Self]) -> Result<Together> {
        let Some(Self { handle, .. }) = locks.first() else {
            return Ok(Together::Held(Vec::new()));
        };
        // A step is taken by one session.
        if !locks.iter().all(|lock| Arc::ptr_eq(&lock.handle, handle)) {
            return Ok(Together::Apart);
        }
        let wanted: Vec<_> = locks.iter().map(Self::wanted).collect();
        let request = Request { wanted: &wanted, enter: Enter::Try, observer: None };
        Ok(match handle.acquire(&request).await? {
            Acquired::Held(holds) => {
                let guard = |(entry, fence)| Guard::new(Arc::clone(handle), entry, fence);
                Together::Held(holds.into_iter().map(guard).collect())
            }
            Acquired::Refused(_) => Together::Refused,
            Acquired::Apart => Together::Apart,
        })
    }

    fn wanted(&self) -> Wanted<'_> {
        Wanted { key: &self.key, share: self.share, note: &self.note }
    }

    fn bug(&self, what: &str) -> Error {
        let detail = format!("{what}; this is a bug in it");
        self.handle.error(ErrorKind::Unsupported, "wait for", detail).about(&self.key)
    }
}

/// What the task at hand holds further out: known for certain only where the hold cannot end before
/// the work under it does.
pub(crate) mod within {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use leasehold_core::Key;
    use leasehold_core::line::{self, Share};

    use super::Lock;
    use crate::guard::Guard;

    tokio::task_local! {
        pub(crate) static HELD: Vec<Held>;
    }

    /// A hold under which work runs.
    #[derive(Debug, Clone)]
    pub(crate) struct Held {
        /// Compared as an address only.
        client: usize,
        key: Key,
        /// Fewer once it was amended.
        units: Arc<AtomicU32>,
        limit: u32,
    }

    fn client(lock: &Lock) -> usize {
        Arc::as_ptr(lock.handle()).addr()
    }

    /// What is held further out, and `guard`.
    pub(crate) fn holding(lock: &Lock, guard: &Guard) -> Vec<Held> {
        let mut held = HELD.try_with(Clone::clone).unwrap_or_default();
        let (client, key) = (client(lock), lock.key().clone());
        let (units, limit) = (Arc::clone(guard.shared_units()), lock.share().limit);
        held.push(Held { client, key, units, limit });
        held
    }

    /// Whether what is held further out leaves no room for `lock`, ever.
    pub(super) fn would_wait_for_itself(lock: &Lock) -> bool {
        let ours = |held: &&Held| held.client == client(lock) && held.key == *lock.key();
        let share =
            |held: &Held| Share { units: held.units.load(Ordering::Acquire), limit: held.limit };
        // As if they were alone in the line: who else is in it takes no less.
        let taken = HELD.try_with(|held| held.iter().filter(ours).map(share).collect::<Vec<_>>());
        taken.is_ok_and(|taken| {
            let line = taken.iter().copied().chain([lock.share()]);
            !taken.is_empty() && line::holders(line) <= taken.len()
        })
    }
}

impl fmt::Debug for Lock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lock")
            .field("key", &self.key)
            .field("units", &self.share.units)
            .field("limit", &self.share.limit)
            .field("store", self.handle.store())
            .finish_non_exhaustive()
    }
}
