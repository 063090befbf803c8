//! What is locked.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// The name of what is locked: 1 to 512 bytes of UTF-8, any character but NUL.
///
/// Two different keys never meet in a store: every store maps keys to its own names injectively.
/// A store may refuse the few keys that it uses itself (Redis: those that begin with
/// `leasehold:{`).
/// Cloning is cheap.
///
/// ```
/// use leasehold_core::Key;
/// let key: Key = "jobs/42".parse()?;
/// assert_eq!(key.as_str(), "jobs/42");
/// assert!("".parse::<Key>().is_err());
/// # Ok::<(), leasehold_core::KeyError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(Arc<str>);

/// Why a text is not a [`Key`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The text is empty.
    #[error("a key has at least 1 byte; this one is empty")]
    Empty,
    /// The text is longer than [`Key::MAX_BYTES`].
    #[error("a key has at most {max} bytes; this one has {len}", max = Key::MAX_BYTES)]
    TooLong {
        /// Length of the text, in bytes.
        len: usize,
    },
    /// The text contains a NUL character.
    #[error("a key contains no NUL character; this one has one at byte {at}")]
    Nul {
        /// Position of the first NUL, in bytes.
        at: usize,
    },
}

impl Key {
    /// The length of the longest key, in bytes.
    pub const MAX_BYTES: usize = 512;

    /// Checks `text` and makes it a key.
    ///
    /// # Errors
    ///
    /// When `text` is empty, longer than [`Key::MAX_BYTES`], or contains NUL.
    pub fn new(text: &str) -> Result<Self, KeyError> {
        if text.is_empty() {
            return Err(KeyError::Empty);
        }
        if text.len() > Self::MAX_BYTES {
            return Err(KeyError::TooLong { len: text.len() });
        }
        if let Some(at) = text.bytes().position(|byte| byte == 0) {
            return Err(KeyError::Nul { at });
        }
        Ok(Self(text.into()))
    }

    /// The key as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Key {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        Self::new(text)
    }
}

impl TryFrom<&str> for Key {
    type Error = KeyError;

    fn try_from(text: &str) -> Result<Self, KeyError> {
        Self::new(text)
    }
}

impl TryFrom<String> for Key {
    type Error = KeyError;

    fn try_from(text: String) -> Result<Self, KeyError> {
        Self::new(&text)
    }
}

impl AsRef<str> for Key {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

/// The key as it is. Printing to a terminal is the program's matter: a key may contain control
/// characters, and `{:?}` escapes them.
impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_exact() {
        assert_eq!(Key::new(""), Err(KeyError::Empty));
        assert!(Key::new(&"k".repeat(512)).is_ok());
        assert_eq!(Key::new(&"k".repeat(513)), Err(KeyError::TooLong { len: 513 }));
        assert_eq!(Key::new("a\0b"), Err(KeyError::Nul { at: 1 }));
        // 171 three-byte characters are 513 bytes: the bound counts bytes, not characters.
        assert_eq!(Key::new(&"鍵".repeat(171)), Err(KeyError::TooLong { len: 513 }));
    }

    #[test]
    fn any_other_character_is_allowed() {
        for text in [" ", "\n", "a}b", "{}x", "{u}:1", "../etc", "*?[", "👩‍🔧", "\u{feff}"] {
            assert_eq!(Key::new(text).unwrap().as_str(), text);
        }
    }
}
