#![doc = include_str!("../redlock.md")]

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

use crate::property::{Properties, Property};
use crate::store::{Guarantees, LeaseScope};

/// What it promises; the page above says under which conditions, and what not.
pub(super) const PROPERTIES: Properties =
    Properties::of(&[Property::Processes, Property::Machines, Property::ForeignClients]);

/// What the store can do, and how it wants to be used.
const GUARANTEES: Guarantees = Guarantees {
    properties: PROPERTIES,
    // A part of it has to be enough for the slowest server of a majority.
    min_ttl: Duration::from_millis(250),
    lapse_delay: Duration::ZERO,
    lease: LeaseScope::Claim,
    // About a millisecond of each server's time.
    renew_batch: 256,
    recheck: Duration::from_secs(1),
};
