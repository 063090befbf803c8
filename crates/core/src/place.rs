//! What a store answers: a place in line, the end of one, and the line as others see it.

use std::time::Duration;

use crate::{ClaimId, Fence, Note};

/// Whether an `enter` that is not granted stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Enter {
    /// Granted at once or refused; a refusal leaves nothing behind.
    Try,
    /// Granted at once or put in line.
    Wait,
}

/// Where a claim stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// It holds, under this fence. Asking again gives the same fence.
    Held(Fence),
    /// It stands in line, or the store keeps no line and it has to ask again.
    Waiting(Ahead),
    /// It was a try, and others are ahead. Nothing of it is left in the store.
    Refused(Ahead),
}

/// What became of claims on several keys that were asked for in one step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Together {
    /// All hold, each under its own fence, in the order of the claims.
    Held(Vec<Fence>),
    /// Others are ahead of the claim at this place among the claims. Nothing new is left in the
    /// store, of the other claims neither.
    Refused {
        /// Which of the claims, counted from 0.
        at: usize,
        /// Who is ahead of it.
        ahead: Ahead,
    },
    /// These keys cannot be entered in one step. Nothing was done.
    Apart,
}

/// What stands between a claim and its grant.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ahead {
    /// Waiters ahead in line, not counting those who hold; `None` where the store keeps no line.
    pub rank: Option<u32>,
    /// The one who holds now, as far as the store knows.
    pub holder: Option<Party>,
    /// Somebody holds who is not of leasehold: the store cannot say when that hold ends, so
    /// asking again is the only way to learn it.
    pub foreign: bool,
}

/// What `leave` found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    /// The claim held, and does no more.
    Released,
    /// The claim stood in line, and does no more.
    Withdrawn,
    /// The store did not know the claim: it lapsed, was revoked, or never arrived.
    Gone,
}

/// What `renew` found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Renewed {
    /// The session goes on, without the claims named here.
    Extended {
        /// Claims of the roll that the store no longer knows.
        lost: Vec<ClaimId>,
    },
    /// The session lapsed or was never known, and every claim with it.
    Ended,
}

/// A holder or a waiter, as others see it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Party {
    /// Its claim; `None` for one that is not of leasehold.
    pub claim: Option<ClaimId>,
    /// Who it says it is; empty when unknown.
    pub owner: Note,
    /// What it wants others to read; empty when there is none.
    pub note: Note,
    /// Its fence, once it holds and if the store keeps it.
    pub fence: Option<Fence>,
    /// How long it has held or waited, by the store's clock.
    pub age: Option<Duration>,
    /// How long until it lapses unless it is renewed; `None` for a foreign hold without a TTL.
    pub left: Option<Duration>,
    /// Units asked for; 1 for a mutex.
    pub units: u32,
    /// Limit of the key as it sees it; 1 for a mutex.
    pub limit: u32,
}

/// Who holds a key and who waits for it, first come first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Line {
    /// Those who hold.
    pub holders: Vec<Party>,
    /// Those who wait, the next one first.
    pub waiters: Vec<Party>,
}

/// What a session is opened with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// Time to live: how long the session and its claims last after each renewal.
    pub ttl: Duration,
    /// Who opens it, for others to read.
    pub owner: Note,
    /// Whether it outlives the process that opened it (until its TTL). Where a store can tell
    /// that a process died, it frees the others' claims at once.
    pub detached: bool,
}
