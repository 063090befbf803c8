//! What one process has taken of a rate: permits in stock, and what it knows of the rest.

use std::time::Duration;

use super::{Decision, Meter, Quota};
use crate::Moment;

/// How long permits can be spent after the exchange with the store began that brought them.
///
/// It bounds how much a batch costs in accuracy ([`Quota::overshoot`]): a process that is paused
/// finds its batch expired.
pub const WINDOW: Duration = Duration::from_millis(100);

/// The time that a batch is to last: half of its window, so that the next one is there in time.
const PACE: Duration = Duration::from_millis(50);

/// From so many calls within a [`PACE`] on, permits are taken ahead of demand. Below, the process
/// takes exactly what it is asked for.
const MANY: u32 = 8;

/// After this long what was seen of the store is not believed any more: somebody may have changed
/// the rate, or deleted the record.
pub const RECHECK: Duration = Duration::from_secs(5);

/// The share of one process in a [`Meter`].
///
/// The store's clock and the process's own need not agree: only spans are taken from one to the
/// other.
#[derive(Debug, Clone)]
pub struct Batch {
    quota: Quota,
    stock: u32,
    /// When the stock expires.
    until: Moment,
    seen: Option<Seen>,
    demand: Demand,
}

/// The meter as it stood in the store at some time after the exchange began.
#[derive(Debug, Clone, Copy)]
struct Seen {
    meter: Meter,
    began: Moment,
}

/// What was asked for in the present [`PACE`] and in the one before.
#[derive(Debug, Clone, Copy, Default)]
struct Demand {
    since: Moment,
    present: Asked,
    before: Asked,
}

#[derive(Debug, Clone, Copy, Default)]
struct Asked {
    calls: u32,
    permits: u32,
}

impl Batch {
    /// Nothing taken, nothing known.
    #[must_use]
    pub fn new(quota: Quota) -> Self {
        let (until, demand) = (Moment::ORIGIN, Demand::default());
        Self { quota, stock: 0, until, seen: None, demand }
    }

    /// Takes note of a call for `permits`, whatever becomes of it.
    pub fn hear(&mut self, now: Moment, permits: u32) {
        self.demand.turn(now);
        self.demand.present.calls = self.demand.present.calls.saturating_add(1);
        self.demand.present.permits = self.demand.present.permits.saturating_add(permits);
    }

    /// The permits that are left of the batch.
    #[must_use]
    pub fn stock(&self, now: Moment) -> u32 {
        if now < self.until { self.stock } else { 0 }
    }

    /// Spends `permits` of the stock, if there are as many.
    pub fn spend(&mut self, now: Moment, permits: u32) -> Option<Decision> {
        let left = self.stock(now).checked_sub(permits)?;
        self.stock = left;
        Some(self.granted(now, left))
    }

    /// Refuses `permits` if it is certain that the store could not give them either, with `queued`
    /// others that are asked for before; or, when many are asked for, if it could not give enough
    /// to be worth the exchange. `None`: ask the store.
    ///
    /// Others can only add to what is owed (unless they have a faster rate), so what was seen
    /// bounds what is there.
    #[must_use]
    pub fn refuse(&mut self, now: Moment, permits: u32, queued: u32) -> Option<Decision> {
        let wait = self.wait_for(now, permits.saturating_add(queued), queued)?;
        (!wait.is_zero()).then(|| self.describe(now, self.stock(now), wait))
    }

    /// Refuses `permits` that an exchange was to bring and did not, with `left` others to spend.
    #[must_use]
    pub fn refused(&mut self, now: Moment, left: u32, permits: u32) -> Decision {
        // What was paid off while the answer was on its way does not help this caller any more.
        let soon = Duration::from_nanos(1);
        let wait = self.wait_for(now, permits.saturating_sub(left), 0).unwrap_or(soon);
        self.describe(now, left, wait.max(soon))
    }

