//! One leader at a time, and who it is.

use std::collections::VecDeque;
use std::time::Duration;

use futures::stream::{self, Stream};
use leasehold_core::backoff::Backoff;
use leasehold_core::{Fence, Note, Record};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::error::{ErrorKind, Result};
use crate::guard::{Guard, Released};
use crate::kept;
use crate::lock::Lock;
use crate::property::Property;
use crate::random;

/// What the record of an office is of.
const KIND: &str = "election/1";

/// How many of the last changes the record of an office remembers, at most.
const REMEMBERED: usize = 64;

/// How often an observer looks.
const LOOK: Duration = Duration::from_millis(500);

/// An office that one leader has at a time, and a note that says who it is: an address, usually.
///
/// A leader is the holder of a lock like any other: it is renewed in the background, and its fence
/// is its term. Whoever the leader tells what to do refuses a smaller term than it has seen.
///
/// ```
/// # leasehold::doc_test(async {
/// # let client = leasehold::Client::open("memory:")?;
/// let office = client.election("scheduler")?;
/// let leader = office.campaign("10.0.0.7:8080").await?; // waits until it leads
/// println!("leads in term {}", leader.term());
///
/// let now = office.leader().await?.expect("somebody leads");
/// assert_eq!(now.note.as_str(), "10.0.0.7:8080"); // what followers connect to
///
/// leader.proclaim("10.0.0.7:9090").await?; // the note changes, the term stays
/// leader.resign().await?; // the next in line leads at once
/// # Ok(()) });
/// ```
///
/// Each change of office is written down in the record of its key, where the store keeps records,
/// so that [`Election::observe`] misses none.
#[derive(Debug, Clone)]
pub struct Election {
    lock: Lock,
}

/// The office in the hands of the one who leads. Dropping it resigns in the background.
#[derive(Debug)]
#[must_use = "dropping a leader resigns"]
pub struct Leader {
    election: Election,
    guard: Guard,
}

/// Who leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leadership {
    /// Its term, where the store knows it: greater than that of every leader before it.
    pub term: Option<Fence>,
    /// Who it says it is.
    pub owner: Note,
    /// What it last proclaimed.
    pub note: Note,
}

/// What an observer is told.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Observed {
    /// This one leads: it was elected, or proclaimed another note.
    Leads(Leadership),
    /// Nobody leads.
    Vacant,
    /// The observer was away for so long that this many changes are forgotten.
    Missed(u64),
}

/// The last changes of an office, the latest last.
#[derive(Debug, Default, Serialize, Deserialize)]
struct History {
    /// The number of the latest change.
    last: u64,
    changes: VecDeque<Change>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Change {
    term: u64,
    owner: String,
    note: String,
    /// It leads no more, because it resigned.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    resigned: bool,
}

impl Election {
    pub(crate) const fn new(lock: Lock) -> Self {
        Self { lock }
    }

    /// The lock behind the office. Who holds it leads; [`Election::take_office`] makes it known.
    #[must_use]
    pub const fn lock(&self) -> &Lock {
        &self.lock
    }

    /// Waits until this client leads, with `note` for others to read: at most 1024 bytes, not
    /// secret.
    ///
    /// # Cancel safety
    ///
    /// As for [`Lock::lock`].
    ///
    /// # Errors
    ///
    /// As for [`Lock::lock`], and [`ErrorKind::Invalid`] for a note that is none.
    pub async fn campaign(&self, note: &str) -> Result<Leader> {
        let lock = self.lock.clone().note(note)?;
        let mut backoff = Backoff::new(LOOK / 32, LOOK, random::seed()?);
        loop {
            let guard = lock.lock().await?;
            match self.take_office(guard).await {
                // The office was lost again before it was taken: to the back of the line.
                Err(error) if error.is_transient() || error.kind() == ErrorKind::Lost => {
                    tracing::warn!(%error, "could not take office; campaigning again");
                }
                outcome => return outcome,
            }
            tokio::time::sleep(backoff.next_wait()).await;
        }
    }

    /// Leads if nobody does and nobody waits to. `None` else.
    ///
    /// # Cancel safety
    ///
    /// As for [`Lock::lock`].
    ///
    /// # Errors
    ///
    /// As for [`Lock::try_lock`], and as for [`Election::take_office`].
    pub async fn try_campaign(&self, note: &str) -> Result<Option<Leader>> {
        match self.lock.clone().note(note)?.try_lock().await? {
            Some(guard) => self.take_office(guard).await.map(Some),
            None => Ok(None),
        }
    }

    /// Takes office with a hold of [`Election::lock`]: writes it down for observers. For callers who
    /// wait for the lock in their own way; [`Election::campaign`] does both.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future resigns in the background.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Lost`] when the hold was lost meanwhile, [`ErrorKind::Corrupt`] when the key's
    /// record is of something else, [`ErrorKind::Invalid`] when the guard is of another key; and
    /// when the store cannot be reached.
    pub async fn take_office(&self, guard: Guard) -> Result<Leader> {
        if guard.key() != self.lock.key() {
            let detail = format!("the guard is of {:?}", guard.key());
            let handle = self.lock.handle();
            let error = handle.error(ErrorKind::Invalid, "take office", detail);
            return Err(error.about(self.lock.key()));
        }
        let leader = Leader { election: self.clone(), guard };
        leader.write_down(false).await?;
        Ok(leader)
    }

