//! The contract.

use std::collections::{BTreeSet, HashSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt, ready};
use futures::stream::{self, StreamExt, TryStreamExt};
use leasehold_core::{
    Claim, ClaimId, Enter, Key, Left, Line, Place, Provided, Reading, Record, Renewed, SessionId,
    Terms, Together,
};

use super::attempt::{Outcome, attempt};
use super::config::Config;
use super::inbox::channel_of;
use super::quorum::Quorum;
use super::wire::{End, Server};
use super::{GUARANTEES, examine, renew};
use crate::error::{Error, ErrorKind, Result};
use crate::examination::Examination;
use crate::random;
use crate::store::{Guarantees, Store};
use crate::stores::redis::failure::Failure;
use crate::stores::redis::inbox::channel_name;
use crate::stores::redis::keys;
use crate::stores::redis::session::Session;

/// How many requests of one call are on their way at once.
const AT_ONCE: usize = 64;

/// How many keys one request asks about.
const BATCH: usize = 256;

const NO_RECORDS: &str = "a quorum keeps no records: a write that reaches a minority only could \
    neither be undone nor be known to have failed; use another store";

/// Independent Redis servers that vote. Clones are handles that share one connection to each.
///
/// ```no_run
/// # async fn example() -> leasehold::Result<()> {
/// use leasehold::{Client, stores::Redlock};
/// let store = Redlock::new("redlock://a.internal,b.internal,c.internal,d.internal,e.internal")?;
/// let client = Client::builder().store(store).build()?;
/// let guard = client.mutex("jobs/42")?.lock().await?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Redlock {
    quorum: Arc<Quorum>,
}

impl Redlock {
    /// The servers at a URL. Does no IO; what a URL says is in the documentation of this module.
    ///
    /// Fails with [`ErrorKind::Invalid`] when the URL cannot be understood, or names no quorum.
    pub fn new(url: &str) -> Result<Self> {
        Ok(Self { quorum: Arc::new(Quorum::new(Config::parse(url)?)) })
    }

    /// Refuses what the store does not keep.
    fn admit(&self, attempt: &'static str, claim: &Claim) -> Result<()> {
        if claim.limit() > 1 {
            let detail = "a quorum keeps limits of 1 only: two majorities of five servers share one, \
                          but servers that each let several in need not agree on whom; use another \
                          store for semaphores and for readers beside readers";
            return Err(Error::new(ErrorKind::Unsupported, attempt, detail)
                .at(self)
                .about(&claim.key));
        }
        self.admit_key(attempt, &claim.key)
    }

    fn admit_key(&self, attempt: &'static str, key: &Key) -> Result<()> {
        if keys::is_own(key) {
            let detail = "keys that begin with `leasehold:{` are the store's own";
            return Err(Error::new(ErrorKind::Invalid, attempt, detail).at(self).about(key));
        }
        Ok(())
    }

    /// The terms of a session that may still be used.
    fn session(&self, id: &SessionId) -> Option<Session> {
        Session::of(id).filter(|_| !self.quorum.inbox.sessions.is_closed(id))
    }

    /// Tries, and where a waiter is refused, has the servers tell of the release.
    async fn ask_to_enter(
        &self,
        doing: &'static str,
        session: &Session,
        claim: &Claim,
        enter: Enter,
    ) -> Result<Outcome> {
        let Claim { id, key, .. } = claim;
        let inbox = &self.quorum.inbox;
        let joined = enter == Enter::Wait && inbox.is_awaited(key) && !inbox.join(key, *id);
        let outcome = attempt(&self.quorum, session, claim, doing).await?;
        if enter == Enter::Try || joined || matches!(outcome, Outcome::Granted(_)) {
            return Ok(outcome);
        }
        if inbox.join(key, *id) {
            self.quorum.listen(key, self.quorum.patience(session.lasts(), 4)).await;
        }
        // What was released before they were listened to was not told.
        attempt(&self.quorum, session, claim, doing).await
    }

    /// A claim that is known to hold is asked for again: it goes on, or is lost.
    async fn ask_again(
        &self,
        doing: &'static str,
        session: &Session,
        claim: &Claim,
    ) -> Result<Option<Place>> {
        let Some(hold) = self.quorum.inbox.hold(claim.id) else { return Ok(None) };
        let roll = std::slice::from_ref(claim);
        let lost = renew::renew(&self.quorum, session, roll, doing).await?;
        Ok(lost.is_empty().then(|| Place::Held(hold.renewal.fence())))
    }

    /// The claim is over here; what it listened to is of no interest any more.
    fn forget(&self, key: &Key, claim: ClaimId) {
        if self.quorum.inbox.forget(key, claim) {
            self.quorum.listen_no_more(&channel_of(key));
        }
    }

