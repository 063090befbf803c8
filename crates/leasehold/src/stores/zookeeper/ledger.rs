//! What a session knows of its claims: their nodes, and which watch concerns whom.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use leasehold_core::{ClaimId, Fence, Place, SessionId};

use super::label;
use super::wire::Event;
use crate::stores::mailbox::Mailbox;

/// A claim's node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) path: String,
    pub(super) fence: Fence,
}

/// What is known of a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Seat {
    /// A node may have been asked for; whether it is there is not known.
    Doubtful,
    /// It has this node, and holds as far as is known.
    Known { node: Node, holds: bool },
}

#[derive(Debug)]
pub(super) struct Ledger {
    session: SessionId,
    mailbox: Arc<Mailbox>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    seats: HashMap<ClaimId, Seat>,
    /// The claims that were left, as long as it is not certain that they are gone.
    leaving: HashSet<ClaimId>,
    /// The claims that want to know of the end of a node, by its path. A watch fires once, and
    /// ends with its connection.
    watches: HashMap<String, HashSet<ClaimId>>,
    /// The same the other way round.
    watching: HashMap<ClaimId, HashMap<String, Watch>>,
    /// The nodes whose end grants a waiting claim: none but these stands in its way, and nobody
    /// can come ahead of it any more.
    deciding: HashMap<ClaimId, HashSet<String>>,
}

/// A claim's interest in a node.
#[derive(Debug, Clone, Copy)]
struct Watch {
    server: Server,
    /// The node claims no more units than this, and no more than its name says.
    units: u32,
}

/// What the server knows of a watch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Server {
    /// It was, or will be, asked to watch.
    Asked,
    /// It told of new data, and was asked to watch again.
    Told,
    Watches,
}

impl Default for Watch {
    fn default() -> Self {
        Self { server: Server::Asked, units: u32::MAX }
    }
}

impl State {
    fn forget(&mut self, claim: ClaimId) {
        self.seats.remove(&claim);
        self.leaving.remove(&claim);
        self.unwatch(claim);
    }

    fn unwatch(&mut self, claim: ClaimId) {
        self.deciding.remove(&claim);
        for path in self.watching.remove(&claim).unwrap_or_default().into_keys() {
            self.unlink(&path, claim);
        }
    }

    fn unlink(&mut self, path: &str, claim: ClaimId) {
        if let Some(claims) = self.watches.get_mut(path) {
            claims.remove(&claim);
            if claims.is_empty() {
                self.watches.remove(path);
            }
        }
    }

    fn unwatch_all(&mut self) {
        self.watches.clear();
        self.watching.clear();
        self.deciding.clear();
    }

    fn watches(&self, claim: ClaimId, path: &String) -> bool {
        let watch = self.watching.get(&claim).and_then(|paths| paths.get(path));
        watch.is_some_and(|watch| watch.server == Server::Watches)
    }
}

impl Ledger {
    pub(super) fn new(session: SessionId, mailbox: Arc<Mailbox>) -> Self {
        Self { session, mailbox, state: Mutex::default() }
    }

    pub(super) fn seat(&self, claim: ClaimId) -> Option<Seat> {
        self.state().seats.get(&claim).cloned()
    }

    /// A node is about to be asked for.
    pub(super) fn doubt(&self, claim: ClaimId) {
        self.state().seats.insert(claim, Seat::Doubtful);
    }

    pub(super) fn seated(&self, claim: ClaimId, node: Node) {
        self.state().seats.insert(claim, Seat::Known { node, holds: false });
    }

    /// The claim holds.
    pub(super) fn holds(&self, claim: ClaimId) {
        if let Some(Seat::Known { holds, .. }) = self.state().seats.get_mut(&claim) {
            *holds = true;
        }
    }

    /// The claim is to be left, and its end is no news any more. Should that fail, and the session
    /// live on because the servers were down for longer than it lasts (which starts its timeout
    /// anew), the next renewal makes up for it.
    pub(super) fn leaving(&self, claim: ClaimId) {
        let mut state = self.state();
        state.leaving.insert(claim);
        state.unwatch(claim);
    }

    /// Whether the claim was left, and may be there all the same.
    pub(super) fn is_leaving(&self, claim: ClaimId) -> bool {
        self.state().leaving.contains(&claim)
    }

    /// The claim enters.
    pub(super) fn entering(&self, claim: ClaimId) {
        self.state().leaving.remove(&claim);
    }

    /// The claim has no node, and none is on its way.
    pub(super) fn forget(&self, claim: ClaimId) {
        self.state().forget(claim);
    }

    /// Notes that the end of `path` concerns `claim`; `false` if the server watches it already.
    /// To be called before the watch is asked for.
    pub(super) fn watch(&self, path: &str, claim: ClaimId) -> bool {
        let mut state = self.state();
        state.watches.entry(path.to_owned()).or_default().insert(claim);
        let paths = state.watching.entry(claim).or_default();
        paths.entry(path.to_owned()).or_default().server != Server::Watches
    }

