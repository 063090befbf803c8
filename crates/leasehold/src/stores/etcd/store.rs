//! The contract, over etcd.

use std::fmt;
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt};
use leasehold_core::{
    Claim, ClaimId, Enter, Key, Left, Line, Place, Provided, Reading, Record, Renewed, SessionId,
    Terms, Together,
};

use super::enter::Entering;
use super::layout::LeaseId;
use super::{Etcd, PROPERTIES, examine};
use crate::error::{ErrorKind, Result};
use crate::examination::Examination;
use crate::store::{Guarantees, LeaseScope, Store};

impl Store for Etcd {
    fn guarantees(&self) -> Guarantees {
        Guarantees {
            properties: PROPERTIES,
            // A server with default settings grants no shorter lease.
            min_ttl: Duration::from_secs(2),
            // It looks for lapsed leases twice a second.
            lapse_delay: Duration::from_secs(1),
            lease: LeaseScope::Session,
            renew_batch: usize::MAX,
            recheck: Duration::from_secs(10),
        }
    }

    fn open<'a>(&'a self, terms: &'a Terms) -> BoxFuture<'a, Result<SessionId>> {
        async move {
            let least = self.guarantees().min_ttl;
            if terms.ttl < least {
                let detail = format!("a TTL of {:?} is below the minimum of {least:?}", terms.ttl);
                return Err(self.0.wire.error(ErrorKind::Invalid, "open a session", detail));
            }
            self.0.open(terms).await
        }
        .boxed()
    }

    fn renew<'a>(
        &'a self,
        session: &'a SessionId,
        roll: &'a [Claim],
    ) -> BoxFuture<'a, Result<Renewed>> {
        self.0.renew(session, roll).boxed()
    }

    fn close<'a>(&'a self, session: &'a SessionId) -> BoxFuture<'a, Result<()>> {
        self.0.close(session).boxed()
    }

    fn enter<'a>(
        &'a self,
        session: &'a SessionId,
        claim: &'a Claim,
        enter: Enter,
    ) -> BoxFuture<'a, Result<Place>> {
        async move {
            let Some(lease) = LeaseId::of(session) else {
                let detail = "the session is not one of this store; open a new one";
                let error = self.0.wire.error(ErrorKind::SessionEnded, "enter the line of", detail);
                return Err(error.about(&claim.key));
            };
            self.0.mailbox.expect(claim.id);
            Entering { shared: &self.0, session, lease, claim, enter }.run().await
        }
        .boxed()
    }

    fn enter_all<'a>(
        &'a self,
        session: &'a SessionId,
        claims: &'a [Claim],
    ) -> BoxFuture<'a, Result<Together>> {
        self.0.enter_all(session, claims).boxed()
    }

    fn changed<'a>(
        &'a self,
        _session: &'a SessionId,
        claim: &'a Claim,
    ) -> BoxFuture<'a, Result<Option<Place>>> {
        async move { Ok(self.0.mailbox.told(claim.id).await) }.boxed()
    }

    fn disturbed<'a>(&'a self, session: &'a SessionId) -> BoxFuture<'a, ()> {
        self.0.mailbox.disturbed(session).boxed()
    }

    fn leave<'a>(
        &'a self,
        session: &'a SessionId,
        claim: &'a Claim,
    ) -> BoxFuture<'a, Result<Left>> {
        self.0.leave(session, claim).boxed()
    }

    fn amend<'a>(
        &'a self,
        session: &'a SessionId,
        claim: &'a Claim,
    ) -> BoxFuture<'a, Result<bool>> {
        self.0.amend(session, claim).boxed()
    }

    fn read<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Reading>> {
        self.0.read(key).boxed()
    }

    fn write<'a>(
        &'a self,
        key: &'a Key,
        provided: Provided<'a>,
        record: &'a Record,
    ) -> BoxFuture<'a, Result<bool>> {
        self.0.write(key, provided, record).boxed()
    }

    fn revoke<'a>(&'a self, key: &'a Key, claim: &'a ClaimId) -> BoxFuture<'a, Result<bool>> {
        self.0.revoke(key, *claim).boxed()
    }

    fn inspect<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Line>> {
        self.0.inspect(key).boxed()
    }

    fn keys<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Vec<Key>>> {
        self.0.keys(prefix).boxed()
    }

    fn examine(&self, ttl: Duration) -> BoxFuture<'_, Result<Examination>> {
        examine::examine(&self.0.wire, ttl).boxed()
    }
}

impl fmt::Display for Etcd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.wire.config().fmt(f)
    }
}

impl fmt::Debug for Etcd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Etcd({self})")
    }
}
