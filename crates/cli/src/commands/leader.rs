//! `leasehold leader`: who leads, and each change of it.

use std::pin::pin;

use futures::StreamExt as _;
use leasehold::{Leadership, Observed};
use serde::Serialize;

use super::{Outcome, plain_client};
use crate::args::{Common, LeaderOf};
use crate::exit::{self, Failure};
use crate::output::{Output, printable};
use crate::signals::Signals;

/// What happened, as `--json` prints it. Field names are part of the interface.
#[derive(Serialize)]
struct Told<'a> {
    event: &'static str,
    name: &'a str,
    term: Option<u64>,
    address: Option<&'a str>,
    owner: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    changes: Option<u64>,
}

/// Runs the verb.
pub(crate) async fn leader(
    args: &LeaderOf,
    common: &Common,
    output: Output,
) -> Result<Outcome, Failure> {
    let client = plain_client(common)?;
    let office = client.election(args.name.clone())?;
    let mut signals = Signals::listen()?;
    if !args.follow {
        let now = tokio::select! {
            now = office.leader() => now?,
            signal = signals.end() => return Ok(Outcome::Code(exit::of_signal(signal.as_raw()))),
        };
        let now = now.map_or(Observed::Vacant, Observed::Leads);
        // Without a leader there is no line to read: the exit code says it.
        if args.json || now != Observed::Vacant {
            print(args, &now, output)?;
        }
        let vacant = now == Observed::Vacant;
        return Ok(if vacant { Outcome::Code(exit::DOUBTFUL) } else { Outcome::OK });
    }
    let mut changes = pin!(office.observe());
    let mut in_trouble = false;
    loop {
        let change = tokio::select! {
            change = changes.next() => change,
            signal = signals.end() => return Ok(Outcome::Code(exit::of_signal(signal.as_raw()))),
        };
        match change {
            Some(Ok(change)) => {
                in_trouble = false;
                print(args, &change, output)?;
            }
            Some(Err(error)) if error.is_transient() => {
                if !std::mem::replace(&mut in_trouble, true) {
                    output.warn(format_args!("{}; trying again", Failure::message_of(&error)));
                }
            }
            Some(Err(error)) => return Err(error.into()),
            None => return Ok(Outcome::OK),
        }
    }
}

fn print(args: &LeaderOf, now: &Observed, output: Output) -> Result<(), Failure> {
    if args.json {
        let event = |event| Told {
            event,
            name: args.name.as_str(),
            term: None,
            address: None,
            owner: None,
            changes: None,
        };
        return output.json(&match now {
            Observed::Leads(leadership) => Told {
                term: leadership.term.map(leasehold::Fence::get),
                address: Some(leadership.note.as_str()),
                owner: Some(leadership.owner.as_str()),
                ..event("leads")
            },
            Observed::Missed(changes) => Told { changes: Some(*changes), ..event("missed") },
            _ => event("vacant"),
        });
    }
    match now {
        Observed::Leads(leadership) => output.print(&format!("{}\n", called(leadership))),
        Observed::Missed(changes) => {
            output.warn(format_args!("{changes} changes of office came and went unseen"));
            Ok(())
        }
        _ => output.print("\n"),
    }
}

/// Its address, or who it is if it gave none.
fn called(leadership: &Leadership) -> String {
    let Leadership { note, owner, .. } = leadership;
    printable(if note.as_str().is_empty() { owner.as_str() } else { note.as_str() })
}
