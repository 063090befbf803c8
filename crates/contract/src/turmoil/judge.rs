//! Whether what the workers wrote down obeys the rules.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::time::Duration;

use leasehold::{Fence, Key, Moment, Released};
use leasehold_core::line::Share;

use super::log::{Span, Step, What};
use crate::history::{self, Held};

/// What happened, as the workers and the one who troubled them wrote it down. A process is a
/// number of its own, also where it comes after another one that was killed.
#[derive(Debug, Default)]
pub(crate) struct Record {
    /// What the processes wrote, each in its order.
    pub(crate) steps: Vec<(usize, Step)>,
    /// Those that were killed, and when they were dead.
    pub(crate) killed: HashMap<usize, Moment>,
    /// When processes were stopped, or their network was in trouble.
    pub(crate) troubled: Vec<(usize, Span)>,
    /// When no trouble began or ended for anybody.
    pub(crate) calms: Vec<Span>,
    /// What was done to whom, for people to read.
    pub(crate) faults: Vec<(Moment, String)>,
}

impl fmt::Display for Record {
    /// All lines in the order of their times, each `NANOSECONDS WHO WHAT`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let faults = self.faults.iter().map(|(at, what)| (*at, format!("nemesis: {what}")));
        let steps =
            self.steps.iter().map(|(process, step)| (step.at, format!("{process}: {step}")));
        let mut lines: Vec<(Moment, String)> = faults.chain(steps).collect();
        lines.sort_by_key(|(at, _)| *at);
        lines.iter().try_for_each(|(at, line)| writeln!(f, "{} {line}", at.as_nanos()))
    }
}

/// What the rules are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    /// How long a key that is waited for may stand idle in a calm: a TTL, the store's lapse delay,
    /// and what a busy machine needs.
    pub(crate) patience: Duration,
    /// How long before its deadline a hold is given up: a release whose answer was cut off, and that
    /// finds nothing when it asks again that late, may say that the hold was lost.
    pub(crate) grace: Duration,
    /// Whether the store frees the holds of a process that was killed before their TTL.
    pub(crate) frees_at_once: bool,
}

/// What was seen, when all was well.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// Turns in which something was held.
    pub(crate) holds: usize,
    /// Those that ended by a loss.
    pub(crate) lost: usize,
    /// The longest time that a key stood idle in a calm while somebody waited.
    pub(crate) idle: Duration,
}

/// One turn of a worker.
#[derive(Debug)]
struct Turn {
    process: usize,
    key: String,
    share: Share,
    wanted: Moment,
    /// When the wait ended, by a grant or without.
    answered: Option<Moment>,
    fence: Option<Fence>,
    /// The first and the last moment at which it certainly held.
    held: Option<Span>,
    /// Until when it could act, as of the last check that was good.
    deadline: Moment,
    lost: Option<Moment>,
    /// It released, or may have.
    leaves: bool,
}

/// Judges a record.
///
/// # Errors
///
/// With the first thing that is against the rules.
pub(crate) fn judge(record: &Record, rules: Rules) -> Result<Verdict, String> {
    let turns = turns(record, rules)?;
    let mut fences = BTreeSet::new();
    for turn in &turns {
        if let Some(fence) = turn.fence
            && !fences.insert((turn.key.as_str(), fence))
        {
            return Err(format!("a fence was given twice: {turn:?}"));
        }
        if turn.answered.is_none() && !record.killed.contains_key(&turn.process) {
            return Err(format!("a live waiter was never granted: {turn:?}"));
        }
    }
    let holds: Vec<Held> = turns.iter().filter_map(|turn| turn.hold(record, rules)).collect();
    let count = holds.len();
    history::check(holds).map_err(|violation| violation.to_string())?;
    let mut idle = Duration::ZERO;
    for calm in &record.calms {
        idle = idle.max(longest_idle(record, &turns, *calm, rules)?);
    }
    let lost = turns.iter().filter(|turn| turn.lost.is_some()).count();
    Ok(Verdict { holds: count, lost, idle })
}

/// The turns, put together from their steps; each step by itself is judged on the way.
fn turns(record: &Record, rules: Rules) -> Result<Vec<Turn>, String> {
    let mut turns: BTreeMap<(usize, u64), Turn> = BTreeMap::new();
    for (process, step) in &record.steps {
        let Step { turn: number, at, what } = step;
        let id = (*process, *number);
        if let What::Want { share, key } = what {
            turns.insert(id, Turn::new(*process, key.clone(), *share, *at));
            continue;
        }
        let turn = turns.get_mut(&id).ok_or_else(|| format!("a turn without a want: {step:?}"))?;
        turn.takes(*at, what, rules).map_err(|why| format!("{why}: {step:?} of {turn:?}"))?;
    }
    Ok(turns.into_values().collect())
}

