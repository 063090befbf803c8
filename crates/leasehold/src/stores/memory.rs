#![doc = include_str!("memory.md")]

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt};
use leasehold_core::table::NoEntry;
use leasehold_core::{
    Claim, ClaimId, Enter, Key, Left, Line, Place, Provided, Reading, Record, Renewed, SessionId,
    Table, Terms, Timing, Together,
};

use crate::clock;
use crate::error::{Error, ErrorKind, Result};
use crate::examination::{Examination, Finding};
use crate::property::{Properties, Property};
use crate::random;
use crate::store::{Guarantees, LeaseScope, Store};
use crate::stores::mailbox::Mailbox;

/// What it promises; the page above says under which conditions, and what not.
pub(super) const PROPERTIES: Properties =
    Properties::of(&[Property::Line, Property::Wakes, Property::Counting, Property::Records]);

/// A store in this process's memory. Clones are handles to the same store.
///
/// ```
/// # leasehold::doc_test(async {
/// use leasehold::{Client, stores::Memory};
/// let client = Client::builder().store(Memory::new()).build()?;
/// let guard = client.mutex("report")?.lock().await?;
/// assert!(client.mutex("report")?.try_lock().await?.is_none());
/// guard.release().await?;
/// # Ok(()) });
/// ```
#[derive(Clone, Default)]
pub struct Memory {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    table: Mutex<Table>,
    mailbox: Mailbox,
}

impl Memory {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Runs one step of the rule, then wakes whom it granted.
    fn step<T>(&self, step: impl FnOnce(&mut Table) -> T) -> T {
        let mut table = self.table();
        let outcome = step(&mut table);
        let woken = table.take_woken();
        drop(table);
        for claim in woken {
            self.shared.mailbox.tell(claim, None);
        }
        outcome
    }

    fn no_entry(&self, claim: &Claim, refusal: NoEntry) -> Error {
        match refusal {
            NoEntry::Disagrees { limit } => Error::disagrees(claim, limit).at(self),
            gone @ NoEntry::NoSession => {
                Error::new(ErrorKind::SessionEnded, "enter the line of", "open a new session")
                    .about(&claim.key)
                    .at(self)
                    .because(gone)
            }
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // A panic inside the table is a bug; its state may then break the rule, so it spreads.
        self.shared.table.lock().unwrap_or_else(|poisoned: PoisonError<_>| {
            panic!("the in-memory store panicked before: {poisoned}")
        })
    }
}

impl Store for Memory {
    fn guarantees(&self) -> Guarantees {
        Guarantees {
            properties: PROPERTIES,
            min_ttl: Timing::MIN_TTL,
            lapse_delay: Duration::ZERO,
            lease: LeaseScope::Session,
            renew_batch: usize::MAX,
            recheck: Duration::from_secs(5),
        }
    }

    fn open<'a>(&'a self, terms: &'a Terms) -> BoxFuture<'a, Result<SessionId>> {
        async move {
            let min_ttl = self.guarantees().min_ttl;
            if terms.ttl < min_ttl {
                let detail = format!("a TTL of {:?} is too short: at least {min_ttl:?}", terms.ttl);
                return Err(Error::new(ErrorKind::Invalid, "open a session", detail).at(self));
            }
            let session = SessionId::new(&random::token()?);
            self.shared.mailbox.expect_session(&session);
            self.step(|table| table.open(clock::now(), session.clone(), terms.clone()));
            Ok(session)
        }
        .boxed()
    }

