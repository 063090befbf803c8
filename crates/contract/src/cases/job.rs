//! Jobs as a program uses them. A store that keeps no records is refused when one is made.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use leasehold::{Away, Begin, Client, ErrorKind, Forgotten, Job, Property, Schedule, Store, Turn};

use crate::Bench;
use crate::actor::{Actor, PATIENT, brief, client, key, soon};
use crate::chaos::{Call, Chaos, Fault};

fn version(client: &Client, name: &str) -> Job {
    client.job("job", Schedule::version(name).expect("a schedule")).expect("a job")
}

/// Whether the store keeps records. If not, asserts that jobs are refused by name.
fn keeps(bench: &dyn Bench) -> bool {
    let client = client(bench.handle(), PATIENT);
    let keeps = client.store().guarantees().has(Property::Records);
    match client.job("job", Schedule::version("v1").expect("a schedule")) {
        Ok(_) => assert!(keeps, "a store that keeps no records says so at once"),
        Err(error) => {
            assert!(!keeps, "{error}");
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
            assert_eq!(error.store(), Some(client.store().to_string().as_str()), "{error}");
            assert_eq!(error.key(), Some(&key("job")), "{error}");
        }
    }
    keeps
}

async fn turn(job: &Job) -> Turn {
    match soon("a turn", job.begin_or_wait()).await.expect("answers") {
        Begin::Turn(turn) => turn,
        other => panic!("it is due, and yet: {other:?}"),
    }
}

pub(crate) async fn of_many_clients_one_does_the_job(bench: &dyn Bench) {
    if !keeps(bench) {
        return;
    }
    let done = Arc::new(AtomicU32::new(0));
    let tasks: Vec<_> = (0..20)
        .map(|_| {
            let (client, done) = (client(bench.handle(), PATIENT), Arc::clone(&done));
            tokio::spawn(async move {
                let job = version(&client, "v1");
                match job.begin_or_wait().await.expect("answers") {
                    Begin::Turn(turn) => {
                        done.fetch_add(1, Ordering::SeqCst);
                        tokio::task::yield_now().await;
                        turn.succeed().await.expect("is written down");
                    }
                    Begin::Ran(run) => {
                        assert_eq!((run.ok, run.period.as_str()), (Some(true), "v1"));
                    }
                    other => panic!("done, or ours to do: {other:?}"),
                }
            })
        })
        .collect();
    for task in tasks {
        soon("a client", task).await.expect("ends well");
    }
    assert_eq!(done.load(Ordering::SeqCst), 1);
    let client = client(bench.handle(), PATIENT);
    let next = turn(&version(&client, "v2")).await;
    let busy = version(&client, "v2").begin().await.expect("answers");
    assert!(matches!(busy, Begin::Running(_)), "{busy:?}");
    let before = version(&client, "v1").begin().await.expect("answers");
    assert!(matches!(before, Begin::Ran(_)), "that it was done needs no lock: {before:?}");
    let other = client.mutex("other").expect("a mutex").lock().await.expect("locks");
    let error = version(&client, "v3").take_turn(other).await.expect_err("a hold of another key");
    assert_eq!((error.kind(), error.key()), (ErrorKind::Invalid, Some(&key("job"))), "{error}");
    next.succeed().await.expect("is written down");
    let before = version(&client, "v1").begin().await.expect("answers");
    assert!(matches!(before, Begin::Ran(_)), "an earlier version is not done after it: {before:?}");
}

pub(crate) async fn a_job_whose_runner_gave_up_is_tried_again(bench: &dyn Bench) {
    if !keeps(bench) {
        return;
    }
    let [alice, bob] = [client(bench.handle(), PATIENT), client(bench.handle(), PATIENT)];
    let first = turn(&version(&alice, "v1")).await;
    let fence = first.fence();
    drop(first);
    let second = turn(&version(&bob, "v1")).await;
    assert!(second.fence() > fence && second.failures() == 0);
    let last = version(&alice, "v1").last().await.expect("answers").expect("it was begun");
    assert_eq!((last.ok, last.ended, last.fence), (None, None, Some(second.fence())));
    second.succeed().await.expect("is written down");
    let last = version(&alice, "v1").last().await.expect("answers").expect("it was done");
    assert!(last.ok == Some(true) && last.ended >= Some(last.started), "{last:?}");
}

