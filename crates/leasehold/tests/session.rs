//! What went wrong between a client and its session, over a store that can be told to hang.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt};
use leasehold::stores::Memory;
use leasehold::{
    Begin, Claim, ClaimId, Client, ClientBuilder, Enter, Error, ErrorKind, Examination, Guarantees,
    Key, Left, Line, Place, Provided, Reading, Record, Released, Renewed, Result, Schedule,
    SessionId, Store, Terms, Timing, Together, blocking,
};
use tokio::sync::Notify;

/// Long enough for anything that is going to happen at all.
const PATIENCE: Duration = Duration::from_secs(20);
/// Short enough for a test that waits for a lapse.
const TTL: Duration = Duration::from_millis(600);

/// The requests that can be caught.
#[derive(Clone, Copy)]
enum Call {
    Open,
    Renew,
    Enter,
    Leave,
    Inspect,
}

/// Where requests are caught on their way to the store.
#[derive(Default)]
struct Gate {
    /// How many of the next requests are caught; the ones after them pass.
    armed: AtomicUsize,
    caught: Notify,
    opened: Notify,
}

impl Gate {
    fn catches(&self) -> bool {
        let less = |armed: usize| armed.checked_sub(1);
        let catches = self.armed.fetch_update(Ordering::AcqRel, Ordering::Acquire, less).is_ok();
        if catches {
            self.caught.notify_one();
        }
        catches
    }

    async fn pass(&self) {
        if self.catches() {
            self.opened.notified().await;
        }
    }
}

/// A store in memory whose requests can be caught on their way to it.
#[derive(Clone, Default)]
struct Caught {
    memory: Memory,
    gates: Arc<[Gate; 5]>,
    /// A leave was carried out.
    left: Arc<Notify>,
    /// How many hours its clock is ahead.
    ahead: Arc<AtomicUsize>,
}

impl Caught {
    fn new() -> Self {
        Self { memory: Memory::new(), ..Self::default() }
    }

    fn builder(&self) -> ClientBuilder {
        Client::builder().store(self.clone()).ttl(TTL)
    }

    fn gate(&self, call: Call) -> &Gate {
        &self.gates[call as usize]
    }

    /// Catches the next requests.
    fn catch(&self, call: Call, count: usize) {
        self.gate(call).armed.store(count, Ordering::Release);
    }

    /// Waits until a request was caught.
    async fn caught(&self, call: Call) {
        within(self.gate(call).caught.notified()).await;
    }

    /// Lets a caught request go on.
    fn release(&self, call: Call) {
        self.gate(call).opened.notify_one();
    }
}

impl Store for Caught {
    fn guarantees(&self) -> Guarantees {
        self.memory.guarantees()
    }

    fn open<'a>(&'a self, terms: &'a Terms) -> BoxFuture<'a, Result<SessionId>> {
        async move {
            self.gate(Call::Open).pass().await;
            self.memory.open(terms).await
        }
        .boxed()
    }

