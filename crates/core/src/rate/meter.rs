//! What a fleet shares of a rate: the generic cell rate algorithm, in integers.

use std::time::Duration;

use super::{Quota, Rate, whole_nanos};
use crate::Record;

/// What is owed for the permits that were given, and when it was written down.
///
/// A permit costs as many units as the rate's period has nanoseconds, and each nanosecond pays
/// off as many as the period has permits: no division, so nothing drifts. Permits are given as
/// long as the debt stays within the burst. The *theoretical arrival time* of GCRA is the moment
/// at which the debt is paid off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meter {
    quota: Quota,
    /// Nanoseconds on the clock that the fleet goes by.
    at: u64,
    /// Units.
    debt: u128,
}

/// Whether permits are there, and how many: what `redis-cell` answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    /// Whether what was asked for is given.
    pub allowed: bool,
    /// The most permits that can be taken at once: the burst.
    pub limit: u32,
    /// How many could be taken now.
    pub remaining: u32,
    /// How long until what was asked for can be had, if nobody else takes it; zero if it is given.
    pub retry_after: Duration,
    /// How long until the whole limit is there again, if nobody takes anything.
    pub reset_after: Duration,
    /// The store was away, and this process decided by itself.
    pub alone: bool,
}

/// The time since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Now {
    /// By the clock of the store: one for all.
    Store(Duration),
    /// By the clock of this machine, because the store has none.
    Own(Duration),
}

/// A [`Meter`] as numbers, to be written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parts {
    /// The permits of the rate.
    pub permits: u32,
    /// Nanoseconds: the period of the rate.
    pub period: u64,
    /// The burst.
    pub burst: u32,
    /// Nanoseconds since 1970: when it was written.
    pub at: u64,
    /// What was owed then: `period` for each permit; each nanosecond pays off `permits`.
    pub debt: u128,
}

/// How far back the clock of a store may go before it counts as set back: until then time stands
/// still, so that two servers whose clocks differ a little cannot be played off against each other.
const SET_BACK: u64 = 1_000_000_000;

impl Meter {
    /// Nothing owed.
    #[must_use]
    pub const fn new(quota: Quota, at: u64) -> Self {
        Self { quota, at, debt: 0 }
    }

    /// What was `written`, as it stands `now` for somebody with `quota`; and whether it has to be
    /// written down even if nothing is taken, because time would not pay it off as it should.
    ///
    /// Permits that were given stay given, whatever rate they were given under: in a mixture of
    /// quotas the fleet never has more than the greatest rate and the greatest burst allow. What
    /// was owed under another rate is from now on paid off at the new one; but what exceeds the
    /// new burst, at the faster of the two, so that lowering a limit does not block it.
    #[must_use]
    pub fn opened(quota: Quota, written: Option<Self>, now: Now) -> (Self, bool) {
        let (Now::Store(time) | Now::Own(time)) = now;
        let nanos = whole_nanos(time.as_nanos());
        let Some(mut written) = written else { return (Self::new(quota, nanos), false) };
        // Where each brings a clock of its own, one that is behind must not set the others back.
        let set_back = matches!(now, Now::Store(_)) && nanos.saturating_add(SET_BACK) < written.at;
        if set_back {
            written.at = nanos;
        }
        let stands = written.drained_to(nanos);
        let (from, to) = (stands.quota.rate, quota.rate);
        if from == to {
            return (Self { quota, ..stands }, set_back);
        }
        let debt = exchanged(stands.debt, from, to);
        if debt > quota.full() && from.is_faster_than(to) {
            // Nothing can be taken, so nothing is written but by those who have the old rate.
            return (Self { quota, debt: quota.full(), ..stands }, false);
        }
        (Self { quota, debt, ..stands }, true)
    }

    /// The same at a later time; itself if it is not later.
    #[must_use]
    pub fn drained_to(self, at: u64) -> Self {
        let elapsed = u128::from(at.saturating_sub(self.at));
        let paid = elapsed * u128::from(self.quota.rate.permits);
        Self { at: self.at.max(at), debt: self.debt.saturating_sub(paid), ..self }
    }

    /// The same after `span`.
    #[must_use]
    pub fn drained_by(self, span: Duration) -> Self {
        self.drained_to(self.at.saturating_add(whole_nanos(span.as_nanos())))
    }

    /// The quota that it is judged by.
    #[must_use]
    pub const fn quota(&self) -> Quota {
        self.quota
    }

    /// How many permits can be taken at its time.
    #[must_use]
    pub fn available(&self) -> u32 {
        let left = self.quota.full().saturating_sub(self.debt);
        u32::try_from(left / u128::from(self.quota.rate.period)).unwrap_or(u32::MAX)
    }

    /// How long after its time `permits` can be taken: zero if at once.
    #[must_use]
    pub fn wait_for(&self, permits: u32) -> Duration {
        let after = self.debt + self.quota.cost(permits);
        self.quota.time_of(after.saturating_sub(self.quota.full()))
    }

    /// How long after its time nothing is owed.
    #[must_use]
    pub fn reset_after(&self) -> Duration {
        self.quota.time_of(self.debt)
    }

    /// Takes `permits`, if there are as many.
    pub fn take(&mut self, permits: u32) -> Decision {
        let allowed = permits <= self.available();
        let retry_after = if allowed { Duration::ZERO } else { self.wait_for(permits) };
        if allowed {
            self.debt += self.quota.cost(permits);
        }
        Decision {
            allowed,
            limit: self.quota.burst,
            remaining: self.available(),
            retry_after,
            reset_after: self.reset_after(),
            alone: false,
        }
    }

    /// How long it has to be remembered: longer than the debt takes to be paid off. Who finds it
    /// forgotten owes nothing, so forgetting gives nobody more than the burst.
    #[must_use]
    pub fn keep(&self) -> Duration {
        let owed = self.reset_after();
        // A store may count the time on a clock that runs faster than the one of its answers.
        (owed + owed / 10 + Duration::from_secs(1)).min(Record::MAX_KEEP)
    }

    /// What to write down.
    #[must_use]
    pub const fn parts(&self) -> Parts {
        let Quota { rate: Rate { permits, period }, burst } = self.quota;
        Parts { permits, period, burst, at: self.at, debt: self.debt }
    }

    /// What was written down; `None` if it cannot have been.
    #[must_use]
    pub fn from_parts(parts: Parts) -> Option<Self> {
        let Parts { permits, period, burst, at, debt } = parts;
        let rate = Rate::new(permits, Duration::from_nanos(period)).ok()?;
        let quota = Quota::new(rate, burst).ok()?;
        let most = u128::from(Quota::MAX_BURST) * u128::from(period);
        (debt <= most).then_some(Self { quota, at, debt })
    }
}

/// A debt of as many permits under another rate, rounded up.
fn exchanged(debt: u128, from: Rate, to: Rate) -> u128 {
    let (from, to) = (u128::from(from.period), u128::from(to.period));
    // Whole permits first: the product of debt and period could overflow.
    debt / from * to + (debt % from * to).div_ceil(from)
}

#[cfg(test)]
#[path = "meter_tests.rs"]
mod tests;
