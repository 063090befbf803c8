//! etcd: a transaction that is guarded by the hold itself.
//!
//! Where what the lock protects lives in the etcd cluster of the lock, no fence has to be kept: the
//! key of the claim *is* the hold. etcd deletes it in the step that ends the hold (a release, the end
//! of the lease, a revocation), and nobody is granted before. A transaction that compares it is
//! carried out under the hold or not at all, whatever the writer's clock says.
//!
//! ```no_run
//! # leasehold::doc_test(async {
//! use std::sync::Arc;
//!
//! use leasehold::Client;
//! use leasehold::fence::etcd;
//! use leasehold::stores::Etcd;
//!
//! let store = Arc::new(Etcd::new("etcd://localhost")?);
//! let client = Client::builder().shared_store(store.clone()).build()?;
//! let guard = client.mutex("jobs/42")?.lock().await?;
//! let hold = etcd::hold(&store, &guard)?;
//! // With any client of etcd, as in `etcdctl txn`:
//! //     create("jobs/42/694d…-07f3…") > "0"      hold.key, hold.after
//! //     create("jobs/42/694d…-07f3…") < "1235"   hold.key, hold.before
//! //
//! //     put results/42 done
//! # drop(hold);
//! # Ok(()) });
//! ```
//!
//! The compared revision is that of the key's creation, because others of leasehold's requests
//! change its value. Give the same compares to every transaction that writes what the lock
//! protects. They need permission to read the key.

use leasehold_core::Fence;

use crate::error::{Error, ErrorKind, Result};
use crate::guard::Guard;
use crate::stores::etcd::Etcd;

/// What a transaction compares to be carried out under a hold only: the `create_revision` of `key`
/// is greater than `after` and smaller than `before`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// The key of the claim: there as long as it holds.
    pub key: String,
    /// 0: the key is there.
    pub after: i64,
    /// One more than the fence: the key was made for this grant, not by anybody later.
    pub before: i64,
    /// The fence of the grant.
    pub fence: Fence,
}

/// What to compare. Ask for it once, when the lock was granted; no IO happens.
///
/// # Errors
///
/// [`ErrorKind::Lost`] when the guard knows that its hold is lost, [`ErrorKind::Invalid`] when it
/// is of another store handle.
pub fn hold(store: &Etcd, guard: &Guard) -> Result<Hold> {
    guard.check()?;
    let (session, claim) = guard.claim();
    let key = store.key_of_claim(session, claim);
    let before = i64::try_from(guard.fence().get()).ok().and_then(|fence| fence.checked_add(1));
    if let (Some(key), Some(before)) = (key, before) {
        return Ok(Hold { key, after: 0, before, fence: guard.fence() });
    }
    let detail = "the guard is of a client that does not use this store handle";
    Err(Error::new(ErrorKind::Invalid, "name the hold on", detail).about(guard.key()))
}
