//! What this handle knows of its claims, and where the servers' messages go.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use leasehold_core::backoff::Backoff;
use leasehold_core::quorum::{Renewal, majority};
use leasehold_core::{ClaimId, Key, Moment};

use super::view::View;
use crate::clock;
use crate::random;
use crate::stores::redis::connection::Listener;
use crate::stores::redis::inbox::Inbox as Sessions;

/// The beginning of the names of the channels that tell of a key's release.
const CHANNEL: &str = "leasehold:wake:free:";

/// How often a key is asked for that a stranger holds: nobody tells of its release.
const POLL: Duration = Duration::from_millis(50);

/// The waits after a split vote, in which nobody may have got the key, so that nobody tells of it.
const SPLIT: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(500));

/// Sessions, claims and wake-ups of one store handle.
#[derive(Debug)]
pub(super) struct Inbox {
    pub(super) sessions: Sessions,
    servers: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    keys: HashMap<Key, Queue>,
    waits: HashMap<ClaimId, Waiting>,
    holds: HashMap<ClaimId, Hold>,
}

/// The claims of this handle that wait for a key.
#[derive(Debug, Default)]
struct Queue {
    /// The next one to be woken comes first. One at a time: all at once would split the vote.
    claims: VecDeque<ClaimId>,
    /// Which hold the servers tell of, and which servers have.
    freed: Vec<u8>,
    told: HashSet<usize>,
}

/// When a waiting claim asks again, if nobody tells it anything.
#[derive(Debug)]
struct Waiting {
    look: Moment,
    splits: Backoff,
}

/// A claim that this handle knows to hold.
#[derive(Debug, Clone)]
pub(super) struct Hold {
    pub(super) renewal: Renewal,
    /// The attempt that it was granted to.
    pub(super) attempt: u64,
}

/// What hears one server.
#[derive(Debug)]
pub(super) struct Ear {
    pub(super) server: usize,
    pub(super) inbox: Arc<Inbox>,
}

pub(super) fn channel_of(key: &Key) -> String {
    format!("{CHANNEL}{key}")
}

impl Inbox {
    pub(super) fn new(servers: usize) -> Self {
        Self { sessions: Sessions::default(), servers, state: Mutex::default() }
    }

    /// Puts a claim among those that are told when the key is released. Whether it is the first, so
    /// that the servers have yet to be asked to tell.
    pub(super) fn join(&self, key: &Key, claim: ClaimId) -> bool {
        let mut state = self.state();
        let queue = state.keys.entry(key.clone()).or_default();
        let first = queue.claims.is_empty();
        if !queue.claims.contains(&claim) {
            queue.claims.push_back(claim);
        }
        first
    }

    /// Whether somebody waits for the key already.
    pub(super) fn is_awaited(&self, key: &Key) -> bool {
        self.state().keys.contains_key(key)
    }

    /// The claim waits no more. Whether it was the last one that waited for the key.
    pub(super) fn part(&self, key: &Key, claim: ClaimId) -> bool {
        let mut state = self.state();
        state.waits.remove(&claim);
        let Some(queue) = state.keys.get_mut(key) else { return false };
        queue.claims.retain(|waiting| *waiting != claim);
        let last = queue.claims.is_empty();
        if last {
            state.keys.remove(key);
        }
        last
    }

    /// Takes note of what a waiting claim was told.
    pub(super) fn waits(&self, claim: ClaimId, view: &View) {
        let holder = view.holder();
        let mut state = self.state();
        let waiting = state.waits.entry(claim).or_insert_with(|| Waiting {
            look: Moment::ORIGIN,
            splits: Backoff::new(SPLIT.0, SPLIT.1, random::seed().unwrap_or_default()),
        });
        let pause = match holder {
            None => waiting.splits.next_wait(),
            Some(holder) => {
                waiting.splits.reset();
                // A key still exists in the millisecond that it lapses in.
                let lapse = holder.left.map(|left| left.saturating_add(Duration::from_millis(1)));
                let poll = (holder.claim.is_none() || lapse.is_none()).then_some(POLL);
                lapse.into_iter().chain(poll).min().unwrap_or(POLL)
            }
        };
        waiting.look = clock::now() + pause;
    }

    /// How long a waiting claim sleeps at most; not at all if it is not known to wait.
    pub(super) fn look_in(&self, claim: ClaimId) -> Duration {
        let look = self.state().waits.get(&claim).map(|waiting| waiting.look);
        look.map_or(Duration::ZERO, |look| look.since(clock::now()))
    }

