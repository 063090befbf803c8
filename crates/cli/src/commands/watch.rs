//! `leasehold watch`: what happens to a key, as it happens.

use std::collections::HashSet;
use std::time::Duration;

use jiff::{Timestamp, Unit, Zoned};
use leasehold::{ClaimId, Line, Party};
use serde::Serialize;

use super::{Outcome, plain_client};
use crate::args::{Common, Watch};
use crate::exit::{self, Failure};
use crate::output::{FAINT, Output, STRONG};
use crate::signals::Signals;
use crate::waiting::describe;

/// More often than this only heats the store.
const SHORTEST: Duration = Duration::from_millis(10);

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum What {
    Held,
    Ended,
    Waiting,
    GaveUp,
    Free,
    Trouble,
    Recovered,
}

/// One event, as `--json` prints it. Field names are part of the interface.
#[derive(Serialize)]
struct Event<'a> {
    at: String,
    #[serde(rename = "event")]
    what: What,
    key: &'a str,
    owner: Option<&'a str>,
    note: Option<&'a str>,
    fence: Option<u64>,
}

/// Runs the verb.
pub(crate) async fn watch(
    args: &Watch,
    common: &Common,
    output: Output,
) -> Result<Outcome, Failure> {
    let client = plain_client(common)?;
    let mut signals = Signals::listen()?;
    let printer = Printer { key: args.key.as_str(), json: args.json, output };
    let mut seen: Option<Line> = None;
    let mut in_trouble = false;
    loop {
        let looked = tokio::select! {
            looked = client.store().inspect(&args.key) => looked,
            signal = signals.end() => return Ok(Outcome::Code(exit::of_signal(signal.as_raw()))),
        };
        match looked {
            Ok(line) => {
                if std::mem::take(&mut in_trouble) {
                    printer.print(What::Recovered, None, "")?;
                }
                for (what, party) in changes(seen.as_ref(), &line) {
                    printer.print(what, party, "")?;
                }
                seen = Some(line);
            }
            Err(error) if error.is_transient() => {
                if !std::mem::replace(&mut in_trouble, true) {
                    printer.print(What::Trouble, None, &Failure::message_of(&error))?;
                }
            }
            Err(error) => return Err(error.into()),
        }
        tokio::select! {
            () = tokio::time::sleep(args.every.max(SHORTEST)) => {}
            signal = signals.end() => return Ok(Outcome::Code(exit::of_signal(signal.as_raw()))),
        }
    }
}

/// Tells parties apart: those that are not of leasehold by what is seen of them.
fn name(party: &Party) -> (Option<ClaimId>, &str) {
    (party.claim, party.owner.as_str())
}

fn among(parties: &[Party]) -> HashSet<(Option<ClaimId>, &str)> {
    parties.iter().map(name).collect()
}

/// What happened between two looks: ends before beginnings, so that a hand-over reads in order.
fn changes<'a>(before: Option<&'a Line>, now: &'a Line) -> Vec<(What, Option<&'a Party>)> {
    let (was_holding, was_waiting) =
        before.map_or((&[][..], &[][..]), |line| (&line.holders[..], &line.waiters[..]));
    let (held_before, waited_before) = (among(was_holding), among(was_waiting));
    let (hold, wait) = (among(&now.holders), among(&now.waiters));

    let ended = was_holding.iter().filter(|party| !hold.contains(&name(party)));
    let gave_up = was_waiting
        .iter()
        .filter(|party| !wait.contains(&name(party)) && !hold.contains(&name(party)));
    let granted = now.holders.iter().filter(|party| !held_before.contains(&name(party)));
    let came = now.waiters.iter().filter(|party| !waited_before.contains(&name(party)));
    let was_free = before.is_some_and(|before| before.holders.is_empty());
    let free = now.holders.is_empty() && !was_free;

    ended
        .map(|party| (What::Ended, Some(party)))
        .chain(gave_up.map(|party| (What::GaveUp, Some(party))))
        .chain(granted.map(|party| (What::Held, Some(party))))
        .chain(came.map(|party| (What::Waiting, Some(party))))
        .chain(free.then_some((What::Free, None)))
        .collect()
}

struct Printer<'a> {
    key: &'a str,
    json: bool,
    output: Output,
}

impl Printer<'_> {
    fn print(&self, event: What, party: Option<&Party>, detail: &str) -> Result<(), Failure> {
        if self.json {
            return self.output.json(&Event {
                at: Timestamp::now().to_string(),
                what: event,
                key: self.key,
                owner: party.map(|party| party.owner.as_str()),
                note: party.map(|party| party.note.as_str()),
                fence: party.and_then(|party| party.fence).map(leasehold::Fence::get),
            });
        }
        let now = Zoned::now().round(Unit::Millisecond).unwrap_or_else(|_| Zoned::now());
        let who = party.map(describe).unwrap_or_default();
        let fence = party
            .and_then(|party| party.fence)
            .map_or_else(String::new, |fence| format!("  {FAINT}fence {fence}{FAINT:#}"));
        let what = match event {
            What::Held => format!("held by {who}{fence}"),
            What::Ended => format!("no longer held by {who}{fence}"),
            What::Waiting => format!("{who} waits"),
            What::GaveUp => format!("{who} waits no longer"),
            What::Free => "free".to_owned(),
            What::Trouble => format!("trouble: {detail}"),
            What::Recovered => "the store answers again".to_owned(),
        };
        let time = now.strftime("%H:%M:%S%.3f");
        self.output.print(&format!("{STRONG}{time}{STRONG:#}  {what}\n"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn party(number: u8) -> Party {
        Party { claim: Some(ClaimId::from_random([number; 16])), ..Party::default() }
    }

    fn line(holders: &[u8], waiters: &[u8]) -> Line {
        let parties = |numbers: &[u8]| numbers.iter().map(|&number| party(number)).collect();
        Line { holders: parties(holders), waiters: parties(waiters) }
    }

    fn told(before: Option<&Line>, now: &Line) -> Vec<(What, Option<u8>)> {
        let number = |party: &Party| party.claim.map(|claim| claim.as_bytes()[0]);
        changes(before, now)
            .into_iter()
            .map(|(what, party)| (what, party.and_then(number)))
            .collect()
    }

    #[test]
    fn a_hand_over_reads_in_order() {
        let (before, now) = (line(&[1], &[2, 3]), line(&[2], &[4]));
        assert_eq!(
            told(Some(&before), &now),
            [
                (What::Ended, Some(1)),
                (What::GaveUp, Some(3)),
                (What::Held, Some(2)),
                (What::Waiting, Some(4)),
            ]
        );
    }

    #[test]
    fn the_first_look_and_nothing_new() {
        assert_eq!(told(None, &line(&[], &[])), [(What::Free, None)]);
        assert_eq!(told(Some(&line(&[], &[])), &line(&[], &[])), []);
        assert_eq!(told(None, &line(&[1], &[])), [(What::Held, Some(1))]);
        let ended = told(Some(&line(&[1], &[])), &line(&[], &[]));
        assert_eq!(ended, [(What::Ended, Some(1)), (What::Free, None)]);
    }
}
