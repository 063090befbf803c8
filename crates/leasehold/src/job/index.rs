//! Which jobs there are: a record of their keys, so that they can be listed.

use std::collections::BTreeSet;

use leasehold_core::{Key, Provided, Record, Version};
use serde::{Deserialize, Serialize};

use super::{Run, last_of};
use crate::error::Result;
use crate::kept;
use crate::session::Handle;

/// What the record is of.
const KIND: &str = "jobs/1";

/// The key that it is the record of.
const NAME: &str = "leasehold.jobs";

/// How often another's writing is let pass before it is given up: another run tries again.
const TRIES: usize = 8;

#[derive(Debug, Default, Serialize, Deserialize)]
struct Jobs {
    keys: BTreeSet<String>,
}

fn key() -> Option<Key> {
    Key::new(NAME).ok()
}

/// Adds a job to the list. A job that cannot be listed is done all the same.
pub(super) async fn enter(handle: &Handle, job: &Key) {
    if let Err(error) = try_enter(handle, job).await {
        tracing::debug!(%error, job = ?job, "the job was not put on the list of jobs");
    }
}

async fn try_enter(handle: &Handle, job: &Key) -> Result<()> {
    change(handle, job, |keys| keys.insert(job.as_str().to_owned())).await
}

/// Takes a job off the list.
pub(crate) async fn unlist(handle: &Handle, job: &Key) -> Result<()> {
    change(handle, job, |keys| keys.remove(job.as_str())).await
}

/// Changes the list, until `change` says that there is nothing to do.
async fn change(
    handle: &Handle,
    job: &Key,
    change: impl Fn(&mut BTreeSet<String>) -> bool,
) -> Result<()> {
    let Some(key) = key() else { return Ok(()) };
    for _ in 0..TRIES {
        let (jobs, reading) = kept::read::<Jobs>(handle, &key, KIND).await?;
        let mut jobs = jobs.unwrap_or_default();
        if !change(&mut jobs.keys) {
            return Ok(());
        }
        let Some(record) = kept::record(KIND, &jobs, Record::MAX_KEEP) else {
            tracing::warn!(job = ?job, "the list of jobs is full; this one will not be listed");
            return Ok(());
        };
        let version: Option<Version> = reading.written.map(|written| written.version);
        let writing = handle.store().write(&key, Provided::Unchanged(version), &record);
        if handle.answered_soon("write the list of jobs", writing).await? {
            return Ok(());
        }
    }
    Ok(())
}

/// All jobs whose keys begin with `prefix`, in order, each with its last run.
pub(crate) async fn all(handle: &Handle, prefix: &str) -> Result<Vec<(Key, Run)>> {
    let mut found = Vec::new();
    let Some(key) = key() else { return Ok(found) };
    let (jobs, _) = kept::read::<Jobs>(handle, &key, KIND).await?;
    for name in jobs.unwrap_or_default().keys {
        let Some(job) = Key::new(&name).ok().filter(|_| name.starts_with(prefix)) else { continue };
        if let Some(run) = last_of(handle, &job).await? {
            found.push((job, run));
        }
    }
    Ok(found)
}
