//! Joining a line, and the way from there to a grant.

use std::sync::Arc;
use std::time::Duration;

use leasehold_core::line::Share;
use leasehold_core::{Ahead, Claim, Enter, Fence, Place, SessionId};

use super::judge::{self, Standing, Watch};
use super::layout::{self, Contender, Granted, Label, LeaseId};
use super::procedure::{RANGE, TXN};
use super::proto::Operand::{Create, Mod};
use super::proto::{RangeResponse, Relation, Request, TxnRequest, TxnResponse};
use super::shared::Shared;
use super::txn::{self, absent, none_since};
use super::watch::{Purpose, Registration};
use crate::error::{Effect, Error, ErrorKind, Result};

/// How often a request is made again because others changed the line or the session meanwhile.
pub(super) const ROUNDS: u32 = 32;
/// How long a question may take whose answer is only for people to read.
const HINT: Duration = Duration::from_secs(1);
pub(super) const ATTEMPT: &str = "enter the line of";
pub(super) const SEVERAL: &str = "enter several lines";

/// One claim on its way in.
pub(super) struct Entering<'a> {
    pub(super) shared: &'a Arc<Shared>,
    pub(super) session: &'a SessionId,
    pub(super) lease: LeaseId,
    pub(super) claim: &'a Claim,
    pub(super) enter: Enter,
}

/// What a transaction found.
enum Found {
    /// The session's key changed at this revision, or is gone.
    OtherEpoch(Option<i64>),
    /// Nobody was there: the claim holds since this revision.
    Alone(i64),
    /// The first page of the line, at this revision.
    Line(RangeResponse, i64),
}

