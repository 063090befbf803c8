//! The verbs for what is more than a lock.

// These comments are printed on terminals, where Markdown would be in the way.
#![allow(clippy::doc_markdown, rustdoc::bare_urls, rustdoc::broken_intra_doc_links)]

use std::ffi::OsString;
use std::time::Duration;

use clap::{Args as Group, ValueEnum};
use leasehold::{Away, Key, Rate, RateError};

use super::{Asking, Commanded, key};
use crate::duration::{self, Patience};
use crate::exit;

/// Run a command while this node leads
///
/// Campaigns for the office NAME, runs CMD once elected, and resigns when CMD ends, with CMD's exit
/// code. Everything that `leasehold run` says of its command and its lock holds here too: if the
/// office is lost, CMD and its process group are ended before the next one can lead, and the exit
/// code is 97.
///
/// Others learn who leads by `leasehold leader NAME`. CMD finds its term in LEASEHOLD_FENCE: whoever
/// it tells what to do should refuse a smaller one than it has seen.
#[derive(Debug, Group)]
#[command(after_long_help = exit::HELP)]
pub(crate) struct Elect {
    /// The office: 1 to 512 bytes of UTF-8
    #[arg(value_parser = key)]
    pub(crate) name: Key,
    /// What followers are told of the leader: an address, usually; the same as --note
    #[arg(long = "as", value_name = "ADDRESS", conflicts_with = "note")]
    pub(crate) address: Option<String>,
    #[command(flatten)]
    pub(crate) asking: Asking,
    #[command(flatten)]
    pub(crate) commanded: Commanded,
}

/// Tell who leads
///
/// Prints what the leader of the office NAME calls itself: its address (--as), or its host and process
/// if it gave none. Exits with 1 if nobody leads.
///
/// With --follow it prints who leads, and goes on with each change of it until Ctrl-C; an empty line
/// stands for a vacancy. It misses no leader, also one that led for a moment only, where the store
/// keeps records. Trouble with the store is told on stderr, and outlasted.
///
/// With --json one object a line: {"event", "name", "term", "address", "owner"}; the events are
/// `leads`, `vacant`, and with --follow `missed` (so many changes are forgotten: "changes").
#[derive(Debug, Group)]
#[command(after_long_help = exit::HELP)]
pub(crate) struct LeaderOf {
    /// The office
    #[arg(value_parser = key)]
    pub(crate) name: Key,
    /// Go on with each change
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Run a command once in a period, or once for a version, across a fleet
///
/// Every host asks, as from cron; one runs CMD, and exits with CMD's exit code. The others exit with 0
/// once it has been done, with 75 while it is being done, or wait for that with --wait: right for
/// migrations, where every instance goes on once one has migrated. What ran is remembered in the
/// store, by the store's own time where it has one.
///
/// A host that dies, loses the lock, cannot start CMD, or is told to end (TERM, INT, HUP, QUIT) before
/// CMD has succeeded lets the next one try. A CMD that failed is not tried again in its period unless
/// --retry-failed says so: the others exit with 99. Where the store was away when CMD had succeeded, so that it could not be written down, the exit code is 69:
/// CMD may be run again.
///
/// The command gets what `leasehold run` gives it, and is ended when the lock is lost as there.
#[derive(Debug, Group)]
#[command(after_long_help = exit::HELP)]
#[command(group = clap::ArgGroup::new("schedule").required(true))]
pub(crate) struct Once {
    /// The job: 1 to 512 bytes of UTF-8
    #[arg(value_parser = key)]
    pub(crate) key: Key,
    /// Once in each period of this length; periods begin at multiples of it, an hour with the hour
    #[arg(long, value_name = "DURATION", value_parser = duration::parse, group = "schedule")]
    pub(crate) every: Option<Duration>,
    /// Once for each time of a cron expression, as in "0 3 * * *"
    #[cfg(feature = "cron")]
    #[arg(long, value_name = "TIMES", group = "schedule")]
    pub(crate) cron: Option<String>,
    /// The time zone of --cron, as in Europe/Berlin
    #[cfg(feature = "cron")]
    #[arg(long, value_name = "ZONE", default_value = "UTC", conflicts_with_all = ["every", "version"])]
    pub(crate) tz: String,
    /// Once for this version, and not again after a later one
    #[arg(long, value_name = "NAME", group = "schedule")]
    pub(crate) version: Option<String>,
    /// The shortest time between the beginnings of two runs: longer than the clocks of the hosts, or
    /// their cron, differ by
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    pub(crate) at_least: Option<Duration>,
    /// How often a CMD that failed is tried again in its period
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) retry_failed: u32,
    /// With --cron: run what was missed, at any time before the next. Without it a run begins within
    /// five minutes of its time, or not at all
    #[arg(long)]
    pub(crate) catch_up: bool,
    /// Wait for whoever runs it; with =DURATION, so long at most
    #[arg(
        long,
        value_name = "DURATION",
        value_parser = duration::parse_patience,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "forever"
    )]
    pub(crate) wait: Option<Patience>,
    /// How long the lock lasts after its last renewal: how long a crash blocks the others, not how
    /// long the work may take [env: LEASEHOLD_TTL] [default: 30s]
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    pub(crate) ttl: Option<Duration>,
    #[command(flatten)]
    pub(crate) commanded: Commanded,
}

