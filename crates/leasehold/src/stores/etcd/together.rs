//! Joining several lines in one step, or none.

use std::sync::Arc;

use leasehold_core::line::Share;
use leasehold_core::{Claim, Enter, Fence, Place, SessionId, Together};

use super::enter::{Entering, ROUNDS, SEVERAL, unless_refused};
use super::judge::{self, Standing};
use super::layout::{self, LeaseId};
use super::proto::Operand::{Create, Mod};
use super::proto::{Compare, RangeResponse, Relation, Request, TxnRequest};
use super::shared::Shared;
use super::txn::{self, none_since};
use crate::error::{Error, ErrorKind, Result};

/// How many keys one transaction has to do with: it compares and does one thing for each, and one for
/// the session; a server allows 128 by default.
const TOGETHER: usize = 100;

/// Claims on their way in, each as if it was tried by itself.
struct EnteringAll<'a> {
    shared: &'a Arc<Shared>,
    session: &'a SessionId,
    lease: LeaseId,
    claims: &'a [Claim],
    each: Vec<Entering<'a>>,
}

/// Where one of the claims stands that is not refused.
enum Seen {
    /// It holds already, by a key that was created at this revision.
    Holds { created: i64, fence: Fence },
    /// It would fit.
    Fits,
}

/// What a look at the lines found.
enum Looked {
    All(Vec<Seen>),
    Refused(Together),
    /// One was ended meanwhile: look again.
    Again,
}

impl Shared {
    pub(super) async fn enter_all(
        self: &Arc<Self>,
        session: &SessionId,
        claims: &[Claim],
    ) -> Result<Together> {
        if claims.len() > TOGETHER {
            return Ok(Together::Apart);
        }
        let Some(lease) = LeaseId::of(session) else {
            let detail = "the session is not one of this store; open a new one";
            return Err(self.wire.error(ErrorKind::SessionEnded, SEVERAL, detail));
        };
        EnteringAll::new(self, session, lease, claims).run().await
    }
}

impl<'a> EnteringAll<'a> {
    fn new(
        shared: &'a Arc<Shared>,
        session: &'a SessionId,
        lease: LeaseId,
        claims: &'a [Claim],
    ) -> Self {
        let entering = |claim| Entering { shared, session, lease, claim, enter: Enter::Try };
        Self { shared, session, lease, claims, each: claims.iter().map(entering).collect() }
    }

    async fn run(self) -> Result<Together> {
        let together = self.rounds().await;
        let refused = match &together {
            Ok(together) => matches!(together, Together::Refused { .. }),
            Err(error) => error.kind() == ErrorKind::Disagrees,
        };
        // As for one that is refused: nobody leaves for these, and a copy may be on its way.
        for claim in self.claims.iter().filter(|_| refused) {
            if self.shared.claims.ending(claim.id).doubtful {
                let left = self.shared.leave(self.session, claim).await;
                left.map_err(Error::outcome_unknown)?;
            }
        }
        together
    }

    async fn rounds(&self) -> Result<Together> {
        let Some(first) = self.each.first() else { return Ok(Together::Held(Vec::new())) };
        let mut epoch = first.epoch().await?;
        for _ in 0..ROUNDS {
            let request = self.if_alone(epoch);
            let reply = self.shared.send_entering(self.lease, self.claims, request).await?;
            let revision = reply.revision();
            if reply.succeeded {
                return Ok(Together::Held(vec![layout::fence_at(revision); self.claims.len()]));
            }
            let mut found = reply.ranges();
            let session = found.next().ok_or_else(|| first.unreadable())?.first();
            let now = session.ok_or_else(|| first.ended())?.mod_revision;
            if now != epoch {
                self.shared.sessions.advance(self.lease, now);
                epoch = now;
                continue;
            }
            // They may hold already, whatever fails from here on.
            match self.look(found, revision).await.map_err(unless_refused)? {
                Looked::Refused(together) => return Ok(together),
                Looked::Again => {}
                Looked::All(seen) => {
                    let fences = self.enter_beside(&seen, revision, epoch).await;
                    if let Some(fences) = fences.map_err(unless_refused)? {
                        return Ok(Together::Held(fences));
                    }
                }
            }
        }
        Err(first.overtaken())
    }

