//! The lease clock: when to renew, when to warn, when a hold is lost.
//!
//! All of it counts from the moment at which an acknowledged request was *sent*. The store counts
//! from when it *handled* the request, which is later, so the holder always gives up first; the
//! drift margin covers clocks that run at different rates.
//!
//! ```text
//!  sent            renew          lost      deadline   lapse
//!   |----------------|----- ... ----|---------|----------|-------> time
//!   |                |              |<-grace->|<-drift-->|
//!   |<- renew_every->|              |         |          |
//!   |<------------------------- ttl -------------------->|
//! ```

use std::time::Duration;

use crate::Moment;

/// The durations that govern a lease, checked against each other.
///
/// ```
/// use std::time::Duration;
/// use leasehold_core::Timing;
/// let timing = Timing::new(Duration::from_secs(30))?;
/// assert_eq!(timing.renew_every(), Duration::from_secs(10));
/// assert!(timing.with_grace(Duration::from_secs(31)).is_err());
/// # Ok::<(), leasehold_core::TimingError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    ttl: Duration,
    renew_every: Duration,
    drift: Duration,
    grace: Duration,
}

/// Why durations do not make a [`Timing`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TimingError {
    /// The TTL is zero or too short to be renewed in time.
    #[error("a TTL of {ttl:?} is too short: at least {min:?}")]
    TtlTooShort {
        /// The TTL asked for.
        ttl: Duration,
        /// The shortest one.
        min: Duration,
    },
    /// The TTL is so long that a crashed holder would block the others for days.
    #[error(
        "a TTL of {ttl:?} is too long: at most {max:?}; holds are renewed while their holder lives, \
         so the TTL only has to outlast a failed renewal"
    )]
    TtlTooLong {
        /// The TTL asked for.
        ttl: Duration,
        /// The longest one.
        max: Duration,
    },
    /// Renewals this far apart leave no second chance.
    #[error("a renewal every {renew_every:?} is not under half of the TTL of {ttl:?}, or is zero")]
    RenewEvery {
        /// The interval asked for.
        renew_every: Duration,
        /// The TTL.
        ttl: Duration,
    },
    /// A loss could not be signalled before the deadline.
    #[error(
        "a grace of {grace:?} is too short: at least {min:?}, or the loss could not be signalled \
         before the deadline"
    )]
    GraceTooShort {
        /// The grace asked for.
        grace: Duration,
        /// The shortest one.
        min: Duration,
    },
    /// Grace and drift margin leave no time between a renewal and the loss.
    #[error(
        "a grace of {grace:?} and a drift margin of {drift:?} do not fit: with the renewal every \
         {renew_every:?} they have to stay under the TTL of {ttl:?}"
    )]
    NoTimeLeft {
        /// The grace asked for.
        grace: Duration,
        /// The drift margin.
        drift: Duration,
        /// The renewal interval.
        renew_every: Duration,
        /// The TTL.
        ttl: Duration,
    },
}

impl Timing {
    /// The shortest TTL that any store can keep. Most ask for more: see their guarantees.
    pub const MIN_TTL: Duration = Duration::from_millis(20);
    /// The longest TTL.
    pub const MAX_TTL: Duration = Duration::from_hours(24);

    /// The shortest grace: timers are no finer than a millisecond, so with less of it the loss
    /// would be signalled after the deadline.
    pub const MIN_GRACE: Duration = Duration::from_millis(1);

    /// The default timing for a TTL: renewed at a third of it; a drift margin of a tenth, which
    /// covers a clock that is slewed as fast as the common time daemons do it (chrony: 8.3 %);
    /// and a grace of a twentieth between the loss signal and the deadline.
    ///
    /// # Errors
    ///
    /// When `ttl` is outside [`Timing::MIN_TTL`] to [`Timing::MAX_TTL`].
    pub fn new(ttl: Duration) -> Result<Self, TimingError> {
        Self { ttl, renew_every: ttl / 3, drift: ttl / 10, grace: ttl / 20 }.checked()
    }

