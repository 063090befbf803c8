//! Records, beside the lines.

use std::time::Duration;

use leasehold_core::{Key, Provided, Record, Version, Written};
use rusqlite::{OptionalExtension as _, params};

use super::{Wire, trouble_of};
use crate::stores::sqlite::trouble::Trouble;

/// How many records whose time is over are deleted by whoever adds one: more than one, so that
/// they get fewer.
const FEW: i64 = 4;

impl Wire {
    /// The record of `key`.
    pub(in super::super) fn read(&self, now: i64, key: &Key) -> Result<Option<Written>, Trouble> {
        self.conn
            .prepare_cached("SELECT value, version FROM records WHERE key = ?1 AND until > ?2")
            .and_then(|mut statement| {
                statement
                    .query_row(params![key.as_str(), now], |row| {
                        let value: Vec<u8> = row.get(0)?;
                        let version: i64 = row.get(1)?;
                        let version = Version::new(version.unsigned_abs());
                        Ok(Written { value: value.into(), version })
                    })
                    .optional()
            })
            .map_err(trouble_of)
    }

    /// Writes the record of `key` if what is `provided` is true: whether it was. `wall` is the time
    /// since 1970.
    pub(in super::super) fn write(
        &mut self,
        now: i64,
        wall: Duration,
        key: &Key,
        provided: Provided<'_>,
        record: &Record,
    ) -> Result<bool, Trouble> {
        let stands = match provided {
            Provided::Unchanged(version) => {
                self.read(now, key)?.map(|written| written.version) == version
            }
            Provided::Held(session, claim) => {
                self.held_line(now, session, key, &claim.id)?.is_some()
            }
        };
        if stands {
            self.put(now, wall, key, record)?;
        }
        Ok(stands)
    }

    fn put(&mut self, now: i64, wall: Duration, key: &Key, record: &Record) -> Result<(), Trouble> {
        let keep = i64::try_from(record.keep().as_nanos()).unwrap_or(i64::MAX);
        let lasts = i64::try_from((wall + record.keep()).as_micros()).unwrap_or(i64::MAX);
        let version = self.counter.next(self.floor)?;
        let row = params![key.as_str(), record.value(), version, now.saturating_add(keep), lasts];
        let replaced = self.change(
            "UPDATE records SET value = ?2, version = ?3, until = ?4, lasts = ?5 WHERE key = ?1",
            row,
        )?;
        if replaced == 0 {
            self.run("INSERT INTO records VALUES (?1, ?2, ?3, ?4, ?5)", row)?;
            self.sweep_records(now, FEW)?;
        }
        Ok(())
    }

    /// Deletes a few records whose time is over.
    pub(super) fn sweep_records(&self, now: i64, few: i64) -> Result<(), Trouble> {
        self.run(
            "DELETE FROM records WHERE rowid IN (
                 SELECT rowid FROM records WHERE until <= ?1 ORDER BY until LIMIT ?2)",
            [now, few],
        )
    }

    /// Gives the records of another boot times of this one: a record outlives a boot, and only the
    /// wall clock knows how long that took.
    pub(super) fn carry_records_over(&self) -> Result<(), Trouble> {
        self.run(
            "UPDATE records SET until = ?1 + max(0, lasts - ?2) * 1000",
            [self.now(), self.floor],
        )
    }
}
