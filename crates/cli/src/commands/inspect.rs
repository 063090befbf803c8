//! `leasehold inspect`: who holds a key, and who waits for it.

use std::fmt::Write as _;
use std::time::Duration;

use leasehold::{Line, Party};
use serde::Serialize;

use super::{Outcome, plain_client};
use crate::args::{Common, Inspect};
use crate::duration::show;
use crate::exit::Failure;
use crate::output::{FAINT, Output, STRONG, printable};
use crate::waiting::describe;

/// A key with its line, as `--json` prints it. Field names are part of the interface.
#[derive(Serialize)]
pub(crate) struct Shown<'a> {
    key: &'a str,
    store: &'a str,
    holders: Vec<ShownParty<'a>>,
    waiters: Vec<ShownParty<'a>>,
}

/// A holder or a waiter. Its claim is left out on purpose: whoever knows it can end it.
#[derive(Serialize)]
pub(crate) struct ShownParty<'a> {
    owner: &'a str,
    note: &'a str,
    fence: Option<u64>,
    age_ms: Option<u64>,
    left_ms: Option<u64>,
    units: u32,
    limit: u32,
    foreign: bool,
}

impl<'a> From<&'a Party> for ShownParty<'a> {
    fn from(party: &'a Party) -> Self {
        let millis = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        Self {
            owner: party.owner.as_str(),
            note: party.note.as_str(),
            fence: party.fence.map(leasehold::Fence::get),
            age_ms: party.age.map(millis),
            left_ms: party.left.map(millis),
            units: party.units,
            limit: party.limit,
            foreign: party.claim.is_none(),
        }
    }
}

impl<'a> Shown<'a> {
    pub(crate) fn new(key: &'a str, store: &'a str, line: &'a Line) -> Self {
        Self {
            key,
            store,
            holders: line.holders.iter().map(Into::into).collect(),
            waiters: line.waiters.iter().map(Into::into).collect(),
        }
    }
}

/// Runs the verb.
pub(crate) async fn inspect(
    args: &Inspect,
    common: &Common,
    output: Output,
) -> Result<Outcome, Failure> {
    let client = plain_client(common)?;
    let store = client.store();
    let line = store.inspect(&args.key).await?;
    if args.json {
        output.json(&Shown::new(args.key.as_str(), &store.to_string(), &line))?;
    } else {
        output.print(&human(args.key.as_str(), &line))?;
    }
    Ok(Outcome::OK)
}

/// The line of a key for people.
pub(crate) fn human(key: &str, line: &Line) -> String {
    let mut text = format!("{STRONG}{}{STRONG:#}", printable(key));
    if line.holders.is_empty() {
        text.push_str("  free");
    }
    text.push('\n');
    // Writing to a `String` cannot fail.
    for holder in &line.holders {
        let _ = writeln!(text, "  held by {}{}", describe(holder), facts(holder, "for"));
    }
    for (place, waiter) in line.waiters.iter().enumerate() {
        let facts = facts(waiter, "waiting");
        let _ = writeln!(text, "  {}. {}{facts}", place + 1, describe(waiter));
    }
    text
}

fn facts(party: &Party, verb: &str) -> String {
    let mut facts = Vec::new();
    facts.extend(party.age.map(|age| format!("{verb} {}", show(age))));
    match party.left {
        Some(left) => facts.push(format!("lapses in {} unless renewed", show(left))),
        None if party.claim.is_none() => facts.push("never lapses".to_owned()),
        None => {}
    }
    facts.extend(party.fence.map(|fence| format!("fence {fence}")));
    facts.extend(share(party.units, party.limit));
    if facts.is_empty() {
        return String::new();
    }
    format!("  {FAINT}{}{FAINT:#}", facts.join(", "))
}

/// How much of the key it has; nothing for a mutex.
fn share(units: u32, limit: u32) -> Option<String> {
    match (units, limit) {
        (_, 1) => None,
        (1, u32::MAX) => Some("reads".to_owned()),
        (u32::MAX, u32::MAX) => Some("writes".to_owned()),
        // Of stored slots: a part of the whole.
        (_, u32::MAX) => {
            Some(format!("{:.1} % of the whole", f64::from(units) / f64::from(limit) * 100.0))
        }
        _ => Some(format!("{units} of {limit}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use leasehold::{ClaimId, Fence, Note};

    fn party(owner: &str) -> Party {
        Party {
            claim: Some(ClaimId::from_random([7; 16])),
            owner: Note::new(owner).unwrap(),
            age: Some(Duration::from_secs(12)),
            left: Some(Duration::from_secs(29)),
            units: 1,
            limit: 1,
            ..Party::default()
        }
    }

    #[test]
    fn people_see_who_holds_and_who_waits() {
        let holder = Party { fence: Some(Fence::new(7)), ..party("a:1") };
        let line = Line { holders: vec![holder], waiters: vec![party("b:2"), party("c\x1b:3")] };
        let text = anstream::adapter::strip_str(&human("jobs\n", &line)).to_string();
        assert_eq!(
            text,
            "jobs\\n\n  \
             held by a:1  for 12s, lapses in 29s unless renewed, fence 7\n  \
             1. b:2  waiting 12s, lapses in 29s unless renewed\n  \
             2. c\\u{1b}:3  waiting 12s, lapses in 29s unless renewed\n"
        );
        assert!(human("k", &Line::default()).contains("free"));
    }

    #[test]
    fn people_see_which_share_somebody_has() {
        let shares =
            [(1, 1), (1, 3), (1, u32::MAX), (u32::MAX, u32::MAX), (u32::MAX / 3, u32::MAX)];
        let shown = shares.map(|(units, limit)| share(units, limit).unwrap_or_default());
        assert_eq!(shown, ["", "1 of 3", "reads", "writes", "33.3 % of the whole"]);
    }

    #[test]
    fn json_shows_no_claim() {
        let line = Line { holders: vec![party("a:1")], waiters: vec![] };
        let json = serde_json::to_string(&Shown::new("k", "memory:", &line)).unwrap();
        assert_eq!(
            json,
            r#"{"key":"k","store":"memory:","holders":[{"owner":"a:1","note":"","fence":null,"age_ms":12000,"left_ms":29000,"units":1,"limit":1,"foreign":false}],"waiters":[]}"#
        );
    }
}
