//! etcd, 3.4 or later.
//!
//! ```text
//! etcd://[USER:PASSWORD@]HOST[:2379][,HOST…][?timeout=3s]
//! etcds://…[?ca=FILE][&cert=FILE&key=FILE]           the same by TLS
//! ```
//!
//! | option | default | meaning |
//! |---|---|---|
//! | `timeout` | `3s` | how long one request may take at one member, 10 ms to 60 s; then the next is asked |
//! | `ca` | the system's authorities | PEM file of the authority that signed the servers' certificates |
//! | `cert`, `key` | none | PEM files of the client's certificate and its key |
//!
//! Name several members: a request goes to one of them, and to the next when that one fails. With
//! a user, each handle authenticates when it first has to, and again when its token is refused.
//!
//! # How it works
//!
//! A session is a lease of the server, which all its claims share. A claim on `K` is the key
//! `K/<lease>-<claim>`, and whoever's key was created first is first in line. Entering is one
//! transaction: it holds at once if nobody is there, else it joins the line and returns it.
//! Leaving deletes the key. So an uncontended pair is two requests and two commits, however many
//! claims there are; renewing a session is one keep-alive and one roll call per hundred claims
//! (with more than a thousand, at each third renewal only, unless somebody touched the session).
//!
//! Whoever waits watches the key right ahead of its own, on one stream for all. The message that
//! it was deleted is the grant where it had held, with the message's revision as the fence, and
//! no request lies between. (Where the one ahead was not yet seen to hold, because it only waited,
//! held for less than a round trip or is not of leasehold, the claim looks once.) Each grant to
//! a waiter is then written into its key, which costs one more commit, off the path of the grant.
//! A waiter of a semaphore watches as many of the nearest claims as it has to, or all of them
//! when that is more than sixteen; its fence is the revision of a write of its own.
//!
//! A hold is amended by writing its key anew. Who waits for units hears of every such writing of
//! the keys that it watches, and looks again when there are fewer units, not when there is another
//! note. A claim that is new and has another limit than the line withdraws; it was there for a
//! round trip.
//!
//! The record of `K` is the key `leasehold:record:K` (with `%2F` for each slash of `K`, and `%25`
//! for each `%`), which has no slash and so is in no lock's way. Its version is the revision that
//! wrote it. Reading is one request, and so is writing what was read; under a hold, two that run
//! at once come first. The keys have leases of their own, and many share one: a record is kept for
//! its time at least, and five times as long and a few requests' timeouts at most. Its leases
//! stay when the program ends.
//!
//! # Together with others
//!
//! A key `K` excludes, both ways, `etcdctl lock K`, `concurrency.Mutex` of the Go client and the
//! server's `v3lock` service under the name `K`; `ETCD_LOCK_REV` and our fences are of one order.
//! So do elections: `etcdctl elect K PROPOSAL`, `concurrency.Election` and `v3election`. Their
//! proposals are shown as notes. `etcdctl elect -l K` shows the value of our leader's key, which
//! is JSON with its note in it (`"note":"10.0.0.7:8080"`), because it also says who it is and what
//! it claims: a program that takes the leader's value for an address has to read that.
//!
//! A foreign contender counts as the whole limit of a semaphore. Any key `K/x` is a contender: do
//! not keep data right below the name of a lock. (Data further down, `K/x/y`, do not matter to
//! leasehold, but the recipes of others wait for them too, and every request has to read past
//! them.)
//!
//! To look at the locks: `etcdctl get --prefix K/ --sort-by=CREATE`. A user needs `readwrite` on
//! the prefixes of the locks, on `leasehold:session:` and, for jobs and limiters, on
//! `leasehold:record:`.
//!
//! # What it promises
//!
//! - First come, first served; mutexes, semaphores and readers and writers.
//! - Nothing that was acknowledged is lost while most members keep their data: grants are decided
//!   by consensus. Without a quorum nothing is granted and nothing renewed; a holder's guard is
//!   lost at its own deadline, by its own clock.
//! - Fences grow through everything that leaves the cluster its data: they are revisions.
//! - A request that was abandoned, and arrives after its claim was left, enters nothing: leaving
//!   changes the session's key, and entering depends on it.
//! - TTLs are rounded up to whole seconds, at least 2. After a holder died, the next one holds
//!   within the TTL and about a second; and up to one TTL later where the leader changed
//!   meanwhile, because a new leader begins all leases anew.
//!
//! # What it does not promise
//!
//! - **A keep-alive does not pass through consensus** (etcd#15247). A leader that was deposed and
//!   has not noticed may acknowledge a renewal while its successor lets the lease lapse. Then two
//!   hold for up to a TTL, and only the fence tells them apart: check it where it matters.
//! - **A time of its own**: it shows no clock, so a reading of a record tells none.
//! - **A cluster that is restored from a backup counts from the backup's revision**: fences and the
//!   versions of records fall back. So they do when a cluster is made anew. `etcdutl snapshot restore --bump-revision`
//!   (3.6) is for that.
//! - The lease runs by the leader's clock. The drift margin covers clocks that run at different
//!   rates, not one that stands still.
//! - Who deletes a *waiter's* key by hand (not by `revoke`) and is followed by a release within
//!   moments, can have two told of a grant under one fence, until the write that follows
//!   each grant finds the key gone: one round trip later the session is told to look.
//! - On servers that do not count what nested transactions write, entering is not stopped by
//!   a database that reached its quota; opening a session is.

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
mod txn;
mod watch;
mod wire;

use std::sync::Arc;

use leasehold_core::{Claim, SessionId};

use self::layout::LeaseId;
use crate::error::Result;

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
