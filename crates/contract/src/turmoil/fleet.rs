//! The processes: each at a post, where another takes over when one is killed.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use leasehold::{Moment, Store, clock};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdin};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::judge::Record;
use super::log::{Span, Step, What};
use super::worker::KEYS;
use crate::actor::soon;
use crate::{Bench, Link, Weather};

/// How many processes there are at a time.
pub(super) const POSTS: usize = 6;

/// A place for a process, with a way of its own to the store.
pub(super) struct Post {
    pub(super) link: Option<Box<dyn Link>>,
    process: usize,
    child: Child,
    /// Its end tells the process to finish.
    input: ChildStdin,
    reader: JoinHandle<()>,
    pub(super) stopped: bool,
    /// Its network lets nothing pass.
    pub(super) silent: bool,
    /// Since when it has been in trouble.
    trouble: Option<Moment>,
}

/// What all write down.
#[derive(Clone)]
struct Notes {
    record: Arc<Mutex<Record>>,
    now: watch::Sender<Now>,
}

/// What is the case now, as far as the processes have told.
#[derive(Default)]
struct Now {
    /// When each key was granted last.
    granted: BTreeMap<String, Moment>,
    /// The turns that hold, after the number of their process.
    holding: BTreeSet<(usize, u64)>,
}

impl Now {
    fn takes(&mut self, process: usize, key: Option<String>, step: &Step) {
        match step.what {
            What::Held { .. } => {
                self.holding.insert((process, step.turn));
                self.granted.extend(key.map(|key| (key, step.at)));
            }
            What::Lost | What::Leaving => {
                self.holding.remove(&(process, step.turn));
            }
            _ => {}
        }
    }
}

pub(super) struct Fleet<'a> {
    bench: &'a dyn Bench,
    seed: u64,
    ttl: Duration,
    notes: Notes,
    processes: usize,
    posts: Vec<Post>,
}

impl<'a> Fleet<'a> {
    pub(super) async fn start(bench: &'a dyn Bench, seed: u64, ttl: Duration) -> Self {
        let notes = Notes { record: Arc::default(), now: watch::Sender::new(Now::default()) };
        let mut fleet = Self { bench, seed, ttl, notes, processes: 0, posts: Vec::new() };
        for _ in 0..POSTS {
            let post = fleet.man(fleet.bench.link());
            fleet.posts.push(post);
        }
        fleet.until_holds(clock::now(), Duration::from_secs(30)).await;
        fleet
    }

    fn man(&mut self, link: Option<Box<dyn Link>>) -> Post {
        let process = self.processes;
        self.processes += 1;
        let mut command = link.as_ref().map_or_else(|| self.bench.worker(), |link| link.worker());
        let seed = self.seed.wrapping_mul(1000).wrapping_add(process as u64);
        command.args(["toil", &self.ttl.as_millis().to_string(), &seed.to_string()]);
        let (child, input, reader) = self.notes.spawn(process, command);
        Post { link, process, child, input, reader, stopped: false, silent: false, trouble: None }
    }

    pub(super) const fn ttl(&self) -> Duration {
        self.ttl
    }

    /// Takes note of what is done to the process at a post, or to all.
    pub(super) fn tell(&self, at: Option<usize>, what: &str) {
        let whom = at.map_or("all".to_owned(), |at| self.posts[at].process.to_string());
        self.notes.record().faults.push((clock::now(), format!("{what} {whom}")));
    }

    pub(super) fn post(&mut self, at: usize) -> &mut Post {
        &mut self.posts[at]
    }

    /// The posts that are in no trouble.
    pub(super) fn healthy(&self) -> Vec<usize> {
        (0..POSTS).filter(|at| self.posts[*at].trouble.is_none()).collect()
    }

    /// The posts whose requests reach the store, be it slowly.
    pub(super) fn reaching(&self) -> Vec<usize> {
        (0..POSTS).filter(|at| !self.posts[*at].is_silent()).collect()
    }

    /// Whether a process at a post holds something.
    pub(super) fn holds(&self, at: usize) -> bool {
        let process = self.posts[at].process;
        self.notes.now.borrow().holding.range((process, 0)..=(process, u64::MAX)).next().is_some()
    }

    pub(super) fn troubled(&self) -> Vec<usize> {
        (0..POSTS).filter(|at| self.posts[*at].trouble.is_some()).collect()
    }

    /// Kills the process at a post, and puts another in its place.
    pub(super) async fn kill(&mut self, at: usize) {
        self.tell(Some(at), "kills");
        let dead = self.posts.remove(at);
        signal(&dead.child, Signal::KILL);
        let Post { link, process, mut child, reader, .. } = dead;
        child.wait().await.expect("it ends");
        self.notes.record().killed.insert(process, clock::now());
        reader.await.expect("its last words are read");
        if let Some(link) = &link {
            clear(&**link);
        }
        let post = self.man(link);
        self.posts.insert(at, post);
    }

