//! What a lock costs: each store against the raw driver in the same run.
//!
//! `cargo bench -p leasehold` prints three tables in Markdown, in two or three minutes; `cargo bench
//! -p leasehold -- redis etcd` only those stores. Compare ratios, not figures: machines differ, and
//! a shared one differs from minute to minute. Ours and raw take turns, round by round, and each
//! ratio is the median over the rounds. It starts its own servers, which do not sync to the disk.

mod hand_off;
mod raw;
mod raw_etcd;
mod raw_zookeeper;
mod subject;

use std::time::Instant;

use leasehold::{Client, Lock};

use self::subject::Subject;

/// Rounds of ours and raw in turn, after one to warm up.
const ROUNDS: usize = 9;
/// Pairs over which the server counts requests.
const COUNTED: u32 = 100;
/// Tasks that want the hot key.
const TASKS: u32 = 64;

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    if hand_off::is_waiter() {
        return runtime.block_on(hand_off::wait_and_tell());
    }
    let wanted: Vec<String> =
        std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    runtime.block_on(async {
        let mut subjects = Vec::new();
        for (name, start) in subject::ALL {
            if wanted.is_empty() || wanted.iter().any(|word| word == name) {
                subjects.push(start().await);
            }
        }
        uncontended(&mut subjects).await;
        hot_key(&mut subjects).await;
        hand_off::measure(&mut subjects).await;
    });
}

async fn uncontended(subjects: &mut [Subject]) {
    println!("Acquire and release, one task, nobody else wants the lock:\n");
    println!("| store | raw | pairs/s | raw pairs/s | ours / raw | requests a pair |");
    println!("|---|---|---|---|---|---|");
    for subject in subjects {
        let client = Client::open(&subject.url).unwrap();
        let mutex = client.mutex("bench").unwrap();
        pairs(&mutex, 1).await;
        let requests = requests(subject, &mutex).await;
        let compared = compare(subject, async |count| pairs(&mutex, count).await).await;
        println!("| {} | {} | {compared} | {requests} |", subject.name, subject.raw_name);
        client.close().await.unwrap();
    }
}

/// What one process gives to many tasks that want one key, beside what one task of its own could
/// do at best without a line.
async fn hot_key(subjects: &mut [Subject]) {
    println!("\nOne key that {TASKS} tasks of one process want, holds of 0 ms:\n");
    println!("| store | grants/s | raw pairs/s of a lone task | grants / raw |");
    println!("|---|---|---|---|");
    for subject in subjects {
        let client = Client::open(&subject.url).unwrap();
        let mutex = client.mutex("hot").unwrap();
        let all = async |count: u32| {
            let each = (count / TASKS).max(1);
            futures::future::join_all((0..TASKS).map(|_| pairs(&mutex, each))).await;
        };
        let compared = compare(subject, all).await;
        println!("| {} | {compared} |", subject.name);
        client.close().await.unwrap();
    }
}

async fn pairs(mutex: &Lock, count: u32) {
    for _ in 0..count {
        mutex.lock().await.unwrap().release().await.unwrap();
    }
}

/// How many requests the server counted for a pair of ours.
async fn requests(subject: &Subject, mutex: &Lock) -> String {
    let Some(counted) = &subject.counted else { return "–".to_owned() };
    let before = counted();
    pairs(mutex, COUNTED).await;
    let requests = counted() - before;
    #[expect(clippy::cast_precision_loss, reason = "a few hundred")]
    let each = requests as f64 / f64::from(COUNTED);
    format!("{each:.1}")
}

/// Pairs in a second of ours and of raw, and their ratio, as columns of a table.
async fn compare(subject: &mut Subject, ours: impl AsyncFn(u32)) -> String {
    let (mut our_rates, mut raw_rates, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    let count = subject.pairs.next_multiple_of(TASKS);
    for round in 0..=ROUNDS {
        let began = Instant::now();
        ours(count).await;
        let our_rate = f64::from(count) / began.elapsed().as_secs_f64();
        let began = Instant::now();
        subject.raw.pairs(count).await;
        let raw_rate = f64::from(count) / began.elapsed().as_secs_f64();
        if round > 0 {
            our_rates.push(our_rate);
            raw_rates.push(raw_rate);
            ratios.push(our_rate / raw_rate);
        }
    }
    let (ours, raw, ratio) = (median(our_rates), median(raw_rates), median(ratios));
    format!("{ours:.0} | {raw:.0} | {ratio:.2}")
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_unstable_by(f64::total_cmp);
    figures[figures.len() / 2]
}
