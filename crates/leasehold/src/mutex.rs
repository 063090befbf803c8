//! One holder at a time.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use leasehold_core::{Ahead, Enter, Key, Note};

use crate::error::{ErrorKind, Result};
use crate::guard::{Guard, Released};
use crate::session::{Acquired, Handle, Observer, Request, Wait};

/// A key that one holder has at a time, across all processes that use the same store.
///
/// Making one does nothing yet; cloning is cheap. Two claims of one process on one key are two
/// claims: a task that holds a guard and locks the same key again waits for itself.
///
/// ```
/// # leasehold::doc_test(async {
/// # let client = leasehold::Client::open("memory:")?;
/// let mutex = client.mutex("reports/daily")?;
/// let guard = mutex.lock().await?;
/// println!("fence {}", guard.fence());
/// guard.check()?; // before each step that must not happen twice
/// guard.release().await?;
/// # Ok(()) });
/// ```
#[derive(Clone)]
pub struct Mutex {
    handle: Arc<Handle>,
    key: Key,
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

impl Mutex {
    pub(crate) fn new(handle: Arc<Handle>, key: Key) -> Self {
        Self { handle, key, note: Note::default(), observer: None }
    }

    /// What it locks.
    #[must_use]
    pub const fn key(&self) -> &Key {
        &self.key
    }

    /// The same mutex with a note that others read beside the holder's name: at most 1024 bytes,
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

    /// The same mutex that tells `observer` how its waits go: the place in line at each look, and
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
            Attempt::Refused(_) => {
                let detail = "the store refused a claim that was to wait; this is a bug in it";
                Err(self.handle.error(ErrorKind::Unsupported, "wait for", detail).about(&self.key))
            }
        }
    }

    /// Takes the lock if it is free. `None` if it is not.
    ///
    /// # Cancel safety
    ///
    /// As for [`Mutex::lock`].
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

    /// Like [`Mutex::try_lock`], and tells who holds if it is not free.
    ///
    /// # Cancel safety
    ///
    /// As for [`Mutex::lock`].
    ///
    /// # Errors
    ///
    /// As for [`Mutex::try_lock`].
    pub async fn attempt(&self) -> Result<Attempt> {
        self.acquire(Enter::Try).await
    }

    /// Waits for the lock for `wait` at most.
    ///
    /// # Cancel safety
    ///
    /// As for [`Mutex::lock`].
    ///
    /// # Errors
    ///
    /// [`ErrorKind::TimedOut`] when it was not granted in time, and what [`Mutex::lock`] fails
    /// with. If the store was in trouble at the end, the kind is that of the trouble, and its
    /// error is the source.
    pub async fn lock_within(&self, wait: Duration) -> Result<Guard> {
        let trouble = Arc::new(std::sync::Mutex::new(None));
        let watched = {
            let (trouble, observer) = (Arc::clone(&trouble), self.observer.clone());
            self.clone().on_wait(move |wait| {
                *trouble.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = match wait {
                    Wait::Trouble(error) => Some(error.clone()),
                    Wait::Behind(_) => None,
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
    /// [`Mutex::lock`] fails with.
    pub async fn run<T>(&self, work: impl AsyncFnOnce(&Guard) -> T) -> Result<T> {
        let guard = self.lock().await?;
        let outcome = {
            let lost = guard.cancellation();
            tokio::select! {
                // The loss first: work that is done too late does not count.
                biased;
                () = lost.cancelled() => None,
                outcome = work(&guard) => Some(outcome),
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
        let request =
            Request { key: &self.key, note: &self.note, enter, observer: self.observer.as_ref() };
        Ok(match self.handle.acquire(&request).await? {
            Acquired::Held { entry, fence } => {
                Attempt::Held(Guard::new(Arc::clone(&self.handle), entry, fence))
            }
            Acquired::Refused(ahead) => Attempt::Refused(ahead),
        })
    }
}

impl fmt::Debug for Mutex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mutex")
            .field("key", &self.key)
            .field("store", self.handle.store())
            .finish_non_exhaustive()
    }
}
