//! `leasehold demo`: the picture of a distributed lock, live, with real processes.

mod svg;
mod timeline;
pub(crate) mod worker;

use std::io::{Error, Result};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use timeline::{Actor, Timeline, Tone};
use worker::{Node, Order, Report};

/// Short, so that a lapse can be watched; every store can keep it.
const TTL: Duration = Duration::from_secs(2);

/// How long a node works before it writes: long enough to be watched.
const WORK: Duration = Duration::from_millis(250);

/// Plays the demo on the store at `store` (shown as `shown`, without its password) and returns the
/// timeline as an SVG.
pub(crate) fn play(store: &str, shown: &str) -> Result<String> {
    let key = format!("leasehold-demo/{}", std::process::id());
    let mut stage = Stage {
        timeline: Timeline::new(),
        nodes: [Node::start("Node A", store, &key, TTL)?, Node::start("Node B", store, &key, TTL)?],
        resource: Resource { greatest: 0 },
    };
    let (winner, fence) = stage.contention(&key)?;
    stage.hand_over(winner, fence)?;
    let (survivor, fence) = stage.crash(1 - winner, store, &key)?;
    stage.pause(survivor, fence)?;
    Ok(svg::draw(&stage.timeline.scenes, shown))
}

/// What the lock protects: it remembers the greatest fence it has seen and refuses a smaller one.
struct Resource {
    greatest: u64,
}

impl Resource {
    fn write(&mut self, fence: u64) -> bool {
        let fresh = fence >= self.greatest;
        self.greatest = self.greatest.max(fence);
        fresh
    }
}

struct Stage {
    timeline: Timeline,
    nodes: [Node; 2],
    resource: Resource,
}

const fn actor(node: usize) -> Actor {
    if node == 0 { Actor::NodeA } else { Actor::NodeB }
}

impl Stage {
    /// Both ask at the same moment: one is granted, the other refused. Returns the winner.
    fn contention(&mut self, key: &str) -> Result<(usize, u64)> {
        self.timeline.scene("Two nodes ask for the same key at the same moment: one is granted")?;
        for node in 0..2 {
            self.nodes[node].tell(Order::Try)?;
            let text = format!("lock {key:?} for {TTL:?}");
            self.timeline.arrow(actor(node), Actor::Service, Tone::Plain, text)?;
        }
        let mut won = None;
        for node in 0..2 {
            match self.nodes[node].report()? {
                Report::Granted { fence } => {
                    self.granted(node, fence, "granted")?;
                    won = Some((node, fence));
                }
                Report::Refused { holder, left } => {
                    let left = left
                        .map_or(String::new(), |left| format!(", {} ms left", left.as_millis()));
                    let text = format!("denied: held by {holder}{left}");
                    self.timeline.arrow(Actor::Service, actor(node), Tone::Refused, text)?;
                }
                other => return Err(unexpected(&other)),
            }
        }
        won.ok_or_else(|| Error::other("neither node was granted a free lock"))
    }

    /// The loser waits; the winner works and releases; the loser is woken. Leaves the lock free.
    fn hand_over(&mut self, winner: usize, fence: u64) -> Result<()> {
        let waiter = 1 - winner;
        self.timeline.scene("The other waits its turn and is woken by the release")?;
        self.wait(waiter)?;
        self.write(winner, fence)?;
        self.release(winner)?;
        let released = Instant::now();
        let fence = self.awaited(waiter)?;
        let text = format!("woken and granted after {:.1} ms", millis(released));
        self.granted(waiter, fence, &text)?;
        self.write(waiter, fence)?;
        self.release(waiter)
    }

    /// The holder is killed; the lock frees itself. Returns the next holder.
    fn crash(&mut self, victim: usize, store: &str, key: &str) -> Result<(usize, u64)> {
        let waiter = 1 - victim;
        self.timeline.scene("A holder crashes: its lock frees itself")?;
        let fence = self.lock(victim)?;
        self.granted(victim, fence, "granted")?;
        self.wait(waiter)?;
        self.nodes[victim].process.kill()?;
        let killed = Instant::now();
        self.timeline.remark(
            actor(victim),
            Tone::Bad,
            "killed (SIGKILL) in its critical section",
        )?;
        let fence = self.awaited(waiter)?;
        let text = format!("freed and granted after {:.0} ms", millis(killed));
        self.granted(waiter, fence, &text)?;
        self.write(waiter, fence)?;
        self.nodes[victim] = Node::start(actor(victim).name(), store, key, TTL)?;
        Ok((waiter, fence))
    }