    fn renew<'a>(
        &'a self,
        session: &'a SessionId,
        roll: &'a [Claim],
    ) -> BoxFuture<'a, Result<Renewed>> {
        let roll: Vec<ClaimId> = roll.iter().map(|claim| claim.id).collect();
        async move { Ok(self.step(|table| table.renew(clock::now(), session, &roll))) }.boxed()
    }

    fn close<'a>(&'a self, session: &'a SessionId) -> BoxFuture<'a, Result<()>> {
        async move {
            self.step(|table| table.close(clock::now(), session));
            self.shared.mailbox.forget_session(session);
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
            self.shared.mailbox.expect(claim.id);
            let place = self.step(|table| table.enter(clock::now(), session, claim, enter));
            let place = place.map_err(|refusal| self.no_entry(claim, refusal));
            if !matches!(place, Ok(Place::Waiting(_))) {
                self.shared.mailbox.forget(claim.id);
            }
            place
        }
        .boxed()
    }

    fn enter_all<'a>(
        &'a self,
        session: &'a SessionId,
        claims: &'a [Claim],
    ) -> BoxFuture<'a, Result<Together>> {
        async move {
            self.step(|table| table.enter_all(clock::now(), session, claims))
                .map_err(|(at, refusal)| self.no_entry(&claims[at], refusal))
        }
        .boxed()
    }

    fn changed<'a>(
        &'a self,
        _session: &'a SessionId,
        claim: &'a Claim,
    ) -> BoxFuture<'a, Result<Option<Place>>> {
        async move {
            // Nothing runs when a lease lapses, so the waiter looks when the next one does.
            let lapse = self.table().lapses_in(clock::now(), &claim.key);
            let told = self.shared.mailbox.told(claim.id);
            match lapse {
                Some(lapse) => Ok(tokio::time::timeout(lapse, told).await.unwrap_or(None)),
                None => Ok(told.await),
            }
        }
        .boxed()
    }

    fn disturbed<'a>(&'a self, session: &'a SessionId) -> BoxFuture<'a, ()> {
        self.shared.mailbox.disturbed(session).boxed()
    }

    fn leave<'a>(
        &'a self,
        session: &'a SessionId,
        claim: &'a Claim,
    ) -> BoxFuture<'a, Result<Left>> {
        async move {
            let left = self.step(|table| table.leave(clock::now(), session, claim));
            self.shared.mailbox.forget(claim.id);
            Ok(left)
        }
        .boxed()
    }

    fn amend<'a>(
        &'a self,
        session: &'a SessionId,
        claim: &'a Claim,
    ) -> BoxFuture<'a, Result<bool>> {
        async move { Ok(self.step(|table| table.amend(clock::now(), session, claim))) }.boxed()
    }

    fn read<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Reading>> {
        async move {
            let written = self.step(|table| table.read(clock::now(), key));
            Ok(Reading { written, at: Some(clock::wall()) })
        }
        .boxed()
    }

    fn write<'a>(
        &'a self,
        key: &'a Key,
        provided: Provided<'a>,
        record: &'a Record,
    ) -> BoxFuture<'a, Result<bool>> {
        async move { Ok(self.step(|table| table.write(clock::now(), key, provided, record))) }
            .boxed()
    }

    fn revoke<'a>(&'a self, key: &'a Key, claim: &'a ClaimId) -> BoxFuture<'a, Result<bool>> {
        async move {
            let owner = self.step(|table| table.revoke(clock::now(), key, *claim));
            if let Some(session) = &owner {
                self.shared.mailbox.disturb(session);
                self.shared.mailbox.tell(*claim, None);
            }
            Ok(owner.is_some())
        }
        .boxed()
    }

    fn inspect<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Line>> {
        async move { Ok(self.step(|table| table.inspect(clock::now(), key))) }.boxed()
    }

    fn keys<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Vec<Key>>> {
        async move { Ok(self.step(|table| table.keys(clock::now(), prefix))) }.boxed()
    }

    fn examine(&self, _ttl: Duration) -> BoxFuture<'_, Result<Examination>> {
        async move {
            let mut found = Examination::default();
            found.add(
                Finding::warning(
                    "reach",
                    "Locks exclude within this handle and its clones only: no other process, and \
                     no other handle of this one, knows of them. They end with the process.",
                )
                .change("sqlite:PATH for the processes of one machine, or a store with a server"),
            );
            Ok(found)
        }
        .boxed()
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("memory:")
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Memory")
    }
}
