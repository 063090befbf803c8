//! A granted claim in the hands of the caller.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use leasehold_core::backoff::Backoff;
use leasehold_core::line::Share;
#[cfg(any(feature = "etcd", feature = "zookeeper"))]
use leasehold_core::{Claim, SessionId};
use leasehold_core::{Fence, Key, Left, Moment, Note, Provided, Record};
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::detached::Grant;
use crate::error::{Effect, ErrorKind, Result};
use crate::random;
use crate::session::{Entry, Handle};

/// A hold. It is renewed in the background until it is released, dropped or lost.
///
/// What it promises about time, exactly:
///
/// - [`check`](Guard::check) is true only if its clock read preceded the deadline.
/// - While the process is scheduled, the loss is signalled before the deadline, whether or not the
///   store answers. After a stop or a suspend the first `check` fails.
/// - A stopped process can do nothing. Everything else is the job of the [`fence`](Guard::fence):
///   hand it to what the lock protects, and let that refuse a smaller one than it has seen. The
///   module [`fence`](crate::fence) has what that takes for databases, files and services.
///
/// Dropping a guard releases the hold in the background; [`release`](Guard::release) also says
/// whether it was still ours.
#[derive(Debug)]
#[must_use = "dropping a guard releases its hold"]
pub struct Guard {
    handle: Arc<Handle>,
    entry: Arc<Entry>,
    fence: Fence,
    /// How many units are held, as last amended.
    units: Arc<AtomicU32>,
    note: Mutex<Note>,
    /// The claim needs no more leaving.
    done: bool,
}

/// What a release found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Released {
    /// The hold was still ours: nobody else held the key since the grant. (If the answer to the
    /// release was cut off, that is concluded from the deadline, which had not passed; an operator
    /// who broke the hold in that very moment is then not noticed.)
    Held,
    /// The hold had been lost before: somebody else may have held the key meanwhile.
    Lost,
}

/// What is known of a request that was carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Certainty {
    /// No other like it is under way.
    Done,
    /// One that was cut off may still arrive, for as long as the hold lasts.
    MayComeAgain,
}

impl Guard {
    pub(crate) fn new(handle: Arc<Handle>, entry: Arc<Entry>, fence: Fence) -> Self {
        let units = Arc::new(AtomicU32::new(entry.claim.units()));
        let note = Mutex::new(entry.claim.note.clone());
        Self { handle, entry, fence, units, note, done: false }
    }

    /// How many units are held, as it was last amended: 1 for a mutex or a reader, `u32::MAX` for
    /// a writer.
    #[must_use]
    pub fn units(&self) -> u32 {
        self.units.load(Ordering::Acquire)
    }

    /// The note as it was last set.
    pub(crate) fn current_note(&self) -> Note {
        self.note().clone()
    }

    pub(crate) const fn handle(&self) -> &Arc<Handle> {
        &self.handle
    }

    pub(crate) const fn shared_units(&self) -> &Arc<AtomicU32> {
        &self.units
    }

    /// What is held.
    #[must_use]
    pub fn key(&self) -> &Key {
        &self.entry.claim.key
    }

    /// What the store knows the hold by.
    #[cfg(any(feature = "etcd", feature = "zookeeper"))]
    pub(crate) fn claim(&self) -> (&SessionId, &Claim) {
        (&self.entry.session, &self.entry.claim)
    }

    /// The fencing token of this hold.
    #[must_use]
    pub const fn fence(&self) -> Fence {
        self.fence
    }

    /// Until when the holder may act, as of now: renewals move it. Compare it with
    /// [`clock::now`](crate::clock::now).
    #[must_use]
    pub fn deadline(&self) -> Moment {
        self.entry.deadline()
    }

    /// How long until the loss is signalled unless the hold is renewed; zero once it is lost.
    #[must_use]
    pub fn remaining(&self) -> Duration {
        if self.entry.lost().is_cancelled() {
            return Duration::ZERO;
        }
        self.entry.lost_at().since(clock::now())
    }

    /// Whether the holder may still act. Cheap: reads a clock, asks nobody.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Lost`] once the loss was signalled or its time has come.
    pub fn check(&self) -> Result<()> {
        if self.entry.is_good(clock::now()) {
            return Ok(());
        }
        let detail = "the lease was not renewed in time, or the hold was revoked; stop, and \
                      let the fence protect what was written";
        Err(self.handle.error(ErrorKind::Lost, "go on holding", detail).about(self.key()))
    }

    /// Resolves when the hold is lost: a grace before the deadline, while the process is scheduled.
    ///
    /// Cancel safe.
    pub async fn lost(&self) {
        self.entry.lost().cancelled().await;
    }

    /// A token that is cancelled when the hold is lost: for handing to tasks and libraries. It is
    /// not cancelled by a release.
    #[must_use]
    pub fn cancellation(&self) -> CancellationToken {
        self.entry.lost().clone()
    }