    /// How long until it is worth asking the store for `permits` with `queued` callers' permits in
    /// demand; `None` if nothing is known of it, or not any more.
    pub fn wait_for(&mut self, now: Moment, permits: u32, queued: u32) -> Option<Duration> {
        let wanted = permits.max(self.worth(now, queued)).saturating_sub(self.stock(now));
        // More than the burst never fits: those behind wait for those before.
        Some(self.estimate(now)?.wait_for(wanted.min(self.quota.burst())))
    }

    /// How many permits make an exchange worthwhile: what is in demand, but no more than the rate
    /// gives in the time of a batch, nor half of the burst.
    fn worth(&mut self, now: Moment, queued: u32) -> u32 {
        let pressure = self.demand.heavy(now).max(queued);
        pressure.min(self.earned()).min(self.quota.burst() / 2)
    }

    /// What the rate gives in the time of a batch.
    fn earned(&self) -> u32 {
        u32::try_from(self.quota.rate().gives(PACE)).unwrap_or(u32::MAX)
    }

    /// How many permits to take ahead of demand out of `left`: as many as were asked for lately.
    ///
    /// What expires unspent is lost, so it is no more than the rate gives in the time of a batch
    /// or half of what is left: where few are left, permits are taken one by one.
    pub fn ahead(&mut self, now: Moment, left: u32) -> u32 {
        self.demand.heavy(now).min(self.earned().max(left / 2)).min(left)
    }

    /// Takes note of what the store had in an exchange that `began` then and took permits; how many
    /// there are to spend with those in stock. Who waited for the exchange gets them even when the
    /// window has passed; [`Batch::keep`] puts away the rest.
    pub fn arrive(&mut self, now: Moment, began: Moment, meter: Meter, taken: u32) -> u32 {
        self.seen = Some(Seen { meter, began });
        let stock = self.stock(now);
        self.stock = 0;
        stock.saturating_add(taken)
    }

    /// Puts into stock what is `left` after an exchange that `began` then and brought `taken`.
    pub fn keep(&mut self, began: Moment, left: u32, taken: u32) {
        if taken > 0 {
            self.until = began + WINDOW;
            // What exceeds it is of an older batch, whose time must not be extended: it is lost.
            self.stock = left.min(taken);
        } else {
            self.stock = left;
        }
    }

    /// What is told to somebody who gets permits, with `left` others to spend.
    #[must_use]
    pub fn granted(&self, now: Moment, left: u32) -> Decision {
        self.describe(now, left, Duration::ZERO)
    }

    /// The most that the store can have: it pays off while the answer is on its way, and after.
    fn estimate(&self, now: Moment) -> Option<Meter> {
        let seen = self.seen.filter(|seen| now < seen.began + RECHECK)?;
        Some(seen.meter.drained_by(now.since(seen.began)))
    }

    fn describe(&self, now: Moment, stock: u32, retry_after: Duration) -> Decision {
        let meter = self.estimate(now).unwrap_or_else(|| Meter::new(self.quota, 0));
        Decision {
            allowed: retry_after.is_zero(),
            limit: self.quota.burst(),
            remaining: meter.available().saturating_add(stock).min(self.quota.burst()),
            retry_after,
            reset_after: meter.reset_after(),
            alone: false,
        }
    }
}

impl Demand {
    fn turn(&mut self, now: Moment) {
        let passed = now.since(self.since);
        if passed >= 2 * PACE {
            *self = Self { since: now, ..Self::default() };
        } else if passed >= PACE {
            let (since, before) = (self.since + PACE, self.present);
            *self = Self { since, present: Asked::default(), before };
        }
    }

    /// How many permits are asked for in the time of a batch; zero if by few calls.
    fn heavy(&mut self, now: Moment) -> u32 {
        self.turn(now);
        let many = [self.present, self.before].into_iter().filter(|asked| asked.calls >= MANY);
        many.map(|asked| asked.permits).max().unwrap_or(0)
    }
}

#[cfg(test)]
#[path = "batch_tests.rs"]
mod tests;
