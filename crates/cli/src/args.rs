//! The command line, with the help text beside each flag.

// These comments are printed on terminals, where Markdown would be in the way.
#![allow(clippy::doc_markdown, rustdoc::bare_urls, rustdoc::broken_intra_doc_links)]

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args as Group, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use leasehold::{Key, Properties};

mod fence;
mod primitives;

pub(crate) use self::fence::*;
pub(crate) use self::primitives::*;
use crate::duration::{self, Patience};
use crate::exit;
use crate::settings;

/// Run commands under a distributed lock that is a lease and comes with a fencing token
///
/// A lock is a lease: it ends by itself when its holder dies, and is renewed while the holder
/// lives. Every grant has a fence, a number that only grows, so that whatever the lock protects
/// can refuse a holder that lost it without noticing.
///
/// The store is where the locks live: sqlite:PATH is a file shared by the processes of one machine
/// (without --store one in your state directory), redis://HOST a server shared by many machines.
#[derive(Debug, Parser)]
#[command(name = "leasehold", version, max_term_width = 100)]
#[command(after_long_help = format!("{SETTINGS}\n\n{}", exit::HELP))]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// Where settings come from, for the help and the man page.
const SETTINGS: &str = "\
Settings:
  A flag goes over an environment variable, and that over the configuration file:
  LEASEHOLD_STORE     store      a URL
  LEASEHOLD_TTL       ttl        a duration, as in 30s, 500ms, 1h30m, PT30S
  LEASEHOLD_GRACE     grace      a duration
  LEASEHOLD_WAIT      wait       a duration, or \"forever\"
  LEASEHOLD_MAX_HOLD  max_hold   a duration
  LEASEHOLD_NOTE      note       a text
  LEASEHOLD_DEMAND    demand     properties of the store, as in \"line, survives-crash\"
  The file is TOML, as in: store = \"redis://locks.example:6379\"; it is LEASEHOLD_CONFIG, or
  leasehold/config.toml in $XDG_CONFIG_HOME or ~/.config.";

/// The heading of the options of every verb.
const COMMON: &str = "Options of every verb";

/// Options of every verb.
#[derive(Debug, Group)]
pub(crate) struct Common {
    /// Where the locks live: sqlite:PATH, redis://HOST … [env: LEASEHOLD_STORE] [default: a file
    /// in the user's state directory]
    ///
    /// A password on the command line can be read by other users of the machine: put a URL with
    /// one into the environment or the configuration file.
    #[arg(long, global = true, help_heading = COMMON, value_name = "URL")]
    pub(crate) store: Option<String>,
    /// Configuration file [env: LEASEHOLD_CONFIG] [default:
    /// $XDG_CONFIG_HOME/leasehold/config.toml]
    #[arg(long, global = true, help_heading = COMMON, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// When to use colour; NO_COLOR is respected
    #[arg(
        long,
        global = true, help_heading = COMMON,
        value_name = "WHEN",
        default_value = "auto",
        hide_possible_values = true
    )]
    #[arg(
        long_help = "When to use colour: auto (on a terminal, unless NO_COLOR is set), always, never"
    )]
    pub(crate) color: When,
    /// Say nothing but errors
    #[arg(short, long, global = true, help_heading = COMMON, conflicts_with = "verbose")]
    pub(crate) quiet: bool,
    /// Say more, on stderr; -vv for every request
    #[arg(short, long, global = true, help_heading = COMMON, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
}

/// When to use colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum When {
    Auto,
    Always,
    Never,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    Run(Run),
    Acquire(Acquire),
    Renew(Renew),
    Release(Release),
    Check(Check),
    Elect(Elect),
    Leader(LeaderOf),
    Once(Once),
    Jobs(Jobs),
    Slots(Slots),
    Forget(Forget),
    Limit(Limit),
    Ls(Ls),
    Inspect(Inspect),
    Watch(Watch),
    Break(Break),
    Doctor(Doctor),
    /// Refuse a writer that lost its lock without noticing
    ///
    /// A process that is paused for longer than its lease wakes up and writes. What it writes to can
    /// refuse it: a resource keeps the greatest fence that it has seen, and refuses a smaller one.
    /// These verbs do that for a file, for anything a script guards, for SQL and for Redis.
    #[command(subcommand_required = true, arg_required_else_help = true)]
    Fence {
        /// What to do
        #[command(subcommand)]
        verb: FenceVerb,
    },
    Demo(Demo),
    /// Print a shell's completion script
    ///
    /// For bash: leasehold completions bash > ~/.local/share/bash-completion/completions/leasehold
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Print the man page, of the program or of one verb
    ///
    /// For all of them: leasehold man --dir ~/.local/share/man/man1
    Man {
        /// The verb [default: the program]
        verb: Option<String>,
        /// Write all pages into this directory instead
        #[arg(long, value_name = "DIR", conflicts_with = "verb")]
        dir: Option<PathBuf>,
    },
}

