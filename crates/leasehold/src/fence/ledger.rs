//! Where the greatest fences are kept for resources that cannot keep them themselves.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use futures::future::{BoxFuture, FutureExt as _};
use leasehold_core::Fence;

use crate::error::{Error, ErrorKind, Result};

/// The greatest fence that each resource has seen.
pub trait Ledger: fmt::Debug + Send + Sync + 'static {
    /// Accepts a fence that is not smaller than the greatest one that `resource` has seen, and takes
    /// note of it, in one step and before it answers.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves it open whether the fence was taken note of.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Stale`] for a smaller one. Any other error is no permission either.
    fn advance<'a>(&'a self, resource: &'a str, token: Fence) -> BoxFuture<'a, Result<()>>;
}

/// A ledger in memory: it forgets everything with its process.
///
/// After a restart every token is accepted once more, so it suits a resource that is lost with the
/// process too. It never forgets a resource to make room for another, because that would let a
/// stale writer in: at its limit, resources that it does not know are refused.
#[derive(Debug)]
pub struct MemoryLedger {
    limit: usize,
    greatest: Mutex<HashMap<String, Fence>>,
}

impl MemoryLedger {
    /// A ledger for as many resources as `limit`. One takes its name and about 50 bytes.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { limit, greatest: Mutex::default() }
    }
}

impl Ledger for MemoryLedger {
    fn advance<'a>(&'a self, resource: &'a str, token: Fence) -> BoxFuture<'a, Result<()>> {
        async move {
            // No code that can panic runs while it is held.
            let mut greatest = self.greatest.lock().unwrap_or_else(PoisonError::into_inner);
            token.check(resource, greatest.get(resource).copied()).map_err(Error::from)?;
            if let Some(known) = greatest.get_mut(resource) {
                *known = token;
            } else if greatest.len() < self.limit {
                greatest.insert(resource.to_owned(), token);
            } else {
                let detail = format!(
                    "the ledger keeps {} resources in memory, and this is one more; raise its \
                     limit, or keep it in a file",
                    self.limit
                );
                return Err(Error::new(ErrorKind::Full, "take note of a fence", detail));
            }
            Ok(())
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn at_its_limit_it_forgets_nobody() {
        let ledger = MemoryLedger::new(1);
        ledger.advance("a", Fence::new(5)).await.unwrap();
        let error = ledger.advance("b", Fence::new(9)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Full);
        assert_eq!(ledger.advance("a", Fence::new(4)).await.unwrap_err().kind(), ErrorKind::Stale);
        ledger.advance("a", Fence::new(5)).await.unwrap();
    }
}