    /// A transaction that does nothing once the session's key was changed, or one of the keys is as
    /// `provided` no more.
    fn provided(
        &self,
        epoch: i64,
        provided: impl Iterator<Item = Compare>,
        then: Vec<Request>,
        otherwise: Vec<Request>,
    ) -> TxnRequest {
        let session = self.lease.session_key();
        let mut compare = vec![txn::compare(&session, Relation::Equal, Mod(epoch))];
        compare.extend(provided);
        txn::txn(compare, then, otherwise)
    }

    /// Enters all if nobody is there, else looks at all lines.
    fn if_alone(&self, epoch: i64) -> TxnRequest {
        let below: Vec<_> = self.claims.iter().map(|claim| layout::below(&claim.key)).collect();
        let puts = self.each.iter().map(Entering::put_granted).collect();
        let mut look = vec![Request::Range(txn::get(&self.lease.session_key()))];
        look.extend(below.iter().map(|below| Request::Range(txn::page(below, 0, 0))));
        self.provided(epoch, below.iter().map(|below| none_since(below, 1)), puts, look)
    }

    /// Judges each claim's place as of `revision`.
    async fn look(
        &self,
        mut pages: impl Iterator<Item = RangeResponse>,
        revision: i64,
    ) -> Result<Looked> {
        let mut seen = Vec::with_capacity(self.each.len());
        for (at, entering) in self.each.iter().enumerate() {
            let key = &entering.claim.key;
            let page = pages.next().ok_or_else(|| entering.unreadable())?;
            let kvs = entering.complete(page, revision).await.map_err(|error| error.about(key))?;
            let (ahead, own) = judge::place(key, kvs, &entering.own());
            entering.agree(&ahead, own.as_ref()).await.map_err(|error| error.about(key))?;
            let head = ahead.first().map(|head| head.lease);
            let created = own.as_ref().map_or(0, |own| own.created);
            let place = match (own, judge::judge(&ahead, Share::from(entering.claim))) {
                (Some(own), standing) => entering.stand_at(own, standing, revision).await?,
                (None, Standing::Behind(ahead, _)) => Some(Place::Refused(ahead)),
                (None, Standing::Fits) => {
                    seen.push(Seen::Fits);
                    continue;
                }
            };
            match place {
                Some(Place::Held(fence)) => seen.push(Seen::Holds { created, fence }),
                Some(Place::Refused(ahead) | Place::Waiting(ahead)) => {
                    let ahead = entering.with_time_left(ahead, head).await;
                    return Ok(Looked::Refused(Together::Refused { at, ahead }));
                }
                None => return Ok(Looked::Again),
            }
        }
        Ok(Looked::All(seen))
    }

    /// Enters beside those who were `seen` at `revision`, if nobody came since.
    async fn enter_beside(
        &self,
        seen: &[Seen],
        revision: i64,
        epoch: i64,
    ) -> Result<Option<Vec<Fence>>> {
        let both = || self.each.iter().zip(seen);
        let puts: Vec<_> = both()
            .filter(|(_, seen)| matches!(seen, Seen::Fits))
            .map(|(entering, _)| entering.put_granted())
            .collect();
        let mut entered = revision;
        if !puts.is_empty() {
            let unchanged = both().map(|(entering, seen)| match seen {
                Seen::Fits => none_since(&layout::below(&entering.claim.key), revision + 1),
                Seen::Holds { created, .. } => {
                    txn::compare(&entering.own(), Relation::Equal, Create(*created))
                }
            });
            let request = self.provided(epoch, unchanged, puts, Vec::new());
            let reply = self.shared.send_entering(self.lease, self.claims, request).await?;
            if !reply.succeeded {
                return Ok(None);
            }
            entered = reply.revision();
        }
        let fence = |seen: &Seen| match seen {
            Seen::Holds { fence, .. } => *fence,
            Seen::Fits => layout::fence_at(entered),
        };
        Ok(Some(seen.iter().map(fence).collect()))
    }
}

#[cfg(test)]
mod tests {
    use leasehold_core::{ClaimId, Key, Note};
    use leasehold_testbed::Etcd;

    use super::super::enter::tests::Opened;
    use super::super::procedure::TXN;
    use super::*;

    fn claims<const N: usize>(first: u8, keys: [&str; N]) -> [Claim; N] {
        let mut id = first;
        keys.map(|key| {
            id += 1;
            let key = Key::new(key).unwrap();
            Claim::exclusive(ClaimId::from_random([id; 16]), key, Note::default())
        })
    }

    fn all<'a>(opened: &'a Opened, claims: &'a [Claim]) -> EnteringAll<'a> {
        EnteringAll::new(&opened.shared, &opened.session, opened.lease, claims)
    }

