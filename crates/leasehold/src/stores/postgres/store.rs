//! The contract, and nothing else.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt};
use leasehold_core::{
    Claim, ClaimId, Enter, Key, Left, Line, Moment, Place, Provided, Reading, Record, Renewed,
    SessionId, Terms, Together,
};

use super::config::Config;
use super::wire::{Entered, Failure, POLL, Refusal, Wire, uuid};
use super::{PROPERTIES, examine};
use crate::clock;
use crate::error::{Error, ErrorKind, Result};
use crate::examination::Examination;
use crate::property::{Properties, Property};
use crate::random;
use crate::store::{Guarantees, LeaseScope, Store};
use crate::stores::mailbox::Mailbox;

/// Under this a renewal has no second chance on a server that writes to a disk.
const MIN_TTL: Duration = Duration::from_secs(1);
/// A wake-up is lost only with its connection, and then everyone is told.
const RECHECK: Duration = Duration::from_secs(5);
/// How many claims one renewal names: 1.6 MB, and a tenth of a second of the server's time.
const RENEW_BATCH: usize = 100_000;
/// How many keys are locked in one transaction: each lock takes room in the server's lock table.
const TOGETHER: usize = 256;
/// Who stands behind another waiter looks this much later at a lapse, up to the cap: the one ahead
/// does the work for all.
const STAGGER: Duration = Duration::from_millis(20);
const STAGGER_CAP: Duration = Duration::from_secs(1);

const ENTER: &str = "enter the line of";

/// A PostgreSQL server. See the [module's documentation](crate::stores::postgres).
///
/// ```no_run
/// # leasehold::doc_test(async {
/// use leasehold::{Client, stores::Postgres};
/// let client = Client::builder().store(Postgres::new("postgres://app@db.example/app")?).build()?;
/// let guard = client.mutex("report")?.lock().await?;
/// guard.release().await?;
/// # Ok(()) });
/// ```
pub struct Postgres {
    wire: Wire,
    mailbox: Arc<Mailbox>,
    /// When a waiting claim should look by itself, because somebody ahead lapses then.
    lapses: Mutex<HashMap<ClaimId, Moment>>,
}

impl Postgres {
    /// The store that a `postgres://` URL names. No IO happens before it is used.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`] when the URL cannot be read or has a parameter that is not known.
    pub fn new(url: &str) -> Result<Self> {
        let config = Config::parse(url)?;
        let mailbox = Arc::new(Mailbox::default());
        let wire = Wire::new(config, Arc::clone(&mailbox), &random::token()?);
        Ok(Self { wire, mailbox, lapses: Mutex::default() })
    }

    fn failed(&self, attempt: &'static str) -> impl FnOnce(Failure) -> Error {
        move |failure| failure.into_error(attempt).at(self)
    }

    fn failed_on(&self, attempt: &'static str, key: &Key) -> impl FnOnce(Failure) -> Error {
        move |failure| failure.into_error(attempt).at(self).about(key)
    }

    fn no_entry(&self, claim: &Claim, refusal: &Refusal) -> Error {
        match refusal {
            Refusal::Disagrees(limit) => Error::disagrees(claim, *limit).at(self),
            Refusal::Ended => Error::new(ErrorKind::SessionEnded, ENTER, "open a new session")
                .about(&claim.key)
                .at(self),
        }
    }

    fn expect(&self, claim: ClaimId) {
        self.mailbox.expect(claim);
    }

    fn forget(&self, claim: ClaimId) {
        self.mailbox.forget(claim);
        self.lapses().remove(&claim);
    }

    fn lapses(&self) -> MutexGuard<'_, HashMap<ClaimId, Moment>> {
        // Nothing panics while it is held.
        self.lapses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn place(&self, claim: &Claim, entered: Entered) -> Result<Place> {
        let place = match entered {
            Entered::Held(fence) => Ok(Place::Held(fence)),
            Entered::Refused(ahead) => Ok(Place::Refused(ahead)),
            Entered::No(refusal) => Err(self.no_entry(claim, &refusal)),
            Entered::Waiting(ahead, lapse) => {
                let stagger = STAGGER * ahead.rank.unwrap_or_default().min(1000);
                let look = clock::now() + lapse + stagger.min(STAGGER_CAP);
                self.lapses().insert(claim.id, look);
                return Ok(Place::Waiting(ahead));
            }
        };
        self.forget(claim.id);
        place
    }
}

impl Store for Postgres {
    fn guarantees(&self) -> Guarantees {
        let polls = self.wire.polls();
        let lacks = if polls { Property::Wakes.into() } else { Properties::NONE };
        Guarantees {
            properties: PROPERTIES - lacks,
            min_ttl: MIN_TTL,
            lapse_delay: Duration::ZERO,
            lease: LeaseScope::Session,
            renew_batch: RENEW_BATCH,
            recheck: if polls { POLL } else { RECHECK },
        }
    }

    fn open<'a>(&'a self, terms: &'a Terms) -> BoxFuture<'a, Result<SessionId>> {
        async move {
            if terms.ttl < MIN_TTL {
                let detail = format!(
                    "a TTL of {:?} is too short for this store: at least {MIN_TTL:?}",
                    terms.ttl
                );
                return Err(Error::new(ErrorKind::Invalid, "open a session", detail).at(self));
            }
            let id = random::claim_id()?;
            let session = SessionId::new(&id.to_hex());
            self.mailbox.expect_session(&session);
            let opened = self.wire.open(id, terms).await;
            if opened.is_err() {
                self.mailbox.forget_session(&session);
            }
            opened.map(|()| session).map_err(self.failed("open a session"))
        }
        .boxed()
    }

