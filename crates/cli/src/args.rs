//! The command line, with the help text beside each flag.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args as Group, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use leasehold::Key;

use crate::duration::{self, Patience};
use crate::exit;

/// Runs commands under a distributed lock that is a lease and comes with a fencing token.
///
/// A lock is a lease: it ends by itself when its holder dies, and is renewed while it lives. Every
/// grant has a fence, a number that only grows, so that whatever the lock protects can refuse
/// a holder that lost it without noticing.
///
/// The store is where locks live: `sqlite:PATH` is a file shared by the processes of one machine
/// (the default is one in your state directory), `redis://HOST` a Redis server shared by many.
#[derive(Debug, Parser)]
#[command(name = "leasehold", version, after_long_help = HELP, max_term_width = 100)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// What stands below the help of the program, and in its man page.
pub(crate) const HELP: &str = const_format(ENVIRONMENT, exit::HELP);

const ENVIRONMENT: &str = "";
const fn const_format(_: &str, codes: &'static str) -> &'static str {
    codes
}

/// Options of every verb.
#[derive(Debug, Group)]
pub(crate) struct Common {
    /// Where the locks live: sqlite:PATH, redis://HOST … [env: `LEASEHOLD_STORE`; default: a file
    /// in the user's state directory]
    #[arg(long, global = true, value_name = "URL")]
    pub(crate) store: Option<String>,
    /// The configuration file [env: `LEASEHOLD_CONFIG`; default:
    /// $XDG_CONFIG_HOME/leasehold/config.toml]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// When to use colour; `NO_COLOR` is respected
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    pub(crate) color: When,
    /// Say nothing but errors
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub(crate) quiet: bool,
    /// Say more, on stderr; twice for details of every request
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
}

/// When to use colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum When {
    /// On a terminal, unless `NO_COLOR` is set.
    Auto,
    Always,
    Never,
}
