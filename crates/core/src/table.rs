//! The one rule as a plain data structure: sessions, and a line for each key.
//!
//! It is the in-memory store, and the oracle that the other stores are compared with. Time is an
//! argument of every method and must not run backwards.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use crate::line::{self, Share};
use crate::place::{Ahead, Enter, Left, Line, Party, Place, Renewed, Terms, Together};
use crate::record::{Provided, Record, Version, Written};
use crate::{Claim, ClaimId, Fence, Key, Moment, SessionId};

/// All sessions and lines of one store.
#[derive(Debug, Default)]
pub struct Table {
    sessions: HashMap<SessionId, Session>,
    lines: BTreeMap<Key, Vec<Entry>>,
    keys: HashMap<ClaimId, Key>,
    records: HashMap<Key, Kept>,
    last_fence: u64,
    last_version: u64,
    woken: Vec<ClaimId>,
}

#[derive(Debug)]
struct Kept {
    written: Written,
    until: Moment,
}

#[derive(Debug)]
struct Session {
    terms: Terms,
    expires: Moment,
    claims: BTreeSet<ClaimId>,
}

#[derive(Debug)]
struct Entry {
    claim: Claim,
    session: SessionId,
    entered: Moment,
    /// Set at the grant, and never changed after.
    grant: Option<Grant>,
}

#[derive(Debug, Clone, Copy)]
struct Grant {
    fence: Fence,
    at: Moment,
}

/// Why a claim does not enter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoEntry {
    /// The session is not known to the store (any more).
    #[error("the session lapsed or was never opened")]
    NoSession,
    /// Somebody in line sees another limit.
    #[error("somebody in line sees a limit of {limit}")]
    Disagrees {
        /// The other's limit.
        limit: u32,
    },
}

impl Table {
    /// An empty table, whose first fence is greater than `last_fence`.
    #[must_use]
    pub fn new(last_fence: u64) -> Self {
        Self { last_fence, ..Self::default() }
    }

    /// Opens a session under a name that was never used before.
    pub fn open(&mut self, now: Moment, id: SessionId, terms: Terms) {
        let expires = now + terms.ttl;
        self.sessions.insert(id, Session { terms, expires, claims: BTreeSet::new() });
    }

    /// Extends a session that has not lapsed, and says which claims of `roll` it no longer has.
    pub fn renew(&mut self, now: Moment, id: &SessionId, roll: &[ClaimId]) -> Renewed {
        let Some(session) = self.live(now, id) else {
            return Renewed::Ended;
        };
        session.expires = now + session.terms.ttl;
        let lost = roll.iter().copied().filter(|claim| !session.claims.contains(claim)).collect();
        Renewed::Extended { lost }
    }

    /// Ends a session and everything it claims.
    pub fn close(&mut self, now: Moment, id: &SessionId) {
        let Some(session) = self.sessions.remove(id) else {
            return;
        };
        let keys: BTreeSet<Key> =
            session.claims.iter().filter_map(|claim| self.keys.get(claim).cloned()).collect();
        for key in keys {
            self.settle(now, &key);
        }
    }

    /// Puts a claim in line, or finds its place.
    ///
    /// # Errors
    ///
    /// When the session lapsed or was never opened, and when a claim that is new in the line does
    /// not share the limit of those ahead.
    pub fn enter(
        &mut self,
        now: Moment,
        id: &SessionId,
        claim: &Claim,
        enter: Enter,
    ) -> Result<Place, NoEntry> {
        let session = self.live(now, id).ok_or(NoEntry::NoSession)?;
        if !session.claims.contains(&claim.id) {
            self.settle(now, &claim.key);
            let line = self.lines.get(&claim.key).into_iter().flatten();
            let shares = line.map(|entry| Share::from(&entry.claim));
            if let Some(limit) = line::disagreement(shares, claim.limit()) {
                return Err(NoEntry::Disagrees { limit });
            }
            let entry =
                Entry { claim: claim.clone(), session: id.clone(), entered: now, grant: None };
            self.live(now, id).ok_or(NoEntry::NoSession)?.claims.insert(claim.id);
            self.lines.entry(claim.key.clone()).or_default().push(entry);
            self.keys.insert(claim.id, claim.key.clone());
        }
        self.settle(now, &claim.key);
        let line = self.lines.get(&claim.key).map_or(&[][..], Vec::as_slice);
        let Some(at) = line.iter().position(|entry| entry.claim.id == claim.id) else {
            // A claim id that was used before for another key: the caller broke the contract.
            return Err(NoEntry::NoSession);
        };
        if let Some(grant) = line[at].grant {
            self.woken.retain(|woken| *woken != claim.id);
            return Ok(Place::Held(grant.fence));
        }
        let held = line.iter().filter(|entry| entry.grant.is_some()).count();
        let ahead = Ahead {
            rank: Some(u32::try_from(at - held).unwrap_or(u32::MAX)),
            holder: line.first().map(|entry| self.party(now, entry)),
            foreign: false,
        };
        if enter == Enter::Try {
            self.leave(now, id, claim);
            return Ok(Place::Refused(ahead));
        }
        Ok(Place::Waiting(ahead))
    }

