#![doc = include_str!("../../docs/limiter.md")]

mod exchange;
mod shared;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use leasehold_core::Key;
pub use leasehold_core::rate::WINDOW;
pub use leasehold_core::{Decision, Quota, Rate, RateError};

use crate::error::{Error, ErrorKind, Result};
use crate::property::Property;
use crate::store::Store;

pub use exchange::ANSWER;
use shared::Shared;

/// What a limiter does while the store is away: while it cannot be reached, does not answer within
/// [`ANSWER`], or has no space left. Other trouble (credentials, a record of something else) is an
/// error either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Away {
    /// Each process keeps to the rate and the burst by itself, so the fleet has at most as many
    /// times the rate as there are processes. [`Decision::alone`] tells.
    Open,
    /// Nothing is allowed: a try fails, a wait goes on until the store is back.
    Closed,
}

/// A rate that all processes with the same store and key keep to together.
///
/// Cloning is cheap. Limiters of one client (and its clones) with the same key, rate and burst
/// share what they take from the store.
#[derive(Clone)]
pub struct Limiter {
    shared: Arc<Shared>,
    limiters: Arc<Limiters>,
    away: Away,
}

/// What the limiters of a client have in common.
#[derive(Default)]
pub(crate) struct Limiters {
    known: Mutex<HashMap<(Key, Quota), Weak<Shared>>>,
}

impl Limiter {
    pub(crate) fn new(
        store: &Arc<dyn Store>,
        limiters: &Arc<Limiters>,
        key: Key,
        rate: Rate,
        away: Away,
    ) -> Result<Self> {
        if !store.guarantees().has(Property::Records) {
            let detail = "this store keeps no records, which a limiter needs; use another one";
            let error = Error::new(ErrorKind::Unsupported, "limit", detail);
            return Err(error.at(store).about(&key));
        }
        let shared = limiters.share(store, key, rate, rate.permits())?;
        Ok(Self { shared, limiters: Arc::clone(limiters), away })
    }

    /// The same limiter with another burst: how many permits may be taken at once after a time
    /// without any. Default: what one period of the rate gives.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`] unless it is 1 to [`Quota::MAX_BURST`], and earned within
    /// [`Quota::MAX_REFILL`].
    pub fn burst(self, burst: u32) -> Result<Self> {
        let Shared { store, key, quota, .. } = &*self.shared;
        let shared = self.limiters.share(store, key.clone(), quota.rate(), burst)?;
        Ok(Self { shared, ..self })
    }

    /// What is limited.
    #[must_use]
    pub fn key(&self) -> &Key {
        &self.shared.key
    }

    /// The rate and the burst.
    #[must_use]
    pub fn quota(&self) -> Quota {
        self.shared.quota
    }

    /// What happens while the store is away.
    #[must_use]
    pub const fn away(&self) -> Away {
        self.away
    }

    /// Takes `permits` if they are there, all or none, without waiting for more.
    ///
    /// Asks the store only if that can be of use: many calls share an exchange, and what is
    /// certain to be refused is refused at once. Never overtakes an [`acquire`](Self::acquire) of
    /// the same client.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves the permits, if they were granted, to the other callers in this
    /// process for the rest of their [`WINDOW`]; at worst they are lost. They are never given
    /// twice.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`] for zero permits or more than the burst; what the store fails with,
    /// unless it is away and the limiter stays [open](Away::Open). Permits whose fate is not known
    /// count as taken.
    pub async fn try_acquire(&self, permits: u32) -> Result<Decision> {
        self.check(permits)?;
        self.shared.ask(permits, false, self.away).await
    }

    /// Waits until `permits` are there, and takes them: in the order of the calls within this
    /// client. Between processes who comes first is chance, and a large request can lose to small
    /// ones for as long as these use up the rate.
    ///
    /// # Cancel safety
    ///
    /// As for [`Limiter::try_acquire`]; the place in the order is given up.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`] for zero permits or more than the burst, and what waiting cannot
    /// mend. While the store is away it waits on, or decides by itself: see [`Away`].
    pub async fn acquire(&self, permits: u32) -> Result<Decision> {
        self.check(permits)?;
        self.shared.ask(permits, true, self.away).await
    }

    /// Waits for `permits` for `wait` at most.
    ///
    /// # Cancel safety
    ///
    /// As for [`Limiter::acquire`].
    ///
    /// # Errors
    ///
    /// [`ErrorKind::TimedOut`] when they were not there in time, and what [`Limiter::acquire`]
    /// fails with. If the store was away at the end, the kind is that of the trouble, and its
    /// error is the source.
    pub async fn acquire_within(&self, permits: u32, wait: Duration) -> Result<Decision> {
        if let Ok(outcome) = tokio::time::timeout(wait, self.acquire(permits)).await {
            return outcome;
        }
        let error = match self.shared.trouble() {
            None => {
                let detail = format!("there were no {permits} permits within {wait:?}");
                Error::new(ErrorKind::TimedOut, "pass the limit of", detail)
            }
            Some(error) => {
                let detail = format!("the store was in trouble when {wait:?} had passed");
                Error::new(error.kind(), "pass the limit of", detail).because(error)
            }
        };
        Err(error.at(&self.shared.store).about(self.key()))
    }

    /// Tells what the store has, and takes nothing: whether a permit could be had, and how many.
    /// Always one read.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future has no effect.
    ///
    /// # Errors
    ///
    /// What the store fails with, unless it is away and the limiter stays [open](Away::Open).
    pub async fn peek(&self) -> Result<Decision> {
        self.shared.peek(self.away).await
    }

    fn check(&self, permits: u32) -> Result<()> {
        let burst = self.quota().burst();
        if (1..=burst).contains(&permits) {
            return Ok(());
        }
        let detail = if permits == 0 {
            "there are no 0 permits to take; ask for 1 at least".to_owned()
        } else {
            format!("{permits} permits are more than the burst of {burst}, and never come together")
        };
        let error = Error::new(ErrorKind::Invalid, "pass the limit of", detail);
        Err(error.at(&self.shared.store).about(self.key()))
    }
}

impl fmt::Debug for Limiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Limiter")
            .field("key", self.key())
            .field("quota", &self.quota())
            .field("away", &self.away)
            .field("store", &self.shared.store)
            .finish_non_exhaustive()
    }
}

impl Limiters {
    /// What all limiters with this key and quota share.
    fn share(
        &self,
        store: &Arc<dyn Store>,
        key: Key,
        rate: Rate,
        burst: u32,
    ) -> Result<Arc<Shared>> {
        let quota = Quota::new(rate, burst).map_err(|error| {
            Error::new(ErrorKind::Invalid, "limit", error.to_string()).at(store).about(&key)
        })?;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(shared) = known.get(&(key.clone(), quota)).and_then(Weak::upgrade) {
            return Ok(shared);
        }
        known.retain(|_, shared| shared.strong_count() > 0);
        let shared = Arc::new(Shared::new(Arc::clone(store), key.clone(), quota));
        known.insert((key, quota), Arc::downgrade(&shared));
        Ok(shared)
    }
}

impl fmt::Debug for Limiters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Limiters")
    }
}
