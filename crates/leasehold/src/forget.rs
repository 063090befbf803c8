//! An operator's way to begin anew: what is remembered of a key is forgotten.

use leasehold_core::Ahead;

use crate::error::{ErrorKind, Result};
use crate::job;
use crate::kept;
use crate::lock::{Attempt, Lock};
use crate::property::Property;

/// How forgetting went.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Forgotten {
    /// It was there, and is forgotten.
    Done,
    /// There was nothing.
    Nothing,
    /// Somebody holds the key or waits for it, and may need it: nothing was forgotten.
    Held(Ahead),
}

/// Forgets what the record of the lock's key says, under the lock.
pub(crate) async fn forget(lock: &Lock) -> Result<Forgotten> {
    const ATTEMPT: &str = "forget what is remembered of";
    let (handle, key) = (lock.handle(), lock.key());
    let nothing = kept::nothing().filter(|_| handle.store().guarantees().has(Property::Records));
    let Some(nothing) = nothing else {
        let detail = "this store keeps no records: there is nothing to forget";
        return Err(handle.error(ErrorKind::Unsupported, ATTEMPT, detail).about(key));
    };
    let forgotten = match kept::reading(handle, key).await?.written {
        Some(written) if !written.value.is_empty() => match lock.attempt().await? {
            Attempt::Refused(ahead) => return Ok(Forgotten::Held(ahead)),
            Attempt::Held(guard) => {
                guard.write(&nothing).await?;
                // At worst its TTL ends it: what was to be done is done.
                guard.release().await.ok();
                Forgotten::Done
            }
        },
        _ => Forgotten::Nothing,
    };
    job::unlist(handle, key).await?;
    Ok(forgotten)
}