    /// A renewal that was caught comes too late: its session lapsed.
    fn renew<'a>(
        &'a self,
        session: &'a SessionId,
        roll: &'a [Claim],
    ) -> BoxFuture<'a, Result<Renewed>> {
        async move {
            if self.gate(Call::Renew).catches() {
                self.gate(Call::Renew).opened.notified().await;
                self.memory.close(session).await?;
            }
            self.memory.renew(session, roll).await
        }
        .boxed()
    }

    fn close<'a>(&'a self, session: &'a SessionId) -> BoxFuture<'a, Result<()>> {
        self.memory.close(session)
    }

    /// The connection breaks behind an enter that was caught, which arrives when it is let go.
    fn enter<'a>(
        &'a self,
        session: &'a SessionId,
        claim: &'a Claim,
        enter: Enter,
    ) -> BoxFuture<'a, Result<Place>> {
        async move {
            if !self.gate(Call::Enter).catches() {
                return self.memory.enter(session, claim, enter).await;
            }
            let (store, session, claim) = (self.clone(), session.clone(), claim.clone());
            tokio::spawn(async move {
                store.gate(Call::Enter).opened.notified().await;
                let _ = store.memory.enter(&session, &claim, enter).await;
                store.gate(Call::Enter).caught.notify_one();
            });
            let cut = Error::new(ErrorKind::Unavailable, "enter", "the connection broke");
            Err(cut.outcome_unknown())
        }
        .boxed()
    }

    fn enter_all<'a>(
        &'a self,
        session: &'a SessionId,
        claims: &'a [Claim],
    ) -> BoxFuture<'a, Result<Together>> {
        self.memory.enter_all(session, claims)
    }

    fn changed<'a>(
        &'a self,
        session: &'a SessionId,
        claim: &'a Claim,
    ) -> BoxFuture<'a, Result<Option<Place>>> {
        self.memory.changed(session, claim)
    }

    fn disturbed<'a>(&'a self, session: &'a SessionId) -> BoxFuture<'a, ()> {
        self.memory.disturbed(session)
    }

    fn leave<'a>(
        &'a self,
        session: &'a SessionId,
        claim: &'a Claim,
    ) -> BoxFuture<'a, Result<Left>> {
        async move {
            self.gate(Call::Leave).pass().await;
            let left = self.memory.leave(session, claim).await;
            self.left.notify_one();
            left
        }
        .boxed()
    }

    fn amend<'a>(
        &'a self,
        session: &'a SessionId,
        claim: &'a Claim,
    ) -> BoxFuture<'a, Result<bool>> {
        self.memory.amend(session, claim)
    }

    fn read<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Reading>> {
        async move {
            let reading = self.memory.read(key).await?;
            let ahead = u64::try_from(self.ahead.load(Ordering::Acquire)).unwrap();
            let at = reading.at.map(|at| at + Duration::from_hours(ahead));
            Ok(Reading { at, ..reading })
        }
        .boxed()
    }

    fn write<'a>(
        &'a self,
        key: &'a Key,
        provided: Provided<'a>,
        record: &'a Record,
    ) -> BoxFuture<'a, Result<bool>> {
        self.memory.write(key, provided, record)
    }

    fn revoke<'a>(&'a self, key: &'a Key, claim: &'a ClaimId) -> BoxFuture<'a, Result<bool>> {
        self.memory.revoke(key, claim)
    }

    fn inspect<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Line>> {
        async move {
            self.gate(Call::Inspect).pass().await;
            self.memory.inspect(key).await
        }
        .boxed()
    }

    fn keys<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Vec<Key>>> {
        self.memory.keys(prefix)
    }

    fn examine(&self, ttl: Duration) -> BoxFuture<'_, Result<Examination>> {
        self.memory.examine(ttl)
    }
}

impl fmt::Display for Caught {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.memory.fmt(f)
    }
}

impl fmt::Debug for Caught {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.memory, f)
    }
}

async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.expect("it never happens")
}

#[tokio::test]
async fn a_session_that_opens_after_the_close_grants_nothing() {
    let store = Caught::new();
    let client = store.builder().build().unwrap();
    let mutex = client.mutex("key").unwrap();
    store.catch(Call::Open, 1);
    let locking = tokio::spawn(async move { mutex.lock().await });
    store.caught(Call::Open).await;
    client.close().await.unwrap();
    store.release(Call::Open);
    let error = within(locking).await.unwrap().expect_err("nobody would renew it");
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
}

#[tokio::test]
async fn the_time_of_a_job_is_the_stores() {
    let store = Caught::new();
    let client = store.builder().build().unwrap();
    let job = client.job("job", Schedule::every(Duration::from_hours(1)).unwrap()).unwrap();
    let mut started = Vec::new();
    for hours in [100_000, 100_001, 100_002] {
        store.ahead.store(hours, Ordering::Release);
        let Begin::Turn(turn) = job.begin().await.unwrap() else { panic!("another hour there") };
        turn.succeed().await.unwrap();
        started.push(job.last().await.unwrap().unwrap().started);
    }
    let here = std::time::UNIX_EPOCH.elapsed().unwrap();
    assert!(started[0] > here + Duration::from_hours(99_999), "{started:?}");
    // Set back: what was done stays done.
    store.ahead.store(0, Ordering::Release);
    assert!(matches!(job.begin().await.unwrap(), Begin::Ran(_)));
}

