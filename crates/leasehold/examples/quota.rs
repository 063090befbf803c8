//! A fleet that keeps to the quota of an API together. See docs/recipes/quota.md.
//!
//! `cargo run --example quota -- [URL]`, in as many terminals as you like.

use leasehold::{Away, Client, Result};

/// Makes `calls` calls, each of which waits for its permit, and says how many it made.
///
/// # Errors
///
/// When the store refuses. While it is away no call is made ([`Away::Closed`]).
pub(crate) async fn calls(client: &Client, calls: u32, mut call: impl FnMut()) -> Result<u32> {
    let quota = client.limiter("api.example", "100/s", Away::Closed)?.burst(20)?;
    for _ in 0..calls {
        quota.acquire(1).await?;
        call();
    }
    Ok(calls)
}

#[tokio::main]
#[allow(dead_code, reason = "not a program where a test uses it")]
async fn main() -> Result<()> {
    let url = std::env::args().nth(1).unwrap_or_else(|| "sqlite:".to_owned());
    let client = Client::open(&url)?;
    let began = std::time::Instant::now();
    let made = calls(&client, 500, || {}).await?;
    println!("{made} calls in {:?}", began.elapsed());
    client.close().await
}
