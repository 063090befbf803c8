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

fn away(kind: ErrorKind) -> Error {
    Error::new(kind, "limit", "for the test")
}

fn caller(permits: u32, away: Away) -> (Caller, Outcome) {
    let (answer, outcome) = oneshot::channel();
    (Caller { permits, waits: false, away, planned: false, answer }, outcome)
}

#[test]
fn no_more_is_taken_than_those_in_turn_lack() {
    let shared = shared();
    let full = Meter::new(shared.quota, 0);
    let _waiting = [(2, true), (11, true), (1, true)].map(|(n, waits)| queue(&shared, n, waits));
    assert_eq!(shared.plan(&full), 2, "nobody behind who waits for more");
    let began = clock::now();
    shared.lock().batch.keep(began, 2, 2);
    assert_eq!(shared.plan(&full), 0, "the stock is for them");
}

#[test]
fn a_try_leaves_the_stock_to_who_waits() {
    let shared = Arc::new(shared());
    let _waiting = queue(&shared, 5, true);
    let began = clock::now();
    {
        let mut state = shared.lock();
        state.batch.keep(began, 3, 3);
        state.served = true;
    }
    let (caller, mut outcome) = caller(1, Away::Closed);
    assert!(shared.enqueue(caller).unwrap().is_none());
    assert!(outcome.try_recv().is_err(), "it is in the queue");
}

#[test]
fn a_full_store_is_away_and_a_corrupt_record_is_not() {
    assert!(is_away(&away(ErrorKind::Full)) && is_away(&away(ErrorKind::Unavailable)));
    for kind in [ErrorKind::Corrupt, ErrorKind::Denied, ErrorKind::Invalid] {
        assert!(!is_away(&away(kind)), "{kind:?}");
    }
}

#[test]
fn a_store_that_is_away_is_left_alone_until_it_answers() {
    let shared = shared();
    shared.fail(&away(ErrorKind::Unavailable));
    let (_, until) = shared.lock().away.clone().unwrap();
    assert!(until > clock::now(), "for 25 milliseconds at least");
    shared.lock().failed = Some(away(ErrorKind::Unavailable));
    bring(&shared, 0);
    assert!(shared.lock().away.is_none() && shared.trouble().is_none());
}

#[test]
fn who_stays_open_alone_keeps_to_the_burst_and_the_rate() {
    let shared = shared();
    let now = clock::now();
    let alone = |now| {
        let (caller, _) = caller(10, Away::Open);
        let error = away(ErrorKind::Unavailable);
        shared.lock().decide_alone(now, &caller, &error).unwrap().unwrap().allowed
    };
    assert!(alone(now) && !alone(now));
    let hours = std::time::Duration::from_hours;
    assert!(!alone(now + hours(9)) && alone(now + hours(10)));
}
