//! A node of the demo: a process of its own that does as it is told on its standard input and
//! says what happened on its standard output, a line of JSON each.

use std::io::{BufRead, BufReader, Lines, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use leasehold::blocking::{Attempt, Begin, Client, Election, Guard, Job, Leader, Lock, Turn};
use leasehold::{Forgotten, Schedule};
use serde::{Deserialize, Serialize};

use super::Keys;

/// The hidden argument that makes this program a node: followed by name, key and TTL.
const ARGUMENT: &str = "__demo-node";

/// What this process was started with, if it was started to be a node.
pub(crate) fn node_arguments() -> Option<Vec<String>> {
    let mut arguments = std::env::args_os().skip(1);
    arguments.next().filter(|first| first == ARGUMENT)?;
    Some(arguments.filter_map(|argument| argument.into_string().ok()).collect())
}

/// What a node is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Order {
    /// Take the lock if it is free.
    Try,
    /// Wait for the lock.
    Lock,
    /// Look at the guard.
    Check,
    /// Release.
    Release,
    /// Wait for the office, to lead at this address.
    Campaign(String),
    /// Lead at another address.
    Proclaim(String),
    /// Say who leads.
    WhoLeads,
    /// Begin the job if nobody does it.
    Begin,
    /// Begin the job after whoever does it.
    BeginOrWait,
    /// Write down that the job is done.
    Succeed,
    /// Leave nothing in the store.
    CleanUp,
}

/// What a node says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Report {
    /// The lock, the office, or the turn.
    Granted {
        fence: u64,
    },
    Refused {
        holder: String,
        left: Option<Duration>,
    },
    Checked {
        good: bool,
    },
    Released {
        ours: bool,
    },
    /// Of an office: at which address.
    Leads {
        address: Option<String>,
    },
    /// Of a job: it is done.
    Ran {
        owner: String,
        took: Duration,
    },
    Done,
    Failed {
        why: String,
    },
}

/// A node as the demo sees it. Killed when it is dropped.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) process: Child,
    orders: ChildStdin,
    reports: Lines<BufReader<ChildStdout>>,
}

impl Node {
    pub(super) fn start(
        name: &str,
        store: &str,
        key: &str,
        ttl: Duration,
    ) -> std::io::Result<Self> {
        let mut process = Command::new(std::env::current_exe()?)
            .args([ARGUMENT, name, key, &ttl.as_millis().to_string()])
            // Not an argument: every user of the machine can read those, and it may hold a password.
            .env("LEASEHOLD_STORE", store)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let lost = || std::io::Error::other("a node of the demo has no pipes");
        let orders = process.stdin.take().ok_or_else(lost)?;
        let reports = BufReader::new(process.stdout.take().ok_or_else(lost)?).lines();
        Ok(Self { process, orders, reports })
    }

    pub(super) fn tell(&mut self, order: &Order) -> std::io::Result<()> {
        writeln!(self.orders, "{}", serde_json::to_string(order)?)
    }

    pub(super) fn report(&mut self) -> std::io::Result<Report> {
        let line = self.reports.next().transpose()?.unwrap_or_default();
        match serde_json::from_str(&line) {
            Ok(Report::Failed { why }) => Err(std::io::Error::other(why)),
            Ok(report) => Ok(report),
            Err(_) => Err(std::io::Error::other(format!("a node of the demo ended: {line:?}"))),
        }
    }

