//! The other process of a case: a program that locks, reports, and may be stopped or killed.
//!
//! ```text
//! worker URL hold KEY TTL-IN-MS     prints `held FENCE`; then answers each line on its standard
//!                                   input with `good` or `lost`; at the end of the input it exits
//!                                   without a release, so it never outlives its parent
//! worker URL contend KEY TURNS FILE adds 1 to the number in FILE under the lock, TURNS times, and
//!                                   prints `FENCE FROM TO` for each, in nanoseconds
//! worker URL admit KEY RATE BURST TIME-IN-MS
//!                                   asks for a permit again and again, for that time; then prints
//!                                   `FROM TO` for each call that was allowed, in nanoseconds
//! worker URL toil TTL-IN-MS SEED    locks this and that until its standard input ends, and prints
//!                                   what it sees, a line each time
//! ```

use std::io::{BufRead, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use leasehold::{Away, Client, Key, Limiter, Lock, Released, Result, Store, clock};

use crate::actor::{PATIENT, careful_client, client};
use crate::turmoil::toil;

/// Runs the worker on the arguments of this process, with the store that `connect` makes of the
/// URL among them.
///
/// # Panics
///
/// When the arguments are none of the above, and when a case's expectation fails.
#[must_use]
pub fn main(connect: impl Fn(&str) -> Result<Arc<dyn Store>>) -> ExitCode {
    // Also a worker that is stopped ends with its parent.
    #[cfg(target_os = "linux")]
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
        .expect("a signal that is known");
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    // On a thread of the runtime, not on the one that reads the standard input.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime starts");
    let outcome = runtime.block_on(async {
        match args.as_slice() {
            [url, "hold", key, ttl] => {
                let ttl = Duration::from_millis(ttl.parse().expect("a TTL in milliseconds"));
                hold(&mutex(&careful_client(connect(url)?, ttl), key)?).await
            }
            [url, "contend", key, turns, file] => {
                let turns = turns.parse().expect("a number of turns");
                let client = client(connect(url)?, PATIENT);
                contend(&mutex(&client, key)?, turns, Path::new(file)).await?;
                client.close().await
            }
            [url, "admit", key, rate, burst, millis] => {
                let client = client(connect(url)?, PATIENT);
                let key = Key::new(key).expect("a valid key");
                let burst = burst.parse().expect("a number of permits");
                let limiter = client.limiter(key, *rate, Away::Closed)?.burst(burst)?;
                let time = Duration::from_millis(millis.parse().expect("a time in milliseconds"));
                admit(&limiter, time).await?;
                client.close().await
            }
            [url, "toil", ttl, seed] => {
                let ttl = Duration::from_millis(ttl.parse().expect("a TTL in milliseconds"));
                toil(client(connect(url)?, ttl), seed.parse().expect("a number")).await
            }
            _ => {
                panic!("usage: worker URL hold KEY TTL | contend KEY TURNS FILE | admit … | toil …")
            }
        }
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:?}");
            ExitCode::FAILURE
        }
    }
}

fn mutex(client: &Client, key: &str) -> Result<Lock> {
    client.mutex(Key::new(key).expect("a valid key"))
}

pub(crate) fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).expect("the parent reads");
}

async fn hold(mutex: &Lock) -> Result<()> {
    let guard = mutex.lock().await?;
    say(&format!("held {}", guard.fence()));
    tokio::task::block_in_place(|| {
        for _ in std::io::stdin().lock().lines().map_while(std::io::Result::ok) {
            say(if guard.check().is_ok() { "good" } else { "lost" });
        }
    });
    std::process::exit(0);
}

async fn contend(mutex: &Lock, turns: u32, file: &Path) -> Result<()> {
    for _ in 0..turns {
        let guard = mutex.lock().await?;
        let from = clock::now();
        let number: u64 = std::fs::read_to_string(file)
            .expect("the file is there")
            .trim()
            .parse()
            .expect("it holds a number");
        tokio::task::yield_now().await;
        std::fs::write(file, (number + 1).to_string()).expect("the file can be written");
        guard.check()?;
        let to = clock::now();
        say(&format!("{} {} {}", guard.fence(), from.as_nanos(), to.as_nanos()));
        assert_eq!(guard.release().await?, Released::Held);
    }
    Ok(())
}

async fn admit(limiter: &Limiter, time: Duration) -> Result<()> {
    let (mut calls, end) = (Vec::new(), clock::now() + time);
    loop {
        let from = clock::now();
        if from >= end {
            break;
        }
        // A store that is slow for a moment is no subject of the case.
        let Ok(decision) = limiter.try_acquire(1).await else { continue };
        if decision.allowed {
            calls.push((from, clock::now()));
        } else {
            // sleep: all processes together would otherwise take the whole machine.
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    for (from, to) in calls {
        say(&format!("{} {}", from.as_nanos(), to.as_nanos()));
    }
    Ok(())
}