    async fn ask_to_leave(&self, key: &Key, claim: ClaimId, patience: Duration) -> Result<bool> {
        // First, so that no renewal under way gives it back to a server.
        self.quorum.inbox.holds_no_more(claim);
        let left = self.quorum.end("release", (key, claim), End::Leave, patience).await;
        let held = left.map_err(|error| error.about(key))?;
        self.forget(key, claim);
        Ok(held)
    }

    async fn keys_at(server: Arc<Server>, prefix: Arc<str>) -> Result<BTreeSet<Key>, Failure> {
        let (mut from, mut found) = (0, BTreeSet::new());
        loop {
            let (next, keys) = server.scan(from, &prefix).await?;
            found.extend(keys);
            if next == 0 {
                return Ok(found);
            }
            from = next;
        }
    }
}

impl Store for Redlock {
    fn guarantees(&self) -> Guarantees {
        GUARANTEES
    }

    fn open<'a>(&'a self, terms: &'a Terms) -> BoxFuture<'a, Result<SessionId>> {
        const ATTEMPT: &str = "open a session";
        async move {
            if terms.ttl < GUARANTEES.min_ttl {
                let detail = format!(
                    "a TTL of {:?} is under the store's least, {:?}",
                    terms.ttl, GUARANTEES.min_ttl
                );
                return Err(Error::new(ErrorKind::Invalid, ATTEMPT, detail).at(self));
            }
            let session = Session::new(random::token()?, terms);
            let id = session.id();
            self.quorum.inbox.sessions.hear(&id, &session);
            let channel = channel_name(session.channel());
            let mut answers = self.quorum.ask(self.quorum.config.common().timeout, |server| {
                let channel = channel.clone();
                async move { server.subscribe(channel).await }
            });
            while answers.answered() < self.quorum.majority() {
                if answers.next().await.is_none() {
                    self.quorum.inbox.sessions.close(&id, &session);
                    return Err(answers.too_few(ATTEMPT, &self.quorum));
                }
            }
            Ok(id)
        }
        .boxed()
    }

