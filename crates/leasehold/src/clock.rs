//! The one file that reads a clock.

use std::time::Duration;

use leasehold_core::Moment;

/// Now, on the clock that counts time asleep: `CLOCK_BOOTTIME` on Linux.
///
/// `std::time::Instant` stops while a Linux machine is suspended, and a lease does not.
#[must_use]
pub fn now() -> Moment {
    #[cfg(target_os = "linux")]
    const CLOCK: rustix::time::ClockId = rustix::time::ClockId::Boottime;
    // macOS's CLOCK_MONOTONIC goes on counting while the machine sleeps.
    #[cfg(not(target_os = "linux"))]
    const CLOCK: rustix::time::ClockId = rustix::time::ClockId::Monotonic;

    let now = rustix::time::clock_gettime(CLOCK);
    let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
    let nanos = u64::try_from(now.tv_nsec).unwrap_or_default();
    Moment::from_nanos(seconds.saturating_mul(1_000_000_000).saturating_add(nanos))
}

/// The wall clock: microseconds since 1970, by which fences also grow where a counter was lost,
/// and by which the clocks of servers are compared with this one.
/// Nothing measures a duration with it: it can be set.
pub(crate) fn wall_micros() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
    let nanos = u64::try_from(now.tv_nsec).unwrap_or_default();
    seconds.saturating_mul(1_000_000).saturating_add(nanos / 1_000)
}

/// The wall clock: the time since 1970.
pub(crate) fn wall() -> Duration {
    Duration::from_micros(wall_micros())
}

/// Sleeps until `moment`, and at most a second longer if the machine was suspended meanwhile:
/// tokio's timers do not count time asleep, so the clock is looked at again each second.
///
/// Cancel safe.
pub(crate) async fn sleep_until(moment: Moment) {
    const LOOK: Duration = Duration::from_secs(1);
    loop {
        let left = moment.since(now());
        if left.is_zero() {
            return;
        }
        tokio::time::sleep(left.min(LOOK)).await;
    }
}
