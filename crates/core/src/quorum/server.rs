//! What each server does, atomically for each request.

use crate::ClaimId;

/// How far ahead of a server's clock a proposal may push its counter, in microseconds: so that
/// one client with a wild clock does not use up the numbers.
pub const PROPOSAL_AHEAD: u64 = 10_000_000;

/// The rule that each server follows, atomically for each request.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Server {
    /// The token that is at the server now.
    holder: Option<ClaimId>,
    counter: u64,
}

/// What a server answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Vote {
    /// The token is at the server, whose counter stands here.
    Granted(u64),
    /// Another's token is there, or, for a raise, ours is not.
    Denied,
}

/// What a server answers to a renewal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Beat {
    /// The token is there: its TTL begins anew, and the counter stands here.
    Extended(u64),
    /// The token is not there: another's is, or none.
    Gone,
}

/// The number that a client proposes: `clock` is its own in microseconds since 1970.
///
/// It lies ahead of the servers' clocks as long as they are less than half of [`PROPOSAL_AHEAD`]
/// ahead of the client's, and within what they accept as long as they are less than the other half
/// behind. Then all begin at this number, and one round trip is enough.
#[must_use]
pub const fn proposal(clock: u64) -> u64 {
    clock.saturating_add(PROPOSAL_AHEAD / 2)
}

impl Server {
    /// A server that restarted and remembers its counter, but no token.
    #[must_use]
    pub const fn restarted(counter: u64) -> Self {
        Self { holder: None, counter }
    }

    /// Begins a tenure if no token is there. Asking again with the same token leaves the counter
    /// as it is and begins the TTL anew.
    ///
    /// `proposal` lets the servers agree at once; `clock` is the server's own in microseconds
    /// since 1970.
    pub fn acquire(&mut self, token: ClaimId, proposal: u64, clock: u64) -> Vote {
        match self.holder {
            Some(holder) if holder == token => Vote::Granted(self.counter),
            Some(_) => Vote::Denied,
            None => {
                let proposal = proposal.min(clock.saturating_add(PROPOSAL_AHEAD));
                self.holder = Some(token);
                // Always above the tenure before, never below the clock.
                self.counter = self.counter.saturating_add(1).max(clock).max(proposal);
                Vote::Granted(self.counter)
            }
        }
    }

    /// Renews the hold of `token`, whose fence is `fence`: begins the TTL anew and raises the
    /// counter to the fence, if the token is there.
    ///
    /// Never begins a tenure: a renewal that crosses a release must not revive the hold. A server
    /// that lost the token is asked to [`acquire`](Self::acquire) once the round is kept. That
    /// tenure begins above the one before it like any other: if it only raised the counter to the
    /// fence, it could stand at the number of another's tenure that ended since.
    pub fn extend(&mut self, token: ClaimId, fence: u64) -> Beat {
        if self.holder != Some(token) {
            return Beat::Gone;
        }
        self.counter = self.counter.max(fence);
        Beat::Extended(self.counter)
    }

    /// Raises the counter to `fence`, if the token is still there and the counter is lower. Leaves
    /// the TTL as it is.
    pub fn raise(&mut self, token: ClaimId, fence: u64) -> Vote {
        if self.holder != Some(token) {
            return Vote::Denied;
        }
        self.counter = self.counter.max(fence);
        Vote::Granted(self.counter)
    }

    /// Ends the tenure of `token`, if it is there.
    pub fn release(&mut self, token: ClaimId) {
        if self.holder == Some(token) {
            self.holder = None;
        }
    }

    /// Ends whatever tenure there is: the TTL ran out.
    pub const fn expire(&mut self) {
        self.holder = None;
    }

    /// The server restarted and remembers neither token nor counter.
    pub fn forget(&mut self) {
        *self = Self::default();
    }

    /// The token that is there.
    #[must_use]
    pub const fn holder(&self) -> Option<ClaimId> {
        self.holder
    }

    /// The counter as it stands.
    #[must_use]
    pub const fn counter(&self) -> u64 {
        self.counter
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(byte: u8) -> ClaimId {
        ClaimId::from_random([byte; 16])
    }

    #[test]
    fn a_tenure_begins_above_the_one_before_and_only_its_token_raises_it() {
        let mut server = Server::default();
        assert_eq!(server.acquire(token(1), 0, 0), Vote::Granted(1));
        assert_eq!(server.acquire(token(1), 50, 0), Vote::Granted(1), "a retry changes nothing");
        assert_eq!(server.acquire(token(2), 0, 0), Vote::Denied);
        assert_eq!(server.raise(token(2), 9), Vote::Denied);
        assert_eq!(server.raise(token(1), 9), Vote::Granted(9));
        server.release(token(2));
        assert_eq!(server.acquire(token(2), 0, 0), Vote::Denied);
        server.release(token(1));
        assert_eq!(server.acquire(token(2), 0, 0), Vote::Granted(10));
    }

    #[test]
    fn a_tenure_begins_at_the_clock_or_a_little_ahead_of_it() {
        let begins = |proposal| Server::default().acquire(token(1), proposal, 5);
        assert_eq!(begins(0), Vote::Granted(5));
        assert_eq!(begins(9), Vote::Granted(9));
        assert_eq!(begins(u64::MAX), Vote::Granted(5 + PROPOSAL_AHEAD));
    }

    #[test]
    fn a_renewal_extends_what_is_there_and_begins_nothing() {
        let mut server = Server::restarted(3);
        assert_eq!(server.extend(token(1), 8), Beat::Gone);
        assert_eq!(server.acquire(token(1), 8, 0), Vote::Granted(8));
        assert_eq!(server.extend(token(1), 9), Beat::Extended(9), "its counter fell short");
        assert_eq!(server.extend(token(1), 8), Beat::Extended(9));
        assert_eq!(server.extend(token(2), 20), Beat::Gone);
        server.expire();
        assert_eq!(server.extend(token(1), 9), Beat::Gone, "nothing revives it");
        assert_eq!(server.acquire(token(1), 9, 0), Vote::Granted(10), "above the tenure before");
        assert_eq!(server.extend(token(1), 9), Beat::Extended(10));
    }
}
