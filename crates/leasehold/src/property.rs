//! What a caller may demand of a store, in a form that programs can compare.

use std::fmt;
use std::ops::{BitOr, Sub};
use std::str::FromStr;

use crate::error::{Error, ErrorKind, Result};

/// Something that a store does or keeps, or not. The tests that show it are named, store by store,
/// in `crates/contract/tests/guarantees.rs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Property {
    /// Excludes between the processes of a machine.
    Processes,
    /// Excludes between machines.
    Machines,
    /// Excludes, both ways, those who lock the same key by the recipes of the store's ecosystem.
    ForeignClients,
    /// First come, first served. Without a line, who comes next is chance.
    Line,
    /// The next in line is told when its turn comes. Without it, waiters ask again and again.
    Wakes,
    /// Limits above 1 (semaphores, readers beside readers), and holds that can be amended.
    Counting,
    /// Keeps records: what elections, jobs and limiters remember.
    Records,
    /// The hold of a process that was killed is free at once, and not only after its TTL. Not so a
    /// detached one, which is to outlive its process.
    FreesAtOnce,
    /// A crash of the store's processes forgets no grant.
    SurvivesCrash,
    /// Neither does a loss of power, as long as the disks keep what they were told to: a grant is
    /// synced before it is answered.
    SurvivesPowerLoss,
    /// Neither does the loss of fewer than half of the servers, the leader among them.
    SurvivesMemberLoss,
    /// Neither a grant nor a renewal that was acknowledged is forgotten when another server takes
    /// over, also from one that still answers and does not know it yet.
    SurvivesFailover,
    /// Fences go on growing through a crash and a loss of power.
    FencesSurviveCrash,
    /// Fences go on growing when all data are deleted or restored from a backup, as long as the
    /// store's clock is not set back as well.
    FencesSurviveDataLoss,
    /// Fences go on growing when another server takes over, whatever it has forgotten: where they
    /// come from a clock, as long as that server's is not behind by more than the failover took.
    FencesSurviveFailover,
}

impl Property {
    /// All of them.
    pub const ALL: [Self; 15] = [
        Self::Processes,
        Self::Machines,
        Self::ForeignClients,
        Self::Line,
        Self::Wakes,
        Self::Counting,
        Self::Records,
        Self::FreesAtOnce,
        Self::SurvivesCrash,
        Self::SurvivesPowerLoss,
        Self::SurvivesMemberLoss,
        Self::SurvivesFailover,
        Self::FencesSurviveCrash,
        Self::FencesSurviveDataLoss,
        Self::FencesSurviveFailover,
    ];

    /// Its name for programs and settings: lower case with hyphens, such as `survives-failover`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Processes => "processes",
            Self::Machines => "machines",
            Self::ForeignClients => "foreign-clients",
            Self::Line => "line",
            Self::Wakes => "wakes",
            Self::Counting => "counting",
            Self::Records => "records",
            Self::FreesAtOnce => "frees-at-once",
            Self::SurvivesCrash => "survives-crash",
            Self::SurvivesPowerLoss => "survives-power-loss",
            Self::SurvivesMemberLoss => "survives-member-loss",
            Self::SurvivesFailover => "survives-failover",
            Self::FencesSurviveCrash => "fences-survive-crash",
            Self::FencesSurviveDataLoss => "fences-survive-data-loss",
            Self::FencesSurviveFailover => "fences-survive-failover",
        }
    }

    /// What it means, in a few words for a table.
    #[must_use]
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Processes => "excludes between processes",
            Self::Machines => "excludes between machines",
            Self::ForeignClients => "excludes the ecosystem's own recipes, both ways",
            Self::Line => "first come, first served",
            Self::Wakes => "the next in line is told, and does not poll",
            Self::Counting => "semaphores, readers beside readers",
            Self::Records => "keeps what elections and limiters remember",
            Self::FreesAtOnce => "a killed process's hold is free at once",
            Self::SurvivesCrash => "a crash of the store forgets no grant",
            Self::SurvivesPowerLoss => "nor does a loss of power",
            Self::SurvivesMemberLoss => "nor does the loss of a minority of servers",
            Self::SurvivesFailover => "nor does a failover, not even a renewal",
            Self::FencesSurviveCrash => "fences grow through a crash",
            Self::FencesSurviveDataLoss => "fences grow though all data are lost",
            Self::FencesSurviveFailover => "fences grow through a failover",
        }
    }

    const fn bit(self) -> u32 {
        1 << self as u32
    }
}

