//! What this handle knows of its sessions and claims, and where the server's messages go.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use leasehold_core::{Claim, ClaimId, Fence, Key, Moment, Place, SessionId};

use super::connection::Listener;
use super::keys;
use super::session::Session;
use crate::stores::mailbox::Mailbox;

/// How many closed sessions are remembered, so that a late `enter` cannot use one.
const CLOSED: usize = 256;

/// The beginning of the names of the channels.
const CHANNEL: &str = "leasehold:wake:";

/// Sessions, claims and wake-ups of one store handle.
#[derive(Debug, Default)]
pub(in crate::stores) struct Inbox {
    pub(in crate::stores) mailbox: Mailbox,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The sessions to hear of, by what their channels are called.
    heard: HashMap<String, SessionId>,
    closed: VecDeque<SessionId>,
    claims: HashMap<ClaimId, Known>,
    /// How many claims each channel is listened to for.
    wakes: HashMap<String, usize>,
}

/// What this handle knows of a claim that it asked for.
#[derive(Debug)]
struct Known {
    session: SessionId,
    key: Key,
    standing: Standing,
    /// The channel that is listened to for this claim alone, or for those in its slot.
    wake: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// Asked for, and not answered yet; or waiting, and to be asked again at the moment.
    Waiting {
        look: Option<Moment>,
    },
    Held,
}

impl Inbox {
    /// Begins to hear of a session.
    pub(in crate::stores) fn hear(&self, id: &SessionId, session: &Session) {
        self.state().heard.insert(session.channel().to_owned(), id.clone());
        self.mailbox.expect_session(id);
    }

    /// The session is closed from now on. Whether it was heard of.
    pub(in crate::stores) fn close(&self, id: &SessionId, session: &Session) -> bool {
        let mut state = self.state();
        if !state.closed.contains(id) {
            if state.closed.len() == CLOSED {
                state.closed.pop_front();
            }
            state.closed.push_back(id.clone());
        }
        let heard = state.heard.remove(session.channel()).is_some();
        drop(state);
        self.mailbox.forget_session(id);
        heard
    }

    /// The claims of a session that were asked for and not left.
    pub(in crate::stores) fn claims_of(&self, id: &SessionId) -> Vec<(ClaimId, Key)> {
        let state = self.state();
        let its_own = state.claims.iter().filter(|(_, known)| known.session == *id);
        its_own.map(|(claim, known)| (*claim, known.key.clone())).collect()
    }

    pub(in crate::stores) fn is_closed(&self, id: &SessionId) -> bool {
        self.state().closed.contains(id)
    }

    /// Notes that a claim is about to be asked for. What it was told before is out of date then: a
    /// failover may have rewound it.
    pub(in crate::stores) fn expect(&self, session: &SessionId, claim: &Claim) {
        self.mailbox.forget(claim.id);
        self.mailbox.expect(claim.id);
        let standing = Standing::Waiting { look: None };
        let mut state = self.state();
        let wake = state.claims.remove(&claim.id).and_then(|known| known.wake);
        let known = Known { session: session.clone(), key: claim.key.clone(), standing, wake };
        state.claims.insert(claim.id, known);
    }

    /// Notes that a channel is listened to for a claim, besides that of its session.
    pub(super) fn woken_by(&self, claim: ClaimId, channel: &str) {
        let mut state = self.state();
        let State { claims, wakes, .. } = &mut *state;
        if let Some(known) = claims.get_mut(&claim)
            && known.wake.is_none()
        {
            known.wake = Some(channel.to_owned());
            *wakes.entry(channel.to_owned()).or_default() += 1;
        }
    }

    /// Notes that a claim holds, as its owner knows now.
    pub(super) fn holds(&self, claim: ClaimId) {
        if let Some(known) = self.state().claims.get_mut(&claim) {
            known.standing = Standing::Held;
        }
        self.mailbox.forget(claim);
    }

    /// Notes that a claim was answered that it waits. A grant that was told meanwhile is newer:
    /// the connection keeps the order, the tasks that read it do not.
    pub(super) fn waits(&self, claim: ClaimId, look: Moment) {
        if let Some(known) = self.state().claims.get_mut(&claim)
            && known.standing != Standing::Held
        {
            known.standing = Standing::Waiting { look: Some(look) };
        }
    }

    /// The claim is over. Returns the channel that nobody needs any more.
    pub(in crate::stores) fn forget(&self, claim: ClaimId) -> Option<String> {
        self.mailbox.forget(claim);
        let mut state = self.state();
        let channel = state.claims.remove(&claim)?.wake?;
        let count = state.wakes.get_mut(&channel)?;
        *count -= 1;
        if *count > 0 {
            return None;
        }
        state.wakes.remove(&channel);
        Some(channel)
    }

    pub(super) fn standing(&self, claim: ClaimId) -> Option<Standing> {
        self.state().claims.get(&claim).map(|known| known.standing)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while the lock is held.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Listener for Inbox {
    fn channels(&self) -> HashSet<String> {
        self.state().heard.keys().map(|channel| channel_name(channel)).collect()
    }

    fn message(&self, channel: &[u8], text: &[u8]) {
        let mut words = text.split(|byte| *byte == b' ');
        let (what, claim) = (words.next(), words.next().and_then(keys::claim));
        match (what, claim) {
            (Some(b"held"), Some(claim)) => {
                let fence = words.next().and_then(keys::number).map(Fence::new);
                if let (Some(known), Some(_)) = (self.state().claims.get_mut(&claim), fence) {
                    known.standing = Standing::Held;
                }
                self.mailbox.tell(claim, fence.map(Place::Held));
            }
            (Some(b"lost"), Some(claim)) => {
                self.mailbox.tell(claim, None);
                let session = std::str::from_utf8(channel)
                    .ok()
                    .and_then(|name| self.state().heard.get(session_in(name)?).cloned());
                if let Some(session) = session {
                    self.mailbox.disturb(&session);
                }
            }
            // Anybody may publish, and a newer version may know more words.
            _ => {}
        }
    }

    fn unsubscribed(&self, channel: &[u8]) {
        let state = self.state();
        if state.wakes.is_empty() {
            return;
        }
        for (claim, known) in &state.claims {
            if known.wake.as_ref().is_some_and(|wake| wake.as_bytes() == channel) {
                self.mailbox.tell(*claim, None);
            }
        }
    }

    fn ended(&self) {}

    fn reconnected(&self) {
        self.mailbox.tell_all();
    }
}

/// The name of a channel: `session` is what the session is called, in a cluster with the slot
/// before it that the channel is in.
pub(in crate::stores) fn channel_name(session: &str) -> String {
    format!("{CHANNEL}{session}")
}

/// What the session is called that a channel is for.
pub(super) fn session_in(channel: &str) -> Option<&str> {
    channel.strip_prefix(CHANNEL)?.rsplit(':').next()
}
