//! The verbs of `leasehold fence`.

// These comments are printed on terminals, where Markdown would be in the way.
#![allow(clippy::doc_markdown, rustdoc::bare_urls, rustdoc::broken_intra_doc_links)]

use std::path::PathBuf;

use clap::{Args as Group, Subcommand, ValueEnum};
use leasehold::Fence;

use crate::exit;

/// What `fence` does.
#[derive(Debug, Subcommand)]
pub(crate) enum FenceVerb {
    Check(FenceCheck),
    Write(FenceWrite),
    Sql(FenceSql),
    /// Print the script that fences a write in Redis
    ///
    /// EVAL SCRIPT 2 FENCE-KEY KEY TOKEN MS COMMAND… runs COMMAND, which writes KEY, unless FENCE-KEY
    /// holds a greater fence than TOKEN; it is remembered there for MS milliseconds (0: for ever).
    /// A refusal is the error STALEFENCE. For a cluster, FENCE-KEY is leasehold:fence:{KEY}.
    Redis {
        /// Print it as a library for FUNCTION LOAD (Redis 7): FCALL leasehold_write 2 …
        #[arg(long)]
        function: bool,
    },
}

/// Which fence is judged, and how that is told.
#[derive(Debug, Group)]
pub(crate) struct Judged {
    /// The writer's fence [env: LEASEHOLD_FENCE, which `run` sets]
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub(crate) token: Option<Fence>,
    /// Print the outcome as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Take note of a fence, unless a greater one was seen
///
/// For whatever a script guards on this machine, by a name of your choice. Exits with 0 if the fence
/// is accepted, and then every smaller one is refused from now on, also after a crash; with 98 if it
/// is refused. With --json: {"resource", "accepted", "token", "greatest"}.
///
/// It judges at this moment: what the script writes afterwards is not one step with it. `fence write`
/// is, and so are the forms for databases.
#[derive(Debug, Group)]
#[command(after_long_help = exit::HELP)]
pub(crate) struct FenceCheck {
    /// The name of what is written
    pub(crate) resource: String,
    #[command(flatten)]
    pub(crate) judged: Judged,
    /// Where the greatest fences are kept: a SQLite file [default: leasehold/fences.db in the user's
    /// state directory]
    #[arg(long, value_name = "FILE")]
    pub(crate) fences: Option<PathBuf>,
}

/// Replace a file by what is on stdin, unless it has seen a greater fence
///
/// The greatest fence is kept in FILE.fence. The file is replaced as a whole, or not at all, also
/// when the machine fails; all who write it have to do it this way. Exits with 98 if it is refused.
/// With --json: {"resource", "accepted", "token", "greatest"}.
#[derive(Debug, Group)]
#[command(after_long_help = exit::HELP)]
pub(crate) struct FenceWrite {
    /// The file
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) judged: Judged,
}

/// Print the SQL that fences writes in a database
///
/// Run it once, as a migration. Then, first in the transaction of each write: SELECT
/// public.leasehold_fence('jobs/42', 34) in PostgreSQL, which fails with SQLSTATE LHF01; INSERT INTO
/// leasehold_fence (resource, token) VALUES ('jobs/42', 34) in SQLite. With --table a trigger does
/// it for that table, whoever writes.
#[derive(Debug, Group)]
pub(crate) struct FenceSql {
    /// Whose SQL
    #[arg(long, value_name = "NAME", default_value = "postgres")]
    pub(crate) dialect: Dialect,
    /// The schema of the table and the functions, in PostgreSQL
    #[arg(long, value_name = "SCHEMA", default_value = "public")]
    pub(crate) schema: String,
    /// Fence the writes of this table by a trigger as well
    #[arg(long, value_name = "TABLE")]
    pub(crate) table: Option<String>,
    /// The column that tells its rows apart, if each row is a resource [default: the table is one]
    #[arg(long, value_name = "COLUMN", requires = "table")]
    pub(crate) key: Option<String>,
    /// The column that the writer's fence is in; in PostgreSQL SET LOCAL leasehold.fence = N goes over
    /// it
    #[arg(long, value_name = "COLUMN", requires = "table")]
    pub(crate) column: Option<String>,
}

/// A dialect of SQL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Dialect {
    Postgres,
    Sqlite,
}
