//! So many at a time.

use leasehold_core::line::Share;

use crate::error::{ErrorKind, Result};
use crate::guard::Guard;
use crate::lock::Lock;

/// A key with a number of units, of which each holder has some, across all processes that use the
/// same store.
///
/// Fair: a claim of many units is not overtaken by later ones of few. All who use the key have to
/// give the same limit; who sees another one than those in line is refused with both numbers
/// ([`ErrorKind::Disagrees`]). To change it, let those with the old one finish first, or keep it in
/// the store from the beginning: [`Slots`](crate::Slots).
///
/// Fences are unique, but not ordered among holders that hold beside each other.
///
/// ```
/// # leasehold::doc_test(async {
/// # let client = leasehold::Client::open("memory:")?;
/// let exports = client.semaphore("exports", 3)?; // three at a time in the whole fleet
/// let one = exports.acquire().await?;
/// let two = exports.acquire_many(2).await?;
/// assert!(exports.try_acquire().await?.is_none());
/// two.release().await?;
/// one.release().await?;
/// # Ok(()) });
/// ```
#[derive(Debug, Clone)]
pub struct Semaphore {
    one: Lock,
}

impl Semaphore {
    /// The greatest limit. (One more stands for a lock of readers and writers.)
    pub const MAX_LIMIT: u32 = u32::MAX - 1;

    pub(crate) const fn new(one: Lock) -> Self {
        Self { one }
    }

    /// How many units there are in all.
    #[must_use]
    pub const fn limit(&self) -> u32 {
        self.one.share().limit
    }

    /// `units` of it: a lock with all ways to wait.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`] for no units, and for more than there are.
    pub fn units(&self, units: u32) -> Result<Lock> {
        let limit = self.limit();
        if (1..=limit).contains(&units) {
            return Ok(self.one.sharing(Share { units, limit }));
        }
        let detail = format!("{units} units are not between 1 and the limit of {limit}");
        let error = self.one.handle().error(ErrorKind::Invalid, "claim units of", detail);
        Err(error.about(self.one.key()))
    }

    /// Waits for one unit, as [`Lock::lock`] does.
    ///
    /// # Cancel safety
    ///
    /// As for [`Lock::lock`].
    ///
    /// # Errors
    ///
    /// As for [`Lock::lock`], and [`ErrorKind::Disagrees`].
    pub async fn acquire(&self) -> Result<Guard> {
        self.one.lock().await
    }

    /// Waits for `units` at once, as [`Lock::lock`] does.
    ///
    /// # Cancel safety
    ///
    /// As for [`Lock::lock`].
    ///
    /// # Errors
    ///
    /// As for [`Semaphore::units`] and [`Semaphore::acquire`].
    pub async fn acquire_many(&self, units: u32) -> Result<Guard> {
        self.units(units)?.lock().await
    }

    /// Takes one unit if it is free and nobody waits: [`Lock::try_lock`]. `None` else.
    ///
    /// # Cancel safety
    ///
    /// As for [`Lock::lock`].
    ///
    /// # Errors
    ///
    /// As for [`Lock::try_lock`], and [`ErrorKind::Disagrees`].
    pub async fn try_acquire(&self) -> Result<Option<Guard>> {
        self.one.try_lock().await
    }
}