/// List jobs, with their last runs
///
/// Shows of each job that `once` ran when it last began, how long it took, how it ended, who ran it and
/// when its next period begins. With --json one object a line: {"key", "period", "owner", "fence",
/// "started", "ended", "ok", "code", "failures", "next"}; what is not known is null. A run without an
/// end is under way, or its runner died: `inspect` shows who holds the key.
#[derive(Debug, Group)]
pub(crate) struct Jobs {
    /// Only jobs that begin with this
    #[arg(default_value = "", hide_default_value = true)]
    pub(crate) prefix: String,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Tell or set how many slots a key has
///
/// With N, N slots from now on, for all who ask by --slots stored: work that holds one is not
/// disturbed, whoever comes next goes by the new number, and whoever waits already keeps the part
/// of the whole that it asked for. Without N, prints the number; exits with 1 if nobody set one.
#[derive(Debug, Group)]
#[command(after_long_help = exit::HELP)]
pub(crate) struct Slots {
    /// What has slots: 1 to 512 bytes of UTF-8
    #[arg(value_parser = key)]
    pub(crate) key: Key,
    /// How many: 1 to 65535
    #[arg(value_parser = clap::value_parser!(u32).range(1..=i64::from(leasehold::Slots::MAX)))]
    pub(crate) n: Option<u32>,
}

/// Forget what is remembered of a key
///
/// The runs of a job (`once`), which is then done again when it is next asked for; the history of an
/// election; the count of a limiter; the number of slots. Exits with 75 while somebody holds the key:
/// nothing is forgotten then.
#[derive(Debug, Group)]
#[command(after_long_help = exit::HELP)]
pub(crate) struct Forget {
    /// What to forget about: 1 to 512 bytes of UTF-8
    #[arg(value_parser = key)]
    pub(crate) key: Key,
}

/// Take a permit out of a rate, and run a command if there is one
///
/// All who use the store and KEY keep to the rate together: permits come back evenly, and no more
/// than the burst are there at once. With a permit, CMD is run in place of leasehold, whose exit
/// code is then CMD's own. Without one, exits with 75, or waits if --wait is given (124 when that was
/// not long enough). Without CMD, exits with 0 for a permit.
///
/// Without CMD, and with --json when CMD is not run, prints what was decided: whether it is
/// limited, the limit (the burst), how many remain, after which time to try again, and after which
/// time the whole limit is there again. With --json: {"key", "limited", "limit", "remaining",
/// "retry_after_ms", "reset_ms", "alone"}; `alone` is true when the store was away.
///
/// CMD finds LEASEHOLD_KEY and LEASEHOLD_STORE in its environment, as with `run`. Whoever gives
/// another rate for KEY goes by that one, on the same count.
#[derive(Debug, Group)]
#[command(after_long_help = exit::HELP)]
pub(crate) struct Limit {
    /// What is limited: 1 to 512 bytes of UTF-8
    #[arg(value_parser = key)]
    pub(crate) key: Key,
    /// So many permits per period, as in 100/s, 5/min, 1000/h, 10/500ms
    #[arg(long, value_name = "RATE", value_parser = rate)]
    pub(crate) rate: Rate,
    /// How many can be taken at once after a time without any [default: what one period gives]
    #[arg(long, value_name = "N")]
    pub(crate) burst: Option<u32>,
    /// How many permits to take: all or none
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) units: u32,
    /// Wait for the permit; with =DURATION, so long at most
    #[arg(
        long,
        value_name = "DURATION",
        value_parser = duration::parse_patience,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "forever"
    )]
    pub(crate) wait: Option<Patience>,
    /// When the store is away: closed runs nothing and exits with 69; open runs CMD without asking,
    /// since a command alone is within any rate
    #[arg(long, value_name = "HOW", default_value = "closed", hide_possible_values = true)]
    pub(crate) when_unavailable: WhenUnavailable,
    /// Take nothing: tell what there is
    #[arg(long, conflicts_with_all = ["wait", "units", "command"])]
    pub(crate) peek: bool,
    /// Print what was decided as JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// The command and its arguments
    #[arg(last = true, value_name = "CMD")]
    pub(crate) command: Vec<OsString>,
}

/// What `limit` does when the store is away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum WhenUnavailable {
    Open,
    Closed,
}

impl From<WhenUnavailable> for Away {
    fn from(chosen: WhenUnavailable) -> Self {
        match chosen {
            WhenUnavailable::Open => Self::Open,
            WhenUnavailable::Closed => Self::Closed,
        }
    }
}

fn rate(text: &str) -> Result<Rate, RateError> {
    text.parse()
}