/// How a lock is asked for.
#[derive(Debug, Group)]
pub(crate) struct Asking {
    /// How long the lock lasts after its last renewal: how long a crash blocks the others, not how
    /// long the work may take [env: LEASEHOLD_TTL] [default: 30s]
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    pub(crate) ttl: Option<Duration>,
    /// How long to wait for the lock, also through trouble with the store [env: LEASEHOLD_WAIT]
    /// [default: forever]
    #[arg(long, value_name = "DURATION", value_parser = duration::parse_patience)]
    pub(crate) wait: Option<Patience>,
    /// Do not wait: fail at once if the lock is not free
    #[arg(long = "try", conflicts_with = "wait")]
    pub(crate) once: bool,
    /// A text for others to read beside the holder's name [env: LEASEHOLD_NOTE]
    #[arg(long, value_name = "TEXT")]
    pub(crate) note: Option<String>,
    /// What the store has to have, as in line,survives-failover; `doctor` prints what it has
    /// [env: LEASEHOLD_DEMAND] [default: nothing]
    #[arg(long, value_name = "PROPERTIES", value_parser = settings::properties)]
    pub(crate) demand: Option<Properties>,
    /// Exit code when the lock is not free and --try was given
    #[arg(long, value_name = "N", default_value_t = exit::BUSY, hide_short_help = true)]
    pub(crate) exit_code_busy: u8,
    /// Exit code when the lock was not granted in time
    #[arg(long, value_name = "N", default_value_t = exit::TIMEOUT, hide_short_help = true)]
    pub(crate) exit_code_timeout: u8,
    /// Exit code when the store cannot be reached or used
    #[arg(long, value_name = "N", default_value_t = exit::UNAVAILABLE, hide_short_help = true)]
    pub(crate) exit_code_unavailable: u8,
}

/// How much of a key is asked for.
#[derive(Debug, Group)]
pub(crate) struct Sharing {
    /// Hold the key beside others who give --shared; who does not, holds it alone
    #[arg(long, conflicts_with = "slots")]
    pub(crate) shared: bool,
    /// Let N hold the key at a time; all who use it have to give the same number, or `stored` for
    /// the one that `leasehold slots` set
    #[arg(long, value_name = "N", value_parser = slots)]
    pub(crate) slots: Option<SlotCount>,
    /// How many of the slots to hold
    #[arg(long, value_name = "N", requires = "slots", default_value_t = 1)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..), hide_default_value = true)]
    pub(crate) units: u32,
}

/// How many slots a key has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SlotCount {
    /// So many.
    Of(u32),
    /// As many as the store says.
    Stored,
}

fn slots(text: &str) -> Result<SlotCount, &'static str> {
    match (text, text.parse()) {
        ("stored", _) => Ok(SlotCount::Stored),
        (_, Ok(limit)) if limit > 0 => Ok(SlotCount::Of(limit)),
        _ => Err("it is neither a number from 1 up nor `stored`"),
    }
}

/// The command to run, and when it is ended.
#[derive(Debug, Group)]
pub(crate) struct Commanded {
    /// How long before the deadline the command is asked to end when the lock is lost
    /// [env: LEASEHOLD_GRACE] [default: a quarter of the TTL, at most 5s]
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    pub(crate) grace: Option<Duration>,
    /// The longest time that the lock is kept: a command that hangs loses it, and is ended
    /// [env: LEASEHOLD_MAX_HOLD] [default: no limit]
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    pub(crate) max_hold: Option<Duration>,
    /// Exit code when the lock was lost
    #[arg(long, value_name = "N", default_value_t = exit::LOST, hide_short_help = true)]
    pub(crate) exit_code_lost: u8,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    pub(crate) command: Vec<OsString>,
}

