//! Limiters: a rate that a fleet keeps to. On a store that keeps no records each case asserts that
//! a limiter is refused, by name.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::stream::{FuturesUnordered, StreamExt};
use leasehold::limiter::{ANSWER, WINDOW};
use leasehold::{Away, Client, Effect, Error, ErrorKind, Limiter, Moment, Property, Quota, clock};
use leasehold_core::{Provided, Record};

use super::process::Worker;
use crate::actor::{PATIENT, client, key, soon};
use crate::chaos::{Call, Fault};
use crate::{Bench, Chaos, Reach};

/// Whether the store keeps records. If not, asserts that it refuses a limiter by name.
fn limits(bench: &dyn Bench) -> bool {
    let store = bench.handle();
    if store.guarantees().has(Property::Records) {
        return true;
    }
    let client = client(Arc::clone(&store), PATIENT);
    let error = client.limiter("k", "1/s", Away::Open).expect_err("keeps no records");
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Unsupported, Effect::None));
    assert_eq!(error.store(), Some(store.to_string().as_str()), "{error}");
    false
}

/// A client on a handle of its own.
fn another(bench: &dyn Bench) -> Client {
    client(bench.handle(), PATIENT)
}

/// A client whose calls can be made to fail.
fn troubled(bench: &dyn Bench) -> (Client, Chaos) {
    let chaos = Chaos::new(bench.handle());
    (client(Arc::new(chaos.clone()), PATIENT), chaos)
}

fn limiter(client: &Client, on: &str, rate: &str, burst: u32, away: Away) -> Limiter {
    let limiter = client.limiter(on, rate, away).expect("a limiter");
    limiter.burst(burst).expect("a burst")
}

async fn allowed(limiter: &Limiter, permits: u32) -> bool {
    let tried = soon("a try", limiter.try_acquire(permits)).await;
    tried.expect("the store answers").allowed
}

/// How many permits there are, one by one.
async fn drain(limiter: &Limiter) -> u32 {
    let mut count = 0;
    while allowed(limiter, 1).await {
        count += 1;
    }
    count
}

/// Panics when more was allowed in any time than the quota and its overshoot allow. Calls are
/// `(from, to)`: one was allowed somewhere in between, so that whoever asks can hold up one.
fn assert_within(quota: Quota, mut calls: Vec<(Moment, Moment)>, callers: usize) {
    calls.sort_by_key(|(_, to)| *to);
    let slowest = calls.iter().map(|(from, to)| to.since(*from)).max().unwrap_or_default();
    let overshoot = quota.overshoot(slowest.min(ANSWER), Duration::ZERO);
    let bound = u64::from(quota.burst()) + overshoot + u64::try_from(callers).expect("few");
    let cost = quota.rate().period().as_nanos();
    let (mut level, mut before) = (0_u128, Moment::ORIGIN);
    for (_, at) in calls {
        let given = at.since(before).as_nanos() * u128::from(quota.rate().permits());
        level = level.saturating_sub(given) + cost;
        before = at;
        let above = level.div_ceil(cost);
        assert!(above <= bound.into(), "{above} permits above the rate in some time, not {bound}");
    }
}

