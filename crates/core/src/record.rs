//! A record: a few bytes that a store keeps for a key, beside its line. What jobs and limiters
//! remember.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::{Claim, SessionId};

/// Bytes to keep for a key, and for how long after they were written.
#[derive(Clone, PartialEq, Eq)]
pub struct Record {
    value: Arc<[u8]>,
    keep: Duration,
}

/// Why bytes do not make a [`Record`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// More than [`Record::MAX_BYTES`].
    #[error("a record has at most {max} bytes; this one has {len}", max = Record::MAX_BYTES)]
    TooLong {
        /// How many there are.
        len: usize,
    },
    /// Outside [`Record::MIN_KEEP`] to [`Record::MAX_KEEP`].
    #[error("a record is kept for {min:?} to {max:?}, not {keep:?}",
        min = Record::MIN_KEEP, max = Record::MAX_KEEP)]
    Keep {
        /// What was asked for.
        keep: Duration,
    },
}

impl Record {
    /// The size of the largest record.
    pub const MAX_BYTES: usize = 16 * 1024;
    /// The shortest time for which a record is kept.
    pub const MIN_KEEP: Duration = Duration::from_millis(100);
    /// The longest time for which a record is kept: about ten years.
    pub const MAX_KEEP: Duration = Duration::from_hours(24 * 3653);

    /// Checks the size and the time.
    ///
    /// # Errors
    ///
    /// When there are more than [`Record::MAX_BYTES`] bytes, and when `keep` is out of bounds.
    pub fn new(value: &[u8], keep: Duration) -> Result<Self, RecordError> {
        if value.len() > Self::MAX_BYTES {
            return Err(RecordError::TooLong { len: value.len() });
        }
        if !(Self::MIN_KEEP..=Self::MAX_KEEP).contains(&keep) {
            return Err(RecordError::Keep { keep });
        }
        Ok(Self { value: value.into(), keep })
    }

    /// The bytes.
    #[must_use]
    pub fn value(&self) -> &[u8] {
        &self.value
    }

    /// How long after it was written the store keeps it, at least.
    #[must_use]
    pub const fn keep(&self) -> Duration {
        self.keep
    }
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The bytes are the caller's, and may be anything.
        write!(f, "Record({} bytes, kept for {:?})", self.value.len(), self.keep)
    }
}

/// The name of one writing of a key's record: never used twice for a key, also after the record
/// expired. Greater for a later writing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Version(u64);

impl Version {
    /// Wraps a number that a store counted.
    #[must_use]
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

/// What a store answers to a reader.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reading {
    /// The record as it stands; `None` if there is none (any more).
    pub written: Option<Written>,
    /// The time since 1970 by the store's own clock, read when the request was handled; `None`
    /// where the store has no clock.
    pub at: Option<Duration>,
}

/// A record as it stands in a store.
#[derive(Clone, PartialEq, Eq)]
pub struct Written {
    /// The bytes.
    pub value: Arc<[u8]>,
    /// The name of this writing.
    pub version: Version,
}

impl fmt::Debug for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Written({} bytes, {:?})", self.value.len(), self.version)
    }
}

/// What has to be true for a record to be written.
#[derive(Debug, Clone, Copy)]
pub enum Provided<'a> {
    /// The record is still the one of this version; with `None`, there is none.
    Unchanged(Option<Version>),
    /// The claim of this session holds the key.
    Held(&'a SessionId, &'a Claim),
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_hours(24);

    #[test]
    fn a_record_is_bounded_in_size_and_time() {
        let largest = vec![7; Record::MAX_BYTES];
        assert_eq!(Record::new(&largest, DAY).unwrap().value(), largest);
        let larger = vec![7; Record::MAX_BYTES + 1];
        assert_eq!(
            Record::new(&larger, DAY),
            Err(RecordError::TooLong { len: Record::MAX_BYTES + 1 })
        );
        for keep in [Duration::ZERO, Duration::from_millis(99), Record::MAX_KEEP + DAY] {
            assert_eq!(Record::new(b"", keep), Err(RecordError::Keep { keep }));
        }
        assert_eq!(Record::new(b"", Record::MAX_KEEP).unwrap().keep(), Record::MAX_KEEP);
    }

    #[test]
    fn debug_shows_no_bytes() {
        let record = Record::new(b"secret", DAY).unwrap();
        let written = Written { value: record.value.clone(), version: Version::new(3) };
        let shown = format!("{record:?} {written:?}");
        assert!(!shown.contains("secret") && !shown.contains("115"), "{shown}");
    }
}
