//! A quorum of independent Redis servers (6.2 or newer, Valkey too), none of which can be trusted to
//! stay up: Redlock, with a fence.
//!
//! # URLs
//!
//! - `redlock://[[user]:password@]host[:port],host[:port],host[:port]…[/database][?timeout=2s]`
//! - `redlocks://…`, the same over TLS. Trusts the system's certificates, or those of `?ca=FILE`;
//!   shows a certificate with `?cert=FILE&key=FILE`.
//!
//! An odd number of servers, 3 to 15; 5 are usual: two may fail. They must be *independent*: no
//! replicas, no cluster, no common machine, and each named once. User, password and database are the
//! same for all. `timeout` bounds each request to each server; a part of the TTL bounds it too.
//!
//! # How it votes
//!
//! A claim asks all servers at once and holds when a majority grants it within its TTL less a tenth.
//! One round trip is enough where the servers agree on the fence at once, as they do with clocks
//! that are less than 5 s apart; else a second one raises those that fell short. A server that
//! does not answer costs nothing while a majority agrees without it, and its time-out otherwise.
//! A try without a majority gives back what it got, on every server, before it is repeated; what a
//! server grants late is given back when it says so.
//!
//! Renewals ask all servers, too. A server that lost the token (it was restarted) is given it anew once
//! the majority is proven, and counts from a later renewal on.
//!
//! If too few servers answer, the error's [`source`](std::error::Error::source) is a [`Votes`]: what
//! each server said. Contention is no error, and is not confused with failure.
//!
//! # What it keeps
//!
//! On each server: the key under its own name, verbatim, as a string with the claim's id as its value
//! (the same on all servers) and the TTL on it: the layout of node-redlock, rslock, redsync and
//! others, which are excluded and exclude, both ways, on the same servers. A key of any type, or
//! without TTL, is held. Beside it stands `leasehold:{…}:vote:KEY` with the fence's counter and who
//! holds; it vanishes an hour after the last use. Keys that begin with `leasehold:{` are refused.
//!
//! # What it promises
//!
//! - One at a time, as long as no majority of servers forgets or loses time in the middle of a lease.
//! - Fences are unique, also when two hold at once after a clock jumped or tokens vanished, as long as no
//!   server forgets its counter. If one grant was made before the other was asked for, its fence is
//!   smaller. Grants that overlap because clocks jumped have different fences in no certain order.
//!   See [`leasehold_core::quorum`] for the argument and its tests.
//!
//! # What it does not promise
//!
//! - **A line.** Who comes first is chance. Waiters ask again after a while that grows and is jittered;
//!   a release is told to one waiter of each process, which asks at once.
//! - **A server that forgets.** A restart must not lose what was answered: run each server with
//!   `appendonly yes` and `appendfsync always`. `everysec` is not enough. Without it, keep a
//!   server that crashed away for the longest TTL or 10 s, whichever is more, plus twice what the clocks
//!   are apart: by then every lease has lapsed and its clock has passed every fence.
//! - Limits above 1 (semaphores, readers beside readers), other notes for a hold, and records (jobs,
//!   limiters) are refused.
//! - A server that hung with our request in its queue may carry it out long after it was given up. It is
//!   asked to give back what it granted for a few seconds; then the TTL ends it, in a minority.
//! - A hold of which more than a minority of tokens were replaced one by one can be renewed only by the
//!   process that saw it; [`Client::renew`](crate::Client::renew) in another finds that out from the
//!   servers that still stand where it was granted.
//! - A server that evicts keys when its memory is full may evict a vote. Use `noeviction`.
//!
//! # Access list
//!
//! On each server `&leasehold:wake:*`, the names of its keys and `~leasehold:*`, and `+evalsha +eval
//! +subscribe +unsubscribe +publish +select +get +set +del +pexpire +pttl +time`, with `+scan` to list
//! keys. `leasehold doctor` reads `+info +config|get` as well, and says so if it may not.

mod attempt;
mod config;
mod examine;
mod inbox;
mod quorum;
mod renew;
mod store;
mod view;
mod votes;
mod wire;

use std::time::Duration;

pub use store::Redlock;
pub use votes::{Vote, Votes};

use crate::store::{Guarantees, LeaseScope};

/// What the store can do.
const GUARANTEES: Guarantees = Guarantees {
    // A part of it has to be enough for the slowest server of a majority.
    min_ttl: Duration::from_millis(250),
    line: false,
    counting: false,
    records: false,
    lease: LeaseScope::Claim,
    // About a millisecond of each server's time.
    renew_batch: 256,
    recheck: Duration::from_secs(1),
};
