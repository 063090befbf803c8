//! What can go wrong with the file, as the library's error: one value that may be handed to every
//! command of a batch.

use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::error::{Effect, Error, ErrorKind};

type Source = Arc<dyn std::error::Error + Send + Sync + 'static>;

/// A failure, before it is known what it spoiled.
#[derive(Debug, Clone)]
pub(super) struct Trouble {
    pub(super) kind: ErrorKind,
    pub(super) effect: Effect,
    detail: String,
    source: Option<Source>,
}

impl Trouble {
    /// A failure without an effect. `detail` says what is wrong and what to do.
    pub(super) fn new(kind: ErrorKind, detail: impl Into<String>) -> Self {
        Self { kind, effect: Effect::None, detail: detail.into(), source: None }
    }

    pub(super) fn because(
        mut self,
        source: impl std::error::Error + Send + Sync + 'static,
    ) -> Self {
        self.source = Some(Arc::new(source));
        self
    }

    pub(super) fn outcome_unknown(mut self) -> Self {
        self.effect = Effect::Unknown;
        self
    }

    /// A system call on `path` failed; `doing` is a verb phrase.
    pub(super) fn io(doing: &str, path: &Path, error: io::Error) -> Self {
        let (kind, advice) = match error.kind() {
            io::ErrorKind::PermissionDenied => (
                ErrorKind::Denied,
                "this user may not; correct the owner or the mode, or choose another path",
            ),
            io::ErrorKind::ReadOnlyFilesystem => (
                ErrorKind::Full,
                "the filesystem is mounted read-only; choose a path that can be written to",
            ),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                (ErrorKind::Full, "no space is left; free some or choose another path")
            }
            io::ErrorKind::NotADirectory | io::ErrorKind::InvalidFilename => {
                (ErrorKind::Invalid, "this is no usable path; choose another")
            }
            _ => (ErrorKind::Unavailable, "see the cause"),
        };
        Self::new(kind, format!("could not {doing} {}: {advice}", path.display())).because(error)
    }

    /// The library's error: what was attempted failed because of this.
    pub(super) fn during(self, attempt: &'static str) -> Error {
        let mut error = Error::new(self.kind, attempt, self.detail);
        if self.effect == Effect::Unknown {
            error = error.outcome_unknown();
        }
        match self.source {
            Some(source) => error.because(source),
            None => error,
        }
    }
}
