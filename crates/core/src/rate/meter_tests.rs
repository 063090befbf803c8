use proptest::prelude::*;

use super::*;

const SECOND: u64 = 1_000_000_000;

fn quota(rate: &str, burst: u32) -> Quota {
    Quota::new(rate.parse().unwrap(), burst).unwrap()
}

fn at(meter: Meter, nanos: u64) -> Meter {
    meter.drained_to(nanos)
}

#[test]
fn a_burst_and_then_the_rate() {
    let mut meter = Meter::new(quota("10/s", 3), 7);
    for remaining in [2, 1, 0] {
        let decision = meter.take(1);
        assert!(decision.allowed && decision.retry_after.is_zero());
        assert_eq!((decision.limit, decision.remaining), (3, remaining));
    }
    let refused = meter.take(1);
    assert!(!refused.allowed);
    assert_eq!(refused.retry_after, Duration::from_millis(100));
    assert_eq!(refused.reset_after, Duration::from_millis(300));
    // Not a nanosecond before, and then exactly one.
    assert_eq!(at(meter, 7 + SECOND / 10 - 1).available(), 0);
    let mut later = at(meter, 7 + SECOND / 10);
    assert_eq!(later.available(), 1);
    assert!(later.take(1).allowed && !later.take(1).allowed);
    // More than there is leaves what there is.
    let mut some = at(meter, 7 + SECOND / 5);
    assert!(!some.take(3).allowed);
    assert_eq!(some.available(), 2);
    assert_eq!(at(meter, 8 * SECOND).available(), 3, "never more than the burst");
}

#[test]
fn nothing_drifts_over_years() {
    // 7 in 11 ns is no decimal fraction of anything.
    let mut meter = Meter::new(quota("7/11us", 7), 0);
    for round in 0..1_000_000_u64 {
        meter = at(meter, round * 11_000);
        assert_eq!(meter.available(), 7, "round {round}");
        assert!(meter.take(7).allowed);
        assert_eq!(meter.reset_after(), Duration::from_micros(11));
    }
}

#[test]
fn nothing_overflows_at_the_bounds() {
    let most = Quota::MAX_BURST;
    for (rate, burst) in [
        (Rate::new(most, Rate::MIN_PERIOD).unwrap(), most),
        (Rate::new(most, Rate::MAX_PERIOD).unwrap(), most),
        (Rate::new(1, Rate::MIN_PERIOD).unwrap(), most),
        (Rate::new(1, Rate::MAX_PERIOD).unwrap(), 4),
    ] {
        let quota = Quota::new(rate, burst).unwrap();
        for at in [0, 1_800_000_000 * SECOND, u64::MAX] {
            let mut meter = Meter::new(quota, at);
            assert!(meter.take(burst).allowed && !meter.take(1).allowed);
            assert!(!meter.take(u32::MAX).allowed);
            let read = Meter::from_parts(meter.parts()).unwrap();
            assert_eq!(read, meter);
            assert_eq!(meter.drained_to(u64::MAX).at, u64::MAX);
            for other in ["1/366d", "1000000000/us", "1/s"] {
                let other = Quota::new(other.parse().unwrap(), 3).unwrap();
                let (opened, _) = Meter::opened(other, Some(meter), Now::Own(Duration::MAX));
                assert!(opened.available() <= 3);
                assert!(opened.keep() <= Record::MAX_KEEP);
            }
        }
    }
}

#[test]
fn a_record_is_kept_until_nothing_is_owed() {
    for taken in [0, 1, 5, 100] {
        let mut meter = Meter::new(quota("1/min", 100), 5 * SECOND);
        meter.take(taken);
        assert!(meter.keep() > Duration::from_mins(taken.into()), "{taken}");
        assert!(meter.keep() < Duration::from_mins(taken.into()) * 2 + 2 * Duration::from_secs(1));
    }
}

#[test]
fn what_cannot_have_been_written_is_refused() {
    let mut meter = Meter::new(quota("100/s", 20), SECOND);
    meter.take(20);
    let good = meter.parts();
    assert_eq!(Meter::from_parts(good), Some(meter));
    let most = u128::from(Quota::MAX_BURST) * u128::from(good.period);
    for bad in [
        Parts { permits: 0, ..good },
        Parts { period: 0, ..good },
        Parts { burst: 0, ..good },
        Parts { burst: u32::MAX, ..good },
        Parts { debt: most + 1, ..good },
        Parts { debt: u128::MAX, ..good },
    ] {
        assert_eq!(Meter::from_parts(bad), None, "{bad:?}");
    }
}

#[test]
fn a_raised_rate_holds_at_once() {
    let mut slow = Meter::new(quota("1/h", 10), 0);
    slow.take(10);
    let fast = quota("10/s", 10);
    let (opened, write) = Meter::opened(fast, Some(slow), Now::Store(Duration::from_secs(1)));
    assert!(write, "or it would go on being paid off at the old rate");
    assert_eq!(opened.available(), 0, "what was given stays given");
    assert_eq!(opened.drained_by(Duration::from_millis(100)).available(), 1);
    assert_eq!(opened.drained_by(Duration::from_secs(1)).available(), 10);
}

