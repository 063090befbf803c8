//! What a lock costs: each store against the raw driver in the same run, and the hand-off between
//! two processes.
//!
//! `cargo bench -p leasehold` prints two tables in Markdown. Compare ratios, not figures: machines
//! differ, and a shared one differs from minute to minute. Ours and raw take turns, round by round,
//! and the ratio is the median over the rounds. Starts its own Redis.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use leasehold::{Client, Lock, clock};
use leasehold_testbed::Redis;
use redis::aio::MultiplexedConnection;

/// Rounds of ours and raw in turn.
const ROUNDS: usize = 9;
/// Hand-offs between two processes.
const HAND_OFFS: usize = 300;
/// The environment variable that makes this program the other process.
const WAITER: &str = "LEASEHOLD_BENCH_WAITER";

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    if let Ok(url) = std::env::var(WAITER) {
        runtime.block_on(wait_and_tell(&url));
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let server = Redis::start();
    println!("Acquire and release, one task, nobody else wants the lock:\n");
    println!("| store | pairs/s | raw pairs/s | ours / raw | commands a pair |");
    println!("|---|---|---|---|---|");
    runtime.block_on(memory());
    runtime.block_on(sqlite(directory.path()));
    runtime.block_on(over_redis(&server));
    println!(
        "\nHand-off to another process that waits (release sent → its grant), {HAND_OFFS} times:\n"
    );
    println!("| store | median | p99 |");
    println!("|---|---|---|");
    let file = format!("sqlite:{}", directory.path().join("hand-off.db").display());
    runtime.block_on(hand_offs("SQLite", &file));
    runtime.block_on(hand_offs("Redis", &server.url()));
}

/// Pairs in a second, of ours and of raw, in turn.
async fn compare(
    name: &str,
    mutex: &Lock,
    pairs: u32,
    commands: &str,
    mut raw: impl AsyncFnMut(u32),
) {
    let (mut ours, mut raws, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        let began = Instant::now();
        for _ in 0..pairs {
            mutex.lock().await.unwrap().release().await.unwrap();
        }
        let our = f64::from(pairs) / began.elapsed().as_secs_f64();
        let began = Instant::now();
        raw(pairs).await;
        let raw = f64::from(pairs) / began.elapsed().as_secs_f64();
        // The first round warms up.
        if round > 0 {
            ours.push(our);
            raws.push(raw);
            ratios.push(our / raw);
        }
    }
    let (our, raw, ratio) = (median(ours), median(raws), median(ratios));
    println!("| {name} | {our:.0} | {raw:.0} | {ratio:.2} | {commands} |");
}

async fn memory() {
    let client = Client::open("memory:").unwrap();
    let mutex = client.mutex("bench").unwrap();
    let raw = tokio::sync::Mutex::new(());
    let compared = compare("memory, raw = tokio's Mutex", &mutex, 20_000, "–", async |pairs| {
        for _ in 0..pairs {
            drop(std::hint::black_box(&raw).lock().await);
        }
    });
    compared.await;
    client.close().await.unwrap();
}

async fn sqlite(directory: &Path) {
    let url = format!("sqlite:{}", directory.join("ours.db").display());
    let client = Client::open(&url).unwrap();
    let mutex = client.mutex("bench").unwrap();
    let raw = rusqlite::Connection::open(directory.join("raw.db")).unwrap();
    raw.execute_batch(
        "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;
         CREATE TABLE held (key TEXT PRIMARY KEY, token TEXT, expires INTEGER);",
    )
    .unwrap();
    let name = "SQLite, raw = rusqlite insert + delete";
    let compared = compare(name, &mutex, 3_000, "2 transactions", async |pairs| {
        let mut take =
            raw.prepare_cached("INSERT OR IGNORE INTO held VALUES ('bench', 'token', 1)").unwrap();
        let mut give =
            raw.prepare_cached("DELETE FROM held WHERE key='bench' AND token='token'").unwrap();
        for _ in 0..pairs {
            take.execute([]).unwrap();
            give.execute([]).unwrap();
        }
    });
    compared.await;
    client.close().await.unwrap();
}

