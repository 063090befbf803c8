//! What the driver's errors mean for a caller, without what they quote: a row in an error's detail
//! would show a token.

use std::fmt;

use tokio_postgres::error::SqlState;

use crate::error::{Error, ErrorKind};
use crate::stores::tls;

/// What went wrong, in a form that several callers of one connection can be told.
#[derive(Debug, Clone)]
pub(in super::super) struct Failure {
    pub(super) kind: ErrorKind,
    pub(super) detail: String,
    /// Whether the request may have been carried out.
    pub(super) doubtful: bool,
    /// Whether the connection is of no more use.
    pub(super) broken: bool,
    reason: Option<Reason>,
}

/// The message of the server or of the operating system, with the server's code.
#[derive(Debug, Clone)]
struct Reason(String);

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Reason {}

impl Failure {
    pub(super) fn new(kind: ErrorKind, detail: impl Into<String>) -> Self {
        Self { kind, detail: detail.into(), doubtful: false, broken: false, reason: None }
    }

    /// The same failure, better explained by who knows what was attempted.
    pub(super) fn detailed(self, detail: String) -> Self {
        Self { detail, ..self }
    }

    /// No answer came in time.
    pub(super) fn silent(detail: String) -> Self {
        Self { doubtful: true, broken: true, ..Self::new(ErrorKind::Unavailable, detail) }
    }

    /// The answer makes no sense.
    pub(super) fn nonsense() -> Self {
        let detail = "the answer is not one of this version's functions; was the schema changed?";
        Self { doubtful: true, ..Self::new(ErrorKind::Corrupt, detail) }
    }

    /// A request failed.
    pub(super) fn of_request(error: &tokio_postgres::Error, schema: &str) -> Self {
        let Some(refusal) = error.as_db_error() else {
            let lost = "the connection was lost; it is made anew with the next request";
            return Self {
                doubtful: true,
                broken: true,
                reason: Some(reason(error)),
                ..Self::new(ErrorKind::Unavailable, lost)
            };
        };
        let code = refusal.code();
        let (kind, detail) = meaning(code, schema);
        // An error before the commit rolled it back. A backend that is being ended may have been
        // past its commit, waiting for a standby.
        let doubtful = ends_backend(code);
        let broken = doubtful
            || matches!(
                *code,
                // Perhaps another server of the list, or a new connection, can do better.
                SqlState::READ_ONLY_SQL_TRANSACTION
                    | SqlState::UNDEFINED_FUNCTION
                    | SqlState::UNDEFINED_TABLE
                    | SqlState::INVALID_SCHEMA_NAME
            );
        Self { doubtful, broken, reason: Some(reason(error)), ..Self::new(kind, detail) }
    }

    /// No connection could be made.
    pub(super) fn of_connect(error: &tokio_postgres::Error, schema: &str) -> Self {
        let failure = match error.as_db_error() {
            Some(refusal) => {
                let (kind, detail) = meaning(refusal.code(), schema);
                Self::new(kind, detail)
            }
            None => Self::of_handshake(error),
        };
        Self { reason: Some(reason(error)), ..failure }
    }

    fn of_handshake(error: &tokio_postgres::Error) -> Self {
        // The driver keeps its kinds to itself; these are what its `Display` says.
        let text = error.to_string();
        if text.contains("TLS") {
            let detail = "TLS could not be agreed on; check sslmode, sslrootcert, sslcert and \
                          sslkey in the URL against the server's ssl settings";
            return Self::new(ErrorKind::Denied, detail);
        }
        if text.contains("authentication") || text.contains("configuration") {
            let detail = "the server asks for a password, or a way to log in that the URL does \
                          not offer";
            return Self::new(ErrorKind::Denied, detail);
        }
        let detail = "no connection can be made; check that the server runs, host and port of \
                      the URL, and the network between";
        Self::new(ErrorKind::Unavailable, detail)
    }

    /// The error that a caller sees.
    pub(in super::super) fn into_error(self, attempt: &'static str) -> Error {
        let mut error = Error::new(self.kind, attempt, self.detail);
        if self.doubtful {
            error = error.outcome_unknown();
        }
        match self.reason {
            Some(reason) => error.because(reason),
            None => error,
        }
    }
}

