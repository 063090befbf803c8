//! The quorum fence: one fencing token out of independent servers, none of which can be trusted to
//! stay up.
//!
//! Each server keeps the lock key (a token with a TTL) and beside it a counter. A tenure, the time
//! during which one token is at a server, begins by raising the counter; only the tenure's token
//! may raise it further. An [`Attempt`] asks all servers at once, takes the greatest counter it
//! was told as the fence, and raises the other counters to it where they fell short.
//!
//! **An acknowledgement counts only if the counter then equals the fence exactly.** With "it was
//! raised to at least that" one early expiry gives two holders the same fence.
//!
//! # What it promises
//!
//! If counters are never lost and only a tenure's token raises its counter, then:
//!
//! - any two grants have different fences, even if both hold at once, after early expiry, clock
//!   jumps, duplicated requests and lost replies: a fence needs a majority of tenures that stood at
//!   it exactly, two majorities share a server, and no two tenures of one server ever stand at the
//!   same counter;
//! - if one grant was made before the other's attempt *sent* anything, its fence is smaller: its
//!   majority's counters stand at its fence or above, and the later tenure begins above that.
//!
//! Overlapping attempts under unsound clocks have unique fences, not ordered ones. With sound
//! clocks (no token expires early) grants do not overlap, so their order is the fences' order.
//!
//! # What it needs
//!
//! A server that restarts must not have forgotten its counter. That is persistence with a sync
//! *before* the reply. Without it, a counter that follows the clock and a restart delayed by the
//! TTL plus twice the clock skew serve as well: see [`Server::acquire`]. The tests drop each of
//! these needs and watch the promise break.

use crate::{ClaimId, Fence};

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

impl Server {
    /// Begins a tenure if no token is there; asking again with the same token changes nothing.
    ///
    /// `proposal` lets the servers agree at once; `clock` is the server's own in microseconds.
    pub fn acquire(&mut self, token: ClaimId, proposal: u64, clock: u64) -> Vote {
        match self.holder {
            Some(holder) if holder == token => Vote::Granted(self.counter),
            Some(_) => Vote::Denied,
            None => {
                let proposal = proposal.min(clock.saturating_add(PROPOSAL_AHEAD));
                self.holder = Some(token);
                self.counter = self.counter.saturating_add(1).max(proposal);
                Vote::Granted(self.counter)
            }
        }
    }

    /// Raises the counter to `fence`, if the token is still there and the counter is lower.
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

    /// The counter as it stands.
    #[must_use]
    pub const fn counter(&self) -> u64 {
        self.counter
    }
}

/// More than half of `servers`.
#[must_use]
pub const fn majority(servers: usize) -> usize {
    servers / 2 + 1
}

/// One claim's way to a grant by a majority. Knows no time and sends nothing: it is told what each
/// server answered and says what to do next.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Attempt {
    servers: Vec<State>,
}

/// How one server stands in an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum State {
    /// The first request is under way.
    Asked,
    /// It has our token, and its counter stood here.
    Stands(u64),
    /// It has our token, stood at the first number, and was asked to raise to the second.
    Raising(u64, u64),
    /// It denied, failed, or lost our token.
    Out,
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Wait for more answers.
    Wait,
    /// Ask these servers to raise their counters to the fence, then wait.
    Raise {
        /// Servers by their index.
        servers: Vec<usize>,
        /// Where to.
        fence: u64,
    },
    /// A majority stands at this fence exactly: granted, if the deadline allows.
    Granted(Fence),
    /// No majority can be had any more: release everywhere, also where no answer came from.
    Failed,
}

impl Attempt {
    /// An attempt whose first request was sent to all of `servers` servers.
    #[must_use]
    pub fn new(servers: usize) -> Self {
        Self { servers: vec![State::Asked; servers] }
    }

    /// Takes a server's answer to the first request. A duplicate, or one that comes after the
    /// server was raised or given up, changes nothing.
    pub fn answered(&mut self, server: usize, vote: Vote) {
        if self.servers[server] == State::Asked {
            self.servers[server] = match vote {
                Vote::Granted(counter) => State::Stands(counter),
                Vote::Denied => State::Out,
            };
        }
    }

