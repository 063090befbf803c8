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
    /// The token was there: its TTL begins anew, and the counter stands here.
    Extended(u64),
    /// No token was there: a new tenure of ours began, and the counter stands here.
    ToppedUp(u64),
    /// Another's token is there.
    Denied,
}

/// The number that a client proposes: `clock` is its own in microseconds since 1970, `seen` the
/// greatest counter or fence of the key that it ever saw (0 if none).
///
/// It lies ahead of the servers' clocks as long as they are less than half of [`PROPOSAL_AHEAD`]
/// ahead of the client's, and within what they accept as long as they are less than the other half
/// behind. Then all begin at this number, and one round trip is enough.
#[must_use]
pub const fn proposal(clock: u64, seen: u64) -> u64 {
    let ahead = clock.saturating_add(PROPOSAL_AHEAD / 2);
    let next = seen.saturating_add(1);
    if ahead > next { ahead } else { next }
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
                Vote::Granted(self.begin(token, proposal, clock))
            }
        }
    }

    /// Begins a tenure: always above the one before, never below the clock.
    fn begin(&mut self, token: ClaimId, least: u64, clock: u64) -> u64 {
        self.holder = Some(token);
        self.counter = self.counter.saturating_add(1).max(clock).max(least);
        self.counter
    }

    /// Renews the hold of `token`, whose fence is `fence`: begins the TTL anew where the token is,
    /// and a tenure where none is.
    ///
    /// That tenure begins above the one before it like any other. If it only raised the counter to
    /// the fence, it could stand at the number of another's tenure that ended since, and asking
    /// again would be granted the other's fence.
    pub fn renew(&mut self, token: ClaimId, fence: u64, clock: u64) -> Beat {
        match self.holder {
            Some(holder) if holder == token => {
                self.counter = self.counter.max(fence);
                Beat::Extended(self.counter)
            }
            Some(_) => Beat::Denied,
            None => Beat::ToppedUp(self.begin(token, fence, clock)),
        }
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
    fn a_renewal_extends_tops_up_or_is_denied() {
        let mut server = Server::restarted(3);
        assert_eq!(server.renew(token(1), 8, 0), Beat::ToppedUp(8));
        assert_eq!(server.renew(token(1), 9, 0), Beat::Extended(9), "its counter fell short");
        assert_eq!(server.renew(token(2), 20, 0), Beat::Denied);
        server.expire();
        assert_eq!(server.renew(token(2), 9, 0), Beat::ToppedUp(10), "above the tenure before");
        assert_eq!(server.renew(token(2), 9, 0), Beat::Extended(10));
    }

    #[test]
    fn a_proposal_is_ahead_of_the_clock_and_of_what_was_seen() {
        assert_eq!(proposal(100, 7), 100 + PROPOSAL_AHEAD / 2);
        assert_eq!(proposal(100, PROPOSAL_AHEAD), PROPOSAL_AHEAD + 1);
    }
}