#[test]
fn a_debt_under_another_rate_is_rounded_up() {
    let [slow, fast] = ["3/3us", "1/us"].map(|rate| quota(rate, 10).rate);
    // Else those who take turns at two rates would pay nothing.
    assert_eq!(exchanged(1, slow, fast), 1);
    assert_eq!(exchanged(3_001, slow, fast), 1_001);
    assert_eq!(exchanged(3_000, slow, fast), 1_000);
}

#[test]
fn a_lowered_rate_holds_at_once_and_does_not_block() {
    let mut fast = Meter::new(quota("100/s", 100), 0);
    fast.take(100);
    let slow = quota("1/h", 1);
    let open = |millis| Meter::opened(slow, Some(fast), Now::Store(Duration::from_millis(millis)));
    let (opened, write) = open(0);
    assert_eq!((opened.available(), write), (0, false), "99 more than the new burst");
    assert_eq!(open(980).0.available(), 0);
    // By then what exceeds the new burst is paid off, at the old rate; the rest goes by the new.
    let (opened, write) = open(990);
    assert_eq!((opened.available(), write), (0, true));
    assert_eq!(opened.drained_by(Duration::from_hours(1)).available(), 1);
    let (mut opened, _) = open(1_000);
    assert!(opened.take(1).allowed && !opened.take(1).allowed);
}

#[test]
fn a_clock_that_is_set_back_neither_blocks_nor_gives() {
    let mut meter = Meter::new(quota("10/s", 10), 5_000 * SECOND);
    meter.take(10);
    let open = |seconds, now: fn(Duration) -> Now| {
        Meter::opened(meter.quota(), Some(meter), now(Duration::from_secs(seconds)))
    };
    let (opened, write) = open(1_000, Now::Store);
    assert_eq!((opened.available(), write), (0, true), "nothing is given");
    assert_eq!(opened.drained_to(1_001 * SECOND).available(), 10, "and time goes on from there");
    // A little: time stands still. So does it where the clocks are many.
    assert_eq!(open(4_999, Now::Store), (meter, false));
    assert_eq!(open(1_000, Now::Own), (meter, false));
}

/// The most that was taken in any time, beyond what `rate` gives in that time: in units.
#[derive(Default)]
struct Watch {
    level: u128,
    most: u128,
    at: u64,
}

impl Watch {
    fn taken(&mut self, at: u64, permits: u32, rate: Rate) {
        let given = u128::from(at - self.at) * u128::from(rate.permits);
        self.level =
            self.level.saturating_sub(given) + u128::from(permits) * u128::from(rate.period);
        (self.at, self.most) = (at, self.most.max(self.level));
    }
}

fn any_quota() -> impl Strategy<Value = Quota> {
    (1..50_u32, 1..2_000_u64, 1..60_u32).prop_map(|(permits, millis, burst)| {
        Quota::new(Rate::new(permits, Duration::from_millis(millis)).unwrap(), burst).unwrap()
    })
}

proptest! {
    #[test]
    fn never_more_than_the_rate_and_the_burst_in_any_time(
        quota in any_quota(),
        calls in prop::collection::vec((0..3_000_000_000_u64, 1..70_u32), 1..200),
    ) {
        let (mut now, mut watch) = (0, Watch::default());
        let mut written: Option<Meter> = None;
        for (pause, permits) in calls {
            // In between no time, and once in a while a long one.
            now += if pause % 3 == 0 { pause % 1_000_000 } else { pause };
            let (mut meter, _) =
                Meter::opened(quota, written, Now::Store(Duration::from_nanos(now)));
            let wait = meter.wait_for(permits);
            let before = meter;
            let decision = meter.take(permits);
            if decision.allowed {
                watch.taken(now, permits, quota.rate());
                written = Some(Meter::from_parts(meter.parts()).unwrap());
            } else {
                prop_assert_eq!(meter, before);
                if permits <= quota.burst() {
                    // What it says is exact to the nanosecond.
                    prop_assert_eq!(decision.retry_after, wait);
                    let mut then = meter.drained_by(wait);
                    prop_assert!(then.take(permits).allowed);
                    let just_before = meter.drained_by(wait.saturating_sub(Duration::from_nanos(1)));
                    prop_assert!(just_before.available() < permits);
                }
            }
        }
        prop_assert!(watch.most <= quota.full());
    }

    #[test]
    fn a_mixture_of_quotas_has_no_more_than_the_greatest_of_them(
        quotas in prop::collection::vec(any_quota(), 2..4),
        calls in prop::collection::vec((0..4_usize, 0..2_000_000_000_u64, 1..70_u32), 1..200),
    ) {
        let fastest = quotas.iter().map(|quota| quota.rate())
            .reduce(|one, other| if other.is_faster_than(one) { other } else { one }).unwrap();
        let burst = quotas.iter().map(|quota| quota.burst()).max().unwrap();
        let (mut now, mut watch) = (0, Watch::default());
        let mut written = None;
        for (who, pause, permits) in calls {
            now += pause;
            let quota = quotas[who % quotas.len()];
            let (mut meter, write) =
                Meter::opened(quota, written, Now::Store(Duration::from_nanos(now)));
            let allowed = meter.take(permits).allowed;
            if allowed {
                watch.taken(now, permits, fastest);
            }
            if allowed || write {
                written = Some(meter);
            }
        }
        prop_assert!(watch.most <= u128::from(burst) * u128::from(fastest.period));
    }
}
