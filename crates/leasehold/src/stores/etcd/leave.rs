//! The end of a claim: left by its owner, or revoked by somebody else.

use std::sync::Arc;

use leasehold_core::line::Share;
use leasehold_core::{Claim, ClaimId, Key, Left, SessionId};

use super::claims::Ending;
use super::judge::{self, Standing};
use super::layout::{self, Contender, LeaseId};
use super::procedure::{DELETE, TXN};
use super::proto::Operand::Create;
use super::proto::{Relation, Request, TxnRequest};
use super::shared::Shared;
use super::txn;
use crate::error::Result;

const LEAVE: &str = "leave the line of";
const REVOKE: &str = "revoke a claim on";

impl Shared {
    pub(super) async fn leave(
        self: &Arc<Self>,
        session: &SessionId,
        claim: &Claim,
    ) -> Result<Left> {
        let Some(lease) = LeaseId::of(session) else { return Ok(Left::Gone) };
        let ending = self.claims.ending(claim.id);
        let waiting = ending.created.is_some() && ending.fence.is_none();
        let left = if ending.doubtful || waiting || !self.sessions.is_known(lease) {
            self.leave_looking(lease, claim, ending).await
        } else {
            self.leave_held(lease, claim).await
        };
        let left = left.map_err(|error| error.about(&claim.key))?;
        self.forget(claim.id);
        Ok(left)
    }

    /// A claim of which all is known: it holds, or is gone. Its key is its own, so deleting it
    /// ends nobody else's.
    async fn leave_held(&self, lease: LeaseId, claim: &Claim) -> Result<Left> {
        let own = lease.claim_key(&claim.key, &claim.id);
        let reply = self.wire.call(LEAVE, &DELETE, txn::delete(&own)).await?;
        Ok(if reply.body.deleted > 0 { Left::Released } else { Left::Gone })
    }

    /// A claim that may hold or wait, or may yet arrive: then changing the session's key makes
    /// what is on its way harmless. Under the session's lease it would never lapse by itself.
    async fn leave_looking(&self, lease: LeaseId, claim: &Claim, ending: Ending) -> Result<Left> {
        let own = lease.claim_key(&claim.key, &claim.id);
        let request = self.leaving(lease, claim, ending).await;
        let reply = self.wire.call(LEAVE, &TXN, request).await?.body;
        if ending.doubtful && reply.succeeded {
            self.sessions.advance(lease, reply.revision());
        }
        let (page, deletion) = reply.range_and_deletion();
        let Some(before) = deletion.prev_kvs.into_iter().next() else { return Ok(Left::Gone) };
        let known = ending.fence.filter(|_| ending.created == Some(before.create_revision));
        let marked = Contender::read(&claim.key, before).and_then(|own| own.fence());
        if known.or(marked).is_some() {
            return Ok(Left::Released);
        }
        let (ahead, own) = judge::place(&claim.key, page.kvs, &own);
        // Whoever is not on the first page has a whole page ahead.
        let fits = own.is_some() && judge::judge(&ahead, Share::from(claim)) == Standing::Fits;
        Ok(if fits { Left::Released } else { Left::Withdrawn })
    }

    async fn leaving(&self, lease: LeaseId, claim: &Claim, ending: Ending) -> TxnRequest {
        let own = lease.claim_key(&claim.key, &claim.id);
        let until = ending.created.unwrap_or_default();
        let look = Request::Range(txn::page(&layout::below(&claim.key), 0, until));
        let end = vec![look, Request::Delete(txn::delete(&own))];
        if !ending.doubtful {
            return txn::txn(Vec::new(), end, Vec::new());
        }
        let session = lease.session_key();
        let mut bump = end.clone();
        bump.push(txn::rewrite(&session, self.signature().await));
        txn::txn(vec![txn::present(&session)], bump, end)
    }

    /// Ends somebody's claim, and tells its session in the same step: its key changes, which also
    /// keeps a request of the session that is on its way from entering again unseen.
    pub(super) async fn revoke(&self, key: &Key, claim: ClaimId) -> Result<bool> {
        let line = self.line(REVOKE, key).await?;
        let Some(found) = line.into_iter().find(|contender| contender.claim == Some(claim)) else {
            return Ok(false);
        };
        let session = found.lease.session_key();
        let there = txn::compare(&found.key, Relation::Equal, Create(found.created));
        let end = Request::Delete(txn::delete(&found.key));
        let told = txn::txn(
            vec![txn::present(&session)],
            vec![end.clone(), txn::rewrite(&session, self.signature().await)],
            vec![end],
        );
        let request = txn::txn(vec![there], vec![Request::Txn(told)], Vec::new());
        let reply = self.wire.call(REVOKE, &TXN, request).await?.body;
        if self.sessions.is_known(found.lease) {
            // Our own change of the session's key is not news to the watch.
            self.sessions.suspect(found.lease);
            self.mailbox.disturb(&found.lease.session());
        }
        Ok(reply.succeeded)
    }
}
