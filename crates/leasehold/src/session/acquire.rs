//! From a key to a grant: enters the line, waits, and asks again, until the claim holds.

use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use leasehold_core::backoff::Backoff;
use leasehold_core::line::Share;
use leasehold_core::{Ahead, Claim, Enter, Fence, Key, Note, Place};

use super::{Entry, Handle, Open, Order};
use crate::clock;
use crate::error::{Effect, Error, ErrorKind, Result};
use crate::property::Property;
use crate::random;
use crate::store::LeaseScope;

/// How often a try is asked again after an outcome that is not known, or with a new session.
const TRIES: u32 = 4;
/// The first wait after trouble with the store.
const BACKOFF: Duration = Duration::from_millis(20);
/// The longest wait after trouble with the store, and between two tries where it keeps no line.
const BACKOFF_CAP: Duration = Duration::from_millis(500);

/// What a waiter is told while it waits.
#[derive(Debug)]
#[non_exhaustive]
pub enum Wait<'a> {
    /// The claim stands in line behind this.
    Behind(&'a Ahead),
    /// The task that waits was granted the hold that it stands behind. Unless the guard was given to
    /// another task since, it waits for itself, for ever: there is no re-entrance. Told once.
    BehindItself(&'a Ahead),
    /// The store is in trouble; the wait goes on and asks again.
    Trouble(&'a Error),
}

/// Somebody who wants to know how a wait goes.
#[derive(Clone)]
pub(crate) struct Observer(pub(crate) Arc<dyn Fn(Wait<'_>) + Send + Sync>);

impl fmt::Debug for Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Observer")
    }
}

/// What is to be acquired, and how.
#[derive(Debug)]
pub(crate) struct Request<'a> {
    pub(crate) key: &'a Key,
    pub(crate) share: Share,
    pub(crate) note: &'a Note,
    pub(crate) enter: Enter,
    pub(crate) observer: Option<&'a Observer>,
}

impl Request<'_> {
    fn tell(&self, wait: Wait<'_>) {
        match &wait {
            Wait::Trouble(error) => {
                tracing::warn!(%error, "the lock service is in trouble; asking again");
            }
            Wait::BehindItself(_) => {
                let key = self.key;
                tracing::warn!(
                    ?key,
                    "a task waits for a lock that it was granted itself: unless it gave the guard \
                     to another task, it waits for ever"
                );
            }
            Wait::Behind(_) => {}
        }
        if let Some(Observer(observer)) = self.observer {
            observer(wait);
        }
    }
}

/// How it ended.
#[derive(Debug)]
pub(crate) enum Acquired {
    Held { entry: Arc<Entry>, fence: Fence },
    Refused(Ahead),
}

impl Handle {
    /// Acquires what `request` names.
    ///
    /// Cancel safe: dropping the future gives the claim up in the background.
    pub(crate) async fn acquire(self: &Arc<Self>, request: &Request<'_>) -> Result<Acquired> {
        let mut backoff = Backoff::new(BACKOFF, BACKOFF_CAP, random::seed()?);
        let mut ended = 0;
        loop {
            let error = match self.attempt(request, &mut backoff).await {
                Ok(acquired) => return Ok(acquired),
                Err(error) => error.about(request.key),
            };
            // A session that lapsed while idle is not the caller's business, in a try neither.
            let lapsed = error.kind() == ErrorKind::SessionEnded && ended < TRIES;
            let waits = request.enter == Enter::Wait && error.is_transient();
            if !lapsed && !waits {
                return Err(error);
            }
            ended += 1;
            if !lapsed {
                request.tell(Wait::Trouble(&error));
            }
            tokio::time::sleep(backoff.next_wait()).await;
        }
    }

    /// One claim, from its first request to its end.
    async fn attempt(
        self: &Arc<Self>,
        request: &Request<'_>,
        backoff: &mut Backoff,
    ) -> Result<Acquired> {
        let open = self.open().await?;
        let mut pending = Pending::new(self, request, &open)?;
        let mut place = pending.ask(request.enter).await;
        let (mut tries, mut warned) = (1, false);
        loop {
            place = match place {
                Ok(Place::Held(fence)) => return pending.take(fence).await,
                Ok(Place::Refused(ahead)) => return Ok(Acquired::Refused(ahead)),
                Ok(Place::Waiting(ahead)) => {
                    request.tell(Wait::Behind(&ahead));
                    if !warned && self.shared.is_of_this_task(&ahead) {
                        warned = true;
                        request.tell(Wait::BehindItself(&ahead));
                    }
                    match pending.wait(backoff).await? {
                        Some(place) => Ok(place),
                        None => pending.ask(request.enter).await,
                    }
                }
                Err(error) if error.kind() == ErrorKind::SessionEnded => {
                    // A claim that was lost by itself says nothing about its session.
                    if !pending.entry.lost().is_cancelled() {
                        self.shared.end(&open.id);
                    }
                    return Err(error);
                }
                Err(error) if may_ask_again(&error, request.enter, tries) => {
                    tries += 1;
                    request.tell(Wait::Trouble(&error));
                    pending.pause(backoff.next_wait()).await?;
                    pending.ask(request.enter).await
                }
                Err(error) => return Err(error),
            };
        }
    }
}