pub(crate) async fn limiters_share_one_limit_exactly_at_low_demand(bench: &dyn Bench) {
    if !limits(bench) {
        return;
    }
    let clients = [another(bench), another(bench), another(bench)];
    let limiters = clients.each_ref().map(|client| limiter(client, "k", "1/h", 6, Away::Closed));
    let untouched = limiters[0].peek().await.expect("answers");
    assert!(untouched.allowed && untouched.reset_after.is_zero() && !untouched.alone);
    assert_eq!((untouched.limit, untouched.remaining), (6, 6));
    for turn in 0..6_u32 {
        let limiter = &limiters[turn as usize % 3];
        let decision = limiter.try_acquire(1).await.expect("answers");
        assert!(decision.allowed && decision.retry_after.is_zero(), "{turn}: {decision:?}");
        assert_eq!((decision.limit, decision.remaining), (6, 5 - turn));
        let seen = limiters[(turn as usize + 1) % 3].peek().await.expect("answers");
        assert_eq!(seen.remaining, 5 - turn, "what one takes, the others see");
    }
    for limiter in &limiters {
        let refused = limiter.try_acquire(1).await.expect("answers");
        assert!(!refused.allowed && refused.remaining == 0, "{refused:?}");
        let hour = Duration::from_hours(1);
        assert!(refused.retry_after <= hour && refused.retry_after > hour * 9 / 10, "{refused:?}");
        assert!(refused.reset_after <= 6 * hour && refused.reset_after > 5 * hour, "{refused:?}");
    }
    // Another key, all or nothing, and back at the rate.
    let other = limiter(&clients[0], "other", "50/s", 4, Away::Closed);
    assert!(allowed(&other, 3).await);
    let begun = clock::now();
    soon("the rate gives it", other.acquire(4)).await.expect("answers");
    assert!(clock::now().since(begun) + WINDOW > Duration::from_millis(20), "three were missing");
    let blocking = limiters[0].quota();
    assert_eq!((blocking.burst(), blocking.rate().to_string().as_str()), (6, "1/h"));
}

pub(crate) async fn limiters_together_stay_within_the_bound(bench: &dyn Bench) {
    const CLIENTS: usize = 3;
    const TASKS: usize = 4;
    if !limits(bench) {
        return;
    }
    let quota = Quota::new("400/s".parse().expect("a rate"), 40).expect("a quota");
    let mut tasks = Vec::new();
    for _ in 0..CLIENTS {
        let client = another(bench);
        for task in 0..TASKS {
            let limiter = limiter(&client, "k", "400/s", 40, Away::Closed);
            tasks.push(tokio::spawn(async move {
                let mut calls = Vec::new();
                for turn in 0..150_u32 {
                    let from = clock::now();
                    let permits = 1 + (turn + u32::try_from(task).expect("few")) % 3;
                    let decision = if turn % 5 == 0 {
                        limiter.acquire(permits).await
                    } else {
                        limiter.try_acquire(permits).await
                    };
                    // A store that is slow for a moment is no subject here.
                    if decision.is_ok_and(|decision| decision.allowed) {
                        calls.extend((0..permits).map(|_| (from, clock::now())));
                    }
                }
                calls
            }));
        }
    }
    let mut calls = Vec::new();
    for task in tasks {
        calls.extend(soon("a task", task).await.expect("ends well"));
    }
    assert!(calls.len() > 40, "more than the burst: {}", calls.len());
    // Each task can hold up one call, of three permits.
    assert_within(quota, calls, CLIENTS * TASKS * 3);
}

pub(crate) async fn a_hundred_thousand_checks_cost_a_few_dozen_calls(bench: &dyn Bench) {
    if !limits(bench) {
        return;
    }
    // One that is never reached, and one that nearly always is.
    for (on, rate, burst) in [("wide", "5000000/s", 5_000_000), ("narrow", "1000/s", 1_000)] {
        let (client, chaos) = troubled(bench);
        let limiter = limiter(&client, on, rate, burst, Away::Closed);
        let (begun, mut allowed) = (clock::now(), 0_u32);
        for _ in 0..100_000 {
            let decision = limiter.try_acquire(1).await.expect("answers");
            allowed += u32::from(decision.allowed);
        }
        let took = clock::now().since(begun);
        let calls = chaos.count(Call::Read) + chaos.count(Call::Write);
        // A batch begins small, doubles, and then lasts for 50 ms: 20 a second, of two calls each;
        // where permits run out, it is the half of one that is worth the exchange.
        let most = 100.0 + 100.0 * took.as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "a few dozen")]
        let counted = calls as f64;
        assert!(counted <= most, "{on}: {calls} calls in {took:?}");
        if on == "wide" {
            assert_eq!(allowed, 100_000, "none is refused below the rate");
        } else {
            assert!(allowed >= 900, "the burst is there for the taking: {allowed}");
        }
    }
}

