//! What can be done with a hold besides ending it: changing it in place, and proving it.

use leasehold_core::{Claim, SessionId};

use super::judge::{self, Standing};
use super::layout::{Contender, Granted, LeaseId};
use super::procedure::{RANGE, TXN};
use super::proto::Operand::{Create, Mod};
use super::proto::Relation;
use super::shared::Shared;
use super::txn;
use crate::error::{ErrorKind, Result};

/// How often a request is made again because others changed the same keys meanwhile.
pub(super) const ROUNDS: u32 = 32;
const AMEND: &str = "amend the hold of";

/// A claim's key while it holds: it does until that key is deleted.
pub(super) struct Hold {
    pub(super) contender: Contender,
    granted: Granted,
}

impl Shared {
    /// Gives a hold another note and fewer units. Whoever waits for them watches the claim's key.
    pub(super) async fn amend(&self, session: &SessionId, claim: &Claim) -> Result<bool> {
        let Some(lease) = LeaseId::of(session) else { return Ok(false) };
        self.rewrite(lease, claim).await.map_err(|error| error.about(&claim.key))
    }

    async fn rewrite(&self, lease: LeaseId, claim: &Claim) -> Result<bool> {
        for _ in 0..ROUNDS {
            let Some(Hold { contender, granted }) = self.hold(AMEND, lease, claim).await? else {
                return Ok(false);
            };
            let Some(label) = &contender.label else {
                let detail = "a newer leasehold wrote the claim; amend it with that one";
                return Err(self.wire.error(ErrorKind::Corrupt, AMEND, detail));
            };
            let amended = label.amended(claim, granted);
            if amended == *label {
                return Ok(true);
            }
            let own = &contender.key;
            let same = txn::compare(own, Relation::Equal, Create(contender.created));
            let untouched = txn::compare(own, Relation::Equal, Mod(contender.changed));
            let write = txn::rewrite(own, amended.to_bytes());
            let request = txn::txn(vec![same, untouched], vec![write], Vec::new());
            if self.wire.call(AMEND, &TXN, request).await?.body.succeeded {
                return Ok(true);
            }
        }
        let detail = "others change the hold faster than it can be amended; try again";
        Err(self.wire.error(ErrorKind::Unavailable, AMEND, detail).outcome_unknown())
    }

    /// The hold of a session's claim; `None` if it does not hold.
    pub(super) async fn hold(
        &self,
        attempt: &'static str,
        lease: LeaseId,
        claim: &Claim,
    ) -> Result<Option<Hold>> {
        let own = lease.claim_key(&claim.key, &claim.id);
        let found = self.wire.call(attempt, &RANGE, txn::get(&own)).await?.body.first();
        let Some(contender) = found.and_then(|kv| Contender::read(&claim.key, kv)) else {
            return Ok(None);
        };
        let told = self.claims.fence(claim.id, contender.created);
        if let Some(fence) = told.or(contender.fence()) {
            return Ok(Some(Hold { contender, granted: Granted::At(fence.get()) }));
        }
        // Its turn may have come without anybody having asked.
        let line = self.line(attempt, &claim.key).await?;
        let before = |other: &Contender| other.created < contender.created;
        let ahead: Vec<Contender> = line.into_iter().filter(before).collect();
        let fits = judge::judge(&ahead, contender.share()) == Standing::Fits;
        Ok(fits.then_some(Hold { contender, granted: Granted::Here }))
    }
}
