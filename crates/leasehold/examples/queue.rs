//! A queue of jobs: one worker for each, and no effect twice. See docs/recipes/queue.md.
//!
//! `cargo run --example queue -- [URL] [DIR]`, in as many terminals as you like.

use std::path::Path;

use leasehold::fence::file;
use leasehold::{Client, Result};

/// Goes through the queue once, and says how many jobs it did.
///
/// # Errors
///
/// When the store cannot be reached.
pub(crate) async fn work(client: &Client, results: &Path, jobs: u32) -> Result<u32> {
    let mut done = 0;
    for job in 0..jobs {
        let result = results.join(format!("{job}.txt"));
        // Somebody else is at it, or it is done: on to the next.
        let Some(guard) = client.mutex(format!("queue/{job}"))?.try_lock().await? else { continue };
        if result.exists() {
            continue; // dropping the guard releases it
        }
        let answer = format!("{}\n", u64::from(job) * u64::from(job)); // … the work …
        // Written only if no later holder has written: a worker that was paused past its lease and
        // wakes up now is refused here.
        match file::write(&result, guard.fence(), answer.as_bytes()) {
            Ok(()) => done += 1,
            Err(error) => eprintln!("job {job}: {error}"),
        }
        guard.release().await?;
    }
    Ok(done)
}

#[tokio::main]
#[allow(dead_code, reason = "not a program where a test uses it")]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let client = Client::open(&arguments.next().unwrap_or_else(|| "sqlite:".to_owned()))?;
    let results = arguments.next().unwrap_or_else(|| ".".to_owned());
    println!("did {} jobs", work(&client, Path::new(&results), 20).await?);
    client.close().await
}
