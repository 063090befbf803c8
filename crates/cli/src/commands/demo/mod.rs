//! `leasehold demo`: the picture of a distributed lock, live, with real processes.

mod duties;
mod locking;
mod svg;
mod timeline;
mod worker;

use std::fs::File;
use std::io::{self, Error, ErrorKind, Write as _};
use std::time::{Duration, Instant};

use leasehold::fence::StaleFence;
use leasehold::{Fence, Property};
use rustix::process::{Pid, Signal, kill_process};

use timeline::{Actor, Timeline, Tone};
use worker::{Node, Report};
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
    let connected = leasehold::stores::connect(store).map_err(|error| settings.blame(error))?;
    let shown = connected.to_string();
    let remembers = connected.guarantees().has(Property::Records);
    let cannot_write = |error: io::Error| {
        Failure::new(exit::USAGE, format!("cannot write {}: {error}", args.svg.display()))
    };
    // Before the play: nobody wants to learn it after.
    let mut drawn = File::create(&args.svg).map_err(cannot_write)?;
    output.note(format_args!("two nodes, one lock, TTL {TTL:?}, over {shown}"));
    if !remembers {
        output
            .note(format_args!("no scenes of an election and a job: this store keeps no records"));
    }
    let drawing = match play(store, &shown, remembers) {
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

/// The keys that the demo plays with.
#[derive(Debug)]
struct Keys {
    lock: String,
    office: String,
    job: String,
}

impl Keys {
    fn below(key: &str) -> Self {
        Self { lock: key.to_owned(), office: format!("{key}/leader"), job: format!("{key}/job") }
    }
}

/// Plays it on the store at `store` (shown as `shown`, without its password) and returns the
/// timeline as an SVG. A store that remembers nothing has no elections and jobs.
fn play(store: &str, shown: &str, remembers: bool) -> io::Result<String> {
    let key = format!("leasehold-demo/{}", std::process::id());
    let start = |node| Node::start(actor(node).name(), store, &key, TTL);
    let mut stage = Stage {
        timeline: Timeline::new(),
        nodes: [start(0)?, start(1)?],
        resource: Resource::default(),
        store,
        keys: Keys::below(&key),
    };
    stage.lock_scenes()?;
    if remembers {
        stage.election()?;
        stage.job()?;
        stage.clean_up()?;
    }
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

struct Stage<'a> {
    timeline: Timeline,
    nodes: [Node; 2],
    resource: Resource,
    store: &'a str,
    keys: Keys,
}

const fn actor(node: usize) -> Actor {
    if node == 0 { Actor::NodeA } else { Actor::NodeB }
}

impl Stage<'_> {
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

    /// Kills a node, and says when.
    fn kill(&mut self, victim: usize, how: &str) -> io::Result<Instant> {
        self.nodes[victim].process.kill()?;
        let killed = Instant::now();
        self.timeline.remark(actor(victim), Tone::Bad, how)?;
        Ok(killed)
    }

    /// Starts a node that was killed again.
    fn restart(&mut self, node: usize) -> io::Result<()> {
        self.nodes[node] = Node::start(actor(node).name(), self.store, &self.keys.lock, TTL)?;
        Ok(())
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
