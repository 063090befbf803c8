//! Records: a key each, beside every line, under leases of their own.

use std::time::Duration;

use futures::future::OptionFuture;
use leasehold_core::{Key, Provided, Reading, Record, Version, Written};

use super::hold::{Hold, ROUNDS};
use super::layout::{self, LeaseId};
use super::procedure::{GRANT, RANGE, TXN};
use super::proto::Operand::{Create, Mod};
use super::proto::{Compare, GrantRequest, KeyValue, Relation};
use super::shared::Shared;
use super::shelves::Wanted;
use super::txn;
use crate::clock;
use crate::error::{Effect, Error, ErrorKind, Result};

const READ: &str = "read the record of";
/// How often a lease is asked for that is there in time.
const GRANTS: u32 = 4;
const WRITE: &str = "write the record of";

impl Shared {
    pub(super) async fn read(&self, key: &Key) -> Result<Reading> {
        let found = self.record(READ, key).await.map_err(|error| error.about(key))?;
        let written = found.map(|kv| Written {
            version: Version::new(kv.mod_revision.unsigned_abs()),
            value: kv.value.into(),
        });
        // etcd has no clock that it shows.
        Ok(Reading { written, at: None })
    }

    pub(super) async fn write(
        &self,
        key: &Key,
        provided: Provided<'_>,
        record: &Record,
    ) -> Result<bool> {
        let written = match provided {
            Provided::Unchanged(version) => self.replace(key, version, record).await,
            Provided::Held(session, claim) => match LeaseId::of(session) {
                Some(lease) if claim.key == *key => {
                    self.write_under(key, lease, claim, record).await
                }
                _ => Ok(false),
            },
        };
        written.map_err(|error| error.about(key))
    }

    async fn replace(&self, key: &Key, version: Option<Version>, record: &Record) -> Result<bool> {
        let revision = match version.map(|version| i64::try_from(version.get())) {
            None => 0,
            Some(Ok(revision)) if revision > 0 => revision,
            // No writing has this name.
            Some(_) => return Ok(false),
        };
        let wanted = self.wanted(record);
        let unknown = revision > 0 && self.shelves.find(wanted).is_none();
        let reading = OptionFuture::from(unknown.then(|| self.record(WRITE, key)));
        let lease = reading.await.transpose()?.flatten().map(|kv| LeaseId(kv.lease));
        let same = txn::compare(&layout::record_key(key), Relation::Equal, Mod(revision));
        self.put(key, record, vec![same], lease).await
    }

    /// Writes whatever is there, and depends on what is there all the same: a copy of the request
    /// that comes late must not undo what was written after it.
    async fn write_under(
        &self,
        key: &Key,
        lease: LeaseId,
        claim: &leasehold_core::Claim,
        record: &Record,
    ) -> Result<bool> {
        for _ in 0..ROUNDS {
            let (hold, found) =
                futures::try_join!(self.hold(WRITE, lease, claim), self.record(WRITE, key))?;
            let Some(hold) = hold else { return Ok(false) };
            let (revision, lease) =
                found.map_or((0, None), |kv| (kv.mod_revision, Some(LeaseId(kv.lease))));
            if self.put(key, record, unchanged(key, &hold, revision), lease).await? {
                return Ok(true);
            }
        }
        let detail = "others change the record faster than it can be written; try again";
        Err(self.wire.error(ErrorKind::Unavailable, WRITE, detail))
    }

    async fn record(&self, attempt: &'static str, key: &Key) -> Result<Option<KeyValue>> {
        let request = txn::get(&layout::record_key(key));
        Ok(self.wire.call(attempt, &RANGE, request).await?.body.first())
    }

