//! The blocking twins of what many have a share of.

use std::sync::Arc;

use super::{Guard, Lock, Runtime};
use crate::error::Result;

/// The blocking twin of [`crate::RwLock`].
#[derive(Debug, Clone)]
pub struct RwLock {
    reader: Lock,
    writer: Lock,
}

/// The blocking twin of [`crate::Semaphore`].
#[derive(Debug, Clone)]
pub struct Semaphore {
    semaphore: crate::Semaphore,
    runtime: Arc<Runtime>,
}

impl RwLock {
    pub(super) fn new(lock: &crate::RwLock, runtime: &Arc<Runtime>) -> Self {
        let [reader, writer] =
            [lock.reader(), lock.writer()].map(|lock| Lock::new(lock.clone(), runtime));
        Self { reader, writer }
    }

    /// As [`crate::RwLock::reader`].
    #[must_use]
    pub const fn reader(&self) -> &Lock {
        &self.reader
    }

    /// As [`crate::RwLock::writer`].
    #[must_use]
    pub const fn writer(&self) -> &Lock {
        &self.writer
    }

    /// As [`crate::RwLock::read`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn read(&self) -> Result<Guard> {
        self.reader.lock()
    }

    /// As [`crate::RwLock::write`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn write(&self) -> Result<Guard> {
        self.writer.lock()
    }

    /// As [`crate::RwLock::try_read`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn try_read(&self) -> Result<Option<Guard>> {
        self.reader.try_lock()
    }

    /// As [`crate::RwLock::try_write`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn try_write(&self) -> Result<Option<Guard>> {
        self.writer.try_lock()
    }
}

impl Semaphore {
    pub(super) fn new(semaphore: crate::Semaphore, runtime: &Arc<Runtime>) -> Self {
        Self { semaphore, runtime: Arc::clone(runtime) }
    }

    /// As [`crate::Semaphore::limit`].
    #[must_use]
    pub const fn limit(&self) -> u32 {
        self.semaphore.limit()
    }

    /// As [`crate::Semaphore::units`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn units(&self, units: u32) -> Result<Lock> {
        Ok(Lock::new(self.semaphore.units(units)?, &self.runtime))
    }

    /// As [`crate::Semaphore::acquire`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn acquire(&self) -> Result<Guard> {
        self.acquire_many(1)
    }

    /// As [`crate::Semaphore::acquire_many`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn acquire_many(&self, units: u32) -> Result<Guard> {
        self.units(units)?.lock()
    }

    /// As [`crate::Semaphore::try_acquire`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn try_acquire(&self) -> Result<Option<Guard>> {
        self.units(1)?.try_lock()
    }
}

/// The blocking twin of [`crate::Slots`].
#[derive(Debug, Clone)]
pub struct Slots {
    slots: crate::Slots,
    runtime: Arc<Runtime>,
}

impl Slots {
    pub(super) fn new(slots: crate::Slots, runtime: &Arc<Runtime>) -> Self {
        Self { slots, runtime: Arc::clone(runtime) }
    }

    /// As [`crate::Slots::get`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn get(&self) -> Result<Option<u32>> {
        self.runtime.wait(self.slots.get())
    }

    /// As [`crate::Slots::set`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn set(&self, slots: u32) -> Result<()> {
        self.runtime.wait(self.slots.set(slots))
    }

    /// As [`crate::Slots::units`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn units(&self, units: u32) -> Result<Lock> {
        Ok(Lock::new(self.runtime.wait(self.slots.units(units))?, &self.runtime))
    }

    /// As [`crate::Slots::acquire`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn acquire(&self) -> Result<Guard> {
        self.units(1)?.lock()
    }

    /// As [`crate::Slots::try_acquire`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn try_acquire(&self) -> Result<Option<Guard>> {
        self.units(1)?.try_lock()
    }
}