pub(crate) async fn an_unknown_write_of_a_limiter_counts_as_taken(bench: &dyn Bench) {
    if !limits(bench) {
        return;
    }
    let (client, chaos) = troubled(bench);
    let limiter = limiter(&client, "k", "1/h", 8, Away::Closed);
    chaos.always(Call::Write, Fault::DropReply);
    let error = limiter.try_acquire(1).await.expect_err("the replies get lost");
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Unavailable, Effect::Unknown));
    let lost = u32::try_from(chaos.count(Call::Write)).expect("few");
    assert!((1..6).contains(&lost), "{lost}");
    chaos.heal();
    // One that stays on the way until its caller has given up, and arrives then.
    soon("the store is back", limiter.acquire(1)).await.expect("answers");
    chaos.once(Call::Write, Fault::HoldRequest);
    limiter.try_acquire(1).await.expect_err("no answer in time");
    chaos.let_go();
    soon("the late write lands", chaos.landed(1)).await;
    soon("the store is back", limiter.acquire(1)).await.expect("answers");
    // What was cut off is lost, and nothing is given twice.
    let left = drain(&limiter).await;
    assert_eq!(lost + 1 + 1 + 1 + left, 8, "lost {lost}, and {left} left");
}

pub(crate) async fn a_limiter_that_another_was_faster_than_decides_anew(bench: &dyn Bench) {
    if !limits(bench) {
        return;
    }
    let ((client, chaos), other) = (troubled(bench), another(bench));
    for round in 0.. {
        let on = format!("k{round}");
        let slow = limiter(&client, &on, "1/h", 2, Away::Closed);
        let fast = limiter(&other, &on, "1/h", 2, Away::Closed);
        let writes = chaos.count(Call::Write);
        chaos.once(Call::Write, Fault::HoldRequest);
        let trying = tokio::spawn(async move { slow.try_acquire(1).await });
        soon("a write", chaos.arrived(Call::Write, writes + 1)).await;
        assert_eq!(drain(&fast).await, 2);
        chaos.let_go();
        match soon("an answer", trying).await.expect("runs") {
            Ok(decision) => {
                assert!(!decision.allowed, "both are taken");
                return;
            }
            // On a machine that stalled the answer came too late, and it is begun again.
            Err(error) => assert_eq!(error.effect(), Effect::Unknown, "{error}"),
        }
    }
}

pub(crate) async fn permits_that_arrive_after_a_pause_are_not_used(bench: &dyn Bench) {
    if !limits(bench) {
        return;
    }
    let paused = async {
        let (client, chaos) = troubled(bench);
        let limiter = limiter(&client, "k", "1/h", 5, Away::Closed);
        assert!(allowed(&limiter, 1).await);
        chaos.once(Call::Write, Fault::HoldReply);
        let mut trying = Box::pin(limiter.try_acquire(1));
        let carried_out = async {
            while limiter.peek().await.expect("answers").remaining != 3 {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            early = &mut trying => panic!("the reply is held back: {early:?}"),
            () = carried_out => {}
        }
        chaos.let_go();
        // sleep: as if the process were stopped, with the reply in its hands. Nothing else runs.
        std::thread::sleep(ANSWER + WINDOW);
        let error = trying.await.expect_err("permits of another time");
        assert_eq!((error.kind(), error.effect()), (ErrorKind::Unavailable, Effect::Unknown));
        soon("the store is asked again", limiter.acquire(1)).await.expect("answers");
        assert_eq!(drain(&limiter).await, 2, "of five, one given late and lost");
    };
    // On a runtime whose one thread can be stopped.
    tokio::task::block_in_place(|| {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                runtime.expect("a runtime starts").block_on(paused);
            });
        });
    });
}

