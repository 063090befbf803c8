//! The contract over the file.

use std::collections::HashMap;
use std::fmt;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt};
use leasehold_core::{
    Claim, ClaimId, Enter, Key, Left, Line, Moment, Place, Provided, Reading, Record, Renewed,
    SessionId, Terms, Together,
};

use super::trouble::Trouble;
use super::watch::Watches;
use super::wire::{Refusal, Wire};
use super::writer::Writer;
use super::{GUARANTEES, POLL, Sqlite, examine};
use crate::clock;
use crate::error::{Error, ErrorKind, Result};
use crate::examination::{Examination, Examined};
use crate::random;
use crate::store::{Guarantees, Store};
use crate::stores::mailbox::Mailbox;

/// How old a session has to be before it binds a socket for news that are not of a wait.
const SETTLED: Duration = Duration::from_millis(100);

const ENTER: &str = "enter the line of";

/// What the clones of a handle share.
pub(super) struct Shared {
    pub(super) path: PathBuf,
    writer: Writer,
    mailbox: Arc<Mailbox>,
    watches: Arc<Watches>,
    /// When each waiting claim asks again although nobody told it to.
    rechecks: Mutex<HashMap<ClaimId, Moment>>,
}

impl Shared {
    pub(super) fn new(path: PathBuf) -> Self {
        let mailbox = Arc::new(Mailbox::default());
        Self {
            writer: Writer::new(path.clone(), Arc::clone(&mailbox)),
            path,
            mailbox,
            watches: Arc::default(),
            rechecks: Mutex::default(),
        }
    }

    fn forget(&self, claim: ClaimId) {
        self.rechecks().remove(&claim);
        self.watches.forget(claim);
        self.mailbox.forget(claim);
    }

    fn rechecks(&self) -> MutexGuard<'_, HashMap<ClaimId, Moment>> {
        // Nothing panics while this lock is held.
        self.rechecks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sqlite {
    /// Carries out one operation in a transaction.
    async fn run<T: Send + 'static>(
        &self,
        attempt: &'static str,
        key: Option<&Key>,
        work: impl FnOnce(&mut Wire, i64) -> Result<T, Trouble> + Send + 'static,
    ) -> Result<T> {
        let answer = self.shared.writer.send(work).await;
        answer.map_err(|trouble| self.failed(attempt, key, trouble))
    }

    fn failed(&self, attempt: &'static str, key: Option<&Key>, trouble: Trouble) -> Error {
        let error = trouble.during(attempt).at(self);
        match key {
            Some(key) => error.about(key),
            None => error,
        }
    }

    /// A descriptor for another process that has to end before the holds of this handle may: as
    /// long as it is open anywhere, the end of this process is not seen, and the holds last until
    /// their TTL. `None` before the first session.
    ///
    /// A supervisor of a command hands it to whoever ends the command should the supervisor die.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes the descriptor.
    ///
    /// # Errors
    ///
    /// When the file cannot be used, or there are too many open descriptors.
    pub async fn lifeline(&self) -> Result<Option<OwnedFd>> {
        self.run("share the life of a session", None, |wire, _| wire.lifeline()).await
    }

    /// Looks at the file, and measures transactions.
    async fn examined(&self) -> Result<Examination> {
        const ATTEMPT: &str = "examine the store";
        let mailbox = Arc::clone(&self.shared.mailbox);
        let facts = move |wire: &mut Wire, _| {
            wire.be_seen()?;
            let told = wire.listen(&mailbox);
            Ok((wire.facts()?, told))
        };
        let (facts, told) = self.run(ATTEMPT, None, facts).await?;
        let exchange = || self.run(ATTEMPT, None, |_, _| Ok(None));
        let file = Examined::new(self.shared.path.display().to_string()).measure(exchange).await?;
        Ok(examine::judge(&self.shared.path, file, &facts, told))
    }

