//! What can become of a request, other than an answer.

use std::sync::Arc;

use super::message::Code;
use crate::error::{Error, ErrorKind};
use crate::stores::tls;

type Source = Arc<dyn std::error::Error + Send + Sync + 'static>;

/// Why there is no answer. It may have to be told to many, so it can be cloned.
#[derive(Debug, Clone)]
pub(in super::super) enum Failure {
    /// The server refused: it did nothing of what was asked.
    Answered(Code),
    /// The session is over.
    Ended,
    /// The connection broke after the request was sent: it may have been carried out.
    Cut,
    /// It was never sent.
    Unsent { kind: ErrorKind, detail: String, source: Option<Source> },
}

impl Failure {
    /// No member answers.
    pub(super) fn unreachable(detail: impl Into<String>) -> Self {
        Self::refused(ErrorKind::Unavailable, detail)
    }

    pub(super) fn refused(kind: ErrorKind, detail: impl Into<String>) -> Self {
        Self::Unsent { kind, detail: detail.into(), source: None }
    }

    /// What answers does not speak ZooKeeper.
    pub(super) fn foreign() -> Self {
        Self::unreachable("what answers does not speak ZooKeeper's protocol")
    }

    /// Whether trying another member may help.
    pub(super) const fn is_passing(&self) -> bool {
        matches!(self, Self::Unsent { kind: ErrorKind::Unavailable, .. } | Self::Cut)
    }

    pub(in super::super) fn is(&self, code: Code) -> bool {
        matches!(self, Self::Answered(answered) if *answered == code)
    }

    /// The error that a caller sees.
    pub(in super::super) fn while_trying(self, attempt: &'static str) -> Error {
        match self {
            Self::Answered(code) => answered(code, attempt),
            Self::Ended => {
                let detail = "the session is over; open a new one";
                Error::new(ErrorKind::SessionEnded, attempt, detail)
            }
            Self::Cut => {
                let detail = "the connection broke before the answer came; ask again";
                Error::new(ErrorKind::Unavailable, attempt, detail).outcome_unknown()
            }
            Self::Unsent { kind, detail, source } => {
                let error = Error::new(kind, attempt, detail);
                match source {
                    Some(source) => error.because(source),
                    None => error,
                }
            }
        }
    }
}

impl From<tls::Failure> for Failure {
    fn from(tls::Failure { kind, detail, source }: tls::Failure) -> Self {
        Self::Unsent { kind, detail, source: source.map(Arc::from) }
    }
}

fn answered(code: Code, attempt: &'static str) -> Error {
    let (kind, detail) = match code {
        Code::NO_AUTH | Code::AUTH_FAILED => (
            ErrorKind::Denied,
            "the server does not permit it; name a user by zookeeper://USER:PASSWORD@…, or \
             change the access control list of the node",
        ),
        Code::INVALID_ACL => (
            ErrorKind::Denied,
            "the server does not accept the access control list; does it know digest \
             authentication?",
        ),
        Code::PARENT_IS_EPHEMERAL => (
            ErrorKind::Invalid,
            "somebody's ephemeral node is where the key's own node has to be; use another key, \
             or a chroot of your own",
        ),
        Code::QUOTA_EXCEEDED => (ErrorKind::Full, "the quota of the node is used up; raise it"),
        Code::UNIMPLEMENTED => (
            ErrorKind::Unsupported,
            "the server does not know the request; ZooKeeper 3.6 or newer is needed",
        ),
        Code::THROTTLED | Code::NOT_READ_ONLY => {
            (ErrorKind::Unavailable, "the server does not take requests now; ask again")
        }
        Code(number) => {
            let detail = format!("the server answered with error {number}");
            return Error::new(ErrorKind::Unavailable, attempt, detail).outcome_unknown();
        }
    };
    Error::new(kind, attempt, detail)
}
