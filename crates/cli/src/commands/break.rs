//! `leasehold break`: an operator's way out.

use std::io::{self, BufRead as _, IsTerminal as _};

use leasehold::{Line, Store};
use serde::Serialize;

use super::inspect::{ShownParty, human};
use super::{Outcome, plain_client};
use crate::args::{Break, Common};
use crate::exit::{self, Failure};
use crate::output::Output;
use crate::waiting::describe;

/// What `--json` prints. Field names are part of the interface.
#[derive(Serialize)]
struct Report<'a> {
    key: &'a str,
    broken: bool,
    holders: Vec<ShownParty<'a>>,
}

/// Runs the verb.
pub(crate) async fn r#break(
    args: &Break,
    common: &Common,
    output: Output,
) -> Result<Outcome, Failure> {
    let client = plain_client(common)?;
    let store = client.store();
    let key = args.key.as_str();
    let line = store.inspect(&args.key).await?;
    if let Some(foreign) = line.holders.iter().find(|holder| holder.claim.is_none()) {
        return Err(Failure::new(
            exit::DENIED,
            format!(
                "{key:?} is held by {}: break ends only holds of leasehold; end this one with the \
                 tool that took it",
                describe(foreign)
            ),
        ));
    }
    let mut broken = false;
    if !line.holders.is_empty() {
        confirm(args, &line, output)?;
        broken = revoke(store.as_ref(), args, &line).await?;
    }
    if args.json {
        let holders = line.holders.iter().map(Into::into).collect();
        output.json(&Report { key, broken, holders })?;
    } else if line.holders.is_empty() {
        output.note(format_args!("nobody holds {key:?}"));
    } else if broken {
        output.note(format_args!("broke the hold on {key:?}"));
    } else {
        output.note(format_args!("the hold on {key:?} had ended already"));
    }
    Ok(Outcome::OK)
}

/// Ends the holders that were shown, and nobody who came after them.
async fn revoke(store: &dyn Store, args: &Break, line: &Line) -> Result<bool, Failure> {
    let mut broken = false;
    for claim in line.holders.iter().filter_map(|holder| holder.claim) {
        broken |= store.revoke(&args.key, &claim).await?;
    }
    Ok(broken)
}

fn confirm(args: &Break, line: &Line, output: Output) -> Result<(), Failure> {
    if args.yes {
        return Ok(());
    }
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        let message = "there is no terminal to ask on; pass --yes to break the hold without asking";
        return Err(Failure::new(exit::USAGE, message));
    }
    output.draw(&human(args.key.as_str(), line));
    output.draw("Break this hold? Its holder may still be acting. [y/N] ");
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    match answer.trim() {
        "y" | "Y" | "yes" => Ok(()),
        _ => Err(Failure::new(1, "not broken")),
    }
}
