//! Rates: how many permits may be given, and how a process takes them in batches.
//!
//! [`Meter`] is the generic cell rate algorithm (GCRA, ITU-T I.371) in integers: what a fleet
//! shares. [`Batch`] is what one process has taken of it. Neither reads a clock.

mod batch;
mod meter;

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

pub use batch::{Batch, RECHECK, WINDOW};
pub use meter::{Decision, Meter, Now, Parts};

use crate::Record;

const MICRO: u64 = 1_000;
const MILLI: u64 = 1_000 * MICRO;
const SECOND: u64 = 1_000 * MILLI;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// So many permits per period, as in `100/s`, `5/min`, `1000/h` or `10/500ms`.
///
/// ```
/// use std::time::Duration;
/// use leasehold_core::Rate;
/// let rate: Rate = "10/500ms".parse()?;
/// assert_eq!(rate, Rate::new(10, Duration::from_millis(500))?);
/// # Ok::<(), leasehold_core::RateError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rate {
    permits: u32,
    /// Nanoseconds.
    period: u64,
}

/// A rate, and how many permits may be taken at once after a time without any.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Quota {
    rate: Rate,
    burst: u32,
}

/// Why something is no [`Rate`] or [`Quota`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RateError {
    /// It does not read as one.
    #[error("{text:?} is not a rate such as 100/s, 5/min, 1000/h or 10/500ms")]
    Text {
        /// What was read.
        text: String,
    },
    /// Not 1 to [`Quota::MAX_BURST`] permits.
    #[error("a rate has 1 to {max} permits, not {permits}", max = Quota::MAX_BURST)]
    Permits {
        /// How many there are.
        permits: u64,
    },
    /// Outside [`Rate::MIN_PERIOD`] to [`Rate::MAX_PERIOD`].
    #[error("a rate's period is {min:?} to {max:?}, not {period:?}",
        min = Rate::MIN_PERIOD, max = Rate::MAX_PERIOD)]
    Period {
        /// How long it is.
        period: Duration,
    },
    /// Not 1 to [`Quota::MAX_BURST`] permits.
    #[error("a burst is 1 to {max} permits, not {burst}", max = Quota::MAX_BURST)]
    Burst {
        /// How many there are.
        burst: u32,
    },
    /// It would take longer than [`Quota::MAX_REFILL`] to earn the burst.
    #[error("a burst of {burst} takes more than {days} days at {rate}: no store remembers it that \
             long; take a smaller one", days = Quota::MAX_REFILL.as_secs() / 86_400)]
    Refill {
        /// The burst.
        burst: u32,
        /// The rate.
        rate: Rate,
    },
}

impl Rate {
    /// The shortest period.
    pub const MIN_PERIOD: Duration = Duration::from_micros(1);
    /// The longest period.
    pub const MAX_PERIOD: Duration = Duration::from_hours(24 * 366);

    /// `permits` per `period`.
    ///
    /// # Errors
    ///
    /// Unless there are 1 to [`Quota::MAX_BURST`] permits, and the period is within its bounds.
    pub fn new(permits: u32, period: Duration) -> Result<Self, RateError> {
        if !(1..=Quota::MAX_BURST).contains(&permits) {
            return Err(RateError::Permits { permits: permits.into() });
        }
        if !(Self::MIN_PERIOD..=Self::MAX_PERIOD).contains(&period) {
            return Err(RateError::Period { period });
        }
        Ok(Self { permits, period: whole_nanos(period.as_nanos()) })
    }

    /// How many permits each period gives.
    #[must_use]
    pub const fn permits(self) -> u32 {
        self.permits
    }

    /// The period.
    #[must_use]
    pub const fn period(self) -> Duration {
        Duration::from_nanos(self.period)
    }

    /// How many whole permits `span` gives.
    fn gives(self, span: Duration) -> u64 {
        whole_nanos(span.as_nanos() * u128::from(self.permits) / u128::from(self.period))
    }

    /// Whether it gives more than `other` in the same time.
    fn is_faster_than(self, other: Self) -> bool {
        u128::from(self.permits) * u128::from(other.period)
            > u128::from(other.permits) * u128::from(self.period)
    }
}

impl Quota {
    /// The most permits of a burst, or of a rate's period.
    pub const MAX_BURST: u32 = 1_000_000_000;
    /// The longest time that earning a burst may take: half of what a record can be kept for.
    pub const MAX_REFILL: Duration = Duration::from_secs(Record::MAX_KEEP.as_secs() / 2);

    /// A rate with its burst.
    ///
    /// # Errors
    ///
    /// When the burst is not 1 to [`Quota::MAX_BURST`], or takes longer than
    /// [`Quota::MAX_REFILL`] to earn.
    pub fn new(rate: Rate, burst: u32) -> Result<Self, RateError> {
        if !(1..=Self::MAX_BURST).contains(&burst) {
            return Err(RateError::Burst { burst });
        }
        let quota = Self { rate, burst };
        if quota.time_of(quota.full()) > Self::MAX_REFILL {
            return Err(RateError::Refill { burst, rate });
        }
        Ok(quota)
    }

    /// The rate.
    #[must_use]
    pub const fn rate(self) -> Rate {
        self.rate
    }

    /// How many permits may be taken at once after a time without any.
    #[must_use]
    pub const fn burst(self) -> u32 {
        self.burst
    }

