//! A cron job on five hosts that runs on one of them. See docs/recipes/cron.md.
//!
//! `cargo run --example nightly -- [URL]`, from the crontab of every host.

use std::time::Duration;

use leasehold::{Begin, Client, Result, Schedule};

/// Runs `report` if nobody has run it for this night.
///
/// # Errors
///
/// When the store cannot be reached.
pub(crate) async fn nightly(
    client: &Client,
    report: impl AsyncFnOnce(u64) -> bool,
) -> Result<bool> {
    let schedule = Schedule::cron("0 3 * * *", "Europe/Berlin")?;
    let job = client.job("report", schedule)?.at_least(Duration::from_mins(1)).retry_failed(1);
    let Begin::Turn(turn) = job.begin().await? else { return Ok(false) };
    if report(turn.fence().get()).await {
        turn.succeed().await?;
    } else {
        turn.fail().await?;
    }
    Ok(true)
}

#[tokio::main]
#[allow(dead_code, reason = "not a program where a test uses it")]
async fn main() -> Result<()> {
    let url = std::env::args().nth(1).unwrap_or_else(|| "sqlite:".to_owned());
    let client = Client::open(&url)?;
    let ran = nightly(&client, async |fence| {
        println!("writes the report under fence {fence}");
        true
    })
    .await?;
    println!("{}", if ran { "ran" } else { "has been run, or is being run, by another host" });
    client.close().await
}