fn ends_backend(code: &SqlState) -> bool {
    let states = [SqlState::ADMIN_SHUTDOWN, SqlState::CRASH_SHUTDOWN, SqlState::DATABASE_DROPPED];
    states.contains(code) || code.code().starts_with("08")
}

impl From<tls::Failure> for Failure {
    fn from(tls::Failure { kind, detail, source }: tls::Failure) -> Self {
        let reason = source.map(|source| with_causes(&*source));
        Self { reason, ..Self::new(kind, detail) }
    }
}

fn reason(error: &tokio_postgres::Error) -> Reason {
    match error.as_db_error() {
        Some(refusal) => Reason(format!("{} ({})", refusal.message(), refusal.code().code())),
        None => with_causes(error),
    }
}

fn with_causes(error: &dyn std::error::Error) -> Reason {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    Reason(text)
}

/// What a code of the server means, and what to do.
fn meaning(code: &SqlState, schema: &str) -> (ErrorKind, String) {
    use ErrorKind::{Corrupt, Denied, Full, Invalid, Unavailable, Unsupported};
    let unavailable = |detail: &str| (Unavailable, detail.to_owned());
    match *code {
        SqlState::INVALID_PASSWORD | SqlState::INVALID_AUTHORIZATION_SPECIFICATION => {
            (Denied, "the server refused the login; check user, password and pg_hba.conf".into())
        }
        SqlState::INVALID_CATALOG_NAME => {
            (Invalid, "there is no such database; create it, or correct the URL".into())
        }
        SqlState::INSUFFICIENT_PRIVILEGE => (Denied, denied(schema)),
        SqlState::READ_ONLY_SQL_TRANSACTION => unavailable(
            "the server is a standby or was made read-only; name the primary, or all servers: \
             postgres://h1,h2/db",
        ),
        SqlState::DISK_FULL => (Full, "the server's disk is full; make room".into()),
        SqlState::TOO_MANY_CONNECTIONS => unavailable(
            "the server has no connection left; raise max_connections, or the role's limit",
        ),
        SqlState::ADMIN_SHUTDOWN | SqlState::CRASH_SHUTDOWN | SqlState::CANNOT_CONNECT_NOW => {
            unavailable("the server ended the connection, or is starting or stopping")
        }
        SqlState::LOCK_NOT_AVAILABLE | SqlState::QUERY_CANCELED => {
            unavailable("somebody held the key's lock on the server for too long; nothing was done")
        }
        SqlState::ACTIVE_SQL_TRANSACTION => {
            (Unsupported, "the server does not run transactions at READ COMMITTED".into())
        }
        SqlState::UNDEFINED_FUNCTION
        | SqlState::UNDEFINED_TABLE
        | SqlState::INVALID_SCHEMA_NAME => {
            unavailable("the tables have gone; they are made again with the next connection")
        }
        SqlState::UNIQUE_VIOLATION => {
            (Invalid, "the claim's id was used before, for another key".into())
        }
        _ => match &code.code()[..2] {
            // Connections, deadlocks and serialization, resources, operators, the system.
            "08" | "40" | "53" | "57" | "58" => {
                unavailable("the server could not do it now; it may work later")
            }
            "XX" => (Corrupt, "the server reports damage or a bug of its own; see its log".into()),
            _ => (Unsupported, "the server refused the request".into()),
        },
    }
}

fn denied(schema: &str) -> String {
    format!(
        "the role lacks a right on the schema {schema}. Let a role that may create schemas run \
         the SQL of leasehold::stores::postgres::SCHEMA_SQL once (or connect once as that role), \
         and then: GRANT USAGE ON SCHEMA {schema} TO the_role; GRANT SELECT, INSERT, UPDATE, \
         DELETE ON ALL TABLES IN SCHEMA {schema} TO the_role; GRANT USAGE, SELECT ON ALL \
         SEQUENCES IN SCHEMA {schema} TO the_role"
    )
}