impl Handle {
    fn claim(&self, request: &Request<'_>) -> Result<Claim> {
        let (id, key, note) = (random::claim_id()?, request.key.clone(), request.note.clone());
        let Share { units, limit } = request.share;
        let counted = (NonZeroU32::new(units), NonZeroU32::new(limit));
        let (Some(units), Some(limit)) = counted else {
            let detail = "a claim of no units, or out of none, claims nothing";
            return Err(self.error(ErrorKind::Invalid, "claim", detail));
        };
        Claim::counting(id, key, note, units, limit)
            .map_err(|error| self.error(ErrorKind::Invalid, "claim", error.to_string()))
    }
}

fn may_ask_again(error: &Error, enter: Enter, tries: u32) -> bool {
    error.is_transient()
        && match enter {
            Enter::Wait => true,
            // Only to learn what became of the claim: a try does not wait for a dead server.
            Enter::Try => error.effect() == Effect::Unknown && tries < TRIES,
        }
}

/// A claim on its way to a grant. Dropping it gives the claim up.
struct Pending<'a> {
    handle: &'a Arc<Handle>,
    entry: Arc<Entry>,
    /// The store may know the claim.
    asked: bool,
}

impl<'a> Pending<'a> {
    fn new(handle: &'a Arc<Handle>, request: &Request<'_>, open: &Open) -> Result<Self> {
        let claim = handle.claim(request)?;
        let entry = handle.register(claim, open);
        Ok(Self { handle, entry, asked: false })
    }

    async fn ask(&mut self, enter: Enter) -> Result<Place> {
        self.still_known()?;
        // Also an answer to a later request does not tell that an earlier one will not arrive.
        let suspect = self.entry.is_suspect();
        self.asked = true;
        self.entry.set_suspect(true);
        let sent = clock::now();
        let store = self.handle.store();
        let entering = store.enter(&self.entry.session, &self.entry.claim, enter);
        let answer = self.handle.shared.answered("enter the line of", entering).await;
        if !matches!(&answer, Err(error) if error.effect() == Effect::Unknown) {
            self.entry.set_suspect(suspect);
        }
        let guarantees = store.guarantees();
        match &answer {
            // Without a line a waiter has nothing in the store that a renewal could extend.
            Ok(Place::Waiting(_)) if !guarantees.has(Property::Line) => {}
            Ok(Place::Held(_) | Place::Waiting(_)) => {
                if guarantees.lease == LeaseScope::Claim {
                    self.entry.extend(sent);
                }
                self.entry.set_entered();
            }
            Ok(Place::Refused(_)) => self.asked = suspect,
            Err(_) => {}
        }
        answer
    }

    /// Waits until the place may have changed; with the new place if the store told it.
    async fn wait(&self, backoff: &mut Backoff) -> Result<Option<Place>> {
        let store = self.handle.store();
        let guarantees = store.guarantees();
        let pause =
            if guarantees.has(Property::Line) { guarantees.recheck } else { backoff.next_wait() };
        let place = tokio::select! {
            changed = store.changed(&self.entry.session, &self.entry.claim) => match changed {
                Ok(place) => place,
                Err(error) => {
                    tracing::debug!(%error, "no wake-up from the lock service");
                    self.pause(backoff.next_wait()).await?;
                    None
                }
            },
            () = self.entry.lost().cancelled() => None,
            () = tokio::time::sleep(pause) => None,
        };
        self.still_known()?;
        Ok(place)
    }

    /// Waits for `pause`, or until the place is lost.
    async fn pause(&self, pause: Duration) -> Result<()> {
        tokio::select! {
            () = self.entry.lost().cancelled() => {}
            () = tokio::time::sleep(pause) => {}
        }
        self.still_known()
    }

    /// A claim that lapsed is never used again: the caller begins anew with another.
    fn still_known(&self) -> Result<()> {
        if self.entry.lost().is_cancelled() {
            let detail = "the place in line lapsed; enter again";
            return Err(self.handle.error(ErrorKind::SessionEnded, "wait for", detail));
        }
        Ok(())
    }

    /// Makes a grant of the store one of ours, if its deadline allows.
    ///
    /// A hand-over has no send time of its own: it counts from the last acknowledged renewal of
    /// the waiter, so there may be little left of it.
    async fn take(mut self, fence: Fence) -> Result<Acquired> {
        let timing = self.handle.settings().timing;
        let short = |entry: &Entry| entry.lost_at() < clock::now() + timing.renew_every();
        if self.entry.is_good(clock::now()) && short(&self.entry) {
            self.handle.renew_now().await;
        }
        let now = clock::now();
        if !self.entry.is_good(now) {
            // A grant that arrives late is not a grant: dropping `self` gives it back.
            self.entry.set_suspect(true);
            let detail = "the grant arrived after its deadline and was given back; the store \
                          answers too slowly for this TTL";
            return Err(self.handle.error(ErrorKind::Unavailable, "acquire", detail));
        }
        let max_hold = self.handle.settings().max_hold;
        if let Some(max_hold) = max_hold {
            self.handle.shared.lock().entries.cap(&self.entry, now + max_hold);
        }
        if max_hold.is_some() || short(&self.entry) {
            self.handle.order(Order::Expect(self.entry.lapses_at()));
        }
        self.asked = false;
        Ok(Acquired::Held { entry: self.entry.clone(), fence })
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        if self.asked {
            self.handle.leave_later(&self.entry);
        } else if !self.entry.is_entered() {
            self.handle.shared.lock().entries.remove(&self.entry.claim.id);
        }
    }
}
