//! The quorum fence: one fencing token out of independent servers, none of which can be trusted to
//! stay up.
//!
//! Each server keeps the lock key (a token with a TTL) and beside it a counter. A tenure, the time
//! during which one token is at a server, begins by raising the counter; only the tenure's token
//! may raise it further. An [`Attempt`] asks all servers at once, takes the greatest counter it
//! was told as the fence, and raises the other counters to it where they fell short. A [`Renewal`] then
//! tells, round after round, whether the hold goes on. [`Server`] is the reference for what a store
//! has its servers do.
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
//! *before* the reply. Or it stays away long enough: since every tenure begins no lower than its
//! server's clock, a server that forgets does no harm if it restarts no sooner than the greater of
//! the TTL and [`PROPOSAL_AHEAD`], plus twice the greatest skew of the servers' clocks. The TTL alone
//! is too little for the fences: a proposal may have pushed them that far ahead of the clock. A
//! counter may therefore also expire, once the clock is past it by more than the clock may ever step
//! back, and never before the token beside it.
//!
//! # How it is tested
//!
//! `tests/quorum_exhaustive.rs` visits every execution of two attempts over three servers with early
//! expiry and retries. `tests/quorum_simulation.rs` runs attempts, renewals and top-ups over more than a
//! million seeds, with lost, late and repeated messages, clocks that drift, clocks that jump within the
//! bound and beyond it, and servers that restart and forget. Both drop what is needed and watch the
//! promise break: the counters' persistence, the delay of a restart, the deadline that counts from the
//! send, its margin for drift, the counter that a top-up raises, the tenure that a renewal looks at. An
//! acknowledgement that is not exact is too rare for the simulation: the exhaustive test has it.

mod attempt;
mod renewal;
mod server;

pub use attempt::{Attempt, Step};
pub use renewal::{Renewal, Verdict};
pub use server::{Beat, PROPOSAL_AHEAD, Server, Vote, proposal};

/// More than half of `servers`.
#[must_use]
pub const fn majority(servers: usize) -> usize {
    servers / 2 + 1
}
