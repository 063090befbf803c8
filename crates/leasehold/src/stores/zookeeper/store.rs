//! The contract, and nothing else.

use std::time::Duration;

use futures::future::{BoxFuture, FutureExt, ready};
use leasehold_core::{
    Claim, ClaimId, Enter, Key, Left, Line, Place, Provided, Reading, Record, Renewed, SessionId,
    Terms, Together,
};

use super::session::Entered;
use super::wire::{Failure, Link};
use super::{PROPERTIES, USUAL_TICK, ZooKeeper, examine, survey};
use crate::error::{Error, ErrorKind, Result};
use crate::examination::Examination;
use crate::store::{Guarantees, LeaseScope, Store};

impl Store for ZooKeeper {
    fn guarantees(&self) -> Guarantees {
        let tick = self.config().tick.or_else(|| self.shared.tick.get().copied());
        Guarantees {
            properties: PROPERTIES,
            // Sessions end at full ticks.
            lapse_delay: tick.unwrap_or(USUAL_TICK),
            min_ttl: Self::MIN_TTL,
            lease: LeaseScope::Session,
            renew_batch: usize::MAX,
            recheck: Duration::from_secs(30),
        }
    }

    fn open<'a>(&'a self, terms: &'a Terms) -> BoxFuture<'a, Result<SessionId>> {
        async move { self.begin(terms).await.map_err(|error| error.at(self)) }.boxed()
    }

    fn renew<'a>(
        &'a self,
        session: &'a SessionId,
        roll: &'a [Claim],
    ) -> BoxFuture<'a, Result<Renewed>> {
        async move {
            let renewed = match self.session(session).await {
                Ok(session) => session.renew(roll).await,
                Err(failure) => Err(failure),
            };
            match renewed {
                Err(Failure::Ended) => Ok(Renewed::Ended),
                renewed => {
                    renewed.map_err(|failure| failure.while_trying("renew the session").at(self))
                }
            }
        }
        .boxed()
    }

    fn close<'a>(&'a self, session: &'a SessionId) -> BoxFuture<'a, Result<()>> {
        async move {
            let closed = match self.session(session).await {
                Ok(session) => session.close().await,
                Err(failure) => Err(failure),
            };
            match closed {
                Ok(()) | Err(Failure::Ended) => {
                    self.forget(session);
                    Ok(())
                }
                Err(failure) => Err(failure.while_trying("close the session").at(self)),
            }
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
            // What a watch tells must not be lost between the answer and the wait.
            self.mailbox().expect(claim.id);
            let entered = match self.session(session).await {
                Ok(session) => session.enter(claim, enter).await,
                Err(failure) => Err(failure),
            };
            let place = match entered {
                Ok(Entered::At(place)) => Ok(place),
                Ok(Entered::Disagrees { limit }) => Err(Error::disagrees(claim, limit).at(self)),
                Err(failure) => {
                    Err(failure.while_trying("enter the line of").about(&claim.key).at(self))
                }
            };
            let over = |error: &Error| {
                matches!(error.kind(), ErrorKind::Disagrees | ErrorKind::SessionEnded)
            };
            match &place {
                Ok(Place::Waiting(_)) => {}
                Err(error) if !over(error) => {}
                _ => self.mailbox().forget(claim.id),
            }
            place
        }
        .boxed()
    }

    /// A `multi` creates many nodes in one step, but nothing in it can ask whether others stand ahead:
    /// a claim looks at its place only after it has one, and by then is in the way of others.
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
        async move { Ok(self.mailbox().told(claim.id).await) }.boxed()
    }

    fn disturbed<'a>(&'a self, session: &'a SessionId) -> BoxFuture<'a, ()> {
        self.mailbox().disturbed(session).boxed()
    }

    fn leave<'a>(
        &'a self,
        session: &'a SessionId,
        claim: &'a Claim,
    ) -> BoxFuture<'a, Result<Left>> {
        async move {
            let left = match self.session(session).await {
                Ok(session) => session.leave(claim).await,
                Err(failure) => Err(failure),
            };
            let left = match left {
                Err(Failure::Ended) => Left::Gone,
                left => left.map_err(|failure| {
                    failure.while_trying("leave the line of").about(&claim.key).at(self)
                })?,
            };
            self.mailbox().forget(claim.id);
            Ok(left)
        }
        .boxed()
    }

    fn amend<'a>(
        &'a self,
        session: &'a SessionId,
        claim: &'a Claim,
    ) -> BoxFuture<'a, Result<bool>> {
        async move {
            let amended = match self.session(session).await {
                Ok(session) => session.amend(claim).await,
                Err(failure) => Err(failure),
            };
            match amended {
                Err(Failure::Ended) => Ok(false),
                amended => amended.map_err(|failure| {
                    failure.while_trying("amend the hold of").about(&claim.key).at(self)
                }),
            }
        }
        .boxed()
    }

    fn read<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Reading>> {
        async move {
            self.visit(async |link| self.records(link).read(key).await)
                .await
                .map_err(|failure| failure.while_trying("read the record of").about(key).at(self))
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
            let written = match provided {
                Provided::Unchanged(None) => {
                    self.visit(async |link| self.records(link).make(key, record).await).await
                }
                Provided::Unchanged(Some(version)) => {
                    let replacing =
                        async |link: &Link| self.records(link).replace(key, version, record).await;
                    self.visit(replacing).await
                }
                Provided::Held(session, claim) if claim.key == *key => {
                    match self.session(session).await {
                        Ok(session) => {
                            let records = self.records(&session.link);
                            session.write_under(&records, claim, record).await
                        }
                        Err(failure) => Err(failure),
                    }
                }
                Provided::Held(..) => Ok(false),
            };
            match (written, provided) {
                (Err(Failure::Ended), Provided::Held(..)) => Ok(false),
                (written, _) => written.map_err(|failure| {
                    failure.while_trying("write the record of").about(key).at(self)
                }),
            }
        }
        .boxed()
    }

    fn revoke<'a>(&'a self, key: &'a Key, claim: &'a ClaimId) -> BoxFuture<'a, Result<bool>> {
        async move {
            let attempt = "revoke a claim on";
            self.visit(async |link| survey::revoke(link, self.config(), key, *claim).await)
                .await
                .map_err(|failure| failure.while_trying(attempt).about(key).at(self))
        }
        .boxed()
    }

    fn inspect<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Line>> {
        async move {
            self.visit(async |link| survey::inspect(link, self.config(), key).await)
                .await
                .map_err(|failure| failure.while_trying("look at").about(key).at(self))
        }
        .boxed()
    }

    fn keys<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Vec<Key>>> {
        async move {
            self.visit(async |link| survey::keys(link, self.config(), prefix).await)
                .await
                .map_err(|failure| failure.while_trying("list the keys").at(self))
        }
        .boxed()
    }

    fn examine(&self, ttl: Duration) -> BoxFuture<'_, Result<Examination>> {
        async move {
            let examined = examine::examine(self, ttl).await;
            examined.map_err(|failure| failure.while_trying("examine the store").at(self))
        }
        .boxed()
    }
}