    /// The timing for a TTL with what is given instead of the defaults of [`Timing::new`]: checked
    /// together, since what is long leaves room where another is short.
    ///
    /// # Errors
    ///
    /// When they do not fit each other.
    pub fn custom(
        ttl: Duration,
        renew_every: Option<Duration>,
        drift: Option<Duration>,
        grace: Option<Duration>,
    ) -> Result<Self, TimingError> {
        let default = Self::new(ttl)?;
        Self {
            ttl,
            renew_every: renew_every.unwrap_or(default.renew_every),
            drift: drift.unwrap_or(default.drift),
            grace: grace.unwrap_or(default.grace),
        }
        .checked()
    }

    /// The same with another renewal interval: above zero and under half of the TTL.
    ///
    /// # Errors
    ///
    /// When the interval does not fit the TTL, the grace and the drift margin.
    pub fn with_renew_every(self, renew_every: Duration) -> Result<Self, TimingError> {
        Self { renew_every, ..self }.checked()
    }

    /// The same with another drift margin: how far the holder's clock and the store's may run
    /// apart within one TTL.
    ///
    /// # Errors
    ///
    /// When interval, grace and margin together leave nothing of the TTL.
    pub fn with_drift(self, drift: Duration) -> Result<Self, TimingError> {
        Self { drift, ..self }.checked()
    }

    /// The same with another grace: the time between the loss signal and the deadline, in which
    /// the holder can still stop what it does.
    ///
    /// # Errors
    ///
    /// When it is under [`Timing::MIN_GRACE`], and when interval, grace and margin together leave
    /// nothing of the TTL.
    pub fn with_grace(self, grace: Duration) -> Result<Self, TimingError> {
        Self { grace, ..self }.checked()
    }

    fn checked(self) -> Result<Self, TimingError> {
        let Self { ttl, renew_every, drift, grace } = self;
        if ttl < Self::MIN_TTL {
            return Err(TimingError::TtlTooShort { ttl, min: Self::MIN_TTL });
        }
        if ttl > Self::MAX_TTL {
            return Err(TimingError::TtlTooLong { ttl, max: Self::MAX_TTL });
        }
        if renew_every.is_zero() || renew_every >= ttl / 2 {
            return Err(TimingError::RenewEvery { renew_every, ttl });
        }
        if grace < Self::MIN_GRACE {
            return Err(TimingError::GraceTooShort { grace, min: Self::MIN_GRACE });
        }
        if renew_every.saturating_add(drift).saturating_add(grace) >= ttl {
            return Err(TimingError::NoTimeLeft { grace, drift, renew_every, ttl });
        }
        Ok(self)
    }

    /// Time to live: how long a hold lasts in the store after each renewal.
    #[must_use]
    pub const fn ttl(&self) -> Duration {
        self.ttl
    }

    /// How often a hold is renewed.
    #[must_use]
    pub const fn renew_every(&self) -> Duration {
        self.renew_every
    }

    /// How far the clocks of holder and store may run apart within one TTL.
    #[must_use]
    pub const fn drift(&self) -> Duration {
        self.drift
    }

    /// The time between the loss signal and the deadline.
    #[must_use]
    pub const fn grace(&self) -> Duration {
        self.grace
    }
}

/// A lease as its holder sees it: what the last acknowledged request allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    sent: Moment,
    timing: Timing,
}

impl Lease {
    /// A lease that began with a request sent at `sent`.
    #[must_use]
    pub const fn new(sent: Moment, timing: Timing) -> Self {
        Self { sent, timing }
    }

    /// Takes note of an acknowledged renewal that was sent at `sent`. An older one, whose answer
    /// came late, changes nothing.
    pub fn extend(&mut self, sent: Moment) {
        self.sent = self.sent.max(sent);
    }

    /// When the request that the lease counts from was sent.
    #[must_use]
    pub const fn sent(&self) -> Moment {
        self.sent
    }