    fn renew<'a>(
        &'a self,
        session: &'a SessionId,
        roll: &'a [Claim],
    ) -> BoxFuture<'a, Result<Renewed>> {
        async move {
            let Some(session) = self.session(session) else { return Ok(Renewed::Ended) };
            let mut lost = HashSet::new();
            for chunk in roll.chunks(GUARANTEES.renew_batch) {
                let chunk = renew::renew(&self.quorum, &session, chunk, "renew the claims").await;
                lost.extend(chunk?);
            }
            let lost = roll.iter().filter(|claim| lost.contains(&claim.id));
            let lost = lost.map(|claim| {
                self.forget(&claim.key, claim.id);
                claim.id
            });
            Ok(Renewed::Extended { lost: lost.collect() })
        }
        .boxed()
    }

    fn close<'a>(&'a self, session: &'a SessionId) -> BoxFuture<'a, Result<()>> {
        async move {
            let Some(terms) = Session::of(session) else { return Ok(()) };
            let sessions = &self.quorum.inbox.sessions;
            let heard = sessions.close(session, &terms);
            let patience = self.quorum.patience(terms.lasts(), 2);
            stream::iter(sessions.claims_of(session))
                .map(async |(claim, key)| self.ask_to_leave(&key, claim, patience).await)
                .buffer_unordered(AT_ONCE)
                .try_for_each(async |_| Ok(()))
                .await?;
            if heard {
                self.quorum.listen_no_more(&channel_name(terms.channel()));
            }
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
        const ATTEMPT: &str = "enter the line of";
        async move {
            self.admit(ATTEMPT, claim)?;
            let Some(terms) = self.session(session) else {
                let ended = Error::new(ErrorKind::SessionEnded, ATTEMPT, "open a new session");
                return Err(ended.at(self).about(&claim.key));
            };
            let inbox = &self.quorum.inbox;
            if let Some(place) = self.ask_again(ATTEMPT, &terms, claim).await? {
                return Ok(place);
            }
            inbox.sessions.expect(session, claim);
            let outcome = self.ask_to_enter(ATTEMPT, &terms, claim, enter).await;
            match outcome.map_err(|error| error.about(&claim.key))? {
                Outcome::Granted(fence) => {
                    if inbox.part(&claim.key, claim.id) {
                        self.quorum.listen_no_more(&channel_of(&claim.key));
                    }
                    Ok(Place::Held(fence))
                }
                Outcome::Contended(view) if enter == Enter::Wait => {
                    inbox.waits(claim.id, &view);
                    Ok(Place::Waiting(view.ahead()))
                }
                Outcome::Contended(view) => {
                    self.forget(&claim.key, claim.id);
                    Ok(Place::Refused(view.ahead()))
                }
            }
        }
        .boxed()
    }

    /// The servers vote on each key, and no server knows of the others' votes: two callers may each
    /// be granted all keys at some servers, so that the step would be none for the quorum.
    fn enter_all<'a>(
        &'a self,
        _session: &'a SessionId,
        _claims: &'a [Claim],
    ) -> BoxFuture<'a, Result<Together>> {
        ready(Ok(Together::Apart)).boxed()
    }

    fn changed<'a>(
        &'a self,
        _session: &'a SessionId,
        claim: &'a Claim,
    ) -> BoxFuture<'a, Result<Option<Place>>> {
        async move {
            let inbox = &self.quorum.inbox;
            let told = inbox.sessions.mailbox.told(claim.id);
            let _ = tokio::time::timeout(inbox.look_in(claim.id), told).await;
            // Nobody is handed the key: who is woken asks for it.
            Ok(None)
        }
        .boxed()
    }

    fn disturbed<'a>(&'a self, session: &'a SessionId) -> BoxFuture<'a, ()> {
        self.quorum.inbox.sessions.mailbox.disturbed(session).boxed()
    }

    fn leave<'a>(
        &'a self,
        session: &'a SessionId,
        claim: &'a Claim,
    ) -> BoxFuture<'a, Result<Left>> {
        async move {
            self.admit_key("release", &claim.key)?;
            let ttl = Session::of(session).map_or(Duration::MAX, |terms| terms.lasts());
            // Who gives up before is not in the way: the release goes on in the background.
            let patience = self.quorum.patience(ttl, 2);
            let held = self.ask_to_leave(&claim.key, claim.id, patience).await?;
            Ok(if held { Left::Released } else { Left::Gone })
        }
        .boxed()
    }

    fn amend<'a>(
        &'a self,
        _session: &'a SessionId,
        claim: &'a Claim,
    ) -> BoxFuture<'a, Result<bool>> {
        let detail = "a quorum cannot amend a hold: its servers would tell different notes, and it \
                      counts no units; use another store";
        let error = Error::new(ErrorKind::Unsupported, "amend the hold of", detail);
        ready(Err(error.at(self).about(&claim.key))).boxed()
    }

    fn read<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Reading>> {
        let error = Error::new(ErrorKind::Unsupported, "read the record of", NO_RECORDS);
        ready(Err(error.at(self).about(key))).boxed()
    }

    fn write<'a>(
        &'a self,
        key: &'a Key,
        _provided: Provided<'a>,
        _record: &'a Record,
    ) -> BoxFuture<'a, Result<bool>> {
        let error = Error::new(ErrorKind::Unsupported, "write the record of", NO_RECORDS);
        ready(Err(error.at(self).about(key))).boxed()
    }

    fn revoke<'a>(&'a self, key: &'a Key, claim: &'a ClaimId) -> BoxFuture<'a, Result<bool>> {
        const ATTEMPT: &str = "revoke a claim on";
        async move {
            self.admit_key(ATTEMPT, key)?;
            let patience = self.quorum.config.common().timeout;
            let revoked = self.quorum.end(ATTEMPT, (key, *claim), End::Revoke, patience).await;
            revoked.map_err(|error| error.about(key))
        }
        .boxed()
    }

    fn inspect<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Line>> {
        const ATTEMPT: &str = "inspect";
        async move {
            self.admit_key(ATTEMPT, key)?;
            let patience = self.quorum.config.common().timeout;
            let views = self.quorum.look(ATTEMPT, vec![key.clone()], patience).await;
            let views = views.map_err(|error| error.about(key))?;
            let holders = views.iter().filter_map(super::view::View::holder).collect();
            Ok(Line { holders, waiters: Vec::new() })
        }
        .boxed()
    }

    fn keys<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Vec<Key>>> {
        const ATTEMPT: &str = "list the keys";
        async move {
            let patience = self.quorum.config.common().timeout;
            let prefix: Arc<str> = prefix.into();
            let mut answers =
                self.quorum.ask(patience, |server| Self::keys_at(server, Arc::clone(&prefix)));
            let mut found = BTreeSet::new();
            while let Some((_, keys)) = answers.next().await {
                found.extend(keys.unwrap_or_default());
            }
            if answers.answered() < self.quorum.majority() {
                return Err(answers.too_few(ATTEMPT, &self.quorum));
            }
            let found: Vec<Key> = found.into_iter().collect();
            let mut held = Vec::new();
            for some in found.chunks(BATCH) {
                let views = self.quorum.look(ATTEMPT, some.to_vec(), patience).await?;
                let ours = some
                    .iter()
                    .zip(views)
                    .filter(|(_, view)| view.holder().is_some_and(|holder| holder.claim.is_some()));
                held.extend(ours.map(|(key, _)| key.clone()));
            }
            Ok(held)
        }
        .boxed()
    }

    fn examine(&self, _ttl: Duration) -> BoxFuture<'_, Result<Examination>> {
        examine::examine(&self.quorum).boxed()
    }
}

impl fmt::Display for Redlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.quorum.config.fmt(f)
    }
}

impl fmt::Debug for Redlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Redlock({self})")
    }
}