#[test]
fn a_blocking_run_is_not_entered_again_and_tells_of_the_loss() {
    let builder = Caught::new().builder().grace(TTL / 6).max_hold(TTL / 3);
    let client = blocking::Client::build(builder).unwrap();
    let lock = client.mutex("key").unwrap();
    let inside = lock.run(|_guard| lock.lock().expect_err("it would wait for itself").kind());
    assert_eq!(inside.unwrap(), ErrorKind::Invalid);
    let lost = lock.run(blocking::Guard::lost).expect_err("it was kept for too long");
    assert_eq!(lost.kind(), ErrorKind::Lost, "{lost}");
}

#[test]
fn a_hold_is_lost_with_a_runtime_that_never_ran_the_task() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let client = Caught::new().builder().build().unwrap();
    // The store answers at once, so the task is spawned and not polled.
    let guard = runtime.block_on(client.mutex("key").unwrap().lock()).unwrap();
    drop(runtime);
    assert!(guard.cancellation().is_cancelled(), "nobody renews it, and nobody says so");
}

#[test]
fn durations_that_fit_together_are_not_refused_for_a_default() {
    let seconds = Duration::from_secs;
    let timed = || Client::builder().url("memory:").ttl(seconds(20)).renew_every(seconds(8));
    timed().drift(seconds(11)).grace(Timing::MIN_GRACE).build().unwrap();
    timed().grace(seconds(11)).drift(Duration::ZERO).build().unwrap();
    timed().grace(seconds(11)).build().expect_err("no time is left");
}

#[tokio::test]
async fn a_grant_that_waits_for_a_renewal_does_not_outwait_its_session() {
    let store = Caught::new();
    // A grant always leaves less than a renewal interval, so that it waits for a renewal.
    let (ttl, renew_every) = (PATIENCE, PATIENCE * 2 / 5);
    let builder = store.builder().ttl(ttl).renew_every(renew_every).grace(Timing::MIN_GRACE);
    let rest = renew_every + Timing::MIN_GRACE + Duration::from_nanos(1);
    let drift = ttl.saturating_sub(rest);
    let client = builder.drift(drift).build().unwrap();
    let (first, second) = (client.mutex("first").unwrap(), client.mutex("second").unwrap());
    store.catch(Call::Renew, 1);
    let trying = tokio::spawn(async move { first.try_lock().await });
    store.caught(Call::Renew).await;
    let locking = tokio::spawn(async move { second.lock().await });
    // One thread runs all tasks in turn: the second comes to wait behind the renewal under way.
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    store.release(Call::Renew);
    within(trying).await.unwrap().expect_err("the session lapsed");
    let _guard = within(locking).await.unwrap().expect("a new session");
}

#[tokio::test]
async fn an_enter_that_arrives_after_the_release_is_left_again() {
    let store = Caught::new();
    let client = store.builder().build().unwrap();
    let mutex = client.mutex("key").unwrap();
    store.catch(Call::Enter, 1);
    let guard = within(mutex.lock()).await.unwrap();
    store.caught(Call::Enter).await;
    guard.release().await.unwrap();
    store.release(Call::Enter);
    store.caught(Call::Enter).await;
    let _guard = within(mutex.lock()).await.unwrap();
}

#[tokio::test]
async fn a_try_that_arrives_after_the_refusal_is_left_again() {
    let store = Caught::new();
    let client = store.builder().build().unwrap();
    let mutex = client.mutex("key").unwrap();
    let guard = within(mutex.lock()).await.unwrap();
    store.catch(Call::Enter, 1);
    assert!(within(mutex.try_lock()).await.unwrap().is_none());
    store.caught(Call::Enter).await;
    guard.release().await.unwrap();
    store.release(Call::Enter);
    store.caught(Call::Enter).await;
    let _guard = within(mutex.lock()).await.unwrap();
}

