//! The number that tells a later grant from an earlier one.

use std::fmt;
use std::str::FromStr;

/// A fencing token: for one key, strictly greater for each later grant.
///
/// Hand it to whatever the lock protects, and let that refuse any number smaller than the greatest
/// it has seen: a holder that was paused past its lease and did not notice then does no harm.
///
/// Fences of different keys, and of different stores, are not comparable.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fence(u64);

impl Fence {
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

    /// Whether a resource that has seen `greatest` accepts a write under this fence: not if it is
    /// smaller. An equal one is the same holder, which writes again. Afterwards the greatest is
    /// this one.
    ///
    /// Checking, taking note of the new greatest and the write itself have to be one atomic step.
    ///
    /// # Errors
    ///
    /// [`StaleFence`] when it is smaller.
    pub fn check(self, resource: &str, greatest: Option<Self>) -> Result<(), StaleFence> {
        match greatest {
            Some(greatest) if self < greatest => {
                Err(StaleFence { resource: resource.to_owned(), token: self, greatest })
            }
            _ => Ok(()),
        }
    }
}

/// A write that came too late: the resource has seen a greater fence, so the writer's hold was lost
/// and another has written since.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StaleFence {
    /// What was to be written, by the name that its fences are kept under.
    pub resource: String,
    /// The fence that was refused.
    pub token: Fence,
    /// The greatest that the resource has seen.
    pub greatest: Fence,
}

impl StaleFence {
    /// Reads what the resources that cannot return a type say: a text that contains
    /// `token N, greatest M`. `None` for any other.
    #[must_use]
    pub fn parse(resource: &str, text: &str) -> Option<Self> {
        let (_, rest) = text.split_once("token ")?;
        let (token, rest) = rest.split_once(", greatest ")?;
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (token, greatest) = (token.parse().ok()?, rest[..end].parse().ok()?);
        Some(Self { resource: resource.to_owned(), token, greatest })
    }
}

impl fmt::Display for StaleFence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { resource, token, greatest } = self;
        // `{:?}` escapes control characters: a hostile name must not write to a terminal.
        write!(f, "{resource:?} refuses fence {token}: it has seen {greatest}")
    }
}

impl std::error::Error for StaleFence {}

/// A text that is no fence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FenceError;

impl fmt::Display for FenceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let most = u64::MAX;
        write!(
            f,
            "a fence is a decimal number from 0 to {most}, without sign, spaces or zeros ahead"
        )
    }
}

impl std::error::Error for FenceError {}

/// Reads what `Display` wrote, and nothing else: one number has one text, so that those who can
/// only compare texts may.
impl FromStr for Fence {
    type Err = FenceError;

    fn from_str(text: &str) -> Result<Self, FenceError> {
        let plain = text.bytes().all(|byte| byte.is_ascii_digit())
            && (text.len() == 1 || !text.starts_with('0'));
        if plain { text.parse().map(Self).map_err(|_| FenceError) } else { Err(FenceError) }
    }
}

impl From<Fence> for u64 {
    fn from(fence: Fence) -> Self {
        fence.0
    }
}

impl fmt::Display for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fence({})", self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn smaller_is_refused_and_equal_is_the_same_holder() {
        let [old, new] = [33, 34].map(Fence::new);
        assert_eq!(old.check("r", None), Ok(()));
        assert_eq!(new.check("r", Some(old)), Ok(()));
        assert_eq!(new.check("r", Some(new)), Ok(()));
        let stale = old.check("jobs\n42", Some(new)).unwrap_err();
        assert_eq!(stale.to_string(), r#""jobs\n42" refuses fence 33: it has seen 34"#);
    }

    #[test]
    fn a_refusal_is_read_from_the_text_of_a_resource() {
        let read = StaleFence::parse("r", "ERROR: stale fence: token 33, greatest 34 (script)");
        let [token, greatest] = [33, 34].map(Fence::new);
        assert_eq!(read, Some(StaleFence { resource: "r".into(), token, greatest }));
        for other in ["", "token", "token 3, greatest x", "token -3, greatest 4", "READONLY"] {
            assert_eq!(StaleFence::parse("r", other), None, "{other}");
        }
    }

    #[test]
    fn what_is_no_plain_number_is_no_fence() {
        for bad in ["", " 1", "1 ", "+1", "-1", "01", "00", "1.0", "0x1", "\u{661}", "1,1"] {
            assert_eq!(bad.parse::<Fence>(), Err(FenceError), "{bad:?}");
        }
        assert_eq!("18446744073709551616".parse::<Fence>(), Err(FenceError));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(number: u64) {
            let fence = Fence::new(number);
            prop_assert_eq!(fence.to_string().parse(), Ok(fence));
        }

        #[test]
        fn what_is_accepted_never_decreases(tokens in proptest::collection::vec(0_u64..9, 1..40)) {
            let mut greatest = None;
            for token in tokens.into_iter().map(Fence::new) {
                match token.check("r", greatest) {
                    Ok(()) => {
                        prop_assert!(greatest.is_none_or(|before| token >= before));
                        greatest = Some(token);
                    }
                    Err(stale) => prop_assert!(Some(stale.greatest) == greatest && token < stale.greatest),
                }
            }
        }
    }
}
