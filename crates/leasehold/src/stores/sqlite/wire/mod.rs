//! The file: transactions over sessions and claims. The only user of the driver.
//!
//! Every operation takes `now` as an argument, read inside its transaction: the write lock is held
//! before the clock is looked at, so verdicts follow one another in the order of time.

mod fence;
mod line;
mod operations;
mod records;
mod schema;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use leasehold_core::SessionId;
use rusqlite::{Connection, ErrorCode, Params};

use self::fence::Counter;
pub(super) use self::operations::Refusal;
use super::boot::Boot;
use super::peers::{Dead, Directory, Peer};
use super::place::Place;
use super::trouble::Trouble;
use super::wake::Letter;
use crate::error::ErrorKind;
use crate::stores::mailbox::Mailbox;

/// What `SQLite` says of a file.
#[derive(Debug, Clone)]
pub(super) struct Facts {
    /// The mode of its journal: `wal`.
    pub(super) journal: String,
    /// `ok`, or the first damage that was found.
    pub(super) integrity: String,
    pub(super) pages: u64,
    pub(super) page_size: u64,
}

const SYNCED: &str = "PRAGMA synchronous = FULL";
const UNSYNCED: &str = "PRAGMA synchronous = NORMAL";

/// An open database, and this handle's part in it.
#[derive(Debug)]
pub(super) struct Wire {
    conn: Connection,
    place: Place,
    boot: Boot,
    /// No fence is at or below this: the wall clock in microseconds when the file was opened.
    floor: i64,
    /// Whether the file was found to be of this boot.
    adopted: bool,
    /// Whether this transaction has to be on the disk when it is committed.
    lasting: bool,
    counter: Counter,
    /// The counter as the file has it.
    written: Counter,
    pub(super) directory: Arc<Directory>,
    part: Part,
    /// What to do once the transaction is committed.
    outbox: Vec<Letter>,
    ended: Vec<SessionId>,
    dead: Vec<Dead>,
}

/// A handle's part in a file: it outlives a connection that broke.
#[derive(Debug, Default)]
pub(super) struct Part {
    peer: Option<Peer>,
    /// The sessions that this handle opened and did not close, and whether they are detached.
    sessions: HashMap<SessionId, bool>,
}

impl Wire {
    /// Opens the file at `place`.
    pub(super) fn open(place: Place, boot: Boot, floor: i64) -> Result<Self, Trouble> {
        let conn = schema::open(&place)?;
        let directory = Directory::open(&place)?;
        Ok(Self {
            conn,
            place,
            boot,
            floor,
            adopted: false,
            lasting: false,
            counter: Counter::default(),
            written: Counter::default(),
            directory,
            part: Part::default(),
            outbox: Vec::new(),
            ended: Vec::new(),
            dead: Vec::new(),
        })
    }

    /// Gives up the connection, and keeps the part if the file is still the same: as long as this
    /// handle may believe that it holds, the others must see it alive.
    pub(super) fn into_part(self) -> Option<Part> {
        self.place.is_still_there().then_some(self.part)
    }

    /// Takes up the part of an earlier connection to the same file.
    pub(super) fn resume(&mut self, part: Part) {
        self.part = part;
    }

    /// Now, on the clock of the machine.
    pub(super) fn now(&self) -> i64 {
        self.boot.now()
    }

    /// Takes the write lock. When it is not taken nothing was done. What is to be `lasting` is on
    /// the disk after the commit; the rest gets there soon.
    pub(super) fn begin(&mut self, lasting: bool) -> Result<(), Trouble> {
        if !self.place.is_still_there() {
            return Err(Trouble::new(
                ErrorKind::Unavailable,
                "the file was removed or replaced while it was in use, so its locks exclude nobody \
                 any more; it is opened anew with the next request",
            ));
        }
        if lasting != self.lasting {
            // May not be changed within a transaction.
            self.batch(if lasting { SYNCED } else { UNSYNCED })?;
            self.lasting = lasting;
        }
        self.run("BEGIN IMMEDIATE", [])?;
        let ready = self.check_in();
        if ready.is_err() {
            self.roll_back();
        }
        ready
    }

    /// Reads the counter, and makes it good for this transaction.
    fn check_in(&mut self) -> Result<(), Trouble> {
        self.counter = self.read_counter()?;
        if self.adopted && self.counter.boot != self.boot.id() {
            return Err(Trouble::new(
                ErrorKind::Unsupported,
                "the file is used from another machine at the same time, and locks do not hold \
                 between machines; give each machine a file of its own, or use a store with a \
                 server",
            ));
        }
        if self.counter.boot != self.boot.id() || !self.counter.has_room(self.floor) {
            self.run("ROLLBACK", [])?;
            self.reserve()?;
            self.run("BEGIN IMMEDIATE", [])?;
            self.counter = self.read_counter()?;
        }
        self.adopted = true;
        self.written = self.counter.clone();
        Ok(())
    }

