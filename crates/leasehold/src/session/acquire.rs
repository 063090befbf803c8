//! From a key to a grant: enters the line, waits, and asks again, until the claim holds. Several keys
//! are tried in one step where the store can, by the same way.

use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt};
use leasehold_core::backoff::Backoff;
use leasehold_core::line::Share;
use leasehold_core::{Ahead, Claim, Enter, Fence, Key, Moment, Note, Place, SessionId, Together};

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

/// What is wanted of a key.
#[derive(Debug)]
pub(crate) struct Wanted<'a> {
    pub(crate) key: &'a Key,
    pub(crate) share: Share,
    pub(crate) note: &'a Note,
}

/// What is to be acquired, and how.
#[derive(Debug)]
pub(crate) struct Request<'a> {
    /// Several are to be had in one step, and are not waited for.
    pub(crate) wanted: &'a [Wanted<'a>],
    pub(crate) enter: Enter,
    pub(crate) observer: Option<&'a Observer>,
}

impl Request<'_> {
    /// Of several keys the store says which one an error is about.
    fn about(&self, error: Error) -> Error {
        match self.wanted {
            [only] => error.about(only.key),
            _ => error,
        }
    }

    fn tell(&self, wait: Wait<'_>) {
        match &wait {
            Wait::Trouble(error) => {
                tracing::warn!(%error, "the lock service is in trouble; asking again");
            }
            Wait::BehindItself(_) => {
                let key = self.wanted.first().map(|wanted| wanted.key);
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
    /// In the order in which they were wanted.
    Held(Vec<(Arc<Entry>, Fence)>),
    Refused(Ahead),
    /// Several cannot be had in one step here.
    Apart,
}

/// What the store says of the claims on their way.
enum Standing {
    Held(Vec<Fence>),
    /// Only one alone waits.
    Waiting(Ahead),
    Refused(Ahead),
    Apart,
}

impl From<Place> for Standing {
    fn from(place: Place) -> Self {
        match place {
            Place::Held(fence) => Self::Held(vec![fence]),
            Place::Waiting(ahead) => Self::Waiting(ahead),
            Place::Refused(ahead) => Self::Refused(ahead),
        }
    }
}

impl From<Together> for Standing {
    fn from(together: Together) -> Self {
        match together {
            Together::Held(fences) => Self::Held(fences),
            Together::Refused { ahead, .. } => Self::Refused(ahead),
            Together::Apart => Self::Apart,
        }
    }
}

impl Handle {
    /// Acquires what `request` names.
    ///
    /// Cancel safe: dropping the future gives the claims up in the background.
    pub(crate) async fn acquire(self: &Arc<Self>, request: &Request<'_>) -> Result<Acquired> {
        let mut backoff = Backoff::new(BACKOFF, BACKOFF_CAP, random::seed()?);
        let mut ended = 0;
        loop {
            let error = match self.attempt(request, &mut backoff).await {
                Ok(acquired) => return Ok(acquired),
                Err(error) => request.about(error),
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

    /// New claims, from their first request to their end.
    async fn attempt(
        self: &Arc<Self>,
        request: &Request<'_>,
        backoff: &mut Backoff,
    ) -> Result<Acquired> {
        let open = self.open().await?;
        let mut pending = Pending::new(self, request, &open)?;
        let mut standing = pending.ask(request.enter).await;
        let (mut tries, mut warned) = (1, false);
        loop {
            standing = match standing {
                Ok(Standing::Held(fences)) => return pending.take(fences).await,
                Ok(Standing::Refused(ahead)) => return Ok(Acquired::Refused(ahead)),
                Ok(Standing::Apart) => return Ok(Acquired::Apart),
                Ok(Standing::Waiting(ahead)) => {
                    request.tell(Wait::Behind(&ahead));
                    if !warned && self.shared.is_of_this_task(&ahead) {
                        warned = true;
                        request.tell(Wait::BehindItself(&ahead));
                    }
                    match pending.wait(backoff).await? {
                        Some(place) => Ok(place.into()),
                        None => pending.ask(request.enter).await,
                    }
                }
                Err(error) if error.kind() == ErrorKind::SessionEnded => {
                    // A claim that was lost by itself says nothing about its session.
                    if !pending.is_lost() {
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
    fn claim(&self, wanted: &Wanted<'_>) -> Result<Claim> {
        let (id, key, note) = (random::claim_id()?, wanted.key.clone(), wanted.note.clone());
        let Share { units, limit } = wanted.share;
        let invalid =
            |detail: String| self.error(ErrorKind::Invalid, "claim", detail).about(wanted.key);
        let counted = (NonZeroU32::new(units), NonZeroU32::new(limit));
        let (Some(units), Some(limit)) = counted else {
            return Err(invalid("a claim of no units, or out of none, claims nothing".into()));
        };
        Claim::counting(id, key, note, units, limit).map_err(|error| invalid(error.to_string()))
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

/// Claims of one request on their way to a grant. Dropping it gives them up.
struct Pending<'a> {
    handle: &'a Arc<Handle>,
    session: SessionId,
    entries: Vec<Arc<Entry>>,
    /// The store may know the claims.
    asked: bool,
}

impl<'a> Pending<'a> {
    fn new(handle: &'a Arc<Handle>, request: &Request<'_>, open: &Open) -> Result<Self> {
        let claims = request.wanted.iter().map(|wanted| handle.claim(wanted));
        let claims = claims.collect::<Result<Vec<_>>>()?;
        let entries = claims.into_iter().map(|claim| handle.register(claim, open)).collect();
        Ok(Self { handle, session: open.id.clone(), entries, asked: false })
    }

    async fn ask(&mut self, enter: Enter) -> Result<Standing> {
        self.still_known()?;
        // Also an answer to a later request does not tell that an earlier one will not arrive.
        let suspect = self.entries.iter().any(|entry| entry.is_suspect());
        self.asked = true;
        self.set_suspect(true);
        let sent = clock::now();
        let attempt = match self.entries[..] {
            [_] => "enter the line of",
            _ => "enter several lines",
        };
        let answer = self.handle.shared.answered(attempt, self.send(enter)).await;
        if !matches!(&answer, Err(error) if error.effect() == Effect::Unknown) {
            self.set_suspect(suspect);
        }
        let guarantees = self.handle.store().guarantees();
        match &answer {
            // Without a line a waiter has nothing in the store that a renewal could extend.
            Ok(Standing::Waiting(_)) if !guarantees.has(Property::Line) => {}
            Ok(Standing::Held(_) | Standing::Waiting(_)) => {
                for entry in &self.entries {
                    if guarantees.lease == LeaseScope::Claim {
                        entry.extend(sent);
                    }
                    entry.set_entered();
                }
            }
            Ok(Standing::Refused(_) | Standing::Apart) => self.asked = suspect,
            Err(_) => {}
        }
        answer
    }

    /// One request of the store, for however many.
    async fn send(&self, enter: Enter) -> Result<Standing> {
        let store = self.handle.store();
        if let [only] = &self.entries[..] {
            return Ok(store.enter(&self.session, &only.claim, enter).await?.into());
        }
        let claims: Vec<Claim> = self.entries.iter().map(|entry| entry.claim.clone()).collect();
        Ok(store.enter_all(&self.session, &claims).await?.into())
    }

    /// Waits until the place may have changed; with the new place if the store told it.
    async fn wait(&self, backoff: &mut Backoff) -> Result<Option<Place>> {
        let [entry] = &self.entries[..] else { return Ok(None) };
        let store = self.handle.store();
        let guarantees = store.guarantees();
        let pause =
            if guarantees.has(Property::Line) { guarantees.recheck } else { backoff.next_wait() };
        let place = tokio::select! {
            changed = store.changed(&self.session, &entry.claim) => match changed {
                Ok(place) => place,
                Err(error) => {
                    tracing::debug!(%error, "no wake-up from the lock service");
                    self.pause(backoff.next_wait()).await?;
                    None
                }
            },
            () = entry.lost().cancelled() => None,
            () = tokio::time::sleep(pause) => None,
        };
        self.still_known()?;
        Ok(place)
    }

    /// Waits for `pause`, or until a place is lost.
    async fn pause(&self, pause: Duration) -> Result<()> {
        let lost = self.entries.iter().map(|entry| entry.lost().cancelled());
        let mut lost: FuturesUnordered<_> = lost.collect();
        tokio::select! {
            Some(()) = lost.next() => {}
            () = tokio::time::sleep(pause) => {}
        }
        self.still_known()
    }

    /// A claim that lapsed is never used again: the caller begins anew with another.
    fn still_known(&self) -> Result<()> {
        if self.is_lost() {
            let detail = "the place in line lapsed; enter again";
            return Err(self.handle.error(ErrorKind::SessionEnded, "wait for", detail));
        }
        Ok(())
    }

    fn is_lost(&self) -> bool {
        self.entries.iter().any(|entry| entry.lost().is_cancelled())
    }

    fn are_good(&self, now: Moment) -> bool {
        self.entries.iter().all(|entry| entry.is_good(now))
    }

    fn set_suspect(&self, suspect: bool) {
        for entry in &self.entries {
            entry.set_suspect(suspect);
        }
    }

    /// Makes grants of the store ours, if their deadlines allow.
    ///
    /// A hand-over has no send time of its own: it counts from the last acknowledged renewal of
    /// the waiter, so there may be little left of it.
    async fn take(mut self, fences: Vec<Fence>) -> Result<Acquired> {
        let timing = self.handle.settings().timing;
        let short = |entry: &Arc<Entry>| entry.lost_at() < clock::now() + timing.renew_every();
        if self.are_good(clock::now()) && self.entries.iter().any(short) {
            self.handle.renew_now().await;
        }
        let now = clock::now();
        if !self.are_good(now) {
            // A grant that arrives late is not a grant: dropping `self` gives it back.
            self.set_suspect(true);
            let detail = "the grant arrived after its deadline and was given back; the store \
                          answers too slowly for this TTL";
            return Err(self.handle.error(ErrorKind::Unavailable, "acquire", detail));
        }
        if fences.len() != self.entries.len() {
            let detail =
                "the store gave another number of fences than of grants; this is a bug in it";
            return Err(self.handle.error(ErrorKind::Unsupported, "acquire", detail));
        }
        // From here on the caller has them: nothing is left to be given up.
        let entries = std::mem::take(&mut self.entries);
        let max_hold = self.handle.settings().max_hold;
        if let Some(max_hold) = max_hold {
            let mut state = self.handle.shared.lock();
            for entry in &entries {
                state.entries.cap(entry, now + max_hold);
            }
        }
        let expected = entries.iter().filter(|entry| max_hold.is_some() || short(entry));
        if let Some(loss) = expected.map(|entry| entry.lapses_at()).min() {
            self.handle.order(Order::Expect(loss));
        }
        Ok(Acquired::Held(entries.into_iter().zip(fences).collect()))
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        for entry in &self.entries {
            if self.asked {
                self.handle.leave_later(entry);
            } else if !entry.is_entered() {
                self.handle.shared.lock().entries.remove(&entry.claim.id);
            }
        }
    }
}