    /// Who leads now; `None` if nobody does.
    ///
    /// Cancel safe: it only reads.
    ///
    /// # Errors
    ///
    /// When the store cannot be reached or refuses.
    pub async fn leader(&self) -> Result<Option<Leadership>> {
        let (handle, key) = (self.lock.handle(), self.lock.key());
        let looking = handle.store().inspect(key);
        let line = handle.answered("look at", looking).await;
        let line = line.map_err(|error| error.about(key))?;
        Ok(line.holders.into_iter().next().map(|party| Leadership {
            term: party.fence,
            owner: party.owner,
            note: party.note,
        }))
    }

    /// Who leads, and then every change of it, looking twice a second: first who leads now, then each
    /// leader in turn, also one that led for less than that, and each note that was proclaimed.
    ///
    /// The stream goes on through trouble with the store, of which it tells, and ends after an
    /// error that asking again does not mend. It misses no change of office by a leasehold client as
    /// long as the store keeps records and the observer looks again before 64 more have come
    /// ([`Observed::Missed`]). Leaders by other recipes (`etcdctl elect`), and leaders over a store
    /// without records, are seen if they lead when it looks.
    ///
    /// Needs a runtime with a timer; dropping the stream at any time is fine.
    pub fn observe(&self) -> impl Stream<Item = Result<Observed>> + Send + use<> {
        let watch = Watch::new(self);
        stream::unfold(watch, |mut watch| async move { Some((watch.next().await?, watch)) })
    }

    /// The last changes, where the store keeps records.
    async fn history(&self) -> Result<Option<History>> {
        let handle = self.lock.handle();
        if !handle.store().guarantees().has(Property::Records) {
            return Ok(None);
        }
        let (history, _) = kept::read::<History>(handle, self.lock.key(), KIND).await?;
        Ok(Some(history.unwrap_or_default()))
    }
}

impl Leader {
    /// Its fence: greater than that of every leader before it.
    #[must_use]
    pub const fn term(&self) -> Fence {
        self.guard.fence()
    }

    /// The hold of the office.
    pub const fn guard(&self) -> &Guard {
        &self.guard
    }

    /// As [`Guard::check`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn check(&self) -> Result<()> {
        self.guard.check()
    }

    /// As [`Guard::lost`].
    ///
    /// Cancel safe.
    pub async fn lost(&self) {
        self.guard.lost().await;
    }

    /// As [`Guard::cancellation`].
    #[must_use]
    pub fn cancellation(&self) -> CancellationToken {
        self.guard.cancellation()
    }

    /// Changes the note without losing office.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves it open which note stands, and whether observers are told.
    ///
    /// # Errors
    ///
    /// As for [`Guard::set_note`].
    pub async fn proclaim(&self, note: &str) -> Result<()> {
        self.guard.set_note(note).await?;
        self.write_down(false).await
    }

    /// Leaves office: the next in line leads at once. Says whether the office was still ours.
    ///
    /// # Cancel safety
    ///
    /// As for [`Guard::release`].
    ///
    /// # Errors
    ///
    /// As for [`Guard::release`].
    pub async fn resign(self) -> Result<Released> {
        if let Err(error) = self.write_down(true).await {
            // Observers then find the office vacant, or the next leader in it.
            tracing::debug!(%error, "the resignation was not written down");
        }
        self.guard.release().await
    }

    /// Adds what is now to the history, under the hold.
    async fn write_down(&self, resigned: bool) -> Result<()> {
        let Some(mut history) = self.election.history().await? else {
            return Ok(());
        };
        let owner = self.guard.handle().settings().terms.owner.as_str().to_owned();
        let note = self.guard.current_note().as_str().to_owned();
        let change = Change { term: self.term().get(), owner, note, resigned };
        history.add(change);
        let Some(record) = history.record() else {
            let detail = "owner and note are too long to be kept together";
            let error = self.guard.handle().error(ErrorKind::Invalid, "take office", detail);
            return Err(error.about(self.guard.key()));
        };
        self.guard.write(&record).await.map(drop)
    }
}

impl History {
    fn add(&mut self, change: Change) {
        // Asked again after an answer that got lost.
        if self.changes.back() == Some(&change) {
            return;
        }
        self.last = self.last.saturating_add(1);
        self.changes.push_back(change);
        while self.changes.len() > REMEMBERED {
            self.changes.pop_front();
        }
    }

    /// As much of it as a record holds.
    fn record(&mut self) -> Option<Record> {
        loop {
            if let Some(record) = kept::record(KIND, self, Record::MAX_KEEP) {
                return Some(record);
            }
            if self.changes.len() < 2 {
                return None;
            }
            self.changes.pop_front();
        }
    }