    pub(super) fn ask(&mut self, order: &Order) -> std::io::Result<Report> {
        self.tell(order)?;
        self.report()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Also a stopped process dies of this; one that is gone is none of our business.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The node itself. `arguments` are name, key and TTL in milliseconds.
pub(crate) fn main(arguments: &[String]) -> std::process::ExitCode {
    match serve(arguments) {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            let _ = say(&Report::Failed { why: error.to_string() });
            std::process::ExitCode::FAILURE
        }
    }
}

fn serve(arguments: &[String]) -> Result<(), Box<dyn std::error::Error>> {
    let [name, key, ttl] = arguments else {
        return Err("a node takes a name, a key and a TTL".into());
    };
    let store = std::env::var("LEASEHOLD_STORE")?;
    let ttl = Duration::from_millis(ttl.parse()?);
    let builder = leasehold::Client::builder().url(&store).ttl(ttl).owner(name);
    let mut actor = Actor::new(Client::build(builder)?, Keys::below(key))?;
    for line in std::io::stdin().lock().lines() {
        let order = serde_json::from_str(&line?)?;
        say(&actor.obey(order)?)?;
    }
    Ok(())
}

fn say(report: &Report) -> Result<(), Box<dyn std::error::Error>> {
    println!("{}", serde_json::to_string(report)?);
    Ok(())
}

/// What a node has.
struct Actor {
    client: Client,
    keys: Keys,
    mutex: Lock,
    guard: Option<Guard>,
    office: Election,
    leader: Option<Leader>,
    turn: Option<Turn>,
}

impl Actor {
    fn new(client: Client, keys: Keys) -> leasehold::Result<Self> {
        let (mutex, office) =
            (client.mutex(keys.lock.as_str())?, client.election(keys.office.as_str())?);
        Ok(Self { client, keys, mutex, guard: None, office, leader: None, turn: None })
    }

    fn obey(&mut self, order: Order) -> leasehold::Result<Report> {
        Ok(match order {
            Order::Try => match self.mutex.attempt()? {
                Attempt::Held(guard) => self.granted(guard),
                Attempt::Refused(ahead) => {
                    let holder = ahead.holder.unwrap_or_default();
                    Report::Refused { holder: holder.owner.as_str().to_owned(), left: holder.left }
                }
            },
            Order::Lock => {
                let guard = self.mutex.lock()?;
                self.granted(guard)
            }
            Order::Check => {
                let guard = self.guard.as_ref();
                Report::Checked { good: guard.is_some_and(|guard| guard.check().is_ok()) }
            }
            Order::Release => {
                let released = self.guard.take().map(Guard::release).transpose()?;
                Report::Released { ours: released == Some(leasehold::Released::Held) }
            }
            Order::Campaign(address) => {
                let leader = self.office.campaign(&address)?;
                Report::Granted { fence: self.leader.insert(leader).term().get() }
            }
            Order::Proclaim(address) => {
                self.leader.as_ref().map(|leader| leader.proclaim(&address)).transpose()?;
                Report::Done
            }
            Order::WhoLeads => {
                let leads = self.office.leader()?;
                Report::Leads { address: leads.map(|leads| leads.note.as_str().to_owned()) }
            }
            Order::Begin => {
                let begun = self.job()?.begin()?;
                self.begun(begun)
            }
            Order::BeginOrWait => {
                let begun = self.job()?.begin_or_wait()?;
                self.begun(begun)
            }
            Order::Succeed => {
                self.turn.take().map(Turn::succeed).transpose()?;
                Report::Done
            }
            Order::CleanUp => {
                self.leader.take().map(Leader::resign).transpose()?;
                for key in [&self.keys.office, &self.keys.job] {
                    if let Forgotten::Held(_) = self.client.forget(key.as_str())? {
                        tracing::debug!(key, "somebody else plays with the demo's key");
                    }
                }
                Report::Done
            }
        })
    }

    fn granted(&mut self, guard: Guard) -> Report {
        Report::Granted { fence: self.guard.insert(guard).fence().get() }
    }

    fn job(&self) -> leasehold::Result<Job> {
        self.client.job(self.keys.job.as_str(), Schedule::version("v42")?)
    }

    fn begun(&mut self, begun: Begin) -> Report {
        match begun {
            Begin::Turn(turn) => Report::Granted { fence: self.turn.insert(turn).fence().get() },
            Begin::Running(ahead) => {
                let holder = ahead.holder.unwrap_or_default();
                Report::Refused { holder: holder.owner.as_str().to_owned(), left: holder.left }
            }
            Begin::Ran(run) => {
                let took = run.ended.unwrap_or_default().saturating_sub(run.started);
                Report::Ran { owner: run.owner, took }
            }
            other => Report::Failed { why: format!("the job is neither ours nor done: {other:?}") },
        }
    }
}
