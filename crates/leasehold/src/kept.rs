//! What primitives keep in the record of a key: JSON that says what it is of.

use std::time::Duration;

use leasehold_core::{Key, Reading, Record};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::session::Handle;

const ATTEMPT: &str = "read the record of";

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

/// A record of nothing, for as short as a store keeps one: what was there is forgotten.
pub(crate) fn nothing() -> Option<Record> {
    Record::new(b"", Record::MIN_KEEP).ok()
}

/// What the record of `key` says, and the reading it was in; `None` where there is no record.
pub(crate) async fn read<T: DeserializeOwned>(
    handle: &Handle,
    key: &Key,
    kind: &str,
) -> Result<(Option<T>, Reading)> {
    let reading = reading(handle, key).await?;
    let Some(written) = &reading.written else { return Ok((None, reading)) };
    let body = parse(&written.value, kind).map_err(|detail| -> Error {
        handle.error(ErrorKind::Corrupt, ATTEMPT, detail).about(key)
    })?;
    Ok((body, reading))
}

/// The record of `key` as it is, whatever it is of.
pub(crate) async fn reading(handle: &Handle, key: &Key) -> Result<Reading> {
    let reading = handle.answered(ATTEMPT, handle.store().read(key)).await;
    reading.map_err(|error| error.about(key))
}

/// What the bytes of a record say, `None` if it is of nothing; or why they cannot be read.
pub(crate) fn parse<T: DeserializeOwned>(bytes: &[u8], kind: &str) -> Result<Option<T>, String> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let Ok(Kind { leasehold: found }) = serde_json::from_slice(bytes) else {
        return Err("it is not one that leasehold wrote; use another key".to_owned());
    };
    if found != kind {
        return Err(format!(
            "it is of {found:?}, and {kind:?} was expected; use another key, or update leasehold"
        ));
    }
    match serde_json::from_slice::<Kept<T>>(bytes) {
        Ok(kept) => Ok(Some(kept.body)),
        Err(error) => Err(format!("it is damaged: {error}")),
    }
}
