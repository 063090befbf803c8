//! One request for units of a key, and the names it goes by.

use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;

use crate::Key;

/// The name of a claim: 128 random bits, chosen by the client before the first request, so that
/// every operation can be asked again without doing it twice.
///
/// It is also the token that the store compares on release, so whoever knows it can release the
/// hold: `Debug` does not show it. It is never used again after a lapse.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClaimId([u8; 16]);

impl ClaimId {
    /// An id of 16 bytes, which must come from the operating system's random source.
    #[must_use]
    pub const fn from_random(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The 16 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// The id as 32 lower-case hexadecimal digits: how stores that hold text keep it.
    #[must_use]
    pub fn to_hex(&self) -> String {
        use std::fmt::Write as _;
        self.0.iter().fold(String::with_capacity(32), |mut text, byte| {
            // Writing to a `String` cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
    }

    /// Reads what [`ClaimId::to_hex`] wrote; `None` for anything else.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Self> {
        let digits = text.as_bytes();
        if digits.len() != 32 {
            return None;
        }
        let mut bytes = [0; 16];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = hex_digit(pair[0])? << 4 | hex_digit(pair[1])?;
        }
        Some(Self(bytes))
    }
}

fn hex_digit(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

impl fmt::Debug for ClaimId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClaimId(..)")
    }
}

/// The name of a session, as its store chose it. Whoever knows it can end the session, so `Debug`
/// does not show it.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(Arc<str>);

impl SessionId {
    /// Wraps the name that a store gave.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self(name.into())
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionId(..)")
    }
}

/// A short text that a holder attaches to its claim for others to read (who, why, an address):
/// at most 1024 bytes of UTF-8 without NUL. It is not secret: `inspect` shows it to everyone who
/// can reach the store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Note(Arc<str>);

impl Note {
    /// The length of the longest note, in bytes.
    pub const MAX_BYTES: usize = 1024;

    /// Checks `text` and makes it a note.
    ///
    /// # Errors
    ///
    /// When `text` is longer than [`Note::MAX_BYTES`] or contains NUL.
    pub fn new(text: &str) -> Result<Self, ClaimError> {
        if text.len() > Self::MAX_BYTES {
            return Err(ClaimError::NoteTooLong { len: text.len() });
        }
        if text.contains('\0') {
            return Err(ClaimError::NoteNul);
        }
        Ok(Self(text.into()))
    }

    /// The note as text; empty when there is none.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Why a claim cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ClaimError {
    /// The note is longer than [`Note::MAX_BYTES`].
    #[error("a note has at most {max} bytes; this one has {len}", max = Note::MAX_BYTES)]
    NoteTooLong {
        /// Length of the text, in bytes.
        len: usize,
    },
    /// The note contains NUL.
    #[error("a note contains no NUL character")]
    NoteNul,
    /// More units than the limit can never be granted.
    #[error("a claim of {units} units can never fit within a limit of {limit}")]
    NeverFits {
        /// Units asked for.
        units: u32,
        /// Limit of the key, as the claim states it.
        limit: u32,
    },
}

/// One request for `units` out of `limit` of a key. A mutex is 1 of 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Its name, and the token that releases it.
    pub id: ClaimId,
    /// What is claimed.
    pub key: Key,
    /// How many units, at least 1 and at most `limit`.
    units: NonZeroU32,
    /// How many units the key has in all, as this claim sees it.
    limit: NonZeroU32,
    /// What the holder wants others to read.
    pub note: Note,
}

impl Claim {
    /// A claim of 1 unit out of 1: what a mutex makes.
    #[must_use]
    pub const fn exclusive(id: ClaimId, key: Key, note: Note) -> Self {
        Self { id, key, units: NonZeroU32::MIN, limit: NonZeroU32::MIN, note }
    }

    /// A claim of `units` out of `limit`.
    ///
    /// # Errors
    ///
    /// When `units` exceeds `limit`: such a claim would wait for ever.
    pub fn counting(
        id: ClaimId,
        key: Key,
        note: Note,
        units: NonZeroU32,
        limit: NonZeroU32,
    ) -> Result<Self, ClaimError> {
        if units > limit {
            return Err(ClaimError::NeverFits { units: units.get(), limit: limit.get() });
        }
        Ok(Self { id, key, units, limit, note })
    }

    /// How many units it asks for: from 1 to [`Claim::limit`].
    #[must_use]
    pub const fn units(&self) -> u32 {
        self.units.get()
    }

    /// How many units the key has in all, as this claim sees it: at least 1.
    #[must_use]
    pub const fn limit(&self) -> u32 {
        self.limit.get()
    }

    /// The same claim with another note, and with fewer units: what [`Store::amend`] makes of a
    /// hold. More units than it has are ignored: nobody makes room for them.
    ///
    /// [`Store::amend`]: https://docs.rs/leasehold/latest/leasehold/trait.Store.html#tymethod.amend
    #[must_use]
    pub fn amended(&self, note: Note, units: NonZeroU32) -> Self {
        Self { note, units: self.units.min(units), ..self.clone() }
    }

    /// Whether nobody else can hold beside it.
    #[must_use]
    pub fn is_exclusive(&self) -> bool {
        self.units == self.limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_round_trips_and_rejects_the_rest() {
        let id =
            ClaimId::from_random([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 0x7f, 0x80, 0xab, 0xfe, 255]);
        assert_eq!(id.to_hex(), "000102030405060708090a7f80abfeff");
        assert_eq!(ClaimId::from_hex(&id.to_hex()), Some(id));
        for bad in
            ["", "00", "000102030405060708090A7F80ABFEFF", "g00102030405060708090a7f80abfeff"]
        {
            assert_eq!(ClaimId::from_hex(bad), None, "{bad}");
        }
    }

    #[test]
    fn debug_shows_no_token() {
        let claim = Claim::exclusive(
            ClaimId::from_random([0xab; 16]),
            Key::new("k").unwrap(),
            Note::default(),
        );
        let shown = format!("{claim:?} {:?}", SessionId::new("abab-session"));
        assert!(!shown.contains("abab"), "{shown}");
    }

    #[test]
    fn a_claim_that_never_fits_is_refused() {
        let two = NonZeroU32::new(2).unwrap();
        let claim = Claim::counting(
            ClaimId::from_random([1; 16]),
            Key::new("k").unwrap(),
            Note::default(),
            two,
            NonZeroU32::MIN,
        );
        assert_eq!(claim, Err(ClaimError::NeverFits { units: 2, limit: 1 }));
    }
}
