//! What primitives keep in the record of a key: JSON that says what it is of.

use std::time::Duration;

use leasehold_core::{Key, Reading, Record};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::session::Handle;

/// A body, and what it is of: `election/1` is the first form of an election's.
#[derive(Serialize, Deserialize)]
struct Kept<T> {
    leasehold: String,
    #[serde(flatten)]
    body: T,
}

/// Only what it is of.
#[derive(Deserialize)]
struct Kind {
    leasehold: String,
}

/// A record of `body`; `None` when it is too large.
pub(crate) fn record<T: Serialize>(kind: &str, body: &T, keep: Duration) -> Option<Record> {
    let kept = Kept { leasehold: kind.to_owned(), body };
    // Texts, numbers and lists cannot fail to be written as JSON.
    let bytes = serde_json::to_vec(&kept).unwrap_or_default();
    Record::new(&bytes, keep).ok()
}

/// What the record of `key` says, and the reading it was in; `None` where there is no record.
pub(crate) async fn read<T: DeserializeOwned>(
    handle: &Handle,
    key: &Key,
    kind: &str,
) -> Result<(Option<T>, Reading)> {
    const ATTEMPT: &str = "read the record of";
    let reading = handle.answered_soon(ATTEMPT, handle.store().read(key)).await;
    let reading = reading.map_err(|error| error.about(key))?;
    let Some(written) = &reading.written else { return Ok((None, reading)) };
    let corrupt =
        |detail: String| -> Error { handle.error(ErrorKind::Corrupt, ATTEMPT, detail).about(key) };
    let Ok(Kind { leasehold: found }) = serde_json::from_slice(&written.value) else {
        return Err(corrupt("it is not one that leasehold wrote; use another key".to_owned()));
    };
    if found != kind {
        return Err(corrupt(format!(
            "it is of {found:?}, and {kind:?} was expected; use another key, or update leasehold"
        )));
    }
    match serde_json::from_slice::<Kept<T>>(&written.value) {
        Ok(kept) => Ok((Some(kept.body), reading)),
        Err(error) => Err(corrupt(format!("it is damaged: {error}"))),
    }
}