pub(crate) async fn a_job_is_not_written_down_by_who_lost_its_lock(bench: &dyn Bench) {
    if !keeps(bench) {
        return;
    }
    let chaos = Chaos::new(bench.handle());
    // Nobody tells it of the loss.
    chaos.always(Call::Disturbed, Fault::Freeze);
    let [alice, bob] = [client(Arc::new(chaos.clone()), PATIENT), client(bench.handle(), PATIENT)];
    let stale = turn(&version(&alice, "v1")).await;
    let operator = Actor::patient(bench).await;
    let (holders, _) = operator.line("job").await;
    assert!(operator.store.revoke(&key("job"), &holders[0]).await.expect("answers"));
    let fresh = turn(&version(&bob, "v1")).await;
    let (old, new) = (stale.fence(), fresh.fence());
    let error = soon("the end", stale.succeed()).await.expect_err("it is another's");
    assert_eq!(error.kind(), ErrorKind::Lost, "{error}");
    let last = version(&bob, "v1").last().await.expect("answers").expect("begun");
    assert_eq!((last.ok, last.fence), (None, Some(new)), "{old:?} wrote nothing");
    fresh.fail().await.expect("is written down");
    let last = version(&bob, "v1").last().await.expect("answers").expect("failed");
    assert_eq!((last.ok, last.failures), (Some(false), 1));
}

pub(crate) async fn a_job_that_failed_is_tried_as_often_as_wanted(bench: &dyn Bench) {
    if !keeps(bench) {
        return;
    }
    let client = client(bench.handle(), PATIENT);
    let twice = version(&client, "v1").retry_failed(1);
    turn(&twice).await.end(false, Some(3)).await.expect("is written down");
    let refused = version(&client, "v1").begin().await.expect("answers");
    assert!(matches!(&refused, Begin::Failed(run) if run.code == Some(3)), "{refused:?}");
    let second = turn(&twice).await;
    assert_eq!(second.failures(), 1);
    second.fail().await.expect("is written down");
    let refused = twice.begin().await.expect("answers");
    assert!(matches!(&refused, Begin::Failed(run) if run.failures == 2), "{refused:?}");

    // Periods: the next one is another run. This one may end while it is looked at.
    let every = Schedule::every(Duration::from_hours(24 * 365)).expect("a schedule");
    let yearly = client.job("yearly", every).expect("a job").at_least(Duration::from_mins(1));
    turn(&yearly).await.succeed().await.expect("is written down");
    let again = yearly.begin().await.expect("answers");
    assert!(matches!(again, Begin::Ran(_) | Begin::TooSoon(_)), "{again:?}");
}

pub(crate) async fn a_job_through_lost_replies_is_done_once(bench: &dyn Bench) {
    if !keeps(bench) {
        return;
    }
    for lost in [Call::Enter, Call::Write, Call::Leave] {
        let chaos = Chaos::new(bench.handle());
        let alice = client(Arc::new(chaos.clone()), PATIENT);
        let name = format!("{lost:?}");
        let job = version(&alice, &name);
        chaos.once(lost, Fault::DropReply);
        let turn = turn(&job).await;
        chaos.once(lost, Fault::DropReply);
        soon("the end", turn.succeed()).await.expect("is written down");
        let again = soon("a look", job.begin()).await.expect("answers");
        assert!(matches!(&again, Begin::Ran(run) if run.period == name), "{lost:?}: {again:?}");
    }
}

pub(crate) async fn a_late_beginning_does_not_undo_the_end_of_a_job(bench: &dyn Bench) {
    if !keeps(bench) {
        return;
    }
    let chaos = Chaos::new(bench.handle());
    let store: Arc<dyn Store> = Arc::new(chaos.clone());
    // It asks again within a part of its TTL: long enough for a machine that stalls.
    let ttl = brief(&*store).max(Duration::from_secs(12));
    let alice = client(store, ttl);
    let connected = soon("a connection", alice.mutex("other").expect("a mutex").lock()).await;
    connected.expect("locks").release().await.expect("releases");
    let job = version(&alice, "v1");
    chaos.once(Call::Write, Fault::HoldRequest);
    let turn = turn(&job).await;
    let leaves = chaos.count(Call::Leave);
    chaos.always(Call::Leave, Fault::Freeze);
    let ending = tokio::spawn(turn.succeed());
    // The end is written down, and the hold goes on: time for the beginning to arrive.
    soon("the release", chaos.arrived(Call::Leave, leaves + 1)).await;
    chaos.let_go();
    soon("the beginning", chaos.landed(1)).await;
    chaos.heal();
    soon("the end", ending).await.expect("no panic").expect("is written down");
    let again = soon("a look", job.begin()).await.expect("answers");
    assert!(matches!(&again, Begin::Ran(run) if run.ok == Some(true)), "{again:?}");
}

pub(crate) async fn a_job_that_is_written_down_is_done_whatever_its_release_finds(
    bench: &dyn Bench,
) {
    if !keeps(bench) {
        return;
    }
    let chaos = Chaos::new(bench.handle());
    let alice = client(Arc::new(chaos.clone()), PATIENT);
    chaos.always(Call::Disturbed, Fault::Freeze);
    let turn = turn(&version(&alice, "v1")).await;
    chaos.once(Call::Leave, Fault::HoldRequest);
    let ending = tokio::spawn(turn.succeed());
    soon("the release", chaos.arrived(Call::Leave, 1)).await;
    let operator = Actor::patient(bench).await;
    let (holders, _) = operator.line("job").await;
    assert!(operator.store.revoke(&key("job"), &holders[0]).await.expect("answers"));
    chaos.let_go();
    soon("the end", ending).await.expect("no panic").expect("it was ours until it had ended");
    let last = version(&alice, "v1").last().await.expect("answers").expect("it was done");
    assert_eq!((last.ok, last.failures), (Some(true), 0));
}

