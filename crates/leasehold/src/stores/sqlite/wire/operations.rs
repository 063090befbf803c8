//! What the contract asks for, each within one transaction. The same steps as
//! [`leasehold_core::Table`], which they are tested against.

use std::collections::HashSet;

use leasehold_core::line::disagreement;
use leasehold_core::{
    Ahead, Claim, ClaimId, Enter, Key, Left, Line, Note, Place, Renewed, SessionId, Terms, Together,
};
use rusqlite::{OptionalExtension as _, params};

use super::line::{Entry, Lease, Probe, fence_of, key_of, span};
use super::{Wire, trouble_of};
use crate::stores::sqlite::peers::Life;
use crate::stores::sqlite::trouble::Trouble;
use crate::stores::sqlite::wake::News;

/// How many dead sessions an opener clears away, and how many records whose time is over.
const SWEEP: i64 = 16;

/// Why a claim may not enter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Refusal {
    /// The session lapsed or was never opened.
    NoSession,
    /// Another session has a claim of this id on this key.
    NotYours,
    /// Somebody in line sees another limit.
    Disagrees { limit: u32 },
}

/// The limit in line that a new claim does not share.
fn other_limit(line: &[Entry], claim: &Claim) -> Option<u32> {
    disagreement(line.iter().map(|entry| entry.share), claim.limit())
}

/// Where a claim stands, and what a waiting one has to look out for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct Entered {
    pub(in super::super) place: Place,
    /// The processes whose end may move it up.
    pub(in super::super) watch: Vec<String>,
    /// The time until the first of those ahead lapses, unless it is renewed.
    pub(in super::super) lapse: Option<std::time::Duration>,
}

