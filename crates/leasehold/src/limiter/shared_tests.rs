use leasehold_core::Rate;

use super::*;
use crate::stores;

type Outcome = oneshot::Receiver<Result<Decision>>;

fn shared() -> Shared {
    let rate: Rate = "1/h".parse().unwrap();
    let store = stores::connect("memory:").unwrap();
    Shared::new(store, Key::new("k").unwrap(), Quota::new(rate, 10).unwrap())
}

/// A caller in the queue, for whom an exchange was planned.
fn queue(shared: &Shared, permits: u32, waits: bool) -> Outcome {
    let (answer, outcome) = oneshot::channel();
    let caller = Caller { permits, waits, away: Away::Closed, planned: true, answer };
    shared.lock().queue.push_back(caller);
    outcome
}

fn bring(shared: &Shared, taken: u32) {
    let mut meter = Meter::new(shared.quota, 0);
    meter.take(10);
    shared.settle(&Brought { began: clock::now(), meter, taken });
}

fn allowed(mut outcome: Outcome) -> Option<bool> {
    outcome.try_recv().ok().map(|decision| decision.unwrap().allowed)
}

#[test]
fn nobody_overtakes_who_waits_for_more() {
    let shared = shared();
    let outcomes = [(2, true), (5, true), (1, true), (1, false)]
        .map(|(permits, waits)| queue(&shared, permits, waits));
    bring(&shared, 4);
    assert_eq!(outcomes.map(allowed), [Some(true), None, None, Some(false)]);
    let queue: Vec<u32> = shared.lock().queue.iter().map(|caller| caller.permits).collect();
    assert_eq!(queue, [5, 1]);
}

#[test]
fn permits_of_who_gave_up_go_to_the_others_and_only_once() {
    let shared = shared();
    drop(queue(&shared, 3, true));
    let others = [queue(&shared, 2, false), queue(&shared, 2, false)];
    bring(&shared, 3);
    assert_eq!(others.map(allowed), [Some(true), Some(false)]);
    let now = clock::now();
    assert!(shared.lock().batch.stock(now) <= 1, "three, of which two are spent");
}
