//! Exchanges with the store: read what the fleet owes, write what is taken.

use std::sync::Arc;
use std::time::Duration;

use leasehold_core::backoff::Backoff;
use leasehold_core::rate::{Meter, Now, Parts};
use leasehold_core::{Provided, Record, Version};
use serde::{Deserialize, Serialize};

use super::shared::{Brought, Next, Shared, is_away};
use crate::clock;
use crate::error::{Error, ErrorKind, Result};
use crate::kept;
use crate::random;

/// How long a limiter waits for one exchange with the store. A later answer is not used, and its
/// permits are lost.
pub const ANSWER: Duration = Duration::from_secs(1);

/// How often an exchange is tried again after trouble, for callers that do not wait.
const TRIES: u32 = 3;
/// How often in a row others may be faster before that counts as trouble.
const CONFLICTS: u32 = 50;
/// The waits between exchanges that others were faster in.
const CONFLICT: (Duration, Duration) = (Duration::from_micros(500), Duration::from_millis(20));
/// The waits between exchanges that failed.
const TROUBLE: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(40));
/// How long a store that is away is left alone.
const LEFT_ALONE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

pub(super) fn away_backoff() -> Backoff {
    // Which seed does not matter, only that not all have the same.
    Backoff::new(LEFT_ALONE.0, LEFT_ALONE.1, random::seed().unwrap_or_default())
}

/// Talks to the store for as long as somebody needs it: one exchange at a time.
///
/// A task of its own, so that no caller who gives up takes the permits of the others with it.
pub(super) async fn serve(mut turn: Turn) {
    let shared = Arc::clone(&turn.shared);
    loop {
        match shared.next() {
            Next::End => {
                turn.over = true;
                return;
            }
            Next::WaitUntil(moment) => tokio::select! {
                () = clock::sleep_until(moment) => {}
                () = shared.gave_up.notified() => {}
            },
            Next::Ask => match bring(&shared).await {
                Ok(brought) => shared.settle(&brought),
                Err(error) => shared.fail(&error),
            },
        }
    }
}

/// The hold of a task on the queue, from before it is spawned: who waits must not wait for a task
/// that is gone with its runtime, or never ran.
pub(super) struct Turn {
    shared: Arc<Shared>,
    over: bool,
}

impl Turn {
    pub(super) fn new(shared: &Arc<Shared>) -> Self {
        Self { shared: Arc::clone(shared), over: false }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if !self.over {
            self.shared.abandon();
        }
    }
}

/// One exchange; again when somebody else was faster, and a few times after trouble.
async fn bring(shared: &Shared) -> Result<Brought> {
    let seed = random::seed()?;
    let mut conflict = Backoff::new(CONFLICT.0, CONFLICT.1, seed);
    let mut trouble = Backoff::new(TROUBLE.0, TROUBLE.1, seed);
    let (mut conflicts, mut failures) = (0, 0);
    loop {
        let pause = match exchange(shared).await {
            Ok(Some(brought)) => return Ok(brought),
            Ok(None) => {
                conflicts += 1;
                if conflicts >= CONFLICTS {
                    let detail = "too many processes changed its record at the same time";
                    return Err(told(shared, Error::new(ErrorKind::Unavailable, ATTEMPT, detail)));
                }
                conflict.next_wait()
            }
            Err((error, quick)) => {
                shared.lock().failed = Some(error.clone());
                failures += 1;
                if failures >= TRIES || !quick || !is_away(&error) {
                    return Err(error);
                }
                trouble.next_wait()
            }
        };
        tokio::time::sleep(pause).await;
    }
}

/// Reads, decides, writes. `None`: somebody else wrote meanwhile. A failure says whether it came
/// quickly, so that another try is no new wait.
///
/// After a failure the permits count as taken, whether the write was carried out or not: at worst
/// they are lost. The next exchange reads what is true.
async fn exchange(shared: &Shared) -> Result<Option<Brought>, (Error, bool)> {
    let began = clock::now();
    let answer = tokio::time::timeout(ANSWER, take(shared)).await;
    match answer {
        // Also an answer that is there counts as late after a pause of this process: its permits
        // would be spent in a time that is not theirs.
        Ok(outcome) if clock::now() <= began + ANSWER => match outcome {
            Ok(taken) => Ok(taken.map(|(meter, taken)| Brought { began, meter, taken })),
            Err(error) => Err((told(shared, error), true)),
        },
        _ => {
            let detail = format!("no answer within {ANSWER:?}");
            let error = Error::new(ErrorKind::Unavailable, ATTEMPT, detail).outcome_unknown();
            Err((told(shared, error), false))
        }
    }
}

