use super::*;

const MILLI: Duration = Duration::from_millis(1);

fn quota(rate: &str, burst: u32) -> Quota {
    Quota::new(rate.parse().unwrap(), burst).unwrap()
}

fn at(millis: u32) -> Moment {
    Moment::ORIGIN + 1_000 * MILLI + millis * MILLI
}

/// A batch after an exchange that took `taken`, of which nobody had any yet.
fn stocked(quota: Quota, taken: u32) -> Batch {
    let (mut batch, mut meter) = (Batch::new(quota), Meter::new(quota, 0));
    meter.take(taken);
    let left = batch.arrive(at(0), at(0), meter, taken);
    batch.keep(at(0), left, taken);
    batch
}

#[test]
fn a_stock_is_spent_within_its_window_or_never() {
    let mut batch = stocked(quota("100/s", 10), 6);
    assert!(batch.spend(at(99), 2).is_some_and(|decision| decision.allowed));
    assert_eq!(batch.stock(at(99)), 4);
    assert_eq!(batch.stock(at(0) + WINDOW), 0, "to the nanosecond");
    assert!(batch.spend(at(100), 1).is_none());
    assert!(batch.spend(at(10_000), 1).is_none());
}

#[test]
fn the_window_counts_from_before_the_exchange_whenever_its_answer_comes() {
    let quota = quota("100/s", 10);
    let (mut batch, meter) = (Batch::new(quota), Meter::new(quota, 0));
    // Ninety milliseconds on the way: who waited has theirs, and the rest have ten.
    assert_eq!(batch.arrive(at(90), at(0), meter, 6), 6);
    batch.keep(at(0), 5, 6);
    assert_eq!((batch.stock(at(99)), batch.stock(at(100))), (5, 0));
    // On the way for longer than that: only who waited.
    assert_eq!(batch.arrive(at(400), at(200), meter, 6), 6);
    batch.keep(at(200), 5, 6);
    assert_eq!(batch.stock(at(400)), 0);
}

#[test]
fn a_new_batch_gives_the_old_one_no_more_time() {
    let quota = quota("100/s", 10);
    let mut batch = stocked(quota, 3);
    let meter = Meter::new(quota, 0);
    assert_eq!(batch.arrive(at(50), at(50), meter, 2), 5, "both can be spent by who waited");
    batch.keep(at(50), 5, 2);
    assert_eq!(batch.stock(at(149)), 2, "nobody did, and three of them were to expire by now");
    // An exchange that brings nothing changes nothing.
    assert_eq!(batch.arrive(at(60), at(60), meter, 0), 2);
    batch.keep(at(60), 2, 0);
    assert_eq!((batch.stock(at(149)), batch.stock(at(150))), (2, 0));
}

#[test]
fn what_is_certain_to_be_refused_needs_no_store_and_not_for_ever() {
    let mut batch = stocked(quota("10/s", 5), 5);
    assert!(batch.spend(at(1), 5).is_some());
    let refused = batch.refuse(at(1), 1, 0).expect("nothing is left for 99 ms");
    assert!(!refused.allowed);
    assert_eq!((refused.remaining, refused.retry_after), (0, 99 * MILLI));
    assert!(batch.refuse(at(99), 1, 0).is_some());
    assert!(batch.refuse(at(100), 1, 0).is_none(), "the store may have one");
    assert!(batch.refuse(at(100), 1, 1).is_some(), "but not another for those before");
    let mut batch = stocked(quota("1/h", 5), 5);
    assert!(batch.spend(at(1), 5).is_some());
    assert!(batch.refuse(at(1), 1, 0).is_some());
    assert!(batch.refuse(at(0) + RECHECK, 1, 0).is_none(), "somebody may have changed the rate");
    assert!(Batch::new(quota("1/h", 5)).refuse(at(0), 1, 0).is_none(), "nothing is known");
}

#[test]
fn few_calls_take_nothing_ahead_and_many_what_was_asked_for_lately() {
    let mut batch = Batch::new(quota("1000/s", 1_000));
    for _ in 1..MANY {
        batch.hear(at(0), 3);
    }
    assert_eq!(batch.ahead(at(0), 500), 0);
    batch.hear(at(1), 3);
    assert_eq!(batch.ahead(at(1), 500), 3 * MANY);
    assert_eq!(batch.ahead(at(1), 10), 10, "no more than there is");
    assert_eq!(batch.ahead(at(60), 500), 3 * MANY, "in the time of a batch before this one");
    assert_eq!(batch.ahead(at(200), 500), 0, "that was long ago");
    // Near the end of a burst, at a rate that does not make up for what expires: half at most.
    let mut batch = Batch::new(quota("1/min", 1_000));
    for _ in 0..100 {
        batch.hear(at(0), 1);
    }
    assert_eq!([1_000, 60, 3, 1, 0].map(|left| batch.ahead(at(0), left)), [100, 30, 1, 0, 0]);
}
