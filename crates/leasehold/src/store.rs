//! The contract between leasehold and a lock service.
//!
//! Fifteen methods, none with a default: a wrapper that forgets to forward one does not compile.
//! What the methods mean is checked, store by store, by the suite in `leasehold-contract`.
//!
//! # What every store promises
//!
//! - **An `Err` means that the outcome may be unknown** ([`Error::effect`](crate::Error::effect)
//!   tells); contention is an `Ok`. After an unknown outcome the same request with the same claim
//!   id may be sent again: it finds what the first one did.
//! - **Nobody ends or extends another's claim.** The store compares the claim id itself, in the
//!   same atomic step. Nothing revives a claim that lapsed.
//! - **A fence is strictly greater** than that of every conflicting grant of the same key that was
//!   granted before this one's `enter` was sent; asking again gives the same fence.
//! - **Claims of a key agree on its limit.** One that is new in the line and sees another limit than
//!   a claim ahead of it is refused by [`ErrorKind::Disagrees`](crate::ErrorKind::Disagrees),
//!   whether it fits or not, and leaves nothing behind. A mutex (1 of 1) agrees with readers and
//!   writers (of `u32::MAX`): it is a writer by another name
//!   ([`disagreement`](leasehold_core::line::disagreement)).
//! - **First come, first served**, where the store keeps a line. A claim whose session lapsed is
//!   passed over in the same step, so any number of dead claims costs one TTL at most.
//! - **The lease counts from no later than the answer.** A caller that counts from before it sent
//!   the request gives up before the store does.
//! - **Cancel safety:** every future may be dropped at any await. The request may then be carried
//!   out or not, as after an unknown outcome; the store's connections stay usable. The caller
//!   still owes a [`Store::leave`] for a claim that it sent an `enter` for.

use std::fmt;
use std::time::Duration;

use futures::future::BoxFuture;
use leasehold_core::{
    Claim, ClaimId, Enter, Key, Left, Line, Place, Provided, Reading, Record, Renewed, SessionId,
    Terms, Together,
};

use crate::error::Result;
use crate::examination::Examination;
use crate::property::{Properties, Property};

