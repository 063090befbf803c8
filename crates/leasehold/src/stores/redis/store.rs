//! The contract.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt};
use futures::stream::{self, StreamExt, TryStreamExt};
use leasehold_core::{
    Claim, ClaimId, Enter, Key, Left, Line, Place, Provided, Reading, Record, Renewed, SessionId,
    Terms, Together,
};

use super::answers;
use super::config::Config;
use super::failure::Failure;
use super::inbox::{Inbox, Standing};
use super::scripts::Script;
use super::servers::{Servers, Visit};
use super::session::Session;
use super::{GUARANTEES, PROPERTIES, examine, keys, scripts};
use crate::clock;
use crate::error::{Error, ErrorKind, Result};
use crate::examination::Examination;
use crate::property::{Properties, Property};
use crate::random;
use crate::store::{Guarantees, Store};

/// How many requests of one call are on their way at once.
const AT_ONCE: usize = 256;

/// A Redis server, or a cluster of them. Clones are handles that share one connection (in a cluster
/// two to each node), which is made when first needed and made again whenever it ends.
///
/// ```no_run
/// # async fn example() -> leasehold::Result<()> {
/// use leasehold::{Store, stores::Redis};
/// let store = Redis::new("redis://127.0.0.1/0?timeout=1s")?;
/// for key in store.keys("jobs/").await? {
///     println!("{key:?}: {:?}", store.inspect(&key).await?.holders);
/// }
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Redis {
    pub(super) servers: Arc<Servers>,
    pub(super) inbox: Arc<Inbox>,
}

impl Redis {
    /// The server at a URL. Does no IO; what a URL says is in the documentation of this module.
    ///
    /// Fails with [`ErrorKind::Invalid`] when the URL cannot be understood.
    pub fn new(url: &str) -> Result<Self> {
        let inbox = Arc::new(Inbox::default());
        Ok(Self { servers: Arc::new(Servers::new(Config::parse(url)?, &inbox)), inbox })
    }

    /// Refuses what would meet the store's own names.
    pub(super) fn admit(&self, attempt: &'static str, key: &Key) -> Result<()> {
        if keys::is_own(key) {
            let detail = "keys that begin with `leasehold:{` are the store's own";
            return Err(Error::new(ErrorKind::Invalid, attempt, detail).at(self).about(key));
        }
        Ok(())
    }

    /// The terms of a session that may still be used.
    pub(super) fn session(&self, id: &SessionId) -> Option<Session> {
        Session::of(id).filter(|_| !self.inbox.is_closed(id))
    }

    /// Waits until as many replicas as were asked for have what was just written.
    pub(super) async fn wait_for_replicas(&self, visit: &Visit) -> Result<(), Failure> {
        let &Config { replicas: wanted, timeout, .. } = self.servers.config();
        if wanted == 0 {
            return Ok(());
        }
        let had = visit.live.wire.replicated(wanted, timeout / 2).await?;
        if had >= wanted {
            return Ok(());
        }
        let detail = format!(
            "{had} of the {wanted} replicas that `replicas=` asks for have it; see to the replicas, or ask for fewer"
        );
        Err(Failure::new(ErrorKind::Unavailable, detail).outcome_unknown())
    }

    async fn ask_to_leave(&self, claim: ClaimId, key: &Key) -> Result<Left, Failure> {
        let (names, token) = (keys::names(key), claim.to_hex());
        let mut found = None;
        loop {
            let answer = self.servers.request(key.as_str(), async |visit| {
                visit.run(&scripts::LEAVE, &names, &[&token]).await
            });
            let (left, again) = answers::left(answer.await?)?;
            let found = *found.get_or_insert(left);
            if !again {
                self.forget(claim);
                return Ok(found);
            }
        }
    }

    async fn ask_to_amend(&self, session: &Session, claim: &Claim) -> Result<bool, Failure> {
        let told_by = self.servers.told_by(session, &claim.key);
        let tail = keys::tail(&told_by, session.owner(), &claim.note);
        let (token, units) = (claim.id.to_hex(), claim.units().to_string());
        self.ask_until_done(&scripts::AMEND, &claim.key, &[&token, &units, &tail]).await
    }

