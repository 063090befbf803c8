//! ZooKeeper: a transaction that is guarded by the hold itself.
//!
//! Where what the lock protects lives in the ensemble of the lock, no fence has to be kept: the node
//! of the claim *is* the hold. The ensemble deletes it when the session ends, nobody is granted
//! before, and no other node ever has its name. A `multi` with a `check` of that node is carried
//! out under the hold or not at all, whatever the writer's clock says.
//!
//! ```no_run
//! # leasehold::doc_test(async {
//! use leasehold::Client;
//! use leasehold::fence::zookeeper;
//! use leasehold::stores::ZooKeeper;
//!
//! let store = ZooKeeper::new("zookeeper://localhost")?;
//! let client = Client::builder().store(store.clone()).build()?;
//! let guard = client.mutex("jobs/42")?.lock().await?;
//! let node = zookeeper::hold_node(&store, &guard)?;
//! // With any client of ZooKeeper, as in kazoo:
//! //     transaction = client.transaction()
//! //     transaction.check(node, -1)
//! //     transaction.set_data("/results/42", b"done")
//! //     transaction.commit()     # [NoNodeError, …] when the hold is over
//! # drop(node);
//! # Ok(()) });
//! ```
//!
//! Give the same check to every transaction that writes what the lock protects. A `check` needs
//! permission to read the node.

use crate::error::{Error, ErrorKind, Result};
use crate::guard::Guard;
use crate::stores::zookeeper::ZooKeeper;

/// The path of the node that is there as long as the hold is, the chroot included; any version of
/// it will do (−1). Ask for it when the lock was granted, and again when a writer became a reader
/// (`RwLock` guards); no IO happens.
///
/// # Errors
///
/// [`ErrorKind::Lost`] when the guard knows that its hold is lost, [`ErrorKind::Invalid`] when it
/// is of another store handle.
pub fn hold_node(store: &ZooKeeper, guard: &Guard) -> Result<String> {
    guard.check()?;
    let (session, claim) = guard.claim();
    store.node_of_claim(session, claim).ok_or_else(|| {
        let detail = "the guard is of a client that does not use this store handle, or its \
                      session has just ended";
        Error::new(ErrorKind::Invalid, "name the hold on", detail).about(guard.key())
    })
}
