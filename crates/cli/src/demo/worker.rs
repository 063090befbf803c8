//! A node of the demo: a process of its own that does as it is told on its standard input and
//! says what happened on its standard output, a line each.

use std::io::{BufRead, BufReader, Lines, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use leasehold::blocking::{Attempt, Client, Guard};

/// The hidden argument that makes this program a node: followed by name, key and TTL.
pub(crate) const ARGUMENT: &str = "__demo-node";

/// What a node is told.
#[derive(Debug, Clone, Copy)]
pub(super) enum Order {
    /// Take the lock if it is free.
    Try,
    /// Wait for the lock.
    Lock,
    /// Look at the guard.
    Check,
    /// Release.
    Release,
}

impl Order {
    const ALL: [Self; 4] = [Self::Try, Self::Lock, Self::Check, Self::Release];

    const fn word(self) -> &'static str {
        match self {
            Self::Try => "try",
            Self::Lock => "lock",
            Self::Check => "check",
            Self::Release => "release",
        }
    }
}

/// What a node says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Report {
    Granted { fence: u64 },
    Refused { holder: String, left: Option<Duration> },
    Checked { good: bool },
    Released { ours: bool },
    Failed { why: String },
}

impl Report {
    fn write(&self) -> String {
        match self {
            Self::Granted { fence } => format!("granted {fence}"),
            Self::Refused { holder, left } => {
                let left = left.map_or(-1, |left| i64::try_from(left.as_millis()).unwrap_or(-1));
                format!("refused {left} {holder}")
            }
            Self::Checked { good } => format!("checked {good}"),
            Self::Released { ours } => format!("released {ours}"),
            Self::Failed { why } => format!("failed {}", why.replace('\n', " ")),
        }
    }

    fn read(line: &str) -> Option<Self> {
        let (word, rest) = line.split_once(' ')?;
        Some(match word {
            "granted" => Self::Granted { fence: rest.parse().ok()? },
            "refused" => {
                let (left, holder) = rest.split_once(' ')?;
                let left = left.parse::<i64>().ok()?;
                let left = u64::try_from(left).ok().map(Duration::from_millis);
                Self::Refused { holder: holder.to_owned(), left }
            }
            "checked" => Self::Checked { good: rest.parse().ok()? },
            "released" => Self::Released { ours: rest.parse().ok()? },
            "failed" => Self::Failed { why: rest.to_owned() },
            _ => return None,
        })
    }
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

    pub(super) fn tell(&mut self, order: Order) -> std::io::Result<()> {
        writeln!(self.orders, "{}", order.word())
    }

    pub(super) fn report(&mut self) -> std::io::Result<Report> {
        let line = self.reports.next().transpose()?.unwrap_or_default();
        match Report::read(&line) {
            Some(Report::Failed { why }) => Err(std::io::Error::other(why)),
            Some(report) => Ok(report),
            None => Err(std::io::Error::other(format!("a node of the demo ended: {line:?}"))),
        }
    }

    pub(super) fn ask(&mut self, order: Order) -> std::io::Result<Report> {
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
            println!("{}", Report::Failed { why: error.to_string() }.write());
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
    let mutex = Client::build(builder)?.mutex(key.as_str())?;
    let mut guard: Option<Guard> = None;
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let Some(order) = Order::ALL.into_iter().find(|order| order.word() == line) else {
            return Err(format!("no such order: {line:?}").into());
        };
        let report = match order {
            Order::Try => match mutex.attempt()? {
                Attempt::Held(held) => granted(&mut guard, held),
                Attempt::Refused(ahead) => {
                    let holder = ahead.holder.unwrap_or_default();
                    Report::Refused { holder: holder.owner.as_str().to_owned(), left: holder.left }
                }
            },
            Order::Lock => granted(&mut guard, mutex.lock()?),
            Order::Check => {
                Report::Checked { good: guard.as_ref().is_some_and(|guard| guard.check().is_ok()) }
            }
            Order::Release => {
                let released = guard.take().map(Guard::release).transpose()?;
                Report::Released { ours: released == Some(leasehold::Released::Held) }
            }
        };
        println!("{}", report.write());
    }
    Ok(())
}

fn granted(slot: &mut Option<Guard>, guard: Guard) -> Report {
    let fence = guard.fence().get();
    *slot = Some(guard);
    Report::Granted { fence }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_survive_the_pipe() {
        for report in [
            Report::Granted { fence: u64::MAX },
            Report::Refused { holder: "a b".into(), left: Some(Duration::from_millis(7)) },
            Report::Refused { holder: String::new(), left: None },
            Report::Checked { good: false },
            Report::Released { ours: true },
            Report::Failed { why: "no".into() },
        ] {
            assert_eq!(Report::read(&report.write()), Some(report));
        }
    }
}
