//! etcd.

mod browse;
mod claims;
mod config;
mod enter;
mod judge;
mod layout;
mod leave;
mod procedure;
mod proto;
mod session;
mod sessions;
mod shared;
mod status;
mod store;
mod txn;
mod watch;
mod wire;

use std::sync::Arc;

use crate::error::Result;

/// A handle to an etcd cluster. See the [module's documentation](self).
pub struct Etcd(Arc<shared::Shared>);

impl Etcd {
    /// The schemes of its URLs.
    pub(super) const SCHEMES: [&'static str; 2] = ["etcd", "etcds"];

    /// The cluster that a URL names. Parses and checks; no IO happens before the store is used.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) when the URL cannot be read.
    pub(super) fn new(scheme: &str, rest: &str) -> Result<Self> {
        Ok(Self(shared::Shared::new(config::Config::read(scheme, rest)?)))
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.0.watches.close();
    }
}
