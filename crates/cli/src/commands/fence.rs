//! `leasehold fence`: refusing stale writers, from scripts and for databases.

use std::io::Read as _;
use std::path::PathBuf;

use leasehold::Fence;
use leasehold::fence::{file, redis, sql};
use serde::Serialize;

use super::Outcome;
use crate::args::{Dialect, FenceCheck, FenceSql, FenceVerb, FenceWrite, Judged};
use crate::exit::{self, Failure};
use crate::output::Output;
use crate::settings::process_environment;

/// What `--json` prints. Field names are part of the interface.
#[derive(Serialize)]
struct Report<'a> {
    resource: &'a str,
    accepted: bool,
    token: u64,
    greatest: u64,
}

/// Runs the verb.
pub(crate) fn fence(verb: FenceVerb, output: Output) -> Result<Outcome, Failure> {
    match verb {
        FenceVerb::Check(args) => check(args, output),
        FenceVerb::Write(args) => write(&args, output),
        FenceVerb::Sql(args) => {
            output.print(&text(&args)?)?;
            Ok(Outcome::OK)
        }
        FenceVerb::Redis { function } => {
            output.print(if function { redis::LIBRARY } else { redis::SCRIPT })?;
            Ok(Outcome::OK)
        }
    }
}

fn check(args: FenceCheck, output: Output) -> Result<Outcome, Failure> {
    if args.resource.is_empty() {
        return Err(Failure::new(exit::USAGE, "the name of the resource is empty"));
    }
    let token = token(&args.judged)?;
    let advanced = advance(args.fences, &args.resource, token);
    report(&args.resource, token, advanced, &args.judged, output)
}

#[cfg(feature = "sqlite")]
fn advance(fences: Option<PathBuf>, resource: &str, token: Fence) -> leasehold::Result<()> {
    use leasehold::fence::SqliteLedger;

    let path = fences.map_or_else(SqliteLedger::default_path, Ok)?;
    SqliteLedger::open(&path)?.advance_blocking(resource, token)
}

#[cfg(not(feature = "sqlite"))]
fn advance(_fences: Option<PathBuf>, _resource: &str, _token: Fence) -> leasehold::Result<()> {
    let detail = "this build has no SQLite, which the fences are kept in";
    let kind = leasehold::ErrorKind::Unsupported;
    Err(leasehold::Error::new(kind, "take note of a fence", detail))
}

fn write(args: &FenceWrite, output: Output) -> Result<Outcome, Failure> {
    let token = token(&args.judged)?;
    let mut contents = Vec::new();
    // All of it, before the file is locked: whoever feeds us may take its time.
    std::io::stdin().lock().read_to_end(&mut contents).map_err(|error| {
        Failure::new(exit::INTERNAL, format!("cannot read the contents from stdin: {error}"))
    })?;
    let written = file::write(&args.file, token, &contents);
    report(&args.file.to_string_lossy(), token, written, &args.judged, output)
}

/// The writer's fence: the flag, or what `run` told its command.
fn token(judged: &Judged) -> Result<Fence, Failure> {
    if let Some(token) = judged.token {
        return Ok(token);
    }
    let text = process_environment("LEASEHOLD_FENCE").ok_or_else(|| {
        let message = "there is no fence: give --token, or set LEASEHOLD_FENCE, as `run` does";
        Failure::new(exit::USAGE, message)
    })?;
    text.parse().map_err(|error| {
        Failure::new(exit::CONFIG, format!("LEASEHOLD_FENCE: bad value {text:?}: {error}"))
    })
}

fn report(
    resource: &str,
    token: Fence,
    accepted: leasehold::Result<()>,
    judged: &Judged,
    output: Output,
) -> Result<Outcome, Failure> {
    let (greatest, code) = match &accepted {
        Ok(()) => (Some(token), 0),
        Err(error) => (error.stale_fence().map(|stale| stale.greatest), exit::STALE),
    };
    match greatest {
        // Neither accepted nor stale is a failure, which is told as one.
        Some(greatest) if judged.json => {
            let (token, greatest) = (token.get(), greatest.get());
            output.json(&Report { resource, accepted: accepted.is_ok(), token, greatest })?;
            Ok(Outcome::Code(code))
        }
        _ => Ok(accepted.map(|()| Outcome::OK)?),
    }
}

fn text(args: &FenceSql) -> Result<String, Failure> {
    let table = args.table.as_deref().map(|name| sql::Table {
        name,
        key: args.key.as_deref(),
        column: args.column.as_deref(),
    });
    let mut text = match args.dialect {
        Dialect::Postgres => sql::postgres(&args.schema)?,
        Dialect::Sqlite => sql::SQLITE.to_owned(),
    };
    if let Some(table) = table {
        text += &match args.dialect {
            Dialect::Postgres => sql::postgres_table(&args.schema, &table)?,
            Dialect::Sqlite => sql::sqlite_table(&table)?,
        };
    }
    Ok(text)
}
