//! What a worker writes down, line by line, while it locks.

use std::fmt;
use std::str::FromStr;

use leasehold::{Fence, Moment, Released};
use leasehold_core::line::Share;

/// A line of a worker: one step of one of its turns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Step {
    /// Which turn: a number within the process.
    pub(crate) turn: u64,
    /// When: read before `what` was looked at or done, unless it says otherwise.
    pub(crate) at: Moment,
    pub(crate) what: What,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum What {
    /// It begins to ask for a share of a key.
    Want { share: Share, key: String },
    /// It was granted, and a check after `at` said that it may act, until the deadline.
    Held { fence: Fence, deadline: Moment },
    /// It was granted, and the first check said that the hold is lost already.
    Late { fence: Fence },
    /// A check after `at` said that it may act, until the deadline.
    Good { deadline: Moment },
    /// A check after `at` said that the hold is lost.
    Lost,
    /// It is about to release.
    Leaving,
    /// The release found, before `at`, that the hold was still ours, or not; `None`: no answer.
    Left { found: Option<Released> },
    /// It no longer wants it, and was not granted.
    GaveUp,
    /// The library gave an error where it should have gone on.
    Failed { why: String },
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} ", self.turn, self.at.as_nanos())?;
        match &self.what {
            What::Want { share, key } => write!(f, "want {} {} {key}", share.units, share.limit),
            What::Held { fence, deadline } => write!(f, "held {fence} {}", deadline.as_nanos()),
            What::Late { fence } => write!(f, "late {fence}"),
            What::Good { deadline } => write!(f, "good {}", deadline.as_nanos()),
            What::Lost => f.write_str("lost"),
            What::Leaving => f.write_str("leaving"),
            What::Left { found: Some(Released::Held) } => f.write_str("left held"),
            What::Left { found: Some(Released::Lost) } => f.write_str("left lost"),
            What::Left { found: None } => f.write_str("left unknown"),
            What::GaveUp => f.write_str("gave-up"),
            What::Failed { why } => write!(f, "failed {}", why.replace('\n', " ")),
        }
    }
}

impl FromStr for Step {
    type Err = String;

    fn from_str(line: &str) -> Result<Self, String> {
        Self::parse(line).ok_or_else(|| format!("not a line of a worker: {line:?}"))
    }
}

impl Step {
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.splitn(4, ' ');
        let mut word = || words.next();
        let (turn, at) = (word()?.parse().ok()?, moment(word()?)?);
        let (name, rest) = (word()?, word().unwrap_or_default());
        let pair = || rest.split_once(' ');
        let fence = |text: &str| text.parse().ok().map(Fence::new);
        let what = match name {
            "want" => {
                let (units, rest) = pair()?;
                let (limit, key) = rest.split_once(' ')?;
                let share = Share { units: units.parse().ok()?, limit: limit.parse().ok()? };
                What::Want { share, key: key.to_owned() }
            }
            "held" => What::Held { fence: fence(pair()?.0)?, deadline: moment(pair()?.1)? },
            "late" => What::Late { fence: fence(rest)? },
            "good" => What::Good { deadline: moment(rest)? },
            "lost" => What::Lost,
            "leaving" => What::Leaving,
            "left" => What::Left {
                found: match rest {
                    "held" => Some(Released::Held),
                    "lost" => Some(Released::Lost),
                    "unknown" => None,
                    _ => return None,
                },
            },
            "gave-up" => What::GaveUp,
            "failed" => What::Failed { why: rest.to_owned() },
            _ => return None,
        };
        Some(Self { turn, at, what })
    }
}

fn moment(text: &str) -> Option<Moment> {
    text.parse().ok().map(Moment::from_nanos)
}

/// A stretch of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) from: Moment,
    pub(crate) to: Moment,
}

impl Span {
    pub(crate) fn meets(self, other: Self) -> bool {
        self.from < other.to && other.from < self.to
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_read_as_it_was_written() {
        let (fence, deadline) = (Fence::new(7), Moment::from_nanos(99));
        for what in [
            What::Want { share: Share { units: 2, limit: 3 }, key: "a key".to_owned() },
            What::Held { fence, deadline },
            What::Late { fence },
            What::Good { deadline },
            What::Lost,
            What::Leaving,
            What::Left { found: Some(Released::Held) },
            What::Left { found: Some(Released::Lost) },
            What::Left { found: None },
            What::GaveUp,
            What::Failed { why: "a long story".to_owned() },
        ] {
            let step = Step { turn: 3, at: Moment::from_nanos(42), what };
            assert_eq!(step.to_string().parse(), Ok(step));
        }
        for wrong in ["", "1", "1 2", "1 2 sings", "1 2 held 3", "x 2 lost", "1 2 left it"] {
            wrong.parse::<Step>().unwrap_err();
        }
    }
}