    /// A server tells that a hold of a key was released there. Once a majority has, the next waiter
    /// of this handle is told.
    fn freed(&self, server: usize, key: &Key, hold: &[u8]) {
        let mut state = self.state();
        let Some(queue) = state.keys.get_mut(key) else { return };
        if queue.freed != hold {
            hold.clone_into(&mut queue.freed);
            queue.told.clear();
        }
        queue.told.insert(server);
        if queue.told.len() != majority(self.servers) {
            return;
        }
        queue.claims.rotate_left(1);
        let next = queue.claims.back().copied();
        drop(state);
        if let Some(next) = next {
            self.sessions.mailbox.tell(next, None);
        }
    }

    pub(super) fn holds(&self, claim: ClaimId, hold: Hold) {
        self.state().holds.insert(claim, hold);
    }

    pub(super) fn hold(&self, claim: ClaimId) -> Option<Hold> {
        self.state().holds.get(&claim).cloned()
    }

    /// Takes note of how a hold stands, unless it ended meanwhile.
    pub(super) fn goes_on(&self, claim: ClaimId, renewal: &Renewal) {
        if let Some(hold) = self.state().holds.get_mut(&claim) {
            hold.renewal = renewal.clone();
        }
    }

    /// Takes note of where a server stands, which was not waited for.
    pub(super) fn given(&self, claim: ClaimId, server: usize, counter: u64) {
        if let Some(hold) = self.state().holds.get_mut(&claim) {
            hold.renewal.given(server, counter);
        }
    }

    /// The claim is being released: what is still under way for it must begin nothing.
    pub(super) fn holds_no_more(&self, claim: ClaimId) {
        self.state().holds.remove(&claim);
    }

    /// The claim is over. Whether it was the last one that waited for the key.
    pub(super) fn forget(&self, key: &Key, claim: ClaimId) -> bool {
        self.holds_no_more(claim);
        self.sessions.forget(claim);
        self.part(key, claim)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while the lock is held.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Listener for Ear {
    fn channels(&self) -> HashSet<String> {
        let mut channels = self.inbox.sessions.channels();
        channels.extend(self.inbox.state().keys.keys().map(channel_of));
        channels
    }

    fn message(&self, channel: &[u8], text: &[u8]) {
        let key = channel.strip_prefix(CHANNEL.as_bytes());
        let key = key.and_then(|key| Key::new(std::str::from_utf8(key).ok()?).ok());
        match (key, text.strip_prefix(b"free ")) {
            (Some(key), Some(hold)) => self.inbox.freed(self.server, &key, hold),
            _ => self.inbox.sessions.message(channel, text),
        }
    }

    /// Nobody takes a channel of a single server away.
    fn unsubscribed(&self, _channel: &[u8]) {}

    fn ended(&self) {}

    /// One server's messages are missing, and the others' are enough; but it may have lost tokens.
    fn reconnected(&self) {
        self.inbox.sessions.mailbox.disturb_all();
    }
}

#[cfg(test)]
mod tests {
    use futures::future::FutureExt;
    use leasehold_core::{Claim, Note, SessionId};

    use super::*;

    #[tokio::test]
    async fn a_release_wakes_one_waiter_once_a_majority_told_of_it() {
        let inbox = Arc::new(Inbox::new(5));
        let key = Key::new("k").unwrap();
        let claims = [1, 2, 3].map(|n| ClaimId::from_random([n; 16]));
        for claim in claims {
            let first = inbox.join(&key, claim);
            assert_eq!(first, claim == claims[0]);
            let waits = Claim::exclusive(claim, key.clone(), Note::default());
            inbox.sessions.expect(&SessionId::new("s"), &waits);
        }
        let free = |server: usize, hold: &str| {
            let ear = Ear { server, inbox: Arc::clone(&inbox) };
            ear.message(channel_of(&key).as_bytes(), format!("free {hold}").as_bytes());
        };
        let woken =
            || claims.map(|claim| inbox.sessions.mailbox.told(claim).now_or_never().is_some());
        // Three servers tell of one hold, twice; the other two tell of it later.
        for server in [0, 1, 1, 0] {
            free(server, "1");
        }
        assert_eq!(woken(), [false; 3], "two of five");
        free(4, "1");
        assert_eq!(woken(), [true, false, false]);
        for (server, hold) in [(2, "1"), (3, "1"), (0, "2"), (1, "2")] {
            free(server, hold);
        }
        assert_eq!(woken(), [false; 3], "late ones of one hold are not early ones of the next");
        free(2, "2");
        assert_eq!(woken(), [false, true, false], "the next one's turn");
    }
}