    /// Writes if `compare` is true. `now` is the lease of the record that is there.
    async fn put(
        &self,
        key: &Key,
        record: &Record,
        compare: Vec<Compare>,
        now: Option<LeaseId>,
    ) -> Result<bool> {
        let (own, wanted) = (layout::record_key(key), self.wanted(record));
        let (mut now, mut again) = (now, true);
        loop {
            let lease = self.shelf(wanted, now.take()).await?;
            let write = txn::put(&own, record.value().to_vec(), lease.0);
            let request = txn::txn(compare.clone(), vec![write], Vec::new());
            match self.wire.call(WRITE, &TXN, request).await {
                // The copy that came first may have changed what this one compared.
                Ok(reply) if reply.copies && !reply.body.succeeded => {
                    let detail = "a member did not answer, and may have written it; read it";
                    let error = self.wire.error(ErrorKind::Unavailable, WRITE, detail);
                    return Err(error.outcome_unknown());
                }
                Ok(reply) => return Ok(reply.body.succeeded),
                // Somebody revoked the lease.
                Err(error) if error.kind() == ErrorKind::SessionEnded => {
                    self.shelves.forget(lease);
                    if error.effect() == Effect::None && std::mem::take(&mut again) {
                        continue;
                    }
                    let detail = "somebody ends the leases of records; try again";
                    let gone = self.wire.error(ErrorKind::Unavailable, WRITE, detail);
                    return Err(match error.effect() {
                        Effect::None => gone,
                        Effect::Unknown => Error::outcome_unknown(gone),
                    });
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// A lease that outlasts a record which is written now: one of this handle, the one that the
    /// record has, so that a process for each writing leaves no lease for each; or a new one.
    async fn shelf(&self, wanted: Wanted, now: Option<LeaseId>) -> Result<LeaseId> {
        for attempt in 0..GRANTS {
            // Also after a grant: it may have taken so long that the lease is used up.
            if let Some(lease) = self.shelves.find(wanted) {
                return Ok(lease);
            }
            let from = clock::now();
            if attempt == 0
                && let Some(lease) = now
                && let Some(left) = self.time_left(lease).await?
                && wanted.is_met_by(left)
            {
                self.shelves.put(wanted, lease, from, left);
                continue;
            }
            let from = clock::now();
            let ttl = i64::try_from(wanted.span.as_secs()).unwrap_or(i64::MAX);
            let granted = self.wire.call(WRITE, &GRANT, GrantRequest { ttl }).await;
            // What may be there is a lease without a record.
            let granted = granted.map_err(|error| self.without_effect(error))?.body;
            self.shelves.put(wanted, LeaseId(granted.id), from, wanted.span);
        }
        let detail = "the cluster takes too long to grant a lease for it; try again";
        Err(self.wire.error(ErrorKind::Unavailable, WRITE, detail))
    }

    fn without_effect(&self, error: Error) -> Error {
        let detail = "no lease was granted for it";
        self.wire.error(error.kind(), WRITE, detail).because(error)
    }

    /// What a lease has to be like. No call takes longer than the slack: it goes to each member
    /// once, to one twice, and once more with a new token.
    fn wanted(&self, record: &Record) -> Wanted {
        let config = self.wire.config();
        let members = u32::try_from(config.members.len()).unwrap_or(u32::MAX);
        let slack: Duration = config.timeout.saturating_mul(members.saturating_add(2));
        Wanted::new(record.keep(), slack)
    }
}

/// Whether a claim still holds, and the record is still the one of this revision.
fn unchanged(key: &Key, hold: &Hold, revision: i64) -> Vec<Compare> {
    let own = &hold.contender;
    let there = txn::compare(&own.key, Relation::Equal, Create(own.created));
    let same = txn::compare(&layout::record_key(key), Relation::Equal, Mod(revision));
    vec![there, same]
}

#[cfg(test)]
mod tests {
    use leasehold_core::{Claim, ClaimId, Enter, Note, Place, SessionId, Terms};
    use leasehold_testbed::Etcd;

    use super::super::config::Config;
    use super::super::enter::Entering;
    use super::*;

    /// The hold ends, and the record is written anew, between the look at them and the writing.
    #[tokio::test]
    async fn what_changed_since_the_look_is_compared_again() {
        let etcd = Etcd::start();
        let shared = Shared::new(Config::parse(&etcd.url()).unwrap());
        let ttl = Duration::from_mins(10);
        let terms = Terms { ttl, owner: Note::default(), detached: false };
        let session: SessionId = shared.open(&terms).await.unwrap();
        let lease = LeaseId::of(&session).unwrap();
        let key: Key = "k".parse().unwrap();
        let claim = Claim::exclusive(ClaimId::from_random([1; 16]), key.clone(), Note::default());
        let entering = Entering {
            shared: &shared,
            session: &session,
            lease,
            claim: &claim,
            enter: Enter::Wait,
        };
        assert!(matches!(entering.run().await, Ok(Place::Held(_))));
        let record = |value: &[u8]| Record::new(value, ttl).unwrap();
        let look = async || {
            let hold = shared.hold(WRITE, lease, &claim).await.unwrap().expect("it holds");
            let revision =
                shared.record(WRITE, &key).await.unwrap().map_or(0, |kv| kv.mod_revision);
            unchanged(&key, &hold, revision)
        };
        let late = look().await;
        let under = Provided::Held(&session, &claim);
        assert!(shared.write(&key, under, &record(b"newer")).await.unwrap());
        // As a copy of a request that a member was slow to carry out.
        assert!(!shared.put(&key, &record(b"older"), late, None).await.unwrap());
        let late = look().await;
        shared.leave(&session, &claim).await.unwrap();
        assert!(!shared.put(&key, &record(b"late"), late, None).await.unwrap());
        let kept = shared.read(&key).await.unwrap().written.expect("kept");
        assert_eq!(kept.value.as_ref(), b"newer");
    }
}