    /// Asks again for as long as there is more to pass over or to grant. What the first answer found.
    async fn ask_until_done(
        &self,
        script: &Script,
        key: &Key,
        arguments: &[&str],
    ) -> Result<bool, Failure> {
        let (names, mut found) = (keys::names(key), None);
        loop {
            let answer = self
                .servers
                .request(key.as_str(), async |visit| visit.run(script, &names, arguments).await);
            let (now, again) = answers::found(answer.await?)?;
            let found = *found.get_or_insert(now);
            if !again {
                return Ok(found);
            }
        }
    }

    async fn ask_to_read(&self, key: &Key) -> Result<Reading, Failure> {
        let (names, nothing): (_, [&str; 0]) = (keys::names_of_record(key), []);
        let answer = self.servers.request(key.as_str(), async |visit| {
            visit.run(&scripts::READ, &names[..1], &nothing).await
        });
        answers::read(answer.await?)
    }

    async fn ask_to_write(
        &self,
        key: &Key,
        provided: Provided<'_>,
        record: &Record,
    ) -> Result<bool, Failure> {
        let names = [&keys::names(key)[..], &keys::names_of_record(key)[..]].concat();
        // Upwards, to the server's whole milliseconds.
        let keep = record.keep().as_nanos().div_ceil(1_000_000).to_string();
        let (what, which) = match provided {
            Provided::Unchanged(version) => {
                let version = version.map(|version| format!("{:016}", version.get()));
                ("version", version.unwrap_or_default())
            }
            Provided::Held(_, claim) => ("held", claim.id.to_hex()),
        };
        let arguments = [record.value(), keep.as_bytes(), what.as_bytes(), which.as_bytes()];
        let answer = self.servers.request(key.as_str(), async |visit| {
            let answer = visit.run(&scripts::WRITE, &names, &arguments).await?;
            let written = answers::written(answer)?;
            if written {
                self.wait_for_replicas(&visit).await?;
            }
            Ok(written)
        });
        answer.await
    }

    async fn ask_for_line(&self, key: &Key) -> Result<Line, Failure> {
        let (names, nothing): (_, [&str; 0]) = (keys::names(key), []);
        let answer = self.servers.request(key.as_str(), async |visit| {
            visit.run(&scripts::INSPECT, &names, &nothing).await
        });
        answers::inspected(answer.await?)
    }

    async fn ask_to_revoke(&self, key: &Key, claim: ClaimId) -> Result<bool, Failure> {
        let (names, nothing): (_, [&str; 0]) = (keys::names(key), []);
        let inspected = self.servers.request(key.as_str(), async |visit| {
            visit.run(&scripts::INSPECT, &names, &nothing).await
        });
        let owner = answers::told_by(inspected.await?, claim);
        let token = claim.to_hex();
        let revoked = self.ask_until_done(&scripts::REVOKE, key, &[&token]).await?;
        if let Some(owner) = owner.filter(|_| revoked) {
            self.servers.tell(&owner, &format!("lost {token}")).await;
        }
        Ok(revoked)
    }

    /// The claim is over.
    pub(super) fn forget(&self, claim: ClaimId) {
        if let Some(channel) = self.inbox.forget(claim) {
            self.servers.unhear(channel);
        }
    }

    /// The lost of a roll of at most [`Guarantees::renew_batch`] claims.
    async fn beat(&self, session: &Session, roll: &[Claim]) -> Result<Vec<ClaimId>, Failure> {
        let Some(first) = roll.first() else { return Ok(Vec::new()) };
        let names: Vec<String> = roll.iter().flat_map(|claim| keys::names(&claim.key)).collect();
        let (ttl, tokens) =
            (session.ttl(), roll.iter().map(|claim| claim.id.to_hex()).collect::<Vec<_>>());
        let mut arguments = vec![ttl.as_str()];
        for (claim, token) in roll.iter().zip(&tokens) {
            // A claim that another process entered can only be one that was granted.
            let waiting = matches!(self.inbox.standing(claim.id), Some(Standing::Waiting { .. }));
            arguments.extend([token.as_str(), if waiting { "waiting" } else { "held" }]);
        }
        let answer = self.servers.request(first.key.as_str(), async |visit| {
            let answer = visit.run(&scripts::BEAT, &names, &arguments).await?;
            self.wait_for_replicas(&visit).await?;
            Ok(answer)
        });
        let goes_on = answers::beaten(answer.await?, roll.len())?;
        let lost = roll.iter().zip(goes_on).filter(|(_, goes_on)| !goes_on);
        Ok(lost.map(|(claim, _)| claim.id).collect())
    }