    /// Takes a server's answer to the request to raise to `fence`. One that was not asked for, or
    /// was answered before, changes nothing.
    pub fn raised(&mut self, server: usize, fence: u64, vote: Vote) {
        if matches!(self.servers[server], State::Raising(_, to) if to == fence) {
            self.servers[server] = match vote {
                Vote::Granted(counter) => State::Stands(counter),
                Vote::Denied => State::Out,
            };
        }
    }

    /// Gives a server up: it failed, or did not answer in time.
    pub fn gave_up(&mut self, server: usize) {
        self.servers[server] = State::Out;
    }

    /// What to do next. A slow server is not waited for once a majority has our token.
    pub fn step(&mut self) -> Step {
        let majority = majority(self.servers.len());
        let count = |wanted: &dyn Fn(&State) -> bool| {
            self.servers.iter().filter(|state| wanted(state)).count()
        };
        if count(&|state| *state != State::Out) < majority {
            return Step::Failed;
        }
        let told = self.servers.iter().filter_map(|state| match state {
            State::Stands(counter) | State::Raising(counter, _) => Some(*counter),
            State::Asked | State::Out => None,
        });
        let Some(fence) = told.max() else {
            return Step::Wait;
        };
        // Exactly: a counter that went past the fence says nothing about who stood at it.
        if count(&|state| *state == State::Stands(fence)) >= majority {
            return Step::Granted(Fence::new(fence));
        }
        if count(&|state| matches!(state, State::Stands(_) | State::Raising(..))) < majority {
            return Step::Wait;
        }
        let mut servers = Vec::new();
        for (index, state) in self.servers.iter_mut().enumerate() {
            match *state {
                State::Stands(counter) if counter < fence => {
                    *state = State::Raising(counter, fence);
                    servers.push(index);
                }
                _ => {}
            }
        }
        if servers.is_empty() { Step::Wait } else { Step::Raise { servers, fence } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(byte: u8) -> ClaimId {
        ClaimId::from_random([byte; 16])
    }

    #[test]
    fn agreeing_servers_grant_in_one_round_without_the_slow_one() {
        let mut attempt = Attempt::new(3);
        attempt.answered(0, Vote::Granted(7));
        assert_eq!(attempt.step(), Step::Wait);
        attempt.answered(2, Vote::Granted(7));
        assert_eq!(attempt.step(), Step::Granted(Fence::new(7)));
    }

    #[test]
    fn servers_that_fell_short_are_raised() {
        let mut attempt = Attempt::new(3);
        attempt.answered(0, Vote::Granted(7));
        attempt.answered(1, Vote::Granted(9));
        assert_eq!(attempt.step(), Step::Raise { servers: vec![0], fence: 9 });
        assert_eq!(attempt.step(), Step::Wait);
        attempt.raised(0, 9, Vote::Granted(9));
        assert_eq!(attempt.step(), Step::Granted(Fence::new(9)));
    }

    #[test]
    fn a_split_vote_fails_as_soon_as_it_is_certain() {
        let mut attempt = Attempt::new(3);
        attempt.answered(0, Vote::Granted(1));
        attempt.answered(1, Vote::Denied);
        assert_eq!(attempt.step(), Step::Wait);
        attempt.gave_up(2);
        assert_eq!(attempt.step(), Step::Failed);
    }

    #[test]
    fn a_counter_past_the_fence_is_no_acknowledgement() {
        let mut attempt = Attempt::new(3);
        attempt.answered(0, Vote::Granted(5));
        attempt.answered(1, Vote::Granted(3));
        assert_eq!(attempt.step(), Step::Raise { servers: vec![1], fence: 5 });
        attempt.raised(1, 5, Vote::Granted(8));
        assert_eq!(attempt.step(), Step::Raise { servers: vec![0], fence: 8 });
        attempt.raised(0, 8, Vote::Denied);
        assert_eq!(attempt.step(), Step::Wait, "the third server has not answered");
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
    fn a_wild_proposal_moves_the_counter_little() {
        let mut server = Server::default();
        assert_eq!(server.acquire(token(1), u64::MAX, 5), Vote::Granted(5 + PROPOSAL_AHEAD));
    }
}