impl Wire {
    pub(in super::super) fn open_session(
        &mut self,
        now: i64,
        id: &SessionId,
        terms: &Terms,
        peer: &str,
    ) -> Result<(), Trouble> {
        self.sweep(now)?;
        let ttl = i64::try_from(terms.ttl.as_nanos()).unwrap_or(i64::MAX);
        self.run(
            "INSERT INTO sessions VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            params![
                id.as_str(),
                now.saturating_add(ttl),
                ttl,
                terms.owner.as_str(),
                peer,
                terms.detached
            ],
        )?;
        self.part.sessions.insert(id.clone(), terms.detached);
        Ok(())
    }

    pub(in super::super) fn renew(
        &mut self,
        now: i64,
        id: &SessionId,
        roll: &[ClaimId],
    ) -> Result<Renewed, Trouble> {
        // The verdict is in the row: what was judged dead is never revived.
        let alive = self.change(
            "UPDATE sessions SET expires = ?2 + ttl WHERE id = ?1 AND expires > ?2",
            params![id.as_str(), now],
        )?;
        if alive == 0 {
            self.end_session(now, id)?;
            return Ok(Renewed::Ended);
        }
        let mut statement = self
            .conn
            .prepare_cached("SELECT id FROM claims WHERE session = ?1")
            .map_err(trouble_of)?;
        let known: HashSet<ClaimId> = statement
            .query_map([id.as_str()], |row| row.get(0).map(ClaimId::from_random))
            .and_then(Iterator::collect)
            .map_err(trouble_of)?;
        let lost = roll.iter().copied().filter(|claim| !known.contains(claim)).collect();
        Ok(Renewed::Extended { lost })
    }

    /// Ends a session and all its claims, and grants to those who waited for them.
    pub(in super::super) fn end_session(
        &mut self,
        now: i64,
        id: &SessionId,
    ) -> Result<(), Trouble> {
        for key in self.contended_keys(id)? {
            let line = self.read_line(&key)?;
            self.settle(now, &key, line, Probe::Front, |entry| entry.session == *id)?;
        }
        // What nobody else wants goes at once, however much it is.
        self.run("DELETE FROM claims WHERE session = ?1", [id.as_str()])?;
        self.run("DELETE FROM sessions WHERE id = ?1", [id.as_str()])?;
        self.ended.push(id.clone());
        Ok(())
    }

    fn contended_keys(&self, id: &SessionId) -> Result<Vec<Key>, Trouble> {
        let mut statement = self
            .conn
            .prepare_cached(
                "SELECT DISTINCT key FROM claims AS mine WHERE session = ?1 AND EXISTS (
                     SELECT 1 FROM claims AS other
                     WHERE other.key = mine.key AND other.session <> mine.session
                 ) ORDER BY key",
            )
            .map_err(trouble_of)?;
        let keys: Vec<String> = statement
            .query_map([id.as_str()], |row| row.get(0))
            .and_then(Iterator::collect)
            .map_err(trouble_of)?;
        keys.iter().map(|key| key_of(key)).collect()
    }

    pub(in super::super) fn enter(
        &mut self,
        now: i64,
        id: &SessionId,
        claim: &Claim,
        enter: Enter,
    ) -> Result<Result<Entered, Refusal>, Trouble> {
        let Some(lease) = self.lease(id)?.filter(|lease| lease.expires > now) else {
            self.end_session(now, id)?;
            return Ok(Err(Refusal::NoSession));
        };
        let key = &claim.key;
        let mut line = self.read_line(key)?;
        match line.iter().find(|entry| entry.id == claim.id) {
            None => {
                if other_limit(&line, claim).is_some() {
                    // Perhaps only the dead see another one.
                    line = self.settle(now, key, line, Probe::All, |_| false)?;
                }
                if let Some(limit) = other_limit(&line, claim) {
                    return Ok(Err(Refusal::Disagrees { limit }));
                }
                self.append(now, claim, id, &mut line, &lease)?;
            }
            Some(entry) if entry.session == *id => {}
            Some(_) => return Ok(Err(Refusal::NotYours)),
        }
        let mut line = self.settle(now, key, line, Probe::Front, |_| false)?;
        let watch = loop {
            let Some(at) = line.iter().position(|entry| entry.id == claim.id) else {
                // Only what is dead is dropped, and this session was alive a moment ago.
                return Ok(Err(Refusal::NoSession));
            };
            if line[at].fence.is_some() {
                break Vec::new();
            }
            match self.nearest_waiter(&line[..at]) {
                Some(peer) if self.directory.life(&peer) == Life::Dead => {
                    self.bury(&peer, key, &mut line)?;
                    line = self.settle(now, key, line, Probe::Front, |_| false)?;
                }
                Some(peer) => break vec![peer],
                None => break self.holders_peers(&line[..at]),
            }
        };
        // The answer says it already.
        self.outbox.retain(|letter| !letter.is_about(claim.id));
        self.place(now, claim, enter, &line, watch).map(Ok)
    }

    /// Enters all of the claims, or none: what was granted before one is refused is given back in the
    /// same transaction, so nobody sees it.
    pub(in super::super) fn enter_all(
        &mut self,
        now: i64,
        id: &SessionId,
        claims: &[Claim],
    ) -> Result<Result<Together, (usize, Refusal)>, Trouble> {
        // What holds since an earlier request has an older fence, and keeps it.
        let before = fence_of(self.counter.last);
        let (mut fences, mut fresh) = (Vec::with_capacity(claims.len()), Vec::new());
        for (at, claim) in claims.iter().enumerate() {
            let entered = self.enter(now, id, claim, Enter::Try)?;
            let refused = match entered.map(|entered| entered.place) {
                Ok(Place::Held(fence)) => {
                    fences.push(fence);
                    fresh.extend((fence > before).then_some(claim));
                    continue;
                }
                Ok(Place::Refused(ahead) | Place::Waiting(ahead)) => {
                    Ok(Together::Refused { at, ahead })
                }
                Err(refusal) => Err((at, refusal)),
            };
            for claim in fresh {
                self.leave(now, id, claim)?;
            }
            return Ok(refused);
        }
        Ok(Ok(Together::Held(fences)))
    }

    fn place(
        &mut self,
        now: i64,
        claim: &Claim,
        enter: Enter,
        line: &[Entry],
        watch: Vec<String>,
    ) -> Result<Entered, Trouble> {
        let at = line.iter().position(|entry| entry.id == claim.id).unwrap_or(line.len());
        if let Some(fence) = line.get(at).and_then(|entry| entry.fence) {
            return Ok(Entered { place: Place::Held(fence_of(fence)), watch, lapse: None });
        }
        let held = line.iter().filter(|entry| entry.fence.is_some()).count();
        let ahead = Ahead {
            rank: Some(u32::try_from(at.saturating_sub(held)).unwrap_or(u32::MAX)),
            holder: line.first().map(|entry| entry.party(now)),
            foreign: false,
        };
        if enter == Enter::Try {
            self.run(
                "DELETE FROM claims WHERE key = ?1 AND id = ?2",
                params![claim.key.as_str(), claim.id.as_bytes()],
            )?;
            return Ok(Entered { place: Place::Refused(ahead), watch: Vec::new(), lapse: None });
        }
        let lapse = line[..at].iter().map(|entry| span(now, entry.expires)).min();
        Ok(Entered { place: Place::Waiting(ahead), watch, lapse })
    }

    /// The process of the nearest waiter ahead that may die before us. Each waiter watches one
    /// ahead of it, so that the end of a holder wakes one process and not all.
    fn nearest_waiter(&self, ahead: &[Entry]) -> Option<String> {
        ahead
            .iter()
            .rev()
            .take_while(|entry| entry.fence.is_none())
            .find(|entry| self.is_foreign(entry))
            .map(|entry| entry.peer.clone())
    }

    /// The processes that hold: the first in line watches them all, because with a limit above 1
    /// the end of any of them may let it in.
    fn holders_peers(&self, ahead: &[Entry]) -> Vec<String> {
        let mut peers: Vec<String> = ahead
            .iter()
            .filter(|entry| entry.fence.is_some() && self.is_foreign(entry))
            .map(|entry| entry.peer.clone())
            .collect();
        peers.sort_unstable();
        peers.dedup();
        peers
    }

    pub(in super::super) fn leave(
        &mut self,
        now: i64,
        id: &SessionId,
        claim: &Claim,
    ) -> Result<Left, Trouble> {
        if self.lease(id)?.is_none_or(|lease| lease.expires <= now) {
            self.end_session(now, id)?;
            return Ok(Left::Gone);
        }
        let line = self.read_line(&claim.key)?;
        let mine = |entry: &Entry| entry.id == claim.id && entry.session == *id;
        let Some(entry) = line.iter().find(|entry| mine(entry)) else {
            return Ok(Left::Gone);
        };
        let left = if entry.fence.is_some() { Left::Released } else { Left::Withdrawn };
        self.settle(now, &claim.key, line, Probe::Front, mine)?;
        Ok(left)
    }

    pub(in super::super) fn amend(
        &mut self,
        now: i64,
        id: &SessionId,
        claim: &Claim,
    ) -> Result<bool, Trouble> {
        let key = &claim.key;
        let Some(mut line) = self.held_line(now, id, key, &claim.id)? else {
            return Ok(false);
        };
        for entry in line.iter_mut().filter(|entry| entry.id == claim.id) {
            entry.share.units = entry.share.units.min(claim.units());
            self.run(
                "UPDATE claims SET note = ?3, units = ?4 WHERE key = ?1 AND ticket = ?2",
                params![key.as_str(), entry.ticket, claim.note.as_str(), entry.share.units],
            )?;
        }
        self.settle(now, key, line, Probe::Front, |_| false)?;
        Ok(true)
    }

    /// The line of a claim of the session that holds `key`; `None` if it does not (any more).
    pub(super) fn held_line(
        &mut self,
        now: i64,
        id: &SessionId,
        key: &Key,
        claim: &ClaimId,
    ) -> Result<Option<Vec<Entry>>, Trouble> {
        if self.lease(id)?.is_none_or(|lease| lease.expires <= now) {
            self.end_session(now, id)?;
            return Ok(None);
        }
        let line = self.read_line(key)?;
        let line = self.settle(now, key, line, Probe::Front, |_| false)?;
        let ours = |entry: &Entry| entry.id == *claim && entry.session == *id;
        let held = line.iter().any(|entry| ours(entry) && entry.fence.is_some());
        Ok(held.then_some(line))
    }

    pub(in super::super) fn revoke(
        &mut self,
        now: i64,
        key: &Key,
        claim: &ClaimId,
    ) -> Result<bool, Trouble> {
        let line = self.read_line(key)?;
        let line = self.settle(now, key, line, Probe::All, |_| false)?;
        let Some(entry) = line.iter().find(|entry| entry.id == *claim).cloned() else {
            return Ok(false);
        };
        self.settle(now, key, line, Probe::Front, |entry| entry.id == *claim)?;
        self.tell(&entry.peer, News::Disturbed(entry.session));
        self.tell(&entry.peer, News::Moved(entry.id));
        Ok(true)
    }

    pub(in super::super) fn inspect(&mut self, now: i64, key: &Key) -> Result<Line, Trouble> {
        let line = self.read_line(key)?;
        let line = self.settle(now, key, line, Probe::All, |_| false)?;
        let (holders, waiters): (Vec<_>, Vec<_>) =
            line.iter().partition(|entry| entry.fence.is_some());
        let parties = |side: Vec<&Entry>| side.into_iter().map(|entry| entry.party(now)).collect();
        Ok(Line { holders: parties(holders), waiters: parties(waiters) })
    }

    pub(in super::super) fn keys(&mut self, now: i64, prefix: &str) -> Result<Vec<Key>, Trouble> {
        self.condemn_orphans(now)?;
        let mut statement = self
            .conn
            .prepare_cached(
                "SELECT DISTINCT c.key FROM claims c
                 WHERE c.key >= ?1
                   AND EXISTS (SELECT 1 FROM sessions s WHERE s.id = c.session AND s.expires > ?2)
                 ORDER BY c.key",
            )
            .map_err(trouble_of)?;
        let mut rows = statement.query(params![prefix, now]).map_err(trouble_of)?;
        let mut keys = Vec::new();
        // What begins with the prefix stands together, right after it.
        while let Some(row) = rows.next().map_err(trouble_of)? {
            let key: String = row.get(0).map_err(trouble_of)?;
            if !key.starts_with(prefix) {
                break;
            }
            keys.push(key_of(&key)?);
        }
        Ok(keys)
    }

    /// Ends the sessions of every process that is known to be dead.
    fn condemn_orphans(&mut self, now: i64) -> Result<(), Trouble> {
        let mut statement = self
            .conn
            .prepare_cached(
                "SELECT DISTINCT peer FROM sessions WHERE detached = 0 AND expires > ?1",
            )
            .map_err(trouble_of)?;
        let peers: Vec<String> = statement
            .query_map([now], |row| row.get(0))
            .and_then(Iterator::collect)
            .map_err(trouble_of)?;
        let own = self.own_name();
        for peer in peers.iter().filter(|peer| own != Some(peer.as_str())) {
            if self.directory.life(peer) == Life::Dead {
                self.condemn(peer)?;
            }
        }
        Ok(())
    }

    /// Ends the sessions of a dead process, for good: nothing extends a session that lapsed.
    pub(super) fn condemn(&self, peer: &str) -> Result<(), Trouble> {
        self.run("UPDATE sessions SET expires = 0 WHERE peer = ?1 AND detached = 0", [peer])
    }

    /// Clears away what dead processes left: their sessions first, then, after the commit, their
    /// files; and a bounded number of sessions that lapsed.
    fn sweep(&mut self, now: i64) -> Result<(), Trouble> {
        self.dead = self.directory.dead();
        for dead in &self.dead {
            self.condemn(&dead.peer)?;
        }
        let mut statement = self
            .conn
            .prepare_cached("SELECT id FROM sessions WHERE expires <= ?1 LIMIT ?2")
            .map_err(trouble_of)?;
        let lapsed: Vec<String> = statement
            .query_map(params![now, SWEEP], |row| row.get(0))
            .and_then(Iterator::collect)
            .map_err(trouble_of)?;
        drop(statement);
        for id in lapsed {
            self.end_session(now, &SessionId::new(&id))?;
        }
        self.sweep_records(now, SWEEP)
    }

    /// Ends the sessions that end with this handle.
    pub(in super::super) fn end_own_sessions(&mut self, now: i64) -> Result<(), Trouble> {
        let own: Vec<(SessionId, bool)> =
            self.part.sessions.iter().map(|(id, detached)| (id.clone(), *detached)).collect();
        for (id, detached) in own {
            if !detached {
                self.end_session(now, &id)?;
            }
        }
        Ok(())
    }

    /// Whether this handle has a session that ends with it.
    pub(in super::super) fn has_own_sessions(&self) -> bool {
        self.part.sessions.values().any(|detached| !detached)
    }

    fn lease(&self, id: &SessionId) -> Result<Option<Lease>, Trouble> {
        self.conn
            .prepare_cached("SELECT expires, owner, peer, detached FROM sessions WHERE id = ?1")
            .and_then(|mut statement| {
                statement
                    .query_row([id.as_str()], |row| {
                        let owner: String = row.get(1)?;
                        Ok(Lease {
                            expires: row.get(0)?,
                            owner: Note::new(&owner).unwrap_or_default(),
                            peer: row.get(2)?,
                            detached: row.get(3)?,
                        })
                    })
                    .optional()
            })
            .map_err(trouble_of)
    }
}
