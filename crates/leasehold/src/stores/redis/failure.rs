//! What went wrong with a request, before it is known what the request was for.

use std::fmt;

use leasehold_core::Key;

use crate::error::{Effect, Error, ErrorKind};
use crate::stores::tls;

/// The half of an [`Error`] that the connection knows.
#[derive(Debug)]
pub(in crate::stores) struct Failure {
    kind: ErrorKind,
    effect: Effect,
    detail: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
    end_of_connection: bool,
    redirect: Option<Redirect>,
}

/// What a node of a cluster says to do with a request that it did not carry out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Redirect {
    /// Another node serves the slot from now on.
    Moved(Destination),
    /// Another node is taking the slot over, and may have what this request is about already.
    Ask(Destination),
    /// Ask again.
    Later,
}

/// A node, as another names it. Without a host it is on the one that named it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Destination {
    pub(super) host: String,
    pub(super) port: u16,
}

impl Failure {
    /// One that certainly had no effect.
    pub(in crate::stores) fn new(kind: ErrorKind, detail: impl Into<String>) -> Self {
        Self {
            kind,
            effect: Effect::None,
            detail: detail.into(),
            source: None,
            end_of_connection: false,
            redirect: None,
        }
    }

    /// Not carried out, and what to do about it.
    pub(super) fn redirected(redirect: Redirect, detail: &str) -> Self {
        Self { redirect: Some(redirect), ..Self::new(ErrorKind::Unavailable, detail) }
    }

    pub(super) fn redirect(&self) -> Option<&Redirect> {
        self.redirect.as_ref()
    }

    pub(super) fn is_unavailable(&self) -> bool {
        self.kind == ErrorKind::Unavailable
    }

    pub(super) fn is_unsupported(&self) -> bool {
        self.kind == ErrorKind::Unsupported
    }

    pub(in crate::stores) fn outcome_unknown(mut self) -> Self {
        self.effect = Effect::Unknown;
        self
    }

    pub(in crate::stores) fn because(
        mut self,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The connection ended before the answer.
    pub(in crate::stores) fn end_of_connection() -> Self {
        let failure = Self::new(ErrorKind::Unavailable, "the connection ended before the answer");
        Self { end_of_connection: true, ..failure.outcome_unknown() }
    }

    /// The connection is of no use any more, although the server answered: it is not, or not
    /// any longer, the one to ask.
    pub(super) fn at_the_wrong_server(self) -> Self {
        Self { end_of_connection: true, ..self }
    }

    /// The same failure, as a part of another.
    pub(super) fn of(self, whole: &str) -> Self {
        Self { detail: format!("{whole}: {}", self.detail), ..self }
    }

    #[cfg(feature = "redlock")]
    pub(in crate::stores) fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Whether it certainly had no effect.
    pub(in crate::stores) fn had_no_effect(&self) -> bool {
        self.effect == Effect::None
    }

    /// What went wrong, with what the system said of it.
    #[cfg(feature = "redlock")]
    pub(in crate::stores) fn describe(&self) -> String {
        match &self.source {
            Some(source) => format!("{}: {source}", self.detail),
            None => self.detail.clone(),
        }
    }

    pub(in crate::stores) fn is_end_of_connection(&self) -> bool {
        self.end_of_connection
    }

    /// The answer of a script cannot be read: it is another version's.
    pub(in crate::stores) fn strange_answer() -> Self {
        Self::new(ErrorKind::Corrupt, "the server's answer is not what the script says")
            .outcome_unknown()
    }

    /// What is kept as the record of a key is none.
    pub(super) fn strange_record() -> Self {
        let detail = "what is kept as its record is not what this version writes; see who did, then delete it";
        Self::new(ErrorKind::Corrupt, detail)
    }

    /// The whole error.
    pub(in crate::stores) fn during(
        self,
        attempt: &'static str,
        store: &impl fmt::Display,
        key: Option<&Key>,
    ) -> Error {
        let mut error = Error::new(self.kind, attempt, self.detail).at(store);
        if self.effect == Effect::Unknown {
            error = error.outcome_unknown();
        }
        if let Some(key) = key {
            error = error.about(key);
        }
        match self.source {
            Some(source) => error.because(source),
            None => error,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}

impl From<tls::Failure> for Failure {
    fn from(tls::Failure { kind, detail, source }: tls::Failure) -> Self {
        Self { source, ..Self::new(kind, detail) }
    }
}