/// A lock service. `Display` names it without its password; so does `Debug`.
pub trait Store: fmt::Debug + fmt::Display + Send + Sync + 'static {
    /// What the store can do, and how it wants to be used. Known without IO, but for what only a
    /// connection tells (a pooler on the way): there it says the best case, and what is the case
    /// once a session was opened.
    fn guarantees(&self) -> Guarantees;

    /// Begins a session. The session and its claims last for `terms.ttl` after each renewal.
    ///
    /// Connects if there is no connection yet; refuses a TTL below the store's minimum, and
    /// a server that cannot keep the promises above.
    fn open<'a>(&'a self, terms: &'a Terms) -> BoxFuture<'a, Result<SessionId>>;

    /// Extends the session and the claims of `roll` (all that the caller has, held or waiting, or
    /// as many as [`Guarantees::renew_batch`] allows), and tells which of them are lost.
    ///
    /// A claim that was left, lapsed or revoked is lost; it is never revived. A claim that is not
    /// named may lapse, but is not ended by this call.
    fn renew<'a>(
        &'a self,
        session: &'a SessionId,
        roll: &'a [Claim],
    ) -> BoxFuture<'a, Result<Renewed>>;

    /// Ends the session and every claim in it, held or waiting. Ending an unknown one is `Ok`.
    fn close<'a>(&'a self, session: &'a SessionId) -> BoxFuture<'a, Result<()>>;

    /// Joins the line, or finds the claim's place in it.
    ///
    /// Idempotent by claim id. A refused [`Enter::Try`] leaves nothing behind. With
    /// [`LeaseScope::Claim`] any answer but a refusal extends the claim's lease as a renewal does.
    ///
    /// Fails with [`ErrorKind::SessionEnded`](crate::ErrorKind::SessionEnded), without an effect,
    /// when the session is not known (any more).
    fn enter<'a>(
        &'a self,
        session: &'a SessionId,
        claim: &'a Claim,
        enter: Enter,
    ) -> BoxFuture<'a, Result<Place>>;

    /// [`Store::enter`] by [`Enter::Try`] of several claims, each on a key of its own, in one atomic
    /// step: all are granted, or nothing new is left behind. Nobody sees some of them held and others
    /// not, so of those who try free keys at the same moment one gets them.
    ///
    /// [`Together::Apart`], without an effect, where the store cannot do that with these keys; the
    /// caller goes through them one by one then.
    ///
    /// Idempotent by the claims' ids: after an unknown outcome the same claims find what the first
    /// request did. Fails as `enter` does, with the key of the claim that an error is about.
    fn enter_all<'a>(
        &'a self,
        session: &'a SessionId,
        claims: &'a [Claim],
    ) -> BoxFuture<'a, Result<Together>>;

    /// Resolves when the place of a waiting claim may have changed since `enter` last answered;
    /// a change between that answer and this call counts. With the new place where the store was
    /// told it, else `None`: ask by `enter`.
    ///
    /// A hint: it may wake early, and a caller asks again now and then all the same, because a
    /// message can be lost. A grant learned this way does *not* extend the lease: the deadline
    /// counts from the last acknowledged renewal.
    fn changed<'a>(
        &'a self,
        session: &'a SessionId,
        claim: &'a Claim,
    ) -> BoxFuture<'a, Result<Option<Place>>>;

    /// Resolves when the session should be renewed ahead of time, because one of its claims may
    /// have been revoked or the connection was interrupted. A hint, like [`Store::changed`]. May
    /// never resolve.
    fn disturbed<'a>(&'a self, session: &'a SessionId) -> BoxFuture<'a, ()>;

    /// Ends a claim: releases what is held, or gives up the place in line. The next in line is
    /// granted in the same step, where the store keeps a line. Idempotent.
    fn leave<'a>(&'a self, session: &'a SessionId, claim: &'a Claim)
    -> BoxFuture<'a, Result<Left>>;

    /// Gives a hold the note of `claim`, and its units where they are fewer than it has; whoever
    /// fits beside it then is granted in the same step. The fence stays, and so does the lease.
    ///
    /// `false`, without an effect, if the claim does not hold (any more). Idempotent.
    fn amend<'a>(&'a self, session: &'a SessionId, claim: &'a Claim)
    -> BoxFuture<'a, Result<bool>>;

    /// The record of a key, and the store's time. A record has nothing to do with the line of its
    /// key but for [`Provided::Held`].
    fn read<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Reading>>;

    /// Writes the record of a key if what is `provided` is true in the same step: whether it was.
    ///
    /// Not idempotent: after an unknown outcome read, and compare what is there.
    fn write<'a>(
        &'a self,
        key: &'a Key,
        provided: Provided<'a>,
        record: &'a Record,
    ) -> BoxFuture<'a, Result<bool>>;

    /// Ends somebody's claim by force, if it is still there: an operator's way out. Its owner
    /// learns of it by [`Store::disturbed`] or its next renewal. `false` if it was gone already.
    fn revoke<'a>(&'a self, key: &'a Key, claim: &'a ClaimId) -> BoxFuture<'a, Result<bool>>;

    /// Who holds a key and who waits for it.
    fn inspect<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Line>>;

    /// The keys that begin with `prefix` and that a leasehold client holds or waits for, in order
    /// of their bytes.
    fn keys<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Vec<Key>>>;

    /// What the servers behind the store say of themselves, judged by what locks with a TTL of
    /// `ttl` need. Changes nothing there beyond what connecting does.
    ///
    /// What could not be read is a finding too ([`Severity::Unknown`](crate::Severity::Unknown)),
    /// and so is what is wrong; an `Err` says that the store cannot be used or did not answer.
    /// [`Client::examine`](crate::Client::examine) adds what holds for every store.
    fn examine(&self, ttl: Duration) -> BoxFuture<'_, Result<Examination>>;
}

/// What a store can do, and how it wants to be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Guarantees {
    /// What it promises, for callers to [demand](crate::ClientBuilder::demand).
    pub properties: Properties,
    /// The shortest TTL it keeps.
    pub min_ttl: Duration,
    /// By how much later than its TTL a lapsed hold is free at the latest, while the store
    /// answers: how finely it counts.
    pub lapse_delay: Duration,
    /// What a lease is attached to.
    pub lease: LeaseScope,
    /// How many claims one renewal may name.
    pub renew_batch: usize,
    /// The longest time that a waiter sleeps without asking again, because a wake-up was lost.
    pub recheck: Duration,
}

impl Guarantees {
    /// Whether the store has the property.
    #[must_use]
    pub const fn has(&self, property: Property) -> bool {
        self.properties.contains(property)
    }
}

/// What a lease is attached to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaseScope {
    /// The session: one renewal extends all its claims, and a claim entered later lasts as long
    /// as the session does.
    Session,
    /// Each claim by itself: entering begins its lease, and each renewal names it.
    Claim,
}