pub(crate) async fn a_limiter_that_stays_open_decides_alone_while_the_store_is_away(
    bench: &dyn Bench,
) {
    if !limits(bench) {
        return;
    }
    for fault in [Fault::Fail, Fault::Freeze] {
        let (client, chaos) = troubled(bench);
        let limiter = limiter(&client, "k", "1/h", 5, Away::Open);
        chaos.always(Call::Read, fault);
        for turn in 0..5 {
            let decision = soon("a try", limiter.try_acquire(1)).await.expect("it stays open");
            assert!(decision.allowed && decision.alone, "{turn}: {decision:?}");
        }
        // To the rate it keeps all the same.
        let refused = soon("a try", limiter.try_acquire(1)).await.expect("it stays open");
        assert!(!refused.allowed && refused.alone, "{refused:?}");
        assert!(soon("a look", limiter.peek()).await.expect("it stays open").alone);
        chaos.heal();
        // And goes by the store again when that is back: there all five are left.
        soon("the store is back", async {
            while limiter.peek().await.expect("it stays open").alone {
                tokio::task::yield_now().await;
            }
            limiter.acquire(5).await.expect("answers")
        })
        .await;
        let other = another(bench);
        let seen = self::limiter(&other, "k", "1/h", 5, Away::Closed).peek().await;
        assert_eq!(seen.expect("answers").remaining, 0, "taken from the store");
        forget(bench, "k").await;
    }
}

