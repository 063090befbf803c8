//! `leasehold limit`: a permit for a command, out of a rate.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::time::Duration;

use leasehold::{Decision, Limiter};
use serde::Serialize;

use super::run::cannot_start;
use super::{Outcome, plain_client_and_url};
use crate::args::{Common, Limit};
use crate::duration::{Patience, show};
use crate::exit::{self, Failure};
use crate::output::Output;
use crate::store_url;
use crate::waiting;

/// What `--json` prints. Field names are part of the interface.
#[derive(Serialize)]
struct Report<'a> {
    key: &'a str,
    limited: bool,
    limit: u32,
    remaining: u32,
    retry_after_ms: u64,
    reset_ms: u64,
    alone: bool,
}

/// Runs the verb.
pub(crate) async fn limit(
    args: &Limit,
    common: &Common,
    output: Output,
) -> Result<Outcome, Failure> {
    let (client, url) = plain_client_and_url(common)?;
    let mut limiter = client.limiter(args.key.clone(), args.rate, args.when_unavailable.into())?;
    if let Some(burst) = args.burst {
        limiter = limiter.burst(burst)?;
    }
    let asked = ask(args, &limiter).await;
    let shown = client.store().to_string();
    // Before the command: nothing of this program is left then.
    waiting::close(client).await;
    let decision = asked?;
    if decision.alone {
        output.warn("the store is away: decided without it");
    }
    let command = args.command.as_slice();
    if decision.allowed && !args.peek && !command.is_empty() {
        return Err(become_command(command, args, &url, &shown));
    }
    tell(args, &decision, output)?;
    Ok(if decision.allowed { Outcome::OK } else { Outcome::Code(exit::BUSY) })
}

async fn ask(args: &Limit, limiter: &Limiter) -> leasehold::Result<Decision> {
    match args.wait {
        _ if args.peek => limiter.peek().await,
        None | Some(Patience::None) => limiter.try_acquire(args.units).await,
        Some(Patience::For(wait)) => limiter.acquire_within(args.units, wait).await,
        Some(Patience::Forever) => limiter.acquire(args.units).await,
    }
}

/// Replaces this process by the command, which then has its signals, its terminal and its exit
/// code: there is nothing to give back when it ends. Returns why it could not.
fn become_command(command: &[OsString], args: &Limit, url: &str, shown: &str) -> Failure {
    let Some((program, arguments)) = command.split_first() else {
        return Failure::new(exit::USAGE, "there is no command");
    };
    let error = Command::new(program)
        .args(arguments)
        .envs(store_url::for_the_command(url, shown))
        .env("LEASEHOLD_KEY", args.key.as_str())
        .exec();
    cannot_start(program, &error)
}

fn tell(args: &Limit, decision: &Decision, output: Output) -> Result<(), Failure> {
    let Decision { allowed, limit, remaining, retry_after, reset_after, alone } = *decision;
    if args.json {
        return output.json(&Report {
            key: args.key.as_str(),
            limited: !allowed,
            limit,
            remaining,
            retry_after_ms: millis(retry_after),
            reset_ms: millis(reset_after),
            alone,
        });
    }
    let shown = |duration| show(Duration::from_millis(millis(duration)));
    let (retry, reset) = (shown(retry_after), shown(reset_after));
    if !args.command.is_empty() {
        let key = args.key.as_str();
        output.note(format_args!("{key:?} is limited: try again in {retry}"));
        return Ok(());
    }
    let limited = if allowed { "no" } else { "yes" };
    output.print(&format!(
        "limited      {limited}\nlimit        {limit}\nremaining    {remaining}\n\
         retry-after  {retry}\nreset        {reset}\n"
    ))
}

/// Rounded up: who comes back after that is not early.
fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}
