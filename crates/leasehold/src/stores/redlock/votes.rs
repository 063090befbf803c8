//! What each server said when no majority could be had.

use std::fmt;
use std::time::Duration;

use crate::stores::redis::failure::Failure;

/// How one server answered.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Vote {
    /// It did what it was asked, or had the claim's token.
    Granted,
    /// Another's token is there, or the claim's is not.
    Denied,
    /// It could not be asked, or refused: why.
    Failed(String),
    /// It had not answered after this time.
    Silent(Duration),
}

/// How every server answered: the [`source`](std::error::Error::source) of an error of the store
/// when too few did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Votes(Vec<(String, Vote)>);

impl Votes {
    pub(super) fn new(each: impl IntoIterator<Item = (String, Vote)>) -> Self {
        Self(each.into_iter().collect())
    }

    /// Each server by its address, and its vote.
    #[must_use]
    pub fn each(&self) -> impl ExactSizeIterator<Item = (&str, &Vote)> {
        self.0.iter().map(|(server, vote)| (server.as_str(), vote))
    }

    /// How many answered, whatever they said.
    #[must_use]
    pub fn answered(&self) -> usize {
        self.0.iter().filter(|(_, vote)| matches!(vote, Vote::Granted | Vote::Denied)).count()
    }
}

impl From<&Failure> for Vote {
    fn from(failure: &Failure) -> Self {
        Self::Failed(failure.describe())
    }
}

impl fmt::Display for Vote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Granted => f.write_str("granted"),
            Self::Denied => f.write_str("denied"),
            Self::Failed(why) => write!(f, "failed ({why})"),
            Self::Silent(patience) => write!(f, "silent for {patience:.0?}"),
        }
    }
}

impl fmt::Display for Votes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (server, vote)) in self.0.iter().enumerate() {
            write!(f, "{}{server} {vote}", if index == 0 { "" } else { "; " })?;
        }
        Ok(())
    }
}

impl std::error::Error for Votes {}