    /// How many permits, at most, a fleet spends in any time `span` beyond `rate × span + burst`,
    /// because permits are taken before they are spent: `rate × lag`, for all processes together.
    ///
    /// A permit is spent within [`WINDOW`] after it was taken, or as soon as the store's answer
    /// arrives: `lag` is the longer of the window and the slowest answer. Where the store has no
    /// clock, the largest difference between the clocks of the processes comes on top of it.
    #[must_use]
    pub fn overshoot(self, slowest_answer: Duration, clocks_apart: Duration) -> u64 {
        self.rate.gives(slowest_answer.max(WINDOW) + clocks_apart).saturating_add(1)
    }

    /// The debt of a burst that was taken whole, in the units of [`Meter`].
    fn full(self) -> u128 {
        self.cost(self.burst)
    }

    fn cost(self, permits: u32) -> u128 {
        u128::from(permits) * u128::from(self.rate.period)
    }

    /// How long a debt takes to be paid off, rounded up.
    fn time_of(self, debt: u128) -> Duration {
        Duration::from_nanos(whole_nanos(debt.div_ceil(u128::from(self.rate.permits))))
    }
}

/// As a number of 64 bits: what does not fit is as good as for ever.
fn whole_nanos(number: u128) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

/// The units of a period, the first of each length being the one that is written.
const UNITS: &[(&str, u64)] = &[
    ("d", DAY),
    ("day", DAY),
    ("h", HOUR),
    ("hour", HOUR),
    ("min", MINUTE),
    ("m", MINUTE),
    ("minute", MINUTE),
    ("s", SECOND),
    ("sec", SECOND),
    ("second", SECOND),
    ("ms", MILLI),
    ("us", MICRO),
    ("ns", 1),
];

impl FromStr for Rate {
    type Err = RateError;

    fn from_str(text: &str) -> Result<Self, RateError> {
        let bad = || RateError::Text { text: text.to_owned() };
        let (permits, period) = text.split_once('/').ok_or_else(bad)?;
        let (permits, period) = (permits.trim(), period.trim());
        let digits = period.len() - period.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (count, unit) = period.split_at(digits);
        let (_, unit) = UNITS.iter().find(|(name, _)| *name == unit.trim()).ok_or_else(bad)?;
        // `parse` alone would take a sign.
        if permits.is_empty() || !permits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(bad());
        }
        let permits: u64 = permits.parse().map_err(|_| bad())?;
        let count: u64 = if count.is_empty() { 1 } else { count.parse().map_err(|_| bad())? };
        let permits = u32::try_from(permits).map_err(|_| RateError::Permits { permits })?;
        Self::new(permits, Duration::from_nanos(count.saturating_mul(*unit)))
    }
}

impl TryFrom<&str> for Rate {
    type Error = RateError;

    fn try_from(text: &str) -> Result<Self, RateError> {
        text.parse()
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/", self.permits)?;
        let whole = UNITS.iter().find(|(_, unit)| self.period.is_multiple_of(*unit));
        let (name, unit) = whole.copied().unwrap_or(("ns", 1));
        match self.period / unit {
            1 => f.write_str(name),
            count => write!(f, "{count}{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_people_write_and_writes_it_back() {
        for (text, permits, nanos, shown) in [
            ("100/s", 100, SECOND, "100/s"),
            ("5/min", 5, MINUTE, "5/min"),
            ("5/m", 5, MINUTE, "5/min"),
            ("1000/h", 1_000, HOUR, "1000/h"),
            ("10/500ms", 10, 500 * MILLI, "10/500ms"),
            ("1 / 24h", 1, DAY, "1/d"),
            ("7/90s", 7, 90 * SECOND, "7/90s"),
            ("3/1001us", 3, 1_001 * MICRO, "3/1001us"),
            ("3/1001ns", 3, 1_001, "3/1001ns"),
            ("1000000000/us", 1_000_000_000, MICRO, "1000000000/us"),
            ("1/366d", 1, 366 * DAY, "1/366d"),
        ] {
            let rate: Rate = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(rate, Rate { permits, period: nanos }, "{text}");
            assert_eq!(rate.to_string(), shown);
            assert_eq!(shown.parse(), Ok(rate));
        }
    }

    #[test]
    fn refuses_the_rest() {
        for bad in [
            "",
            "/",
            "100",
            "/s",
            "100/",
            "100/5",
            "x/s",
            "-1/s",
            "+1/s",
            "1/-1s",
            "1/s/s",
            "1.5/s",
            "1/parsec",
            "1/99999999999999999999s",
            "99999999999999999999/s",
        ] {
            assert!(matches!(bad.parse::<Rate>(), Err(RateError::Text { .. })), "{bad}");
        }
        for bad in ["0/s", "1000000001/s", "4294967296/s"] {
            assert!(matches!(bad.parse::<Rate>(), Err(RateError::Permits { .. })), "{bad}");
        }
        for bad in ["1/999ns", "1/367d", "1/0s", "1/9999999999999999999d"] {
            assert!(matches!(bad.parse::<Rate>(), Err(RateError::Period { .. })), "{bad}");
        }
        let rate: Rate = "1/d".parse().unwrap();
        assert!(Quota::new(rate, 1_826).is_ok());
        assert_eq!(Quota::new(rate, 0), Err(RateError::Burst { burst: 0 }));
        assert_eq!(Quota::new(rate, 1_827), Err(RateError::Refill { burst: 1_827, rate }));
        let burst = Quota::MAX_BURST + 1;
        assert_eq!(Quota::new("1/us".parse().unwrap(), burst), Err(RateError::Burst { burst }));
    }
}