impl Entering<'_> {
    pub(super) async fn run(self) -> Result<Place> {
        let place = self.without_residue(self.rounds().await).await;
        if !matches!(place, Ok(Place::Waiting(_))) {
            self.shared.mailbox.forget(self.claim.id);
        }
        place.map_err(|error| error.about(&self.claim.key))
    }

    /// Nobody leaves for a claim that was refused. If a copy of it may still be on its way, it would
    /// be granted to nobody when it arrives, so it is made harmless here.
    async fn without_residue(&self, place: Result<Place>) -> Result<Place> {
        let refused = match &place {
            Ok(place) => matches!(place, Place::Refused(_)),
            Err(error) => error.kind() == ErrorKind::Disagrees,
        };
        if refused && self.shared.claims.ending(self.claim.id).doubtful {
            let left = self.shared.leave(self.session, self.claim).await;
            left.map_err(Error::outcome_unknown)?;
        }
        place
    }

    async fn rounds(&self) -> Result<Place> {
        let mut epoch = self.epoch().await?;
        for _ in 0..ROUNDS {
            match self.ask(epoch).await? {
                Found::OtherEpoch(Some(now)) => {
                    self.shared.sessions.advance(self.lease, now);
                    epoch = now;
                }
                Found::OtherEpoch(None) => return Err(self.ended()),
                Found::Alone(revision) => return Ok(Place::Held(layout::fence_at(revision))),
                Found::Line(page, revision) => {
                    // It may stand in line already, whatever fails from here on.
                    let place = self.stand(page, revision, epoch).await;
                    if let Some(place) = place.map_err(unless_refused)? {
                        return Ok(place);
                    }
                }
            }
        }
        Err(self.overtaken())
    }

    /// One transaction: enters if nobody is there, else stands in line or only looks.
    async fn ask(&self, epoch: i64) -> Result<Found> {
        let reply = self.send(self.request(epoch)).await?;
        let revision = reply.revision();
        if !reply.succeeded {
            return Ok(Found::OtherEpoch(first_changed(reply)));
        }
        let Some(outer) = reply.inner() else { return Err(self.unreadable()) };
        if outer.succeeded {
            return Ok(Found::Alone(revision));
        }
        let page = match self.enter {
            Enter::Try => outer.ranges().next(),
            Enter::Wait => outer.inner().and_then(|inner| inner.ranges().next()),
        };
        page.map(|page| Found::Line(page, revision)).ok_or_else(|| self.unreadable())
    }

    fn request(&self, epoch: i64) -> TxnRequest {
        let own = self.own();
        let below = layout::below(&self.claim.key);
        // The keys that came later say nothing about the place of a claim that stands already.
        let until = self.shared.claims.created(self.claim.id).unwrap_or_default();
        let look = |until| Request::Range(txn::page(&below, 0, until));
        let otherwise = match self.enter {
            Enter::Try => look(until),
            Enter::Wait => Request::Txn(txn::txn(
                vec![absent(&own)],
                vec![self.put(None), look(0)],
                vec![look(until)],
            )),
        };
        let alone =
            txn::txn(vec![none_since(&below, 1)], vec![self.put_granted()], vec![otherwise]);
        self.in_epoch(epoch, vec![Request::Txn(alone)], Vec::new())
    }

    /// A transaction that does nothing once the session's key was changed: changing it makes every
    /// request that is still on its way harmless.
    fn in_epoch(
        &self,
        epoch: i64,
        then: Vec<Request>,
        more: Vec<super::proto::Compare>,
    ) -> TxnRequest {
        let session = self.lease.session_key();
        let mut compare = vec![txn::compare(&session, Relation::Equal, Mod(epoch))];
        compare.extend(more);
        // Deletes a key that nobody writes: the server checks the user's permissions of no
        // transaction within another, and must not let in whom it would not let out.
        let probe = Request::Delete(txn::delete(&self.lease.unused_key(&self.claim.key)));
        txn::txn(compare, then, vec![Request::Range(txn::get(&session)), probe])
    }

    /// Writes the claim down as one that holds.
    pub(super) fn put_granted(&self) -> Request {
        self.put(Some(Granted::Here))
    }

    fn put(&self, granted: Option<Granted>) -> Request {
        txn::put(&self.own(), self.label(granted), self.lease.0)
    }

    fn label(&self, granted: Option<Granted>) -> Vec<u8> {
        let owner = self.shared.sessions.owner(self.lease);
        Label::new(owner.as_str(), self.claim, granted).to_bytes()
    }

    pub(super) fn own(&self) -> Vec<u8> {
        self.lease.claim_key(&self.claim.key, &self.claim.id)
    }

    async fn send(&self, request: TxnRequest) -> Result<TxnResponse> {
        self.shared.send_entering(self.lease, std::slice::from_ref(self.claim), request).await
    }

    /// Judges the claim's place in the line. `None`: ask again.
    async fn stand(&self, page: RangeResponse, revision: i64, epoch: i64) -> Result<Option<Place>> {
        let kvs = self.complete(page, revision).await?;
        let (ahead, own) = judge::place(&self.claim.key, kvs, &self.own());
        self.agree(&ahead, own.as_ref()).await?;
        let standing = judge::judge(&ahead, Share::from(self.claim));
        let head = ahead.first().map(|head| head.lease);
        let place = match (own, standing) {
            (Some(own), standing) => self.stand_at(own, standing, revision).await?,
            (None, Standing::Behind(ahead, _)) if self.enter == Enter::Try => {
                Some(Place::Refused(ahead))
            }
            (None, Standing::Fits) if self.enter == Enter::Try => {
                self.try_in(revision, epoch).await?
            }
            // It stood there a moment ago, and was ended since.
            (None, _) => None,
        };
        Ok(match place {
            Some(Place::Waiting(ahead)) => {
                Some(Place::Waiting(self.with_time_left(ahead, head).await))
            }
            Some(Place::Refused(ahead)) => {
                Some(Place::Refused(self.with_time_left(ahead, head).await))
            }
            place => place,
        })
    }

    /// Withdraws a claim that does not share the limit of the line. It was created before anybody
    /// could look, and whoever came in the same moment sees it, or is seen by it.
    pub(super) async fn agree(&self, ahead: &[Contender], own: Option<&Contender>) -> Result<()> {
        let Some(limit) = judge::disagreement(ahead, self.claim.limit()) else { return Ok(()) };
        if let Some(own) = own {
            let told = self.shared.claims.fence(self.claim.id, own.created);
            if told.or(own.fence()).is_some() {
                return Ok(());
            }
            self.shared.leave(self.session, self.claim).await?;
        }
        Err(Error::disagrees(self.claim, limit).at(self.shared.wire.config()))
    }

    pub(super) async fn stand_at(
        &self,
        own: Contender,
        standing: Standing,
        revision: i64,
    ) -> Result<Option<Place>> {
        if let Some(fence) = own.fence() {
            // What was told first counts: a mark that is on its way says the same.
            let told = self.shared.claims.fence(self.claim.id, own.created);
            return Ok(Some(Place::Held(told.unwrap_or(fence))));
        }
        match standing {
            Standing::Fits if self.claim.is_exclusive() || own.created == revision => {
                // A claim that fits in the transaction that created it holds since then.
                Ok(Some(Place::Held(self.grant(&own, layout::fence_at(revision)))))
            }
            Standing::Fits => self.mark(&own).await,
            Standing::Behind(ahead, _) if self.enter == Enter::Try => {
                self.shared.leave(self.session, self.claim).await?;
                Ok(Some(Place::Refused(ahead)))
            }
            Standing::Behind(ahead, watch) => {
                self.watch(&own, watch, revision);
                // It may have been granted by an event that came before this answer.
                let told = self.shared.claims.fence(self.claim.id, own.created);
                Ok(Some(told.map_or(Place::Waiting(ahead), Place::Held)))
            }
        }
    }

    /// Adds when the holder lapses, for the caller to know; not worth an error or a long wait.
    pub(super) async fn with_time_left(&self, mut ahead: Ahead, holder: Option<LeaseId>) -> Ahead {
        if let (Some(party), Some(holder)) = (&mut ahead.holder, holder)
            && let Ok(Ok(left)) = tokio::time::timeout(HINT, self.shared.time_left(holder)).await
        {
            party.left = left;
        }
        ahead
    }

    /// Grants what nobody is ahead of. The fence is the revision that proves it; a claim that was
    /// told one by an event keeps that.
    fn grant(&self, own: &Contender, fence: Fence) -> Fence {
        let claims = &self.shared.claims;
        claims.waits(self.claim.id, self.lease, own.created);
        let Some((fence, first)) = claims.grant(self.claim.id, own.created, fence) else {
            return fence;
        };
        if first {
            let claim = Arc::new(self.claim.clone());
            self.shared.mark_later(self.session.clone(), claim, own.created, fence);
        }
        fence
    }

    /// Grants a counting claim whose turn came: one end can let in several, so each fence is the
    /// revision of a write of its own.
    async fn mark(&self, own: &Contender) -> Result<Option<Place>> {
        let same = txn::compare(&own.key, Relation::Equal, Create(own.created));
        let untouched = txn::compare(&own.key, Relation::Equal, Mod(own.changed));
        let write = txn::rewrite(&own.key, self.label(Some(Granted::Here)));
        let request = txn::txn(vec![same, untouched], vec![write], Vec::new());
        let marked = self.shared.wire.call(ATTEMPT, &TXN, request).await?.body;
        let fence = layout::fence_at(marked.revision());
        Ok(marked.succeeded.then_some(Place::Held(fence)))
    }

    /// A try that fits into the line as it was at `revision`: enters if nobody came since.
    async fn try_in(&self, revision: i64, epoch: i64) -> Result<Option<Place>> {
        let unchanged = none_since(&layout::below(&self.claim.key), revision + 1);
        let request =
            self.in_epoch(epoch, vec![self.put_granted()], vec![unchanged, absent(&self.own())]);
        let reply = self.send(request).await?;
        let fence = layout::fence_at(reply.revision());
        Ok(reply.succeeded.then_some(Place::Held(fence)))
    }

    /// The rest of a line that is longer than a page, up to the claim itself. The pages are of
    /// different revisions, which does no harm: ahead of a claim nobody appears, and whoever went
    /// since the first page is watched from there.
    pub(super) async fn complete(
        &self,
        mut page: RangeResponse,
        revision: i64,
    ) -> Result<Vec<super::proto::KeyValue>> {
        let (own, below) = (self.own(), layout::below(&self.claim.key));
        let mut line = Vec::new();
        loop {
            let last = page.kvs.last().map(|kv| kv.create_revision);
            let found = page.kvs.iter().any(|kv| kv.key == own);
            line.append(&mut page.kvs);
            match last {
                Some(last) if page.more && !found => {
                    let request = txn::page(&below, last, revision);
                    page = self.shared.wire.call(ATTEMPT, &RANGE, request).await?.body;
                }
                _ => return Ok(line),
            }
        }
    }

    fn watch(&self, own: &Contender, watch: Watch, revision: i64) {
        let claims = &self.shared.claims;
        claims.waits(self.claim.id, self.lease, own.created);
        if claims.is_watching(self.claim.id, &watch) {
            return;
        }
        let claim = Arc::new(self.claim.clone());
        let register = |key: &[u8], end: Vec<u8>, first| {
            let purpose = Purpose::Turn {
                session: self.session.clone(),
                claim: Arc::clone(&claim),
                created: own.created,
                first,
            };
            let registration = Registration { key: key.to_vec(), end, from: revision + 1, purpose };
            self.shared.watches.watch(registration, &self.shared.wire, self.shared)
        };
        let ids = match &watch {
            Watch::Next { key, first } => vec![register(key, Vec::new(), Some(*first))],
            Watch::Any(keys) => keys.iter().map(|key| register(key, Vec::new(), None)).collect(),
            Watch::Whole => {
                let (first, end) = layout::below(&self.claim.key);
                vec![register(&first, end, None)]
            }
        };
        self.shared.watches.cancel(claims.watch(self.claim.id, watch, ids));
    }

    /// When the session's key was changed last.
    pub(super) async fn epoch(&self) -> Result<i64> {
        if let Some(epoch) = self.shared.sessions.epoch(self.lease) {
            return Ok(epoch);
        }
        // Another process opened it.
        let request = txn::get(&self.lease.session_key());
        let found = self.shared.wire.call(ATTEMPT, &RANGE, request).await?.body.first();
        found.map(|kv| kv.mod_revision).ok_or_else(|| self.ended())
    }

    pub(super) fn ended(&self) -> Error {
        let detail = "the session is gone; open a new one";
        self.shared.wire.error(ErrorKind::SessionEnded, ATTEMPT, detail)
    }

    pub(super) fn overtaken(&self) -> Error {
        let detail = "others change the line faster than this claim can enter it; try again";
        self.shared.wire.error(ErrorKind::Unavailable, ATTEMPT, detail)
    }

    pub(super) fn unreadable(&self) -> Error {
        let detail = "the server's answer does not fit the request";
        self.shared.wire.error(ErrorKind::Corrupt, ATTEMPT, detail).outcome_unknown()
    }
}

