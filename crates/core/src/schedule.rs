//! Whether a job is due: at most one successful run for each period or version.
//!
//! Times are durations since 1970, by one clock: the store's, where it has one.

use std::time::Duration;

/// What one run is for: a stretch of time, or a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Period {
    /// Its name, by which runs are told apart: a version, or the milliseconds at which it begins.
    pub name: String,
    /// When it begins; `None` for a version.
    pub begins: Option<Duration>,
    /// When the next one begins; `None` for a version, and where there is none.
    pub next: Option<Duration>,
}

impl Period {
    /// A version.
    #[must_use]
    pub fn version(name: &str) -> Self {
        Self { name: name.to_owned(), begins: None, next: None }
    }

    /// The stretch of time that begins at `begins`.
    #[must_use]
    pub fn from(begins: Duration, next: Option<Duration>) -> Self {
        Self { name: begins.as_millis().to_string(), begins: Some(begins), next }
    }

    /// The one around `now` of periods that are `every` long and begin at multiples of it since 1970.
    ///
    /// Fixed to the clock and not to the last run: hosts that ask once a period, some moments apart
    /// and not always in the same order, then run it once a period, and not every other time.
    ///
    /// `every` has to be a millisecond at least.
    #[must_use]
    pub fn around(now: Duration, every: Duration) -> Self {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let every = millis(every).max(1);
        let begins = millis(now) / every * every;
        let at = Duration::from_millis;
        Self::from(at(begins), Some(at(begins.saturating_add(every))))
    }
}

/// The last run, as it was written down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastRun<'a> {
    /// The name of its period.
    pub period: &'a str,
    /// When that period began; `None` for a version.
    pub period_begins: Option<Duration>,
    /// When it began.
    pub started: Duration,
    /// Whether it succeeded; `None` while it runs, and if whoever ran it died.
    pub ok: Option<bool>,
    /// How many runs of this period failed, this one included.
    pub failures: u32,
}

/// When to run again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Policy {
    /// The shortest time between the beginnings of two runs.
    pub at_least: Duration,
    /// How often a run that failed is tried again in its period.
    pub retries: u32,
    /// How long after its beginning a period may still be begun; `None` for all of it.
    pub late: Option<Duration>,
}

/// Whether to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// Now.
    Now,
    /// No: this period, or a later one, has had its run.
    Ran,
    /// No: this period's runs failed, and no more are wanted.
    Failed,
    /// No: the last run began a moment ago.
    TooSoon,
    /// No: the period began too long ago.
    Missed,
}