    /// The moment until which the holder may act: sent + TTL − drift margin.
    #[must_use]
    pub fn deadline(&self) -> Moment {
        self.sent + self.timing.ttl.saturating_sub(self.timing.drift)
    }

    /// The moment of the loss signal: the deadline less the grace.
    #[must_use]
    pub fn lost_at(&self) -> Moment {
        self.deadline() - self.timing.grace
    }

    /// When the next renewal is due. `jitter` in 0.0 to 1.0 spreads the renewals of a fleet over
    /// the last fifth of the interval.
    #[must_use]
    pub fn renew_at(&self, jitter: f64) -> Moment {
        let early = 0.2 * jitter.clamp(0.0, 1.0);
        self.sent + self.timing.renew_every.mul_f64(1.0 - early)
    }

    /// Whether the holder may still act at `now`.
    #[must_use]
    pub fn is_good(&self, now: Moment) -> bool {
        now < self.lost_at()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn at(seconds: u64) -> Moment {
        Moment::ORIGIN + SECOND * u32::try_from(seconds).unwrap()
    }

    #[test]
    fn bad_timing_is_refused() {
        assert!(matches!(Timing::new(Duration::ZERO), Err(TimingError::TtlTooShort { .. })));
        assert!(matches!(
            Timing::new(Duration::from_millis(19)),
            Err(TimingError::TtlTooShort { .. })
        ));
        assert!(matches!(
            Timing::new(Timing::MAX_TTL + Duration::from_nanos(1)),
            Err(TimingError::TtlTooLong { .. })
        ));
        let timing = Timing::new(30 * SECOND).unwrap();
        assert!(matches!(
            timing.with_renew_every(15 * SECOND),
            Err(TimingError::RenewEvery { .. })
        ));
        assert!(matches!(
            timing.with_renew_every(Duration::ZERO),
            Err(TimingError::RenewEvery { .. })
        ));
        assert!(matches!(timing.with_grace(17 * SECOND), Err(TimingError::NoTimeLeft { .. })));
        assert!(matches!(timing.with_drift(20 * SECOND), Err(TimingError::NoTimeLeft { .. })));
        assert!(matches!(timing.with_grace(Duration::MAX), Err(TimingError::NoTimeLeft { .. })));
        for grace in [Duration::ZERO, Timing::MIN_GRACE.saturating_sub(Duration::from_nanos(1))] {
            let refused = Timing::custom(30 * SECOND, None, None, Some(grace));
            assert!(matches!(refused, Err(TimingError::GraceTooShort { .. })));
        }
    }

    #[test]
    fn the_default_timing_is_valid_over_the_whole_range() {
        for ttl in [Timing::MIN_TTL, SECOND, 30 * SECOND, Timing::MAX_TTL] {
            Timing::new(ttl).unwrap();
        }
    }

    #[test]
    fn the_deadline_counts_from_before_the_send_less_the_drift() {
        let timing = Timing::new(30 * SECOND).unwrap().with_grace(5 * SECOND).unwrap();
        let mut lease = Lease::new(at(100), timing);
        assert_eq!(lease.deadline(), at(127));
        assert_eq!(lease.lost_at(), at(122));
        assert!(lease.is_good(at(121)) && !lease.is_good(at(122)));
        lease.extend(at(110));
        lease.extend(at(105));
        assert_eq!(lease.deadline(), at(137), "a late answer to an older request moves nothing");
    }

    proptest! {
        #[test]
        fn the_order_is_renew_lost_deadline_lapse(
            ttl in 20_u64..86_400_000,
            sent in 0_u64..1 << 60,
            jitter in 0.0..1.0_f64,
        ) {
            let timing = Timing::new(Duration::from_millis(ttl)).unwrap();
            let lease = Lease::new(Moment::from_nanos(sent), timing);
            prop_assert!(lease.sent() < lease.renew_at(jitter));
            prop_assert!(lease.renew_at(jitter) < lease.lost_at());
            prop_assert!(lease.lost_at() < lease.deadline());
            prop_assert!(lease.deadline() < lease.sent() + timing.ttl());
        }
    }
}
