//! `leasehold check`: whether a script's hold is still its own.

use leasehold::Standing;
use serde::Serialize;

use super::{Outcome, grant, plain_client};
use crate::args::{Check, Common, Granted};
use crate::duration::show;
use crate::exit::{self, Failure};
use crate::output::Output;

/// What `--json` prints. Field names are part of the interface.
#[derive(Serialize)]
struct Report<'a> {
    key: &'a str,
    held: bool,
    fence: Option<u64>,
    left_ms: Option<u64>,
}

/// Runs the verb.
pub(crate) async fn check(
    args: &Check,
    common: &Common,
    output: Output,
) -> Result<Outcome, Failure> {
    let client = plain_client(common)?;
    let standing = client.check(&grant(&args.granted)?).await?;
    report(&args.granted, standing, output)
}

/// Tells what is left of a hold. One of which nothing is left is not ours to act under.
pub(crate) fn report(
    granted: &Granted,
    standing: Option<Standing>,
    output: Output,
) -> Result<Outcome, Failure> {
    let standing = standing.filter(|standing| !standing.left.is_zero());
    let key = granted.key.as_str();
    if granted.json {
        output.json(&Report {
            key,
            held: standing.is_some(),
            fence: standing.and_then(|standing| standing.fence).map(leasehold::Fence::get),
            left_ms: standing
                .map(|standing| u64::try_from(standing.left.as_millis()).unwrap_or(u64::MAX)),
        })?;
    }
    match standing {
        Some(standing) => {
            if !granted.json {
                output.note(format_args!("{key:?} is ours for another {}", show(standing.left)));
            }
            Ok(Outcome::OK)
        }
        None if granted.json => Ok(Outcome::Code(exit::LOST)),
        None => Err(Failure::new(exit::LOST, format!("{key:?} is not ours any more"))),
    }
}
