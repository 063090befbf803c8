//! How long to wait before asking again: exponential, with full jitter, from a seed.

use std::time::Duration;

/// Waits that double from `base` up to `cap`, each drawn evenly from its upper half, so that
/// competitors who failed together do not come back together.
///
/// The same seed gives the same waits.
#[derive(Debug, Clone)]
pub struct Backoff {
    base: Duration,
    cap: Duration,
    attempt: u32,
    random: Random,
}

impl Backoff {
    /// Waits from `base` to `cap`.
    #[must_use]
    pub const fn new(base: Duration, cap: Duration, seed: u64) -> Self {
        Self { base, cap, attempt: 0, random: Random::new(seed) }
    }

    /// The next wait: between half of `base` and `cap`.
    #[must_use]
    pub fn next_wait(&mut self) -> Duration {
        let doubled = self.base.saturating_mul(1_u32.checked_shl(self.attempt).unwrap_or(u32::MAX));
        self.attempt = self.attempt.saturating_add(1);
        doubled.min(self.cap).mul_f64(0.5 + 0.5 * self.random.fraction())
    }

    /// Starts over at `base`, after something went well.
    pub const fn reset(&mut self) {
        self.attempt = 0;
    }
}

/// `SplitMix64` (Steele, Lea, Flood 2014): enough to spread competitors, not for secrets.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// A sequence of its own for each seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    #[must_use]
    pub const fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// The next number from 0.0 up to, but not including, 1.0.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "53 bits are what an f64 holds")]
    pub fn fraction(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: Duration = Duration::from_millis(10);
    const CAP: Duration = Duration::from_secs(1);

    #[test]
    fn waits_grow_to_the_cap_and_stay_within_bounds() {
        let mut backoff = Backoff::new(BASE, CAP, 7);
        for attempt in 0..200_u32 {
            let wait = backoff.next_wait();
            let full = BASE.saturating_mul(1_u32.checked_shl(attempt).unwrap_or(u32::MAX)).min(CAP);
            assert!(wait >= full / 2 && wait <= full, "attempt {attempt}: {wait:?}");
        }
        backoff.reset();
        assert!(backoff.next_wait() <= BASE);
    }

    #[test]
    fn the_same_seed_gives_the_same_waits_and_another_seed_does_not() {
        let waits = |seed| {
            let mut backoff = Backoff::new(BASE, CAP, seed);
            [(); 8].map(|()| backoff.next_wait())
        };
        assert_eq!(waits(1), waits(1));
        assert_ne!(waits(1), waits(2));
    }
}
