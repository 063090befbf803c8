//! Exit codes, and failures on the way to one.

use std::error::Error as _;
use std::fmt;

use leasehold::{Error, ErrorKind};

/// `doctor` found something to warn of, or could not find something out; `leader`: nobody leads;
/// `slots`: nobody said how many.
pub(crate) const DOUBTFUL: u8 = 1;
/// `doctor` found that locks are not safe, or do not work.
pub(crate) const UNSAFE: u8 = 2;
/// Bad usage, or a bad value on the command line (`EX_USAGE`).
pub(crate) const USAGE: u8 = 64;
/// The store cannot be reached or used (`EX_UNAVAILABLE`).
pub(crate) const UNAVAILABLE: u8 = 69;
/// Something that should not happen, in this program or the system under it (`EX_SOFTWARE`).
pub(crate) const INTERNAL: u8 = 70;
/// Somebody else holds the lock, and there was to be no waiting (`EX_TEMPFAIL`).
pub(crate) const BUSY: u8 = 75;
/// The store refused the credentials, or what was asked (`EX_NOPERM`).
pub(crate) const DENIED: u8 = 77;
/// A bad value in the environment or the configuration file (`EX_CONFIG`).
pub(crate) const CONFIG: u8 = 78;
/// The lock was lost. Used by neither sysexits.h, shells nor timeout(1).
pub(crate) const LOST: u8 = 97;
/// A resource has seen a greater fence. Used by none of those either.
pub(crate) const STALE: u8 = 98;
/// `once`: the job failed, and is not tried again in this period. Beside [`LOST`].
pub(crate) const FAILED: u8 = 99;
/// The lock was not granted in time (what timeout(1) exits with).
pub(crate) const TIMEOUT: u8 = 124;
/// The command cannot be run (as in shells).
pub(crate) const CANNOT_RUN: u8 = 126;
/// The command was not found (as in shells).
pub(crate) const NOT_FOUND: u8 = 127;

/// For `--help` and the man page. A test keeps it true to the constants.
pub(crate) const HELP: &str = "\
Exit codes:
  0..255  of `run`, `elect`, `once` and `limit`: the command's own, and 128+n when signal n ended it
  1       of `doctor`: there is a warning, or something could not be read; of `leader`: nobody leads;
          of `slots`: nobody said how many
  2       of `doctor`: locks are not safe there, or do not work
  64      bad usage, or a bad value on the command line
  69      the store cannot be reached or used
  70      an internal error
  75      the lock is held by somebody else (--try); there is no permit (`limit`)
  77      the store refused the credentials, or what was asked
  78      a bad value in the environment or the configuration file
  97      the lock was lost, or is not ours any more
  98      of `fence`: refused, the resource has seen a greater fence
  99      of `once`: the job failed, and is not tried again for this period or version
  124     the lock or the permit was not granted in time (--wait)
  126     the command cannot be run
  127     the command was not found
  130     interrupted (128+n: ended by signal n) while waiting for the lock
The options --exit-code-busy, -timeout, -unavailable and -lost of `run` choose others.";

/// Why the program ends without having done what it was asked.
#[derive(Debug)]
pub(crate) struct Failure {
    /// What it exits with.
    pub(crate) code: u8,
    /// One sentence without a full stop; empty when everything was said.
    pub(crate) message: String,
}

impl Failure {
    pub(crate) fn new(code: u8, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// What an error of the library says, with what caused it.
    pub(crate) fn message_of(error: &Error) -> String {
        let mut message = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            message.push_str(": ");
            message.push_str(&error.to_string());
            cause = error.source();
        }
        message
    }

    /// To exit with `code` and say no more.
    pub(crate) fn silent(code: u8) -> Self {
        Self::new(code, "")
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { code: code_of(error.kind()), message: Self::message_of(&error) }
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::new(INTERNAL, error.to_string())
    }
}

/// The code for a kind of failure of the library.
pub(crate) fn code_of(kind: ErrorKind) -> u8 {
    match kind {
        ErrorKind::Invalid | ErrorKind::Unsupported | ErrorKind::Disagrees => USAGE,
        ErrorKind::Unavailable | ErrorKind::SessionEnded | ErrorKind::Corrupt | ErrorKind::Full => {
            UNAVAILABLE
        }
        ErrorKind::Denied => DENIED,
        ErrorKind::TimedOut => TIMEOUT,
        ErrorKind::Lost => LOST,
        ErrorKind::Stale => STALE,
        // Kinds to come.
        _ => INTERNAL,
    }
}

/// The code of a process that signal `number` ended, as shells have it.
pub(crate) fn of_signal(number: i32) -> u8 {
    u8::try_from(128 + number).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_names_every_code() {
        let codes = [
            DOUBTFUL,
            UNSAFE,
            USAGE,
            UNAVAILABLE,
            INTERNAL,
            BUSY,
            DENIED,
            CONFIG,
            LOST,
            FAILED,
            STALE,
            TIMEOUT,
            CANNOT_RUN,
            NOT_FOUND,
        ];
        for code in codes {
            assert!(HELP.contains(&format!("\n  {code:<8}")), "{code}");
        }
    }
}