    /// Ends the hold, and says whether it was still ours.
    ///
    /// After an unknown outcome it asks again, until the deadline: the claim id tells whose the
    /// hold was.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future goes on releasing in the background, like dropping the guard.
    ///
    /// # Errors
    ///
    /// When the store did not answer until the deadline. The TTL then ends the hold, if the
    /// background release does not.
    pub async fn release(mut self) -> Result<Released> {
        let mut backoff = Backoff::new(RETRY, RETRY_CAP, random::seed()?);
        let mut doubtful = false;
        loop {
            let error = match self.handle.leave(&self.entry).await {
                Ok(left) => {
                    // An `enter` that was cut off may still arrive: dropping `self` leaves again.
                    self.done = !self.entry.is_suspect();
                    // Gone after a request whose answer was cut off: that request ended it, unless
                    // the store had ended it before or the lease could have lapsed meanwhile.
                    let unknown = doubtful && !self.entry.lost().is_cancelled();
                    let ours =
                        left == Left::Released || (unknown && clock::now() < self.entry.deadline());
                    return Ok(if ours { Released::Held } else { Released::Lost });
                }
                Err(error) => error,
            };
            doubtful |= error.effect() == Effect::Unknown;
            let pause = backoff.next_wait();
            if !error.is_transient() || clock::now() + pause >= self.entry.deadline() {
                return Err(error);
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// Changes the note that others read beside the holder's name, without letting go: at most 1024
    /// bytes, not secret.
    ///
    /// Asks again after an unknown outcome, until the deadline.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves it open which note stands; the hold is as it was.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`] when the text is too long or contains NUL, [`ErrorKind::Lost`] when
    /// the hold was lost, [`ErrorKind::Unsupported`] for a store that cannot amend a hold, and when
    /// the store cannot be reached: the old note or the new one then stands.
    pub async fn set_note(&self, text: &str) -> Result<()> {
        let attempt = "change the note of";
        let note = Note::new(text).map_err(|error| {
            self.handle.error(ErrorKind::Invalid, attempt, error.to_string()).about(self.key())
        })?;
        self.amend(attempt, note, self.units()).await
    }

    /// Lets readers in beside this writer, and goes on as one of them, without a gap in which
    /// another writer could come. The fence stays.
    ///
    /// Asks again after an unknown outcome, until the deadline. A guard that reads already, does.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves it open whether readers come in; the caller still holds, and may
    /// only rely on reading.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`] when this is not a guard of an [`RwLock`](crate::RwLock),
    /// [`ErrorKind::Lost`] when the hold was lost, and when the store cannot be reached: as when the
    /// future is dropped.
    pub async fn downgrade(&self) -> Result<()> {
        let attempt = "read on with";
        let claimed = Share::from(&self.entry.claim);
        // Of stored slots it would be a part, which has to stay what it is.
        if ![Share::READER, Share::WRITER].contains(&claimed) {
            let detail = "it is not held as one of readers and writers; there is nothing to share";
            return Err(self.handle.error(ErrorKind::Invalid, attempt, detail).about(self.key()));
        }
        let note = self.current_note();
        self.amend(attempt, note, Share::READER.units).await
    }

    async fn amend(&self, attempt: &'static str, note: Note, units: u32) -> Result<()> {
        // From now on, whatever the outcome: who asked for less may no longer rely on more.
        self.units.fetch_min(units, Ordering::AcqRel);
        let least = NonZeroU32::new(units).unwrap_or(NonZeroU32::MIN);
        let claim = self.entry.claim.amended(note.clone(), least);
        let store = self.handle.store();
        let amending = || store.amend(&self.entry.session, &claim);
        self.insist(attempt, amending).await?;
        *self.note() = note;
        Ok(())
    }

    /// Writes the record of the key, in the same step in which the store sees that we hold it.
    ///
    /// As cancel safe as [`Guard::set_note`].
    pub(crate) async fn write(&self, record: &Record) -> Result<Certainty> {
        let store = self.handle.store();
        let provided = Provided::Held(&self.entry.session, &self.entry.claim);
        // Twice is as good as once: nobody else writes while we hold.
        self.insist("write the record of", || store.write(self.key(), provided, record)).await
    }

    /// Asks for what the store does for a holder only, until it is certain or the deadline comes.
    async fn insist<'a>(
        &self,
        attempt: &'static str,
        request: impl Fn() -> BoxFuture<'a, Result<bool>>,
    ) -> Result<Certainty> {
        let mut backoff = Backoff::new(RETRY, RETRY_CAP, random::seed()?);
        let mut certainty = Certainty::Done;
        loop {
            self.check()?;
            let error = match self.handle.answered_soon(attempt, request()).await {
                Ok(true) => return Ok(certainty),
                Ok(false) => {
                    self.handle.lost(&self.entry);
                    self.check()?;
                    return Ok(certainty);
                }
                Err(error) => error,
            };
            if error.effect() == Effect::Unknown {
                certainty = Certainty::MayComeAgain;
            }
            let pause = backoff.next_wait();
            if !error.is_transient() || clock::now() + pause >= self.entry.lost_at() {
                return Err(error.about(self.key()));
            }
            tokio::time::sleep(pause).await;
        }
    }

    fn note(&self) -> MutexGuard<'_, Note> {
        // Nothing that can panic runs while it is held.
        self.note.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stops renewing without releasing: the hold lives to its TTL, and whoever has the grant can
    /// renew and release it from any process. Needs a client that was built
    /// [`detached`](crate::ClientBuilder::detached), or the hold ends with this process.
    #[must_use = "the grant is the only way left to release the hold"]
    pub fn detach(mut self) -> Grant {
        self.done = true;
        self.handle.detach(&self.entry);
        Grant::new(&self.entry, self.fence)
    }
}

const RETRY: Duration = Duration::from_millis(20);
const RETRY_CAP: Duration = Duration::from_millis(500);

impl Drop for Guard {
    fn drop(&mut self) {
        if !self.done {
            self.handle.leave_later(&self.entry);
        }
    }
}
