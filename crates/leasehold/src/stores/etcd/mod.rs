#![doc = include_str!("../etcd.md")]

mod browse;
mod claims;
mod config;
mod enter;
mod examine;
mod hold;
mod judge;
mod layout;
mod leave;
mod procedure;
mod proto;
mod records;
mod session;
mod sessions;
mod shared;
mod shelves;
mod store;
mod together;
mod txn;
mod watch;
mod wire;

use std::sync::Arc;

use leasehold_core::{Claim, SessionId};

use self::layout::LeaseId;
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
    Property::Records,
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

    /// The key of a claim, if its session is one of this handle.
    pub(crate) fn key_of_claim(&self, session: &SessionId, claim: &Claim) -> Option<String> {
        let lease = LeaseId::of(session).filter(|lease| self.0.sessions.is_known(*lease))?;
        String::from_utf8(lease.claim_key(&claim.key, &claim.id)).ok()
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.0.watches.close();
    }
}