/// Run a command under a lock
///
/// Waits for the lock on KEY, runs CMD, and releases the lock when CMD ends. Exits with CMD's exit
/// code. The lock is renewed while CMD runs, however long that takes.
///
/// If the lock is lost (it could not be renewed in time, or `leasehold break` ended it), CMD and
/// everything in its process group get TERM, and KILL before the deadline of the lease; the exit
/// code is 97, whatever CMD made of it. A guardian process does the same if leasehold is stopped,
/// and kills them at once if leasehold dies. What CMD leaves running in its process group when it
/// ends gets TERM, and KILL after --grace, before the lock is released. A process that leaves the
/// group (setsid, a daemon) is out of reach.
///
/// Signals sent to leasehold are passed on to the process group, which has the terminal. Ctrl-Z
/// stops CMD and leasehold; the lock is not renewed meanwhile, so CMD is ended if it stays stopped
/// for as long as the TTL.
///
/// CMD finds in its environment:
///   LEASEHOLD_KEY       the key
///   LEASEHOLD_FENCE     the fence of this grant: pass it to what the lock protects
///   LEASEHOLD_FENCES    with --and, the fences of all keys, as in {"key": 17, "other": 18}
///   LEASEHOLD_DEADLINE  the first deadline of the lease, as Unix time in milliseconds; renewals
///                       move the real one, so it bounds nothing while leasehold runs
///   LEASEHOLD_STORE     the store, without its password; if there is one, a `leasehold` inside
///                       CMD refuses to guess it: give it --store, or its own variable or file
#[derive(Debug, Group)]
#[command(verbatim_doc_comment, after_long_help = exit::HELP)]
pub(crate) struct Run {
    /// What to lock: 1 to 512 bytes of UTF-8
    #[arg(value_parser = key)]
    pub(crate) key: Key,
    /// Lock this one as well, all or nothing; may be given more than once. In whatever order others
    /// name the keys, nobody waits in a circle. CMD is ended when one of them is lost
    #[arg(long = "and", value_name = "KEY", value_parser = key)]
    pub(crate) and: Vec<Key>,
    #[command(flatten)]
    pub(crate) sharing: Sharing,
    #[command(flatten)]
    pub(crate) asking: Asking,
    #[command(flatten)]
    pub(crate) commanded: Commanded,
}

/// Take a lock for a script, and print its grant as JSON
///
/// Nobody renews the lock: it lives to its TTL, unless `renew` extends it or `release` ends it.
/// Prints one line on success: {"key", "fence", "token", "ttl_ms", "deadline_unix_ms", "store"}.
/// The holder may act until the deadline, which `renew` moves.
#[derive(Debug, Group)]
#[command(after_long_help = exit::HELP)]
pub(crate) struct Acquire {
    /// What to lock: 1 to 512 bytes of UTF-8
    #[arg(value_parser = key)]
    pub(crate) key: Key,
    #[command(flatten)]
    pub(crate) sharing: Sharing,
    #[command(flatten)]
    pub(crate) asking: Asking,
}