    fn no_entry(&self, claim: &Claim, refusal: Refusal) -> Error {
        let (kind, detail) = match refusal {
            Refusal::Disagrees { limit } => return Error::disagrees(claim, limit).at(self),
            Refusal::NoSession => (ErrorKind::SessionEnded, "the session lapsed; open a new one"),
            Refusal::NotYours => {
                (ErrorKind::Invalid, "another session has a claim of this id; draw a new one")
            }
        };
        Error::new(kind, ENTER, detail).about(&claim.key).at(self)
    }

    async fn enter_line(&self, session: &SessionId, claim: &Claim, enter: Enter) -> Result<Place> {
        let mailbox = Arc::clone(&self.shared.mailbox);
        let (id, asked) = (session.clone(), claim.clone());
        let work = move |wire: &mut Wire, now| {
            let entered = wire.enter(now, &id, &asked, enter)?;
            let waits = entered.as_ref().is_ok_and(|it| matches!(it.place, Place::Waiting(_)));
            // Before the commit: until then nobody knows the claim, so no wake-up is missed.
            let told = waits && wire.listen(&mailbox);
            Ok(entered.map(|entered| (entered, told, Arc::clone(&wire.directory))))
        };
        let entered = self.run(ENTER, Some(&claim.key), work).await?;
        let (entered, told, directory) =
            entered.map_err(|refusal| self.no_entry(claim, refusal))?;
        if matches!(entered.place, Place::Waiting(_)) {
            let floor = if told { GUARANTEES.recheck } else { POLL };
            let wait = entered.lapse.map_or(floor, |lapse| lapse.min(floor));
            self.shared.rechecks().insert(claim.id, clock::now() + wait);
            let mailbox = &self.shared.mailbox;
            self.shared.watches.watch(claim.id, entered.watch, &directory, mailbox);
        }
        Ok(entered.place)
    }
}

impl Store for Sqlite {
    fn guarantees(&self) -> Guarantees {
        GUARANTEES
    }

    fn open<'a>(&'a self, terms: &'a Terms) -> BoxFuture<'a, Result<SessionId>> {
        async move {
            let attempt = "open a session";
            if terms.ttl < GUARANTEES.min_ttl {
                let detail = format!("a TTL is at least {:?} here", GUARANTEES.min_ttl);
                return Err(Error::new(ErrorKind::Invalid, attempt, detail).at(self));
            }
            let session = SessionId::new(&random::token()?);
            let (id, terms) = (session.clone(), terms.clone());
            let work = move |wire: &mut Wire, now| match wire.be_seen() {
                Ok(peer) => wire.open_session(now, &id, &terms, &peer).map(Ok),
                // Nothing was written, so what else is in the transaction need not fail.
                Err(trouble) => Ok(Err(trouble)),
            };
            let opened = self.run(attempt, None, work).await?;
            opened.map_err(|trouble| trouble.during(attempt).at(self))?;
            self.shared.mailbox.expect_session(&session);
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
        let id = session.clone();
        self.run("renew the session", None, move |wire, now| wire.renew(now, &id, &roll)).boxed()
    }

    fn close<'a>(&'a self, session: &'a SessionId) -> BoxFuture<'a, Result<()>> {
        async move {
            let id = session.clone();
            let work = move |wire: &mut Wire, now| wire.end_session(now, &id);
            self.run("close the session", None, work).await?;
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
            let place = self.enter_line(session, claim, enter).await;
            if !matches!(place, Ok(Place::Waiting(_))) {
                self.shared.forget(claim.id);
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
            let (id, asked) = (session.clone(), claims.to_vec());
            let work = move |wire: &mut Wire, now| wire.enter_all(now, &id, &asked);
            let entered = self.run("enter several lines", None, work).await?;
            entered.map_err(|(at, refusal)| self.no_entry(&claims[at], refusal))
        }
        .boxed()
    }

    fn changed<'a>(
        &'a self,
        _session: &'a SessionId,
        claim: &'a Claim,
    ) -> BoxFuture<'a, Result<Option<Place>>> {
        async move {
            let recheck = self.shared.rechecks().get(&claim.id).copied();
            let wait = recheck.map_or(GUARANTEES.recheck, |at| at.since(clock::now()));
            let told = self.shared.mailbox.told(claim.id);
            Ok(tokio::time::timeout(wait, told).await.unwrap_or(None))
        }
        .boxed()
    }

