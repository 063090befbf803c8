//! The lines: the one rule over the rows of a key, inside a transaction.

use leasehold_core::line::{Share, holders};
use leasehold_core::{Claim, ClaimId, Fence, Key, Note, Party, SessionId};
use rusqlite::{Row, params};
use std::time::Duration;

use super::{Wire, trouble_of};
use crate::error::ErrorKind;
use crate::stores::sqlite::peers::Life;
use crate::stores::sqlite::trouble::Trouble;
use crate::stores::sqlite::wake::{Letter, News};

/// A claim in its line.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) ticket: i64,
    pub(super) id: ClaimId,
    pub(super) session: SessionId,
    pub(super) share: Share,
    pub(super) note: Note,
    pub(super) entered: i64,
    /// Set at the grant, and never changed after.
    pub(super) fence: Option<i64>,
    pub(super) granted: Option<i64>,
    /// When the session lapses; 0 if there is none any more.
    pub(super) expires: i64,
    pub(super) owner: Note,
    pub(super) peer: String,
    pub(super) detached: bool,
}

/// How many of a line's claims are asked whether their process lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Probe {
    /// Those that hold or would: what the rule needs.
    Front,
    /// All: for showing the line.
    All,
}

const READ: &str = "
SELECT c.ticket, c.id, c.session, c.units, c.\"limit\", c.note, c.entered, c.fence, c.granted,
       coalesce(s.expires, 0), coalesce(s.owner, ''), coalesce(s.peer, ''), coalesce(s.detached, 1)
FROM claims c LEFT JOIN sessions s ON s.id = c.session
WHERE c.key = ?1 ORDER BY c.ticket";

impl Wire {
    /// The claims on `key` as they stand in the file, dead ones included.
    pub(super) fn read_line(&self, key: &Key) -> Result<Vec<Entry>, Trouble> {
        let mut statement = self.conn.prepare_cached(READ).map_err(trouble_of)?;
        let rows = statement.query_map([key.as_str()], entry).map_err(trouble_of)?;
        rows.collect::<Result<_, _>>().map_err(trouble_of)
    }

    /// Drops from a line what is dead or `gone`, and grants what now fits, in the same step:
    /// dead claims are passed over however many there are.
    pub(super) fn settle(
        &mut self,
        now: i64,
        key: &Key,
        mut line: Vec<Entry>,
        probe: Probe,
        gone: impl Fn(&Entry) -> bool,
    ) -> Result<Vec<Entry>, Trouble> {
        self.drop_entries(key, &mut line, |entry| entry.expires <= now || gone(entry))?;
        let fitting = loop {
            let fitting = holders(line.iter().map(|entry| entry.share));
            let asked = if probe == Probe::All { line.len() } else { fitting };
            let dead = line[..asked].iter().find(|entry| self.is_orphan(entry));
            let Some(dead) = dead.map(|entry| entry.peer.clone()) else {
                break fitting;
            };
            self.bury(&dead, key, &mut line)?;
        };
        for entry in line.iter_mut().take(fitting).filter(|entry| entry.fence.is_none()) {
            self.grant(now, key, entry)?;
        }
        Ok(line)
    }

    /// Ends the sessions of a dead process, and drops its claims from this line. Those in other
    /// lines are dropped when these are looked at.
    pub(super) fn bury(
        &mut self,
        peer: &str,
        key: &Key,
        line: &mut Vec<Entry>,
    ) -> Result<(), Trouble> {
        self.condemn(peer)?;
        self.drop_entries(key, line, |entry| entry.peer == peer && !entry.detached)
    }

    /// Whether the process behind a claim is known to be dead. Sessions of this handle are not,
    /// and detached ones do not depend on their process.
    pub(super) fn is_orphan(&self, entry: &Entry) -> bool {
        self.is_foreign(entry) && self.directory.life(&entry.peer) == Life::Dead
    }

    /// Whether a claim lives and dies with another process.
    pub(super) fn is_foreign(&self, entry: &Entry) -> bool {
        !entry.detached && self.own_name() != Some(entry.peer.as_str())
    }