/// Which grant.
#[derive(Debug, Group)]
pub(crate) struct Granted {
    /// What is locked
    #[arg(value_parser = key)]
    pub(crate) key: Key,
    /// The token of the grant, or - to read it from stdin [env: LEASEHOLD_TOKEN]
    ///
    /// Whoever knows the token can end the lock, and other users of the machine can read a command
    /// line: prefer stdin or the variable.
    #[arg(long, value_name = "TOKEN", allow_hyphen_values = true)]
    pub(crate) token: Option<String>,
    /// Print the outcome as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Extend a lock that `acquire` took
///
/// The lock then lasts for the TTL it was acquired with, from now. Exits with 97 if it is not ours
/// any more. With --json: {"key", "held", "fence", "left_ms"}.
#[derive(Debug, Group)]
pub(crate) struct Renew {
    #[command(flatten)]
    pub(crate) granted: Granted,
}

/// Release a lock that `acquire` took
///
/// Exits with 97 if it was not ours any more: somebody else may have held it meanwhile. With
/// --json: {"key", "held"}, where `held` says whether it was still ours.
#[derive(Debug, Group)]
pub(crate) struct Release {
    #[command(flatten)]
    pub(crate) granted: Granted,
}

/// Tell whether a lock that `acquire` took is still ours
///
/// Exits with 0 if it is, with 97 if it is not. With --json: {"key", "held", "fence", "left_ms"}.
#[derive(Debug, Group)]
pub(crate) struct Check {
    #[command(flatten)]
    pub(crate) granted: Granted,
}

/// List the keys that somebody holds or waits for
///
/// With --json one object a line: {"key"}, or with --long what `inspect --json` prints.
#[derive(Debug, Group)]
pub(crate) struct Ls {
    /// Only keys that begin with this
    #[arg(default_value = "", hide_default_value = true)]
    pub(crate) prefix: String,
    /// Show holders and waiters as well
    #[arg(short, long)]
    pub(crate) long: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Show who holds a key, and who waits for it
///
/// With --json: {"key", "store", "holders": […], "waiters": […]}, waiters in order; each of them
/// {"owner", "note", "fence", "age_ms", "left_ms", "units", "limit", "foreign"}. `age_ms` is how
/// long it has held or waited, `left_ms` how long until it lapses unless it is renewed; a foreign
/// holder is not of leasehold. What is not known is null.
#[derive(Debug, Group)]
pub(crate) struct Inspect {
    /// The key
    #[arg(value_parser = key)]
    pub(crate) key: Key,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Show what happens to a key, as it happens
///
/// Looks at the line every 100 ms and prints what changed: a hold or a wait that is shorter than
/// that shows only as a gap in the fences. With --json one object a line: {"at", "event", "key",
/// "owner", "note", "fence"}; the events are `held`, `ended`, `waiting`, `gave_up`, `free`,
/// `trouble` and `recovered`. Ends with Ctrl-C.
#[derive(Debug, Group)]
pub(crate) struct Watch {
    /// The key
    #[arg(value_parser = key)]
    pub(crate) key: Key,
    /// How often to look
    #[arg(long, value_name = "DURATION", value_parser = duration::parse, default_value = "100ms")]
    pub(crate) every: Duration,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Release somebody else's lock by force
///
/// Shows the holder and asks first. The old holder learns it (a `leasehold run` ends its command),
/// but not before the next in line is granted: for that time both may act, and only the fence
/// tells them apart. A holder that is not of leasehold is refused. With --json: {"key", "broken",
/// "holders": […]}, as in `inspect`.
#[derive(Debug, Group)]
pub(crate) struct Break {
    /// The key
    #[arg(value_parser = key)]
    pub(crate) key: Key,
    /// Do not ask
    #[arg(short, long)]
    pub(crate) yes: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Say which guarantees hold at the store, and which do not
///
/// Asks the servers what they say of themselves, measures how long they take to answer and how far
/// their clocks are off, takes a lock that nobody else wants, and says in plain words what that
/// means for locks, the worst first, with the setting to change. Changes no setting.
///
/// Exits with 0 if nothing speaks against the store, with 1 after a warning or when something could
/// not be read, with 2 after a danger: as plugins of monitoring programs do.
///
/// With --json: {"store", "ttl_ms", "worst", "guarantees": {"properties": […], "min_ttl_ms",
/// "lapse_delay_ms"}, "servers": […], "probe", "findings": […]}. The properties are what stores of
/// this kind promise, and what --demand can name; the findings say whether this one is set up to
/// keep them. A hold that lapsed is free `lapse_delay_ms` after its TTL at the latest. A server is
/// {"name", "version", "role", "round_trip": {"exchanges", "min_us", "median_us", "max_us"},
/// "clock": {"ahead_us", "uncertainty_us"}}; the probe {"open_us", "enter_us", "renew_us",
/// "leave_us"}; a finding {"severity", "topic", "server", "says", "change"}, the worst first. A
/// severity is `fine`, `note`, `unknown`, `warning` or `danger`. What is not known is null.
#[derive(Debug, Group)]
#[command(after_long_help = exit::HELP)]
pub(crate) struct Doctor {
    /// What the key of the lock begins with, where the server allows this user some keys only
    #[arg(default_value = "", hide_default_value = true)]
    pub(crate) prefix: String,
    /// The TTL to judge by [env: LEASEHOLD_TTL] [default: 30s]
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    pub(crate) ttl: Option<Duration>,
    /// What the store has to have, as in line,survives-failover [env: LEASEHOLD_DEMAND]
    /// [default: nothing]
    #[arg(long, value_name = "PROPERTIES", value_parser = settings::properties)]
    pub(crate) demand: Option<Properties>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Show what a lock does, with real processes
///
/// Two nodes contend for a key; one waits and is woken; one is killed while it holds; one is paused
/// past its lease and writes late, which the resource refuses by the fence. Then one is elected, dies,
/// and is followed by the other; and one dies over a job that the other does, and nobody does again.
/// Prints what happens as it happens, and draws it as an SVG. Takes four to ten seconds, most of them
/// for leases to lapse.
#[derive(Debug, Group)]
pub(crate) struct Demo {
    /// Where to draw it
    #[arg(long, value_name = "FILE", default_value = "leasehold-demo.svg")]
    pub(crate) svg: PathBuf,
}

fn key(text: &str) -> Result<Key, leasehold::KeyError> {
    Key::new(text)
}
