//! When a job runs.

use std::time::Duration;

use leasehold_core::schedule::Period;

use crate::error::{Error, ErrorKind, Result};

/// When a job runs: once in each period, or once for each version.
#[derive(Debug, Clone)]
pub struct Schedule(pub(super) When);

#[derive(Debug, Clone)]
pub(super) enum When {
    Every(Duration),
    Version(String),
    #[cfg(feature = "cron")]
    Cron(Box<Cron>),
}

#[cfg(feature = "cron")]
#[derive(Debug, Clone)]
pub(super) struct Cron {
    times: croner::Cron,
    zone: jiff::tz::TimeZone,
}

impl Schedule {
    /// The shortest period.
    pub const MIN_EVERY: Duration = Duration::from_secs(1);
    /// The longest name of a version, in bytes.
    pub const MAX_VERSION: usize = 128;

    /// Once in each period of `every`, from one second to ten years; periods begin at multiples of it
    /// since 1970, so an hour begins with the hour.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`] when `every` is out of bounds.
    pub fn every(every: Duration) -> Result<Self> {
        if (Self::MIN_EVERY..=leasehold_core::Record::MAX_KEEP).contains(&every) {
            return Ok(Self(When::Every(every)));
        }
        let min = Self::MIN_EVERY;
        Err(invalid(format!("a period of {every:?} is not between {min:?} and ten years")))
    }

    /// Once for each version: right for migrations. 1 to 128 bytes.
    ///
    /// A version that has had its run is not run again, also not after a later one, as long as no 64
    /// others have been run since.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`] when the name is empty or too long.
    pub fn version(name: &str) -> Result<Self> {
        if (1..=Self::MAX_VERSION).contains(&name.len()) {
            return Ok(Self(When::Version(name.to_owned())));
        }
        let max = Self::MAX_VERSION;
        Err(invalid(format!("a version's name has 1 to {max} bytes; this one has {}", name.len())))
    }

    /// Once in each period that begins at a time of the cron expression `times` (five fields, or six
    /// with seconds first), in the time zone `zone`, such as `Europe/Berlin` or `UTC`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`] when the expression or the name of the zone cannot be read, and when the
    /// zone is not known to this machine.
    #[cfg(feature = "cron")]
    pub fn cron(times: &str, zone: &str) -> Result<Self> {
        let times = times
            .parse::<croner::Cron>()
            .map_err(|error| invalid(format!("{times:?} is no cron expression: {error}")))?;
        let zone = jiff::tz::TimeZone::get(zone)
            .map_err(|error| invalid(format!("{zone:?} is no time zone: {error}")))?;
        let cron = Self(When::Cron(Box::new(Cron { times, zone })));
        // One that never comes is found now, and not when it is asked for.
        cron.period(Duration::from_secs(1_700_000_000)).map(|_| cron)
    }

    /// The period at `now`, since 1970.
    #[cfg_attr(
        not(feature = "cron"),
        expect(clippy::unnecessary_wraps, reason = "only a cron expression can have none")
    )]
    pub(super) fn period(&self, now: Duration) -> Result<Period> {
        match &self.0 {
            When::Every(every) => Ok(Period::around(now, *every)),
            When::Version(name) => Ok(Period::version(name)),
            #[cfg(feature = "cron")]
            When::Cron(cron) => cron.period(now),
        }
    }
}

#[cfg(feature = "cron")]
impl Cron {
    fn period(&self, now: Duration) -> Result<Period> {
        let since_1970 = |time: &jiff::Zoned| {
            let millis = u64::try_from(time.timestamp().as_millisecond()).unwrap_or_default();
            Duration::from_millis(millis)
        };
        let millis = i64::try_from(now.as_millis()).unwrap_or(i64::MAX);
        let now = jiff::Timestamp::from_millisecond(millis)
            .map_err(|error| invalid(format!("the store's time is out of bounds: {error}")))?
            .to_zoned(self.zone.clone());
        let begins = self.times.find_previous_occurrence(&now, true).map_err(|error| {
            invalid(format!("the cron expression has no time before {now}: {error}"))
        })?;
        let next = self.times.find_next_occurrence(&now, false).ok();
        Ok(Period::from(since_1970(&begins), next.as_ref().map(since_1970)))
    }
}

fn invalid(detail: String) -> Error {
    Error::new(ErrorKind::Invalid, "make a schedule", detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_schedules_are_refused() {
        for every in [Duration::ZERO, Duration::from_millis(999), Duration::MAX] {
            assert!(Schedule::every(every).is_err(), "{every:?}");
        }
        for version in ["", &"v".repeat(129)] {
            assert!(Schedule::version(version).is_err(), "{version}");
        }
    }

    #[cfg(feature = "cron")]
    #[test]
    fn cron_goes_by_the_clocks_of_its_zone() {
        let at = |text: &str| {
            let stamp: jiff::Timestamp = text.parse().unwrap();
            Duration::from_secs(stamp.as_second().try_into().unwrap())
        };
        let berlin = Schedule::cron("0 3 * * *", "Europe/Berlin").unwrap();
        let period = berlin.period(at("2026-07-01T12:00:00Z")).unwrap();
        assert_eq!(period.begins, Some(at("2026-07-01T01:00:00Z")), "summer time");
        assert_eq!(period.next, Some(at("2026-07-02T01:00:00Z")));
        let period = berlin.period(at("2026-12-01T02:00:00Z")).unwrap();
        assert_eq!(period.begins, Some(at("2026-12-01T02:00:00Z")), "winter time, on the dot");
        for (times, zone) in
            [("0 3 * *", "UTC"), ("61 * * * *", "UTC"), ("* * * * *", "Nowhere/At")]
        {
            let error = Schedule::cron(times, zone).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        }
    }
}