pub(crate) async fn a_limiter_that_stays_closed_allows_nothing_while_the_store_is_away(
    bench: &dyn Bench,
) {
    if !limits(bench) {
        return;
    }
    for fault in [Fault::Fail, Fault::Freeze] {
        let (client, chaos) = troubled(bench);
        let limiter = limiter(&client, "k", "1000/s", 5, Away::Closed);
        chaos.always(Call::Read, fault);
        for attempt in 0..3 {
            let error = soon("a try", limiter.try_acquire(1)).await.expect_err("it is closed");
            assert_eq!(error.kind(), ErrorKind::Unavailable);
            assert_eq!(error.store(), Some(chaos.to_string().as_str()));
            assert_eq!(error.key(), Some(&key("k")));
            if fault == Fault::Freeze && attempt == 0 {
                assert_eq!(chaos.count(Call::Read), 1, "who waited once does not wait thrice");
            }
        }
        soon("a look", limiter.peek()).await.expect_err("there is nothing to see");
        let wait = limiter.acquire_within(1, Duration::from_millis(50));
        let error = soon("a wait", wait).await.expect_err("it is closed");
        assert_eq!(error.kind(), ErrorKind::Unavailable, "no mere time-out: {error}");
        // A wait outlasts it.
        let mut waiting = Box::pin(limiter.acquire(1));
        assert!((&mut waiting).now_or_never().is_none());
        chaos.heal();
        assert!(soon("the store is back", waiting).await.expect("answers").allowed);
    }
    // And the server itself, where there is one.
    let Some(server) = bench.server() else { return };
    let limiter = limiter(&another(bench), "server", "1000/s", 5, Away::Closed);
    soon("a permit", limiter.acquire(1)).await.expect("answers");
    server.kill().await;
    // What is left of a batch may be spent for a moment.
    let refused = async {
        while limiter.try_acquire(5).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    soon("the store is away", refused).await;
    server.start().await;
    soon("the store is back", limiter.acquire(5)).await.expect("answers");
}

/// Makes the next limiter of the key begin anew.
async fn forget(bench: &dyn Bench, on: &str) {
    let (store, on) = (bench.handle(), key(on));
    let brief = Record::new(b"", Record::MIN_KEEP).expect("a record");
    let version = |reading: leasehold::Reading| reading.written.map(|written| written.version);
    let seen = version(store.read(&on).await.expect("answers"));
    assert!(store.write(&on, Provided::Unchanged(seen), &brief).await.expect("answers"));
    let forgotten = async {
        while store.read(&on).await.expect("answers").written.is_some() {
            // sleep: the store is asked again until it has forgotten.
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    soon("the record is forgotten", forgotten).await;
}

pub(crate) async fn limiters_that_disagree_on_the_rate_count_the_same_permits(bench: &dyn Bench) {
    if !limits(bench) {
        return;
    }
    let [old, new] = [another(bench), another(bench)];
    // One count, whatever the burst: the smaller sees nothing left before the greater does.
    let [wide, narrow] = [(&old, 8), (&new, 3)]
        .map(|(client, burst)| limiter(client, "burst", "1/h", burst, Away::Closed));
    assert!(allowed(&narrow, 2).await && allowed(&wide, 1).await);
    assert!(!allowed(&narrow, 1).await, "three are taken");
    assert_eq!(drain(&wide).await, 5, "of eight");
    assert!(!allowed(&narrow, 1).await && !allowed(&wide, 1).await);

    // A raised rate holds at once, for all that was taken before.
    let [slow, fast] = [(&old, "1/h"), (&new, "20/s")]
        .map(|(client, rate)| limiter(client, "raised", rate, 4, Away::Closed));
    assert!(allowed(&slow, 4).await);
    let begun = clock::now();
    soon("at the new rate", fast.acquire(2)).await.expect("answers");
    assert!(clock::now().since(begun) >= Duration::from_millis(90), "what was taken counts");

    // A lowered one holds at once, and blocks nobody for what was taken before.
    let [fast, slow] = [(&old, "100/s", 100), (&new, "1/h", 1)]
        .map(|(client, rate, burst)| limiter(client, "lowered", rate, burst, Away::Closed));
    assert!(allowed(&fast, 100).await);
    assert!(!allowed(&slow, 1).await);
    soon("as soon as the old would", slow.acquire(1)).await.expect("answers");
    assert!(!allowed(&slow, 1).await, "at the new rate");
}

pub(crate) async fn a_forgotten_record_gives_no_more_than_the_burst(bench: &dyn Bench) {
    if !limits(bench) {
        return;
    }
    let client = another(bench);
    let limiter = limiter(&client, "k", "10/s", 5, Away::Closed);
    let store = bench.handle();
    let begun = clock::now();
    assert!(allowed(&limiter, 5).await);
    assert!(store.read(&key("k")).await.expect("answers").written.is_some());
    let forgotten = async {
        while store.read(&key("k")).await.expect("answers").written.is_some() {
            // sleep: the store is asked again until it has forgotten.
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    soon("the record is forgotten", forgotten).await;
    let owed = Duration::from_millis(500);
    assert!(clock::now().since(begun) >= owed, "forgotten before it was paid off");
    assert!(allowed(&limiter, 5).await, "a whole burst is earned by then");
    assert!(!limiter.peek().await.expect("answers").reset_after.is_zero());
}

pub(crate) async fn a_limiter_refuses_what_is_not_its_own(bench: &dyn Bench) {
    if !limits(bench) {
        return;
    }
    let client = another(bench);
    let invalid = |error: Error| assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    let good = limiter(&client, "k", "10/s", 5, Away::Open);
    invalid(good.try_acquire(0).await.expect_err("none"));
    invalid(good.acquire(6).await.expect_err("more than ever come together"));
    invalid(client.limiter("k", "10", Away::Open).expect_err("no rate"));
    invalid(client.limiter("", "10/s", Away::Open).expect_err("no key"));
    invalid(good.clone().burst(0).expect_err("no burst"));
    // Whatever happens when the store is away: this is not that.
    let damaged =
        br#"{"leasehold":"limiter/1","permits":0,"period_ns":1,"burst":0,"at_ns":0,"debt":"x"}"#;
    for (on, value) in [
        ("none", &b"job 7"[..]),
        ("other", br#"{"leasehold":"election/1"}"#),
        ("newer", br#"{"leasehold":"limiter/2"}"#),
        ("damaged", damaged),
    ] {
        let store = bench.handle();
        let record = Record::new(value, Duration::from_hours(1)).expect("a record");
        assert!(store.write(&key(on), Provided::Unchanged(None), &record).await.expect("answers"));
        for away in [Away::Open, Away::Closed] {
            let limiter = limiter(&client, on, "10/s", 5, away);
            for error in [
                soon("a try", limiter.try_acquire(1)).await.expect_err("not its own"),
                soon("a wait", limiter.acquire(1)).await.expect_err("not its own"),
                soon("a look", limiter.peek()).await.expect_err("not its own"),
            ] {
                assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
                assert_eq!(error.key(), Some(&key(on)));
            }
        }
        let kept = store.read(&key(on)).await.expect("answers").written.expect("kept");
        assert_eq!(&*kept.value, value, "nothing of somebody else's is overwritten");
    }
}

pub(crate) async fn waiting_for_permits_is_in_order_and_can_be_given_up(bench: &dyn Bench) {
    if !limits(bench) {
        return;
    }
    let client = another(bench);
    let ordered = limiter(&client, "ordered", "20/s", 2, Away::Closed);
    let mut waiting = FuturesUnordered::new();
    for number in 0..8 {
        let limiter = ordered.clone();
        let mut wait = async move { (number, limiter.acquire(1 + number % 2).await) }.boxed();
        // In the queue with the first poll.
        match (&mut wait).now_or_never() {
            None => waiting.push(wait),
            Some(early) => panic!("a store answers later: {early:?}"),
        }
    }
    // One that does not wait never overtakes them.
    assert!(!allowed(&ordered, 2).await);
    let mut order = Vec::new();
    while let Some((number, outcome)) = soon("the next one", waiting.next()).await {
        outcome.expect("answers");
        order.push(number);
    }
    assert_eq!(order, [0, 1, 2, 3, 4, 5, 6, 7]);

    // Whoever gives up frees the place, and what was on its way is not given twice.
    let once = limiter(&client, "once", "1/h", 5, Away::Closed);
    assert!(allowed(&once, 2).await);
    let mut first = Box::pin(once.acquire(5));
    let mut second = Box::pin(once.acquire(1));
    assert!((&mut first).now_or_never().is_none() && (&mut second).now_or_never().is_none());
    soon("the store was asked", async {
        // The first is refused by the store, and stays in front.
        while once.peek().await.expect("answers").remaining != 3 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    drop(first);
    soon("its place is free", second).await.expect("answers");
    for _ in 0..20 {
        let _ = once.try_acquire(1).now_or_never();
        let _ = once.acquire(2).now_or_never();
    }
    let left = drain(&once).await;
    assert!(left <= 2, "{left} of the two that were left");
}

pub(crate) async fn processes_together_stay_within_the_bound(bench: &dyn Bench) {
    const WORKERS: usize = 8;
    if !limits(bench) || bench.reach() == Reach::Process {
        return;
    }
    // A minute of it is `LEASEHOLD_LIMITER_SECONDS=60`; the store is what takes its time here.
    let seconds = std::env::var("LEASEHOLD_LIMITER_SECONDS");
    let seconds: u64 = seconds.map_or(3, |text| text.parse().expect("a number of seconds"));
    let quota = Quota::new("300/s".parse().expect("a rate"), 30).expect("a quota");
    let millis = (seconds * 1_000).to_string();
    let workers: Vec<Worker> = (0..WORKERS)
        .map(|_| Worker::spawn(bench.worker(), &["admit", "k", "300/s", "30", &millis]))
        .collect();
    let (mut calls, mut silent) = (Vec::new(), 0);
    for worker in workers {
        let lines = worker.rest().await;
        silent += usize::from(lines.is_empty());
        calls.extend(lines.iter().map(|line| {
            let (from, to) = line.split_once(' ').expect("two numbers");
            let moment = |text: &str| Moment::from_nanos(text.parse().expect("a number"));
            (moment(from), moment(to))
        }));
    }
    assert!(calls.len() > 60 && silent < WORKERS, "{} by {silent} fewer processes", calls.len());
    assert_within(quota, calls, WORKERS);
}
