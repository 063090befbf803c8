//! What an error of the gRPC client or of the server means.

use std::error::Error as _;

use tonic::{Code, ConnectError, Status};

use crate::error::ErrorKind;

/// Why one attempt at one member failed.
#[derive(Debug)]
pub(in crate::stores::etcd) enum Failure {
    /// This member cannot serve; another may. Whether the request had an effect, if it is one
    /// that has effects, is `unknown`.
    Member { unknown: bool, source: Status },
    /// The token is no longer valid: authenticate again.
    Token(Status),
    /// The cluster's definite answer, without an effect.
    Refused { kind: ErrorKind, detail: &'static str, source: Status },
}

impl Failure {
    /// What the server or the connection said, for people.
    pub(in crate::stores::etcd) fn reason(&self) -> String {
        match self {
            Self::Member { source, .. } | Self::Token(source) => source.message().to_owned(),
            Self::Refused { detail, source, .. } => format!("{detail} ({})", source.message()),
        }
    }
}

/// Reads an error. etcd's own are told by their text, which is the same since version 3.0
/// (`api/v3rpc/rpctypes/error.go`), because one code stands for several.
pub(in crate::stores::etcd) fn read(status: Status) -> Failure {
    let text = status.message();
    let says = |part: &str| text.contains(part);
    let refused = |kind, detail| (kind, detail);
    let (kind, detail) = match status.code() {
        Code::Unauthenticated => return Failure::Token(status),
        // The users or roles were changed since the token was made.
        Code::InvalidArgument if says("revision of auth store is old") => {
            return Failure::Token(status);
        }
        Code::InvalidArgument if says("user name is empty") => {
            refused(ErrorKind::Denied, "the cluster wants a user: etcd://user:password@host")
        }
        Code::InvalidArgument if says("authentication failed") => {
            refused(ErrorKind::Denied, "the cluster refused the user or the password")
        }
        Code::PermissionDenied => refused(
            ErrorKind::Denied,
            "the user needs a role with readwrite on the locks' keys and on the prefix \
             leasehold:session:",
        ),
        Code::NotFound if says("lease not found") => {
            refused(ErrorKind::SessionEnded, "its lease expired; open a new session")
        }
        Code::ResourceExhausted if says("space exceeded") => refused(
            ErrorKind::Full,
            "the database reached its quota: compact and defragment it, then disarm the alarm",
        ),
        Code::ResourceExhausted if says("too many requests") => {
            return Failure::Member { unknown: false, source: status };
        }
        Code::DataLoss => refused(ErrorKind::Corrupt, "the cluster raised its alarm of corruption"),
        Code::Unimplemented => refused(
            ErrorKind::Unsupported,
            "the server does not know this request: is it etcd 3.4?",
        ),
        Code::InvalidArgument
        | Code::FailedPrecondition
        | Code::OutOfRange
        | Code::ResourceExhausted
        | Code::NotFound
        | Code::AlreadyExists => {
            refused(ErrorKind::Invalid, "the server refused the request as it was made")
        }
        _ => return Failure::Member { unknown: !never_sent(&status), source: status },
    };
    Failure::Refused { kind, detail, source: status }
}

/// Whether there was not even a connection.
fn never_sent(status: &Status) -> bool {
    let mut source = status.source();
    while let Some(error) = source {
        if error.is::<ConnectError>() {
            return true;
        }
        source = error.source();
    }
    false
}

/// Whether the server has no users: then a token is not needed.
pub(in crate::stores::etcd) fn says_no_authentication(status: &Status) -> bool {
    status.code() == Code::FailedPrecondition && status.message().contains("is not enabled")
}