    /// The holder is paused past its lease and writes late: the resource refuses its old fence.
    fn pause(&mut self, sleeper: usize, old: u64) -> Result<()> {
        let waiter = 1 - sleeper;
        self.timeline
            .scene("A holder is paused past its lease: the fence protects the resource")?;
        self.wait(waiter)?;
        self.signal(sleeper, Signal::STOP)?;
        let stopped = Instant::now();
        self.timeline.remark(actor(sleeper), Tone::Bad, "paused (SIGSTOP), renews no more")?;
        let fence = self.awaited(waiter)?;
        let text = format!("lapsed and granted after {:.1} s", stopped.elapsed().as_secs_f64());
        self.granted(waiter, fence, &text)?;
        self.write(waiter, fence)?;
        self.signal(sleeper, Signal::CONT)?;
        self.timeline.remark(actor(sleeper), Tone::Plain, "wakes and knows nothing of it")?;
        // A node that asked its guard first would stop here; this one writes all the same.
        let good = self.nodes[sleeper].ask(Order::Check)? == (Report::Checked { good: true });
        self.write(sleeper, old)?;
        let text = if good { "check(): still held" } else { "check(): lost, as its guard says" };
        self.timeline.remark(actor(sleeper), Tone::Plain, text)?;
        self.release(waiter)
    }

    fn lock(&mut self, node: usize) -> Result<u64> {
        self.timeline.arrow(actor(node), Actor::Service, Tone::Plain, "lock")?;
        match self.nodes[node].ask(Order::Lock)? {
            Report::Granted { fence } => Ok(fence),
            other => Err(unexpected(&other)),
        }
    }

    /// Refused first, so that everyone sees who holds; then in line.
    fn wait(&mut self, node: usize) -> Result<()> {
        let Report::Refused { holder, .. } = self.nodes[node].ask(Order::Try)? else {
            return Err(Error::other("a held lock was granted again"));
        };
        self.nodes[node].tell(Order::Lock)?;
        let text = format!("wait in line behind {holder}");
        self.timeline.arrow(actor(node), Actor::Service, Tone::Refused, text)
    }

    fn awaited(&mut self, node: usize) -> Result<u64> {
        match self.nodes[node].report()? {
            Report::Granted { fence } => Ok(fence),
            other => Err(unexpected(&other)),
        }
    }

    fn granted(&mut self, node: usize, fence: u64, how: &str) -> Result<()> {
        let text = format!("{how}, fence {fence}");
        self.timeline.arrow(Actor::Service, actor(node), Tone::Good, text)
    }

    fn write(&mut self, node: usize, fence: u64) -> Result<()> {
        std::thread::sleep(WORK);
        let text = format!("write under fence {fence}");
        self.timeline.arrow(actor(node), Actor::Resource, Tone::Plain, text)?;
        if self.resource.write(fence) {
            return self.timeline.arrow(Actor::Resource, actor(node), Tone::Good, "accepted");
        }
        let text = format!("refused: stale, has seen fence {}", self.resource.greatest);
        self.timeline.arrow(Actor::Resource, actor(node), Tone::Bad, text)
    }

    fn release(&mut self, node: usize) -> Result<()> {
        self.timeline.arrow(
            actor(node),
            Actor::Service,
            Tone::Plain,
            "release, if it is still mine",
        )?;
        match self.nodes[node].ask(Order::Release)? {
            Report::Released { ours: true } => Ok(()),
            Report::Released { ours: false } => {
                self.timeline.arrow(Actor::Service, actor(node), Tone::Refused, "it was not yours")
            }
            other => Err(unexpected(&other)),
        }
    }

    fn signal(&self, node: usize, signal: Signal) -> Result<()> {
        Ok(kill_process(Pid::from_child(&self.nodes[node].process), signal)?)
    }
}

fn millis(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1000.0
}

fn unexpected(report: &Report) -> Error {
    Error::other(format!("a node of the demo said {report:?}, out of turn"))
}