impl Turn {
    const fn new(process: usize, key: String, share: Share, wanted: Moment) -> Self {
        let (answered, fence, held, lost) = (None, None, None, None);
        let deadline = Moment::from_nanos(0);
        Self { process, key, share, wanted, answered, fence, held, deadline, lost, leaves: false }
    }

    fn takes(&mut self, at: Moment, what: &What, rules: Rules) -> Result<(), &'static str> {
        match what {
            What::Held { fence, deadline } => {
                (self.fence, self.answered) = (Some(*fence), Some(at));
                self.held = Some(Span { from: at, to: at });
                return self.good(at, *deadline);
            }
            What::Good { deadline } => return self.good(at, *deadline),
            What::Late { fence } => (self.fence, self.answered) = (Some(*fence), Some(at)),
            What::GaveUp => self.answered = Some(at),
            What::Lost => self.lost = Some(at),
            What::Leaving => self.leaves = true,
            What::Left { found: Some(Released::Lost) } if at + rules.grace < self.deadline => {
                return Err("the store ended a hold before its deadline");
            }
            What::Want { .. } | What::Left { .. } => {}
            What::Failed { .. } => return Err("the library gave an error"),
        }
        Ok(())
    }

    fn good(&mut self, at: Moment, deadline: Moment) -> Result<(), &'static str> {
        if at >= deadline {
            return Err("a check after the deadline was good");
        }
        if self.lost.is_some() {
            return Err("a check after the loss was good");
        }
        if deadline < self.deadline {
            return Err("a deadline moved back");
        }
        self.deadline = deadline;
        if let Some(held) = &mut self.held {
            held.to = at;
        }
        Ok(())
    }

    /// The hold, for as long as nobody else may have had it. One that was neither released nor
    /// ended by the store lasts until its deadline, whether or not its holder was there to see it.
    fn hold(&self, record: &Record, rules: Rules) -> Option<Held> {
        let Span { from, mut to } = self.held?;
        let killed = record.killed.contains_key(&self.process);
        if let Some(lost) = self.lost {
            to = to.max(self.deadline.min(lost));
        } else if killed && !self.leaves && !rules.frees_at_once {
            to = self.deadline;
        }
        let key = Key::new(&self.key).ok()?;
        Some(Held { key, share: self.share, fence: self.fence?, from, to })
    }

    /// When the key was certainly not idle: a hold is a sign of life for as long as it lasts.
    fn busy(&self) -> Option<Span> {
        let granted = self.fence.and(self.answered)?;
        Some(self.held.unwrap_or(Span { from: granted, to: granted }))
    }

    /// When in a calm it waited, if it was in no trouble meanwhile.
    fn unhindered_wait(&self, record: &Record, calm: Span) -> Option<Span> {
        let answered = self.answered.unwrap_or(calm.to);
        let wait = Span { from: self.wanted.max(calm.from), to: answered.min(calm.to) };
        let troubled =
            |(process, span): &(usize, Span)| *process == self.process && span.meets(wait);
        let died = record.killed.get(&self.process).is_some_and(|at| *at < wait.to);
        let hindered = wait.from >= wait.to || died || record.troubled.iter().any(troubled);
        (!hindered).then_some(wait)
    }
}

/// For how long a key was idle in a calm although somebody waited for it who was in no trouble.
fn longest_idle(
    record: &Record,
    turns: &[Turn],
    calm: Span,
    rules: Rules,
) -> Result<Duration, String> {
    let mut busy: HashMap<&str, Vec<Span>> = HashMap::new();
    for turn in turns {
        if let Some(span) = turn.busy().filter(|span| span.from <= calm.to && calm.from <= span.to)
        {
            busy.entry(&turn.key).or_default().push(span);
        }
    }
    let mut gaps: HashMap<&str, Vec<Span>> = HashMap::new();
    let mut longest = Duration::ZERO;
    for turn in turns {
        let Some(wait) = turn.unhindered_wait(record, calm) else { continue };
        let gaps = gaps
            .entry(&turn.key)
            .or_insert_with(|| between(busy.remove(turn.key.as_str()).unwrap_or_default(), calm));
        for gap in gaps {
            let from = gap.from.max(wait.from);
            let idle = gap.to.min(wait.to).since(from);
            if idle > rules.patience {
                return Err(format!("idle for {idle:?} from {from:?} in {calm:?} before {turn:?}"));
            }
            longest = longest.max(idle);
        }
    }
    Ok(longest)
}

/// What of `calm` is in none of the `spans`.
fn between(mut spans: Vec<Span>, calm: Span) -> Vec<Span> {
    spans.push(Span { from: calm.to, to: calm.to });
    spans.sort_by_key(|span| span.from);
    let (mut gaps, mut since) = (Vec::new(), calm.from);
    for span in spans {
        if since < span.from {
            gaps.push(Span { from: since, to: span.from });
        }
        since = since.max(span.to);
    }
    gaps
}

#[cfg(test)]
#[path = "judge_tests.rs"]
mod tests;