impl Shared {
    /// Sends what may create the claims' keys. Until it is answered, and if it is dropped or fails,
    /// the claims are doubtful: their end then has to reach also what arrives after it.
    pub(super) async fn send_entering(
        &self,
        lease: LeaseId,
        claims: &[Claim],
        request: TxnRequest,
    ) -> Result<TxnResponse> {
        let sending = |claim: &Claim| (claim.id, self.claims.sending(claim.id, lease));
        let sent: Vec<_> = claims.iter().map(sending).collect();
        let attempt = if claims.len() == 1 { ATTEMPT } else { SEVERAL };
        let answer = self.wire.call(attempt, &TXN, request).await;
        let none_is_on_its_way = match &answer {
            Ok(reply) => !reply.copies,
            Err(error) => error.effect() == Effect::None,
        };
        for (claim, doubtful) in sent {
            if none_is_on_its_way && !doubtful {
                self.claims.answered(claim);
            }
        }
        Ok(answer?.body)
    }
}

/// What failed after a claim may have stood in line, unless it was withdrawn.
pub(super) fn unless_refused(error: Error) -> Error {
    if error.kind() == ErrorKind::Disagrees { error } else { error.outcome_unknown() }
}

fn first_changed(reply: TxnResponse) -> Option<i64> {
    reply.ranges().find_map(RangeResponse::first).map(|kv| kv.mod_revision)
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use leasehold_core::{ClaimId, Key, Note, Terms};
    use leasehold_testbed::Etcd;

    use super::super::config::Config;
    use super::*;

    pub(in super::super) struct Opened {
        pub(in super::super) shared: Arc<Shared>,
        pub(in super::super) session: SessionId,
        pub(in super::super) lease: LeaseId,
    }

    impl Opened {
        pub(in super::super) async fn new(etcd: &Etcd) -> Self {
            let shared = Shared::new(Config::parse(&etcd.url()).unwrap());
            let ttl = Duration::from_mins(10);
            let terms = Terms { ttl, owner: Note::default(), detached: false };
            let session = shared.open(&terms).await.unwrap();
            let lease = LeaseId::of(&session).unwrap();
            Self { shared, session, lease }
        }

        pub(in super::super) fn entering<'a>(&'a self, claim: &'a Claim) -> Entering<'a> {
            let Self { shared, session, lease } = self;
            Entering { shared, session, lease: *lease, claim, enter: Enter::Wait }
        }
    }

    fn claim(n: u8) -> Claim {
        let id = ClaimId::from_random([n; 16]);
        Claim::exclusive(id, Key::new("k").unwrap(), Note::default())
    }

    /// PROTOCOLS.md section 4: under a shared lease a claim that arrives after its caller gave up
    /// never lapses.
    #[tokio::test]
    async fn an_enter_that_arrives_after_the_leave_leaves_no_ghost() {
        let etcd = Etcd::start();
        let opened = Opened::new(&etcd).await;
        let abandoned = claim(1);
        let entering = opened.entering(&abandoned);
        // What was sent, stays on its way for as long as a member stands still, and is dropped.
        let late = entering.request(opened.shared.sessions.epoch(opened.lease).unwrap());
        opened.shared.claims.sending(abandoned.id, opened.lease);
        opened.shared.leave(&opened.session, &abandoned).await.unwrap();

        let reply = opened.shared.wire.call(ATTEMPT, &TXN, late).await.unwrap().body;
        assert!(!reply.succeeded, "the session's key has changed since");
        let line = opened.shared.line(ATTEMPT, &abandoned.key).await.unwrap();
        assert_eq!(line, vec![]);
        // Whoever is not abandoned finds the session as it is now.
        let next = claim(2);
        assert!(matches!(opened.entering(&next).run().await, Ok(Place::Held(_))));
    }

    /// A try goes to a second member because the first does not answer, and is refused there. When
    /// the first wakes up, the lock is free, and nobody is left to release it.
    #[tokio::test]
    async fn a_copy_of_a_refused_try_is_not_granted_later() {
        let etcd = Etcd::start();
        let opened = Opened::new(&etcd).await;
        let [hold, refused] = [claim(1), claim(2)];
        assert!(matches!(opened.entering(&hold).run().await, Ok(Place::Held(_))));
        let mut entering = opened.entering(&refused);
        entering.enter = Enter::Try;
        let copy = entering.request(opened.shared.sessions.epoch(opened.lease).unwrap());
        opened.shared.claims.sending(refused.id, opened.lease);
        assert!(matches!(entering.run().await, Ok(Place::Refused(_))));
        opened.shared.leave(&opened.session, &hold).await.unwrap();

        opened.shared.wire.call(ATTEMPT, &TXN, copy).await.unwrap();
        assert_eq!(opened.shared.line(ATTEMPT, &refused.key).await.unwrap(), vec![]);
    }

    #[tokio::test]
    async fn an_enter_whose_future_was_dropped_is_doubtful_until_it_is_left() {
        let etcd = Etcd::start();
        let opened = Opened::new(&etcd).await;
        let dropped = claim(1);
        {
            let entering = opened.entering(&dropped).run();
            tokio::pin!(entering);
            let polled = std::future::poll_fn(|context| {
                std::task::Poll::Ready(entering.as_mut().poll(context).is_pending())
            });
            assert!(polled.await, "it has only been sent");
        }
        assert!(opened.shared.claims.ending(dropped.id).doubtful);
        let before = opened.shared.sessions.epoch(opened.lease).unwrap();
        opened.shared.leave(&opened.session, &dropped).await.unwrap();
        assert!(opened.shared.sessions.epoch(opened.lease).unwrap() > before);
        assert!(!opened.shared.claims.ending(dropped.id).doubtful);
    }

    #[tokio::test]
    async fn a_plain_hold_leaves_nothing_in_memory() {
        let etcd = Etcd::start();
        let opened = Opened::new(&etcd).await;
        let plain = claim(1);
        assert!(matches!(opened.entering(&plain).run().await, Ok(Place::Held(_))));
        assert_eq!(opened.shared.claims.ending(plain.id), super::super::claims::Ending::default());
    }
}