    /// Grants all of the claims, each on a key of its own, or puts none in line.
    ///
    /// # Errors
    ///
    /// As for [`Table::enter`], with which of the claims it is about.
    pub fn enter_all(
        &mut self,
        now: Moment,
        id: &SessionId,
        claims: &[Claim],
    ) -> Result<Together, (usize, NoEntry)> {
        let (mut fences, mut fresh) = (Vec::with_capacity(claims.len()), Vec::new());
        for (at, claim) in claims.iter().enumerate() {
            let known = self.live(now, id).is_some_and(|it| it.claims.contains(&claim.id));
            let entered = match self.enter(now, id, claim, Enter::Try) {
                Ok(Place::Held(fence)) => {
                    fences.push(fence);
                    fresh.extend((!known).then_some(claim));
                    continue;
                }
                Ok(Place::Refused(ahead) | Place::Waiting(ahead)) => {
                    Ok(Together::Refused { at, ahead })
                }
                Err(refusal) => Err((at, refusal)),
            };
            // Within the step nobody came, so this is as if they had not entered.
            for claim in fresh {
                self.leave(now, id, claim);
            }
            return entered;
        }
        Ok(Together::Held(fences))
    }

    /// Ends a claim, held or waiting.
    pub fn leave(&mut self, now: Moment, id: &SessionId, claim: &Claim) -> Left {
        let Some(session) = self.live(now, id) else {
            return Left::Gone;
        };
        if !session.claims.remove(&claim.id) {
            return Left::Gone;
        }
        let held = self.lines.get(&claim.key).is_some_and(|line| {
            line.iter().any(|entry| entry.claim.id == claim.id && entry.grant.is_some())
        });
        self.settle(now, &claim.key);
        if held { Left::Released } else { Left::Withdrawn }
    }

    /// Gives a hold another note and fewer units, and grants what then fits. Whether it was held.
    pub fn amend(&mut self, now: Moment, id: &SessionId, claim: &Claim) -> bool {
        if self.live(now, id).is_none() {
            return false;
        }
        self.settle(now, &claim.key);
        let line = self.lines.get_mut(&claim.key).into_iter().flatten();
        let mut ours = line.filter(|entry| entry.claim.id == claim.id && entry.session == *id);
        let Some(entry) = ours.next().filter(|entry| entry.grant.is_some()) else {
            return false;
        };
        let units = claim.units().try_into().unwrap_or(std::num::NonZeroU32::MIN);
        entry.claim = entry.claim.amended(claim.note.clone(), units);
        self.settle(now, &claim.key);
        true
    }

    /// The record of a key.
    pub fn read(&mut self, now: Moment, key: &Key) -> Option<Written> {
        self.records.retain(|_, kept| kept.until > now);
        self.records.get(key).map(|kept| kept.written.clone())
    }

    /// Writes the record of a key if what was `provided` is true: whether it was.
    pub fn write(
        &mut self,
        now: Moment,
        key: &Key,
        provided: Provided<'_>,
        record: &Record,
    ) -> bool {
        let stands = match provided {
            Provided::Unchanged(version) => {
                self.read(now, key).map(|written| written.version) == version
            }
            Provided::Held(id, claim) => {
                self.settle(now, key);
                self.live(now, id).is_some()
                    && self.lines.get(key).into_iter().flatten().any(|entry| {
                        entry.claim.id == claim.id && entry.session == *id && entry.grant.is_some()
                    })
            }
        };
        if stands {
            self.last_version += 1;
            let version = Version::new(self.last_version);
            let written = Written { value: record.value().into(), version };
            self.records.insert(key.clone(), Kept { written, until: now + record.keep() });
        }
        stands
    }

