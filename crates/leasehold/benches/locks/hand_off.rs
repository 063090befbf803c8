//! How long it takes from a release to the grant of another process that waits.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use leasehold::{Client, clock};

use crate::median;
use crate::subject::Subject;

/// Hand-offs between two processes.
const HAND_OFFS: usize = 200;
/// The environment variable that makes this program the other process.
const WAITER: &str = "LEASEHOLD_BENCH_WAITER";

/// Whether this is the other process.
pub(crate) fn is_waiter() -> bool {
    std::env::var_os(WAITER).is_some()
}

/// This process holds, the other waits; the other says when it was granted, by the clock that all
/// processes of a machine share. A raw pair follows each hand-off.
pub(crate) async fn measure(subjects: &mut [Subject]) {
    println!(
        "\nHand-off to another process that waits (release sent → its grant), {HAND_OFFS} times:\n"
    );
    println!("| store | median | p99 | median in raw pairs |");
    println!("|---|---|---|---|");
    for subject in subjects.iter_mut().filter(|subject| subject.shared) {
        let mut waiter = Waiter::start(&subject.url);
        let client = Client::open(&subject.url).unwrap();
        let mutex = client.mutex("hand-off").unwrap();
        let (mut took, mut ratios) = (Vec::new(), Vec::new());
        for _ in 0..HAND_OFFS {
            let guard = mutex.lock().await.unwrap();
            waiter.tell("wait");
            while client.store().inspect(mutex.key()).await.unwrap().waiters.is_empty() {
                tokio::task::yield_now().await;
            }
            let released = clock::now();
            guard.release().await.unwrap();
            let granted: u64 = waiter.hear().parse().unwrap();
            let span = Duration::from_nanos(granted.saturating_sub(released.as_nanos()));
            waiter.tell("release");
            assert_eq!(waiter.hear(), "released");
            let began = Instant::now();
            subject.raw.pairs(1).await;
            ratios.push(span.as_secs_f64() / began.elapsed().as_secs_f64());
            took.push(span);
        }
        took.sort_unstable();
        let at = |share: usize| took[took.len() * share / 100].as_secs_f64() * 1000.0;
        let (half, most, ratio) = (at(50), at(99), median(ratios));
        println!("| {} | {half:.2} ms | {most:.1} ms | {ratio:.1} |", subject.name);
        client.close().await.unwrap();
    }
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
pub(crate) async fn wait_and_tell() {
    let client = Client::open(&std::env::var(WAITER).unwrap()).unwrap();
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