/// Whether a run of `period` is due at `now`, given that nobody else runs it at this moment.
///
/// `done` says of a version whether it has had its run.
///
/// A run that was begun and not ended is one whose runner died: it is tried again.
#[must_use]
pub fn due(
    now: Duration,
    period: &Period,
    last: Option<&LastRun<'_>>,
    done: impl Fn(&str) -> bool,
    policy: Policy,
) -> Due {
    if done(&period.name) {
        return Due::Ran;
    }
    if let Some(last) = last {
        let same = last.period == period.name;
        if same && last.ok == Some(true) {
            return Due::Ran;
        }
        // A clock was set back: what lies before a run that was is not run after it.
        if let (Some(ours), Some(theirs)) = (period.begins, last.period_begins)
            && ours < theirs
        {
            return Due::Ran;
        }
        if same && last.ok == Some(false) && last.failures > policy.retries {
            return Due::Failed;
        }
        // One that died is not waited for. One that began after now, by a clock that was set back
        // since, says nothing.
        let ended = last.ok.is_some() && last.started <= now;
        if ended && now < last.started.saturating_add(policy.at_least) {
            return Due::TooSoon;
        }
    }
    let late = |begins: Duration, late: Duration| now > begins.saturating_add(late);
    if let (Some(begins), Some(limit)) = (period.begins, policy.late)
        && late(begins, limit)
    {
        return Due::Missed;
    }
    Due::Now
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOUR: Duration = Duration::from_hours(1);

    fn at(minutes: u64) -> Duration {
        Duration::from_mins(minutes)
    }

    fn never(_: &str) -> bool {
        false
    }

    fn last(period: &Period, started: Duration, ok: Option<bool>, failures: u32) -> LastRun<'_> {
        LastRun { period: &period.name, period_begins: period.begins, started, ok, failures }
    }

    #[test]
    fn one_success_a_period_is_enough() {
        let first = Period::around(at(61), HOUR);
        assert_eq!((first.begins, first.next), (Some(at(60)), Some(at(120))));
        assert_eq!(due(at(61), &first, None, never, Policy::default()), Due::Now);
        let ran = last(&first, at(61), Some(true), 0);
        for minute in [61, 90, 119] {
            let period = Period::around(at(minute), HOUR);
            assert_eq!(due(at(minute), &period, Some(&ran), never, Policy::default()), Due::Ran);
        }
        let last_moment = Period::around(at(120).saturating_sub(Duration::from_millis(1)), HOUR);
        assert_eq!(last_moment, first);
        let next = Period::around(at(120), HOUR);
        assert_eq!(due(at(120), &next, Some(&ran), never, Policy::default()), Due::Now);
        // By a clock that was set back.
        let before = Period::around(at(59), HOUR);
        assert_eq!(due(at(59), &before, Some(&ran), never, Policy::default()), Due::Ran);
    }

    #[test]
    fn two_runs_at_a_border_are_kept_apart() {
        let policy = Policy { at_least: at(5), ..Policy::default() };
        let ran = Period::around(at(119), HOUR);
        let ran = last(&ran, at(119), Some(true), 0);
        let next =
            |minute| due(at(minute), &Period::around(at(minute), HOUR), Some(&ran), never, policy);
        assert_eq!([next(120), next(123), next(124)], [Due::TooSoon, Due::TooSoon, Due::Now]);
    }

    #[test]
    fn failures_are_tried_again_as_often_as_wanted_and_deaths_always() {
        let period = Period::version("v42");
        let with = |ok, failures, retries| {
            let policy = Policy { retries, ..Policy::default() };
            due(at(9), &period, Some(&last(&period, at(1), ok, failures)), never, policy)
        };
        assert_eq!(with(Some(false), 1, 0), Due::Failed);
        assert_eq!(with(Some(false), 1, 1), Due::Now);
        assert_eq!(with(Some(false), 2, 1), Due::Failed);
        assert_eq!(with(None, 7, 0), Due::Now);
        let policy = Policy { at_least: HOUR, ..Policy::default() };
        let again = |ok| due(at(9), &period, Some(&last(&period, at(1), ok, 0)), never, policy);
        assert_eq!(again(None), Due::Now, "one that died is not waited for");
        let policy = Policy { retries: 1, ..policy };
        let failed = last(&period, at(1), Some(false), 1);
        assert_eq!(due(at(9), &period, Some(&failed), never, policy), Due::TooSoon);
        assert_eq!(due(at(61), &period, Some(&failed), never, policy), Due::Now);
        let ahead = last(&period, at(20), Some(false), 1);
        assert_eq!(due(at(9), &period, Some(&ahead), never, policy), Due::Now, "set back");
    }

    #[test]
    fn a_version_that_was_done_before_another_is_not_done_again() {
        let (old, new) = (Period::version("v41"), Period::version("v42"));
        let ran = last(&new, at(1), Some(true), 0);
        let done = |name: &str| name == "v41";
        assert_eq!(due(at(9), &old, Some(&ran), done, Policy::default()), Due::Ran);
        assert_eq!(due(at(9), &old, Some(&ran), never, Policy::default()), Due::Now);
    }

    #[test]
    fn who_is_late_skips_unless_it_may_catch_up() {
        let period = Period::from(at(180), Some(at(1620)));
        let policy = Policy { late: Some(at(5)), ..Policy::default() };
        assert_eq!(due(at(185), &period, None, never, policy), Due::Now);
        assert_eq!(due(at(186), &period, None, never, policy), Due::Missed);
        assert_eq!(due(at(1619), &period, None, never, Policy::default()), Due::Now);
    }

    proptest! {
        #[test]
        fn now_is_within_its_period(now in 0_u64..1 << 50, every in 1_u64..1 << 40) {
            let [now, every] = [now, every].map(Duration::from_millis);
            let period = Period::around(now, every);
            let (begins, next) = (period.begins.unwrap(), period.next.unwrap());
            prop_assert!(begins <= now && now < next && next.saturating_sub(begins) == every);
            let later = Period::around(next, every);
            prop_assert_eq!(later.begins, Some(next));
            prop_assert_ne!(later.name, period.name);
        }
    }
}
