//! A leader, and followers that know its address. See docs/recipes/leader.md.
//!
//! `cargo run --example leader -- [URL] [ADDRESS]`, in as many terminals as you like; stop the one that
//! leads.

use std::pin::pin;

use futures::StreamExt as _;
use leasehold::{Client, Observed, Result};

/// Follows whoever leads, until `stop` says enough: `tell` is told the address of each leader.
///
/// # Errors
///
/// When the store refuses; trouble with it is outlasted.
pub(crate) async fn follow(client: &Client, mut tell: impl FnMut(&str) -> bool) -> Result<()> {
    let mut changes = pin!(client.election("scheduler")?.observe());
    while let Some(change) = changes.next().await {
        match change {
            Ok(Observed::Leads(leader)) if !tell(leader.note.as_str()) => break,
            Ok(_) => {}
            Err(error) if error.is_transient() => eprintln!("still looking: {error}"),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Leads for as long as `work` takes. Its future is dropped when the office is lost.
///
/// # Errors
///
/// When the store refuses, and when the office was lost meanwhile.
pub(crate) async fn lead(
    client: &Client,
    address: &str,
    work: impl AsyncFnOnce(u64),
) -> Result<()> {
    let leader = client.election("scheduler")?.campaign(address).await?;
    let lost = leader.cancellation();
    tokio::select! {
        () = lost.cancelled() => {}
        // Followers refuse orders of a smaller term than they have seen.
        () = work(leader.term().get()) => {}
    }
    leader.check()?;
    leader.resign().await?;
    Ok(())
}

#[tokio::main]
#[allow(dead_code, reason = "not a program where a test uses it")]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let client = Client::open(&arguments.next().unwrap_or_else(|| "sqlite:".to_owned()))?;
    let address = arguments.next().unwrap_or_else(|| "10.0.0.7:8080".to_owned());
    let follows = tokio::spawn({
        let client = client.clone();
        async move {
            follow(&client, |leader| {
                println!("the leader is at {leader}");
                true
            })
            .await
        }
    });
    let leads = lead(&client, &address, async |term| {
        println!("leads in term {term}; Ctrl-C resigns");
        let _ = tokio::signal::ctrl_c().await;
    });
    leads.await?;
    follows.abort();
    client.close().await
}
