//! A fleet of processes that lock while they are killed, stopped and cut off; and a judge of what
//! they wrote down.

mod fleet;
mod judge;
mod log;
mod nemesis;
mod worker;

use std::time::Duration;

use leasehold::Property;

use crate::Bench;
use crate::actor::random_bytes;

pub(crate) use worker::toil;

use fleet::Fleet;
use judge::{Rules, judge};
use nemesis::Nemesis;

/// What a busy machine may need on top of a TTL to grant the next one. Nobody waits it out but a
/// case that fails.
const SLACK: Duration = Duration::from_secs(5);

/// How many bursts of faults there are.
pub(crate) fn rounds() -> u32 {
    number("LEASEHOLD_TURMOIL_ROUNDS").map_or(2, |rounds| rounds.try_into().expect("a number"))
}

fn number(variable: &str) -> Option<u64> {
    let value = std::env::var(variable).ok()?;
    Some(value.parse().unwrap_or_else(|error| panic!("{variable}={value}: {error}")))
}

/// Runs a fleet on a store that reaches beyond the process, and judges.
pub(crate) async fn run(bench: &dyn Bench) {
    let seed = number("LEASEHOLD_TURMOIL_SEED").unwrap_or_else(|| {
        let [a, b, c, d, ..] = random_bytes();
        u64::from(u32::from_le_bytes([a, b, c, d]))
    });
    // Shown when the case fails.
    println!("LEASEHOLD_TURMOIL_SEED={seed}");
    let store = bench.handle();
    let guarantees = store.guarantees();
    let ttl = guarantees.min_ttl.max(Duration::from_secs(1));
    let patience = ttl + guarantees.lapse_delay + SLACK;
    let frees_at_once = guarantees.has(Property::FreesAtOnce);
    let rules = Rules { patience, grace: worker::grace(ttl), frees_at_once };
    let fleet = Fleet::start(bench, seed, ttl).await;
    let mut nemesis = Nemesis::new(bench, fleet, seed, patience);
    for round in 0..rounds() {
        nemesis.burst(round).await;
        nemesis.calm().await;
    }
    let (faults, fleet) = nemesis.end();
    let record = fleet.end().await;
    println!("{faults:?}");
    match judge(&record, rules) {
        Ok(verdict) => println!("{verdict:?}"),
        Err(why) => {
            let file = std::env::temp_dir().join(format!("leasehold-turmoil-{seed}.txt"));
            std::fs::write(&file, record.to_string()).expect("the history can be written");
            panic!("{why}; the whole history is in {}", file.display());
        }
    }
    fleet::until_empty(&*store, patience).await;
}
