//! The one error of the library.

use std::fmt;
use std::sync::Arc;

use leasehold_core::{Claim, Key, StaleFence};

/// `Result` with this library's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

type Source = Box<dyn std::error::Error + Send + Sync + 'static>;

/// What went wrong, at which store, with which key, during what, and what to do.
///
/// Contention is not an error: see [`Lock::try_lock`](crate::Lock::try_lock). `Display` does not
/// repeat what [`source`](std::error::Error::source) returns, and neither shows a password or
/// a token.
#[derive(Clone)]
pub struct Error(Box<Inner>);

#[derive(Clone)]
struct Inner {
    kind: ErrorKind,
    effect: Effect,
    attempt: &'static str,
    detail: String,
    store: Option<String>,
    key: Option<Key>,
    /// Shared, so that all who wait for one request can have its error.
    source: Option<Arc<dyn std::error::Error + Send + Sync + 'static>>,
}

/// What kind of failure it is: what a caller can act on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A key, a duration, a URL or another argument is not valid. Correct it.
    Invalid,
    /// The store cannot do what was asked, and never will. Use another store, or ask for less.
    Unsupported,
    /// Others claim the key with another limit: the callers have to agree on one. Nothing was
    /// entered.
    Disagrees,
    /// The store cannot be reached, or did not answer in time. Trying again may help.
    Unavailable,
    /// The store refused the credentials, or does not allow what was asked.
    Denied,
    /// The store's data are not what this version of leasehold wrote: corrupt, or newer.
    Corrupt,
    /// The store is out of space, or may not be written to.
    Full,
    /// The store no longer knows the session. The library opens another by itself.
    SessionEnded,
    /// The lock was not granted within the time that the caller wanted to wait.
    TimedOut,
    /// The hold was lost: its deadline passed, or it was revoked.
    Lost,
    /// A resource refused a write, because it has seen a greater fence: the hold was lost, and
    /// another has written since. [`Error::stale_fence`] says more.
    Stale,
}

/// Whether the failed request had an effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Effect {
    /// It certainly had none.
    None,
    /// It may have been carried out.
    Unknown,
}

impl Error {
    /// A failure of `kind` while doing `attempt` (a verb phrase: "enter the line"), without an
    /// effect. `detail` says what is wrong and what to do, in a clause without a full stop.
    #[must_use]
    pub fn new(kind: ErrorKind, attempt: &'static str, detail: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            kind,
            effect: Effect::None,
            attempt,
            detail: detail.into(),
            store: None,
            key: None,
            source: None,
        }))
    }

    /// The refusal of a claim whose limit is not that of those ahead of it in line.
    #[must_use]
    pub fn disagrees(claim: &Claim, limit: u32) -> Self {
        let detail = format!(
            "it is claimed with a limit of {limit}, and this claim sees one of {}; give all who use \
             the key the same limit, or let those who have the other one finish first",
            claim.limit()
        );
        Self::new(ErrorKind::Disagrees, "enter the line of", detail).about(&claim.key)
    }

    /// The same, with an outcome that is not known.
    #[must_use]
    pub fn outcome_unknown(mut self) -> Self {
        self.0.effect = Effect::Unknown;
        self
    }

    /// The same, at a store. The name must not contain a password.
    #[must_use]
    pub fn at(mut self, store: &impl fmt::Display) -> Self {
        self.0.store = Some(store.to_string());
        self
    }

    /// The same, about a key.
    #[must_use]
    pub fn about(mut self, key: &Key) -> Self {
        self.0.key = Some(key.clone());
        self
    }

    /// The same, because of another error.
    #[must_use]
    pub fn because(mut self, source: impl Into<Source>) -> Self {
        self.0.source = Some(Arc::from(source.into()));
        self
    }

    /// What kind of failure it is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Whether the failed request had an effect.
    #[must_use]
    pub fn effect(&self) -> Effect {
        self.0.effect
    }

    /// The store it happened at, without its password.
    #[must_use]
    pub fn store(&self) -> Option<&str> {
        self.0.store.as_deref()
    }

    /// The key it was about.
    #[must_use]
    pub fn key(&self) -> Option<&Key> {
        self.0.key.as_ref()
    }

    /// What a resource refused, if that is what went wrong.
    #[must_use]
    pub fn stale_fence(&self) -> Option<&StaleFence> {
        self.0.source.as_deref()?.downcast_ref()
    }

    /// Whether the same request may succeed later without anybody changing anything.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self.0.kind, ErrorKind::Unavailable | ErrorKind::SessionEnded)
    }
}

impl From<StaleFence> for Error {
    fn from(stale: StaleFence) -> Self {
        let detail = "the hold was lost and another has written since; do not try again";
        Self::new(ErrorKind::Stale, "write under a fence", detail).because(stale)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { attempt, detail, store, key, effect, .. } = &*self.0;
        write!(f, "could not {attempt}")?;
        if let Some(key) = key {
            // `{:?}` escapes control characters: a hostile key must not write to a terminal.
            write!(f, " {key:?}")?;
        }
        if let Some(store) = store {
            write!(f, " at {store}")?;
        }
        write!(f, ": {detail}")?;
        if *effect == Effect::Unknown {
            f.write_str(" (whether the request was carried out is not known)")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { kind, effect, attempt, detail, store, key, source } = &*self.0;
        f.debug_struct("Error")
            .field("kind", kind)
            .field("effect", effect)
            .field("attempt", attempt)
            .field("detail", detail)
            .field("store", store)
            .field("key", key)
            .field("source", source)
            .finish()
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}