    async fn names_beside(&self, prefix: &str) -> Result<BTreeSet<Key>, Failure> {
        let (pattern, mut found) = (keys::pattern("????", prefix), BTreeSet::new());
        for server in self.servers.all().await? {
            let mut cursor = 0;
            loop {
                let step = server.request(async |live| live.wire.scan(cursor, &pattern).await);
                let (next, names) = step.await?;
                found.extend(
                    names
                        .iter()
                        .filter_map(|name| keys::beside(name))
                        .filter(|key| key.as_str().starts_with(prefix)),
                );
                if next == 0 {
                    break;
                }
                cursor = next;
            }
        }
        Ok(found)
    }
}

impl Store for Redis {
    fn guarantees(&self) -> Guarantees {
        let renew_batch = self.servers.renew_batch();
        // Nodes before 7.0 wake nobody in a cluster, and which there are is known only later.
        let lacks = match &*self.servers {
            Servers::Many(_) => Property::Wakes.into(),
            Servers::One(_) => Properties::NONE,
        };
        Guarantees { renew_batch, properties: PROPERTIES - lacks, ..GUARANTEES }
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
            self.inbox.hear(&id, &session);
            if let Err(failure) = self.servers.begin(&session).await {
                self.inbox.close(&id, &session);
                return Err(failure.during(ATTEMPT, self, None));
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
            let chunks = roll.chunks(self.servers.renew_batch());
            let beats: Vec<_> = chunks.map(|chunk| self.beat(&session, chunk)).collect();
            let lost = stream::iter(beats).buffer_unordered(AT_ONCE).try_concat().await;
            let lost = lost.map_err(|failure| failure.during("renew the claims", self, None))?;
            for claim in &lost {
                self.forget(*claim);
            }
            Ok(Renewed::Extended { lost })
        }
        .boxed()
    }

    fn close<'a>(&'a self, session: &'a SessionId) -> BoxFuture<'a, Result<()>> {
        async move {
            let Some(terms) = Session::of(session) else { return Ok(()) };
            let heard = self.inbox.close(session, &terms);
            stream::iter(self.inbox.claims_of(session))
                .map(async |(claim, key)| {
                    let left = self.ask_to_leave(claim, &key).await;
                    left.map_err(|failure| failure.during("release", self, Some(&key)))
                })
                .buffer_unordered(AT_ONCE)
                .try_for_each(async |_| Ok(()))
                .await?;
            if heard {
                // The session is over all the same; at worst an unused subscription stays.
                if let Err(failure) = self.servers.end(&terms).await {
                    tracing::debug!(?failure, store = %self, "could not unsubscribe");
                }
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
        self.enter_line(session, claim, enter).boxed()
    }

    fn enter_all<'a>(
        &'a self,
        session: &'a SessionId,
        claims: &'a [Claim],
    ) -> BoxFuture<'a, Result<Together>> {
        self.enter_together(session, claims).boxed()
    }

