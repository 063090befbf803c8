//! `leasehold demo`: the picture of a distributed lock, live, with real processes.

mod svg;
mod timeline;
mod worker;

use std::fs::File;
use std::io::{self, Error, ErrorKind, Write as _};
use std::time::{Duration, Instant};

use leasehold::Fence;
use leasehold::fence::StaleFence;
use rustix::process::{Pid, Signal, kill_process};

use timeline::{Actor, Timeline, Tone};
use worker::{Node, Order, Report};
pub(crate) use worker::{main as node_main, node_arguments};

use super::Outcome;
use crate::args::{Common, Demo};
use crate::exit::{self, Failure};
use crate::output::Output;
use crate::settings::{Flags, Settings, process_environment};

/// Short, so that a lapse can be watched; every store can keep it.
const TTL: Duration = Duration::from_secs(2);

/// How long a node works before it writes: long enough to be watched.
const WORK: Duration = Duration::from_millis(250);

/// Runs the verb.
pub(crate) fn demo(args: &Demo, common: &Common, output: Output) -> Result<Outcome, Failure> {
    let settings = Settings::load(common, Flags::default(), &process_environment)?;
    let store = &settings.store.value;
    if store.starts_with("memory:") {
        let message = "memory: reaches no further than one process, and the demo has three: give \
                       another --store, or none";
        return Err(Failure::new(exit::USAGE, message));
    }
    let shown =
        leasehold::stores::connect(store).map_err(|error| settings.blame(error))?.to_string();
    let cannot_write = |error: io::Error| {
        Failure::new(exit::USAGE, format!("cannot write {}: {error}", args.svg.display()))
    };
    // Before the play: nobody wants to learn it after.
    let mut drawn = File::create(&args.svg).map_err(cannot_write)?;
    output.note(format_args!("two nodes, one lock, TTL {TTL:?}, over {shown}"));
    let drawing = match play(store, &shown) {
        Ok(drawing) => drawing,
        // Nobody looks any more.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(Outcome::OK),
        Err(error) => {
            return Err(Failure::new(exit::UNAVAILABLE, format!("the demo ended: {error}")));
        }
    };
    drawn.write_all(drawing.as_bytes()).map_err(cannot_write)?;
    output.note(format_args!("drawn in {}", args.svg.display()));
    Ok(Outcome::OK)
}

/// Plays it on the store at `store` (shown as `shown`, without its password) and returns the
/// timeline as an SVG.
fn play(store: &str, shown: &str) -> io::Result<String> {
    let key = format!("leasehold-demo/{}", std::process::id());
    let mut stage = Stage {
        timeline: Timeline::new(),
        nodes: [Node::start("Node A", store, &key, TTL)?, Node::start("Node B", store, &key, TTL)?],
        resource: Resource::default(),
    };
    let (winner, fence) = stage.contention(&key)?;
    stage.hand_over(winner, fence)?;
    let (survivor, fence) = stage.crash(1 - winner, store, &key)?;
    stage.pause(survivor, fence)?;
    Ok(svg::draw(&stage.timeline.scenes, shown))
}

/// What the lock protects: it remembers the greatest fence it has seen and refuses a smaller one.
#[derive(Default)]
struct Resource {
    greatest: Option<Fence>,
}

impl Resource {
    fn write(&mut self, fence: Fence) -> Result<(), StaleFence> {
        fence.check("the resource", self.greatest)?;
        self.greatest = Some(fence);
        Ok(())
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
    fn contention(&mut self, key: &str) -> io::Result<(usize, u64)> {
        self.timeline.scene("Two nodes ask for the same key at the same moment: one is granted")?;
        for node in 0..2 {
            self.nodes[node].tell(Order::Try)?;
            let text = format!("lock {key:?} for {TTL:?}");
            self.timeline.arrow(actor(node), Actor::Service, Tone::Plain, text)?;
        }
        let mut won = None;
        let mut refused = None;
        for node in 0..2 {
            match self.nodes[node].report()? {
                Report::Granted { fence } => won = Some((node, fence)),
                Report::Refused { holder, left } => refused = Some((node, holder, left)),
                other => return Err(unexpected(&other)),
            }
        }
        let (Some((winner, fence)), Some((loser, holder, left))) = (won, refused) else {
            return Err(Error::other("of two nodes one should be granted a free lock"));
        };
        self.granted(winner, fence, "granted")?;
        let left = left.map_or(String::new(), |left| format!(", {} ms left", left.as_millis()));
        let text = format!("denied: held by {holder}{left}");
        self.timeline.arrow(Actor::Service, actor(loser), Tone::Refused, text)?;
        Ok((winner, fence))
    }

    /// The loser waits; the winner works and releases; the loser is woken. Leaves the lock free.
    fn hand_over(&mut self, winner: usize, fence: u64) -> io::Result<()> {
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
    fn crash(&mut self, victim: usize, store: &str, key: &str) -> io::Result<(usize, u64)> {
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
    fn pause(&mut self, sleeper: usize, old: u64) -> io::Result<()> {
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

    fn lock(&mut self, node: usize) -> io::Result<u64> {
        self.timeline.arrow(actor(node), Actor::Service, Tone::Plain, "lock")?;
        match self.nodes[node].ask(Order::Lock)? {
            Report::Granted { fence } => Ok(fence),
            other => Err(unexpected(&other)),
        }
    }

    /// Refused first, so that everyone sees who holds; then in line.
    fn wait(&mut self, node: usize) -> io::Result<()> {
        let Report::Refused { holder, .. } = self.nodes[node].ask(Order::Try)? else {
            return Err(Error::other("a held lock was granted again"));
        };
        self.nodes[node].tell(Order::Lock)?;
        let text = format!("wait in line behind {holder}");
        self.timeline.arrow(actor(node), Actor::Service, Tone::Refused, text)
    }

    fn awaited(&mut self, node: usize) -> io::Result<u64> {
        match self.nodes[node].report()? {
            Report::Granted { fence } => Ok(fence),
            other => Err(unexpected(&other)),
        }
    }

    fn granted(&mut self, node: usize, fence: u64, how: &str) -> io::Result<()> {
        let text = format!("{how}, fence {fence}");
        self.timeline.arrow(Actor::Service, actor(node), Tone::Good, text)
    }

    fn write(&mut self, node: usize, fence: u64) -> io::Result<()> {
        std::thread::sleep(WORK);
        let text = format!("write under fence {fence}");
        self.timeline.arrow(actor(node), Actor::Resource, Tone::Plain, text)?;
        let Err(stale) = self.resource.write(Fence::new(fence)) else {
            return self.timeline.arrow(Actor::Resource, actor(node), Tone::Good, "accepted");
        };
        let text = format!("refused: stale, has seen fence {}", stale.greatest);
        self.timeline.arrow(Actor::Resource, actor(node), Tone::Bad, text)
    }

    fn release(&mut self, node: usize) -> io::Result<()> {
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

    fn signal(&self, node: usize, signal: Signal) -> io::Result<()> {
        Ok(kill_process(Pid::from_child(&self.nodes[node].process), signal)?)
    }
}

fn millis(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1000.0
}

fn unexpected(report: &Report) -> Error {
    Error::other(format!("a node of the demo said {report:?}, out of turn"))
}