    /// Reserves fences by a synced commit, and clears away what another boot left: all its
    /// processes are dead, and its times mean nothing.
    fn reserve(&mut self) -> Result<(), Trouble> {
        // If what follows fails it stays, and is safe.
        self.batch(SYNCED)?;
        self.run("BEGIN IMMEDIATE", [])?;
        self.check_that_commits_are_synced()?;
        let mut counter = self.read_counter()?;
        if counter.boot != self.boot.id() {
            self.batch("DELETE FROM claims; DELETE FROM sessions")?;
            self.carry_records_over()?;
        }
        counter.reserve(self.floor, self.boot.id())?;
        self.write_counter(&counter)?;
        self.run("COMMIT", [])?;
        self.batch(if self.lasting { SYNCED } else { UNSYNCED })
    }

    /// `SQLite` ignores the setting where it does not suit it, and says nothing.
    fn check_that_commits_are_synced(&self) -> Result<(), Trouble> {
        let level: i64 =
            self.conn.query_row("PRAGMA synchronous", [], |row| row.get(0)).map_err(trouble_of)?;
        if level >= 2 {
            return Ok(());
        }
        Err(Trouble::new(
            ErrorKind::Unsupported,
            "SQLite does not sync this file, so fences could fall back after a loss of power",
        ))
    }

    fn read_counter(&self) -> Result<Counter, Trouble> {
        let counter = self
            .conn
            .prepare_cached("SELECT last, reserved, boot FROM counter")
            .and_then(|mut statement| {
                statement.query_row([], |row| {
                    Ok(Counter { last: row.get(0)?, reserved: row.get(1)?, boot: row.get(2)? })
                })
            })
            .map_err(trouble_of)?;
        if counter.last < 0 || counter.reserved < counter.last {
            return Err(Trouble::new(
                ErrorKind::Corrupt,
                "the counter of fences is not as leasehold leaves it; stop all users of the file \
                 and move it away",
            ));
        }
        Ok(counter)
    }

    fn write_counter(&self, counter: &Counter) -> Result<(), Trouble> {
        self.run(
            "UPDATE counter SET last = ?1, reserved = ?2, boot = ?3",
            (counter.last, counter.reserved, &counter.boot),
        )
    }

    /// Makes what was done last, and tells those whom it concerns.
    pub(super) fn commit(&mut self, mailbox: &Mailbox) -> Result<(), Trouble> {
        let committed = self.try_commit();
        if committed.is_err() {
            self.roll_back();
            return committed;
        }
        let own = self.part.peer.as_ref().map(Peer::name);
        super::wake::send(std::mem::take(&mut self.outbox), own, &self.directory, mailbox);
        for dead in self.dead.drain(..) {
            dead.remove(&self.directory);
        }
        for session in self.ended.drain(..) {
            self.part.sessions.remove(&session);
        }
        if self.part.sessions.is_empty() {
            // The rows are gone, so the file of this peer may go.
            self.part.peer = None;
        }
        Ok(())
    }

    fn try_commit(&mut self) -> Result<(), Trouble> {
        if self.counter != self.written {
            self.write_counter(&self.counter)?;
        }
        self.run("COMMIT", [])
    }

    /// Undoes what was done since [`Wire::begin`].
    pub(super) fn roll_back(&mut self) {
        self.outbox.clear();
        self.ended.clear();
        self.dead.clear();
        if !self.conn.is_autocommit()
            && let Err(trouble) = self.run("ROLLBACK", [])
        {
            tracing::warn!(?trouble, "a transaction could not be rolled back");
        }
    }

    /// Whether the connection can be used further.
    pub(super) fn is_sound(&self) -> bool {
        self.conn.is_autocommit() && self.place.is_still_there()
    }

    /// This handle as the others see it, from now on.
    pub(super) fn be_seen(&mut self) -> Result<String, Trouble> {
        if let Some(peer) = &self.part.peer {
            return Ok(peer.name().to_owned());
        }
        let peer = match Peer::new(&self.directory) {
            // Somebody may have cleaned up the directory.
            Err(trouble) if trouble.kind == ErrorKind::Unavailable => {
                self.directory = Directory::open(&self.place)?;
                Peer::new(&self.directory)?
            }
            made => made?,
        };
        Ok(self.part.peer.insert(peer).name().to_owned())
    }

