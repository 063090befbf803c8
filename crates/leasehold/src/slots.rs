//! So many at a time, where an operator says how many.

use leasehold_core::line::Share;
use leasehold_core::{Provided, Record};
use serde::{Deserialize, Serialize};

use crate::error::{ErrorKind, Result};
use crate::guard::Guard;
use crate::kept;
use crate::lock::Lock;
use crate::property::Property;

/// What the record is of.
const KIND: &str = "slots/1";
const ATTEMPT: &str = "set the number of slots of";

/// How often another's writing is let pass.
const TRIES: usize = 8;

/// A semaphore whose number of units is kept in the store, where an operator changes it while work
/// goes on: by [`Slots::set`], or `leasehold slots KEY N`.
///
/// Each holder has its part of the whole: one of three a third, and one of five a fifth after the
/// number was changed. The parts of all who hold never add up to more than the whole, so a change
/// needs no agreement: nobody who holds is cut off, and who comes after it goes by the new number.
/// Who waits already keeps the part that it asked for.
///
/// It costs one read more than a [`Semaphore`](crate::Semaphore), for which all callers have to
/// give the same number. Do not use both, or a lock of readers and writers, on one key.
///
/// ```
/// # leasehold::doc_test(async {
/// # let client = leasehold::Client::open("memory:")?;
/// let exports = client.slots("exports")?;
/// exports.set(2).await?; // once, by an operator
/// let one = exports.acquire().await?;
/// let two = exports.acquire().await?;
/// assert!(exports.try_acquire().await?.is_none());
/// exports.set(3).await?;
/// one.release().await?;
/// assert!(exports.try_acquire().await?.is_some()); // a third beside a half
/// # two.release().await?;
/// # Ok(()) });
/// ```
#[derive(Debug, Clone)]
pub struct Slots {
    whole: Lock,
}

#[derive(Serialize, Deserialize)]
struct Number {
    slots: u32,
}

/// `units` of `slots`, as a part of the whole.
const fn part(units: u32, slots: u32) -> Share {
    Share { units: Share::WRITER.units / slots * units, ..Share::WRITER }
}

impl Slots {
    /// The greatest number. With more, one too many would fit.
    pub const MAX: u32 = 65_535;

    pub(crate) fn new(key: &Lock) -> Result<Self> {
        let handle = key.handle();
        if !handle.store().guarantees().has(Property::Records) {
            let detail = "this store keeps no records, in which the number is remembered; use a \
                          semaphore with a number of its own";
            return Err(handle.error(ErrorKind::Unsupported, ATTEMPT, detail).about(key.key()));
        }
        Ok(Self { whole: key.sharing(Share::WRITER) })
    }

    /// How many there are; `None` if nobody has said.
    ///
    /// Cancel safe: it only reads.
    ///
    /// # Errors
    ///
    /// When the store cannot be reached or refuses, and [`ErrorKind::Corrupt`] when the key's record
    /// is of something else.
    pub async fn get(&self) -> Result<Option<u32>> {
        let (number, _) = kept::read::<Number>(self.whole.handle(), self.whole.key(), KIND).await?;
        Ok(number.map(|number| number.slots))
    }

    /// Says how many there are, for all who come from now on.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves it open whether that was said.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`] for none and for more than [`Slots::MAX`]; and as for [`Slots::get`].
    pub async fn set(&self, slots: u32) -> Result<()> {
        let (handle, key) = (self.whole.handle(), self.whole.key());
        let record = kept::record(KIND, &Number { slots }, Record::MAX_KEEP);
        let Some(record) = record.filter(|_| (1..=Self::MAX).contains(&slots)) else {
            let detail = format!("{slots} is not between 1 and {}", Self::MAX);
            return Err(handle.error(ErrorKind::Invalid, ATTEMPT, detail).about(key));
        };
        for _ in 0..TRIES {
            let (_, reading) = kept::read::<Number>(handle, key, KIND).await?;
            let version = reading.written.map(|written| written.version);
            let writing = handle.store().write(key, Provided::Unchanged(version), &record);
            let written = handle.answered(ATTEMPT, writing).await;
            if written.map_err(|error| error.about(key))? {
                return Ok(());
            }
        }
        let detail = "others change it all the time; try again";
        Err(handle.error(ErrorKind::Unavailable, ATTEMPT, detail).about(key))
    }

    /// `units` of as many as there are now: a lock with all ways to wait.
    ///
    /// Cancel safe: it only reads.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`] when nobody has said how many there are, for no units, and for more than
    /// there are; and as for [`Slots::get`].
    pub async fn units(&self, units: u32) -> Result<Lock> {
        let slots = self.get().await?;
        if let Some(slots) = slots.filter(|slots| (1..=*slots).contains(&units)) {
            return Ok(self.whole.sharing(part(units, slots)));
        }
        let detail = match slots {
            Some(slots) => {
                format!("{units} units are not between 1 and the {slots} that there are")
            }
            None => "nobody has said how many there are: `leasehold slots KEY N` does".to_owned(),
        };
        let error = self.whole.handle().error(ErrorKind::Invalid, "claim units of", detail);
        Err(error.about(self.whole.key()))
    }

    /// Waits for one unit, as [`Lock::lock`] does.
    ///
    /// # Cancel safety
    ///
    /// As for [`Lock::lock`].
    ///
    /// # Errors
    ///
    /// As for [`Slots::units`] and [`Lock::lock`].
    pub async fn acquire(&self) -> Result<Guard> {
        self.units(1).await?.lock().await
    }

    /// Takes one unit if it is free and nobody waits: [`Lock::try_lock`]. `None` else.
    ///
    /// # Cancel safety
    ///
    /// As for [`Lock::lock`].
    ///
    /// # Errors
    ///
    /// As for [`Slots::units`] and [`Lock::try_lock`].
    pub async fn try_acquire(&self) -> Result<Option<Guard>> {
        self.units(1).await?.try_lock().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_parts_fit_into_the_whole_and_not_one_more() {
        for slots in 1..=Slots::MAX {
            let one = u64::from(part(1, slots).units);
            assert!(one * u64::from(slots) <= u64::from(Share::WRITER.limit), "{slots}");
            assert!(one * u64::from(slots + 1) > u64::from(Share::WRITER.limit), "{slots}");
            assert_eq!(u64::from(part(slots, slots).units), one * u64::from(slots));
        }
    }
}