async fn take(shared: &Shared) -> Result<Option<(Meter, u32)>> {
    let (version, written, now) = read(shared).await?;
    let (mut meter, turned) = Meter::opened(shared.quota, written, now);
    let taken = shared.plan(&meter);
    meter.take(taken);
    if taken > 0 || turned {
        let provided = Provided::Unchanged(version);
        if !shared.store.write(&shared.key, provided, &record(&meter)?).await? {
            return Ok(None);
        }
    }
    Ok(Some((meter, taken)))
}

/// What the record of a limiter is of.
const KIND: &str = "limiter/1";
const ATTEMPT: &str = "limit";

/// What the record says. The debt is a text, because numbers of JSON end at 64 bits.
#[derive(Serialize, Deserialize)]
struct Body {
    permits: u32,
    period_ns: u64,
    burst: u32,
    at_ns: u64,
    debt: String,
}

fn record(meter: &Meter) -> Result<Record> {
    let Parts { permits, period, burst, at, debt } = meter.parts();
    let debt = debt.to_string();
    let body = Body { permits, period_ns: period, burst, at_ns: at, debt };
    kept::record(KIND, &body, meter.keep())
        .ok_or_else(|| Error::new(ErrorKind::Invalid, ATTEMPT, "its record is too large"))
}

/// The record's version, what it says, and the time by the clock that the fleet goes by.
async fn read(shared: &Shared) -> Result<(Option<Version>, Option<Meter>, Now)> {
    let reading = shared.store.read(&shared.key).await?;
    let now = reading.at.map_or_else(|| Now::Own(clock::wall()), Now::Store);
    let Some(written) = reading.written else { return Ok((None, None, now)) };
    let corrupt = |detail: String| {
        Error::new(ErrorKind::Corrupt, ATTEMPT, format!("the key has a record: {detail}"))
    };
    let version = Some(written.version);
    let Some(body) = kept::parse::<Body>(&written.value, KIND).map_err(corrupt)? else {
        return Ok((version, None, now));
    };
    let Body { permits, period_ns: period, burst, at_ns: at, debt } = body;
    let debt = debt.parse().ok();
    let parts = debt.map(|debt| Parts { permits, period, burst, at, debt });
    let meter = parts.and_then(Meter::from_parts);
    let meter = meter.ok_or_else(|| corrupt("it is damaged: its numbers make no sense".into()))?;
    shared.compare(&meter);
    Ok((version, Some(meter), now))
}

/// What the store has, with nothing taken.
pub(super) async fn look(shared: &Shared) -> Result<Meter> {
    let looked = tokio::time::timeout(ANSWER, read(shared)).await.unwrap_or_else(|_| {
        let detail = format!("no answer within {ANSWER:?}");
        Err(Error::new(ErrorKind::Unavailable, ATTEMPT, detail))
    });
    let (_, written, now) = looked.map_err(|error| told(shared, error))?;
    Ok(Meter::opened(shared.quota, written, now).0)
}

fn told(shared: &Shared, error: Error) -> Error {
    error.at(&shared.store).about(&shared.key)
}

impl Shared {
    /// How many permits to take: for those in the queue who can have theirs, in turn, and some
    /// ahead of demand.
    pub(super) fn plan(&self, meter: &Meter) -> u32 {
        let now = clock::now();
        let mut state = self.lock();
        let (available, stock) = (meter.available(), state.batch.stock(now));
        let (mut needed, mut blocked) = (0_u32, false);
        for caller in &mut state.queue {
            caller.planned = true;
            let sum = needed.saturating_add(caller.permits);
            if !blocked && sum <= available.saturating_add(stock) {
                needed = sum;
            } else {
                blocked |= caller.waits;
            }
        }
        let taken = needed.saturating_sub(stock);
        if blocked {
            return taken;
        }
        taken + state.batch.ahead(now, available - taken)
    }

    /// Says, once, that others use the key with another rate or burst.
    fn compare(&self, written: &Meter) {
        let (ours, theirs) = (self.quota, written.quota());
        let mut state = self.lock();
        if ours != theirs && state.told != Some(theirs) {
            state.told = Some(theirs);
            drop(state);
            tracing::warn!(
                key = ?self.key,
                "others limit this key to {} with a burst of {}, and this process to {} with {}",
                theirs.rate(), theirs.burst(), ours.rate(), ours.burst(),
            );
        }
    }
}