    /// Drops entries from a line. Who waits behind a dropped waiter is told: its rank changed, and
    /// it may now be the one to watch the holder.
    fn drop_entries(
        &mut self,
        key: &Key,
        line: &mut Vec<Entry>,
        gone: impl Fn(&Entry) -> bool,
    ) -> Result<(), Trouble> {
        if !line.iter().any(&gone) {
            return Ok(());
        }
        let mut kept = Vec::with_capacity(line.len());
        let mut moved_up = false;
        for entry in line.drain(..) {
            if gone(&entry) {
                self.run(
                    "DELETE FROM claims WHERE key = ?1 AND ticket = ?2",
                    params![key.as_str(), entry.ticket],
                )?;
                moved_up |= entry.fence.is_none();
                continue;
            }
            if moved_up && entry.fence.is_none() {
                self.tell(&entry.peer, News::Moved(entry.id));
                moved_up = false;
            }
            kept.push(entry);
        }
        *line = kept;
        Ok(())
    }

    /// Appends a claim to its line.
    pub(super) fn append(
        &self,
        now: i64,
        claim: &Claim,
        session: &SessionId,
        line: &mut Vec<Entry>,
        lease: &Lease,
    ) -> Result<(), Trouble> {
        let ticket = line.last().map_or(1, |entry| entry.ticket + 1);
        self.run(
            "INSERT INTO claims VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, NULL, NULL)",
            params![
                claim.key.as_str(),
                ticket,
                claim.id.as_bytes(),
                session.as_str(),
                claim.units(),
                claim.limit(),
                claim.note.as_str(),
                now
            ],
        )?;
        line.push(Entry {
            ticket,
            id: claim.id,
            session: session.clone(),
            share: Share::from(claim),
            note: claim.note.clone(),
            entered: now,
            fence: None,
            granted: None,
            expires: lease.expires,
            owner: lease.owner.clone(),
            peer: lease.peer.clone(),
            detached: lease.detached,
        });
        Ok(())
    }

    fn grant(&mut self, now: i64, key: &Key, entry: &mut Entry) -> Result<(), Trouble> {
        let fence = self.counter.next(self.floor)?;
        self.run(
            "UPDATE claims SET fence = ?3, granted = ?4 WHERE key = ?1 AND ticket = ?2",
            params![key.as_str(), entry.ticket, fence, now],
        )?;
        entry.fence = Some(fence);
        entry.granted = Some(now);
        self.tell(&entry.peer, News::Granted(entry.id, fence_of(fence)));
        Ok(())
    }

    pub(super) fn tell(&mut self, peer: &str, news: News) {
        self.outbox.push(Letter { peer: peer.to_owned(), news });
    }
}

/// What an entry takes over from its session.
#[derive(Debug)]
pub(super) struct Lease {
    pub(super) expires: i64,
    pub(super) owner: Note,
    pub(super) peer: String,
    pub(super) detached: bool,
}

impl Entry {
    /// The claim as others see it.
    pub(super) fn party(&self, now: i64) -> Party {
        Party {
            claim: Some(self.id),
            owner: self.owner.clone(),
            note: self.note.clone(),
            fence: self.fence.map(fence_of),
            age: Some(span(self.granted.unwrap_or(self.entered), now)),
            left: Some(span(now, self.expires)),
            units: self.share.units,
            limit: self.share.limit,
        }
    }
}

/// Fences are counted from 1 within an `i64`.
pub(super) fn fence_of(number: i64) -> Fence {
    Fence::new(number.unsigned_abs())
}

/// From one time to another; zero if they are the other way round.
pub(super) fn span(from: i64, to: i64) -> Duration {
    Duration::from_nanos(u64::try_from(to.saturating_sub(from)).unwrap_or(0))
}

fn entry(row: &Row<'_>) -> rusqlite::Result<Entry> {
    let session: String = row.get(2)?;
    let note: String = row.get(5)?;
    let owner: String = row.get(10)?;
    Ok(Entry {
        ticket: row.get(0)?,
        id: ClaimId::from_random(row.get(1)?),
        session: SessionId::new(&session),
        share: Share { units: row.get(3)?, limit: row.get(4)? },
        // What is only for people to read does not make a line unusable.
        note: Note::new(&note).unwrap_or_default(),
        entered: row.get(6)?,
        fence: row.get(7)?,
        granted: row.get(8)?,
        expires: row.get(9)?,
        owner: Note::new(&owner).unwrap_or_default(),
        peer: row.get(11)?,
        detached: row.get(12)?,
    })
}

/// A key as the file has it.
pub(super) fn key_of(text: &str) -> Result<Key, Trouble> {
    Key::new(text).map_err(|error| {
        Trouble::new(ErrorKind::Corrupt, "a key in the file is none that leasehold writes")
            .because(error)
    })
}