impl fmt::Display for Property {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Property {
    type Err = Error;

    /// Reads a name; the error names all that there are.
    fn from_str(text: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|property| property.as_str() == text).ok_or_else(|| {
            let all = Self::ALL.map(Self::as_str).join(", ");
            let detail = format!("{text:?} is no property of a store; there are: {all}");
            Error::new(ErrorKind::Invalid, "read what is demanded of the store", detail)
        })
    }
}

/// A set of properties: what a store has, or what a caller demands.
///
/// ```
/// use leasehold::{Properties, Property};
/// let demand: Properties = "line,survives-crash".parse()?;
/// assert_eq!(demand, Property::Line | Property::SurvivesCrash);
/// assert_eq!((demand - Property::Line.into()).to_string(), "survives-crash");
/// # Ok::<(), leasehold::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Properties(u32);

impl Properties {
    /// None.
    pub const NONE: Self = Self(0);

    /// These.
    #[must_use]
    pub const fn of(properties: &[Property]) -> Self {
        let (mut set, mut at) = (0, 0);
        // A `for` is not allowed in a constant.
        while at < properties.len() {
            set |= properties[at].bit();
            at += 1;
        }
        Self(set)
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether `property` is one of them.
    #[must_use]
    pub const fn contains(self, property: Property) -> bool {
        self.0 & property.bit() != 0
    }

    /// Each of them, in the order of [`Property::ALL`].
    pub fn iter(self) -> impl Iterator<Item = Property> {
        Property::ALL.into_iter().filter(move |property| self.contains(*property))
    }
}

impl From<Property> for Properties {
    fn from(property: Property) -> Self {
        Self(property.bit())
    }
}

impl<const N: usize> From<[Property; N]> for Properties {
    fn from(properties: [Property; N]) -> Self {
        Self::of(&properties)
    }
}

impl FromIterator<Property> for Properties {
    fn from_iter<I: IntoIterator<Item = Property>>(properties: I) -> Self {
        properties.into_iter().fold(Self::NONE, |set, property| set | property)
    }
}

impl<P: Into<Self>> BitOr<P> for Properties {
    type Output = Self;

    fn bitor(self, other: P) -> Self {
        Self(self.0 | other.into().0)
    }
}

impl<P: Into<Properties>> BitOr<P> for Property {
    type Output = Properties;

    fn bitor(self, other: P) -> Properties {
        Properties::from(self) | other
    }
}

/// Those without the other ones.
impl Sub for Properties {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

/// Their names, with a comma and a space between them.
impl fmt::Display for Properties {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, property) in self.iter().enumerate() {
            let comma = if number == 0 { "" } else { ", " };
            write!(f, "{comma}{property}")?;
        }
        Ok(())
    }
}

impl FromStr for Properties {
    type Err = Error;

    /// Reads names with commas between them; spaces do not matter.
    fn from_str(text: &str) -> Result<Self> {
        let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
        names.map(str::parse).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        for property in Property::ALL {
            assert_eq!(property.to_string().parse::<Property>().unwrap(), property);
        }
        let all: Properties = Property::ALL.into_iter().collect();
        assert_eq!(all.to_string().parse::<Properties>().unwrap(), all);
        assert_eq!(all.iter().count(), Property::ALL.len(), "each has a bit of its own");
        assert_eq!(" line ,,".parse::<Properties>().unwrap(), Property::Line.into());
        let error = "line,fast".parse::<Properties>().unwrap_err().to_string();
        assert!(error.contains("\"fast\"") && error.contains("survives-failover"), "{error}");
    }

    #[test]
    fn what_is_missing_is_the_difference() {
        let has = Property::Line | Property::Counting;
        let wanted = Properties::from([Property::Wakes, Property::Line]);
        assert_eq!(wanted - has, Property::Wakes.into());
        assert!((has - has).is_empty() && has.contains(Property::Counting));
    }
}