    /// The changes after number `seen`, and how many of them are forgotten.
    fn since(&self, seen: u64) -> (u64, impl Iterator<Item = &Change>) {
        let remembered = u64::try_from(self.changes.len()).unwrap_or(u64::MAX);
        let new = self.last.saturating_sub(seen);
        let missed = new.saturating_sub(remembered);
        let skipped = usize::try_from(remembered.saturating_sub(new)).unwrap_or(usize::MAX);
        (missed, self.changes.iter().skip(skipped))
    }
}

impl From<&Change> for Observed {
    fn from(change: &Change) -> Self {
        if change.resigned {
            return Self::Vacant;
        }
        // They were notes when they were written.
        let note = |text: &str| Note::new(text).unwrap_or_default();
        Self::Leads(Leadership {
            term: Some(Fence::new(change.term)),
            owner: note(&change.owner),
            note: note(&change.note),
        })
    }
}

/// An observer.
struct Watch {
    election: Election,
    /// The number of the last change that was told; `None` before the first look.
    seen: Option<u64>,
    /// What was told last.
    told: Option<Observed>,
    /// What is to be told next.
    queue: VecDeque<Result<Observed>>,
    /// After an error that asking again does not mend.
    over: bool,
}

impl Watch {
    fn new(election: &Election) -> Self {
        let election = election.clone();
        Self { election, seen: None, told: None, queue: VecDeque::new(), over: false }
    }

    async fn next(&mut self) -> Option<Result<Observed>> {
        loop {
            if let Some(next) = self.queue.pop_front() {
                if let Ok(told) = &next {
                    self.told = Some(told.clone());
                }
                return Some(next);
            }
            if self.over {
                return None;
            }
            if self.told.is_some() {
                tokio::time::sleep(LOOK).await;
            }
            if let Err(error) = self.look().await {
                self.over = !error.is_transient();
                self.queue.push_back(Err(error));
                if !self.over {
                    tokio::time::sleep(LOOK).await;
                }
            }
        }
    }

    /// Looks who leads, and then what has changed: what is in the history is never older than who was
    /// seen to lead, so the history goes first.
    async fn look(&mut self) -> Result<()> {
        if self.seen.is_none() {
            // Before the first look at who leads: whoever comes after it is then a change.
            self.seen = self.election.history().await?.map(|history| history.last);
        }
        let now = self.election.leader().await?;
        let mut latest = self.told.clone();
        let mut stale = false;
        if let (Some(history), Some(seen)) = (self.election.history().await?, self.seen) {
            let (missed, changes) = history.since(seen);
            if missed > 0 {
                self.queue.push_back(Ok(Observed::Missed(missed)));
            }
            for change in changes {
                let change = Observed::from(change);
                if latest.as_ref() != Some(&change) {
                    latest = Some(change.clone());
                    self.queue.push_back(Ok(change));
                }
                stale = true;
            }
            self.seen = Some(history.last);
        }
        // Who was seen to lead may have been followed by one of the history since; the next look tells.
        let now = now.map_or(Observed::Vacant, Observed::Leads);
        if !stale && latest.as_ref() != Some(&now) {
            self.queue.push_back(Ok(now));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(term: u64, note: &str) -> Change {
        Change { term, owner: "o".into(), note: note.into(), resigned: false }
    }

    #[test]
    fn a_history_forgets_the_oldest_and_counts_them() {
        let mut history = History::default();
        for term in 1..=100 {
            history.add(change(term, "n"));
            history.add(change(term, "n"));
        }
        assert_eq!((history.last, history.changes.len()), (100, REMEMBERED));
        let terms = |seen| {
            let (missed, changes) = history.since(seen);
            (missed, changes.map(|change| change.term).collect::<Vec<_>>())
        };
        assert_eq!(terms(100), (0, vec![]));
        assert_eq!(terms(98), (0, vec![99, 100]));
        assert_eq!(terms(36).0, 0);
        assert_eq!(terms(35).0, 1);
        assert_eq!(terms(0), (36, (37..=100).collect()));
        assert_eq!(terms(200), (0, vec![]), "the record was lost and began anew");
    }

    #[test]
    fn a_history_whose_number_is_the_last_goes_on() {
        let mut history = History { last: u64::MAX, ..History::default() };
        history.add(change(1, "n"));
        assert_eq!((history.last, history.changes.len()), (u64::MAX, 1));
        assert_eq!(history.since(0).0, u64::MAX - 1);
    }

    #[test]
    fn a_history_of_long_notes_still_fits_a_record() {
        let mut history = History::default();
        for term in 0..200 {
            // The worst for JSON: each byte becomes six.
            history.add(change(term, &"\u{1}".repeat(Note::MAX_BYTES)));
        }
        let record = history.record().expect("fits");
        assert!(record.value().len() <= Record::MAX_BYTES);
        assert!(history.changes.len() >= 2 && history.changes.back().unwrap().term == 199);
    }
}
