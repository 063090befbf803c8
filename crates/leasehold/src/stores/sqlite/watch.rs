//! Learning of the death of those ahead, without asking again and again: a thread for each process
//! that is waited for, asleep in the kernel until that process ends.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use leasehold_core::ClaimId;

use super::peers::Directory;
use crate::stores::mailbox::Mailbox;

/// More processes than this at a time are left to the waiters' rechecks.
const MOST: usize = 64;

/// Who waits for the end of whom. A thread that nobody needs any more stays asleep until its peer
/// ends: the kernel offers no way to call it back.
#[derive(Debug, Default)]
pub(super) struct Watches {
    waiting: Mutex<HashMap<String, HashSet<ClaimId>>>,
}

impl Watches {
    /// Tells `claim` when one of `peers` ends.
    pub(super) fn watch(
        self: &Arc<Self>,
        claim: ClaimId,
        peers: Vec<String>,
        directory: &Arc<Directory>,
        mailbox: &Arc<Mailbox>,
    ) {
        for peer in peers {
            let mut waiting = self.lock();
            if let Some(claims) = waiting.get_mut(&peer) {
                claims.insert(claim);
                continue;
            }
            if waiting.len() >= MOST {
                continue;
            }
            waiting.insert(peer.clone(), HashSet::from([claim]));
            drop(waiting);
            let (watches, directory) = (Arc::clone(self), Arc::clone(directory));
            let (mailbox, name) = (Arc::clone(mailbox), peer.clone());
            let spawned = thread::Builder::new()
                .name("leasehold-peer".into())
                .stack_size(128 * 1024)
                .spawn(move || {
                    let ended = directory.wait_for_end(&name);
                    let claims = watches.lock().remove(&name).unwrap_or_default();
                    if ended {
                        claims.into_iter().for_each(|claim| mailbox.tell(claim, None));
                    }
                });
            if let Err(error) = spawned {
                tracing::warn!(%error, "no thread to watch a process with; waiters poll");
                self.lock().remove(&peer);
            }
        }
    }

    /// Tells a claim nothing more.
    pub(super) fn forget(&self, claim: ClaimId) {
        for claims in self.lock().values_mut() {
            claims.remove(&claim);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, HashSet<ClaimId>>> {
        // Nothing panics while this lock is held.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