async fn over_redis(server: &Redis) {
    let client = Client::open(&server.url()).unwrap();
    let mutex = client.mutex("bench").unwrap();
    mutex.lock().await.unwrap().release().await.unwrap();
    let before = calls(server);
    mutex.lock().await.unwrap().release().await.unwrap();
    let commands = calls(server) - before;
    let raw = redis::Client::open(server.url()).unwrap();
    let mut raw = raw.get_multiplexed_async_connection().await.unwrap();
    let give = redis::Script::new(
        "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0",
    );
    give.prepare_invoke().load_async(&mut raw).await.unwrap();
    let name = "Redis, raw = SET NX PX + EVALSHA compare-and-delete";
    let commands = commands.to_string();
    let compared = compare(name, &mutex, 3_000, &commands, async |pairs| {
        for _ in 0..pairs {
            set_and_delete(&mut raw, &give).await;
        }
    });
    compared.await;
    client.close().await.unwrap();
}

async fn set_and_delete(raw: &mut MultiplexedConnection, give: &redis::Script) {
    let mut set = redis::cmd("SET");
    set.arg("raw").arg("token").arg("NX").arg("PX").arg(30_000);
    let () = set.query_async(raw).await.unwrap();
    let _: i64 = give.key("raw").arg("token").invoke_async(raw).await.unwrap();
}

/// Requests that clients sent so far: scripts, not what runs inside them.
fn calls(server: &Redis) -> u64 {
    let stats = server.cli(&["INFO", "commandstats"]);
    let calls = stats.lines().filter_map(|line| {
        let (command, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
        let calls = rest.split(',').next()?.parse::<u64>().ok()?;
        matches!(command, "evalsha" | "eval" | "set" | "hello").then_some((command, calls))
    });
    // `set` also counts those inside scripts, of which ours have one each.
    calls.filter(|(command, _)| *command != "set").map(|(_, calls)| calls).sum()
}

/// This process holds, the other waits; the other says when it was granted, by the clock that all
/// processes of a machine share.
async fn hand_offs(name: &str, url: &str) {
    let mut waiter = Waiter::start(url);
    let client = Client::open(url).unwrap();
    let mutex = client.mutex("hand-off").unwrap();
    let mut took = Vec::new();
    for _ in 0..HAND_OFFS {
        let guard = mutex.lock().await.unwrap();
        waiter.tell("wait");
        while client.store().inspect(mutex.key()).await.unwrap().waiters.is_empty() {
            tokio::task::yield_now().await;
        }
        let released = clock::now();
        guard.release().await.unwrap();
        let granted: u64 = waiter.hear().parse().unwrap();
        took.push(Duration::from_nanos(granted.saturating_sub(released.as_nanos())));
        waiter.tell("release");
        assert_eq!(waiter.hear(), "released");
    }
    took.sort_unstable();
    let at = |share: usize| took[took.len() * share / 100];
    println!("| {name} | {:?} | {:?} |", at(50), at(99));
    client.close().await.unwrap();
}

/// The other process.
struct Waiter {
    process: Child,
    told: BufReader<std::process::ChildStdout>,
}

impl Waiter {
    fn start(url: &str) -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .env(WAITER, url)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let told = BufReader::new(process.stdout.take().unwrap());
        Self { process, told }
    }

    fn tell(&mut self, order: &str) {
        writeln!(self.process.stdin.as_mut().unwrap(), "{order}").unwrap();
    }

    fn hear(&mut self) -> String {
        let mut line = String::new();
        self.told.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        // It ends at the end of its standard input, also if this process is killed.
        drop(self.process.stdin.take());
        let _ = self.process.wait();
    }
}

/// The other process's side.
async fn wait_and_tell(url: &str) {
    let client = Client::open(url).unwrap();
    let mutex = client.mutex("hand-off").unwrap();
    let mut guard = None;
    let mut out = std::io::stdout();
    let mut line = String::new();
    while std::io::stdin().read_line(&mut line).unwrap() > 0 {
        if line.trim_end() == "wait" {
            guard = Some(mutex.lock().await.unwrap());
            writeln!(out, "{}", clock::now().as_nanos()).unwrap();
        } else if let Some(guard) = guard.take() {
            guard.release().await.unwrap();
            writeln!(out, "released").unwrap();
        }
        out.flush().unwrap();
        line.clear();
    }
    client.close().await.unwrap();
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_unstable_by(f64::total_cmp);
    figures[figures.len() / 2]
}
