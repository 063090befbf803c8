//! Many readers, or one writer.

use leasehold_core::line::Share;

use crate::error::Result;
use crate::guard::Guard;
use crate::lock::Lock;

/// A key that many readers hold at a time, or one writer, across all processes that use the same
/// store.
///
/// Fair: readers and writers stand in one line, so a writer that waits is not overtaken by readers
/// that come later. A writer becomes a reader without a gap by [`Guard::downgrade`]; the other way
/// there is none, because two readers that both want to write would wait for each other: release,
/// and write.
///
/// A mutex on the same key ([`Client::mutex`](crate::Client::mutex)) is a writer that never reads.
///
/// A writer's fence is greater than that of every reader and writer before it.
///
/// ```
/// # leasehold::doc_test(async {
/// # let client = leasehold::Client::open("memory:")?;
/// let catalogue = client.rwlock("catalogue")?;
/// let [one, two] = [catalogue.read().await?, catalogue.read().await?]; // beside each other
/// assert!(catalogue.try_write().await?.is_none());
/// one.release().await?;
/// two.release().await?;
///
/// let guard = catalogue.write().await?; // alone
/// guard.downgrade().await?; // lets readers in, and nobody in between
/// assert!(catalogue.try_read().await?.is_some());
/// # Ok(()) });
/// ```
#[derive(Debug, Clone)]
pub struct RwLock {
    reader: Lock,
    writer: Lock,
}

impl RwLock {
    pub(crate) fn new(reader: Lock) -> Self {
        let writer = reader.sharing(Share::WRITER);
        Self { reader, writer }
    }

    /// The reader's side: a lock with all ways to wait.
    #[must_use]
    pub const fn reader(&self) -> &Lock {
        &self.reader
    }

    /// The writer's side: a lock with all ways to wait.
    #[must_use]
    pub const fn writer(&self) -> &Lock {
        &self.writer
    }

    /// Waits until it may read, as [`Lock::lock`] does.
    ///
    /// # Cancel safety
    ///
    /// As for [`Lock::lock`].
    ///
    /// # Errors
    ///
    /// As for [`Lock::lock`].
    pub async fn read(&self) -> Result<Guard> {
        self.reader.lock().await
    }

    /// Waits until it may write, as [`Lock::lock`] does.
    ///
    /// # Cancel safety
    ///
    /// As for [`Lock::lock`].
    ///
    /// # Errors
    ///
    /// As for [`Lock::lock`].
    pub async fn write(&self) -> Result<Guard> {
        self.writer.lock().await
    }

    /// Reads if nobody writes or waits to write: [`Lock::try_lock`]. `None` else.
    ///
    /// # Cancel safety
    ///
    /// As for [`Lock::lock`].
    ///
    /// # Errors
    ///
    /// As for [`Lock::try_lock`].
    pub async fn try_read(&self) -> Result<Option<Guard>> {
        self.reader.try_lock().await
    }

    /// Writes if nobody reads or writes: [`Lock::try_lock`]. `None` else.
    ///
    /// # Cancel safety
    ///
    /// As for [`Lock::lock`].
    ///
    /// # Errors
    ///
    /// As for [`Lock::try_lock`].
    pub async fn try_write(&self) -> Result<Option<Guard>> {
        self.writer.try_lock().await
    }
}
