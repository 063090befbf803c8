//! `leasehold jobs`: what `once` ran.

use std::time::Duration;

use leasehold::Run;
use serde::Serialize;

use super::once::time;
use super::{Outcome, plain_client};
use crate::args::{Common, Jobs};
use crate::duration::show;
use crate::exit::Failure;
use crate::output::{FAINT, Output, STRONG, printable};

/// A job, as `--json` prints it. Field names are part of the interface.
#[derive(Serialize)]
struct Shown<'a> {
    key: &'a str,
    period: &'a str,
    owner: &'a str,
    fence: Option<u64>,
    started: String,
    ended: Option<String>,
    ok: Option<bool>,
    code: Option<i32>,
    failures: u32,
    next: Option<String>,
}

/// Runs the verb.
pub(crate) async fn jobs(args: &Jobs, common: &Common, output: Output) -> Result<Outcome, Failure> {
    let client = plain_client(common)?;
    for (key, run) in client.jobs(&args.prefix).await? {
        if args.json {
            output.json(&Shown {
                key: key.as_str(),
                period: &run.period,
                owner: &run.owner,
                fence: run.fence.map(leasehold::Fence::get),
                started: time(run.started),
                ended: run.ended.map(time),
                ok: run.ok,
                code: run.code,
                failures: run.failures,
                next: run.next.map(time),
            })?;
        } else {
            output.print(&human(key.as_str(), &run))?;
        }
    }
    Ok(Outcome::OK)
}

fn human(key: &str, run: &Run) -> String {
    let took = |ended: Duration| show(ended.saturating_sub(run.started));
    let how = match (run.ok, run.code, run.ended) {
        (Some(true), _, Some(ended)) => format!("done in {}", took(ended)),
        (Some(false), Some(code), Some(ended)) => {
            format!("failed with exit code {code} after {}", took(ended))
        }
        (Some(false), None, Some(ended)) => format!("failed after {}", took(ended)),
        _ => "not ended".to_owned(),
    };
    let next = run.next.map_or_else(String::new, |next| format!(", next {}", time(next)));
    format!(
        "{STRONG}{}{STRONG:#}  {how}{next}\n  {FAINT}began {} on {}, for {}{FAINT:#}\n",
        printable(key),
        time(run.started),
        printable(&run.owner),
        printable(&run.period),
    )
}
