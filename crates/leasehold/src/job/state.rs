//! What is written down of a job.

use std::time::Duration;

use leasehold_core::schedule::{LastRun, Period};
use leasehold_core::{Fence, Record};
use serde::{Deserialize, Serialize};

use crate::kept;

/// What the record of a job is of.
pub(super) const KIND: &str = "job/1";

/// How many versions are remembered.
const REMEMBERED: usize = 64;

/// A run of a job. Times are durations since 1970, by the store's clock where it has one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Run {
    /// What it was for: a version, or the milliseconds since 1970 at which its period began.
    pub period: String,
    /// Who ran it.
    pub owner: String,
    /// Under which fence.
    pub fence: Option<Fence>,
    /// When it began.
    pub started: Duration,
    /// When it ended; `None` while it runs, and if its runner died.
    pub ended: Option<Duration>,
    /// Whether it succeeded; `None` as for `ended`.
    pub ok: Option<bool>,
    /// The exit code, if a program was run and exited.
    pub code: Option<i32>,
    /// How many runs of this period failed.
    pub failures: u32,
    /// When the next period begins, where there is one.
    pub next: Option<Duration>,
}

/// The record, as JSON. Times are milliseconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct State {
    period: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    period_begins: Option<u64>,
    owner: String,
    fence: u64,
    started: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ended: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ok: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    code: Option<i32>,
    #[serde(default)]
    pub(super) failures: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    next: Option<u64>,
    /// Versions that have had their run, the latest last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    done: Vec<String>,
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

impl State {
    /// A run begins.
    pub(super) fn begun(self, period: &Period, now: Duration, owner: &str, fence: Fence) -> Self {
        let failures = if self.period == period.name { self.failures } else { 0 };
        Self {
            period: period.name.clone(),
            period_begins: period.begins.map(millis),
            owner: owner.to_owned(),
            fence: fence.get(),
            started: millis(now),
            ended: None,
            ok: None,
            code: None,
            failures,
            next: period.next.map(millis),
            done: self.done,
        }
    }

    /// It ended.
    pub(super) fn ended(mut self, now: Duration, ok: bool, code: Option<i32>) -> Self {
        (self.ended, self.ok, self.code) = (Some(millis(now)), Some(ok), code);
        if !ok {
            self.failures = self.failures.saturating_add(1);
        } else if self.period_begins.is_none() {
            self.done.retain(|name| *name != self.period);
            self.done.push(self.period.clone());
            let forgotten = self.done.len().saturating_sub(REMEMBERED);
            self.done.drain(..forgotten);
        }
        self
    }

    pub(super) fn is_done(&self, name: &str) -> bool {
        self.done.iter().any(|done| done == name)
    }

    /// Whether it is of the same run.
    pub(super) const fn is_of(&self, run: &Self) -> bool {
        self.fence == run.fence
    }

    /// Whether it tells how a run `ended`, or comes of what did.
    pub(super) fn remembers(&self, ended: &Self) -> bool {
        if self.is_of(ended) {
            return self.ok == ended.ok;
        }
        // A failure may be tried again, and another period be begun; a version stays done.
        ended.ok != Some(true)
            || self.is_done(&ended.period)
            || (ended.period_begins.is_some() && self.period != ended.period)
    }

    pub(super) fn last(&self) -> LastRun<'_> {
        LastRun {
            period: &self.period,
            period_begins: self.period_begins.map(Duration::from_millis),
            started: Duration::from_millis(self.started),
            ok: self.ok,
            failures: self.failures,
        }
    }

    pub(super) fn run(&self) -> Run {
        Run {
            period: self.period.clone(),
            owner: self.owner.clone(),
            fence: (self.fence > 0).then(|| Fence::new(self.fence)),
            started: Duration::from_millis(self.started),
            ended: self.ended.map(Duration::from_millis),
            ok: self.ok,
            code: self.code,
            failures: self.failures,
            next: self.next.map(Duration::from_millis),
        }
    }

    pub(super) fn record(&self) -> Record {
        // 64 versions of 128 bytes and an owner of 1024 fit, but for control characters, which JSON
        // makes six times as long: then the oldest are forgotten sooner.
        let mut state = self.clone();
        loop {
            if let Some(record) = kept::record(KIND, &state, Record::MAX_KEEP) {
                return record;
            }
            let half = state.done.len().div_ceil(2);
            if half == 0 {
                // What is left is smaller than the bound by far.
                state.owner.clear();
            }
            state.done.drain(..half);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_mins(1);

    #[test]
    fn versions_are_remembered_and_the_oldest_are_forgotten() {
        let mut state = State::default();
        for n in 0..100 {
            let period = Period::version(&format!("v{n}"));
            state = state.begun(&period, MINUTE, "o", Fence::new(n + 1));
            assert_eq!((state.last().ok, state.run().ended), (None, None));
            state = state.ended(2 * MINUTE, true, Some(0));
        }
        assert!(state.is_done("v99") && state.is_done("v36") && !state.is_done("v35"));
        assert!(state.is_done("v50"));
    }

    #[test]
    fn failures_count_within_a_period() {
        let (one, two) = (Period::from(MINUTE, None), Period::from(2 * MINUTE, None));
        let fail = |state: State, period| {
            state.begun(period, MINUTE, "o", Fence::new(1)).ended(MINUTE, false, Some(3))
        };
        let twice = fail(fail(State::default(), &one), &one);
        assert_eq!((twice.failures, twice.run().code), (2, Some(3)));
        assert_eq!(fail(twice, &two).failures, 1);
    }

    #[test]
    fn the_largest_state_fits_a_record() {
        let mut state = State { owner: "\u{1}".repeat(1024), ..State::default() };
        for n in 0..64_u8 {
            let name = format!("{}{n}", "\u{1}".repeat(120));
            let owner = state.owner.clone();
            state = state.begun(&Period::version(&name), MINUTE, &owner, Fence::new(1));
            state = state.ended(MINUTE, true, None);
        }
        assert!(state.record().value().len() <= Record::MAX_BYTES);
    }
}