    fn changed<'a>(
        &'a self,
        _session: &'a SessionId,
        claim: &'a Claim,
    ) -> BoxFuture<'a, Result<Option<Place>>> {
        async move {
            let told = self.inbox.mailbox.told(claim.id);
            let look = match self.inbox.standing(claim.id) {
                Some(Standing::Waiting { look: Some(look) }) => look.since(clock::now()),
                // Granted by a message that lies ready, or never answered.
                _ => Duration::ZERO,
            };
            let place = tokio::time::timeout(look, told).await.unwrap_or(None);
            if self.servers.config().replicas > 0 {
                // Another's connection wrote the grant: only a write of our own says who has it.
                return Ok(None);
            }
            if matches!(place, Some(Place::Held(_))) {
                self.inbox.holds(claim.id);
            }
            Ok(place)
        }
        .boxed()
    }

    fn disturbed<'a>(&'a self, session: &'a SessionId) -> BoxFuture<'a, ()> {
        self.inbox.mailbox.disturbed(session).boxed()
    }

    fn leave<'a>(
        &'a self,
        _session: &'a SessionId,
        claim: &'a Claim,
    ) -> BoxFuture<'a, Result<Left>> {
        async move {
            self.admit("release", &claim.key)?;
            let left = self.ask_to_leave(claim.id, &claim.key).await;
            left.map_err(|failure| failure.during("release", self, Some(&claim.key)))
        }
        .boxed()
    }

    fn amend<'a>(
        &'a self,
        session: &'a SessionId,
        claim: &'a Claim,
    ) -> BoxFuture<'a, Result<bool>> {
        const ATTEMPT: &str = "amend the hold of";
        async move {
            self.admit(ATTEMPT, &claim.key)?;
            let Some(session) = self.session(session) else { return Ok(false) };
            let amended = self.ask_to_amend(&session, claim).await;
            amended.map_err(|failure| failure.during(ATTEMPT, self, Some(&claim.key)))
        }
        .boxed()
    }

    fn read<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Reading>> {
        const ATTEMPT: &str = "read the record of";
        async move {
            self.admit(ATTEMPT, key)?;
            let reading = self.ask_to_read(key).await;
            reading.map_err(|failure| failure.during(ATTEMPT, self, Some(key)))
        }
        .boxed()
    }

    fn write<'a>(
        &'a self,
        key: &'a Key,
        provided: Provided<'a>,
        record: &'a Record,
    ) -> BoxFuture<'a, Result<bool>> {
        const ATTEMPT: &str = "write the record of";
        async move {
            self.admit(ATTEMPT, key)?;
            if let Provided::Held(session, _) = provided
                && self.session(session).is_none()
            {
                return Ok(false);
            }
            let written = self.ask_to_write(key, provided, record).await;
            written.map_err(|failure| failure.during(ATTEMPT, self, Some(key)))
        }
        .boxed()
    }

    fn revoke<'a>(&'a self, key: &'a Key, claim: &'a ClaimId) -> BoxFuture<'a, Result<bool>> {
        const ATTEMPT: &str = "revoke a claim on";
        async move {
            self.admit(ATTEMPT, key)?;
            let revoked = self.ask_to_revoke(key, *claim).await;
            revoked.map_err(|failure| failure.during(ATTEMPT, self, Some(key)))
        }
        .boxed()
    }

    fn inspect<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Line>> {
        const ATTEMPT: &str = "inspect";
        async move {
            self.admit(ATTEMPT, key)?;
            let line = self.ask_for_line(key).await;
            line.map_err(|failure| failure.during(ATTEMPT, self, Some(key)))
        }
        .boxed()
    }

    fn keys<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Vec<Key>>> {
        async move {
            let found = self.names_beside(prefix).await;
            let found = found.map_err(|failure| failure.during("list the keys", self, None))?;
            stream::iter(found)
                .map(async |key| match self.ask_for_line(&key).await {
                    Ok(line) => Ok((key, line)),
                    Err(failure) => Err(failure.during("inspect", self, Some(&key))),
                })
                .buffered(AT_ONCE)
                .try_filter_map(async |(key, line)| {
                    let held = line.holders.iter().any(|holder| holder.claim.is_some());
                    Ok((held || !line.waiters.is_empty()).then_some(key))
                })
                .try_collect()
                .await
        }
        .boxed()
    }

    fn examine(&self, _ttl: Duration) -> BoxFuture<'_, Result<Examination>> {
        async move {
            let examined = examine::servers(&self.servers).await;
            examined.map_err(|failure| failure.during("examine the store", self, None))
        }
        .boxed()
    }
}

impl fmt::Display for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.servers.config().fmt(f)
    }
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Redis({self})")
    }
}
