#![doc = include_str!("../etcd.md")]

mod browse;
mod claims;
mod config;
mod enter;
mod examine;
mod judge;
mod layout;
mod leave;
mod procedure;
mod proto;
mod session;
mod sessions;
mod shared;
mod store;
mod txn;
mod watch;
mod wire;

use std::sync::Arc;

use crate::error::Result;
use crate::property::{Properties, Property};

/// What it promises; the page above says under which conditions, and what not.
pub(super) const PROPERTIES: Properties = Properties::of(&[
    Property::Processes,
    Property::Machines,
    Property::ForeignClients,
    Property::Line,
    Property::Wakes,
    Property::Counting,
    Property::SurvivesCrash,
    Property::SurvivesPowerLoss,
    Property::SurvivesMemberLoss,
    Property::FencesSurviveCrash,
    Property::FencesSurviveFailover,
]);

/// A handle to an etcd cluster. See the [module's documentation](self).
pub struct Etcd(Arc<shared::Shared>);

impl Etcd {
    /// The cluster that `url` names. Parses and checks; no IO happens before the store is used.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) for a URL that cannot be read.
    pub fn new(url: &str) -> Result<Self> {
        Ok(Self(shared::Shared::new(config::Config::parse(url)?)))
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.0.watches.close();
    }
}
