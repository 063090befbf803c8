#![doc = include_str!("../redis.md")]

pub(in crate::stores) mod answers;
mod cluster;
pub(in crate::stores) mod config;
pub(in crate::stores) mod connection;
mod dial;
mod enter;
pub(in crate::stores) mod examine;
mod examine_cluster;
pub(in crate::stores) mod failure;
pub(in crate::stores) mod inbox;
pub(in crate::stores) mod keys;
pub(in crate::stores) mod scripts;
mod sentinel;
mod servers;
pub(in crate::stores) mod session;
mod store;
mod topology;
pub(in crate::stores) mod wire;

use std::time::Duration;

pub use store::Redis;

use crate::property::{Properties, Property};
use crate::store::{Guarantees, LeaseScope};

/// Below this a garbage collection, a `BGSAVE` or one retransmitted packet costs the lease.
const MIN_TTL: Duration = Duration::from_millis(100);

/// What it promises; the page above says under which conditions, and what not.
pub(super) const PROPERTIES: Properties = Properties::of(&[
    Property::Processes,
    Property::Machines,
    Property::ForeignClients,
    Property::Line,
    Property::Wakes,
    Property::Counting,
    Property::Records,
    Property::FencesSurviveCrash,
    Property::FencesSurviveDataLoss,
    Property::FencesSurviveFailover,
]);

/// What the store can do, and how it wants to be used.
const GUARANTEES: Guarantees = Guarantees {
    properties: PROPERTIES,
    min_ttl: MIN_TTL,
    lapse_delay: Duration::ZERO,
    lease: LeaseScope::Claim,
    renew_batch: servers::RENEW_BATCH,
    recheck: Duration::from_secs(2),
};