#[tokio::test]
async fn an_enter_that_outlasts_an_outage_of_more_than_a_ttl_is_left_again() {
    let store = Caught::new();
    let client = store.builder().build().unwrap();
    let mutex = client.mutex("key").unwrap();
    store.catch(Call::Enter, 1);
    let guard = within(mutex.lock()).await.unwrap();
    store.caught(Call::Enter).await;
    // Each is given up at some time, all together long after a TTL.
    store.catch(Call::Leave, 12);
    drop(guard);
    within(store.left.notified()).await;
    // The server finds it in its queue, behind the first leave that it answered.
    store.release(Call::Enter);
    store.caught(Call::Enter).await;
    let _guard = within(mutex.lock()).await.unwrap();
}

#[tokio::test]
async fn a_leave_that_hangs_is_repeated_while_the_session_goes_on() {
    let store = Caught::new();
    let client = store.builder().build().unwrap();
    let mutex = client.mutex("key").unwrap();
    // Each is given up at some time, all together long after a TTL.
    store.catch(Call::Leave, 12);
    drop(within(mutex.lock()).await.unwrap());
    let _guard = within(mutex.lock()).await.unwrap();
}

#[tokio::test]
async fn a_release_that_hangs_is_sent_again_before_the_deadline() {
    let store = Caught::new();
    let client = store.builder().build().unwrap();
    let guard = within(client.mutex("key").unwrap().lock()).await.unwrap();
    store.catch(Call::Leave, 1);
    let released = within(guard.release()).await.expect("the second is answered");
    assert_eq!(released, Released::Held);
}

#[test]
fn a_password_in_the_url_is_not_in_the_debug_output() {
    let builder = Client::builder().url("redis://user:hunter2@localhost");
    assert!(!format!("{builder:?}").contains("hunter2"));
}

#[test]
fn a_password_is_not_taken_for_a_scheme() {
    let error = Client::open("hunter2@localhost:6379").unwrap_err();
    assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
}

#[tokio::test]
async fn tries_do_not_queue_for_a_store_that_does_not_answer() {
    let store = Caught::new();
    let client = store.builder().build().unwrap();
    let mutex = client.mutex("key").unwrap();
    // Each opening would hang for a TTL, and all of them in turn for longer than the patience.
    store.catch(Call::Open, 100);
    let tries = (0..100).map(|_| mutex.try_lock());
    for outcome in within(futures::future::join_all(tries)).await {
        let error = outcome.expect_err("no session");
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    }
}

#[tokio::test]
async fn the_trouble_of_a_lock_that_timed_out_is_its_source() {
    let store = Caught::new();
    let client = store.builder().build().unwrap();
    store.catch(Call::Enter, usize::MAX);
    let mutex = client.mutex("key").unwrap();
    let error = mutex.lock_within(TTL).await.expect_err("the store is in trouble");
    let source = std::error::Error::source(&error).expect("the trouble").to_string();
    assert!(source.contains("the connection broke"), "{source}");
    assert!(!error.to_string().contains("the connection broke"), "{error}");
}

#[tokio::test]
async fn a_store_that_hangs_does_not_hang_who_works_on_a_detached_hold() {
    let store = Caught::new();
    let client = store.builder().detached(true).build().unwrap();
    let grant = within(client.mutex("key").unwrap().lock()).await.unwrap().detach();
    for call in [Call::Renew, Call::Inspect, Call::Leave] {
        store.catch(call, 1);
    }
    let unanswered = [
        within(client.renew(&grant)).await.err(),
        within(client.check(&grant)).await.err(),
        within(client.release(&grant)).await.err(),
    ];
    for error in unanswered {
        let error = error.expect("it was not answered");
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        assert_eq!(error.key(), Some(grant.key()), "{error}");
    }
}

#[test]
fn blocking_code_locks_many_keys_or_none() {
    let client = blocking::Client::open("memory:").unwrap();
    let both = || ["a", "b"].map(|key| client.mutex(key).unwrap());
    let guards = client.lock_all(both()).unwrap();
    assert!(client.try_lock_all(both()).unwrap().is_none());
    for guard in guards {
        assert_eq!(guard.release().unwrap(), Released::Held);
    }
    let guards = client.try_lock_all(both()).unwrap().expect("free");
    assert_eq!(guards.iter().map(|guard| guard.key().as_str()).collect::<Vec<_>>(), ["a", "b"]);
}