    /// Ends somebody's claim on `key` by force, and says whose it was if it was there.
    pub fn revoke(&mut self, now: Moment, key: &Key, claim: ClaimId) -> Option<SessionId> {
        self.settle(now, key);
        let entry = self.lines.get(key)?.iter().find(|entry| entry.claim.id == claim)?;
        let owner = entry.session.clone();
        self.sessions.get_mut(&owner)?.claims.remove(&claim);
        self.settle(now, key);
        Some(owner)
    }

    /// Who holds and who waits.
    pub fn inspect(&mut self, now: Moment, key: &Key) -> Line {
        self.settle(now, key);
        let mut seen = Line::default();
        for entry in self.lines.get(key).into_iter().flatten() {
            let side = if entry.grant.is_some() { &mut seen.holders } else { &mut seen.waiters };
            side.push(self.party(now, entry));
        }
        seen
    }

    /// The keys that begin with `prefix` and that somebody holds or waits for, in order.
    pub fn keys(&mut self, now: Moment, prefix: &str) -> Vec<Key> {
        let named: Vec<Key> =
            self.lines.keys().filter(|key| key.as_str().starts_with(prefix)).cloned().collect();
        named
            .into_iter()
            .filter(|key| {
                self.settle(now, key);
                self.lines.contains_key(key)
            })
            .collect()
    }

    /// Takes the claims that were granted since the last call without having asked: whoever waits
    /// for them should be told.
    pub fn take_woken(&mut self) -> Vec<ClaimId> {
        std::mem::take(&mut self.woken)
    }

    /// How long until the first hold or claim on `key` lapses unless it is renewed.
    #[must_use]
    pub fn lapses_in(&self, now: Moment, key: &Key) -> Option<Duration> {
        let line = self.lines.get(key)?;
        line.iter()
            .filter_map(|entry| self.sessions.get(&entry.session))
            .map(|session| session.expires.since(now))
            .min()
    }

    fn live(&mut self, now: Moment, id: &SessionId) -> Option<&mut Session> {
        if self.sessions.get(id)?.expires <= now {
            self.close(now, id);
            return None;
        }
        self.sessions.get_mut(id)
    }

    /// Drops what lapsed from the line of `key` and grants what now fits: dead claims are passed
    /// over in the same step, however many there are.
    fn settle(&mut self, now: Moment, key: &Key) {
        let Some(line) = self.lines.get_mut(key) else {
            return;
        };
        let (sessions, keys) = (&self.sessions, &mut self.keys);
        line.retain(|entry| {
            let alive = sessions.get(&entry.session).is_some_and(|session| {
                session.expires > now && session.claims.contains(&entry.claim.id)
            });
            if !alive {
                keys.remove(&entry.claim.id);
            }
            alive
        });
        let fitting = line::holders(line.iter().map(|entry| Share::from(&entry.claim)));
        for entry in line.iter_mut().take(fitting).filter(|entry| entry.grant.is_none()) {
            self.last_fence += 1;
            entry.grant = Some(Grant { fence: Fence::new(self.last_fence), at: now });
            self.woken.push(entry.claim.id);
        }
        if line.is_empty() {
            self.lines.remove(key);
        }
    }

    fn party(&self, now: Moment, entry: &Entry) -> Party {
        let session = self.sessions.get(&entry.session);
        Party {
            claim: Some(entry.claim.id),
            owner: session.map(|session| session.terms.owner.clone()).unwrap_or_default(),
            note: entry.claim.note.clone(),
            fence: entry.grant.map(|grant| grant.fence),
            age: Some(now.since(entry.grant.map_or(entry.entered, |grant| grant.at))),
            left: session.map(|session| session.expires.since(now)),
            units: entry.claim.units(),
            limit: entry.claim.limit(),
        }
    }
}

#[cfg(test)]
mod tests;
