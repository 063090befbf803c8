//! Other processes: they contend, they are killed, they are stopped.

use std::process::{Command, Stdio};
use std::time::Duration;

use leasehold::{Fence, Moment, Property};
use leasehold_core::line::Share;
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout};

use crate::actor::{Actor, brief, claim, key, soon};
use crate::history::{self, Held};
use crate::{Bench, Reach, turmoil};

/// A worker process. Killed when dropped; it also ends when its standard input does.
pub(super) struct Worker {
    child: Child,
    input: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Worker {
    pub(super) fn spawn(mut command: Command, args: &[&str]) -> Self {
        command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = tokio::process::Command::from(command)
            .kill_on_drop(true)
            .spawn()
            .expect("a worker process starts");
        let input = child.stdin.take().expect("piped");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        Self { child, input, lines }
    }

    /// A worker that holds `key`, and the fence of its hold.
    async fn holding(bench: &dyn Bench, key: &str, ttl: Duration) -> (Self, Fence) {
        let ttl = ttl.as_millis().to_string();
        let mut worker = Self::spawn(bench.worker(), &["hold", key, &ttl]);
        let line = worker.line().await;
        let fence = line.strip_prefix("held ").expect("a hold").parse().expect("a fence");
        (worker, Fence::new(fence))
    }

    /// All its lines, until it ends well.
    pub(super) async fn rest(mut self) -> Vec<String> {
        let mut rest = Vec::new();
        while let Some(line) = self.lines.next_line().await.expect("readable") {
            rest.push(line);
        }
        assert!(self.child.wait().await.expect("it ends").success(), "a worker failed");
        rest
    }

    async fn line(&mut self) -> String {
        let line = soon("a line of the worker", self.lines.next_line()).await;
        line.expect("readable").expect("the worker goes on")
    }

    async fn ask(&mut self) -> String {
        self.input.write_all(b"?\n").await.expect("the worker reads");
        self.line().await
    }

    fn signal(&self, signal: Signal) {
        let pid = self.child.id().and_then(|id| Pid::from_raw(id.try_into().ok()?));
        kill_process(pid.expect("it runs"), signal).expect("it can be signalled");
    }
}

pub(crate) async fn processes_hold_one_at_a_time_as_far_as_the_store_reaches(bench: &dyn Bench) {
    const WORKERS: usize = 6;
    const TURNS: usize = 20;
    if bench.reach() == Reach::Process {
        // Said plainly, and shown: exclusion ends with the process.
        let alice = Actor::patient(bench).await;
        alice.holds(&claim("k")).await;
        let (_worker, _) = Worker::holding(bench, "k", Duration::from_mins(1)).await;
        return;
    }
    let name = format!("leasehold-contract-{}", claim("k").id.to_hex());
    let file = std::env::temp_dir().join(name);
    std::fs::write(&file, "0").expect("a temporary file");
    let path = file.to_str().expect("a plain path");
    let turns = TURNS.to_string();
    let workers: Vec<Worker> = (0..WORKERS)
        .map(|_| Worker::spawn(bench.worker(), &["contend", "counter", &turns, path]))
        .collect();
    let mut holds = Vec::new();
    for worker in workers {
        for line in worker.rest().await {
            let numbers: Vec<u64> =
                line.split(' ').map(|number| number.parse().expect("a number")).collect();
            let [fence, from, to] = numbers[..] else { panic!("not a hold: {line}") };
            holds.push(Held {
                key: key("counter"),
                share: Share::MUTEX,
                fence: Fence::new(fence),
                from: Moment::from_nanos(from),
                to: Moment::from_nanos(to),
            });
        }
    }
    let counted = std::fs::read_to_string(&file).expect("the file is there");
    std::fs::remove_file(&file).expect("the file goes");
    assert_eq!(holds.len(), WORKERS * TURNS);
    assert_eq!(counted, (WORKERS * TURNS).to_string(), "an increment was lost");
    history::check(holds).unwrap_or_else(|violation| panic!("{violation}"));
}

pub(crate) async fn a_killed_holder_frees_its_hold(bench: &dyn Bench) {
    let bob = Actor::patient(bench).await;
    let (mut worker, fence) = Worker::holding(bench, "k", brief(&*bob.store) * 2).await;
    assert_eq!(worker.ask().await, "good");
    if bench.reach() == Reach::Processes {
        bob.refused(&claim("k")).await;
        let waiter = claim("k");
        bob.waits(&waiter).await;
        worker.signal(Signal::KILL);
        assert!(bob.until_held(&waiter).await > fence);
        return;
    }
    // What dies with the process cannot be held by it afterwards: here a holder that vanishes is
    // a session that nobody renews.
    worker.signal(Signal::KILL);
    super::lapse::an_unrenewed_hold_lapses_but_not_before_its_ttl(bench).await;
}

pub(crate) async fn a_killed_waiter_does_not_hold_up_the_line(bench: &dyn Bench) {
    let [alice, bob] = [Actor::patient(bench).await, Actor::patient(bench).await];
    let [hold, waiter] = [claim("k"), claim("k")];
    alice.holds(&hold).await;
    let ttl = brief(&*bob.store).as_millis().to_string();
    let worker = Worker::spawn(bench.worker(), &["hold", "k", &ttl]);
    if bench.reach() == Reach::Processes && bob.store.guarantees().has(Property::Line) {
        soon("the worker is in line", async {
            while bob.line("k").await.1.is_empty() {
                // sleep: the line is looked at until it is as expected.
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    }
    bob.waits(&waiter).await;
    worker.signal(Signal::KILL);
    alice.leave(&hold).await;
    bob.until_held(&waiter).await;
}

pub(crate) async fn a_stopped_holder_finds_its_hold_lost(bench: &dyn Bench) {
    let bob = Actor::patient(bench).await;
    let ttl = brief(&*bob.store) * 2;
    let (mut worker, fence) = Worker::holding(bench, "k", ttl).await;
    assert_eq!(worker.ask().await, "good");
    worker.signal(Signal::STOP);
    let later = if bench.reach() == Reach::Processes {
        // The lease ends while the holder is stopped, and the next one is granted.
        let (_, later) = bob.until_free("k").await;
        assert!(later > fence, "{later:?} after {fence:?}: the resource refuses the stale one");
        later
    } else {
        // sleep: longer than the TTL.
        tokio::time::sleep(ttl).await;
        fence
    };
    worker.signal(Signal::CONT);
    // It wakes inside its critical section; the first check tells.
    assert_eq!(worker.ask().await, "lost", "fence {fence:?}, by now {later:?}");
}

pub(crate) async fn processes_in_turmoil_keep_the_rules(bench: &dyn Bench) {
    if bench.reach() == Reach::Process {
        // Nothing is shared that a process could leave behind: its fleet is the next case's.
        processes_hold_one_at_a_time_as_far_as_the_store_reaches(bench).await;
        return;
    }
    turmoil::run(bench).await;
}