    /// The same for a watch whose answer nobody waits for: once asked for, it counts.
    pub(super) fn watch_unheard(&self, path: &str, claim: ClaimId) -> bool {
        let news = self.watch(path, claim);
        self.watched(path, claim, u32::MAX);
        news
    }

    /// The server watches the node, which claims no more than these units; unless it told meanwhile
    /// that the node is gone or has other data, or the connection broke.
    pub(super) fn watched(&self, path: &str, claim: ClaimId, units: u32) {
        if let Some(paths) = self.state().watching.get_mut(&claim)
            && let Some(watch) = paths.get_mut(path)
        {
            if watch.server == Server::Asked {
                watch.server = Server::Watches;
            }
            // Units only ever get fewer, so the least that was heard is the latest.
            watch.units = watch.units.min(units);
        }
    }

    /// The units that a node claims at most, if it is watched: that there are fewer will be told.
    pub(super) fn units(&self, path: &String, claim: ClaimId) -> Option<u32> {
        let state = self.state();
        let watch = state.watching.get(&claim)?.get(path)?;
        (watch.server == Server::Watches).then_some(watch.units)
    }

    /// There is no such node, and so no watch on it.
    pub(super) fn unwatched(&self, path: &str, claim: ClaimId) {
        let mut state = self.state();
        state.unlink(path, claim);
        if let Some(paths) = state.watching.get_mut(&claim) {
            paths.remove(path);
        }
    }

    /// The end of any of these grants the claim, as long as it and its own node are watched.
    pub(super) fn decided_by(&self, claim: ClaimId, paths: HashSet<String>) {
        let mut state = self.state();
        let Some(Seat::Known { node, .. }) = state.seats.get(&claim) else { return };
        // What has fired meanwhile was told already; the connection may also have broken.
        if state.watches(claim, &node.path) && paths.iter().all(|path| state.watches(claim, path)) {
            state.deciding.insert(claim, paths);
        }
    }

    /// Takes note of what the link tells. In the order of the server's transactions: that a node
    /// of ours ended is told before what came after it.
    pub(super) fn told(&self, event: Event) {
        match event {
            Event::Deleted(path) => self.deleted(&path),
            Event::Changed(path) => self.changed(&path),
            Event::Seen(path, data) => self.seen(&path, label::units(&data)),
            Event::Broken => self.state().unwatch_all(),
            Event::Mended => {
                // What was asked for in between may never have been sent. Everybody looks again.
                self.state().unwatch_all();
                self.tell_all();
            }
            Event::Ended => self.tell_all(),
        }
    }

    fn tell_all(&self) {
        for claim in self.state().seats.keys() {
            self.mailbox.tell(*claim, None);
        }
        self.mailbox.disturb(&self.session);
    }

    /// Until the node is watched again, its end may be told after what came later.
    fn changed(&self, path: &str) {
        let mut guard = self.state();
        let state = &mut *guard;
        for claim in state.watches.get(path).into_iter().flatten() {
            state.deciding.remove(claim);
            if let Some(watch) = state.watching.get_mut(claim).and_then(|paths| paths.get_mut(path))
            {
                watch.server = Server::Told;
            }
        }
    }

    /// Wakes those whom fewer units may let in; another note is nobody's business.
    fn seen(&self, path: &str, units: u32) {
        let mut guard = self.state();
        let state = &mut *guard;
        for claim in state.watches.get(path).into_iter().flatten() {
            let Some(watch) = state.watching.get_mut(claim).and_then(|paths| paths.get_mut(path))
            else {
                continue;
            };
            watch.server = Server::Watches;
            let fewer = units < watch.units;
            watch.units = watch.units.min(units);
            let own = matches!(state.seats.get(claim), Some(Seat::Known { node, .. }) if node.path == path);
            if fewer && !own {
                self.mailbox.tell(*claim, None);
            }
        }
    }

    fn deleted(&self, path: &str) {
        let mut state = self.state();
        for claim in state.watches.remove(path).unwrap_or_default() {
            if let Some(paths) = state.watching.get_mut(&claim) {
                paths.remove(path);
            }
            let granted = state.deciding.remove(&claim).is_some_and(|paths| paths.contains(path));
            match state.seats.get_mut(&claim) {
                Some(Seat::Known { node, .. }) if node.path == path => {
                    state.forget(claim);
                    self.mailbox.tell(claim, None);
                    self.mailbox.disturb(&self.session);
                }
                Some(Seat::Known { node, holds }) if granted => {
                    *holds = true;
                    self.mailbox.tell(claim, Some(Place::Held(node.fence)));
                }
                _ => self.mailbox.tell(claim, None),
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is locked, and every state in between is a valid one.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