    fn disturbed<'a>(&'a self, session: &'a SessionId) -> BoxFuture<'a, ()> {
        async move {
            // A program that locks for a moment is spared the socket: it is over before anybody
            // could revoke its claim.
            tokio::time::sleep(SETTLED).await;
            let mailbox = Arc::clone(&self.shared.mailbox);
            // Without a socket the next renewal tells.
            let _ = self.shared.writer.send(move |wire, _| Ok(wire.listen(&mailbox))).await;
            self.shared.mailbox.disturbed(session).await;
        }
        .boxed()
    }

    fn leave<'a>(
        &'a self,
        session: &'a SessionId,
        claim: &'a Claim,
    ) -> BoxFuture<'a, Result<Left>> {
        async move {
            self.shared.forget(claim.id);
            let (id, left) = (session.clone(), claim.clone());
            let work = move |wire: &mut Wire, now| wire.leave(now, &id, &left);
            self.run("leave the line of", Some(&claim.key), work).await
        }
        .boxed()
    }

    fn amend<'a>(
        &'a self,
        session: &'a SessionId,
        claim: &'a Claim,
    ) -> BoxFuture<'a, Result<bool>> {
        async move {
            let (id, amended) = (session.clone(), claim.clone());
            let work = move |wire: &mut Wire, now| wire.amend(now, &id, &amended);
            self.run("amend the hold of", Some(&claim.key), work).await
        }
        .boxed()
    }

    fn read<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Reading>> {
        async move {
            let name = key.clone();
            let work = move |wire: &mut Wire, now| {
                Ok(Reading { written: wire.read(now, &name)?, at: Some(clock::wall()) })
            };
            self.run("read the record of", Some(key), work).await
        }
        .boxed()
    }

    fn write<'a>(
        &'a self,
        key: &'a Key,
        provided: Provided<'a>,
        record: &'a Record,
    ) -> BoxFuture<'a, Result<bool>> {
        async move {
            let (name, record) = (key.clone(), record.clone());
            let writer = &self.shared.writer;
            let written = match provided {
                Provided::Unchanged(version) => {
                    let provided = Provided::Unchanged(version);
                    let work = move |wire: &mut Wire, now| {
                        wire.write(now, clock::wall(), &name, provided, &record)
                    };
                    writer.send(work).await
                }
                Provided::Held(session, claim) => {
                    let (id, claim) = (session.clone(), claim.clone());
                    let work = move |wire: &mut Wire, now| {
                        let provided = Provided::Held(&id, &claim);
                        wire.write(now, clock::wall(), &name, provided, &record)
                    };
                    writer.send_lasting(work).await
                }
            };
            written.map_err(|trouble| self.failed("write the record of", Some(key), trouble))
        }
        .boxed()
    }

    fn revoke<'a>(&'a self, key: &'a Key, claim: &'a ClaimId) -> BoxFuture<'a, Result<bool>> {
        async move {
            let (name, id) = (key.clone(), *claim);
            let work = move |wire: &mut Wire, now| wire.revoke(now, &name, &id);
            self.run("revoke a claim on", Some(key), work).await
        }
        .boxed()
    }

    fn inspect<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Line>> {
        async move {
            let name = key.clone();
            let work = move |wire: &mut Wire, now| wire.inspect(now, &name);
            self.run("inspect", Some(key), work).await
        }
        .boxed()
    }

    fn keys<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Vec<Key>>> {
        async move {
            let prefix = prefix.to_owned();
            self.run("list the keys", None, move |wire, now| wire.keys(now, &prefix)).await
        }
        .boxed()
    }

    fn examine(&self, _ttl: Duration) -> BoxFuture<'_, Result<Examination>> {
        self.examined().boxed()
    }
}

impl fmt::Display for Sqlite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sqlite:{}", self.shared.path.display())
    }
}

impl fmt::Debug for Sqlite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Sqlite").field(&self.shared.path).finish()
    }
}