pub(crate) async fn jobs_that_begin_together_are_all_listed(bench: &dyn Bench) {
    if !keeps(bench) {
        return;
    }
    let chaos = Chaos::new(bench.handle());
    let [alice, bob] = [client(Arc::new(chaos.clone()), PATIENT), client(bench.handle(), PATIENT)];
    let named = |client: &Client, name: &str| {
        client.job(name, Schedule::version("v1").expect("a schedule")).expect("a job")
    };
    // The first writing is of the run, the second of the list: another job gets there first.
    chaos.once(Call::Write, Fault::HoldReply);
    let beginning = tokio::spawn({
        let job = named(&alice, "a");
        async move { turn(&job).await }
    });
    soon("the run", chaos.arrived(Call::Write, 1)).await;
    chaos.once(Call::Write, Fault::HoldRequest);
    chaos.let_go();
    soon("the list", chaos.arrived(Call::Write, 2)).await;
    let theirs = turn(&named(&bob, "b")).await;
    chaos.let_go();
    let ours = soon("the beginning", beginning).await.expect("no panic");
    let listed = bob.jobs("").await.expect("answers");
    assert_eq!(listed.iter().map(|(key, _)| key.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    ours.succeed().await.expect("is written down");
    theirs.succeed().await.expect("is written down");
}

pub(crate) async fn jobs_are_listed_with_their_last_runs(bench: &dyn Bench) {
    if !keeps(bench) {
        return;
    }
    let client = client(bench.handle(), PATIENT);
    assert_eq!(client.jobs("").await.expect("answers"), []);
    for name in ["b/2", "a", "b/1"] {
        let job = client.job(name, Schedule::version(name).expect("a schedule")).expect("a job");
        turn(&job).await.succeed().await.expect("is written down");
    }
    let names = |jobs: Vec<(leasehold_core::Key, leasehold::Run)>| -> Vec<_> {
        jobs.into_iter().map(|(key, run)| (key.as_str().to_owned(), run.period)).collect()
    };
    let own = |name: &str| (name.to_owned(), name.to_owned());
    let all = names(client.jobs("").await.expect("answers"));
    assert_eq!(all, [own("a"), own("b/1"), own("b/2")]);
    assert_eq!(names(client.jobs("b/").await.expect("answers")), [own("b/1"), own("b/2")]);
}

pub(crate) async fn what_is_forgotten_begins_anew(bench: &dyn Bench) {
    let chaos = Chaos::new(bench.handle());
    let client = client(Arc::new(chaos.clone()), PATIENT);
    if !keeps(bench) {
        let error = client.forget("job").await.expect_err("there is nothing to forget");
        assert_eq!((error.kind(), error.key()), (ErrorKind::Unsupported, Some(&key("job"))));
        return;
    }
    let listed = async || client.jobs("").await.expect("answers").len();
    assert_eq!(client.forget("job").await.expect("answers"), Forgotten::Nothing);
    let job = version(&client, "v1");
    turn(&job).await.succeed().await.expect("is written down");
    assert!(matches!(job.begin().await.expect("answers"), Begin::Ran(_)));
    assert_eq!(listed().await, 1);

    assert_eq!(client.forget("job").await.expect("answers"), Forgotten::Done);
    let reads = chaos.count(Call::Read);
    assert_eq!((listed().await, chaos.count(Call::Read)), (0, reads + 1), "only the list is read");
    assert_eq!(job.last().await.expect("answers"), None);
    assert_eq!(client.forget("job").await.expect("answers"), Forgotten::Nothing);
    let again = turn(&job).await;
    let busy = client.forget("job").await.expect("answers");
    assert!(matches!(busy, Forgotten::Held(_)), "what runs is not forgotten: {busy:?}");
    again.succeed().await.expect("is written down");
    assert_eq!(listed().await, 1);

    let limiter = client.limiter("rate", "1/h", Away::Closed).expect("a limiter");
    // One whose fate is not known counts as taken.
    limiter.try_acquire(1).await.ok();
    let remaining = async || loop {
        match limiter.peek().await {
            Ok(decision) => return decision.remaining,
            Err(error) => assert!(error.is_transient(), "{error}"),
        }
    };
    assert_eq!(remaining().await, 0);
    assert_eq!(client.forget("rate").await.expect("answers"), Forgotten::Done);
    assert_eq!(remaining().await, 1);
}