    /// What keeps this handle from being seen dead; `None` if it is not seen yet.
    pub(super) fn lifeline(&self) -> Result<Option<OwnedFd>, Trouble> {
        let copy = self.part.peer.as_ref().map(Peer::lifeline).transpose();
        copy.map_err(|error| Trouble::io("copy the descriptor in", &self.place.path, error))
    }

    /// What `SQLite` says of the file.
    pub(super) fn facts(&self) -> Result<Facts, Trouble> {
        let one = |pragma: &str| {
            let ask = |row: &rusqlite::Row<'_>| row.get::<_, rusqlite::types::Value>(0);
            let value = self.conn.query_row(pragma, [], ask).map_err(trouble_of)?;
            Ok(match value {
                rusqlite::types::Value::Text(text) => text,
                rusqlite::types::Value::Integer(number) => number.to_string(),
                _ => String::new(),
            })
        };
        Ok(Facts {
            journal: one("PRAGMA journal_mode")?,
            integrity: one("PRAGMA quick_check(1)")?,
            pages: one("PRAGMA page_count")?.parse().unwrap_or_default(),
            page_size: one("PRAGMA page_size")?.parse().unwrap_or_default(),
        })
    }

    fn own_name(&self) -> Option<&str> {
        self.part.peer.as_ref().map(Peer::name)
    }

    /// Begins to receive wake-ups if there is a session that they could concern. Must be called
    /// before the commit that makes somebody want to send one.
    pub(super) fn listen(&mut self, mailbox: &Arc<Mailbox>) -> bool {
        let Some(peer) = &mut self.part.peer else {
            return false;
        };
        match peer.listen(mailbox) {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!(%error, "no socket for wake-ups; waiters poll");
                false
            }
        }
    }

    /// Runs one statement, prepared once.
    fn run(&self, sql: &str, params: impl Params) -> Result<(), Trouble> {
        self.change(sql, params).map(drop)
    }

    /// Runs one statement, and tells how many rows it changed.
    fn change(&self, sql: &str, params: impl Params) -> Result<usize, Trouble> {
        self.conn
            .prepare_cached(sql)
            .and_then(|mut statement| statement.execute(params))
            .map_err(trouble_of)
    }

    fn batch(&self, sql: &str) -> Result<(), Trouble> {
        self.conn.execute_batch(sql).map_err(trouble_of)
    }
}

/// `SQLITE_IOERR_SHMSIZE`: the memory shared by processes could not grow. It lies on the disk.
const NO_ROOM_FOR_SHARED_MEMORY: i32 = rusqlite::ffi::SQLITE_IOERR_SHMSIZE;

/// What the driver's error means.
fn trouble_of(error: rusqlite::Error) -> Trouble {
    let rusqlite::Error::SqliteFailure(failure, _) = &error else {
        return Trouble::new(
            ErrorKind::Corrupt,
            "the file holds what this version of leasehold does not write; if leasehold is up to \
             date, stop all users of the file and move it away",
        )
        .because(error);
    };
    let (kind, detail) = match (failure.code, failure.extended_code) {
        (_, NO_ROOM_FOR_SHARED_MEMORY) | (ErrorCode::DiskFull, _) => {
            (ErrorKind::Full, "no space is left on the file's filesystem; free some")
        }
        (ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked, _) => (
            ErrorKind::Unavailable,
            "another process kept the file locked for 5 s; look for one that is stopped, and for \
             a disk that hangs",
        ),
        (ErrorCode::ReadOnly, _) => {
            (ErrorKind::Full, "the file or its directory may not be written to; correct the mode")
        }
        (ErrorCode::PermissionDenied | ErrorCode::CannotOpen, _) => (
            ErrorKind::Denied,
            "the file, its -wal or its -shm cannot be opened; correct the owner or the mode of all \
             three and of their directory",
        ),
        (ErrorCode::NotADatabase, _) => (
            ErrorKind::Corrupt,
            "the file is not a SQLite database; name another one, or move it away",
        ),
        (ErrorCode::DatabaseCorrupt, _) => (
            ErrorKind::Corrupt,
            "the file is damaged; stop all its users and move it away together with its -wal and \
             -shm (fences go on growing in the new one)",
        ),
        (ErrorCode::SystemIoFailure, _) => {
            (ErrorKind::Unavailable, "reading or writing the file failed; see the system's log")
        }
        _ => (ErrorKind::Unavailable, "SQLite failed; see the cause"),
    };
    let trouble = Trouble::new(kind, detail);
    // A write that failed half-way may be found complete when the file is read again.
    let trouble = if failure.code == ErrorCode::SystemIoFailure && kind != ErrorKind::Full {
        trouble.outcome_unknown()
    } else {
        trouble
    };
    trouble.because(error)
}