    fn renew<'a>(
        &'a self,
        session: &'a SessionId,
        roll: &'a [Claim],
    ) -> BoxFuture<'a, Result<Renewed>> {
        async move {
            let Some(id) = uuid(session) else {
                return Ok(Renewed::Ended);
            };
            self.wire.renew(id, roll).await.map_err(self.failed("renew the session"))
        }
        .boxed()
    }

    fn close<'a>(&'a self, session: &'a SessionId) -> BoxFuture<'a, Result<()>> {
        async move {
            if let Some(id) = uuid(session) {
                self.wire.close(id).await.map_err(self.failed("close the session"))?;
            }
            self.mailbox.forget_session(session);
            Ok(())
        }
        .boxed()
    }

    fn enter<'a>(
        &'a self,
        session: &'a SessionId,
        claim: &'a Claim,
        enter: Enter,
    ) -> BoxFuture<'a, Result<Place>> {
        async move {
            let Some(id) = uuid(session) else {
                return Err(self.no_entry(claim, &Refusal::Ended));
            };
            // A message may come before the answer does.
            self.expect(claim.id);
            let entered = self.wire.enter(id, claim, enter).await;
            let entered = entered.map_err(self.failed_on(ENTER, &claim.key))?;
            self.place(claim, entered)
        }
        .boxed()
    }

    fn enter_all<'a>(
        &'a self,
        session: &'a SessionId,
        claims: &'a [Claim],
    ) -> BoxFuture<'a, Result<Together>> {
        async move {
            let Some(first) = claims.first() else { return Ok(Together::Held(Vec::new())) };
            if claims.len() > TOGETHER {
                return Ok(Together::Apart);
            }
            let Some(id) = uuid(session) else {
                return Err(self.no_entry(first, &Refusal::Ended));
            };
            let entered = self.wire.enter_all(id, claims).await;
            let entered = entered.map_err(self.failed("enter several lines"))?;
            entered.map_err(|(at, refusal)| self.no_entry(&claims[at], &refusal))
        }
        .boxed()
    }

    fn changed<'a>(
        &'a self,
        _session: &'a SessionId,
        claim: &'a Claim,
    ) -> BoxFuture<'a, Result<Option<Place>>> {
        async move {
            let told = self.mailbox.told(claim.id);
            // Nothing runs on the server when a lease lapses, so a waiter looks.
            let lapse = self.lapses().get(&claim.id).copied();
            let lapse = lapse.map_or(RECHECK, |lapse| lapse.since(clock::now()));
            let wait = if self.wire.polls() { lapse.min(POLL) } else { lapse };
            let place = tokio::time::timeout(wait, told).await.unwrap_or(None);
            if place.is_some() {
                self.forget(claim.id);
            }
            Ok(place)
        }
        .boxed()
    }

    fn disturbed<'a>(&'a self, session: &'a SessionId) -> BoxFuture<'a, ()> {
        async move {
            let told = self.mailbox.disturbed(session);
            if self.wire.polls() {
                // Nobody can say that a claim was revoked; a renewal finds out.
                let _ = tokio::time::timeout(RECHECK, told).await;
            } else {
                told.await;
            }
        }
        .boxed()
    }

    fn leave<'a>(
        &'a self,
        session: &'a SessionId,
        claim: &'a Claim,
    ) -> BoxFuture<'a, Result<Left>> {
        async move {
            let Some(id) = uuid(session) else {
                return Ok(Left::Gone);
            };
            let left = self.wire.leave(id, claim).await;
            self.forget(claim.id);
            left.map_err(self.failed_on("leave the line of", &claim.key))
        }
        .boxed()
    }

    fn amend<'a>(
        &'a self,
        session: &'a SessionId,
        claim: &'a Claim,
    ) -> BoxFuture<'a, Result<bool>> {
        async move {
            let Some(id) = uuid(session) else {
                return Ok(false);
            };
            let amended = self.wire.amend(id, claim).await;
            amended.map_err(self.failed_on("amend the hold of", &claim.key))
        }
        .boxed()
    }

    fn read<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Reading>> {
        async move { self.wire.read(key).await.map_err(self.failed_on("read the record of", key)) }
            .boxed()
    }

    fn write<'a>(
        &'a self,
        key: &'a Key,
        provided: Provided<'a>,
        record: &'a Record,
    ) -> BoxFuture<'a, Result<bool>> {
        async move {
            let written = self.wire.write(key, provided, record).await;
            written.map_err(self.failed_on("write the record of", key))
        }
        .boxed()
    }

    fn revoke<'a>(&'a self, key: &'a Key, claim: &'a ClaimId) -> BoxFuture<'a, Result<bool>> {
        async move {
            self.wire.revoke(key, *claim).await.map_err(self.failed_on("revoke a claim on", key))
        }
        .boxed()
    }

    fn inspect<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Line>> {
        async move {
            let parties = self.wire.inspect(key).await.map_err(self.failed_on("inspect", key))?;
            let (holders, waiters) = parties.into_iter().partition(|party| party.fence.is_some());
            Ok(Line { holders, waiters })
        }
        .boxed()
    }

    fn keys<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Vec<Key>>> {
        async move {
            // No key contains NUL, and the server would not take it.
            if prefix.contains('\0') {
                return Ok(Vec::new());
            }
            self.wire.keys(prefix).await.map_err(self.failed("list the keys"))
        }
        .boxed()
    }

    fn examine(&self, ttl: Duration) -> BoxFuture<'_, Result<Examination>> {
        async move { examine::examine(&self.wire, ttl).await.map_err(self.failed("examine the store")) }
            .boxed()
    }
}

impl fmt::Display for Postgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.wire.config().fmt(f)
    }
}

impl fmt::Debug for Postgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Postgres").field(&self.to_string()).finish()
    }
}
