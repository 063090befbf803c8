//! What the store's methods and the task of its watches share.

use std::sync::Arc;
use std::time::Duration;

use leasehold_core::{Claim, Fence, Place, SessionId};
use tokio::sync::OnceCell;

use super::claims::Claims;
use super::config::Config;
use super::judge;
use super::layout::{Granted, Label, LeaseId};
use super::procedure::TXN;
use super::proto::Operand::{Create, Mod};
use super::proto::Relation;
use super::sessions::Sessions;
use super::shelves::Shelves;
use super::txn;
use super::watch::{Listener, Purpose, Seen, Watches};
use super::wire::Wire;
use crate::random;
use crate::stores::mailbox::Mailbox;

/// How often a grant is tried to be written down, and the pause between: nobody waits for it.
const MARKS: u32 = 5;
const MARK_PAUSE: Duration = Duration::from_millis(200);

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) wire: Arc<Wire>,
    pub(super) watches: Arc<Watches>,
    pub(super) mailbox: Mailbox,
    pub(super) claims: Claims,
    pub(super) sessions: Sessions,
    pub(super) shelves: Shelves,
    /// Whether the server's version was checked.
    pub(super) checked: OnceCell<()>,
    /// Tells this handle's own changes of a session's key from those of others.
    nonce: OnceCell<String>,
}

impl Shared {
    pub(super) fn new(config: Config) -> Arc<Self> {
        Arc::new(Self {
            wire: Arc::new(Wire::new(config)),
            watches: Arc::default(),
            mailbox: Mailbox::default(),
            claims: Claims::default(),
            sessions: Sessions::default(),
            shelves: Shelves::default(),
            checked: OnceCell::new(),
            nonce: OnceCell::new(),
        })
    }

    /// What this handle writes into a session's key.
    pub(super) async fn signature(&self) -> Vec<u8> {
        let draw = || async { random::token().unwrap_or_default() };
        let nonce = self.nonce.get_or_init(draw).await;
        format!(r#"{{"leasehold":1,"by":"{nonce}"}}"#).into_bytes()
    }

    fn is_ours(&self, value: &[u8]) -> bool {
        let nonce = self.nonce.get().filter(|nonce| !nonce.is_empty());
        let text = std::str::from_utf8(value).unwrap_or_default();
        nonce.is_some_and(|nonce| text.contains(nonce.as_str()))
    }

    /// Forgets a claim that ended.
    pub(super) fn forget(&self, claim: leasehold_core::ClaimId) {
        self.watches.cancel(self.claims.forget(claim));
        self.mailbox.forget(claim);
    }

    /// Forgets a session that ended, with its claims.
    pub(super) fn forget_session(&self, lease: LeaseId, session: &SessionId) {
        let (claims, mut watches) = self.claims.forget_all(lease);
        watches.extend(self.sessions.forget(lease));
        self.watches.cancel(watches);
        for claim in claims {
            self.mailbox.forget(claim);
        }
        self.mailbox.forget_session(session);
    }

    /// Writes down, off the path of the grant, under which fence a claim holds: so that others
    /// see it, that the next in line need not look, and that it is certain the claim was there.
    pub(super) fn mark_later(
        self: &Arc<Self>,
        session: SessionId,
        claim: Arc<Claim>,
        created: i64,
        fence: Fence,
    ) {
        let shared = Arc::clone(self);
        tokio::spawn(async move {
            for _ in 0..MARKS {
                if shared.claims.fence(claim.id, created).is_none() {
                    return;
                }
                if shared.mark(&session, &claim, created, fence).await {
                    return;
                }
                tokio::time::sleep(MARK_PAUSE).await;
            }
        });
    }

    /// One attempt of that; `false` if its outcome is not known.
    async fn mark(&self, session: &SessionId, claim: &Claim, created: i64, fence: Fence) -> bool {
        let Some(lease) = LeaseId::of(session) else { return true };
        let own = lease.claim_key(&claim.key, &claim.id);
        let owner = self.sessions.owner(lease);
        let label = Label::new(owner.as_str(), claim, Some(Granted::At(fence.get())));
        let untouched = txn::compare(&own, Relation::Equal, Mod(created));
        let same = txn::compare(&own, Relation::Equal, Create(created));
        let request = txn::txn(
            vec![same, untouched],
            vec![txn::rewrite(&own, label.to_bytes())],
            vec![super::proto::Request::Range(txn::get(&own))],
        );
        let Ok(reply) = self.wire.call("mark the claim as granted", &TXN, request).await else {
            return false;
        };
        let marked = reply.body.succeeded
            || reply
                .body
                .ranges()
                .any(|found| found.kvs.first().is_some_and(|kv| kv.create_revision == created));
        // Released meanwhile is one thing; ended by somebody else, another.
        if !marked && self.claims.fence(claim.id, created).is_some() {
            self.sessions.suspect(lease);
            self.mailbox.disturb(session);
        }
        true
    }

    fn session_changed(&self, lease: LeaseId, seen: &Seen) {
        if let Seen::Put { now, .. } = seen {
            self.sessions.advance(lease, now.mod_revision);
            if self.is_ours(&now.value) {
                return;
            }
        }
        self.sessions.suspect(lease);
        self.mailbox.disturb(&lease.session());
    }

    fn contender_ended(
        self: &Arc<Self>,
        session: &SessionId,
        claim: &Arc<Claim>,
        created: i64,
        grant: Option<Place>,
    ) {
        self.watches.cancel(self.claims.unwatch(claim.id));
        // Where somebody touched the session, the claim itself may have been ended: it looks.
        let certain = LeaseId::of(session).is_some_and(|lease| !self.sessions.is_suspect(lease));
        let Some(Place::Held(fence)) = grant.filter(|_| certain) else {
            self.mailbox.tell(claim.id, None);
            return;
        };
        if let Some((fence, first)) = self.claims.grant(claim.id, created, fence) {
            self.mailbox.tell(claim.id, Some(Place::Held(fence)));
            if first {
                self.mark_later(session.clone(), Arc::clone(claim), created, fence);
            }
        }
    }
}

impl Listener for Shared {
    fn seen(self: Arc<Self>, purpose: &Purpose, seen: Seen) {
        match (purpose, seen) {
            (Purpose::Session(lease), seen) => self.session_changed(*lease, &seen),
            (Purpose::Turn { session, claim, created, .. }, Seen::Put { now, before }) => {
                if judge::amended(&claim.key, before, now) {
                    self.contender_ended(session, claim, *created, None);
                }
            }
            (
                Purpose::Turn { session, claim, created, first },
                Seen::Deleted { revision, before },
            ) => {
                let grant =
                    first.and_then(|first| judge::ended(&claim.key, first, revision, before));
                self.contender_ended(session, claim, *created, grant);
            }
            (Purpose::Turn { session, claim, created, .. }, Seen::Gap) => {
                self.contender_ended(session, claim, *created, None);
            }
        }
    }
}