    async fn assert_free(opened: &Opened, claims: &[Claim]) {
        for claim in claims {
            assert_eq!(opened.shared.line(SEVERAL, &claim.key).await.unwrap(), vec![]);
        }
    }

    /// A try goes to a second member because the first does not answer, and is refused there. When
    /// the first wakes up all is free, and nobody is left to release it.
    #[tokio::test]
    async fn a_copy_of_refused_claims_is_not_granted_later() {
        let etcd = Etcd::start();
        let opened = Opened::new(&etcd).await;
        let ([hold], refused) = (claims(0, ["b"]), claims(1, ["a", "b"]));
        assert!(matches!(opened.entering(&hold).run().await, Ok(Place::Held(_))));
        let entering = all(&opened, &refused);
        let copy = entering.if_alone(opened.shared.sessions.epoch(opened.lease).unwrap());
        for claim in &refused {
            opened.shared.claims.sending(claim.id, opened.lease);
        }
        assert!(matches!(entering.run().await, Ok(Together::Refused { at: 1, .. })));
        opened.shared.leave(&opened.session, &hold).await.unwrap();

        opened.shared.wire.call(SEVERAL, &TXN, copy).await.unwrap();
        assert_free(&opened, &refused).await;
        for claim in &refused {
            assert!(!opened.shared.claims.ending(claim.id).doubtful);
        }
    }

    #[tokio::test]
    async fn claims_that_arrive_after_they_were_left_leave_no_ghosts() {
        let etcd = Etcd::start();
        let opened = Opened::new(&etcd).await;
        let abandoned = claims(0, ["a", "b"]);
        let entering = all(&opened, &abandoned);
        let late = entering.if_alone(opened.shared.sessions.epoch(opened.lease).unwrap());
        for claim in &abandoned {
            opened.shared.claims.sending(claim.id, opened.lease);
        }
        for claim in &abandoned {
            opened.shared.leave(&opened.session, claim).await.unwrap();
        }
        let reply = opened.shared.wire.call(SEVERAL, &TXN, late).await.unwrap().body;
        assert!(!reply.succeeded, "the session's key has changed since");
        assert_free(&opened, &abandoned).await;
    }

    /// Between the look at the lines and the step that enters them somebody comes, or what held is
    /// ended: it is looked at again.
    #[tokio::test]
    async fn what_fitted_at_the_look_enters_only_if_all_is_as_it_was() {
        let etcd = Etcd::start();
        let opened = Opened::new(&etcd).await;
        let shared = &opened.shared;
        let epoch = shared.sessions.epoch(opened.lease).unwrap();
        let wanted = claims(0, ["a", "b"]);
        let (entering, [other]) = (all(&opened, &wanted), claims(2, ["b"]));
        let Ok(Place::Held(since)) = opened.entering(&wanted[0]).run().await else {
            panic!("free")
        };
        let seen = || {
            let created = i64::try_from(since.get()).unwrap();
            [Seen::Holds { created, fence: since }, Seen::Fits]
        };
        let revision = i64::try_from(since.get()).unwrap();
        // Somebody came to the key that was free.
        assert!(matches!(opened.entering(&other).run().await, Ok(Place::Held(_))));
        let entered = entering.enter_beside(&seen(), revision, epoch).await.unwrap();
        assert_eq!(entered, None);
        shared.leave(&opened.session, &other).await.unwrap();
        assert_free(&opened, &wanted[1..]).await;
        // It is free again: whoever went does no harm.
        let entered = entering.enter_beside(&seen(), revision, epoch).await.unwrap();
        assert!(entered.is_some_and(|fences| fences[0] == since && fences[1] > since));
        shared.leave(&opened.session, &wanted[1]).await.unwrap();
        // What held does not any more.
        shared.leave(&opened.session, &wanted[0]).await.unwrap();
        let entered = entering.enter_beside(&seen(), revision, epoch).await.unwrap();
        assert_eq!(entered, None);
        assert_free(&opened, &wanted).await;
    }

    #[tokio::test]
    async fn plain_holds_leave_nothing_in_memory() {
        let etcd = Etcd::start();
        let opened = Opened::new(&etcd).await;
        let plain = claims(0, ["a", "b"]);
        assert!(matches!(all(&opened, &plain).run().await, Ok(Together::Held(_))));
        for claim in &plain {
            let nothing = super::super::claims::Ending::default();
            assert_eq!(opened.shared.claims.ending(claim.id), nothing);
        }
    }
}