    pub(super) fn stop(&mut self, at: usize) {
        self.tell(Some(at), "stops");
        let post = &mut self.posts[at];
        post.begin_trouble();
        signal(&post.child, Signal::STOP);
        post.stopped = true;
    }

    /// The same on each of `wires`, or nothing where there is no network.
    pub(super) fn set(&mut self, at: usize, wires: &[usize], weather: Weather) {
        self.tell(Some(at), &format!("{weather:?} on {wires:?} of"));
        let post = &mut self.posts[at];
        post.begin_trouble();
        for wire in wires {
            post.link.as_ref().expect("a network").set(*wire, weather);
        }
    }

    /// Ends all trouble of a post.
    pub(super) fn heal(&mut self, at: usize) {
        self.tell(Some(at), "heals");
        let post = &mut self.posts[at];
        if let Some(link) = &post.link {
            clear(&**link);
        }
        post.silent = false;
        if post.stopped {
            signal(&post.child, Signal::CONT);
            post.stopped = false;
        }
        if let Some(from) = post.trouble.take() {
            let span = Span { from, to: clock::now() };
            self.notes.record().troubled.push((post.process, span));
        }
    }

    /// Takes note of a calm, and of those who were in trouble all the time.
    pub(super) fn was_calm(&self, calm: Span) {
        let mut record = self.notes.record();
        record.calms.push(calm);
        for post in &self.posts {
            if let Some(from) = post.trouble {
                record.troubled.push((post.process, Span { from, to: calm.to }));
            }
        }
    }

    /// Waits until each key was granted to somebody after `since`, but no longer than `patience`:
    /// the judge then says what was wrong.
    pub(super) async fn until_holds(&self, since: Moment, patience: Duration) {
        let mut now = self.notes.now.subscribe();
        let all =
            now.wait_for(|now| now.granted.values().filter(|at| **at > since).count() == KEYS);
        // What is missing then is the judge's to say.
        let _ = tokio::time::timeout(patience, all).await;
    }

    /// Lets all finish their turns: whoever waits has to be granted first.
    pub(super) async fn end(mut self) -> Record {
        for at in self.troubled() {
            self.heal(at);
        }
        let mut children = Vec::new();
        for Post { link, process, child, input, reader, .. } in self.posts {
            drop(input);
            children.push((link, process, child, reader));
        }
        for (_link, process, mut child, reader) in children {
            let status = soon(&format!("process {process} ends"), child.wait()).await;
            assert!(status.expect("it ends").success(), "process {process} failed");
            reader.await.expect("its last words are read");
        }
        std::mem::take(&mut *self.notes.record())
    }
}

impl Post {
    /// Nothing of it reaches the store.
    pub(super) const fn is_silent(&self) -> bool {
        self.stopped || self.silent
    }

    fn begin_trouble(&mut self) {
        self.trouble.get_or_insert_with(clock::now);
    }
}

impl Notes {
    fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn spawn(&self, process: usize, mut command: Command) -> (Child, ChildStdin, JoinHandle<()>) {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = tokio::process::Command::from(command)
            .kill_on_drop(true)
            .spawn()
            .expect("a worker process starts");
        let input = child.stdin.take().expect("piped");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let notes = self.clone();
        let reader = tokio::spawn(async move {
            let mut wanted = HashMap::new();
            while let Some(line) = lines.next_line().await.expect("readable") {
                let step: Step = line.parse().unwrap_or_else(|why| panic!("{why}"));
                if let What::Want { key, .. } = &step.what {
                    wanted.insert(step.turn, key.clone());
                }
                let ends = !matches!(step.what, What::Want { .. });
                let key = if ends { wanted.remove(&step.turn) } else { None };
                notes.now.send_modify(|now| now.takes(process, key, &step));
                notes.record().steps.push((process, step));
            }
        });
        (child, input, reader)
    }
}

fn clear(link: &dyn Link) {
    for wire in 0..link.wires() {
        link.set(wire, Weather::Clear);
    }
}

fn signal(child: &Child, signal: Signal) {
    let pid = child.id().and_then(|id| Pid::from_raw(id.try_into().ok()?));
    kill_process(pid.expect("it runs"), signal).expect("it can be signalled");
}

/// Waits until nothing is left in the store: what the dead had lapses.
pub(super) async fn until_empty(store: &dyn Store, patience: Duration) {
    let empty = async {
        loop {
            let left = store.keys("").await.expect("lists");
            if left.is_empty() {
                return;
            }
            // sleep: what nobody renews lapses without a word.
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let emptied = tokio::time::timeout(patience, empty).await;
    assert!(emptied.is_ok(), "left behind: {:?}", store.keys("").await);
}
