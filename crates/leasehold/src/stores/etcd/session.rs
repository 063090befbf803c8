//! Sessions: a lease of the server and a key that lives as long.

use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, StreamExt, TryStreamExt};
use leasehold_core::{Claim, ClaimId, Renewed, SessionId, Terms};

use super::layout::LeaseId;
use super::procedure::{GRANT, KEEP_ALIVE, PUT, REVOKE, STATUS, TXN};
use super::proto::{GrantRequest, LeaseRequest, PutRequest, RangeRequest, Request, StatusRequest};
use super::shared::Shared;
use super::txn;
use super::watch::{Purpose, Registration};
use crate::error::{ErrorKind, Result};

/// The oldest server that has what is needed: watches with ids of the client's choice.
const OLDEST: (u32, u32) = (3, 4);
/// How many claims one transaction of a roll call asks for; a server allows 128 by default.
const ROLL: usize = 100;
/// How many of those are under way at once.
const AT_ONCE: usize = 8;
/// Up to this many claims, each renewal calls the roll; a longer one, each third renewal: unless
/// somebody touched the session, or that could have gone unheard.
const SHORT_ROLL: usize = 1000;
const EACH: u32 = 3;

const OPEN: &str = "open a session";
const RENEW: &str = "renew the session";

impl Shared {
    pub(super) async fn open(self: &Arc<Self>, terms: &Terms) -> Result<SessionId> {
        self.checked.get_or_try_init(|| self.check_version()).await?;
        let seconds = seconds(terms.ttl);
        let granted = self.wire.call(OPEN, &GRANT, GrantRequest { ttl: seconds }).await?.body;
        let lease = LeaseId(granted.id);
        if granted.ttl < seconds || granted.id <= 0 {
            self.end(lease).await?;
            let detail =
                format!("the server granted a lease of {} s instead of {seconds} s", granted.ttl);
            return Err(self.wire.error(ErrorKind::Unsupported, OPEN, detail));
        }
        let put = PutRequest {
            key: lease.session_key(),
            value: self.signature().await,
            lease: lease.0,
            ignore_lease: false,
        };
        let revision = self.wire.call(OPEN, &PUT, put).await?.body.header;
        let epoch = revision.map_or(0, |header| header.revision);
        let session = lease.session();
        self.mailbox.expect_session(&session);
        self.sessions.add(lease, terms.owner.clone(), epoch);
        let registration = Registration {
            key: lease.session_key(),
            end: Vec::new(),
            from: epoch + 1,
            purpose: Purpose::Session(lease),
        };
        self.sessions.set_watch(lease, self.watches.watch(registration, &self.wire, self));
        Ok(session)
    }

    async fn check_version(&self) -> Result<()> {
        let status = self.wire.call(OPEN, &STATUS, StatusRequest {}).await?.body;
        if is_old(&status.version) {
            let detail = format!(
                "the server is etcd {}, and {}.{} is the oldest that has what is needed",
                status.version, OLDEST.0, OLDEST.1
            );
            return Err(self.wire.error(ErrorKind::Unsupported, OPEN, detail));
        }
        Ok(())
    }

    pub(super) async fn renew(&self, session: &SessionId, roll: &[Claim]) -> Result<Renewed> {
        let Some(lease) = LeaseId::of(session) else { return Ok(Renewed::Ended) };
        let (suspicions, number) = self.sessions.renewal(lease);
        let due = roll.len() <= SHORT_ROLL
            || number.is_multiple_of(EACH)
            || self.sessions.is_suspect(lease)
            || !self.watches.is_live();
        let calling =
            async { if due { self.call_roll(lease, roll).await } else { Ok(Vec::new()) } };
        // At once: whatever either says is true of a moment after this call began.
        let (ttl, lost) = futures::try_join!(self.keep_alive(lease), calling)?;
        if ttl <= 0 {
            self.forget_session(lease, session);
            return Ok(Renewed::Ended);
        }
        if due {
            self.sessions.allay(lease, suspicions);
        }
        for claim in lost.iter().filter(|claim| !self.claims.ending(**claim).doubtful) {
            self.forget(*claim);
        }
        Ok(Renewed::Extended { lost })
    }

    /// Renews a lease; the seconds it then has, none if it is gone.
    ///
    /// The leader answers by itself, without asking the others: one that was deposed and has not
    /// noticed may acknowledge what its successor lets lapse (etcd#15247).
    async fn keep_alive(&self, lease: LeaseId) -> Result<i64> {
        let request = LeaseRequest { id: lease.0 };
        Ok(self.wire.call(RENEW, &KEEP_ALIVE, request).await?.body.ttl)
    }

    /// The claims of `roll` that are gone.
    async fn call_roll(&self, lease: LeaseId, roll: &[Claim]) -> Result<Vec<ClaimId>> {
        let parts: Vec<_> = roll.chunks(ROLL).map(|part| self.call_part(lease, part)).collect();
        let lost: Vec<Vec<ClaimId>> =
            stream::iter(parts).buffer_unordered(AT_ONCE).try_collect().await?;
        Ok(lost.concat())
    }

    async fn call_part(&self, lease: LeaseId, part: &[Claim]) -> Result<Vec<ClaimId>> {
        let asked = part.iter().map(|claim| {
            let key = lease.claim_key(&claim.key, &claim.id);
            Request::Range(RangeRequest { key, count_only: true, ..RangeRequest::default() })
        });
        let request = txn::txn(Vec::new(), asked.collect(), Vec::new());
        let found = self.wire.call(RENEW, &TXN, request).await?.body.ranges();
        let lost = part.iter().zip(found).filter(|(_, found)| found.count == 0);
        Ok(lost.map(|(claim, _)| claim.id).collect())
    }

    pub(super) async fn close(&self, session: &SessionId) -> Result<()> {
        let Some(lease) = LeaseId::of(session) else { return Ok(()) };
        self.end(lease).await?;
        self.forget_session(lease, session);
        Ok(())
    }

    async fn end(&self, lease: LeaseId) -> Result<()> {
        let request = LeaseRequest { id: lease.0 };
        match self.wire.call("close the session", &REVOKE, request).await {
            Err(error) if error.kind() != ErrorKind::SessionEnded => Err(error),
            _ => Ok(()),
        }
    }
}

/// Whole seconds, rounded up.
fn seconds(ttl: Duration) -> i64 {
    let seconds = ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0);
    i64::try_from(seconds).unwrap_or(i64::MAX)
}

fn is_old(version: &str) -> bool {
    let mut numbers = version.split('.').map(|part| part.parse::<u32>().ok());
    match (numbers.next().flatten(), numbers.next().flatten()) {
        (Some(major), Some(minor)) => (major, minor) < OLDEST,
        // Not a version that we know how to read is not one that we know to be too old.
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ttl_is_rounded_up() {
        assert_eq!(seconds(Duration::from_secs(2)), 2);
        assert_eq!(seconds(Duration::from_millis(2001)), 3);
    }

    #[test]
    fn old_servers_are_told_by_their_version() {
        for old in ["2.3.8", "3.3.27", "3.0"] {
            assert!(is_old(old), "{old}");
        }
        for new in ["3.4.0", "3.4.23", "3.5.0-rc.1", "3.10.1", "4.0.0", "not decided"] {
            assert!(!is_old(new), "{new}");
        }
    }
}
